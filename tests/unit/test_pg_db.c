/*
 * What pg_db.h promises, against a real server: tests/with-postgres lends one to this program
 * alone, so that connections can be ended and refused here.
 */
#include "state_fixture.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- a network that loses answers, and counts connections ---- */

static const char *cut_text; /* the next message with these bytes arrives, its answer does not */
static int cut_fd = -1;
static atomic_int n_connects;

ssize_t send(int fd, const void *bytes, size_t n, int flags)
{
    bool is_cut = cut_text != NULL && memmem(bytes, n, cut_text, strlen(cut_text)) != NULL;
    ssize_t done = syscall(SYS_sendto, fd, bytes, n, flags, NULL, 0);
    struct pollfd answer = { .fd = fd, .events = POLLIN };

    if (is_cut) {
        cut_text = NULL;
        cut_fd = fd;
        poll(&answer, 1, -1); /* the server has done it */
    }
    return done;
}

ssize_t recv(int fd, void *bytes, size_t n, int flags)
{
    if (fd != cut_fd || fd < 0)
        return syscall(SYS_recvfrom, fd, bytes, n, flags, NULL, NULL);
    cut_fd = -1;
    errno = ECONNRESET;
    return -1;
}

int connect(int fd, const struct sockaddr *to, socklen_t n)
{
    atomic_fetch_add(&n_connects, 1);
    return (int)syscall(SYS_connect, fd, to, n);
}

/* ---- works ---- */

static pg_db *db; /* the pool that is tested */

static int setup_db(void **at)
{
    fixture *f = fixture_new("pg");

    *at = f;
    db = pg_open(f);
    return 0;
}

static memfs_code run_sql(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    return pg_exec(c, ctx, &r, err);
}

/* SQL by another pool than the one that is tested, in the database `name`. */
static void other_sql(fixture *f, const char *name, const char *sql)
{
    const char *server = getenv("MEMFS_TEST_DATABASE");
    _cleanup_(mem_freep) char *url = mem_printf("%s&dbname=%s", server, name);
    pg_db *other;

    assert_ok(pg_db_open(url, &other, &f->err));
    assert_ok(pg_work(other, PG_ONE, run_sql, (void *)(uintptr_t)sql, &f->err));
    pg_db_close(other);
}

static const char *own_name(void)
{
    static char name[32];

    snprintf(name, sizeof(name), "test_%d", (int)getpid());
    return name;
}

/* With the name of our database for each %s. */
static void admin(fixture *f, const char *format)
{
    _cleanup_(buf_dispose) memfs_buf sql = MEMFS_BUF_INIT(4096);
    const char *at;

    for (; (at = strstr(format, "%s")) != NULL; format = at + 2) {
        buf_add(&sql, format, (size_t)(at - format));
        buf_puts(&sql, own_name());
    }
    buf_puts(&sql, format);
    other_sql(f, "postgres", sql.ptr);
}

static void end_backends(fixture *f)
{
    admin(f, "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
             "WHERE datname = '%s' AND pid <> pg_backend_pid()");
}

typedef struct number {
    const char *sql;
    int64_t n;
} number;

static memfs_code read_number(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    number *x = ctx;
    memfs_code rc = pg_exec(c, x->sql, &r, err);

    if (rc == MEMFS_OK)
        x->n = strtoll(pg_col_str(&r, 0, 0).ptr, NULL, 10); /* not prepared: as text */
    return rc;
}

static int64_t number_of(fixture *f, const char *sql)
{
    number x = { sql, -1 };

    assert_ok(pg_work(db, PG_ONE, read_number, &x, &f->err));
    return x.n;
}

