/*
 * agent.json of refs/memfs/meta: the same attributes give the same bytes, and two sides become the
 * same whichever comes first (F28); what a hostile remote says is bounded (T23).
 */
#include "base/mem.h"
#include "mirror/meta_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* after the four above: cmocka needs them */
#include <cmocka.h>

#define ID "agent-9f7c2b1e-2d31-4c5a-8b1e-0123456789ab"
#define OTHER "agent-00000000-2d31-4c5a-8b1e-0123456789ab"

static const char FULL[] =
    "{\"agent_id\":\"" ID "\",\"births\":{\"a/b\":\"2026-01-01T00:00:00Z\","
    "\"human\":\"2026-02-03T04:05:06.000007Z\"},\"created_at\":\"2025-12-31T23:59:59Z\","
    "\"name\":\"Ada \xc3\xbc \\\"x\\\"\",\"tags\":[\"a\",\"b\"],\"version\":1}\n";

static meta_text parse(const char *text)
{
    memfs_error err = MEMFS_ERROR_INIT;
    meta_text t = META_TEXT_INIT;

    if (meta_text_parse(str_of(text), ID, &t, &err) != MEMFS_OK)
        fail_msg("%s: %s", err.msg, text);
    return t;
}

static char *text_of(meta_text *t)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(META_MAX_BYTES);

    meta_text_write(t, &out);
    return buf_take(&out, NULL);
}

static void assert_text(meta_text *t, const char *expected)
{
    _cleanup_(mem_freep) char *text = text_of(t);

    assert_string_equal(text, expected);
}

static void what_is_written_is_read_and_written_alike(void **state)
{
    meta_text t = parse(FULL);

    (void)state;
    assert_int_equal(t.n_births, 2);
    assert_true(t.births[1].at_us == INT64_C(1770091506000007));
    assert_text(&t, FULL);
    meta_text_dispose(&t);
    meta_text_dispose(&t);
}

static void order_repetition_and_unknown_keys_do_not_show(void **state)
{
    meta_text t = parse("{ \"version\": 2, \"tags\": [\"b\", \"a\", \"b\"], \"new\": [1, {}], "
                        "\"births\": {\"human\": \"2026-02-03T04:05:06.000007Z\", "
                        "\"a/b\": \"2026-01-01T00:00:00Z\"}, \"name\": \"Ada \\u00fc \\\"x\\\"\", "
                        "\"created_at\": \"2025-12-31T23:59:59Z\", \"agent_id\": \"" ID "\"}");

    (void)state;
    assert_text(&t, FULL);
    meta_text_dispose(&t);
}

static void a_name_that_is_the_id_is_none(void **state)
{
    meta_text t = parse("{\"agent_id\":\"" ID "\",\"name\":\"" ID "\",\"version\":1,"
                        "\"created_at\":\"2026-01-01T00:00:00Z\"}");

    (void)state;
    assert_text(&t, "{\"agent_id\":\"" ID "\",\"births\":{},\"created_at\":\"2026-01-01T00:00:00Z\","
                    "\"version\":1}\n");
    meta_text_dispose(&t);
}

#define START "{\"agent_id\":\"" ID "\",\"version\":1,\"created_at\":\"2026-01-01T00:00:00Z\""

static void what_this_server_would_not_write_is_refused(void **state)
{
    static const char *const texts[] = {
        "", "[]", "{", "{}", START, START ",}",
        "{\"agent_id\":\"" OTHER "\",\"version\":1,\"created_at\":\"2026-01-01T00:00:00Z\"}",
        "{\"agent_id\":\"" ID "\",\"created_at\":\"2026-01-01T00:00:00Z\"}",
        "{\"agent_id\":\"" ID "\",\"version\":0,\"created_at\":\"2026-01-01T00:00:00Z\"}",
        "{\"agent_id\":\"" ID "\",\"version\":1}",
        START ",\"version\":1}", /* twice */
        START ",\"name\":7}", START ",\"name\":\"\"}", START ",\"name\":\"a\\u0000b\"}",
        START ",\"name\":\"a\\u001bb\"}",
        START ",\"name\":\"a\\u202eb\"}", START ",\"name\":\"a\\u0085b\"}",
        START ",\"name\":\"a\\u2028b\"}", START ",\"name\":\"a\\u2066b\"}",
        START ",\"name\":\"\\ufeffa\"}", START ",\"tags\":[\"a\",\"\\u200fb\"]}",
        START ",\"births\":{\"a\\u202eb\":\"2026-01-01T00:00:00Z\"}}",
        START ",\"tags\":\"a\"}", START ",\"tags\":[1]}",
        START ",\"tags\":[\"\"]}", START ",\"births\":[]}", START ",\"births\":{\"a\":1}}",
        START ",\"births\":{\"\":\"2026-01-01T00:00:00Z\"}}",
        START ",\"births\":{\"a\\nb\":\"2026-01-01T00:00:00Z\"}}",
        START ",\"births\":{\"a\":\"2026-01-01\"}}",
        START ",\"births\":{\"a\":\"2026-02-30T00:00:00Z\"}}",
        START ",\"births\":{\"a\":\"2026-01-01T24:00:00Z\"}}",
        START ",\"births\":{\"a\":\"2026-01-01T00:00:00.5Z\"}}",
        START ",\"births\":{\"a\":\"1969-12-31T23:59:59Z\"}}",
        START ",\"births\":{\"a\":\"9999-01-01T00:00:00Z\"}}",
        START ",\"births\":{\"a\":\"2026-01-01T00:00:00Z \"}}",
    };
    memfs_error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        meta_text t = META_TEXT_INIT;

        if (meta_text_parse(str_of(texts[i]), ID, &t, &err) != MEMFS_EINVALID)
            fail_msg("taken: %s", texts[i]);
        assert_null(t.agent_id);
    }
}

