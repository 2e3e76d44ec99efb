/*
 * push.c - a push, step by step, and what each failure leaves behind.
 *
 *     step                                  fails: the client reads    on disk
 *     1  the command (begin)                ng <reason>                nothing
 *     2  the pack (feed, finish)            unpack <reason>, ng        nothing (quarantine goes)
 *     -- the agent's lock --
 *     3  old id is the tip                  ng fetch first             nothing
 *     4  policy, ancestry                   ng <path and rule>         nothing
 *     5  rows are planned, warnings told    ng under strict            nothing
 *     6  repository made (first push)       ng                         nothing
 *     7  pack taken in                      ng                         nothing (a made folder goes)
 *     8  the state knows the agent          ng                         the genesis, as a clone shows it
 *     9  the ref moves and is read back     ng; or no answer at all    the genesis, or fenced (F05)
 *     10 the cache                          ok, and a line             rows follow at the next touch
 *
 * A command that was refused in step 1 still has its pack read, and thrown away: the client sends
 * it before it listens.
 *
 * The same command again after a lost answer finds main where it wants it, and is told so (D4).
 * But a main that this process did not move may come from a crash between the rename and the fsync
 * of its folder, or from a hand: it is synced before anything built on it is acknowledged (D1).
 */
#include "sync/push.h"

#include "base/clock.h"
#include "base/mem.h"
#include "sync/home_int.h"
#include "sync/materialise_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define LOCK_MS 30000
#define MAX_WARNINGS 20

struct push {
    home *h;
    agent *a;
    memfs_oid old_id, new_id;
    incoming *in; /* NULL: refused before a byte came */
    incoming_talk_fn talk;
    void *talk_ctx;
    bool was_fed;
    memfs_error refused; /* of step 1 */
    memfs_error broken;  /* of step 2 */
};

static void say(const push *p, const char *fmt, ...) MEMFS_PRINTF(2, 3);

static void say(const push *p, const char *fmt, ...)
{
    char line[1400]; /* a path has at most 1,024 bytes */
    va_list ap;

    if (p->talk == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    p->talk(str_of(line), p->talk_ctx);
}

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

/* ---- 3: where main is ---- */

typedef struct push_ground {
    memfs_oid tip;
    bool exists; /* the repository */
} push_ground;

/* Under the lock, so that a repository that another first push made meanwhile is seen. */
static memfs_code find_ground(push *p, push_ground *ret, memfs_error *err)
{
    memfs_code rc;

    if (agent_is_fenced(p->a, err))
        return err->code;
    ret->exists = store_has(p->h->store, p->a->repo);
    if (!ret->exists) {
        if (agent_is_known(p->a))
            return agent_missing(p->h, p->a, err);
        ret->tip = STORE_GENESIS;
        return MEMFS_OK;
    }
    rc = agent_recover(p->h, p->a, err);
    if (rc < 0)
        return rc;
    return agent_look(p->h, p->a, &ret->tip, err);
}

static memfs_code check_old_id(const push *p, const push_ground *g, memfs_error *err)
{
    bool begins = !g->exists && oid_is_zero(&p->old_id); /* a client that forces a new branch */

    if (begins || oid_equal(&p->old_id, &g->tip))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ECONFLICT, "fetch first");
}

/* ---- 4: what may come in ---- */

static memfs_code vet(push *p, const push_ground *g, memfs_error *err)
{
    _cleanup_(mem_freep) memfs_oid *banned = NULL;
    incoming_vetting v = { .base = &g->tip, .tip = &p->new_id, .policy = &p->h->options.policy };
    memfs_code rc;

    rc = state_banned(p->h->state, str_of(p->a->id), &banned, &v.n_banned, err);
    if (rc < 0)
        return rc;
    v.banned = banned;
    rc = incoming_vet(p->in, &v, err);
    if (rc == MEMFS_ECORRUPT && g->exists)
        agent_suspect(p->h, p->a, err);
    return rc;
}

/* ---- 5: the rows, and what is wrong with them ---- */

static void warn_row(const push *p, const block_row *row, row_fault fault)
{
    static const char *const AFTER[] = {
        [ROW_NO_FRONT_MATTER] = "the whole file became the block's value",
        [ROW_BAD_FIELD] = "the field took its default",
        [ROW_NOT_UTF8] = "the block shows U+FFFD in its place",
        [ROW_TOO_LARGE] = "the block is empty",
    };
    const char *before = fault == ROW_NO_FRONT_MATTER ? "front matter does not parse (" : "";
    const char *end = fault == ROW_NO_FRONT_MATTER ? ")" : "";

    say(p, "warning: %.*s: %s%.*s%s; %s", (int)row->path.len, row->path.ptr, before,
        (int)row->problem.len, row->problem.ptr, end, AFTER[fault]);
}

static memfs_code judge_rows(const push *p, const plan *rows, memfs_error *err)
{
    bool is_strict = p->h->options.policy.strict_frontmatter;
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
            warn_row(p, row, fault);
    }
    if (n_faults > MAX_WARNINGS)
        say(p, "warning: and %zu more files like these", n_faults - MAX_WARNINGS);
    return MEMFS_OK;
}

