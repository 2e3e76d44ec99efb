#include "cli/cli.h"

#include "base/httpc.h"
#include "base/mem.h"
#include "cli/owner.h"
#include "memory/ids.h"

#include <stdio.h>
#include <string.h>

#define MAX_TEXTS 32

static memfs_str text_of(const json_t *object, const char *key)
{
    const json_t *text = json_object_get(object, key);

    return json_is_string(text) ? str_make(json_string_value(text), json_string_length(text))
                                : MEMFS_STR("");
}

/* A snippet on one line. */
static void print_snippet(memfs_str snippet)
{
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    bool is_after_blank = false;

    for (size_t i = 0; i < snippet.len; i++) {
        char c = snippet.ptr[i];
        bool is_blank = c == ' ' || c == '\n' || c == '\r' || c == '\t';

        if (!is_blank && is_after_blank && line.len > 0)
            buf_putc(&line, ' ');
        if (!is_blank)
            buf_putc(&line, c);
        is_after_blank = is_blank;
    }
    fputs("    ", stdout);
    cli_print_safe(buf_str(&line));
    putchar('\n');
}

static void print_hit(const json_t *hit)
{
    memfs_str gone_by = text_of(hit, "gone_by"), commit = text_of(hit, "commit");
    memfs_str agent_id = text_of(hit, "agent_id");
    bool is_nobodys = agent_id.len == 0;

    cli_print_safe(is_nobodys ? text_of(hit, "block_id") : agent_id);
    fputs("  ", stdout);
    cli_print_safe(text_of(hit, is_nobodys ? "label" : "path"));
    if (is_nobodys)
        fputs("  attached to nobody", stdout);
    if (gone_by.len >= 10)
        printf("  until %.10s, gone with %.10s", commit.ptr, gone_by.ptr);
    putchar('\n');
    print_snippet(text_of(hit, "snippet"));
}

static void put_parameter(memfs_buf *path, const char *key, memfs_str value)
{
    buf_printf(path, "&%s=", key);
    httpc_escape(path, value);
}

static const char *hint_of(const memfs_error *err)
{
    return err->code == MEMFS_ENOTFOUND ? "'memfs agents list' shows the agents that are here"
                                        : NULL;
}

static cli_exit print_hits(owner *o, const char *path)
{
    memfs_error err = MEMFS_ERROR_INIT;
    json_t *answer, *hits, *hit;
    size_t i;

    if (owner_get(o, path, &answer, &err) < 0)
        return cli_fail(&err, hint_of(&err));
    hits = json_object_get(answer, "results");
    json_array_foreach(hits, i, hit) print_hit(hit);
    if (json_array_size(hits) == 0)
        cli_talk("nothing was found");
    if (json_is_true(json_object_get(answer, "is_partial")))
        cli_talk("not everything was looked at: more words, --agent or --path make it whole");
    json_decref(answer);
    return cli_finish(EXIT_GOOD);
}

static cli_exit print_answer(owner *o, const char *path)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_error err = MEMFS_ERROR_INIT;

    if (owner_get_text(o, path, &text, &err) < 0)
        return cli_fail(&err, hint_of(&err));
    fwrite(text.ptr, 1, text.len, stdout);
    putchar('\n');
    return cli_finish(EXIT_GOOD);
}

int cmd_search(int argc, char **argv)
{
    _cleanup_(mem_freep) char *home_path = NULL;
    _cleanup_(owner_closep) owner *o = NULL;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    _cleanup_(buf_dispose) memfs_buf target = MEMFS_BUF_INIT(16384);
    const char *home = NULL, *agent = NULL, *path = NULL, *rest[MAX_TEXTS];
    bool as_json = false, in_history = false;
    uint64_t limit = 20;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "only in the memory of this agent" },
        { "path", CLI_TEXT, &path, "PATH", "only in this file, or below this folder" },
        { "history", CLI_FLAG, &in_history, NULL, "in what was deleted" },
        { "limit", CLI_NUMBER, &limit, "N", "the best N (20), at most 100" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "the API's answer as it is" },
    };
    const cli_usage usage = {
        "search TEXT... [--agent ID] [--path PATH] [--history] [--limit N] [--json]",
        "Finds blocks that have all the words of TEXT, the best first, without regard to case and\n"
        "accents.  \"several words\" must follow each other, word* is the beginning of a word.\n"
        "With --history: text that was deleted, with the commit that last had it, and the one "
        "that\n"
        "took it away ('memfs show', 'memfs log').",
        options, ARRAY_LEN(options),
        "  memfs search green tea\n"
        "  memfs search '\"green tea\" milk*' --path notes\n"
        "  memfs search --history 'old address'\n"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, ARRAY_LEN(rest), &n_rest, &status))
        return status;
    if (n_rest == 0)
        return cli_usage_error(&usage, "search for what?");
    if (agent != NULL && !ids_is_agent(str_of(agent)))
        return cli_usage_error(&usage, "--agent needs the id of an agent, not '%s'", agent);
    for (size_t i = 0; i < n_rest; i++) {
        buf_puts(&text, i > 0 ? " " : "");
        buf_puts(&text, rest[i]);
    }
    buf_puts(&target, "/v1/search?in=");
    buf_puts(&target, in_history ? "history" : "current");
    buf_printf(&target, "&limit=%llu", (unsigned long long)limit);
    put_parameter(&target, "q", buf_str(&text));
    if (agent != NULL)
        put_parameter(&target, "agent", str_of(agent));
    if (path != NULL)
        put_parameter(&target, "path", str_of(path));
    if (buf_check(&text, "the text", &err) < 0 || buf_check(&target, "the search", &err) < 0)
        return cli_fail(&err, NULL);
    home_path = cli_home(home);
    if (owner_connect(home_path, &o, &err) < 0)
        return cli_fail(&err, "name the data folder with --home or $MEMFS_HOME");
    return as_json ? print_answer(o, target.ptr) : print_hits(o, target.ptr);
}
