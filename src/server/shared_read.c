/*
 * shared_read.c - what is in a shared repository: its files, as they are or as a commit of its
 * history had them, and that history (http-api 8.2).
 *
 * `ref` is "main", or a commit of main's history or the beginning of its id.  What lies in the
 * repository beside that history (purged, pushed and refused) is nowhere here (T28).
 */
#include "server/shared.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/hash.h"
#include "server/params.h"
#include "server/reply.h"
#include "store/amend.h"
#include "store/versions.h"

#include <stdio.h>

typedef struct reading {
    http_request *rq;
    app *app;
    shared_target target;
    repo *r;
    memfs_oid tip, commit;
    memfs_error err;
} reading;

static void reading_dispose(reading *x)
{
    repo_close(x->r);
}

/* ---- which commit ---- */

static memfs_code open_repo(reading *x)
{
    home *h = x->app->home;
    agent *known;
    memfs_code rc = home_agent_repo(h, str_of(x->target.id), &known, &x->err);

    if (rc == MEMFS_ENOTFOUND) { /* nothing was committed yet */
        x->tip = STORE_GENESIS;
        return repo_open(home_store(h), STORE_GENESIS_REPO, &x->r, &x->err);
    }
    if (rc == MEMFS_OK)
        rc = repo_open(home_store(h), agent_repo(known), &x->r, &x->err);
    return rc < 0 ? rc : store_tip(home_store(h), agent_repo(known), &x->tip, &x->err);
}

static memfs_code find_commit(reading *x, memfs_str ref)
{
    char shown[100];
    memfs_code rc;

    x->commit = x->tip;
    if (ref.len == 0 || str_equal(ref, MEMFS_STR("main")) || str_equal(ref, MEMFS_STR("HEAD")) ||
        str_equal(ref, MEMFS_STR(STORE_MAIN)))
        return MEMFS_OK;
    rc = repo_commit_find(x->r, &x->tip, ref, &x->commit, &x->err);
    if (rc == MEMFS_EINVALID || rc == MEMFS_ENOTFOUND)
        return memfs_fail(&x->err, MEMFS_ENOTFOUND, "There is no commit '%s' in this repository",
                          escape_text(ref, shown, sizeof(shown)));
    return rc;
}

/* Of a target that was found.  False: the answer is given. */
static bool begin(reading *x, memfs_str ref)
{
    if (open_repo(x) == MEMFS_OK && find_commit(x, ref) == MEMFS_OK)
        return true;
    shared_send_error(x->rq, &x->err);
    return false;
}

static void put_oid(json_writer *w, const char *key, const memfs_oid *id)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(id, hex);
    jw_key_text(w, key, hex);
}

/* ---- GET .../files ---- */

typedef struct listing {
    json_writer w;
    memfs_str prefix; /* a file or folder, without a slash at its end; empty: all */
    int64_t depth;    /* below it; 0: all */
    memfs_buf last;   /* the file before */
} listing;

static void put_entry(listing *l, memfs_str path, const char *type)
{
    jw_object(&l->w);
    jw_key_str(&l->w, "path", path);
    jw_key_text(&l->w, "type", type);
    jw_object_end(&l->w);
}

/* Where the path goes on below the prefix; false: it is not below it. */
static bool is_below(const listing *l, memfs_str path, size_t *ret_start)
{
    *ret_start = l->prefix.len == 0 ? 0 : l->prefix.len + 1;
    return l->prefix.len == 0 || (path.len > l->prefix.len && path.ptr[l->prefix.len] == '/' &&
                                  str_starts_with(path, l->prefix));
}

/* The folders on the way that the file before was not in, and then the file. */
static void put_file(listing *l, memfs_str path, size_t start)
{
    int64_t depth = 1;

    for (size_t i = start; i < path.len; i++) {
        if (path.ptr[i] != '/')
            continue;
        if (!str_starts_with(buf_str(&l->last), str_make(path.ptr, i + 1)))
            put_entry(l, str_make(path.ptr, i), "directory");
        if (l->depth > 0 && ++depth > l->depth)
            return;
    }
    put_entry(l, path, "file");
}

static memfs_code list_file(const tree_change *c, void *ctx, memfs_error *err)
{
    listing *l = ctx;
    size_t start;

    if (c->new_mode != TREE_MODE_FILE && c->new_mode != TREE_MODE_EXEC)
        return MEMFS_OK;
    if (is_below(l, c->path, &start))
        put_file(l, c->path, start);
    else if (str_equal(c->path, l->prefix))
        put_entry(l, c->path, "file");
    buf_clear(&l->last);
    buf_add_str(&l->last, c->path);
    return buf_check(l->w.out, "the answer", err);
}

static memfs_str without_slashes(memfs_str path)
{
    while (path.len > 0 && path.ptr[path.len - 1] == '/')
        path.len--;
    while (path.len > 0 && path.ptr[0] == '/')
        path = str_from(path, 1);
    return path;
}

/* False: the answer is given. */
static bool read_listing(http_request *rq, listing *l, memfs_str *ret_ref)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    bool has_depth;

    (void)params_text(&p, "path_prefix", &l->prefix);
    (void)params_text(&p, "ref", ret_ref);
    has_depth = params_int(&p, "depth", &l->depth);
    if (!reply_params_good(rq, &p))
        return false;
    l->prefix = without_slashes(l->prefix);
    if (!has_depth || l->depth > 0)
        return true;
    shared_send(rq, 422, "depth must be 1 or more; without it all files are listed");
    return false;
}

