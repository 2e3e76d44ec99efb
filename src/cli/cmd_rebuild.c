#include "cli/upkeep.h"

static void summary(const json_t *result, size_t n_findings)
{
    (void)n_findings;
    cli_talk("blocks made anew from git for %lld agent(s)",
             (long long)json_integer_value(json_object_get(result, "agents")));
}

int cmd_rebuild(int argc, char **argv)
{
    const char *home = NULL, *agent = NULL;
    bool as_json = false;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "only this agent (all without it)" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object at the end" },
    };
    const cli_usage usage = {
        "rebuild [--agent ID] [--json]",
        "Makes the blocks anew from git, which is the truth.  Nothing is lost by it: block ids\n"
        "and their order stay as they were.  Agents are served meanwhile.",
        options, ARRAY_LEN(options), NULL
    };
    size_t n_rest, n_findings = 0;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    status = upkeep_run(&(upkeep_job){ .home = home, .what = "rebuild", .route = "/owner/rebuild",
                                       .body = json_pack("{s:s}", "agent", agent ? agent : ""),
                                       .as_json = as_json, .summary = summary },
                        &n_findings);
    return status == EXIT_GOOD && n_findings > 0 ? EXIT_FAILED : status;
}
