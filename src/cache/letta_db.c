#include "cache/letta_int.h"

#include "base/hash.h"
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
    if (rc == MEMFS_ENOTFOUND) /* the module: tables of Letta may come, it does not */
        return err->code = MEMFS_EINVALID;
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

/* As MARKS of letta_read.c has it. */
uint64_t letta_mark_of(memfs_str block_id, int64_t version)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    uint8_t sum[16];
    uint64_t n = 0;

    buf_add_str(&text, block_id);
    buf_printf(&text, " %lld", (long long)version);
    hash_md5(buf_str(&text), sum);
    for (int i = 0; i < 8; i++)
        n = n << 8 | sum[i];
    return n >> 4; /* 15 digits, so that PostgreSQL does not take it for a negative one */
}

uint64_t letta_mark_moves(const letta_change *changes, size_t n)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        const letta_change *c = &changes[i];

        if (c->version != 0)
            sum -= letta_mark_of(c->id, c->version);
        if (!c->is_gone)
            sum += letta_mark_of(c->id, c->version + 1);
    }
    return sum;
}
