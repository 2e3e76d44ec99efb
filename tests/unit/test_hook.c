/*
 * memfs-hook, as far as it is pure: what git-remote-memfs may be asked for, whose hook a text is,
 * and what is read from git's files without git.
 */
#include "hook/hook.h"

#include "base/fs.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#define AGENT "agent-01234567-89ab-4cde-8f01-23456789abcd"
#define LOCAL "agent-local-01234567-89ab-4cde-8f01-23456789abcd"

static void memories_and_mounts_are_told_apart(void **state)
{
    static const struct {
        const char *url, *agent, *repository;
    } ROWS[] = {
        { AGENT "/state.git", AGENT, "" },
        { AGENT "/state.git/", AGENT, "" },
        { LOCAL "/state.git", LOCAL, "" },
        { AGENT "/repositories/team.git", AGENT, "team" },
        { AGENT "/repositories/te%61m.notes_1-2.git", AGENT, "team.notes_1-2" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ROWS); i++) {
        remote_name name;

        assert_true(remote_name_parse(str_of(ROWS[i].url), &name));
        assert_string_equal(name.agent, ROWS[i].agent);
        assert_string_equal(name.repository, ROWS[i].repository);
    }
}

/* T01: the answer becomes a path, so whatever could lead elsewhere is no name at all. */
static void T01_nothing_else_is_a_name(void **state)
{
    static const char *const ROWS[] = {
        "",
        "/",
        "state.git",
        AGENT,
        AGENT "/",
        AGENT "/state",
        AGENT "//state.git",
        AGENT "/state.git//",
        AGENT "/state.git/x",
        AGENT "/../state.git",
        "../" AGENT "/state.git",
        "agent-01234567-89AB-4cde-8f01-23456789abcd/state.git",
        "agent-01234567-89ab-1cde-8f01-23456789abcd/state.git",
        "agent-01234567-89ab-4cde-cf01-23456789abcd/state.git",
        "agent-01234567-89ab-4cde-8f01-23456789abcd0/state.git",
        "agent-01234567-89ab-4cde-8f01-23456789abc/state.git",
        "agent-local-local-01234567-89ab-4cde-8f01-23456789abcd/state.git",
        "agent-..%2f..%2f..%2fetc-passwd-aaaa-bbbb-cccc/state.git",
        "--upload-pack=x/state.git",
        AGENT "/repositories/.git",
        AGENT "/repositories/..git",
        AGENT "/repositories/%2e.git",
        AGENT "/repositories/...git",
        AGENT "/repositories/%2e%2e.git",
        AGENT "/repositories/a%2fb.git",
        AGENT "/repositories/a/b.git",
        AGENT "/repositories/a%00.git",
        AGENT "/repositories/%.git",
        AGENT "/repositories/a%2.git",
        AGENT "/repositories/a%zz.git",
        AGENT "/repositories/a b.git",
        AGENT "/repositories/a\nb.git",
        AGENT "/repositories/-o.git",
        AGENT "/repositories/MEMORY.git",
        AGENT "/repositories/memory-worktrees.git",
        AGENT "/repositories/memory-backup-1.git",
        AGENT "/repositories/memory.checkout-x.git",
        AGENT "/repositories/x.lock.git",
        AGENT "/repositories/x.git.git",
        AGENT "/repositories/team",
        AGENT "/repositories/\xc3\xa4.git",
        AGENT "/repositories/"
              "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.git", /* 65 */
        "https://host/v1/git/" AGENT "/state.git",
    };
    remote_name name;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ROWS); i++)
        if (remote_name_parse(str_of(ROWS[i]), &name))
            fail_msg("'%s' was taken for a name", ROWS[i]);
}

static void lettas_hooks_are_known_by_their_mark(void **state)
{
    (void)state;
    assert_true(chain_is_lettas(MEMFS_STR("#!/usr/bin/env bash\n"
                                          "# Validate frontmatter in staged memory .md files\n"
                                          "# Installed by Letta Code CLI\n\nerrors=\"\"\n")));
    assert_true(chain_is_lettas(MEMFS_STR(
        "#!/usr/bin/env bash\n# Letta Code: push memfs commits to the configured "
        "memory-repository remote.\n# Installed by Letta Code CLI. Do not edit by hand\n")));
    assert_false(chain_is_lettas(MEMFS_STR("#!/bin/sh\n# my own\nexec true\n")));
    assert_false(chain_is_lettas(MEMFS_STR("#!/bin/sh\necho '# Installed by Letta Code CLI'\n")));
    assert_false(chain_is_lettas(MEMFS_STR("")));
}

