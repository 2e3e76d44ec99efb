#include "mirror/exchange_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "store/sidecar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * What the remote has becomes part of ours: fetched into a throw-away repository, judged, merged.
 *
 * Beside that the notes: what a change of the remote's main means (it went back, was rewritten, was
 * deleted, is another branch), and what the merge had to decide.
 */

#define PACK_FACTOR 4 /* of the size of a push: a fetch may bring many */

/*
 * What became of what it had before?  theirs is what it has now, in r (both may be).  Called when
 * both differ.
 */
static void judge_change(exchange *x, repo *r, const memfs_oid *theirs)
{
    const memfs_oid *before = &x->record.remote_tip;
    char from[MEMFS_OID_HEX + 1], to[MEMFS_OID_HEX + 1];

    if (oid_is_zero(before) || !exchange_has(x, before, &x->ours) ||
        exchange_contains(r, before, theirs))
        return;
    oid_hex(before, from);
    oid_hex(theirs, to);
    if (exchange_contains(r, theirs, before))
        record_note(&x->record, MIRROR_NOTE_LOST, "main went back from %.10s to %.10s", from, to);
    else if (x->config->folder == NULL) /* a Letta server writes what it began before, over ours */
        record_note(&x->record, MIRROR_NOTE_REWRITTEN,
                    "main went from %.10s to %.10s, which lacks it", from, to);
}

static void note_intake(exchange *x, const memfs_oid *theirs, const intake_result *in)
{
    char hex[MEMFS_OID_HEX + 1], root[MEMFS_OID_HEX + 1];

    /* a Letta server begins memories itself, and ours was just the genesis */
    bool is_first = x->config->folder != NULL && oid_is_zero(&in->before);

    oid_hex(&in->tip, hex);
    oid_hex(theirs, root);
    if (in->merge.is_unrelated && !is_first)
        record_note(&x->record, MIRROR_NOTE_UNRELATED,
                    "%.10s of the remote shared no history with main; joined as %.10s", root, hex);
    else if (in->merge.n_notes > 0)
        record_note(&x->record, MIRROR_NOTE_BY_RULE,
                    "%zu %s decided by rule in the merge %.10s, the first '%.200s'",
                    in->merge.n_notes, in->merge.n_notes == 1 ? "file was" : "files were", hex,
                    in->merge.notes[0].path);
}

static void clear_refused(exchange *x)
{
    if (x->n_lefts_held == 0)
        exchange_clear_note(&x->record, MIRROR_NOTE_REFUSED);
}

/* Not what the remote has, which may be well. */
static outcome refuse_left(exchange *x, const memfs_oid *theirs, const char *why)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(theirs, hex);
    x->n_lefts_held++;
    record_note(&x->record, MIRROR_NOTE_REFUSED,
                "commit %.10s, written while main was replaced, is not taken in; remove '%.220s' "
                "to give it up: %s",
                hex, x->left, why);
    return exchange_hold(x, MEMFS_EDENIED);
}

static outcome fail_intake(exchange *x, memfs_code rc, const memfs_oid *theirs,
                           const memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];

    if (rc != MEMFS_EDENIED && rc != MEMFS_ELIMIT)
        return exchange_fail_here(x, err);
    if (x->left != NULL)
        return refuse_left(x, theirs, err->msg);
    oid_hex(theirs, hex);
    exchange_see(x, theirs);
    record_note(&x->record, MIRROR_NOTE_REFUSED, "commit %.10s of the remote is not taken in: %s",
                hex, err->msg);
    return exchange_hold(x, MEMFS_EDENIED);
}

