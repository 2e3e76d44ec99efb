#include "cache/pg_state.h"

#include "cache/pg_conn.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/process.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

/*
 * Word that another server moved something (servers.h): LISTEN in a session of its own; the word is
 * said by pg_cache.c when a move is committed, with the number of the server that moved.
 *
 * All of it is only quicker: what was not heard is found by who asks every second.  So nothing here
 * fails: without the session the time is slept away.
 */

#define SESSION "SET application_name = 'memfs listen'; LISTEN memfs_moved"
#define RETRY_MS 5000 /* after a session that could not be had */
#define LIVES_MS 30000 /* a line that was cut leaves this end as it was: it is asked so often */
#define GATHER_MS 50  /* of many moves in a row one look learns */
#define LOOK_MS 100   /* whether the wait is ended */

void pg_listen_end(pg_state *s)
{
    pg_conn_close(s->listen);
    s->listen = NULL;
    s->listen_due_ms = clock_mono_ms() + RETRY_MS;
}

static memfs_code ask_whether_it_lives(pg_state *s, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    pg_conn_begin(s->listen, clock_mono_ms() + PG_SESSION_MS);
    return pg_exec(s->listen, "SELECT 1", &r, err);
}

/* Opens the session, or asks whether it lives, when it is time for that. */
static void keep_session(pg_state *s)
{
    memfs_error ignored;
    memfs_code rc;

    if (clock_mono_ms() < s->listen_due_ms)
        return;
    rc = s->listen == NULL ? pg_session_open(s, SESSION, &s->listen, &ignored)
                           : ask_whether_it_lives(s, &ignored);
    if (rc < 0)
        pg_listen_end(s);
    else
        s->listen_due_ms = clock_mono_ms() + LIVES_MS;
}

/* True: somebody else's move is among what has come. */
static bool hear(pg_state *s, const char *own)
{
    bool is_told = false;
    PGnotify *n;

    if (PQconsumeInput(s->listen->pg) == 0) {
        pg_listen_end(s);
        return false;
    }
    while ((n = PQnotifies(s->listen->pg)) != NULL) {
        is_told |= strcmp(n->extra, own) != 0;
        PQfreemem(n);
    }
    return is_told;
}

static void wait_for_input(const pg_state *s, int64_t ms)
{
    struct pollfd fd = { .fd = s->listen != NULL ? PQsocket(s->listen->pg) : -1, .events = POLLIN };

    poll(&fd, 1, (int)(ms < LOOK_MS ? ms : LOOK_MS));
}

bool pg_moves_wait(state *base, int64_t own_no, int64_t timeout_ms)
{
    pg_state *s = (pg_state *)base;
    int64_t until_ms = clock_mono_ms() + timeout_ms, left_ms;
    bool is_told = false;
    process_waiting w;
    char own[24];

    snprintf(own, sizeof(own), "%lld", (long long)own_no);
    process_waiting_begin(&w);
    for (;;) {
        keep_session(s);
        is_told = s->listen != NULL && hear(s, own);
        left_ms = until_ms - clock_mono_ms();
        if (is_told || left_ms <= 0 || process_waiting_is_ended(&w))
            break;
        wait_for_input(s, left_ms);
    }
    process_waiting_end(&w);
    if (is_told) {
        clock_sleep_ms(GATHER_MS);
        if (s->listen != NULL && hear(s, own))
            return true; /* as before: these are looked at together */
    }
    return is_told;
}
