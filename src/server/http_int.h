/*
 * http_int.h - the inside of http.h, shared by the http_*.c files only.
 *
 * http.c talks to libmicrohttpd; http_server.c starts and ends it all; http_request.c is what
 * handlers call; http_conn.c is the table of connections and the clocks over it; the rest (route,
 * guard, pipe, gzip) is pure.
 *
 * A request is counted: the event thread holds one reference from its first line to its completion,
 * the worker one while its handler runs.  Either may end first.
 */
#ifndef MEMFS_SERVER_HTTP_INT_H
#define MEMFS_SERVER_HTTP_INT_H

#include "base/pool.h"
#include "server/http.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/types.h>
#include <zlib.h>

struct MHD_Connection;
struct MHD_Daemon;
struct sockaddr;

/* ---- http_route.c: the raw target, and the route it names ---- */

#define HTTP_MAX_SEGMENTS 32
#define HTTP_MAX_PAIRS 64

typedef struct http_pair {
    memfs_str key, value;
} http_pair;

typedef struct http_target {
    /* decoded; they lie in a row with a '/' between, so that a rest is one slice */
    memfs_str segments[HTTP_MAX_SEGMENTS];
    size_t n_segments;
    uint32_t slashed; /* bit i: segment i had a %2F in it */
    const char *end;  /* of the decoded path, with its trailing slash */
    http_pair pairs[HTTP_MAX_PAIRS];
    size_t n_pairs;
} http_target;

/*
 * Splits first, then decodes each part once (T01).  storage has raw.len + 1 bytes and must outlive
 * *ret.  Returns NULL, or why the target is refused, as text for a client.
 */
const char *http_target_parse(memfs_str raw, char *storage, http_target *ret);

/* The method of a request line, 0 for one that no route can have; HEAD is GET. */
unsigned http_method_parse(const char *name, bool *ret_is_head);

typedef struct http_match {
    const http_route *route; /* NULL: none */
    unsigned allowed;        /* methods of the routes with this path, when the method was wrong */
    const char *fault;       /* %2F where no rest is */
} http_match;
http_match http_route_find(const http_route *routes, size_t n, bool is_owner, unsigned method,
                           const http_target *target);
bool http_route_param(const http_route *route, const http_target *target, const char *name,
                      memfs_str *ret);
/* "GET, HEAD, POST" */
void http_methods_text(unsigned methods, memfs_buf *out);

/* ---- http_guard.c: the head ---- */

#define HTTP_MAX_HEAD_BYTES (16u << 10)
#define HTTP_MAX_HEADERS 100

typedef struct http_head {
    memfs_str method, target, version;
    const http_pair *fields;
    size_t n_fields;
    size_t size; /* of the whole head as it was received; 0 when not known */
} http_head;
/* NULL, or why the head is refused. */
const char *http_guard_head(const http_head *head);
/* Is it refused for its size alone (431)?  Asked of one that is refused. */
bool http_guard_is_large(const http_head *head);
/* Does the head consist of exactly these parts, byte for byte? */
bool http_guard_is_exact(const http_head *head);

/* ---- http_pipe.c: a bounded queue of bytes ---- */

typedef struct http_pipe {
    char *ptr;
    size_t cap, start, len, max_bytes;
} http_pipe;

void http_pipe_init(http_pipe *p, size_t max_bytes);
void http_pipe_dispose(http_pipe *p);
/* How many of the n bytes were taken; less than n when it is full. */
size_t http_pipe_put(http_pipe *p, const void *bytes, size_t n);
size_t http_pipe_take(http_pipe *p, void *bytes, size_t n);
/* All that is in it, as one slice; nothing may have been taken before. */
memfs_str http_pipe_whole(const http_pipe *p);

/* ---- http_gzip.c: bodies that come compressed ---- */

typedef struct http_gunzip {
    z_stream z;
    uint64_t n_in, n_out, max_out;
    bool ended;
} http_gunzip;

