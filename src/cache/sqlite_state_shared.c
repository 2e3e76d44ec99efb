#include "cache/sqlite_state_int.h"

/* Shared repositories and their links.  Rows are few; each write is one transaction. */

enum {
    KEY_REPOS = KEY_SHARED_FIRST,
    KEY_REPO,
    KEY_REPO_NAMED,
    KEY_REPO_ADD,
    KEY_REPO_MARK,
    KEY_LINKS,
    KEY_LINKS_ALL,
    KEY_LINK_PUT,
    KEY_LINK_REMOVE,
    KEY_CHANGES,
};

#define REPO_SELECT                                                                                \
    "SELECT repo_id, org_id, name, created_at, updated_at, deleted_at FROM shared_repos "          \
    "WHERE (?1 OR deleted_at = 0)"
#define LINK_SELECT                                                                                \
    "SELECT l.agent_id, l.repo_id, r.name, l.may_write, r.deleted_at <> 0, l.created_at "          \
    "FROM shared_links l JOIN shared_repos r ON r.repo_id = l.repo_id"

const char *const SQLITE_SHARED_SQL[] = {
    [KEY_REPOS - KEY_SHARED_FIRST] = REPO_SELECT " ORDER BY created_at, repo_id LIMIT ?3 OFFSET ?4",
    [KEY_REPO - KEY_SHARED_FIRST] = REPO_SELECT " AND repo_id = ?2",
    [KEY_REPO_NAMED - KEY_SHARED_FIRST] =
        "SELECT repo_id FROM shared_repos WHERE repo_id = ?1 OR (org_id = ?2 AND "
        "lower(name) = lower(?3) AND deleted_at = 0) ORDER BY repo_id <> ?1 LIMIT 1",
    [KEY_REPO_ADD - KEY_SHARED_FIRST] =
        "INSERT INTO shared_repos(repo_id, org_id, name, created_at, updated_at, deleted_at) "
        "VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    [KEY_REPO_MARK - KEY_SHARED_FIRST] =
        "UPDATE shared_repos SET deleted_at = ?2, updated_at = ?3 WHERE repo_id = ?1",
    [KEY_LINKS - KEY_SHARED_FIRST] =
        LINK_SELECT " WHERE l.agent_id = ?1 AND r.deleted_at = 0 ORDER BY l.created_at, l.repo_id",
    [KEY_LINKS_ALL - KEY_SHARED_FIRST] = LINK_SELECT " ORDER BY l.agent_id, l.repo_id",
    [KEY_LINK_PUT - KEY_SHARED_FIRST] =
        "INSERT INTO shared_links(agent_id, repo_id, may_write, created_at) VALUES(?1, ?2, ?3, ?4) "
        "ON CONFLICT(agent_id, repo_id) DO UPDATE SET may_write = excluded.may_write "
        "WHERE may_write <> excluded.may_write",
    [KEY_LINK_REMOVE - KEY_SHARED_FIRST] =
        "DELETE FROM shared_links WHERE agent_id = ?1 AND repo_id = ?2",
    [KEY_CHANGES - KEY_SHARED_FIRST] = "SELECT changes()",
};

/* ---- repositories ---- */

static shared_repo repo_of(const sqlite_query *q)
{
    return (shared_repo){ .id = sqlite_col_str(q, 0),
                          .org_id = sqlite_col_str(q, 1),
                          .name = sqlite_col_str(q, 2),
                          .created_at_us = sqlite_col_int(q, 3),
                          .updated_at_us = sqlite_col_int(q, 4),
                          .deleted_at_us = sqlite_col_int(q, 5) };
}

static void bind_repos(sqlite_query *s, const shared_query *q)
{
    sqlite_bind_int(s, 1, q->with_deleted);
    if (q->id.len > 0) {
        sqlite_bind_str(s, 2, q->id);
        return;
    }
    sqlite_bind_int(s, 3, q->limit > 0 ? q->limit : -1);
    sqlite_bind_int(s, 4, q->offset);
}

