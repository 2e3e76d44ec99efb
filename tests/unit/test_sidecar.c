/*
 * refs/memfs/meta, and commits made of their parts.
 */
#include "remote_support.h"

#include "store/fetched.h"
#include "store/git_child.h"
#include "store/history.h"
#include "store/rewrite.h"
#include "store/sidecar.h"

#include <errno.h>
#include <poll.h>

#define FILE_NAME "agent.json"
static const memfs_oid NONE;

static void begin(fixture *f)
{
    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "system/human.md", "hello\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
}

static memfs_oid write_to(fixture *f, const char *name, const memfs_oid *theirs, const char *text)
{
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_oid id;

    assert_ok(f, repo_open(f->s, name, &r, &f->err));
    assert_ok(f, sidecar_write(r, theirs, FILE_NAME, str_of(text), &id, &f->err));
    return id;
}

static memfs_oid tip_in(fixture *f, const char *name)
{
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_oid id;

    assert_ok(f, repo_open(f->s, name, &r, &f->err));
    assert_ok(f, sidecar_tip(r, &id, &f->err));
    return id;
}

static void assert_text(fixture *f, const memfs_oid *commit, const char *text)
{
    _cleanup_(repo_closep) repo *r = NULL;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);

    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, sidecar_read(r, commit, FILE_NAME, 4096, &out, &f->err));
    assert_string_equal(out.ptr, text);
}

static void test_a_text_is_written_read_and_not_written_twice(void **state)
{
    fixture *f = *state;
    memfs_oid one, two, main_tip;

    begin(f);
    main_tip = tip_of(f, AGENT);
    one = tip_in(f, AGENT);
    assert_true(oid_is_zero(&one));
    one = write_to(f, AGENT, &NONE, "{\"a\":1}");
    assert_text(f, &one, "{\"a\":1}");
    two = write_to(f, AGENT, &NONE, "{\"a\":1}");
    assert_true(oid_equal(&one, &two));
    two = write_to(f, AGENT, &one, "{\"a\":2}");
    assert_false(oid_equal(&one, &two));
    assert_text(f, &two, "{\"a\":2}");
    one = tip_in(f, AGENT);
    assert_true(oid_equal(&one, &two));
    one = tip_of(f, AGENT);
    assert_true(oid_equal(&one, &main_tip));
    assert_whole(f, AGENT);
}

/* Two servers, no clock between them. */
static void test_F28_the_same_text_over_the_same_tips_is_the_same_commit(void **state)
{
    fixture *f = *state;
    memfs_oid here, there;

    begin(f);
    assert_ok(f, push_head(f, f->work, OTHER, NULL));
    here = write_to(f, AGENT, &NONE, "{}");
    there = write_to(f, OTHER, &NONE, "{}");
    assert_true(oid_equal(&here, &there));
    here = write_to(f, AGENT, &here, "{\"v\":1}");
    there = write_to(f, OTHER, &there, "{\"v\":1}");
    assert_true(oid_equal(&here, &there));
}

/* Over a remote: pushed there, fetched, taken in. */
static void bring(fixture *f, const char *from, const char *to, const memfs_oid *id)
{
    _cleanup_(fetched_freep) fetched *in = NULL;
    char *path = store_path(f->s, from), *remote;
    transport_target target;
    transport_report report;
    memfs_oid got;

    remote = remote_make(f, strcmp(to, AGENT) == 0 ? "one" : "two");
    target = remote_target_of(remote);
    assert_ok(f, transport_push_ref(path, &target, STORE_META, id, SOON, &report, &f->err));
    assert_ok(f, fetched_begin(f->s, to, &in, &f->err));
    assert_ok(f, fetched_fetch(in, &target, STORE_META, 0, SOON, &got, &report, &f->err));
    assert_true(oid_equal(&got, id));
    assert_ok(f, fetched_accept(in, &got, &f->err));
    free(path);
    free(remote);
}

static void test_what_has_parted_is_joined_whoever_does_it(void **state)
{
    fixture *f = *state;
    memfs_oid here, there, one, two;

    begin(f);
    assert_ok(f, push_head(f, f->work, OTHER, NULL));
    here = write_to(f, AGENT, &NONE, "{\"from\":\"here\"}");
    there = write_to(f, OTHER, &NONE, "{\"from\":\"there\"}");
    bring(f, OTHER, AGENT, &there);
    bring(f, AGENT, OTHER, &here);
    one = write_to(f, AGENT, &there, "{\"from\":\"both\"}");
    two = write_to(f, OTHER, &here, "{\"from\":\"both\"}");
    assert_true(oid_equal(&one, &two));
    assert_whole(f, AGENT);
    assert_whole(f, OTHER);
    two = write_to(f, AGENT, &there, "{\"from\":\"both\"}"); /* theirs is in ours already */
    assert_true(oid_equal(&one, &two));
}

