#include "store/checkout_int.h"

#include "base/fs.h"
#include "base/mem.h"

#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

/*
 * Finding a repository, and what its configuration means for us.
 *
 *     <work tree>/.git/             a folder: git dir and common dir
 *     <work tree>/.git              a file "gitdir: <git dir>": a linked working tree; its git dir
 *                                   has "commondir", which is relative to it
 *     <path>/HEAD, objects, refs    a bare repository
 *
 * Only <common dir>/config (and config.worktree, where that extension is on) is read.  Nothing in
 * it makes us run a program: filters, hooks, fsmonitor and the like are git's business (T12).
 */

/* configuration */

const char *checkout_config(const checkout *c, const char *key)
{
    const char *value = c->worktree_config != NULL ? gitconfig_get(c->worktree_config, key) : NULL;

    return value != NULL ? value : gitconfig_get(c->config, key);
}

static bool is_word(const char *value, const char *const *words)
{
    while (*words != NULL)
        if (strcasecmp(value, *words++) == 0)
            return true;
    return false;
}

bool checkout_config_bool(const checkout *c, const char *key, bool fallback)
{
    static const char *const yes[] = { "true", "yes", "on", "1", "always", NULL };
    static const char *const no[] = { "false", "no", "off", "0", "", NULL };
    const char *value = checkout_config(c, key);

    if (value == NULL)
        return fallback;
    return is_word(value, yes) || (!is_word(value, no) && fallback);
}

/* What git must know to read a repository, we must know too. */
static bool refuse_extension(const char *key, const char *value, void *ctx)
{
    static const char *const known[] = {
        "noop", "noop-v1", "worktreeconfig", "preciousobjects", "relativeworktrees", NULL
    };
    memfs_error *err = ctx;
    const char *name = key + strlen("extensions.");

    if (strncmp(key, "extensions.", strlen("extensions.")) != 0 || is_word(name, known))
        return true;
    if (strcmp(name, "objectformat") == 0 && strcmp(value, "sha1") == 0)
        return true;
    if (strcmp(name, "refstorage") == 0 && strcmp(value, "files") == 0)
        return true;
    if (strcmp(name, "objectformat") == 0)
        memfs_fail(err, MEMFS_EINVALID,
                   "the repository uses the object format '%.40s'; memories are sha1", value);
    else
        memfs_fail(err, MEMFS_EINVALID,
                   "the repository uses the extension '%.60s', which memfs does not know", name);
    return false;
}

static memfs_code check_format(const checkout *c, memfs_error *err)
{
    const char *version = gitconfig_get(c->config, "core.repositoryformatversion");

    err->code = MEMFS_OK;
    if (version != NULL && strcmp(version, "0") != 0 && strcmp(version, "1") != 0)
        return memfs_fail(err, MEMFS_EINVALID,
                          "the repository has the format version '%.20s'; memfs "
                          "knows 0 and 1",
                          version);
    gitconfig_each(c->config, refuse_extension, err);
    return err->code;
}

static memfs_code read_config(checkout *c, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", c->common_dir);
    memfs_code rc = gitconfig_open(path, &c->config, err);

    if (rc == MEMFS_OK)
        rc = check_format(c, err);
    if (rc == MEMFS_OK && checkout_config_bool(c, "extensions.worktreeConfig", false)) {
        _cleanup_(mem_freep) char *own = mem_printf("%s/config.worktree", c->git_dir);

        rc = gitconfig_open(own, &c->worktree_config, err);
    }
    if (rc < 0)
        return rc;
    c->has_modes = checkout_config_bool(c, "core.fileMode", true);
    c->has_links = checkout_config_bool(c, "core.symlinks", true);
    if (checkout_config(c, "core.worktree") != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "core.worktree is set in the repository; a memory's "
                          "files lie beside its .git");
    return MEMFS_OK;
}

/* opening */

memfs_code checkout_library(memfs_error *err)
{
    return store_library(err);
}

static bool looks_like_git_dir(const char *path)
{
    static const char *const parts[] = { "HEAD", "objects", "refs" };

    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        _cleanup_(mem_freep) char *part = mem_printf("%s/%s", path, parts[i]);

        if (!fs_exists(part))
            return false;
    }
    return true;
}

