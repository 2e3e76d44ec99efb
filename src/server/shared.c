#include "server/shared.h"

#include "base/clock.h"
#include "base/escape.h"
#include "server/body.h"
#include "server/reply.h"
#include "server/shape.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- what went wrong ---- */

void shared_send(http_request *rq, int status, const char *fmt, ...)
{
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (status == 409)
        http_set_header(rq, "x-should-retry", "false");
    buf_clear(http_out(rq));
    jw_object(&w);
    jw_key_text(&w, "message", text);
    jw_key_text(&w, "detail", text);
    jw_object_end(&w);
    http_send(rq, status, "application/json");
}

void shared_send_error(http_request *rq, const memfs_error *err)
{
    int status = err->code == MEMFS_EINVALID ? 422 : http_status_of(err->code);

    if (status >= 500)
        http_send_error(rq, err); /* it logs them, and tells what may be told */
    else
        shared_send(rq, status, "%s", err->msg);
}

void shared_send_missing(http_request *rq)
{
    shared_send(rq, 404, "Repository not found");
}

/* ---- which one, and may it be ---- */

typedef struct looking {
    memfs_str id, name; /* one of the two */
    bool is_found;
    shared_target *ret;
} looking;

static void keep(looking *l, memfs_str id, memfs_str name, bool may_write)
{
    l->is_found = true;
    l->ret->may_write = may_write;
    snprintf(l->ret->id, sizeof(l->ret->id), "%.*s", (int)id.len, id.ptr);
    snprintf(l->ret->name, sizeof(l->ret->name), "%.*s", (int)name.len, name.ptr);
}

static memfs_code take_repo(const shared_repo *row, void *ctx, memfs_error *err)
{
    (void)err;
    keep(ctx, row->id, row->name, true);
    return MEMFS_OK;
}

static memfs_code take_link(const shared_link *row, void *ctx, memfs_error *err)
{
    looking *l = ctx;

    (void)err;
    if (l->id.len > 0 ? str_equal(row->repo_id, l->id) : str_equal(row->name, l->name))
        keep(l, row->repo_id, row->name, row->may_write);
    return MEMFS_OK;
}

/* Of an agent that is deleted no link opens anything, until it is brought back. */
static memfs_code links_of(home *h, memfs_str agent_id, shared_link_fn fn, void *ctx,
                           memfs_error *err)
{
    return home_is_deleted(h, agent_id) ? MEMFS_OK
                                        : state_shared_links(home_state(h), agent_id, fn, ctx, err);
}

static memfs_code look_up(app *self, memfs_str agent_id, looking *l, memfs_error *err)
{
    const shared_query one = { .id = l->id };

    if (agent_id.len > 0)
        return links_of(self->home, agent_id, take_link, l, err);
    return ids_is_shared(l->id)
               ? state_shared_repos(home_state(self->home), &one, take_repo, l, err)
               : MEMFS_OK;
}

/* agent_id: by whose links; "" for all that there are. */
static bool find(http_request *rq, app *self, memfs_str agent_id, bool is_writing, looking *l)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (look_up(self, agent_id, l, &err) < 0) {
        http_send_error(rq, &err);
        return false;
    }
    if (!l->is_found) {
        shared_send_missing(rq);
        return false;
    }
    if (l->ret->may_write || !is_writing)
        return true;
    shared_send(rq, 403, "The link of this agent to '%s' is for reading only", l->ret->name);
    return false;
}

/* By whose links the caller may; "": by nobody's, the gate has asked for the rest. */
static memfs_str linked_agent(const http_request *rq)
{
#ifdef MEMFS_SABOTAGE_AUTH /* as in auth.c */
    (void)rq;
    return MEMFS_STR("");
#else
    memfs_str own = app_own_agent(rq);

    return ids_is_agent(own) ? own : MEMFS_STR("");
#endif
}

bool shared_find(http_request *rq, app *self, shared_target *ret)
{
    looking l = { .id = http_param(rq, "repository"), .ret = ret };

    return find(rq, self, linked_agent(rq), http_method_of(rq) != HTTP_GET, &l);
}

bool shared_find_git(http_request *rq, app *self, bool is_push, shared_target *ret)
{
    memfs_str agent_id = http_param(rq, "agent"), name = http_param(rq, "name");
    looking l = { .id = agent_id, .ret = ret };

    if (name.len == 0)
        return find(rq, self, MEMFS_STR(""), is_push, &l);
    l.id = MEMFS_STR("");
    if (str_ends_with(name, MEMFS_STR(".git")))
        l.name = str_make(name.ptr, name.len - strlen(".git"));
    if (ids_is_agent(agent_id))
        return find(rq, self, agent_id, is_push, &l);
    shared_send_missing(rq);
    return false;
}

/* ---- GET /v1/repositories ---- */

#define DEFAULT_LIMIT 50

typedef struct listing {
    json_writer w;
    int64_t offset, limit; /* 0: no limit */
    int64_t n;             /* that came by */
    bool wants_deleted;
    home *home;
    memfs_str agent_id;
} listing;

