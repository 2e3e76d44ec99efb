/*
 * remote_support.h - remotes as real bare repositories, honest and hostile ones.
 */
#ifndef MEMFS_TESTS_REMOTE_SUPPORT_H
#define MEMFS_TESTS_REMOTE_SUPPORT_H

#include "pack_support.h"

#include "base/clock.h"
#include "store/transport.h"

#define SOON (clock_mono_ms() + 60000)

/* "<root>/<name>.git"; caller frees. */
static inline char *remote_make(fixture *f, const char *name)
{
    char *path = mem_printf("%s/%s.git", f->root, name);

    git(f, "/", "init", "-q", "--bare", "-b", "main", path);
    return path;
}

static inline transport_target remote_target_of(const char *path)
{
    return (transport_target){ .url = path, .may_path = true };
}

/* Objects by hand, judged by nobody. */
static inline void remote_take(fixture *f, const char *path, pack *p)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(64 * 1024);
    const char *args[] = { "unpack-objects", "-q", NULL };

    assert_ok(f, git_try(f, path, &out, pack_end(p), args));
}

static inline void remote_set(fixture *f, const char *path, const char *ref, const memfs_oid *id)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(id, hex);
    git(f, path, "update-ref", ref, hex);
}

/* A hook of the remote's, by name. */
static inline void remote_hook(fixture *f, const char *path, const char *name, const char *script)
{
    char *hook = mem_printf("%s/hooks/%s", path, name);

    assert_ok(f, fs_write_atomic(hook, str_of(script), 0755, &f->err));
    free(hook);
}

static inline memfs_oid remote_tip(fixture *f, const char *path)
{
    return git_id(f, path, "refs/heads/main");
}

/* Is there a file below the home's tmp/ that belongs to a fetch or a proof? */
static inline size_t count_scratch(fixture *f)
{
    char script[256];
    const char *argv[] = { "/bin/sh", "-c", script, NULL }, *env[] = { "PATH=/usr/bin:/bin", NULL };
    process_spec spec = { .argv = argv, .env = env };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);

    snprintf(script, sizeof(script), "ls '%s/tmp' | grep -E '^(fetched|proof)-' || true", f->home);
    assert_ok(f, process_run(&spec, MEMFS_STR(""), &out, NULL, 10000, &f->err));
    return out.len;
}

#endif
