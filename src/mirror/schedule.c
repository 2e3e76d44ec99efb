#include "mirror/pairs.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/process.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * When.  The scheduler's thread moves pairs whose time has come from the heap into their lane's
 * queues; workers take from there, one lane after the other, pushes and hints before polls, and at
 * most half of them for one host.  The last free worker is for a host that answers: none that was
 * silent last gets it, and none that has one already while there is such a host without any.
 *
 * A poll needs a slot of its host's rate: the first time it is due it gets the next free one, and
 * goes back into the heap until then.  So ten thousand polls that are due at once come out as an
 * even stream, and nothing is counted but the time of the next free slot.
 *
 * Where a host would have to answer more than RATE_PER_S for every agent to be asked every poll_s,
 * agents that nobody has touched for long are asked more rarely, up to twice the time that a round
 * over all of them takes; half of the rate is then left for those that live.
 */

#define COMPARE_MS (10 * 60 * 1000)
#define CHECK_MS 3000 /* has a refused credential changed? */
#define QUIET_PART 8
#define TELL_S 60

/* ---- when is it asked next ---- */

int64_t schedule_interval_ms(const mirror *m, const pair *p)
{
    const lane *l = &m->lanes[p->lane];
    int64_t s = l->config->poll_s;
    int64_t round_s = (int64_t)(m->rooms[l->room].n_pairs / RATE_PER_S);
    int64_t quiet_s = (int64_t)((uint32_t)(clock_mono_ms() / 1000) - p->changed_s) / QUIET_PART;

    if (l->config->direction == REMOTE_PUSH && s < PUSH_ONLY_POLL_S)
        s = PUSH_ONLY_POLL_S;
    if (round_s > s) {
        quiet_s = quiet_s < 2 * round_s ? quiet_s : 2 * round_s;
        s = quiet_s > s ? quiet_s : s;
    }
    return s * 900 + mirror_chance(s * 200 + 1);
}

/* A slot of the host's rate, for something that nobody waits for. */
static int64_t take_slot(room *r, int64_t now_ms)
{
    int64_t at = r->next_slot_ms > now_ms ? r->next_slot_ms : now_ms;

    r->next_slot_ms = at + 1000 / RATE_PER_S;
    return at;
}

/* Its time has come. */
static void on_due(mirror *m, pair *p, int64_t now_ms)
{
    lane *l = &m->lanes[p->lane];
    int64_t slot_ms;

    if (gate_is_closed(l) && l->scout != p) {
        pair_park(m, p);
        return;
    }
    if (p->wants == 0 && !p->has_slot) {
        slot_ms = take_slot(&m->rooms[l->room], now_ms);
        if (slot_ms > now_ms) {
            p->has_slot = true;
            pair_to_heap(m, p, slot_ms);
            return;
        }
    }
    p->has_slot = p->is_waiting = false;
    if (p->wants == 0)
        p->wants = WANT_LOOK;
    pair_to_queue(m, p, (p->wants & ~(unsigned)WANT_LOOK) != 0);
}

static void set_changed(pair *p)
{
    p->changed_s = (uint32_t)(clock_mono_ms() / 1000);
    p->is_new = false;
}

void schedule_want_in_turn(mirror *m, pair *p, unsigned wants)
{
    p->wants |= (uint8_t)wants;
    if (p->place != IS_HELD && p->place != IN_QUEUE && m->n_threads > 0)
        pair_to_queue(m, p, false);
}

void schedule_want(mirror *m, pair *p, unsigned wants)
{
    bool is_urgent = (wants & (WANT_LOOK | WANT_NOW)) != 0; /* it may be there again */

    p->wants |= (uint8_t)wants;
    set_changed(p);
    if (p->place == IS_HELD || (p->place == IN_QUEUE && p->is_prompt))
        return;
    if (!is_urgent && (p->is_waiting || gate_is_closed(&m->lanes[p->lane])))
        return;
    if (m->n_threads > 0)
        pair_to_queue(m, p, true);
}

