/*
 * shared_files.c - files of a shared repository, changed over REST: one request, one commit
 * (http-api 8.2, 8.3).
 *
 * What is asked for is decided on the newest text, under the repository's lock (sync/edit.h): so a
 * precondition holds for what is replaced, and not for what was there a moment before (H3).
 */
#include "server/shared.h"

#include "base/escape.h"
#include "base/hash.h"
#include "server/author.h"
#include "server/body.h"
#include "server/reply.h"
#include "store/amend.h"
#include "sync/edit.h"

#include <stdio.h>

#define MAX_FILES 2000 /* past them none is created (http-api 8.3); a push may bring more */
#define SHA_LEN ((size_t)2 * HASH_SHA256)

typedef enum change_kind { CHANGE_CREATE, CHANGE_UPDATE, CHANGE_DELETE } change_kind;

typedef struct change {
    http_request *rq;
    app *app;
    change_kind kind;
    memfs_str path, content, new_path; /* new_path: where it goes; empty: it stays */
    bool has_content;
    memfs_str expected; /* content_sha256 of what is there; empty: whatever it is */
    author_reason reason;
    /* of the attempt that counts */
    char sha[SHA_LEN + 1]; /* of what is left there */
    int status;            /* of a refusal of the plan's own; 0: the code's */
} change;

static void sha_of(memfs_str text, char out[SHA_LEN + 1])
{
    uint8_t hash[HASH_SHA256];

    hash_sha256(text, hash);
    hash_hex(hash, sizeof(hash), out);
}

/* ---- the plan ---- */

static memfs_code refuse(change *c, int status, memfs_error *err, const char *fmt, ...)
    MEMFS_PRINTF(4, 5);

static memfs_code refuse(change *c, int status, memfs_error *err, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    c->status = status;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return memfs_fail(err, MEMFS_EINVALID, "%s", text);
}

/* A name that may not be is the request's fault, and no lack of a right. */
static memfs_code put(change *c, edit *e, memfs_str path, memfs_str content, memfs_error *err)
{
    memfs_code rc = edit_put(e, path, content, err);

    if (rc == MEMFS_EDENIED)
        c->status = 422;
    return rc;
}

static void count_path(const char *path, void *ctx)
{
    (void)path;
    ++*(size_t *)ctx;
}

static memfs_code check_room(change *c, edit *e, memfs_error *err)
{
    size_t n = 0;
    memfs_code rc = amend_paths(edit_repo(e), edit_main(e), count_path, &n, err);

    if (rc == MEMFS_OK && n >= MAX_FILES)
        return refuse(c, 409, err, "the repository has %zu files, and %d are the most: delete some",
                      n, MAX_FILES);
    return rc;
}

/* Is there a file where one is to come? */
static memfs_code check_free(change *c, edit *e, memfs_str path, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf old = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    char shown[200];
    memfs_code rc = edit_read(e, path, &old, NULL, err);

    if (rc == MEMFS_ENOTFOUND)
        return MEMFS_OK;
    if (rc < 0)
        return rc;
    return refuse(c, 409, err, "there is a file '%s' already: change or delete that one",
                  escape_text(path, shown, sizeof(shown)));
}

static memfs_code check_expected(change *c, memfs_str old, memfs_error *err)
{
    char shown[200], sha[SHA_LEN + 1];

    sha_of(old, sha);
    if (c->expected.len == 0 || str_equal(c->expected, str_of(sha)))
        return MEMFS_OK;
    return refuse(c, 409, err,
                  "'%s' was changed meanwhile (content_sha256 is %s, not %.*s): read it again",
                  escape_text(c->path, shown, sizeof(shown)), sha,
                  (int)(c->expected.len < SHA_LEN ? c->expected.len : SHA_LEN), c->expected.ptr);
}

static memfs_code plan_create(change *c, edit *e, memfs_error *err)
{
    memfs_code rc = check_free(c, e, c->path, err);

    if (rc == MEMFS_OK)
        rc = check_room(c, e, err);
    if (rc == MEMFS_OK)
        rc = put(c, e, c->path, c->content, err);
    sha_of(c->content, c->sha);
    return rc;
}

static bool is_moving(const change *c)
{
    return c->new_path.len > 0 && !str_equal(c->new_path, c->path);
}

static memfs_code plan_update(change *c, edit *e, memfs_str old, memfs_error *err)
{
    memfs_str content = c->has_content ? c->content : old;
    memfs_code rc = MEMFS_OK;

    if (is_moving(c)) {
        rc = check_free(c, e, c->new_path, err);
        if (rc == MEMFS_OK)
            rc = edit_remove(e, c->path, err);
    }
    if (rc == MEMFS_OK && (is_moving(c) || c->has_content))
        rc = put(c, e, is_moving(c) ? c->new_path : c->path, content, err);
    sha_of(content, c->sha);
    return rc;
}

static memfs_code plan_existing(change *c, edit *e, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf old = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_code rc = edit_read(e, c->path, &old, NULL, err);

    if (rc == MEMFS_ENOTFOUND)
        return refuse(c, 404, err, "File not found");
    if (rc == MEMFS_OK)
        rc = check_expected(c, buf_str(&old), err);
    if (rc < 0)
        return rc;
    return c->kind == CHANGE_DELETE ? edit_remove(e, c->path, err)
                                    : plan_update(c, e, buf_str(&old), err);
}

