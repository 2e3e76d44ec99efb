#include "store/compare.h"

#include "base/mem.h"
#include "memory/merge.h"
#include "store/similar.h"
#include "store/store_int.h"

#include <stdlib.h>

/*
 * The files that differ come from our own walk over two trees (diff.c); libgit2 only compares two
 * texts, which needs no repository: so no attributes, drivers or configuration have a say.
 */

#define SIMILAR_MAX 100
#define SIMILAR_MAX_BYTES (8u << 20) /* read for it, of all files */
#define NONE SIZE_MAX

typedef struct item {
    char *path;
    bool has_old, has_new;
    memfs_oid old_id, new_id;
    uint32_t old_mode, new_mode;
    size_t became, was; /* the other half of a rename */
} item;

typedef struct items {
    item *at;
    size_t n, cap;
} items;

static void items_dispose(items *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->at[i].path);
    free(list->at);
}

static bool is_file(bool has, uint32_t mode)
{
    return has && (mode == TREE_MODE_FILE || mode == TREE_MODE_EXEC);
}

static memfs_code add_item(const tree_change *c, void *ctx, memfs_error *err)
{
    bool was = is_file(c->has_old, c->old_mode), is = is_file(c->has_new, c->new_mode);
    items *list = ctx;
    item *to;

    (void)err;
    if (!was && !is)
        return MEMFS_OK;
    if (list->n == list->cap) {
        list->cap = list->cap == 0 ? 16 : list->cap * 2;
        list->at = mem_realloc(list->at, list->cap, sizeof(*list->at));
    }
    to = &list->at[list->n++];
    *to = (item){ .path = mem_strndup(c->path.ptr, c->path.len),
                  .has_old = was,
                  .has_new = is,
                  .became = NONE,
                  .was = NONE };
    if (was) {
        to->old_id = c->old_id;
        to->old_mode = c->old_mode;
    }
    if (is) {
        to->new_id = c->new_id;
        to->new_mode = c->new_mode;
    }
    return MEMFS_OK;
}

static int compare_items(const void *a, const void *b)
{
    return strcmp(((const item *)a)->path, ((const item *)b)->path);
}

/* ---- renames ---- */

static bool is_source(const item *i)
{
    return i->has_old && !i->has_new && i->became == NONE;
}

static bool is_target(const item *i)
{
    return i->has_new && !i->has_old && i->was == NONE;
}

static void join(items *list, size_t from, size_t to)
{
    list->at[from].became = to;
    list->at[to].was = from;
}

typedef struct by_id {
    memfs_oid id;
    size_t place;
} by_id;

static int compare_by_id(const void *a, const void *b)
{
    const by_id *x = a, *y = b;
    int order = memcmp(x->id.id, y->id.id, sizeof(x->id.id));

    return order != 0 ? order : (x->place > y->place) - (x->place < y->place);
}

/* The n-th of one id that is gone became the n-th of that id that is new. */
static void join_same(items *list)
{
    by_id *gone = mem_alloc((list->n + 1) * sizeof(*gone));
    by_id *new = mem_alloc((list->n + 1) * sizeof(*new));
    size_t n_gone = 0, n_new = 0;

    for (size_t i = 0; i < list->n; i++) {
        if (is_source(&list->at[i]))
            gone[n_gone++] = (by_id){ list->at[i].old_id, i };
        else if (is_target(&list->at[i]))
            new[n_new++] = (by_id){ list->at[i].new_id, i };
    }
    qsort(gone, n_gone, sizeof(*gone), compare_by_id);
    qsort(new, n_new, sizeof(*new), compare_by_id);
    for (size_t i = 0, k = 0; i < n_gone && k < n_new;) {
        int order = memcmp(gone[i].id.id, new[k].id.id, sizeof(gone[i].id.id));

        if (order == 0)
            join(list, gone[i].place, new[k].place);
        i += order <= 0;
        k += order >= 0;
    }
    free(gone);
    free(new);
}

typedef struct shapes {
    similar_shape at[SIMILAR_MAX];
    size_t place[SIMILAR_MAX];
    size_t n;
} shapes;

