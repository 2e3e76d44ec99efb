/*
 * oidmap.h - from object ids to small numbers, usually places in an array of the caller's.
 *
 * Ids are hashes already, but of things that a client chose, so the table mixes in a seed of its
 * own. Thread: values are not shared.
 */
#ifndef MEMFS_STORE_OIDMAP_H
#define MEMFS_STORE_OIDMAP_H

#include "base/oid.h"

typedef struct oidmap_slot {
    memfs_oid id;
    bool is_used;
    size_t value;
} oidmap_slot;

typedef struct oidmap {
    oidmap_slot *slots;
    size_t n, size; /* size is a power of two, or 0 */
    uint64_t seed;
} oidmap;
#define OIDMAP_INIT { NULL, 0, 0, 0 }

void oidmap_dispose(oidmap *m);
/* Empties it; its table is kept if it is a small one. */
void oidmap_clear(oidmap *m);
bool oidmap_get(const oidmap *m, const memfs_oid *id, size_t *ret);
static inline bool oidmap_has(const oidmap *m, const memfs_oid *id)
{
    size_t ignored;

    return oidmap_get(m, id, &ignored);
}
/* Adds, or replaces the value that is there. */
void oidmap_put(oidmap *m, const memfs_oid *id, size_t value);

#endif
