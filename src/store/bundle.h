/*
 * bundle.h - a memory as one file that git can clone from: `git bundle`, version 2.
 *
 * A bundle that is taken in goes through `git index-pack --strict` into the repository's objects;
 * nothing points to what it brought until the caller has judged it (vet.h) and merged it.
 *
 * Thread: as a checkout handle.
 */
#ifndef MEMFS_STORE_BUNDLE_H
#define MEMFS_STORE_BUNDLE_H

#include "store/checkout.h"

/*
 * The whole history of `tip` as refs/heads/main (and HEAD), in one step.  EEXISTS: path is there.
 */
MEMFS_CHECK memfs_code bundle_write(checkout *c, const memfs_oid *tip, const char *path,
                                    memfs_error *err);
/*
 * Objects of the bundle into the repository; *ret_tip is its refs/heads/main, else the only branch
 * it has. EINVALID: no bundle.  ECONFLICT: it needs commits that this memory does not have.
 * ECORRUPT: damaged.
 */
MEMFS_CHECK memfs_code bundle_read(checkout *c, const char *path, memfs_oid *ret_tip,
                                   memfs_error *err);

#endif
