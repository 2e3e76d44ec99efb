#include "cache/sqlite_state_int.h"

/*
 * What was learned of the remotes.  A row is written whole, in a transaction of its own that is one
 * fsync, and behind every write of a request (sqlite_write_begin_behind): whatever many exchanges
 * end at once, a push that has births to write waits for one of them at most (L3).
 */

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

/* ---- reading ---- */

static memfs_code row_of(const sqlite_query *q, state_mirror *ret, memfs_error *err)
{
    memfs_code rc;

    *ret = (state_mirror){
        .agent_id = sqlite_col_str(q, COL_AGENT),
        .remote = sqlite_col_str(q, COL_REMOTE),
        .mark = sqlite_col_str(q, COL_MARK),
        .seen_at_us = sqlite_col_int(q, COL_SEEN),
        .pushed_at_us = sqlite_col_int(q, COL_PUSHED),
        .proof_at_us = sqlite_col_int(q, COL_PROOF),
        .answer = sqlite_col_str(q, COL_ANSWER),
        .detail = sqlite_col_str(q, COL_DETAIL),
        .n_failures = sqlite_col_int(q, COL_N_FAILURES),
        .failed_at_us = sqlite_col_int(q, COL_FAILED),
        .next_try_us = sqlite_col_int(q, COL_NEXT_TRY),
        .note = sqlite_col_str(q, COL_NOTE),
        .note_text = sqlite_col_str(q, COL_NOTE_TEXT),
        .note_at_us = sqlite_col_int(q, COL_NOTE_AT),
    };
    rc = sqlite_col_oid(q, COL_REMOTE_TIP, &ret->remote_tip, err);
    if (rc == MEMFS_OK)
        rc = sqlite_col_oid(q, COL_META_TIP, &ret->meta_tip, err);
    if (rc == MEMFS_OK)
        rc = sqlite_col_oid(q, COL_PROOF_TREE, &ret->proof_tree, err);
    return rc;
}

memfs_code sqlite_mirrors(state *base, memfs_str agent_id, memfs_str remote, state_mirror_fn fn,
                          void *ctx, memfs_error *err)
{
    static const uint64_t keys[2][2] = { { KEY_MIRRORS, KEY_MIRRORS_REMOTE },
                                         { KEY_MIRRORS_AGENT, KEY_MIRROR } };
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    bool is_row = false;
    state_mirror row;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, keys[agent_id.len > 0][remote.len > 0], &q, err);
    if (rc < 0)
        return rc;
    if (agent_id.len > 0)
        sqlite_bind_str(&q, 1, agent_id);
    if (remote.len > 0)
        sqlite_bind_str(&q, 2, remote);
    for (;;) {
        rc = sqlite_step(&q, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        rc = row_of(&q, &row, err);
        if (rc == MEMFS_OK)
            rc = fn(&row, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
}

/* ---- changing ---- */

static void bind_row(sqlite_query *q, const state_mirror *row)
{
    sqlite_bind_str(q, 1 + COL_AGENT, row->agent_id);
    sqlite_bind_str(q, 1 + COL_REMOTE, row->remote);
    sqlite_bind_str(q, 1 + COL_MARK, row->mark);
    sqlite_bind_oid(q, 1 + COL_REMOTE_TIP, &row->remote_tip);
    sqlite_bind_oid(q, 1 + COL_META_TIP, &row->meta_tip);
    sqlite_bind_int(q, 1 + COL_SEEN, row->seen_at_us);
    sqlite_bind_int(q, 1 + COL_PUSHED, row->pushed_at_us);
    sqlite_bind_int(q, 1 + COL_PROOF, row->proof_at_us);
    sqlite_bind_oid(q, 1 + COL_PROOF_TREE, &row->proof_tree);
    sqlite_bind_str(q, 1 + COL_ANSWER, row->answer);
    sqlite_bind_str(q, 1 + COL_DETAIL, row->detail);
    sqlite_bind_int(q, 1 + COL_N_FAILURES, row->n_failures);
    sqlite_bind_int(q, 1 + COL_FAILED, row->failed_at_us);
    sqlite_bind_int(q, 1 + COL_NEXT_TRY, row->next_try_us);
    sqlite_bind_str(q, 1 + COL_NOTE, row->note);
    sqlite_bind_str(q, 1 + COL_NOTE_TEXT, row->note_text);
    sqlite_bind_int(q, 1 + COL_NOTE_AT, row->note_at_us);
}

static memfs_code is_same(sqlite_db *db, const state_mirror *row, bool *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(db, &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_MIRROR_SAME, &q, err);
    if (rc < 0)
        return rc;
    bind_row(&q, row);
    return sqlite_step(&q, ret, err);
}

static memfs_code put_within(sqlite_conn *c, const state_mirror *row, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_MIRROR_PUT, &q, err);

    if (rc < 0)
        return rc;
    bind_row(&q, row);
    return sqlite_run(&q, err);
}

memfs_code sqlite_mirror_put(state *base, const state_mirror *row, memfs_error *err)
{
    bool is_there = false;
    sqlite_conn *c;
    memfs_code rc;

    rc = is_same(sqlite_state_db(base), row, &is_there, err);
    if (rc < 0 || is_there)
        return rc;
    rc = sqlite_write_begin_behind(sqlite_state_db(base), &c, err);
    if (rc < 0)
        return rc;
    return sqlite_write_end(c, put_within(c, row, err), err);
}

static memfs_code has_remote(sqlite_db *db, memfs_str remote, bool *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(db, &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_MIRROR_ANY, &q, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&q, 1, remote);
    return sqlite_step(&q, ret, err);
}

static memfs_code forget_within(sqlite_conn *c, memfs_str remote, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_MIRROR_FORGET, &q, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(&q, 1, remote);
    return sqlite_run(&q, err);
}

memfs_code sqlite_mirror_forget(state *base, memfs_str remote, memfs_error *err)
{
    bool is_there = false;
    sqlite_conn *c;
    memfs_code rc;

    rc = has_remote(sqlite_state_db(base), remote, &is_there, err);
    if (rc < 0 || !is_there)
        return rc;
    rc = sqlite_write_begin_behind(sqlite_state_db(base), &c, err);
    if (rc < 0)
        return rc;
    return sqlite_write_end(c, forget_within(c, remote, err), err);
}
