/*
 * memory_commit.c - POST /v1/agents/{agent}/memory/commit: several files, one commit, or nothing.
 *
 *     {"changes":[{"path":"system/a.md","content":"…"},     put, whatever was there
 *                 {"path":"notes/b.md","content":null},     removed; one that is not there is fine
 *                 {"path":"c.md","content":"…",             409 if there is a file with another
 *                  "change_type":"add"}],                   text
 *      "message":"…", "expected_version":"<commit>"}               both may be left out; or
 *                                                                  If-Match with an ETag
 *
 * The answer is the commit (http-api 10), or main as it is where nothing was to be changed: so the
 * same request again makes no second commit.  "change_type" "delete" removes whatever the content.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "server/author.h"
#include "server/body.h"
#include "server/reply.h"
#include "store/history.h"
#include "sync/edit.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_CHANGES 2000
#define MAX_MESSAGE_BYTES 2000

enum change_kind { CHANGE_ADD, CHANGE_MODIFY, CHANGE_DELETE };
static const char *const KINDS[] = { "add", "modify", "delete", NULL };

typedef struct file_change {
    memfs_str path, content;
    size_t kind;
} file_change;

typedef struct committing {
    http_request *rq;
    app *app;
    params p;
    body b;
    memfs_str agent_id, message, version;
    author_reason reason;
    file_change *changes;
    size_t n;
    /* of the last attempt */
    int64_t additions, deletions;
    commit_info commit;
    memfs_oid at;
} committing;

static void committing_dispose(committing *x)
{
    params_dispose(&x->p);
    body_dispose(&x->b);
    free(x->changes);
    commit_info_dispose(&x->commit);
}

/* ---- the request ---- */

