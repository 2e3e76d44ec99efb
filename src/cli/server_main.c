/*
 * memfs-server - the half of memfs that works on a data folder: HTTP, SQLite, repositories.  People
 * call `memfs`, which starts this program for the commands below (base/program.h); so the client
 * never pays for libraries that only a server needs.
 */
#include "cli/cli.h"

#include "base/process.h"

#include <string.h>

const cli_command CLI_COMMANDS[] = {
    { "serve", cmd_serve, "" },   { "agents", cmd_agents, "" },   { "blocks", cmd_blocks, "" },
    { "verify", cmd_verify, "" }, { "rebuild", cmd_rebuild, "" }, { "repack", cmd_repack, "" },
    { "backup", cmd_backup, "" }, { "restore", cmd_restore, "" }, { "purge", cmd_purge, "" },
    { "debug", cmd_debug, "" },   { "mirror", cmd_mirror, "" },   { "token", cmd_token, "" },
    { "webhook", cmd_webhook, "" }, { "import", cmd_import_letta, "" },
    { "search", cmd_search, "" },
};
const size_t CLI_N_COMMANDS = ARRAY_LEN(CLI_COMMANDS);

int main(int argc, char **argv)
{
    process_settle();
    for (size_t i = 0; argc > 1 && i < CLI_N_COMMANDS; i++)
        if (strcmp(CLI_COMMANDS[i].name, argv[1]) == 0)
            return CLI_COMMANDS[i].fn(argc - 1, argv + 1);
    cli_talk("this program is started by 'memfs serve' and its like; call those");
    return EXIT_USAGE;
}
