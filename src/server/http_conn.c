/*
 * http_conn.c - who is connected, from where, and for how long (T18, reliability 7).
 *
 * libmicrohttpd's own timeout is about silence, so one byte a minute holds a connection for ever.
 * These clocks are about progress.  A thread, the reaper, looks at each TCP connection a few times
 * a second and ends those that are too slow, by shutdown(): the event thread then meets a closed
 * socket and cleans up as for any client that left.
 *
 *     head     head_timeout from the first byte of a request (from accept, for the first one)
 *     body     at least min_bytes_per_window in any window of 30 s, and body_limit for all of it
 *     answer   the same rate, counted in bytes that the client has acknowledged
 *
 * Whether a request has begun is not asked of the library, which tells only of whole lines: it has
 * when more bytes came than the requests before were long.  Under TLS, and after chunks, how long
 * they were is not known, and what the kernel has handed out when one is over stands for it; bytes
 * of the next one that lay in the same record are then seen when more of it comes.
 *
 * The rate is a leaky bucket: a connection holds at most a window's worth of credit, earns a unit
 * for each byte that moved, and pays the minimum for the time that passed.  Time in which the
 * client waits for us (a worker is busy, a pipe is full) costs nothing.  What moved is what the
 * kernel says (TCP_INFO), so bytes that sit in a socket buffer of ours count for nobody.
 *
 * A client that closes in the middle of a request is not always noticed by the library: its end may
 * come together with its last bytes, and epoll tells of both but once.  When the peer has closed
 * its side and all it sent was read, nothing more can come; a request that is not whole then is
 * ended too, or clients that give up would fill the table for as long as the clocks allow (F10).
 *
 * A relayed request may wait for hours, for an event that the other side sends when it likes; all
 * that time counts for nobody, and what ends it early is only the client's end (is_relay_left).
 *
 * A new phase is seen by its turn number; the fields below "the reaper's own" belong to its thread.
 * Locks: table.mutex, held over shutdown() and getsockopt(), which do not block, and over a
 * request's mutex (http_client_left, http_conns_quiesce).  A
 * connection is taken out of the table before its descriptor is closed, so no foreign one is ever
 * shut down.
 */
#include "server/http_int.h"

#include "base/clock.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define TICK_MS 250
#define N_BUCKETS 256
#define CLOSED_BY_PEER 8 /* TCP_CLOSE_WAIT, of a header that cannot stand beside linux/tcp.h */
#define CLOSED 7         /* TCP_CLOSE */
#define FIRST_REQUEST_MS 1000
#define LEFT_TICKS 2 /* so that what was read a moment ago has been looked at */

struct http_source {
    http_source *next;
    uint8_t address[16];
    size_t n;
};

struct http_conn_table {
    http_clocks clocks;
    pthread_t reaper;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* the first connection came, or stop */
    bool stop;
    http_connection *first;
    size_t n;
    http_source *buckets[N_BUCKETS];
};

/* ---- sources ---- */

/* IPv4 as IPv6 has it.  False: not TCP. */
static bool address_bytes(const struct sockaddr *address, uint8_t out[16])
{
    static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF };

    if (address != NULL && address->sa_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
        return true;
    }
    if (address != NULL && address->sa_family == AF_INET) {
        memcpy(out, mapped, sizeof(mapped));
        memcpy(out + 12, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
        return true;
    }
    return false;
}

/*
 * 127.0.0.1 and ::1: the programs of this machine, and a proxy in front of memfs, which speaks for
 * many.  The other addresses of 127/8 are sources like any other.
 */
static bool is_local(const uint8_t address[16])
{
    static const uint8_t v4[4] = { 127, 0, 0, 1 };
    struct in6_addr in6;

    memcpy(&in6, address, sizeof(in6));
    return IN6_IS_ADDR_LOOPBACK(&in6) ||
           (IN6_IS_ADDR_V4MAPPED(&in6) && memcmp(address + 12, v4, sizeof(v4)) == 0);
}

static size_t most_of(const http_clocks *k, const uint8_t address[16])
{
    return is_local(address) ? k->max_per_local : k->max_per_source;
}

