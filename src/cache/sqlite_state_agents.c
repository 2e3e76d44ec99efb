#include "cache/sqlite_shape.h"
#include "cache/sqlite_state_int.h"

/*
 * Agents of the state.  deleted_at tells what a row is: 0 it is there, positive it was deleted
 * then, -1 it was announced and is not made yet.  What the API was told of an agent beside its name
 * and tags may be long, so it has a table of its own that a walk over all agents does not pass
 * through.
 *
 * Lists: shapes as in sqlite_shape.h.
 */

enum list_bits {
    LIST_ID = 1 << 0,
    LIST_NAME = 1 << 1,
    LIST_LIKE_NAME = 1 << 2,
    LIST_ANY_TAG = 1 << 3,
    LIST_ALL_TAGS = 1 << 4,
    LIST_BEFORE = 1 << 5,
    LIST_AFTER = 1 << 6,
    LIST_DESCENDING = 1 << 7,
    LIST_LIMIT = 1 << 8,
    LIST_BY_UPDATED = 1 << 9,
    LIST_FIELDS = 1 << 10,
    LIST_NOT_HIDDEN = 1 << 11,
    LIST_DELETED = 1 << 12, /* neither: those that are there */
    LIST_BOTH = 1 << 13,
    LIST_AGENTS_ALONE = 1 << 14,
};

/* ---- the list's text ---- */

static void put_cursor(memfs_buf *out, bool is_updated, bool is_greater, bool is_before)
{
    buf_puts(out, is_updated ? " AND (updated_at, agent_id)" : " AND (created_at, agent_id)");
    buf_puts(out, is_greater ? " > " : " < ");
    buf_puts(out, is_before ? "(?6, ?7)" : "(?8, ?9)");
}

static void put_which(memfs_buf *out, uint32_t shape)
{
    if ((shape & LIST_DELETED) != 0)
        buf_puts(out, " AND deleted_at > 0");
    else
        buf_puts(out, (shape & LIST_BOTH) != 0 ? " AND deleted_at >= 0" : " AND deleted_at = 0");
}

static void put_order(memfs_buf *out, uint32_t shape)
{
    bool is_down = (shape & LIST_DESCENDING) != 0;

    buf_puts(out, (shape & LIST_BY_UPDATED) != 0 ? " ORDER BY updated_at" : " ORDER BY created_at");
    buf_puts(out, is_down ? " DESC, agent_id DESC" : ", agent_id");
    if ((shape & LIST_LIMIT) != 0)
        buf_puts(out, " LIMIT ?10");
}

void sqlite_agents_sql(uint32_t shape, memfs_buf *out)
{
    static const struct {
        uint32_t bit;
        const char *sql;
    } filters[] = {
        { LIST_ID, " AND agent_id = ?1" },
        { LIST_NAME, " AND name = ?2" },
        { LIST_LIKE_NAME, " AND memfs_contains(?3, name)" },
        { LIST_ANY_TAG, " AND EXISTS(SELECT 1 FROM json_each(agents.tags) t WHERE t.value IN "
                        "(SELECT value FROM json_each(?4)))" },
        { LIST_ALL_TAGS, " AND (SELECT count(DISTINCT t.value) FROM json_each(agents.tags) t WHERE "
                         "t.value IN (SELECT value FROM json_each(?4))) = ?5" },
        { LIST_NOT_HIDDEN, " AND hidden = 0" },
        { LIST_AGENTS_ALONE, " AND agent_id NOT GLOB 'repo-*'" },
    };
    bool is_down = (shape & LIST_DESCENDING) != 0, by_updated = (shape & LIST_BY_UPDATED) != 0;

    buf_puts(out,
             "SELECT agent_id, org_id, name, tags, created_at, updated_at, hidden, deleted_at, "
             "version, ");
    buf_puts(out, (shape & LIST_FIELDS) != 0
                      ? "ifnull((SELECT fields FROM agent_fields f WHERE "
                        "f.agent_id = agents.agent_id), '') FROM agents WHERE 1"
                      : "'' FROM agents WHERE 1");
    put_which(out, shape);
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        if ((shape & filters[i].bit) != 0)
            buf_puts(out, filters[i].sql);
    }
    if ((shape & LIST_BEFORE) != 0)
        put_cursor(out, by_updated, is_down, true);
    if ((shape & LIST_AFTER) != 0)
        put_cursor(out, by_updated, !is_down, false);
    put_order(out, shape);
}

