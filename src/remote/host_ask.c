#include "remote/host_int.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/httpc.h"
#include "base/mem.h"
#include "base/redact.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/*
 * One REST call.  The token travels in a header that lives in memory only, to the API's own address
 * and nowhere else: httpc follows no redirect.  What a host says back may hold what it was sent, so
 * its words are redacted by value and by pattern before anybody sees them (T24).
 */

static void forget(host_talk *k)
{
    json_decref(k->json);
    *k = (host_talk){ .h = k->h, .deadline_ms = k->deadline_ms, .answer = k->answer };
}

void host_talk_dispose(host_talk *k)
{
    forget(k);
}

memfs_code host_refuse(host_talk *k, memfs_code code, memfs_error *err, const char *fmt, ...)
{
    char text[sizeof(k->answer->words)];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    text[str_utf8_valid_prefix(str_of(text))] = '\0'; /* cut inside a letter, perhaps */
    snprintf(k->answer->words, sizeof(k->answer->words), "%s", text);
    return memfs_fail(err, code, "%s", text);
}

/* ---- the request ---- */

/* Several of them in one place: one buffer to wipe. */
typedef struct head {
    memfs_buf authorization;
    const char *lines[8];
} head;

static void head_dispose(head *h)
{
    explicit_bzero(h->authorization.ptr, h->authorization.cap);
    buf_dispose(&h->authorization);
}

static void head_make(const host *h, bool has_body, head *ret)
{
    const char *secret = h->target->cred.secret;
    size_t n = 0;

    ret->lines[n++] = "User-Agent: memfs/" MEMFS_VERSION; /* GitHub refuses who has none */
    ret->lines[n++] = h->kind == HOST_GITHUB ? "Accept: application/vnd.github+json"
                                             : "Accept: application/json";
    if (h->kind == HOST_GITHUB)
        ret->lines[n++] = "X-GitHub-Api-Version: 2022-11-28";
    if (has_body)
        ret->lines[n++] = "Content-Type: application/json";
    if (secret != NULL && h->kind != HOST_UNKNOWN) {
        buf_printf(&ret->authorization, "Authorization: %s %s",
                   h->kind == HOST_GITEA || h->kind == HOST_FORGEJO ? "token" : "Bearer", secret);
        ret->lines[n++] = ret->authorization.ptr;
    }
    ret->lines[n] = NULL;
}

static bool on_piece(memfs_str piece, void *ctx)
{
    memfs_buf *body = ctx;

    buf_add_str(body, piece);
    return !body->too_big;
}

static void on_header(memfs_str name, memfs_str value, void *ctx)
{
    host_talk *k = ctx;
    char date[64];

    host_read_header(name, value, k);
    if (name.len == 4 && strncasecmp(name.ptr, "date", 4) == 0)
        k->date_s = httpc_date(escape_text(value, date, sizeof(date)));
}

/* ---- the answer ---- */

static void keep_words(host_talk *k, memfs_str words)
{
    const char *secrets[] = { k->h->target->cred.secret, k->h->target->cred.username };
    memfs_buf clean = MEMFS_BUF_INIT(64 * 1024);

    /* a name like "memfs" is no secret, a token that was given as one is */
    redact_add(&clean, words, secrets, secrets[1] != NULL && strlen(secrets[1]) >= 16 ? 2 : 1);
    escape_text(buf_str(&clean), k->said, sizeof(k->said));
    buf_dispose(&clean);
}

/* Text of a proxy, or of a host whose words are no JSON: its first line. */
static void keep_text(host_talk *k, const httpc_answer *http, memfs_str body)
{
    memfs_str line = body, rest;

    str_split(body, '\n', &line, &rest);
    if (strcmp(http->content_type, "text/html") != 0 && line.len > 0 && line.ptr[0] != '<')
        keep_words(k, line);
}

static void read_body(host_talk *k, const httpc_answer *http, memfs_str body)
{
    memfs_buf words = MEMFS_BUF_INIT(16 * 1024);
    json_error_t ignored;

    if (strstr(http->content_type, "json") != NULL)
        k->json = json_loadb(body.ptr, body.len, 0, &ignored);
    if (k->json == NULL) {
        keep_text(k, http, body);
        return;
    }
    host_words(k->json, &words);
    keep_words(k, buf_str(&words));
    buf_dispose(&words);
}

