/*
 * merge.h - two commits into one: the table of design 7 over whole trees.
 *
 * A pure function of the two commits: same result, to the byte of the commit, on every machine and
 * in either order of the arguments.  Parents are sorted by id; author and committer are memfs
 * <memfs@localhost> at the later of the parents' committer times, zone +0000.  File contents are
 * decided by memory/merge.h; renames (exact, and similar by half), file against folder, case twins
 * and modify/delete here.  Several merge bases are merged by the same rule first, in order of id;
 * no base (unrelated histories) is the empty tree.
 *
 * Equal subtrees are not opened: the cost follows the change.
 *
 * Thread: as a repo handle.
 */
#ifndef MEMFS_STORE_MERGE_H
#define MEMFS_STORE_MERGE_H

#include "memory/merge.h"
#include "store/store.h"

typedef struct merge_note {
    merge_rule rule;
    char *path;   /* as it is */
    char *detail; /* one line, escaped, bounded; may be empty */
} merge_note;

typedef struct merge_result {
    memfs_oid commit;    /* one of the two when it contains the other; else the merge, written */
    bool is_merge;       /* commit is a merge of the two */
    bool is_unrelated;
    merge_note *notes;   /* what was decided by rule, sorted by path; the message has them too */
    size_t n_notes;
} merge_result;
#define MERGE_RESULT_INIT { .notes = NULL }
void merge_result_dispose(merge_result *m);
/* Adds a note; detail is escaped already (merge_note_fn), path is not. */
void merge_note_add(merge_result *m, merge_rule rule, memfs_str path, memfs_str detail);

typedef enum merge_relation {
    MERGE_EQUAL,
    MERGE_AHEAD,  /* a contains b */
    MERGE_BEHIND, /* b contains a */
    MERGE_DIVERGED,
    MERGE_UNRELATED,
} merge_relation;
/*
 * n_ahead: commits of a that b lacks, n_behind the reverse; counted to 10,000.  Both may be NULL.
 */
MEMFS_CHECK memfs_code merge_relate(repo *r, const memfs_oid *a, const memfs_oid *b,
                                    merge_relation *ret, size_t *ret_n_ahead, size_t *ret_n_behind,
                                    memfs_error *err);

/* Writes blobs, trees and the commit; moves no ref. */
MEMFS_CHECK memfs_code merge_commits(repo *r, const memfs_oid *a, const memfs_oid *b,
                                     merge_result *ret, memfs_error *err);
/* The tree alone, with a base of the caller's (a revert: base = the commit, b = its parent); NULL: none.
 * notes may be NULL. */
MEMFS_CHECK memfs_code merge_trees(repo *r, const memfs_oid *base_tree, const memfs_oid *a_tree,
                                   const memfs_oid *b_tree, memfs_oid *ret_tree, merge_result *notes,
                                   memfs_error *err);
/*
 * The notes that a merge commit's message carries, read back (the first hundred; of any other
 * commit none). is_merge: it is a merge of ours.
 */
MEMFS_CHECK memfs_code merge_notes_of(repo *r, const memfs_oid *commit, merge_result *ret,
                                      memfs_error *err);

#endif
