/*
 * server.c - one process that owns a home and serves it.
 *
 *     main thread      start, wait for a signal, stop
 *     event threads    http.c
 *     workers          http.c's pools: handlers that wait for git or the disk
 *     reaper           http_conn.c
 *     background, together, following    background.h
 *     mirror           its scheduler and workers (mirror.h)
 *     upstream         all that is streamed to and from a Letta server (httpc_multi.h)
 *
 * Stopping: no new connections; what is streamed from a Letta server, which may never end by itself,
 * is cut after RELAY_GRACE_MS; requests end within GRACE_MS, then the background, then the mirror
 * (MIRROR_GRACE_MS; what it was at is done again by the next start), then the home.  A handler that
 * hangs beyond that keeps the home open until the process ends, which is at once: a killed push is
 * what D1 to D4 are made for.
 */
#include "server/server.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "server/app.h"
#include "server/background.h"
#include "server/backoff.h"
#include "server/gateway.h"
#include "server/service.h"
#include "server/webhooks.h"

#include <arpa/inet.h>
#include <assert.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define GRACE_MS 20000 /* and 5 s for what was cut off: 25 s in all (F30) */
#define RELAY_GRACE_MS 2000
#define ALL_GRACE_MS 25000
#define LEAST_GRACE_MS 500 /* of the mirror, when the requests used all of theirs */
#define MIRROR_GRACE_MS 3000 /* for a push to end; a host that hangs is not waited for */
#define N_MIRROR_WORKERS 4

struct server {
    app app;
    http_server *http;
    _Atomic(mirror *) told; /* of moves of main; NULL before it runs and when it ends */
    char *remote_url, *remote_token_file;
    pthread_mutex_t reloading; /* one reload of remotes at a time: the last one asked for wins */
    bool is_transient;
    background *background; /* NULL: none */
    pthread_mutex_t refreshing; /* guards http while the background, which looks at it, may run */
};

/* ---- beside the requests ---- */

/* How loud an alarm of the home or the mirror is; what stands in neither list is a warning. */
static log_level level_of_alarm(const char *event)
{
    static const char *const good_news[] = { "agent_adopted", "agent_unfenced",
                                             "cache_rule_changed", "leftovers_swept",
                                             "mirror_recovered" };
    static const char *const bad_news[] = { "agent_fenced", "fence_not_kept", "folder_missing",
                                            "history_rewritten" };

    for (size_t i = 0; i < ARRAY_LEN(good_news); i++)
        if (strcmp(event, good_news[i]) == 0)
            return LOG_INFO;
    for (size_t i = 0; i < ARRAY_LEN(bad_news); i++)
        if (strcmp(event, bad_news[i]) == 0)
            return LOG_ERROR;
    return LOG_WARN;
}

static void log_alarm(const char *event, const char *agent_id, const char *text, void *ctx)
{
    (void)ctx;
    log_event(level_of_alarm(event), event, "agent", agent_id, "text", text, NULL);
}

/* The background looks every second, SIGHUP asks. */
static void refresh_tls(server *s, bool is_asked)
{
    pthread_mutex_lock(&s->refreshing);
    if (s->http != NULL)
        http_refresh_tls(s->http, is_asked);
    pthread_mutex_unlock(&s->refreshing);
}

static void look_at_tls(void *ctx)
{
    refresh_tls(ctx, false);
}

/* The front is ended before the background, which must not meet it half gone. */
static http_server *take_http(server *s)
{
    http_server *taken;

    pthread_mutex_lock(&s->refreshing);
    taken = s->http;
    s->http = NULL;
    pthread_mutex_unlock(&s->refreshing);
    return taken;
}

/* ---- remotes ---- */

static void on_moved(const char *agent_id, void *ctx)
{
    server *s = ctx;
    mirror *m = atomic_load(&s->told);

    if (m != NULL)
        mirror_moved(m, agent_id);
}

/*
 * For --replicas: a remote that has main has what was pushed a moment ago.  One that we only read
 * from has it by chance, and a Letta server's folder is a disk of this machine.
 */
static bool on_copied(const char *agent_id, int64_t deadline_ms, void *ctx)
{
    server *s = ctx;
    mirror *m = atomic_load(&s->told);
    mirror_outcome outcome = { .n_remotes = 0 };

    if (m == NULL || !mirror_has_remotes(m))
        return false;
    mirror_sync_modestly(m, agent_id, deadline_ms, &outcome);
    return outcome.n_copies > 0;
}

static bool on_bring(const char *agent_id, struct fetched *f, const memfs_oid *want,
                     int64_t deadline_ms, void *ctx)
{
    server *s = ctx;
    mirror *m = atomic_load(&s->told);

    return m != NULL && mirror_bring(m, agent_id, f, want, deadline_ms);
}

