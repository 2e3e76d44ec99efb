#include "client/backups.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "store/checkout.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_DEPTH 128
#define MAX_SIGNATURE (256u << 20)
#define PATIENCE_MS 10000
#define OBJECTS ".git/objects"
#define STAGE_PREFIX ".memfs-backup-"
#define STAGE_GRACE_S 60 /* between making a stage and locking it */

/* ---- values ---- */

void backup_entry_dispose(backup_entry *b)
{
    free(b->name);
    free(b->path);
    *b = (backup_entry)BACKUP_ENTRY_INIT;
}

void backups_dispose(backups *b)
{
    for (size_t i = 0; i < b->n; i++)
        backup_entry_dispose(&b->at[i]);
    free(b->at);
    *b = (backups)BACKUPS_INIT;
}

/* ---- walking ---- */

/*
 * One walk serves copying (to set) and looking (signature set).  Paths are relative to `from`; what
 * vanishes while we look is not there: the signature will differ, and we come again.
 */
typedef struct walk {
    const char *from, *to;
    memfs_buf *signature;
    bool only_objects;   /* .git/objects, and of it what `to` lacks */
    bool skips_objects;
} walk;

static void close_dir(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
}

static void close_fdp(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static bool is_below_git(const char *relative)
{
    return strncmp(relative, ".git/", 5) == 0;
}

/* Git's own passing things: a copy of a lock would lock the copy for ever. */
static bool is_passing(const char *relative)
{
    const char *slash = strrchr(relative, '/');
    const char *name = slash != NULL ? slash + 1 : relative;

    return is_below_git(relative) &&
           (str_ends_with(str_of(name), MEMFS_STR(".lock")) || strncmp(name, "tmp_", 4) == 0);
}

static memfs_code write_chunk(int fd, const char *bytes, size_t n, const char *name,
                              memfs_error *err)
{
    while (n > 0) {
        ssize_t done = write(fd, bytes, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return memfs_fail_errno(err, "could not write the copy of '%s'", name);
        bytes += done;
        n -= (size_t)done;
    }
    return MEMFS_OK;
}

static memfs_code copy_bytes(int in, int out, const char *name, memfs_error *err)
{
    char chunk[65536];

    for (;;) {
        ssize_t n = read(in, chunk, sizeof(chunk));
        memfs_code rc;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return memfs_fail_errno(err, "could not read '%s'", name);
        if (n == 0)
            return MEMFS_OK;
        rc = write_chunk(out, chunk, (size_t)n, name, err);
        if (rc < 0)
            return rc;
    }
}

/* The times come along, so that the copy's index still knows which files are unchanged. */
static memfs_code copy_file(const char *from, const char *to, const struct stat *st,
                            memfs_error *err)
{
    _cleanup_(close_fdp) int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    _cleanup_(close_fdp) int out = -1;
    const struct timespec times[2] = { st->st_atim, st->st_mtim };
    memfs_code rc;

    if (in < 0 && errno == ENOENT)
        return MEMFS_OK;
    if (in < 0)
        return memfs_fail_errno(err, "could not read '%s'", from);
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, st->st_mode & 0777);
    if (out < 0)
        return memfs_fail_errno(err, "could not create '%s'", to);
    rc = copy_bytes(in, out, from, err);
    if (rc == MEMFS_OK && futimens(out, times) < 0)
        return memfs_fail_errno(err, "could not date '%s'", to);
    return rc;
}

static memfs_code copy_link(const char *from, const char *to, memfs_error *err)
{
    char target[4096];
    ssize_t n = readlink(from, target, sizeof(target) - 1);

    if (n < 0)
        return MEMFS_OK; /* gone, or no link any more: the next look sees it */
    target[n] = '\0';
    return symlink(target, to) == 0 ? MEMFS_OK
                                    : memfs_fail_errno(err, "could not create '%s'", to);
}

static void sign(memfs_buf *signature, const char *relative, const struct stat *st)
{
    buf_add(signature, relative, strlen(relative) + 1);
    if (S_ISDIR(st->st_mode))
        return;
    buf_printf(signature, "%o %llu %llu %lld.%09ld\n", st->st_mode,
               (unsigned long long)st->st_ino, (unsigned long long)st->st_size,
               (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

static memfs_code walk_folder(walk *w, const char *relative, unsigned depth, memfs_error *err);

static memfs_code walk_entry(walk *w, const char *relative, unsigned depth, memfs_error *err)
{
    _cleanup_(mem_freep) char *from = mem_printf("%s/%s", w->from, relative);
    _cleanup_(mem_freep) char *to = w->to != NULL ? mem_printf("%s/%s", w->to, relative) : NULL;
    struct stat st;

    if (lstat(from, &st) < 0)
        return errno == ENOENT ? MEMFS_OK : memfs_fail_errno(err, "could not look at '%s'", from);
    if (w->signature != NULL)
        sign(w->signature, relative, &st);
    if (S_ISDIR(st.st_mode)) {
        if (to != NULL && mkdir(to, 0700) < 0 && errno != EEXIST)
            return memfs_fail_errno(err, "could not create '%s'", to);
        return walk_folder(w, relative, depth + 1, err);
    }
    if (to == NULL || (w->only_objects && fs_exists(to)))
        return MEMFS_OK;
    if (S_ISREG(st.st_mode))
        return copy_file(from, to, &st, err);
    return S_ISLNK(st.st_mode) ? copy_link(from, to, err) : MEMFS_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

typedef struct names {
    char **at;
    size_t n, cap;
} names;

static void names_dispose(names *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->at[i]);
    free(l->at);
}

/* Sorted, so that two looks at the same folder compare. */
static memfs_code read_names(const char *path, names *ret, memfs_error *err)
{
    _cleanup_(close_dir) DIR *dir = opendir(path);
    struct dirent *entry;

    if (dir == NULL)
        return errno == ENOENT ? MEMFS_OK : memfs_fail_errno(err, "could not read '%s'", path);
    while ((errno = 0, entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (ret->n == ret->cap) {
            ret->cap = ret->cap ? ret->cap * 2 : 32;
            ret->at = mem_realloc(ret->at, ret->cap, sizeof(*ret->at));
        }
        ret->at[ret->n++] = mem_strdup(entry->d_name);
    }
    if (errno != 0)
        return memfs_fail_errno(err, "could not read '%s'", path);
    if (ret->n > 1)
        qsort(ret->at, ret->n, sizeof(*ret->at), by_name);
    return MEMFS_OK;
}

static memfs_code walk_folder(walk *w, const char *relative, unsigned depth, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", w->from, relative);
    _cleanup_(names_dispose) names all = { NULL, 0, 0 };
    memfs_code rc = read_names(path, &all, err);

    if (rc == MEMFS_OK && depth > MAX_DEPTH)
        return memfs_fail(err, MEMFS_ELIMIT, "'%s': folders are nested deeper than %d", path,
                          MAX_DEPTH);
    for (size_t i = 0; rc == MEMFS_OK && i < all.n; i++) {
        _cleanup_(mem_freep) char *below =
            mem_printf("%s%s%s", relative, relative[0] ? "/" : "", all.at[i]);

        if (is_passing(below) || (w->skips_objects && strcmp(below, OBJECTS) == 0))
            continue;
        rc = walk_entry(w, below, depth, err);
    }
    return rc;
}

/* ---- making one ---- */

static memfs_code copy_objects(const char *from, const char *to, memfs_error *err)
{
    walk w = { .from = from, .to = to, .only_objects = true };
    _cleanup_(mem_freep) char *git = mem_printf("%s/.git", to);
    _cleanup_(mem_freep) char *objects = mem_printf("%s/" OBJECTS, to);
    memfs_code rc = fs_mkdirs(git, err);

    if (rc == MEMFS_OK)
        rc = fs_mkdirs(objects, err);
    return rc < 0 ? rc : walk_folder(&w, OBJECTS, 0, err);
}

/* Everything but the objects goes again. */
static memfs_code clear_rest(const char *to, memfs_error *err)
{
    _cleanup_(names_dispose) names all = { NULL, 0, 0 }, git = { NULL, 0, 0 };
    _cleanup_(mem_freep) char *dot_git = mem_printf("%s/.git", to);
    memfs_code rc = read_names(to, &all, err);

    if (rc == MEMFS_OK)
        rc = read_names(dot_git, &git, err);
    for (size_t i = 0; rc == MEMFS_OK && i < all.n; i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", to, all.at[i]);

        if (strcmp(all.at[i], ".git") != 0)
            rc = fs_remove_tree(path, err);
    }
    for (size_t i = 0; rc == MEMFS_OK && i < git.n; i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", dot_git, git.at[i]);

        if (strcmp(git.at[i], "objects") != 0)
            rc = fs_remove_tree(path, err);
    }
    return rc;
}

static memfs_code look(const char *from, memfs_buf *ret, memfs_error *err)
{
    walk w = { .from = from, .signature = ret, .skips_objects = true };
    memfs_code rc;

    buf_clear(ret);
    rc = walk_folder(&w, "", 0, err);
    return rc < 0 ? rc : buf_check(ret, "the list of a memory's files", err);
}

static memfs_code copy_rest(const char *from, const char *to, bool *ret_is_whole, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(MAX_SIGNATURE);
    _cleanup_(buf_dispose) memfs_buf after = MEMFS_BUF_INIT(MAX_SIGNATURE);
    walk w = { .from = from, .to = to, .skips_objects = true };
    memfs_code rc = look(from, &before, err);

    if (rc == MEMFS_OK)
        rc = walk_folder(&w, "", 0, err);
    if (rc == MEMFS_OK)
        rc = look(from, &after, err);
    *ret_is_whole = rc == MEMFS_OK && str_equal(buf_str(&before), buf_str(&after));
    return rc;
}

static memfs_code copy_memory(const char *from, const char *to, memfs_error *err)
{
    int64_t deadline_ms = clock_mono_ms() + PATIENCE_MS;
    bool is_whole = false;
    memfs_code rc = copy_objects(from, to, err);

    while (rc == MEMFS_OK && !is_whole) {
        rc = copy_rest(from, to, &is_whole, err);
        if (rc < 0 || is_whole)
            break;
        if (clock_mono_ms() > deadline_ms)
            return memfs_fail(err, MEMFS_EUNAVAIL, "the memory changed all the time while it was "
                              "copied; try again when its agent rests");
        clock_sleep_ms(20);
        rc = clear_rest(to, err);
    }
    if (rc == MEMFS_OK)
        rc = copy_objects(from, to, err);
    return rc < 0 ? rc : fs_sync_tree(to, err);
}

/* Under a name that is free: another backup of the same second takes the next one. */
static memfs_code publish(const place *p, const char *staged, backup_entry *ret, memfs_error *err)
{
    time_t now = (time_t)(clock_wall_us() / 1000000);
    char stamp[32];
    struct tm tm;

    for (unsigned i = 0; i < 120; i++, now++) {
        if (localtime_r(&now, &tm) == NULL ||
            strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &tm) == 0)
            return memfs_fail(err, MEMFS_EINTERNAL, "the clock is out of range");
        backup_entry_dispose(ret);
        ret->name = mem_printf(BACKUPS_PREFIX "%s", stamp);
        ret->path = mem_printf("%s/%s", p->root, ret->name);
        ret->time_s = now;
        if (renameat2(AT_FDCWD, staged, AT_FDCWD, ret->path, RENAME_NOREPLACE) == 0)
            return fs_sync_dir(p->root, err);
        if (errno != EEXIST)
            return memfs_fail_errno(err, "could not name the backup '%s'", ret->name);
    }
    return memfs_fail(err, MEMFS_EEXISTS, "there are backups of every second already");
}

static void read_head(backup_entry *b)
{
    _cleanup_(checkout_closep) checkout *c = NULL;
    memfs_error err = MEMFS_ERROR_INIT;

    b->has_head = checkout_open(b->path, &c, &err) == MEMFS_OK &&
                  checkout_ref(c, STORE_MAIN, &b->head, &err) == MEMFS_OK;
}

/* Stages are flocked by whoever works in them; the others' makers are dead. */
static void sweep_stages(const place *p)
{
    _cleanup_(names_dispose) names all = { NULL, 0, 0 };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = read_names(p->root, &all, &err);

    for (size_t i = 0; rc == MEMFS_OK && i < all.n; i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", p->root, all.at[i]);
        _cleanup_(close_fdp) int fd = -1;
        struct stat st;

        if (!str_starts_with(str_of(all.at[i]), MEMFS_STR(STAGE_PREFIX)))
            continue;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0 && fstat(fd, &st) == 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
            st.st_mtim.tv_sec + STAGE_GRACE_S < clock_wall_us() / 1000000)
            rc = fs_remove_tree(path, &err);
    }
}

memfs_code backups_make(const place *p, backup_entry *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *staged = mem_printf("%s/" STAGE_PREFIX "XXXXXX", p->root);
    _cleanup_(close_fdp) int fd = -1;
    memfs_error other = MEMFS_ERROR_INIT;
    memfs_code rc;

    if (!fs_is_dir(p->memory))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no memory at '%s'", p->memory);
    sweep_stages(p);
    if (mkdtemp(staged) == NULL)
        return memfs_fail_errno(err, "could not create a folder in '%s'", p->root);
    fd = open(staged, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return memfs_fail_errno(err, "could not lock '%s'", staged);
    rc = copy_memory(p->memory, staged, err);
    if (rc == MEMFS_OK)
        rc = publish(p, staged, ret, err);
    if (rc < 0 && fs_remove_tree(staged, &other) < 0)
        return memfs_context(err, "'%s' stays behind", staged);
    if (rc == MEMFS_OK)
        read_head(ret);
    return rc;
}

/* ---- listing ---- */

/* "20261122-140359", local time; 0: it is no time. */
static int64_t time_of(const char *stamp)
{
    struct tm tm = { .tm_isdst = -1 };
    const char *end = strptime(stamp, "%Y%m%d-%H%M%S", &tm);

    return end != NULL && *end == '\0' ? (int64_t)mktime(&tm) : 0;
}

memfs_code backups_list(const place *p, backups *ret, memfs_error *err)
{
    _cleanup_(names_dispose) names all = { NULL, 0, 0 };
    memfs_code rc = read_names(p->root, &all, err);

    for (size_t i = all.n; rc == MEMFS_OK && i-- > 0;) {
        backup_entry b = BACKUP_ENTRY_INIT;

        if (!str_starts_with(str_of(all.at[i]), MEMFS_STR(BACKUPS_PREFIX)))
            continue;
        b.name = mem_strdup(all.at[i]);
        b.path = mem_printf("%s/%s", p->root, b.name);
        b.time_s = time_of(b.name + sizeof(BACKUPS_PREFIX) - 1);
        read_head(&b);
        ret->at = mem_realloc(ret->at, ret->n + 1, sizeof(*ret->at));
        ret->at[ret->n++] = b;
    }
    return rc;
}
