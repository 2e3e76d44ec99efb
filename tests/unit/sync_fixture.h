/*
 * sync_fixture.h - a home in a temporary folder, and a git client's side of pushes to it.
 *
 * The client is a clone made by real git; packs are made by `git pack-objects`, as a push makes them.
 */
#ifndef MEMFS_TESTS_SYNC_FIXTURE_H
#define MEMFS_TESTS_SYNC_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/process.h"
#include "sync/push.h"
#include "sync/upkeep.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define AGENT_A "agent-11111111-1111-4111-8111-111111111111"
#define AGENT_B "agent-22222222-2222-4222-8222-222222222222"
#define ID_A MEMFS_STR(AGENT_A)
#define ID_B MEMFS_STR(AGENT_B)
#define REPO_A "repository/org-00000000-0000-4000-8000-000000000000/" AGENT_A "/repo.git"

typedef struct fixture {
    char root[64];
    char *path; /* of the home */
    char *work; /* of the client's clone */
    home_options options;
    home *h;
    pthread_mutex_t mutex; /* guards alarms */
    memfs_buf alarms;      /* event names, one a line */
    memfs_buf talk;        /* what the pushing client read */
    bool is_broken;        /* on purpose */
} fixture;

/* OK(f(args, &err)): shows the message when it fails. */
#define OK(call)                                                                                   \
    do {                                                                                           \
        memfs_error err = MEMFS_ERROR_INIT;                                                        \
        if ((call) != MEMFS_OK)                                                                    \
            fail_msg("%s: %s (%s)", #call, err.msg, memfs_code_name(err.code));                    \
    } while (0)
#define FAILS(expected, call)                                                                      \
    do {                                                                                           \
        memfs_error err = MEMFS_ERROR_INIT;                                                        \
        memfs_code got_ = (call);                                                                  \
        if (got_ != (expected))                                                                    \
            fail_msg("%s: %s, not %s (%s)", #call, memfs_code_name(got_),                          \
                     memfs_code_name(expected), err.msg);                                          \
    } while (0)

static inline void on_alarm(const char *event, const char *id, const char *text, void *ctx)
{
    fixture *f = ctx;

    (void)id;
    (void)text;
    pthread_mutex_lock(&f->mutex);
    buf_printf(&f->alarms, "%s\n", event);
    pthread_mutex_unlock(&f->mutex);
}

static inline size_t n_alarms(fixture *f, const char *event)
{
    memfs_str rest, line;
    size_t n = 0;

    pthread_mutex_lock(&f->mutex);
    rest = buf_str(&f->alarms);
    while (str_split(rest, '\n', &line, &rest))
        n += str_equal(line, str_of(event));
    pthread_mutex_unlock(&f->mutex);
    return n;
}

/* ---- git ---- */

static inline memfs_code git_in(const char *dir, memfs_str input, memfs_buf *out,
                                const char *const *args)
{
    const char *argv[32] = { "/usr/bin/git", "-C", dir };
    const char *env[] = { "PATH=/usr/bin:/bin", "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1",
                          "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@t", "GIT_COMMITTER_NAME=t",
                          "GIT_COMMITTER_EMAIL=t@t", "GIT_AUTHOR_DATE=1700000000 +0000",
                          "GIT_COMMITTER_DATE=1700000000 +0000", "LC_ALL=C", NULL };
    _cleanup_(buf_dispose) memfs_buf tail = MEMFS_BUF_INIT(65536);
    process_spec spec = { .argv = argv, .env = env };
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n = 3;
    memfs_code rc;

    while (*args != NULL && n < ARRAY_LEN(argv) - 1)
        argv[n++] = *args++;
    rc = process_run(&spec, input, out, &tail, 60000, &err);
    if (rc < 0)
        print_message("git %s: %s\n", argv[3], tail.ptr);
    return rc;
}

#define git(dir, ...)                                                                              \
    do {                                                                                           \
        _cleanup_(buf_dispose) memfs_buf out_ = MEMFS_BUF_INIT(1u << 20);                          \
        const char *const args_[] = { __VA_ARGS__, NULL };                                         \
        assert_int_equal(git_in(dir, MEMFS_STR(""), &out_, args_), MEMFS_OK);                      \
    } while (0)

static inline memfs_oid git_id(const char *dir, const char *rev)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    const char *const args[] = { "rev-parse", "--verify", "-q", rev, NULL };
    memfs_oid id = { { 0 } };

    assert_int_equal(git_in(dir, MEMFS_STR(""), &out, args), MEMFS_OK);
    assert_true(oid_parse(str_make(out.ptr, MEMFS_OID_HEX), &id));
    return id;
}

