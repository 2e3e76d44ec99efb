#include "cache/pg_cache.h"

#include "base/json.h"
#include "base/mem.h"
#include "cache/like.h"
#include "memory/ids.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * Reading rows.  The text of a query depends on which filters are set, as in sqlite_shape.h: a set
 * of filters is a set of bits, and a shape is prepared once a connection.  Parameters are counted as
 * they are added, so text and parameters are put together in one go.
 *
 * Searches are judged here, row by row, by the same like.h as SQLite's: what ILIKE folds depends on
 * the locale of the database, and answers must not.  Tags, too: the server only leaves out rows whose
 * list does not have the text of a tag (it may stand across two of them).
 *
 * A result with a bound (a limit, or one agent) is read whole, and passed on when the connection is
 * back in the pool: a row function may then read the cache itself, or take its time.  The others
 * are passed on as they come.
 */

enum blocks_bits {
    BLOCKS_LABEL = 1 << 0,
    BLOCKS_ID = 1 << 1,
    BLOCKS_SHOWN = 1 << 2,
    BLOCKS_ANY_TAG = 1 << 3,
    BLOCKS_ALL_TAGS = 1 << 4,
    BLOCKS_BEFORE = 1 << 5,
    BLOCKS_AFTER = 1 << 6,
    BLOCKS_DESCENDING = 1 << 7,
    BLOCKS_LIMIT = 1 << 8,
    BLOCKS_BY_ID = 1 << 9,
    BLOCKS_BY_PATH = 1 << 10,
    BLOCKS_COUNT = 1 << 11,
    BLOCKS_OF_AGENT = 1 << 12,
    BLOCKS_AGENTS = 1 << 13,
};

enum { KEY_CURSOR = PG_KEYS_CACHE, KEY_SHAPE = PG_KEYS_CACHE + (1 << 15) };

/* The tip comes with each row of an agent, and by itself when there is none. */
#define COLUMNS                                                                                    \
    "t.tip, t.generation, t.agent_id, b.label, b.path, b.id, b.description, b.char_limit, "        \
    "b.read_only, b.metadata, b.tags, b.hidden, b.problem, b.blob, b.bytes, b.created_at, "        \
    "b.updated_at, b.value"
enum {
    COL_TIP,
    COL_GENERATION,
    COL_AGENT,
    COL_LABEL,
    COL_PATH,
    COL_ID,
    COL_DESCRIPTION,
    COL_LIMIT,
    COL_READ_ONLY,
    COL_METADATA,
    COL_TAGS,
    COL_HIDDEN,
    COL_PROBLEM,
    COL_BLOB,
    COL_BYTES,
    COL_CREATED_AT,
    COL_UPDATED_AT,
    COL_VALUE,
};

/* ---- what is judged here ---- */

typedef struct judge {
    like_pattern *label, *description, *value; /* NULL: not searched */
    const block_query *q;
} judge;

static void judge_dispose(judge *j)
{
    free(j->label);
    free(j->description);
    free(j->value);
}

static memfs_code compile(memfs_str text, like_pattern **ret, memfs_error *err)
{
    if (text.len == 0)
        return MEMFS_OK;
    *ret = mem_alloc(sizeof(**ret));
    return like_compile(text, *ret, err);
}

static memfs_code judge_make(judge *j, memfs_error *err)
{
    memfs_code rc;

    rc = compile(j->q->label_search, &j->label, err);
    if (rc == MEMFS_OK)
        rc = compile(j->q->description_search, &j->description, err);
    return rc < 0 ? rc : compile(j->q->value_search, &j->value, err);
}

static bool has_tag(const json_t *list, memfs_str tag)
{
    const json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
        if (str_equal(str_make(json_string_value(item), json_string_length(item)), tag))
            return true;
    return false;
}

