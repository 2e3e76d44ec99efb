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
static char next_id[IDS_MAX_LEN + 1];  /* the one that gets its label */
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

/* The label goes to another block of that name, which nobody has; the rest goes. */
static memfs_code hand_over(fixture *f, memfs_error *err)
{
    const memfs_str ids[] = { str_of(next_id) };
    edit_result result;

    return block_edit_set_attached(f->h, ID_A, ids, 1, false, &BY, &result, err);
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

static void make_rivals(fixture *f)
{
    const block_row row = { .label = MEMFS_STR("team"),
                            .value = MEMFS_STR("next"),
                            .limit = 77,
                            .metadata_json = MEMFS_STR("{}"),
                            .tags_json = MEMFS_STR("[\"n\"]") };

    make_attached(f);
    OK(block_edit_create(f->h, &row, next_id, &err));
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

/* Before or after: never both, never neither, and nothing is lost. */
static void one_has_the_label(fixture *f)
{
    _cleanup_(block_holders_dispose) block_holders old = { NULL, 0 }, next = { NULL, 0 },
                                                   own = { NULL, 0 };
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    bool is_done;

    assert_settled(f);
    OK(block_holders_find(f->h, str_of(block_id), MEMFS_STR(""), &old, &err));
    OK(block_holders_find(f->h, str_of(next_id), MEMFS_STR(""), &next, &err));
    OK(block_holders_find(f->h, MEMFS_STR(""), ID_A, &own, &err));
    assert_int_equal(old.n, 1);
    assert_int_equal(next.n, 1);
    is_done = str_equal(str_of(old.list[0].agent_id), LOOSE_AGENT);
    assert_int_equal(str_equal(str_of(next.list[0].agent_id), LOOSE_AGENT), !is_done);
    assert_int_equal(own.n, is_done ? 1 : 2);
    assert_string_equal(value_of(f, ID_A, "team", &text), is_done ? "next" : "first");
}

/* And the same request again. */
static void handed_over_once(fixture *f)
{
    memfs_error again;

    one_has_the_label(f);
    OK(hand_over(f, &again));
    one_has_the_label(f);
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

/* A client asks again at once, before anything is made up for. */
static void again_in_one_place(fixture *f)
{
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };
    memfs_error done_already;

    (void)!rename_it(f, &done_already);
    assert_settled(f);
    OK(block_holders_find(f->h, str_of(block_id), MEMFS_STR(""), &of, &err));
    assert_int_equal(of.n, 1);
    assert_string_equal(of.list[0].label, "new/name");
}

static void test_D4_K4_a_rename_that_is_killed_and_made_again_keeps_the_id(void **at)
{
    make_attached(*at);
    kill_everywhere(*at, rename_it, again_in_one_place);
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

static void test_7_K4_a_label_that_is_handed_on_and_killed_is_one_blocks(void **at)
{
    make_rivals(*at);
    kill_everywhere(*at, hand_over, handed_over_once);
}

/* ---- at once ---- */

static void wait_for_waiter(agent *a)
{
    bool is_waited_for = false;

    while (!is_waited_for) {
        pthread_mutex_lock(&a->mutex);
        is_waited_for = a->first != NULL;
        pthread_mutex_unlock(&a->mutex);
    }
}

static void *detach_aside(void *ctx)
{
    fixture *f = ctx;
    edit_result result;

    OK(block_edit_detach(f->h, ID_A, str_of(block_id), true, &BY, &result, &err));
    return NULL;
}

/* Each sees the other's copy, and none is left. */
static void test_K4_a_block_that_two_agents_let_go_of_at_once_is_loose(void **at)
{
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };
    fixture *f = *at;
    edit_result result;
    pthread_t thread;
    agent *a;

    make_shared(f);
    OK(home_agent(f->h, ID_A, &a, &err));
    agent_lock(a);
    assert_int_equal(pthread_create(&thread, NULL, detach_aside, f), 0);
    wait_for_waiter(a);
    OK(block_edit_detach(f->h, ID_B, str_of(block_id), true, &BY, &result, &err));
    agent_unlock(a);
    pthread_join(thread, NULL);
    OK(block_holders_find(f->h, str_of(block_id), MEMFS_STR(""), &of, &err));
    assert_int_equal(of.n, 1);
    assert_string_equal(of.list[0].agent_id, "loose");
    assert_settled(f);
}

/* What was left of a detachment beside an agent's copy. */
static void test_K4_a_loose_text_beside_a_copy_is_in_nobodys_way(void **at)
{
    const block_row old = { .label = MEMFS_STR("team"), .value = MEMFS_STR("old") };
    _cleanup_(buf_dispose) memfs_buf value = MEMFS_BUF_INIT(4096);
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };
    fixture *f = *at;

    make_attached(f);
    OK(loose_put(f->h, str_of(block_id), &old, 0, &err));
    assert_int_equal(n_holders(f), 1);
    OK(change_both(f, &err));
    assert_string_equal(value_of(f, ID_A, "team", &value), "changed");
    OK(block_holders_find(f->h, str_of(block_id), MEMFS_STR(""), &of, &err));
    OK(block_edit_delete(f->h, str_of(block_id), &of, &BY, &err));
    assert_int_equal(n_holders(f), 0);
}

/* The tag that a GET of a loose block has now. */
static char *loose_tag(fixture *f)
{
    char hex[MEMFS_OID_HEX + 1];
    cache_tip tip;

    OK(cache_tip_get(home_cache(f->h), LOOSE_AGENT, &tip, &err));
    oid_hex(&tip.commit, hex);
    return mem_printf("%s-%lld", hex, (long long)tip.generation);
}

static void test_H3_what_was_read_of_a_loose_block_is_of_that_block(void **at)
{
    const block_patch p = { .has_value = true, .value = MEMFS_STR("second") };
    const block_row other = { .label = MEMFS_STR("other"), .value = MEMFS_STR("x") };
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };
    fixture *f = *at;
    block_by by = BY;
    memfs_error stale;
    char id[IDS_MAX_LEN + 1], *tag;

    make_loose(f);
    tag = loose_tag(f);
    by.expected = str_of(tag);
    by.is_tag = true;
    OK(block_edit_create(f->h, &other, id, &err));
    OK(block_holders_find(f->h, str_of(block_id), MEMFS_STR(""), &of, &err));
    OK(block_edit_patch_all(f->h, str_of(block_id), &of, &p, &by, &err));
    FAILS(MEMFS_ECONFLICT, block_edit_patch_all(f->h, str_of(block_id), &of, &p, &by, &err));
    assert_int_equal(block_edit_delete(f->h, str_of(block_id), &of, &by, &stale), MEMFS_ECONFLICT);
    assert_non_null(strstr(stale.msg, "is at "));
    by.expected = str_make(strstr(stale.msg, "is at ") + strlen("is at "), MEMFS_OID_HEX);
    by.is_tag = false;
    OK(block_edit_delete(f->h, str_of(block_id), &of, &by, &err));
    assert_int_equal(n_holders(f), 0);
    free(tag);
}

