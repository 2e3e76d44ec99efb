/*
 * fs.h - files: read whole, replace atomically, make durable, remove, lock.
 *
 * Files are replaced by write-temp, fsync, rename, fsync of the folder (git never does the last,
 * and after a power cut the rename is gone: reliability D1).  A failed fsync is never repeated
 * (F05). Descriptors are O_CLOEXEC at birth; new folders are 0700, new files 0600 unless said
 * otherwise.
 *
 * Paths are NUL-terminated and trusted: they are built from checked names, never from a request.
 * Thread: any.
 */
#ifndef MEMFS_BASE_FS_H
#define MEMFS_BASE_FS_H

#include "base/buf.h"

/* reading */
bool fs_exists(const char *path); /* without following a link at the end */
bool fs_is_dir(const char *path);
/*
 * A folder below `root`, with no link anywhere on the way (T01); root itself may be reached by one.
 */
bool fs_is_dir_beneath(const char *root, const char *relative);
/* The same of anything, opened with flags (and O_CLOEXEC); -1 and errno.  For *at() calls. */
int fs_open_beneath(const char *root, const char *relative, int flags);
/* EINVALID for a pipe, except below /dev (a shell's <(command)). */
MEMFS_CHECK memfs_code fs_read(const char *path, memfs_buf *out, memfs_error *err);

/* changing */
MEMFS_CHECK memfs_code fs_write_atomic(const char *path, memfs_str bytes, unsigned mode,
                                       memfs_error *err);
/* With all folders above; each one made is synced into its parent.  Existing is fine. */
MEMFS_CHECK memfs_code fs_mkdirs(const char *path, memfs_error *err);
MEMFS_CHECK memfs_code fs_sync_dir(const char *path, memfs_error *err);
/* fsync of every file and folder below path, and of path. */
MEMFS_CHECK memfs_code fs_sync_tree(const char *path, memfs_error *err);
/* Renames over what is there, and syncs the folders of both names. */
MEMFS_CHECK memfs_code fs_rename(const char *from, const char *to, memfs_error *err);
/* Removes path and all below it, following no link.  Absent is success. */
MEMFS_CHECK memfs_code fs_remove_tree(const char *path, memfs_error *err);
/*
 * Copies files and folders to `to`, which must not exist (EEXISTS); not synced.  EINVALID: there is
 * a link or a special file in it.
 */
MEMFS_CHECK memfs_code fs_copy_tree(const char *from, const char *to, memfs_error *err);

/* Lock: flock on a file that stays.  Held until fs_unlock or the end of the process. */
typedef struct fs_lock {
    int fd; /* -1: not held */
} fs_lock;
#define FS_LOCK_INIT                                                                               \
    {                                                                                              \
        -1                                                                                         \
    }
/* EUNAVAIL when another process holds it. */
MEMFS_CHECK memfs_code fs_lock_take(const char *path, fs_lock *ret, memfs_error *err);
/* The same, tried until deadline_ms (clock_mono_ms), at least once. */
MEMFS_CHECK memfs_code fs_lock_wait(const char *path, int64_t deadline_ms, fs_lock *ret,
                                    memfs_error *err);
void fs_unlock(fs_lock *lock);

#endif