static int64_t n_backends(fixture *f)
{
    return number_of(f, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()");
}

/* SQL that counts its runs; `before` is done by another pool in the first n of them. */
typedef struct told {
    fixture *f;
    const char *sql, *second, *before;
    unsigned n_before, n_runs;
} told;

static memfs_code tell(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    told *t = ctx;
    bool is_first = t->n_runs++ < t->n_before;
    memfs_code rc = pg_exec(c, t->sql, &r, err);

    if (rc == MEMFS_OK && is_first && t->before != NULL)
        other_sql(t->f, own_name(), t->before);
    return rc < 0 || t->second == NULL ? rc : pg_exec(c, t->second, &r, err);
}

/* ---- what a failure becomes ---- */

static void test_F22_a_failure_is_judged_by_its_state(void **at)
{
    static const struct {
        const char *state, *code;
        unsigned n_runs;
    } cases[] = {
        { "40001", "EUNAVAIL", 9 },  { "40P01", "EUNAVAIL", 9 },  { "08000", "EUNAVAIL", 2 },
        { "08006", "EUNAVAIL", 2 },  { "57P01", "EUNAVAIL", 2 },  { "57P02", "EUNAVAIL", 2 },
        { "57P03", "EUNAVAIL", 2 },  { "25006", "EUNAVAIL", 1 },  { "53100", "ENOSPACE", 1 },
        { "53200", "EUNAVAIL", 1 },  { "53300", "EUNAVAIL", 1 },  { "55P03", "EUNAVAIL", 1 },
        { "57014", "EUNAVAIL", 1 },  { "23505", "EEXISTS", 1 },   { "42501", "EDENIED", 1 },
        { "22012", "EINTERNAL", 1 }, { "40002", "EINTERNAL", 1 }, { "P0001", "EINTERNAL", 1 },
        { "0A000", "EUNAVAIL", 2 },  { "26000", "EUNAVAIL", 2 },
    };
    static const pg_mode modes[] = { PG_ONE, PG_WRITE };
    fixture *f = *at;

    for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(modes); i++) {
        size_t k = i / ARRAY_LEN(modes);
        _cleanup_(mem_freep) char *sql =
            mem_printf("DO $$BEGIN RAISE EXCEPTION 'told' USING ERRCODE = '%s', "
                       "DETAIL = 'a secret', HINT = 'a secret'; END$$",
                       cases[k].state);
        told t = { .sql = sql };
        memfs_code rc = pg_work(db, modes[i % ARRAY_LEN(modes)], tell, &t, &f->err);

        assert_string_equal(memfs_code_name(rc), cases[k].code);
        assert_int_equal(t.n_runs, cases[k].n_runs);
        assert_non_null(strstr(f->err.msg, "told"));
        assert_null(strstr(f->err.msg, "secret"));
        assert_int_equal(number_of(f, "SELECT 7"), 7); /* no work pays for the one before */
    }
}

static memfs_code read_prepared(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    (void)ctx;
    return pg_query(c, 7 << 16, "SELECT n FROM x", NULL, &r, err);
}

static void make_row(fixture *f)
{
    number made = { "CREATE TABLE x(id int8 PRIMARY KEY, n int8); INSERT INTO x VALUES(1, 0), "
                    "(2, 0); SELECT 1",
                    0 };

    assert_ok(pg_work(db, PG_WRITE, read_number, &made, &f->err));
}

#define SERIALIZABLE "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT n FROM x"

static void test_F22_a_work_that_collided_is_begun_again(void **at)
{
    fixture *f = *at;
    told t = { .f = f,
               .sql = SERIALIZABLE,
               .before = "UPDATE x SET n = n + 10 WHERE id = 1",
               .second = "UPDATE x SET n = n + 1 WHERE id = 1",
               .n_before = 3 };

    make_row(f);
    assert_ok(pg_work(db, PG_WRITE, tell, &t, &f->err));
    assert_int_equal(t.n_runs, 4);
    assert_int_equal(number_of(f, "SELECT n FROM x WHERE id = 1"), 31);
    t.n_runs = 0;
    t.n_before = 100; /* somebody who is always faster */
    assert_code(pg_work(db, PG_WRITE, tell, &t, &f->err), EUNAVAIL);
    assert_int_equal(t.n_runs, 9);
}

typedef struct crossing {
    pthread_barrier_t met;
    pthread_t thread;
    struct crossing *other;
    const char *first, *second;
    unsigned n_runs;
} crossing;

static memfs_code cross(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    crossing *x = ctx;
    memfs_code rc = pg_exec(c, x->first, &r, err);

    if (rc == MEMFS_OK && x->n_runs++ == 0)
        pthread_barrier_wait(x->other != NULL ? &x->other->met : &x->met);
    return rc < 0 ? rc : pg_exec(c, x->second, &r, err);
}

