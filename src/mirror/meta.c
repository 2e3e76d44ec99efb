/*
 * meta.c - refs/memfs/meta travels beside main (store/sidecar.h).
 *
 * What a remote says is merged, never believed over what is here (H5): times become the earlier of
 * both; name and tags follow whoever changed them last, as far as the sidecar's own history tells:
 *
 *     theirs contains ours, and nothing was changed here since    theirs
 *     ours contains theirs                                        ours
 *     both have something of their own                            joined (meta_text_join)
 *
 * Every server that sees the same two sides writes the same text, so the same commit (sidecar.h),
 * and a fleet settles.
 *
 * Births are taken and written of blocks that are in a tree, and of no others: a remote that tells
 * of other labels each time would fill the state.  A block that was deleted and is restored keeps
 * its date all the same, as a birth that was seen here stays in the state (K4), and the servers
 * that saw it tell each other when the block is there again.  Only a machine that is rebuilt between the
 * two dates it anew.
 *
 * It costs a question only where there is news: theirs is fetched when main was, ours is written and
 * pushed when main was pushed and the text changed.  A host that takes no such ref is remembered in
 * the record (REFUSED) and left alone until somebody asks for an exchange by hand, or the address
 * changes.  What fails here fails no exchange: names and dates come the next time.
 *
 * Written and moved under the agent's lock, which is not held over the network.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "mirror/exchange_int.h"
#include "mirror/meta_living.h"
#include "mirror/rarely.h"
#include "store/sidecar.h"

#include <stdlib.h>
#include <string.h>

#define META_FETCH_BYTES (16u << 20)
#define META_MS 20000
#define LOCK_MS 10000
#define MAX_ROUNDS 3

/* What the record says instead of a tip: the host takes no such ref. */
static const memfs_oid REFUSED = { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } };

static const memfs_oid NONE;

/* exchange.meta: what came with main */
typedef struct meta {
    memfs_oid tip; /* zero: the remote has none, or none that can be used */
    meta_text text;
    bool was_asked;
    bool is_spoilt;
} meta;

static meta *meta_of(exchange *x)
{
    if (x->meta == NULL)
        x->meta = mem_alloc(sizeof(meta));
    return x->meta;
}

void mirror_meta_dispose(exchange *x)
{
    meta *m = x->meta;

    if (m == NULL)
        return;
    meta_text_dispose(&m->text);
    free(m);
    x->meta = NULL;
}

static int64_t until(const exchange *x)
{
    int64_t soon = clock_mono_ms() + META_MS;

    return x->deadline_ms < soon ? x->deadline_ms : soon;
}

/* For the log: names and dates are late, nothing is lost. */
static void tell(exchange *x, const char *what, const memfs_error *err)
{
    if (!mirror_is_stopping(x->m))
        mirror_event_rarely(x, "mirror_meta_failed", what, err->msg);
}

/*
 * Theirs is none that can be used, and will not be by itself: the status shows it as long as it is
 * so, and the note is told once.  Any other note says more, and stays.  tip: zero where the fetch
 * did not tell.  It counts as seen, so that it is not fetched again and again.
 */
static void spoil(exchange *x, const memfs_oid *tip, const memfs_error *err)
{
    mirror_note stands = x->record.note;
    char hex[MEMFS_OID_HEX + 1];

    meta_of(x)->is_spoilt = true;
    if (!oid_is_zero(tip))
        x->record.meta_tip = *tip;
    oid_hex(&x->record.meta_tip, hex);
    if (stands == MIRROR_NOTE_NONE || stands == MIRROR_NOTE_META)
        record_note(&x->record, MIRROR_NOTE_META, STORE_META " of the remote (%.10s) is not taken "
                                                  "in: %s", hex, err->msg);
    else
        tell(x, "the remote's is not taken in", err);
}

/* Is it the remote's fault, and no passing one? */
static bool is_verdict(memfs_code rc)
{
    return rc == MEMFS_EINVALID || rc == MEMFS_EDENIED || rc == MEMFS_ELIMIT ||
           rc == MEMFS_ENOTFOUND || rc == MEMFS_ECORRUPT;
}

/* ---- theirs ---- */

static memfs_code read_text(repo *r, const memfs_oid *tip, const char *agent_id, meta_text *ret,
                            memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(META_MAX_BYTES);
    memfs_code rc = sidecar_read(r, tip, META_FILE, META_MAX_BYTES, &text, err);

    return rc == MEMFS_OK ? meta_text_parse(buf_str(&text), agent_id, ret, err) : rc;
}

bool mirror_meta_comes(exchange *x)
{
    return x->knows_meta && x->config->direction != REMOTE_PUSH && !oid_is_zero(&x->meta_there) &&
           !oid_equal(&x->meta_there, &x->record.meta_tip);
}

