#include "cache/pg_state.h"

#include "base/mem.h"
#include "cache/like.h"

#include <jansson.h>

/*
 * Agents of the state: their list, and attributes that came from elsewhere.  As in pg_blocks.c a
 * set of filters is a shape, and names are searched here, as the server's folding of case depends
 * on its locale.
 */

enum list_bits {
    LIST_ID = 1 << 0,
    LIST_NAME = 1 << 1,
    LIST_ANY_TAG = 1 << 2,
    LIST_ALL_TAGS = 1 << 3,
    LIST_BEFORE = 1 << 4,
    LIST_AFTER = 1 << 5,
    LIST_DESCENDING = 1 << 6,
    LIST_LIMIT = 1 << 7,
    LIST_BY_UPDATED = 1 << 8,
    LIST_FIELDS = 1 << 9,
    LIST_NOT_HIDDEN = 1 << 10,
    LIST_DELETED = 1 << 11, /* neither: those that are there */
    LIST_BOTH = 1 << 12,
    LIST_AGENTS_ALONE = 1 << 13,
    LIST_BITS_END = 1 << 14,
};
_Static_assert((int)KEY_LIST + (int)LIST_BITS_END <= (int)KEY_LIST_END,
               "a statement a form of the list");

/* ---- the list ---- */

static uint32_t shape_of(const agent_query *q)
{
    uint32_t shape = 0;

    shape |= q->id.len > 0 ? LIST_ID : 0;
    shape |= q->name.len > 0 ? LIST_NAME : 0;
    if (q->n_tags > 0)
        shape |= q->match_all_tags ? LIST_ALL_TAGS : LIST_ANY_TAG;
    shape |= q->descending ? LIST_DESCENDING : 0;
    shape |= q->by_updated ? LIST_BY_UPDATED : 0;
    shape |= q->with_fields ? LIST_FIELDS : 0;
    shape |= q->without_hidden ? LIST_NOT_HIDDEN : 0;
    shape |= q->which == AGENTS_DELETED ? LIST_DELETED : 0;
    shape |= q->which == AGENTS_ALL ? LIST_BOTH : 0;
    shape |= q->limit > 0 && q->query_text.len == 0 ? LIST_LIMIT : 0;
    shape |= q->with_shared ? 0 : LIST_AGENTS_ALONE;
    return shape;
}

static memfs_code find_place(state *s, memfs_str id, bool by_updated, bool *ret_is_set,
                             int64_t *ret_at_us, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(
        KEY_AGENT_PLACE, "SELECT created_at, updated_at FROM agents WHERE agent_id = $1");
    memfs_code rc;

    *ret_is_set = false;
    if (id.len == 0)
        return MEMFS_OK;
    pg_arg_text(&f.args, id);
    rc = pg_fetch_run(s, &f, err);
    *ret_is_set = rc == MEMFS_OK && f.result.n_rows > 0;
    if (*ret_is_set)
        *ret_at_us = pg_col_int(&f.result, 0, by_updated ? 1 : 0);
    return rc;
}

static void put_cursor(memfs_buf *sql, pg_args *args, bool by_updated, char sign, int64_t at_us,
                       memfs_str id)
{
    pg_arg_int(args, at_us);
    pg_arg_text(args, id);
    buf_puts(sql, by_updated ? " AND (updated_at, agent_id) " : " AND (created_at, agent_id) ");
    pg_put(sql, sign == '>' ? "> (" : "< (", args->n - 1);
    pg_put(sql, ", ", args->n);
    buf_putc(sql, ')');
}

static void put_tags(memfs_buf *sql, pg_args *args, const agent_query *q)
{
    int at = pg_arg_array(args, PG_BYTES, q->n_tags);

    for (size_t i = 0; i < q->n_tags; i++)
        pg_array_add_str(args, at, q->tags[i]);
    pg_put(sql, q->match_all_tags ? " AND tag_list @> " : " AND tag_list && ", args->n);
}

typedef struct listing {
    uint32_t shape;
    bool has_before, has_after;
    int64_t before_us, after_us;
} listing;

