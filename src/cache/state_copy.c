#include "cache/cache_int.h"

#include "base/fs.h"
#include "base/mem.h"

#include <stdlib.h>
#include <unistd.h>

/*
 * A state of any backend into one of any other: through the calls that everybody has, so a backup
 * does not depend on where it came from, and a restore may go anywhere.  What the other has stays,
 * and the same copy again changes nothing.
 *
 * Rows are read one kind after the other: what is written meanwhile may be in the copy or not, as
 * in any backup of a running server, but nothing points from one kind to another; but for links,
 * which come after the shared repositories that they name.
 */

typedef struct copying {
    state *from, *to;
} copying;

static memfs_code keep_birth(const state_birth *birth, void *ctx, memfs_error *err)
{
    memfs_buf *rows = ctx;
    state_birth own = *birth;

    (void)err;
    own.label.ptr = mem_strndup(birth->label.ptr, birth->label.len);
    own.tags_json.ptr = mem_strndup(birth->tags_json.ptr, birth->tags_json.len);
    own.block_id.ptr = mem_strndup(birth->block_id.ptr, birth->block_id.len);
    buf_add(rows, &own, sizeof(own));
    return MEMFS_OK;
}

static memfs_code copy_births(const copying *c, const state_agent *agent, memfs_error *err)
{
    memfs_buf rows = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    const state_birth *list;
    size_t n;
    memfs_code rc;

    rc = state_births(c->from, agent->id, MEMFS_STR(""), keep_birth, &rows, err);
    list = (const state_birth *)(const void *)rows.ptr;
    n = rows.len / sizeof(*list);
    if (rc == MEMFS_OK)
        rc = state_agent_merge(c->to, agent, list, n, err);
    for (size_t i = 0; i < n; i++) {
        free((char *)list[i].label.ptr);
        free((char *)list[i].tags_json.ptr);
        free((char *)list[i].block_id.ptr);
    }
    buf_dispose(&rows);
    return rc;
}

static memfs_code copy_banned(const copying *c, memfs_str agent_id, memfs_error *err)
{
    _cleanup_(mem_freep) memfs_oid *ids = NULL;
    size_t n;
    memfs_code rc = state_banned(c->from, agent_id, &ids, &n, err);

    return rc < 0 ? rc : state_banned_add(c->to, agent_id, ids, n, err);
}

/* What is there already, beside the one that comes. */
typedef struct compared {
    const state_agent *with;
    bool is_same, is_deleted;
    int64_t version;
} compared;

static memfs_code compare_agent(const state_agent *row, void *ctx, memfs_error *err)
{
    compared *c = ctx;

    (void)err;
    c->version = row->version;
    c->is_deleted = row->deleted_at_us > 0;
    c->is_same = str_equal(row->fields_json, c->with->fields_json) &&
                 row->is_hidden == c->with->is_hidden;
    return MEMFS_OK;
}

/* One that is deleted on either side is deleted, with all that it is called and has. */
static memfs_code copy_fields(const copying *c, const state_agent *agent, memfs_error *err)
{
    const agent_query q = { .id = agent->id, .which = AGENTS_ALL, .with_fields = true };
    compared now = { .with = agent };
    state_agent own = *agent;
    bool ignored;
    memfs_code rc = state_agents(c->to, &q, compare_agent, &now, err);

    own.version = now.version;
    if (rc == MEMFS_OK && !now.is_same && !now.is_deleted &&
        (agent->fields_json.len > 0 || agent->is_hidden))
        rc = state_agent_put(c->to, &own, err);
    if (rc == MEMFS_OK && agent->deleted_at_us > 0)
        rc = state_agent_set_deleted(c->to, agent->id, agent->deleted_at_us, agent->updated_at_us,
                                     &ignored, err);
    return rc;
}

static memfs_code copy_agent(const state_agent *agent, void *ctx, memfs_error *err)
{
    const copying *c = ctx;
    memfs_code rc;

    rc = state_agent_add(c->to, agent->id, agent->org_id, agent->created_at_us, err);
    if (rc == MEMFS_OK)
        rc = copy_births(c, agent, err);
    if (rc == MEMFS_OK)
        rc = copy_fields(c, agent, err);
    return rc < 0 ? rc : copy_banned(c, agent->id, err);
}

