/*
 * http.c - libmicrohttpd on one side, requests and handlers on the other.
 *
 * Each front is a daemon of the library with its event threads (http_server.c starts and ends them).
 * The library calls back in this order, always on the event thread of the connection:
 *
 *     on_connection(started)
 *       on_uri         the raw target; the request is made
 *       on_access      once with the head: judged, matched; here a refusal may end the connection
 *                      before "100 Continue" is said
 *       on_access *    with pieces of the body -> rq->in
 *       on_access      when the body has ended: the handler runs here (FAST, quick) or on a worker,
 *                      and the connection is put aside until there is an answer
 *       read_answer *  bytes of a streamed answer <- rq->out_pipe
 *       on_completed   the request is over, whatever became of it
 *     on_connection(closed)
 *
 * Back-pressure is the library's suspend and resume: a connection is put aside (rq->is_suspended)
 * while the body's pipe is full, while nobody has an answer, or while the answer's pipe is empty,
 * and http_wake_locked() brings it back.  Both are done under rq->mutex, so no wake-up is lost.
 *
 * The library can answer only after the head or after the whole body.  So when an answer is there
 * early, the rest of the body is read and thrown away, up to a bound; past it the connection is
 * cut.
 */
#include "server/http_int.h"

#include "base/mem.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTION_MEMORY                                                                          \
    (64u << 10) /* half of it is the first read buffer: a head fits, unmoved */
#define THREAD_STACK_BYTES (1u << 20)
#define IDLE_TIMEOUT_S 60u
#define STREAM_BLOCK_BYTES (32u << 10)
#define WAKE_BYTES (16u << 10)

/* The version whose parser http_guard_is_exact() was tested with. */
#define EXACT_HEADS_VERSION "0.9.75"

/* ---- aside and back ---- */

static void put_aside_locked(http_request *rq)
{
    MHD_suspend_connection(rq->mhd);
    rq->is_suspended = true;
    atomic_store(&rq->conn->is_ours, true);
}

void http_wake_locked(http_request *rq)
{
    if (!rq->is_suspended || rq->is_dead)
        return;
    rq->is_suspended = false;
    MHD_resume_connection(rq->mhd);
}

/* ---- the answer ---- */

static void add_headers(const http_request *rq, struct MHD_Response *response)
{
    bool has_id = false;

    if (rq->content_type[0] != '\0')
        MHD_add_response_header(response, "Content-Type", rq->content_type);
    for (size_t i = 0; i < rq->n_set_headers; i++) {
        MHD_add_response_header(response, rq->set_headers[i].key.ptr, rq->set_headers[i].value.ptr);
        has_id = has_id || strcasecmp(rq->set_headers[i].key.ptr, "X-Request-Id") == 0;
    }
    if (!has_id)
        MHD_add_response_header(response, "X-Request-Id", rq->id);
    if (rq->must_close || atomic_load(&rq->server->is_stopping))
        MHD_add_response_header(response, "Connection", "close");
}

static enum MHD_Result queue(http_request *rq, struct MHD_Response *response)
{
    enum MHD_Result done;

    if (response == NULL)
        return MHD_NO;
    add_headers(rq, response);
    http_conn_set_phase(rq->conn, HTTP_PHASE_ANSWER);
    done = MHD_queue_response(rq->mhd, (unsigned)rq->status, response);
    MHD_destroy_response(response);
    return done;
}

/* The bytes become the library's. */
static struct MHD_Response *response_of(char *bytes, size_t n)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(n, bytes, MHD_RESPMEM_MUST_FREE);

    if (response == NULL)
        free(bytes);
    return response;
}

static enum MHD_Result queue_answer(http_request *rq)
{
    size_t n;
    char *bytes = buf_take(&rq->out, &n);

    rq->n_sent = n;
    return queue(rq, response_of(bytes, n));
}

