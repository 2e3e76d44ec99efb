#include "state_fixture.h"
#include "asleep.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/*
 * The state as a file: when it is on disk, what a kill or a full disk leaves of it, damage, copies,
 * upgrades.  What every backend promises is in test_state.c.
 */

static atomic_int n_fsyncs;
static atomic_bool fsync_fails;
static atomic_int n_writes_left = -1; /* and fsyncs, until the process kills itself; < 0: never */
static atomic_bool fsync_waits;       /* the next fsync waits until this is false */
static atomic_bool is_in_fsync;
static __thread char writer; /* of this thread, for the order of the fsyncs below */
static char fsync_order[16];
static atomic_uint n_ordered;

static void count_down(void)
{
    if (atomic_load(&n_writes_left) >= 0 && atomic_fetch_sub(&n_writes_left, 1) == 0)
        kill(getpid(), SIGKILL);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
    count_down();
    return syscall(SYS_pwrite64, fd, bytes, n, at);
}

int fdatasync(int fd)
{
    count_down();
    atomic_fetch_add(&n_fsyncs, 1);
    if (writer != 0)
        fsync_order[atomic_fetch_add(&n_ordered, 1) % sizeof(fsync_order)] = writer;
    while (atomic_load(&fsync_waits)) {
        atomic_store(&is_in_fsync, true);
        clock_sleep_ms(1);
    }
    if (atomic_load(&fsync_fails)) {
        errno = EIO;
        return -1;
    }
    return fsync(fd);
}

static int setup_file(void **at)
{
    atomic_store(&fsync_fails, false);
    return setup_state(at);
}

/* ---- durability ---- */

static void test_D1_each_commit_is_synced_before_it_is_told(void **at)
{
    fixture *f = *at;
    memfs_str label = MEMFS_STR("a");
    memfs_oid oid = oid_of(1);
    int before;

    add(f, "agent-first", 1);
    before = atomic_load(&n_fsyncs);
    add(f, "agent-a", 1);
    assert_true(atomic_load(&n_fsyncs) > before);
    before = atomic_load(&n_fsyncs);
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), &label, 1, 1, &f->err));
    assert_true(atomic_load(&n_fsyncs) > before);
    before = atomic_load(&n_fsyncs);
    assert_ok(state_banned_add(s, MEMFS_STR("agent-a"), &oid, 1, &f->err));
    assert_true(atomic_load(&n_fsyncs) > before);
}

static void test_D1_a_mirrors_row_is_one_fsync(void **at)
{
    fixture *f = *at;
    state_mirror m = mirror_of("agent-a", "origin", 1);

    assert_ok(state_mirror_put(s, &m, &f->err));
    m.meta_tip = oid_of(5);
    atomic_store(&n_fsyncs, 0);
    assert_ok(state_mirror_put(s, &m, &f->err));
    assert_int_equal(atomic_load(&n_fsyncs), 1);
    assert_ok(state_mirror_put(s, &m, &f->err));
    assert_int_equal(atomic_load(&n_fsyncs), 1);
}

/* How long the log is. */
static off_t log_size(fixture *f)
{
    struct stat st;

    assert_int_equal(stat(in_root(f, "state.db-wal"), &st), 0);
    return st.st_size;
}

static void test_F01_F05_what_was_told_survives_a_kill_and_nothing_is_written_behind_it(void **at)
{
    fixture *f = *at;
    int pipe_fds[2], status;
    unsigned told = 0;
    pid_t child;
    bool is_known;
    char id[32];

    close_state();
    assert_int_equal(pipe(pipe_fds), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        state *mine;

        if (state_open_sqlite(f->root, &mine, &f->err) < 0)
            _exit(1);
        for (unsigned i = 0;; i++) {
            snprintf(id, sizeof(id), "agent-%u", i);
            if (state_agent_add(mine, str_of(id), MEMFS_STR("org"), i, &f->err) < 0 ||
                write(pipe_fds[1], &i, sizeof(i)) != sizeof(i))
                _exit(1);
        }
    }
    while (told < 60)
        assert_int_equal(read(pipe_fds[0], &told, sizeof(told)), sizeof(told));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(pipe_fds[1]);
    while (read(pipe_fds[0], &told, sizeof(told)) == sizeof(told))
        ;
    close(pipe_fds[0]);
    assert_true(log_size(f) > 0);
    open_state(f);
    assert_int_equal(log_size(f), 0); /* it is in the file */
    for (unsigned i = 0; i <= told; i++) {
        snprintf(id, sizeof(id), "agent-%u", i);
        assert_ok(state_agent_known(s, str_of(id), &is_known, &f->err));
        assert_true(is_known);
    }
    assert_ok(state_check(s, &f->err));
}

