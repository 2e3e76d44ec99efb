/*
 * http.h - the HTTP front: requests come out of it, answers go into it.  The only file that knows
 * libmicrohttpd is http.c.
 *
 * A request is matched against the route table before its handler runs; what the handler reads is
 * the very value that was matched (T02, S2).  Four kinds of route:
 *   - FAST   runs on the event thread that read the head; must not wait for children or locks, nor
 *            make long answers: for either, it is put off to a worker (http_defer);
 *   - BODY   the body is gathered first (bounded by the route), then the handler runs on a worker;
 *   - STREAM the handler runs on a worker with a pipe for the body and one for the answer, both
 *            bounded, so a slow client slows git down and a pack never sits in memory;
 *   - RELAY  the handler runs on the event thread and hands the request on to another thread, which
 *            answers it through the same pipes without waiting (http_relay_begin).
 *
 * Thread: a request belongs to the thread that runs its handler.
 */
#ifndef MEMFS_SERVER_HTTP_H
#define MEMFS_SERVER_HTTP_H

#include "base/buf.h"
#include "base/json.h"

#include <sys/types.h>

typedef struct http_server http_server;
typedef struct http_request http_request;
typedef struct http_stream http_stream;

typedef enum http_method {
    HTTP_GET = 1 << 0, /* HEAD is served by GET routes */
    HTTP_POST = 1 << 1,
    HTTP_PUT = 1 << 2,
    HTTP_PATCH = 1 << 3,
    HTTP_DELETE = 1 << 4,
    HTTP_METHOD_OPTIONS = 1 << 5,
} http_method;

typedef enum http_kind { HTTP_FAST, HTTP_BODY, HTTP_STREAM, HTTP_RELAY } http_kind;

/* Who may call.  A route without one does not compile into the table (S2). */
typedef enum http_access {
    HTTP_ACCESS_OPEN = 1, /* health */
    HTTP_ACCESS_AGENT,    /* the agent in the path */
    HTTP_ACCESS_SHARED,   /* the shared repository in the path: by its links (shared.h) */
    HTTP_ACCESS_ALL,      /* lists over agents: an agent's token sees its own part */
    HTTP_ACCESS_ADMIN,    /* over all agents, whole */
    HTTP_ACCESS_HOOK,     /* git hosts: the body proves itself (remote/webhook.h) */
    HTTP_ACCESS_PEER,     /* the other servers of the database (sync/cluster.h) */
    HTTP_ACCESS_OWNER,    /* only over the home's own socket (0600) */
} http_access;

typedef void (*http_handler)(http_request *rq, void *app);
typedef bool (*http_quick)(http_request *rq, void *app);

/*
 * Asked of each request when its route has matched, before any of its body is read and before "100
 * Continue" is said, on an event thread.  It may read the head and what was matched, and leaves in
 * principal (zeroed, aligned) who is asking, for http_principal().  What a credential is, this front
 * does not know.
 *
 * LATER: somebody else has to be asked, or the answer is to be late.  The gate calls http_gate_hold()
 * first, and that somebody then http_gate_tell() once, from any thread; the gate is asked again, on the
 * event thread, and http_gate_told() is what was said.  It may say LATER again.  Meanwhile the client
 * is told "100 Continue" if it waits for that (the library knows no other time), and its bytes gather
 * in the body's pipe; no worker is taken.
 */
#define HTTP_PRINCIPAL_BYTES 192
typedef enum http_entry {
    HTTP_ENTRY_REFUSED, /* and answered */
    HTTP_ENTRY_GRANTED,
    HTTP_ENTRY_LATER,
} http_entry;
typedef http_entry (*http_gate)(http_request *rq, void *app, void *principal);
void http_gate_hold(http_request *rq);
/* what: anything but 0. */
void http_gate_tell(http_request *rq, int what);
/* 0: nothing was told yet. */
int http_gate_told(const http_request *rq);

/*
 * pattern: segments between slashes; "{agent}", "{id}" match one segment; a last "{label...}"
 * matches the rest of the path, slashes and %2F alike, decoded once.  A trailing slash is free on
 * every route but those with a rest.  "/v1" routes also answer under "/latest".
 */
