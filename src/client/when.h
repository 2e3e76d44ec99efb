/*
 * when.h - points in time as people write them.
 *
 *   2026-11-22   2026-11-22 14:03   2026-11-22T14:03:59Z   ...+02:00     local time where no zone is said
 *   @1763820000                                                      seconds since 1970
 *   now   yesterday   90 minutes ago   2 hours ago   3 days ago   1 week ago
 *
 * A day alone is its end: "as it was on the 22nd" has all of the 22nd in it.  None of these can be
 * the name of a commit, so one argument can be either.
 *
 * Pure, but for the machine's time zone.  Thread: any.
 */
#ifndef MEMFS_CLIENT_WHEN_H
#define MEMFS_CLIENT_WHEN_H

#include "base/str.h"

/* False: it is not a time. */
bool when_parse(memfs_str text, int64_t now_s, int64_t *ret_s);

#endif