static void log_mirror(const char *event, const char *agent_id, const char *remote,
                       const char *text, void *ctx)
{
    (void)ctx;
    log_event(level_of_alarm(event), event, "agent", agent_id, "remote", remote, "text", text,
              NULL);
}

static void log_remote_warning(const char *text, void *ctx)
{
    (void)ctx;
    log_event(LOG_WARN, "remote_configured", "text", text, NULL);
}

static memfs_code load_remotes(server *s, remotes **ret, memfs_error *err)
{
    const remotes_options options = { home_settings(s->app.home)->path, s->remote_url,
                                      s->remote_token_file, service_folder(s->app.service),
                                      log_remote_warning, NULL };

    return remotes_load(&options, ret, err);
}

/*
 * A command about blocks does not fail because of a remote.  One about remotes does: app.h,
 * remotes_fault.
 */
static remotes *no_remotes(server *s, const memfs_error *why)
{
    remotes *none = mem_alloc(sizeof(*none));

    snprintf(s->app.remotes_fault, sizeof(s->app.remotes_fault), "%s", why->msg);
    none->home = mem_strdup(home_settings(s->app.home)->path);
    return none;
}

static memfs_code start_mirror(server *s, memfs_error *err)
{
    mirror_options options = { .home = s->app.home, .n_workers = N_MIRROR_WORKERS,
                              .is_manual = s->is_transient,
                              .is_standing_by = home_is_shared(s->app.home),
                              .event = log_mirror,
                              .letta_moves = s->app.service != NULL ? service_moves : NULL,
                              .letta_ctx = s->app.service };
    memfs_code rc = load_remotes(s, &options.remotes, err);

    if (rc < 0 && s->is_transient)
        options.remotes = no_remotes(s, err);
    else if (rc < 0)
        return rc;
    rc = mirror_start(&options, &s->app.mirror, err);
    if (rc == MEMFS_OK)
        atomic_store(&s->told, s->app.mirror);
    return rc;
}

/*
 * Nobody asks it any more but the home, in the mirror's own threads: a move that is not told now is
 * found by the next start.
 */
static bool stop_mirror(server *s, int64_t grace_ms)
{
    mirror *m = s->app.mirror;

    if (m == NULL)
        return true;
    if (grace_ms > MIRROR_GRACE_MS)
        grace_ms = MIRROR_GRACE_MS;
    atomic_store(&s->told, NULL);
    s->app.mirror = NULL;
    return mirror_stop(m, grace_ms > LEAST_GRACE_MS ? grace_ms : LEAST_GRACE_MS);
}

memfs_code app_reload_remotes(app *self, memfs_error *err)
{
    server *s = (server *)((char *)self - offsetof(server, app));
    remotes *fresh;
    memfs_code rc;

    pthread_mutex_lock(&s->reloading);
    rc = load_remotes(s, &fresh, err);
    if (rc == MEMFS_OK) {
        mirror_reload(self->mirror, fresh);
        if (self->remotes_fault[0] != '\0')
            self->remotes_fault[0] = '\0';
    }
    pthread_mutex_unlock(&s->reloading);
    return rc;
}

/* ---- life ---- */

