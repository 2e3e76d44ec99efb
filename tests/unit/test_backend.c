/*
 * Which remote an agent has (design 5): every backend against everything that may be set, and where
 * the Letta key goes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/approved.h"
#include "client/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define A1 "agent-11111111-1111-4111-8111-111111111111"
#define A2 "agent-22222222-2222-4222-8222-222222222222"
#define L1 "agent-local-33333333-3333-4333-8333-333333333333"
#define LETTA_A1 "/v1/git/" A1 "/state.git"

typedef struct fixture {
    char home[64];
} fixture;

static int set_up(void **state)
{
    fixture *f = mem_alloc(sizeof(*f));

    snprintf(f->home, sizeof(f->home), "/tmp/memfs-backend-XXXXXX");
    assert_non_null(mkdtemp(f->home));
    clearenv();
    setenv("HOME", f->home, 1);
    setenv("MEMFS_SYSTEM_CONFIG", "/nonexistent/config", 1);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    memfs_error err = MEMFS_ERROR_INIT;
    fixture *f = *state;

    assert_int_equal(fs_remove_tree(f->home, &err), MEMFS_OK);
    free(f);
    return 0;
}

static void write_file(const fixture *f, const char *name, const char *text)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", f->home, name);
    _cleanup_(mem_freep) char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    memfs_error err = MEMFS_ERROR_INIT;

    assert_int_equal(fs_mkdirs(folder, &err), MEMFS_OK);
    assert_int_equal(fs_write_atomic(path, str_of(text), 0600, &err), MEMFS_OK);
}

static void choose(const char *agent_id, backend_choice *ret)
{
    _cleanup_(settings_freep) settings *s = NULL;
    _cleanup_(place_dispose) place p = PLACE_INIT;
    memfs_error err = MEMFS_ERROR_INIT;

    assert_int_equal(settings_load(NULL, NULL, 0, &s, &err), MEMFS_OK);
    assert_int_equal(place_of(s, agent_id, &p, &err), MEMFS_OK);
    assert_int_equal(backend_choose(s, &p, ret, &err), MEMFS_OK);
}

/* The remote's address, or "" and a reason. */
static void expect(const char *agent_id, const char *url, const char *why)
{
    _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

    choose(agent_id, &c);
    if (strcmp(c.has_remote ? c.target.url.text : "", url) != 0)
        fail_msg("remote is '%s', expected '%s' (%s)", c.has_remote ? c.target.url.text : "", url,
                 c.why);
    if (strstr(c.why, why) == NULL)
        fail_msg("'%s' does not say '%s'", c.why, why);
}

static void set(const char *assignments)
{
    _cleanup_(mem_freep) char *copy = mem_strdup(assignments);
    char *rest = copy, *word;

    while ((word = strsep(&rest, " ")) != NULL) {
        char *value = strchr(word, '=');

        if (value == NULL)
            continue;
        *value++ = '\0';
        setenv(word, value, 1);
    }
}

static void unset(const char *assignments)
{
    _cleanup_(mem_freep) char *copy = mem_strdup(assignments);
    char *rest = copy, *word;

    while ((word = strsep(&rest, " ")) != NULL) {
        word[strcspn(word, "=")] = '\0';
        if (word[0] != '\0')
            unsetenv(word);
    }
}

/* ---- the table of design 5 ---- */

#define B "LETTABOT_MEMFS_BACKEND="
#define GIT "LETTA_MEMFS_GIT_URL=https://git.example/{agentId}.git"
#define GIT_A1 "https://git.example/" A1 ".git"
#define REMOTE "LETTABOT_MEMFS_REMOTE=https://remote.example/x.git"
#define REMOTE_URL "https://remote.example/x.git"
#define MEMFS_BASE "LETTA_MEMFS_BASE_URL=https://memfs.example/"
#define BASE "LETTA_BASE_URL=http://letta.example:8283"
#define KEY "LETTA_API_KEY=sk-canary"

