/* T05, T06: addresses of remotes, and what must never be taken for one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "remote/url.h"

#include <stdlib.h>

#define AGENT "agent-9f7c2b1e-2d31-4c5a-8b1e-0123456789ab"

typedef struct good_row {
    const char *given;
    url_kind kind;
    const char *text, *origin, *path;
    const char *username, *secret;
} good_row;

static const good_row GOOD[] = {
    { "https://git.example.org/me/a.git", URL_HTTPS, "https://git.example.org/me/a.git",
      "https://git.example.org", "/me/a.git", NULL, NULL },
    { "HTTPS://Git.Example.ORG/Me/A.git", URL_HTTPS, "https://git.example.org/Me/A.git",
      "https://git.example.org", "/Me/A.git", NULL, NULL },
    { "https://h:443/a", URL_HTTPS, "https://h/a", "https://h", "/a", NULL, NULL },
    { "https://h:8443/a", URL_HTTPS, "https://h:8443/a", "https://h:8443", "/a", NULL, NULL },
    { "https://h", URL_HTTPS, "https://h/", "https://h", "/", NULL, NULL },
    { "https://[2001:db8::1]:8443/a", URL_HTTPS, "https://[2001:db8::1]:8443/a",
      "https://[2001:db8::1]:8443", "/a", NULL, NULL },
    { "https://192.168.1.7/a%20b.git", URL_HTTPS, "https://192.168.1.7/a%20b.git",
      "https://192.168.1.7", "/a%20b.git", NULL, NULL },
    { "http://localhost:3000/me/a", URL_HTTP, "http://localhost:3000/me/a",
      "http://localhost:3000", "/me/a", NULL, NULL },
    { "https://me:s3cret@h/a", URL_HTTPS, "https://h/a", "https://h", "/a", "me", "s3cret" },
    { "https://me:p%40ss%2Fword@h/a", URL_HTTPS, "https://h/a", "https://h", "/a", "me",
      "p@ss/word" },
    { "https://me:p@ss@h/a", URL_HTTPS, "https://h/a", "https://h", "/a", "me", "p@ss" },
    { "https://me:a:b@h/a", URL_HTTPS, "https://h/a", "https://h", "/a", "me", "a:b" },
    { "https://:tok@h/a", URL_HTTPS, "https://h/a", "https://h", "/a", NULL, "tok" },
    { "https://alice@h/a", URL_HTTPS, "https://h/a", "https://h", "/a", "alice", NULL },
    { "https://ghp_0123456789abcdef@github.com/me/a", URL_HTTPS, "https://github.com/me/a",
      "https://github.com", "/me/a", NULL, "ghp_0123456789abcdef" },
    { "https://0123456789abcdef0123:@h/a", URL_HTTPS, "https://h/a", "https://h", "/a", NULL,
      "0123456789abcdef0123" },
    { "https://@h/a", URL_HTTPS, "https://h/a", "https://h", "/a", NULL, NULL },
    { "ssh://git@h/me/a.git", URL_SSH, "ssh://git@h/me/a.git", "ssh://h", "/me/a.git", "git",
      NULL },
    { "ssh://h:2222/~me/a", URL_SSH, "ssh://h:2222/~me/a", "ssh://h:2222", "/~me/a", NULL, NULL },
    { "ssh://me:pw@h:22/a", URL_SSH, "ssh://me@h/a", "ssh://h", "/a", "me", "pw" },
    { "git@github.com:me/a.git", URL_SSH, "git@github.com:me/a.git", "ssh://github.com",
      "/me/a.git", "git", NULL },
    { "host:a.git", URL_SSH, "host:a.git", "ssh://host", "/a.git", NULL, NULL },
    { "host:/srv/a.git", URL_SSH, "host:/srv/a.git", "ssh://host", "/srv/a.git", NULL, NULL },
    { "me@[::1]:a.git", URL_SSH, "me@[::1]:a.git", "ssh://[::1]", "/a.git", "me", NULL },
    { "/srv/git/a.git", URL_PATH, "/srv/git/a.git", "", "/srv/git/a.git", NULL, NULL },
    { "/srv/with blank/50%/a.git", URL_PATH, "/srv/with blank/50%/a.git", "",
      "/srv/with blank/50%/a.git", NULL, NULL },
    { "/srv/a:b@c", URL_PATH, "/srv/a:b@c", "", "/srv/a:b@c", NULL, NULL },
    { "file:///srv/with%20blank/a", URL_PATH, "/srv/with blank/a", "", "/srv/with blank/a", NULL,
      NULL },
    { "file://localhost/srv/a", URL_PATH, "/srv/a", "", "/srv/a", NULL, NULL },
    { "https://h/..a/b../...git", URL_HTTPS, "https://h/..a/b../...git", "https://h",
      "/..a/b../...git", NULL, NULL },
    { "https://h/\xC3\xA9.git", URL_HTTPS, "https://h/\xC3\xA9.git", "https://h", "/\xC3\xA9.git",
      NULL, NULL },
};

static void same(const char *what, const char *given, const char *got, const char *wanted)
{
    if (wanted == NULL ? got != NULL : got == NULL || strcmp(got, wanted) != 0)
        fail_msg("%s of '%s' is '%s', not '%s'", what, given, got ? got : "(none)",
                 wanted ? wanted : "(none)");
}

static void test_an_address_is_taken_apart(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(GOOD); i++) {
        _cleanup_(url_dispose) remote_url u = REMOTE_URL_INIT;
        memfs_error err;

        if (url_parse(GOOD[i].given, &u, &err) != MEMFS_OK)
            fail_msg("'%s': %s", GOOD[i].given, err.msg);
        assert_int_equal(u.kind, GOOD[i].kind);
        same("text", GOOD[i].given, u.text, GOOD[i].text);
        same("origin", GOOD[i].given, u.origin, GOOD[i].origin);
        same("path", GOOD[i].given, u.path, GOOD[i].path);
        same("username", GOOD[i].given, u.username, GOOD[i].username);
        same("secret", GOOD[i].given, u.secret, GOOD[i].secret);
    }
}

typedef struct bad_row {
    const char *given, *why;
} bad_row;

/* Each of these starts a program, reaches another place, or means different things to git, ssh
 * and curl. */
