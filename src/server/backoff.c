#include "server/backoff.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HELD 4096

typedef struct held {
    http_request *rq;
    int64_t due_ms;
    int what;
} held;

struct backoff {
    pthread_t thread;
    bool is_running;       /* of the thread that opened it */
    pthread_mutex_t mutex; /* guards what follows; never held while a request is told */
    pthread_cond_t changed;
    held waiting[MAX_HELD]; /* in no order: few wait, and only while somebody guesses */
    size_t n;
    bool should_stop;
};

/* Takes out one whose time has come.  False: none; *ret_next_ms is when the next one is due. */
static bool take_due_locked(backoff *b, int64_t now_ms, held *ret, int64_t *ret_next_ms)
{
    *ret_next_ms = INT64_MAX;
    for (size_t i = 0; i < b->n; i++) {
        if (b->should_stop || b->waiting[i].due_ms <= now_ms) {
            *ret = b->waiting[i];
            b->waiting[i] = b->waiting[--b->n];
            return true;
        }
        if (b->waiting[i].due_ms < *ret_next_ms)
            *ret_next_ms = b->waiting[i].due_ms;
    }
    return false;
}

static void wait_locked(backoff *b, int64_t next_ms)
{
    struct timespec until;

    if (next_ms == INT64_MAX) {
        pthread_cond_wait(&b->changed, &b->mutex);
        return;
    }
    until = clock_at(next_ms);
    pthread_cond_timedwait(&b->changed, &b->mutex, &until);
}

static void *run(void *arg)
{
    backoff *b = arg;
    int64_t next_ms;
    held h;

    pthread_mutex_lock(&b->mutex);
    for (;;) {
        if (take_due_locked(b, clock_mono_ms(), &h, &next_ms)) {
            pthread_mutex_unlock(&b->mutex);
            http_gate_tell(h.rq, h.what);
            pthread_mutex_lock(&b->mutex);
        } else if (b->should_stop) {
            break;
        } else {
            wait_locked(b, next_ms);
        }
    }
    pthread_mutex_unlock(&b->mutex);
    return NULL;
}

bool backoff_hold(backoff *b, http_request *rq, int64_t wait_ms, int what)
{
    bool is_held;

    pthread_mutex_lock(&b->mutex);
    is_held = !b->should_stop && b->n < MAX_HELD;
    if (is_held) {
        http_gate_hold(rq);
        b->waiting[b->n++] = (held){ rq, clock_mono_ms() + wait_ms, what };
        pthread_cond_signal(&b->changed);
    }
    pthread_mutex_unlock(&b->mutex);
    return is_held;
}

/* ---- life ---- */

memfs_code backoff_open(backoff **ret, memfs_error *err)
{
    backoff *b = mem_alloc(sizeof(*b));

    pthread_mutex_init(&b->mutex, NULL);
    clock_cond_init(&b->changed);
    errno = pthread_create(&b->thread, NULL, run, b);
    if (errno != 0) {
        memfs_fail_errno(err, "could not start a thread");
        backoff_close(b);
        return err->code;
    }
    b->is_running = true;
    *ret = b;
    return MEMFS_OK;
}

void backoff_stop(backoff *b)
{
    if (b == NULL || !b->is_running)
        return;
    pthread_mutex_lock(&b->mutex);
    b->should_stop = true;
    pthread_cond_signal(&b->changed);
    pthread_mutex_unlock(&b->mutex);
    pthread_join(b->thread, NULL);
    b->is_running = false;
}

void backoff_close(backoff *b)
{
    if (b == NULL)
        return;
    backoff_stop(b);
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->mutex);
    free(b);
}
