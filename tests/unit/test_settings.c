/*
 * Settings: who wins, where it was said, what is refused, and what is only a warning.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a home of the test's own ---- */

typedef struct fixture {
    char home[64];
} fixture;

static int set_up(void **state)
{
    fixture *f = mem_alloc(sizeof(*f));

    snprintf(f->home, sizeof(f->home), "/tmp/memfs-settings-XXXXXX");
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

static settings *load(const char *work_tree)
{
    memfs_error err = MEMFS_ERROR_INIT;
    settings *s = NULL;

    if (settings_load(work_tree, NULL, 0, &s, &err) < 0)
        fail_msg("settings_load: %s", err.msg);
    return s;
}

static void expect_refused(const char *work_tree, const char *words)
{
    memfs_error err = MEMFS_ERROR_INIT;
    settings *s = NULL;

    assert_int_equal(settings_load(work_tree, NULL, 0, &s, &err), MEMFS_EINVALID);
    assert_null(s);
    if (strstr(err.msg, words) == NULL)
        fail_msg("'%s' does not say '%s'", err.msg, words);
}

/* ---- defaults and paths ---- */

static void defaults_are_the_documented_ones(void **state)
{
    const fixture *f = *state;
    _cleanup_(settings_freep) settings *s = load(NULL);
    _cleanup_(mem_freep) char *home = mem_printf("%s/.memfs", f->home);
    _cleanup_(mem_freep) char *letta = mem_printf("%s/.letta", f->home);
    _cleanup_(mem_freep) char *storage = mem_printf("%s/.letta/lc-local-backend", f->home);

    assert_string_equal(setting_text(s, SETTING_HOME), home);
    assert_string_equal(setting_text(s, SETTING_LETTA_DIR), letta);
    assert_string_equal(setting_text(s, SETTING_LOCAL_BACKEND_DIR), storage);
    assert_string_equal(setting_text(s, SETTING_BACKEND), "auto");
    assert_int_equal(setting_number(s, SETTING_WAIT_MS), 2000);
    assert_int_equal(setting_number(s, SETTING_POLL_S), 60);
    assert_int_equal(setting_number(s, SETTING_ENABLED), 1);
    assert_false(settings_is_off(s));
    assert_null(setting_text(s, SETTING_REMOTE));
    assert_string_equal(setting_origin(s, SETTING_REMOTE), "not set");
    assert_string_equal(setting_origin(s, SETTING_BACKEND), "default");
    assert_false(setting_is_set(s, SETTING_BACKEND));
    assert_string_equal(settings_warnings(s), "");
}

static void every_row_is_whole(void **state)
{
    (void)state;
    for (size_t id = 0; id < SETTING_N; id++) {
        const setting_row *row = &SETTING_ROWS[id];

        assert_non_null(row->name);
        assert_non_null(row->help);
        assert_non_null(row->variables);
        assert_non_null(row->variables[0]);
        assert_true(row->kind != SETTING_KIND_CHOICE || row->choices != NULL);
        assert_false(row->is_secret && (row->in_files || row->in_checkout));
        assert_int_equal(setting_by_name(row->name), id);
        for (const char *const *v = row->variables; *v != NULL; v++)
            assert_int_equal(setting_by_name(*v), id);
    }
    assert_int_equal(setting_by_name("memfs.backend"), SETTING_BACKEND);
    assert_int_equal(setting_by_name("colour"), SETTING_N);
}

static void paths_are_made_absolute(void **state)
{
    const fixture *f = *state;
    _cleanup_(settings_freep) settings *s = NULL;
    _cleanup_(mem_freep) char *expected = mem_printf("%s/elsewhere", f->home);
    _cleanup_(mem_freep) char *storage = mem_printf("%s/l/lc-local-backend", f->home);

    assert_int_equal(chdir(f->home), 0);
    setenv("MEMFS_HOME", "~/elsewhere", 1);
    setenv("MEMFS_LETTA_DIR", "l", 1);
    s = load(NULL);
    assert_string_equal(setting_text(s, SETTING_HOME), expected);
    assert_string_equal(setting_text(s, SETTING_LOCAL_BACKEND_DIR), storage);
    assert_int_equal(chdir("/"), 0);
}

static void without_HOME_the_password_file_is_asked(void **state)
{
    _cleanup_(settings_freep) settings *s = NULL;

    (void)state;
    unsetenv("HOME");
    s = load(NULL);
    assert_true(setting_text(s, SETTING_HOME)[0] == '/');
}

/* ---- precedence ---- */

static void the_higher_level_wins_and_is_named(void **state)
{
    const fixture *f = *state;
    _cleanup_(mem_freep) char *system_config = mem_printf("%s/etc/config", f->home);
    _cleanup_(mem_freep) char *work = mem_printf("%s/mine", f->home);
    static const struct {
        const char *file, *text, *value, *origin_end;
    } steps[] = {
        /* from the lowest to the highest */
        { "etc/config", "[memfs]\n\tbackend = none\n", "none", "/etc/config" },
        { ".memfs/config", "[memfs]\n\tbackend = cloud\n", "cloud", "/.memfs/config" },
        { "mine/.git/config", "[memfs]\n\tbackend = local\n", "local", "/mine/.git/config" },
    };

    setenv("MEMFS_SYSTEM_CONFIG", system_config, 1);
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        _cleanup_(settings_freep) settings *s = NULL;

        write_file(f, steps[i].file, steps[i].text);
        s = load(work);
        assert_string_equal(setting_text(s, SETTING_BACKEND), steps[i].value);
        assert_true(
            str_starts_with(str_of(setting_origin(s, SETTING_BACKEND)), MEMFS_STR("file ")));
        assert_true(
            str_ends_with(str_of(setting_origin(s, SETTING_BACKEND)), str_of(steps[i].origin_end)));
    }
    {
        const setting_override override = { SETTING_BACKEND, "cloud" };
        _cleanup_(settings_freep) settings *env = NULL, *command = NULL;
        memfs_error err = MEMFS_ERROR_INIT;

        setenv("MEMFS_BACKEND", "auto", 1);
        setenv("LETTABOT_MEMFS_BACKEND", "none", 1);
        env = load(work);
        assert_string_equal(setting_text(env, SETTING_BACKEND), "none");
        assert_string_equal(setting_origin(env, SETTING_BACKEND),
                            "environment LETTABOT_MEMFS_BACKEND");
        assert_string_equal(setting_text_at(env, SETTING_BACKEND, SETTING_LEVEL_HOME), "cloud");
        assert_int_equal(settings_load(work, &override, 1, &command, &err), MEMFS_OK);
        assert_string_equal(setting_text(command, SETTING_BACKEND), "cloud");
        assert_string_equal(setting_origin(command, SETTING_BACKEND), "command line");
        assert_int_equal(setting_level_of(command, SETTING_BACKEND), SETTING_LEVEL_COMMAND);
    }
}