/* A tag that is asked for twice never matches all (http-api 6.1): as many tags as were asked for. */
static bool tags_match(const block_query *q, memfs_str tags_json)
{
    json_t *list = json_loadb(tags_json.ptr, tags_json.len, JSON_ALLOW_NUL, NULL);
    size_t n = 0, i, k;

    for (i = 0; i < q->n_tags; i++) {
        for (k = 0; k < i && !str_equal(q->tags[k], q->tags[i]); k++)
            ;
        n += k == i && has_tag(list, q->tags[i]);
    }
    json_decref(list);
    return q->match_all_tags ? n == q->n_tags : n > 0;
}

static bool is_judged_here(const judge *j)
{
    return j->q->n_tags > 0 || j->label != NULL || j->description != NULL || j->value != NULL;
}

static bool matches(const judge *j, const pg_result *r, int row)
{
    if (j->label != NULL && !like_matches(j->label, pg_col_str(r, row, COL_LABEL)))
        return false;
    if (j->description != NULL && (pg_col_is_null(r, row, COL_DESCRIPTION) ||
                                   !like_matches(j->description,
                                                 pg_col_str(r, row, COL_DESCRIPTION))))
        return false;
    if (j->value != NULL && !like_matches(j->value, pg_col_str(r, row, COL_VALUE)))
        return false;
    return j->q->n_tags == 0 || tags_match(j->q, pg_col_str(r, row, COL_TAGS));
}

/* ---- the text of a query ---- */

static uint32_t shape_of(const judge *j, bool is_count)
{
    const block_query *q = j->q;
    uint32_t shape = 0;

    shape |= q->agent_id.len > 0 ? BLOCKS_OF_AGENT : 0;
    shape |= q->label.len > 0 ? BLOCKS_LABEL : 0;
    shape |= q->id.len > 0 ? BLOCKS_ID : 0;
    shape |= q->agents != NULL ? BLOCKS_AGENTS : 0;
    shape |= q->show_hidden ? 0 : BLOCKS_SHOWN;
    if (q->n_tags > 0)
        shape |= q->match_all_tags ? BLOCKS_ALL_TAGS : BLOCKS_ANY_TAG;
    if (is_count && !is_judged_here(j))
        return shape | BLOCKS_COUNT;
    if (is_count) /* copies come one after the other */
        return shape | BLOCKS_BY_ID;
    shape |= q->descending ? BLOCKS_DESCENDING : 0;
    shape |= q->limit > 0 && !is_judged_here(j) ? BLOCKS_LIMIT : 0;
    shape |= q->order == BLOCK_ORDER_ID ? BLOCKS_BY_ID : 0;
    shape |= q->order == BLOCK_ORDER_PATH ? BLOCKS_BY_PATH : 0;
    return shape;
}

/* A query as it is put together; sql holds the text, args the values of its $1, $2, ... */
typedef struct composed {
    uint32_t shape;
    memfs_buf sql;
    pg_args args;
} composed;
#define COMPOSED_INIT { 0, MEMFS_BUF_INIT(1 << 16), PG_ARGS_INIT }

static void composed_dispose(composed *d)
{
    buf_dispose(&d->sql);
    pg_args_dispose(&d->args);
}

static void put_bytes(composed *d, const char *before, memfs_str value)
{
    pg_arg_bytes(&d->args, value);
    pg_put(&d->sql, before, d->args.n);
}

static void put_text(composed *d, const char *before, memfs_str value)
{
    pg_arg_text(&d->args, value);
    pg_put(&d->sql, before, d->args.n);
}

static void put_int(composed *d, const char *before, int64_t value)
{
    pg_arg_int(&d->args, value);
    pg_put(&d->sql, before, d->args.n);
}

/* Of each tag the text that stands for it in a list. */
static void put_tags(composed *d, const block_query *q)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    int at = pg_arg_array(&d->args, PG_BYTES, q->n_tags);

    for (size_t i = 0; i < q->n_tags; i++) {
        json_writer w = JSON_WRITER_INIT(&text);

        buf_clear(&text);
        jw_str(&w, q->tags[i]);
        pg_array_add_str(&d->args, at, buf_str(&text));
    }
    buf_puts(&d->sql, q->match_all_tags ? " AND (SELECT bool_and(" : " AND (SELECT bool_or(");
    pg_put(&d->sql, "position(tag IN b.tags) > 0) FROM unnest(", d->args.n);
    buf_puts(&d->sql, ") tag)");
}

