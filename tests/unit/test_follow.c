/*
 * What a home does that shares its database with others (sync/follow.h), where one server is this
 * program, and the other a row of `servers` behind an address that ends each connection at once.
 */
#include "sync_fixture.h"

#include "cache/pg_backend.h"
#include "cache/pg_module.h"
#include "cache/servers.h"
#include "sync/home_int.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <sys/socket.h>

/* ---- the module is in this program, which stands for the server ---- */

#include "base/program.h"

#include <dlfcn.h>

extern memfs_code memfs_postgresql_open(const char *, bool, state **, cache **, memfs_error *);
static const pg_module_open_fn volatile module = memfs_postgresql_open; /* has it linked */

memfs_code program_path(const char *name, char **ret, memfs_error *err)
{
    if (strcmp(name, PG_MODULE) != 0 || module == NULL)
        return memfs_fail(err, MEMFS_ENOTFOUND, "'%s' is not there", name);
    *ret = mem_strdup("module");
    return MEMFS_OK;
}

void *dlopen(const char *path, int flags)
{
    void *(*real)(const char *, int);

    *(void **)&real = dlsym(RTLD_NEXT, "dlopen");
    return real(path != NULL && strcmp(path, "module") == 0 ? NULL : path, flags);
}

/* ---- the database ---- */

static memfs_code run_sql(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    return pg_exec(c, ctx, &r, err);
}

static void sql_at(const char *url, const char *text)
{
    pg_db *db;

    OK(pg_db_open(url, &db, &err));
    OK(pg_work(db, PG_ONE, run_sql, (void *)text, &err));
    pg_db_close(db);
}

static const char *database(void)
{
    static char url[512];
    const char *server = getenv("MEMFS_TEST_DATABASE");
    char text[64];

    if (url[0] != '\0')
        return url;
    if (server == NULL)
        fail_msg("run this with tests/with-postgres");
    snprintf(text, sizeof(text), "CREATE DATABASE test_%d", (int)getpid());
    sql_at(server, text);
    snprintf(url, sizeof(url), "%s&dbname=test_%d", server, (int)getpid());
    return url;
}

#define sql(...)                                                                                   \
    do {                                                                                           \
        _cleanup_(mem_freep) char *text_ = mem_printf(__VA_ARGS__);                                \
        sql_at(database(), text_);                                                                 \
    } while (0)

/* ---- another server ---- */

static struct {
    int fd;
    char url[64];
    pthread_t thread;
    atomic_int n_asked;
} other;

static void *end_each(void *unused)
{
    int fd;

    (void)unused;
    while ((fd = accept(other.fd, NULL, NULL)) >= 0) {
        atomic_fetch_add(&other.n_asked, 1);
        close(fd);
    }
    return NULL;
}

static void begin_other(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t n = sizeof(a);

    other.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(other.fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(other.fd, 64), 0);
    assert_int_equal(getsockname(other.fd, (struct sockaddr *)&a, &n), 0);
    snprintf(other.url, sizeof(other.url), "http://127.0.0.1:%d", ntohs(a.sin_port));
    atomic_store(&other.n_asked, 0);
    pthread_create(&other.thread, NULL, end_each, NULL);
}

static int begin(void **at)
{
    fixture *f;

    fixture_begin(at);
    f = *at;
    begin_other();
    close_home(f);
    f->options.database = database();
    f->options.cluster_url = "http://127.0.0.1:1";
    open_home(f);
    OK(home_serves(f->h, &err));
    sql("INSERT INTO memfs.servers(name, url, token_hash, seen_at) VALUES (repeat('f', 32), '%s', "
        "decode(repeat('ab', 32), 'hex'), clock_timestamp() + interval '1 hour')",
        other.url);
    home_cluster_step(f->h);
    return 0;
}

static int end(void **at)
{
    fixture *f = *at;

    shutdown(other.fd, SHUT_RDWR);
    pthread_join(other.thread, NULL);
    close(other.fd);
    close_home(f);
    sql("DROP SCHEMA memfs CASCADE");
    f->is_broken = true; /* looked at by who breaks nothing */
    return fixture_end(at);
}

#define SHARED_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

/* The other one seems to have a commit of each of n agents that nobody else has. */
static void other_takes(unsigned n)
{
    sql("INSERT INTO memfs.agents(agent_id, org_id, name, tags, tag_list, created_at, updated_at) "
        "SELECT "
        "'agent-33333333-3333-4333-8333-' || lpad(n::text, 12, '0'), "
        "'org-00000000-0000-4000-8000-000000000000', '', '[]', '{}', 1, 1 FROM generate_series(1, "
        "%u) n",
        n);
    sql("INSERT INTO memfs.tips(agent_id, tip, generation, holder) SELECT agent_id, "
        "decode(repeat('ab', 20), 'hex'), nextval('memfs.generation'), (SELECT server_no FROM "
        "memfs.servers WHERE name = repeat('f', 32)) FROM memfs.agents WHERE agent_id LIKE "
        "'agent-33333333-%%'");
}

/* ---- moves of others ---- */

typedef struct telling {
    unsigned n_told;
    int n_asked_before; /* of the other server, when the last one was told */
} telling;

static void on_moved(const char *agent_id, void *ctx)
{
    telling *t = ctx;

    (void)agent_id;
    t->n_told++;
    t->n_asked_before = atomic_load(&other.n_asked);
}