static void the_first_variable_wins_and_empty_ones_do_not_count(void **state)
{
    _cleanup_(settings_freep) settings *s = NULL;

    (void)state;
    setenv("LETTABOT_MEMFS_REMOTE", "", 1);
    setenv("MEMFS_REMOTE", "https://b.example/x.git", 1);
    s = load(NULL);
    assert_string_equal(setting_text(s, SETTING_REMOTE), "https://b.example/x.git");
    assert_string_equal(setting_origin(s, SETTING_REMOTE), "environment MEMFS_REMOTE");
}

static void another_checkout_takes_the_place_of_the_first(void **state)
{
    const fixture *f = *state;
    _cleanup_(mem_freep) char *one = mem_printf("%s/one", f->home);
    _cleanup_(mem_freep) char *two = mem_printf("%s/two", f->home);
    _cleanup_(settings_freep) settings *s = NULL, *other = NULL, *none = NULL;
    memfs_error err = MEMFS_ERROR_INIT;

    setenv("LETTA_BASE_URL", "http://l.example", 1);
    write_file(f, "one/.git/config", "[memfs]\n\tremote = /one.git\n\twait = 5\n");
    write_file(f, "two/.git/config", "[memfs]\n\tremote = /two.git\n");
    s = load(one);
    assert_int_equal(setting_number(s, SETTING_WAIT_MS), 5000);
    assert_int_equal(settings_with_checkout(s, two, &other, &err), MEMFS_OK);
    assert_string_equal(setting_text(other, SETTING_REMOTE), "/two.git");
    assert_string_equal(setting_text(other, SETTING_BASE_URL), "http://l.example");
    assert_int_equal(setting_number(other, SETTING_WAIT_MS), 2000);
    assert_int_equal(settings_with_checkout(s, NULL, &none, &err), MEMFS_OK);
    assert_null(setting_text(none, SETTING_REMOTE));
}

