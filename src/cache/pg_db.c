#include "cache/pg_conn.h"
#include "cache/pg_owner.h"
#include "cache/pg_schema.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/pool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * The pool: connections are made when they are needed, and kept idle, last used first, so that few
 * of them stay warm.  When one breaks, those that are idle are older than the trouble and go too:
 * after a restart of the server each work would meet one of them otherwise.
 */

#define FAILURE_HOLDS_MS 1000
#define MAX_COLLISIONS 8
#define FIRST_PAUSE_MS 2

struct pg_db {
    char *url;
    int lock_ms;      /* of pg_db_open_as_is */
    pg_owner *owner;  /* NULL: others may work on it, too */
    unsigned n_users; /* guarded by mutex, as is all below */

    pthread_mutex_t mutex;
    pthread_cond_t freed; /* a connection, or a place for one */
    pg_conn *idle;
    unsigned n_open;     /* idle, in use, and being made */
    unsigned n_made;     /* idle and in use */
    uint64_t generation; /* connections of older ones are closed when they come back */
    int64_t failed_ms;   /* when none could be made; 0: the last one could */
    bool is_trying;      /* after a failure one tries, the others fail without */
    memfs_error failure;
    bool is_serving; /* set when it is open: failures after that are told to clients */
    bool is_away;    /* told to the log */
};

/* ---- the pool ---- */

static void close_all(pg_conn *c)
{
    pg_conn *next;

    for (; c != NULL; c = next) {
        next = c->next;
        pg_conn_close(c);
    }
}

/* Under the mutex; the caller closes what it gets when the mutex is free again. */
static pg_conn *empty_pool(pg_db *db)
{
    pg_conn *idle = db->idle;

    db->generation++;
    db->idle = NULL;
    for (const pg_conn *c = idle; c != NULL; c = c->next)
        db->n_open--, db->n_made--;
    return idle;
}

static bool wait_until(pg_db *db, int64_t until_ms)
{
    struct timespec until = clock_at(until_ms);
    bool is_called;

    pool_wait_begin();
    is_called = pthread_cond_timedwait(&db->freed, &db->mutex, &until) == 0;
    pool_wait_end();
    return is_called;
}

/*
 * Under the mutex: takes an idle connection, or a place for a new one (*ret NULL).  A failure to
 * make one that was a moment ago is answered again, but for where others are at work: then the
 * server has no more of them to give, and one that comes back is waited for.
 */
static memfs_code take_place(pg_db *db, int64_t until_ms, pg_conn **ret, memfs_error *err)
{
    bool has_failed;

    for (;;) {
        *ret = db->idle;
        if (db->idle != NULL) {
            db->idle = db->idle->next;
            return MEMFS_OK;
        }
        has_failed = db->failed_ms != 0 &&
                     (db->is_trying || clock_mono_ms() - db->failed_ms < FAILURE_HOLDS_MS);
        if (has_failed && db->n_made == 0) {
            *err = db->failure;
            return err->code;
        }
        if (!has_failed && db->n_open < PG_N_CONNECTIONS) {
            db->n_open++;
            db->is_trying = true;
            return MEMFS_OK;
        }
        if (!wait_until(db, until_ms) && clock_mono_ms() >= until_ms)
            return memfs_fail(err, MEMFS_EUNAVAIL, "all connections to the database are busy");
    }
}

/*
 * Words about hosts, sockets and users are for the log, once; clients learn that it is away.  That
 * is what a database is, too, that refuses a password which it took before.  Under the mutex.
 */
static memfs_code tell_away(pg_db *db, memfs_error *err)
{
    if (!db->is_serving)
        return err->code;
    if (!db->is_away)
        log_event(LOG_ERROR, "database_away", "reason", err->msg, NULL);
    db->is_away = true;
    return memfs_fail(err, MEMFS_EUNAVAIL, "the database is away");
}