static void put_agents(composed *d, const block_agent_count *agents)
{
    int at;

    put_text(d,
             " AND EXISTS(SELECT FROM (SELECT count(*) AS n FROM blocks c JOIN tips o "
             "ON o.agent_no = c.agent_no WHERE c.id = b.id AND o.agent_id <> ",
             agents->nobody);
    put_int(d, ") s WHERE n >= ", agents->least);
    put_int(d, " AND n <= ", agents->most);
    at = pg_arg_array(&d->args, PG_INT, agents->n);
    for (size_t i = 0; i < agents->n; i++)
        pg_array_add_int(&d->args, at, agents->any_of[i]);
    pg_put(&d->sql, " AND (cardinality(", d->args.n);
    pg_put(&d->sql, ") = 0 OR n = ANY(", d->args.n);
    buf_puts(&d->sql, ")))");
}

static void put_filters(composed *d, const block_query *q)
{
    if (d->shape & BLOCKS_LABEL)
        put_bytes(d, " AND b.label = ", q->label);
    if (d->shape & BLOCKS_ID)
        put_text(d, " AND b.id = ", q->id);
    if (d->shape & BLOCKS_SHOWN)
        buf_puts(&d->sql, " AND NOT b.hidden");
    if (d->shape & (BLOCKS_ANY_TAG | BLOCKS_ALL_TAGS))
        put_tags(d, q);
    if (d->shape & BLOCKS_AGENTS)
        put_agents(d, q->agents);
}

static const char *first_key(uint32_t shape)
{
    if (shape & BLOCKS_BY_ID)
        return "";
    return shape & BLOCKS_BY_PATH ? "b.path, " : "b.created_at, ";
}

/* Where a cursor stands in the order. */
typedef struct place {
    bool is_set;
    int64_t created_at_us;
    char *path;
    size_t path_len;
} place;

static void put_cursor(composed *d, bool is_after, memfs_str id, const place *at)
{
    bool is_up = is_after != ((d->shape & BLOCKS_DESCENDING) != 0);

    buf_printf(&d->sql, " AND (%sb.id) %c (", first_key(d->shape), is_up ? '>' : '<');
    if (d->shape & BLOCKS_BY_PATH)
        put_bytes(d, "", str_make(at->path, at->path_len));
    else if (!(d->shape & BLOCKS_BY_ID))
        put_int(d, "", at->created_at_us);
    put_text(d, d->shape & BLOCKS_BY_ID ? "" : ", ", id);
    buf_putc(&d->sql, ')');
}

static void put_order(composed *d)
{
    const char *direction = d->shape & BLOCKS_DESCENDING ? " DESC" : "";

    buf_puts(&d->sql, " ORDER BY ");
    if (d->shape & BLOCKS_BY_PATH)
        buf_printf(&d->sql, "b.path%s, ", direction);
    else if (!(d->shape & BLOCKS_BY_ID))
        buf_printf(&d->sql, "b.created_at%s, ", direction);
    buf_printf(&d->sql, "b.id%s", direction);
}

/*
 * Of an agent: its tip, and the rows beside it if there are any, from one snapshot.  The filters of
 * rows therefore stand in the join and not behind WHERE.
 */
