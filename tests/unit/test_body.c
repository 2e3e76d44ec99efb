/*
 * JSON bodies and their 422 texts.  The expected details were printed by FastAPI with pydantic 2
 * for the same models and values; the text of a syntax error is the JSON reader's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/body.h"

#include "base/mem.h"

static bool nothing(const void *source, const char *key, size_t i, memfs_str *ret)
{
    (void)source;
    (void)key;
    (void)i;
    (void)ret;
    return false;
}

static memfs_str found;
static int64_t number;
static bool truth;
static size_t n_items;

/* Reads one field, "v", as a kind. */
static bool read_as(body *b, char kind)
{
    static const char *const choices[] = { "read", "read_write", NULL };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);

    switch (kind) {
    case 's': return body_text(b, "v", BODY_NULLABLE, &found);
    case 'S': return body_text(b, "v", BODY_NEEDED, &found);
    case 'i': return body_int(b, "v", BODY_NULLABLE, &number);
    case 'b': return body_bool(b, "v", BODY_NULLABLE, &truth);
    case 'B': return body_bool(b, "v", BODY_OPTIONAL, &truth);
    case 'm': return body_map(b, "v", BODY_NULLABLE, &out);
    case 'l': return body_list(b, "v", BODY_NULLABLE, 2, &n_items);
    case 't': return body_texts(b, "v", BODY_NULLABLE, 2, true, &out);
    default: return body_choice(b, "v", BODY_NULLABLE, choices, &n_items);
    }
}

static void a_wrong_value_is_what_pydantic_says(void **state)
{
    static const struct {
        const char *text;
        char kind;
        const char *error; /* without the brackets around */
    } table[] = {
        { "", 's',
          "{'type': 'missing', 'loc': ('body',), 'msg': 'Field required', 'input': None}" },
        { "[1]", 's',
          "{'type': 'model_attributes_type', 'loc': ('body',), 'msg': 'Input should be a valid "
          "dictionary or object to extract fields from', 'input': [1]}" },
        { "{\"v\":5}", 's',
          "{'type': 'string_type', 'loc': ('body', 'v'), 'msg': 'Input should be a valid string', "
          "'input': 5}" },
        { "{\"a\":null,\"b\":[true,\"it's\"]}", 'S',
          "{'type': 'missing', 'loc': ('body', 'v'), 'msg': 'Field required', 'input': {'a': None, "
          "'b': [True, \"it's\"]}}" },
        { "{\"v\":null}", 'S',
          "{'type': 'string_type', 'loc': ('body', 'v'), 'msg': 'Input should be a valid string', "
          "'input': None}" },
        { "{\"v\":\"x\"}", 'i',
          "{'type': 'int_parsing', 'loc': ('body', 'v'), 'msg': 'Input should be a valid integer, "
          "unable to parse string as an integer', 'input': 'x'}" },
        { "{\"v\":1.5}", 'i',
          "{'type': 'int_from_float', 'loc': ('body', 'v'), 'msg': 'Input should be a valid "
          "integer, got a number with a fractional part', 'input': 1.5}" },
        { "{\"v\":[]}", 'i',
          "{'type': 'int_type', 'loc': ('body', 'v'), 'msg': 'Input should be a valid integer', "
          "'input': []}" },
        { "{\"v\":2}", 'b',
          "{'type': 'bool_parsing', 'loc': ('body', 'v'), 'msg': 'Input should be a valid boolean, "
          "unable to interpret input', 'input': 2}" },
        { "{\"v\":null}", 'B',
          "{'type': 'bool_type', 'loc': ('body', 'v'), 'msg': 'Input should be a valid boolean', "
          "'input': None}" },
        { "{\"v\":[1]}", 'm',
          "{'type': 'dict_type', 'loc': ('body', 'v'), 'msg': 'Input should be a valid "
          "dictionary', 'input': [1]}" },
        { "{\"v\":\"a\"}", 'l',
          "{'type': 'list_type', 'loc': ('body', 'v'), 'msg': 'Input should be a valid list', "
          "'input': 'a'}" },
        { "{\"v\":[\"a\",7]}", 't',
          "{'type': 'string_type', 'loc': ('body', 'v', 1), 'msg': 'Input should be a valid "
          "string', 'input': 7}" },
        { "{\"v\":\"all\"}", 'c',
          "{'type': 'literal_error', 'loc': ('body', 'v'), 'msg': \"Input should be 'read' or "
          "'read_write'\", 'input': 'all', 'ctx': {'expected': \"'read' or 'read_write'\"}}" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        _cleanup_(params_dispose) params p = PARAMS_INIT(nothing, NULL);
        _cleanup_(body_dispose) body b = BODY_INIT;

        if (body_read(&b, &p, str_of(table[i].text)))
            assert_false(read_as(&b, table[i].kind));
        assert_int_equal(p.n_errors, 1);
        assert_string_equal(p.errors.ptr + 1, table[i].error); /* behind the list's bracket */
    }
}

static void what_is_no_json_names_the_byte(void **state)
{
    _cleanup_(params_dispose) params p = PARAMS_INIT(nothing, NULL);
    _cleanup_(body_dispose) body b = BODY_INIT;

    (void)state;
    assert_false(body_read(&b, &p, MEMFS_STR("{\"v\":")));
    assert_non_null(strstr(p.errors.ptr, "{'type': 'json_invalid', 'loc': ('body', 5)"));
}

static void good_values_are_read_as_pydantic_reads_them(void **state)
{
    _cleanup_(params_dispose) params p = PARAMS_INIT(nothing, NULL);
    _cleanup_(body_dispose) body b = BODY_INIT;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    memfs_str text;
    bool yes = false;
    int64_t n = 0;

    (void)state;
    assert_true(body_read(&b, &p,
                          MEMFS_STR("{\"e\":\"\",\"z\":\"a\\u0000b\",\"n\":\"5\",\"f\":6.0,"
                                    "\"y\":\"yes\",\"m\":{\"b\":1,\"a\":[0.5]},"
                                    "\"t\":[\"x\",\"y\",\"x\"],\"none\":null}")));
    assert_true(body_text(&b, "e", BODY_NULLABLE, &text)); /* an empty text is a value */
    assert_int_equal(text.len, 0);
    assert_true(body_text(&b, "z", BODY_NEEDED, &text));
    assert_int_equal(text.len, 3);
    assert_true(body_int(&b, "n", BODY_NULLABLE, &n));
    assert_int_equal(n, 5);
    assert_true(body_int(&b, "f", BODY_NULLABLE, &n));
    assert_int_equal(n, 6);
    assert_true(body_bool(&b, "y", BODY_OPTIONAL, &yes));
    assert_true(yes);
    assert_true(body_map(&b, "m", BODY_NULLABLE, &out));
    assert_string_equal(out.ptr, "{\"b\":1,\"a\":[0.5]}"); /* in the order it came */
    buf_clear(&out);
    assert_true(body_texts(&b, "t", BODY_NULLABLE, 9, true, &out));
    assert_string_equal(out.ptr, "[\"x\",\"y\"]");
    assert_false(body_text(&b, "none", BODY_NULLABLE, &text));
    assert_false(body_text(&b, "absent", BODY_OPTIONAL, &text));
    assert_true(params_are_good(&p));
}

static void a_body_that_may_be_left_out_reads_as_nothing(void **state)
{
    static const char *const texts[] = { "", " \n", "null", "{}" };
    memfs_str text;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        _cleanup_(params_dispose) params p = PARAMS_INIT(nothing, NULL);
        _cleanup_(body_dispose) body b = BODY_INIT;

        assert_true(body_read_if_any(&b, &p, str_of(texts[i])));
        assert_false(body_text(&b, "v", BODY_OPTIONAL, &text));
        assert_true(params_are_good(&p));
    }
}

