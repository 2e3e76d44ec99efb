/*
 * agent_sync.c - one agent with all of its remotes: mirror_sync, mirror_sync_modestly, mirror_meet.
 *
 * A caller here knows an agent and waits for a sum.  Each remote is an exchange of its own, begun
 * and ended by pairs.h, with its own end; which of several failures is told is decided by
 * add_failure.
 */
#include "mirror/pairs.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

typedef struct name_list {
    char at[REMOTES_MAX][40];
    size_t n;
} name_list;

/* is_meeting: those that may answer now, and that are read at all. */
static void list_remotes(mirror *m, const char *agent_id, bool is_meeting, name_list *ret)
{
    ret->n = 0;
    pthread_mutex_lock(&m->mutex);
    for (size_t i = 0; i < m->n_lanes; i++) {
        const lane *l = &m->lanes[i];

        if (!remote_is_for(l->config, agent_id) ||
            (is_meeting && (gate_is_closed(l) || l->config->direction == REMOTE_PUSH)))
            continue;
        snprintf(ret->at[ret->n++], sizeof(ret->at[0]), "%s", l->config->name);
    }
    pthread_mutex_unlock(&m->mutex);
}

/* A remote that has no such repository is the last one to be told of: it has answered. */
static void add_failure(mirror_outcome *o, remote_answer answer, const char *words,
                        int64_t retry_after_s)
{
    if (o->n_failed++ == o->n_missing) {
        o->answer = answer;
        snprintf(o->failure, sizeof(o->failure), "%.299s", words);
    }
    if (answer == REMOTE_NOT_FOUND || answer == REMOTE_NOT_CREATED)
        o->n_missing++;
    if (retry_after_s > o->retry_after_s)
        o->retry_after_s = retry_after_s;
}

/* All begin before the first is waited for. */
static void sync_all(mirror *m, const char *agent_id, const name_list *names, unsigned wants,
                     int64_t deadline_ms, mirror_outcome *ret)
{
    ticket tickets[REMOTES_MAX];
    memfs_error errs[REMOTES_MAX], *err;
    exchange_result result;

    for (size_t i = 0; i < names->n; i++)
        if (mirror_begin(m, str_of(agent_id), names->at[i], wants, &tickets[i], &errs[i]) < 0)
            tickets[i].pair = NULL;
    for (size_t i = 0; i < names->n; i++) {
        err = &errs[i];
        ret->n_remotes++;
        if (tickets[i].pair == NULL ||
            mirror_end(m, &tickets[i], names->at[i], deadline_ms, &result, err) < 0) {
            add_failure(ret, REMOTE_UNASKED, err->msg, 0);
            continue;
        }
        ret->moved = ret->moved || result.was_moved;
        ret->n_copies += result.is_copy;
        if (result.code != MEMFS_OK)
            add_failure(ret, result.answer, result.failure, result.retry_after_s);
    }
}

void mirror_sync(mirror *m, const char *agent_id, int64_t deadline_ms, mirror_outcome *ret)
{
    name_list names;

    *ret = (mirror_outcome){ .n_remotes = 0 };
    list_remotes(m, agent_id, false, &names);
    sync_all(m, agent_id, &names, WANT_LOOK | WANT_PUSH | WANT_NOW, deadline_ms, ret);
}

/* True: it refused the credential of all agents, or said when it wants to be asked again. */
static bool wants_rest(mirror *m, const char *remote, mirror_outcome *ret)
{
    remote_answer why = REMOTE_UNASKED;
    char words[300];
    int64_t left_s = 0;
    int at;

    pthread_mutex_lock(&m->mutex);
    at = lane_find(m, remote);
    if (at >= 0 && gate_is_closed(&m->lanes[at]) &&
        (m->lanes[at].refused[0] != '\0' || m->lanes[at].why == REMOTE_TOO_MANY))
        why = m->lanes[at].why;
    if (why == REMOTE_TOO_MANY)
        left_s = (m->lanes[at].closed_until_ms - clock_mono_ms() + 999) / 1000;
    pthread_mutex_unlock(&m->mutex);
    if (why == REMOTE_UNASKED)
        return false;
    snprintf(words, sizeof(words), "remote '%.40s': %s; it is not asked now", remote,
             remote_class_of(why)->name);
    ret->n_remotes++;
    add_failure(ret, why, words, left_s > 0 ? left_s : 0);
    return true;
}

/* True: an agent that nobody here knows is not looked for there now; *ret tells. */
static bool is_put_off(mirror *m, const char *remote, const char *agent_id, mirror_outcome *ret)
{
    stranger_verdict v = stranger_ask_at(m, remote, agent_id);
    char words[120];

    if (v == STRANGER_ASK)
        return false;
    ret->n_remotes++;
    if (v == STRANGER_ABSENT)
        return true; /* what it answered a moment ago */
    snprintf(words, sizeof(words),
             "remote '%.40s': too many agents that nobody here knows are "
             "looked for",
             remote);
    add_failure(ret, REMOTE_UNASKED, words, 1);
    return true;
}

void mirror_sync_modestly(mirror *m, const char *agent_id, int64_t deadline_ms, mirror_outcome *ret)
{
    name_list all, names = { .n = 0 };
    bool is_known = mirror_knows(m, str_of(agent_id));

    *ret = (mirror_outcome){ .n_remotes = 0 };
    list_remotes(m, agent_id, false, &all);
    for (size_t i = 0; i < all.n; i++)
        if (!wants_rest(m, all.at[i], ret) &&
            (is_known || !is_put_off(m, all.at[i], agent_id, ret)))
            memcpy(names.at[names.n++], all.at[i], sizeof(names.at[0]));
    sync_all(m, agent_id, &names, WANT_LOOK | WANT_PUSH | WANT_SOON, deadline_ms, ret);
}

bool mirror_meet(mirror *m, const char *agent_id, int64_t budget_ms)
{
    int64_t deadline_ms = clock_mono_ms() + budget_ms;
    bool is_known = false;
    exchange_result result;
    memfs_error ignored;
    name_list names;

    list_remotes(m, agent_id, true, &names);
    for (size_t i = 0; i < names.n && !is_known && clock_mono_ms() < deadline_ms; i++) {
        if (stranger_ask_at(m, names.at[i], agent_id) != STRANGER_ASK ||
            mirror_exchange(m, str_of(agent_id), names.at[i], WANT_LOOK, deadline_ms, &result,
                            &ignored) < 0)
            continue;
        is_known = mirror_knows(m, str_of(agent_id));
    }
    return is_known;
}
