#include "store/checkout_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

/*
 * A repository appears by one rename:
 *
 *   1. mkdir "<path>.memfs-<6 letters>" and take flock on it; as long as we live nobody removes it
 *   2. build the repository in it, sync it
 *   3. mkdir the working tree if it is missing
 *   4. rename it (without replacing anything but an empty folder) to its place, sync the folder
 *
 * A process that dies leaves a staging folder without flock, which the next creation removes.  32
 * at once build 32 and one rename wins; the others see EEXISTS.
 */

#define LETTERS 6

static const char CONFIG[] = "[core]\n"
                             "\trepositoryformatversion = 0\n"
                             "\tfilemode = %s\n"
                             "\tbare = %s\n"
                             "\tlogallrefupdates = true\n"
                             "\tautocrlf = false\n"
                             "\tsymlinks = false\n"
                             "\tsplitIndex = false\n"
                             "\tprotectHFS = true\n"
                             "\tprotectNTFS = true\n";

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* "<path>" without slashes at its end, and absolute; caller frees. */
static memfs_code clean_path(const char *path, char **ret, memfs_error *err)
{
    size_t len = strlen(path);

    while (len > 1 && path[len - 1] == '/')
        len--;
    if (path[0] != '/' || len < 2)
        return memfs_fail(err, MEMFS_EINVALID, "the path of a repository must be absolute");
    *ret = mem_strndup(path, len);
    return MEMFS_OK;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == path ? mem_strdup("/") : mem_strndup(path, (size_t)(slash - path));
}

/* staging */

/* Removes what is below an abandoned staging folder; its flock is ours. */
static void remove_abandoned(const char *path)
{
    _cleanup_(close_fd) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    memfs_error ignored;

    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return;
    if (fs_remove_tree(path, &ignored) < 0)
        return; /* another sweeper, or a disk that says no: it is tried again */
}

void checkout_sweep_stages(const char *path)
{
    _cleanup_(mem_freep) char *folder = folder_of(path);
    _cleanup_(mem_freep) char *prefix = mem_printf("%s.memfs-", strrchr(path, '/') + 1);
    size_t len = strlen(prefix);
    DIR *dir = opendir(folder);
    struct dirent *at;

    while (dir != NULL && (at = readdir(dir)) != NULL) {
        if (strncmp(at->d_name, prefix, len) == 0 && strlen(at->d_name) == len + LETTERS) {
            _cleanup_(mem_freep) char *stage = mem_printf("%s/%s", folder, at->d_name);

            remove_abandoned(stage);
        }
    }
    if (dir != NULL)
        closedir(dir);
}

memfs_code checkout_stage_begin(const char *path, char **ret, int *ret_fd, memfs_error *err)
{
    for (int i = 0; i < 100; i++) {
        _cleanup_(mem_freep) char *stage = NULL;
        _cleanup_(close_fd) int fd = -1;
        char hex[2 * LETTERS + 1];
        uint8_t random[LETTERS];
        struct stat st;

        hash_random(random, sizeof(random));
        hash_hex(random, sizeof(random), hex);
        stage = mem_printf("%s.memfs-%.*s", path, LETTERS, hex);
        if (mkdir(stage, 0700) < 0 && errno == EEXIST)
            continue;
        fd = open(stage, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 && errno != ENOENT)
            return memfs_fail_errno(err, "could not make a folder beside '%s'",
                                    strrchr(path, '/') + 1);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &st) < 0 || st.st_nlink == 0)
            continue; /* a sweeper took it for abandoned */
        *ret = TAKE_PTR(stage);
        *ret_fd = fd;
        fd = -1;
        return MEMFS_OK;
    }
    return memfs_fail(err, MEMFS_EUNAVAIL, "could not make a folder beside '%s'",
                      strrchr(path, '/') + 1);
}

/* building */

static memfs_code put(const char *folder, const char *name, memfs_str text, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, name);
    _cleanup_(close_fd) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

    if (fd < 0)
        return memfs_fail_errno(err, "could not create '%s'", name);
    if (write(fd, text.ptr, text.len) != (ssize_t)text.len)
        return memfs_fail_errno(err, "could not write '%s'", name);
    return MEMFS_OK;
}

/* Does this file system keep the x bit?  Asked as git asks. */
static bool has_modes(const char *folder)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/HEAD", folder);
    struct stat before, after;
    bool has;

    if (lstat(path, &before) < 0 || chmod(path, before.st_mode ^ S_IXUSR) < 0)
        return false;
    has = lstat(path, &after) == 0 && before.st_mode != after.st_mode;
    return chmod(path, before.st_mode) == 0 && has && !(before.st_mode & S_IXUSR);
}

