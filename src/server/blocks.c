/*
 * blocks.c - blocks, one and many (http-api 5 and 6).
 *
 * Answers about one agent are FAST: a point look at the agent's entry and one read of the cache,
 * whose rows are written straight into the answer.  Lists over agents scan, so they run on a
 * worker.
 *
 * Filters by what memfs does not have (templates, identities, projects) are accepted and checked,
 * and match what they would match on a stock server where nobody made any: nothing.
 */
#include "base/clock.h"
#include "base/pool.h"
#include "memory/ids.h"
#include "server/recompile.h"
#include "server/reply.h"
#include "server/shape.h"
#include "sync/loose.h"
#include "sync/materialise.h"

#include <stdio.h>

/* ---- one block ---- */

typedef struct one_block {
    json_writer w;
    bool found;
} one_block;

static memfs_code write_one(const block_row *row, void *ctx, memfs_error *err)
{
    one_block *one = ctx;

    if (one->found)
        return MEMFS_OK;
    one->found = true;
    return reply_write_block(row, &one->w, err);
}

static void send_no_block(http_request *rq, const block_query *q)
{
    if (q->label.len > 0)
        http_send_detail(rq, 404, "No block with label '%.*s' found for agent '%.*s'",
                         (int)q->label.len, q->label.ptr, (int)q->agent_id.len, q->agent_id.ptr);
    else
        http_send_detail(rq, 404, "Block with id '%.*s' not found", (int)q->id.len, q->id.ptr);
}

/* The one block of an agent that q names by label or id. */
static void answer_one(http_request *rq, app *self, const block_query *q)
{
    one_block one = { JSON_WRITER_INIT(http_out(rq)), false };
    memfs_error err = MEMFS_ERROR_INIT;
    reply_tag tag = { .is_sent = false };
    cache_tip tip;
    memfs_code rc;

    if (reply_is_known(rq, self, q->agent_id, &tag))
        return;
    rc = reply_agent_blocks(rq, self, q, &tip, write_one, &one, &err);
    if (rc == MEMFS_OK && !one.found) {
        send_no_block(rq, q);
        return;
    }
    if (rc == MEMFS_OK)
        reply_tag_agent(&tag, &tip);
    reply_rows(rq, &tag, rc, &err);
}

void block_of_agent(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    memfs_str agent_id = reply_agent_id(rq, &p);
    const block_query q = { .agent_id = agent_id, .label = http_param(rq, "label"),
                            .show_hidden = true, .limit = 1 };

    if (!reply_params_good(rq, &p) || !reply_agent(rq, ctx, agent_id))
        return;
    if (q.label.len == 0) /* an empty filter would match any */
        send_no_block(rq, &q);
    else
        answer_one(rq, ctx, &q);
}

void block_get(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    block_query q = { .id = reply_block_id(rq, &p), .show_hidden = true, .limit = 1 };
    memfs_error err = MEMFS_ERROR_INIT;
    char owner[IDS_MAX_LEN + 1];

    if (!reply_params_good(rq, &p) || reply_put_off(rq, ctx))
        return;
    if (reply_block_owner(rq, ctx, q.id, owner, &err) < 0) {
        http_send_error(rq, &err);
        return;
    }
    q.agent_id = str_of(owner);
    if (q.agent_id.len == 0)
        send_no_block(rq, &q);
    else if (str_equal(q.agent_id, LOOSE_AGENT) || reply_agent(rq, ctx, q.agent_id))
        answer_one(rq, ctx, &q);
}

/* ---- the blocks of one agent ---- */

static void answer_blocks(http_request *rq, app *self, const block_query *q)
{
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    memfs_error err = MEMFS_ERROR_INIT;
    reply_tag tag = { .is_sent = false };
    cache_tip tip;
    memfs_code rc;

    if (reply_is_known(rq, self, q->agent_id, &tag))
        return;
    jw_array(&w);
    rc = reply_agent_blocks(rq, self, q, &tip, reply_write_block, &w, &err);
    jw_array_end(&w);
    if (rc == MEMFS_OK)
        reply_tag_agent(&tag, &tip);
    reply_rows(rq, &tag, rc, &err);
}

