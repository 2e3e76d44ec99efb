/*
 * timeline.h - a memory as it was: commits of main's history by their ids, the blocks of one of
 * them, and bringing it back.
 *
 * Only main's history counts: what else lies in the repository (backup refs, what was purged or
 * refused) is as if it were not there (H6, T28).
 *
 * Thread: a handle belongs to one thread.
 */
#ifndef MEMFS_SYNC_TIMELINE_H
#define MEMFS_SYNC_TIMELINE_H

#include "store/versions.h"
#include "sync/edit.h"

typedef struct timeline timeline;

/* life cycle */
/* The agent's repository and where main is now.  As home_agent_repo(). */
MEMFS_CHECK memfs_code timeline_open(home *h, memfs_str agent_id, timeline **ret, memfs_error *err);
void timeline_close(timeline *p);
void timeline_closep(timeline **p);

/* reading */
repo *timeline_repo(timeline *p);
const memfs_oid *timeline_main(const timeline *p);
/*
 * A read through timeline_repo() failed: damage fences the agent, if fsck agrees (F12).  Keeps *err
 * as it is.
 */
void timeline_failed(timeline *p, const memfs_error *err);
/*
 * A commit by its id, or by the beginning of it, TIMELINE_MIN_DIGITS at least.  ENOTFOUND: main's
 * history has none.  EINVALID: it is no such thing, or several begin so.
 */
#define TIMELINE_MIN_DIGITS 7
MEMFS_CHECK memfs_code timeline_commit(timeline *p, memfs_str digits, memfs_oid *ret,
                                       memfs_error *err);
/*
 * Rows as they would be if main were that commit (row.h), with what the state knows of their labels
 * today: ids, tags, limits.  In the order of paths; label "": all.  ELIMIT: more than
 * TIMELINE_MAX_BYTES, of all of them.
 */
#define TIMELINE_MAX_BYTES (64u << 20)
MEMFS_CHECK memfs_code timeline_blocks(timeline *p, const memfs_oid *commit, memfs_str label,
                                       block_row_fn fn, void *ctx, memfs_error *err);

/*
 * The commits that changed a file, newest first, from the index of versions (past.h), which is
 * brought up to main first: the first time that costs the whole history, then what is new in it.
 * before: go on after this one; NULL: with the newest.  limit > 0.  False where the index cannot
 * say (it could not be brought up, or does not know `before`): then versions_list() does, at the
 * price of a walk. *ret is the caller's.
 */
bool timeline_of_file(timeline *p, memfs_str path, const memfs_oid *before, size_t limit,
                      memfs_oid **ret, size_t *ret_n);

/* changing */
typedef struct timeline_revert {
    memfs_str commit;   /* as timeline_commit() takes it */
    memfs_str path;     /* the file that is brought back; "": all of them */
    memfs_str expected; /* "": any; else main must be at this commit, or the file have this blob */
    const char *what;   /* the commit's subject: "block 'x'", "'x.md'", "the memory" */
    const char *reason; /* more of its message; "": none */
} timeline_revert;
/*
 * One commit on top of main that has there what the earlier commit has; a file that this lacks
 * goes. Nothing to change is no failure.  ENOTFOUND: no such commit in main's history, or the file
 * is in neither of the two.  ECONFLICT: something else than was expected; the message has both ids.
 * Else as edit_memory().
 */
MEMFS_CHECK memfs_code timeline_bring_back(home *h, memfs_str agent_id, const timeline_revert *what,
                                           const edit_options *o, edit_result *ret,
                                           bool *ret_is_unclear, memfs_error *err);

#endif