static void every_backend_with_everything_that_may_be_set(void **state)
{
    static const struct {
        const char *env, *url, *why;
    } table[] = {
        /* cloud: the base URLs in their order, never a git URL */
        { B "cloud", "https://api.letta.com" LETTA_A1, "Letta's cloud" },
        { B "cloud " KEY, "https://api.letta.com" LETTA_A1, "Letta's cloud" },
        { B "cloud " BASE, "http://letta.example:8283" LETTA_A1, "environment LETTA_BASE_URL" },
        { B "cloud " MEMFS_BASE, "https://memfs.example" LETTA_A1, "LETTA_MEMFS_BASE_URL" },
        { B "cloud " MEMFS_BASE " " BASE, "https://memfs.example" LETTA_A1, "LETTA_MEMFS_BASE" },
        { B "cloud " GIT " " REMOTE " " BASE, "http://letta.example:8283" LETTA_A1, "LETTA_BASE" },
        /* local: the remote, then the git URL, then none; never Letta's endpoint */
        { B "local", "", "neither LETTABOT_MEMFS_REMOTE nor" },
        { B "local " BASE " " MEMFS_BASE " " KEY, "", "the backend is local" },
        { B "local " REMOTE, REMOTE_URL, "environment LETTABOT_MEMFS_REMOTE" },
        { B "local " GIT, GIT_A1, "environment LETTA_MEMFS_GIT_URL" },
        { B "local " GIT " " REMOTE " " BASE, REMOTE_URL, "LETTABOT_MEMFS_REMOTE" },
        { B "local MEMFS_REMOTE=/srv/git/{agentId}.git", "/srv/git/" A1 ".git", "MEMFS_REMOTE" },
        /* auto: a git URL, else the endpoint if anybody named one */
        { "", "", "no Letta base URL and no Letta key" },
        { KEY, "https://api.letta.com" LETTA_A1, "Letta's cloud" },
        { BASE, "http://letta.example:8283" LETTA_A1, "LETTA_BASE_URL" },
        { MEMFS_BASE " " BASE, "https://memfs.example" LETTA_A1, "LETTA_MEMFS_BASE_URL" },
        { GIT " " BASE " " KEY, GIT_A1, "LETTA_MEMFS_GIT_URL" },
        { REMOTE " " GIT " " BASE, REMOTE_URL, "LETTABOT_MEMFS_REMOTE" },
        { B "auto " REMOTE, REMOTE_URL, "LETTABOT_MEMFS_REMOTE" },
        /* none, and off: nothing counts */
        { B "none " GIT " " REMOTE " " BASE " " KEY, "", "the backend is none (environment" },
        { "LETTABOT_MEMFS=false " REMOTE, "", "memory is switched off" },
        { "LETTABOT_MEMFS=true " REMOTE, REMOTE_URL, "LETTABOT_MEMFS_REMOTE" },
        /* forms of addresses */
        { "MEMFS_REMOTE=git@host.example:mem/{agentId}.git", "git@host.example:mem/" A1 ".git",
          "" },
        { "MEMFS_REMOTE=http://127.0.0.1:9/x.git", "http://127.0.0.1:9/x.git", "" },
        { "MEMFS_REMOTE=http://intra.example/x.git MEMFS_ALLOW_HTTP=other,Intra.example",
          "http://intra.example/x.git", "MEMFS_REMOTE" },
        { "MEMFS_REMOTE=http://intra.example/x.git MEMFS_ALLOW_HTTP=tra.example", "",
          "set MEMFS_ALLOW_HTTP=intra.example" },
        { "MEMFS_REMOTE=http://intra.example/x.git", "", "http://" },
        { "MEMFS_REMOTE=ext::sh", "", "environment MEMFS_REMOTE: " },
        { "MEMFS_REMOTE=https://git.example/{agentId}/{agentId}.git", "", "MEMFS_REMOTE: " },
        { B "cloud LETTA_BASE_URL=letta.example", "", "LETTA_BASE_URL: " },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        set(table[i].env);
        expect(A1, table[i].url, table[i].why);
        unset(table[i].env);
    }
}

