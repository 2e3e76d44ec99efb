/*
 * http_flow.c - what a request goes through between its head and its handler.
 *
 *     http_admit       parses the target, finds the route, asks the gate, judges the body's length
 *                      and coding; a refusal is an answer, given when the body has been drained
 *     http_take_body   bytes into rq->in, or to nowhere when nobody wants them
 *     http_end_body    all of it is there
 *     http_dispatch    the handler runs here, or
 *     http_submit      on a worker: when the body has ended or its pipe is full, so that a client
 *                      that sends little and slowly holds no worker (L1)
 *
 * Event threads only; nothing here knows the library.
 */
#include "server/http_int.h"

#include <assert.h>
#include <stdio.h>
#include <strings.h>

#define MAX_QUICK_BYTES (64u << 10)
#define MAX_IDLE_BODY_BYTES (64u << 10) /* of a route that wants none: read and forgotten */
#define DRAIN_BYTES (1u << 20)
#define BODY_BASE_MS 60000
#define BODY_MIN_BYTES_PER_S (32u << 10)

/* ---- the head ---- */

static void refuse_method(http_request *rq, unsigned allowed)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64);

    http_methods_text(allowed, &text);
    http_set_header(rq, "Allow", text.ptr);
    http_send_detail(rq, 405, "Method Not Allowed");
}

static void find_route(http_request *rq)
{
    const http_options *o = &rq->server->options;
    const char *fault = http_target_parse(str_of(rq->raw), rq->storage, &rq->target);
    http_match match = { NULL, 0, NULL };

    if (fault == NULL) {
        match =
            http_route_find(o->routes, o->n_routes, rq->front->is_owner, rq->method, &rq->target);
        fault = match.fault;
    }
    if (fault != NULL) {
        rq->must_close = true;
        http_send_detail(rq, 400, "%s", fault);
    } else if (match.route != NULL) {
        rq->route = match.route;
    } else if (match.allowed != 0) {
        refuse_method(rq, match.allowed);
    } else {
        http_send_detail(rq, 404, "Not Found");
    }
}

static void take_verdict(http_request *rq, http_entry entry)
{
    rq->is_gating = entry == HTTP_ENTRY_LATER;
    rq->is_refused = entry == HTTP_ENTRY_REFUSED;
    assert(!rq->is_refused || rq->is_answered);
}

/* Only what the route will be given is asked about: the very values that were matched (S2). */
static void ask_gate(http_request *rq)
{
    const http_options *o = &rq->server->options;

    if (rq->route == NULL || o->gate == NULL)
        return;
    take_verdict(rq, o->gate(rq, o->app, rq->principal));
}

/* Whoever is refused only now has been told to go on: little of what it sends is still read. */
void http_ask_gate_again(http_request *rq)
{
    const http_options *o = &rq->server->options;

    if (!rq->is_gating || http_gate_told(rq) == 0)
        return;
    if (rq->is_answered) { /* the body was too long */
        rq->is_gating = false;
        return;
    }
    take_verdict(rq, o->gate(rq, o->app, rq->principal));
    if (rq->is_refused && rq->drain_bytes > rq->n_body + DRAIN_BYTES)
        rq->drain_bytes = rq->n_body + DRAIN_BYTES;
}

static uint64_t body_max(const http_request *rq)
{
    if (rq->route == NULL)
        return 0;
    return rq->route->max_body_bytes > 0 ? rq->route->max_body_bytes : MAX_IDLE_BODY_BYTES;
}

/* False: the answer is decided. */
static bool judge_coding(http_request *rq)
{
    const char *coding = http_header_live(rq, "Content-Encoding");

    if (coding == NULL || strcasecmp(coding, "identity") == 0 || rq->route->kind == HTTP_RELAY)
        return true; /* what is relayed stays as it is */
    rq->is_gzip = strcasecmp(coding, "gzip") == 0 || strcasecmp(coding, "x-gzip") == 0;
    if (!rq->is_gzip)
        http_send_detail(rq, 415, "The body's encoding is not gzip");
    return rq->is_gzip;
}

static void send_too_large(http_request *rq)
{
    http_send_detail(rq, 413, "The body is larger than %llu bytes",
                     (unsigned long long)body_max(rq));
}

/*
 * Whoever was refused at the gate has little drained: enough that a small request keeps its
 * connection, and nothing of unknown length.
 */
static bool is_worth_draining(const http_request *rq, uint64_t length, bool is_chunked)
{
    if (rq->is_refused)
        return length <= DRAIN_BYTES && !is_chunked;
    return length <= body_max(rq);
}

