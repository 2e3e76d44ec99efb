#include "cache_fixture.h"

#include "base/clock.h"
#include "cache/sqlite_db.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- faults of the disk: sqlite lets us replace its system calls, fdatasync we take over ---- */

static atomic_int writes_until_fault; /* 0: no fault */
static atomic_bool fault_stays;
static atomic_int fault_errno;
static atomic_bool fsync_fails;
static atomic_int n_fsyncs;

static ssize_t faulty_pwrite(int fd, const void *bytes, size_t n, off_t at)
{
    if (atomic_load(&writes_until_fault) > 0 && atomic_fetch_sub(&writes_until_fault, 1) == 1) {
        if (atomic_load(&fault_stays))
            atomic_store(&writes_until_fault, 1);
        errno = atomic_load(&fault_errno);
        return -1;
    }
    return pwrite(fd, bytes, n, at);
}

int fdatasync(int fd)
{
    atomic_fetch_add(&n_fsyncs, 1);
    if (atomic_load(&fsync_fails)) {
        errno = EIO;
        return -1;
    }
    return fsync(fd);
}

static int install_faults(void **unused)
{
    sqlite3_vfs *vfs;

    (void)unused;
    sqlite3_initialize();
    vfs = sqlite3_vfs_find(NULL);
    assert_int_equal(vfs->xSetSystemCall(vfs, "pwrite64", (sqlite3_syscall_ptr)faulty_pwrite),
                     SQLITE_OK);
    return 0;
}

static int setup_faultless(void **at)
{
    atomic_store(&writes_until_fault, 0);
    atomic_store(&fsync_fails, false);
    return setup_folder(at);
}

/* ---- damage ---- */

