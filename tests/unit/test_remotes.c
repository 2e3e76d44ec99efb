/* The remotes of a home: what is read, what is refused, where secrets go, whose an address is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "mirror/remotes.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define AGENT_A "agent-11111111-1111-4111-8111-111111111111"
#define AGENT_B "agent-22222222-2222-4222-8222-222222222222"
#define TOKEN "s3cret-token-of-sixteen-and-more"

typedef struct fixture {
    char home[64];
    memfs_buf warnings;
    remotes *r;
} fixture;

static void on_warn(const char *text, void *ctx)
{
    fixture *f = ctx;

    buf_printf(&f->warnings, "%s\n", text);
}

static int begin(void **state)
{
    static const char *const variables[] = { "LETTA_MEMFS_GIT_URL", "LETTABOT_MEMFS_REMOTE",
                                             "MEMFS_REMOTE_TOKEN", "MEMFS_REMOTE_TOKEN_FILE",
                                             "CREDENTIALS_DIRECTORY" };
    fixture *f = mem_alloc(sizeof(*f));

    for (size_t i = 0; i < ARRAY_LEN(variables); i++)
        unsetenv(variables[i]);
    snprintf(f->home, sizeof(f->home), "/tmp/memfs-remotes-XXXXXX");
    assert_non_null(mkdtemp(f->home));
    f->warnings = (memfs_buf)MEMFS_BUF_INIT(65536);
    *state = f;
    return 0;
}

static int end(void **state)
{
    fixture *f = *state;
    memfs_error err;

    remotes_free(f->r);
    assert_int_equal(fs_remove_tree(f->home, &err), MEMFS_OK);
    buf_dispose(&f->warnings);
    free(f);
    return 0;
}

static char *in_home(const fixture *f, const char *name)
{
    return mem_printf("%s/%s", f->home, name);
}

static void put(const fixture *f, const char *name, const char *text, unsigned mode)
{
    _cleanup_(mem_freep) char *path = in_home(f, name);
    memfs_error err;

    assert_int_equal(fs_write_atomic(path, str_of(text), mode, &err), MEMFS_OK);
}

static void get(const fixture *f, const char *name, memfs_buf *out)
{
    _cleanup_(mem_freep) char *path = in_home(f, name);
    memfs_error err;

    buf_clear(out);
    assert_int_equal(fs_read(path, out, &err), MEMFS_OK);
}

static memfs_code load(fixture *f, const char *url, memfs_error *err)
{
    remotes_options o = { .home = f->home, .url = url, .warn = on_warn, .warn_ctx = f };

    remotes_free(f->r);
    f->r = NULL;
    return remotes_load(&o, &f->r, err);
}

static void must_load(fixture *f, const char *url)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (load(f, url, &err) != MEMFS_OK)
        fail_msg("%s", err.msg);
}

static remote_target target_of(fixture *f, size_t at, const char *agent)
{
    remote_target t = REMOTE_TARGET_INIT;
    memfs_error err = MEMFS_ERROR_INIT;

    if (remote_config_target(f->r, &f->r->at[at], agent, &t, &err) != MEMFS_OK)
        fail_msg("%s", err.msg);
    return t;
}

static void test_no_configuration_is_no_remote(void **state)
{
    fixture *f = *state;

    must_load(f, NULL);
    assert_int_equal(f->r->n, 0);
    put(f, "config", "[memfs]\n\tbranch = main\n[core]\n\tx = y\n", 0600);
    must_load(f, NULL);
    assert_int_equal(f->r->n, 0);
}

static void test_every_key_is_read(void **state)
{
    fixture *f = *state;
    const remote_config *c;

    put(f, "config",
        "[mirror \"origin\"]\n\turl = https://git.example.com/a/{agentId}.git\n"
        "[mirror \"one\"]\n\turl = https://h:8443/one.git\n\tdirection = push\n\tagent = " AGENT_A
        "\n\tkind = gitea\n\tcreate = false\n\tusername = bot\n\ttokenFile = /run/t\n"
        "\tcaFile = /ca.pem\n\twebhookSecretFile = /run/w\n\tallowHttp = yes\n\tpoll = 7\n"
        "[mirror \"ssh\"]\n\turl = git@h:{agentId}.git\n\tsshKey = /k\n\tsshKnownHosts = /kh\n"
        "\tdirection = pull\n", 0600);
    must_load(f, NULL);
    assert_int_equal(f->r->n, 3);
    c = &f->r->at[0];
    assert_string_equal(c->name, "origin");
    assert_int_equal(c->direction, REMOTE_BOTH);
    assert_int_equal(c->poll_s, 60);
    assert_null(c->agents);
    assert_true(remote_is_for(c, AGENT_A) && remote_is_for(c, AGENT_B));
    c = &f->r->at[1];
    assert_string_equal(c->url, "https://h:8443/one.git");
    assert_int_equal(c->direction, REMOTE_PUSH);
    assert_int_equal(c->kind, HOST_GITEA);
    assert_true(!c->create && c->allow_http);
    assert_true(f->r->at[0].create); /* nobody said so */
    assert_string_equal(c->username, "bot");
    assert_string_equal(c->token_file, "/run/t");
    assert_string_equal(c->ca_file, "/ca.pem");
    assert_string_equal(c->webhook_secret_file, "/run/w");
    assert_int_equal(c->poll_s, 7);
    assert_true(remote_is_for(c, AGENT_A));
    assert_false(remote_is_for(c, AGENT_B));
    c = &f->r->at[2];
    assert_int_equal(c->direction, REMOTE_PULL);
    assert_string_equal(c->ssh_key, "/k");
    assert_string_equal(c->ssh_known_hosts, "/kh");
}