static bool knows(fixture *f, const char *id)
{
    bool is_known;

    assert_ok(state_agent_known(s, str_of(id), &is_known, &f->err));
    return is_known;
}

/* What a later fsync says of it is no news: nothing is written behind what one has failed for. */
static void test_F05_after_a_failed_fsync_the_log_begins_anew(void **at)
{
    fixture *f = *at;
    off_t before;

    for (char id[] = "agent-0"; id[6] <= '9'; id[6]++)
        add(f, id, 1);
    before = log_size(f);
    atomic_store(&fsync_fails, true);
    assert_code(state_agent_add(s, MEMFS_STR("agent-a"), MEMFS_STR("org"), 1, &f->err), EUNAVAIL);
    assert_non_null(strstr(f->err.msg, "is not known"));
    atomic_store(&fsync_fails, false);
    assert_true(knows(f, "agent-9")); /* reads go on */
    assert_false(knows(f, "agent-a"));
    add(f, "agent-b", 1);
    assert_true(log_size(f) < before);
    assert_true(knows(f, "agent-9") && knows(f, "agent-b") && !knows(f, "agent-a"));
    close_state();
    open_state(f);
    assert_true(knows(f, "agent-9") && knows(f, "agent-b") && !knows(f, "agent-a"));
    assert_ok(state_check(s, &f->err));
}

static void test_F05_after_a_failed_fsync_of_the_file_nothing_more_is_written(void **at)
{
    fixture *f = *at;

    add(f, "agent-a", 1);
    atomic_store(&fsync_fails, true);
    assert_code(state_agent_add(s, MEMFS_STR("agent-b"), MEMFS_STR("org"), 1, &f->err), EUNAVAIL);
    assert_code(state_agent_add(s, MEMFS_STR("agent-b"), MEMFS_STR("org"), 1, &f->err), EUNAVAIL);
    atomic_store(&fsync_fails, false);
    assert_code(state_agent_add(s, MEMFS_STR("agent-b"), MEMFS_STR("org"), 1, &f->err), EUNAVAIL);
    assert_non_null(strstr(f->err.msg, "until memfs is started again"));
    assert_true(knows(f, "agent-a")); /* reads go on */
    close_state();
    open_state(f);
    add(f, "agent-b", 1);
}

/* ---- damage: refused with instructions, and left as it is ---- */

static void cut_to_nothing(fixture *f)
{
    assert_int_equal(truncate(in_root(f, "state.db"), 0), 0);
}

static void cut_in_half(fixture *f)
{
    struct stat st;

    assert_int_equal(stat(in_root(f, "state.db"), &st), 0);
    assert_int_equal(truncate(in_root(f, "state.db"), st.st_size / 2), 0);
}

static void fill_with_garbage(fixture *f)
{
    char bytes[8192];

    memset(bytes, 0xA5, sizeof(bytes));
    assert_ok(
        fs_write_atomic(in_root(f, "state.db"), str_make(bytes, sizeof(bytes)), 0600, &f->err));
}

static void be_another_kind(fixture *f)
{
    assert_int_equal(unlink(in_root(f, "state.db")), 0);
    meddle(f, "state.db", "CREATE TABLE accounts(x)");
}

static void be_newer(fixture *f)
{
    meddle(f, "state.db", "PRAGMA user_version = 99");
}

static void test_F23_a_damaged_state_stops_with_instructions_and_is_never_begun_anew(void **at)
{
    static const struct {
        void (*damage)(fixture *);
        const char *told;
    } cases[] = {
        { cut_to_nothing, "memfs restore" },    { cut_in_half, "memfs restore" },
        { fill_with_garbage, "memfs restore" }, { be_another_kind, "memfs restore" },
        { be_newer, "made by a newer memfs" },
    };
    fixture *f = *at;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(1 << 20);
        _cleanup_(buf_dispose) memfs_buf after = MEMFS_BUF_INIT(1 << 20);

        add(f, "agent-a", 1);
        close_state();
        cases[i].damage(f);
        assert_ok(fs_read(in_root(f, "state.db"), &before, &f->err));
        for (int again = 0; again < 2; again++) {
            assert_code(state_open_sqlite(f->root, &s, &f->err), ECORRUPT);
            assert_non_null(strstr(f->err.msg, cases[i].told));
            assert_null(strstr(f->err.msg, f->root));
        }
        assert_ok(fs_read(in_root(f, "state.db"), &after, &f->err));
        assert_true(str_equal(buf_str(&before), buf_str(&after)));
        assert_int_equal(unlink(in_root(f, "state.db")), 0);
        open_state(f);
    }
}

