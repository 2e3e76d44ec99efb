#include "client/converge_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "client/hub.h"
#include "client/mirror.h"
#include "client/rescue.h"
#include "store/history.h"
#include "store/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_UNPUSHED_WALK 1000

void look_identify(const place *p, const backend_choice *choice, client_report *ret)
{
    snprintf(ret->agent_id, sizeof(ret->agent_id), "%s", p->agent_id);
    free(ret->memory);
    ret->memory = mem_strdup(p->memory);
    client_report_choice(ret, choice);
}

char *look_remote_path(const checkout *c)
{
    return checkout_note_path(c, "remote");
}

void look_remembered(const remembered *r, client_report *ret)
{
    ret->answer = r->answer;
    ret->asked_at_s = r->asked_at_s;
    ret->ask_again_at_s = r->until_s;
    if (r->detail[0] != '\0')
        snprintf(ret->detail, sizeof(ret->detail), "%s", r->detail);
}

/* held back */

static const char *operation_words(checkout_operation o)
{
    switch (o) {
    case CHECKOUT_MERGING: return "a merge is in progress ('git merge --continue' or '--abort')";
    case CHECKOUT_REBASING: return "a rebase is in progress ('git rebase --continue' or '--abort')";
    case CHECKOUT_PICKING:
        return "a cherry-pick or revert is in progress ('git status' says how to end it)";
    case CHECKOUT_BISECTING: return "a bisect is in progress ('git bisect reset' ends it)";
    case CHECKOUT_CALM: break;
    }
    return NULL;
}

void look_held_back(const checkout_state *state, char *out, size_t size)
{
    const char *words = operation_words(state->operation);

    out[0] = '\0';
    if (words != NULL)
        snprintf(out, size, "%s", words);
    else if (state->is_detached)
        snprintf(out, size, "HEAD is detached; 'git switch main' ends that");
    else if (strcmp(state->branch, "main") != 0)
        snprintf(out, size, "the branch '%.100s' is checked out; 'git switch main' ends that",
                 state->branch);
    else if (state->n_changed == 1)
        snprintf(out, size, "'%.200s' is not committed", state->first_changed);
    else if (state->n_changed > 1)
        snprintf(out, size, "%zu files are not committed, '%.200s' among them", state->n_changed,
                 state->first_changed);
    else if (state->has_index_lock)
        snprintf(out, size, "git is at work in it (index.lock); if not, 'memfs doctor --fix' "
                            "removes the lock");
}

/* against the remote */

/* When was the oldest commit made that the remote lacks?  Along first parents. */
static int64_t oldest_unpushed(repo *r, const memfs_oid *main, size_t n_ahead)
{
    memfs_oid at = *main;
    memfs_error ignored;
    int64_t oldest_s = 0;

    for (size_t i = 0; i < n_ahead && i < MAX_UNPUSHED_WALK; i++) {
        _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;

        if (repo_commit_info(r, &at, &info, &ignored) < 0)
            break;
        oldest_s = info.committer_time_s;
        if (info.n_parents == 0)
            break;
        at = info.parents[0];
    }
    return oldest_s;
}

/* What is to be carried is main, or what was merged while main could not follow. */
static bool tip_of(convergence *v, memfs_oid *ret)
{
    memfs_error ignored;

    return checkout_ref(v->c, REF_SYNCED, ret, &ignored) == MEMFS_OK ||
           checkout_ref(v->c, STORE_MAIN, ret, &ignored) == MEMFS_OK;
}

static void look_distance(convergence *v)
{
    client_report *ret = v->ret;
    merge_relation relation;
    memfs_error ignored;
    memfs_oid tip;

    if (checkout_ref(v->c, REF_TRACKING, &ret->remote_main, &ignored) == MEMFS_OK)
        ret->has_remote_main = v->choice->has_remote;
    if (!ret->has_remote_main || !tip_of(v, &tip) || oid_equal(&tip, &ret->remote_main))
        return;
    if (merge_relate(checkout_repo(v->c), &tip, &ret->remote_main, &relation, &ret->n_ahead,
                     &ret->n_behind, &ignored) < 0)
        return;
    if (ret->n_ahead > 0)
        ret->oldest_unpushed_s = oldest_unpushed(checkout_repo(v->c), &tip, ret->n_ahead);
}

static void look_rescued(convergence *v)
{
    _cleanup_(rescues_dispose) rescues found = RESCUES_INIT;
    memfs_error ignored;

    if (rescue_list(v->c, true, &found, &ignored) < 0)
        return;
    for (size_t i = 0; i < found.n; i++) {
        if (found.at[i].kind == RESCUE_RULE_MERGE)
            v->ret->n_by_rule += found.at[i].n_lost;
        else
            v->ret->n_rescued++;
    }
}

static void look_mirror(const checkout *c, client_report *ret)
{
    mirror_next next;

    ret->n_queued = mirror_queued(c);
    if (ret->n_queued == 0)
        return;
    next = mirror_next_try(c);
    ret->mirror_again_at_s = next.at_s;
    snprintf(ret->mirror_detail, sizeof(ret->mirror_detail), "%s", next.cause);
}

static memfs_code count_ref(const char *name, const memfs_oid *id, void *ctx, memfs_error *err)
{
    (void)name;
    (void)id;
    (void)err;
    ++*(size_t *)ctx;
    return MEMFS_OK;
}

void look_checkout(convergence *v)
{
    client_report *ret = v->ret;
    memfs_error ignored;
    memfs_oid synced;

    if (checkout_inspect(v->c, &ret->checkout, &ignored) < 0)
        memset(&ret->checkout, 0, sizeof(ret->checkout));
    look_distance(v);
    look_rescued(v);
    look_mirror(v->c, ret);
    if (checkout_each_ref(v->c, WORKTREES_PENDING, count_ref, &ret->n_pending, &ignored) < 0)
        ret->n_pending = 0;
    if (ret->held_back[0] == '\0' && checkout_work_tree(v->c) != NULL &&
        checkout_ref(v->c, REF_SYNCED, &synced, &ignored) == MEMFS_OK) {
        look_held_back(&ret->checkout, ret->held_back, sizeof(ret->held_back));
        if (ret->held_back[0] == '\0')
            snprintf(ret->held_back, sizeof(ret->held_back),
                     "it was busy; the next 'memfs sync' brings it up to date");
    }
}

void client_look(const settings *s, const place *p, client_report *ret)
{
    _cleanup_(backend_choice_dispose) backend_choice choice = BACKEND_CHOICE_INIT;
    convergence v = { .s = s, .p = p, .ret = ret, .choice = &choice, .turn = TURN_INIT };
    _cleanup_(mem_freep) char *path = NULL;
    remembered known;
    memfs_code rc;

    ret->error.code = backend_choose(s, p, &choice, &ret->error);
    if (ret->error.code != MEMFS_OK)
        return;
    look_identify(p, &choice, ret);
    rc = converge_open(&v, &ret->error);
    ret->is_there = rc == MEMFS_OK;
    if (rc < 0) {
        if (rc == MEMFS_ENOTFOUND)
            ret->error.code = MEMFS_OK;
        return;
    }
    path = look_remote_path(v.c);
    if (choice.has_remote && remembered_read(path, &choice.target, &known))
        look_remembered(&known, ret);
    look_checkout(&v);
    checkout_close(v.c);
}
