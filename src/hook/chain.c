#include "base/fs.h"
#include "base/mem.h"
#include "base/program.h"
#include "hook/hook.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * core.hooksPath of a memory points to our links, so git looks no longer where it did before: into
 * the folder that the user's core.hooksPath names for all repositories, else into <common
 * dir>/hooks.  client/prepare_users_hooks.c has written the first of them down as
 * memfs-checkout.hooksPath; like git, we look into it instead of the second, and a relative one is
 * seen from the folder in which hooks run.  What a user has put there is theirs and runs after
 * ours, with the same arguments, stdin, folder and environment, and its exit status counts.
 *
 * The Letta client writes its own pre-commit and post-commit there at every start.  Their work is
 * ours (in C, without bash or node), so they are left out.  All versions so far (0.15 to 0.32.18)
 * mark them in the first lines with
 *
 *     # Installed by Letta Code CLI
 *
 * (post-commit goes on in that line: ". Do not edit by hand").  A hook of the user's own that
 * merely calls one of them does not have that line at its top and runs.
 *
 * No child is started: this process becomes the next program.  For pre-commit and post-commit that
 * is `memfs hook <name> --then <the user's own>`, which becomes the user's own when it is content.
 */

#define LETTA_MARK "\n# Installed by Letta Code CLI"
#define TOP_BYTES 400

extern char **environ;

bool chain_is_lettas(memfs_str text)
{
    text.len = text.len < TOP_BYTES ? text.len : TOP_BYTES;
    return memmem(text.ptr, text.len, LETTA_MARK, strlen(LETTA_MARK)) != NULL;
}

/* A repository whose hooks folder leads back to us would go round for ever. */
static bool is_ourselves(const struct stat *st)
{
    struct stat own;

    return stat("/proc/self/exe", &own) == 0 && own.st_dev == st->st_dev &&
           own.st_ino == st->st_ino;
}

char *chain_target(const hook_repo *r, const char *name)
{
    _cleanup_(mem_freep) char *folder = hook_config(r, "memfs-checkout", "hooksPath");
    char *path = folder != NULL ? mem_printf("%s/%s", folder, name)
                                : mem_printf("%s/hooks/%s", r->common, name);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);
    memfs_error e = MEMFS_ERROR_INIT;
    struct stat st;

    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || access(path, X_OK) < 0 ||
        is_ourselves(&st) ||
        (fs_read(path, &text, &e) == MEMFS_OK && chain_is_lettas(buf_str(&text)))) {
        free(path);
        return NULL;
    }
    return path;
}

/* A script without "#!" is run by sh, as git does. */
static int exec_by_shell(const char *path, char **argv)
{
    size_t n = 0;
    char **args;

    while (argv[n] != NULL)
        n++;
    args = mem_realloc(NULL, n + 2, sizeof(*args));
    args[0] = (char *)"sh";
    args[1] = (char *)path;
    for (size_t i = 1; i <= n; i++)
        args[i + 1] = argv[i];
    return execve("/bin/sh", args, environ);
}

int chain_exec(const char *path, char **argv)
{
    argv[0] = (char *)path;
    execve(path, argv, environ);
    if (errno == ENOEXEC)
        exec_by_shell(path, argv);
    hook_say("could not run '%s': %s", path, strerror(errno));
    return 1;
}

int hook_chained(const char *name, char **argv)
{
    _cleanup_(hook_repo_dispose) hook_repo r = HOOK_REPO_INIT;
    _cleanup_(mem_freep) char *users = hook_repo_find(&r) ? chain_target(&r, name) : NULL;

    return users != NULL ? chain_exec(users, argv) : 0;
}

/* Most memories have no mirror, and then a commit need not wait for a program that finds out. */
static bool has_mirror(const hook_repo *r)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(mem_freep) char *config = mem_printf("%s/config", r->common);
    memfs_error e = MEMFS_ERROR_INIT;

    return fs_read(config, &text, &e) < 0 || strcasestr(text.ptr, "memoryrepository") != NULL;
}

int hook_ours(const char *name, char **argv)
{
    _cleanup_(hook_repo_dispose) hook_repo r = HOOK_REPO_INIT;
    _cleanup_(mem_freep) char *users = NULL, *memfs = NULL;
    memfs_error e = MEMFS_ERROR_INIT;
    const char *args[8] = { "memfs", "hook", name };
    bool is_needed;

    if (!hook_repo_find(&r))
        return 0;
    users = chain_target(&r, name);
    is_needed = strcmp(name, "post-commit") != 0 || has_mirror(&r);
    if (is_needed && program_path(PROGRAM_MEMFS, &memfs, &e) == MEMFS_OK) {
        if (users != NULL) {
            args[3] = "--then";
            args[4] = users;
        }
        execve(memfs, (char *const *)args, environ);
    }
    return users != NULL ? chain_exec(users, argv) : 0;
}
