/*
 * Parameters and their 422 texts.  The expected details were printed by FastAPI with pydantic 2 for
 * the same declarations and values.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/params.h"

#include "base/mem.h"

#include <jansson.h>

#define UUID "11111111-1111-4111-8111-111111111111"
#define UUID4_RE "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
#define NO_INT "Input should be a valid integer, unable to parse string as an integer"

/* ---- a query as a list of pairs, ended by a NULL key ---- */

typedef struct pair {
    const char *key;
    memfs_str value;
} pair;

static bool look_up(const void *source, const char *key, size_t i, memfs_str *ret)
{
    for (const pair *at = source; at->key != NULL; at++) {
        if (strcmp(at->key, key) == 0 && i-- == 0) {
            *ret = at->value;
            return true;
        }
    }
    return false;
}

static void assert_detail(const params *p, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(PARAMS_MAX_DETAIL * 2);
    json_t *root;

    assert_false(params_are_good(p));
    params_write_422(p, &out);
    root = json_loadb(out.ptr, out.len, JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "trace_id")), "");
    assert_string_equal(json_string_value(json_object_get(root, "detail")), expected);
    json_decref(root);
}

/* ---- repr ---- */

static void py_str_is_what_python_prints(void **state)
{
    static const struct {
        memfs_str text;
        const char *expected;
    } table[] = {
        { MEMFS_STR(""), "''" },
        { MEMFS_STR("abc"), "'abc'" },
        { MEMFS_STR("it's"), "\"it's\"" },
        { MEMFS_STR("say \"x\""), "'say \"x\"'" },
        { MEMFS_STR("\"it's"), "'\"it\\'s'" },
        { MEMFS_STR("a\\b"), "'a\\\\b'" },
        { MEMFS_STR("\t\n\r"), "'\\t\\n\\r'" },
        { MEMFS_STR("\x00\x01\x1f\x7f"), "'\\x00\\x01\\x1f\\x7f'" },
        { MEMFS_STR("caf\xC3\xA9 \xF0\x9F\x98\x80"), "'caf\xC3\xA9 \xF0\x9F\x98\x80'" },
        { MEMFS_STR("\xC2\x85\xC2\xA0\xC2\xAD"), "'\\x85\\xa0\\xad'" },
        { MEMFS_STR("\xE2\x80\x8B\xE2\x80\xAE"), "'\\u200b\\u202e'" },
        { MEMFS_STR("\xEE\x80\x80"), "'\\ue000'" },
        { MEMFS_STR("\xF3\xA0\x80\x81"), "'\\U000e0001'" },
        { MEMFS_STR("\xFFz"), "'\xEF\xBF\xBDz'" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(256);

        params_py_str(&out, table[i].text);
        assert_string_equal(out.ptr, table[i].expected);
    }
}

/* ---- ids ---- */

static void a_good_path_id_is_no_error(void **state)
{
    static const struct {
        const char *prefix, *id;
    } table[] = {
        { "agent", "agent-" UUID },
        { "agent", "agent-local-" UUID },
        { "block", "block-" UUID },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const pair none[] = { { NULL } };
        _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, none);

        params_path_id(&p, "x_id", table[i].prefix, str_of(table[i].id));
        assert_true(params_are_good(&p));
    }
}

static void a_bad_path_id_names_its_pattern_and_an_example(void **state)
{
    static const char *const bad[] = {
        "agent-1", "", "block-" UUID, "agent-" UUID "x", "AGENT-" UUID,
        "agent-11111111-1111-1111-8111-111111111111", "agent-local-1", "../" UUID,
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const pair none[] = { { NULL } };
        _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, none);
        _cleanup_(mem_freep) char *expected =
            mem_printf("[{'type': 'string_pattern_mismatch', 'loc': ('path', 'agent_id'), 'msg': "
                       "\"String should match pattern '^agent-" UUID4_RE "'\", 'input': '%s', "
                       "'ctx': {'pattern': '^agent-" UUID4_RE "'}}]",
                       bad[i]);

        params_path_id(&p, "agent_id", "agent", str_of(bad[i]));
        assert_detail(&p, expected);
    }
}

static void examples_stand_in_answers_to_bad_path_ids_only(void **state)
{
    const pair query[] = { { "limit", MEMFS_STR("x") }, { NULL } };
    _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, query);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);

    (void)state;
    (void)params_limit(&p, 1);
    params_write_422(&p, &out);
    assert_null(strstr(out.ptr, "examples"));
    buf_clear(&out);
    params_path_id(&p, "block_id", "block", MEMFS_STR("b"));
    params_write_422(&p, &out);
    assert_non_null(
        strstr(out.ptr, ",\"examples\":[\"block-123e4567-e89b-42d3-8456-426614174000\"]}"));
}

