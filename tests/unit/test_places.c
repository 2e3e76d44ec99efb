/*
 * Where agents' memories lie: API agents, agents of the local backend, and neither.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/places.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define A1 "agent-11111111-1111-4111-8111-111111111111"
#define A2 "agent-22222222-2222-4222-8222-222222222222"
#define L1 "agent-local-33333333-3333-4333-8333-333333333333"

typedef struct fixture {
    char home[64];
    settings *s;
} fixture;

static int set_up(void **state)
{
    fixture *f = mem_alloc(sizeof(*f));
    memfs_error err = MEMFS_ERROR_INIT;

    snprintf(f->home, sizeof(f->home), "/tmp/memfs-places-XXXXXX");
    assert_non_null(mkdtemp(f->home));
    clearenv();
    setenv("HOME", f->home, 1);
    setenv("MEMFS_SYSTEM_CONFIG", "/nonexistent/config", 1);
    assert_int_equal(settings_load(NULL, NULL, 0, &f->s, &err), MEMFS_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    memfs_error err = MEMFS_ERROR_INIT;
    fixture *f = *state;

    assert_int_equal(fs_remove_tree(f->home, &err), MEMFS_OK);
    settings_free(f->s);
    free(f);
    return 0;
}

static void make(const fixture *f, const char *name)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", f->home, name);
    memfs_error err = MEMFS_ERROR_INIT;

    assert_int_equal(fs_mkdirs(path, &err), MEMFS_OK);
}

static void expect_place(const fixture *f, const char *id, const char *memory, bool is_local)
{
    _cleanup_(mem_freep) char *expected = mem_printf("%s/%s", f->home, memory);
    _cleanup_(place_dispose) place p = PLACE_INIT;
    memfs_error err = MEMFS_ERROR_INIT;

    assert_int_equal(place_of(f->s, id, &p, &err), MEMFS_OK);
    assert_string_equal(p.agent_id, id);
    assert_string_equal(p.memory, expected);
    assert_true(str_starts_with(str_of(p.worktrees), str_of(p.root)));
    assert_true(str_ends_with(str_of(p.worktrees), MEMFS_STR("/memory-worktrees")));
    assert_int_equal(p.is_local_backend, is_local);
}

static void an_id_alone_says_where_nothing_is_yet(void **state)
{
    const fixture *f = *state;

    expect_place(f, A1, ".letta/agents/" A1 "/memory", false);
    expect_place(f, L1, ".letta/lc-local-backend/memfs/" L1 "/memory", true);
    assert_false(places_has_other(f->s, A1));
}

static void what_is_there_counts_more_than_the_prefix(void **state)
{
    const fixture *f = *state;

    make(f, ".letta/agents/" L1 "/memory");
    expect_place(f, L1, ".letta/agents/" L1 "/memory", false);
    make(f, ".letta/lc-local-backend/memfs/" L1 "/memory");
    expect_place(f, L1, ".letta/lc-local-backend/memfs/" L1 "/memory", true);
    make(f, ".letta/lc-local-backend/memfs/" A1 "/memory");
    expect_place(f, A1, ".letta/lc-local-backend/memfs/" A1 "/memory", true);
}

/* T01: an id becomes part of a path, so nothing but an id may pass. */
static void T01_what_is_no_id_is_refused(void **state)
{
    static const char *const ids[] = {
        "",
        ".",
        "..",
        "../../etc",
        "agent-",
        "agent-1",
        A1 "/..",
        A1 "\n",
        "Agent-" A1,
        "-" A1,
        "agent-11111111-1111-1111-8111-111111111111",
        "agent-local-",
        "agent-../../../x",
    };
    const fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        _cleanup_(place_dispose) place p = PLACE_INIT;
        memfs_error err = MEMFS_ERROR_INIT;

        assert_int_equal(place_of(f->s, ids[i], &p, &err), MEMFS_EINVALID);
        assert_null(p.memory);
    }
}

static memfs_code gather(const place *p, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%s%s ", p->is_local_backend ? "local:" : "", p->agent_id);
    return MEMFS_OK;
}

static void expect_all(const fixture *f, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf found = MEMFS_BUF_INIT(4096);
    memfs_error err = MEMFS_ERROR_INIT;

    assert_int_equal(places_each(f->s, gather, &found, &err), MEMFS_OK);
    assert_string_equal(found.ptr, expected);
}

static void all_that_have_a_memory_are_listed_once_and_sorted(void **state)
{
    _cleanup_(mem_freep) char *file = NULL;
    const fixture *f = *state;
    memfs_error err = MEMFS_ERROR_INIT;

    expect_all(f, ""); /* no folder at all */
    make(f, ".letta/agents/" A2 "/memory/.git");
    make(f, ".letta/agents/" A1 "/memory");
    make(f, ".letta/agents/agent-55555555-5555-4555-8555-555555555555"); /* no memory in it */
    make(f, ".letta/agents/somebody/memory");
    make(f, ".letta/lc-local-backend/memfs/" L1 "/memory");
    make(f, ".letta/lc-local-backend/memfs/" A2 "/memory"); /* in both */
    file = mem_printf("%s/.letta/agents/agent-66666666-6666-4666-8666-666666666666", f->home);
    assert_int_equal(fs_write_atomic(file, MEMFS_STR("x"), 0600, &err), MEMFS_OK);
    expect_all(f, A1 " " A2 " local:" L1 " ");
}

static memfs_code fail_at_second(const place *p, void *ctx, memfs_error *err)
{
    size_t *n = ctx;

    (void)p;
    return ++*n == 2 ? memfs_fail(err, MEMFS_ECONFLICT, "enough") : MEMFS_OK;
}

static void a_failure_of_the_callback_ends_the_walk(void **state)
{
    const fixture *f = *state;
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n = 0;

    make(f, ".letta/agents/" A1 "/memory");
    make(f, ".letta/agents/" A2 "/memory");
    make(f, ".letta/lc-local-backend/memfs/" L1 "/memory");
    assert_int_equal(places_each(f->s, fail_at_second, &n, &err), MEMFS_ECONFLICT);
    assert_int_equal(n, 2);
}

static void others_are_seen_in_both_folders(void **state)
{
    const fixture *f = *state;

    make(f, ".letta/agents/" A1 "/memory");
    make(f, ".letta/agents/" A2); /* no memory */
    assert_false(places_has_other(f->s, A1));
    assert_true(places_has_other(f->s, A2));
    make(f, ".letta/lc-local-backend/memfs/" L1 "/memory");
    assert_true(places_has_other(f->s, A1));
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(an_id_alone_says_where_nothing_is_yet),
        T(what_is_there_counts_more_than_the_prefix),
        T(T01_what_is_no_id_is_refused),
        T(all_that_have_a_memory_are_listed_once_and_sorted),
        T(a_failure_of_the_callback_ends_the_walk),
        T(others_are_seen_in_both_folders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
