/*
 * carry.h - a memory out of this machine and files into a memory: folders, tar, git bundles.
 *
 * Out: files as a commit has them.  Links and links to other repositories are left out and told.
 *
 * In: a folder's files, or a bundle's history, merged into main by rule (store/merge): what both
 * sides have and have differently is kept of both.  is_replacing: an imported file stands for the
 * one that was there.  What the policy refuses is named and nothing is imported, unless refused
 * files are to be left out.  A checkout that is not clean is refused (ECONFLICT).
 *
 * Thread: as a checkout handle.
 */
#ifndef MEMFS_CLIENT_CARRY_H
#define MEMFS_CLIENT_CARRY_H

#include "store/browse.h"

#include <stdio.h>

/* what: a line about a file, for people */
typedef void (*carry_fn)(memfs_str path, const char *what, void *ctx);

typedef struct carried {
    size_t n_files, n_left_out;
    uint64_t bytes;
} carried;

/* folder must not exist, or be empty. */
MEMFS_CHECK memfs_code carry_out_folder(browse *b, checkout *c, const memfs_oid *commit,
                                        const char *folder, carry_fn left_out, void *ctx,
                                        carried *ret, memfs_error *err);
/* The same commit gives the same bytes. */
MEMFS_CHECK memfs_code carry_out_tar(browse *b, checkout *c, const memfs_oid *commit, FILE *out,
                                     carry_fn left_out, void *ctx, carried *ret, memfs_error *err);

typedef struct carry_options {
    bool is_replacing, skips_refused, is_dry_run;
    carry_fn refused; /* why a file is refused */
    carry_fn changed; /* "added", "changed" */
    void *ctx;
} carry_options;
typedef struct carried_in {
    memfs_oid commit;    /* main after it */
    bool is_changed;     /* main moved (or would) */
    size_t n_files;      /* that differ from what was there */
    size_t n_refused;
    size_t n_commits;    /* a bundle: that main lacked */
    size_t n_by_rule;
} carried_in;
MEMFS_CHECK memfs_code carry_in_folder(checkout *c, browse *b, const char *folder,
                                       const carry_options *o, carried_in *ret, memfs_error *err);
MEMFS_CHECK memfs_code carry_in_bundle(checkout *c, browse *b, const char *file,
                                       const carry_options *o, carried_in *ret, memfs_error *err);

#endif
