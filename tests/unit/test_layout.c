/* The second layout's pre-commit rules (client 5.1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "memory/layout.h"

#include <stdlib.h>

#define GOOD "---\nname: n\ndescription: d\n---\nbody\n"
#define INDEX                                                                                      \
    {                                                                                              \
        "MEMORY.md", "# Memory\n", 0                                                               \
    }

typedef struct item {
    const char *path, *text;
    uint32_t mode; /* 0: 100644 */
} item;

typedef struct row {
    layout_policy policy;
    item items[6];    /* sorted by path */
    const char *said; /* "path: a part of what" lines; "" accepts */
} row;

static void gather(memfs_str path, const char *what, void *ctx)
{
    memfs_buf *said = ctx;

    buf_add_str(said, path);
    buf_printf(said, ": %s\n", what);
}

static size_t judge(const row *r, memfs_buf *said)
{
    layout_limits limits = LAYOUT_LIMITS_INIT;
    layout_file files[ARRAY_LEN(r->items)];
    size_t n = 0;

    for (; n < ARRAY_LEN(r->items) && r->items[n].path != NULL; n++) {
        const item *it = &r->items[n];

        files[n] = (layout_file){ .path = str_of(it->path),
                                  .mode = it->mode != 0 ? it->mode : 0100644,
                                  .text = str_of(it->text) };
        if (strcmp(it->path, ".memfs.config.json") == 0)
            layout_limits_of(files[n].text, &limits);
    }
    return layout_check(r->policy, &limits, files, n, gather, said);
}

/* Each line of `said` must begin as expected and hold the expected words, in order, and no others.
 */
static bool is_as_expected(const char *expected, memfs_str said)
{
    memfs_str want = str_of(expected), want_line, line;

    while (str_split(want, '\n', &want_line, &want)) {
        memfs_str path, words;

        if (!str_split(said, '\n', &line, &said) || !str_split(want_line, ':', &path, &words) ||
            !str_starts_with(line, path) || line.ptr[path.len] != ':')
            return false;
        words = str_from(words, 1);
        if (memmem(line.ptr, line.len, words.ptr, words.len) == NULL)
            return false;
    }
    return said.len == 0;
}

#define ROOT LAYOUT_ROOT_MARKER
#define SHARED LAYOUT_SHARED_MEMORY

