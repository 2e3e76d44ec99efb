#include "server/http_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

/* Parses into memory of exactly the promised size, so that the sanitizer sees a byte too many. */
typedef struct parsed {
    char *raw, *storage;
    http_target target;
    const char *fault;
} parsed;

static parsed parse(memfs_str raw)
{
    parsed p = { .raw = malloc(raw.len + 1), .storage = malloc(raw.len + 1) };

    memcpy(p.raw, raw.ptr, raw.len);
    p.fault = http_target_parse(str_make(p.raw, raw.len), p.storage, &p.target);
    return p;
}

static void parsed_dispose(parsed *p)
{
    free(p->raw);
    free(p->storage);
}

static void test_T01_tricks_in_targets_are_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "v1/agents",
        "*",
        "http://host/v1/agents",
        "memfs:80",
        "/v1/../etc",
        "/v1/..",
        "/..",
        "/.",
        "/v1/./agents",
        "/v1/%2e%2e/x",
        "/v1/%2E./x",
        "/v1/.%2e",
        "/v1/a%2f..%2fb",
        "/v1/..%2fb",
        "/v1/a%2F.",
        "/v1//agents",
        "//v1",
        "/v1/agents//",
        "/v1/a%00b",
        "/v1/a%0d%0ab",
        "/v1/a%1bb",
        "/v1/a%7fb",
        "/v1/a\x01"
        "b",
        "/v1/a%5cb",
        "/v1/a\\b",
        "/v1/%",
        "/v1/%4",
        "/v1/%zz",
        "/v1/%4g",
        "/v1/a%",
        "/v1/a?b=%",
        "/v1/a?b=%0",
        "/v1/a?b=%00",
        "/v1/a?%00=b",
        "/v1/a#b",
        "/v1/a?b#c",
        "/v1/a b",
        "/v1/%c0%ae%c0%ae/x",
        "/v1/%ff",
        "/v1/%ed%a0%80",
        "/v1/\xc0\xaf",
        "/v1/%c3",
        "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18/19/20/21/22/23/24/25/26/27/28/29/30/31/32/"
        "33",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        parsed p = parse(str_of(bad[i]));

        if (p.fault == NULL)
            fail_msg("'%s' was taken", bad[i]);
        parsed_dispose(&p);
    }
}

typedef struct path_case {
    const char *target;
    size_t n_segments;
    const char *segments[4];
} path_case;

static void test_T01_segments_are_split_first_and_decoded_once(void **state)
{
    static const path_case cases[] = {
        { "/", 0, { NULL } },
        { "/v1", 1, { "v1" } },
        { "/v1/", 1, { "v1" } },
        { "/v1/a%20b/c+d", 3, { "v1", "a b", "c+d" } },
        { "/v1/system%2Fhuman", 2, { "v1", "system/human" } },
        { "/v1/%252e%252e", 2, { "v1", "%2e%2e" } },
        { "/v1/...", 2, { "v1", "..." } },
        { "/v1/;x=1", 2, { "v1", ";x=1" } },
        { "/%c3%a9?a=/../", 1, { "\xc3\xa9" } },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        parsed p = parse(str_of(cases[i].target));

        assert_null(p.fault);
        assert_int_equal(p.target.n_segments, cases[i].n_segments);
        for (size_t s = 0; s < cases[i].n_segments; s++)
            assert_true(str_equal(p.target.segments[s], str_of(cases[i].segments[s])));
        parsed_dispose(&p);
    }
}

static void assert_pair(const parsed *p, size_t i, const char *key, const char *value)
{
    assert_true(i < p->target.n_pairs);
    assert_true(str_equal(p->target.pairs[i].key, str_of(key)));
    assert_true(str_equal(p->target.pairs[i].value, str_of(value)));
}

static void test_T02_query_keeps_every_value_in_order(void **state)
{
    parsed p = parse(str_of("/x?tags=a&tags=b+c&&service=git%2Dupload&flag&e=&q=1=2&k=%26%3d"));

    (void)state;
    assert_null(p.fault);
    assert_int_equal(p.target.n_pairs, 7);
    assert_pair(&p, 0, "tags", "a");
    assert_pair(&p, 1, "tags", "b c");
    assert_pair(&p, 2, "service", "git-upload");
    assert_pair(&p, 3, "flag", "");
    assert_pair(&p, 4, "e", "");
    assert_pair(&p, 5, "q", "1=2");
    assert_pair(&p, 6, "k", "&=");
    parsed_dispose(&p);
}

