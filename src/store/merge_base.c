#include "store/merge_int.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * Where two commits parted.
 *
 * Usually that is one commit.  After criss-cross merges there are several, none better than
 * another; they are merged by the same rules into a tree that no commit has, in the order of their
 * ids:
 *
 *     tree(b0, b1, b2) = merge(merge(b0, b1), b2), each over the tree where what is merged so far and
 *                        the next one parted
 *
 * which may be such a tree again.  Histories can be built that make this explode, so all of it may
 * cost MAX_MERGES; after that the first of several bases (by id) stands for all of them.  It is a
 * common ancestor as good as any, and the rule is a function of the graph like everything else
 * here.
 */

#define MAX_MERGES 64
#define MAX_DEPTH 8

typedef struct virtual {
    repo *r;
    unsigned n_left;
} virtual;

typedef struct bases {
    memfs_oid *at;
    size_t n; /* 0: unrelated */
} bases;

static void bases_dispose(bases *b)
{
    free(b->at);
}

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(memfs_oid));
}

/* The best common ancestors of the first with any of the others, sorted. */
static memfs_code find_bases(repo *r, const memfs_oid *of, size_t n, bases *ret, memfs_error *err)
{
    git_oid *input = mem_alloc(n * sizeof(*input));
    git_oidarray found = { NULL, 0 };
    int rc;

    *ret = (bases){ NULL, 0 };
    for (size_t i = 0; i < n; i++)
        repo_git_oid(&of[i], &input[i]);
    rc = git_merge_bases_many(&found, r->view, n, input);
    free(input);
    /* also a missing parent is "not found", but that is no answer */
    if (rc == GIT_ENOTFOUND && git_error_last() != NULL &&
        git_error_last()->klass == GIT_ERROR_MERGE)
        return MEMFS_OK;
    if (rc < 0) {
        store_fail_git(err, rc, "could not find where two commits parted");
        return err->code = err->code == MEMFS_ENOTFOUND ? MEMFS_ECORRUPT : err->code;
    }
    ret->at = mem_alloc((found.count + 1) * sizeof(*ret->at));
    ret->n = found.count;
    for (size_t i = 0; i < found.count; i++)
        repo_memfs_oid(&found.ids[i], &ret->at[i]);
    git_oidarray_dispose(&found);
    qsort(ret->at, ret->n, sizeof(*ret->at), compare_ids);
    return MEMFS_OK;
}

/* Recursion is bounded by MAX_DEPTH, and the work by n_left. */
static memfs_code tree_of_bases(virtual *v, const bases *b, unsigned depth, memfs_oid *ret,
                                memfs_error *err)
{
    memfs_oid *heads = NULL;
    memfs_code rc = repo_tree_of_commit(v->r, &b->at[0], ret, err);

    if (rc < 0 || b->n == 1 || depth == MAX_DEPTH)
        return rc;
    heads = mem_alloc(b->n * sizeof(*heads));
    for (size_t i = 1; rc == MEMFS_OK && i < b->n && v->n_left > 0; i++) {
        _cleanup_(bases_dispose) bases below = { NULL, 0 };
        memfs_oid base, next, so_far = *ret;

        v->n_left--;
        heads[0] = b->at[i];
        memcpy(&heads[1], b->at, i * sizeof(*heads));
        rc = repo_tree_of_commit(v->r, &b->at[i], &next, err);
        if (rc == MEMFS_OK)
            rc = find_bases(v->r, heads, i + 1, &below, err);
        if (rc == MEMFS_OK && below.n > 0)
            rc = tree_of_bases(v, &below, depth + 1, &base, err);
        if (rc == MEMFS_OK)
            rc = merge_three(v->r, below.n > 0 ? &base : NULL, &so_far, &next, ret, NULL, err);
    }
    free(heads);
    return rc;
}

memfs_code merge_find_origin(repo *r, const memfs_oid *a, const memfs_oid *b, merge_origin *ret,
                             memfs_error *err)
{
    _cleanup_(bases_dispose) bases found = { NULL, 0 };
    memfs_oid both[2] = { *a, *b };
    virtual v = { r, MAX_MERGES };
    memfs_code rc;

    *ret = (merge_origin){ false };
    rc = find_bases(r, both, 2, &found, err);
    if (rc < 0 || found.n == 0)
        return rc;
    ret->is_related = true;
    if (found.n == 1 && (oid_equal(&found.at[0], a) || oid_equal(&found.at[0], b))) {
        ret->has_container = true;
        ret->container = oid_equal(&found.at[0], a) ? *b : *a;
        return MEMFS_OK;
    }
    return tree_of_bases(&v, &found, 0, &ret->tree, err);
}

memfs_code merge_find_relation(repo *r, const memfs_oid *a, const memfs_oid *b,
                               bool *ret_is_related, memfs_error *err)
{
    _cleanup_(bases_dispose) bases found = { NULL, 0 };
    memfs_oid both[2] = { *a, *b };
    memfs_code rc = find_bases(r, both, 2, &found, err);

    *ret_is_related = found.n > 0;
    return rc;
}
