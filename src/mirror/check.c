#include "mirror/mirror_int.h"

#include "base/clock.h"
#include "remote/host_report.h"
#include "store/bare.h"
#include "sync/home.h"

#include <stdio.h>
#include <string.h>

/*
 * mirror_check: each remote is asked for one agent's address.  For what a token may do one agent is
 * as good as another, so where none is named the first stands for all; a home that knows none yet
 * uses an id that nobody has, and then it is no fault that nothing is there.
 */

#define BUDGET_MS 20000
#define NOBODY "agent-00000000-0000-4000-8000-000000000000"

typedef struct checking {
    const upkeep_watcher *w;
    mirror_checked *ret;
    const remote_config *config;
    char agent_id[IDS_MAX_LEN + 1];
    bool is_example;
} checking;

static void say(checking *k, bool is_bad, const char *kind, const char *text)
{
    k->ret->all.n_findings += is_bad;
    if (k->w->finding != NULL)
        k->w->finding(k->is_example ? "" : k->agent_id, kind, k->config->name, text, k->w->ctx);
}

static void on_row(bool is_bad, const char *kind, const char *text, void *ctx)
{
    say(ctx, is_bad, kind, text);
}

/* ---- for whom ---- */

static memfs_code keep_agent(const state_agent *row, void *ctx, memfs_error *err)
{
    checking *k = ctx;
    char id[IDS_MAX_LEN + 1];

    (void)err;
    snprintf(id, sizeof(id), "%.*s", (int)row->id.len, row->id.ptr);
    if (k->agent_id[0] == '\0' && ids_is_agent(row->id) && remote_is_for(k->config, id))
        snprintf(k->agent_id, sizeof(k->agent_id), "%s", id);
    return MEMFS_OK;
}

static memfs_code choose_agent(mirror *m, const char *agent_id, checking *k, memfs_error *err)
{
    const agent_query all = { .limit = 0 };
    memfs_code rc = MEMFS_OK;

    k->agent_id[0] = '\0';
    k->is_example = false;
    if (agent_id != NULL)
        snprintf(k->agent_id, sizeof(k->agent_id), "%s", agent_id);
    else if (k->config->agents != NULL)
        snprintf(k->agent_id, sizeof(k->agent_id), "%s", k->config->agents[0]);
    else
        rc = state_agents(home_state(mirror_home(m)), &all, keep_agent, k, err);
    if (rc == MEMFS_OK && k->agent_id[0] == '\0') {
        snprintf(k->agent_id, sizeof(k->agent_id), "%s", NOBODY);
        k->is_example = true;
    }
    return rc;
}

/* ---- one remote ---- */

/* A folder has no API, and it is us who make repositories in it. */
static void check_folder(const remote_target *t, host_report *report)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (t->url.kind != URL_PATH)
        return;
    report->can_create = bare_check(t->url.text, &err) == MEMFS_OK;
    snprintf(report->rights.create_words, sizeof(report->rights.create_words), "%.299s", err.msg);
}

static void count_verdict(checking *k, host_verdict v)
{
    k->ret->n_refused += v == HOST_REFUSES;
    k->ret->n_away += v == HOST_AWAY;
}

static const char *advice(remote_answer answer)
{
    return failure_advice(remote_class_of(answer)->name);
}

static void check_remote(const remote_set *set, checking *k)
{
    _cleanup_(remote_target_dispose) remote_target t = REMOTE_TARGET_INIT;
    const host_wants wants = {
        .push = k->config->direction != REMOTE_PULL,
        .create = k->config->create && k->config->direction != REMOTE_PULL,
        .any = k->is_example,
        .is_one = strstr(k->config->url, "{agentId}") == NULL,
        .now_s = clock_wall_us() / 1000000,
        .advice = advice,
    };
    host_report report;
    memfs_error err = MEMFS_ERROR_INIT;

    if (remote_config_target(set->r, k->config, k->agent_id, &t, &err) < 0) {
        k->ret->all.n_failed++;
        say(k, true, "misconfigured", err.msg);
        return;
    }
    host_report_make(&t, k->config->kind, BUDGET_MS, &report);
    check_folder(&t, &report);
    host_report_tell(&report, &wants, on_row, k);
    count_verdict(k, host_report_verdict(&report, &wants));
}

static bool is_asked(const remote_config *c, const char *remote, const char *agent_id)
{
    if (remote != NULL && remote[0] != '\0' && strcmp(c->name, remote) != 0)
        return false;
    return agent_id == NULL || remote_is_for(c, agent_id);
}

static memfs_code check_all(mirror *m, const remote_set *set, const char *agent_id,
                            const char *remote, checking *k, memfs_error *err)
{
    memfs_code rc;

    for (size_t i = 0; i < set->r->n; i++) {
        k->config = &set->r->at[i];
        if (!is_asked(k->config, remote, agent_id))
            continue;
        rc = choose_agent(m, agent_id, k, err);
        if (rc < 0)
            return rc;
        if (k->w->progress != NULL && !k->w->progress(i, set->r->n, k->agent_id, k->w->ctx))
            return MEMFS_OK;
        check_remote(set, k);
        k->ret->all.n_agents++;
    }
    return MEMFS_OK;
}

memfs_code mirror_check(mirror *m, const char *agent_id, const char *remote,
                        const upkeep_watcher *w, mirror_checked *ret, memfs_error *err)
{
    checking k = { .w = w, .ret = ret };
    remote_set *set = mirror_remotes(m);
    memfs_code rc;

    *ret = (mirror_checked){ .n_away = 0 };
    if (remote != NULL && remote[0] != '\0' && remote_set_find(set, remote) == NULL)
        rc = memfs_fail(err, MEMFS_ENOTFOUND,
                        "there is no remote '%.40s': the config file has none of that name",
                        remote);
    else
        rc = check_all(m, set, agent_id, remote, &k, err);
    if (rc == MEMFS_OK && ret->all.n_agents == 0)
        rc = memfs_fail(err, MEMFS_ENOTFOUND, set->r->n == 0
                            ? "no remote is configured: 'memfs mirror add' adds one"
                            : "no remote is for that agent");
    mirror_remotes_unref(m, set);
    return rc;
}