static void test_queries_have_a_bound(void **state)
{
    char text[1024] = "/x?";
    parsed p;

    (void)state;
    for (size_t i = 0; i < HTTP_MAX_PAIRS; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "a=%zu&", i);
    p = parse(str_of(text));
    assert_null(p.fault);
    parsed_dispose(&p);
    snprintf(text + strlen(text), sizeof(text) - strlen(text), "a=1");
    p = parse(str_of(text));
    assert_non_null(p.fault);
    parsed_dispose(&p);
}

static void nothing(http_request *rq, void *app)
{
    (void)rq, (void)app;
}

enum { INFO, AGENT, BLOCKS, BLOCK, ATTACH, AGENTS, REPACK, HEALTH };
static const http_route routes[] = {
    [INFO] = { HTTP_GET, "/v1/git/{agent}/state.git/info/refs", HTTP_FAST, HTTP_ACCESS_AGENT,
               nothing },
    [AGENT] = { HTTP_GET | HTTP_PATCH, "/v1/agents/{agent}", HTTP_FAST, HTTP_ACCESS_AGENT,
                nothing },
    [BLOCKS] = { HTTP_GET, "/v1/agents/{agent}/blocks", HTTP_FAST, HTTP_ACCESS_AGENT, nothing },
    [BLOCK] = { HTTP_GET, "/v1/agents/{agent}/blocks/{label...}", HTTP_FAST, HTTP_ACCESS_AGENT,
                nothing },
    [ATTACH] = { HTTP_PATCH, "/v1/agents/{agent}/blocks/attach/{id}", HTTP_BODY, HTTP_ACCESS_AGENT,
                 nothing },
    [AGENTS] = { HTTP_GET, "/v1/agents", HTTP_BODY, HTTP_ACCESS_ALL, nothing },
    [REPACK] = { HTTP_POST, "/owner/repack", HTTP_STREAM, HTTP_ACCESS_OWNER, nothing },
    [HEALTH] = { HTTP_GET, "/healthz", HTTP_FAST, HTTP_ACCESS_OPEN, nothing },
};

#define NONE (-1)
#define FAULT (-2)

typedef struct route_case {
    unsigned method;
    const char *target;
    int route;
    unsigned allowed;
    const char *variable, *value;
} route_case;

static const route_case route_cases[] = {
    { HTTP_GET, "/v1/git/agent-1/state.git/info/refs?service=x", INFO, 0, "agent", "agent-1" },
    { HTTP_GET, "/v1/git/agent-1/state.git/info/refs/", INFO, 0, "agent", "agent-1" },
    { HTTP_GET, "/latest/agents/agent-1", AGENT, 0, "agent", "agent-1" },
    { HTTP_PATCH, "/v1/agents/agent-1", AGENT, 0, "agent", "agent-1" },
    { HTTP_DELETE, "/v1/agents/agent-1", NONE, HTTP_GET | HTTP_PATCH, NULL, NULL },
    { 0, "/v1/agents/agent-1", NONE, HTTP_GET | HTTP_PATCH, NULL, NULL },
    { HTTP_GET, "/v1/agents/agent-1/blocks", BLOCKS, 0, NULL, NULL },
    { HTTP_GET, "/v1/agents/agent-1/blocks/", BLOCKS, 0, NULL, NULL },
    { HTTP_GET, "/v1/agents/a/blocks/system/human", BLOCK, 0, "label", "system/human" },
    { HTTP_GET, "/v1/agents/a/blocks/system%2Fhuman", BLOCK, 0, "label", "system/human" },
    { HTTP_GET, "/v1/agents/a/blocks/system%2fx/y%20z", BLOCK, 0, "label", "system/x/y z" },
    { HTTP_GET, "/v1/agents/a/blocks/system/", BLOCK, 0, "label", "system/" },
    { HTTP_GET, "/v1/agents/a/blocks/a%252Fb", BLOCK, 0, "label", "a%2Fb" },
    { HTTP_GET, "/v1/agents/a/blocks/attach/b", BLOCK, 0, "label", "attach/b" },
    { HTTP_PATCH, "/v1/agents/a/blocks/attach/b", ATTACH, 0, "id", "b" },
    { HTTP_PATCH, "/v1/agents/a/blocks/human", NONE, HTTP_GET, NULL, NULL },
    { HTTP_GET, "/v1/agents/a%2Fb", FAULT, 0, NULL, NULL },
    { HTTP_GET, "/v1/agents%2Fagent-1", FAULT, 0, NULL, NULL },
    { HTTP_GET, "/v1/agents/a%2Fb/blocks/c", FAULT, 0, NULL, NULL },
    { HTTP_GET, "/v1/agents/", AGENTS, 0, NULL, NULL },
    { HTTP_GET, "/v1/agents/a/b", NONE, 0, NULL, NULL },
    { HTTP_GET, "/v2/agents", NONE, 0, NULL, NULL },
    { HTTP_GET, "/latest", NONE, 0, NULL, NULL },
    { HTTP_GET, "/", NONE, 0, NULL, NULL },
    { HTTP_GET, "/healthz", HEALTH, 0, NULL, NULL },
    { HTTP_GET, "/HEALTHZ", NONE, 0, NULL, NULL },
    { HTTP_POST, "/owner/repack", NONE, 0, NULL, NULL },
    { HTTP_GET, "/owner/repack", NONE, 0, NULL, NULL },
};

