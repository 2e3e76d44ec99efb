/*
 * agent.c - one agent's entry: its lock, and the way from "never touched" to "may be served".
 *
 *     UNTOUCHED --recover--> READY --fence--> FENCED --verify finds it whole--> READY
 *
 * The lock is a queue: who comes first goes first, so a reader that has to catch up waits for those
 * before it and for nobody else.  Each waiter sleeps on a condition of its own, on its own stack;
 * the one who unlocks hands the lock over, so no newcomer can slip in between.
 *
 * Three ids tell what may be served:
 *   tip      main, as this process knows it
 *   moving   where a push of ours is taking it right now
 *   synced   the tip that the cache holds
 * The id on disk equals tip: nothing happened.  It equals moving: a push is between its ref and its
 * acknowledgement; the old rows are as good an answer as the new.  Anything else: somebody moved
 * the ref behind our back (F14), which is told, and told louder when history was rewritten (H1).
 *
 * synced is true for one cache only: when the cache is set aside, the home's epoch moves on and
 * every entry is behind, to be caught up at its next touch (F23).
 *
 * A fence survives the process (F05: whoever starts next has to verify before it serves) as a file
 * "fenced" beside repo.git, with the reason.  When even that cannot be written, the fence of this
 * process must do.
 */
#include "sync/home_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "sync/away.h"
#include "sync/follow.h"
#include "sync/materialise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEEK_MS 1000         /* a hand-made change is seen after this, at the latest */
#define RETRY_MS 500         /* a cache that failed is not asked again before this */
#define ALARM_EVERY_MS 60000 /* L5 */

/* ---- the lock ---- */

struct agent_waiter {
    pthread_cond_t granted;
    bool has_it;
    struct agent_waiter *next;
};

static void waiter_init(struct agent_waiter *w)
{

    clock_cond_init(&w->granted);
    w->has_it = false;
    w->next = NULL;
}

static void queue_add(agent *a, struct agent_waiter *w)
{
    if (a->last != NULL)
        a->last->next = w;
    else
        a->first = w;
    a->last = w;
}

static void queue_remove(agent *a, struct agent_waiter *w)
{
    struct agent_waiter *before = NULL;

    for (struct agent_waiter *at = a->first; at != w; at = at->next)
        before = at;
    if (before != NULL)
        before->next = w->next;
    else
        a->first = w->next;
    if (a->last == w)
        a->last = before;
}

/* timeout_ms < 0 waits for ever. */
static bool lock_within(agent *a, int64_t timeout_ms)
{
    struct agent_waiter w;
    struct timespec until;
    int64_t end_ms = clock_mono_ms() + timeout_ms;

    pthread_mutex_lock(&a->mutex);
    if (!a->is_held) {
        a->is_held = true;
        pthread_mutex_unlock(&a->mutex);
        return true;
    }
    waiter_init(&w);
    queue_add(a, &w);
    until = clock_at(end_ms);
    pool_wait_begin(); /* work on one agent keeps no places from others (T17) */
    while (!w.has_it) {
        if (timeout_ms < 0)
            pthread_cond_wait(&w.granted, &a->mutex);
        else if (pthread_cond_timedwait(&w.granted, &a->mutex, &until) != 0 && !w.has_it)
            break;
    }
    pool_wait_end();
    if (!w.has_it)
        queue_remove(a, &w);
    pthread_mutex_unlock(&a->mutex);
    pthread_cond_destroy(&w.granted);
    return w.has_it;
}

void agent_lock(agent *a)
{
    bool has_it = lock_within(a, -1);

    (void)has_it;
}

bool agent_lock_for(agent *a, int64_t timeout_ms)
{
    return lock_within(a, timeout_ms < 0 ? 0 : timeout_ms);
}

void agent_unlock(agent *a)
{
    struct agent_waiter *w;

    pthread_mutex_lock(&a->mutex);
    w = a->first;
    if (w == NULL) {
        a->is_held = false;
    } else {
        queue_remove(a, w);
        w->has_it = true;
        pthread_cond_signal(&w->granted);
    }
    pthread_mutex_unlock(&a->mutex);
}

/* ---- life cycle ---- */

agent *agent_new(memfs_str id, memfs_str org, bool is_known)
{
    bool is_default = str_equal(org, MEMFS_STR(IDS_DEFAULT_ORG));
    agent *a = mem_alloc(sizeof(*a));

    memcpy(a->id, id.ptr, id.len);
    a->org = is_default ? IDS_DEFAULT_ORG : mem_strndup(org.ptr, org.len);
    a->has_own_org = !is_default;
    a->repo = home_repo_name(org, id);
    a->is_known = is_known;
    pthread_mutex_init(&a->mutex, NULL);
    return a;
}

