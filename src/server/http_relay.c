/*
 * http_relay.c - requests that another thread answers with what it has from elsewhere, many at once
 * (gateway.c).
 *
 * The pipes and the putting aside are those of a stream; instead of a worker that waits there is
 * somebody who is poked.  Its calls never wait: a take that finds nothing and a put that finds no
 * room note what is missing (wants_body, wants_room), and the event thread pokes when it is there.
 * Room is worth a poke when the pipe is half empty, so that a large answer flows in large pieces.
 *
 * The client's leaving is a poke too (is_dead); the request stays until http_relay_release().
 */
#include "server/http_int.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

/* A client that is gone without a word is seen within about a minute, as a server is. */
#define KEEPALIVE_IDLE_S 30
#define KEEPALIVE_INTERVAL_S 10
#define KEEPALIVE_TRIES 3

/* ---- the target ---- */

static bool is_plain(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c != '\0' && strchr("-._~!$&'()*+,;=:@", c) != NULL);
}

static void put_segment(memfs_buf *out, memfs_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (is_plain((unsigned char)s.ptr[i]))
            buf_putc(out, s.ptr[i]);
        else
            buf_printf(out, "%%%02X", (unsigned char)s.ptr[i]);
    }
}

/* Its escapes were found to be good; they stay, and so does the order and what '+' means. */
static void put_query(memfs_buf *out, memfs_str query)
{
    for (size_t i = 0; i < query.len; i++) {
        unsigned char c = (unsigned char)query.ptr[i];

        if (is_plain(c) || c == '%' || c == '/' || c == '?' || c == '[' || c == ']')
            buf_putc(out, (char)c);
        else
            buf_printf(out, "%%%02X", c);
    }
}

void http_canonical_target(const http_request *rq, memfs_buf *out)
{
    const http_target *t = &rq->target;
    memfs_str path, query;

    for (size_t i = 0; i < t->n_segments; i++) {
        buf_putc(out, '/');
        put_segment(out, t->segments[i]);
    }
    if (t->n_segments == 0 ||
        t->end > t->segments[t->n_segments - 1].ptr + t->segments[t->n_segments - 1].len)
        buf_putc(out, '/');
    if (!str_split(str_of(rq->raw), '?', &path, &query))
        return;
    buf_putc(out, '?');
    put_query(out, query);
}

/* ---- the head ---- */

bool http_header_at(const http_request *rq, size_t i, memfs_str *ret_name, memfs_str *ret_value)
{
    if (rq->headers[i].key.ptr == NULL)
        return false;
    *ret_name = rq->headers[i].key;
    *ret_value = rq->headers[i].value;
    return true;
}

bool http_is_head(const http_request *rq)
{
    return rq->is_head_method;
}

bool http_is_tls(const http_request *rq)
{
    return rq->front != &rq->server->local && rq->server->tls != NULL;
}

int64_t http_relay_body_bytes(const http_request *rq)
{
    const char *text = http_header(rq, "Content-Length");
    uint64_t length = 0;

    if (rq->is_body_ended)
        return rq->n_body > 0 || rq->is_chunked || text != NULL ? (int64_t)rq->n_body : -2;
    if (text != NULL && str_to_u64(str_of(text), INT64_MAX, &length))
        return (int64_t)length;
    return -1;
}

/* ---- event thread ---- */

void http_run_relay(http_request *rq)
{
    rq->route->handler(rq, http_server_app(rq->server));
    if (!rq->is_relayed && !rq->is_answered) /* it may be over by now */
        http_send_detail(rq, 500, "An unknown error occurred");
}

static void keep_alive(int fd)
{
    const int on = 1, idle = KEEPALIVE_IDLE_S, interval = KEEPALIVE_INTERVAL_S;
    const int tries = KEEPALIVE_TRIES;

    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof(tries));
}

void http_relay_begin(http_request *rq, void (*poke)(void *ctx), void *ctx)
{
    http_request_ref(rq);
    keep_alive(rq->conn->fd);
    atomic_store(&rq->conn->is_relayed, true);
    pthread_mutex_lock(&rq->mutex);
    rq->is_relayed = true;
    rq->length = -1;
    rq->poke_ctx = ctx;
    rq->poke = poke;
    pthread_mutex_unlock(&rq->mutex);
}

