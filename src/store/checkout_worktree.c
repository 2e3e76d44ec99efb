#include "store/checkout_update_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/*
 * A linked working tree is three things: a branch, a registration <common dir>/worktrees/<id>/ and
 * a folder whose ".git" is a file that names the registration.  Made in this order:
 *
 *   1. "<path>.memfs-XXXXXX", flocked, with all files and .git: nobody else knows it
 *   2. <common dir>/memfs/worktree.memfs-XXXXXX, flocked, with HEAD, index, commondir, gitdir, and
 * a note "memfs-stage" that names 1
 *   3. the branch
 *   4. 2 becomes worktrees/<id>         by rename, so git never sees half a registration
 *   5. 1 becomes <path>                 by rename; from now on it is there
 *
 * A crash leaves a branch that equals the commit it was made from, and things that the next
 * creation removes: folders without flock, and a registration whose note names a folder of the
 * dead.
 *
 * Removing looks twice: the folder is looked at, renamed so that nobody comes in by its path,
 * looked at again and only then given a name under which a crash would let it be swept.
 */

#define HEX 6

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static memfs_code put(const char *folder, const char *name, memfs_error *err, const char *fmt, ...)
    MEMFS_PRINTF(4, 5);

static memfs_code put(const char *folder, const char *name, memfs_error *err, const char *fmt, ...)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, name);
    _cleanup_(mem_freep) char *text = NULL;
    _cleanup_(close_fd) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    va_list ap;
    ssize_t n;
    int len;

    va_start(ap, fmt);
    len = vasprintf(&text, fmt, ap);
    va_end(ap);
    n = fd >= 0 && len >= 0 ? write(fd, text, (size_t)len) : -1;
    if (n >= 0 && n != len) {
        n = -1;
        errno = ENOSPC;
    }
    if (n < 0 || fsync(fd) < 0)
        return memfs_fail_errno(err, "could not write '%s'", name);
    return MEMFS_OK;
}

/* what there is */

typedef struct linked {
    char *admin, *path, *branch; /* branch "" when detached */
} linked;

static void linked_dispose(linked *l)
{
    free(l->admin);
    free(l->path);
    free(l->branch);
    *l = (linked){ NULL, NULL, NULL };
}

static char *line_of(const char *folder, const char *name)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, name);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(8192);
    memfs_error ignored;

    if (fs_read(path, &text, &ignored) < 0)
        return NULL;
    while (text.len > 0 && text.ptr[text.len - 1] == '\n')
        buf_truncate(&text, text.len - 1);
    return mem_strndup(text.ptr, text.len);
}

/* False: it is no registration that can be read. */
static bool linked_read(const char *admin, linked *ret)
{
    _cleanup_(mem_freep) char *git_file = line_of(admin, "gitdir");
    _cleanup_(mem_freep) char *head = line_of(admin, "HEAD");
    _cleanup_(mem_freep) char *joined = NULL;
    char *slash;

    if (git_file == NULL || head == NULL)
        return false;
    joined = git_file[0] == '/' ? mem_strdup(git_file) : mem_printf("%s/%s", admin, git_file);
    slash = strrchr(joined, '/');
    if (slash == NULL || strcmp(slash, "/.git") != 0)
        return false;
    *slash = '\0';
    ret->admin = mem_strdup(admin);
    ret->path = realpath(joined, NULL);
    if (ret->path == NULL)
        ret->path = TAKE_PTR(joined);
    ret->branch = mem_strdup(strncmp(head, "ref: refs/heads/", 16) == 0 ? head + 16 : "");
    return true;
}

typedef struct linked_list {
    linked *at;
    size_t n;
} linked_list;

static void linked_list_dispose(linked_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        linked_dispose(&l->at[i]);
    free(l->at);
}

static int compare_linked(const void *a, const void *b)
{
    return strcmp(((const linked *)a)->path, ((const linked *)b)->path);
}

