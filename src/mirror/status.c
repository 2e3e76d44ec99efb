#include "mirror/pairs.h"

#include "base/clock.h"
#include "base/mem.h"
#include "store/chronicle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The status is made when it is asked for: the record of each pair, where main is, and what only
 * the engine knows (a closed gate, when it is tried next).  Nothing is asked of a remote.
 */

/* ---- which pairs ---- */

typedef struct agent_ids {
    char (*at)[IDS_MAX_LEN + 1];
    size_t n, cap;
} agent_ids;

static void agent_ids_dispose(agent_ids *l)
{
    free(l->at);
}

static memfs_code add_agent(const state_agent *row, void *ctx, memfs_error *err)
{
    agent_ids *l = ctx;

    (void)err;
    if (!ids_is_agent(row->id))
        return MEMFS_OK;
    if (l->n == l->cap) {
        l->cap = l->cap > 0 ? 2 * l->cap : 64;
        l->at = mem_realloc(l->at, l->cap, sizeof(*l->at));
    }
    snprintf(l->at[l->n++], sizeof(*l->at), "%.*s", (int)row->id.len, row->id.ptr);
    return MEMFS_OK;
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* ENOTFOUND: the agent is not known. */
static memfs_code list_agents(mirror *m, memfs_str agent_id, agent_ids *ret, memfs_error *err)
{
    agent_query q = { .id = agent_id };
    memfs_code rc = state_agents(home_state(m->options.home), &q, add_agent, ret, err);

    if (rc == MEMFS_OK && agent_id.len > 0 && ret->n == 0)
        rc = memfs_fail(err, MEMFS_ENOTFOUND, "agent '%.*s' is not known", (int)agent_id.len,
                        agent_id.ptr);
    if (rc == MEMFS_OK && ret->n > 0)
        qsort(ret->at, ret->n, sizeof(*ret->at), compare_ids);
    return rc;
}

static bool is_chosen(const remote_config *c, const char *remote, const char *agent_id)
{
    return (remote == NULL || remote[0] == '\0' || strcmp(c->name, remote) == 0) &&
           remote_is_for(c, agent_id);
}

static memfs_code check_remote(const remote_set *set, const char *remote, memfs_error *err)
{
    if (remote == NULL || remote[0] == '\0' || remote_set_find(set, remote) != NULL)
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ENOTFOUND, "there is no remote '%.40s': the config file has none "
                                            "of that name", remote);
}

/* ---- one row ---- */

/* What the engine knows beside the record. */
typedef struct standing {
    bool is_closed, is_refused, is_due;
    remote_answer why;
    char detail[200];
    int64_t answered_at_us;
    int64_t next_ms; /* INT64_MAX: not planned */
} standing;

static void look_at_pair(mirror *m, const char *agent_id, const char *remote, standing *ret)
{
    int64_t now_ms = clock_mono_ms();
    const lane *l;
    pair *p;
    int at;

    *ret = (standing){ .next_ms = INT64_MAX };
    pthread_mutex_lock(&m->mutex);
    at = lane_find(m, remote);
    p = at >= 0 ? pair_find(m, str_of(agent_id), (size_t)at) : NULL;
    if (p != NULL) {
        l = &m->lanes[at];
        ret->is_closed = gate_is_closed(l);
        ret->is_refused = l->refused[0] != '\0';
        ret->why = l->why;
        snprintf(ret->detail, sizeof(ret->detail), "%s", l->detail);
        ret->answered_at_us = p->answered_at_us;
        ret->next_ms = p->place == IN_HEAP ? p->due_ms
                       : p->place == IS_PARKED ? l->closed_until_ms : now_ms;
    }
    pthread_mutex_unlock(&m->mutex);
}

typedef struct row_work {
    mirror *m;
    const remote_set *set;
    bool count;
    mirror_record record;
    remote_target target;
    char failure[400];
    char address[2100];
} row_work;