static void read_change(committing *x, size_t i)
{
    file_change *to = &x->changes[i];
    bool has_content;
    body one;

    if (!body_list_object(&x->b, "changes", i, &one))
        return;
    if (body_text(&one, "path", BODY_NEEDED, &to->path) && to->path.len == 0)
        body_refuse(&one, "path", "string_too_short", "String should have at least 1 character");
    has_content = body_text(&one, "content", BODY_NULLABLE, &to->content);
    to->kind = CHANGE_MODIFY;
    (void)body_choice(&one, "change_type", BODY_NULLABLE, KINDS, &to->kind);
    if (!has_content)
        to->kind = CHANGE_DELETE;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* From the first sign on: a message that is blank is none. */
static memfs_str read_message(committing *x)
{
    memfs_str message = MEMFS_STR("");

    if (body_text(&x->b, "message", BODY_NULLABLE, &message) &&
        (message.len > MAX_MESSAGE_BYTES || memchr(message.ptr, '\0', message.len) != NULL))
        body_refuse(&x->b, "message", "value_error", "A message has at most 2000 bytes and no NUL");
    while (message.len > 0 && is_blank(message.ptr[0]))
        message = str_from(message, 1);
    return message;
}

static bool read_request(committing *x)
{
    if (body_read(&x->b, &x->p, http_body(x->rq))) {
        if (body_list(&x->b, "changes", BODY_NEEDED, MAX_CHANGES, &x->n))
            x->changes = mem_alloc((x->n + 1) * sizeof(*x->changes));
        for (size_t i = 0; i < x->n; i++)
            read_change(x, i);
        x->message = read_message(x);
        (void)body_version(&x->b, "expected_version", &x->version);
    }
    return reply_params_good(x->rq, &x->p);
}

/* ---- the plan ---- */

static int64_t count_chars(memfs_str s)
{
    int64_t n = 0;

    for (size_t i = 0; i < s.len; i++)
        n += ((unsigned char)s.ptr[i] & 0xC0) != 0x80;
    return n;
}

static memfs_code check_version(const edit *e, const committing *x, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(edit_main(e), hex);
    if (x->version.len == 0 || str_equal(x->version, str_of(hex)))
        return MEMFS_OK;
    return memfs_fail(
        err, MEMFS_ECONFLICT,
        "CONFLICT: the memory was expected at %.*s and is at commit %s: read it again and "
        "repeat the change",
        (int)(x->version.len < 80 ? x->version.len : 80), x->version.ptr, hex);
}

static memfs_code plan_change(edit *e, committing *x, const file_change *c, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf old = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_code rc = edit_read(e, c->path, &old, NULL, err);
    bool is_there = rc == MEMFS_OK;

    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    if (is_there && c->kind == CHANGE_ADD && !str_equal(buf_str(&old), c->content))
        return memfs_fail(err, MEMFS_EEXISTS, "CONFLICT: there is a file '%.*s' already",
                          (int)(c->path.len < 200 ? c->path.len : 200), c->path.ptr);
    if (c->kind == CHANGE_DELETE)
        rc = edit_remove(e, c->path, err);
    else
        rc = edit_put(e, c->path, c->content, err);
    if (is_there && c->kind != CHANGE_DELETE && str_equal(buf_str(&old), c->content))
        return rc;
    x->deletions += count_chars(buf_str(&old));
    x->additions += c->kind == CHANGE_DELETE ? 0 : count_chars(c->content);
    return rc;
}

static memfs_code plan(edit *e, void *ctx, memfs_error *err)
{
    committing *x = ctx;
    memfs_code rc = check_version(e, x, err);

    x->additions = x->deletions = 0;
    for (size_t i = 0; rc == MEMFS_OK && i < x->n; i++)
        rc = plan_change(e, x, &x->changes[i], err);
    if (x->message.len > 0)
        edit_say(e, "%.*s\n", (int)x->message.len, x->message.ptr);
    else
        edit_say(e, "Change %zu file%s\n", x->n, x->n == 1 ? "" : "s");
    if (x->reason.text[0] != '\0')
        edit_say(e, "\n%s\n", x->reason.text);
    return rc;
}

/* ---- the answer ---- */

static memfs_code load_commit(committing *x, memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    agent *a;
    memfs_code rc = home_agent_repo(x->app->home, x->agent_id, &a, err);

    if (rc == MEMFS_OK)
        rc = repo_open(home_store(x->app->home), agent_repo(a), &r, err);
    return rc < 0 ? rc : repo_commit_info(r, &x->at, &x->commit, err);
}

static void put_paths(json_writer *w, const committing *x, bool moved)
{
    jw_key(w, "files_changed");
    jw_array(w);
    for (size_t i = 0; moved && i < x->n; i++)
        jw_str(w, x->changes[i].path);
    jw_array_end(w);
}

static void answer(committing *x, bool moved)
{
    json_writer w = JSON_WRITER_INIT(http_out(x->rq));
    bool is_agent = strcmp(app_principal(x->rq)->agent_id, "") != 0;
    char hex[MEMFS_OID_HEX + 1], date[CLOCK_ISO_LEN];

    oid_hex(&x->at, hex);
    clock_iso(x->commit.author_time_s * 1000000, date);
    jw_object(&w);
    jw_key_text(&w, "sha", hex);
    if (x->commit.n_parents > 0)
        oid_hex(&x->commit.parents[0], hex);
    jw_key_text(&w, "parent_sha", x->commit.n_parents > 0 ? hex : NULL);
    jw_key_str(&w, "message", str_without_last_newlines(x->commit.message));
    jw_key_text(&w, "author_type", is_agent ? "agent" : "user");
    jw_key_str(&w, "author_id", x->agent_id);
    jw_key_str(&w, "author_name", x->commit.author_name);
    jw_key_text(&w, "timestamp", date);
    put_paths(&w, x, moved);
    jw_key_int(&w, "additions", moved ? x->additions : 0);
    jw_key_int(&w, "deletions", moved ? x->deletions : 0);
    jw_object_end(&w);
    reply_json(x->rq);
}

static void refuse(http_request *rq, memfs_code rc, bool is_unclear, const memfs_error *err)
{
    if (is_unclear) {
        http_send_detail(
            rq, 503,
            "What became of this change is not known: read the files before you try again");
        return;
    }
    if (rc == MEMFS_EINVALID)
        http_send_detail(rq, 400, "INVALID_ARGUMENT: %s", err->msg);
    else
        http_send_error(rq, err);
}

void memory_commit(http_request *rq, void *ctx)
{
    _cleanup_(committing_dispose)
        committing x = { .rq = rq, .app = ctx, .p = REPLY_PARAMS(rq), .commit = COMMIT_INFO_INIT };
    author room;
    const store_identity who = author_of(rq, &room);
    const edit_options o = { .who = &who, .read_only = author_read_only(rq), .why = "commit" };
    memfs_error err = MEMFS_ERROR_INIT;
    bool is_unclear = false;
    edit_result result;
    memfs_code rc;

    x.agent_id = reply_agent_id(rq, &x.p);
    x.version = reply_if_match_commit(rq);
    author_reason_of(rq, &x.reason);
    if (!read_request(&x) || !reply_agent(rq, ctx, x.agent_id))
        return;
    rc = edit_memory(x.app->home, x.agent_id, &o, plan, &x, &result, &is_unclear, &err);
    x.at = result.tip;
    if (rc == MEMFS_OK)
        rc = load_commit(&x, &err);
    if (rc < 0)
        refuse(rq, rc, is_unclear, &err);
    else
        answer(&x, result.moved);
}