typedef struct http_route {
    unsigned methods;
    const char *pattern;
    http_kind kind;
    http_access access;
    http_handler handler;
    uint64_t max_body_bytes;
    const char *summary; /* one line, for docs and help */
    /*
     * May be NULL.  Tried on the event thread when a small body is there whole, before a worker is
     * troubled: it answers and returns true, or returns false without a trace.  It must not wait.
     */
    http_quick quick;
} http_route;

#define HTTP_MAX_FDS 8
typedef struct http_options {
    const char *address; /* "127.0.0.1", "::1"; NULL: no TCP */
    uint16_t port;       /* 0: any */
    /* listening TCP sockets, in place of address; given, closed at the end, never shut down */
    const int *fds;
    size_t n_fds;        /* at most HTTP_MAX_FDS */
    const char *socket_path; /* NULL: none */
    const char *tls_cert, *tls_key; /* PEM files; NULL: plain HTTP.  Of one server a process */
    const http_route *routes;
    size_t n_routes;
    void *app; /* handed to the handlers */
    http_gate gate; /* NULL: everybody may everything */
    size_t n_event_threads, n_workers, max_queued;
    size_t max_connections, max_per_source;
    int64_t head_timeout_ms;  /* 10 s */
    int64_t min_bytes_per_30s; /* 30 KiB */
    size_t max_per_local;      /* as max_per_source, for 127.0.0.1 and ::1 */
    int64_t rate_window_ms;    /* the 30 s; tests are in a hurry */
    bool is_quiet;             /* no line in the log for each request */
} http_options;
extern const http_options HTTP_OPTIONS_DEFAULT;

/* An IP address as text. */
#define HTTP_PEER_LEN 46
/* What a socket that was made elsewhere listens on.  EINVALID: it is no listening TCP socket. */
MEMFS_CHECK memfs_code http_listen_address(int fd, char out[HTTP_PEER_LEN], uint16_t *ret_port,
                                           memfs_error *err);

/* life cycle */
MEMFS_CHECK memfs_code http_start(const http_options *options, http_server **ret,
                                  memfs_error *err);
uint16_t http_port(const http_server *s); /* 0: no TCP */
/* Stops accepting, lets what runs end for at most grace_ms; returns how many have not. */
size_t http_drain(http_server *s, int64_t grace_ms);
/*
 * The same, then cuts the rest off and returns how many they were.  s is gone afterwards, unless a
 * handler still does not return 5 s after it was cut off: then *ret_is_stuck (may be NULL) is set,
 * and what the handlers use must stay until the process ends.
 */
size_t http_stop(http_server *s, int64_t grace_ms, bool *ret_is_stuck);

/*
 * Looks whether certificate and key were replaced, and shows the new pair from the next handshake
 * on; connections stay.  A pair that is no good is logged, and the old one stays.  is_asked: tries in
 * any case.  Without TLS it does nothing.  One thread at a time.
 */
void http_refresh_tls(http_server *s, bool is_asked);

/* reading a request; slices live as long as the request */
const char *http_request_id(const http_request *rq);
const http_route *http_matched(const http_request *rq);
/* The path as it came, nothing decoded; lives as long as the request. */
memfs_str http_raw_path(const http_request *rq);
http_method http_method_of(const http_request *rq);
/* The decoded value of a pattern variable, "agent" for "{agent}". */
memfs_str http_param(const http_request *rq, const char *name);
/* First value of a query key, decoded; false when absent. */
bool http_query(const http_request *rq, const char *key, memfs_str *ret);
/* The i-th value of a repeated key. */
bool http_query_at(const http_request *rq, const char *key, size_t i, memfs_str *ret);
/* NULL when absent. */
const char *http_header(const http_request *rq, const char *name);
/* What the gate left there. */
const void *http_principal(const http_request *rq);
/* Did it come over the home's own socket? */
bool http_is_owner(const http_request *rq);
/* The address of the client, "" over the socket.  For the gate: event threads only. */
void http_peer(const http_request *rq, char out[HTTP_PEER_LEN]);
memfs_str http_body(const http_request *rq); /* BODY routes, and within http_quick */
/* A few words for this request's line in the log: "push main 1a2b..3c4d". */
void http_note(http_request *rq, const char *fmt, ...) MEMFS_PRINTF(2, 3);
/* Whose token it was, for the same line: its public id. */
void http_note_token(http_request *rq, const char *id);

