/*
 * load.c - asks one server the same few requests over and over, on several kept connections, and says
 * how many answers a second came back.
 *
 *     bench_load [--own] PORT CONNECTIONS MILLISECONDS REQUEST_FILE...
 *
 * Each file holds one raw HTTP/1.1 request.  Every connection sends them in turn, one at a time (no
 * pipelining), as clients do; with --own each keeps to one of them.  "########" in a request becomes a
 * number that no other has, nor one of a run some seconds before, so that a change makes objects that
 * are not there yet.  One thread and one epoll do it all, so that the client takes as little as possible
 * of the machine that it shares with the server; the same client asks every server that
 * is compared.  An answer counts when its status is 200 and its body is complete, by Content-Length
 * or by chunks.  A server that closes a connection (it may) gets a new one; `reconnects` counts them.
 *
 * Prints one line of JSON.  Exits with 1 when an answer was not 200 or could not be read.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_MAX = 4 << 20, MAX_REQUESTS = 256, MAX_CONNECTIONS = 1024, MAX_SAMPLES = 1 << 22 };

#define NUMBER "########"
enum { NUMBER_LEN = sizeof(NUMBER) - 1 };

typedef struct request {
    char *bytes;
    size_t len;
    char *number; /* where NUMBER was; NULL: nowhere */
} request;

typedef struct connection {
    int fd;
    size_t turn; /* which request is under way */
    int64_t sent_at_us;
    char *in;
    size_t n_in;
} connection;

typedef struct load {
    uint16_t port;
    int epoll;
    request requests[MAX_REQUESTS];
    size_t n_requests;
    connection connections[MAX_CONNECTIONS];
    size_t n_connections;
    bool is_own;
    uint64_t n_answers, n_bytes, n_reconnects;
    uint64_t number; /* the last one that a request got */
    uint32_t *samples_us;
    size_t n_samples;
} load;

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const char *what)
{
    fprintf(stderr, "bench_load: %s: %s\n", what, errno ? strerror(errno) : "cannot go on");
    exit(1);
}

static request request_read(const char *path)
{
    request r = { calloc(1, 65536), 0, NULL };
    FILE *f = fopen(path, "rb");

    if (!f || !r.bytes)
        die(path);
    r.len = fread(r.bytes, 1, 65536, f);
    fclose(f);
    r.number = memmem(r.bytes, r.len, NUMBER, NUMBER_LEN);
    return r;
}

/* The value of a header within the head, or NULL. */
static const char *header(const char *head, const char *end, const char *name)
{
    size_t n = strlen(name);

    for (const char *line = head; line && line < end; line = strstr(line, "\r\n")) {
        while (*line == '\r' || *line == '\n')
            line++;
        if (strncasecmp(line, name, n) == 0 && line[n] == ':')
            return line + n + 1 + strspn(line + n + 1, " ");
    }
    return NULL;
}

/* Length of a complete chunked body at p, or 0 while it is not complete. */
static size_t chunked_length(const char *p, const char *end)
{
    const char *start = p;

    for (;;) {
        const char *line = memmem(p, (size_t)(end - p), "\r\n", 2);
        unsigned long n;

        if (!line)
            return 0;
        n = strtoul(p, NULL, 16);
        p = line + 2;
        if ((size_t)(end - p) < n + 2)
            return 0;
        p += n + 2;
        if (n == 0)
            return (size_t)(p - start);
    }
}

/* Length of the complete answer in c->in, or 0 while it is not complete. */
static size_t answer_length(const connection *c)
{
    const char *end = c->in + c->n_in;
    const char *body = memmem(c->in, c->n_in, "\r\n\r\n", 4);
    const char *value;
    size_t n;

    if (!body)
        return 0;
    body += 4;
    if (strncmp(c->in, "HTTP/1.1 200", 12) != 0) {
        fprintf(stderr, "bench_load: %.*s\n", (int)c->n_in, c->in);
        errno = 0;
        die("not a 200");
    }
    value = header(c->in, body, "Content-Length");
    if (value) {
        n = (size_t)(body - c->in) + strtoul(value, NULL, 10);
        return n <= c->n_in ? n : 0;
    }
    n = chunked_length(body, end);
    return n ? (size_t)(body - c->in) + n : 0;
}

static void connection_open(load *l, connection *c)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(l->port) };
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
    int one = 1;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event);
    c->n_in = 0;
}

static void request_number(const request *r, uint64_t n)
{
    char digits[32];

    if (!r->number)
        return;
    snprintf(digits, sizeof(digits), "%08llu", (unsigned long long)(n % 100000000));
    memcpy(r->number, digits, NUMBER_LEN);
}