static void an_error_in_a_list_of_objects_says_which(void **state)
{
    _cleanup_(params_dispose) params p = PARAMS_INIT(nothing, NULL);
    _cleanup_(body_dispose) body b = BODY_INIT;
    body one;
    size_t n;

    (void)state;
    assert_true(body_read(&b, &p, MEMFS_STR("{\"files\":[{\"path\":1}]}")));
    assert_true(body_list(&b, "files", BODY_NEEDED, 9, &n));
    assert_int_equal(n, 1);
    assert_true(body_list_object(&b, "files", 0, &one));
    assert_false(body_text(&one, "path", BODY_NEEDED, &found));
    assert_non_null(strstr(p.errors.ptr, "'loc': ('body', 'files', 0, 'path')"));
}

static void a_long_value_is_not_shown_whole(void **state)
{
    _cleanup_(params_dispose) params p = PARAMS_INIT(nothing, NULL);
    _cleanup_(body_dispose) body b = BODY_INIT;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    (void)state;
    buf_puts(&text, "{\"v\":[\"");
    for (size_t i = 0; i < 100000; i++)
        buf_putc(&text, 'x');
    buf_puts(&text, "\"]}");
    assert_true(body_read(&b, &p, buf_str(&text)));
    assert_false(body_text(&b, "v", BODY_NULLABLE, &found));
    assert_true(p.errors.len < 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_value_is_what_pydantic_says),
        cmocka_unit_test(what_is_no_json_names_the_byte),
        cmocka_unit_test(good_values_are_read_as_pydantic_reads_them),
        cmocka_unit_test(a_body_that_may_be_left_out_reads_as_nothing),
        cmocka_unit_test(an_error_in_a_list_of_objects_says_which),
        cmocka_unit_test(a_long_value_is_not_shown_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
