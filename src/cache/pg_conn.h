/*
 * pg_conn.h - one connection to PostgreSQL: made, asked, judged.  For pg_db.c and pg_query's
 * callers through pg_db.h; nothing else includes it.
 *
 * Every wait has an end: the library's blocking calls are not used once a connection stands, as a
 * server that was stopped (and whose kernel still answers) would hold their thread for ever (L3).
 *
 * Thread: any one at a time.
 */
#ifndef MEMFS_CACHE_PG_CONN_H
#define MEMFS_CACHE_PG_CONN_H

#include "cache/pg_db.h"

#include <libpq-fe.h>

/* What a failure means for the work around it, see pg_db.h. */
typedef enum pg_trouble {
    PG_FINE,
    PG_COLLIDED, /* with another transaction: begin again */
    PG_BROKEN,   /* the connection is of no more use */
    PG_STANDBY,  /* it takes no writes: all connections to it are of no more use */
} pg_trouble;

struct pg_conn {
    PGconn *pg;
    pg_trouble trouble;  /* of the work under way */
    bool has_passed;     /* rows of this work are with somebody already: it cannot begin again */
    int64_t until_ms;    /* the work under way must be done by then, on the monotonic clock */
    uint64_t *prepared;  /* keys, sorted */
    size_t n_prepared, cap_prepared;
    uint64_t generation; /* of the pool, when it was made */
    pg_conn *next;       /* idle ones of the pool */
};

/* url is checked before: EINVALID says what is wrong with it. */
MEMFS_CHECK memfs_code pg_url_check(const char *url, memfs_error *err);
MEMFS_CHECK memfs_code pg_conn_open(const char *url, pg_conn **ret, memfs_error *err);
void pg_conn_close(pg_conn *c); /* NULL is fine */

/* Before each work: forgets the troubles of the one before. */
void pg_conn_begin(pg_conn *c, int64_t until_ms);

#endif
