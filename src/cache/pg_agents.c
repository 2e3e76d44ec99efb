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
    LIST_AGENTS_ALONE = 1 << 8,
};

/* ---- the list ---- */

static uint32_t shape_of(const agent_query *q)
{
    uint32_t shape = 0;

    shape |= q->id.len > 0 ? LIST_ID : 0;
    shape |= q->name.len > 0 ? LIST_NAME : 0;
    if (q->n_tags > 0)
        shape |= q->match_all_tags ? LIST_ALL_TAGS : LIST_ANY_TAG;
    shape |= q->descending ? LIST_DESCENDING : 0;
    shape |= q->limit > 0 && q->query_text.len == 0 ? LIST_LIMIT : 0;
    shape |= q->with_shared ? 0 : LIST_AGENTS_ALONE;
    return shape;
}

static memfs_code find_place(state *s, memfs_str id, bool *ret_is_set, int64_t *ret_created_us,
                             memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_AGENT_PLACE, "SELECT created_at FROM agents WHERE agent_id = $1");
    memfs_code rc;

    *ret_is_set = false;
    if (id.len == 0)
        return MEMFS_OK;
    pg_arg_text(&f.args, id);
    rc = pg_fetch_run(s, &f, err);
    *ret_is_set = rc == MEMFS_OK && f.result.n_rows > 0;
    if (*ret_is_set)
        *ret_created_us = pg_col_int(&f.result, 0, 0);
    return rc;
}

static void put_cursor(memfs_buf *sql, pg_args *args, char sign, int64_t created_us, memfs_str id)
{
    pg_arg_int(args, created_us);
    pg_arg_text(args, id);
    pg_put(sql, sign == '>' ? " AND (created_at, agent_id) > (" : " AND (created_at, agent_id) < (",
           args->n - 1);
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

static void compose(const agent_query *q, const listing *l, memfs_buf *sql, pg_args *args)
{
    bool is_down = (l->shape & LIST_DESCENDING) != 0;

    buf_puts(sql, "SELECT agent_id, org_id, name, tags, created_at, updated_at FROM agents "
                  "WHERE true");
    if (l->shape & LIST_AGENTS_ALONE)
        buf_puts(sql, " AND agent_id NOT LIKE 'repo-%'");
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
        put_cursor(sql, args, is_down ? '>' : '<', l->before_us, q->before);
    if (l->has_after)
        put_cursor(sql, args, is_down ? '<' : '>', l->after_us, q->after);
    buf_puts(sql, is_down ? " ORDER BY created_at DESC, agent_id DESC"
                          : " ORDER BY created_at, agent_id");
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
        rc = find_place(s, q->before, &l.has_before, &l.before_us, err);
    if (rc == MEMFS_OK)
        rc = find_place(s, q->after, &l.has_after, &l.after_us, err);
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
    const json_t *item;
    size_t i;
    int at;

    pg_arg_text(a, agent->id);
    if (agent->name.len > 0)
        pg_arg_bytes(a, agent->name);
    else
        pg_arg_null(a, PG_BYTES);
    if (m->tags != NULL)
        pg_arg_bytes(a, agent->tags_json);
    else
        pg_arg_null(a, PG_BYTES);
    at = pg_arg_array(a, PG_BYTES, json_array_size(m->tags));
    json_array_foreach(m->tags, i, item)
        pg_array_add_str(a, at, str_make(json_string_value(item), json_string_length(item)));
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
                    "created_at = least(created_at, $5), updated_at = greatest(updated_at, $6) "
                    "WHERE agent_id = $1 AND (name <> coalesce($2, name) OR "
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

    if (agent->tags_json.len > 0) {
        m.tags = json_loadb(agent->tags_json.ptr, agent->tags_json.len, JSON_ALLOW_NUL, NULL);
        if (!json_is_array(m.tags)) {
            json_decref(m.tags);
            return memfs_fail(err, MEMFS_EINVALID, "the tags of an agent must be a list");
        }
    }
    rc = pg_work(pg_state_db(s), PG_WRITE, merge_within, &m, err);
    json_decref(m.tags);
    return rc;
}
