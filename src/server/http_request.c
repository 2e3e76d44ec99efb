/*
 * http_request.c - a request as its handler sees it: reading it, answering it, streaming both ways.
 *
 * A handler fills rq->out and the fields beside it, then says so under the mutex (is_answered);
 * from then on they belong to the event thread.  A streaming handler says is_begun instead and
 * moves bytes through rq->out_pipe.  Whenever the other side may be waiting it is woken: the event
 * thread by http_wake_locked(), the worker by rq->changed.
 *
 * When the client is gone (is_dead) every call here is a quick no.
 */
#include "server/http_int.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define WAKE_BYTES (16u << 10) /* a streamed answer is passed on in pieces of at least this */
#define GUNZIP_CHUNK (16u << 10)
#define LOGGED_PATH_BYTES 600
#define FIRST_OUT_BYTES 2000 /* room for one block, so that its answer does not grow step by step */

/* ---- life ---- */

static void drop_headers(http_request *rq);

http_request *http_request_new(http_server *s, http_front *f, const char *raw)
{
    http_request *rq = mem_alloc(sizeof(*rq));
    size_t n = strlen(raw) + 1;

    atomic_init(&rq->n_refs, 1);
    rq->server = s;
    rq->front = f;
    rq->raw = mem_alloc(2 * n);
    memcpy(rq->raw, raw, n);
    rq->storage = rq->raw + n;
    rq->began_us = clock_mono_us();
    pthread_mutex_init(&rq->mutex, NULL);
    pthread_cond_init(&rq->changed, NULL);
    http_pipe_init(&rq->in, 0);
    http_pipe_init(&rq->out_pipe, HTTP_PIPE_BYTES);
    rq->out = (memfs_buf)MEMFS_BUF_INIT(HTTP_MAX_ANSWER_BYTES);
    rq->body = (memfs_buf)MEMFS_BUF_INIT(0);
    return rq;
}

void http_request_ref(http_request *rq)
{
    atomic_fetch_add(&rq->n_refs, 1);
}

/* One line a request (design 10).  The query stays out of it: it may hold what people search for.
 */
static void write_log(const http_request *rq)
{
    char path[LOGGED_PATH_BYTES + 1], status[STR_U64_LEN], bytes[STR_U64_LEN];
    char ms[STR_U64_LEN + 2];
    uint64_t tenths = (uint64_t)(clock_mono_us() - rq->began_us + 50) / 100;
    size_t n = strcspn(rq->raw, "?");

    if (n > LOGGED_PATH_BYTES)
        n = LOGGED_PATH_BYTES;
    memcpy(path, rq->raw, n);
    path[n] = '\0';
    str_put_u64((uint64_t)rq->status, status);
    str_put_u64(rq->n_sent, bytes);
    n = str_put_u64(tenths / 10, ms);
    memcpy(ms + n, (char[]){ '.', (char)('0' + tenths % 10), '\0' }, 3);
    log_event(LOG_INFO, "request", "method", rq->method_name, "path", path, "status", status,
              "bytes", bytes, "ms", ms, "id", rq->id, "cut", rq->is_cut ? "1" : NULL, "token",
              rq->token_id[0] != '\0' ? rq->token_id : NULL, "note",
              rq->note[0] != '\0' ? rq->note : NULL, NULL);
}

void http_request_unref(http_request *rq)
{
    if (atomic_fetch_sub(&rq->n_refs, 1) > 1)
        return;
    if (http_server_logs(rq->server))
        write_log(rq);
    drop_headers(rq);
    free(rq->set_headers);
    if (rq->gunzip != NULL)
        http_gunzip_dispose(rq->gunzip);
    free(rq->gunzip);
    free(rq->gunzip_in);
    free(rq->headers);
    http_pipe_dispose(&rq->in);
    http_pipe_dispose(&rq->out_pipe);
    buf_dispose(&rq->out);
    buf_dispose(&rq->body);
    pthread_cond_destroy(&rq->changed);
    pthread_mutex_destroy(&rq->mutex);
    free(rq->raw);
    free(rq);
}

/* ---- reading ---- */