static void tell_back(pg_db *db)
{
    if (db->is_away)
        log_event(LOG_INFO, "database_back", NULL);
    db->is_away = false;
}

/* *ret_others: it failed, and there are others to wait for. */
static memfs_code made(pg_db *db, pg_conn *c, uint64_t generation, memfs_code rc, memfs_error *err,
                       bool *ret_others)
{
    pthread_mutex_lock(&db->mutex);
    db->is_trying = false;
    db->failed_ms = 0;
    *ret_others = rc < 0 && db->n_made > 0;
    if (rc < 0) {
        if (!*ret_others)
            rc = tell_away(db, err);
        db->n_open--;
        db->failed_ms = clock_mono_ms();
        db->failure = *err;
    } else {
        tell_back(db);
        c->generation = generation;
        db->n_made++;
    }
    pthread_cond_broadcast(&db->freed);
    pthread_mutex_unlock(&db->mutex);
    return rc;
}

static memfs_code set_lock_ms(pg_conn *c, int lock_ms, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    char sql[64];

    snprintf(sql, sizeof(sql), "SET lock_timeout = %d", lock_ms);
    return lock_ms > 0 ? pg_exec(c, sql, &r, err) : MEMFS_OK;
}

/* Without the lock on the database no connection of the pool is of use. */
static memfs_code open_conn(pg_db *db, uint64_t generation, pg_conn **ret, memfs_error *err)
{
    memfs_code rc = db->owner != NULL ? pg_owner_keep(db->owner, generation, err) : MEMFS_OK;

    if (rc == MEMFS_OK)
        rc = pg_conn_open(db->url, ret, err);
    if (rc == MEMFS_OK)
        rc = set_lock_ms(*ret, db->lock_ms, err);
    if (rc < 0) {
        pg_conn_close(*ret);
        *ret = NULL;
    }
    return rc;
}

static memfs_code acquire(pg_db *db, pg_conn **ret, memfs_error *err)
{
    bool is_lost = db->owner != NULL && !pg_owner_seems_good(db->owner), again = false;
    int64_t until_ms = clock_mono_ms() + PG_WAIT_MS;
    pg_conn *gone = NULL;
    uint64_t generation;
    memfs_code rc;

    do {
        pthread_mutex_lock(&db->mutex);
        if (is_lost && !again && db->idle != NULL)
            gone = empty_pool(db);
        rc = take_place(db, until_ms, ret, err);
        generation = db->generation;
        pthread_mutex_unlock(&db->mutex);
        close_all(TAKE_PTR(gone));
        if (rc < 0 || *ret != NULL)
            return rc;
        rc = open_conn(db, generation, ret, err);
        rc = made(db, *ret, generation, rc, err, &again);
    } while (again);
    return rc;
}

static void release(pg_db *db, pg_conn *c)
{
    bool is_spent = c->trouble == PG_BROKEN || c->trouble == PG_STANDBY;
    pg_conn *gone = NULL;

    pthread_mutex_lock(&db->mutex);
    if (is_spent && c->generation == db->generation)
        gone = empty_pool(db);
    if (is_spent || c->generation != db->generation) {
        c->next = gone;
        gone = c;
        db->n_open--, db->n_made--;
    } else {
        c->next = db->idle;
        db->idle = c;
    }
    pthread_cond_signal(&db->freed);
    pthread_mutex_unlock(&db->mutex);
    close_all(gone);
}

/* ---- work ---- */

static const char *begin_of(pg_mode mode)
{
    return mode == PG_READ ? "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" : "BEGIN";
}

static memfs_code run_once(pg_conn *c, pg_mode mode, pg_work_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_error ignored;
    memfs_code rc;

    if (mode == PG_ONE)
        return fn(c, ctx, err);
    rc = pg_exec(c, begin_of(mode), &r, err);
    if (rc == MEMFS_OK)
        rc = fn(c, ctx, err);
    if (rc == MEMFS_OK)
        return pg_exec(c, "COMMIT", &r, err);
    if (c->trouble != PG_BROKEN && pg_exec(c, "ROLLBACK", &r, &ignored) < 0)
        c->trouble = PG_BROKEN; /* nobody may find the rest of this transaction */
    return rc;
}

