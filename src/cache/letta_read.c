/*
 * letta_read.c - agents and blocks of a Letta server as its own reads see them, whether hidden or
 * not (is_deleted of a block means nothing there).  Its reads leave out blocks of another
 * organization than the agent's; here they come along, marked: what is not shown is not gone.
 */
#include "cache/letta_int.h"

enum { KEY_AGENTS = PG_KEYS_LETTA, KEY_AGENT, KEY_BLOCKS, KEY_SOME_BLOCKS, KEY_TIP, KEY_MARKS };

/* Tags by array_to_json, which writes no spaces: the form that the state keeps (json_agg does). */
#define AGENTS                                                                                     \
    "SELECT a.id, a.organization_id, a.name, a.description, "                                      \
    "COALESCE((SELECT array_to_json(array_agg(t.tag ORDER BY t.tag COLLATE \"C\"))::text "         \
    "FROM public.agents_tags t WHERE t.agent_id = a.id), '[]'), "                                  \
    "EXISTS(SELECT FROM public.agents_tags t WHERE t.agent_id = a.id "                             \
    "AND t.tag = 'git-memory-enabled'), "                                                          \
    "(extract(epoch FROM a.created_at) * 1000000)::int8, "                                         \
    "(extract(epoch FROM a.updated_at) * 1000000)::int8 "                                          \
    "FROM public.agents a WHERE NOT a.is_deleted AND "

#define BLOCKS                                                                                     \
    "SELECT b.id, b.label, b.value, b.description, b.\"limit\"::int8, "                            \
    "CASE WHEN json_typeof(b.metadata_::json) = 'object' THEN b.metadata_::text ELSE '{}' END, "   \
    "b.read_only, COALESCE(b.hidden, false), "                                                     \
    "COALESCE((SELECT array_to_json(array_agg(t.tag ORDER BY t.tag COLLATE \"C\"))::text "         \
    "FROM public.blocks_tags t WHERE t.block_id = b.id), '[]'), "                                  \
    "(extract(epoch FROM b.created_at) * 1000000)::int8, "                                         \
    "(extract(epoch FROM b.updated_at) * 1000000)::int8, b.version::int8, "                        \
    "(SELECT count(*) FROM public.blocks_agents o WHERE o.block_id = b.id), "                      \
    "a.organization_id <> b.organization_id "                                                      \
    "FROM public.blocks_agents l JOIN public.block b ON b.id = l.block_id "                        \
    "JOIN public.agents a ON a.id = l.agent_id "                                                   \
    "WHERE l.agent_id = $1 "
#define BY_LABEL "ORDER BY b.label COLLATE \"C\", b.id"

/* Detaching and attaching another block shows in the ids, a change in the version. */
#define MARKS                                                                                      \
    "SELECT a.id, (COALESCE((SELECT "                                                              \
    "sum(('x' || left(md5(b.id || ' ' || b.version), 15))::bit(60)::int8) "                        \
    "FROM public.blocks_agents l JOIN public.block b ON b.id = l.block_id "                        \
    "WHERE l.agent_id = a.id), 0) + (EXISTS(SELECT FROM public.agents_tags t "                     \
    "WHERE t.agent_id = a.id AND t.tag = 'git-memory-enabled'))::int4)::text "                     \
    "FROM public.agents a WHERE NOT a.is_deleted AND a.id > $1 ORDER BY a.id LIMIT $2"

static memfs_code pass_agent(const pg_result *r, int row, letta_agent_fn fn, void *ctx,
                             memfs_error *err)
{
    letta_agent agent = {
        .id = pg_col_str(r, row, 0),
        .org_id = pg_col_str(r, row, 1),
        .name = pg_col_str(r, row, 2),
        .has_description = !pg_col_is_null(r, row, 3),
        .description = pg_col_str(r, row, 3),
        .tags_json = pg_col_str(r, row, 4),
        .has_git_memory = pg_col_int(r, row, 5) != 0,
        .created_at_us = pg_col_int(r, row, 6),
        .updated_at_us = pg_col_int(r, row, 7),
    };

    return fn(&agent, ctx, err);
}

static memfs_code pass_block(const pg_result *r, int row, letta_block_fn fn, void *ctx,
                             memfs_error *err)
{
    letta_block block = {
        .id = pg_col_str(r, row, 0),
        .label = pg_col_str(r, row, 1),
        .value = pg_col_str(r, row, 2),
        .has_description = !pg_col_is_null(r, row, 3),
        .description = pg_col_str(r, row, 3),
        .limit = pg_col_int(r, row, 4),
        .metadata_json = pg_col_str(r, row, 5),
        .read_only = pg_col_int(r, row, 6) != 0,
        .hidden = pg_col_int(r, row, 7) != 0,
        .tags_json = pg_col_str(r, row, 8),
        .created_at_us = pg_col_int(r, row, 9),
        .updated_at_us = pg_col_int(r, row, 10),
        .version = pg_col_int(r, row, 11),
        .n_agents = pg_col_int(r, row, 12),
        .is_foreign = pg_col_int(r, row, 13) != 0,
    };

    return fn(&block, ctx, err);
}

/* ---- a page of agents ---- */

typedef struct page {
    uint64_t key;
    const char *sql;
    memfs_str after;
    int64_t limit;
    pg_result agents;
} page;

static memfs_code read_page(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    page *p = ctx;

    pg_arg_text(&args, p->after);
    pg_arg_int(&args, p->limit);
    return pg_query(c, p->key, p->sql, &args, &p->agents, err);
}