static void read_cursors(params *p, block_query *q, int64_t limit, bool is_descending)
{
    (void)params_text(p, "before", &q->before);
    (void)params_text(p, "after", &q->after);
    q->limit = params_limit(p, limit);
    q->descending = params_is_descending(p, is_descending);
    params_order_by_created(p);
}

void blocks_of_agent(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    block_query q = { .agent_id = reply_agent_id(rq, &p), .show_hidden = true,
                      .order = BLOCK_ORDER_ID };

    read_cursors(&p, &q, 100, true);
    if (reply_params_good(rq, &p) && reply_agent(rq, ctx, q.agent_id))
        answer_blocks(rq, ctx, &q);
}

static memfs_code write_bare_block(const block_row *row, void *ctx, memfs_error *err)
{
    json_writer *w = ctx;

    shape_block(w, row, false);
    return buf_check(w->out, "the answer", err);
}

void core_memory(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    const block_query q = { .agent_id = reply_agent_id(rq, &p), .show_hidden = true,
                            .order = BLOCK_ORDER_ID };
    _cleanup_(buf_dispose) memfs_buf blocks = MEMFS_BUF_INIT(http_out(rq)->max_bytes);
    json_writer list = JSON_WRITER_INIT(&blocks), w = JSON_WRITER_INIT(http_out(rq));
    memfs_error err = MEMFS_ERROR_INIT;
    reply_tag tag = { .is_sent = false };
    cache_tip tip;
    memfs_code rc;

    if (!reply_params_good(rq, &p) || !reply_agent(rq, ctx, q.agent_id) ||
        reply_is_known(rq, ctx, q.agent_id, &tag))
        return;
    jw_array(&list);
    rc = reply_agent_blocks(rq, ctx, &q, &tip, write_bare_block, &list, &err);
    jw_array_end(&list);
    if (rc == MEMFS_OK) {
        shape_memory(&w, buf_str(&blocks));
        reply_tag_agent(&tag, &tip);
    }
    reply_rows(rq, &tag, rc, &err);
}

/* ---- blocks of all agents ---- */

#define MAX_COUNTS 100

/* What a list over agents asks for; matches_none: a filter that nothing here can meet. */
typedef struct blocks_filter {
    block_query q;
    memfs_str tags[REPLY_MAX_TAGS];
    block_agent_count agents;
    int64_t n_agents[MAX_COUNTS];
    bool matches_none;
} blocks_filter;

static void read_tags(params *p, blocks_filter *f)
{
    f->q.tags = f->tags;
    f->q.n_tags = params_texts(p, "tags", f->tags, REPLY_MAX_TAGS);
    f->q.match_all_tags = params_bool(p, "match_all_tags", false);
}

/* The filters that list and count share.  A count without any counts hidden blocks too, and so does
 * one with some, so that the two need no telling apart here. */
static void read_common_filters(params *p, blocks_filter *f)
{
    memfs_str text;

    (void)params_ruled(p, "label", &PARAMS_LABEL, &f->q.label);
    f->matches_none |= params_bool(p, "templates_only", false);
    f->matches_none |= params_ruled(p, "name", &PARAMS_NAME, &text);
    f->matches_none |= params_text(p, "project_id", &text);
    read_tags(p, f);
}

static bool read_agent_counts(params *p, blocks_filter *f)
{
    bool is_given = params_given(p, "connected_to_agents_count_eq");
    int64_t n;

    f->agents = (block_agent_count){
        .most = INT64_MAX,
        .any_of = f->n_agents,
        .n = params_ints(p, "connected_to_agents_count_eq", f->n_agents, MAX_COUNTS),
        .nobody = LOOSE_AGENT,
    };
    if (params_int(p, "connected_to_agents_count_gt", &n)) {
        f->matches_none |= n == INT64_MAX;
        f->agents.least = n < INT64_MAX ? n + 1 : n;
        is_given = true;
    }
    if (params_int(p, "connected_to_agents_count_lt", &n)) {
        f->matches_none |= n <= 0;
        f->agents.most = n > 0 ? n - 1 : 0;
        is_given = true;
    } else if (f->agents.n == 0 && f->agents.least < 1)
        f->agents.least = 1; /* blocks of nobody only where they are asked for (http-api 6.1) */
    f->q.agents = is_given ? &f->agents : NULL;
    return is_given;
}