static void overwrite(fixture *f, const char *file, off_t from, size_t n)
{
    int fd = open(in_root(f, file), O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(pwrite(fd, "\xA5", 1, from + (off_t)i), 1);
    close(fd);
}

static void damage_header(fixture *f)
{
    overwrite(f, "cache.db", 0, 100);
}

static void damage_schema(fixture *f)
{
    overwrite(f, "cache.db", 100, 3900);
}

static void cut_in_half(fixture *f)
{
    struct stat st;

    assert_int_equal(stat(in_root(f, "cache.db"), &st), 0);
    assert_int_equal(truncate(in_root(f, "cache.db"), st.st_size / 2), 0);
}

static void cut_to_nothing(fixture *f)
{
    assert_int_equal(truncate(in_root(f, "cache.db"), 0), 0);
}

static void be_newer(fixture *f)
{
    meddle(f, "cache.db", "PRAGMA user_version = 99");
}

static void be_another_kind(fixture *f)
{
    assert_int_equal(unlink(in_root(f, "cache.db")), 0);
    meddle(f, "cache.db", "CREATE TABLE accounts(x)");
}

/* How many databases were set aside; the name of one in name. */
static size_t set_aside(fixture *f, char name[256])
{
    DIR *folder = opendir(f->root);
    struct dirent *entry;
    size_t n = 0;

    while ((entry = readdir(folder)) != NULL) {
        size_t len = strlen(entry->d_name);

        if (strncmp(entry->d_name, "cache.db.broken-", 16) != 0 || entry->d_name[len - 1] != 'Z')
            continue;
        n++;
        snprintf(name, 256, "%s", entry->d_name);
    }
    closedir(folder);
    return n;
}

static void test_F23_a_damaged_cache_is_set_aside_and_begun_anew(void **at)
{
    static void (*const damages[])(fixture *) = {
        damage_header, damage_schema, cut_in_half, cut_to_nothing, be_newer, be_another_kind,
    };
    fixture *f = *at;
    struct stat damaged, kept;
    char name[256];

    for (size_t i = 0; i < ARRAY_LEN(damages); i++) {
        open_cache(f);
        assert_false(f->was_reset && i == 0);
        assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
        close_cache(f);
        damages[i](f);
        assert_int_equal(stat(in_root(f, "cache.db"), &damaged), 0);
        open_cache(f);
        assert_true(f->was_reset);
        assert_string_equal(value_of(f, "agent-a", "x"), "(absent)");
        assert_int_equal(set_aside(f, name), 1); /* the newest only */
        assert_int_equal(stat(in_root(f, name), &kept), 0);
        assert_int_equal(kept.st_ino, damaged.st_ino);
        assert_ok(cache_check(f->cache, &f->err));
        close_cache(f);
        assert_int_equal(unlink(in_root(f, "cache.db")), 0);
    }
}

static void test_F23_a_whole_cache_is_not_set_aside(void **at)
{
    fixture *f = *at;
    char name[256];

    for (unsigned i = 0; i < 3; i++) {
        open_cache(f);
        assert_false(f->was_reset);
        assert_ok(apply_one(f, "agent-a", i, i + 1, "x", "one"));
        close_cache(f);
    }
    assert_int_equal(set_aside(f, name), 0);
}

static void test_F23_the_log_of_a_deleted_cache_is_not_played_into_the_new_one(void **at)
{
    fixture *f = *at;

    open_cache(f);
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    assert_int_equal(link(in_root(f, "cache.db-wal"), in_root(f, "saved")), 0);
    meddle(f, "cache.db", "PRAGMA wal_checkpoint(PASSIVE)");
    close_cache(f);
    assert_int_equal(unlink(in_root(f, "cache.db")), 0);
    unlink(in_root(f, "cache.db-wal"));
    assert_int_equal(rename(in_root(f, "saved"), in_root(f, "cache.db-wal")), 0);
    open_cache(f);
    assert_string_equal(value_of(f, "agent-a", "x"), "(absent)");
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    assert_ok(cache_check(f->cache, &f->err));
}

/* Damage below the pages that opening looks at, met in the middle of the day. */
static void test_F23_damage_met_at_runtime_is_told_and_reset_makes_it_anew(void **at)
{
    fixture *f = *at;
    block_query q = { .agent_id = MEMFS_STR("agent-a"), .show_hidden = true };
    memfs_str rule = MEMFS_STR("the rule");
    struct stat before, after;
    bool has_changed;

    open_cache(f);
    assert_ok(cache_rule(f->cache, rule, &has_changed, &f->err));
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    assert_ok(cache_scrub(f->cache, &f->err)); /* into the database, out of the log */
    assert_int_equal(stat(in_root(f, "cache.db"), &before), 0);
    overwrite(f, "cache.db", 4096, (size_t)before.st_size - 4096);
    assert_code(cache_blocks(f->cache, &q, join_labels, NULL, &f->err), ECORRUPT);
    assert_non_null(strstr(f->err.msg, "the block cache is damaged"));
    assert_code(cache_check(f->cache, &f->err), ECORRUPT);
    assert_ok(cache_reset(f->cache, &f->err));
    assert_string_equal(value_of(f, "agent-a", "x"), "(absent)");
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "made anew"));
    assert_string_equal(value_of(f, "agent-a", "x"), "made anew");
    assert_ok(cache_check(f->cache, &f->err));
    /* of many threads that met the damage, the second must not drop what the first made anew */
    assert_int_equal(stat(in_root(f, "cache.db"), &before), 0);
    assert_ok(cache_reset(f->cache, &f->err));
    assert_int_equal(stat(in_root(f, "cache.db"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_string_equal(value_of(f, "agent-a", "x"), "made anew");
    close_cache(f); /* and it was made under the same rule */
    open_cache(f);
    assert_ok(cache_rule(f->cache, rule, &has_changed, &f->err));
    assert_false(has_changed);
    assert_string_equal(value_of(f, "agent-a", "x"), "made anew");
}

static void test_F23_a_missing_table_is_damage(void **at)
{
    fixture *f = *at;
    block_query q = { .agent_id = MEMFS_STR("agent-a") };

    open_cache(f);
    meddle(f, "cache.db", "DROP TABLE blocks");
    assert_code(cache_blocks(f->cache, &q, join_labels, NULL, &f->err), ECORRUPT);
    assert_code(apply_one(f, "agent-a", 0, 1, "x", "one"), ECORRUPT);
    assert_ok(cache_reset(f->cache, &f->err));
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
}

/* verify compares with git, but what an index hides only a check of the file shows */
static void test_F23_a_check_finds_an_index_that_disagrees_with_its_table(void **at)
{
    fixture *f = *at;

    open_cache(f);
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    close_cache(f);
    meddle(f, "cache.db",
           "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = "
           "'CREATE INDEX by_id ON blocks(path)' WHERE name = 'by_id'");
    open_cache(f);
    assert_code(cache_check(f->cache, &f->err), ECORRUPT);
    assert_ok(cache_reset(f->cache, &f->err));
    assert_ok(cache_check(f->cache, &f->err));
}

static void test_F23_files_deleted_under_us_are_noticed_and_made_anew(void **at)
{
    static const char *const gone[] = { "cache.db", "cache.db-wal", "cache.db-shm" };
    fixture *f = *at;
    unsigned tip = 0;

    open_cache(f);
    for (size_t i = 0; i < 3; i++) {
        assert_true(cache_is_there(f->cache));
        assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
        assert_string_equal(value_of(f, "agent-a", "x"), "one");
        assert_int_equal(unlink(in_root(f, gone[i])), 0);
        assert_false(cache_is_there(f->cache));
        assert_code(apply_one(f, "agent-a", 1, 2, "x", "into nowhere"), ECORRUPT);
        assert_non_null(strstr(f->err.msg, "deleted or replaced"));
        assert_code(cache_scrub(f->cache, &f->err), ECORRUPT);
        assert_string_equal(value_of(f, "agent-a", "x"), "one"); /* an old reader ends in peace */
        assert_ok(cache_reset(f->cache, &f->err));
        assert_true(cache_is_there(f->cache));
        assert_string_equal(value_of(f, "agent-a", "x"), "(absent)");
    }
    assert_ok(apply_one(f, "agent-a", tip, 1, "x", "two"));
    close_cache(f);
    open_cache(f);
    assert_string_equal(value_of(f, "agent-a", "x"), "two");
}

static void *read_in_thread(void *ctx)
{
    fixture *f = ctx;
    block_query q = { .agent_id = MEMFS_STR("agent-a") };

    return (void *)(intptr_t)cache_blocks(f->cache, &q, join_labels, NULL, &f->err);
}

static void test_F23_a_new_reader_does_not_open_a_file_put_in_its_place(void **at)
{
    fixture *f = *at;
    pthread_t thread;
    void *code;

    open_cache(f);
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    assert_int_equal(unlink(in_root(f, "cache.db")), 0);
    meddle(f, "cache.db", "CREATE TABLE blocks(x)");
    pthread_create(&thread, NULL, read_in_thread, f);
    pthread_join(thread, &code);
    assert_int_equal((intptr_t)code, MEMFS_ECORRUPT);
    assert_ok(cache_reset(f->cache, &f->err));
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "two"));
}

