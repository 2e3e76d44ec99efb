#include "base/fs.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Durability here is always the same three steps, in this order: the bytes of a file are synced
 * while it has a name that nobody reads, the name is changed by rename, and the folder that holds
 * the name is synced.  Skipping the first leaves a name to an empty file after a power cut,
 * skipping the last loses the name (reliability D1).
 *
 * fsync is called once for each thing.  After a failure the kernel may have dropped the dirty
 * pages, so that a second call succeeds without having written them (F05); the caller gives up
 * instead.
 *
 * Messages name the last part of a path only: they may travel to a client.
 */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

/* The folder that holds path's last part; caller frees. */
static char *folder_of(const char *path)
{
    size_t len = strlen(path);

    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    while (len > 1 && path[len - 1] == '/')
        len--;
    return len == 0 ? mem_strdup(".") : mem_strndup(path, len);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* reading */

bool fs_exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

bool fs_is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int fs_open_beneath(const char *root, const char *relative, int flags)
{
    _cleanup_(close_fd) int at = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct open_how how = { .flags = (unsigned)flags | O_CLOEXEC,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
    int fd;

    if (at < 0)
        return -1;
    fd = (int)syscall(SYS_openat2, at, relative, &how, sizeof(how));
    if (fd < 0 && (errno == ENOSYS || errno == EPERM)) /* an older sandbox that does not know it */
        fd = openat(at, relative, flags | O_CLOEXEC | O_NOFOLLOW);
    return fd;
}

bool fs_is_dir_beneath(const char *root, const char *relative)
{
    int fd = fs_open_beneath(root, relative, O_PATH | O_DIRECTORY);

    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static memfs_code read_all(int fd, const char *path, memfs_buf *out, memfs_error *err)
{
    char chunk[16384];
    ssize_t n;

    for (;;) {
        n = read(fd, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return memfs_fail_errno(err, "could not read '%s'", base_name(path));
        if (n == 0)
            return buf_check(out, base_name(path), err);
        buf_add(out, chunk, (size_t)n);
        if (out->too_big)
            return buf_check(out, base_name(path), err);
    }
}

memfs_code fs_read(const char *path, memfs_buf *out, memfs_error *err)
{
    /* a pipe in the place of a file would hold us up until somebody writes */
    _cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return memfs_fail_errno(err, "could not open '%s'", base_name(path));
    if (S_ISFIFO(st.st_mode) && !str_starts_with(str_of(path), MEMFS_STR("/dev/")))
        return memfs_fail(err, MEMFS_EINVALID, "'%s' is a pipe and no file", base_name(path));
    if (S_ISFIFO(st.st_mode) && fcntl(fd, F_SETFL, O_RDONLY) < 0)
        return memfs_fail_errno(err, "could not open '%s'", base_name(path));
    return read_all(fd, path, out, err);
}

/* changing */

static memfs_code write_all(int fd, memfs_str bytes, const char *path, memfs_error *err)
{
    while (bytes.len > 0) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return memfs_fail_errno(err, "could not write '%s'", base_name(path));
        bytes = str_from(bytes, (size_t)n);
    }
    return MEMFS_OK;
}

static memfs_code write_synced(const char *temp, const char *path, memfs_str bytes, unsigned mode,
                               memfs_error *err)
{
    _cleanup_(close_fd) int fd =
        open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    memfs_code rc;

    if (fd < 0)
        return memfs_fail_errno(err, "could not create '%s'", base_name(path));
    if (fchmod(fd, mode) < 0) /* the umask does not decide who reads a secret */
        return memfs_fail_errno(err, "could not set the mode of '%s'", base_name(path));
    rc = write_all(fd, bytes, path, err);
    if (rc < 0)
        return rc;
    if (fsync(fd) < 0)
        return memfs_fail_errno(err, "could not sync '%s'", base_name(path));
    return MEMFS_OK;
}

memfs_code fs_write_atomic(const char *path, memfs_str bytes, unsigned mode, memfs_error *err)
{
    static atomic_uint counter;
    _cleanup_(mem_freep) char *temp =
        mem_printf("%s.tmp-%d-%u", path, (int)getpid(), atomic_fetch_add(&counter, 1));
    memfs_code rc;

    rc = write_synced(temp, path, bytes, mode, err);
    if (rc == MEMFS_OK)
        rc = fs_rename(temp, path, err);
    if (rc < 0)
        unlink(temp);
    return rc;
}

/* One level; a folder that was made is synced into the one that holds it. */
static memfs_code make_one(const char *path, memfs_error *err)
{
    _cleanup_(mem_freep) char *above = NULL;

    if (mkdir(path, 0700) == 0) {
        above = folder_of(path);
        return fs_sync_dir(above, err);
    }
    if (errno == EEXIST && fs_is_dir(path))
        return MEMFS_OK;
    return memfs_fail_errno(err, "could not create the folder '%s'", base_name(path));
}

memfs_code fs_mkdirs(const char *path, memfs_error *err)
{
    _cleanup_(mem_freep) char *part = mem_strdup(path);
    memfs_code rc;

    if (fs_is_dir(path))
        return MEMFS_OK;
    for (char *at = part + 1; *part != '\0' && *at != '\0'; at++) {
        if (*at != '/' || at[-1] == '/')
            continue;
        *at = '\0';
        rc = make_one(part, err);
        if (rc < 0)
            return rc;
        *at = '/';
    }
    return make_one(part, err);
}

static memfs_code sync_path(const char *path, int flags, memfs_error *err)
{
    _cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | flags);

    if (fd < 0)
        return memfs_fail_errno(err, "could not open '%s' to sync it", base_name(path));
    if (fsync(fd) < 0)
        return memfs_fail_errno(err, "could not sync '%s'", base_name(path));
    return MEMFS_OK;
}

memfs_code fs_sync_dir(const char *path, memfs_error *err)
{
    _cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECTORY);

    if (fd < 0)
        return memfs_fail_errno(err, "could not open the folder '%s' to sync it", base_name(path));
    if (fsync(fd) < 0)
        return memfs_fail_errno(err, "could not sync the folder '%s'", base_name(path));
    return MEMFS_OK;
}

memfs_code fs_rename(const char *from, const char *to, memfs_error *err)
{
    _cleanup_(mem_freep) char *from_folder = folder_of(from);
    _cleanup_(mem_freep) char *to_folder = folder_of(to);
    memfs_code rc;

    if (rename(from, to) < 0)
        return memfs_fail_errno(err, "could not rename '%s' to '%s'", base_name(from),
                                base_name(to));
    rc = fs_sync_dir(to_folder, err);
    if (rc == MEMFS_OK && strcmp(from_folder, to_folder) != 0)
        rc = fs_sync_dir(from_folder, err);
    return rc;
}

/*
 * Walks: fts in physical mode never follows a link, keeps its own stack instead of ours, and leaves
 * the working directory (which all threads share) alone.
 */
static void fts_closep(FTS **tree)
{
    if (*tree != NULL)
        fts_close(*tree);
    *tree = NULL;
}

static FTS *fts_start(const char *path)
{
    char *roots[] = { (char *)path, NULL };

    return fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
}

static memfs_code fts_failure(const FTSENT *at, const char *what, memfs_error *err)
{
    errno = at->fts_errno;
    return memfs_fail_errno(err, "could not %s '%s'", what, at->fts_name);
}

memfs_code fs_sync_tree(const char *path, memfs_error *err)
{
    _cleanup_(fts_closep) FTS *tree = fts_start(path);
    memfs_code rc = MEMFS_OK;
    FTSENT *at;

    if (tree == NULL)
        return memfs_fail_errno(err, "could not walk '%s'", base_name(path));
    while (rc == MEMFS_OK && (errno = 0, at = fts_read(tree)) != NULL) {
        switch (at->fts_info) {
        case FTS_F: rc = sync_path(at->fts_path, 0, err); break;
        case FTS_DP: rc = sync_path(at->fts_path, O_DIRECTORY, err); break;
        case FTS_DNR:
        case FTS_NS:
        case FTS_ERR: rc = fts_failure(at, "read", err); break;
        default: break;
        }
    }
    if (rc == MEMFS_OK && errno != 0)
        return memfs_fail_errno(err, "could not walk '%s'", base_name(path));
    return rc;
}

static memfs_code remove_entry(const FTSENT *at, memfs_error *err)
{
    bool is_folder = at->fts_info == FTS_DP || at->fts_info == FTS_DNR;

    if ((is_folder ? rmdir(at->fts_path) : unlink(at->fts_path)) < 0 && errno != ENOENT)
        return memfs_fail_errno(err, "could not remove '%s'", at->fts_name);
    return MEMFS_OK;
}

memfs_code fs_remove_tree(const char *path, memfs_error *err)
{
    _cleanup_(fts_closep) FTS *tree = NULL;
    memfs_code rc = MEMFS_OK;
    FTSENT *at;

    if (!fs_exists(path))
        return MEMFS_OK;
    tree = fts_start(path);
    if (tree == NULL)
        return memfs_fail_errno(err, "could not walk '%s'", base_name(path));
    while (rc == MEMFS_OK && (errno = 0, at = fts_read(tree)) != NULL) {
        if (at->fts_info == FTS_ERR && at->fts_errno != ENOENT)
            rc = fts_failure(at, "remove", err);
        else if (at->fts_info != FTS_D)
            rc = remove_entry(at, err);
    }
    if (rc == MEMFS_OK && errno != 0)
        return memfs_fail_errno(err, "could not walk '%s'", base_name(path));
    return rc;
}

static memfs_code copy_bytes(int from, int to, const char *name, memfs_error *err)
{
    char chunk[65536];
    memfs_code rc;

    for (;;) {
        ssize_t n = read(from, chunk, sizeof(chunk));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return memfs_fail_errno(err, "could not read '%s'", name);
        if (n == 0)
            return MEMFS_OK;
        rc = write_all(to, str_make(chunk, (size_t)n), name, err);
        if (rc < 0)
            return rc;
    }
}

static memfs_code copy_file(const char *from, const char *to, memfs_error *err)
{
    _cleanup_(close_fd) int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    _cleanup_(close_fd) int out = -1;
    const char *name = base_name(from);
    struct stat st;

    if (in < 0)
        return memfs_fail_errno(err, "could not open '%s' to copy it", name);
    if (fstat(in, &st) < 0)
        return memfs_fail_errno(err, "could not look at '%s'", name);
    if (!S_ISREG(st.st_mode))
        return memfs_fail(err, MEMFS_EINVALID, "'%s' is neither a file nor a folder", name);
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, st.st_mode & 0777);
    if (out < 0)
        return memfs_fail_errno(err, "could not create the copy of '%s'", name);
    return copy_bytes(in, out, name, err);
}