/* An agent's token learns of its own copy of a block, and not how many others have it (S1). */
static void count_own_alone(blocks_filter *f)
{
    const block_agent_count *a = f->q.agents;
    bool has_one = a != NULL && a->n == 0;

    if (a == NULL || f->q.agent_id.len == 0)
        return;
    for (size_t i = 0; i < a->n; i++)
        has_one |= a->any_of[i] == 1;
    f->matches_none |= !has_one || a->least > 1 || a->most < 1;
    f->q.agents = NULL;
}

static bool read_identities(params *p, blocks_filter *f)
{
    memfs_str text;
    bool is_given = params_id(p, "identity_id", "identity", &text);

    is_given |= params_given(p, "identifier_keys");
    f->matches_none |= is_given;
    return is_given;
}

static void read_searches(params *p, blocks_filter *f)
{
    block_query *q = &f->q;
    bool has_label_search = params_ruled(p, "label_search", &PARAMS_LABEL, &q->label_search);

    (void)params_ruled(p, "description_search", &PARAMS_SEARCH, &q->description_search);
    (void)params_ruled(p, "value_search", &PARAMS_SEARCH, &q->value_search);
    if (has_label_search && q->label.len > 0)
        q->label_search = MEMFS_STR("");
}

/* params_ruled and params_id leave a bad value behind; nothing is asked with it then. */
static void read_list(params *p, blocks_filter *f)
{
    bool is_by_id;

    read_common_filters(p, f);
    is_by_id = read_identities(p, f);
    read_cursors(p, &f->q, 50, false);
    read_searches(p, f);
    is_by_id |= read_agent_counts(p, f);
    f->q.show_hidden = params_bool(p, "show_hidden_blocks", false);
    f->q.order = is_by_id ? BLOCK_ORDER_ID : BLOCK_ORDER_CREATED;
}

/* Copies of a block that several agents have come one after the other: the first stands for all. */
typedef struct list_writer {
    json_writer w;
    char last[IDS_BLOCK_LEN + 1];
} list_writer;

static memfs_code write_once(const block_row *row, void *ctx, memfs_error *err)
{
    list_writer *lw = ctx;

    if (str_equal(row->id, str_of(lw->last)))
        return MEMFS_OK;
    snprintf(lw->last, sizeof(lw->last), "%.*s", (int)row->id.len, row->id.ptr);
    return reply_write_block(row, &lw->w, err);
}

void blocks_list(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    blocks_filter f = { .matches_none = false };
    list_writer lw = { .w = JSON_WRITER_INIT(http_out(rq)) };
    memfs_error err = MEMFS_ERROR_INIT;
    reply_tag tag = { .is_sent = false };
    memfs_code rc;

    read_list(&p, &f);
    if (!reply_params_good(rq, &p))
        return;
    rc = reply_narrow_blocks(rq, ctx, &f.q, &err);
    count_own_alone(&f);
    if (rc == MEMFS_OK)
        rc = reply_tag_all(rq, ctx, &tag, &err);
    jw_array(&lw.w);
    if (rc == MEMFS_OK && !f.matches_none)
        rc = reply_all_blocks(ctx, &f.q, write_once, &lw, &err);
    jw_array_end(&lw.w);
    reply_rows(rq, &tag, rc, &err);
}

void blocks_count(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    blocks_filter f = { .q = { .show_hidden = true } };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = MEMFS_OK;
    int64_t n = 0;
    app *self = ctx;

    read_common_filters(&p, &f);
    if (!reply_params_good(rq, &p))
        return;
    rc = reply_narrow_blocks(rq, self, &f.q, &err);
    if (rc == MEMFS_OK && !f.matches_none)
        rc = cache_count(home_cache(self->home), &f.q, &n, &err);
    reply_count(rq, n, rc, &err);
}

/* ---- sync ---- */

#define SYNC_WAIT_MS 30000
#define SYNC_RETRY_S 30

/*
 * What the remotes have comes in first.  One that fails keeps nobody from the blocks that are here:
 * they are answered with 200, and the header says it.  Only of an agent that nobody here knows is
 * that not enough, as the remote may have it.
 */
