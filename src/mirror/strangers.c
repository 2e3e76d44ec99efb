#include "mirror/pairs.h"

#include "base/clock.h"

#include <string.h>

/*
 * Whoever reaches the server can make up ids, or say one again and again.  What a host hears of that
 * has two bounds: an id that was not there is not asked for again for some seconds, and all of them
 * together are looked for at RATE_PER_S, with no more than AHEAD_MS of that at once.  The table has a
 * fixed size and forgets by being written over; it knows hashes that nobody outside can foretell.
 */

#define ABSENT_MS 3000 /* somebody may just be making the repository */
#define AHEAD_MS 2000

bool mirror_knows(mirror *m, memfs_str agent_id)
{
    bool is_known = false;
    memfs_error ignored;
    memfs_code rc =
        state_agent_known(home_state(m->options.home), agent_id, &is_known, &ignored);

    return rc == MEMFS_OK && is_known;
}

static uint64_t key_of(const mirror *m, size_t lane_at, memfs_str id)
{
    return pair_hash(m, id) + lane_at + 1; /* 0 is nobody's */
}

static stranger *row_of(mirror *m, uint64_t key)
{
    return &m->strangers[key % ARRAY_LEN(m->strangers)];
}

stranger_verdict stranger_ask(mirror *m, size_t lane_at, memfs_str id)
{
    room *r = &m->rooms[m->lanes[lane_at].room];
    int64_t now_ms = clock_mono_ms();
    int64_t at_ms = r->next_meet_ms > now_ms ? r->next_meet_ms : now_ms;
    uint64_t key = key_of(m, lane_at, id);
    const stranger *row = row_of(m, key);

    if (row->key == key && now_ms < row->until_ms)
        return STRANGER_ABSENT;
    if (at_ms - now_ms >= AHEAD_MS)
        return STRANGER_LATER;
    r->next_meet_ms = at_ms + 1000 / RATE_PER_S;
    return STRANGER_ASK;
}

stranger_verdict stranger_ask_at(mirror *m, const char *remote, const char *agent_id)
{
    stranger_verdict v = STRANGER_LATER;
    int at;

    pthread_mutex_lock(&m->mutex);
    at = lane_find(m, remote);
    if (at >= 0)
        v = stranger_ask(m, (size_t)at, str_of(agent_id));
    pthread_mutex_unlock(&m->mutex);
    return v;
}

void stranger_absent(mirror *m, size_t lane_at, memfs_str id)
{
    uint64_t key = key_of(m, lane_at, id);

    *row_of(m, key) = (stranger){ key, clock_mono_ms() + ABSENT_MS };
}

void stranger_forget(mirror *m, size_t lane_at, memfs_str id)
{
    uint64_t key = key_of(m, lane_at, id);
    stranger *row = row_of(m, key);

    if (row->key == key)
        row->until_ms = 0;
}

void strangers_forget_all(mirror *m)
{
    memset(m->strangers, 0, sizeof(m->strangers));
}
