#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/oid.h"
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* ---- str ---- */

static int sign(int n)
{
    return (n > 0) - (n < 0);
}

static void test_slices_compare_by_bytes_as_git_sorts(void **unused)
{
    static const struct {
        memfs_str a, b;
        int order;
    } cases[] = {
        { { "", 0 }, { "", 0 }, 0 },
        { { NULL, 0 }, { "", 0 }, 0 },
        { { NULL, 0 }, { "a", 1 }, -1 },
        { { "a", 1 }, { "a", 1 }, 0 },
        { { "a", 1 }, { "ab", 2 }, -1 },
        { { "b", 1 }, { "ab", 2 }, 1 },
        { { "a\0b", 3 }, { "a\0c", 3 }, -1 },
        { { "a\0", 2 }, { "a", 1 }, 1 },
        { { "\xff", 1 }, { "a", 1 }, 1 }, /* bytes are unsigned */
    };

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(sign(str_compare(cases[i].a, cases[i].b)), cases[i].order);
        assert_int_equal(sign(str_compare(cases[i].b, cases[i].a)), -cases[i].order);
        assert_int_equal(str_equal(cases[i].a, cases[i].b), cases[i].order == 0);
    }
}

static void test_prefixes_and_suffixes(void **unused)
{
    memfs_str s = MEMFS_STR("system/human.md");

    (void)unused;
    assert_true(str_starts_with(s, MEMFS_STR("system/")));
    assert_true(str_starts_with(s, MEMFS_STR("")));
    assert_true(str_starts_with(s, s));
    assert_false(str_starts_with(s, MEMFS_STR("system/human.md!")));
    assert_true(str_ends_with(s, MEMFS_STR(".md")));
    assert_true(str_ends_with(s, MEMFS_STR("")));
    assert_true(str_ends_with(s, s));
    assert_false(str_ends_with(s, MEMFS_STR(".MD")));
    assert_false(str_ends_with(MEMFS_STR("md"), MEMFS_STR(".md")));
    assert_false(str_ends_with(MEMFS_STR(""), MEMFS_STR("x")));
    assert_int_equal(str_of(NULL).len, 0);
}

static void test_cutting_stays_within_the_slice(void **unused)
{
    memfs_str head = MEMFS_STR("kept"), rest = MEMFS_STR("kept");

    (void)unused;
    assert_true(str_equal(str_from(MEMFS_STR("abc"), 1), MEMFS_STR("bc")));
    assert_int_equal(str_from(MEMFS_STR("abc"), 3).len, 0);
    assert_int_equal(str_from(MEMFS_STR("abc"), SIZE_MAX).len, 0);
    assert_false(str_split(MEMFS_STR("abc"), '/', &head, &rest));
    assert_true(str_equal(head, MEMFS_STR("kept"))); /* not written on refusal */
    assert_false(str_split(str_make(NULL, 0), '/', &head, &rest));
    assert_true(str_split(MEMFS_STR("a/b/c"), '/', &head, &rest));
    assert_true(str_equal(head, MEMFS_STR("a")));
    assert_true(str_equal(rest, MEMFS_STR("b/c")));
    assert_true(str_split(MEMFS_STR("/"), '/', &head, &rest));
    assert_int_equal(head.len, 0);
    assert_int_equal(rest.len, 0);
    assert_true(str_split(MEMFS_STR("a\0b"), '\0', &head, &rest));
    assert_true(str_equal(rest, MEMFS_STR("b")));
}

