#include "base/mem.h"
#include "cli/opened.h"
#include "cli/view.h"

#include <stdio.h>
#include <string.h>

#define MAX_SHOWN (64u << 20)

/*
 * "REV", or "REV:PATH".  A time has colons of its own, and so may a path: the last colon that has a commit before it
 * parts them.
 */
static memfs_code take_apart(opened *m, const char *what, memfs_oid *ret, const char **ret_path,
                             memfs_error *err)
{
    memfs_code rc = opened_commit(m, what, ret, err);

    *ret_path = NULL;
    for (size_t at = strlen(what); rc < 0 && at-- > 0;) {
        _cleanup_(mem_freep) char *rev = mem_strndup(what, at);
        memfs_error other = MEMFS_ERROR_INIT;

        if (what[at] != ':' || opened_commit(m, rev[0] != '\0' ? rev : "HEAD", ret, &other) < 0)
            continue;
        *ret_path = what + at + 1;
        return MEMFS_OK;
    }
    return rc;
}

/* ---- a commit ---- */

static memfs_code on_change_json(const browse_change *change, void *ctx, memfs_error *err)
{
    (void)err;
    view_change_json(change, ctx);
    return MEMFS_OK;
}

static memfs_code on_change(const browse_change *change, void *ctx, memfs_error *err)
{
    (void)ctx;
    (void)err;
    view_change(change);
    return MEMFS_OK;
}

static memfs_code on_entry(const browse_entry *entry, void *ctx, memfs_error *err)
{
    (void)err;
    if (ctx != NULL)
        view_commit_json(entry, true, ctx);
    else
        view_commit(entry, VIEW_FULL);
    return MEMFS_OK;
}

static cli_exit show_commit(opened *m, const memfs_oid *id, bool names_only, bool as_json)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&text), *json = as_json ? &w : NULL;
    memfs_error err = MEMFS_ERROR_INIT;

    if (browse_log(m->browse, id, NULL, 1, on_entry, json, &err) < 0)
        return cli_fail(&err, NULL);
    if (as_json) {
        jw_key(&w, "changes");
        jw_array(&w);
    }
    if (browse_diff_commit(m->browse, id, NULL, !names_only, as_json ? on_change_json : on_change,
                           json, &err) < 0)
        return cli_fail(&err, NULL);
    if (!as_json)
        return cli_finish(EXIT_GOOD);
    jw_array_end(&w);
    jw_object_end(&w);
    return view_print(&text);
}

/* ---- a file or folder of a commit ---- */

static cli_exit show_file(const memfs_oid *id, const char *path, const memfs_buf *content,
                          bool as_json)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&text);
    char hex[MEMFS_OID_HEX + 1];

    if (!as_json) {
        cli_print_safe(buf_str(content));
        return cli_finish(EXIT_GOOD);
    }
    oid_hex(id, hex);
    jw_object(&w);
    jw_key_text(&w, "id", hex);
    jw_key_text(&w, "path", path);
    jw_key_int(&w, "bytes", (int64_t)content->len);
    jw_key_str(&w, "text", buf_str(content));
    jw_object_end(&w);
    return view_print(&text);
}

static memfs_code list_json(memfs_str path, uint32_t mode, const memfs_oid *blob, void *ctx,
                            memfs_error *err)
{
    (void)mode;
    (void)blob;
    (void)err;
    jw_str(ctx, path);
    return MEMFS_OK;
}

static memfs_code list_text(memfs_str path, uint32_t mode, const memfs_oid *blob, void *ctx,
                            memfs_error *err)
{
    (void)mode;
    (void)blob;
    (void)ctx;
    (void)err;
    cli_print_safe(path);
    putchar('\n');
    return MEMFS_OK;
}

static cli_exit show_folder(opened *m, const memfs_oid *id, const char *path, bool as_json)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&text);
    memfs_error err = MEMFS_ERROR_INIT;
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(id, hex);
    jw_object(&w);
    jw_key_text(&w, "id", hex);
    jw_key_text(&w, "path", path);
    jw_key(&w, "files");
    jw_array(&w);
    if (browse_files(m->browse, id, path, as_json ? list_json : list_text, &w, &err) < 0)
        return cli_fail(&err, "'memfs show REV:' lists the files of a commit");
    jw_array_end(&w);
    jw_object_end(&w);
    return as_json ? view_print(&text) : cli_finish(EXIT_GOOD);
}

static cli_exit show_path(opened *m, const memfs_oid *id, const char *typed, bool as_json)
{
    _cleanup_(buf_dispose) memfs_buf content = MEMFS_BUF_INIT(MAX_SHOWN);
    _cleanup_(mem_freep) char *path = opened_path(m, typed);
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = path[0] == '\0' ? MEMFS_ENOTFOUND
                                    : browse_file(m->browse, id, path, &content, &err);

    if (rc == MEMFS_OK)
        return show_file(id, path, &content, as_json);
    return rc == MEMFS_ENOTFOUND ? show_folder(m, id, path, as_json) : cli_fail(&err, NULL);
}

int cmd_show(int argc, char **argv)
{
    _cleanup_(opened_dispose) opened m = OPENED_INIT;
    const char *agent = NULL, *path, *rest[1] = { "HEAD" };
    bool names_only = false, as_json = false;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "whose memory" },
        { "names", CLI_FLAG, &names_only, NULL, "the names of the files, not what changed in them" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object" },
    };
    const cli_usage usage = {
        "show [REV|TIME][:PATH] [--agent ID] [--names] [--json]",
        "Shows a commit and what it changed; with :PATH, a file as it was then, or the names of the\n"
        "files in a folder.  REV is anything that git takes, TIME is '2026-11-22 14:00', '2 days ago'\n"
        "and the like: the newest commit of that time.",
        options, ARRAY_LEN(options),
        "  memfs show HEAD~3\n"
        "  memfs show 'yesterday:system/human.md'\n"
        "  memfs show main:system/\n"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_oid id;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, 1, &n_rest, &status) ||
        !opened_memory(&usage, agent, &m, &status))
        return status;
    if (take_apart(&m, rest[0], &id, &path, &err) < 0)
        return cli_fail(&err, "'memfs log' lists the commits");
    return path != NULL ? show_path(&m, &id, path, as_json)
                        : show_commit(&m, &id, names_only, as_json);
}
