/*
 * bringback.h - files as they were, as a new commit on top: from a commit of the memory, or from a
 * backup.
 *
 * Never a rewind: clients push a rewound tip back (design 14), and what is brought back can be
 * brought away again. The working tree follows; a checkout that is not clean is refused (ECONFLICT)
 * and nothing changes.
 *
 * Thread: as a checkout handle.
 */
#ifndef MEMFS_CLIENT_BRINGBACK_H
#define MEMFS_CLIENT_BRINGBACK_H

#include "store/browse.h"

typedef struct bringback {
    memfs_oid commit;             /* main after it */
    size_t n_written, n_removed;  /* files; both 0: all was as wanted, no commit was made */
    size_t n_uncommitted;         /* of a backup: files that had not been committed there */
} bringback;

/* Called for each file that changes: A added, M changed, D removed, sorted by path. */
typedef void (*bringback_fn)(char status, memfs_str path, void *ctx);
typedef struct bringback_options {
    const char *const *paths; /* files or folders; none: all */
    size_t n_paths;
    bool is_dry_run;
    bool only_committed; /* of a backup: leave out what was not committed */
    bringback_fn fn;     /* may be NULL */
    void *ctx;
} bringback_options;

/* ENOTFOUND: a path is neither there then nor now. */
MEMFS_CHECK memfs_code bringback_commit(checkout *c, browse *b, const memfs_oid *at,
                                        const bringback_options *o, bringback *ret,
                                        memfs_error *err);
MEMFS_CHECK memfs_code bringback_backup(checkout *c, browse *b, const char *backup_path,
                                        const bringback_options *o, bringback *ret,
                                        memfs_error *err);

#endif
