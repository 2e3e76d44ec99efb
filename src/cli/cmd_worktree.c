#include "cli/opened.h"
#include "cli/view.h"
#include "client/worktrees.h"

#include <stdio.h>
#include <string.h>

typedef struct job {
    const place *place;
    const char *name; /* NULL: none was given */
    bool is_forced, as_json;
} job;

static void writer_json(const writer *w, json_writer *json)
{
    jw_object(json);
    jw_key_text(json, "name", w->name);
    jw_key_text(json, "path", w->path);
    jw_key_text(json, "branch", w->branch);
    jw_key_int(json, "ahead", (int64_t)w->n_ahead);
    jw_key_bool(json, "changes", w->has_changes);
    jw_key_bool(json, "gone", w->is_gone);
    jw_object_end(json);
}

static cli_exit add(const job *j)
{
    _cleanup_(writer_dispose) writer w = WRITER_INIT;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer json = JSON_WRITER_INIT(&text);
    memfs_error err = MEMFS_ERROR_INIT;

    if (worktrees_add(j->place, j->name, &w, &err) < 0)
        return cli_fail(&err, NULL);
    writer_json(&w, &json);
    puts(j->as_json ? text.ptr : w.path);
    return cli_finish(EXIT_GOOD);
}

static void print_writer(const writer *w)
{
    printf("%s  %zu %s ahead%s  ", w->name, w->n_ahead, w->n_ahead == 1 ? "commit" : "commits",
           w->is_gone       ? ", its folder is gone"
           : w->has_changes ? ", uncommitted files"
                            : "");
    cli_print_safe(str_of(w->path));
    putchar('\n');
}

static cli_exit list(const job *j)
{
    _cleanup_(writers_dispose) writers all = WRITERS_INIT;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer json = JSON_WRITER_INIT(&text);
    memfs_error err = MEMFS_ERROR_INIT;

    if (worktrees_list(j->place, &all, &err) < 0)
        return cli_fail(&err, NULL);
    jw_array(&json);
    for (size_t i = 0; i < all.n; i++) {
        if (j->as_json)
            writer_json(&all.at[i], &json);
        else
            print_writer(&all.at[i]);
    }
    jw_array_end(&json);
    if (!j->as_json && all.n == 0)
        cli_talk("there is no worktree; 'memfs worktree add NAME' makes one");
    return j->as_json ? view_print(&text) : cli_finish(EXIT_GOOD);
}

static void merge_json(const job *j, const worktree_merge *m, const memfs_buf *said)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer json = JSON_WRITER_INIT(&text);
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(&m->main, hex);
    jw_object(&json);
    jw_key_text(&json, "name", j->name);
    jw_key_text(&json, "state", m->is_pending ? "pending" : m->n_commits > 0 ? "merged" : "no-changes");
    jw_key_text(&json, "main", hex);
    jw_key_int(&json, "commits", (int64_t)m->n_commits);
    jw_key_int(&json, "by_rule", (int64_t)m->n_by_rule);
    jw_key_int(&json, "pending_taken", (int64_t)m->n_taken);
    jw_key_bool(&json, "folder_kept", m->is_kept);
    jw_key_str(&json, "notes", buf_str(said));
    jw_object_end(&json);
    puts(text.ptr);
}

static void tell(memfs_str said)
{
    memfs_str line;

    while (said.len > 0 && str_split(said, '\n', &line, &said))
        cli_talk("%.*s", (int)line.len, line.ptr);
}

static cli_exit merge(const job *j)
{
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(64 * 1024);
    memfs_error err = MEMFS_ERROR_INIT;
    worktree_merge m;

    if (worktrees_merge(j->place, j->name, &m, &said, &err) < 0) {
        tell(buf_str(&said));
        return cli_fail(&err, NULL);
    }
    if (j->as_json) {
        merge_json(j, &m, &said);
    } else {
        tell(buf_str(&said));
        if (!m.is_pending && m.n_commits > 0)
            cli_talk("merged: %zu %s", m.n_commits, m.n_commits == 1 ? "commit" : "commits");
        else if (!m.is_pending)
            cli_talk("there was nothing to merge");
    }
    return cli_finish(EXIT_GOOD);
}

static cli_exit remove_one(const job *j)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (worktrees_remove(j->place, j->name, j->is_forced, &err) < 0)
        return cli_fail(&err, NULL);
    if (j->as_json)
        puts("{\"removed\":true}");
    return cli_finish(EXIT_GOOD);
}

static const struct {
    const char *verb;
    cli_exit (*run)(const job *j);
    bool needs_name;
} VERBS[] = {
    { "add", add, true },
    { "list", list, false },
    { "merge", merge, true },
    { "remove", remove_one, true },
};

int cmd_worktree(int argc, char **argv)
{
    _cleanup_(opened_dispose) opened m = OPENED_INIT;
    const char *agent = NULL, *rest[2] = { "list", NULL };
    job j = { .place = &m.place };
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "whose memory" },
        { "force", CLI_FLAG, &j.is_forced, NULL,
          "remove: also with work that main lacks; it is kept for 'memfs undo'" },
        { "json", CLI_FLAG, &j.as_json, NULL, "JSON" },
    };
    const cli_usage usage = {
        "worktree (add NAME | list | merge NAME | remove NAME [--force]) [--agent ID] [--json]",
        "Gives a writer (a subagent) its own branch and folder next to the memory, so that many write\n"
        "at once.  add prints the folder.  merge commits what lies there, merges it into main by\n"
        "rule, never asking, and takes folder and branch away; while the memory itself has uncommitted\n"
        "files the merge waits, and the next merge or sync takes it.",
        options, ARRAY_LEN(options),
        "  cd \"$(memfs worktree add reflection)\"\n"
        "  memfs worktree merge reflection\n",
        "add list merge remove"
    };
    size_t n_rest, i = 0;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, ARRAY_LEN(rest), &n_rest, &status))
        return status;
    while (i < ARRAY_LEN(VERBS) && strcmp(VERBS[i].verb, rest[0]) != 0)
        i++;
    if (i == ARRAY_LEN(VERBS))
        return cli_usage_error(&usage, "unexpected '%s'", rest[0]);
    if (VERBS[i].needs_name && n_rest < 2)
        return cli_usage_error(&usage, "%s which worktree?", rest[0]);
    if (!VERBS[i].needs_name && n_rest == 2)
        return cli_usage_error(&usage, "unexpected '%s'", rest[1]);
    j.name = rest[1];
    if (!opened_place(&usage, agent, &m, &status))
        return status;
    return VERBS[i].run(&j);
}
