#include "store/span.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * What is it that lies between `to` and `from`?  Everything that `to` leads to and `from` does not.
 * Both are followed downwards at once, a step each in turn.  What `from` leads to is outside, and
 * so is all that this leads to.
 *
 * That nothing inside is left to be looked at is not enough to end it: one of those may still be
 * found to be outside, when a way from `from` reaches it over commits that were not looked at yet.
 * It cannot be when
 *
 *     only one commit, u, is left to be looked at, and no root was met:
 *
 * each way down ends somewhere, and there is no other end than u, so all that was looked at leads
 * to u, and then u does not lead back to it.  In a history that is a line with merges here and
 * there this comes a few steps below where the two parted, whatever the clocks said.  In one of two
 * lines that never become one it comes at the end.
 */

void span_dispose(span *s)
{
    free(s->nodes);
    free(s->links);
    oidmap_dispose(&s->by_id);
    *s = (span)SPAN_INIT(NULL);
}

void span_clear(span *s)
{
    span empty = SPAN_INIT(s->r);

    empty.nodes = s->nodes;
    empty.cap = s->cap;
    empty.links = s->links;
    empty.cap_links = s->cap_links;
    empty.by_id = s->by_id;
    oidmap_clear(&empty.by_id);
    *s = empty;
}

static size_t place_of(span *s, const memfs_oid *id)
{
    size_t place;

    if (oidmap_get(&s->by_id, id, &place))
        return place;
    if (s->n == s->cap) {
        s->cap = s->cap == 0 ? 64 : s->cap * 2;
        s->nodes = mem_realloc(s->nodes, s->cap, sizeof(*s->nodes));
    }
    s->nodes[s->n] = (span_node){ .id = *id };
    s->n_open++;
    oidmap_put(&s->by_id, id, s->n);
    return s->n++;
}

/* And all below it, as far as that was looked at. */
static void put_outside(span *s, size_t place)
{
    size_t *stack = mem_alloc(sizeof(*stack)), n = 1, cap = 1;

    stack[0] = place;
    while (n > 0) {
        span_node *node = &s->nodes[stack[--n]];

        if (node->is_outside)
            continue;
        node->is_outside = true;
        s->n_open -= !node->is_looked_at;
        if (n + node->n_parents > cap) {
            cap = (n + node->n_parents) * 2;
            stack = mem_realloc(stack, cap, sizeof(*stack));
        }
        for (size_t i = 0; i < node->n_parents; i++)
            stack[n++] = s->links[node->first_parent + i];
    }
    free(stack);
}

void span_start(span *s, const memfs_oid *id, bool is_outside)
{
    size_t place = place_of(s, id);

    if (is_outside)
        put_outside(s, place);
}

/* ---- one commit ---- */

static void add_link(span *s, size_t of, size_t to)
{
    if (s->n_links == s->cap_links) {
        s->cap_links = s->cap_links == 0 ? 64 : s->cap_links * 2;
        s->links = mem_realloc(s->links, s->cap_links, sizeof(*s->links));
    }
    s->links[s->n_links++] = to;
    s->nodes[of].n_parents++;
}

/* The lines "parent <id>" of a raw commit, which stand after its tree's. */
static memfs_code read_parents(span *s, size_t place, memfs_str raw, memfs_error *err)
{
    const memfs_str key = MEMFS_STR("parent ");
    memfs_str line, rest = MEMFS_STR("");
    memfs_oid id;

    s->nodes[place].first_parent = s->n_links;
    for (str_split(raw, '\n', &line, &rest); str_starts_with(rest, key);) {
        size_t parent;

        if (!str_split(rest, '\n', &line, &rest) || !oid_parse(str_from(line, key.len), &id))
            return memfs_fail(err, MEMFS_ECORRUPT, "a commit's parents cannot be read");
        parent = place_of(s, &id);
        add_link(s, place, parent);
        if (s->nodes[place].is_outside)
            put_outside(s, parent);
    }
    s->has_root = s->has_root || s->nodes[place].n_parents == 0;
    return MEMFS_OK;
}

memfs_code span_look(span *s, memfs_error *err)
{
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    memfs_oid id = s->nodes[s->next].id;
    memfs_code rc = repo_read_commit(s->r, &id, &object, err);

    if (rc < 0)
        return rc;
    s->n_open -= !s->nodes[s->next].is_outside;
    s->nodes[s->next].is_looked_at = true;
    return read_parents(s, s->next++, repo_raw(object), err);
}

static bool is_certain(const span *s)
{
    return span_n_left(s) == 0 || (s->n_open == 0 && !s->has_root && span_n_left(s) == 1);
}

memfs_code span_explore(span *s, size_t max, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    while (rc == MEMFS_OK && !is_certain(s)) {
        if (max > 0 && s->next >= max)
            return memfs_fail(err, MEMFS_ELIMIT, "more than %zu commits lie there", max);
        rc = span_look(s, err);
    }
    return rc;
}

/* ---- the order ---- */

typedef struct step {
    size_t place, n_done; /* parents that were seen to */
} step;

static bool is_inside(const span *s, size_t place)
{
    return s->nodes[place].is_looked_at && !s->nodes[place].is_outside;
}

/* Depth first, down to what has no parent in here, and written down on the way back up. */
static void order_from(const span *s, size_t start, bool *is_seen, step *stack, size_t *out,
                       size_t *n_out)
{
    size_t n = 0;

    if (is_seen[start] || !is_inside(s, start))
        return;
    is_seen[start] = true;
    stack[n++] = (step){ start, 0 };
    while (n > 0) {
        step *at = &stack[n - 1];
        const span_node *node = &s->nodes[at->place];
        size_t parent;

        if (at->n_done == node->n_parents) {
            out[(*n_out)++] = at->place;
            n--;
            continue;
        }
        parent = s->links[node->first_parent + at->n_done++];
        if (!is_seen[parent] && is_inside(s, parent)) {
            is_seen[parent] = true;
            stack[n++] = (step){ parent, 0 };
        }
    }
}

size_t span_order(const span *s, size_t **ret)
{
    size_t *out = mem_alloc((s->next + 1) * sizeof(*out)), n = 0;
    bool *is_seen = mem_alloc((s->n + 1) * sizeof(*is_seen));
    step *stack = mem_alloc((s->next + 1) * sizeof(*stack));

    if (s->n > 0)
        order_from(s, 0, is_seen, stack, out, &n); /* the start: all else is below it */
    free(stack);
    free(is_seen);
    *ret = out;
    return n;
}