static const bad_row BAD[] = {
    { "", "empty" },
    { "-oProxyCommand=touch x", "begins with '-'" },
    { "--upload-pack=touch x", "begins with '-'" },
    { "ext::sh -c touch% x", "remote helper" },
    { "ext::sh", "remote helper" },
    { "fd::7", "remote helper" },
    { "memfs::https://h/a", "remote helper" },
    { "::x", "remote helper" },
    { "git://h/a", "scheme" },
    { "ftp://h/a", "scheme" },
    { "javascript://h/a", "scheme" },
    { "git+ssh://h/a", "scheme" },
    { "https+x://h/a", "scheme" },
    { "ssh://-oProxyCommand=x/a", "option" },
    { "ssh://-l@h/a", "option" },
    { "ssh://h/", "no repository" },
    { "ssh://h", "no repository" },
    { "ssh://h:/a", "port" },
    { "ssh://h:99999/a", "port" },
    { "ssh://a b@h/a", "blank" },
    { "ssh://a$(x)@h/a", "user name" },
    { "ssh://h`x`/a", "host with characters" },
    { "-h:a", "begins with '-'" },
    { "me@-h:a", "option" },
    { "h:-oX", "option" },
    { "h:", "no repository" },
    { "me:pw@h:a", "none that memfs takes" },
    { "https://", "no host" },
    { "https:///a", "no host" },
    { "https://:8443/a", "no host" },
    { "https://me:tok@/a", "no host" },
    { "https://-h/a", "option" },
    { "https://h:0/a", "port" },
    { "https://h:65536/a", "port" },
    { "https://h:80x/a", "port" },
    { "https://h:-1/a", "port" },
    { "https://h/a?x=1", "query" },
    { "https://h/a#x", "query" },
    { "https://h?x", "query" },
    { "https://h/a b", "blank" },
    { " https://h/a", "blank" },
    { "https://h/a\n", "control" },
    { "https://h/a\r\nHost: x", "control" },
    { "https://h/a%0d%0aX: y", "as an escape" },
    { "https://h/a%0d%0aX:y", "as an escape" },
    { "https://h/a%00", "as an escape" },
    { "https://h/a%5Cb", "as an escape" },
    { "https://h/a%7f", "as an escape" },
    { "https://me:a%0ab@h/a", "as an escape" },
    { "https://h/100%", "begins no escape" },
    { "https://h/%zz", "begins no escape" },
    { "https://h\\@evil/a", "backslash" },
    { "\\\\server\\share", "backslash" },
    { "https://h/\xE2\x80\xAE" "a", "control" }, /* bidi override */
    { "https://h/\xFF", "no UTF-8" },
    { "https://h\xC3\xA9/a", "host with characters" },
    { "https://127.1/a", "IPv4" },
    { "https://0x7f.1/a", "IPv4" },
    { "https://2130706433/a", "IPv4" },
    { "https://0177.0.0.1/a", "IPv4" },
    { "https://1.2.3.4.5/a", "IPv4" },
    { "https://1.2.3.256/a", "IPv4" },
    { "https://[::1/a", "no address" },
    { "https://[x]/a", "no address" },
    { "https://.h/a", "host with characters" },
    { "file://server/share", "names a host" },
    { "file://a", "names a host" },
    { "file:///a%a0", "no UTF-8" },
    { "file:///a%c2%85", "control" },
    { "a.git", "relative" },
    { "../a.git", "relative" },
    { "~/a.git", "relative" },
    { "/srv/a\nb", "control" },
    { "/srv/a\\b", "backslash" },
    { "https://h/../a", "part of its path" },
    { "https://h/x/..", "part of its path" },
    { "https://h/./a", "part of its path" },
    { "https://h/a/.", "part of its path" },
    { "https://h/x/%2e%2E/a", "part of its path" },
    { "https://h/x/.%2e/a", "part of its path" },
    { "https://h/x%2f..%2fa", "part of its path" },
    { "ssh://h/x/../a", "part of its path" },
    { "me@h:../a.git", "part of its path" },
    { "/srv/x/../a", "part of its path" },
    { "/srv/.", "part of its path" },
    { "file:///srv/%2e%2e/a", "part of its path" },
};

