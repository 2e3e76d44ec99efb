#include "store/store_int.h"

#include "base/fs.h"
#include "base/mem.h"
#include "base/pool.h"
#include "store/history.h"

#include <stdio.h>
#include <string.h>

/*
 * A commit made of its parts.  Unlike a merge's (merge.c) its parents stay in the caller's order:
 * the first is the history that a person follows.
 */

#define SECONDS_2100 4102444800 /* what no policy would take (memory/policy.h) */

/* A name or address must not end its field or its line; what git would cut from its ends, or take
 * for nothing, is cut here. */
static void add_name(memfs_buf *out, const char *text, const char *otherwise)
{
    size_t start = out->len;

    for (; *text != '\0'; text++)
        if ((unsigned char)*text >= ' ' && *text != '<' && *text != '>' && *text != 0x7F &&
            (out->len > start || *text != ' '))
            buf_putc(out, *text);
    while (out->len > start && out->ptr[out->len - 1] == ' ')
        buf_truncate(out, out->len - 1);
    if (out->len == start)
        buf_puts(out, otherwise);
}

static void add_identity(memfs_buf *out, const char *role, const store_identity *who)
{
    int64_t time_s = who->time_s < 0 ? 0 : who->time_s;

    if (time_s >= SECONDS_2100)
        time_s = SECONDS_2100 - 1;
    buf_printf(out, "%s ", role);
    add_name(out, who->name, "memfs");
    buf_puts(out, " <");
    add_name(out, who->email, "memfs@localhost");
    buf_printf(out, "> %lld +0000\n", (long long)time_s);
}

static bool is_named_before(const memfs_oid *parents, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (oid_equal(&parents[k], &parents[i]))
            return true;
    return false;
}

/* *time_s becomes the latest of their committer times. */
static memfs_code add_parents(repo *r, const memfs_oid *parents, size_t n_parents, memfs_buf *out,
                              int64_t *time_s, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];

    for (size_t i = 0; i < n_parents; i++) {
        _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
        memfs_code rc;

        if (oid_is_zero(&parents[i]) || is_named_before(parents, i))
            continue;
        rc = repo_commit_info(r, &parents[i], &info, err);
        if (rc < 0)
            return rc;
        oid_hex(&parents[i], hex);
        buf_printf(out, "parent %s\n", hex);
        if (info.committer_time_s > *time_s)
            *time_s = info.committer_time_s;
    }
    return MEMFS_OK;
}

static memfs_code check_tree(repo *r, const memfs_oid *tree, memfs_error *err)
{
    git_object_t type;
    uint64_t bytes;
    memfs_code rc = repo_header(r, tree, &type, &bytes, err);

    if (rc == MEMFS_OK && type != GIT_OBJECT_TREE)
        return memfs_fail(err, MEMFS_ECORRUPT, "the object is no folder");
    return rc;
}

/*
 * libgit2 syncs what it writes and the folder that it is in.  Nothing of an object that is there
 * already: somebody may have died between its rename and the sync.  Nor the folder that this one
 * may have been made in: once is enough, with the commit, as nothing else is reached without one
 * that is written after it.  Not in a throw-away repository.
 */
static memfs_code sync_object(repo *r, git_object_t type, const memfs_oid *id, bool was_there,
                              memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = NULL, *objects = NULL;
    memfs_code rc = MEMFS_OK;

    if (r->path == NULL)
        return MEMFS_OK;
    objects = mem_printf("%s/objects", r->path);
    folder = mem_printf("%s/%02x", objects, id->id[0]);
    if (was_there && fs_is_dir(folder)) /* else it is in a pack */
        rc = fs_sync_dir(folder, err);
    if (rc == MEMFS_OK && type == GIT_OBJECT_COMMIT)
        rc = fs_sync_dir(objects, err);
    return rc;
}

bool repo_is_unsynced(const repo *r)
{
    return r->is_unsynced;
}

/*
 * libgit2 has one code for all that the system refuses; its words say what it was.  They stay when
 * it then writes the object once more, to another file, and takes that one's sync for a yes.
 */
static bool was_sync(void)
{
    const git_error *last = git_error_last();

    return last != NULL && strstr(last->message, "fsync") != NULL;
}

static memfs_code write_object(repo *r, git_object_t type, memfs_str bytes, memfs_oid *ret,
                               memfs_error *err)
{
    bool was_there = false;
    git_oid id;
    memfs_code code;
    int rc = git_odb_hash(&id, bytes.ptr, bytes.len, type);

    if (rc == 0) {
        was_there = git_odb_exists_ext(r->odb, &id, GIT_ODB_LOOKUP_NO_REFRESH) != 0;
        git_error_clear();
        rc = git_odb_write(&id, r->odb, bytes.ptr, bytes.len, type);
        r->is_unsynced |= was_sync();
    }
    if (r->is_unsynced)
        return memfs_fail(err, MEMFS_ECORRUPT, "the disk did not take an object");
    if (rc < 0)
        return store_fail_git(err, rc, "could not write an object");
    repo_memfs_oid(&id, ret);
    code = sync_object(r, type, ret, was_there, err);
    r->is_unsynced |= code < 0;
    if (code == MEMFS_EINTERNAL)
        err->code = MEMFS_ECORRUPT; /* as above */
    return code < 0 ? err->code : code;
}

/* Nearly all of it is waiting for the disk, which takes what many write at once in one go. */
memfs_code repo_write(repo *r, git_object_t type, memfs_str bytes, memfs_oid *ret, memfs_error *err)
{
    memfs_code rc;

    pool_disk_begin();
    rc = write_object(r, type, bytes, ret, err);
    pool_disk_end();
    return rc;
}

memfs_code repo_commit_tree(repo *r, const memfs_oid *tree, const memfs_oid *parents,
                            size_t n_parents, const store_identity *who, memfs_str message,
                            memfs_oid *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(OBJECT_MAX_COMMIT_BYTES);
    store_identity memfs = { "memfs", "memfs@localhost", 0 };
    char hex[MEMFS_OID_HEX + 1];
    memfs_code rc = check_tree(r, tree, err);

    oid_hex(tree, hex);
    buf_printf(&text, "tree %s\n", hex);
    if (rc == MEMFS_OK)
        rc = add_parents(r, parents, n_parents, &text, &memfs.time_s, err);
    if (rc < 0)
        return rc;
    add_identity(&text, "author", who != NULL ? who : &memfs);
    add_identity(&text, "committer", who != NULL ? who : &memfs);
    buf_putc(&text, '\n');
    buf_add_str(&text, message);
    if (message.len == 0 || message.ptr[message.len - 1] != '\n')
        buf_putc(&text, '\n');
    rc = buf_check(&text, "the message of the commit", err);
    return rc == MEMFS_OK ? repo_write(r, GIT_OBJECT_COMMIT, buf_str(&text), ret, err) : rc;
}