/* ---- numbers ---- */

static void int_reads_what_pydantic_reads(void **state)
{
    static const struct {
        memfs_str text;
        int64_t value;
    } table[] = {
        { MEMFS_STR("0"), 0 },        { MEMFS_STR("007"), 7 },    { MEMFS_STR("-0"), 0 },
        { MEMFS_STR("+5"), 5 },       { MEMFS_STR("-3"), -3 },    { MEMFS_STR(" 5 "), 5 },
        { MEMFS_STR("\n5"), 5 },      { MEMFS_STR("1.0"), 1 },    { MEMFS_STR("5.00"), 5 },
        { MEMFS_STR("1_0"), 10 },     { MEMFS_STR("1_0.0"), 10 },
        { MEMFS_STR("9223372036854775807"), INT64_MAX },
        { MEMFS_STR("99999999999999999999999"), INT64_MAX },
        { MEMFS_STR("-99999999999999999999999"), -INT64_MAX },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const pair query[] = { { "n", table[i].text }, { NULL } };
        _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, query);
        int64_t n = 42;

        assert_true(params_int(&p, "n", &n));
        assert_true(params_are_good(&p));
        assert_int_equal(n, table[i].value);
    }
}

static void int_refuses_what_pydantic_refuses(void **state)
{
    static const struct {
        memfs_str text;
        const char *shown;
    } table[] = {
        { MEMFS_STR("abc"), "'abc'" },  { MEMFS_STR(""), "''" },
        { MEMFS_STR("1.5"), "'1.5'" },  { MEMFS_STR("5."), "'5.'" },
        { MEMFS_STR(".0"), "'.0'" },    { MEMFS_STR("1e3"), "'1e3'" },
        { MEMFS_STR("0x10"), "'0x10'" }, { MEMFS_STR("1__0"), "'1__0'" },
        { MEMFS_STR("_1"), "'_1'" },    { MEMFS_STR("1_"), "'1_'" },
        { MEMFS_STR("- 5"), "'- 5'" },  { MEMFS_STR("+-5"), "'+-5'" },
        { MEMFS_STR("-"), "'-'" },      { MEMFS_STR("1\0"), "'1\\x00'" },
        { MEMFS_STR("\xD9\xA5"), "'\xD9\xA5'" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const pair query[] = { { "limit", table[i].text }, { NULL } };
        _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, query);
        char expected[400];

        assert_int_equal(params_limit(&p, 50), 50);
        snprintf(expected, sizeof(expected),
                 "[{'type': 'int_parsing', 'loc': ('query', 'limit'), 'msg': '" NO_INT
                 "', 'input': %s}]",
                 table[i].shown);
        assert_detail(&p, expected);
    }
}

static void a_negative_limit_is_refused_and_a_missing_one_is_the_default(void **state)
{
    const pair negative[] = { { "limit", MEMFS_STR("-1") }, { NULL } };
    const pair zero[] = { { "limit", MEMFS_STR("0") }, { NULL } };
    _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, negative);
    _cleanup_(params_dispose) params q = PARAMS_INIT(look_up, zero);

    (void)state;
    assert_int_equal(params_limit(&p, 50), 50);
    assert_detail(&p, "[{'type': 'greater_than_equal', 'loc': ('query', 'limit'), 'msg': 'Input "
                      "should be greater than or equal to 0', 'input': '-1', 'ctx': {'ge': 0}}]");
    assert_int_equal(params_limit(&q, 50), 0);
    q.source = &negative[1];
    assert_int_equal(params_limit(&q, 50), 50);
    assert_true(params_are_good(&q));
}

static void a_list_of_ints_names_the_bad_places(void **state)
{
    const pair query[] = { { "eq", MEMFS_STR("1") },
                           { "eq", MEMFS_STR("x") },
                           { "eq", MEMFS_STR("") },
                           { NULL } };
    _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, query);
    int64_t numbers[3];

    (void)state;
    assert_int_equal(params_ints(&p, "eq", numbers, 3), 3);
    assert_int_equal(numbers[0], 1);
    assert_detail(&p, "[{'type': 'int_parsing', 'loc': ('query', 'eq', 1), 'msg': '" NO_INT
                      "', 'input': 'x'}, {'type': 'int_parsing', 'loc': ('query', 'eq', 2), "
                      "'msg': '" NO_INT "', 'input': ''}]");
}

/* ---- bools and choices ---- */

