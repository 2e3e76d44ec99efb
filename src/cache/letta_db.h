/*
 * letta_db.h - the database of a Letta server: its agents and blocks, read and written beside the
 * server that owns it (contract: Letta 0.16.7, alembic revision 1c28e167b74f).
 *
 * The tables are Letta's: they are read as they are, written by the rules that its own writers keep
 * (letta_write), and never altered.  Opening looks at the catalogue: a revision that this memfs was
 * not tested with is good as long as each table, column and constraint that is used here is as it
 * has to be.
 *
 * Like the cache in PostgreSQL it is in the module memfs-postgresql.so (database.h), and has pool,
 * bounds and errors of pg_db.h: EUNAVAIL the database is away, EDENIED a right is missing.
 *
 * Thread: any, but open and close.
 */
#ifndef MEMFS_CACHE_LETTA_DB_H
#define MEMFS_CACHE_LETTA_DB_H

#include "base/buf.h"
#include "base/oid.h"

typedef struct letta_db letta_db;

/* life cycle */
/*
 * url: postgresql://...  EINVALID: there is no Letta database at it, or one with tables of another
 * shape; the message names its revision and what differs.  ENOTFOUND: the module is not installed.
 * Writes nothing.
 */
MEMFS_CHECK memfs_code letta_db_open(const char *url, letta_db **ret, memfs_error *err);
void letta_db_close(letta_db *db); /* NULL is fine */
/* Of alembic; *ret_is_known: this memfs was tested with it. */
const char *letta_db_revision(const letta_db *db, bool *ret_is_known);

/* reading.  Slices are valid during the call they come with. */
typedef struct letta_agent {
    memfs_str id;
    memfs_str org_id;
    memfs_str name; /* "" where it has none */
    bool has_description;
    memfs_str description;
    memfs_str tags_json; /* an array of strings, sorted */
    bool has_git_memory; /* the tag git-memory-enabled */
    int64_t created_at_us, updated_at_us;
} letta_agent;
typedef memfs_code (*letta_agent_fn)(const letta_agent *agent, void *ctx, memfs_error *err);

typedef struct letta_block {
    memfs_str id;
    memfs_str label; /* any text that PostgreSQL holds: not always one that can be a path */
    memfs_str value;
    bool has_description;
    memfs_str description;
    int64_t limit;
    memfs_str metadata_json; /* an object; "{}" where the row has none */
    bool read_only;
    bool hidden;
    memfs_str tags_json; /* an array of strings, sorted */
    int64_t created_at_us, updated_at_us;
    int64_t version;  /* counts up with each change that Letta or memfs makes */
    int64_t n_agents; /* that share this block, this one included */
} letta_block;
typedef memfs_code (*letta_block_fn)(const letta_block *block, void *ctx, memfs_error *err);

/*
 * Up to `limit` agents behind the id `after` (empty: from the first), by id.  Those that Letta has
 * marked as deleted are left out.
 */
MEMFS_CHECK memfs_code letta_agents(letta_db *db, memfs_str after, int64_t limit,
                                    letta_agent_fn fn, void *ctx, memfs_error *err);
/*
 * One agent and then its blocks, by label, from one snapshot.  agent_fn may be NULL.  ENOTFOUND: it
 * has no such agent.  Both are called when the reading is over.
 */
MEMFS_CHECK memfs_code letta_memory(letta_db *db, memfs_str agent_id, letta_agent_fn agent_fn,
                                    letta_block_fn block_fn, void *ctx, memfs_error *err);

#endif
