/*
 * Three texts into one, in lines.
 *
 * What makes a fleet settle is that a result, once made, stands: merged again with either side it
 * came from, over the old base, it must come out unchanged, or two machines would answer each other
 * for ever.  A three-way merge of lines alone does not give that: where lines repeat, the
 * difference of base and result need not be the sum of the two differences it was made of.  So
 * there are three steps, and the first that applies decides:
 *
 *   - absorb: One side already holds what the other did: every line of the other, in order, and no
 *     more copies of a line than the other left of it.  (Lines that the one has fewer of than the
 *     base are its deletions and need not be there.)  Then the one is the result.
 *   - weave: The three-way merge: ranges of diff3.h; where both sides changed the same lines, the
 *     union of what the two wrote there.  Taken only if it stands, that is if this same procedure,
 *     given the weave and either side, answers with the weave.
 *   - bag: The two sides are laid side by side without the base.  A line that one side alone has
 *     stays, unless the other side has fewer copies of it than the base: then that side deleted it.
 *
 * Why the bag always stands: let R be the bag of (base, a, b).  A line of b that R has fewer of was
 * dropped, so a has fewer of it than the base, and so has R, whose copies then are all a's.  All
 * other lines of b are in R in order.  A line that b has fewer of than the base has in R only
 * copies that b has too.  That is what `absorb` asks for, whatever the lines were matched with.
 *
 * A weave that stands is also left for the bag where it would double lines: the same new line,
 * written by both sides in places that the base tells apart and the two sides alone do not.
 *
 * The union of what two sides wrote in one place is built for the same purpose: if all lines of one
 * are among the other's, it is the other's; if both have the same lines, the longer, or the one
 * that comes first; else the first side's lines with the second's woven in, without those that the
 * first has anyway.  Which is the first is told by the git blob id of what each wrote there, not of
 * the whole file: the whole file is another one after a merge, and the order must not turn round
 * with it.
 *
 * Lines are matched by their words first (lines_match_telling): a result then differs from the base
 * where its sides do, and not one blank line further on, so that nearly every clean weave stands.
 *
 * Cost: a few differences of the texts, each bounded as lines.h says.
 */
#include "memory/merge_int.h"

#include "base/mem.h"
#include "memory/diff3.h"

#include <stdlib.h>

typedef struct work {
    const line_table *table;
    size_t n_ids;
    lines base;
    uint32_t *n_base;   /* copies of each line in the base */
    uint8_t *has_words; /* letters, digits, or anything beyond ASCII */
} work;

void merged_lines_dispose(merged_lines *m)
{
    lines_dispose(&m->result);
    free(m->met);
    *m = (merged_lines)MERGED_LINES_INIT;
}

/* room for n more lines must be there */
static void put(lines *out, uint32_t id)
{
    out->ids[out->n++] = id;
}

static void put_all(lines *out, lines from)
{
    if (from.n > 0)
        memcpy(out->ids + out->n, from.ids, from.n * sizeof(*from.ids));
    out->n += from.n;
}

static lines room_for(size_t n)
{
    return (lines){ mem_realloc(NULL, n + 1, sizeof(uint32_t)), 0 };
}

static lines slice(lines l, size_t from, size_t n)
{
    return (lines){ l.ids + from, n };
}

static void add_met(merged_lines *m, size_t at)
{
    if (m->n_met > 0 && m->met[m->n_met - 1] == at)
        return;
    if (m->n_met == m->cap_met) {
        m->cap_met = m->cap_met > 0 ? m->cap_met * 2 : 8;
        m->met = mem_realloc(m->met, m->cap_met, sizeof(*m->met));
    }
    m->met[m->n_met++] = at;
}

static uint32_t *count(const work *w, lines l)
{
    uint32_t *n = mem_alloc((w->n_ids + 1) * sizeof(*n));

    for (size_t i = 0; i < l.n; i++)
        n[l.ids[i]]++;
    return n;
}

static uint32_t *match(const work *w, lines x, lines y)
{
    uint32_t *m = mem_realloc(NULL, x.n + 1, sizeof(*m));

    lines_match_telling(x, y, w->n_ids, w->has_words, m);
    return m;
}

