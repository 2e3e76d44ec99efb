#include "cache/sqlite_cache.h"
#include "cache/sqlite_int.h"
#include "cache/sqlite_shape.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * Reading rows.
 *
 * An agent's tip and rows are read from one snapshot by letting two queries overlap: the query for
 * the tip has found its row and is not ended before the rows are read, and as long as a query is
 * open, its connection stays in its snapshot.  That saves the BEGIN and COMMIT that would cost as
 * much as the reading.
 */

#define KEY_SHAPE (SQLITE_KEY_BLOCKS << 1) /* with the shape in the low half */
#define KEY_CURSOR SQLITE_KEY_BLOCKS

void sqlite_blocks_sql(uint64_t key, memfs_buf *out)
{
    if (key == KEY_CURSOR)
        buf_puts(out, "SELECT created_at, path FROM blocks WHERE id = ?1 LIMIT 1");
    else
        shape_sql((uint32_t)key, out);
}

/* Patterns and tags of one query: what its parameters borrow. */
typedef struct filters {
    like_pattern *label, *description, *value; /* NULL: not searched */
    memfs_buf tags, any_of;
} filters;
#define FILTERS_INIT                                                                               \
    {                                                                                              \
        .tags = MEMFS_BUF_INIT(1 << 20), .any_of = MEMFS_BUF_INIT(1 << 20)                         \
    }

static void filters_dispose(filters *f)
{
    free(f->label);
    free(f->description);
    free(f->value);
    buf_dispose(&f->tags);
    buf_dispose(&f->any_of);
}

static memfs_code compile(memfs_str text, like_pattern **ret, memfs_error *err)
{
    if (text.len == 0)
        return MEMFS_OK;
    *ret = mem_alloc(sizeof(**ret));
    return like_compile(text, *ret, err);
}

static memfs_code filters_make(const block_query *q, filters *f, memfs_error *err)
{
    memfs_code rc;

    rc = compile(q->label_search, &f->label, err);
    if (rc == MEMFS_OK)
        rc = compile(q->description_search, &f->description, err);
    if (rc == MEMFS_OK)
        rc = compile(q->value_search, &f->value, err);
    if (rc < 0)
        return rc;
    if (q->agents != NULL && q->agents->n > 0)
        shape_numbers(q->agents->any_of, q->agents->n, &f->any_of);
    if (q->n_tags > 0)
        shape_tags(q->tags, q->n_tags, &f->tags);
    rc = buf_check(&f->any_of, "the list of numbers", err);
    return rc < 0 ? rc : buf_check(&f->tags, "the list of tags", err);
}

static void bind_agents(sqlite_query *s, const block_agent_count *agents, const filters *f)
{
    sqlite_bind_int(s, PARAM_LEAST_AGENTS, agents->least);
    sqlite_bind_int(s, PARAM_MOST_AGENTS, agents->most);
    sqlite_bind_str(s, PARAM_NOBODY, agents->nobody);
    if (f->any_of.len > 0) /* else it stays NULL */
        sqlite_bind_str(s, PARAM_ANY_OF, buf_str(&f->any_of));
}

static void bind_filters(sqlite_query *s, uint32_t shape, const block_query *q, const filters *f)
{
    if (shape & SHAPE_AGENT)
        sqlite_bind_str(s, PARAM_AGENT, q->agent_id);
    if (shape & SHAPE_LABEL)
        sqlite_bind_str(s, PARAM_LABEL, q->label);
    if (shape & SHAPE_ID)
        sqlite_bind_str(s, PARAM_ID, q->id);
    if (shape & SHAPE_LIKE_LABEL)
        sqlite_bind_like(s, PARAM_LIKE_LABEL, f->label);
    if (shape & SHAPE_LIKE_DESCRIPTION)
        sqlite_bind_like(s, PARAM_LIKE_DESCRIPTION, f->description);
    if (shape & SHAPE_LIKE_VALUE)
        sqlite_bind_like(s, PARAM_LIKE_VALUE, f->value);
    if (shape & (SHAPE_ANY_TAG | SHAPE_ALL_TAGS))
        sqlite_bind_str(s, PARAM_TAGS, buf_str(&f->tags));
    if (shape & SHAPE_ALL_TAGS)
        sqlite_bind_int(s, PARAM_N_TAGS, (int64_t)q->n_tags);
    if (shape & SHAPE_LIMIT)
        sqlite_bind_int(s, PARAM_LIMIT, q->limit);
    if (shape & SHAPE_AGENTS)
        bind_agents(s, q->agents, f);
}

/*
 * Where a cursor stands in the order.  place stays open while its path is bound.  An order by id
 * needs no look: the id is the place.
 */
