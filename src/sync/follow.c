#include "sync/follow.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "store/merge.h"
#include "store/rewrite.h"
#include "sync/advance.h"
#include "sync/away.h"
#include "sync/cluster.h"
#include "sync/materialise.h"
#include "sync/purge_shared.h"

#include <stdio.h>

#define BRING_MS 60000 /* from a remote */
#define LOCK_MS 10000  /* who has it may be at a long transfer */
#define UNREACHED_MS                                                                               \
    2000 /* at most: for what was out of reach nobody asks again as long as asking took */
#define MAX_ROUNDS 5 /* other servers move on while we follow */

typedef struct following {
    home *h;
    agent *a;
    bool exists, may_revive;
    memfs_oid tip; /* of main here; the genesis while there is no repository */
    cache_head head;
    bool has_head;
    fetched *f; /* what was fetched, or is merged in; NULL */
} following;

static void following_dispose(following *x)
{
    fetched_freep(&x->f);
}

static store_identity memfs_now(void)
{
    return (store_identity){ "memfs", "memfs@localhost", clock_wall_us() / 1000000 };
}

/* Main of all is here now; what was followed still is, or the next change of the rows finds out. */
static void set_head(following *x, const memfs_oid *tip)
{
    x->has_head = true;
    x->head.tip = *tip;
    x->head.holder = cluster_no(x->h->cluster);
    x->head.is_empty = false;
}

static advance advance_of(const following *x)
{
    return (advance){ .h = x->h,
                      .a = x->a,
                      .tip = x->tip,
                      .exists = x->exists,
                      .has_head = x->has_head,
                      .head = x->head.tip,
                      .is_empty = x->head.is_empty,
                      .is_followed = x->head.is_followed };
}

/* ---- rows ---- */

memfs_code follow_check_forward(home *h, agent *a, const memfs_oid *shared, const memfs_oid *tip,
                                memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    bool leads_here = oid_equal(shared, tip);
    memfs_error ignored;

    if (!leads_here && (repo_open(h->store, a->repo, &r, &ignored) < 0 || !repo_has(r, shared) ||
                        repo_is_ancestor(r, shared, tip, &leads_here, &ignored) < 0 || !leads_here))
        return memfs_fail(err, MEMFS_ECONFLICT, "another server has newer commits of agent '%s'",
                          a->id);
    return MEMFS_OK;
}

/* What failed may have been done, in a COMMIT whose answer was lost: then all is looked at anew. */
static bool has_head_moved(const following *x)
{
    memfs_error ignored;
    cache_head now;
    memfs_code rc = cache_head_get(x->h->cache, str_of(x->a->id), &now, &ignored);

    if (rc == MEMFS_ENOTFOUND)
        return x->has_head;
    return rc == MEMFS_OK && (!x->has_head || !oid_equal(&now.tip, &x->head.tip));
}

/*
 * What fails here but for a lost race stops nobody: git goes on, and home_catch_up_step() comes back
 * to it.
 */
static memfs_code bring_rows(following *x, bool is_overruling, memfs_error *err)
{
    materialise_result result;
    memfs_code rc = is_overruling ? materialise_overrule(x->h, x->a, &result, err)
                                  : materialise_agent(x->h, x->a, &result, err);

    if (rc == MEMFS_ECONFLICT || (rc < 0 && agent_is_fenced(x->a, err)))
        return err->code;
    if (rc < 0) {
        if (!home_is_away(x->h, rc) && agent_alarm_is_due(x->a))
            home_alarm(x->h, x->a, "cache_behind", "the rows cannot be written: %s", err->msg);
        home_is_behind(x->h, x->a);
        return has_head_moved(x) ? memfs_fail(err, MEMFS_ECONFLICT, "main moved") : MEMFS_OK;
    }
    set_head(x, &x->tip);
    return MEMFS_OK;
}

/* ---- the commit ---- */

static memfs_code begin_fetch(following *x, memfs_error *err)
{
    return x->f != NULL ? MEMFS_OK : fetched_begin(x->h->store, x->a->repo, &x->f, err);
}

static bool is_here(const following *x, const memfs_oid *commit)
{
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_error ignored;

    return x->exists && repo_open(x->h->store, x->a->repo, &r, &ignored) == MEMFS_OK &&
           repo_has(r, commit);
}

bool agent_is_behind_others(home *h, agent *a, int64_t *ret_holder)
{
    following x = { .h = h, .a = a, .exists = store_has(h->store, a->repo) };
    memfs_error ignored;

    if (cache_head_get(h->cache, str_of(a->id), &x.head, &ignored) < 0)
        return false;
    *ret_holder = x.head.holder;
    return !is_here(&x, &x.head.tip);
}

