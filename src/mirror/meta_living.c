#include "mirror/meta_living.h"

#include "base/mem.h"
#include "memory/label.h"

#include <stdlib.h>
#include <string.h>

/* The births of t are sorted by label (settled), so each label of a tree is looked up in them. */
typedef struct marking {
    const meta_text *t;
    bool *marks; /* one for each birth */
    uint64_t n_rows;
} marking;

static int compare_label(const void *key, const void *birth)
{
    return str_compare(*(const memfs_str *)key, str_of(((const meta_birth *)birth)->label));
}

static void mark(marking *m, memfs_str label)
{
    const meta_text *t = m->t;
    const meta_birth *found = NULL;

    if (t->n_births > 0)
        found = bsearch(&label, t->births, t->n_births, sizeof(*t->births), compare_label);
    if (found != NULL)
        m->marks[found - t->births] = true;
}

/* Those without a mark go, but for the first n_spared of them. */
static void keep_marked(meta_text *t, const bool *marks, uint64_t n_spared)
{
    size_t n = 0;

    for (size_t i = 0; i < t->n_births; i++)
        if (marks[i] || n_spared > 0) {
            n_spared -= !marks[i];
            t->births[n++] = t->births[i];
        } else {
            free(t->births[i].label);
        }
    t->n_births = n;
}

static memfs_code mark_file(const tree_change *c, void *ctx, memfs_error *err)
{
    memfs_str label;

    (void)err;
    if ((c->new_mode == TREE_MODE_FILE || c->new_mode == TREE_MODE_EXEC) &&
        label_of_path(c->path, MEMFS_STR(""), &label))
        mark(ctx, label);
    return MEMFS_OK;
}

memfs_code meta_keep_living(repo *r, const policy *p, const memfs_oid *tips, size_t n,
                            meta_text *t, memfs_error *err)
{
    _cleanup_(mem_freep) bool *marks = mem_alloc((t->n_births + 1) * sizeof(*marks));
    marking m = { .t = t, .marks = marks };
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && t->n_births > 0 && i < n; i++)
        if (!oid_is_zero(&tips[i]))
            rc = repo_diff(r, NULL, &tips[i], p, mark_file, &m, err);
    if (rc == MEMFS_OK)
        keep_marked(t, marks, 0);
    return rc;
}

static memfs_code mark_row(const state_birth *row, void *ctx, memfs_error *err)
{
    marking *m = ctx;

    (void)err;
    m->n_rows++;
    mark(m, row->label);
    return MEMFS_OK;
}

memfs_code meta_keep_few(state *s, uint64_t max, meta_text *t, memfs_error *err)
{
    _cleanup_(mem_freep) bool *marks = mem_alloc((t->n_births + 1) * sizeof(*marks));
    marking m = { .t = t, .marks = marks };
    memfs_code rc = t->n_births > 0
                        ? state_births(s, str_of(t->agent_id), MEMFS_STR(""), mark_row, &m, err)
                        : MEMFS_OK;

    if (rc == MEMFS_OK)
        keep_marked(t, marks, m.n_rows < max ? max - m.n_rows : 0);
    return rc;
}
