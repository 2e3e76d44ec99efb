/*
 * search.h - which blocks have some words, and what a memory's files once were.
 *
 * Both belong to the cache: what is here follows from git, and a cache that is deleted has it
 * again.
 *
 * The words of a block (its label, description and value; words.h) are written in the transaction
 * that writes its row, whoever writes it.  An index of words answers which blocks have all of them;
 * phrases, ranks and snippets are find.h's, so both backends find the same.
 *
 * Versions are what each path of a memory was, commit after commit, parents first; with the words
 * that a version took away from the one before it.  The first are written by whoever needs them
 * (cache_past_add); from then on those of new commits come in the transaction that moves the tip
 * (cache_update.versions).  A stretch of commits that came without them leaves the versions behind
 * the tip until somebody needs them again.  They never go beyond it: what makes all rows of an agent
 * anew drops its versions.
 *
 * Errors and threads: as cache.h says.
 */
#ifndef MEMFS_CACHE_SEARCH_H
#define MEMFS_CACHE_SEARCH_H

#include "cache/cache.h"
#include "cache/find.h"

typedef struct search_query {
    memfs_str agent_id;     /* empty: all agents */
    memfs_str path;         /* a file, or a folder and what is below it; empty: all */
    bool show_hidden;       /* blocks */
    const find_query *find; /* whose words they have, in whatever order */
    int64_t limit;          /* at most so many, of more any; > 0 */
} search_query;

/* ---- blocks ---- */

/*
 * Of a row: agent_id, label, path, id, description, value, blob, created_at_us, updated_at_us; the
 * rest is 0.  In no order.  A return other than OK from fn ends the reading and is passed on.
 */
MEMFS_CHECK memfs_code cache_search(cache *c, const search_query *q, block_row_fn fn, void *ctx,
                                    memfs_error *err);

/* ---- versions ---- */

typedef struct version_row {
    memfs_str agent_id;
    memfs_str path;
    int64_t no; /* counts up in an agent; > 0 */
    memfs_oid commit;
    memfs_oid blob;  /* zero: the file went with this commit */
    memfs_str words; /* writing: each once, with blanks between (word_set), that it took away */
} version_row;
typedef memfs_code (*version_row_fn)(const version_row *row, void *ctx, memfs_error *err);
/* To be written, in their order: path, commit, blob and words of each. */
typedef struct version_list {
    const version_row *rows;
    size_t n;
} version_list;

/* Up to which commit the versions of an agent go.  ENOTFOUND: there are none, or no such agent. */
MEMFS_CHECK memfs_code cache_past_tip(cache *c, memfs_str agent_id, memfs_oid *ret,
                                      memfs_error *err);
/*
 * Agents ("agent-…", so neither shared repositories nor rows that no repository backs) whose
 * versions are not those of their synced tip: by id, those after that, at most max.
 */
typedef memfs_code (*agent_id_fn)(memfs_str agent_id, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code cache_past_behind(cache *c, memfs_str after, int64_t max, agent_id_fn fn,
                                         void *ctx, memfs_error *err);
/*
 * The versions of one path, the newest first: those before `before` (0: all), at most limit
 * (0: all).  Of an agent that has none: nothing.
 */
MEMFS_CHECK memfs_code cache_versions(cache *c, memfs_str agent_id, memfs_str path, int64_t before,
                                      int64_t limit, version_row_fn fn, void *ctx,
                                      memfs_error *err);
/* Versions that took all these words away, the newest of each agent first. */
MEMFS_CHECK memfs_code cache_search_past(cache *c, const search_query *q, version_row_fn fn,
                                         void *ctx, memfs_error *err);
/*
 * Adds versions in their order; afterwards they go up to `to`.  from: up to where they went; NULL:
 * whatever there was is dropped first.  ECONFLICT: they do not go up to `from`, or the agent is not
 * synced at `tip` (a purge came between), and nothing was changed.
 */
typedef struct past_update {
    memfs_str agent_id;
    const memfs_oid *from;
    memfs_oid to;
    memfs_oid tip; /* the synced tip, which has `to` in its history */
    version_list versions;
} past_update;
MEMFS_CHECK memfs_code cache_past_add(cache *c, const past_update *u, memfs_error *err);

#endif
