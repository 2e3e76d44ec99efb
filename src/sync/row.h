/*
 * row.h - f: what one file of a memory becomes (design 8).  Pure: bytes in, a row out.
 *
 * A maker holds what a row is made of while it is made, and serves any number of rows, one after
 * the other: row_start, then one of the makes, after which fault and says_limit tell of that row.
 * The row's slices lie in the maker, or are those that row_start was given; the next row_start ends
 * them.
 *
 * A row is dated by whoever knows the state (plan_births); here its times are 0, and its limit is
 * the default where the file says none.
 *
 * Thread: one at a time.
 */
#ifndef MEMFS_SYNC_ROW_H
#define MEMFS_SYNC_ROW_H

#include "cache/cache.h"
#include "memory/block.h"
#include "memory/ids.h"

typedef enum row_fault {
    ROW_WHOLE,
    ROW_NO_FRONT_MATTER, /* opens like front matter, but does not parse */
    ROW_BAD_FIELD,       /* a field of a wrong type took its default */
    ROW_NOT_UTF8,
    ROW_TOO_LARGE,
} row_fault;

#define ROW_LIMIT_UNSAID 0 /* by the file, which cannot say this; plan_births fills it in */

typedef struct row_maker {
    /* reading */
    bool says_limit; /* the file does */
    row_fault fault;
    /* its own */
    memfs_buf text;    /* the file, decoded */
    memfs_buf scratch; /* what block_row_of makes */
    block parsed;
    char id[IDS_BLOCK_LEN + 1];
    char problem[224];
} row_maker;
#define ROW_MAKER_INIT                                                                             \
    {                                                                                              \
        .text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),                                               \
        .scratch = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED), .parsed = BLOCK_INIT                       \
    }
void row_maker_dispose(row_maker *m);

void row_start(row_maker *m, memfs_str owner, memfs_str path, memfs_str label,
               const memfs_oid *blob, block_row *ret);
/* bytes: of the file, any. */
void row_make(row_maker *m, memfs_str label, memfs_str bytes, block_row *ret);
/* The same of a file that is not read, since it is larger than max_bytes. */
void row_make_large(row_maker *m, memfs_str label, uint64_t bytes, uint64_t max_bytes,
                    block_row *ret);

/* Where its slices are, so that one loop can move them all; but agent_id and tags_json, which no row
 * owns. */
#define ROW_N_SLICES 7
void row_slices(block_row *row, memfs_str *ret[ROW_N_SLICES]);

#endif