static void *cross_once(void *ctx)
{
    memfs_error err;

    if (pg_work(db, PG_WRITE, cross, ctx, &err) < 0)
        abort();
    return NULL;
}

static void test_F22_a_deadlock_is_nobodys_business(void **at)
{
    static const char one[] = "SET LOCAL deadlock_timeout = '10ms';"
                              "UPDATE x SET n = n + 1 WHERE id = 1";
    static const char two[] = "UPDATE x SET n = n + 1 WHERE id = 2";
    fixture *f = *at;
    crossing a = { .first = one, .second = two }, b = { .other = &a, .first = two, .second = one };

    make_row(f);
    pthread_barrier_init(&a.met, NULL, 2);
    assert_int_equal(pthread_create(&a.thread, NULL, cross_once, &a), 0);
    assert_int_equal(pthread_create(&b.thread, NULL, cross_once, &b), 0);
    pthread_join(a.thread, NULL);
    pthread_join(b.thread, NULL);
    pthread_barrier_destroy(&a.met);
    assert_true(a.n_runs + b.n_runs >= 3);
    assert_int_equal(number_of(f, "SELECT sum(n) FROM x"), 4);
}

static void test_F22_what_takes_too_long_or_is_there_already(void **at)
{
    fixture *f = *at;
    told slow = { .sql = "SET LOCAL statement_timeout = '20ms'; SELECT pg_sleep(60)" };
    told late = { .sql = "SET LOCAL lock_timeout = '20ms'; UPDATE x SET n = 9 WHERE id = 1" };
    told twice = { .sql = "INSERT INTO x VALUES(1, 5)" };
    crossing held = { .first = "UPDATE x SET n = 1", .second = "SELECT 1" };

    make_row(f);
    assert_code(pg_work(db, PG_WRITE, tell, &slow, &f->err), EUNAVAIL);
    assert_code(pg_work(db, PG_WRITE, tell, &twice, &f->err), EEXISTS);
    pthread_barrier_init(&held.met, NULL, 2);
    assert_int_equal(pthread_create(&held.thread, NULL, cross_once, &held), 0);
    while (number_of(f, "SELECT count(*) FROM pg_locks WHERE relation = 'x'::regclass AND mode = "
                        "'RowExclusiveLock'") == 0)
        clock_sleep_ms(1);
    /* its rows are locked before or while this one waits, or it waits for this one */
    while (pg_work(db, PG_WRITE, tell, &late, &f->err) == MEMFS_OK)
        ;
    assert_string_equal(memfs_code_name(f->err.code), "EUNAVAIL");
    pthread_barrier_wait(&held.met);
    pthread_join(held.thread, NULL);
    pthread_barrier_destroy(&held.met);
    assert_int_equal(number_of(f, "SELECT n FROM x WHERE id = 1"), 1);
}

/* A migration under us, and a pooler that lends our session to others meanwhile. */
static void test_F22_what_was_prepared_is_prepared_anew(void **at)
{
    static const char *const spoilt[] = { "ALTER TABLE x ALTER COLUMN n TYPE text", "DEALLOCATE ALL" };
    fixture *f = *at;

    make_row(f);
    for (size_t i = 0; i < ARRAY_LEN(spoilt); i++) {
        _cleanup_(mem_freep) char *sql = mem_printf("%s; SELECT 1", spoilt[i]);

        assert_ok(pg_work(db, PG_READ, read_prepared, NULL, &f->err));
        assert_int_equal(number_of(f, sql), 1); /* the last connection of the pool is the first */
        assert_ok(pg_work(db, PG_READ, read_prepared, NULL, &f->err));
    }
}

static void test_L3_for_another_programs_locks_it_waits_as_long_as_it_was_told(void **at)
{
    static const char sql[] = "SELECT setting FROM pg_settings WHERE name = 'lock_timeout'";
    static const struct {
        int lock_ms, is;
    } cases[] = { { 0, 10000 }, { 1234, 1234 } };
    fixture *f = *at;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        number x = { sql, -1 };
        pg_db *other;

        assert_ok(pg_db_open_as_is(pg_url(), cases[i].lock_ms, &other, &f->err));
        assert_ok(pg_work(other, PG_ONE, read_number, &x, &f->err));
        pg_db_close(other);
        assert_int_equal(x.n, cases[i].is);
    }
}

