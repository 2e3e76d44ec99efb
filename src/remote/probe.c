#include "remote/probe.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/fs.h"
#include "base/httpc.h"
#include "base/mem.h"
#include "base/redact.h"
#include "store/sidecar.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- one row an answer ---- */

#define MINUTE 60
#define HOUR (60 * MINUTE)

static const remote_class CLASSES[REMOTE_N_ANSWERS] = {
    [REMOTE_UNASKED] = { "unasked", "local-only: the remote was not asked yet", "", MEMFS_OK,
                         false, RETRY_NOW, 0 },
    [REMOTE_REFS] = { "refs", "synced", "", MEMFS_OK, false, RETRY_NOW, 0 },
    [REMOTE_EMPTY] = { "empty", "the remote is empty", "", MEMFS_OK, false, RETRY_NOW, 0 },
    [REMOTE_NOT_IMPLEMENTED] = { "not-implemented", "local-only: endpoint not implemented",
                                 "this server has no memory service: set LETTABOT_MEMFS_REMOTE to "
                                 "a git repository of yours, or point LETTA_MEMFS_BASE_URL to a "
                                 "memfs server",
                                 MEMFS_EUNAVAIL, false, RETRY_NEXT_RUN, 5 * MINUTE },
    [REMOTE_NOT_FOUND] = { "not-found", "local-only: repository not found",
                           "create the repository on the host, or correct the address ('memfs "
                           "remote set'); a private one that needs a token may look the same",
                           MEMFS_EUNAVAIL, false, RETRY_NEXT_RUN, 5 * MINUTE },
    [REMOTE_NOT_ALLOWED] = { "not-allowed", "local-only: endpoint does not take git requests",
                             "check that the address is that of a git repository",
                             MEMFS_EUNAVAIL, false, RETRY_NEXT_RUN, 5 * MINUTE },
    [REMOTE_NOT_GIT] = { "not-git", "local-only: not a git server",
                         "check the address; behind a captive portal, sign in to the network first",
                         MEMFS_EUNAVAIL, false, RETRY_NEXT_RUN, MINUTE },
    [REMOTE_UNAUTHORIZED] = { "unauthorized", "local-only: credentials refused",
                              "set LETTA_API_KEY for the Letta endpoint; for a git host set "
                              "MEMFS_REMOTE_TOKEN or give the token to 'memfs remote set'; for ssh "
                              "add your key to the host",
                              MEMFS_EDENIED, true, RETRY_NEVER, 24 * HOUR },
    [REMOTE_FORBIDDEN] = { "forbidden", "local-only: credentials refused",
                           "the credentials are known but may not do this: give the token access "
                           "to this repository (read and write), or use another",
                           MEMFS_EDENIED, true, RETRY_NEVER, 24 * HOUR },
    [REMOTE_TOO_MANY] = { "too-many-requests", "local-only: unreachable (too many requests)", "",
                          MEMFS_EUNAVAIL, false, RETRY_BACKOFF, MINUTE },
    [REMOTE_FAILING] = { "failing", "local-only: unreachable (the server fails)", "",
                         MEMFS_EUNAVAIL, false, RETRY_BACKOFF, 30 },
    [REMOTE_REFUSED] = { "refused", "local-only: unreachable (connection refused)",
                         "check that the server runs and that its port is right",
                         MEMFS_EUNAVAIL, false, RETRY_BACKOFF, 15 },
    [REMOTE_TIMEOUT] = { "timeout", "local-only: unreachable (no answer in time)",
                         "give it more time with --wait",
                         MEMFS_EUNAVAIL, false, RETRY_BACKOFF, MINUTE },
    [REMOTE_NO_NAME] = { "no-name", "local-only: unreachable (the host's name is not known)",
                         "check the host's name and the network",
                         MEMFS_EUNAVAIL, false, RETRY_BACKOFF, 15 },
    [REMOTE_TLS] = { "tls", "local-only: unreachable (TLS)",
                     "for a private authority set MEMFS_CA_FILE to its certificate; verification "
                     "cannot be switched off",
                     MEMFS_EUNAVAIL, false, RETRY_BACKOFF, MINUTE },
    [REMOTE_HOST_KEY] = { "host-key", "local-only: the ssh host key is unknown or has changed",
                          "compare the key with what the host's operator says, then add it: "
                          "ssh-keyscan HOST >> ~/.ssh/known_hosts",
                          MEMFS_EUNAVAIL, false, RETRY_NEXT_RUN, MINUTE },
    [REMOTE_CUT] = { "cut", "local-only: unreachable (the connection was cut)", "",
                     MEMFS_EUNAVAIL, false, RETRY_BACKOFF, 15 },
    [REMOTE_REJECTED] = { "rejected", "the remote refused the push",
                          "a hook or a protected branch refuses main there: allow it to be pushed",
                          MEMFS_ECONFLICT, false, RETRY_NEXT_RUN, 0 },
    [REMOTE_NOT_CREATED] = { "not-created", "the repository is missing and was not created",
                             "give the token the right to create repositories, or create it there",
                             MEMFS_EUNAVAIL, false, RETRY_BACKOFF, 5 * MINUTE },
    [REMOTE_OTHER] = { "other", "local-only: the remote failed", "", MEMFS_EUNAVAIL, false,
                       RETRY_BACKOFF, MINUTE },
};