static void test_numbers_are_digits_alone_and_within_the_bound(void **unused)
{
    static const struct {
        const char *text;
        uint64_t max;
        bool is_number;
        uint64_t value;
    } cases[] = {
        { "0", 0, true, 0 },
        { "1", 0, false, 0 },
        { "9", 5, false, 0 },
        { "7", 5, false, 0 },
        { "5", 5, true, 5 },
        { "6", 5, false, 0 },
        { "007", 7, true, 7 },
        { "008", 7, false, 0 },
        { "99", 100, true, 99 },
        { "100", 100, true, 100 },
        { "101", 100, false, 0 },
        { "1000", 100, false, 0 },
        { "18446744073709551615", UINT64_MAX, true, UINT64_MAX },
        { "18446744073709551616", UINT64_MAX, false, 0 },
        { "18446744073709551620", UINT64_MAX, false, 0 },
        { "99999999999999999999999", UINT64_MAX, false, 0 },
        { "9223372036854775808", INT64_MAX, false, 0 },
        { "", 100, false, 0 },
        { "-1", 100, false, 0 },
        { "+1", 100, false, 0 },
        { " 1", 100, false, 0 },
        { "1 ", 100, false, 0 },
        { "0x1", 100, false, 0 },
        { "1e1", 100, false, 0 },
        { "\xd9\xa1", 100, false, 0 }, /* an Arabic one */
    };

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t value = 4711;
        bool is_number = str_to_u64(str_of(cases[i].text), cases[i].max, &value);

        if (is_number != cases[i].is_number)
            fail_msg("'%s' with bound %llu", cases[i].text, (unsigned long long)cases[i].max);
        assert_true(value == (is_number ? cases[i].value : 4711));
    }
    uint64_t value;
    assert_false(str_to_u64(MEMFS_STR("1\0"), 100, &value));
    assert_true(str_to_u64(str_make("123", 2), 100, &value)); /* the slice, not the text behind it */
    assert_int_equal(value, 12);
}

/* ---- UTF-8 (RFC 3629) ---- */

static void test_K5_utf8_is_judged_as_rfc_3629_has_it(void **unused)
{
    static const struct {
        memfs_str text;
        size_t valid;
    } cases[] = {
        { { "", 0 }, 0 },
        { { "plain", 5 }, 5 },
        { { "a\0b", 3 }, 3 },                 /* NUL is a character */
        { { "\x7f", 1 }, 1 },
        { { "\xc2\x80", 2 }, 2 },             /* the least of two bytes */
        { { "\xc1\xbf", 2 }, 0 },             /* overlong */
        { { "\xc0\x80", 2 }, 0 },             /* overlong NUL */
        { { "\xdf\xbf", 2 }, 2 },
        { { "\xe0\xa0\x80", 3 }, 3 },         /* the least of three */
        { { "\xe0\x9f\xbf", 3 }, 0 },         /* overlong */
        { { "\xed\x9f\xbf", 3 }, 3 },         /* U+D7FF */
        { { "\xed\xa0\x80", 3 }, 0 },         /* U+D800, a surrogate */
        { { "\xed\xbf\xbf", 3 }, 0 },         /* U+DFFF */
        { { "\xee\x80\x80", 3 }, 3 },         /* U+E000 */
        { { "\xef\xbf\xbf", 3 }, 3 },         /* U+FFFF, no character but valid */
        { { "\xf0\x90\x80\x80", 4 }, 4 },     /* the least of four */
        { { "\xf0\x8f\xbf\xbf", 4 }, 0 },     /* overlong */
        { { "\xf4\x8f\xbf\xbf", 4 }, 4 },     /* U+10FFFF */
        { { "\xf4\x90\x80\x80", 4 }, 0 },     /* above */
        { { "\xf5\x80\x80\x80", 4 }, 0 },
        { { "\xf8\x88\x80\x80\x80", 5 }, 0 }, /* five bytes are none */
        { { "\xff", 1 }, 0 },
        { { "\x80", 1 }, 0 },                 /* continues nothing */
        { { "ab\xc3", 3 }, 2 },               /* cut off */
        { { "ab\xe2\x82", 4 }, 2 },
        { { "ab\xf0\x9f\x98", 5 }, 2 },
        { { "ab\xc3" "c", 4 }, 2 },           /* not continued */
        { { "\xe2\x82\xac\xe2\x28\xac", 6 }, 3 },
        { { "\xf0\x9f\x98\x80!", 5 }, 5 },
    };

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        /* exactly as long as it is, so that a sanitizer sees a look beyond */
        char *copy = mem_alloc(cases[i].text.len);

        if (cases[i].text.len > 0)
            memcpy(copy, cases[i].text.ptr, cases[i].text.len);
        if (str_utf8_valid_prefix(str_make(copy, cases[i].text.len)) != cases[i].valid)
            fail_msg("case %zu", i);
        free(copy);
    }
}

static void test_utf8_every_code_point_is_written_and_read_back(void **unused)
{
    (void)unused;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        bool is_surrogate = cp >= 0xD800 && cp <= 0xDFFF;
        size_t pos = 0, n;
        uint32_t back = 0xFFFFFFFF;
        char bytes[4];

        n = str_utf8_put(cp, bytes);
        assert_true(n == (cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4));
        assert_int_equal(str_utf8_next(str_make(bytes, n), &pos, &back), !is_surrogate);
        assert_int_equal(pos, is_surrogate ? 1 : n);
        assert_true(is_surrogate || back == cp);
    }
}

