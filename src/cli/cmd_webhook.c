#include "cli/upkeep.h"

#include "base/mem.h"
#include "memory/ids.h"

#include <string.h>

/*
 * Webhooks: hosts are told where this server is, and a signed ping shows whether it would hear them.
 * The secret stays with the owner of the data folder: it is in no option, request or line here.
 */

typedef struct request {
    const char *home, *agent, *remote, *url, *ca_file;
    bool is_all, as_json;
} request;

static void sum_added(const json_t *result, size_t n_findings)
{
    cli_talk("agents looked at: %lld, without a webhook: %zu",
             (long long)json_integer_value(json_object_get(result, "agents")), n_findings);
}

static void sum_tested(const json_t *result, size_t n_findings)
{
    (void)result;
    if (n_findings == 0)
        cli_talk("webhooks are heard; what a host's delivery list says of its own is the other half");
}

static int add(const cli_usage *usage, const request *rq)
{
    size_t n_findings = 0;
    cli_exit status;

    if (rq->is_all == (rq->agent != NULL))
        return cli_usage_error(usage, "for whom: --agent ID, or --all?");
    if (rq->agent != NULL && !ids_is_agent(str_of(rq->agent)))
        return cli_usage_error(usage, "--agent needs the id of an agent, not '%s'", rq->agent);
    if (rq->url == NULL)
        return cli_usage_error(usage, "--url is missing: where hosts reach this server, for example "
                                      "https://memfs.example.com/webhooks");
    status = upkeep_run(&(upkeep_job){
                            .home = rq->home, .what = "webhook", .route = "/owner/webhook/add",
                            .body = json_pack("{s:s, s:b, s:s, s:s}", "agent",
                                              rq->agent ? rq->agent : "", "all", rq->is_all, "url",
                                              rq->url, "remote", rq->remote ? rq->remote : ""),
                            .as_json = rq->as_json, .summary = sum_added,
                            .on_failure = "hooks that were made stay; the command can be repeated" },
                        &n_findings);
    return status == EXIT_GOOD && n_findings > 0 ? EXIT_FAILED : status;
}

static int test(const request *rq)
{
    _cleanup_(mem_freep) char *ca_file = rq->ca_file != NULL ? cli_absolute(rq->ca_file) : NULL;
    size_t n_findings = 0;
    cli_exit status =
        upkeep_run(&(upkeep_job){ .home = rq->home, .what = "webhook",
                                  .route = "/owner/webhook/test",
                                  .body = json_pack("{s:s, s:s}", "url", rq->url ? rq->url : "",
                                                    "ca_file", ca_file ? ca_file : ""),
                                  .as_json = rq->as_json, .summary = sum_tested },
                   &n_findings);

    return status == EXIT_GOOD && n_findings > 0 ? EXIT_FAILED : status;
}

int cmd_webhook(int argc, char **argv)
{
    request rq = { .home = NULL };
    const cli_option options[] = {
        { "agent", CLI_TEXT, &rq.agent, "ID", "add: for this agent's repository" },
        { "all", CLI_FLAG, &rq.is_all, NULL, "add: for all agents" },
        { "url", CLI_TEXT, &rq.url, "URL", "where hosts reach this server: https://…/webhooks" },
        { "remote", CLI_TEXT, &rq.remote, "NAME", "add: at this remote (all that are read)" },
        { "ca-file", CLI_TEXT, &rq.ca_file, "FILE", "test: trust this certificate authority" },
        { "home", CLI_TEXT, &rq.home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &rq.as_json, NULL, "one JSON object with the findings" },
    };
    const cli_usage usage = {
        "webhook (add (--agent ID | --all) --url URL [--remote NAME] | test [--url URL])",
        "add tells the git hosts of the remotes to say at once when somebody pushed there: a webhook\n"
        "on each agent's repository, with the secret that is configured; where there is none, one is\n"
        "made in the data folder.  Hooks that are there are left as they are.\n"
        "test sends a signed ping to URL, as a host would (without URL, to the running server\n"
        "itself), once for each secret.",
        options, ARRAY_LEN(options),
        "  memfs webhook add --all --url https://memfs.example.com/webhooks\n"
        "  memfs webhook test --url https://memfs.example.com/webhooks\n", "add test"
    };
    const char *rest[1];
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, ARRAY_LEN(rest), &n_rest, &status))
        return status;
    if (n_rest == 1 && strcmp(rest[0], "add") == 0)
        return add(&usage, &rq);
    if (n_rest == 1 && strcmp(rest[0], "test") == 0)
        return test(&rq);
    return cli_usage_error(&usage, "what is to be done: add or test?");
}
