#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const no_env[] = { NULL };

/* Runs a line of shell; the shell is the test's child, not something the program ever uses. */
static memfs_code run_within(const char *line, memfs_str input, memfs_buf *out, memfs_buf *tail,
                             int64_t timeout_ms, memfs_error *err)
{
    const char *argv[] = { "/bin/sh", "-c", line, NULL };
    const char *env[] = { "PATH=/usr/bin:/bin", NULL };
    process_spec spec = { .argv = argv, .env = env };

    return process_run(&spec, input, out, tail, timeout_ms, err);
}

static memfs_code run(const char *line, memfs_str input, memfs_buf *out, memfs_error *err)
{
    return run_within(line, input, out, NULL, 20000, err);
}

#define OUT_INIT MEMFS_BUF_INIT(64 * 1024)

static void test_input_goes_in_and_output_comes_back(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    memfs_error err;

    (void)state;
    assert_int_equal(run("cat; echo end", MEMFS_STR("text\n"), &out, &err), MEMFS_OK);
    assert_string_equal(out.ptr, "text\nend\n");
}

static void test_only_absolute_programs_start(void **state)
{
    const char *relative[] = { "sh", NULL }, *missing[] = { "/nonexistent/program", NULL };
    process_spec spec = { .argv = relative, .env = no_env };
    process p = PROCESS_INIT;
    memfs_error err;

    (void)state;
    assert_int_equal(process_start(&spec, &p, &err), MEMFS_EINVALID);
    spec.argv = missing;
    assert_int_equal(process_start(&spec, &p, &err), MEMFS_ENOTFOUND);
    assert_int_equal(p.pid, 0);
}

static void test_T31_nothing_of_the_environment_is_inherited(void **state)
{
    const char *argv[] = { "/usr/bin/env", NULL };
    const char *env[] = { "ONLY=this", NULL };
    process_spec spec = { .argv = argv, .env = env };
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    memfs_error err;

    (void)state;
    setenv("LD_SOMETHING_OF_OURS", "1", 1);
    assert_int_equal(process_run(&spec, MEMFS_STR(""), &out, NULL, 20000, &err), MEMFS_OK);
    assert_string_equal(out.ptr, "ONLY=this\n");
}