static void shapes_freep(shapes **s)
{
    for (size_t i = 0; i < (*s)->n; i++)
        similar_dispose(&(*s)->at[i]);
    free(*s);
}

static memfs_code read_shapes(repo *r, const items *list, bool are_sources, uint64_t *n_left,
                              shapes *ret, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < list->n && ret->n < SIMILAR_MAX; i++) {
        const item *it = &list->at[i];
        const memfs_oid *id = are_sources ? &it->old_id : &it->new_id;
        uint64_t bytes;

        if (!(are_sources ? is_source(it) : is_target(it)))
            continue;
        rc = repo_blob_size(r, id, &bytes, err);
        if (rc < 0 || bytes > *n_left)
            continue;
        *n_left -= bytes;
        ret->place[ret->n] = i;
        rc = similar_read(r, id, &ret->at[ret->n++], err);
    }
    return rc;
}

/* Each that is gone, in the order of paths, became the most similar of those that are left. */
static void join_best(items *list, const shapes *gone, const shapes *new)
{
    for (size_t i = 0; i < gone->n; i++) {
        unsigned best = SIMILAR_AT_LEAST - 1;
        size_t to = NONE;

        for (size_t k = 0; k < new->n; k++) {
            unsigned percent = is_target(&list->at[new->place[k]])
                                   ? similar_percent(&gone->at[i], &new->at[k])
                                   : 0;

            if (percent > best) {
                best = percent;
                to = new->place[k];
            }
        }
        if (to != NONE)
            join(list, gone->place[i], to);
    }
}

static memfs_code find_renames(repo *r, items *list, memfs_error *err)
{
    _cleanup_(shapes_freep) shapes *gone = mem_alloc(sizeof(*gone));
    _cleanup_(shapes_freep) shapes *new = mem_alloc(sizeof(*new));
    uint64_t n_left = SIMILAR_MAX_BYTES;
    memfs_code rc;

    join_same(list);
    rc = read_shapes(r, list, true, &n_left, gone, err);
    if (rc == MEMFS_OK && gone->n > 0)
        rc = read_shapes(r, list, false, &n_left, new, err);
    if (rc == MEMFS_OK)
        join_best(list, gone, new);
    return rc;
}

/* ---- two texts ---- */

typedef struct texts {
    memfs_buf old, new;
    bool is_binary, is_cut;
    git_patch *lines; /* NULL: they were not compared */
} texts;
#define TEXTS_INIT                                                                                 \
    {                                                                                              \
        MEMFS_BUF_INIT(COMPARE_MAX_FILE), MEMFS_BUF_INIT(COMPARE_MAX_FILE), false, false, NULL     \
    }

static void texts_dispose(texts *t)
{
    git_patch_free(t->lines);
    buf_dispose(&t->old);
    buf_dispose(&t->new);
}

static memfs_code read_side(repo *r, const memfs_oid *id, compare_grant *grant, memfs_buf *out,
                            bool *is_cut, memfs_error *err)
{
    uint64_t bytes;
    memfs_code rc;

    if (oid_is_zero(id) || *is_cut)
        return MEMFS_OK;
    rc = repo_blob_size(r, id, &bytes, err);
    if (rc < 0)
        return rc;
    *is_cut = bytes > COMPARE_MAX_FILE || bytes > grant->read_bytes;
    if (*is_cut)
        return MEMFS_OK;
    grant->read_bytes -= bytes;
    return repo_blob(r, id, COMPARE_MAX_FILE, out, err);
}

static memfs_code compare_texts(repo *r, const memfs_oid *old, const memfs_oid *new,
                                compare_grant *grant, texts *t, memfs_error *err)
{
    git_diff_options options = GIT_DIFF_OPTIONS_INIT;
    memfs_code rc = read_side(r, old, grant, &t->old, &t->is_cut, err);
    int number;

    if (rc == MEMFS_OK)
        rc = read_side(r, new, grant, &t->new, &t->is_cut, err);
    if (rc < 0 || t->is_cut)
        return rc;
    t->is_binary = !merge_is_text(buf_str(&t->old)) || !merge_is_text(buf_str(&t->new));
    if (t->is_binary)
        return MEMFS_OK;
    options.flags = GIT_DIFF_FORCE_TEXT;
    number = git_patch_from_buffers(&t->lines, t->old.ptr, t->old.len, "a", t->new.ptr, t->new.len,
                                    "a", &options);
    return number == 0 ? MEMFS_OK : store_fail_git(err, number, "could not compare two files");
}

