#include "base/fs.h"
#include "base/mem.h"
#include "hook/hook.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/*
 * reference-transaction: nothing committed is lost, whatever is done to a branch (design 5, 15).
 *
 * git calls this in three states; only "prepared" is acted on: the refs are locked and not yet
 * moved, so what is written now is there before the old tip goes.  Each line is "<old> <new>
 * <ref>".  For each branch
 *
 *   old all zeros ("whatever it is")   the tip is read from the loose ref, else from packed-refs
 *   no tip                             a new branch: nothing can be lost
 *   deleted, and packed-refs has the very same tip, and nobody holds packed-refs.lock
 *                                      pack-refs pruning the loose file: nothing is lost
 *   moved                              nothing is lost if the new tip reaches the old one
 *   deleted                            nothing is lost if main, which stays, reaches the old tip
 *   all else                           the old tip is kept
 *
 * Keeping is a file refs/memfs/rescue/<branch>/<id>, which is a ref to git, made as git makes refs:
 * written and synced under a name that nobody reads, then renamed.  It needs no lock of git's: what
 * it holds is a function of its name, so writers cannot disagree.
 *
 * One lock is ours, <common>/memfs/rescue.lock (flock; a killed process lets go of it).
 * client/rescue.c holds it while it drops what turned out to be reachable, and looks for git's own
 * locks on branches first: without that it could judge by a branch that is just being moved away,
 * and drop what this hook had kept a moment ago.
 *
 * If a tip cannot be kept (full disk, read-only) the transaction still goes on, as it would without
 * us: a client that cannot reset a branch dies.  stderr then has the id, and git keeps the objects
 * for two weeks.
 */

#define LOCK_PATIENCE_MS 500
#define LOG_MAX_BYTES (1 << 20)
#define N_TRIES 5

typedef struct ref_line {
    memfs_oid old_id, new_id;
    char *name;
} ref_line;

/* It becomes part of a path.  git's own rules for names are stricter; this holds whoever writes to
 * us. */
static bool is_sane(memfs_str name)
{
    return memchr(name.ptr, '\0', name.len) == NULL &&
           memmem(name.ptr, name.len, "/.", 2) == NULL &&
           memmem(name.ptr, name.len, "//", 2) == NULL && !str_ends_with(name, MEMFS_STR("/"));
}

static bool parse_line(memfs_str line, ref_line *ret)
{
    memfs_str old_hex, new_hex, name;

    if (!str_split(line, ' ', &old_hex, &line) || !str_split(line, ' ', &new_hex, &name) ||
        !oid_parse(old_hex, &ret->old_id) || !oid_parse(new_hex, &ret->new_id) ||
        !str_starts_with(name, MEMFS_STR("refs/heads/")) || !is_sane(name))
        return false;
    ret->name = mem_strndup(name.ptr, name.len);
    return true;
}

static bool is_being_packed(const char *common, const ref_line *l)
{
    _cleanup_(mem_freep) char *lock = mem_printf("%s/packed-refs.lock", common);
    memfs_oid packed;

    return !fs_exists(lock) && refs_read_packed(common, l->name, &packed) &&
           oid_equal(&packed, &l->old_id);
}

/* main as it is, unless this transaction moves it. */
static bool main_that_stays(const char *common, memfs_str all, memfs_oid *ret)
{
    memfs_str line;

    while (str_split(all, '\n', &line, &all))
        if (str_ends_with(line, MEMFS_STR(" refs/heads/main")))
            return false;
    return refs_read(common, "refs/heads/main", ret) != REF_ABSENT;
}

/* Would the old tip be lost?  Fills in an old id that git did not say. */
static bool is_lost(const char *common, memfs_str all, ref_line *l)
{
    memfs_oid stays;

    if (oid_is_zero(&l->old_id) && refs_read(common, l->name, &l->old_id) == REF_ABSENT)
        return false;
    if (oid_equal(&l->old_id, &l->new_id))
        return false;
    if (!oid_is_zero(&l->new_id))
        return !refs_reaches(common, &l->new_id, &l->old_id);
    if (is_being_packed(common, l))
        return false;
    return !main_that_stays(common, all, &stays) || !refs_reaches(common, &stays, &l->old_id);
}

/* keeping */

static int take_lock(const char *notes, bool *ret_held)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/rescue.lock", notes);
    struct timespec pause = { 0, 2 * 1000 * 1000 };
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    *ret_held = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == 0;
    for (int waited = 0; fd >= 0 && !*ret_held && waited < LOCK_PATIENCE_MS; waited += 2) {
        nanosleep(&pause, NULL);
        *ret_held = flock(fd, LOCK_SH | LOCK_NB) == 0;
    }
    return fd; /* held or not: to keep is more important */
}

/* The ref's bytes, synced, under a name in our own folder; NULL when that failed.  Caller frees. */
static char *write_aside(const char *notes, const char *hex)
{
    struct timespec now;
    char line[MEMFS_OID_HEX + 2];
    char *path;
    bool ok;
    int fd;

    clock_gettime(CLOCK_REALTIME, &now);
    path = mem_printf("%s/rescue-%d-%lld.%09ld", notes, (int)getpid(), (long long)now.tv_sec,
                      now.tv_nsec);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd >= 0) {
        snprintf(line, sizeof(line), "%s\n", hex);
        ok = write(fd, line, MEMFS_OID_HEX + 1) == MEMFS_OID_HEX + 1 && fsync(fd) == 0;
        close(fd);
        if (ok)
            return path;
        unlink(path);
    }
    free(path);
    return NULL;
}

