#include "cache/letta_int.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * Its writers hold a row for milliseconds.  What is held longer (a migration, somebody's open
 * transaction) is nothing that a push waits for: its rows follow.
 */
#define LOCK_MS 2000

static void close_letta(letta_db *db)
{
    pg_db_close(db->pg);
    free(db);
}

static const letta_backend POSTGRESQL = {
    .close = close_letta,
    .agents = letta_read_agents,
    .memory = letta_read_memory,
    .prepare = letta_make_tips,
    .look = letta_read_state,
    .write = letta_write_rows,
    .marks = letta_read_marks,
};

memfs_code letta_pg_open(const char *url, letta_db **ret, memfs_error *err)
{
    letta_db *db = mem_alloc(sizeof(*db));
    memfs_code rc;

    db->backend = &POSTGRESQL;
    rc = pg_db_open_as_is(url, LOCK_MS, &db->pg, err);
    if (rc == MEMFS_OK)
        rc = letta_schema_check(db, err);
    if (rc < 0) {
        close_letta(db);
        return memfs_context(err, "the database of Letta");
    }
    *ret = db;
    return rc;
}