static bool is_too_many(const host_talk *k)
{
    return k->status == 429 ||
           (k->status == 403 && (k->has_no_calls_left || k->retry_after_s > 0));
}

bool host_is_good(const host_talk *k)
{
    return k->status >= 200 && k->status < 300;
}

/* ", 'their words'", or nothing. */
static const char *quoted(const host_talk *k, char *out, size_t size)
{
    snprintf(out, size, k->said[0] != '\0' ? ": '%s'" : "%s", k->said);
    return out;
}

static memfs_code judge_credentials(host_talk *k, memfs_error *err)
{
    char said[260];

    k->answer->is_credentials = true;
    quoted(k, said, sizeof(said));
    if (k->h->target->cred.secret == NULL)
        return host_refuse(k, MEMFS_EDENIED, err,
                           "no token is known for '%s': set one ('memfs remote set', or a token "
                           "file) (HTTP 401%s)", k->h->target->url.host, said);
    return host_refuse(k, MEMFS_EDENIED, err,
                       "the host refuses the token: it is wrong, expired or revoked; make a new "
                       "one (HTTP 401%s)", said);
}

static memfs_code judge(host_talk *k, const httpc_answer *http, memfs_error *err)
{
    char said[260];

    k->answer->http_status = k->status;
    k->answer->retry_after_s = host_wait_s(k, clock_wall_us() / 1000000);
    quoted(k, said, sizeof(said));
    if (k->status == 401)
        return judge_credentials(k, err);
    if (is_too_many(k) && k->answer->retry_after_s > 0)
        return host_refuse(k, MEMFS_EUNAVAIL, err,
                           "too many calls to the host's API: it asks to wait %lld s (HTTP %d%s)",
                           (long long)k->answer->retry_after_s, k->status, said);
    if (is_too_many(k))
        return host_refuse(k, MEMFS_EUNAVAIL, err, "too many calls to the host's API (HTTP %d%s)",
                           k->status, said);
    if (k->status >= 500 || k->status == 408)
        return host_refuse(k, MEMFS_EUNAVAIL, err, "the host's API fails (HTTP %d%s)", k->status,
                           said);
    if (k->json == NULL && k->status < 300)
        return host_refuse(k, MEMFS_EUNAVAIL, err,
                           "%s came instead of an answer of the host's API: check the address, or "
                           "sign in to the network (HTTP %d)",
                           strcmp(http->content_type, "text/html") == 0 ? "a web page" : "no JSON",
                           k->status);
    return MEMFS_OK;
}

static memfs_code ask(host_talk *k, const char *url, const char *method, memfs_str body,
                      memfs_error *err)
{
    _cleanup_(head_dispose) head lines = { .authorization = MEMFS_BUF_INIT(16 * 1024) };
    _cleanup_(buf_dispose) memfs_buf got = MEMFS_BUF_INIT(HOST_MAX_BODY);
    const remote_target *t = k->h->target;
    httpc_request rq = {
        .url = url, .method = method, .body = body, .headers = lines.lines, .ca_file = t->ca_file,
        .timeout_ms = k->deadline_ms - clock_mono_ms(), .header = on_header, .header_ctx = k,
    };
    httpc_answer http;

    head_make(k->h, body.len > 0, &lines);
    rq.connect_timeout_ms = rq.timeout_ms;
    if (rq.timeout_ms <= 0)
        return host_refuse(k, MEMFS_EUNAVAIL, err, "no time is left to ask the host's API");
    httpc_fetch(&rq, on_piece, &got, &http);
    k->status = http.status;
    k->retry_after_s = http.retry_after_s;
    if (http.failure == HTTPC_STOPPED)
        return host_refuse(k, MEMFS_EUNAVAIL, err, "the answer of the host's API is larger than %u "
                           "MiB", HOST_MAX_BODY >> 20);
    if (http.failure != HTTPC_FINE)
        return host_refuse(k, MEMFS_EUNAVAIL, err, "the host's API is unreachable (%s)",
                           http.detail);
    /* curl takes the end of the connection for the end of a head */
    if (http.content_type[0] == '\0' && got.len == 0 && host_is_good(k))
        return host_refuse(k, MEMFS_EUNAVAIL, err,
                           "the host's API is unreachable (its answer ended in the middle)");
    read_body(k, &http, buf_str(&got));
    return judge(k, &http, err);
}