static void put_which(memfs_buf *sql, uint32_t shape)
{
    buf_puts(sql,
             "SELECT agent_id, org_id, name, tags, created_at, updated_at, hidden, deleted_at, "
             "version, ");
    buf_puts(sql, (shape & LIST_FIELDS) != 0 ? "fields" : "''::bytea");
    if ((shape & LIST_DELETED) != 0)
        buf_puts(sql, " FROM agents WHERE deleted_at > 0");
    else
        buf_puts(sql, (shape & LIST_BOTH) != 0 ? " FROM agents WHERE deleted_at >= 0"
                                               : " FROM agents WHERE deleted_at = 0");
    if ((shape & LIST_NOT_HIDDEN) != 0)
        buf_puts(sql, " AND NOT hidden");
    if ((shape & LIST_AGENTS_ALONE) != 0)
        buf_puts(sql, " AND agent_id NOT LIKE 'repo-%'");
}

static void compose(const agent_query *q, const listing *l, memfs_buf *sql, pg_args *args)
{
    bool is_down = (l->shape & LIST_DESCENDING) != 0;

    put_which(sql, l->shape);
    if (l->shape & LIST_ID) {
        pg_arg_text(args, q->id);
        pg_put(sql, " AND agent_id = ", args->n);
    }
    if (l->shape & LIST_NAME) {
        pg_arg_bytes(args, q->name);
        pg_put(sql, " AND name = ", args->n);
    }
    if (l->shape & (LIST_ANY_TAG | LIST_ALL_TAGS))
        put_tags(sql, args, q);
    if (l->has_before)
        put_cursor(sql, args, q->by_updated, is_down ? '>' : '<', l->before_us, q->before);
    if (l->has_after)
        put_cursor(sql, args, q->by_updated, is_down ? '<' : '>', l->after_us, q->after);
    buf_puts(sql, q->by_updated ? " ORDER BY updated_at" : " ORDER BY created_at");
    buf_puts(sql, is_down ? " DESC, agent_id DESC" : ", agent_id");
    if (l->shape & LIST_LIMIT) {
        pg_arg_int(args, q->limit);
        pg_put(sql, " LIMIT ", args->n);
    }
}

static memfs_code pass_agents(const pg_result *r, const agent_query *q, const like_pattern *pattern,
                              state_agent_fn fn, void *ctx, memfs_error *err)
{
    int64_t n = 0;
    memfs_code rc = MEMFS_OK;

    for (int row = 0; rc == MEMFS_OK && row < r->n_rows && (q->limit == 0 || n < q->limit); row++) {
        state_agent agent = {
            .id = pg_col_str(r, row, 0),
            .org_id = pg_col_str(r, row, 1),
            .name = pg_col_str(r, row, 2),
            .tags_json = pg_col_str(r, row, 3),
            .created_at_us = pg_col_int(r, row, 4),
            .updated_at_us = pg_col_int(r, row, 5),
            .is_hidden = pg_col_int(r, row, 6) != 0,
            .deleted_at_us = pg_col_int(r, row, 7),
            .version = pg_col_int(r, row, 8),
            .fields_json = pg_col_str(r, row, 9),
        };

        if (q->query_text.len > 0 && !like_matches(pattern, agent.name))
            continue;
        n++;
        rc = fn(&agent, ctx, err);
    }
    return rc;
}

/* A tag that is asked for twice never matches all (http-api 6.1). */
static bool can_match(const agent_query *q)
{
    for (size_t i = 0; q->match_all_tags && i < q->n_tags; i++)
        for (size_t k = 0; k < i; k++)
            if (str_equal(q->tags[i], q->tags[k]))
                return false;
    return true;
}

memfs_code pg_agents(state *s, const agent_query *q, state_agent_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(0, NULL);
    _cleanup_(buf_dispose) memfs_buf sql = MEMFS_BUF_INIT(1 << 16);
    listing l = { .shape = shape_of(q) };
    like_pattern pattern;
    memfs_code rc;

    rc = like_compile(q->query_text, &pattern, err);
    if (rc == MEMFS_OK)
        rc = find_place(s, q->before, q->by_updated, &l.has_before, &l.before_us, err);
    if (rc == MEMFS_OK)
        rc = find_place(s, q->after, q->by_updated, &l.has_after, &l.after_us, err);
    if (rc < 0 || !can_match(q))
        return rc;
    l.shape |= l.has_before ? LIST_BEFORE : 0;
    l.shape |= l.has_after ? LIST_AFTER : 0;
    compose(q, &l, &sql, &f.args);
    f.key = KEY_LIST + l.shape;
    f.sql = sql.ptr;
    rc = pg_fetch_run(s, &f, err);
    return rc < 0 ? rc : pass_agents(&f.result, q, &pattern, fn, ctx, err);
}

