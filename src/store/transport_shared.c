#include "store/transport_int.h"

#include "base/fs.h"
#include "base/mem.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * A repository that others write to is fetched from through another one, made for that fetch: our
 * configuration, main as it is read now, and their objects alone.  So nothing of theirs that git
 * acts upon (config, hooks, a promisor, links among the refs) is ever read by it, whatever its
 * version (CVE-2024-32004 and its like), and whoever owns their folder is no matter.  Nor is what
 * their git has derived of the objects, to be quicker: it may be of other objects than those that
 * are there, half-written among them, and then a fetch lacks some for good.
 *
 *     {git_dir}/memfs-shared/HEAD, config, refs/heads/main, objects/info/alternates
 *
 * It lasts as long as one fetch, so nothing is synced.
 */

static const char CONFIG[] = "[core]\n"
                             "\trepositoryformatversion = 0\n"
                             "\tbare = true\n"
                             "\tcommitGraph = false\n"
                             "\tmultiPackIndex = false\n"
                             "[pack]\n"
                             "\tuseBitmaps = false\n"
                             "\treadReverseIndex = false\n";

static memfs_code put(const char *folder, const char *name, const char *text, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool is_put = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0 && close(fd) < 0)
        is_put = false;
    return is_put ? MEMFS_OK : memfs_fail_errno(err, "could not write '%s' for a fetch", name);
}

static memfs_code make_folders(const char *view, memfs_error *err)
{
    static const char *const below[] = { "", "/objects", "/objects/info", "/refs", "/refs/heads" };

    for (size_t i = 0; i < ARRAY_LEN(below); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s%s", view, below[i]);

        if (mkdir(path, 0700) < 0)
            return memfs_fail_errno(err, "could not make a folder for a fetch");
    }
    return MEMFS_OK;
}

memfs_code transport_shared_begin(const char *git_dir, const char *repo, char **ret,
                                  memfs_error *err)
{
    _cleanup_(mem_freep) char *view = mem_printf("%s/memfs-shared", git_dir);
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects\n", repo);
    char line[MEMFS_OID_HEX + 2];
    memfs_oid tip;
    memfs_code rc = store_tip_at(repo, &tip, err);

    if (rc < 0)
        return rc == MEMFS_ENOTFOUND
                   ? rc
                   : memfs_fail(err, MEMFS_EUNAVAIL, "main of that folder cannot be read");
    rc = fs_remove_tree(view, err); /* of a fetch that was killed */
    if (rc == MEMFS_OK)
        rc = make_folders(view, err);
    if (rc == MEMFS_OK)
        rc = put(view, "HEAD", "ref: " STORE_MAIN "\n", err);
    if (rc == MEMFS_OK)
        rc = put(view, "config", CONFIG, err);
    if (rc == MEMFS_OK)
        rc = put(view, "objects/info/alternates", objects, err);
    oid_hex(&tip, line);
    line[MEMFS_OID_HEX] = '\n';
    line[MEMFS_OID_HEX + 1] = '\0';
    if (rc == MEMFS_OK)
        rc = put(view, STORE_MAIN, line, err);
    if (rc == MEMFS_OK)
        *ret = TAKE_PTR(view);
    return rc;
}

void transport_shared_end(char **view)
{
    memfs_error ignored;

    if (*view != NULL && fs_remove_tree(*view, &ignored) < 0)
        (void)0; /* it goes with the repository that it is in */
    mem_freep(view);
}
