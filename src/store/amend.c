#include "store/amend.h"

#include "base/mem.h"
#include "store/store_int.h"

#include <stdlib.h>

#define SMALLEST_ENTRY 24 /* "40000 a", NUL, and 20 bytes of id are more */

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

/* ---- what there is ---- */

memfs_code amend_paths(repo *r, const memfs_oid *commit, void (*fn)(const char *path, void *ctx),
                       void *ctx, memfs_error *err)
{
    _cleanup_(index_freep) git_index *index = NULL;
    memfs_code rc = read_index(r, commit, &index, err);

    for (size_t i = 0; rc == MEMFS_OK && i < git_index_entrycount(index); i++)
        fn(git_index_get_byindex(index, i)->path, ctx);
    return rc;
}

static memfs_code find_in_folder(repo *r, const memfs_oid *folder, memfs_str name, tree_entry *ret,
                                 memfs_error *err)
{
    git_odb_object *raw;
    size_t pos = 0;
    bool is_bad = false, is_found = false;
    memfs_code rc = repo_read_tree(r, folder, &raw, err);

    if (rc < 0)
        return rc;
    while (!is_found && tree_next(repo_raw(raw), &pos, ret, &is_bad))
        is_found = str_equal(ret->name, name);
    git_odb_object_free(raw);
    if (is_bad)
        return memfs_fail(err, MEMFS_ECORRUPT, "a folder of the memory cannot be read");
    return is_found ? MEMFS_OK : memfs_fail(err, MEMFS_ENOTFOUND, "there is no such file");
}

memfs_code repo_find_entry(repo *r, const memfs_oid *commit, memfs_str path, tree_entry *ret,
                           memfs_error *err)
{
    memfs_oid at;
    memfs_str name, rest = path;
    tree_entry e = { .mode = TREE_MODE_FOLDER };
    memfs_code rc = repo_tree_of_commit(r, commit, &at, err);
    bool is_last = false;

    while (rc == MEMFS_OK && !is_last) {
        is_last = !str_split(rest, '/', &name, &rest);
        if (is_last)
            name = rest;
        if (!repo_entry_is_folder(&e))
            return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such file");
        rc = find_in_folder(r, &at, name, &e, err);
        at = e.id;
    }
    if (rc == MEMFS_OK)
        *ret = (tree_entry){ .mode = e.mode, .id = at };
    return rc;
}

memfs_code amend_find(repo *r, const memfs_oid *commit, memfs_str path, memfs_oid *ret,
                      memfs_error *err)
{
    tree_entry e;
    memfs_code rc = repo_find_entry(r, commit, path, &e, err);

    if (rc == MEMFS_OK && repo_entry_is_folder(&e))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such file");
    if (rc == MEMFS_OK)
        *ret = e.id;
    return rc;
}

/* ---- the tree of a commit with some files changed ---- */

/*
 * One folder at a time, along the changed paths alone: what is beside them keeps its id and is not
 * read.  `skip` bytes of each path are the folder's own name.
 */
typedef struct folder_change {
    const amend_file *const *files; /* in order of their paths */
    size_t n, skip;
} folder_change;

static memfs_str path_below(const amend_file *file, size_t skip)
{
    return str_from(str_of(file->path), skip);
}

/* How many files from the first on are in the folder that it is in, and that folder's name; 0: it
 * is no folder's but this one's. */
static size_t run_of_folder(const folder_change *c, size_t first, memfs_str *ret_name)
{
    memfs_str name, rest, other;
    size_t n = 1;

    *ret_name = path_below(c->files[first], c->skip);
    if (!str_split(*ret_name, '/', &name, &rest))
        return 0;
    while (first + n < c->n &&
           str_split(path_below(c->files[first + n], c->skip), '/', &other, &rest) &&
           str_equal(other, name))
        n++;
    *ret_name = name;
    return n;
}