static void list(const checkout *c, linked_list *ret)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/worktrees", c->common_dir);
    DIR *dir = opendir(folder);
    struct dirent *at;

    while (dir != NULL && (at = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *admin = mem_printf("%s/%s", folder, at->d_name);
        linked one = { NULL, NULL, NULL };

        if (at->d_name[0] == '.' || !linked_read(admin, &one))
            continue;
        ret->at = mem_realloc(ret->at, ret->n + 1, sizeof(*ret->at));
        ret->at[ret->n++] = one;
    }
    if (dir != NULL)
        closedir(dir);
    if (ret->n > 0)
        qsort(ret->at, ret->n, sizeof(*ret->at), compare_linked);
}

memfs_code checkout_each_worktree(checkout *c, checkout_worktree_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(linked_list_dispose) linked_list all = { NULL, 0 };
    memfs_code rc = MEMFS_OK;

    list(c, &all);
    for (size_t i = 0; rc == MEMFS_OK && i < all.n; i++)
        if (fs_is_dir(all.at[i].path))
            rc = fn(all.at[i].path, all.at[i].branch, ctx, err);
    return rc;
}

/* what the dead left */

/* "<anything>.memfs-<6 hex digits>" */
static bool is_stage_name(const char *name)
{
    const char *mark = strstr(name, ".memfs-");

    return mark != NULL && mark > name && strlen(mark) == 7 + HEX &&
           strspn(mark + 7, "0123456789abcdef") == HEX;
}

