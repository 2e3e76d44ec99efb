#include "sync_fixture.h"

#include "base/hash.h"
#include "sync/block_edit.h"
#include "sync/home_int.h"
#include "sync/loose.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/*
 * Changes that are more than one commit, killed before each fsync and rename: after the next start
 * and block_edit_recover() a block is in one place, rows are what git and state say, and of several
 * agents all have the change or none, each once.
 */

static atomic_int n_calls_left = -1; /* until this process kills itself; < 0: never */

static void count_down(void)
{
    if (atomic_load(&n_calls_left) >= 0 && atomic_fetch_sub(&n_calls_left, 1) == 0)
        kill(getpid(), SIGKILL);
}

int fsync(int fd)
{
    count_down();
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    count_down();
    return (int)syscall(SYS_fdatasync, fd);
}

int rename(const char *from, const char *to)
{
    count_down();
    return (int)syscall(SYS_rename, from, to);
}

#define REPO_B "repository/org-00000000-0000-4000-8000-000000000000/" AGENT_B "/repo.git"

static char block_id[IDS_MAX_LEN + 1]; /* the one that is changed */
static const store_identity WHO = { "tester", "tester@example.org", 1700000000 };
static const block_by BY = { .who = &WHO, .read_only = PUSH_READ_ONLY_MAY, .reason = "" };

/* ---- what is done ---- */

static memfs_code rename_it(fixture *f, memfs_error *err)
{
    const block_patch p = { .label = MEMFS_STR("new/name"), .has_limit = true, .limit = 7 };
    edit_result result;

    return block_edit_patch(f->h, ID_A, MEMFS_STR("team"), &p, &BY, &result, err);
}

static memfs_code tag_it(fixture *f, memfs_error *err)
{
    const block_patch p = { .tags_json = MEMFS_STR("[\"t\"]") };
    edit_result result;

    return block_edit_patch(f->h, ID_A, MEMFS_STR("team"), &p, &BY, &result, err);
}

static memfs_code detach_it(fixture *f, memfs_error *err)
{
    edit_result result;

    return block_edit_detach(f->h, ID_A, str_of(block_id), true, &BY, &result, err);
}

static memfs_code attach_it(fixture *f, memfs_error *err)
{
    edit_result result;

    return block_edit_attach(f->h, ID_A, str_of(block_id), &BY, &result, err);
}

static memfs_code change_both(fixture *f, memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };
    const block_patch p = { .has_value = true, .value = MEMFS_STR("changed") };
    memfs_code rc = block_holders_find(f->h, str_of(block_id), MEMFS_STR(""), &of, err);

    return rc < 0 ? rc : block_edit_patch_all(f->h, str_of(block_id), &of, &p, &BY, err);
}

/* ---- what there is at first ---- */

static void make_loose(fixture *f)
{
    const block_row row = { .label = MEMFS_STR("team"),
                            .value = MEMFS_STR("first"),
                            .limit = 100000,
                            .metadata_json = MEMFS_STR("{}"),
                            .tags_json = MEMFS_STR("[]") };

    put_file(f->work, "mine.md", MEMFS_STR("of the agent"));
    (void)push_work(f, ID_A);
    OK(block_edit_create(f->h, &row, block_id, &err));
}

static void make_attached(fixture *f)
{
    edit_result result;

    make_loose(f);
    OK(block_edit_attach(f->h, ID_A, str_of(block_id), &BY, &result, &err));
}

static void make_shared(fixture *f)
{
    edit_result result;
    push_verdict v;
    memfs_oid tip;

    make_attached(f);
    tip = git_id(f->work, "HEAD");
    v = try_push(f, ID_B, STORE_GENESIS, tip);
    assert_true(v.moved);
    OK(block_edit_attach(f->h, ID_B, str_of(block_id), &BY, &result, &err));
}

/* ---- what must hold ---- */

static memfs_code count_doc(const state_doc *doc, void *ctx, memfs_error *err)
{
    (void)doc;
    (void)err;
    ++*(int *)ctx;
    return MEMFS_OK;
}

