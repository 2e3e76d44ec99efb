/* The answers of git hosts, as functions of their bytes: words, scopes, pages, limits, dates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "remote/host_int.h"
#include "remote/host_report.h"

#include <stdio.h>
#include <stdlib.h>

static void test_kinds_have_names(void **state)
{
    host_kind kind;

    (void)state;
    for (int i = HOST_GITEA; i < HOST_N_KINDS; i++) {
        assert_true(host_kind_parse(str_of(host_kind_name((host_kind)i)), &kind));
        assert_int_equal(kind, i);
    }
    assert_false(host_kind_parse(MEMFS_STR("unknown"), &kind));
    assert_false(host_kind_parse(MEMFS_STR("Gitea"), &kind));
    assert_string_equal(host_kind_name((host_kind)99), "unknown");
}

/* ---- words ---- */

static void test_the_words_of_a_refusal(void **state)
{
    static const struct {
        const char *json, *words;
    } rows[] = {
        { "{\"message\":\"Bad credentials\",\"status\":\"401\"}", "Bad credentials" },
        { "{\"message\":{\"path\":[\"has already been taken\"]}}",
          "{\"path\":[\"has already been taken\"]}" },
        { "{\"error\":\"invalid_token\",\"error_description\":\"Token is expired.\"}",
          "Token is expired." },
        { "{\"error\":\"404 Not Found\"}", "404 Not Found" },
        { "{\"message\":\"Repository creation failed.\",\"errors\":[{\"message\":\"name already "
          "exists on this account\"},\"more\"]}",
          "Repository creation failed.: name already exists on this account: more" },
        { "{\"errors\":null,\"message\":\"The target couldn't be found.\"}",
          "The target couldn't be found." },
        { "{\"message\":17,\"errors\":[17,{\"message\":null}]}", "" },
        { "[]", "" }, { "{}", "" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
        json_t *json = json_loads(rows[i].json, 0, NULL);

        assert_non_null(json);
        host_words(json, &out);
        assert_string_equal(out.ptr, rows[i].words);
        json_decref(json);
    }
}

static void test_the_scope_that_gitea_names(void **state)
{
    static const struct {
        const char *said, *scope; /* NULL: none */
    } rows[] = {
        { "token does not have at least one of required scope(s), required=[write:organization], "
          "token scope=read:user", "write:organization" },
        { "token does not have at least one of required scope(s): [read:user]", "read:user" },
        { "required=[write:user write:repository]", "write:user" },
        { "required=[a,b]", "a" },
        { "required=[]", NULL }, { "required=[", NULL }, { "required=[cut", NULL },
        { "[write:user]", NULL }, { "", NULL },
        { "user should be an owner or a collaborator with admin write of a repository", NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char scope[60] = "";

        assert_int_equal(host_gitea_scope(rows[i].said, scope, sizeof(scope)),
                         rows[i].scope != NULL);
        if (rows[i].scope != NULL)
            assert_string_equal(scope, rows[i].scope);
    }
}

static void test_scopes_are_compared_word_by_word(void **state)
{
    (void)state;
    assert_true(host_has_any("repo, read:org", "repo"));
    assert_true(host_has_any("gist, public_repo", "public_repo, repo"));
    assert_false(host_has_any("public_repo", "repo"));
    assert_false(host_has_any("", "repo"));
    assert_false(host_has_any("repo", ""));
}

/* ---- heads ---- */

static void feed(host_talk *k, const char *name, const char *value)
{
    host_read_header(str_of(name), str_of(value), k);
}

static void test_another_page_follows_or_not(void **state)
{
    const host gitea = { .kind = HOST_GITEA }, github = { .kind = HOST_GITHUB };
    const host gitlab = { .kind = HOST_GITLAB };
    host_talk link = { .h = &gitea }, last = { .h = &gitea }, total = { .h = &gitea };
    host_talk bare = { .h = &gitea }, only = { .h = &github }, next = { .h = &gitlab };
    host_talk end = { .h = &gitlab };

    (void)state;
    feed(&link, "LINK", "<https://h/?page=2>; rel=\"next\",<https://h/?page=9>; rel=\"last\"");
    feed(&link, "X-Total-Count", "7"); /* counts what is seen, the link what there is */
    assert_true(host_has_more(&link, 3, 7));
    feed(&last, "link", "<https://h/?page=1>; rel=\"first\"");
    assert_false(host_has_more(&last, 3, 3));
    feed(&total, "x-total-count", "120");
    assert_true(host_has_more(&total, 50, 100));
    assert_false(host_has_more(&total, 20, 120));
    assert_true(host_has_more(&bare, 1, 1)); /* a proxy took the headers */
    assert_false(host_has_more(&bare, 0, 50));
    assert_false(host_has_more(&only, 100, 100)); /* GitHub always has a Link when there is more */
    feed(&next, "X-Next-Page", "2");
    assert_true(host_has_more(&next, 100, 100));
    feed(&end, "X-Next-Page", "");
    assert_false(host_has_more(&end, 100, 100));
}

static void test_F18_how_long_to_wait(void **state)
{
    const host h = { .kind = HOST_GITHUB };
    host_talk retry = { .h = &h, .retry_after_s = 7 }, reset = { .h = &h }, left = { .h = &h };
    host_talk past = { .h = &h }, far = { .h = &h, .retry_after_s = 1 << 30 }, odd = { .h = &h };

    (void)state;
    assert_int_equal(host_wait_s(&retry, 1000), 7);
    feed(&reset, "x-ratelimit-remaining", "0");
    feed(&reset, "x-ratelimit-reset", "1700000060");
    assert_int_equal(host_wait_s(&reset, 1700000000), 60);
    reset.date_s = 1700000030; /* the host's own clock counts: ours may be years away */
    assert_int_equal(host_wait_s(&reset, 4), 30);
    feed(&left, "x-ratelimit-remaining", "12");
    feed(&left, "x-ratelimit-reset", "1700000060");
    assert_int_equal(host_wait_s(&left, 1700000000), 0);
    feed(&past, "RateLimit-Remaining", "0");
    feed(&past, "RateLimit-Reset", "1700000060");
    assert_int_equal(host_wait_s(&past, 1800000000), 1);
    assert_int_equal(host_wait_s(&far, 0), HOST_MAX_WAIT_S);
    feed(&odd, "x-ratelimit-remaining", "none");
    feed(&odd, "x-ratelimit-reset", "99999999999999999999");
    assert_int_equal(host_wait_s(&odd, 0), 0);
}

static void test_T20_headers_are_bounded_and_escaped(void **state)
{
    const host h = { .kind = HOST_GITHUB };
    host_talk k = { .h = &h };
    char long_text[2000];

    (void)state;
    memset(long_text, 'a', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    feed(&k, "x-oauth-scopes", "repo\x1b[31m, read:org");
    assert_true(k.has_scopes);
    assert_string_equal(k.scopes, "repo\\x1B[31m, read:org");
    feed(&k, "X-Accepted-GitHub-Permissions", long_text);
    assert_true(strlen(k.wanted_rights) < sizeof(k.wanted_rights));
    feed(&k, "github-authentication-token-expiration", long_text);
    assert_true(strlen(k.expires) < sizeof(k.expires));
    feed(&k, "location", long_text);
    assert_true(strlen(k.moved_to) < sizeof(k.moved_to));
}

/* ---- times ---- */

static void test_dates_of_hosts(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } rows[] = {
        { "2027-01-31", 1801353600 },
        { "2027-01-31 12:00:00 UTC", 1801396800 },
        { "2027-01-31T12:00:00Z", 1801396800 },
        { "2028-02-29", 1835395200 },
        { "1970-01-01", 0 },
        { "9999-12-31", 253402214400 },
        { "", 0 }, { "never", 0 }, { "2027-1-31", 0 }, { "2027-13-01", 0 }, { "2027-00-10", 0 },
        { "2027-01-31 25:00:00", 0 }, { "2027-01-31x", 0 }, { "2027-01-3", 0 }, { "20270131", 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(host_date(rows[i].text), rows[i].seconds);
}

static void test_days_until_a_token_ends(void **state)
{
    host_report r = { .rights = { .expires_at_s = 10 * 86400 } };

    (void)state;
    assert_int_equal(host_report_days_left(&r, 0), 10);
    assert_int_equal(host_report_days_left(&r, 9 * 86400 + 1), 0);
    assert_int_equal(host_report_days_left(&r, 10 * 86400), 0);
    assert_int_equal(host_report_days_left(&r, 10 * 86400 + 1), -1);
    r.rights.expires_at_s = 0;
    assert_true(host_report_days_left(&r, 0) == INT64_MAX);
}

static void test_where_a_renamed_repository_is(void **state)
{
    char path[60];

    (void)state;
    assert_true(host_moved_path("https://api.github.com/repositories/17", path, sizeof(path)));
    assert_string_equal(path, "/repositories/17");
    assert_true(host_moved_path("https://evil.example/repositories/17", path, sizeof(path)));
    assert_string_equal(path, "/repositories/17"); /* a number of our own API's, never that host */
    assert_false(host_moved_path("https://h/repositories/17/../../user", path, sizeof(path)));
    assert_false(host_moved_path("https://h/repositories/", path, sizeof(path)));
    assert_false(host_moved_path("https://h/repositories/1234567890123456789", path, sizeof(path)));
    assert_false(host_moved_path("", path, sizeof(path)));
}

/* ---- addresses: kinds that are known ask nobody ---- */

static void expect_place(const char *url, host_kind kind, const char *api, const char *owner,
                         const char *name)
{
    _cleanup_(remote_target_dispose) remote_target t = REMOTE_TARGET_INIT;
    _cleanup_(host_dispose) host h = HOST_INIT;
    host_answer answer;
    memfs_error err = MEMFS_ERROR_INIT;

    assert_int_equal(url_parse(url, &t.url, &err), MEMFS_OK);
    assert_int_equal(host_find(&t, kind, clock_mono_ms() + 1000, &h, &answer, &err), MEMFS_OK);
    if (api == NULL) {
        assert_int_equal(h.kind, HOST_PLAIN);
        return;
    }
    assert_string_equal(h.api, api);
    assert_string_equal(h.owner, owner);
    assert_string_equal(h.name, name);
}

static void test_where_the_api_is(void **state)
{
    (void)state;
    expect_place("https://github.com/o/r.git", HOST_UNKNOWN, "https://api.github.com", "o", "r");
    expect_place("https://acme.ghe.com/o/r", HOST_UNKNOWN, "https://api.acme.ghe.com", "o", "r");
    expect_place("https://gitlab.com/a/b/c/r.git", HOST_UNKNOWN, "https://gitlab.com/api/v4",
                 "a/b/c", "r");
    expect_place("https://codeberg.org/o/r.git/", HOST_UNKNOWN, "https://codeberg.org/api/v1", "o",
                 "r");
    expect_place("https://h:8443/git/o/r.git", HOST_GITEA, "https://h:8443/git/api/v1", "o", "r");
    expect_place("https://h/o/r", HOST_GITHUB, "https://h/api/v3", "o", "r");
    expect_place("https://h/r.git", HOST_GITEA, "https://h/api/v1", "", "r");
    expect_place("ssh://git@github.com/o/r.git", HOST_UNKNOWN, NULL, NULL, NULL);
    expect_place("/srv/git/o/r.git", HOST_GITEA, NULL, NULL, NULL);
    expect_place("https://h/o/r.git", HOST_PLAIN, NULL, NULL, NULL);
}

static void test_jobs_that_cannot_be_are_refused_in_words(void **state)
{
    _cleanup_(remote_target_dispose) remote_target t = REMOTE_TARGET_INIT;
    _cleanup_(host_dispose) host h = HOST_INIT;
    host_answer answer;
    memfs_error err = MEMFS_ERROR_INIT;

    (void)state;
    assert_int_equal(url_parse("http://git.example/r.git", &t.url, &err), MEMFS_OK);
    assert_int_equal(host_find(&t, HOST_PLAIN, 0, &h, &answer, &err), MEMFS_OK);
    assert_int_equal(host_create(&h, 0, &answer, &err), MEMFS_EINVALID);
    assert_non_null(strstr(answer.words, "no API"));
    assert_string_equal(answer.words, err.msg);
    assert_int_equal(host_find(&t, HOST_GITEA, 0, &h, &answer, &err), MEMFS_OK);
    assert_int_equal(host_create(&h, 0, &answer, &err), MEMFS_EINVALID);
    assert_non_null(strstr(answer.words, "names no owner"));
    url_dispose(&t.url);
    assert_int_equal(url_parse("http://git.example/o/r.git", &t.url, &err), MEMFS_OK);
    assert_int_equal(host_find(&t, HOST_GITEA, 0, &h, &answer, &err), MEMFS_OK);
    assert_int_equal(host_create(&h, clock_mono_ms() + 1000, &answer, &err), MEMFS_EDENIED);
    assert_non_null(strstr(answer.words, "not encrypted"));
    t.may_http = true;
    assert_int_equal(host_create(&h, clock_mono_ms() - 1, &answer, &err), MEMFS_EUNAVAIL);
    assert_non_null(strstr(answer.words, "no time"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds_have_names),
        cmocka_unit_test(test_the_words_of_a_refusal),
        cmocka_unit_test(test_the_scope_that_gitea_names),
        cmocka_unit_test(test_scopes_are_compared_word_by_word),
        cmocka_unit_test(test_another_page_follows_or_not),
        cmocka_unit_test(test_F18_how_long_to_wait),
        cmocka_unit_test(test_T20_headers_are_bounded_and_escaped),
        cmocka_unit_test(test_dates_of_hosts),
        cmocka_unit_test(test_days_until_a_token_ends),
        cmocka_unit_test(test_where_a_renamed_repository_is),
        cmocka_unit_test(test_where_the_api_is),
        cmocka_unit_test(test_jobs_that_cannot_be_are_refused_in_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
