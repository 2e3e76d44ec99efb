#include "store/merge_int.h"

#include "base/mem.h"

/*
 * One file, three states of it: the table of design 7.  What only one side changed never comes
 * here.
 *
 * The texts are merged by memory/merge.h.  What it cannot make one text of (bytes that are no text,
 * links, files too large) is kept twice: the side with the smaller blob id under the name, the
 * other beside it.
 */

typedef struct noter {
    merge_plan *m;
    const char *path;
} noter;

static void take_note(merge_rule rule, memfs_str detail, void *ctx)
{
    noter *n = ctx;

    if (n->m->notes != NULL)
        merge_note_add(n->m->notes, rule, str_of(n->path), detail);
}

/* One side's mode if the other left it; else the one that can do more. */
static uint32_t merged_mode(const merge_item *item)
{
    const merge_entry *o = &item->at[MERGE_SIDE_BASE];
    uint32_t a = item->at[MERGE_SIDE_A].mode, b = item->at[MERGE_SIDE_B].mode;

    if (a == b)
        return a;
    if (o->has && a == o->mode)
        return b;
    if (o->has && b == o->mode)
        return a;
    return TREE_MODE_EXEC;
}

static void keep_two(merge_plan *m, const merge_item *item)
{
    const merge_entry *first = &item->at[MERGE_SIDE_A], *second = &item->at[MERGE_SIDE_B];
    int order = memcmp(first->id.id, second->id.id, sizeof(first->id.id));

    if (order > 0 || (order == 0 && first->mode > second->mode)) {
        first = &item->at[MERGE_SIDE_B];
        second = &item->at[MERGE_SIDE_A];
    }
    merge_plan_edit(m, item->path, false, first);
    merge_plan_beside(m, item->path, MERGE_RULE_BINARY, second);
}

static void keep_one(merge_plan *m, const merge_item *item, const memfs_oid *id)
{
    merge_entry e = { true, merged_mode(item), *id };

    merge_plan_edit(m, item->path, false, &e);
}

/* *ret_fits false: too large to be read as text. */
static memfs_code read_side(merge_plan *m, const merge_entry *e, memfs_buf *out, bool *ret_fits,
                            memfs_error *err)
{
    uint64_t bytes;
    memfs_code rc = repo_blob_size(m->r, &e->id, &bytes, err);

    if (rc < 0)
        return rc;
    *ret_fits = *ret_fits && bytes <= MERGE_MAX_TEXT_BYTES;
    return *ret_fits ? repo_blob(m->r, &e->id, MERGE_MAX_TEXT_BYTES, out, err) : MEMFS_OK;
}

typedef struct texts {
    memfs_buf at[MERGE_N_SIDES];
    memfs_buf merged;
} texts;

static void texts_dispose(texts *t)
{
    for (int i = 0; i < MERGE_N_SIDES; i++)
        buf_dispose(&t->at[i]);
    buf_dispose(&t->merged);
}

static memfs_code merge_texts(merge_plan *m, merge_item *item, memfs_error *err)
{
    _cleanup_(texts_dispose) texts t = { .merged = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED) };
    noter n = { m, item->path };
    bool has_base = merge_entry_is_regular(&item->at[MERGE_SIDE_BASE]), fits = true;
    size_t n_notes = m->notes != NULL ? m->notes->n_notes : 0;
    memfs_str base;
    memfs_oid id;
    memfs_code rc = MEMFS_OK;

    for (int i = 0; rc == MEMFS_OK && i < MERGE_N_SIDES; i++) {
        t.at[i] = (memfs_buf)MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
        if (i != MERGE_SIDE_BASE || has_base)
            rc = read_side(m, &item->at[i], &t.at[i], &fits, err);
    }
    if (rc < 0)
        return rc;
    base = buf_str(&t.at[MERGE_SIDE_BASE]);
    if (!fits || merge_file(has_base ? &base : NULL, buf_str(&t.at[MERGE_SIDE_A]),
                            buf_str(&t.at[MERGE_SIDE_B]), &t.merged, take_note,
                            &n) == MERGE_TWO_FILES ||
        t.merged.len > m->p.max_file_bytes) {
        if (m->notes != NULL)
            merge_notes_cut(m->notes, n_notes);
        keep_two(m, item);
        return MEMFS_OK;
    }
    rc = buf_check(&t.merged, "a merged file", err);
    if (rc == MEMFS_OK)
        rc = merge_write(m->r, GIT_OBJECT_BLOB, buf_str(&t.merged), &id, err);
    if (rc == MEMFS_OK)
        keep_one(m, item, &id);
    return rc;
}

/* Both sides have it, and have it differently. */
static memfs_code settle_contents(merge_plan *m, merge_item *item, memfs_error *err)
{
    const merge_entry *o = &item->at[MERGE_SIDE_BASE], *a = &item->at[MERGE_SIDE_A],
                      *b = &item->at[MERGE_SIDE_B];

    if (!merge_entry_is_regular(a) || !merge_entry_is_regular(b)) {
        if (merge_entry_equal(a, o) || merge_entry_equal(b, o)) /* of an item that moved */
            merge_plan_edit(m, item->path, false, merge_entry_equal(a, o) ? b : a);
        else
            keep_two(m, item);
        return MEMFS_OK;
    }
    if (oid_equal(&a->id, &b->id) || (o->has && oid_equal(&b->id, &o->id))) {
        keep_one(m, item, &a->id);
        return MEMFS_OK;
    }
    if (o->has && oid_equal(&a->id, &o->id)) {
        keep_one(m, item, &b->id);
        return MEMFS_OK;
    }
    return merge_texts(m, item, err);
}

memfs_code merge_settle(merge_plan *m, merge_item *item, memfs_error *err)
{
    const merge_entry *a = &item->at[MERGE_SIDE_A], *b = &item->at[MERGE_SIDE_B];

    item->is_settled = true;
    if (a->has && b->has)
        return settle_contents(m, item, err);
    if (!a->has && !b->has)
        return MEMFS_OK;
    /* changed here, deleted there: a's tree has it already, or b's goes in */
    if (b->has)
        merge_plan_edit(m, item->path, false, b);
    if (m->notes != NULL)
        merge_note_add(m->notes, MERGE_RULE_KEPT_CHANGED, str_of(item->path), MEMFS_STR(""));
    return MEMFS_OK;
}
