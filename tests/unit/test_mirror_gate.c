/*
 * The gate of a lane: what closes it, who asks for all while it is closed, and that one agent's
 * repository stops nobody else's; and what a start takes up.
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

/* Thousands may be queued after a start; nobody who waits for one of them waits for all (L3). */
static void test_L3_whom_somebody_waits_for_is_before_all_others(void **state)
{
    side *s = *state;
    pair *first, *waited, *also, *in_turn;
    lane *l;

    side_start(s, 1, true);
    l = &s->m->lanes[0];
    first = pair_need(s->m, ID_A, 0);
    waited = pair_need(s->m, ID_B, 0);
    also = pair_need(s->m, MEMFS_STR("agent-33333333-3333-4333-8333-333333333333"), 0);
    in_turn = pair_need(s->m, MEMFS_STR("agent-44444444-4444-4444-8444-444444444444"), 0);
    s->m->n_threads = 1; /* there is none: what is queued stays there */
    schedule_want_in_turn(s->m, in_turn, WANT_LOOK);
    schedule_want(s->m, first, WANT_PUSH);
    schedule_want(s->m, waited, WANT_LOOK);
    assert_ptr_equal(l->prompt.first, first);
    assert_ptr_equal(l->prompt.last, waited);
    waited->n_waiting++;
    schedule_want(s->m, waited, WANT_LOOK | WANT_SOON); /* it is queued already */
    assert_ptr_equal(l->prompt.first, waited);
    also->n_waiting++;
    schedule_want(s->m, also, WANT_LOOK | WANT_SOON);
    assert_ptr_equal(l->prompt.first, waited);
    assert_ptr_equal(waited->after, also);
    assert_ptr_equal(also->after, first);
    assert_null(first->after);
    assert_ptr_equal(l->polls.first, in_turn);
    schedule_want(s->m, in_turn, WANT_LOOK | WANT_SOON);
    assert_ptr_equal(also->after, in_turn);
    assert_null(l->polls.first);
    waited->n_waiting = also->n_waiting = 0;
    s->m->n_threads = 0;
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

/* ---- a retry of all ---- */

static void name_agent(char id[64], int i)
{
    snprintf(id, 64, "agent-%08d-1111-4111-8111-111111111111", i);
}

static void hold_workers(mirror *m, bool is_held)
{
    pthread_mutex_lock(&m->mutex);
    m->rooms[0].n_running += is_held ? 100 : (size_t)-100;
    pthread_cond_broadcast(&m->work);
    pthread_mutex_unlock(&m->mutex);
}

static bool is_in_ordinary_queue(mirror *m, const char *id)
{
    bool is;
    pair *p;

    pthread_mutex_lock(&m->mutex);
    p = pair_find(m, str_of(id), 0);
    is = p != NULL && p->place == IN_QUEUE && !p->is_prompt;
    pthread_mutex_unlock(&m->mutex);
    return is;
}

static void test_F15_a_retry_of_all_stays_behind_pushes_and_within_the_gate(void **state)
{
    enum { N = 100 };
    side *s = *state;
    ticket t[N];
    exchange_result result;
    int n_refused = 0;
    char id[64];

    side_start(s, 1, false); /* nobody listens there */
    hold_workers(s->m, true);
    for (int i = 0; i < N; i++) {
        name_agent(id, i);
        pthread_mutex_lock(&s->m->mutex);
        pair_need(s->m, str_of(id), 0); /* of an agent that is known */
        pthread_mutex_unlock(&s->m->mutex);
        OK(mirror_begin_in_turn(s->m, str_of(id), "origin", WANT_LOOK | WANT_NOW, &t[i], &err));
        assert_true(is_in_ordinary_queue(s->m, id));
    }
    hold_workers(s->m, false);
    for (int i = 0; i < N; i++) { /* the first find out, and the others hear of it at once */
        memfs_error err = MEMFS_ERROR_INIT;

        if (mirror_end(s->m, &t[i], "origin", clock_mono_ms() + WAIT_MS, &result, &err) == 0)
            continue;
        assert_int_equal(err.code, MEMFS_EUNAVAIL);
        assert_non_null(strstr(err.msg, "was not asked again"));
        n_refused++;
    }
    assert_in_range(N - n_refused, 1, 8);
}

static void test_F15_a_retry_of_all_opens_the_gate_for_the_first_few(void **state)
{
    static const char *const ids[] = { "agent-00000001-1111-4111-8111-111111111111",
                                       "agent-00000002-1111-4111-8111-111111111111",
                                       "agent-00000003-1111-4111-8111-111111111111" };
    side *s = *state;
    pair *p[3];
    lane *l;

    side_start(s, 1, true);
    l = &s->m->lanes[0];
    for (size_t i = 0; i < 3; i++)
        p[i] = need(s->m, str_of(ids[i]));
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 3; i++)
            hear(s->m, p[i], REMOTE_UNAUTHORIZED, true);
        assert_true(l->closed_until_ms == INT64_MAX);
        gate_open_all(s->m, "another");
        assert_true(gate_is_closed(l));
        gate_open_all(s->m, round == 0 ? "" : "origin");
        assert_false(gate_is_closed(l));
        assert_null(l->parked.first);
    }
}

/* ---- hosts that are silent ---- */

