#include "cli/memories.h"

int cmd_apply(int argc, char **argv)
{
    return memory_apply_main(
        argc, argv, "apply --agent ID [--wait SECONDS] [--json]",
        "Makes an agent's memory ready: the repository, its configuration and hooks, always and first;\n"
        "then what the remote has is cloned, fast-forwarded or merged, and what it lacks is pushed.\n"
        "Files of a folder that is no repository yet are committed; nothing is overwritten.\n"
        "Whatever the remote does, the exit status is 0 and one line says how things stand.  An answer\n"
        "is remembered for a while; 'memfs sync' asks anew.",
        false);
}
