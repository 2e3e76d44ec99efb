#include "sync/past.h"

#include "base/clock.h"
#include "sync/home_list.h"
#include "sync/loose.h"

#include <stdio.h>

#define MAX_ROUNDS 5
#define LOCK_WAIT_MS 30000
#define AGENTS_AT_ONCE 64

/* ---- new commits ---- */

past_list *past_step(home *h, const agent *a, repo *r, const memfs_oid *from, const memfs_oid *to)
{
    const past_stretch stretch = { .from = from,
                                   .to = *to,
                                   .max_looked = PAST_STEP_LOOKED,
                                   .max_versions = PAST_STEP_VERSIONS,
                                   .max_text_bytes = PAST_STEP_TEXT_BYTES };
    past_list *list = NULL;
    memfs_error ignored;

    return past_list_make(h, a, r, &stretch, &list, &ignored) == MEMFS_OK ? list : NULL;
}

/* ---- an agent ---- */

/* Where the versions go on from; false: from the beginning, as there are none, or of a history that
 * a purge has replaced. */
static memfs_code find_start(home *h, const agent *a, repo *r, const memfs_oid *to, memfs_oid *ret,
                             bool *ret_has, memfs_error *err)
{
    memfs_error ignored;
    memfs_code rc = cache_past_tip(h->cache, str_of(a->id), ret, err);

    *ret_has = false;
    if (rc == MEMFS_ENOTFOUND)
        return MEMFS_OK;
    if (rc == MEMFS_OK && repo_is_ancestor(r, ret, to, ret_has, &ignored) < 0)
        *ret_has = false;
    return rc;
}

/*
 * Under the agent's lock no purge comes between the look and the writing; where servers share the
 * database, the tip that the writing names tells of one.
 */
static memfs_code write_versions(home *h, agent *a, repo *r, past_update *u, memfs_error *err)
{
    bool leads = false;
    cache_tip now;
    memfs_code rc;

    if (!agent_lock_for(a, LOCK_WAIT_MS))
        return memfs_fail(err, MEMFS_EUNAVAIL, "the memory of this agent is busy: try again");
    rc = cache_tip_get(h->cache, u->agent_id, &now, err);
    if (rc == MEMFS_OK)
        rc = repo_is_ancestor(r, &u->to, &now.commit, &leads, err);
    u->tip = now.commit;
    if (rc == MEMFS_OK && !leads)
        rc = memfs_fail(err, MEMFS_ECONFLICT, "the history of this agent was replaced");
    if (rc == MEMFS_OK)
        rc = cache_past_add(h->cache, u, err);
    agent_unlock(a);
    return rc;
}

static memfs_code follow_to(home *h, agent *a, const memfs_oid *to, memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    _cleanup_(past_list_freep) past_list *list = NULL;
    past_update u = { .agent_id = str_of(a->id), .to = *to };
    past_stretch stretch = { .to = *to };
    bool has_start = false;
    memfs_oid start;
    memfs_code rc;

    rc = repo_open(h->store, a->repo, &r, err);
    if (rc == MEMFS_OK)
        rc = find_start(h, a, r, to, &start, &has_start, err);
    if (rc < 0)
        return rc;
    u.from = stretch.from = has_start ? &start : NULL;
    rc = past_list_make(h, a, r, &stretch, &list, err);
    if (rc < 0)
        return rc;
    u.versions = *past_list_versions(list);
    return write_versions(h, a, r, &u, err);
}

/* Beside the rows, which may be there without it, the repository; with what other servers took. */
static memfs_code find_agent(home *h, memfs_str agent_id, agent **ret, memfs_error *err)
{
    memfs_code rc = home_agent(h, agent_id, ret, err);

    return rc == MEMFS_OK && home_is_shared(h) ? home_agent_repo(h, agent_id, ret, err) : rc;
}

