/*
 * What passes through the gateway, head by head: addresses, credentials, who called, where
 * redirects lead.  The rest of letta/stream.h is seen from both ends by
 * tests/integration/test_gateway.py.
 */
#include "letta/stream.h"
#include "letta/upstream.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static void test_addresses(void **state)
{
    static const struct {
        const char *text, *origin, *authority;
    } cases[] = {
        { "http://letta:8283", "http://letta:8283", "letta:8283" },
        { "HTTP://Letta.Example:80/", "http://letta.example", "letta.example" },
        { "https://letta.example:443", "https://letta.example", "letta.example" },
        { "https://letta.example:80", "https://letta.example:80", "letta.example:80" },
        { "http://[::1]:8283/", "http://[::1]:8283", "[::1]:8283" },
        { "http://10.0.0.1", "http://10.0.0.1", "10.0.0.1" },
        { "letta:8283", NULL, NULL },
        { "ftp://letta", NULL, NULL },
        { "http://", NULL, NULL },
        { "http:///", NULL, NULL },
        { "http://letta/path", NULL, NULL },
        { "http://letta?x", NULL, NULL },
        { "http://letta#x", NULL, NULL },
        { "http://user:pw0rd@letta", NULL, NULL },
        { "http://letta:0", NULL, NULL },
        { "http://letta:65536", NULL, NULL },
        { "http://letta:", NULL, NULL },
        { "http://le tta", NULL, NULL },
        { "http://-oProxyCommand=x", NULL, NULL },
        { "http://letta\r\nX: 1", NULL, NULL },
        { "http://a:b:1", NULL, NULL },
        { "http://[::1", NULL, NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        stream_address a = STREAM_ADDRESS_INIT;
        memfs_error err = MEMFS_ERROR_INIT;
        memfs_code rc = stream_address_parse(cases[i].text, &a, &err);

        if (cases[i].origin == NULL) {
            assert_int_equal(rc, MEMFS_EINVALID);
            assert_null(strstr(err.msg, "pw0rd"));
        } else {
            assert_int_equal(rc, MEMFS_OK);
            assert_string_equal(a.origin, cases[i].origin);
            assert_string_equal(a.authority, cases[i].authority);
        }
        stream_address_dispose(&a);
    }
}

static void test_S1_basic_becomes_bearer_and_nothing_else_changes(void **state)
{
    static const struct {
        const char *sent, *shown;
    } cases[] = {
        { "Bearer abc", "Bearer abc" },
        { "bearer  abc", "bearer  abc" },
        { "Digest x", "Digest x" },
        { "Basic bGV0dGE6YWJj", "Bearer abc" },   /* letta:abc */
        { "basic   bGV0dGE6YTpi", "Bearer a:b" }, /* letta:a:b */
        { "Basic bGV0dGE6", NULL },               /* letta: */
        { "Basic bGV0dGE=", NULL },               /* letta */
        { "Basic bGV0dGE6YQ0KWDogMQ==", NULL },   /* letta:a\r\nX: 1 */
        { "Basic bGV0dGE6YQBi", NULL },           /* letta:a\0b */
        { "Basic !", NULL },
        { "Basic ", NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memfs_buf out = MEMFS_BUF_INIT(1024);

        assert_int_equal(upstream_authorization(str_of(cases[i].sent), &out),
                         cases[i].shown != NULL);
        if (cases[i].shown != NULL)
            assert_string_equal(out.ptr, cases[i].shown);
        buf_dispose(&out);
    }
}

/* What the server judges is not judged here: a JWT may be larger than most credentials. */
static void test_S1_a_large_credential_is_shown_too(void **state)
{
    memfs_buf sent = MEMFS_BUF_INIT(16u << 10), out = MEMFS_BUF_INIT(16u << 10);

    (void)state;
    buf_puts(&sent, "Bearer ");
    while (sent.len < 9000)
        buf_putc(&sent, 'j');
    assert_true(upstream_authorization(buf_str(&sent), &out));
    assert_true(str_equal(buf_str(&sent), buf_str(&out)));
    buf_dispose(&sent);
    buf_dispose(&out);
}

static httpc_field field(const char *name, const char *value)
{
    return (httpc_field){ str_of(name), str_of(value) };
}

static void test_the_base_that_was_called(void **state)
{
    const httpc_field fields[] = { field("host", "memfs:1"),
                                   field("X-Forwarded-Proto", "https, http"),
                                   field("X-Forwarded-Host", "a.example, b.example") };
    const httpc_field odd[] = { field("Host", "a/b") };
    stream_caller caller = { .peer = "127.0.0.1", .is_tls = false };
    char *base = stream_base_called(fields, ARRAY_LEN(fields), &caller);

    (void)state;
    assert_string_equal(base, "http://memfs:1");
    free(base);
    caller.is_proxy_believed = true;
    base = stream_base_called(fields, ARRAY_LEN(fields), &caller);
    assert_string_equal(base, "https://a.example");
    free(base);
    assert_null(stream_base_called(odd, ARRAY_LEN(odd), &caller));
}

static void test_redirects_to_the_upstream_only(void **state)
{
    static const struct {
        const char *location, *base, *expected;
    } cases[] = {
        { "http://letta:8283/x?y", "https://m", "https://m/x?y" },
        { "https://LETTA:8283/x", "https://m", "https://m/x" },
        { "http://letta:8283", "https://m", "https://m/" },
        { "http://letta:8283/x", NULL, "/x" },
        { "http://letta:8283//evil/x", NULL, "/.//evil/x" },
        { "http://letta/x", "https://m", "http://letta/x" },
        { "http://letta:82830/x", "https://m", "http://letta:82830/x" },
        { "http://letta:8283@evil/x", "https://m", "http://letta:8283@evil/x" },
        { "http://evil/letta:8283", "https://m", "http://evil/letta:8283" },
        { "/x", "https://m", "/x" },
        { "", "https://m", "" },
    };
    stream_address a = STREAM_ADDRESS_INIT;
    memfs_error err = MEMFS_ERROR_INIT;

    (void)state;
    assert_int_equal(stream_address_parse("http://letta:8283", &a, &err), MEMFS_OK);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const httpc_field fields[] = { field("Location", cases[i].location) };
        stream_answer answer = STREAM_ANSWER_INIT;

        assert_int_equal(stream_answer_head(fields, 1, &a, cases[i].base, &answer, &err), MEMFS_OK);
        assert_int_equal(answer.n, 1);
        assert_true(str_equal(answer.fields[0].value, str_of(cases[i].expected)));
        stream_answer_dispose(&answer);
    }
    stream_address_dispose(&a);
}

/* ---- X-Forwarded-For ---- */

static const char *line_of(const stream_lines *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strncmp(l->at[i], name, strlen(name)) == 0)
            return l->at[i] + strlen(name);
    return "";
}

