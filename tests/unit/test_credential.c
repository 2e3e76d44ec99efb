/* Where a secret comes from, for whom, and who must not read its file (design 6; S3, S4, T25). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "hook/credential.h"
#include "remote/credential.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define AGENT "agent-9f7c2b1e-2d31-4c5a-8b1e-0123456789ab"

typedef struct fixture {
    char home[64];
    memfs_error err;
} fixture;

static int setup(void **state)
{
    fixture *f = mem_alloc(sizeof(*f));

    snprintf(f->home, sizeof(f->home), "/tmp/memfs-cred-XXXXXX");
    assert_non_null(mkdtemp(f->home));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;

    assert_int_equal(fs_remove_tree(f->home, &f->err), MEMFS_OK);
    free(f);
    return 0;
}

static char *put(fixture *f, const char *name, const char *text, unsigned mode)
{
    char *path = mem_printf("%s/%s", f->home, name);

    assert_int_equal(fs_write_atomic(path, str_of(text), mode, &f->err), MEMFS_OK);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

typedef struct asked {
    remote_url url;
    credential found;
    credential_query q;
} asked;

static asked ask(const char *url)
{
    asked a = { REMOTE_URL_INIT, CREDENTIAL_INIT, { .agent_id = AGENT } };
    memfs_error err;

    assert_int_equal(url_parse(url, &a.url, &err), MEMFS_OK);
    return a;
}

static memfs_code find(asked *a, memfs_error *err)
{
    a->q.url = &a->url;
    return credential_find(&a->q, &a->found, err);
}

static void done(asked *a)
{
    credential_dispose(&a->found);
    url_dispose(&a->url);
}

static void expect(fixture *f, asked *a, const char *source, const char *user, const char *secret)
{
    memfs_code rc = find(a, &f->err);

    if (rc != MEMFS_OK)
        fail_msg("%s: %s", a->url.text, f->err.msg);
    assert_string_equal(credential_source_name(a->found.source), source);
    if (secret == NULL)
        assert_null(a->found.secret);
    else
        assert_string_equal(a->found.secret, secret);
    if (user != NULL)
        assert_string_equal(a->found.username, user);
    done(a);
}

static void test_S3_the_letta_key_goes_to_its_own_origin_alone(void **state)
{
    static const struct {
        const char *base, *url;
        bool gets_it;
    } rows[] = {
        { "https://api.letta.com", "https://api.letta.com/v1/git/x/state.git", true },
        { "https://api.letta.com/", "https://API.letta.com:443/v1/git/x/state.git", true },
        { "http://localhost:8285/sub", "http://localhost:8285/v1/git/x/state.git", true },
        { "https://api.letta.com", "https://github.com/me/a.git", false },
        { "https://api.letta.com", "https://api.letta.com.evil/a", false },
        { "https://api.letta.com", "https://api.letta.com:8443/a", false },
        { "https://api.letta.com", "http://api.letta.com/a", false },
        { "http://localhost:8285", "https://api.letta.com/a", false },
        { NULL, "https://api.letta.com/a", false },
        { "no address", "https://api.letta.com/a", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        asked a = ask(rows[i].url);

        a.q.letta_base = rows[i].base;
        a.q.letta_key = "the-key";
        if (rows[i].gets_it)
            expect(*state, &a, "letta-key", "letta", "the-key");
        else
            expect(*state, &a, "none", NULL, NULL);
    }
}

static void test_S3_a_token_of_the_remote_never_goes_to_the_letta_endpoint(void **state)
{
    asked a = ask("https://api.letta.com/v1/git/x/state.git"), b = ask("https://git.example/a");

    a.q.letta_base = b.q.letta_base = "https://api.letta.com";
    a.q.token = b.q.token = "mine";
    expect(*state, &a, "none", NULL, NULL);
    expect(*state, &b, "environment", "memfs", "mine");
}

static void test_only_http_has_credentials(void **state)
{
    static const char *const urls[] = { "ssh://git@h/a", "git@h:a", "/srv/a" };

    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        asked a = ask(urls[i]);

        a.q.token = "mine";
        a.q.may_ask_git = true;
        expect(*state, &a, "none", NULL, NULL);
    }
}

static void test_user_names_that_hosts_want_for_a_token(void **state)
{
    static const struct {
        const char *url, *user;
    } rows[] = {
        { "https://github.com/a", "x-access-token" },  { "https://gitlab.com/a", "oauth2" },
        { "https://gitlab.example.org/a", "oauth2" },  { "https://bitbucket.org/a", "x-token-auth" },
        { "https://git.example.org/a", "memfs" },      { "https://alice@git.example.org/a", "alice" },
        { "https://notgithub.com/a", "memfs" },        { "https://x.github.com/a", "x-access-token" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        asked a = ask(rows[i].url);

        a.q.token = "mine";
        expect(*state, &a, "environment", rows[i].user, "mine");
    }
}

static void test_user_names_by_the_first_letters_of_a_token(void **state)
{
    static const struct {
        const char *token, *user;
    } rows[] = {
        { "ghp_a", "x-access-token" },  { "github_pat_a", "x-access-token" },
        { "ghs_a", "x-access-token" },  { "glpat-a", "oauth2" },
        { "gloas-a", "oauth2" },        { "glcbt-a", "gitlab-ci-token" },
        { "0123abcdef", "memfs" },      { "gh", "memfs" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        asked a = ask("https://git.example.org/a"), b = ask("https://alice@git.example.org/a");

        a.q.token = b.q.token = rows[i].token;
        expect(*state, &a, "environment", rows[i].user, rows[i].token);
        expect(*state, &b, "environment", "alice", rows[i].token);
    }
}

static void test_sources_in_their_order(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *file = put(f, "token", "from-file\n", 0600);
    _cleanup_(mem_freep) char *general = put(f, "memfs-remote-token", "from-systemd", 0400);
    asked a = ask("https://me:from-url@git.example/a"), b = ask("https://git.example/a");
    asked c = ask("https://git.example/a"), d = ask("https://git.example/a");
    asked e = ask("https://git.example/a");

    assert_int_equal(credential_store(f->home, &a.url, NULL, "kept", "from-secrets", &f->err),
                     MEMFS_OK);
    a.q.memfs_home = b.q.memfs_home = c.q.memfs_home = d.q.memfs_home = f->home;
    a.q.systemd_dir = b.q.systemd_dir = c.q.systemd_dir = f->home;
    a.q.token_file = b.q.token_file = file;
    a.q.token = "from-variable";
    expect(f, &a, "url", "me", "from-url");
    expect(f, &b, "file", "memfs", "from-file");
    expect(f, &c, "systemd", "memfs", "from-systemd");
    expect(f, &d, "secrets", "kept", "from-secrets");
    e.q.may_ask_git = true;
    expect(f, &e, "git-helpers", NULL, NULL);
}

static void test_systemd_credentials_by_host(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *own = put(f, "memfs-git.example_8443",
                                         "username=bot\npassword=own\n", 0400);
    _cleanup_(mem_freep) char *general = put(f, "memfs-remote-token", "general\r\n", 0400);
    asked a = ask("https://git.example:8443/a"), b = ask("https://git.example/a");
    asked c = ask("https://git.example/a");

    a.q.systemd_dir = b.q.systemd_dir = f->home;
    c.q.systemd_dir = "relative";
    expect(f, &a, "systemd", "bot", "own");
    expect(f, &b, "systemd", "memfs", "general");
    expect(f, &c, "none", NULL, NULL);
}

static void test_S4_secrets_are_kept_privately_by_host_and_agent(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *folder = mem_printf("%s/secrets", f->home);
    _cleanup_(mem_freep) char *path = mem_printf("%s/git.example_3000." AGENT, folder);
    asked a = ask("https://git.example:3000/a"), b = ask("https://git.example:3000/a");
    asked c = ask("https://git.example:3000/a");
    struct stat st;

    assert_int_equal(credential_store(f->home, &a.url, AGENT, NULL, "own", &f->err), MEMFS_OK);
    assert_int_equal(credential_store(f->home, &a.url, NULL, "all", "every", &f->err), MEMFS_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    a.q.memfs_home = b.q.memfs_home = c.q.memfs_home = f->home;
    b.q.agent_id = "agent-other";
    expect(f, &a, "secrets", "memfs", "own");
    expect(f, &b, "secrets", "all", "every");
    assert_int_equal(credential_store(f->home, &c.url, AGENT, NULL, NULL, &f->err), MEMFS_OK);
    assert_int_equal(credential_store(f->home, &c.url, AGENT, NULL, NULL, &f->err), MEMFS_OK);
    assert_int_equal(access(path, F_OK), -1);
    expect(f, &c, "secrets", "all", "every");
}

static void check_refused(fixture *f, const char *text, unsigned mode, memfs_code code)
{
    _cleanup_(mem_freep) char *file = put(f, "token", text, mode);
    asked a = ask("https://git.example/a");
    memfs_code rc;

    a.q.token_file = file;
    rc = find(&a, &f->err);
    if (rc != code)
        fail_msg("mode %04o, '%s': %s", mode, text, memfs_code_name(rc));
    assert_null(strstr(f->err.msg, "canary"));
    assert_null(a.found.secret);
    done(&a);
}

static void test_a_file_that_others_may_read_or_that_holds_no_secret_is_refused(void **state)
{
    fixture *f = *state;
    asked a = ask("https://git.example/a");

    check_refused(f, "canary", 0644, MEMFS_EDENIED);
    check_refused(f, "canary", 0640, MEMFS_EDENIED);
    check_refused(f, "canary", 0604, MEMFS_EDENIED);
    check_refused(f, "", 0600, MEMFS_EINVALID);
    check_refused(f, "\ncanary", 0600, MEMFS_EINVALID);
    check_refused(f, "username=me\n", 0600, MEMFS_EINVALID);
    check_refused(f, "can\tary", 0600, MEMFS_EINVALID);
    check_refused(f, "canary\033[31m", 0600, MEMFS_EINVALID);
    a.q.token_file = "/nonexistent/token";
    assert_int_equal(find(&a, &f->err), MEMFS_EINVALID);
    done(&a);
    a = ask("https://git.example/a");
    a.q.token_file = f->home; /* a folder */
    assert_int_not_equal(find(&a, &f->err), MEMFS_OK);
    done(&a);
}

