/*
 * cache.h - blocks as rows: a pure function of the tree at main and the attributes in the state,
 * and deletable at any time (design 8, reliability K1 to K7, D5).
 *
 * One small vtable (cache_backend, in cache_int.h) stands behind these calls: SQLite in a file of the
 * home, or PostgreSQL for many servers; database.h opens them.
 *
 * Invariants: an agent's rows and its synced tip change in one transaction; a reader sees one
 * commit; cache_apply names the tip it starts from, so an older commit never overwrites a
 * newer one.
 *
 * Errors, beside those named below, of every call: ECORRUPT the cache is damaged or its files were
 * taken away (cache_reset makes it anew), EUNAVAIL somebody held it for more than five seconds or
 * the database is away (F22),
 * ENOSPACE the disk is full; nothing of the call is then in the cache.
 *
 * Thread: any.  There is one writing connection behind a mutex (F24); readers get a connection of
 * their own thread from the cache, which keeps it until the thread ends.  A row function may read
 * from the same cache but not change it; of the agent whose rows it gets it sees the snapshot of the
 * call around it (SQLite) or a later one (PostgreSQL).  During cache_close no other thread may be in
 * a call.
 */
#ifndef MEMFS_CACHE_CACHE_H
#define MEMFS_CACHE_CACHE_H

#include "base/buf.h"
#include "base/oid.h"

typedef struct cache cache;

/* life cycle */
/*
 * Opens or makes the cache in `folder`/cache.db.  A cache that is corrupt, or of a newer schema, is
 * set aside as cache.db.broken-<time> and begun anew (F23); *ret_was_reset says so, and every agent
 * then has no synced tip.
 */
MEMFS_CHECK memfs_code cache_open_sqlite(const char *folder, cache **ret, bool *ret_was_reset,
                                         memfs_error *err);
void cache_close(cache *c);
/* May a call wait for a network?  Then it is no work for an event thread. */
bool cache_is_remote(const cache *c);
/*
 * What the rows depend on beside trees and state (settings, the version of f).  When it is not what
 * the cache was made with, all rows and tips are dropped and *ret_has_changed is true.
 */
MEMFS_CHECK memfs_code cache_rule(cache *c, memfs_str rule, bool *ret_has_changed,
                                  memfs_error *err);
/*
 * For one of several servers (PostgreSQL): says what its own rows depend on, and changes nothing
 * that others made.  *ret_is_other: the cache was made under another rule; until cache_rule() sets
 * this one, rows are not written (EUNAVAIL).  A cache that has no rule yet gets this one.
 * cache_rule() with the same rule may then be called while others use the cache.
 */
MEMFS_CHECK memfs_code cache_own_rule(cache *c, memfs_str rule, bool *ret_is_other,
                                      memfs_error *err);
/* False when its files were deleted or replaced under us.  Costs three stat(2). */
bool cache_is_there(cache *c);
/* Reads every page and index: ECORRUPT when something is wrong.  Slow, for verify. */
MEMFS_CHECK memfs_code cache_check(cache *c, memfs_error *err);
/*
 * Sets a damaged or vanished cache aside and begins an empty one, as cache_open_sqlite does;
 * readers end what they are at on the old one.  Does nothing when no call met damage since it was
 * last made, so that of many threads that met the same damage one resets it.
 */
MEMFS_CHECK memfs_code cache_reset(cache *c, memfs_error *err);

/* One block.  Slices are valid during the call they come with. */
typedef struct block_row {
    memfs_str agent_id;
    memfs_str label;
    memfs_str path;
    memfs_str id;
    memfs_str value;
    bool has_description;
    memfs_str description;
    int64_t limit;
    bool read_only;
    memfs_str metadata_json; /* an object */
    memfs_str tags_json;     /* an array of strings */
    bool hidden;
    memfs_str problem; /* why it is value-only or marked; empty when all is well */
    memfs_oid blob;
    int64_t bytes; /* of the file */
    int64_t created_at_us;
    int64_t updated_at_us;
} block_row;
typedef memfs_code (*block_row_fn)(const block_row *row, void *ctx, memfs_error *err);

/* reading */
typedef enum block_order {
    BLOCK_ORDER_CREATED, /* (created_at, id) */
    BLOCK_ORDER_ID,
    BLOCK_ORDER_PATH, /* (path, id), by bytes */
} block_order;

