#include "client/converge_int.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "client/hub.h"
#include "store/history.h"
#include "store/vet.h"

#include <stdio.h>
#include <string.h>

/*
 * The exchange with one other side.  Asking costs one request; a fetch or a push is a child of
 * git's, and only started when the answer says that there is something to carry.
 *
 *   ask            what is there, and which main           (or: remembered, apply only)
 *   fetch          only if its main is not here already; into refs/memfs/incoming/origin
 *   vet            only if main does not contain it
 *   merge, settle  converge.c
 *   push           only if its main is not ours now
 *   lost the race  fetch, merge, push again, up to 5 times, after a short wait by chance
 *
 * Whatever request found out what the remote is like, it is one answer of the same table (probe.h),
 * and the last one is remembered.  That a remote fails is a result, not an error: only what is
 * wrong on this side comes back as an error.
 */

#define MAX_RACES 5
#define RACE_WAIT_MS 200
#define INCOMING_ORIGIN REF_INCOMING "origin"
#define INCOMING_HUB REF_INCOMING "hub"
#define HUB_MS 20000
#define MAX_PROBE_MS 20000 /* a sync is patient with a clone, not with silence */

static const memfs_oid NONE;

/* what was heard */

static void remember(convergence *v, const probe_result *heard)
{
    _cleanup_(mem_freep) char *path = look_remote_path(v->c);
    remembered before, now;
    memfs_error ignored;
    bool is_known = remembered_read(path, &v->choice->target, &before);

    remembered_next(is_known ? &before : NULL, &v->choice->target, heard,
                    clock_wall_us() / 1000000, &now);
    look_remembered(&now, v->ret);
    if (remembered_write(path, &now, &ignored) < 0)
        return; /* then the next start asks again */
}

/* What a child met, in the words of the table. */
static void remember_child(convergence *v, const transport_report *said, probe_result *heard)
{
    heard->answer = probe_classify_git(&v->choice->target, said);
    heard->http_status = 0;
    heard->retry_after_s = 0;
    snprintf(heard->detail, sizeof(heard->detail), "%.199s", said->said);
    remember(v, heard);
}

static bool is_good(remote_answer a)
{
    return a == REMOTE_REFS || a == REMOTE_EMPTY;
}

/* An answer that has not expired and leaves nothing to do, or nothing that could be done. */
static bool believes(convergence *v)
{
    _cleanup_(mem_freep) char *path = look_remote_path(v->c);
    remembered known;

    if (!v->o->believe_memory || !remembered_read(path, &v->choice->target, &known) ||
        !remembered_holds(&known, clock_wall_us() / 1000000))
        return false;
    if (is_good(known.answer) && !(known.has_main && oid_equal(&known.main, &v->ours)))
        return false;
    look_remembered(&known, v->ret);
    return true;
}

bool converge_may_rest(convergence *v)
{
    memfs_oid id;
    memfs_error ignored;

    if ((v->hub == NULL && hub_is_there(v->s, v->p->agent_id)) ||
        checkout_ref(v->c, STORE_MAIN, &v->ours, &ignored) < 0 ||
        checkout_ref(v->c, REF_SYNCED, &id, &ignored) != MEMFS_ENOTFOUND)
        return false;
    return v->o->only_local || !v->choice->has_remote || believes(v);
}

/* refs */

static memfs_code set_ref(convergence *v, const char *name, const memfs_oid *to, const char *why,
                          memfs_error *err)
{
    memfs_oid now = NONE;
    memfs_code rc = checkout_ref(v->c, name, &now, err);

    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    if (oid_equal(&now, to))
        return MEMFS_OK;
    rc = turn_begin(&v->turn, NULL, err);
    if (rc == MEMFS_OK)
        rc = checkout_ref_move(v->c, name, &now, to, why, err);
    /* a fetch of the client's own at the same moment knows as much as we do */
    return rc == MEMFS_ECONFLICT || rc == MEMFS_EUNAVAIL ? MEMFS_OK : rc;
}

/* The remote has this: what ours is, or something that ours contains. */
static memfs_code note_remote_main(convergence *v, const memfs_oid *id, memfs_error *err)
{
    v->ret->has_remote_main = true;
    v->ret->remote_main = *id;
    return set_ref(v, REF_TRACKING, id, "memfs: sync", err);
}

/*
 * With all that belongs to it: a ref names it.  The commit alone may be what a fetch left that was
 * killed, or refused, before the rest had come.
 */
static bool is_here(convergence *v, const memfs_oid *id)
{
    static const char *const names[] = { INCOMING_ORIGIN, INCOMING_HUB, REF_TRACKING };
    memfs_error ignored;
    memfs_oid now;

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (checkout_ref(v->c, names[i], &now, &ignored) == MEMFS_OK && oid_equal(&now, id))
            return true;
    return false;
}

