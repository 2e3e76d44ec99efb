/*
 * Three texts from two differences.  Each side is a list of hunks, "these lines of the base became
 * those"; hunks of the two sides that meet are one part, all others are parts of their own.
 *
 * Hunks meet when they share a line of the base, when one inserts between two lines that the other
 * changed, or when both insert at the same place.  Hunks that only touch do not.
 */
#include "memory/diff3.h"

#include "base/mem.h"

#include <stdlib.h>

typedef struct hunk {
    size_t base, base_end, side, side_end;
} hunk;

/* Reads the hunks of one side, one after the other. */
typedef struct reader {
    lines base, side;
    const uint32_t *match;
    size_t base_at, side_at; /* behind the last hunk */
    bool has;
    hunk next;
} reader;

static void read_next(reader *r)
{
    size_t i = r->base_at, j = r->side_at;

    while (i < r->base.n && r->match[i] == j) {
        i++;
        j++;
    }
    r->has = i < r->base.n || j < r->side.n;
    r->next = (hunk){ .base = i, .side = j };
    while (i < r->base.n && r->match[i] == LINES_NONE)
        i++;
    r->next.base_end = i;
    r->next.side_end = i < r->base.n ? r->match[i] : r->side.n;
    r->base_at = r->next.base_end;
    r->side_at = r->next.side_end;
}

static bool is_before(const hunk *a, const hunk *b)
{
    return a->base != b->base ? a->base < b->base : a->base_end < b->base_end;
}

/* Does a hunk that is not before it meet the stretch [from, to) of the base? */
static bool meets(const hunk *h, size_t from, size_t to)
{
    return h->base < to || (from == to && h->base == from && h->base_end == to);
}

typedef struct splitter {
    reader a, b;
    size_t base_at, a_at, b_at; /* what the ranges cover so far */
    diff3_range *ranges;
    size_t n, cap;
} splitter;

static void add_range(splitter *s, diff3_kind kind, size_t n_base, size_t n_a, size_t n_b)
{
    if (s->n == s->cap) {
        s->cap = s->cap > 0 ? s->cap * 2 : 16;
        s->ranges = mem_realloc(s->ranges, s->cap, sizeof(*s->ranges));
    }
    s->ranges[s->n++] = (diff3_range){ .kind = kind,
                                       .base = s->base_at,
                                       .n_base = n_base,
                                       .a = s->a_at,
                                       .n_a = n_a,
                                       .b = s->b_at,
                                       .n_b = n_b };
    s->base_at += n_base;
    s->a_at += n_a;
    s->b_at += n_b;
}

/* Takes all hunks of r that meet the stretch; returns whether there was one. */
static bool take(reader *r, size_t from, size_t *to, size_t *side_end, size_t *base_end)
{
    bool any = false;

    while (r->has && meets(&r->next, from, *to)) {
        any = true;
        if (r->next.base_end > *to)
            *to = r->next.base_end;
        *side_end = r->next.side_end;
        *base_end = r->next.base_end;
        read_next(r);
    }
    return any;
}

static diff3_kind kind_of(const splitter *s, bool has_a, bool has_b, size_t n_a, size_t n_b)
{
    lines a = { s->a.side.ids + s->a_at, n_a }, b = { s->b.side.ids + s->b_at, n_b };

    if (!has_b)
        return DIFF3_ONLY_A;
    if (!has_a)
        return DIFF3_ONLY_B;
    return lines_equal(a, b) ? DIFF3_BOTH_ALIKE : DIFF3_CONFLICT;
}

/* The next hunk and all that meet it. */
static void add_group(splitter *s)
{
    const hunk *first =
        s->a.has && (!s->b.has || is_before(&s->a.next, &s->b.next)) ? &s->a.next : &s->b.next;
    size_t from = first->base, to = first->base_end, same = from - s->base_at;
    size_t a_end, b_end, a_base, b_base;
    bool has_a = false, has_b = false, took;
    diff3_kind kind;

    if (same > 0)
        add_range(s, DIFF3_SAME, same, same, same);
    a_end = s->a_at;
    b_end = s->b_at;
    a_base = b_base = from;
    do {
        took = take(&s->a, from, &to, &a_end, &a_base);
        has_a |= took;
        if (take(&s->b, from, &to, &b_end, &b_base))
            has_b = took = true;
        else
            took = false;
    } while (took);
    a_end += to - a_base;
    b_end += to - b_base;
    kind = kind_of(s, has_a, has_b, a_end - s->a_at, b_end - s->b_at);
    add_range(s, kind, to - from, a_end - s->a_at, b_end - s->b_at);
}

diff3_range *diff3_ranges(lines base, lines a, lines b, const uint32_t *match_a,
                          const uint32_t *match_b, size_t *ret_n)
{
    splitter s = { .a = { .base = base, .side = a, .match = match_a },
                   .b = { .base = base, .side = b, .match = match_b } };
    size_t rest;

    read_next(&s.a);
    read_next(&s.b);
    while (s.a.has || s.b.has)
        add_group(&s);
    rest = base.n - s.base_at;
    if (rest > 0)
        add_range(&s, DIFF3_SAME, rest, rest, rest);
    *ret_n = s.n;
    return s.ranges;
}

/* ---- over texts ---- */

/* Cuts n lines off the front. */
static memfs_str cut(memfs_str *text, size_t n)
{
    memfs_str all = *text;

    for (; n > 0; n--) {
        const char *end = memchr(text->ptr, '\n', text->len);

        *text = str_from(*text, end != NULL ? (size_t)(end - text->ptr) + 1 : text->len);
    }
    return str_make(all.ptr, all.len - text->len);
}

static uint32_t *match_of(lines base, lines side, size_t n_ids)
{
    uint32_t *match = mem_realloc(NULL, base.n + 1, sizeof(*match));

    lines_match(base, side, n_ids, match);
    return match;
}

void diff3_split(memfs_str base, memfs_str a, memfs_str b, diff3 *ret)
{
    _cleanup_(line_table_freep) line_table *table = line_table_new();
    _cleanup_(lines_dispose) lines base_lines = LINES_INIT, a_lines = LINES_INIT;
    _cleanup_(lines_dispose) lines b_lines = LINES_INIT;
    _cleanup_(mem_freep) uint32_t *match_a = NULL, *match_b = NULL;
    _cleanup_(mem_freep) diff3_range *ranges = NULL;

    lines_read(table, base, true, &base_lines);
    lines_read(table, a, true, &a_lines);
    lines_read(table, b, true, &b_lines);
    match_a = match_of(base_lines, a_lines, line_table_n(table));
    match_b = match_of(base_lines, b_lines, line_table_n(table));
    ranges = diff3_ranges(base_lines, a_lines, b_lines, match_a, match_b, &ret->n);
    ret->parts = mem_realloc(NULL, ret->n + 1, sizeof(*ret->parts));
    for (size_t i = 0; i < ret->n; i++)
        ret->parts[i] = (diff3_part){ .kind = ranges[i].kind,
                                      .base = cut(&base, ranges[i].n_base),
                                      .a = cut(&a, ranges[i].n_a),
                                      .b = cut(&b, ranges[i].n_b) };
}

void diff3_dispose(diff3 *d)
{
    free(d->parts);
    *d = (diff3)DIFF3_INIT;
}