static inline void put_file(const char *dir, const char *path, memfs_str bytes)
{
    _cleanup_(mem_freep) char *full = mem_printf("%s/%s", dir, path);
    _cleanup_(mem_freep) char *folder = mem_strndup(full, (size_t)(strrchr(full, '/') - full));

    OK(fs_mkdirs(folder, &err));
    OK(fs_write_atomic(full, bytes, 0644, &err));
}

static inline void drop_file(const char *dir, const char *path)
{
    _cleanup_(mem_freep) char *full = mem_printf("%s/%s", dir, path);

    OK(fs_remove_tree(full, &err));
}

static inline memfs_oid commit_all(const char *dir, const char *message)
{
    git(dir, "add", "-A");
    git(dir, "commit", "-q", "--allow-empty", "-m", message);
    return git_id(dir, "HEAD");
}

/* What a push from old to new sends. */
static inline void make_pack(const char *dir, const memfs_oid *old, const memfs_oid *new,
                             memfs_buf *out)
{
    const char *const args[] = { "pack-objects", "--revs", "--thin", "--stdout", "-q", NULL };
    char from[MEMFS_OID_HEX + 1], to[MEMFS_OID_HEX + 1], revs[128];

    oid_hex(old, from);
    oid_hex(new, to);
    snprintf(revs, sizeof(revs), "%s\n^%s\n", to, from);
    assert_int_equal(git_in(dir, str_of(revs), out, args), MEMFS_OK);
}

/* ---- pushes ---- */

static inline void on_talk(memfs_str text, void *ctx)
{
    memfs_buf *talk = ctx;

    buf_add_str(talk, text);
    buf_putc(talk, '\n');
}

static inline memfs_code push_pack_as(home *h, memfs_str id, push_read_only rule,
                                      push_command command, memfs_str pack, memfs_buf *talk,
                                      push_verdict *ret, memfs_error *err)
{
    store_identity who = { "tester", "t@t", 1700000000 };
    push *p = NULL;
    memfs_error ignored;
    memfs_code rc;

    rc = push_begin(h, id, &command, false, on_talk, talk, &p, err);
    if (rc < 0)
        return rc;
    push_set_read_only(p, rule);
    for (size_t at = 0; at < pack.len; at += 1000) {
        size_t n = pack.len - at < 1000 ? pack.len - at : 1000;

        if (push_feed(p, pack.ptr + at, n, &ignored) < 0)
            break;
    }
    push_finish(p, &who, ret);
    push_free(p);
    return MEMFS_OK;
}

static inline memfs_code push_pack(home *h, memfs_str id, push_command command, memfs_str pack,
                                   memfs_buf *talk, push_verdict *ret, memfs_error *err)
{
    return push_pack_as(h, id, PUSH_READ_ONLY_MAY, command, pack, talk, ret, err);
}

/* From the base that the client has; zero bytes when there is nothing to send. */
static inline push_verdict try_push_as(fixture *f, memfs_str id, push_read_only rule,
                                       memfs_oid old, memfs_oid new)
{
    _cleanup_(buf_dispose) memfs_buf pack = MEMFS_BUF_INIT(64u << 20);
    push_verdict v;

    buf_clear(&f->talk);
    make_pack(f->work, &old, &new, &pack);
    OK(push_pack_as(f->h, id, rule, (push_command){ old, new, MEMFS_STR(STORE_MAIN) },
                    buf_str(&pack), &f->talk, &v, &err));
    return v;
}

static inline push_verdict try_push(fixture *f, memfs_str id, memfs_oid old, memfs_oid new)
{
    return try_push_as(f, id, PUSH_READ_ONLY_MAY, old, new);
}

static inline memfs_oid tip_of(fixture *f, memfs_str id)
{
    memfs_oid tip = STORE_GENESIS;
    memfs_error ignored;
    agent *a;

    if (home_agent_repo(f->h, id, &a, &ignored) == MEMFS_OK)
        OK(store_tip(home_store(f->h), agent_repo(a), &tip, &err));
    return tip;
}

/* Commits what the clone holds and pushes it; must succeed. */
static inline memfs_oid push_work(fixture *f, memfs_str id)
{
    memfs_oid old = tip_of(f, id);
    memfs_oid new = commit_all(f->work, "change");
    push_verdict v = try_push(f, id, old, new);

    if (!v.moved)
        fail_msg("refused: %s %s", v.unpack_error, v.refusal);
    return new;
}