/*
 * FAST: is this an event thread, where nothing may wait?  Then a handler that would have to calls
 * http_defer() and returns, and is run again on a worker, from the beginning.  An answer of 413 (or
 * one past 256 KiB, which becomes one) is deferred as well: perhaps it is only too large for here.
 */
bool http_is_hurried(const http_request *rq);
void http_defer(http_request *rq);

/* answering: exactly one of these, once, at the end of a handler (STREAM: before it has begun) */
/* The answer under construction; bounded; JSON unless said otherwise. */
memfs_buf *http_out(http_request *rq);
void http_set_header(http_request *rq, const char *name, const char *value); /* fixed or checked text */
void http_send(http_request *rq, int status, const char *content_type);
/*
 * {"detail": "..."} with the status of the code; message as it is.  503 says Retry-After, 409 that
 * a client is not to try again by itself.
 */
void http_send_error(http_request *rq, const memfs_error *e);
void http_send_detail(http_request *rq, int status, const char *fmt, ...) MEMFS_PRINTF(3, 4);
/* Sets the ETag; true when If-None-Match names it and a 304 was sent. */
bool http_not_modified(http_request *rq, const char *etag);
/* 200 unless it was used in an error: code -> HTTP status, the one table. */
int http_status_of(memfs_code code);

/*
 * streaming: in STREAM and BODY handlers (reading in STREAM only); each returns false when the
 * client is gone or too slow, or the body is no good
 */
/* Up to n bytes of the (decoded) body; *ret_n == 0 is its end. */
bool http_stream_read(http_request *rq, void *bytes, size_t n, size_t *ret_n);
/* Why http_stream_read returned false: EINVALID (gzip), ELIMIT (too large), EUNAVAIL (gone). */
void http_stream_fault(http_request *rq, memfs_error *ret);
/* Sends the head; then the body follows by http_stream_write. */
void http_stream_begin(http_request *rq, int status, const char *content_type);
/*
 * Waits while the client has not read what was written before.  HTTP/1.1 clients read when they
 * have sent all, so an answer that outgrows its pipe before that gives up the rest of the body.
 */
bool http_stream_write(http_request *rq, const void *bytes, size_t n);
/* What was written leaves now, not only when there is enough of it. */
bool http_stream_flush(http_request *rq);
/*
 * Ends the answer cleanly.  http_stream_cut ends the connection so that no client takes it for
 * whole.
 */
void http_stream_end(http_request *rq);
void http_stream_cut(http_request *rq);

/*
 * relaying: in RELAY handlers, which run on the event thread, when the body has ended or fills its
 * pipe.  A handler answers, or calls http_relay_begin() and returns; from then on the request is the
 * other thread's, until http_relay_release().  Nothing here blocks.
 *
 * poke is called when something is there that a call said no to (bytes of the body, room), and when
 * the client is gone; from any thread, under a mutex of the request: it may only wake somebody.
 */
/* The target as it was parsed, written anew: one way to escape, no byte that another program could
 * read in another way (T02). */
void http_canonical_target(const http_request *rq, memfs_buf *out);
/* The i-th field of the head; false: there are no more. */
bool http_header_at(const http_request *rq, size_t i, memfs_str *ret_name, memfs_str *ret_value);
bool http_is_head(const http_request *rq);
bool http_is_tls(const http_request *rq);
/*
 * What is known of the body: -1: it is chunked and has not ended; -2: there is none; else its
 * bytes, as they come (a Content-Encoding stays on).
 */
int64_t http_relay_body_bytes(const http_request *rq);
void http_relay_begin(http_request *rq, void (*poke)(void *ctx), void *ctx);
/* Up to n bytes of the body.  0: its end; -1: none now; -2: it will not come whole. */
ssize_t http_relay_take(http_request *rq, void *bytes, size_t n);
/* The head of the answer, which leaves at once.  length -1: not known.  Headers were set before. */
void http_relay_head(http_request *rq, int status, int64_t length);
/* Bytes of the answer, which leave at once: all of them, or none now (false). */
bool http_relay_put(http_request *rq, memfs_str bytes);
/* Nobody is there to be answered any more. */
bool http_relay_is_gone(const http_request *rq);
/* After http_send..., http_stream_end or http_stream_cut: the other thread is done with it. */
void http_relay_release(http_request *rq);

#endif
