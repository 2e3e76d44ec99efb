/*
 * rewrite.h - taking bytes out of a history, and the old objects off the disk (T28).
 *
 *     rewrite_history     a second history beside the first, without the bytes; nothing is lost yet
 *     repo_ref_rewrite    main moves there (store.h)
 *     store_drop_old      everything that main does not reach goes: backups, logs, packs
 *     repo_has            asked by id, with a handle opened after that: is it gone?
 *
 * Everything else about a commit stays: trees, modes, parents, dates, names.  Signatures of commits
 * that change are dropped, since they would not hold.  The genesis never changes.
 *
 * The caller holds the repository's lock.  Thread: as store.h.
 */
#ifndef MEMFS_STORE_REWRITE_H
#define MEMFS_STORE_REWRITE_H

#include "store/store.h"

#define REWRITE_MARK "[purged]" /* what stands where a needle stood; a whole file: with a newline  \
                                 */

typedef struct rewrite_request {
    memfs_oid tip;
    memfs_str needle;       /* replaced in files and messages; empty: none */
    const memfs_oid *blobs; /* replaced whole */
    size_t n_blobs;
    bool dry_run; /* work it all out, write nothing */
    /* Each file that is replaced, once a blob, with a path that it has somewhere.  May be NULL. */
    void (*found)(memfs_str path, const memfs_oid *blob, void *ctx);
    /* A path that has the needle in its name: it stays.  May be NULL. */
    void (*named)(memfs_str path, void *ctx);
    void *ctx;
} rewrite_request;

typedef struct rewrite_result {
    memfs_oid new_tip;
    memfs_oid *gone; /* blobs that were replaced, and commits whose message was; sorted */
    size_t n_gone;
    size_t n_blobs;   /* replaced */
    size_t n_commits; /* made anew, because they or what they hold or follow changed */
} rewrite_result;
void rewrite_result_dispose(rewrite_result *r);

/*
 * ELIMIT: a file or folder is beyond p's bounds.  New objects are on disk, synced, when it returns.
 */
MEMFS_CHECK memfs_code rewrite_history(repo *r, const rewrite_request *request, const policy *p,
                                       rewrite_result *ret, memfs_error *err);
/*
 * Removes all refs but main and the sidecar (sidecar.h), all logs but one entry that says where main
 * is, and all objects that these two do not reach, in packs or loose, at once.  May be repeated after
 * a crash.
 */
MEMFS_CHECK memfs_code store_drop_old(store *s, const char *name, memfs_error *err);
/* Is there an object of this id, reachable or not? */
bool repo_has(repo *r, const memfs_oid *id);

/* One text without the needle, REWRITE_MARK in its place, also where that makes it anew; to `out`.
 */
void rewrite_text(memfs_str text, memfs_str needle, memfs_buf *out);

#endif
