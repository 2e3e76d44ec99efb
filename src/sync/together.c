#include "sync/cluster.h"
#include "sync/deleted.h"
#include "sync/follow.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "store/rewrite.h"

#include <stdio.h>
#include <stdlib.h>

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

void home_cluster_step(home *h)
{
    memfs_error ignored;

    if (home_is_shared(h) && cluster_refresh(h->cluster, h->state, &ignored) < 0)
        return; /* the database is away, which its own log says */
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
memfs_code home_agent_keeps(home *h, memfs_str id, const memfs_oid *commit, memfs_error *err)
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
        rc = agent_keep(h, a, commit, err);
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
    are_enough = home_is_shared(h) && cluster_copy(h->cluster, str_of(a->id), commit, n_others,
                                                   servers_ms) == n_others;
    if (!are_enough && h->options.copied != NULL)
        are_enough = h->options.copied(a->id, deadline_ms, h->options.copied_ctx);
    pool_wait_end();
    if (!are_enough && agent_alarm_is_due(a))
        home_alarm(h, a, "too_few_copies", "a push is not acknowledged, as fewer than %zu other servers "
                                           "and no remote have it", n_others);
    return are_enough;
}

#define LATE_PAUSE_MS 5000
#define N_LATE_TRIES 16 /* each may take a fetch's time, and what moves now comes first */

typedef struct move {
    char id[IDS_MAX_LEN + 1];
    int64_t generation;
} move;

typedef struct moves {
    move *at;
    size_t n, cap;
} moves;

struct home_follower {
    moves late; /* told, and not fetched yet */
    int64_t retry_ms;
};

home_follower *home_follower_new(void)
{
    return mem_alloc(sizeof(home_follower));
}

void home_follower_free(home_follower *f)
{
    if (f != NULL)
        free(f->late.at);
    free(f);
}

static void add_move(moves *m, const move *one)
{
    if (m->n == m->cap) {
        m->cap = m->cap == 0 ? 64 : m->cap * 2;
        m->at = mem_realloc(m->at, m->cap, sizeof(*m->at));
    }
    m->at[m->n++] = *one;
}

static void list_move(const cache_move *told, void *ctx)
{
    move one = { .generation = told->generation };

    if (told->agent_id.len > IDS_MAX_LEN)
        return;
    snprintf(one.id, sizeof(one.id), "%.*s", (int)told->agent_id.len, told->agent_id.ptr);
    add_move(ctx, &one);
}

static void add_late(moves *m, const move *one)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->at[i].id, one->id) == 0)
            return;
    add_move(m, one);
}

/* False: it is kept here, and could not be fetched; whoever asks for the agent is told why. */
static bool fetch_moved(home *h, agent *a)
{
    memfs_error ignored;

    if (!store_has(h->store, a->repo) && !cluster_keeps(h->cluster, str_of(a->id)))
        return true;
    return agent_ready(h, a, false, &ignored) != MEMFS_EUNAVAIL;
}

/* Those that fail go to the end. */
static void fetch_late(home *h, home_follower *f, bool (*should_stop)(void *ctx), void *ctx)
{
    size_t n = f->late.n < N_LATE_TRIES ? f->late.n : N_LATE_TRIES;
    bool is_known;
    memfs_error ignored;
    agent *a;

    if (clock_mono_ms() < f->retry_ms)
        return;
    for (size_t i = 0; i < n && !should_stop(ctx); i++) {
        move one = f->late.at[0];

        f->late.n--;
        memmove(f->late.at, f->late.at + 1, f->late.n * sizeof(*f->late.at));
        if (home_entry(h, str_of(one.id), false, &a, &is_known, &ignored) == MEMFS_OK &&
            !fetch_moved(h, a))
            add_move(&f->late, &one);
    }
    f->retry_ms = clock_mono_ms() + LATE_PAUSE_MS;
}

void home_follow_step(home *h, home_follower *f, bool (*should_stop)(void *ctx),
                      void (*moved)(const char *agent_id, void *ctx), void *ctx)
{
    moves m = { NULL, 0, 0 };
    bool is_known;
    memfs_error ignored;
    agent *a;

    deleted_step(h);
    if (cluster_moves(h->cluster, h->cache, list_move, &m, &ignored) < 0)
        m.n = 0; /* the next time they are still in view */
    for (size_t i = 0; i < m.n && !should_stop(ctx); i++) {
        if (home_entry(h, str_of(m.at[i].id), false, &a, &is_known, &ignored) < 0 ||
            a->told_move == m.at[i].generation)
            continue;
        a->told_move = m.at[i].generation;
        if (!fetch_moved(h, a))
            add_late(&f->late, &m.at[i]);
        moved(m.at[i].id, ctx);
    }
    free(m.at);
    fetch_late(h, f, should_stop, ctx);
}
