/*
 * store.h - git repositories on disk: the truth.  All of libgit2 lives in this room.
 *
 * A store is one data folder.  A repository is named by its path below it, for instance
 * "repository/<org>/<agent>/repo.git"; the store knows nothing of agents.  Repositories are bare,
 * SHA-1, with HEAD on refs/heads/main, and begin with the genesis commit (design 4).
 *
 * Only memfs writes here.  A ref moves in one place (repo_ref_move), by compare-and-swap, with
 * fsync of file and folder, and is read back (D1, D2).  Packs come in through store/incoming.h.
 *
 * Locking: the caller holds the repository's lock (sync/home.h) for everything under "changing".
 * Reading needs none.
 * Thread: a store may be shared; a repo handle belongs to one thread at a time.
 */
#ifndef MEMFS_STORE_STORE_H
#define MEMFS_STORE_STORE_H

#include "base/buf.h"
#include "base/oid.h"
#include "memory/policy.h"

typedef struct store store;
typedef struct repo repo;

/* 56776245ff7b896622904bfc4d1c355a35e6cd81 */
extern const memfs_oid STORE_GENESIS;
#define STORE_MAIN "refs/heads/main"

/*
 * life cycle.  Sets libgit2's options, finds git and checks its version, makes the genesis
 * template. home is an absolute path; EDENIED when others may write there, EUNAVAIL without a git
 * of 2.36.
 */
MEMFS_CHECK memfs_code store_open(const char *home, store **ret, memfs_error *err);
void store_close(store *s);
/* Absolute path of the repository; caller frees. */
char *store_path(const store *s, const char *name);
/* A bare repository with nothing but the genesis, for first clones of new agents. */
const char *store_genesis_path(const store *s);
/* The same by name, for repo_open. */
#define STORE_GENESIS_REPO "tmp/genesis.git"

/*
 * Creates the repository with the genesis on main: staged in tmp/, synced, renamed.  EEXISTS.
 * EUNAVAIL: the disk fails.
 */
MEMFS_CHECK memfs_code store_create(store *s, const char *name, memfs_error *err);
bool store_has(const store *s, const char *name);
/*
 * The id of refs/heads/main, by one read of the loose ref where there is one (no libgit2).
 * ENOTFOUND: no such folder.  ECORRUPT: the folder is there but main cannot be read.
 */
MEMFS_CHECK memfs_code store_tip(const store *s, const char *name, memfs_oid *ret,
                                 memfs_error *err);

/* The same of a repository anywhere.  ENOTFOUND: it has no main.  ECORRUPT: half-written, perhaps. */
MEMFS_CHECK memfs_code store_tip_at(const char *git_dir, memfs_oid *ret, memfs_error *err);

/*
 * Syncs main, its folder, the folder of the packs and all folders above, up to the home: after a
 * crash between a rename and its fsync they say what no disk holds yet (D1).  ECORRUPT: a sync
 * failed (F05).
 */
MEMFS_CHECK memfs_code store_settle(const store *s, const char *name, memfs_error *err);

MEMFS_CHECK memfs_code repo_open(store *s, const char *name, repo **ret, memfs_error *err);
void repo_close(repo *r);
void repo_closep(repo **r);
/* Something was written through it that could not be synced: a second sync may lie (F05). */
bool repo_is_unsynced(const repo *r);

/* reading */
typedef struct tree_change {
    memfs_str path;          /* valid during the call */
    bool has_old, has_new;   /* both: changed */
    memfs_oid old_id, new_id;
    uint32_t old_mode, new_mode;
} tree_change;
/* A return other than OK ends the walk and is passed on. */
typedef memfs_code (*tree_change_fn)(const tree_change *change, void *ctx, memfs_error *err);
/*
 * What differs between two commits' trees, files only, in git's tree order; equal subtrees are not
 * opened, so the cost follows the change.  old NULL is the empty tree.  Bounded by p's depth and
 * entries (ELIMIT).
 */
MEMFS_CHECK memfs_code repo_diff(repo *r, const memfs_oid *old_commit, const memfs_oid *new_commit,
                                 const policy *p, tree_change_fn fn, void *ctx, memfs_error *err);
/* Size first, so that a large blob costs nothing (T14): ELIMIT past max_bytes. */
MEMFS_CHECK memfs_code repo_blob(repo *r, const memfs_oid *id, uint64_t max_bytes, memfs_buf *out,
                                 memfs_error *err);
/* The size of a blob, from its header. */
MEMFS_CHECK memfs_code repo_blob_size(repo *r, const memfs_oid *id, uint64_t *ret,
                                      memfs_error *err);
/* Is `ancestor` reachable from `commit` (equal counts)?  Replace refs are never consulted (T10). */
MEMFS_CHECK memfs_code repo_is_ancestor(repo *r, const memfs_oid *ancestor,
                                        const memfs_oid *commit, bool *ret, memfs_error *err);
/* git fsck --full --strict, as a child; ECORRUPT with its first finding. */
MEMFS_CHECK memfs_code store_fsck(store *s, const char *name, memfs_error *err);

/* changing */
typedef struct store_identity {
    const char *name;
    const char *email;
    int64_t time_s;
} store_identity;
/*
 * A commit of this tree with these parents, in their order (one is named once, zero ids not at
 * all), written and synced; no ref moves.  who NULL: memfs <memfs@localhost> at the latest of the
 * parents' committer times, so that it is a pure function of what it is made of.  Of a commit's tree:
 * store/history.h.  ECORRUPT: no such tree or parent.
 */
MEMFS_CHECK memfs_code repo_commit_tree(repo *r, const memfs_oid *tree, const memfs_oid *parents,
                                        size_t n_parents, const store_identity *who,
                                        memfs_str message, memfs_oid *ret, memfs_error *err);
/*
 * Moves refs/heads/main from expected to target, with a reflog entry, fsync, and a read-back.
 * ECONFLICT: it is not at expected.  A failed fsync or read-back is ECORRUPT: nothing may be
 * acknowledged and the repository is read-only until it was checked again (F05).
 */
MEMFS_CHECK memfs_code repo_ref_move(repo *r, const memfs_oid *expected, const memfs_oid *target,
                                     const store_identity *who, const char *why,
                                     memfs_error *err);
/*
 * For administrators (purge): main moves to any commit, after its old tip was kept, synced, under
 * refs/memfs/backup/ (H1).  ECONFLICT and ECORRUPT as above.
 */
#define STORE_BACKUPS "refs/memfs/backup/"
MEMFS_CHECK memfs_code repo_ref_rewrite(repo *r, const memfs_oid *expected, const memfs_oid *target,
                                        const store_identity *who, const char *why,
                                        memfs_error *err);
/* Removes stale *.lock files and incoming folders that a crash left (F01, F02). */
MEMFS_CHECK memfs_code store_sweep(store *s, const char *name, size_t *ret_n_removed,
                                   memfs_error *err);
/* How many packs there are; past STORE_REPACK_AT, store_repack folds them geometrically. */
#define STORE_REPACK_AT 32
size_t store_pack_count(const store *s, const char *name);
/*
 * About how many objects lie by themselves, from one of their 256 folders: commits over the API make
 * some each.  store_repack folds those that a ref reaches.
 */
#define STORE_LOOSE_AT 2048
size_t store_loose_estimate(const store *s, const char *name);
MEMFS_CHECK memfs_code store_repack(store *s, const char *name, memfs_error *err);

#endif
