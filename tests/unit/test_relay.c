/*
 * Requests that another thread answers (HTTP_RELAY), and a gate that has to ask somebody first: the
 * test is that thread, and takes each step when it has seen the one before.
 */
#include "server/http.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define WAIT_MS 20000
#define HOST "Host: x\r\n"

/* ---- what the routes do ---- */

static _Atomic(http_request *) relayed, gated;
static atomic_int n_poked, n_handled, n_asked;

static void poke(void *ctx)
{
    (void)ctx;
    atomic_fetch_add(&n_poked, 1);
}

static void relay(http_request *rq, void *app)
{
    (void)app;
    http_relay_begin(rq, poke, NULL);
    atomic_store(&relayed, rq);
}

static void own(http_request *rq, void *app)
{
    (void)app;
    atomic_fetch_add(&n_handled, 1);
    buf_puts(http_out(rq), "own");
    http_send(rq, 200, "text/plain");
}

/* Below /asked the gate waits for what the test tells: 1 is a yes. */
static http_entry gate(http_request *rq, void *app, void *principal)
{
    int told = http_gate_told(rq);

    (void)app, (void)principal;
    if (strncmp(http_matched(rq)->pattern, "/asked", 6) != 0 || told == 1)
        return HTTP_ENTRY_GRANTED;
    if (told != 0) {
        http_send_detail(rq, 401, "no");
        return HTTP_ENTRY_REFUSED;
    }
    http_gate_hold(rq);
    atomic_fetch_add(&n_asked, 1);
    atomic_store(&gated, rq);
    return HTTP_ENTRY_LATER;
}

static const http_route routes[] = {
    { HTTP_GET, "/own", HTTP_FAST, HTTP_ACCESS_OPEN, own, 0, "" },
    { HTTP_GET, "/asked", HTTP_FAST, HTTP_ACCESS_OPEN, own, 0, "" },
    { HTTP_POST, "/asked/body", HTTP_BODY, HTTP_ACCESS_OPEN, own, 1u << 20, "" },
    { HTTP_GET | HTTP_POST, "/{rest...}", HTTP_RELAY, HTTP_ACCESS_OPEN, relay, 8u << 20, "" },
};

/* ---- the server, and a client ---- */

static http_server *server;

static int start(void **state)
{
    http_options options = HTTP_OPTIONS_DEFAULT;
    memfs_error err = MEMFS_ERROR_INIT;

    (void)state;
    options.routes = routes;
    options.n_routes = ARRAY_LEN(routes);
    options.gate = gate;
    options.n_event_threads = 1;
    options.n_workers = 1;
    options.head_timeout_ms = 10000;
    options.rate_window_ms = 300;
    options.is_quiet = true;
    atomic_store(&n_poked, 0);
    atomic_store(&n_handled, 0);
    atomic_store(&n_asked, 0);
    return http_start(&options, &server, &err);
}

static int stop(void **state)
{
    (void)state;
    http_stop(server, 2000, NULL);
    return 0;
}

static int ask(const char *text)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(http_port(server)) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, "127.0.0.1", &at.sin_addr);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
    return fd;
}

static char seen[4096];

/* Reads until `part` is in what was seen since the last call. */
static void expect(int fd, const char *part)
{
    int64_t until = clock_mono_ms() + WAIT_MS;
    size_t n = 0;

    memset(seen, 0, sizeof(seen));
    while (strstr(seen, part) == NULL && clock_mono_ms() < until) {
        struct pollfd ready = { .fd = fd, .events = POLLIN };
        ssize_t got = poll(&ready, 1, 100) > 0 ? recv(fd, seen + n, sizeof(seen) - 1 - n, 0) : 0;

        if (got < 0)
            break;
        n += (size_t)got;
    }
    if (strstr(seen, part) == NULL)
        fail_msg("'%s' is not in: %s", part, seen);
}

