/*
 * http_listen.c - the sockets that are listened on: ours, and those a service manager hands down.
 *
 * A unix socket's address has room for 107 bytes of path, and data folders lie deeper than that, so
 * it is bound by way of the folder's descriptor: /proc/self/fd/N/socket.  Its mode is set before it
 * has a name, so it is never open to others, not even for a moment (T30).
 */
#include "server/http_int.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024

static void fd_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static bool parse_address(const char *text, uint16_t port, struct sockaddr_storage *ret,
                          socklen_t *ret_len)
{
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)ret;
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)ret;

    memset(ret, 0, sizeof(*ret));
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *ret_len = sizeof(*v4);
        return true;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *ret_len = sizeof(*v6);
        return true;
    }
    return false;
}

memfs_code http_listen_address(int fd, char out[HTTP_PEER_LEN], uint16_t *ret_port,
                               memfs_error *err)
{
    struct sockaddr_storage at = { .ss_family = AF_UNSPEC };
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)&at;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)&at;
    int is_listening = 0;
    socklen_t len = sizeof(at), n = sizeof(is_listening);

    if (getsockname(fd, (struct sockaddr *)&at, &len) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &n) < 0)
        return memfs_fail_errno(err, "could not read what descriptor %d listens on", fd);
    if ((at.ss_family != AF_INET && at.ss_family != AF_INET6) || !is_listening)
        return memfs_fail(err, MEMFS_EINVALID,
                          "descriptor %d is no listening TCP socket: in the socket unit, use "
                          "ListenStream= with a port, and Accept=no", fd);
    if (at.ss_family == AF_INET6)
        inet_ntop(AF_INET6, &v6->sin6_addr, out, HTTP_PEER_LEN);
    else
        inet_ntop(AF_INET, &v4->sin_addr, out, HTTP_PEER_LEN);
    *ret_port = ntohs(at.ss_family == AF_INET6 ? v6->sin6_port : v4->sin_port);
    return MEMFS_OK;
}

memfs_code http_listen_inherited(int fd, uint16_t *ret_port, memfs_error *err)
{
    char address[HTTP_PEER_LEN];
    memfs_code rc = http_listen_address(fd, address, ret_port, err);
    int flags = rc == MEMFS_OK ? fcntl(fd, F_GETFL) : 0;

    /* whoever has the other end of it only waits for it to be readable, and does not mind */
    if (flags < 0 || (rc == MEMFS_OK && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0))
        return memfs_fail_errno(err, "could not use the socket of descriptor %d", fd);
    return rc;
}

memfs_code http_listen_stand_in(http_stand_in *ret, memfs_error *err)
{
    ret->fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (ret->n = 1; ret->fds[0] >= 0 && ret->n < HTTP_STAND_IN_FDS; ret->n++) {
        ret->fds[ret->n] = fcntl(ret->fds[0], F_DUPFD_CLOEXEC, 0);
        if (ret->fds[ret->n] < 0)
            break;
    }
    if (ret->n == HTTP_STAND_IN_FDS)
        return MEMFS_OK;
    memfs_fail_errno(err, "could not make a socket");
    http_listen_let_go(ret, NULL, 0);
    return err->code;
}

void http_listen_let_go(http_stand_in *s, const int *fds, size_t n)
{
    /* those that are spare first: accept() in another thread takes a number before it looks */
    for (; s->n > 1; s->n--)
        fd_close(&s->fds[s->n - 1]);
    for (size_t i = 0; s->n > 0 && i < n; i++)
        dup3(s->fds[0], fds[i], O_CLOEXEC);
    if (s->n > 0)
        fd_close(&s->fds[0]);
    s->n = 0;
}

memfs_code http_listen_tcp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port,
                           memfs_error *err)
{
    _cleanup_(fd_close) int fd = -1;
    char bound[HTTP_PEER_LEN];
    struct sockaddr_storage at;
    socklen_t len;
    int on = 1;
    memfs_code rc;

    if (!parse_address(address, port, &at, &len))
        return memfs_fail(err, MEMFS_EINVALID, "'%s' is not an IP address", address);
    fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return memfs_fail_errno(err, "could not make a socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&at, len) < 0 && errno == EADDRINUSE)
        return memfs_fail(err, MEMFS_EUNAVAIL, "port %u of %s is taken", port, address);
    if (listen(fd, BACKLOG) < 0)
        return memfs_fail_errno(err, "could not listen on %s port %u", address, port);
    rc = http_listen_address(fd, bound, ret_port, err);
    if (rc < 0)
        return rc;
    *ret_fd = fd;
    fd = -1;
    return MEMFS_OK;
}

memfs_code http_listen_unix(const char *path, int *ret_fd, memfs_error *err)
{
    _cleanup_(fd_close) int fd = -1;
    _cleanup_(fd_close) int folder = -1;
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    const char *name = strrchr(path, '/');
    _cleanup_(mem_freep) char *parent = NULL;
    int n;

    if (name == NULL || name == path)
        return memfs_fail(err, MEMFS_EINVALID, "the path of a socket must be absolute");
    parent = mem_strndup(path, (size_t)(name - path));
    folder = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (folder < 0 || fd < 0)
        return memfs_fail_errno(err, "could not make a socket");
    n = snprintf(at.sun_path, sizeof(at.sun_path), "/proc/self/fd/%d%s", folder, name);
    if (n < 0 || (size_t)n >= sizeof(at.sun_path))
        return memfs_fail(err, MEMFS_EINVALID, "the name of the socket is too long");
    if (unlinkat(folder, name + 1, 0) < 0 && errno != ENOENT)
        return memfs_fail_errno(err, "could not remove the old socket");
    if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
        fchmodat(folder, name + 1, 0600, 0) < 0 || listen(fd, BACKLOG) < 0)
        return memfs_fail_errno(err, "could not listen on the data folder's socket");
    *ret_fd = fd;
    fd = -1;
    return MEMFS_OK;
}