/* Judged against what is here: main, what is merged already, what the remote had before. */
static memfs_code judge(convergence *v, const memfs_oid *theirs, const char *from, memfs_error *err)
{
    const policy rules = POLICY_INIT;
    memfs_oid known[] = { v->ours, v->main };
    char hex[MEMFS_OID_HEX + 1];
    memfs_code rc =
        vet_tip(checkout_repo(v->c), theirs, known, ARRAY_LEN(known), &rules, err);

    if (rc != MEMFS_EDENIED)
        return rc;
    oid_hex(theirs, hex);
    return memfs_context(err, "commit %.10s of the remote is not checked out (kept as %s)", hex,
                         from);
}

/* fetch and merge */

static memfs_code fetch(convergence *v, probe_result *heard, bool *ret_done, memfs_error *err)
{
    transport_report said = { .said = "" };
    transport_target target;
    memfs_code rc = turn_begin(&v->turn, NULL, err);

    *ret_done = false;
    if (rc < 0)
        return rc;
    remote_transport_target(&v->choice->target, &target);
    rc = transport_fetch(checkout_common_dir(v->c), &target, INCOMING_ORIGIN, v->deadline_ms, &said,
                         err);
    if (rc == MEMFS_EUNAVAIL) {
        remember_child(v, &said, heard);
        return MEMFS_OK;
    }
    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    *ret_done = true;
    heard->has_main = rc == MEMFS_OK;
    heard->answer = heard->has_main ? REMOTE_REFS : REMOTE_EMPTY;
    return heard->has_main ? checkout_ref(v->c, INCOMING_ORIGIN, &heard->main, err) : MEMFS_OK;
}

/* What the remote has becomes part of ours.  *ret_done false: it could not be fetched. */
static memfs_code take_in(convergence *v, probe_result *heard, bool *ret_done, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    *ret_done = true;
    if (!heard->has_main || converge_has(v, &heard->main, &v->ours))
        return MEMFS_OK;
    if (!is_here(v, &heard->main))
        rc = fetch(v, heard, ret_done, err);
    if (rc < 0 || !*ret_done || !heard->has_main)
        return rc;
    rc = judge(v, &heard->main, INCOMING_ORIGIN, err);
    if (rc == MEMFS_OK)
        rc = note_remote_main(v, &heard->main, err);
    return rc == MEMFS_OK ? converge_take(v, &heard->main, err) : rc;
}

/* push */

static void wait_by_chance(convergence *v, int n_races)
{
    int64_t left_ms = v->deadline_ms - clock_mono_ms();
    uint8_t chance;
    int64_t ms;

    hash_random(&chance, 1);
    ms = (int64_t)(RACE_WAIT_MS << n_races) * chance / 255;
    clock_sleep_ms(ms < left_ms ? ms : left_ms > 0 ? left_ms : 0);
}

typedef enum outcome { PUSH_DONE, PUSH_RACE, PUSH_OVER } outcome;

static memfs_code push(convergence *v, probe_result *heard, outcome *ret, memfs_error *err)
{
    transport_report said = { .said = "" };
    transport_target target;
    memfs_code rc;

    *ret = PUSH_OVER;
    remote_transport_target(&v->choice->target, &target);
    rc = transport_push(checkout_common_dir(v->c), &target, &v->ours, v->deadline_ms, &said, err);
    if (rc == MEMFS_OK) {
        *ret = PUSH_DONE;
        v->ret->was_pushed = true;
        *heard = (probe_result){ .answer = REMOTE_REFS, .has_main = true, .main = v->ours };
        remember(v, heard);
        return note_remote_main(v, &v->ours, err);
    }
    if (rc == MEMFS_ECONFLICT && said.was_moved) {
        *ret = PUSH_RACE;
        return MEMFS_OK;
    }
    if (rc != MEMFS_ECONFLICT && rc != MEMFS_EUNAVAIL)
        return rc;
    remember_child(v, &said, heard);
    return MEMFS_OK;
}

/* The remote moved while we were at it: where is it now? */
static memfs_code look_again(convergence *v, int n_races, probe_result *heard, bool *ret_done,
                             memfs_error *err)
{
    wait_by_chance(v, n_races);
    return fetch(v, heard, ret_done, err);
}