static void pause_at_random(unsigned attempt)
{
    uint32_t chance;

    hash_random((uint8_t *)&chance, sizeof(chance));
    clock_sleep_ms(1 + chance % ((int64_t)FIRST_PAUSE_MS << attempt));
}

/* A broken connection is the business of the next one, once; a collision that of a few more. */
static bool may_begin_again(const pg_conn *c, unsigned *n_collisions, bool *was_broken)
{
    if (c->has_passed)
        return false;
    if (c->trouble == PG_COLLIDED)
        return ++*n_collisions <= MAX_COLLISIONS;
    if (c->trouble != PG_BROKEN || *was_broken)
        return false;
    *was_broken = true;
    return true;
}

memfs_code pg_work(pg_db *db, pg_mode mode, pg_work_fn fn, void *ctx, memfs_error *err)
{
    int64_t until_ms = clock_mono_ms() + PG_WORK_MS;
    unsigned n_collisions = 0;
    bool was_broken = false, again;
    pg_conn *c = NULL;
    memfs_code rc;

    for (;;) {
        rc = acquire(db, &c, err);
        if (rc < 0)
            return rc;
        pg_conn_begin(c, until_ms);
        rc = run_once(c, mode, fn, ctx, err);
        again = rc < 0 && may_begin_again(c, &n_collisions, &was_broken);
        release(db, c);
        if (!again)
            return rc;
        if (!was_broken)
            pause_at_random(n_collisions);
    }
}

memfs_code pg_work_if_idle(pg_db *db, int64_t max_ms, pg_work_fn fn, void *ctx, memfs_error *err)
{
    pg_conn *c;
    memfs_code rc;

    pthread_mutex_lock(&db->mutex);
    c = db->idle;
    if (c != NULL)
        db->idle = c->next;
    pthread_mutex_unlock(&db->mutex);
    if (c == NULL)
        return memfs_fail(err, MEMFS_EUNAVAIL, "all connections to the database are busy");
    pg_conn_begin(c, clock_mono_ms() + max_ms);
    rc = run_once(c, PG_ONE, fn, ctx, err);
    release(db, c);
    return rc;
}

/* ---- the schema ---- */

static int32_t newest_version(void)
{
    int32_t n = 0;

    while (PG_MIGRATIONS[n] != NULL)
        n++;
    return n;
}

/*
 * By the catalogue's rows and not by to_regclass(), which may answer from what this session knew
 * before it waited for the lock below.
 */
static memfs_code read_version(pg_conn *c, int64_t *ret, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc;

    rc = pg_exec(c,
                 "SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
                 "ON n.oid = c.relnamespace WHERE n.nspname = 'memfs' AND c.relname = 'version'",
                 &r, err);
    if (rc < 0)
        return rc;
    *ret = 0;
    if (r.n_rows == 0)
        return MEMFS_OK;
    rc = pg_query(c, PG_KEY_VERSION, "SELECT version FROM version", NULL, &r, err);
    if (rc == MEMFS_OK && r.n_rows == 1)
        *ret = pg_col_int(&r, 0, 0);
    return rc;
}

static memfs_code write_version(pg_conn *c, int64_t version, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;

    pg_arg_int(&args, version);
    return pg_query(c, PG_KEY_VERSION + 1, "UPDATE version SET version = $1", &args, &r, err);
}

/*
 * A step and its number are one transaction.  Whoever comes second waits at the lock, and finds the
 * work done when it looks again.
 */