/* ---- tags ---- */

/* *ret: decref. */
static memfs_code read_tags(memfs_str tags_json, json_t **ret, memfs_error *err)
{
    *ret = json_loadb(tags_json.ptr, tags_json.len, JSON_ALLOW_NUL, NULL);
    if (json_is_array(*ret))
        return MEMFS_OK;
    json_decref(*ret);
    *ret = NULL;
    return memfs_fail(err, MEMFS_EINVALID, "the tags of an agent must be a list");
}

static void add_tag_list(pg_args *a, const json_t *tags)
{
    int at = pg_arg_array(a, PG_BYTES, json_array_size(tags));
    const json_t *item;
    size_t i;

    json_array_foreach(tags, i, item)
        pg_array_add_str(a, at, str_make(json_string_value(item), json_string_length(item)));
}

/* ---- what the API says of one ---- */

static memfs_code fail_unknown(memfs_str id, memfs_error *err)
{
    return memfs_fail(err, MEMFS_ENOTFOUND, "agent '%.*s' is not known", (int)id.len, id.ptr);
}

/* $1 to $6: of every write here. */
static memfs_code add_attributes_of(pg_args *a, const state_agent *agent, memfs_error *err)
{
    json_t *tags;
    memfs_code rc = read_tags(agent->tags_json, &tags, err);

    if (rc < 0)
        return rc;
    pg_arg_text(a, agent->id);
    pg_arg_bytes(a, agent->name);
    pg_arg_bytes(a, agent->tags_json);
    add_tag_list(a, tags);
    pg_arg_bytes(a, agent->fields_json);
    pg_arg_bool(a, agent->is_hidden);
    json_decref(tags);
    return MEMFS_OK;
}

memfs_code pg_agent_announce(state *s, const state_agent *agent, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(
        KEY_AGENT_ANNOUNCE,
        "INSERT INTO agents AS a(agent_id, name, tags, tag_list, fields, hidden, org_id, "
        "created_at, updated_at, deleted_at) VALUES($1, $2, $3, $4, $5, $6, $7, $8, $8, -1) "
        "ON CONFLICT(agent_id) DO UPDATE SET name = $2, tags = $3, tag_list = $4, fields = $5, "
        "hidden = $6, created_at = $8, updated_at = $8 WHERE a.deleted_at < 0");
    memfs_code rc = add_attributes_of(&f.args, agent, err);

    pg_arg_text(&f.args, agent->org_id);
    pg_arg_int(&f.args, agent->created_at_us);
    if (rc == MEMFS_OK)
        rc = pg_fetch_run(s, &f, err);
    if (rc < 0 || f.result.n_changed > 0)
        return rc;
    return memfs_fail(err, MEMFS_EEXISTS, "there is an agent '%.*s' already", (int)agent->id.len,
                      agent->id.ptr);
}

struct standing {
    bool is_there;
    int64_t deleted_at_us;
};

static memfs_code read_standing(state *s, memfs_str id, struct standing *ret, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_AGENT_STANDING, "SELECT deleted_at FROM agents WHERE agent_id = $1");
    memfs_code rc;

    pg_arg_text(&f.args, id);
    rc = pg_fetch_run(s, &f, err);
    *ret = (struct standing){ .is_there = rc == MEMFS_OK && f.result.n_rows > 0 };
    if (ret->is_there)
        ret->deleted_at_us = pg_col_int(&f.result, 0, 0);
    return rc;
}

/*
 * After a COMMIT whose answer was lost this may say ECONFLICT of what it wrote itself: its caller
 * reads anew and comes to the same.
 */
