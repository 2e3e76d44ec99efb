#include "base/httpc.h"

#include "base/mem.h"

#include <curl/curl.h>
#include <stdlib.h>

typedef struct sink {
    httpc_data_fn fn;
    void *ctx;
} sink;

static size_t on_data(char *bytes, size_t size, size_t n, void *ctx)
{
    sink *s = ctx;

    return s->fn(str_make(bytes, size * n), s->ctx) ? size * n : 0;
}

static void curl_cleanupp(CURL **curl)
{
    curl_easy_cleanup(*curl);
}

static void slist_freep(struct curl_slist **list)
{
    curl_slist_free_all(*list);
}

static void prepare(CURL *curl, const httpc_request *rq, const char *url, sink *s,
                    struct curl_slist *headers)
{
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, rq->socket_path);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, 2000L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)rq->timeout_ms);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, rq->method);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, s);
    if (rq->body.len > 0) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, rq->body.ptr);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body.len);
    }
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
}

memfs_code httpc_ask(const httpc_request *rq, httpc_data_fn fn, void *ctx, int *ret_status,
                     memfs_error *err)
{
    _cleanup_(curl_cleanupp) CURL *curl = curl_easy_init();
    _cleanup_(mem_freep) char *url = mem_printf("http://memfs%s", rq->path);
    _cleanup_(slist_freep) struct curl_slist *headers =
        curl_slist_append(NULL, "Content-Type: application/json");
    sink s = { fn, ctx };
    CURLcode rc;
    long status = 0;

    if (curl == NULL || headers == NULL)
        return memfs_fail(err, MEMFS_EINTERNAL, "could not set up the HTTP client");
    prepare(curl, rq, url, &s, headers);
    rc = curl_easy_perform(curl);
    if (rc != CURLE_OK)
        return memfs_fail(err, MEMFS_EUNAVAIL, "could not ask the running server: %s",
                          curl_easy_strerror(rc));
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    *ret_status = (int)status;
    return MEMFS_OK;
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
