#include "cache/sqlite_shape.h"

#include "base/json.h"

/*
 * Three forms of text:
 *
 *   point   an id, or a label of an agent: an index gives the row, no order needed
 *   walk    an index gives the rows in order, so a limit ends the reading early
 *   sort    no index has the order: the row numbers are sorted and cut first, without the values,
 * and the rows are fetched after that.  A sort of whole rows would move every value twice
 *
 * Order and filter by agent: a unary + keeps the planner from walking by_created or by_id through
 * all agents to find the few rows of one.
 */

uint32_t shape_of(const block_query *q, bool is_count)
{
    uint32_t shape = 0;

    shape |= q->agent_id.len > 0 ? SHAPE_AGENT : 0;
    shape |= q->label.len > 0 ? SHAPE_LABEL : 0;
    shape |= q->id.len > 0 ? SHAPE_ID : 0;
    shape |= q->label_search.len > 0 ? SHAPE_LIKE_LABEL : 0;
    shape |= q->description_search.len > 0 ? SHAPE_LIKE_DESCRIPTION : 0;
    shape |= q->value_search.len > 0 ? SHAPE_LIKE_VALUE : 0;
    if (q->n_tags > 0)
        shape |= q->match_all_tags ? SHAPE_ALL_TAGS : SHAPE_ANY_TAG;
    shape |= q->agents != NULL ? SHAPE_AGENTS : 0;
    shape |= q->show_hidden ? 0 : SHAPE_NOT_HIDDEN;
    if (is_count)
        return shape | SHAPE_COUNT;
    shape |= q->descending ? SHAPE_DESCENDING : 0;
    shape |= q->limit > 0 ? SHAPE_LIMIT : 0;
    shape |= q->order == BLOCK_ORDER_ID ? SHAPE_BY_ID : 0;
    shape |= q->order == BLOCK_ORDER_PATH ? SHAPE_BY_PATH : 0;
    return shape;
}

static bool has(uint32_t shape, uint32_t bits)
{
    return (shape & bits) == bits;
}

static bool is_point(uint32_t shape)
{
    return has(shape, SHAPE_ID) || has(shape, SHAPE_AGENT | SHAPE_LABEL);
}

static bool needs_sort(uint32_t shape)
{
    if (has(shape, SHAPE_BY_PATH))
        return !has(shape, SHAPE_AGENT);
    if (has(shape, SHAPE_BY_ID))
        return has(shape, SHAPE_LABEL);
    return has(shape, SHAPE_AGENT);
}

static void put_columns(uint32_t shape, memfs_buf *out)
{
    buf_puts(out,
             "b.label, b.path, b.id, b.description, b.char_limit, b.read_only, b.metadata, "
             "b.tags, b.hidden, b.problem, b.blob, b.bytes, b.created_at, b.updated_at, b.value");
    if (!has(shape, SHAPE_AGENT))
        buf_puts(out, ", (SELECT agent_id FROM agents a WHERE a.agent_no = b.agent_no)");
}

/* Each row of the table is one filter. */
static void put_filters(uint32_t shape, memfs_buf *out)
{
    static const struct {
        uint32_t bit;
        const char *sql;
    } filters[] = {
        { SHAPE_AGENT, "b.agent_no = (SELECT agent_no FROM agents WHERE agent_id = ?1)" },
        { SHAPE_LABEL, "b.label = ?2" },
        { SHAPE_ID, "b.id = ?3" },
        { SHAPE_NOT_HIDDEN, "b.hidden = 0" },
        { SHAPE_LIKE_LABEL, "memfs_contains(?4, b.label)" },
        { SHAPE_ANY_TAG, "EXISTS(SELECT 1 FROM json_each(b.tags) t WHERE t.value IN "
                         "(SELECT value FROM json_each(?7)))" },
        { SHAPE_ALL_TAGS,
          "(SELECT count(DISTINCT t.value) FROM json_each(b.tags) t WHERE t.value IN "
          "(SELECT value FROM json_each(?7))) = ?8" },
        { SHAPE_LIKE_DESCRIPTION, "memfs_contains(?5, b.description)" },
        { SHAPE_LIKE_VALUE, "memfs_contains(?6, b.value)" },
        { SHAPE_AGENTS,
          "EXISTS(SELECT 1 FROM (SELECT count(*) AS n FROM blocks c WHERE c.id = b.id AND "
          "c.agent_no IS NOT (SELECT agent_no FROM agents WHERE agent_id = ?16)) "
          "WHERE n BETWEEN ?14 AND ?15 "
          "AND (?17 IS NULL OR n IN (SELECT value FROM json_each(?17))))" },
    };

    buf_puts(out, " WHERE 1");
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        if (!has(shape, filters[i].bit))
            continue;
        buf_puts(out, " AND ");
        buf_puts(out, filters[i].sql);
    }
}

