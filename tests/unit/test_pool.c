#include "base/pool.h"

#include "base/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <cmocka.h>

/* A gate that jobs wait at until the test opens it. */
typedef struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool is_open;
    int n_inside, most_inside, n_done;
} gate;

#define GATE_INIT { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0, 0, 0 }

static void wait_at(void *arg)
{
    gate *g = arg;

    pthread_mutex_lock(&g->mutex);
    g->n_inside++;
    if (g->n_inside > g->most_inside)
        g->most_inside = g->n_inside;
    pthread_cond_broadcast(&g->changed);
    while (!g->is_open)
        pthread_cond_wait(&g->changed, &g->mutex);
    g->n_inside--;
    g->n_done++;
    pthread_mutex_unlock(&g->mutex);
}

static void gate_open(gate *g)
{
    pthread_mutex_lock(&g->mutex);
    g->is_open = true;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}

static bool wait_until_inside(gate *g, int n)
{
    int64_t until = clock_mono_ms() + 5000;
    int inside = 0;

    while (clock_mono_ms() < until) {
        pthread_mutex_lock(&g->mutex);
        inside = g->n_inside;
        pthread_mutex_unlock(&g->mutex);
        if (inside >= n)
            return true;
        clock_sleep_ms(1);
    }
    return false;
}

static void submit(pool *p, const char *key, pool_fn fn, void *arg)
{
    memfs_error err = MEMFS_ERROR_INIT;

    assert_int_equal(pool_submit(p, key, fn, arg, &err), MEMFS_OK);
}

static void test_all_jobs_run_before_pool_free_returns(void **state)
{
    gate g = GATE_INIT;
    pool *p = pool_new(3, 1000);
    char key[16];

    (void)state;
    g.is_open = true;
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof(key), "agent-%d", i % 7);
        submit(p, key, wait_at, &g);
    }
    pool_free(p);
    assert_int_equal(g.n_done, 500);
}

static void test_T17_one_key_holds_at_most_half_of_the_threads(void **state)
{
    gate busy = GATE_INIT, other = GATE_INIT;
    pool *p = pool_new(5, 100);

    (void)state;
    for (int i = 0; i < 20; i++)
        submit(p, "busy", wait_at, &busy);
    assert_true(wait_until_inside(&busy, 3));
    submit(p, "other", wait_at, &other);
    assert_true(wait_until_inside(&other, 1));
    clock_sleep_ms(20); /* time for a fourth one to slip in, if the bound did not hold */
    assert_int_equal(busy.most_inside, 3);
    gate_open(&busy);
    gate_open(&other);
    pool_free(p);
    assert_int_equal(busy.n_done, 20);
    assert_int_equal(busy.most_inside, 3);
}

static void test_T17_a_full_queue_refuses_with_EUNAVAIL(void **state)
{
    memfs_error err = MEMFS_ERROR_INIT;
    gate g = GATE_INIT;
    pool *p = pool_new(1, 2);

    (void)state;
    submit(p, "a", wait_at, &g);
    assert_true(wait_until_inside(&g, 1));
    submit(p, "a", wait_at, &g);
    submit(p, "b", wait_at, &g);
    assert_int_equal(pool_submit(p, "c", wait_at, &g, &err), MEMFS_EUNAVAIL);
    assert_int_equal(pool_load(p), 3);
    gate_open(&g);
    pool_free(p);
    assert_int_equal(g.n_done, 3);
}

/* What ran, in order, written by the one thread of the pool. */
static char order[64];
static size_t n_order;

static void note(void *arg)
{
    order[n_order++] = *(const char *)arg;
}

static void test_keys_take_turns(void **state)
{
    gate g = GATE_INIT;
    pool *p = pool_new(1, 100);
    char a = 'a', b = 'b';

    (void)state;
    submit(p, "first", wait_at, &g);
    assert_true(wait_until_inside(&g, 1));
    for (int i = 0; i < 4; i++)
        submit(p, "a", note, &a);
    for (int i = 0; i < 2; i++)
        submit(p, "b", note, &b);
    gate_open(&g);
    pool_free(p);
    assert_string_equal(order, "ababaa");
}

typedef struct chain {
    pool *pool;
    atomic_int n_left;
} chain;

static void submit_next(void *arg)
{
    memfs_error err = MEMFS_ERROR_INIT;
    chain *c = arg;

    if (atomic_fetch_sub(&c->n_left, 1) > 1)
        assert_int_equal(pool_submit(c->pool, "chain", submit_next, c, &err), MEMFS_OK);
}

static void test_a_job_may_submit_the_next(void **state)
{
    chain c = { .pool = pool_new(2, 4) };
    int64_t until = clock_mono_ms() + 5000;

    (void)state;
    atomic_store(&c.n_left, 200);
    submit(c.pool, "chain", submit_next, &c);
    while (pool_load(c.pool) > 0 && clock_mono_ms() < until)
        clock_sleep_ms(1);
    pool_free(c.pool);
    assert_int_equal(atomic_load(&c.n_left), 0);
}

static void wait_as_for_a_client(void *arg)
{
    pool_wait_begin();
    wait_at(arg);
    pool_wait_end();
}

