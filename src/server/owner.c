/*
 * owner.c - upkeep of the home, asked for over its own socket (0600), told line by line.
 *
 * A request is one JSON object (400 when it is not); the answer is NDJSON, one object a line,
 * flushed as it comes:
 *
 *     {"progress":{"done":12,"total":100,"agent":"agent-…"}}
 *     {"finding":{"agent":"agent-…","kind":"row-differs","what":"system/human","text":"…"}}
 *     {"result":{"agents":100,"failed":0,…}}            last, when the work was done
 *     {"error":{"code":"ENOTFOUND","message":"…"}}      last, when it was not
 *
 * An answer that ends without one of the last two was cut: the server went away.
 * The secret that a purge removes comes in the body and never in a target, so no log ever has it.
 * A caller that hangs up stops the work after the agent at hand.
 */
#include "memory/ids.h"
#include "server/app.h"
#include "sync/upkeep.h"

#include <jansson.h>

#define MAX_REQUEST (256 * 1024)
#define MAX_LINE (64 * 1024)
#define NDJSON_TYPE "application/x-ndjson"

/* ---- the answer ---- */

typedef struct teller {
    http_request *rq;
    memfs_buf line;
    bool is_alone; /* nobody listens any more */
} teller;

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

/* {"<kind>":{ … the caller's fields … }} */
static json_writer begin_line(teller *t, const char *kind)
{
    json_writer w = JSON_WRITER_INIT(&t->line);

    jw_object(&w);
    jw_key(&w, kind);
    jw_object(&w);
    return w;
}

static void end_line(teller *t, json_writer *w)
{
    jw_object_end(w);
    jw_object_end(w);
    send_line(t);
}

static bool tell_progress(size_t done, size_t total, const char *agent_id, void *ctx)
{
    teller *t = ctx;
    json_writer w = begin_line(t, "progress");

    jw_key_int(&w, "done", (int64_t)done);
    jw_key_int(&w, "total", (int64_t)total);
    jw_key_text(&w, "agent", agent_id != NULL ? agent_id : "");
    end_line(t, &w);
    return !t->is_alone;
}

static void tell_finding(const char *agent_id, const char *kind, const char *what,
                         const char *text, void *ctx)
{
    teller *t = ctx;
    json_writer w = begin_line(t, "finding");

    jw_key_text(&w, "agent", agent_id != NULL ? agent_id : "");
    jw_key_text(&w, "kind", kind);
    jw_key_text(&w, "what", what);
    jw_key_text(&w, "text", text);
    end_line(t, &w);
}

static void tell_error(teller *t, const memfs_error *e)
{
    json_writer w = begin_line(t, "error");

    jw_key_text(&w, "code", memfs_code_name(e->code));
    jw_key_text(&w, "message", e->msg);
    end_line(t, &w);
}

static void tell_result(teller *t, const upkeep_result *r)
{
    json_writer w = begin_line(t, "result");

    jw_key_int(&w, "agents", (int64_t)r->n_agents);
    jw_key_int(&w, "findings", (int64_t)r->n_findings);
    jw_key_int(&w, "failed", (int64_t)r->n_failed);
    end_line(t, &w);
}

