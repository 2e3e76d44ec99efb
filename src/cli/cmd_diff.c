#include "base/fs.h"
#include "base/mem.h"
#include "cli/opened.h"
#include "cli/view.h"

#include <stdio.h>

#define REMOTE_MAIN "refs/remotes/origin/main"

typedef struct request {
    memfs_oid old, new;
    size_t n_commits; /* 0: what is not committed, and what is not pushed */
    char *path;       /* NULL: all */
} request;

static void request_dispose(request *r)
{
    mem_freep(&r->path);
}

typedef struct shower {
    json_writer *json; /* NULL: text */
    size_t n;
} shower;

static memfs_code on_change(const browse_change *change, void *ctx, memfs_error *err)
{
    shower *s = ctx;

    (void)err;
    s->n++;
    if (s->json != NULL)
        view_change_json(change, s->json);
    else
        view_change(change);
    return MEMFS_OK;
}

static memfs_code on_unpushed(const browse_entry *entry, void *ctx, memfs_error *err)
{
    shower *s = ctx;

    (void)err;
    if (s->json != NULL)
        view_commit_json(entry, false, s->json);
    else if (s->n == 0)
        puts("# committed here, not yet on the remote:");
    s->n++;
    if (s->json == NULL) {
        fputs("#   ", stdout);
        view_commit(entry, VIEW_LINE);
    }
    return MEMFS_OK;
}

/* Is it a file or folder, here or in the newest commit? */
static bool is_path(opened *m, const char *path)
{
    _cleanup_(mem_freep) char *full = mem_printf("%s/%s", checkout_work_tree(m->checkout), path);
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_oid head;

    if (fs_exists(full))
        return true;
    if (browse_commit(m->browse, "HEAD", &head, &err) < 0)
        return false;
    return browse_has(m->browse, &head, path);
}

/* As many commits as the words name, then at most one path. */
static memfs_code read_request(opened *m, const char **words, size_t n, request *ret,
                               memfs_error *err)
{
    size_t i = 0;

    while (i < n && ret->n_commits < 2) {
        memfs_oid *into = ret->n_commits == 0 ? &ret->old : &ret->new;

        if (opened_commit(m, words[i], into, err) < 0)
            break;
        ret->n_commits++;
        i++;
    }
    if (i == n)
        return MEMFS_OK;
    ret->path = opened_path(m, words[i]);
    if (i + 1 < n)
        return memfs_fail(err, MEMFS_EINVALID, "'%.100s' is no commit, and only one path may follow",
                          words[i]);
    if (ret->path[0] == '\0' || is_path(m, ret->path))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ENOTFOUND, "'%.100s' is neither a commit nor a file of this memory",
                      words[i]);
}

/* What HEAD has and the remote, as far as it is known, has not. */
static memfs_code unpushed(opened *m, const char *path, shower *s, memfs_error *err)
{
    memfs_oid head, remote;
    memfs_code rc = checkout_ref(m->checkout, REMOTE_MAIN, &remote, err);

    if (rc == MEMFS_ENOTFOUND) {
        *err = (memfs_error)MEMFS_ERROR_INIT;
        return MEMFS_OK;
    }
    if (rc == MEMFS_OK)
        rc = browse_commit(m->browse, "HEAD", &head, err);
    return rc < 0 ? rc
                  : browse_log_between(m->browse, &head, &remote, path, 0, on_unpushed, s, err);
}

static memfs_code show(opened *m, request *r, bool names_only, json_writer *json, size_t *ret_n,
                       memfs_error *err)
{
    shower changes = { json, 0 }, commits = { json, 0 };
    browse_span span = { &r->old, r->n_commits == 2 ? &r->new : NULL, r->path, !names_only };
    memfs_code rc = r->n_commits > 0 ? MEMFS_OK : browse_commit(m->browse, "HEAD", &r->old, err);

    if (json != NULL) {
        jw_key(json, "changes");
        jw_array(json);
    }
    if (rc == MEMFS_OK)
        rc = browse_diff(m->browse, &span, on_change, &changes, err);
    if (json != NULL) {
        jw_array_end(json);
        jw_key(json, "unpushed");
        jw_array(json);
    }
    if (rc == MEMFS_OK && r->n_commits == 0)
        rc = unpushed(m, r->path, &commits, err);
    if (json != NULL)
        jw_array_end(json);
    *ret_n = changes.n + commits.n;
    return rc;
}

int cmd_diff(int argc, char **argv)
{
    _cleanup_(opened_dispose) opened m = OPENED_INIT;
    _cleanup_(request_dispose) request r = { .path = NULL };
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&text);
    const char *agent = NULL, *rest[3];
    bool names_only = false, tells = false, as_json = false;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "whose memory" },
        { "names", CLI_FLAG, &names_only, NULL, "the names of the files, not what changed in them" },
        { "exit-code", CLI_FLAG, &tells, NULL, "end with 1 when there is a difference" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object: changes, unpushed" },
    };
    const cli_usage usage = {
        "diff [REV|TIME [REV|TIME]] [PATH] [--agent ID] [--names] [--exit-code] [--json]",
        "Without a commit: what is not committed (files that are not tracked too), and the commits\n"
        "that the remote does not have yet.  With one: that commit against the files as they are.\n"
        "With two: the one against the other.",
        options, ARRAY_LEN(options),
        "  memfs diff\n"
        "  memfs diff yesterday system/\n"
        "  memfs diff HEAD~2 HEAD --names\n"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n_rest, n = 0;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, ARRAY_LEN(rest), &n_rest, &status) ||
        !opened_memory(&usage, agent, &m, &status))
        return status;
    jw_object(&w);
    if (read_request(&m, rest, n_rest, &r, &err) < 0 ||
        show(&m, &r, names_only, as_json ? &w : NULL, &n, &err) < 0)
        return cli_fail(&err, NULL);
    jw_object_end(&w);
    status = as_json ? view_print(&text) : cli_finish(EXIT_GOOD);
    return status == EXIT_GOOD && tells && n > 0 ? EXIT_FAILED : status;
}
