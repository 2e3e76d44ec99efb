#include "cache_fixture.h"

#include "base/clock.h"
#include "cache/state.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* The state is apart from the fixture's cache, which these tests leave closed. */
static state *s;

static atomic_int n_fsyncs;
static atomic_bool fsync_fails;
static atomic_int n_writes_left = -1; /* and fsyncs, until the process kills itself; < 0: never */
static atomic_bool fsync_waits;       /* the next fsync waits until this is false */
static atomic_bool is_in_fsync;
static __thread char writer;      /* of this thread, for the order of the fsyncs below */
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

/* ---- attributes that came from elsewhere ---- */

static memfs_code join_attributes(const state_agent *agent, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s %.*s %.*s %lld %lld", (int)agent->id.len, agent->id.ptr,
               (int)agent->name.len, agent->name.ptr, (int)agent->tags_json.len,
               agent->tags_json.ptr, (long long)agent->created_at_us,
               (long long)agent->updated_at_us);
    return MEMFS_OK;
}

static void assert_attributes(fixture *f, const char *id, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);
    agent_query q = { .id = str_of(id) };

    assert_ok(state_agents(s, &q, join_attributes, &text, &f->err));
    assert_string_equal(text.ptr, expected);
}

static void test_K4_attributes_from_elsewhere_keep_the_earlier_times(void **at)
{
    fixture *f = *at;
    state_birth births[] = { { MEMFS_STR("a"), 7 }, { MEMFS_STR("b"), 90 }, { MEMFS_STR("n"), 3 } };
    memfs_str here[] = { MEMFS_STR("a"), MEMFS_STR("b") };
    state_agent agent = { .id = MEMFS_STR("agent-a"),
                          .name = MEMFS_STR("Ada"),
                          .tags_json = MEMFS_STR("[\"x\"]"),
                          .created_at_us = 20,
                          .updated_at_us = 60 };

    add(f, "agent-a", 50);
    assert_ok(state_births_add(s, agent.id, here, 2, 50, &f->err));
    assert_ok(state_agent_merge(s, &agent, births, 3, &f->err));
    assert_attributes(f, "agent-a", "agent-a Ada [\"x\"] 20 60");
    assert_births(f, "agent-a", "", "a=7 b=50 n=3 ");
    agent.created_at_us = 30; /* later than what is here */
    agent.updated_at_us = 10;
    atomic_store(&n_fsyncs, 0);
    assert_ok(state_agent_merge(s, &agent, births, 3, &f->err));
    agent = (state_agent){ .id = agent.id }; /* says nothing */
    assert_ok(state_agent_merge(s, &agent, NULL, 0, &f->err));
    assert_int_equal(atomic_load(&n_fsyncs), 0);
    assert_attributes(f, "agent-a", "agent-a Ada [\"x\"] 20 60");
}

static void test_H4_attributes_make_nobody_known_and_their_births_wait(void **at)
{
    fixture *f = *at;
    state_birth birth = { MEMFS_STR("a"), 7 };
    memfs_str label = MEMFS_STR("a");
    state_agent agent = { .id = MEMFS_STR("agent-new"), .name = MEMFS_STR("New") };
    bool is_known;

    assert_ok(state_agent_merge(s, &agent, &birth, 1, &f->err));
    assert_ok(state_agent_known(s, agent.id, &is_known, &f->err));
    assert_false(is_known);
    assert_ok(state_births_add(s, agent.id, &label, 1, 50, &f->err));
    assert_births(f, "agent-new", "", "a=7 ");
}

static void test_tags_from_elsewhere_that_are_no_list_are_refused(void **at)
{
    static const char *const bad[] = { "{}", "[", "x", "\"a\"", "[1" };
    fixture *f = *at;
    state_agent agent = { .id = MEMFS_STR("agent-a"), .name = MEMFS_STR("Ada") };
    memfs_str red = MEMFS_STR("red");
    agent_query q = { .tags = &red, .n_tags = 1 };

    add(f, "agent-a", 1);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        agent.tags_json = str_of(bad[i]);
        assert_code(state_agent_merge(s, &agent, NULL, 0, &f->err), EINVALID);
    }
    assert_attributes(f, "agent-a", "agent-a agent-a [] 1 1");
    assert_agents(&q, ""); /* the list of all agents still reads */
}

