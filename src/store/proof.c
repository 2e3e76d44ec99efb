#include "store/proof.h"

#include "base/fs.h"
#include "base/mem.h"
#include "store/scratch.h"

#include <stdlib.h>

#define INCOMING "refs/memfs/incoming/proof"

static memfs_code read_tree(store *s, const char *dir, const memfs_oid *commit, memfs_oid *ret,
                            memfs_error *err)
{
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", dir);
    _cleanup_(repo_closep) repo *r = NULL;
    git_odb *odb = NULL;
    memfs_code rc;

    if (git_odb_new(&odb) < 0)
        return store_fail_git(err, -1, "could not open what the remote sent");
    rc = repo_add_objects(odb, objects, false, err);
    if (rc < 0)
        git_odb_free(odb);
    else
        rc = repo_of_odb(s, NULL, odb, 0, &r, err);
    return rc == MEMFS_OK ? repo_tree_of_commit(r, commit, ret, err) : rc;
}

static memfs_code take(store *s, const char *dir, const transport_target *t,
                       const transport_want *want, int64_t deadline_ms, proof *ret,
                       transport_report *report, memfs_error *err)
{
    proof got;
    memfs_code rc = scratch_make(dir, err);

    if (rc == MEMFS_OK)
        rc = transport_fetch_ref(dir, t, want, deadline_ms, report, err);
    if (rc == MEMFS_OK)
        rc = refs_read(dir, INCOMING, &got.commit, err);
    if (rc == MEMFS_OK)
        rc = scratch_set_ref(dir, STORE_MAIN, &got.commit, err); /* HEAD names it: fsck wants one */
    if (rc == MEMFS_OK)
        rc = store_fsck_at(s, dir, err);
    if (rc == MEMFS_OK)
        rc = read_tree(s, dir, &got.commit, &got.tree, err);
    if (rc == MEMFS_OK)
        *ret = got;
    return rc;
}

memfs_code proof_take(store *s, const transport_target *t, const char *ref, uint64_t max_bytes,
                      int64_t deadline_ms, proof *ret, transport_report *report,
                      memfs_error *err)
{
    _cleanup_(mem_freep) char *dir = store_temp_path(s, "proof");
    transport_want want = { .ref = ref, .incoming_ref = INCOMING, .max_bytes = max_bytes,
                            .is_depth_one = true, .is_throw_away = true };
    transport_target target = *t;
    memfs_error ignored;
    memfs_code rc;

    *report = (transport_report){ .said = "" };
    target.is_server = true;
    target.ask_git_helpers = false;
    rc = take(s, dir, &target, &want, deadline_ms, ret, report, err);
    if (fs_remove_tree(dir, &ignored) < 0)
        ignored.code = MEMFS_OK; /* swept later: it is no part of any repository */
    return rc;
}