static memfs_code plan(edit *e, void *ctx, memfs_error *err)
{
    static const char *const verbs[] = { "Create", "Update", "Delete" };
    change *c = ctx;
    const char *gap = c->reason.text[0] != '\0' ? "\n\n" : "";
    char from[240], to[240];

    c->status = 0;
    escape_text(c->path, from, sizeof(from));
    if (is_moving(c))
        edit_say(e, "Rename %s to %s", from, escape_text(c->new_path, to, sizeof(to)));
    else
        edit_say(e, "%s %s", verbs[c->kind], from);
    edit_say(e, "%s%s", gap, c->reason.text);
    return c->kind == CHANGE_CREATE ? plan_create(c, e, err) : plan_existing(c, e, err);
}

/* ---- the request ---- */

static void answer(change *c, const edit_result *result)
{
    json_writer w = JSON_WRITER_INIT(http_out(c->rq));
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(&result->tip, hex);
    jw_object(&w);
    if (c->kind == CHANGE_DELETE) {
        jw_key_bool(&w, "success", true);
    } else {
        jw_key_str(&w, "path", is_moving(c) ? c->new_path : c->path);
        jw_key_text(&w, "content_sha256", c->sha);
    }
    jw_key_text(&w, "commit_sha", hex);
    jw_object_end(&w);
    http_note(c->rq, "commit %.8s", hex);
    reply_json(c->rq);
}

static void carry_out(change *c, const shared_target *repo)
{
    author room;
    store_identity who = author_of(c->rq, &room);
    edit_options o = { .who = &who,
                       .read_only = author_read_only(c->rq),
                       .why = "repository file",
                       .may_be_new = true };
    memfs_error err = MEMFS_ERROR_INIT;
    edit_result result;
    bool is_unclear = false;
    memfs_code rc;

    author_reason_of(c->rq, &c->reason);
    rc = edit_memory(c->app->home, str_of(repo->id), &o, plan, c, &result, &is_unclear, &err);
    if (is_unclear)
        shared_send(c->rq, 503,
                    "What became of this change is not known: read the file before you try again");
    else if (rc == MEMFS_OK)
        answer(c, &result);
    else if (c->status != 0)
        shared_send(c->rq, c->status, "%s", err.msg);
    else
        shared_send_error(c->rq, &err);
}

static void read_precondition(body *b, change *c)
{
    json_t *given = b->object != NULL ? json_object_get(b->object, "precondition") : NULL;
    const char *type = json_string_value(json_object_get(given, "type"));
    const json_t *sha = json_object_get(given, "content_sha256");

    if (given == NULL || json_is_null(given))
        return;
    if (type == NULL || strcmp(type, "content_sha256") != 0 || !json_is_string(sha) ||
        json_string_length(sha) != SHA_LEN)
        body_refuse(b, "precondition", "value_error",
                    "Value error, a precondition is {\"type\":\"content_sha256\","
                    "\"content_sha256\":\"64 hex digits\"}");
    else
        c->expected = str_make(json_string_value(sha), SHA_LEN);
}

static void read_change(body *b, change *c)
{
    (void)body_text(b, "path", BODY_NEEDED, &c->path);
    if (c->kind == CHANGE_CREATE)
        c->has_content = body_text(b, "content", BODY_NEEDED, &c->content);
    if (c->kind == CHANGE_UPDATE) {
        c->has_content = body_text(b, "content", BODY_NULLABLE, &c->content);
        (void)body_text(b, "new_path", BODY_NULLABLE, &c->new_path);
    }
    if (c->kind != CHANGE_CREATE)
        read_precondition(b, c);
}

/* False: the answer is given. */
static bool check_change(const change *c)
{
    if (c->kind == CHANGE_UPDATE && !c->has_content && c->new_path.len == 0)
        shared_send(c->rq, 422, "nothing is to be changed: give content, or new_path, or both");
    else if (c->content.len > 0 && memchr(c->content.ptr, '\0', c->content.len) != NULL)
        shared_send(c->rq, 422, "files are text here, which has no NUL: push others with git");
    else
        return true;
    return false;
}

static void work(http_request *rq, app *self, change_kind kind)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(body_dispose) body b = BODY_INIT;
    change c = { .rq = rq, .app = self, .kind = kind };
    shared_target repo;

    if (!shared_find(rq, self, &repo))
        return;
    if (body_read(&b, &p, http_body(rq)))
        read_change(&b, &c);
    if (reply_params_good(rq, &p) && check_change(&c))
        carry_out(&c, &repo);
}

void repository_file_create(http_request *rq, void *ctx)
{
    work(rq, ctx, CHANGE_CREATE);
}

void repository_file_change(http_request *rq, void *ctx)
{
    work(rq, ctx, CHANGE_UPDATE);
}

void repository_file_delete(http_request *rq, void *ctx)
{
    work(rq, ctx, CHANGE_DELETE);
}
