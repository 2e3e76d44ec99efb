/*
 * push.c - a push, step by step, and what each failure leaves behind.
 *
 *     step                                  fails: the client reads    on disk
 *     1  the command (begin)                ng <reason>                nothing
 *     2  the pack (feed, finish)            unpack <reason>, ng        nothing (quarantine goes)
 *     -- the agent's lock --
 *     3  old id is the tip                  ng fetch first             nothing
 *     4  policy, ancestry, read-only files  ng <path and rule>         nothing
 *     5  rows are planned, warnings told    ng under strict            nothing
 *     6  repository made (first push)       ng                         nothing
 *     7  pack taken in                      ng                         nothing (a made folder goes)
 *     8  the state knows the agent          ng                         the genesis, as a clone shows it
 *     9  the ref moves and is read back     ng; or no answer at all    the genesis, or fenced (F05)
 *     10 the cache                          ok, and a line             rows follow at the next touch
 *
 * Steps 5 to 10 are advance.c, which takes in what was fetched and restored, too (intake.c).
 *
 * A command that was refused in step 1 still has its pack read, and thrown away: the client sends
 * it before it listens.
 *
 * The same command again after a lost answer finds main where it wants it, and is told so (D4).
 * But a main that this process did not move may come from a crash between the rename and the fsync
 * of its folder, or from a hand: it is synced before anything built on it is acknowledged (D1).
 */
#include "sync/push.h"

#include "base/escape.h"
#include "base/mem.h"
#include "sync/advance.h"
#include "sync/away.h"
#include "sync/read_only.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define LOCK_MS 30000
#define MAX_LOCKED_TOLD 20

struct push {
    home *h;
    agent *a;
    memfs_oid old_id, new_id;
    incoming *in; /* NULL: refused before a byte came */
    incoming_talk_fn talk;
    void *talk_ctx;
    push_read_only read_only;
    bool was_fed;
    memfs_error refused; /* of step 1 */
    memfs_error broken;  /* of step 2 */
};

/* ---- 1: the command ---- */

static memfs_code check_command(const push_command *c, memfs_error *err)
{
    if (!str_equal(c->ref, MEMFS_STR(STORE_MAIN)))
        return memfs_fail(err, MEMFS_EDENIED, "only the branch main can be pushed here");
    if (oid_is_zero(&c->new_id))
        return memfs_fail(err, MEMFS_EDENIED, "the branch main cannot be deleted");
    return MEMFS_OK;
}

static memfs_code begin_quarantine(push *p, bool wants_progress, memfs_error *err)
{
    incoming_options options = INCOMING_OPTIONS_INIT;
    memfs_code rc;

    options.max_pack_bytes = p->h->options.max_pack_bytes;
    options.wants_progress = wants_progress;
    options.talk = p->talk;
    options.talk_ctx = p->talk_ctx;
    rc = incoming_begin(p->h->store, p->a->repo, &options, &p->in, err);
    if (rc == MEMFS_ENOSPACE) { /* an answer for the client's git rather than an HTTP status */
        p->broken = *err;
        return MEMFS_OK;
    }
    return rc;
}

memfs_code push_begin(home *h, memfs_str agent_id, const push_command *command, bool wants_progress,
                      incoming_talk_fn talk, void *talk_ctx, push **ret, memfs_error *err)
{
    _cleanup_(push_freep) push *p = mem_alloc(sizeof(*p));
    bool is_known;
    memfs_code rc;

    p->h = h;
    p->old_id = command->old_id;
    p->new_id = command->new_id;
    p->talk = talk;
    p->talk_ctx = talk_ctx;
    rc = home_agent_for_push(h, agent_id, &p->a, &is_known, err);
    if (rc < 0)
        return rc;
    if (check_command(command, &p->refused) == MEMFS_OK) {
        rc = begin_quarantine(p, wants_progress, err);
        if (rc < 0)
            return rc;
    }
    *ret = TAKE_PTR(p);
    return MEMFS_OK;
}

void push_set_read_only(push *p, push_read_only rule)
{
    p->read_only = rule;
}

void push_free(push *p)
{
    if (p == NULL)
        return;
    incoming_abort(p->in);
    free(p);
}

void push_freep(push **p)
{
    push_free(*p);
    *p = NULL;
}

/* ---- 2: the pack ---- */

memfs_code push_feed(push *p, const void *bytes, size_t n, memfs_error *err)
{
    memfs_code rc;

    if (p->in == NULL || p->broken.code != MEMFS_OK)
        return MEMFS_OK; /* read and thrown away */
    p->was_fed = p->was_fed || n > 0;
    rc = incoming_feed(p->in, bytes, n, err);
    if (rc < 0)
        p->broken = *err;
    return rc;
}

static memfs_code finish_pack(push *p)
{
    if (p->broken.code != MEMFS_OK || p->in == NULL || !p->was_fed)
        return p->broken.code;
    return incoming_finish(p->in, &p->broken);
}

/* ---- 3 to 10: main ---- */

static memfs_code check_old_id(const push *p, const advance *v, memfs_error *err)
{
    bool begins = !v->exists && oid_is_zero(&p->old_id); /* a client that forces a new branch */

    if (begins || oid_equal(&p->old_id, &v->tip))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ECONFLICT, "fetch first");
}

static memfs_code vet(push *p, advance *v, memfs_error *err)
{
    _cleanup_(mem_freep) memfs_oid *banned = NULL;
    incoming_vetting vetting = { .base = &v->tip,
                                 .tip = &p->new_id,
                                 .policy = &p->h->options.policy };
    memfs_code rc;

    rc = agent_banned(p->h, p->a, &banned, &vetting.n_banned, err);
    if (rc < 0)
        return rc;
    vetting.banned = banned;
    return advance_judged(v, incoming_vet(p->in, &vetting, err), err);
}