static bool is_contained(repo *r, const memfs_oid *a, const memfs_oid *in)
{
    merge_relation how;
    memfs_error ignored;

    if (oid_is_zero(a) || oid_equal(a, in))
        return true;
    return merge_relate(r, in, a, &how, NULL, NULL, &ignored) == MEMFS_OK &&
           (how == MERGE_AHEAD || how == MERGE_EQUAL);
}

static void count_distance(repo *r, mirror_row *row)
{
    merge_relation how;
    memfs_error ignored;

    if (oid_is_zero(&row->remote_tip) || oid_is_zero(&row->local_tip))
        return;
    row->is_counted = merge_relate(r, &row->local_tip, &row->remote_tip, &how, &row->n_ahead,
                                   &row->n_behind, &ignored) == MEMFS_OK;
}

static bool is_held(const mirror_record *r)
{
    return r->note == MIRROR_NOTE_REFUSED || r->note == MIRROR_NOTE_DIVERGED ||
           (r->note == MIRROR_NOTE_REJECTED &&
            strcmp(r->answer, remote_class_of(REMOTE_REJECTED)->name) == 0);
}

static const char *failing_state(const mirror_record *r, const standing *s)
{
    remote_answer a = failure_answer(r->answer);

    if (s->is_refused || (a != REMOTE_UNASKED && remote_class_of(a)->is_credentials))
        return "auth-failed";
    if (is_held(r))
        return "held";
    if (a == REMOTE_NOT_FOUND || a == REMOTE_NOT_CREATED)
        return "missing";
    return r->answer[0] != '\0' || s->is_closed ? "failing" : NULL;
}

static const char *state_of(const row_work *w, repo *r, const mirror_row *row, const standing *s)
{
    const char *failing = failing_state(&w->record, s);

    if (failing != NULL)
        return failing;
    if (w->record.seen_at_us == 0)
        return "new";
    if (oid_equal(&row->local_tip, &row->remote_tip))
        return "mirrored";
    if (r != NULL && !is_contained(r, &row->remote_tip, &row->local_tip))
        return "behind";
    return row->direction == REMOTE_PULL ? "mirrored" : "waiting";
}

static void fill_failure(row_work *w, const standing *s, mirror_row *row)
{
    const char *answer = w->record.answer, *detail = w->record.detail;

    if (answer[0] == '\0' && s->is_closed) {
        answer = remote_class_of(s->why)->name;
        detail = s->detail;
    }
    row->failure = row->advice = "";
    if (answer[0] == '\0' && is_held(&w->record)) {
        row->failure = w->record.note_text;
        row->advice = mirror_note_advice(w->record.note);
    }
    if (answer[0] == '\0')
        return;
    failure_words(answer, detail, w->failure, sizeof(w->failure));
    row->failure = w->failure;
    row->advice = is_held(&w->record) ? mirror_note_advice(w->record.note)
                                      : failure_advice(answer);
}

/*
 * When it is asked next.  Of a refused credential no time is told: polls come by, see that it is
 * the same still, and ask nobody.
 */
static int64_t next_try_us(const row_work *w, const standing *s, const mirror_row *row)
{
    int64_t left_ms = s->next_ms - clock_mono_ms();

    if (strcmp(row->state, "auth-failed") == 0)
        return 0;
    if (s->next_ms != INT64_MAX)
        return clock_wall_us() + (left_ms > 0 ? left_ms : 0) * 1000;
    return w->m->n_threads == 0 ? w->record.next_try_us : 0;
}

static void fill_times(const row_work *w, const standing *s, const char *repo_name, mirror_row *row)
{
    const mirror_record *r = &w->record;
    int64_t left_s = 0;
    memfs_error ignored;

    row->seen_at_us = r->seen_at_us;
    if (r->seen_at_us != 0 && s->answered_at_us > r->seen_at_us)
        row->seen_at_us = s->answered_at_us; /* the record is written when it had news */
    row->pushed_at_us = r->pushed_at_us;
    row->proof_at_us = r->proof_at_us;
    row->next_try_us = next_try_us(w, s, row);
    if (row->direction == REMOTE_PULL || oid_is_zero(&row->local_tip) ||
        oid_equal(&row->local_tip, &row->remote_tip))
        return;
    if (chronicle_left(home_store(w->m->options.home), repo_name, &row->remote_tip, &left_s,
                       &ignored) == MEMFS_OK)
        row->oldest_unmirrored_us = left_s * 1000000;
}

