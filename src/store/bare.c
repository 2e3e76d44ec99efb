#include "store/bare.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "store/git_env.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 *     <above>/.<name>.memfs-<8 hex>    made here, as git init does, and synced
 *     <above>/<name>                   renamed to
 *
 * The hex digits are the maker's: its folder, as this machine knows it.  Two servers that share a
 * disk so never touch one another's half-made repository, and what a server finds under its own
 * name was left by a kill.
 */

#define MARK_BYTES 4

typedef struct place {
    char *above, *path, *partial;
} place;

static void place_dispose(place *p)
{
    free(p->above);
    free(p->path);
    free(p->partial);
}

static void maker_mark(const char *maker, char ret[2 * MARK_BYTES + 1])
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(16 * 1024);
    char host[256] = "";
    uint8_t digest[16];
    struct stat st;

    if (gethostname(host, sizeof(host) - 1) < 0)
        host[0] = '\0';
    buf_printf(&text, "%s\n%s\n", host, maker);
    if (stat(maker, &st) == 0)
        buf_printf(&text, "%llu %llu\n", (unsigned long long)st.st_dev,
                   (unsigned long long)st.st_ino);
    hash_md5(buf_str(&text), digest);
    hash_hex(digest, MARK_BYTES, ret);
}

static memfs_code place_find(const char *path, const char *maker, place *ret, memfs_error *err)
{
    size_t n = strlen(path), at;
    char mark[2 * MARK_BYTES + 1];
    const char *slash;

    while (n > 1 && path[n - 1] == '/')
        n--;
    slash = memrchr(path, '/', n);
    if (path[0] != '/' || n == 1)
        return memfs_fail(err, MEMFS_EINVALID, "'%s' is no path for a repository", path);
    at = (size_t)(slash - path) + 1;
    maker_mark(maker, mark);
    ret->above = mem_printf("%.*s", at > 1 ? (int)at - 1 : 1, path);
    ret->path = mem_printf("%.*s", (int)n, path);
    ret->partial = mem_printf("%.*s.%.*s.memfs-%s", (int)at, path, (int)(n - at), path + at, mark);
    return MEMFS_OK;
}

static memfs_code git_init(const char *path, int64_t deadline_ms, memfs_error *err)
{
    static const char *const args[] = { "init", "--bare", "--quiet", "--initial-branch=main",
                                        "--object-format=sha1", "--" };
    _cleanup_(git_strings_dispose) git_strings argv = GIT_STRINGS_INIT;
    _cleanup_(git_env_dispose) git_env env = GIT_ENV_INIT;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096), tail = MEMFS_BUF_INIT(4096);
    int64_t left_ms = deadline_ms - clock_mono_ms();
    char *git = git_env_find();
    process_spec spec;

    if (git == NULL)
        return memfs_fail(err, MEMFS_EUNAVAIL, "git is not installed");
    git_strings_add(&argv, git);
    for (size_t i = 0; i < ARRAY_LEN(args); i++)
        git_strings_add(&argv, mem_strdup(args[i]));
    git_strings_add(&argv, mem_strdup(path));
    git_env_begin(&env, GIT_JOB_INIT, "/nonexistent");
    git_env_end(&env);
    spec = git_env_spec(GIT_JOB_INIT, &argv, &env, 0);
    return process_run(&spec, MEMFS_STR(""), &out, &tail, left_ms > 0 ? left_ms : 1, err);
}

static memfs_code make_partial(const place *p, int64_t deadline_ms, memfs_error *err)
{
    memfs_code rc = fs_remove_tree(p->partial, err); /* of a kill */

    if (rc < 0)
        return rc;
    if (mkdir(p->partial, 0700) < 0)
        return memfs_fail_errno(err, "could not make a repository in '%s'", p->above);
    rc = git_init(p->partial, deadline_ms, err);
    return rc == MEMFS_OK ? fs_sync_tree(p->partial, err) : rc;
}

static memfs_code check_place(const place *p, memfs_error *err)
{
    if (!fs_is_dir(p->above))
        return memfs_fail(err, MEMFS_ENOTFOUND,
                          "there is no folder '%s' to make it in; is its disk mounted?", p->above);
    if (fs_exists(p->path) && !fs_is_dir(p->path))
        return memfs_fail(err, MEMFS_EEXISTS, "what stands at '%s' is no folder", p->path);
    return MEMFS_OK;
}

memfs_code bare_check(const char *path, memfs_error *err)
{
    _cleanup_(place_dispose) place p = { NULL, NULL, NULL };
    memfs_code rc = place_find(path, "/", &p, err);

    if (rc == MEMFS_OK)
        rc = check_place(&p, err);
    if (rc == MEMFS_OK && access(p.above, W_OK | X_OK) < 0)
        rc = memfs_fail(err, MEMFS_EDENIED, "memfs cannot write to '%s': %s", p.above,
                        strerror(errno));
    return rc;
}

memfs_code bare_make(const char *path, const char *maker, int64_t deadline_ms, memfs_error *err)
{
    _cleanup_(place_dispose) place p = { NULL, NULL, NULL };
    memfs_error ignored;
    memfs_code rc = place_find(path, maker, &p, err);

    if (rc == MEMFS_OK)
        rc = check_place(&p, err);
    if (rc < 0 || fs_is_dir(p.path))
        return rc;
    rc = make_partial(&p, deadline_ms, err);
    if (rc == MEMFS_OK)
        rc = fs_rename(p.partial, p.path, err);
    if (rc < 0 && fs_remove_tree(p.partial, &ignored) == MEMFS_OK && fs_is_dir(p.path))
        return MEMFS_OK; /* somebody was faster */
    return rc;
}
