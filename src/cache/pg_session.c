#include "cache/pg_state.h"

#include "cache/pg_conn.h"

#include "base/clock.h"

#include <poll.h>

/* Sessions beside the pool, for what a session has until it ends: advisory locks, LISTEN. */

#define KEEPALIVE                                                                                  \
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"

static memfs_code run(pg_conn *c, const char *sql, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    pg_conn_begin(c, clock_mono_ms() + PG_SESSION_MS);
    return pg_exec(c, sql, &r, err);
}

memfs_code pg_session_open(const pg_state *s, const char *first_sql, pg_conn **ret,
                           memfs_error *err)
{
    memfs_code rc;

    *ret = NULL;
    rc = pg_conn_open(pg_db_url(s->db), ret, err);
    if (rc == MEMFS_OK)
        rc = run(*ret, KEEPALIVE, err);
    if (rc == MEMFS_OK)
        rc = run(*ret, first_sql, err);
    if (rc < 0) {
        pg_conn_close(*ret);
        *ret = NULL;
    }
    return rc;
}

bool pg_session_is_quiet(const pg_conn *c)
{
    struct pollfd fd = { .fd = PQsocket(c->pg), .events = POLLIN };

    return poll(&fd, 1, 0) == 0;
}