const char *http_request_id(const http_request *rq)
{
    return rq->id;
}

memfs_str http_raw_path(const http_request *rq)
{
    return str_make(rq->raw, strcspn(rq->raw, "?"));
}

const http_route *http_matched(const http_request *rq)
{
    return rq->route;
}

http_method http_method_of(const http_request *rq)
{
    return (http_method)rq->method;
}

memfs_str http_param(const http_request *rq, const char *name)
{
    memfs_str value = { "", 0 };

    http_route_param(rq->route, &rq->target, name, &value);
    return value;
}

bool http_query_at(const http_request *rq, const char *key, size_t i, memfs_str *ret)
{
    for (size_t at = 0; at < rq->target.n_pairs; at++) {
        const http_pair *pair = &rq->target.pairs[at];

        if (!str_equal(pair->key, str_of(key)) || i-- > 0)
            continue;
        *ret = pair->value;
        return true;
    }
    return false;
}

bool http_query(const http_request *rq, const char *key, memfs_str *ret)
{
    return http_query_at(rq, key, 0, ret);
}

const char *http_header(const http_request *rq, const char *name)
{
    if (rq->headers == NULL)
        return http_header_live(rq, name);
    for (const http_pair *h = rq->headers; h->key.ptr != NULL; h++)
        if (strcasecmp(h->key.ptr, name) == 0)
            return h->value.ptr;
    return NULL;
}

const void *http_principal(const http_request *rq)
{
    return rq->principal;
}

bool http_is_owner(const http_request *rq)
{
    return rq->front->is_owner;
}

void http_peer(const http_request *rq, char out[HTTP_PEER_LEN])
{
    http_conn_peer(rq->conn, out);
}

memfs_str http_body(const http_request *rq)
{
    return rq->is_gzip ? buf_str(&rq->body) : http_pipe_whole(&rq->in);
}

void http_note(http_request *rq, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(rq->note, sizeof(rq->note), fmt, ap);
    va_end(ap);
}

void http_note_token(http_request *rq, const char *id)
{
    snprintf(rq->token_id, sizeof(rq->token_id), "%s", id);
}

/* ---- answering ---- */

memfs_buf *http_out(http_request *rq)
{
    if (rq->out.cap == 0)
        buf_reserve(&rq->out, FIRST_OUT_BYTES);
    return &rq->out;
}

/* Text that cannot end a header line early; anything else would be a defect of ours. */
static bool is_header_text(const char *s)
{
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7F)
            return false;
    return true;
}

void http_set_header(http_request *rq, const char *name, const char *value)
{
    size_t n_name = strlen(name) + 1, n_value = strlen(value) + 1;
    http_pair *h;
    char *both;

    if (!is_header_text(name) || !is_header_text(value) ||
        rq->n_set_headers == HTTP_MAX_SET_HEADERS) {
        log_event(LOG_ERROR, "bad_response_header", "id", rq->id, "name", name, NULL);
        return;
    }
    if (rq->n_set_headers == rq->set_headers_cap) {
        rq->set_headers_cap = rq->set_headers_cap > 0 ? 2 * rq->set_headers_cap : 8;
        rq->set_headers = mem_realloc(rq->set_headers, rq->set_headers_cap, sizeof(*h));
    }
    h = &rq->set_headers[rq->n_set_headers++];
    both = mem_alloc(n_name + n_value);
    memcpy(both, name, n_name);
    memcpy(both + n_name, value, n_value);
    h->key = str_make(both, n_name - 1);
    h->value = str_make(both + n_name, n_value - 1);
}

bool http_is_hurried(const http_request *rq)
{
    return rq->is_hurried;
}

static void drop_headers(http_request *rq)
{
    for (size_t i = 0; i < rq->n_set_headers; i++)
        free((char *)(uintptr_t)rq->set_headers[i].key.ptr); /* the value lies behind it */
    rq->n_set_headers = 0;
}

void http_defer(http_request *rq)
{
    assert(rq->is_hurried && !rq->is_answered);
    drop_headers(rq);
    buf_clear(&rq->out);
    rq->out.max_bytes = HTTP_MAX_ANSWER_BYTES;
    rq->note[0] = '\0';
    rq->is_deferred = true;
}