/* ---- 4: what is read-only ---- */

typedef struct locked {
    const push *p;
    size_t n;
    memfs_error first; /* the refusal, of the first file */
} locked;

static void tell(const push *p, const char *fmt, ...) MEMFS_PRINTF(2, 3);

static void tell(const push *p, const char *fmt, ...)
{
    char line[512];
    va_list ap;

    if (p->talk == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    p->talk(str_of(line), p->talk_ctx);
}

/*
 * Each is named on the side band, with what puts it back: an agent's client may know nothing of the
 * rule, and would otherwise learn of the files one push at a time.
 */
static memfs_code note_locked(memfs_str path, bool is_deleted, void *ctx, memfs_error *err)
{
    const char *what = is_deleted ? "deleted" : "changed";
    char shown[240], tip[MEMFS_OID_HEX + 1];
    locked *l = ctx;

    (void)err;
    if (l->n++ >= MAX_LOCKED_TOLD)
        return MEMFS_OK;
    escape_text(path, shown, sizeof(shown));
    oid_hex(&l->p->old_id, tip);
    if (l->p->read_only == PUSH_READ_ONLY_WARN) {
        tell(l->p, "warning: '%s' is read_only and was %s; an agent's token may not do that", shown,
             what);
        return MEMFS_OK;
    }
    tell(l->p, "'%s' is read_only and was %s", shown, what);
    if (l->n == 1)
        (void)memfs_fail(
            &l->first, MEMFS_EDENIED,
            "'%s' is read_only: put it back with 'git checkout %.10s -- FILE', commit, "
            "and push again; an admin token may change it",
            shown, tip);
    return MEMFS_OK;
}

static memfs_code check_read_only(push *p, advance *v, memfs_error *err)
{
    locked l = { .p = p, .first = MEMFS_ERROR_INIT };
    memfs_code rc;

    if (p->read_only == PUSH_READ_ONLY_MAY || !v->exists)
        return MEMFS_OK;
    rc = read_only_walk(incoming_repo(p->in), &v->tip, &p->new_id, &p->h->options.policy,
                        note_locked, &l, err);
    if (rc < 0)
        return advance_judged(v, rc, err);
    if (l.n > MAX_LOCKED_TOLD)
        tell(p, "and %zu more files that are read_only", l.n - MAX_LOCKED_TOLD);
    if (l.n == 0 || p->read_only == PUSH_READ_ONLY_WARN)
        return MEMFS_OK;
    *err = l.first;
    return err->code;
}

static memfs_code accept_pack(void *ctx, memfs_error *err)
{
    return incoming_accept(((push *)ctx)->in, err);
}

static memfs_code advance_main(push *p, advance *v, const store_identity *who, memfs_error *err)
{
    advance_step step = {
        .to = p->new_id, .accept = accept_pack, .ctx = p, .who = who, .why = "push"
    };
    memfs_code rc;

    rc = check_old_id(p, v, err);
    if (rc == MEMFS_OK)
        rc = vet(p, v, err);
    if (rc == MEMFS_OK)
        rc = check_read_only(p, v, err);
    if (rc < 0)
        return rc;
    step.objects = incoming_repo(p->in);
    rc = advance_to(v, &step, err);
    return rc == MEMFS_ECONFLICT ? memfs_fail(err, rc, "fetch first") : rc;
}

static memfs_code decide(push *p, const store_identity *who, push_verdict *ret, memfs_error *err)
{
    advance v = { .h = p->h, .a = p->a, .talk = p->talk, .talk_ctx = p->talk_ctx };
    memfs_code rc;

    rc = advance_begin(&v, err);
    if (rc < 0)
        return rc;
    if (v.exists && oid_equal(&v.tip, &p->new_id)) { /* it came through before */
        rc = advance_settle(&v, true, err);
        ret->moved = rc == MEMFS_OK;
        ret->must_not_report = rc < 0;
        return rc;
    }
    rc = advance_settle(&v, false, err);
    if (rc == MEMFS_OK)
        rc = advance_main(p, &v, who, err);
    ret->moved = v.moved;
    ret->must_not_report = v.unclear;
    return rc;
}

static void refuse(push_verdict *ret, const memfs_error *err)
{
    ret->code = err->code;
    snprintf(ret->refusal, sizeof(ret->refusal), "%.*s", (int)sizeof(ret->refusal) - 1, err->msg);
}

void push_finish(push *p, const store_identity *who, push_verdict *ret)
{
    memfs_error err = MEMFS_ERROR_INIT;

    *ret = (push_verdict){ .unpacked = true };
    if (finish_pack(p) != MEMFS_OK) {
        ret->unpacked = false;
        ret->code = p->broken.code;
        snprintf(ret->unpack_error, sizeof(ret->unpack_error), "%.*s",
                 (int)sizeof(ret->unpack_error) - 1, p->broken.msg);
        snprintf(ret->refusal, sizeof(ret->refusal), "unpacker error");
        return;
    }
    if (p->refused.code != MEMFS_OK) {
        refuse(ret, &p->refused);
        return;
    }
    if (!agent_lock_for(p->a, LOCK_MS)) {
        memfs_fail(&err, MEMFS_EUNAVAIL, "other pushes to this agent take too long: try again");
        refuse(ret, &err);
        return;
    }
    if (decide(p, who, ret, &err) < 0)
        refuse(ret, &err);
    agent_unlock(p->a);
    if (ret->moved && !home_has_copies(p->h, p->a, &p->new_id)) {
        ret->moved = false;
        ret->must_not_report = true; /* it is main, and stays; sent again it is asked for again */
        memfs_fail(&err, MEMFS_EUNAVAIL, "too few servers have it");
        refuse(ret, &err);
    }
}
