#include "cli/cli.h"

int cmd_memory_backup(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return EXIT_FAILED;
}