static memfs_code plan_rows(push *p, const push_ground *g, plan **ret, memfs_error *err)
{
    memfs_code rc;

    rc = plan_make(p->h, p->a, incoming_repo(p->in), g->exists ? &g->tip : NULL, &p->new_id, ret,
                   err);
    if (rc == MEMFS_ECORRUPT && g->exists)
        agent_suspect(p->h, p->a, err);
    if (rc < 0)
        return rc;
    return judge_rows(p, *ret, err);
}

/* ---- 6 to 8: into the repository ---- */

static memfs_code take_in(push *p, const push_ground *g, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = agent_folder(p->h, p->a);
    memfs_error ignored;
    memfs_code rc;

    if (!g->exists) {
        rc = store_create(p->h->store, p->a->repo, err);
        if (rc < 0)
            return rc;
    }
    rc = incoming_accept(p->in, err);
    if (rc < 0 && !g->exists) {
        if (fs_remove_tree(folder, &ignored) < 0)
            home_alarm(p->h, p->a, "leftover",
                       "a repository that was just made could not be removed");
    } else if (rc == MEMFS_ECORRUPT) {
        /* an fsync failed: what the disk holds is unknown (F05) */
        agent_fence(p->h, p->a, err->msg);
    }
    if (rc < 0 || agent_is_known(p->a))
        return rc;
    rc = state_agent_add(p->h->state, str_of(p->a->id), str_of(p->a->org), clock_wall_us(), err);
    if (rc == MEMFS_OK)
        agent_set_known(p->a);
    return rc;
}

/* ---- 9: the ref ---- */

static memfs_code move_ref(push *p, const push_ground *g, const store_identity *who,
                           push_verdict *ret, memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_code rc;

    rc = repo_open(p->h->store, p->a->repo, &r, err);
    if (rc < 0)
        return rc;
    agent_moving(p->a, &p->new_id);
    rc = oid_equal(&g->tip, &p->new_id) ? MEMFS_OK
                                        : repo_ref_move(r, &g->tip, &p->new_id, who, "push", err);
    if (rc == MEMFS_OK) {
        agent_moved(p->a, &p->new_id);
        ret->moved = true;
        return rc;
    }
    agent_not_moving(p->a);
    if (rc == MEMFS_ECORRUPT) {
        ret->must_not_report = true;
        agent_fence(p->h, p->a, err->msg);
    }
    return rc == MEMFS_ECONFLICT ? memfs_fail(err, rc, "fetch first") : rc;
}

/* ---- 10: the cache ---- */

static void write_rows(push *p, const push_ground *g, plan *rows)
{
    materialise_result result;
    memfs_error err;
    memfs_code rc = MEMFS_ECONFLICT;

    if (!g->exists || agent_is_synced_at(p->h, p->a, &g->tip))
        rc = plan_apply(p->h, p->a, rows, &result, &err);
    if (rc < 0)
        rc = materialise_agent(p->h, p->a, &result, &err); /* it mends what it can */
    if (rc == MEMFS_OK)
        return;
    say(p, "the commit is safe; its blocks will follow (%s)", err.msg);
    home_alarm(p->h, p->a, "cache_behind", "a push is durable, its blocks are not there yet: %s",
               err.msg);
}

static void note_packs(push *p)
{
    if (store_pack_count(p->h->store, p->a->repo) > STORE_REPACK_AT)
        home_wants_upkeep(p->h, p->a);
}

/* Fenced, as after any fsync that failed: what the disk holds is unknown (F05). */
static memfs_code make_durable(push *p, memfs_error *err)
{
    memfs_code rc = store_settle(p->h->store, p->a->repo, err);

    if (rc < 0)
        agent_fence(p->h, p->a, err->msg);
    p->a->is_settled = rc == MEMFS_OK;
    return rc;
}

/* ---- all of it ---- */

static memfs_code decide(push *p, const store_identity *who, push_verdict *ret, memfs_error *err)
{
    _cleanup_(plan_freep) plan *rows = NULL;
    push_ground g;
    memfs_code rc;

    rc = find_ground(p, &g, err);
    if (rc < 0)
        return rc;
    if (g.exists && oid_equal(&g.tip, &p->new_id)) { /* it came through before */
        rc = make_durable(p, err);
        ret->moved = rc == MEMFS_OK;
        ret->must_not_report = rc < 0;
        return rc;
    }
    if (g.exists && !p->a->is_settled && make_durable(p, err) < 0)
        return err->code;
    rc = check_old_id(p, &g, err);
    if (rc == MEMFS_OK)
        rc = vet(p, &g, err);
    if (rc == MEMFS_OK)
        rc = plan_rows(p, &g, &rows, err);
    if (rc == MEMFS_OK)
        rc = take_in(p, &g, err);
    if (rc == MEMFS_OK)
        rc = move_ref(p, &g, who, ret, err);
    if (rc < 0)
        return rc;
    p->a->is_settled = true;
    write_rows(p, &g, rows);
    note_packs(p);
    return MEMFS_OK;
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
}
