/*
 * agents.c - the agents as Letta's clients see them (http-api 7), and what hangs on one agent.
 *
 * memfs knows of an agent its id, its name, its tags and its memory, and keeps what else it is told
 * (agent_fields.h).  Filters by anything else are accepted and match nothing.  No agent ever ran
 * here, so the order by its last run is that of creation.
 *
 * Which relations are shown follows http-api 1.3: those that were asked for; else none for callers
 * of the 1.0 SDK, all for everyone else.
 */
#include "server/agents.h"

#include "base/mem.h"
#include "memory/ids.h"
#include "server/reply.h"
#include "server/shape.h"
#include "sync/block_edit.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- relations ---- */

/* agent.blocks loads the tags too. */
static const char *const INCLUDES[] = {
    "agent.blocks",
    "agent.identities",
    "agent.managed_group",
    "agent.pending_approval",
    "agent.secrets",
    "agent.sources",
    "agent.tags",
    "agent.tools",
    NULL,
};
static const unsigned INCLUDES_BLOCKS = 1u << 0, INCLUDES_TAGS = 1u << 6;

static bool is_sdk(const http_request *rq)
{
    const char *name = http_header(rq, "User-Agent");
    memfs_str client = str_of(name);

    return name == NULL || http_header(rq, "X-Stainless-Package-Version") != NULL ||
           str_starts_with(client, MEMFS_STR("letta-client/1.")) ||
           str_starts_with(client, MEMFS_STR("@letta-ai/letta-client/1."));
}

/* include_relationships: the older parameter, free text; "memory" are the blocks. */
static unsigned read_legacy(const params *p)
{
    unsigned relations = 0;
    memfs_str name;

    for (size_t i = 0; p->lookup(p->source, "include_relationships", i, &name); i++) {
        if (str_equal(name, MEMFS_STR("memory")))
            relations |= SHAPE_BLOCKS;
        else if (str_equal(name, MEMFS_STR("tags")))
            relations |= SHAPE_TAGS;
    }
    return relations;
}

static unsigned read_relations(http_request *rq, params *p, bool has_legacy)
{
    bool is_given;
    unsigned mask = params_choices(p, "include", INCLUDES, &is_given), relations = 0;

    if (mask & INCLUDES_BLOCKS)
        relations |= SHAPE_BLOCKS | SHAPE_TAGS;
    if (mask & INCLUDES_TAGS)
        relations |= SHAPE_TAGS;
    if (has_legacy && params_given(p, "include_relationships"))
        return relations | read_legacy(p);
    if (is_given)
        return relations;
    return is_sdk(rq) ? 0 : SHAPE_ALL;
}

/* ---- one AgentState after the other ---- */

typedef struct agent_writer {
    http_request *rq;
    app *app;
    json_writer w;
    json_writer blocks_w;
    memfs_buf blocks; /* of the agent at hand */
    unsigned relations;
    bool is_loaded; /* blocks are there already, of the one agent that will come */
    size_t n;
    /* of the last one, for the tag */
    cache_tip tip;
    int64_t updated_at_us;
} agent_writer;

static agent_writer agent_writer_for(http_request *rq, app *self, unsigned relations)
{
    return (agent_writer){ .rq = rq,
                           .app = self,
                           .w = JSON_WRITER_INIT(http_out(rq)),
                           .blocks = MEMFS_BUF_INIT(http_out(rq)->max_bytes),
                           .relations = relations };
}

static void agent_writer_dispose(agent_writer *aw)
{
    buf_dispose(&aw->blocks);
}

static memfs_code write_block(const block_row *row, void *ctx, memfs_error *err)
{
    agent_writer *aw = ctx;

    shape_block(&aw->blocks_w, row, false);
    return buf_check(&aw->blocks, "the answer", err);
}

/*
 * is_thorough: rows that are not there are made first; the caller has looked at the agent.  In
 * lists an agent that was not synced yet shows no blocks, and nobody waits for it.
 */
static memfs_code load_blocks(agent_writer *aw, memfs_str agent_id, bool is_thorough,
                              memfs_error *err)
{
    const block_query q = { .agent_id = agent_id, .show_hidden = true, .order = BLOCK_ORDER_ID };
    memfs_code rc;

    buf_clear(&aw->blocks);
    aw->blocks_w = (json_writer)JSON_WRITER_INIT(&aw->blocks);
    jw_array(&aw->blocks_w);
    if (is_thorough) {
        rc = reply_agent_blocks(aw->rq, aw->app, &q, &aw->tip, write_block, aw, err);
    } else {
        rc = cache_agent_blocks(home_cache(aw->app->home), &q, &aw->tip, write_block, aw, err);
        if (rc == MEMFS_ENOTFOUND)
            rc = MEMFS_OK;
    }
    jw_array_end(&aw->blocks_w);
    return rc;
}

