#include "cli/upkeep.h"

int cmd_repack(int argc, char **argv)
{
    static const upkeep_command command = {
        "repack [--agent ID] [--json]",
        "Folds the many small packs that pushes leave into few.  A running server does this by\n"
        "itself; the command is for those who want it now.",
        "repack", "/owner/repack", NULL
    };

    return upkeep_main(argc, argv, &command);
}