void agent_free(agent *a)
{
    pthread_mutex_destroy(&a->mutex);
    free(a->sync_err);
    free(a->why_fenced);
    free(a->repo);
    if (a->has_own_org)
        free((char *)(uintptr_t)a->org);
    free(a);
}

char *agent_folder(const home *h, const agent *a)
{
    return mem_printf("%s/%.*s", h->path, (int)(strlen(a->repo) - strlen("/repo.git")), a->repo);
}

/* ---- what is known of it ---- */

bool agent_is_known(agent *a)
{
    bool is_known;

    pthread_mutex_lock(&a->mutex);
    is_known = a->is_known;
    pthread_mutex_unlock(&a->mutex);
    return is_known;
}

void agent_set_known(agent *a)
{
    pthread_mutex_lock(&a->mutex);
    a->is_known = true;
    pthread_mutex_unlock(&a->mutex);
}

void agent_moving(agent *a, const memfs_oid *to)
{
    pthread_mutex_lock(&a->mutex);
    a->is_moving = true;
    a->moving_to = *to;
    pthread_mutex_unlock(&a->mutex);
}

void agent_not_moving(agent *a)
{
    pthread_mutex_lock(&a->mutex);
    a->is_moving = false;
    pthread_mutex_unlock(&a->mutex);
}

void agent_moved(agent *a, const memfs_oid *tip)
{
    pthread_mutex_lock(&a->mutex);
    a->tip = *tip;
    a->is_moving = false;
    a->checked_ms = clock_mono_ms();
    if (a->phase == AGENT_UNTOUCHED)
        a->phase = AGENT_READY;
    pthread_mutex_unlock(&a->mutex);
}

void agent_synced(home *h, agent *a, const memfs_oid *tip, uint64_t epoch)
{
    pthread_mutex_lock(&a->mutex);
    a->synced = *tip;
    a->epoch = epoch;
    a->is_synced = epoch == atomic_load(&h->epoch);
    pthread_mutex_unlock(&a->mutex);
}

/* Under the entry's mutex. */
static bool is_behind(home *h, agent *a, const memfs_oid *tip)
{
    return !a->is_known || !a->is_synced || a->epoch != atomic_load(&h->epoch) ||
           !oid_equal(&a->synced, tip);
}

bool agent_is_synced_at(home *h, agent *a, const memfs_oid *tip)
{
    bool is_synced;

    pthread_mutex_lock(&a->mutex);
    is_synced = !is_behind(h, a, tip);
    pthread_mutex_unlock(&a->mutex);
    return is_synced;
}

static void set_phase(agent *a, agent_phase phase, const memfs_oid *tip)
{
    pthread_mutex_lock(&a->mutex);
    if (a->phase != AGENT_FENCED)
        a->phase = phase;
    a->tip = *tip;
    a->checked_ms = clock_mono_ms();
    pthread_mutex_unlock(&a->mutex);
}

bool agent_alarm_is_due(agent *a)
{
    int64_t now = clock_mono_ms();
    bool is_due;

    pthread_mutex_lock(&a->mutex);
    is_due = a->alarmed_ms == 0 || now - a->alarmed_ms >= ALARM_EVERY_MS;
    if (is_due)
        a->alarmed_ms = now;
    pthread_mutex_unlock(&a->mutex);
    return is_due;
}

memfs_code agent_missing(home *h, agent *a, memfs_error *err)
{
    if (agent_alarm_is_due(a))
        home_alarm(
            h, a, "folder_missing",
            "the repository of this agent is gone from the disk; bring it back from a backup or "
            "a remote: nothing is made anew in its place");
    return memfs_fail(err, MEMFS_EUNAVAIL, "the repository of agent '%s' is missing on this server",
                      a->id);
}

/* ---- the fence ---- */

static char *fence_path(const home *h, const agent *a)
{
    _cleanup_(mem_freep) char *folder = agent_folder(h, a);

    return mem_printf("%s/fenced", folder);
}

void agent_fence(home *h, agent *a, const char *why)
{
    _cleanup_(mem_freep) char *path = fence_path(h, a);
    memfs_error err;

    pthread_mutex_lock(&a->mutex);
    a->phase = AGENT_FENCED;
    a->is_moving = false;
    free(a->why_fenced);
    a->why_fenced = mem_strdup(why);
    pthread_mutex_unlock(&a->mutex);
    home_alarm(h, a, "agent_fenced", "%s; run verify when the cause is gone", why);
    if (fs_write_atomic(path, str_of(why), 0600, &err) < 0)
        home_alarm(h, a, "fence_not_kept", "the fence holds until the next start only: %s",
                   err.msg);
}