static void check_route(const route_case *c)
{
    parsed p = parse(str_of(c->target));
    http_match found;
    memfs_str value;

    assert_null(p.fault);
    found = http_route_find(routes, ARRAY_LEN(routes), false, c->method, &p.target);
    if ((found.fault != NULL) != (c->route == FAULT) || found.allowed != c->allowed ||
        found.route != (c->route >= 0 ? &routes[c->route] : NULL))
        fail_msg("'%s': route %s, allowed %u, fault %s", c->target,
                 found.route ? found.route->pattern : "none", found.allowed,
                 found.fault ? found.fault : "none");
    if (c->variable != NULL) {
        assert_true(http_route_param(found.route, &p.target, c->variable, &value));
        assert_true(str_equal(value, str_of(c->value)));
        assert_false(http_route_param(found.route, &p.target, "other", &value));
    }
    parsed_dispose(&p);
}

static void test_T02_the_first_row_with_path_and_method_is_served(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(route_cases); i++)
        check_route(&route_cases[i]);
}

static void test_S2_owner_routes_are_there_only_for_the_owner(void **state)
{
    parsed p = parse(str_of("/owner/repack"));
    http_match found = http_route_find(routes, ARRAY_LEN(routes), true, HTTP_POST, &p.target);

    (void)state;
    assert_ptr_equal(found.route, &routes[REPACK]);
    found = http_route_find(routes, ARRAY_LEN(routes), true, HTTP_GET, &p.target);
    assert_int_equal(found.allowed, HTTP_POST);
    parsed_dispose(&p);
}

static void test_allow_lists_head_beside_get(void **state)
{
    memfs_buf text = MEMFS_BUF_INIT(100);

    (void)state;
    http_methods_text(HTTP_GET | HTTP_DELETE, &text);
    assert_string_equal(text.ptr, "GET, HEAD, DELETE");
    buf_dispose(&text);
}

/* ---- heads ---- */

/* Cuts a head into parts the way the library does, so that the guard can judge it. */
typedef struct cut_head {
    char bytes[2048];
    http_pair fields[128];
    http_head head;
} cut_head;

static void cut(cut_head *c, const char *text)
{
    size_t n = strlen(text);
    char *line = c->bytes, *end, *blank;

    assert_true(n < sizeof(c->bytes));
    memcpy(c->bytes, text, n + 1);
    c->head = (http_head){ .fields = c->fields, .size = n };
    end = strstr(line, "\r\n");
    blank = memchr(line, ' ', (size_t)(end - line));
    c->head.method = str_make(line, (size_t)(blank - line));
    while (*++blank == ' ')
        ;
    c->head.target.ptr = blank;
    blank = memrchr(line, ' ', (size_t)(end - line));
    c->head.target.len = (size_t)(blank - c->head.target.ptr);
    c->head.version = str_make(blank + 1, (size_t)(end - blank - 1));
    for (line = end + 2; (end = strstr(line, "\r\n")) != line; line = end + 2) {
        http_pair *f = &c->fields[c->head.n_fields++];
        char *colon = memchr(line, ':', (size_t)(end - line));

        f->key = str_make(line, (size_t)(colon - line));
        while (*++colon == ' ' || *colon == '\t')
            ;
        f->value = str_make(colon, (size_t)(end - colon));
    }
}

static const char *judge(const char *text)
{
    static cut_head c;
    const char *fault;

    cut(&c, text);
    fault = http_guard_head(&c.head);
    return fault == NULL && !http_guard_is_exact(&c.head) ? "not exact" : fault;
}

