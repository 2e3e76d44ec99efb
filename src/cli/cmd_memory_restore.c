#include "base/fs.h"
#include "base/mem.h"
#include "cli/opened.h"
#include "cli/view.h"
#include "client/backups.h"
#include "client/bringback.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PATHS 256

/*
 * Two restores under one name: of files in one agent's memory, and of a server's whole data folder.  It is about a
 * memory when --agent, --at or a path is given, or --from names one of a memory's backups.
 */

typedef struct request {
    const char *agent, *at, *from, *home;
    bool is_dry_run, only_committed, as_json;
    char *paths[MAX_PATHS];
    size_t n_paths;
} request;

static void request_dispose(request *r)
{
    for (size_t i = 0; i < r->n_paths; i++)
        free(r->paths[i]);
}

typedef struct shower {
    json_writer *json; /* NULL: text */
} shower;

static void on_file(char status, memfs_str path, void *ctx)
{
    shower *s = ctx;
    char text[2] = { status, '\0' };

    if (s->json != NULL) {
        jw_object(s->json);
        jw_key_text(s->json, "status", text);
        jw_key_str(s->json, "path", path);
        jw_object_end(s->json);
        return;
    }
    printf("%c  ", status);
    cli_print_safe(path);
    putchar('\n');
}

/* A name of `memfs backup --list`, or a path; caller frees. */
static char *backup_path(const opened *m, const char *from)
{
    _cleanup_(mem_freep) char *beside = mem_printf("%s/%s", m->place.root, from);

    if (strchr(from, '/') == NULL && fs_is_dir(beside))
        return TAKE_PTR(beside);
    return cli_absolute(from);
}

static memfs_code bring(opened *m, const request *r, const bringback_options *o, bringback *ret,
                        memfs_error *err)
{
    _cleanup_(mem_freep) char *backup = NULL;
    memfs_oid at;
    memfs_code rc;

    if (r->from != NULL) {
        backup = backup_path(m, r->from);
        return bringback_backup(m->checkout, m->browse, backup, o, ret, err);
    }
    rc = opened_commit(m, r->at, &at, err);
    return rc < 0 ? rc : bringback_commit(m->checkout, m->browse, &at, o, ret, err);
}

static void tell(const request *r, const bringback *b)
{
    if (b->n_written + b->n_removed == 0) {
        cli_talk("all is as it was then; nothing was changed");
        return;
    }
    if (r->is_dry_run)
        cli_talk("this would write %zu and remove %zu; nothing was changed", b->n_written,
                 b->n_removed);
    else
        cli_talk("written: %zu, removed: %zu, as a new commit; 'memfs undo' takes it back",
                 b->n_written, b->n_removed);
    if (b->n_uncommitted > 0)
        cli_talk("of these, %zu had not been committed in the backup (--committed leaves them out)",
                 b->n_uncommitted);
}

static cli_exit run(opened *m, const request *r)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&text);
    shower s = { r->as_json ? &w : NULL };
    bringback_options o = { (const char *const *)r->paths, r->n_paths, r->is_dry_run,
                            r->only_committed, on_file, &s };
    char hex[MEMFS_OID_HEX + 1];
    memfs_error err = MEMFS_ERROR_INIT;
    bringback b;

    jw_object(&w);
    jw_key(&w, "files");
    jw_array(&w);
    if (bring(m, r, &o, &b, &err) < 0)
        return cli_fail(&err, NULL);
    if (!r->as_json) {
        tell(r, &b);
        return cli_finish(EXIT_GOOD);
    }
    oid_hex(&b.commit, hex);
    jw_array_end(&w);
    jw_key_text(&w, "head", hex);
    jw_key_int(&w, "written", (int64_t)b.n_written);
    jw_key_int(&w, "removed", (int64_t)b.n_removed);
    jw_key_int(&w, "uncommitted", (int64_t)b.n_uncommitted);
    jw_key_bool(&w, "dry_run", r->is_dry_run);
    jw_object_end(&w);
    return view_print(&text);
}

static bool is_about_a_memory(const request *r, size_t n_rest)
{
    return r->agent != NULL || r->at != NULL || n_rest > 0 || r->is_dry_run || r->only_committed ||
           (r->from != NULL && str_starts_with(str_of(r->from), MEMFS_STR(BACKUPS_PREFIX)));
}

int cmd_memory_restore(int argc, char **argv)
{
    _cleanup_(opened_dispose) opened m = OPENED_INIT;
    _cleanup_(request_dispose) request r = { .agent = NULL };
    const char *rest[MAX_PATHS];
    const cli_option options[] = {
        { "agent", CLI_TEXT, &r.agent, "ID", "a memory: whose" },
        { "at", CLI_TEXT, &r.at, "REV|TIME", "a memory: the commit, or a time" },
        { "from", CLI_TEXT, &r.from, "FOLDER",
          "a memory: one of its backups; a server: the backup of a data folder" },
        { "dry-run", CLI_FLAG, &r.is_dry_run, NULL, "a memory: only show what would change" },
        { "committed", CLI_FLAG, &r.only_committed, NULL,
          "a memory: leave out what the backup had not committed" },
        { "home", CLI_TEXT, &r.home, "DIR", "a server: the data folder to make; absent or empty" },
        { "json", CLI_FLAG, &r.as_json, NULL, "one JSON object at the end" },
    };
    const cli_usage usage = {
        "restore [--agent ID] (--at REV|TIME | --from BACKUP) [PATH...] [--dry-run] [--json]\n"
        "   or: memfs restore --from FOLDER [--home DIR] [--json]",
        "About one memory, when --agent, --at or a path is given: files as they were, in a commit of their\n"
        "own on top of what is there; never a rewind.  --at names a commit ('HEAD~2') or a time\n"
        "('2026-11-22 14:00', '2 days ago').  --from names a backup of 'memfs backup --list'; what had\n"
        "not been committed in it comes along.  Without a path, all files.  While files are not\n"
        "committed, nothing is restored.\n"
        "\n"
        "About a server otherwise: makes a data folder from a backup, after checking every repository of\n"
        "it.  Never touches a data folder that holds anything.",
        options, ARRAY_LEN(options),
        "  memfs restore --agent $LETTA_AGENT_ID --at yesterday system/human.md\n"
        "  memfs restore --agent $LETTA_AGENT_ID --from memory-backup-20261122-140359\n"
        "  memfs restore --from /backup/memfs-monday --home ~/.memfs\n"
    };
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, MAX_PATHS, &n_rest, &status))
        return status;
    if (!is_about_a_memory(&r, n_rest))
        return cli_to_server(argc, argv);
    if ((r.at != NULL) == (r.from != NULL))
        return cli_usage_error(&usage, "from which commit, time or backup? (--at or --from)");
    if (r.home != NULL)
        return cli_usage_error(&usage, "--home is for a server's data folder");
    if (!opened_memory(&usage, r.agent, &m, &status))
        return status;
    for (size_t i = 0; i < n_rest; i++)
        r.paths[r.n_paths++] = opened_path(&m, rest[i]);
    return run(&m, &r);
}