static void test_T03_the_proxys_word_stays_whatever_the_client_wrote_before_it(void **state)
{
    char lie[701] = "";
    const httpc_field fields[] = { field("X-Forwarded-For", lie),
                                   field("X-Forwarded-Proto", "gopher"),
                                   field("x-forwarded-for", "10.0.0.7"),
                                   field("X-Forwarded-Proto", "https") };
    const stream_caller caller = { .peer = "127.0.0.1",
                                   .is_proxy_believed = true,
                                   .via = "memfs-1" };
    memfs_error err = MEMFS_ERROR_INIT;

    (void)state;
    for (size_t length = 7; length < sizeof(lie); length += sizeof(lie) - 8) {
        stream_lines l = STREAM_LINES_INIT;
        httpc_field sent[ARRAY_LEN(fields)];

        memset(lie, '6', sizeof(lie));
        lie[length] = '\0';
        memcpy(sent, fields, sizeof(sent));
        sent[0].value = str_of(lie);
        assert_int_equal(stream_request(sent, ARRAY_LEN(sent), &caller, &l, &err), MEMFS_OK);
        assert_string_equal(line_of(&l, "X-Forwarded-For: "),
                            length == 7 ? "6666666, 10.0.0.7, 127.0.0.1" : "10.0.0.7, 127.0.0.1");
        assert_string_equal(line_of(&l, "X-Forwarded-Proto: "), "https");
        stream_lines_dispose(&l);
    }
}

/* ---- verdicts ---- */

#define AGENT MEMFS_STR("agent-00000000-0000-4000-8000-000000000000")