static memfs_code write_agent(const state_agent *row, void *ctx, memfs_error *err)
{
    agent_writer *aw = ctx;
    memfs_code rc = MEMFS_OK;

    aw->n++;
    aw->updated_at_us = row->updated_at_us;
    if ((aw->relations & SHAPE_BLOCKS) && !aw->is_loaded)
        rc = load_blocks(aw, row->id, false, err);
    if (rc < 0)
        return rc;
    shape_agent(&aw->w, row, aw->relations, buf_str(&aw->blocks));
    return buf_check(aw->w.out, "the answer", err);
}

/* ---- GET /v1/agents/{agent} ---- */

/* The blocks, which bring the tip, or the tip alone where they are not wanted. */
static memfs_code load_agent(agent_writer *aw, memfs_str agent_id, memfs_error *err)
{
    memfs_error ignored;

    if (aw->relations & SHAPE_BLOCKS) {
        aw->is_loaded = true;
        return load_blocks(aw, agent_id, true, err);
    }
    if (cache_tip_get(home_cache(aw->app->home), agent_id, &aw->tip, &ignored) < 0)
        aw->tip = (cache_tip){ .generation = 0 };
    return MEMFS_OK;
}

void agents_answer(http_request *rq, app *self, memfs_str id, unsigned relations)
{
    const agent_query q = { .id = id, .with_fields = true };
    _cleanup_(agent_writer_dispose) agent_writer aw = agent_writer_for(rq, self, relations);
    memfs_error err = MEMFS_ERROR_INIT;
    reply_tag tag = { .is_sent = false };
    memfs_code rc = load_agent(&aw, id, &err);

    if (rc == MEMFS_OK)
        rc = state_agents(home_state(self->home), &q, write_agent, &aw, &err);
    if (rc == MEMFS_OK && aw.n == 0)
        rc = memfs_fail(&err, MEMFS_ENOTFOUND, "agent is not in the state");
    if (rc < 0) {
        reply_agent_failed(rq, id, &err);
        return;
    }
    reply_tag_state(&tag, &aw.tip, aw.updated_at_us, relations);
    http_set_header(rq, "Vary", "User-Agent, X-Stainless-Package-Version");
    reply_rows(rq, &tag, rc, &err);
}

void agent_get(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    memfs_str id = reply_agent_id(rq, &p);
    unsigned relations = read_relations(rq, &p, true);

    if (reply_params_good(rq, &p) && reply_agent(rq, ctx, id))
        agents_answer(rq, ctx, id, relations);
}

/* ---- lists ---- */

typedef struct agents_filter {
    agent_query q;
    memfs_str tags[REPLY_MAX_TAGS];
    bool matches_none;
} agents_filter;

/*
 * Every agent has the git tag, stored or not: it holds for all, so it is taken out of "all of", and
 * "any of" with it is no filter.
 */
static void read_agent_tags(params *p, agents_filter *f)
{
    size_t n = params_texts(p, "tags", f->tags, REPLY_MAX_TAGS), kept = 0;
    bool match_all = params_bool(p, "match_all_tags", false);

    for (size_t i = 0; i < n; i++) {
        if (!str_equal(f->tags[i], MEMFS_STR(SHAPE_GIT_TAG)))
            f->tags[kept++] = f->tags[i];
    }
    f->q.tags = f->tags;
    f->q.n_tags = kept < n && !match_all ? 0 : kept;
    f->q.match_all_tags = match_all;
}

static void read_agent_filters(params *p, agents_filter *f)
{
    static const char *const nobody_has[] = { "project_id",    "template_id",
                                              "identity_id",   "base_template_id",
                                              "created_by_id", "last_stop_reason" };
    memfs_str text;

    (void)params_text(p, "name", &f->q.name);
    (void)params_text(p, "query_text", &f->q.query_text);
    read_agent_tags(p, f);
    f->q.without_hidden = !params_bool(p, "show_hidden_agents", false);
    f->q.which = params_bool(p, "deleted", false) ? AGENTS_DELETED : AGENTS_LIVING;
    for (size_t i = 0; i < ARRAY_LEN(nobody_has); i++)
        f->matches_none |= params_text(p, nobody_has[i], &text);
    f->matches_none |= params_given(p, "identifier_keys");
}

static void read_agent_cursors(params *p, agent_query *q)
{
    (void)params_text(p, "before", &q->before);
    (void)params_text(p, "after", &q->after);
    q->limit = params_limit(p, 50);
    q->descending = params_is_descending(p, true);
}

static void answer_agents(http_request *rq, app *self, agents_filter *f, unsigned relations)
{
    _cleanup_(agent_writer_dispose) agent_writer aw = agent_writer_for(rq, self, relations);
    memfs_error err = MEMFS_ERROR_INIT;
    reply_tag tag = { .is_sent = false };
    memfs_code rc = reply_tag_all(rq, self, &tag, &err);

    reply_narrow_agents(rq, &f->q);
    f->q.with_fields = true;
    jw_array(&aw.w);
    if (rc == MEMFS_OK && !f->matches_none)
        rc = state_agents(home_state(self->home), &f->q, write_agent, &aw, &err);
    jw_array_end(&aw.w);
    http_set_header(rq, "Vary", "User-Agent, X-Stainless-Package-Version");
    reply_rows(rq, &tag, rc, &err);
}

