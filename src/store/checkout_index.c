#include "store/checkout_int.h"

#include "base/fs.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * An entry of the index remembers the stat data that its file had when the two were equal.  Equal
 * stat data mean an equal file, with one exception: a file that was changed in the same instant
 * ("racily clean").  Git takes an entry for that when its file is as young as the index itself,
 * and compares the bytes.  Kernels stamp files by ticks of up to 10 ms, so we ask for 100 ms
 * between the two where nanoseconds are kept, and for a whole second where they are not.
 *
 * When the stat data differ the bytes decide.  They are compared as they are: filters and line
 * ending rules are not applied (T12), so in a repository that has them a file can seem changed
 * here that git takes for unchanged, and is left alone.
 *
 * A submodule is no business of a memory: its folder is there or not.
 */

#define RACY_NS 100000000
#define READ_MAX_BYTES (64 << 20)

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* the index */

void checkout_index_dispose(checkout_index *x)
{
    git_index_free(x->index);
    x->index = NULL;
}

memfs_code checkout_index_read(const checkout *c, checkout_index *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/index", c->git_dir);
    struct stat st;
    int rc;

    /* first: an index that is replaced in between is then taken for older than it is, which is
     * safe */
    ret->written = stat(path, &st) == 0 ? st.st_mtim : (struct timespec){ 0, 0 };
    rc = git_index_open(&ret->index, path);
    if (rc == 0)
        return MEMFS_OK;
    store_fail_git(err, rc, "could not read the index");
    if (strstr(err->msg, "'link'") != NULL) /* the extension that names the other half */
        return memfs_fail(err, MEMFS_EINVALID,
                          "the index is in two files (core.splitIndex), which memfs does not read; "
                          "'git update-index --no-split-index' puts it together");
    return err->code;
}

static char *index_twins(const checkout *c)
{
    return checkout_own_note_path(c, "index-");
}

memfs_code checkout_index_lock(const checkout *c, gitlock *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/index", c->git_dir);
    _cleanup_(mem_freep) char *twins = index_twins(c);

    return gitlock_take(path, twins, CHECKOUT_LOCK_WAIT_MS, ret, err);
}

/* libgit2 writes through a lock of its own, so it gets a file of its own. */
memfs_code checkout_index_write(const checkout *c, git_index *index, gitlock *lock,
                                memfs_error *err)
{
    _cleanup_(mem_freep) char *path = NULL;
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(512u << 20);
    git_index *copy = NULL;
    memfs_code rc = MEMFS_OK;
    int number;

    (void)c;
    path = mem_printf("%s.new", lock->twin); /* our name alone, as long as we hold the lock */
    unlink(path);
    number = git_index_open(&copy, path);
    for (size_t i = 0; number == 0 && i < git_index_entrycount(index); i++)
        number = git_index_add(copy, git_index_get_byindex(index, i));
    if (number == 0)
        number = git_index_write(copy);
    if (number < 0)
        rc = store_fail_git(err, number, "could not write the index");
    git_index_free(copy);
    if (rc == MEMFS_OK)
        rc = fs_read(path, &bytes, err);
    unlink(path);
    if (rc < 0)
        return rc;
    if (ftruncate(lock->fd, 0) < 0 ||
        pwrite(lock->fd, bytes.ptr, bytes.len, 0) != (ssize_t)bytes.len)
        return memfs_fail_errno(err, "could not write the index");
    return fsync(lock->fd) < 0 ? memfs_fail_errno(err, "could not sync the index") : MEMFS_OK;
}

void checkout_entry_stat(git_index_entry *e, const struct stat *st)
{
    e->ctime.seconds = (int32_t)st->st_ctim.tv_sec;
    e->ctime.nanoseconds = (uint32_t)st->st_ctim.tv_nsec;
    e->mtime.seconds = (int32_t)st->st_mtim.tv_sec;
    e->mtime.nanoseconds = (uint32_t)st->st_mtim.tv_nsec;
    e->dev = (uint32_t)st->st_dev;
    e->ino = (uint32_t)st->st_ino;
    e->uid = st->st_uid;
    e->gid = st->st_gid;
    e->file_size = (uint32_t)st->st_size;
}

