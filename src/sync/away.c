/*
 * away.c - what goes on while the database of a home is away, and what is made up for when it is
 * back (F22).
 *
 * Git goes on: what a push has to know of its agent lies beside its repository too.  Rows do not,
 * and agents whose rows could not be written stand in a queue, which a thread of the server works
 * off as soon as the database answers again: nobody has to ask for each of them.
 *
 * `banned`, beside repo.git: the objects that a purge took out and that may not come back, one id a
 * line, as the state last told.  Read only while the state cannot be.
 */
#include "sync/away.h"

#include "sync/follow.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdlib.h>

#define FIRST_PAUSE_MS 1000 /* after a failure of an agent's own; doubled each time */
#define MAX_PAUSE_MS 60000

bool home_is_away(const home *h, memfs_code rc)
{
    return rc == MEMFS_EUNAVAIL && cache_is_remote(h->cache);
}

/* ---- what was purged ---- */

static char *banned_path(const home *h, const agent *a)
{
    _cleanup_(mem_freep) char *folder = agent_folder(h, a);

    return mem_printf("%s/banned", folder);
}

static memfs_code keep_banned(home *h, agent *a, const memfs_oid *ids, size_t n, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(mem_freep) char *path = banned_path(h, a);
    char hex[MEMFS_OID_HEX + 1];
    memfs_code rc;

    if (n == a->n_banned_kept || !cache_is_remote(h->cache))
        return MEMFS_OK;
    for (size_t i = 0; i < n; i++) {
        oid_hex(&ids[i], hex);
        buf_printf(&text, "%s\n", hex);
    }
    rc = fs_write_atomic(path, buf_str(&text), 0600, err);
    if (rc == MEMFS_OK)
        a->n_banned_kept = n;
    return rc;
}

static memfs_code read_kept(home *h, agent *a, memfs_oid **ret, size_t *ret_n, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(mem_freep) char *path = banned_path(h, a);
    _cleanup_(mem_freep) memfs_oid *ids = NULL;
    memfs_str rest, line;
    memfs_code rc = fs_exists(path) ? fs_read(path, &text, err) : MEMFS_OK;

    if (rc < 0)
        return rc;
    ids = mem_alloc((text.len / (MEMFS_OID_HEX + 1) + 1) * sizeof(*ids));
    *ret_n = 0;
    for (rest = buf_str(&text); str_split(rest, '\n', &line, &rest);)
        if (!oid_parse(line, &ids[(*ret_n)++]))
            return memfs_fail(err, MEMFS_ECORRUPT,
                              "'%s' is damaged; remove it when the database "
                              "is back",
                              path);
    *ret = TAKE_PTR(ids);
    return MEMFS_OK;
}

memfs_code agent_banned(home *h, agent *a, memfs_oid **ret, size_t *ret_n, memfs_error *err)
{
    memfs_code rc = state_banned(h->state, str_of(a->id), ret, ret_n, err);

    if (home_is_away(h, rc))
        return read_kept(h, a, ret, ret_n, err);
    return rc < 0 ? rc : keep_banned(h, a, *ret, *ret_n, err);
}

/* ---- who is behind ---- */

void home_is_behind(home *h, agent *a)
{
    pthread_mutex_lock(&h->upkeep_mutex);
    if (!a->is_waiting) {
        if (h->n_behind == h->cap_behind) {
            h->cap_behind = h->cap_behind == 0 ? 64 : h->cap_behind * 2;
            h->behind = mem_realloc(h->behind, h->cap_behind, sizeof(*h->behind));
        }
        a->is_waiting = true;
        h->behind[h->n_behind++] = a;
    }
    pthread_mutex_unlock(&h->upkeep_mutex);
}

bool home_waits_for(home *h, agent *a)
{
    bool is_waiting;

    pthread_mutex_lock(&h->upkeep_mutex);
    is_waiting = a->is_waiting;
    pthread_mutex_unlock(&h->upkeep_mutex);
    return is_waiting;
}

/* The one that came last of those whose time it is: any order will do, and this one moves few. */
static agent *next_behind(home *h)
{
    int64_t now_ms = clock_mono_ms();
    agent *a = NULL;
    size_t i;

    pthread_mutex_lock(&h->upkeep_mutex);
    for (i = h->n_behind; i > 0 && h->behind[i - 1]->behind_until_ms > now_ms; i--)
        ;
    if (i > 0) {
        a = h->behind[i - 1];
        memmove(h->behind + i - 1, h->behind + i, (h->n_behind - i) * sizeof(*h->behind));
        h->n_behind--;
        a->is_waiting = false;
    }
    pthread_mutex_unlock(&h->upkeep_mutex);
    return a;
}

static void caught_up(home *h, agent *a)
{
    pthread_mutex_lock(&h->upkeep_mutex);
    a->behind_pause_ms = a->behind_until_ms = 0;
    pthread_mutex_unlock(&h->upkeep_mutex);
}

/*
 * One that still fails goes to the end, so that it does not stand before all others for ever; and
 * is tried more and more rarely, but for what ends with the database's absence.
 */
static void put_back(home *h, agent *a, bool is_away)
{
    home_is_behind(h, a);
    pthread_mutex_lock(&h->upkeep_mutex);
    if (!is_away) {
        a->behind_pause_ms = a->behind_pause_ms == 0 ? FIRST_PAUSE_MS : a->behind_pause_ms * 2;
        if (a->behind_pause_ms > MAX_PAUSE_MS)
            a->behind_pause_ms = MAX_PAUSE_MS;
        a->behind_until_ms = clock_mono_ms() + a->behind_pause_ms;
    }
    if (h->n_behind > 1 && h->behind[h->n_behind - 1] == a) {
        memmove(h->behind + 1, h->behind, (h->n_behind - 1) * sizeof(*h->behind));
        h->behind[0] = a;
    }
    pthread_mutex_unlock(&h->upkeep_mutex);
}

bool home_catch_up_step(home *h)
{
    agent *a = next_behind(h);
    bool is_away = true;
    memfs_error err;

    if (a == NULL)
        return false;
    if (home_is_shared(h) ? agent_catch_up_shared(h, a, &is_away)
                          : agent_ready(h, a, true, &err) != MEMFS_EUNAVAIL) {
        caught_up(h, a);
        return true; /* done, or told by an alarm and tried again by its next reader */
    }
    put_back(h, a, is_away);
    return !is_away; /* another one may fare better */
}
