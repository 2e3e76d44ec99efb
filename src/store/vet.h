/*
 * vet.h - may a commit that somebody else made be checked out here?  (T10 to T16, T23)
 *
 * What a fetch brought is judged before it touches a working tree, with the rules of a push: names,
 * modes, sizes, depth, numbers.  Judged is the tip's tree, and of it only what the known commits do
 * not have at the same path, so the cost follows the change and what an import brought along once
 * stops nothing.  Earlier commits of that history are not judged: whoever takes the offending file
 * out again has mended it for everybody.
 *
 * Thread: as a repo handle.
 */
#ifndef MEMFS_STORE_VET_H
#define MEMFS_STORE_VET_H

#include "store/store.h"

#define VET_TIP_MAX_KNOWN 4
/* EDENIED names path and rule.  Zero ids among the known are left out. */
MEMFS_CHECK memfs_code vet_tip(repo *r, const memfs_oid *tip, const memfs_oid *known,
                               size_t n_known, const policy *p, memfs_error *err);

#endif
