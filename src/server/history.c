/*
 * history.c - a memory's past: what changed it, what differs, what was there, and bringing it back.
 *
 * A commit has the shape that Letta's server has for it inside (contract http-api 10), with what is
 * true in each field:
 *
 *     author                                 author_type   author_id
 *     agent-…@anything                       agent         that agent
 *     memfs@localhost, letta@localhost       system        ""
 *     token-1a2b3c4d@memfs.localhost         user          the token's public id
 *     user-…@anything                        user          that user
 *     anybody else                           user          ""
 *
 * An author is what a commit says, and whoever may push may write any: it is no proof.
 *
 * All of it is read from git, on a worker.  Only which commits changed a file is asked of the
 * cache, which has an index of that (sync/past.h); where it cannot say, git can.
 */
#include "base/clock.h"
#include "base/escape.h"
#include "base/mem.h"
#include "memory/ids.h"
#include "memory/label.h"
#include "server/author.h"
#include "server/body.h"
#include "server/recompile.h"
#include "server/reply.h"
#include "store/compare.h"
#include "sync/timeline.h"

#include <stdio.h>

#define MAX_COMMITS 1000
#define MAX_READ_BYTES (64u << 20) /* of files, to count their lines, for one answer */
#define MAX_PATCH_BYTES (2u << 20)

/* ---- which file ---- */

/* "label" or "path", not both; a label's file is where a block of that label is. */
typedef struct which {
    memfs_str label, path; /* "": none was named */
    memfs_buf file;        /* what a label's path borrows from */
} which;
#define WHICH_INIT                                                                                 \
    {                                                                                              \
        .file = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED)                                                \
    }

static void which_dispose(which *w)
{
    buf_dispose(&w->file);
}

static void which_settle(which *w)
{
    if (w->label.len == 0 || w->path.len > 0)
        return;
    label_to_path(w->label, &w->file);
    w->path = buf_str(&w->file);
}

static void which_read(which *w, params *p)
{
    (void)params_text(p, "label", &w->label);
    (void)params_text(p, "path", &w->path);
}

/* False when 400 was sent. */
static bool which_good(http_request *rq, which *w)
{
    if (w->label.len > 0 && w->path.len > 0) {
        http_send_detail(rq, 400,
                         "INVALID_ARGUMENT: 'label' and 'path' both name a file; give one");
        return false;
    }
    which_settle(w);
    return true;
}

/* ---- the memory ---- */

/* False when 404 or 503 was sent. */
static bool open_timeline(http_request *rq, app *self, memfs_str agent_id, timeline **ret)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (!reply_agent(rq, self, agent_id))
        return false;
    if (timeline_open(self->home, agent_id, ret, &err) == MEMFS_OK)
        return true;
    reply_agent_failed(rq, agent_id, &err);
    return false;
}

/* False when 404 or 400 was sent; text "": *ret stays as it is. */
static bool find_commit(http_request *rq, timeline *p, memfs_str text, memfs_oid *ret)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (text.len == 0 || timeline_commit(p, text, ret, &err) == MEMFS_OK)
        return true;
    timeline_failed(p, &err);
    http_send_error(rq, &err);
    return false;
}

/* ---- one commit ---- */

typedef struct commit_writer {
    json_writer w;
    repo *r;
    compare_grant grant;
} commit_writer;

static memfs_str local_part(memfs_str email)
{
    memfs_str local = email, rest;

    return str_split(email, '@', &local, &rest) ? local : email;
}

static void write_author(json_writer *w, const commit_info *c)
{
    const memfs_str token = MEMFS_STR("token-");
    memfs_str local = local_part(c->author_email), id = MEMFS_STR("");
    const char *type = "user";

    if (ids_is_agent(local)) {
        type = "agent";
        id = local;
    } else if (str_equal(c->author_email, MEMFS_STR("memfs@localhost")) ||
               str_equal(c->author_email, MEMFS_STR("letta@localhost"))) {
        type = "system";
    } else if (ids_is_prefixed_uuid4(local, "user")) {
        id = local;
    } else if (str_starts_with(local, token) &&
               str_ends_with(c->author_email, MEMFS_STR("@memfs.localhost"))) {
        id = str_from(local, token.len);
    }
    jw_key_text(w, "author_type", type);
    jw_key_str(w, "author_id", id);
    jw_key_str(w, "author_name", c->author_name);
}

static void write_id(json_writer *w, const char *key, const memfs_oid *id)
{
    char hex[MEMFS_OID_HEX + 1];

    if (id == NULL || oid_is_zero(id)) {
        jw_key_null(w, key);
        return;
    }
    oid_hex(id, hex);
    jw_key_text(w, key, hex);
}

