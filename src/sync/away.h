/*
 * away.h - a home whose database is away (F22), for the files of this room.
 *
 * Thread: any.
 */
#ifndef MEMFS_SYNC_AWAY_H
#define MEMFS_SYNC_AWAY_H

#include "sync/home_int.h"

/* Did a call of cache or state fail because the database over the network is away? */
bool home_is_away(const home *h, memfs_code rc);
/*
 * state_banned(), which a push needs to know; as it was last seen while the database is away.
 * Under the agent's lock.
 */
MEMFS_CHECK memfs_code agent_banned(home *h, agent *a, memfs_oid **ret, size_t *ret_n,
                                    memfs_error *err);
/* Rows of the agent could not be written: home_catch_up_step() comes back to it. */
void home_is_behind(home *h, agent *a);
/* Is it in that queue? */
bool home_waits_for(home *h, agent *a);

#endif
