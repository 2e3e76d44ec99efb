/*
 * intake.c - see intake.h.  The steps of a push (push.c has their table), with another candidate.
 *
 *     what they have                      becomes main
 *     what main contains already          nothing: a push of ours that comes back (F28)
 *     main and more                       theirs
 *     something else                      the merge, which whoever merges these two makes alike
 *     another root                        the merge with both roots: nothing is lost (H5)
 *
 * Judged is what they bring, before it is merged, and it is merged in the throw-away repository, so
 * that a refusal leaves no trace.  Where main is, is looked up under the agent's lock, after the
 * network: a push that came meanwhile is merged with, not overtaken.
 *
 * What main contains is not judged again: an old commit of ours may hold a file that no push may
 * bring today.
 */
#include "sync/intake.h"

#include "base/clock.h"
#include "base/mem.h"
#include "store/chronicle.h"
#include "store/history.h"
#include "store/rewrite.h"
#include "sync/advance.h"
#include "sync/away.h"
#include "sync/follow.h"
#include "sync/materialise.h"

#include <stdio.h>
#include <stdlib.h>

#define LOCK_MS 30000
#define MAX_ROUNDS 5
#define MIN_DIGITS 7
#define GENESIS_DIGITS "5677624"

typedef struct intake {
    advance v;
    fetched *f;
    const memfs_oid *theirs, *last_seen;
    intake_keep keep;
    const char *why;
    intake_result *ret;
} intake;

void intake_result_dispose(intake_result *r)
{
    merge_result_dispose(&r->merge);
}

static memfs_code lock_agent(agent *a, memfs_error *err)
{
    if (agent_lock_for(a, LOCK_MS))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EUNAVAIL, "other work on agent '%s' takes too long: try again",
                      a->id);
}

static store_identity memfs_now(void)
{
    return (store_identity){ "memfs", "memfs@localhost", clock_wall_us() / 1000000 };
}

/* ---- judging ---- */

static memfs_code vet(intake *i, const memfs_oid *tip, memfs_error *err)
{
    memfs_oid known[] = { i->v.tip, *i->last_seen };
    _cleanup_(mem_freep) memfs_oid *banned = NULL;
    fetched_vetting vetting = {
        .tip = tip, .known = known, .n_known = ARRAY_LEN(known), .policy = &i->v.h->options.policy
    };
    memfs_code rc;

    rc = agent_banned(i->v.h, i->v.a, &banned, &vetting.n_banned, err);
    if (rc < 0)
        return rc;
    vetting.banned = banned;
    return advance_judged(&i->v, fetched_vet(i->f, &vetting, err), err);
}

/*
 * Asked of our own repository first: only what is in it can be part of its history, and no walk
 * begins in what nobody has judged yet.
 */
static memfs_code is_contained(const intake *i, bool *ret, memfs_error *err)
{
    _cleanup_(repo_closep) repo *ours = NULL;
    memfs_code rc;

    *ret = oid_equal(i->theirs, &i->v.tip);
    if (*ret || !i->v.exists)
        return MEMFS_OK;
    rc = repo_open(i->v.h->store, i->v.a->repo, &ours, err);
    if (rc < 0 || !repo_has(ours, i->theirs))
        return rc;
    return repo_is_ancestor(ours, i->theirs, &i->v.tip, ret, err);
}

/* ---- the candidate ---- */

static memfs_code tree_of(repo *r, const memfs_oid *commit, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    memfs_code rc = repo_commit_info(r, commit, &info, err);

    if (rc == MEMFS_OK)
        *ret = info.tree;
    return rc;
}

/* Parents and message as of a merge: whoever decides the same makes the same commit. */
static memfs_code join(intake *i, const memfs_oid *kept, memfs_oid *ret, memfs_error *err)
{
    bool is_swapped = memcmp(i->v.tip.id, i->theirs->id, sizeof(i->theirs->id)) > 0;
    memfs_oid parents[2] = { is_swapped ? *i->theirs : i->v.tip,
                             is_swapped ? i->v.tip : *i->theirs };
    char one[MEMFS_OID_HEX + 1], two[MEMFS_OID_HEX + 1], files[MEMFS_OID_HEX + 1], text[160];
    repo *r = fetched_repo(i->f);
    memfs_oid tree;
    memfs_code rc;

    oid_hex(&parents[0], one);
    oid_hex(&parents[1], two);
    oid_hex(kept, files);
    snprintf(text, sizeof(text),
             "memfs: join %.7s and %.7s\n\nThe files are those of %.7s, as an operator decided.\n",
             one, two, files);
    rc = tree_of(r, kept, &tree, err);
    if (rc == MEMFS_OK)
        rc = repo_commit_tree(r, &tree, parents, 2, NULL, str_of(text), ret, err);
    if (rc < 0)
        return rc;
    i->ret->merge.commit = *ret;
    i->ret->merge.is_merge = true;
    return MEMFS_OK;
}

