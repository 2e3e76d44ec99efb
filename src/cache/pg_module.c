#include "cache/pg_module.h"

#include "cache/letta_int.h"
#include "cache/pg_backend.h"

memfs_code memfs_postgresql_open(const char *url, bool is_shared, state **ret_state,
                                 cache **ret_cache, memfs_error *err);

memfs_code memfs_postgresql_open(const char *url, bool is_shared, state **ret_state,
                                 cache **ret_cache, memfs_error *err)
{
    pg_db *db;
    memfs_code rc = pg_db_open_serving(url, is_shared, &db, err);

    if (rc < 0)
        return rc;
    *ret_state = pg_state_new(db);
    *ret_cache = pg_cache_new(db);
    pg_db_close(db);
    return MEMFS_OK;
}

memfs_code memfs_postgresql_letta(const char *url, letta_db **ret, memfs_error *err);

memfs_code memfs_postgresql_letta(const char *url, letta_db **ret, memfs_error *err)
{
    return letta_pg_open(url, ret, err);
}
