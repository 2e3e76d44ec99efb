#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "cli/opened.h"
#include "cli/view.h"
#include "client/backups.h"
#include "client/bringback.h"
#include "client/when.h"
#include "memory/ids.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PATHS 256

/*
 * Three restores under one name: of files in one agent's checkout, of one agent's memory on the server, and of a
 * server's whole data folder.  It is about a memory when --agent, --at or a path is given, or --from names one of a
 * memory's backups; about the server's with --server, or where this machine has no checkout of that agent but serves
 * it.
 */

typedef struct request {
    const char *agent, *at, *from, *home;
    bool is_dry_run, only_committed, as_json, is_server;
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

/* ---- the server's ---- */

static bool is_here(const char *agent)
{
    _cleanup_(settings_freep) settings *s = NULL;
    _cleanup_(place_dispose) place p = PLACE_INIT;
    memfs_error ignored;

    return settings_load(NULL, NULL, 0, &s, &ignored) == MEMFS_OK &&
           place_of(s, agent, &p, &ignored) == MEMFS_OK && fs_is_dir(p.memory);
}

static bool is_served(const char *agent, const char *home)
{
    _cleanup_(mem_freep) char *path = cli_home(home);
    _cleanup_(mem_freep) char *folder =
        mem_printf("%s/repository/" IDS_DEFAULT_ORG "/%s", path, agent);

    return ids_is_agent(str_of(agent)) && fs_is_dir(folder);
}

static bool is_the_servers(const request *r)
{
    const char *agent = cli_agent(r->agent);

    return r->is_server || (r->at != NULL && r->from == NULL && agent != NULL && !is_here(agent) &&
                            is_served(agent, r->home));
}

static cli_exit run_on_server(const cli_usage *usage, const request *r, size_t n_rest)
{
    _cleanup_(mem_freep) char *seconds = NULL;
    const char *agent = cli_agent(r->agent), *at = r->at;
    char name[] = "restore", agent_is[] = "--agent", at_is[] = "--at", home_is[] = "--home";
    char as_json[] = "--json";
    char *argv[9] = { name, agent_is, (char *)agent, at_is };
    int64_t time_s;
    int n = 4;

    if (agent == NULL)
        return cli_usage_error(usage, "whose memory? (--agent ID)");
    if (at == NULL || r->from != NULL)
        return cli_usage_error(usage, "the server's memory as it was when? (--at REV|TIME)");
    if (n_rest > 0 || r->is_dry_run || r->only_committed)
        return cli_usage_error(usage, "on the server all files are restored at once: without paths, "
                                      "--dry-run or --committed");
    if (when_parse(str_of(at), clock_wall_us() / 1000000, &time_s))
        at = seconds = mem_printf("@%lld", (long long)time_s);
    argv[n++] = (char *)at;
    if (r->home != NULL) {
        argv[n++] = home_is;
        argv[n++] = (char *)r->home;
    }
    if (r->as_json)
        argv[n++] = as_json;
    argv[n] = NULL;
    return cli_to_server(n, argv);
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
        { "server", CLI_FLAG, &r.is_server, NULL,
          "a memory: the one that the server has, not a checkout" },
        { "home", CLI_TEXT, &r.home, "DIR",
          "a server: the data folder; of a backup: to make, absent or empty" },
        { "json", CLI_FLAG, &r.as_json, NULL, "one JSON object at the end" },
    };
    const cli_usage usage = {
        "restore [--agent ID] (--at REV|TIME | --from BACKUP) [PATH...] [--dry-run] [--json]\n"
        "   or: memfs restore --server --agent ID --at REV|TIME [--home DIR] [--json]\n"
        "   or: memfs restore --from FOLDER [--home DIR] [--json]",
        "About one memory, when --agent, --at or a path is given: files as they were, in a commit of their\n"
        "own on top of what is there; never a rewind.  --at names a commit ('HEAD~2') or a time\n"
        "('2026-11-22 14:00', '2 days ago').  --from names a backup of 'memfs backup --list'; what had\n"
        "not been committed in it comes along.  Without a path, all files.  While files are not\n"
        "committed, nothing is restored.\n"
        "\n"
        "About the memory that a server has, with --server, or where this machine has no checkout of that\n"
        "agent but serves it: all files as they were, in one new commit on top, pushed on to its remotes;\n"
        "--at is then a time or a commit's id.\n"
        "\n"
        "About a server otherwise: makes a data folder from a backup, after checking every repository of\n"
        "it.  Never touches a data folder that holds anything.",
        options, ARRAY_LEN(options),
        "  memfs restore --agent $LETTA_AGENT_ID --at yesterday system/human.md\n"
        "  memfs restore --agent $LETTA_AGENT_ID --from memory-backup-20261122-140359\n"
        "  memfs restore --server --agent agent-… --at '2 hours ago'\n"
        "  memfs restore --from /backup/memfs-monday --home ~/.memfs\n"
    };
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, MAX_PATHS, &n_rest, &status))
        return status;
    if (is_the_servers(&r))
        return run_on_server(&usage, &r, n_rest);
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
