#include "store/merge_int.h"

#include "base/mem.h"
#include "store/incoming_int.h"
#include "store/similar.h"

#include <stdlib.h>

/*
 * Which files moved.
 *
 * Only that matters of a rename which the plain table would get wrong, so a file is looked for only
 * where it is gone on one side while
 *
 *   the other side changed it    the change must follow it to the new name
 *   the other side lacks it too  both may have moved it: to one name, where the base's text makes a
 *                                proper merge of it, or to two, of which the smaller is kept
 *
 * What it may have become is a file that is new on the side where it is gone.  The same blob is the
 * same file (a like base name first, then the path's order); of what is left, pairs of texts are
 * scored by the bytes of their common lines over the size of the larger, and joined from the best
 * down to half.  At most SIMILAR_MAX of each are compared, those with a like base name first.
 *
 * Each side is searched by itself and ties are broken by paths, so that the outcome hangs on the
 * three trees alone.  A new name that the other side has taken is no rename: then nothing moves,
 * the changed file stays and the two new files are merged.
 */

#define SAME_MAX 200
#define SIMILAR_MAX 200

#define NONE SIZE_MAX

/* A file that is new on a side. */
typedef struct added {
    char *path;
    merge_entry entry;
    bool may_become; /* something: a file, not empty */
    size_t item;     /* that became it; NONE */
} added;

typedef struct search {
    merge_plan *m;
    int side;
    added *at; /* sorted by path */
    size_t n, cap;
    bool is_listed; /* at is filled */
    size_t *became; /* by item: place in `at`; NONE */
} search;

static void search_dispose(search *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->at[i].path);
    free(s->at);
    free(s->became);
}

static memfs_str base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return str_of(slash != NULL ? slash + 1 : path);
}

static bool is_empty_blob(const memfs_oid *id)
{
    static const memfs_oid empty = { { 0xe6, 0x9d, 0xe2, 0x9b, 0xb2, 0xd1, 0xd6, 0x43, 0x4b, 0x8b,
                                       0x29, 0xae, 0x77, 0x5a, 0xd8, 0xc2, 0xe4, 0x8c, 0x53,
                                       0x91 } };

    return oid_equal(id, &empty);
}

/*
 * Is it a file of the base that is gone on this side?  Empty files are all alike, they move
 * nowhere.
 */
static bool is_source(const search *s, const merge_item *item)
{
    return merge_entry_is_regular(&item->at[MERGE_SIDE_BASE]) && !item->at[s->side].has &&
           !is_empty_blob(&item->at[MERGE_SIDE_BASE].id);
}

static bool has_source(const search *s)
{
    for (size_t i = 0; i < s->m->n_items; i++)
        if (is_source(s, &s->m->items[i]))
            return true;
    return false;
}

/* ---- what is new ---- */

static memfs_code note_added(const tree_change *c, void *ctx, memfs_error *err)
{
    search *s = ctx;
    merge_entry entry = { true, c->new_mode, c->new_id };

    (void)err;
    if (c->has_old || !c->has_new)
        return MEMFS_OK;
    if (s->n == s->cap) {
        s->cap = s->cap == 0 ? 16 : s->cap * 2;
        s->at = mem_realloc(s->at, s->cap, sizeof(*s->at));
    }
    s->at[s->n++] = (added){ mem_strndup(c->path.ptr, c->path.len), entry,
                             merge_entry_is_regular(&entry) && !is_empty_blob(&entry.id), NONE };
    return MEMFS_OK;
}

static int compare_added(const void *a, const void *b)
{
    return strcmp(((const added *)a)->path, ((const added *)b)->path);
}

/* Also what was a folder or a link in the base counts as new: it was no file. */
static memfs_code find_added(search *s, memfs_error *err)
{
    memfs_code rc;

    if (s->is_listed)
        return MEMFS_OK;
    s->is_listed = true;
    rc = repo_diff_files(s->m->r, &s->m->root[MERGE_SIDE_BASE], &s->m->root[s->side], &s->m->p,
                         note_added, s, err);
    if (rc == MEMFS_OK && s->n > 0)
        qsort(s->at, s->n, sizeof(*s->at), compare_added);
    return rc;
}

