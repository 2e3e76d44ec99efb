#include "store/checkout_int.h"

#include "base/fs.h"
#include "base/mem.h"
#include "store/ignore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * One pass over the working tree.  As git does: ".git" is never looked at, a folder that is a
 * repository of its own is one thing, an ignored folder is not entered, empty folders do not
 * exist, and what is neither a file nor a link does not either.
 *
 * Rules come, weakest first, from the user's core.excludesFile, from info/exclude and from the
 * .gitignore files on the way down.
 */

#define MAX_DEPTH 100
#define RULES_MAX_BYTES (1u << 20)

typedef struct walk {
    const checkout *c;
    git_index *index;
    ignore *rules;
    untracked_fn fn;
    void *ctx;
    memfs_buf path; /* of the folder, with a final '/', or "" */
    int depth;
} walk;

typedef struct names {
    char **at;
    size_t n;
} names;

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void names_dispose(names *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->at[i]);
    free(list->at);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static memfs_code list(int folder, names *ret, memfs_error *err)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *at;

    if (dir == NULL) {
        memfs_fail_errno(err, "could not list a folder");
        close_fd(&fd);
        return err->code;
    }
    while ((at = readdir(dir)) != NULL) {
        if (strcmp(at->d_name, ".") == 0 || strcmp(at->d_name, "..") == 0 ||
            strcmp(at->d_name, ".git") == 0)
            continue;
        if ((ret->n & (ret->n - 1)) == 0)
            ret->at = mem_realloc(ret->at, ret->n == 0 ? 1 : ret->n * 2, sizeof(*ret->at));
        ret->at[ret->n++] = mem_strdup(at->d_name);
    }
    closedir(dir);
    if (ret->n > 0)
        qsort(ret->at, ret->n, sizeof(*ret->at), compare_names);
    return MEMFS_OK;
}

/* rules */

static void push_file(walk *w, const char *path)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(RULES_MAX_BYTES);
    memfs_error ignored;

    if (fs_read(path, &text, &ignored) == MEMFS_OK)
        ignore_push(w->rules, buf_str(&text), "");
}

/* core.excludesFile of one of the user's own configuration files; NULL: it has none.  Caller
 * frees. */
static char *excludes_in(const char *folder, const char *file)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, file);
    _cleanup_(gitconfig_closep) gitconfig *config = NULL;
    const char *value = NULL;
    memfs_error ignored;

    if (gitconfig_open(path, &config, &ignored) == MEMFS_OK)
        value = gitconfig_get(config, "core.excludesFile");
    return value != NULL ? mem_strdup(value) : NULL;
}

/* What the user set for all repositories; NULL: nothing.  Caller frees. */
static char *users_excludes(const checkout *c)
{
    const char *home = getenv("HOME"), *xdg = getenv("XDG_CONFIG_HOME");
    const char *own = checkout_config(c, "core.excludesFile");
    _cleanup_(mem_freep) char *value = own != NULL ? mem_strdup(own) : NULL;
    _cleanup_(mem_freep) char *folder = NULL;

    if (home == NULL || home[0] != '/')
        return TAKE_PTR(value);
    folder = xdg != NULL && xdg[0] == '/' ? mem_strdup(xdg) : mem_printf("%s/.config", home);
    if (value == NULL)
        value = excludes_in(home, ".gitconfig");
    if (value == NULL)
        value = excludes_in(folder, "git/config");
    if (value == NULL)
        return mem_printf("%s/git/ignore", folder);
    if (strncmp(value, "~/", 2) == 0)
        return mem_printf("%s/%s", home, value + 2);
    return TAKE_PTR(value);
}

static void push_common_rules(walk *w)
{
    _cleanup_(mem_freep) char *users = users_excludes(w->c);
    _cleanup_(mem_freep) char *exclude = mem_printf("%s/info/exclude", w->c->common_dir);

    if (users != NULL)
        push_file(w, users);
    push_file(w, exclude);
}

/* A .gitignore that is a link is not followed, by git neither. */
static size_t push_folder_rules(walk *w, int folder)
{
    _cleanup_(close_fd) int fd =
        openat(folder, ".gitignore", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(RULES_MAX_BYTES);
    char chunk[4096];
    ssize_t n = -1;

    while (fd >= 0 && (n = read(fd, chunk, sizeof(chunk))) > 0)
        buf_add(&text, chunk, (size_t)n);
    if (n < 0 || text.too_big)
        return ignore_push(w->rules, MEMFS_STR(""), "");
    return ignore_push(w->rules, buf_str(&text), w->path.ptr);
}

/* the walk */

static bool is_repository(int folder)
{
    struct stat st;

    return fstatat(folder, ".git", &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static memfs_code report(walk *w, int folder, const char *name, const struct stat *st, bool is_repo,
                         memfs_error *err)
{
    untracked_entry e = { w->path.ptr, folder, name, *st, is_repo };

    return w->fn(&e, w->ctx, err);
}

static memfs_code walk_folder(walk *w, int folder, memfs_error *err);

static memfs_code enter(walk *w, int folder, const char *name, const struct stat *st,
                        memfs_error *err)
{
    _cleanup_(close_fd) int fd =
        openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    memfs_code rc;

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EACCES))
        return MEMFS_OK; /* it went away, or is not ours to read */
    if (fd < 0)
        return memfs_fail_errno(err, "could not open the folder '%.100s'", name);
    if (is_repository(fd))
        return report(w, folder, name, st, true, err);
    if (w->depth == MAX_DEPTH)
        return memfs_fail(err, MEMFS_ELIMIT, "folders are nested deeper than %d", MAX_DEPTH);
    buf_putc(&w->path, '/');
    w->depth++;
    rc = walk_folder(w, fd, err);
    w->depth--;
    return rc;
}

/* w->path is that of the thing itself.  Most are tracked, and need no stat to know it. */
static memfs_code visit(walk *w, int folder, const char *name, memfs_error *err)
{
    struct stat st;
    bool is_folder;

    if (git_index_find(NULL, w->index, w->path.ptr) == 0)
        return MEMFS_OK; /* as a folder: a submodule, or a file's name that it took */
    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return MEMFS_OK; /* gone in between */
    is_folder = S_ISDIR(st.st_mode);
    if (!is_folder && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
        return MEMFS_OK;
    if (ignore_matches(w->rules, w->path.ptr, is_folder))
        return MEMFS_OK;
    if (is_folder)
        return enter(w, folder, name, &st, err);
    return report(w, folder, name, &st, false, err);
}

static memfs_code walk_folder(walk *w, int folder, memfs_error *err)
{
    _cleanup_(names_dispose) names all = { NULL, 0 };
    size_t len = w->path.len, mark;
    memfs_code rc = list(folder, &all, err);

    mark = push_folder_rules(w, folder);
    for (size_t i = 0; rc == MEMFS_OK && i < all.n; i++) {
        buf_puts(&w->path, all.at[i]);
        rc = visit(w, folder, all.at[i], err);
        buf_truncate(&w->path, len);
    }
    ignore_pop(w->rules, mark);
    return rc;
}

memfs_code checkout_each_untracked(const checkout *c, git_index *index, untracked_fn fn, void *ctx,
                                   memfs_error *err)
{
    _cleanup_(close_fd) int root = open(c->work_tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    walk w = { c, index, NULL, fn, ctx, MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED), 0 };
    memfs_code rc;

    if (root < 0)
        return memfs_fail_errno(err, "could not open the working tree");
    w.rules = ignore_new();
    push_common_rules(&w);
    rc = walk_folder(&w, root, err);
    ignore_free(w.rules);
    buf_dispose(&w.path);
    return rc;
}
