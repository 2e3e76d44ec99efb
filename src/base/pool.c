/*
 * pool.c - jobs wait in lanes, one lane a key, and the lanes take turns.
 *
 * A lane lives from its first job until its last one has ended; it is in the ring while it has jobs
 * waiting.  A free thread walks the ring from where the last one stopped and takes one job from the
 * first lane whose key does not yet hold its share of the threads, so a key that queues a thousand
 * jobs delays another key's first job by one job at most.
 *
 * A place is what a running job has that does not wait for a stranger.  There are as many as the
 * pool was made with; threads there may be more, up to one a waiting job, started when a job could
 * run and no thread is free.  A key's waiting jobs are bounded as well (T17: git children an
 * agent). After a wait a job goes on at once, so for a moment more jobs may run than there are
 * places.  A thread lives as long as the pool: the next crowd will want it again.
 *
 * The lanes are a plain list: there are never more than queued plus running jobs, and both are
 * bounded by numbers in the hundreds.
 *
 * Everything below is guarded by pool.mutex; jobs run without it.
 */
#include "base/pool.h"

#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PAUSE_MS 32

#define STACK_BYTES (2u << 20) /* at least 1 MiB for walks over trees (T16), whatever ulimit says */

typedef struct job {
    struct job *next;
    pool_fn fn;
    void *arg;
} job;

typedef struct lane {
    struct lane *next;
    char *key;
    job *first, *last;
    size_t n_running, n_waiting; /* the second are part of the first */
} lane;

struct pool {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_t *threads;
    size_t n_threads, max_threads, n_idle;
    size_t n_places, max_per_key;
    size_t max_queued, n_queued, n_running, n_waiting;
    size_t n_at_disk; /* of those who wait */
    lane *lanes, *lanes_end;
    bool closed;
};

/* Which job this thread is at. */
static _Thread_local struct {
    pool *pool;
    lane *lane;
    unsigned n_waits; /* one in another: what waits for a host asks the database meanwhile */
    bool is_at_disk;  /* and gave its place away for that */
} here;

static lane *lane_find(pool *p, const char *key)
{
    for (lane *l = p->lanes; l != NULL; l = l->next)
        if (strcmp(l->key, key) == 0)
            return l;
    return NULL;
}

static void lane_append(pool *p, lane *l)
{
    l->next = NULL;
    if (p->lanes_end != NULL)
        p->lanes_end->next = l;
    else
        p->lanes = l;
    p->lanes_end = l;
}

static void lane_unlink(pool *p, lane *l)
{
    lane *before = NULL;

    for (lane *at = p->lanes; at != l; at = at->next)
        before = at;
    if (before != NULL)
        before->next = l->next;
    else
        p->lanes = l->next;
    if (p->lanes_end == l)
        p->lanes_end = before;
}

/* The lane whose turn it is; it goes to the end of the line.  NULL: nothing may run now. */
static lane *lane_take_turn(pool *p)
{
    if (p->n_running - p->n_waiting >= p->n_places)
        return NULL;
    for (lane *l = p->lanes; l != NULL; l = l->next) {
        if (l->first == NULL || l->n_running - l->n_waiting >= p->max_per_key ||
            l->n_running >= 2 * p->max_per_key)
            continue;
        lane_unlink(p, l);
        lane_append(p, l);
        return l;
    }
    return NULL;
}

static job *lane_pop(pool *p, lane *l)
{
    job *j = l->first;

    l->first = j->next;
    if (l->first == NULL)
        l->last = NULL;
    l->n_running++;
    p->n_queued--;
    p->n_running++;
    return j;
}

static void lane_job_ended(pool *p, lane *l)
{
    l->n_running--;
    p->n_running--;
    if (p->n_queued > 0)
        pthread_cond_signal(&p->work); /* the key, or all, may have been at their share until now */
    if (l->first != NULL || l->n_running > 0)
        return;
    lane_unlink(p, l);
    free(l->key);
    free(l);
}

static void run(pool *p, lane *l, job *j)
{
    here.pool = p;
    here.lane = l;
    j->fn(j->arg);
    free(j);
    here.pool = NULL;
}

