/*
 * cache_int.h - what stands behind cache.h and state.h: a vtable each, for backends only.
 *
 * A backend puts a `cache` (or `state`) first in its own struct, so that the wrappers in cache.c
 * and state.c reach the vtable and the backend reaches its fields.  The wrappers have checked what
 * our own bugs could break; a backend judges only what it stores.  The contracts are those of
 * cache.h.
 */
#ifndef MEMFS_CACHE_CACHE_INT_H
#define MEMFS_CACHE_CACHE_INT_H

#include "cache/cache.h"
#include "cache/search.h"
#include "cache/servers.h"
#include "cache/shared.h"
#include "cache/tags.h"

typedef struct cache_backend {
    const char *name;
    bool is_remote;
    void (*close)(cache *c);
    memfs_code (*rule)(cache *c, memfs_str rule, bool *ret_has_changed, memfs_error *err);
    /* only where is_remote */
    memfs_code (*own_rule)(cache *c, memfs_str rule, bool *ret_is_other, memfs_error *err);
    bool (*is_there)(cache *c);
    memfs_code (*check)(cache *c, memfs_error *err);
    memfs_code (*reset)(cache *c, memfs_error *err);

    /* ret_tip may be NULL; if it is not, q names an agent, and both come from one snapshot */
    memfs_code (*blocks)(cache *c, const block_query *q, cache_tip *ret_tip, block_row_fn fn,
                         void *ctx, memfs_error *err);
    memfs_code (*count)(cache *c, const block_query *q, int64_t *ret, memfs_error *err);
    memfs_code (*tip)(cache *c, memfs_str agent_id, cache_tip *ret, memfs_error *err);
    memfs_code (*generation)(cache *c, int64_t *ret, memfs_error *err);
    memfs_code (*tag_lists)(cache *c, tag_list_fn fn, void *ctx, memfs_error *err);
    /* servers.h; NULL: nobody else can share it */
    memfs_code (*head)(cache *c, memfs_str agent_id, cache_head *ret, memfs_error *err);
    memfs_code (*moves)(cache *c, int64_t after, size_t max, cache_move_fn fn, void *ctx,
                        memfs_error *err);

    memfs_code (*apply)(cache *c, const cache_update *u, memfs_error *err);
    memfs_code (*forget)(cache *c, memfs_str agent_id, memfs_error *err);
    memfs_code (*empty)(cache *c, memfs_str agent_id, memfs_error *err);
    memfs_code (*scrub)(cache *c, memfs_error *err);

    /* search.h */
    memfs_code (*search)(cache *c, const search_query *q, block_row_fn fn, void *ctx,
                         memfs_error *err);
    memfs_code (*past_tip)(cache *c, memfs_str agent_id, memfs_oid *ret, memfs_error *err);
    memfs_code (*past_behind)(cache *c, memfs_str after, int64_t max, agent_id_fn fn, void *ctx,
                              memfs_error *err);
    memfs_code (*versions)(cache *c, memfs_str agent_id, memfs_str path, int64_t before,
                           int64_t limit, version_row_fn fn, void *ctx, memfs_error *err);
    memfs_code (*search_past)(cache *c, const search_query *q, version_row_fn fn, void *ctx,
                              memfs_error *err);
    memfs_code (*past_add)(cache *c, const past_update *u, memfs_error *err);
} cache_backend;

/* search.c: what the backends put into their indexes, and ask them */
/* The word by which rows of one agent are found; never one of a text. */
void search_add_scope(word_set *words, int64_t agent_no);
void search_words_of(const block_row *row, word_set *words);

struct cache {
    const cache_backend *backend;
};

/* shared.h */
typedef struct state_shared_backend {
    memfs_code (*repos)(state *s, const shared_query *q, shared_repo_fn fn, void *ctx,
                        memfs_error *err);
    memfs_code (*add)(state *s, const shared_repo *row, memfs_error *err);
    memfs_code (*mark)(state *s, memfs_str id, bool is_deleted, int64_t now_us, memfs_error *err);
    memfs_code (*links)(state *s, memfs_str agent_id, shared_link_fn fn, void *ctx,
                        memfs_error *err);
    memfs_code (*link)(state *s, const shared_link *row, memfs_error *err);
    memfs_code (*unlink)(state *s, memfs_str agent_id, memfs_str repo_id, memfs_error *err);
} state_shared_backend;