static memfs_code exchange(convergence *v, probe_result *heard, memfs_error *err)
{
    outcome how = PUSH_RACE;
    bool is_done;
    memfs_code rc = MEMFS_OK;

    for (int n_races = 0; rc == MEMFS_OK && how == PUSH_RACE; n_races++) {
        rc = take_in(v, heard, &is_done, err);
        if (rc == MEMFS_OK)
            rc = converge_settle(v, err);
        if (rc < 0 || !is_done)
            return rc;
        if ((heard->has_main && oid_equal(&heard->main, &v->ours)) || oid_is_zero(&v->ours)) {
            remember(v, heard);
            return heard->has_main ? note_remote_main(v, &heard->main, err) : MEMFS_OK;
        }
        if (heard->has_main)
            rc = note_remote_main(v, &heard->main, err); /* behind us: also after it lost commits */
        if (rc == MEMFS_OK)
            rc = push(v, heard, &how, err);
        if (rc < 0 || how != PUSH_RACE)
            return rc;
        if (n_races == MAX_RACES) {
            *heard = (probe_result){ .answer = REMOTE_REJECTED,
                                     .detail = "it moved before each of our pushes" };
            remember(v, heard);
            return MEMFS_OK;
        }
        rc = look_again(v, n_races, heard, &is_done, err);
        if (rc == MEMFS_OK && !is_done)
            return MEMFS_OK;
    }
    return rc;
}

memfs_code converge_remote(convergence *v, memfs_error *err)
{
    probe_result heard = { .answer = REMOTE_UNASKED };
    int64_t left_ms = v->deadline_ms - clock_mono_ms();

    if (believes(v))
        return MEMFS_OK;
    if (left_ms <= 0) {
        snprintf(v->ret->detail, sizeof(v->ret->detail), "no time was left to ask the remote");
        return MEMFS_OK;
    }
    probe(&v->choice->target, left_ms < MAX_PROBE_MS ? left_ms : MAX_PROBE_MS, &heard);
    if (!is_good(heard.answer)) {
        remember(v, &heard);
        return MEMFS_OK;
    }
    return exchange(v, &heard, err);
}

/* the hub: on this machine, so no answer is remembered and a failure is an error */

static memfs_code hub_main(const char *path, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *hub = NULL;
    memfs_code rc = checkout_open(path, &hub, err);

    *ret = NONE;
    if (rc == MEMFS_OK)
        rc = checkout_ref(hub, STORE_MAIN, ret, err);
    return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
}

/* NULL: there is none, or the hub itself is what we work on.  Caller frees. */
static char *hub_beside(convergence *v)
{
    if (checkout_work_tree(v->c) == NULL || !hub_is_there(v->s, v->p->agent_id))
        return NULL;
    return hub_path(v->s, v->p->agent_id, NULL);
}

static memfs_code fetch_hub(convergence *v, const char *path, memfs_oid *ret, memfs_error *err)
{
    const transport_target target = { .url = path, .may_path = true };
    transport_report said = { .said = "" };
    memfs_code rc = turn_begin(&v->turn, NULL, err);

    if (rc == MEMFS_OK)
        rc = transport_fetch(checkout_common_dir(v->c), &target, INCOMING_HUB,
                             clock_mono_ms() + HUB_MS, &said, err);
    if (rc == MEMFS_EUNAVAIL)
        return memfs_fail(err, MEMFS_EINTERNAL, "could not read the hub: %s", said.said);
    return rc == MEMFS_OK ? checkout_ref(v->c, INCOMING_HUB, ret, err) : rc;
}

memfs_code converge_hub_in(convergence *v, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = hub_beside(v);
    memfs_oid theirs;
    memfs_code rc;

    if (path == NULL)
        return MEMFS_OK;
    rc = hub_main(path, &theirs, err);
    if (rc < 0 || oid_is_zero(&theirs) || converge_has(v, &theirs, &v->ours))
        return rc;
    if (!is_here(v, &theirs))
        rc = fetch_hub(v, path, &theirs, err);
    if (rc == MEMFS_OK)
        rc = judge(v, &theirs, INCOMING_HUB, err);
    return rc == MEMFS_OK ? converge_take(v, &theirs, err) : rc;
}

memfs_code converge_hub_out(convergence *v, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = hub_beside(v);
    const transport_target target = { .url = path, .may_path = true };
    transport_report said = { .said = "" };
    memfs_oid theirs;
    memfs_code rc;

    if (path == NULL)
        return MEMFS_OK;
    rc = hub_main(path, &theirs, err);
    if (rc < 0 || oid_equal(&theirs, &v->ours))
        return rc;
    rc = transport_push(checkout_common_dir(v->c), &target, &v->ours, clock_mono_ms() + HUB_MS,
                        &said, err);
    if (rc == MEMFS_ECONFLICT) /* a client pushed there meanwhile: the next sync takes it in */
        return MEMFS_OK;
    if (rc == MEMFS_EUNAVAIL)
        return memfs_fail(err, MEMFS_EINTERNAL, "could not write to the hub: %s", said.said);
    return rc;
}
