/*
 * What a tip has that others have not, in repositories that git itself made.
 */
#include "store_support.h"

#include "store/checkout.h"
#include "store/lost.h"

/* f->work is a repository of git's on main with one commit. */
static int set_up(void **state)
{
    fixture *f;

    fixture_setup(state);
    f = *state;
    git(f, "/", "init", "-q", "-b", "main", f->work);
    work_commit(f, f->work, "a.md", "one\ntwo\nthree\nfour\nfive\nsix\nseven\n");
    return 0;
}

static size_t lost(fixture *f, const char *tip, const char *kept, memfs_oid *ret_first)
{
    _cleanup_(checkout_closep) checkout *c = NULL;
    memfs_oid from = git_id(f, f->work, tip), other = git_id(f, f->work, kept), first[4];
    size_t n = 777;

    assert_ok(f, checkout_open(f->work, &c, &f->err));
    assert_ok(
        f, lost_commits(checkout_repo(c), &from, &other, 1, first, ARRAY_LEN(first), &n, &f->err));
    if (ret_first != NULL && n > 0)
        *ret_first = first[0];
    return n;
}

static void what_is_reached_is_not_lost(void **state)
{
    fixture *f = *state;

    git(f, f->work, "branch", "old");
    work_commit(f, f->work, "b.md", "b\n");
    assert_int_equal(lost(f, "old", "main", NULL), 0);
    assert_int_equal(lost(f, "main", "main", NULL), 0);
}

static void what_is_not_reached_is_lost_newest_first(void **state)
{
    fixture *f = *state;
    memfs_oid first, tip;

    git(f, f->work, "checkout", "-q", "-b", "side");
    work_commit(f, f->work, "b.md", "b\n");
    work_commit(f, f->work, "c.md", "c\n");
    tip = git_id(f, f->work, "side");
    assert_int_equal(lost(f, "side", "main", &first), 2);
    assert_true(oid_equal(&first, &tip));
}

static void a_rebased_change_lives_on(void **state)
{
    fixture *f = *state;

    git(f, f->work, "checkout", "-q", "-b", "side");
    work_commit(f, f->work, "a.md", "ONE\ntwo\nthree\nfour\nfive\nsix\nseven\n");
    git(f, f->work, "branch", "kept");
    git(f, f->work, "checkout", "-q", "main");
    work_commit(f, f->work, "a.md", "one\ntwo\nthree\nfour\nfive\nsix\nSEVEN\n");
    git(f, f->work, "checkout", "-q", "side");
    git(f, f->work, "rebase", "-q", "main");
    assert_int_equal(lost(f, "kept", "side", NULL), 0);
    assert_int_equal(lost(f, "kept", "main", NULL), 1);
}

static void other_words_of_the_same_change_are_no_loss(void **state)
{
    fixture *f = *state;

    work_commit(f, f->work, "b.md", "b\n");
    git(f, f->work, "branch", "kept");
    git(f, f->work, "commit", "-q", "--amend", "-m", "said better");
    assert_int_equal(lost(f, "kept", "main", NULL), 0);
}

static void an_amended_change_is_lost(void **state)
{
    fixture *f = *state;

    work_commit(f, f->work, "b.md", "b\n");
    git(f, f->work, "branch", "kept");
    work_write(f, f->work, "b.md", MEMFS_STR("c\n"));
    git(f, f->work, "commit", "-q", "-a", "--amend", "-m", "other");
    assert_int_equal(lost(f, "kept", "main", NULL), 1);
}

/* In a list, blanks at the front are the meaning; git patch-id would call these equal. */
static void blanks_count(void **state)
{
    fixture *f = *state;

    work_commit(f, f->work, "b.md", "- a\n  - b\n");
    git(f, f->work, "branch", "kept");
    work_write(f, f->work, "b.md", MEMFS_STR("- a\n- b\n"));
    git(f, f->work, "commit", "-q", "-a", "--amend", "-m", "other");
    assert_int_equal(lost(f, "kept", "main", NULL), 1);
}