static const row ROWS[] = {
    { ROOT, { INDEX, { "notes.md", GOOD, 0 } }, "" },
    { SHARED, { { "README.md", GOOD, 0 }, { "a/b/c/d.md", GOOD, 0 } }, "" },
    /* indexes */
    { ROOT, { { "MEMORY.md", GOOD, 0 } }, "MEMORY.md: remove the lines\n" },
    { ROOT, { { "MEMORY.md", "----\n", 0 } }, "" },
    { ROOT, { { "MEMORY.md", "", 0 } }, "" },
    { SHARED, { { "x/MEMORY.md", "---\n", 0 } }, "x/MEMORY.md: remove the lines\n" },
    /* front matter */
    { SHARED, { { "a.md", "plain\n", 0 } }, "a.md: first line must be exactly '---'\n" },
    { SHARED, { { "a.md", "", 0 } }, "a.md: front matter is missing\n" },
    { SHARED, { { "a.md", "---\r\nname: n\r\n", 0 } }, "a.md: with LF line ends\n" },
    { SHARED, { { "a.md", "\xEF\xBB\xBF" GOOD, 0 } }, "a.md: front matter is missing\n" },
    { SHARED, { { "a.md", "---\nname: n\ndescription: d\n", 0 } }, "a.md: not closed\n" },
    { SHARED, { { "a.md", "---", 0 } }, "a.md: not closed\n" },
    { SHARED, { { "a.md", "---\nname: n\ndescription: d\n---", 0 } }, "" },
    { SHARED, { { "a.md", "---\nname: n\ndescription: d\n--- \n", 0 } }, "a.md: not closed\n" },
    { SHARED,
      { { "a.md", "---\nname: n\n\ndescription: d\nlimit: 1\n---\n", 0 } },
      "a.md: remove the line 'limit'\n" },
    { SHARED,
      { { "a.md", "---\n# c\nname: n\n  description: d\n\tx: y\n---\n", 0 } },
      "a.md: remove the line '# c'\na.md: remove the line '\\x09x'\n" },
    { SHARED,
      { { "a.md", "---\nname: n\nname: m\ndescription: d\n---\n", 0 } },
      "a.md: 'name' is in the front matter twice\n" },
    { SHARED, { { "a.md", "---\nname: n\n---\n", 0 } }, "a.md: lacks 'description'\n" },
    { SHARED, { { "a.md", "---\ndescription: d\n---\n", 0 } }, "a.md: lacks 'name'\n" },
    { SHARED, { { "a.md", "---\n---\n", 0 } }, "a.md: lacks 'name'\na.md: lacks 'description'\n" },
    { SHARED,
      { { "a.md", "---\nname:  \ndescription: \"\"\n---\n", 0 } },
      "a.md: 'name' is empty\na.md: 'description' is empty\n" },
    { SHARED, { { "a.md", "---\nname: ''\ndescription\n---\n", 0 } }, "a.md: 'name' is empty\n" },
    { SHARED, { { "a.md", "---\nname: ' '\ndescription: d\n---\n", 0 } }, "" },
    /* skills */
    { SHARED, { { "skills/x.md", "plain", 0 } }, "skills/x.md: skills/<name>/SKILL.md\n" },
    { ROOT, { INDEX, { "skills/x.md", GOOD, 0 } }, "skills/x.md: skills/<name>/SKILL.md\n" },
    { ROOT,
      { INDEX, { "skills/x/SKILL.md", "plain", 0 }, { "skills/x/y/z/w.md", "", 0120000 } },
      "" },
    { SHARED, { { "a.txt", "plain", 0 }, { "b.MD", "plain", 0 } }, "" },
    /* the tree, root marker only */
    { ROOT, { { "notes.md", GOOD, 0 } }, "MEMORY.md: put MEMORY.md back\n" },
    { ROOT, { INDEX, { "a/x.md", "plain", 0 } }, "a/x.md: add a/MEMORY.md\n" },
    { ROOT,
      { INDEX, { "a/MEMORY.md", "", 0 }, { "a/b/x.md", GOOD, 0 } },
      "a/b/x.md: add a/b/MEMORY.md\n" },
    { ROOT,
      { INDEX, { "a/b/MEMORY.md", "", 0 }, { "a/b/x.md", GOOD, 0 } },
      "a/b/MEMORY.md: add a/MEMORY.md\na/b/x.md: add a/MEMORY.md\n" },
    { ROOT,
      { INDEX,
        { "a/MEMORY.md", "", 0 },
        { "a/b/MEMORY.md", "", 0 },
        { "a/b/c/MEMORY.md", "", 0 },
        { "a/b/c/x.md", GOOD, 0 },
        { "a/x.md", "plain", 0 } },
      "a/x.md: front matter is missing\na/b/c/MEMORY.md: move it up\na/b/c/x.md: 3 folders "
      "deep\n" },
    { ROOT, { INDEX, { "x.md", "MEMORY.md", 0120000 } }, "x.md: commit a regular file\n" },
    { ROOT, { INDEX, { "x.md", "", 0160000 } }, "x.md: commit a regular file\n" },
    { ROOT, { INDEX, { "x.md", GOOD, 0100755 } }, "" },
    { SHARED, { { "x.md", "target", 0120000 } }, "" }, /* no limits, so the client does not look */
    /* the configuration */
    { ROOT,
      { { ".memfs.config.json", "{\"version\":1,\"maxDepth\":0}", 0 },
        INDEX,
        { "a/MEMORY.md", "", 0 } },
      "a/MEMORY.md: 0 are allowed\n" },
    { SHARED,
      { { ".memfs.config.json", "{\"version\":1,\"maxDepth\":0}", 0 }, { "a/x.md", GOOD, 0 } },
      "a/x.md: 0 are allowed\n" },
    { SHARED,
      { { ".memfs.config.json", "{\"version\":1}", 0 }, { "x.md", "", 0120000 } },
      "x.md: commit a regular file\n" },
    { SHARED,
      { { ".memfs.config.json", "{\"version\":1,\"maxFileCharacters\":36}", 0 },
        { "a.md", GOOD, 0 },
        { "b.md", GOOD "\xC3\xA4", 0 } },
      "b.md: it has 37 characters, 36 are allowed ('maxFileCharacters')\n" },
    { ROOT,
      { { ".memfs.config.json", "{\"version\":1,\"maxCoreMemoryCharacters\":44.0}", 0 },
        INDEX,
        { "a.md", GOOD, 0 } },
      "*.md: 45 characters together, 44 are allowed\n" },
    { ROOT,
      { { ".memfs.config.json", "{\"version\":1,\"maxCoreMemoryCharacters\":45}", 0 },
        INDEX,
        { "a.md", GOOD, 0 },
        { "b/MEMORY.md", "xxx", 0 } },
      "" },
    { SHARED,
      { { ".memfs.config.json",
          "{\"version\":1,\"maxFileCharacters\":1,"
          "\"fileCharacterLimits\":[{\"pattern\":\"big/**\",\"maxCharacters\":null},"
          "{\"pattern\":\"*.md\",\"maxCharacters\":30}]}",
          0 },
        { "a.md", GOOD, 0 },
        { "big/a/b.md", GOOD, 0 },
        { "small/c.md", GOOD, 0 } },
      "a.md: 30 are allowed ('*.md')\nsmall/c.md: 1 are allowed ('maxFileCharacters')\n" },
    { SHARED,
      { { ".memfs.config.json", "{", 0 }, { "x.md", "", 0120000 } },
      ".memfs.config.json: not a JSON object\n" },
    { SHARED, { { ".memfs.config.json", "[]", 0 } }, ".memfs.config.json: not a JSON object\n" },
    { SHARED, { { ".memfs.config.json", "x", 0120000 } }, ".memfs.config.json: regular file\n" },
    { SHARED,
      { { ".memfs.config.json",
          "{\"version\":2,\"maxDepth\":-1,\"maxFileCharacters\":0,"
          "\"maxCoreMemoryCharacters\":\"1\",\"fileCharacterLimits\":{},\"x\":1}",
          0 } },
      ".memfs.config.json: unknown field 'x'\n.memfs.config.json: 'version' must be 1\n"
      ".memfs.config.json: 'maxDepth'\n.memfs.config.json: 'maxFileCharacters'\n"
      ".memfs.config.json: 'maxCoreMemoryCharacters'\n"
      ".memfs.config.json: 'fileCharacterLimits' must be a list\n" },
    { SHARED,
      { { ".memfs.config.json",
          "{\"version\":1,\"fileCharacterLimits\":[1,{\"pattern\":\"/a\",\"maxCharacters\":1},"
          "{\"pattern\":\"a/../b\",\"maxCharacters\":1},{\"pattern\":\"a**\","
          "\"maxCharacters\":1},{\"pattern\":\"a\",\"maxCharacters\":0},"
          "{\"pattern\":\"a\"},{\"pattern\":\"a\",\"maxCharacters\":1,\"y\":0}]}",
          0 } },
      ".memfs.config.json: fileCharacterLimits[0] must be an object\n"
      ".memfs.config.json: fileCharacterLimits[1]: 'pattern'\n"
      ".memfs.config.json: fileCharacterLimits[2]: 'pattern'\n"
      ".memfs.config.json: fileCharacterLimits[3]: 'pattern'\n"
      ".memfs.config.json: fileCharacterLimits[4]: 'maxCharacters'\n"
      ".memfs.config.json: fileCharacterLimits[5]: 'maxCharacters'\n"
      ".memfs.config.json: unknown field 'y'\n" },
    /* the first layout: limits for system/ and reference/, where the configuration sets them */
    { LAYOUT_LEGACY, { { "system/a/b/c/d.md", "plain", 0 } }, "" },
    { LAYOUT_LEGACY,
      { { ".memfs.config.json", "{\"version\":1,\"maxDepth\":1}", 0 },
        { "a/b/c.md", "plain", 0 },
        { "memory/reference/x/y.md", "plain", 0 },
        { "system/x.md", "plain", 0 } },
      "memory/reference/x/y.md: 3 folders deep\n" },
};