static void what_cannot_be_used_says_so(void **state)
{
    static const struct {
        const char *env;
        bool has_remote, is_misconfigured, is_off, is_letta;
    } table[] = {
        { "MEMFS_REMOTE=ext::sh", false, true, false, false },
        { "MEMFS_REMOTE=http://intra.example/x.git", false, true, false, false },
        { "MEMFS_REMOTE=https://ok.example/x.git", true, false, false, false },
        { "LETTA_BASE_URL=http://a.example", true, false, false, true },
        { "LETTA_BASE_URL=http://a.example MEMFS_REMOTE=http://a.example/other.git", true, false,
          false, true }, /* the same server under another path */
        { B "local", false, false, false, false },
        { "LETTABOT_MEMFS=false", false, false, true, false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

        set(table[i].env);
        choose(A1, &c);
        assert_int_equal(c.has_remote, table[i].has_remote);
        assert_int_equal(c.is_misconfigured, table[i].is_misconfigured);
        assert_int_equal(c.is_off, table[i].is_off);
        assert_int_equal(c.is_letta, table[i].is_letta);
        unset(table[i].env);
    }
}

static void a_broken_config_of_the_checkout_is_an_answer(void **state)
{
    const fixture *f = *state;
    _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

    write_file(f, ".letta/agents/" A1 "/memory/.git/config", "[memfs]\n\tbackend = nonsense\n");
    choose(A1, &c);
    assert_false(c.has_remote);
    assert_true(c.is_misconfigured);
    assert_non_null(strstr(c.why, "'nonsense'"));
}

/* ---- what a checkout says ---- */

static void the_agents_own_remote_wins_within_what_the_backend_allows(void **state)
{
    const fixture *f = *state;

    write_file(f, ".letta/agents/" A1 "/memory/.git/config",
               "[memfs]\n\tremote = https://own.example/a1.git\n");
    expect(A1, "https://own.example/a1.git", "memfs.remote of the checkout");
    set(REMOTE " " GIT);
    expect(A1, "https://own.example/a1.git", "memfs.remote of the checkout");
    set(B "local");
    expect(A1, "https://own.example/a1.git", "memfs.remote of the checkout");
    set(B "cloud " BASE);
    expect(A1, "http://letta.example:8283" LETTA_A1, "LETTA_BASE_URL");
    set(B "none");
    expect(A1, "", "the backend is none");
}

static void an_origin_counts_as_set_only_when_it_is_foreign(void **state)
{
    static const struct {
        const char *origin, *url, *why;
    } table[] = {
        { "https://git.example/mine.git", "https://git.example/mine.git",
          "origin of the checkout" },
        { "git@host.example:mine.git", "git@host.example:mine.git", "origin" },
        { "/srv/mine.git", "/srv/mine.git", "origin" },
        /* the client would move these to its own base */
        { "http://old.example" LETTA_A1, "http://letta.example:8283" LETTA_A1, "LETTA_BASE_URL" },
        { "HTTP://old.example/V1/GIT/" A1, "http://letta.example:8283" LETTA_A1, "LETTA_BASE" },
        { "http://old.example/v1/git", "http://letta.example:8283" LETTA_A1, "LETTA_BASE" },
        { "memfs::https://x.example/a", "http://letta.example:8283" LETTA_A1, "LETTA_BASE" },
    };
    const fixture *f = *state;

    set(BASE);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        _cleanup_(mem_freep) char *config =
            mem_printf("[remote \"origin\"]\n\turl = %s\n", table[i].origin);

        write_file(f, ".letta/agents/" A1 "/memory/.git/config", config);
        expect(A1, table[i].url, table[i].why);
    }
    set(GIT); /* what is set wins over an origin */
    write_file(f, ".letta/agents/" A1 "/memory/.git/config",
               "[remote \"origin\"]\n\turl = https://git.example/mine.git\n");
    expect(A1, GIT_A1, "LETTA_MEMFS_GIT_URL");
    unset(GIT);
    set(B "local"); /* and local takes only what is set */
    expect(A1, "", "the backend is local");
}

static void agents_of_the_local_backend_have_no_letta_endpoint(void **state)
{
    (void)state;
    set(BASE " " KEY);
    expect(L1, "", "local backend");
    set(GIT);
    expect(L1, "https://git.example/" L1 ".git", "LETTA_MEMFS_GIT_URL");
    unset(GIT);
    set(B "cloud");
    expect(L1, "http://letta.example:8283/v1/git/" L1 "/state.git", "LETTA_BASE_URL");
}

/*
 * Two agents, one address without {agentId}: both would push into one repository, and since all
 * memories begin with the genesis, they would be merged into each other without a word.
 */