static http_source **source_at(http_conn_table *t, const uint8_t address[16])
{
    unsigned hash = 0;
    http_source **at;

    for (int i = 0; i < 16; i++)
        hash = hash * 31 + address[i];
    at = &t->buckets[hash % N_BUCKETS];
    while (*at != NULL && memcmp((*at)->address, address, 16) != 0)
        at = &(*at)->next;
    return at;
}

static http_source *source_ref(http_conn_table *t, const uint8_t address[16])
{
    http_source **at = source_at(t, address);

    if (*at == NULL) {
        *at = mem_alloc(sizeof(**at));
        memcpy((*at)->address, address, 16);
    }
    (*at)->n++;
    return *at;
}

static void source_unref(http_conn_table *t, http_source *source)
{
    http_source **at;

    if (source == NULL || --source->n > 0)
        return;
    at = source_at(t, source->address);
    *at = source->next;
    free(source);
}

/* Two event threads may admit at once; http_conns_add() is where the bounds are exact. */
bool http_conns_admit(http_conn_table *t, const struct sockaddr *address)
{
    uint8_t bytes[16];
    http_source *source;
    bool is_free;

    if (!address_bytes(address, bytes))
        return true;
    pthread_mutex_lock(&t->mutex);
    source = *source_at(t, bytes);
    is_free = t->n < t->clocks.max_connections &&
              (source == NULL || source->n < most_of(&t->clocks, bytes));
    pthread_mutex_unlock(&t->mutex);
    return is_free;
}

/* ---- the table ---- */

http_connection *http_conns_add(http_conn_table *t, int fd, const struct sockaddr *address)
{
    http_connection *c = mem_alloc(sizeof(*c));
    uint8_t bytes[16];

    c->fd = fd;
    c->is_timed = address_bytes(address, bytes);
    c->came_ms = c->phase_ms = c->counted_ms = clock_mono_ms();
    pthread_mutex_lock(&t->mutex);
    if (c->is_timed)
        c->source = source_ref(t, bytes);
    c->next = t->first;
    if (t->first != NULL)
        t->first->prev = c;
    t->first = c;
    if (t->n++ == 0)
        pthread_cond_signal(&t->changed);
    if (c->is_timed &&
        (t->n > t->clocks.max_connections || c->source->n > most_of(&t->clocks, bytes)))
        shutdown(fd, SHUT_RDWR);
    pthread_mutex_unlock(&t->mutex);
    return c;
}

void http_conns_remove(http_conn_table *t, http_connection *c)
{
    pthread_mutex_lock(&t->mutex);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        t->first = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    t->n--;
    source_unref(t, c->source);
    pthread_mutex_unlock(&t->mutex);
    free(c);
}

void http_conn_set_request(http_conn_table *t, http_connection *c, http_request *rq)
{
    pthread_mutex_lock(&t->mutex);
    c->rq = rq;
    c->has_asked = true;
    pthread_mutex_unlock(&t->mutex);
}

void http_conn_set_phase(http_connection *c, http_phase phase)
{
    if (atomic_load_explicit(&c->phase, memory_order_relaxed) == (int)phase)
        return;
    atomic_store(&c->phase, phase);
    atomic_fetch_add(&c->turn, 1);
}

size_t http_conns_count(http_conn_table *t)
{
    size_t n;

    pthread_mutex_lock(&t->mutex);
    n = t->n;
    pthread_mutex_unlock(&t->mutex);
    return n;
}

/* Its first request is on the way, most likely: who has just come is not sent away unheard. */
static bool is_about_to_ask(const http_connection *c)
{
    return !c->has_asked && clock_mono_ms() - c->came_ms < FIRST_REQUEST_MS;
}

size_t http_conns_quiesce(http_conn_table *t, void (*fn)(http_request *rq))
{
    size_t n = 0;

    pthread_mutex_lock(&t->mutex);
    for (http_connection *c = t->first; c != NULL; c = c->next) {
        if (c->rq == NULL && (fn != NULL || !is_about_to_ask(c)))
            shutdown(c->fd, SHUT_RDWR);
        else
            n++;
        if (c->rq != NULL && fn != NULL)
            fn(c->rq);
    }
    pthread_mutex_unlock(&t->mutex);
    return n;
}

