/*
 * tables_int.h - one comparison of a memory with its rows in Letta, for the files of tables.h.
 *
 *     tables_read     what is there: the rows, that commit, main
 *     tables_decide   what has to be written, and what has to be taken in
 *     tables_take     a commit with what has to be taken in
 *
 * Thread: any one, which holds the agent's lock.
 */
#ifndef MEMFS_SYNC_TABLES_INT_H
#define MEMFS_SYNC_TABLES_INT_H

#include "cache/letta_db.h"
#include "sync/materialise_int.h"
#include "sync/tables.h"

/* The blocks of one commit, by label. */
typedef struct tables_side {
    plan *plan;
    const block_row **rows;
    size_t n;
} tables_side;

/* What was changed in Letta, behind git. */
typedef struct tables_edit {
    const letta_block *row; /* NULL: it is gone */
    /* The file of that commit, of main; NULL: none.  Either's label may be another: renamed. */
    const block_row *was, *main;
    unsigned differs; /* LETTA_ bits, from `was` */
} tables_edit;

typedef struct tables_work {
    home *h;
    agent *a;
    repo *r;
    memfs_oid main;
    letta_state seen;
    const memfs_oid *base; /* that commit; NULL: none that counts */
    bool was_purged;       /* main was rewritten since: rows say nothing that it has to keep */
    bool is_whole;         /* all blocks, not only those that differ between the two commits */
    bool has_was; /* `was` is that commit, which it is without a base, too, after a purge */

    letta_block *rows; /* by label */
    size_t n_rows, cap_rows;
    tables_side was, is;
    letta_change *changes;
    size_t n_changes, cap_changes;
    tables_edit *edits;
    size_t n_edits, cap_edits;
    /* Rows that a commit of this work took into main, as they were; over several readings. */
    struct {
        char *id;
        int64_t version;
        char *to; /* the label of a file that was renamed in git meanwhile; NULL: the row's own */
    } * taken;
    size_t n_taken, cap_taken;
    struct {
        memfs_str label;
        const char *why;
    } * left; /* blocks of Letta that stay as they are there */
    size_t n_left, cap_left;
    bool have_come_back; /* rows that were gone all at once */
    uint64_t moves;      /* letta_mark_moves() of what was written */
    char **kept;         /* texts that the above point to */
    size_t n_kept, cap_kept;
} tables_work;
void tables_work_dispose(tables_work *w);

/* Rows are as not taken in, but for the first n: what took them did not reach main. */
void tables_untake(tables_work *w, size_t n);

/* A copy that lives as long as the work; NULs become U+FFFD, as PostgreSQL takes none. */
memfs_str tables_keep(tables_work *w, memfs_str s);

/*
 * guess: the commit that the rows are probably of; if they are, only what differs is read.  NULL:
 * everything.  ENOTFOUND: Letta has no such agent.
 */
MEMFS_CHECK memfs_code tables_read(tables_work *w, const memfs_oid *guess, memfs_error *err);
MEMFS_CHECK memfs_code tables_decide(tables_work *w, memfs_error *err);
/* Is this file more than a block holds?  Its row, if there is one, is left as it is. */
bool tables_is_beyond(const tables_work *w, const block_row *file);
/* Notes that this block of Letta stays as it is there, and why: a literal. */
void tables_leave(tables_work *w, memfs_str label, const char *why);
/* Tells what a settling that is done left and found, if it was not told before. */
void tables_tell(tables_work *w);
/* Both there and of one content. */
bool tables_same_file(const block_row *a, const block_row *b);
/* The text of a file, as its block is read from it.  False: it is none (binary, too large). */
MEMFS_CHECK memfs_code tables_text(tables_work *w, const block_row *file, memfs_buf *out,
                                   bool *ret_is_text, memfs_error *err);

/* tables_take.c */
/*
 * *ret_n: how many edits are in the commit *ret, or were in main already; the rows of the others
 * are left as they are.
 */
MEMFS_CHECK memfs_code tables_take(tables_work *w, const store_identity *who, memfs_oid *ret,
                                   size_t *ret_n, memfs_error *err);

#endif