/* Against the first parent; lines of files that are too large, or no text, are not counted. */
static memfs_code count_lines(commit_writer *cw, const versions_commit *c, int64_t *ret_added,
                              int64_t *ret_removed, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < c->n_paths; i++) {
        memfs_oid old = { { 0 } };
        size_t added, removed;

        if (c->info->n_parents > 0)
            rc = versions_file(cw->r, &c->info->parents[0], str_of(c->paths[i].path), &old, err);
        if (rc == MEMFS_OK || rc == MEMFS_ENOTFOUND)
            rc = compare_count(cw->r, &old, &c->paths[i].blob, &cw->grant, &added, &removed, err);
        if (rc < 0)
            break;
        *ret_added += (int64_t)added;
        *ret_removed += (int64_t)removed;
    }
    return rc;
}

static memfs_code write_commit(const versions_commit *c, void *ctx, memfs_error *err)
{
    commit_writer *cw = ctx;
    json_writer *w = &cw->w;
    int64_t added = 0, removed = 0;
    char time[CLOCK_ISO_LEN];
    memfs_code rc = count_lines(cw, c, &added, &removed, err);

    if (rc < 0)
        return rc;
    clock_iso(c->info->author_time_s * 1000000, time);
    jw_object(w);
    write_id(w, "sha", &c->id);
    write_id(w, "parent_sha", c->info->n_parents > 0 ? &c->info->parents[0] : NULL);
    jw_key_str(w, "message", str_without_last_newlines(c->info->message));
    write_author(w, c->info);
    jw_key_text(w, "timestamp", time);
    jw_key(w, "files_changed");
    jw_array(w);
    for (size_t i = 0; i < c->n_paths; i++)
        jw_str(w, str_of(c->paths[i].path));
    jw_array_end(w);
    jw_key_int(w, "additions", added);
    jw_key_int(w, "deletions", removed);
    jw_object_end(w);
    return buf_check(w->out, "the answer", err);
}

static commit_writer commit_writer_for(http_request *rq, timeline *p)
{
    return (commit_writer){ JSON_WRITER_INIT(http_out(rq)),
                            timeline_repo(p),
                            { .read_bytes = MAX_READ_BYTES } };
}

/* ---- GET memory/history ---- */

/* The tag of what is a function of main alone: true when 304 was sent. */
static bool is_not_modified(http_request *rq, const timeline *p)
{
    char hex[MEMFS_OID_HEX + 1], tag[MEMFS_OID_HEX + 3];

    oid_hex(timeline_main(p), hex);
    snprintf(tag, sizeof(tag), "\"%s\"", hex);
    return http_not_modified(rq, tag);
}

static void end(http_request *rq, timeline *p, memfs_code rc, const memfs_error *err)
{
    if (rc == MEMFS_OK || http_out(rq)->too_big) {
        reply_json(rq);
        return;
    }
    timeline_failed(p, err);
    http_send_error(rq, err);
}

/* A whole id is looked for by the list itself, on its way there. */
static bool find_before(http_request *rq, timeline *p, memfs_str text, memfs_oid *ret)
{
    return (text.len == MEMFS_OID_HEX && oid_parse(text, ret)) || find_commit(rq, p, text, ret);
}

/* A file's commits by the index, if that knows them. */
static memfs_code write_by_index(commit_writer *cw, const policy *policy, timeline *p,
                                 const versions_page *page, bool *ret_is_known, memfs_error *err)
{
    _cleanup_(mem_freep) memfs_oid *commits = NULL;
    memfs_code rc = MEMFS_OK;
    size_t n = 0;

    *ret_is_known = page->path.len > 0 &&
                    timeline_of_file(p, page->path, page->before, page->limit, &commits, &n);
    for (size_t i = 0; rc == MEMFS_OK && i < n; i++)
        rc = versions_one(cw->r, &commits[i], policy, write_commit, cw, err);
    return rc;
}

static void answer_history(http_request *rq, app *self, timeline *p, const versions_page *page)
{
    const policy *policy = &home_settings(self->home)->policy;
    commit_writer cw = commit_writer_for(rq, p);
    memfs_error err = MEMFS_ERROR_INIT;
    bool is_known;
    memfs_code rc;

    if (is_not_modified(rq, p))
        return;
    jw_array(&cw.w);
    rc = write_by_index(&cw, policy, p, page, &is_known, &err);
    if (rc == MEMFS_OK && !is_known)
        rc = versions_list(cw.r, timeline_main(p), page, policy, write_commit, &cw, &err);
    jw_array_end(&cw.w);
    end(rq, p, rc, &err);
}

