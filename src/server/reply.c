#include "server/reply.h"

#include "memory/ids.h"
#include "server/shape.h"
#include "sync/block_edit.h"

#include <stdio.h>

#define JSON_TYPE "application/json"

/* ---- parameters ---- */

bool reply_lookup(const void *request, const char *key, size_t i, memfs_str *ret)
{
    return http_query_at(request, key, i, ret);
}

memfs_str reply_agent_id(http_request *rq, params *p)
{
    memfs_str id = http_param(rq, "agent");

    params_path_id(p, "agent_id", "agent", id);
    return id;
}

memfs_str reply_block_id(http_request *rq, params *p)
{
    memfs_str id = http_param(rq, "id");

    params_path_id(p, "block_id", "block", id);
    return id;
}

bool reply_params_good(http_request *rq, const params *p)
{
    const char *user = http_header(rq, "user_id");

    if (user != NULL && !ids_is_prefixed_uuid4(str_of(user), "user")) {
        http_send_detail(rq, 400,
                         "INVALID_ARGUMENT: Invalid user ID format: %s. Expected format: "
                         "'user-<uuid4>'",
                         user);
        return false;
    }
    if (p->repeated != NULL) {
        http_send_detail(rq, 400, "INVALID_ARGUMENT: query parameter '%s' is given twice",
                         p->repeated);
        return false;
    }
    if (params_are_good(p))
        return true;
    params_write_422(p, http_out(rq));
    http_send(rq, 422, JSON_TYPE);
    return false;
}

/* ---- the agent ---- */

void reply_agent_failed(http_request *rq, memfs_str agent_id, const memfs_error *err)
{
    if (err->code == MEMFS_ENOTFOUND)
        http_send_detail(rq, 404, "Agent with ID %.*s not found", (int)agent_id.len, agent_id.ptr);
    else
        http_send_error(rq, err);
}

bool reply_put_off(http_request *rq, const app *self)
{
    if (!http_is_hurried(rq) || !cache_is_remote(home_cache(self->home)))
        return false;
    http_defer(rq);
    return true;
}

/*
 * On an event thread only an agent at hand will do: a look may wait for git, or make all its rows.
 */
bool reply_agent(http_request *rq, app *self, memfs_str agent_id)
{
    memfs_error err = MEMFS_ERROR_INIT;
    agent *a;

    if (reply_put_off(rq, self))
        return false;
    if (http_is_hurried(rq) && !home_agent_at_hand(self->home, agent_id, &a)) {
        http_defer(rq);
        return false;
    }
    if (home_agent_peek(self->home, agent_id, &a, &err) == MEMFS_OK)
        return true;
    reply_agent_failed(rq, agent_id, &err);
    return false;
}

bool reply_agent_or_new(http_request *rq, app *self, memfs_str id)
{
    memfs_error err = MEMFS_ERROR_INIT;
    agent *a;

    if (http_is_hurried(rq) && !home_agent_at_hand(self->home, id, &a)) {
        http_defer(rq);
        return false;
    }
    if (home_agent_peek(self->home, id, &a, &err) == MEMFS_OK ||
        (err.code == MEMFS_ENOTFOUND && !home_is_deleted(self->home, id)))
        return true;
    reply_agent_failed(rq, id, &err);
    return false;
}

typedef struct row_relay {
    block_row_fn fn;
    void *ctx;
    size_t n;
} row_relay;

static memfs_code relay_row(const block_row *row, void *ctx, memfs_error *err)
{
    row_relay *relay = ctx;

    relay->n++;
    return relay->fn(row, relay->ctx, err);
}

/*
 * reply_agent() has just said that the rows are there.  When the cache says otherwise, its file was
 * lost or replaced a moment ago, or its tables were emptied (F23): home_agent() looks again,
 * thoroughly, and makes the rows anew, on a worker (ELIMIT, that is 413, is what defers).  When
 * they are lost once more that is no 404: the agent is known.
 */