static void test_utf8_a_bad_byte_costs_one_byte(void **unused)
{
    memfs_str s = MEMFS_STR("\xe2\x82" "a\xff\xc3\xa9");
    static const uint32_t want[] = { 0, 0, 'a', 0, 0xE9 };
    size_t pos = 0;
    uint32_t cp;

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_true(pos < s.len);
        assert_int_equal(str_utf8_next(s, &pos, &cp), want[i] != 0);
        if (want[i] != 0)
            assert_int_equal(cp, want[i]);
    }
    assert_int_equal(pos, s.len);
}

/* ---- buf ---- */

static void test_a_buffer_is_always_readable_and_terminated(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf b = MEMFS_BUF_INIT(1000);
    memfs_error err;

    (void)unused;
    assert_string_equal(b.ptr, "");
    buf_add(&b, NULL, 0);
    buf_truncate(&b, 0);
    buf_drop_front(&b, 10);
    assert_string_equal(b.ptr, "");
    buf_putc(&b, 'a');
    buf_puts(&b, "bc");
    buf_add_str(&b, MEMFS_STR("d\0e"));
    buf_printf(&b, "-%d-%s", 42, "x");
    assert_int_equal(b.len, 11);
    assert_memory_equal(b.ptr, "abcd\0e-42-x", 12);
    buf_truncate(&b, 3);
    assert_string_equal(b.ptr, "abc");
    buf_truncate(&b, 5); /* does not grow */
    assert_int_equal(b.len, 3);
    buf_drop_front(&b, 1);
    assert_string_equal(b.ptr, "bc");
    buf_drop_front(&b, 100);
    assert_string_equal(b.ptr, "");
    assert_int_equal(buf_check(&b, "it", &err), MEMFS_OK);
    buf_dispose(&b);
    buf_dispose(&b);
    assert_string_equal(b.ptr, "");
}

static void test_T14_a_buffer_never_holds_more_than_its_bound(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf b = MEMFS_BUF_INIT(8);
    memfs_error err;

    (void)unused;
    buf_puts(&b, "12345678");
    assert_int_equal(buf_check(&b, "it", &err), MEMFS_OK);
    buf_add(&b, "", 0); /* nothing always fits */
    assert_int_equal(buf_check(&b, "it", &err), MEMFS_OK);
    buf_putc(&b, '9');
    assert_int_equal(buf_check(&b, "the list", &err), MEMFS_ELIMIT);
    assert_string_equal(err.msg, "the list is larger than 8 bytes");
    assert_string_equal(b.ptr, "12345678");
}

static void test_a_refused_append_sticks_until_cleared(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf b = MEMFS_BUF_INIT(8);
    memfs_error err;

    (void)unused;
    buf_puts(&b, "1234");
    buf_puts(&b, "too much");
    buf_putc(&b, '5'); /* would fit, but then the text had a hole */
    buf_printf(&b, "%d", 6);
    assert_string_equal(b.ptr, "1234");
    assert_null(buf_reserve(&b, 1));
    buf_truncate(&b, 0);
    assert_int_equal(buf_check(&b, "it", &err), MEMFS_ELIMIT);
    buf_clear(&b);
    assert_int_equal(buf_check(&b, "it", &err), MEMFS_OK);
    buf_puts(&b, "12345678");
    assert_string_equal(b.ptr, "12345678");
}

static void test_sizes_near_the_end_of_the_address_space_are_refused(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf bounded = MEMFS_BUF_INIT(100);
    _cleanup_(buf_dispose) memfs_buf unlimited = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    (void)unused;
    buf_puts(&bounded, "x");
    assert_null(buf_reserve(&bounded, SIZE_MAX));
    assert_string_equal(bounded.ptr, "x");
    buf_puts(&unlimited, "x");
    assert_null(buf_reserve(&unlimited, SIZE_MAX));
    buf_clear(&unlimited);
    assert_null(buf_reserve(&unlimited, MEMFS_BUF_UNLIMITED + 1));
    buf_clear(&unlimited);
    buf_puts(&unlimited, "x");
    assert_null(buf_reserve(&unlimited, MEMFS_BUF_UNLIMITED));
    assert_string_equal(unlimited.ptr, "x");
}

