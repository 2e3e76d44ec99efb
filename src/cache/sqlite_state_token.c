#include "cache/sqlite_state_int.h"

/*
 * API tokens.  Rows are few and never go, so that a log line that names an old token's id can
 * always be explained.
 */

/* ---- reading ---- */

static memfs_code token_of(const sqlite_query *q, state_token *ret, memfs_error *err)
{
    memfs_str hash = sqlite_col_str(q, 3);

    if (hash.len != sizeof(ret->hash))
        return memfs_fail(err, MEMFS_ECORRUPT, "the token '%.*s' of the state is damaged",
                          (int)sqlite_col_str(q, 0).len, sqlite_col_str(q, 0).ptr);
    *ret = (state_token){
        .id = sqlite_col_str(q, 0),
        .name = sqlite_col_str(q, 1),
        .scope = sqlite_col_str(q, 2),
        .created_at_us = sqlite_col_int(q, 4),
        .expires_at_us = sqlite_col_int(q, 5),
        .revoked_at_us = sqlite_col_int(q, 6),
    };
    memcpy(ret->hash, hash.ptr, sizeof(ret->hash));
    return MEMFS_OK;
}

memfs_code sqlite_tokens(state *base, state_token_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    bool is_row = false;
    state_token token;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_TOKENS, &q, err);
    if (rc < 0)
        return rc;
    for (;;) {
        rc = sqlite_step(&q, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        rc = token_of(&q, &token, err);
        if (rc == MEMFS_OK)
            rc = fn(&token, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
}

/* ---- changing ---- */

static memfs_code check_free(sqlite_conn *c, const state_token *token, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc = sqlite_query_get(c, KEY_TOKEN_TAKEN, &q, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(&q, 1, token->id);
    sqlite_bind_bytes(&q, 2, token->hash, sizeof(token->hash));
    rc = sqlite_step(&q, &is_row, err);
    if (rc < 0 || !is_row)
        return rc;
    return memfs_fail(err, MEMFS_EEXISTS, "there is a token '%.*s' already", (int)token->id.len,
                      token->id.ptr);
}

static memfs_code add_within(sqlite_conn *c, const state_token *token, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    memfs_code rc = check_free(c, token, err);

    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_TOKEN_ADD, &q, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&q, 1, token->id);
    sqlite_bind_str(&q, 2, token->name);
    sqlite_bind_str(&q, 3, token->scope);
    sqlite_bind_bytes(&q, 4, token->hash, sizeof(token->hash));
    sqlite_bind_int(&q, 5, token->created_at_us);
    sqlite_bind_int(&q, 6, token->expires_at_us);
    sqlite_bind_int(&q, 7, token->revoked_at_us);
    return sqlite_run(&q, err);
}

memfs_code sqlite_token_add(state *base, const state_token *token, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc;

    rc = sqlite_write_begin(sqlite_state_db(base), &c, err);
    if (rc < 0)
        return rc;
    return sqlite_write_end(c, add_within(c, token, err), err);
}

static memfs_code revoke_within(sqlite_conn *c, memfs_str id, int64_t now_us, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query known = SQLITE_QUERY_INIT;
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc = sqlite_query_get(c, KEY_TOKEN, &known, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(&known, 1, id);
    rc = sqlite_step(&known, &is_row, err);
    if (rc < 0)
        return rc;
    if (!is_row)
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no token '%.*s'", (int)id.len, id.ptr);
    rc = sqlite_query_get(c, KEY_TOKEN_REVOKE, &q, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&q, 1, id);
    sqlite_bind_int(&q, 2, now_us);
    return sqlite_run(&q, err);
}

memfs_code sqlite_token_revoke(state *base, memfs_str id, int64_t now_us, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc;

    rc = sqlite_write_begin(sqlite_state_db(base), &c, err);
    if (rc < 0)
        return rc;
    return sqlite_write_end(c, revoke_within(c, id, now_us, err), err);
}
