/*
 * care.h - the upkeep of one repository: copies for backups, and what a purge needs.  The rest (sweep,
 * repack, fsck) is in store.h.
 *
 * Thread: any, under the repository's lock.
 */
#ifndef MEMFS_STORE_CARE_H
#define MEMFS_STORE_CARE_H

#include "store/store.h"

/*
 * Copies a repository to the path `to` (which must not exist), without what git or we left unfinished,
 * and syncs the copy.  A failure removes it.
 */
MEMFS_CHECK memfs_code store_copy(store *s, const char *name, const char *to, memfs_error *err);

/*
 * Removes at once the packs that store_repack has retired but left for readers.  Only for a purge, whose
 * point is that the bytes are gone; a reader in the middle of a clone may fail and come again.
 */
MEMFS_CHECK memfs_code store_drop_retired(store *s, const char *name, memfs_error *err);

#endif