static void test_reserved_room_is_taken_by_saying_so(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf b = MEMFS_BUF_INIT(1 << 20);
    char *room;

    (void)unused;
    buf_puts(&b, "ab");
    room = buf_reserve(&b, 100000);
    assert_non_null(room);
    memset(room, 'c', 100000);
    assert_int_equal(b.len, 2);
    buf_grew(&b, 3);
    assert_string_equal(b.ptr, "abccc");
    room = buf_reserve(&b, 0);
    assert_ptr_equal(room, b.ptr + 5);
}

static void test_taken_text_is_the_callers(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf b = MEMFS_BUF_INIT(100);
    size_t len = 99;
    char *text;

    (void)unused;
    text = buf_take(&b, &len);
    assert_string_equal(text, "");
    assert_int_equal(len, 0);
    free(text);
    buf_puts(&b, "abc");
    text = buf_take(&b, NULL);
    assert_string_equal(text, "abc");
    assert_int_equal(b.len, 0);
    buf_puts(&b, "new");
    assert_string_equal(text, "abc");
    free(text);
}

static void test_a_growing_buffer_keeps_every_byte(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf b = MEMFS_BUF_INIT(1 << 20);

    (void)unused;
    for (unsigned i = 0; i < 100000; i++)
        buf_putc(&b, (char)(i * 7));
    assert_int_equal(b.len, 100000);
    for (unsigned i = 0; i < 100000; i++)
        assert_true(b.ptr[i] == (char)(i * 7));
}

/* ---- json ---- */

#define assert_json(expected)                                                                      \
    do {                                                                                           \
        assert_string_equal(out.ptr, expected);                                                    \
        buf_clear(&out);                                                                           \
        w = (json_writer)JSON_WRITER_INIT(&out);                                                   \
    } while (0)

static void test_json_commas_are_put_where_they_belong(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1000);
    json_writer w = JSON_WRITER_INIT(&out);

    (void)unused;
    jw_object(&w);
    jw_object_end(&w);
    assert_json("{}");
    jw_array(&w);
    jw_array_end(&w);
    assert_json("[]");
    jw_array(&w);
    for (int i = 0; i < 2; i++) {
        jw_object(&w);
        jw_key_int(&w, "n", i);
        jw_key(&w, "list");
        jw_array(&w);
        jw_array(&w);
        jw_array_end(&w);
        jw_null(&w);
        jw_array_end(&w);
        jw_key_bool(&w, "b", i == 0);
        jw_object_end(&w);
    }
    jw_raw(&w, MEMFS_STR("{\"raw\":1}"));
    jw_str(&w, MEMFS_STR("end"));
    jw_array_end(&w);
    assert_json("[{\"n\":0,\"list\":[[],null],\"b\":true},{\"n\":1,\"list\":[[],null],\"b\":false},"
                "{\"raw\":1},\"end\"]");
}

static void test_json_every_kind_of_value(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1000);
    json_writer w = JSON_WRITER_INIT(&out);

    (void)unused;
    jw_object(&w);
    jw_key_str(&w, "s", MEMFS_STR("x"));
    jw_key_text(&w, "t", "y");
    jw_key_text(&w, "none", NULL);
    jw_key_null(&w, "null");
    jw_key_int(&w, "min", INT64_MIN);
    jw_key_int(&w, "max", INT64_MAX);
    jw_key_str(&w, "empty", str_make(NULL, 0));
    jw_object_end(&w);
    assert_json("{\"s\":\"x\",\"t\":\"y\",\"none\":null,\"null\":null,\"min\":-9223372036854775808,"
                "\"max\":9223372036854775807,\"empty\":\"\"}");
}