/* Whose row was made anew has its text again; whose was not has what is written here. */
static void mark_row(fixture *f, const char *id)
{
    const block_row row = { .agent_id = LOOSE_AGENT,
                            .id = str_of(id),
                            .path = str_of(id),
                            .label = MEMFS_STR("other"),
                            .value = MEMFS_STR("untouched"),
                            .metadata_json = MEMFS_STR("{}"),
                            .tags_json = MEMFS_STR("[]") };
    cache_update u = { .agent_id = LOOSE_AGENT, .n_changes = 1 };
    const cache_change change = { str_of(id), &row };
    cache_tip tip;

    OK(cache_tip_get(home_cache(f->h), LOOSE_AGENT, &tip, &err));
    u.from = &tip.commit;
    u.to = tip.commit;
    u.changes = &change;
    OK(cache_apply(home_cache(f->h), &u, &err));
}

static void test_a_loose_block_that_goes_touches_no_other_row(void **at)
{
    const block_row other = { .label = MEMFS_STR("other"), .value = MEMFS_STR("x") };
    _cleanup_(buf_dispose) memfs_buf value = MEMFS_BUF_INIT(4096);
    fixture *f = *at;
    char id[IDS_MAX_LEN + 1];
    edit_result result;

    make_loose(f);
    OK(block_edit_create(f->h, &other, id, &err));
    mark_row(f, id);
    OK(block_edit_attach(f->h, ID_A, str_of(block_id), &BY, &result, &err));
    assert_int_equal(n_holders(f), 1);
    assert_string_equal(value_of(f, LOOSE_AGENT, "other", &value), "untouched");
    OK(block_edit_detach(f->h, ID_A, str_of(block_id), true, &BY, &result, &err));
    assert_int_equal(n_holders(f), 1);
    OK(loose_put(f->h, str_of(block_id), NULL, 0, &err));
    assert_int_equal(n_holders(f), 0);
    buf_clear(&value);
    assert_string_equal(value_of(f, LOOSE_AGENT, "other", &value), "untouched");
}

/* ---- who ends what ---- */

static void put_journal(fixture *f, const char *run, const char *body)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    state_doc doc = { MEMFS_STR("edit"), MEMFS_STR("edit-1"), MEMFS_STR(""), 0 };
    const state_change change = { .docs = &doc, .n_docs = 1 };

    if (body != NULL)
        buf_printf(&text, "{\"run\":\"%s\",\"agent\":\"%s\",%s}", run, AGENT_A, body);
    doc.body = buf_str(&text);
    OK(state_change_apply(home_state(f->h), &change, &err));
}

