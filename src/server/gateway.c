/*
 * gateway.c - the requests that go through to the Letta server, and the questions about the others.
 *
 * A relay is one request on its way: the front has it on one side (http_relay_*), a transfer on the
 * other (base/httpc_multi.h).  It is made on the event thread that read the head, and from then on
 * belongs to the upstream's thread until on_end(), which comes once, whatever happened:
 *
 *     before the answer's head      502 or 503 with the reason; nothing of the answer has left
 *     within the answer             the client's connection is reset: never taken for whole
 *     the client left               the transfer ends with it, and so does its connection
 *
 * No worker, no lock of ours, nothing that is gathered: as much as the two pipes hold is in memory.
 */
#include "server/gateway.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "memory/ids.h"
#include "server/app.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define MAX_BODY_BYTES ((uint64_t)1 << 30)
#define MAX_TARGET_BYTES (48u << 10) /* three times the head, if all of it is escaped */
#define ANY_METHOD                                                                                 \
    (HTTP_GET | HTTP_POST | HTTP_PUT | HTTP_PATCH | HTTP_DELETE | HTTP_METHOD_OPTIONS)

struct gateway {
    upstream *upstream;
    bool is_behind_proxy;
    http_route *routes;
    size_t n_routes;
    atomic_bool was_open_told;
};

typedef struct relay {
    gateway *gateway;
    http_request *rq;
    httpc_transfer *transfer;
    char *base;   /* where the client called, for redirects; may be NULL */
    bool is_safe; /* asking twice does no harm */
    bool has_begun;
    memfs_error fault; /* of the answer's head */
} relay;

/* ---- the answer; the upstream's thread ---- */

static void set_header(http_request *rq, const httpc_field *f)
{
    _cleanup_(mem_freep) char *name = mem_strndup(f->name.ptr, f->name.len);
    _cleanup_(mem_freep) char *value = mem_strndup(f->value.ptr, f->value.len);

    http_set_header(rq, name, value);
}

static bool on_head(int status, const httpc_field *fields, size_t n, void *ctx)
{
    relay *r = ctx;
    _cleanup_(stream_answer_dispose) stream_answer answer = STREAM_ANSWER_INIT;

    if (stream_answer_head(fields, n, upstream_address(r->gateway->upstream), r->base, &answer,
                           &r->fault) < 0)
        return false;
    for (size_t i = 0; i < answer.n; i++)
        set_header(r->rq, &answer.fields[i]);
    r->has_begun = true;
    http_relay_head(r->rq, status, answer.has_length ? answer.length : -1);
    return true;
}

static int on_data(memfs_str piece, void *ctx)
{
    relay *r = ctx;

    if (http_relay_is_gone(r->rq))
        return HTTPC_GIVE_UP;
    return http_relay_put(r->rq, piece) ? 0 : HTTPC_LATER;
}

static ssize_t on_read(void *bytes, size_t n, void *ctx)
{
    relay *r = ctx;
    ssize_t got = http_relay_take(r->rq, bytes, n);

    return got == -1 ? HTTPC_LATER : got < 0 ? HTTPC_GIVE_UP : got;
}

static bool goes_on(void *ctx)
{
    relay *r = ctx;

    return !http_relay_is_gone(r->rq);
}

static void relay_free(relay *r)
{
    httpc_transfer_unref(r->transfer);
    free(r->base);
    free(r);
}

/* May the server have done something of it? */
static bool was_reached(const relay *r, const httpc_answer *how)
{
    switch (how->failure) {
    case HTTPC_NO_LIBRARY:
    case HTTPC_NO_NAME:
    case HTTPC_REFUSED:
    case HTTPC_TIMEOUT: /* of the connection: a relay has no other clock, so nothing was sent */
        return r->fault.code != MEMFS_OK;
    case HTTPC_STOPPED: /* by our own end; the server may be at it, or be through with it */
        return r->fault.code != MEMFS_OK || !r->is_safe;
    default: return true;
    }
}

/*
 * Not reached at all is 503, so that it is tried again; anything later 502, and what may have been
 * done is not to be repeated by a client on its own (contract 1.5).
 */
