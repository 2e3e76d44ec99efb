/*
 * scratch.h - a bare repository for one job, below tmp/.  Of the store's room only.
 *
 * Nothing of it is synced: after a crash it is removed unseen (store_sweep_tmp, by its kind).
 */
#ifndef MEMFS_STORE_SCRATCH_H
#define MEMFS_STORE_SCRATCH_H

#include "store/store_int.h"

/* dir must not exist.  What was made of it before a failure is the caller's to remove. */
MEMFS_CHECK memfs_code scratch_make(const char *dir, memfs_error *err);
/* Where it looks for objects that it has not: the objects folder of another repository. */
MEMFS_CHECK memfs_code scratch_look_into(const char *dir, const char *objects, memfs_error *err);
MEMFS_CHECK memfs_code scratch_set_ref(const char *dir, const char *ref, const memfs_oid *id,
                                       memfs_error *err);

#endif
