#include "base/fs.h"
#include "base/mem.h"
#include "hook/hook.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * git tells its hooks where they are in two ways.  For an ordinary repository it sets nothing and
 * changes to the top of the working tree; for everything else (a linked worktree, --git-dir, bare)
 * it sets GIT_DIR, which may be relative to the working directory.
 */

void hook_say(const char *fmt, ...)
{
    char line[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    dprintf(STDERR_FILENO, "memfs: %s\n", line);
}

void hook_repo_dispose(hook_repo *r)
{
    free(r->git_dir);
    free(r->common);
    *r = (hook_repo)HOOK_REPO_INIT;
}

/* A small text file without the end of its line; NULL when it cannot be read. */
static char *first_line(const char *path)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(16 * 1024);
    memfs_error e = MEMFS_ERROR_INIT;
    memfs_str line, rest;

    if (fs_read(path, &text, &e) < 0)
        return NULL;
    line = buf_str(&text);
    if (str_split(line, '\n', &line, &rest) && line.len > 0 && line.ptr[line.len - 1] == '\r')
        line.len--;
    return line.len > 0 ? mem_strndup(line.ptr, line.len) : NULL;
}

/* path as seen from `from`; takes path. */
static char *seen_from(const char *from, char *path)
{
    char *joined;

    if (path[0] == '/')
        return path;
    joined = mem_printf("%s/%s", from, path);
    free(path);
    return joined;
}

static bool looks_like_git_dir(const char *path)
{
    _cleanup_(mem_freep) char *head = mem_printf("%s/HEAD", path);
    _cleanup_(mem_freep) char *config = mem_printf("%s/config", path);
    _cleanup_(mem_freep) char *common = mem_printf("%s/commondir", path);

    return fs_exists(head) && (fs_exists(config) || fs_exists(common));
}

static char *find_git_dir(void)
{
    const char *said = getenv("GIT_DIR");
    _cleanup_(mem_freep) char *line = NULL;

    if (said != NULL && said[0] != '\0')
        return mem_strdup(said);
    if (fs_is_dir(".git"))
        return mem_strdup(".git");
    line = first_line(".git");
    if (line != NULL && strncmp(line, "gitdir: ", 8) == 0)
        return mem_strdup(line + 8);
    return mem_strdup(".");
}

bool hook_repo_find(hook_repo *ret)
{
    hook_repo found = { find_git_dir(), NULL };
    _cleanup_(mem_freep) char *pointer = mem_printf("%s/commondir", found.git_dir);
    char *common = first_line(pointer);

    if (!looks_like_git_dir(found.git_dir)) {
        free(common);
        hook_repo_dispose(&found);
        return false;
    }
    found.common = common != NULL ? seen_from(found.git_dir, common) : mem_strdup(found.git_dir);
    *ret = found;
    return true;
}

char *hook_home(void)
{
    const char *home = getenv("MEMFS_HOME");

    if (home != NULL && home[0] == '/')
        return mem_strdup(home);
    home = getenv("HOME");
    return home != NULL && home[0] == '/' ? mem_printf("%s/.memfs", home) : NULL;
}
