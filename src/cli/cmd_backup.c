#include "cli/upkeep.h"

#include "base/mem.h"

static void summary(const json_t *result, size_t n_findings)
{
    (void)n_findings;
    cli_talk("agents in the backup: %lld; 'memfs restore --from' makes a data folder of it",
             (long long)json_integer_value(json_object_get(result, "agents")));
}

int cmd_backup(int argc, char **argv)
{
    _cleanup_(mem_freep) char *to = NULL;
    const char *home = NULL, *rest[1];
    bool as_json = false;
    const cli_option options[] = {
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object at the end" },
    };
    const cli_usage usage = {
        "backup FOLDER [--json]",
        "Copies every memory and the durable state into FOLDER, which must not exist.  Safe while\n"
        "the server works: the copy is a state that some instant really had.  Blocks are not\n"
        "copied; they are made from git again.  The configuration comes along, secrets do not:\n"
        "remotes need their tokens and keys again where it is restored.",
        options, ARRAY_LEN(options), "  memfs backup /backup/memfs-monday\n"
    };
    size_t n_rest, n_findings = 0;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, 1, &n_rest, &status))
        return status;
    if (n_rest != 1)
        return cli_usage_error(&usage, "where should the backup go?");
    to = cli_absolute(rest[0]); /* the owner has another working folder */
    status = upkeep_run(&(upkeep_job){ .home = home, .what = "backup", .route = "/owner/backup",
                                       .body = json_pack("{s:s}", "to", to),
                                       .as_json = as_json, .summary = summary,
                                       .on_failure = "no backup was made" },
                        &n_findings);
    return status == EXIT_GOOD && n_findings > 0 ? EXIT_FAILED : status;
}
