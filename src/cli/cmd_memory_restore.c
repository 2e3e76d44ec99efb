#include "cli/cli.h"

int cmd_memory_restore(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return EXIT_FAILED;
}
