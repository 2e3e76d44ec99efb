#include "store/checkout_int.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * A tree as the flat list that an index is.  Tree order (a folder sorts as if its name ended in
 * '/') makes the paths come out sorted by bytes, which is the index' order: the two are compared
 * in one pass.
 */

#define MAX_FILES 500000
#define MAX_DEPTH 128

typedef struct level {
    git_odb_object *object;
    size_t pos, path_len;
} level;

typedef struct walk {
    repo *r;
    level levels[MAX_DEPTH];
    size_t depth;
    memfs_buf path;
} walk;

void tree_files_dispose(tree_files *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->at[i].path);
    free(t->at);
    *t = (tree_files){ NULL, 0 };
}

static memfs_code enter(walk *w, const memfs_oid *tree, memfs_error *err)
{
    level *l;

    if (w->depth == MAX_DEPTH)
        return memfs_fail(err, MEMFS_ELIMIT, "folders are nested deeper than %d", MAX_DEPTH);
    l = &w->levels[w->depth];
    *l = (level){ .path_len = w->path.len };
    w->depth++;
    return repo_read_tree(w->r, tree, &l->object, err);
}

static memfs_code add_file(const walk *w, const tree_entry *e, tree_files *out, memfs_error *err)
{
    if (out->n == MAX_FILES)
        return memfs_fail(err, MEMFS_ELIMIT, "there are more than %d files", MAX_FILES);
    if ((out->n & (out->n - 1)) == 0)
        out->at = mem_realloc(out->at, out->n == 0 ? 1 : out->n * 2, sizeof(*out->at));
    out->at[out->n++] = (tree_file){ mem_strndup(w->path.ptr, w->path.len), e->mode, e->id };
    return MEMFS_OK;
}

static memfs_code step(walk *w, tree_files *out, memfs_error *err)
{
    level *l = &w->levels[w->depth - 1];
    tree_entry e;
    bool bad;

    buf_truncate(&w->path, l->path_len);
    if (!tree_next(repo_raw(l->object), &l->pos, &e, &bad)) {
        if (bad)
            return memfs_fail(err, MEMFS_ECORRUPT, "a tree object cannot be read");
        git_odb_object_free(l->object);
        w->depth--;
        return MEMFS_OK;
    }
    buf_add_str(&w->path, e.name);
    if (!repo_entry_is_folder(&e))
        return add_file(w, &e, out, err);
    buf_putc(&w->path, '/');
    return enter(w, &e.id, err);
}

memfs_code tree_files_read(repo *r, const memfs_oid *tree, tree_files *ret, memfs_error *err)
{
    _cleanup_(tree_files_dispose) tree_files out = { NULL, 0 };
    walk *w = mem_alloc(sizeof(*w));
    memfs_code rc = MEMFS_OK;

    w->r = r;
    w->path = (memfs_buf)MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    if (tree != NULL)
        rc = enter(w, tree, err);
    while (rc == MEMFS_OK && w->depth > 0)
        rc = step(w, &out, err);
    while (w->depth > 0)
        git_odb_object_free(w->levels[--w->depth].object);
    buf_dispose(&w->path);
    free(w);
    if (rc == MEMFS_OK) {
        *ret = out;
        out = (tree_files){ NULL, 0 };
    }
    return rc;
}
