/* The verdicts of the client's pre-commit hook (client 5.1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "memory/precommit.h"

#define GOOD "---\ndescription: d\n---\nbody\n"
#define LOCKED "---\ndescription: d\nread_only: true\n---\nbody\n"

typedef struct row {
    const char *path, *head, *staged; /* NULL: not there */
    const char *rules;                /* joined by spaces */
} row;

static void gather(precommit_rule rule, memfs_str detail, void *ctx)
{
    memfs_buf *rules = ctx;

    (void)detail;
    buf_printf(rules, "%s%s", rules->len > 0 ? " " : "", precommit_rule_name(rule));
}

static precommit_file file_of(const row *r)
{
    return (precommit_file){
        .path = str_of(r->path),
        .has_head = r->head != NULL,
        .head = str_of(r->head),
        .has_staged = r->staged != NULL,
        .staged = str_of(r->staged),
        .head_mode = 0100644,
        .staged_mode = 0100644,
    };
}

static void verdicts_follow_the_table(void **state)
{
    static const row rows[] = {
        { "system/x.md", NULL, GOOD, "" },
        { "memory/reference/a/b.md", NULL, GOOD, "" },
        { "notes.md", NULL, "plain", "" },
        { "system/x.txt", NULL, "plain", "" },
        { "skills/x/SKILL.md", NULL, "plain", "" },
        { "skills/x.md", NULL, GOOD, "skill-path" },
        { "memory/skills/x.md", NULL, GOOD, "skill-path" },
        { "skills/.md", NULL, GOOD, "" },
        { "skills/x.md", GOOD, NULL, "" },
        { "system/x.md", NULL, "", "missing-frontmatter" },
        { "system/x.md", NULL, "plain", "missing-frontmatter" },
        { "system/x.md", NULL, "---\r\ndescription: d\r\n---\r\n", "missing-frontmatter" },
        { "system/x.md", NULL, "---\ndescription: d\n", "unclosed-frontmatter" },
        { "system/x.md", NULL, "---\ndescription: d\n---", "" },
        { "system/x.md", NULL, "---\ndescription: d\n---\r\n", "unclosed-frontmatter" },
        { "system/x.md", LOCKED, GOOD, "read-only-file" },
        { "system/x.md", LOCKED, LOCKED "more", "read-only-file" },
        { "system/x.md", LOCKED, LOCKED, "" }, /* not changed */
        { "system/x.md", LOCKED, NULL, "" },
        { "system/x.md", LOCKED, "plain", "missing-frontmatter" },
        { "system/x.md", NULL, LOCKED, "protected-set" },
        { "system/x.md", GOOD, LOCKED, "protected-changed" },
        { "system/x.md", "---\nread_only: false\n---\n", GOOD, "protected-removed" },
        { "system/x.md", "---\nread_only: 'true'\n---\n", GOOD, "protected-removed" },
        { "system/x.md", "---\nread_only: true\nread_only: true\n---\n", LOCKED,
          "protected-changed" },
        { "system/x.md", "\n\n", LOCKED, "protected-set" },
        { "system/x.md", NULL, "---\ndescription:\n---\n", "description-empty" },
        { "system/x.md", NULL, "---\ndescription:   \n---\n", "description-empty" },
        { "system/x.md", NULL, "---\ndescription: ''\n---\n", "" },
        { "system/x.md", NULL, "---\ndescription\n---\n", "" },
        { "system/x.md", NULL, "---\ndescri ption : d\n---\n", "" },
        { "system/x.md", NULL, "---\nlimit: x\n---\n", "missing-description" },
        { "system/x.md", NULL, "---\n# c\n- a\nmetadata:\n  x: 1\n\ty: 2\ndescription: d\n---\n",
          "unknown-key unknown-key unknown-key" },
        { "system/x.md", NULL, "---\n---\nb", "missing-description" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(buf_dispose) memfs_buf rules = MEMFS_BUF_INIT(4096);
        precommit_file file = file_of(&rows[i]);
        size_t n = precommit_check(&file, gather, &rules);

        if (strcmp(rules.ptr, rows[i].rules) != 0 || (n == 0) != (rules.len == 0))
            fail_msg("row %zu: got '%s', expected '%s'", i, rules.ptr, rows[i].rules);
    }
}

static void a_changed_mode_is_a_change(void **state)
{
    precommit_file file = file_of(&(row){ "system/x.md", LOCKED, LOCKED, NULL });

    (void)state;
    file.staged_mode = 0100755;
    assert_int_equal(precommit_check(&file, NULL, NULL), 1);
}

static void a_file_that_only_moved_is_not_read(void **state)
{
    precommit_file moved = file_of(&(row){ "system/y.md", LOCKED, LOCKED, NULL });
    precommit_file flat = file_of(&(row){ "skills/y.md", LOCKED, LOCKED, NULL });

    (void)state;
    moved.is_rename = flat.is_rename = true;
    assert_int_equal(precommit_check(&moved, NULL, NULL), 0);
    assert_int_equal(precommit_check(&flat, NULL, NULL), 1);
}

static void keep_detail(precommit_rule rule, memfs_str detail, void *ctx)
{
    if (rule == PRECOMMIT_UNKNOWN_KEY)
        buf_add_str(ctx, detail);
}

static void an_unknown_key_is_named(void **state)
{
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(4096);
    precommit_file file =
        file_of(&(row){ "system/x.md", NULL, "---\ndescription: d\nfo o : 1\n---\n", NULL });

    (void)state;
    assert_int_equal(precommit_check(&file, keep_detail, &key), 1);
    assert_string_equal(key.ptr, "foo");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdicts_follow_the_table),
        cmocka_unit_test(a_changed_mode_is_a_change),
        cmocka_unit_test(a_file_that_only_moved_is_not_read),
        cmocka_unit_test(an_unknown_key_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