static void assert_settled(fixture *f)
{
    upkeep_result result;
    int n_left = 0;

    OK(block_edit_recover(f->h, &err));
    OK(state_docs(home_state(f->h), MEMFS_STR("edit"), MEMFS_STR(""), 0, count_doc, &n_left, &err));
    assert_int_equal(n_left, 0);
    OK(upkeep_verify(f->h, MEMFS_STR(""), NULL, &result, &err));
    assert_int_equal(result.n_findings, 0);
}

static size_t n_holders(fixture *f)
{
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };

    OK(block_holders_find(f->h, str_of(block_id), MEMFS_STR(""), &of, &err));
    return of.n;
}

static void one_place(fixture *f)
{
    assert_settled(f);
    assert_int_equal(n_holders(f), 1);
}

static int n_commits_of(fixture *f, const char *repo)
{
    _cleanup_(mem_freep) char *dir = mem_printf("%s/%s", f->path, repo);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 16);
    OK(git_in(
        dir, MEMFS_STR(""), &out,
        (const char *const[]){ "rev-list", "--count", "--grep=Update team block", "main", NULL }));
    return atoi(out.ptr);
}

static void both_or_none(fixture *f)
{
    _cleanup_(buf_dispose) memfs_buf a = MEMFS_BUF_INIT(4096), b = MEMFS_BUF_INIT(4096);
    int n;

    assert_settled(f);
    assert_int_equal(n_holders(f), 2);
    assert_string_equal(value_of(f, ID_A, "team", &a), value_of(f, ID_B, "team", &b));
    n = strcmp(a.ptr, "changed") == 0;
    assert_int_equal(n_commits_of(f, REPO_A), n);
    assert_int_equal(n_commits_of(f, REPO_B), n);
}

/* ---- kills ---- */

typedef memfs_code (*step_fn)(fixture *f, memfs_error *err);

static bool killed_at(fixture *f, step_fn step, int n)
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        memfs_error err;

        if (home_open(&f->options, &f->h, &err) < 0)
            _exit(2);
        atomic_store(&n_calls_left, n);
        _exit(step(f, &err) < 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    return false;
}

static void kill_at_each(fixture *f, int stride, step_fn step, void (*check)(fixture *f))
{
    _cleanup_(mem_freep) char *saved = mem_printf("%s/saved", f->root);
    bool was_killed = true;
    int n = 0;

    close_home(f);
    OK(fs_copy_tree(f->path, saved, &err));
    while (was_killed) {
        OK(fs_remove_tree(f->path, &err));
        OK(fs_copy_tree(saved, f->path, &err));
        was_killed = killed_at(f, step, n);
        n += stride;
        open_home(f);
        check(f);
        if (was_killed)
            close_home(f);
    }
    assert_true(n > 3 * stride);
}

static void kill_everywhere(fixture *f, step_fn step, void (*check)(fixture *f))
{
    kill_at_each(f, 1, step, check);
}

static void test_K4_a_rename_that_is_killed_leaves_the_block_in_one_place(void **at)
{
    make_attached(*at);
    kill_everywhere(*at, rename_it, one_place);
}

static void test_K4_tags_that_are_killed_leave_rows_that_are_what_the_state_says(void **at)
{
    make_attached(*at);
    kill_everywhere(*at, tag_it, one_place);
}

static void test_K4_an_attachment_that_is_killed_leaves_the_block_in_one_place(void **at)
{
    make_loose(*at);
    kill_everywhere(*at, attach_it, one_place);
}

static void test_K4_a_detachment_that_is_killed_leaves_the_block_in_one_place(void **at)
{
    make_attached(*at);
    kill_everywhere(*at, detach_it, one_place);
}

static void test_K3_a_change_of_two_agents_that_is_killed_is_made_up_for_once(void **at)
{
    make_shared(*at);
    kill_everywhere(*at, change_both, both_or_none);
}

/* ---- what comes after ---- */

