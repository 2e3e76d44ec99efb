#include "cli/opened.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "client/when.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void opened_dispose(opened *m)
{
    browse_close(m->browse);
    checkout_close(m->checkout);
    place_dispose(&m->place);
    settings_free(m->settings);
    free(m->below);
    *m = (opened)OPENED_INIT;
}

static char *parent_folder(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL || slash == path ? mem_strdup("/")
                                          : mem_strndup(path, (size_t)(slash - path));
}

/* The innermost folder at or above the working one that has a ".git"; NULL: none. */
static char *enclosing_checkout(void)
{
    char *here = getcwd(NULL, 0);

    while (here != NULL) {
        _cleanup_(mem_freep) char *dot_git = mem_printf("%s/.git", here);
        char *above;

        if (fs_exists(dot_git))
            return here;
        above = strcmp(here, "/") == 0 ? NULL : parent_folder(here);
        free(here);
        here = above;
    }
    return NULL;
}

/* "system/" of /x/memory/system in /x/memory; NULL at its top. */
static char *folder_below(const char *top)
{
    _cleanup_(mem_freep) char *here = getcwd(NULL, 0);
    size_t len = strlen(top);

    if (here == NULL || strncmp(here, top, len) != 0 || here[len] != '/')
        return NULL;
    return mem_printf("%s/", here + len + 1);
}

/*
 * A place from the checkout that we are in: its agent's folder is the one above its main working
 * tree.
 */
static void place_around(const checkout *c, place *ret)
{
    _cleanup_(mem_freep) char *memory = parent_folder(checkout_common_dir(c));

    ret->root = parent_folder(memory);
    ret->agent_id = mem_strdup(strrchr(ret->root, '/') + 1);
    ret->worktrees = mem_printf("%s/memory-worktrees", ret->root);
    ret->memory = TAKE_PTR(memory);
}

static bool open_enclosing(const cli_usage *usage, opened *ret, cli_exit *ret_exit)
{
    _cleanup_(mem_freep) char *path = enclosing_checkout();
    memfs_error err = MEMFS_ERROR_INIT;

    if (path == NULL) {
        *ret_exit = cli_usage_error(usage, "which agent? (--agent ID, $LETTA_AGENT_ID, or start it "
                                           "inside a memory)");
        return false;
    }
    if (checkout_open(path, &ret->checkout, &err) < 0) {
        *ret_exit = cli_fail(&err, NULL);
        return false;
    }
    place_around(ret->checkout, &ret->place);
    ret->below = folder_below(path);
    return true;
}

bool opened_place(const cli_usage *usage, const char *agent, opened *ret, cli_exit *ret_exit)
{
    const char *id = cli_agent(agent);
    memfs_error err = MEMFS_ERROR_INIT;

    if (checkout_library(&err) < 0 || settings_load(NULL, NULL, 0, &ret->settings, &err) < 0) {
        *ret_exit = cli_fail(&err, NULL);
        return false;
    }
    if (id == NULL)
        return open_enclosing(usage, ret, ret_exit);
    if (place_of(ret->settings, id, &ret->place, &err) < 0) {
        *ret_exit = cli_fail(&err, NULL);
        return false;
    }
    return true;
}

bool opened_memory(const cli_usage *usage, const char *agent, opened *ret, cli_exit *ret_exit)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (!opened_place(usage, agent, ret, ret_exit))
        return false;
    if (ret->checkout == NULL && checkout_open(ret->place.memory, &ret->checkout, &err) < 0) {
        *ret_exit = cli_fail(&err, err.code == MEMFS_ENOTFOUND
                                       ? "'memfs apply --agent ID' makes an agent's memory"
                                       : NULL);
        return false;
    }
    if (browse_open(ret->checkout, &ret->browse, &err) < 0) {
        *ret_exit = cli_fail(&err, NULL);
        return false;
    }
    return true;
}

memfs_code opened_commit(opened *m, const char *rev_or_time, memfs_oid *ret, memfs_error *err)
{
    int64_t time_s;

    if (when_parse(str_of(rev_or_time), clock_wall_us() / 1000000, &time_s))
        return browse_commit_at(m->browse, time_s, ret, err);
    return browse_commit(m->browse, rev_or_time, ret, err);
}

/* Drops ".", "..", and doubled slashes, by names alone; what would lead out stays at the top. */
static char *normal_path(const char *path)
{
    memfs_buf out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str rest = str_of(path), part;

    while (rest.len > 0) {
        if (!str_split(rest, '/', &part, &rest)) {
            part = rest;
            rest = MEMFS_STR("");
        }
        if (part.len == 0 || str_equal(part, MEMFS_STR(".")))
            continue;
        if (str_equal(part, MEMFS_STR(".."))) {
            while (out.len > 0 && out.ptr[out.len - 1] != '/')
                buf_truncate(&out, out.len - 1);
            if (out.len > 0)
                buf_truncate(&out, out.len - 1);
            continue;
        }
        if (out.len > 0)
            buf_putc(&out, '/');
        buf_add_str(&out, part);
    }
    return buf_take(&out, NULL);
}

char *opened_path(const opened *m, const char *typed)
{
    const char *top = m->checkout != NULL ? checkout_work_tree(m->checkout) : NULL;
    _cleanup_(mem_freep) char *from_here = NULL;
    size_t len = top != NULL ? strlen(top) : 0;

    while (len > 0 && top[len - 1] == '/')
        len--;
    if (len > 0 && strncmp(typed, top, len) == 0 && (typed[len] == '/' || typed[len] == '\0'))
        return normal_path(typed + len);
    from_here = mem_printf("%s%s", m->below != NULL ? m->below : "", typed);
    return normal_path(from_here);
}
