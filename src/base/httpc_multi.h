/*
 * httpc_multi.h - many requests at once, on one thread that none of them blocks (by libcurl's multi
 * interface; httpc.h is for one request and a thread that waits for it).
 *
 * Bytes flow both ways as they come: nothing is gathered, and whoever cannot take or give any more
 * says HTTPC_LATER and calls httpc_transfer_poke() when that has changed, so one slow side slows
 * the other down and nobody else.  A request waits for its answer as long as it takes, unless
 * timeout_ms says otherwise; only the connection has a bound (5 s), and TCP keep-alives find a
 * machine that is gone (about a minute).
 *
 * What libcurl would do to a request by itself is off: no header of its own but Host and the
 * framing (Content-Length or chunked, by body_bytes), no "Expect: 100-continue", no Accept-Encoding
 * and no decompression, no redirect, no cookies, no proxy.  The framing of the answer is taken off
 * (1xx heads and trailers with it) and what is left comes as it is; an answer that ends before its
 * framing does is HTTPC_CUT.  A connection has one request, so what the other side sends behind an
 * answer is nobody's (T19: libcurl before 8 takes it for the answer to the next request).  Those
 * whose plan says is_own keep theirs for some seconds, among themselves: on such a connection
 * libcurl sends a request again when the other side closed it meanwhile.
 *
 * Order of calls for each transfer, all on the multi's thread, where nothing may block:
 *     read *   head   data *   end        (read goes on beside the answer; end comes always, once)
 *
 * Thread: any, unless it says otherwise.
 */
#ifndef MEMFS_BASE_HTTPC_MULTI_H
#define MEMFS_BASE_HTTPC_MULTI_H

#include "base/httpc.h"

#include <sys/types.h>

typedef struct httpc_multi httpc_multi;
typedef struct httpc_transfer httpc_transfer;

typedef struct httpc_field {
    memfs_str name, value; /* as sent, without blanks around */
} httpc_field;

#define HTTPC_LATER (-1)
#define HTTPC_GIVE_UP (-2)

typedef struct httpc_transfer_ops {
    /* The next bytes of the body: how many; 0: its end; HTTPC_LATER; HTTPC_GIVE_UP.  NULL: no body.
     */
    ssize_t (*read)(void *bytes, size_t n, void *ctx);
    /* The final head, whole; false ends the transfer.  At most HTTPC_MAX_FIELDS fields, in order.
     */
    bool (*head)(int status, const httpc_field *fields, size_t n, void *ctx);
    /* All of the piece (at most HTTPC_MAX_PIECE) was taken: 0; HTTPC_LATER: none of it; give up. */
    int (*data)(memfs_str piece, void *ctx);
    /* Asked before it begins and when it was poked: false ends it.  NULL: it goes on. */
    bool (*goes_on)(void *ctx);
    /* Over.  how->failure is HTTPC_FINE when the answer came whole. */
    void (*end)(const httpc_answer *how, void *ctx);
} httpc_transfer_ops;

#define HTTPC_MAX_FIELDS 128
#define HTTPC_MAX_HEAD_BYTES (24u << 10) /* of an answer; more ends it as HTTPC_NOT_HTTP */
#define HTTPC_MAX_PIECE (16u << 10)

typedef struct httpc_plan {
    const char *method;
    const char *origin;         /* "http://host:port"; the Host header is made of it */
    const char *target;         /* "/path?query", sent as it is */
    const char *const *headers; /* "Name: value", or "Name;" for an empty value; NULL-terminated */
    int64_t body_bytes;         /* -1: chunked; looked at when ops->read is there */
    int64_t timeout_ms;         /* 0: none */
    bool is_own;                /* ours from head to end, without a body, and may be sent twice */
    const httpc_transfer_ops *ops;
    void *ctx;
} httpc_plan;

/* life cycle */
/* EUNAVAIL: no libcurl. */
MEMFS_CHECK memfs_code httpc_multi_start(httpc_multi **ret, memfs_error *err);
/* Ends every transfer (HTTPC_STOPPED) and the thread; from then on none begins. */
void httpc_multi_stop(httpc_multi *m);
/* After stop, when nobody has a transfer any more.  NULL is fine. */
void httpc_multi_free(httpc_multi *m);

/* A transfer, which does nothing yet; one reference is the caller's.  The plan is copied. */
httpc_transfer *httpc_transfer_new(httpc_multi *m, const httpc_plan *plan);
/* EUNAVAIL: the multi is stopped; then no call comes, end neither. */
MEMFS_CHECK memfs_code httpc_transfer_start(httpc_transfer *t, memfs_error *err);
/* Something is there to be read, there is room for more, or it should end; nothing before it was
 * started.  Never blocks; takes a mutex that is held for some instructions. */
void httpc_transfer_poke(httpc_transfer *t);
void httpc_transfer_unref(httpc_transfer *t);

#endif
