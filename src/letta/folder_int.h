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

/* ---- folder_swap.c ---- */

/*
 * main becomes tip, if it is expected still; `stage` is a folder beside repo.git, on one
 * filesystem. *ret_may_hold: what the stage has may be a write of the server's that is nowhere
 * else, so it stays (letta_folder_each_left).  *ret_is_moved: readers may have seen tip.
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

/*
 * What an earlier call found superseded goes, if that was long enough ago; and too many packs
 * become one.  stage: a folder beside repo.git, to work in.  What fails is tried again by the next.
 */
void letta_folder_tidy(store *s, const char *name, const memfs_oid *tip, const char *repo,
                       const char *stage, const letta_owner *o);
/* We bring it: only such a pack is ever replaced by one that has all of it. */
MEMFS_CHECK memfs_code letta_note_pack(const char *repo, const char *pack, memfs_error *err);
/* pack-<id> of `from`, renamed into the repository: pack first, index last, and synced. */
MEMFS_CHECK memfs_code letta_move_pack(const char *from, const char *repo, const char *pack,
                                       const letta_owner *o, memfs_error *err);

#endif