static memfs_code count(const texts *t, size_t *ret_added, size_t *ret_removed, memfs_error *err)
{
    int number;

    *ret_added = *ret_removed = 0;
    if (t->lines == NULL)
        return MEMFS_OK;
    number = git_patch_line_stats(NULL, ret_added, ret_removed, t->lines);
    return number == 0 ? MEMFS_OK : store_fail_git(err, number, "could not compare two files");
}

memfs_code compare_count(repo *r, const memfs_oid *old, const memfs_oid *new, compare_grant *grant,
                         size_t *ret_added, size_t *ret_removed, memfs_error *err)
{
    _cleanup_(texts_dispose) texts t = TEXTS_INIT;
    memfs_code rc = compare_texts(r, old, new, grant, &t, err);

    return rc < 0 ? rc : count(&t, ret_added, ret_removed, err);
}

/* ---- the patch ---- */

/* As git quotes a name that needs it; side "" : none. */
static void put_name(memfs_buf *out, const char *side, const char *path)
{
    bool is_odd = false;

    for (const char *c = path; *c != '\0'; c++)
        is_odd = is_odd || (unsigned char)*c < 0x20 || *c == '"' || *c == '\\' || *c == 0x7f;
    buf_puts(out, is_odd ? "\"" : "");
    buf_puts(out, side);
    for (const char *c = path; *c != '\0'; c++) {
        if (!is_odd || ((unsigned char)*c >= 0x20 && *c != '"' && *c != '\\' && *c != 0x7f))
            buf_putc(out, *c);
        else
            buf_printf(out, "\\%03o", (unsigned char)*c);
    }
    buf_puts(out, is_odd ? "\"" : "");
}

static void put_line(memfs_buf *out, const char *before, const char *side, const char *path)
{
    buf_puts(out, before);
    put_name(out, side, path);
    buf_putc(out, '\n');
}

static void put_modes(memfs_buf *out, const compare_file *f, const char *old_path)
{
    if (f->old_mode == 0)
        buf_printf(out, "new file mode %06o\n", f->mode);
    else if (f->mode == 0)
        buf_printf(out, "deleted file mode %06o\n", f->old_mode);
    else if (f->mode != f->old_mode)
        buf_printf(out, "old mode %06o\nnew mode %06o\n", f->old_mode, f->mode);
    if (f->status == 'R') {
        put_line(out, "rename from ", "", old_path);
        put_line(out, "rename to ", "", f->path);
    }
}

static void put_header(memfs_buf *out, const compare_file *f)
{
    const char *old_path = f->old_path != NULL ? f->old_path : f->path;
    char old_hex[MEMFS_OID_HEX + 1], hex[MEMFS_OID_HEX + 1];

    oid_hex(&f->old_blob, old_hex);
    oid_hex(&f->blob, hex);
    buf_puts(out, "diff --git ");
    put_name(out, "a/", old_path);
    buf_putc(out, ' ');
    put_line(out, "", "b/", f->path);
    put_modes(out, f, old_path);
    if (oid_equal(&f->old_blob, &f->blob))
        return;
    buf_printf(out, "index %s..%s", old_hex, hex);
    if (f->mode == f->old_mode)
        buf_printf(out, " %06o", f->mode);
    buf_putc(out, '\n');
    if (f->is_binary) {
        buf_puts(out, "Binary files differ\n");
        return;
    }
    if (f->n_added + f->n_removed == 0)
        return; /* an empty file comes or goes */
    put_line(out, "--- ", f->old_mode == 0 ? "" : "a/", f->old_mode == 0 ? "/dev/null" : old_path);
    put_line(out, "+++ ", f->mode == 0 ? "" : "b/", f->mode == 0 ? "/dev/null" : f->path);
}