static outcome take_fetched(exchange *x, fetched *f, const memfs_oid *theirs)
{
    static const memfs_oid none;
    _cleanup_(intake_result_dispose) intake_result in = INTAKE_RESULT_INIT;
    const memfs_oid *seen =
        exchange_has(x, &x->record.remote_tip, &x->ours) ? &x->record.remote_tip : &none;
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc;

    judge_change(x, fetched_repo(f), theirs);
    if (x->config->folder == NULL)
        mirror_meta_before(x, f, theirs);
    rc = intake_fetched(mirror_home(x->m), str_of(x->agent_id), f, theirs, seen,
                        (intake_keep)x->keep, "memfs: mirror", &in, &err);
    if (rc < 0)
        return fail_intake(x, rc, theirs, &err);
    x->was_moved = x->was_moved || in.moved;
    note_intake(x, theirs, &in);
    clear_refused(x);
    rc = exchange_find_main(x, &err);
    if (rc == MEMFS_OK && x->config->folder == NULL)
        mirror_meta_taken(x, f);
    return rc < 0 ? exchange_fail_here(x, &err) : STEP_ON;
}

static memfs_code begin_fetch(const exchange *x, fetched **ret, memfs_error *err)
{
    const agent *a = x->agent != NULL ? x->agent : x->lost;
    _cleanup_(mem_freep) char *name =
        a != NULL ? mem_strdup(agent_repo(a))
                  : mem_printf("repository/" IDS_DEFAULT_ORG "/%s/repo.git", x->agent_id);

    return fetched_begin(home_store(mirror_home(x->m)), name, ret, err);
}

/* Both came by one question, and what is no good of them may be the sidecar alone. */
static bool may_be_meta(memfs_code rc, const transport_report *report)
{
    return rc == MEMFS_ELIMIT || rc == MEMFS_ENOTFOUND || report->cause == TRANSPORT_CAUSE_DAMAGED;
}

static uint64_t max_fetch_bytes(const exchange *x)
{
    return home_settings(mirror_home(x->m))->max_pack_bytes * PACK_FACTOR;
}

static const char *short_name(const char *ref)
{
    const char *prefix = "refs/heads/";

    return strncmp(ref, prefix, strlen(prefix)) == 0 ? ref + strlen(prefix) : ref;
}

/* Nothing that could be joined; it is looked at again when it has moved. */
static outcome refuse_object(exchange *x, const char *ref, const memfs_oid *theirs)
{
    char hex[MEMFS_OID_HEX + 1];

    if (x->left != NULL)
        return refuse_left(x, theirs, "it is no commit");
    oid_hex(theirs, hex);
    if (strcmp(ref, STORE_MAIN) == 0)
        exchange_see(x, theirs);
    record_note(&x->record, MIRROR_NOTE_REFUSED,
                "the remote's branch '%s' is no commit but another object (%.10s); let it name a "
                "commit there, or delete it",
                short_name(ref), hex);
    return exchange_hold(x, MEMFS_EDENIED);
}

/* announced: where it is said to be.  STEP_DONE: the remote has no such ref. */
static outcome fetch(exchange *x, const char *ref, const memfs_oid *announced, fetched **ret,
                     memfs_oid *ret_tip)
{
    bool with_meta = strcmp(ref, STORE_MAIN) == 0 && mirror_meta_comes(x);
    transport_report report = { .said = "" };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = begin_fetch(x, ret, &err);
    memfs_oid meta;

    if (rc == MEMFS_OK)
        rc = fetched_fetch_with(*ret, &x->to, ref, with_meta ? STORE_META : NULL,
                                max_fetch_bytes(x), x->deadline_ms, ret_tip, &meta, &report, &err);
    if (rc < 0 && with_meta && *ret != NULL && may_be_meta(rc, &report)) {
        with_meta = false;
        report = (transport_report){ .said = "" };
        fetched_freep(ret);
        rc = begin_fetch(x, ret, &err);
        if (rc == MEMFS_OK)
            rc = fetched_fetch(*ret, &x->to, ref, max_fetch_bytes(x), x->deadline_ms, ret_tip,
                               &report, &err);
    }
    x->was_fetched = x->was_fetched || rc == MEMFS_OK;
    if (rc == MEMFS_OK) {
        if (with_meta)
            mirror_meta_came(x, *ret, &meta);
        return fetched_is_commit(*ret, ret_tip) ? STEP_ON : refuse_object(x, ref, ret_tip);
    }
    if (rc == MEMFS_ENOTFOUND)
        return STEP_DONE;
    if (mirror_is_stopping(x->m))
        return exchange_fail_here(x, &err);
    if (rc == MEMFS_ELIMIT)
        return fail_intake(x, rc, announced, &err);
    if (x->config->folder != NULL && rc == MEMFS_EUNAVAIL && !report.timed_out)
        return STEP_RACE; /* half-written: its objects come after, or before, its ref */
    if (rc != MEMFS_EUNAVAIL || (report.cause == TRANSPORT_CAUSE_NONE && !report.timed_out))
        return exchange_fail_here(x, &err);
    return exchange_fail_remote(x, probe_classify_git(&x->target, &report), report.said);
}

