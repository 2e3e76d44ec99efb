#include "store/merge_int.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * Three trees side by side.
 *
 * Raw trees are sorted, so base, a and b are read like three sorted lists; what is the same on both
 * sides, or changed on one side only, is passed over or taken by its id without being opened.  The
 * result begins as a's tree, so that what only a changed costs nothing at all; the rest becomes
 *
 *   edits    what the result has otherwise than a: b's own changes, as whole folders where a has not
 *            touched them
 *   items    files for which a decision is due
 *
 * Then renames join items with files that are new on a side (merge_rename.c), each item is settled
 * into edits (merge_item.c), and the edits are put into a's tree (merge_build.c).
 *
 * A file and a folder of one name are two entries here, as in git's order; merge_build.c sees to it
 * that they do not both keep the name.
 *
 * The stack is an array bounded by the policy's depth, as in diff.c.
 */

typedef struct side {
    git_odb_object *object; /* NULL: this side has no such folder */
    memfs_str raw;
    size_t pos;
    bool has;
    tree_entry entry;
} side;

typedef struct frame {
    side at[MERGE_N_SIDES];
    size_t path_len;
} frame;

typedef struct walker {
    merge_plan *m;
    memfs_buf path;
    frame *frames;
    size_t depth;
    uint64_t n_left;
} walker;

static void close_folder(walker *w)
{
    frame *f = &w->frames[--w->depth];

    for (int i = 0; i < MERGE_N_SIDES; i++)
        git_odb_object_free(f->at[i].object);
}

static void walker_dispose(walker *w)
{
    while (w->depth > 0)
        close_folder(w);
    free(w->frames);
    buf_dispose(&w->path);
}

static memfs_code side_next(side *s, memfs_error *err)
{
    bool is_bad;

    s->has = tree_next(s->raw, &s->pos, &s->entry, &is_bad);
    return is_bad ? memfs_fail(err, MEMFS_ECORRUPT, "a tree object cannot be read") : MEMFS_OK;
}

static memfs_code open_folder(walker *w, const merge_entry at[MERGE_N_SIDES], memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    frame *f;

    if (w->depth > w->m->p.max_depth)
        return memfs_fail(err, MEMFS_ELIMIT, "folders are nested deeper than %u",
                          w->m->p.max_depth);
    f = &w->frames[w->depth++];
    *f = (frame){ .path_len = w->path.len };
    for (int i = 0; rc == MEMFS_OK && i < MERGE_N_SIDES; i++) {
        if (!at[i].has)
            continue;
        rc = repo_read_tree(w->m->r, &at[i].id, &f->at[i].object, err);
        if (rc < 0)
            break;
        f->at[i].raw = repo_raw(f->at[i].object);
        rc = side_next(&f->at[i], err);
    }
    return rc;
}

static char *path_text(const walker *w)
{
    return mem_strndup(w->path.ptr, w->path.len);
}

static void add_item(walker *w, const merge_entry at[MERGE_N_SIDES])
{
    merge_plan *m = w->m;
    merge_item *item;

    if (m->n_items == m->cap_items) {
        m->cap_items = m->cap_items == 0 ? 16 : m->cap_items * 2;
        m->items = mem_realloc(m->items, m->cap_items, sizeof(*m->items));
    }
    item = &m->items[m->n_items++];
    *item = (merge_item){ .path = path_text(w) };
    memcpy(item->at, at, sizeof(item->at));
}