static void test_T19_heads_that_are_served(void **state)
{
    static const char *const good[] = {
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost:x\r\nContent-Length: 12\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: \t x\r\nTransfer-Encoding: Chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nuser_id: a\r\nX-A: \xc3\xa9\tb  \r\nX-A: "
        "again\r\nEmpty:\r\n\r\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_null(judge(good[i]));
}

static void test_T19_heads_that_can_be_read_two_ways_are_refused(void **state)
{
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: y\nB: z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: y\rB\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: \x7f\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
        "chunked\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: a\r\nauthorization: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: a\r\nContent-Type: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (judge(bad[i]) == NULL)
            fail_msg("served: %s", bad[i]);
}

/* What libmicrohttpd does to a fold, a NUL and a bare LF: the parts no longer follow one another.
 */
static void test_T19_gaps_between_the_parts_are_seen(void **state)
{
    static cut_head c;

    (void)state;
    cut(&c, "GET / HTTP/1.1\r\nHost: x\r\nA: long value\r\nB: c\r\n\r\n");
    assert_true(http_guard_is_exact(&c.head));
    c.fields[1].value.len -= 3; /* cut at a NUL, or at a fold */
    assert_false(http_guard_is_exact(&c.head));
    c.fields[1].value.len += 3;
    c.head.n_fields--; /* a line that was swallowed */
    assert_false(http_guard_is_exact(&c.head));
    c.head.n_fields++;
    c.head.target.len--;
    assert_false(http_guard_is_exact(&c.head));
}

static void test_T18_heads_have_bounds(void **state)
{
    static http_pair fields[HTTP_MAX_HEADERS + 1];
    http_head head = { .method = MEMFS_STR("GET"),
                       .version = MEMFS_STR("HTTP/1.1"),
                       .fields = fields,
                       .n_fields = HTTP_MAX_HEADERS,
                       .size = HTTP_MAX_HEAD_BYTES };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        fields[i] = (http_pair){ MEMFS_STR("X"), MEMFS_STR("y") };
    fields[0].key = MEMFS_STR("Host");
    assert_null(http_guard_head(&head));
    head.n_fields++;
    assert_non_null(http_guard_head(&head));
    head.n_fields--;
    head.size++;
    assert_non_null(http_guard_head(&head));
}

/* ---- pipes ---- */

static void test_a_pipe_gives_back_what_it_took(void **state)
{
    static char in[100000], out[100000];
    size_t n_in = 0, n_out = 0;
    http_pipe p;

    (void)state;
    for (size_t i = 0; i < sizeof(in); i++)
        in[i] = (char)(i * 7 + (i >> 8));
    http_pipe_init(&p, 5000);
    while (n_out < sizeof(in)) {
        size_t want = n_in % 3001 + 1, left = sizeof(in) - n_in;

        n_in += http_pipe_put(&p, in + n_in, want < left ? want : left);
        assert_true(p.len <= 5000 && p.cap <= 5000);
        n_out += http_pipe_take(&p, out + n_out, n_out % 1999 + 1);
    }
    assert_memory_equal(in, out, sizeof(in));
    http_pipe_dispose(&p);
}

static void test_a_full_pipe_takes_no_more(void **state)
{
    char bytes[64] = { 0 };
    http_pipe p;

    (void)state;
    http_pipe_init(&p, 100);
    assert_int_equal(http_pipe_put(&p, bytes, 64), 64);
    assert_int_equal(http_pipe_put(&p, bytes, 64), 36);
    assert_int_equal(http_pipe_put(&p, bytes, 64), 0);
    assert_int_equal(http_pipe_whole(&p).len, 100);
    http_pipe_dispose(&p);
}

/* ---- gzip ---- */

static size_t deflated(const char *in, size_t n, char *out, size_t size)
{
    z_stream z = { 0 };

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)in;
    z.avail_in = (uInt)n;
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)size;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    n = size - z.avail_out;
    deflateEnd(&z);
    return n;
}

static memfs_code inflate_all(memfs_str in, uint64_t max, size_t *ret_n, bool *ret_ended)
{
    memfs_error err = MEMFS_ERROR_INIT;
    char out[1024];
    memfs_code rc;
    http_gunzip g;
    size_t n;

    *ret_n = 0;
    http_gunzip_init(&g, max);
    do {
        rc = http_gunzip_step(&g, &in, out, sizeof(out), &n, &err);
        *ret_n += n;
    } while (rc == MEMFS_OK && (n > 0 || (in.len > 0 && !g.ended)));
    if (rc == MEMFS_OK && in.len > 0)
        rc = http_gunzip_step(&g, &in, out, sizeof(out), &n, &err);
    *ret_ended = g.ended;
    http_gunzip_dispose(&g);
    return rc;
}

