#include "store/lost.h"

#include "base/mem.h"
#include "store/store_int.h"

#include <stdlib.h>

/*
 * Two walks: `tip` without `kept`, and `kept` without `tip`.  Of the second only the changes count,
 * as one hash each; those of the first that are among them are not lost.
 *
 * The walks and the diff are libgit2's.  Its tree iterator keeps its frames on the heap, so a deep
 * tree of a hostile remote costs no stack (T16); what would cost time is bounded: commits by
 * LOST_MAX_COMPARED, bytes by the buffer that a change is written into.  A change that is larger
 * has no hash, and equals nothing.
 */

#define MAX_COUNTED 10000
#define MAX_CHANGE_BYTES (16u << 20)

typedef struct oids {
    memfs_oid *at;
    size_t n, cap;
} oids;

static void oids_dispose(oids *v)
{
    free(v->at);
}

static void oids_add(oids *v, const memfs_oid *id)
{
    if (v->n == v->cap) {
        v->cap = v->cap ? v->cap * 2 : 64;
        v->at = mem_realloc(v->at, v->cap, sizeof(*v->at));
    }
    v->at[v->n++] = *id;
}

static void walk_freep(git_revwalk **w)
{
    git_revwalk_free(*w);
}

static int point(git_revwalk *walk, int (*how)(git_revwalk *, const git_oid *),
                 const memfs_oid *ids, size_t n)
{
    int number = 0;

    for (size_t i = 0; i < n && number == 0; i++) {
        git_oid oid;

        repo_git_oid(&ids[i], &oid);
        number = how(walk, &oid);
    }
    return number;
}

/* Commits that `from` reaches and `without` does not, newest first. */
static memfs_code reach(repo *r, const memfs_oid *from, size_t n_from, const memfs_oid *without,
                        size_t n_without, oids *ret, memfs_error *err)
{
    _cleanup_(walk_freep) git_revwalk *walk = NULL;
    int number = git_revwalk_new(&walk, r->view);
    memfs_oid id;
    git_oid oid;

    if (number == 0)
        number = git_revwalk_sorting(walk, GIT_SORT_TOPOLOGICAL | GIT_SORT_TIME);
    if (number == 0)
        number = point(walk, git_revwalk_push, from, n_from);
    if (number == 0)
        number = point(walk, git_revwalk_hide, without, n_without);
    while (number == 0 && ret->n < MAX_COUNTED) {
        number = git_revwalk_next(&oid, walk);
        if (number == GIT_ITEROVER)
            return MEMFS_OK;
        if (number == 0) {
            repo_memfs_oid(&oid, &id);
            oids_add(ret, &id);
        }
    }
    return number == 0 ? MEMFS_OK : store_fail_git(err, number, "could not walk the history");
}

/* changes */

static int add_line(const git_diff_delta *delta, const git_diff_hunk *hunk,
                    const git_diff_line *line, void *ctx)
{
    memfs_buf *out = ctx;

    (void)delta;
    (void)hunk;
    buf_putc(out, line->origin);
    buf_add(out, line->content, line->content_len);
    return out->too_big ? GIT_EUSER : 0;
}

static int add_file(const git_diff_delta *delta, float progress, void *ctx)
{
    memfs_buf *out = ctx;

    (void)progress;
    buf_printf(out, "%c%o %o", 0, delta->old_file.mode, delta->new_file.mode);
    buf_add(out, delta->new_file.path, strlen(delta->new_file.path) + 1);
    return out->too_big ? GIT_EUSER : 0;
}

typedef struct pair {
    git_commit *commit, *parent;
    git_tree *old_tree, *new_tree;
    git_diff *diff;
} pair;

static void pair_dispose(pair *p)
{
    git_diff_free(p->diff);
    git_tree_free(p->old_tree);
    git_tree_free(p->new_tree);
    git_commit_free(p->parent);
    git_commit_free(p->commit);
}

