#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/escape.h"
#include "memory/policy.h"

#include <stdio.h>

static const policy STRICT = POLICY_INIT;

static policy lenient(void)
{
    policy p = POLICY_INIT;

    p.lenient = true;
    return p;
}

/* raw trees by hand */

static void add_entry(memfs_buf *raw, const char *mode, const char *name)
{
    static const char id[20] = "12345678901234567890";

    buf_printf(raw, "%s %s", mode, name);
    buf_add(raw, "", 1);
    buf_add(raw, id, sizeof(id));
}

static void test_a_raw_tree_is_read_entry_by_entry(void **state)
{
    _cleanup_(buf_dispose) memfs_buf raw = MEMFS_BUF_INIT(4096);
    size_t pos = 0;
    tree_entry e;
    bool bad;

    (void)state;
    add_entry(&raw, "100644", "a.md");
    add_entry(&raw, "40000", "system");
    assert_true(tree_next(buf_str(&raw), &pos, &e, &bad));
    assert_int_equal(e.mode, TREE_MODE_FILE);
    assert_true(str_equal(e.name, MEMFS_STR("a.md")));
    assert_memory_equal(e.id.id, "12345678901234567890", 20);
    assert_true(tree_next(buf_str(&raw), &pos, &e, &bad));
    assert_int_equal(e.mode, TREE_MODE_FOLDER);
    assert_false(tree_next(buf_str(&raw), &pos, &e, &bad));
    assert_false(bad);
    assert_int_equal(pos, raw.len);
}

static void test_a_tree_that_is_cut_or_garbled_is_bad_at_every_byte(void **state)
{
    static const char *const bad_trees[] = { " name", "100644", "100644 ", "x100644 a", "100644a",
                                             "77777777777777 a", "1006449 a" };
    _cleanup_(buf_dispose) memfs_buf raw = MEMFS_BUF_INIT(4096);
    tree_entry e;
    bool bad;

    (void)state;
    add_entry(&raw, "100644", "a.md");
    for (size_t len = 1; len < raw.len; len++) {
        size_t pos = 0;

        assert_false(tree_next(str_make(raw.ptr, len), &pos, &e, &bad));
        assert_true(bad);
        assert_int_equal(pos, 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad_trees); i++) {
        _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(4096);
        size_t pos = 0;

        buf_puts(&tree, bad_trees[i]);
        buf_add(&tree, "", 1);
        buf_puts(&tree, "12345678901234567890");
        assert_false(tree_next(buf_str(&tree), &pos, &e, &bad));
        assert_true(bad);
    }
}

typedef struct entry_case {
    uint32_t mode;
    const char *name;
    const char *rule; /* part of the refusal; NULL: accepted */
    bool lenient_too; /* refused by a lenient policy as well */
} entry_case;

static const entry_case ENTRIES[] = {
    { 0100644, "human.md", NULL, false },
    { 0100755, "run.sh", NULL, false },
    { 0040000, "system", NULL, false },
    { 0100644, ".gitattributes", NULL, false },
    { 0100644, "Müller 日本語 😀.md", NULL, false },
    { 0100644, "👩‍💻.md", NULL, false }, /* joiners belong to names people type */
    { 0100644, "a-b", NULL, false },
    { 0120000, "link", "symbolic links", false },
    { 0160000, "module", "submodules", false },
    { 0100664, "old", "file mode 100664", false },
    { 0100777, "open", "file mode 100777", true },
    { 0100600, "mine", "file mode 100600", true },
    { 0, "none", "file mode 000000", true },
    { 0140000, "socket", "file mode 140000", true },
    { 0100644, ".git", "reserved", true },
    { 0040000, ".GIT", "reserved", true },
    { 0100644, "GIT~1", "reserved", true },
    { 0100644, ".git . .", "reserved", true },
    { 0100644, ".g\u200cit", "reserved", true }, /* HFS+ ignores the joiner */
    { 0100644, ".", "reserved", true },
    { 0100644, "..", "reserved", true },
    { 0100644, "a/b", "reserved", true },
    { 0100644, "a\nb", "control", false },
    { 0100644, "a\rb", "control", false },
    { 0100644, "a\tb", "control", false },
    { 0100644, "a\033[2Jb", "control", false },
    { 0100644, "a\177b", "control", false },
    { 0100644, "a\xc2\x85" "b", "control", false }, /* C1 */
    { 0100644, "a\u202egnp.exe", "control", false },
    { 0100644, "a\u2066b", "control", false },
    { 0100644, "\ufeffa", "control", false },
    { 0100644, "a\\b", "backslash", false },
    { 0100644, "-rf", "begins with '-'", false },
    { 0100644, "caf\xe9", "UTF-8", false },
    { 0100644, "\xc0\xae\xc0\xae", "UTF-8", false }, /* overlong ".." */
    { 0100644, "a\xed\xa0\x80", "UTF-8", false },    /* a surrogate */
    { 0100644, "cafe\u0301", "NFC", false },
    { 0100644, "\u212b", "NFC", false }, /* the Angstrom sign is the letter */
};

