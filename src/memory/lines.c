#include "memory/lines.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

/* ---- numbering: open addressing over slices ---- */

struct line_table {
    memfs_str *texts; /* by number */
    size_t n, cap;
    uint32_t *slots; /* a number, or LINES_NONE */
    size_t n_slots;  /* a power of two, at least twice n */
};

line_table *line_table_new(void)
{
    return mem_alloc(sizeof(line_table));
}

void line_table_freep(line_table **t)
{
    if (*t == NULL)
        return;
    free((*t)->texts);
    free((*t)->slots);
    free(*t);
    *t = NULL;
}

void lines_dispose(lines *l)
{
    free(l->ids);
    *l = (lines)LINES_INIT;
}

/* FNV-1a, eight bytes at a time. */
static uint64_t hash_of(memfs_str s)
{
    uint64_t h = 0xcbf29ce484222325u ^ s.len, word;

    for (; s.len >= sizeof(word); s = str_from(s, sizeof(word))) {
        memcpy(&word, s.ptr, sizeof(word));
        h = (h ^ word) * 0x100000001b3u;
        h ^= h >> 29;
    }
    for (size_t i = 0; i < s.len; i++)
        h = (h ^ (unsigned char)s.ptr[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

/* The slot of a line, or the free one where it would go. */
static uint32_t *slot_of(line_table *t, memfs_str line)
{
    size_t at = hash_of(line) & (t->n_slots - 1);

    while (t->slots[at] != LINES_NONE && !str_equal(t->texts[t->slots[at]], line))
        at = (at + 1) & (t->n_slots - 1);
    return &t->slots[at];
}

static void grow(line_table *t)
{
    t->cap = t->cap > 0 ? t->cap * 2 : 64;
    t->texts = mem_realloc(t->texts, t->cap, sizeof(*t->texts));
    t->n_slots = t->cap * 2;
    t->slots = mem_realloc(t->slots, t->n_slots, sizeof(*t->slots));
    memset(t->slots, 0xFF, t->n_slots * sizeof(*t->slots));
    for (size_t i = 0; i < t->n; i++)
        *slot_of(t, t->texts[i]) = (uint32_t)i;
}

uint32_t line_table_id(line_table *t, memfs_str line)
{
    uint32_t *slot;

    if (t->n == t->cap)
        grow(t);
    slot = slot_of(t, line);
    if (*slot == LINES_NONE) {
        *slot = (uint32_t)t->n;
        t->texts[t->n++] = line;
    }
    return *slot;
}

memfs_str line_table_text(const line_table *t, uint32_t id)
{
    assert(id < t->n);
    return t->texts[id];
}

size_t line_table_n(const line_table *t)
{
    return t->n;
}

size_t lines_count(memfs_str text)
{
    size_t n = 0;

    for (; text.len > 0; n++) {
        const char *end = memchr(text.ptr, '\n', text.len);

        text = str_from(text, end != NULL ? (size_t)(end - text.ptr) + 1 : text.len);
    }
    return n;
}

void lines_read(line_table *t, memfs_str text, bool with_newline, lines *ret)
{
    size_t n = lines_count(text);

    assert(n < INT32_MAX);
    ret->ids = mem_realloc(NULL, n + 1, sizeof(*ret->ids)); /* never NULL: slices add to it */
    while (text.len > 0) {
        const char *end = memchr(text.ptr, '\n', text.len);
        size_t len = end != NULL ? (size_t)(end - text.ptr) : text.len;
        memfs_str line = str_make(text.ptr, len + (with_newline && end != NULL));

        ret->ids[ret->n++] = line_table_id(t, line);
        text = str_from(text, len + (end != NULL));
    }
}

bool lines_equal(lines a, lines b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.ids, b.ids, a.n * sizeof(*a.ids)) == 0);
}

bool lines_is_subsequence(lines part, lines whole)
{
    size_t found = 0;

    for (size_t i = 0; i < whole.n && found < part.n; i++)
        found += whole.ids[i] == part.ids[found];
    return found == part.n;
}

/* ---- matching ---- */

/*
 * Forward search.  reach[k] is the largest x on diagonal k = x - y that d edits lead to; the rows
 * of all d are kept, so that the way can be walked back.  Row d begins at d * (d + 1) / 2 of `rows`
 * and has d + 1 cells, for k = -d, -d + 2, ... d.  A cell is -1 when the diagonal cannot be
 * reached.
 */
typedef struct search {
    lines x, y;
    int32_t *rows;
    size_t cap;
} search;

static int32_t *row_of(search *s, size_t d)
{
    return s->rows + d * (d + 1) / 2;
}

static int32_t cell(search *s, ptrdiff_t d, ptrdiff_t k)
{
    return k < -d || k > d ? -1 : row_of(s, (size_t)d)[(k + d) / 2];
}

/* The start of the snake on diagonal k after d edits; *ret_is_down: its edit took a line of y. */
static ptrdiff_t step(search *s, ptrdiff_t d, ptrdiff_t k, bool *ret_is_down)
{
    ptrdiff_t right = d > 0 ? cell(s, d - 1, k - 1) : -1, down = d > 0 ? cell(s, d - 1, k + 1) : -1;

    right = right < 0 || (size_t)right == s->x.n ? -1 : right + 1;
    if (down - k > (ptrdiff_t)s->y.n)
        down = -1;
    *ret_is_down = down >= 0 && down >= right;
    return *ret_is_down ? down : right;
}

/* Fills row d; returns the diagonal that is farthest ahead. */
static ptrdiff_t advance(search *s, ptrdiff_t d)
{
    ptrdiff_t best = 0, best_sum = -1;
    bool ignored;

    for (ptrdiff_t k = -d; k <= d; k += 2) {
        ptrdiff_t at = d == 0 ? 0 : step(s, d, k, &ignored);

        if (at >= 0)
            while ((size_t)at < s->x.n && (size_t)(at - k) < s->y.n &&
                   s->x.ids[at] == s->y.ids[at - k])
                at++;
        row_of(s, (size_t)d)[(k + d) / 2] = (int32_t)at;
        if (at >= 0 && 2 * at - k > best_sum) {
            best = k;
            best_sum = 2 * at - k;
        }
    }
    return best;
}

/* Walks back from the end of row d on diagonal k and notes each line that was the same. */
static void walk_back(search *s, ptrdiff_t d, ptrdiff_t k, uint32_t *match, size_t y_offset)
{
    for (; d >= 0; d--) {
        ptrdiff_t at = cell(s, d, k), from = 0;
        bool is_down = false;

        if (d > 0)
            from = step(s, d, k, &is_down);
        while (at > from) {
            at--;
            match[at] = (uint32_t)((size_t)(at - k) + y_offset);
        }
        k += is_down ? 1 : -1;
    }
}

static void make_room(search *s, size_t d)
{
    size_t needed = (d + 1) * (d + 2) / 2;

    if (needed <= s->cap)
        return;
    s->cap = needed * 2;
    s->rows = mem_realloc(s->rows, s->cap, sizeof(*s->rows));
}

/* One run of the search; moves *px and *py ahead to where it ended. */
static void search_once(search *s, lines x, lines y, size_t *px, size_t *py, uint32_t *match)
{
    ptrdiff_t k = 0, at;

    s->x = (lines){ x.ids + *px, x.n - *px };
    s->y = (lines){ y.ids + *py, y.n - *py };
    for (size_t d = 0;; d++) {
        make_room(s, d);
        k = advance(s, (ptrdiff_t)d);
        at = cell(s, (ptrdiff_t)d, k);
        if (d < LINES_MAX_DISTANCE && ((size_t)at < s->x.n || (size_t)(at - k) < s->y.n))
            continue;
        walk_back(s, (ptrdiff_t)d, k, match + *px, *py);
        *px += (size_t)at;
        *py += (size_t)(at - k);
        return;
    }
}

static void search_all(lines x, lines y, uint32_t *match)
{
    search s = { .rows = NULL };
    size_t px = 0, py = 0;

    while (px < x.n && py < y.n)
        search_once(&s, x, y, &px, &py, match);
    free(s.rows);
}

/* The lines of `of` that `in` has too; where[i] tells where they came from. */
static void keep_shared(lines of, lines in, uint8_t *is_there, lines *ret, uint32_t *where)
{
    for (size_t i = 0; i < in.n; i++)
        is_there[in.ids[i]] = 1;
    for (size_t i = 0; i < of.n; i++) {
        if (!is_there[of.ids[i]])
            continue;
        where[ret->n] = (uint32_t)i;
        ret->ids[ret->n++] = of.ids[i];
    }
    for (size_t i = 0; i < in.n; i++)
        is_there[in.ids[i]] = 0;
}

/* Lines that only one text has match nothing; the search is for the others. */
static void match_shared(lines x, lines y, size_t n_ids, uint32_t *match, size_t y_offset)
{
    uint8_t *is_there = mem_alloc(n_ids);
    uint32_t *room = mem_realloc(NULL, (x.n + y.n) * 2 + x.n, sizeof(*room));
    uint32_t *where_x = room + x.n + y.n, *where_y = where_x + x.n, *found = where_y + y.n;
    lines fewer_x = { room, 0 }, fewer_y = { room + x.n, 0 };

    keep_shared(x, y, is_there, &fewer_x, where_x);
    keep_shared(y, x, is_there, &fewer_y, where_y);
    memset(found, 0xFF, x.n * sizeof(*found));
    search_all(fewer_x, fewer_y, found);
    for (size_t i = 0; i < fewer_x.n; i++)
        if (found[i] != LINES_NONE)
            match[where_x[i]] = (uint32_t)(where_y[found[i]] + y_offset);
    free(room);
    free(is_there);
}

/* Moves each stretch that is only inserted or only deleted down as far as it goes. */
static void settle(lines x, lines y, uint32_t *match)
{
    size_t i = 0, j = 0;

    while (i < x.n || j < y.n) {
        size_t i_end = i, j_end;

        while (i_end < x.n && match[i_end] == LINES_NONE)
            i_end++;
        j_end = i_end < x.n ? match[i_end] : y.n;
        if (i == i_end && j < j_end) {
            for (; i_end < x.n && match[i_end] == j_end && y.ids[j] == y.ids[j_end]; j++, j_end++)
                match[i_end++] = (uint32_t)j;
        } else if (j == j_end && i < i_end) {
            for (; i_end < x.n && match[i_end] == j_end && x.ids[i] == x.ids[i_end]; i++, j_end++) {
                match[i] = (uint32_t)j_end;
                match[i_end++] = LINES_NONE;
            }
        }
        i = i_end;
        j = j_end;
        if (i < x.n && match[i] == j) {
            i++;
            j++;
        }
    }
}

/* Marks the lines that both begin and end with, and returns what is left between them. */
static void match_ends(lines *x, lines *y, uint32_t **match, size_t *y_offset)
{
    size_t head = 0, tail = 0;

    while (head < x->n && head < y->n && x->ids[head] == y->ids[head]) {
        (*match)[head] = (uint32_t)(head + *y_offset);
        head++;
    }
    while (tail < x->n - head && tail < y->n - head &&
           x->ids[x->n - 1 - tail] == y->ids[y->n - 1 - tail]) {
        (*match)[x->n - 1 - tail] = (uint32_t)(y->n - 1 - tail + *y_offset);
        tail++;
    }
    *x = (lines){ x->ids + head, x->n - head - tail };
    *y = (lines){ y->ids + head, y->n - head - tail };
    *match += head;
    *y_offset += head;
    for (size_t i = 0; i < x->n; i++)
        (*match)[i] = LINES_NONE;
}

void lines_match(lines x, lines y, size_t n_ids, uint32_t *match)
{
    lines left_x = x, left_y = y;
    uint32_t *at = match;
    size_t y_offset = 0;

    match_ends(&left_x, &left_y, &at, &y_offset);
    if (left_x.n > 0 && left_y.n > 0)
        match_shared(left_x, left_y, n_ids, at, y_offset);
    settle(x, y, match);
}

/* ---- matching, the telling lines first ---- */

static size_t keep_telling(lines of, const uint8_t *is_telling, uint32_t *ids, uint32_t *where)
{
    size_t n = 0;

    for (size_t i = 0; i < of.n; i++) {
        if (!is_telling[of.ids[i]])
            continue;
        where[n] = (uint32_t)i;
        ids[n++] = of.ids[i];
    }
    return n;
}

/* What lies between two matches: the ends, then the search, whose numbers begin at the gap. */
static void match_gap(lines x, lines y, uint32_t *match, size_t y_offset)
{
    match_ends(&x, &y, &match, &y_offset);
    if (x.n == 0 || y.n == 0)
        return;
    search_all(x, y, match);
    for (size_t i = 0; i < x.n; i++)
        if (match[i] != LINES_NONE)
            match[i] += (uint32_t)y_offset;
}

void lines_match_telling(lines x, lines y, size_t n_ids, const uint8_t *is_telling, uint32_t *match)
{
    uint32_t *room = mem_realloc(NULL, 3 * x.n + 2 * y.n + 1, sizeof(*room));
    uint32_t *x_ids = room, *x_where = x_ids + x.n, *found = x_where + x.n;
    uint32_t *y_ids = found + x.n, *y_where = y_ids + y.n;
    lines fewer_x = { x_ids, keep_telling(x, is_telling, x_ids, x_where) };
    lines fewer_y = { y_ids, keep_telling(y, is_telling, y_ids, y_where) };
    size_t i = 0, j = 0;

    lines_match(fewer_x, fewer_y, n_ids, found);
    for (size_t k = 0; k <= fewer_x.n; k++) {
        size_t i_end = k < fewer_x.n ? x_where[k] : x.n, j_end = y.n;

        if (k < fewer_x.n && found[k] == LINES_NONE)
            continue;
        if (k < fewer_x.n)
            j_end = y_where[found[k]];
        match_gap((lines){ x.ids + i, i_end - i }, (lines){ y.ids + j, j_end - j }, match + i, j);
        if (k < fewer_x.n)
            match[i_end] = (uint32_t)j_end;
        i = i_end + 1;
        j = j_end + 1;
    }
    free(room);
}
