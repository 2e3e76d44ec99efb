/*
 * pg_state.h - what the files of the state in PostgreSQL share.
 */
#ifndef MEMFS_CACHE_PG_STATE_H
#define MEMFS_CACHE_PG_STATE_H

#include "cache/cache_int.h"
#include "cache/pg_db.h"

#include <pthread.h>

typedef struct pg_state {
    state base;
    pg_db *db;
    pg_conn *lease; /* pg_lease.c: NULL: no session */
    bool has_lease;
    pg_conn *turns;       /* pg_turns.c: NULL: no session */
    int64_t turns_due_ms; /* it is opened not before; turns_mutex guards both */
    pthread_mutex_t turns_mutex;
    pg_conn *listen;       /* pg_listen.c: NULL: no session */
    int64_t listen_due_ms; /* it is opened, or asked whether it lives, not before */
} pg_state;

static inline pg_db *pg_state_db(state *s)
{
    return ((pg_state *)s)->db;
}

/* A query and its result, for later: rows are passed on when the connection is in the pool again,
 * as a row function may take its time, or read the state itself. */
typedef struct pg_fetch {
    uint64_t key;
    const char *sql;
    pg_args args;
    pg_result result;
} pg_fetch;
#define PG_FETCH_INIT(k, s)                                                                        \
    {                                                                                              \
        (k), (s), PG_ARGS_INIT, PG_RESULT_INIT                                                     \
    }
void pg_fetch_dispose(pg_fetch *f);
MEMFS_CHECK memfs_code pg_fetch_run(state *s, pg_fetch *f, memfs_error *err);

enum {
    KEY_LIST = PG_KEYS_STATE, /* + enum list_bits */
    KEY_LIST_END = KEY_LIST + (1 << 14),
    KEY_AGENT_PLACE,
    KEY_AGENT_COUNT,
    KEY_AGENTS_VERSION,
    KEY_AGENT_ANNOUNCE,
    KEY_AGENT_STANDING,
    KEY_AGENT_PUT,
    KEY_AGENT_DELETED,
    KEY_AGENT_TAGS,
    KEY_DELETED_MARK,
    KEY_AGENT_KNOWN,
    KEY_AGENT_ADD,
    KEY_AGENT_MERGE,
    KEY_BIRTH,
    KEY_BIRTHS,
    KEY_BIRTHS_ADD,
    KEY_BIRTHS_MERGE,
    KEY_BANNED,
    KEY_BANNED_ADD,
    KEY_TOKENS,
    KEY_TOKEN_ADD,
    KEY_TOKEN_REVOKE,
    KEY_MIRRORS, /* + 1 with an agent, + 2 with a remote */
    KEY_MIRROR_PUT = KEY_MIRRORS + 4,
    KEY_MIRROR_FORGET,
    KEY_SERVER_JOIN,
    KEY_SERVERS,
    KEY_TOKENS_MARK,
    KEY_BIRTHS_PUT,
    KEY_BIRTHS_DROP,
    KEY_DOC,
    KEY_DOCS,
    KEY_DOCS_PUT,
    KEY_DOCS_DROP,
    KEY_DOCS_COUNT,
    KEY_DOCS_CHECK,
    KEY_DOCS_MARK,
    KEY_TURN_TRY,
    KEY_TURN_END,
    KEY_SHARED_FIRST, /* pg_shared.c; room for 16 */
};
extern const state_shared_backend PG_SHARED;

/* The parts of state_backend that have a file of their own, see there. */
MEMFS_CHECK memfs_code pg_agents(state *s, const agent_query *q, state_agent_fn fn, void *ctx,
                                 memfs_error *err);
MEMFS_CHECK memfs_code pg_agent_merge(state *s, const state_agent *agent, const state_birth *births,
                                      size_t n, memfs_error *err);
MEMFS_CHECK memfs_code pg_agent_announce(state *s, const state_agent *agent, memfs_error *err);
MEMFS_CHECK memfs_code pg_agent_put(state *s, const state_agent *agent, memfs_error *err);
MEMFS_CHECK memfs_code pg_agent_set_deleted(state *s, memfs_str id, int64_t deleted_at_us,
                                            int64_t now_us, bool *ret_changed, memfs_error *err);
MEMFS_CHECK memfs_code pg_agent_count(state *s, int64_t *ret, memfs_error *err);
MEMFS_CHECK memfs_code pg_agents_version(state *s, int64_t *ret, memfs_error *err);
MEMFS_CHECK memfs_code pg_deleted_mark(state *s, int64_t *ret, memfs_error *err);
MEMFS_CHECK memfs_code pg_token_add(state *s, const state_token *token, memfs_error *err);
MEMFS_CHECK memfs_code pg_tokens(state *s, state_token_fn fn, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code pg_token_revoke(state *s, memfs_str id, int64_t now_us, memfs_error *err);
MEMFS_CHECK memfs_code pg_mirrors(state *s, memfs_str agent_id, memfs_str remote,
                                  state_mirror_fn fn, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code pg_mirror_put(state *s, const state_mirror *row, memfs_error *err);
MEMFS_CHECK memfs_code pg_mirror_forget(state *s, memfs_str remote, memfs_error *err);
/* pg_tags.c */
MEMFS_CHECK memfs_code pg_agent_tags(state *s, tag_list_fn fn, void *ctx, memfs_error *err);
/* pg_docs.c */
MEMFS_CHECK memfs_code pg_change(state *s, const state_change *change, memfs_error *err);
MEMFS_CHECK memfs_code pg_docs(state *s, memfs_str kind, memfs_str id, int64_t after,
                               state_doc_fn fn, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code pg_docs_mark(state *s, memfs_str kind, int64_t *ret, memfs_error *err);
MEMFS_CHECK memfs_code pg_server_join(state *s, const state_server *me, int64_t *ret_no,
                                      memfs_error *err);
MEMFS_CHECK memfs_code pg_tokens_mark(state *s, int64_t *ret, memfs_error *err);
MEMFS_CHECK memfs_code pg_lease(state *s, bool *ret_has_it, memfs_error *err);
void pg_lease_end(pg_state *s);
/* pg_turns.c */
/* The advisory lock of a turn: no other one of ours has it but by a chance of one in 2^64. */
int64_t pg_turn_lock(memfs_str what);
MEMFS_CHECK memfs_code pg_turn_try(state *s, memfs_str what, bool *ret_has_it, memfs_error *err);
void pg_turn_end(state *s, memfs_str what);
void pg_turns_end(pg_state *s);
/* pg_session.c: a session of its own, whose every answer comes in PG_SESSION_MS or not at all.
 * first_sql: what it says first, its name for the database's operator among it. */
#define PG_SESSION_MS 3000
MEMFS_CHECK memfs_code pg_session_open(const pg_state *s, const char *first_sql, pg_conn **ret,
                                       memfs_error *err);
/* Nobody asked this session anything, so whatever can be read from it is its end. */
bool pg_session_is_quiet(const pg_conn *c);
/* pg_listen.c */
bool pg_moves_wait(state *s, int64_t own_no, int64_t timeout_ms);
void pg_listen_end(pg_state *s);
MEMFS_CHECK memfs_code pg_servers(state *s, state_server_fn fn, void *ctx, memfs_error *err);

#endif
