#include "cache/pg_state.h"

/* What was learned of the remotes; see sqlite_state_mirror.c. */

#define LEARNED                                                                                    \
    "mark, remote_tip, meta_tip, seen_at, pushed_at, proof_at, proof_tree, answer, detail, "       \
    "n_failures, failed_at, next_try, note, note_text, note_at"
#define LEARNED_VALUES "$3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17"
#define COLUMNS "agent_id, remote, " LEARNED

enum mirror_columns {
    COL_AGENT,
    COL_REMOTE,
    COL_MARK,
    COL_REMOTE_TIP,
    COL_META_TIP,
    COL_SEEN,
    COL_PUSHED,
    COL_PROOF,
    COL_PROOF_TREE,
    COL_ANSWER,
    COL_DETAIL,
    COL_N_FAILURES,
    COL_FAILED,
    COL_NEXT_TRY,
    COL_NOTE,
    COL_NOTE_TEXT,
    COL_NOTE_AT,
};

static memfs_code row_of(const pg_result *r, int at, state_mirror *ret, memfs_error *err)
{
    memfs_code rc;

    *ret = (state_mirror){
        .agent_id = pg_col_str(r, at, COL_AGENT),
        .remote = pg_col_str(r, at, COL_REMOTE),
        .mark = pg_col_str(r, at, COL_MARK),
        .seen_at_us = pg_col_int(r, at, COL_SEEN),
        .pushed_at_us = pg_col_int(r, at, COL_PUSHED),
        .proof_at_us = pg_col_int(r, at, COL_PROOF),
        .answer = pg_col_str(r, at, COL_ANSWER),
        .detail = pg_col_str(r, at, COL_DETAIL),
        .n_failures = pg_col_int(r, at, COL_N_FAILURES),
        .failed_at_us = pg_col_int(r, at, COL_FAILED),
        .next_try_us = pg_col_int(r, at, COL_NEXT_TRY),
        .note = pg_col_str(r, at, COL_NOTE),
        .note_text = pg_col_str(r, at, COL_NOTE_TEXT),
        .note_at_us = pg_col_int(r, at, COL_NOTE_AT),
    };
    rc = pg_col_oid(r, at, COL_REMOTE_TIP, &ret->remote_tip, err);
    if (rc == MEMFS_OK)
        rc = pg_col_oid(r, at, COL_META_TIP, &ret->meta_tip, err);
    return rc < 0 ? rc : pg_col_oid(r, at, COL_PROOF_TREE, &ret->proof_tree, err);
}

memfs_code pg_mirrors(state *s, memfs_str agent_id, memfs_str remote, state_mirror_fn fn, void *ctx,
                      memfs_error *err)
{
    static const char *const sql[] = {
        "SELECT " COLUMNS " FROM mirrors ORDER BY agent_id, remote",
        "SELECT " COLUMNS " FROM mirrors WHERE agent_id = $1 ORDER BY remote",
        "SELECT " COLUMNS " FROM mirrors WHERE remote = $1 ORDER BY agent_id",
        "SELECT " COLUMNS " FROM mirrors WHERE agent_id = $1 AND remote = $2",
    };
    int which = (agent_id.len > 0 ? 1 : 0) + (remote.len > 0 ? 2 : 0);
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(KEY_MIRRORS + which, sql[which]);
    state_mirror row;
    memfs_code rc;

    if (agent_id.len > 0)
        pg_arg_text(&f.args, agent_id);
    if (remote.len > 0)
        pg_arg_text(&f.args, remote);
    rc = pg_fetch_run(s, &f, err);
    for (int at = 0; rc == MEMFS_OK && at < f.result.n_rows; at++) {
        rc = row_of(&f.result, at, &row, err);
        if (rc == MEMFS_OK)
            rc = fn(&row, ctx, err);
    }
    return rc;
}

/* A row that is so already is not even locked, which would be a write as well (K7). */
memfs_code pg_mirror_put(state *s, const state_mirror *row, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(
        KEY_MIRROR_PUT,
        "INSERT INTO mirrors(" COLUMNS ") SELECT $1, $2, " LEARNED_VALUES " WHERE NOT EXISTS("
        "SELECT FROM mirrors WHERE agent_id = $1 AND remote = $2 AND "
        "(" LEARNED ") = (" LEARNED_VALUES ")) "
        "ON CONFLICT(agent_id, remote) DO UPDATE SET (" LEARNED ") = (" LEARNED_VALUES ")");
    pg_args *a = &f.args;

    pg_arg_text(a, row->agent_id);
    pg_arg_text(a, row->remote);
    pg_arg_bytes(a, row->mark);
    pg_arg_oid(a, &row->remote_tip);
    pg_arg_oid(a, &row->meta_tip);
    pg_arg_int(a, row->seen_at_us);
    pg_arg_int(a, row->pushed_at_us);
    pg_arg_int(a, row->proof_at_us);
    pg_arg_oid(a, &row->proof_tree);
    pg_arg_bytes(a, row->answer);
    pg_arg_bytes(a, row->detail);
    pg_arg_int(a, row->n_failures);
    pg_arg_int(a, row->failed_at_us);
    pg_arg_int(a, row->next_try_us);
    pg_arg_bytes(a, row->note);
    pg_arg_bytes(a, row->note_text);
    pg_arg_int(a, row->note_at_us);
    return pg_fetch_run(s, &f, err);
}

memfs_code pg_mirror_forget(state *s, memfs_str remote, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_MIRROR_FORGET, "DELETE FROM mirrors WHERE remote = $1");

    pg_arg_text(&f.args, remote);
    return pg_fetch_run(s, &f, err);
}
