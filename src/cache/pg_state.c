#include "cache/pg_state.h"

#include "cache/pg_backend.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * The state in PostgreSQL: births and banned objects here, agents, tokens and mirrors in files of
 * their own.  Every write comes to the same when it is done twice, as pg_work() may do after a
 * COMMIT whose answer was lost.  Writes that would change nothing touch no row.
 */

/* ---- a query and its rows ---- */

void pg_fetch_dispose(pg_fetch *f)
{
    pg_args_dispose(&f->args);
    pg_result_dispose(&f->result);
}

static memfs_code fetch(pg_conn *c, void *ctx, memfs_error *err)
{
    pg_fetch *f = ctx;

    return pg_query(c, f->key, f->sql, &f->args, &f->result, err);
}

memfs_code pg_fetch_run(state *s, pg_fetch *f, memfs_error *err)
{
    return pg_work(pg_state_db(s), PG_ONE, fetch, f, err);
}

/* ---- agents, one by one ---- */

static memfs_code agent_known(state *s, memfs_str id, bool *ret, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_AGENT_KNOWN, "SELECT 1 FROM agents WHERE agent_id = $1 AND "
                                       "deleted_at >= 0");
    memfs_code rc;

    pg_arg_text(&f.args, id);
    rc = pg_fetch_run(s, &f, err);
    *ret = rc == MEMFS_OK && f.result.n_rows > 0;
    return rc;
}

static memfs_code agent_add(state *s, memfs_str id, memfs_str org_id, int64_t now_us,
                            memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_AGENT_ADD,
                      "INSERT INTO agents(agent_id, org_id, name, tags, tag_list, created_at, "
                      "updated_at) SELECT $1, $2, $3, '[]', '{}', $4, $4 WHERE NOT EXISTS("
                      "SELECT FROM agents WHERE agent_id = $1 AND deleted_at >= 0) "
                      "ON CONFLICT(agent_id) DO UPDATE SET deleted_at = 0, "
                      "version = agents.version + 1 WHERE agents.deleted_at < 0");

    pg_arg_text(&f.args, id);
    pg_arg_text(&f.args, org_id);
    pg_arg_bytes(&f.args, id);
    pg_arg_int(&f.args, now_us);
    return pg_fetch_run(s, &f, err);
}

/* ---- births ---- */

#define BIRTH_SELECT                                                                               \
    "SELECT label, created_at, tags, block_id, char_limit, hidden FROM births WHERE agent_id = $1"

static memfs_code births_add(state *s, memfs_str agent_id, const memfs_str *labels, size_t n,
                             int64_t now_us, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_BIRTHS_ADD, "INSERT INTO births(agent_id, label, created_at) "
                                      "SELECT $1, label, $2 FROM unnest($3) label "
                                      "ON CONFLICT DO NOTHING");
    int at;

    pg_arg_text(&f.args, agent_id);
    pg_arg_int(&f.args, now_us);
    at = pg_arg_array(&f.args, PG_BYTES, n);
    for (size_t i = 0; i < n; i++)
        pg_array_add_str(&f.args, at, labels[i]);
    return pg_fetch_run(s, &f, err);
}

static memfs_code births(state *s, memfs_str agent_id, memfs_str label, state_birth_fn fn,
                         void *ctx, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_BIRTHS, BIRTH_SELECT " ORDER BY label");
    memfs_code rc;

    pg_arg_text(&f.args, agent_id);
    if (label.len > 0) {
        f.key = KEY_BIRTH;
        f.sql = BIRTH_SELECT " AND label = $2";
        pg_arg_bytes(&f.args, label);
    }
    rc = pg_fetch_run(s, &f, err);
    for (int row = 0; rc == MEMFS_OK && row < f.result.n_rows; row++) {
        state_birth birth = { .label = pg_col_str(&f.result, row, 0),
                              .created_at_us = pg_col_int(&f.result, row, 1),
                              .tags_json = pg_col_str(&f.result, row, 2),
                              .block_id = pg_col_str(&f.result, row, 3),
                              .limit = pg_col_int(&f.result, row, 4),
                              .hidden = pg_col_int(&f.result, row, 5) != 0 };

        rc = fn(&birth, ctx, err);
    }
    return rc;
}

