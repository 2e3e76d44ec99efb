/*
 * history.h - one commit, read.
 *
 * Thread: as a repo handle.
 */
#ifndef MEMFS_STORE_HISTORY_H
#define MEMFS_STORE_HISTORY_H

#include "store/store.h"

/* Slices and parents live until commit_info_dispose; names and message are bytes as committed. */
typedef struct commit_info {
    memfs_oid tree;
    memfs_oid *parents;
    size_t n_parents;
    memfs_str author_name, author_email;
    int64_t author_time_s, committer_time_s;
    memfs_str message;
    /* not for callers */
    void *owner;
} commit_info;
#define COMMIT_INFO_INIT { .owner = NULL }

/* ECORRUPT: there is no such commit, or it cannot be read. */
MEMFS_CHECK memfs_code repo_commit_info(repo *r, const memfs_oid *id, commit_info *ret,
                                        memfs_error *err);
void commit_info_dispose(commit_info *c);

/*
 * The commit that `tip` is or contains whose id begins with these 1 to 40 lower-case hex digits.
 * ENOTFOUND: none.  EINVALID: several, or no such digits.  Costs a walk through the history.
 */
MEMFS_CHECK memfs_code repo_commit_find(repo *r, const memfs_oid *tip, memfs_str digits,
                                        memfs_oid *ret, memfs_error *err);

#endif
