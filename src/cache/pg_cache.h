/*
 * pg_cache.h - what the files of the cache in PostgreSQL share.
 */
#ifndef MEMFS_CACHE_PG_CACHE_H
#define MEMFS_CACHE_PG_CACHE_H

#include "cache/cache_int.h"
#include "cache/pg_db.h"

#include <stdatomic.h>

typedef struct pg_cache {
    cache base;
    pg_db *db;
    memfs_buf rule; /* as last told; changed by cache_rule only, as is has_rule */
    bool has_rule;
    atomic_bool has_told; /* that the database has another one */
} pg_cache;

/* The parts of cache_backend that read rows, see there. */
MEMFS_CHECK memfs_code pg_blocks(cache *c, const block_query *q, cache_tip *ret_tip,
                                 block_row_fn fn, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code pg_count(cache *c, const block_query *q, int64_t *ret, memfs_error *err);

/* pg_tags.c */
MEMFS_CHECK memfs_code pg_block_tags(cache *c, tag_list_fn fn, void *ctx, memfs_error *err);

/* pg_care.c */
MEMFS_CHECK memfs_code pg_rule(cache *c, memfs_str rule, bool *ret_has_changed, memfs_error *err);
MEMFS_CHECK memfs_code pg_own_rule(cache *c, memfs_str rule, bool *ret_is_other, memfs_error *err);
MEMFS_CHECK memfs_code pg_check(cache *c, memfs_error *err);
MEMFS_CHECK memfs_code pg_reset(cache *c, memfs_error *err);
MEMFS_CHECK memfs_code pg_scrub(cache *c, memfs_error *err);

/* pg_search.c: the parts that are about search.h, see cache_backend */
MEMFS_CHECK memfs_code pg_search(cache *c, const search_query *q, block_row_fn fn, void *ctx,
                                 memfs_error *err);
MEMFS_CHECK memfs_code pg_past_tip(cache *c, memfs_str agent_id, memfs_oid *ret, memfs_error *err);
MEMFS_CHECK memfs_code pg_past_behind(cache *c, memfs_str after, int64_t max, agent_id_fn fn,
                                      void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code pg_versions(cache *c, memfs_str agent_id, memfs_str path, int64_t before,
                                   int64_t limit, version_row_fn fn, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code pg_search_past(cache *c, const search_query *q, version_row_fn fn, void *ctx,
                                      memfs_error *err);
MEMFS_CHECK memfs_code pg_past_add(cache *c, const past_update *u, memfs_error *err);
/*
 * The INSERT of versions, for a statement that is put together: of an agent whose number is the
 * expression agent_no, which may stand in `of` ("moved m, "); `where` is " WHERE ..." or empty.
 */
void pg_put_versions(memfs_buf *sql, pg_args *args, const char *agent_no, const char *of,
                     const char *where, const version_row *rows, size_t n);
/* As sqlite_search_check. */
MEMFS_CHECK memfs_code pg_search_check(cache *c, memfs_error *err);

/* pg_servers.c */
/* Says that server `holder` moved something (servers.h); 0: there are no others. */
void pg_tell_others(cache *c, int64_t holder);
MEMFS_CHECK memfs_code pg_head(cache *c, memfs_str agent_id, cache_head *ret, memfs_error *err);
MEMFS_CHECK memfs_code pg_moves(cache *c, int64_t after, size_t max, cache_move_fn fn, void *ctx,
                                memfs_error *err);

#endif
