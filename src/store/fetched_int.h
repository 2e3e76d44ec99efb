/*
 * fetched_int.h - between fetched.c and fetched_exact.c, which counts what came.
 */
#ifndef MEMFS_STORE_FETCHED_INT_H
#define MEMFS_STORE_FETCHED_INT_H

#include "store/store_int.h"

/*
 * Is what the tips reach the pack's objects, every one and nothing else, but for a few that `base`
 * has?  True is a proof: the pack could be taken in as it is, and would be complete (without a
 * pack: nothing is lacking).  False is none: it may be too large to be worth the count, too, or
 * something of it cannot be read.  view reads the pack and base.
 */
bool fetched_is_exact(repo *view, const char *pack_index, repo *base, const memfs_oid *tips,
                      size_t n_tips);

#endif
