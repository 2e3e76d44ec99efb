#include "store/care.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/process.h"
#include "store/git_child.h"
#include "store/store_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Keeping repositories small and whole.
 *
 * Every push leaves one pack, and git looks into pack after pack, so they are folded geometrically
 * (each at least twice the one before), which costs each object O(log n) rewrites in all.
 *
 * Readers are never stopped for that.  A reader is a libgit2 handle of ours or an upload-pack
 * child, and may have listed the packs before the fold:
 *   1. git writes the new pack; it and its folder are synced.  Nothing is gone yet.
 *   2. For every pack whose objects are all in the new one, the index loses its name.  A reader
 *      that has not opened it finds no index, lists the folder again and finds the new pack; git
 *      and libgit2 both do.
 *   3. The .pack stays for readers that have the index open and will open the pack only when they
 *      need a byte of it, until the last of those that began before step 2 has ended (readers.h):
 *      mostly nobody, so it goes at the end of the same fold.  If not, a later fold or sweep
 *      removes it.  Packs without an index are invisible to git, but every listing of the folder
 *      meets them, so they must not pile up.
 * So `git repack` runs without -d: it would remove both at once.
 *
 * Who is not among our readers: a child of a memfs before this one, so what an earlier process
 * retired stays for REPACK_GRACE_S, longer than any child may live (and that is the longest for
 * all, should a reader hang); and a git that somebody runs by hand, for which a pack that is gone
 * is what it is after any `git repack -d`: it looks for the object again and finds the new pack.
 *
 * After that time it may also happen to a libgit2 handle of ours.  What it has open or mapped stays
 * readable when the name is gone; a pack it has not open, or closed again for its limit of open
 * files, cannot be opened, counts as one without the object, and the next one, or after another
 * listing the new one, has it.
 */

#define REPACK_GRACE_S 330 /* an upload-pack may take 300 s */
#define REPACK_TIMEOUT_MS 600000
#define FSCK_TIMEOUT_MS 600000

static void closedirp(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
    *dir = NULL;
}

static char *pack_folder(const store *s, const char *name)
{
    return mem_printf("%s/%s/objects/pack", s->home, name);
}

static bool is_pack_file(const char *file, const char *suffix)
{
    return str_starts_with(str_of(file), MEMFS_STR("pack-")) &&
           str_ends_with(str_of(file), str_of(suffix));
}

size_t store_pack_count(const store *s, const char *name)
{
    _cleanup_(mem_freep) char *folder = pack_folder(s, name);
    _cleanup_(closedirp) DIR *dir = opendir(folder);
    struct dirent *e;
    size_t n = 0;

    while (dir != NULL && (e = readdir(dir)) != NULL)
        n += is_pack_file(e->d_name, ".idx");
    return n;
}

size_t store_loose_estimate(const store *s, const char *name)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/%s/objects/17", s->home, name);
    _cleanup_(closedirp) DIR *dir = opendir(folder);
    struct dirent *e;
    size_t n = 0;

    while (dir != NULL && (e = readdir(dir)) != NULL)
        n += e->d_name[0] != '.';
    return n * 256;
}

/* names of packs */

typedef struct pack_names {
    char **at; /* "pack-<id>", without a suffix */
    size_t n;
} pack_names;

static void pack_names_dispose(pack_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->at[i]);
    free(names->at);
}

static bool pack_names_have(const pack_names *names, const char *name)
{
    for (size_t i = 0; i < names->n; i++)
        if (strcmp(names->at[i], name) == 0)
            return true;
    return false;
}

static void pack_names_add(pack_names *names, char *given)
{
    names->at = mem_realloc(names->at, names->n + 1, sizeof(*names->at));
    names->at[names->n++] = given;
}

static memfs_code list_packs(const char *folder, pack_names *ret, memfs_error *err)
{
    _cleanup_(closedirp) DIR *dir = opendir(folder);
    struct dirent *e;

    if (dir == NULL)
        return memfs_fail_errno(err, "could not list the packs");
    while ((e = readdir(dir)) != NULL)
        if (is_pack_file(e->d_name, ".idx"))
            pack_names_add(ret, mem_strndup(e->d_name, strlen(e->d_name) - strlen(".idx")));
    return MEMFS_OK;
}

/* folding */

