/*
 * diff3.h - lines: what differs between two texts, and which stretches three texts agree on.
 *
 * Myers' algorithm over lines by content, bounded: past DIFF3_MAX_LINES, or a distance that would
 * cost too much, the middle of the two texts counts as one changed stretch (correct, only coarser).
 * A line includes its '\n'; the last one may lack it.
 *
 * Deterministic and symmetric: diff3_split(base, a, b) and (base, b, a) cut at the same places.
 * Thread: any; pure.
 */
#ifndef MEMFS_MEMORY_DIFF3_H
#define MEMFS_MEMORY_DIFF3_H

#include "base/buf.h"

#define DIFF3_MAX_LINES 200000

/* A stretch of three texts, in order; slices borrow from the texts. */
typedef enum diff3_kind {
    DIFF3_SAME,     /* base == a == b */
    DIFF3_ONLY_A,   /* b is as base */
    DIFF3_ONLY_B,   /* a is as base */
    DIFF3_BOTH_ALIKE, /* a == b, both differ from base */
    DIFF3_CONFLICT,
} diff3_kind;

typedef struct diff3_part {
    diff3_kind kind;
    memfs_str base, a, b;
} diff3_part;

typedef struct diff3 {
    diff3_part *parts;
    size_t n;
} diff3;
#define DIFF3_INIT { NULL, 0 }

void diff3_split(memfs_str base, memfs_str a, memfs_str b, diff3 *ret);
void diff3_dispose(diff3 *d);

#endif
