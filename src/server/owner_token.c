/*
 * owner_token.c - tokens are made, listed and revoked over the home's own socket only (teller.h).
 *
 *     /owner/token/create   {"scope":"admin","name":"ci","expires_in_s":7776000}
 *                           {"result":{"id","token","name","scope","created_at","expires_at",
 *                                      "is_first"}}
 *     /owner/token/list     {"token":{…, "revoked_at","state":"good|expired|revoked"}} for each,
 *                           oldest first, then {"result":{"tokens":3}}
 *     /owner/token/revoke   {"id":"1a2b3c4d"}   {"result":{"id":"1a2b3c4d"}}
 *
 * The answer to create is the only place where a token is ever seen (S4).
 */
#include "base/clock.h"
#include "base/hash.h"
#include "server/teller.h"

#define MAX_NAME_BYTES 100
#define MAX_LIFE_S (100LL * 366 * 86400)

/* ---- create ---- */

static memfs_code name_field(const json_t *request, memfs_str *ret, memfs_error *err)
{
    memfs_code rc = teller_text(request, "name", ret, err);

    if (rc == MEMFS_OK && ret->len > MAX_NAME_BYTES)
        return memfs_fail(err, MEMFS_EINVALID, "the name of a token has at most %d bytes",
                          MAX_NAME_BYTES);
    for (size_t i = 0; rc == MEMFS_OK && i < ret->len; i++)
        if ((unsigned char)ret->ptr[i] < 0x20 || ret->ptr[i] == 0x7F)
            return memfs_fail(err, MEMFS_EINVALID, "the name of a token has no control bytes");
    return rc;
}

/* When it ends; 0: never. */
static memfs_code end_field(const json_t *request, int64_t now_us, int64_t *ret_us,
                            memfs_error *err)
{
    const json_t *value = json_object_get(request, "expires_in_s");
    int64_t s = (int64_t)json_integer_value(value);

    *ret_us = 0;
    if (value == NULL || json_is_null(value))
        return MEMFS_OK;
    if (!json_is_integer(value) || s < 1 || s > MAX_LIFE_S)
        return memfs_fail(err, MEMFS_EINVALID,
                          "'expires_in_s' is not a number of seconds from 1 to a hundred years");
    *ret_us = now_us + s * 1000000;
    return MEMFS_OK;
}

static void put_time(json_writer *w, const char *key, int64_t wall_us)
{
    char text[CLOCK_ISO_LEN];

    if (wall_us == 0) {
        jw_key_null(w, key);
        return;
    }
    clock_iso(wall_us, text);
    jw_key_text(w, key, text);
}

static memfs_code create(app *self, const json_t *request, teller *t, memfs_error *err)
{
    memfs_str scope = MEMFS_STR(""), name = MEMFS_STR("");
    int64_t now_us = clock_wall_us(), end_us = 0;
    bool is_first = !auth_is_on(self->auth);
    char token[AUTH_TOKEN_LEN + 1], id[16];
    json_writer w;
    memfs_code rc;

    rc = teller_text(request, "scope", &scope, err);
    if (rc == MEMFS_OK)
        rc = name_field(request, &name, err);
    if (rc == MEMFS_OK)
        rc = end_field(request, now_us, &end_us, err);
    if (rc == MEMFS_OK)
        rc = auth_token_create(self->auth, name, scope, end_us, token, id, err);
    if (rc < 0)
        return rc;
    http_note(t->rq, "token %s created", id);
    w = teller_begin(t, "result");
    jw_key_text(&w, "id", id);
    jw_key_text(&w, "token", token);
    jw_key_str(&w, "name", name);
    jw_key_str(&w, "scope", scope);
    put_time(&w, "created_at", now_us);
    put_time(&w, "expires_at", end_us);
    jw_key_bool(&w, "is_first", is_first);
    teller_end(t, &w);
    hash_wipe(token, sizeof(token));
    return MEMFS_OK;
}

/* ---- list ---- */

typedef struct lister {
    teller *t;
    int64_t n, now_us;
} lister;

static const char *state_name(const state_token *token, int64_t now_us)
{
    if (token->revoked_at_us != 0)
        return "revoked";
    return token->expires_at_us != 0 && now_us >= token->expires_at_us ? "expired" : "good";
}

static memfs_code tell_token(const state_token *token, void *ctx, memfs_error *err)
{
    lister *l = ctx;
    json_writer w = teller_begin(l->t, "token");

    (void)err;
    jw_key_str(&w, "id", token->id);
    jw_key_str(&w, "name", token->name);
    jw_key_str(&w, "scope", token->scope);
    put_time(&w, "created_at", token->created_at_us);
    put_time(&w, "expires_at", token->expires_at_us);
    put_time(&w, "revoked_at", token->revoked_at_us);
    jw_key_text(&w, "state", state_name(token, l->now_us));
    teller_end(l->t, &w);
    l->n++;
    return MEMFS_OK;
}

static memfs_code list(app *self, const json_t *request, teller *t, memfs_error *err)
{
    lister l = { t, 0, clock_wall_us() };
    memfs_code rc = auth_tokens(self->auth, tell_token, &l, err);
    json_writer w;

    (void)request;
    if (rc < 0)
        return rc;
    w = teller_begin(t, "result");
    jw_key_int(&w, "tokens", l.n);
    teller_end(t, &w);
    return MEMFS_OK;
}

/* ---- revoke ---- */

static memfs_code revoke(app *self, const json_t *request, teller *t, memfs_error *err)
{
    memfs_str id = MEMFS_STR("");
    memfs_code rc = teller_text(request, "id", &id, err);
    json_writer w;

    if (rc == MEMFS_OK && id.len == 0)
        return memfs_fail(err, MEMFS_EINVALID, "'id' is missing");
    if (rc == MEMFS_OK)
        rc = auth_token_revoke(self->auth, id, err);
    if (rc < 0)
        return rc;
    http_note(t->rq, "token %.*s revoked", (int)(id.len < 16 ? id.len : 16), id.ptr);
    w = teller_begin(t, "result");
    jw_key_str(&w, "id", id);
    teller_end(t, &w);
    return MEMFS_OK;
}

void owner_token_create(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, create);
}

void owner_token_list(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, list);
}

void owner_token_revoke(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, revoke);
}
