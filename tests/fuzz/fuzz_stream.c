/*
 * T03, T19, T20: any two heads, through the gateway.  What goes on has no line end in it, nothing
 * of what is between two neighbours, and no framing of the other side's.
 *
 * The input: the upstream's address, then lines "name: value"; an empty line ends the request's
 * fields and begins the answer's.
 */
#include "fuzz.h"

#include "base/mem.h"
#include "letta/stream.h"

#include <strings.h>

static const char *const never[] = { "Connection", "Transfer-Encoding",  "Content-Length",
                                     "Upgrade",    "Keep-Alive",         "TE",
                                     "Trailer",    "Proxy-Authorization" };

static void check_name(memfs_str name)
{
    for (size_t i = 0; i < ARRAY_LEN(never); i++)
        FUZZ_CHECK(name.len != strlen(never[i]) || strncasecmp(name.ptr, never[i], name.len) != 0);
}

static size_t read_fields(memfs_str *text, httpc_field *fields)
{
    memfs_str line, rest;
    size_t n = 0;

    while (str_split(*text, '\n', &line, &rest) && line.len > 0) {
        *text = rest;
        if (n < HTTPC_MAX_FIELDS && str_split(line, ':', &fields[n].name, &fields[n].value))
            n++;
    }
    *text = str_from(*text, 1);
    return n;
}

/* A request's fields were judged by the guard before they come here (http_guard.c). */
static bool is_clean(memfs_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7F)
            return false;
    return true;
}

static size_t keep_clean(httpc_field *fields, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++)
        if (is_clean(fields[i].name) && is_clean(fields[i].value) && fields[i].name.len > 0)
            fields[kept++] = fields[i];
    return kept;
}

static void try_request(const httpc_field *fields, size_t n, bool is_proxied)
{
    const stream_caller caller = { .peer = "127.0.0.1",
                                   .is_tls = !is_proxied,
                                   .is_proxy_believed = is_proxied,
                                   .via = "memfs-0" };
    stream_lines lines = STREAM_LINES_INIT;
    memfs_error err = MEMFS_ERROR_INIT;
    char *base = stream_base_called(fields, n, &caller);

    if (stream_request(fields, n, &caller, &lines, &err) == MEMFS_OK) {
        for (size_t i = 0; i < lines.n; i++) {
            FUZZ_CHECK(strpbrk(lines.at[i], "\r\n") == NULL);
            check_name(str_make(lines.at[i], strcspn(lines.at[i], ":;")));
        }
        FUZZ_CHECK(lines.n > 0 && lines.at[lines.n] == NULL);
    }
    FUZZ_CHECK(base == NULL || strpbrk(base, "\r\n /\"<>") == strchr(base, '/'));
    free(base);
    stream_lines_dispose(&lines);
}

static void try_answer(const httpc_field *fields, size_t n, const stream_address *a)
{
    stream_answer answer = STREAM_ANSWER_INIT;
    memfs_error err = MEMFS_ERROR_INIT;

    if (stream_answer_head(fields, n, a, NULL, &answer, &err) == MEMFS_OK) {
        for (size_t i = 0; i < answer.n; i++) {
            check_name(answer.fields[i].name);
            FUZZ_CHECK(is_clean(answer.fields[i].name) && is_clean(answer.fields[i].value));
        }
        FUZZ_CHECK(answer.n <= n);
    }
    stream_answer_dispose(&answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char *copy = mem_strndup((const char *)bytes, n);
    memfs_str text = str_make(copy, n), line;
    httpc_field fields[HTTPC_MAX_FIELDS];
    stream_address address = STREAM_ADDRESS_INIT;
    memfs_error err = MEMFS_ERROR_INIT;
    char *url;
    size_t n_fields;

    if (!str_split(text, '\n', &line, &text))
        text = line = str_make(copy, n);
    url = mem_strndup(line.ptr, line.len);
    if (stream_address_parse(url, &address, &err) < 0)
        FUZZ_CHECK(stream_address_parse("http://letta:8283", &address, &err) == MEMFS_OK);
    FUZZ_CHECK(strpbrk(address.origin, "@?#\r\n ") == NULL);
    n_fields = keep_clean(fields, read_fields(&text, fields));
    try_request(fields, n_fields, false);
    try_request(fields, n_fields, true);
    try_answer(fields, read_fields(&text, fields), &address);
    stream_address_dispose(&address);
    free(url);
    free(copy);
    return 0;
}
