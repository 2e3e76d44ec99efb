/*
 * upkeep.c - rounds over the agents, and the two short ones: rebuild and repack.
 */
#include "sync/upkeep_int.h"

#include "base/mem.h"
#include "sync/follow.h"
#include "sync/loose.h"
#include "sync/materialise.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- rounds ---- */

static void tell(upkeep_round *r, const char *agent_id, const char *kind, const char *what,
                 const char *fmt, va_list ap)
{
    char text[600];

    if (r->w == NULL || r->w->finding == NULL)
        return;
    vsnprintf(text, sizeof(text), fmt, ap);
    r->w->finding(agent_id, kind, what, text, r->w->ctx);
}

void round_finding(upkeep_round *r, const char *agent_id, const char *kind, const char *what,
                   const char *fmt, ...)
{
    va_list ap;

    r->ret->n_findings++;
    va_start(ap, fmt);
    tell(r, agent_id, kind, what, fmt, ap);
    va_end(ap);
}

void round_note(upkeep_round *r, const char *agent_id, const char *kind, const char *what,
                const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    tell(r, agent_id, kind, what, fmt, ap);
    va_end(ap);
}

bool round_progress(upkeep_round *r, size_t done, size_t total, const char *agent_id)
{
    if (r->w != NULL && r->w->progress != NULL && !r->w->progress(done, total, agent_id, r->w->ctx))
        r->is_stopped = true;
    return !r->is_stopped;
}

/* A fence stops no verify, which is what ends it. */
static memfs_code follow(home *h, agent *a, memfs_error *err)
{
    follow_result now;

    return agent_is_fenced(a, err) ? MEMFS_OK : agent_follow(h, a, false, &now, err);
}

static memfs_code work_on(upkeep_round *r, memfs_str id, round_fn fn, memfs_error *err)
{
    bool is_known;
    memfs_code rc;
    agent *a;

    rc = home_entry(r->h, id, false, &a, &is_known, err);
    if (rc < 0)
        return rc;
    if (home_is_shared(r->h) && !store_has(r->h->store, a->repo))
        return MEMFS_OK; /* kept by other servers, and looked after there */
    agent_lock(a);
    rc = home_is_shared(r->h) ? follow(r->h, a, err) : MEMFS_OK;
    if (rc == MEMFS_OK)
        rc = fn(r, a, err);
    agent_unlock(a);
    return rc;
}

static memfs_code list_agents(upkeep_round *r, memfs_str agent_id, id_list *ids, memfs_error *err)
{
    bool is_known;
    memfs_code rc;
    agent *a;

    if (agent_id.len > 0) {
        rc = home_entry(r->h, agent_id, false, &a, &is_known, err);
        if (rc == MEMFS_OK)
            id_list_add(ids, agent_id);
        return rc;
    }
    return home_list(r->h, true, ids, err);
}

memfs_code round_agents(upkeep_round *r, memfs_str agent_id, round_fn fn, id_list *ids,
                        memfs_error *err)
{
    memfs_error trouble;
    memfs_code rc;

    rc = list_agents(r, agent_id, ids, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < ids->n; i++) {
        r->ret->n_agents++;
        if (work_on(r, str_of(ids->ids[i]), fn, &trouble) < 0) {
            r->ret->n_failed++;
            round_finding(r, ids->ids[i], "failed", "", "%s", trouble.msg);
        }
        if (!round_progress(r, i + 1, ids->n, ids->ids[i]))
            break;
    }
    return MEMFS_OK;
}

struct nobody {
    const id_list *ids;
    id_list *ret;
};

static memfs_code check_owner(const block_row *row, void *ctx, memfs_error *err)
{
    struct nobody *s = ctx;
    char id[IDS_MAX_LEN + 1];

    (void)err;
    snprintf(id, sizeof(id), "%.*s", (int)row->agent_id.len, row->agent_id.ptr);
    if (id_list_has(s->ids, id) || str_equal(row->agent_id, LOOSE_AGENT) ||
        (s->ret->n > 0 && strcmp(s->ret->ids[s->ret->n - 1], id) == 0))
        return MEMFS_OK;
    id_list_add(s->ret, str_of(id));
    return MEMFS_OK;
}

/* Rows come in the order of their own ids: an agent may be met in several stretches. */
static void drop_repeats(id_list *l)
{
    size_t n = 0;

    id_list_sort(l);
    for (size_t i = 0; i < l->n; i++)
        if (n == 0 || strcmp(l->ids[n - 1], l->ids[i]) != 0)
            memmove(l->ids[n++], l->ids[i], sizeof(*l->ids));
    l->n = n;
}

memfs_code round_nobody(upkeep_round *r, const id_list *ids, id_list *ret, memfs_error *err)
{
    block_query all = { .show_hidden = true, .order = BLOCK_ORDER_ID };
    struct nobody s = { ids, ret };
    memfs_code rc = cache_blocks(r->h->cache, &all, check_owner, &s, err);

    drop_repeats(ret);
    return rc;
}

/* ---- rebuild ---- */

static memfs_code rebuild_agent(upkeep_round *r, agent *a, memfs_error *err)
{
    materialise_result result;
    memfs_oid tip;
    memfs_code rc;

    rc = agent_recover(r->h, a, err);
    if (rc < 0)
        return rc;
    if (agent_is_fenced(a, err))
        return err->code;
    rc = agent_look(r->h, a, &tip, err);
    if (rc == MEMFS_OK)
        rc = materialise_rebuild(r->h, a, &result, err);
    if (rc == MEMFS_OK)
        round_note(r, a->id, "rebuilt", "", "%zu blocks, %zu of them with a problem",
                   result.n_changed, result.n_problems);
    return rc;
}

