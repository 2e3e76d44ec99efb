/*
 * Linked working trees: git takes them for its own, and nothing in them is thrown away unasked.
 */
#include "checkout_support.h"

#include "store/checkout.h"

#include <pthread.h>

static checkout *made(work *w)
{
    checkout *c = NULL;

    assert_ok(w, checkout_create(w->tree, false, &w->err));
    put(w, w->tree, "system/human.md", "human\n");
    put(w, w->tree, "a b/ü.md", "x\n");
    commit_all_by_git(w, w->tree, "files");
    assert_ok(w, checkout_open(w->tree, &c, &w->err));
    return c;
}

static char *path_of(work *w, const char *name)
{
    return mem_printf("%s/trees/%s", w->root, name);
}

static memfs_code add(work *w, checkout *c, const char *path, const char *branch)
{
    memfs_oid head = git_id(w, w->tree, "main");

    return checkout_worktree_add(c, path, branch, &head, &w->err);
}

static void assert_clean(work *w, const char *tree)
{
    _cleanup_(mem_freep) char *said = git_says(w, tree, "status", "--porcelain", "-uall");

    assert_string_equal(said, "");
    git(w, tree, "fsck", "--full", "--strict", "--no-dangling");
}

static memfs_code gather(const char *path, const char *branch, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%s %s\n", strrchr(path, '/') + 1, branch);
    return MEMFS_OK;
}

static void assert_listed(work *w, checkout *c, const char *wanted)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 16);

    assert_ok(w, checkout_each_worktree(c, gather, &out, &w->err));
    assert_string_equal(out.ptr, wanted);
}

static void test_git_takes_one_for_its_own(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = made(w), *linked = NULL;
    _cleanup_(mem_freep) char *path = path_of(w, "reflection-1"), *trees = NULL;
    _cleanup_(mem_freep) char *said = NULL, *log = NULL;
    checkout_state s;

    assert_ok(w, add(w, c, path, "letta/reflection/1"));
    assert_text(w, path, "system/human.md", "human\n");
    assert_clean(w, path);
    assert_clean(w, w->tree);
    assert_listed(w, c, "reflection-1 letta/reflection/1\n");
    said = git_says(w, w->tree, "worktree", "list", "--porcelain");
    assert_non_null(strstr(said, path));
    assert_non_null(strstr(said, "branch refs/heads/letta/reflection/1"));
    assert_null(strstr(said, "prunable"));
    assert_ok(w, checkout_open(path, &linked, &w->err));
    assert_ok(w, checkout_inspect(linked, &s, &w->err));
    assert_string_equal(s.branch, "letta/reflection/1");
    put(w, path, "system/human.md", "changed\n");
    commit_all_by_git(w, path, "in the worktree");
    log = git_says(w, path, "reflog", "--format=%gs");
    assert_string_equal(log, "commit: in the worktree\nworktree add\n");
    git(w, w->tree, "merge", "-q", "letta/reflection/1");
    assert_text(w, w->tree, "system/human.md", "changed\n");
    trees = mem_printf("%s/trees", w->root);
    assert_false(has_prefix(trees, "reflection-1.memfs-"));
    git(w, w->tree, "worktree", "remove", path); /* git can remove what we made */
    assert_listed(w, c, "");
}

static void test_what_is_there_is_not_replaced(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = made(w);
    _cleanup_(mem_freep) char *path = path_of(w, "one"), *other = path_of(w, "two");

    put(w, path, "mine", "x");
    assert_code(w, MEMFS_EEXISTS, add(w, c, path, "letta/one"));
    assert_text(w, path, "mine", "x");
    git(w, w->tree, "branch", "letta/one");
    assert_code(w, MEMFS_EEXISTS, add(w, c, other, "letta/one"));
    assert_false(fs_exists(other));
    assert_code(w, MEMFS_EINVALID, add(w, c, "relative", "letta/x"));
    assert_code(w, MEMFS_EINVALID, add(w, c, other, "bad..name"));
    assert_false(fs_exists(other));
    assert_listed(w, c, "");
}

static void test_equal_names_in_different_folders_get_their_own_registration(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = made(w);
    _cleanup_(mem_freep) char *one = path_of(w, "x/same"), *two = path_of(w, "y/same");

    assert_ok(w, add(w, c, one, "letta/1"));
    assert_ok(w, add(w, c, two, "letta/2"));
    assert_clean(w, one);
    assert_clean(w, two);
    assert_listed(w, c, "same letta/1\nsame letta/2\n");
}