static void send_failure(relay *r, const httpc_answer *how)
{
    const char *reason = r->fault.code != MEMFS_OK ? r->fault.msg : NULL;
    bool is_reached = was_reached(r, how);

    log_event(LOG_WARN, "upstream_failed", "id", http_request_id(r->rq), "reason",
              reason != NULL ? reason : how->detail, NULL);
    if (is_reached && !r->is_safe)
        http_set_header(r->rq, "x-should-retry", "false");
    http_send_detail(r->rq, is_reached ? 502 : 503, "The Letta server did not answer: %s",
                     reason != NULL ? reason : upstream_failure_text(how->failure));
}

static bool is_body_at_fault(relay *r, memfs_error *ret)
{
    http_stream_fault(r->rq, ret);
    return ret->code == MEMFS_ELIMIT;
}

static void on_end(const httpc_answer *how, void *ctx)
{
    relay *r = ctx;
    http_request *rq = r->rq;
    memfs_error err;

    if (!r->has_begun && is_body_at_fault(r, &err)) {
        http_send_error(rq, &err);
    } else if (!r->has_begun && http_relay_is_gone(rq)) {
        http_stream_cut(rq); /* nobody is there to be told, and it is no fault of the server's */
    } else if (!r->has_begun) {
        send_failure(r, how);
    } else if (how->failure == HTTPC_FINE) {
        http_stream_end(rq);
    } else {
        if (!http_relay_is_gone(rq))
            log_event(LOG_WARN, "upstream_cut", "id", http_request_id(rq), "reason", how->detail,
                      NULL);
        http_stream_cut(rq);
    }
    http_relay_release(rq);
    relay_free(r);
}

static const httpc_transfer_ops bodiless_ops = {
    .head = on_head, .data = on_data, .goes_on = goes_on, .end = on_end
};
static const httpc_transfer_ops body_ops = {
    .read = on_read, .head = on_head, .data = on_data, .goes_on = goes_on, .end = on_end
};

/* ---- the request; event thread ---- */

static size_t read_fields(const http_request *rq, httpc_field *fields, size_t most)
{
    bool has_own = auth_is_own(http_header(rq, "Authorization"));
    size_t n = 0;

    for (size_t i = 0; n < most && http_header_at(rq, i, &fields[n].name, &fields[n].value); i++)
        if (!has_own || strcasecmp(fields[n].name.ptr, "Authorization") != 0)
            n++; /* a token of ours is nothing for others */
    return n;
}

static const char *method_of(const http_request *rq)
{
    if (http_is_head(rq))
        return "HEAD";
    switch (http_method_of(rq)) {
    case HTTP_GET: return "GET";
    case HTTP_POST: return "POST";
    case HTTP_PUT: return "PUT";
    case HTTP_PATCH: return "PATCH";
    case HTTP_DELETE: return "DELETE";
    case HTTP_METHOD_OPTIONS: return "OPTIONS";
    }
    return "GET";
}

static void poke(void *transfer)
{
    httpc_transfer_poke(transfer);
}

static void start(relay *r, const stream_lines *headers)
{
    _cleanup_(buf_dispose) memfs_buf target = MEMFS_BUF_INIT(MAX_TARGET_BYTES);
    memfs_error err = MEMFS_ERROR_INIT;
    int64_t body_bytes = http_relay_body_bytes(r->rq);
    httpc_plan plan = { .method = method_of(r->rq),
                        .origin = upstream_address(r->gateway->upstream)->origin,
                        .headers = (const char *const *)headers->at,
                        .body_bytes = body_bytes,
                        .ops = body_bytes == -2 ? &bodiless_ops : &body_ops,
                        .ctx = r };

    http_canonical_target(r->rq, &target);
    plan.target = target.ptr;
    r->is_safe = http_method_of(r->rq) == HTTP_GET || http_method_of(r->rq) == HTTP_METHOD_OPTIONS;
    r->transfer = httpc_transfer_new(upstream_multi(r->gateway->upstream), &plan);
    http_relay_begin(r->rq, poke, r->transfer);
    if (httpc_transfer_start(r->transfer, &err) == MEMFS_OK)
        return;
    http_send_error(r->rq, &err);
    http_relay_release(r->rq);
    relay_free(r);
}