memfs_code pg_agent_put(state *s, const state_agent *agent, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(
        KEY_AGENT_PUT, "UPDATE agents SET name = $2, tags = $3, tag_list = $4, fields = $5, "
                       "hidden = $6, updated_at = greatest(updated_at + 1, $7), "
                       "version = version + 1 "
                       "WHERE agent_id = $1 AND version = $8 AND deleted_at = 0");
    struct standing now;
    memfs_code rc = add_attributes_of(&f.args, agent, err);

    pg_arg_int(&f.args, agent->updated_at_us);
    pg_arg_int(&f.args, agent->version);
    if (rc == MEMFS_OK)
        rc = pg_fetch_run(s, &f, err);
    if (rc < 0 || f.result.n_changed > 0)
        return rc;
    rc = read_standing(s, agent->id, &now, err);
    if (rc == MEMFS_OK && (!now.is_there || now.deleted_at_us != 0))
        return fail_unknown(agent->id, err);
    return rc < 0 ? rc
                  : memfs_fail(err, MEMFS_ECONFLICT, "agent '%.*s' was changed meanwhile",
                               (int)agent->id.len, agent->id.ptr);
}

memfs_code pg_agent_set_deleted(state *s, memfs_str id, int64_t deleted_at_us, int64_t now_us,
                                bool *ret_changed, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(
        KEY_AGENT_DELETED, "UPDATE agents SET deleted_at = $2, "
                           "updated_at = greatest(updated_at + 1, $3), version = version + 1 "
                           "WHERE agent_id = $1 AND deleted_at >= 0 AND "
                           "(deleted_at > 0) <> ($2 > 0)");
    struct standing now;
    memfs_code rc;

    pg_arg_text(&f.args, id);
    pg_arg_int(&f.args, deleted_at_us);
    pg_arg_int(&f.args, now_us);
    rc = pg_fetch_run(s, &f, err);
    *ret_changed = rc == MEMFS_OK && f.result.n_changed > 0;
    if (rc < 0 || *ret_changed)
        return rc;
    rc = read_standing(s, id, &now, err);
    return rc == MEMFS_OK && (!now.is_there || now.deleted_at_us < 0) ? fail_unknown(id, err) : rc;
}

static memfs_code read_number(state *s, uint64_t key, const char *sql, int64_t *ret,
                              memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(key, sql);
    memfs_code rc = pg_fetch_run(s, &f, err);

    if (rc == MEMFS_OK)
        *ret = pg_col_int(&f.result, 0, 0);
    return rc;
}

memfs_code pg_agent_count(state *s, int64_t *ret, memfs_error *err)
{
    return read_number(s, KEY_AGENT_COUNT,
                       "SELECT (SELECT count(*) FROM agents) - "
                       "(SELECT count(*) FROM agents WHERE deleted_at <> 0) - "
                       "(SELECT count(*) FROM agents WHERE agent_id >= 'repo-' "
                       "AND agent_id < 'repo.' AND deleted_at = 0)",
                       ret, err);
}

memfs_code pg_agents_version(state *s, int64_t *ret, memfs_error *err)
{
    return read_number(s, KEY_AGENTS_VERSION,
                       "SELECT coalesce(sum(version), 0)::int8 FROM agents WHERE version > 0", ret,
                       err);
}

/* Times of deleting are never the same twice, or as good as never: as many with the same sum are
 * the same agents. */
memfs_code pg_deleted_mark(state *s, int64_t *ret, memfs_error *err)
{
    return read_number(s, KEY_DELETED_MARK,
                       "SELECT mod(coalesce(sum(deleted_at), 0) + count(*), 9223372036854775783)"
                       "::int8 FROM agents WHERE deleted_at <> 0 AND deleted_at > 0",
                       ret, err);
}

/* ---- attributes that came from elsewhere ---- */

struct merging {
    const state_agent *agent;
    const state_birth *births;
    size_t n;
    json_t *tags; /* NULL: nothing is said of them */
};

/* NULL leaves a column as it is. */
static void add_attributes(pg_args *a, const struct merging *m)
{
    const state_agent *agent = m->agent;

    pg_arg_text(a, agent->id);
    if (agent->name.len > 0)
        pg_arg_bytes(a, agent->name);
    else
        pg_arg_null(a, PG_BYTES);
    if (m->tags != NULL)
        pg_arg_bytes(a, agent->tags_json);
    else
        pg_arg_null(a, PG_BYTES);
    add_tag_list(a, m->tags);
    pg_arg_int(a, agent->created_at_us > 0 ? agent->created_at_us : INT64_MAX);
    pg_arg_int(a, agent->updated_at_us);
}