/* ---- somebody else holds it ---- */

typedef struct holder {
    sqlite3 *other;
    int hold_ms;
} holder;

static void *let_go_later(void *ctx)
{
    holder *h = ctx;

    clock_sleep_ms(h->hold_ms);
    sqlite3_exec(h->other, "ROLLBACK", NULL, NULL, NULL);
    return NULL;
}

static void hold(fixture *f, holder *h, const char *sql)
{
    assert_int_equal(sqlite3_open(in_root(f, "cache.db"), &h->other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(h->other, sql, NULL, NULL, NULL), SQLITE_OK);
}

static void test_F23_a_short_lock_of_another_is_waited_for(void **at)
{
    fixture *f = *at;
    holder h = { NULL, 3000 };
    pthread_t thread;
    int64_t start;

    open_cache(f);
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    hold(f, &h, "BEGIN IMMEDIATE");
    start = clock_mono_ms();
    pthread_create(&thread, NULL, let_go_later, &h);
    assert_string_equal(value_of(f, "agent-a", "x"), "one"); /* readers do not wait */
    assert_true(clock_mono_ms() - start < 2500);
    assert_ok(apply_one(f, "agent-a", 1, 2, "x", "two"));
    assert_true(clock_mono_ms() - start >= 2500);
    pthread_join(thread, NULL);
    sqlite3_close(h.other);
}

static void *open_in_thread(void *ctx)
{
    fixture *f = ctx;

    return (void *)(intptr_t)cache_open_sqlite(f->root, &f->cache, &f->was_reset, &f->err);
}

static void test_F23_a_long_lock_of_another_is_unavailable_after_five_seconds(void **at)
{
    fixture *f = *at, *second = fixture_new("held");
    holder writing = { NULL, 0 }, everything = { NULL, 0 };
    pthread_t thread;
    char name[256];
    int64_t start;
    void *code;

    open_cache(f);
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    hold(f, &writing, "BEGIN IMMEDIATE");
    open_cache(second);
    close_cache(second);
    hold(second, &everything,
         "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; "
         "UPDATE meta SET generation = 1");
    start = clock_mono_ms();
    pthread_create(&thread, NULL, open_in_thread, second);
    assert_code(apply_one(f, "agent-a", 1, 2, "x", "two"), EUNAVAIL);
    assert_true(clock_mono_ms() - start >= 4500);
    pthread_join(thread, &code);
    assert_int_equal((intptr_t)code, MEMFS_EUNAVAIL);
    assert_int_equal(set_aside(second, name), 0); /* busy is not broken */
    sqlite3_close(writing.other);
    sqlite3_close(everything.other);
    assert_string_equal(value_of(f, "agent-a", "x"), "one");
    assert_ok(apply_one(f, "agent-a", 1, 2, "x", "two"));
    open_cache(second);
    assert_false(second->was_reset);
    fixture_free(second);
}

static void test_F23_a_folder_that_may_only_be_read_is_denied(void **at)
{
    fixture *f = *at;
    char name[256];
    memfs_code codes[2];

    assert_int_equal(chmod(f->root, 0555), 0);
    if (geteuid() == 0)
        assert_int_equal(seteuid(65534), 0);
    codes[0] = cache_open_sqlite(f->root, &f->cache, &f->was_reset, &f->err);
    if (getuid() == 0) {
        assert_int_equal(seteuid(0), 0);
        open_cache(f);
        close_cache(f);
        assert_int_equal(seteuid(65534), 0);
        codes[1] = cache_open_sqlite(f->root, &f->cache, &f->was_reset, &f->err);
        assert_int_equal(seteuid(0), 0);
        assert_int_equal(codes[1], MEMFS_EDENIED);
    }
    assert_int_equal(chmod(f->root, 0755), 0);
    assert_int_equal(codes[0], MEMFS_EDENIED);
    assert_int_equal(set_aside(f, name), 0);
}

static void test_a_folder_that_is_not_there_is_an_error(void **at)
{
    fixture *f = *at;

    assert_code(cache_open_sqlite(in_root(f, "absent"), &f->cache, &f->was_reset, &f->err),
                ENOTFOUND);
}

/* ---- the disk refuses ---- */

/* Fails the n-th write, for n = 1, 2, ... until nothing fails; each time all is as it was before.
 */
static void refuse_each_write(fixture *f, int number, bool stays, memfs_code want)
{
    char text[20000];
    unsigned tip = 1;
    memfs_code rc;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "before"));
    for (int n = 1;; n++) {
        atomic_store(&fault_errno, number);
        atomic_store(&fault_stays, stays);
        atomic_store(&writes_until_fault, n);
        rc = apply_one(f, "agent-a", tip, tip + 1, "x", text);
        if (atomic_exchange(&writes_until_fault, 0) > 1 || rc == MEMFS_OK)
            break;
        assert_int_equal(rc, want);
        assert_string_equal(value_of(f, "agent-a", "x"), "before");
        assert_ok(apply_one(f, "agent-a", tip, tip + 1, "y", "room again"));
        tip++;
        assert_true(n < 1000);
    }
    assert_true(tip > 3); /* something did fail */
    assert_ok(cache_check(f->cache, &f->err));
}