void mirror_meta_came(exchange *x, fetched *f, const memfs_oid *tip)
{
    meta *m = meta_of(x);
    repo *r = fetched_repo(f);
    memfs_error err = MEMFS_ERROR_INIT;

    m->was_asked = true;
    meta_text_dispose(&m->text);
    m->tip = (memfs_oid){ { 0 } };
    if (r == NULL) {
        memfs_fail(&err, MEMFS_EUNAVAIL, "what it sent cannot be opened");
        tell(x, "the remote's could not be read", &err);
        return;
    }
    if (read_text(r, tip, x->agent_id, &m->text, &err) < 0) {
        if (is_verdict(err.code))
            spoil(x, tip, &err);
        else
            tell(x, "the remote's could not be read", &err);
        return;
    }
    m->tip = *tip;
    fetched_bring_along(f, tip); /* one pack with main; whether it is ours is found out after it */
}

/* Once an exchange, and only where there may be news. */
static void ask(exchange *x, fetched *f)
{
    meta *m = meta_of(x);
    transport_report report = { .said = "" };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_oid tip;
    memfs_code rc;

    if (m->was_asked || (x->knows_meta && !mirror_meta_comes(x)))
        return;
    m->was_asked = true;
    rc = fetched_fetch(f, &x->to, STORE_META, META_FETCH_BYTES, until(x), &tip, &report, &err);
    if (rc == MEMFS_OK)
        mirror_meta_came(x, f, &tip);
    else if (rc == MEMFS_ELIMIT || report.cause == TRANSPORT_CAUSE_DAMAGED)
        spoil(x, x->knows_meta ? &x->meta_there : &NONE, &err);
    else if (rc != MEMFS_ENOTFOUND)
        tell(x, "the remote's could not be fetched", &err);
}

/* Times alone: whose name and tags count is only known when both sidecars are. */
static memfs_code merge_into_state(exchange *x, const meta_text *text, bool only_times,
                                   memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf tags = MEMFS_BUF_INIT(META_MAX_BYTES);
    state_birth *births = NULL;
    state_agent attributes;
    memfs_code rc;

    meta_text_as_state(text, &tags, &attributes, &births);
    if (only_times)
        attributes.name = attributes.tags_json = MEMFS_STR("");
    rc = intake_attributes(mirror_home(x->m), &attributes, births, text->n_births, err);
    free(births);
    return rc;
}

/* Their tree was not judged yet: what it may bring in is as much as a judged one. */
static memfs_code date_before(exchange *x, fetched *f, const memfs_oid *theirs, memfs_error *err)
{
    _cleanup_(meta_text_dispose) meta_text living = META_TEXT_INIT;
    const policy *p = &home_settings(mirror_home(x->m))->policy;
    const memfs_oid tips[] = { x->ours, *theirs };
    const meta_text *told = &meta_of(x)->text;
    memfs_error ignored;
    memfs_code rc;

    meta_text_follow(told, told, &living);
    if (meta_keep_living(fetched_repo(f), p, tips, ARRAY_LEN(tips), &living, &ignored) < 0)
        return MEMFS_OK; /* a tree that cannot be walked is refused next, and that is told */
    rc = meta_keep_few(home_state(mirror_home(x->m)), p->max_entries, &living, err);
    return rc == MEMFS_OK ? merge_into_state(x, &living, true, err) : rc;
}

/*
 * The first rows of an agent that nobody here knows are to be dated right, and those of labels that
 * are new: a date that is known before its row costs nothing, one that comes later all rows.
 */
void mirror_meta_before(exchange *x, fetched *f, const memfs_oid *theirs)
{
    memfs_error err = MEMFS_ERROR_INIT;
    meta *m = meta_of(x);

    if (x->config->direction == REMOTE_PUSH || x->keep == INTAKE_REVIVE)
        return; /* of one whose folder is gone all dates are still here */
    if (x->is_unknown)
        ask(x, f);
    if (x->record.note == MIRROR_NOTE_REFUSED)
        return; /* most likely it is refused again */
    if (!oid_is_zero(&m->tip) && date_before(x, f, theirs, &err) < 0)
        tell(x, "could not take over its dates", &err);
}

/* ---- joining both, under the agent's lock ---- */

/* text loses the births of what is not in main. */
static memfs_code write_text(exchange *x, repo *r, const memfs_oid *theirs, meta_text *text,
                             memfs_oid *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(META_MAX_BYTES);
    home *h = mirror_home(x->m);
    memfs_oid tip;
    memfs_code rc = store_tip(home_store(h), agent_repo(x->agent), &tip, err);

    if (rc == MEMFS_OK)
        rc = meta_keep_living(r, &home_settings(h)->policy, &tip, 1, text, err);
    if (rc < 0)
        return rc;
    meta_text_write(text, &out);
    rc = buf_check(&out, META_FILE, err);
    return rc == MEMFS_OK ? sidecar_write(r, theirs, META_FILE, buf_str(&out), ret, err) : rc;
}