static http_request *wait_for(_Atomic(http_request *) *which)
{
    int64_t until = clock_mono_ms() + WAIT_MS;
    http_request *rq;

    while ((rq = atomic_exchange(which, NULL)) == NULL && clock_mono_ms() < until)
        clock_sleep_ms(1);
    assert_non_null(rq);
    return rq;
}

static void wait_until_gone(http_request *rq)
{
    int64_t until = clock_mono_ms() + WAIT_MS;

    while (!http_relay_is_gone(rq) && clock_mono_ms() < until)
        clock_sleep_ms(1);
    assert_true(http_relay_is_gone(rq));
    assert_true(atomic_load(&n_poked) > 0);
}

/* ---- relays ---- */

static void test_each_piece_leaves_at_once(void **state)
{
    int fd = ask("GET /a%20b/c?d=e+f HTTP/1.1\r\n" HOST "X-A: 1\r\n\r\n");
    http_request *rq = wait_for(&relayed);
    memfs_buf target = MEMFS_BUF_INIT(100);
    memfs_str name, value;
    char byte;

    (void)state;
    http_canonical_target(rq, &target);
    assert_string_equal(target.ptr, "/a%20b/c?d=e+f");
    assert_true(http_header_at(rq, 1, &name, &value));
    assert_true(str_equal(name, MEMFS_STR("X-A")) && !http_header_at(rq, 2, &name, &value));
    assert_int_equal(http_relay_body_bytes(rq), -2);
    assert_int_equal(http_relay_take(rq, &byte, 1), 0);
    http_set_header(rq, "X-B", "2");
    http_relay_head(rq, 200, -1);
    expect(fd, "X-B: 2\r\n");
    assert_true(http_relay_put(rq, MEMFS_STR("one")));
    expect(fd, "3\r\none\r\n");
    assert_true(http_relay_put(rq, MEMFS_STR("four")));
    expect(fd, "4\r\nfour\r\n");
    http_stream_end(rq);
    http_relay_release(rq);
    expect(fd, "0\r\n\r\n");
    close(fd);
    buf_dispose(&target);
}

static void test_T18_silence_of_the_other_side_costs_a_client_nothing(void **state)
{
    int fd = ask("GET /x HTTP/1.1\r\n" HOST "\r\n");
    http_request *rq = wait_for(&relayed);

    (void)state;
    clock_sleep_ms(1200); /* four windows before the head, four within the answer */
    http_relay_head(rq, 200, -1);
    expect(fd, "200 OK");
    clock_sleep_ms(1200);
    assert_false(http_relay_is_gone(rq));
    assert_true(http_relay_put(rq, MEMFS_STR("late")));
    expect(fd, "late");
    http_stream_end(rq);
    http_relay_release(rq);
    close(fd);
}

static void test_a_client_that_leaves_is_noticed_in_silence(void **state)
{
    (void)state;
    for (int is_begun = 0; is_begun < 2; is_begun++) {
        int fd = ask("GET /x HTTP/1.1\r\n" HOST "\r\n");
        http_request *rq = wait_for(&relayed);

        if (is_begun) {
            http_relay_head(rq, 200, -1);
            expect(fd, "200 OK");
        }
        atomic_store(&n_poked, 0);
        close(fd);
        wait_until_gone(rq);
        http_stream_cut(rq);
        http_relay_release(rq);
    }
}

static void test_a_full_pipe_says_no_and_pokes_when_there_is_room(void **state)
{
    static char piece[16384];
    int fd = ask("GET /x HTTP/1.1\r\n" HOST "\r\n");
    http_request *rq = wait_for(&relayed);
    int64_t until = clock_mono_ms() + WAIT_MS;
    size_t n = 0, got = 0;

    (void)state;
    memset(piece, 'x', sizeof(piece));
    http_relay_head(rq, 200, (int64_t)sizeof(piece) * 4096);
    while (http_relay_put(rq, str_make(piece, sizeof(piece))) && n++ < 4096)
        ;
    assert_true(n < 4096); /* 64 MiB are in no socket's buffer */
    while (atomic_load(&n_poked) == 0 && clock_mono_ms() < until) {
        struct pollfd ready = { .fd = fd, .events = POLLIN };

        if (poll(&ready, 1, 10) > 0)
            got += (size_t)recv(fd, piece, sizeof(piece), 0);
    }
    assert_true(atomic_load(&n_poked) > 0 && got > 0);
    assert_true(http_relay_put(rq, str_make(piece, sizeof(piece))));
    http_stream_cut(rq);
    http_relay_release(rq);
    close(fd);
}