static tree_entry entry_of(uint32_t mode, const char *name)
{
    return (tree_entry){ .mode = mode, .name = str_of(name) };
}

static void test_T11_every_kind_of_entry_is_judged(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ENTRIES); i++) {
        const entry_case *c = &ENTRIES[i];
        tree_entry e = entry_of(c->mode, c->name);
        policy soft = lenient();
        memfs_error err = MEMFS_ERROR_INIT;
        memfs_code rc = policy_entry(&STRICT, MEMFS_STR("folder/"), &e, &err);

        if (c->rule == NULL) {
            if (rc != MEMFS_OK)
                fail_msg("row %zu: refused: %s", i, err.msg);
            continue;
        }
        if (rc != MEMFS_EDENIED || strstr(err.msg, c->rule) == NULL)
            fail_msg("row %zu: wanted '%s', got %d '%s'", i, c->rule, rc, err.msg);
        assert_int_equal(policy_entry(&soft, MEMFS_STR(""), &e, &err),
                         c->lenient_too ? MEMFS_EDENIED : MEMFS_OK);
    }
}

static void test_T20_refusals_are_one_clean_line_that_names_the_path(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ENTRIES); i++) {
        tree_entry e = entry_of(ENTRIES[i].mode, ENTRIES[i].name);
        memfs_error err = MEMFS_ERROR_INIT;
        memfs_str text;
        size_t pos = 0;
        uint32_t cp;

        if (policy_entry(&STRICT, MEMFS_STR("fold\ner/"), &e, &err) == MEMFS_OK)
            continue;
        text = str_of(err.msg);
        assert_true(str_starts_with(text, MEMFS_STR("'fold\\x0Aer/")));
        while (pos < text.len) {
            assert_true(str_utf8_next(text, &pos, &cp));
            assert_false(escape_is_control(cp));
        }
    }
}

static void test_T11_long_names_and_paths_are_refused_by_any_policy(void **state)
{
    char name[5000], folder[1100];
    policy soft = lenient();
    memfs_error err;
    tree_entry e;

    (void)state;
    memset(name, 'n', sizeof(name));
    memset(folder, 'f', sizeof(folder));
    e = (tree_entry){ .mode = TREE_MODE_FILE, .name = str_make(name, 255) };
    assert_int_equal(policy_entry(&STRICT, MEMFS_STR(""), &e, &err), MEMFS_OK);
    assert_int_equal(policy_entry(&STRICT, str_make(folder, 1024 - 255), &e, &err), MEMFS_OK);
    assert_int_equal(policy_entry(&STRICT, str_make(folder, 1025 - 255), &e, &err), MEMFS_EDENIED);
    assert_int_equal(policy_entry(&soft, str_make(folder, 1025 - 255), &e, &err), MEMFS_EDENIED);
    e.name.len = 256;
    assert_int_equal(policy_entry(&STRICT, MEMFS_STR(""), &e, &err), MEMFS_EDENIED);
    e.name.len = 5000;
    assert_int_equal(policy_entry(&soft, MEMFS_STR(""), &e, &err), MEMFS_EDENIED);
    assert_true(strlen(err.msg) < sizeof(err.msg) - 1); /* cut, with the rule still in it */
    assert_non_null(strstr(err.msg, "may have 255 bytes"));
}

typedef struct twin_case {
    const char *names[4], *known[4];
    bool refused;
} twin_case;

static const twin_case TWINS[] = {
    { { "a.md", "b.md" }, { NULL }, false },
    { { "A.md", "a.md" }, { NULL }, true },
    { { "A.md", "B.md", "a.md" }, { "A.md", "a.md" }, false }, /* both were there already */
    { { "A.md", "a.md" }, { "A.md" }, true },
    { { "README", "readme", "ReadMe" }, { "README", "readme" }, true },
    { { "straße", "STRASSE" }, { NULL }, true },
    { { "\u00e9", "\u00c9" }, { NULL }, true },
    { { "e\u0301", "\u00e9" }, { NULL }, true }, /* two forms of one letter */
    { { "ab", "a\u200db" }, { NULL }, true },    /* an ignorable character between */
    { { "\u03c3", "\u03c2" }, { NULL }, true },  /* sigma and final sigma */
    { { "I", "\u0131" }, { NULL }, false },      /* dotless i folds to itself */
    { { "a", "a." }, { NULL }, false },
};

static void test_T11_case_twins_are_refused_unless_they_were_there(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(TWINS); i++) {
        _cleanup_(buf_dispose) memfs_buf raw = MEMFS_BUF_INIT(4096), known = MEMFS_BUF_INIT(4096);
        policy soft = lenient();
        memfs_error err = MEMFS_ERROR_INIT;
        memfs_code rc;

        for (size_t k = 0; k < 4 && TWINS[i].names[k] != NULL; k++)
            add_entry(&raw, "100644", TWINS[i].names[k]);
        for (size_t k = 0; k < 4 && TWINS[i].known[k] != NULL; k++)
            add_entry(&known, "100644", TWINS[i].known[k]);
        rc = policy_siblings(&STRICT, MEMFS_STR("x/"), buf_str(&raw), buf_str(&known), &err);
        if (rc != (TWINS[i].refused ? MEMFS_EDENIED : MEMFS_OK))
            fail_msg("row %zu: %d '%s'", i, rc, err.msg);
        assert_int_equal(
            policy_siblings(&soft, MEMFS_STR("x/"), buf_str(&raw), buf_str(&known), &err),
            MEMFS_OK);
    }
}