/* What the order starts with; NULL when it is the id alone. */
static const char *first_key(uint32_t shape)
{
    if (has(shape, SHAPE_BY_ID))
        return NULL;
    if (has(shape, SHAPE_BY_PATH))
        return "b.path";
    return has(shape, SHAPE_AGENT) ? "+b.created_at" : "b.created_at";
}

static const char *id_key(uint32_t shape)
{
    return needs_sort(shape) ? "+b.id" : "b.id";
}

static void put_cursor(uint32_t shape, bool is_after, memfs_buf *out)
{
    const char *sign = is_after != has(shape, SHAPE_DESCENDING) ? " > " : " < ";
    const char *first = first_key(shape);

    buf_puts(out, first != NULL ? " AND (" : " AND ");
    if (first != NULL) {
        buf_puts(out, first);
        buf_puts(out, ", ");
    }
    buf_puts(out, id_key(shape));
    buf_puts(out, first != NULL ? ")" : "");
    buf_puts(out, sign);
    if (first != NULL)
        buf_puts(out, is_after ? "(?12, ?13)" : "(?10, ?11)");
    else
        buf_puts(out, is_after ? "?13" : "?11");
}

static void put_order(uint32_t shape, memfs_buf *out)
{
    const char *direction = has(shape, SHAPE_DESCENDING) ? " DESC" : "";
    const char *first = first_key(shape);

    buf_puts(out, " ORDER BY ");
    if (first != NULL) {
        buf_puts(out, first);
        buf_puts(out, direction);
        buf_puts(out, ", ");
    }
    buf_puts(out, id_key(shape));
    buf_puts(out, direction);
}

/* From FROM to the end. */
static void put_rest(uint32_t shape, memfs_buf *out)
{
    buf_puts(out, " FROM blocks b");
    put_filters(shape, out);
    if (has(shape, SHAPE_BEFORE))
        put_cursor(shape, false, out);
    if (has(shape, SHAPE_AFTER))
        put_cursor(shape, true, out);
    if (has(shape, SHAPE_COUNT))
        return;
    if (!is_point(shape))
        put_order(shape, out);
    if (has(shape, SHAPE_LIMIT))
        buf_puts(out, " LIMIT ?9");
    else if (!is_point(shape) && needs_sort(shape))
        buf_puts(out, " LIMIT -1"); /* without a limit, sqlite takes the order of a subquery away */
}

void shape_sql(uint32_t shape, memfs_buf *out)
{
    if (has(shape, SHAPE_COUNT)) {
        buf_puts(out, has(shape, SHAPE_AGENT) ? "SELECT count(*)" : "SELECT count(DISTINCT b.id)");
        put_rest(shape, out);
        return;
    }
    buf_puts(out, "SELECT ");
    put_columns(shape, out);
    if (is_point(shape) || !needs_sort(shape)) {
        put_rest(shape, out);
        return;
    }
    buf_puts(out, " FROM (SELECT b.block_no AS no");
    put_rest(shape, out);
    buf_puts(out, ") s CROSS JOIN blocks b ON b.block_no = s.no");
}

void shape_tags(const memfs_str *tags, size_t n, memfs_buf *out)
{
    json_writer w = JSON_WRITER_INIT(out);

    jw_array(&w);
    for (size_t i = 0; i < n; i++)
        jw_str(&w, tags[i]);
    jw_array_end(&w);
}

void shape_numbers(const int64_t *numbers, size_t n, memfs_buf *out)
{
    json_writer w = JSON_WRITER_INIT(out);

    jw_array(&w);
    for (size_t i = 0; i < n; i++)
        jw_int(&w, numbers[i]);
    jw_array_end(&w);
}
