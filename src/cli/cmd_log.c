#include "base/mem.h"
#include "cli/opened.h"
#include "cli/view.h"

#define DEFAULT_LIMIT 20

typedef struct shower {
    view_style style;
    json_writer *json; /* NULL: text */
} shower;

static memfs_code show(const browse_entry *entry, void *ctx, memfs_error *err)
{
    shower *s = ctx;

    (void)err;
    if (s->json != NULL)
        view_commit_json(entry, false, s->json);
    else
        view_commit(entry, s->style);
    return MEMFS_OK;
}

static cli_exit run(opened *m, const char *path, const char *from, uint64_t limit, bool as_line,
                    bool as_json)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&text);
    shower s = { as_line ? VIEW_LINE : VIEW_FULL, as_json ? &w : NULL };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_oid start;

    jw_array(&w);
    if (opened_commit(m, from, &start, &err) < 0 ||
        browse_log(m->browse, &start, path, limit, show, &s, &err) < 0)
        return cli_fail(&err, NULL);
    jw_array_end(&w);
    return as_json ? view_print(&text) : cli_finish(EXIT_GOOD);
}

int cmd_log(int argc, char **argv)
{
    _cleanup_(opened_dispose) opened m = OPENED_INIT;
    _cleanup_(mem_freep) char *path = NULL;
    const char *agent = NULL, *from = "HEAD", *rest[1];
    uint64_t limit = DEFAULT_LIMIT;
    bool as_line = false, as_json = false;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "whose memory" },
        { "limit", CLI_NUMBER, &limit, "N", "at most N commits (20); 0: all" },
        { "from", CLI_TEXT, &from, "REV|TIME", "begin at this commit, not at the newest" },
        { "oneline", CLI_FLAG, &as_line, NULL, "a line a commit" },
        { "json", CLI_FLAG, &as_json, NULL, "an array of id, parents, author, time, subject, paths" },
    };
    const cli_usage usage = {
        "log [PATH] [--agent ID] [--limit N] [--from REV|TIME] [--oneline] [--json]",
        "Shows the commits of a memory, newest first, with the files that each changed (of a merge:\n"
        "those that the merge itself decided).  With PATH, only commits that changed that file or\n"
        "folder.",
        options, ARRAY_LEN(options),
        "  memfs log --agent $LETTA_AGENT_ID --oneline\n"
        "  memfs log system/human.md --limit 0\n"
    };
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, 1, &n_rest, &status) ||
        !opened_memory(&usage, agent, &m, &status))
        return status;
    if (n_rest == 1)
        path = opened_path(&m, rest[0]);
    return run(&m, path, from, limit, as_line, as_json);
}