/* Nothing is looked at: the volume of a Letta server's folder may hang, and then this tells so
 * (L3). */
static void fill_address(row_work *w, const remote_config *c, const char *agent_id, mirror_row *row)
{
    _cleanup_(mem_freep) char *text =
        c->folder != NULL ? letta_folder_guess(c->folder, agent_id) : NULL;
    memfs_error ignored;

    if (text == NULL && url_expand(c->url, agent_id, &text, &ignored) < 0)
        text = mem_strdup(c->url);
    snprintf(w->address, sizeof(w->address), "%s", text);
    row->address = w->address;
}

static void fill_row(row_work *w, const remote_config *c, const char *agent_id,
                     const char *repo_name, mirror_row *row)
{
    _cleanup_(repo_closep) repo *r = NULL;
    store *st = home_store(w->m->options.home);
    memfs_error ignored;
    standing s;

    look_at_pair(w->m, agent_id, c->name, &s);
    *row = (mirror_row){ .agent_id = agent_id, .remote = c->name, .direction = c->direction };
    row->remote_tip = w->record.remote_tip;
    row->n_failures = (unsigned)w->record.n_failures;
    row->note = w->record.note;
    row->note_text = w->record.note_text;
    row->note_at_us = w->record.note_at_us;
    if (store_tip(st, repo_name, &row->local_tip, &ignored) == MEMFS_OK &&
        (w->count || !oid_equal(&row->local_tip, &row->remote_tip)) &&
        repo_open(st, repo_name, &r, &ignored) < 0)
        r = NULL;
    if (w->count && r != NULL)
        count_distance(r, row);
    row->state = state_of(w, r, row, &s);
    fill_address(w, c, agent_id, row);
    fill_failure(w, &s, row);
    fill_times(w, &s, repo_name, row);
}

/* "" when its folder is missing or it is fenced: then the row says what is recorded. */
static char *repo_of(mirror *m, const char *agent_id)
{
    memfs_error ignored;
    agent *a;

    if (home_agent_repo(m->options.home, str_of(agent_id), &a, &ignored) < 0)
        return mem_strdup("");
    return mem_strdup(agent_repo(a));
}

static memfs_code status_of(row_work *w, const char *agent_id, mirror_row_fn fn, void *ctx,
                            bool *ret_goes_on, memfs_error *err)
{
    _cleanup_(mem_freep) char *repo_name = repo_of(w->m, agent_id);
    mirror_row row;
    memfs_code rc;

    for (size_t i = 0; *ret_goes_on && i < w->set->r->n; i++) {
        const remote_config *c = &w->set->r->at[i];

        if (!remote_is_for(c, agent_id))
            continue;
        rc = record_load(w->m, agent_id, c->name, &w->record, err);
        if (rc < 0)
            return rc;
        if (!record_is_of(c, agent_id, &w->record))
            memset(&w->record, 0, sizeof(w->record));
        if (c->folder != NULL && w->record.seen_at_us == 0 && w->record.answer[0] == '\0')
            continue; /* that Letta server does not know it */
        fill_row(w, c, agent_id, repo_name, &row);
        *ret_goes_on = fn(&row, ctx);
    }
    return MEMFS_OK;
}

memfs_code mirror_status(mirror *m, memfs_str agent_id, bool count, mirror_row_fn fn, void *ctx,
                         memfs_error *err)
{
    _cleanup_(agent_ids_dispose) agent_ids ids = { NULL, 0, 0 };
    _cleanup_(mem_freep) row_work *w = mem_alloc(sizeof(*w));
    bool goes_on = true;
    remote_set *set;
    memfs_code rc = list_agents(m, agent_id, &ids, err);

    if (rc < 0)
        return rc;
    set = mirror_remotes(m);
    w->m = m;
    w->set = set;
    w->count = count || agent_id.len > 0;
    for (size_t i = 0; rc == MEMFS_OK && goes_on && i < ids.n; i++)
        rc = status_of(w, ids.at[i], fn, ctx, &goes_on, err);
    mirror_remotes_unref(m, set);
    return rc;
}

