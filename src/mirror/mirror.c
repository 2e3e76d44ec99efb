#include "mirror/pairs.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long a stop waits before it looks again for children that were started since. */
#define STOP_STEP_MS 50

/* ---- small things for all files ---- */

home *mirror_home(mirror *m)
{
    return m->options.home;
}

const mirror_options *mirror_settings(const mirror *m)
{
    return &m->options;
}

bool mirror_is_stopping(mirror *m)
{
    bool is_stopping;

    pthread_mutex_lock(&m->mutex);
    is_stopping = m->is_stopping;
    pthread_mutex_unlock(&m->mutex);
    return is_stopping;
}

void mirror_event(mirror *m, const char *event, const char *agent_id, const char *remote,
                  const char *text)
{
    if (m->options.event != NULL)
        m->options.event(event, agent_id, remote, text, m->options.event_ctx);
}

int64_t mirror_chance(int64_t n)
{
    uint64_t x;

    if (n <= 1)
        return 0;
    hash_random((uint8_t *)&x, sizeof(x));
    return (int64_t)(x % (uint64_t)n);
}

static bool wait_ended(mirror *m, int64_t until_ms)
{
    struct timespec at = { .tv_sec = (time_t)(until_ms / 1000),
                           .tv_nsec = (long)(until_ms % 1000) * 1000000 };

    return pthread_cond_timedwait(&m->ended, &m->mutex, &at) == 0;
}

bool mirror_pause(mirror *m, int64_t ms)
{
    int64_t until_ms = clock_mono_ms() + ms;
    bool goes_on;

    pthread_mutex_lock(&m->mutex);
    while (!m->is_stopping && clock_mono_ms() < until_ms)
        wait_ended(m, until_ms);
    goes_on = !m->is_stopping;
    pthread_mutex_unlock(&m->mutex);
    return goes_on;
}

/* ---- remotes ---- */

remote_set *mirror_remotes(mirror *m)
{
    remote_set *set;

    pthread_mutex_lock(&m->mutex);
    set = m->set;
    set->n_refs++;
    pthread_mutex_unlock(&m->mutex);
    return set;
}

void mirror_remotes_unref(mirror *m, remote_set *set)
{
    bool is_last;

    pthread_mutex_lock(&m->mutex);
    is_last = --set->n_refs == 0;
    pthread_mutex_unlock(&m->mutex);
    if (!is_last)
        return;
    remotes_free(set->r);
    free(set);
}

const remote_config *remote_set_find(const remote_set *set, const char *remote)
{
    for (size_t i = 0; i < set->r->n; i++)
        if (strcmp(set->r->at[i].name, remote) == 0)
            return &set->r->at[i];
    return NULL;
}

static remote_set *set_new(remotes *given)
{
    remote_set *set = mem_alloc(sizeof(*set));

    set->r = given;
    set->n_refs = 1;
    return set;
}

/* The first remote brings the threads: most servers have none, and a thread costs its stack. */
static memfs_code start_threads(mirror *m, memfs_error *err)
{
    size_t n = m->options.n_workers > 0 ? m->options.n_workers : 4;
    bool are_there;

    pthread_mutex_lock(&m->mutex);
    are_there = m->options.is_manual || m->has_scheduler || m->n_lanes == 0;
    if (!are_there && m->workers == NULL)
        m->workers = mem_alloc(n * sizeof(*m->workers));
    while (!are_there && m->n_threads < n &&
           pthread_create(&m->workers[m->n_threads], NULL, schedule_work, m) == 0)
        m->n_threads++;
    if (!are_there && m->n_threads == n)
        are_there = m->has_scheduler =
            pthread_create(&m->scheduler, NULL, schedule_thread, m) == 0;
    pthread_mutex_unlock(&m->mutex);
    return are_there ? MEMFS_OK
                     : memfs_fail(err, MEMFS_EUNAVAIL,
                                  "could not start the threads that mirror memories");
}

void mirror_reload(mirror *m, remotes *given)
{
    memfs_error err;
    remote_set *old;

    pthread_mutex_lock(&m->mutex);
    old = m->set;
    m->set = set_new(given);
    pairs_use_set(m);
    m->wants_compare = true;
    pthread_cond_broadcast(&m->ended);
    pthread_cond_broadcast(&m->work);
    pthread_cond_signal(&m->time);
    pthread_mutex_unlock(&m->mutex);
    mirror_remotes_unref(m, old);
    if (start_threads(m, &err) < 0)
        mirror_event(m, "mirror_stopped", NULL, NULL, err.msg);
}

bool mirror_has_remotes(const mirror *m)
{
    mirror *open = (mirror *)m; /* the mutex is no part of what the caller sees */
    bool has;

    pthread_mutex_lock(&open->mutex);
    has = m->n_lanes > 0;
    pthread_mutex_unlock(&open->mutex);
    return has;
}