static void test_removing_refuses_to_lose_work(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = made(w);
    _cleanup_(mem_freep) char *path = path_of(w, "one"), *gone = path_of(w, "one/untracked.md");
    _cleanup_(mem_freep) char *branches = NULL;

    assert_ok(w, add(w, c, path, "letta/one"));
    put(w, path, "untracked.md", "mine\n");
    assert_code(w, MEMFS_ECONFLICT, checkout_worktree_remove(c, path, false, &w->err));
    assert_text(w, path, "untracked.md", "mine\n");
    assert_int_equal(unlink(gone), 0);
    put(w, path, "system/human.md", "mine\n");
    assert_code(w, MEMFS_ECONFLICT, checkout_worktree_remove(c, path, false, &w->err));
    assert_says(w, "system/human.md");
    git(w, path, "checkout", "-q", ".");
    git(w, w->tree, "worktree", "lock", path);
    assert_code(w, MEMFS_ECONFLICT, checkout_worktree_remove(c, path, false, &w->err));
    git(w, w->tree, "worktree", "unlock", path);
    assert_ok(w, checkout_worktree_remove(c, path, false, &w->err));
    assert_false(fs_exists(path));
    branches = git_says(w, w->tree, "branch", "--list", "letta/one", "--format=%(refname:short)");
    assert_string_equal(branches, "letta/one\n"); /* the branch stays */
    git(w, w->tree, "branch", "-q", "-d", "letta/one");
    assert_code(w, MEMFS_ENOTFOUND, checkout_worktree_remove(c, path, false, &w->err));
    assert_clean(w, w->tree);
}

static void test_force_removes_it_as_it_is(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = made(w);
    _cleanup_(mem_freep) char *path = path_of(w, "one"), *said = NULL, *trees = path_of(w, "");

    assert_ok(w, add(w, c, path, "letta/one"));
    put(w, path, "untracked.md", "mine\n");
    assert_ok(w, checkout_worktree_remove(c, path, true, &w->err));
    assert_false(has_prefix(trees, "one"));
    said = git_says(w, w->tree, "worktree", "list", "--porcelain");
    assert_null(strstr(said, "letta/one"));
}

static void test_a_folder_that_was_deleted_by_hand_is_no_working_tree(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = made(w);
    _cleanup_(mem_freep) char *path = path_of(w, "one");

    assert_ok(w, add(w, c, path, "letta/one"));
    assert_ok(w, fs_remove_tree(path, &w->err));
    assert_listed(w, c, "");
    assert_ok(w, checkout_worktree_remove(c, path, false, &w->err)); /* its registration */
    git(w, w->tree, "branch", "-q", "-D", "letta/one");
}

static void test_what_a_crash_left_is_swept_by_the_next(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = made(w);
    _cleanup_(mem_freep) char *path = path_of(w, "next"), *stage = path_of(w, "dead.memfs-012abc");
    _cleanup_(mem_freep) char *note = mem_printf("%s\n", stage);
    _cleanup_(mem_freep) char *git_file = mem_printf("%s/trees/dead/.git\n", w->root);

    put(w, stage, "half", "x");
    put(w, w->root, "trees/mine.memfs-notours/x", "x");
    put(w, w->tree, ".git/worktrees/dead/gitdir", git_file);
    put(w, w->tree, ".git/worktrees/dead/HEAD", "ref: refs/heads/letta/dead\n");
    put(w, w->tree, ".git/worktrees/dead/commondir", "../..\n");
    put(w, w->tree, ".git/worktrees/dead/memfs-stage", note);
    assert_ok(w, add(w, c, path, "letta/next"));
    assert_false(fs_exists(stage));
    assert_true(has(w, w->root, "trees/mine.memfs-notours/x"));
    assert_false(has(w, w->tree, ".git/worktrees/dead"));
    assert_clean(w, path);
}

typedef struct writer {
    work *w;
    memfs_oid main;
    int number;
    memfs_error err;
    memfs_code rc;
} writer;

static void *write_one(void *ctx)
{
    writer *a = ctx;
    _cleanup_(checkout_closep) checkout *c = NULL;
    _cleanup_(mem_freep) char *name = mem_printf("writer-%d", a->number);
    _cleanup_(mem_freep) char *path = path_of(a->w, name), *branch = mem_printf("letta/%s", name);

    a->rc = checkout_open(a->w->tree, &c, &a->err);
    if (a->rc == MEMFS_OK)
        a->rc = checkout_worktree_add(c, path, branch, &a->main, &a->err);
    if (a->rc == MEMFS_OK && a->number % 2)
        a->rc = checkout_worktree_remove(c, path, false, &a->err);
    return NULL;
}

static void test_16_at_once_do_not_meet(void **state)
{
    enum { N = 16 };
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = made(w);
    writer all[N];
    pthread_t threads[N];

    for (int i = 0; i < N; i++) {
        all[i] = (writer){ .w = w, .number = i, .main = git_id(w, w->tree, "main") };
        assert_int_equal(pthread_create(&threads[i], NULL, write_one, &all[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        if (all[i].rc != MEMFS_OK)
            fail_msg("writer %d: %s", i, all[i].err.msg);
    }
    for (int i = 0; i < N; i += 2) {
        _cleanup_(mem_freep) char *name = mem_printf("writer-%d", i);
        _cleanup_(mem_freep) char *path = path_of(w, name);

        assert_clean(w, path);
    }
    assert_clean(w, w->tree);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, work_setup, work_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_git_takes_one_for_its_own),
        TEST(test_what_is_there_is_not_replaced),
        TEST(test_equal_names_in_different_folders_get_their_own_registration),
        TEST(test_removing_refuses_to_lose_work),
        TEST(test_force_removes_it_as_it_is),
        TEST(test_a_folder_that_was_deleted_by_hand_is_no_working_tree),
        TEST(test_what_a_crash_left_is_swept_by_the_next),
        TEST(test_16_at_once_do_not_meet),
    };

    return cmocka_run_group_tests_name("checkout_worktree", tests, NULL, NULL);
}
