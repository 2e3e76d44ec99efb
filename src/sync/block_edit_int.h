/*
 * block_edit_int.h - what block_edit.c, block_attach.c and block_copies.c share.
 */
#ifndef MEMFS_SYNC_BLOCK_EDIT_INT_H
#define MEMFS_SYNC_BLOCK_EDIT_INT_H

#include "sync/block_edit.h"

/* The birth of a label, with strings of its own; of one that was never seen what it would be. */
typedef struct owned_birth {
    state_birth birth;              /* tags_json is never empty; label is the caller's */
    char block_id[IDS_MAX_LEN + 1]; /* what its row is called */
    bool has_own_id;
    memfs_buf tags, id;
} owned_birth;
#define OWNED_BIRTH_INIT                                                                           \
    {                                                                                              \
        .tags = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED), .id = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED)     \
    }
MEMFS_CHECK memfs_code owned_birth_load(home *h, memfs_str agent_id, memfs_str label,
                                        owned_birth *ret, memfs_error *err);
void owned_birth_dispose(owned_birth *b);

/* The label's block is elsewhere from then on: the next one there gets an id of its own. */
void block_retire_label(edit *e, memfs_str label);

/* What the tags are when `given` is set: as they were, if it has the same ones in another order, so
 * that nothing is written then (http-api 6.4).  Both JSON arrays of texts. */
memfs_str block_tags_after(memfs_str now, memfs_str given);

/* The file of a label.  ENOTFOUND: none is a block of it. */
MEMFS_CHECK memfs_code block_path(home *h, memfs_str label, memfs_buf *out);
MEMFS_CHECK memfs_code block_check_expected(home *h, edit *e, const block_by *by,
                                            const char *agent_id, memfs_str label, memfs_str path,
                                            const memfs_oid *blob, memfs_error *err);
/* It is what a block of that label has while its file says nothing (block-format 3). */
bool block_is_default_description(memfs_str label, memfs_str description);
/* "Update system/human block", and the reason below. */
void block_say(edit *e, const block_by *by, const char *verb, memfs_str label, const char *what);

bool block_is_loose(const block_holder *holder);
memfs_code block_not_found(memfs_str block_id, memfs_error *err);

/* One of several, which are one edit: that it was done since then is no failure. */
MEMFS_CHECK memfs_code block_patch_as(home *h, memfs_str agent_id, memfs_str label,
                                      const block_patch *p, const block_by *by, const char *edit_id,
                                      const memfs_oid *since, edit_result *ret, memfs_error *err);

/* The turn alone, without a look at what was left. */
MEMFS_CHECK memfs_code block_turn_take(home *h, memfs_str block_id, int64_t timeout_ms,
                                       block_turn *ret, memfs_error *err);
/* A change was not made of all agents: the next turn of that block looks for it. */
void block_turn_left(home *h);
/* All were looked at, and none is there any more, unless one was left since the mark was asked. */
uint64_t block_turn_mark(home *h);
void block_turn_none_left(home *h, uint64_t mark);
/* In that block's turn: what was begun of it, here or by another server, and is not done of all its
 * agents. */
MEMFS_CHECK memfs_code block_finish_left(home *h, memfs_str block_id, memfs_error *err);

#endif
