/* Lines, and where three texts agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "memory/diff3.h"

#include <stdlib.h>

static const char *const KIND[] = { "same", "a", "b", "alike", "conflict" };

static void describe(const diff3 *d, memfs_buf *out)
{
    for (size_t i = 0; i < d->n; i++) {
        const diff3_part *p = &d->parts[i];

        buf_printf(out, "%s[%.*s|%.*s|%.*s] ", KIND[p->kind], (int)p->base.len, p->base.ptr,
                   (int)p->a.len, p->a.ptr, (int)p->b.len, p->b.ptr);
    }
    for (size_t i = 0; i < out->len; i++)
        if (out->ptr[i] == '\n')
            out->ptr[i] = '.';
}

static void parts_are_as_listed(void **state)
{
    static const char *const rows[][4] = {
        { "", "", "", "" },
        { "x\n", "x\n", "x\n", "same[x.|x.|x.] " },
        { "1\n2\n", "1\n2\n3\n", "0\n1\n2\n", "b[||0.] same[1.2.|1.2.|1.2.] a[|3.|] " },
        { "1\n2\n", "one\n2\n", "1\ntwo\n", "a[1.|one.|1.] b[2.|2.|two.] " },
        { "1\n2\n3\n", "1\nx\n3\n", "1\ny\n3\n",
          "same[1.|1.|1.] conflict[2.|x.|y.] same[3.|3.|3.] " },
        { "1\n2\n3\n", "1\nx\n3\n", "1\nx\n3\n", "same[1.|1.|1.] alike[2.|x.|x.] same[3.|3.|3.] " },
        { "1\n", "1\nx\n", "1\ny\n", "same[1.|1.|1.] conflict[|x.|y.] " },
        { "1\n2\n3\n4\n", "A\n4\n", "1\nB\n3\n4\n", "conflict[1.2.3.|A.|1.B.3.] same[4.|4.|4.] " },
        { "1\n2", "1\n2\n", "1\n2", "same[1.|1.|1.] a[2|2.|2] " },
        /* an inserted line that repeats is the last one */
        { "x\n", "x\nx\n", "x\n", "same[x.|x.|x.] a[|x.|] " },
        { "x\nx\ny\n", "x\ny\n", "x\nx\ny\n", "same[x.|x.|x.] a[x.||x.] same[y.|y.|y.] " },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(diff3_dispose) diff3 d = DIFF3_INIT;
        _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(65536);

        diff3_split(str_of(rows[i][0]), str_of(rows[i][1]), str_of(rows[i][2]), &d);
        describe(&d, &said);
        assert_string_equal(said.ptr, rows[i][3]);
    }
}

static uint64_t roll(uint64_t *state) /* xorshift64* */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1Du;
}

static void put_lines(uint64_t *seed, size_t n, size_t n_kinds, memfs_buf *out)
{
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "%zu\n", (size_t)(roll(seed) % n_kinds));
    if (n > 0 && roll(seed) % 4 == 0)
        buf_truncate(out, out->len - 1);
}

static bool is_valid(const diff3_part *p)
{
    switch (p->kind) {
    case DIFF3_SAME: return str_equal(p->base, p->a) && str_equal(p->base, p->b);
    case DIFF3_ONLY_A: return str_equal(p->base, p->b) && !str_equal(p->base, p->a);
    case DIFF3_ONLY_B: return str_equal(p->base, p->a) && !str_equal(p->base, p->b);
    case DIFF3_BOTH_ALIKE: return str_equal(p->a, p->b) && !str_equal(p->base, p->a);
    default: return !str_equal(p->a, p->b);
    }
}

static bool is_next(memfs_str part, const char **at)
{
    bool is_it = part.ptr == *at || part.len == 0;

    *at += part.len;
    return is_it;
}

/* The parts are the texts, each part is what it says, and a and b may change places. */
static void check_split(memfs_str base, memfs_str a, memfs_str b)
{
    _cleanup_(diff3_dispose) diff3 d = DIFF3_INIT, turned = DIFF3_INIT;
    const char *base_at = base.ptr, *a_at = a.ptr, *b_at = b.ptr;

    diff3_split(base, a, b, &d);
    diff3_split(base, b, a, &turned);
    assert_int_equal(d.n, turned.n);
    for (size_t i = 0; i < d.n; i++) {
        assert_true(is_valid(&d.parts[i]));
        assert_true(str_equal(d.parts[i].base, turned.parts[i].base));
        assert_true(str_equal(d.parts[i].a, turned.parts[i].b));
        assert_true(str_equal(d.parts[i].b, turned.parts[i].a));
        assert_true(is_next(d.parts[i].base, &base_at) && is_next(d.parts[i].a, &a_at) &&
                    is_next(d.parts[i].b, &b_at));
    }
    assert_true(base_at == base.ptr + base.len && a_at == a.ptr + a.len && b_at == b.ptr + b.len);
}

static void any_texts_are_split_into_what_the_parts_say(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 20000; seed++) {
        _cleanup_(buf_dispose) memfs_buf base = MEMFS_BUF_INIT(65536), a = MEMFS_BUF_INIT(65536);
        _cleanup_(buf_dispose) memfs_buf b = MEMFS_BUF_INIT(65536);
        uint64_t state_of = seed * 0x9E3779B97F4A7C15u, n_kinds = 1 + roll(&state_of) % 8;

        put_lines(&state_of, roll(&state_of) % 12, n_kinds, &base);
        put_lines(&state_of, roll(&state_of) % 12, n_kinds, &a);
        put_lines(&state_of, roll(&state_of) % 12, n_kinds, &b);
        check_split(buf_str(&base), buf_str(&a), buf_str(&b));
    }
}