static void bool_reads_the_words_of_pydantic_in_any_case(void **state)
{
    static const struct {
        const char *text;
        int value; /* -1: refused */
    } table[] = {
        { "1", 1 },   { "true", 1 }, { "TRUE", 1 }, { "On", 1 },  { "t", 1 },    { "y", 1 },
        { "YES", 1 }, { "0", 0 },    { "False", 0 }, { "off", 0 }, { "n", 0 },    { "no", 0 },
        { "f", 0 },   { "", -1 },    { "2", -1 },   { "maybe", -1 }, { " true", -1 }, { "nope", -1 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const pair query[] = { { "flag", str_of(table[i].text) }, { NULL } };
        _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, query);
        bool given = params_bool(&p, "flag", false);
        char expected[300];

        if (table[i].value >= 0) {
            assert_int_equal(given, table[i].value);
            assert_true(params_are_good(&p));
            continue;
        }
        snprintf(expected, sizeof(expected),
                 "[{'type': 'bool_parsing', 'loc': ('query', 'flag'), 'msg': 'Input should be a "
                 "valid boolean, unable to interpret input', 'input': '%s'}]",
                 table[i].text);
        assert_detail(&p, expected);
    }
}

static void order_is_asc_or_desc(void **state)
{
    const pair good[] = { { "order", MEMFS_STR("desc") }, { NULL } };
    const pair bad[] = { { "order", MEMFS_STR("up") }, { "order_by", MEMFS_STR("name") }, { NULL } };
    _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, good);
    _cleanup_(params_dispose) params q = PARAMS_INIT(look_up, bad);

    (void)state;
    assert_true(params_is_descending(&p, false));
    p.source = &good[1];
    assert_true(params_is_descending(&p, true));
    assert_false(params_is_descending(&p, false));
    assert_true(params_are_good(&p));

    assert_true(params_is_descending(&q, true));
    params_order_by_created(&q);
    assert_detail(&q, "[{'type': 'literal_error', 'loc': ('query', 'order'), 'msg': \"Input should "
                      "be 'asc' or 'desc'\", 'input': 'up', 'ctx': {'expected': \"'asc' or "
                      "'desc'\"}}, {'type': 'literal_error', 'loc': ('query', 'order_by'), 'msg': "
                      "\"Input should be 'created_at'\", 'input': 'name', 'ctx': {'expected': "
                      "\"'created_at'\"}}]");
}

static void a_list_of_choices_gives_a_mask_and_names_the_bad_places(void **state)
{
    static const char *const choices[] = { "agent.blocks", "agent.tags", "agent.tools", NULL };
    const pair query[] = { { "include", MEMFS_STR("agent.foo") },
                           { "include", MEMFS_STR("agent.tags") },
                           { NULL } };
    _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, query);
    bool given;

    (void)state;
    assert_int_equal(params_choices(&p, "include", choices, &given), 2);
    assert_true(given);
    assert_detail(&p, "[{'type': 'literal_error', 'loc': ('query', 'include', 0), 'msg': \"Input "
                      "should be 'agent.blocks', 'agent.tags' or 'agent.tools'\", 'input': "
                      "'agent.foo', 'ctx': {'expected': \"'agent.blocks', 'agent.tags' or "
                      "'agent.tools'\"}}]");
    assert_int_equal(params_choices(&p, "other", choices, &given), 0);
    assert_false(given);
}

/* ---- texts ---- */