static void test_T25_a_secret_with_a_line_end_is_never_kept(void **state)
{
    fixture *f = *state;
    asked a = ask("https://git.example/a");

    assert_int_equal(credential_store(f->home, &a.url, NULL, "me", "a\nhost=x", &f->err),
                     MEMFS_EINVALID);
    assert_int_equal(credential_store(f->home, &a.url, NULL, "m\re", "a", &f->err), MEMFS_EINVALID);
    assert_int_equal(credential_store(f->home, &a.url, NULL, "me", "", &f->err), MEMFS_EINVALID);
    done(&a);
}

static void test_the_header_that_stops_the_letta_key(void **state)
{
    char name[] = "letta", key[] = "key";
    credential none = CREDENTIAL_INIT, some = { CREDENTIAL_SECRETS, name, key };
    _cleanup_(mem_freep) char *empty = credential_extra_header(&none);
    _cleanup_(mem_freep) char *line = credential_extra_header(&some);

    (void)state;
    assert_string_equal(empty, "");
    assert_string_equal(line, "Authorization: Basic bGV0dGE6a2V5");
}

static void test_the_hook_answers_its_host_alone(void **state)
{
    memfs_str handed = MEMFS_STR("0005https000bgit.example0002me0006s3cret");
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);

    (void)state;
    assert_true(credential_answer(handed, MEMFS_STR("protocol=https\nhost=git.example\n\n"), &out));
    assert_string_equal(out.ptr, "username=me\npassword=s3cret\n");
    buf_clear(&out);
    assert_true(credential_answer(handed, MEMFS_STR("protocol=https\nhost=x\n\n"), &out));
    assert_true(credential_answer(handed, MEMFS_STR("protocol=https\nhost=git.example:1\n\n"), &out));
    assert_int_equal(out.len, 0);
    assert_false(credential_answer(str_make(handed.ptr, handed.len - 1),
                                   MEMFS_STR("protocol=https\nhost=git.example\n\n"), &out));
    assert_int_equal(out.len, 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_S3_the_letta_key_goes_to_its_own_origin_alone),
        CASE(test_S3_a_token_of_the_remote_never_goes_to_the_letta_endpoint),
        CASE(test_only_http_has_credentials),
        CASE(test_user_names_that_hosts_want_for_a_token),
        CASE(test_user_names_by_the_first_letters_of_a_token),
        CASE(test_sources_in_their_order),
        CASE(test_systemd_credentials_by_host),
        CASE(test_S4_secrets_are_kept_privately_by_host_and_agent),
        CASE(test_a_file_that_others_may_read_or_that_holds_no_secret_is_refused),
        CASE(test_T25_a_secret_with_a_line_end_is_never_kept),
        CASE(test_the_header_that_stops_the_letta_key),
        CASE(test_the_hook_answers_its_host_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