/* Did somebody change name or tags here since our sidecar was written? */
static bool was_changed_here(repo *r, const memfs_oid *ours, const meta_text *now)
{
    meta_text then = META_TEXT_INIT;
    memfs_error ignored;
    bool is_changed;

    if (oid_is_zero(ours)) /* never written: what was set here counts */
        return now->name[0] != '\0' || now->n_tags > 0;
    is_changed = read_text(r, ours, now->agent_id, &then, &ignored) < 0 ||
                 !meta_text_is_alike(&then, now);
    meta_text_dispose(&then);
    return is_changed;
}

static memfs_code join(repo *r, const meta *theirs, const meta_text *now, meta_text *ret,
                       memfs_error *err)
{
    bool has_ours = true, has_theirs = false;
    memfs_oid ours;
    memfs_code rc = sidecar_tip(r, &ours, err);

    if (rc == MEMFS_OK && !oid_is_zero(&ours)) {
        rc = repo_is_ancestor(r, &ours, &theirs->tip, &has_ours, err);
        if (rc == MEMFS_OK)
            rc = repo_is_ancestor(r, &theirs->tip, &ours, &has_theirs, err);
    }
    if (rc < 0)
        return rc;
    if (has_theirs)
        meta_text_follow(now, &theirs->text, ret);
    else if (has_ours && !was_changed_here(r, &ours, now))
        meta_text_follow(&theirs->text, now, ret);
    else
        meta_text_join(&theirs->text, now, ret);
    return MEMFS_OK;
}

/* theirs is in f and becomes part of our sidecar; *ret is what both say. */
static memfs_code join_locked(exchange *x, fetched *f, meta_text *ret, memfs_error *err)
{
    _cleanup_(meta_text_dispose) meta_text now = META_TEXT_INIT;
    _cleanup_(repo_closep) repo *r = NULL;
    home *h = mirror_home(x->m);
    const meta *theirs = x->meta;
    memfs_oid tip;
    memfs_code rc = fetched_accept(f, &theirs->tip, err);

    if (rc == MEMFS_OK)
        rc = repo_open(home_store(h), agent_repo(x->agent), &r, err);
    if (rc == MEMFS_OK)
        rc = meta_text_load(home_state(h), x->agent_id, &now, err);
    if (rc == MEMFS_OK)
        rc = join(r, theirs, &now, ret, err);
    if (rc == MEMFS_OK)
        rc = write_text(x, r, &theirs->tip, ret, &tip, err);
    return rc;
}

static memfs_code lock(exchange *x, memfs_error *err)
{
    if (agent_lock_for(x->agent, LOCK_MS))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EUNAVAIL, "other work on the agent takes too long");
}

/* The sidecar first, so that a crash between the two is made good by the next exchange. */
static void take(exchange *x, fetched *f)
{
    _cleanup_(meta_text_dispose) meta_text both = META_TEXT_INIT;
    memfs_error err = MEMFS_ERROR_INIT;
    const fetched_vetting v = { .tip = &meta_of(x)->tip,
                                .policy = &home_settings(mirror_home(x->m))->policy };
    memfs_code rc = lock(x, &err), verdict = MEMFS_OK;

    if (rc == MEMFS_OK) {
        rc = verdict = fetched_vet(f, &v, &err);
        if (rc == MEMFS_OK)
            rc = join_locked(x, f, &both, &err);
        agent_unlock(x->agent);
    }
    if (rc == MEMFS_OK)
        rc = merge_into_state(x, &both, false, &err);
    if (verdict == MEMFS_EDENIED || verdict == MEMFS_ELIMIT) {
        spoil(x, &meta_of(x)->tip, &err);
        return;
    }
    if (rc < 0) {
        tell(x, "the remote's could not be taken in", &err);
        return;
    }
    x->record.meta_tip = meta_of(x)->tip;
    exchange_clear_note(&x->record, MIRROR_NOTE_META);
}

void mirror_meta_taken(exchange *x, fetched *f)
{
    if (x->agent == NULL || x->config->direction == REMOTE_PUSH)
        return;
    ask(x, f);
    if (!oid_is_zero(&meta_of(x)->tip) && !oid_equal(&meta_of(x)->tip, &x->record.meta_tip))
        take(x, f);
}

/* ---- ours ---- */

/* What our sidecar is; written anew where something has changed. */
static memfs_code write_ours(exchange *x, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(meta_text_dispose) meta_text now = META_TEXT_INIT;
    _cleanup_(repo_closep) repo *r = NULL;
    home *h = mirror_home(x->m);
    memfs_code rc = lock(x, err);

    if (rc < 0)
        return rc;
    rc = repo_open(home_store(h), agent_repo(x->agent), &r, err);
    if (rc == MEMFS_OK)
        rc = meta_text_load(home_state(h), x->agent_id, &now, err);
    if (rc == MEMFS_OK)
        rc = write_text(x, r, &NONE, &now, ret, err);
    agent_unlock(x->agent);
    return rc;
}