/* ---- an operator's work ---- */

typedef struct work {
    mirror *m;
    remote_set *set;
    agent_ids ids;
    const char *remote;
    int keep;
    bool is_all;
    const upkeep_watcher *w;
    upkeep_result *ret;
    ticket *tickets; /* one a pair, in their order */
    size_t n_begun, n_ended;
} work;

static void tell(const work *k, const char *agent_id, const char *kind, const char *remote,
                 const char *text, bool is_bad)
{
    k->ret->n_findings += is_bad;
    if (k->w != NULL && k->w->finding != NULL)
        k->w->finding(agent_id, kind, remote, text, k->w->ctx);
}

typedef void (*pair_fn)(work *k, const char *agent_id, const remote_config *c);

static void for_pairs(work *k, pair_fn fn, bool is_told)
{
    for (size_t i = 0; i < k->ids.n; i++) {
        for (size_t j = 0; j < k->set->r->n; j++)
            if (is_chosen(&k->set->r->at[j], k->remote, k->ids.at[i]))
                fn(k, k->ids.at[i], &k->set->r->at[j]);
        k->ret->n_agents += is_told;
        if (is_told && k->w != NULL && k->w->progress != NULL &&
            !k->w->progress(i + 1, k->ids.n, k->ids.at[i], k->w->ctx))
            break;
    }
}

/* first may be NULL: what is done with all pairs before `fn` is, without a word. */
static memfs_code do_work(work *k, memfs_str agent_id, pair_fn first, pair_fn fn, memfs_error *err)
{
    memfs_code rc = list_agents(k->m, agent_id, &k->ids, err);

    *k->ret = (upkeep_result){ .n_agents = 0 };
    k->set = mirror_remotes(k->m);
    if (rc == MEMFS_OK)
        rc = check_remote(k->set, k->remote, err);
    if (rc == MEMFS_OK && first != NULL)
        for_pairs(k, first, false);
    if (rc == MEMFS_OK)
        for_pairs(k, fn, true);
    while (k->n_ended < k->n_begun) /* told to stop */
        if (k->tickets[k->n_ended++].pair != NULL)
            mirror_give_up(k->m, &k->tickets[k->n_ended - 1]);
    mirror_remotes_unref(k->m, k->set);
    agent_ids_dispose(&k->ids);
    free(k->tickets);
    return rc;
}

static void begin_one(work *k, const char *agent_id, const remote_config *c)
{
    memfs_error ignored;
    unsigned wants = WANT_LOOK | WANT_PUSH | WANT_NOW;
    ticket *t;

    k->tickets = mem_realloc(k->tickets, k->n_begun + 1, sizeof(*k->tickets));
    t = &k->tickets[k->n_begun];
    if ((k->is_all ? mirror_begin_in_turn(k->m, str_of(agent_id), c->name, wants, t, &ignored)
                   : mirror_begin(k->m, str_of(agent_id), c->name, wants, t, &ignored)) < 0)
        k->tickets[k->n_begun].pair = NULL;
    k->n_begun++;
}

static void end_one(work *k, const char *agent_id, const remote_config *c)
{
    ticket *t = &k->tickets[k->n_ended++];
    exchange_result result = { .code = MEMFS_OK };
    memfs_error err = { MEMFS_EUNAVAIL, "the remotes were configured anew meanwhile" };

    if (t->pair == NULL ||
        mirror_end(k->m, t, c->name, clock_mono_ms() + EXCHANGE_MS, &result, &err) < 0) {
        k->ret->n_failed++;
        tell(k, agent_id, "failed", c->name, err.msg, true);
    } else if (result.code != MEMFS_OK) {
        k->ret->n_failed++;
        tell(k, agent_id, "failed", c->name, result.failure, true);
    } else {
        tell(k, agent_id, "mirrored", c->name,
             result.was_pushed  ? "pushed"
             : result.was_moved ? "taken in" : "nothing to do", false);
    }
}

