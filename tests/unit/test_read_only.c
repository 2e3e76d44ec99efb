/*
 * What an agent's push may not do to files that say read_only: true (design 14).
 */
#include "sync_fixture.h"

#include "sync/read_only.h"

#define LOCKED "---\ndescription: who you are\nread_only: true\n---\nKind.\n"

static void test_what_says_read_only(void **state)
{
    static const struct {
        const char *text;
        bool is_read_only;
    } rows[] = {
        { LOCKED, true },
        { "---\nread_only: true\n---\n", true },
        { "---\nread_only: yes\n---\nv\n", true },          /* YAML 1.1, as the API shows it */
        { "---\r\nread_only: true\r\n---\r\nv\r\n", true }, /* the same */
        { "---\n\"read_only\": True\n---\nv\n", true },
        { "---\ndescription: a: b\nread_only: true\n---\nv\n", true }, /* no YAML; the client's eyes */
        { "---\nread_only: true\n---\n\xff\n", true },                 /* no UTF-8 */
        { "---\nread_only: false\n---\nv\n", false },
        { "---\nread_only: 'true'\n---\nv\n", false },
        { "---\nread_only:\n---\nv\n", false },
        { "---\nmetadata:\n  read_only: true\n---\nv\n", false },
        { "---\ndescription: d\n---\nread_only: true\n", false },
        { "read_only: true\n", false },
        { "a note\nread_only: true\n---\n", false },
        { "---\n", false },
        { "", false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (read_only_says(str_of(rows[i].text)) != rows[i].is_read_only)
            fail_msg("row %zu: %s", i, rows[i].text);
}

typedef struct hex {
    char text[MEMFS_OID_HEX + 1];
} hex;

static hex git_hex(memfs_oid id)
{
    hex ret;

    oid_hex(&id, ret.text);
    return ret;
}

/* Pushed by a person: one locked file, one that is free, one that is no memory. */
static memfs_oid begin_memory(fixture *f)
{
    put_file(f->work, "system/persona.md", MEMFS_STR(LOCKED));
    put_file(f->work, "system/human.md", MEMFS_STR("---\ndescription: d\n---\nLikes tea.\n"));
    put_file(f->work, "notes.txt", MEMFS_STR(LOCKED));
    return push_work(f, ID_A);
}

/* The tip stays, and the words name the file and what to do. */
static void assert_refused(fixture *f, memfs_oid tip, const push_verdict *v, const char *path)
{
    char text[128];
    memfs_oid now = tip_of(f, ID_A);

    assert_true(v->unpacked);
    assert_false(v->moved);
    assert_int_equal(v->code, MEMFS_EDENIED);
    assert_true(oid_equal(&now, &tip));
    snprintf(text, sizeof(text), "'%s' is read_only: put it back with 'git checkout %.10s -- FILE'",
             path, git_hex(tip).text);
    if (strstr(v->refusal, text) == NULL)
        fail_msg("'%s' is not in: %s", text, v->refusal);
    assert_non_null(strstr(v->refusal, "push again"));
}

typedef void (*change_fn)(fixture *f);

static void rewrite(fixture *f)
{
    put_file(f->work, "system/persona.md", MEMFS_STR("---\ndescription: me\n---\nCruel.\n"));
}

static void unlock(fixture *f)
{
    put_file(f->work, "system/persona.md",
             MEMFS_STR("---\ndescription: who you are\n---\nKind.\n"));
}

static void drop(fixture *f)
{
    drop_file(f->work, "system/persona.md");
}

static void rename_it(fixture *f)
{
    git(f->work, "mv", "system/persona.md", "system/self.md");
}

static void become_a_folder(fixture *f)
{
    drop_file(f->work, "system/persona.md");
    put_file(f->work, "system/persona.md/x.md", MEMFS_STR("x\n"));
}

static void change_mode(fixture *f)
{
    git(f->work, "update-index", "--chmod=+x", "system/persona.md");
    git(f->work, "commit", "-q", "-m", "mode");
    git(f->work, "reset", "-q", "--hard");
}

static void test_an_agent_cannot_change_what_is_read_only(void **state)
{
    static const change_fn ways[] = { rewrite, unlock, drop, rename_it, become_a_folder,
                                      change_mode };
    fixture *f = *state;
    memfs_oid tip = begin_memory(f);

    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        push_verdict v;
        memfs_oid new;

        git(f->work, "reset", "-q", "--hard", "HEAD");
        git(f->work, "checkout", "-q", "--detach", git_hex(tip).text);
        ways[i](f);
        put_file(f->work, "system/human.md", MEMFS_STR("Likes coffee.\n"));
        new = commit_all(f->work, "change");
        v = try_push_as(f, ID_A, PUSH_READ_ONLY_MUST_NOT, tip, new);
        assert_refused(f, tip, &v, "system/persona.md");
        assert_non_null(strstr(f->talk.ptr, ways[i] == drop ? "is read_only and was deleted"
                                                            : "is read_only and was "));
    }
}

static void test_the_refused_one_does_what_it_is_told_and_gets_through(void **state)
{
    fixture *f = *state;
    memfs_oid tip = begin_memory(f), new;
    push_verdict v;

    rewrite(f);
    put_file(f->work, "system/human.md", MEMFS_STR("Likes coffee.\n"));
    new = commit_all(f->work, "both");
    v = try_push_as(f, ID_A, PUSH_READ_ONLY_MUST_NOT, tip, new);
    assert_refused(f, tip, &v, "system/persona.md");
    git(f->work, "checkout", "-q", git_hex(tip).text, "--", "system/persona.md");
    new = commit_all(f->work, "put back");
    v = try_push_as(f, ID_A, PUSH_READ_ONLY_MUST_NOT, tip, new);
    assert_true(v.moved);
    assert_int_equal(f->talk.len, 0);
}

static void test_all_else_is_the_agents(void **state)
{
    fixture *f = *state;
    memfs_oid tip = begin_memory(f), new;

    put_file(f->work, "system/human.md", MEMFS_STR(LOCKED)); /* it may lock, and is then locked out */
    put_file(f->work, "notes.txt", MEMFS_STR("not a memory\n"));
    put_file(f->work, "system/new.md", MEMFS_STR(LOCKED));
    new = commit_all(f->work, "change");
    assert_true(try_push_as(f, ID_A, PUSH_READ_ONLY_MUST_NOT, tip, new).moved);
    tip = new;
    put_file(f->work, "system/human.md", MEMFS_STR("Likes coffee.\n"));
    new = commit_all(f->work, "change");
    assert_false(try_push_as(f, ID_A, PUSH_READ_ONLY_MUST_NOT, tip, new).moved);
}

static void test_a_first_push_has_nothing_that_is_read_only(void **state)
{
    fixture *f = *state;
    memfs_oid new;

    put_file(f->work, "system/persona.md", MEMFS_STR(LOCKED));
    new = commit_all(f->work, "first");
    assert_true(try_push_as(f, ID_A, PUSH_READ_ONLY_MUST_NOT, STORE_GENESIS, new).moved);
}

static void test_a_person_may_and_is_told_nothing(void **state)
{
    fixture *f = *state;

    begin_memory(f);
    rewrite(f);
    push_work(f, ID_A);
    assert_int_equal(f->talk.len, 0);
}

static void test_without_tokens_it_is_a_warning(void **state)
{
    fixture *f = *state;
    memfs_oid tip = begin_memory(f), new;

    rewrite(f);
    new = commit_all(f->work, "change");
    assert_true(try_push_as(f, ID_A, PUSH_READ_ONLY_WARN, tip, new).moved);
    assert_string_equal(f->talk.ptr, "warning: 'system/persona.md' is read_only and was changed; an "
                                     "agent's token may not do that\n");
}

static void test_many_files_are_named_and_then_counted(void **state)
{
    fixture *f = *state;
    memfs_oid tip, new;
    push_verdict v;

    for (int i = 0; i < 25; i++) {
        char path[32];

        snprintf(path, sizeof(path), "system/%02d.md", i);
        put_file(f->work, path, MEMFS_STR(LOCKED));
    }
    tip = push_work(f, ID_A);
    drop_file(f->work, "system");
    new = commit_all(f->work, "none left");
    v = try_push_as(f, ID_A, PUSH_READ_ONLY_MUST_NOT, tip, new);
    assert_refused(f, tip, &v, "system/00.md");
    assert_non_null(strstr(f->talk.ptr, "'system/19.md' is read_only and was deleted\n"));
    assert_null(strstr(f->talk.ptr, "system/20.md"));
    assert_non_null(strstr(f->talk.ptr, "and 5 more files that are read_only\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_says_read_only),
        SYNC_TEST(test_an_agent_cannot_change_what_is_read_only),
        SYNC_TEST(test_the_refused_one_does_what_it_is_told_and_gets_through),
        SYNC_TEST(test_all_else_is_the_agents),
        SYNC_TEST(test_a_first_push_has_nothing_that_is_read_only),
        SYNC_TEST(test_a_person_may_and_is_told_nothing),
        SYNC_TEST(test_without_tokens_it_is_a_warning),
        SYNC_TEST(test_many_files_are_named_and_then_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
