#include "client/watch_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/process.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <unistd.h>

/*
 * One thread decides, a few work.  The loop sleeps until something is due, inotify speaks, a worker
 * is done, or a signal comes; it never touches the network or a lock of a memory itself.
 *
 * When is a memory due?
 *   - at once when it is new, or when the wall clock jumped (a suspended machine) or events were lost
 *   - 300 ms after its main moved, 2 s at the latest while it keeps moving
 *   - SETTING_POLL_S after the last time, a fifth more or less by chance, so that many spread
 *   - never before its remote's host may be asked again: failures count by host, 1 s doubling to
 *     15 minutes, any part of that by chance; a Retry-After is kept
 *   - refused credentials are not tried with again until they change; it is looked at every 15 minutes
 *
 * The end: nothing new begins; what runs has 5 s, then its children are ended and it ends by
 * itself.
 */

#define N_THREADS 8
#define MAX_QUEUED 100000
#define SCAN_MS 10000
#define MAX_BACKOFF_MS 900000
#define REFUSED_MS 900000
#define QUEUE_MS 60000
#define JUMP_MS 5000
#define END_MS 5000
#define SYNC_BUDGET_MS 300000

typedef struct errand {
    struct watch *watch;
    watched *memory;
    place place;
    converge_options how;
    client_report report;
    memfs_oid tip; /* main when it was sent out; zero: not known */
    int64_t sent_ms;
    struct errand *next;
} errand;

typedef struct watch {
    const settings *s;
    memories memories;
    watched_host **hosts;
    size_t n_hosts;
    pool *pool;
    int done_fd, signal_fd;
    size_t n_running;
    int64_t clock_ms; /* wall minus monotonic */
    watch_fn fn;
    void *ctx;
    atomic_bool is_ending;
    pthread_mutex_t mutex; /* guards `done` */
    errand *done;
} watch;

/* workers */

