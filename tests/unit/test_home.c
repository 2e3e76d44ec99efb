/*
 * One data folder: who owns it, which agents it knows, and what it does about what happened while it
 * was not looking.
 */
#include "asleep.h"
#include "sync_fixture.h"

#include "sync/home_list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- the folder ---- */

static void test_L6_a_second_owner_is_refused_and_told_the_pid(void **state)
{
    fixture *f = *state;
    memfs_error err = MEMFS_ERROR_INIT;
    char pid[32];
    home *other = NULL;

    assert_int_equal(home_open(&f->options, &other, &err), MEMFS_EUNAVAIL);
    snprintf(pid, sizeof(pid), "pid %ld", (long)getpid());
    assert_non_null(strstr(err.msg, pid));
    reopen_home(f); /* the lock goes with its owner */
}

static void *let_go_soon(void *fd)
{
    clock_sleep_ms(150);
    close(*(int *)fd);
    return NULL;
}

/* Killed while it started git: the child holds the lock of its dead parent until it executes. */
static void test_L2_a_lock_whose_owner_is_dead_is_waited_for(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = mem_printf("%s/lock", f->path);
    memfs_error err = MEMFS_ERROR_INIT;
    pthread_t thread;
    int fd, status;
    pid_t dead;

    close_home(f);
    dead = fork();
    if (dead == 0)
        _exit(0);
    assert_int_equal(waitpid(dead, &status, 0), dead);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_true(dprintf(fd, "%d\n", (int)dead) > 0);
    assert_int_equal(pthread_create(&thread, NULL, let_go_soon, &fd), 0);
    assert_int_equal(home_open(&f->options, &f->h, &err), MEMFS_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void test_T30_the_folder_is_closed_to_others(void **state)
{
    fixture *f = *state;
    struct stat st;

    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    close_home(f);
    assert_int_equal(chmod(f->path, 0755), 0);
    open_home(f);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

/* ---- who is known ---- */

static void test_an_id_that_nobody_knows_leaves_no_trace(void **state)
{
    fixture *f = *state;
    int64_t n = -1;
    agent *a;

    FAILS(MEMFS_ENOTFOUND, home_agent(f->h, ID_A, &a, &err));
    FAILS(MEMFS_ENOTFOUND, home_agent_peek(f->h, ID_A, &a, &err));
    FAILS(MEMFS_ENOTFOUND, home_agent_repo(f->h, ID_A, &a, &err));
    FAILS(MEMFS_EINVALID, home_agent(f->h, MEMFS_STR("../../etc"), &a, &err));
    OK(state_agent_count(home_state(f->h), &n, &err));
    assert_int_equal(n, 0);
    assert_false(store_has(home_store(f->h), REPO_A));
}

static void test_H4_a_known_agent_without_a_folder_is_an_alarm_on_every_route(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(mem_freep) char *aside = mem_printf("%s/aside", f->root);
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    OK(fs_rename(path, aside, &err));
    FAILS(MEMFS_EUNAVAIL, home_agent(f->h, ID_A, &a, &err));
    FAILS(MEMFS_EUNAVAIL, home_agent_repo(f->h, ID_A, &a, &err));
    clock_sleep_ms(1100); /* a peek's good answer holds for a second */
    FAILS(MEMFS_EUNAVAIL, home_agent_peek(f->h, ID_A, &a, &err));
    assert_int_equal(n_alarms(f, "folder_missing"), 1);
    assert_false(fs_exists(path));
    reopen_home(f);
    FAILS(MEMFS_EUNAVAIL, home_agent(f->h, ID_A, &a, &err));
    assert_int_equal(n_alarms(f, "folder_missing"), 2);
    assert_false(fs_exists(path));
    OK(fs_rename(aside, path, &err));
    OK(home_agent(f->h, ID_A, &a, &err));
}

static void test_L2_a_folder_that_the_state_does_not_know_is_taken_up(void **state)
{
    fixture *f = *state;
    bool is_known = false;
    agent *a;

    OK(store_create(home_store(f->h), REPO_A, &err));
    OK(home_agent(f->h, ID_A, &a, &err));
    OK(state_agent_known(home_state(f->h), ID_A, &is_known, &err));
    assert_true(is_known);
    assert_int_equal(n_alarms(f, "agent_adopted"), 1);
}

static size_t n_stop_after;
static bool stop_soon(void *ctx)
{
    (void)ctx;
    return n_stop_after-- == 0;
}

static void test_L2_recovery_touches_all_and_can_be_stopped(void **state)
{
    fixture *f = *state;
    size_t n = 0;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    push_work(f, ID_B);
    OK(store_create(home_store(f->h),
                    "repository/org-00000000-0000-4000-8000-000000000000/"
                    "agent-local-33333333-3333-4333-8333-333333333333/repo.git",
                    &err));
    reopen_home(f);
    n_stop_after = 1;
    OK(home_recover_all(f->h, stop_soon, NULL, &n, &err));
    assert_int_equal(n, 1);
    OK(home_recover_all(f->h, NULL, NULL, &n, &err));
    assert_int_equal(n, 2);
    OK(home_recover_all(f->h, NULL, NULL, &n, &err));
    assert_int_equal(n, 0);
    assert_int_equal(n_alarms(f, "agent_adopted"), 1);
}

static void test_F02_a_stale_lock_of_a_crash_does_not_stop_the_next_push(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(mem_freep) char *lock = mem_printf("%s/refs/heads/main.lock", path);

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    close_home(f);
    OK(fs_write_atomic(lock, MEMFS_STR(""), 0600, &err));
    open_home(f);
    put_file(f->work, "a.md", MEMFS_STR("2"));
    push_work(f, ID_A);
    assert_false(fs_exists(lock));
    assert_int_equal(n_alarms(f, "leftovers_swept"), 1);
}

/* ---- rows that are behind ---- */

static void test_F01_a_crash_between_ref_and_cache_is_caught_up(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    _cleanup_(mem_freep) char *db = mem_printf("%s/cache.db", f->path);
    _cleanup_(mem_freep) char *old = mem_printf("%s/old.db", f->root);
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    close_home(f);
    OK(fs_copy_tree(db, old, &err));
    open_home(f);
    put_file(f->work, "a.md", MEMFS_STR("2"));
    push_work(f, ID_A);
    close_home(f);
    OK(fs_rename(old, db, &err)); /* the cache as it was before the second push */
    open_home(f);
    assert_string_equal(value_of(f, ID_A, "a", &text), "1");
    OK(home_agent_peek(f->h, ID_A, &a, &err));
    assert_string_equal(value_of(f, ID_A, "a", &text), "2");
    assert_int_equal(f->alarms.len, 0); /* that is what a crash leaves: no news */
}

static void test_F14_a_ref_moved_by_hand_is_followed_and_told(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("by hand"));
    commit_all(f->work, "by hand");
    git(f->work, "push", "-q", path, "main");
    OK(home_agent(f->h, ID_A, &a, &err));
    assert_string_equal(value_of(f, ID_A, "a", &text), "by hand");
    assert_int_equal(n_alarms(f, "ref_moved_by_hand"), 1);
    assert_int_equal(n_alarms(f, "history_rewritten"), 0);
    clock_sleep_ms(1100);
    git(path, "update-ref", "refs/heads/main", "main~1");
    OK(home_agent_peek(f->h, ID_A, &a, &err));
    assert_string_equal(value_of(f, ID_A, "a", &text), "1");
    assert_int_equal(n_alarms(f, "history_rewritten"), 1);
}

static void test_H1_history_rewritten_while_nobody_ran_is_told(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("2"));
    push_work(f, ID_A);
    close_home(f);
    git(path, "update-ref", "refs/heads/main", "main~1");
    open_home(f);
    OK(home_agent(f->h, ID_A, &a, &err));
    assert_string_equal(value_of(f, ID_A, "a", &text), "1");
    assert_int_equal(n_alarms(f, "history_rewritten"), 1);
}

/* ---- a cache that is gone ---- */

static void assert_dump(fixture *f, const memfs_buf *want)
{
    _cleanup_(buf_dispose) memfs_buf got = MEMFS_BUF_INIT(1u << 20);
    agent *a;

    OK(home_agent(f->h, ID_A, &a, &err));
    dump(f, ID_A, &got);
    assert_string_equal(want->ptr, got.ptr);
}

static void remove_cache(fixture *f)
{
    static const char *const NAMES[] = { "cache.db", "cache.db-wal", "cache.db-shm" };

    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        drop_file(f->path, NAMES[i]);
}

static void test_D5_a_deleted_cache_comes_back_to_the_byte(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf want = MEMFS_BUF_INIT(1u << 20);

    put_file(f->work, "a.md", MEMFS_STR("---\ndescription: d\nlimit: 5\n---\n1"));
    push_work(f, ID_A);
    clock_sleep_ms(5);
    put_file(f->work, "system/b.md", MEMFS_STR("2"));
    push_work(f, ID_A);
    dump(f, ID_A, &want);
    close_home(f);
    remove_cache(f);
    open_home(f);
    assert_dump(f, &want);
    remove_cache(f); /* and while it runs (F23) */
    clock_sleep_ms(1100);
    assert_dump(f, &want);
    assert_int_equal(n_alarms(f, "cache_reset"), 1);
    put_file(f->work, "c.md", MEMFS_STR("3"));
    push_work(f, ID_A);
    assert_int_equal(n_blocks(f, ID_A), 3);
}

static void test_F23_a_corrupt_cache_is_set_aside_and_made_anew(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf want = MEMFS_BUF_INIT(1u << 20);

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    dump(f, ID_A, &want);
    close_home(f);
    remove_cache(f);
    put_file(f->path, "cache.db", MEMFS_STR("this is no database, whatever its name says"));
    open_home(f);
    assert_int_equal(n_alarms(f, "cache_reset"), 1);
    assert_dump(f, &want);
}

/* Damage that SQLite meets in the middle of its work: every page but the first is overwritten. */
static void test_F23_a_cache_damaged_under_us_does_not_stop_pushes(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *db = mem_printf("%s/cache.db", f->path);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 20);
    char garbage[4096];
    struct stat st;
    agent *a;
    int fd;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    reopen_home(f); /* folds the log into the file, and forgets cached pages */
    fd = open(db, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    memset(garbage, 0xA5, sizeof(garbage));
    for (off_t at = 4096; at < st.st_size; at += 4096)
        assert_int_equal(pwrite(fd, garbage, sizeof(garbage), at), sizeof(garbage));
    close(fd);
    put_file(f->work, "a.md", MEMFS_STR("2"));
    push_work(f, ID_A);
    OK(home_agent(f->h, ID_A, &a, &err));
    assert_string_equal(value_of(f, ID_A, "a", &text), "2");
    assert_true(n_alarms(f, "cache_reset") >= 1);
}

/* ---- the fence ---- */

static void test_F05_a_fence_outlives_the_process_until_fsck_is_clean(void **state)
{
    fixture *f = *state;
    upkeep_result result;
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    OK(home_agent(f->h, ID_A, &a, &err));
    agent_fence(f->h, a, "fsync failed");
    FAILS(MEMFS_ECORRUPT, home_agent(f->h, ID_A, &a, &err));
    FAILS(MEMFS_ECORRUPT, home_agent_peek(f->h, ID_A, &a, &err));
    FAILS(MEMFS_ECORRUPT, home_agent_repo(f->h, ID_A, &a, &err));
    OK(upkeep_verify(f->h, ID_A, NULL, &result, &err));
    assert_int_equal(result.n_findings, 0);
    OK(home_agent(f->h, ID_A, &a, &err));
    agent_fence(f->h, a, "fsync failed");
    reopen_home(f);
    OK(home_agent(f->h, ID_A, &a, &err)); /* the next start looked for itself */
    assert_int_equal(n_alarms(f, "agent_unfenced"), 1);
}

static atomic_int n_fsyncs_to_fail;

/* In place of libc's: as on a disk that fails once, after which the kernel says that all is well. */
int fsync(int fd)
{
    if (atomic_load(&n_fsyncs_to_fail) > 0 && atomic_fetch_sub(&n_fsyncs_to_fail, 1) > 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

static void test_F05_what_another_server_asks_for_and_cannot_be_synced_fences(void **state)
{
    fixture *f = *state;
    memfs_oid tip;
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    OK(home_agent(f->h, ID_A, &a, &err));
    OK(store_tip(home_store(f->h), agent_repo(a), &tip, &err));
    OK(home_agent_keeps(f->h, ID_A, &tip, 0, &err));
    atomic_store(&n_fsyncs_to_fail, 1);
    FAILS(MEMFS_ECORRUPT, home_agent_keeps(f->h, ID_A, &tip, 0, &err));
    assert_int_equal(atomic_load(&n_fsyncs_to_fail), 0);
    FAILS(MEMFS_ECORRUPT, home_agent_keeps(f->h, ID_A, &tip, 0, &err));
    assert_int_equal(n_alarms(f, "agent_fenced"), 1);
}

static void test_F12_a_missing_object_fences_until_it_is_back(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(mem_freep) char *packs = mem_printf("%s/objects/pack", path);
    _cleanup_(mem_freep) char *aside = mem_printf("%s/packs", f->root);
    upkeep_result result;
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    OK(fs_rename(packs, aside, &err));
    OK(fs_mkdirs(packs, &err));
    close_home(f);
    remove_cache(f);
    open_home(f);
    FAILS(MEMFS_ECORRUPT, home_agent(f->h, ID_A, &a, &err));
    assert_int_equal(n_alarms(f, "agent_fenced"), 1);
    OK(upkeep_verify(f->h, ID_A, NULL, &result, &err));
    assert_true(result.n_findings > 0);
    reopen_home(f);
    FAILS(MEMFS_ECORRUPT, home_agent(f->h, ID_A, &a, &err));
    OK(fs_remove_tree(packs, &err));
    OK(fs_rename(aside, packs, &err));
    OK(upkeep_verify(f->h, ID_A, NULL, &result, &err));
    OK(home_agent(f->h, ID_A, &a, &err));
    assert_int_equal(n_blocks(f, ID_A), 1);
}

/* ---- the lock ---- */

typedef struct waiter {
    agent *a;
    int number;
    int *order;
    _Atomic int *n_done;
    atomic_int tid;
} waiter;

static void *wait_in_line(void *arg)
{
    waiter *w = arg;

    atomic_store(&w->tid, (int)syscall(SYS_gettid));
    agent_lock(w->a);
    w->order[(*w->n_done)++] = w->number;
    agent_unlock(w->a);
    return NULL;
}

static void test_the_lock_is_given_in_the_order_of_asking(void **state)
{
    fixture *f = *state;
    _Atomic int n_done = 0;
    pthread_t threads[8];
    waiter waiters[8];
    int order[8];
    agent *a;

    push_work(f, ID_A);
    OK(home_agent(f->h, ID_A, &a, &err));
    agent_lock(a);
    for (int i = 0; i < 8; i++) {
        waiters[i] = (waiter){ a, i, order, &n_done, 0 };
        pthread_create(&threads[i], NULL, wait_in_line, &waiters[i]);
        wait_until_asleep(&waiters[i].tid); /* in line */
    }
    assert_false(agent_lock_for(a, 50));
    agent_unlock(a);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 8; i++)
        assert_int_equal(order[i], i);
    assert_true(agent_lock_for(a, 0));
    assert_false(agent_lock_for(a, 0));
    agent_unlock(a);
}

static void test_a_sorted_list_of_ids_stays_sorted(void **unused)
{
    static const char *const ids[] = { "c", "a", "d", "a", "b", "e" };
    _cleanup_(id_list_dispose) id_list l = { NULL, 0, 0 };

    (void)unused;
    id_list_drop(&l, "a");
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        id_list_insert(&l, ids[i]);
    assert_int_equal(l.n, 5);
    for (size_t i = 0; i < l.n; i++)
        assert_int_equal(l.ids[i][0], 'a' + (int)i);
    id_list_drop(&l, "a");
    id_list_drop(&l, "c");
    id_list_drop(&l, "e");
    id_list_drop(&l, "x");
    assert_int_equal(l.n, 2);
    assert_true(id_list_has(&l, "b") && id_list_has(&l, "d") && !id_list_has(&l, "c"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sorted_list_of_ids_stays_sorted),
        SYNC_TEST(test_L6_a_second_owner_is_refused_and_told_the_pid),
        SYNC_TEST(test_L2_a_lock_whose_owner_is_dead_is_waited_for),
        SYNC_TEST(test_T30_the_folder_is_closed_to_others),
        SYNC_TEST(test_an_id_that_nobody_knows_leaves_no_trace),
        SYNC_TEST(test_H4_a_known_agent_without_a_folder_is_an_alarm_on_every_route),
        SYNC_TEST(test_L2_a_folder_that_the_state_does_not_know_is_taken_up),
        SYNC_TEST(test_L2_recovery_touches_all_and_can_be_stopped),
        SYNC_TEST(test_F02_a_stale_lock_of_a_crash_does_not_stop_the_next_push),
        SYNC_TEST(test_F01_a_crash_between_ref_and_cache_is_caught_up),
        SYNC_TEST(test_F14_a_ref_moved_by_hand_is_followed_and_told),
        SYNC_TEST(test_H1_history_rewritten_while_nobody_ran_is_told),
        SYNC_TEST(test_D5_a_deleted_cache_comes_back_to_the_byte),
        SYNC_TEST(test_F23_a_corrupt_cache_is_set_aside_and_made_anew),
        SYNC_TEST(test_F23_a_cache_damaged_under_us_does_not_stop_pushes),
        SYNC_TEST(test_F05_a_fence_outlives_the_process_until_fsck_is_clean),
        SYNC_TEST(test_F05_what_another_server_asks_for_and_cannot_be_synced_fences),
        SYNC_TEST(test_F12_a_missing_object_fences_until_it_is_back),
        SYNC_TEST(test_the_lock_is_given_in_the_order_of_asking),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
