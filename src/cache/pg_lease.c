#include "cache/pg_state.h"

#include "cache/pg_conn.h"

#include "base/clock.h"

/*
 * Work that one of the servers does for all (servers.h): an advisory lock in a session of its own,
 * which ends with the process, however that ends, and with the database.  The session stays between
 * tries, so a server that waits for its turn asks with one round trip.
 */

#define LOCK "7813577600197001218"

void pg_lease_end(pg_state *s)
{
    pg_conn_close(s->lease);
    s->lease = NULL;
    s->has_lease = false;
}

/*
 * Who has it asks too: a database that moved to another machine, or a line that was cut, leaves this
 * end of the session as it was, and another server may have the lock by now.
 */
static memfs_code still_has_it(pg_state *s, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    pg_conn_begin(s->lease, clock_mono_ms() + PG_SESSION_MS);
    return pg_exec(s->lease, "SELECT 1", &r, err);
}

static memfs_code try_lock(pg_state *s, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc;

    pg_conn_begin(s->lease, clock_mono_ms() + PG_SESSION_MS);
    rc = pg_exec(s->lease, "SELECT pg_try_advisory_lock(" LOCK ")", &r, err);
    s->has_lease =
        rc == MEMFS_OK && r.n_rows == 1 && str_equal(pg_col_str(&r, 0, 0), MEMFS_STR("t"));
    return rc;
}

memfs_code pg_lease(state *base, bool *ret_has_it, memfs_error *err)
{
    pg_state *s = (pg_state *)base;
    memfs_code rc = MEMFS_OK;

    if (s->lease != NULL && !pg_session_is_quiet(s->lease))
        pg_lease_end(s);
    if (s->lease == NULL)
        rc = pg_session_open(s, "SET application_name = 'memfs lease'", &s->lease, err);
    if (rc == MEMFS_OK)
        rc = s->has_lease ? still_has_it(s, err) : try_lock(s, err);
    if (rc < 0)
        pg_lease_end(s);
    *ret_has_it = s->has_lease;
    return rc;
}
