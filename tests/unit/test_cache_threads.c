#include "cache_race.h"

/*
 * Readers and writers of one cache, of either backend.  Threads and files:
 * test_cache_threads_file.c.
 */

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

int main(void)
{
#define ON_CACHE(test) cmocka_unit_test_setup_teardown(test, setup_cache, teardown)
    const struct CMUnitTest tests[] = {
        ON_CACHE(test_K1_readers_see_whole_commits_only_and_none_older_than_acknowledged),
        ON_CACHE(test_K1_of_many_writers_one_takes_each_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
