/*
 * tables.c - when memories and their rows in Letta are settled; see tables.h for how.
 *
 * Three occasions: main moved (what differs between two commits, in the time of the push), somebody
 * asks (sync-from-git), and a look at marks of all agents every few seconds, which finds what was
 * done through Letta's API, agents that Letta did not know before, and all that a crash or a
 * database that was away left undone.  There is no queue that could be lost.
 *
 * One settling goes in rounds: what is read is decided upon without a lock in Letta, and written on
 * the condition that it is still so.
 */
#include "sync/tables_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_ROUNDS 12
#define MARKS_A_PAGE 500
#define LOOK_EVERY_MS 2000
#define LOOK_SLICE_MS 1000 /* then upkeep, and a server that is to stop, have their turn */
#define LOOK_SHARE 20      /* a look may take this part of the time */
#define MAX_PAUSE_MS 30000
#define LOCK_MS 2000
#define MAX_BACKOFF 5 /* doublings of LOOK_EVERY_MS: a minute */
#define TOLD_EVERY_MS 60000

static memfs_code open_letta(home *h, memfs_error *err)
{
    letta_db *db = NULL;
    memfs_code rc;
    bool is_known;
    const char *revision;

    rc = letta_db_open(h->options.letta_database, &db, err);
    if (rc == MEMFS_OK)
        rc = letta_db_prepare(db, err);
    if (rc < 0) {
        letta_db_close(db);
        return rc;
    }
    revision = letta_db_revision(db, &is_known);
    if (!is_known)
        home_alarm(h, NULL, "letta_revision",
                   "this memfs was not tested with revision '%s' of Letta's database; all that it "
                   "uses there is as it has to be",
                   revision);
    atomic_store(&h->letta, db);
    return rc;
}

static void tell_away(home *h, const memfs_error *err)
{
    if (!h->letta_told)
        home_alarm(h, NULL, "letta_away",
                   "Letta's database could not be read, what is changed there waits: %s", err->msg);
    h->letta_told = true;
}

memfs_code tables_open(home *h, memfs_error *err)
{
    memfs_code rc;

    if (h->options.letta_database == NULL)
        return MEMFS_OK;
    rc = h->cluster == NULL
             ? open_letta(h, err)
             : memfs_fail(err, MEMFS_EINVALID,
                          "--letta-database needs a memfs that is alone: this home is one of "
                          "several servers (--cluster-url); take one of the two away");
    if (rc == MEMFS_OK)
        return rc;
    if (rc != MEMFS_EUNAVAIL && rc != MEMFS_ENOTFOUND && !h->options.letta_may_fail)
        return rc;
    /* away, or a server that makes its tables just now: as at any other time git goes on (F22) */
    tell_away(h, err);
    return MEMFS_OK;
}

/* ---- one settling ---- */

/* A commit on main, by the steps of any other. */
static memfs_code move_main(tables_work *w, const memfs_oid *to, const store_identity *who,
                            memfs_error *err)
{
    _cleanup_(mem_freep) char *git_dir = store_path(w->h->store, w->a->repo);
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", git_dir);
    advance v = { .h = w->h, .a = w->a, .is_from_letta = true };
    advance_step step = { .to = *to, .objects = w->r, .is_ours = true, .who = who, .why = "letta" };
    memfs_code rc = fs_sync_dir(objects, err); /* it may be the first in its folder (D1) */

    if (rc == MEMFS_OK)
        rc = advance_begin(&v, err);
    if (rc == MEMFS_OK)
        rc = advance_settle(&v, false, err);
    if (rc == MEMFS_OK && !oid_equal(&v.tip, &w->main))
        return memfs_fail(err, MEMFS_ECONFLICT, "main was moved by hand just now");
    return rc < 0 ? rc : advance_to(&v, &step, err);
}

