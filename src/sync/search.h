/*
 * search.h - searching memories: the best hits of what is in them, or of what was and is gone.
 *
 * The index names what has the words (cache/search.h), at most SEARCH_MAX_LOOKED texts and
 * SEARCH_MAX_BYTES of them; each is looked at (cache/find.h), and the best ones are told. When
 * there are more, that is said, and which were looked at is not defined: more words, or a path,
 * make a search whole.
 *
 * Of the past a hit is a change: a commit that took all the words away from a file, in lines that
 * it removed, where main's text of that path does not have them (any more). Who had them last is
 * the version of the path before it.
 *
 * Thread: any that may wait (for git, and in the past for locks).
 */
#ifndef MEMFS_SYNC_SEARCH_H
#define MEMFS_SYNC_SEARCH_H

#include "cache/find.h"
#include "sync/home.h"

#define SEARCH_MAX_LOOKED 1000
#define SEARCH_MAX_BYTES (UINT64_C(32) << 20)
#define SEARCH_MAX_HITS 100
#define SEARCH_PAST_MS 2000 /* for what was not listed yet of the pasts of all agents */

typedef struct search_request {
    memfs_str text;     /* the language of cache/find.h */
    memfs_str agent_id; /* empty: all */
    memfs_str path;     /* a file, or a folder and what is below; empty: all */
    bool in_past;
    bool show_hidden; /* blocks that say hidden; of the past all files */
    size_t limit;     /* 1 to SEARCH_MAX_HITS */
} search_request;

typedef enum search_field {
    SEARCH_LABEL,
    SEARCH_DESCRIPTION,
    SEARCH_VALUE,
    SEARCH_FILE
} search_field;

/* Slices are valid during the call. */
typedef struct search_hit {
    memfs_str agent_id,
        path; /* no agent: a block that is attached to nobody, its path is no file */
    memfs_str label, block_id; /* of the past empty */
    search_field field;        /* which text the snippet is of; offsets are bytes of it */
    memfs_str snippet;
    find_hit where;
    memfs_oid blob;            /* that the text is of */
    int64_t created_at_us;     /* of the past 0 */
    memfs_oid commit, gone_by; /* of the past: the version that had it, and the one that did not */
} search_hit;
typedef memfs_code (*search_hit_fn)(const search_hit *hit, void *ctx, memfs_error *err);

/*
 * Hits, the best first; equal ones by agent, path and, the newest first, commit. EINVALID: the
 * text is no search (find_parse). ENOTFOUND: nobody knows the agent. A return other than OK
 * from fn ends the telling and is passed on.
 */
MEMFS_CHECK memfs_code search_memory(home *h, const search_request *q, search_hit_fn fn, void *ctx,
                                     bool *ret_is_partial, memfs_error *err);

#endif