static void linked_worktrees_and_bare_repositories_have_their_config(void **state)
{
    const fixture *f = *state;
    _cleanup_(mem_freep) char *linked = mem_printf("%s/linked", f->home);
    _cleanup_(mem_freep) char *bare = mem_printf("%s/hub.git", f->home);
    _cleanup_(mem_freep) char *none = mem_printf("%s/none", f->home);
    _cleanup_(settings_freep) settings *a = NULL, *b = NULL;

    write_file(f, "main/.git/config", "[memfs]\n\tremote = /main.git\n");
    write_file(f, "main/.git/worktrees/linked/commondir", "../..\n");
    write_file(f, "linked/.git", "gitdir: ../main/.git/worktrees/linked\n");
    write_file(f, "hub.git/HEAD", "ref: refs/heads/main\n");
    write_file(f, "hub.git/config", "[memfs]\n\tremote = /hub.git\n");
    a = load(linked);
    assert_string_equal(setting_text(a, SETTING_REMOTE), "/main.git");
    b = load(bare);
    assert_string_equal(setting_text(b, SETTING_REMOTE), "/hub.git");
    assert_null(settings_checkout_config(none));
}

/* ---- ~/.letta/settings.json ---- */

static void letta_settings_give_three_values_and_lose_to_all_others(void **state)
{
    const fixture *f = *state;
    _cleanup_(settings_freep) settings *s = NULL, *t = NULL;

    write_file(f, ".letta/settings.json",
               "{\"env\": {\"LETTA_BASE_URL\": \"http://a.example\", \"LETTA_API_KEY\": \"k\","
               " \"LETTA_MEMFS_BASE_URL\": 7, \"LETTABOT_MEMFS_BACKEND\": \"none\"}, \"x\": []}");
    s = load(NULL);
    assert_string_equal(setting_text(s, SETTING_BASE_URL), "http://a.example");
    assert_string_equal(setting_text(s, SETTING_API_KEY), "k");
    assert_null(setting_text(s, SETTING_MEMFS_BASE_URL));
    assert_string_equal(setting_text(s, SETTING_BACKEND), "auto");
    assert_int_equal(setting_level_of(s, SETTING_API_KEY), SETTING_LEVEL_LETTA);
    write_file(f, ".memfs/config", "[memfs]\n\tbase-url = http://b.example\n");
    t = load(NULL);
    assert_string_equal(setting_text(t, SETTING_BASE_URL), "http://b.example");
}

/* The client's file is not ours: broken, it must keep no agent from starting. */
static void broken_letta_settings_are_a_warning(void **state)
{
    static const char *const texts[] = { "{\"env\": ", "", "\xff\xfe{" };
    const fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        _cleanup_(settings_freep) settings *s = NULL;

        write_file(f, ".letta/settings.json", texts[i]);
        s = load(NULL);
        assert_non_null(strstr(settings_warnings(s), "settings.json: is no JSON"));
    }
    {
        _cleanup_(settings_freep) settings *s = NULL;

        write_file(f, ".letta/settings.json", "{\"env\": [1, 2]}");
        s = load(NULL);
        assert_string_equal(settings_warnings(s), "");
    }
}

/* ---- forms ---- */