static bool never(void *ctx)
{
    (void)ctx;
    return false;
}

static void test_L3_all_moves_are_told_before_the_first_is_fetched(void **at)
{
    fixture *f = *at;
    home_follower *follower = home_follower_new();
    telling t = { 0, 0 };

    home_follow_step(f->h, follower, never, on_moved, &t);
    assert_int_equal(t.n_told, 0);
    other_takes(5);
    home_follow_step(f->h, follower, never, on_moved, &t);
    assert_int_equal(t.n_told, 5);
    assert_int_equal(t.n_asked_before, 0);
    assert_true(atomic_load(&other.n_asked) >= 5);
    home_follow_step(f->h, follower, never, on_moved, &t);
    assert_int_equal(t.n_told, 5); /* nothing is told twice */
    home_follower_free(follower);
}

static void test_L3_a_start_waits_for_no_other_server(void **at)
{
    fixture *f = *at;
    home_follower *follower = home_follower_new();
    telling t = { 0, 0 };
    memfs_oid mine, now;
    size_t n;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    mine = push_work(f, ID_A);
    other_takes(3);
    reopen_home(f);
    OK(home_serves(f->h, &err));
    OK(home_recover_all(f->h, NULL, NULL, &n, &err));
    assert_int_equal(n, 1);
    assert_int_equal(atomic_load(&other.n_asked), 0);
    home_follow_step(f->h, follower, never, on_moved, &t); /* they are fetched by who follows */
    assert_true(atomic_load(&other.n_asked) >= 3);
    now = tip_of(f, ID_A);
    assert_true(oid_equal(&mine, &now));
    home_follower_free(follower);
}

/* ---- rows that were written in part ---- */

/*
 * The database was away for a push, and has another rule since: then the tip moves, and its rows do
 * not.  A push whose look at main does that builds on that tip and not on the one of before.
 */
static void test_H2_after_rows_that_are_half_written_a_push_is_not_told_to_fetch_first(void **at)
{
    fixture *f = *at;
    _cleanup_(buf_dispose) memfs_buf pack = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(push_freep) push *p = NULL;
    store_identity who = { "tester", "t@t", 1700000000 };
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid one, two, three;
    push_verdict v;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("2"));
    two = push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("3"));
    three = commit_all(f->work, "three");
    make_pack(f->work, &two, &three, &pack);
    OK(push_begin(f->h, ID_A, &(push_command){ two, three, MEMFS_STR(STORE_MAIN) }, false, on_talk,
                  &f->talk, &p, &err)); /* it looks, too */
    oid_hex(&one, hex);
    sql("UPDATE memfs.tips SET tip = '\\x%s'; UPDATE memfs.rule SET rule = 'another'", hex);
    OK(push_feed(p, pack.ptr, pack.len, &err));
    push_finish(p, &who, &v);
    if (!v.moved)
        fail_msg("refused: %s", v.refusal);
}

/* ---- verify ---- */

static void test_K1_a_server_that_is_overruled_while_it_runs_judges_no_rows(void **at)
{
    fixture *f = *at;
    upkeep_result result;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    sql("UPDATE memfs.blocks SET value = 'as another rule has it'");
    OK(upkeep_verify(f->h, ID_A, NULL, &result, &err));
    assert_int_equal(result.n_findings, 1);
    sql("UPDATE memfs.rule SET rule = 'another'");
    OK(upkeep_verify(f->h, ID_A, NULL, &result, &err));
    assert_int_equal(result.n_findings, 0);
}

/* ---- a state that comes along ---- */

static memfs_code take_created(const block_row *row, void *ctx, memfs_error *err)
{
    (void)err;
    *(int64_t *)ctx = row->created_at_us;
    return MEMFS_OK;
}

/* A backup that is restored beside servers that run, whose database had to date its blocks anew. */
static void test_K1_K4_earlier_dates_that_a_home_brings_are_those_of_the_rows(void **at)
{
    fixture *f = *at;
    memfs_str label = MEMFS_STR("a");
    block_query q = { .agent_id = ID_A, .show_hidden = true };
    upkeep_result result;
    int64_t created_us = 0;
    state *s;
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    close_home(f);
    OK(state_open_sqlite(f->path, &s, &err));
    OK(state_agent_add(s, ID_A, MEMFS_STR("org-00000000-0000-4000-8000-000000000000"), 5, &err));
    OK(state_births_add(s, ID_A, &label, 1, 5, &err));
    state_close(s);
    open_home(f);
    OK(home_agent(f->h, ID_A, &a, &err));
    OK(cache_blocks(home_cache(f->h), &q, take_created, &created_us, &err));
    assert_int_equal(created_us, 5);
    OK(upkeep_verify(f->h, ID_A, NULL, &result, &err));
    assert_int_equal(result.n_findings, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARED_TEST(test_L3_all_moves_are_told_before_the_first_is_fetched),
        SHARED_TEST(test_L3_a_start_waits_for_no_other_server),
        SHARED_TEST(test_H2_after_rows_that_are_half_written_a_push_is_not_told_to_fetch_first),
        SHARED_TEST(test_K1_a_server_that_is_overruled_while_it_runs_judges_no_rows),
        SHARED_TEST(test_K1_K4_earlier_dates_that_a_home_brings_are_those_of_the_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