void agent_unfence(home *h, agent *a)
{
    _cleanup_(mem_freep) char *path = fence_path(h, a);
    memfs_error ignored;

    pthread_mutex_lock(&a->mutex);
    if (a->phase == AGENT_FENCED)
        a->phase = AGENT_UNTOUCHED;
    free(TAKE_PTR(a->why_fenced));
    pthread_mutex_unlock(&a->mutex);
    if (fs_remove_tree(path, &ignored) < 0)
        return; /* then the next start looks once more */
}

bool agent_is_fenced(agent *a, memfs_error *err)
{
    bool is_fenced;

    pthread_mutex_lock(&a->mutex);
    is_fenced = a->phase == AGENT_FENCED;
    if (is_fenced)
        memfs_fail(err, MEMFS_ECORRUPT, "the repository of agent '%s' is fenced: %s", a->id,
                   a->why_fenced != NULL ? a->why_fenced : "it was found damaged");
    pthread_mutex_unlock(&a->mutex);
    return is_fenced;
}

void agent_suspect(home *h, agent *a, const memfs_error *err)
{
    memfs_error finding;

    if (err->code != MEMFS_ECORRUPT)
        return;
    if (store_fsck(h->store, a->repo, &finding) == MEMFS_ECORRUPT)
        agent_fence(h, a, finding.msg);
}

/* A fence that an earlier process left: lifted only by a clean fsck (F05). */
static memfs_code check_old_fence(home *h, agent *a, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = fence_path(h, a);
    memfs_code rc;

    if (!fs_exists(path))
        return MEMFS_OK;
    rc = store_fsck(h->store, a->repo, err);
    if (rc == MEMFS_ECORRUPT)
        agent_fence(h, a, err->msg);
    if (rc < 0)
        return rc;
    agent_unfence(h, a);
    home_alarm(h, a, "agent_unfenced",
               "an earlier process fenced this repository; fsck finds it whole");
    return MEMFS_OK;
}

/* ---- catching up ---- */

/* False while a failed attempt is too fresh; then *err is why that one failed. */
static bool may_try(agent *a, memfs_error *err)
{
    bool may;

    pthread_mutex_lock(&a->mutex);
    may = a->sync_err == NULL || clock_mono_ms() >= a->retry_ms;
    if (!may)
        *err = *a->sync_err;
    pthread_mutex_unlock(&a->mutex);
    return may;
}

static void note_attempt(agent *a, const memfs_error *err_or_null)
{
    memfs_error *failure = NULL;

    if (err_or_null != NULL) {
        failure = mem_alloc(sizeof(*failure));
        *failure = *err_or_null;
    }
    pthread_mutex_lock(&a->mutex);
    a->retry_ms = clock_mono_ms() + RETRY_MS;
    free(a->sync_err);
    a->sync_err = failure;
    pthread_mutex_unlock(&a->mutex);
}

/*
 * The state may only have been away when it was asked before: then the agent is no news (F22).
 */
static memfs_code adopt(home *h, agent *a, memfs_error *err)
{
    bool was_there = false;
    memfs_code rc = state_agent_known(h->state, str_of(a->id), &was_there, err);

    if (rc == MEMFS_OK && !was_there)
        rc = state_agent_add(h->state, str_of(a->id), str_of(a->org), clock_wall_us(), err);
    if (rc < 0)
        return rc;
    agent_set_known(a);
    if (!was_there)
        home_alarm(h, a, "agent_adopted",
                   "a repository was on the disk that the state did not know");
    return MEMFS_OK;
}

/* Under the agent's lock. */
static memfs_code catch_up(home *h, agent *a, memfs_error *err)
{
    materialise_result result;
    memfs_code rc;

    if (!may_try(a, err))
        return err->code;
    rc = agent_is_known(a) ? MEMFS_OK : adopt(h, a, err);
    if (rc == MEMFS_OK)
        rc = materialise_agent(h, a, &result, err);
    note_attempt(a, rc < 0 ? err : NULL);
    if (rc == MEMFS_OK || agent_is_fenced(a, err))
        return rc == MEMFS_OK ? rc : err->code;
    if (rc == MEMFS_EUNAVAIL)
        home_is_behind(h, a);
    if (agent_alarm_is_due(a))
        home_alarm(h, a, "cache_behind", "the blocks could not be brought to the tip: %s",
                   err->msg);
    return rc;
}

/* ---- the look at the disk ---- */