/* Requests are far smaller than a socket's buffer, so one write takes all of it. */
static void connection_send(load *l, connection *c)
{
    const request *r = &l->requests[c->turn];

    request_number(r, ++l->number);
    c->sent_at_us = now_us();
    if (send(c->fd, r->bytes, r->len, MSG_NOSIGNAL) == (ssize_t)r->len)
        return;
    close(c->fd);
    connection_open(l, c);
    l->n_reconnects++;
    if (send(c->fd, r->bytes, r->len, MSG_NOSIGNAL) != (ssize_t)r->len)
        die("send");
}

static void connection_reopen(load *l, connection *c)
{
    close(c->fd);
    connection_open(l, c);
    l->n_reconnects++;
    connection_send(l, c);
}

static void connection_answered(load *l, connection *c, size_t n)
{
    uint32_t took = (uint32_t)(now_us() - c->sent_at_us);
    bool closes;
    const char *body = memmem(c->in, c->n_in, "\r\n\r\n", 4);
    const char *value = header(c->in, body, "Connection");

    l->n_answers++;
    l->n_bytes += n;
    if (l->n_samples < MAX_SAMPLES)
        l->samples_us[l->n_samples++] = took;
    closes = value && strncasecmp(value, "close", 5) == 0;
    if (!l->is_own)
        c->turn = (c->turn + 1) % l->n_requests;
    c->n_in = 0;
    if (closes)
        connection_reopen(l, c);
    else
        connection_send(l, c);
}

static void connection_read(load *l, connection *c)
{
    ssize_t n = recv(c->fd, c->in + c->n_in, ANSWER_MAX - c->n_in - 1, 0);
    size_t len;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        if (c->n_in > 0)
            die("an answer was cut");
        connection_reopen(l, c);
        return;
    }
    c->n_in += (size_t)n;
    c->in[c->n_in] = '\0';
    len = answer_length(c);
    if (len > 0)
        connection_answered(l, c, len);
    else if (c->n_in + 1 >= ANSWER_MAX)
        die("an answer is too long");
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void report(load *l, double seconds)
{
    size_t n = l->n_samples;

    errno = 0;
    if (n == 0)
        die("no answer in that time");
    qsort(l->samples_us, n, sizeof(*l->samples_us), by_value);
    printf("{\"answers\": %llu, \"seconds\": %.3f, \"per_second\": %.1f, \"bytes\": %llu, "
           "\"p50_us\": %u, \"p99_us\": %u, \"reconnects\": %llu}\n",
           (unsigned long long)l->n_answers, seconds, (double)l->n_answers / seconds,
           (unsigned long long)l->n_bytes, l->samples_us[n / 2], l->samples_us[n * 99 / 100],
           (unsigned long long)l->n_reconnects);
}

static void run(load *l, int64_t ms)
{
    int64_t start = now_us(), end = start + ms * 1000;
    struct epoll_event events[256];

    for (size_t i = 0; i < l->n_connections; i++) {
        l->connections[i].in = malloc(ANSWER_MAX);
        if (!l->connections[i].in)
            die("malloc");
        l->connections[i].turn = l->is_own ? i % l->n_requests : 0;
        connection_open(l, &l->connections[i]);
        connection_send(l, &l->connections[i]);
    }
    while (now_us() < end) {
        int n = epoll_wait(l->epoll, events, 256, 1000);

        for (int i = 0; i < n; i++)
            connection_read(l, events[i].data.ptr);
    }
    report(l, (double)(now_us() - start) / 1e6);
}

int main(int argc, char **argv)
{
    static load l;

    if (argc > 1 && strcmp(argv[1], "--own") == 0) {
        l.is_own = true;
        argc--;
        argv++;
    }
    if (argc < 5 || argc - 4 > MAX_REQUESTS) {
        fprintf(stderr, "usage: bench_load [--own] PORT CONNECTIONS MILLISECONDS REQUEST_FILE...\n");
        return 2;
    }
    l.port = (uint16_t)strtoul(argv[1], NULL, 10);
    l.n_connections = strtoul(argv[2], NULL, 10);
    if (l.n_connections == 0 || l.n_connections > MAX_CONNECTIONS)
        die("connections");
    for (int i = 4; i < argc; i++)
        l.requests[l.n_requests++] = request_read(argv[i]);
    l.number = (uint64_t)now_us() / 100; /* nobody sends one each 0.1 ms */
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    l.samples_us = malloc(sizeof(*l.samples_us) * MAX_SAMPLES);
    if (l.epoll < 0 || !l.samples_us)
        die("epoll");
    run(&l, strtol(argv[3], NULL, 10));
    return 0;
}
