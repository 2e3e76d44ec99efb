/* An empty repository at a path: whole, or not there, whatever happens meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/process.h"
#include "store/bare.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOON (clock_mono_ms() + 60000)

typedef struct fixture {
    char root[32];
    char *path; /* of the repository: alone in its folder */
    memfs_error err;
} fixture;

static int begin(void **state)
{
    fixture *f = mem_alloc(sizeof(*f));

    snprintf(f->root, sizeof(f->root), "/tmp/memfs-bare-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    f->path = mem_printf("%s/disk/a.git", f->root);
    *state = f;
    return 0;
}

static int end(void **state)
{
    fixture *f = *state;

    assert_int_equal(fs_remove_tree(f->root, &f->err), MEMFS_OK);
    free(f->path);
    free(f);
    return 0;
}

static void make_disk(fixture *f)
{
    _cleanup_(mem_freep) char *disk = mem_printf("%s/disk", f->root);

    assert_int_equal(fs_mkdirs(disk, &f->err), MEMFS_OK);
}

static size_t count_names(const fixture *f)
{
    _cleanup_(mem_freep) char *disk = mem_printf("%s/disk", f->root);
    DIR *dir = opendir(disk);
    size_t n = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n - 2;
}

static void assert_made(const fixture *f)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    const char *const env[] = { "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", NULL };
    const char *const argv[] = { "/usr/bin/git", "--git-dir", f->path, "rev-parse",
                                 "--is-bare-repository", "--show-object-format", NULL };
    const char *const head[] = { "/usr/bin/git", "--git-dir", f->path, "symbolic-ref", "HEAD",
                                 NULL };
    process_spec spec = { .argv = argv, .env = env };
    memfs_error err = MEMFS_ERROR_INIT;
    struct stat st;

    assert_int_equal(process_run(&spec, MEMFS_STR(""), &out, NULL, 60000, &err), MEMFS_OK);
    spec.argv = head;
    assert_int_equal(process_run(&spec, MEMFS_STR(""), &out, NULL, 60000, &err), MEMFS_OK);
    assert_string_equal(out.ptr, "true\nsha1\nrefs/heads/main\n");
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(count_names(f), 1);
}

static void test_it_is_bare_empty_and_its_owners_alone(void **state)
{
    fixture *f = *state;

    make_disk(f);
    assert_int_equal(bare_make(f->path, f->root, SOON, &f->err), MEMFS_OK);
    assert_made(f);
    assert_int_equal(bare_make(f->path, f->root, SOON, &f->err), MEMFS_OK); /* it is there */
    assert_made(f);
}

static void test_slashes_at_the_end_are_no_part_of_its_name(void **state)
{
    _cleanup_(mem_freep) char *path = NULL;
    fixture *f = *state;

    make_disk(f);
    path = mem_printf("%s//", f->path);
    assert_int_equal(bare_make(path, f->root, SOON, &f->err), MEMFS_OK);
    assert_made(f);
}

static void test_only_the_last_part_is_made(void **state)
{
    fixture *f = *state;

    assert_int_equal(bare_make(f->path, f->root, SOON, &f->err), MEMFS_ENOTFOUND);
    assert_non_null(strstr(f->err.msg, "is its disk mounted?"));
    assert_non_null(strstr(f->err.msg, "/disk'"));
    make_disk(f);
    assert_int_equal(count_names(f), 0);
}

static void test_what_stands_there_stays(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64);
    fixture *f = *state;

    make_disk(f);
    assert_int_equal(fs_write_atomic(f->path, MEMFS_STR("mine"), 0600, &f->err), MEMFS_OK);
    assert_int_equal(bare_make(f->path, f->root, SOON, &f->err), MEMFS_EEXISTS);
    assert_int_equal(fs_read(f->path, &text, &f->err), MEMFS_OK);
    assert_string_equal(text.ptr, "mine");
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(symlink("nowhere", f->path), 0);
    assert_int_equal(bare_make(f->path, f->root, SOON, &f->err), MEMFS_EEXISTS);
    assert_int_equal(count_names(f), 1);
    assert_int_equal(bare_make("/", f->root, SOON, &f->err), MEMFS_EINVALID);
}

static void test_one_that_ran_out_of_time_leaves_nothing(void **state)
{
    fixture *f = *state;

    make_disk(f);
    assert_true(bare_make(f->path, f->root, clock_mono_ms() - 1, &f->err) < 0);
    assert_int_equal(count_names(f), 0);
    assert_int_equal(bare_make(f->path, f->root, SOON, &f->err), MEMFS_OK);
    assert_made(f);
}

/* A process that makes it is killed at some moment; true: it left a half-made one. */
static bool kill_one(fixture *f)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(bare_make(f->path, f->root, SOON, &f->err) == MEMFS_OK ? 0 : 1);
    while (count_names(f) == 0 && waitpid(pid, &status, WNOHANG) == 0)
        usleep(50);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return !fs_exists(f->path) && count_names(f) == 1;
}

static void test_D6_what_a_kill_left_is_made_anew(void **state)
{
    fixture *f = *state;
    bool was_half = false;
    memfs_code rc = MEMFS_EUNAVAIL;

    make_disk(f);
    for (int i = 0; i < 200 && !was_half; i++) {
        was_half = kill_one(f);
        if (!was_half)
            assert_int_equal(fs_remove_tree(f->path, &f->err), MEMFS_OK);
    }
    assert_true(was_half);
    /* its git may be at work for a moment yet, as after the kill of a server */
    for (int i = 0; i < 100 && rc != MEMFS_OK; i++) {
        rc = bare_make(f->path, f->root, SOON, &f->err);
        if (rc != MEMFS_OK)
            usleep(100 * 1000);
    }
    assert_made(f);
}

static void test_two_makers_do_not_touch_one_anothers(void **state)
{
    fixture *f = *state;
    pid_t pids[4];
    int status;

    make_disk(f);
    for (size_t i = 0; i < ARRAY_LEN(pids); i++) {
        _cleanup_(mem_freep) char *maker = mem_printf("%s/maker%zu", f->root, i);

        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0)
            _exit(bare_make(f->path, maker, SOON, &f->err) == MEMFS_OK ? 0 : 1);
    }
    for (size_t i = 0; i < ARRAY_LEN(pids); i++) {
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_made(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_it_is_bare_empty_and_its_owners_alone),
        TEST(test_slashes_at_the_end_are_no_part_of_its_name),
        TEST(test_only_the_last_part_is_made),
        TEST(test_what_stands_there_stays),
        TEST(test_one_that_ran_out_of_time_leaves_nothing),
        TEST(test_D6_what_a_kill_left_is_made_anew),
        TEST(test_two_makers_do_not_touch_one_anothers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
