/* Asking over HTTP: what comes back, and in which class a failure falls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/httpc.h"
#include "base/httpc_multi.h"
#include "base/mem.h"
#include "base/process.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* One connection: reads a head, writes what it was told, closes (or holds on). */
typedef struct server {
    int listener;
    uint16_t port;
    const char *answer;
    bool is_holding;
    char request[4096];
    pthread_t thread;
    int peer;
} server;

static void *serve(void *ctx)
{
    server *s = ctx;
    size_t n = 0;
    ssize_t got;

    s->peer = accept(s->listener, NULL, NULL);
    while (s->peer >= 0 && n + 1 < sizeof(s->request) && strstr(s->request, "\r\n\r\n") == NULL &&
           (got = read(s->peer, s->request + n, sizeof(s->request) - n - 1)) > 0)
        n += (size_t)got;
    if (s->peer >= 0 && s->answer != NULL)
        (void)!write(s->peer, s->answer, strlen(s->answer));
    if (s->peer >= 0 && !s->is_holding)
        close(s->peer);
    return NULL;
}

static void start(server *s, const struct sockaddr *address, socklen_t n)
{
    struct sockaddr_in in;
    socklen_t n_in = sizeof(in);

    s->listener = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, address, n), 0);
    assert_int_equal(listen(s->listener, 1), 0);
    if (address->sa_family == AF_INET) {
        assert_int_equal(getsockname(s->listener, (struct sockaddr *)&in, &n_in), 0);
        s->port = ntohs(in.sin_port);
    }
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void start_tcp(server *s)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

    start(s, (struct sockaddr *)&in, sizeof(in));
}

static void stop(server *s)
{
    pthread_join(s->thread, NULL);
    if (s->is_holding)
        close(s->peer);
    close(s->listener);
}

static bool gather(memfs_str piece, void *ctx)
{
    buf_add_str(ctx, piece);
    return true;
}

static bool refuse(memfs_str piece, void *ctx)
{
    (void)piece;
    (void)ctx;
    return false;
}

/* Asks a server that answers so; the body goes to *out. */
static httpc_answer ask(server *s, httpc_data_fn fn, memfs_buf *out, int64_t timeout_ms)
{
    _cleanup_(mem_freep) char *url = NULL;
    static const char *const headers[] = { "X-Mine: yes", "Accept: */*", NULL };
    httpc_request rq = { .method = "GET", .headers = headers, .timeout_ms = timeout_ms };
    httpc_answer answer;

    start_tcp(s);
    url = mem_printf("http://127.0.0.1:%u/a/../b?c=d", s->port);
    rq.url = url;
    httpc_fetch(&rq, fn, out, &answer);
    stop(s);
    return answer;
}

static void test_an_answer_comes_back_whole(void **state)
{
    server s = { .answer = "HTTP/1.1 200 OK\r\nContent-Type: Text/HTML; charset=x\r\n"
                           "Content-Length: 5\r\n\r\nhello" };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    httpc_answer answer = ask(&s, gather, &out, 20000);

    (void)state;
    assert_int_equal(answer.failure, HTTPC_FINE);
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer.content_type, "text/html");
    assert_string_equal(out.ptr, "hello");
    assert_non_null(strstr(s.request, "GET /a/../b?c=d HTTP/1.1\r\n"));
    assert_non_null(strstr(s.request, "X-Mine: yes\r\n"));
    assert_null(strstr(s.request, "Authorization"));
}

static void test_T09_redirects_and_retry_after_are_told_not_followed(void **state)
{
    server s = { .answer = "HTTP/1.1 302 x\r\nRetry-After: 12\r\nContent-Length: 0\r\n"
                           "Location: https://u:p@elsewhere.example:1/x?token=y\r\n\r\n" };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    httpc_answer answer = ask(&s, gather, &out, 20000);

    (void)state;
    assert_int_equal(answer.failure, HTTPC_FINE);
    assert_int_equal(answer.status, 302);
    assert_int_equal(answer.retry_after_s, 12);
    assert_string_equal(answer.location_host, "elsewhere.example:1");
}

static void test_F19_failures_by_class(void **state)
{
    static const struct {
        const char *answer;
        httpc_failure failure;
    } rows[] = {
        { NULL, HTTPC_CUT },
        { "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive.", HTTPC_CUT },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfi", HTTPC_CUT },
        { "SSH-2.0-OpenSSH_9.2\r\n", HTTPC_NOT_HTTP },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        server s = { .answer = rows[i].answer };
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
        httpc_answer answer = ask(&s, gather, &out, 20000);

        assert_int_equal(answer.failure, rows[i].failure);
        assert_true(answer.detail[0] != '\0');
    }
}

