#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cache/like.h"

#include <stdlib.h>

static bool contains(memfs_str pattern, memfs_str text)
{
    static like_pattern compiled;
    memfs_error err;

    assert_int_equal(like_compile(pattern, &compiled, &err), MEMFS_OK);
    return like_matches(&compiled, text);
}

static void test_contains_as_ilike_does(void **unused)
{
    static const struct {
        const char *pattern, *text;
        bool is_match;
    } cases[] = {
        { "", "", true },
        { "", "x", true },
        { "a", "", false },
        { "tea", "Likes TEA.", true },
        { "TEA", "likes tea", true },
        { "coffee", "likes tea", false },
        { "l_kes", "likes", true },
        { "_", "", false },
        { "_", "x", true },
        { "___", "xy", false },
        { "___", "xyz", true },
        { "l%s", "let us", true },
        { "l%z", "let us", false },
        { "%", "", true },
        { "%%%", "", true },
        { "a%b%c", "xxaxxbxxcxx", true },
        { "a%b%c", "xxcxxbxxaxx", false },
        { "aab", "aaab", true },
        { "a_b%c", "aab axb_ccc", true },
        { "abcabd", "abcabcabd", true },
        { "100%", "100 percent", true },
        { "a\\%", "a\\x", true }, /* the backslash is itself, the % still a wildcard */
        { "a\\%", "ax", false },
        { "ÄRGER", "viel ärger", true },
        { "straße", "STRASSE", false }, /* one code point at a time */
        { "привет", "ПРИВЕТ мир", true },
        { "_", "é", true }, /* a character, not a byte */
        { "__", "é", false },
        { "日_語", "日本語", true },
        { "ß", "ẞ", true },
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (contains(str_of(cases[i].pattern), str_of(cases[i].text)) != cases[i].is_match)
            fail_msg("'%s' in '%s'", cases[i].pattern, cases[i].text);
    }
}

static void test_K5_bytes_that_are_not_utf8_match_themselves_only(void **unused)
{
    (void)unused;
    assert_true(contains(MEMFS_STR("\xff"), MEMFS_STR("a\xff"
                                                      "b")));
    assert_false(contains(MEMFS_STR("\xff"), MEMFS_STR("a\xfe"
                                                       "b")));
    assert_false(contains(MEMFS_STR("\xff"), MEMFS_STR("\xc3\xbf"))); /* ÿ, U+00FF */
    assert_true(contains(MEMFS_STR("a_b"), MEMFS_STR("a\xff"
                                                     "b")));
    assert_true(contains(MEMFS_STR("b\0c"), MEMFS_STR("ab\0cd")));
    assert_false(contains(MEMFS_STR("b\0c"), MEMFS_STR("abcd")));
}

static void test_a_pattern_is_at_most_1024_characters(void **unused)
{
    static like_pattern compiled;
    char text[2 * LIKE_MAX + 2];
    memfs_error err;

    (void)unused;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = i % 2 == 0 ? '\xc3' : '\xa9'; /* é */
    assert_int_equal(like_compile(str_make(text, 2 * LIKE_MAX), &compiled, &err), MEMFS_OK);
    assert_int_equal(compiled.n, LIKE_MAX);
    assert_int_equal(like_compile(str_make(text, 2 * LIKE_MAX + 2), &compiled, &err), MEMFS_ELIMIT);
}

/* T26: a pattern of many % must not take exponential time, as sqlite's own LIKE does. */
static void test_T26_hostile_patterns_end_in_time(void **unused)
{
    size_t len = 1 << 20;
    char *text = mem_alloc(len);
    char pattern[200];
    int64_t start;

    (void)unused;
    memset(text, 'a', len);
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = i % 2 == 0 ? 'a' : '%';
    pattern[sizeof(pattern) - 1] = 'b';
    start = clock_mono_ms();
    assert_false(contains(str_make(pattern, sizeof(pattern)), str_make(text, len)));
    memset(pattern, 'a', sizeof(pattern) - 1);
    assert_false(contains(str_make(pattern, sizeof(pattern)), str_make(text, len)));
    assert_true(clock_mono_ms() - start <
                60000); /* 0.3 s; the bound is for a sanitizer on a busy box */
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contains_as_ilike_does),
        cmocka_unit_test(test_K5_bytes_that_are_not_utf8_match_themselves_only),
        cmocka_unit_test(test_a_pattern_is_at_most_1024_characters),
        cmocka_unit_test(test_T26_hostile_patterns_end_in_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