static void test_theirs_is_followed_when_it_says_the_same(void **state)
{
    fixture *f = *state;
    memfs_oid there, now;

    begin(f);
    assert_ok(f, push_head(f, f->work, OTHER, NULL));
    write_to(f, OTHER, &NONE, "{\"v\":1}");
    there = write_to(f, OTHER, &NONE, "{\"v\":2}");
    bring(f, OTHER, AGENT, &there);
    now = write_to(f, AGENT, &there, "{\"v\":2}");
    assert_true(oid_equal(&now, &there));
    now = tip_in(f, AGENT);
    assert_true(oid_equal(&now, &there));
    assert_whole(f, AGENT);
}

static void test_hostile_sidecars_are_bounded(void **state)
{
    fixture *f = *state;
    _cleanup_(repo_closep) repo *r = NULL;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    static const char *const bad[] = { "", "a/b", ".git", ".." };
    memfs_oid id, tip;

    begin(f);
    id = write_to(f, AGENT, &NONE, "{\"text\":\"long enough\"}");
    tip = tip_of(f, AGENT);
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_code(f, MEMFS_ELIMIT, sidecar_read(r, &id, FILE_NAME, 4, &out, &f->err));
    assert_code(f, MEMFS_ENOTFOUND, sidecar_read(r, &id, "other", 4096, &out, &f->err));
    assert_code(f, MEMFS_ENOTFOUND, sidecar_read(r, &tip, "system", 4096, &out, &f->err));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_code(f, MEMFS_EINVALID,
                    sidecar_write(r, &NONE, bad[i], MEMFS_STR("x"), &id, &f->err));
}

/* Repacking keeps it, and so does a purge, which takes main's past away. */
static void test_upkeep_keeps_what_it_reaches(void **state)
{
    fixture *f = *state;
    memfs_oid one, two;

    begin(f);
    write_to(f, AGENT, &NONE, "{\"v\":1}");
    one = write_to(f, AGENT, &NONE, "{\"v\":2}");
    for (int i = 0; i < 4; i++) {
        char name[32];

        snprintf(name, sizeof(name), "notes/%d.md", i);
        work_commit(f, f->work, name, name);
        assert_ok(f, push_head(f, f->work, AGENT, NULL));
    }
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    assert_text(f, &one, "{\"v\":2}");
    assert_ok(f, store_drop_old(f->s, AGENT, &f->err));
    two = tip_in(f, AGENT);
    assert_true(oid_equal(&one, &two));
    assert_text(f, &one, "{\"v\":2}");
    assert_whole(f, AGENT);
    two = write_to(f, AGENT, &NONE, "{\"v\":3}");
    assert_text(f, &two, "{\"v\":3}");
    assert_whole(f, AGENT);
}

/* A hand that ran `git pack-refs --all` there (F14). */
static void test_a_packed_ref_is_found_moved_and_kept(void **state)
{
    fixture *f = *state;
    char *path = store_path(f->s, AGENT);
    memfs_oid one, two;

    begin(f);
    one = write_to(f, AGENT, &NONE, "{\"v\":1}");
    git(f, path, "pack-refs", "--all");
    two = tip_in(f, AGENT);
    assert_true(oid_equal(&one, &two));
    assert_ok(f, store_drop_old(f->s, AGENT, &f->err));
    two = tip_in(f, AGENT);
    assert_true(oid_equal(&one, &two));
    two = write_to(f, AGENT, &NONE, "{\"v\":2}");
    assert_text(f, &two, "{\"v\":2}");
    assert_whole(f, AGENT);
    free(path);
}

