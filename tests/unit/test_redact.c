/* T24: what others say, without the secrets in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/redact.h"

typedef struct row {
    const char *given, *wanted;
} row;

static const row PATTERNS[] = {
    { "plain text: nothing to hide", "plain text: nothing to hide" },
    { "https://u:p@h/a", "https://<redacted>@h/a" },
    { "https://token@h/a and http://x:y@z", "https://<redacted>@h/a and http://<redacted>@z" },
    { "https://u:p@ss@h/a@b", "https://<redacted>@h/a@b" },
    { "https:/u:p@h/a", "https:/<redacted>@h/a" },
    { "https://h/a@b", "https://h/a@b" },
    { "'https://u:p@h'", "'https://<redacted>@h'" },
    { "ssh://git@h/a", "ssh://<redacted>@h/a" },
    { "Authorization: Basic bGV0dGE6a2V5", "Authorization: <redacted>" },
    { "> authorization:Token abc def\nnext", "> authorization:<redacted>\nnext" },
    { "http.extraHeader=Authorization: Bearer x.y.z'", "http.extraHeader=Authorization: <redacted>'" },
    { "Bearer abc.def-1", "Bearer <redacted>" },
    { "BASIC   YWJj==", "BASIC   <redacted>" },
    { "remote: HTTP Basic: Access denied", "remote: HTTP Basic: Access denied" },
    { "a basically fine word", "a basically fine word" },
    { "/x?access_token=abc&y=1", "/x?access_token=<redacted>&y=1" },
    { "private_token=abc def", "private_token=<redacted> def" },
    { "key ghp_0123456789abcdefABCD end", "key <redacted> end" },
    { "glpat-0123456789abcdef", "<redacted>" },
    { "LETTA_API_KEY sk-let-MDEyMzQ1Njc4OQ==", "LETTA_API_KEY <redacted>" },
    { "task-list", "task-list" },
    { "", "" },
    { "://@", "://@" },
    { "x:/", "x:/" },
};

static void test_patterns(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(PATTERNS); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);

        redact_add(&out, str_of(PATTERNS[i].given), NULL, 0);
        assert_string_equal(out.ptr, PATTERNS[i].wanted);
    }
}

static const row VALUES[] = {
    { "it is hunter2!", "it is <redacted>!" },
    { "hunter2hunter2", "<redacted><redacted>" },
    { "hunter2-long", "<redacted>" },                        /* the longer of two */
    { "Bearer x hunter2", "Bearer <redacted> <redacted>" },
    { "Basic my own secret", "Basic <redacted>" },           /* begins in what a pattern drops */
    { "token=my own secret", "token=<redacted>" },
    { "hunter", "hunter" },
    { "abc abc", "abc abc" },                                /* too short to be one */
    { "://hunter2/", "://<redacted>/" },
};

static void test_values(void **state)
{
    static const char *const secrets[] = { "hunter2", NULL, "hunter2-long", "my own secret", "abc",
                                           "" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(VALUES); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);

        redact_add(&out, str_of(VALUES[i].given), secrets, ARRAY_LEN(secrets));
        assert_string_equal(out.ptr, VALUES[i].wanted);
    }
}

static void test_nul_bytes_end_nothing(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);

    (void)state;
    redact_add(&out, MEMFS_STR("a\0https://u:p@h\0Bearer abc"), NULL, 0);
    assert_int_equal(out.len, strlen("a0https://<redacted>@h0Bearer <redacted>"));
    assert_memory_equal(out.ptr, "a\0https://<redacted>@h\0Bearer <redacted>", out.len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_nul_bytes_end_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
