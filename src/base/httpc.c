#include "base/httpc_int.h"

#include "base/escape.h"
#include "base/mem.h"
#include "base/process.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static pthread_once_t load_once = PTHREAD_ONCE_INIT;
static curl_library library;
static bool is_loaded;

/* Debian's git brings the second one. */
static void *open_library(void)
{
    static const char *const names[] = { "libcurl.so.4", "libcurl-gnutls.so.4" };
    void *handle = NULL;

    for (size_t i = 0; handle == NULL && i < ARRAY_LEN(names); i++)
        handle = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return handle;
}

static void load(void)
{
    void *handle = open_library(); /* stays loaded: its threads may outlive a request */
    bool is_whole = handle != NULL;

#define FIELD(name)                                                                                \
    if (is_whole) {                                                                                \
        *(void **)&library.name = dlsym(handle, "curl_" #name);                                    \
        is_whole = library.name != NULL;                                                           \
    }
    CURL_FUNCTIONS(FIELD)
#undef FIELD
    is_loaded = is_whole && library.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

const curl_library *httpc_library(void)
{
    pthread_once(&load_once, load);
    return is_loaded ? &library : NULL;
}

/* one request */

typedef struct exchange {
    const curl_library *lib;
    CURL *curl;
    struct curl_slist *headers;
    char *url;
    char said[CURL_ERROR_SIZE];
    httpc_data_fn fn;
    void *ctx;
    httpc_header_fn header;
    void *header_ctx;
    bool was_stopped;
    process_waiting waiting;
} exchange;

static void exchange_dispose(exchange *x)
{
    if (x->lib == NULL)
        return;
    x->lib->easy_cleanup(x->curl);
    x->lib->slist_free_all(x->headers);
    free(x->url);
}

static size_t on_data(char *bytes, size_t size, size_t n, void *ctx)
{
    exchange *x = ctx;

    x->was_stopped = !x->fn(str_make(bytes, size * n), x->ctx);
    return x->was_stopped ? 0 : size * n;
}

/* Called as bytes come and go, and once a second while none do. */
static int on_progress(void *ctx, curl_off_t to_get, curl_off_t got, curl_off_t to_send,
                       curl_off_t sent)
{
    exchange *x = ctx;

    (void)to_get, (void)got, (void)to_send, (void)sent;
    if (!process_waiting_is_ended(&x->waiting))
        return 0;
    x->was_stopped = true;
    return 1;
}

memfs_str httpc_trim(memfs_str s)
{
    while (s.len > 0 && strchr(" \t\r\n", s.ptr[0]) != NULL)
        s = str_from(s, 1);
    while (s.len > 0 && strchr(" \t\r\n", s.ptr[s.len - 1]) != NULL)
        s.len--;
    return s;
}

/* A line of the head; the status line and the empty one have no colon worth the name. */
static size_t on_header(char *bytes, size_t size, size_t n, void *ctx)
{
    const exchange *x = ctx;
    memfs_str name, value;

    if (str_split(str_make(bytes, size * n), ':', &name, &value) && name.len > 0 &&
        memchr(name.ptr, ' ', name.len) == NULL)
        x->header(name, httpc_trim(value), x->header_ctx);
    return size * n;
}

static bool add_header(exchange *x, const char *line)
{
    struct curl_slist *longer = x->lib->slist_append(x->headers, line);

    if (longer == NULL)
        return false;
    x->headers = longer;
    return true;
}

static bool add_headers(exchange *x, const httpc_request *rq)
{
    bool ok = rq->url != NULL || add_header(x, "Content-Type: application/json");

    for (size_t i = 0; ok && rq->headers != NULL && rq->headers[i] != NULL; i++)
        ok = add_header(x, rq->headers[i]);
    return ok;
}

/* Options that the loaded library does not know are refused by it, which is no harm to any of
 * these. */
static void set_bounds(const exchange *x, const httpc_request *rq)
{
    long connect_ms = rq->connect_timeout_ms > 0 ? (long)rq->connect_timeout_ms : 2000;

    x->lib->easy_setopt(x->curl, CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
    x->lib->easy_setopt(x->curl, CURLOPT_TIMEOUT_MS, (long)rq->timeout_ms);
    if (rq->idle_ms > 0) {
        x->lib->easy_setopt(x->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
        x->lib->easy_setopt(x->curl, CURLOPT_LOW_SPEED_TIME, (long)((rq->idle_ms + 999) / 1000));
    }
}

void httpc_set_safety(const curl_library *lib, CURL *curl, const char *ca_file)
{
    lib->easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    lib->easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    lib->easy_setopt(curl, CURLOPT_PROXY, "");
    lib->easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    lib->easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    lib->easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
#if LIBCURL_VERSION_NUM >= 0x075500
    lib->easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
    /* else the end of a request waits for a resolver that hangs, whatever the timeout says */
    lib->easy_setopt(curl, CURLOPT_QUICK_EXIT, 1L);
#endif
    if (ca_file != NULL) {
        lib->easy_setopt(curl, CURLOPT_CAINFO, ca_file);
        lib->easy_setopt(curl, CURLOPT_CAPATH, NULL);
    }
}

static bool prepare(exchange *x, const httpc_request *rq)
{
    x->curl = x->lib->easy_init();
    x->url = rq->url != NULL ? mem_strdup(rq->url) : mem_printf("http://memfs%s", rq->path);
    if (x->curl == NULL || !add_headers(x, rq))
        return false;
    x->lib->easy_setopt(x->curl, CURLOPT_URL, x->url);
    if (rq->url == NULL)
        x->lib->easy_setopt(x->curl, CURLOPT_UNIX_SOCKET_PATH, rq->socket_path);
    httpc_set_safety(x->lib, x->curl, rq->ca_file);
    set_bounds(x, rq);
    x->lib->easy_setopt(x->curl, CURLOPT_ERRORBUFFER, x->said);
    x->lib->easy_setopt(x->curl, CURLOPT_CUSTOMREQUEST, rq->method);
    x->lib->easy_setopt(x->curl, CURLOPT_WRITEFUNCTION, on_data);
    x->lib->easy_setopt(x->curl, CURLOPT_WRITEDATA, x);
    x->lib->easy_setopt(x->curl, CURLOPT_HTTPHEADER, x->headers);
    x->lib->easy_setopt(x->curl, CURLOPT_NOPROGRESS, 0L);
    x->lib->easy_setopt(x->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    x->lib->easy_setopt(x->curl, CURLOPT_XFERINFODATA, x);
    if (x->header != NULL) {
        x->lib->easy_setopt(x->curl, CURLOPT_HEADERFUNCTION, on_header);
        x->lib->easy_setopt(x->curl, CURLOPT_HEADERDATA, x);
    }
    if (rq->body.len > 0) {
        x->lib->easy_setopt(x->curl, CURLOPT_POSTFIELDS, rq->body.ptr);
        x->lib->easy_setopt(x->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body.len);
    }
    return true;
}

/* what came of it */

httpc_failure httpc_failure_of(CURLcode rc, bool was_stopped)
{
    switch (rc) {
    case CURLE_OK:
        return HTTPC_FINE;
    case CURLE_COULDNT_RESOLVE_HOST:
        return HTTPC_NO_NAME;
    case CURLE_COULDNT_CONNECT:
        return HTTPC_REFUSED;
    case CURLE_OPERATION_TIMEDOUT:
        return HTTPC_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
        return HTTPC_TLS;
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
        return HTTPC_CUT;
    case CURLE_UNSUPPORTED_PROTOCOL: /* HTTP/0.9: bytes without a status line */
    case CURLE_WEIRD_SERVER_REPLY:
        return HTTPC_NOT_HTTP;
    case CURLE_WRITE_ERROR:
    case CURLE_ABORTED_BY_CALLBACK:
        return was_stopped ? HTTPC_STOPPED : HTTPC_OTHER;
    default:
        return HTTPC_OTHER;
    }
}

/* curl says "SSL certificate problem: certificate has expired": what is behind the colon is news.
 * */
void httpc_tell_failure(const curl_library *lib, CURL *curl, CURLcode rc, const char *text,
                        httpc_answer *ret)
{
    memfs_str said = str_of(text[0] != '\0' ? text : lib->easy_strerror(rc));
    memfs_str known = MEMFS_STR("SSL certificate problem: ");
    long number = 0;

    lib->easy_getinfo(curl, CURLINFO_OS_ERRNO, &number);
    if (rc == CURLE_ABORTED_BY_CALLBACK)
        said = MEMFS_STR("ended, as memfs is stopping");
    else if (rc == CURLE_OPERATION_TIMEDOUT)
        said = MEMFS_STR("no whole answer in time");
    else if (rc == CURLE_COULDNT_CONNECT && number == ECONNREFUSED)
        said = MEMFS_STR("connection refused");
    else if (rc == CURLE_COULDNT_CONNECT && number != 0)
        said = str_of(strerror((int)number));
    else if (str_starts_with(said, known))
        said = str_from(said, known.len);
    escape_text(said, ret->detail, sizeof(ret->detail));
}

/* The host alone: the rest of a redirect's address may hold anything. */
static void host_of(const char *url, char *out, size_t size)
{
    const char *start = url != NULL ? strstr(url, "://") : NULL, *at;
    size_t n;

    if (start == NULL)
        return;
    start += 3;
    n = strcspn(start, "/?#");
    at = memrchr(start, '@', n);
    if (at != NULL) {
        n -= (size_t)(at + 1 - start);
        start = at + 1;
    }
    escape_text(str_make(start, n), out, size);
}

static void tell_answer(const exchange *x, httpc_answer *ret)
{
    char *type = NULL, *location = NULL;
    curl_off_t retry_after = 0;
    long status = 0;

    x->lib->easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
    x->lib->easy_getinfo(x->curl, CURLINFO_CONTENT_TYPE, &type);
    x->lib->easy_getinfo(x->curl, CURLINFO_REDIRECT_URL, &location);
    x->lib->easy_getinfo(x->curl, CURLINFO_RETRY_AFTER, &retry_after);
    ret->status = (int)status;
    ret->retry_after_s = retry_after > 0 ? (int64_t)retry_after : 0;
    host_of(location, ret->location_host, sizeof(ret->location_host));
    for (size_t i = 0; type != NULL && i + 1 < sizeof(ret->content_type) &&
                       strchr("; \t", type[i]) == NULL; i++)
        ret->content_type[i] = type[i] >= 'A' && type[i] <= 'Z' ? (char)(type[i] + 32) : type[i];
}

void httpc_fetch(const httpc_request *rq, httpc_data_fn fn, void *ctx, httpc_answer *ret)
{
    _cleanup_(exchange_dispose) exchange x = {
        .lib = httpc_library(), .fn = fn, .ctx = ctx, .header = rq->header, .header_ctx = rq->header_ctx
    };
    CURLcode rc;

    *ret = (httpc_answer){ .failure = HTTPC_NO_LIBRARY };
    snprintf(ret->detail, sizeof(ret->detail), HTTPC_NO_LIBRARY_TEXT);
    if (x.lib == NULL)
        return;
    *ret = (httpc_answer){ .failure = HTTPC_OTHER };
    snprintf(ret->detail, sizeof(ret->detail), "could not set up the HTTP client");
    if (!prepare(&x, rq))
        return;
    process_waiting_begin(&x.waiting);
    rc = x.lib->easy_perform(x.curl);
    process_waiting_end(&x.waiting);
    *ret = (httpc_answer){ .failure = httpc_failure_of(rc, x.was_stopped) };
    tell_answer(&x, ret);
    if (rc != CURLE_OK)
        httpc_tell_failure(x.lib, x.curl, rc, x.said, ret);
}

memfs_code httpc_ask(const httpc_request *rq, httpc_data_fn fn, void *ctx, int *ret_status,
                     memfs_error *err)
{
    httpc_answer answer;

    httpc_fetch(rq, fn, ctx, &answer);
    if (answer.failure != HTTPC_FINE)
        return memfs_fail(err, MEMFS_EUNAVAIL, "could not ask %s: %s",
                          rq->url != NULL ? "the server" : "the running server", answer.detail);
    *ret_status = answer.status;
    return MEMFS_OK;
}

int64_t httpc_date(const char *text)
{
    const curl_library *lib = httpc_library();

    return lib != NULL ? (int64_t)lib->getdate(text, NULL) : -1;
}

void httpc_escape(memfs_buf *out, memfs_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
                        (c >= 'a' && c <= 'z') || c == '-' || c == '_' || c == '.' || c == '~';

        if (is_plain)
            buf_putc(out, (char)c);
        else
            buf_printf(out, "%%%02X", c);
    }
}
