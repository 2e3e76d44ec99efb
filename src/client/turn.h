/*
 * turn.h - taking turns at one memory, and noticing who was killed in the middle of theirs.
 *
 * A turn is an flock on a file that stays; the file's content is a journal of one word.  Empty: the
 * last holder ended well, or changed nothing.  Anything else: it was killed between turn_begin and
 * turn_end, and may have left lock files of git behind, which nobody else will ever remove;
 * turn_sweep does, once they have not changed for two seconds (git itself holds them for
 * milliseconds).  index.lock is left to checkout_recover: git holds that one while an editor is
 * open.
 *
 * A turn that changes nothing writes nothing.
 * Thread: a value belongs to one thread.
 */
#ifndef MEMFS_CLIENT_TURN_H
#define MEMFS_CLIENT_TURN_H

#include "base/fs.h"

typedef struct turn {
    fs_lock lock;
    char found[16]; /* what a killed holder was at; "" when all was well */
    bool has_begun;
} turn;
#define TURN_INIT { .lock = FS_LOCK_INIT }

/* EUNAVAIL: others kept it until deadline_ms (clock_mono_ms).  The folder must be there. */
MEMFS_CHECK memfs_code turn_take(const char *path, int64_t deadline_ms, turn *ret,
                                 memfs_error *err);
static inline bool turn_was_killed(const turn *t)
{
    return t->found[0] != '\0';
}
/* Before the first change; again is free.  state: a word of at most 15 letters, NULL: "working". */
MEMFS_CHECK memfs_code turn_begin(turn *t, const char *state, memfs_error *err);
/* The word on disk, for one that must outlive a power cut. */
MEMFS_CHECK memfs_code turn_sync(const turn *t, memfs_error *err);
/* All is done. Without it the next holder takes this one for killed. */
MEMFS_CHECK memfs_code turn_end(turn *t, memfs_error *err);
/* Lets go; after a failure also without turn_end. */
void turn_leave(turn *t);

/*
 * Removes stale lock files of refs, HEAD and config in a git dir; waits a few seconds for young
 * ones.
 */
void turn_sweep(const char *git_dir);

#endif
