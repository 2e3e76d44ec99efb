#include "cache/letta_int.h"

#include "cache/database.h"
#include "cache/pg_module.h"

memfs_code letta_db_open(const char *url, letta_db **ret, memfs_error *err)
{
    letta_open_fn open_letta;
    memfs_code rc;

    if (!database_is_url(str_of(url)))
        return memfs_fail(err, MEMFS_EINVALID,
                          "the address of Letta's database looks like "
                          "postgresql://user@host/letta");
    /* the only way from an object to a function that POSIX gives */
    rc = database_symbol(PG_MODULE_LETTA, (void **)&open_letta, err);
    return rc < 0 ? rc : open_letta(url, ret, err);
}

void letta_db_close(letta_db *db)
{
    if (db != NULL)
        db->backend->close(db);
}

const char *letta_db_revision(const letta_db *db, bool *ret_is_known)
{
    *ret_is_known = db->is_known;
    return db->revision;
}

memfs_code letta_agents(letta_db *db, memfs_str after, int64_t limit, letta_agent_fn fn, void *ctx,
                        memfs_error *err)
{
    return db->backend->agents(db, after, limit, fn, ctx, err);
}

memfs_code letta_memory(letta_db *db, memfs_str agent_id, letta_agent_fn agent_fn,
                        letta_block_fn block_fn, void *ctx, memfs_error *err)
{
    return db->backend->memory(db, agent_id, agent_fn, block_fn, ctx, err);
}

memfs_code letta_db_prepare(letta_db *db, memfs_error *err)
{
    return db->backend->prepare(db, err);
}

memfs_code letta_look(letta_db *db, memfs_str agent_id, const memfs_str *labels, size_t n_labels,
                      letta_state *ret, letta_block_fn fn, void *ctx, memfs_error *err)
{
    return db->backend->look(db, agent_id, labels, n_labels, ret, fn, ctx, err);
}

memfs_code letta_write(letta_db *db, memfs_str agent_id, const memfs_oid *from, const memfs_oid *to,
                       const letta_change *changes, size_t n, memfs_error *err)
{
    return db->backend->write(db, agent_id, from, to, changes, n, err);
}

memfs_code letta_marks(letta_db *db, memfs_str after, int64_t limit, letta_mark_fn fn, void *ctx,
                       memfs_error *err)
{
    return db->backend->marks(db, after, limit, fn, ctx, err);
}