/* *ret_again: main has moved, or what was taken in has to be looked at anew. */
static memfs_code take_in(tables_work *w, bool *ret_again, memfs_error *err)
{
    store_identity who = { "Letta", "letta@localhost", clock_wall_us() / 1000000 };
    size_t n_before = w->n_taken, n_taken = 0;
    memfs_oid to;
    memfs_code rc;

    *ret_again = false;
    if (w->n_edits == 0)
        return MEMFS_OK;
    rc = tables_take(w, &who, &to, &n_taken, err);
    if (rc == MEMFS_OK && !oid_equal(&to, &w->main))
        rc = move_main(w, &to, &who, err);
    if (rc < 0) /* the next round would write main over what it does not have */
        tables_untake(w, n_before);
    if (rc < 0 && repo_is_unsynced(w->r))
        agent_fence(w->h, w->a, err->msg);
    *ret_again = rc == MEMFS_OK && n_taken > 0;
    return rc;
}

static memfs_code write_rows(tables_work *w, memfs_error *err)
{
    const memfs_oid *from = w->seen.has_tip ? &w->seen.tip : NULL;

    memfs_code rc;

    if (w->n_changes == 0 && from != NULL && oid_equal(from, &w->main) && !w->seen.is_torn)
        return MEMFS_OK;
    rc = letta_write(w->h->letta, str_of(w->a->id), from, &w->main, w->changes, w->n_changes, err);
    if (rc == MEMFS_OK)
        w->moves += letta_mark_moves(w->changes, w->n_changes);
    return rc;
}

/* *ret_done, or another round is needed. */
static memfs_code settle_round(tables_work *w, const memfs_oid *guess, bool *ret_done,
                               memfs_error *err)
{
    bool again = false;
    memfs_code rc;

    *ret_done = false;
    rc = store_tip(w->h->store, w->a->repo, &w->main, err);
    if (rc == MEMFS_OK)
        rc = repo_open(w->h->store, w->a->repo, &w->r, err);
    if (rc == MEMFS_OK)
        rc = tables_read(w, guess, err);
    if (rc == MEMFS_OK)
        rc = tables_decide(w, err);
    if (rc == MEMFS_OK)
        rc = take_in(w, &again, err);
    if (rc == MEMFS_OK && !again) {
        rc = write_rows(w, err);
        *ret_done = rc == MEMFS_OK;
    }
    repo_closep(&w->r);
    w->r = NULL;
    return rc;
}

/*
 * mark: of the rows, from before they were read; NULL: not known, and what the last settling left
 * holds on.  What others wrote meanwhile is in no mark of ours, so the next look finds it.
 */
static void keep_mark(tables_work *w, bool is_done, const uint64_t *mark)
{
    agent *a = w->a;

    pthread_mutex_lock(&a->mutex);
    a->letta.tip = is_done ? w->main : (memfs_oid){ { 0 } };
    a->letta.has_mark = is_done && (mark != NULL || a->letta.has_mark);
    a->letta.mark = (mark != NULL ? *mark : a->letta.mark) + w->moves;
    pthread_mutex_unlock(&a->mutex);
}

/* guess: as tables_read; what it does not show is left to a look at everything. */
static memfs_code settle(home *h, agent *a, const memfs_oid *guess, bool was_purged,
                         const uint64_t *mark, memfs_error *err)
{
    tables_work w = { .h = h, .a = a, .was_purged = was_purged };
    bool is_done = false;
    memfs_code rc = MEMFS_OK;

    if (atomic_load(&h->letta) == NULL)
        rc = memfs_fail(err, MEMFS_EUNAVAIL, "Letta's database could not be opened");
    for (int i = 0; i < MAX_ROUNDS && !is_done && (rc == MEMFS_OK || rc == MEMFS_ECONFLICT); i++) {
        rc = settle_round(&w, guess, &is_done, err);
        if (rc == MEMFS_ECONFLICT)
            guess = NULL;
    }
    if (rc == MEMFS_OK && !is_done)
        rc = memfs_fail(err, MEMFS_EUNAVAIL, "its blocks are changed in Letta all the time");
    if (rc == MEMFS_EINTERNAL)
        atomic_store(&h->letta_is_doubted, true);
    keep_mark(&w, is_done, mark);
    if (is_done)
        tables_tell(&w);
    tables_work_dispose(&w);
    return rc;
}