static void test_T06_what_is_no_address_is_refused_with_the_reason(void **state)
{
    (void)state;
    assert_true(ARRAY_LEN(BAD) >= 60);
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        remote_url u = REMOTE_URL_INIT;
        memfs_error err = MEMFS_ERROR_INIT;

        if (url_parse(BAD[i].given, &u, &err) != MEMFS_EINVALID)
            fail_msg("'%s' was taken as '%s'", BAD[i].given, u.text);
        if (strstr(err.msg, BAD[i].why) == NULL)
            fail_msg("'%s': wanted \"%s\" in \"%s\"", BAD[i].given, BAD[i].why, err.msg);
        assert_null(u.text);
    }
}

static void test_S3_no_refusal_repeats_what_may_be_a_secret(void **state)
{
    static const char *const given[] = {
        "https://me:canary7@/a",     "https://me:canary7@h/a?x",  "ftp://me:canary7@h/a",
        "https://me:canary7@h:0/a",  "ssh://me:canary7@-h/a",     "me:canary7@h:a",
        "https://me:canary7@h/%zz",  "https://canary7 @h/a",      "https://me:canary7@127.1/a",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(given); i++) {
        remote_url u = REMOTE_URL_INIT;
        memfs_error err = MEMFS_ERROR_INIT;

        assert_int_equal(url_parse(given[i], &u, &err), MEMFS_EINVALID);
        assert_null(strstr(err.msg, "canary"));
    }
}

static void test_an_address_that_is_too_long_is_refused(void **state)
{
    _cleanup_(mem_freep) char *text = mem_alloc(3000);
    remote_url u = REMOTE_URL_INIT;
    memfs_error err;

    (void)state;
    memset(text, 'a', 2999);
    memcpy(text, "https://h/", 10);
    assert_int_equal(url_parse(text, &u, &err), MEMFS_EINVALID);
    text[2048] = '\0';
    assert_int_equal(url_parse(text, &u, &err), MEMFS_OK);
    url_dispose(&u);
}

