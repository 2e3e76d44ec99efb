/*
 * materialise_int.h - the two halves of a step of the cache, for push.c, verify and materialise.c.
 *
 * A plan is what git says: the rows that a step from one commit to another writes, and the paths
 * whose rows go.  It is made without touching anything, in the quarantine of a push too, so that
 * the same parse serves the warnings before the ref moves and the rows after it.
 */
#ifndef MEMFS_SYNC_MATERIALISE_INT_H
#define MEMFS_SYNC_MATERIALISE_INT_H

#include "sync/materialise.h"
#include "sync/row.h"

typedef struct plan plan;

/* from NULL: everything that `to` has, in place of whatever the cache holds. */
MEMFS_CHECK memfs_code plan_make(home *h, agent *a, repo *r, const memfs_oid *from,
                                 const memfs_oid *to, plan **ret, memfs_error *err);
/* The same of everything that `to` has, of which at most max_bytes are held: else ELIMIT. */
MEMFS_CHECK memfs_code plan_make_small(home *h, agent *a, repo *r, const memfs_oid *to,
                                       uint64_t max_bytes, plan **ret, memfs_error *err);
void plan_free(plan *p);
void plan_freep(plan **p);

/*
 * The tip that the servers share (NULL: none) when the plan is applied, where it is not what the
 * plan starts from: with all rows made anew.
 */
void plan_expect(plan *p, const memfs_oid *tip);

/*
 * The versions of the commits that the plan steps over go with its rows (past.h), where they can be
 * listed soon; of an agent whose versions go up to where the plan starts from.  r: as plan_make's.
 * Nothing is done where it starts from nothing.
 */
void plan_follow(home *h, const agent *a, repo *r, plan *p);

/* reading.  Rows have no times before plan_births. */
size_t plan_n_rows(const plan *p);
const block_row *plan_row(const plan *p, size_t i, row_fault *ret_fault);

/* Is it UTF-8, and does the strict policy take each of its names?  Others are no rows. */
bool path_has_good_names(const policy *strict, memfs_str path);
/* The same; EDENIED says which name it is, and why. */
MEMFS_CHECK memfs_code path_names(const policy *strict, memfs_str path, memfs_error *err);

/* Does a file at this path become a block, and of which label? */
bool plan_label(home *h, memfs_str path, memfs_str *ret_label);

/* changing, under the agent's lock */
/*
 * Dates the rows; labels that were never seen are born now, unless as_it_is (then created_at is 0).
 */
MEMFS_CHECK memfs_code plan_births(home *h, agent *a, plan *p, bool as_it_is, memfs_error *err);
/* Births, then rows and tip in one transaction.  ECONFLICT: the cache is not at `from`. */
MEMFS_CHECK memfs_code plan_apply(home *h, agent *a, plan *p, materialise_result *ret,
                                  memfs_error *err);

#endif
