/*
 * proof.h - what does a remote have now, seen by nobody's memory but its own?
 *
 * The ref is fetched to a depth of one into an empty repository below tmp/, where nothing of ours
 * could stand in for what the remote lacks, and read through by git fsck.  So the answer is about
 * bytes that the remote has just sent.
 *
 * Thread: any.
 */
#ifndef MEMFS_STORE_PROOF_H
#define MEMFS_STORE_PROOF_H

#include "store/store.h"
#include "store/transport.h"

typedef struct proof {
    memfs_oid commit, tree;
} proof;

/*
 * Errors as transport_fetch_ref (ENOTFOUND: it has no such ref); ECORRUPT: fsck found damage.  As a
 * server, whatever t says.
 */
MEMFS_CHECK memfs_code proof_take(store *s, const transport_target *t, const char *ref,
                                  uint64_t max_bytes, int64_t deadline_ms, proof *ret,
                                  transport_report *report, memfs_error *err);

#endif