static memfs_code note_relation(intake *i, merge_relation *ret, memfs_error *err)
{
    memfs_code rc = merge_relate(fetched_repo(i->f), &i->v.tip, i->theirs, ret, NULL, NULL, err);

    i->ret->merge.is_unrelated = rc == MEMFS_OK && *ret == MERGE_UNRELATED;
    return rc;
}

static memfs_code keep_ours(intake *i, memfs_oid *ret, memfs_error *err)
{
    merge_relation relation;
    memfs_code rc = join(i, &i->v.tip, ret, err);

    if (rc == MEMFS_OK)
        rc = vet(i, ret, err); /* of it: its files are ours, its history is theirs */
    return rc < 0 ? rc : note_relation(i, &relation, err);
}

static memfs_code keep_theirs(intake *i, bool is_ours_already, memfs_oid *ret, memfs_error *err)
{
    repo *r = fetched_repo(i->f);
    merge_relation relation;
    memfs_oid ours, theirs;
    memfs_code rc;

    rc = is_ours_already ? MEMFS_OK : vet(i, i->theirs, err);
    if (rc == MEMFS_OK)
        rc = note_relation(i, &relation, err);
    if (rc == MEMFS_OK)
        rc = tree_of(r, &i->v.tip, &ours, err);
    if (rc == MEMFS_OK)
        rc = tree_of(r, i->theirs, &theirs, err);
    if (rc < 0)
        return rc;
    if (relation != MERGE_BEHIND && !(is_ours_already && oid_equal(&ours, &theirs)))
        return join(i, i->theirs, ret, err);
    *ret = relation == MERGE_BEHIND ? *i->theirs : i->v.tip;
    return MEMFS_OK;
}

static memfs_code merge_theirs(intake *i, memfs_oid *ret, memfs_error *err)
{
    memfs_code rc = vet(i, i->theirs, err);

    if (rc == MEMFS_OK)
        rc = merge_commits(fetched_repo(i->f), &i->v.tip, i->theirs, &i->ret->merge, err);
    if (rc == MEMFS_OK)
        *ret = i->ret->merge.commit;
    return advance_judged(&i->v, rc, err);
}

static memfs_code find_candidate(intake *i, memfs_oid *ret, memfs_error *err)
{
    bool is_ours_already;
    memfs_code rc = is_contained(i, &is_ours_already, err);

    if (rc < 0)
        return advance_judged(&i->v, rc, err);
    if (i->keep == INTAKE_THEIRS)
        return keep_theirs(i, is_ours_already, ret, err);
    *ret = i->v.tip;
    if (is_ours_already)
        return MEMFS_OK;
    return i->keep == INTAKE_OURS ? keep_ours(i, ret, err) : merge_theirs(i, ret, err);
}

/* ---- taking it in ---- */

static memfs_code take_in(intake *i, const memfs_oid *to, memfs_error *err)
{
    advance_fetched in = { i->f, *to };
    store_identity who = memfs_now();
    advance_step step = { .to = *to,
                          .objects = fetched_repo(i->f),
                          .accept = advance_accept_fetched,
                          .ctx = &in,
                          .who = &who,
                          .why = i->why };

    if (i->v.exists && oid_equal(to, &i->v.tip))
        return MEMFS_OK;
    return advance_to(&i->v, &step, err);
}

static void tell(intake_result *r, const advance *v, const memfs_oid *to)
{
    r->before = v->exists ? v->tip : (memfs_oid){ { 0 } };
    r->tip = *to;
    r->moved = v->moved;
}

static memfs_code intake_once(intake *i, memfs_error *err)
{
    memfs_oid to;
    memfs_code rc;

    rc = advance_begin(&i->v, err);
    if (rc == MEMFS_OK)
        rc = advance_settle(&i->v, false, err);
    if (rc == MEMFS_OK)
        rc = find_candidate(i, &to, err);
    if (rc == MEMFS_OK)
        rc = take_in(i, &to, err);
    if (rc < 0)
        return rc;
    tell(i->ret, &i->v, &to);
    i->ret->is_theirs = oid_equal(&to, i->theirs);
    return MEMFS_OK;
}