/* -1, 0, 1 by the git blob id of the lines as a text. */
static int order(const work *w, lines a, lines b)
{
    _cleanup_(buf_dispose) memfs_buf a_text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf b_text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    for (size_t i = 0; i < a.n; i++) {
        buf_add_str(&a_text, line_table_text(w->table, a.ids[i]));
        buf_putc(&a_text, '\n');
    }
    for (size_t i = 0; i < b.n; i++) {
        buf_add_str(&b_text, line_table_text(w->table, b.ids[i]));
        buf_putc(&b_text, '\n');
    }
    return merge_order(buf_str(&a_text), buf_str(&b_text));
}

/* ---- absorb ---- */

/* Does `whole` hold all that `part` did to the base? */
static bool absorbs(const work *w, lines whole, lines part)
{
    _cleanup_(mem_freep) uint32_t *n_whole = count(w, whole), *n_part = count(w, part);
    size_t at = 0;

    for (size_t id = 0; id < w->n_ids; id++) {
        if (n_whole[id] < n_part[id] && n_whole[id] >= w->n_base[id])
            return false;
        if (n_part[id] < w->n_base[id] && n_whole[id] > n_part[id])
            return false;
    }
    for (size_t i = 0; i < part.n; i++) {
        uint32_t id = part.ids[i];

        if (n_whole[id] < n_part[id])
            continue;
        while (at < whole.n && whole.ids[at] != id)
            at++;
        if (at++ >= whole.n)
            return false;
    }
    return true;
}

/* ---- union ---- */

static bool holds_all(const uint8_t *is_there, lines l)
{
    for (size_t i = 0; i < l.n; i++)
        if (!is_there[l.ids[i]])
            return false;
    return true;
}

static void mark(uint8_t *is_there, lines l, uint8_t value)
{
    for (size_t i = 0; i < l.n; i++)
        is_there[l.ids[i]] = value;
}

/* Both have the same lines, in another order or number. */
static lines longer_or_first(const work *w, lines a, lines b)
{
    if (a.n != b.n)
        return a.n > b.n ? a : b;
    return order(w, a, b) <= 0 ? a : b;
}

static void weave_two(const work *w, lines first, lines second, uint8_t *is_there, lines *out)
{
    _cleanup_(mem_freep) uint32_t *matched = match(w, first, second);
    size_t j = 0;

    mark(is_there, first, 1);
    for (size_t i = 0; i <= first.n; i++) {
        size_t j_end = second.n;

        if (i < first.n && matched[i] == LINES_NONE) {
            put(out, first.ids[i]);
            continue;
        }
        if (i < first.n)
            j_end = matched[i];
        for (; j < j_end; j++)
            if (!is_there[second.ids[j]] || !w->has_words[second.ids[j]])
                put(out, second.ids[j]);
        if (i < first.n)
            put(out, first.ids[i]);
        j++;
    }
    mark(is_there, first, 0);
}

/* is_there: zero for each number, before and after. */
static void put_union(const work *w, lines a, lines b, uint8_t *is_there, lines *out)
{
    bool a_has_b, b_has_a;

    mark(is_there, a, 1);
    a_has_b = holds_all(is_there, b);
    mark(is_there, a, 0);
    mark(is_there, b, 1);
    b_has_a = holds_all(is_there, a);
    mark(is_there, b, 0);
    if (a_has_b && b_has_a)
        put_all(out, longer_or_first(w, a, b));
    else if (a_has_b)
        put_all(out, a);
    else if (b_has_a)
        put_all(out, b);
    else if (order(w, a, b) <= 0)
        weave_two(w, a, b, is_there, out);
    else
        weave_two(w, b, a, is_there, out);
}

/* ---- weave ---- */

/* The lines of a side in [from, from + n) that are not the base's. */
static lines own_lines(lines side, const uint8_t *is_base, size_t from, size_t n)
{
    lines own = room_for(n);

    for (size_t i = from; i < from + n; i++)
        if (!is_base[i])
            put(&own, side.ids[i]);
    return own;
}

static uint8_t *lines_of_base(const work *w, const uint32_t *matched, size_t n_side)
{
    uint8_t *is_base = mem_alloc(n_side + 1);

    for (size_t i = 0; i < w->base.n; i++)
        if (matched[i] != LINES_NONE)
            is_base[matched[i]] = 1;
    return is_base;
}

