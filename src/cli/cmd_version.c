#include "cli/cli.h"

#include <stdio.h>

int cmd_version(int argc, char **argv)
{
    bool as_json = false;
    const cli_option options[] = {
        { "json", CLI_FLAG, &as_json, NULL, "as JSON" },
    };
    const cli_usage usage = { "version [--json]", "Shows the version of memfs.", options,
                              ARRAY_LEN(options), NULL };
    size_t n_rest;
    cli_exit status;

    if (argc > 0 && argv[0][0] != '-' && !cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    printf(as_json ? "{\"version\":\"%s\"}\n" : "memfs %s\n", MEMFS_VERSION);
    return cli_finish(EXIT_GOOD);
}