/* ---- the end of an exchange ---- */

static void fill_result(const exchange *x, exchange_result *ret)
{
    char words[300];

    *ret = (exchange_result){ .code = x->error.code, .was_moved = x->was_moved,
                              .was_pushed = x->was_pushed, .answer = x->answer,
                              .is_copy = x->error.code == MEMFS_OK && x->was_asked &&
                                         x->config->direction != REMOTE_PULL &&
                                         x->config->folder == NULL && !oid_is_zero(&x->ours) &&
                                         oid_equal(&x->ours, &x->record.remote_tip),
                              .retry_after_s = x->retry_after_s };
    if (x->error.code == MEMFS_OK)
        return;
    snprintf(words, sizeof(words), "%.299s", x->error.msg);
    snprintf(ret->failure, sizeof(ret->failure), "remote '%s': %s", x->config->name, words);
}

static void keep_result(pair *p, const exchange_result *result)
{
    exchange_result was;

    if (p->n_waiting == 0)
        return;
    if (p->last == NULL)
        p->last = mem_alloc(sizeof(*p->last));
    was = *p->last; /* of one whose waiter has not woken up yet: what it did is done */
    *p->last = *result;
    p->last->was_moved |= was.was_moved;
    p->last->was_pushed |= was.was_pushed;
}

/* Where it goes now that nobody is at it. */
static void place_again(mirror *m, pair *p, int64_t wait_ms, bool is_stopped)
{
    lane *l = &m->lanes[p->lane];
    int64_t now_ms = clock_mono_ms();
    bool is_scout = gate_is_closed(l) && l->scout == p;

    p->is_waiting = wait_ms > 0 || is_scout;
    if ((p->wants & (WANT_NOW | WANT_SOON)) != 0 && m->n_threads > 0)
        pair_to_queue(m, p, true);
    else if (is_scout && l->closed_until_ms != INT64_MAX)
        pair_to_heap(m, p, l->closed_until_ms);
    else if (gate_is_closed(l))
        pair_park(m, p);
    else if (wait_ms > 0)
        pair_to_heap(m, p, now_ms + wait_ms);
    else if (p->wants != 0 && !is_stopped && m->n_threads > 0)
        pair_to_queue(m, p, true);
    else
        pair_to_heap(m, p, now_ms + schedule_interval_ms(m, p));
}

void schedule_release(mirror *m, pair *p)
{
    p->place = IS_PARKED; /* a gone one is nowhere */
    if (!p->is_gone) {
        p->place = IS_HELD;
        place_again(m, p, 0, false);
    }
    pthread_cond_broadcast(&m->ended);
    pair_drop_if_useless(m, p);
}

/* A webhook told of our own push while we were at it: there is nothing to look at (F28). */
static void forget_echo(pair *p)
{
    if (p->wants == WANT_LOOK && !oid_is_zero(&p->hinted) && oid_equal(&p->hinted, &p->known))
        p->wants = 0;
    memset(&p->hinted, 0, sizeof(p->hinted));
}

/* The same trouble once a minute at most, also where it comes and goes, or takes turns (L5). */
static bool is_worth_telling(mirror *m, pair *p, const exchange *x)
{
    lane *l = &m->lanes[p->lane];
    uint32_t *told_s = x->is_unknown ? &l->strange_told_s : &p->told_s;
    uint32_t *told = x->is_unknown ? &l->strange_told : &p->told; /* there is no end of strangers */
    uint32_t now_s = (uint32_t)(clock_mono_ms() / 1000), trouble = UINT32_C(1) << x->answer;

    static_assert(REMOTE_N_ANSWERS <= 32, "a bit for each answer");
    if (x->error.code == MEMFS_OK || (x->is_unknown && x->answer == REMOTE_NOT_FOUND))
        return false; /* that a new id is nowhere is no trouble */
    if (now_s - *told_s >= TELL_S)
        *told = 0;
    if ((*told & trouble) != 0)
        return false;
    *told_s = now_s;
    *told |= trouble;
    p->is_told = !x->is_unknown;
    return true;
}