static void set_type(http_request *rq, const char *type)
{
    size_t n = strnlen(type, sizeof(rq->content_type) - 1);

    memcpy(rq->content_type, type, n);
    rq->content_type[n] = '\0';
}

/* The fields of the answer are final. */
static void publish(http_request *rq)
{
    if (rq->is_hurried && rq->status == 413) {
        http_defer(rq);
        return;
    }
    pthread_mutex_lock(&rq->mutex);
    assert(!rq->is_answered && !rq->is_begun);
    rq->is_answered = true;
    http_give_up_body_locked(rq, MEMFS_EUNAVAIL, "the answer was given before the body's end");
    http_wake_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
}

static bool has_set_header(const http_request *rq, const char *name)
{
    for (size_t i = 0; i < rq->n_set_headers; i++)
        if (str_equal(rq->set_headers[i].key, str_of(name)))
            return true;
    return false;
}

static void write_detail(http_request *rq, int status, const char *text)
{
    json_writer w = JSON_WRITER_INIT(&rq->out);

    buf_clear(&rq->out);
    jw_object(&w);
    jw_key_text(&w, "detail", text);
    jw_object_end(&w);
    if (status == 503 && !has_set_header(rq, "Retry-After"))
        http_set_header(rq, "Retry-After", "1");
    if (status == 409) /* SDKs would send it twice more, and be told the same (http-api 1.5) */
        http_set_header(rq, "x-should-retry", "false");
    rq->status = status;
    set_type(rq, "application/json");
}

void http_send(http_request *rq, int status, const char *content_type)
{
    if (rq->out.too_big) {
        log_event(LOG_WARN, "answer_too_large", "id", rq->id, NULL);
        write_detail(rq, 413, "The answer is too large; ask for less with limit");
    } else {
        rq->status = status;
        set_type(rq, content_type != NULL ? content_type : "application/json");
    }
    publish(rq);
}

void http_send_detail(http_request *rq, int status, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    write_detail(rq, status, text);
    publish(rq);
}

int http_status_of(memfs_code code)
{
    switch (code) {
    case MEMFS_OK: return 200;
    case MEMFS_EINVALID: return 400;
    case MEMFS_ENOTFOUND: return 404;
    case MEMFS_EEXISTS: return 409;
    case MEMFS_ECONFLICT: return 409;
    case MEMFS_EDENIED: return 403;
    case MEMFS_ELIMIT: return 413;
    case MEMFS_ECORRUPT: return 503;
    case MEMFS_EUNAVAIL: return 503;
    case MEMFS_ENOSPACE: return 507;
    case MEMFS_EINTERNAL: return 500;
    }
    return 500;
}

/* What only an operator can use goes to the log; the client gets the id to ask about. */
void http_send_error(http_request *rq, const memfs_error *e)
{
    int status = http_status_of(e->code);

    if (status >= 500)
        log_event(LOG_WARN, "request_failed", "id", rq->id, "code", memfs_code_name(e->code),
                  "reason", e->msg, NULL);
    write_detail(rq, status, e->code == MEMFS_EINTERNAL ? "An unknown error occurred" : e->msg);
    publish(rq);
}

/* If-None-Match: "*", or a list in which the tag occurs; weakness does not matter for GET. */
static bool names_etag(memfs_str list, memfs_str etag)
{
    while (list.len > 0) {
        memfs_str item = list, rest = str_make(list.ptr + list.len, 0);

        str_split(list, ',', &item, &rest);
        while (item.len > 0 && (item.ptr[0] == ' ' || item.ptr[0] == '\t'))
            item = str_from(item, 1);
        while (item.len > 0 && (item.ptr[item.len - 1] == ' ' || item.ptr[item.len - 1] == '\t'))
            item.len--;
        if (str_starts_with(item, MEMFS_STR("W/")))
            item = str_from(item, 2);
        if (str_equal(item, etag) || str_equal(item, MEMFS_STR("*")))
            return true;
        list = rest;
    }
    return false;
}

