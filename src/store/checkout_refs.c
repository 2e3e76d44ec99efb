#include "store/checkout_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/*
 * Refs of a repository that others change too.  Git's own files and git's own order:
 *
 *   1. "<ref>.lock" (gitlock.h), waited for, never broken
 *   2. read the ref, loose before packed; it must hold what the caller has seen
 *   3. the new id into the lock file, fsync
 *   4. the reflog of the ref, and of HEAD if HEAD stands on it
 *   5. rename the lock over the ref, fsync the folder
 *
 * A deletion rewrites packed-refs first (under packed-refs.lock): were the loose file to go first,
 * an old value would shine through.
 *
 * Reflogs are kept for what git keeps them for: branches, remote branches and notes, and whatever
 * has one already.
 */

#define PACKED_MAX_BYTES (64u << 20)

/* names */

/* Refs that each working tree has for itself. */
static bool is_per_worktree(const char *name)
{
    return strncmp(name, "refs/", 5) != 0 || strncmp(name, "refs/bisect/", 12) == 0 ||
           strncmp(name, "refs/worktree/", 14) == 0 || strncmp(name, "refs/rewritten/", 15) == 0;
}

static const char *base_of(const checkout *c, const char *name)
{
    return is_per_worktree(name) ? c->git_dir : c->common_dir;
}

static memfs_code check_name(const char *name, memfs_error *err)
{
    int is_valid = 0;

    if (strncmp(name, "refs/", 5) != 0 || git_reference_name_is_valid(&is_valid, name) < 0 ||
        !is_valid)
        return memfs_fail(err, MEMFS_EINVALID, "'%.100s' is no name of a ref", name);
    return MEMFS_OK;
}

char *checkout_lock_twins(const checkout *c)
{
    return checkout_note_path(c, "lock-");
}

/* reading */

/* "ref: <name>" in a loose ref (HEAD, refs/remotes/origin/HEAD); NULL: it is none.  Caller frees.
 * */
static char *symbolic_target(const checkout *c, const char *name)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", base_of(c, name), name);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    memfs_error ignored;
    memfs_str line;

    if (fs_read(path, &text, &ignored) < 0 || !str_starts_with(buf_str(&text), MEMFS_STR("ref:")))
        return NULL;
    line = str_from(buf_str(&text), 4);
    while (line.len > 0 && (line.ptr[0] == ' ' || line.ptr[0] == '\t'))
        line = str_from(line, 1);
    while (line.len > 0 && (line.ptr[line.len - 1] == '\n' || line.ptr[line.len - 1] == ' '))
        line.len--;
    return mem_strndup(line.ptr, line.len);
}

static memfs_code read_direct(const checkout *c, const char *name, memfs_oid *ret, memfs_error *err)
{
    memfs_code rc = refs_read(base_of(c, name), name, ret, err);

    if (rc == MEMFS_ENOTFOUND)
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no '%.200s'", name);
    return rc;
}

memfs_code checkout_ref(const checkout *c, const char *name, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *at = mem_strdup(name);

    for (int i = 0; i < 5; i++) {
        char *next;

        if (strstr(at, "..") != NULL || at[0] == '/')
            return memfs_fail(err, MEMFS_EINVALID, "'%.100s' is no name of a ref", at);
        next = symbolic_target(c, at);
        if (next == NULL)
            return read_direct(c, at, ret, err);
        free(at);
        at = next;
    }
    return memfs_fail(err, MEMFS_ECORRUPT, "'%.100s' leads in a circle", name);
}

/* listing */

typedef struct ref_row {
    char *name;
    memfs_oid id;
} ref_row;

typedef struct ref_rows {
    ref_row *at;
    size_t n;
} ref_rows;

static void ref_rows_dispose(ref_rows *rows)
{
    for (size_t i = 0; i < rows->n; i++)
        free(rows->at[i].name);
    free(rows->at);
}

static void add_row(ref_rows *rows, memfs_str name, const memfs_oid *id)
{
    if ((rows->n & (rows->n - 1)) == 0)
        rows->at = mem_realloc(rows->at, rows->n == 0 ? 1 : rows->n * 2, sizeof(*rows->at));
    rows->at[rows->n].name = mem_strndup(name.ptr, name.len);
    rows->at[rows->n++].id = *id;
}