static void meet_remotes(app *self, memfs_str agent_id, mirror_outcome *ret)
{
    char id[IDS_MAX_LEN + 1];

    *ret = (mirror_outcome){ .n_remotes = 0 };
    if (!mirror_has_remotes(self->mirror))
        return;
    snprintf(id, sizeof(id), "%.*s", (int)agent_id.len, agent_id.ptr);
    pool_wait_begin(); /* a host that hangs keeps no place from other agents (L3) */
    mirror_sync_modestly(self->mirror, id, clock_mono_ms() + SYNC_WAIT_MS, ret);
    pool_wait_end();
}

/* Fixed words and numbers: what a remote said is in the status and in the log (T20). */
static void tell_remotes(http_request *rq, const mirror_outcome *o)
{
    char text[80];

    if (o->n_remotes == 0)
        return;
    if (o->n_failed == 0)
        snprintf(text, sizeof(text), "ok; remotes=%zu", o->n_remotes);
    else
        snprintf(text, sizeof(text), "failed; remotes=%zu; failed=%zu", o->n_remotes, o->n_failed);
    http_set_header(rq, "X-Memfs-Remote", text);
}

/* An agent that is unknown here: is it nobody's, or on a remote that could not be asked? */
static void send_unknown(http_request *rq, memfs_str agent_id, const mirror_outcome *o,
                         const memfs_error *err)
{
    int64_t after_s = o->retry_after_s > 0 ? o->retry_after_s : SYNC_RETRY_S;
    char text[24];

    if (err->code != MEMFS_ENOTFOUND || o->n_failed == o->n_missing) {
        reply_agent_failed(rq, agent_id, err);
        return;
    }
    snprintf(text, sizeof(text), "%lld", (long long)after_s);
    http_set_header(rq, "Retry-After", text);
    http_send_detail(rq, 503, "This agent is not known here, and its remote could not be asked");
}

static memfs_code catch_up(app *self, memfs_str agent_id, memfs_error *err)
{
    materialise_result result;
    memfs_code rc;
    agent *a;

    if (home_is_shared(self->home)) { /* the commit from another server, if it is there */
        rc = home_agent_repo(self->home, agent_id, &a, err);
        return rc == MEMFS_OK ? home_agent(self->home, agent_id, &a, err) : rc;
    }
    rc = home_agent(self->home, agent_id, &a, err);
    if (rc < 0)
        return rc;
    if (!agent_lock_for(a, SYNC_WAIT_MS))
        return memfs_fail(err, MEMFS_EUNAVAIL, "the memory of this agent is busy");
    rc = materialise_agent(self->home, a, &result, err);
    if (rc == MEMFS_OK)
        home_letta_settle(self->home, a);
    agent_unlock(a);
    return rc;
}

/*
 * The blocks as git has them now, in the order of the tree (http-api 3).  Unlike in stock servers
 * the cache follows every push by itself; this fetches from the agent's remotes, and finds what
 * reached the folder another way.
 */
void sync_from_git(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    const block_query q = { .agent_id = reply_agent_id(rq, &p), .show_hidden = true,
                            .order = BLOCK_ORDER_PATH };
    recompile_when recompile = recompile_read(&p);
    memfs_error err = MEMFS_ERROR_INIT;
    mirror_outcome outcome;
    app *self = ctx;
    memfs_code rc;

    if (!reply_params_good(rq, &p))
        return;
    meet_remotes(self, q.agent_id, &outcome);
    tell_remotes(rq, &outcome);
    rc = catch_up(self, q.agent_id, &err);
    if (rc == MEMFS_ENOTFOUND) {
        pool_wait_begin(); /* Letta's database may hang as a host does (L3) */
        rc = home_letta_meet(self->home, q.agent_id, &err);
        pool_wait_end();
        if (rc == MEMFS_OK)
            rc = catch_up(self, q.agent_id, &err);
    }
    if (rc < 0) {
        send_unknown(rq, q.agent_id, &outcome, &err);
        return;
    }
    recompile_prompt(ctx, rq, q.agent_id, recompile);
    answer_blocks(rq, ctx, &q);
}
