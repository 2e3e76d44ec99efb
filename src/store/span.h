/*
 * span.h - which commits lie between two places of a history, and in what order; between
 * versions.c and versions_list.c.
 *
 * Only the graph counts, never a date (H7).  Commits are looked at breadth first from where the
 * span starts, each once, and not all the way down to the root: it is enough when all that is left
 * to be looked at is one commit that everything in the span leads to (see span_explore).
 *
 * Thread: values are not shared.
 */
#ifndef MEMFS_STORE_SPAN_H
#define MEMFS_STORE_SPAN_H

#include "store/oidmap.h"
#include "store/store_int.h"

typedef struct span_node {
    memfs_oid id;
    size_t first_parent, n_parents; /* in span.links; of one that was looked at */
    bool is_outside;                /* leads from where the span ends */
    bool is_looked_at;
} span_node;

typedef struct span {
    repo *r;
    span_node *nodes; /* in the order in which they were met: those before `next` were looked at */
    size_t n, cap, next;
    size_t *links; /* places of parents in nodes */
    size_t n_links, cap_links;
    size_t n_open; /* of those not looked at: not outside */
    bool has_root; /* one was met */
    oidmap by_id;
} span;
#define SPAN_INIT(of)                                                                              \
    {                                                                                              \
        .r = (of), .by_id = OIDMAP_INIT                                                            \
    }
void span_dispose(span *s);
/* As new; what it took of memory it keeps, if that is not much. */
void span_clear(span *s);

/* Starts at a commit; or ends there, when it is outside. */
void span_start(span *s, const memfs_oid *id, bool is_outside);
/* How many were met and not looked at. */
static inline size_t span_n_left(const span *s)
{
    return s->n - s->next;
}
/* Looks at the next one.  ECORRUPT: it cannot be read. */
MEMFS_CHECK memfs_code span_look(span *s, memfs_error *err);
/* Until it is certain what the span holds.  ELIMIT: max commits were looked at before; 0: any. */
MEMFS_CHECK memfs_code span_explore(span *s, size_t max, memfs_error *err);
/*
 * The places of what the span holds, each after all of its parents that are in it: a function of
 * the graph alone.  *ret is the caller's.
 */
size_t span_order(const span *s, size_t **ret);

#endif
