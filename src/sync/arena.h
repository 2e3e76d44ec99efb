/*
 * arena.h - bytes that are kept together and go together: what the slices of many rows point into.
 *
 *     arena a = { 0 };
 *     row.value = arena_copy(&a, value);
 *     arena_dispose(&a);
 *
 * Nothing in it moves.  How much it may hold is the caller's business: n_bytes says what it does.
 *
 * Thread: values are not shared.
 */
#ifndef MEMFS_SYNC_ARENA_H
#define MEMFS_SYNC_ARENA_H

#include "base/str.h"

#include <stdint.h>

typedef struct arena {
    struct arena_chunk *first; /* arena.c's */
    uint64_t n_bytes;
} arena;

void arena_dispose(arena *a); /* harmless twice */
memfs_str arena_copy(arena *a, memfs_str s);

#endif