/* From the first hunk on: what libgit2 writes before it knows nothing of our names. */
static void put_hunks(memfs_buf *out, memfs_str patch)
{
    for (memfs_str line, rest; patch.len > 0; patch = rest) {
        if (str_starts_with(patch, MEMFS_STR("@@ "))) {
            buf_add_str(out, patch);
            return;
        }
        if (!str_split(patch, '\n', &line, &rest))
            return;
    }
}

static memfs_code put_patch(memfs_buf *out, const compare_file *f, const texts *t, memfs_error *err)
{
    git_buf text = { NULL, 0, 0 };
    int number = 0;

    put_header(out, f);
    if (t->lines != NULL)
        number = git_patch_to_buf(&text, t->lines);
    if (number == 0)
        put_hunks(out, str_make(text.ptr != NULL ? text.ptr : "", text.size));
    git_buf_dispose(&text);
    return number == 0 ? MEMFS_OK : store_fail_git(err, number, "could not compare two files");
}

/* ---- one file after the other ---- */

typedef struct comparer {
    repo *r;
    const items *list;
    memfs_str only;
    compare_grant *grant;
    compare_fn fn;
    void *ctx;
} comparer;

static bool is_at_or_below(const char *path, memfs_str folder)
{
    while (folder.len > 0 && folder.ptr[folder.len - 1] == '/')
        folder.len--;
    return folder.len == 0 || (strncmp(path, folder.ptr, folder.len) == 0 &&
                               (path[folder.len] == '\0' || path[folder.len] == '/'));
}

/* False: it is told of as the other half of a rename. */
static bool fill_file(const items *list, const item *i, compare_file *ret)
{
    const item *old = i->was != NONE ? &list->at[i->was] : i;

    if (i->became != NONE)
        return false;
    *ret = (compare_file){ .path = i->path,
                           .old_path = i->was != NONE ? old->path : NULL,
                           .status = i->was != NONE ? 'R'
                                     : !i->has_old  ? 'A'
                                     : !i->has_new  ? 'D'
                                                    : 'M',
                           .old_blob = old->old_id,
                           .blob = i->new_id,
                           .old_mode = old->old_mode,
                           .mode = i->new_mode };
    return true;
}

static memfs_code tell(const comparer *c, compare_file *f, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf patch = MEMFS_BUF_INIT(c->grant->patch_bytes);
    _cleanup_(texts_dispose) texts t = TEXTS_INIT;
    memfs_code rc = MEMFS_OK;

    if (!oid_equal(&f->old_blob, &f->blob))
        rc = compare_texts(c->r, &f->old_blob, &f->blob, c->grant, &t, err);
    if (rc == MEMFS_OK)
        rc = count(&t, &f->n_added, &f->n_removed, err);
    f->is_binary = t.is_binary;
    f->is_cut = t.is_cut;
    if (rc == MEMFS_OK && !f->is_cut && c->grant->wants_patch)
        rc = put_patch(&patch, f, &t, err);
    if (rc < 0)
        return rc;
    f->is_cut = f->is_cut || patch.too_big;
    if (!f->is_cut) {
        c->grant->patch_bytes -= patch.len;
        f->patch = buf_str(&patch);
    }
    return c->fn(f, c->ctx, err);
}

static memfs_code tell_all(const comparer *c, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < c->list->n; i++) {
        compare_file f;

        if (fill_file(c->list, &c->list->at[i], &f) &&
            (is_at_or_below(f.path, c->only) ||
             (f.old_path != NULL && is_at_or_below(f.old_path, c->only))))
            rc = tell(c, &f, err);
    }
    return rc;
}

memfs_code compare_commits(repo *r, const memfs_oid *old, const memfs_oid *new, memfs_str only,
                           const policy *p, compare_grant *grant, compare_fn fn, void *ctx,
                           memfs_error *err)
{
    _cleanup_(items_dispose) items list = { NULL, 0, 0 };
    const comparer c = { r, &list, only, grant, fn, ctx };
    const policy wide = store_policy_of_history(p);
    memfs_code rc = repo_diff(r, old, new, &wide, add_item, &list, err);
    if (rc < 0 || list.n == 0)
        return rc;
    qsort(list.at, list.n, sizeof(*list.at), compare_items);
    rc = find_renames(r, &list, err);
    return rc < 0 ? rc : tell_all(&c, err);
}