typedef struct state_backend {
    const char *name;
    void (*close)(state *s);
    memfs_code (*check)(state *s, memfs_error *err);

    memfs_code (*agents)(state *s, const agent_query *q, state_agent_fn fn, void *ctx,
                         memfs_error *err);
    memfs_code (*agent_count)(state *s, int64_t *ret, memfs_error *err);
    memfs_code (*tag_lists)(state *s, tag_list_fn fn, void *ctx, memfs_error *err);
    memfs_code (*agent_known)(state *s, memfs_str id, bool *ret, memfs_error *err);
    memfs_code (*agent_add)(state *s, memfs_str id, memfs_str org_id, int64_t now_us,
                            memfs_error *err);
    memfs_code (*agents_version)(state *s, int64_t *ret, memfs_error *err);
    memfs_code (*agent_announce)(state *s, const state_agent *agent, memfs_error *err);
    memfs_code (*agent_put)(state *s, const state_agent *agent, memfs_error *err);
    memfs_code (*agent_set_deleted)(state *s, memfs_str id, int64_t deleted_at_us, int64_t now_us,
                                    bool *ret_changed, memfs_error *err);
    memfs_code (*births_add)(state *s, memfs_str agent_id, const memfs_str *labels, size_t n,
                             int64_t now_us, memfs_error *err);
    memfs_code (*births)(state *s, memfs_str agent_id, memfs_str label, state_birth_fn fn,
                         void *ctx, memfs_error *err);
    memfs_code (*banned_add)(state *s, memfs_str agent_id, const memfs_oid *ids, size_t n,
                             memfs_error *err);
    memfs_code (*banned)(state *s, memfs_str agent_id, memfs_oid **ret, size_t *ret_n,
                         memfs_error *err);
    memfs_code (*agent_merge)(state *s, const state_agent *agent, const state_birth *births,
                              size_t n, memfs_error *err);
    memfs_code (*token_add)(state *s, const state_token *token, memfs_error *err);
    memfs_code (*tokens)(state *s, state_token_fn fn, void *ctx, memfs_error *err);
    memfs_code (*token_revoke)(state *s, memfs_str id, int64_t now_us, memfs_error *err);
    memfs_code (*mirrors)(state *s, memfs_str agent_id, memfs_str remote, state_mirror_fn fn,
                          void *ctx, memfs_error *err);
    memfs_code (*mirror_put)(state *s, const state_mirror *row, memfs_error *err);
    memfs_code (*mirror_forget)(state *s, memfs_str remote, memfs_error *err);
    memfs_code (*change)(state *s, const state_change *change, memfs_error *err);
    memfs_code (*docs)(state *s, memfs_str kind, memfs_str id, int64_t after, state_doc_fn fn,
                       void *ctx, memfs_error *err);
    memfs_code (*docs_mark)(state *s, memfs_str kind, int64_t *ret, memfs_error *err);
    /* servers.h; NULL: as above */
    memfs_code (*server_join)(state *s, const state_server *me, int64_t *ret_no, memfs_error *err);
    memfs_code (*servers)(state *s, state_server_fn fn, void *ctx, memfs_error *err);
    memfs_code (*lease)(state *s, bool *ret_has_it, memfs_error *err);
    /* without a wait for others */
    memfs_code (*turn_try)(state *s, memfs_str what, bool *ret_has_it, memfs_error *err);
    void (*turn_end)(state *s, memfs_str what);
    bool (*moves_wait)(state *s, int64_t own_no, int64_t timeout_ms);
    memfs_code (*tokens_mark)(state *s, int64_t *ret, memfs_error *err);
    const state_shared_backend *shared;
    memfs_code (*deleted_mark)(state *s, int64_t *ret, memfs_error *err);
    memfs_code (*copy)(state *s, const char *to, memfs_error *err);
} state_backend;

struct state {
    const state_backend *backend;
};

/* For backends that are no file: `copy` by reading all rows; `to` must end with /state.db. */
MEMFS_CHECK memfs_code state_copy_rows(state *s, const char *to, memfs_error *err);

#endif
