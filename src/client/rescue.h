/*
 * rescue.h - what would have been lost: tips kept by the reference-transaction hook, by the Letta client
 * itself, and merges decided by rule; and how each comes back (design 5, 7).
 *
 *   refs/memfs/rescue/<branch>/<id>   the hook's
 *   refs/letta-backup/pre-sync-<ms>   the client's own, before its reset
 * A tip that main (or another branch) contains, or that lives on as an equal patch, is no rescue: tidy drops it.
 *
 * undo never rewinds: a rescued tip is merged into main (store/merge), a commit or a rule's decision is
 * reverted by a new commit.
 */
#ifndef MEMFS_CLIENT_RESCUE_H
#define MEMFS_CLIENT_RESCUE_H

#include "store/checkout.h"
#include "store/merge.h"

typedef enum rescue_kind { RESCUE_TIP, RESCUE_LETTA_BACKUP, RESCUE_RULE_MERGE } rescue_kind;
typedef struct rescue {
    rescue_kind kind;
    memfs_oid id;
    char *ref;     /* NULL for a merge */
    char *branch;  /* of a tip */
    int64_t time_s;
    char *subject; /* first line of the commit, escaped */
    size_t n_lost; /* commits that nothing else keeps */
} rescue;
typedef struct rescues { rescue *at; size_t n; } rescues;
#define RESCUES_INIT { NULL, 0 }
void rescues_dispose(rescues *r);

/* Newest first.  is_cheap: counts refs without walking histories (status over 200 agents). */
MEMFS_CHECK memfs_code rescue_list(checkout *c, bool is_cheap, rescues *ret, memfs_error *err);
/* Drops what is reachable or an equal patch, folds the rest into one ref.  */
MEMFS_CHECK memfs_code rescue_tidy(checkout *c, size_t *ret_n_left, memfs_error *err);
/* what: NULL (the newest), or a prefix of an id, or a commit of main to revert.  *ret is main after it.
 * ECONFLICT: the checkout is not clean, and says so. */
MEMFS_CHECK memfs_code rescue_undo(checkout *c, const char *what, bool is_dry_run, memfs_oid *ret,
                                   memfs_buf *ret_said, memfs_error *err);

#endif
