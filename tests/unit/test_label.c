/* Labels and paths (block-format 6). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "memory/label.h"

static void paths_become_labels(void **state)
{
    static const struct {
        const char *path, *prefixes, *label; /* NULL: no block */
    } cases[] = {
        { "system/human.md", "", "system/human" },
        { "README.md", "", "README" },
        { "reference/a/b.md", "", "reference/a/b" },
        { ".letta/x.md", "", ".letta/x" },
        { ".md", "", "" },
        { "a/.md", "", "a/" },
        { "persona.md.md", "", "persona.md" },
        { "caf\xC3\xA9.md", "", "caf\xC3\xA9" },
        { "README.MD", "", NULL },
        { "a.txt", "", NULL },
        { "md", "", NULL },
        { "", "", NULL },
        { "skills/x/SKILL.md", "", "skills/x" },
        { "skills/x/SKILL.md", "system/", "skills/x" },
        { "skills//SKILL.md", "", NULL },
        { "skills/SKILL.md", "", NULL },
        { "skills/a/b/SKILL.md", "", NULL },
        { "skills/x/skill.md", "", NULL },
        { "skills/x.md", "", NULL },
        { "skills/x.md", "skills/", NULL },
        { "skill/x.md", "", "skill/x" },
        { "persona.md", "system/", NULL },
        { "system/x.md", "system/", "system/x" },
        { "systemic/x.md", "system", "systemic/x" },
        { "users/x.md", "system/, users/ ,,", "users/x" },
        { "users/x.md", "\xE3\x80\x80users/\xC2\xA0", "users/x" },
        { "users/x.md", "\xE2\x80\x8Busers/", NULL }, /* U+200B is no white space */
        { "persona.md", " , \t,", "persona" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memfs_str label;
        bool is_block = label_of_path(str_of(cases[i].path), str_of(cases[i].prefixes), &label);

        if (is_block != (cases[i].label != NULL) ||
            (is_block && !str_equal(label, str_of(cases[i].label))))
            fail_msg("'%s' under '%s' became %.*s", cases[i].path, cases[i].prefixes,
                     is_block ? (int)label.len : 4, is_block ? label.ptr : "none");
    }
}

static void labels_become_paths(void **state)
{
    static const struct {
        const char *label, *path;
    } cases[] = {
        { "system/human", "system/human.md" }, { "/system/human", "system/human.md" },
        { "skills/x", "skills/x/SKILL.md" },   { "skills/a/b", "skills/a/b.md" },
        { "skills/", "skills/.md" },           { "", ".md" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(1024);

        label_to_path(str_of(cases[i].label), &path);
        assert_string_equal(path.ptr, cases[i].path);
    }
}

/* K1: what is written under a label is read back as that label. */
static void test_K1_a_path_leads_back_to_its_label(void **state)
{
    static const char *const labels[] = { "system/human", "skills/x",        "skills/\xC3\xA9",
                                          "a b",          "reference/a/b/c", "x.md" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(labels); i++) {
        _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(1024);
        memfs_str label;

        label_to_path(str_of(labels[i]), &path);
        assert_true(label_of_path(buf_str(&path), str_of(""), &label));
        assert_true(str_equal(label, str_of(labels[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_become_labels),
        cmocka_unit_test(labels_become_paths),
        cmocka_unit_test(test_K1_a_path_leads_back_to_its_label),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