memfs_code host_ask(host_talk *k, const char *method, const char *path, memfs_str body,
                    memfs_error *err)
{
    _cleanup_(mem_freep) char *url = mem_printf("%s%s", k->h->api, path);

    forget(k);
    *k->answer = (host_answer){ .http_status = 0 };
    if (k->h->target->url.kind == URL_HTTP && !k->h->target->may_http)
        return host_refuse(k, MEMFS_EDENIED, err,
                           "http:// is not encrypted: use https://, or allow this host");
    return ask(k, url, method, body, err);
}

memfs_code host_get(host_talk *k, const char *path, memfs_error *err)
{
    return host_ask(k, "GET", path, MEMFS_STR(""), err);
}

memfs_code host_odd(host_talk *k, const char *what, memfs_error *err)
{
    char said[260];

    quoted(k, said, sizeof(said));
    if (k->status >= 300 && k->status < 400)
        return host_refuse(k, MEMFS_EINVALID, err,
                           "could not %s: the host redirects elsewhere (HTTP %d), and a token is "
                           "not sent after a redirect: give the address that it has now", what,
                           k->status);
    k->answer->is_missing = k->status == 404 || k->status == 410;
    k->answer->is_credentials = k->status == 403;
    if (k->answer->is_missing)
        return host_refuse(k, MEMFS_ENOTFOUND, err,
                           "could not %s: it is not there, or the token may not see it (HTTP %d%s)",
                           what, k->status, said);
    return host_refuse(k, k->status == 403 ? MEMFS_EDENIED : MEMFS_EINVALID, err,
                       "could not %s: the host refuses it (HTTP %d%s)", what, k->status, said);
}

char *host_owner_path(const host *h, const char *before, const char *after)
{
    memfs_buf out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    buf_puts(&out, before);
    buf_putc(&out, '/');
    httpc_escape(&out, str_of(h->owner));
    buf_puts(&out, after);
    return buf_take(&out, NULL);
}

char *host_repo_path(const host *h, const char *before, const char *after)
{
    _cleanup_(mem_freep) char *owner = host_owner_path(h, before, "/");
    memfs_buf out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    buf_puts(&out, owner);
    httpc_escape(&out, str_of(h->name));
    buf_puts(&out, after);
    return buf_take(&out, NULL);
}

/* ---- lists ---- */

static bool give_rows(const host_talk *k, host_row_fn fn, void *ctx)
{
    const json_t *row;
    size_t i;

    json_array_foreach(k->json, i, row)
        if (!fn(row, ctx))
            return false;
    return true;
}

memfs_code host_pages(host_talk *k, const char *path, host_row_fn fn, void *ctx, bool *ret_refused,
                      memfs_error *err)
{
    char joint = strchr(path, '?') != NULL ? '&' : '?';
    size_t n_so_far = 0;

    *ret_refused = false;
    for (size_t page = 1; page <= HOST_MAX_PAGES; page++) {
        _cleanup_(mem_freep) char *at = mem_printf("%s%cpage=%zu", path, joint, page);
        memfs_code rc = host_get(k, at, err);

        if (rc < 0)
            return rc;
        if (!host_is_good(k)) {
            *ret_refused = page == 1;
            return page == 1 ? MEMFS_OK : host_odd(k, "read on in a list", err);
        }
        n_so_far += json_array_size(k->json);
        if (!give_rows(k, fn, ctx) || !host_has_more(k, json_array_size(k->json), n_so_far))
            return MEMFS_OK;
    }
    return host_refuse(k, MEMFS_ELIMIT, err, "the host lists more than %d pages", HOST_MAX_PAGES);
}

bool host_hook_is(const json_t *row, void *search)
{
    host_hook_search *s = search;
    const json_t *config = json_object_get(row, "config");

    s->is_there = strcmp(host_text(row, "url"), s->url) == 0 ||
                  strcmp(host_text(config, "url"), s->url) == 0;
    return !s->is_there;
}

bool host_name_row(const json_t *row, void *names)
{
    const host_names *n = names;
    const char *name = host_text(row, n->name_key), *full = host_text(row, n->full_key);
    size_t len = n->owner != NULL ? strlen(n->owner) : 0;

    if (name[0] == '\0' ||
        (n->owner != NULL && (strncasecmp(full, n->owner, len) != 0 || full[len] != '/')))
        return true;
    return n->fn(str_of(name), n->ctx);
}
