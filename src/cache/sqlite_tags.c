#include "cache/sqlite_tags.h"

memfs_code sqlite_tag_lists(sqlite_db *db, uint64_t key, tag_list_fn fn, void *ctx,
                            memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    bool is_row = true;
    memfs_code rc;

    rc = sqlite_read_begin(db, &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, key, &s, err);
    while (rc == MEMFS_OK && is_row) {
        rc = sqlite_step(&s, &is_row, err);
        if (rc == MEMFS_OK && is_row)
            rc = fn(sqlite_col_str(&s, 0), ctx, err);
    }
    return rc;
}