/* ---- connections that break ---- */

enum { N_THREADS = 3 * PG_N_CONNECTIONS, N_WORKS = 10 };

static void *work_often(void *ctx)
{
    memfs_error err;

    for (int i = 0; i < N_WORKS; i++) {
        number x = { "SELECT pg_sleep(0.005); SELECT 1", 0 };

        if (pg_work(db, PG_ONE, read_number, &x, &err) < 0) {
            fprintf(stderr, "%s\n", err.msg);
            abort();
        }
        atomic_fetch_add((atomic_int *)ctx, (int)x.n);
    }
    return NULL;
}

static void work_in_threads(int *ret_n)
{
    pthread_t threads[N_THREADS];
    atomic_int n = 0;

    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work_often, &n), 0);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    *ret_n = atomic_load(&n);
}

static void test_more_threads_than_connections_are_all_served(void **at)
{
    fixture *f = *at;
    int n;

    work_in_threads(&n);
    assert_int_equal(n, N_THREADS * N_WORKS);
    assert_in_range(n_backends(f), 2, PG_N_CONNECTIONS);
}

static void test_F22_after_all_connections_broke_the_next_work_succeeds(void **at)
{
    fixture *f = *at;
    told t = { .sql = "SELECT 1" };
    int n;

    work_in_threads(&n);
    end_backends(f);
    assert_ok(pg_work(db, PG_WRITE, tell, &t, &f->err));
    assert_int_equal(n_backends(f), 1); /* of the others none is kept to be stumbled over */
    end_backends(f);
    work_in_threads(&n);
    assert_int_equal(n, N_THREADS * N_WORKS);
}

#define END_OWN "SELECT pg_terminate_backend(pg_backend_pid())"

static memfs_code break_in_the_first(pg_conn *c, void *ctx, memfs_error *err)
{
    told *t = ctx;
    number x = { "INSERT INTO x VALUES(3, 3); " END_OWN, 0 };

    if (t->n_runs++ < t->n_before)
        return read_number(c, &x, err);
    return run_sql(c, (void *)(uintptr_t) "INSERT INTO x VALUES(3, 4)", err);
}

static void test_F22_a_work_whose_connection_breaks_is_begun_again_once(void **at)
{
    fixture *f = *at;
    told once = { .n_before = 1 }, always = { .n_before = 100 };

    make_row(f);
    assert_code(pg_work(db, PG_WRITE, break_in_the_first, &always, &f->err), EUNAVAIL);
    assert_int_equal(always.n_runs, 2);
    assert_ok(pg_work(db, PG_WRITE, break_in_the_first, &once, &f->err));
    assert_int_equal(once.n_runs, 2);
    assert_int_equal(number_of(f, "SELECT n FROM x WHERE id = 3"), 4); /* nothing of the first */
}

/* ---- the COMMIT whose answer is lost ---- */

static memfs_code apply(fixture *f, unsigned from, unsigned to, bool replace_all)
{
    memfs_oid from_oid = oid_of(from);
    block_row row = row_of("a.md", "a", "block-a", "value");
    cache_change change = { MEMFS_STR("a.md"), &row };
    cache_update u = { .agent_id = MEMFS_STR("agent-a"),
                       .from = from > 0 ? &from_oid : NULL,
                       .to = oid_of(to),
                       .replace_all = replace_all,
                       .changes = &change,
                       .n_changes = 1 };

    return cache_apply(f->cache, &u, &f->err);
}

static void assert_tip(fixture *f, unsigned expected)
{
    memfs_oid want = oid_of(expected);
    cache_tip tip;

    assert_ok(cache_tip_get(f->cache, MEMFS_STR("agent-a"), &tip, &f->err));
    assert_true(oid_equal(&tip.commit, &want));
    assert_string_equal(value_of(f, "agent-a", "a"), "value");
}

