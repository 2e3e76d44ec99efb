/*
 * What `memfs serve` is told in three ways: who says it first counts, for each row of the table.
 */
#include "checkout_support.h"

#include "store/server_settings.h"

#include <ctype.h>

static const server_setting_row *const ROWS = SERVER_SETTINGS;

/* The config of a home that says it of one setting. */
static void put_key(work *w, const server_setting_row *row, const char *value)
{
    _cleanup_(mem_freep) char *text = mem_printf("[memfs]\n\t%s = %s\n", row->key + 6, value);

    put(w, w->root, "config", text);
}

static void assert_said(work *w, server_setting id, const char *given, server_saying by,
                        const char *text)
{
    _cleanup_(server_said_dispose) server_said said = SERVER_SAID_INIT;
    const char *all[SERVER_N_SETTINGS] = { NULL };

    all[id] = given;
    assert_ok(w, server_said_read(w->root, all, &said, &w->err));
    for (server_setting other = 0; other < SERVER_N_SETTINGS; other++)
        if (other != id)
            assert_int_equal(said.by[other], SAID_NOT);
    assert_int_equal(said.by[id], by);
    if (text == NULL)
        assert_null(said.text[id]);
    else
        assert_string_equal(said.text[id], text);
}

static void forget_environment(void)
{
    for (server_setting id = 0; id < SERVER_N_SETTINGS; id++)
        unsetenv(ROWS[id].variable);
}

static void test_the_option_counts_before_the_variable_before_the_config(void **state)
{
    work *w = *state;

    forget_environment();
    for (server_setting id = 0; id < SERVER_N_SETTINGS; id++) {
        put(w, w->root, "config", "");
        assert_said(w, id, NULL, SAID_NOT, ROWS[id].default_text);
        put_key(w, &ROWS[id], "of-config");
        assert_said(w, id, NULL, SAID_KEY, "of-config");
        setenv(ROWS[id].variable, "of-variable", 1);
        assert_said(w, id, NULL, SAID_VARIABLE, "of-variable");
        assert_said(w, id, "of-option", SAID_OPTION, "of-option");
        unsetenv(ROWS[id].variable);
    }
}

static void test_an_empty_value_is_none_whoever_says_it(void **state)
{
    work *w = *state;

    forget_environment();
    for (server_setting id = 0; id < SERVER_N_SETTINGS; id++) {
        put_key(w, &ROWS[id], "of-config");
        setenv(ROWS[id].variable, "", 1);
        assert_said(w, id, "", SAID_KEY, "of-config");
        put_key(w, &ROWS[id], "\"\"");
        assert_said(w, id, NULL, SAID_NOT, ROWS[id].default_text);
        unsetenv(ROWS[id].variable);
    }
}

/* "letta-token-file", MEMFS_LETTA_TOKEN_FILE, memfs.lettaTokenFile: one is known, all are. */
static void test_the_three_names_of_a_setting_are_one_name(void **unused)
{
    (void)unused;
    for (server_setting id = 0; id < SERVER_N_SETTINGS; id++) {
        _cleanup_(buf_dispose) memfs_buf variable = MEMFS_BUF_INIT(256);
        _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(256);

        buf_puts(&variable, "MEMFS_");
        buf_puts(&key, "memfs.");
        for (const char *c = ROWS[id].name; *c != '\0'; c++) {
            bool is_start = c > ROWS[id].name && c[-1] == '-';

            buf_putc(&variable, *c == '-' ? '_' : (char)toupper(*c));
            if (*c != '-')
                buf_putc(&key, is_start ? (char)toupper(*c) : *c);
        }
        assert_string_equal(ROWS[id].variable, variable.ptr);
        assert_string_equal(ROWS[id].key, key.ptr);
        assert_non_null(strstr(ROWS[id].help, ROWS[id].variable));
        assert_int_equal(server_setting_by_name(ROWS[id].name), id);
        assert_int_equal(server_setting_by_name(variable.ptr), id);
        assert_int_equal(server_setting_by_name(key.ptr), id);
    }
    assert_int_equal(server_setting_by_name("memfs.lettaroot"), SERVER_LETTA_ROOT);
    assert_int_equal(server_setting_by_name("memfs.lettaRoots"), SERVER_N_SETTINGS);
}

static void test_a_config_that_cannot_be_parsed_is_told(void **state)
{
    _cleanup_(server_said_dispose) server_said said = SERVER_SAID_INIT;
    work *w = *state;

    put(w, w->root, "config", "[memfs\n");
    assert_code(w, MEMFS_EINVALID, server_said_read(w->root, NULL, &said, &w->err));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, work_setup, work_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_the_option_counts_before_the_variable_before_the_config),
        TEST(test_an_empty_value_is_none_whoever_says_it),
        TEST(test_the_three_names_of_a_setting_are_one_name),
        TEST(test_a_config_that_cannot_be_parsed_is_told),
    };

    return cmocka_run_group_tests_name("server_settings", tests, NULL, NULL);
}
