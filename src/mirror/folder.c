#include "mirror/exchange_int.h"
#include "mirror/pairs.h"

#include "base/clock.h"
#include "letta/folder.h"
#include "store/store.h"

#include <stdio.h>
#include <string.h>

/*
 * An exchange with a Letta server's folder (letta/folder.h).  Two steps are others than with a git
 * remote: the look is a read of its main, and the push is staged and renamed into it.  Taking in is
 * the same: a git fetch, which reads, and the rules of a push.
 *
 *     folder                             is
 *     not there, the server told of it   made, with what is here
 *     not there, and it did not          nothing: the server does not know this agent (yet)
 *     was there, and is gone             a volume that is not mounted, most likely: as with any
 *                                        folder (make.c) made anew on a person's word only
 *     main cannot be read                half-written: looked at again in a moment
 *
 * Before each look comes what an earlier publish left (letta_folder_each_left): a write of the
 * server's that it met, which no ref names, is taken in by its id like any other.  One that cannot
 * be read or fetched is waited for, LEFT_WAIT_S since it was met first; then its writer has most
 * likely died half-way, and it keeps nobody any more; it is tried again with each look.  So is one
 * that the policy refuses, and the note says which folder to remove.
 */

#define MAX_UNREADABLE 3
#define LEFT_WAIT_S 60
#define LEFT_KEEP_S 3600 /* of what names no commit */

static outcome look_missing(exchange *x, letta_place place, const memfs_error *err,
                            probe_result *heard)
{
    bool was_there = !oid_is_zero(&x->record.remote_tip);

    if (was_there && (x->wants & WANT_NOW) == 0)
        return exchange_fail_remote(x, REMOTE_NOT_FOUND,
                                    "the Letta server's folder of this memory is gone, is its "
                                    "volume mounted? 'memfs mirror retry' makes it anew");
    if ((place != LETTA_TOLD && !was_there) || oid_is_zero(&x->ours))
        return STEP_DONE;
    snprintf(heard->detail, sizeof(heard->detail), "%.199s", err->msg);
    return STEP_ON;
}

typedef struct taking {
    exchange *x;
    outcome o;
} taking;

/* STEP_DONE: it is refused, and stays; what main names does not wait for it. */
static outcome take_commit(exchange *x, const memfs_oid *id, const char *stage)
{
    unsigned n_held = x->n_lefts_held;
    outcome o;

    x->left = stage;
    o = exchange_take_commit(x, id);
    x->left = NULL;
    if (x->n_lefts_held == n_held)
        return o;
    x->error = (memfs_error)MEMFS_ERROR_INIT;
    return STEP_DONE;
}

static bool take_left(const memfs_oid *id, int64_t age_s, const char *stage, void *ctx)
{
    taking *t = ctx;
    exchange *x = t->x;
    memfs_error err = MEMFS_ERROR_INIT;
    outcome o = STEP_RACE;

    if (t->o != STEP_ON)
        return false;
    if (oid_is_zero(id) && age_s >= LEFT_KEEP_S)
        return true;
    if (exchange_has(x, id, &x->ours))
        return true;
    if (!oid_is_zero(id))
        o = letta_folder_check(x->config->folder, x->agent_id, &err) < 0
                ? exchange_fail_remote(x, REMOTE_OTHER, err.msg)
                : take_commit(x, id, stage);
    if (o == STEP_DONE)
        return false;
    if (o != STEP_RACE || age_s < LEFT_WAIT_S)
        t->o = o;
    return o == STEP_ON;
}

/* STEP_ON: nothing is left that could be taken in. */
static outcome take_lefts(exchange *x)
{
    taking t = { x, STEP_ON };

    x->n_lefts_held = 0;
    letta_folder_each_left(x->config->folder, x->agent_id, take_left, &t);
    return t.o;
}

outcome exchange_look_folder(exchange *x, probe_result *heard)
{
    memfs_error err = MEMFS_ERROR_INIT;
    letta_place place;
    memfs_code rc;
    outcome o;

    memset(heard, 0, sizeof(*heard));
    x->was_asked = true;
    x->answer = REMOTE_REFS; /* what is refused of what was left is held, as main is */
    o = take_lefts(x);
    if (o != STEP_ON)
        return o;
    rc = letta_folder_tip(x->config->folder, x->agent_id, &place, &heard->main, &err);
    heard->has_main = rc == MEMFS_OK;
    heard->answer = x->answer = rc == MEMFS_OK ? REMOTE_REFS : REMOTE_NOT_FOUND;
    if (rc == MEMFS_OK && !oid_equal(&heard->main, &x->record.remote_tip) &&
        letta_folder_check(x->config->folder, x->agent_id, &err) < 0)
        return exchange_fail_remote(x, REMOTE_OTHER, err.msg);
    if (rc == MEMFS_OK)
        return STEP_ON;
    if (rc == MEMFS_ENOTFOUND)
        return look_missing(x, place, &err, heard);
    if (rc == MEMFS_ECORRUPT && x->n_unreadable++ < MAX_UNREADABLE)
        return STEP_RACE;
    /* a volume that is away is away for all, as a host is where nobody listens */
    return exchange_fail_remote(x, rc == MEMFS_EUNAVAIL ? REMOTE_REFUSED : REMOTE_OTHER, err.msg);
}

static void tell_moves(const exchange *x, mirror_letta_step step)
{
    const mirror_options *o = mirror_settings(x->m);

    if (o->letta_moves != NULL)
        o->letta_moves(x->agent_id, step, o->letta_ctx);
}

outcome exchange_push_folder(exchange *x)
{
    memfs_error err = MEMFS_ERROR_INIT;
    bool is_moved;
    memfs_code rc;

    if (!x->was_asked && letta_folder_has_left(x->config->folder, x->agent_id))
        return STEP_RACE; /* it comes first */
    tell_moves(x, MIRROR_LETTA_MOVES);
    rc =
        letta_folder_publish(x->config->folder, home_store(mirror_home(x->m)), agent_repo(x->agent),
                             x->agent_id, &x->record.remote_tip, &x->ours, &is_moved, &err);
    tell_moves(x, is_moved ? MIRROR_LETTA_MOVED : MIRROR_LETTA_STAYED);
    if (rc == MEMFS_OK)
        return STEP_DONE;
    if (rc == MEMFS_ECONFLICT)
        return STEP_RACE;
    x->was_asked = true;
    return mirror_is_stopping(x->m) ? exchange_fail_here(x, &err)
                                    : exchange_fail_remote(x, REMOTE_OTHER, err.msg);
}

/* ---- from outside ---- */

memfs_code mirror_letta(mirror *m, memfs_str agent_id, int64_t deadline_ms, memfs_error *err)
{
    exchange_result result;
    memfs_code rc = mirror_exchange(m, agent_id, REMOTE_LETTA, WANT_LOOK | WANT_PUSH | WANT_SOON,
                                    deadline_ms, &result, err);

    if (rc < 0 || result.code == MEMFS_OK)
        return rc;
    return memfs_fail(err, result.code, "%s", result.failure);
}

bool mirror_letta_is_known(mirror *m, memfs_str agent_id, const memfs_oid *tip)
{
    const pair *p;
    bool is;
    int at;

    pthread_mutex_lock(&m->mutex);
    at = lane_find(m, REMOTE_LETTA);
    p = at >= 0 ? pair_find(m, agent_id, (size_t)at) : NULL;
    is = p != NULL && oid_equal(&p->known, tip);
    pthread_mutex_unlock(&m->mutex);
    return is;
}
