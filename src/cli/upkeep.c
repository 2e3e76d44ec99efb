#include "cli/upkeep.h"

#include "base/mem.h"
#include "cli/owner.h"
#include "memory/ids.h"

#include <stdio.h>

typedef struct work {
    const upkeep_job *job;
    json_t *findings; /* notes of what was done among them */
    json_t *result;
    size_t n_findings; /* what is amiss, as the owner counts it */
} work;

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

static size_t count_of(const json_t *object, const char *key)
{
    return (size_t)json_integer_value(json_object_get(object, key));
}

static void print_finding(const json_t *finding)
{
    const char *what = text_of(finding, "what");

    cli_progress_end();
    cli_print_safe(str_of(text_of(finding, "agent")));
    printf("  %s", text_of(finding, "kind"));
    if (what[0] != '\0') {
        fputs("  ", stdout);
        cli_print_safe(str_of(what));
    }
    fputs(": ", stdout);
    cli_print_safe(str_of(text_of(finding, "text")));
    putchar('\n');
}

static void on_line(const json_t *line, void *ctx)
{
    work *w = ctx;
    const json_t *progress = json_object_get(line, "progress");
    json_t *finding = json_object_get(line, "finding");
    json_t *result = json_object_get(line, "result");

    if (progress != NULL)
        cli_progress(w->job->what, count_of(progress, "done"), count_of(progress, "total"),
                     text_of(progress, "agent"));
    if (finding != NULL) {
        json_array_append(w->findings, finding);
        if (!w->job->as_json)
            print_finding(finding);
    }
    if (result != NULL && w->result == NULL) {
        w->result = json_incref(result);
        w->n_findings = count_of(result, "findings");
    }
}

static void report(const work *w)
{
    cli_progress_end();
    if (w->job->as_json) {
        json_object_set(w->result, "findings", w->findings);
        json_dumpf(w->result, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (w->job->summary != NULL) {
        fflush(stdout); /* the lines before their sum, where both go to one place */
        w->job->summary(w->result, w->n_findings);
    }
}

/* What the owner could not do, as an exit status; that the owner itself is busy is no remote's. */
static cli_exit fail(const upkeep_job *job, const memfs_error *err, bool was_connected)
{
    cli_exit status = cli_fail(err, job->on_failure);

    if (!job->is_remote || !was_connected)
        return status;
    return err->code == MEMFS_EUNAVAIL  ? EXIT_REMOTE_UNAVAILABLE
           : err->code == MEMFS_EDENIED ? EXIT_CREDENTIALS_REFUSED : status;
}

cli_exit upkeep_run(const upkeep_job *job, size_t *ret_n_findings)
{
    _cleanup_(mem_freep) char *home = cli_home(job->home);
    _cleanup_(owner_closep) owner *o = NULL;
    work w = { job, json_array(), NULL, 0 };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = owner_connect(home, &o, &err);
    cli_exit status = EXIT_GOOD;

    if (rc == MEMFS_OK)
        rc = owner_run(o, job->route, job->body, on_line, &w, &err);
    if (rc == MEMFS_OK)
        report(&w);
    if (ret_n_findings != NULL)
        *ret_n_findings = w.n_findings;
    if (rc == MEMFS_OK && job->exit_of != NULL)
        status = job->exit_of(w.result, w.n_findings);
    json_decref(w.findings);
    json_decref(w.result);
    json_decref(job->body);
    return rc == MEMFS_OK ? cli_finish(status) : fail(job, &err, o != NULL);
}

int upkeep_main(int argc, char **argv, const upkeep_command *command)
{
    const char *home = NULL, *agent = NULL;
    bool as_json = false;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "only this agent (all without it)" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object with the findings" },
    };
    const cli_usage usage = { command->synopsis, command->text, options, ARRAY_LEN(options), NULL };
    size_t n_rest, n_findings = 0;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    if (agent != NULL && !ids_is_memory(str_of(agent))) /* nothing else may come to mean all */
        return cli_usage_error(
            &usage, "--agent needs the id of an agent or a shared repository, not '%s'", agent);
    status = upkeep_run(&(upkeep_job){ .home = home, .what = command->what,
                                       .route = command->route,
                                       .body = json_pack("{s:s}", "agent", agent ? agent : ""),
                                       .as_json = as_json, .summary = command->summary },
                        &n_findings);
    return status == EXIT_GOOD && n_findings > 0 ? EXIT_FAILED : status;
}