/* The length of the longest common subsequence, by the table. */
static size_t longest_common(lines x, lines y)
{
    size_t best[33] = { 0 };

    for (size_t i = 0; i < x.n; i++) {
        size_t diagonal = 0;

        for (size_t j = 0; j < y.n; j++) {
            size_t above = best[j + 1];

            if (x.ids[i] == y.ids[j])
                best[j + 1] = diagonal + 1;
            else if (best[j] > best[j + 1])
                best[j + 1] = best[j];
            diagonal = above;
        }
    }
    return best[y.n];
}

/* is_telling may be NULL.  Returns how many lines are matched. */
static size_t check_match(lines x, lines y, size_t n_ids, const uint8_t *is_telling)
{
    _cleanup_(mem_freep) uint32_t *match = mem_realloc(NULL, x.n + 1, sizeof(*match));
    size_t n = 0, last = 0;

    if (is_telling != NULL)
        lines_match_telling(x, y, n_ids, is_telling, match);
    else
        lines_match(x, y, n_ids, match);
    for (size_t i = 0; i < x.n; i++) {
        if (match[i] == LINES_NONE)
            continue;
        assert_true(match[i] < y.n && x.ids[i] == y.ids[match[i]]);
        assert_true(n == 0 || match[i] > last);
        last = match[i];
        n++;
    }
    return n;
}

static void short_texts_match_as_far_as_possible(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 20000; seed++) {
        uint64_t state_of = seed * 0x9E3779B97F4A7C15u, n_kinds = 1 + roll(&state_of) % 10;
        uint8_t is_telling[10];
        uint32_t x_ids[32], y_ids[32];
        lines x = { x_ids, roll(&state_of) % 33 }, y = { y_ids, roll(&state_of) % 33 };

        for (size_t i = 0; i < ARRAY_LEN(is_telling); i++)
            is_telling[i] = roll(&state_of) % 2;
        for (size_t i = 0; i < 32; i++) {
            x_ids[i] = (uint32_t)(roll(&state_of) % n_kinds);
            y_ids[i] = (uint32_t)(roll(&state_of) % n_kinds);
        }
        assert_int_equal(check_match(x, y, n_kinds, NULL), longest_common(x, y));
        check_match(x, y, n_kinds, is_telling);
    }
}

/* Past LINES_MAX_DISTANCE the match goes ahead by the best it has seen: it stays right, and useful.
 */
static void long_texts_match_well_enough(void **state)
{
    enum { N = 100000 };
    _cleanup_(mem_freep) uint32_t *x_ids = mem_realloc(NULL, N, sizeof(*x_ids));
    _cleanup_(mem_freep) uint32_t *y_ids = mem_realloc(NULL, N, sizeof(*y_ids));
    lines x = { x_ids, N }, y = { y_ids, 0 };
    uint64_t state_of = 42;

    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        x_ids[i] = i;
        if (roll(&state_of) % 20 != 0) /* about 5,000 lines are gone */
            y_ids[y.n++] = i;
    }
    assert_int_equal(check_match(x, y, N, NULL), y.n);
    for (size_t i = 0; i < N; i++) {
        x_ids[i] = (uint32_t)(roll(&state_of) % 4);
        y_ids[i] = (uint32_t)(roll(&state_of) % 4);
    }
    y.n = N;
    assert_in_range(check_match(x, y, 4, NULL), N / 2, N);
}

/* 1 is a line with words, 0 a blank one: the words decide, though fewer lines match so. */
static void telling_lines_are_matched_first(void **state)
{
    static const uint8_t is_telling[] = { 0, 1, 1 };
    uint32_t x_ids[] = { 1, 0, 0, 0 }, y_ids[] = { 0, 0, 0, 1 }, match[4];
    lines x = { x_ids, 4 }, y = { y_ids, 4 };

    (void)state;
    lines_match(x, y, 3, match);
    assert_int_equal(match[0], LINES_NONE);
    lines_match_telling(x, y, 3, is_telling, match);
    assert_int_equal(match[0], 3);
    assert_int_equal(match[1], LINES_NONE);
}

static void lines_are_numbered_with_or_without_their_end(void **state)
{
    _cleanup_(line_table_freep) line_table *t = line_table_new();
    _cleanup_(lines_dispose) lines with = LINES_INIT, without = LINES_INIT, none = LINES_INIT;

    (void)state;
    lines_read(t, MEMFS_STR("a\nb\na\n\na"), true, &with);
    assert_int_equal(with.n, 5);
    assert_int_equal(with.ids[0], with.ids[2]);
    assert_int_not_equal(with.ids[0], with.ids[4]);
    lines_read(t, MEMFS_STR("a\nb\na\n\na"), false, &without);
    assert_int_equal(without.n, 5);
    assert_int_equal(without.ids[0], without.ids[4]);
    assert_true(str_equal(line_table_text(t, without.ids[3]), MEMFS_STR("")));
    lines_read(t, MEMFS_STR(""), false, &none);
    assert_int_equal(none.n, 0);
    assert_int_equal(line_table_n(t), 6); /* "a\n", "b\n", "\n", "a", "b" and "" */
    assert_true(lines_is_subsequence(none, without));
    assert_false(lines_is_subsequence(without, none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_as_listed),
        cmocka_unit_test(any_texts_are_split_into_what_the_parts_say),
        cmocka_unit_test(short_texts_match_as_far_as_possible),
        cmocka_unit_test(long_texts_match_well_enough),
        cmocka_unit_test(telling_lines_are_matched_first),
        cmocka_unit_test(lines_are_numbered_with_or_without_their_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
