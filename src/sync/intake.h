/*
 * intake.h - commits that did not come by a push become main's: from a remote, from a restore.
 *
 * The same steps as a push (push.c), in the same function where they are the same: under the
 * agent's lock vet, make the repository if this is its first, take the objects in, move the ref,
 * read it back, write the rows.  What differs is the candidate: a push has to descend from main,
 * what was fetched is merged with it (design 7).
 *
 * Thread: any one thread a call; waits for the agent's lock.
 */
#ifndef MEMFS_SYNC_INTAKE_H
#define MEMFS_SYNC_INTAKE_H

#include "store/fetched.h"
#include "store/merge.h"
#include "sync/home.h"

typedef struct intake_result {
    memfs_oid before;   /* of main; zero: the repository was made */
    memfs_oid tip;      /* of main afterwards */
    bool moved;         /* main is not where it was */
    bool is_theirs;     /* tip == what was fetched: nothing to push back */
    merge_result merge; /* how; notes of what was decided by rule */
} intake_result;
#define INTAKE_RESULT_INIT                                                                         \
    {                                                                                              \
        .merge = MERGE_RESULT_INIT                                                                 \
    }
void intake_result_dispose(intake_result *r);

typedef enum intake_keep {
    INTAKE_MERGE,  /* the merge of design 7 */
    INTAKE_OURS,   /* both histories, our tree: an operator's decision */
    INTAKE_THEIRS, /* both histories, their tree */
    /*
     * As INTAKE_MERGE; and an agent that is known but whose repository is gone begins again with
     * what was fetched, which may be older than what was lost: an operator's decision too (H4).
     */
    INTAKE_REVIVE,
} intake_keep;

/*
 * theirs: the tip that f fetched.  last_seen: what that remote had when it was last taken in (zero:
 * never), for the vetting.  EDENIED: refused by policy, nothing has changed.  ECONFLICT: main was
 * moved by hand just now.  ECORRUPT, EUNAVAIL as a push.  The agent need not be known yet: one
 * whose remote has nothing but the genesis is made, too.  INTAKE_OURS: their files are not judged,
 * as none of them comes in; banned objects and attacks are refused all the same.
 */
MEMFS_CHECK memfs_code intake_fetched(home *h, memfs_str agent_id, fetched *f,
                                      const memfs_oid *theirs, const memfs_oid *last_seen,
                                      intake_keep keep, const char *why, intake_result *ret,
                                      memfs_error *err);

/*
 * Attributes that came from elsewhere, as state_agent_merge; rows that were made already follow.  Of
 * an agent that is not known yet the births are kept: call before the intake, so that its first rows
 * have them, and after it for name and tags.
 */
MEMFS_CHECK memfs_code intake_attributes(home *h, const state_agent *attributes,
                                         const state_birth *births, size_t n, memfs_error *err);

/*
 * The tree of an older commit (or of main at a time) as a new commit on top; undone by another
 * restore (design 14).  at: 40 hex digits or more than 6, or "@<seconds>".  EINVALID, ENOTFOUND:
 * nothing in main's history is that, or main was still empty then.  *ret tip == before: the files
 * are that already.  Nothing of an older commit is judged: it was when it came.
 */
MEMFS_CHECK memfs_code intake_restore(home *h, memfs_str agent_id, const char *at,
                                      const store_identity *who, intake_result *ret,
                                      memfs_error *err);

#endif
