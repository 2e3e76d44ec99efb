#include "sync/cluster.h"
#include "sync/deleted.h"
#include "sync/follow.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "store/rewrite.h"

#include <stdio.h>
#include <stdlib.h>

#define TOLD_EVERY_MS 60000

/* What home.h promises of a home that shares its database; how is in cluster.c and follow.c. */

bool home_is_shared(const home *h)
{
    return h->cluster != NULL;
}

bool home_is_named(const home *h, memfs_str name)
{
    return h->cluster != NULL && cluster_is_named(h->cluster, name);
}

bool home_knows_peer(home *h, const uint8_t *token_hash)
{
    return h->cluster != NULL && cluster_has_secret(h->cluster, token_hash);
}

/* Each takes the other one for itself, so neither gives the other anything. */
static void tell_twin(home *h, cluster_twin twin)
{
    int64_t now_ms = clock_mono_ms();

    if (twin == CLUSTER_ALONE || (h->twin_told_ms != 0 && now_ms - h->twin_told_ms < TOLD_EVERY_MS))
        return;
    h->twin_told_ms = now_ms;
    home_alarm(
        h, NULL, "server_twin", "%s",
        twin == CLUSTER_TWIN_NAME
            ? "another server goes by the name of this one, as its data folder was copied: stop "
              "that one, remove `server` and `secrets/server` there, and start it with a "
              "--cluster-url of its own"
            : "another server was given the --cluster-url of this one: give each its own");
}

void home_cluster_step(home *h)
{
    memfs_error ignored;

    if (home_is_shared(h) && cluster_refresh(h->cluster, h->state, &ignored) == MEMFS_OK)
        tell_twin(h, cluster_has_twin(h->cluster)); /* else its own log says that it is away */
}

bool home_wait_for_moves(home *h, int64_t timeout_ms)
{
    return state_moves_wait(h->state, cluster_no(h->cluster), timeout_ms);
}

bool home_has_lease(home *h)
{
    memfs_error ignored;
    bool has_it = false;

    return state_lease(h->state, &has_it, &ignored) == MEMFS_OK && has_it;
}

memfs_code home_agent_main(home *h, memfs_str id, const char *repo, memfs_oid *ret,
                           memfs_error *err)
{
    cache_head head;
    memfs_code rc;

    if (!home_is_shared(h))
        return store_tip(h->store, repo, ret, err);
    rc = cache_head_get(h->cache, id, &head, err);
    if (rc == MEMFS_OK)
        *ret = head.tip;
    return rc;
}

/*
 * It is in main here and on the disk: one that was renamed in a moment ago may not be, yet.  Objects
 * that no ref reaches are no copy: who would know of them when the other server is gone?  Not asked of
 * one that is fenced: after an fsync that failed, the next one may lie (F05).
 */
static memfs_code check_kept(home *h, agent *a, const memfs_oid *commit, memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    bool is_in_main = false;
    memfs_oid tip;
    memfs_code rc;

    if (!store_has(h->store, a->repo))
        return memfs_fail(err, MEMFS_EUNAVAIL, "the repository is not here");
    rc = repo_open(h->store, a->repo, &r, err);
    if (rc == MEMFS_OK)
        rc = store_tip(h->store, a->repo, &tip, err);
    if (rc == MEMFS_OK && repo_has(r, commit))
        rc = repo_is_ancestor(r, commit, &tip, &is_in_main, err);
    if (rc == MEMFS_OK && !is_in_main)
        rc = memfs_fail(err, MEMFS_EUNAVAIL, "the commit is not here");
    if (rc < 0)
        return rc;
    rc = store_settle(h->store, a->repo, err);
    if (rc < 0 && store_has(h->store, a->repo))
        agent_fence(h, a, err->msg);
    return rc;
}

/*
 * Looked for without the lock first: who holds it may be waiting for the one that asks.  Not before
 * it is recovered, as a fence of an earlier process is known only then.
 */
