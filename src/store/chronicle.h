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
 * When main first moved on from `tip`, that is: since when something is not in a copy that has
 * `tip`.  0: main is there still.  A tip that main never had (zero, or of another machine): when
 * main's oldest entry was written that is not contained in... the genesis; see the .c.
 */
MEMFS_CHECK memfs_code chronicle_left(const store *s, const char *name, const memfs_oid *tip,
                                      int64_t *ret_time_s, memfs_error *err);
/* What main was at a time: the last entry not after it.  ENOTFOUND: before the first. */
MEMFS_CHECK memfs_code chronicle_at(const store *s, const char *name, int64_t time_s,
                                    memfs_oid *ret, memfs_error *err);

#endif
