#include "cli/memories.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "client/hub.h"
#include "client/mirror.h"
#include "client/watch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * All memories at once: each is one job of a small pool, so a remote that hangs holds up nobody
 * else, and the reports are told in the order of the ids when all are there.
 */

#define N_THREADS 8
#define MAX_QUEUED 100000
#define SYNC_WAIT "60"

typedef struct job {
    struct batch *batch;
    place place;
    client_report report;
} job;

typedef struct batch {
    settings *settings;
    converge_options how;
    bool only_queued;
    job **jobs;
    size_t n;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    size_t n_done;
    const char *last;
} batch;

static void batch_dispose(batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        place_dispose(&b->jobs[i]->place);
        client_report_dispose(&b->jobs[i]->report);
        free(b->jobs[i]);
    }
    free(b->jobs);
    settings_free(b->settings);
}

static void add_job(batch *b, place given)
{
    job *j = mem_alloc(sizeof(*j));

    *j = (job){ .batch = b, .place = given, .report = CLIENT_REPORT_INIT };
    b->jobs = mem_realloc(b->jobs, b->n + 1, sizeof(job *));
    b->jobs[b->n++] = j;
}

static memfs_code add_named(batch *b, const char *agent_id, memfs_error *err)
{
    place p = PLACE_INIT;
    memfs_code rc = place_of(b->settings, agent_id, &p, err);

    if (rc == MEMFS_OK)
        add_job(b, p);
    return rc;
}

static memfs_code add_place(const place *p, void *ctx, memfs_error *err)
{
    return add_named(ctx, p->agent_id, err);
}

/* An agent of the remote helper may have no checkout on this machine any more. */
static memfs_code add_hub(const char *agent_id, const char *path, void *ctx, memfs_error *err)
{
    batch *b = ctx;

    (void)path;
    for (size_t i = 0; i < b->n; i++)
        if (strcmp(b->jobs[i]->place.agent_id, agent_id) == 0)
            return MEMFS_OK;
    return add_named(b, agent_id, err);
}

static int by_id(const void *a, const void *b)
{
    return strcmp((*(job *const *)a)->place.agent_id, (*(job *const *)b)->place.agent_id);
}

static memfs_code add_all(batch *b, memfs_error *err)
{
    memfs_code rc = places_each(b->settings, add_place, b, err);

    if (rc == MEMFS_OK)
        rc = hub_each(b->settings, add_hub, b, err);
    if (b->n > 0)
        qsort(b->jobs, b->n, sizeof(job *), by_id);
    return rc;
}

/* Only what the post-commit hook left in the queue; quick where there is nothing. */
static void push_queued(job *j)
{
    _cleanup_(checkout_closep) checkout *c = NULL;
    client_report *r = &j->report;
    memfs_error err = MEMFS_ERROR_INIT;

    snprintf(r->agent_id, sizeof(r->agent_id), "%s", j->place.agent_id);
    if (checkout_open(j->place.memory, &c, &err) < 0)
        return;
    r->is_there = true;
    if (mirror_queued(c) > 0 &&
        mirror_run(j->batch->settings, c, false, j->batch->how.budget_ms, &err) < 0)
        snprintf(r->detail, sizeof(r->detail), "%.199s", err.msg);
    r->n_queued = mirror_queued(c);
}

static void run_job(void *arg)
{
    job *j = arg;
    batch *b = j->batch;

    if (b->only_queued)
        push_queued(j);
    else
        client_sync(b->settings, &j->place, &b->how, &j->report);
    pthread_mutex_lock(&b->mutex);
    b->n_done++;
    b->last = j->place.agent_id;
    pthread_cond_signal(&b->changed);
    pthread_mutex_unlock(&b->mutex);
}

static void wait_for_all(batch *b)
{
    pthread_mutex_lock(&b->mutex);
    while (b->n_done < b->n) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 1;
        pthread_cond_timedwait(&b->changed, &b->mutex, &until);
        cli_progress("sync", b->n_done, b->n, b->last != NULL ? b->last : "");
    }
    pthread_mutex_unlock(&b->mutex);
    cli_progress_end();
}

static memfs_code run_all(batch *b, memfs_error *err)
{
    pool *p;
    memfs_code rc = checkout_library(err);
    size_t n_submitted = 0;

    if (rc < 0)
        return rc;
    p = pool_new(b->n < N_THREADS ? b->n : N_THREADS, MAX_QUEUED);
    for (; rc == MEMFS_OK && n_submitted < b->n; n_submitted++)
        rc = pool_submit(p, b->jobs[n_submitted]->place.agent_id, run_job, b->jobs[n_submitted],
                         err);
    if (rc == MEMFS_OK)
        wait_for_all(b);
    pool_free(p);
    return rc;
}