static void test_the_agent_goes_into_a_template_once(void **state)
{
    static const char *const bad[] = { "https://h/{agentId}/{agentId}", "https://h/{agent}",
                                       "https://h/{", "https://h/}{agentId}", "https://h/{agentId}}" };
    _cleanup_(mem_freep) char *with = NULL, *without = NULL, *letta = NULL;
    char *out = NULL;
    memfs_error err;

    (void)state;
    assert_int_equal(url_expand("https://h/{agentId}.git", AGENT, &with, &err), MEMFS_OK);
    assert_string_equal(with, "https://h/" AGENT ".git");
    assert_int_equal(url_expand("https://h/a.git", AGENT, &without, &err), MEMFS_OK);
    assert_string_equal(without, "https://h/a.git");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(url_expand(bad[i], AGENT, &out, &err), MEMFS_EINVALID);
    assert_int_equal(url_expand("https://h/{agentId}", "../x", &out, &err), MEMFS_EINVALID);
    letta = url_letta("http://localhost:8285/sub//", AGENT);
    assert_string_equal(letta, "http://localhost:8285/sub/v1/git/" AGENT "/state.git");
}

static remote_url parsed(const char *text)
{
    remote_url u = REMOTE_URL_INIT;
    memfs_error err;

    assert_int_equal(url_parse(text, &u, &err), MEMFS_OK);
    return u;
}

static void check_origin(const char *a, const char *b, bool is_same)
{
    remote_url x = parsed(a), y = parsed(b);

    if (url_same_origin(&x, &y) != is_same)
        fail_msg("'%s' and '%s': %s", a, b, is_same ? "are the same origin" : "are not");
    url_dispose(&x);
    url_dispose(&y);
}

static void test_S3_an_origin_is_scheme_host_and_port(void **state)
{
    (void)state;
    check_origin("https://h/a", "https://H:443/b", true);
    check_origin("https://h/a", "http://h/a", false);
    check_origin("https://h/a", "https://h:8443/a", false);
    check_origin("https://h/a", "https://h.evil/a", false);
    check_origin("https://h/a", "https://h./a", false);
    check_origin("https://api.letta.com/a", "https://api.letta.com@evil/a", false);
    check_origin("ssh://h/a", "git@h:a", true);
    check_origin("ssh://h/a", "https://h:22/a", false);
    check_origin("/srv/a", "/srv/a", false);
}

static void test_loopback_by_name_and_number(void **state)
{
    static const struct {
        const char *text;
        bool is_loopback;
    } rows[] = {
        { "http://localhost/a", true },       { "http://127.0.0.1:8285/a", true },
        { "http://127.9.9.9/a", true },       { "http://[::1]:1/a", true },
        { "http://memfs.localhost/a", true }, { "http://localhost.evil/a", false },
        { "http://127.0.0.1.evil/a", false }, { "http://[::2]/a", false },
        { "http://10.0.0.1/a", false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        remote_url u = parsed(rows[i].text);

        if (url_is_loopback(&u) != rows[i].is_loopback)
            fail_msg("'%s'", rows[i].text);
        url_dispose(&u);
    }
}

static void test_redaction_is_one_line_without_user_info(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);

    (void)state;
    url_redact(&out, MEMFS_STR("fatal: https://me:tok@h/a\n\033[31m'ssh://git@h/a' Bearer abc"));
    assert_string_equal(out.ptr, "fatal: https://<redacted>@h/a\\x0A\\x1B[31m'ssh://<redacted>@h/a' "
                                 "Bearer <redacted>");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_address_is_taken_apart),
        cmocka_unit_test(test_T06_what_is_no_address_is_refused_with_the_reason),
        cmocka_unit_test(test_S3_no_refusal_repeats_what_may_be_a_secret),
        cmocka_unit_test(test_an_address_that_is_too_long_is_refused),
        cmocka_unit_test(test_the_agent_goes_into_a_template_once),
        cmocka_unit_test(test_S3_an_origin_is_scheme_host_and_port),
        cmocka_unit_test(test_loopback_by_name_and_number),
        cmocka_unit_test(test_redaction_is_one_line_without_user_info),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