static memfs_code find_cursor(sqlite_conn *c, uint32_t shape, memfs_str id, sqlite_query *place,
                              bool *ret_is_set, memfs_error *err)
{
    memfs_code rc;

    *ret_is_set = id.len > 0;
    if (id.len == 0 || (shape & SHAPE_BY_ID) != 0)
        return MEMFS_OK;
    rc = sqlite_query_get(c, KEY_CURSOR, place, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(place, 1, id);
    return sqlite_step(place, ret_is_set, err);
}

static void bind_cursor(sqlite_query *s, uint32_t shape, int first, memfs_str id,
                        const sqlite_query *place)
{
    if (shape & SHAPE_BY_PATH)
        sqlite_bind_str(s, first, sqlite_col_str(place, 1));
    else if (!(shape & SHAPE_BY_ID))
        sqlite_bind_int(s, first, sqlite_col_int(place, 0));
    sqlite_bind_str(s, first + 1, id);
}

static memfs_code row_of(const sqlite_query *s, uint32_t shape, const block_query *q,
                         block_row *ret, memfs_error *err)
{
    ret->agent_id = shape & SHAPE_AGENT ? q->agent_id : sqlite_col_str(s, COL_AGENT);
    ret->label = sqlite_col_str(s, COL_LABEL);
    ret->path = sqlite_col_str(s, COL_PATH);
    ret->id = sqlite_col_str(s, COL_ID);
    ret->value = sqlite_col_str(s, COL_VALUE);
    ret->has_description = !sqlite_col_is_null(s, COL_DESCRIPTION);
    ret->description = sqlite_col_str(s, COL_DESCRIPTION);
    ret->limit = sqlite_col_int(s, COL_LIMIT);
    ret->read_only = sqlite_col_int(s, COL_READ_ONLY) != 0;
    ret->metadata_json = sqlite_col_str(s, COL_METADATA);
    ret->tags_json = sqlite_col_str(s, COL_TAGS);
    ret->hidden = sqlite_col_int(s, COL_HIDDEN) != 0;
    ret->problem = sqlite_col_str(s, COL_PROBLEM);
    ret->bytes = sqlite_col_int(s, COL_BYTES);
    ret->created_at_us = sqlite_col_int(s, COL_CREATED_AT);
    ret->updated_at_us = sqlite_col_int(s, COL_UPDATED_AT);
    return sqlite_col_oid(s, COL_BLOB, &ret->blob, err);
}

static memfs_code pass_rows(sqlite_query *s, uint32_t shape, const block_query *q, block_row_fn fn,
                            void *ctx, memfs_error *err)
{
    bool is_row = false;
    block_row row;
    memfs_code rc;

    for (;;) {
        rc = sqlite_step(s, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        rc = row_of(s, shape, q, &row, err);
        if (rc == MEMFS_OK)
            rc = fn(&row, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
}

static memfs_code read_rows(sqlite_conn *c, const block_query *q, const filters *f, block_row_fn fn,
                            void *ctx, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query before = SQLITE_QUERY_INIT;
    _cleanup_(sqlite_query_done) sqlite_query after = SQLITE_QUERY_INIT;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    uint32_t shape = shape_of(q, false);
    bool has_before = false, has_after = false;
    memfs_code rc;

    rc = find_cursor(c, shape, q->before, &before, &has_before, err);
    if (rc == MEMFS_OK)
        rc = find_cursor(c, shape, q->after, &after, &has_after, err);
    if (rc < 0)
        return rc;
    shape |= has_before ? SHAPE_BEFORE : 0;
    shape |= has_after ? SHAPE_AFTER : 0;
    rc = sqlite_query_get(c, KEY_SHAPE | shape, &s, err);
    if (rc < 0)
        return rc;
    bind_filters(&s, shape, q, f);
    if (has_before)
        bind_cursor(&s, shape, PARAM_BEFORE, q->before, &before);
    if (has_after)
        bind_cursor(&s, shape, PARAM_AFTER, q->after, &after);
    return pass_rows(&s, shape, q, fn, ctx, err);
}

memfs_code sqlite_blocks(cache *base, const block_query *q, cache_tip *ret_tip, block_row_fn fn,
                         void *ctx, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query at_tip = SQLITE_QUERY_INIT;
    _cleanup_(filters_dispose) filters f = FILTERS_INIT;
    memfs_code rc;

    rc = filters_make(q, &f, err);
    if (rc == MEMFS_OK)
        rc = sqlite_read_begin(sqlite_cache_db(base), &c, err);
    if (rc == MEMFS_OK && ret_tip != NULL)
        rc = sqlite_known_tip(c, q->agent_id, &at_tip, ret_tip, err);
    if (rc < 0)
        return rc;
    return read_rows(c, q, &f, fn, ctx, err);
}

memfs_code sqlite_blocks_count(cache *base, const block_query *q, int64_t *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    _cleanup_(filters_dispose) filters f = FILTERS_INIT;
    uint32_t shape = shape_of(q, true);
    memfs_code rc;

    rc = filters_make(q, &f, err);
    if (rc == MEMFS_OK)
        rc = sqlite_read_begin(sqlite_cache_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_SHAPE | shape, &s, err);
    if (rc < 0)
        return rc;
    bind_filters(&s, shape, q, &f);
    return sqlite_read_int(&s, ret, err);
}
