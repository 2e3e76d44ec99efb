/*
 * proof.c - mirror_verify: does each remote have what we have?
 *
 * Proven is the state, not the history: the tree of the remote's main, with every object below it, as
 * bytes that it sent just now, is the tree of ours.  A copy from which an empty machine gets the same
 * files and blocks.  What failed changes nothing; a proof is dated in the pair's record.
 *
 * The pair is held, so that no push of ours runs meanwhile; ours is looked up before the question, so
 * a push to memfs that comes meanwhile spoils no proof.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "mirror/fan.h"
#include "mirror/mirror_int.h"
#include "store/history.h"
#include "store/proof.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROOF_MS 300000
#define N_THREADS 4
#define PACK_FACTOR 4

/* One agent and one remote, and how it went. */
typedef struct task {
    char agent_id[IDS_MAX_LEN + 1];
    const remote_config *config;
    const char *kind; /* of the finding */
    bool is_failed;
    char text[500];
} task;

typedef struct proving {
    mirror *m;
    remote_set *set;
    const char *remote; /* NULL: all */
    const upkeep_watcher *w;
    upkeep_result *ret;
    task *tasks;
    size_t n_tasks, n_told;
} proving;

/* ---- which ---- */

/* What is only read is no copy of ours, unless somebody wants to know. */
static bool is_chosen(const proving *p, const remote_config *c, const char *agent_id)
{
    if (!remote_is_for(c, agent_id))
        return false;
    return p->remote != NULL ? strcmp(c->name, p->remote) == 0 : c->direction != REMOTE_PULL;
}

static memfs_code add_agent(const state_agent *row, void *ctx, memfs_error *err)
{
    proving *p = ctx;
    char id[IDS_MAX_LEN + 1];

    (void)err;
    if (!ids_is_agent(row->id))
        return MEMFS_OK;
    snprintf(id, sizeof(id), "%.*s", (int)row->id.len, row->id.ptr);
    for (size_t i = 0; i < p->set->r->n; i++) {
        const remote_config *c = &p->set->r->at[i];

        if (!is_chosen(p, c, id))
            continue;
        p->tasks = mem_realloc(p->tasks, p->n_tasks + 1, sizeof(*p->tasks));
        p->tasks[p->n_tasks] = (task){ .config = c };
        memcpy(p->tasks[p->n_tasks++].agent_id, id, sizeof(id));
    }
    return MEMFS_OK;
}

static memfs_code list_tasks(proving *p, memfs_str agent_id, memfs_error *err)
{
    const agent_query q = { .id = agent_id };
    bool is_known = true;
    memfs_code rc = MEMFS_OK;

    if (p->remote != NULL && remote_set_find(p->set, p->remote) == NULL)
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no remote '%.40s'", p->remote);
    if (agent_id.len > 0)
        rc = state_agent_known(home_state(mirror_home(p->m)), agent_id, &is_known, err);
    if (rc == MEMFS_OK && !is_known)
        return memfs_fail(err, MEMFS_ENOTFOUND, "agent '%.*s' is not known", (int)agent_id.len,
                          agent_id.ptr);
    if (rc == MEMFS_OK)
        rc = state_agents(home_state(mirror_home(p->m)), &q, add_agent, p, err);
    if (rc == MEMFS_OK && p->n_tasks == 0 && agent_id.len > 0)
        return memfs_fail(err, MEMFS_ENOTFOUND, "no remote has a copy of agent '%.*s'",
                          (int)agent_id.len, agent_id.ptr);
    return rc;
}

/* ---- one proof, on any thread ---- */

static void conclude(task *t, const char *kind, bool is_failed, const char *text)
{
    t->kind = kind;
    t->is_failed = is_failed;
    snprintf(t->text, sizeof(t->text), "%s", text);
}

typedef struct own_main {
    memfs_oid commit, tree;
} own_main;

static memfs_code find_ours(mirror *m, const char *agent_id, repo **ret_repo, own_main *ret,
                            memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    store *st = home_store(mirror_home(m));
    agent *a;
    memfs_code rc = home_agent_repo(mirror_home(m), str_of(agent_id), &a, err);

    if (rc == MEMFS_OK)
        rc = store_tip(st, agent_repo(a), &ret->commit, err);
    if (rc == MEMFS_OK)
        rc = repo_open(st, agent_repo(a), ret_repo, err);
    if (rc == MEMFS_OK)
        rc = repo_commit_info(*ret_repo, &ret->commit, &info, err);
    if (rc == MEMFS_OK)
        ret->tree = info.tree;
    return rc;
}

static bool is_part_of_ours(repo *r, const memfs_oid *theirs, const own_main *ours)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    memfs_error ignored;
    bool is_in = false;

    return repo_commit_info(r, theirs, &info, &ignored) == MEMFS_OK &&
           repo_is_ancestor(r, theirs, &ours->commit, &is_in, &ignored) == MEMFS_OK && is_in;
}