/* ---- and what is told of it ---- */

/* When a look comes to it again, which for one that fails is ever later, up to a minute. */
static int64_t set_retry(agent *a, memfs_code rc, bool is_look)
{
    int64_t pause_ms = LOOK_EVERY_MS;

    if (rc == MEMFS_OK)
        a->letta.n_failed = 0;
    for (unsigned i = 0; i < a->letta.n_failed && i < MAX_BACKOFF; i++)
        pause_ms *= 2;
    if (rc < 0 && is_look)
        a->letta.n_failed++;
    pthread_mutex_lock(&a->mutex);
    a->letta.retry_ms = rc < 0 && is_look ? clock_mono_ms() + pause_ms : 0;
    pthread_mutex_unlock(&a->mutex);
    return pause_ms;
}

/* A failure is told once a minute at most, as long as it lasts (L5). */
static void judge(home *h, agent *a, memfs_code rc, bool is_look, const memfs_error *err)
{
    int64_t pause_ms = set_retry(a, rc, is_look), now_ms = clock_mono_ms();
    bool was_unknown = a->letta.is_unknown;

    a->letta.is_unknown = rc == MEMFS_ENOTFOUND;
    if (rc == MEMFS_ENOTFOUND && !was_unknown)
        home_alarm(h, a, "letta_agent_unknown",
                   "Letta has no such agent: its blocks are written there when it has");
    if (rc == MEMFS_OK || rc == MEMFS_ENOTFOUND ||
        (a->letta.told_ms != 0 && now_ms - a->letta.told_ms < TOLD_EVERY_MS))
        return;
    a->letta.told_ms = now_ms;
    home_alarm(h, a, "letta_behind",
               "the blocks in Letta could not be settled with main, which is tried again in %d s: "
               "%s",
               (int)(pause_ms / 1000), err->msg);
}

static bool is_zero(const memfs_oid *id)
{
    static const memfs_oid zero = { { 0 } };

    return oid_equal(id, &zero);
}

/* Of a shared repository nothing is a block, there or here. */
static bool has_tables(const home *h, const agent *a)
{
    return h->options.letta_database != NULL && !ids_is_shared(str_of(a->id));
}

void tables_follow(advance *v)
{
    memfs_oid guess = v->a->letta.tip;
    char line[700];
    memfs_error err;
    memfs_code rc;

    if (!has_tables(v->h, v->a) || v->is_from_letta)
        return;
    rc = settle(v->h, v->a, is_zero(&guess) ? NULL : &guess, false, NULL, &err);
    judge(v->h, v->a, rc, false, &err);
    if (rc == MEMFS_OK || v->talk == NULL)
        return;
    if (rc == MEMFS_ENOTFOUND)
        snprintf(line, sizeof(line),
                 "the Letta server does not know this agent; its blocks will be "
                 "written there when it does");
    else
        snprintf(line, sizeof(line), "the commit is safe; its blocks in Letta will follow");
    v->talk(str_of(line), v->talk_ctx);
}

memfs_code tables_settle(home *h, agent *a, const memfs_oid *purged, memfs_error *err)
{
    memfs_code rc;

    if (!has_tables(h, a))
        return MEMFS_OK;
    rc = settle(h, a, purged, purged != NULL, NULL, err);
    judge(h, a, rc, false, err);
    return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
}

void home_letta_settle(home *h, agent *a)
{
    memfs_error ignored; /* told by an alarm */

    if (tables_settle(h, a, NULL, &ignored) < 0)
        return;
}

/* ---- the look at all of them ---- */

typedef struct looking {
    home *h;
    size_t n;
    char *last; /* id */
    int64_t until_ms;
    bool has_settled, is_cut;
} looking;