static void test_F22_a_change_whose_answer_was_lost_is_found_done_and_is_no_conflict(void **at)
{
    fixture *f = *at;

    open_cache(f);
    assert_ok(apply(f, 0, 1, false)); /* prepared from here on, each in one message */
    assert_ok(apply(f, 1, 2, false));
    cut_text = "q"; /* the name of what is prepared: a change is one statement */
    assert_ok(apply(f, 2, 3, false));
    assert_null(cut_text);
    assert_tip(f, 3);
    assert_code(apply(f, 2, 3, false), ECONFLICT); /* nobody lost an answer here */
    assert_code(apply(f, 2, 4, false), ECONFLICT);
    cut_text = "q"; /* the answer that is lost may also be the conflict */
    assert_code(apply(f, 2, 4, false), ECONFLICT);
    assert_null(cut_text);
    assert_tip(f, 3);
}

static void test_F22_a_commit_whose_answer_was_lost_is_done_again(void **at)
{
    fixture *f = *at;
    state_agent agent = {
        .id = MEMFS_STR("agent-a"), .name = MEMFS_STR("Ada"), .created_at_us = 3, .updated_at_us = 9
    };
    state_birth birth = { MEMFS_STR("a"), 7 };

    open_cache(f);
    assert_ok(apply(f, 0, 1, false));
    cut_text = "COMMIT";
    assert_ok(apply(f, 1, 2, true));
    assert_null(cut_text);
    assert_tip(f, 2);
    cut_text = "COMMIT";
    assert_ok(apply(f, 0, 5, true)); /* from any */
    assert_null(cut_text);
    assert_tip(f, 5);
    assert_code(apply(f, 2, 6, true), ECONFLICT);
    open_state(f);
    add(f, "agent-a", 5);
    cut_text = "COMMIT";
    assert_ok(state_agent_merge(s, &agent, &birth, 1, &f->err));
    assert_null(cut_text);
    assert_attributes(f, "agent-a", "agent-a Ada [] 3 9");
    assert_births(f, "agent-a", "", "a=7 ");
    close_state();
}

/* ---- a server that takes no writes, or nobody ---- */

static void test_F22_a_server_that_takes_no_writes_is_left_until_it_does(void **at)
{
    fixture *f = *at;
    told t = { .sql = "INSERT INTO x VALUES(3, 3)" };
    int64_t pid;

    make_row(f);
    /* it became a standby while we were connected */
    assert_int_equal(number_of(f, "SET default_transaction_read_only = on; SELECT 5"), 5);
    pid = number_of(f, "SELECT pg_backend_pid()");
    assert_code(pg_work(db, PG_WRITE, tell, &t, &f->err), EUNAVAIL);
    assert_int_equal(t.n_runs, 1);
    assert_int_not_equal(number_of(f, "SELECT pg_backend_pid()"), pid); /* looked for anew */
    /* and there is no other */
    admin(f, "ALTER DATABASE %s SET default_transaction_read_only = on");
    end_backends(f);
    assert_code(pg_work(db, PG_WRITE, tell, &t, &f->err), EUNAVAIL);
    admin(f, "ALTER DATABASE %s RESET default_transaction_read_only");
    while (pg_work(db, PG_WRITE, tell, &t, &f->err) == MEMFS_EUNAVAIL)
        clock_sleep_ms(20);
    assert_int_equal(number_of(f, "SELECT n FROM x WHERE id = 3"), 3);
}

static void test_L3_a_database_that_is_away_is_asked_once_a_second(void **at)
{
    fixture *f = *at;
    told t = { .sql = "SELECT 1" };
    int64_t since;

    admin(f, "ALTER DATABASE %s ALLOW_CONNECTIONS false");
    end_backends(f);
    atomic_store(&n_connects, 0);
    since = clock_mono_ms();
    for (int i = 0; i < 300; i++) {
        assert_code(pg_work(db, PG_WRITE, tell, &t, &f->err), EUNAVAIL);
        assert_null(strchr(f->err.msg, '\n'));
    }
    assert_true(atomic_load(&n_connects) >= 1);
    assert_true(atomic_load(&n_connects) <= 2 + (clock_mono_ms() - since) / 1000);
    admin(f, "ALTER DATABASE %s ALLOW_CONNECTIONS true");
    while (pg_work(db, PG_WRITE, tell, &t, &f->err) == MEMFS_EUNAVAIL)
        clock_sleep_ms(20);
    assert_int_equal(number_of(f, "SELECT 7"), 7);
}

/* ---- rows that come one by one ---- */

typedef struct rows {
    const char *sql;
    int64_t n_seen, n_wanted;
    bool is_refusing;
} rows;