static void histories_of_two_agents_never_share_a_remote(void **state)
{
    const fixture *f = *state;

    set(REMOTE);
    expect(A1, REMOTE_URL, "LETTABOT_MEMFS_REMOTE"); /* alone */
    write_file(f, ".letta/agents/" A1 "/memory/.git/config",
               "[remote \"origin\"]\n\turl = " REMOTE_URL "\n");
    expect(A1, REMOTE_URL, "LETTABOT_MEMFS_REMOTE");
    expect(A2, "", "has no {agentId} and there are several memories");
    write_file(f, ".letta/agents/" A2 "/memory/.git/config", "");
    expect(A2, "", "memfs remote set --agent");
    expect(A1, REMOTE_URL, "LETTABOT_MEMFS_REMOTE"); /* it is the one that has it */
    set("LETTABOT_MEMFS_REMOTE=https://remote.example/{agentId}.git");
    expect(A2, "https://remote.example/" A2 ".git", "LETTABOT_MEMFS_REMOTE");
}

/* ---- the Letta key ---- */

static void expect_key(const char *env, bool is_sent)
{
    _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

    set(env);
    choose(A1, &c);
    if (is_sent != (c.target.cred.secret != NULL))
        fail_msg("%s: the key is %s", env, is_sent ? "missing" : "there");
    if (is_sent) {
        assert_string_equal(c.target.cred.secret, "sk-canary");
        assert_string_equal(c.target.cred.username, "letta");
        assert_int_equal(c.target.cred.source, CREDENTIAL_LETTA_KEY);
    }
    unset(env);
}

/* The key of a self-hosted server is worth stealing: it must end at no host that it was not made
 * for. */
