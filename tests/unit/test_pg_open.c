/*
 * pg_db_open: who may connect, to what, and what a database is made into.  The server is this
 * program's own (tests/with-postgres), so who may connect is changed here.
 */
#include "cache_fixture.h"

#include "base/clock.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define SECRET "opensesame"

static const char *server(void)
{
    return pg_url();
}

static memfs_code run_sql(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    return pg_exec(c, ctx, &r, err);
}

static void sql(fixture *f, const char *text)
{
    assert_ok(pg_work(pg_open(f), PG_ONE, run_sql, (void *)(uintptr_t)text, &f->err));
}

/* A url of our server with more of it; caller frees.  What comes last counts. */
static char *url_with(const char *more)
{
    return mem_printf("%s&%s", server(), more);
}

static memfs_code try_open(fixture *f, const char *url)
{
    pg_db *db;
    memfs_code rc = pg_db_open(url, &db, &f->err);

    if (rc == MEMFS_OK)
        pg_db_close(db);
    return rc;
}

/* Its message is one line for people, without the password. */
static void assert_refused(fixture *f, const char *url, const char *code)
{
    memfs_code rc = try_open(f, url);

    if (strcmp(memfs_code_name(rc), code) != 0)
        fail_msg("%s: %s and not %s: %s", url, memfs_code_name(rc), code, f->err.msg);
    assert_null(strstr(f->err.msg, SECRET));
    assert_null(strchr(f->err.msg, '\n'));
}

/* ---- addresses ---- */