/* "pack-<id>.rev" is a file of the pack "pack-<id>"; NULL: not one that goes with its pack. */
static char *pack_of_file(const char *file)
{
    const char *dot = strrchr(file, '.');

    if (!is_pack_file(file, "") || dot == NULL || strcmp(dot, ".idx") == 0 ||
        strcmp(dot, ".keep") == 0)
        return NULL;
    return mem_strndup(file, (size_t)(dot - file));
}

static bool is_old(int folder_fd, const char *file)
{
    struct stat st;

    return fstatat(folder_fd, file, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           clock_wall_us() / 1000000 - st.st_mtime >= REPACK_GRACE_S;
}

/* Step 3: removes what belongs to packs that lost their index, and that no reader can want. */
static void remove_hidden(const store *s, const char *path, size_t *ret_n)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/objects/pack", path);
    _cleanup_(closedirp) DIR *dir = opendir(folder);
    _cleanup_(pack_names_dispose) pack_names released = { NULL, 0 };
    struct dirent *e;
    char *pack;

    while (readers_release(s->readers, path, &pack))
        pack_names_add(&released, pack);
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *of = pack_of_file(e->d_name), *index = NULL;

        if (of == NULL)
            continue;
        index = mem_printf("%s.idx", of);
        if (faccessat(dirfd(dir), index, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT &&
            (pack_names_have(&released, of) || is_old(dirfd(dir), e->d_name)) &&
            unlinkat(dirfd(dir), e->d_name, 0) == 0)
            *ret_n += 1;
    }
}

static memfs_code open_pack(const char *folder, const char *pack, git_odb **ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *index = mem_printf("%s/%s.idx", folder, pack);
    git_odb_backend *backend = NULL;
    git_odb *odb = NULL;
    int rc = git_odb_new(&odb);

    if (rc == 0)
        rc = git_odb_backend_one_pack(&backend, index);
    if (rc == 0)
        rc = git_odb_add_backend(odb, backend, 1);
    if (rc < 0) {
        git_odb_free(odb);
        return store_fail_git(err, rc, "could not open a pack");
    }
    *ret = odb;
    return MEMFS_OK;
}

static int is_missing_from(const git_oid *id, void *ctx)
{
    return git_odb_exists_ext(ctx, id, GIT_ODB_LOOKUP_NO_REFRESH) ? 0 : GIT_EUSER;
}

/* Is every object of `old` in `new` too?  When in doubt, no. */
static bool is_contained(const char *folder, const char *old, git_odb *new)
{
    git_odb *odb = NULL;
    memfs_error ignored;
    bool all;

    if (open_pack(folder, old, &odb, &ignored) < 0)
        return false;
    all = git_odb_foreach(odb, is_missing_from, new) == 0;
    git_odb_free(odb);
    return all;
}

/* Step 2: the index goes; the pack's age is counted from now. */
static memfs_code hide_pack(const char *folder, const char *pack, memfs_error *err)
{
    static const char *const others[] = { "pack", "rev", "bitmap", "mtimes" };
    _cleanup_(mem_freep) char *index = mem_printf("%s/%s.idx", folder, pack);

    if (unlink(index) < 0)
        return memfs_fail_errno(err, "could not retire a pack");
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s.%s", folder, pack, others[i]);

        if (utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
            return memfs_fail_errno(err, "could not date a retired pack");
    }
    return MEMFS_OK;
}

static memfs_code hide_contained(const store *s, const char *path, const pack_names *before,
                                 const char *new, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/objects/pack", path);
    memfs_code rc = MEMFS_OK;
    git_odb *odb = NULL;

    rc = open_pack(folder, new, &odb, err);
    for (size_t i = 0; rc == MEMFS_OK && i < before->n; i++) {
        if (!is_contained(folder, before->at[i], odb))
            continue;
        rc = hide_pack(folder, before->at[i], err);
        if (rc == MEMFS_OK)
            readers_retire(s->readers, path, before->at[i]);
    }
    git_odb_free(odb);
    return rc;
}