static void test_F23_a_state_that_was_deleted_but_for_its_log_is_not_begun_anew(void **at)
{
    fixture *f = *at;

    add(f, "agent-a", 1);
    assert_int_equal(link(in_root(f, "state.db-wal"), in_root(f, "saved")), 0);
    close_state();
    assert_int_equal(unlink(in_root(f, "state.db")), 0);
    assert_int_equal(rename(in_root(f, "saved"), in_root(f, "state.db-wal")), 0);
    assert_code(state_open_sqlite(f->root, &s, &f->err), ECORRUPT);
    assert_false(fs_exists(in_root(f, "state.db")));
    assert_true(fs_exists(in_root(f, "state.db-wal")));
    assert_int_equal(unlink(in_root(f, "state.db-wal")), 0);
}

static void test_F23_a_state_deleted_under_us_takes_no_more_writes(void **at)
{
    fixture *f = *at;

    add(f, "agent-a", 1);
    assert_int_equal(unlink(in_root(f, "state.db")), 0);
    assert_code(state_agent_add(s, MEMFS_STR("agent-b"), MEMFS_STR("org"), 1, &f->err), ECORRUPT);
    assert_non_null(strstr(f->err.msg, "memfs restore"));
    assert_code(state_check(s, &f->err), ECORRUPT);
}

static void test_F29_a_state_half_made_when_killed_is_made_again(void **at)
{
    fixture *f = *at;

    close_state();
    assert_int_equal(rename(in_root(f, "state.db"), in_root(f, "state.db.new")), 0);
    assert_int_equal(truncate(in_root(f, "state.db.new"), 5000), 0);
    open_state(f);
    add(f, "agent-a", 1);
    assert_false(fs_exists(in_root(f, "state.db.new")));
}

static memfs_code count_token(const state_token *token, void *ctx, memfs_error *err)
{
    (void)token;
    (void)ctx;
    return memfs_fail(err, MEMFS_EINTERNAL, "a damaged token was passed on");
}

static void test_a_damaged_hash_is_no_token(void **at)
{
    fixture *f = *at;
    state_token token = token_of("00000001", 1, 20);

    assert_ok(state_token_add(s, &token, &f->err));
    meddle(f, "state.db", "UPDATE tokens SET hash = x'01'");
    assert_code(state_tokens(s, count_token, NULL, &f->err), ECORRUPT);
}