memfs_code home_agent_keeps(home *h, memfs_str id, const memfs_oid *commit, int64_t from,
                            memfs_error *err)
{
    bool is_known;
    agent *a;
    memfs_code rc = home_entry(h, id, false, &a, &is_known, err);

    if (rc < 0 || agent_is_fenced(a, err))
        return err->code;
    if (agent_is_touched(a) && check_kept(h, a, commit, err) == MEMFS_OK)
        return MEMFS_OK;
    if (agent_is_fenced(a, err))
        return err->code;
    rc = agent_ready(h, a, false, err);
    if (rc == MEMFS_OK && check_kept(h, a, commit, err) < 0 && !agent_is_fenced(a, err))
        rc = agent_keep(h, a, commit, from, err);
    if (rc < 0 || agent_is_fenced(a, err))
        return err->code;
    return check_kept(h, a, commit, err);
}

bool home_has_copies(home *h, agent *a, const memfs_oid *commit)
{
    int64_t deadline_ms = clock_mono_ms() + HOME_COPY_MS;
    int64_t servers_ms = deadline_ms - (h->options.copied != NULL ? HOME_COPY_MS / 2 : 0);
    size_t n_others = h->options.n_replicas > 0 ? h->options.n_replicas - 1 : 0;
    bool are_enough;

    if (n_others == 0)
        return true;
    pool_wait_begin();
    are_enough = home_is_shared(h) &&
                 cluster_copy(h->cluster, str_of(a->id), commit, n_others, servers_ms) == n_others;
    if (!are_enough && h->options.copied != NULL)
        are_enough = h->options.copied(a->id, deadline_ms, h->options.copied_ctx);
    pool_wait_end();
    if (!are_enough && agent_alarm_is_due(a))
        home_alarm(h, a, "too_few_copies",
                   "a push is not acknowledged, as fewer than %zu other servers "
                   "and no remote have it",
                   n_others);
    return are_enough;
}

/* ---- following ---- */

#define LATE_PAUSE_MS 5000
#define SLOW_MS 500  /* who lets us wait for so long, and then has nothing, is slow */
#define STEP_MS 1000 /* of fetching; then it is time to hear what else was moved */
#define N_SLOW 16    /* servers */

/* Those who were slow, and until when nothing is asked of them: others' commits come first (L3). */
typedef struct slow_server {
    int64_t no, until_ms;
} slow_server;

struct home_follower {
    slow_server slow[N_SLOW];
    size_t next; /* whose place is taken */
};

home_follower *home_follower_new(void)
{
    return mem_alloc(sizeof(home_follower));
}

void home_follower_free(home_follower *f)
{
    free(f);
}

static bool is_slow(const home_follower *f, int64_t holder, int64_t now_ms)
{
    for (size_t i = 0; i < N_SLOW; i++)
        if (f->slow[i].no == holder && now_ms < f->slow[i].until_ms)
            return true;
    return false;
}

/* For as long as it took: so half of the time is the others'. */
static void note_slow(home_follower *f, int64_t holder, int64_t took_ms)
{
    f->slow[f->next++ % N_SLOW] = (slow_server){ holder, clock_mono_ms() + took_ms };
}

/* ---- who is late ---- */

static void add_late(home *h, const late_agent *one)
{
    if (h->n_late == h->cap_late) {
        h->cap_late = h->cap_late == 0 ? 64 : h->cap_late * 2;
        h->late = mem_realloc(h->late, h->cap_late, sizeof(*h->late));
    }
    h->late[h->n_late++] = *one;
}

/* One that is late already stays where it is in the list: who follows knows what is newer. */
void home_is_late(home *h, agent *a, int64_t holder)
{
    late_agent one = { .a = a, .holder = holder, .is_late = true };

    pthread_mutex_lock(&h->upkeep_mutex);
    if (!a->is_late)
        add_late(h, &one);
    a->is_late = true;
    pthread_mutex_unlock(&h->upkeep_mutex);
}

