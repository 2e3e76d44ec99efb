/*
 * block_turn.c - one change of a block at a time; see block_edit.h.
 *
 * A block's turn is one thread's of this process, and where servers share a database then one
 * server's.
 *
 * What was begun and is not made of all agents is looked for in the state only while something may
 * be there: from the start until block_edit_recover() has been through, and after a failure.  What
 * another server left is known to nobody here, so where they share a database each turn looks.
 */
#include "sync/block_edit_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "cache/servers.h"
#include "sync/home_int.h"

#include <stdio.h>
#include <stdlib.h>

#define TURN_MS 30000

void block_turns_init(home *h)
{
    clock_cond_init(&h->turns_changed);
    pthread_mutex_init(&h->turns_mutex, NULL);
    h->has_left = true;
}

void block_turns_dispose(home *h)
{
    pthread_cond_destroy(&h->turns_changed);
    pthread_mutex_destroy(&h->turns_mutex);
}

static bool is_taken(const home *h, const char *block_id)
{
    for (const block_turn *t = h->turns; t != NULL; t = t->next)
        if (strcmp(t->block_id, block_id) == 0)
            return true;
    return false;
}

static memfs_code too_late(memfs_error *err)
{
    return memfs_fail(err, MEMFS_EUNAVAIL, "other changes of this block take too long: try again");
}

static memfs_code among_threads(home *h, int64_t until_ms, block_turn *ret, memfs_error *err)
{
    struct timespec until = clock_at(until_ms);
    bool is_late = false;

    pthread_mutex_lock(&h->turns_mutex);
    while (is_taken(h, ret->block_id) && !is_late)
        is_late = pthread_cond_timedwait(&h->turns_changed, &h->turns_mutex, &until) != 0;
    if (!is_taken(h, ret->block_id)) {
        ret->h = h;
        ret->next = h->turns;
        h->turns = ret;
    }
    pthread_mutex_unlock(&h->turns_mutex);
    return ret->h != NULL ? MEMFS_OK : too_late(err);
}

static memfs_code among_servers(home *h, int64_t until_ms, const char *block_id, memfs_error *err)
{
    bool has_it;
    memfs_code rc = state_turn_take(h->state, str_of(block_id), until_ms, &has_it, err);

    return rc < 0 || has_it ? rc : too_late(err);
}

/* The thread's part of a turn. */
static void leave(block_turn *t)
{
    home *h = t->h;
    block_turn **at;

    pthread_mutex_lock(&h->turns_mutex);
    for (at = &h->turns; *at != t;)
        at = &(*at)->next;
    *at = t->next;
    pthread_cond_broadcast(&h->turns_changed);
    pthread_mutex_unlock(&h->turns_mutex);
    t->h = NULL;
}

memfs_code block_turn_take(home *h, memfs_str block_id, int64_t timeout_ms, block_turn *ret,
                           memfs_error *err)
{
    int64_t until_ms = clock_mono_ms() + timeout_ms;
    memfs_code rc;

    *ret = (block_turn){ .h = NULL };
    snprintf(ret->block_id, sizeof(ret->block_id), "%.*s", (int)block_id.len, block_id.ptr);
    rc = among_threads(h, until_ms, ret, err);
    if (rc == MEMFS_OK && home_is_shared(h)) {
        rc = among_servers(h, until_ms, ret->block_id, err);
        if (rc < 0)
            leave(ret);
    }
    return rc;
}

static bool has_left(home *h)
{
    bool has;

    pthread_mutex_lock(&h->turns_mutex);
    has = h->has_left;
    pthread_mutex_unlock(&h->turns_mutex);
    return has;
}

memfs_code block_turn_begin(home *h, memfs_str block_id, block_turn *ret, memfs_error *err)
{
    memfs_code rc = block_turn_take(h, block_id, TURN_MS, ret, err);

    if (rc == MEMFS_OK && (home_is_shared(h) || has_left(h)))
        rc = block_finish_left(h, block_id, err);
    return rc;
}

void block_turn_end(block_turn *t)
{
    if (t->h == NULL)
        return;
    if (home_is_shared(t->h))
        state_turn_end(t->h->state, str_of(t->block_id));
    leave(t);
}

static int compare_ids(const void *a, const void *b)
{
    return str_compare(*(const memfs_str *)a, *(const memfs_str *)b);
}

memfs_code block_turns_begin(home *h, const memfs_str *ids, size_t n, block_turns *ret,
                             memfs_error *err)
{
    _cleanup_(mem_freep) memfs_str *sorted = mem_alloc((n + 1) * sizeof(*sorted));
    memfs_code rc = MEMFS_OK;

    *ret = (block_turns){ mem_alloc((n + 1) * sizeof(*ret->list)), 0 };
    for (size_t i = 0; i < n; i++)
        sorted[i] = ids[i];
    if (n > 1)
        qsort(sorted, n, sizeof(*sorted), compare_ids);
    for (size_t i = 0; rc == MEMFS_OK && i < n; i++)
        if (i == 0 || !str_equal(sorted[i - 1], sorted[i]))
            rc = block_turn_begin(h, sorted[i], &ret->list[ret->n++], err);
    if (rc < 0)
        block_turns_end(ret);
    return rc;
}

static int compare_turn(const void *id, const void *turn)
{
    return str_compare(*(const memfs_str *)id, str_of(((const block_turn *)turn)->block_id));
}

bool block_turns_have(const block_turns *t, memfs_str block_id)
{
    return t->n > 0 && bsearch(&block_id, t->list, t->n, sizeof(*t->list), compare_turn) != NULL;
}

void block_turns_end(block_turns *t)
{
    for (size_t i = 0; i < t->n; i++)
        block_turn_end(&t->list[i]);
    free(t->list);
    *t = (block_turns){ NULL, 0 };
}

void block_turn_left(home *h)
{
    pthread_mutex_lock(&h->turns_mutex);
    h->has_left = true;
    h->left_mark++;
    pthread_mutex_unlock(&h->turns_mutex);
}

uint64_t block_turn_mark(home *h)
{
    uint64_t mark;

    pthread_mutex_lock(&h->turns_mutex);
    mark = h->left_mark;
    pthread_mutex_unlock(&h->turns_mutex);
    return mark;
}

void block_turn_none_left(home *h, uint64_t mark)
{
    pthread_mutex_lock(&h->turns_mutex);
    if (h->left_mark == mark)
        h->has_left = false;
    pthread_mutex_unlock(&h->turns_mutex);
}
