#include "store/vet_int.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * What a push must fulfil beyond what git has checked, judged in the quarantine:
 *
 *   1. objects   none is banned; no commit, tree or tag is too large to be loaded (T13).  Every
 *                object of the pack is looked at, also what no commit reaches: protocol v2 would
 *                serve it.
 *   2. history   the tip is a commit; base is reachable from it; dates are sane.  base is
 *                reachable exactly if it is the tip or the parent of a new commit, so this costs
 *                nothing more than listing the new commits.  Nearly always each has one parent,
 *                and then the list is the way from the tip down to base, whatever dates clients
 *                wrote (H7).  libgit2's walk goes by dates and sees no end before the root when
 *                they are all equal or go backward; it is asked only about the rest: merges, and
 *                pushes that will be refused.
 *   3. trees     every new commit against its parents and against base: only what is in none of
 *                them at the same path is judged, by policy.c.  So what an import brought along
 *                once does not stop later pushes, and the cost follows the change (T11).
 *   4. totals    of the tip, from those of base and the difference (T14, T15).
 */

#define MAX_NEW_COMMITS 10000

/* 1. objects */

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(memfs_oid));
}

memfs_code vet_banned(const incoming_vetting *v, const memfs_oid *id, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];

    if (v->n_banned == 0 ||
        bsearch(id, v->banned, v->n_banned, sizeof(*v->banned), compare_ids) == NULL)
        return MEMFS_OK;
    oid_hex(id, hex);
    return memfs_fail(err, MEMFS_EDENIED,
                      "object %s was purged from this memory; rebase your commits on its new "
                      "history, without it",
                      hex);
}

typedef struct object_check {
    repo *r;
    const incoming_vetting *v;
    memfs_error *err;
} object_check;

static memfs_code check_object(repo *r, const incoming_vetting *v, const memfs_oid *id,
                               memfs_error *err)
{
    memfs_code rc = vet_banned(v, id, err);
    git_object_t type;
    uint64_t bytes;

    if (rc == MEMFS_OK)
        rc = repo_header(r, id, &type, &bytes, err);
    if (rc < 0 || type == GIT_OBJECT_BLOB)
        return rc;
    if (bytes > (type == GIT_OBJECT_TREE ? OBJECT_MAX_TREE_BYTES : OBJECT_MAX_COMMIT_BYTES))
        return memfs_fail(err, MEMFS_EDENIED, "a %s of %llu bytes is too large",
                          type == GIT_OBJECT_TREE ? "folder" : "commit",
                          (unsigned long long)bytes);
    return MEMFS_OK;
}

static int check_packed(const git_oid *oid, void *ctx)
{
    object_check *c = ctx;
    memfs_oid id;

    repo_memfs_oid(oid, &id);
    return check_object(c->r, c->v, &id, c->err) < 0 ? GIT_EUSER : 0;
}

memfs_code vet_pack(repo *r, const char *pack_index, const incoming_vetting *v, memfs_error *err)
{
    object_check c = { r, v, err };
    git_odb_backend *pack;
    git_odb *odb = NULL;
    int rc;

    err->code = MEMFS_OK;
    rc = git_odb_new(&odb);
    if (rc == 0)
        rc = git_odb_backend_one_pack(&pack, pack_index);
    if (rc == 0)
        rc = git_odb_add_backend(odb, pack, 1);
    if (rc == 0)
        rc = git_odb_foreach(odb, check_packed, &c);
    git_odb_free(odb);
    if (rc == 0 || err->code != MEMFS_OK)
        return err->code;
    return store_fail_git(err, rc, "could not list the objects that came");
}

/* 2. history */

typedef struct commit_list {
    git_oid *at;
    size_t n, cap;
} commit_list;

static void commit_list_dispose(commit_list *list)
{
    free(list->at);
}

static memfs_code commit_list_add(commit_list *list, const git_oid *id, memfs_error *err)
{
    if (list->n == MAX_NEW_COMMITS)
        return memfs_fail(err, MEMFS_EDENIED, "more than %d new commits; push in smaller steps",
                          MAX_NEW_COMMITS);
    if (list->n == list->cap) {
        list->cap = list->cap ? list->cap * 2 : 16;
        list->at = mem_realloc(list->at, list->cap, sizeof(*list->at));
    }
    list->at[list->n++] = *id;
    return MEMFS_OK;
}

static void git_commit_freep(git_commit **commit)
{
    git_commit_free(*commit);
}

/* From tip down to base, each with one parent.  False: it is not as simple as that. */
static bool list_line(const vet *t, const git_oid *tip, const git_oid *base, commit_list *list)
{
    git_oid at = *tip;
    memfs_error ignored;

    while (!git_oid_equal(&at, base)) {
        _cleanup_(git_commit_freep) git_commit *commit = NULL;

        if (commit_list_add(list, &at, &ignored) < 0 ||
            git_commit_lookup(&commit, t->r->view, &at) < 0 || git_commit_parentcount(commit) != 1)
            return false;
        at = *git_commit_parent_id(commit, 0);
    }
    return true;
}