static void test_T14_gzip_bodies_are_bounded_while_they_inflate(void **state)
{
    static char zeros[1 << 20], noise[1 << 20], packed[(1 << 20) + 4096];
    unsigned seed = 1;
    size_t n, n_out;
    bool ended;

    (void)state;
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (char)rand_r(&seed);
    n = deflated(noise, sizeof(noise), packed, sizeof(packed));
    assert_int_equal(inflate_all(str_make(packed, n), 2 << 20, &n_out, &ended), MEMFS_OK);
    assert_true(ended);
    assert_int_equal(n_out, sizeof(noise));
    assert_int_equal(inflate_all(str_make(packed, n), 500000, &n_out, &ended), MEMFS_ELIMIT);
    assert_true(n_out < 510000);
    assert_int_equal(inflate_all(str_make(packed, n - 1), 2 << 20, &n_out, &ended), MEMFS_OK);
    assert_false(ended);

    n = deflated(zeros, sizeof(zeros), packed, sizeof(packed));
    assert_int_equal(inflate_all(str_make(packed, n), 2 << 20, &n_out, &ended), MEMFS_ELIMIT);
    assert_true(n_out < 200000);
    n = deflated(zeros, 50000, packed, sizeof(packed)); /* short texts may compress well */
    assert_int_equal(inflate_all(str_make(packed, n), 2 << 20, &n_out, &ended), MEMFS_OK);
    packed[n] = 'x';
    assert_int_equal(inflate_all(str_make(packed, n + 1), 2 << 20, &n_out, &ended), MEMFS_EINVALID);
    assert_int_equal(inflate_all(MEMFS_STR("not gzip at all"), 100, &n_out, &ended),
                     MEMFS_EINVALID);
}

/* ---- sockets that are handed down ---- */

static int is_listening(int fd)
{
    socklen_t len = sizeof(int);
    int is = -1;

    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is, &len);
    return is;
}

/* Another process has the socket too; what the library shuts down at the end must not be it. */
static void test_F07_a_socket_is_let_go_also_without_a_free_descriptor(void **state)
{
    int more[128], fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), theirs, at;
    http_stand_in stand_in = { .n = 0 };
    memfs_error err = MEMFS_ERROR_INIT;
    struct rlimit before;
    size_t n = 0;

    (void)state;
    assert_int_equal(listen(fd, 1), 0);
    theirs = dup(fd);
    assert_int_equal(http_listen_stand_in(&stand_in, &err), MEMFS_OK);
    getrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 128, before.rlim_max }), 0);
    while (n < ARRAY_LEN(more) && (at = dup(fd)) >= 0)
        more[n++] = at;
    http_listen_let_go(&stand_in, &fd, 1);
    shutdown(fd, SHUT_RDWR);
    at = dup(fd); /* those that were kept are free now */
    assert_true(at >= 0);
    close(at);
    setrlimit(RLIMIT_NOFILE, &before);
    for (; n > 0; n--)
        close(more[n - 1]);
    assert_int_equal(is_listening(theirs), 1);
    assert_int_equal(is_listening(fd), 0);
    close(fd);
    close(theirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_T01_tricks_in_targets_are_refused),
        cmocka_unit_test(test_T01_segments_are_split_first_and_decoded_once),
        cmocka_unit_test(test_T02_query_keeps_every_value_in_order),
        cmocka_unit_test(test_queries_have_a_bound),
        cmocka_unit_test(test_T02_the_first_row_with_path_and_method_is_served),
        cmocka_unit_test(test_S2_owner_routes_are_there_only_for_the_owner),
        cmocka_unit_test(test_allow_lists_head_beside_get),
        cmocka_unit_test(test_T19_heads_that_are_served),
        cmocka_unit_test(test_T19_heads_that_can_be_read_two_ways_are_refused),
        cmocka_unit_test(test_T19_gaps_between_the_parts_are_seen),
        cmocka_unit_test(test_T18_heads_have_bounds),
        cmocka_unit_test(test_a_pipe_gives_back_what_it_took),
        cmocka_unit_test(test_a_full_pipe_takes_no_more),
        cmocka_unit_test(test_T14_gzip_bodies_are_bounded_while_they_inflate),
        cmocka_unit_test(test_F07_a_socket_is_let_go_also_without_a_free_descriptor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
