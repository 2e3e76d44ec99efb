/*
 * pg_db.h - one PostgreSQL database as memfs uses it: a pool of connections, queries that are
 * prepared once a connection, work that is begun again when the server says so (F22).
 *
 * Cache and state of one memfs are schema `memfs` of one database and share one pg_db.
 *
 *     pg_db_open(url, &db, err);
 *     pg_work(db, PG_WRITE, fn, ctx, err);      fn runs queries; rc decides on COMMIT
 *     pg_db_close(db);
 *
 * A query is prepared under its key at its first use in a connection.  Parameters and columns
 * travel in binary form, see pg_value.h.
 *
 * What a failure becomes, by SQLSTATE:
 *   40001, 40P01            begun again, with a random pause, up to 8 times; then EUNAVAIL
 *   08*, 57P01 to 57P03, the connection broke; 0A000, 26000: what it has prepared is of no use
 *                           the work is begun again once on a new connection; then EUNAVAIL
 *   25006                   the server takes no writes (a standby): the pool is emptied, so that
 *                           the next try finds the new primary among the hosts; EUNAVAIL
 *   53100                   ENOSPACE
 *   53*, 55P03, 57014       EUNAVAIL
 *   23505                   EEXISTS
 *   28*, 42501              EDENIED
 *   any other               EINTERNAL, with the server's words (never with values of parameters)
 * While no connection can be made, a failure is remembered for a second, so that a database that is
 * away costs its callers nothing (L3).
 *
 * Thread: any, except open and close.  During pg_db_close no other thread may be in a call.
 */
#ifndef MEMFS_CACHE_PG_DB_H
#define MEMFS_CACHE_PG_DB_H

#include "cache/pg_value.h"

typedef struct pg_db pg_db;
typedef struct pg_conn pg_conn;

#define PG_N_CONNECTIONS 16 /* of a pool, at most; made when they are needed */
#define PG_WAIT_MS 5000     /* for a free connection; then EUNAVAIL */
#define PG_WORK_MS 60000    /* a work is done by then, or EUNAVAIL */

/* life cycle */
/*
 * url: postgresql://... or a libpq conninfo string.  Connects and migrates: several servers may do
 * that at once (an advisory lock lets one of them).  EUNAVAIL: nobody answers, or it is a standby
 * that was never migrated.  EDENIED: user or password are refused.  EINVALID: url does not parse,
 * the server is older than 13, or its encoding is not UTF8.  ECORRUPT: the schema was made by a
 * newer memfs.
 */
MEMFS_CHECK memfs_code pg_db_open(const char *url, pg_db **ret, memfs_error *err);
/*
 * The same as a server, with the lock of pg_owner.h.  EUNAVAIL also: another memfs has the database
 * for itself, or this one wants to while others are there; and which.
 */
MEMFS_CHECK memfs_code pg_db_open_serving(const char *url, bool is_shared, pg_db **ret,
                                          memfs_error *err);
/*
 * Another program's database: nothing of ours is looked for in it or made.  lock_ms: for a lock of
 * its own a statement waits that long, then EUNAVAIL; 0: as in ours.
 */
MEMFS_CHECK memfs_code pg_db_open_as_is(const char *url, int lock_ms, pg_db **ret,
                                        memfs_error *err);
void pg_db_close(pg_db *db); /* NULL is fine */
/* One more user of the same pool; each is ended by pg_db_close. */
pg_db *pg_db_share(pg_db *db);

/* As it was opened with; lives as long as db. */
const char *pg_db_url(const pg_db *db);

/* work */
typedef enum pg_mode {
    PG_ONE,   /* every query by itself: no BEGIN */
    PG_READ,  /* one snapshot over all queries of fn */
    PG_WRITE, /* one transaction, READ COMMITTED; committed when fn returns OK */
} pg_mode;
/*
 * Runs fn on a connection of the pool and returns what fn returned.  fn may be run more than once:
 * after a broken connection also when the COMMIT of the run before may have arrived, so what it
 * writes must come to the same when it is there already.  Calls must not nest.
 */
typedef memfs_code (*pg_work_fn)(pg_conn *c, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code pg_work(pg_db *db, pg_mode mode, pg_work_fn fn, void *ctx, memfs_error *err);

/*
 * The same as PG_ONE for what may be left undone: on a connection that is idle now, within max_ms,
 * and never again.  EUNAVAIL: none is idle, or it took longer.
 */
MEMFS_CHECK memfs_code pg_work_if_idle(pg_db *db, int64_t max_ms, pg_work_fn fn, void *ctx,
                                       memfs_error *err);

/* queries, inside of work.  Whose keys are whose: */
enum { PG_KEY_VERSION = 1, PG_KEYS_CACHE = 1 << 16, PG_KEYS_STATE = 2 << 16 };
/* Advisory locks that memfs takes. */
#define PG_LOCK_MIGRATION "7813577600197001216"

/*
 * sql is read at the first use of key in a connection, and must be the same text for the same key;
 * args NULL: none.  The result is whole in memory.
 */
MEMFS_CHECK memfs_code pg_query(pg_conn *c, uint64_t key, const char *sql, const pg_args *args,
                                pg_result *ret, memfs_error *err);
/* Statements without parameters, not prepared, one or several; the result is the last one's. */
MEMFS_CHECK memfs_code pg_exec(pg_conn *c, const char *sql, pg_result *ret, memfs_error *err);
/*
 * The same row by row, for results of any size: fn gets one row at a time (row 0 of *row).  What fn
 * returns other than OK ends the query and is passed on; so does *ret_is_done.
 */
typedef memfs_code (*pg_row_fn)(const pg_result *row, void *ctx, bool *ret_is_done,
                                memfs_error *err);
MEMFS_CHECK memfs_code pg_query_rows(pg_conn *c, uint64_t key, const char *sql, const pg_args *args,
                                     pg_row_fn fn, void *ctx, memfs_error *err);

#endif
