/*
 * store_support.h - what the tests of the store share: a temporary home, real git as a client, and
 * pushes as the server makes them.
 */
#ifndef MEMFS_TESTS_STORE_SUPPORT_H
#define MEMFS_TESTS_STORE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/process.h"
#include "store/incoming.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define AGENT "repository/org/agent/repo.git"
#define OTHER "repository/org/other/repo.git"

static const store_identity WHO = { "tester", "tester@localhost", 1700000000 };

typedef struct fixture {
    char root[64]; /* of everything */
    char home[80], work[80];
    store *s;
    memfs_error err;
} fixture;

static inline void incoming_abortp(incoming **in)
{
    incoming_abort(*in);
}

#define assert_ok(f, call)                                                                         \
    do {                                                                                           \
        memfs_code assert_ok_ = (call);                                                            \
        if (assert_ok_ != MEMFS_OK)                                                                \
            fail_msg("%s: %s (%s)", #call, (f)->err.msg, memfs_code_name(assert_ok_));             \
    } while (0)

#define assert_code(f, code, call)                                                                 \
    do {                                                                                           \
        memfs_code assert_code_ = (call);                                                          \
        if (assert_code_ != (code))                                                                \
            fail_msg("%s: %s, wanted %s: %s", #call, memfs_code_name(assert_code_),                \
                     memfs_code_name(code), assert_code_ == MEMFS_OK ? "" : (f)->err.msg);         \
    } while (0)

#define assert_says(f, part)                                                                       \
    do {                                                                                           \
        if (strstr((f)->err.msg, (part)) == NULL)                                                  \
            fail_msg("wanted \"%s\" in \"%s\"", (part), (f)->err.msg);                             \
    } while (0)

static inline void fixture_reopen(fixture *f)
{
    store_close(f->s);
    f->s = NULL;
    assert_ok(f, store_open(f->home, &f->s, &f->err));
}

static inline int fixture_setup(void **state)
{
    fixture *f = mem_alloc(sizeof(*f));

    snprintf(f->root, sizeof(f->root), "/tmp/memfs-store-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    snprintf(f->home, sizeof(f->home), "%s/home", f->root);
    snprintf(f->work, sizeof(f->work), "%s/work", f->root);
    fixture_reopen(f);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    fixture *f = *state;

    store_close(f->s);
    assert_ok(f, fs_remove_tree(f->root, &f->err));
    free(f);
    return 0;
}

/* Runs git as a client in `folder`; stdout goes to out (cut of its last newline). */
static inline memfs_code git_try(fixture *f, const char *folder, memfs_buf *out, memfs_str input,
                                 const char *const *args)
{
    static const char *const env[] = { "PATH=/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C",
                                       "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a",
                                       "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a",
                                       "GIT_COMMITTER_EMAIL=a@b", NULL };
    const char *argv[32] = { "/usr/bin/git" };
    process_spec spec = { .argv = argv, .env = env, .cwd = folder };
    size_t n = 1;

    while (*args != NULL)
        argv[n++] = *args++;
    return process_run(&spec, input, out, NULL, 60000, &f->err);
}

#define git(f, folder, ...)                                                                        \
    do {                                                                                           \
        memfs_buf git_out_ = MEMFS_BUF_INIT(64u << 20);                                            \
        const char *git_args_[] = { __VA_ARGS__, NULL };                                           \
        assert_ok(f, git_try(f, folder, &git_out_, MEMFS_STR(""), git_args_));                     \
        buf_dispose(&git_out_);                                                                    \
    } while (0)

static inline memfs_oid git_id(fixture *f, const char *folder, const char *revision)
{
    memfs_buf out = MEMFS_BUF_INIT(1024);
    const char *args[] = { "rev-parse", revision, NULL };
    memfs_oid id;

    assert_ok(f, git_try(f, folder, &out, MEMFS_STR(""), args));
    assert_true(oid_parse(str_make(out.ptr, MEMFS_OID_HEX), &id));
    buf_dispose(&out);
    return id;
}

/* A clone of the repository (or of the genesis) in `folder`, without any transport of ours. */
static inline void work_clone(fixture *f, const char *name, const char *folder)
{
    char *from = name != NULL ? store_path(f->s, name) : mem_strdup(store_genesis_path(f->s));

    git(f, "/", "clone", "-q", from, folder);
    free(from);
}

static inline void work_write(fixture *f, const char *folder, const char *name, memfs_str text)
{
    char *path = mem_printf("%s/%s", folder, name);
    char *parent = mem_strndup(path, (size_t)(strrchr(path, '/') - path));

    assert_ok(f, fs_mkdirs(parent, &f->err));
    assert_ok(f, fs_write_atomic(path, text, 0644, &f->err));
    free(parent);
    free(path);
}

static inline void work_commit(fixture *f, const char *folder, const char *name, const char *text)
{
    work_write(f, folder, name, str_of(text));
    git(f, folder, "add", "-A");
    git(f, folder, "commit", "-q", "-m", "change");
}

/* The pack a client would send: what `new` has and `old` has not. */
static inline void work_pack(fixture *f, const char *folder, const memfs_oid *old,
                             const memfs_oid *new, memfs_buf *out)
{
    const char *args[] = { "pack-objects", "-q", "--stdout", "--revs", "--thin",
                           "--delta-base-offset", NULL };
    char old_hex[MEMFS_OID_HEX + 1], new_hex[MEMFS_OID_HEX + 1], input[128];

    oid_hex(old, old_hex);
    oid_hex(new, new_hex);
    snprintf(input, sizeof(input), "%s\n^%s\n", new_hex, old_hex);
    assert_ok(f, git_try(f, folder, out, str_of(input), args));
}

typedef struct push_spec {
    const char *name;
    memfs_oid base, tip;
    memfs_str pack;
    policy policy;
    const memfs_oid *banned;
    size_t n_banned;
} push_spec;

/* A push, step by step as the server makes it; the first failure ends it. */
static inline memfs_code push_try(fixture *f, const push_spec *p)
{
    _cleanup_(incoming_abortp) incoming *in = NULL;
    _cleanup_(repo_closep) repo *r = NULL;
    incoming_options options = INCOMING_OPTIONS_INIT;
    incoming_vetting v = { &p->base, &p->tip, &p->policy, p->banned, p->n_banned };
    memfs_code rc = incoming_begin(f->s, p->name, &options, &in, &f->err);

    for (size_t at = 0; rc == MEMFS_OK && at < p->pack.len;) {
        size_t n = p->pack.len - at < 100000 ? p->pack.len - at : 100000;

        rc = incoming_feed(in, p->pack.ptr + at, n, &f->err);
        at += n;
    }
    if (rc == MEMFS_OK)
        rc = incoming_finish(in, &f->err);
    if (rc == MEMFS_OK)
        rc = incoming_vet(in, &v, &f->err);
    if (rc == MEMFS_OK && !store_has(f->s, p->name))
        rc = store_create(f->s, p->name, &f->err);
    if (rc == MEMFS_OK)
        rc = incoming_accept(in, &f->err);
    if (rc == MEMFS_OK)
        rc = repo_open(f->s, p->name, &r, &f->err);
    if (rc == MEMFS_OK)
        rc = repo_ref_move(r, &p->base, &p->tip, &WHO, "push", &f->err);
    return rc;
}

/* Pushes HEAD of a working copy onto main. */
static inline memfs_code push_head(fixture *f, const char *folder, const char *name,
                                   const policy *p)
{
    _cleanup_(buf_dispose) memfs_buf pack = MEMFS_BUF_INIT(64u << 20);
    push_spec spec = { .name = name, .base = STORE_GENESIS, .policy = POLICY_INIT };
    memfs_error ignored;

    if (p != NULL)
        spec.policy = *p;
    spec.tip = git_id(f, folder, "HEAD");
    if (store_has(f->s, name) && store_tip(f->s, name, &spec.base, &ignored) < 0)
        return MEMFS_ECORRUPT;
    work_pack(f, folder, &spec.base, &spec.tip, &pack);
    spec.pack = buf_str(&pack);
    return push_try(f, &spec);
}

/* main of a repository; the genesis while there is none. */
static inline memfs_oid tip_of(fixture *f, const char *name)
{
    memfs_oid tip = STORE_GENESIS;

    if (store_has(f->s, name))
        assert_ok(f, store_tip(f->s, name, &tip, &f->err));
    return tip;
}

/* D6: after every test. */
static inline void assert_whole(fixture *f, const char *name)
{
    assert_ok(f, store_fsck(f->s, name, &f->err));
}

#endif