static void bounds_hold(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 20);
    meta_text t = META_TEXT_INIT;
    memfs_error err;

    (void)state;
    buf_puts(&text, START ",\"tags\":[\"0\"");
    for (int i = 1; i <= META_MAX_TAGS; i++)
        buf_printf(&text, ",\"%d\"", i);
    buf_puts(&text, "]}");
    assert_int_equal(meta_text_parse(buf_str(&text), ID, &t, &err), MEMFS_EINVALID);
    buf_clear(&text);
    buf_puts(&text, START ",\"name\":\"");
    for (int i = 0; i <= META_MAX_NAME; i++)
        buf_putc(&text, 'n');
    buf_puts(&text, "\"}");
    assert_int_equal(meta_text_parse(buf_str(&text), ID, &t, &err), MEMFS_EINVALID);
}

static void many_births_stay_sorted_and_once(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(mem_freep) char *once = NULL;
    meta_text t, twice;

    (void)state;
    buf_puts(&text, START ",\"births\":{\"z\":\"2026-01-01T00:00:00Z\"");
    for (int i = 999; i >= 0; i--)
        buf_printf(&text, ",\"label/%03d\":\"2026-01-01T00:00:00Z\"", i);
    buf_puts(&text, "}}");
    t = parse(text.ptr);
    assert_int_equal(t.n_births, 1001);
    for (size_t i = 1; i < t.n_births; i++)
        assert_true(strcmp(t.births[i - 1].label, t.births[i].label) < 0);
    meta_text_join(&t, &t, &twice);
    once = text_of(&t);
    assert_text(&twice, once);
    meta_text_dispose(&t);
    meta_text_dispose(&twice);
}

/* join(a, b) == join(b, a), and joining the result with either changes nothing more. */
static void two_sides_become_the_same_whichever_comes_first(void **state)
{
    static const char *const sides[] = {
        START "}",
        START ",\"name\":\"Ada\",\"tags\":[\"x\"]}",
        START ",\"name\":\"Bob\",\"tags\":[\"a\",\"x\"],\"births\":{\"h\":\"2026-01-02T00:00:00Z\"}}",
        START ",\"births\":{\"h\":\"2026-01-01T00:00:00Z\",\"p\":\"2026-03-01T00:00:00Z\"}}",
        "{\"agent_id\":\"" ID "\",\"version\":1,\"created_at\":\"2025-01-01T00:00:00Z\"}",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sides); i++)
        for (size_t j = 0; j < ARRAY_LEN(sides); j++) {
            meta_text a = parse(sides[i]), b = parse(sides[j]), ab, ba, again;
            char *text;

            meta_text_join(&a, &b, &ab);
            meta_text_join(&b, &a, &ba);
            meta_text_join(&ab, &b, &again);
            text = text_of(&ab);
            assert_text(&ba, text);
            assert_text(&again, text);
            free(text);
            meta_text_dispose(&a);
            meta_text_dispose(&b);
            meta_text_dispose(&ab);
            meta_text_dispose(&ba);
            meta_text_dispose(&again);
        }
}

static void a_join_takes_the_earlier_times_and_the_name_that_was_given(void **state)
{
    meta_text a = parse(START ",\"births\":{\"h\":\"2026-01-02T00:00:00Z\"},\"tags\":[\"a\"]}");
    meta_text b = parse("{\"agent_id\":\"" ID "\",\"version\":1,\"created_at\":"
                        "\"2025-01-01T00:00:00Z\",\"name\":\"Bob\",\"tags\":[\"b\"],"
                        "\"births\":{\"h\":\"2026-01-01T00:00:00Z\",\"p\":\"2026-01-03T00:00:00Z\"}}");
    meta_text both, follower;

    (void)state;
    meta_text_join(&a, &b, &both);
    assert_text(&both, "{\"agent_id\":\"" ID "\",\"births\":{\"h\":\"2026-01-01T00:00:00Z\","
                       "\"p\":\"2026-01-03T00:00:00Z\"},\"created_at\":\"2025-01-01T00:00:00Z\","
                       "\"name\":\"Bob\",\"tags\":[\"a\",\"b\"],\"version\":1}\n");
    meta_text_follow(&a, &b, &follower); /* times of both, name and tags of the first */
    assert_text(&follower, "{\"agent_id\":\"" ID "\",\"births\":{\"h\":\"2026-01-01T00:00:00Z\","
                           "\"p\":\"2026-01-03T00:00:00Z\"},\"created_at\":\"2025-01-01T00:00:00Z\","
                           "\"tags\":[\"a\"],\"version\":1}\n");
    assert_true(meta_text_is_alike(&a, &follower));
    assert_false(meta_text_is_alike(&a, &both));
    meta_text_dispose(&a);
    meta_text_dispose(&b);
    meta_text_dispose(&both);
    meta_text_dispose(&follower);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_and_written_alike),
        cmocka_unit_test(order_repetition_and_unknown_keys_do_not_show),
        cmocka_unit_test(a_name_that_is_the_id_is_none),
        cmocka_unit_test(what_this_server_would_not_write_is_refused),
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(many_births_stay_sorted_and_once),
        cmocka_unit_test(two_sides_become_the_same_whichever_comes_first),
        cmocka_unit_test(a_join_takes_the_earlier_times_and_the_name_that_was_given),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
