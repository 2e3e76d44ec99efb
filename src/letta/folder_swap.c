#include "letta/folder_int.h"

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/*
 * A compare-and-swap of a file that somebody else truncates and writes, with no lock:
 *
 *     .../{agent}/.memfs-<random>/main       ours, until both are exchanged; theirs after that
 *     .../{agent}/.memfs-<random>/before     theirs, a second name, where nothing can be exchanged
 *
 * Theirs has a name in the stage from before ours has theirs, and keeps it until it was read after
 * the swap and is what was expected.  Whatever came out else, an empty file of a write that has
 * just begun among it, is left there for the next look (letta_folder_each_left), which takes it in
 * by its id as any write of the server's.  So there is nothing to put back, over what the server
 * may have written next; and a kill or an error between any two steps leaves a name to everything.
 */

/* ---- small ---- */

void letta_ref_line(const memfs_oid *id, char *line)
{
    oid_hex(id, line);
    line[MEMFS_OID_HEX] = '\n';
    line[MEMFS_OID_HEX + 1] = '\0';
}

/* Zero: it names no commit, or not yet; false: or it cannot be read, so it may name any. */
static bool read_ref(const char *path, memfs_oid *ret)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    memfs_error ignored;
    memfs_str line;
    memfs_code rc = fs_read(path, &text, &ignored);

    memset(ret, 0, sizeof(*ret));
    if (rc < 0)
        return rc == MEMFS_ELIMIT;
    line = buf_str(&text);
    if (line.len != MEMFS_OID_HEX + 1 || line.ptr[MEMFS_OID_HEX] != '\n' ||
        !oid_parse(str_make(line.ptr, MEMFS_OID_HEX), ret))
        memset(ret, 0, sizeof(*ret));
    return true;
}

static memfs_code fail_written(memfs_error *err)
{
    return memfs_fail(err, MEMFS_ECONFLICT, "the Letta server wrote meanwhile");
}

/* ---- the swap ---- */

static bool cannot_exchange(int error)
{
    return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP || error == EPERM;
}

/* All refs were packed: nothing is replaced, and what came meanwhile is not, either. */
static memfs_code put_first(const char *made, int heads, memfs_error *err)
{
    if (linkat(AT_FDCWD, made, heads, "main", 0) == 0)
        return MEMFS_OK;
    return errno == EEXIST ? fail_written(err)
                           : memfs_fail_errno(err, "could not put main in place");
}

/* A network that answers twice says of our own link that it is there. */
static memfs_code replace(const letta_swap *s, const char *made, const char *before, int heads,
                          memfs_error *err)
{
    memfs_code rc;

    if (linkat(heads, "main", AT_FDCWD, before, 0) < 0 && errno != EEXIST)
        return memfs_fail_errno(err,
                                "the Letta server's volume cannot exchange two files, and main "
                                "there could not be linked; let memfs run as the Letta "
                                "server's user, on a filesystem with hard links");
    rc = fs_sync_dir(s->stage, err);
    if (rc == MEMFS_OK && renameat(AT_FDCWD, made, heads, "main") < 0)
        rc = memfs_fail_errno(err, "could not put main in place");
    return rc;
}

/* *ret_out: the file that has what was replaced; NULL: there was none. */
static memfs_code swap(const letta_swap *s, const char *made, const char *before, int heads,
                       const char **ret_out, memfs_error *err)
{
    *ret_out = made;
    if (renameat2(AT_FDCWD, made, heads, "main", RENAME_EXCHANGE) == 0)
        return MEMFS_OK;
    if (errno == ENOENT) {
        *ret_out = NULL;
        return put_first(made, heads, err);
    }
    if (!cannot_exchange(errno))
        return memfs_fail_errno(err, "could not put main in place");
    *ret_out = before;
    return replace(s, made, before, heads, err);
}

static bool is_expected(const letta_swap *s)
{
    memfs_error ignored;
    memfs_oid now;

    return store_tip_at(s->repo, &now, &ignored) == MEMFS_OK && oid_equal(&now, s->expected);
}

static memfs_code make_ref(const letta_swap *s, const char *made, memfs_error *err)
{
    char line[MEMFS_OID_HEX + 2];
    memfs_code rc;

    letta_ref_line(s->tip, line);
    rc = fs_write_atomic(made, str_of(line), 0644, err);
    return rc == MEMFS_OK ? letta_own_made(s->owner, made, err) : rc;
}

