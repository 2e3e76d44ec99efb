/*
 * sqlite_state_int.h - what the files of the state in SQLite share: the keys of its queries, whose
 * texts are in sqlite_state.c, and the functions of its vtable.
 */
#ifndef MEMFS_CACHE_SQLITE_STATE_INT_H
#define MEMFS_CACHE_SQLITE_STATE_INT_H

#include "cache/cache_int.h"
#include "cache/sqlite_db.h"

typedef struct sqlite_state {
    state base;
    sqlite_db *db;
} sqlite_state;

sqlite_db *sqlite_state_db(state *s);

/* The list of agents: this, and the bits of its shape. */
#define SQLITE_AGENTS_KEY (UINT64_C(1) << 32)

enum sqlite_state_keys {
    KEY_KNOWN = SQLITE_KEY_FIRST,
    KEY_AGENT_ADD,
    KEY_AGENT_COUNT,
    KEY_AGENTS_VERSION,
    KEY_AGENT_STANDING,
    KEY_AGENT_ANNOUNCE,
    KEY_AGENT_PUT,
    KEY_AGENT_FIELDS,
    KEY_AGENT_DELETED,
    KEY_AGENT_TAGS,
    KEY_CURSOR,
    KEY_BIRTH,
    KEY_BIRTH_ADD,
    KEY_BIRTHS,
    KEY_BANNED,
    KEY_BANNED_ADD,
    KEY_IS_LIST,
    KEY_MERGED,
    KEY_MERGE,
    KEY_BIRTH_MERGE,
    KEY_TOKENS,
    KEY_TOKEN,
    KEY_TOKEN_TAKEN,
    KEY_TOKEN_ADD,
    KEY_TOKEN_REVOKE,
    KEY_MIRRORS,
    KEY_MIRRORS_AGENT,
    KEY_MIRRORS_REMOTE,
    KEY_MIRROR,
    KEY_MIRROR_SAME,
    KEY_MIRROR_PUT,
    KEY_MIRROR_ANY,
    KEY_MIRROR_FORGET,
    KEY_BIRTH_PUT,
    KEY_BIRTH_DROP,
    KEY_DOC,
    KEY_DOCS,
    KEY_DOC_PUT,
    KEY_DOC_DROP,
    KEY_DOC_COUNT,
    KEY_DOC_MARK,
    KEY_SHARED_FIRST, /* sqlite_state_shared.c */
};
extern const char *const SQLITE_SHARED_SQL[];
extern const state_shared_backend SQLITE_SHARED;

/* EINVALID: not empty, and no list. */
MEMFS_CHECK memfs_code sqlite_check_tags(sqlite_conn *c, memfs_str tags_json, memfs_error *err);

void sqlite_agents_sql(uint32_t shape, memfs_buf *out);
MEMFS_CHECK memfs_code sqlite_agents(state *s, const agent_query *q, state_agent_fn fn, void *ctx,
                                     memfs_error *err);
MEMFS_CHECK memfs_code sqlite_agent_count(state *s, int64_t *ret, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_agents_version(state *s, int64_t *ret, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_agent_known(state *s, memfs_str id, bool *ret, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_agent_add(state *s, memfs_str id, memfs_str org_id, int64_t now_us,
                                        memfs_error *err);
MEMFS_CHECK memfs_code sqlite_agent_announce(state *s, const state_agent *agent, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_agent_put(state *s, const state_agent *agent, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_agent_set_deleted(state *s, memfs_str id, int64_t deleted_at_us,
                                                int64_t now_us, bool *ret_changed,
                                                memfs_error *err);
MEMFS_CHECK memfs_code sqlite_banned_add(state *s, memfs_str agent_id, const memfs_oid *ids,
                                         size_t n, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_banned(state *s, memfs_str agent_id, memfs_oid **ret, size_t *ret_n,
                                     memfs_error *err);
MEMFS_CHECK memfs_code sqlite_change(state *s, const state_change *change, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_docs(state *s, memfs_str kind, memfs_str id, int64_t after,
                                   state_doc_fn fn, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_docs_mark(state *s, memfs_str kind, int64_t *ret, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_token_add(state *s, const state_token *token, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_tokens(state *s, state_token_fn fn, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_token_revoke(state *s, memfs_str id, int64_t now_us,
                                           memfs_error *err);
MEMFS_CHECK memfs_code sqlite_mirrors(state *s, memfs_str agent_id, memfs_str remote,
                                      state_mirror_fn fn, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_mirror_put(state *s, const state_mirror *row, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_mirror_forget(state *s, memfs_str remote, memfs_error *err);

#endif