/* How many agents have a block, whatever else is asked of it (http-api 6.1). */
typedef struct block_agent_count {
    int64_t least, most;
    const int64_t *any_of; /* n of them; none: any number in between */
    size_t n;
    memfs_str nobody; /* an agent_id whose rows are no agent's */
} block_agent_count;

typedef struct block_query {
    memfs_str agent_id;     /* empty: all agents */
    memfs_str label;        /* empty: all */
    memfs_str id;           /* empty: all */
    memfs_str label_search; /* case-insensitive substrings; % and _ act as wildcards */
    memfs_str description_search;
    memfs_str value_search;
    const memfs_str *tags;
    size_t n_tags;
    bool match_all_tags; /* a tag that is given twice never matches (http-api 6.1) */
    const block_agent_count *agents; /* NULL: any number */
    bool show_hidden;
    block_order order;
    bool descending;
    /*
     * Block ids, relative to the order (http-api 1.6).  By id they need not exist; otherwise an
     * unknown one is ignored.
     */
    memfs_str before, after;
    int64_t limit; /* 0: all */
} block_query;

/* Rows in order; a return other than OK from fn ends the reading and is passed on. */
MEMFS_CHECK memfs_code cache_blocks(cache *c, const block_query *q, block_row_fn fn, void *ctx,
                                    memfs_error *err);
/* How many blocks match, copies of one block once; order, cursors and limit do not matter. */
MEMFS_CHECK memfs_code cache_count(cache *c, const block_query *q, int64_t *ret, memfs_error *err);

/* Where the rows of one agent come from.  ENOTFOUND: it was never synced. */
typedef struct cache_tip {
    memfs_oid commit;
    /* Counts up with each change; never the same again, also after forget or a new cache. */
    int64_t generation;
    bool is_followed; /* its versions go up to the commit (search.h) */
} cache_tip;
MEMFS_CHECK memfs_code cache_tip_get(cache *c, memfs_str agent_id, cache_tip *ret,
                                     memfs_error *err);
/*
 * Rows and tip of one agent from one snapshot.  *ret is written before the first row; ENOTFOUND
 * when it was never synced.
 */
MEMFS_CHECK memfs_code cache_agent_blocks(cache *c, const block_query *q, cache_tip *ret,
                                          block_row_fn fn, void *ctx, memfs_error *err);
/* Changes with every cache_apply of any agent: the ETag of lists over agents. */
MEMFS_CHECK memfs_code cache_generation(cache *c, int64_t *ret, memfs_error *err);

/* changing */
typedef struct cache_change {
    memfs_str path;       /* key within the agent */
    const block_row *row; /* NULL: the row goes */
} cache_change;

typedef struct cache_update {
    memfs_str agent_id;
    const memfs_oid *from; /* the tip that this starts from; NULL: none, or with replace_all any */
    memfs_oid to;
    bool replace_all; /* drop all of the agent's rows first (rebuild) */
    const cache_change *changes;
    size_t n_changes;
    /*
     * What the commits after `from` up to `to` made of each path (search.h), which is not much: it
     * is written where the agent's versions go up to `from`, and they go up to `to` then.  NULL, or
     * where they do not: they stay as they are.  Only with `from`, and not with replace_all.
     */
    const struct version_list *versions;
    int64_t holder;  /* of a cache that servers share: who has the commit (servers.h); 0: no such */
    memfs_str org;   /* the same, from NULL: the agent becomes known with its first tip; empty: not */
    int64_t now_us;  /* for that */
} cache_update;
/*
 * One transaction.  ECONFLICT: the synced tip is not `from`.  Rows that go are taken out first; a
 * row replaces the one with its path.  From a tip to itself without changes writes nothing (K7).
 */
MEMFS_CHECK memfs_code cache_apply(cache *c, const cache_update *u, memfs_error *err);
/* Drops rows and tip; an agent that was never synced is fine. */
MEMFS_CHECK memfs_code cache_forget(cache *c, memfs_str agent_id, memfs_error *err);
/*
 * Drops the rows, which are to be made anew when somebody asks for them: cache_tip_get() is ENOTFOUND
 * until then.  Where servers share the tip it stays, unlike in cache_forget().
 */
MEMFS_CHECK memfs_code cache_empty(cache *c, memfs_str agent_id, memfs_error *err);
/*
 * Makes sure that what was deleted is nowhere on disk (T28): freed space is overwritten as it is
 * freed, the log is emptied, caches that were set aside are removed.  EUNAVAIL: a reader held an
 * old snapshot for more than five seconds.
 */
MEMFS_CHECK memfs_code cache_scrub(cache *c, memfs_error *err);

#endif