static void test_F06_a_full_disk_refuses_the_change_whole_and_reads_go_on(void **at)
{
    open_cache(*at);
    refuse_each_write(*at, ENOSPC, true, MEMFS_ENOSPACE);
}

static void test_F06_one_failing_write_refuses_the_change_whole(void **at)
{
    open_cache(*at);
    refuse_each_write(*at, EIO, false, MEMFS_EINTERNAL);
}

static void test_F05_after_a_failed_fsync_the_cache_is_not_trusted(void **at)
{
    fixture *f = *at;
    size_t len = 6 << 20; /* enough for a checkpoint, which is when the cache is synced */
    char *text = mem_alloc(len + 1);

    memset(text, 'x', len);
    open_cache(f);
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "the head of the log is synced"));
    atomic_store(&fsync_fails, true);
    assert_ok(apply_one(f, "agent-a", 1, 2, "x", text));
    atomic_store(&fsync_fails, false); /* the second fsync would say that all is well */
    assert_code(apply_one(f, "agent-a", 2, 3, "y", "more"), ECORRUPT);
    assert_ok(cache_reset(f->cache, &f->err));
    atomic_store(&fsync_fails, true); /* of the head of the new log: the change is refused */
    assert_code(apply_one(f, "agent-a", 0, 1, "x", "anew"), EINTERNAL);
    atomic_store(&fsync_fails, false);
    assert_string_equal(value_of(f, "agent-a", "x"), "(absent)");
    assert_code(apply_one(f, "agent-a", 0, 1, "x", "anew"), ECORRUPT);
    assert_ok(cache_reset(f->cache, &f->err));
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "anew"));
    free(text);
}

