/*
 * read_only.h - memory that an agent may read and not change (design 14).
 *
 * A file is read-only when its front matter says `read_only: true` where main is now: read as the
 * block that the API shows, or line by line, as Letta's client reads it.  Whichever of the two says
 * so locks it: a description that is no good YAML must not open what a person has locked.
 *
 * What counts is the difference of the two trees: such a file is not there any more, is no file any
 * more, or holds other bytes or another mode.  How the commits in between got there does not
 * matter, so a change that was taken back is none.  A file may become read-only by any push.
 *
 * Thread: any; the repository handle is the caller's.
 */
#ifndef MEMFS_SYNC_READ_ONLY_H
#define MEMFS_SYNC_READ_ONLY_H

#include "store/store.h"

/* Does the text of a file say so? */
bool read_only_says(memfs_str text);

/* A return other than OK ends the walk and is passed on. */
typedef memfs_code (*read_only_fn)(memfs_str path, bool is_deleted, void *ctx, memfs_error *err);
/* Each read-only file of `from` that `to` does not have as it was, in git's tree order. */
MEMFS_CHECK memfs_code read_only_walk(repo *r, const memfs_oid *from, const memfs_oid *to,
                                      const policy *p, read_only_fn fn, void *ctx,
                                      memfs_error *err);

#endif
