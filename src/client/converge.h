/*
 * converge.h - one memory and its remote, brought together: probe, fetch, merge, push (design 5,
 * 7).
 *
 * apply = prepare + converge within a budget, and success whatever the remote did.  sync = the
 * same, asked for: the budget is generous and what the remote said is the exit status.
 *
 *   remote empty           push
 *   remote behind          push; a lost race: fetch, merge, push again, up to 5 times with jitter
 *   remote ahead           fast-forward when the checkout is clean, else the ref refs/remotes/origin/main
 *   diverged, unrelated    store/merge: one merge commit, pushed; the checkout follows when it is clean
 *   remote lost commits    ours are pushed again; never forced, never reset
 * When the checkout cannot change now (dirty, rebasing, detached, other branch: F31) the merge is
 * still made and pushed from refs/memfs/synced, and the checkout follows with a later sync;
 * held_back says why.
 *
 * A hub (hub.h), if the agent has one, lies between: checkout <-> hub <-> remote.
 * What was heard is remembered in <git dir>/memfs/remote with an expiry.
 * One process converges a memory at a time (flock); another waits within its budget.
 */
#ifndef MEMFS_CLIENT_CONVERGE_H
#define MEMFS_CLIENT_CONVERGE_H

#include "client/prepare.h"

typedef struct converge_options {
    int64_t budget_ms;     /* for the remote, in all */
    bool believe_memory;   /* apply: an answer that has not expired is not asked for again */
    bool only_local;       /* init: never ask */
} converge_options;

/* Never fails as a whole: *ret says everything. */
void client_apply(const settings *s, const place *p, const converge_options *o, client_report *ret);
void client_sync(const settings *s, const place *p, const converge_options *o, client_report *ret);
/*
 * A hub and the remote alone, which is what a commit that a client pushed into the hub needs: the
 * checkout, in which that client is at work, is neither changed nor waited for; the next sync or
 * pull brings it what was merged.  name: NULL, or of a shared repository.
 */
void client_sync_hub(const settings *s, const place *p, const char *name,
                     const converge_options *o, client_report *ret);
/* As far as can be told without asking anybody: status. */
void client_look(const settings *s, const place *p, client_report *ret);

#endif
