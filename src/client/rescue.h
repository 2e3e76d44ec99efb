/*
 * rescue.h - what would have been lost: tips kept by the reference-transaction hook, by the Letta
 * client itself, and merges decided by rule; and how each comes back (design 5, 7).
 *
 *   refs/memfs/rescue/<branch>/<id>   the hook's (src/hook/transaction.c)
 *   refs/memfs/rescued                many of the hook's tips in one ref: a commit with them as parents
 *   refs/letta-backup/pre-sync-<ms>   the client's own, before its reset
 *   <common>/memfs/merged.log         "<time> <commit> <n>": merges decided by rule on this machine
 *   <common>/memfs/merged.seen        "<commit>": those that were looked at or undone
 *   <common>/memfs/backup.kept        "<commit>": the client's own that a branch keeps as well
 *
 * A tip that a branch contains, or that lives on as an equal change, is no rescue: tidy drops the
 * hook's ref of it.  The client's refs are the client's and stay; tidy notes that they keep
 * nothing of their own.
 *
 * undo never rewinds: a rescued tip is merged into main (store/merge), a commit or a rule's
 * decision is reverted by a new commit.  Of a merge decided by rule, the files that the rule met
 * are put back as they were on this machine before it; all else of the merge stays.
 */
#ifndef MEMFS_CLIENT_RESCUE_H
#define MEMFS_CLIENT_RESCUE_H

#include "store/checkout.h"
#include "store/merge.h"

typedef enum rescue_kind { RESCUE_TIP, RESCUE_LETTA_BACKUP, RESCUE_RULE_MERGE } rescue_kind;
typedef struct rescue {
    rescue_kind kind;
    memfs_oid id;
    char *ref;    /* NULL for a merge */
    char *branch; /* of a tip */
    int64_t time_ms; /* when it was kept or merged; if nobody wrote that down, when committed */
    char *subject; /* first line of the commit, escaped */
    size_t n_lost; /* commits that nothing else keeps; of a merge: files that a rule decided */
} rescue;
typedef struct rescues {
    rescue *at;
    size_t n;
} rescues;
#define RESCUES_INIT { NULL, 0 }
void rescues_dispose(rescues *r);

/* Newest first.  is_cheap: counts refs without walking histories (status over 200 agents): no
 * subjects and numbers, and what tidy would drop is still in it. */
MEMFS_CHECK memfs_code rescue_list(checkout *c, bool is_cheap, rescues *ret, memfs_error *err);
/* Drops what is reachable or an equal change, and folds many into one ref.  While somebody holds
 * the lock of a branch nothing is dropped: the next time will do. */
MEMFS_CHECK memfs_code rescue_tidy(checkout *c, size_t *ret_n_left, memfs_error *err);
/* All merges of the list were looked at: they are no longer in it. */
MEMFS_CHECK memfs_code rescue_seen(checkout *c, memfs_error *err);
/*
 * what: NULL (the newest of the list), a prefix of an id in it, or a commit of main to revert.
 * *ret is main after it.  ECONFLICT: the checkout is not clean, and says so; nothing was changed.
 * ENOTFOUND: there is nothing to undo.
 */
MEMFS_CHECK memfs_code rescue_undo(checkout *c, const char *what, bool is_dry_run, memfs_oid *ret,
                                   memfs_buf *ret_said, memfs_error *err);

#endif