/* All of them; they stay marked as late.  Caller frees. */
static late_agent *take_late(home *h, size_t *ret_n)
{
    late_agent *all;

    pthread_mutex_lock(&h->upkeep_mutex);
    all = TAKE_PTR(h->late);
    *ret_n = h->n_late;
    h->n_late = h->cap_late = 0;
    pthread_mutex_unlock(&h->upkeep_mutex);
    return all;
}

/* Who was not tried comes first the next time, so nobody waits behind those that fail each time. */
static void put_back(home *h, const late_agent *all, size_t n, int64_t now_ms)
{
    pthread_mutex_lock(&h->upkeep_mutex);
    for (int is_due = 1; is_due >= 0; is_due--)
        for (size_t i = 0; i < n; i++)
            if (all[i].is_late && (all[i].due_ms <= now_ms) == is_due)
                add_late(h, &all[i]);
    for (size_t i = 0; i < n; i++)
        all[i].a->is_late = all[i].is_late;
    pthread_mutex_unlock(&h->upkeep_mutex);
}

/* ---- one step ---- */

/* False: it is kept here, and could not be fetched; whoever asks for the agent is told why. */
static bool fetch_moved(home *h, agent *a)
{
    memfs_error ignored;

    if (!store_has(h->store, a->repo) && !cluster_keeps(h->cluster, str_of(a->id)))
        return true;
    return agent_ready(h, a, false, &ignored) != MEMFS_EUNAVAIL;
}

/* What was moved once more, perhaps by a server that answers, waits for nothing. */
static void note_newer(late_agent *one)
{
    if (one->move == one->a->told_move)
        return;
    one->move = one->a->told_move;
    one->holder = one->a->told_holder;
    one->due_ms = 0;
}

static void try_late(home *h, home_follower *f, late_agent *one)
{
    int64_t began_ms = clock_mono_ms(), ended_ms;

    one->is_late = !fetch_moved(h, one->a);
    ended_ms = clock_mono_ms();
    one->due_ms = ended_ms + LATE_PAUSE_MS;
    if (one->is_late && ended_ms - began_ms >= SLOW_MS)
        note_slow(f, one->holder, ended_ms - began_ms);
}

static void fetch_late(home *h, home_follower *f, bool (*should_stop)(void *ctx), void *ctx)
{
    int64_t now_ms = clock_mono_ms(), until_ms = now_ms + STEP_MS;
    size_t n;
    _cleanup_(mem_freep) late_agent *all = take_late(h, &n);

    for (size_t i = 0; i < n && now_ms < until_ms && !should_stop(ctx); i++) {
        note_newer(&all[i]);
        if (now_ms < all[i].due_ms || is_slow(f, all[i].holder, now_ms))
            continue;
        try_late(h, f, &all[i]);
        now_ms = clock_mono_ms();
    }
    put_back(h, all, n, now_ms);
}

struct hearing {
    home *h;
    void (*moved)(const char *agent_id, void *ctx);
    void *ctx;
};

/* It is told before anything is fetched, which may take long. */
static void hear_move(const cache_move *told, void *ctx)
{
    struct hearing *x = ctx;
    bool is_known;
    memfs_error ignored;
    agent *a;

    if (told->agent_id.len > IDS_MAX_LEN ||
        home_entry(x->h, told->agent_id, false, &a, &is_known, &ignored) < 0 ||
        a->told_move == told->generation)
        return;
    a->told_move = told->generation;
    a->told_holder = told->holder;
    home_is_late(x->h, a, told->holder);
    x->moved(a->id, x->ctx);
}

void home_follow_step(home *h, home_follower *f, bool (*should_stop)(void *ctx),
                      void (*moved)(const char *agent_id, void *ctx), void *ctx)
{
    struct hearing x = { h, moved, ctx };
    memfs_error ignored;

    deleted_step(h);
    if (cluster_moves(h->cluster, h->cache, hear_move, &x, &ignored) < 0)
        return; /* the database is away: the next time they are still in view */
    fetch_late(h, f, should_stop, ctx);
}