static void test_T02_a_path_of_ours_is_not_relayed_with_another_method(void **state)
{
    int fd = ask("POST /own HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");

    (void)state;
    expect(fd, "HTTP/1.1 405 ");
    assert_null(atomic_load(&relayed));
    close(fd);
}

/* ---- the gate ---- */

/* Another server may decode first and cut then; what is no path of ours that way goes on. */
static void test_T02_an_encoded_slash_leads_to_no_path_of_ours(void **state)
{
    static const char *const ours[] = { "/asked%2Fbody", "/asked%2fbody/", "/%2Fown", "/own%2F" };
    http_request *rq;
    int fd;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
        char text[100];

        snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\n" HOST "\r\n", ours[i]);
        fd = ask(text);
        expect(fd, "HTTP/1.1 404 ");
        close(fd);
    }
    assert_null(atomic_load(&relayed));
    fd = ask("GET /blocks/asked%2Fbody HTTP/1.1\r\n" HOST "\r\n");
    rq = wait_for(&relayed);
    http_relay_head(rq, 200, -1);
    http_stream_end(rq);
    expect(fd, "HTTP/1.1 200 ");
    http_relay_release(rq);
    close(fd);
}

static void test_S2_the_gates_late_word_decides(void **state)
{
    (void)state;
    for (int told = 1; told <= 2; told++) {
        int fd = ask("GET /asked HTTP/1.1\r\n" HOST "\r\n");
        http_request *rq = wait_for(&gated);

        assert_int_equal(atomic_load(&n_handled), told - 1);
        http_gate_tell(rq, told);
        expect(fd, told == 1 ? "\r\n\r\nown" : "HTTP/1.1 401 ");
        close(fd);
    }
    assert_int_equal(atomic_load(&n_handled), 1);
    assert_int_equal(atomic_load(&n_asked), 2);
}

static void test_S2_a_body_gathers_while_the_gate_waits(void **state)
{
    (void)state;
    for (int told = 1; told <= 2; told++) {
        int fd = ask("POST /asked/body HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n");
        http_request *rq = wait_for(&gated);

        assert_int_equal(send(fd, "12345", 5, MSG_NOSIGNAL), 5);
        http_gate_tell(rq, told);
        expect(fd, told == 1 ? "\r\n\r\nown" : "HTTP/1.1 401 ");
        close(fd);
    }
    assert_int_equal(atomic_load(&n_handled), 1);
}

static void test_a_word_that_comes_when_nobody_waits_any_more(void **state)
{
    int fd = ask("POST /asked/body HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\n");
    http_request *rq = wait_for(&gated);

    (void)state;
    close(fd);
    http_gate_tell(rq, 1);
    fd = ask("GET /own HTTP/1.1\r\n" HOST "\r\n");
    expect(fd, "\r\n\r\nown");
    close(fd);
}

#define ROW(fn) cmocka_unit_test_setup_teardown(fn, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(test_each_piece_leaves_at_once),
        ROW(test_T18_silence_of_the_other_side_costs_a_client_nothing),
        ROW(test_a_client_that_leaves_is_noticed_in_silence),
        ROW(test_a_full_pipe_says_no_and_pokes_when_there_is_room),
        ROW(test_T02_a_path_of_ours_is_not_relayed_with_another_method),
        ROW(test_T02_an_encoded_slash_leads_to_no_path_of_ours),
        ROW(test_S2_the_gates_late_word_decides),
        ROW(test_S2_a_body_gathers_while_the_gate_waits),
        ROW(test_a_word_that_comes_when_nobody_waits_any_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