static uint32_t list_shape(const agent_query *q, bool has_before, bool has_after)
{
    uint32_t shape = 0;

    shape |= q->id.len > 0 ? LIST_ID : 0;
    shape |= q->name.len > 0 ? LIST_NAME : 0;
    shape |= q->query_text.len > 0 ? LIST_LIKE_NAME : 0;
    if (q->n_tags > 0)
        shape |= q->match_all_tags ? LIST_ALL_TAGS : LIST_ANY_TAG;
    shape |= has_before ? LIST_BEFORE : 0;
    shape |= has_after ? LIST_AFTER : 0;
    shape |= q->by_updated ? LIST_BY_UPDATED : 0;
    shape |= q->with_fields ? LIST_FIELDS : 0;
    shape |= q->without_hidden ? LIST_NOT_HIDDEN : 0;
    shape |= q->which == AGENTS_DELETED ? LIST_DELETED : 0;
    shape |= q->which == AGENTS_ALL ? LIST_BOTH : 0;
    shape |= q->with_shared ? 0 : LIST_AGENTS_ALONE;
    shape |= q->descending ? LIST_DESCENDING : 0;
    shape |= q->limit > 0 ? LIST_LIMIT : 0;
    return shape;
}

/* ---- the list ---- */

static memfs_code find_cursor(sqlite_conn *c, memfs_str id, bool by_updated, bool *ret_is_set,
                              int64_t *ret_at_us, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc;

    *ret_is_set = false;
    if (id.len == 0)
        return MEMFS_OK;
    rc = sqlite_query_get(c, KEY_CURSOR, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, id);
    rc = sqlite_step(&s, ret_is_set, err);
    if (rc == MEMFS_OK && *ret_is_set)
        *ret_at_us = sqlite_col_int(&s, by_updated ? 1 : 0);
    return rc;
}

