/*
 * http_guard.c - is this head one that every HTTP program reads the same way?
 *
 * libmicrohttpd 0.9.75 is generous: it takes two Content-Lengths (and believes the first), a
 * Content-Length beside chunked, blanks before a colon, bare LF as the end of a line, folded lines,
 * and it cuts a value at a NUL.  Each of these lets two programs in a row see different requests in
 * the same bytes (T19).  So a request is served only when its head is
 *
 *     method SP target SP version CRLF *( name ":" OWS value CRLF ) CRLF
 *
 * with names that are tokens and values without control bytes, one framing, and one of each field
 * that decides something.  What the library parsed is judged by http_guard_head(); what it hid is
 * found by http_guard_is_exact(): the library parses in place, so in a well-formed head the parts
 * lie in memory one behind the other with nothing but the separators between, and a bare LF, a
 * fold, a NUL or a second blank leaves a gap.  That holds for the version it was tested with;
 * http.c asks only then.
 *
 * A malformed Content-Length never gets here: the library answers 400 and closes by itself (and, in
 * that version, writes the head of its answer twice; no client waits for more than the status).
 *
 * One deviation remains: in the framing of a chunked body a bare LF counts as CRLF, and chunk
 * extensions and trailers are skipped.  memfs is the end of the line: it never forwards a body as
 * it came (a gateway frames it anew), and what follows a request on a connection is judged as a head again.  test_http.c shows
 * that the next request on such a connection is the one the client meant.
 *
 * Pure: no I/O, no allocation.
 */
#include "server/http_int.h"

#include <strings.h>

static bool is_token(memfs_str s)
{
    static const char others[] = "!#$%&'*+-.^_`|~";

    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            (c == '\0' || strchr(others, c) == NULL))
            return false;
    }
    return s.len > 0;
}

static bool is_value(memfs_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];

        if ((c < 0x20 && c != '\t') || c == 0x7F)
            return false;
    }
    return true;
}

static bool is_named(const http_pair *field, const char *name)
{
    return field->key.len == strlen(name) && strncasecmp(field->key.ptr, name, field->key.len) == 0;
}

/* The value of a field that may come once; *ret_n counts how often it came. */
static memfs_str find(const http_head *head, const char *name, size_t *ret_n)
{
    memfs_str value = { "", 0 };

    *ret_n = 0;
    for (size_t i = 0; i < head->n_fields; i++)
        if (is_named(&head->fields[i], name) && (*ret_n)++ == 0)
            value = head->fields[i].value;
    return value;
}

static const char *judge_fields(const http_head *head)
{
    static const char *const single[] = {
        "Content-Length",   "Host",   "Authorization", "Content-Type", "Transfer-Encoding",
        "Content-Encoding", "Expect",
    };
    size_t n;

    for (size_t i = 0; i < head->n_fields; i++) {
        if (!is_token(head->fields[i].key))
            return "a header has a malformed name";
        if (!is_value(head->fields[i].value))
            return "a header has a malformed value";
    }
    for (size_t i = 0; i < ARRAY_LEN(single); i++) {
        find(head, single[i], &n);
        if (n > 1)
            return "a header that may come once was sent twice";
    }
    return NULL;
}

static bool is_digits(memfs_str s)
{
    uint64_t number;

    return str_to_u64(s, INT64_MAX, &number);
}

static const char *judge_framing(const http_head *head, bool is_11)
{
    size_t n_lengths, n_codings, n_hosts;
    memfs_str length = find(head, "Content-Length", &n_lengths);
    memfs_str coding = find(head, "Transfer-Encoding", &n_codings);

    find(head, "Host", &n_hosts);
    if (is_11 && n_hosts == 0)
        return "the Host header is missing";
    if (n_lengths > 0 && !is_digits(length))
        return "the Content-Length is not a number";
    if (n_codings == 0)
        return NULL;
    if (n_lengths > 0)
        return "Content-Length and Transfer-Encoding exclude each other";
    if (!is_11)
        return "HTTP/1.0 has no Transfer-Encoding";
    if (coding.len != 7 || strncasecmp(coding.ptr, "chunked", 7) != 0)
        return "the Transfer-Encoding is not 'chunked'";
    return NULL;
}

bool http_guard_is_large(const http_head *head)
{
    return head->n_fields > HTTP_MAX_HEADERS || head->size > HTTP_MAX_HEAD_BYTES;
}

const char *http_guard_head(const http_head *head)
{
    bool is_11 = str_equal(head->version, MEMFS_STR("HTTP/1.1"));
    const char *fault;

    if (!is_11 && !str_equal(head->version, MEMFS_STR("HTTP/1.0")))
        return "only HTTP/1.1 and HTTP/1.0 are spoken here";
    if (!is_token(head->method))
        return "the method is malformed";
    if (head->n_fields > HTTP_MAX_HEADERS)
        return "there are more than 100 headers";
    if (head->size > HTTP_MAX_HEAD_BYTES)
        return "the head is larger than 16 KiB";
    fault = judge_fields(head);
    return fault != NULL ? fault : judge_framing(head, is_11);
}

static const char *end_of(memfs_str s)
{
    return s.ptr + s.len;
}

bool http_guard_is_exact(const http_head *head)
{
    const char *at = end_of(head->version) + 2;

    if (end_of(head->method) + 1 != head->target.ptr ||
        end_of(head->target) + 1 != head->version.ptr)
        return false;
    for (size_t i = 0; i < head->n_fields; i++) {
        const http_pair *f = &head->fields[i];

        /* between them are a colon and any number of blanks: the library saw to that */
        if (f->key.ptr != at || f->value.ptr <= end_of(f->key))
            return false;
        at = end_of(f->value) + 2;
    }
    return at + 2 == head->method.ptr + head->size;
}