static int compare_rows(const void *a, const void *b)
{
    return strcmp(((const ref_row *)a)->name, ((const ref_row *)b)->name);
}

static bool has_row(const ref_rows *rows, size_t n_sorted, const char *name)
{
    ref_row key = { .name = (char *)name };

    return n_sorted > 0 &&
           bsearch(&key, rows->at, n_sorted, sizeof(*rows->at), compare_rows) != NULL;
}

/* folder is "refs/heads/a/": every loose ref below it, without its own. */
static void add_loose(const checkout *c, const char *folder, int depth, ref_rows *rows)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", base_of(c, folder), folder);
    DIR *dir = depth < 16 ? opendir(path) : NULL;
    struct dirent *at;

    while (dir != NULL && (at = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *name = mem_printf("%s%s", folder, at->d_name);
        _cleanup_(mem_freep) char *below = mem_printf("%s/", name);
        memfs_error ignored;
        memfs_oid id;

        if (at->d_name[0] == '.' || str_ends_with(str_of(name), MEMFS_STR(".lock")))
            continue;
        if (at->d_type == DT_DIR)
            add_loose(c, below, depth + 1, rows);
        else if (refs_read(base_of(c, name), name, &id, &ignored) == MEMFS_OK)
            add_row(rows, str_of(name), &id); /* symbolic and damaged ones are not listed */
    }
    if (dir != NULL)
        closedir(dir);
}

static memfs_code add_packed(const checkout *c, const char *prefix, ref_rows *rows,
                             memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/packed-refs", c->common_dir);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(PACKED_MAX_BYTES);
    size_t n_loose = rows->n;
    memfs_code rc = fs_read(path, &text, err);
    memfs_str rest = buf_str(&text), line;
    memfs_oid id;

    if (rc < 0)
        return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
    if (n_loose > 0)
        qsort(rows->at, n_loose, sizeof(*rows->at), compare_rows);
    while (str_split(rest, '\n', &line, &rest)) {
        _cleanup_(mem_freep) char *name = NULL;

        if (line.len <= MEMFS_OID_HEX + 1 || line.ptr[MEMFS_OID_HEX] != ' ' ||
            !oid_parse(str_make(line.ptr, MEMFS_OID_HEX), &id))
            continue;
        line = str_from(line, MEMFS_OID_HEX + 1);
        name = mem_strndup(line.ptr, line.len);
        if (str_starts_with(line, str_of(prefix)) && !has_row(rows, n_loose, name))
            add_row(rows, line, &id);
    }
    return MEMFS_OK;
}

static memfs_code list_refs(const checkout *c, const char *prefix, ref_rows *rows, memfs_error *err)
{
    memfs_code rc;

    add_loose(c, prefix, 0, rows);
    rc = add_packed(c, prefix, rows, err);
    if (rc == MEMFS_OK && rows->n > 0)
        qsort(rows->at, rows->n, sizeof(*rows->at), compare_rows);
    return rc;
}

memfs_code checkout_each_ref(const checkout *c, const char *prefix, checkout_ref_fn fn, void *ctx,
                             memfs_error *err)
{
    _cleanup_(ref_rows_dispose) ref_rows rows = { NULL, 0 };
    memfs_code rc;

    if (strncmp(prefix, "refs/", 5) != 0 || prefix[strlen(prefix) - 1] != '/')
        return memfs_fail(err, MEMFS_EINVALID, "'%.100s' is no folder of refs", prefix);
    rc = list_refs(c, prefix, &rows, err);
    for (size_t i = 0; rc == MEMFS_OK && i < rows.n; i++)
        rc = fn(rows.at[i].name, &rows.at[i].id, ctx, err);
    return rc;
}

/* the reflog */

static const char *zone_of_now(int64_t now_s, char out[8])
{
    time_t now = (time_t)now_s;
    struct tm local;

    if (localtime_r(&now, &local) == NULL || strftime(out, 8, "%z", &local) != 5)
        return "+0000";
    return out;
}

static bool wants_log(const checkout *c, const char *name, const char *log_path)
{
    static const char *const logged[] = { "refs/heads/", "refs/remotes/", "refs/notes/" };

    if (fs_exists(log_path))
        return true;
    if (!checkout_config_bool(c, "core.logAllRefUpdates", c->work_tree != NULL))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(logged); i++)
        if (strncmp(name, logged[i], strlen(logged[i])) == 0)
            return true;
    return false;
}