/* git-config(1), "Syntax"; ours is [memfs-checkout] hooksPath, and what git says to it. */
static void a_value_is_found_as_git_finds_it(void **state)
{
    static const struct {
        const char *text, *value; /* NULL: none */
    } ROWS[] = {
        { "", NULL },
        { "[memfs-checkout]\n\thooksPath = /a/b\n", "/a/b" },
        { "[core]\n\tbare = false\n[memfs-checkout]\n\torigin = x\n\thooksPath = /a", "/a" },
        { "[MEMFS-Checkout] HOOKSPATH=/a\n", "/a" },
        { "[memfs-checkout]\nhooksPath = /a\nhooksPath = /b\n", "/b" },
        { "[memfs-checkout]\nhooksPath = /a\n[core]\nhooksPath = /b\n", "/a" },
        { "[core]\nhooksPath = /b\n", NULL },
        { "[memfs-checkout \"x\"]\nhooksPath = /b\n", NULL },
        { "[x \"]\"]\n[memfs-checkout]\nhooksPath = /b\n", "/b" },
        { "[x \"a\\\"b]\"]\nhooksPath = 1\n[memfs-checkout]\nhooksPath = /b\n", "/b" },
        { "[memfs-checkout]\nhooksPathX = /b\nxhooksPath = /c\n", NULL },
        { "[memfs-checkout]\n; hooksPath = /b\n# hooksPath = /c\n", NULL },
        { "[memfs-checkout]\nother = \\\nhooksPath = /b\n", NULL },
        { "[memfs-checkout]\nother = \"\nhooksPath = /b\n", "/b" },
        { "[memfs-checkout]\nhooksPath = /a b  # c\n", "/a b" },
        { "[memfs-checkout]\nhooksPath = /a\t ; c\n", "/a" },
        { "[memfs-checkout]\nhooksPath = \"/a # ; \" \n", "/a # ; " },
        { "[memfs-checkout]\nhooksPath = \"/a \\\"b\\\" \\\\ c\"\n", "/a \"b\" \\ c" },
        { "[memfs-checkout]\nhooksPath = /a\\\n/b\n", "/a/b" },
        { "[memfs-checkout]\r\nhooksPath = /a\r\n", "/a" },
        { "[memfs-checkout]\nhooksPath =\n", "" },
        { "[memfs-checkout]\nhooksPath\n", "" },
        { "[memfs-checkout", NULL },
        { "[memfs-checkout]\nhooksPath = \"", "" },
        { "[memfs-checkout]\nhooksPath = \\", "\\" },
        { "[\"", NULL },
        { "[\"\\", NULL },
        { "=\n]\n[memfs-checkout]hooksPath=/a", "/a" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ROWS); i++) {
        /* exactly its bytes: a step past the end is seen by the sanitizer */
        size_t n = strlen(ROWS[i].text);
        char *bytes = memcpy(mem_alloc(n + 1), ROWS[i].text, n);
        char *exact = realloc(bytes, n > 0 ? n : 1);
        char *found = config_find(str_make(exact, n), "memfs-checkout", "hooksPath");

        if (found == NULL || ROWS[i].value == NULL) {
            if (found != NULL || ROWS[i].value != NULL)
                fail_msg("row %zu: %s", i, found != NULL ? found : "nothing");
        } else {
            assert_string_equal(found, ROWS[i].value);
        }
        free(found);
        free(exact);
    }
}

/* a folder with loose commits, written by hand */

typedef struct fixture {
    char path[64];
} fixture;

static int set_up(void **state)
{
    fixture *f = mem_alloc(sizeof(*f));
    char objects[128];
    memfs_error e;

    snprintf(f->path, sizeof(f->path), "/tmp/memfs-hook-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    snprintf(objects, sizeof(objects), "%s/objects", f->path);
    assert_int_equal(fs_mkdirs(objects, &e), MEMFS_OK);
    unsetenv("GIT_OBJECT_DIRECTORY");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    memfs_error e;

    assert_int_equal(fs_remove_tree(f->path, &e), MEMFS_OK);
    free(f);
    return 0;
}

static void put(const fixture *f, const char *name, const void *bytes, size_t n)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", f->path, name);
    _cleanup_(mem_freep) char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    memfs_error e;

    assert_int_equal(fs_mkdirs(folder, &e), MEMFS_OK);
    assert_int_equal(fs_write_atomic(path, str_make(bytes, n), 0644, &e), MEMFS_OK);
}

static memfs_oid numbered(unsigned n)
{
    memfs_oid id = { { 0xab } };

    id.id[18] = (uint8_t)(n >> 8);
    id.id[19] = (uint8_t)n;
    return id;
}

/* Nobody here checks that an object's name is its hash. */
static void commit(const fixture *f, unsigned n, const unsigned *parents, size_t n_parents)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64 * 1024);
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(64 * 1024);
    _cleanup_(mem_freep) char *name = NULL;
    char hex[MEMFS_OID_HEX + 1];
    unsigned char packed[65536];
    uLongf size = sizeof(packed);
    memfs_oid id;

    buf_puts(&body, "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n");
    for (size_t i = 0; i < n_parents; i++) {
        id = numbered(parents[i]);
        oid_hex(&id, hex);
        buf_printf(&body, "parent %s\n", hex);
    }
    /* what the message says is nobody's parent */
    id = numbered(9999);
    oid_hex(&id, hex);
    buf_printf(&body, "author A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\nparent %s\n", hex);
    buf_printf(&text, "commit %zu", body.len);
    buf_putc(&text, '\0');
    buf_add(&text, body.ptr, body.len);
    assert_int_equal(compress(packed, &size, (const Bytef *)text.ptr, text.len), Z_OK);
    id = numbered(n);
    oid_hex(&id, hex);
    name = mem_printf("objects/%.2s/%s", hex, hex + 2);
    put(f, name, packed, size);
}