/* The entries of one name and kind; w->path is theirs.  At least one side has it. */
static memfs_code judge(walker *w, const merge_entry at[MERGE_N_SIDES], bool is_folder,
                        memfs_error *err)
{
    const merge_entry *o = &at[MERGE_SIDE_BASE], *a = &at[MERGE_SIDE_A], *b = &at[MERGE_SIDE_B];

    if (merge_entry_equal(a, b) && a->has)
        return MEMFS_OK;
    if (a->has || b->has) {
        if (merge_entry_equal(b, o))
            return MEMFS_OK;
        if (merge_entry_equal(a, o)) {
            merge_plan_edit(w->m, w->path.ptr, is_folder, b);
            return MEMFS_OK;
        }
    }
    /* what both deleted is looked at too: both may have moved it */
    if (w->n_left-- == 0)
        return memfs_fail(err, MEMFS_ELIMIT, "more than %llu files differ",
                          (unsigned long long)w->m->p.max_entries * 3);
    if (is_folder) {
        buf_putc(&w->path, '/');
        return open_folder(w, at, err);
    }
    add_item(w, at);
    return MEMFS_OK;
}

/* The smallest name that any side has next; NULL: the folder is at its end. */
static const tree_entry *smallest(const frame *f)
{
    const tree_entry *least = NULL;

    for (int i = 0; i < MERGE_N_SIDES; i++)
        if (f->at[i].has && (least == NULL || repo_entry_compare(&f->at[i].entry, least) < 0))
            least = &f->at[i].entry;
    return least;
}

static memfs_code step(walker *w, const tree_entry *least, memfs_error *err)
{
    frame *f = &w->frames[w->depth - 1];
    merge_entry at[MERGE_N_SIDES] = { 0 };
    tree_entry name = *least;
    memfs_code rc = MEMFS_OK;

    buf_truncate(&w->path, f->path_len);
    buf_add_str(&w->path, name.name);
    for (int i = 0; rc == MEMFS_OK && i < MERGE_N_SIDES; i++) {
        const tree_entry *e = &f->at[i].entry;

        if (!f->at[i].has || repo_entry_compare(e, &name) != 0)
            continue;
        at[i] = (merge_entry){ true, e->mode, e->id };
        rc = side_next(&f->at[i], err);
    }
    return rc == MEMFS_OK ? judge(w, at, repo_entry_is_folder(&name), err) : rc;
}

static memfs_code walk(merge_plan *m, memfs_error *err)
{
    _cleanup_(walker_dispose) walker w = { .m = m,
                                           .path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                                           .n_left = m->p.max_entries * 3 };
    merge_entry roots[MERGE_N_SIDES];
    memfs_code rc;

    for (int i = 0; i < MERGE_N_SIDES; i++)
        roots[i] = (merge_entry){ i != MERGE_SIDE_BASE || m->has_base, TREE_MODE_FOLDER,
                                  m->root[i] };
    w.frames = mem_alloc((m->p.max_depth + 1) * sizeof(*w.frames));
    rc = open_folder(&w, roots, err);
    while (rc == MEMFS_OK && w.depth > 0) {
        const tree_entry *least = smallest(&w.frames[w.depth - 1]);

        if (least != NULL)
            rc = step(&w, least, err);
        else
            close_folder(&w);
    }
    return rc;
}

/* ---- the plan ---- */

static void plan_dispose(merge_plan *m)
{
    for (size_t i = 0; i < m->n_items; i++)
        free(m->items[i].path);
    for (size_t i = 0; i < m->n_edits; i++)
        free(m->edits[i].path);
    free(m->items);
    free(m->edits);
}

static merge_edit *add_edit(merge_plan *m, const char *path)
{
    merge_edit *e;

    if (m->n_edits == m->cap_edits) {
        m->cap_edits = m->cap_edits == 0 ? 16 : m->cap_edits * 2;
        m->edits = mem_realloc(m->edits, m->cap_edits, sizeof(*m->edits));
    }
    e = &m->edits[m->n_edits];
    *e = (merge_edit){ .path = mem_strdup(path), .seq = m->n_edits };
    m->n_edits++;
    return e;
}

void merge_plan_edit(merge_plan *m, const char *path, bool is_folder, const merge_entry *entry)
{
    merge_edit *e = add_edit(m, path);

    e->is_folder = is_folder;
    e->entry = *entry;
}