static void relay_request(http_request *rq, void *ctx)
{
    _cleanup_(stream_lines_dispose) stream_lines headers = STREAM_LINES_INIT;
    gateway *g = ((app *)ctx)->gateway;
    httpc_field fields[HTTPC_MAX_FIELDS];
    size_t n = read_fields(rq, fields, ARRAY_LEN(fields));
    memfs_error err = MEMFS_ERROR_INIT;
    char peer[HTTP_PEER_LEN];
    stream_caller caller = { .peer = peer,
                             .is_tls = http_is_tls(rq),
                             .is_proxy_believed = g->is_behind_proxy,
                             .via = upstream_via(g->upstream) };
    relay *r;
    memfs_code rc;

    http_peer(rq, peer);
    rc = stream_request(fields, n, &caller, &headers, &err);
    if (rc < 0) {
        http_send_detail(rq, rc == MEMFS_ELIMIT ? 508 : 501, "%s", err.msg);
        return;
    }
    http_note(rq, "upstream");
    r = mem_alloc(sizeof(*r));
    r->gateway = g;
    r->rq = rq;
    r->base = stream_base_called(fields, n, &caller);
    start(r, &headers);
}

/* ---- routes ---- */

/* Below an address of memfs' own, and nothing there. */
static void not_found(http_request *rq, void *ctx)
{
    (void)ctx;
    http_send_detail(rq, 404, "Not Found");
}

#define OWN(pattern)                                                                               \
    {                                                                                              \
        ANY_METHOD, pattern, HTTP_RELAY, HTTP_ACCESS_OPEN, not_found, 0, "nothing is there"        \
    }
#define THEIRS(pattern)                                                                            \
    {                                                                                              \
        ANY_METHOD, pattern, HTTP_RELAY, HTTP_ACCESS_OPEN, relay_request, MAX_BODY_BYTES,          \
            "the Letta server's"                                                                   \
    }

/* The server decides who may ask for what is its own, so to memfs these are open. */
static const http_route last_routes[] = {
    OWN("/v1/git"),
    OWN("/v1/git/{path...}"),
    OWN("/git"),
    OWN("/git/{path...}"),
    OWN("/v1/repositories"),
    OWN("/v1/repositories/{path...}"),
    OWN("/peer"),
    OWN("/peer/{path...}"),
    OWN("/owner"),
    OWN("/owner/{path...}"),
    OWN("/webhooks"),
    OWN("/webhooks/{path...}"),
    THEIRS("/"),
    THEIRS("/{path...}"),
};

static bool is_theirs(const http_route *r)
{
    memfs_str pattern = str_of(r->pattern);

    if (r->handler == agent_secrets ||
        str_starts_with(pattern, MEMFS_STR("/v1/agents/{agent}/repositories")) ||
        str_starts_with(pattern, MEMFS_STR("/v1/agents/{agent}/memory/")))
        return false;
    if (r->handler == openapi_get) /* most of what a client finds at this address is the server's */
        return true;
    return str_starts_with(pattern, MEMFS_STR("/v1/agents")) ||
           str_starts_with(pattern, MEMFS_STR("/v1/blocks")) ||
           str_equal(pattern, MEMFS_STR("/v1/tags"));
}

/* What is the server's over TCP stays memfs' over the home's socket: commands ask there. */
static void make_routes(gateway *g)
{
    g->routes = mem_alloc((APP_N_ROUTES + ARRAY_LEN(last_routes)) * sizeof(*g->routes));
    for (size_t i = 0; i < APP_N_ROUTES; i++) {
        g->routes[i] = APP_ROUTES[i];
        if (is_theirs(&APP_ROUTES[i]))
            g->routes[i].access = HTTP_ACCESS_OWNER;
    }
    memcpy(g->routes + APP_N_ROUTES, last_routes, sizeof(last_routes));
    g->n_routes = APP_N_ROUTES + ARRAY_LEN(last_routes);
}

const http_route *gateway_routes(const gateway *g, size_t *ret_n)
{
    *ret_n = g->n_routes;
    return g->routes;
}

/* ---- the gate ---- */

static void tell(upstream_verdict verdict, void *ctx)
{
    http_gate_tell(ctx, (int)verdict);
}