static void test_a_small_change_of_the_cache_waits_for_no_fsync(void **at)
{
    fixture *f = *at;

    open_cache(f);
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    atomic_store(&n_fsyncs, 0);
    assert_ok(apply_one(f, "agent-a", 1, 2, "x", "two"));
    assert_int_equal(atomic_load(&n_fsyncs), 0);
}

/* ---- F29: migrations ---- */

static const char *const STEPS_FAILING[] = {
    "CREATE TABLE one(x); INSERT INTO one VALUES(1)",
    "CREATE TABLE two(x); INSERT INTO two VALUES(1); INSERT INTO absent VALUES(1)",
    NULL,
};
static const char *const STEPS_ENDLESS[] = {
    "CREATE TABLE one(x); INSERT INTO one VALUES(1)",
    "CREATE TABLE two(x); INSERT INTO two WITH RECURSIVE n(i) AS "
    "(SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
    NULL,
};
static const char *const STEPS_GOOD[] = {
    "CREATE TABLE one(x); INSERT INTO one VALUES(1)",
    "CREATE TABLE two(x); INSERT INTO two VALUES(1)",
    "CREATE TABLE three(x); INSERT INTO three SELECT x FROM one",
    NULL,
};
static const char *const STEPS_FIRST[] = { "CREATE TABLE one(x); INSERT INTO one VALUES(1)", NULL };

static sqlite_spec spec_of(const char *const *migrations, bool is_disposable)
{
    return (sqlite_spec){ .what = "test",
                          .file = "test.db",
                          .application_id = 4711,
                          .migrations = migrations,
                          .is_durable = true,
                          .is_disposable = is_disposable,
                          .remedy = ": ask" };
}

static int64_t number_of(fixture *f, const char *sql)
{
    sqlite3 *other;
    sqlite3_stmt *stmt;
    int64_t n = -1;

    assert_int_equal(sqlite3_open(in_root(f, "test.db"), &other), SQLITE_OK);
    if (sqlite3_prepare_v2(other, sql, -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        n = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(other);
    return n;
}

static memfs_code migrate_to(fixture *f, const char *const *migrations)
{
    sqlite_spec spec = spec_of(migrations, false);
    sqlite_db *db = NULL;
    bool was_reset;
    memfs_code rc = sqlite_db_open(&spec, f->root, &db, &was_reset, &f->err);

    sqlite_db_close(db);
    return rc;
}

static void assert_at_step_one(fixture *f)
{
    assert_int_equal(number_of(f, "PRAGMA user_version"), 1);
    assert_int_equal(number_of(f, "SELECT count(*) FROM one"), 1);
    assert_int_equal(number_of(f, "SELECT count(*) FROM sqlite_master WHERE name = 'two'"), 0);
}

static void assert_at_step_three(fixture *f)
{
    assert_int_equal(number_of(f, "PRAGMA user_version"), 3);
    assert_int_equal(number_of(f, "SELECT count(*) FROM one"), 1);
    assert_int_equal(number_of(f, "SELECT count(*) FROM two"), 1);
    assert_int_equal(number_of(f, "SELECT x FROM three"), 1);
}

static void test_F29_a_failing_step_leaves_the_one_before_and_is_run_again(void **at)
{
    fixture *f = *at;

    assert_ok(migrate_to(f, STEPS_FIRST));
    assert_true(migrate_to(f, STEPS_FAILING) < 0);
    assert_non_null(strstr(f->err.msg, "schema step 2"));
    assert_at_step_one(f);
    assert_ok(migrate_to(f, STEPS_GOOD));
    assert_at_step_three(f);
    assert_ok(migrate_to(f, STEPS_GOOD));
    assert_at_step_three(f);
}

static void test_F29_a_kill_inside_a_step_leaves_the_one_before(void **at)
{
    fixture *f = *at;
    pid_t child;
    int status;

    assert_ok(migrate_to(f, STEPS_FIRST));
    for (int ms = 20; ms <= 320; ms *= 2) {
        child = fork();
        assert_true(child >= 0);
        if (child == 0)
            _exit(migrate_to(f, STEPS_ENDLESS) == MEMFS_OK);
        clock_sleep_ms(ms);
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status)); /* it was at it */
        assert_at_step_one(f);
    }
    assert_ok(migrate_to(f, STEPS_GOOD));
    assert_at_step_three(f);
}