static bool is_loopback(const char *address)
{
    struct in6_addr v6;
    struct in_addr v4;

    return address == NULL ||
           (inet_pton(AF_INET, address, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127) ||
           (inet_pton(AF_INET6, address, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6));
}

static size_t n_inherited(const server_options *options)
{
    static_assert(MANAGER_MAX_FDS <= HTTP_MAX_FDS, "the front takes all that are handed down");
    return options->manager != NULL ? options->manager->n_fds : 0;
}

/*
 * The first address that others can reach, "" when there is none.  A socket that was handed down is
 * asked itself: what its unit says, or --listen beside it, is only somebody's word.
 */
static memfs_code exposed_address(const server_options *options, char out[HTTP_PEER_LEN],
                                  memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    uint16_t port;

    out[0] = '\0';
    if (n_inherited(options) == 0 && !is_loopback(options->address))
        snprintf(out, HTTP_PEER_LEN, "%s", options->address);
    for (size_t i = 0; rc == MEMFS_OK && out[0] == '\0' && i < n_inherited(options); i++) {
        rc = http_listen_address(options->manager->fds[i], out, &port, err);
        if (rc == MEMFS_OK && is_loopback(out))
            out[0] = '\0';
    }
    return rc;
}

/* Tokens and memories on a network, for whoever listens on it. */
static void warn_of_clear_text(const server_options *options, const char *exposed)
{
    if (exposed[0] == '\0' || options->tls_cert != NULL || options->is_behind_proxy)
        return;
    log_event(LOG_WARN, "clear_text", "address", exposed, "text",
              "tokens and memories can be read on the way: use --tls-cert and --tls-key, or "
              "--behind-proxy where a proxy does TLS", NULL);
}

static bool is_peer(const uint8_t *hash, void *ctx)
{
    return home_knows_peer(((server *)ctx)->app.home, hash);
}

/*
 * Beyond this machine memfs listens only when requests need a token (reliability 7), or come from a
 * Letta server that is believed, when all others need one, or when one that stands behind judges them.
 */
static memfs_code open_auth(server *s, const server_options *options, memfs_error *err)
{
    char exposed[HTTP_PEER_LEN];
    memfs_code rc = exposed_address(options, exposed, err);

    if (rc == MEMFS_OK)
        rc = auth_open(home_state(s->app.home), s->app.service != NULL && exposed[0] != '\0',
                       &s->app.auth, err);
    if (rc < 0)
        return rc;
    auth_set_peers(s->app.auth, is_peer, s);
    if (exposed[0] != '\0' && !auth_is_on(s->app.auth) && s->app.gateway == NULL)
        return memfs_fail(err, MEMFS_EDENIED,
                          "'%s' is reachable from other machines, and nobody needs a token yet; "
                          "make one first: memfs token create --scope admin", exposed);
    warn_of_clear_text(options, exposed);
    return MEMFS_OK;
}

static server *server_new(const server_options *options)
{
    server *s = mem_alloc(sizeof(*s));

    s->is_transient = options->is_transient;
    s->remote_url = options->remote_url != NULL ? mem_strdup(options->remote_url) : NULL;
    s->remote_token_file =
        options->remote_token_file != NULL ? mem_strdup(options->remote_token_file) : NULL;
    atomic_init(&s->told, NULL);
    s->app.version = MEMFS_VERSION;
    s->app.started_at_us = clock_wall_us();
    s->app.letta_url = options->letta.url != NULL ? mem_strdup(options->letta.url) : NULL;
    s->app.letta_token_file =
        options->letta.token_file != NULL ? mem_strdup(options->letta.token_file) : NULL;
    s->app.webhooks = webhooks_new(options->home.path);
    atomic_init(&s->app.is_ready, false);
    pthread_mutex_init(&s->reloading, NULL);
    pthread_mutex_init(&s->refreshing, NULL);
    return s;
}

static void server_free(server *s)
{
    service_close(s->app.service);
    gateway_close(s->app.gateway);
    backoff_close(s->app.backoff);
    auth_close(s->app.auth);
    webhooks_free(s->app.webhooks);
    home_close(s->app.home);
    pthread_mutex_destroy(&s->reloading);
    free(s->remote_url);
    free(s->remote_token_file);
    free(s->app.letta_url);
    free(s->app.letta_token_file);
    pthread_mutex_destroy(&s->refreshing);
    free(s);
}

/*
 * What git children, databases and packs need beside the connections.  Where the limit is so low
 * that it cannot be raised, fewer connections are better than some that nobody ever answers (F07).
 */
#define OTHER_DESCRIPTORS 256
#define LEAST_CONNECTIONS 16

static size_t connections_within_limit(size_t wanted, size_t n_each)
{
    struct rlimit limit;
    size_t room;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return wanted;
    room = limit.rlim_cur > OTHER_DESCRIPTORS ? (size_t)limit.rlim_cur - OTHER_DESCRIPTORS : 0;
    room /= n_each;
    if (room < LEAST_CONNECTIONS)
        room = LEAST_CONNECTIONS;
    return wanted < room ? wanted : room;
}

static memfs_code start_http(server *s, const server_options *options, memfs_error *err)
{
    _cleanup_(mem_freep) char *socket_path =
        mem_printf("%s/socket", home_settings(s->app.home)->path);
    http_options http = HTTP_OPTIONS_DEFAULT;

    http.max_connections =
        connections_within_limit(http.max_connections, s->app.gateway != NULL ? 2 : 1);
    http.address = options->address;
    http.port = options->port;
    http.n_fds = n_inherited(options);
    http.fds = http.n_fds > 0 ? options->manager->fds : NULL;
    http.socket_path = socket_path;
    http.routes = APP_ROUTES;
    http.n_routes = APP_N_ROUTES;
    if (s->app.gateway != NULL)
        http.routes = gateway_routes(s->app.gateway, &http.n_routes);
    http.app = &s->app;
    http.gate = app_gate;
    http.tls_cert = options->tls_cert;
    http.tls_key = options->tls_key;
    if (options->is_behind_proxy) /* all clients are one source then */
        http.max_per_source = http.max_connections;
    http.is_quiet = options->is_transient;
    return http_start(&http, &s->http, err);
}

/* Without anybody who could keep a copy no push would ever be acknowledged. */
static memfs_code check_replicas(server *s, unsigned n_replicas, memfs_error *err)
{
    if (n_replicas < 2 || s->is_transient || home_is_shared(s->app.home) ||
        mirror_has_remotes(s->app.mirror))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EINVALID,
                      "--replicas %u needs somebody who keeps a copy: give --cluster-url and "
                      "--database, or a remote", n_replicas);
}

