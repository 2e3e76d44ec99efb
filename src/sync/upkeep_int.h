/*
 * upkeep_int.h - what the calls of upkeep.h share: going from agent to agent, and telling.
 */
#ifndef MEMFS_SYNC_UPKEEP_INT_H
#define MEMFS_SYNC_UPKEEP_INT_H

#include "sync/home_list.h"
#include "sync/upkeep.h"

typedef struct upkeep_round {
    home *h;                 /* NULL while restoring */
    const upkeep_watcher *w; /* may be NULL */
    upkeep_result *ret;
    bool is_stopped;
} upkeep_round;

/* Something is not as it should be: counted. */
void round_finding(upkeep_round *r, const char *agent_id, const char *kind, const char *what,
                   const char *fmt, ...) MEMFS_PRINTF(5, 6);
/* Something was done: told, not counted. */
void round_note(upkeep_round *r, const char *agent_id, const char *kind, const char *what,
                const char *fmt, ...) MEMFS_PRINTF(5, 6);
/* False: stop; is_stopped remembers it. */
bool round_progress(upkeep_round *r, size_t done, size_t total, const char *agent_id);

/* Works on one agent, whose lock is held; a failure is told and counted, and the round goes on. */
typedef memfs_code (*round_fn)(upkeep_round *r, agent *a, memfs_error *err);
/*
 * agent_id empty: all that the state or the disk know (sorted, in *ids, for the caller).
 * ENOTFOUND: the one that was named is not known.
 */
MEMFS_CHECK memfs_code round_agents(upkeep_round *r, memfs_str agent_id, round_fn fn, id_list *ids,
                                    memfs_error *err);
/* Agents that have rows in the cache and are not in ids. */
MEMFS_CHECK memfs_code round_nobody(upkeep_round *r, const id_list *ids, id_list *ret,
                                    memfs_error *err);

#endif