static void compose(composed *d, const block_query *q, const place *before, const place *after)
{
    bool of_agent = (d->shape & BLOCKS_OF_AGENT) != 0, is_count = (d->shape & BLOCKS_COUNT) != 0;

    d->shape |= before->is_set ? BLOCKS_BEFORE : 0;
    d->shape |= after->is_set ? BLOCKS_AFTER : 0;
    buf_puts(&d->sql, is_count ? "SELECT count(DISTINCT b.id)" : "SELECT " COLUMNS);
    buf_puts(&d->sql, of_agent ? " FROM tips t LEFT JOIN blocks b ON b.agent_no = t.agent_no"
                               : " FROM blocks b JOIN tips t ON t.agent_no = b.agent_no");
    put_filters(d, q);
    if (d->shape & BLOCKS_BEFORE)
        put_cursor(d, false, q->before, before);
    if (d->shape & BLOCKS_AFTER)
        put_cursor(d, true, q->after, after);
    if (of_agent)
        put_text(d, " WHERE NOT t.is_empty AND t.agent_id = ", q->agent_id);
    if (!is_count)
        put_order(d);
    if (d->shape & BLOCKS_LIMIT)
        put_int(d, " LIMIT ", q->limit);
}

/* ---- one query ---- */

typedef struct reading {
    const judge *judge;
    bool is_count, is_whole;
    block_row_fn fn;
    void *ctx;
    int64_t n;                    /* rows that matched; of a count, blocks */
    char last[IDS_BLOCK_LEN + 1]; /* id of what was counted last */
    pg_result whole;              /* if is_whole: all rows, for later */
} reading;

static memfs_code row_of(const pg_result *r, int row, block_row *ret, memfs_error *err)
{
    ret->agent_id = pg_col_str(r, row, COL_AGENT);
    ret->label = pg_col_str(r, row, COL_LABEL);
    ret->path = pg_col_str(r, row, COL_PATH);
    ret->id = pg_col_str(r, row, COL_ID);
    ret->value = pg_col_str(r, row, COL_VALUE);
    ret->has_description = !pg_col_is_null(r, row, COL_DESCRIPTION);
    ret->description = pg_col_str(r, row, COL_DESCRIPTION);
    ret->limit = pg_col_int(r, row, COL_LIMIT);
    ret->read_only = pg_col_int(r, row, COL_READ_ONLY) != 0;
    ret->metadata_json = pg_col_str(r, row, COL_METADATA);
    ret->tags_json = pg_col_str(r, row, COL_TAGS);
    ret->hidden = pg_col_int(r, row, COL_HIDDEN) != 0;
    ret->problem = pg_col_str(r, row, COL_PROBLEM);
    ret->bytes = pg_col_int(r, row, COL_BYTES);
    ret->created_at_us = pg_col_int(r, row, COL_CREATED_AT);
    ret->updated_at_us = pg_col_int(r, row, COL_UPDATED_AT);
    return pg_col_oid(r, row, COL_BLOB, &ret->blob, err);
}

/* *ret_is_done: as many as were asked for. */
static memfs_code pass_row(reading *x, const pg_result *r, int row, bool *ret_is_done,
                           memfs_error *err)
{
    int64_t limit = x->judge->q->limit;
    block_row block;
    memfs_code rc;

    *ret_is_done = false;
    if (pg_col_is_null(r, row, COL_ID) || !matches(x->judge, r, row))
        return MEMFS_OK;
    if (x->is_count) {
        memfs_str id = pg_col_str(r, row, COL_ID);

        x->n += !str_equal(id, str_of(x->last));
        snprintf(x->last, sizeof(x->last), "%.*s", (int)id.len, id.ptr);
        return MEMFS_OK;
    }
    x->n++;
    *ret_is_done = limit > 0 && x->n >= limit;
    rc = row_of(r, row, &block, err);
    return rc < 0 ? rc : x->fn(&block, x->ctx, err);
}

static memfs_code pass_streamed(const pg_result *row, void *ctx, bool *ret_is_done,
                                memfs_error *err)
{
    return pass_row(ctx, row, 0, ret_is_done, err);
}

static memfs_code find_place(pg_conn *c, uint32_t shape, memfs_str id, place *ret,
                             memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    memfs_str path;
    memfs_code rc;

    ret->is_set = id.len > 0;
    if (id.len == 0 || (shape & BLOCKS_BY_ID) != 0)
        return MEMFS_OK;
    pg_arg_text(&args, id);
    rc = pg_query(c, KEY_CURSOR, "SELECT created_at, path FROM blocks WHERE id = $1 LIMIT 1", &args,
                  &r, err);
    ret->is_set = rc == MEMFS_OK && r.n_rows > 0;
    if (!ret->is_set)
        return rc;
    ret->created_at_us = pg_col_int(&r, 0, 0);
    path = pg_col_str(&r, 0, 1);
    ret->path = mem_strndup(path.ptr, path.len);
    ret->path_len = path.len;
    return MEMFS_OK;
}