/* Those who waited meanwhile do not wait once more each (L3); what failed at once may be asked again. */
static void set_unreached(agent *a, const memfs_oid *tip, int64_t began_ms)
{
    int64_t now_ms = clock_mono_ms(), took_ms = now_ms - began_ms;

    pthread_mutex_lock(&a->mutex);
    a->unreached_until_ms = now_ms + (took_ms < UNREACHED_MS ? took_ms : UNREACHED_MS);
    a->unreached = *tip;
    pthread_mutex_unlock(&a->mutex);
}

static memfs_code check_unreached(agent *a, const memfs_oid *tip, memfs_error *err)
{
    bool is_recent;

    pthread_mutex_lock(&a->mutex);
    is_recent = clock_mono_ms() < a->unreached_until_ms && oid_equal(&a->unreached, tip);
    pthread_mutex_unlock(&a->mutex);
    if (is_recent)
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "the newest commit of agent '%s' is on a server that "
                          "did not answer a moment ago",
                          a->id);
    return MEMFS_OK;
}

static memfs_code fail_out_of_reach(following *x, int64_t began_ms, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(&x->head.tip, hex);
    set_unreached(x->a, &x->head.tip, began_ms);
    if (agent_alarm_is_due(x->a))
        home_alarm(x->h, x->a, "tip_out_of_reach",
                   "commit %.10s is on server %lld, and no server that answers has it: start that "
                   "one, or give it up if its disk is lost (DELETE FROM memfs.servers WHERE "
                   "server_no = %lld); nothing is made up in its place",
                   hex, (long long)x->head.holder, (long long)x->head.holder);
    return memfs_fail(err, MEMFS_EUNAVAIL,
                      "the newest commit of agent '%s' is on a server that does not answer",
                      x->a->id);
}

/* From a remote, what no server gave. */
static bool bring_head(following *x)
{
    const home_options *o = &x->h->options;
    bool is_there;

    if (x->f == NULL || o->bring == NULL)
        return false;
    pool_wait_begin();
    is_there = o->bring(x->a->id, x->f, &x->head.tip, clock_mono_ms() + BRING_MS, o->bring_ctx);
    pool_wait_end();
    return is_there;
}

/*
 * *ret_given_up: the database says that its holder does not come back.  One that joined a moment ago
 * is not in our list yet.
 */
static memfs_code fetch_head(following *x, bool *ret_given_up, memfs_error *err)
{
    cluster *c = x->h->cluster;
    memfs_oid got;
    memfs_code rc = MEMFS_OK;

    if (x->head.holder != 0 && !cluster_knows(c, x->head.holder)) {
        rc = cluster_refresh(c, x->h->state, err);
        *ret_given_up = rc == MEMFS_OK && !cluster_knows(c, x->head.holder);
    }
    if (rc == MEMFS_OK)
        rc = begin_fetch(x, err);
    if (rc == MEMFS_OK)
        rc = cluster_fetch(c, str_of(x->a->id), x->head.holder, x->f, &x->head.tip, &got, err);
    if (rc < 0 && bring_head(x))
        rc = MEMFS_OK;
    if (rc == MEMFS_OK && !fetched_is_commit(x->f, &x->head.tip))
        rc = memfs_fail(err, MEMFS_EUNAVAIL, "another server sent something else");
    return rc;
}

/* ---- the ref ---- */

/*
 * A secret that was purged does not come back (T28): what was fetched has it (a purge that was cut
 * short, or a server that never heard of it), or, in a join, what is here.
 */
static memfs_code check_purged(following *x, bool is_join, memfs_error *err)
{
    _cleanup_(mem_freep) memfs_oid *banned = NULL;
    _cleanup_(repo_closep) repo *own = NULL;
    size_t n = 0;
    memfs_code rc = x->exists ? agent_banned(x->h, x->a, &banned, &n, err)
                              : state_banned(x->h->state, str_of(x->a->id), &banned, &n, err);

    if (rc == MEMFS_OK && n > 0 && x->exists)
        rc = repo_open(x->h->store, x->a->repo, &own, err);
    for (size_t i = 0; rc == MEMFS_OK && i < n; i++) {
        bool is_own = own != NULL && repo_has(own, &banned[i]);

        if (is_own && is_join) {
            agent_fence(x->h, x->a,
                        "what was purged on another server is still here: stop this "
                        "server, keep commits that main lacks, and remove the "
                        "repository, it is fetched anew");
            return agent_is_fenced(x->a, err) ? err->code : MEMFS_OK;
        }
        if (!is_own && x->f != NULL && repo_has(fetched_repo(x->f), &banned[i]))
            rc = memfs_fail(err, MEMFS_EUNAVAIL,
                            "main of agent '%s' still has what a purge takes "
                            "out: run that purge again, to its end",
                            x->a->id);
    }
    return rc;
}