/* ---- tokens ---- */

static state_token token_of(const char *id, uint8_t first, int64_t created_at_us)
{
    state_token token = { .id = str_of(id),
                          .name = MEMFS_STR("laptop"),
                          .scope = MEMFS_STR("agent:agent-a:rw"),
                          .created_at_us = created_at_us };

    memset(token.hash, 0, sizeof(token.hash)); /* a hash may have NUL bytes */
    token.hash[0] = first;
    token.hash[31] = 0xff;
    return token;
}

static memfs_code join_tokens(const state_token *token, void *ctx, memfs_error *err)
{
    (void)err;
    assert_int_equal(token->hash[31], 0xff);
    buf_printf(ctx, "%.*s,%.*s,%.*s,%u,%lld,%lld,%lld ", (int)token->id.len, token->id.ptr,
               (int)token->name.len, token->name.ptr, (int)token->scope.len, token->scope.ptr,
               token->hash[0], (long long)token->created_at_us, (long long)token->expires_at_us,
               (long long)token->revoked_at_us);
    return MEMFS_OK;
}

static void assert_tokens(fixture *f, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);

    assert_ok(state_tokens(s, join_tokens, &text, &f->err));
    assert_string_equal(text.ptr, expected);
}

static void test_S4_tokens_are_kept_by_hash_and_a_revoked_one_keeps_its_row(void **at)
{
    fixture *f = *at;
    state_token first = token_of("00000001", 1, 20), second = token_of("00000002", 2, 10);
    state_token same_hash = token_of("00000003", 1, 30), same_id = token_of("00000001", 3, 30);

    second.name = MEMFS_STR("");
    second.scope = MEMFS_STR("admin");
    second.expires_at_us = 99;
    assert_tokens(f, "");
    assert_ok(state_token_add(s, &first, &f->err));
    assert_ok(state_token_add(s, &second, &f->err));
    assert_code(state_token_add(s, &same_hash, &f->err), EEXISTS);
    assert_code(state_token_add(s, &same_id, &f->err), EEXISTS);
    assert_ok(state_token_revoke(s, first.id, 50, &f->err));
    assert_ok(state_token_revoke(s, first.id, 60, &f->err)); /* stays as it is */
    assert_code(state_token_revoke(s, MEMFS_STR("0000000a"), 60, &f->err), ENOTFOUND);
    for (int i = 0; i < 2; i++) {
        assert_tokens(f, "00000002,,admin,2,10,99,0 "
                         "00000001,laptop,agent:agent-a:rw,1,20,0,50 ");
        close_state();
        open_state(f);
    }
}

static memfs_code refuse_token(const state_token *token, void *ctx, memfs_error *err)
{
    (void)token;
    (void)ctx;
    return memfs_fail(err, MEMFS_EDENIED, "enough");
}

static void test_a_damaged_hash_is_no_token(void **at)
{
    fixture *f = *at;
    state_token token = token_of("00000001", 1, 20);

    assert_ok(state_token_add(s, &token, &f->err));
    assert_code(state_tokens(s, refuse_token, NULL, &f->err), EDENIED);
    meddle(f, "state.db", "UPDATE tokens SET hash = x'01'");
    assert_code(state_tokens(s, refuse_token, NULL, &f->err), ECORRUPT);
}

/* ---- mirrors ---- */

static state_mirror mirror_of(const char *agent, const char *remote, unsigned tip)
{
    return (state_mirror){
        .agent_id = str_of(agent),
        .remote = str_of(remote),
        .mark = MEMFS_STR("0123456789abcdef"),
        .remote_tip = oid_of(tip),
        .seen_at_us = 1,
        .pushed_at_us = 2,
        .proof_at_us = 3,
        .proof_tree = oid_of(77),
        .answer = MEMFS_STR("unreachable"),
        .detail = MEMFS_STR("connection refused"),
        .n_failures = 4,
        .failed_at_us = 5,
        .next_try_us = 6,
        .note = MEMFS_STR("unrelated"),
        .note_text = MEMFS_STR("both roots are kept"),
        .note_at_us = 7,
    };
}

