#include "cli/cli.h"

int cmd_remote(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return EXIT_FAILED;
}