void repository_files(http_request *rq, void *ctx)
{
    _cleanup_(reading_dispose) reading x = { .rq = rq, .app = ctx, .err = MEMFS_ERROR_INIT };
    listing l = { .w = JSON_WRITER_INIT(http_out(rq)), .last = MEMFS_BUF_INIT(64u << 10) };
    memfs_str ref = MEMFS_STR("");
    memfs_code rc;

    if (!shared_find(rq, ctx, &x.target) || !read_listing(rq, &l, &ref) || !begin(&x, ref))
        return;
    jw_object(&l.w);
    jw_key(&l.w, "files");
    jw_array(&l.w);
    rc =
        repo_diff(x.r, NULL, &x.commit, &home_settings(x.app->home)->policy, list_file, &l, &x.err);
    buf_dispose(&l.last);
    jw_array_end(&l.w);
    put_oid(&l.w, "ref", &x.commit);
    jw_object_end(&l.w);
    if (rc < 0)
        shared_send_error(rq, &x.err);
    else
        reply_json(rq);
}

/* ---- one file ---- */

static memfs_code read_text(reading *x, memfs_str path, memfs_buf *out)
{
    uint64_t most = home_settings(x->app->home)->policy.max_file_bytes;
    char shown[200];
    memfs_oid blob;
    memfs_code rc = amend_find(x->r, &x->commit, path, &blob, &x->err);

    if (rc == MEMFS_ENOTFOUND)
        return memfs_fail(&x->err, rc, "File not found");
    if (rc == MEMFS_OK)
        rc = repo_blob(x->r, &blob, most, out, &x->err);
    if (rc == MEMFS_OK && str_utf8_valid_prefix(buf_str(out)) != out->len)
        return memfs_fail(&x->err, MEMFS_EINVALID,
                          "'%s' is no text: clone the repository to read it",
                          escape_text(path, shown, sizeof(shown)));
    return rc;
}

/* version: which commit, NULL: "ref" says it; commit_key: what it is called in this answer. */
static void answer_file(http_request *rq, app *self, const memfs_str *version,
                        const char *commit_key)
{
    _cleanup_(reading_dispose) reading x = { .rq = rq, .app = self, .err = MEMFS_ERROR_INIT };
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    char sha[2 * HASH_SHA256 + 1];
    uint8_t hash[HASH_SHA256];
    memfs_str path = MEMFS_STR(""), ref = version != NULL ? *version : MEMFS_STR("");

    (void)params_text(&p, "path", &path);
    if (version == NULL)
        (void)params_text(&p, "ref", &ref);
    if (!shared_find(rq, self, &x.target) || !reply_params_good(rq, &p))
        return;
    if (path.len == 0) {
        shared_send(rq, 422, "path is needed: the file to read");
        return;
    }
    if (!begin(&x, ref))
        return;
    if (read_text(&x, path, &text) < 0) {
        shared_send_error(rq, &x.err);
        return;
    }
    hash_sha256(buf_str(&text), hash);
    hash_hex(hash, sizeof(hash), sha);
    jw_object(&w);
    jw_key_str(&w, "path", path);
    jw_key_str(&w, "content", buf_str(&text));
    jw_key_text(&w, "content_sha256", sha);
    put_oid(&w, commit_key, &x.commit);
    jw_object_end(&w);
    reply_json(rq);
}

void repository_file_get(http_request *rq, void *ctx)
{
    answer_file(rq, ctx, NULL, "ref");
}

void repository_version(http_request *rq, void *ctx)
{
    const memfs_str version = http_param(rq, "id");

    answer_file(rq, ctx, &version, "sha");
}

/* ---- GET .../versions ---- */

#define DEFAULT_VERSIONS 20
#define MAX_VERSIONS 1000 /* as many as of a memory's history: an answer is a buffer */

static memfs_code list_commit(const versions_commit *c, void *ctx, memfs_error *err)
{
    json_writer *w = ctx;
    char time[CLOCK_ISO_LEN];
    memfs_str message = c->info->message;

    while (message.len > 0 && message.ptr[message.len - 1] == '\n')
        message.len--;
    clock_iso(c->info->author_time_s * 1000000, time);
    jw_object(w);
    put_oid(w, "sha", &c->id);
    jw_key_str(w, "message", message);
    jw_key_text(w, "timestamp", time);
    jw_key_str(w, "author_name", c->info->author_name);
    jw_object_end(w);
    return buf_check(w->out, "the answer", err);
}

void repository_versions(http_request *rq, void *ctx)
{
    _cleanup_(reading_dispose) reading x = { .rq = rq, .app = ctx, .err = MEMFS_ERROR_INIT };
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    versions_page page = { .before = NULL };
    memfs_code rc;

    (void)params_text(&p, "path", &page.path);
    page.limit = (size_t)params_limit(&p, DEFAULT_VERSIONS);
    if (page.limit == 0 || page.limit > MAX_VERSIONS)
        page.limit = MAX_VERSIONS;
    if (!shared_find(rq, ctx, &x.target) || !reply_params_good(rq, &p) || !begin(&x, MEMFS_STR("")))
        return;
    jw_object(&w);
    if (page.path.len > 0)
        jw_key_str(&w, "path", page.path);
    jw_key(&w, "commits");
    jw_array(&w);
    rc = versions_list(x.r, &x.tip, &page, &home_settings(x.app->home)->policy, list_commit, &w,
                       &x.err);
    jw_array_end(&w);
    jw_object_end(&w);
    if (rc < 0)
        shared_send_error(rq, &x.err);
    else
        reply_json(rq);
}