static void test_S1_a_yes_holds_thirty_seconds_and_a_no_five(void **state)
{
    static const struct {
        upstream_verdict verdict;
        int64_t holds_ms;
    } cases[] = {
        { UPSTREAM_YES, 30000 },     { UPSTREAM_UNKNOWN, 5000 }, { UPSTREAM_FORBIDDEN, 5000 },
        { UPSTREAM_NO_AGENT, 5000 }, { UPSTREAM_AWAY, 0 },
    };
    const upstream_caller c = { .authorization = "Bearer a" },
                          other = { .authorization = "Bearer b" };
    memfs_error err = MEMFS_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        upstream *u;
        int64_t at = 1000000;

        assert_int_equal(upstream_open("http://127.0.0.1:1", &u, &err), MEMFS_OK);
        upstream_keep_at(u, AGENT, &c, cases[i].verdict, at);
        if (cases[i].holds_ms > 0)
            assert_int_equal(upstream_known_at(u, AGENT, &c, at + cases[i].holds_ms - 1),
                             cases[i].verdict);
        assert_int_equal(upstream_known_at(u, AGENT, &c, at + cases[i].holds_ms),
                         UPSTREAM_NOT_ASKED);
        assert_int_equal(upstream_known_at(u, AGENT, &other, at), UPSTREAM_NOT_ASKED);
        upstream_close(u);
    }
}

/* Whoever guesses credentials takes no place from those who have a good one. */
static void test_S1_a_flood_of_noes_drives_out_no_yes(void **state)
{
    const upstream_caller good = { .authorization = "Bearer good" };
    memfs_error err = MEMFS_ERROR_INIT;
    upstream *u;

    (void)state;
    assert_int_equal(upstream_open("http://127.0.0.1:1", &u, &err), MEMFS_OK);
    upstream_keep_at(u, AGENT, &good, UPSTREAM_YES, 1000000);
    for (int i = 0; i < 20000; i++) {
        char text[32];
        const upstream_caller bad = { .authorization = text };

        snprintf(text, sizeof(text), "Bearer %d", i);
        upstream_keep_at(u, AGENT, &bad, UPSTREAM_UNKNOWN, 1000001 + i);
        assert_int_equal(upstream_known_at(u, AGENT, &bad, 1000001 + i), UPSTREAM_UNKNOWN);
    }
    assert_int_equal(upstream_known_at(u, AGENT, &good, 1024000), UPSTREAM_YES);
    upstream_close(u);
}

typedef struct told {
    int n_away, n_other;
} told;

static void tell(upstream_verdict verdict, void *ctx)
{
    told *t = ctx;

    t->n_away += verdict == UPSTREAM_AWAY;
    t->n_other += verdict != UPSTREAM_AWAY;
}

/* The 257th question that nobody has asked yet is not put: no yes, and said at once. */
static void test_S1_past_256_questions_none_is_put(void **state)
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* it never answers */
    told held = { 0, 0 }, last = { 0, 0 };
    memfs_error err = MEMFS_ERROR_INIT;
    socklen_t len = sizeof(at);
    char text[64];
    upstream *u;

    (void)state;
    inet_pton(AF_INET, "127.0.0.1", &at.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(fd, 512), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    snprintf(text, sizeof(text), "http://127.0.0.1:%u", (unsigned)ntohs(at.sin_port));
    assert_int_equal(upstream_open(text, &u, &err), MEMFS_OK);
    for (int i = 0; i < 257; i++) {
        const upstream_caller c = { .authorization = text };

        snprintf(text, sizeof(text), "Bearer %d", i);
        upstream_ask(u, AGENT, &c, tell, i < 256 ? &held : &last);
    }
    assert_int_equal(last.n_away, 1);
    upstream_stop(u);
    assert_int_equal(held.n_away, 256); /* a stop is no yes either */
    assert_int_equal(held.n_other + last.n_other, 0);
    upstream_close(u);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_S1_basic_becomes_bearer_and_nothing_else_changes),
        cmocka_unit_test(test_S1_a_large_credential_is_shown_too),
        cmocka_unit_test(test_T03_the_proxys_word_stays_whatever_the_client_wrote_before_it),
        cmocka_unit_test(test_S1_a_yes_holds_thirty_seconds_and_a_no_five),
        cmocka_unit_test(test_S1_a_flood_of_noes_drives_out_no_yes),
        cmocka_unit_test(test_S1_past_256_questions_none_is_put),
        cmocka_unit_test(test_the_base_that_was_called),
        cmocka_unit_test(test_redirects_to_the_upstream_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
