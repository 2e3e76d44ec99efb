/*
 * The gate of a lane: what closes it, who asks for all while it is closed, and that one agent's
 * repository stops nobody else's.
 */
#include "sync_fixture.h"

#include "mirror/pairs.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define WAIT_MS 60000

/* a host with one repository that is broken */
typedef struct fake {
    int fd;
    uint16_t port;
    pthread_t thread;
    atomic_bool stops;
    atomic_int n_broken, n_others;
} fake;

typedef struct side {
    fixture *f;
    _Atomic(mirror *) m;
    fake h;
} side;

static void on_moved(const char *id, void *ctx)
{
    side *s = ctx;
    mirror *m = s->m;

    if (m != NULL)
        mirror_moved(m, id);
}

static int side_begin(void **state)
{
    side *s = mem_alloc(sizeof(*s));

    fixture_begin((void **)&s->f);
    close_home(s->f);
    s->f->options.moved = on_moved;
    s->f->options.moved_ctx = s;
    open_home(s->f);
    *state = s;
    return 0;
}

static int side_end(void **state)
{
    side *s = *state;

    mirror_stop(s->m, 0);
    if (s->h.port != 0) {
        atomic_store(&s->h.stops, true);
        pthread_join(s->h.thread, NULL);
        close(s->h.fd);
    }
    fixture_end((void **)&s->f);
    free(s);
    return 0;
}

static void side_start(side *s, uint16_t port, bool is_manual)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", s->f->path);
    _cleanup_(mem_freep) char *text =
        mem_printf("[mirror \"origin\"]\n\turl = http://127.0.0.1:%u/{agentId}.git\n"
                   "\tpoll = 3600\n", port);
    remotes_options ro = { .home = s->f->path };
    mirror_options o = { .home = s->f->h, .is_manual = is_manual };
    mirror *m = NULL;

    OK(fs_write_atomic(path, str_of(text), 0600, &err));
    OK(remotes_load(&ro, &o.remotes, &err));
    OK(mirror_start(&o, &m, &err));
    s->m = m;
}

/* ---- heard ---- */

static pair *need(mirror *m, memfs_str id)
{
    pair *p = pair_need(m, id, 0);

    if (p->place != IS_HELD)
        pair_pick(m, p);
    return p;
}

/* What a worker does with an exchange that ended so.  There is no other thread, so no mutex. */
static void hear(mirror *m, pair *p, remote_answer answer, bool was_asked)
{
    exchange *x = mem_alloc(sizeof(*x));

    if (p->place != IS_HELD)
        pair_pick(m, p);
    x->answer = answer;
    x->was_asked = was_asked;
    snprintf(x->mark, sizeof(x->mark), "0123456789abcdef");
    gate_heard(m, p, x);
    free(x);
    schedule_release(m, p);
}

static void test_one_repository_that_fails_again_and_again_closes_no_gate(void **state)
{
    side *s = *state;
    lane *l;
    pair *a;

    side_start(s, 1, true);
    l = &s->m->lanes[0];
    a = need(s->m, ID_A);
    for (int i = 0; i < 10; i++)
        hear(s->m, a, i % 2 == 0 ? REMOTE_FAILING : REMOTE_UNAUTHORIZED, true);
    assert_false(gate_is_closed(l));
}

/* Three agents in a row: it may be the host, so somebody else finds out the next time. */
static void test_a_closed_gate_sends_another_scout(void **state)
{
    static const char *const ids[] = { "agent-00000001-1111-4111-8111-111111111111",
                                       "agent-00000002-1111-4111-8111-111111111111",
                                       "agent-00000003-1111-4111-8111-111111111111" };
    side *s = *state;
    pair *p[3], *good;
    lane *l;

    side_start(s, 1, true);
    l = &s->m->lanes[0];
    for (size_t i = 0; i < 3; i++)
        p[i] = need(s->m, str_of(ids[i]));
    good = need(s->m, ID_B);
    for (size_t i = 0; i < 3; i++)
        hear(s->m, p[i], REMOTE_FAILING, true);
    assert_true(gate_is_closed(l));
    schedule_release(s->m, good);
    assert_int_equal(good->place, IS_PARKED);
    for (int i = 0; i < 8 && l->scout != good; i++)
        hear(s->m, l->scout, REMOTE_FAILING, true);
    assert_ptr_equal(l->scout, good);
    assert_int_equal(good->place, IN_HEAP);
    assert_true((good->wants & WANT_LOOK) != 0);
    hear(s->m, good, REMOTE_REFS, true);
    assert_false(gate_is_closed(l));
}

/* One of three is refused: that is no proof that the token is bad. */
static void test_one_scouts_401_does_not_close_the_gate_for_good(void **state)
{
    side *s = *state;
    pair *a, *b;
    lane *l;

    side_start(s, 1, true);
    l = &s->m->lanes[0];
    a = need(s->m, ID_A);
    b = need(s->m, ID_B);
    hear(s->m, a, REMOTE_REFUSED, true);
    schedule_release(s->m, b);
    assert_int_equal(b->place, IS_PARKED);
    hear(s->m, a, REMOTE_UNAUTHORIZED, true);
    assert_true(gate_is_closed(l));
    assert_true(l->closed_until_ms < INT64_MAX);
    assert_ptr_equal(l->scout, b);
    hear(s->m, b, REMOTE_REFS, true);
    assert_false(gate_is_closed(l));
}

/* A token that cannot be read, a repository that is missing here: nothing is asked, and no work is
 * begun again at once. */
