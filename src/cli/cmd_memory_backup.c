#include "base/clock.h"
#include "cli/opened.h"
#include "cli/view.h"
#include "client/backups.h"

#include <stdio.h>

/*
 * Two backups under one name: of one agent's memory (beside it, as the Letta client makes them), and of the whole
 * data folder of a server, into a folder that is named.  The folder tells them apart.
 */

static void entry_json(const backup_entry *b, json_writer *w)
{
    char hex[MEMFS_OID_HEX + 1], when[CLOCK_ISO_LEN];

    clock_iso(b->time_s * 1000000, when);
    oid_hex(&b->head, hex);
    jw_object(w);
    jw_key_text(w, "name", b->name);
    jw_key_text(w, "path", b->path);
    jw_key_text(w, "time", b->time_s != 0 ? when : NULL);
    jw_key_text(w, "head", b->has_head ? hex : NULL);
    jw_object_end(w);
}

static void print_entry(const backup_entry *b)
{
    char when[VIEW_TIME_LEN] = "?", hex[MEMFS_OID_HEX + 1];

    if (b->time_s != 0)
        view_time(b->time_s, when);
    oid_hex(&b->head, hex);
    cli_print_safe(str_of(b->name));
    printf("  %s  %.12s\n", when, b->has_head ? hex : "no commit");
}

static cli_exit make(const place *p, bool as_json)
{
    _cleanup_(backup_entry_dispose) backup_entry b = BACKUP_ENTRY_INIT;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&text);
    memfs_error err = MEMFS_ERROR_INIT;

    if (backups_make(p, &b, &err) < 0)
        return cli_fail(&err, err.code == MEMFS_ENOTFOUND
                                  ? "'memfs apply --agent ID' makes an agent's memory"
                                  : "no backup was made");
    entry_json(&b, &w);
    puts(as_json ? text.ptr : b.path);
    if (!as_json)
        cli_talk("'memfs restore --agent ID --from %s' brings it back", b.name);
    return cli_finish(EXIT_GOOD);
}

static cli_exit list(const place *p, bool as_json)
{
    _cleanup_(backups_dispose) backups all = BACKUPS_INIT;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&text);
    memfs_error err = MEMFS_ERROR_INIT;

    if (backups_list(p, &all, &err) < 0)
        return cli_fail(&err, NULL);
    jw_array(&w);
    for (size_t i = 0; i < all.n; i++) {
        if (as_json)
            entry_json(&all.at[i], &w);
        else
            print_entry(&all.at[i]);
    }
    jw_array_end(&w);
    if (!as_json && all.n == 0)
        cli_talk("there is no backup; 'memfs backup --agent ID' makes one");
    return as_json ? view_print(&text) : cli_finish(EXIT_GOOD);
}

int cmd_memory_backup(int argc, char **argv)
{
    _cleanup_(opened_dispose) opened m = OPENED_INIT;
    const char *agent = NULL, *home = NULL, *rest[1];
    bool lists = false, as_json = false;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "a memory: whose" },
        { "list", CLI_FLAG, &lists, NULL, "a memory: show the backups there are, newest first" },
        { "home", CLI_TEXT, &home, "DIR", "a server: its data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "JSON" },
    };
    const cli_usage usage = {
        "backup [--agent ID] [--list] [--json]  |  backup FOLDER [--home DIR] [--json]",
        "Without FOLDER: copies an agent's memory, uncommitted files and .git included, into\n"
        "memory-backup-YYYYMMDD-HHMMSS beside it, as the Letta client does.  Safe while the agent works:\n"
        "the copy is a state that the memory really had.\n"
        "\n"
        "With FOLDER: copies every memory and the durable state of a server's data folder into FOLDER,\n"
        "which must not exist.  Safe while the server works.  Blocks are not copied; they are made from\n"
        "git again.",
        options, ARRAY_LEN(options),
        "  memfs backup --agent $LETTA_AGENT_ID\n"
        "  memfs backup --agent $LETTA_AGENT_ID --list\n"
        "  memfs backup /backup/memfs-monday\n"
    };
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, 1, &n_rest, &status))
        return status;
    if (n_rest == 1 && agent == NULL && !lists)
        return cli_to_server(argc, argv);
    if (n_rest == 1)
        return cli_usage_error(&usage, "a memory's backup lies beside it; no FOLDER is named then");
    if (home != NULL)
        return cli_usage_error(&usage, "where should the backup of the data folder go?");
    if (!opened_place(&usage, agent, &m, &status))
        return status;
    return lists ? list(&m.place, as_json) : make(&m.place, as_json);
}