static memfs_code migrate(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    int64_t version = 0;
    memfs_code rc;

    (void)ctx;
    rc = pg_exec(c, "SELECT pg_advisory_xact_lock(" PG_LOCK_MIGRATION ")", &r, err);
    if (rc == MEMFS_OK)
        rc = read_version(c, &version, err);
    if (rc == MEMFS_OK && version > newest_version())
        return memfs_fail(
            err, MEMFS_ECORRUPT,
            "the database was made by a newer memfs (schema %lld, this one knows %d): "
            "install that one again",
            (long long)version, (int)newest_version());
    for (; rc == MEMFS_OK && version < newest_version(); version++) {
        rc = pg_exec(c, PG_MIGRATIONS[version], &r, err);
        if (rc == MEMFS_OK)
            rc = write_version(c, version + 1, err);
    }
    return rc < 0 ? memfs_context(err, "could not prepare the database") : rc;
}

static memfs_code is_current(pg_conn *c, void *ctx, memfs_error *err)
{
    int64_t version;
    memfs_code rc = read_version(c, &version, err);

    *(bool *)ctx = rc == MEMFS_OK && version == newest_version();
    return rc;
}

/* ---- life cycle ---- */

typedef enum serving { SERVE_NOBODY, SERVE_ALONE, SERVE_TOGETHER } serving;

static memfs_code new_db(const char *url, serving how, pg_db **ret, memfs_error *err)
{
    pg_db *db;
    memfs_code rc = pg_url_check(url, err);

    if (rc < 0)
        return rc;
    db = mem_alloc(sizeof(*db));
    db->url = mem_strdup(url);
    db->owner = how != SERVE_NOBODY ? pg_owner_new(db->url, how == SERVE_TOGETHER) : NULL;
    db->n_users = 1;
    pthread_mutex_init(&db->mutex, NULL);
    clock_cond_init(&db->freed);
    *ret = db;
    return MEMFS_OK;
}

static memfs_code open_db(const char *url, serving how, pg_db **ret, memfs_error *err)
{
    pg_db *db;
    bool current = false;
    memfs_code rc = new_db(url, how, &db, err);

    if (rc < 0)
        return rc;
    rc = pg_work(db, PG_ONE, is_current, &current, err);
    if (rc == MEMFS_OK && !current)
        rc = pg_work(db, PG_WRITE, migrate, NULL, err);
    if (rc < 0) {
        pg_db_close(db);
        return rc;
    }
    db->is_serving = how != SERVE_NOBODY;
    *ret = db;
    return MEMFS_OK;
}

memfs_code pg_db_open(const char *url, pg_db **ret, memfs_error *err)
{
    return open_db(url, SERVE_NOBODY, ret, err);
}

memfs_code pg_db_open_serving(const char *url, bool is_shared, pg_db **ret, memfs_error *err)
{
    return open_db(url, is_shared ? SERVE_TOGETHER : SERVE_ALONE, ret, err);
}

const char *pg_db_url(const pg_db *db)
{
    return db->url;
}

memfs_code pg_db_open_as_is(const char *url, int lock_ms, pg_db **ret, memfs_error *err)
{
    memfs_code rc = new_db(url, SERVE_NOBODY, ret, err);

    if (rc == MEMFS_OK)
        (*ret)->lock_ms = lock_ms;
    return rc;
}

pg_db *pg_db_share(pg_db *db)
{
    pthread_mutex_lock(&db->mutex);
    db->n_users++;
    pthread_mutex_unlock(&db->mutex);
    return db;
}

void pg_db_close(pg_db *db)
{
    unsigned n_left;

    if (db == NULL)
        return;
    pthread_mutex_lock(&db->mutex);
    n_left = --db->n_users;
    pthread_mutex_unlock(&db->mutex);
    if (n_left > 0)
        return;
    close_all(db->idle);
    pg_owner_free(db->owner);
    pthread_cond_destroy(&db->freed);
    pthread_mutex_destroy(&db->mutex);
    free(db->url);
    free(db);
}
