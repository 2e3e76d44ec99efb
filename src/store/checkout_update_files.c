#include "store/checkout_update_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * How a file changes without a byte being lost.  The new version of change i lies, whole and
 * synced, in the staging folder as "<i>.new" before anything is touched; then the file "ready" is
 * made there.
 *
 *   changed   rename(stage/<i>.new <-> path): from now on path has the new bytes, and <i>.new is
 *             what was at path.  Is that what the old commit had?  If not, an editor was faster:
 *             the two are exchanged again, and the update is taken back.
 *   new       rename(stage/<i>.new -> path), which fails if something is there
 *   removed   rename(path -> stage/<i>.old), then compared in the same way
 *
 * Bytes can still arrive after the comparison, through a descriptor that an editor holds.  A read
 * lease (fcntl F_SETLEASE) is refused by the kernel as long as anybody has the file open for
 * writing; so no lease means "somebody is at it", and with one nobody can begin, because the file
 * has no name any more that others know.  File systems without leases get the comparison once more
 * at the end.
 *
 * After a crash the staging folder tells how far each change came:
 *
 *     no "ready"                   nothing was touched
 *     <i>.new has the new bytes    not exchanged (or exchanged back)
 *     <i>.new has other bytes      exchanged; it is the old version, or an edit
 *     <i>.new is not there         a new file was placed
 *     <i>.old is there             a file was removed
 *
 * File systems that cannot exchange take two renames: path -> <i>.old, <i>.new -> path.
 *
 * Folders are opened one part after the other without following links (T12), the staging folder
 * lies in the git dir.
 */

#define MANY_FILES 32

/* folders */

static int make_parts(int root, const char *folder)
{
    _cleanup_(mem_freep) char *copy = mem_strdup(folder);
    char *rest = NULL;
    int fd = fcntl(root, F_DUPFD_CLOEXEC, 3);

    for (char *part = strtok_r(copy, "/", &rest); fd >= 0 && part != NULL;
         part = strtok_r(NULL, "/", &rest)) {
        int next;

        if (mkdirat(fd, part, 0777) < 0 && errno != EEXIST) {
            close(fd);
            return -1;
        }
        next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        close(fd);
        fd = next;
    }
    return fd;
}