static void test_L3_a_host_is_silent_until_it_answers(void **state)
{
    side *s = *state;
    fake *h = &s->h;
    exchange_result result;
    int fd;

    fake_start(h);
    atomic_store(&h->stops, true); /* connections are made, and nobody reads them */
    pthread_join(h->thread, NULL);
    side_start(s, h->port, true);
    OK(mirror_exchange(s->m, ID_B, "origin", WANT_LOOK, clock_mono_ms() + 300, &result, &err));
    assert_int_equal(result.answer, REMOTE_TIMEOUT);
    assert_true(s->m->rooms[0].is_silent);
    fd = accept4(h->fd, NULL, NULL, SOCK_CLOEXEC);
    close(fd);
    atomic_store(&h->stops, false);
    assert_int_equal(pthread_create(&h->thread, NULL, serve, h), 0);
    OK(mirror_exchange(s->m, ID_B, "origin", WANT_LOOK, clock_mono_ms() + WAIT_MS, &result, &err));
    assert_int_equal(result.answer, REMOTE_NOT_FOUND);
    assert_false(s->m->rooms[0].is_silent);
}

/* ---- a start ---- */

static void put_record(side *s, memfs_str id, const char *mark, int64_t seen_days_ago)
{
    state_mirror row = { .agent_id = id, .remote = MEMFS_STR("origin"), .mark = str_of(mark),
                         .remote_tip = tip_of(s->f, id), .answer = MEMFS_STR(""),
                         .detail = MEMFS_STR(""), .note = MEMFS_STR(""),
                         .note_text = MEMFS_STR("") };

    row.seen_at_us = clock_wall_us() - seen_days_ago * 86400 * 1000000;
    row.pushed_at_us = row.seen_at_us - 1;
    OK(state_mirror_put(home_state(s->f->h), &row, &err));
}

static bool is_compared(mirror *m)
{
    bool is;

    pthread_mutex_lock(&m->mutex);
    is = m->is_compared;
    m->is_compared = false;
    pthread_mutex_unlock(&m->mutex);
    return is;
}

static void compare_twice(mirror *m)
{
    int64_t until_ms = clock_mono_ms() + WAIT_MS;

    for (int i = 0; i < 2; i++) {
        mirror_compare_all(m);
        while (!is_compared(m)) {
            assert_true(clock_mono_ms() < until_ms);
            clock_sleep_ms(5);
        }
    }
}

static int64_t quiet_days(mirror *m, memfs_str id)
{
    uint32_t quiet_s;

    pthread_mutex_lock(&m->mutex);
    quiet_s = (uint32_t)(clock_mono_ms() / 1000) - pair_find(m, id, 0)->changed_s;
    pthread_mutex_unlock(&m->mutex);
    return (quiet_s + 3600) / 86400;
}

static void test_a_memory_that_was_quiet_before_a_start_is_so_after_it(void **state)
{
    side *s = *state;
    memfs_oid tip;

    put_file(s->f->work, "system/human.md", MEMFS_STR("one\n"));
    tip = push_work(s->f, ID_A);
    assert_true(try_push(s->f, ID_B, STORE_GENESIS, tip).moved);
    put_record(s, ID_A, "", 30);
    put_record(s, ID_B, "", 30);
    side_start(s, 1, false);
    hold_workers(s->m, true);
    mirror_moved(s->m, AGENT_B);
    compare_twice(s->m); /* the second finds the pairs that the first made */
    assert_int_equal(quiet_days(s->m, ID_A), 30);
    assert_int_equal(quiet_days(s->m, ID_B), 0);
    mirror_moved(s->m, AGENT_A);
    assert_int_equal(quiet_days(s->m, ID_A), 0);
    hold_workers(s->m, false);
}

static bool keep_seen(const mirror_row *row, void *ctx)
{
    *(int64_t *)ctx = row->seen_at_us;
    return true;
}

/* Ten thousand pairs are compared, and shown, by their address alone. */
static void test_whose_a_record_is_can_be_told_without_the_credential(void **state)
{
    _cleanup_(mem_freep) char *path = NULL, *text = NULL;
    side *s = *state;
    remotes_options ro = { .home = s->f->path };
    mirror_options o = { .home = s->f->h, .is_manual = true };
    int64_t seen_at_us = -1;
    mirror *m = NULL;

    put_file(s->f->work, "system/human.md", MEMFS_STR("one\n"));
    push_work(s->f, ID_A);
    put_record(s, ID_A, "0000000011111111", 1); /* learned of another address */
    path = mem_printf("%s/config", s->f->path);
    text = mem_printf("[mirror \"origin\"]\n\turl = http://127.0.0.1:1/{agentId}.git\n"
                      "\ttokenFile = %s/not-there\n", s->f->path);
    OK(fs_write_atomic(path, str_of(text), 0600, &err));
    OK(remotes_load(&ro, &o.remotes, &err));
    OK(mirror_start(&o, &m, &err));
    s->m = m;
    OK(mirror_status(m, ID_A, false, keep_seen, &seen_at_us, &err));
    assert_int_equal(seen_at_us, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, side_begin, side_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_L3_whom_somebody_waits_for_is_before_all_others),
        TEST(test_one_repository_that_fails_again_and_again_closes_no_gate),
        TEST(test_a_closed_gate_sends_another_scout),
        TEST(test_one_scouts_401_does_not_close_the_gate_for_good),
        TEST(test_a_scout_that_cannot_ask_hands_over),
        TEST(test_F15_who_is_queued_when_the_gate_closes_does_not_ask),
        TEST(test_L3_a_broken_repository_delays_nobody_elses_push),
        TEST(test_F15_a_retry_of_all_stays_behind_pushes_and_within_the_gate),
        TEST(test_F15_a_retry_of_all_opens_the_gate_for_the_first_few),
        TEST(test_L3_a_host_is_silent_until_it_answers),
        TEST(test_a_memory_that_was_quiet_before_a_start_is_so_after_it),
        TEST(test_whose_a_record_is_can_be_told_without_the_credential),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
