#include "cli/upkeep.h"

#include "base/fs.h"
#include "base/mem.h"
#include "memory/ids.h"
#include "store/server_settings.h"
#include "sync/home_database.h"

#include <string.h>

/*
 * The part of `memfs import` that works on a data folder: agents of a Letta server move in.  The
 * other part, a folder or bundle into one memory, is the client's (cmd_import.c), which hands over
 * to this one.
 */

#define CONFIGURED "configured"
#define VARIABLE "MEMFS_LETTA_DATABASE"

static long long count_of(const json_t *result, const char *key)
{
    return (long long)json_integer_value(json_object_get(result, key));
}

static void sum(const json_t *result, size_t n_findings)
{
    bool is_dry = json_is_true(json_object_get(result, "dry_run"));

    cli_talk("agents: %lld; %s %lld, changed %lld, merged %lld, as they were %lld, skipped %lld, "
             "failed %lld",
             count_of(result, "agents"), is_dry ? "would be made" : "made",
             count_of(result, "made"), count_of(result, "changed"), count_of(result, "merged"),
             count_of(result, "unchanged"), count_of(result, "skipped"),
             count_of(result, "failed"));
    cli_talk("blocks: %lld%s", count_of(result, "blocks"), is_dry ? "; nothing was changed" : "");
    if (n_findings > 0)
        cli_talk("the same command again does what is missing; what is here and equal is left");
}

static cli_exit exit_of(const json_t *result, size_t n_findings)
{
    (void)result;
    return n_findings > 0 ? EXIT_FAILED : EXIT_GOOD;
}

/* The address that is not in the command line: *ret is the caller's. */
static memfs_code configured_url(const char *home, char **ret, memfs_error *err)
{
    _cleanup_(server_said_dispose) server_said said = SERVER_SAID_INIT;
    memfs_code rc = server_said_read(home, NULL, &said, err);

    if (rc == MEMFS_OK)
        rc = home_database_check(said.text[SERVER_LETTA_DATABASE], err);
    if (rc == MEMFS_OK)
        *ret = TAKE_PTR(said.text[SERVER_LETTA_DATABASE]);
    if (rc == MEMFS_OK && *ret == NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "no database is configured: set $" VARIABLE ", or memfs.lettaDatabase in "
                          "the config of the data folder");
    return rc;
}

static memfs_code add_source(const char *home, const char *letta, const char *letta_url,
                             const char *token_file, json_t *body, memfs_error *err)
{
    _cleanup_(mem_freep) char *url = NULL, *file = NULL;
    memfs_code rc = MEMFS_OK;

    if (letta_url != NULL) {
        json_object_set_new(body, "url", json_string(letta_url));
        file = token_file != NULL ? cli_absolute(token_file) : NULL;
        if (file != NULL)
            json_object_set_new(body, "token_file", json_string(file));
        return MEMFS_OK;
    }
    if (strcmp(letta, CONFIGURED) == 0)
        rc = configured_url(home, &url, err);
    else
        url = mem_strdup(letta);
    if (rc != MEMFS_OK)
        return rc;
    if (strcmp(letta, CONFIGURED) != 0 && home_database_has_password(url))
        cli_talk("the password in --letta could be seen by others: use $" VARIABLE " with "
                 "'--letta " CONFIGURED "', or ~/.pgpass");
    json_object_set_new(body, "database", json_string(url));
    explicit_bzero(url, strlen(url));
    return MEMFS_OK;
}

static bool add_agents(const cli_usage *usage, const cli_texts *agents, json_t *body,
                       cli_exit *ret_exit)
{
    json_t *ids;

    if (agents->n == 0)
        return true;
    ids = json_array();
    json_object_set_new(body, "agents", ids);
    for (size_t i = 0; i < agents->n; i++) {
        if (!ids_is_agent(str_of(agents->at[i]))) {
            *ret_exit =
                cli_usage_error(usage, "--agent needs the id of an agent, not '%s'", agents->at[i]);
            return false;
        }
        json_array_append_new(ids, json_string(agents->at[i]));
    }
    return true;
}

int cmd_import_letta(int argc, char **argv)
{
    _cleanup_(cli_texts_dispose) cli_texts agents = CLI_TEXTS_INIT;
    _cleanup_(mem_freep) char *named = NULL, *path = NULL;
    const char *home = NULL, *letta = NULL, *letta_url = NULL, *token_file = NULL;
    bool is_dry = false, with_git = false, as_json = false;
    const cli_option options[] = {
        { "letta", CLI_TEXT, &letta, "URL",
          "the database of a Letta server; '" CONFIGURED "': as $" VARIABLE " says" },
        { "letta-url", CLI_TEXT, &letta_url, "URL", "or the server itself" },
        { "token-file", CLI_TEXT, &token_file, "FILE", "letta-url: what it wants (mode 0600)" },
        { "agent", CLI_TEXTS, &agents, "ID", "only this one; may be said again" },
        { "with-git", CLI_FLAG, &with_git, NULL, "also agents whose memory Letta says is in git" },
        { "dry-run", CLI_FLAG, &is_dry, NULL, "only show what would change" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object" },
    };
    const cli_usage usage = { "import --letta URL [--agent ID]... [--dry-run] [--json]\n"
                              "       memfs import --letta-url URL [--token-file FILE] [--agent "
                              "ID]... [--dry-run] [--json]",
                              "Takes over the agents of a Letta server, each with its blocks, tags "
                              "and attributes.  Nothing\n"
                              "changes there.  The same again brings what changed since.",
                              options, ARRAY_LEN(options), NULL };
    memfs_error err = MEMFS_ERROR_INIT;
    json_t *body = NULL;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    if ((letta == NULL) == (letta_url == NULL))
        return cli_usage_error(&usage, "one of --letta and --letta-url, not both");
    if (token_file != NULL && letta_url == NULL)
        return cli_usage_error(&usage, "--token-file is for --letta-url");
    named = cli_home(home);
    path = cli_absolute(named);
    body = json_pack("{s:b,s:b}", "dry_run", is_dry, "with_git", with_git);
    if (!add_agents(&usage, &agents, body, &status)) {
        json_decref(body);
        return status;
    }
    if (fs_mkdirs(path, &err) < 0 ||
        add_source(path, letta, letta_url, token_file, body, &err) < 0) {
        json_decref(body);
        return cli_fail(&err, NULL);
    }
    cli_hide_secrets(argc, argv);
    return upkeep_run(&(upkeep_job){ .home = path,
                                     .what = "import",
                                     .route = "/owner/import",
                                     .body = body,
                                     .as_json = as_json,
                                     .summary = sum,
                                     .exit_of = exit_of,
                                     .is_remote = true },
                      NULL);
}
