/*
 * follow.h - main and rows of an agent, here and on the servers that share the database.
 *
 * The shared tip (cache_head) is where main is; each server's own ref follows it.  A push moves the
 * shared tip first and its own ref then (advance.c), so at any instant, after any crash:
 *
 *     own ref against the shared tip     what brings it about          what is done
 *     the same                           -                             -
 *     behind; its commit is here         killed between the two        the ref moves up
 *     behind; its commit is not here     another server moved it       fetched from it, or from a
 *                                                                      remote; the ref moves
 *     ahead                              the database was away (F22)   the shared tip moves up, rows too
 *     diverged                           both                          fetched, merged (design 7), both move
 *     no repository here                 never asked for; disk lost    fetched, made
 *     no shared tip                      a home that began alone       ours becomes it
 *
 * What another server was told is judged already, so nothing is vetted again.  The ref only ever
 * moves to a descendant (H1), and what was acknowledged here is in every merge (H2).
 *
 * While the database is away git goes on with what is here (F22).  While the commit that the shared
 * tip names is out of reach, git of that agent is EUNAVAIL: to go on without would show clients a
 * main that went back.  An operator who knows that its server never returns removes that server's
 * row; then what is here goes on, over it.
 *
 * Thread: any, under the agent's lock.  Who waits for it (agent_ready_shared, agent_keep) does so
 * for 10 s at most, and then is EUNAVAIL: whoever has it may be at a long transfer, or wait for a
 * turn.
 */
#ifndef MEMFS_SYNC_FOLLOW_H
#define MEMFS_SYNC_FOLLOW_H

#include "cache/servers.h"
#include "sync/home_int.h"

typedef struct follow_result {
    bool is_away; /* the database: nothing below is known */
    bool has_head;
    cache_head head;
} follow_result;

/*
 * OK: own ref and shared tip are the same, or the database is away, or the agent is nowhere.
 * may_revive: a commit that is out of reach is given up when there is no repository here (H4).
 */
MEMFS_CHECK memfs_code agent_follow(home *h, agent *a, bool may_revive, follow_result *ret,
                                    memfs_error *err);
/*
 * ECONFLICT: from the shared tip no way leads to `tip`, which is ours: an older commit never takes
 * the place of a newer one (K1).
 */
MEMFS_CHECK memfs_code follow_check_forward(home *h, agent *a, const memfs_oid *shared,
                                            const memfs_oid *tip, memfs_error *err);
/* Is main of all a commit that is not here?  *ret_holder: of whom it is known to have it; 0. False:
 * also while the database is away.  Without the lock. */
bool agent_is_behind_others(home *h, agent *a, int64_t *ret_holder);
/* agent_ready() of a home that shares; takes the lock itself. */
MEMFS_CHECK memfs_code agent_ready_shared(home *h, agent *a, bool with_rows, memfs_error *err);

/* Of an agent whose rows could not be written: are they there now?  False: later; *ret_is_away: as
 * the database is. */
bool agent_catch_up_shared(home *h, agent *a, bool *ret_is_away);

/*
 * Server `from` asks for a copy of its main: that commit is here on OK.  Where it is not the
 * shared tip's, it moves main here, as a push would: so a copy that was counted is main after the
 * disk of the other one is lost (D1).  EUNAVAIL: no server gave it, or main here does not lead to
 * it.  Takes the lock itself.
 */
MEMFS_CHECK memfs_code agent_keep(home *h, agent *a, const memfs_oid *commit, int64_t from,
                                  memfs_error *err);

#endif
