#include "cache/pg_owner.h"

#include "cache/pg_conn.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LOCK "7813577600197001217"
#define ANSWER_MS 3000 /* to "do you live?" */
/* A server that was ended a moment ago has its session until the database has noticed. */
#define PATIENCE_MS 3000
#define FAILURE_HOLDS_MS 1000

/* The other end of a session whose machine is gone would be kept for two hours otherwise. */
#define SESSION                                                                                    \
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;" \
    "SET application_name = '%s'"
#define TRY "SELECT pg_try_advisory_lock(" LOCK ")"
#define TRY_SHARED "SELECT pg_try_advisory_lock_shared(" LOCK ")"
#define HOLDER                                                                                     \
    "SELECT a.application_name, a.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "   \
    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND a.datname = "              \
    "current_database() AND a.datid = l.database "                                                 \
    "AND ((l.classid::int8 << 32) | l.objid::int8) = " LOCK

struct pg_owner {
    const char *url;
    bool is_shared;
    char name[64]; /* of this process, as the database shows it */
    pthread_mutex_t mutex; /* guards all below */
    pg_conn *session;      /* NULL: not taken */
    uint64_t generation;
    int64_t failed_ms;
    memfs_error failure;
};

/* "memfs HOST PID RANDOM"; the last tells our own session from that of a process before us. */
static void make_name(char *out, size_t size)
{
    char host[33] = "";
    uint32_t chance;

    hash_random((uint8_t *)&chance, sizeof(chance));
    if (gethostname(host, sizeof(host) - 1) < 0 || host[0] == '\0')
        snprintf(host, sizeof(host), "unknown");
    for (char *c = host; *c != '\0'; c++)
        if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._", *c) == NULL)
            *c = '_';
    snprintf(out, size, "memfs %s %ld %08x", host, (long)getpid(), (unsigned)chance);
}

pg_owner *pg_owner_new(const char *url, bool is_shared)
{
    pg_owner *o = mem_alloc(sizeof(*o));

    o->url = url;
    o->is_shared = is_shared;
    make_name(o->name, sizeof(o->name));
    pthread_mutex_init(&o->mutex, NULL);
    return o;
}

void pg_owner_free(pg_owner *o)
{
    if (o == NULL)
        return;
    pg_conn_close(o->session);
    pthread_mutex_destroy(&o->mutex);
    free(o);
}

/* ---- who else ---- */

#define ONE_AT_A_TIME                                                                              \
    "one at a time may serve from it, unless each is started with --cluster-url"

/* Our own session of before, which the database has not noticed the end of. */
static memfs_code end_own(pg_conn *c, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    return pg_exec(c, "SELECT pg_terminate_backend(pid) FROM (" HOLDER ") h "
                      "WHERE application_name = current_setting('application_name')", &r, err);
}

static memfs_code fail_held(pg_conn *c, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_str who = MEMFS_STR("");
    memfs_code rc = pg_exec(c, HOLDER, &r, err);
    char host[64] = "", pid[64] = "";

    if (rc < 0)
        return rc;
    if (r.n_rows > 0)
        who = pg_col_str(&r, 0, 0);
    if (sscanf(who.len > 0 ? who.ptr : "", "memfs %63s %63s", host, pid) == 2)
        return memfs_fail(err, MEMFS_EUNAVAIL, "the database is in use by another memfs (on %s, "
                                               "pid %s): " ONE_AT_A_TIME, host, pid);
    return memfs_fail(err, MEMFS_EUNAVAIL, "the database is in use by another memfs: "
                                           ONE_AT_A_TIME);
}

/* ---- taking it ---- */

static memfs_code try_lock(pg_conn *c, bool is_shared, bool *ret_has_it, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc = pg_exec(c, is_shared ? TRY_SHARED : TRY, &r, err);

    *ret_has_it = rc == MEMFS_OK && r.n_rows == 1 && str_equal(pg_col_str(&r, 0, 0), MEMFS_STR("t"));
    return rc;
}

static memfs_code lock_session(pg_conn *c, bool is_shared, memfs_error *err)
{
    int64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    bool has_it = false;
    memfs_code rc;

    rc = try_lock(c, is_shared, &has_it, err);
    if (rc == MEMFS_OK && !has_it)
        rc = end_own(c, err);
    while (rc == MEMFS_OK && !has_it && clock_mono_ms() < until_ms) {
        clock_sleep_ms(100);
        rc = try_lock(c, is_shared, &has_it, err);
    }
    return rc < 0 || has_it ? rc : fail_held(c, err);
}

static memfs_code take(pg_owner *o, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    char settings[sizeof(SESSION) + sizeof(o->name)];
    pg_conn *c = NULL;
    memfs_code rc = pg_conn_open(o->url, &c, err);

    if (rc < 0)
        return rc;
    snprintf(settings, sizeof(settings), SESSION, o->name);
    pg_conn_begin(c, clock_mono_ms() + PATIENCE_MS + ANSWER_MS);
    rc = pg_exec(c, settings, &r, err);
    if (rc == MEMFS_OK)
        rc = lock_session(c, o->is_shared, err);
    if (rc < 0)
        pg_conn_close(c);
    else
        o->session = c;
    return rc;
}

/* ---- keeping it ---- */

/* Nobody asked this session anything, so whatever can be read from it is its end. */
static bool is_quiet(const pg_conn *c)
{
    struct pollfd fd = { .fd = PQsocket(c->pg), .events = POLLIN };

    return poll(&fd, 1, 0) == 0;
}

bool pg_owner_seems_good(pg_owner *o)
{
    bool is_good;

    if (pthread_mutex_trylock(&o->mutex) != 0)
        return true; /* somebody is looking */
    is_good = o->session != NULL && is_quiet(o->session);
    pthread_mutex_unlock(&o->mutex);
    return is_good;
}

static bool lives(pg_conn *c)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_error ignored;

    pg_conn_begin(c, clock_mono_ms() + ANSWER_MS);
    return pg_exec(c, "SELECT 1", &r, &ignored) == MEMFS_OK;
}

static memfs_code keep(pg_owner *o, uint64_t generation, memfs_error *err)
{
    memfs_code rc;

    if (o->session != NULL && generation == o->generation && is_quiet(o->session))
        return MEMFS_OK;
    if (o->failed_ms != 0 && clock_mono_ms() - o->failed_ms < FAILURE_HOLDS_MS) {
        *err = o->failure;
        return err->code;
    }
    if (o->session != NULL && !lives(o->session)) {
        pg_conn_close(o->session);
        o->session = NULL;
    }
    rc = o->session != NULL ? MEMFS_OK : take(o, err);
    o->failed_ms = rc < 0 ? clock_mono_ms() : 0;
    if (rc < 0)
        o->failure = *err;
    else
        o->generation = generation;
    return rc;
}

memfs_code pg_owner_keep(pg_owner *o, uint64_t generation, memfs_error *err)
{
    memfs_code rc;

    pthread_mutex_lock(&o->mutex);
    rc = keep(o, generation, err);
    pthread_mutex_unlock(&o->mutex);
    return rc;
}
