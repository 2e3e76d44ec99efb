#include "cli/upkeep.h"

static void summary(const json_t *result, size_t n_findings)
{
    cli_talk("agents checked: %lld, findings: %zu",
             (long long)json_integer_value(json_object_get(result, "agents")), n_findings);
    if (n_findings > 0)
        cli_talk("blocks that differ from git are mended by 'memfs rebuild'; a damaged repository "
                 "comes back from 'memfs restore'");
}

int cmd_verify(int argc, char **argv)
{
    static const upkeep_command command = {
        "verify [--agent ID] [--json]",
        "Checks that every block equals what git says, in both directions, that each repository\n"
        "is whole (git fsck) and that nobody moved its branch by hand.  Changes nothing.\n"
        "Exit status 1 when something was found.",
        "verify", "/owner/verify", summary
    };

    return upkeep_main(argc, argv, &command);
}
