#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct fixture {
    char root[64];
    memfs_error err;
} fixture;

static int setup(void **state)
{
    fixture *f = mem_alloc(sizeof(*f));

    snprintf(f->root, sizeof(f->root), "/tmp/memfs-fs-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;

    assert_int_equal(fs_remove_tree(f->root, &f->err), MEMFS_OK);
    assert_false(fs_exists(f->root));
    free(f);
    return 0;
}

/* A path below the root; four may be in use at once. */
static const char *at(fixture *f, const char *name)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", f->root, name);
    return path;
}

static void put(fixture *f, const char *name, const char *text)
{
    assert_int_equal(fs_write_atomic(at(f, name), str_of(text), 0600, &f->err), MEMFS_OK);
}

static void assert_text(fixture *f, const char *name, const char *text)
{
    _cleanup_(buf_dispose) memfs_buf b = MEMFS_BUF_INIT(1024);

    assert_int_equal(fs_read(at(f, name), &b, &f->err), MEMFS_OK);
    assert_string_equal(b.ptr, text);
}

static void test_a_file_is_replaced_whole(void **state)
{
    fixture *f = *state;

    put(f, "a", "one");
    put(f, "a", "second text");
    assert_text(f, "a", "second text");
}

static void test_S4_the_mode_is_what_was_asked_for_whatever_the_umask(void **state)
{
    fixture *f = *state;
    struct stat st;
    mode_t before = umask(0);

    assert_int_equal(fs_write_atomic(at(f, "secret"), MEMFS_STR("x"), 0600, &f->err), MEMFS_OK);
    umask(0777);
    assert_int_equal(fs_write_atomic(at(f, "open"), MEMFS_STR("x"), 0644, &f->err), MEMFS_OK);
    umask(before);
    assert_int_equal(stat(at(f, "secret"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(at(f, "open"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
}

static void test_reading_stops_at_the_bound(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf small = MEMFS_BUF_INIT(3);

    put(f, "a", "four");
    assert_int_equal(fs_read(at(f, "a"), &small, &f->err), MEMFS_ELIMIT);
    assert_int_equal(fs_read(at(f, "none"), &small, &f->err), MEMFS_ENOTFOUND);
}

static void test_messages_name_no_folder(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf b = MEMFS_BUF_INIT(3);

    assert_int_equal(fs_read(at(f, "none"), &b, &f->err), MEMFS_ENOTFOUND);
    assert_null(strstr(f->err.msg, f->root));
    assert_non_null(strstr(f->err.msg, "'none'"));
}

static void test_D3_a_write_that_fails_leaves_the_old_file_and_no_other(void **state)
{
    fixture *f = *state;
    struct rlimit before, tiny = { 2, RLIM_INFINITY };
    memfs_code rc;

    put(f, "a", "old");
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    tiny.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &tiny);
    rc = fs_write_atomic(at(f, "a"), MEMFS_STR("a longer text"), 0600, &f->err);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_DFL);
    assert_true(rc < 0);
    assert_text(f, "a", "old");
    assert_int_equal(unlink(at(f, "a")), 0);
    assert_int_equal(rmdir(f->root), 0); /* nothing else was in it */
    assert_int_equal(mkdir(f->root, 0700), 0);
}

static void test_folders_are_made_with_all_above(void **state)
{
    fixture *f = *state;

    assert_int_equal(fs_mkdirs(at(f, "x/y//z/"), &f->err), MEMFS_OK);
    assert_int_equal(fs_mkdirs(at(f, "x/y/z"), &f->err), MEMFS_OK);
    assert_true(fs_is_dir(at(f, "x/y/z")));
    put(f, "file", "");
    assert_true(fs_mkdirs(at(f, "file/below"), &f->err) < 0);
    assert_int_equal(fs_mkdirs(at(f, "file"), &f->err), MEMFS_EEXISTS);
}

static void test_removing_follows_no_link(void **state)
{
    fixture *f = *state;

    assert_int_equal(fs_mkdirs(at(f, "kept"), &f->err), MEMFS_OK);
    put(f, "kept/file", "stays");
    assert_int_equal(fs_mkdirs(at(f, "gone/deep/er"), &f->err), MEMFS_OK);
    put(f, "gone/deep/file", "goes");
    assert_int_equal(symlink("../kept", at(f, "gone/link")), 0);
    assert_int_equal(fs_remove_tree(at(f, "gone"), &f->err), MEMFS_OK);
    assert_false(fs_exists(at(f, "gone")));
    assert_text(f, "kept/file", "stays");
    assert_int_equal(fs_remove_tree(at(f, "gone"), &f->err), MEMFS_OK); /* absent is fine */
}

static void test_a_link_to_a_folder_is_removed_itself(void **state)
{
    fixture *f = *state;

    assert_int_equal(fs_mkdirs(at(f, "kept"), &f->err), MEMFS_OK);
    put(f, "kept/file", "stays");
    assert_int_equal(symlink("kept", at(f, "link")), 0);
    assert_true(fs_exists(at(f, "link")));
    assert_int_equal(fs_remove_tree(at(f, "link"), &f->err), MEMFS_OK);
    assert_false(fs_exists(at(f, "link")));
    assert_text(f, "kept/file", "stays");
}

static void test_a_tree_is_copied_with_modes(void **state)
{
    fixture *f = *state;
    struct stat st;

    assert_int_equal(fs_mkdirs(at(f, "a/b"), &f->err), MEMFS_OK);
    put(f, "a/one", "1");
    assert_int_equal(fs_write_atomic(at(f, "a/b/two"), MEMFS_STR("2"), 0444, &f->err), MEMFS_OK);
    assert_int_equal(fs_copy_tree(at(f, "a"), at(f, "c"), &f->err), MEMFS_OK);
    assert_text(f, "c/one", "1");
    assert_text(f, "c/b/two", "2");
    assert_int_equal(stat(at(f, "c/b/two"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0444);
    assert_int_equal(fs_sync_tree(at(f, "c"), &f->err), MEMFS_OK);
    assert_int_equal(fs_copy_tree(at(f, "a"), at(f, "c"), &f->err), MEMFS_EEXISTS);
}

static void test_links_and_special_files_are_not_copied(void **state)
{
    fixture *f = *state;

    assert_int_equal(fs_mkdirs(at(f, "a"), &f->err), MEMFS_OK);
    assert_int_equal(symlink("/etc/passwd", at(f, "a/link")), 0);
    assert_int_equal(fs_copy_tree(at(f, "a"), at(f, "c"), &f->err), MEMFS_EINVALID);
    assert_int_equal(unlink(at(f, "a/link")), 0);
    assert_int_equal(mkfifo(at(f, "a/pipe"), 0600), 0);
    assert_int_equal(fs_copy_tree(at(f, "a"), at(f, "d"), &f->err), MEMFS_EINVALID);
}

static void test_rename_replaces(void **state)
{
    fixture *f = *state;

    assert_int_equal(fs_mkdirs(at(f, "sub"), &f->err), MEMFS_OK);
    put(f, "a", "new");
    put(f, "sub/b", "old");
    assert_int_equal(fs_rename(at(f, "a"), at(f, "sub/b"), &f->err), MEMFS_OK);
    assert_text(f, "sub/b", "new");
    assert_int_equal(fs_rename(at(f, "a"), at(f, "sub/b"), &f->err), MEMFS_ENOTFOUND);
}

/* flock belongs to the open file, so another open of the same process is another holder. */
static void test_L6_a_lock_has_one_holder(void **state)
{
    fixture *f = *state;
    fs_lock one = FS_LOCK_INIT, two = FS_LOCK_INIT;

    assert_int_equal(fs_lock_take(at(f, "lock"), &one, &f->err), MEMFS_OK);
    assert_int_equal(fs_lock_take(at(f, "lock"), &two, &f->err), MEMFS_EUNAVAIL);
    assert_int_equal(two.fd, -1);
    fs_unlock(&one);
    fs_unlock(&one); /* harmless twice */
    assert_int_equal(fs_lock_take(at(f, "lock"), &two, &f->err), MEMFS_OK);
    fs_unlock(&two);
}

/* What comes too late is refused; what is let go meanwhile is taken. */
static void test_L6_a_lock_is_waited_for_until_the_deadline(void **state)
{
    fixture *f = *state;
    fs_lock one = FS_LOCK_INIT, two = FS_LOCK_INIT;
    pid_t child;
    int status;

    assert_int_equal(fs_lock_wait(at(f, "lock"), 0, &one, &f->err), MEMFS_OK);
    assert_int_equal(fs_lock_wait(at(f, "lock"), clock_mono_ms() + 30, &two, &f->err),
                     MEMFS_EUNAVAIL);
    assert_int_equal(two.fd, -1);
    child = fork();
    if (child == 0) {
        fs_unlock(&one); /* the parent's copy still holds it */
        _exit(fs_lock_wait(at(f, "lock"), clock_mono_ms() + 60000, &two, &f->err) == MEMFS_OK ? 0 : 1);
    }
    clock_sleep_ms(20);
    fs_unlock(&one);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_L2_a_lock_ends_with_its_process(void **state)
{
    fixture *f = *state;
    fs_lock lock = FS_LOCK_INIT;
    pid_t child = fork();
    int status;

    if (child == 0)
        _exit(fs_lock_take(at(f, "lock"), &lock, &f->err) == MEMFS_OK ? 0 : 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(fs_lock_take(at(f, "lock"), &lock, &f->err), MEMFS_OK);
    fs_unlock(&lock);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_file_is_replaced_whole),
        TEST(test_S4_the_mode_is_what_was_asked_for_whatever_the_umask),
        TEST(test_reading_stops_at_the_bound),
        TEST(test_messages_name_no_folder),
        TEST(test_D3_a_write_that_fails_leaves_the_old_file_and_no_other),
        TEST(test_folders_are_made_with_all_above),
        TEST(test_removing_follows_no_link),
        TEST(test_a_link_to_a_folder_is_removed_itself),
        TEST(test_a_tree_is_copied_with_modes),
        TEST(test_links_and_special_files_are_not_copied),
        TEST(test_rename_replaces),
        TEST(test_L6_a_lock_has_one_holder),
        TEST(test_L6_a_lock_is_waited_for_until_the_deadline),
        TEST(test_L2_a_lock_ends_with_its_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