/* ---- banned objects ---- */

static memfs_code banned_add(state *s, memfs_str agent_id, const memfs_oid *ids, size_t n,
                             memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_BANNED_ADD, "INSERT INTO banned(agent_id, object) "
                                      "SELECT $1, object FROM unnest($2) object "
                                      "ON CONFLICT DO NOTHING");
    int at;

    pg_arg_text(&f.args, agent_id);
    at = pg_arg_array(&f.args, PG_BYTES, n);
    for (size_t i = 0; i < n; i++)
        pg_array_add_oid(&f.args, at, &ids[i]);
    return pg_fetch_run(s, &f, err);
}

static memfs_code banned(state *s, memfs_str agent_id, memfs_oid **ret, size_t *ret_n,
                         memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_BANNED, "SELECT object FROM banned WHERE agent_id = $1 ORDER BY object");
    _cleanup_(mem_freep) memfs_oid *list = NULL;
    memfs_code rc;

    pg_arg_text(&f.args, agent_id);
    rc = pg_fetch_run(s, &f, err);
    if (rc == MEMFS_OK && f.result.n_rows > 0)
        list = mem_alloc((size_t)f.result.n_rows * sizeof(*list));
    for (int row = 0; rc == MEMFS_OK && row < f.result.n_rows; row++)
        rc = pg_col_oid(&f.result, row, 0, &list[row], err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(list);
    *ret_n = (size_t)f.result.n_rows;
    return MEMFS_OK;
}

/* ---- life ---- */

static memfs_code check_within(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    (void)ctx;
    return pg_exec(c,
                   "SELECT count(agents.*) FROM agents; SELECT count(births.*) FROM births; "
                   "SELECT count(banned.*) FROM banned; SELECT count(tokens.*) FROM tokens; "
                   "SELECT count(mirrors.*) FROM mirrors; SELECT count(docs.*) FROM docs; "
                   "SELECT count(shared_repos.*) FROM shared_repos; "
                   "SELECT count(shared_links.*) FROM shared_links",
                   &r, err);
}

static memfs_code check(state *s, memfs_error *err)
{
    return pg_work(pg_state_db(s), PG_ONE, check_within, NULL, err);
}

static void close_state(state *s)
{
    pg_lease_end((pg_state *)s);
    pg_turns_end((pg_state *)s);
    pthread_mutex_destroy(&((pg_state *)s)->turns_mutex);
    pg_listen_end((pg_state *)s);
    pg_db_close(pg_state_db(s));
    free(s);
}

static const state_backend BACKEND = {
    .name = "postgresql",
    .close = close_state,
    .check = check,
    .agents = pg_agents,
    .agent_count = pg_agent_count,
    .tag_lists = pg_agent_tags,
    .agents_version = pg_agents_version,
    .agent_known = agent_known,
    .agent_add = agent_add,
    .agent_announce = pg_agent_announce,
    .agent_put = pg_agent_put,
    .agent_set_deleted = pg_agent_set_deleted,
    .births_add = births_add,
    .births = births,
    .banned_add = banned_add,
    .banned = banned,
    .agent_merge = pg_agent_merge,
    .token_add = pg_token_add,
    .tokens = pg_tokens,
    .token_revoke = pg_token_revoke,
    .mirrors = pg_mirrors,
    .mirror_put = pg_mirror_put,
    .mirror_forget = pg_mirror_forget,
    .change = pg_change,
    .docs = pg_docs,
    .docs_mark = pg_docs_mark,
    .server_join = pg_server_join,
    .servers = pg_servers,
    .lease = pg_lease,
    .turn_try = pg_turn_try,
    .turn_end = pg_turn_end,
    .moves_wait = pg_moves_wait,
    .tokens_mark = pg_tokens_mark,
    .shared = &PG_SHARED,
    .deleted_mark = pg_deleted_mark,
    .copy = state_copy_rows,
};

state *pg_state_new(pg_db *db)
{
    pg_state *s = mem_alloc(sizeof(*s));

    s->base.backend = &BACKEND;
    s->db = pg_db_share(db);
    pthread_mutex_init(&s->turns_mutex, NULL);
    return &s->base;
}