static void test_F19_the_time_limit_covers_an_answer_that_never_ends(void **state)
{
    server s = { .answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive.", .is_holding = true };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    int64_t start_ms = clock_mono_ms();
    httpc_answer answer = ask(&s, gather, &out, 300);

    (void)state;
    assert_int_equal(answer.failure, HTTPC_TIMEOUT);
    assert_true(clock_mono_ms() - start_ms >= 290);
    assert_string_equal(out.ptr, "five.");
}

static void test_the_reader_may_stop(void **state)
{
    server s = { .answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" };
    httpc_answer answer = ask(&s, refuse, NULL, 20000);

    (void)state;
    assert_int_equal(answer.failure, HTTPC_STOPPED);
    assert_int_equal(answer.status, 200);
}

static void keep_header(memfs_str name, memfs_str value, void *ctx)
{
    buf_printf(ctx, "%.*s=%.*s;", (int)name.len, name.ptr, (int)value.len, value.ptr);
}

static void test_the_head_is_told_line_by_line(void **state)
{
    server s = { .answer = "HTTP/1.1 403 no: really\r\nX-RateLimit-Remaining:  0 \r\nLink: <http://h/?a:b>; "
                           "rel=\"next\"\r\nEmpty:\r\nContent-Length: 0\r\n\r\n" };
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    _cleanup_(mem_freep) char *url = NULL;
    httpc_request rq = { .method = "GET", .timeout_ms = 20000, .header = keep_header,
                         .header_ctx = &out };
    httpc_answer answer;

    (void)state;
    start(&s, (struct sockaddr *)&in, sizeof(in));
    url = mem_printf("http://127.0.0.1:%u/", s.port);
    rq.url = url;
    httpc_fetch(&rq, gather, &out, &answer);
    stop(&s);
    assert_int_equal(answer.status, 403);
    assert_string_equal(out.ptr, "X-RateLimit-Remaining=0;Link=<http://h/?a:b>; rel=\"next\";Empty=;"
                                 "Content-Length=0;");
}

static void test_dates_of_http(void **state)
{
    (void)state;
    assert_int_equal(httpc_date("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777);
    assert_int_equal(httpc_date("soon"), -1);
}

static void test_nobody_listens(void **state)
{
    httpc_request rq = { .url = "http://127.0.0.1:1/", .method = "GET", .timeout_ms = 20000 };
    httpc_answer answer;
    memfs_error err;
    int status;

    (void)state;
    httpc_fetch(&rq, refuse, NULL, &answer);
    assert_int_equal(answer.failure, HTTPC_REFUSED);
    assert_string_equal(answer.detail, "connection refused");
    assert_int_equal(httpc_ask(&rq, refuse, NULL, &status, &err), MEMFS_EUNAVAIL);
}

static void test_over_a_unix_socket(void **state)
{
    server s = { .answer = "HTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\n{}" };
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    char folder[] = "/tmp/memfs-httpc-XXXXXX";
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    httpc_request rq = { .method = "POST", .path = "/v1/x", .body = MEMFS_STR("{\"a\":1}"),
                         .timeout_ms = 20000 };
    memfs_error err = MEMFS_ERROR_INIT;
    int status = 0;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(un.sun_path, sizeof(un.sun_path), "%s/socket", folder);
    start(&s, (struct sockaddr *)&un, sizeof(un));
    rq.socket_path = un.sun_path;
    assert_int_equal(httpc_ask(&rq, gather, &out, &status, &err), MEMFS_OK);
    stop(&s);
    assert_int_equal(status, 404);
    assert_string_equal(out.ptr, "{}");
    assert_non_null(strstr(s.request, "POST /v1/x HTTP/1.1\r\n"));
    assert_non_null(strstr(s.request, "Content-Type: application/json\r\n"));
    unlink(un.sun_path);
    rmdir(folder);
}

typedef struct asker {
    const void *owner;
    const char *url;
    httpc_answer answer;
    atomic_bool has_ended;
} asker;

static void *ask_without_limit(void *ctx)
{
    asker *a = ctx;
    httpc_request rq = { .url = a->url, .method = "GET" };

    process_mark(a->owner);
    httpc_fetch(&rq, refuse, NULL, &a->answer);
    a->has_ended = true;
    return NULL;
}

/* Nothing but the end that somebody puts to it ends this request: the peer is silent for good. */
static void test_F30_a_request_that_nobody_answers_is_ended_with_its_owners_children(void **state)
{
    int ours, others; /* only their addresses matter */
    server s = { .answer = NULL, .is_holding = true };
    _cleanup_(mem_freep) char *url = NULL;
    asker a = { .owner = &ours };
    pthread_t thread;

    (void)state;
    start_tcp(&s);
    url = mem_printf("http://127.0.0.1:%u/", s.port);
    a.url = url;
    assert_int_equal(pthread_create(&thread, NULL, ask_without_limit, &a), 0);
    pthread_join(s.thread, NULL); /* it has come in whole */
    process_end_of(&others);
    usleep(1500 * 1000); /* longer than it takes to notice */
    assert_false(a.has_ended);
    process_end_of(&ours);
    pthread_join(thread, NULL);
    assert_int_equal(a.answer.failure, HTTPC_STOPPED);
    assert_int_equal(a.answer.status, 0);
    assert_non_null(strstr(a.answer.detail, "stopping"));
    close(s.peer);
    close(s.listener);
}

/* ---- httpc_multi.h ---- */

typedef struct asked {
    atomic_int n_asked, n_ended;
    atomic_int how;
} asked;

static bool never(void *ctx)
{
    asked *a = ctx;

    atomic_fetch_add(&a->n_asked, 1);
    return false;
}

static void ended(const httpc_answer *how, void *ctx)
{
    asked *a = ctx;

    atomic_store(&a->how, (int)how->failure);
    atomic_fetch_add(&a->n_ended, 1);
}

static bool head_is_good(int status, const httpc_field *fields, size_t n, void *ctx)
{
    (void)status, (void)fields, (void)n, (void)ctx;
    return true;
}

static int data_is_good(memfs_str piece, void *ctx)
{
    (void)piece, (void)ctx;
    return 0;
}

/* Whoever asked may have left before it began: then nothing is sent.  A poke begins nothing. */
static void test_a_transfer_begins_when_it_is_started_and_still_wanted(void **state)
{
    static const httpc_transfer_ops unwanted_ops = { .head = head_is_good, .data = data_is_good,
                                                     .goes_on = never, .end = ended };
    static const httpc_transfer_ops wanted_ops = { .head = head_is_good, .data = data_is_good,
                                                   .end = ended };
    asked unwanted = { .how = HTTPC_OTHER }, wanted = { .how = HTTPC_OTHER };
    httpc_plan plan = { .method = "GET", .origin = "http://127.0.0.1:1", .target = "/",
                        .ops = &unwanted_ops, .ctx = &unwanted };
    memfs_error err = MEMFS_ERROR_INIT;
    httpc_transfer *first, *second;
    httpc_multi *m;

    (void)state;
    assert_int_equal(httpc_multi_start(&m, &err), MEMFS_OK);
    first = httpc_transfer_new(m, &plan);
    plan.ops = &wanted_ops;
    plan.ctx = &wanted;
    second = httpc_transfer_new(m, &plan);
    httpc_transfer_poke(first);
    assert_int_equal(httpc_transfer_start(second, &err), MEMFS_OK);
    while (atomic_load(&wanted.n_ended) == 0) /* what was listed before it was attended to */
        clock_sleep_ms(1);
    assert_int_equal(atomic_load(&wanted.how), HTTPC_REFUSED);
    assert_int_equal(atomic_load(&unwanted.n_asked), 0);
    assert_int_equal(atomic_load(&unwanted.n_ended), 0);
    assert_int_equal(httpc_transfer_start(first, &err), MEMFS_OK);
    while (atomic_load(&unwanted.n_ended) == 0)
        clock_sleep_ms(1);
    assert_int_equal(atomic_load(&unwanted.how), HTTPC_STOPPED); /* not refused: it did not ask */
    httpc_transfer_unref(first);
    httpc_transfer_unref(second);
    httpc_multi_stop(m);
    httpc_multi_free(m);
    assert_int_equal(atomic_load(&unwanted.n_ended), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_comes_back_whole),
        cmocka_unit_test(test_T09_redirects_and_retry_after_are_told_not_followed),
        cmocka_unit_test(test_F19_failures_by_class),
        cmocka_unit_test(test_F19_the_time_limit_covers_an_answer_that_never_ends),
        cmocka_unit_test(test_the_reader_may_stop),
        cmocka_unit_test(test_the_head_is_told_line_by_line),
        cmocka_unit_test(test_dates_of_http),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_a_transfer_begins_when_it_is_started_and_still_wanted),
        cmocka_unit_test(test_over_a_unix_socket),
        cmocka_unit_test(test_F30_a_request_that_nobody_answers_is_ended_with_its_owners_children),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