void agents_list(http_request *rq, void *ctx)
{
    static const char *const orders[] = { "created_at", "updated_at", "last_run_completion", NULL };
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    agents_filter f = { .matches_none = false };
    unsigned relations;

    read_agent_filters(&p, &f);
    read_agent_cursors(&p, &f.q);
    f.q.by_updated = params_choice(&p, "order_by", orders, 0) == 1;
    relations = read_relations(rq, &p, true);
    if (reply_params_good(rq, &p))
        answer_agents(rq, ctx, &f, relations);
}

static memfs_code count_agent(const state_agent *row, void *ctx, memfs_error *err)
{
    (void)row;
    (void)err;
    (*(int64_t *)ctx)++;
    return MEMFS_OK;
}

void agents_count(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    agents_filter f = { .matches_none = false };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = MEMFS_OK;
    app *self = ctx;
    int64_t n = 0;

    read_agent_filters(&p, &f);
    if (!reply_params_good(rq, &p))
        return;
    reply_narrow_agents(rq, &f.q);
    f.q.without_hidden = false; /* hidden ones count */
    if (f.q.id.len == 0 && f.q.name.len == 0 && f.q.query_text.len == 0 && f.q.n_tags == 0 &&
        f.q.which == AGENTS_LIVING && !f.matches_none)
        rc = state_agent_count(home_state(self->home), &n, &err);
    else if (!f.matches_none)
        rc = state_agents(home_state(self->home), &f.q, count_agent, &n, &err);
    reply_count(rq, n, rc, &err);
}

/* ---- GET /v1/blocks/{id}/agents ---- */

typedef struct owner {
    const char *id;
    int64_t created_at_us;
} owner;

static memfs_code note_created(const state_agent *row, void *ctx, memfs_error *err)
{
    (void)err;
    ((owner *)ctx)->created_at_us = row->created_at_us;
    return MEMFS_OK;
}

static int compare_owners(const void *a, const void *b)
{
    const owner *x = a, *y = b;

    if (x->created_at_us != y->created_at_us)
        return x->created_at_us < y->created_at_us ? -1 : 1;
    return strcmp(x->id, y->id);
}

/* One after the other, in the order of a list: few blocks have more than one agent. */
static memfs_code write_owners(agent_writer *aw, agents_filter *f, const block_holders *of,
                               memfs_error *err)
{
    owner *list = mem_alloc((of->n + 1) * sizeof(*list));
    state *st = home_state(aw->app->home);
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < of->n; i++) {
        const agent_query q = { .id = str_of(of->list[i].agent_id) };

        list[i].id = of->list[i].agent_id;
        rc = state_agents(st, &q, note_created, &list[i], err);
    }
    qsort(list, of->n, sizeof(*list), compare_owners);
    for (size_t i = 0; rc == MEMFS_OK && i < of->n; i++) {
        if (f->q.limit > 0 && aw->n >= (size_t)f->q.limit)
            break;
        f->q.id = str_of(list[f->q.descending ? of->n - 1 - i : i].id);
        rc = state_agents(st, &f->q, write_agent, aw, err); /* none where a cursor leaves it out */
    }
    free(list);
    return rc;
}

void block_agents(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };
    memfs_str block_id = reply_block_id(rq, &p);
    agents_filter f = { .matches_none = false };
    memfs_error err = MEMFS_ERROR_INIT;
    reply_tag tag = { .is_sent = false };
    app *self = ctx;
    memfs_code rc;

    read_agent_cursors(&p, &f.q);
    params_order_by_created(&p);
    _cleanup_(agent_writer_dispose) agent_writer aw =
        agent_writer_for(rq, self, read_relations(rq, &p, false));
    if (!reply_params_good(rq, &p))
        return;
    rc = reply_tag_all(rq, self, &tag, &err);
    if (rc == MEMFS_OK)
        rc = block_holders_find(self->home, block_id, app_own_agent(rq), &of, &err);
    reply_narrow_agents(rq, &f.q);
    jw_array(&aw.w);
    if (rc == MEMFS_OK)
        rc = write_owners(&aw, &f, &of, &err);
    jw_array_end(&aw.w);
    http_set_header(rq, "Vary", "User-Agent, X-Stainless-Package-Version");
    reply_rows(rq, &tag, rc, &err);
}

/* ---- beside the agent ---- */

/* There are none: memfs keeps memory, and clients of 0.32 and later end badly on a 404 here. */
void agent_secrets(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    memfs_str id = reply_agent_id(rq, &p);

    if (!reply_params_good(rq, &p) || !reply_agent_or_new(rq, ctx, id))
        return;
    buf_puts(http_out(rq), "[]");
    reply_json(rq);
}