/* git takes empty folders away when it deletes refs, so a folder may be gone again: then anew. */
static bool put_in_place(const char *aside, const char *folder, const char *hex)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, hex);
    memfs_error e = MEMFS_ERROR_INIT;

    if (aside == NULL)
        return false;
    for (int i = 0; i < N_TRIES; i++)
        if (fs_mkdirs(folder, &e) == MEMFS_OK && fs_rename(aside, path, &e) == MEMFS_OK)
            return true;
    return false;
}

static void add_log(const char *notes, const ref_line *l, const char *old_hex)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/rescue.log", notes);
    _cleanup_(mem_freep) char *older = mem_printf("%s/rescue.log.1", notes);
    _cleanup_(mem_freep) char *line = NULL;
    char new_hex[MEMFS_OID_HEX + 1];
    struct timespec now;
    struct stat st;
    int fd;

    if (stat(path, &st) == 0 && st.st_size > LOG_MAX_BYTES)
        rename(path, older);
    oid_hex(&l->new_id, new_hex);
    clock_gettime(CLOCK_REALTIME, &now);
    line = mem_printf("%lld %s %s %s\n", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000,
                      old_hex, new_hex, l->name);
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    if (write(fd, line, strlen(line)) < 0)
        errno = 0; /* the ref is what counts */
    close(fd);
}

/* `git branch -D` comes by twice.  Nothing drops the ref while the lock is held and the branch is
 * locked. */
static bool is_kept(const char *folder, const char *hex)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, hex);

    return fs_exists(path);
}

static void keep(const char *common, const ref_line *l)
{
    _cleanup_(mem_freep) char *notes = mem_printf("%s/memfs", common);
    _cleanup_(mem_freep) char *folder =
        mem_printf("%s/refs/memfs/rescue/%s", common, l->name + strlen("refs/heads/"));
    /* for a branch whose name cannot be a folder here: too long, or a rescued id is its parent
     * folder */
    _cleanup_(mem_freep) char *fallback = mem_printf("%s/refs/memfs/rescue/@", common);
    _cleanup_(mem_freep) char *aside = NULL;
    memfs_error e = MEMFS_ERROR_INIT;
    char hex[MEMFS_OID_HEX + 1];
    bool is_locked;
    int lock;

    oid_hex(&l->old_id, hex);
    if (fs_mkdirs(notes, &e) < 0) {
        hook_say("could not keep the old tip %s of '%s': %s", hex, l->name, e.msg);
        return;
    }
    lock = take_lock(notes, &is_locked);
    if (!is_locked || !is_kept(folder, hex)) {
        aside = write_aside(notes, hex);
        if (put_in_place(aside, folder, hex) || put_in_place(aside, fallback, hex)) {
            add_log(notes, l, hex);
        } else {
            hook_say("could not keep the old tip %s of '%s': %s", hex, l->name, strerror(errno));
            if (aside != NULL)
                unlink(aside);
        }
    }
    if (lock >= 0)
        close(lock);
}

static void keep_what_would_be_lost(const char *common, memfs_str all)
{
    memfs_str rest = all, line;

    while (str_split(rest, '\n', &line, &rest)) {
        ref_line l = { .name = NULL };

        if (parse_line(line, &l) && is_lost(common, all, &l))
            keep(common, &l);
        free(l.name);
    }
}

/* stdin */

static void read_stdin(memfs_buf *out)
{
    char chunk[16384];
    ssize_t n;

    for (;;) {
        n = read(STDIN_FILENO, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        buf_add(out, chunk, (size_t)n);
    }
}

/* Makes the bytes stdin again, for a hook that reads them too. */
static bool unread_stdin(memfs_str bytes)
{
    int fd = memfd_create("stdin", MFD_CLOEXEC);

    while (fd >= 0 && bytes.len > 0) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);

        if (n < 0)
            return false;
        bytes = str_from(bytes, (size_t)n);
    }
    return fd >= 0 && lseek(fd, 0, SEEK_SET) == 0 && dup2(fd, STDIN_FILENO) >= 0;
}

int hook_reference_transaction(char **argv)
{
    bool is_prepared = argv[1] != NULL && strcmp(argv[1], "prepared") == 0;
    _cleanup_(buf_dispose) memfs_buf lines = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(hook_repo_dispose) hook_repo r = HOOK_REPO_INIT;
    _cleanup_(mem_freep) char *users = NULL;

    if (!hook_repo_find(&r))
        return 0;
    users = chain_target(&r, "reference-transaction");
    if (is_prepared) {
        read_stdin(&lines);
        keep_what_would_be_lost(r.common, buf_str(&lines));
    }
    if (users == NULL)
        return 0; /* git does not mind that its lines were not read */
    if (is_prepared && !unread_stdin(buf_str(&lines))) {
        hook_say("could not pass the refs on to '%s': %s", users, strerror(errno));
        return 1;
    }
    return chain_exec(users, argv);
}