static memfs_code collect(git_revwalk *walk, commit_list *list, memfs_error *err)
{
    memfs_code code = MEMFS_OK;
    git_oid id;
    int rc;

    while (code == MEMFS_OK && (rc = git_revwalk_next(&id, walk)) == 0)
        code = commit_list_add(list, &id, err);
    if (code < 0 || rc == GIT_ITEROVER)
        return code;
    return store_fail_git(err, rc, "could not list the commits");
}

static memfs_code list_graph(const vet *t, const git_oid *tip, const git_oid *base,
                             commit_list *list, memfs_error *err)
{
    git_revwalk *walk = NULL;
    memfs_code code;
    int rc;

    rc = git_revwalk_new(&walk, t->r->view);
    if (rc == 0)
        rc = git_revwalk_push(walk, tip);
    if (rc == 0)
        rc = git_revwalk_hide(walk, base);
    code = rc == 0 ? collect(walk, list, err)
                   : store_fail_git(err, rc, "could not list the commits");
    git_revwalk_free(walk);
    return code;
}

/* What tip has and base has not; newest first. */
static memfs_code list_new(const vet *t, commit_list *list, memfs_error *err)
{
    git_oid base, tip;

    repo_git_oid(t->v->base, &base);
    repo_git_oid(t->v->tip, &tip);
    if (list_line(t, &tip, &base, list))
        return MEMFS_OK;
    list->n = 0;
    return list_graph(t, &tip, &base, list, err);
}

static memfs_code check_tip(const vet *t, memfs_error *err)
{
    git_object_t type;
    uint64_t bytes;
    memfs_code rc = repo_header(t->r, t->v->tip, &type, &bytes, err);

    if (rc == MEMFS_ECORRUPT)
        return memfs_fail(err, MEMFS_EDENIED, "the new tip of the branch was not sent");
    if (rc == MEMFS_OK && type != GIT_OBJECT_COMMIT)
        return memfs_fail(err, MEMFS_EDENIED, "the new tip of the branch is no commit");
    return rc;
}

static memfs_code look_up(const vet *t, const git_oid *id, git_commit **ret, memfs_error *err)
{
    int rc = git_commit_lookup(ret, t->r->view, id);

    return rc == 0 ? MEMFS_OK : store_fail_git(err, rc, "could not read a new commit");
}

static memfs_code check_history(vet *t, const commit_list *list, memfs_error *err)
{
    bool meets_base = false;
    git_oid base;

    repo_git_oid(t->v->base, &base);
    for (size_t i = 0; i < list->n; i++) {
        _cleanup_(git_commit_freep) git_commit *commit = NULL;
        memfs_code rc = look_up(t, &list->at[i], &commit, err);

        if (rc == MEMFS_OK)
            rc = policy_commit_dates(t->p, git_commit_author(commit)->when.time,
                                     git_commit_committer(commit)->when.time, err);
        if (rc < 0)
            return rc;
        for (unsigned k = 0; k < git_commit_parentcount(commit); k++)
            meets_base = meets_base || git_oid_equal(git_commit_parent_id(commit, k), &base);
    }
    if (!meets_base)
        return memfs_fail(err, MEMFS_EDENIED, "non-fast-forward");
    return MEMFS_OK;
}

static memfs_code judge_commit(vet *t, const git_oid *id, memfs_error *err)
{
    _cleanup_(git_commit_freep) git_commit *commit = NULL;
    memfs_oid known[VET_MAX_KNOWN] = { t->base_tree }, parent, tree;
    memfs_code rc = look_up(t, id, &commit, err);
    unsigned n_parents = rc == MEMFS_OK ? git_commit_parentcount(commit) : 0;
    size_t n_known = 1;

    for (unsigned k = 0; rc == MEMFS_OK && n_known < VET_MAX_KNOWN && k < n_parents; k++) {
        repo_memfs_oid(git_commit_parent_id(commit, k), &parent);
        if (oid_equal(&parent, t->v->base))
            continue;
        rc = repo_tree_of_commit(t->r, &parent, &known[n_known++], err);
    }
    if (rc < 0)
        return rc;
    repo_memfs_oid(git_commit_tree_id(commit), &tree);
    return vet_tree(t, &tree, known, n_known, err);
}

/* 4. totals */

static size_t totals_slot_of(const memfs_oid *tree)
{
    return (size_t)(tree->id[0] << 8 | tree->id[1]) % TOTALS_SLOTS;
}

static bool totals_recall(store *s, const memfs_oid *tree, tree_totals *ret)
{
    const totals_slot *slot = &s->totals[totals_slot_of(tree)];
    bool found;

    pthread_mutex_lock(&s->mutex);
    found = oid_equal(&slot->tree, tree);
    if (found)
        *ret = slot->totals;
    pthread_mutex_unlock(&s->mutex);
    return found;
}

