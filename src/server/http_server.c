/*
 * http_server.c - the life of the HTTP front as a whole: its sockets, its two kinds of front, its
 * clocks and its workers; and how all of them end, in the one order in which that is possible.
 */
#include "server/http_int.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STUCK_MS 5000

const http_options HTTP_OPTIONS_DEFAULT = {
    .address = "127.0.0.1",
    .max_queued = 256,
    .max_connections = 1000,
    .max_per_source = 64,
    .max_per_local = 1000,
    .head_timeout_ms = 10000,
    .min_bytes_per_30s = 30 << 10,
    .rate_window_ms = 30000,
};

bool http_server_logs(const http_server *s)
{
    return !s->options.is_quiet;
}

void *http_server_app(const http_server *s)
{
    return s->options.app;
}

void http_refresh_tls(http_server *s, bool is_asked)
{
    if (s->tls != NULL)
        http_tls_refresh(s->tls, is_asked);
}

uint16_t http_port(const http_server *s)
{
    return s->port;
}

/* ---- start ---- */

static size_t n_cores(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return n > 0 ? (size_t)n : 1;
}

static size_t clamp(size_t n, size_t least, size_t most)
{
    return n < least ? least : n > most ? most : n;
}

static size_t n_event_threads(const http_options *o)
{
    return o->n_event_threads > 0 ? o->n_event_threads : clamp(n_cores(), 1, 8);
}

/* The event threads are shared out: several sockets are several names of one server. */
static memfs_code start_inherited(http_server *s, memfs_error *err)
{
    const http_options *o = &s->options;
    size_t n_threads = clamp(n_event_threads(o) / o->n_fds, 1, 8);
    uint16_t port;
    memfs_code rc = http_listen_stand_in(&s->stand_in, err);

    for (size_t i = 0; rc == MEMFS_OK && i < o->n_fds; i++) {
        rc = http_listen_inherited(o->fds[i], &port, err);
        if (rc == MEMFS_OK && i == 0)
            s->port = port;
        if (rc == MEMFS_OK)
            rc = http_front_start(s, &s->tcp[s->n_tcp++], o->fds[i], n_threads, err);
    }
    return rc;
}

static memfs_code start_fronts(http_server *s, memfs_error *err)
{
    const http_options *o = &s->options;
    memfs_code rc = MEMFS_OK;
    int fd;

    s->local.is_owner = true;
    if (o->tls_cert != NULL)
        rc = http_tls_open(o->tls_cert, o->tls_key, &s->tls, err);
    if (rc == MEMFS_OK && o->n_fds > 0)
        rc = start_inherited(s, err);
    else if (rc == MEMFS_OK && o->address != NULL) {
        rc = http_listen_tcp(o->address, o->port, &fd, &s->port, err);
        if (rc == MEMFS_OK)
            rc = http_front_start(s, &s->tcp[s->n_tcp++], fd, n_event_threads(o), err);
    }
    if (rc == MEMFS_OK && s->socket_path != NULL) {
        rc = http_listen_unix(s->socket_path, &fd, err);
        if (rc == MEMFS_OK)
            rc = http_front_start(s, &s->local, fd, 1, err);
    }
    return rc;
}

static void server_dispose(http_server *s)
{
    http_conns_free(s->conns);
    pool_free(s->streams);
    pool_free(s->bodies);
    http_tls_close(s->tls);
    free(s->socket_path);
    free(s);
}

memfs_code http_start(const http_options *options, http_server **ret, memfs_error *err)
{
    http_clocks clocks = { options->head_timeout_ms, options->min_bytes_per_30s,
                           options->rate_window_ms,  options->max_connections,
                           options->max_per_source,  options->max_per_local };
    size_t n_workers = options->n_workers > 0 ? options->n_workers : clamp(2 * n_cores(), 4, 32);
    http_server *s = mem_alloc(sizeof(*s));
    memfs_code rc;

    s->options = *options;
    s->socket_path = options->socket_path != NULL ? mem_strdup(options->socket_path) : NULL;
    s->has_exact_heads = http_library_is_known();
    hash_random((uint8_t *)&s->id_prefix, sizeof(s->id_prefix));
    rc = http_conns_new(&clocks, &s->conns, err);
    if (rc < 0) {
        free(s->socket_path);
        free(s);
        return rc;
    }
    s->streams = pool_new(n_workers, options->max_queued);
    s->bodies = pool_new(n_workers, options->max_queued);
    rc = start_fronts(s, err);
    if (rc < 0) {
        http_stop(s, 0, NULL);
        return rc;
    }
    *ret = s;
    return MEMFS_OK;
}

/* ---- end ---- */

/* Its worker, if any, is told that the client is gone; the connection ends without a word. */
static void cut_off(http_request *rq)
{
    pthread_mutex_lock(&rq->mutex);
    rq->is_cut = true;
    pthread_cond_broadcast(&rq->changed);
    http_wake_locked(rq);
    rq->is_dead = true;
    http_poke_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
}

static size_t load(http_server *s)
{
    return pool_load(s->streams) + pool_load(s->bodies);
}

static bool wait_for_workers(http_server *s, int64_t ms)
{
    int64_t until = clock_mono_ms() + ms;

    while (load(s) > 0 && clock_mono_ms() < until)
        clock_sleep_ms(10);
    return load(s) == 0;
}

size_t http_drain(http_server *s, int64_t grace_ms)
{
    int64_t until = clock_mono_ms() + grace_ms;
    size_t n;

    http_listen_let_go(&s->stand_in, s->options.fds, s->options.n_fds);
    s->options.n_fds = 0;
    if (!atomic_exchange(&s->is_stopping, true) && s->socket_path != NULL)
        unlink(s->socket_path);
    while ((n = http_conns_quiesce(s->conns, NULL)) > 0 && clock_mono_ms() < until)
        clock_sleep_ms(10);
    return n;
}

size_t http_stop(http_server *s, int64_t grace_ms, bool *ret_is_stuck)
{
    size_t n_cut;
    bool is_stuck;

    http_drain(s, grace_ms);
    /*
     * From here on nothing is put aside any more (the library must not be stopped with a connection
     * aside): requests that are there are marked dead, and no other begins.
     */
    atomic_store(&s->is_closed, true);
    n_cut = http_conns_quiesce(s->conns, cut_off);
    is_stuck = !wait_for_workers(s, STUCK_MS);
    if (ret_is_stuck != NULL)
        *ret_is_stuck = is_stuck;
    if (is_stuck)
        return n_cut; /* the process is about to end; freeing below a running handler helps nobody
                       */
    for (size_t i = 0; i < s->n_tcp; i++)
        http_front_stop(&s->tcp[i]);
    http_front_stop(&s->local);
    server_dispose(s);
    return n_cut;
}