static memfs_code log_to(const char *path, memfs_str line, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    memfs_code rc = fs_mkdirs(folder, err);

    return rc == MEMFS_OK ? refs_log_append(path, line, 0666, err) : rc;
}

static memfs_code log_move(const checkout *c, const ref_step *s, const store_identity *who,
                           const char *why, memfs_error *err)
{
    _cleanup_(mem_freep) char *log = mem_printf("%s/logs/%s", base_of(c, s->name), s->name);
    _cleanup_(mem_freep) char *head_log = mem_printf("%s/logs/HEAD", c->git_dir);
    _cleanup_(mem_freep) char *head = symbolic_target(c, "HEAD");
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(8192);
    char zone[8];
    memfs_code rc;

    refs_log_line(&s->expected, &s->target, who, zone_of_now(who->time_s, zone), why, &line);
    rc = buf_check(&line, "the reflog entry", err);
    if (rc == MEMFS_OK && wants_log(c, s->name, log))
        rc = log_to(log, buf_str(&line), err);
    if (rc == MEMFS_OK && head != NULL && strcmp(head, s->name) == 0 &&
        wants_log(c, STORE_MAIN, head_log))
        rc = log_to(head_log, buf_str(&line), err);
    return rc;
}

/* locks of the dead */

static void heal_below(const char *folder, const char *twins, int depth)
{
    DIR *dir = depth < 16 ? opendir(folder) : NULL;
    struct dirent *at;

    while (dir != NULL && (at = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, at->d_name);
        size_t len = strlen(path);

        if (at->d_name[0] == '.')
            continue;
        if (at->d_type == DT_DIR) {
            heal_below(path, twins, depth + 1);
            continue;
        }
        if (str_ends_with(str_of(path), MEMFS_STR(".lock")))
            path[len - strlen(".lock")] = '\0';
        gitlock_heal(path, twins);
    }
    if (dir != NULL)
        closedir(dir);
}

void checkout_heal_refs(const checkout *c)
{
    _cleanup_(mem_freep) char *twins = mem_printf("%s/memfs/lock-", c->common_dir);
    _cleanup_(mem_freep) char *refs = mem_printf("%s/refs", c->common_dir);
    _cleanup_(mem_freep) char *packed = mem_printf("%s/packed-refs", c->common_dir);

    if (gitlock_sweep(twins) == 0)
        return; /* nearly always */
    gitlock_heal(packed, twins);
    heal_below(refs, twins, 0);
}

/* packed-refs */

static memfs_code write_packed_without(const char *path, const char *name, int fd, bool *ret_found,
                                       memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(PACKED_MAX_BYTES);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(PACKED_MAX_BYTES);
    memfs_code rc = fs_read(path, &text, err);
    memfs_str rest = buf_str(&text), line;
    bool is_gone = false;

    *ret_found = false;
    while (rc == MEMFS_OK && str_split(rest, '\n', &line, &rest)) {
        if (line.len == 0 || line.ptr[0] != '^') /* a peeled tag goes with its tag */
            is_gone = line.len > MEMFS_OID_HEX + 1 && line.ptr[0] != '#' &&
                      str_equal(str_from(line, MEMFS_OID_HEX + 1), str_of(name));
        *ret_found = *ret_found || is_gone;
        if (is_gone)
            continue;
        buf_add_str(&out, line);
        buf_putc(&out, '\n');
    }
    if (rc < 0)
        return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
    if (write(fd, out.ptr, out.len) != (ssize_t)out.len)
        return memfs_fail_errno(err, "could not write packed-refs");
    return MEMFS_OK;
}

static memfs_code remove_packed(checkout *c, const char *name, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/packed-refs", c->common_dir);
    _cleanup_(mem_freep) char *twins = checkout_lock_twins(c);
    _cleanup_(gitlock_dispose) gitlock lock = GITLOCK_INIT;
    bool is_found;
    memfs_code rc;

    if (!fs_exists(path))
        return MEMFS_OK;
    rc = gitlock_take(path, twins, CHECKOUT_LOCK_WAIT_MS, &lock, err);
    if (rc == MEMFS_OK)
        rc = write_packed_without(path, name, lock.fd, &is_found, err);
    if (rc == MEMFS_OK && is_found)
        rc = gitlock_commit(&lock, err);
    return rc;
}

