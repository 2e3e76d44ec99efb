#include "cache/pg_cache.h"
#include "cache/pg_state.h"
#include "cache/tags.h"

/*
 * As SQLITE_TAG_LISTS, but along the lists' hashes: an entry of an index has at most 2,700 bytes
 * here, and a list may have more.
 */
#define LISTS "(SELECT sha256(tags) AS hash, tags FROM "
#define FIRST " ORDER BY sha256(tags) LIMIT 1)"
#define HOP " UNION ALL SELECT n.hash, n.tags FROM found, LATERAL "
#define TAG_LISTS(table, which)                                                                    \
    "WITH RECURSIVE found AS (" LISTS table " WHERE " which FIRST HOP LISTS table " WHERE " which  \
    " AND sha256(tags) > found.hash" FIRST " n) SELECT tags FROM found"

enum { KEY_BLOCK_TAGS = PG_KEYS_CACHE + 96 };

typedef struct tags_reading {
    uint64_t key;
    const char *sql;
    tag_list_fn fn;
    void *ctx;
} tags_reading;

static memfs_code pass_list(const pg_result *row, void *ctx, bool *ret_is_done, memfs_error *err)
{
    const tags_reading *x = ctx;

    *ret_is_done = false;
    return x->fn(pg_col_str(row, 0, 0), x->ctx, err);
}

static memfs_code read_lists(pg_conn *c, void *ctx, memfs_error *err)
{
    const tags_reading *x = ctx;

    return pg_query_rows(c, x->key, x->sql, NULL, pass_list, ctx, err);
}

memfs_code pg_agent_tags(state *s, tag_list_fn fn, void *ctx, memfs_error *err)
{
    tags_reading x = { KEY_AGENT_TAGS, TAG_LISTS("agents", "deleted_at = 0 AND tags <> '[]'"), fn,
                       ctx };

    return pg_work(pg_state_db(s), PG_ONE, read_lists, &x, err);
}

memfs_code pg_block_tags(cache *c, tag_list_fn fn, void *ctx, memfs_error *err)
{
    tags_reading x = { KEY_BLOCK_TAGS, TAG_LISTS("blocks", "tags <> '[]'"), fn, ctx };

    return pg_work(((pg_cache *)c)->db, PG_ONE, read_lists, &x, err);
}