static bool is_changed(const diff3_range *r)
{
    return r->kind != DIFF3_SAME;
}

/* Do two changes touch that are not from the same side?  git's own merge stops there. */
static bool touches(const diff3_range *before, const diff3_range *r)
{
    return is_changed(before) && is_changed(r) && before->kind != r->kind;
}

static void weave(const work *w, lines a, lines b, merged_lines *ret)
{
    _cleanup_(mem_freep) uint32_t *match_a = match(w, w->base, a), *match_b = match(w, w->base, b);
    _cleanup_(mem_freep) uint8_t *a_is_base = lines_of_base(w, match_a, a.n);
    _cleanup_(mem_freep) uint8_t *b_is_base = lines_of_base(w, match_b, b.n);
    _cleanup_(mem_freep) uint8_t *is_there = mem_alloc(w->n_ids + 1);
    _cleanup_(mem_freep) diff3_range *ranges = NULL;
    size_t n;

    ranges = diff3_ranges(w->base, a, b, match_a, match_b, &n);
    ret->result = room_for(a.n + b.n);
    for (size_t i = 0; i < n; i++) {
        const diff3_range *r = &ranges[i];

        if (r->kind == DIFF3_CONFLICT || (i > 0 && touches(r - 1, r)))
            add_met(ret, ret->result.n);
        if (r->kind == DIFF3_CONFLICT) {
            _cleanup_(lines_dispose) lines own_a = own_lines(a, a_is_base, r->a, r->n_a);
            _cleanup_(lines_dispose) lines own_b = own_lines(b, b_is_base, r->b, r->n_b);

            put_union(w, own_a, own_b, is_there, &ret->result);
        } else if (r->kind == DIFF3_ONLY_B) {
            put_all(&ret->result, slice(b, r->b, r->n_b));
        } else {
            put_all(&ret->result, slice(a, r->a, r->n_a));
        }
    }
}

/* Would (result, side) give the result again? */
static bool stands(const work *w, lines result, lines side)
{
    _cleanup_(merged_lines_dispose) merged_lines again = MERGED_LINES_INIT;

    if (lines_equal(result, side) || absorbs(w, result, side))
        return true;
    if (lines_equal(result, w->base) || lines_equal(side, w->base) || absorbs(w, side, result))
        return false;
    weave(w, result, side, &again);
    return lines_equal(again.result, result);
}

/* ---- bag ---- */

/* A line of one side alone stays unless the other side deleted copies of it. */
static void put_kept(const work *w, uint32_t id, const uint32_t *n_other, lines *out)
{
    if (n_other[id] >= w->n_base[id])
        put(out, id);
}

static void bag(const work *w, lines first, lines second, merged_lines *ret)
{
    _cleanup_(mem_freep) uint32_t *matched = match(w, first, second);
    _cleanup_(mem_freep) uint32_t *n_first = count(w, first), *n_second = count(w, second);
    size_t j = 0;

    ret->result = room_for(first.n + second.n);
    for (size_t i = 0; i <= first.n; i++) {
        size_t j_end = second.n;

        if (i < first.n && matched[i] == LINES_NONE) {
            put_kept(w, first.ids[i], n_second, &ret->result);
            continue;
        }
        if (i < first.n)
            j_end = matched[i];
        if (j < j_end)
            add_met(ret, ret->result.n);
        for (; j < j_end; j++)
            put_kept(w, second.ids[j], n_first, &ret->result);
        if (i < first.n)
            put(&ret->result, first.ids[i]);
        j++;
    }
    if (ret->n_met == 0)
        add_met(ret, 0);
}

/*
 * A first line that the base lacks, for a result that cannot be told from front matter otherwise.
 * Nothing that Markdown shows.
 */
static void put_guard(const merge_lines *in, const work *w, merged_lines *ret)
{
    static const memfs_str guards[] = { { "<!-- -->", 8 },
                                        { "<!--  -->", 9 },
                                        { "<!--   -->", 10 } };
    lines guarded = room_for(ret->result.n + 1);
    uint32_t id = 0;

    for (size_t i = 0; i < ARRAY_LEN(guards); i++) {
        id = line_table_id(in->table, guards[i]);
        if (id >= w->n_ids || w->n_base[id] == 0)
            break;
    }
    put(&guarded, id);
    put_all(&guarded, ret->result);
    lines_dispose(&ret->result);
    ret->result = guarded;
    for (size_t i = 0; i < ret->n_met; i++)
        ret->met[i]++;
    if (ret->n_met == 0)
        add_met(ret, 0);
}