memfs_code letta_read_agents(letta_db *db, memfs_str after, int64_t limit, letta_agent_fn fn,
                             void *ctx, memfs_error *err)
{
    page p = { KEY_AGENTS, AGENTS "a.id > $1 ORDER BY a.id LIMIT $2", after, limit,
               PG_RESULT_INIT };
    memfs_code rc = pg_work(db->pg, PG_READ, read_page, &p, err);

    for (int row = 0; rc == MEMFS_OK && row < p.agents.n_rows; row++)
        rc = pass_agent(&p.agents, row, fn, ctx, err);
    pg_result_dispose(&p.agents);
    return rc;
}

/* Modulo 2^64: a sum may have more digits than that. */
static uint64_t number_of(memfs_str digits)
{
    uint64_t n = 0;

    for (size_t i = 0; i < digits.len; i++)
        n = n * 10 + (uint64_t)(digits.ptr[i] - '0');
    return n;
}

memfs_code letta_read_marks(letta_db *db, memfs_str after, int64_t limit, letta_mark_fn fn,
                            void *ctx, memfs_error *err)
{
    page p = { KEY_MARKS, MARKS, after, limit, PG_RESULT_INIT };
    memfs_code rc = pg_work(db->pg, PG_ONE, read_page, &p, err);

    for (int row = 0; rc == MEMFS_OK && row < p.agents.n_rows; row++)
        rc = fn(pg_col_str(&p.agents, row, 0), number_of(pg_col_str(&p.agents, row, 1)), ctx, err);
    pg_result_dispose(&p.agents);
    return rc;
}

/* ---- one memory ---- */

typedef struct memory {
    memfs_str agent_id;
    const memfs_str *labels; /* NULL: all */
    size_t n_labels;
    letta_state *state; /* NULL: not asked for */
    pg_result agent, blocks;
} memory;

static memfs_code read_tip(pg_conn *c, const pg_args *args, letta_state *ret, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc;

    rc = pg_query(c, KEY_TIP,
                  "SELECT tip, COALESCE((block_oid = to_regclass('public.block')::oid) <> "
                  "(tips_oid = to_regclass('memfs_letta.tips')::oid), false) "
                  "FROM memfs_letta.tips WHERE agent_id = $1",
                  args, &r, err);
    ret->has_tip = rc == MEMFS_OK && r.n_rows > 0;
    ret->is_torn = ret->has_tip && pg_col_int(&r, 0, 1) != 0;
    return ret->has_tip ? pg_col_oid(&r, 0, 0, &ret->tip, err) : rc;
}

static memfs_code read_blocks(pg_conn *c, memory *m, pg_args *args, memfs_error *err)
{
    int at;

    if (m->labels == NULL)
        return pg_query(c, KEY_BLOCKS, BLOCKS BY_LABEL, args, &m->blocks, err);
    at = pg_arg_array(args, PG_TEXT, m->n_labels);
    for (size_t i = 0; i < m->n_labels; i++)
        pg_array_add_str(args, at, m->labels[i]);
    return pg_query(c, KEY_SOME_BLOCKS, BLOCKS "AND l.block_label = ANY($2) " BY_LABEL, args,
                    &m->blocks, err);
}

static memfs_code read_memory(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    memory *m = ctx;
    memfs_code rc;

    pg_arg_text(&args, m->agent_id);
    rc = pg_query(c, KEY_AGENT, AGENTS "a.id = $1", &args, &m->agent, err);
    if (rc == MEMFS_OK && m->state != NULL)
        rc = read_tip(c, &args, m->state, err);
    return rc < 0 ? rc : read_blocks(c, m, &args, err);
}

static memfs_code pass_memory(letta_db *db, memory *m, letta_agent_fn agent_fn,
                              letta_block_fn block_fn, void *ctx, memfs_error *err)
{
    memfs_code rc = pg_work(db->pg, PG_READ, read_memory, m, err);

    if (rc == MEMFS_OK && m->agent.n_rows == 0)
        rc = memfs_fail(err, MEMFS_ENOTFOUND, "the Letta server has no agent '%.*s'",
                        (int)m->agent_id.len, m->agent_id.ptr);
    if (rc == MEMFS_OK && m->state != NULL)
        m->state->has_git_memory = pg_col_int(&m->agent, 0, 5) != 0;
    if (rc == MEMFS_OK && agent_fn != NULL)
        rc = pass_agent(&m->agent, 0, agent_fn, ctx, err);
    for (int row = 0; rc == MEMFS_OK && row < m->blocks.n_rows; row++)
        rc = pass_block(&m->blocks, row, block_fn, ctx, err);
    pg_result_dispose(&m->agent);
    pg_result_dispose(&m->blocks);
    return rc;
}

memfs_code letta_read_memory(letta_db *db, memfs_str agent_id, letta_agent_fn agent_fn,
                             letta_block_fn block_fn, void *ctx, memfs_error *err)
{
    memory m = { .agent_id = agent_id };

    return pass_memory(db, &m, agent_fn, block_fn, ctx, err);
}

memfs_code letta_read_state(letta_db *db, memfs_str agent_id, const memfs_str *labels,
                            size_t n_labels, letta_state *ret, letta_block_fn fn, void *ctx,
                            memfs_error *err)
{
    memory m = { .agent_id = agent_id, .labels = labels, .n_labels = n_labels, .state = ret };

    return pass_memory(db, &m, NULL, fn, ctx, err);
}
