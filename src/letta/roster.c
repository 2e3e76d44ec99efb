#include "letta/roster.h"

#include "base/escape.h"
#include "base/httpc.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define PAGE "100"
#define TIMEOUT_MS 30000
#define PAGE_MAX_BYTES (512u << 20) /* a hundred blocks of the size that Letta takes at all */

struct roster {
    char *base; /* without a '/' at its end */
    stream_lines headers;
};

/* ---- life cycle ---- */

static void add_token(roster *r, memfs_str token)
{
    char *value = mem_printf("Bearer %.*s", (int)token.len, token.ptr);

    stream_lines_add(&r->headers, "Authorization", value);
    explicit_bzero(value, strlen(value));
    free(value);
}

memfs_code roster_open(memfs_str address, memfs_str token, roster **ret, memfs_error *err)
{
    memfs_str rest, host;
    roster *r;

    while (address.len > 0 && address.ptr[address.len - 1] == '/')
        address.len--;
    if (str_starts_with(address, MEMFS_STR("http://")))
        rest = str_from(address, 7);
    else if (str_starts_with(address, MEMFS_STR("https://")))
        rest = str_from(address, 8);
    else
        return memfs_fail(err, MEMFS_EINVALID,
                          "the address of a Letta server looks like "
                          "http://host:8283");
    if (!str_split(rest, '/', &host, &rest))
        host = rest;
    if (host.len == 0 || memchr(address.ptr, '?', address.len) != NULL ||
        memchr(address.ptr, '#', address.len) != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "the address of a Letta server is a host, and perhaps "
                          "a port and a path");
    if (memchr(host.ptr, '@', host.len) != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "the address has a user or password in it: put what "
                          "the server wants into a file, for --token-file");
    r = mem_alloc(sizeof(*r));
    r->base = mem_strndup(address.ptr, address.len);
    stream_lines_add(&r->headers, "Accept", "application/json");
    if (token.len > 0)
        add_token(r, token);
    *ret = r;
    return MEMFS_OK;
}

memfs_code roster_open_as(const stream_address *address, const upstream_caller *c, roster **ret,
                          memfs_error *err)
{
    memfs_code rc = roster_open(str_of(address->origin), MEMFS_STR(""), ret, err);

    if (rc < 0 || upstream_credentials(c, &(*ret)->headers))
        return rc;
    roster_close(*ret);
    return memfs_fail(err, MEMFS_EINVALID, "the credential is no Basic and no Bearer");
}

void roster_close(roster *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->headers.n; i++)
        explicit_bzero(r->headers.at[i], strlen(r->headers.at[i]));
    stream_lines_dispose(&r->headers);
    free(r->base);
    free(r);
}

/* ---- one request ---- */

static bool gather(memfs_str piece, void *ctx)
{
    memfs_buf *out = ctx;

    buf_add_str(out, piece);
    return !out->too_big;
}

static memfs_code fail_transport(const roster *r, const httpc_answer *a, memfs_error *err)
{
    char detail[240];

    return memfs_fail(err, MEMFS_EUNAVAIL, "the Letta server at %s does not answer: %s", r->base,
                      a->detail[0] != '\0' ? escape_text(str_of(a->detail), detail, sizeof(detail))
                                           : "the connection ended");
}

static memfs_code fail_status(const roster *r, int status, memfs_error *err)
{
    if (status == 401 || status == 403)
        return memfs_fail(err, MEMFS_EDENIED,
                          "the Letta server at %s refuses the request (%d): put its password, or a "
                          "key of yours, into a file for --letta-token-file (of 'memfs import': "
                          "--token-file)",
                          r->base, status);
    if (status == 404)
        return memfs_fail(err, MEMFS_ENOTFOUND, "the Letta server has no such agent");
    if (status >= 500 || status == 408 || status == 429)
        return memfs_fail(err, MEMFS_EUNAVAIL, "the Letta server at %s answers %d: try again later",
                          r->base, status);
    return memfs_fail(err, MEMFS_EINVALID, "what answers at %s is no Letta server (%d)", r->base,
                      status);
}

/* A list is always there, so where it is not there is something else. */
static memfs_code judge_list(const roster *r, memfs_code rc, memfs_error *err)
{
    return rc == MEMFS_ENOTFOUND
               ? memfs_fail(err, MEMFS_EINVALID, "what answers at %s is no Letta server (404)",
                            r->base)
               : rc;
}

