#include "cli/memories.h"

int cmd_init(int argc, char **argv)
{
    return memory_apply_main(
        argc, argv, "init --agent ID [--json]",
        "Makes an agent's memory ready as 'memfs apply' does, without asking any remote.\n"
        "What is there already stays as it is.",
        true);
}
