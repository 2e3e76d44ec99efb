#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/opened.h"
#include "client/rescue.h"

#include <stdio.h>
#include <string.h>

#define MAX_TEXT (16u << 20)

static const char *const KINDS[] = {
    [RESCUE_TIP] = "kept",
    [RESCUE_LETTA_BACKUP] = "letta-backup",
    [RESCUE_RULE_MERGE] = "merge",
};

typedef struct undo_options {
    const char *agent;
    bool as_list, as_json, is_dry_run, is_seen;
} undo_options;

/* the list */

static void add_json(const rescue *r, json_writer *w)
{
    char hex[MEMFS_OID_HEX + 1], when[CLOCK_ISO_LEN];

    oid_hex(&r->id, hex);
    clock_iso(r->time_ms * 1000, when);
    jw_object(w);
    jw_key_text(w, "id", hex);
    jw_key_text(w, "kind", KINDS[r->kind]);
    jw_key_text(w, "branch", r->branch);
    jw_key_text(w, "time", when);
    jw_key_text(w, "subject", r->subject);
    jw_key_int(w, r->kind == RESCUE_RULE_MERGE ? "n_decisions" : "n_commits", (int64_t)r->n_lost);
    jw_object_end(w);
}

static void print_list_json(const char *agent, const rescues *list)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_TEXT);
    json_writer w = JSON_WRITER_INIT(&text);

    jw_object(&w);
    jw_key_text(&w, "agent_id", agent);
    jw_key(&w, "can_undo");
    jw_array(&w);
    for (size_t i = 0; i < list->n; i++)
        add_json(&list->at[i], &w);
    jw_array_end(&w);
    jw_object_end(&w);
    buf_putc(&text, '\n');
    fwrite(text.ptr, 1, text.len, stdout);
}

static void print_row(const rescue *r)
{
    char hex[MEMFS_OID_HEX + 1], when[CLOCK_ISO_LEN];

    oid_hex(&r->id, hex);
    clock_iso(r->time_ms * 1000, when);
    if (r->kind == RESCUE_RULE_MERGE)
        printf("%.7s  %.16sZ  merge, %zu by rule  ", hex, when, r->n_lost);
    else
        printf("%.7s  %.16sZ  %zu %s of ", hex, when, r->n_lost,
               r->n_lost == 1 ? "commit" : "commits");
    if (r->branch != NULL) {
        cli_print_safe(str_of(r->branch));
        printf("  ");
    }
    cli_print_safe(str_of(r->subject));
    printf("\n");
}

static cli_exit show_list(checkout *c, const char *agent, const undo_options *o)
{
    _cleanup_(rescues_dispose) rescues list = RESCUES_INIT;
    memfs_error e = MEMFS_ERROR_INIT;
    memfs_code rc = rescue_list(c, false, &list, &e);

    if (rc == MEMFS_OK && o->is_seen)
        rc = rescue_seen(c, &e);
    if (rc < 0)
        return cli_fail(&e, "nothing was changed");
    if (o->as_json) {
        print_list_json(agent, &list);
        return EXIT_GOOD;
    }
    for (size_t i = 0; i < list.n; i++)
        print_row(&list.at[i]);
    if (list.n == 0)
        cli_talk("nothing was lost, and no merge was decided by rule");
    return EXIT_GOOD;
}

/* undoing */

static void print_result(const char *agent, const undo_options *o, const memfs_oid *main_tip,
                         const memfs_buf *said)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_TEXT);
    json_writer w = JSON_WRITER_INIT(&text);
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(main_tip, hex);
    if (!o->as_json) {
        cli_print_safe(buf_str(said));
        printf("main %s %.7s\n", o->is_dry_run ? "would be" : "is", hex);
        return;
    }
    jw_object(&w);
    jw_key_text(&w, "agent_id", agent);
    jw_key_text(&w, "main", hex);
    jw_key_bool(&w, "is_dry_run", o->is_dry_run);
    jw_key_str(&w, "said", buf_str(said));
    jw_object_end(&w);
    buf_putc(&text, '\n');
    fwrite(text.ptr, 1, text.len, stdout);
}

static cli_exit undo(checkout *c, const char *agent, const char *what, const undo_options *o)
{
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(MAX_TEXT);
    memfs_error e = MEMFS_ERROR_INIT;
    memfs_oid main_tip;
    size_t n_left;

    if (rescue_undo(c, what, o->is_dry_run, &main_tip, &said, &e) < 0)
        return cli_fail(&e, "nothing was changed");
    if (!o->is_dry_run && rescue_tidy(c, &n_left, &e) < 0)
        cli_talk("it is undone; tidying up has to wait: %s", e.msg);
    print_result(agent, o, &main_tip, &said);
    return EXIT_GOOD;
}

int cmd_undo(int argc, char **argv)
{
    undo_options o = { .agent = NULL };
    const cli_option options[] = {
        { "agent", CLI_TEXT, &o.agent, "ID",
          "whose memory ($LETTA_AGENT_ID, $AGENT_ID, or the one that we are in)" },
        { "list", CLI_FLAG, &o.as_list, NULL, "only show what can be undone, newest first" },
        { "seen", CLI_FLAG, &o.is_seen, NULL,
          "with --list: the merges were looked at, and are not listed again" },
        { "dry-run", CLI_FLAG, &o.is_dry_run, NULL, "say what would happen, change nothing" },
        { "json", CLI_FLAG, &o.as_json, NULL, "one JSON object" },
    };
    const cli_usage usage = {
        "undo [ID] [--agent ID] [--list] [--dry-run] [--json]",
        "Brings back what a reset, a deleted branch or a rewrite took away, puts back what a\n"
        "merge decided by rule, or reverts a commit of main.  Always by a new commit on top:\n"
        "nothing is rewound, so no remote minds.  Without an ID the newest of 'undo --list'.\n"
        "Files that are not committed are never touched: commit them first.",
        options,
        ARRAY_LEN(options),
        "  memfs undo --agent agent-… --list\n  memfs undo --agent agent-… 1a2b3c4 --dry-run\n",
        NULL
    };
    _cleanup_(opened_dispose) opened m = OPENED_INIT;
    _cleanup_(checkout_closep) checkout *c = NULL;
    memfs_error e = MEMFS_ERROR_INIT;
    const char *rest[1];
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, 1, &n_rest, &status))
        return status;
    if (o.is_seen)
        o.as_list = true;
    if (!opened_place(&usage, o.agent, &m, &status))
        return status;
    if (checkout_open(m.place.memory, &c, &e) < 0) /* main is there, also from inside a worktree */
        return cli_fail(&e, "'memfs apply --agent ID' makes a memory ready");
    status = o.as_list ? show_list(c, m.place.agent_id, &o)
                       : undo(c, m.place.agent_id, n_rest == 1 ? rest[0] : NULL, &o);
    return cli_finish(status);
}
