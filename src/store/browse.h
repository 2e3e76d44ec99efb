/*
 * browse.h - the history and the changes of a checkout, for people: log, diff, show, and finding a
 * commit by name or time.
 *
 * Nothing outside is asked: no pager, alias, external diff or text converter of anybody's
 * configuration ever runs; what differs is compared as bytes.  Reading takes no lock and writes
 * nothing, not even the index.
 *
 * Of a merge, what counts as its change is what differs from every parent: what the merge itself
 * decided.
 *
 * Thread: a handle belongs to one thread.
 */
#ifndef MEMFS_STORE_BROWSE_H
#define MEMFS_STORE_BROWSE_H

#include "store/checkout.h"
#include "store/history.h"

typedef struct browse browse;

/* c must live longer. */
MEMFS_CHECK memfs_code browse_open(checkout *c, browse **ret, memfs_error *err);
void browse_close(browse *b);
void browse_closep(browse **b);

/* finding commits */

/*
 * As git names them: "main", "HEAD~2", a prefix of an id.  ENOTFOUND; EINVALID: several begin so.
 */
MEMFS_CHECK memfs_code browse_commit(browse *b, const char *rev, memfs_oid *ret, memfs_error *err);
/* The newest commit in HEAD's history that was made at that time or before.  ENOTFOUND: none. */
MEMFS_CHECK memfs_code browse_commit_at(browse *b, int64_t time_s, memfs_oid *ret,
                                        memfs_error *err);

/* history, newest first */
typedef struct browse_entry {
    memfs_oid id;
    const commit_info *info;
    const char *const *paths; /* changed by it, sorted */
    size_t n_paths;
} browse_entry;
typedef memfs_code (*browse_log_fn)(const browse_entry *entry, void *ctx, memfs_error *err);
/* path: only commits that changed this file or folder; NULL: all.  limit 0: no limit. */
MEMFS_CHECK memfs_code browse_log(browse *b, const memfs_oid *from, const char *path, size_t limit,
                                  browse_log_fn fn, void *ctx, memfs_error *err);
/* Commits that `from` has and `without` has not (NULL: none), newest first. */
MEMFS_CHECK memfs_code browse_log_between(browse *b, const memfs_oid *from,
                                          const memfs_oid *without, const char *path, size_t limit,
                                          browse_log_fn fn, void *ctx, memfs_error *err);

/* changes */
typedef struct browse_change {
    char status; /* A added, M changed, D deleted, R renamed, ? not tracked, U in conflict */
    memfs_str path, old_path;
    bool is_binary;
    size_t n_added, n_removed; /* lines */
    memfs_str patch;           /* as git prints it; empty unless asked for */
} browse_change;
typedef memfs_code (*browse_diff_fn)(const browse_change *change, void *ctx, memfs_error *err);
typedef struct browse_span {
    const memfs_oid *old; /* NULL: nothing at all (an empty memory) */
    const memfs_oid *new; /* NULL: the working tree, with files that are not tracked */
    const char *path;     /* a file or folder; NULL: all */
    bool wants_patch;
} browse_span;
MEMFS_CHECK memfs_code browse_diff(browse *b, const browse_span *span, browse_diff_fn fn, void *ctx,
                                   memfs_error *err);
/* The change of one commit against its parent (of a merge: what it decided, against the first). */
MEMFS_CHECK memfs_code browse_diff_commit(browse *b, const memfs_oid *id, const char *path,
                                          bool wants_patch, browse_diff_fn fn, void *ctx,
                                          memfs_error *err);

/* files of a commit */

/* ENOTFOUND: there is no such file.  ELIMIT: larger than 64 MiB. */
MEMFS_CHECK memfs_code browse_file(browse *b, const memfs_oid *commit, const char *path,
                                   memfs_buf *out, memfs_error *err);
/* Is there a file or folder of that name? */
bool browse_has(browse *b, const memfs_oid *commit, const char *path);
typedef memfs_code (*browse_file_fn)(memfs_str path, uint32_t mode, const memfs_oid *blob,
                                     void *ctx, memfs_error *err);
/* All files at or below path ("" or NULL: all), sorted.  ENOTFOUND: there is nothing. */
MEMFS_CHECK memfs_code browse_files(browse *b, const memfs_oid *commit, const char *path,
                                    browse_file_fn fn, void *ctx, memfs_error *err);

/* user.name and user.email of the checkout's own configuration, at this second; memfs <memfs@localhost>
 * where they are unset.  Valid until close. */
void browse_identity(browse *b, store_identity *ret);

#endif
