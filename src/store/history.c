#include "store/history.h"

#include "base/mem.h"
#include "store/store_int.h"

#include <stdlib.h>

static void fill(git_commit *commit, commit_info *ret)
{
    const git_signature *author = git_commit_author(commit);

    repo_memfs_oid(git_commit_tree_id(commit), &ret->tree);
    ret->n_parents = git_commit_parentcount(commit);
    ret->parents = mem_alloc(ret->n_parents * sizeof(*ret->parents));
    for (size_t i = 0; i < ret->n_parents; i++)
        repo_memfs_oid(git_commit_parent_id(commit, (unsigned)i), &ret->parents[i]);
    ret->author_name = str_of(author->name);
    ret->author_email = str_of(author->email);
    ret->author_time_s = author->when.time;
    ret->committer_time_s = git_commit_time(commit);
    ret->message = str_of(git_commit_message_raw(commit));
    ret->owner = commit;
}

memfs_code repo_commit_info(repo *r, const memfs_oid *id, commit_info *ret, memfs_error *err)
{
    git_commit *commit = NULL;
    git_object_t type;
    uint64_t bytes;
    git_oid oid;
    memfs_code rc = repo_header(r, id, &type, &bytes, err);
    int number;

    if (rc < 0)
        return rc;
    if (type != GIT_OBJECT_COMMIT || bytes > OBJECT_MAX_COMMIT_BYTES)
        return memfs_fail(err, MEMFS_ECORRUPT, "the object is no commit that can be read");
    repo_git_oid(id, &oid);
    number = git_commit_lookup(&commit, r->view, &oid);
    if (number < 0) {
        store_fail_git(err, number, "could not read a commit");
        return err->code = MEMFS_ECORRUPT;
    }
    fill(commit, ret);
    return MEMFS_OK;
}

void commit_info_dispose(commit_info *c)
{
    free(c->parents);
    git_commit_free(c->owner);
    *c = (commit_info)COMMIT_INFO_INIT;
}
