/*
 * httpc.h - asking over HTTP, by libcurl.  The only home of curl/curl.h.
 *
 * For now memfs asks only its own server, over the 0600 socket in the data folder; no redirect is
 * followed and no proxy or user configuration is read.
 *
 * Thread: any; a call blocks its thread.
 */
#ifndef MEMFS_BASE_HTTPC_H
#define MEMFS_BASE_HTTPC_H

#include "base/buf.h"

typedef struct httpc_request {
    const char *socket_path; /* unix socket */
    const char *method;      /* "GET", "POST" */
    const char *path;        /* raw target, e.g. "/v1/agents/" */
    memfs_str body;          /* sent as JSON when not empty */
    int64_t timeout_ms;      /* 0: none; connecting has its own 2 s */
} httpc_request;

/* A piece of the answer's body as it arrives; false stops the transfer. */
typedef bool (*httpc_data_fn)(memfs_str piece, void *ctx);

/*
 * EUNAVAIL: nobody listens, or the answer did not come whole.  Any status is an answer: *ret_status.
 */
MEMFS_CHECK memfs_code httpc_ask(const httpc_request *rq, httpc_data_fn fn, void *ctx,
                                 int *ret_status, memfs_error *err);

/* Percent-encodes one path segment or query value into out. */
void httpc_escape(memfs_buf *out, memfs_str s);

#endif
