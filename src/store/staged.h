/*
 * staged.h - what a commit is about to record: index against HEAD, for the pre-commit hook.
 *
 * Inside a hook git names the index in $GIT_INDEX_FILE (a commit of some paths has its own); the
 * caller passes it on.  Cost: one read of the index and one of the trees that differ.
 *
 * Thread: as a checkout handle.
 */
#ifndef MEMFS_STORE_STAGED_H
#define MEMFS_STORE_STAGED_H

#include "store/checkout.h"

typedef struct staged staged;
/* Index and HEAD, read once.  index_file NULL: the checkout's own.  c must live longer. */
MEMFS_CHECK memfs_code staged_read(checkout *c, const char *index_file, staged **ret,
                                   memfs_error *err);
void staged_free(staged *s);
void staged_freep(staged **s);

typedef struct staged_change {
    memfs_str path, old_path; /* old_path differs from path in an unchanged rename */
    bool has_old, has_new;
    memfs_oid old_id, new_id;
    uint32_t old_mode, new_mode;
} staged_change;
typedef memfs_code (*staged_fn)(const staged_change *change, void *ctx, memfs_error *err);

/* What the commit changes, sorted by path; exact renames are paired, as git does. */
MEMFS_CHECK memfs_code staged_each(const staged *s, staged_fn fn, void *ctx, memfs_error *err);
/* All tracked files of that index, sorted by path. */
typedef memfs_code (*staged_entry_fn)(memfs_str path, uint32_t mode, const memfs_oid *id, void *ctx,
                                      memfs_error *err);
MEMFS_CHECK memfs_code staged_each_entry(const staged *s, staged_entry_fn fn, void *ctx,
                                         memfs_error *err);

#endif