memfs_code letta_swap_main(const letta_swap *s, bool *ret_may_hold, bool *ret_is_moved,
                           memfs_error *err)
{
    _cleanup_(mem_freep) char *made = mem_printf("%s/main", s->stage);
    _cleanup_(mem_freep) char *before = mem_printf("%s/before", s->stage);
    _cleanup_(mem_freep) char *folder = mem_printf("%s/refs/heads", s->repo);
    _cleanup_(letta_close) int heads = -1;
    memfs_code rc = make_ref(s, made, err);
    const char *out;
    memfs_oid was;

    if (rc < 0)
        return rc;
    heads = letta_open(s->owner->folder, folder, O_RDONLY | O_DIRECTORY);
    if (heads < 0)
        return memfs_fail_errno(err, "could not open '%s'", folder);
    if (!is_expected(s))
        return fail_written(err);
    *ret_may_hold = *ret_is_moved = true;
    rc = swap(s, made, before, heads, &out, err);
    if (rc < 0 && out == NULL)
        *ret_may_hold = *ret_is_moved = false;
    if (rc == MEMFS_OK && fsync(heads) < 0)
        rc = memfs_fail_errno(err, "could not write '%s' to disk", folder);
    if (rc < 0)
        return rc;
    if (out != NULL)
        (void)read_ref(out, &was); /* one that cannot be read is none that was expected */
    *ret_may_hold = out != NULL && !oid_equal(&was, s->expected);
    return *ret_may_hold ? fail_written(err) : MEMFS_OK;
}

/* ---- what was left ---- */

/* One that was written to is another one. */
static uint64_t key_of(const char *path, const struct stat *st)
{
    _cleanup_(mem_freep) char *text =
        mem_printf("%s %llu %lld %lld.%09ld", path, (unsigned long long)st->st_ino,
                   (long long)st->st_size, (long long)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
    uint8_t sum[HASH_SHA256];
    uint64_t key;

    hash_sha256(str_of(text), sum);
    memcpy(&key, sum, sizeof(key));
    return key;
}

/* Has the caller all of what the stage has?  What cannot be read it has not. */
static bool is_settled(letta_folder *f, const char *stage, letta_left_fn fn, void *ctx)
{
    static const char *const names[] = { "main", "before" };
    bool is = true;
    struct stat st;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", stage, names[i]);
        bool is_read;
        memfs_oid id;

        if (lstat(path, &st) < 0) {
            is = is && errno == ENOENT;
            continue;
        }
        if (!S_ISREG(st.st_mode))
            continue;
        is_read = read_ref(path, &id);
        is = fn(&id, letta_seen_for_s(f, key_of(path, &st)), stage, ctx) && is_read && is;
    }
    return is;
}

typedef bool (*stage_fn)(const char *stage, void *ctx);

/* false of fn ends it. */
static void each_stage(letta_folder *f, const char *agent_id, stage_fn fn, void *ctx)
{
    letta_place place;
    _cleanup_(mem_freep) char *repo = letta_folder_path(f, agent_id, &place);
    _cleanup_(mem_freep) char *agent = mem_strndup(repo, (size_t)(strrchr(repo, '/') - repo));
    _cleanup_(closedirp) DIR *dir = place == LETTA_THERE ? opendir(agent) : NULL;
    bool goes_on = true;
    struct dirent *e;

    while (dir != NULL && goes_on && (e = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *stage = mem_printf("%s/%s", agent, e->d_name);

        if (str_starts_with(str_of(e->d_name), MEMFS_STR(".memfs-")) && letta_is_folder(f, stage))
            goes_on = fn(stage, ctx);
    }
}

typedef struct taking {
    letta_folder *f;
    letta_left_fn fn;
    void *ctx;
} taking;

static bool take_stage(const char *stage, void *ctx)
{
    const taking *t = ctx;
    memfs_error ignored;

    /* one that cannot be removed is met by the next look */
    return !is_settled(t->f, stage, t->fn, t->ctx) || fs_remove_tree(stage, &ignored) == MEMFS_OK;
}

void letta_folder_each_left(letta_folder *f, const char *agent_id, letta_left_fn fn, void *ctx)
{
    taking t = { f, fn, ctx };

    each_stage(f, agent_id, take_stage, &t);
}

static bool find_any(const char *stage, void *ctx)
{
    (void)stage;
    *(bool *)ctx = true;
    return false;
}

bool letta_folder_has_left(letta_folder *f, const char *agent_id)
{
    bool has = false;

    each_stage(f, agent_id, find_any, &has);
    return has;
}