void memory_history(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(timeline_closep) timeline *memory = NULL;
    _cleanup_(which_dispose) which file = WHICH_INIT;
    memfs_str agent_id = reply_agent_id(rq, &p), before = MEMFS_STR("");
    int64_t limit = params_limit(&p, 50);
    versions_page page = { .limit =
                               limit == 0 || limit > MAX_COMMITS ? MAX_COMMITS : (size_t)limit };
    memfs_oid start;

    which_read(&file, &p);
    (void)params_text(&p, "before", &before);
    if (!reply_params_good(rq, &p) || !which_good(rq, &file) ||
        !open_timeline(rq, ctx, agent_id, &memory) || !find_before(rq, memory, before, &start))
        return;
    page.before = before.len > 0 ? &start : NULL;
    page.path = file.path;
    answer_history(rq, ctx, memory, &page);
}

/* ---- GET memory/diff ---- */

typedef struct diff_writer {
    json_writer w;
    int64_t n_added, n_removed;
    bool is_cut;
} diff_writer;

static const char *status_name(char status)
{
    return status == 'A'   ? "added"
           : status == 'D' ? "deleted"
           : status == 'R' ? "renamed"
                           : "modified";
}

static memfs_code write_file(const compare_file *f, void *ctx, memfs_error *err)
{
    diff_writer *dw = ctx;
    json_writer *w = &dw->w;

    dw->n_added += (int64_t)f->n_added;
    dw->n_removed += (int64_t)f->n_removed;
    dw->is_cut = dw->is_cut || f->is_cut;
    jw_object(w);
    jw_key_text(w, "status", status_name(f->status));
    jw_key_text(w, "path", f->path);
    jw_key_text(w, "old_path", f->old_path);
    write_id(w, "blob", &f->blob);
    write_id(w, "old_blob", &f->old_blob);
    jw_key_bool(w, "binary", f->is_binary);
    jw_key_int(w, "additions", (int64_t)f->n_added);
    jw_key_int(w, "deletions", (int64_t)f->n_removed);
    if (f->patch.len > 0)
        jw_key_str(w, "patch", f->patch);
    else
        jw_key_null(w, "patch");
    jw_key_bool(w, "truncated", f->is_cut);
    jw_object_end(w);
    return buf_check(w->out, "the answer", err);
}

/* What `to` itself changed, where nothing else was named: its first parent; of a root, nothing. */
static memfs_code first_parent(timeline *p, const memfs_oid *to, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    memfs_code rc = repo_commit_info(timeline_repo(p), to, &info, err);

    *ret = rc == MEMFS_OK && info.n_parents > 0 ? info.parents[0] : (memfs_oid){ { 0 } };
    return rc;
}

static void answer_diff(http_request *rq, app *self, timeline *p, const memfs_oid *from,
                        const memfs_oid *to, memfs_str only, bool wants_patch)
{
    diff_writer dw = { .w = JSON_WRITER_INIT(http_out(rq)) };
    compare_grant grant = { .read_bytes = MAX_READ_BYTES,
                            .wants_patch = wants_patch,
                            .patch_bytes = MAX_PATCH_BYTES };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc;

    jw_object(&dw.w);
    write_id(&dw.w, "from", from);
    write_id(&dw.w, "to", to);
    jw_key(&dw.w, "files");
    jw_array(&dw.w);
    rc = compare_commits(timeline_repo(p), oid_is_zero(from) ? NULL : from, to, only,
                         &home_settings(self->home)->policy, &grant, write_file, &dw, &err);
    jw_array_end(&dw.w);
    jw_key_int(&dw.w, "additions", dw.n_added);
    jw_key_int(&dw.w, "deletions", dw.n_removed);
    jw_key_bool(&dw.w, "truncated", dw.is_cut);
    jw_object_end(&dw.w);
    end(rq, p, rc, &err);
}

void memory_diff(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(timeline_closep) timeline *memory = NULL;
    _cleanup_(which_dispose) which file = WHICH_INIT;
    memfs_str agent_id = reply_agent_id(rq, &p), from_text = MEMFS_STR(""), to_text = from_text;
    bool wants_patch = params_bool(&p, "patch", true);
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_oid from, to;

    which_read(&file, &p);
    (void)params_text(&p, "from", &from_text);
    (void)params_text(&p, "to", &to_text);
    if (!reply_params_good(rq, &p) || !which_good(rq, &file) ||
        !open_timeline(rq, ctx, agent_id, &memory))
        return;
    to = *timeline_main(memory);
    if (!find_commit(rq, memory, to_text, &to))
        return;
    if (from_text.len == 0 && first_parent(memory, &to, &from, &err) < 0)
        end(rq, memory, err.code, &err);
    else if (find_commit(rq, memory, from_text, &from))
        answer_diff(rq, ctx, memory, &from, &to, file.path, wants_patch);
}

