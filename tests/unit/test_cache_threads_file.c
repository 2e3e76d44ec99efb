#include "cache_race.h"

#include <dirent.h>

/* What threads and the files of a cache have to do with each other. */

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
        ON_CACHE(test_F23_a_cache_that_is_lost_and_made_anew_under_readers_never_mixes),
        ON_CACHE(test_a_thread_that_ends_takes_its_connection_along),
        ON_CACHE(test_a_thread_outlives_the_caches_that_it_read),
        ON_CACHE(test_closing_empties_the_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
