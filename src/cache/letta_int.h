/*
 * letta_int.h - what stands behind letta_db.h: the functions that the module brings, and what its
 * files share.
 */
#ifndef MEMFS_CACHE_LETTA_INT_H
#define MEMFS_CACHE_LETTA_INT_H

#include "cache/letta_db.h"
#include "cache/pg_db.h"

/* The contracts are those of letta_db.h. */
typedef struct letta_backend {
    void (*close)(letta_db *db);
    memfs_code (*agents)(letta_db *db, memfs_str after, int64_t limit, letta_agent_fn fn, void *ctx,
                         memfs_error *err);
    memfs_code (*memory)(letta_db *db, memfs_str agent_id, letta_agent_fn agent_fn,
                         letta_block_fn block_fn, void *ctx, memfs_error *err);
    memfs_code (*prepare)(letta_db *db, memfs_error *err);
    memfs_code (*look)(letta_db *db, memfs_str agent_id, const memfs_str *labels, size_t n_labels,
                       letta_state *ret, letta_block_fn fn, void *ctx, memfs_error *err);
    memfs_code (*write)(letta_db *db, memfs_str agent_id, const memfs_oid *from,
                        const memfs_oid *to, const letta_change *changes, size_t n,
                        memfs_error *err);
    memfs_code (*marks)(letta_db *db, memfs_str after, int64_t limit, letta_mark_fn fn, void *ctx,
                        memfs_error *err);
} letta_backend;

struct letta_db {
    const letta_backend *backend;
    pg_db *pg;
    char revision[64];
    bool is_known;
};

enum { PG_KEYS_LETTA = 3 << 16, PG_KEYS_LETTA_WRITE = 4 << 16 };

/* What PG_MODULE_LETTA of the module is. */
typedef memfs_code (*letta_open_fn)(const char *url, letta_db **ret, memfs_error *err);

/* letta_schema.c: revision and shape of the tables, or EINVALID. */
MEMFS_CHECK memfs_code letta_schema_check(letta_db *db, memfs_error *err);

/* letta_read.c */
memfs_code letta_read_agents(letta_db *db, memfs_str after, int64_t limit, letta_agent_fn fn,
                             void *ctx, memfs_error *err);
memfs_code letta_read_memory(letta_db *db, memfs_str agent_id, letta_agent_fn agent_fn,
                             letta_block_fn block_fn, void *ctx, memfs_error *err);
memfs_code letta_read_state(letta_db *db, memfs_str agent_id, const memfs_str *labels,
                            size_t n_labels, letta_state *ret, letta_block_fn fn, void *ctx,
                            memfs_error *err);
memfs_code letta_read_marks(letta_db *db, memfs_str after, int64_t limit, letta_mark_fn fn,
                            void *ctx, memfs_error *err);

/* letta_write.c */
memfs_code letta_make_tips(letta_db *db, memfs_error *err);
memfs_code letta_write_rows(letta_db *db, memfs_str agent_id, const memfs_oid *from,
                            const memfs_oid *to, const letta_change *changes, size_t n,
                            memfs_error *err);

/* letta_open.c: as letta_db_open, without a module. */
MEMFS_CHECK memfs_code letta_pg_open(const char *url, letta_db **ret, memfs_error *err);

#endif
