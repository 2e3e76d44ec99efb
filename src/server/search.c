/*
 * search.c - GET /v1/search: text in memories, and what was deleted from them (sync/search.h).
 */
#include "sync/loose.h"
#include "sync/search.h"

#include "base/clock.h"
#include "server/reply.h"

#include <stdio.h>

#define DEFAULT_LIMIT 20

static const char *const IN[] = { "current", "history", NULL };

typedef struct telling {
    json_writer w;
} telling;

static void write_oid(json_writer *w, const char *key, const memfs_oid *id)
{
    char hex[MEMFS_OID_HEX + 1];

    if (oid_is_zero(id)) {
        jw_key_null(w, key);
        return;
    }
    oid_hex(id, hex);
    jw_key_text(w, key, hex);
}

static void write_text_or_null(json_writer *w, const char *key, memfs_str s)
{
    if (s.len > 0)
        jw_key_str(w, key, s);
    else
        jw_key_null(w, key);
}

/* 1234 thousandths, in digits that no locale changes. */
static void write_score(json_writer *w, int64_t score)
{
    char text[32];

    snprintf(text, sizeof(text), "%lld.%03lld", (long long)(score / 1000),
             (long long)(score % 1000));
    jw_key(w, "score");
    jw_raw(w, str_of(text));
}

static void write_matches(json_writer *w, const find_hit *where)
{
    jw_key(w, "matches");
    jw_array(w);
    for (size_t i = 0; i < where->n_matches; i++) {
        jw_object(w);
        jw_key_int(w, "start", (int64_t)where->matches[i].start);
        jw_key_int(w, "end", (int64_t)where->matches[i].end);
        jw_object_end(w);
    }
    jw_array_end(w);
}

static memfs_code write_hit(const search_hit *hit, void *ctx, memfs_error *err)
{
    static const char *const fields[] = { [SEARCH_LABEL] = "label",
                                          [SEARCH_DESCRIPTION] = "description",
                                          [SEARCH_VALUE] = "value",
                                          [SEARCH_FILE] = "file" };
    json_writer *w = &((telling *)ctx)->w;
    char time[CLOCK_ISO_LEN];

    jw_object(w);
    write_text_or_null(w, "agent_id", hit->agent_id);
    write_text_or_null(w, "path", hit->agent_id.len > 0 ? hit->path : MEMFS_STR(""));
    write_text_or_null(w, "label", hit->label);
    write_text_or_null(w, "block_id", hit->block_id);
    write_score(w, hit->where.score);
    jw_key_text(w, "field", fields[hit->field]);
    jw_key_str(w, "snippet", hit->snippet);
    jw_key_int(w, "snippet_start", (int64_t)hit->where.shown.start);
    write_matches(w, &hit->where);
    write_oid(w, "blob", &hit->blob);
    write_oid(w, "commit", &hit->commit);
    write_oid(w, "gone_by", &hit->gone_by);
    if (hit->created_at_us != 0)
        clock_iso(hit->created_at_us, time);
    jw_key_text(w, "created_at", hit->created_at_us != 0 ? time : NULL);
    jw_object_end(w);
    return buf_check(w->out, "the answer", err);
}

/* "/notes/" and "notes" are the same folder. */
static memfs_str plain_path(memfs_str path)
{
    while (path.len > 0 && path.ptr[0] == '/')
        path = str_from(path, 1);
    while (path.len > 0 && path.ptr[path.len - 1] == '/')
        path.len--;
    return path;
}

static void read_request(params *p, search_request *q)
{
    memfs_str path = MEMFS_STR("");
    int64_t limit;

    (void)params_text(p, "q", &q->text);
    (void)params_id(p, "agent", "agent", &q->agent_id);
    (void)params_text(p, "path", &path);
    q->path = plain_path(path);
    q->in_past = params_choice(p, "in", IN, 0) == 1;
    q->show_hidden = params_bool(p, "show_hidden_blocks", false);
    limit = params_limit(p, DEFAULT_LIMIT);
    q->limit = limit == 0 || limit > SEARCH_MAX_HITS ? SEARCH_MAX_HITS : (size_t)limit;
}

/* An agent's token searches its own memory; another agent is one that does not exist (S1). */
static bool narrow(http_request *rq, search_request *q)
{
    memfs_error unknown = { .code = MEMFS_ENOTFOUND };
    memfs_str own = app_own_agent(rq);

    if (own.len > 0 && q->agent_id.len > 0 && !str_equal(own, q->agent_id)) {
        reply_agent_failed(rq, q->agent_id, &unknown);
        return false;
    }
    if (own.len > 0)
        q->agent_id = own;
    return true;
}

void search_get(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    search_request q = { .text = MEMFS_STR(""), .agent_id = MEMFS_STR(""), .path = MEMFS_STR("") };
    bool is_agent_given, is_partial = false;
    telling t = { JSON_WRITER_INIT(http_out(rq)) };
    memfs_error err = MEMFS_ERROR_INIT;
    app *self = ctx;
    memfs_code rc;

    read_request(&p, &q);
    is_agent_given = q.agent_id.len > 0;
    if (!reply_params_good(rq, &p) || !narrow(rq, &q))
        return;
    jw_object(&t.w);
    jw_key(&t.w, "results");
    jw_array(&t.w);
    rc = search_memory(self->home, &q, write_hit, &t, &is_partial, &err);
    if (rc == MEMFS_ENOTFOUND && !is_agent_given) /* the token's own, before its first push */
        rc = MEMFS_OK;
    jw_array_end(&t.w);
    jw_key_bool(&t.w, "is_partial", is_partial);
    jw_object_end(&t.w);
    if (rc == MEMFS_ENOTFOUND)
        reply_agent_failed(rq, q.agent_id, &err);
    else if (rc < 0 && !http_out(rq)->too_big)
        http_send_error(rq, &err);
    else
        reply_json(rq);
}