/* Both, or main alone. */
static memfs_code fetch_unseen(exchange *x, fetched *f, memfs_oid *ret_tip, memfs_oid *ret_meta,
                               memfs_error *err)
{
    transport_report report = { .said = "" };
    memfs_code rc = fetched_fetch_with(f, &x->to, STORE_MAIN, STORE_META, max_fetch_bytes(x),
                                       x->deadline_ms, ret_tip, ret_meta, &report, err);

    if (rc != MEMFS_ENOTFOUND)
        return rc;
    memset(ret_meta, 0, sizeof(*ret_meta));
    return fetched_fetch(f, &x->to, STORE_MAIN, max_fetch_bytes(x), x->deadline_ms, ret_tip,
                         &report, err);
}

/*
 * An empty machine is rebuilt: what would be looked for is all that there is, so it is fetched at
 * once.  STEP_RACE: that did not go well, and the look tells why, and what else may be done.
 */
outcome exchange_take_unseen(exchange *x)
{
    _cleanup_(fetched_freep) fetched *f = NULL;
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_oid theirs, meta;
    outcome o;
    memfs_code rc = begin_fetch(x, &f, &err);

    if (rc < 0)
        return exchange_fail_here(x, &err);
    rc = fetch_unseen(x, f, &theirs, &meta, &err);
    if (rc < 0)
        return mirror_is_stopping(x->m) ? exchange_fail_here(x, &err) : STEP_RACE;
    x->was_asked = x->was_fetched = x->knows_meta = true;
    x->answer = REMOTE_REFS;
    x->meta_there = meta;
    if (!fetched_is_commit(f, &theirs))
        return refuse_object(x, STORE_MAIN, &theirs);
    if (!oid_is_zero(&meta))
        mirror_meta_came(x, f, &meta);
    o = take_fetched(x, f, &theirs);
    if (o == STEP_ON)
        exchange_see(x, &theirs);
    return o;
}

static outcome fetch_and_take(exchange *x, const char *ref, const memfs_oid *announced)
{
    _cleanup_(fetched_freep) fetched *f = NULL;
    memfs_oid theirs;
    outcome o;

    if (x->record.note == MIRROR_NOTE_REFUSED && x->left == NULL && x->n_lefts_held == 0 &&
        x->keep == INTAKE_MERGE && (x->wants & WANT_NOW) == 0 &&
        oid_equal(announced, &x->record.remote_tip))
        return exchange_hold(x, MEMFS_EDENIED);
    o = fetch(x, ref, announced, &f, &theirs);
    if (o == STEP_DONE)
        return STEP_RACE; /* it was there a moment ago */
    if (o != STEP_ON)
        return o;
    o = take_fetched(x, f, &theirs);
    if (o == STEP_ON && strcmp(ref, STORE_MAIN) == 0)
        exchange_see(x, &theirs);
    return o;
}

outcome exchange_take_commit(exchange *x, const memfs_oid *commit)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(commit, hex);
    return fetch_and_take(x, hex, commit);
}