/* Somebody else was first: theirs into ours, then once more. */
static void catch_up(exchange *x)
{
    _cleanup_(fetched_freep) fetched *f = NULL;
    memfs_error err = MEMFS_ERROR_INIT;

    mirror_meta_dispose(x);
    if (x->config->direction == REMOTE_PUSH)
        return;
    if (fetched_begin(home_store(mirror_home(x->m)), agent_repo(x->agent), &f, &err) < 0) {
        tell(x, "the remote's could not be fetched", &err);
        return;
    }
    ask(x, f);
    if (!oid_is_zero(&meta_of(x)->tip))
        take(x, f);
}

/* Does the host take no such ref, now or ever? */
static bool is_refusal(memfs_code rc, const transport_report *report)
{
    switch (report->cause) {
    case TRANSPORT_CAUSE_PROTECTED:
    case TRANSPORT_CAUSE_HOOK:
    case TRANSPORT_CAUSE_FORBIDDEN:
    case TRANSPORT_CAUSE_UNAUTHORIZED:
    case TRANSPORT_CAUSE_NOT_FOUND:
    case TRANSPORT_CAUSE_READ_ONLY: return true;
    default: return rc == MEMFS_ECONFLICT;
    }
}

/* True: somebody else moved it. */
static bool push_once(exchange *x, const memfs_oid *tip)
{
    _cleanup_(mem_freep) char *dir =
        store_path(home_store(mirror_home(x->m)), agent_repo(x->agent));
    transport_report report = { .said = "" };
    memfs_error err = MEMFS_ERROR_INIT;
    _cleanup_(repo_closep) repo *reader = NULL; /* as for main (F13) */
    memfs_code rc = repo_open(home_store(mirror_home(x->m)), agent_repo(x->agent), &reader, &err);

    if (rc == MEMFS_OK)
        rc = transport_push_ref(dir, &x->to, STORE_META, tip, until(x), &report, &err);
    if (rc == MEMFS_OK) {
        x->record.meta_tip = *tip;
        exchange_clear_note(&x->record, MIRROR_NOTE_META);
        return false;
    }
    if (rc == MEMFS_ECONFLICT && report.was_moved)
        return true;
    if (is_refusal(rc, &report) && !mirror_is_stopping(x->m)) {
        x->record.meta_tip = REFUSED;
        mirror_event(x->m, "mirror_meta_refused", x->agent_id, x->config->name,
                     report.said[0] != '\0' ? report.said : err.msg);
        return false;
    }
    tell(x, "ours could not be pushed", &err);
    return false;
}

/*
 * A kill came between main and its sidecar: the look shows one that was never taken in.  Or
 * somebody has put another in the place of one that could not be used.
 */
static bool was_missed(exchange *x)
{
    bool is_waited_for = oid_is_zero(&x->record.meta_tip) || x->record.note == MIRROR_NOTE_META;

    return is_waited_for && mirror_meta_comes(x) && !meta_of(x)->was_asked;
}

/* What could not be used was deleted there: ours is pushed as if none had ever been. */
static void forget_spoilt(exchange *x)
{
    if (x->record.note != MIRROR_NOTE_META || !x->knows_meta || !oid_is_zero(&x->meta_there))
        return;
    x->record.meta_tip = NONE;
    exchange_clear_note(&x->record, MIRROR_NOTE_META);
}

static bool is_due(const exchange *x)
{
    if (x->config->direction == REMOTE_PULL)
        return false;
    if (x->record.note == MIRROR_NOTE_META) /* nothing is forced: no push could succeed */
        return (x->wants & WANT_NOW) != 0;
    if (oid_equal(&x->record.meta_tip, &REFUSED))
        return (x->wants & WANT_NOW) != 0 && x->was_pushed;
    return x->was_pushed || oid_is_zero(&x->record.meta_tip);
}

void mirror_meta_after(exchange *x)
{
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_oid tip;

    forget_spoilt(x);
    if (was_missed(x))
        catch_up(x);
    if (!is_due(x))
        return;
    for (int round = 0; round < MAX_ROUNDS && !mirror_is_stopping(x->m); round++) {
        if (write_ours(x, &tip, &err) < 0) {
            tell(x, "ours could not be written", &err);
            return;
        }
        if (oid_equal(&tip, &x->record.meta_tip) || !push_once(x, &tip))
            return;
        x->knows_meta = false; /* it has moved since */
        catch_up(x);
        if (meta_of(x)->is_spoilt)
            return;
    }
}