/* Another server may move main while we merge: what it brought is merged with, too. */
static memfs_code intake_locked(intake *i, memfs_error *err)
{
    memfs_code rc = intake_once(i, err);

    for (int n = 1; rc == MEMFS_ECONFLICT && home_is_shared(i->v.h) && n < MAX_ROUNDS; n++) {
        intake_result_dispose(i->ret);
        *i->ret = (intake_result)INTAKE_RESULT_INIT;
        advance_take_turn(&i->v);
        rc = intake_once(i, err);
    }
    advance_end_turn(&i->v);
    return rc;
}

memfs_code intake_fetched(home *h, memfs_str agent_id, fetched *f, const memfs_oid *theirs,
                          const memfs_oid *last_seen, intake_keep keep, const char *why,
                          intake_result *ret, memfs_error *err)
{
    intake i = { .v = { .h = h, .may_revive = keep == INTAKE_REVIVE },
                 .f = f,
                 .theirs = theirs,
                 .last_seen = last_seen,
                 .keep = keep,
                 .why = why,
                 .ret = ret };
    bool is_known;
    memfs_code rc;

    *ret = (intake_result)INTAKE_RESULT_INIT;
    rc = keep == INTAKE_REVIVE ? home_entry(h, agent_id, true, &i.v.a, &is_known, err)
                               : home_agent_for_push(h, agent_id, &i.v.a, &is_known, err);
    if (rc == MEMFS_OK)
        rc = lock_agent(i.v.a, err);
    if (rc < 0)
        return rc;
    rc = intake_locked(&i, err);
    agent_unlock(i.v.a);
    if (rc < 0)
        intake_result_dispose(ret);
    return rc;
}

/* ---- attributes ---- */

typedef struct comparing {
    const state_birth *birth;
    bool is_news;
} comparing;

static memfs_code compare_birth(const state_birth *here, void *ctx, memfs_error *err)
{
    comparing *c = ctx;
    const state_birth *b = c->birth;

    (void)err;
    c->is_news = here->created_at_us > b->created_at_us ||
                 (here->block_id.len == 0 && b->block_id.len > 0) ||
                 (b->tags_json.len > 0 && (!str_equal(here->tags_json, b->tags_json) ||
                                           here->limit != b->limit || here->hidden != b->hidden));
    return MEMFS_OK;
}

/* Would rows that are there become others?  Labels that nobody saw have no rows. */
static memfs_code rows_differ(state *s, memfs_str agent_id, const state_birth *births, size_t n,
                              bool *ret, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    *ret = false;
    for (size_t i = 0; rc == MEMFS_OK && !*ret && i < n; i++) {
        comparing c = { .birth = &births[i] };

        rc = state_births(s, agent_id, births[i].label, compare_birth, &c, err);
        *ret = c.is_news;
    }
    return rc;
}

static memfs_code merge_attributes(home *h, agent *a, const state_agent *attributes,
                                   const state_birth *births, size_t n, memfs_error *err)
{
    materialise_result rows;
    follow_result now;
    bool is_otherwise;
    memfs_code rc;

    rc = rows_differ(h->state, attributes->id, births, n, &is_otherwise, err);
    if (rc == MEMFS_OK)
        rc = state_agent_merge(h->state, attributes, births, n, err);
    if (rc == MEMFS_OK && is_otherwise && home_is_shared(h))
        rc = agent_follow(h, a, false, &now, err);
    if (rc == MEMFS_OK && is_otherwise)
        rc = materialise_rebuild(h, a, &rows, err);
    return rc;
}

memfs_code intake_attributes(home *h, const state_agent *attributes, const state_birth *births,
                             size_t n, memfs_error *err)
{
    memfs_code rc;
    agent *a;

    rc = home_agent_repo(h, attributes->id, &a, err);
    if (rc == MEMFS_ENOTFOUND)
        return state_agent_merge(h->state, attributes, births, n, err);
    if (rc == MEMFS_OK)
        rc = lock_agent(a, err);
    if (rc < 0)
        return rc;
    rc = merge_attributes(h, a, attributes, births, n, err);
    agent_unlock(a);
    return rc;
}

/* ---- restore ---- */

static memfs_code read_seconds(memfs_str text, int64_t *ret, memfs_error *err)
{
    uint64_t seconds;

    if (!str_to_u64(text, INT64_MAX / 1000000, &seconds))
        return memfs_fail(err, MEMFS_EINVALID, "'@%.*s' is not a time in seconds since 1970",
                          (int)text.len, text.ptr);
    *ret = (int64_t)seconds;
    return MEMFS_OK;
}