static void put_limit(fixture *f, int64_t limit)
{
    const block_patch p = { .has_limit = true, .limit = limit };
    edit_result result;

    OK(block_edit_patch(f->h, ID_A, MEMFS_STR("team"), &p, &BY, &result, &err));
}

static memfs_code take_limit(const state_birth *birth, void *ctx, memfs_error *err)
{
    (void)err;
    *(int64_t *)ctx = birth->limit;
    return MEMFS_OK;
}

static int64_t limit_now(fixture *f)
{
    int64_t limit = -1;

    OK(state_births(home_state(f->h), ID_A, MEMFS_STR("team"), take_limit, &limit, &err));
    return limit;
}

#define UNDO_TO_5(now)                                                                             \
    "\"before\":\"" ZERO_HEX "\",\"has_commit\":false,\"now\":[" now "],\"undo\":[],"              \
    "\"then\":[{\"label\":\"team\",\"created_at\":1,\"tags\":\"[]\",\"id\":\"\",\"limit\":5}]"
#define ZERO_HEX "0000000000000000000000000000000000000000"

/* No clock says whose it is: who wrote it does. */
static void test_H7_a_change_that_this_process_is_at_is_nobody_elses_to_end(void **at)
{
    fixture *f = *at;

    make_attached(f);
    put_limit(f, 9);
    put_journal(f, f->h->run, UNDO_TO_5(""));
    OK(block_edit_recover(f->h, &err));
    assert_int_equal(limit_now(f), 9);
    put_journal(f, "run-another", UNDO_TO_5(""));
    OK(block_edit_recover(f->h, &err));
    assert_int_equal(limit_now(f), 5);
}

static void *recover_aside(void *ctx)
{
    fixture *f = ctx;

    OK(block_edit_recover(f->h, &err));
    return NULL;
}

/* It was ended, and the block changed again, while somebody waited to end it. */
static void test_K4_a_change_is_ended_once(void **at)
{
    fixture *f = *at;
    pthread_t thread;
    agent *a;

    make_attached(f);
    put_limit(f, 9);
    put_journal(f, "run-another", UNDO_TO_5(""));
    OK(home_agent(f->h, ID_A, &a, &err));
    agent_lock(a);
    assert_int_equal(pthread_create(&thread, NULL, recover_aside, f), 0);
    wait_for_waiter(a);
    put_journal(f, "", NULL);
    agent_unlock(a);
    pthread_join(thread, NULL);
    assert_int_equal(limit_now(f), 9);
}

static void newer_stays(fixture *f)
{
    _cleanup_(buf_dispose) memfs_buf now = MEMFS_BUF_INIT(4096);
    const block_patch p = { .has_value = true, .value = MEMFS_STR("newer") };
    edit_result result;

    OK(block_edit_patch(f->h, ID_B, MEMFS_STR("team"), &p, &BY, &result, &err));
    assert_settled(f);
    assert_string_equal(value_of(f, ID_B, "team", &now), "newer");
}

static void test_H3_what_a_kill_left_to_do_overwrites_nothing_that_came_later(void **at)
{
    make_shared(*at);
    kill_everywhere(*at, change_both, newer_stays);
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
        ON_HOME(test_D4_K4_a_rename_that_is_killed_and_made_again_keeps_the_id),
        ON_HOME(test_K4_tags_that_are_killed_leave_rows_that_are_what_the_state_says),
        ON_HOME(test_K4_an_attachment_that_is_killed_leaves_the_block_in_one_place),
        ON_HOME(test_K4_a_detachment_that_is_killed_leaves_the_block_in_one_place),
        ON_HOME(test_K3_a_change_of_two_agents_that_is_killed_is_made_up_for_once),
        ON_HOME(test_7_K4_a_label_that_is_handed_on_and_killed_is_one_blocks),
        ON_HOME(test_K4_a_block_that_two_agents_let_go_of_at_once_is_loose),
        ON_HOME(test_K4_a_loose_text_beside_a_copy_is_in_nobodys_way),
        ON_HOME(test_H3_what_was_read_of_a_loose_block_is_of_that_block),
        ON_HOME(test_a_loose_block_that_goes_touches_no_other_row),
        ON_HOME(test_H7_a_change_that_this_process_is_at_is_nobody_elses_to_end),
        ON_HOME(test_K4_a_change_is_ended_once),
        ON_HOME(test_H3_what_a_kill_left_to_do_overwrites_nothing_that_came_later),
        ON_HOME(test_H3_what_a_crash_left_does_not_overwrite_a_later_change),
        ON_HOME(test_K4_a_detachment_that_is_killed_is_ended_before_anybody_is_served),
        ON_HOME(test_K4_recovery_does_not_touch_what_is_under_way),
        ON_HOME(test_5_2_a_copy_that_goes_meanwhile_is_attached_from_where_it_is_then),
        ON_HOME(test_K4_no_description_stays_none_from_agent_to_agent),
        ON_HOME(test_objects_that_lie_by_themselves_are_folded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
