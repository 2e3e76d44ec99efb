#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static void print_commands(void)
{
    puts("memfs: agent memory that is a git repository\n\nusage: memfs COMMAND [OPTIONS]\n");
    for (size_t i = 0; i < CLI_N_COMMANDS; i++)
        printf("  %-10s %s\n", CLI_COMMANDS[i].name, CLI_COMMANDS[i].summary);
    puts("\n'memfs COMMAND --help' tells more.  The data folder is --home, $MEMFS_HOME or ~/.memfs.\n"
         "exit: 0 good, 1 failed, 2 usage, 3 remote unavailable, 4 credentials refused,\n"
         "      5 conflict recorded, 6 refused by policy, 7 busy");
}

int cmd_help(int argc, char **argv)
{
    if (argc < 2) {
        print_commands();
        return cli_finish(EXIT_GOOD);
    }
    for (size_t i = 0; i < CLI_N_COMMANDS; i++) {
        char *ask[] = { argv[1], (char[]){ "--help" }, NULL };

        if (strcmp(CLI_COMMANDS[i].name, argv[1]) != 0)
            continue;
        if (CLI_COMMANDS[i].fn != cmd_help)
            return CLI_COMMANDS[i].fn(2, ask);
        print_commands();
        return cli_finish(EXIT_GOOD);
    }
    cli_talk("there is no command '%s'; 'memfs help' lists them", argv[1]);
    return EXIT_USAGE;
}