static void test_T20_json_text_cannot_leave_its_quotes(void **unused)
{
    static const struct {
        memfs_str text;
        const char *json;
    } cases[] = {
        { { "\",\"x\":\"", 7 }, "\"\\\",\\\"x\\\":\\\"\"" },
        { { "\\", 1 }, "\"\\\\\"" },
        { { "/", 1 }, "\"/\"" },
        { { "\n\r\t\b\f", 5 }, "\"\\n\\r\\t\\b\\f\"" },
        { { "\0", 1 }, "\"\\u0000\"" },
        { { "a\x01" "b\x1f\x7f", 5 }, "\"a\\u0001b\\u001f\x7f\"" },
        { { "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9 },
          "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"" },
        { { "a\xff" "b", 3 }, "\"a\xef\xbf\xbd" "b\"" },
        { { "\xc3", 1 }, "\"\xef\xbf\xbd\"" },                         /* cut off */
        { { "\xc3\"", 2 }, "\"\xef\xbf\xbd\\\"\"" },                   /* does not swallow the quote */
        { { "\xed\xa0\x80", 3 }, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" },
        { { "\xc0\xa2", 2 }, "\"\xef\xbf\xbd\xef\xbf\xbd\"" },         /* an overlong quote */
    };

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1000);
        json_writer w = JSON_WRITER_INIT(&out);

        jw_str(&w, cases[i].text);
        assert_string_equal(out.ptr, cases[i].json);
        assert_int_equal(str_utf8_valid_prefix(buf_str(&out)), out.len);
    }
}

/* What quoting one byte of otherwise plain text must make of it, said the plain way. */
static void put_expected(memfs_buf *out, unsigned char c)
{
    static const char named[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
    const char *at = c != '\0' ? strchr(named, c) : NULL;

    if (at != NULL)
        buf_printf(out, "\\%c", letters[at - named]);
    else if (c < 0x20)
        buf_printf(out, "\\u%04x", c);
    else if (c < 0x80)
        buf_putc(out, (char)c);
    else
        buf_puts(out, "\xEF\xBF\xBD");
}

/* Texts are read eight bytes at a time: each byte, at each place in them, from each alignment. */
static void test_T20_json_finds_every_byte_at_every_place(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1000), expected = MEMFS_BUF_INIT(1000);
    char text[8 + 27];

    (void)unused;
    for (size_t round = 0; round < 8 * 27 * 256; round++) {
        size_t offset = round % 8, place = round / 8 % 27;
        json_writer w = JSON_WRITER_INIT(&out);

        buf_clear(&out);
        buf_clear(&expected);
        memset(text, " ~!#[]\x7f"[round % 7], sizeof(text)); /* the neighbours of what is special */
        text[offset + place] = (char)(round / 8 / 27);
        buf_putc(&expected, '"');
        for (size_t i = 0; i < 27; i++)
            put_expected(&expected, (unsigned char)text[offset + i]);
        buf_putc(&expected, '"');
        jw_str(&w, str_make(text + offset, 27));
        assert_int_equal(out.len, expected.len);
        assert_memory_equal(out.ptr, expected.ptr, out.len);
    }
}

static void test_K5_json_keeps_sequences_across_words(void **unused)
{
    static const char *const sequences[] = { "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80" };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1000);
    char text[32], expected[40];

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(sequences); i++) {
        for (size_t at = 0; at + 4 <= sizeof(text); at++) {
            size_t n = strlen(sequences[i]);
            json_writer w = JSON_WRITER_INIT(&out);

            buf_clear(&out);
            memset(text, 'x', sizeof(text));
            memcpy(text + at, sequences[i], n);
            snprintf(expected, sizeof(expected), "\"%.32s\"", text);
            jw_str(&w, str_make(text, sizeof(text)));
            assert_string_equal(out.ptr, expected);
            buf_clear(&out);
            jw_str(&(json_writer)JSON_WRITER_INIT(&out), str_make(text, at + n - 1)); /* cut off */
            snprintf(expected, sizeof(expected), "\"%.*s\xEF\xBF\xBD", (int)at, text);
            assert_true(str_starts_with(buf_str(&out), str_of(expected)));
        }
    }
}

static void test_json_past_the_bound_is_told_by_the_buffer(void **unused)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(10);
    json_writer w = JSON_WRITER_INIT(&out);
    memfs_error err;

    (void)unused;
    jw_array(&w);
    for (int i = 0; i < 100; i++)
        jw_int(&w, i);
    jw_array_end(&w);
    assert_int_equal(buf_check(&out, "the answer", &err), MEMFS_ELIMIT);
    assert_true(out.len <= 10);
}

/* ---- clock ---- */

