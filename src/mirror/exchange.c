#include "mirror/exchange_int.h"
#include "mirror/pairs.h"
#include "mirror/rarely.h"

#include "base/clock.h"
#include "base/mem.h"
#include "store/history.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * One agent and one remote, from what is known to where both are in step.
 *
 *   begin        where to and with what; what is known; where main is
 *   push         without a question, when main descends from what the remote is known to have
 *   look         else: one question
 *   take_in      what it has and main lacks: fetch into a throw-away repository, intake
 *   push         when main is more than what it has
 *   conclude     the record
 *
 * Each step answers with an outcome; a lost race begins again with the look.  Failures of the
 * remote are answers of remote/probe.h's table, whichever step met them; what fails on this side is
 * told as such.  Nothing here forces or deletes.
 *
 * record.remote_tip is what the remote was last seen to have.  It is not proof that we have it: of
 * a tip that was refused it says which, so that it is not fetched again and again; so wherever it
 * matters it is asked whether main contains it.
 */

#define MAX_RACES 5
#define RACE_WAIT_MS 200
#define FOLDER_WAIT_MS 20 /* somebody writes some files, and clients wait for what they say */

/* ---- failing ---- */

/* The remote's answer; detail is escaped and redacted where it came from. */
outcome exchange_fail_remote(exchange *x, remote_answer answer, const char *detail)
{
    char words[400], kept[sizeof(x->record.detail)];

    if (answer == REMOTE_FORBIDDEN && x->retry_after_s > 0)
        answer = REMOTE_TOO_MANY; /* a limit of the host's, not the token's (GitHub) */
    x->answer = answer;
    snprintf(kept, sizeof(kept), "%s", detail); /* it may be the record's own */
    memset(x->record.detail, 0, sizeof(x->record.detail));
    snprintf(x->record.detail, sizeof(x->record.detail), "%s", kept);
    failure_words(remote_class_of(answer)->name, kept, words, sizeof(words));
    memfs_fail(&x->error, remote_class_of(answer)->code, "%s", words);
    if (x->error.code == MEMFS_OK)
        x->error.code = MEMFS_EUNAVAIL;
    x->is_stopped = remote_class_of(answer)->is_credentials;
    return STEP_OVER;
}

outcome exchange_fail_here(exchange *x, const memfs_error *err)
{
    x->error = *err;
    if (mirror_is_stopping(x->m))
        memfs_fail(&x->error, MEMFS_EUNAVAIL, "memfs is stopping");
    return STEP_OVER;
}

/* Not a failure that goes away by trying: a note says what stands. */
outcome exchange_hold(exchange *x, memfs_code code)
{
    memfs_fail(&x->error, code, "%s", x->record.note_text);
    return STEP_OVER;
}

/* ---- what is contained in what ---- */

static char *repo_path(const exchange *x)
{
    return store_path(home_store(mirror_home(x->m)), agent_repo(x->agent));
}

bool exchange_contains(repo *r, const memfs_oid *commit, const memfs_oid *in)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    memfs_error ignored;
    bool is_in = false;

    if (oid_is_zero(commit) || oid_is_zero(in))
        return false;
    if (oid_equal(commit, in))
        return true;
    return repo_commit_info(r, commit, &info, &ignored) == MEMFS_OK &&
           repo_is_ancestor(r, commit, in, &is_in, &ignored) == MEMFS_OK && is_in;
}

/* Is it here, and part of `in`? */
bool exchange_has(const exchange *x, const memfs_oid *commit, const memfs_oid *in)
{
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_error ignored;

    if (oid_equal(commit, in))
        return !oid_is_zero(commit);
    return x->agent != NULL &&
           repo_open(home_store(mirror_home(x->m)), agent_repo(x->agent), &r, &ignored) ==
               MEMFS_OK &&
           exchange_contains(r, commit, in);
}

/* ---- begin ---- */