static bool has_added(const search *s, const char *path)
{
    added key = { .path = (char *)path };

    return s->n > 0 && bsearch(&key, s->at, s->n, sizeof(*s->at), compare_added) != NULL;
}

static void join(search *s, size_t item, size_t place)
{
    s->became[item] = place;
    s->at[place].item = item;
}

/* ---- the same blob ---- */

typedef struct by_id {
    memfs_oid id;
    size_t place;
    size_t n_taken; /* in the first of each id: so many from here on are not free any more */
} by_id;

static int compare_by_id(const void *a, const void *b)
{
    const by_id *x = a, *y = b;
    int order = memcmp(x->id.id, y->id.id, sizeof(x->id.id));

    return order != 0 ? order : (x->place > y->place) - (x->place < y->place);
}

static size_t first_with(const by_id *list, size_t n, const memfs_oid *id)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (memcmp(list[middle].id.id, id->id, sizeof(id->id)) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/*
 * The place for this item among those with its blob: a like base name, else the first that is free.
 * Of many alike only SAME_MAX are looked at for a like name.
 */
static size_t pick_same(const search *s, by_id *list, size_t n, const merge_item *item,
                        bool only_like)
{
    const memfs_oid *id = &item->at[MERGE_SIDE_BASE].id;
    size_t first = first_with(list, n, id), i = first;

    if (first == n || !oid_equal(&list[first].id, id))
        return NONE;
    for (i += list[first].n_taken; i < n && oid_equal(&list[i].id, id); i++) {
        const added *to = &s->at[list[i].place];

        if (to->item == NONE &&
            (!only_like || str_equal(base_name(to->path), base_name(item->path))))
            return list[i].place;
        if (to->item != NONE && i == first + list[first].n_taken)
            list[first].n_taken++;
        if (only_like && i - first - list[first].n_taken > SAME_MAX)
            break;
    }
    return NONE;
}

static void join_same(search *s)
{
    by_id *list = mem_alloc((s->n + 1) * sizeof(*list));
    size_t n = 0;

    for (size_t i = 0; i < s->n; i++)
        if (s->at[i].may_become)
            list[n++] = (by_id){ s->at[i].entry.id, i, 0 };
    qsort(list, n, sizeof(*list), compare_by_id);
    for (int only_like = 1; only_like >= 0; only_like--)
        for (size_t i = 0; i < s->m->n_items; i++) {
            size_t place = NONE;

            if (s->became[i] == NONE && is_source(s, &s->m->items[i]))
                place = pick_same(s, list, n, &s->m->items[i], only_like);
            if (place != NONE)
                join(s, i, place);
        }
    free(list);
}

/* ---- a similar text ---- */

typedef struct shape {
    similar_shape text;
    size_t index; /* of the item, or place of the added */
    const char *path;
} shape;

typedef struct shapes {
    shape at[SIMILAR_MAX];
    size_t n;
} shapes;

static void shapes_freep(shapes **p)
{
    if (*p == NULL)
        return;
    for (size_t i = 0; i < (*p)->n; i++)
        similar_dispose(&(*p)->at[i].text);
    free(*p);
}

static memfs_code add_shape(repo *r, shapes *list, const memfs_oid *id, size_t index,
                            const char *path, memfs_error *err)
{
    shape *s = &list->at[list->n++];

    s->index = index;
    s->path = path;
    return similar_read(r, id, &s->text, err);
}

static memfs_code gather_sources(search *s, shapes *list, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < s->m->n_items && list->n < SIMILAR_MAX; i++) {
        const merge_item *item = &s->m->items[i];

        if (s->became[i] == NONE && is_source(s, item))
            rc = add_shape(s->m->r, list, &item->at[MERGE_SIDE_BASE].id, i, item->path, err);
    }
    return rc;
}