static bool is_abandoned(const char *stage)
{
    _cleanup_(close_fd) int fd = open(stage, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    return fd < 0 ? errno == ENOENT : flock(fd, LOCK_EX | LOCK_NB) == 0;
}

static void sweep_folder(const char *path)
{
    _cleanup_(mem_freep) char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    DIR *dir = opendir(folder);
    struct dirent *at;
    memfs_error ignored;

    while (dir != NULL && (at = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *stage = mem_printf("%s/%s", folder, at->d_name);

        if (is_stage_name(at->d_name) && fs_is_dir(stage) && is_abandoned(stage) &&
            fs_remove_tree(stage, &ignored) < 0)
            break; /* it is tried again */
    }
    if (dir != NULL)
        closedir(dir);
}

/* Registrations whose folder never came. */
static void sweep_registrations(const checkout *c)
{
    _cleanup_(linked_list_dispose) linked_list all = { NULL, 0 };
    memfs_error ignored;

    list(c, &all);
    for (size_t i = 0; i < all.n; i++) {
        _cleanup_(mem_freep) char *stage = line_of(all.at[i].admin, "memfs-stage");

        if (stage != NULL && is_abandoned(stage) && !fs_exists(all.at[i].path) &&
            fs_remove_tree(all.at[i].admin, &ignored) < 0)
            return; /* it is tried again */
    }
}

/* adding */

typedef struct addition {
    checkout *c;
    const char *path, *branch;
    memfs_oid commit;
    char *stage, *admin_stage, *admin; /* admin: where it will be */
    int fd, admin_fd;                  /* of the two stages */
} addition;

static void addition_dispose(addition *a)
{
    memfs_error ignored;

    if (a->stage != NULL && fs_remove_tree(a->stage, &ignored) < 0)
        ignored.code = MEMFS_OK; /* swept by the next one */
    if (a->admin_stage != NULL && fs_remove_tree(a->admin_stage, &ignored) < 0)
        ignored.code = MEMFS_OK;
    free(a->stage);
    free(a->admin_stage);
    free(a->admin);
    close_fd(&a->fd);
    close_fd(&a->admin_fd);
}

/* The files, and the index that fits them. */
static memfs_code fill(addition *a, memfs_error *err)
{
    _cleanup_(update_plan_dispose) update_plan p = UPDATE_PLAN_INIT;
    _cleanup_(gitlock_dispose) gitlock lock = GITLOCK_INIT;
    _cleanup_(mem_freep) char *index_path = mem_printf("%s/index", a->admin_stage);
    _cleanup_(mem_freep) char *twins = mem_printf("%s/index-", a->admin_stage);
    git_index *index = NULL;
    memfs_code rc;

    p.c = a->c;
    p.to = a->commit;
    p.root = fcntl(a->fd, F_DUPFD_CLOEXEC, 3);
    if (p.root < 0 || git_index_new(&index) < 0)
        return memfs_fail(err, MEMFS_EINTERNAL, "could not gather the files");
    rc = update_plan_make(&p, index, err);
    if (rc == MEMFS_OK)
        rc = update_fill(&p, err);
    if (rc == MEMFS_OK)
        rc = update_plan_index(&p, index, err);
    if (rc == MEMFS_OK)
        rc = gitlock_take(index_path, twins, 0, &lock, err);
    if (rc == MEMFS_OK)
        rc = checkout_index_write(a->c, index, &lock, err);
    if (rc == MEMFS_OK)
        rc = gitlock_commit(&lock, err);
    git_index_free(index);
    return rc;
}

static memfs_code make_admin_stage(addition *a, memfs_error *err)
{
    _cleanup_(mem_freep) char *base = checkout_note_path(a->c, "worktree"), *logs = NULL;
    memfs_code rc = checkout_stage_begin(base, &a->admin_stage, &a->admin_fd, err);

    if (rc < 0)
        return rc;
    logs = mem_printf("%s/logs", a->admin_stage);
    if (fchmod(a->admin_fd, 0755) < 0 || mkdir(logs, 0777) < 0)
        return memfs_fail_errno(err, "could not make a folder for the registration");
    return MEMFS_OK;
}

static memfs_code put_registration(addition *a, memfs_error *err)
{
    static const memfs_oid none;
    const store_identity who = { "memfs", "memfs@localhost", clock_wall_us() / 1000000 };
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(4096);
    memfs_code rc;

    refs_log_line(&none, &a->commit, &who, "+0000", "worktree add", &line);
    rc = put(a->admin_stage, "gitdir", err, "%s/.git\n", a->path);
    if (rc == MEMFS_OK)
        rc = put(a->admin_stage, "HEAD", err, "ref: refs/heads/%s\n", a->branch);
    if (rc == MEMFS_OK)
        rc = put(a->admin_stage, "commondir", err, "../..\n");
    if (rc == MEMFS_OK)
        rc = put(a->admin_stage, "logs/HEAD", err, "%s", line.ptr);
    if (rc == MEMFS_OK)
        rc = put(a->admin_stage, "memfs-stage", err, "%s\n", a->stage);
    return rc;
}

/* The first free id like the folder's name; git does the same. */
static memfs_code publish_registration(addition *a, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/worktrees", a->c->common_dir);
    memfs_code rc = fs_mkdirs(folder, err);

    for (int i = 0; rc == MEMFS_OK && i < 1000; i++) {
        char number[16] = "", *git_file = NULL;

        if (i > 0)
            snprintf(number, sizeof(number), "%d", i);
        free(a->admin);
        a->admin = mem_printf("%s/%s%s", folder, strrchr(a->path, '/') + 1, number);
        if (fs_exists(a->admin))
            continue;
        git_file = mem_printf("%s/.git", a->stage);
        unlink(git_file);
        free(git_file);
        rc = put(a->stage, ".git", err, "gitdir: %s\n", a->admin);
        if (rc == MEMFS_OK)
            rc = fs_sync_tree(a->admin_stage, err);
        if (rc == MEMFS_OK)
            rc = fs_sync_dir(a->stage, err);
        if (rc < 0)
            return rc;
        if (renameat2(AT_FDCWD, a->admin_stage, AT_FDCWD, a->admin, RENAME_NOREPLACE) == 0)
            return fs_sync_dir(folder, err);
        if (errno == ENOENT) /* git gc removes an empty worktrees/ */
            rc = fs_mkdirs(folder, err);
        else if (errno != EEXIST)
            return memfs_fail_errno(err, "could not register the working tree");
    }
    return rc < 0 ? rc : memfs_fail(err, MEMFS_EUNAVAIL, "could not register the working tree");
}

static memfs_code publish_tree(addition *a, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder =
        mem_strndup(a->path, (size_t)(strrchr(a->path, '/') - a->path));
    _cleanup_(mem_freep) char *note = mem_printf("%s/memfs-stage", a->admin);
    memfs_error ignored;

    if (rename(a->stage, a->path) < 0) {
        memfs_fail_errno(err, "could not put the working tree in place");
        if (fs_remove_tree(a->admin, &ignored) < 0)
            return err->code; /* swept by the next one */
        return err->code;
    }
    unlink(note);
    return fs_sync_dir(folder, err);
}

static memfs_code add(addition *a, memfs_error *err)
{
    static const memfs_oid none;
    _cleanup_(mem_freep) char *ref = mem_printf("refs/heads/%s", a->branch);
    memfs_error ignored;
    memfs_code rc = checkout_stage_begin(a->path, &a->stage, &a->fd, err);

    if (rc == MEMFS_OK && fchmod(a->fd, 0755) < 0)
        return memfs_fail_errno(err, "could not set the mode of the working tree");
    if (rc == MEMFS_OK)
        rc = make_admin_stage(a, err);
    if (rc == MEMFS_OK)
        rc = fill(a, err);
    if (rc == MEMFS_OK)
        rc = put_registration(a, err);
    if (rc == MEMFS_OK)
        rc = checkout_ref_move(a->c, ref, &none, &a->commit, "branch: Created from main", err);
    if (rc < 0)
        return rc == MEMFS_ECONFLICT ? (err->code = MEMFS_EEXISTS) : rc;
    rc = publish_registration(a, err);
    if (rc == MEMFS_OK)
        rc = publish_tree(a, err);
    if (rc < 0 && checkout_ref_move(a->c, ref, &a->commit, NULL, "", &ignored) < 0)
        return rc; /* the branch stays; it holds nothing that main has not */
    return rc;
}

static memfs_code check_new(const checkout *c, const char *path, const char *branch,
                            memfs_error *err)
{
    const char *name = strrchr(path, '/');
    memfs_oid id;
    _cleanup_(mem_freep) char *ref = mem_printf("refs/heads/%s", branch);
    memfs_error ignored;

    if (path[0] != '/' || name[1] == '\0' || strpbrk(path, "\n") != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "the path of a working tree must be absolute");
    if (fs_exists(path))
        return memfs_fail(err, MEMFS_EEXISTS, "'%s' is there already", name + 1);
    if (checkout_ref(c, ref, &id, &ignored) == MEMFS_OK)
        return memfs_fail(err, MEMFS_EEXISTS, "the branch '%.200s' is there already", branch);
    return MEMFS_OK;
}

memfs_code checkout_worktree_add(checkout *c, const char *path, const char *branch,
                                 const memfs_oid *commit, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = NULL, *real = NULL, *full = NULL;
    _cleanup_(addition_dispose)
        addition a = { .c = c, .branch = branch, .commit = *commit, .fd = -1, .admin_fd = -1 };
    memfs_code rc = check_new(c, path, branch, err);

    if (rc < 0)
        return rc;
    sweep_folder(path);
    sweep_registrations(c);
    folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    rc = fs_mkdirs(folder, err);
    if (rc < 0)
        return rc;
    real = realpath(folder, NULL); /* git writes down where it really is */
    full = mem_printf("%s%s", real != NULL ? real : folder, strrchr(path, '/'));
    a.path = full;
    return add(&a, err);
}

/* removing */

static memfs_code find_linked(const checkout *c, const char *path, linked *ret, memfs_error *err)
{
    _cleanup_(linked_list_dispose) linked_list all = { NULL, 0 };
    _cleanup_(mem_freep) char *real = realpath(path, NULL);

    list(c, &all);
    for (size_t i = 0; i < all.n; i++) {
        if (strcmp(all.at[i].path, real != NULL ? real : path) != 0)
            continue;
        *ret = all.at[i];
        all.at[i] = (linked){ NULL, NULL, NULL };
        return MEMFS_OK;
    }
    return memfs_fail(err, MEMFS_ENOTFOUND, "'%.200s' is no working tree of this repository", path);
}

static memfs_code check_nothing_is_lost(const linked *l, const char *path, memfs_error *err)
{
    _cleanup_(mem_freep) char *locked = mem_printf("%s/locked", l->admin);
    _cleanup_(checkout_closep) checkout *c = NULL;
    checkout_state s;
    memfs_code rc;

    if (fs_exists(locked))
        return memfs_fail(err, MEMFS_ECONFLICT, "the working tree is locked (git worktree unlock)");
    rc = checkout_open(path, &c, err);
    if (rc == MEMFS_OK)
        rc = checkout_inspect(c, &s, err);
    if (rc < 0)
        return rc;
    if (s.operation != CHECKOUT_CALM)
        return memfs_fail(err, MEMFS_ECONFLICT, "a merge or rebase is in progress there");
    if (s.n_changed > 0)
        return memfs_fail(err, MEMFS_ECONFLICT, "'%.200s' has changes that are not committed",
                          s.first_changed);
    if (s.n_untracked > 0)
        return memfs_fail(err, MEMFS_ECONFLICT, "%zu file%s there %s not committed", s.n_untracked,
                          s.n_untracked == 1 ? "" : "s", s.n_untracked == 1 ? "is" : "are");
    return MEMFS_OK;
}

/* Under a name that is swept after a crash. */
static memfs_code remove_for_good(const char *path, const char *held, memfs_error *err)
{
    _cleanup_(mem_freep) char *stage = NULL;
    _cleanup_(close_fd) int fd = -1;
    memfs_code rc = checkout_stage_begin(path, &stage, &fd, err);

    if (rc < 0)
        return rc;
    if (rename(held, stage) < 0) /* over the empty folder, whose flock goes with it */
        return memfs_fail_errno(err, "could not remove the working tree");
    return fs_remove_tree(stage, err);
}

static memfs_code remove_folder(const linked *l, bool is_forced, memfs_error *err)
{
    _cleanup_(mem_freep) char *held = mem_printf("%s.removing", l->path);
    memfs_code rc = is_forced ? MEMFS_OK : check_nothing_is_lost(l, l->path, err);

    if (rc < 0)
        return rc;
    if (renameat2(AT_FDCWD, l->path, AT_FDCWD, held, RENAME_NOREPLACE) < 0)
        return memfs_fail_errno(err, "could not remove the working tree");
    rc = is_forced ? MEMFS_OK : check_nothing_is_lost(l, held, err);
    if (rc == MEMFS_OK)
        return remove_for_good(l->path, held, err);
    if (renameat2(AT_FDCWD, held, AT_FDCWD, l->path, RENAME_NOREPLACE) < 0)
        return memfs_context(err, "'%s.removing' was kept", strrchr(l->path, '/') + 1);
    return rc;
}

memfs_code checkout_worktree_remove(checkout *c, const char *path, bool is_forced, memfs_error *err)
{
    _cleanup_(linked_dispose) linked l = { NULL, NULL, NULL };
    memfs_code rc = find_linked(c, path, &l, err);

    if (rc == MEMFS_OK && fs_exists(l.path))
        rc = remove_folder(&l, is_forced, err);
    return rc == MEMFS_OK ? fs_remove_tree(l.admin, err) : rc;
}