static void binary_bytes_and_modes_count(void **state)
{
    fixture *f = *state;

    work_write(f, f->work, "b.bin", str_make("\0\1\2\n", 4));
    git(f, f->work, "add", "b.bin");
    git(f, f->work, "commit", "-q", "-m", "b");
    git(f, f->work, "branch", "kept");
    work_write(f, f->work, "b.bin", str_make("\0\1\3\n", 4));
    git(f, f->work, "commit", "-q", "-a", "--amend", "-m", "b");
    assert_int_equal(lost(f, "kept", "main", NULL), 1);
    git(f, f->work, "branch", "again");
    git(f, f->work, "update-index", "--chmod=+x", "b.bin");
    git(f, f->work, "commit", "-q", "--amend", "-m", "b");
    assert_int_equal(lost(f, "again", "main", NULL), 1);
}

/* "No newline at the end" is part of a change too. */
static void the_end_of_a_file_counts(void **state)
{
    fixture *f = *state;

    work_commit(f, f->work, "b.md", "b");
    git(f, f->work, "branch", "kept");
    work_write(f, f->work, "b.md", MEMFS_STR("b\n"));
    git(f, f->work, "commit", "-q", "-a", "--amend", "-m", "b");
    assert_int_equal(lost(f, "kept", "main", NULL), 1);
}

static void a_commit_without_a_change_has_nothing_to_lose(void **state)
{
    fixture *f = *state;

    git(f, f->work, "branch", "kept");
    git(f, f->work, "checkout", "-q", "kept");
    git(f, f->work, "commit", "-q", "--allow-empty", "-m", "nothing");
    assert_int_equal(lost(f, "kept", "main", NULL), 0);
}

static void a_deleted_file_is_a_change(void **state)
{
    fixture *f = *state;

    git(f, f->work, "checkout", "-q", "-b", "kept");
    git(f, f->work, "rm", "-q", "a.md");
    git(f, f->work, "commit", "-q", "-m", "gone");
    assert_int_equal(lost(f, "kept", "main", NULL), 1);
}

static void a_merge_is_listed(void **state)
{
    fixture *f = *state;

    git(f, f->work, "checkout", "-q", "-b", "side");
    work_commit(f, f->work, "b.md", "b\n");
    git(f, f->work, "checkout", "-q", "main");
    work_commit(f, f->work, "c.md", "c\n");
    git(f, f->work, "branch", "kept");
    git(f, f->work, "checkout", "-q", "kept");
    git(f, f->work, "merge", "-q", "--no-edit", "side");
    git(f, f->work, "checkout", "-q", "main");
    git(f, f->work, "cherry-pick", "side");
    assert_int_equal(lost(f, "kept", "main", NULL), 1); /* the merge; what it merged lives on */
}

static void unrelated_histories_are_compared_too(void **state)
{
    fixture *f = *state;

    git(f, f->work, "checkout", "-q", "--orphan", "other");
    git(f, f->work, "commit", "-q", "-m", "the same files under another root");
    git(f, f->work, "commit", "-q", "--allow-empty", "-m", "nothing");
    assert_int_equal(lost(f, "other", "main", NULL), 0);
    work_commit(f, f->work, "b.md", "b\n");
    assert_int_equal(lost(f, "other", "main", NULL), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_reached_is_not_lost),
        TEST(what_is_not_reached_is_lost_newest_first),
        TEST(a_rebased_change_lives_on),
        TEST(other_words_of_the_same_change_are_no_loss),
        TEST(an_amended_change_is_lost),
        TEST(blanks_count),
        TEST(binary_bytes_and_modes_count),
        TEST(the_end_of_a_file_counts),
        TEST(a_commit_without_a_change_has_nothing_to_lose),
        TEST(a_deleted_file_is_a_change),
        TEST(a_merge_is_listed),
        TEST(unrelated_histories_are_compared_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