static void test_what_is_wrong_is_named(void **state)
{
    static const struct {
        const char *text, *expected;
    } rows[] = {
        { "[mirror \"a\"]\n\turl = https://h/{agentId}\n\tdirektion = both\n", "direktion" },
        { "[mirror \"a\"]\n\turl = https://h/{agentId}\n\tdirection = up\n", "both, push, pull" },
        { "[mirror \"a\"]\n\turl = https://h/{agentId}\n\tcreate = maybe\n", "true nor false" },
        { "[mirror \"a\"]\n\turl = https://h/{agentId}\n\tpoll = 0\n", "poll" },
        { "[mirror \"a\"]\n\turl = https://h/{agentId}\n\tkind = svn\n", "gitea" },
        { "[mirror \"a\"]\n\turl = https://h/{agentId}\n\tcaFile = ca.pem\n", "absolute" },
        { "[mirror \"a\"]\n\turl = https://h/{agentId}\n\tagent = bob\n", "no id of an agent" },
        { "[mirror \"a\"]\n\tcreate = true\n", "has no url" },
        { "[mirror \"a\"]\n\turl = https://h/one.git\n", "{agentId}" },
        { "[mirror \"a\"]\n\turl = https://h/one.git\n\tagent = " AGENT_A "\n\tagent = " AGENT_B
          "\n", "cannot share" },
        { "[mirror \"a\"]\n\turl = https://{agentId}.h/x\n", "path of an address" },
        { "[mirror \"a\"]\n\turl = http://example.com/{agentId}\n", "allowHttp" },
        { "[mirror \"a\"]\n\turl = ext::sh -c x {agentId}\n", "'a'" },
        { "[mirror \"a\"]\n\turl = https://h/../{agentId}\n", "'.' or '..'" },
        { "[mirror \"a\"]\n\turl = https://h/{agentId}/%2e%2e\n", "'.' or '..'" },
        { "[mirror \"a\"]\n\turl = /srv/{agentId}/..\n", "'.' or '..'" },
        { "[mirror \"A_b\"]\n\turl = https://h/{agentId}\n", "a-z" },
        { "[mirror]\n\turl = https://h/{agentId}\n", "a-z" },
    };
    fixture *f = *state;
    memfs_error err;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        put(f, "config", rows[i].text, 0600);
        err = (memfs_error)MEMFS_ERROR_INIT;
        assert_int_equal(load(f, NULL, &err), MEMFS_EINVALID);
        if (strstr(err.msg, rows[i].expected) == NULL)
            fail_msg("row %zu: %s", i, err.msg);
    }
}

