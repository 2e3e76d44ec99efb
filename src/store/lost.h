/*
 * lost.h - what a tip has that others have not: the question behind every rescue (client/rescue.h).
 *
 * A commit is lost when none of the `kept` tips reaches it and none of the commits that only they
 * reach makes the very same change: a rebase or a cherry-pick keeps the change under another id.
 * "The same change" is strict: the same lines taken from and given to the same files, byte by byte,
 * wherever in the file; git patch-id would ignore blanks, and in a list of indented items they are
 * the meaning.  A commit that changes no file has nothing to lose.
 *
 * Merges are listed as lost whenever they are not reached; the caller knows better (merge.h).
 *
 * Thread: as a repo handle.
 */
#ifndef MEMFS_STORE_LOST_H
#define MEMFS_STORE_LOST_H

#include "store/store.h"

/* Past so many commits on one side nobody compares changes: all that are not reached are lost. */
#define LOST_MAX_COMPARED 500
/*
 * The first `max` of them, newest first; *ret_n counts to 10,000.  ENOTFOUND: the tip's commits are
 * not all there.
 */
MEMFS_CHECK memfs_code lost_commits(repo *r, const memfs_oid *tip, const memfs_oid *kept,
                                    size_t n_kept, memfs_oid *ret, size_t max, size_t *ret_n,
                                    memfs_error *err);

#endif
