#include "cli/upkeep.h"

static void summary(const json_t *result, size_t n_findings)
{
    (void)n_findings;
    cli_talk("blocks made anew from git for %lld agent(s)",
             (long long)json_integer_value(json_object_get(result, "agents")));
}

int cmd_rebuild(int argc, char **argv)
{
    static const upkeep_command command = {
        "rebuild [--agent ID] [--json]",
        "Makes the blocks anew from git, which is the truth.  Nothing is lost by it: block ids\n"
        "and their order stay as they were.  Agents are served meanwhile.",
        "rebuild", "/owner/rebuild", summary
    };

    return upkeep_main(argc, argv, &command);
}