static memfs_code change_later(fixture *f, memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };
    _cleanup_(block_turn_end) block_turn turn = { .h = NULL };
    const block_patch p = { .has_value = true, .value = MEMFS_STR("later") };
    memfs_code rc = block_turn_begin(f->h, str_of(block_id), &turn, err);

    if (rc == MEMFS_OK)
        rc = block_holders_find(f->h, str_of(block_id), MEMFS_STR(""), &of, err);
    return rc < 0 ? rc : block_edit_patch_all(f->h, str_of(block_id), &of, &p, &BY, err);
}

static void later_one_stays(fixture *f)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);

    OK(change_later(f, &err));
    assert_settled(f);
    assert_string_equal(value_of(f, ID_A, "team", &text), "later");
    assert_string_equal(value_of(f, ID_B, "team", &text), "later");
}

static void test_H3_what_a_crash_left_does_not_overwrite_a_later_change(void **at)
{
    make_shared(*at);
    kill_at_each(*at, 4, change_both, later_one_stays);
}

/* Nothing is between two states when the first request comes. */
static void ended_by_the_start(fixture *f)
{
    int n_left = 0;

    OK(state_docs(home_state(f->h), MEMFS_STR("edit"), MEMFS_STR(""), 0, count_doc, &n_left, &err));
    assert_int_equal(n_left, 0);
    assert_int_equal(n_holders(f), 1);
}

static void test_K4_a_detachment_that_is_killed_is_ended_before_anybody_is_served(void **at)
{
    make_attached(*at);
    kill_everywhere(*at, detach_it, ended_by_the_start);
}

static atomic_bool should_stop;

static void *recover_on_and_on(void *ctx)
{
    fixture *f = ctx;

    while (!atomic_load(&should_stop)) {
        memfs_error err;

        assert_int_equal(block_edit_recover(f->h, &err), MEMFS_OK);
    }
    return NULL;
}

static void test_K4_recovery_does_not_touch_what_is_under_way(void **at)
{
    const block_patch there = { .label = MEMFS_STR("x") }, back = { .label = MEMFS_STR("team") };
    fixture *f = *at;
    edit_result result;
    pthread_t thread;

    make_attached(f);
    atomic_store(&should_stop, false);
    assert_int_equal(pthread_create(&thread, NULL, recover_on_and_on, f), 0);
    for (int i = 0; i < 40; i++) {
        OK(block_edit_patch(f->h, ID_A, MEMFS_STR("team"), &there, &BY, &result, &err));
        OK(block_edit_patch(f->h, ID_A, MEMFS_STR("x"), &back, &BY, &result, &err));
        assert_int_equal(n_holders(f), 1);
    }
    atomic_store(&should_stop, true);
    pthread_join(thread, NULL);
    one_place(f);
}

typedef struct attaching_b {
    fixture *f;
    memfs_code rc;
} attaching_b;

static void *attach_to_b(void *ctx)
{
    attaching_b *x = ctx;
    edit_result result;
    memfs_error err;

    x->rc = block_edit_attach(x->f->h, ID_B, str_of(block_id), &BY, &result, &err);
    return NULL;
}

static bool has_waiter(agent *a)
{
    bool has;

    pthread_mutex_lock(&a->mutex);
    has = a->first != NULL;
    pthread_mutex_unlock(&a->mutex);
    return has;
}

static void test_5_2_a_copy_that_goes_meanwhile_is_attached_from_where_it_is_then(void **at)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    attaching_b x = { .f = *at };
    fixture *f = *at;
    edit_result result;
    pthread_t thread;
    agent *b;

    make_shared(f);
    OK(block_edit_detach(f->h, ID_B, str_of(block_id), true, &BY, &result, &err));
    OK(home_agent(f->h, ID_B, &b, &err));
    agent_lock(b);
    assert_int_equal(pthread_create(&thread, NULL, attach_to_b, &x), 0);
    while (!has_waiter(b))
        sched_yield();
    OK(block_edit_detach(f->h, ID_A, str_of(block_id), true, &BY, &result, &err));
    agent_unlock(b);
    pthread_join(thread, NULL);
    assert_int_equal(x.rc, MEMFS_OK);
    assert_string_equal(value_of(f, ID_B, "team", &text), "first");
    one_place(f);
}