void mirror_with_remotes(mirror *m, void (*fn)(const remotes *r, void *ctx), void *ctx)
{
    remote_set *set = mirror_remotes(m);

    fn(set->r, ctx);
    mirror_remotes_unref(m, set);
}

/* ---- life cycle ---- */

static void init_conditions(mirror *m)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&m->work, &attr);
    pthread_cond_init(&m->time, &attr);
    pthread_cond_init(&m->ended, &attr);
    pthread_condattr_destroy(&attr);
}

static void join(mirror *m)
{
    for (size_t i = 0; i < m->n_threads; i++)
        pthread_join(m->workers[i], NULL);
    if (m->has_scheduler)
        pthread_join(m->scheduler, NULL);
}

static void dispose(mirror *m)
{
    pairs_dispose(m);
    mirror_remotes_unref(m, m->set);
    pthread_cond_destroy(&m->work);
    pthread_cond_destroy(&m->time);
    pthread_cond_destroy(&m->ended);
    pthread_mutex_destroy(&m->mutex);
    free(m->workers);
    free(m);
}

memfs_code mirror_start(const mirror_options *options, mirror **ret, memfs_error *err)
{
    mirror *m = mem_alloc(sizeof(*m));
    memfs_code rc = MEMFS_OK;

    m->options = *options;
    pthread_mutex_init(&m->mutex, NULL);
    init_conditions(m);
    pairs_init(m);
    m->set = set_new(options->remotes);
    m->options.remotes = NULL; /* m->set has it */
    pairs_use_set(m);
    m->wants_compare = true;
    m->is_standing_by = options->is_standing_by;
    rc = start_threads(m, err);
    if (rc < 0) {
        mirror_stop(m, 0);
        return rc;
    }
    *ret = m;
    return MEMFS_OK;
}

void mirror_stop(mirror *m, int64_t grace_ms)
{
    int64_t until_ms = clock_mono_ms() + grace_ms;

    if (m == NULL)
        return;
    pthread_mutex_lock(&m->mutex);
    m->is_stopping = true;
    pthread_cond_broadcast(&m->work);
    pthread_cond_broadcast(&m->ended);
    pthread_cond_signal(&m->time);
    while (m->n_running + m->n_callers > 0) {
        if (clock_mono_ms() >= until_ms) {
            pthread_mutex_unlock(&m->mutex);
            process_end_of(m);
            pthread_mutex_lock(&m->mutex);
        }
        wait_ended(m, clock_mono_ms() + STOP_STEP_MS);
    }
    pthread_mutex_unlock(&m->mutex);
    join(m);
    dispose(m);
}

void mirror_compare_all(mirror *m)
{
    pthread_mutex_lock(&m->mutex);
    m->wants_compare = true;
    pthread_cond_signal(&m->time);
    pthread_mutex_unlock(&m->mutex);
}

/* ---- told ---- */

void mirror_moved(mirror *m, const char *agent_id)
{
    pthread_mutex_lock(&m->mutex);
    for (size_t i = 0; i < m->n_lanes && !m->is_stopping && !m->is_standing_by; i++)
        if (m->lanes[i].config->direction != REMOTE_PULL &&
            remote_is_for(m->lanes[i].config, agent_id))
            schedule_want(m, pair_need(m, str_of(agent_id), i), WANT_PUSH);
    pthread_mutex_unlock(&m->mutex);
}

/* The same commit told of again while we are on our way needs no second look. */
static void hint(mirror *m, pair *p, const memfs_oid *after)
{
    bool is_first = (p->wants & WANT_LOOK) == 0;

    if (!oid_is_zero(after) && p->place != IS_HELD && !p->is_failing &&
        oid_equal(after, &p->known))
        return;
    if (is_first)
        p->hinted = *after;
    else if (!oid_equal(&p->hinted, after))
        memset(&p->hinted, 0, sizeof(p->hinted));
    schedule_want(m, p, WANT_LOOK);
}

/*
 * It has just moved there, so it is there: only how many of those are told of is bounded, where
 * looking costs somebody anything.
 */
static bool may_hint(mirror *m, memfs_str agent_id, size_t lane, bool is_known)
{
    if (m->lanes[lane].config->folder != NULL)
        return true;
    if (!is_known)
        stranger_forget(m, lane, agent_id);
    return is_known || stranger_ask(m, lane, agent_id) == STRANGER_ASK;
}