/* content empty: GET, else POST.  *ret is the caller's (json_decref). */
static memfs_code ask(const roster *r, const char *target, memfs_str content, json_t **ret,
                      memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(PAGE_MAX_BYTES);
    _cleanup_(mem_freep) char *url = mem_printf("%s%s", r->base, target);
    httpc_request rq = { .url = url,
                         .method = content.len > 0 ? "POST" : "GET",
                         .body = content,
                         .headers = (const char *const *)r->headers.at,
                         .timeout_ms = TIMEOUT_MS };
    httpc_answer answer;

    httpc_fetch(&rq, gather, &body, &answer);
    if (answer.failure != HTTPC_FINE && !body.too_big)
        return fail_transport(r, &answer, err);
    if (buf_check(&body, "the answer of the Letta server", err) < 0)
        return err->code;
    if (answer.status != 200)
        return fail_status(r, answer.status, err);
    *ret = json_loadb(body.ptr, body.len, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
    if (*ret == NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "what answers at %s is no Letta server: its answer "
                          "is not JSON",
                          r->base);
    return MEMFS_OK;
}

/* ---- lists ---- */

/* Hands on a page; *ret_last is the id of its last object, "" of an empty one (given). */
static memfs_code pass_page(const json_t *page, const char *before, roster_fn fn, void *ctx,
                            char **ret_last, memfs_error *err)
{
    const json_t *object;
    memfs_code rc = MEMFS_OK;
    size_t i;

    *ret_last = NULL;
    if (!json_is_array(page))
        return memfs_fail(err, MEMFS_EINVALID, "the Letta server answers with no list");
    json_array_foreach(page, i, object)
    {
        const char *id = json_string_value(json_object_get(object, "id"));

        if (id == NULL)
            return memfs_fail(err, MEMFS_EINVALID,
                              "the Letta server lists something without an id");
        free(*ret_last);
        *ret_last = mem_strdup(id);
        rc = fn(object, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
    if (*ret_last != NULL && strcmp(*ret_last, before) == 0)
        return memfs_fail(err, MEMFS_EINVALID, "the Letta server answers with the same page again");
    return rc;
}

/* Until an empty page comes; a short one is no end (contract 1.6). */
static memfs_code pages(const roster *r, const char *path, const char *query, roster_fn fn,
                        void *ctx, memfs_error *err)
{
    _cleanup_(mem_freep) char *after = mem_strdup("");
    memfs_code rc = MEMFS_OK;

    for (;;) {
        _cleanup_(buf_dispose) memfs_buf target = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
        json_t *page = NULL;
        char *last = NULL;

        buf_printf(&target, "%s?limit=" PAGE "&order=asc%s", path, query);
        if (after[0] != '\0') {
            buf_puts(&target, "&after=");
            httpc_escape(&target, str_of(after));
        }
        rc = ask(r, target.ptr, MEMFS_STR(""), &page, err);
        if (rc == MEMFS_OK)
            rc = pass_page(page, after, fn, ctx, &last, err);
        json_decref(page);
        free(after);
        after = last != NULL ? last : mem_strdup("");
        if (rc != MEMFS_OK || last == NULL)
            return rc;
    }
}

memfs_code roster_count(roster *r, int64_t *ret, memfs_error *err)
{
    json_t *count = NULL;
    memfs_code rc = judge_list(r, ask(r, "/v1/agents/count", MEMFS_STR(""), &count, err), err);

    if (rc == MEMFS_OK && !json_is_integer(count))
        rc = memfs_fail(err, MEMFS_EINVALID, "what answers at %s is no Letta server", r->base);
    *ret = json_integer_value(count);
    json_decref(count);
    return rc;
}

memfs_code roster_agents(roster *r, roster_fn fn, void *ctx, memfs_error *err)
{
    return judge_list(r,
                      pages(r, "/v1/agents/",
                            "&order_by=created_at&include=agent.tags"
                            "&show_hidden_agents=true",
                            fn, ctx, err),
                      err);
}

memfs_code roster_agent(roster *r, memfs_str agent_id, roster_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(mem_freep) char *target =
        mem_printf("/v1/agents/%.*s?include=agent.tags", (int)agent_id.len, agent_id.ptr);
    json_t *agent = NULL;
    memfs_code rc = ask(r, target, MEMFS_STR(""), &agent, err);

    if (rc == MEMFS_OK && !json_is_object(agent))
        rc = memfs_fail(err, MEMFS_EINVALID, "what answers at %s is no Letta server", r->base);
    if (rc == MEMFS_OK)
        rc = fn(agent, ctx, err);
    json_decref(agent);
    return rc;
}

memfs_code roster_blocks(roster *r, memfs_str agent_id, roster_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(mem_freep) char *path =
        mem_printf("/v1/agents/%.*s/core-memory/blocks", (int)agent_id.len, agent_id.ptr);

    return pages(r, path, "", fn, ctx, err);
}

memfs_code roster_recompile(roster *r, memfs_str agent_id, memfs_error *err)
{
    _cleanup_(mem_freep) char *target =
        mem_printf("/v1/agents/%.*s/recompile", (int)agent_id.len, agent_id.ptr);
    json_t *prompt = NULL; /* as it was before (contract 7) */
    memfs_code rc = ask(r, target, MEMFS_STR("{}"), &prompt, err);

    json_decref(prompt);
    return rc;
}

memfs_code roster_shared(roster *r, roster_fn fn, void *ctx, memfs_error *err)
{
    return judge_list(r,
                      pages(r, "/v1/blocks/",
                            "&connected_to_agents_count_gt=1"
                            "&show_hidden_blocks=true",
                            fn, ctx, err),
                      err);
}
