#include "store/gitlock.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Who may remove what:
 *
 *   1. A twin may be removed by whoever holds flock on it.
 *   2. A lock may be removed by whoever holds flock on the file that it names, after a look at the
 *      lock under that flock.  A new owner has another file, so it cannot lose its lock this way.
 *   3. Between making a twin and taking its flock its maker can meet a sweeper.  Then flock fails,
 *      or the twin has lost its name; the maker takes another.
 *
 * Where hard links do not exist the lock is made as git makes it, and a crash leaves it for a
 * person.
 */

#define TWIN_LETTERS 6

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return mem_strdup(".");
    return slash == path ? mem_strdup("/") : mem_strndup(path, (size_t)(slash - path));
}

/* the twins of the dead */

static bool is_twin_name(const char *name, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(name, prefix, len) == 0 && strlen(name) == len + TWIN_LETTERS;
}

/* Opens a twin and takes its flock: its owner is dead then.  -1: it is not, or is gone. */
static int open_dead(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
        close_fd(&fd);
    return fd;
}

static bool is_same_file(const struct stat *a, const char *path)
{
    struct stat b;

    return lstat(path, &b) == 0 && a->st_ino == b.st_ino && a->st_dev == b.st_dev;
}

/*
 * One dead twin.  Its other name, if it has one, is a lock that goes with it (*ret_was_lock), or
 * the file itself (it died just after the commit).  When it is neither of ours the twin stays:
 * without it nobody could tell whose that other lock is.
 */
static bool bury(const char *twin, const char *path, const char *lock, bool *ret_was_lock)
{
    _cleanup_(close_fd) int fd = open_dead(twin);
    struct stat mine;

    if (fd < 0 || fstat(fd, &mine) < 0)
        return false;
    if (lock != NULL && is_same_file(&mine, lock)) {
        *ret_was_lock = true;
        unlink(lock);
    } else if (mine.st_nlink > 1 && (path == NULL || !is_same_file(&mine, path))) {
        return false;
    }
    return unlink(twin) == 0;
}

/* How many are left. */
static size_t bury_all(const char *twins, const char *path, const char *lock, bool *ret_was_lock)
{
    _cleanup_(mem_freep) char *folder = folder_of(twins);
    DIR *dir = opendir(folder);
    struct dirent *at;
    size_t n = 0;

    if (dir == NULL)
        return 0;
    while ((at = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *twin = NULL;

        if (!is_twin_name(at->d_name, last_part(twins)))
            continue;
        twin = mem_printf("%s/%s", folder, at->d_name);
        n += !bury(twin, path, lock, ret_was_lock);
    }
    closedir(dir);
    return n;
}

static bool has_twin(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink > 1;
}

bool gitlock_heal(const char *path, const char *twins)
{
    _cleanup_(mem_freep) char *lock = mem_printf("%s.lock", path);
    bool was_lock = false;

    if (has_twin(lock) || has_twin(path))
        bury_all(twins, path, lock, &was_lock);
    return was_lock;
}

size_t gitlock_sweep(const char *twins)
{
    bool ignored = false;

    return bury_all(twins, NULL, NULL, &ignored);
}

/* taking */

static void new_name(const char *twins, char **ret)
{
    char hex[2 * TWIN_LETTERS + 1];
    uint8_t random[TWIN_LETTERS];

    hash_random(random, sizeof(random));
    hash_hex(random, sizeof(random), hex);
    free(*ret);
    *ret = mem_printf("%s%.*s", twins, TWIN_LETTERS, hex);
}

static memfs_code make_twin(gitlock *l, const char *twins, memfs_error *err)
{
    struct stat st;

    for (int i = 0; i < 100; i++) {
        new_name(twins, &l->twin);
        l->fd = open(l->twin, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (l->fd < 0 && errno == EEXIST)
            continue;
        if (l->fd < 0)
            return memfs_fail_errno(err, "could not make a lock file");
        if (flock(l->fd, LOCK_EX | LOCK_NB) == 0 && fstat(l->fd, &st) == 0 && st.st_nlink > 0)
            return MEMFS_OK;
        close_fd(&l->fd); /* a sweeper has it, and removes it */
    }
    return memfs_fail(err, MEMFS_EUNAVAIL, "could not make a lock file");
}

/* 0, or -1 with errno. */
static int publish(gitlock *l)
{
    if (link(l->twin, l->lock) == 0)
        return 0;
    if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS && errno != EMLINK)
        return -1;
    /* no hard links here: the lock itself is our file */
    int fd = open(l->lock, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

    if (fd < 0)
        return -1;
    unlink(l->twin);
    close_fd(&l->fd);
    l->fd = fd;
    return 0;
}

memfs_code gitlock_take(const char *path, const char *twins, int64_t wait_ms, gitlock *ret,
                        memfs_error *err)
{
    _cleanup_(gitlock_dispose) gitlock l = GITLOCK_INIT;
    int64_t give_up_ms = clock_mono_ms() + wait_ms, pause_ms = 2;
    memfs_code rc;

    l.path = mem_strdup(path);
    l.lock = mem_printf("%s.lock", path);
    rc = make_twin(&l, twins, err);
    if (rc < 0)
        return rc;
    while (publish(&l) < 0) {
        if (errno != EEXIST)
            return memfs_fail_errno(err, "could not lock '%s'", last_part(path));
        if (gitlock_heal(path, twins))
            continue;
        if (clock_mono_ms() >= give_up_ms)
            return memfs_fail(err, MEMFS_EUNAVAIL,
                              "'%s' is locked by another program; if none is running, remove "
                              "'%s.lock'",
                              last_part(path), last_part(path));
        clock_sleep_ms(pause_ms);
        pause_ms = pause_ms < 50 ? pause_ms * 2 : 50;
    }
    l.is_published = true;
    *ret = l;
    l = (gitlock)GITLOCK_INIT;
    return MEMFS_OK;
}

/* letting go */

static void forget(gitlock *l)
{
    if (l->twin != NULL)
        unlink(l->twin);
    close_fd(&l->fd); /* ends the flock, when no name is left that could be taken for a lock */
    free(l->path);
    free(l->lock);
    free(l->twin);
    *l = (gitlock)GITLOCK_INIT;
}

memfs_code gitlock_commit(gitlock *l, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = folder_of(l->path);
    memfs_code rc;

    if (fsync(l->fd) < 0)
        return memfs_fail_errno(err, "could not sync '%s'", last_part(l->path));
    if (rename(l->lock, l->path) < 0)
        return memfs_fail_errno(err, "could not replace '%s'", last_part(l->path));
    l->is_published = false;
    rc = fs_sync_dir(folder, err);
    forget(l);
    return rc;
}

void gitlock_dispose(gitlock *l)
{
    if (l->is_published)
        unlink(l->lock);
    forget(l);
}