static void tell_purged(teller *t, const purge_result *r)
{
    char old_tip[MEMFS_OID_HEX + 1], new_tip[MEMFS_OID_HEX + 1];
    json_writer w = begin_line(t, "result");

    oid_hex(&r->old_tip, old_tip);
    oid_hex(&r->new_tip, new_tip);
    jw_key_text(&w, "old_tip", old_tip);
    jw_key_text(&w, "new_tip", new_tip);
    jw_key_int(&w, "blobs", (int64_t)r->n_blobs);
    jw_key_int(&w, "commits", (int64_t)r->n_commits);
    end_line(t, &w);
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

/* A text, or empty when the key is absent or null. */
static memfs_code text_field(const json_t *request, const char *key, memfs_str *ret,
                             memfs_error *err)
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

/* The agent to work on; empty is all of them. */
static memfs_code agent_field(const json_t *request, memfs_str *ret, memfs_error *err)
{
    memfs_code rc = text_field(request, "agent", ret, err);

    if (rc == MEMFS_OK && ret->len > 0 && !ids_is_agent(*ret))
        return memfs_fail(err, MEMFS_EINVALID, "'agent' is not the id of an agent");
    return rc;
}

typedef memfs_code (*job_fn)(app *self, const json_t *request, teller *t, memfs_error *err);

static void run(http_request *rq, void *ctx, job_fn job)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(MAX_REQUEST);
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

/* ---- the jobs ---- */

typedef memfs_code (*upkeep_fn)(home *h, memfs_str agent_id, const upkeep_watcher *w,
                                upkeep_result *ret, memfs_error *err);

static memfs_code work_through(app *self, const json_t *request, teller *t, upkeep_fn work,
                               memfs_error *err)
{
    const upkeep_watcher watcher = { tell_progress, tell_finding, t };
    upkeep_result result = { 0 };
    memfs_str agent_id = MEMFS_STR("");
    memfs_code rc;

    rc = agent_field(request, &agent_id, err);
    if (rc == MEMFS_OK)
        rc = work(self->home, agent_id, &watcher, &result, err);
    if (rc == MEMFS_OK)
        tell_result(t, &result);
    return rc;
}

static memfs_code verify(app *self, const json_t *request, teller *t, memfs_error *err)
{
    return work_through(self, request, t, upkeep_verify, err);
}

static memfs_code rebuild(app *self, const json_t *request, teller *t, memfs_error *err)
{
    return work_through(self, request, t, upkeep_rebuild, err);
}

static memfs_code repack(app *self, const json_t *request, teller *t, memfs_error *err)
{
    return work_through(self, request, t, upkeep_repack, err);
}

static memfs_code backup(app *self, const json_t *request, teller *t, memfs_error *err)
{
    const upkeep_watcher watcher = { tell_progress, tell_finding, t };
    upkeep_result result = { 0 };
    memfs_str to = MEMFS_STR("");
    memfs_code rc;

    rc = text_field(request, "to", &to, err);
    if (rc < 0)
        return rc;
    if (to.len == 0 || to.ptr[0] != '/' || memchr(to.ptr, '\0', to.len) != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "'to' is not an absolute path");
    rc = upkeep_backup(self->home, to.ptr, &watcher, &result, err);
    if (rc == MEMFS_OK)
        tell_result(t, &result);
    return rc;
}

/* "secret": a text that leaked; "blob": an object to replace whole; "dry_run". */
static memfs_code purge_fields(const json_t *request, purge_request *ret, memfs_oid *blob,
                               memfs_error *err)
{
    const json_t *dry_run = json_object_get(request, "dry_run");
    memfs_str hex = MEMFS_STR("");
    memfs_code rc;

    rc = agent_field(request, &ret->agent_id, err);
    if (rc == MEMFS_OK)
        rc = text_field(request, "secret", &ret->needle, err);
    if (rc == MEMFS_OK)
        rc = text_field(request, "blob", &hex, err);
    if (rc < 0)
        return rc;
    if (ret->agent_id.len == 0)
        return memfs_fail(err, MEMFS_EINVALID, "'agent' is missing");
    if (dry_run != NULL && !json_is_boolean(dry_run))
        return memfs_fail(err, MEMFS_EINVALID, "'dry_run' is not true or false");
    ret->dry_run = json_is_true(dry_run);
    if (hex.len > 0 && !oid_parse(hex, blob))
        return memfs_fail(err, MEMFS_EINVALID, "'blob' is not 40 hex digits");
    ret->n_blobs = hex.len > 0 ? 1 : 0;
    if (ret->needle.len == 0 && ret->n_blobs == 0)
        return memfs_fail(err, MEMFS_EINVALID, "neither 'secret' nor 'blob' is given");
    return MEMFS_OK;
}

static memfs_code purge(app *self, const json_t *request, teller *t, memfs_error *err)
{
    const upkeep_watcher watcher = { tell_progress, tell_finding, t };
    memfs_oid blob;
    purge_request what = { .blobs = &blob };
    purge_result result;
    memfs_code rc;

    rc = purge_fields(request, &what, &blob, err);
    if (rc == MEMFS_OK)
        rc = upkeep_purge(self->home, &what, &watcher, &result, err);
    if (rc == MEMFS_OK)
        tell_purged(t, &result);
    return rc;
}

void owner_verify(http_request *rq, void *ctx)
{
    run(rq, ctx, verify);
}

void owner_rebuild(http_request *rq, void *ctx)
{
    run(rq, ctx, rebuild);
}

void owner_repack(http_request *rq, void *ctx)
{
    run(rq, ctx, repack);
}

void owner_backup(http_request *rq, void *ctx)
{
    run(rq, ctx, backup);
}

void owner_purge(http_request *rq, void *ctx)
{
    run(rq, ctx, purge);
}