static memfs_code see(const pg_result *row, void *ctx, bool *ret_is_done, memfs_error *err)
{
    rows *x = ctx;

    assert_int_equal(row->n_rows, 1);
    assert_int_equal(pg_col_int(row, 0, 0), ++x->n_seen);
    if (x->n_seen < x->n_wanted)
        return MEMFS_OK;
    *ret_is_done = !x->is_refusing;
    return x->is_refusing ? memfs_fail(err, MEMFS_EDENIED, "enough") : MEMFS_OK;
}

static memfs_code see_rows(pg_conn *c, void *ctx, memfs_error *err)
{
    rows *x = ctx;

    x->n_seen = 0;
    return pg_query_rows(c, (1 << 29) + (uint64_t)(uintptr_t)x->sql, x->sql, NULL, see, x, err);
}

static void test_reading_that_ends_early_leaves_its_connection_as_good_as_before(void **at)
{
    static const char many[] = "SELECT n, repeat('x', 100) FROM generate_series(1, 200000) n";
    static const char broken[] = "SELECT n + 0 * (1000 / (500 - n)) FROM generate_series(1, 900) n";
    fixture *f = *at;
    int64_t pid = number_of(f, "SELECT pg_backend_pid()");

    for (int i = 0; i < 20; i++) {
        rows done = { many, 0, 1 + i, false }, refused = { many, 0, 3, true };
        rows failed = { broken, 0, 1000, false };

        assert_ok(pg_work(db, PG_ONE, see_rows, &done, &f->err));
        assert_int_equal(done.n_seen, 1 + i);
        assert_code(pg_work(db, i % 2 ? PG_READ : PG_WRITE, see_rows, &refused, &f->err), EDENIED);
        assert_int_equal(refused.n_seen, 3);
        assert_code(pg_work(db, PG_ONE, see_rows, &failed, &f->err), EINTERNAL);
        assert_int_equal(failed.n_seen, 499);
        assert_int_equal(number_of(f, "SELECT pg_backend_pid()"), pid);
    }
    assert_int_equal(n_backends(f), 1);
}

/* ---- values ---- */

static memfs_code give_back(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_args_dispose) pg_args a = PG_ARGS_INIT;
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_str large = *(memfs_str *)ctx;
    memfs_oid oid = oid_of(5), got;
    memfs_code rc;

    pg_arg_text(&a, MEMFS_STR("Ärger"));
    pg_arg_text(&a, MEMFS_STR(""));
    pg_arg_bytes(&a, str_make("\0\xff", 2));
    pg_arg_bytes(&a, MEMFS_STR(""));
    pg_arg_bytes(&a, large);
    pg_arg_null(&a, PG_TEXT);
    pg_arg_int(&a, INT64_MIN);
    pg_arg_bool(&a, true);
    pg_arg_oid(&a, &oid);
    rc = pg_query(c, 1 << 28, "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, 7::int4", &a, &r, err);
    if (rc < 0)
        return rc;
    assert_true(str_equal(pg_col_str(&r, 0, 0), MEMFS_STR("Ärger")));
    assert_true(str_equal(pg_col_str(&r, 0, 2), str_make("\0\xff", 2)));
    for (int col = 1; col < 6; col += col == 1 ? 2 : 1)
        assert_int_equal(pg_col_is_null(&r, 0, col), col == 5);
    assert_int_equal(pg_col_str(&r, 0, 1).len + pg_col_str(&r, 0, 3).len, 0);
    assert_non_null(pg_col_str(&r, 0, 5).ptr);
    assert_true(str_equal(pg_col_str(&r, 0, 4), large));
    assert_true(pg_col_int(&r, 0, 6) == INT64_MIN);
    assert_int_equal(pg_col_int(&r, 0, 7), 1);
    assert_int_equal(pg_col_int(&r, 0, 9), 7);
    assert_int_equal(pg_col_oid(&r, 0, 8, &got, err), MEMFS_OK);
    assert_true(oid_equal(&oid, &got));
    return pg_col_oid(&r, 0, 3, &got, err);
}

