#include "server/background.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "cache/servers.h"
#include "sync/block_edit.h"
#include "sync/past.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define PAUSE_MS 1000
#define TOKENS_MS 60000
#define STOP_LOOK_MS 20
#define MAX_THREADS 4

struct background {
    app *app;
    void (*tick)(void *ctx);
    void *tick_ctx;
    pthread_t threads[MAX_THREADS];
    size_t n_threads;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool should_stop; /* guarded by mutex */
};

static bool should_stop(void *ctx)
{
    background *b = ctx;
    bool stop;

    pthread_mutex_lock(&b->mutex);
    stop = b->should_stop;
    pthread_mutex_unlock(&b->mutex);
    return stop;
}

/* False: it is time to stop. */
static bool pause_for(background *b, int64_t ms)
{
    struct timespec until = clock_at(clock_mono_ms() + ms);
    bool stop;

    pthread_mutex_lock(&b->mutex);
    if (!b->should_stop)
        pthread_cond_timedwait(&b->changed, &b->mutex, &until);
    stop = b->should_stop;
    pthread_mutex_unlock(&b->mutex);
    return !stop;
}

/* While the database is away it is tried again every second, and told once. */
static void recover(background *b, bool *was_told)
{
    memfs_error err = MEMFS_ERROR_INIT;
    int64_t began_ms = clock_mono_ms();
    char agents[24], ms[24];
    size_t n = 0;

    if (home_recover_all(b->app->home, should_stop, b, &n, &err) < 0) {
        if (!*was_told)
            log_event(LOG_ERROR, "recovery_failed", "reason", err.msg, NULL);
        *was_told = true;
        return;
    }
    if (should_stop(b))
        return;
    snprintf(agents, sizeof(agents), "%zu", n);
    snprintf(ms, sizeof(ms), "%lld", (long long)(clock_mono_ms() - began_ms));
    log_event(LOG_INFO, "recovered", "agents", agents, "ms", ms, NULL);
    atomic_store(&b->app->is_ready, true);
    mirror_compare_all(b->app->mirror);
}

/* ---- what is done because there are other servers ---- */

static void mirror_others_move(const char *agent_id, void *ctx)
{
    mirror_moved(((background *)ctx)->app->mirror, agent_id);
}

/*
 * Heartbeat, lease, tokens that were made or revoked elsewhere; nothing here waits for another
 * server. A token is read within a second or two in any case, and within TOKENS_MS whatever
 * happens.
 */
static void *run_together(void *arg)
{
    int64_t tokens_mark = -1, mark = -1, read_ms = 0;
    memfs_error err;
    background *b = arg;

    do {
        home_cluster_step(b->app->home);
        mirror_stand_by(b->app->mirror, !home_has_lease(b->app->home));
        if ((state_tokens_mark(home_state(b->app->home), &mark, &err) == MEMFS_OK &&
             mark != tokens_mark) ||
            clock_mono_ms() - read_ms > TOKENS_MS) {
            if (auth_reload(b->app->auth, &err) == MEMFS_OK)
                tokens_mark = mark;
            read_ms = clock_mono_ms();
        }
    } while (pause_for(b, PAUSE_MS));
    return NULL;
}

/* A thread of its own: a server that hangs holds each fetch up for as long as one may take. */
static void *run_following(void *arg)
{
    background *b = arg;
    home_follower *f = home_follower_new();

    process_mark(b); /* what it waits for is ended with it (F30) */
    while (!should_stop(b)) {
        home_follow_step(b->app->home, f, should_stop, mirror_others_move, b);
        home_wait_for_moves(b->app->home, PAUSE_MS);
    }
    home_follower_free(f);
    return NULL;
}

/* ---- what comes up ---- */

static void catch_up(background *b, bool *was_told)
{
    if (!atomic_load(&b->app->is_ready))
        recover(b, was_told);
    while (!should_stop(b) && home_catch_up_step(b->app->home))
        ;
}

static void *run_catching_up(void *arg)
{
    bool was_told = false;
    background *b = arg;

    process_mark(b);
    do
        catch_up(b, &was_told);
    while (pause_for(b, PAUSE_MS));
    return NULL;
}

static void *run_background(void *arg)
{
    bool was_told = false;
    background *b = arg;

    do {
        if (!home_is_shared(b->app->home))
            catch_up(b, &was_told);
        if (!should_stop(b) && atomic_load(&b->app->is_ready))
            home_letta_step(b->app->home);
        if (!should_stop(b) && atomic_load(&b->app->is_ready))
            block_edit_step(b->app->home);
        while (!should_stop(b) && home_upkeep_step(b->app->home))
            ;
        while (!should_stop(b) && home_past_step(b->app->home))
            ;
        auth_tell_failures(b->app->auth, clock_mono_ms());
        process_reap_orphans();
        b->tick(b->tick_ctx);
    } while (pause_for(b, PAUSE_MS));
    return NULL;
}

static background *background_new(app *a, void (*tick)(void *ctx), void *tick_ctx)
{
    background *b = mem_alloc(sizeof(*b));

    b->app = a;
    b->tick = tick;
    b->tick_ctx = tick_ctx;
    pthread_mutex_init(&b->mutex, NULL);
    clock_cond_init(&b->changed);
    return b;
}

memfs_code background_start(app *a, void (*tick)(void *ctx), void *tick_ctx, background **ret,
                            memfs_error *err)
{
    static void *(*const works[MAX_THREADS])(void *) = { run_background, run_together,
                                                         run_following, run_catching_up };
    background *b = background_new(a, tick, tick_ctx);
    size_t n = home_is_shared(a->home) ? MAX_THREADS : 1;

    for (; b->n_threads < n; b->n_threads++) {
        errno = pthread_create(&b->threads[b->n_threads], NULL, works[b->n_threads], b);
        if (errno != 0) {
            memfs_fail_errno(err, "could not start a thread");
            background_stop(b);
            return err->code;
        }
    }
    *ret = b;
    return MEMFS_OK;
}

void background_stop(background *b)
{
    if (b == NULL)
        return;
    pthread_mutex_lock(&b->mutex);
    b->should_stop = true;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->mutex);
    for (size_t i = 0; i < b->n_threads; i++)
        while (pthread_tryjoin_np(b->threads[i], NULL) != 0) {
            process_end_of(b);
            clock_sleep_ms(STOP_LOOK_MS);
        }
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->mutex);
    free(b);
}
