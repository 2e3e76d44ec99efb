#include "letta/eye.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>

#define N_THREADS 4
#define CLOSE_MS 1000

/* Freed by whoever is last: the thread that looked, if nobody waits any more. */
typedef struct job {
    struct job *next;
    eye_look look;
    bool is_begun, is_done, is_left;
} job;

struct eye {
    letta_folder *folder;
    pthread_mutex_t mutex; /* guards what follows; a leaf */
    pthread_cond_t work, done;
    job *first;
    int64_t began_ms[N_THREADS]; /* the look that it is at; 0: none */
    size_t n_threads, n_ended;
    bool is_stopping;
    pthread_t threads[N_THREADS];
};

/* ---- looking ---- */

static void see(const eye *e, eye_look *l)
{
    l->error = (memfs_error)MEMFS_ERROR_INIT;
    if (l->org[0] != '\0')
        l->code = letta_folder_admits(e->folder, str_of(l->agent_id), str_of(l->org), l->is_here,
                                      &l->error);
    else
        l->code = letta_folder_tip(e->folder, l->agent_id, &l->place, &l->tip, &l->error);
}

/* The mutex is held when it is called and when it returns. */
static void work_at(eye *e, job *j, int64_t *began_ms)
{
    j->is_begun = true;
    *began_ms = clock_mono_ms();
    pthread_mutex_unlock(&e->mutex);
    see(e, &j->look);
    pthread_mutex_lock(&e->mutex);
    *began_ms = 0;
    j->is_done = true;
    if (j->is_left)
        free(j);
    pthread_cond_broadcast(&e->done);
}

static void *run(void *arg)
{
    eye *e = arg;
    int64_t *began_ms;

    pthread_mutex_lock(&e->mutex);
    began_ms = &e->began_ms[e->n_threads++];
    pthread_cond_broadcast(&e->done);
    while (!e->is_stopping) {
        job *j = e->first;

        if (j == NULL) {
            pthread_cond_wait(&e->work, &e->mutex);
            continue;
        }
        e->first = j->next;
        work_at(e, j, began_ms);
    }
    e->n_ended++;
    pthread_cond_broadcast(&e->done);
    pthread_mutex_unlock(&e->mutex);
    return NULL;
}

/* ---- asked ---- */

static bool hangs(const eye *e)
{
    int64_t now_ms = clock_mono_ms();

    for (size_t i = 0; i < N_THREADS; i++)
        if (e->began_ms[i] == 0 || now_ms - e->began_ms[i] < EYE_MS)
            return false;
    return true;
}

static void wait_done(eye *e, int64_t until_ms)
{
    struct timespec at = { .tv_sec = (time_t)(until_ms / 1000),
                           .tv_nsec = (long)(until_ms % 1000) * 1000000 };

    pthread_cond_timedwait(&e->done, &e->mutex, &at);
}

static void add(eye *e, job *j)
{
    job **at = &e->first;

    while (*at != NULL)
        at = &(*at)->next;
    *at = j;
    pthread_cond_signal(&e->work);
}

static void give_up(eye *e, job *j)
{
    job **at = &e->first;

    if (j->is_begun) {
        j->is_left = true;
        return;
    }
    while (*at != j)
        at = &(*at)->next;
    *at = j->next;
    free(j);
}

bool eye_look_at(eye *e, eye_look *look)
{
    int64_t until_ms = clock_mono_ms() + EYE_MS;
    bool is_seen = false;
    job *j;

    pthread_mutex_lock(&e->mutex);
    if (!hangs(e)) {
        j = mem_alloc(sizeof(*j));
        j->look = *look;
        add(e, j);
        while (!j->is_done && clock_mono_ms() < until_ms)
            wait_done(e, until_ms);
        is_seen = j->is_done;
        if (is_seen) {
            *look = j->look;
            free(j);
        } else {
            give_up(e, j);
        }
    }
    pthread_mutex_unlock(&e->mutex);
    return is_seen;
}

/* ---- life cycle ---- */

memfs_code eye_open(letta_folder *folder, eye **ret, memfs_error *err)
{
    eye *e = mem_alloc(sizeof(*e));
    pthread_condattr_t attr;
    size_t n = 0;

    e->folder = folder;
    pthread_mutex_init(&e->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&e->work, &attr);
    pthread_cond_init(&e->done, &attr);
    pthread_condattr_destroy(&attr);
    while (n < N_THREADS && pthread_create(&e->threads[n], NULL, run, e) == 0)
        n++;
    pthread_mutex_lock(&e->mutex);
    while (e->n_threads < n)
        pthread_cond_wait(&e->done, &e->mutex);
    pthread_mutex_unlock(&e->mutex);
    *ret = e;
    if (n == N_THREADS)
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EUNAVAIL,
                      "could not start the threads that look at the Letta "
                      "server's folder");
}

bool eye_close(eye *e)
{
    int64_t until_ms = clock_mono_ms() + CLOSE_MS;
    bool has_ended;

    if (e == NULL)
        return true;
    pthread_mutex_lock(&e->mutex);
    e->is_stopping = true;
    pthread_cond_broadcast(&e->work);
    while (e->n_ended < e->n_threads && clock_mono_ms() < until_ms)
        wait_done(e, until_ms);
    has_ended = e->n_ended == e->n_threads;
    pthread_mutex_unlock(&e->mutex);
    for (size_t i = 0; i < e->n_threads; i++)
        if (has_ended)
            pthread_join(e->threads[i], NULL);
        else
            pthread_detach(e->threads[i]);
    if (!has_ended)
        return false;
    while (e->first != NULL) {
        job *j = e->first;

        e->first = j->next;
        free(j);
    }
    pthread_mutex_destroy(&e->mutex);
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->done);
    free(e);
    return true;
}