static void test_F25_times_are_written_as_iso_8601_in_utc(void **unused)
{
    static const struct {
        int64_t us;
        const char *iso;
    } cases[] = {
        { 0, "1970-01-01T00:00:00Z" },
        { 1, "1970-01-01T00:00:00.000001Z" },
        { -1, "1969-12-31T23:59:59.999999Z" },
        { -1000000, "1969-12-31T23:59:59Z" },
        { INT64_C(1767322985678901), "2026-01-02T03:03:05.678901Z" },
        { INT64_C(2147483648000000), "2038-01-19T03:14:08Z" },
        { INT64_C(1709208000500000), "2024-02-29T12:00:00.500000Z" },
        { INT64_C(4102444799999999), "2099-12-31T23:59:59.999999Z" },
        { INT64_C(253402300800000000), "10000-01-01T00:00:00Z" },
    };
    char out[CLOCK_ISO_LEN];

    (void)unused;
    setenv("TZ", "Asia/Kathmandu", 1); /* must not matter */
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        clock_iso(cases[i].us, out);
        assert_string_equal(out, cases[i].iso);
    }
    clock_iso(INT64_MAX, out); /* any number is written, within bounds */
    assert_non_null(memchr(out, 'Z', sizeof(out)));
    clock_iso(INT64_MIN, out);
    assert_non_null(memchr(out, 'Z', sizeof(out)));
}

/* Some second of every day of eight centuries, against the C library. */
static void test_F25_every_day_has_its_date(void **unused)
{
    const time_t first = -INT64_C(5364662400), last = INT64_C(19880899200); /* 1800 to 2600 */
    char out[CLOCK_ISO_LEN], expected[CLOCK_ISO_LEN];

    (void)unused;
    for (time_t at = first; at < last; at += 86400 - 1) {
        struct tm tm;

        gmtime_r(&at, &tm);
        strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%SZ", &tm);
        clock_iso((int64_t)at * 1000000, out);
        assert_string_equal(out, expected);
    }
}

static void test_the_monotonic_clock_counts_and_sleeping_lasts(void **unused)
{
    int64_t start_us = clock_mono_us(), start_ms = clock_mono_ms();

    (void)unused;
    clock_sleep_ms(20);
    assert_true(clock_mono_us() - start_us >= 20000);
    assert_true(clock_mono_ms() - start_ms >= 19);
    clock_sleep_ms(0);
    assert_true(clock_wall_us() > INT64_C(1700000000000000)); /* microseconds, not milliseconds */
}

/* ---- oid ---- */

static void test_ids_of_objects_are_forty_lower_case_digits(void **unused)
{
    static const char good[] = "56776245ff7b896622904bfc4d1c355a35e6cd81";
    static const char *const bad[] = {
        "", "5677", "56776245FF7B896622904BFC4D1C355A35E6CD81",
        "56776245ff7b896622904bfc4d1c355a35e6cd8", "56776245ff7b896622904bfc4d1c355a35e6cd811",
        "56776245ff7b896622904bfc4d1c355a35e6cd8g", " 6776245ff7b896622904bfc4d1c355a35e6cd81",
        "-6776245ff7b896622904bfc4d1c355a35e6cd81", "0x776245ff7b896622904bfc4d1c355a35e6cd81",
    };
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid oid, other;

    (void)unused;
    assert_true(oid_parse(str_of(good), &oid));
    assert_int_equal(oid.id[0], 0x56);
    assert_int_equal(oid.id[19], 0x81);
    oid_hex(&oid, hex);
    assert_string_equal(hex, good);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(oid_parse(str_of(bad[i]), &other));
    other = oid;
    assert_true(oid_equal(&oid, &other));
    other.id[19] ^= 1;
    assert_false(oid_equal(&oid, &other));
    assert_false(oid_is_zero(&oid));
    assert_true(oid_parse(MEMFS_STR("0000000000000000000000000000000000000000"), &oid));
    assert_true(oid_is_zero(&oid));
}

/* ---- error ---- */

static void test_errors_carry_a_code_and_a_message_cut_to_fit(void **unused)
{
    memfs_error err = MEMFS_ERROR_INIT;
    char text[1000];

    (void)unused;
    assert_int_equal(memfs_fail(&err, MEMFS_ENOTFOUND, "block '%s' not found", "x"), MEMFS_ENOTFOUND);
    assert_int_equal(err.code, MEMFS_ENOTFOUND);
    assert_string_equal(err.msg, "block 'x' not found");
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    memfs_fail(&err, MEMFS_EINVALID, "%s", text);
    assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
}

static void test_context_goes_before_and_keeps_the_code(void **unused)
{
    memfs_error err = MEMFS_ERROR_INIT;
    char text[1000];

    (void)unused;
    memfs_fail(&err, MEMFS_EINVALID, "line 4: expected ':'");
    assert_int_equal(memfs_context(&err, "block '%s'", "human"), MEMFS_EINVALID);
    assert_string_equal(err.msg, "block 'human': line 4: expected ':'");
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(memfs_context(&err, "%s", text), MEMFS_EINVALID);
    assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
    memfs_fail(&err, MEMFS_EINVALID, "%s", text);
    memfs_context(&err, "who");
    assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
    assert_int_equal(strncmp(err.msg, "who: xxx", 8), 0);
    text[sizeof(err.msg) - 1] = '\0'; /* a context that leaves room for nothing more */
    memfs_context(&err, "%s", text);
    assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
}

