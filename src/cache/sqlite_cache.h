/*
 * sqlite_cache.h - what the files of the cache in SQLite share.
 */
#ifndef MEMFS_CACHE_SQLITE_CACHE_H
#define MEMFS_CACHE_SQLITE_CACHE_H

#include "cache/cache_int.h"
#include "cache/sqlite_db.h"

sqlite_db *sqlite_cache_db(cache *c);
/* The one number that a query answers; 0: no row. */
MEMFS_CHECK memfs_code sqlite_read_int(sqlite_query *s, int64_t *ret, memfs_error *err);
/* A query whose one parameter is an agent's number. */
MEMFS_CHECK memfs_code sqlite_run_for_agent(sqlite_conn *c, uint64_t key, int64_t agent_no,
                                            memfs_error *err);
/*
 * An agent's tip.  `at` stays open, and with it the snapshot, until the caller is done with it.
 * ENOTFOUND: never synced.
 */
MEMFS_CHECK memfs_code sqlite_known_tip(sqlite_conn *c, memfs_str agent_id, sqlite_query *at,
                                        cache_tip *ret, memfs_error *err);

/* sqlite_blocks.c: blocks and count of cache_backend, see there. */
#define SQLITE_KEY_BLOCKS (UINT64_C(1) << 32) /* and above: keys of its queries */
void sqlite_blocks_sql(uint64_t key, memfs_buf *out);
MEMFS_CHECK memfs_code sqlite_blocks(cache *c, const block_query *q, cache_tip *ret_tip,
                                     block_row_fn fn, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_blocks_count(cache *c, const block_query *q, int64_t *ret,
                                           memfs_error *err);

/* sqlite_search.c: the parts of cache_backend that are about search.h, see there. */
#define SQLITE_KEY_SEARCH 64 /* and above, below SQLITE_KEY_BLOCKS: keys of its queries */
const char *sqlite_search_sql(uint64_t key);
MEMFS_CHECK memfs_code sqlite_search(cache *c, const search_query *q, block_row_fn fn, void *ctx,
                                     memfs_error *err);
MEMFS_CHECK memfs_code sqlite_past_tip(cache *c, memfs_str agent_id, memfs_oid *ret,
                                       memfs_error *err);
MEMFS_CHECK memfs_code sqlite_past_behind(cache *c, memfs_str after, int64_t max, agent_id_fn fn,
                                          void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_versions(cache *c, memfs_str agent_id, memfs_str path, int64_t before,
                                       int64_t limit, version_row_fn fn, void *ctx,
                                       memfs_error *err);
MEMFS_CHECK memfs_code sqlite_search_past(cache *c, const search_query *q, version_row_fn fn,
                                          void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code sqlite_past_add(cache *c, const past_update *u, memfs_error *err);
/* Within a writing transaction: the versions that come with new rows. */
MEMFS_CHECK memfs_code sqlite_past_go_on(sqlite_conn *c, int64_t agent_no, const cache_update *u,
                                         memfs_error *err);
/* The same: an agent has no versions any more. */
MEMFS_CHECK memfs_code sqlite_past_drop(sqlite_conn *c, int64_t agent_no, memfs_error *err);
/* Is every index what its rows say, and is each row what its texts say?  Reads all: for verify. */
MEMFS_CHECK memfs_code sqlite_search_check(cache *c, memfs_error *err);
/* What was deleted leaves the indexes, which otherwise keep it until they are folded (T28). */
MEMFS_CHECK memfs_code sqlite_search_scrub(cache *c, memfs_error *err);

#endif
