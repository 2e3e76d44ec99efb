/*
 * merge.h - the merge that never asks, for one file (design 7).
 *
 * A pure function of three texts: merge_file(base, a, b) and merge_file(base, b, a) give the same
 * bytes.  Where both sides wrote something in one place, the "first" is the one whose bytes there
 * have the lower git blob id (of the lines, of the key's lines; of the whole file where that is
 * kept as two).
 *
 *   one side changed                that side
 *   both changed, lines apart       three-way merge of lines
 *   front matter                    key by key; a key changed on both sides: the first's value, the
 *                                   other named in a note.  What comes out always parses
 *   the same lines changed          both sides' lines, first then second; identical lines and list
 *                                   items once; no conflict markers
 *   one side holds the other        that side: it has each of the other's lines and deletions
 *   added on both sides             as if the base were empty
 *   binary, or not UTF-8            not mergeable: MERGE_TWO_FILES, and the caller keeps both.  So
 *                                   is what passes the bounds below, and front matter with bare CRs
 *
 * Promises, each with a property test: commutes; merge(x, x, x) = x and the result, merged with
 * either side over the old base or over that side, is the result again; every line of a and of b
 * that is not in the base is in the result, front matter that lost in a note; a line that one side
 * deleted and the other left alone is gone; deterministic; if both sides' front matter parses, the
 * result's does.
 *
 * Thread: any; pure.
 */
#ifndef MEMFS_MEMORY_MERGE_H
#define MEMFS_MEMORY_MERGE_H

#include "base/buf.h"
#include "base/oid.h"

#define MERGE_MAX_TEXT_BYTES (10u << 20)
#define MERGE_MAX_TEXT_LINES (1u << 20) /* of one side; what has more is kept as two files */

typedef enum merge_outcome {
    MERGE_CLEAN,     /* nothing met: what git's own merge would do without a conflict */
    MERGE_BY_RULE,   /* both sides met somewhere and a rule decided; the notes say where */
    MERGE_TWO_FILES, /* cannot be one text: the first stays under its name, the second beside it */
} merge_outcome;

typedef enum merge_rule {
    MERGE_RULE_LINES,        /* both sides' lines kept; detail: the line number in the result */
    MERGE_RULE_KEY,          /* a front matter key; detail: "key: the value that was not taken"; the
                                key "front matter" when it could only be taken as a whole, the value
                                "(removed)" when the other side had removed it */
    MERGE_RULE_ADDED_TWICE,  /* no base */
    MERGE_RULE_BINARY,       /* kept as two files; detail: the second name */
    MERGE_RULE_KEPT_CHANGED, /* changed here, deleted there */
    MERGE_RULE_FOLLOWED,     /* an edit followed a rename; detail: the old name */
    MERGE_RULE_RENAMED_TWICE,/* both sides renamed it differently; detail: the other name */
    MERGE_RULE_BESIDE,       /* file against folder, case twins; detail: the second name */
} merge_rule;
const char *merge_rule_name(merge_rule rule); /* "lines", "key", ... as status --json has it */

/* detail is valid during the call, one line, escaped. */
typedef void (*merge_note_fn)(merge_rule rule, memfs_str detail, void *ctx);

/* base NULL: added on both sides.  note may be NULL.  out is set but for MERGE_TWO_FILES; its bound
 * must allow the sum of both sides plus 64 KiB (buf_check tells). */
merge_outcome merge_file(const memfs_str *base, memfs_str a, memfs_str b, memfs_buf *out,
                         merge_note_fn note, void *ctx);

/* Valid UTF-8 without NUL. */
bool merge_is_text(memfs_str bytes);
/* -1, 0, 1: the order of two sides, by git blob id of their bytes. */
int merge_order(memfs_str a, memfs_str b);
/*
 * "dir/name.<first 7 hex of id>.ext" beside "dir/name.ext", at most 255 bytes a part; caller frees.
 */
char *merge_second_name(memfs_str path, const memfs_oid *blob);

#endif
