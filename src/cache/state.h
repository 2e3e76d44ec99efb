/*
 * state.h - what git does not carry and nobody can recompute: durable, never deleted (design 14,
 * F24).
 *
 * Agents, when each block was first seen, and the objects that were purged.  state.db is apart from
 * the cache, written with synchronous=FULL: a call that returns OK has survived a power cut.  A
 * corrupt or newer state stops with instructions and is never begun anew (F23, F29).
 *
 * Errors, beside those named below: ECORRUPT as at state_open_sqlite, EUNAVAIL somebody held it for
 * more than five seconds, ENOSPACE the disk is full, EINTERNAL the disk failed to make a write
 * durable (then nothing more is written until the process is started again, F05).
 *
 * Thread: any; one writing connection behind a mutex, readers by thread, as in cache.h.
 */
#ifndef MEMFS_CACHE_STATE_H
#define MEMFS_CACHE_STATE_H

#include "base/buf.h"
#include "base/oid.h"

typedef struct state state;

/* life cycle.  ECORRUPT: damaged, or made by a newer memfs; the message says what to do. */
MEMFS_CHECK memfs_code state_open_sqlite(const char *folder, state **ret, memfs_error *err);
void state_close(state *s);
/* Reads every page and index: ECORRUPT when something is wrong.  Slow, for verify. */
MEMFS_CHECK memfs_code state_check(state *s, memfs_error *err);

/* agents */
typedef struct state_agent {
    memfs_str id;
    memfs_str org_id;
    memfs_str name;      /* defaults to the id */
    memfs_str tags_json; /* an array of strings */
    int64_t created_at_us;
    int64_t updated_at_us;
} state_agent;
typedef memfs_code (*state_agent_fn)(const state_agent *agent, void *ctx, memfs_error *err);

typedef struct agent_query {
    memfs_str id;         /* empty: all */
    memfs_str name;       /* empty: all */
    memfs_str query_text; /* case-insensitive substring of the name; % and _ act as wildcards */
    const memfs_str *tags;
    size_t n_tags;
    bool match_all_tags;
    bool descending;         /* by (created_at, id) */
    memfs_str before, after; /* agent ids, relative to the order; unknown ones are ignored */
    int64_t limit;           /* 0: all */
} agent_query;

MEMFS_CHECK memfs_code state_agents(state *s, const agent_query *q, state_agent_fn fn, void *ctx,
                                    memfs_error *err);
MEMFS_CHECK memfs_code state_agent_count(state *s, int64_t *ret, memfs_error *err);
MEMFS_CHECK memfs_code state_agent_known(state *s, memfs_str id, bool *ret, memfs_error *err);
/* Makes the agent known; an agent that is known stays as it is. */
MEMFS_CHECK memfs_code state_agent_add(state *s, memfs_str id, memfs_str org_id, int64_t now_us,
                                       memfs_error *err);

/* When each label of an agent was first seen, kept over deletes and rebuilds (K4). */
typedef struct state_birth {
    memfs_str label;
    int64_t created_at_us;
} state_birth;
typedef memfs_code (*state_birth_fn)(const state_birth *birth, void *ctx, memfs_error *err);
/* Sets the birth of labels that have none, one transaction; n == 0 writes nothing. */
MEMFS_CHECK memfs_code state_births_add(state *s, memfs_str agent_id, const memfs_str *labels,
                                        size_t n, int64_t now_us, memfs_error *err);
/* label empty: all of the agent. */
MEMFS_CHECK memfs_code state_births(state *s, memfs_str agent_id, memfs_str label,
                                    state_birth_fn fn, void *ctx, memfs_error *err);

/* Objects that were purged from an agent's history and may not come back. */
MEMFS_CHECK memfs_code state_banned_add(state *s, memfs_str agent_id, const memfs_oid *ids,
                                        size_t n, memfs_error *err);
/* Sorted; *ret is the caller's (free). */
MEMFS_CHECK memfs_code state_banned(state *s, memfs_str agent_id, memfs_oid **ret, size_t *ret_n,
                                    memfs_error *err);

/*
 * A consistent copy of the whole state into a new file, for backups: durable, mode 0600, and on no
 * other's way.  EEXISTS: `to` is there.
 */
MEMFS_CHECK memfs_code state_copy(state *s, const char *to, memfs_error *err);

#endif