static memfs_code join_mirrors(const state_mirror *m, void *ctx, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];

    (void)err;
    oid_hex(&m->remote_tip, hex);
    buf_printf(ctx, "%.*s/%.*s@%.8s ", (int)m->agent_id.len, m->agent_id.ptr, (int)m->remote.len,
               m->remote.ptr, hex);
    return MEMFS_OK;
}

static void assert_mirrors(fixture *f, const char *agent, const char *remote, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);

    assert_ok(state_mirrors(s, str_of(agent), str_of(remote), join_mirrors, &text, &f->err));
    assert_string_equal(text.ptr, expected);
}

static void test_what_is_known_of_remotes_is_asked_for_by_agent_and_by_remote(void **at)
{
    static const char *const rows[][2] = {
        { "agent-b", "origin" }, { "agent-a", "origin" }, { "agent-a", "backup" }
    };
    fixture *f = *at;

    for (unsigned i = 0; i < 3; i++) {
        state_mirror m = mirror_of(rows[i][0], rows[i][1], i + 1);

        assert_ok(state_mirror_put(s, &m, &f->err));
    }
    assert_mirrors(f, "", "",
                   "agent-a/backup@00000003 agent-a/origin@00000002 agent-b/origin@00000001 ");
    assert_mirrors(f, "agent-a", "", "agent-a/backup@00000003 agent-a/origin@00000002 ");
    assert_mirrors(f, "", "origin", "agent-a/origin@00000002 agent-b/origin@00000001 ");
    assert_mirrors(f, "agent-b", "origin", "agent-b/origin@00000001 ");
    assert_mirrors(f, "agent-b", "backup", "");
    assert_ok(state_mirror_forget(s, MEMFS_STR("origin"), &f->err));
    assert_mirrors(f, "", "", "agent-a/backup@00000003 ");
}

static memfs_code check_mirror(const state_mirror *m, void *ctx, memfs_error *err)
{
    const state_mirror *want = ctx;

    (void)err;
    assert_true(str_equal(m->agent_id, want->agent_id) && str_equal(m->remote, want->remote));
    assert_true(str_equal(m->mark, want->mark) && str_equal(m->answer, want->answer));
    assert_true(str_equal(m->detail, want->detail) && str_equal(m->note, want->note));
    assert_true(str_equal(m->note_text, want->note_text));
    assert_true(oid_equal(&m->remote_tip, &want->remote_tip));
    assert_true(oid_equal(&m->meta_tip, &want->meta_tip));
    assert_true(oid_equal(&m->proof_tree, &want->proof_tree));
    assert_int_equal(m->seen_at_us, want->seen_at_us);
    assert_int_equal(m->pushed_at_us, want->pushed_at_us);
    assert_int_equal(m->proof_at_us, want->proof_at_us);
    assert_int_equal(m->n_failures, want->n_failures);
    assert_int_equal(m->failed_at_us, want->failed_at_us);
    assert_int_equal(m->next_try_us, want->next_try_us);
    assert_int_equal(m->note_at_us, want->note_at_us);
    return MEMFS_EEXISTS;
}

static void test_D1_a_mirrors_row_is_one_fsync_whole_and_none_when_it_says_nothing_new(void **at)
{
    fixture *f = *at;
    state_mirror m = mirror_of("agent-a", "origin", 1);

    assert_ok(state_mirror_put(s, &m, &f->err));
    m.meta_tip = oid_of(5);
    m.detail = MEMFS_STR("");
    m.note = MEMFS_STR("");
    m.n_failures = 0;
    atomic_store(&n_fsyncs, 0);
    assert_ok(state_mirror_put(s, &m, &f->err));
    assert_int_equal(atomic_load(&n_fsyncs), 1);
    assert_ok(state_mirror_put(s, &m, &f->err));
    assert_ok(state_mirror_forget(s, MEMFS_STR("nobody"), &f->err));
    assert_int_equal(atomic_load(&n_fsyncs), 1);
    close_state();
    open_state(f);
    assert_code(state_mirrors(s, m.agent_id, m.remote, check_mirror, &m, &f->err), EEXISTS);
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

static bool is_asleep(int tid)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    char path[64];
    memfs_error err;

    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
    return fs_read(path, &text, &err) == MEMFS_OK && strstr(text.ptr, ") S ") != NULL;
}