static void test_a_scout_that_cannot_ask_hands_over(void **state)
{
    side *s = *state;
    pair *a, *b;
    lane *l;

    side_start(s, 1, true);
    l = &s->m->lanes[0];
    a = need(s->m, ID_A);
    hear(s->m, a, REMOTE_REFUSED, true);
    assert_true(gate_is_closed(l));
    assert_ptr_equal(l->scout, a);
    l->closed_until_ms = clock_mono_ms() - 1;
    hear(s->m, a, REMOTE_UNASKED, false);
    assert_ptr_equal(l->scout, a); /* there is nobody else */
    assert_true(a->due_ms > clock_mono_ms());
    b = need(s->m, ID_B);
    schedule_release(s->m, b);
    l->closed_until_ms = clock_mono_ms() - 1;
    hear(s->m, a, REMOTE_UNASKED, false);
    assert_ptr_equal(l->scout, b);
    assert_true(b->due_ms > clock_mono_ms());
    assert_int_equal(a->place, IS_PARKED);
}

/* ---- a host with one repository that is broken ---- */

static void *serve(void *arg)
{
    static const char broken[] = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n"
                                 "Connection: close\r\n\r\n";
    static const char missing[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n"
                                  "Connection: close\r\n\r\n";
    fake *h = arg;
    struct pollfd watch = { .fd = h->fd, .events = POLLIN };
    char head[4096];

    while (!atomic_load(&h->stops)) {
        int fd = poll(&watch, 1, 20) == 1 ? accept4(h->fd, NULL, NULL, SOCK_CLOEXEC) : -1;
        ssize_t n = fd >= 0 ? read(fd, head, sizeof(head) - 1) : 0;

        if (n > 0) {
            bool is_broken;

            head[n] = '\0';
            is_broken = strstr(head, AGENT_A) != NULL;
            atomic_fetch_add(is_broken ? &h->n_broken : &h->n_others, 1);
            n = is_broken ? write(fd, broken, sizeof(broken) - 1)
                          : write(fd, missing, sizeof(missing) - 1);
            assert_true(n > 0);
        }
        if (fd >= 0)
            close(fd);
    }
    return NULL;
}

static void fake_start(fake *h)
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    socklen_t n = sizeof(at);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(h->fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(h->fd, 64), 0);
    assert_int_equal(getsockname(h->fd, (struct sockaddr *)&at, &n), 0);
    h->port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&h->thread, NULL, serve, h), 0);
}

static void wait_for_more(atomic_int *counter, int than)
{
    int64_t until_ms = clock_mono_ms() + WAIT_MS;

    while (atomic_load(counter) <= than) {
        assert_true(clock_mono_ms() < until_ms);
        clock_sleep_ms(5);
    }
}

static void test_L3_a_broken_repository_delays_nobody_elses_push(void **state)
{
    side *s = *state;
    fake *h = &s->h;

    fake_start(h);
    side_start(s, h->port, false);
    mirror_moved(s->m, AGENT_A);
    for (int i = 0; i < 5; i++) { /* nobody else has anything to say meanwhile */
        wait_for_more(&h->n_broken, i);
        mirror_hint(s->m, "origin", ID_A, &(memfs_oid){ { 0 } });
    }
    mirror_moved(s->m, AGENT_B);
    wait_for_more(&h->n_others, 0);
}

static size_t n_queued(mirror *m, size_t *ret_n_asked)
{
    size_t n = 0;

    *ret_n_asked = 0;
    pthread_mutex_lock(&m->mutex);
    for (size_t i = 0; i < m->n_buckets; i++)
        for (pair *p = m->buckets[i]; p != NULL; p = p->next) {
            n += p->place == IN_QUEUE;
            *ret_n_asked += p->n_begun > 0;
        }
    pthread_mutex_unlock(&m->mutex);
    return n;
}

/* As after a start: all are queued before the first has found out. */
static void test_F15_who_is_queued_when_the_gate_closes_does_not_ask(void **state)
{
    int64_t until_ms = clock_mono_ms() + WAIT_MS;
    side *s = *state;
    size_t n_asked;
    mirror *m;

    side_start(s, 1, false); /* nobody listens there */
    m = s->m;
    pthread_mutex_lock(&m->mutex);
    m->rooms[0].n_running += 100; /* no worker is free */
    pthread_mutex_unlock(&m->mutex);
    for (int i = 0; i < 200; i++) {
        char id[64];

        snprintf(id, sizeof(id), "agent-%08d-1111-4111-8111-111111111111", i);
        mirror_moved(m, id);
    }
    pthread_mutex_lock(&m->mutex);
    m->rooms[0].n_running -= 100;
    pthread_cond_broadcast(&m->work);
    pthread_mutex_unlock(&m->mutex);
    while (n_queued(m, &n_asked) > 0) {
        assert_true(clock_mono_ms() < until_ms);
        clock_sleep_ms(5);
    }
    assert_in_range(n_asked, 1, 8);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, side_begin, side_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one_repository_that_fails_again_and_again_closes_no_gate),
        TEST(test_a_closed_gate_sends_another_scout),
        TEST(test_one_scouts_401_does_not_close_the_gate_for_good),
        TEST(test_a_scout_that_cannot_ask_hands_over),
        TEST(test_F15_who_is_queued_when_the_gate_closes_does_not_ask),
        TEST(test_L3_a_broken_repository_delays_nobody_elses_push),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
