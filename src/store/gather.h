/*
 * gather.h - texts that are not files yet, as a tree: what another keeper of the same memory has.
 *
 * The files are the caller's: paths are sorted by bytes, none is named twice, and they are such as
 * the push policy takes.  Nothing here looks at main or moves a ref.
 *
 * Thread: as a repo handle.
 */
#ifndef MEMFS_STORE_GATHER_H
#define MEMFS_STORE_GATHER_H

#include "store/store.h"

typedef struct gather_file {
    const char *path;
    memfs_str content;
    memfs_oid id; /* of the blob, by gather_name */
} gather_file;

/* Sets the id; writes nothing. */
MEMFS_CHECK memfs_code gather_name(gather_file *file, memfs_error *err);

/* 'A' the commit lacks it, 'M' it has another content, 'D' it has a file that is not among them. */
typedef void (*gather_diff_fn)(memfs_str path, char what, void *ctx);
/* The files against a commit's tree, all named; *ret_n counts what differs.  fn may be NULL. */
MEMFS_CHECK memfs_code gather_diff(repo *r, const memfs_oid *commit, const gather_file *files,
                                   size_t n, const policy *p, gather_diff_fn fn, void *ctx,
                                   size_t *ret_n, memfs_error *err);
/* A tree of these files and no others, written. */
MEMFS_CHECK memfs_code gather_tree(repo *r, const gather_file *files, size_t n, memfs_oid *ret,
                                   memfs_error *err);

/*
 * Of the commits that `tip` is or contains, the last that this committer made: no other of them
 * contains it.  ENOTFOUND: there is none.  Costs a walk through the history.
 */
MEMFS_CHECK memfs_code gather_last(repo *r, const memfs_oid *tip, const char *email, memfs_oid *ret,
                                   memfs_error *err);

#endif
