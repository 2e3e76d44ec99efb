#include "mirror/pairs.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The gate of a lane.  When a host is away, or refuses a token, it is so for all agents alike: ten
 * thousand of them need not find out one by one (and accounts get locked by that).  So the gate
 * closes, all pairs of the lane park, and the one that found out is the scout: it alone asks again.
 * When it, or anybody who asks on a person's or a webhook's word, gets through, the gate opens; and
 * it does when a person wants all of them tried again, until the first few find out.
 *
 *   at once        nobody listens, no such name, TLS, host key, too many requests: a host's own
 *   the third time timeouts, cuts, 5xx, 401: of different agents in a row, with no good one in
 *                  between; they may be one repository's alone
 *
 * Where it may be one repository's fault, or the scout cannot even ask (its token file, its folder
 * here), the next try is another one's: who is broken for good keeps nobody else waiting.
 *
 * Closed for a refused token the gate has no time to open: the scheduler looks every few seconds
 * whether the credential changed.
 */

#define MAX_UNSURE 3
#define FIRST_MS 1000
#define MAX_MS (15 * 60 * 1000)
#define NOBODY_MS 5000     /* a connection that is refused costs nobody anything */
#define UNREACHED_MS 60000 /* neither does one that does not get there */

int64_t backoff_ms(remote_answer answer, int64_t n_failures, int64_t retry_after_s)
{
    int64_t most = answer == REMOTE_REFUSED ? NOBODY_MS
                   : answer == REMOTE_TIMEOUT || answer == REMOTE_NO_NAME || answer == REMOTE_CUT
                       ? UNREACHED_MS
                       : MAX_MS;
    int64_t ms = FIRST_MS;

    for (int64_t i = 0; i < n_failures && ms < most; i++)
        ms *= 2;
    if (ms > most)
        ms = most;
    ms = FIRST_MS + mirror_chance(ms - FIRST_MS + 1);
    if (retry_after_s > MAX_RETRY_AFTER_S)
        retry_after_s = MAX_RETRY_AFTER_S;
    return retry_after_s * 1000 > ms ? retry_after_s * 1000 : ms;
}

typedef enum whose { IS_FINE, IS_REPOSITORY, IS_UNSURE, IS_HOST } whose;

static whose whose_failure(remote_answer answer)
{
    switch (answer) {
    case REMOTE_REFUSED:
    case REMOTE_NO_NAME:
    case REMOTE_TLS:
    case REMOTE_HOST_KEY:
    case REMOTE_TOO_MANY:
        return IS_HOST;
    case REMOTE_TIMEOUT:
    case REMOTE_CUT:
    case REMOTE_FAILING:
    case REMOTE_UNAUTHORIZED:
    case REMOTE_NOT_GIT:
        return IS_UNSURE;
    case REMOTE_REFS:
    case REMOTE_EMPTY:
    case REMOTE_NOT_FOUND:
    case REMOTE_NOT_CREATED:
    case REMOTE_FORBIDDEN:
    case REMOTE_REJECTED:
        return IS_FINE;
    default:
        return IS_REPOSITORY;
    }
}

static void forget_unsure(lane *l)
{
    l->n_unsure = l->n_refused = 0;
    l->unsure = NULL;
}

/* What was parked goes on: the undone at once, behind live pushes; polls as their turn comes. */
void gate_open(mirror *m, lane *l)
{
    pair *p;

    l->closed_until_ms = 0;
    l->n_failures = 0;
    forget_unsure(l);
    l->refused[0] = '\0';
    l->scout = NULL;
    while ((p = l->parked.first) != NULL) {
        p->is_waiting = false;
        if (p->wants != 0)
            pair_to_queue(m, p, false);
        else
            pair_to_heap(m, p, clock_mono_ms() + mirror_chance(schedule_interval_ms(m, p)));
    }
}

void gate_open_all(mirror *m, const char *remote)
{
    for (size_t i = 0; i < m->n_lanes; i++)
        if (remote == NULL || remote[0] == '\0' || strcmp(m->lanes[i].config->name, remote) == 0)
            gate_open(m, &m->lanes[i]);
}

/* Closed for a while, then p asks for all, or, if it may be p's own fault, who waits longest. */
static void close_for(mirror *m, lane *l, pair *p, int64_t ms, bool may_be_its_own)
{
    pair *other = may_be_its_own ? l->parked.first : NULL;

    l->closed_until_ms = clock_mono_ms() + ms;
    l->n_failures++;
    l->scout = p;
    if (other == NULL)
        return;
    l->scout = other;
    other->wants |= WANT_LOOK; /* so that it asks, whatever is known of it */
    other->is_waiting = true;
    pair_to_heap(m, other, l->closed_until_ms);
}

/* Three agents in a row were refused, or there is nobody else who could find out. */
static bool is_token_refused(const lane *l, const exchange *x)
{
    return x->answer == REMOTE_UNAUTHORIZED &&
           (l->n_refused >= MAX_UNSURE || (gate_is_closed(l) && l->parked.first == NULL));
}

static void gate_close(mirror *m, lane *l, pair *p, const exchange *x, bool may_be_its_own)
{
    bool is_refused = is_token_refused(l, x);

    l->why = x->answer;
    snprintf(l->detail, sizeof(l->detail), "%.199s", x->record.detail);
    l->refused[0] = '\0';
    close_for(m, l, p, backoff_ms(x->answer, l->n_failures, x->retry_after_s),
              may_be_its_own && !is_refused);
    if (!is_refused)
        return;
    snprintf(l->refused, sizeof(l->refused), "%.8s", x->mark + 8);
    l->closed_until_ms = INT64_MAX;
}

/* The same repository again says nothing new about its host. */
static void count_unsure(lane *l, const pair *p, remote_answer answer)
{
    if (answer != REMOTE_UNAUTHORIZED)
        l->n_refused = 0;
    if (l->unsure == p)
        return;
    l->unsure = p;
    l->n_unsure++;
    l->n_refused += answer == REMOTE_UNAUTHORIZED;
}

void gate_heard(mirror *m, pair *p, const exchange *x)
{
    lane *l = &m->lanes[p->lane];
    whose w = whose_failure(x->answer);
    bool is_scout = gate_is_closed(l) && l->scout == p;

    if (p->is_gone)
        return;
    if (!x->was_asked) {
        if (is_scout && l->refused[0] == '\0')
            close_for(m, l, p, backoff_ms(l->why, l->n_failures, 0), true);
        return;
    }
    if (w == IS_FINE) {
        if (gate_is_closed(l))
            gate_open(m, l);
        forget_unsure(l);
        return;
    }
    if (w == IS_UNSURE)
        count_unsure(l, p, x->answer);
    if (w == IS_HOST || (w == IS_UNSURE && l->n_unsure >= MAX_UNSURE) || is_scout)
        gate_close(m, l, p, x, w != IS_HOST);
}

/* ---- another server does it ---- */

void mirror_stand_by(mirror *m, bool should)
{
    pthread_mutex_lock(&m->mutex);
    if (m->is_standing_by && !should) {
        m->wants_compare = true;
        pthread_cond_signal(&m->time);
    }
    m->is_standing_by = should;
    pthread_mutex_unlock(&m->mutex);
}
