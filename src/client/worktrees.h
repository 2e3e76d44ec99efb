/*
 * worktrees.h - a branch and a folder for each concurrent writer, merged back by rule (design 5).
 *
 * Layout and names are the Letta client's (client 1): <root>/memory-worktrees/<label>-<stamp>-<8 hex>/ on branch
 * letta/<label>/<stamp>-<8 hex>.  Merging: uncommitted work is committed first, then store/merge into main by
 * compare-and-swap, as often as it takes; then folder, registration and branch go.  When the parent's
 * checkout is not clean the merge waits in refs/memfs/pending/<name> and is taken by the next merge or sync: nothing is lost,
 * nobody is blocked.
 */
#ifndef MEMFS_CLIENT_WORKTREES_H
#define MEMFS_CLIENT_WORKTREES_H

#include "client/places.h"
#include "store/checkout.h"

typedef struct writer {
    char *name, *path, *branch;
    bool has_changes; /* uncommitted */
    size_t n_ahead;   /* commits that main lacks */
} writer;
typedef struct writers { writer *at; size_t n; } writers;
void writer_dispose(writer *w);
void writers_dispose(writers *w);

MEMFS_CHECK memfs_code worktrees_add(const place *p, const char *label, writer *ret,
                                     memfs_error *err);
MEMFS_CHECK memfs_code worktrees_list(const place *p, writers *ret, memfs_error *err);
MEMFS_CHECK memfs_code worktrees_merge(const place *p, const char *name, memfs_oid *ret_main,
                                       memfs_buf *said, memfs_error *err);
/* ECONFLICT: commits or changes would be lost, unless forced; then they are kept under refs/memfs/rescue/. */
MEMFS_CHECK memfs_code worktrees_remove(const place *p, const char *name, bool is_forced,
                                        memfs_error *err);

#endif