/* The shared tip descends from ours: it is taken in, nothing is told to anybody. */
static memfs_code move_up(following *x, const memfs_oid *to, memfs_error *err)
{
    advance_fetched in = { x->f, *to };
    store_identity who = memfs_now();
    advance_step step = { .to = *to, .is_ours = true, .who = &who, .why = "memfs: another server" };
    advance v = advance_of(x);
    memfs_code rc = x->f != NULL ? check_purged(x, false, err) : MEMFS_OK;

    if (rc == MEMFS_OK)
        rc = advance_settle(&v, false, err);
    if (x->f != NULL) {
        step.accept = advance_accept_fetched;
        step.ctx = &in;
    }
    if (rc == MEMFS_OK)
        rc = advance_ref(&v, &step, err);
    if (rc == MEMFS_OK) {
        x->exists = true;
        x->tip = *to;
    }
    return rc;
}

/* A purge of this server may have been cut short; a secret never comes (back) by a join. */
static memfs_code check_join(following *x, memfs_error *err)
{
    bool is_done = false;
    memfs_code rc = begin_fetch(x, err);

    if (rc == MEMFS_OK)
        rc = purge_resume(x->h, x->a, fetched_repo(x->f), &x->tip, &x->head.tip, &is_done, err);
    if (rc == MEMFS_OK && is_done)
        return memfs_fail(err, MEMFS_ECONFLICT, "main moved"); /* looked at anew */
    return rc < 0 ? rc : check_purged(x, true, err);
}

static memfs_code join(following *x, memfs_error *err)
{
    _cleanup_(merge_result_dispose) merge_result merged = MERGE_RESULT_INIT;
    advance_fetched in;
    store_identity who = memfs_now();
    advance_step step = { .is_ours = true,
                          .accept = advance_accept_fetched,
                          .ctx = &in,
                          .who = &who,
                          .why = "memfs: joined with another server" };
    advance v = advance_of(x);
    memfs_code rc = check_join(x, err);

    if (rc == MEMFS_OK)
        rc = advance_settle(&v, false, err);
    if (rc == MEMFS_OK)
        rc = merge_commits(fetched_repo(x->f), &x->tip, &x->head.tip, &merged, err);
    if (rc < 0)
        return advance_judged(&v, rc, err);
    step.to = merged.commit;
    step.objects = fetched_repo(x->f);
    in = (advance_fetched){ x->f, merged.commit };
    rc = advance_to(&v, &step, err);
    if (rc == MEMFS_OK) {
        x->tip = merged.commit;
        set_head(x, &merged.commit);
    }
    return rc;
}

static memfs_code relate(following *x, bool *ret_behind, bool *ret_ahead, memfs_error *err)
{
    _cleanup_(repo_closep) repo *own = NULL;
    repo *r = x->f != NULL ? fetched_repo(x->f) : NULL;
    memfs_code rc = MEMFS_OK;

    *ret_behind = !x->exists;
    *ret_ahead = false;
    if (!x->exists)
        return MEMFS_OK;
    if (r == NULL) {
        rc = repo_open(x->h->store, x->a->repo, &own, err);
        r = own;
    }
    if (rc == MEMFS_OK)
        rc = repo_is_ancestor(r, &x->tip, &x->head.tip, ret_behind, err);
    if (rc == MEMFS_OK && !*ret_behind)
        rc = repo_is_ancestor(r, &x->head.tip, &x->tip, ret_ahead, err);
    return rc;
}

static memfs_code reach_head(following *x, memfs_error *err)
{
    bool is_behind, is_ahead, is_given_up = false;
    int64_t began_ms = clock_mono_ms();
    memfs_code rc;

    if (!is_here(x, &x->head.tip)) {
        if (!x->may_revive && check_unreached(x->a, &x->head.tip, err) < 0)
            return err->code;
        rc = fetch_head(x, &is_given_up, err);
        if (rc == MEMFS_ENOTFOUND && x->exists && is_given_up)
            return bring_rows(x, true, err); /* all answered, and none has it */
        if (rc < 0)
            return x->may_revive && !x->exists ? MEMFS_OK : fail_out_of_reach(x, began_ms, err);
    }
    rc = relate(x, &is_behind, &is_ahead, err);
    if (rc < 0)
        return rc;
    if (is_behind) {
        rc = move_up(x, &x->head.tip, err);
        /* of a server whose rule is not the database's: its rows are for who has the rule (K1) */
        return rc == MEMFS_OK && x->head.is_empty ? bring_rows(x, false, err) : rc;
    }
    return is_ahead ? bring_rows(x, false, err) : join(x, err);
}