static memfs_code hide_superseded(const store *s, const char *path, const pack_names *before,
                                  memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/objects/pack", path);
    _cleanup_(pack_names_dispose) pack_names after = { NULL, 0 };
    memfs_code rc = list_packs(folder, &after, err);

    if (rc == MEMFS_OK)
        rc = fs_sync_dir(folder, err); /* the new pack stays, whatever comes now */
    for (size_t i = 0; rc == MEMFS_OK && i < after.n; i++)
        if (!pack_names_have(before, after.at[i]))
            rc = hide_contained(s, path, before, after.at[i], err);
    return rc == MEMFS_OK ? fs_sync_dir(folder, err) : rc;
}

static memfs_code run_in(store *s, const char *path, git_job job, const char *const *args,
                         int64_t timeout_ms, memfs_buf *out, memfs_buf *tail, memfs_error *err)
{
    git_child_options o = { .git_dir = path, .args = args };

    return git_child_run(s, job, &o, out, tail, timeout_ms, err);
}

/* What a repack that failed has half written: on a full disk, the last thing that may stay. */
static void remove_half_packs(const char *folder)
{
    _cleanup_(closedirp) DIR *dir = opendir(folder);
    struct dirent *e;

    while (dir != NULL && (e = readdir(dir)) != NULL)
        if (str_starts_with(str_of(e->d_name), MEMFS_STR("tmp_")) ||
            str_starts_with(str_of(e->d_name), MEMFS_STR(".tmp-")))
            unlinkat(dirfd(dir), e->d_name, 0);
}

memfs_code store_repack(store *s, const char *name, memfs_error *err)
{
    static const char *const fold[] = { "repack", "--geometric=2", "-q", "-n", NULL };
    static const char *const drop_loose[] = { "prune-packed", "-q", NULL };
    _cleanup_(mem_freep) char *path = store_path(s, name);
    _cleanup_(mem_freep) char *folder = pack_folder(s, name);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(64 * 1024);
    _cleanup_(pack_names_dispose) pack_names before = { NULL, 0 };
    size_t ignored = 0;
    memfs_code rc;

    remove_hidden(s, path, &ignored);
    rc = list_packs(folder, &before, err);
    if (rc == MEMFS_OK)
        rc = run_in(s, path, GIT_JOB_REPACK, fold, REPACK_TIMEOUT_MS, &out, NULL, err);
    if (rc < 0)
        remove_half_packs(folder);
    if (rc == MEMFS_OK)
        rc = hide_superseded(s, path, &before, err);
    if (rc == MEMFS_OK)
        remove_hidden(s, path, &ignored);
    if (rc == MEMFS_OK)
        rc = run_in(s, path, GIT_JOB_REPACK, drop_loose, REPACK_TIMEOUT_MS, &out, NULL, err);
    return rc;
}

/* checking */

static memfs_str first_finding(memfs_str text)
{
    memfs_str rest = text, line;

    while (str_split(rest, '\n', &line, &rest))
        if (line.len > 0 && !str_starts_with(line, MEMFS_STR("notice:")))
            return line;
    return rest;
}

/*
 * Damage is believed when it is seen twice.  fsck lists the objects first and reads refs and
 * reflogs last, so a commit that somebody makes by hand in between (F14) looks like one that is
 * missing.
 */
static memfs_code run_fsck(store *s, const char *path, memfs_buf *out, memfs_buf *tail,
                           memfs_error *err)
{
    static const char *const args[] = { "fsck", "--full", "--strict", "--no-dangling",
                                        "--no-progress", NULL };
    memfs_code rc = MEMFS_EINTERNAL;

    for (int i = 0; i < 2 && rc == MEMFS_EINTERNAL; i++) {
        buf_clear(out);
        buf_clear(tail);
        rc = run_in(s, path, GIT_JOB_FSCK, args, FSCK_TIMEOUT_MS, out, tail, err);
    }
    return rc;
}

memfs_code store_fsck_at(store *s, const char *path, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(buf_dispose) memfs_buf tail = MEMFS_BUF_INIT(64 * 1024);
    memfs_str finding;
    char shown[300];
    process_waiting w;
    bool is_ended;
    memfs_code rc;

    if (!fs_is_dir(path))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such repository");
    process_waiting_begin(&w);
    rc = run_fsck(s, path, &out, &tail, err);
    is_ended = process_waiting_is_ended(&w);
    process_waiting_end(&w);
    if (rc == MEMFS_EINTERNAL && is_ended)
        return memfs_fail(err, MEMFS_EUNAVAIL, "git was ended before it had looked at all");
    if (rc != MEMFS_EINTERNAL) /* clean, or no answer: busy, too slow */
        return rc;
    finding = first_finding(tail.len > 0 ? buf_str(&tail) : buf_str(&out));
    if (memmem(finding.ptr, finding.len, s->home, strlen(s->home)) != NULL || finding.len == 0)
        return memfs_fail(err, MEMFS_ECORRUPT, "git finds the repository damaged");
    return memfs_fail(err, MEMFS_ECORRUPT, "git finds the repository damaged: %s",
                      escape_text(finding, shown, sizeof(shown)));
}

