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
 * Only silence is judged here.  Everything that answers, a refusal too, is left to git, whose words
 * are known; so is a name that cannot be resolved.  All addresses of a name are tried at once, as
 * one of them may lead nowhere while another is fine.
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

/* *ret_is_silent: it has neither connected nor failed yet. */
static int begin(const struct addrinfo *a, bool *ret_is_silent)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);

    *ret_is_silent = fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) < 0 && errno == EINPROGRESS;
    return fd;
}

/* True: one of them answered.  All of them silent until the end, or until it is ended: no. */
static bool wait_answer(struct pollfd *waiting, nfds_t n, int64_t until_ms)
{
    process_waiting w;
    int found = 0;

    process_waiting_begin(&w);
    while (found == 0 && !process_waiting_is_ended(&w)) {
        int64_t left_ms = until_ms - clock_mono_ms();

        if (left_ms <= 0)
            break;
        found = poll(waiting, n, left_ms < LOOK_MS ? (int)left_ms : LOOK_MS);
        if (found < 0 && errno == EINTR)
            found = 0;
    }
    process_waiting_end(&w);
    return found != 0; /* a failure of poll() is no silence of theirs */
}

static bool any_answers(const struct addrinfo *list, int64_t until_ms)
{
    struct pollfd waiting[MAX_ADDRESSES];
    nfds_t n = 0;
    bool answers = false, is_silent;

    for (const struct addrinfo *a = list; a != NULL && n < MAX_ADDRESSES && !answers;
         a = a->ai_next) {
        int fd = begin(a, &is_silent);

        answers = !is_silent;
        if (fd >= 0)
            waiting[n++] = (struct pollfd){ .fd = fd, .events = POLLOUT };
    }
    if (!answers)
        answers = wait_answer(waiting, n, until_ms);
    for (nfds_t i = 0; i < n; i++)
        close(waiting[i].fd);
    return answers;
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
    answers = any_answers(list, until_ms < deadline_ms ? until_ms : deadline_ms);
    freeaddrinfo(list);
    return answers;
}
