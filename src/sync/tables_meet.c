/*
 * tables_meet.c - an agent of Letta's that is asked for here for the first time.
 *
 * What its rows say comes in by the steps of a move (movein.h), so a first clone shows them as
 * files, as a Letta server makes a repository of them when its git mode is switched on.  From then
 * on the tables are followed as any other's.
 */
#include "sync/home_int.h"
#include "sync/movein.h"
#include "sync/tables.h"

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

    (void)err;
    if (t->m != NULL)
        movein_block(t->m, block);
    return MEMFS_OK;
}

static void pass_over(const char *kind, memfs_str what, const char *text, void *ctx)
{
    (void)kind, (void)what, (void)text, (void)ctx; /* told when the tables are settled */
}

bool home_letta_meet(home *h, memfs_str id)
{
    letta_db *db = atomic_load(&h->letta);
    meeting t = { .h = h };
    movein_result result;
    bool is_here = false;
    memfs_error err;
    memfs_code rc;

    if (db == NULL)
        return false;
    rc = letta_memory(db, id, on_agent, on_block, &t, &err);
    if (rc == MEMFS_OK && t.m != NULL) {
        rc = movein_finish(t.m, false, pass_over, NULL, &result, &err);
        is_here = rc == MEMFS_OK;
    }
    movein_free(t.m);
    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        home_alarm(h, NULL, "letta_behind", "%.*s could not be taken in from Letta's tables: %s",
                   (int)id.len, id.ptr, err.msg);
    return is_here;
}
