#include "store/staged.h"

#include "base/mem.h"
#include "store/checkout_int.h"

#include <stdlib.h>

/*
 * Two lists of files in the order of their paths, walked side by side: the index is one already,
 * HEAD's tree becomes one by reading its folders.
 *
 * A file that only moved is found as git finds it: a path that is new and one that is gone, with
 * the same object; among several, one with the same last part is preferred, and each is used once.
 */

#define MAX_FILES 200000

typedef struct change {
    const tree_file *old, *new; /* either may be NULL */
    bool is_used;               /* gone: it is the old side of a rename */
} change;

struct staged {
    tree_files head, index;
    change *changes;
    size_t n, cap;
};

static void index_freep(git_index **index)
{
    git_index_free(*index);
}

static void changes_add(staged *s, const tree_file *old, const tree_file *new)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->changes = mem_realloc(s->changes, s->cap, sizeof(*s->changes));
    }
    s->changes[s->n++] = (change){ old, new, false };
}

/* ---- HEAD ---- */

static memfs_code read_head(checkout *c, tree_files *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *ref = NULL;
    memfs_oid head, tree;
    memfs_code rc = checkout_head(c, &ref, &head, err);

    if (rc == MEMFS_OK && ref != NULL)
        rc = checkout_ref(c, ref, &head, err);
    if (rc == MEMFS_ENOTFOUND) {
        *err = (memfs_error)MEMFS_ERROR_INIT;
        return MEMFS_OK; /* before the first commit there is nothing */
    }
    if (rc == MEMFS_OK)
        rc = repo_tree_of_commit(checkout_repo(c), &head, &tree, err);
    return rc < 0 ? rc : tree_files_read(checkout_repo(c), &tree, ret, err);
}

/* ---- the index ---- */

static memfs_code open_index(checkout *c, const char *index_file, git_index **ret,
                             memfs_error *err)
{
    _cleanup_(mem_freep) char *own = mem_printf("%s/index", checkout_git_dir(c));
    int rc = git_index_open(ret, index_file != NULL ? index_file : own);

    return rc == 0 ? MEMFS_OK : store_fail_git(err, rc, "could not read git's index");
}

/* Conflicts and "add -N" entries are not what a commit would record. */
static bool is_recorded(const git_index_entry *entry)
{
    return git_index_entry_stage(entry) == 0 &&
           !(entry->flags_extended & GIT_INDEX_ENTRY_INTENT_TO_ADD);
}

static memfs_code read_index(checkout *c, const char *index_file, tree_files *ret, memfs_error *err)
{
    _cleanup_(index_freep) git_index *index = NULL;
    memfs_code rc = open_index(c, index_file, &index, err);
    size_t n = rc == MEMFS_OK ? git_index_entrycount(index) : 0;

    if (n > MAX_FILES)
        return memfs_fail(err, MEMFS_ELIMIT, "there are more than %d files", MAX_FILES);
    ret->at = mem_alloc((n + 1) * sizeof(*ret->at));
    for (size_t i = 0; i < n; i++) {
        const git_index_entry *entry = git_index_get_byindex(index, i);
        tree_file *file = &ret->at[ret->n];

        if (!is_recorded(entry))
            continue;
        file->path = mem_strdup(entry->path);
        file->mode = entry->mode;
        repo_memfs_oid(&entry->id, &file->id);
        ret->n++;
    }
    return rc;
}

/* ---- the difference ---- */

static void compare(staged *s)
{
    const tree_files *old = &s->head, *new = &s->index;
    size_t i = 0, j = 0;

    while (i < old->n || j < new->n) {
        int order = i == old->n   ? 1
                    : j == new->n ? -1
                                  : strcmp(old->at[i].path, new->at[j].path);
        const tree_file *a = order <= 0 ? &old->at[i++] : NULL;
        const tree_file *b = order >= 0 ? &new->at[j++] : NULL;

        if (a == NULL || b == NULL || a->mode != b->mode || !oid_equal(&a->id, &b->id))
            changes_add(s, a, b);
    }
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

static change *find_source(staged *s, const tree_file *new)
{
    change *found = NULL;

    for (size_t i = 0; i < s->n; i++) {
        change *gone = &s->changes[i];

        if (gone->new != NULL || gone->is_used || !oid_equal(&gone->old->id, &new->id))
            continue;
        if (strcmp(last_part(gone->old->path), last_part(new->path)) == 0)
            return gone;
        if (found == NULL)
            found = gone;
    }
    return found;
}

static void pair_renames(staged *s)
{
    for (size_t i = 0; i < s->n; i++) {
        change *added = &s->changes[i], *source;

        if (added->old != NULL)
            continue;
        source = find_source(s, added->new);
        if (source == NULL)
            continue;
        source->is_used = true;
        added->old = source->old;
    }
}

memfs_code staged_read(checkout *c, const char *index_file, staged **ret, memfs_error *err)
{
    _cleanup_(staged_freep) staged *s = mem_alloc(sizeof(*s));
    memfs_code rc = read_index(c, index_file, &s->index, err);

    if (rc == MEMFS_OK)
        rc = read_head(c, &s->head, err);
    if (rc < 0)
        return rc;
    compare(s);
    pair_renames(s);
    *ret = TAKE_PTR(s);
    return MEMFS_OK;
}

void staged_free(staged *s)
{
    if (s == NULL)
        return;
    tree_files_dispose(&s->head);
    tree_files_dispose(&s->index);
    free(s->changes);
    free(s);
}

void staged_freep(staged **s)
{
    staged_free(*s);
    *s = NULL;
}

/* ---- telling ---- */

static memfs_code tell(const change *c, staged_fn fn, void *ctx, memfs_error *err)
{
    const tree_file *any = c->new != NULL ? c->new : c->old;
    staged_change told = { .path = str_of(any->path), .old_path = str_of(any->path),
                           .has_old = c->old != NULL, .has_new = c->new != NULL };

    if (c->old != NULL) {
        told.old_path = str_of(c->old->path);
        told.old_id = c->old->id;
        told.old_mode = c->old->mode;
    }
    if (c->new != NULL) {
        told.new_id = c->new->id;
        told.new_mode = c->new->mode;
    }
    return fn(&told, ctx, err);
}

memfs_code staged_each(const staged *s, staged_fn fn, void *ctx, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < s->n; i++)
        if (!s->changes[i].is_used)
            rc = tell(&s->changes[i], fn, ctx, err);
    return rc;
}

memfs_code staged_each_entry(const staged *s, staged_entry_fn fn, void *ctx, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < s->index.n; i++)
        rc = fn(str_of(s->index.at[i].path), s->index.at[i].mode, &s->index.at[i].id, ctx, err);
    return rc;
}
