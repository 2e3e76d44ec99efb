#include "store/merge_int.h"

#include "base/mem.h"
#include "store/history.h"

#include <stdlib.h>

/*
 * Two commits into one (merge_int.h says which file does what).
 *
 * Everything in the merge commit comes from its parents: their order is that of their ids, the date
 * the later of theirs, the identity fixed, the message made of ids and notes.  So whoever merges
 * the same two commits, in whatever order, makes the same commit, and two machines that did so are
 * done.
 */

#define MAX_COUNT 10000
#define SECONDS_2100 4102444800

memfs_code merge_relate(repo *r, const memfs_oid *a, const memfs_oid *b, merge_relation *ret,
                        size_t *ret_n_ahead, size_t *ret_n_behind, memfs_error *err)
{
    size_t n_ahead = 0, n_behind = 0;
    merge_origin origin = { .is_related = true };
    git_oid one, two;
    int number = 0;
    memfs_code rc = MEMFS_OK;

    repo_git_oid(a, &one);
    repo_git_oid(b, &two);
    if (!oid_equal(a, b))
        number = git_graph_ahead_behind(&n_ahead, &n_behind, r->view, &one, &two);
    if (number < 0) {
        store_fail_git(err, number, "could not compare two commits");
        return err->code = err->code == MEMFS_ENOTFOUND ? MEMFS_ECORRUPT : err->code;
    }
    *ret = n_ahead == 0 && n_behind == 0 ? MERGE_EQUAL
           : n_behind == 0               ? MERGE_AHEAD
           : n_ahead == 0                ? MERGE_BEHIND
                                         : MERGE_DIVERGED;
    if (*ret == MERGE_DIVERGED)
        rc = merge_find_relation(r, a, b, &origin.is_related, err);
    if (!origin.is_related)
        *ret = MERGE_UNRELATED;
    if (ret_n_ahead != NULL)
        *ret_n_ahead = n_ahead < MAX_COUNT ? n_ahead : MAX_COUNT;
    if (ret_n_behind != NULL)
        *ret_n_behind = n_behind < MAX_COUNT ? n_behind : MAX_COUNT;
    return rc;
}

/* ---- the merge commit ---- */

/* Order and date; the sides' trees in the same order. */
typedef struct parents {
    memfs_oid id[2], tree[2];
    int64_t time_s;
} parents;

static memfs_code read_parents(repo *r, const memfs_oid *a, const memfs_oid *b, parents *ret,
                               memfs_error *err)
{
    bool is_swapped = memcmp(a->id, b->id, sizeof(a->id)) > 0;
    memfs_code rc = MEMFS_OK;

    *ret = (parents){ .id = { is_swapped ? *b : *a, is_swapped ? *a : *b } };
    for (int i = 0; rc == MEMFS_OK && i < 2; i++) {
        _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;

        rc = repo_commit_info(r, &ret->id[i], &info, err);
        if (rc < 0)
            break;
        ret->tree[i] = info.tree;
        if (info.committer_time_s > ret->time_s)
            ret->time_s = info.committer_time_s;
    }
    if (ret->time_s >= SECONDS_2100) /* what no policy would take (memory/policy.h) */
        ret->time_s = SECONDS_2100 - 1;
    return rc;
}

static memfs_code write_commit(repo *r, const parents *p, const memfs_oid *tree,
                               merge_result *m, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(OBJECT_MAX_COMMIT_BYTES);
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(tree, hex);
    buf_printf(&text, "tree %s\n", hex);
    for (int i = 0; i < 2; i++) {
        oid_hex(&p->id[i], hex);
        buf_printf(&text, "parent %s\n", hex);
    }
    buf_printf(&text, "author memfs <memfs@localhost> %lld +0000\n", (long long)p->time_s);
    buf_printf(&text, "committer memfs <memfs@localhost> %lld +0000\n\n", (long long)p->time_s);
    merge_message(&p->id[0], &p->id[1], m, &text);
    if (buf_check(&text, "the message of the merge", err) < 0)
        return err->code;
    return merge_write(r, GIT_OBJECT_COMMIT, buf_str(&text), &m->commit, err);
}

static memfs_code make_merge(repo *r, const parents *p, const merge_origin *origin,
                             merge_result *m, memfs_error *err)
{
    memfs_oid tree;
    memfs_code rc;

    m->is_merge = true;
    m->is_unrelated = !origin->is_related;
    rc = merge_three(r, origin->is_related ? &origin->tree : NULL, &p->tree[0], &p->tree[1], &tree,
                     m, err);
    return rc == MEMFS_OK ? write_commit(r, p, &tree, m, err) : rc;
}

memfs_code merge_commits(repo *r, const memfs_oid *a, const memfs_oid *b, merge_result *ret,
                         memfs_error *err)
{
    merge_origin origin = { .is_related = true, .has_container = true, .container = *a };
    parents p;
    memfs_code rc;

    *ret = (merge_result)MERGE_RESULT_INIT;
    rc = read_parents(r, a, b, &p, err);
    if (rc == MEMFS_OK && !oid_equal(a, b))
        rc = merge_find_origin(r, &p.id[0], &p.id[1], &origin, err);
    if (rc < 0)
        return rc;
    ret->commit = origin.container;
    if (!origin.has_container)
        rc = make_merge(r, &p, &origin, ret, err);
    if (rc < 0)
        merge_result_dispose(ret);
    return rc;
}

memfs_code merge_trees(repo *r, const memfs_oid *base_tree, const memfs_oid *a_tree,
                       const memfs_oid *b_tree, memfs_oid *ret_tree, merge_result *notes,
                       memfs_error *err)
{
    memfs_code rc;

    if (notes != NULL)
        *notes = (merge_result)MERGE_RESULT_INIT;
    rc = merge_three(r, base_tree, a_tree, b_tree, ret_tree, notes, err);
    if (rc < 0 && notes != NULL)
        merge_result_dispose(notes);
    return rc;
}

memfs_code merge_notes_of(repo *r, const memfs_oid *commit, merge_result *ret, memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    memfs_code rc;

    *ret = (merge_result)MERGE_RESULT_INIT;
    rc = repo_commit_info(r, commit, &info, err);
    if (rc < 0)
        return rc;
    ret->commit = *commit;
    if (info.n_parents == 2) /* what a person wrote looks like it only by chance */
        merge_message_read(info.message, ret);
    return MEMFS_OK;
}