/* Slow clients took all places once: four uploads of 1 KiB/s, and nobody could push for minutes. */
static void test_T18_a_job_that_waits_gives_its_place_away(void **state)
{
    gate slow = GATE_INIT, other = GATE_INIT;
    pool *p = pool_new(2, 100);
    char key[8];

    (void)state;
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof(key), "slow%d", i);
        submit(p, key, wait_as_for_a_client, &slow);
    }
    assert_true(wait_until_inside(&slow, 20));
    for (int i = 0; i < 5; i++) {
        snprintf(key, sizeof(key), "o%d", i);
        submit(p, key, wait_at, &other);
    }
    assert_true(wait_until_inside(&other, 2));
    clock_sleep_ms(20); /* time for a third one to slip in */
    assert_int_equal(other.most_inside, 2);
    gate_open(&other);
    gate_open(&slow);
    pool_free(p);
    assert_int_equal(slow.n_done, 20);
    assert_int_equal(other.n_done, 5);
    assert_int_equal(other.most_inside, 2);
}

static void test_T17_waiting_jobs_of_one_key_are_bounded(void **state)
{
    gate slow = GATE_INIT;
    pool *p = pool_new(4, 100);

    (void)state;
    for (int i = 0; i < 20; i++)
        submit(p, "slow", wait_as_for_a_client, &slow);
    assert_true(wait_until_inside(&slow, 4));
    clock_sleep_ms(20); /* time for a fifth one to slip in */
    assert_int_equal(slow.most_inside, 4);
    gate_open(&slow);
    pool_free(p);
    assert_int_equal(slow.n_done, 20);
}

static void test_more_jobs_wait_than_there_are_threads(void **state)
{
    gate slow = GATE_INIT;
    pool *p = pool_new(1, POOL_MAX_WAITING + 10);
    char key[8];

    (void)state;
    for (int i = 0; i < POOL_MAX_WAITING + 10; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        submit(p, key, wait_as_for_a_client, &slow);
    }
    assert_true(wait_until_inside(&slow, POOL_MAX_WAITING + 1));
    gate_open(&slow);
    pool_free(p);
    assert_int_equal(slow.n_done, POOL_MAX_WAITING + 10);
    pool_wait_begin(); /* on a thread that is none of a pool's */
    pool_wait_end();
}

static void wait_in_a_wait(void *arg)
{
    pool_wait_begin();
    wait_as_for_a_client(arg);
    pool_wait_end();
}

static void test_a_wait_in_a_wait_is_one(void **state)
{
    gate slow = GATE_INIT, other = GATE_INIT;
    pool *p = pool_new(1, 100);

    (void)state;
    submit(p, "slow", wait_in_a_wait, &slow);
    assert_true(wait_until_inside(&slow, 1));
    submit(p, "other", wait_at, &other);
    assert_true(wait_until_inside(&other, 1));
    gate_open(&other);
    gate_open(&slow);
    pool_free(p);
    assert_int_equal(slow.n_done, 1);
    assert_int_equal(other.n_done, 1);
}

static void wait_as_for_the_disk(void *arg)
{
    pool_disk_begin();
    pool_disk_begin(); /* counts nothing */
    wait_at(arg);
    pool_disk_end();
    pool_disk_end();
}

static void submit_many(pool *p, int n, pool_fn fn, gate *g)
{
    char key[24];

    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "%p-%d", (void *)g, i);
        submit(p, key, fn, g);
    }
}

/* Four workers wrote four commits at a time, however many waited, and a slow disk had an easy life. */
static void test_so_many_at_the_disk_give_their_places_away(void **state)
{
    gate disk = GATE_INIT, other = GATE_INIT, client = GATE_INIT;
    pool *p = pool_new(2, 100);

    (void)state;
    submit_many(p, POOL_MAX_AT_DISK + 10, wait_as_for_the_disk, &disk);
    assert_true(wait_until_inside(&disk, POOL_MAX_AT_DISK + 2));
    clock_sleep_ms(20); /* time for one more to slip in */
    assert_int_equal(disk.most_inside, POOL_MAX_AT_DISK + 2);
    gate_open(&disk);
    submit_many(p, 5, wait_as_for_a_client, &client); /* these are not bounded by that */
    assert_true(wait_until_inside(&client, 5));
    submit_many(p, 5, wait_at, &other); /* and the places are all back */
    assert_true(wait_until_inside(&other, 2));
    clock_sleep_ms(20);
    assert_int_equal(other.most_inside, 2);
    gate_open(&other);
    gate_open(&client);
    pool_free(p);
    assert_int_equal(disk.n_done, POOL_MAX_AT_DISK + 10);
    assert_int_equal(client.n_done, 5);
    assert_int_equal(other.n_done, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_jobs_run_before_pool_free_returns),
        cmocka_unit_test(test_T17_one_key_holds_at_most_half_of_the_threads),
        cmocka_unit_test(test_T17_a_full_queue_refuses_with_EUNAVAIL),
        cmocka_unit_test(test_keys_take_turns),
        cmocka_unit_test(test_a_job_may_submit_the_next),
        cmocka_unit_test(test_T18_a_job_that_waits_gives_its_place_away),
        cmocka_unit_test(test_T17_waiting_jobs_of_one_key_are_bounded),
        cmocka_unit_test(test_more_jobs_wait_than_there_are_threads),
        cmocka_unit_test(test_a_wait_in_a_wait_is_one),
        cmocka_unit_test(test_so_many_at_the_disk_give_their_places_away),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