static memfs_code give_arrays_back(pg_conn *c, void *ctx, memfs_error *err)
{
    static const pg_type types[] = { PG_BYTES, PG_TEXT, PG_INT, PG_BOOL, PG_BYTES };
    _cleanup_(pg_args_dispose) pg_args a = PG_ARGS_INIT;
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_oid oid = oid_of(5);
    memfs_code rc;

    (void)ctx;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(pg_arg_array(&a, types[i], 3), i);
        pg_array_add_null(&a, i);
    }
    pg_array_add_str(&a, 0, str_make("\0\xff", 2));
    pg_array_add_str(&a, 0, str_make(NULL, 0));
    pg_array_add_str(&a, 1, MEMFS_STR("Ärger"));
    pg_array_add_str(&a, 1, MEMFS_STR(""));
    pg_array_add_int(&a, 2, -1);
    pg_array_add_int(&a, 2, INT64_MAX);
    pg_array_add_bool(&a, 3, true);
    pg_array_add_bool(&a, 3, false);
    pg_array_add_oid(&a, 4, &oid);
    pg_array_add_null(&a, 4);
    pg_arg_array(&a, PG_INT, 0);
    rc = pg_query(c, (1 << 28) + 1,
                  "SELECT *, cardinality($6) FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY", &a,
                  &r, err);
    if (rc < 0)
        return rc;
    assert_int_equal(r.n_rows, 3);
    for (int col = 0; col < 5; col++)
        for (int row = 0; row < 3; row++)
            assert_int_equal(pg_col_is_null(&r, row, col), row == 0 || (row == 2 && col == 4));
    assert_true(str_equal(pg_col_str(&r, 1, 0), str_make("\0\xff", 2)));
    assert_true(str_equal(pg_col_str(&r, 1, 1), MEMFS_STR("Ärger")));
    assert_int_equal(pg_col_str(&r, 2, 0).len + pg_col_str(&r, 2, 1).len, 0);
    assert_true(pg_col_int(&r, 1, 2) == -1 && pg_col_int(&r, 2, 2) == INT64_MAX);
    assert_true(pg_col_int(&r, 1, 3) == 1 && pg_col_int(&r, 2, 3) == 0);
    assert_int_equal(pg_col_str(&r, 1, 4).len, 20);
    assert_int_equal(pg_col_int(&r, 0, 6), 0);
    return MEMFS_OK;
}

static void test_values_come_back_as_they_went(void **at)
{
    fixture *f = *at;
    _cleanup_(mem_freep) char *bytes = mem_alloc(1 << 20);
    memfs_str large = str_make(bytes, 1 << 20);

    for (size_t i = 0; i < large.len; i++)
        bytes[i] = (char)(i * 7 + (i >> 9));
    assert_code(pg_work(db, PG_ONE, give_back, &large, &f->err), ECORRUPT); /* "" is no id */
    assert_ok(pg_work(db, PG_ONE, give_arrays_back, NULL, &f->err));
}

int main(void)
{
#define ON_DB(test) cmocka_unit_test_setup_teardown(test, setup_db, teardown)
    const struct CMUnitTest tests[] = {
        ON_DB(test_F22_a_failure_is_judged_by_its_state),
        ON_DB(test_F22_a_work_that_collided_is_begun_again),
        ON_DB(test_F22_a_deadlock_is_nobodys_business),
        ON_DB(test_F22_what_takes_too_long_or_is_there_already),
        ON_DB(test_F22_what_was_prepared_is_prepared_anew),
        ON_DB(test_L3_for_another_programs_locks_it_waits_as_long_as_it_was_told),
        ON_DB(test_more_threads_than_connections_are_all_served),
        ON_DB(test_F22_after_all_connections_broke_the_next_work_succeeds),
        ON_DB(test_F22_a_work_whose_connection_breaks_is_begun_again_once),
        ON_DB(test_F22_a_change_whose_answer_was_lost_is_found_done_and_is_no_conflict),
        ON_DB(test_F22_a_commit_whose_answer_was_lost_is_done_again),
        ON_DB(test_F22_a_server_that_takes_no_writes_is_left_until_it_does),
        ON_DB(test_L3_a_database_that_is_away_is_asked_once_a_second),
        ON_DB(test_reading_that_ends_early_leaves_its_connection_as_good_as_before),
        ON_DB(test_values_come_back_as_they_went),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