memfs_code exchange_find_main(exchange *x, memfs_error *err)
{
    home *h = mirror_home(x->m);
    memfs_code rc = home_agent_repo(h, str_of(x->agent_id), &x->agent, err);

    memset(&x->ours, 0, sizeof(x->ours));
    x->is_unknown = false;
    if (rc == MEMFS_OK)
        return store_tip(home_store(h), agent_repo(x->agent), &x->ours, err);
    x->agent = NULL;
    x->is_unknown = rc == MEMFS_ENOTFOUND;
    return x->is_unknown ? MEMFS_OK : rc;
}

/* What was known of the remote was known of what is lost: it begins again as if nobody knew it. */
static memfs_code find_lost(exchange *x, memfs_code rc, memfs_error *err)
{
    memfs_error ignored;
    agent *lost;

    if (rc != MEMFS_EUNAVAIL || x->keep != INTAKE_REVIVE ||
        home_agent_lost(mirror_home(x->m), str_of(x->agent_id), &lost, &ignored) < 0)
        return rc;
    err->code = MEMFS_OK;
    x->lost = lost;
    x->is_unknown = true;
    memset(&x->record.remote_tip, 0, sizeof(x->record.remote_tip));
    memset(&x->record.meta_tip, 0, sizeof(x->record.meta_tip));
    return MEMFS_OK;
}

static void forget_failure(mirror_record *r)
{
    memset(r->answer, 0, sizeof(r->answer));
    memset(r->detail, 0, sizeof(r->detail));
    r->n_failures = r->failed_at_us = r->next_try_us = 0;
}

/*
 * Where a Letta server's folder has an agent is found out by looking; while it cannot be seen that
 * is a guess, and no other address.
 */
static void find_mark(exchange *x)
{
    _cleanup_(mem_freep) char *text = NULL;
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    remote_target named = x->target;
    memfs_error ignored;

    if (x->config->folder != NULL &&
        url_expand(x->config->url, x->agent_id, &text, &ignored) == MEMFS_OK &&
        url_parse(text, &url, &ignored) == MEMFS_OK)
        named.url = url;
    remote_target_mark(&named, x->mark);
}

/* What was learned of another address is not true of this one. */
static void compare_marks(exchange *x)
{
    find_mark(x);
    if (strcmp(x->record.mark, x->mark) == 0)
        return;
    if (memcmp(x->record.mark, x->mark, 8) != 0)
        memset(&x->record, 0, sizeof(x->record));
    else
        forget_failure(&x->record);
    memcpy(x->record.mark, x->mark, sizeof(x->mark));
}

static bool is_still_refused(exchange *x)
{
    remote_answer a = failure_answer(x->record.answer);

    if ((x->wants & WANT_NOW) != 0 || a == REMOTE_UNASKED || !remote_class_of(a)->is_credentials)
        return false;
    exchange_fail_remote(x, a, x->record.detail);
    return true;
}

static memfs_code begin(exchange *x, mirror_record *before, memfs_error *err)
{
    memfs_code rc = record_load(x->m, x->agent_id, x->config->name, before, err);

    if (rc < 0)
        return rc;
    memcpy(&x->record, before, sizeof(x->record));
    rc = find_lost(x, exchange_find_main(x, err), err);
    if (rc == MEMFS_OK)
        rc = remote_config_target(x->set->r, x->config, x->agent_id, &x->target, err);
    if (rc < 0)
        return rc;
    remote_transport_target(&x->target, &x->to);
    compare_marks(x);
    return MEMFS_OK;
}

/* ---- look ---- */

void exchange_clear_note(mirror_record *r, mirror_note note)
{
    if (r->note != note)
        return;
    r->note = MIRROR_NOTE_NONE;
    memset(r->note_text, 0, sizeof(r->note_text));
    r->note_at_us = 0;
}

void exchange_see(exchange *x, const memfs_oid *tip)
{
    if (oid_equal(&x->record.remote_tip, tip) && x->record.seen_at_us != 0)
        return;
    x->record.remote_tip = *tip;
    x->record.seen_at_us = clock_wall_us();
}

