/*
 * checkout_update_int.h - what the files of checkout_update share.
 *
 *     checkout_update.c        the sequence, its journal, and what is done after a crash
 *     checkout_update_plan.c   which files change, and whether they may
 *     checkout_update_files.c  one file: staged, exchanged, compared, put back
 */
#ifndef MEMFS_STORE_CHECKOUT_UPDATE_INT_H
#define MEMFS_STORE_CHECKOUT_UPDATE_INT_H

#include "store/checkout_int.h"

typedef struct file_change {
    char *path;
    bool has_old, has_new; /* in the commits */
    bool on_disk_old, on_disk_new; /* ... and as a file of the working tree */
    memfs_oid old_id, new_id;
    uint32_t old_mode, new_mode;
    ino_t ino;     /* of the new file; 0: not known */
    bool is_taken; /* a file with the new bytes was there already, and stays */
} file_change;

typedef struct update_plan {
    checkout *c;
    memfs_oid from, to; /* from all zero: the empty tree */
    file_change *at;
    size_t n;
    int root;        /* of the working tree; -1: update_plan_make opens it */
    int stage;       /* the staging folder */
    char *stage_path;
    char *in_the_way; /* caller's, 256 bytes */
    bool syncs_all;  /* many files: one syncfs instead of an fsync each */
} update_plan;
#define UPDATE_PLAN_INIT { .root = -1, .stage = -1 }
void update_plan_dispose(update_plan *p);

/* checkout_update_plan.c: the changes, in a fixed order.  EDENIED: a name that could do harm. */
MEMFS_CHECK memfs_code update_plan_make(update_plan *p, git_index *index, memfs_error *err);
/* Nothing in the working tree speaks against it, as far as can be seen before. */
MEMFS_CHECK memfs_code update_plan_check(update_plan *p, memfs_error *err);
/* Puts the new entries into an index. */
MEMFS_CHECK memfs_code update_plan_index(update_plan *p, git_index *index, memfs_error *err);
memfs_code update_in_the_way(update_plan *p, const char *path, const char *why, memfs_error *err);

/* checkout_update_files.c: all new files, synced, in the staging folder. */
MEMFS_CHECK memfs_code update_stage(update_plan *p, memfs_error *err);
/* ECONFLICT: an edit came in between. */
MEMFS_CHECK memfs_code update_apply(update_plan *p, memfs_error *err);
/* Everything as it was, whatever update_apply or a crash left; edits stay where they are. */
MEMFS_CHECK memfs_code update_take_back(update_plan *p, memfs_error *err);
/* What lies in the staging folder and is in no commit gets a ref of its own; then the folder goes.
 * */
MEMFS_CHECK memfs_code update_clear_stage(update_plan *p, memfs_error *err);
/* All files into a folder that nobody else knows yet (p->root), synced. */
MEMFS_CHECK memfs_code update_fill(update_plan *p, memfs_error *err);
/* A folder of the working tree for a path in it, without following a link; with is_made its
 * missing parts are made.  -1 and errno. */
int update_folder(const update_plan *p, const char *path, bool is_made, const char **ret_name);

#endif
