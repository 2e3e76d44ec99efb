#include "cli/cli.h"

#include "base/mem.h"
#include "sync/upkeep.h"

#include <stdio.h>

static bool on_progress(size_t done, size_t total, const char *agent_id, void *ctx)
{
    (void)ctx;
    cli_progress("restore", done, total, agent_id);
    return true;
}

static void on_finding(const char *agent_id, const char *kind, const char *what, const char *text,
                       void *ctx)
{
    (void)ctx;
    cli_progress_end();
    cli_talk("%s  %s  %s: %s", agent_id, kind, what, text);
}

int cmd_restore(int argc, char **argv)
{
    _cleanup_(mem_freep) char *named = NULL, *home_path = NULL;
    const char *home = NULL, *from = NULL;
    bool as_json = false;
    const cli_option options[] = {
        { "from", CLI_TEXT, &from, "FOLDER", "the backup" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder to make; absent or empty" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object at the end" },
    };
    const cli_usage usage = {
        "restore --from FOLDER [--home DIR] [--json]",
        "Makes a data folder from a backup, after checking every repository of it.  Never touches\n"
        "a data folder that holds anything.",
        options, ARRAY_LEN(options), "  memfs restore --from /backup/memfs-monday --home ~/.memfs\n"
    };
    const upkeep_watcher watcher = { on_progress, on_finding, NULL };
    upkeep_result result = { 0 };
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    if (from == NULL)
        return cli_usage_error(&usage, "which backup? (--from FOLDER)");
    named = cli_home(home);
    home_path = cli_absolute(named); /* git runs in a folder of its own */
    if (upkeep_restore(from, home_path, &watcher, &result, &err) < 0)
        return cli_fail(&err, NULL);
    cli_progress_end();
    if (as_json)
        printf("{\"agents\":%zu}\n", result.n_agents);
    else
        cli_talk("agents restored: %zu; 'memfs serve' serves them", result.n_agents);
    return cli_finish(EXIT_GOOD);
}
