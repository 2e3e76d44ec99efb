#include "store/sidecar.h"

#include "base/clock.h"
#include "base/mem.h"
#include "store/store_int.h"

#include <stdlib.h>

/*
 * What the commit is made of is what both sides know: parents in the order of their ids, their
 * times, the text.  So two servers that write the same text over the same two tips write the same
 * commit, and a third finds nothing to do.
 */

#define MESSAGE "memfs: what git does not carry\n"

/* ---- reading ---- */

static memfs_code find_file(repo *r, const memfs_oid *commit, const char *file, memfs_oid *ret,
                            memfs_error *err)
{
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    memfs_oid tree;
    tree_entry e;
    size_t pos = 0;
    bool bad = false;
    memfs_code rc = repo_tree_of_commit(r, commit, &tree, err);

    if (rc == MEMFS_OK)
        rc = repo_read_tree(r, &tree, &object, err);
    if (rc < 0)
        return rc;
    while (tree_next(repo_raw(object), &pos, &e, &bad))
        if (str_equal(e.name, str_of(file)) && e.mode == TREE_MODE_FILE) {
            *ret = e.id;
            return MEMFS_OK;
        }
    return bad ? memfs_fail(err, MEMFS_ECORRUPT, "the sidecar's tree cannot be read")
               : memfs_fail(err, MEMFS_ENOTFOUND, "the sidecar has no '%s'", file);
}

memfs_code sidecar_read(repo *r, const memfs_oid *commit, const char *file, uint64_t max_bytes,
                        memfs_buf *out, memfs_error *err)
{
    memfs_oid blob;
    memfs_code rc = find_file(r, commit, file, &blob, err);

    return rc == MEMFS_OK ? repo_blob(r, &blob, max_bytes, out, err) : rc;
}

memfs_code sidecar_tip(repo *r, memfs_oid *ret, memfs_error *err)
{
    memfs_code rc = refs_read(r->path, STORE_META, ret, err);

    if (rc != MEMFS_ENOTFOUND)
        return rc;
    *ret = (memfs_oid){ { 0 } };
    return MEMFS_OK;
}

/* ---- writing ---- */

/* What there is, and how the two lie to each other. */
typedef struct sides {
    memfs_oid ours, theirs; /* zero: none */
    bool ours_has_theirs, theirs_has_ours;
} sides;

static memfs_code look_at_sides(repo *r, const memfs_oid *theirs, sides *ret, memfs_error *err)
{
    memfs_code rc = sidecar_tip(r, &ret->ours, err);

    ret->theirs = *theirs;
    ret->ours_has_theirs = oid_is_zero(theirs);
    ret->theirs_has_ours = oid_is_zero(&ret->ours);
    if (rc == MEMFS_OK && !ret->ours_has_theirs && !ret->theirs_has_ours) {
        rc = repo_is_ancestor(r, theirs, &ret->ours, &ret->ours_has_theirs, err);
        if (rc == MEMFS_OK)
            rc = repo_is_ancestor(r, &ret->ours, theirs, &ret->theirs_has_ours, err);
    }
    return rc;
}

static bool has_text(repo *r, const memfs_oid *commit, const char *file, const memfs_oid *blob)
{
    memfs_error ignored;
    memfs_oid there;

    return !oid_is_zero(commit) && find_file(r, commit, file, &there, &ignored) == MEMFS_OK &&
           oid_equal(&there, blob);
}

static memfs_code write_commit(repo *r, const sides *s, const char *file, const memfs_oid *blob,
                               memfs_oid *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(1024);
    bool is_swapped = memcmp(s->ours.id, s->theirs.id, sizeof(s->ours.id)) > 0;
    memfs_oid parents[2] = { { { 0 } } }, tree_id;
    memfs_code rc;

    if (!s->theirs_has_ours) /* neither has the other: both */
        parents[is_swapped] = s->ours;
    if (!s->ours_has_theirs)
        parents[!is_swapped] = s->theirs;
    if (s->ours_has_theirs && s->theirs_has_ours) /* the same, or nothing yet */
        parents[0] = s->ours;
    buf_printf(&tree, "100644 %s%c", file, '\0');
    buf_add(&tree, blob->id, sizeof(blob->id));
    rc = repo_write(r, GIT_OBJECT_TREE, buf_str(&tree), &tree_id, err);
    if (rc == MEMFS_OK)
        rc = repo_commit_tree(r, &tree_id, parents, 2, NULL, MEMFS_STR(MESSAGE), ret, err);
    return rc;
}

/* The commit that the ref should be at. */
static memfs_code find_target(repo *r, const sides *s, const char *file, memfs_str text,
                              memfs_oid *ret, memfs_error *err)
{
    memfs_oid blob;
    memfs_code rc = repo_write(r, GIT_OBJECT_BLOB, text, &blob, err);

    if (rc < 0)
        return rc;
    if (s->ours_has_theirs && has_text(r, &s->ours, file, &blob))
        *ret = s->ours;
    else if (s->theirs_has_ours && has_text(r, &s->theirs, file, &blob))
        *ret = s->theirs;
    else
        rc = write_commit(r, s, file, &blob, ret, err);
    return rc;
}

memfs_code sidecar_write(repo *r, const memfs_oid *theirs, const char *file, memfs_str text,
                         memfs_oid *ret, memfs_error *err)
{
    store_identity who = { "memfs", "memfs@localhost", clock_wall_us() / 1000000 };
    memfs_oid target;
    sides s;
    memfs_code rc;

    if (file[0] == '\0' || file[0] == '.' || strchr(file, '/') != NULL || strlen(file) > 255)
        return memfs_fail(err, MEMFS_EINVALID, "that is no name of a sidecar's file");
    rc = look_at_sides(r, theirs, &s, err);
    if (rc == MEMFS_OK)
        rc = find_target(r, &s, file, text, &target, err);
    if (rc < 0)
        return rc;
    if (!oid_equal(&target, &s.ours))
        rc = refs_move(r->path, STORE_META, &s.ours, &target, &who, "sidecar", err);
    if (rc == MEMFS_OK)
        *ret = target;
    return rc;
}