static void test_S4_the_files_are_the_owners_alone(void **at)
{
    static const char *const names[] = { "state.db", "state.db-wal", "state.db-shm" };
    fixture *f = *at;

    for (size_t i = 0; i < 3; i++) {
        struct stat st;

        assert_int_equal(stat(in_root(f, names[i]), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
}

/* ---- copies (D7) ---- */

static void *add_many(void *ctx)
{
    fixture *f = ctx;
    memfs_error err;
    char id[32];

    for (unsigned i = 0; i < 300; i++) {
        memfs_str label = str_of(id);

        snprintf(id, sizeof(id), "agent-%03u", i);
        label = str_of(id);
        /* the birth comes first: a copy that has the agent has its birth */
        if (state_births_add(s, MEMFS_STR("all"), &label, 1, i, &err) < 0 ||
            state_agent_add(s, label, MEMFS_STR("org"), i, &err) < 0)
            abort();
    }
    (void)f;
    return NULL;
}

static memfs_code count_births(const state_birth *birth, void *ctx, memfs_error *err)
{
    (void)birth;
    (void)err;
    *(int64_t *)ctx += 1;
    return MEMFS_OK;
}

static void assert_copy_is_one_instant(fixture *f, const char *folder)
{
    int64_t n_agents, n_births = 0;
    state *copy;

    assert_ok(state_open_sqlite(folder, &copy, &f->err));
    assert_ok(state_check(copy, &f->err));
    assert_ok(state_agent_count(copy, &n_agents, &f->err));
    assert_ok(
        state_births(copy, MEMFS_STR("all"), MEMFS_STR(""), count_births, &n_births, &f->err));
    assert_true(n_births == n_agents || n_births == n_agents + 1);
    state_close(copy);
}

static void test_D7_a_copy_taken_under_load_is_one_instant_of_the_state(void **at)
{
    fixture *f = *at;
    pthread_t writer;
    struct stat st;

    assert_int_equal(pthread_create(&writer, NULL, add_many, f), 0);
    for (int i = 0; i < 5; i++) {
        char folder[128], file[160];

        snprintf(folder, sizeof(folder), "%s/copy-%d", f->root, i);
        snprintf(file, sizeof(file), "%s/state.db", folder);
        assert_ok(fs_mkdirs(folder, &f->err));
        assert_ok(state_copy(s, file, &f->err));
        assert_int_equal(stat(file, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_copy_is_one_instant(f, folder);
    }
    pthread_join(writer, NULL);
}

/* Below the first page, which readers look at when they open it. */
static void fill_state_with_garbage(fixture *f)
{
    char bytes[8 * 4096];
    int fd;

    add(f, "agent-a", 1);
    close_state(); /* out of the log */
    open_state(f);
    memset(bytes, 0xA5, sizeof(bytes));
    fd = open(in_root(f, "state.db"), O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, sizeof(bytes), 4096), sizeof(bytes));
    close(fd);
}

static void test_D7_a_copy_overwrites_nothing_and_leaves_nothing_when_it_fails(void **at)
{
    fixture *f = *at;

    assert_ok(fs_write_atomic(in_root(f, "there"), MEMFS_STR("mine"), 0600, &f->err));
    assert_code(state_copy(s, in_root(f, "there"), &f->err), EEXISTS);
    assert_code(state_copy(s, in_root(f, "absent/state.db"), &f->err), ENOTFOUND);
    fill_state_with_garbage(f);
    assert_true(state_copy(s, in_root(f, "copy"), &f->err) < 0);
    assert_false(fs_exists(in_root(f, "copy")));
}

/* ---- the order of writers ---- */

typedef struct queued {
    char name;
    pthread_t thread;
    atomic_int tid;
} queued;

static void *write_once(void *ctx)
{
    queued *q = ctx;
    char agent[16];
    memfs_error err;
    memfs_code rc;

    writer = q->name;
    atomic_store(&q->tid, (int)syscall(SYS_gettid));
    snprintf(agent, sizeof(agent), "agent-%c", q->name);
    state_mirror m = mirror_of(agent, "origin", 1);
    rc = q->name == 'P' ? state_agent_add(s, str_of(agent), MEMFS_STR("org"), 1, &err)
                        : state_mirror_put(s, &m, &err);
    if (rc < 0)
        abort();
    return NULL;
}

static void begin_and_wait(queued *q)
{
    assert_int_equal(pthread_create(&q->thread, NULL, write_once, q), 0);
    wait_until_asleep(&q->tid);
}

static void test_L3_a_push_waits_for_one_mirrors_row_at_most(void **at)
{
    queued all[] = {
        { .name = 'a' }, { .name = 'b' }, { .name = 'c' }, { .name = 'd' }, { .name = 'P' }
    };
    fixture *f = *at;

    add(f, "agent-first", 1);
    atomic_store(&n_ordered, 0);
    memset(fsync_order, 0, sizeof(fsync_order));
    atomic_store(&is_in_fsync, false);
    atomic_store(&fsync_waits, true);
    assert_int_equal(pthread_create(&all[0].thread, NULL, write_once, &all[0]), 0);
    while (!atomic_load(&is_in_fsync))
        clock_sleep_ms(1);
    for (size_t i = 1; i < ARRAY_LEN(all); i++)
        begin_and_wait(&all[i]);
    atomic_store(&fsync_waits, false);
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        pthread_join(all[i].thread, NULL);
    fsync_order[2] = '\0';
    assert_string_equal(fsync_order, "aP");
    assert_mirrors(f, "", "origin",
                   "agent-a/origin@00000001 agent-b/origin@00000001 agent-c/origin@00000001 "
                   "agent-d/origin@00000001 ");
}

/* ---- upgrades ---- */

/* The state of the first release, as it was made then. */
static const char FIRST_SCHEMA[] =
    "PRAGMA journal_mode = WAL;"
    "CREATE TABLE agents(agent_id TEXT NOT NULL PRIMARY KEY, org_id TEXT NOT NULL, "
    "  name TEXT NOT NULL, tags TEXT NOT NULL, created_at INTEGER NOT NULL, "
    "  updated_at INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX agents_by_created ON agents(created_at, agent_id);"
    "CREATE INDEX agents_by_name ON agents(name, created_at, agent_id);"
    "CREATE TABLE births(agent_id TEXT NOT NULL, label TEXT NOT NULL, "
    "  created_at INTEGER NOT NULL, PRIMARY KEY(agent_id, label)) WITHOUT ROWID;"
    "CREATE TABLE banned(agent_id TEXT NOT NULL, object BLOB NOT NULL, "
    "  PRIMARY KEY(agent_id, object)) WITHOUT ROWID;"
    "PRAGMA user_version = 1; PRAGMA application_id = 0x6d667373;"
    "INSERT INTO agents VALUES('agent-a', 'org-1', 'agent-a', '[]', 5, 5);"
    "INSERT INTO births VALUES('agent-a', 'human', 4);";

static void make_first_release(fixture *f)
{
    static const char *const names[] = { "state.db", "state.db-wal", "state.db-shm" };

    close_state();
    for (size_t i = 0; i < 3; i++)
        unlink(in_root(f, names[i]));
    meddle(f, "state.db", FIRST_SCHEMA);
}

static void assert_upgraded(fixture *f)
{
    state_token token = token_of("00000001", 1, 20);
    state_mirror m = mirror_of("agent-a", "origin", 1);

    assert_attributes(f, "agent-a", "agent-a agent-a [] 5 5");
    assert_births(f, "agent-a", "", "human=4 ");
    assert_tokens(f, "");
    assert_mirrors(f, "", "", "");
    assert_ok(state_token_add(s, &token, &f->err));
    assert_ok(state_mirror_put(s, &m, &f->err));
    assert_ok(state_check(s, &f->err));
}

static void test_F29_the_state_of_the_first_release_is_brought_up(void **at)
{
    fixture *f = *at;

    make_first_release(f);
    open_state(f);
    assert_upgraded(f);
}

/* True when the child was killed at its n-th write or fsync; false when it came to its end. */
static bool upgrade_killed_at(fixture *f, int n)
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        state *mine;

        atomic_store(&n_writes_left, n);
        _exit(state_open_sqlite(f->root, &mine, &f->err) < 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return false;
}

static void test_F29_an_upgrade_killed_at_any_write_is_finished_by_the_next_start(void **at)
{
    fixture *f = *at;
    int n = 0;
    bool was_killed = true;

    while (was_killed) {
        make_first_release(f);
        was_killed = upgrade_killed_at(f, n++);
        open_state(f);
        assert_upgraded(f);
    }
    assert_true(n > 4); /* there were writes to be killed at */
}

int main(void)
{
#define ON_STATE(test) cmocka_unit_test_setup_teardown(test, setup_file, teardown_state)
    const struct CMUnitTest tests[] = {
        ON_STATE(test_D1_each_commit_is_synced_before_it_is_told),
        ON_STATE(test_D1_a_mirrors_row_is_one_fsync),
        ON_STATE(test_F01_F05_what_was_told_survives_a_kill_and_nothing_is_written_behind_it),
        ON_STATE(test_F05_after_a_failed_fsync_the_log_begins_anew),
        ON_STATE(test_F05_after_a_failed_fsync_of_the_file_nothing_more_is_written),
        ON_STATE(test_F23_a_damaged_state_stops_with_instructions_and_is_never_begun_anew),
        ON_STATE(test_F23_a_state_that_was_deleted_but_for_its_log_is_not_begun_anew),
        ON_STATE(test_F23_a_state_deleted_under_us_takes_no_more_writes),
        ON_STATE(test_F29_a_state_half_made_when_killed_is_made_again),
        ON_STATE(test_a_damaged_hash_is_no_token),
        ON_STATE(test_S4_the_files_are_the_owners_alone),
        ON_STATE(test_D7_a_copy_taken_under_load_is_one_instant_of_the_state),
        ON_STATE(test_D7_a_copy_overwrites_nothing_and_leaves_nothing_when_it_fails),
        ON_STATE(test_L3_a_push_waits_for_one_mirrors_row_at_most),
        ON_STATE(test_F29_the_state_of_the_first_release_is_brought_up),
        ON_STATE(test_F29_an_upgrade_killed_at_any_write_is_finished_by_the_next_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