/* upload-pack as the server starts it, asked for everything it would list. */
static void ask_upload_pack(fixture *f, const char *protocol, const char *question, memfs_buf *out)
{
    _cleanup_(process_dispose) process p = PROCESS_INIT;
    int64_t deadline_ms = SOON;
    char chunk[4096];
    int status;

    assert_ok(f, git_upload_pack_start(f->s, AGENT, protocol, &p, &f->err));
    assert_int_equal(process_write(&p, question, strlen(question)), strlen(question));
    process_close_in(&p);
    for (;;) {
        struct pollfd fd = { p.out, POLLIN, 0 };
        ssize_t n;

        assert_true(clock_mono_ms() < deadline_ms && poll(&fd, 1, 1000) >= 0);
        n = read(p.out, chunk, sizeof(chunk));
        if (n == 0)
            break;
        if (n > 0)
            buf_add(out, chunk, (size_t)n);
        else
            assert_true(errno == EAGAIN || errno == EINTR);
    }
    assert_ok(f, process_wait(&p, deadline_ms, &status, &f->err));
}

static void test_H6_no_client_sees_it_or_asks_for_it_by_name(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *protocol, *question;
    } rows[] = {
        { "version=2", "0014command=ls-refs\n00010000" },
        { "version=2", "0014command=ls-refs\n0001001fref-prefix refs/memfs/meta\n0000" },
        { "version=2", "0012command=fetch\n0001001dwant-ref refs/memfs/meta\n0009done\n0000" },
    };
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid id;

    begin(f);
    id = write_to(f, AGENT, &NONE, "{\"v\":1}");
    oid_hex(&id, hex);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);

        ask_upload_pack(f, rows[i].protocol, rows[i].question, &out);
        assert_null(memmem(out.ptr, out.len, hex, MEMFS_OID_HEX));
        assert_null(memmem(out.ptr, out.len, "packfile", 8));
        if (i == 0)
            assert_non_null(memmem(out.ptr, out.len, STORE_MAIN, strlen(STORE_MAIN)));
    }
}

/* ---- a commit of its parts ---- */

static void test_a_commit_is_a_pure_function_of_its_parts(void **state)
{
    fixture *f = *state;
    _cleanup_(repo_closep) repo *r = NULL;
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    store_identity who = { " <odd>\nname ", "", 5 };
    memfs_oid tree, parents[4] = { { { 0 } } }, one, two;

    begin(f);
    work_commit(f, f->work, "notes/a.md", "a\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    tree = git_id(f, f->work, "HEAD~1^{tree}");
    parents[1] = git_id(f, f->work, "HEAD");
    parents[2] = git_id(f, f->work, "HEAD~1");
    parents[3] = parents[1];
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, repo_commit_tree(r, &tree, parents, 4, NULL, MEMFS_STR("why"), &one, &f->err));
    assert_ok(f, repo_commit_tree(r, &tree, parents, 4, NULL, MEMFS_STR("why\n"), &two, &f->err));
    assert_true(oid_equal(&one, &two));
    assert_ok(f, repo_commit_info(r, &one, &info, &f->err));
    assert_int_equal(info.n_parents, 2);
    assert_true(oid_equal(&info.parents[0], &parents[1]));
    assert_true(oid_equal(&info.tree, &tree));
    assert_true(info.committer_time_s > 1500000000);
    commit_info_dispose(&info);
    assert_ok(f, repo_commit_tree(r, &tree, parents, 2, &who, MEMFS_STR(""), &two, &f->err));
    assert_ok(f, repo_commit_info(r, &two, &info, &f->err));
    assert_true(str_equal(info.author_name, MEMFS_STR("oddname")));
    assert_int_equal(info.committer_time_s, 5);
    assert_ok(f, repo_ref_move(r, &parents[1], &two, &WHO, "restore", &f->err));
    assert_whole(f, AGENT);
    assert_code(f, MEMFS_ECORRUPT, repo_commit_tree(r, &parents[1], parents, 2, NULL,
                                                    MEMFS_STR("x"), &two, &f->err));
    assert_code(f, MEMFS_ECORRUPT, repo_commit_tree(r, &tree, &tree, 1, NULL, MEMFS_STR("x"), &two,
                                                    &f->err));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_text_is_written_read_and_not_written_twice),
        TEST(test_F28_the_same_text_over_the_same_tips_is_the_same_commit),
        TEST(test_what_has_parted_is_joined_whoever_does_it),
        TEST(test_theirs_is_followed_when_it_says_the_same),
        TEST(test_hostile_sidecars_are_bounded),
        TEST(test_upkeep_keeps_what_it_reaches),
        TEST(test_a_packed_ref_is_found_moved_and_kept),
        TEST(test_H6_no_client_sees_it_or_asks_for_it_by_name),
        TEST(test_a_commit_is_a_pure_function_of_its_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
