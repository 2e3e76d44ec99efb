#include "base/log.h"

#include "base/str.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

/* stderr is a pipe while a test runs, and comes back before the verdict is printed. */
static int saved_stderr, reader;

static int redirect(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    assert_true(saved_stderr >= 0);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    close(ends[1]);
    reader = ends[0];
    fcntl(reader, F_SETFL, O_NONBLOCK);
    log_set_level(LOG_INFO);
    return 0;
}

static int restore(void **state)
{
    (void)state;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(reader);
    return 0;
}

/* What was written since the last call. */
static const char *logged(void)
{
    static char text[1 << 16];
    ssize_t n = read(reader, text, sizeof(text) - 1);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void test_a_line_is_time_level_event_and_pairs(void **state)
{
    const char *line, *after;

    (void)state;
    log_event(LOG_WARN, "cache_rebuilt", "agent", "agent-1", "left", NULL, "n", "12", NULL);
    line = logged();
    after = strchr(line, ' ');
    assert_non_null(after);
    assert_int_equal(after[-1], 'Z');
    assert_string_equal(after, " level=warn event=cache_rebuilt agent=agent-1 n=12\n");
}

typedef struct quoting {
    const char *value, *written;
} quoting;

static void test_T20_values_cannot_forge_a_line(void **state)
{
    static const quoting cases[] = {
        { "plain-1._:/@+", "plain-1._:/@+" },
        { "", "\"\"" },
        { "two words", "\"two words\"" },
        { "a=b", "\"a=b\"" },
        { "a\nlevel=error", "\"a\\x0alevel=error\"" },
        { "a\r\x1b[2J", "\"a\\x0d\\x1b[2J\"" },
        { "say \"hi\" \\", "\"say \\x22hi\\x22 \\x5c\"" },
        { "\xC3\xA9", "\"\xC3\xA9\"" },
        { "\xE2\x80\xAEtxt", "\"\\xe2\\x80\\xaetxt\"" }, /* right-to-left override */
        { "\xC2\x85", "\"\\xc2\\x85\"" },                /* next line, a C1 control */
        { "\xE2\x80\xA8", "\"\\xe2\\x80\\xa8\"" },       /* line separator */
        { "\xFF\xC3", "\"\\xff\\xc3\"" },                /* not UTF-8 */
        { "\x7F", "\"\\x7f\"" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char expected[128];
        const char *line;

        log_event(LOG_INFO, "e", "v", cases[i].value, NULL);
        line = logged();
        snprintf(expected, sizeof(expected), " v=%s\n", cases[i].written);
        assert_true(str_ends_with(str_of(line), str_of(expected)));
        assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    }
}

static void test_levels_below_the_least_are_silent(void **state)
{
    (void)state;
    log_event(LOG_DEBUG, "quiet", NULL);
    assert_string_equal(logged(), "");
    log_set_level(LOG_ERROR);
    log_event(LOG_WARN, "quiet", NULL);
    assert_string_equal(logged(), "");
}

static void test_a_line_is_never_longer_than_an_atomic_write(void **state)
{
    static char huge[9000];
    const char *line;

    (void)state;
    memset(huge, 'x', sizeof(huge) - 1);
    log_event(LOG_INFO, "e", "a", "1", "huge", huge, NULL);
    line = logged();
    assert_true(str_ends_with(str_of(line), MEMFS_STR(" a=1 cut=1\n")));
}

static void test_F30_a_full_pipe_drops_lines_and_counts_them(void **state)
{
    static char filler[4096], drain[1 << 17];
    const char *text;

    (void)state;
    memset(filler, '.', sizeof(filler));
    fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK);
    while (write(STDERR_FILENO, filler, sizeof(filler)) > 0)
        ;
    fcntl(STDERR_FILENO, F_SETFL, 0);
    log_event(LOG_INFO, "lost", NULL);
    log_event(LOG_INFO, "lost", NULL);
    while (read(reader, drain, sizeof(drain)) > 0)
        ;
    log_event(LOG_INFO, "kept", NULL);
    text = logged();
    assert_non_null(strstr(text, "event=log_lines_dropped count=2\n"));
    assert_non_null(strstr(text, "event=kept\n"));
    assert_null(strstr(text, "event=lost"));
}

/* The text of the file behind stderr, from its start. */
static const char *filed(void)
{
    static char text[1 << 16];
    ssize_t n = pread(STDERR_FILENO, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static size_t count_of(const char *text, const char *part)
{
    size_t n = 0;

    while ((text = strstr(text, part)) != NULL) {
        text += strlen(part);
        n++;
    }
    return n;
}

static void *log_many(void *arg)
{
    for (int i = 0; i < 100; i++)
        log_event(LOG_INFO, "many", "who", (const char *)arg, NULL);
    return NULL;
}

/* No lock keeps lines of a file or a pipe apart. */
static void check_lines_of_threads_are_whole(const char *(*read_all)(void))
{
    static char names[][2] = { "a", "b", "c" };
    pthread_t threads[3];
    char line[64];
    const char *text;

    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, names[i]), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    text = read_all();
    for (int i = 0; i < 3; i++) {
        snprintf(line, sizeof(line), "Z level=info event=many who=%s\n", names[i]);
        assert_int_equal(count_of(text, line), 100);
    }
    assert_int_equal(count_of(text, "\n"), 300);
}

static void test_lines_of_threads_are_whole_in_a_pipe(void **state)
{
    (void)state;
    check_lines_of_threads_are_whole(logged);
}

static void test_lines_of_threads_are_whole_in_a_file(void **state)
{
    int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    close(fd);
    check_lines_of_threads_are_whole(filed);
}

/* RLIMIT_FSIZE stands in for a disk without room. */
static void test_F30_a_full_disk_drops_lines_and_counts_them(void **state)
{
    struct rlimit old, none = { 0, 0 };
    int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    close(fd);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    none.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &none);
    log_event(LOG_INFO, "lost", NULL);
    log_event(LOG_INFO, "lost", NULL);
    setrlimit(RLIMIT_FSIZE, &old);
    log_event(LOG_INFO, "kept", NULL);
    assert_non_null(strstr(filed(), "event=log_lines_dropped count=2\n"));
    assert_non_null(strstr(filed(), "event=kept\n"));
    assert_null(strstr(filed(), "event=lost"));
}

/* journald gives a socket. */
static void test_F30_a_full_socket_drops_lines_and_counts_them(void **state)
{
    static char filler[4096], drain[1 << 20];
    int ends[2];
    ssize_t n;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    close(ends[1]);
    log_event(LOG_INFO, "first", NULL);
    while (send(STDERR_FILENO, filler, sizeof(filler), MSG_DONTWAIT) > 0)
        ;
    log_event(LOG_INFO, "lost", NULL);
    while ((n = recv(ends[0], drain, sizeof(drain) - 1, MSG_DONTWAIT)) > 0)
        ;
    log_event(LOG_INFO, "kept", NULL);
    n = recv(ends[0], drain, sizeof(drain) - 1, MSG_DONTWAIT);
    drain[n > 0 ? n : 0] = '\0';
    close(ends[0]);
    assert_non_null(strstr(drain, "event=log_lines_dropped count=1\n"));
    assert_non_null(strstr(drain, "event=kept\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_line_is_time_level_event_and_pairs, redirect,
                                        restore),
        cmocka_unit_test_setup_teardown(test_T20_values_cannot_forge_a_line, redirect, restore),
        cmocka_unit_test_setup_teardown(test_levels_below_the_least_are_silent, redirect, restore),
        cmocka_unit_test_setup_teardown(test_a_line_is_never_longer_than_an_atomic_write, redirect,
                                        restore),
        cmocka_unit_test_setup_teardown(test_F30_a_full_pipe_drops_lines_and_counts_them, redirect,
                                        restore),
        cmocka_unit_test_setup_teardown(test_lines_of_threads_are_whole_in_a_pipe, redirect,
                                        restore),
        cmocka_unit_test_setup_teardown(test_lines_of_threads_are_whole_in_a_file, redirect,
                                        restore),
        cmocka_unit_test_setup_teardown(test_F30_a_full_disk_drops_lines_and_counts_them, redirect,
                                        restore),
        cmocka_unit_test_setup_teardown(test_F30_a_full_socket_drops_lines_and_counts_them,
                                        redirect, restore),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