static int closed_port(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static void test_S3_an_address_that_is_none_is_refused_without_its_password(void **at)
{
    static const char *const bad[] = {
        "postgresql://u:" SECRET "@host:port/db?nonsense=1",
        "postgresql://u:" SECRET "@[::1/db",
        "postgresql://u:" SECRET "@host/db?password=%zz",
        /* a password that should have been written with %2F, %40, %3F */
        "postgresql://u:" SECRET "/more@host/db",
        "postgresql://u:12/" SECRET "@host/db",
        "postgresql://u:more@" SECRET "@host/db",
        "postgresql://u:more@" SECRET "/more@host/db",
        "postgresql://u:more@more?" SECRET "@host/db",
        "host=h password='" SECRET,
    };
    fixture *f = *at;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_refused(f, bad[i], "EINVALID");
}

static void test_a_host_that_nobody_knows_or_that_does_not_answer(void **at)
{
    fixture *f = *at;
    _cleanup_(mem_freep) char *closed =
        mem_printf("postgresql://u:" SECRET "@127.0.0.1:%d/db", closed_port());
    _cleanup_(mem_freep) char *no_socket =
        mem_printf("postgresql:///db?host=%s&user=u&password=" SECRET, f->root);

    assert_refused(f, "postgresql://u:" SECRET "@no-such-host.invalid/db", "EUNAVAIL");
    assert_refused(f, closed, "EUNAVAIL");
    assert_refused(f, no_socket, "EUNAVAIL");
}

static void test_F22_of_several_hosts_the_one_that_answers_is_taken(void **at)
{
    fixture *f = *at;
    const char *host = strstr(server(), "host=") + strlen("host=");
    _cleanup_(mem_freep) char *both =
        mem_printf("postgresql:///postgres?host=127.0.0.1,%.*s&port=%d,5432&user=memfs",
                   (int)strcspn(host, "&"), host, closed_port());

    assert_ok(try_open(f, both));
}

/* ---- passwords ---- */

/* The server reads its file anew in its own time; the last rules stay. */
static void let_in(fixture *f, const char *rules)
{
    _cleanup_(mem_freep) char *text =
        mem_printf("DO $$BEGIN EXECUTE format('COPY (SELECT unnest(string_to_array(%%L, '';''))) "
                   "TO %%L', '%s', current_setting('hba_file')); END$$; SELECT pg_reload_conf()",
                   rules);

    sql(f, text);
}

static void test_S3_a_wrong_password_is_told_apart_and_not_told(void **at)
{
    fixture *f = *at;
    _cleanup_(mem_freep) char *right = url_with("user=locked&password=right" SECRET);
    _cleanup_(mem_freep) char *wrong = url_with("user=locked&password=wrong" SECRET);
    _cleanup_(mem_freep) char *none = url_with("user=locked");
    _cleanup_(mem_freep) char *nobody = url_with("user=nobody&password=" SECRET);
    _cleanup_(mem_freep) char *shut_out = url_with("user=shut_out&password=" SECRET);

    sql(f, "CREATE ROLE locked LOGIN PASSWORD 'right" SECRET "'");
    sql(f, "CREATE ROLE shut_out LOGIN; GRANT ALL ON SCHEMA memfs TO locked;"
           "GRANT ALL ON ALL TABLES IN SCHEMA memfs TO locked");
    let_in(f, "local all locked scram-sha-256;local all shut_out reject;local all all trust");
    while (try_open(f, wrong) == MEMFS_OK)
        clock_sleep_ms(10);
    assert_refused(f, wrong, "EDENIED");
    assert_refused(f, none, "EDENIED");
    assert_refused(f, nobody, "EDENIED");
    assert_refused(f, shut_out, "EDENIED");
    assert_ok(try_open(f, right));
}

static void test_a_role_that_may_make_no_schema_is_told_so(void **at)
{
    fixture *f = *at;
    _cleanup_(mem_freep) char *url = url_with("user=poor&dbname=poor");

    sql(f, "CREATE ROLE poor LOGIN");
    sql(f, "CREATE DATABASE poor");
    assert_refused(f, url, "EDENIED");
}

/* ---- the schema ---- */

enum { N_SERVERS = 8 };

static void test_F29_several_servers_that_start_at_once_make_one_schema(void **at)
{
    fixture *f = *at;
    _cleanup_(mem_freep) char *url = url_with("dbname=together");
    pid_t children[N_SERVERS];
    int gate[2], status;
    char byte;
    pg_db *db;

    sql(f, "CREATE DATABASE together");
    assert_int_equal(pipe(gate), 0);
    for (int i = 0; i < N_SERVERS; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            close(gate[1]);
            (void)!read(gate[0], &byte, 1); /* until the gate is closed */
            if (pg_db_open(url, &db, &f->err) == MEMFS_OK)
                _exit(0);
            fprintf(stderr, "%s\n", f->err.msg);
            _exit(1);
        }
    }
    close(gate[0]);
    close(gate[1]);
    for (int i = 0; i < N_SERVERS; i++) {
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_ok(try_open(f, url));
}

static void test_F29_a_schema_of_a_newer_memfs_is_left_alone(void **at)
{
    fixture *f = *at;

    sql(f, "UPDATE version SET version = 99");
    for (int i = 0; i < 2; i++) {
        assert_refused(f, server(), "ECORRUPT");
        assert_non_null(strstr(f->err.msg, "newer memfs"));
        assert_non_null(strstr(f->err.msg, "99"));
    }
}

static void test_K5_a_database_of_another_encoding_is_refused(void **at)
{
    fixture *f = *at;
    _cleanup_(mem_freep) char *url = url_with("dbname=ascii");

    sql(f, "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    assert_refused(f, url, "EINVALID");
    assert_non_null(strstr(f->err.msg, "SQL_ASCII"));
}

static void test_T26_objects_of_others_are_never_taken_for_ours(void **at)
{
    fixture *f = *at;
    _cleanup_(mem_freep) char *url = url_with("dbname=mean");
    pg_db *db;

    sql(f, "CREATE DATABASE mean");
    assert_ok(pg_db_open(url, &db, &f->err)); /* what public has of the same name is passed over */
    assert_ok(pg_work(db, PG_ONE, run_sql,
                      (void *)(uintptr_t) "CREATE TABLE public.version(version int8);"
                                          "INSERT INTO public.version VALUES(99);"
                                          "ALTER DATABASE mean SET search_path = public, memfs",
                      &f->err));
    pg_db_close(db);
    assert_ok(try_open(f, url));
}

int main(void)
{
#define ON_SERVER(test) cmocka_unit_test_setup_teardown(test, setup_folder, teardown)
    const struct CMUnitTest tests[] = {
        ON_SERVER(test_S3_an_address_that_is_none_is_refused_without_its_password),
        ON_SERVER(test_a_host_that_nobody_knows_or_that_does_not_answer),
        ON_SERVER(test_F22_of_several_hosts_the_one_that_answers_is_taken),
        ON_SERVER(test_S3_a_wrong_password_is_told_apart_and_not_told),
        ON_SERVER(test_a_role_that_may_make_no_schema_is_told_so),
        ON_SERVER(test_F29_several_servers_that_start_at_once_make_one_schema),
        ON_SERVER(test_F29_a_schema_of_a_newer_memfs_is_left_alone),
        ON_SERVER(test_K5_a_database_of_another_encoding_is_refused),
        ON_SERVER(test_T26_objects_of_others_are_never_taken_for_ours),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