/* There is no main: nothing at all, or another branch that is the default there. */
static outcome find_default_branch(exchange *x, transport_refs *ret)
{
    transport_report report = { .said = "" };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = transport_ls_refs(&x->to, clock_mono_ms() + LOOK_MS, ret, &report, &err);

    if (rc == MEMFS_OK)
        return oid_is_zero(&ret->main) ? STEP_ON : STEP_RACE;
    return mirror_is_stopping(x->m)
               ? exchange_fail_here(x, &err)
               : exchange_fail_remote(x, probe_classify_git(&x->target, &report), report.said);
}

static outcome take_branch(exchange *x, const transport_refs *refs)
{
    _cleanup_(fetched_freep) fetched *f = NULL;
    memfs_oid theirs;
    outcome o = STEP_ON;

    if (!exchange_has(x, &refs->head, &x->ours)) {
        o = fetch(x, refs->head_ref, &refs->head, &f, &theirs);
        if (o == STEP_DONE)
            return STEP_RACE;
        if (o == STEP_ON)
            o = take_fetched(x, f, &theirs);
    }
    if (o == STEP_ON)
        record_note(&x->record, MIRROR_NOTE_BRANCH,
                    "there is no main; the default branch '%s' was taken in", refs->head_ref);
    return o;
}

/* What was known of it is no more: what is here is pushed anew, the sidecar too. */
static void see_nothing(exchange *x)
{
    static const memfs_oid none;

    exchange_see(x, &none);
    clear_refused(x);
    x->record.meta_tip = none;
}

static void note_gone(exchange *x, const char *what)
{
    char hex[MEMFS_OID_HEX + 1];

    if (oid_is_zero(&x->record.remote_tip))
        return;
    oid_hex(&x->record.remote_tip, hex);
    record_note(&x->record, MIRROR_NOTE_DELETED, "%s at %.10s, is gone", what, hex);
}

/* A HEAD that names nothing, itself, a tag or what is no branch either, is none. */
static bool has_default_branch(const transport_refs *refs)
{
    return refs->head_ref[0] != '\0' && !oid_is_zero(&refs->head);
}

static outcome take_default_branch(exchange *x)
{
    transport_refs refs = { .head_ref = "" };
    outcome o = x->config->direction == REMOTE_PUSH ? STEP_ON : find_default_branch(x, &refs);

    if (o == STEP_ON && has_default_branch(&refs)) {
        o = take_branch(x, &refs);
    } else if (o == STEP_ON) {
        note_gone(x, "main, which was");
    }
    if (o == STEP_ON)
        see_nothing(x);
    return o;
}

/* It was made a moment ago, or the push makes it. */
static outcome take_new(exchange *x)
{
    note_gone(x, "the repository, whose main was");
    see_nothing(x);
    return STEP_ON;
}

/* A fetch cannot help: a remote that is never read has commits of its own. */
static outcome hold_diverged(exchange *x, const memfs_oid *theirs)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(theirs, hex);
    exchange_see(x, theirs);
    record_note(&x->record, MIRROR_NOTE_DIVERGED,
                "the remote is at %.10s, which is not part of main, and it is push-only", hex);
    return exchange_hold(x, MEMFS_ECONFLICT);
}

static void see_contained(exchange *x, const memfs_oid *theirs)
{
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_error ignored;

    if (!oid_equal(theirs, &x->record.remote_tip) &&
        repo_open(home_store(mirror_home(x->m)), agent_repo(x->agent), &r, &ignored) == MEMFS_OK)
        judge_change(x, r, theirs);
    exchange_see(x, theirs);
    clear_refused(x);
    exchange_clear_note(&x->record, MIRROR_NOTE_DIVERGED);
}

outcome exchange_take_in(exchange *x, const probe_result *heard)
{
    if (!heard->has_main)
        return heard->answer == REMOTE_EMPTY ? take_default_branch(x) : take_new(x);
    if (exchange_has(x, &heard->main, &x->ours)) {
        see_contained(x, &heard->main);
        return STEP_ON;
    }
    /* an operator who joins both sides has it read this once */
    if (x->config->direction == REMOTE_PUSH && x->keep == INTAKE_MERGE)
        return hold_diverged(x, &heard->main);
    return fetch_and_take(x, STORE_MAIN, &heard->main);
}