static memfs_code copy_entry(const FTSENT *at, const char *target, memfs_error *err)
{
    switch (at->fts_info) {
    case FTS_D:
        if (mkdir(target, 0700) < 0)
            return memfs_fail_errno(err, "could not create the folder '%s'", base_name(target));
        return MEMFS_OK;
    case FTS_DP: return MEMFS_OK;
    case FTS_DNR:
    case FTS_NS:
    case FTS_ERR: return fts_failure(at, "copy", err);
    case FTS_SL:
    case FTS_SLNONE:
        return memfs_fail(err, MEMFS_EINVALID, "'%s' is a link and is not copied", at->fts_name);
    default: return copy_file(at->fts_path, target, err);
    }
}

memfs_code fs_copy_tree(const char *from, const char *to, memfs_error *err)
{
    _cleanup_(fts_closep) FTS *tree = NULL;
    size_t prefix = strlen(from);
    memfs_code rc = MEMFS_OK;
    FTSENT *at;

    if (fs_exists(to))
        return memfs_fail(err, MEMFS_EEXISTS, "'%s' is there already", base_name(to));
    tree = fts_start(from);
    if (tree == NULL)
        return memfs_fail_errno(err, "could not walk '%s'", base_name(from));
    while (rc == MEMFS_OK && (errno = 0, at = fts_read(tree)) != NULL) {
        _cleanup_(mem_freep) char *target = mem_printf("%s%s", to, at->fts_path + prefix);

        rc = copy_entry(at, target, err);
    }
    if (rc == MEMFS_OK && errno != 0)
        return memfs_fail_errno(err, "could not walk '%s'", base_name(from));
    return rc;
}

/* locking */

memfs_code fs_lock_take(const char *path, fs_lock *ret, memfs_error *err)
{
    _cleanup_(close_fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return memfs_fail_errno(err, "could not open the lock '%s'", base_name(path));
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return memfs_fail(err, MEMFS_EUNAVAIL, "'%s' is held by another process",
                              base_name(path));
        return memfs_fail_errno(err, "could not take the lock '%s'", base_name(path));
    }
    ret->fd = fd;
    fd = -1;
    return MEMFS_OK;
}

memfs_code fs_lock_wait(const char *path, int64_t deadline_ms, fs_lock *ret, memfs_error *err)
{
    memfs_code rc;

    for (unsigned i = 0;; i++) {
        rc = fs_lock_take(path, ret, err);
        if (rc != MEMFS_EUNAVAIL || clock_mono_ms() >= deadline_ms)
            return rc;
        clock_sleep_ms(1 + (int64_t)((unsigned)getpid() * 7 + i * 3) % 11); /* no two in step */
    }
}

void fs_unlock(fs_lock *lock)
{
    close_fd(&lock->fd);
}
