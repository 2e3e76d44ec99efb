#include "cli/memories.h"

#include <stdio.h>

bool memory_settings(const memory_options *o, settings **ret, cli_exit *ret_exit)
{
    setting_override overrides[4];
    memfs_str rest, line;
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n = 0;

    if (o->home != NULL)
        overrides[n++] = (setting_override){ SETTING_HOME, o->home };
    if (o->backend != NULL)
        overrides[n++] = (setting_override){ SETTING_BACKEND, o->backend };
    if (o->remote != NULL)
        overrides[n++] = (setting_override){ SETTING_REMOTE, o->remote };
    if (o->wait != NULL)
        overrides[n++] = (setting_override){ SETTING_WAIT_MS, o->wait };
    if (settings_load(NULL, overrides, n, ret, &err) < 0) {
        *ret_exit = cli_fail(&err, "'memfs config --show-origin' shows what is set, and where");
        return false;
    }
    for (rest = str_of(settings_warnings(*ret)); str_split(rest, '\n', &line, &rest);)
        cli_talk("%.*s", (int)line.len, line.ptr);
    return true;
}

bool memory_place(const cli_usage *usage, const memory_options *o, const settings *s, place *ret,
                  cli_exit *ret_exit)
{
    const char *agent = cli_agent(o->agent);
    memfs_error err = MEMFS_ERROR_INIT;

    if (agent == NULL) {
        *ret_exit = cli_usage_error(usage, "which agent? (--agent ID)");
        return false;
    }
    if (place_of(s, agent, ret, &err) == MEMFS_OK)
        return true;
    *ret_exit = cli_fail(&err, "an agent's id is 'agent-' and a UUID");
    return false;
}

static void talk_notes(const client_report *r)
{
    memfs_str rest = str_of(r->notes), line;

    while (str_split(rest, '\n', &line, &rest))
        cli_talk("%.*s", (int)line.len, line.ptr);
}

void memory_tell(const client_report *r, bool as_json, bool with_agent)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&text);

    if (as_json) {
        client_report_json(r, &w);
    } else {
        talk_notes(r);
        if (with_agent)
            buf_printf(&text, "%s  ", r->agent_id);
        client_report_line(r, &text);
    }
    cli_print_safe(buf_str(&text));
    putchar('\n');
}

void memory_talk(const client_report *r)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);

    talk_notes(r);
    client_report_line(r, &text);
    cli_talk("%s", text.ptr);
}

cli_exit memory_apply_exit(const client_report *r)
{
    switch (r->error.code) {
    case MEMFS_OK: return EXIT_GOOD;
    case MEMFS_EDENIED:   /* what the remote has is not fit to be checked out */
    case MEMFS_EUNAVAIL:  /* another memfs is at it */
    case MEMFS_ECONFLICT: /* the agent is faster than we are */
        return r->is_there ? EXIT_GOOD : (cli_exit)client_report_exit(r);
    default: return (cli_exit)client_report_exit(r);
    }
}

int memory_apply_main(int argc, char **argv, const char *synopsis, const char *text,
                      bool is_only_local)
{
    _cleanup_(settings_freep) settings *s = NULL;
    _cleanup_(place_dispose) place p = PLACE_INIT;
    _cleanup_(client_report_dispose) client_report report = CLIENT_REPORT_INIT;
    memory_options o = MEMORY_OPTIONS_INIT;
    const cli_option options[] = {
        MEMORY_ROWS(o),
        MEMORY_WAIT_ROW(o, "how long the remote may take in all (2)"),
    };
    const cli_usage usage = { synopsis, text, options,
                              ARRAY_LEN(options) - (is_only_local ? 1 : 0),
                              is_only_local ? NULL : "  memfs apply --agent agent-… --wait 10\n" };
    converge_options how = { .believe_memory = true, .only_local = is_only_local };
    cli_exit status;
    size_t n_rest;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status) ||
        !memory_settings(&o, &s, &status) || !memory_place(&usage, &o, s, &p, &status))
        return status;
    how.budget_ms = (int64_t)setting_number(s, SETTING_WAIT_MS);
    client_apply(s, &p, &how, &report);
    memory_tell(&report, o.as_json, false);
    return cli_finish(memory_apply_exit(&report));
}
