/*
 * merge_int.h - what the files of the merge share.  Nobody else includes it.
 *
 *     merge.c         two commits: who contains whom, the merge commit
 *     merge_base.c    where they parted; several such places become one virtual tree
 *     merge_tree.c    three trees side by side: what differs, as items and edits
 *     merge_rename.c  which of the items moved
 *     merge_item.c    one item: the table of design 7
 *     merge_build.c   the edits put into a's tree; names that cannot stand beside each other
 *     merge_note.c    notes, and the message that carries them
 *
 * The sides of a plan are in the order of their tree ids, so whatever follows may treat a and b
 * differently and is the same in either order of the caller's arguments.
 */
#ifndef MEMFS_STORE_MERGE_INT_H
#define MEMFS_STORE_MERGE_INT_H

#include "store/merge.h"
#include "store/store_int.h"

enum { MERGE_SIDE_BASE, MERGE_SIDE_A, MERGE_SIDE_B, MERGE_N_SIDES };

typedef struct merge_entry {
    bool has;
    uint32_t mode;
    memfs_oid id;
} merge_entry;

/* A file that cannot be taken from one side unseen: changed on both, or gone on one or both. */
typedef struct merge_item {
    char *path;
    merge_entry at[MERGE_N_SIDES];
    bool is_settled;
} merge_item;

/* What the result has otherwise than a's tree.  A later edit of the same thing wins. */
typedef struct merge_edit {
    char *path;
    bool is_folder; /* also when it goes: a file and a folder of one name are two things */
    bool is_beside; /* stands beside `path` under a second name, because of `rule` */
    merge_rule rule;
    merge_entry entry;
    size_t seq;
} merge_edit;

typedef struct merge_plan {
    repo *r;
    policy p;
    memfs_oid root[MERGE_N_SIDES];
    bool has_base; /* false: the base is the empty tree */
    merge_item *items; /* sorted by path */
    size_t n_items, cap_items;
    merge_edit *edits;
    size_t n_edits, cap_edits;
    merge_result *notes; /* NULL: nobody wants them */
} merge_plan;

static inline bool merge_entry_equal(const merge_entry *a, const merge_entry *b)
{
    if (!a->has || !b->has)
        return a->has == b->has;
    return a->mode == b->mode && oid_equal(&a->id, &b->id);
}
static inline bool merge_entry_is_regular(const merge_entry *e)
{
    return e->has && (e->mode & 0170000) == 0100000;
}

/* merge_tree.c */
/* base NULL is the empty tree.  notes may be NULL. */
MEMFS_CHECK memfs_code merge_three(repo *r, const memfs_oid *base, const memfs_oid *a,
                                   const memfs_oid *b, memfs_oid *ret, merge_result *notes,
                                   memfs_error *err);
void merge_plan_edit(merge_plan *m, const char *path, bool is_folder, const merge_entry *entry);
void merge_plan_beside(merge_plan *m, const char *path, merge_rule rule, const merge_entry *entry);
merge_item *merge_plan_find(merge_plan *m, const char *path);
/* What a side has at a path; ret->has says whether there is something. */
MEMFS_CHECK memfs_code merge_plan_lookup(merge_plan *m, int side, memfs_str path, merge_entry *ret,
                                         memfs_error *err);
MEMFS_CHECK memfs_code merge_write(repo *r, git_object_t type, memfs_str bytes, memfs_oid *ret,
                                   memfs_error *err);

/* merge_rename.c: settles the items that moved. */
MEMFS_CHECK memfs_code merge_renames(merge_plan *m, memfs_error *err);
/* merge_item.c: everything else; of an item that moved, its content. */
MEMFS_CHECK memfs_code merge_settle(merge_plan *m, merge_item *item, memfs_error *err);
/* merge_build.c: the tree. */
MEMFS_CHECK memfs_code merge_build(merge_plan *m, memfs_oid *ret, memfs_error *err);

/* merge_base.c */
/* Where two commits parted. */
typedef struct merge_origin {
    bool is_related, has_container;
    memfs_oid container; /* of the two commits */
    memfs_oid tree;      /* if related, and none contains the other */
} merge_origin;
MEMFS_CHECK memfs_code merge_find_origin(repo *r, const memfs_oid *a, const memfs_oid *b,
                                         merge_origin *ret, memfs_error *err);

/* Have they a common ancestor at all? */
MEMFS_CHECK memfs_code merge_find_relation(repo *r, const memfs_oid *a, const memfs_oid *b,
                                           bool *ret_is_related, memfs_error *err);

/* merge_note.c */
/* detail is a path, to be escaped. */
void merge_note_add_path(merge_result *m, merge_rule rule, memfs_str path, memfs_str other);
void merge_notes_cut(merge_result *m, size_t n); /* forgets all but the first n */
void merge_notes_sort(merge_result *m);
/* The message of the merge of two commits. */
void merge_message(const memfs_oid *first, const memfs_oid *second, const merge_result *m,
                   memfs_buf *out);
void merge_message_read(memfs_str message, merge_result *ret);

#endif