/* Cursors are places in the order, which a later snapshot has as well. */
static memfs_code read(pg_conn *c, void *ctx, memfs_error *err)
{
    reading *x = ctx;
    const block_query *q = x->judge->q;
    _cleanup_(composed_dispose) composed d = COMPOSED_INIT;
    place before = { false, 0, NULL, 0 }, after = { false, 0, NULL, 0 };
    memfs_code rc = MEMFS_OK;

    d.shape = shape_of(x->judge, x->is_count);
    if (!x->is_count)
        rc = find_place(c, d.shape, q->before, &before, err);
    if (rc == MEMFS_OK && !x->is_count)
        rc = find_place(c, d.shape, q->after, &after, err);
    if (rc == MEMFS_OK) {
        compose(&d, q, &before, &after);
        if (x->is_whole || (d.shape & BLOCKS_COUNT) != 0)
            rc = pg_query(c, KEY_SHAPE + d.shape, d.sql.ptr, &d.args, &x->whole, err);
        else
            rc = pg_query_rows(c, KEY_SHAPE + d.shape, d.sql.ptr, &d.args, pass_streamed, x, err);
    }
    free(before.path);
    free(after.path);
    return rc;
}

static memfs_code pass_whole(reading *x, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    bool is_done = false;

    for (int row = 0; rc == MEMFS_OK && !is_done && row < x->whole.n_rows; row++)
        rc = pass_row(x, &x->whole, row, &is_done, err);
    return rc;
}

static memfs_code take_tip(const reading *x, cache_tip *ret, memfs_error *err)
{
    memfs_str id = x->judge->q->agent_id;

    if (x->whole.n_rows == 0)
        return memfs_fail(err, MEMFS_ENOTFOUND, "the blocks of agent '%.*s' were never synced",
                          (int)id.len, id.ptr);
    ret->generation = pg_col_int(&x->whole, 0, COL_GENERATION);
    return pg_col_oid(&x->whole, 0, COL_TIP, &ret->commit, err);
}

memfs_code pg_blocks(cache *base, const block_query *q, cache_tip *ret_tip, block_row_fn fn,
                     void *ctx, memfs_error *err)
{
    _cleanup_(judge_dispose) judge j = { .q = q };
    reading x = { .judge = &j, .fn = fn, .ctx = ctx, .whole = PG_RESULT_INIT };
    memfs_code rc = judge_make(&j, err);

    x.is_whole = q->agent_id.len > 0 || (q->limit > 0 && !is_judged_here(&j));
    if (rc == MEMFS_OK)
        rc = pg_work(((pg_cache *)base)->db, PG_ONE, read, &x, err);
    if (rc == MEMFS_OK && ret_tip != NULL)
        rc = take_tip(&x, ret_tip, err);
    if (rc == MEMFS_OK && x.is_whole)
        rc = pass_whole(&x, err);
    pg_result_dispose(&x.whole);
    return rc;
}

memfs_code pg_count(cache *base, const block_query *q, int64_t *ret, memfs_error *err)
{
    _cleanup_(judge_dispose) judge j = { .q = q };
    reading x = { .judge = &j, .is_count = true, .whole = PG_RESULT_INIT };
    memfs_code rc = judge_make(&j, err);

    if (rc == MEMFS_OK)
        rc = pg_work(((pg_cache *)base)->db, PG_ONE, read, &x, err);
    if (rc == MEMFS_OK)
        *ret = is_judged_here(&j) ? x.n : x.whole.n_rows > 0 ? pg_col_int(&x.whole, 0, 0) : 0;
    pg_result_dispose(&x.whole);
    return rc;
}