static bool is_recovered(pair *p, const exchange *x)
{
    if (x->error.code != MEMFS_OK || !p->is_told)
        return false;
    p->is_told = false;
    return true;
}

static int64_t next_try_ms(const mirror *m, const pair *p)
{
    const lane *l = &m->lanes[p->lane];

    if (gate_is_closed(l))
        return l->closed_until_ms;
    return p->place == IN_HEAP ? p->due_ms : clock_mono_ms();
}

typedef struct telling {
    bool failed, recovered;
    int64_t next_ms;
} telling;

/* Of its host, and of its own repository there. */
static void hear_answer(room *r, pair *p, const exchange *x)
{
    r->is_silent = x->answer == REMOTE_TIMEOUT;
    if (x->answer == REMOTE_REFS || x->answer == REMOTE_EMPTY)
        p->answered_at_us = clock_wall_us();
}

/* The mutex is held. */
static void conclude(mirror *m, pair *p, const exchange *x, const exchange_result *result,
                     telling *ret)
{
    p->n_ended++;
    p->known = x->record.remote_tip;
    if (x->was_asked && !p->is_gone)
        hear_answer(&m->rooms[m->lanes[p->lane].room], p, x);
    if (x->was_moved || x->was_pushed)
        set_changed(p);
    if (!x->is_unknown)
        p->is_fleeting = false;
    else if (!p->is_gone && (x->answer == REMOTE_NOT_FOUND || x->answer == REMOTE_EMPTY))
        stranger_absent(m, p->lane, str_of(p->id));
    forget_echo(p);
    keep_result(p, result);
    ret->failed = is_worth_telling(m, p, x);
    ret->recovered = is_recovered(p, x);
    p->is_failing = x->error.code != MEMFS_OK;
    gate_heard(m, p, x);
    if ((x->wait_ms > 0 || x->is_stopped) && !x->is_unknown)
        p->wants |= x->wants & WANT_PUSH;
    p->place = IS_PARKED;
    if (!p->is_gone) {
        p->place = IS_HELD;
        place_again(m, p, x->wait_ms, x->is_stopped);
        ret->next_ms = next_try_ms(m, p);
    }
    pthread_cond_broadcast(&m->ended);
    pair_drop_if_useless(m, p);
}

static void tell(mirror *m, const exchange *x, const telling *t)
{
    char text[900];
    int64_t left_s = (t->next_ms - clock_mono_ms() + 999) / 1000;

    if (t->failed && (t->next_ms == INT64_MAX || x->is_stopped))
        snprintf(text, sizeof(text), "%s; not tried again until the credential changes, or 'memfs "
                                     "mirror retry'", x->error.msg);
    else if (t->failed)
        snprintf(text, sizeof(text), "%s; next try in %lld s", x->error.msg,
                 (long long)(left_s > 0 ? left_s : 0));
    if (t->failed)
        mirror_event(m, "mirror_failed", x->agent_id, x->config->name, text);
    if (t->recovered)
        mirror_event(m, "mirror_recovered", x->agent_id, x->config->name, "");
    if (x->is_new_note) {
        snprintf(text, sizeof(text), "%s: %s", mirror_note_name(x->record.note),
                 x->record.note_text);
        mirror_event(m, "mirror_note", x->agent_id, x->config->name, text);
    }
}

/* ---- one exchange, from a pair that was picked ---- */

typedef struct start {
    remote_set *set;
    const remote_config *config;
    char id[IDS_MAX_LEN + 1];
    unsigned wants, generation;
    size_t room;
} start;

