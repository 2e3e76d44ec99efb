/*
 * bare.h - an empty bare repository at a plain path, for main to be pushed to.
 *
 * Only the last part of the path is made: a folder above it that is missing is a disk that is not
 * mounted, or a mistake.  The repository is made beside its place, under a name that its maker alone
 * uses, synced and renamed, so what stands in its place is whole; what a kill left is made anew.
 * The folder is its owner's alone (0700), HEAD is main.
 *
 * Thread: any; one thread of a maker at a time for the same path.
 */
#ifndef MEMFS_STORE_BARE_H
#define MEMFS_STORE_BARE_H

#include "base/error.h"

#include <stdint.h>

/*
 * path: absolute.  maker: a folder that nobody else makes repositories for (a home).  OK also when
 * somebody else made it meanwhile.  ENOTFOUND: the folder above is missing.  EEXISTS: something
 * stands there that is no folder.  deadline_ms: clock_mono_ms.
 */
MEMFS_CHECK memfs_code bare_make(const char *path, const char *maker, int64_t deadline_ms,
                                 memfs_error *err);
/* Could one be made there?  The errors of bare_make, EDENIED; nothing is made. */
MEMFS_CHECK memfs_code bare_check(const char *path, memfs_error *err);

#endif
