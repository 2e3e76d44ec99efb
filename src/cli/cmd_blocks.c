#include "cli/cli.h"

#include "base/httpc.h"
#include "base/mem.h"
#include "cli/owner.h"
#include "memory/ids.h"

#include <stdio.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

static cli_exit print_answer(owner *o, const char *path)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_error err = MEMFS_ERROR_INIT;

    if (owner_get_text(o, path, &text, &err) < 0)
        return cli_fail(&err, "'memfs agents list' shows the agents that are here");
    fwrite(text.ptr, 1, text.len, stdout);
    putchar('\n');
    return cli_finish(EXIT_GOOD);
}

static void print_row(const json_t *block)
{
    const json_t *value = json_object_get(block, "value");

    printf("%8zu  %-3s  ", json_string_length(value),
           json_is_true(json_object_get(block, "read_only")) ? "ro" : "");
    cli_print_safe(str_of(text_of(block, "label")));
    fputs("  ", stdout);
    cli_print_safe(str_of(text_of(block, "description")));
    putchar('\n');
}

static cli_exit list(owner *o, const char *agent, bool as_json)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(4096);
    memfs_error err = MEMFS_ERROR_INIT;
    json_t *blocks, *block;
    size_t i;

    buf_puts(&path, "/v1/agents/");
    httpc_escape(&path, str_of(agent));
    buf_puts(&path, "/core-memory/blocks?limit=0&order=asc");
    if (as_json)
        return print_answer(o, path.ptr);
    if (owner_get(o, path.ptr, &blocks, &err) < 0)
        return cli_fail(&err, "'memfs agents list' shows the agents that are here");
    json_array_foreach(blocks, i, block) print_row(block);
    json_decref(blocks);
    return cli_finish(EXIT_GOOD);
}

static cli_exit get(owner *o, const char *agent, const char *label, bool as_json)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(16384);
    memfs_error err = MEMFS_ERROR_INIT;
    json_t *block;
    const json_t *value;

    buf_puts(&path, "/v1/agents/");
    httpc_escape(&path, str_of(agent));
    buf_puts(&path, "/core-memory/blocks/");
    httpc_escape(&path, str_of(label));
    if (as_json)
        return print_answer(o, path.ptr);
    if (owner_get(o, path.ptr, &block, &err) < 0)
        return cli_fail(&err, "'memfs blocks list' shows the labels of an agent");
    value = json_object_get(block, "value");
    cli_print_safe(str_make(json_string_value(value), json_string_length(value)));
    json_decref(block);
    return cli_finish(EXIT_GOOD);
}

int cmd_blocks(int argc, char **argv)
{
    _cleanup_(mem_freep) char *home_path = NULL;
    _cleanup_(owner_closep) owner *o = NULL;
    const char *home = NULL, *agent = NULL, *rest[2] = { "list", NULL };
    bool as_json = false, is_get;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "whose blocks ($LETTA_AGENT_ID, $AGENT_ID)" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "the API's answer as it is" },
    };
    const cli_usage usage = {
        "blocks [list | get LABEL] --agent ID [--json]",
        "list shows the blocks of an agent: bytes, 'ro' if read-only, label, description.\n"
        "get prints the value of one.",
        options, ARRAY_LEN(options), "  memfs blocks get system/human --agent agent-…\n"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, 2, &n_rest, &status))
        return status;
    is_get = strcmp(rest[0], "get") == 0;
    if (!is_get && strcmp(rest[0], "list") != 0)
        return cli_usage_error(&usage, "unexpected '%s'", rest[0]);
    if (is_get != (rest[1] != NULL))
        return cli_usage_error(&usage, is_get ? "which label?" : "list takes no label");
    agent = cli_agent(agent);
    if (agent == NULL)
        return cli_usage_error(&usage, "whose blocks? (--agent ID)");
    if (!ids_is_agent(str_of(agent)))
        return cli_usage_error(&usage, "--agent needs the id of an agent, not '%s'", agent);
    home_path = cli_home(home);
    if (owner_connect(home_path, &o, &err) < 0)
        return cli_fail(&err, "name the data folder with --home or $MEMFS_HOME");
    return is_get ? get(o, agent, rest[1], as_json) : list(o, agent, as_json);
}