static void *worker(void *arg)
{
    pool *p = arg;

    pthread_mutex_lock(&p->mutex);
    for (;;) {
        lane *l = lane_take_turn(p);
        job *j;

        if (l == NULL) {
            if (p->closed && p->n_queued == 0)
                break;
            p->n_idle++;
            pthread_cond_wait(&p->work, &p->mutex);
            p->n_idle--;
            continue;
        }
        j = lane_pop(p, l);
        pthread_mutex_unlock(&p->mutex);
        run(p, l, j);
        pthread_mutex_lock(&p->mutex);
        lane_job_ended(p, l);
    }
    pthread_cond_broadcast(&p->work); /* the others see that nothing is left, too */
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* One thread more, if the system has one. */
static void add_thread(pool *p)
{
    pthread_attr_t attr;

    if (p->n_threads == p->max_threads)
        return;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (pthread_create(&p->threads[p->n_threads], &attr, worker, p) == 0)
        p->n_threads++;
    pthread_attr_destroy(&attr);
}

/*
 * There is a job, and there may be a place for it.  (Who was called but is not awake yet is idle.)
 */
static void call_for_hands(pool *p)
{
    pthread_cond_signal(&p->work);
    if (p->n_idle < p->n_queued && p->n_running - p->n_waiting < p->n_places &&
        p->n_threads < p->n_places + p->n_waiting)
        add_thread(p);
}

pool *pool_new(size_t n_threads, size_t max_queued)
{
    pool *p = mem_alloc(sizeof(*p));

    assert(n_threads > 0);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
    p->max_queued = max_queued;
    p->n_places = n_threads;
    p->max_per_key = (n_threads + 1) / 2;
    p->max_threads = n_threads + POOL_MAX_WAITING;
    p->threads = mem_alloc(p->max_threads * sizeof(*p->threads));
    pthread_mutex_lock(&p->mutex);
    add_thread(p); /* the others when there is work for them: each costs the memory of its stack */
    pthread_mutex_unlock(&p->mutex);
    if (p->n_threads == 0)
        abort(); /* no thread at all: the machine is out of them, and nothing could ever run */
    return p;
}

void pool_free(pool *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->mutex);
    p->closed = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (size_t i = 0; i < p->n_threads; i++)
        pthread_join(p->threads[i], NULL);
    assert(p->lanes == NULL);
    free(p->threads);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

static void enqueue(pool *p, const char *key, job *j)
{
    lane *l = lane_find(p, key);

    if (l == NULL) {
        l = mem_alloc(sizeof(*l));
        l->key = mem_strdup(key);
        lane_append(p, l);
    }
    if (l->last != NULL)
        l->last->next = j;
    else
        l->first = j;
    l->last = j;
    p->n_queued++;
}

memfs_code pool_submit(pool *p, const char *key, pool_fn fn, void *arg, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    job *j;

    pthread_mutex_lock(&p->mutex);
    if (p->closed) {
        rc = memfs_fail(err, MEMFS_EUNAVAIL, "the server is stopping");
    } else if (p->n_queued >= p->max_queued) {
        rc = memfs_fail(err, MEMFS_EUNAVAIL, "%zu requests are waiting already", p->n_queued);
    } else {
        j = mem_alloc(sizeof(*j));
        j->fn = fn;
        j->arg = arg;
        enqueue(p, key, j);
        call_for_hands(p);
    }
    pthread_mutex_unlock(&p->mutex);
    return rc;
}

static void leave_place(pool *p)
{
    p->n_waiting++;
    here.lane->n_waiting++;
    if (p->n_queued > 0)
        call_for_hands(p);
}

static void take_place(pool *p)
{
    p->n_waiting--;
    here.lane->n_waiting--;
}

void pool_wait_begin(void)
{
    pool *p = here.pool;

    if (p == NULL || here.n_waits++ > 0)
        return;
    pthread_mutex_lock(&p->mutex);
    leave_place(p);
    pthread_mutex_unlock(&p->mutex);
}

void pool_wait_end(void)
{
    pool *p = here.pool;

    if (p == NULL || --here.n_waits > 0)
        return;
    pthread_mutex_lock(&p->mutex);
    take_place(p);
    pthread_mutex_unlock(&p->mutex);
}

void pool_pause(int64_t *pause_ms)
{
    pool_wait_begin();
    clock_sleep_ms(*pause_ms);
    pool_wait_end();
    *pause_ms = *pause_ms < MAX_PAUSE_MS ? *pause_ms * 2 : MAX_PAUSE_MS;
}

void pool_disk_begin(void)
{
    pool *p = here.pool;

    if (p == NULL || here.n_waits++ > 0)
        return;
    pthread_mutex_lock(&p->mutex);
    here.is_at_disk = p->n_at_disk < POOL_MAX_AT_DISK;
    if (here.is_at_disk) {
        p->n_at_disk++;
        leave_place(p);
    }
    pthread_mutex_unlock(&p->mutex);
}

void pool_disk_end(void)
{
    pool *p = here.pool;

    if (p == NULL || --here.n_waits > 0 || !here.is_at_disk)
        return;
    pthread_mutex_lock(&p->mutex);
    here.is_at_disk = false;
    p->n_at_disk--;
    take_place(p);
    pthread_mutex_unlock(&p->mutex);
}

size_t pool_load(pool *p)
{
    size_t load;

    pthread_mutex_lock(&p->mutex);
    load = p->n_queued + p->n_running;
    pthread_mutex_unlock(&p->mutex);
    return load;
}
