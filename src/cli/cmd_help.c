#include "cli/catalogue.h"

#include <stdio.h>
#include <string.h>

static void print_group(cli_group group, const char *title)
{
    printf("\n%s\n", title);
    for (size_t i = 0; i < CLI_N_COMMANDS; i++)
        if (CLI_COMMANDS[i].group == group)
            printf("  %-10s %s\n", CLI_COMMANDS[i].name, CLI_COMMANDS[i].summary);
}

static void print_commands(void)
{
    puts("memfs: agent memory that is a git repository\n\nusage: memfs COMMAND [OPTIONS]");
    print_group(CLI_MEMORY, "an agent's memory (--agent ID, $LETTA_AGENT_ID, or the folder you are in):");
    print_group(CLI_SERVER, "the server and its data folder (--home DIR, $MEMFS_HOME, or ~/.memfs):");
    print_group(CLI_TOOL, "set-up and tools:");
    puts("\n'memfs COMMAND --help' tells more; 'memfs help --json' says all of it to programs.\n"
         "exit: 0 good, 1 failed, 2 usage, 3 remote unavailable, 4 credentials refused,\n"
         "      5 conflict recorded, 6 refused by policy, 7 busy");
}

static int print_json(void)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    catalogue_json(&text);
    puts(text.ptr);
    return cli_finish(EXIT_GOOD);
}

static int help_of(const char *name)
{
    for (size_t i = 0; i < CLI_N_COMMANDS; i++) {
        char *ask[] = { (char *)name, (char[]){ "--help" }, NULL };

        if (strcmp(CLI_COMMANDS[i].name, name) == 0)
            return CLI_COMMANDS[i].fn(2, ask);
    }
    cli_talk("there is no command '%s'; 'memfs help' lists them", name);
    return EXIT_USAGE;
}

int cmd_help(int argc, char **argv)
{
    bool as_json = false;
    const cli_option options[] = {
        { "json", CLI_FLAG, &as_json, NULL, "every command with its options, as JSON" },
    };
    const cli_usage usage = { "help [COMMAND] [--json]",
                              "Lists the commands, or tells about one.", options,
                              ARRAY_LEN(options), NULL };
    const char *rest[1];
    size_t n_rest = 0;
    cli_exit status;

    if (argc > 0 && !cli_parse(&usage, argc, argv, rest, 1, &n_rest, &status))
        return status;
    if (as_json)
        return print_json();
    if (n_rest == 1)
        return help_of(rest[0]);
    print_commands();
    return cli_finish(EXIT_GOOD);
}
