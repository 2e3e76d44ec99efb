#include "store/store_int.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The one place that moves a ref.  The steps are git's own, so that a git started by hand in the
 * folder is kept out while we are at it, plus what git leaves out (D1):
 *
 *   1. create refs/heads/main.lock (O_EXCL): nobody else moves the ref now
 *   2. read main; it must hold what the caller has seen
 *   3. write the new id into the lock file, fsync it
 *   4. append the reflog entry
 *   5. rename the lock file over main          <- the move
 *   6. fsync the folder; git never does, and a power cut then undoes the move
 *   7. read main again; it must hold the new id
 *
 * Up to 5 a failure leaves everything as it was.  A failure of 6 or 7 means that nobody knows what
 * a power cut would leave: ECORRUPT, nothing may be acknowledged (F05).
 *
 * The reflog is not synced: it is a record for people.  After a power cut it may lack the last
 * moves, and after a crash between 4 and 5 it may hold one that did not happen, as with git.
 *
 * A lock file that is there although the caller holds the repository's lock is either that of a git
 * started by hand, gone in a moment, or left over from a crash (F02).  We wait as long as any git
 * needs, then take it for the latter.
 */

#define STALE_LOCK_MS 500

/* reading */

static memfs_code fail_ref(memfs_error *err)
{
    return memfs_fail(err, MEMFS_ECORRUPT, "the ref cannot be read");
}

static memfs_code read_loose(const char *repo_path, const char *ref, memfs_oid *ret,
                             memfs_error *err)
{
    char path[4096], text[256];
    ssize_t n;
    int fd;

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", repo_path, ref) >= sizeof(path))
        return memfs_fail(err, MEMFS_EINVALID, "the path of the ref is too long");
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO there stops nobody */
    if (fd < 0)
        return memfs_fail_errno(err, "could not open the ref");
    n = read(fd, text, sizeof(text));
    if (n < 0 && errno == EISDIR) {
        close(fd);
        return memfs_fail(err, MEMFS_ENOTFOUND, "that is a folder of refs");
    }
    close(fd);
    if (n < MEMFS_OID_HEX || !oid_parse(str_make(text, MEMFS_OID_HEX), ret))
        return fail_ref(err); /* empty after a power cut, or symbolic: not ours */
    if (n > MEMFS_OID_HEX && text[MEMFS_OID_HEX] != '\n')
        return fail_ref(err);
    return MEMFS_OK;
}

/* "<id> <ref>" lines; comments begin with '#', peeled tags with '^'. */
static memfs_code read_packed(const char *repo_path, const char *ref, memfs_oid *ret,
                              memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(16u << 20);
    _cleanup_(mem_freep) char *path = mem_printf("%s/packed-refs", repo_path);
    memfs_code rc = fs_read(path, &text, err);
    memfs_str rest = buf_str(&text), line;

    if (rc < 0)
        return rc;
    while (str_split(rest, '\n', &line, &rest)) {
        if (line.len <= MEMFS_OID_HEX + 1 || line.ptr[MEMFS_OID_HEX] != ' ' ||
            !str_equal(str_from(line, MEMFS_OID_HEX + 1), str_of(ref)))
            continue;
        return oid_parse(str_make(line.ptr, MEMFS_OID_HEX), ret) ? MEMFS_OK : fail_ref(err);
    }
    return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such ref");
}

memfs_code refs_read(const char *repo_path, const char *ref, memfs_oid *ret, memfs_error *err)
{
    memfs_code rc = read_loose(repo_path, ref, ret, err);

    return rc == MEMFS_ENOTFOUND ? read_packed(repo_path, ref, ret, err) : rc;
}

/* moving */

typedef struct ref_move {
    char *ref_path, *lock_path, *folder, *log_path;
    int fd; /* of the lock file; -1: not ours (yet, or any more) */
} ref_move;

static void close_lock(ref_move *m)
{
    if (m->fd >= 0)
        close(m->fd);
    m->fd = -1;
}

static void ref_move_dispose(ref_move *m)
{
    if (m->fd >= 0)
        unlink(m->lock_path);
    close_lock(m);
    free(m->ref_path);
    free(m->lock_path);
    free(m->folder);
    free(m->log_path);
}

static memfs_code ref_move_init(ref_move *m, const char *repo_path, const char *ref,
                                memfs_error *err)
{
    memfs_code rc;

    m->ref_path = mem_printf("%s/%s", repo_path, ref);
    m->lock_path = mem_printf("%s.lock", m->ref_path);
    m->folder = mem_strndup(m->ref_path, (size_t)(strrchr(m->ref_path, '/') - m->ref_path));
    m->log_path = mem_printf("%s/logs/%s", repo_path, ref);
    rc = fs_mkdirs(m->folder, err);
    if (rc == MEMFS_OK) {
        _cleanup_(mem_freep) char *logs =
            mem_strndup(m->log_path, (size_t)(strrchr(m->log_path, '/') - m->log_path));

        rc = fs_mkdirs(logs, err);
    }
    return rc;
}

