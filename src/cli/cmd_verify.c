#include "cli/upkeep.h"

static void summary(const json_t *result, size_t n_findings)
{
    cli_talk("agents checked: %lld, findings: %zu",
             (long long)json_integer_value(json_object_get(result, "agents")), n_findings);
    if (n_findings > 0)
        cli_talk("blocks that differ from git are mended by 'memfs rebuild'; a damaged repository "
                 "comes back from 'memfs restore'");
}

int cmd_verify(int argc, char **argv)
{
    const char *home = NULL, *agent = NULL;
    bool as_json = false;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "only this agent (all without it)" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object with the findings" },
    };
    const cli_usage usage = {
        "verify [--agent ID] [--json]",
        "Checks that every block equals what git says, in both directions, that each repository\n"
        "is whole (git fsck) and that nobody moved its branch by hand.  Changes nothing.\n"
        "Exit status 1 when something was found.",
        options, ARRAY_LEN(options), NULL
    };
    size_t n_rest, n_findings = 0;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    status = upkeep_run(&(upkeep_job){ .home = home, .what = "verify", .route = "/owner/verify",
                                       .body = json_pack("{s:s}", "agent", agent ? agent : ""),
                                       .as_json = as_json, .summary = summary },
                        &n_findings);
    return status == EXIT_GOOD && n_findings > 0 ? EXIT_FAILED : status;
}
