/*
 * tags.h - which tags agents and blocks have: for the list of all of them.
 *
 * Thousands of agents share a few lists of tags (every client gives its own the same ones), so what
 * is told is lists, each once, found by hops through an index of those that are not empty: the cost
 * is that of different lists, and not of agents or blocks.
 *
 * Errors and threads: as cache.h and state.h; a list may be told twice when a connection broke
 * meanwhile.  The function may not read cache or state.
 */
#ifndef MEMFS_CACHE_TAGS_H
#define MEMFS_CACHE_TAGS_H

#include "cache/cache.h"
#include "cache/state.h"

/* A JSON array of strings; which of them are empty, and in which order they come, is open. */
typedef memfs_code (*tag_list_fn)(memfs_str tags_json, void *ctx, memfs_error *err);

/* Of the agents that are there, as they were told: hidden ones too, deleted ones not. */
MEMFS_CHECK memfs_code state_tag_lists(state *s, tag_list_fn fn, void *ctx, memfs_error *err);
/* Of all blocks, also of those that nobody has. */
MEMFS_CHECK memfs_code cache_tag_lists(cache *c, tag_list_fn fn, void *ctx, memfs_error *err);

#endif
