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
 * url: postgresql://...  EINVALID: it is no such url, the module is not installed, or the tables
 * are of another shape; the message names their revision and what differs.  ENOTFOUND: a database
 * without Letta's tables: another one, or Letta's server never ran on it yet.  Writes nothing.
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
    memfs_str tags_json; /* an array of strings, sorted, without spaces */
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
    memfs_str tags_json; /* an array of strings, sorted, without spaces */
    int64_t created_at_us, updated_at_us;
    int64_t version;  /* counts up with each change that Letta or memfs makes */
    int64_t n_agents; /* that share this block, this one included */
    bool is_foreign;  /* of another organization than the agent: Letta's API does not show it */
} letta_block;
typedef memfs_code (*letta_block_fn)(const letta_block *block, void *ctx, memfs_error *err);

/*
 * Up to `limit` agents behind the id `after` (empty: from the first), by id.  Those that Letta has
 * marked as deleted are left out.
 */
MEMFS_CHECK memfs_code letta_agents(letta_db *db, memfs_str after, int64_t limit, letta_agent_fn fn,
                                    void *ctx, memfs_error *err);
/*
 * One agent and then its blocks, by label, from one snapshot.  agent_fn may be NULL.  ENOTFOUND: it
 * has no such agent.  Both are called when the reading is over.
 */
MEMFS_CHECK memfs_code letta_memory(letta_db *db, memfs_str agent_id, letta_agent_fn agent_fn,
                                    letta_block_fn block_fn, void *ctx, memfs_error *err);

/*
 * writing: tables mode, where blocks follow the main of a repository
 *
 *     letta_look(...)    what is there, and of which commit
 *     letta_write(...)   what has to change, from what was seen
 *
 * Which commit an agent's rows are of stands in schema `memfs_letta` of the same database and is
 * written with the rows in one transaction: so it tells the truth after a crash of either side, and
 * after a restore of the database too.
 */
/* Makes that schema; several servers may at once.  EDENIED: the user may not. */
MEMFS_CHECK memfs_code letta_db_prepare(letta_db *db, memfs_error *err);

typedef struct letta_state {
    bool has_tip; /* false: memfs never wrote this agent's rows */
    memfs_oid tip;
    /* Letta's tables were made anew since, and the tip was not: it says nothing of these rows. */
    bool is_torn;
    bool has_git_memory;
} letta_state;
/*
 * Tip and blocks from one snapshot, as letta_memory; labels NULL: all blocks, else those of these
 * labels.  *ret is written before the first block.
 */
MEMFS_CHECK memfs_code letta_look(letta_db *db, memfs_str agent_id, const memfs_str *labels,
                                  size_t n_labels, letta_state *ret, letta_block_fn fn, void *ctx,
                                  memfs_error *err);

/* Which fields of a row are written; the others stay as they are. */
enum {
    LETTA_VALUE = 1 << 0,
    LETTA_DESCRIPTION = 1 << 1,
    LETTA_LIMIT = 1 << 2,
    LETTA_READ_ONLY = 1 << 3,
    LETTA_METADATA = 1 << 4,
};
typedef struct letta_change {
    memfs_str id;    /* of a new row: what it is to be, if that is not another's already */
    int64_t version; /* as seen by letta_look; 0: the row is new */
    bool is_gone;    /* from this agent; the row goes with the last who has it */
    memfs_str label; /* of a new row */
    unsigned sets;   /* of a new row the fields that are left out take Letta's defaults */
    memfs_str value, description; /* UTF-8 without NUL */
    int64_t limit;
    bool read_only;
    memfs_str metadata_json; /* an object */
    memfs_str like_id; /* a new row takes limit, hidden and tags of this one; empty: of none */
} letta_change;
/*
 * One transaction: all or nothing.  ECONFLICT: tip or rows are not as they were seen, nothing was
 * written; look again.  ENOTFOUND: the agent is gone.  from NULL: it had no tip.
 */
MEMFS_CHECK memfs_code letta_write(letta_db *db, memfs_str agent_id, const memfs_oid *from,
                                   const memfs_oid *to, const letta_change *changes, size_t n,
                                   memfs_error *err);

/*
 * Of up to `limit` agents behind `after`: a number that changes whenever a block of the agent is
 * written, attached or detached by anybody.  It is the sum (modulo 2^64) of one number a row, so
 * that a writer knows which one its own changes lead to.
 */
typedef memfs_code (*letta_mark_fn)(memfs_str agent_id, uint64_t mark, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code letta_marks(letta_db *db, memfs_str after, int64_t limit, letta_mark_fn fn,
                                   void *ctx, memfs_error *err);
uint64_t letta_mark_of(memfs_str block_id, int64_t version);
/* What is added to the mark by these changes, once they are written. */
uint64_t letta_mark_moves(const letta_change *changes, size_t n);

#endif