bool http_not_modified(http_request *rq, const char *etag)
{
    const char *asked = http_header(rq, "If-None-Match");
    memfs_str tag = str_of(etag);

    http_set_header(rq, "ETag", etag);
    if (str_starts_with(tag, MEMFS_STR("W/")))
        tag = str_from(tag, 2);
    if (asked == NULL || !names_etag(str_of(asked), tag))
        return false;
    buf_clear(&rq->out);
    rq->status = 304;
    rq->content_type[0] = '\0';
    publish(rq);
    return true;
}

/* ---- streaming: the body ---- */

void http_give_up_body_locked(http_request *rq, memfs_code code, const char *why)
{
    if (rq->is_body_ended || rq->is_discarding)
        return;
    rq->is_discarding = true;
    if (rq->body_error.code == MEMFS_OK)
        memfs_fail(&rq->body_error, code, "%s", why);
    pthread_cond_broadcast(&rq->changed);
}

/* The worker waits for the client; whoever else has work takes its place meanwhile (T18). */
static void wait_for_client(http_request *rq)
{
    pool_wait_begin();
    pthread_cond_wait(&rq->changed, &rq->mutex);
    pool_wait_end();
}

static bool is_body_lost(const http_request *rq)
{
    return rq->is_dead || rq->body_error.code != MEMFS_OK;
}

/* The body as it came.  *ret_n == 0: its end. */
static bool read_raw(http_request *rq, void *bytes, size_t n, size_t *ret_n)
{
    bool is_lost;

    pthread_mutex_lock(&rq->mutex);
    while (rq->in.len == 0 && !rq->is_body_ended && !is_body_lost(rq))
        wait_for_client(rq);
    is_lost = is_body_lost(rq);
    if (!is_lost) {
        *ret_n = http_pipe_take(&rq->in, bytes, n);
        if (!rq->is_body_ended && rq->in.len <= rq->in.max_bytes / 2)
            http_wake_locked(rq); /* there is room again, and enough of it to be worth a turn */
    }
    pthread_mutex_unlock(&rq->mutex);
    return !is_lost;
}

static void begin_gunzip(http_request *rq)
{
    uint64_t most = rq->route->max_body_bytes;

    rq->gunzip = mem_alloc(sizeof(*rq->gunzip));
    http_gunzip_init(rq->gunzip, most < HTTP_MAX_GUNZIP_BYTES ? most : HTTP_MAX_GUNZIP_BYTES);
    rq->gunzip_in = mem_alloc(GUNZIP_CHUNK);
    rq->gunzip_left = str_make(rq->gunzip_in, 0);
}

static bool read_gzip(http_request *rq, void *bytes, size_t n, size_t *ret_n)
{
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc;

    if (rq->gunzip == NULL)
        begin_gunzip(rq);
    *ret_n = 0;
    while (*ret_n == 0) {
        size_t n_raw = 0;

        if (rq->gunzip_left.len == 0) {
            if (!read_raw(rq, rq->gunzip_in, GUNZIP_CHUNK, &n_raw))
                return false;
            rq->gunzip_left = str_make(rq->gunzip_in, n_raw);
        }
        rc = http_gunzip_step(rq->gunzip, &rq->gunzip_left, bytes, n, ret_n, &err);
        if (rc == MEMFS_OK && (*ret_n > 0 || n_raw > 0 || rq->gunzip_left.len > 0))
            continue;
        if (rc == MEMFS_OK && rq->gunzip->ended)
            return true;
        if (rc == MEMFS_OK)
            rc = memfs_fail(&err, MEMFS_EINVALID, "the body's gzip is cut short");
        pthread_mutex_lock(&rq->mutex);
        rq->body_error = err;
        http_give_up_body_locked(rq, rc, err.msg);
        pthread_mutex_unlock(&rq->mutex);
        return false;
    }
    return true;
}

bool http_stream_read(http_request *rq, void *bytes, size_t n, size_t *ret_n)
{
    return rq->is_gzip ? read_gzip(rq, bytes, n, ret_n) : read_raw(rq, bytes, n, ret_n);
}

