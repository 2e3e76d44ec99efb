/*
 * checkout_support.h - what the tests of checkouts share: a folder of the test's own, and real
 * git, which judges everything.
 */
#ifndef MEMFS_TESTS_CHECKOUT_SUPPORT_H
#define MEMFS_TESTS_CHECKOUT_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/oid.h"
#include "base/process.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct work {
    char root[64];
    char *tree; /* root/tree: where tests put their working tree */
    memfs_error err;
} work;

#define assert_ok(w, call)                                                                         \
    do {                                                                                           \
        memfs_code assert_ok_ = (call);                                                            \
        if (assert_ok_ != MEMFS_OK)                                                                \
            fail_msg("%s: %s (%s)", #call, (w)->err.msg, memfs_code_name(assert_ok_));             \
    } while (0)

#define assert_code(w, code, call)                                                                 \
    do {                                                                                           \
        memfs_code assert_code_ = (call);                                                          \
        if (assert_code_ != (code))                                                                \
            fail_msg("%s: %s, wanted %s: %s", #call, memfs_code_name(assert_code_),                \
                     memfs_code_name(code), assert_code_ == MEMFS_OK ? "" : (w)->err.msg);         \
    } while (0)

#define assert_says(w, part)                                                                       \
    do {                                                                                           \
        if (strstr((w)->err.msg, (part)) == NULL)                                                  \
            fail_msg("wanted \"%s\" in \"%s\"", (part), (w)->err.msg);                             \
    } while (0)

static inline int work_setup(void **state)
{
    work *w = mem_alloc(sizeof(*w));

    memcpy(w->root, "/tmp/memfs-checkout-XXXXXX", sizeof("/tmp/memfs-checkout-XXXXXX"));
    assert_non_null(mkdtemp(w->root));
    w->tree = mem_strdup("/tmp/memfs-checkout-XXXXXX/tree");
    memcpy(w->tree, w->root, strlen(w->root));
    setenv("HOME", w->root, 1);
    unsetenv("XDG_CONFIG_HOME");
    *state = w;
    return 0;
}

static inline int work_teardown(void **state)
{
    work *w = *state;

    assert_ok(w, fs_remove_tree(w->root, &w->err));
    free(w->tree);
    free(w);
    return 0;
}

/* git in `folder`, nothing inherited; stdout is cut of nothing. */
static inline memfs_code try_git(work *w, const char *folder, memfs_buf *out,
                                 const char *const *args)
{
    char home[96];
    const char *env[] = { "PATH=/usr/bin:/bin", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1",
                          "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a",
                          "GIT_COMMITTER_EMAIL=a@b", "GIT_OPTIONAL_LOCKS=0", home, NULL };
    const char *argv[32] = { "/usr/bin/git" };
    process_spec spec = { .argv = argv, .env = env, .cwd = folder };
    size_t n = 1;

    snprintf(home, sizeof(home), "HOME=%s", w->root);
    while (*args != NULL)
        argv[n++] = *args++;
    return process_run(&spec, MEMFS_STR(""), out, NULL, 60000, &w->err);
}

static inline void run_git(work *w, const char *folder, memfs_buf *out, const char *const *args)
{
    memfs_code rc = try_git(w, folder, out, args);

    if (rc != MEMFS_OK)
        fail_msg("git %s: %s", args[0], w->err.msg);
}

#define git(w, folder, ...)                                                                        \
    do {                                                                                           \
        memfs_buf git_out_ = MEMFS_BUF_INIT(64u << 20);                                            \
        const char *git_args_[] = { __VA_ARGS__, NULL };                                           \
        run_git(w, folder, &git_out_, git_args_);                                                  \
        buf_dispose(&git_out_);                                                                    \
    } while (0)

/* What git printed; caller frees. */
#define git_says(w, folder, ...)                                                                   \
    ({                                                                                             \
        memfs_buf git_out_ = MEMFS_BUF_INIT(64u << 20);                                            \
        const char *git_args_[] = { __VA_ARGS__, NULL };                                           \
        run_git(w, folder, &git_out_, git_args_);                                                  \
        git_out_.ptr == memfs_buf_empty ? mem_strdup("") : buf_take(&git_out_, NULL);              \
    })

static inline memfs_oid git_id(work *w, const char *folder, const char *revision)
{
    _cleanup_(mem_freep) char *hex = git_says(w, folder, "rev-parse", "--verify", revision);
    memfs_oid id;

    assert_true(oid_parse(str_make(hex, MEMFS_OID_HEX), &id));
    return id;
}

/* files */

static inline void put_bytes(work *w, const char *folder, const char *name, memfs_str text)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, name);
    _cleanup_(mem_freep) char *parent = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    FILE *f;

    assert_ok(w, fs_mkdirs(parent, &w->err));
    f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(text.ptr, 1, text.len, f), text.len);
    assert_int_equal(fclose(f), 0);
}

static inline void put(work *w, const char *folder, const char *name, const char *text)
{
    put_bytes(w, folder, name, str_of(text));
}

static inline bool has(work *w, const char *folder, const char *name)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, name);

    (void)w;
    return fs_exists(path);
}

static inline void assert_text(work *w, const char *folder, const char *name, const char *text)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, name);
    _cleanup_(buf_dispose) memfs_buf now = MEMFS_BUF_INIT(16u << 20);

    assert_ok(w, fs_read(path, &now, &w->err));
    assert_string_equal(now.ptr, text);
}

static inline bool has_prefix(const char *folder, const char *prefix)
{
    DIR *dir = opendir(folder);
    struct dirent *at;
    bool is_there = false;

    assert_non_null(dir);
    while ((at = readdir(dir)) != NULL)
        is_there = is_there || strncmp(at->d_name, prefix, strlen(prefix)) == 0;
    closedir(dir);
    return is_there;
}

static inline unsigned mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static inline void commit_all_by_git(work *w, const char *folder, const char *message)
{
    git(w, folder, "add", "-A");
    git(w, folder, "commit", "-q", "--allow-empty", "-m", message);
}

#endif
