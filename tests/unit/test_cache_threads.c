#include "cache_fixture.h"

#include "base/clock.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>

/*
 * One writer and four readers, also to be run under -Db_sanitize=thread.  Every commit puts its
 * number into all rows and into the tip, and changes how many rows there are, so a reader that sees
 * two commits mixed sees two numbers or a wrong count.
 */

enum { N_READERS = 4, N_COMMITS = 400, N_ROWS = 24 };

typedef struct race {
    fixture *f;
    atomic_bool is_over;
    atomic_uint newest;   /* the last commit that was acknowledged */
    atomic_bool is_lossy; /* the cache is also lost and made anew */
    atomic_uint n_seen;
} race;

static unsigned rows_of(unsigned commit)
{
    return N_ROWS / 2 + commit % (N_ROWS / 2);
}

static memfs_code write_commit(race *r, unsigned commit, bool from_nothing, memfs_error *err)
{
    char names[N_ROWS][3][24], value[3000];
    block_row rows[N_ROWS];
    cache_change changes[N_ROWS];
    memfs_oid from = oid_of(commit - 1);
    cache_update u = { .agent_id = MEMFS_STR("agent-a"),
                       .from = from_nothing ? NULL : &from,
                       .to = oid_of(commit),
                       .changes = changes,
                       .n_changes = N_ROWS };

    memset(value, 'x', sizeof(value));
    value[snprintf(value, sizeof(value), "%u.", commit)] = 'x';
    value[sizeof(value) - 1] = '\0';
    for (unsigned i = 0; i < N_ROWS; i++) {
        snprintf(names[i][0], sizeof(names[i][0]), "%02u.md", i);
        snprintf(names[i][1], sizeof(names[i][1]), "%02u", i);
        snprintf(names[i][2], sizeof(names[i][2]), "block-%02u", N_ROWS - i);
        rows[i] = row_of(names[i][0], names[i][1], names[i][2], value);
        changes[i] = (cache_change){ rows[i].path, i < rows_of(commit) ? &rows[i] : NULL };
    }
    return cache_apply(r->f->cache, &u, err);
}

typedef struct sight {
    unsigned commit; /* of the first row */
    unsigned n;
} sight;

static memfs_code look(const block_row *row, void *ctx, memfs_error *err)
{
    sight *s = ctx;
    unsigned commit = (unsigned)strtoul(row->value.ptr, NULL, 10);

    if (s->n++ == 0)
        s->commit = commit;
    if (commit != s->commit)
        return memfs_fail(err, MEMFS_EINTERNAL, "rows of %u and %u", s->commit, commit);
    return MEMFS_OK;
}

/* What a whole read must be; while caches are reset, it may also be that nothing is there. */
static void judge(race *r, memfs_code rc, const memfs_error *err, const sight *s, unsigned at_least)
{
    bool was_reset = atomic_load(&r->is_lossy);

    if (rc != MEMFS_OK) {
        if (!was_reset || (rc != MEMFS_ECORRUPT && rc != MEMFS_ENOTFOUND)) {
            fprintf(stderr, "%s: %s\n", memfs_code_name(rc), err->msg);
            abort();
        }
        return;
    }
    if (s->n == 0 && was_reset)
        return;
    if (s->n != rows_of(s->commit) || (!was_reset && s->commit < at_least)) {
        fprintf(stderr, "%u rows of commit %u, at least %u\n", s->n, s->commit, at_least);
        abort();
    }
    atomic_fetch_add(&r->n_seen, 1);
}

static void *read_rows(void *ctx)
{
    race *r = ctx;
    block_query q = { .agent_id = MEMFS_STR("agent-a"), .order = BLOCK_ORDER_ID };
    block_query all = { .show_hidden = true };
    memfs_error err;

    for (unsigned i = 0; !atomic_load(&r->is_over); i++) {
        unsigned at_least = atomic_load(&r->newest);
        cache_tip tip = { .generation = 0 };
        sight s = { 0, 0 };
        memfs_code rc;

        if (i % 3 == 0) {
            rc = cache_blocks(r->f->cache, &all, look, &s, &err);
        } else {
            rc = cache_agent_blocks(r->f->cache, &q, &tip, look, &s, &err);
            memfs_oid expected = oid_of(s.commit);
            if (rc == MEMFS_OK && !oid_equal(&tip.commit, &expected)) {
                fprintf(stderr, "the tip is not the rows' (commit %u)\n", s.commit);
                abort();
            }
        }
        judge(r, rc, &err, &s, at_least);
    }
    return NULL;
}

static void run_race(race *r, void (*write)(race *))
{
    pthread_t readers[N_READERS];
    fixture *f = r->f;

    assert_ok(write_commit(r, 1, true, &f->err));
    atomic_store(&r->newest, 1);
    for (int i = 0; i < N_READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_rows, r), 0);
    write(r);
    atomic_store(&r->is_over, true);
    for (int i = 0; i < N_READERS; i++)
        pthread_join(readers[i], NULL);
    assert_true(atomic_load(&r->n_seen) > 100);
    assert_ok(cache_check(f->cache, &f->err));
}

static void write_all(race *r)
{
    fixture *f = r->f;

    for (unsigned commit = 2; commit <= N_COMMITS; commit++) {
        assert_ok(write_commit(r, commit, false, &f->err));
        atomic_store(&r->newest, commit);
        if (commit % 100 == 0)
            assert_ok(cache_scrub(f->cache, &f->err));
    }
}