/* moving */

void ref_step_dispose(ref_step *s)
{
    gitlock_dispose(&s->lock);
    free(s->name);
    free(s->path);
    *s = (ref_step)REF_STEP_INIT;
}

static memfs_code check_expected(const checkout *c, const ref_step *s, memfs_error *err)
{
    memfs_oid now = { { 0 } };
    memfs_code rc = read_direct(c, s->name, &now, err);
    char hex[MEMFS_OID_HEX + 1];

    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    if (oid_equal(&now, &s->expected))
        return MEMFS_OK;
    oid_hex(&now, hex);
    if (oid_is_zero(&now))
        return memfs_fail(err, MEMFS_ECONFLICT, "'%.200s' is gone", s->name);
    return memfs_fail(err, MEMFS_ECONFLICT, "'%.200s' has moved to %.12s", s->name, hex);
}

/* "a" and "a/b" cannot both be refs; loose ones are kept apart by the file system, packed ones
 * not. */
static memfs_code check_room(const checkout *c, const ref_step *s, memfs_error *err)
{
    _cleanup_(ref_rows_dispose) ref_rows rows = { NULL, 0 };
    memfs_code rc = add_packed(c, "refs/", &rows, err);
    size_t len = strlen(s->name);

    for (size_t i = 0; rc == MEMFS_OK && i < rows.n; i++) {
        const char *other = rows.at[i].name;
        size_t other_len = strlen(other), shorter = len < other_len ? len : other_len;

        if (len != other_len && memcmp(other, s->name, shorter) == 0 &&
            (len < other_len ? other : s->name)[shorter] == '/')
            return memfs_fail(err, MEMFS_EEXISTS, "'%.100s' is in the way of '%.100s'", other,
                              s->name);
    }
    return rc;
}

static memfs_code lock_ref(checkout *c, ref_step *s, memfs_error *err)
{
    _cleanup_(mem_freep) char *twins = checkout_lock_twins(c);
    _cleanup_(mem_freep) char *folder =
        mem_strndup(s->path, (size_t)(strrchr(s->path, '/') - s->path));
    memfs_code rc;

    for (int i = 0;; i++) { /* git removes empty folders of refs behind our back */
        if (!fs_is_dir(c->common_dir))
            return memfs_fail(err, MEMFS_ENOTFOUND, "the repository is gone");
        rc = fs_mkdirs(folder, err);
        if (rc == MEMFS_OK)
            rc = gitlock_take(s->path, twins, CHECKOUT_LOCK_WAIT_MS, &s->lock, err);
        if (rc != MEMFS_ENOTFOUND || i == 3)
            return rc;
    }
}

memfs_code ref_step_begin(checkout *c, const char *name, const memfs_oid *expected,
                          const memfs_oid *target, ref_step *ret, memfs_error *err)
{
    _cleanup_(ref_step_dispose) ref_step s = REF_STEP_INIT;
    _cleanup_(mem_freep) char *symbolic = NULL;
    memfs_code rc = check_name(name, err);

    if (rc < 0)
        return rc;
    symbolic = symbolic_target(c, name);
    if (symbolic != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "'%.100s' is a name of '%.100s'; move that", name,
                          symbolic);
    s.name = mem_strdup(name);
    s.path = mem_printf("%s/%s", base_of(c, name), name);
    s.expected = *expected;
    if (target != NULL)
        s.target = *target;
    rc = lock_ref(c, &s, err);
    if (rc == MEMFS_OK)
        rc = check_expected(c, &s, err);
    if (rc == MEMFS_OK && oid_is_zero(expected))
        rc = check_room(c, &s, err);
    if (rc == MEMFS_OK) {
        *ret = s;
        s = (ref_step)REF_STEP_INIT;
    }
    return rc;
}

static memfs_code write_id(const ref_step *s, memfs_error *err)
{
    char text[MEMFS_OID_HEX + 2];
    ssize_t n;

    oid_hex(&s->target, text);
    text[MEMFS_OID_HEX] = '\n';
    n = write(s->lock.fd, text, MEMFS_OID_HEX + 1);
    if (n >= 0 && n != MEMFS_OID_HEX + 1) {
        n = -1;
        errno = ENOSPC;
    }
    return n < 0 ? memfs_fail_errno(err, "could not write the ref") : MEMFS_OK;
}