static void begin(mirror *m, pair *p, start *ret)
{
    lane *l = &m->lanes[p->lane];

    ret->set = m->set;
    m->set->n_refs++;
    ret->config = l->config;
    snprintf(ret->id, sizeof(ret->id), "%s", p->id);
    ret->wants = p->wants;
    ret->generation = m->generation;
    ret->room = l->room;
    p->wants = 0;
    p->n_begun++;
    memset(&p->hinted, 0, sizeof(p->hinted));
    m->rooms[l->room].n_running++;
    m->n_running++;
}

/* The mutex is held when it is called and when it returns, and not while it runs. */
void schedule_run(mirror *m, pair *p, int64_t deadline_ms, int keep, exchange_result *ret)
{
    exchange_result result;
    telling t = { .next_ms = 0 };
    exchange *x = mem_alloc(sizeof(*x));
    start s;

    begin(m, p, &s);
    pthread_mutex_unlock(&m->mutex);
    x->m = m;
    x->set = s.set;
    x->config = s.config;
    x->agent_id = s.id;
    x->wants = s.wants;
    x->keep = keep;
    x->deadline_ms = deadline_ms;
    process_mark(m);
    exchange_run(x);
    process_mark(NULL);
    fill_result(x, &result);
    pthread_mutex_lock(&m->mutex);
    m->n_running--;
    if (s.generation == m->generation)
        m->rooms[s.room].n_running--;
    conclude(m, p, x, &result, &t);
    pthread_cond_signal(&m->work); /* a place at that host is free */
    pthread_mutex_unlock(&m->mutex);
    tell(m, x, &t);
    mirror_remotes_unref(m, s.set);
    free(x);
    if (ret != NULL)
        *ret = result;
    pthread_mutex_lock(&m->mutex);
}

/* ---- workers ---- */

/* They were queued before the gate closed: only its scout and who was told to ask go through. */
static void park_first(mirror *m, lane *l)
{
    pair *p;

    while ((p = l->prompt.first) != NULL && p != l->scout &&
           (p->wants & (WANT_LOOK | WANT_NOW)) == 0)
        pair_park(m, p);
    while ((p = l->polls.first) != NULL && p != l->scout)
        pair_park(m, p);
}

static pair *first_of(mirror *m, lane *l)
{
    if (gate_is_closed(l))
        park_first(m, l);
    return l->prompt.first != NULL ? l->prompt.first : l->polls.first;
}

/* Somebody answers, and nobody is there. */
static bool has_idle_room(const mirror *m)
{
    for (size_t i = 0; i < m->n_rooms; i++)
        if (m->rooms[i].n_running == 0 && !m->rooms[i].is_silent)
            return true;
    return false;
}

/* Hosts that hang, however many they are, leave one worker to those that do not. */
static bool has_worker(const mirror *m, const room *r)
{
    size_t most = m->n_threads / 2 > 0 ? m->n_threads / 2 : 1;

    if (r->n_running >= most)
        return false;
    if (m->n_threads == 1 || m->n_busy + 1 < m->n_threads)
        return true;
    return !r->is_silent && (r->n_running == 0 || !has_idle_room(m));
}

/* Of all lanes the first prompt pair, else the first poll; lanes take turns. */
static pair *take_next(mirror *m)
{
    pair *found = NULL, *p;

    for (size_t i = 0; i < m->n_lanes; i++) {
        lane *l = &m->lanes[(m->next_lane + i) % m->n_lanes];

        p = has_worker(m, &m->rooms[l->room]) ? first_of(m, l) : NULL;
        if (p != NULL && (found == NULL || (p->is_prompt && !found->is_prompt)))
            found = p;
    }
    if (found == NULL)
        return NULL;
    m->next_lane = (found->lane + 1u) % m->n_lanes;
    pair_pick(m, found);
    return found;
}

void *schedule_work(void *arg)
{
    mirror *m = arg;
    pair *p;

    pthread_mutex_lock(&m->mutex);
    while (!m->is_stopping) {
        p = take_next(m);
        if (p == NULL) {
            pthread_cond_wait(&m->work, &m->mutex);
            continue;
        }
        m->n_busy++;
        schedule_run(m, p, clock_mono_ms() + EXCHANGE_MS, INTAKE_MERGE, NULL);
        m->n_busy--;
        pthread_cond_signal(&m->work); /* who waits was told too early */
    }
    pthread_mutex_unlock(&m->mutex);
    return NULL;
}

