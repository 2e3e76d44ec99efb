#include "store/checkout_int.h"

#include "base/fs.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

/*
 * What `git status` would say: one pass over HEAD's files and the index side by side, each entry
 * of the index held against its file, then one pass over the working tree for what the index does
 * not know.
 */

typedef struct inspection {
    checkout *c;
    checkout_state *state;
    checkout_index x;
    tree_files head;
    tree_cursor cursor;
} inspection;

static void inspection_dispose(inspection *in)
{
    checkout_index_dispose(&in->x);
    tree_files_dispose(&in->head);
    tree_cursor_dispose(&in->cursor);
}

static bool in_git_dir(const checkout *c, const char *name)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", c->git_dir, name);

    return fs_exists(path);
}

checkout_operation checkout_operation_of(const checkout *c)
{
    if (in_git_dir(c, "rebase-merge") || in_git_dir(c, "rebase-apply"))
        return CHECKOUT_REBASING; /* first: a conflict in it leaves the others as well */
    if (in_git_dir(c, "MERGE_HEAD"))
        return CHECKOUT_MERGING;
    if (in_git_dir(c, "CHERRY_PICK_HEAD") || in_git_dir(c, "REVERT_HEAD") ||
        in_git_dir(c, "sequencer"))
        return CHECKOUT_PICKING;
    if (in_git_dir(c, "BISECT_LOG"))
        return CHECKOUT_BISECTING;
    return CHECKOUT_CALM;
}

static memfs_code look_at_head(const checkout *c, checkout_state *s, memfs_error *err)
{
    _cleanup_(mem_freep) char *ref = NULL;
    memfs_code rc = checkout_head(c, &ref, &s->head, err);

    if (rc < 0)
        return rc;
    if (ref == NULL) {
        s->is_detached = s->has_head = true;
        return MEMFS_OK;
    }
    snprintf(s->branch, sizeof(s->branch), "%s",
             strncmp(ref, "refs/heads/", 11) == 0 ? ref + 11 : ref);
    rc = checkout_ref(c, ref, &s->head, err);
    s->has_head = rc == MEMFS_OK;
    return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
}

static void note_changed(checkout_state *s, const char *path)
{
    if (s->n_changed++ == 0)
        snprintf(s->first_changed, sizeof(s->first_changed), "%s", path);
}

/* One path of the index: all its stages, from *at on. */
static memfs_code look_at_entry(inspection *in, size_t *at, const tree_file *head, memfs_error *err)
{
    const git_index_entry *e = git_index_get_byindex(in->x.index, *at), *next;
    bool is_same = head != NULL && GIT_INDEX_ENTRY_STAGE(e) == 0;
    memfs_oid id;
    memfs_code rc = MEMFS_OK;

    while ((next = git_index_get_byindex(in->x.index, ++*at)) != NULL &&
           strcmp(next->path, e->path) == 0)
        is_same = false; /* a conflict */
    repo_memfs_oid(&e->id, &id);
    is_same = is_same && head->mode == e->mode && oid_equal(&head->id, &id);
    if (is_same)
        rc = checkout_entry_is_fresh(in->c, &in->x, e, &in->cursor, &is_same, err);
    if (rc == MEMFS_OK && !is_same)
        note_changed(in->state, e->path);
    return rc;
}

static memfs_code compare(inspection *in, memfs_error *err)
{
    size_t h = 0, i = 0, n = git_index_entrycount(in->x.index);
    memfs_code rc = MEMFS_OK;

    while (rc == MEMFS_OK && (h < in->head.n || i < n)) {
        const git_index_entry *e = i < n ? git_index_get_byindex(in->x.index, i) : NULL;
        const tree_file *f = h < in->head.n ? &in->head.at[h] : NULL;
        int order = e == NULL ? -1 : f == NULL ? 1 : strcmp(f->path, e->path);

        if (order < 0)
            note_changed(in->state, f->path); /* removed from the index */
        else
            rc = look_at_entry(in, &i, order == 0 ? f : NULL, err);
        h += order <= 0;
    }
    return rc;
}

static memfs_code count_untracked(const untracked_entry *e, void *ctx, memfs_error *err)
{
    checkout_state *s = ctx;

    (void)e;
    (void)err;
    s->n_untracked++;
    return MEMFS_OK;
}

static memfs_code look_at_files(inspection *in, memfs_error *err)
{
    memfs_oid tree;
    memfs_code rc = checkout_index_read(in->c, &in->x, err);

    if (rc == MEMFS_OK)
        rc = tree_cursor_open(in->c, &in->cursor, err);
    if (rc == MEMFS_OK && in->state->has_head)
        rc = repo_tree_of_commit(in->c->r, &in->state->head, &tree, err);
    if (rc == MEMFS_OK)
        rc = tree_files_read(in->c->r, in->state->has_head ? &tree : NULL, &in->head, err);
    if (rc == MEMFS_OK)
        rc = compare(in, err);
    if (rc == MEMFS_OK)
        rc = checkout_each_untracked(in->c, in->x.index, count_untracked, in->state, err);
    return rc;
}

memfs_code checkout_inspect(checkout *c, checkout_state *ret, memfs_error *err)
{
    _cleanup_(inspection_dispose)
        inspection in = { c, ret, CHECKOUT_INDEX_INIT, { NULL, 0 }, TREE_CURSOR_INIT };
    memfs_code rc;

    memset(ret, 0, sizeof(*ret));
    rc = look_at_head(c, ret, err);
    if (rc < 0)
        return rc;
    ret->operation = checkout_operation_of(c);
    ret->has_index_lock = in_git_dir(c, "index.lock");
    return c->work_tree != NULL ? look_at_files(&in, err) : MEMFS_OK;
}
