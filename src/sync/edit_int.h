/*
 * edit_int.h - the inside of an edit, for edit.c and edit_state.c.
 */
#ifndef MEMFS_SYNC_EDIT_INT_H
#define MEMFS_SYNC_EDIT_INT_H

#include "sync/advance.h"
#include "sync/edit.h"

typedef struct wish {
    char *path;
    char *content; /* NULL: it goes */
    size_t len;
} wish;

/* Births and documents, owned, each string by itself. */
typedef struct edit_set {
    state_birth *births;
    size_t n_births;
    state_doc *docs;
    size_t n_docs;
} edit_set;

struct edit {
    home *h;
    const edit_options *o;
    advance v;
    repo *r;
    wish *wishes;
    size_t n, cap;
    bool has_tree;
    memfs_oid tree_of; /* the commit whose tree is taken */
    memfs_buf message;
    bool is_refused; /* by the plan: what it returned is the last word */

    /* edit_state.c */
    edit_set now, then;       /* before main moves, and after */
    char id[IDS_MAX_LEN + 1]; /* of its journal; "" before edit_journal_begin() */
};

bool edit_has_state(const edit *e);
/* Gives the edit an id, which its commit names. */
void edit_journal_begin(edit *e);
/*
 * Births and journal, then main and its rows (where `to` is not main already), then what follows.
 * Of the last a failure is told by an alarm: edit_recover() comes back to it.
 */
MEMFS_CHECK memfs_code edit_advance(edit *e, const advance_step *step, memfs_error *err);
void edit_state_clear(edit *e);

#endif