static bool is_rewritten(home *h, agent *a, const memfs_oid *old, const memfs_oid *new)
{
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_error ignored;
    bool descends = false;

    if (repo_open(h->store, a->repo, &r, &ignored) < 0 ||
        repo_is_ancestor(r, old, new, &descends, &ignored) < 0)
        return true; /* the old tip is no longer even there */
    return !descends;
}

static void tell_moved(home *h, agent *a, const memfs_oid *old, const memfs_oid *new)
{
    char from[MEMFS_OID_HEX + 1], to[MEMFS_OID_HEX + 1];

    oid_hex(old, from);
    oid_hex(new, to);
    if (is_rewritten(h, a, old, new))
        home_alarm(h, a, "history_rewritten",
                   "main went from %s to %s, which does not descend from it; no request did this",
                   from, to);
    else
        home_alarm(h, a, "ref_moved_by_hand", "main went from %s to %s without a push", from, to);
}

static memfs_code read_tip(home *h, agent *a, memfs_oid *ret, memfs_error *err)
{
    memfs_code rc = store_tip(h->store, a->repo, ret, err);

    if (rc == MEMFS_ENOTFOUND)
        return agent_missing(h, a, err);
    if (rc == MEMFS_ECORRUPT)
        agent_fence(h, a, err->msg);
    return rc;
}

memfs_code agent_look(home *h, agent *a, memfs_oid *ret_tip, memfs_error *err)
{
    memfs_oid known;
    memfs_code rc;

    rc = read_tip(h, a, ret_tip, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&a->mutex);
    known = a->tip;
    pthread_mutex_unlock(&a->mutex);
    set_phase(a, AGENT_READY, ret_tip);
    if (!oid_equal(&known, ret_tip)) {
        tell_moved(h, a, &known, ret_tip);
        home_moved(h, a);
    }
    return MEMFS_OK;
}

/*
 * What the cache says at the first touch.  Rows behind the tip are what a crash between ref and
 * cache leaves, and no news; rows of a commit that the tip does not descend from are (H1).  Either
 * way nobody has been told that main moved.
 */
static memfs_code compare_with_cache(home *h, agent *a, const memfs_oid *tip, bool *ret_has_moved,
                                     memfs_error *err)
{
    uint64_t epoch = atomic_load(&h->epoch);
    cache_tip cached;
    memfs_code rc;

    rc = cache_tip_get(h->cache, str_of(a->id), &cached, err);
    if (rc == MEMFS_OK && oid_equal(&cached.commit, tip)) {
        agent_synced(h, a, tip, epoch);
        return MEMFS_OK;
    }
    *ret_has_moved = rc == MEMFS_OK;
    if (rc == MEMFS_OK && is_rewritten(h, a, &cached.commit, tip))
        tell_moved(h, a, &cached.commit, tip);
    return catch_up(h, a, err);
}

static memfs_code sweep(home *h, agent *a, memfs_error *err)
{
    size_t n_removed = 0;
    memfs_code rc = store_sweep(h->store, a->repo, &n_removed, err);

    if (rc == MEMFS_OK && n_removed > 0)
        home_alarm(h, a, "leftovers_swept", "%zu stale locks and folders of a crash were removed",
                   n_removed);
    return rc;
}

bool agent_is_touched(agent *a)
{
    bool is_touched;

    pthread_mutex_lock(&a->mutex);
    is_touched = a->phase != AGENT_UNTOUCHED;
    pthread_mutex_unlock(&a->mutex);
    return is_touched;
}

bool agent_has_tip(agent *a, const memfs_oid *tip)
{
    bool has;

    pthread_mutex_lock(&a->mutex);
    has = oid_equal(&a->tip, tip);
    pthread_mutex_unlock(&a->mutex);
    return has;
}

/* Beside the repository, for pushes while the database is away. */
static void keep_what_was_purged(home *h, agent *a)
{
    _cleanup_(mem_freep) memfs_oid *ids = NULL;
    memfs_error ignored;
    size_t n;

    if (cache_is_remote(h->cache) && agent_banned(h, a, &ids, &n, &ignored) < 0)
        return; /* the next push does it, or says why not */
}

/*
 * The rows may fail without the repository failing: git goes on, and the next reader tries again.
 */
