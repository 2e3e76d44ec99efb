/*
 * diff3.h - lines: what differs between two texts, and which stretches three texts agree on.
 *
 * Myers' algorithm over lines by content, bounded as lines.h says.  A line includes its '\n'; the
 * last one may lack it.
 *
 * Deterministic and symmetric: diff3_split(base, a, b) and (base, b, a) cut at the same places.
 * Changes that only touch (line 3 there, line 4 here) are parts of their own, one after the other.
 * Thread: any; pure.
 */
#ifndef MEMFS_MEMORY_DIFF3_H
#define MEMFS_MEMORY_DIFF3_H

#include "base/buf.h"
#include "memory/lines.h"

/* A stretch of three texts, in order; slices borrow from the texts. */
typedef enum diff3_kind {
    DIFF3_SAME,       /* base == a == b */
    DIFF3_ONLY_A,     /* b is as base */
    DIFF3_ONLY_B,     /* a is as base */
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
#define DIFF3_INIT                                                                                 \
    {                                                                                              \
        NULL, 0                                                                                    \
    }

void diff3_split(memfs_str base, memfs_str a, memfs_str b, diff3 *ret);
void diff3_dispose(diff3 *d);

/* The same over numbered lines: where a part begins in each, and how many lines of each it has. */
typedef struct diff3_range {
    diff3_kind kind;
    size_t base, n_base;
    size_t a, n_a;
    size_t b, n_b;
} diff3_range;

/* match_a and match_b: of lines_match(base, a) and (base, b).  Returns an array; caller frees. */
diff3_range *diff3_ranges(lines base, lines a, lines b, const uint32_t *match_a,
                          const uint32_t *match_b, size_t *ret_n);

#endif