/* ---- GET memory/at/{commit}/blocks ---- */

void memory_at(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(timeline_closep) timeline *memory = NULL;
    memfs_str agent_id = reply_agent_id(rq, &p), label = MEMFS_STR("");
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_oid commit;
    memfs_code rc;

    (void)params_text(&p, "label", &label);
    if (!reply_params_good(rq, &p) || !open_timeline(rq, ctx, agent_id, &memory) ||
        !find_commit(rq, memory, http_param(rq, "commit"), &commit))
        return;
    jw_array(&w);
    rc = timeline_blocks(memory, &commit, label, reply_write_block, &w, &err);
    jw_array_end(&w);
    end(rq, memory, rc, &err);
}

/* ---- POST memory/revert ---- */

typedef struct reverting {
    memfs_str agent_id, commit, expected;
    which file;
    recompile_when recompile;
    memfs_buf what; /* the subject's middle */
} reverting;

static void reverting_dispose(reverting *r)
{
    which_dispose(&r->file);
    buf_dispose(&r->what);
}

static void name_what(reverting *r)
{
    memfs_str name = r->file.label.len > 0 ? r->file.label : r->file.path;
    char shown[160];

    if (name.len == 0) {
        buf_puts(&r->what, "the memory");
        return;
    }
    buf_printf(&r->what, "%s'%s'", r->file.label.len > 0 ? "block " : "",
               escape_text(name, shown, sizeof(shown)));
}

static void read_revert(body *b, reverting *r)
{
    (void)body_text(b, "commit", BODY_NEEDED, &r->commit);
    (void)body_text(b, "label", BODY_NULLABLE, &r->file.label);
    (void)body_text(b, "path", BODY_NULLABLE, &r->file.path);
    (void)body_version(b, "expected_version", &r->expected);
}

/* The commit that main is at now, as it is in the history. */
static void answer_reverted(http_request *rq, app *self, const reverting *r, const edit_result *e)
{
    _cleanup_(timeline_closep) timeline *p = NULL;
    commit_writer cw;
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = timeline_open(self->home, r->agent_id, &p, &err);

    if (rc < 0) {
        reply_agent_failed(rq, r->agent_id, &err);
        return;
    }
    cw = commit_writer_for(rq, p);
    jw_object(&cw.w);
    jw_key_bool(&cw.w, "changed", e->moved);
    write_id(&cw.w, "previous_sha", &e->before);
    jw_key(&cw.w, "commit");
    rc = versions_one(timeline_repo(p), &e->tip, &home_settings(self->home)->policy, write_commit,
                      &cw, &err);
    jw_object_end(&cw.w);
    end(rq, p, rc, &err);
}

static void revert(http_request *rq, app *self, reverting *r)
{
    author room;
    author_reason reason;
    const store_identity who = author_of(rq, &room);
    const edit_options o = { .who = &who, .read_only = author_read_only(rq), .why = "revert" };
    timeline_revert what = { .commit = r->commit, .path = r->file.path, .expected = r->expected };
    memfs_error err = MEMFS_ERROR_INIT;
    bool is_unclear = false;
    edit_result result;
    memfs_code rc;

    name_what(r);
    author_reason_of(rq, &reason);
    what.what = r->what.ptr;
    what.reason = reason.text;
    rc = timeline_bring_back(self->home, r->agent_id, &what, &o, &result, &is_unclear, &err);
    if (is_unclear) { /* F05 */
        http_send_detail(rq, 503,
                         "What became of this revert is not known: read the history before "
                         "you try again");
    } else if (rc < 0) {
        http_send_error(rq, &err);
    } else {
        recompile_prompt(self, rq, r->agent_id, r->recompile);
        answer_reverted(rq, self, r, &result);
    }
}

void memory_revert(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(body_dispose) body b = BODY_INIT;
    _cleanup_(reverting_dispose) reverting r = { .agent_id = reply_agent_id(rq, &p),
                                                 .expected = reply_if_match_commit(rq),
                                                 .file = WHICH_INIT,
                                                 .recompile = recompile_read(&p),
                                                 .what = MEMFS_BUF_INIT(1024) };

    if (body_read(&b, &p, http_body(rq)))
        read_revert(&b, &r);
    if (reply_params_good(rq, &p) && which_good(rq, &r.file) && reply_agent(rq, ctx, r.agent_id))
        revert(rq, ctx, &r);
}