/* ---- no shared tip ---- */

/* Somebody may have it who shares the database since a moment ago, and was not asked for it yet. */
static memfs_code look_around(following *x, memfs_error *err)
{
    memfs_oid theirs;
    memfs_code rc = begin_fetch(x, err);

    if (rc == MEMFS_OK)
        rc = cluster_fetch(x->h->cluster, str_of(x->a->id), 0, x->f, NULL, &theirs, err);
    if (rc == MEMFS_OK)
        rc = move_up(x, &theirs, err);
    if (rc == MEMFS_OK)
        return bring_rows(x, false, err);
    return x->may_revive ? MEMFS_OK : agent_missing(x->h, x->a, err);
}

/* ---- all of it ---- */

static memfs_code follow_once(following *x, bool *ret_is_away, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    x->exists = store_has(x->h->store, x->a->repo);
    x->tip = STORE_GENESIS;
    if (x->exists)
        rc = agent_recover(x->h, x->a, err);
    if (rc == MEMFS_OK && x->exists)
        rc = agent_look(x->h, x->a, &x->tip, err);
    if (rc < 0)
        return rc;
    rc = cache_head_get(x->h->cache, str_of(x->a->id), &x->head, err);
    *ret_is_away = rc < 0 && rc != MEMFS_ENOTFOUND;
    x->has_head = rc == MEMFS_OK;
    if (*ret_is_away)
        return x->exists || !agent_is_known(x->a) ? MEMFS_OK : rc;
    if (!x->has_head && x->exists)
        return bring_rows(x, false, err);
    if (!x->has_head)
        return agent_is_known(x->a) ? look_around(x, err) : MEMFS_OK;
    if (x->exists && oid_equal(&x->tip, &x->head.tip))
        return x->head.is_empty ? bring_rows(x, false, err) : MEMFS_OK;
    return reach_head(x, err);
}

memfs_code agent_follow(home *h, agent *a, bool may_revive, follow_result *ret, memfs_error *err)
{
    bool is_away = false;
    memfs_code rc = MEMFS_ECONFLICT;

    *ret = (follow_result){ .is_away = false };
    for (int i = 0; rc == MEMFS_ECONFLICT && i < MAX_ROUNDS; i++) {
        _cleanup_(following_dispose) following x = { .h = h, .a = a, .may_revive = may_revive };

        rc = follow_once(&x, &is_away, err);
        *ret = (follow_result){ is_away, !is_away && x.has_head, x.head };
    }
    if (rc == MEMFS_ECONFLICT)
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "other servers move the memory of agent '%s' faster "
                          "than this one follows: try again",
                          a->id);
    if (rc == MEMFS_OK && ret->has_head)
        agent_set_known(a);
    return rc;
}

/* ---- a copy for another server ---- */

/*
 * It is main of the one that asks, which could not make it everybody's: the database is away, there
 * or here.  So it is taken in as a push would be, where it follows what is here.
 */
static memfs_code take_copy(following *x, const memfs_oid *commit, int64_t from, bool is_away,
                            memfs_error *err)
{
    bool is_behind = false, is_ahead = false;
    memfs_oid got;
    memfs_code rc = MEMFS_OK;

    x->head.tip = *commit;
    if (!is_here(x, commit)) {
        rc = begin_fetch(x, err);
        if (rc == MEMFS_OK)
            rc = cluster_fetch(x->h->cluster, str_of(x->a->id), from, x->f, commit, &got, err);
    }
    if (rc == MEMFS_OK)
        rc = relate(x, &is_behind, &is_ahead, err);
    if (rc == MEMFS_OK && (is_ahead || oid_equal(&x->tip, commit)))
        return MEMFS_OK;
    if (rc == MEMFS_OK && !is_behind)
        return memfs_fail(err, MEMFS_EUNAVAIL, "main of agent '%s' went another way here",
                          x->a->id);
    if (rc == MEMFS_OK)
        rc = move_up(x, commit, err);
    if (rc == MEMFS_OK && is_away)
        home_is_behind(x->h, x->a);
    else if (rc == MEMFS_OK)
        rc = bring_rows(x, false, err);
    return rc == MEMFS_ECONFLICT ? MEMFS_OK : rc; /* the copy is here; the next look joins */
}

