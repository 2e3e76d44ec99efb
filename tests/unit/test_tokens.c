/* Tokens as the Letta client counts them (client 10).  The bytes are what node 18 makes of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "memory/tokens.h"

static void four_bytes_are_a_token(void **state)
{
    (void)state;
    assert_int_equal(tokens_of(MEMFS_STR("")), 0);
    assert_int_equal(tokens_of(MEMFS_STR("a")), 1);
    assert_int_equal(tokens_of(MEMFS_STR("abcd")), 1);
    assert_int_equal(tokens_of(MEMFS_STR("abcde")), 2);
    assert_int_equal(tokens_of(MEMFS_STR("\xC3\xA4\xC3\xB6\xC3\xBC")), 2);
}

typedef struct row {
    memfs_str bytes;
    unsigned chars, decoded_bytes;
} row;

static void what_is_not_utf8_counts_as_its_replacement(void **state)
{
    static const row rows[] = {
        { { "\xE2\x82\x41", 3 }, 2, 4 },
        { { "\xFF\xFE", 2 }, 2, 6 },
        { { "\xF0\x9F\x98", 3 }, 1, 3 },
        { { "\xED\xA0\x80", 3 }, 3, 9 },
        { { "\xC0\x80", 2 }, 2, 6 },
        { { "\xF4\x90\x80\x80", 4 }, 4, 12 },
        { { "\xE0\x80\x80", 3 }, 3, 9 },
        { { "\xF0\x80\x41", 3 }, 3, 7 },
        { { "\xEF\xBB\xBF\x41", 4 }, 2, 4 },
        { { "\xF0\x9F\x98\x80", 4 }, 1, 4 },
        { { "\xC3", 1 }, 1, 3 },
        { { "a\0b", 3 }, 3, 3 },
        { { "\xF1\x80\x80\xC3\xA4", 5 }, 2, 5 },
        { { "\x80", 1 }, 1, 3 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(tokens_of(rows[i].bytes), (rows[i].decoded_bytes + 3) / 4);
        assert_int_equal(chars_of(rows[i].bytes), rows[i].chars);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_bytes_are_a_token),
        cmocka_unit_test(what_is_not_utf8_counts_as_its_replacement),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