static bool is_like_any(const shapes *sources, const char *path)
{
    for (size_t i = 0; i < sources->n; i++)
        if (str_equal(base_name(sources->at[i].path), base_name(path)))
            return true;
    return false;
}

static memfs_code gather_added(search *s, const shapes *sources, shapes *list, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (int like = 1; like >= 0; like--)
        for (size_t i = 0; rc == MEMFS_OK && i < s->n && list->n < SIMILAR_MAX; i++) {
            const added *a = &s->at[i];

            if (a->item == NONE && a->may_become && is_like_any(sources, a->path) == (like == 1))
                rc = add_shape(s->m->r, list, &a->entry.id, i, a->path, err);
        }
    return rc;
}

typedef struct pair {
    unsigned percent;
    bool is_like;
    const shape *from, *to;
} pair;

static int compare_pairs(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    int order;

    if (x->percent != y->percent)
        return x->percent > y->percent ? -1 : 1;
    if (x->is_like != y->is_like)
        return x->is_like ? -1 : 1;
    order = strcmp(x->from->path, y->from->path);
    return order != 0 ? order : strcmp(x->to->path, y->to->path);
}

static void join_best(search *s, const shapes *from, const shapes *to)
{
    pair *pairs = mem_alloc((from->n * to->n + 1) * sizeof(*pairs));
    size_t n = 0;

    for (size_t i = 0; i < from->n; i++)
        for (size_t j = 0; j < to->n; j++) {
            unsigned percent = similar_percent(&from->at[i].text, &to->at[j].text);

            if (percent >= SIMILAR_AT_LEAST)
                pairs[n++] = (pair){ percent,
                                     str_equal(base_name(from->at[i].path),
                                               base_name(to->at[j].path)),
                                     &from->at[i], &to->at[j] };
        }
    qsort(pairs, n, sizeof(*pairs), compare_pairs);
    for (size_t i = 0; i < n; i++)
        if (s->became[pairs[i].from->index] == NONE && s->at[pairs[i].to->index].item == NONE)
            join(s, pairs[i].from->index, pairs[i].to->index);
    free(pairs);
}

static memfs_code join_similar(search *s, memfs_error *err)
{
    _cleanup_(shapes_freep) shapes *from = mem_alloc(sizeof(*from));
    _cleanup_(shapes_freep) shapes *to = mem_alloc(sizeof(*to));
    memfs_code rc = gather_sources(s, from, err);

    if (rc == MEMFS_OK && from->n > 0)
        rc = gather_added(s, from, to, err);
    if (rc == MEMFS_OK && to->n > 0)
        join_best(s, from, to);
    return rc;
}

static memfs_code search_side(merge_plan *m, int side, search *s, memfs_error *err)
{
    memfs_code rc;

    *s = (search){ .m = m, .side = side };
    s->became = mem_alloc((m->n_items + 1) * sizeof(*s->became));
    for (size_t i = 0; i < m->n_items; i++)
        s->became[i] = NONE;
    if (!m->has_base || !has_source(s))
        return MEMFS_OK;
    rc = find_added(s, err);
    if (rc < 0 || s->n == 0)
        return rc;
    join_same(s);
    return join_similar(s, err);
}

/* ---- what follows from it ---- */

static void remove_file(merge_plan *m, const char *path)
{
    merge_plan_edit(m, path, false, &(merge_entry){ false });
}

static void note_moved(merge_plan *m, merge_rule rule, const char *path, const char *other)
{
    if (m->notes != NULL)
        merge_note_add_path(m->notes, rule, str_of(path), str_of(other));
}

