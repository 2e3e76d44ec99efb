#include "cache/pg_cache.h"
#include "cache/pg_state.h"

#include <string.h>

/* The servers of a database, and what they moved (servers.h). */

enum { KEY_MOVES = PG_KEYS_CACHE + 64, KEY_HEAD, KEY_LAST_MOVE, KEY_TELL };

#define TELL_MS 1000

#define COLUMNS "agent_id, generation, coalesce(holder, 0) FROM tips"

memfs_code pg_server_join(state *s, const state_server *me, int64_t *ret_no, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_SERVER_JOIN,
                      "INSERT INTO servers(name, url, token_hash, seen_at) "
                      "VALUES($1, $2, $3, clock_timestamp()) ON CONFLICT(name) DO UPDATE "
                      "SET url = $2, token_hash = $3, seen_at = excluded.seen_at "
                      "RETURNING server_no");
    memfs_code rc;

    pg_arg_text(&f.args, me->name);
    pg_arg_bytes(&f.args, me->url);
    pg_arg_bytes(&f.args, str_make((const char *)me->token_hash, SERVER_TOKEN_HASH));
    rc = pg_fetch_run(s, &f, err);
    if (rc == MEMFS_OK)
        *ret_no = pg_col_int(&f.result, 0, 0);
    return rc;
}

memfs_code pg_servers(state *s, state_server_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_SERVERS, "SELECT server_no, name, url, token_hash, greatest(0, "
                                   "(extract(epoch FROM clock_timestamp() - seen_at) * 1000)::int8) "
                                   "FROM servers ORDER BY server_no");
    memfs_code rc = pg_fetch_run(s, &f, err);

    for (int row = 0; rc == MEMFS_OK && row < f.result.n_rows; row++) {
        memfs_str hash = pg_col_str(&f.result, row, 3);
        state_server one = { .no = pg_col_int(&f.result, row, 0),
                             .name = pg_col_str(&f.result, row, 1),
                             .url = pg_col_str(&f.result, row, 2),
                             .age_ms = pg_col_int(&f.result, row, 4) };

        if (hash.len != SERVER_TOKEN_HASH)
            return memfs_fail(err, MEMFS_ECORRUPT, "server %lld has an impossible row",
                              (long long)one.no);
        memcpy(one.token_hash, hash.ptr, SERVER_TOKEN_HASH);
        rc = fn(&one, ctx, err);
    }
    return rc;
}

/* ---- the tip that they share ---- */

struct reading_head {
    memfs_str agent_id;
    cache_head head;
    bool is_known;
};

/* Of the lock of a turn, which one server has for itself, all may have a share: for this statement. */
static memfs_code read_head(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    struct reading_head *x = ctx;
    memfs_code rc;

    pg_arg_text(&args, x->agent_id);
    pg_arg_int(&args, pg_turn_lock(x->agent_id));
    rc = pg_query(c, KEY_HEAD,
                  "SELECT tip, coalesce(holder, 0), is_empty, past IS NOT DISTINCT FROM tip, "
                  "NOT pg_try_advisory_xact_lock_shared($2) FROM tips WHERE agent_id = $1",
                  &args, &r, err);
    x->is_known = rc == MEMFS_OK && r.n_rows > 0;
    if (!x->is_known)
        return rc;
    x->head = (cache_head){ .holder = pg_col_int(&r, 0, 1),
                            .is_empty = pg_col_int(&r, 0, 2) != 0,
                            .is_followed = pg_col_int(&r, 0, 3) != 0,
                            .has_turn = pg_col_int(&r, 0, 4) != 0 };
    return pg_col_oid(&r, 0, 0, &x->head.tip, err);
}

memfs_code pg_head(cache *c, memfs_str agent_id, cache_head *ret, memfs_error *err)
{
    struct reading_head x = { .agent_id = agent_id };
    memfs_code rc = pg_work(((pg_cache *)c)->db, PG_ONE, read_head, &x, err);

    if (rc == MEMFS_OK && !x.is_known)
        return memfs_fail(err, MEMFS_ENOTFOUND, "agent '%.*s' has no commit on any server",
                          (int)agent_id.len, agent_id.ptr);
    *ret = x.head;
    return rc;
}

struct reading_moves {
    int64_t after, max;
    pg_result result;
};

static memfs_code read_moves(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    struct reading_moves *m = ctx;

    pg_result_dispose(&m->result);
    if (m->after < 0)
        return pg_query(c, KEY_LAST_MOVE, "SELECT " COLUMNS " ORDER BY generation DESC LIMIT 1", NULL,
                        &m->result, err);
    pg_arg_int(&args, m->after);
    pg_arg_int(&args, m->max);
    return pg_query(c, KEY_MOVES,
                    "SELECT " COLUMNS " WHERE generation > $1 ORDER BY generation LIMIT $2",
                    &args, &m->result, err);
}

memfs_code pg_moves(cache *c, int64_t after, size_t max, cache_move_fn fn, void *ctx,
                    memfs_error *err)
{
    struct reading_moves m = { after, (int64_t)max, PG_RESULT_INIT };
    memfs_code rc = pg_work(((pg_cache *)c)->db, PG_ONE, read_moves, &m, err);

    for (int row = 0; rc == MEMFS_OK && row < m.result.n_rows; row++) {
        cache_move move = { pg_col_str(&m.result, row, 0), pg_col_int(&m.result, row, 1),
                            pg_col_int(&m.result, row, 2) };

        rc = fn(&move, ctx, err);
    }
    pg_result_dispose(&m.result);
    return rc;
}

/* ---- telling the others ---- */

static memfs_code tell_within(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;

    pg_arg_int(&args, *(const int64_t *)ctx);
    return pg_query(c, KEY_TELL, "SELECT pg_notify('memfs_moved', $1::text)", &args, &r, err);
}

/*
 * After the COMMIT and not in it: transactions that notify commit one after the other, in the whole
 * database, and ours would do so with their fsync.  What cannot be told is found by who looks; and
 * the agent's lock is held, so nobody waits here for a database that hangs.
 */
void pg_tell_others(cache *base, int64_t holder)
{
    memfs_error ignored;

    if (holder != 0 &&
        pg_work_if_idle(((pg_cache *)base)->db, TELL_MS, tell_within, &holder, &ignored) < 0)
        return;
}
