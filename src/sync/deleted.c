/*
 * deleted.c - see deleted.h.
 *
 * To delete: under the agent's lock the state first, then the list in memory, then the rows.  A
 * crash between leaves rows of an agent that is deleted, which deleted_sweep() takes out.  To bring
 * back: the state, then the list; rows come by themselves.
 */
#include "sync/deleted.h"

#include "base/clock.h"
#include "cache/servers.h"
#include "sync/home_list.h"

#include <stdlib.h>
#include <string.h>

#define LOCK_MS 30000

/* ---- who is ---- */

static memfs_code add_id(const state_agent *row, void *ctx, memfs_error *err)
{
    (void)err;
    id_list_add(ctx, row->id);
    return MEMFS_OK;
}

static memfs_code read_deleted(home *h, id_list *ret, memfs_error *err)
{
    const agent_query q = { .which = AGENTS_DELETED };
    memfs_code rc = state_agents(h->state, &q, add_id, ret, err);

    id_list_sort(ret);
    return rc;
}

memfs_code deleted_load(home *h, memfs_error *err)
{
    return read_deleted(h, h->deleted, err);
}

bool home_is_deleted(home *h, memfs_str id)
{
    char text[IDS_MAX_LEN + 1];
    bool is_deleted;

    if (id.len > IDS_MAX_LEN)
        return false;
    memcpy(text, id.ptr, id.len);
    text[id.len] = '\0';
    pthread_rwlock_rdlock(&h->table_lock);
    is_deleted = id_list_has(h->deleted, text);
    pthread_rwlock_unlock(&h->table_lock);
    return is_deleted;
}

memfs_code deleted_check(home *h, memfs_str id, memfs_error *err)
{
    if (!home_is_deleted(h, id))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ENOTFOUND,
                      "agent '%.*s' is deleted: 'memfs agents restore' brings it back", (int)id.len,
                      id.ptr);
}

/* An entry that there is none of yet is looked up in the state when it is made. */
static void set_deleted(home *h, const char *id, bool is_deleted)
{
    agent *a;

    pthread_rwlock_wrlock(&h->table_lock);
    if (is_deleted)
        id_list_insert(h->deleted, id);
    else
        id_list_drop(h->deleted, id);
    pthread_rwlock_unlock(&h->table_lock);
    a = home_find(h, str_of(id));
    if (a == NULL)
        return;
    pthread_mutex_lock(&a->mutex);
    a->is_deleted = is_deleted;
    a->is_synced = false;
    a->rows_ms = 0;
    pthread_mutex_unlock(&a->mutex);
}

static void empty_rows(home *h, const char *id)
{
    memfs_error err;

    if (cache_empty(h->cache, str_of(id), &err) < 0)
        home_alarm(h, NULL, "rows_left",
                   "the blocks of the deleted agent %s are still listed, until the next start: %s",
                   id, err.msg);
}

/* ---- deleting ---- */

/* A folder that the state does not know yet becomes known, so that it is not taken up again. */
static memfs_code set_in_state(home *h, agent *a, int64_t deleted_at_us, bool *ret_changed,
                               memfs_error *err)
{
    int64_t now_us = clock_wall_us();
    memfs_code rc = MEMFS_OK;

    if (!agent_is_known(a))
        rc = state_agent_add(h->state, str_of(a->id), str_of(a->org), now_us, err);
    if (rc == MEMFS_OK)
        rc = state_agent_set_deleted(h->state, str_of(a->id), deleted_at_us, now_us, ret_changed,
                                     err);
    if (rc == MEMFS_OK)
        agent_set_known(a);
    return rc;
}

memfs_code home_agent_delete(home *h, memfs_str id, memfs_error *err)
{
    bool is_known, has_changed = false;
    agent *a;
    memfs_code rc = home_entry(h, id, false, &a, &is_known, err);

    if (rc < 0)
        return rc;
    if (!agent_lock_for(a, LOCK_MS))
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "other work on this memory takes too long: try again");
    rc = deleted_check(h, id, err);
    if (rc == MEMFS_OK)
        rc = set_in_state(h, a, clock_wall_us(), &has_changed, err);
    if (rc == MEMFS_OK) {
        set_deleted(h, a->id, true);
        empty_rows(h, a->id);
    }
    agent_unlock(a);
    return rc;
}

memfs_code home_agent_restore(home *h, memfs_str id, memfs_error *err)
{
    bool is_known, has_changed = false;
    agent *a;
    memfs_code rc = home_entry_kept(h, id, &a, &is_known, err);

    if (rc < 0)
        return rc;
    if (!agent_lock_for(a, LOCK_MS))
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "other work on this memory takes too long: try again");
    rc = set_in_state(h, a, 0, &has_changed, err);
    if (rc == MEMFS_OK)
        set_deleted(h, a->id, false);
    if (rc == MEMFS_OK && has_changed)
        home_moved(h, a); /* a mirror has not looked at it meanwhile */
    agent_unlock(a);
    return rc;
}

/* ---- other servers, and crashes ---- */

/* What this server wrote for it before it knew is in the rows, or is a push that holds the lock. */
static void learn(home *h, const char *id)
{
    agent *a = home_find(h, str_of(id));

    set_deleted(h, id, true);
    if (a == NULL)
        return;
    agent_lock(a);
    empty_rows(h, id);
    agent_unlock(a);
}

void deleted_step(home *h)
{
    _cleanup_(id_list_dispose) id_list now = { NULL, 0, 0 }, before = { NULL, 0, 0 };
    memfs_error ignored;
    int64_t mark;

    if (state_deleted_mark(h->state, &mark, &ignored) < 0 || mark == h->deleted_mark)
        return; /* the next time is in a second */
    pthread_rwlock_rdlock(
        &h->table_lock); /* first: what this server deletes meanwhile is in neither */
    for (size_t i = 0; i < h->deleted->n; i++)
        id_list_add(&before, str_of(h->deleted->ids[i]));
    pthread_rwlock_unlock(&h->table_lock);
    if (read_deleted(h, &now, &ignored) < 0)
        return;
    for (size_t i = 0; i < now.n; i++)
        if (!id_list_has(&before, now.ids[i]))
            learn(h, now.ids[i]);
    for (size_t i = 0; i < before.n; i++)
        if (!id_list_has(&now, before.ids[i]))
            set_deleted(h, before.ids[i], false);
    h->deleted_mark = mark;
}

void deleted_sweep(home *h, bool (*should_stop)(void *ctx), void *ctx)
{
    _cleanup_(id_list_dispose) id_list list = { NULL, 0, 0 };
    memfs_error ignored;
    cache_tip tip;

    if (read_deleted(h, &list, &ignored) < 0)
        return;
    for (size_t i = 0; i < list.n && (should_stop == NULL || !should_stop(ctx)); i++)
        if (cache_tip_get(h->cache, str_of(list.ids[i]), &tip, &ignored) == MEMFS_OK)
            empty_rows(h, list.ids[i]);
}