static void test_F29_a_kill_while_a_file_is_made_leaves_no_half_file(void **at)
{
    fixture *f = *at;
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0)
        _exit(migrate_to(f, STEPS_ENDLESS) == MEMFS_OK);
    while (!fs_exists(in_root(f, "test.db.new-journal"))) {
        assert_int_equal(waitpid(child, &status, WNOHANG), 0); /* it is endless */
        clock_sleep_ms(5);
    }
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(fs_exists(in_root(f, "test.db")));
    assert_ok(migrate_to(f, STEPS_GOOD));
    assert_at_step_three(f);
    assert_false(fs_exists(in_root(f, "test.db.new")));
    assert_false(fs_exists(in_root(f, "test.db.new-journal")));
}

static void test_F29_a_newer_schema_is_refused_and_left_as_it_is(void **at)
{
    fixture *f = *at;
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(buf_dispose) memfs_buf after = MEMFS_BUF_INIT(1 << 20);

    assert_ok(migrate_to(f, STEPS_GOOD));
    assert_ok(fs_read(in_root(f, "test.db"), &before, &f->err));
    assert_code(migrate_to(f, STEPS_FIRST), ECORRUPT);
    assert_non_null(strstr(f->err.msg, "made by a newer memfs (schema 3, this one knows 1)"));
    assert_ok(fs_read(in_root(f, "test.db"), &after, &f->err));
    assert_true(str_equal(buf_str(&before), buf_str(&after)));
    assert_ok(migrate_to(f, STEPS_GOOD));
}

/* ---- T28: what was deleted is nowhere ---- */

static void assert_nowhere(fixture *f, const char *needle)
{
    DIR *folder = opendir(f->root);
    struct dirent *entry;

    while ((entry = readdir(folder)) != NULL) {
        _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(256 << 20);

        if (entry->d_name[0] == '.')
            continue;
        assert_ok(fs_read(in_root(f, entry->d_name), &bytes, &f->err));
        if (memmem(bytes.ptr, bytes.len, needle, strlen(needle)) != NULL)
            fail_msg("'%s' is in %s", needle, entry->d_name);
    }
    closedir(folder);
}

static void test_T28_a_purged_text_is_nowhere_on_disk(void **at)
{
    static const char needle[] = "hunter2-hunter2";
    fixture *f = *at;
    unsigned tip = 0, seed = 7;
    char name[256];

    open_cache(f);
    for (unsigned i = 0; i < 400; i++, tip++) { /* texts of many sizes come, change and go */
        char label[64], text[12000];
        size_t len;

        seed = seed * 1103515245 + 12345;
        len = (seed >> 16) % (i % 3 == 0 ? 11000 : 700);
        snprintf(label, sizeof(label), "%s-%u", needle, (seed >> 8) % 60);
        memset(text, '.', len);
        text[len] = '\0';
        for (size_t at_byte = 0; at_byte + sizeof(needle) < len; at_byte += 200)
            memcpy(text + at_byte, needle, sizeof(needle) - 1);
        assert_ok(apply_one(f, "agent-a", tip, tip + 1, label, i % 5 == 4 ? NULL : text));
        assert_ok(
            apply_one(f, "agent-b", tip, tip + 1, label + sizeof(needle), text + sizeof(needle)));
        assert_ok(apply_one(f, "agent-b", tip + 1, tip + 1, label + sizeof(needle), "harmless"));
    }
    close_cache(f);
    damage_header(f); /* a cache with the text in it is set aside, too */
    open_cache(f);
    assert_true(f->was_reset);
    for (tip = 0; tip < 30; tip++)
        assert_ok(apply_one(f, "agent-a", tip, tip + 1, tip % 2 ? "x" : "y", needle));
    assert_ok(apply_one(f, "agent-a", tip, tip + 1, "x", "harmless"));
    assert_ok(apply_one(f, "agent-a", tip + 1, tip + 2, "y", "harmless"));
    assert_int_equal(set_aside(f, name), 1);
    assert_ok(cache_scrub(f->cache, &f->err));
    assert_int_equal(set_aside(f, name), 0);
    assert_nowhere(f, needle);
}