/* Never fails for lack of memory (that aborts); max_out bounds what comes out (T14). */
void http_gunzip_init(http_gunzip *g, uint64_t max_out);
void http_gunzip_dispose(http_gunzip *g);
/*
 * Inflates from *in, which it moves on, into out.  EINVALID: not gzip, or bytes after its end.
 * ELIMIT: larger than max_out, or more than 100 to 1.
 */
MEMFS_CHECK memfs_code http_gunzip_step(http_gunzip *g, memfs_str *in, void *out, size_t n,
                                        size_t *ret_n, memfs_error *err);

/* ---- http_conn.c: connections and their clocks ---- */

typedef enum http_phase {
    HTTP_PHASE_IDLE, /* no request line yet */
    HTTP_PHASE_HEAD, /* request line seen */
    HTTP_PHASE_BODY,
    HTTP_PHASE_WORK, /* the client has nothing to do */
    HTTP_PHASE_ANSWER,
} http_phase;

typedef struct http_source http_source;

typedef struct http_connection {
    struct http_connection *prev, *next; /* in the table; its mutex */
    int fd;
    bool is_timed;       /* TCP; the home's own socket has no clocks */
    http_source *source; /* NULL: not counted */
    http_request *rq;    /* table mutex; NULL between requests */
    bool has_asked;      /* table mutex */
    int64_t came_ms;
    atomic_uint turn;    /* changes with the phase */
    atomic_int phase;
    atomic_bool is_ours;                /* waiting for us, not for the client */
    atomic_bool is_relayed;             /* a client that leaves is looked out for at any time */
    atomic_uint_fast64_t body_limit_ms; /* for the whole body */
    atomic_uint_fast64_t used_bytes;    /* how much of what came belongs to requests that are over */
    /* the reaper's own */
    unsigned seen_turn;
    bool had_request;
    unsigned n_left; /* ticks in a row in which the client was seen to be gone */
    unsigned n_gone; /* the same of a relayed one */
    int64_t phase_ms, head_ms, counted_ms;
    uint64_t counted_bytes;
    int64_t credit_bytes;
} http_connection;

typedef struct http_conn_table http_conn_table;

typedef struct http_clocks {
    int64_t head_timeout_ms;
    int64_t min_bytes_per_window, window_ms;
    size_t max_connections, max_per_source, max_per_local;
} http_clocks;

/* Starts the reaper's thread. */
MEMFS_CHECK memfs_code http_conns_new(const http_clocks *clocks, http_conn_table **ret,
                                      memfs_error *err);
/* Stops it; the table must be empty. */
void http_conns_free(http_conn_table *t);
/* May a connection from this address come in? */
bool http_conns_admit(http_conn_table *t, const struct sockaddr *address);
http_connection *http_conns_add(http_conn_table *t, int fd, const struct sockaddr *address);
void http_conns_remove(http_conn_table *t, http_connection *c);
void http_conn_set_request(http_conn_table *t, http_connection *c, http_request *rq);
void http_conn_set_phase(http_connection *c, http_phase phase);
/*
 * A request is over, which was n_bytes long; 0: nobody knows, as there were chunks or TLS, and the
 * kernel is asked.  Before the phase becomes IDLE.
 */
void http_conn_used(http_connection *c, uint64_t n_bytes);
/*
 * Ends connections without a request, without fn only those that have waited for a first one for a
 * second; returns how many are left.  fn (may be NULL) sees each request.
 */
size_t http_conns_quiesce(http_conn_table *t, void (*fn)(http_request *rq));
size_t http_conns_count(http_conn_table *t);
/* The client's address as text; "" for one that is not counted. */
void http_conn_peer(const http_connection *c, char out[HTTP_PEER_LEN]);

/* ---- http.c and http_request.c: the request ---- */

#define HTTP_PIPE_BYTES (256u << 10)
#define HTTP_MAX_ANSWER_BYTES (64u << 20)
#define HTTP_MAX_FAST_BYTES (256u << 10) /* of an answer that is made on an event thread */
#define HTTP_MAX_GUNZIP_BYTES (10u << 20)
#define HTTP_MAX_SET_HEADERS 160 /* most are set by a relay */
#define HTTP_ID_LEN 20