int update_folder(const update_plan *p, const char *path, bool is_made, const char **ret_name)
{
    const char *slash = strrchr(path, '/');
    _cleanup_(mem_freep) char *folder = NULL;
    int fd;

    *ret_name = slash != NULL ? slash + 1 : path;
    if (slash == NULL)
        return fcntl(p->root, F_DUPFD_CLOEXEC, 3);
    folder = mem_strndup(path, (size_t)(slash - path));
    fd = checkout_open_folder(p->root, folder);
    return fd < 0 && errno == ENOENT && is_made ? make_parts(p->root, folder) : fd;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Folders above a file that went, as long as they are empty.  Git does so too. */
static void prune(const update_plan *p, const char *path)
{
    _cleanup_(mem_freep) char *part = mem_strdup(path);
    char *slash;

    while ((slash = strrchr(part, '/')) != NULL) {
        _cleanup_(close_fd) int above = -1;
        const char *name;

        *slash = '\0';
        above = update_folder(p, part, false, &name);
        if (above < 0 || unlinkat(above, name, AT_REMOVEDIR) < 0)
            return;
    }
}

static void sync_folder(const update_plan *p, int folder)
{
    /* a failure is seen by the syncfs before the ref moves, or leaves a file that git shows as
     * changed */
    if (!p->syncs_all && fsync(folder) < 0)
        return;
}

/* staging */

typedef char stage_name[40];

static const char *name_in_stage(stage_name out, size_t i, const char *suffix)
{
    snprintf(out, sizeof(stage_name), "%zu.%s", i, suffix);
    return out;
}

static bool in_stage(const update_plan *p, const char *name)
{
    struct stat st;

    return fstatat(p->stage, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static memfs_code write_staged(update_plan *p, int fd, const file_change *change, memfs_error *err)
{
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    git_oid id;
    memfs_str bytes;
    int rc;

    repo_git_oid(&change->new_id, &id);
    rc = git_odb_read(&object, p->c->r->odb, &id);
    if (rc < 0 || git_odb_object_type(object) != GIT_OBJECT_BLOB)
        return store_fail_git(err, rc, "could not read '%.200s' from the repository", change->path);
    bytes = repo_raw(object);
    while (bytes.len > 0) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);

        if (n < 0)
            return memfs_fail_errno(err, "could not write '%.200s'", change->path);
        bytes = str_from(bytes, (size_t)n);
    }
    if (!p->syncs_all && fsync(fd) < 0)
        return memfs_fail_errno(err, "could not sync '%.200s'", change->path);
    return MEMFS_OK;
}

static memfs_code write_new(update_plan *p, file_change *change, int folder, const char *name,
                            memfs_error *err)
{
    unsigned mode =
        change->new_mode == TREE_MODE_LINK || !(change->new_mode & S_IXUSR) ? 0666 : 0777;
    _cleanup_(close_fd) int fd =
        openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return memfs_fail_errno(err, "could not write '%.200s'", change->path);
    change->ino = st.st_ino;
    return write_staged(p, fd, change, err);
}

static memfs_code stage_one(update_plan *p, size_t i, memfs_error *err)
{
    stage_name name;

    return write_new(p, &p->at[i], p->stage, name_in_stage(name, i, "new"), err);
}

static memfs_code fill_one(update_plan *p, file_change *change, memfs_error *err)
{
    const char *name;
    _cleanup_(close_fd) int folder = update_folder(p, change->path, true, &name);
    memfs_code rc;

    if (folder < 0)
        return memfs_fail_errno(err, "could not open the folder of '%.200s'", change->path);
    rc = write_new(p, change, folder, name, err);
    sync_folder(p, folder);
    return rc;
}

memfs_code update_fill(update_plan *p, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    p->syncs_all = p->n > MANY_FILES;
    for (size_t i = 0; rc == MEMFS_OK && i < p->n; i++)
        if (p->at[i].on_disk_new)
            rc = fill_one(p, &p->at[i], err);
    if (rc == MEMFS_OK && (p->syncs_all ? syncfs(p->root) : fsync(p->root)) < 0)
        return memfs_fail_errno(err, "could not sync the new files");
    return rc;
}

memfs_code update_stage(update_plan *p, memfs_error *err)
{
    _cleanup_(close_fd) int ready = -1;
    memfs_code rc = MEMFS_OK;

    p->syncs_all = p->n > MANY_FILES;
    for (size_t i = 0; rc == MEMFS_OK && i < p->n; i++)
        if (p->at[i].on_disk_new)
            rc = stage_one(p, i, err);
    if (rc < 0)
        return rc;
    if (p->syncs_all && syncfs(p->stage) < 0)
        return memfs_fail_errno(err, "could not sync the new files");
    ready = openat(p->stage, "ready", O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (ready < 0 || fsync(p->stage) < 0)
        return memfs_fail_errno(err, "could not sync the new files");
    return MEMFS_OK;
}

/* comparing what was taken away */

/* Nobody has it open for writing; true as well where the file system cannot tell. */
static bool is_let_go(int fd)
{
    if (fcntl(fd, F_SETLEASE, F_RDLCK) < 0)
        return errno != EAGAIN;
    return true; /* it ends with the descriptor */
}

/* Does the staged file have the bytes of the commit, for good? */
static memfs_code is_staged_as(const update_plan *p, const char *name, uint32_t mode,
                               const memfs_oid *id, bool *ret, memfs_error *err)
{
    _cleanup_(close_fd) int fd = -1;
    struct stat st;

    *ret = false;
    if (fstatat(p->stage, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return memfs_fail_errno(err, "could not look at a file");
    if (S_ISREG(st.st_mode)) {
        fd = openat(p->stage, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0)
            return memfs_fail_errno(err, "could not read a file");
        if (!is_let_go(fd))
            return MEMFS_OK;
    }
    return checkout_file_is(p->c, p->stage, name, mode, id, ret, err);
}

/* one change */

static bool is_unsupported(int number)
{
    return number == EINVAL || number == ENOSYS || number == EOPNOTSUPP;
}

static int exchange(const update_plan *p, const char *staged, int folder, const char *name)
{
    return renameat2(p->stage, staged, folder, name, RENAME_EXCHANGE);
}

/* From one to the other; never over anything. */
static int move(int from_folder, const char *from, int to_folder, const char *to)
{
    if (renameat2(from_folder, from, to_folder, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (!is_unsupported(errno) || linkat(from_folder, from, to_folder, to, 0) < 0)
        return -1;
    return unlinkat(from_folder, from, 0);
}

/* Both in their new places: what was at path is now in the staging folder, under the name in
 * displaced. */
static int displace(const update_plan *p, size_t i, int folder, const char *name,
                    stage_name displaced)
{
    stage_name staged;

    name_in_stage(displaced, i, "new");
    if (exchange(p, displaced, folder, name) == 0)
        return 0;
    if (!is_unsupported(errno))
        return -1;
    name_in_stage(displaced, i, "old");
    if (move(folder, name, p->stage, displaced) < 0)
        return -1;
    return move(p->stage, name_in_stage(staged, i, "new"), folder, name);
}

static memfs_code apply_changed(update_plan *p, size_t i, int folder, const char *name,
                                memfs_error *err)
{
    const file_change *change = &p->at[i];
    stage_name displaced;
    bool is_old;
    memfs_code rc;

    if (displace(p, i, folder, name, displaced) < 0) {
        if (errno == ENOENT)
            return update_in_the_way(p, change->path, "was removed just now", err);
        if (errno == EEXIST)
            return update_in_the_way(p, change->path, "is being edited", err);
        return memfs_fail_errno(err, "could not replace '%.200s'", change->path);
    }
    rc = is_staged_as(p, displaced, change->old_mode, &change->old_id, &is_old, err);
    if (rc == MEMFS_OK && !is_old)
        return update_in_the_way(p, change->path, "is being edited", err);
    return rc;
}

static memfs_code apply_new(update_plan *p, size_t i, int folder, const char *name,
                            memfs_error *err)
{
    file_change *change = &p->at[i];
    stage_name staged;
    bool is_equal = false;
    memfs_code rc;

    if (change->is_taken)
        return MEMFS_OK;
    if (unlinkat(folder, name, AT_REMOVEDIR) < 0 && errno != ENOENT && errno != ENOTDIR)
        return update_in_the_way(p, change->path, "is a folder with files that are not committed",
                                 err); /* an empty one is nothing */
    if (move(p->stage, name_in_stage(staged, i, "new"), folder, name) == 0)
        return MEMFS_OK;
    if (errno != EEXIST)
        return memfs_fail_errno(err, "could not place '%.200s'", change->path);
    rc = checkout_file_is(p->c, folder, name, change->new_mode, &change->new_id, &is_equal, err);
    if (rc == MEMFS_OK && !is_equal)
        return update_in_the_way(p, change->path, "is in the way and is not committed", err);
    change->is_taken = rc == MEMFS_OK;
    return rc;
}

static memfs_code apply_removed(update_plan *p, size_t i, int folder, const char *name,
                                memfs_error *err)
{
    const file_change *change = &p->at[i];
    stage_name staged;
    bool is_old;
    memfs_code rc;

    if (move(folder, name, p->stage, name_in_stage(staged, i, "old")) < 0) {
        if (errno == ENOENT)
            return MEMFS_OK; /* somebody removed it as well */
        return memfs_fail_errno(err, "could not remove '%.200s'", change->path);
    }
    rc = is_staged_as(p, staged, change->old_mode, &change->old_id, &is_old, err);
    if (rc == MEMFS_OK && !is_old)
        return update_in_the_way(p, change->path, "is being edited", err);
    return rc;
}

static memfs_code apply_one(update_plan *p, size_t i, memfs_error *err)
{
    const file_change *change = &p->at[i];
    const char *name;
    _cleanup_(close_fd) int folder = update_folder(p, change->path, change->on_disk_new, &name);
    memfs_code rc;

    if (folder < 0 && (errno == ENOTDIR || errno == ELOOP))
        return update_in_the_way(p, change->path, "has a link or a file in its way", err);
    if (folder < 0 && errno == ENOENT && !change->on_disk_new)
        return MEMFS_OK;
    if (folder < 0)
        return memfs_fail_errno(err, "could not open the folder of '%.200s'", change->path);
    if (!change->on_disk_new)
        rc = apply_removed(p, i, folder, name, err);
    else if (change->on_disk_old)
        rc = apply_changed(p, i, folder, name, err);
    else
        rc = apply_new(p, i, folder, name, err);
    sync_folder(p, folder);
    if (rc == MEMFS_OK && !change->on_disk_new)
        prune(p, change->path);
    return rc;
}

memfs_code update_apply(update_plan *p, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < p->n; i++) /* first, to make room */
        if (p->at[i].on_disk_old && !p->at[i].on_disk_new)
            rc = apply_one(p, i, err);
    for (size_t i = 0; rc == MEMFS_OK && i < p->n; i++)
        if (p->at[i].on_disk_new)
            rc = apply_one(p, i, err);
    if (rc == MEMFS_OK && p->syncs_all && syncfs(p->root) < 0)
        return memfs_fail_errno(err, "could not sync the working tree");
    return rc;
}

/* keeping what has no place */

static memfs_code read_staged(const update_plan *p, const char *name, memfs_buf *out,
                              memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", p->stage_path, name);
    struct stat st;
    ssize_t n;
    char *room;

    if (lstat(path, &st) < 0)
        return memfs_fail_errno(err, "could not keep a file");
    if (!S_ISLNK(st.st_mode))
        return fs_read(path, out, err);
    room = buf_reserve(out, 4096);
    n = readlink(path, room, 4096);
    if (n < 0)
        return memfs_fail_errno(err, "could not keep a link");
    buf_grew(out, (size_t)n);
    return MEMFS_OK;
}

/* A commit on top of the old one, with these bytes at their path, under a ref of its own. */
static memfs_code keep(update_plan *p, const char *name, const char *path, memfs_error *err)
{
    static const memfs_oid none;
    const store_identity who = { "memfs", "memfs@localhost", clock_wall_us() / 1000000 };
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(1u << 30);
    _cleanup_(mem_freep) char *ref = NULL;
    checkout_edit edit = { .path = str_of(path) };
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid commit;
    memfs_code rc = read_staged(p, name, &bytes, err);

    if (rc < 0)
        return rc;
    edit.content = buf_str(&bytes);
    rc = checkout_commit_edits(p->c, &p->from, &edit, 1, &who,
                               "memfs: an edit that came while the memory was updated\n", &commit,
                               err);
    if (rc < 0)
        return rc;
    oid_hex(&commit, hex);
    ref = mem_printf("refs/memfs/rescue/working-tree/%s", hex);
    rc = checkout_ref_move(p->c, ref, &none, &commit, "memfs: kept an edit", err);
    return rc == MEMFS_ECONFLICT ? MEMFS_OK : rc; /* kept before */
}

static bool is_either(const update_plan *p, const char *name, const file_change *change,
                      memfs_error *err)
{
    bool is_it = false;

    if (change->has_old &&
        checkout_file_is(p->c, p->stage, name, change->old_mode, &change->old_id, &is_it, err) ==
            0 &&
        is_it)
        return true;
    return change->has_new &&
           checkout_file_is(p->c, p->stage, name, change->new_mode, &change->new_id, &is_it, err) ==
               0 &&
           is_it;
}

static memfs_code keep_unknown(update_plan *p, size_t i, const char *suffix, memfs_error *err)
{
    stage_name name;

    if (!in_stage(p, name_in_stage(name, i, suffix)) || is_either(p, name, &p->at[i], err))
        return MEMFS_OK;
    return keep(p, name, p->at[i].path, err);
}

memfs_code update_clear_stage(update_plan *p, memfs_error *err)
{
    bool is_ready = in_stage(p, "ready"); /* before it, half a file of ours may lie there */
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; is_ready && rc == MEMFS_OK && i < p->n; i++) {
        rc = keep_unknown(p, i, "new", err);
        if (rc == MEMFS_OK)
            rc = keep_unknown(p, i, "old", err);
    }
    if (rc == MEMFS_OK)
        rc = fs_remove_tree(p->stage_path, err);
    return rc;
}

/* taking back */

/* Out of the staging folder to its path, if nothing is there; else it stays, and is kept. */
static memfs_code put_back(update_plan *p, const char *staged, int folder, const char *name,
                           const char *path, memfs_error *err)
{
    if (move(p->stage, staged, folder, name) < 0 && errno != EEXIST)
        return memfs_fail_errno(err, "could not put '%.200s' back", path);
    return MEMFS_OK;
}

static bool is_same_file(int folder_a, const char *a, int folder_b, const char *b)
{
    struct stat one, two;

    return fstatat(folder_a, a, &one, AT_SYMLINK_NOFOLLOW) == 0 &&
           fstatat(folder_b, b, &two, AT_SYMLINK_NOFOLLOW) == 0 && one.st_ino == two.st_ino &&
           one.st_dev == two.st_dev;
}

static memfs_code take_back_new(update_plan *p, size_t i, int folder, const char *name,
                                memfs_error *err)
{
    const file_change *change = &p->at[i];
    stage_name staged;
    bool is_ours;
    memfs_code rc;

    name_in_stage(staged, i, "new");
    if (in_stage(p, staged)) { /* it was not placed, but its folder may have been made */
        if (is_same_file(p->stage, staged, folder, name))
            unlinkat(folder, name, 0); /* the first half of a move by link and unlink */
        prune(p, change->path);
        return MEMFS_OK;
    }
    if (move(folder, name, p->stage, staged) < 0)
        return errno == ENOENT
                   ? MEMFS_OK
                   : memfs_fail_errno(err, "could not take '%.200s' back", change->path);
    rc = is_staged_as(p, staged, change->new_mode, &change->new_id, &is_ours, err);
    if (rc == MEMFS_OK && !is_ours)
        return put_back(p, staged, folder, name, change->path, err);
    if (rc == MEMFS_OK)
        prune(p, change->path);
    return rc;
}

static memfs_code take_back_changed(update_plan *p, size_t i, int folder, const char *name,
                                    memfs_error *err)
{
    const file_change *change = &p->at[i];
    stage_name staged, old;
    bool is_new;
    memfs_code rc = MEMFS_OK;

    name_in_stage(staged, i, "new");
    if (in_stage(p, name_in_stage(old, i, "old"))) { /* by two renames */
        rc = take_back_new(p, i, folder, name, err);
        return rc == MEMFS_OK ? put_back(p, old, folder, name, change->path, err) : rc;
    }
    if (!in_stage(p, staged))
        return MEMFS_OK;
    rc = checkout_file_is(p->c, p->stage, staged, change->new_mode, &change->new_id, &is_new, err);
    if (rc < 0 || is_new)
        return rc; /* it was not exchanged */
    if (exchange(p, staged, folder, name) == 0)
        return MEMFS_OK; /* an edit of the new version, if that comes out, is kept */
    if (errno != ENOENT)
        return memfs_fail_errno(err, "could not put '%.200s' back", change->path);
    return put_back(p, staged, folder, name, change->path, err);
}

static memfs_code take_back_one(update_plan *p, size_t i, memfs_error *err)
{
    const file_change *change = &p->at[i];
    const char *name;
    _cleanup_(close_fd) int folder = update_folder(p, change->path, change->on_disk_old, &name);
    stage_name staged;
    memfs_code rc = MEMFS_OK;

    if (folder < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return MEMFS_OK; /* another took its place; what is staged is kept */
    if (folder < 0)
        return memfs_fail_errno(err, "could not open the folder of '%.200s'", change->path);
    if (!change->on_disk_new && in_stage(p, name_in_stage(staged, i, "old")))
        rc = put_back(p, staged, folder, name, change->path, err);
    else if (change->on_disk_new && change->on_disk_old)
        rc = take_back_changed(p, i, folder, name, err);
    else if (change->on_disk_new && !change->is_taken)
        rc = take_back_new(p, i, folder, name, err);
    sync_folder(p, folder);
    return rc;
}

memfs_code update_take_back(update_plan *p, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    if (!in_stage(p, "ready"))
        return MEMFS_OK;
    for (size_t i = p->n; rc == MEMFS_OK && i > 0; i--) /* new files first, to make room */
        if (p->at[i - 1].on_disk_new)
            rc = take_back_one(p, i - 1, err);
    for (size_t i = p->n; rc == MEMFS_OK && i > 0; i--)
        if (p->at[i - 1].on_disk_old && !p->at[i - 1].on_disk_new)
            rc = take_back_one(p, i - 1, err);
    return rc;
}