const remote_class *remote_class_of(remote_answer answer)
{
    return &CLASSES[answer < REMOTE_N_ANSWERS ? answer : REMOTE_OTHER];
}

void remote_target_dispose(remote_target *t)
{
    url_dispose(&t->url);
    credential_dispose(&t->cred);
}

void remote_transport_target(const remote_target *t, transport_target *ret)
{
    *ret = (transport_target){
        .url = t->url.text,
        .username = t->cred.username,
        .secret = t->cred.secret,
        .ask_git_helpers = t->ask_git_helpers,
        .is_server = t->is_server,
        .ca_file = t->ca_file,
        .ssh_key = t->ssh_key,
        .ssh_known_hosts = t->ssh_known_hosts,
        .may_http = t->may_http,
        .may_path = t->url.kind == URL_PATH,
        .is_shared = t->is_shared,
        .hook_program = t->hook_program,
    };
}

/* ---- the answer of info/refs, read as it comes ---- */

/*
 *     001e# service=git-upload-pack\n   0000
 *     <len><id> <ref>[\0<capabilities>]\n ...   0000
 * An empty repository has the ref "capabilities^{}", or none.  "version 1" may come first;
 * "version 2" has no refs.  A packet that begins with "ERR " is a refusal in words.
 */
#define MAX_LIST_BYTES (4u << 20)
#define MAX_OTHER_BYTES (64u << 10)
#define MAX_PACKET 65520

typedef enum reading { READ_MORE, READ_DONE, READ_BAD, READ_ERROR, READ_V2 } reading;

#define FETCH "git-upload-pack"
#define PUSH "git-receive-pack"

typedef struct advertisement {
    const char *service;
    memfs_buf rest; /* bytes of a packet that is not whole yet */
    reading state;
    size_t n_bytes;
    bool had_service, had_flush; /* the flush behind the service line */
    bool has_main, is_too_long, knows_meta;
    memfs_oid main, meta;
    char words[160]; /* of an ERR packet */
} advertisement;

static reading read_ref(advertisement *a, memfs_str line)
{
    memfs_str hex, name, capabilities;
    memfs_oid id;

    if (str_starts_with(line, MEMFS_STR("version 2")))
        return READ_V2;
    if (str_starts_with(line, MEMFS_STR("version 1")))
        return READ_MORE;
    if (!str_split(line, ' ', &hex, &name) || !oid_parse(hex, &id))
        return READ_BAD;
    str_split(name, '\0', &name, &capabilities);
    if (str_equal(name, MEMFS_STR("refs/heads/main"))) {
        a->has_main = true;
        a->main = id;
    } else if (str_equal(name, MEMFS_STR(STORE_META))) {
        a->meta = id;
    }
    if (!a->has_main || str_compare(name, MEMFS_STR(STORE_META)) < 0)
        return READ_MORE;
    a->knows_meta = true; /* the list is sorted */
    return READ_DONE;
}

/* "# service=git-upload-pack" */
static bool is_service(const advertisement *a, memfs_str line)
{
    memfs_str start = MEMFS_STR("# service=");

    return str_starts_with(line, start) && str_equal(str_from(line, start.len), str_of(a->service));
}

