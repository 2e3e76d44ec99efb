#include "cli/cli.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "client/converge.h"
#include "client/hub.h"

#include <stdio.h>
#include <string.h>

/* A line a memory, or one object for all; hubs that no checkout stands beside come last. */
typedef struct status_ctx {
    const settings *s;
    json_writer *json; /* NULL: lines */
    bool is_one;       /* asked for one agent: details */
    size_t n_shown;
} status_ctx;

/* lines */

static void print_head(void)
{
    printf("%-42s  %-10s  %5s  %6s  %7s  %7s  %7s  %7s  %6s  %s\n", "AGENT", "STATE", "AHEAD",
           "BEHIND", "CHANGED", "RESCUED", "BY-RULE", "PENDING", "QUEUED", "REMOTE");
}

/* The state's own column says "local-only" already. */
static const char *words_of(const remote_class *class)
{
    static const char state[] = "local-only: ";
    bool says_it = str_starts_with(str_of(class->words), MEMFS_STR(state));

    return class->words + (says_it ? strlen(state) : 0);
}

static void print_again(int64_t at_s)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64);

    client_report_again(at_s, &text);
    cli_print_safe(buf_str(&text));
}

static void print_answer(const client_report *r, const remote_class *class)
{
    printf("  (%s", words_of(class));
    print_again(r->ask_again_at_s);
    putchar(')');
}

/* What the last column says: where the remote is, or why it does not count. */
static void print_remote(const client_report *r, const char *state)
{
    const remote_class *class = remote_class_of(r->answer);

    if (strcmp(state, "failed") == 0) {
        cli_print_safe(str_of(r->error.msg));
    } else if (!r->has_remote) {
        cli_print_safe(str_of(r->detail));
    } else {
        cli_print_safe(str_of(r->remote));
        if (r->answer == REMOTE_UNASKED && strcmp(state, "local-only") == 0)
            fputs("  (not asked yet)", stdout);
        else if (r->answer != REMOTE_UNASKED && class->code != MEMFS_OK)
            print_answer(r, class);
        else if (r->held_back[0] != '\0') {
            fputs("  (", stdout);
            cli_print_safe(str_of(r->held_back));
            putchar(')');
        }
    }
}

static void print_mirror(const client_report *r)
{
    if (r->n_queued == 0 || r->mirror_detail[0] == '\0')
        return;
    fputs("  (mirror: ", stdout);
    cli_print_safe(str_of(r->mirror_detail));
    print_again(r->mirror_again_at_s);
    putchar(')');
}

static void print_row(const client_report *r)
{
    const char *state = client_report_state(r);

    printf("%-42s  %-10s  %5zu  %6zu  %7zu  %7zu  %7zu  %7zu  %6zu  ", r->agent_id, state,
           r->n_ahead, r->n_behind, r->checkout.n_changed + r->checkout.n_untracked, r->n_rescued,
           r->n_by_rule, r->n_pending, r->n_queued);
    print_remote(r, state);
    print_mirror(r);
    putchar('\n');
}

/* "asked 3 min ago" */
static void print_ago(const char *before, int64_t then_s)
{
    int64_t s = clock_wall_us() / 1000000 - then_s;

    if (then_s == 0 || s < 0)
        return;
    if (s < 120)
        printf("%s%lld s ago\n", before, (long long)s);
    else if (s < 7200)
        printf("%s%lld min ago\n", before, (long long)s / 60);
    else
        printf("%s%lld h ago\n", before, (long long)s / 3600);
}

static void print_details(const client_report *r)
{
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(8192);
    const checkout_state *c = &r->checkout;

    client_report_line(r, &line);
    printf("%s  ", r->agent_id);
    cli_print_safe(buf_str(&line));
    putchar('\n');
    if (!r->is_there)
        return;
    fputs("  checkout   ", stdout);
    cli_print_safe(str_of(r->memory));
    fputs("\n  branch     ", stdout);
    cli_print_safe(str_of(c->is_detached ? "(detached)" : c->branch));
    printf("\n  changes    %zu changed, %zu untracked\n", c->n_changed, c->n_untracked);
    if (c->has_index_lock)
        puts("  locked     index.lock is there; 'memfs doctor' says whether somebody holds it");
    print_ago("  asked      ", r->asked_at_s);
    print_ago("  waiting    oldest commit that is not on the remote: ", r->oldest_unpushed_s);
}

