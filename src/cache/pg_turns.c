#include "cache/pg_state.h"

#include "cache/pg_conn.h"

#include "base/clock.h"
#include "base/hash.h"

#include <pthread.h>

/*
 * Turns (servers.h): advisory locks of one session, which all threads use one after the other.  A
 * lock is asked for and never waited for there, so nobody waits for another's.  The session ends
 * with the process, and its locks with it; so they do when the database moves to another machine.
 */

#define RETRY_MS 1000 /* after a session that could not be had: nobody queues for it (L3) */
#define TRY "SELECT pg_try_advisory_lock($1)"
#define END "SELECT pg_advisory_unlock($1)"

void pg_turns_end(pg_state *s)
{
    pg_conn_close(s->turns);
    s->turns = NULL;
}

int64_t pg_turn_lock(memfs_str what)
{
    uint8_t digest[HASH_SHA256];
    int64_t lock;

    hash_sha256(what, digest);
    memcpy(&lock, digest, sizeof(lock));
    return lock;
}

static memfs_code ask(pg_state *s, uint64_t key, const char *sql, memfs_str what, bool *ret_is_true,
                      memfs_error *err)
{
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc;

    pg_arg_int(&args, pg_turn_lock(what));
    pg_conn_begin(s->turns, clock_mono_ms() + PG_SESSION_MS);
    rc = pg_query(s->turns, key, sql, &args, &r, err);
    if (rc < 0)
        pg_turns_end(s);
    else
        *ret_is_true = r.n_rows == 1 && pg_col_int(&r, 0, 0) != 0;
    return rc;
}

static memfs_code open_session(pg_state *s, memfs_error *err)
{
    memfs_code rc;

    if (clock_mono_ms() < s->turns_due_ms)
        return memfs_fail(err, MEMFS_EUNAVAIL, "the database does not answer");
    rc = pg_session_open(s, "SET application_name = 'memfs turns'", &s->turns, err);
    s->turns_due_ms = rc < 0 ? clock_mono_ms() + RETRY_MS : 0;
    return rc;
}

memfs_code pg_turn_try(state *base, memfs_str what, bool *ret_has_it, memfs_error *err)
{
    pg_state *s = (pg_state *)base;
    memfs_code rc = MEMFS_OK;

    *ret_has_it = false;
    pthread_mutex_lock(&s->turns_mutex);
    if (s->turns != NULL && !pg_session_is_quiet(s->turns))
        pg_turns_end(s);
    if (s->turns == NULL)
        rc = open_session(s, err);
    if (rc == MEMFS_OK)
        rc = ask(s, KEY_TURN_TRY, TRY, what, ret_has_it, err);
    pthread_mutex_unlock(&s->turns_mutex);
    return rc;
}

/* One that cannot be given back goes with its session, which a failure ends. */
void pg_turn_end(state *base, memfs_str what)
{
    pg_state *s = (pg_state *)base;
    memfs_error ignored;
    bool had_it;

    pthread_mutex_lock(&s->turns_mutex);
    if (s->turns != NULL)
        (void)!ask(s, KEY_TURN_END, END, what, &had_it, &ignored);
    pthread_mutex_unlock(&s->turns_mutex);
}