static int64_t left_ms(const exchange *x)
{
    return x->deadline_ms - clock_mono_ms();
}

/* A list of refs that was too long for the probe. */
static void look_by_git(exchange *x, probe_result *heard)
{
    transport_report report = { .said = "" };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = transport_ls(&x->to, clock_mono_ms() + LOOK_MS, &heard->main, &report, &err);

    heard->has_main = rc == MEMFS_OK;
    if (rc == MEMFS_OK)
        return;
    heard->answer = rc == MEMFS_ENOTFOUND ? REMOTE_EMPTY : probe_classify_git(&x->target, &report);
    snprintf(heard->detail, sizeof(heard->detail), "%.199s", report.said);
}

/* STEP_ON: it is there now, and empty, or the push makes it (x->before_hope). */
static outcome make_repository(exchange *x, const probe_result *heard)
{
    mirror_made made;

    mirror_make(x, heard, &made);
    if (made.how == MIRROR_NOT_MADE)
        return exchange_fail_remote(x, made.answer, made.detail);
    if (made.how == MIRROR_MADE_BY_PUSH && x->before_hope == NULL) {
        x->before_hope = mem_alloc(sizeof(*x->before_hope));
        *x->before_hope = x->record;
    }
    return STEP_ON;
}

/* STEP_ON with REMOTE_REFS and a main, or REMOTE_EMPTY. */
static outcome look(exchange *x, probe_result *heard)
{
    int64_t budget_ms = left_ms(x) < LOOK_MS ? left_ms(x) : LOOK_MS;

    if (x->config->folder != NULL)
        return exchange_look_folder(x, heard);
    probe(&x->target, budget_ms > 0 ? budget_ms : 1, heard);
    x->was_asked = true;
    x->retry_after_s = heard->retry_after_s;
    x->knows_meta = heard->knows_meta;
    x->meta_there = heard->meta;
    if (heard->answer == REMOTE_REFS && !heard->has_main)
        look_by_git(x, heard);
    x->answer = heard->answer;
    if (heard->answer == REMOTE_REFS || heard->answer == REMOTE_EMPTY)
        return STEP_ON;
    if (heard->answer != REMOTE_NOT_FOUND)
        return exchange_fail_remote(x, heard->answer, heard->detail);
    heard->has_main = false;
    return make_repository(x, heard);
}

/* ---- push ---- */

static outcome fail_push(exchange *x, memfs_code rc, const transport_report *report,
                         const memfs_error *err)
{
    remote_answer answer;

    if (mirror_is_stopping(x->m))
        return exchange_fail_here(x, err);
    if (rc == MEMFS_ECONFLICT && report->was_moved)
        return STEP_RACE;
    if (rc == MEMFS_ECONFLICT) {
        record_note(&x->record, MIRROR_NOTE_REJECTED, "the host refused main: %s", report->said);
        return exchange_fail_remote(x, REMOTE_REJECTED, report->said);
    }
    if (rc != MEMFS_EUNAVAIL || (report->cause == TRANSPORT_CAUSE_NONE && !report->timed_out))
        return exchange_fail_here(x, err);
    answer = probe_classify_git(&x->target, report);
    if (answer == REMOTE_NOT_FOUND && !x->was_asked)
        return STEP_RACE; /* it was there once: the look knows what to do about it */
    return exchange_fail_remote(x, answer, report->said);
}

/* The push made no repository: what was known of the one that is missing still is. */
static void end_hope(exchange *x)
{
    _cleanup_(mem_freep) mirror_record *was = TAKE_PTR(x->before_hope);

    if (was == NULL)
        return;
    x->record.remote_tip = was->remote_tip;
    x->record.meta_tip = was->meta_tip;
    x->record.seen_at_us = was->seen_at_us;
    if (x->record.note == MIRROR_NOTE_DELETED) {
        x->record.note = was->note;
        memcpy(x->record.note_text, was->note_text, sizeof(was->note_text));
        x->record.note_at_us = was->note_at_us;
    }
}

