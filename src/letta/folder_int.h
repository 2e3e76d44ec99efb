/*
 * folder_int.h - what folder.c (where it is) and folder_publish.c (what is written) share.
 */
#ifndef MEMFS_LETTA_FOLDER_INT_H
#define MEMFS_LETTA_FOLDER_INT_H

#include "letta/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

static inline void closedirp(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
}

static inline void letta_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* path: below root, and a folder without a link on the way to it. */
bool letta_is_folder(const letta_folder *f, const char *path);
/* open(2) of a path below root, no link on the way: whoever writes the volume leads nobody (T01).
 */
int letta_open(const letta_folder *f, const char *path, int flags);

/*
 * For how long something has been met, by our monotonic clock: what a file says of itself is by the
 * clock of whoever keeps the volume, and that may be hours from ours (F25).  0: the first time, or
 * so long ago that others came in its place.
 */
int64_t letta_seen_for_s(letta_folder *f, uint64_t key);

/* Of what is made: the owner of root, and what its group may. */
typedef struct letta_owner {
    const letta_folder *folder;
    uid_t uid;
    gid_t gid;
    mode_t file_mode, folder_mode;
} letta_owner;
MEMFS_CHECK memfs_code letta_owner_of(const letta_folder *f, letta_owner *ret, memfs_error *err);
/* Of path and all below it.  Of what we may not give away the rights alone are set. */
MEMFS_CHECK memfs_code letta_own(const letta_owner *o, const char *path, memfs_error *err);
/* The same of what lies in a stage, whose path is held (below). */
MEMFS_CHECK memfs_code letta_own_made(const letta_owner *o, const char *path, memfs_error *err);

/*
 * A folder that is held: whoever may write the one above it can put a link into its place while we
 * are at work in it, and paths through its name would lead there then (T01).  Paths through
 * /proc/self/fd lead to the folder that was opened.  Not for children of ours, and not to remove it
 * by: that is done by its name, which removes the link.
 */
typedef struct letta_held {
    int fd;
    char path[32];
} letta_held;
#define LETTA_HELD_INIT                                                                            \
    {                                                                                              \
        .fd = -1                                                                                   \
    }
/* fd: taken; a failure of what opened it is told. */
MEMFS_CHECK memfs_code letta_hold(int fd, letta_held *ret, memfs_error *err);
void letta_held_dispose(letta_held *h);

/* ---- folder_swap.c ---- */

/*
 * main becomes tip, if it is expected still; `stage` is a folder beside repo.git, on one
 * filesystem, and held. *ret_may_hold: what the stage has may be a write of the server's that is
 * nowhere else, so it stays (letta_folder_each_left).  *ret_is_moved: readers may have seen tip.
 */
typedef struct letta_swap {
    const char *repo, *stage;
    const memfs_oid *expected, *tip;
    const letta_owner *owner;
} letta_swap;
MEMFS_CHECK memfs_code letta_swap_main(const letta_swap *s, bool *ret_may_hold, bool *ret_is_moved,
                                       memfs_error *err);
/* Text of a ref; line: MEMFS_OID_HEX + 2 bytes. */
void letta_ref_line(const memfs_oid *id, char *line);

/* ---- folder_tidy.c ---- */

/* Where packs go: agent and stage are held, repo is a path below root. */
typedef struct letta_places {
    const char *agent, *stage, *repo;
    const letta_owner *owner;
} letta_places;

/*
 * What an earlier call found superseded goes, if that was long enough ago; and too many packs
 * become one.  What fails is tried again by the next.
 */
void letta_folder_tidy(store *s, const char *name, const memfs_oid *tip, const letta_places *at);
/* We bring it: only such a pack is ever replaced by one that has all of it.  agent: held. */
MEMFS_CHECK memfs_code letta_note_pack(const char *agent, const char *pack, memfs_error *err);
/* pack-<id> of the stage's folder `from`, renamed into the repository: pack first, index last, and
 * synced. */
MEMFS_CHECK memfs_code letta_move_pack(const letta_places *at, const char *from, const char *pack,
                                       memfs_error *err);

#endif