/* Also when main was moved by hand: no push came by that would have told Letta. */
static bool is_due(agent *a, uint64_t mark)
{
    bool is_due;

    pthread_mutex_lock(&a->mutex);
    is_due = !a->is_deleted &&
             (!a->letta.has_mark || a->letta.mark != mark || !oid_equal(&a->letta.tip, &a->tip)) &&
             clock_mono_ms() >= a->letta.retry_ms;
    pthread_mutex_unlock(&a->mutex);
    return is_due;
}

static void settle_marked(home *h, agent *a, uint64_t mark)
{
    memfs_error err;
    memfs_code rc;

    if (agent_ready(h, a, true, &err) < 0 || !agent_lock_for(a, LOCK_MS))
        return; /* the next look comes to it again */
    rc = settle(h, a, NULL, false, &mark, &err);
    judge(h, a, rc, true, &err);
    agent_unlock(a);
}

static memfs_code look_at(memfs_str agent_id, uint64_t mark, void *ctx, memfs_error *err)
{
    looking *l = ctx;
    agent *a = home_find(l->h, agent_id);

    if (l->has_settled && clock_mono_ms() > l->until_ms) {
        l->is_cut = true;
        return memfs_fail(err, MEMFS_EUNAVAIL, "the rest is looked at in the next step");
    }
    l->n++;
    free(l->last);
    l->last = mem_strndup(agent_id.ptr, agent_id.len);
    if (a != NULL && is_due(a, mark)) {
        settle_marked(l->h, a, mark);
        l->has_settled = true;
    }
    return MEMFS_OK;
}

/* For a while; *ret_is_cut: the next step goes on where this one ended. */
static memfs_code look_at_all(home *h, bool *ret_is_cut, memfs_error *err)
{
    looking l = { .h = h, .until_ms = clock_mono_ms() + LOOK_SLICE_MS };
    memfs_code rc = MEMFS_OK;
    char *after;

    l.last = h->letta_after != NULL ? h->letta_after : mem_strdup("");
    h->letta_after = NULL;
    do {
        after = mem_strdup(l.last);
        l.n = 0;
        rc = letta_marks(h->letta, str_of(after), MARKS_A_PAGE, look_at, &l, err);
        free(after);
    } while (rc == MEMFS_OK && l.n == MARKS_A_PAGE);
    *ret_is_cut = l.is_cut;
    if (l.is_cut)
        h->letta_after = l.last;
    else
        free(l.last);
    return l.is_cut ? MEMFS_OK : rc;
}

/* Whoever dropped the schema memfs_letta, or played a dump back without it, need not stop us. */
static memfs_code make_sure(home *h, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    if (atomic_exchange(&h->letta_is_doubted, false))
        rc = letta_db_prepare(h->letta, err);
    if (rc < 0)
        atomic_store(&h->letta_is_doubted, true);
    return rc;
}

void home_letta_step(home *h)
{
    int64_t began_ms = clock_mono_ms(), pause_ms;
    bool is_cut = false;
    memfs_error err;
    memfs_code rc = MEMFS_OK;

    if (h->options.letta_database == NULL || began_ms < h->letta_due_ms)
        return;
    if (atomic_load(&h->letta) == NULL)
        rc = tables_open(h, &err);
    if (rc == MEMFS_OK && atomic_load(&h->letta) != NULL) {
        rc = make_sure(h, &err);
        if (rc == MEMFS_OK)
            rc = look_at_all(h, &is_cut, &err);
        h->letta_told = h->letta_told && rc < 0;
    }
    if (rc < 0)
        tell_away(h, &err);
    if (is_cut)
        return; /* others of this thread first */
    /* what was spent waiting for a database that does not answer was no work for anybody */
    pause_ms = rc < 0 ? 0 : (clock_mono_ms() - began_ms) * LOOK_SHARE;
    if (pause_ms > MAX_PAUSE_MS)
        pause_ms = MAX_PAUSE_MS;
    h->letta_due_ms = clock_mono_ms() + (pause_ms > LOOK_EVERY_MS ? pause_ms : LOOK_EVERY_MS);
}