/* A file that says nothing of it says nothing in the next agent's memory either. */
static void test_K4_no_description_stays_none_from_agent_to_agent(void **at)
{
    _cleanup_(buf_dispose) memfs_buf dumped = MEMFS_BUF_INIT(1 << 16);
    const block_patch renamed = { .label = MEMFS_STR("crew") };
    fixture *f = *at;
    edit_result result;

    make_shared(f);
    OK(block_edit_patch(f->h, ID_B, MEMFS_STR("team"), &renamed, &BY, &result, &err));
    OK(block_edit_detach(f->h, ID_A, str_of(block_id), true, &BY, &result, &err));
    OK(block_edit_detach(f->h, ID_B, str_of(block_id), true, &BY, &result, &err));
    OK(block_edit_attach(f->h, ID_A, str_of(block_id), &BY, &result, &err));
    OK(block_edit_patch(f->h, ID_A, MEMFS_STR("crew"), &(block_patch){ .label = MEMFS_STR("all") },
                        &BY, &result, &err));
    dump(f, ID_A, &dumped);
    assert_non_null(strstr(dumped.ptr, "all block"));
}

/* ---- upkeep ---- */

/* Objects by themselves in the one folder that is counted, as some 600 commits leave them. */
static void plant_objects(fixture *f)
{
    _cleanup_(mem_freep) char *dir = mem_printf("%s/%s", f->path, REPO_A);

    for (int i = 0, n = 0; n <= STORE_LOOSE_AT / 256; i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
        char text[32];
        memfs_oid id;

        snprintf(text, sizeof(text), "object %d", i);
        hash_git_blob(str_of(text), &id);
        if (id.id[0] != 0x17)
            continue;
        assert_int_equal(git_in(dir, str_of(text), &out,
                                (const char *const[]){ "hash-object", "-w", "--stdin", NULL }),
                         MEMFS_OK);
        n++;
    }
}

static void test_objects_that_lie_by_themselves_are_folded(void **at)
{
    const block_patch p = { .has_value = true, .value = MEMFS_STR("x") };
    fixture *f = *at;
    edit_result result;

    make_attached(f);
    assert_false(home_upkeep_step(f->h));
    plant_objects(f);
    OK(block_edit_patch(f->h, ID_A, MEMFS_STR("team"), &p, &BY, &result, &err));
    assert_true(home_upkeep_step(f->h));
    assert_int_equal(store_loose_estimate(home_store(f->h), REPO_A), 0);
    OK(block_edit_patch(f->h, ID_A, MEMFS_STR("mine"), &p, &BY, &result, &err));
    assert_false(home_upkeep_step(f->h));
}

int main(void)
{
#define ON_HOME(test) cmocka_unit_test_setup_teardown(test, fixture_begin, fixture_end)
    const struct CMUnitTest tests[] = {
        ON_HOME(test_K4_a_rename_that_is_killed_leaves_the_block_in_one_place),
        ON_HOME(test_K4_tags_that_are_killed_leave_rows_that_are_what_the_state_says),
        ON_HOME(test_K4_an_attachment_that_is_killed_leaves_the_block_in_one_place),
        ON_HOME(test_K4_a_detachment_that_is_killed_leaves_the_block_in_one_place),
        ON_HOME(test_K3_a_change_of_two_agents_that_is_killed_is_made_up_for_once),
        ON_HOME(test_H3_what_a_crash_left_does_not_overwrite_a_later_change),
        ON_HOME(test_K4_a_detachment_that_is_killed_is_ended_before_anybody_is_served),
        ON_HOME(test_K4_recovery_does_not_touch_what_is_under_way),
        ON_HOME(test_5_2_a_copy_that_goes_meanwhile_is_attached_from_where_it_is_then),
        ON_HOME(test_K4_no_description_stays_none_from_agent_to_agent),
        ON_HOME(test_objects_that_lie_by_themselves_are_folded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
