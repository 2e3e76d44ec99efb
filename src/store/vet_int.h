/*
 * vet_int.h - between vet.c, which judges a push as a whole, vet_tip.c and vet_history.c, which
 * judge what was fetched, and vet_tree.c, which judges one tree.
 */
#ifndef MEMFS_STORE_VET_INT_H
#define MEMFS_STORE_VET_INT_H

#include "store/incoming_int.h"
#include "store/oidmap.h"

#define VET_MAX_KNOWN 4 /* trees to compare with: base and up to three parents */

/* A whole folder, everything below it included; counts stop growing far above any limit. */
typedef struct facts {
    uint64_t n_entries, bytes;
    uint32_t depth;     /* of folders below it */
    uint32_t path_len;  /* longest path below it */
    bool is_judged;     /* by policy; false: only summed up */
} facts;

typedef struct vet {
    repo *r;
    const incoming_vetting *v;
    const policy *p;
    memfs_oid base_tree;
    memfs_buf path;
    struct beside *besides; /* vet_tree.c */
    size_t n_besides;
    struct whole *wholes;
    size_t n_wholes;
    oidmap by_id; /* tree -> place in memo */
    facts *memo;
    size_t n_memo, cap_memo;
    uint64_t work, max_work; /* entries looked at */
    bool judges; /* false while only totals are wanted */
    bool skips_files; /* nor their sizes: only how much there is and how deep */
} vet;

void vet_init(vet *t, repo *r, const incoming_vetting *v);
void vet_dispose(vet *t);
/* Leaves every folder that is open, after a failure. */
void vet_unwind(vet *t);

/*
 * Judges what `tree` holds and none of the known trees holds at the same path.  One of the known
 * may be the tree itself.
 */
MEMFS_CHECK memfs_code vet_tree(vet *t, const memfs_oid *tree, const memfs_oid *known,
                                size_t n_known, memfs_error *err);
/* Sums up the folder whose path (with a final '/', or empty) is in t->path; judges it if
 * t->judges. */
MEMFS_CHECK memfs_code vet_sum(vet *t, const memfs_oid *id, facts *ret, memfs_error *err);
/* Size of a file, by its header.  Submodules (under a lenient policy) have none. */
MEMFS_CHECK memfs_code vet_file_bytes(vet *t, memfs_str folder, const tree_entry *e, uint64_t *ret,
                                      memfs_error *err);
MEMFS_CHECK memfs_code vet_banned(const incoming_vetting *v, const memfs_oid *id,
                                  memfs_error *err);
/* Every object of a pack: none banned, none too large to be loaded. */
MEMFS_CHECK memfs_code vet_pack(repo *r, const char *pack_index, const incoming_vetting *v,
                                memfs_error *err);
/* As vet_tip, with the banned objects of v; v's base is not looked at. */
MEMFS_CHECK memfs_code vet_tip_with(repo *r, const incoming_vetting *v, const memfs_oid *known,
                                    size_t n_known, memfs_error *err);
/*
 * Every commit that v's tip has and none of the known has, within bounds far beyond the policy's:
 * vet_history.c.
 */
MEMFS_CHECK memfs_code vet_history(repo *r, const incoming_vetting *v, const memfs_oid *known,
                                   size_t n_known, memfs_error *err);
/* Counts do not overflow, they stop far above any limit. */
static inline uint64_t vet_add(uint64_t a, uint64_t b)
{
    const uint64_t cap = UINT64_MAX / 4;

    return a + b > cap ? cap : a + b;
}

#endif
