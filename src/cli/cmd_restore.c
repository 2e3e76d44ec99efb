#include "cli/cli.h"

#include "base/mem.h"
#include "cli/owner.h"
#include "sync/upkeep.h"

#include <stdio.h>

/*
 * The server's two restores: a data folder from a backup, in this process, and one agent's memory as
 * it was, by whoever owns the home.  Times have become "@SECONDS" before they come here
 * (cmd_memory_restore.c).
 */

/* ---- a data folder ---- */

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

static cli_exit restore_home(const char *from, const char *home, bool as_json)
{
    _cleanup_(mem_freep) char *named = cli_home(home);
    _cleanup_(mem_freep) char *home_path = cli_absolute(named); /* git runs in a folder of its own */
    const upkeep_watcher watcher = { on_progress, on_finding, NULL };
    upkeep_result result = { 0 };
    memfs_error err = MEMFS_ERROR_INIT;

    if (upkeep_restore(from, home_path, &watcher, &result, &err) < 0)
        return cli_fail(&err, NULL);
    cli_progress_end();
    if (as_json)
        printf("{\"agents\":%zu}\n", result.n_agents);
    else
        cli_talk("agents restored: %zu; 'memfs serve' serves them", result.n_agents);
    return cli_finish(EXIT_GOOD);
}

/* ---- one agent's memory ---- */

static void keep_result(const json_t *line, void *ctx)
{
    json_t **ret = ctx;
    json_t *result = json_object_get(line, "result");

    if (result != NULL && *ret == NULL)
        *ret = json_incref(result);
}

static void tell(const json_t *result)
{
    const char *tip = json_string_value(json_object_get(result, "tip"));
    const char *before = json_string_value(json_object_get(result, "before"));

    if (!json_is_true(json_object_get(result, "moved")))
        cli_talk("all is as it was then; nothing was changed");
    else
        cli_talk("restored as a new commit, %.12s; 'memfs restore --server --agent %s --at %.12s' takes "
                 "it back",
                 tip != NULL ? tip : "?", json_string_value(json_object_get(result, "agent")),
                 before != NULL ? before : "?");
}

static cli_exit restore_agent(const char *agent, const char *at, const char *home, bool as_json)
{
    _cleanup_(mem_freep) char *home_path = cli_home(home);
    _cleanup_(owner_closep) owner *o = NULL;
    json_t *body = json_pack("{s:s, s:s}", "agent", agent, "at", at), *result = NULL;
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = owner_connect(home_path, &o, &err);

    if (rc == MEMFS_OK)
        rc = owner_run(o, "/owner/restore", body, keep_result, &result, &err);
    if (rc == MEMFS_OK && as_json) {
        json_dumpf(result, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (rc == MEMFS_OK) {
        tell(result);
    }
    json_decref(body);
    json_decref(result);
    return rc == MEMFS_OK ? cli_finish(EXIT_GOOD) : cli_fail(&err, NULL);
}

int cmd_restore(int argc, char **argv)
{
    const char *home = NULL, *from = NULL, *agent = NULL, *at = NULL;
    bool as_json = false, is_server = false;
    const cli_option options[] = {
        { "from", CLI_TEXT, &from, "FOLDER", "the backup" },
        { "agent", CLI_TEXT, &agent, "ID", "whose memory" },
        { "at", CLI_TEXT, &at, "REV|@SECONDS", "as it was: a commit, or a time" },
        { "server", CLI_FLAG, &is_server, NULL, "the memory that the server has" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder; of a backup: to make, absent or empty" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object at the end" },
    };
    const cli_usage usage = {
        "restore --from FOLDER [--home DIR] [--json]\n"
        "       memfs restore --server --agent ID --at REV|TIME [--home DIR] [--json]",
        "Makes a data folder from a backup, after checking every repository of it.  Never touches\n"
        "a data folder that holds anything.  Or, with --agent, makes the files of one memory what they\n"
        "were, in a new commit on top.",
        options, ARRAY_LEN(options), "  memfs restore --from /backup/memfs-monday --home ~/.memfs\n"
    };
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    if (from == NULL && agent != NULL && at != NULL)
        return restore_agent(agent, at, home, as_json);
    if (from == NULL)
        return cli_usage_error(&usage, "which backup? (--from FOLDER)");
    if (agent != NULL || at != NULL)
        return cli_usage_error(&usage, "from a backup, or one memory at a time: not both");
    return restore_home(from, home, as_json);
}
