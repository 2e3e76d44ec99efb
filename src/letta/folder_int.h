/*
 * folder_int.h - what folder.c (where it is) and folder_publish.c (what is written) share.
 */
#ifndef MEMFS_LETTA_FOLDER_INT_H
#define MEMFS_LETTA_FOLDER_INT_H

#include "letta/folder.h"

#include <dirent.h>
#include <sys/types.h>

static inline void closedirp(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
}

/* path: below root, and a folder without a link on the way to it. */
bool letta_is_folder(const letta_folder *f, const char *path);

/* Of what is made: the owner of root, and what its group may. */
typedef struct letta_owner {
    uid_t uid;
    gid_t gid;
    mode_t file_mode, folder_mode;
} letta_owner;
MEMFS_CHECK memfs_code letta_owner_of(const char *root, letta_owner *ret, memfs_error *err);
/* Of path and all below it.  Of what we may not give away the rights alone are set. */
MEMFS_CHECK memfs_code letta_own(const letta_owner *o, const char *path, memfs_error *err);

/* ---- folder_tidy.c ---- */

/*
 * What an earlier call found superseded goes, if that was long enough ago; and too many packs become
 * one.  stage: a folder beside repo.git, to work in.  What fails is tried again by the next.
 */
void letta_folder_tidy(store *s, const char *name, const memfs_oid *tip, const char *repo,
                       const char *stage, const letta_owner *o);
/* We bring it: only such a pack is ever replaced by one that has all of it. */
MEMFS_CHECK memfs_code letta_note_pack(const char *repo, const char *pack, memfs_error *err);
/* pack-<id> of `from`, renamed into the repository: pack first, index last, and synced. */
MEMFS_CHECK memfs_code letta_move_pack(const char *from, const char *repo, const char *pack,
                                       const letta_owner *o, memfs_error *err);

#endif
