/*
 * sqlite_db.h - one SQLite file as memfs uses it: opened, migrated, written by one, read by many.
 *
 * The cache and the state are two such files with other promises, told apart by a sqlite_spec.
 *
 *     sqlite_db_open(&spec, folder, &db, &was_reset, err);
 *     reading:  sqlite_read_begin(db, &conn, err);  queries;  sqlite_read_end(conn);
 *     changing: sqlite_write_begin(db, &conn, err); queries;  rc = sqlite_write_end(conn, rc, err);
 *     sqlite_db_close(db);
 *
 * A query is a prepared statement, kept with its connection under a key:
 *
 *     _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
 *     rc = sqlite_query_get(conn, KEY, &q, err);
 *     sqlite_bind_str(&q, 1, label);
 *     rc = sqlite_step(&q, &is_row, err);
 *
 * Bound text is borrowed until the query is done; so are the slices of columns, until the next
 * step. A read snapshot lasts from the first step of the first query to the end of the last one, so
 * queries that shall see the same commit overlap.
 *
 * Locks, in the order they are taken: write_lock of a database -> the registry of readers (one for
 * the process, inside sqlite_conn.c).  Neither is held while a reader reads.
 *
 * Thread: any, except open and close.  During sqlite_db_close no other thread may be in a call.
 */
#ifndef MEMFS_CACHE_SQLITE_DB_H
#define MEMFS_CACHE_SQLITE_DB_H

#include "base/buf.h"
#include "base/oid.h"
#include "cache/like.h"

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;
typedef struct sqlite_db sqlite_db;
typedef struct sqlite_conn sqlite_conn;

typedef struct sqlite_spec {
    const char *what; /* "block cache", for messages */
    const char *file; /* its name in the folder */
    int32_t application_id;
    const char *const *migrations; /* the SQL of step 1, 2, ..., NULL; see sqlite_schema.h */
    bool is_durable; /* a commit survives a power cut; otherwise the last ones may be lost, whole */
    bool has_indexes; /* its triggers write virtual tables, which sqlite calls unsafe if it is not told */
    bool is_disposable; /* when damaged or newer: set aside and begun anew */
    const char *remedy; /* what a person does about ECORRUPT; follows the message */
    void (*sql)(uint64_t key, memfs_buf *out); /* the text of a query; keys from SQLITE_KEY_FIRST */
} sqlite_spec;

#define SQLITE_KEY_FIRST 16
#define SQLITE_BUSY_TIMEOUT_MS 5000

/* life cycle */
MEMFS_CHECK memfs_code sqlite_db_open(const sqlite_spec *spec, const char *folder, sqlite_db **ret,
                                      bool *ret_was_reset, memfs_error *err);
void sqlite_db_close(sqlite_db *db);

/* the file */
bool sqlite_db_is_there(sqlite_db *db);
MEMFS_CHECK memfs_code sqlite_db_check(sqlite_db *db, memfs_error *err);
/*
 * As cache_reset.  fill, if it is not NULL, is called in the first transaction of the new file,
 * before anybody else can use it.
 */
typedef memfs_code (*sqlite_fill_fn)(sqlite_conn *c, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_db_reset(sqlite_db *db, sqlite_fill_fn fill, void *ctx,
                                       memfs_error *err);
MEMFS_CHECK memfs_code sqlite_db_scrub(sqlite_db *db, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_db_copy(sqlite_db *db, const char *to, memfs_error *err);

/* reading: the connection of this thread; calls may nest */
MEMFS_CHECK memfs_code sqlite_read_begin(sqlite_db *db, sqlite_conn **ret, memfs_error *err);
void sqlite_read_end(sqlite_conn *c);
void sqlite_read_endp(sqlite_conn **c); /* for _cleanup_; NULL is fine */

/* changing: one transaction, the only one at a time */
MEMFS_CHECK memfs_code sqlite_write_begin(sqlite_db *db, sqlite_conn **ret, memfs_error *err);
/*
 * The same for work in the background: lets everybody go first who waits in sqlite_write_begin, so
 * a request never waits for more than the one such transaction that is under way.
 */
MEMFS_CHECK memfs_code sqlite_write_begin_behind(sqlite_db *db, sqlite_conn **ret,
                                                 memfs_error *err);
/* Commits if rc is OK, else takes everything back; returns what became of it. */
MEMFS_CHECK memfs_code sqlite_write_end(sqlite_conn *c, memfs_code rc, memfs_error *err);
/*
 * Around a large transaction: 32 MiB of pages instead of 2, given back afterwards.  With the small
 * cache, pages of the indexes that go over all agents are written to the log again and again.
 */
void sqlite_conn_widen(sqlite_conn *c);
void sqlite_conn_narrow(sqlite_conn *c);

/* queries */
typedef struct sqlite_query {
    sqlite3_stmt *stmt;
    sqlite_conn *conn;
    int slot;    /* -1: not kept */
    int trouble; /* of binding; told by the next step */
} sqlite_query;
#define SQLITE_QUERY_INIT { NULL, NULL, -1, 0 }

MEMFS_CHECK memfs_code sqlite_query_get(sqlite_conn *c, uint64_t key, sqlite_query *ret,
                                        memfs_error *err);
void sqlite_query_done(sqlite_query *q);  /* harmless twice */
void sqlite_query_again(sqlite_query *q); /* for another run with other values */

void sqlite_bind_str(sqlite_query *q, int at, memfs_str s);
void sqlite_bind_int(sqlite_query *q, int at, int64_t n);
void sqlite_bind_oid(sqlite_query *q, int at, const memfs_oid *oid);
void sqlite_bind_bytes(sqlite_query *q, int at, const void *bytes, size_t n);
void sqlite_bind_null(sqlite_query *q, int at);
/* For the SQL function memfs_contains(pattern, text), see like.h. */
void sqlite_bind_like(sqlite_query *q, int at, const like_pattern *pattern);

MEMFS_CHECK memfs_code sqlite_step(sqlite_query *q, bool *ret_is_row, memfs_error *err);
/* A query without rows, to its end. */
MEMFS_CHECK memfs_code sqlite_run(sqlite_query *q, memfs_error *err);

bool sqlite_col_is_null(const sqlite_query *q, int at);
int64_t sqlite_col_int(const sqlite_query *q, int at);
memfs_str sqlite_col_str(const sqlite_query *q, int at); /* ptr is never NULL */
/* ECORRUPT when the column holds no object id. */
MEMFS_CHECK memfs_code sqlite_col_oid(const sqlite_query *q, int at, memfs_oid *ret,
                                      memfs_error *err);

#endif
