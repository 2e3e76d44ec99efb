#include "cli/upkeep.h"

int cmd_repack(int argc, char **argv)
{
    const char *home = NULL, *agent = NULL;
    bool as_json = false;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "only this agent (all without it)" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object at the end" },
    };
    const cli_usage usage = {
        "repack [--agent ID] [--json]",
        "Folds the many small packs that pushes leave into few.  A running server does this by\n"
        "itself; the command is for those who want it now.",
        options, ARRAY_LEN(options), NULL
    };
    size_t n_rest, n_findings = 0;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    status = upkeep_run(&(upkeep_job){ .home = home, .what = "repack", .route = "/owner/repack",
                                       .body = json_pack("{s:s}", "agent", agent ? agent : ""),
                                       .as_json = as_json },
                        &n_findings);
    return status == EXIT_GOOD && n_findings > 0 ? EXIT_FAILED : status;
}