/* Settles three states of one file under the name `path`. */
static memfs_code settle_as(merge_plan *m, const char *path, const merge_entry at[MERGE_N_SIDES],
                            memfs_error *err)
{
    _cleanup_(mem_freep) char *name = mem_strdup(path);
    merge_item item = { .path = name };

    memcpy(item.at, at, sizeof(item.at));
    if (merge_entry_equal(&at[MERGE_SIDE_A], &at[MERGE_SIDE_B])) {
        merge_plan_edit(m, name, false, &at[MERGE_SIDE_A]);
        return MEMFS_OK;
    }
    return merge_settle(m, &item, err);
}

/* Gone on s->side, where it is `to` now; changed on the other. */
static memfs_code follow(merge_plan *m, const search *s, search *other, size_t i,
                         memfs_error *err)
{
    const added *to = &s->at[s->became[i]];
    merge_item *item = &m->items[i];
    merge_entry at[MERGE_N_SIDES];
    memfs_code rc = find_added(other, err);

    if (rc < 0 || has_added(other, to->path))
        return rc;
    memcpy(at, item->at, sizeof(at));
    at[s->side] = to->entry;
    item->is_settled = true;
    remove_file(m, item->path);
    rc = settle_as(m, to->path, at, err);
    note_moved(m, MERGE_RULE_FOLLOWED, to->path, item->path);
    return rc;
}

/* Both sides moved it, to one name: if they differ there, that is an item with a base after all. */
static void give_base(merge_plan *m, const merge_item *from, const char *path)
{
    merge_item *item = merge_plan_find(m, path);

    if (item != NULL && !item->at[MERGE_SIDE_BASE].has)
        item->at[MERGE_SIDE_BASE] = from->at[MERGE_SIDE_BASE];
}

static memfs_code moved_twice(merge_plan *m, const merge_item *item, const added *a,
                              const added *b, memfs_error *err)
{
    merge_entry at[MERGE_N_SIDES] = { item->at[MERGE_SIDE_BASE], a->entry, b->entry };
    bool a_first = strcmp(a->path, b->path) < 0;
    const char *name = a_first ? a->path : b->path, *other = a_first ? b->path : a->path;
    memfs_code rc;

    remove_file(m, other);
    rc = settle_as(m, name, at, err);
    note_moved(m, MERGE_RULE_RENAMED_TWICE, name, other);
    return rc;
}

static memfs_code gone_on_both(merge_plan *m, const search *a, const search *b, size_t i,
                               memfs_error *err)
{
    const added *to_a, *to_b;

    if (a->became[i] == NONE || b->became[i] == NONE)
        return MEMFS_OK;
    to_a = &a->at[a->became[i]];
    to_b = &b->at[b->became[i]];
    if (strcmp(to_a->path, to_b->path) == 0)
        give_base(m, &m->items[i], to_a->path);
    else if (!has_added(b, to_a->path) && !has_added(a, to_b->path))
        return moved_twice(m, &m->items[i], to_a, to_b, err);
    return MEMFS_OK;
}

static memfs_code apply_one(merge_plan *m, search *a, search *b, size_t i, memfs_error *err)
{
    bool in_a = m->items[i].at[MERGE_SIDE_A].has, in_b = m->items[i].at[MERGE_SIDE_B].has;

    if (!in_a && !in_b)
        return gone_on_both(m, a, b, i, err);
    if (!in_a && a->became[i] != NONE)
        return follow(m, a, b, i, err);
    if (!in_b && b->became[i] != NONE)
        return follow(m, b, a, i, err);
    return MEMFS_OK;
}

memfs_code merge_renames(merge_plan *m, memfs_error *err)
{
    _cleanup_(search_dispose) search a = { .m = m }, b = { .m = m };
    memfs_code rc = search_side(m, MERGE_SIDE_A, &a, err);

    if (rc == MEMFS_OK)
        rc = search_side(m, MERGE_SIDE_B, &b, err);
    for (size_t i = 0; rc == MEMFS_OK && i < m->n_items; i++)
        rc = apply_one(m, &a, &b, i, err);
    return rc;
}
