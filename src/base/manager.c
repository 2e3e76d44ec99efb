#include "base/manager.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static bool number_in(const char *name, uint64_t most, uint64_t *ret)
{
    const char *text = getenv(name);

    return text != NULL && str_to_u64(str_of(text), most, ret);
}

/* What was meant for a parent of ours, which forgot to take it out, is not ours (LISTEN_PID). */
static memfs_code take_fds(manager *ret, memfs_error *err)
{
    uint64_t pid, n;

    if (!number_in("LISTEN_PID", INT_MAX, &pid) || !number_in("LISTEN_FDS", INT_MAX, &n) ||
        pid != (uint64_t)getpid())
        return MEMFS_OK;
    if (n > MANAGER_MAX_FDS)
        return memfs_fail(err, MEMFS_ELIMIT,
                          "%llu sockets were handed down, more than %d: list fewer ListenStream= "
                          "in the socket unit", (unsigned long long)n, MANAGER_MAX_FDS);
    for (size_t i = 0; i < n; i++) {
        int fd = MANAGER_FIRST_FD + (int)i;

        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            return memfs_fail_errno(err, "LISTEN_FDS speaks of descriptor %d, which is not there",
                                    fd);
        ret->fds[ret->n_fds++] = fd;
    }
    return MEMFS_OK;
}

memfs_code manager_take(manager *ret, memfs_error *err)
{
    const char *notify = getenv("NOTIFY_SOCKET");
    memfs_code rc;

    *ret = (manager)MANAGER_INIT;
    if (notify != NULL && (notify[0] == '/' || notify[0] == '@') && notify[1] != '\0')
        ret->notify = mem_strdup(notify);
    rc = take_fds(ret, err);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return rc;
}

void manager_dispose(manager *m)
{
    free(m->notify);
    *m = (manager)MANAGER_INIT;
}

static memfs_code send_message(const manager *m, const char *message, memfs_error *err)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    size_t len = strlen(m->notify);
    ssize_t sent = -1;
    int fd;

    if (len >= sizeof(at.sun_path))
        return memfs_fail(err, MEMFS_EINVALID, "the address in NOTIFY_SOCKET is too long");
    memcpy(at.sun_path, m->notify, len);
    if (at.sun_path[0] == '@')
        at.sun_path[0] = '\0'; /* an abstract name: its bytes count, there is no NUL after it */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        sent = sendto(fd, message, strlen(message), MSG_NOSIGNAL, (struct sockaddr *)&at,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    if (sent < 0)
        memfs_fail(err, MEMFS_EUNAVAIL, "the service manager could not be told: %s",
                   strerror(errno));
    if (fd >= 0)
        close(fd);
    return sent < 0 ? MEMFS_EUNAVAIL : MEMFS_OK;
}

memfs_code manager_ready(const manager *m, const char *status, memfs_error *err)
{
    _cleanup_(mem_freep) char *message = mem_printf("READY=1\nSTATUS=%s", status);

    return m->notify != NULL ? send_message(m, message, err) : MEMFS_OK;
}

/* With the time: a manager of Type=notify-reload waits for a READY that is later than it. */
memfs_code manager_reloading(const manager *m, memfs_error *err)
{
    _cleanup_(mem_freep) char *message =
        mem_printf("RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reading settings anew",
                   (long long)clock_mono_us());

    return m->notify != NULL ? send_message(m, message, err) : MEMFS_OK;
}

memfs_code manager_stopping(const manager *m, memfs_error *err)
{
    return m->notify != NULL ? send_message(m, "STOPPING=1\nSTATUS=ending what runs", err)
                             : MEMFS_OK;
}