/* Letta's server in its default mode: whoever reaches it may do everything. */
static void tell_if_open(gateway *g, const upstream_caller *c, upstream_verdict verdict)
{
    if (verdict != UPSTREAM_YES || c->authorization != NULL || c->bare_password != NULL ||
        atomic_exchange(&g->was_open_told, true))
        return;
    log_event(LOG_WARN, "upstream_open", "text",
              "the Letta server lets in whoever asks, and so does memfs: start it with "
              "LETTA_SERVER_SECURE=true and a password where others can reach it",
              NULL);
}

static upstream_caller caller_of(const http_request *rq)
{
    return (upstream_caller){ http_header(rq, "Authorization"), http_header(rq, "X-BARE-PASSWORD"),
                              http_header(rq, "user_id") };
}

/* There is one organization here, the server's default user's: others of its users have theirs. */
static bool acts_for_everybody(const upstream_caller *c)
{
    return c->user_id == NULL || strcmp(c->user_id, IDS_DEFAULT_USER) == 0;
}

upstream_verdict gateway_judge(gateway *g, http_request *rq)
{
    const upstream_caller c = caller_of(rq);
    upstream_verdict verdict = (upstream_verdict)http_gate_told(rq);
    memfs_str agent_id = http_param(rq, "agent");

    if (agent_id.len == 0 || ids_is_shared(agent_id)) {
        if (!acts_for_everybody(&c))
            return UPSTREAM_FORBIDDEN;
        agent_id = MEMFS_STR(""); /* what belongs to no agent: whoever may list them all */
    } else if (!ids_is_agent(agent_id)) {
        return UPSTREAM_NO_AGENT;
    }
    if (verdict == UPSTREAM_NOT_ASKED)
        verdict = upstream_known(g->upstream, agent_id, &c);
    if (verdict == UPSTREAM_NOT_ASKED) {
        http_gate_hold(rq);
        upstream_ask(g->upstream, agent_id, &c, tell, rq);
    }
    tell_if_open(g, &c, verdict);
    return verdict;
}

memfs_code gateway_roster(const gateway *g, const http_request *rq, roster **ret, memfs_error *err)
{
    const upstream_caller c = rq != NULL ? caller_of(rq) : (upstream_caller){ NULL, NULL, NULL };

    return roster_open_as(upstream_address(g->upstream), &c, ret, err);
}

bool gateway_knows_health(gateway *g, http_request *rq)
{
    upstream_health health;

    if (g == NULL || http_is_owner(rq) || http_gate_told(rq) != 0)
        return true;
    upstream_health_now(g->upstream, &health);
    if (health.asked_ms != 0 && clock_mono_ms() - health.asked_ms < UPSTREAM_HEALTH_MS)
        return true;
    http_gate_hold(rq);
    upstream_ask_health(g->upstream, tell, rq);
    return false;
}

void gateway_write_health(gateway *g, json_writer *w)
{
    upstream_health health;

    upstream_health_now(g->upstream, &health);
    jw_key(w, "upstream");
    jw_object(w);
    if (health.version[0] != '\0')
        jw_key_text(w, "version", health.version);
    jw_key_text(w, "status", health.is_good ? "ok" : "unavailable");
    if (!health.is_good)
        jw_key_text(w, "reason", health.asked_ms == 0 ? "it was not asked yet" : health.reason);
    jw_object_end(w);
}

/* ---- life ---- */

memfs_code gateway_open(const char *address, bool is_behind_proxy, gateway **ret, memfs_error *err)
{
    gateway *g = mem_alloc(sizeof(*g));
    memfs_code rc = upstream_open(address, &g->upstream, err);

    if (rc < 0) {
        free(g);
        return rc;
    }
    g->is_behind_proxy = is_behind_proxy;
    atomic_init(&g->was_open_told, false);
    make_routes(g);
    *ret = g;
    return MEMFS_OK;
}

void gateway_stop(gateway *g)
{
    if (g != NULL)
        upstream_stop(g->upstream);
}

void gateway_close(gateway *g)
{
    if (g == NULL)
        return;
    upstream_close(g->upstream);
    free(g->routes);
    free(g);
}
