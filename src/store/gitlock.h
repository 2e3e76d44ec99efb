/*
 * gitlock.h - "<file>.lock", as git takes it, and never left behind.
 *
 * Git keeps others away from a file by creating "<file>.lock", writes the new content there and
 * renames it into place.  A git that is killed leaves the lock, and everyone after it fails until
 * a person removes it.  Ours can be told from git's and cleared away by the next memfs:
 *
 *   - the lock is a second name (a hard link) of a file "<twins><6 letters>" that we made first,
 *   - and we hold flock on that file as long as we live.
 *
 * So a lock that has a twin whose flock is free belongs to a memfs that is dead.  Git never makes
 * such a twin, so its locks are only ever waited for.
 *
 *     _cleanup_(gitlock_dispose) gitlock lock = GITLOCK_INIT;
 *     rc = gitlock_take("…/config", "…/config.memfs-", 2000, &lock, err);
 *     … write lock.fd …
 *     rc = gitlock_commit(&lock, err);       syncs, renames, syncs the folder; or dispose: let go
 *
 * Thread: a value belongs to one thread.
 */
#ifndef MEMFS_STORE_GITLOCK_H
#define MEMFS_STORE_GITLOCK_H

#include "base/error.h"

typedef struct gitlock {
    int fd; /* of the lock file, for writing; -1: not held */
    char *path, *lock, *twin;
    bool is_published;
} gitlock;
#define GITLOCK_INIT { -1, NULL, NULL, NULL, false }

/*
 * twins is a prefix of names on the same file system.  EUNAVAIL: somebody else held the lock for
 * wait_ms.  The folder of path must be there (ENOTFOUND).
 */
MEMFS_CHECK memfs_code gitlock_take(const char *path, const char *twins, int64_t wait_ms,
                                    gitlock *ret, memfs_error *err);
/* What was written to fd becomes the file.  After a failure of the last sync it may have. */
MEMFS_CHECK memfs_code gitlock_commit(gitlock *l, memfs_error *err);
/* Lets go; the file stays as it was unless it was committed. */
void gitlock_dispose(gitlock *l);

/* Clears "<path>.lock" away if a dead memfs left it.  True: it did. */
bool gitlock_heal(const char *path, const char *twins);
/* Removes twins of the dead that name nothing else; says how many are left. */
size_t gitlock_sweep(const char *twins);

#endif