typedef struct entry_list {
    tree_entry *entries;
    size_t n;
    git_odb_object *raw; /* names point into it */
} entry_list;

static void entry_list_dispose(entry_list *l)
{
    free(l->entries);
    git_odb_object_free(l->raw);
}

/* folder NULL: one that is not there yet. */
static memfs_code read_folder(repo *r, const memfs_oid *folder, size_t n_more, entry_list *ret,
                              memfs_error *err)
{
    size_t pos = 0, cap = n_more;
    bool is_bad = false;
    tree_entry e;
    memfs_code rc;

    if (folder != NULL) {
        rc = repo_read_tree(r, folder, &ret->raw, err);
        if (rc < 0)
            return rc;
        cap += git_odb_object_size(ret->raw) / SMALLEST_ENTRY;
    }
    ret->entries = mem_alloc((cap + 1) * sizeof(*ret->entries));
    while (ret->raw != NULL && tree_next(repo_raw(ret->raw), &pos, &e, &is_bad))
        ret->entries[ret->n++] = e;
    return is_bad ? memfs_fail(err, MEMFS_ECORRUPT, "a folder of the memory cannot be read")
                  : MEMFS_OK;
}

static tree_entry *find_entry(entry_list *l, memfs_str name)
{
    for (size_t i = 0; i < l->n; i++)
        if (str_equal(l->entries[i].name, name))
            return &l->entries[i];
    return NULL;
}

static void remove_entry(entry_list *l, tree_entry *e)
{
    size_t at = (size_t)(e - l->entries);

    l->n--;
    memmove(e, e + 1, (l->n - at) * sizeof(*e));
}

static int compare_entries(const void *a, const void *b)
{
    return repo_entry_compare(a, b);
}

/* An empty folder does not exist in git: then *ret_is_empty, unless it is the topmost. */
static memfs_code write_folder(repo *r, entry_list *l, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf raw = MEMFS_BUF_INIT(OBJECT_MAX_TREE_BYTES);

    qsort(l->entries, l->n, sizeof(*l->entries), compare_entries);
    for (size_t i = 0; i < l->n; i++) {
        buf_printf(&raw, "%o ", l->entries[i].mode);
        buf_add_str(&raw, l->entries[i].name);
        buf_putc(&raw, '\0');
        buf_add(&raw, l->entries[i].id.id, sizeof(l->entries[i].id.id));
    }
    if (buf_check(&raw, "a folder", err) < 0)
        return err->code;
    return repo_write(r, GIT_OBJECT_TREE, buf_str(&raw), ret, err);
}

static memfs_code put_file(repo *r, entry_list *l, const amend_file *file, memfs_str name,
                           memfs_error *err)
{
    tree_entry *e = find_entry(l, name);
    memfs_code rc;

    if (file->is_gone) {
        if (e != NULL && !repo_entry_is_folder(e))
            remove_entry(l, e);
        return MEMFS_OK;
    }
    if (e != NULL && repo_entry_is_folder(e))
        return memfs_fail(err, MEMFS_EINVALID, "'%.200s' is a folder", file->path);
    if (e == NULL) {
        e = &l->entries[l->n];
        *e = (tree_entry){ .mode = TREE_MODE_FILE, .name = name };
        rc = repo_write(r, GIT_OBJECT_BLOB, file->content, &e->id, err);
        l->n += rc == MEMFS_OK;
        return rc;
    }
    if (e->mode != TREE_MODE_EXEC)
        e->mode = TREE_MODE_FILE;
    return repo_write(r, GIT_OBJECT_BLOB, file->content, &e->id, err);
}

static memfs_code amend_folder(repo *r, const memfs_oid *folder, const folder_change *c,
                               memfs_oid *ret, bool *ret_is_empty, memfs_error *err);

static bool any_is_put(const folder_change *c)
{
    for (size_t i = 0; i < c->n; i++)
        if (!c->files[i]->is_gone)
            return true;
    return false;
}