static void run_errand(void *arg)
{
    errand *e = arg;
    watch *w = e->watch;
    uint64_t one = 1;

    if (!atomic_load(&w->is_ending))
        client_sync(w->s, &e->place, &e->how, &e->report);
    pthread_mutex_lock(&w->mutex);
    e->next = w->done;
    w->done = e;
    pthread_mutex_unlock(&w->mutex);
    if (write(w->done_fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: the loop wakes anyway */
}

static void errand_free(errand *e)
{
    place_dispose(&e->place);
    client_report_dispose(&e->report);
    free(e);
}

static void send_out(watch *w, watched *m)
{
    errand *e = mem_alloc(sizeof(*e));
    memfs_error err = MEMFS_ERROR_INIT;

    *e = (errand){ .watch = w, .memory = m, .place = PLACE_INIT, .report = CLIENT_REPORT_INIT };
    e->how = (converge_options){ .budget_ms = SYNC_BUDGET_MS, .believe_memory = m->is_refused };
    watched_tip(m, &e->tip);
    e->sent_ms = clock_mono_ms();
    if (place_of(w->s, m->agent_id, &e->place, &err) < 0 ||
        pool_submit(w->pool, m->agent_id, run_errand, e, &err) < 0) {
        errand_free(e);
        m->due_ms = clock_mono_ms() + SCAN_MS;
        return;
    }
    m->is_running = true;
    m->moved_ms = 0;
    m->due_ms = NEVER_MS;
    w->n_running++;
}

/* hosts */

static watched_host *host_of(watch *w, const char *remote)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_error ignored;
    const char *key = remote;
    watched_host *h;

    if (remote == NULL)
        return NULL;
    if (url_parse(remote, &url, &ignored) == MEMFS_OK && url.origin[0] != '\0')
        key = url.origin;
    for (size_t i = 0; i < w->n_hosts; i++)
        if (strcmp(w->hosts[i]->key, key) == 0)
            return w->hosts[i];
    h = mem_alloc(sizeof(*h));
    h->key = mem_strdup(key);
    w->hosts = mem_realloc(w->hosts, w->n_hosts + 1, sizeof(*w->hosts));
    w->hosts[w->n_hosts++] = h;
    return h;
}

/* 0 to n, by chance. */
static int64_t by_chance(int64_t n)
{
    uint32_t chance;

    hash_random((uint8_t *)&chance, sizeof(chance));
    return (int64_t)((double)n * chance / UINT32_MAX);
}

static void host_failed(watched_host *h, const client_report *r, int64_t sent_ms, int64_t now_ms)
{
    int64_t wait_ms = 1000, said_ms = r->ask_again_at_s * 1000 - clock_wall_us() / 1000;
    bool was_told = r->answer == REMOTE_TOO_MANY || r->answer == REMOTE_FAILING;

    if (sent_ms < h->not_before_ms)
        return; /* the same failure: another memory of that host was faster to tell */
    for (unsigned i = 0; i < h->n_failures && wait_ms < MAX_BACKOFF_MS; i++)
        wait_ms *= 2;
    wait_ms = 1000 + by_chance(wait_ms < MAX_BACKOFF_MS ? wait_ms : MAX_BACKOFF_MS);
    if (was_told && said_ms > wait_ms && said_ms <= 3600000)
        wait_ms = said_ms;
    h->n_failures++;
    if (now_ms + wait_ms > h->not_before_ms)
        h->not_before_ms = now_ms + wait_ms;
}

/* what came back */

static int64_t poll_ms(const watch *w)
{
    int64_t ms = (int64_t)setting_number(w->s, SETTING_POLL_S) * 1000;

    return ms - ms / 5 + by_chance(ms * 2 / 5);
}

static int64_t next_ms(watch *w, watched *m, const errand *e, int64_t now_ms)
{
    const client_report *r = &e->report;
    remote_retry retry = remote_class_of(r->answer)->retry;
    int64_t ms = poll_ms(w);

    m->is_refused = r->has_remote && retry == RETRY_NEVER && r->answer != REMOTE_REJECTED;
    if (m->is_refused && ms < REFUSED_MS)
        ms = REFUSED_MS;
    if (r->n_queued > 0 && ms > QUEUE_MS)
        ms = QUEUE_MS;
    if (m->host != NULL && retry == RETRY_BACKOFF) {
        host_failed(m->host, r, e->sent_ms, now_ms);
        return m->host->not_before_ms;
    }
    if (m->host != NULL && remote_class_of(r->answer)->code == MEMFS_OK)
        m->host->n_failures = 0;
    return now_ms + ms;
}

static bool is_news(const watched *m, const client_report *r)
{
    return r->was_created || r->was_pushed || r->was_updated || r->was_merged ||
           strcmp(m->state, client_report_state(r)) != 0 || m->answer != r->answer;
}

/*
 * The main that this sync has dealt with.  A commit that came while it ran may be in the report
 * without having been sent; then only what was there before counts, and the next sync tells.
 */
static const memfs_oid *tip_dealt_with(const errand *e)
{
    const client_report *r = &e->report;
    bool is_main = r->checkout.has_head && strcmp(r->checkout.branch, "main") == 0;

    return is_main && r->n_ahead == 0 && r->held_back[0] == '\0' ? &r->checkout.head : &e->tip;
}

static void take_back(watch *w, errand *e, int64_t now_ms)
{
    watched *m = e->memory;
    const client_report *r = &e->report;

    w->n_running--;
    m->is_running = false;
    if (r->agent_id[0] == '\0') /* we are ending: it was not even begun */
        return;
    m->host = host_of(w, r->remote);
    m->due_ms = next_ms(w, m, e, now_ms);
    watched_tip(m, &m->tip);
    if (is_news(m, r) && !m->is_gone)
        w->fn(r, w->ctx);
    snprintf(m->state, sizeof(m->state), "%s", client_report_state(r));
    m->answer = r->answer;
    if (!oid_is_zero(&m->tip) && !oid_equal(&m->tip, tip_dealt_with(e)))
        watched_moved(m, now_ms); /* its event says nothing any more: it finds the tip of now */
}

static void take_all_back(watch *w)
{
    int64_t now_ms = clock_mono_ms();
    uint64_t ignored;
    errand *e, *next;

    if (read(w->done_fd, &ignored, sizeof(ignored)) < 0 && errno != EAGAIN)
        return;
    pthread_mutex_lock(&w->mutex);
    e = TAKE_PTR(w->done);
    pthread_mutex_unlock(&w->mutex);
    for (; e != NULL; e = next) {
        next = e->next;
        take_back(w, e, now_ms);
        errand_free(e);
    }
}

/* the loop */

static bool clock_jumped(watch *w)
{
    int64_t now = clock_wall_us() / 1000 - clock_mono_ms(), was = w->clock_ms;

    w->clock_ms = now;
    return now - was > JUMP_MS || was - now > JUMP_MS;
}

/* Sends out what is due; the time of the next that is not. */
static int64_t send_due(watch *w, int64_t now_ms)
{
    int64_t next = NEVER_MS;

    for (size_t i = 0; i < w->memories.n; i++) {
        watched *m = w->memories.at[i];

        if (!m->is_running && !m->is_gone && m->due_ms <= now_ms)
            send_out(w, m);
        if (m->due_ms < next)
            next = m->due_ms;
    }
    return next;
}

/* False: a signal says that it is over. */
static bool sleep_until(watch *w, int64_t until_ms, bool *ret_events)
{
    struct pollfd fds[] = { { w->signal_fd, POLLIN, 0 },
                            { w->done_fd, POLLIN, 0 },
                            { w->memories.inotify, POLLIN, 0 } };
    int64_t ms = until_ms - clock_mono_ms();
    struct signalfd_siginfo signal;

    ms = ms < 0 ? 0 : ms > SCAN_MS ? SCAN_MS : ms;
    if (poll(fds, ARRAY_LEN(fds), (int)ms) < 0 && errno != EINTR)
        clock_sleep_ms(100); /* out of memory: not in a tight circle */
    *ret_events = (fds[2].revents & POLLIN) != 0;
    if (fds[1].revents & POLLIN)
        take_all_back(w);
    /* read, or it would still be pending when the signals are let through again */
    return read(w->signal_fd, &signal, sizeof(signal)) != (ssize_t)sizeof(signal);
}

static void loop(watch *w)
{
    int64_t scan_at_ms = 0, next;
    bool has_events = false;

    do {
        int64_t now_ms = clock_mono_ms();
        bool wants_scan = has_events && memories_events(&w->memories, now_ms);

        if (clock_jumped(w)) {
            memories_all_due(&w->memories, now_ms);
            wants_scan = true;
        }
        if (wants_scan || now_ms >= scan_at_ms) {
            memories_scan(&w->memories, now_ms);
            scan_at_ms = now_ms + SCAN_MS;
        }
        next = send_due(w, now_ms);
        next = next < scan_at_ms ? next : scan_at_ms;
    } while (sleep_until(w, next, &has_events));
}

static void end(watch *w)
{
    int64_t until_ms = clock_mono_ms() + END_MS;

    atomic_store(&w->is_ending, true);
    while (w->n_running > 0 && clock_mono_ms() < until_ms) {
        struct pollfd fd = { w->done_fd, POLLIN, 0 };

        if (poll(&fd, 1, (int)(until_ms - clock_mono_ms() + 1)) > 0)
            take_all_back(w);
    }
    if (w->n_running > 0)
        process_end_all();
    pool_free(w->pool);
    take_all_back(w);
}

/* life cycle */

static void watch_dispose(watch *w)
{
    memories_dispose(&w->memories);
    for (size_t i = 0; i < w->n_hosts; i++) {
        free(w->hosts[i]->key);
        free(w->hosts[i]);
    }
    free(w->hosts);
    if (w->done_fd >= 0)
        close(w->done_fd);
    if (w->signal_fd >= 0)
        close(w->signal_fd);
    pthread_mutex_destroy(&w->mutex);
}

static void signals_that_end(sigset_t *ret)
{
    sigemptyset(ret);
    sigaddset(ret, SIGTERM);
    sigaddset(ret, SIGINT);
    sigaddset(ret, SIGHUP);
}

/* Blocked before the first thread starts, so that only the descriptor sees them. */
static memfs_code open_descriptors(watch *w, sigset_t *ret_before, memfs_error *err)
{
    sigset_t ends;

    signals_that_end(&ends);
    pthread_sigmask(SIG_BLOCK, &ends, ret_before);
    w->signal_fd = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
    w->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->memories.inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (w->signal_fd < 0 || w->done_fd < 0)
        return memfs_fail_errno(err, "could not open what --watch waits with");
    return MEMFS_OK;
}

/* Two watchers of one home would do everything twice. */
static memfs_code take_lock(const settings *s, const char *only, fs_lock *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/watch%s%s.lock", setting_text(s, SETTING_HOME),
                                                 only ? "-" : "", only ? only : "");
    memfs_code rc = fs_mkdirs(setting_text(s, SETTING_HOME), err);

    if (rc == MEMFS_OK)
        rc = fs_lock_take(path, ret, err);
    if (rc == MEMFS_EUNAVAIL)
        return memfs_fail(err, rc, "another 'memfs sync --watch' runs for this home already");
    return rc;
}

memfs_code watch_run(const settings *s, const char *only, watch_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(fs_unlock) fs_lock lock = FS_LOCK_INIT;
    _cleanup_(watch_dispose) watch w = { .s = s,
                                         .memories = { .s = s, .only = only, .inotify = -1,
                                                       .wd_parents = { -1, -1 } },
                                         .done_fd = -1,
                                         .signal_fd = -1,
                                         .fn = fn,
                                         .ctx = ctx,
                                         .mutex = PTHREAD_MUTEX_INITIALIZER };
    sigset_t before;
    memfs_code rc = take_lock(s, only, &lock, err);

    if (rc == MEMFS_OK)
        rc = checkout_library(err);
    if (rc < 0)
        return rc;
    rc = open_descriptors(&w, &before, err);
    if (rc == MEMFS_OK) {
        w.clock_ms = clock_wall_us() / 1000 - clock_mono_ms();
        w.pool = pool_new(N_THREADS, MAX_QUEUED);
        loop(&w);
        end(&w);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}
