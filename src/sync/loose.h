/*
 * loose.h - blocks that no file backs: made over the API and attached to nobody, or detached from
 * the last agent that had them (design 14).
 *
 * They are documents of the state (kind "loose", one for each id), and rows of the cache like all
 * others, under an agent's id that no agent has: so lists, filters, cursors and counts over all
 * agents have them.  The rows follow the documents; which mark of the state they are of is their
 * commit in the cache (loose_follow).
 *
 * Thread: any.
 */
#ifndef MEMFS_SYNC_LOOSE_H
#define MEMFS_SYNC_LOOSE_H

#include "sync/home.h"

#define LOOSE_AGENT MEMFS_STR("loose") /* agent_id of their rows */
#define LOOSE_KIND MEMFS_STR("loose")  /* of their documents */

/* The text of its document: id, path and agent are not in it, nor blob and bytes. */
void loose_write(const block_row *row, memfs_buf *out);
/*
 * The block of that id as it is in the state, with the mark of its document; *ret and what it
 * points to are the call's.  ENOTFOUND: there is none.
 */
typedef memfs_code (*loose_fn)(const block_row *row, int64_t changed, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code loose_get(home *h, memfs_str id, loose_fn fn, void *ctx, memfs_error *err);
/*
 * Puts it (row NULL: takes it out), and the rows follow.  changed: as in state_doc; ECONFLICT: it
 * is another by now.
 */
MEMFS_CHECK memfs_code loose_put(home *h, memfs_str id, const block_row *row, int64_t changed,
                                 memfs_error *err);
/* The same with a text of loose_write(), whatever was there. */
MEMFS_CHECK memfs_code loose_put_text(home *h, memfs_str id, memfs_str text, memfs_error *err);
/*
 * Is the block, of whose document that is the mark, as it was when somebody read its row?  What he
 * read is the commit of the rows (40 hex digits), or a tag that begins with it.  ECONFLICT, with
 * both.
 */
MEMFS_CHECK memfs_code loose_check_read(memfs_str version, int64_t changed, memfs_error *err);
/* All of them at once, by id: what the rows of the cache must be. */
typedef memfs_code (*loose_all_fn)(const block_row *rows, size_t n, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code loose_all(home *h, loose_all_fn fn, void *ctx, memfs_error *err);
/*
 * Brings the rows to what the state has: after a change of documents, at the start, when a cache
 * was made anew, and now and then.  What fails is an alarm, and is tried again by the next call.
 */
void loose_follow(home *h);

#endif
