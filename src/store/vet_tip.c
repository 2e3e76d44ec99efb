#include "store/vet.h"

#include "store/vet_int.h"

/*
 * What the tip has beyond the first of the known trees, weighed: a bomb is refused by its numbers.
 */
typedef struct arrival {
    vet *t;
    uint64_t n_entries, bytes;
} arrival;

static memfs_code weigh(const tree_change *c, void *ctx, memfs_error *err)
{
    arrival *a = ctx;
    tree_entry e = { .mode = c->new_mode, .name = MEMFS_STR("?"), .id = c->new_id };
    facts sum = { 0 };
    uint64_t size = 0;
    memfs_code rc;

    if (!c->has_new)
        return MEMFS_OK;
    rc = repo_entry_is_folder(&e) ? vet_sum(a->t, &e.id, &sum, err)
                                  : vet_file_bytes(a->t, MEMFS_STR(""), &e, &size, err);
    a->n_entries = vet_add(a->n_entries, 1 + sum.n_entries);
    a->bytes = vet_add(a->bytes, size + sum.bytes);
    return rc;
}

static memfs_code judge_totals(vet *t, const memfs_oid *tree, const memfs_oid *known,
                               memfs_error *err)
{
    arrival a = { .t = t };
    memfs_code rc;

    vet_unwind(t);
    buf_clear(&t->path);
    t->judges = false;
    rc = repo_diff_trees(t->r, known, tree, t->p, weigh, &a, err);
    return rc == MEMFS_OK ? policy_totals(t->p, a.n_entries, a.bytes, err) : rc;
}

static memfs_code check_is_commit(repo *r, const memfs_oid *tip, memfs_error *err)
{
    git_object_t type;
    uint64_t bytes;
    memfs_code rc = repo_header(r, tip, &type, &bytes, err);

    if (rc == MEMFS_OK && type != GIT_OBJECT_COMMIT)
        return memfs_fail(err, MEMFS_EDENIED, "the remote's branch does not name a commit");
    if (rc == MEMFS_OK && bytes > OBJECT_MAX_COMMIT_BYTES)
        return memfs_fail(err, MEMFS_EDENIED, "a commit of %llu bytes is too large",
                          (unsigned long long)bytes);
    return rc;
}

memfs_code vet_tip_with(repo *r, const incoming_vetting *v, const memfs_oid *known,
                        size_t n_known, memfs_error *err)
{
    _cleanup_(vet_dispose) vet t;
    memfs_oid tree, trees[VET_TIP_MAX_KNOWN];
    size_t n = 0;
    memfs_code rc;

    vet_init(&t, r, v);
    rc = check_is_commit(r, v->tip, err);
    if (rc == MEMFS_OK)
        rc = repo_tree_of_commit(r, v->tip, &tree, err);
    for (size_t i = 0; rc == MEMFS_OK && i < n_known && n < VET_TIP_MAX_KNOWN; i++)
        if (!oid_is_zero(&known[i]))
            rc = repo_tree_of_commit(r, &known[i], &trees[n++], err);
    if (rc == MEMFS_OK)
        rc = vet_tree(&t, &tree, trees, n, err);
    if (rc == MEMFS_OK)
        rc = judge_totals(&t, &tree, n > 0 ? &trees[0] : NULL, err);
    return rc;
}

memfs_code vet_tip(repo *r, const memfs_oid *tip, const memfs_oid *known, size_t n_known,
                   const policy *p, memfs_error *err)
{
    const incoming_vetting v = { .base = tip, .tip = tip, .policy = p };

    return vet_tip_with(r, &v, known, n_known, err);
}
