/*
 * compare.c - what a start finds undone: main's tip of every agent with what its remotes are known
 * to have, one small file and one row an agent.  Nothing is asked of a remote here; who is behind
 * gets into the queue, and who waited when the process ended waits on.
 */
#include "mirror/pairs.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct known_agent {
    char id[IDS_MAX_LEN + 1], org[IDS_MAX_LEN + 1];
} known_agent;

typedef struct agent_list {
    known_agent *at;
    size_t n, cap;
} agent_list;

static memfs_code list_agent(const state_agent *row, void *ctx, memfs_error *err)
{
    agent_list *l = ctx;

    (void)err;
    if (row->id.len > IDS_MAX_LEN || row->org_id.len > IDS_MAX_LEN)
        return MEMFS_OK;
    if (l->n == l->cap) {
        l->cap = l->cap > 0 ? 2 * l->cap : 256;
        l->at = mem_realloc(l->at, l->cap, sizeof(*l->at));
    }
    snprintf(l->at[l->n].id, sizeof(l->at->id), "%.*s", (int)row->id.len, row->id.ptr);
    snprintf(l->at[l->n++].org, sizeof(l->at->org), "%.*s", (int)row->org_id.len, row->org_id.ptr);
    return MEMFS_OK;
}

/* A memory that has been quiet for weeks was so before the start, and is asked as rarely. */
static void take_up_quiet(mirror *m, pair *p, const mirror_record *r)
{
    int64_t last_us = r->seen_at_us > r->pushed_at_us ? r->seen_at_us : r->pushed_at_us;
    int64_t quiet_s = (clock_wall_us() - last_us) / 1000000;

    if (!p->is_new)
        return;
    p->is_new = false;
    if (last_us == 0 || quiet_s <= 0)
        return;
    p->changed_s -= (uint32_t)(quiet_s < INT32_MAX ? quiet_s : INT32_MAX);
    if (p->place == IN_HEAP)
        pair_to_heap(m, p, clock_mono_ms() + mirror_chance(schedule_interval_ms(m, p)));
}

/* Of what was planned then, whatever the clock has done since. */
static int64_t wait_left_ms(const mirror_record *r)
{
    int64_t planned_us = r->next_try_us - r->failed_at_us;
    int64_t left_us = r->next_try_us - clock_wall_us();

    return (left_us < planned_us ? left_us : planned_us) / 1000;
}

/* What stood when it was last tried holds after a restart, too. */
static void take_up(mirror *m, pair *p, const mirror_record *r, const memfs_oid *tip, bool is_other)
{
    lane *l = &m->lanes[p->lane];
    int64_t wait_ms = wait_left_ms(r);
    bool is_done = !is_other && (oid_is_zero(tip) || oid_equal(tip, &r->remote_tip) ||
                                 l->config->direction == REMOTE_PULL);

    if (p->place == IS_HELD)
        return;
    p->known = r->remote_tip;
    if (is_done)
        return;
    p->wants |= WANT_PUSH;
    p->is_failing = r->answer[0] != '\0';
    if (p->place != IN_HEAP || p->is_waiting)
        return;
    if (!is_other && r->answer[0] != '\0' && wait_ms > 0) {
        p->is_waiting = true;
        pair_to_heap(m, p,
                     clock_mono_ms() +
                         (wait_ms < MAX_RETRY_AFTER_S * 1000 ? wait_ms : MAX_RETRY_AFTER_S * 1000));
    } else if (!gate_is_closed(l)) {
        pair_to_queue(m, p, false); /* behind whoever is pushed to now */
    }
}

static void compare_pair(mirror *m, remote_set *set, const remote_config *c, const known_agent *a,
                         const memfs_oid *tip)
{
    mirror_record r;
    memfs_error ignored;
    bool is_other;
    pair *p;
    int at;

    if (record_load(m, a->id, c->name, &r, &ignored) < 0)
        memset(&r, 0, sizeof(r)); /* then it is asked */
    is_other = !record_is_of(c, a->id, &r);
    pthread_mutex_lock(&m->mutex);
    at = m->set == set ? lane_find(m, c->name) : -1;
    if (at >= 0) {
        p = pair_need(m, str_of(a->id), (size_t)at);
        if (!is_other)
            take_up_quiet(m, p, &r);
        take_up(m, p, &r, tip, is_other);
    }
    pthread_mutex_unlock(&m->mutex);
}

static void compare_agent(mirror *m, remote_set *set, const known_agent *a)
{
    _cleanup_(mem_freep) char *repo = mem_printf("repository/%s/%s/repo.git", a->org, a->id);
    memfs_oid tip = { { 0 } };
    memfs_error ignored;

    if (home_agent_main(m->options.home, str_of(a->id), repo, &tip, &ignored) < 0)
        return; /* its own alarm says so (H4) */
    for (size_t i = 0; i < set->r->n; i++)
        if (remote_is_for(&set->r->at[i], a->id))
            compare_pair(m, set, &set->r->at[i], a, &tip);
}

/* Ten thousand agents take a while, and what comes due meanwhile does not wait for the last. */
static void compare_next(mirror *m, remote_set *set, const known_agent *a)
{
    compare_agent(m, set, a);
    pthread_mutex_lock(&m->mutex);
    schedule_due(m);
    pthread_mutex_unlock(&m->mutex);
}

/* How many there are decides how often each is asked, so all are there before the first is. */
static void need_pairs(mirror *m, const known_agent *a)
{
    pthread_mutex_lock(&m->mutex);
    for (size_t i = 0; i < m->n_lanes; i++)
        if (remote_is_for(m->lanes[i].config, a->id))
            pair_need(m, str_of(a->id), i);
    pthread_mutex_unlock(&m->mutex);
}

void compare_all(mirror *m)
{
    agent_query all = { .limit = 0 };
    agent_list list = { NULL, 0, 0 };
    remote_set *set = mirror_remotes(m);
    memfs_error err = MEMFS_ERROR_INIT;

    if (set->r->n > 0 &&
        state_agents(home_state(m->options.home), &all, list_agent, &list, &err) < 0)
        mirror_event(m, "mirror_compare_failed", NULL, NULL, err.msg);
    for (size_t i = 0; i < list.n; i++)
        need_pairs(m, &list.at[i]);
    for (size_t i = 0; i < list.n && !mirror_is_stopping(m); i++)
        compare_next(m, set, &list.at[i]);
    free(list.at);
    mirror_remotes_unref(m, set);
}
