/*
 * deleted.h - agents that were deleted: the memory is kept, and every door to it is shut (http-api
 * 7).
 *
 * The state has when an agent was deleted; its folder, history and what git does not carry stay as
 * they are, and its rows are gone from the cache.  It is as unknown then as one that never was, but
 * that no push makes it anew and nothing takes its folder up.  Brought back it has all that it had,
 * with rows made from git at its first touch.
 *
 * Which agents are deleted is held in memory, so that an entry which was ready a moment ago is not
 * served on.  Where servers share a database the others learn of it within a second or so
 * (deleted_step); what one of them wrote into rows meanwhile it takes out when it learns.
 *
 * Of this room only; what others call is in home.h.  Thread: any.
 */
#ifndef MEMFS_SYNC_DELETED_H
#define MEMFS_SYNC_DELETED_H

#include "sync/home_int.h"

/* Reads who is deleted: once, when the state is open. */
MEMFS_CHECK memfs_code deleted_load(home *h, memfs_error *err);
/* Of a home that shares: the same when another server deleted one or brought one back.  One thread.
 */
void deleted_step(home *h);
/* Takes out rows that a crash left, after a start. */
void deleted_sweep(home *h, bool (*should_stop)(void *ctx), void *ctx);
/* ENOTFOUND, with what to do, of one that is deleted. */
MEMFS_CHECK memfs_code deleted_check(home *h, memfs_str id, memfs_error *err);

#endif