memfs_code reply_agent_blocks(http_request *rq, app *self, const block_query *q, cache_tip *ret,
                              block_row_fn fn, void *ctx, memfs_error *err)
{
    row_relay relay = { fn, ctx, 0 };
    memfs_code rc = cache_agent_blocks(home_cache(self->home), q, ret, relay_row, &relay, err);
    agent *a;

    if (rc == MEMFS_ECORRUPT)
        home_cache_suspect(self->home);
    if ((rc != MEMFS_ENOTFOUND && rc != MEMFS_ECORRUPT) || relay.n > 0)
        return rc;
    if (http_is_hurried(rq))
        return memfs_fail(err, MEMFS_ELIMIT, "more work than an event thread may do");
    home_rows_lost(self->home, q->agent_id);
    rc = home_agent(self->home, q->agent_id, &a, err);
    if (rc < 0)
        return rc;
    rc = cache_agent_blocks(home_cache(self->home), q, ret, relay_row, &relay, err);
    if (rc == MEMFS_ENOTFOUND && relay.n == 0)
        rc = memfs_fail(err, MEMFS_EUNAVAIL, "the blocks of this agent are being made anew");
    return rc;
}

memfs_code reply_all_blocks(app *self, const block_query *q, block_row_fn fn, void *ctx,
                            memfs_error *err)
{
    memfs_code rc = cache_blocks(home_cache(self->home), q, fn, ctx, err);

    if (rc == MEMFS_ECORRUPT)
        home_cache_suspect(self->home);
    return rc;
}

/* ---- one's own part ---- */

static void narrow_cursor(memfs_str own, memfs_str *cursor)
{
    if (!str_equal(*cursor, own))
        *cursor = MEMFS_STR(""); /* as an id that nobody has */
}

void reply_narrow_agents(const http_request *rq, agent_query *q)
{
    memfs_str own = app_own_agent(rq);

    if (own.len == 0)
        return;
    q->id = own;
    narrow_cursor(own, &q->before);
    narrow_cursor(own, &q->after);
}

/* By creation a cursor stands for its block's time, which a foreign one must not; ids are text. */
static memfs_code narrow_block_cursor(const http_request *rq, app *self, memfs_str *cursor,
                                      memfs_error *err)
{
    char owner[IDS_MAX_LEN + 1];
    memfs_code rc;

    if (cursor->len == 0)
        return MEMFS_OK;
    rc = reply_block_owner(rq, self, *cursor, owner, err);
    if (rc == MEMFS_OK && owner[0] == '\0')
        *cursor = MEMFS_STR("");
    return rc;
}

memfs_code reply_narrow_blocks(const http_request *rq, app *self, block_query *q, memfs_error *err)
{
    memfs_str own = app_own_agent(rq);
    memfs_code rc;

    if (own.len == 0)
        return MEMFS_OK;
    q->agent_id = own;
    if (q->order == BLOCK_ORDER_ID)
        return MEMFS_OK;
    rc = narrow_block_cursor(rq, self, &q->before, err);
    return rc == MEMFS_OK ? narrow_block_cursor(rq, self, &q->after, err) : rc;
}

memfs_code reply_block_owner(const http_request *rq, app *self, memfs_str block_id, char *out,
                             memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };
    memfs_code rc = block_holders_find(self->home, block_id, app_own_agent(rq), &of, err);

    if (rc == MEMFS_ECORRUPT)
        home_cache_suspect(self->home);
    snprintf(out, IDS_MAX_LEN + 1, "%s", of.n > 0 ? of.list[0].agent_id : "");
    return rc;
}

/* ---- tags ---- */

bool reply_if_match(const http_request *rq, memfs_str *ret)
{
    const char *header = http_header(rq, "If-Match");
    memfs_str tag = str_of(header != NULL ? header : "*");

    if (str_equal(tag, MEMFS_STR("*")))
        return false;
    if (tag.len > 2 && tag.ptr[0] == '"' && tag.ptr[tag.len - 1] == '"')
        tag = str_make(tag.ptr + 1, tag.len - 2);
    *ret = tag.len > 0 ? tag : MEMFS_STR("\"\"");
    return true;
}

memfs_str reply_if_match_commit(const http_request *rq)
{
    memfs_str tag = MEMFS_STR(""), commit, rest;

    return reply_if_match(rq, &tag) && str_split(tag, '-', &commit, &rest) ? commit : tag;
}

