#include "client/prepare.h"

#include "base/fs.h"
#include "base/mem.h"
#include "base/program.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * One folder of links for all checkouts: core.hooksPath points here, the static memfs-hook looks at
 * the name it was called by, does its work and goes on to the hook of that name in .git/hooks.
 *
 * So every hook that git may call needs its link, or the user's own of that name would stop
 * running.  Left out are the few whose mere presence changes what git does (push-to-checkout,
 * proc-receive, fsmonitor-watchman): an empty one is not the same as none.
 */

static const char *const HOOKS[] = {
    "applypatch-msg",     "commit-msg",    "post-applypatch", "post-checkout",
    "post-commit",        "post-merge",    "post-receive",    "post-rewrite",
    "post-update",        "pre-applypatch", "pre-auto-gc",    "pre-commit",
    "pre-merge-commit",   "pre-push",      "pre-rebase",      "pre-receive",
    "prepare-commit-msg", "reference-transaction", "sendemail-validate", "update",
};

/* What a link says; false when there is none. */
static bool link_is(const char *path, const char *target)
{
    char is[4096];
    ssize_t n = readlink(path, is, sizeof(is) - 1);

    if (n < 0)
        return false;
    is[n] = '\0';
    return strcmp(is, target) == 0;
}

/* A link under a name of its own first, then renamed: git never meets a missing hook. */
static memfs_code make_link(const char *path, const char *target, memfs_error *err)
{
    _cleanup_(mem_freep) char *temp = mem_printf("%s.tmp-%d", path, (int)getpid());

    unlink(temp);
    if (symlink(target, temp) < 0)
        return memfs_fail_errno(err, "could not make the hook '%s'", path);
    if (rename(temp, path) == 0)
        return MEMFS_OK;
    memfs_fail_errno(err, "could not make the hook '%s'", path);
    unlink(temp);
    return err->code;
}

static memfs_code check_links(const char *folder, const char *program, memfs_error *err)
{
    char path[4096];
    memfs_code rc;

    for (size_t i = 0; i < ARRAY_LEN(HOOKS); i++) {
        char is[2];

        if (snprintf(path, sizeof(path), "%s/%s", folder, HOOKS[i]) >= (int)sizeof(path))
            return memfs_fail(err, MEMFS_EINVALID, "the path of the hooks is too long");
        if (link_is(path, program))
            continue;
        if (fs_exists(path) && readlink(path, is, sizeof(is)) < 0)
            continue; /* a file that somebody put there is theirs */
        rc = make_link(path, program, err);
        if (rc < 0)
            return rc;
    }
    return MEMFS_OK;
}

memfs_code prepare_hooks(const settings *s, char **ret_path, memfs_error *err)
{
    _cleanup_(mem_freep) char *program = NULL;
    _cleanup_(mem_freep) char *folder = NULL;
    const char *home = setting_text(s, SETTING_HOME);
    memfs_code rc;

    if (home == NULL || home[0] != '/')
        return memfs_fail(err, MEMFS_EINVALID,
                          "MEMFS_HOME must be a path from the root, not '%s'", home ? home : "");
    rc = program_path(PROGRAM_HOOK, &program, err);
    if (rc < 0)
        return rc;
    folder = mem_printf("%s/hooks", home);
    rc = fs_mkdirs(folder, err);
    if (rc == MEMFS_OK)
        rc = check_links(folder, program, err);
    if (rc == MEMFS_OK)
        *ret_path = TAKE_PTR(folder);
    return rc;
}
