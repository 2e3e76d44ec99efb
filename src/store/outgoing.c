#include "store/outgoing.h"

#include "base/fs.h"
#include "base/mem.h"
#include "store/git_child.h"
#include "store/store_int.h"

#include <stdlib.h>
#include <sys/stat.h>

/*
 * git pack-objects writes into the repository's own folder first and renames, so the pack is made
 * below our tmp/ and copied: the other folder may be on another disk.
 */

#define PACK_TIMEOUT_MS 120000

static void add_line(memfs_buf *out, const char *prefix, const memfs_oid *id)
{
    char hex[MEMFS_OID_HEX + 1];

    if (oid_is_zero(id))
        return;
    oid_hex(id, hex);
    buf_printf(out, "%s%s\n", prefix, hex);
}

static memfs_code write_pack(store *s, const char *name, const memfs_oid *tip,
                             const memfs_oid *without, const char *folder,
                             char ret_pack[MEMFS_OID_HEX + 1], memfs_error *err)
{
    _cleanup_(mem_freep) char *base = mem_printf("%s/pack", folder);
    _cleanup_(mem_freep) char *path = store_path(s, name);
    const char *args[] = { "pack-objects", "-q", "--revs", "--non-empty", "--delta-base-offset",
                           base, NULL };
    _cleanup_(buf_dispose) memfs_buf input = MEMFS_BUF_INIT(1024);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1024);
    _cleanup_(buf_dispose) memfs_buf tail = MEMFS_BUF_INIT(16 * 1024);
    git_child_options o = { .git_dir = path, .args = args };
    memfs_code rc;

    add_line(&input, "", tip);
    add_line(&input, "^", without);
    o.input = buf_str(&input);
    rc = git_child_run(s, GIT_JOB_REPACK, &o, &out, &tail, PACK_TIMEOUT_MS, err);
    if (rc < 0)
        return git_env_is_disk_full(buf_str(&tail))
                   ? memfs_fail(err, MEMFS_ENOSPACE, "the disk of the server is full")
                   : memfs_context(err, "could not pack what is new");
    return git_child_pack_name(buf_str(&out), ret_pack, err);
}

/* A reverse index is one file more for everybody who copies them all, and git does without. */
static memfs_code drop_reverse_index(const char *folder, const char *pack, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/pack-%s.rev", folder, pack);

    return fs_remove_tree(path, err);
}

memfs_code outgoing_pack(store *s, const char *name, const memfs_oid *tip,
                         const memfs_oid *without, const char *to,
                         char ret_pack[MEMFS_OID_HEX + 1], memfs_error *err)
{
    _cleanup_(mem_freep) char *made = store_temp_path(s, "outgoing");
    memfs_error ignored;
    memfs_code rc = MEMFS_OK;

    if (mkdir(made, 0700) < 0)
        return memfs_fail_errno(err, "could not make room for a pack");
    rc = write_pack(s, name, tip, without, made, ret_pack, err);
    if (rc == MEMFS_OK && ret_pack[0] != '\0')
        rc = drop_reverse_index(made, ret_pack, err);
    if (rc == MEMFS_OK && ret_pack[0] != '\0')
        rc = fs_copy_tree(made, to, err);
    if (rc == MEMFS_OK && ret_pack[0] != '\0')
        rc = fs_sync_tree(to, err);
    if (fs_remove_tree(made, &ignored) < 0)
        return rc; /* swept by the next start */
    return rc;
}