/* folders of the working tree */

void tree_cursor_dispose(tree_cursor *t)
{
    if (t->fd != t->root)
        close_fd(&t->fd);
    close_fd(&t->root);
    buf_dispose(&t->folder);
}

memfs_code tree_cursor_open(const checkout *c, tree_cursor *ret, memfs_error *err)
{
    ret->root = open(c->work_tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (ret->root < 0)
        return memfs_fail_errno(err, "could not open the working tree");
    ret->fd = ret->root;
    return MEMFS_OK;
}

/* For kernels and sandboxes without openat2: one part after the other. */
static int open_parts(int root, const char *folder)
{
    _cleanup_(mem_freep) char *copy = mem_strdup(folder);
    char *rest = NULL;
    int fd = dup(root);

    for (char *part = strtok_r(copy, "/", &rest); fd >= 0 && part != NULL;
         part = strtok_r(NULL, "/", &rest)) {
        int next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

        close(fd);
        fd = next;
    }
    return fd;
}

int checkout_open_folder(int root, const char *folder)
{
    struct open_how how = { .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
    int fd = (int)syscall(SYS_openat2, root, folder, &how, sizeof(how));

    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        return open_parts(root, folder);
    return fd;
}

int tree_cursor_at(tree_cursor *t, const char *path, const char **ret_name)
{
    const char *slash = strrchr(path, '/');
    memfs_str folder = str_make(path, slash != NULL ? (size_t)(slash - path) : 0);

    *ret_name = slash != NULL ? slash + 1 : path;
    if (str_equal(folder, buf_str(&t->folder)))
        return t->is_missing ? -1 : t->fd;
    if (t->fd != t->root)
        close_fd(&t->fd);
    buf_clear(&t->folder);
    buf_add_str(&t->folder, folder);
    t->fd = folder.len > 0 ? checkout_open_folder(t->root, t->folder.ptr) : t->root;
    t->is_missing = t->fd < 0;
    return t->fd;
}

/* comparing */

static memfs_code hash_small(int fd, size_t size, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(READ_MAX_BYTES + 1);
    char *room = buf_reserve(&bytes, size + 1);
    git_oid id;
    ssize_t n;

    while ((n = pread(fd, room + bytes.len, size + 1 - bytes.len, (off_t)bytes.len)) > 0)
        buf_grew(&bytes, (size_t)n);
    if (n < 0)
        return memfs_fail_errno(err, "could not read a file");
    if (git_odb_hash(&id, bytes.ptr, bytes.len, GIT_OBJECT_BLOB) < 0)
        return store_fail_git(err, -1, "could not hash a file");
    repo_memfs_oid(&id, ret);
    return MEMFS_OK;
}

/* A file that grows while it is read gets some id that no honest blob has; it is not equal,
 * rightly. */
memfs_code checkout_hash_fd(int fd, const struct stat *st, memfs_oid *ret, memfs_error *err)
{
    char path[64];
    git_oid id;
    int rc;

    if (st->st_size < READ_MAX_BYTES)
        return hash_small(fd, (size_t)st->st_size, ret, err);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    rc = git_odb_hashfile(&id, path, GIT_OBJECT_BLOB); /* in pieces */
    if (rc < 0)
        return store_fail_git(err, rc, "could not hash a file");
    repo_memfs_oid(&id, ret);
    return MEMFS_OK;
}

static memfs_code link_is(int folder, const char *name, const memfs_oid *id, bool *ret,
                          memfs_error *err)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(folder, name, target, sizeof(target));
    git_oid hash;
    memfs_oid now;

    *ret = false;
    if (n < 0)
        return MEMFS_OK;
    if (git_odb_hash(&hash, target, (size_t)n, GIT_OBJECT_BLOB) < 0)
        return store_fail_git(err, -1, "could not hash a link");
    repo_memfs_oid(&hash, &now);
    *ret = oid_equal(&now, id);
    return MEMFS_OK;
}

/* By type and x bit alone. */
static bool mode_is(const checkout *c, uint32_t mode, const struct stat *st)
{
    if (mode == TREE_MODE_LINK)
        return S_ISLNK(st->st_mode) || (!c->has_links && S_ISREG(st->st_mode)); /* as git has it */
    if (!S_ISREG(st->st_mode))
        return false;
    return !c->has_modes || !((mode ^ st->st_mode) & S_IXUSR);
}

memfs_code checkout_file_is(const checkout *c, int folder, const char *name, uint32_t mode,
                            const memfs_oid *id, bool *ret, memfs_error *err)
{
    _cleanup_(close_fd) int fd = -1;
    memfs_oid now;
    struct stat st;
    memfs_code rc;

    *ret = false;
    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !mode_is(c, mode, &st))
        return MEMFS_OK;
    if (S_ISLNK(st.st_mode))
        return link_is(folder, name, id, ret, err);
    fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ELOOP))
        return MEMFS_OK;
    if (fd < 0 || fstat(fd, &st) < 0)
        return memfs_fail_errno(err, "could not read '%.200s'", name);
    if (!mode_is(c, mode, &st))
        return MEMFS_OK;
    rc = checkout_hash_fd(fd, &st, &now, err);
    if (rc == MEMFS_OK)
        *ret = oid_equal(&now, id);
    return rc;
}

