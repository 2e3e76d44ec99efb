#include "base/fs.h"
#include "cli/opened.h"
#include "cli/view.h"
#include "client/carry.h"

#include <stdio.h>

typedef struct shower {
    json_writer *files; /* NULL: text */
    json_writer *refused;
} shower;

static void on_changed(memfs_str path, const char *what, void *ctx)
{
    shower *s = ctx;

    if (s->files != NULL) {
        jw_object(s->files);
        jw_key_str(s->files, "path", path);
        jw_key_text(s->files, "what", what);
        jw_object_end(s->files);
        return;
    }
    printf("%s  ", what);
    cli_print_safe(path);
    putchar('\n');
}

static void on_refused(memfs_str path, const char *why, void *ctx)
{
    shower *s = ctx;

    if (s->refused != NULL) {
        jw_object(s->refused);
        jw_key_str(s->refused, "path", path);
        jw_key_text(s->refused, "why", why);
        jw_object_end(s->refused);
    }
    cli_talk("refused: %s", why);
}

static void tell(const carried_in *in, bool is_dry_run)
{
    if (!in->is_changed) {
        cli_talk("the memory has all of it already");
        return;
    }
    if (in->n_commits > 0)
        cli_talk("commits: %zu", in->n_commits);
    cli_talk("files: %zu%s", in->n_files, is_dry_run ? "; nothing was changed" : "");
    if (in->n_by_rule > 0)
        cli_talk("%zu %s there already and %s merged; 'memfs show' tells how", in->n_by_rule,
                 in->n_by_rule == 1 ? "was" : "were", in->n_by_rule == 1 ? "is" : "are");
}

static void print_json(const carried_in *in, const memfs_buf *files, const memfs_buf *refused,
                       bool is_dry_run)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&text);
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(&in->commit, hex);
    jw_object(&w);
    jw_key_text(&w, "head", hex);
    jw_key_bool(&w, "changed", in->is_changed);
    jw_key_bool(&w, "dry_run", is_dry_run);
    jw_key_int(&w, "commits", (int64_t)in->n_commits);
    jw_key_int(&w, "by_rule", (int64_t)in->n_by_rule);
    jw_key(&w, "files");
    jw_raw(&w, buf_str(files));
    jw_key(&w, "refused");
    jw_raw(&w, buf_str(refused));
    jw_object_end(&w);
    puts(text.ptr);
}

static cli_exit run(opened *m, const char *from, carry_options how, bool as_json)
{
    _cleanup_(buf_dispose) memfs_buf files = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf refused = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer files_w = JSON_WRITER_INIT(&files), refused_w = JSON_WRITER_INIT(&refused);
    shower s = { as_json ? &files_w : NULL, &refused_w };
    memfs_error err = MEMFS_ERROR_INIT;
    carried_in in = { .n_files = 0 };
    memfs_code rc;

    how.refused = on_refused;
    how.changed = on_changed;
    how.ctx = &s;
    jw_array(&files_w);
    jw_array(&refused_w);
    rc = fs_is_dir(from) ? carry_in_folder(m->checkout, m->browse, from, &how, &in, &err)
                         : carry_in_bundle(m->checkout, m->browse, from, &how, &in, &err);
    jw_array_end(&files_w);
    jw_array_end(&refused_w);
    if (rc < 0)
        return cli_fail(&err, in.n_refused > 0 ? "--skip-refused imports the others" : NULL);
    if (as_json)
        print_json(&in, &files, &refused, how.is_dry_run);
    else
        tell(&in, how.is_dry_run);
    return cli_finish(EXIT_GOOD);
}

/* Is it about a Letta server, so about a data folder?  That is memfs-server's (cmd_import_letta.c). */
static bool is_about_letta(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        memfs_str word = str_of(argv[i]), name = word, value;

        (void)str_split(word, '=', &name, &value);
        if (str_equal(name, MEMFS_STR("--letta")) || str_equal(name, MEMFS_STR("--letta-url")))
            return true;
    }
    return false;
}

int cmd_import(int argc, char **argv)
{
    _cleanup_(opened_dispose) opened m = OPENED_INIT;
    const char *agent = NULL, *from = NULL, *ignored = NULL;
    bool as_json = false, is_ignored = false;
    carry_options o = { .is_replacing = false };
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "whose memory (Letta: only this one; may be said again)" },
        { "from", CLI_TEXT, &from, "DIR|FILE", "a folder of files, or a git bundle" },
        { "replace", CLI_FLAG, &o.is_replacing, NULL,
          "a folder: its files stand for those that are there, unmerged" },
        { "skip-refused", CLI_FLAG, &o.skips_refused, NULL,
          "a folder: leave out files that the policy refuses" },
        { "dry-run", CLI_FLAG, &o.is_dry_run, NULL, "only show what would change" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object" },
        { "letta", CLI_TEXT, &ignored, "URL",
          "the database of a Letta server; 'configured': as $MEMFS_LETTA_DATABASE says" },
        { "letta-url", CLI_TEXT, &ignored, "URL", "or the Letta server itself" },
        { "token-file", CLI_TEXT, &ignored, "FILE", "letta-url: what it wants (mode 0600)" },
        { "with-git", CLI_FLAG, &is_ignored, NULL,
          "Letta: also agents whose memory it says is in git" },
        { "home", CLI_TEXT, &ignored, "DIR", "Letta: the data folder" },
    };
    const cli_usage usage = {
        "import [--agent ID] --from DIR|FILE [--replace] [--skip-refused] [--dry-run] [--json]\n"
        "       memfs import --letta URL [--agent ID]... [--with-git] [--dry-run] [--json]\n"
        "       memfs import --letta-url URL [--token-file FILE] [--agent ID]... [--dry-run] [--json]",
        "Takes files or a bundle into a memory, as a commit on top of it.  What both have and have\n"
        "differently is merged by rule, so nothing is lost; a bundle's history comes along.  Files that\n"
        "no memory may hold (links, odd names, more than 10 MiB) are named, and then nothing is imported.\n"
        "While files are not committed, nothing is imported.\n"
        "\n"
        "With --letta or --letta-url, takes the agents of a Letta server into the data folder, each with\n"
        "its blocks, tags and attributes.  Nothing changes there.  The same command again brings what\n"
        "changed there since, and merges it with what changed here.",
        options, ARRAY_LEN(options),
        "  memfs import --agent $LETTA_AGENT_ID --from ~/notes --dry-run\n"
        "  memfs import --from memory.bundle\n"
        "  memfs import --letta postgresql://letta@db.example.com/letta --dry-run\n"
    };
    size_t n_rest;
    cli_exit status;

    if (is_about_letta(argc, argv))
        return cli_to_server(argc, argv);
    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    if (ignored != NULL || is_ignored)
        return cli_usage_error(&usage, "--token-file, --with-git and --home are for --letta-url or "
                                       "--letta");
    if (from == NULL)
        return cli_usage_error(&usage, "what should be imported? (--from DIR or FILE)");
    if (!opened_memory(&usage, agent, &m, &status))
        return status;
    return run(&m, from, o, as_json);
}
