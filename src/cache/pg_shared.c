#include "cache/pg_state.h"

/* Shared repositories and their links; see sqlite_state_shared.c. */

enum {
    KEY_REPOS = KEY_SHARED_FIRST,
    KEY_REPO,
    KEY_REPO_ADD,
    KEY_REPO_DELETE,
    KEY_REPO_RESTORE,
    KEY_LINKS,
    KEY_LINKS_ALL,
    KEY_LINK_PUT,
    KEY_LINK_REMOVE,
};

#define REPO_SELECT                                                                                \
    "SELECT repo_id, org_id, name, created_at, updated_at, deleted_at FROM shared_repos "          \
    "WHERE ($1 OR deleted_at = 0)"
#define LINK_SELECT                                                                                \
    "SELECT l.agent_id, l.repo_id, r.name, l.may_write, r.deleted_at <> 0, l.created_at "          \
    "FROM shared_links l JOIN shared_repos r ON r.repo_id = l.repo_id"

/* ---- repositories ---- */

static memfs_code repos(state *s, const shared_query *q, shared_repo_fn fn, void *ctx,
                        memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_REPOS, REPO_SELECT " ORDER BY created_at, repo_id LIMIT $2 OFFSET $3");
    memfs_code rc;

    pg_arg_bool(&f.args, q->with_deleted);
    if (q->id.len > 0) {
        f.key = KEY_REPO;
        f.sql = REPO_SELECT " AND repo_id = $2";
        pg_arg_text(&f.args, q->id);
    } else {
        pg_arg_int(&f.args, q->limit > 0 ? q->limit : INT64_MAX);
        pg_arg_int(&f.args, q->offset);
    }
    rc = pg_fetch_run(s, &f, err);
    for (int at = 0; rc == MEMFS_OK && at < f.result.n_rows; at++) {
        shared_repo row = { .id = pg_col_str(&f.result, at, 0),
                            .org_id = pg_col_str(&f.result, at, 1),
                            .name = pg_col_str(&f.result, at, 2),
                            .created_at_us = pg_col_int(&f.result, at, 3),
                            .updated_at_us = pg_col_int(&f.result, at, 4),
                            .deleted_at_us = pg_col_int(&f.result, at, 5) };

        rc = fn(&row, ctx, err);
    }
    return rc;
}

/* Done twice, it is there already, which is as good. */
static memfs_code add(state *s, const shared_repo *row, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(
        KEY_REPO_ADD,
        "WITH put AS (INSERT INTO shared_repos(repo_id, org_id, name, created_at, updated_at, "
        "deleted_at) VALUES($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING 1) "
        "SELECT 1 FROM put UNION ALL SELECT 1 FROM shared_repos WHERE repo_id = $1");
    memfs_code rc;

    pg_arg_text(&f.args, row->id);
    pg_arg_text(&f.args, row->org_id);
    pg_arg_text(&f.args, row->name);
    pg_arg_int(&f.args, row->created_at_us);
    pg_arg_int(&f.args, row->updated_at_us);
    pg_arg_int(&f.args, row->deleted_at_us);
    rc = pg_fetch_run(s, &f, err);
    if (rc < 0 || f.result.n_rows > 0)
        return rc;
    return memfs_fail(err, MEMFS_EEXISTS, "another repository is called '%.*s'", (int)row->name.len,
                      row->name.ptr);
}

/* The same time again is the same call again, after a COMMIT whose answer was lost. */
static memfs_code mark(state *s, memfs_str id, bool is_deleted, int64_t now_us, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(
        KEY_REPO_DELETE, "UPDATE shared_repos SET deleted_at = $2, updated_at = $2 "
                         "WHERE repo_id = $1 AND (deleted_at = 0 OR deleted_at = $2)");
    memfs_code rc;

    if (!is_deleted) {
        f.key = KEY_REPO_RESTORE;
        f.sql = "UPDATE shared_repos SET deleted_at = 0, updated_at = $2 "
                "WHERE repo_id = $1 AND (deleted_at <> 0 OR updated_at = $2)";
    }
    pg_arg_text(&f.args, id);
    pg_arg_int(&f.args, now_us);
    rc = pg_fetch_run(s, &f, err);
    if (rc == MEMFS_EEXISTS)
        return memfs_fail(err, rc, "another repository has its name by now");
    if (rc < 0 || f.result.n_changed > 0)
        return rc;
    return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such repository");
}

/* ---- links ---- */

static memfs_code links(state *s, memfs_str agent_id, shared_link_fn fn, void *ctx,
                        memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_LINKS_ALL, LINK_SELECT " ORDER BY l.agent_id, l.repo_id");
    memfs_code rc;

    if (agent_id.len > 0) {
        f.key = KEY_LINKS;
        f.sql = LINK_SELECT " WHERE l.agent_id = $1 AND r.deleted_at = 0 "
                            "ORDER BY l.created_at, l.repo_id";
        pg_arg_text(&f.args, agent_id);
    }
    rc = pg_fetch_run(s, &f, err);
    for (int at = 0; rc == MEMFS_OK && at < f.result.n_rows; at++) {
        shared_link row = { .agent_id = pg_col_str(&f.result, at, 0),
                            .repo_id = pg_col_str(&f.result, at, 1),
                            .name = pg_col_str(&f.result, at, 2),
                            .may_write = pg_col_int(&f.result, at, 3) != 0,
                            .is_deleted = pg_col_int(&f.result, at, 4) != 0,
                            .created_at_us = pg_col_int(&f.result, at, 5) };

        rc = fn(&row, ctx, err);
    }
    return rc;
}

static memfs_code link_put(state *s, const shared_link *row, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(
        KEY_LINK_PUT,
        "INSERT INTO shared_links AS l(agent_id, repo_id, may_write, created_at) "
        "SELECT $1, $2, $3, $4 WHERE NOT EXISTS(SELECT FROM shared_links o WHERE o.agent_id = $1 "
        "AND o.repo_id = $2 AND o.may_write = $3) ON CONFLICT(agent_id, repo_id) DO UPDATE "
        "SET may_write = excluded.may_write");

    pg_arg_text(&f.args, row->agent_id);
    pg_arg_text(&f.args, row->repo_id);
    pg_arg_bool(&f.args, row->may_write);
    pg_arg_int(&f.args, row->created_at_us);
    return pg_fetch_run(s, &f, err);
}

static memfs_code unlink_one(state *s, memfs_str agent_id, memfs_str repo_id, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(
        KEY_LINK_REMOVE, "DELETE FROM shared_links WHERE agent_id = $1 AND repo_id = $2");
    memfs_code rc;

    pg_arg_text(&f.args, agent_id);
    pg_arg_text(&f.args, repo_id);
    rc = pg_fetch_run(s, &f, err);
    if (rc < 0 || f.result.n_changed > 0)
        return rc;
    return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such link");
}

const state_shared_backend PG_SHARED = {
    .repos = repos,
    .add = add,
    .mark = mark,
    .links = links,
    .link = link_put,
    .unlink = unlink_one,
};