void reply_tag_agent(reply_tag *tag, const cache_tip *tip)
{
    char *at = tag->text;

    if (tag->is_sent)
        return;
    *at++ = '"';
    oid_hex(&tip->commit, at);
    at += MEMFS_OID_HEX;
    *at++ = '-';
    at += str_put_u64((uint64_t)tip->generation, at);
    memcpy(at, "\"", 2);
}

void reply_tag_state(reply_tag *tag, const cache_tip *tip, int64_t updated_at_us,
                     unsigned relations)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(&tip->commit, hex);
    snprintf(tag->text, sizeof(tag->text), "\"%s-%lld-%llx-%x\"", hex, (long long)tip->generation,
             (unsigned long long)updated_at_us, relations);
}

static memfs_code note_version(const state_agent *row, void *ctx, memfs_error *err)
{
    (void)err;
    *(int64_t *)ctx = row->version;
    return MEMFS_OK;
}

static memfs_code tag_own_part(app *self, memfs_str own, reply_tag *tag, memfs_error *err)
{
    const agent_query q = { .id = own };
    int64_t version = 0;
    cache_tip tip = { .generation = 0 };
    memfs_code rc = cache_tip_get(home_cache(self->home), own, &tip, err);

    if (rc == MEMFS_ENOTFOUND) /* nothing was pushed yet */
        rc = MEMFS_OK;
    if (rc == MEMFS_OK)
        rc = state_agents(home_state(self->home), &q, note_version, &version, err);
    if (rc == MEMFS_OK)
        reply_tag_state(tag, &tip, version, 0);
    return rc;
}

memfs_code reply_tag_all(const http_request *rq, app *self, reply_tag *tag, memfs_error *err)
{
    int64_t generation = 0, n_agents = 0, version = 0;
    memfs_str own = app_own_agent(rq);
    memfs_code rc;

    if (own.len > 0)
        return tag_own_part(self, own, tag, err);
    rc = cache_generation(home_cache(self->home), &generation, err);
    if (rc == MEMFS_OK)
        rc = state_agent_count(home_state(self->home), &n_agents, err);
    if (rc == MEMFS_OK)
        rc = state_agents_version(home_state(self->home), &version, err);
    if (rc < 0)
        return rc;
    snprintf(tag->text, sizeof(tag->text), "\"%lld-%lld-%lld\"", (long long)generation,
             (long long)n_agents, (long long)version);
    return MEMFS_OK;
}

bool reply_is_known(http_request *rq, app *self, memfs_str agent_id, reply_tag *tag)
{
    memfs_error ignored;
    cache_tip tip;

    if (http_method_of(rq) != HTTP_GET || http_header(rq, "If-None-Match") == NULL ||
        cache_tip_get(home_cache(self->home), agent_id, &tip, &ignored) < 0)
        return false;
    reply_tag_agent(tag, &tip);
    tag->is_sent = true;
    return http_not_modified(rq, tag->text);
}

/* ---- ends ---- */

/* An answer that grew past its bound is sent as 413. */
void reply_json(http_request *rq)
{
    http_send(rq, 200, JSON_TYPE);
}

void reply_rows(http_request *rq, const reply_tag *tag, memfs_code rc, const memfs_error *err)
{
    if (rc < 0 && !http_out(rq)->too_big) {
        http_send_error(rq, err);
        return;
    }
    if (rc == MEMFS_OK && !tag->is_sent) {
        if (http_method_of(rq) != HTTP_GET)
            http_set_header(rq, "ETag", tag->text);
        else if (http_not_modified(rq, tag->text))
            return;
    }
    reply_json(rq);
}

void reply_count(http_request *rq, int64_t n, memfs_code rc, const memfs_error *err)
{
    json_writer w = JSON_WRITER_INIT(http_out(rq));

    if (rc < 0) {
        http_send_error(rq, err);
        return;
    }
    jw_int(&w, n);
    reply_json(rq);
}

memfs_code reply_write_block(const block_row *row, void *ctx, memfs_error *err)
{
    json_writer *w = ctx;

    shape_block(w, row, true);
    return buf_check(w->out, "the answer", err);
}
