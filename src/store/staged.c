#include "store/staged.h"

#include "base/fs.h"
#include "base/mem.h"
#include "store/store_int.h"

#include <stdlib.h>

/*
 * Two lists of files in the order of their paths, walked side by side: the index is one already, HEAD's tree becomes
 * one by reading its folders (a folder's name sorts as if it ended in '/', so the flat order is the same).
 *
 * A file that only moved is found as git finds it: a path that is new and one that is gone, with the same object;
 * among several, one with the same last part is preferred, and each is used once.
 */

#define MAX_DEPTH 64
#define MAX_FILES 200000

typedef struct file {
    char *path;
    uint32_t mode;
    memfs_oid id;
} file;

typedef struct files {
    file *at;
    size_t n, cap;
} files;

typedef struct change {
    const file *old, *new; /* either may be NULL */
    bool is_used;          /* gone: it is the old side of a rename */
} change;

typedef struct changes {
    change *at;
    size_t n, cap;
} changes;

static void files_dispose(files *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->at[i].path);
    free(f->at);
}

static void changes_dispose(changes *c)
{
    free(c->at);
}

static void index_freep(git_index **index)
{
    git_index_free(*index);
}

static memfs_code files_add(files *f, char *path_given, uint32_t mode, const memfs_oid *id,
                            memfs_error *err)
{
    if (f->n == MAX_FILES) {
        free(path_given);
        return memfs_fail(err, MEMFS_ELIMIT, "there are more than %d files", MAX_FILES);
    }
    if (f->n == f->cap) {
        f->cap = f->cap ? f->cap * 2 : 256;
        f->at = mem_realloc(f->at, f->cap, sizeof(*f->at));
    }
    f->at[f->n++] = (file){ path_given, mode, *id };
    return MEMFS_OK;
}

static void changes_add(changes *c, const file *old, const file *new)
{
    if (c->n == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 64;
        c->at = mem_realloc(c->at, c->cap, sizeof(*c->at));
    }
    c->at[c->n++] = (change){ old, new, false };
}

/* ---- HEAD ---- */

static memfs_code flatten(repo *r, const memfs_oid *tree, const char *folder, unsigned depth,
                          files *ret, memfs_error *err)
{
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    memfs_code rc = repo_read_tree(r, tree, &object, err);
    tree_entry entry;
    size_t pos = 0;
    bool bad = false;

    if (rc == MEMFS_OK && depth > MAX_DEPTH)
        return memfs_fail(err, MEMFS_ELIMIT, "folders are nested deeper than %d", MAX_DEPTH);
    while (rc == MEMFS_OK && tree_next(repo_raw(object), &pos, &entry, &bad)) {
        char *path = mem_printf("%s%.*s%s", folder, (int)entry.name.len, entry.name.ptr,
                                repo_entry_is_folder(&entry) ? "/" : "");

        if (!repo_entry_is_folder(&entry)) {
            rc = files_add(ret, path, entry.mode, &entry.id, err);
            continue;
        }
        rc = flatten(r, &entry.id, path, depth + 1, ret, err);
        free(path);
    }
    return rc == MEMFS_OK && bad ? memfs_fail(err, MEMFS_ECORRUPT, "a tree cannot be read") : rc;
}

/* What HEAD of this working tree names; ENOTFOUND: a branch without a commit. */
static memfs_code read_head(checkout *c, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/HEAD", checkout_git_dir(c));
    _cleanup_(mem_freep) char *ref = NULL;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    memfs_code rc = fs_read(path, &text, err);

    if (rc < 0)
        return rc;
    while (text.len > 0 && (text.ptr[text.len - 1] == '\n' || text.ptr[text.len - 1] == ' '))
        buf_truncate(&text, text.len - 1);
    if (oid_parse(buf_str(&text), ret))
        return MEMFS_OK;
    if (!str_starts_with(buf_str(&text), MEMFS_STR("ref: ")))
        return memfs_fail(err, MEMFS_ECORRUPT, "HEAD names neither a branch nor a commit");
    ref = mem_strdup(text.ptr + 5);
    return checkout_ref(c, ref, ret, err);
}

