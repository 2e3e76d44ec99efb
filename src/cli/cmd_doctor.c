#include "cli/cli.h"

#include "base/json.h"
#include "client/doctor.h"

#include <stdio.h>
#include <string.h>

typedef struct told {
    json_writer *json; /* NULL: lines */
    bool is_mending;
    size_t n_mended, n_mendable;
} told;

static const char *const LEVELS[] = { "ok", "note", "warning", "problem" };

static void put_json(const finding *f, json_writer *w)
{
    jw_object(w);
    jw_key_text(w, "check", f->check);
    jw_key_text(w, "level", LEVELS[f->level]);
    jw_key_text(w, "agent_id", f->agent_id);
    jw_key_text(w, "what", f->what);
    jw_key_text(w, "advice", f->advice[0] != '\0' ? f->advice : NULL);
    jw_key_bool(w, "can_mend", f->can_mend);
    jw_key_bool(w, "was_mended", f->was_mended);
    jw_object_end(w);
}

static void print_line(const finding *f)
{
    printf("%s  %s  %s  ", f->agent_id != NULL ? f->agent_id : "machine",
           f->was_mended ? "mended" : LEVELS[f->level], f->check);
    cli_print_safe(str_of(f->what));
    if (!f->was_mended && f->advice[0] != '\0') {
        fputs("\n    ", stdout);
        cli_print_safe(str_of(f->advice));
    }
    putchar('\n');
}

static void tell(const finding *f, void *ctx)
{
    told *t = ctx;

    t->n_mended += f->was_mended;
    t->n_mendable += f->can_mend && !f->was_mended;
    if (t->json != NULL)
        put_json(f, t->json);
    else
        print_line(f);
}

static void sum_up(const told *t, size_t n_left)
{
    if (t->n_mended > 0)
        cli_talk("%zu mended; what had to go is kept in .git/memfs/doctor/ of the memory",
                 t->n_mended);
    if (n_left == 0)
        cli_talk("all is well");
    else
        cli_talk("%zu left to look at%s", n_left,
                 !t->is_mending && t->n_mendable > 0 ? "; 'memfs doctor --fix' mends some of it"
                                                     : "");
}

static cli_exit examine(const settings *s, const char *agent, bool is_mending, bool as_json)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&out);
    told t = { as_json ? &w : NULL, is_mending, 0, 0 };
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n_left = 0;

    if (as_json) {
        jw_object(&w);
        jw_key(&w, "findings");
        jw_array(&w);
    }
    if (doctor_run(s, agent, is_mending, tell, &t, &n_left, &err) < 0)
        return cli_fail(&err, NULL);
    if (as_json) {
        jw_array_end(&w);
        jw_key_int(&w, "n_left", (int64_t)n_left);
        jw_key_int(&w, "n_mended", (int64_t)t.n_mended);
        jw_object_end(&w);
        puts(out.ptr);
    } else {
        sum_up(&t, n_left);
    }
    return cli_finish(n_left == 0 ? EXIT_GOOD : EXIT_FAILED);
}

int cmd_doctor(int argc, char **argv)
{
    _cleanup_(settings_freep) settings *s = NULL;
    const char *agent = NULL, *home = NULL;
    bool is_mending = false, as_json = false, is_all = false;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "one agent ($LETTA_AGENT_ID, $AGENT_ID)" },
        { "all", CLI_FLAG, &is_all, NULL, "all agents, also where the environment names one" },
        { "fix", CLI_FLAG, &is_mending, NULL, "mend what can be mended without losing anything" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "as JSON" },
    };
    const cli_usage usage = {
        "doctor [--fix] [--agent ID | --all] [--json]",
        "Looks for what people meet: stale locks, half-finished merges, a wrong origin, tokens in\n"
        "addresses, foreign hooks, wrong permissions, UTF-16 files, clocks, old programs. --fix\n"
        "mends what is safe and deletes nothing: what has to go is kept in .git/memfs/doctor/.\n"
        "Exit status 0 when nothing is left to look at, 1 otherwise. Notes do not count.",
        options, ARRAY_LEN(options), "  memfs doctor\n  memfs doctor --fix --agent agent-…\n"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    setting_override override;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    if (agent != NULL && is_all)
        return cli_usage_error(&usage, "one agent or all?");
    override = (setting_override){ SETTING_HOME, home };
    if (settings_load(NULL, &override, home != NULL, &s, &err) < 0)
        return cli_fail(&err, "'memfs config' shows and changes settings");
    return examine(s, is_all ? NULL : cli_agent(agent), is_mending, as_json);
}