/* Opens a commit against its parent; *ret_single says that it is no merge. */
static int pair_open(repo *r, const memfs_oid *id, pair *ret, bool *ret_single)
{
    git_diff_options options = GIT_DIFF_OPTIONS_INIT;
    git_oid oid;
    int number;

    options.context_lines = 0;
    options.flags = GIT_DIFF_FORCE_TEXT | GIT_DIFF_SKIP_BINARY_CHECK;
    repo_git_oid(id, &oid);
    number = git_commit_lookup(&ret->commit, r->view, &oid);
    if (number < 0)
        return number;
    *ret_single = git_commit_parentcount(ret->commit) <= 1;
    if (!*ret_single)
        return 0;
    number = git_commit_tree(&ret->new_tree, ret->commit);
    if (number == 0 && git_commit_parentcount(ret->commit) == 1) {
        number = git_commit_parent(&ret->parent, ret->commit, 0);
        if (number == 0)
            number = git_commit_tree(&ret->old_tree, ret->parent);
    }
    if (number == 0)
        number = git_diff_tree_to_tree(&ret->diff, r->view, ret->old_tree, ret->new_tree, &options);
    return number;
}

typedef enum change_kind { CHANGE_NONE, CHANGE_HASHED, CHANGE_UNKNOWN } change_kind;

/* What the commit does, as one hash.  UNKNOWN: a merge, too large, or not readable. */
static change_kind change_of(repo *r, const memfs_oid *id, memfs_oid *ret)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_CHANGE_BYTES);
    _cleanup_(pair_dispose) pair p = { NULL, NULL, NULL, NULL, NULL };
    bool is_single = false;
    git_oid hash;

    if (pair_open(r, id, &p, &is_single) < 0 || !is_single)
        return CHANGE_UNKNOWN;
    if (git_diff_num_deltas(p.diff) == 0)
        return CHANGE_NONE;
    if (git_diff_foreach(p.diff, add_file, NULL, NULL, add_line, &text) != 0 ||
        git_odb_hash(&hash, text.ptr, text.len, GIT_OBJECT_BLOB) < 0)
        return CHANGE_UNKNOWN;
    repo_memfs_oid(&hash, ret);
    return CHANGE_HASHED;
}

static int compare_oids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(memfs_oid));
}

static void changes_of(repo *r, const oids *commits, oids *ret)
{
    memfs_oid change;

    for (size_t i = 0; i < commits->n; i++)
        if (change_of(r, &commits->at[i], &change) == CHANGE_HASHED)
            oids_add(ret, &change);
    if (ret->n > 0)
        qsort(ret->at, ret->n, sizeof(*ret->at), compare_oids);
}

static bool is_lost(repo *r, const memfs_oid *id, const oids *elsewhere)
{
    memfs_oid change;

    switch (change_of(r, id, &change)) {
    case CHANGE_NONE: return false;
    case CHANGE_HASHED:
        return elsewhere->n == 0 ||
               bsearch(&change, elsewhere->at, elsewhere->n, sizeof(change), compare_oids) == NULL;
    default: return true;
    }
}

memfs_code lost_commits(repo *r, const memfs_oid *tip, const memfs_oid *kept, size_t n_kept,
                        memfs_oid *ret, size_t max, size_t *ret_n, memfs_error *err)
{
    _cleanup_(oids_dispose) oids ours = { NULL, 0, 0 }, theirs = { NULL, 0, 0 };
    _cleanup_(oids_dispose) oids elsewhere = { NULL, 0, 0 };
    memfs_code rc = reach(r, tip, 1, kept, n_kept, &ours, err);
    bool is_compared;
    size_t n = 0;

    if (rc == MEMFS_OK && ours.n > 0)
        rc = reach(r, kept, n_kept, tip, 1, &theirs, err);
    if (rc < 0)
        return rc;
    is_compared = ours.n <= LOST_MAX_COMPARED && theirs.n <= LOST_MAX_COMPARED;
    if (is_compared)
        changes_of(r, &theirs, &elsewhere);
    for (size_t i = 0; i < ours.n; i++) {
        if (is_compared && !is_lost(r, &ours.at[i], &elsewhere))
            continue;
        if (n < max)
            ret[n] = ours.at[i];
        n++;
    }
    *ret_n = n;
    return MEMFS_OK;
}
