/*
 * tables_meet.c - an agent of Letta's that is asked for here for the first time.
 *
 * What its rows say comes in by the steps of a move (movein.h), so a first clone shows them as
 * files, as a Letta server makes a repository of them when its git mode is switched on.  From then
 * on the tables are followed as any other's.
 */
#include "base/clock.h"
#include "sync/deleted.h"
#include "sync/movein.h"
#include "sync/tables.h"

#define TOLD_EVERY_MS 60000

typedef struct meeting {
    home *h;
    movein *m; /* NULL: not to be taken in */
} meeting;

static memfs_code on_agent(const letta_agent *agent, void *ctx, memfs_error *err)
{
    meeting *t = ctx;

    (void)err;
    if (agent->has_git_memory)
        t->m = movein_new(t->h, agent);
    return MEMFS_OK;
}

static memfs_code on_block(const letta_block *block, void *ctx, memfs_error *err)
{
    meeting *t = ctx;

    if (t->m == NULL)
        return MEMFS_OK;
    if (block->is_foreign) /* nobody's to show (T03), but not gone either */
        return memfs_fail(err, MEMFS_EINVALID,
                          "block '%.*s' belongs to another organization of Letta than the agent: "
                          "give them the same, or detach it",
                          (int)block->label.len, block->label.ptr);
    movein_block(t->m, block);
    return MEMFS_OK;
}

static void pass_over(const char *kind, memfs_str what, const char *text, void *ctx)
{
    (void)kind, (void)what, (void)text, (void)ctx; /* told when the tables are settled */
}

/* What is missing here, or went meanwhile, says nothing of what Letta has (H4). */
static memfs_code not_none(memfs_code rc, memfs_error *err)
{
    return rc == MEMFS_ENOTFOUND ? err->code = MEMFS_EUNAVAIL : rc;
}

static memfs_code take_in(home *h, memfs_str id, memfs_error *err)
{
    letta_db *db = atomic_load(&h->letta);
    meeting t = { .h = h };
    movein_result result;
    memfs_code rc;

    if (db == NULL)
        return memfs_fail(err, MEMFS_EUNAVAIL, "Letta's database could not be opened");
    rc = letta_memory(db, id, on_agent, on_block, &t, err);
    if (rc == MEMFS_OK && t.m == NULL)
        rc = memfs_fail(err, MEMFS_ENOTFOUND, "Letta keeps no memory of this agent in git");
    else if (rc == MEMFS_OK)
        rc = not_none(movein_finish(t.m, false, pass_over, NULL, &result, err), err);
    movein_free(t.m);
    return rc;
}

/* Once a minute at most, whoever it is that is asked for (L5). */
static void tell(home *h, memfs_str id, const memfs_error *why)
{
    int64_t now_ms = clock_mono_ms(), told_ms = atomic_load(&h->letta_meet_told_ms);

    if ((told_ms == 0 || now_ms - told_ms >= TOLD_EVERY_MS) &&
        atomic_compare_exchange_strong(&h->letta_meet_told_ms, &told_ms, now_ms))
        home_alarm(h, NULL, "letta_behind", "%.*s could not be taken in from Letta's tables: %s",
                   (int)id.len, id.ptr, why->msg);
}

memfs_code home_letta_meet(home *h, memfs_str id, memfs_error *err)
{
    memfs_error why;
    memfs_code rc;

    if (h->options.letta_database == NULL)
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no Letta server to ask");
    rc = deleted_check(h, id, err);
    if (rc < 0)
        return rc;
    rc = take_in(h, id, &why);
    if (rc == MEMFS_ENOTFOUND)
        *err = why;
    if (rc == MEMFS_OK || rc == MEMFS_ENOTFOUND)
        return rc;
    tell(h, id, &why);
    return memfs_fail(err, MEMFS_EUNAVAIL,
                      "what Letta's tables have of this agent could not be taken in; the log of "
                      "memfs says why");
}
