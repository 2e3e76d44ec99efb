/*
 * versions.h - a history as the versions of its files: which commit left which path with which
 * bytes.
 *
 * A commit changed a path when it has there what none of its parents has: so of a merge only what
 * the merge itself decided counts, and each version of a file belongs to the commit that made it.
 * The first commit is compared with nothing.  Only files count; a link or a submodule (a lenient
 * policy stores them) is none.  An executable file that becomes another one, or the other way
 * round, is changed too, with the blob that it had.
 *
 * Order comes from the graph alone, never from a date (H7), and is the same wherever it is asked.
 *
 * Purged text is in no commit that main leads to; what else lies in the repository is not looked
 * at.
 *
 * Thread: as a repo handle.
 */
#ifndef MEMFS_STORE_VERSIONS_H
#define MEMFS_STORE_VERSIONS_H

#include "store/history.h"

typedef struct versions_path {
    const char *path;
    memfs_oid blob; /* zero: it is gone */
} versions_path;

typedef struct versions_commit {
    memfs_oid id;
    const commit_info *info;
    const versions_path *paths; /* sorted by bytes */
    size_t n_paths;             /* 0: a merge that decided nothing, the genesis */
} versions_commit;

/* Values are valid during the call.  A return other than OK ends the walk and is passed on. */
typedef memfs_code (*versions_fn)(const versions_commit *c, void *ctx, memfs_error *err);

/*
 * Every commit that `to` is or leads to, and that `from` neither is nor leads to, each after all of
 * its parents.  from NULL: all.  from need not lead to `to`.
 *
 * Costs what lies between the two (the changed folders of each of those commits are read), and some
 * commits below where they parted; in a history of several lines that never become one again, all
 * of its commits.  max_looked bounds how many commits are looked at to know which these are, and p
 * what is read of one commit, widely (ELIMIT); max_looked 0: any number.  ECORRUPT: a commit is
 * missing.
 */
MEMFS_CHECK memfs_code versions_walk(repo *r, const memfs_oid *from, const memfs_oid *to,
                                     size_t max_looked, const policy *p, versions_fn fn, void *ctx,
                                     memfs_error *err);

/* What to list. */
typedef struct versions_page {
    const memfs_oid *before; /* begin after this one in the list; NULL: with the newest */
    memfs_str path;          /* only commits that changed this file; "": all */
    size_t limit;            /* so many at most; 0: all */
} versions_page;
/*
 * The same commits of `tip`'s whole history the other way round, newest first, and no further than
 * is asked for: a commit costs when it is listed, or read past on the way to `before`, where it
 * costs much less.  With a path each costs the folders on the way to it.  ENOTFOUND: `before` is
 * not in that history, which costs all of it.
 */
MEMFS_CHECK memfs_code versions_list(repo *r, const memfs_oid *tip, const versions_page *page,
                                     const policy *p, versions_fn fn, void *ctx, memfs_error *err);
/* One commit; as an element of the list. */
MEMFS_CHECK memfs_code versions_one(repo *r, const memfs_oid *id, const policy *p, versions_fn fn,
                                    void *ctx, memfs_error *err);
/* The file that a commit has at a path.  ENOTFOUND: there is none, or a folder, or a link. */
MEMFS_CHECK memfs_code versions_file(repo *r, const memfs_oid *commit, memfs_str path,
                                     memfs_oid *ret, memfs_error *err);
/*
 * Is it tip, or a commit that tip leads to?  False also for what is no commit here at all.  Costs
 * how far back it is.
 */
MEMFS_CHECK memfs_code versions_has(repo *r, const memfs_oid *tip, const memfs_oid *id, bool *ret,
                                    memfs_error *err);

#endif