static memfs_code head_files(checkout *c, files *ret, memfs_error *err)
{
    memfs_oid head, tree;
    memfs_code rc = read_head(c, &head, err);

    if (rc == MEMFS_ENOTFOUND) {
        *err = (memfs_error)MEMFS_ERROR_INIT;
        return MEMFS_OK; /* before the first commit there is nothing */
    }
    if (rc == MEMFS_OK)
        rc = repo_tree_of_commit(checkout_repo(c), &head, &tree, err);
    return rc < 0 ? rc : flatten(checkout_repo(c), &tree, "", 0, ret, err);
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

static memfs_code index_files(checkout *c, const char *index_file, files *ret, memfs_error *err)
{
    _cleanup_(index_freep) git_index *index = NULL;
    memfs_code rc = open_index(c, index_file, &index, err);

    for (size_t i = 0; rc == MEMFS_OK && i < git_index_entrycount(index); i++) {
        const git_index_entry *entry = git_index_get_byindex(index, i);
        memfs_oid id;

        if (!is_recorded(entry))
            continue;
        repo_memfs_oid(&entry->id, &id);
        rc = files_add(ret, mem_strdup(entry->path), entry->mode, &id, err);
    }
    return rc;
}

/* ---- the difference ---- */

static void compare(const files *old, const files *new, changes *ret)
{
    size_t i = 0, j = 0;

    while (i < old->n || j < new->n) {
        int order = i == old->n   ? 1
                    : j == new->n ? -1
                                  : strcmp(old->at[i].path, new->at[j].path);
        const file *a = order <= 0 ? &old->at[i++] : NULL;
        const file *b = order >= 0 ? &new->at[j++] : NULL;

        if (a == NULL || b == NULL || a->mode != b->mode || !oid_equal(&a->id, &b->id))
            changes_add(ret, a, b);
    }
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

static change *find_source(changes *all, const file *new)
{
    change *found = NULL;

    for (size_t i = 0; i < all->n; i++) {
        change *gone = &all->at[i];

        if (gone->new != NULL || gone->is_used || !oid_equal(&gone->old->id, &new->id))
            continue;
        if (strcmp(last_part(gone->old->path), last_part(new->path)) == 0)
            return gone;
        if (found == NULL)
            found = gone;
    }
    return found;
}

static void pair_renames(changes *all)
{
    for (size_t i = 0; i < all->n; i++) {
        change *added = &all->at[i], *source;

        if (added->old != NULL)
            continue;
        source = find_source(all, added->new);
        if (source == NULL)
            continue;
        source->is_used = true;
        added->old = source->old;
    }
}

static memfs_code tell(const change *c, staged_fn fn, void *ctx, memfs_error *err)
{
    const file *any = c->new != NULL ? c->new : c->old;
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

memfs_code staged_each(checkout *c, const char *index_file, staged_fn fn, void *ctx,
                       memfs_error *err)
{
    _cleanup_(files_dispose) files old = { NULL, 0, 0 }, new = { NULL, 0, 0 };
    _cleanup_(changes_dispose) changes all = { NULL, 0, 0 };
    memfs_code rc = index_files(c, index_file, &new, err);

    if (rc == MEMFS_OK)
        rc = head_files(c, &old, err);
    if (rc < 0)
        return rc;
    compare(&old, &new, &all);
    pair_renames(&all);
    for (size_t i = 0; rc == MEMFS_OK && i < all.n; i++)
        if (!all.at[i].is_used)
            rc = tell(&all.at[i], fn, ctx, err);
    return rc;
}

memfs_code staged_each_entry(checkout *c, const char *index_file, staged_entry_fn fn, void *ctx,
                             memfs_error *err)
{
    _cleanup_(files_dispose) files all = { NULL, 0, 0 };
    memfs_code rc = index_files(c, index_file, &all, err);

    for (size_t i = 0; rc == MEMFS_OK && i < all.n; i++)
        rc = fn(str_of(all.at[i].path), all.at[i].mode, &all.at[i].id, ctx, err);
    return rc;
}
