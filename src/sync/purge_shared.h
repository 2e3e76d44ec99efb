/*
 * purge_shared.h - a purge of an agent whose main several servers share (purge.c, follow.h).
 *
 * The shared tip moves first, from exactly the commit whose history was rewritten; then our own ref.
 * In between only this server has the new history, so the file `purge` in the agent's folder says
 * from where to where: a server that was killed there finishes it at its next look, and is not fenced.
 *
 * Thread: any, under the agent's lock.
 */
#ifndef MEMFS_SYNC_PURGE_SHARED_H
#define MEMFS_SYNC_PURGE_SHARED_H

#include "sync/home_int.h"

/*
 * Own ref and shared tip are made one, and *ret is both.  EUNAVAIL: the database is away, or main is
 * out of reach; a purge then would be undone by the next join.
 */
MEMFS_CHECK memfs_code purge_follow(home *h, agent *a, memfs_oid *ret, memfs_error *err);
/* The shared tip, and all rows.  ECONFLICT: another server moved it, and nothing was changed. */
MEMFS_CHECK memfs_code purge_move_shared(home *h, agent *a, const memfs_oid *from,
                                         const memfs_oid *to, memfs_error *err);
/* Our own ref, with or without others. */
MEMFS_CHECK memfs_code purge_move_own(home *h, agent *a, const memfs_oid *from, const memfs_oid *to,
                                      memfs_error *err);
/* Own ref and old objects are as the purge leaves them: the file goes. */
void purge_finished(home *h, agent *a);
/*
 * Own ref at `tip` and shared tip at `head`, both readable in r, have diverged: because a purge of
 * this server was cut short?  Then the rest of it is done, and *ret_done.
 */
MEMFS_CHECK memfs_code purge_resume(home *h, agent *a, repo *r, const memfs_oid *tip,
                                    const memfs_oid *head, bool *ret_done, memfs_error *err);

#endif