/* ---- refused credentials ---- */

/* Whom to look at, and what its credential was. */
static bool find_refused(mirror *m, size_t lane_at, start *ret, char refused[9])
{
    lane *l = &m->lanes[lane_at];

    if (l->refused[0] == '\0' || l->scout == NULL)
        return false;
    ret->set = m->set;
    m->set->n_refs++;
    ret->config = l->config;
    snprintf(ret->id, sizeof(ret->id), "%s", l->scout->id);
    snprintf(refused, 9, "%s", l->refused);
    return true;
}

static bool has_another(const start *s, const char *refused)
{
    remote_target t = REMOTE_TARGET_INIT;
    memfs_error ignored;
    char mark[17];

    if (remote_config_target(s->set->r, s->config, s->id, &t, &ignored) < 0)
        return false;
    remote_target_mark(&t, mark);
    remote_target_dispose(&t);
    return strcmp(mark + 8, refused) != 0;
}

/* The mutex is held when it is called and when it returns; not while files are read. */
static void check_refused(mirror *m)
{
    char refused[9];
    start s;

    for (size_t i = 0; i < m->n_lanes; i++) {
        bool is_other;

        if (!find_refused(m, i, &s, refused))
            continue;
        pthread_mutex_unlock(&m->mutex);
        is_other = has_another(&s, refused);
        pthread_mutex_lock(&m->mutex);
        if (is_other && m->set == s.set)
            gate_open(m, &m->lanes[i]);
        pthread_mutex_unlock(&m->mutex);
        mirror_remotes_unref(m, s.set);
        pthread_mutex_lock(&m->mutex);
    }
}

/* ---- the scheduler ---- */

void schedule_due(mirror *m)
{
    int64_t now_ms = clock_mono_ms();
    pair *p;

    while ((p = pairs_first_due(m)) != NULL && p->due_ms <= now_ms)
        on_due(m, p, now_ms);
}

static void wait_until(mirror *m, int64_t at_ms)
{
    struct timespec at = { .tv_sec = (time_t)(at_ms / 1000),
                           .tv_nsec = (long)(at_ms % 1000) * 1000000 };

    pthread_cond_timedwait(&m->time, &m->mutex, &at);
}

static int64_t next_time_ms(mirror *m)
{
    int64_t at = m->compare_at_ms < m->check_at_ms ? m->compare_at_ms : m->check_at_ms;
    pair *p = pairs_first_due(m);

    return p != NULL && p->due_ms < at ? p->due_ms : at;
}

static void do_comparison(mirror *m)
{
    m->wants_compare = false;
    m->compare_at_ms = clock_mono_ms() + COMPARE_MS;
    pthread_mutex_unlock(&m->mutex);
    compare_all(m);
    pthread_mutex_lock(&m->mutex);
    m->is_compared = true;
}

void *schedule_thread(void *arg)
{
    mirror *m = arg;
    int64_t now_ms;

    pthread_mutex_lock(&m->mutex);
    while (!m->is_stopping) {
        now_ms = clock_mono_ms();
        if (m->is_standing_by) {
            wait_until(m, now_ms + CHECK_MS);
            continue;
        }
        if (m->wants_compare || now_ms >= m->compare_at_ms)
            do_comparison(m);
        if (now_ms >= m->check_at_ms) {
            m->check_at_ms = now_ms + CHECK_MS;
            check_refused(m);
        }
        schedule_due(m);
        if (!m->is_stopping && !m->wants_compare && next_time_ms(m) > clock_mono_ms())
            wait_until(m, next_time_ms(m));
    }
    pthread_mutex_unlock(&m->mutex);
    return NULL;
}
