#include "cache_fixture.h"

#include "cache/state.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* The state is apart from the fixture's cache, which these tests leave closed. */
static state *s;

static atomic_int n_fsyncs;
static atomic_bool fsync_fails;

int fdatasync(int fd)
{
    atomic_fetch_add(&n_fsyncs, 1);
    if (atomic_load(&fsync_fails)) {
        errno = EIO;
        return -1;
    }
    return fsync(fd);
}

static void open_state(fixture *f)
{
    assert_null(s);
    assert_ok(state_open_sqlite(f->root, &s, &f->err));
}

static void close_state(void)
{
    state_close(s);
    s = NULL;
}

static int setup_state(void **at)
{
    atomic_store(&fsync_fails, false);
    *at = fixture_new("state");
    open_state(*at);
    return 0;
}

static int teardown_state(void **at)
{
    close_state();
    fixture_free(*at);
    return 0;
}

static memfs_code join_ids(const state_agent *agent, void *ctx, memfs_error *err)
{
    (void)err;
    if (((memfs_buf *)ctx)->len > 0)
        buf_putc(ctx, ' ');
    buf_add_str(ctx, agent->id);
    return MEMFS_OK;
}

#define assert_agents(query, expected)                                                             \
    do {                                                                                           \
        _cleanup_(buf_dispose) memfs_buf ids_ = MEMFS_BUF_INIT(1 << 20);                           \
        assert_ok(state_agents(s, query, join_ids, &ids_, &f->err));                               \
        assert_string_equal(ids_.ptr, expected);                                                   \
    } while (0)

static void add(fixture *f, const char *id, int64_t now_us)
{
    assert_ok(state_agent_add(s, str_of(id), MEMFS_STR("org-1"), now_us, &f->err));
}

/* ---- agents ---- */

static memfs_code check_agent(const state_agent *agent, void *ctx, memfs_error *err)
{
    (void)err;
    *(int *)ctx += 1;
    assert_true(str_equal(agent->id, MEMFS_STR("agent-a")));
    assert_true(str_equal(agent->org_id, MEMFS_STR("org-1")));
    assert_true(str_equal(agent->name, MEMFS_STR("agent-a"))); /* until it is given one */
    assert_true(str_equal(agent->tags_json, MEMFS_STR("[]")));
    assert_int_equal(agent->created_at_us, 5);
    assert_int_equal(agent->updated_at_us, 5);
    return MEMFS_OK;
}

static void test_K4_an_agent_is_made_known_once_and_stays_as_it_is(void **at)
{
    fixture *f = *at;
    agent_query q = { .id = MEMFS_STR("agent-a") };
    bool is_known = true;
    int64_t n = 99;
    int n_seen = 0;

    assert_ok(state_agent_known(s, q.id, &is_known, &f->err));
    assert_false(is_known);
    add(f, "agent-a", 5);
    assert_ok(state_agent_add(s, q.id, MEMFS_STR("org-2"), 9, &f->err));
    assert_ok(state_agent_known(s, q.id, &is_known, &f->err));
    assert_true(is_known);
    for (int i = 0; i < 2; i++) {
        assert_ok(state_agents(s, &q, check_agent, &n_seen, &f->err));
        assert_int_equal(n_seen, i + 1);
        close_state();
        open_state(f);
    }
    assert_ok(state_agent_count(s, &n, &f->err));
    assert_int_equal(n, 1);
}

static void test_agents_are_listed_by_creation_then_id_in_pages(void **at)
{
    fixture *f = *at;
    agent_query q = { .limit = 2 };

    add(f, "agent-c", 10);
    add(f, "agent-d", 5);
    add(f, "agent-a", 10);
    add(f, "agent-b", 20);
    assert_agents(&q, "agent-d agent-a");
    q.after = MEMFS_STR("agent-a");
    assert_agents(&q, "agent-c agent-b");
    q.after = MEMFS_STR("agent-b");
    assert_agents(&q, "");
    q.after = MEMFS_STR("agent-unknown");
    assert_agents(&q, "agent-d agent-a");
    q = (agent_query){ .descending = true };
    assert_agents(&q, "agent-b agent-c agent-a agent-d");
    q.after = MEMFS_STR("agent-c"); /* older than c */
    assert_agents(&q, "agent-a agent-d");
    q.before = MEMFS_STR("agent-d");
    assert_agents(&q, "agent-a");
    q.after = MEMFS_STR("");
    assert_agents(&q, "agent-b agent-c agent-a");
    q.descending = false;
    q.before = MEMFS_STR("agent-c");
    assert_agents(&q, "agent-d agent-a");
}