/* reading */

static memfs_code show_place(const place *p, void *arg, memfs_error *err)
{
    _cleanup_(client_report_dispose) client_report r = CLIENT_REPORT_INIT;
    status_ctx *ctx = arg;

    (void)err;
    client_look(ctx->s, p, &r);
    if (ctx->json != NULL) {
        client_report_json(&r, ctx->json);
    } else if (ctx->is_one) {
        print_details(&r);
    } else {
        if (ctx->n_shown == 0)
            print_head();
        print_row(&r);
    }
    ctx->n_shown++;
    return MEMFS_OK;
}

static memfs_code show_hub(const char *agent_id, const char *path, void *arg, memfs_error *err)
{
    _cleanup_(place_dispose) place p = PLACE_INIT;
    _cleanup_(mem_freep) char *config = NULL;
    status_ctx *ctx = arg;

    if (place_of(ctx->s, agent_id, &p, err) < 0)
        return MEMFS_OK; /* no name of an agent: nothing of ours */
    config = settings_checkout_config(p.memory);
    if (config != NULL)
        return MEMFS_OK; /* a line above speaks of it */
    if (ctx->json != NULL) {
        jw_object(ctx->json);
        jw_key_text(ctx->json, "agent_id", agent_id);
        jw_key_text(ctx->json, "path", path);
        jw_object_end(ctx->json);
    } else {
        printf("%-42s  hub only: ", agent_id);
        cli_print_safe(str_of(path));
        putchar('\n');
    }
    ctx->n_shown++;
    return MEMFS_OK;
}

static cli_exit show_json(const settings *s, const place *one)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&out);
    status_ctx ctx = { .s = s, .json = &w };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc;

    jw_object(&w);
    jw_key(&w, "agents");
    jw_array(&w);
    rc = one != NULL ? show_place(one, &ctx, &err) : places_each(s, show_place, &ctx, &err);
    jw_array_end(&w);
    jw_key(&w, "hubs");
    jw_array(&w);
    if (rc == MEMFS_OK && one == NULL)
        rc = hub_each(s, show_hub, &ctx, &err);
    jw_array_end(&w);
    jw_object_end(&w);
    if (rc < 0)
        return cli_fail(&err, NULL);
    puts(out.ptr);
    return cli_finish(EXIT_GOOD);
}

static cli_exit show_lines(const settings *s, const place *one)
{
    status_ctx ctx = { .s = s, .is_one = one != NULL };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc;

    rc = one != NULL ? show_place(one, &ctx, &err) : places_each(s, show_place, &ctx, &err);
    if (rc == MEMFS_OK && one == NULL)
        rc = hub_each(s, show_hub, &ctx, &err);
    if (rc < 0)
        return cli_fail(&err, NULL);
    if (ctx.n_shown == 0)
        cli_talk("there is no memory here yet; 'memfs apply --agent ID' makes one");
    return cli_finish(EXIT_GOOD);
}

static void say_warnings(const settings *s)
{
    memfs_str rest = str_of(settings_warnings(s)), line;

    while (str_split(rest, '\n', &line, &rest))
        cli_talk("%.*s", (int)line.len, line.ptr);
}

int cmd_status(int argc, char **argv)
{
    _cleanup_(settings_freep) settings *s = NULL;
    _cleanup_(place_dispose) place p = PLACE_INIT;
    const char *agent = NULL, *home = NULL;
    bool as_json = false, is_all = false;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "one agent, in detail ($LETTA_AGENT_ID, $AGENT_ID)" },
        { "all", CLI_FLAG, &is_all, NULL, "all agents, also where the environment names one" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "as JSON" },
    };
    const cli_usage usage = {
        "status [--agent ID | --all] [--json]",
        "Shows where each memory stands, from what is known here: nothing is asked over the\n"
        "network. Exit status 0 whatever the states are; 'memfs sync' brings them together.",
        options, ARRAY_LEN(options), "  memfs status\n  memfs status --agent agent-…\n"
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
    say_warnings(s);
    agent = is_all ? NULL : cli_agent(agent);
    if (agent != NULL && place_of(s, agent, &p, &err) < 0)
        return cli_fail(&err, NULL);
    return as_json ? show_json(s, agent != NULL ? &p : NULL)
                   : show_lines(s, agent != NULL ? &p : NULL);
}