memfs_code store_fsck(store *s, const char *name, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = store_path(s, name);

    return store_fsck_at(s, path, err);
}

/* sweeping */

static void fts_closep(FTS **tree)
{
    if (*tree != NULL)
        fts_close(*tree);
    *tree = NULL;
}

/* What a killed git, or a killed memfs, leaves: locks and files that never got their name. */
static bool is_left_over(const FTSENT *at)
{
    memfs_str file = str_make(at->fts_name, at->fts_namelen);

    return str_ends_with(file, MEMFS_STR(".lock")) || str_starts_with(file, MEMFS_STR("tmp_")) ||
           str_starts_with(file, MEMFS_STR("tmp-objdir-")) ||
           memmem(file.ptr, file.len, ".tmp-", 5) != NULL;
}

static memfs_code sweep_repository(const char *path, size_t *ret_n, memfs_error *err)
{
    char *roots[] = { (char *)path, NULL };
    _cleanup_(fts_closep) FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    FTSENT *at;
    memfs_code rc = MEMFS_OK;

    if (tree == NULL)
        return memfs_fail_errno(err, "could not look through the repository");
    while (rc == MEMFS_OK && (at = fts_read(tree)) != NULL) {
        if (at->fts_level == 0 || at->fts_info == FTS_DP || !is_left_over(at))
            continue;
        if (at->fts_info == FTS_D)
            fts_set(tree, at, FTS_SKIP);
        rc = fs_remove_tree(at->fts_path, err);
        *ret_n += rc == MEMFS_OK;
    }
    return rc;
}

/* Ours carry this process' token; others are from before a crash. */
static bool is_abandoned(const store *s, const char *file)
{
    static const char *const kinds[] = { "incoming-", "create-",   "copy-",
                                         "fetched-",  "outgoing-", "proof-" };

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (str_starts_with(str_of(file), str_of(kinds[i])))
            return strstr(file, s->token) == NULL;
    return false;
}

memfs_code store_sweep_tmp(const store *s, size_t *ret_n, memfs_error *err)
{
    _cleanup_(closedirp) DIR *dir = opendir(s->tmp);
    memfs_code rc = MEMFS_OK;
    struct dirent *e;

    while (rc == MEMFS_OK && dir != NULL && (e = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", s->tmp, e->d_name);

        if (!is_abandoned(s, e->d_name))
            continue;
        rc = fs_remove_tree(path, err);
        *ret_n += rc == MEMFS_OK;
    }
    return rc;
}

memfs_code store_sweep(store *s, const char *name, size_t *ret_n_removed, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = store_path(s, name);
    memfs_code rc;

    *ret_n_removed = 0;
    rc = store_sweep_tmp(s, ret_n_removed, err);
    if (rc == MEMFS_OK && fs_is_dir(path))
        rc = sweep_repository(path, ret_n_removed, err);
    remove_hidden(s, path, ret_n_removed);
    return rc;
}

/* copying */

memfs_code store_copy(store *s, const char *name, const char *to, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = store_path(s, name);
    memfs_error ignored;
    size_t n_left_over = 0;
    memfs_code rc;

    if (!fs_is_dir(path))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such repository");
    if (fs_exists(to))
        return memfs_fail(err, MEMFS_EEXISTS, "the place of the copy is taken");
    rc = fs_copy_tree(path, to, err);
    if (rc == MEMFS_OK)
        rc = sweep_repository(to, &n_left_over, err);
    if (rc == MEMFS_OK)
        rc = fs_sync_tree(to, err);
    if (rc < 0 && fs_remove_tree(to, &ignored) < 0)
        return memfs_context(err, "(a partial copy is left)");
    return rc;
}