static bool reaches(const fixture *f, unsigned from, unsigned target)
{
    memfs_oid a = numbered(from), b = numbered(target);

    return refs_reaches(f->path, &a, &b);
}

static void a_loose_history_is_walked_but_not_far(void **state)
{
    fixture *f = *state;

    commit(f, 0, NULL, 0);
    for (unsigned n = 1; n <= 40; n++)
        commit(f, n, (unsigned[]){ n - 1 }, 1);
    assert_true(reaches(f, 5, 5));
    assert_true(reaches(f, 40, 39));
    assert_true(reaches(f, 40, 40 - REFS_WALK));
    assert_false(reaches(f, 40, 40 - REFS_WALK - 1)); /* kept rather than judged */
    assert_false(reaches(f, 39, 40));
    assert_false(reaches(f, 3, 9999));
    assert_false(reaches(f, 777, 3)); /* not loose */
}

static void both_sides_of_a_merge_count(void **state)
{
    fixture *f = *state;

    commit(f, 1, NULL, 0);
    commit(f, 2, (unsigned[]){ 1 }, 1);
    commit(f, 3, (unsigned[]){ 1 }, 1);
    commit(f, 4, (unsigned[]){ 2, 3 }, 2);
    assert_true(reaches(f, 4, 2));
    assert_true(reaches(f, 4, 3));
    assert_true(reaches(f, 4, 1));
    assert_false(reaches(f, 2, 3));
}

static void what_is_damaged_reaches_nothing(void **state)
{
    fixture *f = *state;
    memfs_oid id = numbered(1);
    char hex[MEMFS_OID_HEX + 1];
    _cleanup_(mem_freep) char *name = NULL;

    oid_hex(&id, hex);
    name = mem_printf("objects/%.2s/%s", hex, hex + 2);
    put(f, name, "no zlib at all", 14);
    assert_false(reaches(f, 1, 2));
    put(f, name, "", 0);
    assert_false(reaches(f, 1, 2));
}

static void refs_are_read_loose_before_packed(void **state)
{
    static const char packed[] = "# pack-refs with: peeled fully-peeled sorted \n"
                                 "1111111111111111111111111111111111111111 refs/heads/main\n"
                                 "2222222222222222222222222222222222222222 refs/heads/main2\n"
                                 "3333333333333333333333333333333333333333 refs/tags/t\n"
                                 "^4444444444444444444444444444444444444444\n";
    fixture *f = *state;
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid id;

    put(f, "packed-refs", packed, sizeof(packed) - 1);
    assert_int_equal(refs_read(f->path, "refs/heads/main", &id), REF_PACKED);
    oid_hex(&id, hex);
    assert_string_equal(hex, "1111111111111111111111111111111111111111");
    assert_int_equal(refs_read(f->path, "refs/heads/main2", &id), REF_PACKED);
    assert_int_equal(id.id[0], 0x22);
    assert_int_equal(refs_read(f->path, "refs/heads/mai", &id), REF_ABSENT);
    put(f, "refs/heads/main", "5555555555555555555555555555555555555555\n", 41);
    assert_int_equal(refs_read(f->path, "refs/heads/main", &id), REF_LOOSE);
    assert_int_equal(id.id[0], 0x55);
    assert_true(refs_read_packed(f->path, "refs/heads/main", &id));
    assert_int_equal(id.id[0], 0x11);
    put(f, "refs/heads/alias", "ref: refs/heads/main\n", 21);
    assert_int_equal(refs_read(f->path, "refs/heads/alias", &id), REF_ABSENT);
    /* SHA-256: not ours to judge */
    put(f, "refs/heads/wide", "5555555555555555555555555555555555555555555555555555555555555555\n",
        65);
    assert_int_equal(refs_read(f->path, "refs/heads/wide", &id), REF_ABSENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memories_and_mounts_are_told_apart),
        cmocka_unit_test(T01_nothing_else_is_a_name),
        cmocka_unit_test(lettas_hooks_are_known_by_their_mark),
        cmocka_unit_test(a_value_is_found_as_git_finds_it),
        cmocka_unit_test_setup_teardown(a_loose_history_is_walked_but_not_far, set_up, tear_down),
        cmocka_unit_test_setup_teardown(both_sides_of_a_merge_count, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_damaged_reaches_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refs_are_read_loose_before_packed, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