/* The first line of a small file, "" cut of `prefix`; caller frees. */
static memfs_code read_line(const char *path, const char *prefix, char **ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(8192);
    memfs_code rc = fs_read(path, &text, err);
    memfs_str line = buf_str(&text);

    if (rc < 0)
        return rc;
    while (line.len > 0 && (line.ptr[line.len - 1] == '\n' || line.ptr[line.len - 1] == '\r'))
        line.len--;
    if (!str_starts_with(line, str_of(prefix)) || line.len == strlen(prefix) ||
        memchr(line.ptr, '\n', line.len) != NULL || memchr(line.ptr, '\0', line.len) != NULL)
        return memfs_fail(err, MEMFS_ECORRUPT, "'%s' does not say where the repository is",
                          strrchr(path, '/') + 1);
    line = str_from(line, strlen(prefix));
    *ret = mem_strndup(line.ptr, line.len);
    return MEMFS_OK;
}

/* A path in a file of git's: absolute, or relative to that file's folder. */
static char *resolve(const char *folder, const char *path)
{
    _cleanup_(mem_freep) char *joined =
        path[0] == '/' ? mem_strdup(path) : mem_printf("%s/%s", folder, path);
    char *real = realpath(joined, NULL);

    return real != NULL ? real : TAKE_PTR(joined);
}

static memfs_code find_linked(checkout *c, const char *dot_git, memfs_error *err)
{
    _cleanup_(mem_freep) char *git_dir = NULL, *common = NULL, *common_file = NULL;
    memfs_code rc = read_line(dot_git, "gitdir: ", &git_dir, err);

    if (rc < 0)
        return rc;
    c->git_dir = resolve(c->work_tree, git_dir);
    common_file = mem_printf("%s/commondir", c->git_dir);
    rc = read_line(common_file, "", &common, err);
    if (rc == MEMFS_OK)
        c->common_dir = resolve(c->git_dir, common);
    else if (rc == MEMFS_ENOTFOUND && fs_is_dir(c->git_dir)) /* git init --separate-git-dir */
        c->common_dir = mem_strdup(c->git_dir);
    else
        return memfs_fail(err, MEMFS_ENOTFOUND, "'.git' points to a repository that is gone");
    return MEMFS_OK;
}

static memfs_code find_bare(checkout *c, memfs_error *err)
{
    if (!looks_like_git_dir(c->work_tree))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no repository");
    c->git_dir = TAKE_PTR(c->work_tree);
    c->common_dir = mem_strdup(c->git_dir);
    return MEMFS_OK;
}

static memfs_code find(checkout *c, const char *path, memfs_error *err)
{
    _cleanup_(mem_freep) char *dot_git = NULL;
    struct stat st;
    memfs_code rc = MEMFS_OK;

    c->work_tree = realpath(path, NULL);
    if (c->work_tree == NULL)
        return memfs_fail_errno(err, "could not open the repository");
    dot_git = mem_printf("%s/.git", c->work_tree);
    if (stat(dot_git, &st) < 0)
        return find_bare(c, err);
    if (S_ISDIR(st.st_mode)) {
        c->git_dir = TAKE_PTR(dot_git);
        c->common_dir = mem_strdup(c->git_dir);
    } else {
        rc = find_linked(c, dot_git, err);
    }
    if (rc == MEMFS_OK && !looks_like_git_dir(c->common_dir))
        return memfs_fail(err, MEMFS_ECORRUPT,
                          "'.git' is there but is no repository; move it away");
    return rc;
}

/*
 * libgit2 opens what has one of these names, and a pipe there would never let go of us: one memory
 * in a home of hundreds could stop the sync of all.
 */
static memfs_code check_kinds(const checkout *c, memfs_error *err)
{
    static const char *const own[] = { "HEAD", "index" };
    static const char *const common[] = {
        "packed-refs", "refs/heads/main", "refs/remotes/origin/main", "info/exclude",
        "info/attributes", "objects/info/alternates", "shallow", "commondir",
    };

    for (size_t i = 0; i < ARRAY_LEN(own) + ARRAY_LEN(common); i++) {
        const char *name = i < ARRAY_LEN(own) ? own[i] : common[i - ARRAY_LEN(own)];
        _cleanup_(mem_freep) char *path =
            mem_printf("%s/%s", i < ARRAY_LEN(own) ? c->git_dir : c->common_dir, name);
        struct stat st;

        if (stat(path, &st) == 0 && S_ISFIFO(st.st_mode))
            return memfs_fail(err, MEMFS_ECORRUPT,
                              "'%s' of the repository is a pipe and no file; remove it", name);
    }
    return MEMFS_OK;
}

