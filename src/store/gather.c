#include "store/gather.h"

#include "base/mem.h"
#include "store/store_int.h"

#include <stdlib.h>

memfs_code gather_name(gather_file *file, memfs_error *err)
{
    git_oid id;
    int rc = git_odb_hash(&id, file->content.ptr, file->content.len, GIT_OBJECT_BLOB);

    if (rc < 0)
        return store_fail_git(err, rc, "could not name a file's content");
    repo_memfs_oid(&id, &file->id);
    return MEMFS_OK;
}

/* ---- against a commit ---- */

typedef struct diffing {
    const gather_file *files;
    bool *was_met;
    size_t n, n_differ;
    gather_diff_fn fn;
    void *ctx;
} diffing;

static void differs(diffing *d, memfs_str path, char what)
{
    d->n_differ++;
    if (d->fn != NULL)
        d->fn(path, what, d->ctx);
}

static int compare_path(const void *key, const void *file)
{
    return str_compare(*(const memfs_str *)key, str_of(((const gather_file *)file)->path));
}

/* One file that the commit has. */
static memfs_code meet(const tree_change *c, void *ctx, memfs_error *err)
{
    diffing *d = ctx;
    const gather_file *f =
        d->n > 0 ? bsearch(&c->path, d->files, d->n, sizeof(*f), compare_path) : NULL;

    (void)err;
    if (f == NULL) {
        differs(d, c->path, 'D');
        return MEMFS_OK;
    }
    d->was_met[f - d->files] = true;
    if (!oid_equal(&f->id, &c->new_id))
        differs(d, c->path, 'M');
    return MEMFS_OK;
}

memfs_code gather_diff(repo *r, const memfs_oid *commit, const gather_file *files, size_t n,
                       const policy *p, gather_diff_fn fn, void *ctx, size_t *ret_n,
                       memfs_error *err)
{
    _cleanup_(mem_freep) bool *was_met = mem_alloc((n + 1) * sizeof(*was_met));
    diffing d = { .files = files, .was_met = was_met, .n = n, .fn = fn, .ctx = ctx };
    memfs_code rc = repo_diff(r, NULL, commit, p, meet, &d, err);

    for (size_t i = 0; rc == MEMFS_OK && i < n; i++)
        if (!was_met[i])
            differs(&d, str_of(files[i].path), 'A');
    *ret_n = d.n_differ;
    return rc;
}

/* ---- as a tree ---- */

static void index_freep(git_index **index)
{
    git_index_free(*index);
    *index = NULL;
}

static memfs_code add_file(repo *r, git_index *index, const gather_file *file, memfs_error *err)
{
    git_index_entry e = { .mode = TREE_MODE_FILE, .path = file->path };
    int rc = git_odb_write(&e.id, r->odb, file->content.ptr, file->content.len, GIT_OBJECT_BLOB);

    if (rc < 0)
        return store_fail_git(err, rc, "could not write a file's content");
    if (git_index_add(index, &e) < 0)
        return memfs_fail(err, MEMFS_EINVALID, "'%.200s' is no path for a file", file->path);
    return MEMFS_OK;
}

memfs_code gather_tree(repo *r, const gather_file *files, size_t n, memfs_oid *ret,
                       memfs_error *err)
{
    _cleanup_(index_freep) git_index *index = NULL;
    memfs_code rc = MEMFS_OK;
    git_oid id;
    int failed;

    if (git_index_new(&index) < 0)
        return store_fail_git(err, -1, "could not gather the files");
    for (size_t i = 0; rc == MEMFS_OK && i < n; i++)
        rc = add_file(r, index, &files[i], err);
    if (rc < 0)
        return rc;
    failed = git_index_write_tree_to(&id, index, r->view);
    if (failed < 0)
        return store_fail_git(err, failed, "could not write the tree");
    repo_memfs_oid(&id, ret);
    return MEMFS_OK;
}

/* ---- by whom ---- */

static void walk_freep(git_revwalk **walk)
{
    git_revwalk_free(*walk);
}

static void commit_freep(git_commit **commit)
{
    git_commit_free(*commit);
}

static int is_by(repo *r, const git_oid *id, const char *email, bool *ret)
{
    _cleanup_(commit_freep) git_commit *commit = NULL;
    int rc = git_commit_lookup(&commit, r->view, id);

    *ret = rc == 0 && strcmp(git_commit_committer(commit)->email, email) == 0;
    return rc;
}

memfs_code gather_last(repo *r, const memfs_oid *tip, const char *email, memfs_oid *ret,
                       memfs_error *err)
{
    _cleanup_(walk_freep) git_revwalk *walk = NULL;
    bool is_found = false;
    git_oid id;
    int rc;

    repo_git_oid(tip, &id);
    rc = git_revwalk_new(&walk, r->view);
    if (rc == 0) /* by the graph, not by clocks (H7) */
        rc = git_revwalk_sorting(walk, GIT_SORT_TOPOLOGICAL);
    if (rc == 0)
        rc = git_revwalk_push(walk, &id);
    while (rc == 0 && !is_found && (rc = git_revwalk_next(&id, walk)) == 0)
        rc = is_by(r, &id, email, &is_found);
    if (rc < 0 && rc != GIT_ITEROVER)
        return store_fail_git(err, rc, "could not read the history");
    if (!is_found)
        return memfs_fail(err, MEMFS_ENOTFOUND, "no commit in main's history is by %s", email);
    repo_memfs_oid(&id, ret);
    return MEMFS_OK;
}