/*
 * What main was at that time need not be in its history any more: a purge took it out, or a hand.
 */
static memfs_code find_at_time(const advance *v, repo *r, int64_t time_s, memfs_oid *ret,
                               memfs_error *err)
{
    bool is_ours = false;
    memfs_code rc;

    rc = chronicle_at(v->h->store, v->a->repo, time_s, ret, err);
    if (rc < 0)
        return rc;
    if (oid_equal(ret, &STORE_GENESIS))
        return memfs_fail(
            err, MEMFS_ENOTFOUND,
            "the memory was still empty then; to empty it, name its first commit, " GENESIS_DIGITS);
    if (!repo_has(r, ret) || repo_is_ancestor(r, ret, &v->tip, &is_ours, err) < 0 || !is_ours)
        return memfs_fail(err, MEMFS_ENOTFOUND,
                          "what main was then is not in its history any more");
    return MEMFS_OK;
}

static memfs_code find_restored(const advance *v, repo *r, memfs_str at, memfs_oid *ret,
                                memfs_error *err)
{
    int64_t time_s = 0;

    if (str_starts_with(at, MEMFS_STR("@"))) {
        if (read_seconds(str_from(at, 1), &time_s, err) < 0)
            return err->code;
        return find_at_time(v, r, time_s, ret, err);
    }
    if (at.len < MIN_DIGITS)
        return memfs_fail(err, MEMFS_EINVALID, "name the commit by %d or more digits of its id",
                          MIN_DIGITS);
    return repo_commit_find(r, &v->tip, at, ret, err);
}

/* A commit on top with the old files; *ret is main itself when it has them already. */
static memfs_code write_restored(const advance *v, repo *r, const memfs_oid *old,
                                 const store_identity *who, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    char hex[MEMFS_OID_HEX + 1], date[CLOCK_ISO_LEN], text[128];
    memfs_oid tree;
    memfs_code rc;

    rc = repo_commit_info(r, old, &info, err);
    if (rc == MEMFS_OK)
        rc = tree_of(r, &v->tip, &tree, err);
    if (rc < 0)
        return rc;
    *ret = v->tip;
    if (oid_equal(&tree, &info.tree))
        return MEMFS_OK;
    oid_hex(old, hex);
    clock_iso(info.committer_time_s * 1000000, date);
    snprintf(text, sizeof(text), "Restore %.7s (%s)\n", hex, date);
    return repo_commit_tree(r, &info.tree, &v->tip, 1, who, str_of(text), ret, err);
}

static memfs_code restore_once(advance *v, memfs_str at, const store_identity *who,
                               intake_result *ret, memfs_error *err)
{
    advance_step step = { .is_ours = true, .who = who, .why = "restore" };
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_oid old;
    memfs_code rc;

    rc = advance_begin(v, err);
    if (rc == MEMFS_OK)
        rc = advance_settle(v, false, err);
    if (rc == MEMFS_OK)
        rc = repo_open(v->h->store, v->a->repo, &r, err);
    if (rc == MEMFS_OK)
        rc = find_restored(v, r, at, &old, err);
    if (rc == MEMFS_OK)
        rc = write_restored(v, r, &old, who, &step.to, err);
    if (rc < 0)
        return advance_written(v, r, rc, err);
    step.objects = r;
    if (!oid_equal(&step.to, &v->tip))
        rc = advance_to(v, &step, err);
    if (rc == MEMFS_OK)
        tell(ret, v, &step.to);
    return rc;
}

static memfs_code restore_locked(advance *v, memfs_str at, const store_identity *who,
                                 intake_result *ret, memfs_error *err)
{
    memfs_code rc = restore_once(v, at, who, ret, err);

    for (int n = 1; rc == MEMFS_ECONFLICT && home_is_shared(v->h) && n < MAX_ROUNDS; n++) {
        advance_take_turn(v);
        rc = restore_once(v, at, who, ret, err);
    }
    advance_end_turn(v);
    return rc;
}

memfs_code intake_restore(home *h, memfs_str agent_id, const char *at, const store_identity *who,
                          intake_result *ret, memfs_error *err)
{
    advance v = { .h = h };
    memfs_code rc;

    *ret = (intake_result)INTAKE_RESULT_INIT;
    rc = home_agent_repo(h, agent_id, &v.a, err);
    if (rc == MEMFS_OK)
        rc = lock_agent(v.a, err);
    if (rc < 0)
        return rc;
    rc = restore_locked(&v, str_of(at), who, ret, err);
    agent_unlock(v.a);
    return rc;
}