/* Empty folders of refs that went may lie where this one goes. */
static void remove_empty_folders(const char *path, int depth)
{
    DIR *dir = depth < 16 ? opendir(path) : NULL;
    struct dirent *at;

    if (dir == NULL)
        return;
    while ((at = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *below = mem_printf("%s/%s", path, at->d_name);

        if (strcmp(at->d_name, ".") != 0 && strcmp(at->d_name, "..") != 0 && at->d_type == DT_DIR)
            remove_empty_folders(below, depth + 1);
    }
    closedir(dir);
    rmdir(path);
}

/* The folders above a ref that went, as long as they are empty; "refs/x" stays. */
static void prune_above(const char *base, const char *name)
{
    _cleanup_(mem_freep) char *part = mem_strdup(name);

    for (;;) {
        _cleanup_(mem_freep) char *path = NULL;
        char *slash = strrchr(part, '/');

        *slash = '\0';
        if (strchr(part, '/') == NULL || strchr(strchr(part, '/') + 1, '/') == NULL)
            return; /* "refs" and "refs/heads" */
        path = mem_printf("%s/%s", base, part);
        if (rmdir(path) < 0)
            return;
    }
}

static memfs_code delete_ref(checkout *c, ref_step *s, memfs_error *err)
{
    const char *base = base_of(c, s->name);
    _cleanup_(mem_freep) char *log = mem_printf("%s/logs/%s", base, s->name);
    _cleanup_(mem_freep) char *logs = mem_printf("%s/logs", base);
    _cleanup_(mem_freep) char *folder =
        mem_strndup(s->path, (size_t)(strrchr(s->path, '/') - s->path));
    memfs_code rc = remove_packed(c, s->name, err);

    if (rc < 0)
        return rc;
    if (unlink(s->path) < 0 && errno != ENOENT && errno != EISDIR) /* it was packed */
        return memfs_fail_errno(err, "could not delete the ref");
    rc = fs_sync_dir(folder, err);
    unlink(log);
    prune_above(logs, s->name);
    gitlock_dispose(&s->lock); /* its file keeps the folder from being empty */
    prune_above(base, s->name);
    return rc;
}

memfs_code ref_step_finish(checkout *c, ref_step *s, const store_identity *who, const char *why,
                           memfs_error *err)
{
    memfs_code rc;

    if (oid_is_zero(&s->target))
        return delete_ref(c, s, err);
    rc = write_id(s, err);
    if (rc == MEMFS_OK)
        rc = log_move(c, s, who, why, err);
    if (rc < 0)
        return rc;
    if (fs_is_dir(s->path))
        remove_empty_folders(s->path, 0);
    return gitlock_commit(&s->lock, err);
}

/* Who moves it, for the reflog: the repository's user, as git would write. */
static store_identity identity_of(const checkout *c)
{
    const char *name = checkout_config(c, "user.name"), *email = checkout_config(c, "user.email");

    return (store_identity){ name != NULL && *name != '\0' ? name : "memfs",
                             email != NULL && *email != '\0' ? email : "memfs@localhost",
                             clock_wall_us() / 1000000 };
}

memfs_code checkout_ref_move(checkout *c, const char *name, const memfs_oid *expected,
                             const memfs_oid *target, const char *why, memfs_error *err)
{
    _cleanup_(ref_step_dispose) ref_step s = REF_STEP_INIT;
    store_identity who = identity_of(c);
    git_object_t type;
    uint64_t bytes;
    memfs_code rc = MEMFS_OK;

    if (target != NULL && oid_is_zero(target))
        target = NULL;
    if (target != NULL)
        rc = repo_header(c->r, target, &type, &bytes, err); /* never a ref to what is not there */
    if (rc == MEMFS_OK && target != NULL && strncmp(name, "refs/heads/", 11) == 0 &&
        type != GIT_OBJECT_COMMIT)
        return memfs_fail(err, MEMFS_EINVALID, "a branch can only be moved to a commit");
    if (rc == MEMFS_OK)
        rc = ref_step_begin(c, name, expected, target, &s, err);
    if (rc == MEMFS_OK)
        rc = ref_step_finish(c, &s, &who, why, err);
    return rc;
}