static void values_of_a_wrong_form_are_refused_with_their_origin(void **state)
{
    static const struct {
        const char *variable, *value, *words;
    } table[] = {
        { "LETTABOT_MEMFS_BACKEND", "Cloud", "environment LETTABOT_MEMFS_BACKEND" },
        { "MEMFS_BACKEND", "git", "'cloud', 'local', 'auto', 'none'" },
        { "LETTABOT_MEMFS", "1", "exactly 'true' or 'false'" },
        { "LETTABOT_MEMFS", "True", "not 'True'" },
        { "LETTABOT_MEMFS", "false ", "exactly" },
        { "MEMFS_WAIT", "-1", "seconds from 0 to 600" },
        { "MEMFS_WAIT", "2s", "not '2s'" },
        { "MEMFS_WAIT", "601", "seconds" },
        { "MEMFS_WAIT", ".", "seconds" },
        { "MEMFS_WAIT", "1.", "seconds" },
        { "MEMFS_WAIT", "99999999999999999999", "seconds" },
        { "MEMFS_POLL", "0", "whole seconds from 1 to 86400" },
        { "MEMFS_POLL", "1.5", "whole seconds" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        setenv(table[i].variable, table[i].value, 1);
        expect_refused(NULL, table[i].words);
        unsetenv(table[i].variable);
    }
}

static void values_of_the_right_form_are_taken(void **state)
{
    static const struct {
        const char *variable, *value;
        setting_id id;
        uint64_t number;
    } table[] = {
        { "LETTABOT_MEMFS", "true", SETTING_ENABLED, 1 },
        { "LETTABOT_MEMFS", "false", SETTING_ENABLED, 0 },
        { "MEMFS_WAIT", "0", SETTING_WAIT_MS, 0 },
        { "MEMFS_WAIT", "0.25", SETTING_WAIT_MS, 250 },
        { "MEMFS_WAIT", "1.5", SETTING_WAIT_MS, 1500 },
        { "MEMFS_WAIT", "600", SETTING_WAIT_MS, 600000 },
        { "MEMFS_WAIT", "0.0009", SETTING_WAIT_MS, 0 },
        { "MEMFS_POLL", "86400", SETTING_POLL_S, 86400 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        _cleanup_(settings_freep) settings *s = NULL;

        setenv(table[i].variable, table[i].value, 1);
        s = load(NULL);
        assert_int_equal(setting_number(s, table[i].id), table[i].number);
        unsetenv(table[i].variable);
    }
}

static void a_wrong_value_that_is_overruled_does_no_harm(void **state)
{
    const fixture *f = *state;
    _cleanup_(settings_freep) settings *s = NULL;

    write_file(f, ".memfs/config", "[memfs]\n\tbackend = nonsense\n");
    expect_refused(NULL, "/.memfs/config");
    setenv("MEMFS_BACKEND", "none", 1);
    s = load(NULL);
    assert_string_equal(setting_text(s, SETTING_BACKEND), "none");
}

static void a_config_file_that_cannot_be_parsed_is_named(void **state)
{
    const fixture *f = *state;

    write_file(f, ".memfs/config", "[memfs\nbackend = none\n");
    expect_refused(NULL, "/.memfs/config");
}

/* ---- what does not count where it was said ---- */

/* An agent may write into its own .git/config; from there it must not choose who gets the Letta
 * key. */
static void S6_a_checkout_names_no_base_url_and_allows_no_http(void **state)
{
    const fixture *f = *state;
    _cleanup_(mem_freep) char *work = mem_printf("%s/work", f->home);
    _cleanup_(settings_freep) settings *s = NULL;

    write_file(f, "work/.git/config",
               "[memfs]\n\tmemfs-base-url = http://evil.example\n\tbase-url = http://evil.example\n"
               "\tallow-http = evil.example\n\tgit-url = http://evil.example\n"
               "\thome = /evil\n\tletta-dir = /evil\n\tunknown-note = 1\n");
    s = load(work);
    assert_null(setting_text(s, SETTING_MEMFS_BASE_URL));
    assert_null(setting_text(s, SETTING_BASE_URL));
    assert_null(setting_text(s, SETTING_ALLOW_HTTP));
    assert_null(setting_text(s, SETTING_GIT_URL));
    assert_null(strstr(setting_text(s, SETTING_HOME), "evil"));
    assert_null(strstr(setting_text(s, SETTING_LETTA_DIR), "evil"));
    assert_non_null(strstr(settings_warnings(s), "'memfs.memfs-base-url' does not count here"));
    assert_null(strstr(settings_warnings(s), "unknown-note"));
}

static void S3_secrets_in_config_files_are_not_used(void **state)
{
    const fixture *f = *state;
    _cleanup_(settings_freep) settings *s = NULL;

    write_file(f, ".memfs/config",
               "[memfs]\n\tapi-key = canary\n\tremote-token = canary\n\tcolour = red\n");
    s = load(NULL);
    assert_null(setting_text(s, SETTING_API_KEY));
    assert_null(setting_text(s, SETTING_REMOTE_TOKEN));
    assert_non_null(strstr(settings_warnings(s), "'memfs.api-key' is a secret"));
    assert_non_null(strstr(settings_warnings(s), "there is no setting 'memfs.colour'"));
    assert_null(strstr(settings_warnings(s), "canary"));
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(defaults_are_the_documented_ones),
        T(every_row_is_whole),
        T(paths_are_made_absolute),
        T(without_HOME_the_password_file_is_asked),
        T(the_higher_level_wins_and_is_named),
        T(the_first_variable_wins_and_empty_ones_do_not_count),
        T(another_checkout_takes_the_place_of_the_first),
        T(linked_worktrees_and_bare_repositories_have_their_config),
        T(letta_settings_give_three_values_and_lose_to_all_others),
        T(broken_letta_settings_are_a_warning),
        T(values_of_a_wrong_form_are_refused_with_their_origin),
        T(values_of_the_right_form_are_taken),
        T(a_wrong_value_that_is_overruled_does_no_harm),
        T(a_config_file_that_cannot_be_parsed_is_named),
        T(S6_a_checkout_names_no_base_url_and_allows_no_http),
        T(S3_secrets_in_config_files_are_not_used),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