static bool is_racy(const checkout_index *x, const git_index_entry *e)
{
    int64_t file_ns = (int64_t)e->mtime.seconds * 1000000000 + e->mtime.nanoseconds;
    int64_t index_ns = (int64_t)x->written.tv_sec * 1000000000 + x->written.tv_nsec;

    if (e->mtime.nanoseconds == 0 || x->written.tv_nsec == 0)
        return e->mtime.seconds >= (int32_t)x->written.tv_sec;
    return file_ns + RACY_NS >= index_ns;
}

static bool stat_is_equal(const git_index_entry *e, const struct stat *st)
{
    git_index_entry now = { .dev = 0 };

    checkout_entry_stat(&now, st);
    return now.ctime.seconds == e->ctime.seconds && now.ctime.nanoseconds == e->ctime.nanoseconds &&
           now.mtime.seconds == e->mtime.seconds && now.mtime.nanoseconds == e->mtime.nanoseconds &&
           now.ino == e->ino && now.uid == e->uid && now.gid == e->gid &&
           now.file_size == e->file_size;
}

static memfs_code submodule_is_fresh(int folder, const char *name, bool *ret)
{
    struct stat st;

    *ret = fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
    return MEMFS_OK;
}

memfs_code checkout_entry_is_fresh(const checkout *c, const checkout_index *x,
                                   const git_index_entry *e, tree_cursor *t, bool *ret,
                                   memfs_error *err)
{
    const char *name;
    struct stat st;
    memfs_oid id;
    int folder;

    *ret = true;
    if ((e->flags & GIT_INDEX_ENTRY_VALID) || (e->flags_extended & GIT_INDEX_ENTRY_SKIP_WORKTREE))
        return MEMFS_OK; /* the user told git not to look */
    *ret = false;
    folder = tree_cursor_at(t, e->path, &name);
    if (folder < 0)
        return MEMFS_OK;
    if (e->mode == TREE_MODE_GITLINK)
        return submodule_is_fresh(folder, name, ret);
    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !mode_is(c, e->mode, &st))
        return MEMFS_OK;
    *ret = stat_is_equal(e, &st) && !is_racy(x, e) && e->file_size > 0;
    if (*ret || (e->file_size > 0 && e->file_size != (uint32_t)st.st_size))
        return MEMFS_OK; /* size 0 is how git marks what it is not sure of */
    repo_memfs_oid(&e->id, &id);
    return checkout_file_is(c, folder, name, e->mode, &id, ret, err);
}