static void S3_the_letta_key_stays_with_its_host(void **state)
{
    static const struct {
        const char *env;
        bool is_sent;
    } table[] = {
        { KEY, true },
        { KEY " " BASE, true },
        { KEY " " MEMFS_BASE, true },
        { KEY " " MEMFS_BASE " " BASE, true },
        { KEY " " B "cloud LETTA_BASE_URL=https://api.letta.com", true },
        { KEY " " B "cloud LETTA_MEMFS_BASE_URL=https://api.letta.com", true },
        /* a self-hosted key, and the memory's base left (or put) at Letta's cloud */
        { KEY " " B "cloud " BASE " LETTA_MEMFS_BASE_URL=https://api.letta.com", false },
        { KEY " " BASE " LETTA_MEMFS_BASE_URL=https://api.letta.com:443/", false },
        { KEY " " BASE " LETTA_MEMFS_BASE_URL=https://other.letta.com", false },
        { KEY " LETTA_BASE_URL=nonsense LETTA_MEMFS_BASE_URL=https://api.letta.com", false },
        /* foreign git hosts */
        { KEY " " REMOTE, false },
        { KEY " " GIT " " BASE, false },
        { KEY " " BASE " MEMFS_REMOTE=http://letta.example:8284/x.git "
              "MEMFS_ALLOW_HTTP=letta.example",
          false },
        { KEY " " BASE " MEMFS_REMOTE=https://letta.example:8283/x.git", false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        expect_key(table[i].env, table[i].is_sent);
}

/* settings.json names a server and its key; the environment alone sends memory elsewhere. */
static void S3_a_key_belongs_to_the_server_named_beside_it(void **state)
{
    const fixture *f = *state;

    write_file(f, ".letta/settings.json",
               "{\"env\": {\"LETTA_BASE_URL\": \"http://self.example\","
               " \"LETTA_API_KEY\": \"sk-canary\"}}");
    expect_key("", true);
    expect_key("LETTA_BASE_URL=https://api.letta.com", false);
    expect_key("LETTA_MEMFS_BASE_URL=https://api.letta.com", false);
    expect_key("LETTA_MEMFS_BASE_URL=http://memfs.example", true);
}

static void the_withheld_key_is_told(void **state)
{
    _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

    (void)state;
    set(KEY " " BASE " LETTA_MEMFS_BASE_URL=https://api.letta.com");
    choose(A1, &c);
    assert_true(c.has_remote);
    assert_non_null(strstr(c.warning, "not sent to Letta's cloud"));
    assert_null(strstr(c.warning, "canary"));
}

/* ---- other secrets ---- */

static void a_token_goes_to_the_remote_and_not_to_letta(void **state)
{
    (void)state;
    set("MEMFS_REMOTE_TOKEN=tok-canary");
    set(REMOTE);
    {
        _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

        choose(A1, &c);
        assert_string_equal(c.target.cred.secret, "tok-canary");
        assert_false(c.target.ask_git_helpers);
    }
    unset(REMOTE);
    set(BASE);
    {
        _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

        choose(A1, &c);
        assert_null(c.target.cred.secret);
        assert_false(c.target.ask_git_helpers);
    }
}

/*
 * Whoever works in the checkout may write its .git/config.  An agent that was talked into `git remote
 * set-url origin https://evil.example/` was sent the token that the operator had given for a host.
 */
static void S3_a_token_goes_to_no_origin_that_nobody_named(void **state)
{
    const fixture *f = *state;
    _cleanup_(mem_freep) char *path = mem_printf("%s/token", f->home);
    _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

    write_file(f, ".letta/agents/" A1 "/memory/.git/config",
               "[remote \"origin\"]\n\turl = https://evil.example/x.git\n");
    write_file(f, "token", "tok-canary\n");
    write_file(f, "memfs-remote-token", "tok-canary\n");
    set("MEMFS_REMOTE_TOKEN=tok-canary");
    setenv("MEMFS_REMOTE_TOKEN_FILE", path, 1);
    setenv("CREDENTIALS_DIRECTORY", f->home, 1);
    choose(A1, &c);
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_string_equal(c.target.url.text, "https://evil.example/x.git");
    assert_null(c.target.cred.secret);
    assert_non_null(strstr(c.warning, "memfs remote set"));
    backend_choice_dispose(&c);
    write_file(f, "memfs-evil.example", "its-own\n"); /* what names the host is for the host */
    setenv("CREDENTIALS_DIRECTORY", f->home, 1);
    choose(A1, &c);
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_string_equal(c.target.cred.secret, "its-own");
}

static void note_approved(const char *address)
{
    _cleanup_(settings_freep) settings *s = NULL;
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_error err = MEMFS_ERROR_INIT;

    assert_int_equal(settings_load(NULL, NULL, 0, &s, &err), MEMFS_OK);
    assert_int_equal(url_parse(address, &url, &err), MEMFS_OK);
    assert_int_equal(approved_note(setting_text(s, SETTING_HOME), A1, &url, &err), MEMFS_OK);
}

/* The same of memfs.remote: `git config memfs.remote https://evil.example/` is as quickly said. */
static void S3_a_token_goes_to_the_checkouts_remote_only_if_its_host_was_named(void **state)
{
    static const struct {
        const char *remote, *approved;
        bool is_sent;
    } table[] = {
        { "https://evil.example/x.git", NULL, false },
        { "https://evil.example/x.git", "https://good.example/a.git", false },
        { "https://good.example:8443/x.git", "https://good.example/a.git", false },
        { "https://good.example.evil.example/x.git", "https://good.example/a.git", false },
        { "https://good.example/x.git", "ssh://git@good.example/a.git", false },
        { "https://good.example/a.git", "https://GOOD.example:443/a.git", true },
        { "https://good.example/{agentId}.git", "https://good.example/a.git", true },
    };
    static const char *const givers[] = { "MEMFS_REMOTE_TOKEN", "MEMFS_REMOTE_TOKEN_FILE",
                                          "CREDENTIALS_DIRECTORY" };
    const fixture *f = *state;
    _cleanup_(mem_freep) char *path = mem_printf("%s/token", f->home);

    write_file(f, "token", "tok-canary\n");
    write_file(f, "memfs-remote-token", "tok-canary\n");
    for (size_t i = 0; i < ARRAY_LEN(table) * ARRAY_LEN(givers); i++) {
        const size_t row = i / ARRAY_LEN(givers), giver = i % ARRAY_LEN(givers);
        const char *const given[] = { "tok-canary", path, f->home };
        _cleanup_(mem_freep) char *config = mem_printf("[memfs]\n\tremote = %s\n", table[row].remote);
        _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

        write_file(f, ".letta/agents/" A1 "/memory/.git/config", config);
        if (table[row].approved != NULL)
            note_approved(table[row].approved);
        setenv(givers[giver], given[giver], 1);
        choose(A1, &c);
        unsetenv(givers[giver]);
        assert_true(c.has_remote);
        if ((c.target.cred.secret != NULL) != table[row].is_sent)
            fail_msg("%s with %s approved, %s: %s", table[row].remote, table[row].approved,
                     givers[giver], table[row].is_sent ? "not sent" : "sent");
        if (table[row].is_sent)
            assert_string_equal(c.warning, "");
        else
            assert_non_null(strstr(c.warning, "memfs remote set --agent " A1));
    }
}

static void S3_a_hosts_own_secret_goes_to_the_checkouts_remote(void **state)
{
    const fixture *f = *state;
    _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

    write_file(f, ".letta/agents/" A1 "/memory/.git/config",
               "[memfs]\n\tremote = https://own.example/x.git\n");
    write_file(f, ".memfs/secrets/own.example." A1, "its-own\n");
    set("MEMFS_REMOTE_TOKEN=tok-canary");
    choose(A1, &c);
    assert_string_equal(c.target.cred.secret, "its-own");
    assert_string_equal(c.warning, ""); /* nothing is missing */
}

static void without_a_token_the_users_helpers_may_answer(void **state)
{
    _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

    (void)state;
    set(REMOTE);
    choose(A1, &c);
    assert_null(c.target.cred.secret);
    assert_true(c.target.ask_git_helpers);
}

/* T24: the form people use today.  The secret is taken off, kept 0600 and told about once. */
static void T24_user_info_is_split_off_and_kept(void **state)
{
    const fixture *f = *state;
    _cleanup_(mem_freep) char *secrets = mem_printf("%s/.memfs/secrets", f->home);
    struct stat st;

    set("MEMFS_REMOTE=https://bob:tok-canary@git.example/{agentId}.git");
    for (int round = 0; round < 2; round++) {
        _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

        choose(A1, &c);
        assert_true(c.has_remote);
        assert_string_equal(c.target.url.text, GIT_A1);
        assert_string_equal(c.target.cred.username, "bob");
        assert_string_equal(c.target.cred.secret, "tok-canary");
        assert_null(strstr(c.why, "canary"));
        assert_null(strstr(c.warning, "canary"));
        if (round == 0)
            assert_non_null(strstr(c.warning, "kept in secrets/"));
        else
            assert_string_equal(c.warning, "");
    }
    assert_int_equal(stat(secrets, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    unset("MEMFS_REMOTE=");
    set("MEMFS_REMOTE=" GIT_A1); /* the same address without it */
    {
        _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;

        choose(A1, &c);
        assert_string_equal(c.target.cred.secret, "tok-canary");
        assert_int_equal(c.target.cred.source, CREDENTIAL_SECRETS);
    }
}

static void S4_a_token_file_that_others_may_read_is_refused_and_told(void **state)
{
    const fixture *f = *state;
    _cleanup_(mem_freep) char *path = mem_printf("%s/token", f->home);
    _cleanup_(backend_choice_dispose) backend_choice open_file = BACKEND_CHOICE_INIT;
    _cleanup_(backend_choice_dispose) backend_choice own_file = BACKEND_CHOICE_INIT;

    write_file(f, "token", "tok-canary\n");
    setenv("MEMFS_REMOTE_TOKEN_FILE", path, 1);
    set(REMOTE);
    choose(A1, &own_file);
    assert_string_equal(own_file.target.cred.secret, "tok-canary");
    assert_int_equal(chmod(path, 0644), 0);
    choose(A1, &open_file);
    assert_true(open_file.has_remote);
    assert_null(open_file.target.cred.secret);
    assert_string_not_equal(open_file.warning, "");
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(every_backend_with_everything_that_may_be_set),
        T(what_cannot_be_used_says_so),
        T(a_broken_config_of_the_checkout_is_an_answer),
        T(the_agents_own_remote_wins_within_what_the_backend_allows),
        T(an_origin_counts_as_set_only_when_it_is_foreign),
        T(agents_of_the_local_backend_have_no_letta_endpoint),
        T(histories_of_two_agents_never_share_a_remote),
        T(S3_the_letta_key_stays_with_its_host),
        T(S3_a_key_belongs_to_the_server_named_beside_it),
        T(the_withheld_key_is_told),
        T(a_token_goes_to_the_remote_and_not_to_letta),
        T(S3_a_token_goes_to_no_origin_that_nobody_named),
        T(S3_a_token_goes_to_the_checkouts_remote_only_if_its_host_was_named),
        T(S3_a_hosts_own_secret_goes_to_the_checkouts_remote),
        T(without_a_token_the_users_helpers_may_answer),
        T(T24_user_info_is_split_off_and_kept),
        T(S4_a_token_file_that_others_may_read_is_refused_and_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