/* The gravest of all: a failure here, then what a person must decide, then what time mends. */
static cli_exit worst(const batch *b)
{
    static const cli_exit order[] = { EXIT_FAILED,           EXIT_USAGE,
                                      EXIT_REFUSED_BY_POLICY, EXIT_CONFLICT_RECORDED,
                                      EXIT_CREDENTIALS_REFUSED, EXIT_REMOTE_UNAVAILABLE,
                                      EXIT_BUSY };

    for (size_t i = 0; i < ARRAY_LEN(order); i++)
        for (size_t k = 0; k < b->n; k++)
            if (client_report_exit(&b->jobs[k]->report) == (int)order[i])
                return order[i];
    return EXIT_GOOD;
}

static void tell_all(const batch *b, bool as_json)
{
    for (size_t i = 0; i < b->n; i++) {
        if (as_json && i > 0)
            putchar(',');
        memory_tell(&b->jobs[i]->report, as_json, true);
    }
}

static cli_exit finish(const batch *b, bool as_json)
{
    cli_exit status;

    if (as_json)
        puts("{\"agents\":[");
    tell_all(b, as_json);
    if (as_json)
        puts("]}");
    if (b->n == 0 && !as_json)
        cli_talk("there is no memory on this machine; 'memfs apply --agent ID' makes one");
    status = worst(b);
    return cli_finish(status);
}

static cli_exit finish_queued(const batch *b)
{
    size_t n_waiting = 0;

    for (size_t i = 0; i < b->n; i++) {
        const client_report *r = &b->jobs[i]->report;

        n_waiting += r->n_queued > 0;
        if (r->detail[0] != '\0')
            cli_talk("%s: %s", r->agent_id, r->detail);
    }
    return n_waiting > 0 ? EXIT_REMOTE_UNAVAILABLE : EXIT_GOOD;
}

/* watch */

static void tell_change(const client_report *r, void *ctx)
{
    const bool *as_json = ctx;

    memory_tell(r, *as_json, true);
    fflush(stdout);
}

static cli_exit watch(const settings *s, const char *agent, bool as_json)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (watch_run(s, agent, tell_change, &as_json, &err) < 0)
        return cli_fail(&err, "'memfs sync' does it once");
    return cli_finish(EXIT_GOOD);
}

static cli_exit run(batch *b, const char *agent, bool as_json)
{
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = agent != NULL ? add_named(b, agent, &err) : add_all(b, &err);

    if (rc < 0)
        return cli_fail(&err, "an agent's id is 'agent-' and a UUID");
    if (b->n > 0 && run_all(b, &err) < 0)
        return cli_fail(&err, "look at what the message names");
    if (b->only_queued)
        return finish_queued(b);
    if (agent != NULL && !b->jobs[0]->report.is_there && b->jobs[0]->report.error.code == MEMFS_OK &&
        !b->jobs[0]->report.is_off) {
        finish(b, as_json);
        return EXIT_FAILED; /* it was named, and is not there */
    }
    return finish(b, as_json);
}

int cmd_sync(int argc, char **argv)
{
    _cleanup_(batch_dispose) batch b = { .mutex = PTHREAD_MUTEX_INITIALIZER,
                                         .changed = PTHREAD_COND_INITIALIZER };
    memory_options o = MEMORY_OPTIONS_INIT;
    bool is_all = false, is_watching = false;
    const cli_option options[] = {
        MEMORY_ROWS(o),
        { "all", CLI_FLAG, &is_all, NULL, "all memories, also where an agent is named by a variable" },
        { "watch", CLI_FLAG, &is_watching, NULL, "keep doing it, until SIGTERM" },
        { "queued", CLI_FLAG, &b.only_queued, NULL, "only the mirror pushes that wait" },
        MEMORY_WAIT_ROW(o, "how long each remote may take in all (" SYNC_WAIT ")"),
    };
    const cli_usage usage = {
        "sync [--agent ID | --all] [--watch | --queued] [--wait SECONDS] [--json]",
        "Brings memories and their remotes together: fetch, merge, push.  Without an agent: all memories\n"
        "of this machine.  Nothing is forced and nobody is asked; a checkout with uncommitted work stays as\n"
        "it is and follows later.\n"
        "Exit status: 0 good, 3 remote unavailable, 4 credentials refused, 5 refused by the remote,\n"
        "6 the remote holds what a memory must not hold, 7 busy; with several, the gravest.",
        options, ARRAY_LEN(options),
        "  memfs sync\n  memfs sync --agent agent-… --json\n  memfs sync --watch\n"
    };
    const char *agent;
    cli_exit status;
    size_t n_rest;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    if (is_watching && b.only_queued)
        return cli_usage_error(&usage, "--watch sees to the queue as well");
    if (is_all && o.agent != NULL)
        return cli_usage_error(&usage, "--agent or --all?");
    agent = is_all ? NULL : cli_agent(o.agent);
    if (o.wait == NULL)
        o.wait = SYNC_WAIT;
    if (!memory_settings(&o, &b.settings, &status))
        return status;
    b.how.budget_ms = (int64_t)setting_number(b.settings, SETTING_WAIT_MS);
    return is_watching ? watch(b.settings, agent, o.as_json) : run(&b, agent, o.as_json);
}