static void verdicts_follow_the_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ROWS); i++) {
        _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(65536);
        size_t n = judge(&ROWS[i], &said);

        if (!is_as_expected(ROWS[i].said, buf_str(&said)) || (n == 0) != (said.len == 0))
            fail_msg("row %zu (%s): %zu:\n%s", i, ROWS[i].said, n, said.ptr);
    }
}

static char *text_of_chars(size_t n)
{
    memfs_buf b = MEMFS_BUF_INIT(1 << 20);

    buf_puts(&b, "---\nname: n\ndescription: d\n---\n"); /* 32 */
    while (b.len < n)
        buf_putc(&b, 'x');
    return buf_take(&b, &n);
}

static void the_defaults_are_those_of_the_client(void **state)
{
    _cleanup_(mem_freep) char *fits = text_of_chars(20000), *too_long = text_of_chars(20001);
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(65536);
    row r = { ROOT,
              { INDEX, { "a.md", fits, 0 }, { "b.md", too_long, 0 } },
              "b.md: it has 20001 characters, 20000 are allowed\n" };

    (void)state;
    judge(&r, &said);
    assert_true(is_as_expected(r.said, buf_str(&said)));
    buf_clear(&said);
    r = (row){ ROOT,
               { INDEX,
                 { "a.md", fits, 0 },
                 { "b.md", fits, 0 },
                 { "c.md", fits, 0 },
                 { "d.md", fits, 0 } },
               "*.md: 80009 characters together, 65536 are allowed\n" };
    judge(&r, &said);
    assert_true(is_as_expected(r.said, buf_str(&said)));
}

