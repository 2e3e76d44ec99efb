#include "mirror/fan.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>

#define MAX_THREADS 32

typedef struct fan {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    size_t n, next;      /* the first that was not begun */
    size_t *order;       /* those that ended, as they did */
    size_t n_ended, n_running;
    bool is_over;        /* none is begun any more */
    fan_work_fn work;
    void *ctx;
} fan;

/* With the mutex held; false: there is none. */
static bool begin_one(fan *f, size_t *ret)
{
    if (f->is_over || f->next == f->n)
        return false;
    *ret = f->next++;
    f->n_running++;
    return true;
}

static void work_one(fan *f, size_t i)
{
    pthread_mutex_unlock(&f->mutex);
    f->work(i, f->ctx);
    pthread_mutex_lock(&f->mutex);
    f->n_running--;
    f->order[f->n_ended++] = i;
    pthread_cond_signal(&f->ended);
}

static void *run(void *arg)
{
    fan *f = arg;
    size_t i;

    pthread_mutex_lock(&f->mutex);
    while (begin_one(f, &i))
        work_one(f, i);
    pthread_cond_signal(&f->ended);
    pthread_mutex_unlock(&f->mutex);
    return NULL;
}

/* Where no thread can be had, this one does the work between the telling. */
static size_t tell_all(fan *f, bool has_threads, fan_done_fn done)
{
    size_t n_told = 0, i;

    pthread_mutex_lock(&f->mutex);
    for (;;) {
        if (n_told < f->n_ended) {
            i = f->order[n_told++];
            pthread_mutex_unlock(&f->mutex);
            if (!done(i, f->ctx)) {
                pthread_mutex_lock(&f->mutex);
                f->is_over = true;
                continue;
            }
            pthread_mutex_lock(&f->mutex);
        } else if (f->n_running == 0 && (f->is_over || f->next == f->n)) {
            break;
        } else if (has_threads) {
            pthread_cond_wait(&f->ended, &f->mutex);
        } else if (begin_one(f, &i)) {
            work_one(f, i);
        }
    }
    pthread_mutex_unlock(&f->mutex);
    return n_told;
}

size_t fan_out(size_t n, size_t n_threads, fan_work_fn work, fan_done_fn done, void *ctx)
{
    fan f = { .n = n, .work = work, .ctx = ctx };
    pthread_t threads[MAX_THREADS];
    size_t n_started = 0, n_told;

    if (n_threads > MAX_THREADS)
        n_threads = MAX_THREADS;
    if (n_threads > n)
        n_threads = n;
    f.order = mem_realloc(NULL, n + 1, sizeof(*f.order));
    pthread_mutex_init(&f.mutex, NULL);
    pthread_cond_init(&f.ended, NULL);
    while (n_started < n_threads &&
           pthread_create(&threads[n_started], NULL, run, &f) == 0)
        n_started++;
    n_told = tell_all(&f, n_started > 0, done);
    for (size_t i = 0; i < n_started; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&f.ended);
    pthread_mutex_destroy(&f.mutex);
    free(f.order);
    return n_told;
}
