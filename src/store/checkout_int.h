/*
 * checkout_int.h - what the files of checkout.h share.  Nobody else includes it.
 */
#ifndef MEMFS_STORE_CHECKOUT_INT_H
#define MEMFS_STORE_CHECKOUT_INT_H

#include "store/checkout.h"
#include "store/gitconfig.h"
#include "store/gitlock.h"
#include "store/store_int.h"

#include <sys/stat.h>

#define CHECKOUT_LOCK_WAIT_MS 2000

struct checkout {
    char *work_tree;  /* NULL: bare */
    char *git_dir;    /* of this working tree */
    char *common_dir; /* of the repository; the same one unless the working tree is linked */
    gitconfig *config;
    gitconfig *worktree_config; /* NULL: there is none */
    bool has_modes;   /* core.fileMode */
    bool has_links;   /* core.symlinks */
    repo *r;
};

/* checkout.c */
const char *checkout_config(const checkout *c, const char *key);
bool checkout_config_bool(const checkout *c, const char *key, bool fallback);
/* "<git dir>/memfs/<name>": notes of one working tree. */
char *checkout_own_note_path(const checkout *c, const char *name);
/* What HEAD says: a full ref name in *ret_ref (caller frees), or NULL and an id. */
MEMFS_CHECK memfs_code checkout_head(const checkout *c, char **ret_ref, memfs_oid *ret_id,
                                     memfs_error *err);

/* checkout_refs.c: where the twins of the locks of refs lie (gitlock.h); caller frees. */
char *checkout_lock_twins(const checkout *c);
/* Clears away locks of refs that a dead memfs left. */
void checkout_heal_refs(const checkout *c);
/*
 * A ref that is going to move: locked and compared by _begin, moved by _finish.  Between the two
 * the caller does what must not happen unless the ref is still where it was.
 */
typedef struct ref_step {
    gitlock lock;
    char *name, *path;
    memfs_oid expected, target;
} ref_step;
#define REF_STEP_INIT { .lock = GITLOCK_INIT }
void ref_step_dispose(ref_step *s);
MEMFS_CHECK memfs_code ref_step_begin(checkout *c, const char *name, const memfs_oid *expected,
                                      const memfs_oid *target, ref_step *ret, memfs_error *err);
MEMFS_CHECK memfs_code ref_step_finish(checkout *c, ref_step *s, const store_identity *who,
                                       const char *why, memfs_error *err);

/* checkout_create.c: a folder "<path>.memfs-XXXXXX" of ours, flocked by *ret_fd as long as we
 * live. */
MEMFS_CHECK memfs_code checkout_stage_begin(const char *path, char **ret, int *ret_fd,
                                            memfs_error *err);
/* Removes those that dead processes left. */
void checkout_sweep_stages(const char *path);

/* checkout_inspect.c */
checkout_operation checkout_operation_of(const checkout *c);

/* checkout_tree.c: all files of a tree, sorted by path as an index is. */
typedef struct tree_file {
    char *path;
    uint32_t mode;
    memfs_oid id;
} tree_file;
typedef struct tree_files {
    tree_file *at;
    size_t n;
} tree_files;
void tree_files_dispose(tree_files *t);
/* tree NULL: none.  ELIMIT: more than an honest repository has. */
MEMFS_CHECK memfs_code tree_files_read(repo *r, const memfs_oid *tree, tree_files *ret,
                                       memfs_error *err);

/* checkout_index.c: git's index, and what it says about the working tree. */
typedef struct checkout_index {
    git_index *index;
    struct timespec written; /* of the file; zero: there is none */
} checkout_index;
#define CHECKOUT_INDEX_INIT { NULL, { 0, 0 } }
void checkout_index_dispose(checkout_index *x);
MEMFS_CHECK memfs_code checkout_index_read(const checkout *c, checkout_index *ret,
                                           memfs_error *err);
/* A folder of the working tree, kept open from one path to the next. */
typedef struct tree_cursor {
    int root, fd;
    memfs_buf folder; /* that fd is open on; "" is the root */
    bool is_missing;  /* there is no such folder, or a link or file on the way */
} tree_cursor;
#define TREE_CURSOR_INIT { -1, -1, MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED), false }
MEMFS_CHECK memfs_code tree_cursor_open(const checkout *c, tree_cursor *ret, memfs_error *err);
void tree_cursor_dispose(tree_cursor *t);
/* A folder below root by a path without links; -1 and errno. */
int checkout_open_folder(int root, const char *folder);
/* The folder of path and its last part; -1: there is none. */
int tree_cursor_at(tree_cursor *t, const char *path, const char **ret_name);
/* Does the file have exactly these bytes, and the mode as far as it counts here? */
MEMFS_CHECK memfs_code checkout_file_is(const checkout *c, int folder, const char *name,
                                        uint32_t mode, const memfs_oid *id, bool *ret,
                                        memfs_error *err);
/* The id that the bytes of an open file would have. */
MEMFS_CHECK memfs_code checkout_hash_fd(int fd, const struct stat *st, memfs_oid *ret,
                                        memfs_error *err);
/* Is the file what this entry of the index says? */
MEMFS_CHECK memfs_code checkout_entry_is_fresh(const checkout *c, const checkout_index *x,
                                               const git_index_entry *e, tree_cursor *t, bool *ret,
                                               memfs_error *err);
/* The stat data of an entry, from a file. */
void checkout_entry_stat(git_index_entry *e, const struct stat *st);
/* Everything of the index over the lock file, synced; not committed. */
MEMFS_CHECK memfs_code checkout_index_write(const checkout *c, git_index *index, gitlock *lock,
                                            memfs_error *err);
MEMFS_CHECK memfs_code checkout_index_lock(const checkout *c, gitlock *ret, memfs_error *err);

/* checkout_untracked.c: files that the index does not know and that are not ignored. */
typedef struct untracked_entry {
    const char *path;
    int folder; /* open on its folder */
    const char *name;
    struct stat st;
    bool is_repository; /* a folder that is a repository of its own; not walked */
} untracked_entry;
typedef memfs_code (*untracked_fn)(const untracked_entry *e, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code checkout_each_untracked(const checkout *c, git_index *index, untracked_fn fn,
                                               void *ctx, memfs_error *err);

#endif
