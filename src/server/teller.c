#include "server/teller.h"

#include "memory/ids.h"

#define MAX_LINE (64 * 1024)
#define NDJSON_TYPE "application/x-ndjson"

/* ---- the answer ---- */

static void send_line(teller *t)
{
    buf_putc(&t->line, '\n');
    if (t->line.too_big) /* a bound on what a finding may say; the work goes on without it */
        buf_clear(&t->line);
    if (!t->is_alone && t->line.len > 0 &&
        (!http_stream_write(t->rq, t->line.ptr, t->line.len) || !http_stream_flush(t->rq)))
        t->is_alone = true;
    buf_clear(&t->line);
}

json_writer teller_begin(teller *t, const char *kind)
{
    json_writer w = JSON_WRITER_INIT(&t->line);

    jw_object(&w);
    jw_key(&w, kind);
    jw_object(&w);
    return w;
}

void teller_end(teller *t, json_writer *w)
{
    jw_object_end(w);
    jw_object_end(w);
    send_line(t);
}

static bool tell_progress(size_t done, size_t total, const char *agent_id, void *ctx)
{
    teller *t = ctx;
    json_writer w = teller_begin(t, "progress");

    jw_key_int(&w, "done", (int64_t)done);
    jw_key_int(&w, "total", (int64_t)total);
    jw_key_text(&w, "agent", agent_id != NULL ? agent_id : "");
    teller_end(t, &w);
    return !t->is_alone;
}

static void tell_finding(const char *agent_id, const char *kind, const char *what,
                         const char *text, void *ctx)
{
    teller *t = ctx;
    json_writer w = teller_begin(t, "finding");

    jw_key_text(&w, "agent", agent_id != NULL ? agent_id : "");
    jw_key_text(&w, "kind", kind);
    jw_key_text(&w, "what", what);
    jw_key_text(&w, "text", text);
    teller_end(t, &w);
}

bool teller_is_heard(const teller *t)
{
    return !t->is_alone;
}

upkeep_watcher teller_watcher(teller *t)
{
    return (upkeep_watcher){ tell_progress, tell_finding, t };
}

static void tell_error(teller *t, const memfs_error *e)
{
    json_writer w = teller_begin(t, "error");

    jw_key_text(&w, "code", memfs_code_name(e->code));
    jw_key_text(&w, "message", e->msg);
    teller_end(t, &w);
}

void teller_result(teller *t, const upkeep_result *r)
{
    json_writer w = teller_begin(t, "result");

    jw_key_int(&w, "agents", (int64_t)r->n_agents);
    jw_key_int(&w, "findings", (int64_t)r->n_findings);
    jw_key_int(&w, "failed", (int64_t)r->n_failed);
    teller_end(t, &w);
}

/* ---- the request ---- */

static memfs_code read_body(http_request *rq, memfs_buf *out, memfs_error *err)
{
    char piece[8192];
    size_t n;

    do {
        if (!http_stream_read(rq, piece, sizeof(piece), &n)) {
            http_stream_fault(rq, err);
            return err->code;
        }
        buf_add(out, piece, n);
    } while (n > 0);
    return buf_check(out, "the request", err);
}

/* An empty body is an empty object.  *ret is the caller's (json_decref). */
static memfs_code parse_body(const memfs_buf *body, json_t **ret, memfs_error *err)
{
    json_error_t where = { .line = 0 };

    *ret = body->len == 0 ? json_object()
                          : json_loadb(body->ptr, body->len,
                                       JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (*ret == NULL)
        return memfs_fail(err, MEMFS_EINVALID, "the request is not JSON: line %d, column %d",
                          where.line, where.column);
    if (!json_is_object(*ret))
        return memfs_fail(err, MEMFS_EINVALID, "the request is not a JSON object");
    return MEMFS_OK;
}

memfs_code teller_text(const json_t *request, const char *key, memfs_str *ret, memfs_error *err)
{
    const json_t *value = json_object_get(request, key);

    *ret = MEMFS_STR("");
    if (value == NULL || json_is_null(value))
        return MEMFS_OK;
    if (!json_is_string(value))
        return memfs_fail(err, MEMFS_EINVALID, "'%s' is not a text", key);
    *ret = str_make(json_string_value(value), json_string_length(value));
    return MEMFS_OK;
}

memfs_code teller_agent(const json_t *request, memfs_str *ret, memfs_error *err)
{
    memfs_code rc = teller_text(request, "agent", ret, err);

    if (rc == MEMFS_OK && ret->len > 0 && !ids_is_agent(*ret))
        return memfs_fail(err, MEMFS_EINVALID, "'agent' is not the id of an agent");
    return rc;
}

memfs_code teller_memory(const json_t *request, memfs_str *ret, memfs_error *err)
{
    memfs_code rc = teller_text(request, "agent", ret, err);

    if (rc == MEMFS_OK && ret->len > 0 && !ids_is_memory(*ret))
        return memfs_fail(err, MEMFS_EINVALID,
                          "'agent' is not the id of an agent, or of a shared repository");
    return rc;
}

memfs_code teller_flag(const json_t *request, const char *key, bool *ret, memfs_error *err)
{
    const json_t *value = json_object_get(request, key);

    if (value != NULL && !json_is_boolean(value))
        return memfs_fail(err, MEMFS_EINVALID, "'%s' is not true or false", key);
    *ret = json_is_true(value);
    return MEMFS_OK;
}

/* ---- a route ---- */

void teller_run(http_request *rq, void *ctx, teller_job job)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(http_matched(rq)->max_body_bytes);
    teller t = { rq, MEMFS_BUF_INIT(MAX_LINE), false };
    memfs_error err = MEMFS_ERROR_INIT;
    json_t *request = NULL;
    memfs_code rc;

    rc = read_body(rq, &body, &err);
    if (rc == MEMFS_OK)
        rc = parse_body(&body, &request, &err);
    if (rc < 0) {
        http_send_error(rq, &err);
        json_decref(request);
        return;
    }
    http_stream_begin(rq, 200, NDJSON_TYPE);
    if (job(ctx, request, &t, &err) < 0)
        tell_error(&t, &err);
    http_stream_end(rq);
    json_decref(request);
    buf_dispose(&t.line);
}
