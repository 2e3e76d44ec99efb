/*
 * sqlite_shape.h - the queries whose text depends on which filters are set.
 *
 * A set of filters is a set of bits, the shape; each shape has one text, put together from fixed
 * parts, in which the values are parameters with fixed numbers (T26).  So a shape is prepared once
 * a connection, and binding a value that the shape has no use for cannot happen.
 */
#ifndef MEMFS_CACHE_SQLITE_SHAPE_H
#define MEMFS_CACHE_SQLITE_SHAPE_H

#include "cache/cache.h"

enum shape_bits {
    SHAPE_AGENT = 1 << 0,
    SHAPE_LABEL = 1 << 1,
    SHAPE_ID = 1 << 2,
    SHAPE_LIKE_LABEL = 1 << 3,
    SHAPE_LIKE_DESCRIPTION = 1 << 4,
    SHAPE_LIKE_VALUE = 1 << 5,
    SHAPE_ANY_TAG = 1 << 6,
    SHAPE_ALL_TAGS = 1 << 7,
    SHAPE_NOT_HIDDEN = 1 << 8,
    SHAPE_BEFORE = 1 << 9,
    SHAPE_AFTER = 1 << 10,
    SHAPE_DESCENDING = 1 << 11,
    SHAPE_LIMIT = 1 << 12,
    SHAPE_COUNT = 1 << 13, /* the number of rows instead of the rows */
    SHAPE_BY_ID = 1 << 14, /* order; neither: (created_at, id) */
    SHAPE_BY_PATH = 1 << 15,
    SHAPE_AGENTS = 1 << 16,
};

/* Numbers of the parameters. */
enum shape_parameters {
    PARAM_AGENT = 1,
    PARAM_LABEL,
    PARAM_ID,
    PARAM_LIKE_LABEL,
    PARAM_LIKE_DESCRIPTION,
    PARAM_LIKE_VALUE,
    PARAM_TAGS, /* a JSON array */
    PARAM_N_TAGS,
    PARAM_LIMIT,
    PARAM_BEFORE, /* what the order starts with, but not the id */
    PARAM_BEFORE_ID,
    PARAM_AFTER,
    PARAM_AFTER_ID,
    PARAM_LEAST_AGENTS,
    PARAM_MOST_AGENTS,
    PARAM_NOBODY,
    PARAM_ANY_OF, /* a JSON array, or NULL */
};

/* Columns of a row, in order. */
enum shape_columns {
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
    COL_AGENT, /* only without SHAPE_AGENT */
};

/* The shape without cursors: whether they exist is not known yet. */
uint32_t shape_of(const block_query *q, bool is_count);
void shape_sql(uint32_t shape, memfs_buf *out);
/* Tags, and numbers of agents, as the parameters. */
void shape_tags(const memfs_str *tags, size_t n, memfs_buf *out);
void shape_numbers(const int64_t *numbers, size_t n, memfs_buf *out);

#endif