/* Not for ever, and not in a worker's place: who has it may wait for another server (L3). */
static memfs_code lock_soon(agent *a, memfs_error *err)
{
    bool has_it;

    pool_wait_begin();
    has_it = agent_lock_for(a, LOCK_MS);
    pool_wait_end();
    return has_it ? MEMFS_OK
                  : memfs_fail(err, MEMFS_EUNAVAIL,
                               "the memory of agent '%s' is being fetched from "
                               "another server, or waits for its turn: try again",
                               a->id);
}

memfs_code agent_keep(home *h, agent *a, const memfs_oid *commit, int64_t from, memfs_error *err)
{
    _cleanup_(following_dispose) following x = { .h = h, .a = a, .tip = STORE_GENESIS };
    follow_result now = { .is_away = false };
    memfs_code rc = lock_soon(a, err);

    if (rc < 0)
        return rc;
    rc = agent_is_fenced(a, err) ? err->code : agent_follow(h, a, false, &now, err);
    x.exists = store_has(h->store, a->repo);
    if (rc == MEMFS_OK && x.exists)
        rc = store_tip(h->store, a->repo, &x.tip, err);
    if (rc == MEMFS_OK)
        rc = take_copy(&x, commit, from, now.is_away, err);
    agent_unlock(a);
    return rc;
}

/* ---- the answer ---- */

static void note_rows(agent *a, bool are_good)
{
    pthread_mutex_lock(&a->mutex);
    a->rows_ms = are_good ? clock_mono_ms() : 0;
    pthread_mutex_unlock(&a->mutex);
}

/* Neither the lock nor the network is needed: main here is the shared tip, or only rows are asked. */
static bool stands(home *h, agent *a, const cache_head *head, bool with_rows)
{
    memfs_error ignored;
    memfs_oid tip;

    if (with_rows)
        return !head->is_empty;
    return agent_is_touched(a) && store_tip(h->store, a->repo, &tip, &ignored) == MEMFS_OK &&
           oid_equal(&tip, &head->tip) && agent_has_tip(a, &tip);
}

/* It stands in the queue still, but its rows were just written, here or by another server. */
static bool has_caught_up(home *h, agent *a)
{
    memfs_error ignored;
    cache_head head;

    return cache_head_get(h->cache, str_of(a->id), &head, &ignored) == MEMFS_OK && !head.is_empty &&
           stands(h, a, &head, false);
}

static memfs_code follow_locked(home *h, agent *a, bool with_rows, memfs_error *err)
{
    follow_result now = { .is_away = false };
    memfs_code rc = lock_soon(a, err);

    if (rc < 0)
        return rc;
    rc = agent_is_fenced(a, err) ? err->code : agent_follow(h, a, false, &now, err);
    agent_unlock(a);
    if (rc == MEMFS_OK && with_rows && now.is_away)
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "the blocks of agent '%s' follow when the database is back", a->id);
    if (rc == MEMFS_OK && with_rows && home_waits_for(h, a) && !has_caught_up(h, a))
        return memfs_fail(err, MEMFS_EUNAVAIL, "the blocks of agent '%s' are not written yet",
                          a->id);
    return rc;
}

memfs_code agent_ready_shared(home *h, agent *a, bool with_rows, memfs_error *err)
{
    bool is_behind = home_waits_for(h, a);
    cache_head head;
    memfs_code rc;

    if (agent_is_fenced(a, err))
        return err->code;
    rc = is_behind ? memfs_fail(err, MEMFS_ENOTFOUND, "its rows are behind")
                   : cache_head_get(h->cache, str_of(a->id), &head, err);
    if (rc == MEMFS_OK)
        agent_set_known(a);
    if (rc < 0 || !stands(h, a, &head, with_rows))
        rc = rc == MEMFS_OK && check_unreached(a, &head.tip, err) < 0
                 ? err->code
                 : follow_locked(h, a, with_rows, err);
    if (with_rows)
        note_rows(a, rc == MEMFS_OK);
    return rc;
}

/* What must be fetched first is left to who follows: a server that hangs holds up no others' rows.
 */
bool agent_catch_up_shared(home *h, agent *a, bool *ret_is_away)
{
    follow_result now = { .is_away = false };
    int64_t holder;
    memfs_error err;
    memfs_code rc;

    *ret_is_away = false;
    if (agent_is_behind_others(h, a, &holder)) {
        home_is_late(h, a, holder);
        return false;
    }
    rc = lock_soon(a, &err);
    if (rc < 0)
        return false;
    rc = agent_is_fenced(a, &err) ? MEMFS_OK : agent_follow(h, a, false, &now, &err);
    agent_unlock(a);
    *ret_is_away = now.is_away;
    return rc == MEMFS_OK && !now.is_away && !home_waits_for(h, a);
}