static reading read_packet(advertisement *a, memfs_str line)
{
    while (line.len > 0 && line.ptr[line.len - 1] == '\n')
        line.len--;
    if (str_starts_with(line, MEMFS_STR("ERR "))) {
        escape_text(str_from(line, 4), a->words, sizeof(a->words));
        return READ_ERROR;
    }
    if (!a->had_service && is_service(a, line)) {
        a->had_service = true;
        return READ_MORE;
    }
    return read_ref(a, line);
}

/* The length of the packet at the front: 0 for a flush, -1 when it is none, -2 when it is not
 * whole. */
static int packet_length(memfs_str s)
{
    int n = 0;

    if (s.len < 4)
        return -2;
    for (size_t i = 0; i < 4; i++) {
        int digit = str_hex_digit(s.ptr[i]);

        if (digit < 0)
            return -1;
        n = n * 16 + digit;
    }
    if (n != 0 && (n < 4 || n > MAX_PACKET))
        return -1;
    return n;
}

/* The flush behind the service line parts it from the refs; the next one ends them. */
static reading read_flush(advertisement *a)
{
    if (!a->had_service || a->had_flush)
        return READ_DONE;
    a->had_flush = true;
    return READ_MORE;
}

static void read_packets(advertisement *a)
{
    memfs_str s = buf_str(&a->rest);

    while (a->state == READ_MORE) {
        int n = packet_length(s);

        if (n == -1)
            a->state = READ_BAD;
        if (n < 0 || (size_t)n > s.len)
            break;
        a->state = n == 0 ? read_flush(a) : read_packet(a, str_make(s.ptr + 4, (size_t)n - 4));
        s = str_from(s, n == 0 ? 4 : (size_t)n);
    }
    buf_drop_front(&a->rest, a->rest.len - s.len);
}

/* What is no list is read on for a little: curl tells where a redirect leads only at the end of
 * its answer. */
static bool on_piece(memfs_str piece, void *ctx)
{
    advertisement *a = ctx;

    a->n_bytes += piece.len;
    if (a->state == READ_BAD)
        return a->n_bytes < MAX_OTHER_BYTES;
    a->is_too_long = a->n_bytes > MAX_LIST_BYTES;
    buf_add_str(&a->rest, piece);
    if (a->rest.too_big)
        a->state = READ_BAD;
    else
        read_packets(a);
    return a->state == READ_BAD || (a->state == READ_MORE && !a->is_too_long);
}

/* ---- asking over HTTP ---- */

static void tell(probe_result *ret, remote_answer answer, const char *detail)
{
    ret->answer = answer;
    escape_text(str_of(detail), ret->detail, sizeof(ret->detail));
}

static bool has_word(const char *text, const char *word)
{
    return strcasestr(text, word) != NULL;
}

static remote_answer answer_of_words(const char *words)
{
    if (has_word(words, "not found") || has_word(words, "not exist") ||
        has_word(words, "not exported"))
        return REMOTE_NOT_FOUND;
    if (has_word(words, "denied") || has_word(words, "permission") || has_word(words, "authoriz"))
        return REMOTE_FORBIDDEN;
    return REMOTE_OTHER;
}

static remote_answer answer_of_status(int status)
{
    switch (status) {
    case 401:
        return REMOTE_UNAUTHORIZED;
    case 403:
    case 451:
        return REMOTE_FORBIDDEN;
    case 404:
    case 410:
        return REMOTE_NOT_FOUND;
    case 405:
        return REMOTE_NOT_ALLOWED;
    case 429:
        return REMOTE_TOO_MANY;
    case 501:
        return REMOTE_NOT_IMPLEMENTED;
    case 408:
        return REMOTE_FAILING;
    case 511: /* what a captive portal says when it is honest */
        return REMOTE_NOT_GIT;
    default:
        if (status >= 500)
            return REMOTE_FAILING;
        return status < 400 ? REMOTE_NOT_GIT : REMOTE_OTHER;
    }
}

