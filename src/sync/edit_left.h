/*
 * edit_left.h - changes that were cut short: their journals, which are documents of the state.
 *
 * A journal is written by one process and taken away by it when its change has ended.  What another
 * one wrote is left by a crash; of servers that share the state it may as well be under way, and
 * says nothing of when: clocks of machines differ.  So it counts as left when this server has seen
 * it for longer than any request takes.
 *
 * Of this room only; edit_state.c and block_copies.c say what is in a journal.
 */
#ifndef MEMFS_SYNC_EDIT_LEFT_H
#define MEMFS_SYNC_EDIT_LEFT_H

#include "base/json.h"
#include "sync/home_int.h"

#include <jansson.h>

#define EDIT_KIND MEMFS_STR("edit")

/* What every journal begins with: which process, and which agent. */
void edit_left_begin(json_writer *w, home *h, const char *agent_id);
/* A string of the object; "" where there is none.  It lives as long as the object. */
memfs_str edit_left_text(const json_t *object, const char *key);

typedef memfs_code (*edit_left_fn)(home *h, const char *id, const json_t *body, memfs_error *err);
/*
 * Each journal that has `key` and is left; in *ret_n how many have it, left or not (may be NULL).
 * A failure is told by an alarm, and does not end it.  One thread: that of block_edit_step(), or of
 * home_open() before there is one.
 */
MEMFS_CHECK memfs_code edit_left_each(home *h, const char *key, edit_left_fn fn, size_t *ret_n,
                                      memfs_error *err);
/*
 * Each journal that has `key` and is of that block, in the block's turn: nobody of this process is
 * at it, and no other server, whoever wrote it.  Any thread.
 */
MEMFS_CHECK memfs_code edit_left_of_block(home *h, const char *key, memfs_str block_id,
                                          edit_left_fn fn, memfs_error *err);
/* Is it there still?  Under the lock that it was written under: nobody has ended it meanwhile. */
MEMFS_CHECK memfs_code edit_left_is_there(home *h, const char *id, bool *ret, memfs_error *err);
void edit_left_close(home *h);

#endif