memfs_code agent_recover(home *h, agent *a, memfs_error *err)
{
    bool was_known = agent_is_known(a), has_moved = false;
    memfs_error rows_err;
    memfs_oid tip;
    memfs_code rc;

    if (agent_is_touched(a))
        return MEMFS_OK;
    if (!store_has(h->store, a->repo))
        return was_known ? agent_missing(h, a, err)
                         : memfs_fail(err, MEMFS_ENOTFOUND, "agent '%s' is not known", a->id);
    rc = sweep(h, a, err);
    if (rc == MEMFS_OK && !was_known) {
        rc = adopt(h, a, err);
        if (home_is_away(h, rc))
            rc = MEMFS_OK; /* git goes on; catching up comes to it again */
    }
    if (rc == MEMFS_OK)
        rc = check_old_fence(h, a, err);
    if (rc == MEMFS_OK)
        rc = read_tip(h, a, &tip, err);
    if (rc < 0)
        return rc;
    set_phase(a, AGENT_READY, &tip);
    if (home_is_shared(h)) { /* whoever asked compares (follow.h) */
        keep_what_was_purged(h, a);
        return MEMFS_OK;
    }
    if (compare_with_cache(h, a, &tip, &has_moved, &rows_err) < 0 && agent_is_fenced(a, err))
        return err->code;
    keep_what_was_purged(h, a);
    if (has_moved || !was_known)
        home_moved(h, a);
    return MEMFS_OK;
}

/* ---- the answer ---- */

typedef enum standing { STANDS, IS_BEHIND, WAS_MOVED } standing;

static standing judge(home *h, agent *a, const memfs_oid *on_disk, bool with_rows)
{
    standing s = STANDS;

    pthread_mutex_lock(&a->mutex);
    if (oid_equal(on_disk, &a->tip)) {
        if (with_rows && !a->is_moving && is_behind(h, a, on_disk))
            s = IS_BEHIND;
        a->checked_ms = clock_mono_ms();
    } else if (!a->is_moving || !oid_equal(on_disk, &a->moving_to)) {
        s = WAS_MOVED;
    }
    pthread_mutex_unlock(&a->mutex);
    return s;
}

/* The cache may have been removed or replaced by hand while we run. */
static void look_at_cache(home *h)
{
    int64_t now = clock_mono_ms();
    int_fast64_t seen = atomic_load(&h->cache_seen_ms);

    if (now - seen < PEEK_MS || !atomic_compare_exchange_strong(&h->cache_seen_ms, &seen, now))
        return;
    if (!cache_is_there(h->cache))
        home_cache_suspect(h);
}

static memfs_code settle(home *h, agent *a, bool with_rows, memfs_error *err)
{
    memfs_oid tip;
    memfs_code rc;

    agent_lock(a);
    rc = agent_is_fenced(a, err) ? err->code : agent_look(h, a, &tip, err);
    if (rc == MEMFS_OK && with_rows && judge(h, a, &tip, true) == IS_BEHIND)
        rc = catch_up(h, a, err);
    agent_unlock(a);
    return rc;
}

static memfs_code first_touch(home *h, agent *a, memfs_error *err)
{
    memfs_code rc;

    agent_lock(a);
    rc = agent_recover(h, a, err);
    agent_unlock(a);
    return rc;
}

memfs_code agent_ready(home *h, agent *a, bool with_rows, memfs_error *err)
{
    memfs_oid on_disk;
    memfs_code rc;

    if (home_is_shared(h))
        return agent_ready_shared(h, a, with_rows, err);
    if (!agent_is_touched(a)) {
        rc = first_touch(h, a, err);
        if (rc < 0)
            return rc;
    }
    if (agent_is_fenced(a, err))
        return err->code;
    if (with_rows)
        look_at_cache(h);
    for (int i = 0; i < 2; i++) { /* twice: a push may end between the two looks */
        rc = store_tip(h->store, a->repo, &on_disk, err);
        if (rc < 0)
            break;
        if (judge(h, a, &on_disk, with_rows) == STANDS)
            return MEMFS_OK;
    }
    return settle(h, a, with_rows, err);
}

/* Of a home that shares the rows are the database's, whatever lies in its folder. */
static bool had_rows(home *h, agent *a)
{
    bool is_good;

    pthread_mutex_lock(&a->mutex);
    is_good = a->phase != AGENT_FENCED && a->is_known && !a->is_deleted && a->rows_ms != 0 &&
              clock_mono_ms() - a->rows_ms < PEEK_MS;
    pthread_mutex_unlock(&a->mutex);
    return is_good && !home_waits_for(h, a);
}

bool agent_was_ready(home *h, agent *a)
{
    bool was_ready;

    if (home_is_shared(h))
        return had_rows(h, a);
    pthread_mutex_lock(&a->mutex);
    was_ready = a->phase == AGENT_READY && clock_mono_ms() - a->checked_ms < PEEK_MS &&
                a->is_known && !a->is_deleted && a->is_synced &&
                a->epoch == atomic_load(&h->epoch) &&
                (a->is_moving || oid_equal(&a->synced, &a->tip));
    pthread_mutex_unlock(&a->mutex);
    return was_ready;
}
