/*
 * stream.h - what a request and an answer look like on the other side of the gateway (T03, T19).
 *
 * A head is never passed on as it came: it is written anew, field by field, and these stay behind:
 *   - of both: what is between two neighbours only (Connection and whatever it names, Keep-Alive,
 *     Proxy-Authenticate, Proxy-Authorization, Proxy-Connection, TE, Trailer, Transfer-Encoding,
 *     Upgrade), Content-Length (the framing is made anew);
 *   - of a request: Host, Expect, X-Organization-Id (a header that only servers set), and, unless
 *     a proxy in front is believed, X-Forwarded-*, X-Real-IP and Forwarded;
 *   - of an answer: fields that are no HTTP (a name that is no token, control bytes), without which
 *     the rest is passed on.
 * Order and spelling of what is left are kept, and so are fields that come several times.
 *
 * Thread: any; pure.  Fuzzed by tests/fuzz/fuzz_stream.c.
 */
#ifndef MEMFS_LETTA_STREAM_H
#define MEMFS_LETTA_STREAM_H

#include "base/httpc_multi.h"

/* Lines that own their text; NULL-terminated for httpc_plan.headers. */
typedef struct stream_lines {
    char **at;
    size_t n, cap;
} stream_lines;
#define STREAM_LINES_INIT                                                                          \
    {                                                                                              \
        .at = NULL                                                                                 \
    }
void stream_lines_dispose(stream_lines *l);
/* "name: value"; nothing for a NULL value. */
void stream_lines_add(stream_lines *l, const char *name, const char *value);

/* Where a Letta server is: scheme, host and port, nothing else. */
typedef struct stream_address {
    char *origin;    /* "http://host[:port]", host in lower case, without a port that goes without
                        saying */
    char *authority; /* what stands in Host: "host[:port]" */
    bool is_tls;
} stream_address;
#define STREAM_ADDRESS_INIT                                                                        \
    {                                                                                              \
        .origin = NULL                                                                             \
    }
/* EINVALID: not http(s)://host[:port][/]; the message holds nothing of a password in it. */
MEMFS_CHECK memfs_code stream_address_parse(const char *text, stream_address *ret,
                                            memfs_error *err);
void stream_address_dispose(stream_address *a);

/* How the client came to us. */
typedef struct stream_caller {
    const char *peer; /* its address, or that of the proxy */
    bool is_tls;
    bool is_proxy_believed; /* what the request says of X-Forwarded-* counts */
    const char *via;        /* our name in Via */
} stream_caller;

/*
 * The request's fields as they go on.  ELIMIT: it went through us before (a loop).  EINVALID: it
 * asks for another protocol that both sides would have to speak (a websocket).
 */
MEMFS_CHECK memfs_code stream_request(const httpc_field *fields, size_t n,
                                      const stream_caller *caller, stream_lines *ret,
                                      memfs_error *err);

/*
 * The base that the client called, "https://host[:port]", from Host and, if the proxy is believed,
 * X-Forwarded-Proto and X-Forwarded-Host; NULL when they are no such thing.  Caller frees.
 */
char *stream_base_called(const httpc_field *fields, size_t n, const stream_caller *caller);

typedef struct stream_answer {
    bool has_length;
    int64_t length;      /* when has_length */
    httpc_field *fields; /* owned array of n; texts are borrowed, from fields or `texts` */
    size_t n;
    stream_lines texts;
} stream_answer;
#define STREAM_ANSWER_INIT                                                                         \
    {                                                                                              \
        .has_length = false                                                                        \
    }
void stream_answer_dispose(stream_answer *a);
/*
 * The answer's fields as the client gets them; redirects and addresses to the upstream itself point
 * to where the client called (base NULL: become paths).  EINVALID: two programs could read the
 * framing in two ways.
 */
MEMFS_CHECK memfs_code stream_answer_head(const httpc_field *fields, size_t n,
                                          const stream_address *upstream, const char *base,
                                          stream_answer *ret, memfs_error *err);

/* The value of a field, compared without case; NULL ptr: it is absent. */
memfs_str stream_field(const httpc_field *fields, size_t n, const char *name);

#endif
