#include "store/store_int.h"

#include "store/history.h"

/* A commit by the beginning of its id: of those of one history, so that what lies around does not
 * count, neither as an answer nor as a doubt. */

static void walk_freep(git_revwalk **walk)
{
    git_revwalk_free(*walk);
}

static memfs_code check_digits(memfs_str digits, memfs_error *err)
{
    bool is_good = digits.len > 0 && digits.len <= MEMFS_OID_HEX;

    for (size_t i = 0; is_good && i < digits.len; i++)
        is_good = (digits.ptr[i] >= '0' && digits.ptr[i] <= '9') ||
                  (digits.ptr[i] >= 'a' && digits.ptr[i] <= 'f');
    return is_good ? MEMFS_OK
                   : memfs_fail(err, MEMFS_EINVALID, "this is not the beginning of a commit's id");
}

memfs_code repo_commit_find(repo *r, const memfs_oid *tip, memfs_str digits, memfs_oid *ret,
                            memfs_error *err)
{
    _cleanup_(walk_freep) git_revwalk *walk = NULL;
    char hex[MEMFS_OID_HEX + 1];
    size_t n_found = 0;
    git_oid id;
    int rc;

    if (check_digits(digits, err) < 0)
        return err->code;
    repo_git_oid(tip, &id);
    rc = git_revwalk_new(&walk, r->view);
    if (rc == 0)
        rc = git_revwalk_push(walk, &id);
    while (rc == 0 && n_found < 2 && (rc = git_revwalk_next(&id, walk)) == 0) {
        git_oid_tostr(hex, sizeof(hex), &id);
        if (strncmp(hex, digits.ptr, digits.len) != 0)
            continue;
        n_found++;
        repo_memfs_oid(&id, ret);
    }
    if (rc < 0 && rc != GIT_ITEROVER)
        return store_fail_git(err, rc, "could not read the history");
    if (n_found == 0)
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no commit '%.*s' in main's history",
                          (int)digits.len, digits.ptr);
    if (n_found > 1)
        return memfs_fail(err, MEMFS_EINVALID, "several commits begin with '%.*s'",
                          (int)digits.len, digits.ptr);
    return MEMFS_OK;
}