void mirror_hint(mirror *m, const char *remote, memfs_str agent_id, const memfs_oid *after)
{
    _cleanup_(mem_freep) char *id = mem_strndup(agent_id.ptr, agent_id.len);
    bool is_known;
    pair *p = NULL;
    int at;

    if (!ids_is_agent(agent_id))
        return;
    is_known = mirror_knows(m, agent_id);
    pthread_mutex_lock(&m->mutex);
    at = lane_find(m, remote);
    if (at >= 0 && !m->is_stopping && m->lanes[at].config->direction != REMOTE_PUSH &&
        remote_is_for(m->lanes[at].config, id) && may_hint(m, agent_id, (size_t)at, is_known)) {
        p = pair_find(m, agent_id, (size_t)at);
        if (p == NULL) {
            p = pair_need(m, agent_id, (size_t)at);
            p->is_fleeting = !is_known;
        }
        hint(m, p, after);
    }
    pthread_mutex_unlock(&m->mutex);
}

/* ---- asked ---- */

static memfs_code fail_stopping(memfs_error *err)
{
    return memfs_fail(err, MEMFS_EUNAVAIL, "memfs is stopping");
}

static memfs_code fail_gone(const char *remote, memfs_error *err)
{
    return memfs_fail(err, MEMFS_ENOTFOUND, "there is no remote '%.40s' for this agent", remote);
}

/* The pair, with this thread counted as one that waits for it.  The mutex is held. */
static memfs_code enter(mirror *m, memfs_str agent_id, const char *remote, pair **ret,
                        memfs_error *err)
{
    _cleanup_(mem_freep) char *id = mem_strndup(agent_id.ptr, agent_id.len);
    int at = lane_find(m, remote);
    pair *p = NULL;

    if (m->is_stopping)
        return fail_stopping(err);
    if (at < 0 || !ids_is_agent(agent_id) || !remote_is_for(m->lanes[at].config, id))
        return fail_gone(remote, err);
    p = pair_find(m, agent_id, (size_t)at);
    if (p == NULL) {
        p = pair_need(m, agent_id, (size_t)at);
        p->is_fleeting = true; /* until an exchange says that the agent is known */
    }
    p->n_waiting++;
    m->n_callers++;
    *ret = p;
    return MEMFS_OK;
}

static void leave(mirror *m, pair *p)
{
    m->n_callers--;
    if (--p->n_waiting == 0) {
        free(p->last);
        p->last = NULL;
    }
    if (p->is_gone || p->place != IS_HELD)
        pair_drop_if_useless(m, p);
    pthread_cond_broadcast(&m->ended);
}

/* OK: nobody is at it (the mutex is held all the while but for the waiting). */
static memfs_code wait_free(mirror *m, pair *p, const char *remote, int64_t deadline_ms,
                            memfs_error *err)
{
    while (p->place == IS_HELD && !p->is_gone && !m->is_stopping) {
        if (clock_mono_ms() >= deadline_ms)
            return memfs_fail(err, MEMFS_EUNAVAIL, "somebody else is at it still");
        wait_ended(m, deadline_ms);
    }
    if (m->is_stopping)
        return fail_stopping(err);
    return p->is_gone ? fail_gone(remote, err) : MEMFS_OK;
}

static bool has_ended(const pair *p, uint32_t serial)
{
    return (int32_t)(p->n_ended - serial) >= 0;
}

/* One of many does not ask on its own word. */
static memfs_code check_gate(const mirror *m, const ticket *t, const char *remote,
                             memfs_error *err)
{
    const pair *p = t->pair;
    const lane *l = &m->lanes[p->lane];

    if (!t->is_in_turn || !gate_is_closed(l) || p->place == IS_HELD ||
        (p->place == IN_QUEUE && p->is_prompt))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EUNAVAIL, "remote '%.40s': %s, as others found; it was not asked "
                                           "again", remote, remote_class_of(l->why)->name);
}

/* By a worker. */
static memfs_code wait_exchange(mirror *m, const ticket *t, const char *remote,
                                int64_t deadline_ms, exchange_result *ret, memfs_error *err)
{
    pair *p = t->pair;
    memfs_code rc;

    while (!has_ended(p, t->serial) && !p->is_gone && !m->is_stopping) {
        rc = check_gate(m, t, remote, err);
        if (rc < 0)
            return rc;
        if (clock_mono_ms() >= deadline_ms)
            return memfs_fail(err, MEMFS_EUNAVAIL, "remote '%.40s': not done in time; it goes on",
                              remote);
        wait_ended(m, deadline_ms);
    }
    if (has_ended(p, t->serial) && p->last != NULL) {
        *ret = *p->last;
        return MEMFS_OK;
    }
    return m->is_stopping ? fail_stopping(err) : fail_gone(remote, err);
}