static memfs_code merge_agent(pg_conn *c, const struct merging *m, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;

    add_attributes(&args, m);
    return pg_query(c, KEY_AGENT_MERGE,
                    "UPDATE agents SET name = coalesce($2, name), tags = coalesce($3, tags), "
                    "tag_list = CASE WHEN $3 IS NULL THEN tag_list ELSE $4 END, "
                    "created_at = least(created_at, $5), updated_at = greatest(updated_at, $6), "
                    "version = version + 1 WHERE agent_id = $1 AND (name <> coalesce($2, name) OR "
                    "tags <> coalesce($3, tags) OR created_at > $5 OR updated_at < $6)",
                    &args, &r, err);
}

/*
 * A label may be named twice: the earlier counts.  Births that are early enough are left out first:
 * what meets a conflict is locked, which is a write even if nothing changes (K7).
 */
static memfs_code merge_births(pg_conn *c, const struct merging *m, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    int labels, times, tags, ids, limits, hiddens;

    if (m->n == 0)
        return MEMFS_OK;
    pg_arg_text(&args, m->agent->id);
    labels = pg_arg_array(&args, PG_BYTES, m->n);
    times = pg_arg_array(&args, PG_INT, m->n);
    tags = pg_arg_array(&args, PG_BYTES, m->n);
    ids = pg_arg_array(&args, PG_BYTES, m->n);
    limits = pg_arg_array(&args, PG_INT, m->n);
    hiddens = pg_arg_array(&args, PG_BOOL, m->n);
    for (size_t i = 0; i < m->n; i++) {
        pg_array_add_str(&args, labels, m->births[i].label);
        pg_array_add_int(&args, times, m->births[i].created_at_us);
        pg_array_add_str(&args, tags, m->births[i].tags_json);
        pg_array_add_str(&args, ids, m->births[i].block_id);
        pg_array_add_int(&args, limits, m->births[i].limit);
        pg_array_add_bool(&args, hiddens, m->births[i].hidden);
    }
    return pg_query(
        c, KEY_BIRTHS_MERGE,
        "INSERT INTO births AS b(agent_id, label, created_at, tags, block_id, char_limit, hidden) "
        "SELECT DISTINCT ON (label) $1, label, created_at, tags, block_id, char_limit, hidden "
        "FROM unnest($2, $3, $4, $5, $6, $7) "
        "n(label, created_at, tags, block_id, char_limit, hidden) "
        "WHERE NOT EXISTS(SELECT FROM births o WHERE o.agent_id = $1 AND o.label = n.label AND "
        "o.created_at <= n.created_at AND (o.block_id <> '' OR n.block_id = '') AND "
        "(n.tags = '' OR (o.tags, o.char_limit, o.hidden) = (n.tags, n.char_limit, n.hidden))) "
        "ORDER BY label, created_at ON CONFLICT(agent_id, label) DO UPDATE "
        "SET created_at = least(b.created_at, excluded.created_at), "
        "tags = CASE WHEN excluded.tags = '' THEN b.tags ELSE excluded.tags END, "
        "block_id = CASE WHEN b.block_id = '' THEN excluded.block_id ELSE b.block_id END, "
        "char_limit = CASE WHEN excluded.tags = '' THEN b.char_limit ELSE excluded.char_limit END, "
        "hidden = CASE WHEN excluded.tags = '' THEN b.hidden ELSE excluded.hidden END",
        &args, &r, err);
}

static memfs_code merge_within(pg_conn *c, void *ctx, memfs_error *err)
{
    memfs_code rc = merge_agent(c, ctx, err);

    return rc < 0 ? rc : merge_births(c, ctx, err);
}

memfs_code pg_agent_merge(state *s, const state_agent *agent, const state_birth *births, size_t n,
                          memfs_error *err)
{
    struct merging m = { agent, births, n, NULL };
    memfs_code rc;

    rc = agent->tags_json.len > 0 ? read_tags(agent->tags_json, &m.tags, err) : MEMFS_OK;
    if (rc < 0)
        return rc;
    rc = pg_work(pg_state_db(s), PG_WRITE, merge_within, &m, err);
    json_decref(m.tags);
    return rc;
}