static void test_errno_becomes_what_a_caller_can_do(void **unused)
{
    static const struct {
        int number;
        memfs_code code;
    } cases[] = {
        { ENOENT, MEMFS_ENOTFOUND }, { EEXIST, MEMFS_EEXISTS },   { ENOSPC, MEMFS_ENOSPACE },
        { EDQUOT, MEMFS_ENOSPACE },  { EAGAIN, MEMFS_EUNAVAIL },  { EMFILE, MEMFS_EUNAVAIL },
        { ENFILE, MEMFS_EUNAVAIL },  { EBUSY, MEMFS_EUNAVAIL },   { EACCES, MEMFS_EDENIED },
        { EPERM, MEMFS_EDENIED },    { EIO, MEMFS_EINTERNAL },    { 0, MEMFS_EINTERNAL },
    };
    memfs_error err;

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        errno = cases[i].number;
        assert_int_equal(memfs_fail_errno(&err, "could not open '%s'", "x"), cases[i].code);
    }
    errno = ENOENT;
    memfs_fail_errno(&err, "could not open '%s'", "x");
    assert_string_equal(err.msg, "could not open 'x': No such file or directory");
}

static void test_every_code_has_a_name_of_its_own(void **unused)
{
    (void)unused;
    for (int a = MEMFS_OK; a >= MEMFS_EINTERNAL; a--) {
        for (int b = a - 1; b >= MEMFS_EINTERNAL; b--)
            assert_string_not_equal(memfs_code_name(a), memfs_code_name(b));
    }
    assert_string_equal(memfs_code_name(MEMFS_ECONFLICT), "ECONFLICT");
    assert_string_equal(memfs_code_name((memfs_code)-999), "EINTERNAL");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slices_compare_by_bytes_as_git_sorts),
        cmocka_unit_test(test_prefixes_and_suffixes),
        cmocka_unit_test(test_cutting_stays_within_the_slice),
        cmocka_unit_test(test_numbers_are_digits_alone_and_within_the_bound),
        cmocka_unit_test(test_K5_utf8_is_judged_as_rfc_3629_has_it),
        cmocka_unit_test(test_utf8_every_code_point_is_written_and_read_back),
        cmocka_unit_test(test_utf8_a_bad_byte_costs_one_byte),
        cmocka_unit_test(test_a_buffer_is_always_readable_and_terminated),
        cmocka_unit_test(test_T14_a_buffer_never_holds_more_than_its_bound),
        cmocka_unit_test(test_a_refused_append_sticks_until_cleared),
        cmocka_unit_test(test_sizes_near_the_end_of_the_address_space_are_refused),
        cmocka_unit_test(test_reserved_room_is_taken_by_saying_so),
        cmocka_unit_test(test_taken_text_is_the_callers),
        cmocka_unit_test(test_a_growing_buffer_keeps_every_byte),
        cmocka_unit_test(test_json_commas_are_put_where_they_belong),
        cmocka_unit_test(test_json_every_kind_of_value),
        cmocka_unit_test(test_T20_json_text_cannot_leave_its_quotes),
        cmocka_unit_test(test_T20_json_finds_every_byte_at_every_place),
        cmocka_unit_test(test_K5_json_keeps_sequences_across_words),
        cmocka_unit_test(test_json_past_the_bound_is_told_by_the_buffer),
        cmocka_unit_test(test_F25_times_are_written_as_iso_8601_in_utc),
        cmocka_unit_test(test_F25_every_day_has_its_date),
        cmocka_unit_test(test_the_monotonic_clock_counts_and_sleeping_lasts),
        cmocka_unit_test(test_ids_of_objects_are_forty_lower_case_digits),
        cmocka_unit_test(test_errors_carry_a_code_and_a_message_cut_to_fit),
        cmocka_unit_test(test_context_goes_before_and_keeps_the_code),
        cmocka_unit_test(test_errno_becomes_what_a_caller_can_do),
        cmocka_unit_test(test_every_code_has_a_name_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