/* On this thread, unless another one ran one since. */
static memfs_code run_exchange(mirror *m, const ticket *t, const char *remote, unsigned wants,
                               int keep, int64_t deadline_ms, exchange_result *ret,
                               memfs_error *err)
{
    pair *p = t->pair;
    memfs_code rc = wait_free(m, p, remote, deadline_ms, err);

    if (rc < 0)
        return rc;
    if (keep == INTAKE_MERGE && has_ended(p, t->serial) && p->last != NULL) {
        *ret = *p->last;
        return MEMFS_OK;
    }
    p->wants |= (uint8_t)wants;
    pair_pick(m, p);
    schedule_run(m, p, deadline_ms, keep, ret);
    return MEMFS_OK;
}

typedef void (*want_fn)(mirror *m, pair *p, unsigned wants);

static memfs_code begin_ticket(mirror *m, memfs_str agent_id, const char *remote, want_fn want,
                               ticket *ret, memfs_error *err)
{
    memfs_code rc;
    pair *p = NULL;

    pthread_mutex_lock(&m->mutex);
    rc = enter(m, agent_id, remote, &p, err);
    if (rc == MEMFS_OK) {
        ret->pair = p;
        ret->serial = p->n_begun + 1;
        want(m, p, ret->wants);
    }
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

memfs_code mirror_begin(mirror *m, memfs_str agent_id, const char *remote, unsigned wants,
                        ticket *ret, memfs_error *err)
{
    *ret = (ticket){ .wants = wants };
    return begin_ticket(m, agent_id, remote, schedule_want, ret, err);
}

memfs_code mirror_begin_in_turn(mirror *m, memfs_str agent_id, const char *remote, unsigned wants,
                                ticket *ret, memfs_error *err)
{
    *ret = (ticket){ .wants = wants, .is_in_turn = true };
    return begin_ticket(m, agent_id, remote, schedule_want_in_turn, ret, err);
}

memfs_code mirror_end(mirror *m, ticket *t, const char *remote, int64_t deadline_ms,
                      exchange_result *ret, memfs_error *err)
{
    memfs_code rc;

    pthread_mutex_lock(&m->mutex);
    rc = m->n_threads > 0 ? wait_exchange(m, t, remote, deadline_ms, ret, err)
                          : run_exchange(m, t, remote, t->wants, INTAKE_MERGE, deadline_ms, ret,
                                         err);
    leave(m, TAKE_PTR(t->pair));
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

void mirror_give_up(mirror *m, ticket *t)
{
    pthread_mutex_lock(&m->mutex);
    leave(m, TAKE_PTR(t->pair));
    pthread_mutex_unlock(&m->mutex);
}

memfs_code mirror_exchange(mirror *m, memfs_str agent_id, const char *remote, unsigned wants,
                           int64_t deadline_ms, exchange_result *ret, memfs_error *err)
{
    ticket t;
    memfs_code rc = mirror_begin(m, agent_id, remote, wants, &t, err);

    return rc < 0 ? rc : mirror_end(m, &t, remote, deadline_ms, ret, err);
}

memfs_code mirror_exchange_keeping(mirror *m, memfs_str agent_id, const char *remote, int keep,
                                   int64_t deadline_ms, exchange_result *ret, memfs_error *err)
{
    memfs_code rc;
    ticket t;
    pair *p = NULL;

    pthread_mutex_lock(&m->mutex);
    rc = enter(m, agent_id, remote, &p, err);
    if (rc == MEMFS_OK) {
        t = (ticket){ .pair = p, .serial = p->n_begun + 1 };
        rc = run_exchange(m, &t, remote, WANT_LOOK | WANT_PUSH | WANT_NOW, keep, deadline_ms, ret,
                          err);
        leave(m, p);
    }
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

memfs_code pair_hold_take(mirror *m, memfs_str agent_id, const char *remote, int64_t deadline_ms,
                          pair_hold *ret, memfs_error *err)
{
    memfs_code rc;
    pair *p = NULL;

    pthread_mutex_lock(&m->mutex);
    rc = enter(m, agent_id, remote, &p, err);
    if (rc == MEMFS_OK) {
        rc = wait_free(m, p, remote, deadline_ms, err);
        if (rc == MEMFS_OK) {
            pair_pick(m, p);
            m->set->n_refs++;
            *ret = (pair_hold){ p, m->set, m->lanes[p->lane].config };
            process_mark(m);
        } else {
            leave(m, p);
        }
    }
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

void pair_hold_release(mirror *m, pair_hold *h)
{
    process_mark(NULL);
    mirror_remotes_unref(m, h->set); /* before: once it left, a stop may end the mirror */
    pthread_mutex_lock(&m->mutex);
    schedule_release(m, h->pair);
    leave(m, h->pair);
    pthread_mutex_unlock(&m->mutex);
    *h = (pair_hold){ NULL, NULL, NULL };
}
