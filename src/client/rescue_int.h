/*
 * rescue_int.h - what the files of rescue share.  Nobody else includes it.
 */
#ifndef MEMFS_CLIENT_RESCUE_INT_H
#define MEMFS_CLIENT_RESCUE_INT_H

#include "client/rescue.h"

#define RESCUE_REFS "refs/memfs/rescue/"
#define RESCUE_FOLDED "refs/memfs/rescued"
#define RESCUE_MERGED_LOG "merged.log"
#define RESCUE_SEEN_LOG "merged.seen"
#define RESCUE_KEPT_LOG "backup.kept"

/* rescue.c */
typedef struct rescue_tips {
    memfs_oid *at;
    size_t n;
} rescue_tips;
void rescue_tips_dispose(rescue_tips *t);
/* The tips of all branches: what keeps a commit. */
MEMFS_CHECK memfs_code rescue_branches(checkout *c, rescue_tips *ret, memfs_error *err);
/* How many commits of this tip nothing in `kept` keeps, neither as they are nor as an equal change.
 * */
MEMFS_CHECK memfs_code rescue_count_lost(checkout *c, const memfs_oid *tip, const rescue_tips *kept,
                                         size_t *ret, memfs_error *err);
/*
 * Sets n_lost of the tips, which come newest first: what neither a branch nor a newer one of them
 * keeps.  So of tips that contain each other, or say the same, the newest is the rescue.
 */
void rescue_judge(checkout *c, rescues *r, const rescue_tips *branches);
/* The hook's tips, folded ones too, and with_letta the client's; once an id, newest first, no
 * merges. */
MEMFS_CHECK memfs_code rescue_gather(checkout *c, bool with_letta, rescues *ret, memfs_error *err);
/* Appends an id to merged.seen. */
MEMFS_CHECK memfs_code rescue_mark_seen(checkout *c, const memfs_oid *commit, memfs_error *err);
/* Notes for the cheap list which of the client's own tips a branch keeps by now. */
MEMFS_CHECK memfs_code rescue_mark_kept(checkout *c, memfs_error *err);

#endif
