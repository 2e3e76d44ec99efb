#include "store/transport_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/process.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * Is there a way to the remote's host?  git has no limit of its own for making a connection, and
 * libcurl's is five minutes: a host whose cable was pulled would be waited for that long, with
 * nothing to tell meanwhile (F19).  So a connection is made and dropped before git is started.
 *
 * Only silence is judged here.  What is refused everywhere is left to git, whose words are known;
 * so is a name that cannot be resolved.  All addresses of a name are tried at once, as one of them
 * may lead nowhere while another is fine.  An address that fails says nothing of the others: a
 * machine without a way to IPv6 learns that at once, while the IPv4 address may be silent.
 */

#define REACH_MS 10000
#define LOOK_MS 200 /* is it still wanted? */
#define MAX_ADDRESSES 8
#define MAX_HOST 256

/* "host", "host:port", "[v6]:port" */
static bool split_host(memfs_str address, const char *usual_port, char host[MAX_HOST], char port[8])
{
    const char *end = address.ptr + address.len, *at = address.ptr, *colon;

    if (at < end && *at == '[') {
        colon = memchr(at, ']', address.len);
        if (colon == NULL)
            return false;
        snprintf(host, MAX_HOST, "%.*s", (int)(colon - at - 1), at + 1);
        colon = colon + 1 < end ? colon + 1 : NULL;
    } else {
        colon = memchr(at, ':', address.len);
        snprintf(host, MAX_HOST, "%.*s", (int)((colon != NULL ? colon : end) - at), at);
    }
    if (colon != NULL)
        snprintf(port, 8, "%.*s", (int)(end - colon - 1), colon + 1);
    else
        snprintf(port, 8, "%s", usual_port);
    return host[0] != '\0' && port[0] != '\0';
}

typedef enum contact { IS_SILENT, HAS_FAILED, HAS_CONNECTED } contact;

static contact begin(const struct addrinfo *a, struct pollfd *ret)
{
    *ret = (struct pollfd){ .events = POLLOUT };
    ret->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (ret->fd < 0)
        return HAS_FAILED;
    if (connect(ret->fd, a->ai_addr, a->ai_addrlen) == 0)
        return HAS_CONNECTED;
    return errno == EINPROGRESS ? IS_SILENT : HAS_FAILED;
}

/* Nobody polls it any more. */
static void end(struct pollfd *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}

/* Of what poll() told: the failed are ended.  HAS_FAILED: all are. */
static contact judge(struct pollfd *at, nfds_t n)
{
    contact all = HAS_FAILED;

    for (nfds_t i = 0; i < n; i++) {
        int failure = 0;
        socklen_t size = sizeof(failure);

        if (at[i].fd >= 0 && at[i].revents != 0) {
            if (getsockopt(at[i].fd, SOL_SOCKET, SO_ERROR, &failure, &size) == 0 && failure == 0)
                return HAS_CONNECTED;
            end(&at[i]);
        }
        if (at[i].fd >= 0)
            all = IS_SILENT;
    }
    return all;
}

/* IS_SILENT: until the end, or until it is ended. */
static contact wait_contact(struct pollfd *at, nfds_t n, int64_t until_ms)
{
    process_waiting w;
    contact c = IS_SILENT;

    process_waiting_begin(&w);
    while (c == IS_SILENT && !process_waiting_is_ended(&w)) {
        int64_t left_ms = until_ms - clock_mono_ms();
        int found;

        if (left_ms <= 0)
            break;
        found = poll(at, n, left_ms < LOOK_MS ? (int)left_ms : LOOK_MS);
        if (found > 0)
            c = judge(at, n);
        else if (found < 0 && errno != EINTR)
            c = HAS_FAILED; /* that is no silence of theirs */
    }
    process_waiting_end(&w);
    return c;
}

bool transport_any_answers(const struct addrinfo *list, int64_t until_ms)
{
    struct pollfd at[MAX_ADDRESSES];
    contact all = HAS_FAILED;
    nfds_t n = 0;

    for (const struct addrinfo *a = list;
         a != NULL && n < MAX_ADDRESSES && all != HAS_CONNECTED; a = a->ai_next) {
        contact c = begin(a, &at[n]);

        if (c == HAS_FAILED)
            end(&at[n]);
        else
            all = c;
        n++;
    }
    if (all == IS_SILENT)
        all = wait_contact(at, n, until_ms);
    for (nfds_t i = 0; i < n; i++)
        end(&at[i]);
    return all != IS_SILENT;
}

bool transport_reach(const transport_run *r, int64_t deadline_ms)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    int64_t until_ms = clock_mono_ms() + REACH_MS;
    struct addrinfo *list = NULL;
    char host[MAX_HOST], port[8];
    bool answers;

    if (r->kind != TO_HTTP && r->kind != TO_HTTPS) /* ssh has a limit of its own */
        return true;
    if (!split_host(transport_host_of(r->t->url), r->kind == TO_HTTP ? "80" : "443", host, port) ||
        getaddrinfo(host, port, &hints, &list) != 0)
        return true;
    answers = transport_any_answers(list, until_ms < deadline_ms ? until_ms : deadline_ms);
    freeaddrinfo(list);
    return answers;
}