/* A cut must not look like an end, and without chunks only a reset says so. */
static void make_cut_visible(http_request *rq)
{
    struct linger reset = { .l_onoff = 1, .l_linger = 0 };

    setsockopt(rq->conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

static ssize_t read_answer(void *cls, uint64_t pos, char *bytes, size_t n)
{
    http_request *rq = cls;
    ssize_t got;

    (void)pos;
    pthread_mutex_lock(&rq->mutex);
    atomic_store(&rq->conn->is_ours, false);
    got = (ssize_t)http_pipe_take(&rq->out_pipe, bytes, n);
    rq->n_sent += (uint64_t)got;
    if (rq->is_cut || rq->is_dead) {
        make_cut_visible(rq);
        got = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (got == 0 && rq->is_ended) {
        got = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (got == 0) {
        put_aside_locked(rq);
    } else {
        pthread_cond_broadcast(&rq->changed);
        http_poke_locked(rq);
    }
    pthread_mutex_unlock(&rq->mutex);
    return got;
}

/* All of a short answer is in the pipe already: then its length can be told. */
static struct MHD_Response *response_of_pipe(http_request *rq)
{
    size_t n = rq->out_pipe.len;
    char *bytes = mem_alloc(n);

    http_pipe_take(&rq->out_pipe, bytes, n);
    rq->n_sent = n;
    return response_of(bytes, n);
}

/* Of unknown length the library ends with an empty chunk, also where no body may be: so 204 and 304
 * get an empty one, and behind a HEAD the connection is closed. */
static struct MHD_Response *response_without_body(http_request *rq)
{
    if (rq->status == 204 || rq->status == 304)
        return response_of(mem_alloc(1), 0);
    rq->must_close = true;
    return NULL;
}

static enum MHD_Result queue_stream(http_request *rq)
{
    struct MHD_Response *response = NULL;
    uint64_t length = MHD_SIZE_UNKNOWN;

    pthread_mutex_lock(&rq->mutex);
    if (rq->is_relayed && rq->length >= 0)
        length = (uint64_t)rq->length;
    else if (rq->is_relayed && (rq->is_head_method || rq->status == 204 || rq->status == 304))
        response = response_without_body(rq);
    else if (rq->is_ended)
        response = response_of_pipe(rq);
    pthread_mutex_unlock(&rq->mutex);
    if (response == NULL)
        response =
            MHD_create_response_from_callback(length, STREAM_BLOCK_BYTES, read_answer, rq, NULL);
    return queue(rq, response);
}

/* ---- the head ---- */

typedef struct field_list {
    http_pair fields[HTTP_MAX_HEADERS + 1]; /* one more, so that too many are seen as such */
    size_t n, n_bytes;
} field_list;

static enum MHD_Result add_field(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_n,
                                 const char *value, size_t value_n)
{
    field_list *list = cls;

    (void)kind;
    if (list->n == ARRAY_LEN(list->fields))
        return MHD_NO;
    list->fields[list->n].key = str_make(key, key_n);
    list->fields[list->n].value =
        value != NULL ? str_make(value, value_n) : str_make(key + key_n, 0);
    list->n++;
    list->n_bytes += key_n + value_n + 2;
    return MHD_YES;
}

const char *http_header_live(const http_request *rq, const char *name)
{
    return MHD_lookup_connection_value(rq->mhd, MHD_HEADER_KIND, name);
}

/* A worker outlives the connection, so it gets a copy of the head: one block, pairs then text. */
void http_copy_headers(http_request *rq)
{
    field_list list = { .n = 0 };
    char *at;

    MHD_get_connection_values_n(rq->mhd, MHD_HEADER_KIND, add_field, &list);
    rq->headers = mem_alloc((list.n + 1) * sizeof(http_pair) + list.n_bytes);
    at = (char *)(rq->headers + list.n + 1);
    for (size_t i = 0; i < list.n; i++) {
        memfs_str *parts[2] = { &list.fields[i].key, &list.fields[i].value };

        for (int p = 0; p < 2; p++) {
            memcpy(at, parts[p]->ptr, parts[p]->len);
            parts[p]->ptr = at;
            at += parts[p]->len + 1; /* the NUL is there: the block was zeroed */
        }
        rq->headers[i] = list.fields[i];
    }
}

/* NULL, or why it is refused, with which status. */
static const char *judge_head(http_request *rq, const char *method, const char *version,
                              int *ret_status)
{
    const union MHD_ConnectionInfo *info;
    field_list list = { .n = 0 };
    http_head head = { .method = str_of(method), .target = rq->raw_at, .version = str_of(version) };
    const char *fault;

    MHD_get_connection_values_n(rq->mhd, MHD_HEADER_KIND, add_field, &list);
    info = MHD_get_connection_info(rq->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    head.fields = list.fields;
    head.n_fields = list.n;
    head.size = rq->head_bytes = info != NULL ? info->header_size : 0;
    fault = http_guard_head(&head);
    if (fault == NULL && rq->server->has_exact_heads && !http_guard_is_exact(&head))
        fault = "the head has a bare LF, a folded line, a NUL or a blank too many";
    *ret_status = http_guard_is_large(&head) ? 431 : 400;
    return fault;
}

static enum MHD_Result on_head(http_request *rq, const char *method, const char *version)
{
    const char *fault;
    bool is_endless;
    int status;

    rq->has_head = true;
    snprintf(rq->method_name, sizeof(rq->method_name), "%s", method);
    rq->method = http_method_parse(method, &rq->is_head_method);
    fault = judge_head(rq, method, version, &status);
    if (fault != NULL) {
        rq->must_close = true;
        http_send_detail(rq, status, "%s", fault);
        return queue_answer(rq);
    }
    is_endless = !http_admit(rq);
    /* Whoever waits for "100 Continue" is told now; the library closes after an answer to a head.
     */
    if (rq->is_answered &&
        (rq->must_close || is_endless || http_header_live(rq, "Expect") != NULL)) {
        rq->must_close = true;
        return queue_answer(rq);
    }
    return MHD_YES;
}

/* ---- the body ---- */

/* The gate has to be asked again, with what was told meanwhile. */
static bool is_told_locked(const http_request *rq)
{
    return rq->is_gating && rq->gate_told != 0;
}

static enum MHD_Result wait_for_room(http_request *rq)
{
    bool is_dead;

    pthread_mutex_lock(&rq->mutex);
    is_dead = rq->is_dead;
    if (!is_dead)
        put_aside_locked(rq);
    if (rq->in.len < rq->in.max_bytes || rq->is_discarding || is_told_locked(rq))
        http_wake_locked(rq); /* room was made in between */
    pthread_mutex_unlock(&rq->mutex);
    return is_dead ? MHD_NO : MHD_YES;
}

static enum MHD_Result on_body(http_request *rq, const char *bytes, size_t *n)
{
    ssize_t taken = http_take_body(rq, bytes, *n);

    atomic_store(&rq->conn->is_ours, false);
    http_ask_gate_again(rq);
    if (taken >= 0 && (size_t)taken < *n && !rq->is_submitted && !rq->is_gating && !rq->is_refused)
        http_submit(rq); /* the pipe is full: now there is something to do */
    if (taken < 0) {
        make_cut_visible(rq);
        return MHD_NO;
    }
    *n -= (size_t)taken;
    return *n == 0 ? MHD_YES : wait_for_room(rq);
}

/* ---- the turn after the body ---- */

static bool is_stream_ready(const http_request *rq)
{
    return rq->is_begun && (rq->is_ended || rq->wants_flush || rq->out_pipe.len >= WAKE_BYTES);
}

typedef enum turn { TURN_WAIT, TURN_AGAIN, TURN_OVER, TURN_ANSWER, TURN_STREAM } turn;

static turn take_turn(http_request *rq)
{
    turn what = TURN_WAIT;

    pthread_mutex_lock(&rq->mutex);
    if (rq->is_dead || rq->is_cut)
        what = TURN_OVER;
    else if (rq->is_answered)
        what = TURN_ANSWER;
    else if (is_stream_ready(rq))
        what = TURN_STREAM;
    else if (is_told_locked(rq))
        what = TURN_AGAIN;
    else
        put_aside_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
    return what;
}

static enum MHD_Result on_turn(http_request *rq)
{
    turn what;

    do {
        http_ask_gate_again(rq);
        if (http_end_body(rq))
            http_dispatch(rq);
        what = take_turn(rq);
    } while (what == TURN_AGAIN);
    if (what == TURN_WAIT)
        return MHD_YES;
    atomic_store(&rq->conn->is_ours, false);
    if (what == TURN_ANSWER)
        return queue_answer(rq);
    if (what == TURN_STREAM)
        return queue_stream(rq);
    make_cut_visible(rq);
    return MHD_NO;
}

/* ---- callbacks ---- */

static http_connection *connection_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info->socket_context;
}

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    http_front *f = cls;
    http_server *s = f->server;
    http_request *rq = http_request_new(s, f, uri != NULL ? uri : "");

    rq->mhd = mhd;
    rq->raw_at = str_of(uri);
    rq->conn = connection_of(mhd);
    snprintf(rq->id, sizeof(rq->id), "%08x%08x", s->id_prefix, atomic_fetch_add(&s->id_counter, 1));
    http_conn_set_request(s->conns, rq->conn, rq);
    http_conn_set_phase(rq->conn, HTTP_PHASE_HEAD);
    return rq;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *mhd, const char *url,
                                 const char *method, const char *version, const char *bytes,
                                 size_t *n, void **context)
{
    http_request *rq = *context;

    (void)cls, (void)mhd, (void)url;
    if (rq == NULL || (!rq->has_head && atomic_load(&rq->server->is_closed)))
        return MHD_NO;
    if (!rq->has_head)
        return on_head(rq, method, version);
    if (*n > 0)
        return on_body(rq, bytes, n);
    return on_turn(rq);
}

/* How long the request was, to the byte; 0: not known. */
static uint64_t bytes_of(const http_request *rq)
{
    bool is_tls = !rq->front->is_owner && rq->server->tls != NULL;

    return is_tls || rq->is_chunked || rq->head_bytes == 0 ? 0 : rq->head_bytes + rq->n_body;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **context,
                         enum MHD_RequestTerminationCode how)
{
    http_request *rq = *context;
    http_connection *c;

    (void)cls, (void)mhd;
    if (rq == NULL)
        return;
    *context = NULL;
    c = rq->conn;
    http_conn_set_request(rq->server->conns, c, NULL);
    http_conn_used(c, bytes_of(rq));
    http_conn_set_phase(c, HTTP_PHASE_IDLE);
    atomic_store(&c->is_ours, false);
    atomic_store(&c->is_relayed, false);
    pthread_mutex_lock(&rq->mutex);
    rq->is_dead = true;
    if (how != MHD_REQUEST_TERMINATED_COMPLETED_OK)
        rq->is_cut = true;
    pthread_cond_broadcast(&rq->changed);
    http_poke_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
    http_request_unref(rq);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    http_front *f = cls;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        int fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        const union MHD_ConnectionInfo *from =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

        *context = http_conns_add(f->server->conns, fd, from != NULL ? from->client_addr : NULL);
    } else if (*context != NULL) {
        http_conns_remove(f->server->conns, *context);
        *context = NULL;
    }
}

static enum MHD_Result on_accept(void *cls, const struct sockaddr *address, socklen_t len)
{
    http_front *f = cls;

    (void)len;
    /*
     * This is also how a stopping server accepts no more.  MHD_quiesce_daemon() would be the
     * library's way, but in 0.9.75 it races with its own event threads for the listening socket and
     * then ends the process.  From a socket that was handed down nobody comes any more by then
     * (http_listen_let_go); who was just accepted is served.
     */
    if (atomic_load(&f->server->is_stopping) && (f->is_owner || f->server->options.fds == NULL))
        return MHD_NO;
    return http_conns_admit(f->server->conns, address) ? MHD_YES : MHD_NO;
}

/* Targets are decoded by http_route.c; what the library makes of them is looked at by nobody. */
static size_t leave_escapes(void *cls, struct MHD_Connection *mhd, char *text)
{
    (void)cls, (void)mhd;
    return strlen(text);
}

/* ---- a front ---- */

bool http_library_is_known(void)
{
    return strcmp(MHD_get_version(), EXACT_HEADS_VERSION) == 0;
}

memfs_code http_front_start(http_server *s, http_front *f, int fd, size_t n_threads,
                            memfs_error *err)
{
    static char priorities[] = HTTP_TLS_PRIORITIES;
    bool is_tls = !f->is_owner && s->tls != NULL;
    struct MHD_OptionItem some[4] = { { MHD_OPTION_END, 0, NULL } }, *at = some;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;

    if (n_threads > 1)
        *at++ = (struct MHD_OptionItem){ MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)n_threads, NULL };
    if (is_tls) {
        flags |= MHD_USE_TLS;
        *at++ = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_PRIORITIES, 0, priorities };
        *at++ = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_CERT_CALLBACK, 0, http_tls_callback() };
    }
    *at = (struct MHD_OptionItem){ MHD_OPTION_END, 0, NULL };

    /*
     * The library's own limit would leave further connections waiting, unanswered, so it is set
     * where it is never met: http_conn.c counts, and closes what is too much.
     */
    f->server = s;
    f->daemon = MHD_start_daemon(
        flags, 0, on_accept, f, on_access, f, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)(2 * s->options.max_connections * n_threads),
        MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S, MHD_OPTION_THREAD_STACK_SIZE,
        (size_t)THREAD_STACK_BYTES, MHD_OPTION_URI_LOG_CALLBACK, on_uri, f,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, f, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        f, MHD_OPTION_UNESCAPE_CALLBACK, leave_escapes, f, MHD_OPTION_ARRAY, some,
        MHD_OPTION_END);
    if (f->daemon != NULL)
        return MEMFS_OK;
    close(fd);
    return memfs_fail(err, MEMFS_EUNAVAIL, "could not start the HTTP server");
}

void http_front_stop(http_front *f)
{
    if (f->daemon != NULL)
        MHD_stop_daemon(f->daemon);
    f->daemon = NULL;
}
