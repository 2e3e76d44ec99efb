/*
 * care.h - the upkeep of one repository: copies for backups.  The rest (sweep, repack, fsck) is in
 * store.h.
 *
 * Thread: any, under the repository's lock.
 */
#ifndef MEMFS_STORE_CARE_H
#define MEMFS_STORE_CARE_H

#include "store/store.h"

/*
 * Copies a repository to the path `to` (which must not exist), without what git or we left
 * unfinished, and syncs the copy.  A failure removes it.
 */
MEMFS_CHECK memfs_code store_copy(store *s, const char *name, const char *to, memfs_error *err);

#endif