static remote_answer answer_of_failure(httpc_failure failure)
{
    switch (failure) {
    case HTTPC_NO_NAME:
        return REMOTE_NO_NAME;
    case HTTPC_REFUSED:
        return REMOTE_REFUSED;
    case HTTPC_TIMEOUT:
        return REMOTE_TIMEOUT;
    case HTTPC_TLS:
        return REMOTE_TLS;
    case HTTPC_CUT:
        return REMOTE_CUT;
    case HTTPC_NOT_HTTP:
        return REMOTE_NOT_GIT;
    case HTTPC_FINE:
    case HTTPC_NO_LIBRARY:
    case HTTPC_STOPPED:
    case HTTPC_OTHER:
        break;
    }
    return REMOTE_OTHER;
}

static void judge_list(const advertisement *a, const httpc_answer *http, probe_result *ret)
{
    bool is_whole = http->failure == HTTPC_FINE && a->had_flush && a->rest.len == 0;
    bool was_cut = a->state == READ_MORE && !a->is_too_long && !is_whole;

    if (a->has_main) {
        ret->has_main = true;
        ret->main = a->main;
        ret->knows_meta = a->knows_meta || a->state == READ_DONE; /* or the list ended */
        ret->meta = a->meta;
        tell(ret, REMOTE_REFS, "");
    } else if (a->state == READ_ERROR) {
        tell(ret, answer_of_words(a->words), a->words);
    } else if (a->state == READ_BAD) {
        tell(ret, REMOTE_NOT_GIT, "what came is no list of refs");
    } else if (was_cut && http->failure == HTTPC_TIMEOUT) {
        tell(ret, REMOTE_TIMEOUT, http->detail);
    } else if (was_cut && a->n_bytes == 0) {
        tell(ret, REMOTE_NOT_GIT, "the answer is empty");
    } else if (was_cut) {
        tell(ret, REMOTE_CUT, "the list of refs ended in the middle");
    } else if (a->is_too_long) {
        tell(ret, REMOTE_REFS, "the list of refs is too long to read here");
    } else {
        tell(ret, REMOTE_EMPTY, "");
    }
}

static void judge_status(const httpc_answer *http, probe_result *ret)
{
    char detail[300];

    if (http->location_host[0] != '\0')
        snprintf(detail, sizeof(detail), "HTTP %d redirects to '%s'", http->status,
                 http->location_host);
    else
        snprintf(detail, sizeof(detail), "HTTP %d", http->status);
    ret->answer = answer_of_status(http->status);
    escape_text(str_of(detail), ret->detail, sizeof(ret->detail));
}

/* "application/x-git-upload-pack-advertisement" */
static bool is_list(const advertisement *a, const httpc_answer *http)
{
    memfs_str type = str_of(http->content_type), start = MEMFS_STR("application/x-");
    size_t n = strlen(a->service);

    return str_starts_with(type, start) &&
           str_starts_with(str_from(type, start.len), str_of(a->service)) &&
           str_equal(str_from(type, start.len + n), MEMFS_STR("-advertisement"));
}

/* The answer broke off before its body: a status line alone says nothing yet. */
static bool is_without_body(const advertisement *a, const httpc_answer *http)
{
    return http->status == 0 || (http->status == 200 && a->n_bytes == 0 &&
                                 http->failure != HTTPC_FINE && http->failure != HTTPC_STOPPED);
}

/* curl takes the end of the connection for the end of a head, too. */
static bool is_cut_in_head(const advertisement *a, const httpc_answer *http)
{
    return http->status == 200 && a->n_bytes == 0 && http->content_type[0] == '\0';
}

/* True: asked and judged.  False: it is git but speaks version 2 whatever it is asked. */
static bool judge(const advertisement *a, const httpc_answer *http, probe_result *ret)
{
    ret->http_status = http->status;
    ret->retry_after_s = http->retry_after_s < HOUR ? http->retry_after_s : HOUR;
    if (is_without_body(a, http)) {
        tell(ret, answer_of_failure(http->failure), http->detail);
    } else if (is_cut_in_head(a, http)) {
        tell(ret, REMOTE_CUT, "the answer ended in the middle of its head");
    } else if (http->status != 200) {
        judge_status(http, ret);
    } else if (!is_list(a, http)) {
        tell(ret, REMOTE_NOT_GIT,
             strcmp(http->content_type, "text/html") == 0
                 ? "a web page came instead of git"
                 : "the answer is not in git's smart form");
    } else if (a->state == READ_V2) {
        return false;
    } else {
        judge_list(a, http, ret);
    }
    return true;
}