static memfs_code pass_agents(sqlite_query *s, state_agent_fn fn, void *ctx, memfs_error *err)
{
    bool is_row = false;
    memfs_code rc;

    for (;;) {
        rc = sqlite_step(s, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        state_agent agent = {
            .id = sqlite_col_str(s, 0),
            .org_id = sqlite_col_str(s, 1),
            .name = sqlite_col_str(s, 2),
            .tags_json = sqlite_col_str(s, 3),
            .created_at_us = sqlite_col_int(s, 4),
            .updated_at_us = sqlite_col_int(s, 5),
            .is_hidden = sqlite_col_int(s, 6) != 0,
            .deleted_at_us = sqlite_col_int(s, 7),
            .version = sqlite_col_int(s, 8),
            .fields_json = sqlite_col_str(s, 9),
        };
        rc = fn(&agent, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
}

static void bind_list(sqlite_query *s, uint32_t shape, const agent_query *q,
                      const like_pattern *pattern, const memfs_buf *tags)
{
    if (shape & LIST_ID)
        sqlite_bind_str(s, 1, q->id);
    if (shape & LIST_NAME)
        sqlite_bind_str(s, 2, q->name);
    if (shape & LIST_LIKE_NAME)
        sqlite_bind_like(s, 3, pattern);
    if (shape & (LIST_ANY_TAG | LIST_ALL_TAGS))
        sqlite_bind_str(s, 4, buf_str(tags));
    if (shape & LIST_ALL_TAGS)
        sqlite_bind_int(s, 5, (int64_t)q->n_tags);
    if (shape & LIST_LIMIT)
        sqlite_bind_int(s, 10, q->limit);
}

static void bind_list_cursor(sqlite_query *s, int first, int64_t at_us, memfs_str id)
{
    sqlite_bind_int(s, first, at_us);
    sqlite_bind_str(s, first + 1, id);
}

static memfs_code read_agents(sqlite_conn *c, const agent_query *q, const like_pattern *pattern,
                              const memfs_buf *tags, state_agent_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    int64_t before_us = 0, after_us = 0;
    bool has_before = false, has_after = false;
    uint32_t shape;
    memfs_code rc;

    rc = find_cursor(c, q->before, q->by_updated, &has_before, &before_us, err);
    if (rc == MEMFS_OK)
        rc = find_cursor(c, q->after, q->by_updated, &has_after, &after_us, err);
    if (rc < 0)
        return rc;
    shape = list_shape(q, has_before, has_after);
    rc = sqlite_query_get(c, SQLITE_AGENTS_KEY | shape, &s, err);
    if (rc < 0)
        return rc;
    bind_list(&s, shape, q, pattern, tags);
    if (has_before)
        bind_list_cursor(&s, 6, before_us, q->before);
    if (has_after)
        bind_list_cursor(&s, 8, after_us, q->after);
    return pass_agents(&s, fn, ctx, err);
}

memfs_code sqlite_agents(state *base, const agent_query *q, state_agent_fn fn, void *ctx,
                         memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(buf_dispose) memfs_buf tags = MEMFS_BUF_INIT(1 << 20);
    like_pattern pattern;
    memfs_code rc;

    rc = like_compile(q->query_text, &pattern, err);
    if (rc < 0)
        return rc;
    shape_tags(q->tags, q->n_tags, &tags);
    rc = buf_check(&tags, "the list of tags", err);
    if (rc == MEMFS_OK)
        rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    return rc < 0 ? rc : read_agents(c, q, &pattern, &tags, fn, ctx, err);
}

static memfs_code read_number(state *base, uint64_t key, int64_t *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, key, &s, err);
    if (rc == MEMFS_OK)
        rc = sqlite_step(&s, &is_row, err);
    if (rc == MEMFS_OK)
        *ret = sqlite_col_int(&s, 0);
    return rc;
}

memfs_code sqlite_agent_count(state *base, int64_t *ret, memfs_error *err)
{
    return read_number(base, KEY_AGENT_COUNT, ret, err);
}

memfs_code sqlite_agents_version(state *base, int64_t *ret, memfs_error *err)
{
    return read_number(base, KEY_AGENTS_VERSION, ret, err);
}

memfs_code sqlite_agent_known(state *base, memfs_str id, bool *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_KNOWN, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, id);
    return sqlite_step(&s, ret, err);
}

/* ---- changing ---- */

/* Of one agent: -2 when there is no row. */
typedef struct standing {
    int64_t deleted_at_us, version;
} standing;
#define IS_NOBODY (-2)

static memfs_code read_standing(sqlite_conn *c, memfs_str id, standing *ret, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc = sqlite_query_get(c, KEY_AGENT_STANDING, &s, err);

    if (rc < 0)
        return rc;
    *ret = (standing){ .deleted_at_us = IS_NOBODY };
    sqlite_bind_str(&s, 1, id);
    rc = sqlite_step(&s, &is_row, err);
    if (rc == MEMFS_OK && is_row)
        *ret = (standing){ sqlite_col_int(&s, 0), sqlite_col_int(&s, 1) };
    return rc;
}

static memfs_code fail_unknown(memfs_str id, memfs_error *err)
{
    return memfs_fail(err, MEMFS_ENOTFOUND, "agent '%.*s' is not known", (int)id.len, id.ptr);
}

static memfs_code add_within(sqlite_conn *c, memfs_str id, memfs_str org_id, int64_t now_us,
                             memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_AGENT_ADD, &s, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, id);
    sqlite_bind_str(&s, 2, org_id);
    sqlite_bind_int(&s, 3, now_us);
    return sqlite_run(&s, err);
}

memfs_code sqlite_agent_add(state *base, memfs_str id, memfs_str org_id, int64_t now_us,
                            memfs_error *err)
{
    bool is_known = false;
    sqlite_conn *c;
    memfs_code rc;

    rc = sqlite_agent_known(base, id, &is_known, err);
    if (rc < 0 || is_known)
        return rc;
    rc = sqlite_write_begin(sqlite_state_db(base), &c, err);
    if (rc < 0)
        return rc;
    return sqlite_write_end(c, add_within(c, id, org_id, now_us, err), err);
}