static int create_lock(const ref_move *m)
{
    return open(m->lock_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

static memfs_code take_lock(ref_move *m, memfs_error *err)
{
    int64_t give_up_ms = clock_mono_ms() + STALE_LOCK_MS;

    while ((m->fd = create_lock(m)) < 0 && errno == EEXIST && clock_mono_ms() < give_up_ms)
        clock_sleep_ms(5);
    if (m->fd < 0 && errno == EEXIST) {
        unlink(m->lock_path);
        m->fd = create_lock(m);
    }
    if (m->fd < 0)
        return memfs_fail_errno(err, "could not lock the ref");
    return MEMFS_OK;
}

/* Zero stands for "there is none". */
static memfs_code check_expected(const char *repo_path, const char *ref, const memfs_oid *expected,
                                 memfs_error *err)
{
    memfs_oid now = { { 0 } };
    memfs_code rc = refs_read(repo_path, ref, &now, err);
    char hex[MEMFS_OID_HEX + 1];

    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    if (oid_equal(&now, expected))
        return MEMFS_OK;
    oid_hex(&now, hex);
    return memfs_fail(err, MEMFS_ECONFLICT, "fetch first: the branch has moved to %s", hex);
}

static memfs_code write_lock(ref_move *m, const memfs_oid *target, memfs_error *err)
{
    char text[MEMFS_OID_HEX + 2];
    ssize_t n;

    oid_hex(target, text);
    text[MEMFS_OID_HEX] = '\n';
    n = write(m->fd, text, MEMFS_OID_HEX + 1);
    if (n >= 0 && n != MEMFS_OID_HEX + 1) {
        n = -1;
        errno = ENOSPC;
    }
    if (n < 0)
        return memfs_fail_errno(err, "could not write the ref");
    if (fsync(m->fd) < 0) {
        memfs_fail_errno(err, "could not sync the ref");
        return err->code = err->code == MEMFS_ENOSPACE ? MEMFS_ENOSPACE : MEMFS_ECORRUPT;
    }
    return MEMFS_OK;
}

/* A name or address in a reflog must not end its field or its line. */
static void add_clean(memfs_buf *out, const char *text)
{
    _cleanup_(buf_dispose) memfs_buf escaped = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    escape_add(&escaped, str_of(text));
    for (size_t i = 0; i < escaped.len; i++)
        if (escaped.ptr[i] != '<' && escaped.ptr[i] != '>')
            buf_putc(out, escaped.ptr[i]);
}

void refs_log_line(const memfs_oid *old, const memfs_oid *target, const store_identity *who,
                   const char *time_zone, const char *why, memfs_buf *out)
{
    char old_hex[MEMFS_OID_HEX + 1], new_hex[MEMFS_OID_HEX + 1];

    oid_hex(old, old_hex);
    oid_hex(target, new_hex);
    buf_printf(out, "%s %s ", old_hex, new_hex);
    add_clean(out, who->name[0] != '\0' ? who->name : "memfs");
    buf_puts(out, " <");
    add_clean(out, who->email);
    /* git takes an entry dated 0 for damaged */
    buf_printf(out, "> %lld %s\t", (long long)(who->time_s < 1 ? 1 : who->time_s), time_zone);
    add_clean(out, why);
    buf_putc(out, '\n');
}

/* One write of a whole line; what a full disk left of it is taken back. */
memfs_code refs_log_append(const char *log_path, memfs_str line, unsigned mode, memfs_error *err)
{
    int fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, mode);
    struct stat st;
    ssize_t n;

    if (fd < 0)
        return memfs_fail_errno(err, "could not open the reflog");
    n = fstat(fd, &st) < 0 ? -1 : write(fd, line.ptr, line.len);
    if (n >= 0 && (size_t)n < line.len) {
        n = ftruncate(fd, st.st_size) < 0 ? -2 : -1;
        errno = ENOSPC;
    }
    if (n < 0)
        memfs_fail_errno(err, "could not write the reflog");
    close(fd);
    return n < 0 ? err->code : MEMFS_OK;
}

/* The move itself.  From here on a failure is ECORRUPT. */
static memfs_code publish_ref(ref_move *m, const char *repo_path, const char *ref,
                              const memfs_oid *target, memfs_error *err)
{
    memfs_oid now;

    if (rename(m->lock_path, m->ref_path) < 0)
        return memfs_fail_errno(err, "could not move the ref");
    close_lock(m); /* there is no lock file to remove any more */
    if (fs_sync_dir(m->folder, err) < 0 || refs_read(repo_path, ref, &now, err) < 0)
        return err->code = MEMFS_ECORRUPT;
    if (!oid_equal(&now, target))
        return memfs_fail(err, MEMFS_ECORRUPT, "the ref does not hold what was written");
    return MEMFS_OK;
}

static memfs_code move_ref(const char *repo_path, const char *ref, const memfs_oid *expected,
                           const memfs_oid *target, const store_identity *who, const char *why,
                           memfs_error *err)
{
    _cleanup_(ref_move_dispose) ref_move m = { .fd = -1 };
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(8192);
    memfs_code rc;

    refs_log_line(expected, target, who, "+0000", why, &line);
    rc = buf_check(&line, "the reflog entry", err);
    if (rc == MEMFS_OK)
        rc = ref_move_init(&m, repo_path, ref, err);
    if (rc == MEMFS_OK)
        rc = take_lock(&m, err);
    if (rc == MEMFS_OK)
        rc = check_expected(repo_path, ref, expected, err);
    if (rc == MEMFS_OK)
        rc = write_lock(&m, target, err);
    if (rc == MEMFS_OK)
        rc = refs_log_append(m.log_path, buf_str(&line), 0600, err);
    if (rc == MEMFS_OK)
        rc = publish_ref(&m, repo_path, ref, target, err);
    return rc;
}

/* A worker's place is another's meanwhile: it waits for the disk twice, and perhaps for a lock. */
memfs_code refs_move(const char *repo_path, const char *ref, const memfs_oid *expected,
                     const memfs_oid *target, const store_identity *who, const char *why,
                     memfs_error *err)
{
    memfs_code rc;

    pool_disk_begin();
    rc = move_ref(repo_path, ref, expected, target, who, why, err);
    pool_disk_end();
    return rc;
}

static memfs_code check_is_commit(repo *r, const memfs_oid *target, memfs_error *err)
{
    git_object_t type;
    uint64_t bytes;
    memfs_code rc = repo_header(r, target, &type, &bytes, err);

    if (rc < 0)
        return rc;
    if (type != GIT_OBJECT_COMMIT)
        return memfs_fail(err, MEMFS_EINVALID, "a branch can only be moved to a commit");
    return MEMFS_OK;
}

memfs_code repo_ref_move(repo *r, const memfs_oid *expected, const memfs_oid *target,
                         const store_identity *who, const char *why, memfs_error *err)
{
    memfs_code rc = check_is_commit(r, target, err);

    if (rc < 0)
        return rc;
    return refs_move(r->path, STORE_MAIN, expected, target, who, why, err);
}

memfs_code repo_ref_rewrite(repo *r, const memfs_oid *expected, const memfs_oid *target,
                            const store_identity *who, const char *why, memfs_error *err)
{
    static const memfs_oid none;
    char hex[MEMFS_OID_HEX + 1], backup[128];
    memfs_code rc = check_is_commit(r, target, err);

    if (rc < 0)
        return rc;
    oid_hex(expected, hex);
    snprintf(backup, sizeof(backup), STORE_BACKUPS "%lld-%.12s",
             (long long)(clock_wall_us() / 1000), hex);
    rc = refs_move(r->path, backup, &none, expected, who, why, err);
    if (rc == MEMFS_OK)
        rc = refs_move(r->path, STORE_MAIN, expected, target, who, why, err);
    return rc;
}

/* settling */

/* Absent is fine: the ref may be packed. */
static memfs_code sync_ref_file(const char *path, memfs_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc;

    if (fd < 0 && errno == ENOENT)
        return MEMFS_OK;
    rc = fd >= 0 ? fsync(fd) : -1;
    if (rc < 0)
        memfs_fail_errno(err, "could not sync the ref");
    if (fd >= 0)
        close(fd);
    return rc < 0 ? err->code : MEMFS_OK;
}

static memfs_code sync_folders(const store *s, const char *path, memfs_error *err)
{
    _cleanup_(mem_freep) char *packs = mem_printf("%s/objects/pack", path);
    _cleanup_(mem_freep) char *heads = mem_printf("%s/refs/heads", path);
    _cleanup_(mem_freep) char *above = mem_strdup(path);
    size_t home_len = strlen(s->home);
    memfs_code rc;

    rc = fs_sync_dir(packs, err);
    if (rc == MEMFS_OK)
        rc = fs_sync_dir(heads, err);
    while (rc == MEMFS_OK && strlen(above) > home_len) {
        *strrchr(above, '/') = '\0';
        rc = fs_sync_dir(above, err);
    }
    return rc;
}

memfs_code store_settle(const store *s, const char *name, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = store_path(s, name);
    _cleanup_(mem_freep) char *ref = mem_printf("%s/" STORE_MAIN, path);
    memfs_code rc = sync_ref_file(ref, err);

    if (rc == MEMFS_OK)
        rc = sync_folders(s, path, err);
    return rc < 0 ? (err->code = MEMFS_ECORRUPT) : MEMFS_OK;
}