static void compare(task *t, repo *r, const own_main *ours, const proof *theirs)
{
    char own[MEMFS_OID_HEX + 1], other[MEMFS_OID_HEX + 1];
    char text[400];

    oid_hex(&ours->commit, own);
    oid_hex(&theirs->commit, other);
    if (oid_equal(&ours->tree, &theirs->tree)) {
        snprintf(text, sizeof(text), "its main, %.10s, has our files, each checked", other);
        conclude(t, "proven", false, text);
    } else if (is_part_of_ours(r, &theirs->commit, ours)) {
        snprintf(text, sizeof(text), "its main is at %.10s, which ours, %.10s, has left behind",
                 other, own);
        conclude(t, "proof-behind", false, text);
    } else {
        snprintf(text, sizeof(text), "its main is at %.10s, which is not part of ours, %.10s",
                 other, own);
        conclude(t, "proof-differs", false, text);
    }
}

static memfs_code ask(mirror *m, const remote_target *target, int64_t deadline_ms, proof *ret,
                      memfs_error *err)
{
    transport_report report = { .said = "" };
    transport_target to;
    char words[400];
    remote_answer answer;
    memfs_code rc;

    remote_transport_target(target, &to);
    rc = proof_take(home_store(mirror_home(m)), &to, STORE_MAIN,
                    home_settings(mirror_home(m))->max_pack_bytes * PACK_FACTOR, deadline_ms, ret,
                    &report, err);
    if (rc == MEMFS_ENOTFOUND)
        return memfs_fail(err, rc, "it has no main");
    if (rc != MEMFS_EUNAVAIL || (report.cause == TRANSPORT_CAUSE_NONE && !report.timed_out))
        return rc;
    answer = probe_classify_git(target, &report);
    failure_words(remote_class_of(answer)->name, report.said, words, sizeof(words));
    return memfs_fail(err, rc, "%s", words);
}

static void date(mirror *m, const task *t, const own_main *ours)
{
    mirror_record *before = mem_alloc(sizeof(*before)), *now = mem_alloc(sizeof(*now));
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = record_load(m, t->agent_id, t->config->name, before, &err);

    memcpy(now, before, sizeof(*now));
    now->proof_at_us = clock_wall_us();
    now->proof_tree = ours->tree;
    if (rc == MEMFS_OK)
        rc = record_save(m, t->agent_id, t->config->name, before, now, &err);
    if (rc < 0)
        mirror_event(m, "mirror_record_failed", t->agent_id, t->config->name, err.msg);
    free(before);
    free(now);
}

static memfs_code prove_held(mirror *m, const pair_hold *h, task *t, int64_t deadline_ms,
                             memfs_error *err)
{
    _cleanup_(remote_target_dispose) remote_target target = REMOTE_TARGET_INIT;
    _cleanup_(repo_closep) repo *r = NULL;
    own_main ours;
    proof theirs;
    memfs_code rc = find_ours(m, t->agent_id, &r, &ours, err);

    if (rc == MEMFS_OK)
        rc = remote_config_target(h->set->r, h->config, t->agent_id, &target, err);
    if (rc == MEMFS_OK)
        rc = ask(m, &target, deadline_ms, &theirs, err);
    if (rc < 0)
        return rc;
    compare(t, r, &ours, &theirs);
    if (strcmp(t->kind, "proven") == 0)
        date(m, t, &ours);
    return MEMFS_OK;
}

static void prove(size_t i, void *ctx)
{
    proving *p = ctx;
    task *t = &p->tasks[i];
    int64_t deadline_ms = clock_mono_ms() + PROOF_MS;
    memfs_error err = MEMFS_ERROR_INIT;
    pair_hold h;
    memfs_code rc = pair_hold_take(p->m, str_of(t->agent_id), t->config->name, deadline_ms, &h,
                                   &err);

    if (rc == MEMFS_OK) {
        rc = prove_held(p->m, &h, t, deadline_ms, &err);
        pair_hold_release(p->m, &h);
    }
    if (rc < 0)
        conclude(t, "proof-failed", true, err.msg);
}

/* ---- telling ---- */

static bool tell(size_t i, void *ctx)
{
    proving *p = ctx;
    const task *t = &p->tasks[i];

    p->n_told++;
    p->ret->n_findings += strcmp(t->kind, "proven") != 0;
    p->ret->n_failed += t->is_failed;
    if (p->w->finding != NULL)
        p->w->finding(t->agent_id, t->kind, t->config->name, t->text, p->w->ctx);
    return p->w->progress == NULL ||
           p->w->progress(p->n_told, p->n_tasks, t->agent_id, p->w->ctx);
}

/* Agents, not pairs: those whose last pair was told. */
static size_t count_agents(const proving *p)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n_tasks; i++)
        n += p->tasks[i].kind != NULL &&
             (i == 0 || strcmp(p->tasks[i].agent_id, p->tasks[i - 1].agent_id) != 0);
    return n;
}

memfs_code mirror_verify(mirror *m, memfs_str agent_id, const char *remote,
                         const upkeep_watcher *w, upkeep_result *ret, memfs_error *err)
{
    proving p = { .m = m, .set = mirror_remotes(m), .w = w, .ret = ret,
                  .remote = remote != NULL && remote[0] != '\0' ? remote : NULL };
    memfs_code rc = list_tasks(&p, agent_id, err);

    *ret = (upkeep_result){ .n_agents = 0 };
    if (rc == MEMFS_OK) {
        fan_out(p.n_tasks, N_THREADS, prove, tell, &p);
        ret->n_agents = count_agents(&p);
    }
    mirror_remotes_unref(m, p.set);
    free(p.tasks);
    return rc;
}
