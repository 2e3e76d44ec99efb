#include "state_fixture.h"

#include "cache/shared.h"

/* What shared.h promises, over both backends. */

#define A "repo-11111111-1111-4111-8111-111111111111"
#define B "repo-22222222-2222-4222-8222-222222222222"
#define C "repo-33333333-3333-4333-8333-333333333333"

static shared_repo repo_of(const char *id, const char *name, int64_t now_us)
{
    return (shared_repo){ .id = str_of(id),
                          .org_id = MEMFS_STR("org-1"),
                          .name = str_of(name),
                          .created_at_us = now_us,
                          .updated_at_us = now_us };
}

static void add_repo(fixture *f, const char *id, const char *name, int64_t now_us)
{
    shared_repo row = repo_of(id, name, now_us);

    assert_ok(state_shared_add(s, &row, &f->err));
}

static memfs_code join_repos(const shared_repo *row, void *ctx, memfs_error *err)
{
    (void)err;
    assert_true(str_equal(row->org_id, MEMFS_STR("org-1")));
    buf_printf(ctx, "%.*s@%lld/%lld%s ", (int)row->name.len, row->name.ptr,
               (long long)row->created_at_us, (long long)row->updated_at_us,
               row->deleted_at_us != 0 ? "x" : "");
    return MEMFS_OK;
}

static void assert_repos(fixture *f, shared_query q, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);

    assert_ok(state_shared_repos(s, &q, join_repos, &text, &f->err));
    assert_string_equal(text.ptr != NULL ? text.ptr : "", expected);
}

static void put_link(fixture *f, const char *agent, const char *repo, bool may_write, int64_t now)
{
    shared_link row = { .agent_id = str_of(agent),
                        .repo_id = str_of(repo),
                        .may_write = may_write,
                        .created_at_us = now };

    assert_ok(state_shared_link(s, &row, &f->err));
}

static memfs_code join_links(const shared_link *row, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s>%.*s:%s@%lld%s ", (int)row->agent_id.len, row->agent_id.ptr,
               (int)row->name.len, row->name.ptr, row->may_write ? "rw" : "ro",
               (long long)row->created_at_us, row->is_deleted ? "x" : "");
    return MEMFS_OK;
}

static void assert_links(fixture *f, const char *agent, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);

    assert_ok(state_shared_links(s, str_of(agent), join_links, &text, &f->err));
    assert_string_equal(text.ptr != NULL ? text.ptr : "", expected);
}

static void test_8_2_they_are_listed_by_creation_in_pages(void **at)
{
    fixture *f = *at;

    assert_repos(f, (shared_query){ .limit = 0 }, "");
    add_repo(f, C, "c", 1);
    add_repo(f, B, "b", 2);
    add_repo(f, A, "a", 2);
    for (int i = 0; i < 2; i++) {
        assert_repos(f, (shared_query){ .limit = 0 }, "c@1/1 a@2/2 b@2/2 ");
        assert_repos(f, (shared_query){ .limit = 2 }, "c@1/1 a@2/2 ");
        assert_repos(f, (shared_query){ .limit = 2, .offset = 2 }, "b@2/2 ");
        assert_repos(f, (shared_query){ .offset = 3 }, "");
        assert_repos(f, (shared_query){ .id = MEMFS_STR(B) }, "b@2/2 ");
        assert_repos(f, (shared_query){ .id = MEMFS_STR("' OR 1=1 --") }, "");
        assert_repos(f, (shared_query){ .id = MEMFS_STR("\xff") }, "");
        close_state();
        open_state(f);
    }
}

static void test_8_3_a_name_is_one_repositorys_in_upper_and_lower_case(void **at)
{
    fixture *f = *at;
    shared_repo twin = repo_of(B, "TEAM-notes", 2), again = repo_of(A, "other", 3);

    add_repo(f, A, "Team-Notes", 1);
    assert_code(state_shared_add(s, &twin, &f->err), EEXISTS);
    assert_ok(state_shared_add(s, &again, &f->err)); /* it stays as it is */
    assert_repos(f, (shared_query){ .limit = 0 }, "Team-Notes@1/1 ");
    twin.org_id = MEMFS_STR("org-2");
    assert_ok(state_shared_add(s, &twin, &f->err));
}