/* Another's repository can bring another's configuration; git refuses it as well. */
static memfs_code check_owner(const checkout *c, memfs_error *err)
{
    struct stat st;

    if (stat(c->common_dir, &st) < 0)
        return memfs_fail_errno(err, "could not look at the repository");
    if (st.st_uid != geteuid())
        return memfs_fail(err, MEMFS_EDENIED,
                          "the repository belongs to uid %u and this is uid %u; "
                          "run memfs as its owner, or chown it",
                          (unsigned)st.st_uid, (unsigned)geteuid());
    return MEMFS_OK;
}

static memfs_code open_objects(checkout *c, memfs_error *err)
{
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", c->common_dir);
    git_odb *odb = NULL;
    int rc = git_odb_open(&odb, objects); /* alternates too */

    if (rc < 0)
        return store_fail_git(err, rc, "could not open the objects");
    return repo_of_odb(NULL, mem_strdup(c->common_dir), odb, 0, &c->r, err);
}

memfs_code checkout_open(const char *path, checkout **ret, memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *c = mem_alloc(sizeof(*c));
    memfs_code rc = store_library(err);

    if (rc == MEMFS_OK)
        rc = find(c, path, err);
    if (rc == MEMFS_OK)
        rc = check_owner(c, err);
    if (rc == MEMFS_OK)
        rc = check_kinds(c, err);
    if (rc == MEMFS_OK)
        rc = read_config(c, err);
    if (rc == MEMFS_OK)
        rc = open_objects(c, err);
    if (rc == MEMFS_OK)
        *ret = TAKE_PTR(c);
    return rc;
}

void checkout_close(checkout *c)
{
    if (c == NULL)
        return;
    repo_close(c->r);
    gitconfig_close(c->config);
    gitconfig_close(c->worktree_config);
    free(c->work_tree);
    free(c->git_dir);
    free(c->common_dir);
    free(c);
}

void checkout_closep(checkout **c)
{
    checkout_close(*c);
    *c = NULL;
}

/* reading */

const char *checkout_work_tree(const checkout *c)
{
    return c->work_tree;
}

const char *checkout_git_dir(const checkout *c)
{
    return c->git_dir;
}

const char *checkout_common_dir(const checkout *c)
{
    return c->common_dir;
}

repo *checkout_repo(checkout *c)
{
    return c->r;
}

static char *note_path(const char *folder, const char *name)
{
    _cleanup_(mem_freep) char *notes = mem_printf("%s/memfs", folder);
    memfs_error ignored;

    if (fs_is_dir(folder)) /* a repository that somebody removes just now is not begun again */
        (void)!fs_mkdirs(notes, &ignored); /* whoever writes the note meets the same reason */
    return mem_printf("%s/%s", notes, name);
}

char *checkout_note_path(const checkout *c, const char *name)
{
    return note_path(c->common_dir, name);
}

char *checkout_own_note_path(const checkout *c, const char *name)
{
    return note_path(c->git_dir, name);
}

memfs_code checkout_head(const checkout *c, char **ret_ref, memfs_oid *ret_id, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/HEAD", c->git_dir);
    _cleanup_(mem_freep) char *line = NULL;
    memfs_code rc = read_line(path, "", &line, err);
    const char *ref;

    *ret_ref = NULL;
    if (rc < 0)
        return memfs_context(err, "HEAD");
    if (strncmp(line, "ref:", 4) != 0) {
        if (oid_parse(str_of(line), ret_id))
            return MEMFS_OK;
        return memfs_fail(err, MEMFS_ECORRUPT, "HEAD is neither a branch nor a commit");
    }
    ref = line + 4 + strspn(line + 4, " \t");
    *ret_ref = mem_strdup(ref);
    return MEMFS_OK;
}
