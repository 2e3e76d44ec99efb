/*
 * chronicle.h - when main was where, from its reflog (gc never trims it).
 *
 * The dates are this machine's clock at the time; order comes from the log's own order, never from
 * the dates (H7).
 *
 * Thread: any; reads one file.
 */
#ifndef MEMFS_STORE_CHRONICLE_H
#define MEMFS_STORE_CHRONICLE_H

#include "store/store.h"

/*
 * Since when main has something that a copy at `tip` lacks: the time of the oldest entry whose
 * commit tip does not contain.  0: there is none (main is there, or tip is ahead of it).
 *
 * Is tip where main once was, that is the entry that moved on from there (one read of the log).
 * Else, as for a tip of another machine that main was merged with, the entries are asked from the
 * newest back whether tip contains them; each contains the one before, so it costs the logarithm of
 * their number.  Zero: the remote has nothing, so the oldest entry after the genesis.  ENOTFOUND:
 * no such commit is here (seen, but not fetched yet): ask with the last one that was taken in.
 *
 * Where the log lacks main's last move (a power cut, a hand), the date of the ref's file stands in.
 */
MEMFS_CHECK memfs_code chronicle_left(store *s, const char *name, const memfs_oid *tip,
                                      int64_t *ret_time_s, memfs_error *err);
/*
 * What main was at a time: going back from the newest entry, the first that is not dated after it
 * (a clock that was set back makes it the newer one).  ENOTFOUND: before the first.
 */
MEMFS_CHECK memfs_code chronicle_at(store *s, const char *name, int64_t time_s, memfs_oid *ret,
                                    memfs_error *err);

#endif
