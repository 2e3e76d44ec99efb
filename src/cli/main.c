/*
 * memfs - agent memory that is a git repository.  This file is the table of subcommands and nothing
 * else; each has its own file.
 */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

const cli_command CLI_COMMANDS[] = {
    { "serve", cmd_serve, "serve memories over HTTP: git, blocks, agents" },
    { "agents", cmd_agents, "list the agents whose memory is here" },
    { "blocks", cmd_blocks, "list or show the blocks of an agent" },
    { "verify", cmd_verify, "check that blocks equal git and that repositories are whole" },
    { "rebuild", cmd_rebuild, "make the blocks anew from git" },
    { "repack", cmd_repack, "fold many small packs into few" },
    { "backup", cmd_backup, "copy the whole data folder, consistent under load" },
    { "restore", cmd_restore, "make a data folder from a backup" },
    { "purge", cmd_purge, "take a leaked secret out of an agent's history" },
    { "debug", cmd_debug, "checks for developers: vectors, routes" },
    { "version", cmd_version, "show the version" },
    { "help", cmd_help, "show help for a command" },
};
const size_t CLI_N_COMMANDS = ARRAY_LEN(CLI_COMMANDS);

static const cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < CLI_N_COMMANDS; i++)
        if (strcmp(CLI_COMMANDS[i].name, name) == 0)
            return &CLI_COMMANDS[i];
    return NULL;
}

int main(int argc, char **argv)
{
    const cli_command *command;

    if (argc < 2)
        return cmd_help(0, NULL) == EXIT_GOOD ? EXIT_USAGE : EXIT_FAILED;
    if (strcmp(argv[1], "--version") == 0)
        return cmd_version(1, argv + 1);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return cmd_help(1, argv + 1);
    command = find_command(argv[1]);
    if (command == NULL) {
        cli_talk("there is no command '%s'; 'memfs help' lists them", argv[1]);
        return EXIT_USAGE;
    }
    return command->fn(argc - 1, argv + 1);
}