static void an_old_flat_skill_is_let_be(void **state)
{
    layout_limits limits = LAYOUT_LIMITS_INIT;
    layout_file file = { .path = MEMFS_STR("skills/x.md"), .mode = 0100644, .is_unchanged = true };

    (void)state;
    assert_int_equal(layout_check(SHARED, &limits, &file, 1, NULL, NULL), 0);
    file.is_unchanged = false;
    assert_int_equal(layout_check(SHARED, &limits, &file, 1, NULL, NULL), 1);
}

static void globs_fit_as_the_client_has_it(void **state)
{
    static const struct {
        const char *pattern, *path;
        bool fits;
    } rows[] = {
        { "a.md", "a.md", true },        { "a.md", "aXmd", false },
        { "*.md", "a.md", true },        { "*.md", "x/a.md", false },
        { "**/*.md", "a.md", true },     { "**/*.md", "x/y/a.md", true },
        { "x/**", "x/y/a.md", true },    { "x/**", "y/x/a.md", false },
        { "x/**/z.md", "x/z.md", true }, { "x/**/z.md", "x/a/b/z.md", true },
        { "x/**/z.md", "xz.md", false }, { "?.md", "\xC3\xA4.md", true },
        { "?.md", "ab.md", false },      { "a?b.md", "a/b.md", false },
        { "**", "x/y.md", true },        { "*a*a*a*.md", "aaaaaaaaaaaaaaaaaaaaaaaab.md", true },
        { "[ab].md", "a.md", false },    { "a*", "a", false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(65536);
        _cleanup_(mem_freep) char *config =
            mem_printf("{\"version\":1,\"fileCharacterLimits\":[{\"pattern\":\"%s\","
                       "\"maxCharacters\":1}]}",
                       rows[i].pattern);
        row r = { SHARED, { { ".memfs.config.json", config, 0 }, { rows[i].path, GOOD, 0 } }, "" };

        if ((judge(&r, &said) > 0) !=
            (rows[i].fits && str_ends_with(str_of(rows[i].path), MEMFS_STR(".md"))))
            fail_msg("'%s' and '%s': %s", rows[i].pattern, rows[i].path, said.ptr);
    }
}

static void policies_are_read_from_their_file(void **state)
{
    (void)state;
    assert_int_equal(layout_policy_of(MEMFS_STR(""), true), LAYOUT_LEGACY);
    assert_int_equal(layout_policy_of(MEMFS_STR("legacy-only\n"), true), LAYOUT_LEGACY);
    assert_int_equal(layout_policy_of(MEMFS_STR("root-marker\n"), true), LAYOUT_ROOT_MARKER);
    assert_int_equal(layout_policy_of(MEMFS_STR("root-marker\n"), false), LAYOUT_LEGACY);
    assert_int_equal(layout_policy_of(MEMFS_STR(" shared-memory"), false), LAYOUT_SHARED_MEMORY);
    assert_int_equal(layout_policy_of(MEMFS_STR("Shared-memory"), false), LAYOUT_LEGACY);
}

static void limits_keep_their_defaults_where_the_config_is_no_good(void **state)
{
    static const char *const texts[] = { "",
                                         "{",
                                         "[1]",
                                         "{\"maxDepth\":\"7\"}",
                                         "{\"maxDepth\":-1}",
                                         "{\"maxDepth\":1.5,\"maxFileCharacters\":0}",
                                         "\xFF" };
    layout_limits limits = LAYOUT_LIMITS_INIT;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        layout_limits_of(str_of(texts[i]), &limits);
        assert_int_equal(limits.max_depth, 2);
        assert_int_equal(limits.max_file_chars, 20000);
        assert_int_equal(limits.max_root_chars, 65536);
    }
    layout_limits_of(MEMFS_STR("{\"maxDepth\":0,\"maxFileCharacters\":9007199254740991}"), &limits);
    assert_int_equal(limits.max_depth, 0);
    assert_int_equal(limits.max_file_chars, 9007199254740991);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdicts_follow_the_table),
        cmocka_unit_test(the_defaults_are_those_of_the_client),
        cmocka_unit_test(an_old_flat_skill_is_let_be),
        cmocka_unit_test(globs_fit_as_the_client_has_it),
        cmocka_unit_test(policies_are_read_from_their_file),
        cmocka_unit_test(limits_keep_their_defaults_where_the_config_is_no_good),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
