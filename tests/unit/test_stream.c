/*
 * What passes through the gateway, head by head: addresses, credentials, who called, where
 * redirects lead.  The rest of letta/stream.h is seen from both ends by
 * tests/integration/test_gateway.py.
 */
#include "letta/stream.h"
#include "letta/upstream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static void test_addresses(void **state)
{
    static const struct {
        const char *text, *origin, *authority;
    } cases[] = {
        { "http://letta:8283", "http://letta:8283", "letta:8283" },
        { "HTTP://Letta.Example:80/", "http://letta.example", "letta.example" },
        { "https://letta.example:443", "https://letta.example", "letta.example" },
        { "https://letta.example:80", "https://letta.example:80", "letta.example:80" },
        { "http://[::1]:8283/", "http://[::1]:8283", "[::1]:8283" },
        { "http://10.0.0.1", "http://10.0.0.1", "10.0.0.1" },
        { "letta:8283", NULL, NULL },
        { "ftp://letta", NULL, NULL },
        { "http://", NULL, NULL },
        { "http:///", NULL, NULL },
        { "http://letta/path", NULL, NULL },
        { "http://letta?x", NULL, NULL },
        { "http://letta#x", NULL, NULL },
        { "http://user:pw0rd@letta", NULL, NULL },
        { "http://letta:0", NULL, NULL },
        { "http://letta:65536", NULL, NULL },
        { "http://letta:", NULL, NULL },
        { "http://le tta", NULL, NULL },
        { "http://-oProxyCommand=x", NULL, NULL },
        { "http://letta\r\nX: 1", NULL, NULL },
        { "http://a:b:1", NULL, NULL },
        { "http://[::1", NULL, NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        stream_address a = STREAM_ADDRESS_INIT;
        memfs_error err = MEMFS_ERROR_INIT;
        memfs_code rc = stream_address_parse(cases[i].text, &a, &err);

        if (cases[i].origin == NULL) {
            assert_int_equal(rc, MEMFS_EINVALID);
            assert_null(strstr(err.msg, "pw0rd"));
        } else {
            assert_int_equal(rc, MEMFS_OK);
            assert_string_equal(a.origin, cases[i].origin);
            assert_string_equal(a.authority, cases[i].authority);
        }
        stream_address_dispose(&a);
    }
}

static void test_S1_basic_becomes_bearer_and_nothing_else_changes(void **state)
{
    static const struct {
        const char *sent, *shown;
    } cases[] = {
        { "Bearer abc", "Bearer abc" },
        { "bearer  abc", "bearer  abc" },
        { "Digest x", "Digest x" },
        { "Basic bGV0dGE6YWJj", "Bearer abc" },   /* letta:abc */
        { "basic   bGV0dGE6YTpi", "Bearer a:b" }, /* letta:a:b */
        { "Basic bGV0dGE6", NULL },               /* letta: */
        { "Basic bGV0dGE=", NULL },               /* letta */
        { "Basic bGV0dGE6YQ0KWDogMQ==", NULL },   /* letta:a\r\nX: 1 */
        { "Basic bGV0dGE6YQBi", NULL },           /* letta:a\0b */
        { "Basic !", NULL },
        { "Basic ", NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memfs_buf out = MEMFS_BUF_INIT(1024);

        assert_int_equal(upstream_authorization(str_of(cases[i].sent), &out),
                         cases[i].shown != NULL);
        if (cases[i].shown != NULL)
            assert_string_equal(out.ptr, cases[i].shown);
        buf_dispose(&out);
    }
}

static httpc_field field(const char *name, const char *value)
{
    return (httpc_field){ str_of(name), str_of(value) };
}

static void test_the_base_that_was_called(void **state)
{
    const httpc_field fields[] = { field("host", "memfs:1"),
                                   field("X-Forwarded-Proto", "https, http"),
                                   field("X-Forwarded-Host", "a.example, b.example") };
    const httpc_field odd[] = { field("Host", "a/b") };
    stream_caller caller = { .peer = "127.0.0.1", .is_tls = false };
    char *base = stream_base_called(fields, ARRAY_LEN(fields), &caller);

    (void)state;
    assert_string_equal(base, "http://memfs:1");
    free(base);
    caller.is_proxy_believed = true;
    base = stream_base_called(fields, ARRAY_LEN(fields), &caller);
    assert_string_equal(base, "https://a.example");
    free(base);
    assert_null(stream_base_called(odd, ARRAY_LEN(odd), &caller));
}

static void test_redirects_to_the_upstream_only(void **state)
{
    static const struct {
        const char *location, *base, *expected;
    } cases[] = {
        { "http://letta:8283/x?y", "https://m", "https://m/x?y" },
        { "https://LETTA:8283/x", "https://m", "https://m/x" },
        { "http://letta:8283", "https://m", "https://m/" },
        { "http://letta:8283/x", NULL, "/x" },
        { "http://letta:8283//evil/x", NULL, "/.//evil/x" },
        { "http://letta/x", "https://m", "http://letta/x" },
        { "http://letta:82830/x", "https://m", "http://letta:82830/x" },
        { "http://letta:8283@evil/x", "https://m", "http://letta:8283@evil/x" },
        { "http://evil/letta:8283", "https://m", "http://evil/letta:8283" },
        { "/x", "https://m", "/x" },
        { "", "https://m", "" },
    };
    stream_address a = STREAM_ADDRESS_INIT;
    memfs_error err = MEMFS_ERROR_INIT;

    (void)state;
    assert_int_equal(stream_address_parse("http://letta:8283", &a, &err), MEMFS_OK);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const httpc_field fields[] = { field("Location", cases[i].location) };
        stream_answer answer = STREAM_ANSWER_INIT;

        assert_int_equal(stream_answer_head(fields, 1, &a, cases[i].base, &answer, &err), MEMFS_OK);
        assert_int_equal(answer.n, 1);
        assert_true(str_equal(answer.fields[0].value, str_of(cases[i].expected)));
        stream_answer_dispose(&answer);
    }
    stream_address_dispose(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_S1_basic_becomes_bearer_and_nothing_else_changes),
        cmocka_unit_test(test_the_base_that_was_called),
        cmocka_unit_test(test_redirects_to_the_upstream_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