/* The same over a file with a history of moves and splits: freed space is overwritten as it is
 * freed. */
static void test_T28_no_remains_after_pages_were_split_and_merged(void **at)
{
    static const char needle[] = "hunter2-hunter2";
    fixture *f = *at;
    unsigned tip = 0, seed = 11;

    open_cache(f);
    for (unsigned i = 0; i < 1500; i++, tip++) {
        char label[64], text[3000];
        size_t len;

        seed = seed * 1103515245 + 12345;
        len = (seed >> 16) % sizeof(text);
        snprintf(label, sizeof(label), "%u", (seed >> 4) % 90);
        memset(text, 'a' + (char)(i % 26), len);
        text[len > 0 ? len - 1 : 0] = '\0';
        if (i % 2 == 0 && len > 40)
            memcpy(text + len / 2, needle, sizeof(needle) - 1);
        assert_ok(apply_one(f, "agent-a", tip, tip + 1, label, i % 7 == 6 ? NULL : text));
    }
    for (unsigned i = 0; i < 90; i++, tip++) {
        char label[64];

        snprintf(label, sizeof(label), "%u", i);
        assert_ok(apply_one(f, "agent-a", tip, tip + 1, label, i % 3 == 0 ? NULL : "harmless"));
    }
    assert_ok(cache_scrub(f->cache, &f->err));
    assert_nowhere(f, needle);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup_faultless, teardown)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_F23_a_damaged_cache_is_set_aside_and_begun_anew),
        IN_FOLDER(test_F23_a_whole_cache_is_not_set_aside),
        IN_FOLDER(test_F23_the_log_of_a_deleted_cache_is_not_played_into_the_new_one),
        IN_FOLDER(test_F23_damage_met_at_runtime_is_told_and_reset_makes_it_anew),
        IN_FOLDER(test_F23_a_missing_table_is_damage),
        IN_FOLDER(test_F23_a_check_finds_an_index_that_disagrees_with_its_table),
        IN_FOLDER(test_F23_files_deleted_under_us_are_noticed_and_made_anew),
        IN_FOLDER(test_F23_a_new_reader_does_not_open_a_file_put_in_its_place),
        IN_FOLDER(test_F23_a_short_lock_of_another_is_waited_for),
        IN_FOLDER(test_F23_a_long_lock_of_another_is_unavailable_after_five_seconds),
        IN_FOLDER(test_F23_a_folder_that_may_only_be_read_is_denied),
        IN_FOLDER(test_a_folder_that_is_not_there_is_an_error),
        IN_FOLDER(test_F06_a_full_disk_refuses_the_change_whole_and_reads_go_on),
        IN_FOLDER(test_F06_one_failing_write_refuses_the_change_whole),
        IN_FOLDER(test_F05_after_a_failed_fsync_the_cache_is_not_trusted),
        IN_FOLDER(test_a_small_change_of_the_cache_waits_for_no_fsync),
        IN_FOLDER(test_F29_a_failing_step_leaves_the_one_before_and_is_run_again),
        IN_FOLDER(test_F29_a_kill_inside_a_step_leaves_the_one_before),
        IN_FOLDER(test_F29_a_kill_while_a_file_is_made_leaves_no_half_file),
        IN_FOLDER(test_F29_a_newer_schema_is_refused_and_left_as_it_is),
        IN_FOLDER(test_T28_a_purged_text_is_nowhere_on_disk),
        IN_FOLDER(test_T28_no_remains_after_pages_were_split_and_merged),
    };

    return cmocka_run_group_tests(tests, install_faults, NULL);
}
