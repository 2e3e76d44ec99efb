#include "letta/sweep.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

#define PAUSE_MS 1000
#define PART 50 /* of one core's time, at most */
#define FIRST_PLACES 1024
#define STOP_MS 2000

/*
 * A file that was replaced has another inode, one that was written another time; both in one tick
 * of the clock would look alike, so the size counts, too.  (It would be told of by a fetch all the
 * same, which reads it.)
 */
typedef struct seen {
    uint64_t key; /* of the agent; 0: free */
    uint64_t ino;
    int64_t mtime_ns;
    int64_t size;
} seen;

struct sweep {
    letta_folder *folder;
    sweep_fn fn;
    void *ctx;
    seen *at; /* open addressing, at most half full */
    size_t n, n_places;
    pthread_mutex_t mutex; /* guards what follows; a leaf */
    pthread_cond_t changed;
    bool is_stopping, has_ended;
    pthread_t thread;
};

/* FNV-1a: ids of agents are random already. */
static uint64_t key_of(const char *text)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (; *text != '\0'; text++)
        h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return h != 0 ? h : 1;
}

static seen *place_of(seen *at, size_t n_places, uint64_t key)
{
    size_t i = key & (n_places - 1);

    while (at[i].key != 0 && at[i].key != key)
        i = (i + 1) & (n_places - 1);
    return &at[i];
}

static void grow(sweep *s)
{
    size_t n_places = 2 * s->n_places;
    seen *at = mem_alloc(n_places * sizeof(*at));

    for (size_t i = 0; i < s->n_places; i++)
        if (s->at[i].key != 0)
            *place_of(at, n_places, s->at[i].key) = s->at[i];
    free(s->at);
    s->at = at;
    s->n_places = n_places;
}

static bool is_stopping(sweep *s)
{
    bool is;

    pthread_mutex_lock(&s->mutex);
    is = s->is_stopping;
    pthread_mutex_unlock(&s->mutex);
    return is;
}

static bool look_at(const char *agent_id, const char *path, void *ctx)
{
    sweep *s = ctx;
    seen now = { .key = key_of(path) }, *was;
    struct stat st;
    bool is_first;

    if (stat(path, &st) < 0)
        return !is_stopping(s);
    now.ino = st.st_ino;
    now.mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    now.size = st.st_size;
    was = place_of(s->at, s->n_places, now.key);
    is_first = was->key == 0;
    if (!is_first && was->ino == now.ino && was->mtime_ns == now.mtime_ns && was->size == now.size)
        return true;
    *was = now;
    if (is_first && ++s->n * 2 > s->n_places)
        grow(s);
    s->fn(agent_id, is_first, s->ctx);
    return !is_stopping(s);
}

/* Until *what, or ms later.  The mutex is held. */
static void wait_for(sweep *s, const bool *what, int64_t ms)
{
    int64_t until_ms = clock_mono_ms() + ms;
    struct timespec at = clock_at(until_ms);

    while (!*what && clock_mono_ms() < until_ms)
        pthread_cond_timedwait(&s->changed, &s->mutex, &at);
}

static void pause_for(sweep *s, int64_t ms)
{
    pthread_mutex_lock(&s->mutex);
    wait_for(s, &s->is_stopping, ms);
    pthread_mutex_unlock(&s->mutex);
}

static void *run(void *arg)
{
    sweep *s = arg;

    while (!is_stopping(s)) {
        int64_t began_ms = clock_mono_ms(), took_ms;

        letta_folder_each(s->folder, look_at, s);
        took_ms = (clock_mono_ms() - began_ms) * PART;
        pause_for(s, took_ms > PAUSE_MS ? took_ms : PAUSE_MS);
    }
    pthread_mutex_lock(&s->mutex);
    s->has_ended = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

static void sweep_free(sweep *s)
{
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->changed);
    free(s->at);
    free(s);
}

memfs_code sweep_start(letta_folder *folder, sweep_fn fn, void *ctx, sweep **ret, memfs_error *err)
{
    sweep *s = mem_alloc(sizeof(*s));

    s->folder = folder;
    s->fn = fn;
    s->ctx = ctx;
    s->n_places = FIRST_PLACES;
    s->at = mem_alloc(s->n_places * sizeof(*s->at));
    pthread_mutex_init(&s->mutex, NULL);
    clock_cond_init(&s->changed);
    if (pthread_create(&s->thread, NULL, run, s) != 0) {
        sweep_free(s);
        return memfs_fail(err, MEMFS_EUNAVAIL, "could not start a thread that watches the Letta "
                                               "server's folder");
    }
    *ret = s;
    return MEMFS_OK;
}

bool sweep_stop(sweep *s)
{
    bool has_ended;

    if (s == NULL)
        return true;
    pthread_mutex_lock(&s->mutex);
    s->is_stopping = true;
    pthread_cond_signal(&s->changed);
    wait_for(s, &s->has_ended, STOP_MS);
    has_ended = s->has_ended;
    pthread_mutex_unlock(&s->mutex);
    if (!has_ended) {
        pthread_detach(s->thread);
        return false;
    }
    pthread_join(s->thread, NULL);
    sweep_free(s);
    return true;
}