/* What the head says of the body.  False: it is longer than we take, so it is not waited for. */
static bool judge_body(http_request *rq)
{
    const char *text = http_header_live(rq, "Content-Length");
    bool is_chunked = http_header_live(rq, "Transfer-Encoding") != NULL;
    uint64_t length = 0;

    rq->is_chunked = is_chunked;
    if (text != NULL && !str_to_u64(str_of(text), INT64_MAX, &length))
        length = 0; /* the guard has refused it before */
    rq->drain_bytes = (rq->is_refused ? 0 : body_max(rq)) + DRAIN_BYTES;
    if (length > 0 || is_chunked) {
        atomic_store(&rq->conn->body_limit_ms,
                     BODY_BASE_MS + rq->drain_bytes * 1000 / BODY_MIN_BYTES_PER_S);
        http_conn_set_phase(rq->conn, HTTP_PHASE_BODY);
    }
    if (rq->is_answered || !judge_coding(rq))
        return is_worth_draining(rq, length, is_chunked);
    if (length > body_max(rq))
        send_too_large(rq);
    http_pipe_init(&rq->in, rq->route->kind == HTTP_STREAM || rq->route->kind == HTTP_RELAY
                                ? HTTP_PIPE_BYTES
                                : body_max(rq));
    return length <= body_max(rq);
}

bool http_admit(http_request *rq)
{
    find_route(rq);
    ask_gate(rq);
    return judge_body(rq);
}

/* ---- the body ---- */

static void run_job(void *arg)
{
    http_request *rq = arg;

    http_run_handler(rq);
    http_request_unref(rq);
}

/* The agent, so that one of them cannot take all workers (T17); else the route. */
void http_submit(http_request *rq)
{
    pool *p = rq->route->kind == HTTP_STREAM ? rq->server->streams : rq->server->bodies;
    memfs_error err = MEMFS_ERROR_INIT;
    char key[80];
    memfs_str agent;

    if (!http_route_param(rq->route, &rq->target, "agent", &agent))
        agent = str_of(rq->route->pattern);
    snprintf(key, sizeof(key), "%.*s", (int)(agent.len < 64 ? agent.len : 64), agent.ptr);
    http_copy_headers(rq);
    rq->is_submitted = true;
    if (rq->route->kind == HTTP_RELAY) {
        http_run_relay(rq);
        return;
    }
    http_request_ref(rq);
    if (pool_submit(p, key, run_job, rq, &err) == MEMFS_OK)
        return;
    http_request_unref(rq);
    http_send_error(rq, &err);
}

/* How many of the n bytes are done with; -1: the connection ends here. */
static ssize_t take_body_locked(http_request *rq, const char *bytes, size_t n)
{
    if (rq->is_dead)
        return -1;
    if (!rq->is_discarding && rq->n_body + n > body_max(rq))
        http_give_up_body_locked(rq, MEMFS_ELIMIT, "the body is too large");
    if (rq->is_discarding) {
        rq->n_body += n;
        return rq->n_body > rq->drain_bytes ? -1 : (ssize_t)n;
    }
    n = http_pipe_put(&rq->in, bytes, n);
    rq->n_body += n;
    if (n > 0) {
        pthread_cond_broadcast(&rq->changed);
        http_poke_locked(rq);
    }
    return (ssize_t)n;
}

ssize_t http_take_body(http_request *rq, const char *bytes, size_t n)
{
    bool is_too_large;
    ssize_t taken;

    pthread_mutex_lock(&rq->mutex);
    taken = take_body_locked(rq, bytes, n);
    is_too_large = rq->is_discarding && !rq->is_submitted && !rq->is_answered;
    pthread_mutex_unlock(&rq->mutex);
    if (is_too_large)
        send_too_large(rq);
    return taken;
}

/* ---- the handler ---- */

/* True: it is up to us now to find an answer. */
bool http_end_body(http_request *rq)
{
    bool is_due;

    pthread_mutex_lock(&rq->mutex);
    rq->is_body_ended = true;
    is_due = !rq->is_answered && !rq->is_submitted && !rq->is_gating && !rq->is_dead;
    pthread_cond_broadcast(&rq->changed);
    http_poke_locked(rq);
    pthread_mutex_unlock(&rq->mutex);
    http_conn_set_phase(rq->conn, HTTP_PHASE_WORK);
    return is_due;
}

/* False: this is work for a worker. */
static bool run_here(http_request *rq)
{
    rq->is_hurried = true;
    rq->is_deferred = false;
    rq->out.max_bytes = HTTP_MAX_FAST_BYTES;
    http_run_handler(rq);
    rq->is_hurried = false;
    return !rq->is_deferred;
}

void http_dispatch(http_request *rq)
{
    if (rq->route->kind == HTTP_FAST && run_here(rq))
        return;
    if (rq->route->quick != NULL && !rq->is_gzip && rq->in.len <= MAX_QUICK_BYTES &&
        rq->route->quick(rq, rq->server->options.app))
        return;
    http_submit(rq);
}
