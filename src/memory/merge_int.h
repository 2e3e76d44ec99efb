/*
 * merge_int.h - the two halves of a file's merge: lines (merge_text.c), front matter
 * (merge_front.c). Only merge*.c include it.
 */
#ifndef MEMFS_MEMORY_MERGE_INT_H
#define MEMFS_MEMORY_MERGE_INT_H

#include "memory/lines.h"
#include "memory/merge.h"

/* ---- lines ---- */

/* May this be the result?  Called with a candidate; false asks for another. */
typedef bool (*merge_accept_fn)(lines result, void *ctx);

typedef struct merge_lines {
    line_table *table;
    lines base, a, b;
    merge_accept_fn accept;
    void *ctx;
} merge_lines;

typedef struct merged_lines {
    lines result;
    size_t *met; /* lines of the result at which both sides met, ascending */
    size_t n_met, cap_met;
} merged_lines;
#define MERGED_LINES_INIT                                                                          \
    {                                                                                              \
        .met = NULL                                                                                \
    }
void merged_lines_dispose(merged_lines *m);

/* *ret must be MERGED_LINES_INIT. */
void merge_text(const merge_lines *in, merged_lines *ret);

/* ---- front matter ---- */

/*
 * Cuts a text behind its front matter; *ret_front is empty when it has none that is a mapping, as
 * block_parse(block_decode(text)) sees it: what cannot be read is text like any other.
 */
void merge_split(memfs_str text, memfs_str *ret_front, memfs_str *ret_body);

/* Each with its "---" lines, or empty.  *ret_by_rule: both sides changed it. */
void merge_front(memfs_str base, memfs_str a, memfs_str b, memfs_buf *out, merge_note_fn note,
                 void *ctx, bool *ret_by_rule);

#endif