/* ---- rows ---- */

static inline memfs_code dump_row(const block_row *r, void *ctx, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];
    memfs_buf *out = ctx;

    (void)err;
    oid_hex(&r->blob, hex);
    buf_printf(out, "%.*s|%.*s|%.*s|", (int)r->path.len, r->path.ptr, (int)r->label.len,
               r->label.ptr, (int)r->id.len, r->id.ptr);
    buf_add_str(out, r->value);
    buf_printf(out, "|%d|%.*s|%lld|%d|%.*s|%.*s|%d|%.*s|%s|%lld|%lld|%lld\n", r->has_description,
               (int)r->description.len, r->description.ptr, (long long)r->limit, r->read_only,
               (int)r->metadata_json.len, r->metadata_json.ptr, (int)r->tags_json.len,
               r->tags_json.ptr, r->hidden, (int)r->problem.len, r->problem.ptr, hex,
               (long long)r->bytes, (long long)r->created_at_us, (long long)r->updated_at_us);
    return MEMFS_OK;
}

/* Every field of every row, and the tip.  Empty: never synced. */
static inline void dump(fixture *f, memfs_str id, memfs_buf *out)
{
    block_query q = { .agent_id = id, .show_hidden = true, .order = BLOCK_ORDER_PATH };
    char hex[MEMFS_OID_HEX + 1];
    cache_tip tip;
    memfs_error err;

    buf_clear(out);
    if (cache_agent_blocks(home_cache(f->h), &q, &tip, dump_row, out, &err) < 0)
        return;
    oid_hex(&tip.commit, hex);
    buf_printf(out, "tip %s\n", hex);
}

static inline memfs_code take_value(const block_row *r, void *ctx, memfs_error *err)
{
    (void)err;
    buf_clear(ctx);
    buf_add_str(ctx, r->value);
    return MEMFS_OK;
}

/* The value of one block; "<none>" when there is none. */
static inline const char *value_of(fixture *f, memfs_str id, const char *label, memfs_buf *out)
{
    block_query q = { .agent_id = id, .label = str_of(label), .show_hidden = true };

    buf_clear(out);
    buf_puts(out, "<none>");
    OK(cache_blocks(home_cache(f->h), &q, take_value, out, &err));
    return out->ptr;
}

static inline int64_t n_blocks(fixture *f, memfs_str id)
{
    block_query q = { .agent_id = id, .show_hidden = true };
    int64_t n = -1;

    OK(cache_count(home_cache(f->h), &q, &n, &err));
    return n;
}

/* ---- set-up ---- */

static inline void open_home(fixture *f)
{
    OK(home_open(&f->options, &f->h, &err));
}

static inline void close_home(fixture *f)
{
    home_close(f->h);
    f->h = NULL;
}

static inline void reopen_home(fixture *f)
{
    close_home(f);
    open_home(f);
}

static inline int fixture_begin(void **state)
{
    fixture *f = mem_alloc(sizeof(*f));

    snprintf(f->root, sizeof(f->root), "/tmp/memfs-sync-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    f->path = mem_printf("%s/home", f->root);
    f->work = mem_printf("%s/work", f->root);
    f->options = (home_options)HOME_OPTIONS_INIT;
    f->options.path = f->path;
    f->options.alarm = on_alarm;
    f->options.alarm_ctx = f;
    f->alarms = (memfs_buf)MEMFS_BUF_INIT(1u << 20);
    f->talk = (memfs_buf)MEMFS_BUF_INIT(1u << 20);
    pthread_mutex_init(&f->mutex, NULL);
    open_home(f);
    git(f->root, "clone", "-q", store_genesis_path(home_store(f->h)), f->work);
    *state = f;
    return 0;
}

/* D6: what a test leaves is whole, unless it says that it broke it. */
static inline int fixture_end(void **state)
{
    fixture *f = *state;

    if (f->h != NULL && !f->is_broken && store_has(home_store(f->h), REPO_A))
        OK(store_fsck(home_store(f->h), REPO_A, &err));
    home_close(f->h);
    OK(fs_remove_tree(f->root, &err));
    buf_dispose(&f->alarms);
    buf_dispose(&f->talk);
    pthread_mutex_destroy(&f->mutex);
    free(f->path);
    free(f->work);
    free(f);
    return 0;
}

#define SYNC_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_begin, fixture_end)

#endif
