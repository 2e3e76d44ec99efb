#include "store/amend.h"

#include "base/mem.h"
#include "store/store_int.h"

#include <stdlib.h>

static void index_freep(git_index **index)
{
    git_index_free(*index);
}

static void tree_freep(git_tree **tree)
{
    git_tree_free(*tree);
}

static memfs_code read_index(repo *r, const memfs_oid *commit, git_index **ret, memfs_error *err)
{
    _cleanup_(tree_freep) git_tree *tree = NULL;
    memfs_oid tree_id;
    git_oid id;
    int failed;
    memfs_code rc = repo_tree_of_commit(r, commit, &tree_id, err);

    if (rc < 0)
        return rc;
    repo_git_oid(&tree_id, &id);
    failed = git_tree_lookup(&tree, r->view, &id);
    if (failed == 0)
        failed = git_index_new(ret);
    if (failed == 0)
        failed = git_index_read_tree(*ret, tree);
    return failed < 0 ? store_fail_git(err, failed, "could not read the files of a commit") : rc;
}

/* What git_index_add would push aside to make room. */
static bool fits(git_index *index, const char *path)
{
    _cleanup_(mem_freep) char *below = mem_printf("%s/", path);
    size_t at;

    if (git_index_find_prefix(&at, index, below) == 0)
        return false;
    for (char *slash = below; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        if (strcmp(below, path) != 0 && git_index_get_bypath(index, below, 0) != NULL)
            return false;
        *slash = '/';
    }
    return true;
}

memfs_code amend_paths(repo *r, const memfs_oid *commit, void (*fn)(const char *path, void *ctx),
                       void *ctx, memfs_error *err)
{
    _cleanup_(index_freep) git_index *index = NULL;
    memfs_code rc = read_index(r, commit, &index, err);

    for (size_t i = 0; rc == MEMFS_OK && i < git_index_entrycount(index); i++)
        fn(git_index_get_byindex(index, i)->path, ctx);
    return rc;
}

static memfs_code put_file(repo *r, git_index *index, const amend_file *file, memfs_error *err)
{
    git_index_entry e = { .mode = TREE_MODE_FILE, .path = file->path };
    const git_index_entry *old = git_index_get_bypath(index, file->path, 0);
    memfs_oid id;
    memfs_code rc;

    if (file->is_gone) {
        if (old != NULL)
            git_index_remove(index, file->path, 0);
        return MEMFS_OK;
    }
    if (!fits(index, file->path))
        return memfs_fail(err, MEMFS_EINVALID, "'%.200s' is no path for a file", file->path);
    if (old != NULL)
        e.mode = old->mode;
    rc = repo_write(r, GIT_OBJECT_BLOB, file->content, &id, err);
    if (rc < 0)
        return rc;
    repo_git_oid(&id, &e.id);
    if (git_index_add(index, &e) < 0)
        return memfs_fail(err, MEMFS_EINVALID, "'%.200s' is no path for a file", file->path);
    return MEMFS_OK;
}

memfs_code amend_commit(repo *r, const memfs_oid *parent, const amend_file *files, size_t n,
                        const store_identity *who, memfs_str message, memfs_oid *ret,
                        memfs_error *err)
{
    _cleanup_(index_freep) git_index *index = NULL;
    memfs_code rc = read_index(r, parent, &index, err);
    memfs_oid tree, old;
    git_oid id;
    int failed;

    for (size_t i = 0; rc == MEMFS_OK && i < n; i++)
        rc = put_file(r, index, &files[i], err);
    if (rc < 0)
        return rc;
    failed = git_index_write_tree_to(&id, index, r->view);
    if (failed < 0)
        return store_fail_git(err, failed, "could not write the tree");
    repo_memfs_oid(&id, &tree);
    *ret = *parent;
    rc = repo_tree_of_commit(r, parent, &old, err);
    if (rc < 0 || oid_equal(&tree, &old))
        return rc;
    return repo_commit_tree(r, &tree, parent, 1, who, message, ret, err);
}