static void test_agents_are_filtered(void **at)
{
    fixture *f = *at;
    memfs_str tags[] = { MEMFS_STR("red"), MEMFS_STR("blue") };
    memfs_str twice[] = { MEMFS_STR("red"), MEMFS_STR("red") };
    const struct {
        const char *ids;
        agent_query q;
    } cases[] = {
        { "agent-a agent-b agent-c", { .limit = 0 } },
        { "agent-b", { .id = MEMFS_STR("agent-b") } },
        { "", { .id = MEMFS_STR("' OR 1=1 --") } },
        { "agent-a", { .name = MEMFS_STR("Ärger") } },
        { "", { .name = MEMFS_STR("ärger") } },
        { "agent-a", { .query_text = MEMFS_STR("ärg") } },
        { "agent-b", { .query_text = MEMFS_STR("THE%T") } },
        { "agent-a agent-b", { .tags = tags, .n_tags = 2 } },
        { "agent-b", { .tags = tags, .n_tags = 2, .match_all_tags = true } },
        { "", { .tags = twice, .n_tags = 2, .match_all_tags = true } },
        { "agent-b", { .tags = tags, .n_tags = 2, .descending = true, .limit = 1 } },
    };

    add(f, "agent-a", 1);
    add(f, "agent-b", 2);
    add(f, "agent-c", 3);
    meddle(f, "state.db",
           "UPDATE agents SET name = 'Ärger', tags = '[\"red\"]' "
           "WHERE agent_id = 'agent-a'");
    meddle(f, "state.db",
           "UPDATE agents SET name = 'the test', tags = '[\"x\",\"red\",\"blue\"]' "
           "WHERE agent_id = 'agent-b'");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_agents(&cases[i].q, cases[i].ids);
}

static memfs_code refuse(const state_agent *agent, void *ctx, memfs_error *err)
{
    (void)agent;
    (void)ctx;
    return memfs_fail(err, MEMFS_EDENIED, "enough");
}

static void test_a_refusing_row_function_ends_the_reading(void **at)
{
    fixture *f = *at;
    agent_query q = { .limit = 0 };

    add(f, "agent-a", 1);
    add(f, "agent-b", 2);
    assert_code(state_agents(s, &q, refuse, NULL, &f->err), EDENIED);
    assert_agents(&q, "agent-a agent-b");
}

/* ---- births ---- */

static memfs_code join_births(const state_birth *birth, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s=%lld ", (int)birth->label.len, birth->label.ptr,
               (long long)birth->created_at_us);
    return MEMFS_OK;
}

static void assert_births(fixture *f, const char *agent, const char *label, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);

    assert_ok(state_births(s, str_of(agent), str_of(label), join_births, &text, &f->err));
    assert_string_equal(text.ptr, expected);
}

static void test_K4_a_birth_is_the_first_time_and_stays(void **at)
{
    fixture *f = *at;
    memfs_str first[] = { MEMFS_STR("b"), MEMFS_STR("a"), MEMFS_STR("b") };
    memfs_str second[] = { MEMFS_STR("c"), MEMFS_STR("b") };

    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), first, 3, 10, &f->err));
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), second, 2, 20, &f->err));
    assert_ok(state_births_add(s, MEMFS_STR("agent-b"), second, 1, 30, &f->err));
    assert_births(f, "agent-a", "", "a=10 b=10 c=20 ");
    assert_births(f, "agent-a", "b", "b=10 ");
    assert_births(f, "agent-a", "absent", "");
    assert_births(f, "agent-b", "", "c=30 ");
    close_state();
    open_state(f);
    assert_births(f, "agent-a", "", "a=10 b=10 c=20 ");
}