static void test_8_2_a_deleted_one_is_gone_and_comes_back_with_its_links(void **at)
{
    fixture *f = *at;
    memfs_str a = MEMFS_STR(A);

    add_repo(f, A, "notes", 1);
    put_link(f, "agent-a", A, true, 5);
    assert_code(state_shared_mark(s, a, false, 2, &f->err), ENOTFOUND); /* it is there */
    assert_code(state_shared_mark(s, MEMFS_STR(B), true, 2, &f->err), ENOTFOUND);
    assert_ok(state_shared_mark(s, a, true, 2, &f->err));
    assert_code(state_shared_mark(s, a, true, 3, &f->err), ENOTFOUND);
    assert_repos(f, (shared_query){ .limit = 0 }, "");
    assert_repos(f, (shared_query){ .id = a }, "");
    assert_repos(f, (shared_query){ .id = a, .with_deleted = true }, "notes@1/2x ");
    assert_links(f, "agent-a", "");
    assert_links(f, "", "agent-a>notes:rw@5x ");
    add_repo(f, B, "NOTES", 4); /* its name is free meanwhile */
    assert_code(state_shared_mark(s, a, false, 5, &f->err), EEXISTS);
    assert_ok(state_shared_mark(s, MEMFS_STR(B), true, 6, &f->err));
    assert_ok(state_shared_mark(s, a, false, 7, &f->err));
    assert_repos(f, (shared_query){ .limit = 0 }, "notes@1/7 ");
    assert_links(f, "agent-a", "agent-a>notes:rw@5 ");
}

static void test_8_2_links_are_an_agents_own_and_change_their_right(void **at)
{
    fixture *f = *at;
    int64_t trace;

    add_repo(f, A, "a", 1);
    add_repo(f, B, "b", 1);
    put_link(f, "agent-a", B, true, 5);
    put_link(f, "agent-a", A, false, 6);
    put_link(f, "agent-b", A, true, 7);
    assert_links(f, "agent-a", "agent-a>b:rw@5 agent-a>a:ro@6 ");
    assert_links(f, "agent-b", "agent-b>a:rw@7 ");
    assert_links(f, "agent-c", "");
    trace = trace_of_state(f);
    put_link(f, "agent-a", A, false, 9);
    assert_int_equal(trace_of_state(f), trace);
    put_link(f, "agent-a", A, true, 9);
    assert_links(f, "agent-a", "agent-a>b:rw@5 agent-a>a:rw@6 ");
    assert_ok(state_shared_unlink(s, MEMFS_STR("agent-a"), MEMFS_STR(A), &f->err));
    assert_code(state_shared_unlink(s, MEMFS_STR("agent-a"), MEMFS_STR(A), &f->err), ENOTFOUND);
    assert_links(f, "", "agent-a>b:rw@5 agent-b>a:rw@7 ");
}

static void test_a_shared_repository_is_a_memory_and_no_agent(void **at)
{
    fixture *f = *at;
    agent_query agents = { .limit = 1 }, by_id = { .id = MEMFS_STR(A) };
    agent_query all = { .with_shared = true }, one = { .id = MEMFS_STR(A), .with_shared = true };
    bool is_known = false;
    int64_t n = 0;

    add(f, A, 1);
    add(f, "agent-a", 2);
    assert_agents(&agents, "agent-a");
    assert_agents(&by_id, "");
    assert_agents(&all, A " agent-a");
    assert_agents(&one, A);
    assert_ok(state_agent_count(s, &n, &f->err));
    assert_int_equal(n, 1);
    assert_ok(state_agent_known(s, MEMFS_STR(A), &is_known, &f->err));
    assert_true(is_known);
}

/* A backup of either backend has them, deleted ones too; of two with one name both are there. */
static void test_a_copy_has_names_links_and_what_is_deleted(void **at)
{
    fixture *f = *at;
    _cleanup_(mem_freep) char *folder = mem_printf("%s/copy", f->root);
    shared_repo other = repo_of(C, "A", 9);
    state *own = s, *copy;

    add_repo(f, A, "a", 1);
    add_repo(f, B, "b", 2);
    put_link(f, "agent-a", A, false, 5);
    put_link(f, "agent-a", B, true, 6);
    assert_ok(state_shared_mark(s, MEMFS_STR(B), true, 7, &f->err));
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_ok(state_open_sqlite(folder, &copy, &f->err));
    assert_ok(state_shared_add(copy, &other, &f->err));
    for (int i = 0; i < 2; i++)
        assert_ok(state_copy_into(own, copy, &f->err));
    s = copy;
    assert_repos(f, (shared_query){ .with_deleted = true }, "a@1/1x b@2/7x A@9/9 ");
    assert_links(f, "", "agent-a>a:ro@5x agent-a>b:rw@6x ");
    s = own;
    state_close(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_8_2_they_are_listed_by_creation_in_pages, setup_state,
                                        teardown_state),
        cmocka_unit_test_setup_teardown(test_8_3_a_name_is_one_repositorys_in_upper_and_lower_case,
                                        setup_state, teardown_state),
        cmocka_unit_test_setup_teardown(
            test_8_2_a_deleted_one_is_gone_and_comes_back_with_its_links, setup_state,
            teardown_state),
        cmocka_unit_test_setup_teardown(test_8_2_links_are_an_agents_own_and_change_their_right,
                                        setup_state, teardown_state),
        cmocka_unit_test_setup_teardown(test_a_shared_repository_is_a_memory_and_no_agent,
                                        setup_state, teardown_state),
        cmocka_unit_test_setup_teardown(test_a_copy_has_names_links_and_what_is_deleted,
                                        setup_state, teardown_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