static void test_L1_a_folder_of_a_hundred_thousand_names_is_judged_quickly(void **state)
{
    _cleanup_(buf_dispose) memfs_buf raw = MEMFS_BUF_INIT(16u << 20);
    int64_t start;
    memfs_error err;
    char name[32];

    (void)state;
    for (int i = 0; i < 100000; i++) {
        snprintf(name, sizeof(name), "note-%06d.md", i);
        add_entry(&raw, "100644", name);
    }
    start = clock_mono_ms();
    assert_int_equal(policy_siblings(&STRICT, MEMFS_STR(""), buf_str(&raw), MEMFS_STR(""), &err),
                     MEMFS_OK);
    assert_true(clock_mono_ms() - start < 20000); /* some 20 ms without sanitizers */
    add_entry(&raw, "100644", "one-more");
    assert_int_equal(policy_siblings(&STRICT, MEMFS_STR(""), buf_str(&raw), MEMFS_STR(""), &err),
                     MEMFS_EDENIED);
}

static void test_T14_sizes_have_bounds(void **state)
{
    memfs_error err;

    (void)state;
    assert_int_equal(policy_file_size(&STRICT, MEMFS_STR("a"), 10u << 20, &err), MEMFS_OK);
    assert_int_equal(policy_file_size(&STRICT, MEMFS_STR("a"), (10u << 20) + 1, &err),
                     MEMFS_EDENIED);
    assert_non_null(strstr(err.msg, "'a'"));
    assert_int_equal(policy_totals(&STRICT, 100000, 256u << 20, &err), MEMFS_OK);
    assert_int_equal(policy_totals(&STRICT, 100001, 0, &err), MEMFS_EDENIED);
    assert_int_equal(policy_totals(&STRICT, 0, (256u << 20) + 1, &err), MEMFS_EDENIED);
}

static void test_T11_dates_lie_between_1970_and_2100(void **state)
{
    memfs_error err;

    (void)state;
    assert_int_equal(policy_commit_dates(&STRICT, 0, 0, &err), MEMFS_OK);
    assert_int_equal(policy_commit_dates(&STRICT, 4102444799, 1700000000, &err), MEMFS_OK);
    assert_int_equal(policy_commit_dates(&STRICT, -1, 0, &err), MEMFS_EDENIED);
    assert_int_equal(policy_commit_dates(&STRICT, 0, 4102444800, &err), MEMFS_EDENIED);
    assert_int_equal(policy_commit_dates(&STRICT, 4100000000000, 0, &err), MEMFS_EDENIED);
    assert_non_null(strstr(err.msg, "4100000000000"));
}

static void test_T20_escaping_leaves_one_line_that_no_terminal_acts_on(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1024);
    char small[8];

    (void)state;
    escape_add(&out, MEMFS_STR("plain ü 日 \\ \n\r\t\033\x7f\xff\xc0 \u202e \u2028"));
    assert_string_equal(out.ptr, "plain ü 日 \\\\ \\x0A\\x0D\\x09\\x1B\\x7F\\xFF\\xC0 \\xE2\\x80\\xAE "
                                 "\\xE2\\x80\\xA8");
    assert_string_equal(escape_text(MEMFS_STR("1234567"), small, sizeof(small)), "1234567");
    assert_string_equal(escape_text(MEMFS_STR("12345678"), small, sizeof(small)), "1234...");
    assert_string_equal(escape_text(MEMFS_STR("123\n"), small, sizeof(small)), "123\\x0A");
    assert_string_equal(escape_text(MEMFS_STR("12\n45"), small, sizeof(small)), "12...");
    assert_string_equal(escape_text(MEMFS_STR(""), small, sizeof(small)), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_raw_tree_is_read_entry_by_entry),
        cmocka_unit_test(test_a_tree_that_is_cut_or_garbled_is_bad_at_every_byte),
        cmocka_unit_test(test_T11_every_kind_of_entry_is_judged),
        cmocka_unit_test(test_T20_refusals_are_one_clean_line_that_names_the_path),
        cmocka_unit_test(test_T11_long_names_and_paths_are_refused_by_any_policy),
        cmocka_unit_test(test_T11_case_twins_are_refused_unless_they_were_there),
        cmocka_unit_test(test_L1_a_folder_of_a_hundred_thousand_names_is_judged_quickly),
        cmocka_unit_test(test_T14_sizes_have_bounds),
        cmocka_unit_test(test_T11_dates_lie_between_1970_and_2100),
        cmocka_unit_test(test_T20_escaping_leaves_one_line_that_no_terminal_acts_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