/* One listening socket and the daemon behind it. */
typedef struct http_front {
    http_server *server;
    struct MHD_Daemon *daemon;
    bool is_owner;
} http_front;

/* For http_listen_let_go(): made while there are numbers, since the end may come when none is. */
#define HTTP_STAND_IN_FDS 9
typedef struct http_stand_in {
    int fds[HTTP_STAND_IN_FDS]; /* the first is put in; the others keep numbers free until then */
    size_t n;                   /* 0: none */
} http_stand_in;

struct http_server {
    http_options options;
    http_front tcp[HTTP_MAX_FDS], local;
    size_t n_tcp;
    uint16_t port; /* of the first */
    char *socket_path;
    http_stand_in stand_in; /* for the sockets in options.fds */
    struct http_tls *tls;   /* NULL: plain HTTP */
    http_conn_table *conns;
    pool *streams, *bodies;
    bool has_exact_heads;
    uint32_t id_prefix;
    atomic_uint id_counter;
    atomic_bool is_stopping; /* answers say "Connection: close" */
    atomic_bool is_closed;   /* no request begins any more */
};

struct http_request {
    atomic_int n_refs;
    http_server *server;
    http_front *front;
    http_connection *conn;      /* event thread only */
    struct MHD_Connection *mhd; /* valid until is_dead */
    int64_t began_us;
    char id[HTTP_ID_LEN + 1];

    /* set by the head, constant from then on */
    memfs_str raw_at; /* where the library has the target: for http_guard_is_exact() only */
    char *raw;        /* the target as it came */
    char *storage;
    http_target target;
    char method_name[12];
    unsigned method;
    bool is_head_method, has_head, must_close, is_gzip, is_http_10;
    bool is_refused; /* by the gate, which has answered */
    bool is_gating;  /* the gate has said LATER; event thread */
    bool is_chunked;
    const http_route *route;
    _Alignas(max_align_t) unsigned char principal[HTTP_PRINCIPAL_BYTES];
    char token_id[16];
    http_pair *headers; /* copied when the request leaves the event thread; ends with a NULL key */
    uint64_t drain_bytes;
    uint64_t head_bytes; /* as they came; 0: not known */

    /* guards all below; held for a few instructions, never over a call out */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    http_pipe in, out_pipe;
    uint64_t n_body, n_sent;
    memfs_error body_error; /* why http_stream_read ended before its time */
    bool is_body_ended;     /* all of it has come */
    bool is_discarding;     /* nobody wants the rest of it; body_error says why */
    bool is_submitted, is_suspended, is_dead;
    bool is_answered;                /* out, status and headers are final */
    bool is_begun, is_ended, is_cut; /* of a streamed answer */
    bool wants_flush;
    bool is_relayed;             /* it has been handed over; stays so */
    bool wants_body, wants_room; /* poke when there is some */
    int gate_told;
    void (*poke)(void *ctx); /* of a relay; NULL when nobody needs it any more */
    void *poke_ctx;
    int64_t length; /* of a relayed answer; -1: not known */

    /* the handler's thread, until is_answered or is_begun; then the event thread */
    bool is_hurried, is_deferred; /* FAST: runs on the event thread; has to run on a worker */
    int status;
    memfs_buf out;
    memfs_buf body; /* an inflated one */
    char content_type[64];
    http_pair *set_headers; /* owned */
    size_t n_set_headers, set_headers_cap;
    char note[256];
    http_gunzip *gunzip;
    char *gunzip_in; /* compressed bytes not yet used */
    memfs_str gunzip_left;
};

/* ---- http.c ---- */

/*
 * Serves what comes in on fd, a socket that listens, on n_threads event threads of its own; f lies in
 * s, and its is_owner is set.  fd is given, also when this fails (EUNAVAIL).
 */
MEMFS_CHECK memfs_code http_front_start(http_server *s, http_front *f, int fd, size_t n_threads,
                                        memfs_error *err);
/* When no request is aside any more.  One that never started is fine. */
void http_front_stop(http_front *f);
/* Is the library the one whose parser http_guard_is_exact() was tested with? */
bool http_library_is_known(void);

