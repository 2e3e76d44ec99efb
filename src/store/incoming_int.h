/*
 * incoming_int.h - between incoming.c, which moves the bytes, and vet.c, which judges them; and the
 * diffs of trees that they and the merge use.
 */
#ifndef MEMFS_STORE_INCOMING_INT_H
#define MEMFS_STORE_INCOMING_INT_H

#include "store/incoming.h"
#include "store/store_int.h"

/* view: quarantine and repository.  pack_index: path of the new pack's index, NULL when none came.
 *  */
MEMFS_CHECK memfs_code vet_push(repo *view, const char *pack_index, const incoming_vetting *v,
                                memfs_error *err);

/*
 * The difference of two trees; like repo_diff, but a folder that is only on one side is reported as
 * a whole instead of being opened.
 */
MEMFS_CHECK memfs_code repo_diff_trees(repo *r, const memfs_oid *old_tree,
                                       const memfs_oid *new_tree, const policy *p,
                                       tree_change_fn fn, void *ctx, memfs_error *err);
/* The same with every folder opened, as repo_diff does it of two commits. */
MEMFS_CHECK memfs_code repo_diff_files(repo *r, const memfs_oid *old_tree,
                                       const memfs_oid *new_tree, const policy *p,
                                       tree_change_fn fn, void *ctx, memfs_error *err);

#endif
