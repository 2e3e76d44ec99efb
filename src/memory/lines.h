/*
 * lines.h - texts as rows of numbers: equal lines have equal numbers.
 *
 * A line_table numbers the lines of the texts that are read into it, so that comparing two lines is
 * comparing two integers.  It borrows the texts, which must outlive it.
 *
 * A line is what stands before a '\n'.  lines_read() may count the '\n' as a part of the line (then
 * a last line without one differs from the same line with one) or not.
 *
 * lines_match() is Myers' algorithm, bounded: where two texts have nothing to do with each other it
 * goes ahead in steps of LINES_MAX_DISTANCE edits and takes the best of each, so the time is at
 * most (lines of x + lines of y) * LINES_MAX_DISTANCE.  What it says is always right, at worst not
 * minimal.
 *
 * Thread: any; pure.
 */
#ifndef MEMFS_MEMORY_LINES_H
#define MEMFS_MEMORY_LINES_H

#include "base/str.h"

#define LINES_NONE UINT32_MAX
#define LINES_MAX_DISTANCE 512

typedef struct line_table line_table;
typedef struct lines {
    uint32_t *ids;
    size_t n;
} lines;
#define LINES_INIT                                                                                 \
    {                                                                                              \
        NULL, 0                                                                                    \
    }

/* life cycle */
line_table *line_table_new(void);
void line_table_freep(line_table **t);
void lines_dispose(lines *l);

/* How many lines a text has; the last needs no '\n'. */
size_t lines_count(memfs_str text);
/* *ret must be LINES_INIT; a text of 2^31 lines or more is a mistake of the caller. */
void lines_read(line_table *t, memfs_str text, bool with_newline, lines *ret);
/* The number of one line, which is borrowed like a text. */
uint32_t line_table_id(line_table *t, memfs_str line);

/* reading */
memfs_str line_table_text(const line_table *t, uint32_t id);
/* All numbers are below it. */
size_t line_table_n(const line_table *t);
bool lines_equal(lines a, lines b);
/* Are the lines of `part` in `whole`, in this order? */
bool lines_is_subsequence(lines part, lines whole);

/*
 * match[i] becomes the line of y that line i of x is, or LINES_NONE; the matched lines ascend.  Of
 * the places where an inserted or deleted stretch could lie equally well it takes the last, as git
 * does. n_ids: all numbers in x and y are below it.
 */
void lines_match(lines x, lines y, size_t n_ids, uint32_t *match);
/*
 * The same in two steps: first the lines whose numbers are marked in is_telling, then the others in
 * between.  Blank lines and the like then never draw a match away from where the words are.
 */
void lines_match_telling(lines x, lines y, size_t n_ids, const uint8_t *is_telling,
                         uint32_t *match);

#endif
