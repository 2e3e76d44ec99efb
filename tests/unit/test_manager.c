#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/manager.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void set_listen(long pid, const char *n)
{
    char text[24];

    snprintf(text, sizeof(text), "%ld", pid);
    setenv("LISTEN_PID", text, 1);
    setenv("LISTEN_FDS", n, 1);
    setenv("LISTEN_FDNAMES", "http", 1);
}

/* Descriptors 3 and on, as a service manager leaves them: open in children. */
static void put_sockets(int n)
{
    for (int i = 0; i < n; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        assert_true(fd >= 0);
        if (fd != MANAGER_FIRST_FD + i) {
            assert_int_equal(dup2(fd, MANAGER_FIRST_FD + i), MANAGER_FIRST_FD + i);
            close(fd);
        }
    }
}

static void test_sockets_are_taken_once_and_no_child_gets_them(void **state)
{
    manager m, again;
    memfs_error err;

    (void)state;
    put_sockets(2);
    set_listen(getpid(), "2");
    assert_int_equal(manager_take(&m, &err), MEMFS_OK);
    assert_int_equal(m.n_fds, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(m.fds[i], MANAGER_FIRST_FD + i);
        assert_int_equal(fcntl(m.fds[i], F_GETFD), FD_CLOEXEC);
    }
    assert_null(getenv("LISTEN_PID"));
    assert_null(getenv("LISTEN_FDS"));
    assert_null(getenv("LISTEN_FDNAMES"));
    assert_int_equal(manager_take(&again, &err), MEMFS_OK);
    assert_int_equal(again.n_fds, 0);
    for (int i = 0; i < 2; i++)
        close(m.fds[i]);
    manager_dispose(&m);
    manager_dispose(&m);
}

static void test_sockets_of_another_process_are_not_ours(void **state)
{
    static const char *const bad[] = { "", "x", "-1", "1x", "99999999999999999999" };
    manager m;
    memfs_error err;

    (void)state;
    set_listen((long)getpid() + 1, "1");
    assert_int_equal(manager_take(&m, &err), MEMFS_OK);
    assert_int_equal(m.n_fds, 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        set_listen(getpid(), bad[i]);
        assert_int_equal(manager_take(&m, &err), MEMFS_OK);
        assert_int_equal(m.n_fds, 0);
    }
}

static void test_sockets_that_are_not_there_or_too_many_are_an_error(void **state)
{
    manager m;
    memfs_error err;

    (void)state;
    set_listen(getpid(), "9");
    assert_int_equal(manager_take(&m, &err), MEMFS_ELIMIT);
    assert_non_null(strstr(err.msg, "ListenStream="));
    close(MANAGER_FIRST_FD);
    set_listen(getpid(), "1");
    assert_int_not_equal(manager_take(&m, &err), MEMFS_OK);
    assert_non_null(strstr(err.msg, "descriptor 3"));
    assert_null(getenv("LISTEN_FDS"));
}

/* A datagram socket under that name; "@…" is an abstract one. */
static int listener(const char *name)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    size_t len = strlen(name);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

    memcpy(at.sun_path, name, len);
    if (name[0] == '@')
        at.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (struct sockaddr *)&at,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)), 0);
    return fd;
}

static const char *heard(int fd)
{
    static char text[500];
    ssize_t n = recv(fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void tell_all(const char *name)
{
    int fd = listener(name);
    const char *text;
    memfs_error err;
    manager m;

    setenv("NOTIFY_SOCKET", name, 1);
    assert_int_equal(manager_take(&m, &err), MEMFS_OK);
    assert_null(getenv("NOTIFY_SOCKET"));
    assert_int_equal(manager_ready(&m, "serving on port 1", &err), MEMFS_OK);
    assert_string_equal(heard(fd), "READY=1\nSTATUS=serving on port 1");
    assert_int_equal(manager_reloading(&m, &err), MEMFS_OK);
    text = heard(fd);
    assert_ptr_equal(strstr(text, "RELOADING=1\nMONOTONIC_USEC="), text);
    assert_int_equal(manager_stopping(&m, &err), MEMFS_OK);
    assert_string_equal(heard(fd), "STOPPING=1\nSTATUS=ending what runs");
    close(fd);
    manager_dispose(&m);
}

static void test_the_three_moments_are_told(void **state)
{
    char path[] = "/tmp/memfs-manager-XXXXXX", name[64];

    (void)state;
    assert_non_null(mkdtemp(path));
    snprintf(name, sizeof(name), "%s/notify", path);
    tell_all(name);
    unlink(name);
    rmdir(path);
    snprintf(name, sizeof(name), "@memfs-manager-%ld", (long)getpid());
    tell_all(name);
}

static void test_without_a_manager_nothing_is_told_and_one_that_is_gone_is_an_error(void **state)
{
    static const char *const nobody[] = { "", "relative", "vsock:2:1" };
    memfs_error err;
    manager m = MANAGER_INIT;

    (void)state;
    assert_int_equal(manager_stopping(&m, &err), MEMFS_OK);
    for (size_t i = 0; i < ARRAY_LEN(nobody); i++) {
        setenv("NOTIFY_SOCKET", nobody[i], 1);
        assert_int_equal(manager_take(&m, &err), MEMFS_OK);
        assert_null(m.notify);
    }
    setenv("NOTIFY_SOCKET", "/nonexistent/memfs", 1);
    assert_int_equal(manager_take(&m, &err), MEMFS_OK);
    assert_int_equal(manager_stopping(&m, &err), MEMFS_EUNAVAIL);
    manager_dispose(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sockets_are_taken_once_and_no_child_gets_them),
        cmocka_unit_test(test_sockets_of_another_process_are_not_ours),
        cmocka_unit_test(test_sockets_that_are_not_there_or_too_many_are_an_error),
        cmocka_unit_test(test_the_three_moments_are_told),
        cmocka_unit_test(test_without_a_manager_nothing_is_told_and_one_that_is_gone_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
