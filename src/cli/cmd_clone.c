#include "cli/memories.h"

#include "base/fs.h"
#include "base/mem.h"
#include "client/assign.h"

#include <stdlib.h>
#include <string.h>

/*
 * A clone is an apply whose remote is set first: the local repository comes before the remote here
 * too, so a clone that breaks off is finished by the next apply or sync, and one into a memory that
 * has commits merges.
 */

/* A folder named as people name folders; everything else is an address as it stands. Caller frees. */
static char *address_of(const char *text)
{
    _cleanup_(mem_freep) char *path = cli_absolute(text);

    return strstr(text, "://") == NULL && fs_is_dir(path) ? TAKE_PTR(path) : mem_strdup(text);
}

static memfs_code set_remote(const settings *s, const place *p, const char *text, memfs_error *err)
{
    _cleanup_(mem_freep) char *address = address_of(text);
    _cleanup_(buf_dispose) memfs_buf notes = MEMFS_BUF_INIT(64 * 1024);
    const assignment a = { .url = address };
    memfs_code rc = assign_remote(s, p, &a, &notes, err);
    memfs_str rest = buf_str(&notes), line;

    while (str_split(rest, '\n', &line, &rest))
        cli_talk("%.*s", (int)line.len, line.ptr);
    return rc;
}

static memfs_code clone(const settings *s, const place *p, const char *text, client_report *ret,
                        memfs_error *err)
{
    const converge_options local = { .only_local = true, .believe_memory = true };
    const converge_options full = { .budget_ms = (int64_t)setting_number(s, SETTING_WAIT_MS) };
    bool was_created, was_adopted;
    memfs_code rc;

    client_apply(s, p, &local, ret);
    if (ret->error.code != MEMFS_OK) {
        *err = ret->error;
        return err->code;
    }
    was_created = ret->was_created;
    was_adopted = ret->was_adopted;
    client_report_dispose(ret);
    rc = set_remote(s, p, text, err);
    if (rc < 0)
        return rc;
    client_apply(s, p, &full, ret);
    ret->was_created = ret->was_created || was_created;
    ret->was_adopted = ret->was_adopted || was_adopted;
    return MEMFS_OK;
}

int cmd_clone(int argc, char **argv)
{
    _cleanup_(settings_freep) settings *s = NULL;
    _cleanup_(place_dispose) place p = PLACE_INIT;
    _cleanup_(client_report_dispose) client_report report = CLIENT_REPORT_INIT;
    memory_options o = { .wait = "300" };
    const char *rest[1] = { NULL };
    const cli_option options[] = {
        { "agent", CLI_TEXT, &o.agent, "ID", "whose memory it becomes ($LETTA_AGENT_ID, $AGENT_ID)" },
        { "home", CLI_TEXT, &o.home, "DIR", "memfs' own folder ($MEMFS_HOME, ~/.memfs)" },
        { "json", CLI_FLAG, &o.as_json, NULL, "the report as an object" },
        MEMORY_WAIT_ROW(o, "how long the remote may take in all (300)"),
    };
    const cli_usage usage = {
        "clone URL --agent ID [--wait SECONDS] [--json]",
        "Gets a memory from a git address (https, ssh, or a folder) and keeps the address as the\n"
        "agent's remote.  A memory that is there already is merged with it.  The exit status says how\n"
        "the remote answered, as with 'memfs sync'; the local memory can be used in any case.",
        options, ARRAY_LEN(options), "  memfs clone https://git.example.org/me/memory.git --agent agent-…\n"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    cli_exit status;
    size_t n_rest;

    if (!cli_parse(&usage, argc, argv, rest, 1, &n_rest, &status))
        return status;
    if (rest[0] == NULL)
        return cli_usage_error(&usage, "which address?");
    if (!memory_settings(&o, &s, &status) || !memory_place(&usage, &o, s, &p, &status))
        return status;
    if (clone(s, &p, rest[0], &report, &err) < 0)
        return cli_fail(&err, "'memfs clone --help' shows what an address looks like");
    memory_tell(&report, o.as_json, false);
    return cli_finish((cli_exit)client_report_exit(&report));
}