static memfs_code put_fields(sqlite_conn *c, const state_agent *agent, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_AGENT_FIELDS, &s, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, agent->id);
    sqlite_bind_str(&s, 2, agent->fields_json);
    return sqlite_run(&s, err);
}

static memfs_code announce_within(sqlite_conn *c, const state_agent *agent, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    standing now;
    memfs_code rc = sqlite_check_tags(c, agent->tags_json, err);

    if (rc == MEMFS_OK)
        rc = read_standing(c, agent->id, &now, err);
    if (rc == MEMFS_OK && now.deleted_at_us >= 0)
        return memfs_fail(err, MEMFS_EEXISTS, "there is an agent '%.*s' already",
                          (int)agent->id.len, agent->id.ptr);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_AGENT_ANNOUNCE, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, agent->id);
    sqlite_bind_str(&s, 2, agent->org_id);
    sqlite_bind_str(&s, 3, agent->name);
    sqlite_bind_str(&s, 4, agent->tags_json);
    sqlite_bind_int(&s, 5, agent->created_at_us);
    sqlite_bind_int(&s, 6, agent->is_hidden);
    rc = sqlite_run(&s, err);
    return rc < 0 ? rc : put_fields(c, agent, err);
}

memfs_code sqlite_agent_announce(state *base, const state_agent *agent, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc = sqlite_write_begin(sqlite_state_db(base), &c, err);

    return rc < 0 ? rc : sqlite_write_end(c, announce_within(c, agent, err), err);
}

static memfs_code put_within(sqlite_conn *c, const state_agent *agent, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    standing now;
    memfs_code rc = sqlite_check_tags(c, agent->tags_json, err);

    if (rc == MEMFS_OK)
        rc = read_standing(c, agent->id, &now, err);
    if (rc == MEMFS_OK && now.deleted_at_us != 0)
        return fail_unknown(agent->id, err);
    if (rc == MEMFS_OK && now.version != agent->version)
        return memfs_fail(err, MEMFS_ECONFLICT, "agent '%.*s' was changed meanwhile",
                          (int)agent->id.len, agent->id.ptr);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_AGENT_PUT, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, agent->id);
    sqlite_bind_str(&s, 2, agent->name);
    sqlite_bind_str(&s, 3, agent->tags_json);
    sqlite_bind_int(&s, 4, agent->is_hidden);
    sqlite_bind_int(&s, 5, agent->updated_at_us);
    rc = sqlite_run(&s, err);
    return rc < 0 ? rc : put_fields(c, agent, err);
}

memfs_code sqlite_agent_put(state *base, const state_agent *agent, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc = sqlite_write_begin(sqlite_state_db(base), &c, err);

    return rc < 0 ? rc : sqlite_write_end(c, put_within(c, agent, err), err);
}

static memfs_code set_deleted_within(sqlite_conn *c, memfs_str id, int64_t deleted_at_us,
                                     int64_t now_us, bool *ret_changed, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    standing now;
    memfs_code rc = read_standing(c, id, &now, err);

    if (rc == MEMFS_OK && now.deleted_at_us < 0)
        return fail_unknown(id, err);
    if (rc < 0 || (now.deleted_at_us > 0) == (deleted_at_us > 0))
        return rc;
    rc = sqlite_query_get(c, KEY_AGENT_DELETED, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, id);
    sqlite_bind_int(&s, 2, deleted_at_us);
    sqlite_bind_int(&s, 3, now_us);
    rc = sqlite_run(&s, err);
    *ret_changed = rc == MEMFS_OK;
    return rc;
}

memfs_code sqlite_agent_set_deleted(state *base, memfs_str id, int64_t deleted_at_us,
                                    int64_t now_us, bool *ret_changed, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc = sqlite_write_begin(sqlite_state_db(base), &c, err);

    if (rc < 0)
        return rc;
    return sqlite_write_end(c, set_deleted_within(c, id, deleted_at_us, now_us, ret_changed, err),
                            err);
}
