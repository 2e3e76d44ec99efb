/*
 * httpc.h - asking over HTTP, by libcurl.  The only home of curl/curl.h.
 *
 * libcurl is not linked: it is loaded when the first request is made, because loading it costs
 * more than everything else that a `memfs apply` without a network does.  Where it is missing,
 * requests are EUNAVAIL and say which package brings it.
 *
 * No redirect is followed, no proxy, cookie, netrc or user configuration is read, TLS is at least
 * 1.2 and always verified.  timeout_ms is absolute: it covers the name, the connection, TLS and
 * the answer, however slowly they drip (a resolver that hangs is left behind in its own thread).
 * process_end_of and process_end_all end a request that runs, within a second or so.
 *
 * Thread: any; a call blocks its thread.
 */
#ifndef MEMFS_BASE_HTTPC_H
#define MEMFS_BASE_HTTPC_H

#include "base/buf.h"

/* One header of the answer: the name as it was sent (compare without case), the value without
 * blanks around it.  Both may hold anything a stranger can send but line ends. */
typedef void (*httpc_header_fn)(memfs_str name, memfs_str value, void *ctx);

typedef struct httpc_request {
    /* where to: one of the two */
    const char *socket_path; /* unix socket; `path` is the raw target, e.g. "/v1/agents/" */
    const char *url;         /* http:// or https://, without user info */
    const char *path;
    const char *method;      /* "GET", "POST" */
    memfs_str body;          /* sent as JSON when not empty */
    int64_t timeout_ms;      /* 0: none */
    /* for url */
    const char *const *headers;   /* "Name: value", NULL-terminated; NULL: none */
    const char *ca_file;          /* PEM; NULL: the system's */
    int64_t connect_timeout_ms;   /* 0: 2 s */
    int64_t idle_ms;              /* 0: none; less than a byte a second for so long ends it */
    httpc_header_fn header;       /* told each header of the answer; NULL */
    void *header_ctx;
} httpc_request;

/* How a request ended that has no whole answer. */
typedef enum httpc_failure {
    HTTPC_FINE,
    HTTPC_NO_LIBRARY,
    HTTPC_NO_NAME,  /* the host's name is not known */
    HTTPC_REFUSED,  /* nobody listens, or there is no way there */
    HTTPC_TIMEOUT,
    HTTPC_TLS,      /* certificate, handshake, version */
    HTTPC_CUT,      /* ended in the middle */
    HTTPC_NOT_HTTP, /* what came is no HTTP */
    HTTPC_STOPPED,  /* by fn, or as children are ended (process.h) */
    HTTPC_OTHER,
} httpc_failure;

typedef struct httpc_answer {
    httpc_failure failure;
    int status;            /* 0: no answer */
    char content_type[100]; /* lower case, without parameters; "" */
    char location_host[200]; /* of a redirect; "" */
    int64_t retry_after_s; /* 0: not said */
    char detail[200];      /* of a failure: "certificate has expired"; one line */
} httpc_answer;

/* A piece of the answer's body as it arrives; false stops the transfer. */
typedef bool (*httpc_data_fn)(memfs_str piece, void *ctx);

/*
 * EUNAVAIL: nobody listens, or the answer did not come whole.  Any status is an answer:
 * *ret_status.
 */
MEMFS_CHECK memfs_code httpc_ask(const httpc_request *rq, httpc_data_fn fn, void *ctx,
                                 int *ret_status, memfs_error *err);
/* The same for somebody who wants to know more; it never fails, *ret says how it went.  status
 * may be set beside a failure: the answer had begun. */
void httpc_fetch(const httpc_request *rq, httpc_data_fn fn, void *ctx, httpc_answer *ret);

/* "Sun, 06 Nov 1994 08:49:37 GMT" and other forms of HTTP dates as unix seconds; -1: it is none. */
int64_t httpc_date(const char *text);

/* Percent-encodes one path segment or query value into out. */
void httpc_escape(memfs_buf *out, memfs_str s);

#endif
