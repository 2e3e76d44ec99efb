#include "cli/cli.h"

int cmd_merge_file(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return EXIT_FAILED;
}