void http_poke_locked(http_request *rq)
{
    bool has_body = rq->wants_body && (rq->in.len > 0 || rq->is_body_ended || rq->is_discarding);
    bool has_room = rq->wants_room && rq->out_pipe.len <= rq->out_pipe.max_bytes / 2;
    bool is_gone = rq->is_dead || rq->is_cut;

    if (rq->poke == NULL || !(has_body || has_room || is_gone))
        return;
    rq->wants_body = rq->wants_body && !has_body;
    rq->wants_room = rq->wants_room && !has_room;
    rq->poke(rq->poke_ctx);
}

/* ---- the reaper ---- */

void http_client_left(http_request *rq)
{
    pthread_mutex_lock(&rq->mutex);
    rq->is_cut = true;
    http_wake_locked(rq);
    http_poke_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
}

/* ---- the other thread ---- */

ssize_t http_relay_take(http_request *rq, void *bytes, size_t n)
{
    ssize_t got;

    pthread_mutex_lock(&rq->mutex);
    got = (ssize_t)http_pipe_take(&rq->in, bytes, n);
    if (rq->is_dead || rq->is_cut || rq->body_error.code != MEMFS_OK)
        got = -2;
    else if (got == 0 && !rq->is_body_ended)
        got = -1;
    rq->wants_body = got == -1;
    if (!rq->is_body_ended && rq->in.len <= rq->in.max_bytes / 2)
        http_wake_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
    return got;
}

void http_relay_head(http_request *rq, int status, int64_t length)
{
    pthread_mutex_lock(&rq->mutex);
    rq->status = status;
    rq->length = length;
    rq->is_begun = true;
    rq->wants_flush = true;
    if (rq->is_body_ended)
        http_wake_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
}

bool http_relay_put(http_request *rq, memfs_str bytes)
{
    bool is_taken;

    pthread_mutex_lock(&rq->mutex);
    is_taken = rq->out_pipe.max_bytes - rq->out_pipe.len >= bytes.len;
    rq->wants_room = !is_taken;
    if (is_taken)
        http_pipe_put(&rq->out_pipe, bytes.ptr, bytes.len);
    /* The library reads all of a request before it answers: an answer that does not fit into the
     * pipe before the body's end would have both wait for each other.  The rest of the body is read
     * and forgotten, and the transfer ends with the next take, unless the body was not looked at
     * any more.  To let the body flow on instead, until the server takes no more of it, would want
     * a clock that tells a slow server from one that waits for us; the bound needs none. */
    else if (!rq->is_body_ended)
        http_give_up_body_locked(rq, MEMFS_EUNAVAIL, "the answer began before the body's end");
    if (rq->is_body_ended || !is_taken)
        http_wake_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
    return is_taken;
}

bool http_relay_is_gone(const http_request *rq)
{
    pthread_mutex_t *mutex = (pthread_mutex_t *)(uintptr_t)&rq->mutex;
    bool is_gone;

    pthread_mutex_lock(mutex);
    is_gone = rq->is_dead || rq->is_cut;
    pthread_mutex_unlock(mutex);
    return is_gone;
}

void http_relay_release(http_request *rq)
{
    pthread_mutex_lock(&rq->mutex);
    rq->poke = NULL;
    pthread_mutex_unlock(&rq->mutex);
    http_request_unref(rq);
}

/* ---- the gate ---- */

void http_gate_hold(http_request *rq)
{
    http_request_ref(rq);
    pthread_mutex_lock(&rq->mutex);
    rq->gate_told = 0;
    pthread_mutex_unlock(&rq->mutex);
}

void http_gate_tell(http_request *rq, int what)
{
    pthread_mutex_lock(&rq->mutex);
    rq->gate_told = what;
    http_wake_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
    http_request_unref(rq);
}

int http_gate_told(const http_request *rq)
{
    pthread_mutex_t *mutex = (pthread_mutex_t *)(uintptr_t)&rq->mutex;
    int what;

    pthread_mutex_lock(mutex);
    what = rq->gate_told;
    pthread_mutex_unlock(mutex);
    return what;
}
