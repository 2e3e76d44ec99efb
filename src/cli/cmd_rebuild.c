#include "cli/upkeep.h"

#include "base/fs.h"
#include "base/mem.h"
#include "memory/ids.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * Two rebuilds under one name: the blocks from the repositories, and the repositories (with all that
 * hangs on them) from a remote.
 */

#define AGENTS_MAX (8u << 20) /* what the route takes: some 180,000 ids */

typedef struct request {
    const char *home, *agent, *remote, *agents_file;
    bool from_remote, as_json;
} request;

static void sum_blocks(const json_t *result, size_t n_findings)
{
    (void)n_findings;
    cli_talk("blocks made anew from git for %lld agent(s)",
             (long long)json_integer_value(json_object_get(result, "agents")));
}

static void sum_remote(const json_t *result, size_t n_findings)
{
    cli_talk("agents on the remote: %lld, not brought: %zu",
             (long long)json_integer_value(json_object_get(result, "agents")), n_findings);
    if (n_findings > 0)
        cli_talk("the same command again brings what is missing; what is here is asked for once "
                 "and left");
}

/* ---- the list of agents ---- */

static memfs_code read_stdin(memfs_buf *out, memfs_error *err)
{
    for (;;) {
        char *room = buf_reserve(out, 65536);
        ssize_t n;

        if (room == NULL)
            return buf_check(out, "the list of agents", err);
        n = read(STDIN_FILENO, room, 65536);
        if (n < 0)
            return memfs_fail_errno(err, "could not read stdin");
        if (n == 0)
            return MEMFS_OK;
        buf_grew(out, (size_t)n);
    }
}

/* Without what follows a '#', and without blanks around it. */
static memfs_str words_of(memfs_str line)
{
    memfs_str rest;

    (void)str_split(line, '#', &line, &rest);
    while (line.len > 0 && strchr(" \t\r", line.ptr[0]) != NULL)
        line = str_from(line, 1);
    while (line.len > 0 && strchr(" \t\r", line.ptr[line.len - 1]) != NULL)
        line.len--;
    return line;
}

/* An id a line. */
static memfs_code parse_agents(memfs_str text, json_t *ids, memfs_error *err)
{
    memfs_str line;
    size_t n = 0;

    while (text.len > 0) {
        if (!str_split(text, '\n', &line, &text)) {
            line = text;
            text = MEMFS_STR("");
        }
        n++;
        line = words_of(line);
        if (line.len == 0)
            continue;
        if (!ids_is_agent(line))
            return memfs_fail(err, MEMFS_EINVALID, "line %zu of the list is not the id of an agent",
                              n);
        json_array_append_new(ids, json_stringn(line.ptr, line.len));
    }
    if (json_array_size(ids) == 0) /* an empty list must not come to mean all */
        return memfs_fail(err, MEMFS_EINVALID, "the list names no agent");
    return MEMFS_OK;
}

static memfs_code add_agents(const request *r, json_t *body, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(AGENTS_MAX);
    json_t *ids = json_array();
    memfs_code rc;

    json_object_set_new(body, "agents", ids);
    if (r->agent != NULL) {
        json_array_append_new(ids, json_string(r->agent));
        return MEMFS_OK;
    }
    rc = strcmp(r->agents_file, "-") == 0 ? read_stdin(&text, err)
                                          : fs_read(r->agents_file, &text, err);
    return rc == MEMFS_OK ? parse_agents(buf_str(&text), ids, err) : rc;
}

/* ---- the work ---- */

static cli_exit from_remote(const request *r)
{
    json_t *body = json_pack("{s:s}", "remote", r->remote ? r->remote : "");
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n_findings = 0;
    cli_exit status;

    if ((r->agent != NULL || r->agents_file != NULL) && add_agents(r, body, &err) < 0) {
        json_decref(body);
        return cli_fail(&err, NULL);
    }
    status = upkeep_run(&(upkeep_job){ .home = r->home, .what = "rebuild",
                                       .route = "/owner/mirror/rebuild", .body = body,
                                       .as_json = r->as_json, .summary = sum_remote,
                                       .is_remote = true },
                        &n_findings);
    return status == EXIT_GOOD && n_findings > 0 ? EXIT_FAILED : status;
}

static cli_exit blocks(const request *r)
{
    size_t n_findings = 0;
    cli_exit status =
        upkeep_run(&(upkeep_job){ .home = r->home, .what = "rebuild", .route = "/owner/rebuild",
                                  .body = json_pack("{s:s}", "agent", r->agent ? r->agent : ""),
                                  .as_json = r->as_json, .summary = sum_blocks },
                   &n_findings);

    return status == EXIT_GOOD && n_findings > 0 ? EXIT_FAILED : status;
}

/* An empty machine has no data folder yet. */
static memfs_code make_home(const request *r, memfs_error *err)
{
    _cleanup_(mem_freep) char *named = cli_home(r->home), *home = cli_absolute(named);

    return fs_mkdirs(home, err);
}

int cmd_rebuild(int argc, char **argv)
{
    request r = { .home = NULL };
    const cli_option options[] = {
        { "agent", CLI_TEXT, &r.agent, "ID", "only this agent (all without it)" },
        { "from-remote", CLI_FLAG, &r.from_remote, NULL,
          "bring every agent's repository, blocks and attributes from a remote" },
        { "remote", CLI_TEXT, &r.remote, "NAME", "from-remote: which, where there are several" },
        { "agents", CLI_TEXT, &r.agents_file, "FILE",
          "from-remote: the agents' ids, one a line ('-': stdin), where the remote cannot list them" },
        { "home", CLI_TEXT, &r.home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &r.as_json, NULL, "one JSON object with the findings" },
    };
    const cli_usage usage = {
        "rebuild [--agent ID] [--json]\n"
        "       memfs rebuild --from-remote [--remote NAME] [--agent ID | --agents FILE] [--json]",
        "Makes the blocks anew from git, which is the truth.  Nothing is lost by it: block ids\n"
        "and their order stay as they were.  Agents are served meanwhile.\n"
        "\n"
        "With --from-remote, brings back whole memories to an empty machine, or those that are missing:\n"
        "repositories, blocks, names and times.  Which agents there are is asked of the host; a list says\n"
        "it where the host cannot.  It can be stopped and begun again: what is here and equal costs one\n"
        "question.  What is here and differs is merged, never overwritten.",
        options, ARRAY_LEN(options),
        "  memfs mirror add origin 'https://gitea.example.com/agents/{agentId}.git' --token-file FILE\n"
        "  memfs rebuild --from-remote\n"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    if (r.agent != NULL && !ids_is_agent(str_of(r.agent)))
        return cli_usage_error(&usage, "--agent needs the id of an agent, not '%s'", r.agent);
    if (!r.from_remote && (r.remote != NULL || r.agents_file != NULL))
        return cli_usage_error(&usage, "--remote and --agents are for --from-remote");
    if (!r.from_remote)
        return blocks(&r);
    if (r.agent != NULL && r.agents_file != NULL)
        return cli_usage_error(&usage, "one agent or a list of them: --agent or --agents");
    return make_home(&r, &err) < 0 ? cli_fail(&err, NULL) : from_remote(&r);
}