void http_stream_fault(http_request *rq, memfs_error *ret)
{
    pthread_mutex_lock(&rq->mutex);
    *ret = rq->body_error;
    if (ret->code == MEMFS_OK)
        memfs_fail(ret, MEMFS_EUNAVAIL, "the client is gone");
    pthread_mutex_unlock(&rq->mutex);
}

/* ---- streaming: the answer ---- */

void http_stream_begin(http_request *rq, int status, const char *content_type)
{
    rq->status = status;
    set_type(rq, content_type);
    pthread_mutex_lock(&rq->mutex);
    assert(!rq->is_answered && !rq->is_begun);
    rq->is_begun = true;
    pthread_mutex_unlock(&rq->mutex);
}

/* The pipe is full and nobody empties it before the body has ended: then the rest is given up. */
static void make_room(http_request *rq)
{
    http_give_up_body_locked(rq, MEMFS_EUNAVAIL, "the answer began before the body's end");
    rq->wants_flush = true;
    http_wake_locked(rq);
    wait_for_client(rq);
}

bool http_stream_write(http_request *rq, const void *bytes, size_t n)
{
    const char *at = bytes;
    bool is_alive;

    pthread_mutex_lock(&rq->mutex);
    while (n > 0 && !rq->is_dead && !rq->is_cut) {
        size_t taken = http_pipe_put(&rq->out_pipe, at, n);

        at += taken;
        n -= taken;
        if (n > 0)
            make_room(rq);
    }
    if (rq->out_pipe.len >= WAKE_BYTES)
        http_wake_locked(rq);
    is_alive = !rq->is_dead && !rq->is_cut;
    pthread_mutex_unlock(&rq->mutex);
    return is_alive;
}

bool http_stream_flush(http_request *rq)
{
    bool is_alive;

    pthread_mutex_lock(&rq->mutex);
    rq->wants_flush = true;
    http_wake_locked(rq);
    is_alive = !rq->is_dead && !rq->is_cut;
    pthread_mutex_unlock(&rq->mutex);
    return is_alive;
}

void http_stream_end(http_request *rq)
{
    pthread_mutex_lock(&rq->mutex);
    rq->is_ended = true;
    http_give_up_body_locked(rq, MEMFS_EUNAVAIL, "the answer ended before the body");
    http_wake_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
}

void http_stream_cut(http_request *rq)
{
    pthread_mutex_lock(&rq->mutex);
    rq->is_cut = true;
    http_give_up_body_locked(rq, MEMFS_EUNAVAIL, "the answer was cut");
    http_wake_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
}

/* ---- running a handler ---- */

static bool inflate_body(http_request *rq)
{
    char chunk[GUNZIP_CHUNK];
    memfs_error err;
    size_t n;

    rq->body.max_bytes = HTTP_MAX_GUNZIP_BYTES;
    while (http_stream_read(rq, chunk, sizeof(chunk), &n)) {
        if (n == 0)
            return true;
        buf_add(&rq->body, chunk, n);
    }
    http_stream_fault(rq, &err);
    http_send_error(rq, &err);
    return false;
}

/* A handler that forgot to answer is a defect, and the client must not wait for ever. */
static void settle(http_request *rq)
{
    bool is_open, is_half;

    pthread_mutex_lock(&rq->mutex);
    is_half = rq->is_begun && !rq->is_ended && !rq->is_cut;
    is_open = !rq->is_begun && !rq->is_answered && !rq->is_cut && !rq->is_dead;
    pthread_mutex_unlock(&rq->mutex);
    if (is_half)
        http_stream_cut(rq);
    if (!is_open || (rq->is_hurried && rq->is_deferred))
        return;
    log_event(LOG_ERROR, "no_answer", "id", rq->id, "route", rq->route->pattern, NULL);
    http_send_detail(rq, 500, "An unknown error occurred");
}

void http_run_handler(http_request *rq)
{
    if (rq->route->kind != HTTP_BODY || !rq->is_gzip || inflate_body(rq))
        rq->route->handler(rq, http_server_app(rq->server));
    settle(rq);
}