static memfs_code open_gateway(server *s, const server_options *options, memfs_error *err)
{
    if (options->upstream == NULL)
        return MEMFS_OK;
    return gateway_open(options->upstream, options->is_behind_proxy, &s->app.gateway, err);
}

static memfs_code start_parts(server *s, const server_options *options, memfs_error *err)
{
    home_options home = options->home;
    memfs_code rc;

    home.alarm = log_alarm;
    home.moved = on_moved;
    home.moved_ctx = s;
    home.copied = on_copied;
    home.copied_ctx = s;
    home.bring = on_bring;
    home.bring_ctx = s;
    rc = open_gateway(s, options, err); /* a bad address is told before anything is opened */
    if (rc == MEMFS_OK)
        rc = home_open(&home, &s->app.home, err);
    if (rc == MEMFS_OK && options->letta.root != NULL)
        rc = service_open(&options->letta, home.path, &s->app.service, err);
    if (rc == MEMFS_OK)
        rc = open_auth(s, options, err);
    if (rc == MEMFS_OK)
        rc = start_mirror(s, err);
    if (rc == MEMFS_OK)
        rc = check_replicas(s, options->home.n_replicas, err);
    if (rc == MEMFS_OK && s->app.service != NULL)
        rc = service_start(s->app.service, s->app.home, s->app.mirror, err);
    if (rc == MEMFS_OK)
        rc = backoff_open(&s->app.backoff, err);
    if (rc == MEMFS_OK)
        rc = start_http(s, options, err);
    if (rc == MEMFS_OK && !s->is_transient)
        rc = home_serves(s->app.home, err);
    if (rc == MEMFS_OK && !s->is_transient)
        rc = background_start(&s->app, look_at_tls, s, &s->background, err);
    return rc;
}

memfs_code server_start(const server_options *options, server **ret, memfs_error *err)
{
    server *s = server_new(options);
    memfs_code rc;

    rc = start_parts(s, options, err);
    if (rc < 0) {
        gateway_stop(s->app.gateway);
        backoff_stop(s->app.backoff);
        if (s->http != NULL)
            http_stop(s->http, 0, NULL);
        if (service_stop(s->app.service) && stop_mirror(s, 0))
            server_free(s); /* else a thread at a volume that hangs has all of this still */
        return rc;
    }
    *ret = s;
    return MEMFS_OK;
}

uint16_t server_port(const server *s)
{
    return http_port(s->http);
}

void server_remotes(const server *s, void (*fn)(const remotes *r, void *ctx), void *ctx)
{
    mirror_with_remotes(s->app.mirror, fn, ctx);
}

size_t server_stop(server *s)
{
    int64_t until_ms = clock_mono_ms() + ALL_GRACE_MS;
    char count[24];
    bool is_stuck;
    size_t n_cut;

    backoff_stop(s->app.backoff);
    if (s->app.gateway != NULL) {
        http_drain(s->http, RELAY_GRACE_MS);
        gateway_stop(s->app.gateway);
    }
    if (http_drain(s->http, GRACE_MS) > 0)
        process_end_all(); /* a handler that waits for git has nothing to wait for any more */
    n_cut = http_stop(take_http(s), 0, &is_stuck);
    if (n_cut > 0) {
        snprintf(count, sizeof(count), "%zu", n_cut);
        log_event(LOG_WARN, "requests_cut", "count", count, NULL);
    }
    if (is_stuck) {
        log_event(LOG_ERROR, "handler_stuck", NULL);
        process_end_all();
        return n_cut;
    }
    background_stop(s->background);
    is_stuck = !service_stop(s->app.service);
    if (is_stuck || !stop_mirror(s, until_ms - clock_mono_ms())) {
        log_event(LOG_ERROR, "letta_volume_hangs", NULL); /* its threads have all of this still */
        process_end_all();
        return n_cut;
    }
    server_free(s);
    return n_cut;
}

void server_reload(server *s)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (auth_reload(s->app.auth, &err) < 0)
        log_event(LOG_ERROR, "reload_failed", "what", "tokens", "reason", err.msg, NULL);
    refresh_tls(s, true);
    if (app_reload_remotes(&s->app, &err) < 0)
        log_event(LOG_ERROR, "reload_failed", "what", "remotes", "reason", err.msg, NULL);
    log_event(LOG_INFO, "reload", "text", "tokens, certificate and remotes were read anew", NULL);
}