static memfs_code put_files(const char *git_dir, bool is_bare, memfs_error *err)
{
    static const memfs_oid none;
    store_identity who = { "memfs", "memfs@localhost", clock_wall_us() / 1000000 };
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(1024);
    char hex[MEMFS_OID_HEX + 2], config[512];
    memfs_code rc;

    oid_hex(&STORE_GENESIS, hex);
    memcpy(&hex[MEMFS_OID_HEX], "\n", 2);
    refs_log_line(&none, &STORE_GENESIS, &who, "+0000", "commit (initial): memfs: genesis", &line);
    rc = put(git_dir, "HEAD", MEMFS_STR("ref: " STORE_MAIN "\n"), err);
    if (rc == MEMFS_OK) {
        snprintf(config, sizeof(config), CONFIG, has_modes(git_dir) ? "true" : "false",
                 is_bare ? "true" : "false");
        rc = put(git_dir, "config", str_of(config), err);
    }
    if (rc == MEMFS_OK)
        rc = put(git_dir, STORE_MAIN, str_of(hex), err);
    if (rc == MEMFS_OK)
        rc = put(git_dir, "logs/HEAD", buf_str(&line), err);
    if (rc == MEMFS_OK)
        rc = put(git_dir, "logs/" STORE_MAIN, buf_str(&line), err);
    return rc;
}

static memfs_code build(const char *git_dir, bool is_bare, memfs_error *err)
{
    static const char *const folders[] = {
        "",          "objects", "objects/info", "objects/pack", "refs",      "refs/heads",
        "refs/tags", "info",    "hooks",        "logs",         "logs/refs", "logs/refs/heads",
    };
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", git_dir);
    memfs_code rc;

    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", git_dir, folders[i]);

        if (mkdir(path, 0777) < 0 && errno != EEXIST)
            return memfs_fail_errno(err, "could not create the folder '%s'", folders[i]);
    }
    rc = put_files(git_dir, is_bare, err);
    if (rc == MEMFS_OK)
        rc = store_write_genesis(objects, err);
    if (rc == MEMFS_OK)
        rc = fs_sync_tree(git_dir, err);
    return rc;
}

/* publishing */

/* Replaces nothing but an empty folder, which an interrupted git may have left. */
static memfs_code publish(const char *from, const char *to, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = folder_of(to);

    if (rename(from, to) == 0)
        return fs_sync_dir(folder, err);
    if (errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR)
        return memfs_fail(err, MEMFS_EEXISTS, "there is something at '%s' already",
                          strrchr(to, '/') + 1);
    return memfs_fail_errno(err, "could not put the new repository in place");
}

static memfs_code create_at(const char *path, bool is_bare, const char *stage, memfs_error *err)
{
    _cleanup_(mem_freep) char *built = is_bare ? mem_strdup(stage) : mem_printf("%s/.git", stage);
    _cleanup_(mem_freep) char *target = is_bare ? mem_strdup(path) : mem_printf("%s/.git", path);
    memfs_code rc = build(built, is_bare, err);

    if (rc == MEMFS_OK && !is_bare)
        rc = fs_mkdirs(path, err);
    if (rc == MEMFS_OK)
        rc = publish(built, target, err);
    return rc;
}

memfs_code checkout_create(const char *work_tree, bool is_bare, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = NULL, *above = NULL, *taken = NULL, *stage = NULL;
    _cleanup_(close_fd) int fd = -1;
    memfs_error ignored;
    memfs_code rc = clean_path(work_tree, &path, err);

    if (rc == MEMFS_OK)
        rc = store_library(err);
    if (rc < 0)
        return rc;
    checkout_sweep_stages(path);
    taken = is_bare ? mem_printf("%s/HEAD", path) : mem_printf("%s/.git/HEAD", path);
    if (fs_exists(taken))
        return memfs_fail(err, MEMFS_EEXISTS, "it is a repository already");
    above = folder_of(path);
    rc = fs_mkdirs(above, err);
    if (rc == MEMFS_OK)
        rc = checkout_stage_begin(path, &stage, &fd, err);
    if (rc < 0)
        return rc;
    rc = create_at(path, is_bare, stage, err);
    if (fs_remove_tree(stage, &ignored) < 0)
        return rc; /* the next creation removes it */
    return rc;
}