static void test_K1_readers_see_whole_commits_only_and_none_older_than_acknowledged(void **at)
{
    fixture *f = *at;
    race r = { .f = f };

    run_race(&r, write_all);
}

static void write_and_lose(race *r)
{
    fixture *f = r->f;

    for (unsigned commit = 2; commit <= N_COMMITS / 2; commit++) {
        bool is_new = commit % 20 == 0;

        if (is_new) {
            atomic_store(&r->is_lossy, true);
            assert_int_equal(unlink(in_root(f, "cache.db")), 0);
            assert_code(write_commit(r, commit, false, &f->err), ECORRUPT);
            assert_ok(cache_reset(f->cache, &f->err));
        }
        assert_ok(write_commit(r, commit, is_new, &f->err));
    }
}

static void test_F23_a_cache_that_is_lost_and_made_anew_under_readers_never_mixes(void **at)
{
    fixture *f = *at;
    race r = { .f = f };

    run_race(&r, write_and_lose);
}

/* ---- many writers: one wins each step (K1) ---- */

static void *race_to_write(void *ctx)
{
    race *r = ctx;
    memfs_error err;

    for (;;) {
        unsigned newest = atomic_load(&r->newest);
        memfs_code rc;

        if (newest >= N_COMMITS / 2)
            return NULL;
        rc = write_commit(r, newest + 1, false, &err);
        if (rc == MEMFS_OK) {
            atomic_fetch_add(&r->n_seen, 1);
            atomic_store(&r->newest, newest + 1);
        } else if (rc != MEMFS_ECONFLICT) {
            fprintf(stderr, "%s: %s\n", memfs_code_name(rc), err.msg);
            abort();
        }
    }
}

static void test_K1_of_many_writers_one_takes_each_step(void **at)
{
    fixture *f = *at;
    race r = { .f = f };
    pthread_t writers[N_READERS];

    assert_ok(write_commit(&r, 1, true, &f->err));
    atomic_store(&r.newest, 1);
    for (int i = 0; i < N_READERS; i++)
        assert_int_equal(pthread_create(&writers[i], NULL, race_to_write, &r), 0);
    for (int i = 0; i < N_READERS; i++)
        pthread_join(writers[i], NULL);
    assert_int_equal(atomic_load(&r.n_seen), N_COMMITS / 2 - 1);
}

/* ---- lives of threads and connections ---- */

static size_t n_open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    size_t n = 0;

    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n;
}

static void *read_once(void *ctx)
{
    fixture *f = ctx;
    block_query q = { .show_hidden = true };
    memfs_error err;

    if (cache_blocks(f->cache, &q, look, &(sight){ 0, 0 }, &err) < 0)
        abort();
    return NULL;
}

static void test_a_thread_that_ends_takes_its_connection_along(void **at)
{
    fixture *f = *at;
    pthread_t thread;
    size_t before;

    assert_int_equal(pthread_create(&thread, NULL, read_once, f), 0);
    pthread_join(thread, NULL);
    before = n_open_files();
    for (int i = 0; i < 20; i++) {
        assert_int_equal(pthread_create(&thread, NULL, read_once, f), 0);
        pthread_join(thread, NULL);
    }
    assert_int_equal(n_open_files(), before);
}

typedef struct long_life {
    fixture *f;
    pthread_barrier_t step;
} long_life;

static void *outlive_two_caches(void *ctx)
{
    long_life *l = ctx;

    for (int i = 0; i < 3; i++) {
        read_once(l->f);
        pthread_barrier_wait(&l->step); /* now the cache is closed and opened again */
        pthread_barrier_wait(&l->step);
    }
    return NULL;
}

static void test_a_thread_outlives_the_caches_that_it_read(void **at)
{
    fixture *f = *at;
    long_life l = { .f = f };
    pthread_t thread;
    size_t before;

    close_cache(f);
    before = n_open_files();
    open_cache(f);
    pthread_barrier_init(&l.step, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, outlive_two_caches, &l), 0);
    for (int i = 0; i < 3; i++) {
        pthread_barrier_wait(&l.step);
        close_cache(f);
        assert_int_equal(n_open_files(), before); /* the thread's connection went too */
        open_cache(f);
        pthread_barrier_wait(&l.step);
    }
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&l.step);
}

static void test_closing_empties_the_log(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    read_once(f);
    close_cache(f);
    assert_true(fs_exists(in_root(f, "cache.db")));
    assert_false(fs_exists(in_root(f, "cache.db-wal")));
    open_cache(f);
    assert_string_equal(value_of(f, "agent-a", "x"), "one");
}

int main(void)
{
#define ON_CACHE(test) cmocka_unit_test_setup_teardown(test, setup_cache, teardown)
    const struct CMUnitTest tests[] = {
        ON_CACHE(test_K1_readers_see_whole_commits_only_and_none_older_than_acknowledged),
        ON_CACHE(test_F23_a_cache_that_is_lost_and_made_anew_under_readers_never_mixes),
        ON_CACHE(test_K1_of_many_writers_one_takes_each_step),
        ON_CACHE(test_a_thread_that_ends_takes_its_connection_along),
        ON_CACHE(test_a_thread_outlives_the_caches_that_it_read),
        ON_CACHE(test_closing_empties_the_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
