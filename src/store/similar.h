/*
 * similar.h - how much two files are alike: by the bytes of the lines that both have, in any order.
 *
 * What a rename with changes is recognised by, in merges and in comparisons.
 *
 * Thread: as a repo handle.
 */
#ifndef MEMFS_STORE_SIMILAR_H
#define MEMFS_STORE_SIMILAR_H

#include "store/store.h"

#define SIMILAR_AT_LEAST 50 /* percent: less is another file */

typedef struct similar_line {
    uint64_t hash;
    uint64_t bytes;
} similar_line;

/* A file's lines, sorted by hash; NULL: no text, or more than 1 MiB. */
typedef struct similar_shape {
    similar_line *lines;
    size_t n;
    uint64_t bytes;
} similar_shape;

MEMFS_CHECK memfs_code similar_read(repo *r, const memfs_oid *id, similar_shape *ret,
                                    memfs_error *err);
void similar_dispose(similar_shape *s);
/* Percent of the larger that both have; 0 where it would be less than SIMILAR_AT_LEAST by size. */
unsigned similar_percent(const similar_shape *a, const similar_shape *b);

#endif