/*
 * All at once where workers run; one after the other where not.  One agent is somebody's wish, and
 * goes first.  All of them are work as any: they stay behind pushes, and where the first few find
 * the host still away or refusing, the gate closes and the others are told so.
 */
memfs_code mirror_retry(mirror *m, memfs_str agent_id, const char *remote, const upkeep_watcher *w,
                        upkeep_result *ret, memfs_error *err)
{
    work k = { .m = m, .remote = remote, .is_all = agent_id.len == 0, .w = w, .ret = ret };

    if (k.is_all) {
        pthread_mutex_lock(&m->mutex);
        gate_open_all(m, remote);
        pthread_mutex_unlock(&m->mutex);
    }
    return do_work(&k, agent_id, begin_one, end_one, err);
}

/* ---- ending a note ---- */

static memfs_code end_note(mirror *m, const char *agent_id, const char *remote, memfs_error *err)
{
    mirror_record *before = mem_alloc(sizeof(*before)), *now = mem_alloc(sizeof(*now));
    pair_hold h;
    memfs_code rc = pair_hold_take(m, str_of(agent_id), remote, clock_mono_ms() + EXCHANGE_MS, &h,
                                   err);

    if (rc == MEMFS_OK) {
        rc = record_load(m, agent_id, remote, before, err);
        memcpy(now, before, sizeof(*now));
        now->note = MIRROR_NOTE_NONE;
        memset(now->note_text, 0, sizeof(now->note_text));
        now->note_at_us = 0;
        if (rc == MEMFS_OK)
            rc = record_save(m, agent_id, remote, before, now, err);
        pair_hold_release(m, &h);
    }
    free(before);
    free(now);
    return rc;
}

/* Notes that say that nothing goes on: they do not end by being accepted. */
static bool must_be_joined(mirror_note n)
{
    return n == MIRROR_NOTE_REFUSED || n == MIRROR_NOTE_REJECTED || n == MIRROR_NOTE_DIVERGED;
}

static bool join(work *k, const char *agent_id, const remote_config *c, mirror_note note)
{
    exchange_result result;
    memfs_error err;
    memfs_code rc;

    if (k->keep == INTAKE_MERGE && !must_be_joined(note))
        return true;
    rc = mirror_exchange_keeping(k->m, str_of(agent_id), c->name, k->keep,
                                 clock_mono_ms() + EXCHANGE_MS, &result, &err);
    if (rc == MEMFS_OK && result.code == MEMFS_OK)
        return true;
    k->ret->n_failed++;
    tell(k, agent_id, "failed", c->name, rc < 0 ? err.msg : result.failure, true);
    return false;
}

static void resolve_one(work *k, const char *agent_id, const remote_config *c)
{
    mirror_record *r = mem_alloc(sizeof(*r));
    memfs_error err;
    mirror_note note = MIRROR_NOTE_NONE;

    if (record_load(k->m, agent_id, c->name, r, &err) == MEMFS_OK)
        note = r->note;
    free(r);
    if (note == MIRROR_NOTE_NONE)
        tell(k, agent_id, "nothing", c->name, "no note stands", false);
    if (note == MIRROR_NOTE_NONE || !join(k, agent_id, c, note))
        return;
    if (end_note(k->m, agent_id, c->name, &err) < 0) {
        k->ret->n_failed++;
        tell(k, agent_id, "failed", c->name, err.msg, true);
        return;
    }
    tell(k, agent_id, "resolved", c->name, mirror_note_name(note), false);
}

memfs_code mirror_resolve(mirror *m, memfs_str agent_id, const char *remote, int keep,
                          const upkeep_watcher *w, upkeep_result *ret, memfs_error *err)
{
    work k = { .m = m, .remote = remote, .keep = keep, .w = w, .ret = ret };

    return do_work(&k, agent_id, NULL, resolve_one, err);
}