static bool is_on_page(listing *l)
{
    int64_t at = l->n++;

    return at >= l->offset && (l->limit == 0 || at - l->offset < l->limit);
}

static memfs_code list_repo(const shared_repo *row, void *ctx, memfs_error *err)
{
    listing *l = ctx;

    if (is_on_page(l))
        shape_repository(&l->w, row);
    return buf_check(l->w.out, "the answer", err);
}

static memfs_code list_deleted(const shared_repo *row, void *ctx, memfs_error *err)
{
    return row->deleted_at_us != 0 ? list_repo(row, ctx, err) : MEMFS_OK;
}

static memfs_code list_linked(const shared_link *row, void *ctx, memfs_error *err)
{
    listing *l = ctx;
    const shared_query one = { .id = row->repo_id };

    return state_shared_repos(home_state(l->home), &one, list_repo, l, err);
}

/* An agent's token is shown what its agent has links to, a repository's that one. */
static memfs_code list(const http_request *rq, listing *l, memfs_error *err)
{
    memfs_str own = app_own_agent(rq);
    state *s = home_state(l->home);
    shared_query q = { .id = own };

    if (l->wants_deleted) { /* for whoever may bring them back */
        q.with_deleted = true;
        return own.len > 0 ? MEMFS_OK : state_shared_repos(s, &q, list_deleted, l, err);
    }
    if (ids_is_agent(own))
        return links_of(l->home, own, list_linked, l, err);
    if (own.len == 0) { /* one more than the page says whether there is another */
        q.offset = l->offset;
        q.limit = l->limit > 0 && l->limit < INT64_MAX ? l->limit + 1 : 0;
        l->n = l->offset;
    }
    return state_shared_repos(s, &q, list_repo, l, err);
}

void repositories_list(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    app *self = ctx;
    listing l = { .w = JSON_WRITER_INIT(http_out(rq)), .home = self->home };
    memfs_error err = MEMFS_ERROR_INIT;

    l.limit = params_limit(&p, DEFAULT_LIMIT);
    l.wants_deleted = params_bool(&p, "deleted", false);
    l.offset = params_count(&p, "offset", 0);
    if (!reply_params_good(rq, &p))
        return;
    jw_object(&l.w);
    jw_key(&l.w, "repositories");
    jw_array(&l.w);
    if (list(rq, &l, &err) < 0) {
        shared_send_error(rq, &err);
        return;
    }
    jw_array_end(&l.w);
    jw_key_bool(&l.w, "has_next_page", l.limit > 0 && l.n - l.offset > l.limit);
    jw_object_end(&l.w);
    reply_json(rq);
}

/* ---- one of them ---- */

static memfs_code write_repo(const shared_repo *row, void *ctx, memfs_error *err)
{
    json_writer *w = ctx;

    (void)err;
    shape_repository(w, row);
    return MEMFS_OK;
}

static void answer_repo(http_request *rq, app *self, memfs_str id)
{
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    const shared_query one = { .id = id };
    memfs_error err = MEMFS_ERROR_INIT;

    if (state_shared_repos(home_state(self->home), &one, write_repo, &w, &err) < 0)
        shared_send_error(rq, &err);
    else if (http_out(rq)->len == 0)
        shared_send_missing(rq); /* it went a moment ago */
    else
        reply_json(rq);
}

void repository_get(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    shared_target repo;

    if (reply_params_good(rq, &p) && shared_find(rq, ctx, &repo))
        answer_repo(rq, ctx, str_of(repo.id));
}

/*
 * A row, and no more: until the first commit its memory is the genesis, which can be cloned
 * (client.md 8.2), as an agent's is.
 */
void repository_create(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(body_dispose) body b = BODY_INIT;
    int64_t now_us = clock_wall_us();
    char id[IDS_MAX_LEN + 1], shown[160];
    shared_repo row = { .org_id = MEMFS_STR(IDS_DEFAULT_ORG), .name = MEMFS_STR("") };
    memfs_error err = MEMFS_ERROR_INIT;
    const char *fault;
    app *self = ctx;

    if (body_read(&b, &p, http_body(rq)))
        (void)body_text(&b, "name", BODY_NEEDED, &row.name);
    if (!reply_params_good(rq, &p))
        return;
    fault = ids_shared_name_fault(row.name);
    if (fault != NULL) {
        shared_send(rq, 422, "'%s' cannot be a repository: the name %s",
                    escape_text(row.name, shown, sizeof(shown)), fault);
        return;
    }
    ids_new("repo", id);
    row.id = str_of(id);
    row.created_at_us = row.updated_at_us = now_us;
    if (state_shared_add(home_state(self->home), &row, &err) == MEMFS_OK)
        answer_repo(rq, self, row.id);
    else if (err.code == MEMFS_EEXISTS)
        shared_send(rq, 409, "%s: choose another name, or delete that one", err.msg);
    else
        shared_send_error(rq, &err);
}