static char *list_url(const remote_url *url, const char *service)
{
    size_t n = strlen(url->text);

    while (n > 0 && url->text[n - 1] == '/')
        n--;
    return mem_printf("%.*s/info/refs?service=%s", (int)n, url->text, service);
}

/* A server may say back what it was sent. */
static void clean_detail(probe_result *ret, const credential *c, const char *authorization)
{
    const char *basic = strrchr(authorization, ' ');
    const char *secrets[] = { c->secret, basic != NULL ? basic + 1 : NULL };
    memfs_buf clean = MEMFS_BUF_INIT(4096);

    redact_add(&clean, str_of(ret->detail), secrets, ARRAY_LEN(secrets));
    escape_text(buf_str(&clean), ret->detail, sizeof(ret->detail));
    buf_dispose(&clean);
}

/* False: see judge(). */
static bool ask_http(const remote_target *t, const credential *c, const char *service,
                     int64_t deadline_ms, probe_result *ret)
{
    _cleanup_(mem_freep) char *url = list_url(&t->url, service);
    char *authorization = credential_extra_header(c);
    const char *headers[] = { "User-Agent: git/2 (memfs " MEMFS_VERSION ")", "Accept: */*",
                              "Pragma: no-cache", NULL, NULL };
    advertisement a = { .service = service, .rest = MEMFS_BUF_INIT(128 * 1024) };
    httpc_request rq = { .url = url, .method = "GET", .headers = headers, .ca_file = t->ca_file };
    httpc_answer http;
    bool was_judged;

    if (authorization[0] != '\0')
        headers[3] = authorization;
    rq.timeout_ms = deadline_ms - clock_mono_ms();
    rq.connect_timeout_ms = rq.timeout_ms;
    if (rq.timeout_ms <= 0)
        http = (httpc_answer){ .failure = HTTPC_TIMEOUT, .detail = "no time is left" };
    else
        httpc_fetch(&rq, on_piece, &a, &http);
    was_judged = judge(&a, &http, ret);
    clean_detail(ret, c, authorization);
    buf_dispose(&a.rest);
    explicit_bzero(authorization, strlen(authorization));
    free(authorization);
    return was_judged;
}

/* ---- asking by git ---- */

static remote_answer answer_of_report(const transport_report *report)
{
    static const remote_answer answers[] = {
        [TRANSPORT_CAUSE_NONE] = REMOTE_OTHER,
        [TRANSPORT_CAUSE_OTHER] = REMOTE_OTHER,
        [TRANSPORT_CAUSE_HTTP] = REMOTE_OTHER,
        [TRANSPORT_CAUSE_NO_NAME] = REMOTE_NO_NAME,
        [TRANSPORT_CAUSE_REFUSED] = REMOTE_REFUSED,
        [TRANSPORT_CAUSE_TIMEOUT] = REMOTE_TIMEOUT,
        [TRANSPORT_CAUSE_TLS] = REMOTE_TLS,
        [TRANSPORT_CAUSE_HOST_KEY] = REMOTE_HOST_KEY,
        [TRANSPORT_CAUSE_UNAUTHORIZED] = REMOTE_UNAUTHORIZED,
        [TRANSPORT_CAUSE_FORBIDDEN] = REMOTE_FORBIDDEN,
        [TRANSPORT_CAUSE_NOT_FOUND] = REMOTE_NOT_FOUND,
        [TRANSPORT_CAUSE_NOT_GIT] = REMOTE_NOT_GIT,
        [TRANSPORT_CAUSE_CUT] = REMOTE_CUT,
        [TRANSPORT_CAUSE_PROTECTED] = REMOTE_REJECTED,
        [TRANSPORT_CAUSE_HOOK] = REMOTE_REJECTED,
        [TRANSPORT_CAUSE_SECRET] = REMOTE_REJECTED,
        [TRANSPORT_CAUSE_TOO_LARGE] = REMOTE_REJECTED,
        [TRANSPORT_CAUSE_DISK_FULL] = REMOTE_FAILING,
        [TRANSPORT_CAUSE_READ_ONLY] = REMOTE_FORBIDDEN,
        [TRANSPORT_CAUSE_SHALLOW] = REMOTE_OTHER,
        [TRANSPORT_CAUSE_DAMAGED] = REMOTE_OTHER,
    };

    if (report->is_rejected)
        return REMOTE_REJECTED;
    if (report->is_empty)
        return REMOTE_EMPTY;
    if (report->timed_out)
        return REMOTE_TIMEOUT;
    if (report->cause == TRANSPORT_CAUSE_HTTP && report->http_status > 0)
        return answer_of_status(report->http_status);
    return answers[report->cause];
}