void http_conn_peer(const http_connection *c, char out[HTTP_PEER_LEN])
{
    static_assert(HTTP_PEER_LEN >= INET6_ADDRSTRLEN, "room for any address");
    struct in6_addr in6;

    out[0] = '\0';
    if (c->source == NULL)
        return;
    memcpy(&in6, c->source->address, sizeof(in6));
    if (IN6_IS_ADDR_V4MAPPED(&in6))
        inet_ntop(AF_INET, c->source->address + 12, out, HTTP_PEER_LEN);
    else
        inet_ntop(AF_INET6, &in6, out, HTTP_PEER_LEN);
}

/* ---- the clocks ---- */

typedef struct moved {
    uint64_t received, acked;
    bool is_half_closed; /* the peer sends no more */
} moved;

static bool read_moved(int fd, moved *ret)
{
    struct tcp_info info = { 0 };
    socklen_t len = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
        len < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received))
        return false; /* a kernel before 4.1 */
    ret->received = info.tcpi_bytes_received;
    ret->acked = info.tcpi_bytes_acked;
    ret->is_half_closed = info.tcpi_state == CLOSED_BY_PEER;
    return true;
}

static bool is_paying(http_phase phase)
{
    return phase == HTTP_PHASE_BODY || phase == HTTP_PHASE_ANSWER;
}

void http_conn_used(http_connection *c, uint64_t n_bytes)
{
    int before = 0, n_unread = 0;
    moved m = { 0 };

    if (!c->is_timed)
        return;
    if (n_bytes > 0) {
        atomic_fetch_add(&c->used_bytes, n_bytes);
        return;
    }
    do { /* both of the same moment */
        before = n_unread;
        if (!read_moved(c->fd, &m) || ioctl(c->fd, FIONREAD, &n_unread) < 0)
            return;
    } while (n_unread != before);
    atomic_store(&c->used_bytes, m.received - (uint64_t)n_unread);
}

/* A head's clock runs from its first byte, which came before its first line was seen. */
static int64_t phase_began(const http_connection *c, http_phase phase, unsigned turn, int64_t now)
{
    if (phase != HTTP_PHASE_HEAD || turn != c->seen_turn + 1)
        return now;
    if (!c->had_request)
        return c->phase_ms;
    return c->head_ms != 0 ? c->head_ms : now;
}

static void enter_phase(const http_clocks *k, http_connection *c, http_phase phase, unsigned turn,
                        const moved *m, int64_t now)
{
    c->phase_ms = phase_began(c, phase, turn, now);
    c->seen_turn = turn;
    c->counted_ms = now;
    c->credit_bytes = k->min_bytes_per_window;
    c->counted_bytes = phase == HTTP_PHASE_ANSWER ? m->acked : m->received;
    c->head_ms = 0;
    c->had_request = true; /* or there would have been no turn; it may be over already */
}

/* Between requests a connection may be silent; from the next one's first byte its clock runs. */
static bool is_head_late(const http_clocks *k, http_connection *c, http_phase phase, const moved *m,
                         int64_t now)
{
    if (phase == HTTP_PHASE_IDLE && c->had_request) {
        if (c->head_ms == 0 && m->received > atomic_load(&c->used_bytes))
            c->head_ms = now;
        return c->head_ms != 0 && now - c->head_ms > k->head_timeout_ms;
    }
    return now - c->phase_ms > k->head_timeout_ms;
}

static bool is_rate_low(const http_clocks *k, http_connection *c, http_phase phase, const moved *m,
                        int64_t now)
{
    uint64_t bytes = phase == HTTP_PHASE_ANSWER ? m->acked : m->received;

    if (!atomic_load(&c->is_ours)) {
        c->credit_bytes += (int64_t)(bytes - c->counted_bytes);
        c->credit_bytes -= k->min_bytes_per_window * (now - c->counted_ms) / k->window_ms;
        if (c->credit_bytes > k->min_bytes_per_window)
            c->credit_bytes = k->min_bytes_per_window;
    }
    c->counted_bytes = bytes;
    c->counted_ms = now;
    return c->credit_bytes < 0;
}

