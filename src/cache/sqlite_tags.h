/* sqlite_tags.h - tags.h in SQLite, the same for cache and state. */
#ifndef MEMFS_CACHE_SQLITE_TAGS_H
#define MEMFS_CACHE_SQLITE_TAGS_H

#include "cache/sqlite_db.h"
#include "cache/tags.h"

/*
 * Each list once, by hops: DISTINCT would walk over every entry of the index.  which: the words of
 * the index on tags.
 */
#define SQLITE_TAG_LISTS(table, which)                                                             \
    "WITH RECURSIVE found(tags) AS (SELECT min(tags) FROM " table " WHERE " which " UNION ALL "    \
    "SELECT (SELECT min(tags) FROM " table " WHERE " which " AND tags > found.tags) FROM found "   \
    "WHERE found.tags IS NOT NULL) SELECT tags FROM found WHERE tags IS NOT NULL"

/* key: of such a query. */
MEMFS_CHECK memfs_code sqlite_tag_lists(sqlite_db *db, uint64_t key, tag_list_fn fn, void *ctx,
                                        memfs_error *err);

#endif
