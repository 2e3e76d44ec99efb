/*
 * worktrees.h - a branch and a folder for each concurrent writer, merged back by rule (design 5).
 *
 * Layout and names are the Letta client's (client 1): <root>/memory-worktrees/<label>-<stamp>-<8 hex>/ on branch
 * letta/<label>/<stamp>-<8 hex>.  So what the client left behind is listed, merged and removed here too.
 *
 * Merging: uncommitted work is committed first, then store/merge into main by compare-and-swap, as often as it
 * takes; then folder, registration and branch go, unless something new came in meanwhile.  When the parent's
 * checkout cannot change now (uncommitted work, a rebase) the merge waits in refs/memfs/pending/<name>, the
 * folder goes all the same, and the next merge or sync takes it: nothing is lost, nobody is blocked.
 *
 * Merges of one memory take turns (flock on <common git dir>/memfs/worktrees.lock); adding needs no turn.
 *
 * Thread: any, each with its own place.
 */
#ifndef MEMFS_CLIENT_WORKTREES_H
#define MEMFS_CLIENT_WORKTREES_H

#include "client/places.h"
#include "store/checkout.h"

#define WORKTREES_PENDING "refs/memfs/pending/"

typedef struct writer {
    char *name, *path, *branch; /* branch without "refs/heads/" */
    bool is_gone;     /* registered, but the folder is not there */
    bool has_changes; /* uncommitted */
    size_t n_ahead;   /* commits that main lacks */
} writer;
typedef struct writers { writer *at; size_t n; } writers;
#define WRITER_INIT { .name = NULL }
#define WRITERS_INIT { NULL, 0 }
void writer_dispose(writer *w);
void writers_dispose(writers *w);

/* label: letters, digits, '.', '_' and '-'; EINVALID says what is wrong with it. */
MEMFS_CHECK memfs_code worktrees_add(const place *p, const char *label, writer *ret,
                                     memfs_error *err);
/* Sorted by name; those of another layout are not ours and left out. */
MEMFS_CHECK memfs_code worktrees_list(const place *p, writers *ret, memfs_error *err);

typedef struct worktree_merge {
    memfs_oid main;      /* after it */
    bool is_pending;     /* the parent's checkout could not change now */
    bool is_kept;        /* the folder stays: files in it cannot be committed */
    size_t n_commits;    /* that came in or wait */
    size_t n_by_rule;    /* decided by rule; the merge commit's message names them */
    size_t n_taken;      /* earlier merges that had been waiting */
} worktree_merge;
/* name: of the folder, of the branch, or a label that only one has.  said: a line each, for people. */
MEMFS_CHECK memfs_code worktrees_merge(const place *p, const char *name, worktree_merge *ret,
                                       memfs_buf *said, memfs_error *err);
/* ECONFLICT: commits or changes would be lost, unless forced; then they are kept under refs/memfs/rescue/.
 * Forced too where there are files that no commit can hold; they are named, and all stays. */
MEMFS_CHECK memfs_code worktrees_remove(const place *p, const char *name, bool is_forced,
                                        memfs_error *err);

#endif
