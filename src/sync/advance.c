/*
 * advance.c - see advance.h; the table of steps and what each leaves behind is in push.c.
 */
#include "sync/advance.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/process.h"
#include "sync/away.h"
#include "sync/deleted.h"
#include "sync/follow.h"
#include "sync/materialise_int.h"
#include "sync/tables.h"

#include <stdarg.h>
#include <stdio.h>

#define MAX_WARNINGS 20
#define TURN_MS 5000
#define VAIN_MS 30000
#define NO_TURN_PAUSE_MS 32

static void say(const advance *v, const char *fmt, ...) MEMFS_PRINTF(2, 3);

static void say(const advance *v, const char *fmt, ...)
{
    char line[1400]; /* a path has at most 1,024 bytes */
    va_list ap;

    if (v->talk == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    v->talk(str_of(line), v->talk_ctx);
}

/* ---- where main is ---- */

/* One that is stuck with its turn does not make each change of all others wait once more (L3). */
static int64_t patience_ms(const agent *a)
{
    return clock_mono_ms() < a->vain_until_ms ? 0 : TURN_MS;
}

/* Without a turn, as the database gives none, it is the same race again, but not at once. */
void advance_take_turn(advance *v)
{
    int64_t wait_ms = patience_ms(v->a), pause_ms = NO_TURN_PAUSE_MS;
    memfs_error ignored;
    memfs_code rc;

    if (!home_is_shared(v->h) || v->has_turn)
        return;
    rc = state_turn_take(v->h->state, str_of(v->a->id), clock_mono_ms() + wait_ms, &v->has_turn,
                         &ignored);
    if (v->has_turn)
        return;
    if (rc == MEMFS_OK && wait_ms > 0)
        v->a->vain_until_ms = clock_mono_ms() + VAIN_MS;
    pool_pause(&pause_ms);
}

void advance_end_turn(advance *v)
{
    if (v->has_turn)
        state_turn_end(v->h->state, str_of(v->a->id));
    v->has_turn = false;
}

/* Where all are, once nobody else has the turn, or has had it for too long. */
static memfs_code follow_in_turn(advance *v, follow_result *ret, memfs_error *err)
{
    int64_t wait_ms = patience_ms(v->a), until_ms = clock_mono_ms() + wait_ms, pause_ms = 1;
    process_waiting w;
    memfs_code rc;

    process_waiting_begin(&w);
    while ((rc = agent_follow(v->h, v->a, v->may_revive, ret, err)) == MEMFS_OK &&
           ret->has_head && ret->head.has_turn && !v->has_turn && clock_mono_ms() < until_ms &&
           !process_waiting_is_ended(&w))
        pool_pause(&pause_ms);
    process_waiting_end(&w);
    if (rc == MEMFS_OK && !ret->head.has_turn)
        v->a->vain_until_ms = 0;
    else if (rc == MEMFS_OK && !v->has_turn && wait_ms > 0)
        v->a->vain_until_ms = clock_mono_ms() + VAIN_MS;
    return rc;
}

/* While the database is away the shared tip is taken to be ours; if not, moving it will tell. */
static memfs_code follow(advance *v, memfs_error *err)
{
    follow_result now = { .is_away = false };
    memfs_code rc = follow_in_turn(v, &now, err);

    if (rc < 0)
        return rc;
    v->has_head = now.has_head;
    v->head = now.head.tip;
    v->is_empty = now.head.is_empty;
    v->is_followed = now.head.is_followed;
    if (!now.is_away || !store_has(v->h->store, v->a->repo))
        return MEMFS_OK;
    v->has_head = true;
    return store_tip(v->h->store, v->a->repo, &v->head, err);
}

/* Under the lock, so that a repository that another first push made meanwhile is seen. */
memfs_code advance_begin(advance *v, memfs_error *err)
{
    memfs_code rc;

    rc = deleted_check(v->h, str_of(v->a->id), err); /* while this one waited for the lock */
    if (rc < 0)
        return rc;
    if (agent_is_fenced(v->a, err))
        return err->code;
    if (home_is_shared(v->h) && follow(v, err) < 0)
        return err->code;
    v->exists = store_has(v->h->store, v->a->repo);
    if (!v->exists) {
        if (agent_is_known(v->a) && !v->may_revive)
            return agent_missing(v->h, v->a, err);
        v->tip = STORE_GENESIS;
        return MEMFS_OK;
    }
    rc = agent_recover(v->h, v->a, err);
    if (rc < 0)
        return rc;
    return agent_look(v->h, v->a, &v->tip, err);
}

/* Fenced, as after any fsync that failed: what the disk holds is unknown (F05). */
memfs_code advance_settle(advance *v, bool always, memfs_error *err)
{
    memfs_code rc;

    if (!v->exists || (v->a->is_settled && !always))
        return MEMFS_OK;
    rc = store_settle(v->h->store, v->a->repo, err);
    if (rc < 0)
        agent_fence(v->h, v->a, err->msg);
    v->a->is_settled = rc == MEMFS_OK;
    return rc;
}

memfs_code advance_judged(advance *v, memfs_code rc, const memfs_error *err)
{
    if (rc == MEMFS_ECORRUPT && v->exists)
        agent_suspect(v->h, v->a, err);
    return rc;
}

memfs_code advance_written(advance *v, const repo *r, memfs_code rc, const memfs_error *err)
{
    if (rc == MEMFS_OK || r == NULL || !repo_is_unsynced(r))
        return advance_judged(v, rc, err);
    agent_fence(v->h, v->a, err->msg);
    return rc;
}

/* ---- the rows, and what is wrong with them ---- */

static void warn_row(const advance *v, const block_row *row, row_fault fault)
{
    static const char *const AFTER[] = {
        [ROW_NO_FRONT_MATTER] = "the whole file became the block's value",
        [ROW_BAD_FIELD] = "the field took its default",
        [ROW_NOT_UTF8] = "the block shows U+FFFD in its place",
        [ROW_TOO_LARGE] = "the block is empty",
    };
    const char *before = fault == ROW_NO_FRONT_MATTER ? "front matter does not parse (" : "";
    const char *end = fault == ROW_NO_FRONT_MATTER ? ")" : "";

    say(v, "warning: %.*s: %s%.*s%s; %s", (int)row->path.len, row->path.ptr, before,
        (int)row->problem.len, row->problem.ptr, end, AFTER[fault]);
}

static memfs_code judge_rows(const advance *v, const plan *rows, memfs_error *err)
{
    bool is_strict = v->h->options.policy.strict_frontmatter;
    size_t n_faults = 0;
    row_fault fault;

    for (size_t i = 0; i < plan_n_rows(rows); i++) {
        const block_row *row = plan_row(rows, i, &fault);

        if (fault == ROW_WHOLE)
            continue;
        if (is_strict && (fault == ROW_NO_FRONT_MATTER || fault == ROW_BAD_FIELD))
            return memfs_fail(err, MEMFS_EDENIED, "'%.*s': front matter: %.*s", (int)row->path.len,
                              row->path.ptr, (int)row->problem.len, row->problem.ptr);
        if (++n_faults <= MAX_WARNINGS)
            warn_row(v, row, fault);
    }
    if (n_faults > MAX_WARNINGS)
        say(v, "warning: and %zu more files like these", n_faults - MAX_WARNINGS);
    return MEMFS_OK;
}

/* Do the versions go up to where the rows start from?  Who is in doubt says no: they come later. */
static bool is_followed(const advance *v, const memfs_oid *from)
{
    memfs_error ignored;
    cache_tip tip;

    if (from == NULL || home_is_shared(v->h))
        return from != NULL && v->is_followed;
    return cache_tip_get(v->h->cache, str_of(v->a->id), &tip, &ignored) == MEMFS_OK &&
           tip.is_followed && oid_equal(&tip.commit, from);
}

static memfs_code plan_rows(advance *v, const advance_step *s, plan **ret, memfs_error *err)
{
    memfs_code rc;

    const memfs_oid *from = v->exists ? &v->tip : NULL;

    if (home_is_shared(v->h))
        from = v->exists && v->has_head && !v->is_empty ? &v->head : NULL;
    rc = plan_make(v->h, v->a, s->objects, from, &s->to, ret, err);
    if (rc < 0)
        return advance_judged(v, rc, err);
    if (is_followed(v, from))
        plan_follow(v->h, v->a, s->objects, *ret);
    if (home_is_shared(v->h))
        plan_expect(*ret, v->has_head ? &v->head : NULL);
    return s->is_ours ? MEMFS_OK : judge_rows(v, *ret, err);
}

static void tell_behind(advance *v, const memfs_error *err)
{
    say(v, "the commit is safe; its blocks will follow (%s)", err->msg);
    home_alarm(v->h, v->a, "cache_behind", "main moved durably, its blocks are not there yet: %s",
               err->msg);
}

static void write_rows(advance *v, plan *rows)
{
    materialise_result result;
    memfs_error err;
    memfs_code rc = MEMFS_ECONFLICT;

    if (!v->exists || agent_is_synced_at(v->h, v->a, &v->tip))
        rc = plan_apply(v->h, v->a, rows, &result, &err);
    if (rc < 0 && !home_is_away(v->h, rc))
        rc = materialise_agent(v->h, v->a, &result, &err); /* it mends what it can */
    if (rc == MEMFS_OK)
        return;
    if (rc == MEMFS_EUNAVAIL)
        home_is_behind(v->h, v->a);
    tell_behind(v, &err);
}

/* The cache was emptied after the plan was made, and main is where it was: all rows go with it. */
static memfs_code claim_anew(advance *v, const advance_step *s, memfs_error *late)
{
    _cleanup_(repo_closep) repo *own = NULL;
    _cleanup_(plan_freep) plan *rows = NULL;
    materialise_result result;
    memfs_error why = *late;
    cache_head head;
    memfs_code rc = cache_head_get(v->h->cache, str_of(v->a->id), &head, late);

    if (rc == MEMFS_OK && (!head.is_empty || !v->has_head || !oid_equal(&head.tip, &v->head)))
        rc = MEMFS_ECONFLICT;
    if (rc == MEMFS_ECONFLICT || rc == MEMFS_ENOTFOUND) {
        *late = why;
        return MEMFS_ECONFLICT;
    }
    if (rc == MEMFS_OK)
        rc = repo_open(v->h->store, v->a->repo, &own, late);
    if (rc == MEMFS_OK)
        rc = plan_make(v->h, v->a, own, NULL, &s->to, &rows, late);
    if (rc < 0)
        return rc;
    plan_expect(rows, &v->head);
    return plan_apply(v->h, v->a, rows, &result, late);
}

/*
 * Shared tip and rows.  A lost race ends it; whatever else fails does not (F22): then *late is why,
 * and whether they were written may not even be known.
 */
static memfs_code claim(advance *v, const advance_step *s, plan *rows, memfs_error *late,
                        memfs_error *err)
{
    materialise_result result;
    memfs_code rc = plan_apply(v->h, v->a, rows, &result, late);

    if (rc == MEMFS_ECONFLICT)
        rc = claim_anew(v, s, late);
    if (rc == MEMFS_ECONFLICT) {
        *err = *late;
        return rc;
    }
    if (rc == MEMFS_OK)
        agent_set_known(v->a);
    return MEMFS_OK;
}

/* ---- into the repository ---- */

static memfs_code take_in(advance *v, const advance_step *s, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = agent_folder(v->h, v->a);
    memfs_error ignored;
    memfs_code rc = MEMFS_OK;

    if (!v->exists) {
        rc = store_create(v->h->store, v->a->repo, err);
        if (rc < 0)
            return rc;
    }
    if (s->accept != NULL)
        rc = s->accept(s->ctx, err);
    if (rc < 0 && !v->exists) {
        if (fs_remove_tree(folder, &ignored) < 0)
            home_alarm(v->h, v->a, "leftover",
                       "a repository that was just made could not be removed");
    } else if (rc == MEMFS_ECORRUPT) {
        /* an fsync failed: what the disk holds is unknown (F05) */
        agent_fence(v->h, v->a, err->msg);
    }
    if (rc < 0 || agent_is_known(v->a) || home_is_shared(v->h)) /* there with the rows */
        return rc;
    rc = state_agent_add(v->h->state, str_of(v->a->id), str_of(v->a->org), clock_wall_us(), err);
    if (rc == MEMFS_OK)
        agent_set_known(v->a);
    /* asked a moment ago it did not know this agent, so it may learn of it later (F22) */
    return home_is_away(v->h, rc) ? MEMFS_OK : rc;
}

/* ---- the ref ---- */

static memfs_code move_ref(advance *v, const advance_step *s, memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_code rc;

    rc = repo_open(v->h->store, v->a->repo, &r, err);
    if (rc < 0)
        return rc;
    agent_moving(v->a, &s->to);
    rc = oid_equal(&v->tip, &s->to) ? MEMFS_OK
                                    : repo_ref_move(r, &v->tip, &s->to, s->who, s->why, err);
    if (rc == MEMFS_OK) {
        agent_moved(v->a, &s->to);
        v->moved = true;
        return rc;
    }
    agent_not_moving(v->a);
    if (rc == MEMFS_ECORRUPT) {
        v->unclear = true;
        agent_fence(v->h, v->a, err->msg);
    }
    return rc;
}

/* ---- all of it ---- */

memfs_code advance_ref(advance *v, const advance_step *step, memfs_error *err)
{
    memfs_code rc = take_in(v, step, err);

    if (rc == MEMFS_OK)
        rc = move_ref(v, step, err);
    if (rc == MEMFS_OK) {
        v->a->is_settled = true;
        home_moved(v->h, v->a);
    }
    return rc;
}

/*
 * Once the shared tip is at `to`, main is: a ref that does not follow is no refusal any more.  Nor
 * is it when rows could not be written, as the tip may have moved without them, or in a COMMIT
 * whose answer was lost (D3).
 */
static memfs_code move_shared(advance *v, const advance_step *step, plan *rows, memfs_error *err)
{
    memfs_error late = MEMFS_ERROR_INIT;
    memfs_code rc = claim(v, step, rows, &late, err);

    if (rc < 0)
        return rc;
    rc = move_ref(v, step, err);
    if (rc < 0) {
        v->unclear = true;
        return rc;
    }
    if (late.code < 0) {
        home_is_behind(v->h, v->a);
        tell_behind(v, &late);
    }
    return MEMFS_OK;
}

memfs_code advance_accept_fetched(void *ctx, memfs_error *err)
{
    advance_fetched *x = ctx;

    return fetched_accept(x->f, &x->to, err);
}

memfs_code advance_to(advance *v, const advance_step *step, memfs_error *err)
{
    _cleanup_(plan_freep) plan *rows = NULL;
    memfs_code rc;

    rc = plan_rows(v, step, &rows, err);
    if (rc == MEMFS_OK)
        rc = take_in(v, step, err);
    if (rc == MEMFS_OK)
        rc = home_is_shared(v->h) ? move_shared(v, step, rows, err) : move_ref(v, step, err);
    if (rc < 0)
        return rc;
    v->a->is_settled = true;
    if (!home_is_shared(v->h))
        write_rows(v, rows);
    tables_follow(v);
    if (agent_wants_folding(v->h, v->a))
        home_wants_upkeep(v->h, v->a);
    home_moved(v->h, v->a);
    return MEMFS_OK;
}
