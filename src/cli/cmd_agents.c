#include "cli/cli.h"

#include "base/mem.h"
#include "cli/owner.h"

#include <stdio.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

static cli_exit list(owner *o, bool as_json)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_error err = MEMFS_ERROR_INIT;
    const char *path = "/v1/agents/?limit=0&order=asc";
    json_t *agents, *agent;
    size_t i;

    if (as_json) {
        if (owner_get_text(o, path, &text, &err) < 0)
            return cli_fail(&err, NULL);
        fwrite(text.ptr, 1, text.len, stdout);
        putchar('\n');
        return cli_finish(EXIT_GOOD);
    }
    if (owner_get(o, path, &agents, &err) < 0)
        return cli_fail(&err, NULL);
    json_array_foreach(agents, i, agent) {
        printf("%s  %s  ", text_of(agent, "id"), text_of(agent, "created_at"));
        cli_print_safe(str_of(text_of(agent, "name")));
        putchar('\n');
    }
    if (json_array_size(agents) == 0)
        cli_talk("no agent has pushed a memory here yet");
    json_decref(agents);
    return cli_finish(EXIT_GOOD);
}

int cmd_agents(int argc, char **argv)
{
    _cleanup_(mem_freep) char *home_path = NULL;
    _cleanup_(owner_closep) owner *o = NULL;
    const char *home = NULL, *rest[1] = { "list" };
    bool as_json = false;
    const cli_option options[] = {
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "the API's answer as it is" },
    };
    const cli_usage usage = { "agents [list] [--json]",
                              "Lists the agents whose memory is here, oldest first.", options,
                              ARRAY_LEN(options), NULL };
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, 1, &n_rest, &status))
        return status;
    if (strcmp(rest[0], "list") != 0)
        return cli_usage_error(&usage, "unexpected '%s'", rest[0]);
    home_path = cli_home(home);
    if (owner_connect(home_path, &o, &err) < 0)
        return cli_fail(&err, "name the data folder with --home or $MEMFS_HOME");
    return list(o, as_json);
}