void merge_plan_beside(merge_plan *m, const char *path, merge_rule rule, const merge_entry *entry)
{
    merge_edit *e = add_edit(m, path);

    e->is_beside = true;
    e->rule = rule;
    e->entry = *entry;
}

static int compare_items(const void *a, const void *b)
{
    return strcmp(((const merge_item *)a)->path, ((const merge_item *)b)->path);
}

merge_item *merge_plan_find(merge_plan *m, const char *path)
{
    merge_item key = { .path = (char *)path };

    if (m->n_items == 0)
        return NULL;
    return bsearch(&key, m->items, m->n_items, sizeof(*m->items), compare_items);
}

static memfs_code find_in(repo *r, const memfs_oid *tree, memfs_str name, merge_entry *ret,
                          memfs_error *err)
{
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    memfs_code rc = repo_read_tree(r, tree, &object, err);
    bool is_bad = false;
    size_t pos = 0;
    tree_entry e;

    *ret = (merge_entry){ false };
    while (rc == MEMFS_OK && tree_next(repo_raw(object), &pos, &e, &is_bad)) {
        if (!str_equal(e.name, name))
            continue;
        *ret = (merge_entry){ true, e.mode, e.id };
        return MEMFS_OK;
    }
    return rc == MEMFS_OK && is_bad
               ? memfs_fail(err, MEMFS_ECORRUPT, "a tree object cannot be read")
               : rc;
}

memfs_code merge_plan_lookup(merge_plan *m, int at, memfs_str path, merge_entry *ret,
                             memfs_error *err)
{
    merge_entry here = { at != MERGE_SIDE_BASE || m->has_base, TREE_MODE_FOLDER, m->root[at] };
    memfs_code rc = MEMFS_OK;
    memfs_str name, rest;

    while (rc == MEMFS_OK && here.has && path.len > 0) {
        if (!str_split(path, '/', &name, &rest)) {
            name = path;
            rest = MEMFS_STR("");
        }
        path = rest;
        if (here.mode != TREE_MODE_FOLDER)
            here.has = false;
        else
            rc = find_in(m->r, &here.id, name, &here, err);
    }
    *ret = here;
    return rc;
}

memfs_code merge_write(repo *r, git_object_t type, memfs_str bytes, memfs_oid *ret,
                       memfs_error *err)
{
    git_oid id;
    int rc = git_odb_write(&id, r->odb, bytes.ptr, bytes.len, type);

    if (rc < 0)
        return store_fail_git(err, rc, "could not write an object of the merge");
    repo_memfs_oid(&id, ret);
    return MEMFS_OK;
}

memfs_code merge_three(repo *r, const memfs_oid *base, const memfs_oid *a, const memfs_oid *b,
                       memfs_oid *ret, merge_result *notes, memfs_error *err)
{
    _cleanup_(plan_dispose) merge_plan m = { .r = r, .p = POLICY_INIT, .notes = notes };
    bool is_swapped = memcmp(a->id, b->id, sizeof(a->id)) > 0;
    memfs_code rc;

    *ret = *a;
    if (oid_equal(a, b))
        return MEMFS_OK;
    m.root[MERGE_SIDE_A] = is_swapped ? *b : *a;
    m.root[MERGE_SIDE_B] = is_swapped ? *a : *b;
    m.has_base = base != NULL;
    if (base != NULL)
        m.root[MERGE_SIDE_BASE] = *base;
    rc = walk(&m, err);
    if (rc < 0)
        return rc;
    if (m.n_items > 0)
        qsort(m.items, m.n_items, sizeof(*m.items), compare_items);
    rc = merge_renames(&m, err);
    for (size_t i = 0; rc == MEMFS_OK && i < m.n_items; i++)
        if (!m.items[i].is_settled)
            rc = merge_settle(&m, &m.items[i], err);
    if (rc == MEMFS_OK)
        rc = merge_build(&m, ret, err);
    if (rc == MEMFS_OK && notes != NULL)
        merge_notes_sort(notes);
    return rc;
}