static void see_pushed(exchange *x)
{
    x->was_asked = true;
    x->was_pushed = true;
    x->answer = REMOTE_REFS;
    exchange_see(x, &x->ours);
    x->record.pushed_at_us = clock_wall_us();
    exchange_clear_note(&x->record, MIRROR_NOTE_REJECTED);
    exchange_clear_note(&x->record, MIRROR_NOTE_DIVERGED);
}

static outcome push_folder(exchange *x)
{
    outcome o = exchange_push_folder(x);

    if (o == STEP_DONE)
        see_pushed(x);
    return o;
}

static outcome push(exchange *x)
{
    _cleanup_(mem_freep) char *dir = repo_path(x);
    _cleanup_(repo_closep) repo *reader = NULL; /* git's packs stay as long as it is open (F13) */
    transport_report report = { .said = "" };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = repo_open(home_store(mirror_home(x->m)), agent_repo(x->agent), &reader, &err);

    if (rc == MEMFS_OK)
        rc = transport_push(dir, &x->to, &x->ours, x->deadline_ms, &report, &err);
    if (rc < 0) {
        outcome o = fail_push(x, rc, &report, &err);

        end_hope(x);
        x->was_asked = true;
        return o;
    }
    see_pushed(x);
    return STEP_DONE;
}

/* ---- together ---- */

static bool has_something_to_push(const exchange *x)
{
    return x->config->direction != REMOTE_PULL && !oid_is_zero(&x->ours) &&
           !oid_equal(&x->ours, &x->record.remote_tip);
}

/* Where the remote was is part of main: it takes main, unless somebody else was there meanwhile. */
static bool may_push_unseen(const exchange *x)
{
    return (x->wants & WANT_PUSH) != 0 && x->keep == INTAKE_MERGE && has_something_to_push(x) &&
           exchange_has(x, &x->record.remote_tip, &x->ours);
}

static bool is_in_step(const exchange *x)
{
    return (x->wants & (WANT_LOOK | WANT_NOW)) == 0 && x->record.seen_at_us != 0 &&
           (x->config->direction == REMOTE_PULL || oid_equal(&x->ours, &x->record.remote_tip));
}

static bool may_take_unseen(const exchange *x)
{
    return (x->wants & WANT_WHOLE) != 0 && x->is_unknown && x->config->direction != REMOTE_PUSH &&
           x->config->folder == NULL;
}

static outcome look_and_take(exchange *x)
{
    probe_result heard;
    outcome o = look(x, &heard);

    return o == STEP_ON ? exchange_take_in(x, &heard) : o;
}

static outcome try_once(exchange *x, bool is_first)
{
    outcome o = STEP_RACE;

    if (is_first && is_in_step(x))
        return STEP_DONE;
    if (is_first && may_push_unseen(x))
        return x->config->folder != NULL ? push_folder(x) : push(x);
    if (is_first && may_take_unseen(x))
        o = exchange_take_unseen(x);
    if (o == STEP_RACE)
        o = look_and_take(x);
    if (o != STEP_ON)
        return o;
    if (!has_something_to_push(x))
        return STEP_DONE;
    return x->config->folder != NULL ? push_folder(x) : push(x);
}

static outcome travel(exchange *x)
{
    int64_t wait_ms = x->config->folder != NULL ? FOLDER_WAIT_MS : RACE_WAIT_MS;
    outcome o = try_once(x, true);

    for (int n_races = 1; o == STEP_RACE; n_races++) {
        if (n_races > MAX_RACES)
            return exchange_fail_remote(x, REMOTE_OTHER, x->config->folder == NULL
                                            ? "it moved before each of our pushes"
                                            : "it was written to, or half-written, at each look");
        if (!mirror_pause(x->m, mirror_chance(wait_ms << n_races)) || left_ms(x) <= 0)
            return exchange_fail_here(x, &(memfs_error){ MEMFS_EUNAVAIL,
                                                "no time was left for the remote" });
        o = try_once(x, false);
    }
    return o;
}

