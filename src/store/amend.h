/*
 * amend.h - a commit on top of another that changes some files and leaves all else as it is.
 *
 * Nothing here moves a ref: the commit is only written, synced.
 *
 * Thread: as a repo handle.
 */
#ifndef MEMFS_STORE_AMEND_H
#define MEMFS_STORE_AMEND_H

#include "store/store.h"

typedef struct amend_file {
    const char *path; /* named once */
    bool is_gone;     /* one that is not there is fine */
    memfs_str content;
} amend_file;

/* The file of a commit at a path.  ENOTFOUND: there is nothing, or a folder. */
MEMFS_CHECK memfs_code amend_find(repo *r, const memfs_oid *commit, memfs_str path, memfs_oid *ret,
                                  memfs_error *err);
/* Each path of a commit that is no folder. */
MEMFS_CHECK memfs_code amend_paths(repo *r, const memfs_oid *commit,
                                   void (*fn)(const char *path, void *ctx), void *ctx,
                                   memfs_error *err);
/*
 * *ret is the parent where nothing changes.  EINVALID: a path is a folder's, or lies below a
 * file's, that does not go with this commit.  Reads and writes the folders along the changed paths,
 * and no others.
 */
MEMFS_CHECK memfs_code amend_commit(repo *r, const memfs_oid *parent, const amend_file *files,
                                    size_t n, const store_identity *who, memfs_str message,
                                    memfs_oid *ret, memfs_error *err);

#endif