/* Asleep in thirty looks on end: it waits for the lock, as there is nothing else to wait for. */
static void begin_and_wait(queued *q)
{
    int n_asleep = 0;

    assert_int_equal(pthread_create(&q->thread, NULL, write_once, q), 0);
    while (n_asleep < 30) {
        int tid = atomic_load(&q->tid);

        n_asleep = tid != 0 && is_asleep(tid) ? n_asleep + 1 : 0;
        clock_sleep_ms(1);
    }
}

static void test_L3_a_push_waits_for_one_mirrors_row_at_most(void **at)
{
    queued all[] = { { .name = 'a' }, { .name = 'b' }, { .name = 'c' }, { .name = 'd' },
                     { .name = 'P' } };
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

enum { N_PUTTERS = 4, N_PUTS = 60 };

static void *put_many(void *ctx)
{
    unsigned *number = ctx;
    char agent[32], id[16];
    memfs_error err;

    for (unsigned i = 0; i < N_PUTS; i++) {
        snprintf(agent, sizeof(agent), "agent-%u", i % 7);
        snprintf(id, sizeof(id), "%04x%04x", *number, i);
        state_mirror m = mirror_of(agent, "origin", i + 1);
        state_token token = token_of(id, (uint8_t)(*number * N_PUTS + i), i);
        state_birth birth = { str_of(agent), 1000 - i };
        state_agent attributes = { .id = str_of(agent), .name = str_of(id) };

        token.hash[1] = (uint8_t)*number;
        if (state_mirror_put(s, &m, &err) < 0 ||
            state_agent_add(s, str_of(agent), MEMFS_STR("org"), 1, &err) < 0 ||
            state_agent_merge(s, &attributes, &birth, 1, &err) < 0 ||
            state_token_add(s, &token, &err) < 0 ||
            state_token_revoke(s, token.id, 1, &err) < 0)
            abort();
    }
    return NULL;
}

static memfs_code count_tokens(const state_token *token, void *ctx, memfs_error *err)
{
    (void)err;
    *(unsigned *)ctx += token->revoked_at_us == 1;
    return MEMFS_OK;
}

static void test_many_threads_write_and_read_all_tables(void **at)
{
    unsigned numbers[N_PUTTERS], n_revoked = 0;
    pthread_t threads[N_PUTTERS];
    fixture *f = *at;

    for (unsigned i = 0; i < N_PUTTERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, put_many, &numbers[i]), 0);
    }
    for (unsigned i = 0; i < 50; i++) {
        _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);
        unsigned n = 0;

        assert_ok(state_mirrors(s, MEMFS_STR(""), MEMFS_STR(""), join_mirrors, &text, &f->err));
        assert_ok(state_tokens(s, count_tokens, &n, &f->err));
    }
    for (unsigned i = 0; i < N_PUTTERS; i++)
        pthread_join(threads[i], NULL);
    assert_ok(state_tokens(s, count_tokens, &n_revoked, &f->err));
    assert_int_equal(n_revoked, N_PUTTERS * N_PUTS);
    assert_births(f, "agent-0", "", "agent-0=944 "); /* 1000 less the last i with i % 7 == 0 */
    assert_ok(state_check(s, &f->err));
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
        ON_STATE(test_K4_attributes_from_elsewhere_keep_the_earlier_times),
        ON_STATE(test_H4_attributes_make_nobody_known_and_their_births_wait),
        ON_STATE(test_tags_from_elsewhere_that_are_no_list_are_refused),
        ON_STATE(test_S4_tokens_are_kept_by_hash_and_a_revoked_one_keeps_its_row),
        ON_STATE(test_a_damaged_hash_is_no_token),
        ON_STATE(test_what_is_known_of_remotes_is_asked_for_by_agent_and_by_remote),
        ON_STATE(test_D1_a_mirrors_row_is_one_fsync_whole_and_none_when_it_says_nothing_new),
        ON_STATE(test_L3_a_push_waits_for_one_mirrors_row_at_most),
        ON_STATE(test_many_threads_write_and_read_all_tables),
        ON_STATE(test_F29_the_state_of_the_first_release_is_brought_up),
        ON_STATE(test_F29_an_upgrade_killed_at_any_write_is_finished_by_the_next_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