static void test_K7_what_is_known_already_costs_no_write(void **at)
{
    fixture *f = *at;
    memfs_str labels[] = { MEMFS_STR("a"), MEMFS_STR("b") };

    add(f, "agent-a", 1);
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), labels, 2, 10, &f->err));
    atomic_store(&n_fsyncs, 0);
    add(f, "agent-a", 2);
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), labels, 2, 20, &f->err));
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), NULL, 0, 20, &f->err));
    assert_ok(state_banned_add(s, MEMFS_STR("agent-a"), NULL, 0, &f->err));
    assert_int_equal(atomic_load(&n_fsyncs), 0);
}

/* ---- banned objects ---- */

static void test_T28_banned_objects_come_back_sorted_and_once(void **at)
{
    fixture *f = *at;
    memfs_oid ids[] = { oid_of(3), oid_of(1), oid_of(2), oid_of(1) };
    memfs_oid *list = NULL;
    size_t n = 99;

    assert_ok(state_banned(s, MEMFS_STR("agent-a"), &list, &n, &f->err));
    assert_int_equal(n, 0);
    free(list);
    assert_ok(state_banned_add(s, MEMFS_STR("agent-a"), ids, 4, &f->err));
    assert_ok(state_banned_add(s, MEMFS_STR("agent-a"), ids, 2, &f->err));
    assert_ok(state_banned_add(s, MEMFS_STR("agent-b"), ids, 1, &f->err));
    assert_ok(state_banned(s, MEMFS_STR("agent-a"), &list, &n, &f->err));
    assert_int_equal(n, 3);
    for (unsigned i = 0; i < 3; i++) {
        memfs_oid want = oid_of(i + 1);

        assert_true(oid_equal(&list[i], &want));
    }
    free(list);
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

static void test_F01_what_was_told_survives_a_kill(void **at)
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
    open_state(f);
    for (unsigned i = 0; i <= told; i++) {
        snprintf(id, sizeof(id), "agent-%u", i);
        assert_ok(state_agent_known(s, str_of(id), &is_known, &f->err));
        assert_true(is_known);
    }
    assert_ok(state_check(s, &f->err));
}

static void test_F05_after_a_failed_fsync_nothing_more_is_written(void **at)
{
    fixture *f = *at;
    bool is_known;

    add(f, "agent-a", 1);
    atomic_store(&fsync_fails, true);
    assert_code(state_agent_add(s, MEMFS_STR("agent-b"), MEMFS_STR("org"), 1, &f->err), EINTERNAL);
    atomic_store(&fsync_fails, false);
    assert_code(state_agent_add(s, MEMFS_STR("agent-b"), MEMFS_STR("org"), 1, &f->err), EINTERNAL);
    assert_non_null(strstr(f->err.msg, "until memfs is started again"));
    assert_ok(state_agent_known(s, MEMFS_STR("agent-a"), &is_known, &f->err)); /* reads go on */
    assert_true(is_known);
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

int main(void)
{
#define ON_STATE(test) cmocka_unit_test_setup_teardown(test, setup_state, teardown_state)
    const struct CMUnitTest tests[] = {
        ON_STATE(test_K4_an_agent_is_made_known_once_and_stays_as_it_is),
        ON_STATE(test_agents_are_listed_by_creation_then_id_in_pages),
        ON_STATE(test_agents_are_filtered),
        ON_STATE(test_a_refusing_row_function_ends_the_reading),
        ON_STATE(test_K4_a_birth_is_the_first_time_and_stays),
        ON_STATE(test_K7_what_is_known_already_costs_no_write),
        ON_STATE(test_T28_banned_objects_come_back_sorted_and_once),
        ON_STATE(test_D1_each_commit_is_synced_before_it_is_told),
        ON_STATE(test_F01_what_was_told_survives_a_kill),
        ON_STATE(test_F05_after_a_failed_fsync_nothing_more_is_written),
        ON_STATE(test_F23_a_damaged_state_stops_with_instructions_and_is_never_begun_anew),
        ON_STATE(test_F23_a_state_that_was_deleted_but_for_its_log_is_not_begun_anew),
        ON_STATE(test_F23_a_state_deleted_under_us_takes_no_more_writes),
        ON_STATE(test_F29_a_state_half_made_when_killed_is_made_again),
        ON_STATE(test_S4_the_files_are_the_owners_alone),
        ON_STATE(test_D7_a_copy_taken_under_load_is_one_instant_of_the_state),
        ON_STATE(test_D7_a_copy_overwrites_nothing_and_leaves_nothing_when_it_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
