#include "cache/pg_state.h"

/* API tokens; see sqlite_state_token.c. */

static memfs_code token_of(const pg_result *r, int row, state_token *ret, memfs_error *err)
{
    memfs_str hash = pg_col_str(r, row, 3), id = pg_col_str(r, row, 0);

    if (hash.len != sizeof(ret->hash))
        return memfs_fail(err, MEMFS_ECORRUPT, "the token '%.*s' of the state is damaged",
                          (int)id.len, id.ptr);
    *ret = (state_token){
        .id = id,
        .name = pg_col_str(r, row, 1),
        .scope = pg_col_str(r, row, 2),
        .created_at_us = pg_col_int(r, row, 4),
        .expires_at_us = pg_col_int(r, row, 5),
        .revoked_at_us = pg_col_int(r, row, 6),
    };
    memcpy(ret->hash, hash.ptr, sizeof(ret->hash));
    return MEMFS_OK;
}

memfs_code pg_tokens(state *s, state_token_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_TOKENS, "SELECT token_id, name, scope, hash, created_at, expires_at, "
                                  "revoked_at FROM tokens ORDER BY created_at, token_id");
    state_token token;
    memfs_code rc = pg_fetch_run(s, &f, err);

    for (int row = 0; rc == MEMFS_OK && row < f.result.n_rows; row++) {
        rc = token_of(&f.result, row, &token, err);
        if (rc == MEMFS_OK)
            rc = fn(&token, ctx, err);
    }
    return rc;
}

/*
 * After a COMMIT whose answer was lost this may say EEXISTS of the token that it added itself.  Then
 * nobody was told that token, and its owner asks for another one.
 */
memfs_code pg_token_add(state *s, const state_token *token, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(
        KEY_TOKEN_ADD,
        "WITH put AS (INSERT INTO tokens(token_id, name, scope, hash, created_at, expires_at, "
        "revoked_at) VALUES($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING 1) "
        "SELECT FROM put");
    memfs_code rc;

    pg_arg_text(&f.args, token->id);
    pg_arg_bytes(&f.args, token->name);
    pg_arg_bytes(&f.args, token->scope);
    pg_arg_bytes(&f.args, str_make((const char *)token->hash, sizeof(token->hash)));
    pg_arg_int(&f.args, token->created_at_us);
    pg_arg_int(&f.args, token->expires_at_us);
    pg_arg_int(&f.args, token->revoked_at_us);
    rc = pg_fetch_run(s, &f, err);
    if (rc < 0 || f.result.n_rows > 0)
        return rc;
    return memfs_fail(err, MEMFS_EEXISTS, "there is a token '%.*s' already", (int)token->id.len,
                      token->id.ptr);
}

memfs_code pg_token_revoke(state *s, memfs_str id, int64_t now_us, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_TOKEN_REVOKE,
                      "UPDATE tokens SET changed = DEFAULT, revoked_at = CASE revoked_at WHEN 0 THEN $2 "
                      "ELSE revoked_at END WHERE token_id = $1");
    memfs_code rc;

    pg_arg_text(&f.args, id);
    pg_arg_int(&f.args, now_us);
    rc = pg_fetch_run(s, &f, err);
    if (rc < 0 || f.result.n_changed > 0)
        return rc;
    return memfs_fail(err, MEMFS_ENOTFOUND, "there is no token '%.*s'", (int)id.len, id.ptr);
}

memfs_code pg_tokens_mark(state *s, int64_t *ret, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_TOKENS_MARK, "SELECT coalesce(max(changed), 0) FROM tokens");
    memfs_code rc = pg_fetch_run(s, &f, err);

    if (rc == MEMFS_OK)
        *ret = pg_col_int(&f.result, 0, 0);
    return rc;
}