/* ---- all together ---- */

static void copy(lines from, merged_lines *ret)
{
    ret->result = room_for(from.n);
    put_all(&ret->result, from);
}

/* One side absorbs the other; was that more than a clean merge? */
static void copy_absorbing(const work *w, lines winner, lines other, merged_lines *ret)
{
    _cleanup_(merged_lines_dispose) merged_lines woven = MERGED_LINES_INIT;

    weave(w, winner, other, &woven);
    copy(winner, ret);
    if (!lines_equal(woven.result, winner))
        add_met(ret, 0);
    for (size_t i = 0; i < woven.n_met && woven.met[i] <= winner.n; i++)
        add_met(ret, woven.met[i]);
}

/* How many more copies of new lines the result has than either side. */
static size_t surplus(const work *w, lines result, lines a, lines b)
{
    _cleanup_(mem_freep) uint32_t *n = count(w, result), *n_a = count(w, a), *n_b = count(w, b);
    size_t sum = 0;

    for (uint32_t id = 0; id < w->n_ids; id++) {
        uint32_t most = n_a[id] > n_b[id] ? n_a[id] : n_b[id];

        if (n[id] > most && w->n_base[id] == 0 && w->has_words[id])
            sum += n[id] - most;
    }
    return sum;
}

static void bag_in_order(const merge_lines *in, const work *w, merged_lines *ret)
{
    if (order(w, in->a, in->b) <= 0)
        bag(w, in->a, in->b, ret);
    else
        bag(w, in->b, in->a, ret);
}

/* The weave, unless it does not stand, or doubles lines that the bag does not. */
static void weave_or_bag(const merge_lines *in, const work *w, merged_lines *ret)
{
    _cleanup_(merged_lines_dispose) merged_lines bagged = MERGED_LINES_INIT;
    merged_lines worse;
    size_t doubled;

    weave(w, in->a, in->b, ret);
    if (stands(w, ret->result, in->a) && stands(w, ret->result, in->b) &&
        in->accept(ret->result, in->ctx)) {
        doubled = surplus(w, ret->result, in->a, in->b);
        if (doubled == 0)
            return;
        bag_in_order(in, w, &bagged);
        if (surplus(w, bagged.result, in->a, in->b) >= doubled)
            return;
    } else {
        bag_in_order(in, w, &bagged);
    }
    worse = *ret;
    *ret = bagged;
    bagged = worse;
}

static void merge_changed(const merge_lines *in, const work *w, merged_lines *ret)
{
    if (absorbs(w, in->a, in->b)) {
        copy_absorbing(w, in->a, in->b, ret);
        return;
    }
    if (absorbs(w, in->b, in->a)) {
        copy_absorbing(w, in->b, in->a, ret);
        return;
    }
    weave_or_bag(in, w, ret);
}

/* Blank lines, rules and fences have none, and may well repeat. */
static bool has_words(memfs_str line)
{
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.ptr[i];

        if (c >= 0x80 || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))
            return true;
    }
    return false;
}

static uint8_t *mark_words(const work *w)
{
    uint8_t *found = mem_alloc(w->n_ids + 1);

    for (uint32_t id = 0; id < w->n_ids; id++)
        found[id] = has_words(line_table_text(w->table, id));
    return found;
}

void merge_text(const merge_lines *in, merged_lines *ret)
{
    work w = { .table = in->table, .n_ids = line_table_n(in->table), .base = in->base };

    w.n_base = count(&w, in->base);
    w.has_words = mark_words(&w);
    if (lines_equal(in->a, in->b) || lines_equal(in->b, in->base)) {
        copy(in->a, ret);
    } else if (lines_equal(in->a, in->base)) {
        copy(in->b, ret);
    } else {
        merge_changed(in, &w, ret);
    }
    if (!in->accept(ret->result, in->ctx))
        put_guard(in, &w, ret);
    free(w.n_base);
    free(w.has_words);
}
