/* A page of tags out of many, in order and each once (http-api 9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/buf.h"
#include "server/tag_page.h"

#include <stdio.h>
#include <stdlib.h>

static void assert_page(tag_page *page, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);

    tag_page_end(page);
    for (size_t i = 0; i < page->n; i++)
        buf_printf(&out, "%s%.*s", i > 0 ? " " : "", (int)page->tags[i].len, page->tags[i].ptr);
    assert_string_equal(out.len > 0 ? out.ptr : "", expected);
}

static void test_9_each_tag_is_there_once_and_in_the_order_of_code_points(void **at)
{
    static const struct {
        const char *tags;
        tag_page page;
    } cases[] = {
        { "B a b \xc3\xa9 \xf0\x9f\x99\x82", { .limit = 50 } },
        { "\xf0\x9f\x99\x82 \xc3\xa9 b a B", { .limit = 0, .descending = true } },
        { "B a", { .limit = 2 } },
        { "b \xc3\xa9", { .limit = 2, .after = { "a", 1 } } },
        { "a b", { .after = { "B", 1 }, .before = { "c", 1 } } },
        { "b a", { .after = { "c", 1 }, .before = { "B", 1 }, .descending = true } },
        { "", { .after = { "\xff", 1 } } },
    };

    (void)at;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        _cleanup_(tag_page_dispose) tag_page page = cases[i].page;
        memfs_error err;

        assert_int_equal(tag_page_add_list(&page, MEMFS_STR("[\"b\",\"a\",\"b\"]"), &err), 0);
        assert_int_equal(tag_page_add_list(&page, MEMFS_STR("[]"), &err), 0);
        assert_int_equal(tag_page_add_list(&page, MEMFS_STR("[7,\"\\u00e9\",null,\"B\"]"), &err),
                         0);
        assert_int_equal(tag_page_add_list(&page, MEMFS_STR("no list"), &err), 0);
        assert_int_equal(tag_page_add(&page, MEMFS_STR("\xf0\x9f\x99\x82"), &err), 0);
        assert_page(&page, cases[i].tags);
    }
}

static void test_9_a_text_is_looked_for_in_any_case_and_with_wildcards(void **at)
{
    static const struct {
        const char *text, *found;
    } cases[] = {
        { "TEA", "TeaTime teal" }, { "t%m", "TeaTime" }, { "_eal", "teal" }, { "x", "" }
    };

    (void)at;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        like_pattern pattern;
        _cleanup_(tag_page_dispose) tag_page page = { .pattern = &pattern };
        memfs_error err;

        assert_int_equal(like_compile(str_of(cases[i].text), &pattern, &err), 0);
        assert_int_equal(
            tag_page_add_list(&page, MEMFS_STR("[\"teal\",\"TeaTime\",\"coffee\"]"), &err), 0);
        assert_page(&page, cases[i].found);
    }
}

/* However many there are: the first ones of the order, and little is held meanwhile. */
static void test_9_many_tags_cost_no_more_than_their_page(void **at)
{
    _cleanup_(tag_page_dispose) tag_page page = { .limit = 3, .max_bytes = 4096 };
    memfs_error err;
    char tag[16];

    (void)at;
    for (int i = 0; i < 100000; i++) {
        snprintf(tag, sizeof(tag), "%05d", i * 7919 % 50000);
        assert_int_equal(tag_page_add(&page, str_of(tag), &err), 0);
        assert_in_range(page.n, 1, 128);
    }
    assert_page(&page, "00000 00001 00002");
}

static void test_9_a_page_without_a_limit_ends_at_its_bytes(void **at)
{
    _cleanup_(tag_page_dispose) tag_page page = { .max_bytes = 1000 };
    memfs_code rc = MEMFS_OK;
    memfs_error err;
    char tag[16];
    int n = 0;

    (void)at;
    for (int i = 0; i < 1000; i++) /* the same again are none */
        assert_int_equal(tag_page_add(&page, MEMFS_STR("0123456789"), &err), 0);
    for (; rc == MEMFS_OK && n < 1000; n++) {
        snprintf(tag, sizeof(tag), "tag-%06d", n);
        rc = tag_page_add(&page, str_of(tag), &err);
    }
    assert_int_equal(rc, MEMFS_ELIMIT);
    assert_in_range(n, 99, 201);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_9_each_tag_is_there_once_and_in_the_order_of_code_points),
        cmocka_unit_test(test_9_a_text_is_looked_for_in_any_case_and_with_wildcards),
        cmocka_unit_test(test_9_many_tags_cost_no_more_than_their_page),
        cmocka_unit_test(test_9_a_page_without_a_limit_ends_at_its_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