static void a_ruled_text_is_checked_for_length_in_characters_then_for_its_pattern(void **state)
{
    static const char fifty[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    static const char fifty_one[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct {
        const params_rule *rule;
        const char *text, *expected; /* NULL: good */
    } table[] = {
        { &PARAMS_LABEL, "system/human_1-x", NULL },
        { &PARAMS_LABEL, fifty, NULL },
        { &PARAMS_LABEL, "a.b",
          "[{'type': 'string_pattern_mismatch', 'loc': ('query', 'k'), 'msg': \"String should match "
          "pattern '^[a-zA-Z0-9_/-]+$'\", 'input': 'a.b', 'ctx': {'pattern': "
          "'^[a-zA-Z0-9_/-]+$'}}]" },
        { &PARAMS_LABEL, "a\n",
          "[{'type': 'string_pattern_mismatch', 'loc': ('query', 'k'), 'msg': \"String should match "
          "pattern '^[a-zA-Z0-9_/-]+$'\", 'input': 'a\\n', 'ctx': {'pattern': "
          "'^[a-zA-Z0-9_/-]+$'}}]" },
        { &PARAMS_LABEL, "",
          "[{'type': 'string_too_short', 'loc': ('query', 'k'), 'msg': 'String should have at least "
          "1 character', 'input': '', 'ctx': {'min_length': 1}}]" },
        { &PARAMS_LABEL, fifty_one,
          "[{'type': 'string_too_long', 'loc': ('query', 'k'), 'msg': 'String should have at most "
          "50 characters', 'input': 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'ctx': "
          "{'max_length': 50}}]" },
        { &PARAMS_NAME, "My Agent-1_x", NULL },
        { &PARAMS_NAME, "a/b",
          "[{'type': 'string_pattern_mismatch', 'loc': ('query', 'k'), 'msg': \"String should match "
          "pattern '^[a-zA-Z0-9 _-]+$'\", 'input': 'a/b', 'ctx': {'pattern': "
          "'^[a-zA-Z0-9 _-]+$'}}]" },
        { &PARAMS_SEARCH, "any % text \xC3\xA9 at all", NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const pair query[] = { { "k", str_of(table[i].text) }, { NULL } };
        _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, query);
        memfs_str text;

        assert_int_equal(params_ruled(&p, "k", table[i].rule, &text), table[i].expected == NULL);
        if (table[i].expected != NULL)
            assert_detail(&p, table[i].expected);
        else
            assert_true(params_are_good(&p));
    }
}

static void a_search_text_counts_characters_and_not_bytes(void **state)
{
    char text[402];
    const pair query[] = { { "k", { text, 400 } }, { NULL } };
    _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, query);
    memfs_str ret;

    (void)state;
    for (size_t i = 0; i < sizeof(text); i += 2)
        memcpy(text + i, "\xC3\xA9", 2);
    assert_true(params_ruled(&p, "k", &PARAMS_SEARCH, &ret));
    assert_true(params_are_good(&p));
}

static void an_empty_text_counts_as_missing(void **state)
{
    const pair query[] = { { "after", MEMFS_STR("") }, { NULL } };
    _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, query);
    memfs_str text;

    (void)state;
    assert_false(params_text(&p, "after", &text));
    assert_false(params_text(&p, "before", &text));
    assert_true(params_are_good(&p));
}

static void T02_a_key_of_one_value_that_is_given_twice_is_refused(void **state)
{
    const pair query[] = { { "limit", MEMFS_STR("1") }, { "limit", MEMFS_STR("2") }, { NULL } };
    _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, query);

    (void)state;
    (void)params_limit(&p, 50);
    assert_false(params_are_good(&p));
    assert_string_equal(p.repeated, "limit");
    assert_int_equal(p.n_errors, 0);
}

static void all_errors_of_a_request_stand_in_one_answer(void **state)
{
    const pair query[] = { { "limit", MEMFS_STR("x") }, { "flag", MEMFS_STR("z") }, { NULL } };
    _cleanup_(params_dispose) params p = PARAMS_INIT(look_up, query);

    (void)state;
    (void)params_limit(&p, 50);
    (void)params_bool(&p, "flag", false);
    assert_int_equal(p.n_errors, 2);
    assert_detail(&p, "[{'type': 'int_parsing', 'loc': ('query', 'limit'), 'msg': '" NO_INT
                      "', 'input': 'x'}, {'type': 'bool_parsing', 'loc': ('query', 'flag'), 'msg': "
                      "'Input should be a valid boolean, unable to interpret input', 'input': "
                      "'z'}]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(py_str_is_what_python_prints),
        cmocka_unit_test(a_good_path_id_is_no_error),
        cmocka_unit_test(a_bad_path_id_names_its_pattern_and_an_example),
        cmocka_unit_test(examples_stand_in_answers_to_bad_path_ids_only),
        cmocka_unit_test(int_reads_what_pydantic_reads),
        cmocka_unit_test(int_refuses_what_pydantic_refuses),
        cmocka_unit_test(a_negative_limit_is_refused_and_a_missing_one_is_the_default),
        cmocka_unit_test(a_list_of_ints_names_the_bad_places),
        cmocka_unit_test(bool_reads_the_words_of_pydantic_in_any_case),
        cmocka_unit_test(order_is_asc_or_desc),
        cmocka_unit_test(a_list_of_choices_gives_a_mask_and_names_the_bad_places),
        cmocka_unit_test(a_ruled_text_is_checked_for_length_in_characters_then_for_its_pattern),
        cmocka_unit_test(a_search_text_counts_characters_and_not_bytes),
        cmocka_unit_test(an_empty_text_counts_as_missing),
        cmocka_unit_test(T02_a_key_of_one_value_that_is_given_twice_is_refused),
        cmocka_unit_test(all_errors_of_a_request_stand_in_one_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