remote_answer probe_classify_git(const remote_target *t, const transport_report *report)
{
    if (t->url.kind == URL_PATH && !fs_is_dir(t->url.text) && !report->is_rejected)
        return REMOTE_NOT_FOUND;
    return answer_of_report(report);
}

static void ask_git(const remote_target *t, const credential *c, int64_t deadline_ms,
                    probe_result *ret)
{
    transport_target to;
    transport_report report;
    transport_refs refs = { .head_ref = "" };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc;

    remote_transport_target(t, &to);
    to.username = c->username;
    to.secret = c->secret;
    rc = transport_ls_refs(&to, deadline_ms, &refs, &report, &err);
    ret->has_main = rc == MEMFS_OK && !report.is_empty;
    ret->knows_meta = rc == MEMFS_OK;
    ret->main = refs.main;
    ret->meta = refs.meta;
    ret->http_status = ret->http_status != 0 ? ret->http_status : report.http_status;
    if (rc == MEMFS_OK)
        tell(ret, report.is_empty ? REMOTE_EMPTY : REMOTE_REFS, "");
    else
        tell(ret, probe_classify_git(t, &report), report.said[0] != '\0' ? report.said : err.msg);
}

/* ---- together ---- */

static bool has_credential(const credential *c)
{
    return c->secret != NULL;
}

static bool may_ask(const remote_target *t, probe_result *ret)
{
    if (t->url.kind != URL_HTTP || t->may_http)
        return true;
    tell(ret, REMOTE_OTHER, "http:// is not encrypted: use https://, or allow this host "
                            "(allow-http)");
    return false;
}

static void probe_http(const remote_target *t, int64_t deadline_ms, probe_result *ret)
{
    _cleanup_(credential_dispose) credential helpers = CREDENTIAL_INIT;
    const credential *c = &t->cred;
    memfs_error ignored;
    bool was_judged;

    if (!may_ask(t, ret))
        return;
    was_judged = ask_http(t, c, FETCH, deadline_ms, ret);
    if (was_judged && ret->answer == REMOTE_UNAUTHORIZED && t->ask_git_helpers &&
        !has_credential(c) &&
        transport_ask_helpers(t->url.text, deadline_ms, &helpers.username, &helpers.secret,
                              &ignored) == MEMFS_OK) {
        c = &helpers;
        was_judged = ask_http(t, c, FETCH, deadline_ms, ret);
    }
    if (!was_judged)
        ask_git(t, c, deadline_ms, ret);
}

void probe(const remote_target *t, int64_t budget_ms, probe_result *ret)
{
    int64_t deadline_ms = clock_mono_ms() + budget_ms;

    *ret = (probe_result){ .answer = REMOTE_UNASKED };
    if (t->url.kind == URL_HTTPS || t->url.kind == URL_HTTP)
        probe_http(t, deadline_ms, ret);
    else if (t->url.kind == URL_PATH && !fs_is_dir(t->url.text))
        tell(ret, REMOTE_NOT_FOUND, "there is no such folder");
    else
        ask_git(t, &t->cred, deadline_ms, ret);
}

void probe_push(const remote_target *t, int64_t budget_ms, probe_result *ret)
{
    *ret = (probe_result){ .answer = REMOTE_UNASKED };
    if ((t->url.kind == URL_HTTPS || t->url.kind == URL_HTTP) && may_ask(t, ret) &&
        !ask_http(t, &t->cred, PUSH, clock_mono_ms() + budget_ms, ret))
        tell(ret, REMOTE_REFS, ""); /* it is git, and takes a push */
}