static memfs_code forget_nobody(upkeep_round *r, const id_list *ids, memfs_error *err)
{
    _cleanup_(id_list_dispose) id_list nobody = { NULL, 0, 0 };
    memfs_code rc;

    rc = cache_forget(r->h->cache, LOOSE_AGENT, err);
    if (rc == MEMFS_OK) {
        loose_follow(r->h);
        rc = round_nobody(r, ids, &nobody, err);
    }
    for (size_t i = 0; i < nobody.n && rc == MEMFS_OK; i++) {
        rc = home_is_deleted(r->h, str_of(nobody.ids[i]))
                 ? cache_empty(r->h->cache, str_of(nobody.ids[i]), err)
                 : cache_forget(r->h->cache, str_of(nobody.ids[i]), err);
        round_note(r, nobody.ids[i], "forgotten", "", "an agent that is not known had blocks");
    }
    return rc;
}

static memfs_code rebuild_all(upkeep_round *r, memfs_error *err)
{
    _cleanup_(id_list_dispose) id_list ids = { NULL, 0, 0 };
    memfs_code rc;

    *r->ret = (upkeep_result){ 0 };
    rc = round_agents(r, MEMFS_STR(""), rebuild_agent, &ids, err);
    return rc < 0 || r->is_stopped ? rc : forget_nobody(r, &ids, err);
}

/*
 * A cache that breaks in the middle is begun anew, and the rows made until then are gone: once
 * more.
 */
static memfs_code rebuild_until_whole(upkeep_round *r, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    uint64_t epoch;

    if (cache_check(r->h->cache, err) == MEMFS_ECORRUPT)
        home_cache_suspect(r->h);
    for (int i = 0; i < 2; i++) {
        epoch = atomic_load(&r->h->epoch);
        rc = rebuild_all(r, err);
        if (rc == MEMFS_ECORRUPT)
            home_cache_suspect(r->h);
        if (r->is_stopped || epoch == atomic_load(&r->h->epoch))
            break;
    }
    return rc;
}

memfs_code upkeep_rebuild(home *h, memfs_str agent_id, const upkeep_watcher *w, upkeep_result *ret,
                          memfs_error *err)
{
    upkeep_round r = { .h = h, .w = w, .ret = ret };
    _cleanup_(id_list_dispose) id_list ids = { NULL, 0, 0 };

    *ret = (upkeep_result){ 0 };
    if (agent_id.len == 0)
        return rebuild_until_whole(&r, err);
    return round_agents(&r, agent_id, rebuild_agent, &ids, err);
}

/* ---- repack ---- */

/* A git that was killed leaves what it had written so far without a name (F02). */
static void sweep_half_a_pack(home *h, agent *a)
{
    memfs_error err;
    size_t n;

    if (store_sweep(h->store, a->repo, &n, &err) < 0)
        home_alarm(h, a, "sweep_failed", "%s", err.msg);
}

bool agent_wants_folding(home *h, const agent *a)
{
    return store_pack_count(h->store, a->repo) > STORE_REPACK_AT ||
           store_loose_estimate(h->store, a->repo) > a->n_loose_kept + STORE_LOOSE_AT;
}

/* Under the agent's lock: a push and its readers never see packs go while refs move (F13). */
static memfs_code fold_packs(home *h, agent *a, size_t *ret_before, memfs_error *err)
{
    memfs_code rc;

    *ret_before = 0;
    rc = agent_recover(h, a, err);
    if (rc < 0)
        return rc;
    if (agent_is_fenced(a, err))
        return err->code;
    *ret_before = store_pack_count(h->store, a->repo);
    if (!agent_wants_folding(h, a))
        return MEMFS_OK;
    rc = store_repack(h->store, a->repo, err);
    a->n_loose_kept = store_loose_estimate(h->store, a->repo); /* that no ref reaches */
    if (rc < 0) {
        sweep_half_a_pack(h, a);
        agent_suspect(h, a, err);
    }
    return rc;
}

static memfs_code repack_agent(upkeep_round *r, agent *a, memfs_error *err)
{
    size_t before;
    memfs_code rc;

    rc = fold_packs(r->h, a, &before, err);
    if (rc == MEMFS_OK && before > STORE_REPACK_AT)
        round_note(r, a->id, "repacked", "", "%zu packs became %zu", before,
                   store_pack_count(r->h->store, a->repo));
    return rc;
}

memfs_code upkeep_repack(home *h, memfs_str agent_id, const upkeep_watcher *w, upkeep_result *ret,
                         memfs_error *err)
{
    upkeep_round r = { .h = h, .w = w, .ret = ret };
    _cleanup_(id_list_dispose) id_list ids = { NULL, 0, 0 };

    *ret = (upkeep_result){ 0 };
    return round_agents(&r, agent_id, repack_agent, &ids, err);
}

bool home_upkeep_step(home *h)
{
    agent *a = home_next_upkeep(h);
    memfs_error err;
    size_t before;

    if (a == NULL)
        return false;
    agent_lock(a);
    if (fold_packs(h, a, &before, &err) < 0)
        home_alarm(h, a, "repack_failed", "%s", err.msg);
    agent_unlock(a);
    return true;
}
