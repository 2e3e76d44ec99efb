/*
 * compare.h - what differs between two commits, as people and programs want to see it: a status, a
 * number of lines and a patch for each file.
 *
 * A file that is gone and one that is new are one that was renamed, when they have the same bytes,
 * or at least half of them (store/similar.h).  A link or a submodule is no file, and is not told
 * of.
 *
 * Only what is text on both sides (UTF-8 without NUL) is compared by lines; of other files it is
 * only told that they differ.  The work is bounded by what the caller grants: when that is used up,
 * files are still named, without lines and patch (is_cut).
 *
 * Thread: as a repo handle.
 */
#ifndef MEMFS_STORE_COMPARE_H
#define MEMFS_STORE_COMPARE_H

#include "store/store.h"

#define COMPARE_MAX_FILE (1u << 20) /* bytes: larger ones are not read */

typedef struct compare_file {
    char status;               /* A added, M changed, D deleted, R renamed */
    const char *path;          /* where it is; of one that is gone, where it was */
    const char *old_path;      /* of a rename; else NULL */
    memfs_oid old_blob, blob;  /* zero: there is none */
    uint32_t old_mode, mode;   /* 0: there is none */
    bool is_binary;            /* one side is no text */
    bool is_cut;               /* too large, or there was nothing left for it */
    size_t n_added, n_removed; /* lines */
    memfs_str patch;           /* with git's header; "" unless asked for, and when is_cut */
} compare_file;

/* What may still be used up, over several calls. */
typedef struct compare_grant {
    uint64_t read_bytes; /* of files */
    bool wants_patch;
    uint64_t patch_bytes; /* of all patches together */
} compare_grant;

/* Values are valid during the call.  A return other than OK ends the comparison and is passed on.
 */
typedef memfs_code (*compare_fn)(const compare_file *file, void *ctx, memfs_error *err);

/*
 * By path, in the order of bytes.  old NULL: nothing at all.  only: a file, or a folder with what
 * is below it, under its old name or its new one; "": all.  ELIMIT: beyond the bounds of p, widely.
 */
MEMFS_CHECK memfs_code compare_commits(repo *r, const memfs_oid *old, const memfs_oid *new,
                                       memfs_str only, const policy *p, compare_grant *grant,
                                       compare_fn fn, void *ctx, memfs_error *err);
/* Lines that were added and removed between two files; a zero id is none.  Both 0 of what is no
 * text, or when there is nothing left for it. */
MEMFS_CHECK memfs_code compare_count(repo *r, const memfs_oid *old, const memfs_oid *new,
                                     compare_grant *grant, size_t *ret_added, size_t *ret_removed,
                                     memfs_error *err);

#endif