static void write_failure(exchange *x)
{
    mirror_record *r = &x->record;
    remote_answer a = x->was_asked ? x->answer : REMOTE_UNASKED;
    const char *name = a == REMOTE_UNASKED ? RECORD_HERE : remote_class_of(a)->name;
    bool is_held = x->error.code != MEMFS_OK && (a == REMOTE_REFS || a == REMOTE_EMPTY);

    if (is_held && (r->note == MIRROR_NOTE_REFUSED || r->note == MIRROR_NOTE_DIVERGED)) {
        forget_failure(r); /* the note says it, and the next poll looks again */
        return;
    }
    if (is_held)
        name = RECORD_HERE;
    if (strcmp(name, RECORD_HERE) == 0) {
        memset(r->detail, 0, sizeof(r->detail));
        snprintf(r->detail, sizeof(r->detail), "%.399s", x->error.msg);
    }
    x->wait_ms = a == REMOTE_REJECTED
                     ? SLOW_RETRY_MS + mirror_chance(SLOW_RETRY_MS / 15)
                     : backoff_ms(is_held ? REMOTE_OTHER : a, r->n_failures, x->retry_after_s);
    r->n_failures = strcmp(r->answer, name) == 0 ? r->n_failures + 1 : 1;
    memset(r->answer, 0, sizeof(r->answer));
    snprintf(r->answer, sizeof(r->answer), "%s", name);
    r->failed_at_us = clock_wall_us();
    r->next_try_us = x->is_stopped ? 0 : r->failed_at_us + x->wait_ms * 1000;
    if (x->is_stopped)
        x->wait_ms = 0;
}

/* A remote that was removed meanwhile is forgotten (mirror_forget), and stays so. */
static bool is_configured(const exchange *x)
{
    remote_set *set = mirror_remotes(x->m);
    bool is = remote_set_find(set, x->config->name) != NULL;

    mirror_remotes_unref(x->m, set);
    return is;
}

static void conclude(exchange *x, const mirror_record *before)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (x->error.code == MEMFS_OK)
        forget_failure(&x->record);
    else if (mirror_is_stopping(x->m))
        return; /* no fault of anybody's; what was learned is learned again */
    else
        write_failure(x);
    x->is_new_note = x->record.note != MIRROR_NOTE_NONE &&
                     (x->record.note != before->note ||
                      strcmp(x->record.note_text, before->note_text) != 0);
    if (x->is_unknown || !is_configured(x)) /* nobody's row */
        return;
    if (record_save(x->m, x->agent_id, x->config->name, before, &x->record, &err) < 0)
        mirror_event_rarely(x, "mirror_record_failed", "", err.msg);
}

void exchange_run(exchange *x)
{
    mirror_record *before = mem_alloc(sizeof(*before));
    memfs_error err = MEMFS_ERROR_INIT;

    x->target = (remote_target)REMOTE_TARGET_INIT;
    if (home_is_deleted(mirror_home(x->m), str_of(x->agent_id))) {
        x->is_unknown = true; /* its copies stay as they are until it is brought back */
        x->answer = REMOTE_UNASKED;
        free(before);
        return;
    }
    if (begin(x, before, &err) < 0)
        exchange_fail_here(x, &err);
    else if (is_still_refused(x)) {
        x->answer = REMOTE_UNASKED; /* not asked: the gate hears nothing */
        remote_target_dispose(&x->target);
        free(before);
        return;
    } else if (travel(x) == STEP_DONE && x->agent != NULL && x->config->folder == NULL) {
        mirror_meta_after(x);
    }
    conclude(x, before);
    mirror_meta_dispose(x);
    remote_target_dispose(&x->target);
    free(x->before_hope);
    free(before);
}