static memfs_code copy_token(const state_token *token, void *ctx, memfs_error *err)
{
    memfs_code rc = state_token_add(((const copying *)ctx)->to, token, err);

    return rc == MEMFS_EEXISTS ? MEMFS_OK : rc;
}

static memfs_code copy_mirror(const state_mirror *row, void *ctx, memfs_error *err)
{
    return state_mirror_put(((const copying *)ctx)->to, row, err);
}

/* A name that another one has there: it comes as a deleted one, which can be brought back. */
static memfs_code copy_shared_repo(const shared_repo *row, void *ctx, memfs_error *err)
{
    state *to = ((const copying *)ctx)->to;
    shared_repo deleted = *row;
    memfs_code rc = state_shared_add(to, row, err);

    deleted.deleted_at_us = row->updated_at_us;
    return rc == MEMFS_EEXISTS ? state_shared_add(to, &deleted, err) : rc;
}

static memfs_code copy_shared_link(const shared_link *row, void *ctx, memfs_error *err)
{
    return state_shared_link(((const copying *)ctx)->to, row, err);
}

static memfs_code copy_shared(copying *c, memfs_error *err)
{
    const shared_query all = { .with_deleted = true };
    memfs_code rc = state_shared_repos(c->from, &all, copy_shared_repo, c, err);

    return rc < 0 ? rc : state_shared_links(c->from, MEMFS_STR(""), copy_shared_link, c, err);
}

/* One that the other has stays as it is there. */
static memfs_code note_doc(const state_doc *doc, void *ctx, memfs_error *err)
{
    (void)doc;
    (void)err;
    *(bool *)ctx = true;
    return MEMFS_OK;
}

static memfs_code copy_doc(const state_doc *doc, void *ctx, memfs_error *err)
{
    const copying *c = ctx;
    const state_doc own = { doc->kind, doc->id, doc->body, 0 };
    const state_change change = { .docs = &own, .n_docs = 1 };
    bool is_there = false;
    memfs_code rc = state_docs(c->to, doc->kind, doc->id, 0, note_doc, &is_there, err);

    return rc < 0 || is_there ? rc : state_change_apply(c->to, &change, err);
}

static memfs_code copy_docs(copying *c, memfs_error *err)
{
    static const char *const kinds[] = { "loose", "edit" };
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < ARRAY_LEN(kinds); i++)
        rc = state_docs(c->from, str_of(kinds[i]), MEMFS_STR(""), 0, copy_doc, c, err);
    return rc;
}

memfs_code state_copy_into(state *from, state *to, memfs_error *err)
{
    agent_query all = { .which = AGENTS_ALL, .with_fields = true, .with_shared = true };
    copying c = { from, to };
    memfs_code rc = state_agents(from, &all, copy_agent, &c, err);

    if (rc == MEMFS_OK)
        rc = state_tokens(from, copy_token, &c, err);
    if (rc == MEMFS_OK)
        rc = copy_docs(&c, err);
    if (rc == MEMFS_OK)
        rc = copy_shared(&c, err);
    return rc < 0 ? rc : state_mirrors(from, MEMFS_STR(""), MEMFS_STR(""), copy_mirror, &c, err);
}

/* Half a copy must not be taken for one. */
static void drop_half(const char *file)
{
    static const char *const parts[] = { "", "-wal", "-shm" };

    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s%s", file, parts[i]);

        (void)unlink(path);
    }
}

memfs_code state_copy_rows(state *s, const char *to, memfs_error *err)
{
    const char *slash = strrchr(to, '/');
    _cleanup_(mem_freep) char *folder = NULL;
    state *copy;
    memfs_code rc;

    if (slash == NULL || strcmp(slash, "/state.db") != 0)
        return memfs_fail(err, MEMFS_EINVALID, "a copy of the state is called state.db");
    if (fs_exists(to))
        return memfs_fail(err, MEMFS_EEXISTS, "'%s' is there already", to);
    folder = mem_strndup(to, (size_t)(slash - to));
    rc = state_open_sqlite(folder, &copy, err);
    if (rc < 0)
        return rc;
    rc = state_copy_into(s, copy, err);
    state_close(copy);
    if (rc < 0)
        drop_half(to);
    return rc;
}
