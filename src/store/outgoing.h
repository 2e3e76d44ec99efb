/*
 * outgoing.h - what another folder lacks of a repository, as one pack on that folder's disk.
 *
 * For a folder that git itself must not write to (letta/folder.h): nothing is written there but into
 * `to`, and what is in `to` when this returns is whole and synced.
 *
 * Thread: any.
 */
#ifndef MEMFS_STORE_OUTGOING_H
#define MEMFS_STORE_OUTGOING_H

#include "store/store.h"

/*
 * All that tip reaches and `without` (zero: nothing) does not, as pack-<id>.pack and .idx in `to`, a
 * folder that must not exist yet; it may be on another filesystem.  ret_pack: the id; "": there is
 * nothing to bring, and no folder.  Both commits are in the repository.
 */
MEMFS_CHECK memfs_code outgoing_pack(store *s, const char *name, const memfs_oid *tip,
                                     const memfs_oid *without, const char *to,
                                     char ret_pack[MEMFS_OID_HEX + 1], memfs_error *err);

#endif
