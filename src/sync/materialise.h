/*
 * materialise.h - from a ref move to rows: the only place that feeds the cache (design 8).
 *
 * The old tree (the cache's synced tip) against the new one by object id; only what differs is
 * read, parsed and written, in one transaction with the new tip.  Deletes and renames follow, the
 * last file too (K2).  One bad file spoils its own row only (K6).
 *
 * Thread: any, under the agent's lock.
 */
#ifndef MEMFS_SYNC_MATERIALISE_H
#define MEMFS_SYNC_MATERIALISE_H

#include "sync/home.h"

typedef struct materialise_result {
    memfs_oid tip;
    size_t n_changed; /* rows written */
    size_t n_removed;
    size_t n_problems; /* rows of the written ones that carry a problem */
} materialise_result;

/*
 * Brings the cache to the agent's tip, whatever it holds now.  No change writes nothing (K7).  One that
 * is deleted has no rows, and stays so.
 */
MEMFS_CHECK memfs_code materialise_agent(home *h, agent *a, materialise_result *ret,
                                         memfs_error *err);
/*
 * Where servers share the database also ECONFLICT: the shared tip is not ours and does not lead to
 * it (follow.h).
 *
 * The same from nothing: all rows are dropped and made anew in one transaction. */
MEMFS_CHECK memfs_code materialise_rebuild(home *h, agent *a, materialise_result *ret,
                                           memfs_error *err);
/*
 * A purge where servers share the database: the shared tip from `from` to `to`, which need not descend
 * from it, with all rows made anew.  ECONFLICT: it is not at `from`, and nothing was changed.
 */
MEMFS_CHECK memfs_code materialise_replace(home *h, agent *a, const memfs_oid *from,
                                           const memfs_oid *to, materialise_result *ret,
                                           memfs_error *err);
/* The same whatever the shared tip is: an operator's decision. */
MEMFS_CHECK memfs_code materialise_overrule(home *h, agent *a, materialise_result *ret,
                                            memfs_error *err);

/*
 * The rows of these labels anew, as what the state knows of them changed; the others stay.  Labels
 * without a file are left out.  A cache that is not at the tip is brought there.
 */
MEMFS_CHECK memfs_code materialise_labels(home *h, agent *a, const memfs_str *labels, size_t n,
                                          materialise_result *ret, memfs_error *err);

/*
 * The row that f gives for one file by itself, without cache, tree or births (its times are 0), for
 * those who want to know what must be there.  blob_bytes may be any bytes.  Slices of *ret live in
 * scratch.
 */
MEMFS_CHECK memfs_code materialise_row(memfs_str agent_id, memfs_str path, memfs_str label,
                                       const memfs_oid *blob, memfs_str blob_bytes,
                                       memfs_buf *scratch, block_row *ret, memfs_error *err);

#endif