static void totals_remember(store *s, const memfs_oid *tree, const tree_totals *totals)
{
    pthread_mutex_lock(&s->mutex);
    s->totals[totals_slot_of(tree)] = (totals_slot){ *tree, *totals };
    pthread_mutex_unlock(&s->mutex);
}

/* From nothing: every folder below once. */
static memfs_code totals_in_full(vet *t, const memfs_oid *tree, tree_totals *ret, memfs_error *err)
{
    facts sum;
    memfs_code rc;

    vet_unwind(t);
    buf_clear(&t->path);
    t->judges = false;
    rc = vet_sum(t, tree, &sum, err);
    if (rc == MEMFS_OK)
        *ret = (tree_totals){ sum.n_entries, sum.bytes };
    return rc;
}

typedef struct delta {
    vet *t;
    uint64_t entries_in, entries_out, bytes_in, bytes_out;
} delta;

static memfs_code weigh(vet *t, const memfs_oid *id, uint32_t mode, uint64_t *entries,
                        uint64_t *bytes, memfs_error *err)
{
    tree_entry e = { .mode = mode, .name = MEMFS_STR("?"), .id = *id };
    uint64_t size = 0;
    facts sum = { 0 };
    memfs_code rc;

    rc = repo_entry_is_folder(&e) ? vet_sum(t, id, &sum, err)
                                  : vet_file_bytes(t, MEMFS_STR(""), &e, &size, err);
    *entries = vet_add(*entries, 1 + sum.n_entries);
    *bytes = vet_add(*bytes, size + sum.bytes);
    return rc;
}

static memfs_code add_change(const tree_change *c, void *ctx, memfs_error *err)
{
    delta *d = ctx;
    memfs_code rc = MEMFS_OK;

    if (c->has_old)
        rc = weigh(d->t, &c->old_id, c->old_mode, &d->entries_out, &d->bytes_out, err);
    if (rc == MEMFS_OK && c->has_new)
        rc = weigh(d->t, &c->new_id, c->new_mode, &d->entries_in, &d->bytes_in, err);
    return rc;
}

static memfs_code totals_by_delta(vet *t, const memfs_oid *tree, const tree_totals *base,
                                  tree_totals *ret, memfs_error *err)
{
    delta d = { .t = t };
    memfs_code rc;

    buf_clear(&t->path);
    t->judges = false;
    rc = repo_diff_trees(t->r, &t->base_tree, tree, t->p, add_change, &d, err);
    if (rc < 0)
        return rc;
    ret->n_entries = vet_add(base->n_entries, d.entries_in) - d.entries_out;
    ret->bytes = vet_add(base->bytes, d.bytes_in) - d.bytes_out;
    return MEMFS_OK;
}

/* A memory that was over a limit before (an import) may be pushed to as long as it does not grow.
 *  */
static memfs_code check_totals(vet *t, memfs_error *err)
{
    tree_totals base = { 0, 0 }, now;
    memfs_error ignored;
    memfs_oid tree;
    memfs_code rc;
    bool has_base;

    rc = repo_tree_of_commit(t->r, t->v->tip, &tree, err);
    if (rc < 0)
        return rc;
    has_base = totals_recall(t->r->s, &t->base_tree, &base);
    if (!has_base && totals_in_full(t, &t->base_tree, &base, &ignored) == MEMFS_OK) {
        has_base = true;
        totals_remember(t->r->s, &t->base_tree, &base);
    }
    if (!has_base || totals_by_delta(t, &tree, &base, &now, &ignored) < 0)
        rc = totals_in_full(t, &tree, &now, err);
    if (rc == MEMFS_OK && (now.n_entries > base.n_entries || now.bytes > base.bytes))
        rc = policy_totals(t->p, now.n_entries, now.bytes, err);
    if (rc == MEMFS_OK)
        totals_remember(t->r->s, &tree, &now);
    return rc;
}

/* all of it */

static memfs_code judge_push(vet *t, memfs_error *err)
{
    _cleanup_(commit_list_dispose) commit_list list = { NULL, 0, 0 };
    memfs_code rc = check_tip(t, err);

    if (rc == MEMFS_OK)
        rc = list_new(t, &list, err);
    if (rc == MEMFS_OK)
        rc = check_history(t, &list, err);
    if (rc == MEMFS_OK)
        rc = repo_tree_of_commit(t->r, t->v->base, &t->base_tree, err);
    for (size_t i = 0; rc == MEMFS_OK && i < list.n; i++)
        rc = judge_commit(t, &list.at[i], err);
    return rc == MEMFS_OK ? check_totals(t, err) : rc;
}

memfs_code vet_push(repo *view, const char *pack_index, const incoming_vetting *v,
                    memfs_error *err)
{
    _cleanup_(vet_dispose) vet t;
    memfs_code rc = MEMFS_OK;

    vet_init(&t, view, v);
    if (pack_index != NULL)
        rc = vet_pack(view, pack_index, v, err);
    if (rc < 0 || oid_equal(v->tip, v->base))
        return rc;
    return judge_push(&t, err);
}