static memfs_code repos(state *base, const shared_query *q, shared_repo_fn fn, void *ctx,
                        memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    bool is_row = false;
    shared_repo row;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, q->id.len > 0 ? KEY_REPO : KEY_REPOS, &s, err);
    if (rc < 0)
        return rc;
    bind_repos(&s, q);
    for (;;) {
        rc = sqlite_step(&s, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        row = repo_of(&s);
        rc = fn(&row, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
}

/* EEXISTS: another one has the name.  *ret_is_there: this one is there. */
static memfs_code check_name(sqlite_conn *c, const shared_repo *row, bool *ret_is_there,
                             memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc = sqlite_query_get(c, KEY_REPO_NAMED, &s, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, row->id);
    sqlite_bind_str(&s, 2, row->org_id);
    sqlite_bind_str(&s, 3, row->deleted_at_us == 0 ? row->name : MEMFS_STR(""));
    rc = sqlite_step(&s, &is_row, err);
    *ret_is_there = is_row && str_equal(sqlite_col_str(&s, 0), row->id);
    if (rc == MEMFS_OK && is_row && !*ret_is_there)
        return memfs_fail(err, MEMFS_EEXISTS, "another repository is called '%.*s'",
                          (int)row->name.len, row->name.ptr);
    return rc;
}

static memfs_code add_within(sqlite_conn *c, const shared_repo *row, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    bool is_there = false;
    memfs_code rc = check_name(c, row, &is_there, err);

    if (rc < 0 || is_there)
        return rc;
    rc = sqlite_query_get(c, KEY_REPO_ADD, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, row->id);
    sqlite_bind_str(&s, 2, row->org_id);
    sqlite_bind_str(&s, 3, row->name);
    sqlite_bind_int(&s, 4, row->created_at_us);
    sqlite_bind_int(&s, 5, row->updated_at_us);
    sqlite_bind_int(&s, 6, row->deleted_at_us);
    return sqlite_run(&s, err);
}

static memfs_code add(state *base, const shared_repo *row, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc = sqlite_write_begin(sqlite_state_db(base), &c, err);

    return rc < 0 ? rc : sqlite_write_end(c, add_within(c, row, err), err);
}

/* Is it there, and as it must be to be marked?  Its name, if it is wanted back, must be free. */
static memfs_code check_mark(sqlite_conn *c, memfs_str id, bool is_deleted, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    bool is_row = false, is_other = false;
    shared_repo row;
    memfs_code rc = sqlite_query_get(c, KEY_REPO, &s, err);

    if (rc < 0)
        return rc;
    bind_repos(&s, &(shared_query){ .id = id, .with_deleted = true });
    rc = sqlite_step(&s, &is_row, err);
    if (rc < 0)
        return rc;
    if (!is_row || (sqlite_col_int(&s, 5) != 0) == is_deleted)
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such repository");
    row = repo_of(&s);
    row.id = MEMFS_STR("");
    row.deleted_at_us = 0;
    return is_deleted ? MEMFS_OK : check_name(c, &row, &is_other, err);
}

static memfs_code mark_within(sqlite_conn *c, memfs_str id, bool is_deleted, int64_t now_us,
                              memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = check_mark(c, id, is_deleted, err);

    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_REPO_MARK, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, id);
    sqlite_bind_int(&s, 2, is_deleted ? now_us : 0);
    sqlite_bind_int(&s, 3, now_us);
    return sqlite_run(&s, err);
}

static memfs_code mark(state *base, memfs_str id, bool is_deleted, int64_t now_us, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc = sqlite_write_begin(sqlite_state_db(base), &c, err);

    return rc < 0 ? rc : sqlite_write_end(c, mark_within(c, id, is_deleted, now_us, err), err);
}

/* ---- links ---- */

static memfs_code links(state *base, memfs_str agent_id, shared_link_fn fn, void *ctx,
                        memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, agent_id.len > 0 ? KEY_LINKS : KEY_LINKS_ALL, &s, err);
    if (rc < 0)
        return rc;
    if (agent_id.len > 0)
        sqlite_bind_str(&s, 1, agent_id);
    for (;;) {
        rc = sqlite_step(&s, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        shared_link row = { .agent_id = sqlite_col_str(&s, 0),
                            .repo_id = sqlite_col_str(&s, 1),
                            .name = sqlite_col_str(&s, 2),
                            .may_write = sqlite_col_int(&s, 3) != 0,
                            .is_deleted = sqlite_col_int(&s, 4) != 0,
                            .created_at_us = sqlite_col_int(&s, 5) };

        rc = fn(&row, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
}

static memfs_code link_within(sqlite_conn *c, const shared_link *row, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_LINK_PUT, &s, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, row->agent_id);
    sqlite_bind_str(&s, 2, row->repo_id);
    sqlite_bind_int(&s, 3, row->may_write);
    sqlite_bind_int(&s, 4, row->created_at_us);
    return sqlite_run(&s, err);
}

static memfs_code link_put(state *base, const shared_link *row, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc = sqlite_write_begin(sqlite_state_db(base), &c, err);

    return rc < 0 ? rc : sqlite_write_end(c, link_within(c, row, err), err);
}

static memfs_code unlink_within(sqlite_conn *c, memfs_str agent_id, memfs_str repo_id,
                                memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    _cleanup_(sqlite_query_done) sqlite_query n = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc = sqlite_query_get(c, KEY_LINK_REMOVE, &s, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, agent_id);
    sqlite_bind_str(&s, 2, repo_id);
    rc = sqlite_run(&s, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_CHANGES, &n, err);
    if (rc == MEMFS_OK)
        rc = sqlite_step(&n, &is_row, err);
    if (rc == MEMFS_OK && sqlite_col_int(&n, 0) == 0)
        rc = memfs_fail(err, MEMFS_ENOTFOUND, "there is no such link");
    return rc;
}

static memfs_code unlink_one(state *base, memfs_str agent_id, memfs_str repo_id, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc = sqlite_write_begin(sqlite_state_db(base), &c, err);

    return rc < 0 ? rc : sqlite_write_end(c, unlink_within(c, agent_id, repo_id, err), err);
}

const state_shared_backend SQLITE_SHARED = {
    .repos = repos,
    .add = add,
    .mark = mark,
    .links = links,
    .link = link_put,
    .unlink = unlink_one,
};