memfs_code past_follow(home *h, memfs_str agent_id, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    cache_tip tip;
    agent *a;

    for (int i = 0; rc == MEMFS_OK && i < MAX_ROUNDS; i++) {
        rc = find_agent(h, agent_id, &a, err);
        if (rc == MEMFS_OK)
            rc = cache_tip_get(h->cache, agent_id, &tip, err);
        if (rc < 0 || tip.is_followed)
            return rc;
        rc = follow_to(h, a, &tip.commit, err);
        if (rc == MEMFS_ECONFLICT)
            rc = MEMFS_OK;
        if (rc == MEMFS_ECORRUPT && home_is_shared(h)) /* a commit that another server took now */
            rc = MEMFS_OK;
    }
    return rc < 0 ? rc
                  : memfs_fail(err, MEMFS_EUNAVAIL,
                               "the memory of agent '%.*s' changes faster than its past can be "
                               "listed: try again",
                               (int)agent_id.len, agent_id.ptr);
}

/* ---- all agents ---- */

/* A look at all of them, by id: each is tried once, so one that cannot be done keeps no other. */
typedef struct looking {
    id_list ids; /* of one page, which those that have no past are not in */
    char last[IDS_MAX_LEN + 1];
    size_t n_seen;
} looking;

/* Blocks that no file backs have no past. */
static memfs_code keep_id(memfs_str id, void *ctx, memfs_error *err)
{
    looking *l = ctx;

    (void)err;
    l->n_seen++;
    snprintf(l->last, sizeof(l->last), "%.*s", (int)id.len, id.ptr);
    if (!str_equal(id, LOOSE_AGENT))
        id_list_add(&l->ids, id);
    return MEMFS_OK;
}

/* The next page behind `after`, which follows what was tried.  *ret_n_left: past the deadline. */
static memfs_code follow_page(home *h, char after[IDS_MAX_LEN + 1], int64_t deadline_ms, looking *l,
                              size_t *ret_n_left, size_t *ret_n_failed, memfs_error *err)
{
    memfs_code rc = cache_past_behind(h->cache, str_of(after), AGENTS_AT_ONCE, keep_id, l, err);
    memfs_error trouble;
    size_t i = 0;

    for (; rc == MEMFS_OK && i < l->ids.n && clock_mono_ms() < deadline_ms; i++) {
        *ret_n_failed += past_follow(h, str_of(l->ids.ids[i]), &trouble) < 0;
        snprintf(after, IDS_MAX_LEN + 1, "%s", l->ids.ids[i]);
    }
    *ret_n_left = l->ids.n - i;
    if (rc == MEMFS_OK && *ret_n_left == 0 && l->n_seen > 0)
        snprintf(after, IDS_MAX_LEN + 1, "%s", l->last);
    return rc;
}

/* *ret_is_end: there are no more.  *ret_n_failed: which could not be brought up. */
static memfs_code follow_from(home *h, char after[IDS_MAX_LEN + 1], int64_t deadline_ms,
                              bool *ret_is_end, size_t *ret_n_failed, memfs_error *err)
{
    size_t n_left = 0, n_seen = AGENTS_AT_ONCE;
    memfs_code rc = MEMFS_OK;

    *ret_n_failed = 0;
    while (rc == MEMFS_OK && n_left == 0 && n_seen == AGENTS_AT_ONCE) {
        looking l = { .n_seen = 0 };

        rc = follow_page(h, after, deadline_ms, &l, &n_left, ret_n_failed, err);
        n_seen = l.n_seen;
        id_list_dispose(&l.ids);
    }
    *ret_is_end = n_left == 0;
    return rc;
}

memfs_code past_follow_all(home *h, int64_t deadline_ms, bool *ret_is_whole, memfs_error *err)
{
    char after[IDS_MAX_LEN + 1] = "";
    size_t n_failed;
    bool is_end;
    memfs_code rc = follow_from(h, after, deadline_ms, &is_end, &n_failed, err);

    *ret_is_whole = rc == MEMFS_OK && is_end && n_failed == 0;
    if (rc == MEMFS_OK && !is_end)
        atomic_store(&h->wants_past, true);
    return rc;
}

bool home_past_step(home *h)
{
    size_t n_failed;
    memfs_error err;
    bool is_end;

    if (!atomic_load(&h->wants_past))
        return false;
    if (follow_from(h, h->past_after, clock_mono_ms() + 1000, &is_end, &n_failed, &err) ==
            MEMFS_OK &&
        !is_end)
        return true;
    h->past_after[0] = '\0';
    atomic_store(&h->wants_past, false); /* until somebody asks again */
    return false;
}