static memfs_code put_folder(repo *r, entry_list *l, const folder_change *below, memfs_str name,
                             memfs_error *err)
{
    tree_entry *e = find_entry(l, name);
    bool is_empty;
    memfs_oid id;
    memfs_code rc;

    if (e == NULL && !any_is_put(below))
        return MEMFS_OK;
    if (e != NULL && !repo_entry_is_folder(e))
        return any_is_put(below) ? memfs_fail(err, MEMFS_EINVALID, "'%.200s' lies below a file",
                                              below->files[0]->path)
                                 : MEMFS_OK;
    rc = amend_folder(r, e != NULL ? &e->id : NULL, below, &id, &is_empty, err);
    if (rc < 0)
        return rc;
    if (is_empty && e != NULL)
        remove_entry(l, e);
    else if (!is_empty && e != NULL)
        e->id = id;
    else if (!is_empty)
        l->entries[l->n++] = (tree_entry){ .mode = TREE_MODE_FOLDER, .name = name, .id = id };
    return MEMFS_OK;
}

static memfs_code amend_folder(repo *r, const memfs_oid *folder, const folder_change *c,
                               memfs_oid *ret, bool *ret_is_empty, memfs_error *err)
{
    _cleanup_(entry_list_dispose) entry_list l = { .raw = NULL };
    memfs_code rc = read_folder(r, folder, c->n, &l, err);
    memfs_str name;

    for (size_t i = 0, n; rc == MEMFS_OK && i < c->n; i += n == 0 ? 1 : n) {
        n = run_of_folder(c, i, &name);
        if (n == 0)
            rc = put_file(r, &l, c->files[i], name, err);
        else
            rc = put_folder(r, &l, &(folder_change){ c->files + i, n, c->skip + name.len + 1 },
                            name, err);
    }
    *ret_is_empty = l.n == 0;
    return rc < 0 ? rc : write_folder(r, &l, ret, err);
}

/* What goes makes room for what comes: a file where a folder was, and the other way round. */
static int compare_files(const void *a, const void *b)
{
    const amend_file *one = *(const amend_file *const *)a, *two = *(const amend_file *const *)b;

    return one->is_gone != two->is_gone ? (int)two->is_gone - (int)one->is_gone
                                        : strcmp(one->path, two->path);
}

static memfs_code amend_tree(repo *r, const memfs_oid *tree, const amend_file *files, size_t n,
                             memfs_oid *ret, memfs_error *err)
{
    const amend_file **sorted = mem_alloc((n + 1) * sizeof(const amend_file *));
    memfs_code rc = MEMFS_OK;
    size_t n_gone = 0;
    bool is_empty;

    for (size_t i = 0; i < n; i++) {
        sorted[i] = &files[i];
        n_gone += files[i].is_gone;
    }
    qsort(sorted, n, sizeof(*sorted), compare_files);
    *ret = *tree;
    if (n_gone > 0)
        rc = amend_folder(r, ret, &(folder_change){ sorted, n_gone, 0 }, ret, &is_empty, err);
    if (rc == MEMFS_OK && n > n_gone)
        rc = amend_folder(r, ret, &(folder_change){ sorted + n_gone, n - n_gone, 0 }, ret,
                          &is_empty, err);
    free(sorted);
    return rc;
}

memfs_code amend_commit(repo *r, const memfs_oid *parent, const amend_file *files, size_t n,
                        const store_identity *who, memfs_str message, memfs_oid *ret,
                        memfs_error *err)
{
    memfs_oid tree, old;
    memfs_code rc = repo_tree_of_commit(r, parent, &old, err);

    if (rc == MEMFS_OK)
        rc = amend_tree(r, &old, files, n, &tree, err);
    *ret = *parent;
    if (rc < 0 || oid_equal(&tree, &old))
        return rc;
    return repo_commit_tree(r, &tree, parent, 1, who, message, ret, err);
}