static void test_more_remotes_than_there_may_be_are_refused(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    fixture *f = *state;
    memfs_error err;

    for (int i = 0; i <= REMOTES_MAX; i++)
        buf_printf(&text, "[mirror \"r%d\"]\n\turl = https://h/%d/{agentId}\n", i, i);
    put(f, "config", text.ptr, 0600);
    assert_int_equal(load(f, NULL, &err), MEMFS_EINVALID);
}

static void test_S3_T24_a_secret_leaves_the_address_and_the_file(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    _cleanup_(mem_freep) char *kept = NULL;
    fixture *f = *state;
    remote_target t;
    struct stat st;

    put(f, "config", "# mine\n[mirror \"origin\"]\n\turl = https://bot:" TOKEN
                     "@git.example.com/a/{agentId}.git\n\tcreate = true\n", 0600);
    must_load(f, NULL);
    assert_string_equal(f->r->at[0].url, "https://git.example.com/a/{agentId}.git");
    get(f, "config", &text);
    assert_null(strstr(text.ptr, TOKEN));
    assert_non_null(strstr(text.ptr, "# mine"));
    assert_non_null(strstr(text.ptr, "https://git.example.com/a/{agentId}.git"));
    assert_non_null(strstr(f->warnings.ptr, "secrets/"));
    assert_null(strstr(f->warnings.ptr, TOKEN));
    kept = in_home(f, "secrets/git.example.com.mirror-origin");
    assert_int_equal(stat(kept, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    buf_clear(&f->warnings); /* from now on without a word */
    must_load(f, NULL);
    assert_int_equal(f->warnings.len, 0);
    t = target_of(f, 0, AGENT_A);
    assert_string_equal(t.cred.secret, TOKEN);
    assert_string_equal(t.cred.username, "bot");
    assert_string_equal(t.url.text, "https://git.example.com/a/" AGENT_A ".git");
    remote_target_dispose(&t);
}

static void test_two_remotes_of_one_host_keep_two_secrets(void **state)
{
    fixture *f = *state;
    remote_target a, b;

    put(f, "config", "[mirror \"a\"]\n\turl = https://x:one" TOKEN "@h/a/{agentId}\n"
                     "[mirror \"b\"]\n\turl = https://x:two" TOKEN "@h/b/{agentId}\n", 0600);
    must_load(f, NULL);
    a = target_of(f, 0, AGENT_A);
    b = target_of(f, 1, AGENT_A);
    assert_string_equal(a.cred.secret, "one" TOKEN);
    assert_string_equal(b.cred.secret, "two" TOKEN);
    remote_target_dispose(&a);
    remote_target_dispose(&b);
}

static void test_the_command_line_stands_over_environment_and_file(void **state)
{
    fixture *f = *state;

    put(f, "config", "[mirror \"origin\"]\n\turl = https://file/{agentId}\n\tcreate = false\n", 0600);
    setenv("LETTABOT_MEMFS_REMOTE", "https://bot/{agentId}", 1);
    must_load(f, NULL);
    assert_string_equal(f->r->at[0].url, "https://bot/{agentId}");
    setenv("LETTA_MEMFS_GIT_URL", "https://letta/{agentId}", 1);
    must_load(f, NULL);
    assert_string_equal(f->r->at[0].url, "https://letta/{agentId}");
    must_load(f, "https://" TOKEN "@line/{agentId}");
    assert_string_equal(f->r->at[0].url, "https://line/{agentId}");
    assert_false(f->r->at[0].create); /* the file's other keys hold */
    assert_non_null(strstr(f->warnings.ptr, "list of processes"));
    assert_int_equal(f->r->n, 1);
}

static void test_a_clients_variable_does_not_stop_a_server(void **state)
{
    memfs_error err = MEMFS_ERROR_INIT;
    fixture *f = *state;

    setenv("LETTABOT_MEMFS_REMOTE", "https://bot/one.git", 1);
    must_load(f, NULL);
    assert_int_equal(f->r->n, 0);
    assert_non_null(strstr(f->warnings.ptr, "LETTABOT_MEMFS_REMOTE"));
    assert_int_equal(load(f, "https://line/one.git", &err), MEMFS_EINVALID);
}

static void test_the_token_of_the_environment_goes_to_the_remote_named_with_it(void **state)
{
    fixture *f = *state;
    remote_target t;

    setenv("MEMFS_REMOTE_TOKEN", TOKEN, 1);
    put(f, "config", "[mirror \"origin\"]\n\turl = https://a/{agentId}\n"
                     "[mirror \"other\"]\n\turl = https://b/{agentId}\n", 0600);
    must_load(f, NULL);
    t = target_of(f, 0, AGENT_A);
    assert_string_equal(t.cred.secret, TOKEN);
    remote_target_dispose(&t);
    t = target_of(f, 1, AGENT_A);
    assert_null(t.cred.secret);
    remote_target_dispose(&t);
}

static void test_F15_a_changed_token_is_used_at_once_and_changes_half_of_the_mark(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    fixture *f = *state;
    char first[17], again[17], other[17];
    remote_target t;

    buf_printf(&text, "[mirror \"a\"]\n\turl = https://h/{agentId}\n\ttokenFile = %s/token\n"
                      "\tusername = bot\n", f->home);
    put(f, "config", text.ptr, 0600);
    put(f, "token", TOKEN "\n", 0600);
    must_load(f, NULL);
    t = target_of(f, 0, AGENT_A);
    remote_target_mark(&t, first);
    assert_string_equal(t.cred.username, "bot");
    remote_target_dispose(&t);
    t = target_of(f, 0, AGENT_B);
    remote_target_mark(&t, other);
    remote_target_dispose(&t);
    assert_memory_not_equal(first, other, 8);      /* another address */
    assert_memory_equal(first + 8, other + 8, 8);  /* the same credential */

    put(f, "token", "another-" TOKEN "\n", 0600);
    t = target_of(f, 0, AGENT_A);
    remote_target_mark(&t, again);
    assert_string_equal(t.cred.secret, "another-" TOKEN);
    remote_target_dispose(&t);
    assert_memory_equal(first, again, 8);
    assert_memory_not_equal(first + 8, again + 8, 8);
}

static void test_S4_a_token_file_that_others_may_read_is_refused(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    _cleanup_(mem_freep) char *path = NULL;
    remote_target t = REMOTE_TARGET_INIT;
    memfs_error err = MEMFS_ERROR_INIT;
    fixture *f = *state;

    buf_printf(&text, "[mirror \"a\"]\n\turl = https://h/{agentId}\n\ttokenFile = %s/token\n",
               f->home);
    put(f, "config", text.ptr, 0600);
    put(f, "token", TOKEN "\n", 0600);
    path = in_home(f, "token");
    assert_int_equal(chmod(path, 0644), 0);
    must_load(f, NULL);
    assert_int_equal(remote_config_target(f->r, &f->r->at[0], AGENT_A, &t, &err), MEMFS_EDENIED);
    assert_non_null(strstr(err.msg, "chmod 600"));
    assert_null(strstr(err.msg, TOKEN));
}

static void test_ssh_keys_of_a_server_lie_in_its_home(void **state)
{
    _cleanup_(mem_freep) char *key = NULL, *hosts = NULL;
    fixture *f = *state;
    remote_target t;

    put(f, "config", "[mirror \"a\"]\n\turl = ssh://git@h/{agentId}.git\n", 0600);
    must_load(f, NULL);
    key = in_home(f, "secrets/ssh_key");
    hosts = in_home(f, "known_hosts");
    t = target_of(f, 0, AGENT_A);
    assert_string_equal(t.ssh_key, key);
    assert_string_equal(t.ssh_known_hosts, hosts);
    assert_true(t.is_server);
    remote_target_dispose(&t);
}

/* whose */

static bool on_owner(const remote_config *c, memfs_str id, void *ctx)
{
    buf_printf(ctx, "%s:%.*s ", c->name, (int)id.len, id.ptr);
    return true;
}

static void test_T22_whose_an_address_is(void **state)
{
    static const struct {
        const char *address, *expected;
    } rows[] = {
        { "https://Git.Example.com/agents/" AGENT_A ".git", "web:" AGENT_A " " },
        { "https://git.example.com/agents/" AGENT_A, "web:" AGENT_A " " },
        { "https://git.example.com/agents/" AGENT_A "/", "web:" AGENT_A " " },
        { "https://somebody:pw@git.example.com/agents/" AGENT_A ".git", "web:" AGENT_A " " },
        { "git.example.com/agents/" AGENT_B, "web:" AGENT_B " " },
        { "https://git.example.com:8443/agents/" AGENT_A ".git", "" },
        { "https://evil.example.com/agents/" AGENT_A ".git", "" },
        { "https://git.example.com/other/" AGENT_A ".git", "" },
        { "https://git.example.com/agents/x/" AGENT_A ".git", "" },
        { "https://git.example.com/agents/bob.git", "" },
        { "https://git.example.com/agents/", "" },
        { "git@ssh.example.com:mem/" AGENT_B ".git", "ssh:" AGENT_B " " },
        { "ssh://git@ssh.example.com/mem/" AGENT_B, "ssh:" AGENT_B " " },
        { "https://h:3000/one", "one:" AGENT_A " " },
        { "h:3000/one.git", "one:" AGENT_A " " },
        { "h:3001/one.git", "" },
        { "https://only/b/" AGENT_A, "" },
        { "https://only/b/" AGENT_B, "only:" AGENT_B " " },
        { "", "" }, { "/", "" }, { "::", "" }, { "https://", "" }, { ":1/x", "" },
    };
    _cleanup_(buf_dispose) memfs_buf found = MEMFS_BUF_INIT(4096);
    fixture *f = *state;

    put(f, "config",
        "[mirror \"web\"]\n\turl = https://git.example.com/agents/{agentId}.git\n"
        "[mirror \"ssh\"]\n\turl = ssh://git@ssh.example.com/mem/{agentId}.git\n"
        "[mirror \"one\"]\n\turl = https://h:3000/one.git\n\tagent = " AGENT_A "\n"
        "[mirror \"only\"]\n\turl = https://only/b/{agentId}.git\n\tagent = " AGENT_B "\n", 0600);
    must_load(f, NULL);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        buf_clear(&found);
        remotes_owner(f->r, str_of(rows[i].address), on_owner, &found);
        if (strcmp(found.ptr, rows[i].expected) != 0)
            fail_msg("'%s': '%s'", rows[i].address, found.ptr);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_no_configuration_is_no_remote),
        TEST(test_every_key_is_read),
        TEST(test_what_is_wrong_is_named),
        TEST(test_more_remotes_than_there_may_be_are_refused),
        TEST(test_S3_T24_a_secret_leaves_the_address_and_the_file),
        TEST(test_two_remotes_of_one_host_keep_two_secrets),
        TEST(test_the_command_line_stands_over_environment_and_file),
        TEST(test_a_clients_variable_does_not_stop_a_server),
        TEST(test_the_token_of_the_environment_goes_to_the_remote_named_with_it),
        TEST(test_F15_a_changed_token_is_used_at_once_and_changes_half_of_the_mark),
        TEST(test_S4_a_token_file_that_others_may_read_is_refused),
        TEST(test_ssh_keys_of_a_server_lie_in_its_home),
        TEST(test_T22_whose_an_address_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
