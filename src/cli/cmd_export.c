#include "base/mem.h"
#include "cli/opened.h"
#include "cli/view.h"
#include "client/carry.h"
#include "store/bundle.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct request {
    const char *agent, *out, *bundle, *tar, *at;
    bool as_json;
} request;

static void on_left_out(memfs_str path, const char *what, void *ctx)
{
    (void)ctx;
    cli_talk("left out: %.*s: %s", (int)path.len, path.ptr, what);
}

static memfs_code to_tar(opened *m, const request *r, const memfs_oid *at, carried *ret,
                         memfs_error *err)
{
    bool is_stdout = strcmp(r->tar, "-") == 0;
    FILE *file = is_stdout ? stdout : fopen(r->tar, "wbxe");
    memfs_code rc;

    if (file == NULL)
        return memfs_fail_errno(err, "could not create '%s'", r->tar);
    rc = carry_out_tar(m->browse, m->checkout, at, file, on_left_out, NULL, ret, err);
    if (is_stdout)
        return rc;
    if (fclose(file) != 0 && rc == MEMFS_OK)
        rc = memfs_fail_errno(err, "could not write '%s'", r->tar);
    if (rc < 0)
        unlink(r->tar); /* ours: it did not exist before */
    return rc;
}

static memfs_code export(opened *m, const request *r, const memfs_oid *at, carried *ret,
                         memfs_error *err)
{
    *ret = (carried){ 0, 0, 0 };
    if (r->out != NULL)
        return carry_out_folder(m->browse, m->checkout, at, r->out, on_left_out, NULL, ret, err);
    return r->bundle != NULL ? bundle_write(m->checkout, at, r->bundle, err)
                             : to_tar(m, r, at, ret, err);
}

static cli_exit report(const request *r, const memfs_oid *at, const carried *done)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    const char *to = r->out != NULL ? r->out : r->bundle != NULL ? r->bundle : r->tar;
    json_writer w = JSON_WRITER_INIT(&text);
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(at, hex);
    if (!r->as_json) {
        if (r->bundle != NULL)
            cli_talk("commit %.12s and its history are in '%s'; 'git clone' and 'memfs import' take it",
                     hex, to);
        else
            cli_talk("files: %zu, of commit %.12s", done->n_files, hex);
        return cli_finish(EXIT_GOOD);
    }
    jw_object(&w);
    jw_key_text(&w, "to", to);
    jw_key_text(&w, "head", hex);
    jw_key_int(&w, "files", (int64_t)done->n_files);
    jw_key_int(&w, "left_out", (int64_t)done->n_left_out);
    jw_key_int(&w, "bytes", (int64_t)done->bytes);
    jw_object_end(&w);
    return view_print(&text);
}

int cmd_export(int argc, char **argv)
{
    _cleanup_(opened_dispose) opened m = OPENED_INIT;
    request r = { .at = "HEAD" };
    const cli_option options[] = {
        { "agent", CLI_TEXT, &r.agent, "ID", "whose memory" },
        { "out", CLI_TEXT, &r.out, "DIR", "the files alone; new or empty" },
        { "bundle", CLI_TEXT, &r.bundle, "FILE", "files and history, as a git bundle" },
        { "tar", CLI_TEXT, &r.tar, "FILE", "the files as a tar archive; - is stdout" },
        { "at", CLI_TEXT, &r.at, "REV|TIME", "as of that commit or time (the newest)" },
        { "json", CLI_FLAG, &r.as_json, NULL, "one JSON object at the end" },
    };
    const cli_usage usage = {
        "export [--agent ID] (--out DIR | --bundle FILE | --tar FILE|-) [--at REV|TIME] [--json]",
        "Writes what is committed in a memory: the files, or a git bundle with the whole history.",
        options, ARRAY_LEN(options),
        "  memfs export --agent $LETTA_AGENT_ID --out ~/memory-of-my-agent\n"
        "  memfs export --bundle memory.bundle\n"
        "  memfs export --tar - | ssh host tar -x -C there\n"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    carried done;
    memfs_oid at;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    if ((r.out != NULL) + (r.bundle != NULL) + (r.tar != NULL) != 1)
        return cli_usage_error(&usage, "where to? (one of --out, --bundle, --tar)");
    if (r.tar != NULL && strcmp(r.tar, "-") == 0 && (r.as_json || isatty(STDOUT_FILENO)))
        return cli_usage_error(&usage, "--tar - is for a pipe or file, without --json");
    if (!opened_memory(&usage, r.agent, &m, &status))
        return status;
    if (opened_commit(&m, r.at, &at, &err) < 0 || export(&m, &r, &at, &done, &err) < 0)
        return cli_fail(&err, NULL);
    return report(&r, &at, &done);
}