http_request *http_request_new(http_server *s, http_front *f, const char *raw);
void http_request_ref(http_request *rq);
void http_request_unref(http_request *rq); /* the last one writes the line in the log */
/* Lets the event thread look again, if it has put the request aside.  Under rq->mutex. */
void http_wake_locked(http_request *rq);
/* What is still to come of the body is read and thrown away.  Under rq->mutex. */
void http_give_up_body_locked(http_request *rq, memfs_code code, const char *why);
/* The value of a header, read from libmicrohttpd: event thread only. */
const char *http_header_live(const http_request *rq, const char *name);
/* A copy of the head for a worker, which may outlive the connection. */
void http_copy_headers(http_request *rq);
bool http_server_logs(const http_server *s);
/* Inflates a gathered body, runs the handler, and sees to it that there is an answer. */
void http_run_handler(http_request *rq);
void *http_server_app(const http_server *s);

/* ---- http_flow.c: from the head to the handler ---- */

/* False: the body is announced as too long to be waited for; the answer is given. */
bool http_admit(http_request *rq);
void http_submit(http_request *rq);
/* How many of the n bytes are done with; -1: the connection ends here. */
ssize_t http_take_body(http_request *rq, const char *bytes, size_t n);
/* True: it is up to us now to find an answer. */
bool http_end_body(http_request *rq);
void http_dispatch(http_request *rq);

/* Until the gate has decided, when it had said LATER. */
void http_ask_gate_again(http_request *rq);

/* ---- http_relay.c ---- */

/* The handler of a RELAY route, on the event thread. */
void http_run_relay(http_request *rq);
/* Is there something that the relay waits for?  Then it is poked.  Under rq->mutex. */
void http_poke_locked(http_request *rq);
/* The client has gone (reaper): brought back to the event thread, which then sees it. */
void http_client_left(http_request *rq);

/* ---- http_tls.c: the certificate of the TCP front; one in a process ---- */

typedef struct http_tls http_tls;
/* TLS 1.2 and later, as GnuTLS says it. */
#define HTTP_TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SERVER_PRECEDENCE"

/* EDENIED: the key is open to others.  EINVALID: one of the files is not what it should be. */
MEMFS_CHECK memfs_code http_tls_open(const char *cert_path, const char *key_path, http_tls **ret,
                                     memfs_error *err);
/* When no handshake runs any more. */
void http_tls_close(http_tls *t);
/* The value of MHD_OPTION_HTTPS_CERT_CALLBACK. */
void *http_tls_callback(void);
/* One thread at a time. */
void http_tls_refresh(http_tls *t, bool is_asked);

/* ---- http_listen.c: the sockets, listening and non-blocking ---- */

MEMFS_CHECK memfs_code http_listen_tcp(const char *address, uint16_t port, int *ret_fd,
                                       uint16_t *ret_port, memfs_error *err);
/* One that is listening already (http.h, fds); fd stays the caller's.  EINVALID: it is not TCP. */
MEMFS_CHECK memfs_code http_listen_inherited(int fd, uint16_t *ret_port, memfs_error *err);
/*
 * Sockets that were handed down outlive us: who connects from now on waits in their queue for the
 * next process.  But the library shuts a listening socket down when it ends, and that holds for all
 * who have it; so it is left with another one, of the same number, that nobody can connect to.  Its
 * threads still see that somebody waits in the real one, and look in vain until the drain is over:
 * from the first who waits there, each event thread of that front is busy with it, beside what it
 * has to end (25 s at most).
 */
MEMFS_CHECK memfs_code http_listen_stand_in(http_stand_in *ret, memfs_error *err);
/* s is used up by it; without one, or a second time, nothing is let go. */
void http_listen_let_go(http_stand_in *s, const int *fds, size_t n);
/* 0600; a socket that is left from before is replaced, so the caller owns the folder. */
MEMFS_CHECK memfs_code http_listen_unix(const char *path, int *ret_fd, memfs_error *err);

#endif
