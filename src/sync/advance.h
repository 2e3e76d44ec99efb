/*
 * advance.h - main goes forward: the steps that are the same by whatever door commits come.
 *
 *     advance_begin    where main is, of an agent that is recovered and not fenced
 *     advance_settle   what the folders say is on the disk (D1)
 *     ...              the caller vets its candidate, and merges it if that is its way
 *     advance_to       the rows are planned, the repository made if this is its first, the objects
 *                      taken in, the state told, the ref moved and read back, the rows written
 *
 * Where servers share a database the rows come before the ref, in the transaction that moves the
 * shared tip: of two servers one is first there, and what the other brought has changed nothing.
 *
 * What a failure of each leaves behind is in push.c.  Of this room only.
 *
 * Thread: any one, which holds the agent's lock from the first call to the last.
 */
#ifndef MEMFS_SYNC_ADVANCE_H
#define MEMFS_SYNC_ADVANCE_H

#include "store/fetched.h"
#include "store/incoming.h"
#include "sync/home_int.h"

typedef struct advance {
    home *h;
    agent *a;
    incoming_talk_fn talk; /* of warnings; may be NULL */
    void *talk_ctx;
    bool is_from_letta; /* what comes was taken from its tables (tables.c) */
    bool may_revive;    /* a known agent whose folder is gone begins again with what comes (H4) */

    /* set by advance_begin */
    memfs_oid tip; /* the genesis while there is no repository */
    bool exists;   /* the repository */
    /* the same, where servers share a database (follow.h): what the shared tip is moved from */
    bool has_head, is_empty;
    bool is_followed; /* may be: its versions go up to head (search.h) */
    memfs_oid head;
    bool has_turn; /* advance_take_turn */

    /* set by advance_to */
    bool moved;   /* main is at its target, durable and read back */
    bool unclear; /* an fsync or the read-back failed: no word of the outcome may leave (F05) */
} advance;

/* EUNAVAIL: known, but its folder is missing.  ECORRUPT: fenced. */
MEMFS_CHECK memfs_code advance_begin(advance *v, memfs_error *err);
/*
 * Main, which this process may not have moved, is made durable before anything is built on it;
 * always: even when it was before.  A failure fences the agent.
 */
MEMFS_CHECK memfs_code advance_settle(advance *v, bool always, memfs_error *err);
/* What the objects of a quarantine made of rc: damage that they show may be the repository's. */
memfs_code advance_judged(advance *v, memfs_code rc, const memfs_error *err);
/* The same of what was written through r, the agent's own: fenced if it could not be synced (F05). */
memfs_code advance_written(advance *v, const repo *r, memfs_code rc, const memfs_error *err);

typedef struct advance_step {
    memfs_oid to;
    repo *objects; /* where `to` can be read: the quarantine */
    /* Takes the quarantine into the repository, which is there by now; NULL: it is in. */
    memfs_code (*accept)(void *ctx, memfs_error *err);
    void *ctx;
    bool is_ours; /* nobody is refused or warned for what stands in its files */
    const store_identity *who;
    const char *why; /* for the reflog */
} advance_step;
/* An `accept` for what was fetched into a throw-away repository: its ctx. */
typedef struct advance_fetched {
    fetched *f;
    memfs_oid to;
} advance_fetched;
MEMFS_CHECK memfs_code advance_accept_fetched(void *ctx, memfs_error *err);

/*
 * Of servers that share a database the one that is first moves main, and one that hears of each move
 * late would never be (L3).  So who lost takes the turn before it begins anew, and the others, while
 * it has it, wait in their advance_begin().  It is for fairness, and the race decides who is right:
 * so each wait, for a turn or to get it, is 5 s at most and ends with the server (process_end_of),
 * and after one in vain nobody here waits for that agent for 30 s.  Given back by who took it,
 * whatever became of its change.  Where nobody shares, nothing.
 */
void advance_take_turn(advance *v);
void advance_end_turn(advance *v);

/*
 * ECONFLICT: somebody moved main by hand just now, or another server was first: nothing has changed
 * but for objects that nobody reaches.
 */
MEMFS_CHECK memfs_code advance_to(advance *v, const advance_step *step, memfs_error *err);
/* The repository and the ref alone: the rows are those of `to` already. */
MEMFS_CHECK memfs_code advance_ref(advance *v, const advance_step *step, memfs_error *err);

#endif
