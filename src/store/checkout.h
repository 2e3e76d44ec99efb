/*
 * checkout.h - a repository that belongs to somebody else too: an agent's memory with its working
 * tree, a linked worktree of it, or a bare hub of the client.
 *
 * Unlike a store's repositories (store.h) it is changed by git, by agents and by Letta's client at
 * any time.  So everything here takes git's own locks ("index.lock", "<ref>.lock"), compares before
 * it swaps, and never touches a byte that is not committed (reliability F31).
 *
 * Our own files lie in <common git dir>/memfs/ (checkout_note_path): nothing in the working tree
 * ever shows that memfs was there.
 *
 * Changing the working tree (checkout_update) is journaled: the intent (old and new commit) is
 * written and synced before the first file changes; checkout_recover finishes after a crash.  A
 * file is exchanged with its new version by rename, then what was there is compared with what was
 * expected: an edit that came in between goes back into its place and the update ends as
 * ECONFLICT.
 *
 * Thread: a handle belongs to one thread.  Processes: any number; git's locks decide.
 */
#ifndef MEMFS_STORE_CHECKOUT_H
#define MEMFS_STORE_CHECKOUT_H

#include "store/store.h"

typedef struct checkout checkout;

/* life cycle */

/* Sets libgit2's options; no child, no file is touched.  Once a process; store_open does it too. */
MEMFS_CHECK memfs_code checkout_library(memfs_error *err);
/*
 * path is a working tree (its ".git" a folder, or a file of a linked worktree) or a bare git dir.
 * ENOTFOUND: no repository there (parents are not searched).  EDENIED: it belongs to another uid.
 */
MEMFS_CHECK memfs_code checkout_open(const char *path, checkout **ret, memfs_error *err);
void checkout_close(checkout *c);
void checkout_closep(checkout **c);

/*
 * Makes work_tree a repository on branch main with the genesis: .git is built and synced in
 * "<work_tree>.memfs-XXXXXX" beside it, work_tree is made if it is missing, then .git is renamed
 * in. Files that are there stay as they are, untracked.  EEXISTS: somebody was first, or it is one
 * already: fine.  bare: work_tree itself becomes the git dir.  Leftover staging folders of dead
 * processes are removed.
 */
MEMFS_CHECK memfs_code checkout_create(const char *work_tree, bool is_bare, memfs_error *err);

/* reading */
const char *checkout_work_tree(const checkout *c); /* NULL: bare */
const char *checkout_git_dir(const checkout *c);
const char *checkout_common_dir(const checkout *c);
repo *checkout_repo(checkout *c); /* its objects; borrowed */
/* "<common dir>/memfs/<name>"; the folder is made; caller frees. */
char *checkout_note_path(const checkout *c, const char *name);
/* ENOTFOUND: no such ref.  Loose before packed; name is full ("refs/heads/main"). */
MEMFS_CHECK memfs_code checkout_ref(const checkout *c, const char *name, memfs_oid *ret,
                                    memfs_error *err);
typedef memfs_code (*checkout_ref_fn)(const char *name, const memfs_oid *id, void *ctx,
                                      memfs_error *err);
/* Loose and packed, below a prefix like "refs/memfs/rescue/", sorted by name. */
MEMFS_CHECK memfs_code checkout_each_ref(const checkout *c, const char *prefix, checkout_ref_fn fn,
                                         void *ctx, memfs_error *err);

typedef enum checkout_operation {
    CHECKOUT_CALM,
    CHECKOUT_MERGING,
    CHECKOUT_REBASING,
    CHECKOUT_PICKING, /* cherry-pick or revert */
    CHECKOUT_BISECTING,
} checkout_operation;

typedef struct checkout_state {
    bool has_head; /* false: a branch without a commit */
    memfs_oid head;
    bool is_detached;
    char branch[256]; /* short; "" when detached */
    checkout_operation operation;
    bool has_index_lock;
    size_t n_changed;   /* tracked files that differ from HEAD, in index or working tree */
    size_t n_untracked; /* not ignored */
    char first_changed[256];
} checkout_state;
/* Costs a stat a file when the index is fresh. */
MEMFS_CHECK memfs_code checkout_inspect(checkout *c, checkout_state *ret, memfs_error *err);

/* changing */