/* Has the client gone away in the middle of its request? */
static bool has_left(http_connection *c, http_phase phase, const moved *m)
{
    int n_unread = 0;
    bool is_open = phase == HTTP_PHASE_IDLE || phase == HTTP_PHASE_HEAD || phase == HTTP_PHASE_BODY;

    if (!m->is_half_closed || !is_open || atomic_load(&c->is_ours) ||
        ioctl(c->fd, FIONREAD, &n_unread) < 0 || n_unread > 0)
        c->n_left = 0;
    else
        c->n_left++;
    return c->n_left > LEFT_TICKS;
}

static bool is_too_slow(const http_clocks *k, http_connection *c, int64_t now)
{
    unsigned turn = atomic_load(&c->turn);
    http_phase phase = (http_phase)atomic_load(&c->phase);
    int64_t limit = (int64_t)atomic_load(&c->body_limit_ms);
    moved m;

    if (!c->is_timed || !read_moved(c->fd, &m))
        return false;
    if (turn != c->seen_turn) {
        enter_phase(k, c, phase, turn, &m, now);
        return false;
    }
    if (has_left(c, phase, &m))
        return true;
    if (phase == HTTP_PHASE_IDLE || phase == HTTP_PHASE_HEAD)
        return is_head_late(k, c, phase, &m, now);
    if (phase == HTTP_PHASE_BODY && limit > 0 && now - c->phase_ms > limit)
        return true;
    return is_paying(phase) && is_rate_low(k, c, phase, &m, now);
}

/*
 * A request that is relayed may wait for hours, put aside, where the library does not look at its
 * socket: the kernel is asked whether the client has closed its side (taken for leaving, as proxies
 * do) or is gone.
 */
static bool is_relay_left(http_connection *c)
{
    struct tcp_info info = { 0 };
    socklen_t len = sizeof(info);

    if (!c->is_timed || c->rq == NULL || !atomic_load(&c->is_relayed) ||
        getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
        (info.tcpi_state != CLOSED_BY_PEER && info.tcpi_state != CLOSED))
        c->n_gone = 0;
    else
        c->n_gone++;
    return c->n_gone > LEFT_TICKS;
}

static void wait_for_tick(http_conn_table *t)
{
    struct timespec until;

    if (t->n == 0) {
        pthread_cond_wait(&t->changed, &t->mutex); /* nobody is here: sleep until somebody is */
        return;
    }
    until = clock_at(clock_mono_ms() + TICK_MS);
    pthread_cond_timedwait(&t->changed, &t->mutex, &until);
}

static void *reap(void *arg)
{
    http_conn_table *t = arg;

    pthread_mutex_lock(&t->mutex);
    while (!t->stop) {
        int64_t now = clock_mono_ms();

        for (http_connection *c = t->first; c != NULL; c = c->next) {
            if (is_too_slow(&t->clocks, c, now))
                shutdown(c->fd, SHUT_RDWR);
            else if (is_relay_left(c))
                http_client_left(c->rq);
        }
        wait_for_tick(t);
    }
    pthread_mutex_unlock(&t->mutex);
    return NULL;
}

memfs_code http_conns_new(const http_clocks *clocks, http_conn_table **ret, memfs_error *err)
{
    http_conn_table *t = mem_alloc(sizeof(*t));

    t->clocks = *clocks;
    pthread_mutex_init(&t->mutex, NULL);
    clock_cond_init(&t->changed);
    errno = pthread_create(&t->reaper, NULL, reap, t);
    if (errno != 0) {
        free(t);
        return memfs_fail_errno(err, "could not start a thread");
    }
    *ret = t;
    return MEMFS_OK;
}

void http_conns_free(http_conn_table *t)
{
    if (t == NULL)
        return;
    pthread_mutex_lock(&t->mutex);
    t->stop = true;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->mutex);
    pthread_join(t->reaper, NULL);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->mutex);
    free(t);
}
