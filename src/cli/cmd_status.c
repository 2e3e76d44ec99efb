#include "cli/cli.h"

int cmd_status(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return EXIT_FAILED;
}