/*
 * Moves a ref by compare-and-swap under git's "<ref>.lock", with fsync and a reflog entry.
 * expected all zero: it must not exist.  ECONFLICT: it is elsewhere.  EUNAVAIL: locked for 2 s.
 * Hooks are not called.  target NULL deletes.
 */
MEMFS_CHECK memfs_code checkout_ref_move(checkout *c, const char *name, const memfs_oid *expected,
                                         const memfs_oid *target, const char *why,
                                         memfs_error *err);

typedef struct checkout_update_report {
    size_t n_written, n_removed;
    char in_the_way[256]; /* the file that stopped it */
    size_t n_left;        /* links and submodules: in the commit, not in the working tree */
    char first_left[256];
} checkout_update_report;
/*
 * Working tree, index and refs/heads/main from `from` to `to` (a descendant), together, under
 * index.lock.  Only for a calm checkout on main at `from` with nothing changed among tracked files;
 * untracked files that are in the way must be equal.  ECONFLICT: one of that does not hold, or an
 * editor was faster; nothing was changed.  EDENIED: a name in `to` could do harm.  EUNAVAIL: git
 * held the index for 2 s.  EINVALID: `to` is no descendant.
 *
 * Symbolic links and submodules are never made: their entries in the index are marked
 * "skip-worktree", so that git takes them for unchanged.  (With core.symlinks=false a link is a
 * file with its target as text, as in git.)  Folders that become empty go.  Bare: only the ref.
 */
MEMFS_CHECK memfs_code checkout_update(checkout *c, const memfs_oid *from, const memfs_oid *to,
                                       const char *why, checkout_update_report *ret,
                                       memfs_error *err);
/*
 * Finishes or takes back what a crash interrupted; *ret_did says if there was something.  Bytes
 * that nobody committed and that have no place any more are kept under
 * refs/memfs/rescue/working-tree/.
 */
MEMFS_CHECK memfs_code checkout_recover(checkout *c, bool *ret_did, memfs_error *err);

/*
 * Commits files of the working tree that HEAD lacks or has otherwise, and removals, all that the
 * policy takes (regular files, names, sizes; ignored ones are left), as one commit on HEAD's
 * branch by `who`. Others are told through skipped (why: the rule alone) and stay as they are.
 * *ret is HEAD when there was nothing.  Takes index.lock; no hooks.  ECONFLICT: detached, or a
 * merge or rebase is in progress.
 */
typedef void (*checkout_skipped_fn)(memfs_str path, const char *why, void *ctx);
MEMFS_CHECK memfs_code checkout_commit_all(checkout *c, const policy *p, const store_identity *who,
                                           const char *message, checkout_skipped_fn skipped,
                                           void *ctx, memfs_oid *ret, memfs_error *err);
/* Files written as blobs and put into HEAD's tree in one commit on top of `parent`; does not move
 * any ref nor the working tree.  content.ptr NULL removes the path. */
typedef struct checkout_edit {
    memfs_str path;
    memfs_str content;
} checkout_edit;
MEMFS_CHECK memfs_code checkout_commit_edits(checkout *c, const memfs_oid *parent,
                                             const checkout_edit *edits, size_t n,
                                             const store_identity *who, const char *message,
                                             memfs_oid *ret, memfs_error *err);
/* A commit of an existing tree (a revert, a restore); moves nothing. */
MEMFS_CHECK memfs_code checkout_commit_tree(checkout *c, const memfs_oid *tree,
                                            const memfs_oid *parents, size_t n_parents,
                                            const store_identity *who, const char *message,
                                            memfs_oid *ret, memfs_error *err);

/* linked worktrees: as `git worktree add PATH -b BRANCH COMMIT` */
MEMFS_CHECK memfs_code checkout_worktree_add(checkout *c, const char *path, const char *branch,
                                             const memfs_oid *commit, memfs_error *err);
typedef memfs_code (*checkout_worktree_fn)(const char *path, const char *branch, void *ctx,
                                           memfs_error *err);
MEMFS_CHECK memfs_code checkout_each_worktree(checkout *c, checkout_worktree_fn fn, void *ctx,
                                              memfs_error *err);
/* Folder and registration; the branch stays.  ECONFLICT: uncommitted work, unless forced. */
MEMFS_CHECK memfs_code checkout_worktree_remove(checkout *c, const char *path, bool is_forced,
                                                memfs_error *err);

#endif