void repository_delete(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    memfs_error err = MEMFS_ERROR_INIT;
    shared_target repo;
    app *self = ctx;

    if (!reply_params_good(rq, &p) || !shared_find(rq, self, &repo))
        return;
    if (state_shared_mark(home_state(self->home), str_of(repo.id), true, clock_wall_us(), &err) ==
            MEMFS_OK ||
        err.code == MEMFS_ENOTFOUND) { /* the second of two that came at once */
        buf_puts(http_out(rq), "{\"success\":true}");
        reply_json(rq);
        return;
    }
    shared_send_error(rq, &err);
}

void repository_restore(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    memfs_str id = http_param(rq, "repository");
    memfs_error err = MEMFS_ERROR_INIT;
    app *self = ctx;
    memfs_code rc = MEMFS_ENOTFOUND;

    if (!reply_params_good(rq, &p))
        return;
    if (ids_is_shared(id))
        rc = state_shared_mark(home_state(self->home), id, false, clock_wall_us(), &err);
    if (rc == MEMFS_OK)
        answer_repo(rq, self, id);
    else if (rc == MEMFS_ENOTFOUND)
        shared_send(rq, 404, "Repository not found, or it is not deleted");
    else if (rc == MEMFS_EEXISTS)
        shared_send(rq, 409, "%s: delete that one first", err.msg);
    else
        shared_send_error(rq, &err);
}

/* ---- links ---- */

static memfs_code list_link(const shared_link *row, void *ctx, memfs_error *err)
{
    json_writer *w = ctx;

    shape_link(w, row);
    return buf_check(w->out, "the answer", err);
}

void agent_repositories(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    memfs_str id = reply_agent_id(rq, &p);
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    memfs_error err = MEMFS_ERROR_INIT;
    app *self = ctx;

    if (!reply_params_good(rq, &p) || reply_put_off(rq, self) || !reply_agent_or_new(rq, self, id))
        return;
    jw_object(&w);
    jw_key(&w, "repositories");
    jw_array(&w);
    shape_own_repository(&w, id);
    if (state_shared_links(home_state(self->home), id, list_link, &w, &err) < 0) {
        shared_send_error(rq, &err);
        return;
    }
    jw_array_end(&w);
    jw_object_end(&w);
    reply_json(rq);
}

static const char *const PERMISSIONS[] = { "read", "read_write", NULL };

/* What is not said stays as it is; of a new link it is all. */
static void attach(http_request *rq, app *self, memfs_str agent_id, memfs_str repo_id,
                   const bool *may_write)
{
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    state *s = home_state(self->home);
    shared_target repo, old;
    looking l = { .id = repo_id, .ret = &repo }, linked = { .id = repo_id, .ret = &old };
    shared_link row = { .agent_id = agent_id,
                        .repo_id = repo_id,
                        .may_write = true,
                        .created_at_us = clock_wall_us() };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc;

    if (!find(rq, self, MEMFS_STR(""), false, &l))
        return;
    rc = look_up(self, agent_id, &linked, &err);
    if (linked.is_found)
        row.may_write = old.may_write;
    if (may_write != NULL)
        row.may_write = *may_write;
    if (rc == MEMFS_OK)
        rc = state_shared_link(s, &row, &err);
    if (rc < 0) {
        shared_send_error(rq, &err);
        return;
    }
    row.name = str_of(repo.name);
    jw_object(&w);
    jw_key_bool(&w, "success", true);
    jw_key(&w, "repository");
    shape_link(&w, &row);
    jw_object_end(&w);
    reply_json(rq);
}

void agent_repository_attach(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(body_dispose) body b = BODY_INIT;
    memfs_str id = reply_agent_id(rq, &p), repo_id = MEMFS_STR("");
    bool is_said = false, may_write;
    size_t chosen = 0;

    if (body_read(&b, &p, http_body(rq))) {
        (void)body_text(&b, "repository_id", BODY_NEEDED, &repo_id);
        is_said = body_choice(&b, "permissions", BODY_NULLABLE, PERMISSIONS, &chosen);
    }
    if (!reply_params_good(rq, &p) || !reply_agent_or_new(rq, ctx, id))
        return;
    may_write = chosen == 1;
    attach(rq, ctx, id, repo_id, is_said ? &may_write : NULL);
}

void agent_repository_detach(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    memfs_str id = reply_agent_id(rq, &p);
    memfs_error err = MEMFS_ERROR_INIT;
    app *self = ctx;
    memfs_code rc;

    if (!reply_params_good(rq, &p) || !reply_agent_or_new(rq, self, id))
        return;
    rc = state_shared_unlink(home_state(self->home), id, http_param(rq, "repository"), &err);
    if (rc == MEMFS_ENOTFOUND) {
        shared_send(rq, 404, "Repository link not found");
        return;
    }
    if (rc < 0) {
        shared_send_error(rq, &err);
        return;
    }
    buf_puts(http_out(rq), "{\"success\":true}");
    reply_json(rq);
}
