/*
 * memfs - agent memory that is a git repository.  This file is the table of subcommands and nothing
 * else; each has its own file.  Those that work on a data folder are in memfs-server.
 */
#include "cli/cli.h"

#include "base/mem.h"
#include "base/process.h"
#include "base/program.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Hands over to memfs-server for good; argv[0] is the command's name. */
int cli_to_server(int argc, char **argv)
{
    memfs_error err = MEMFS_ERROR_INIT;
    char *program, **args;

    if (program_path(PROGRAM_SERVER, &program, &err) < 0)
        return cli_fail(&err, "install memfs again, or name its folder in PATH");
    args = mem_realloc(NULL, (size_t)argc + 2, sizeof(*args));
    args[0] = program;
    memcpy(&args[1], argv, ((size_t)argc + 1) * sizeof(*argv));
    execv(program, args);
    cli_talk("could not start '%s': %s", program, strerror(errno));
    return EXIT_FAILED;
}

const cli_command CLI_COMMANDS[] = {
    { "apply", cmd_apply, "make an agent's memory ready; take what its remote has" },
    { "init", cmd_init, "make an agent's memory ready, without any remote" },
    { "clone", cmd_clone, "get a memory from a git address" },
    { "sync", cmd_sync, "bring memories and remotes together; --watch keeps doing it" },
    { "status", cmd_status, "show where each memory stands" },
    { "exec", cmd_exec, "apply, run a command, sync" },
    { "log", cmd_log, "show the commits of a memory" },
    { "diff", cmd_diff, "show what changed in a memory" },
    { "show", cmd_show, "show a commit, or a file as it was" },
    { "restore", cmd_memory_restore, "bring files back from a commit, or a data folder from a backup" },
    { "undo", cmd_undo, "undo a merge, or bring back what was reset or deleted" },
    { "worktree", cmd_worktree, "branches and folders for concurrent writers" },
    { "merge-file", cmd_merge_file, "merge three files as memfs does", CLI_TOOL },
    { "tokens", cmd_tokens, "estimate what a memory costs in the prompt" },
    { "backup", cmd_memory_backup, "copy a memory, or the whole data folder" },
    { "export", cmd_export, "write a memory's files, or a git bundle" },
    { "import", cmd_import, "take files or a bundle into a memory" },
    { "remote", cmd_remote, "set, show and check an agent's remote" },
    { "setup", cmd_setup, "make git answer for agents that nobody knows yet", CLI_TOOL },
    { "config", cmd_config, "show settings and where they come from", CLI_TOOL },
    { "doctor", cmd_doctor, "find and mend what is wrong", CLI_TOOL },
    { "hook", cmd_hook, "what the git hooks call", CLI_TOOL },
    { "serve", cli_to_server, "serve memories over HTTP: git, blocks, agents", CLI_SERVER },
    { "health", cmd_health, "ask a server how it is", CLI_SERVER },
    { "agents", cli_to_server, "list, create, delete and restore agents", CLI_SERVER },
    { "blocks", cli_to_server, "list or show the blocks of an agent", CLI_SERVER },
    { "search", cli_to_server, "find text in memories, also what was deleted", CLI_SERVER },
    { "mirror", cli_to_server, "the server's git hosts: status, remotes, what to do", CLI_SERVER },
    { "webhook", cli_to_server, "let git hosts say at once that somebody pushed", CLI_SERVER },
    { "verify", cli_to_server, "check that blocks equal git and that repositories are whole",
      CLI_SERVER },
    { "rebuild", cli_to_server, "make the blocks anew from git, or all from a remote", CLI_SERVER },
    { "repack", cli_to_server, "fold many small packs into few", CLI_SERVER },
    { "purge", cli_to_server, "take a leaked secret out of an agent's history", CLI_SERVER },
    { "token", cli_to_server, "create, list and revoke access tokens", CLI_SERVER },
    { "debug", cli_to_server, "checks for developers: vectors, routes", CLI_TOOL },
    { "completion", cmd_completion, "print completion for a shell", CLI_TOOL },
    { "version", cmd_version, "show the version", CLI_TOOL },
    { "help", cmd_help, "show help for a command", CLI_TOOL },
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

    process_settle();
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