static void test_S3_a_secret_is_handed_down_by_descriptor(void **state)
{
    const char *argv[] = { "/bin/sh", "-c",
                           "read a <&3; echo \"$a\"; cat /proc/self/fd/3; "
                           "(echo x >&3) 2>/dev/null || echo sealed", NULL };
    const char *list[] = { "/bin/ls", "/proc/self/fd", NULL };
    const char *env[] = { "PATH=/usr/bin:/bin", NULL };
    process_spec spec = { .argv = argv, .env = env };
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    memfs_error err;

    (void)state;
    assert_int_equal(process_secret_fd(MEMFS_STR("hush\n"), &spec.handed_fd, &err), MEMFS_OK);
    assert_int_equal(fcntl(spec.handed_fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(process_run(&spec, MEMFS_STR(""), &out, NULL, 20000, &err), MEMFS_OK);
    assert_string_equal(out.ptr, "hush\nhush\nsealed\n");
    buf_clear(&out);
    spec.argv = list;
    assert_int_equal(process_run(&spec, MEMFS_STR(""), &out, NULL, 20000, &err), MEMFS_OK);
    assert_string_equal(out.ptr, "0\n1\n2\n3\n4\n"); /* 4 is the folder that ls reads */
    close(spec.handed_fd);
}

static void test_T30_no_other_descriptor_is_inherited(void **state)
{
    int leaky = open("/dev/null", O_RDONLY); /* without O_CLOEXEC, on purpose */
    int high = fcntl(leaky, F_DUPFD, 200);
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    memfs_error err;

    (void)state;
    assert_true(high >= 200);
    /* ls has its own descriptor on the folder it lists */
    assert_int_equal(run("exec ls /proc/self/fd", MEMFS_STR(""), &out, &err), MEMFS_OK);
    close(leaky);
    close(high);
    assert_string_equal(out.ptr, "0\n1\n2\n3\n");
}

static void test_a_failing_child_is_told_by_its_last_line(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    memfs_error err;

    (void)state;
    assert_int_equal(run("echo first >&2; echo 'the \33[31mreason' >&2; exit 3", MEMFS_STR(""),
                         &out, &err),
                     MEMFS_EINTERNAL);
    assert_non_null(strstr(err.msg, "status 3"));
    assert_non_null(strstr(err.msg, "the \\x1B[31mreason")); /* T20: escaped */
    assert_null(strstr(err.msg, "first"));
}

static void test_death_by_signal_is_128_and_its_number(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    memfs_error err;

    (void)state;
    assert_int_equal(run("kill -9 $$", MEMFS_STR(""), &out, &err), MEMFS_EINTERNAL);
    assert_non_null(strstr(err.msg, "status 137"));
}

static void test_F03_a_child_that_hangs_ends_at_the_deadline(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    int64_t start = clock_mono_ms();
    memfs_error err;

    (void)state;
    assert_int_equal(run_within("sleep 60", MEMFS_STR(""), &out, NULL, 200, &err), MEMFS_EUNAVAIL);
    assert_true(clock_mono_ms() - start < 30000);
}

static void test_F03_a_child_that_ignores_sigterm_is_killed(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    int64_t start = clock_mono_ms();
    memfs_error err;

    (void)state;
    assert_int_equal(run_within("trap '' TERM; while :; do sleep 60; done", MEMFS_STR(""), &out,
                                NULL, 200, &err),
                     MEMFS_EUNAVAIL);
    assert_in_range(clock_mono_ms() - start, 2000, 30000);
}

static void test_F03_grandchildren_end_with_the_group(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    memfs_error err;
    pid_t grandchild;

    (void)state;
    /* The grandchild holds no pipe, so that only the group can find it. */
    assert_int_equal(run("sleep 300 </dev/null >/dev/null 2>&1 & echo $!", MEMFS_STR(""), &out,
                         &err),
                     MEMFS_OK);
    grandchild = (pid_t)strtol(out.ptr, NULL, 10);
    assert_true(grandchild > 1);
    for (int i = 0; i < 100 && kill(grandchild, 0) == 0; i++)
        clock_sleep_ms(20);
    /* gone, or a zombie of somebody else's */
    if (kill(grandchild, 0) == 0) {
        char path[64], stat[256] = "";
        snprintf(path, sizeof(path), "/proc/%d/stat", (int)grandchild);
        FILE *file = fopen(path, "r");
        if (file != NULL) {
            assert_true(fread(stat, 1, sizeof(stat) - 1, file) > 0);
            fclose(file);
            assert_non_null(strstr(stat, ") Z "));
        }
    }
}

static void test_F03_a_flood_of_stderr_is_only_a_tail(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    _cleanup_(buf_dispose) memfs_buf tail = MEMFS_BUF_INIT(1000);
    memfs_error err;

    (void)state;
    assert_int_equal(run_within("head -c 5000000 /dev/zero | tr '\\0' x >&2; echo done >&2",
                                MEMFS_STR(""), &out, &tail, 20000, &err),
                     MEMFS_OK);
    assert_int_equal(tail.len, 1000);
    assert_true(str_ends_with(buf_str(&tail), MEMFS_STR("xxdone\n")));
}

static void test_L1_output_past_the_bound_ends_the_child(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1000);
    memfs_error err;

    (void)state;
    assert_int_equal(run("cat /dev/zero", MEMFS_STR(""), &out, &err), MEMFS_ELIMIT);
}

static void test_F03_a_child_that_reads_nothing_is_no_deadlock(void **state)
{
    static char much[300000];
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    memfs_error err;

    (void)state;
    memset(much, 'a', sizeof(much));
    /* stdin closed early: no SIGPIPE for us, and the exit status decides */
    assert_int_equal(run("exec <&-; echo ok", str_make(much, sizeof(much)), &out, &err), MEMFS_OK);
    assert_string_equal(out.ptr, "ok\n");
}

static void test_F03_stdout_closed_early_is_waited_out(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    memfs_error err;

    (void)state;
    assert_int_equal(run("exec >&- 2>&-; sleep 0.3; exit 7", MEMFS_STR(""), &out, &err),
                     MEMFS_EINTERNAL);
    assert_non_null(strstr(err.msg, "status 7"));
}

static void test_T13_limits_hold_for_the_child(void **state)
{
    /* the first line of input comes after the limits are set */
    const char *argv[] = { "/bin/sh", "-c",
                           "read go; ulimit -v; ulimit -f; ulimit -n; ulimit -t; ulimit -c", NULL };
    process_spec spec = { .argv = argv,
                          .env = no_env,
                          .cpu_s = 60,
                          .address_space_bytes = 1u << 30,
                          .file_size_bytes = 1u << 20,
                          .n_files = 100 };
    _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
    memfs_error err;

    (void)state;
    assert_int_equal(process_run(&spec, MEMFS_STR("go\n"), &out, NULL, 20000, &err), MEMFS_OK);
    assert_string_equal(out.ptr, "1048576\n2048\n100\n60\n0\n");
}

static void test_wait_leaves_no_zombie_and_dispose_is_harmless_twice(void **state)
{
    const char *argv[] = { "/bin/sh", "-c", "exit 5", NULL };
    process_spec spec = { .argv = argv, .env = no_env };
    process p = PROCESS_INIT;
    memfs_error err;
    int status;
    pid_t pid;

    (void)state;
    assert_int_equal(process_start(&spec, &p, &err), MEMFS_OK);
    pid = p.pid;
    assert_int_equal(process_wait(&p, clock_mono_ms() + 10000, &status, &err), MEMFS_OK);
    assert_int_equal(status, 5);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(process_wait(&p, 0, &status, &err), MEMFS_EINTERNAL);
    process_dispose(&p);
    process_dispose(&p);
}

static void test_dispose_ends_what_runs(void **state)
{
    const char *argv[] = { "/bin/sleep", "300", NULL };
    process_spec spec = { .argv = argv, .env = no_env };
    process p = PROCESS_INIT;
    memfs_error err;
    pid_t pid;

    (void)state;
    assert_int_equal(process_start(&spec, &p, &err), MEMFS_OK);
    pid = p.pid;
    process_dispose(&p);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
}

static void test_F30_all_children_can_be_ended_at_once(void **state)
{
    const char *argv[] = { "/bin/sh", "-c", "trap '' TERM; sleep 1000 & wait", NULL };
    process_spec spec = { .argv = argv, .env = no_env };
    process a = PROCESS_INIT, b = PROCESS_INIT;
    int64_t began = clock_mono_ms();
    memfs_error err;
    int status;

    (void)state;
    assert_int_equal(process_start(&spec, &a, &err), MEMFS_OK);
    assert_int_equal(process_start(&spec, &b, &err), MEMFS_OK);
    process_end_all();
    assert_int_equal(process_wait(&a, clock_mono_ms() + 20000, &status, &err), MEMFS_OK);
    assert_int_equal(status, 128 + SIGKILL);
    assert_int_equal(process_wait(&b, clock_mono_ms() + 20000, &status, &err), MEMFS_OK);
    assert_int_equal(status, 128 + SIGKILL);
    assert_true(clock_mono_ms() - began < 5000);
    process_dispose(&a);
    process_dispose(&b);
    process_end_all(); /* none is left: nobody else is hit */
}

static size_t count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static void test_no_descriptor_is_left_after_any_end(void **state)
{
    size_t before = count_fds();
    memfs_error err;

    (void)state;
    for (int i = 0; i < 20; i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(10);

        assert_int_equal(run("exit 0", MEMFS_STR("x"), &out, &err), MEMFS_OK);
        assert_int_equal(run("cat /dev/zero", MEMFS_STR(""), &out, &err), MEMFS_ELIMIT);
        assert_int_equal(run_within("sleep 9", MEMFS_STR(""), &out, NULL, 5, &err), MEMFS_EUNAVAIL);
    }
    assert_int_equal(count_fds(), before);
}

static void test_it_works_with_stdio_closed(void **state)
{
    int status;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        _cleanup_(buf_dispose) memfs_buf out = OUT_INIT;
        memfs_error err;

        close(0);
        close(1);
        close(2);
        if (run("cat", MEMFS_STR("text"), &out, &err) != MEMFS_OK || out.len != 4)
            _exit(1);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_the_last_line_is_found(void **state)
{
    (void)state;
    assert_true(str_equal(process_last_line(MEMFS_STR("a\nb\r\n\n")), MEMFS_STR("b")));
    assert_true(str_equal(process_last_line(MEMFS_STR("10%\r20%")), MEMFS_STR("20%")));
    assert_true(str_equal(process_last_line(MEMFS_STR("\n\n")), MEMFS_STR("")));
    assert_true(str_equal(process_last_line(MEMFS_STR("")), MEMFS_STR("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_input_goes_in_and_output_comes_back),
        cmocka_unit_test(test_only_absolute_programs_start),
        cmocka_unit_test(test_T31_nothing_of_the_environment_is_inherited),
        cmocka_unit_test(test_S3_a_secret_is_handed_down_by_descriptor),
        cmocka_unit_test(test_T30_no_other_descriptor_is_inherited),
        cmocka_unit_test(test_a_failing_child_is_told_by_its_last_line),
        cmocka_unit_test(test_death_by_signal_is_128_and_its_number),
        cmocka_unit_test(test_F03_a_child_that_hangs_ends_at_the_deadline),
        cmocka_unit_test(test_F03_a_child_that_ignores_sigterm_is_killed),
        cmocka_unit_test(test_F03_grandchildren_end_with_the_group),
        cmocka_unit_test(test_F03_a_flood_of_stderr_is_only_a_tail),
        cmocka_unit_test(test_L1_output_past_the_bound_ends_the_child),
        cmocka_unit_test(test_F03_a_child_that_reads_nothing_is_no_deadlock),
        cmocka_unit_test(test_F03_stdout_closed_early_is_waited_out),
        cmocka_unit_test(test_T13_limits_hold_for_the_child),
        cmocka_unit_test(test_wait_leaves_no_zombie_and_dispose_is_harmless_twice),
        cmocka_unit_test(test_dispose_ends_what_runs),
        cmocka_unit_test(test_F30_all_children_can_be_ended_at_once),
        cmocka_unit_test(test_no_descriptor_is_left_after_any_end),
        cmocka_unit_test(test_it_works_with_stdio_closed),
        cmocka_unit_test(test_the_last_line_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
