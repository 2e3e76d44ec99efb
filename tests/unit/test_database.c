/*
 * Which database a home keeps its state in, and moving from a file into it: SQLite and PostgreSQL
 * in one program, which is therefore run by tests/with-postgres.
 */
#include "state_fixture.h"

#include "cache/cache_int.h"
#include "cache/database.h"
#include "cache/pg_module.h"
#include "sync/home_database.h"

#include "base/program.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- the module is in this program, which stands for the server ---- */

extern memfs_code memfs_postgresql_open(const char *, bool, state **, cache **, memfs_error *);
static const pg_module_open_fn volatile module = memfs_postgresql_open; /* has it linked */
static bool is_installed = true;

memfs_code program_path(const char *name, char **ret, memfs_error *err)
{
    assert_string_equal(name, PG_MODULE);
    if (!is_installed || module == NULL)
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

/* Ends the process when a file whose name ends so has got it. */
static const char *ends_at;

int rename(const char *from, const char *to)
{
    size_t n = strlen(to), m = ends_at != NULL ? strlen(ends_at) : 0;
    int done = (int)syscall(SYS_rename, from, to);

    if (m > 0 && n >= m && strcmp(to + n - m, ends_at) == 0)
        kill(getpid(), SIGKILL);
    return done;
}

/* ---- names ---- */

static void test_S3_a_database_is_named_without_its_password(void **unused)
{
    static const struct {
        const char *url, *name;
    } cases[] = {
        { "postgresql://user:secret@host/db", "postgresql://user@host/db" },
        { "postgresql://user:secret@host:5433/db", "postgresql://user@host:5433/db" },
        { "postgresql://user:se?cret@host/db", "postgresql://user@host/db" },
        { "postgresql://user:se:cret@host/db", "postgresql://user@host/db" },
        { "postgresql://:secret@host/db", "postgresql://@host/db" },
        { "postgresql://user@host/db", "postgresql://user@host/db" },
        { "postgresql://host:5432/db", "postgresql://host:5432/db" },
        { "postgresql://host/db?user=a@b&password=secret", "postgresql://host/db" },
        { "postgresql://user@host/db?password=secret", "postgresql://user@host/db" },
        { "postgresql://user:secret@host?password=secret", "postgresql://user@host" },
        { "postgresql:///db?host=/run&password=secret", "postgresql:///db" },
        { "postgresql://u:secret@a:1,b:2,[::1]:3/db", "postgresql://u@a:1,b:2,[::1]:3/db" },
        { "postgres://user:secret@host/db", "postgres://user@host/db" },
        { "postgresql://", "postgresql://" },
        { "postgresql://user:secret@", "postgresql://user@" },
        { "host=h password=secret", "a PostgreSQL database" },
    };
    /* what is no url is refused later, but may be named before */
    static const char *const bad[] = {
        "postgresql://user:sec/secret@host/db",
        "postgresql://user:sec@secret@host/db",
        "postgresql://user:sec@secret/secret@host/db",
        "postgresql://user:12/secret@host",
    };

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        _cleanup_(mem_freep) char *name = database_name(cases[i].url);

        assert_string_equal(name, cases[i].name);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        _cleanup_(mem_freep) char *name = database_name(bad[i]);

        assert_null(strstr(name, "sec"));
    }
}

static void test_what_looks_like_the_address_of_a_database(void **unused)
{
    (void)unused;
    assert_true(database_is_url(MEMFS_STR("postgresql://host/db")));
    assert_true(database_is_url(MEMFS_STR("postgres://host/db")));
    assert_false(database_is_url(MEMFS_STR("")));
    assert_false(database_is_url(MEMFS_STR("mysql://host/db")));
    assert_false(database_is_url(MEMFS_STR("host=h dbname=db")));
    assert_false(database_is_url(MEMFS_STR("postgresql:/host/db")));
}

static void test_what_is_no_address_is_refused_and_not_shown(void **unused)
{
    memfs_error err = MEMFS_ERROR_INIT;

    (void)unused;
    assert_int_equal(home_database_check(NULL, &err), MEMFS_OK);
    assert_int_equal(home_database_check("postgres://u:secret@host/db", &err), MEMFS_OK);
    assert_code(home_database_check("user:secret@host", &err), EINVALID);
    assert_null(strstr(err.msg, "secret"));
}

/* ---- copies from one into the other ---- */

static const char *const LONG_NAME = "Ärger \"quoted\" \\ 100% \xff\xfe end";

/* Two agents, and all that there is to know. */
static void fill(fixture *f)
{
    memfs_str labels[] = { MEMFS_STR("human"), MEMFS_STR("system/\xff") };
    state_mirror m = mirror_of("agent-a", "origin", 1);
    state_token first = token_of("00000001", 1, 20), second = token_of("00000002", 2, 10);
    state_agent ada = { .id = MEMFS_STR("agent-a"),
                        .name = str_of(LONG_NAME),
                        .tags_json = MEMFS_STR("[\"red\",\"\\u0000\"]"),
                        .updated_at_us = 9 };
    memfs_oid ids[] = { oid_of(3), oid_of(1) };

    add(f, "agent-a", 5);
    add(f, "agent-b", 6);
    assert_ok(state_births_add(s, ada.id, labels, 2, 4, &f->err));
    assert_ok(state_agent_merge(s, &ada, NULL, 0, &f->err));
    assert_ok(state_banned_add(s, ada.id, ids, 2, &f->err));
    second.expires_at_us = 99;
    assert_ok(state_token_add(s, &first, &f->err));
    assert_ok(state_token_add(s, &second, &f->err));
    assert_ok(state_token_revoke(s, first.id, 50, &f->err));
    assert_ok(state_mirror_put(s, &m, &f->err));
}

static memfs_code join_banned(state *from, memfs_buf *out, memfs_error *err)
{
    memfs_oid *ids = NULL;
    size_t n = 0;
    memfs_code rc = state_banned(from, MEMFS_STR("agent-a"), &ids, &n, err);
    char hex[MEMFS_OID_HEX + 1];

    for (size_t i = 0; i < n; i++) {
        oid_hex(&ids[i], hex);
        buf_printf(out, "%s ", hex);
    }
    free(ids);
    return rc;
}

static memfs_code join_whole_mirror(const state_mirror *m, void *ctx, memfs_error *err)
{
    memfs_code rc = join_mirrors(m, ctx, err);
    memfs_str words[] = { m->mark, m->answer, m->detail, m->note, m->note_text };

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        buf_printf(ctx, "%.*s,", (int)words[i].len, words[i].ptr);
    buf_printf(ctx, "%u %lld %lld %lld %lld %lld %lld %lld ", m->proof_tree.id[3],
               (long long)m->seen_at_us, (long long)m->pushed_at_us, (long long)m->proof_at_us,
               (long long)m->n_failures, (long long)m->failed_at_us, (long long)m->next_try_us,
               (long long)m->note_at_us);
    return rc;
}

/* All that a state says, as text; caller disposes. */
static memfs_buf all_of(fixture *f, state *from)
{
    memfs_buf text = MEMFS_BUF_INIT(1 << 20);
    agent_query all = { .limit = 0 };

    assert_ok(state_agents(from, &all, join_attributes, &text, &f->err));
    assert_ok(state_births(from, MEMFS_STR("agent-a"), MEMFS_STR(""), join_births, &text, &f->err));
    assert_ok(join_banned(from, &text, &f->err));
    assert_ok(state_tokens(from, join_tokens, &text, &f->err));
    assert_ok(state_mirrors(from, MEMFS_STR(""), MEMFS_STR(""), join_whole_mirror, &text, &f->err));
    return text;
}

static void assert_same(fixture *f, state *one, state *other)
{
    _cleanup_(buf_dispose) memfs_buf a = all_of(f, one);
    _cleanup_(buf_dispose) memfs_buf b = all_of(f, other);

    assert_true(a.len > 300);
    assert_string_equal(a.ptr, b.ptr);
}

static void test_D7_a_state_goes_from_a_file_into_a_database_and_back(void **at)
{
    fixture *f = *at;
    state *file, *back;
    int64_t trace;

    assert_ok(fs_mkdirs(in_root(f, "file"), &f->err));
    assert_ok(fs_mkdirs(in_root(f, "back"), &f->err));
    assert_ok(state_open_sqlite(in_root(f, "file"), &file, &f->err));
    s = file;
    fill(f);
    s = pg_state_new(pg_open(f));
    assert_ok(state_copy_into(file, s, &f->err));
    assert_same(f, file, s);
    trace = trace_of_state(f);
    assert_ok(state_copy_into(file, s, &f->err)); /* again: nothing is new */
    assert_int_equal(trace_of_state(f), trace);
    assert_ok(state_copy_rows(s, in_root(f, "back/state.db"), &f->err));
    assert_ok(state_open_sqlite(in_root(f, "back"), &back, &f->err));
    assert_same(f, file, back);
    assert_ok(state_copy_into(s, back, &f->err));
    assert_same(f, file, back);
    state_close(back);
    state_close(file);
    close_state();
}

static void test_K4_of_what_both_states_know_the_earlier_dates_count(void **at)
{
    fixture *f = *at;
    memfs_str label = MEMFS_STR("human");
    state *file;

    assert_ok(state_open_sqlite(f->root, &file, &f->err));
    s = file;
    fill(f);
    s = pg_state_new(pg_open(f));
    add(f, "agent-a", 3);
    add(f, "agent-b", 90);
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), &label, 1, 2, &f->err));
    assert_ok(state_births_add(s, MEMFS_STR("agent-b"), &label, 1, 80, &f->err));
    assert_ok(state_copy_into(file, s, &f->err));
    assert_births(f, "agent-a", "human", "human=2 ");
    assert_births(f, "agent-b", "human", "human=80 ");
    assert_attributes(f, "agent-b", "agent-b agent-b [] 6 90");
    close_state();
    state_close(file);
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

static void test_D7_a_copy_that_fails_leaves_nothing_that_looks_like_one(void **at)
{
    fixture *f = *at;
    state_token token = token_of("00000001", 1, 20);

    open_state(f);
    assert_ok(state_token_add(s, &token, &f->err));
    sql(f, "UPDATE tokens SET hash = '\\x01'");
    assert_code(state_copy_rows(s, in_root(f, "state.db"), &f->err), ECORRUPT);
    assert_false(fs_exists(in_root(f, "state.db")));
    assert_false(fs_exists(in_root(f, "state.db-wal")));
    sql(f, "UPDATE tokens SET hash = decode(repeat('01', 31) || 'ff', 'hex')");
    assert_ok(state_copy_rows(s, in_root(f, "state.db"), &f->err));
    close_state();
}

/* ---- a home and its database ---- */

typedef struct opened {
    state *state;
    cache *cache;
    bool was_reset, has_moved;
} opened;

static memfs_code open_home(fixture *f, const char *url, opened *ret)
{
    *ret = (opened){ .state = NULL };
    return home_database_open(f->root, url, false, &ret->state, &ret->cache, &ret->was_reset,
                              &ret->has_moved, &f->err);
}

static void close_home(opened *o)
{
    cache_close(o->cache);
    state_close(o->state);
}

/* What is in the file that remembers; "" when there is none. */
static const char *remembered(fixture *f)
{
    static char text[600];
    _cleanup_(buf_dispose) memfs_buf file = MEMFS_BUF_INIT(4096);

    text[0] = '\0';
    if (fs_exists(in_root(f, "database"))) {
        assert_ok(fs_read(in_root(f, "database"), &file, &f->err));
        snprintf(text, sizeof(text), "%s", file.ptr);
    }
    return text;
}

static int setup_home(void **at)
{
    is_installed = true;
    ends_at = NULL;
    *at = fixture_new("home");
    pg_open(*at);
    return 0;
}

static void test_a_home_without_a_database_stays_as_it_was(void **at)
{
    fixture *f = *at;
    opened o;

    is_installed = false; /* nobody needs it */
    assert_ok(open_home(f, NULL, &o));
    assert_false(o.has_moved);
    assert_true(fs_exists(in_root(f, "state.db")));
    assert_string_equal(remembered(f), "");
    close_home(&o);
}

static void test_S3_a_home_remembers_its_database_without_the_password(void **at)
{
    fixture *f = *at;
    _cleanup_(mem_freep) char *url = mem_printf("%s&password=secret", pg_url());
    _cleanup_(mem_freep) char *name = database_name(url);
    _cleanup_(mem_freep) char *line = mem_printf("%s\n", name);
    opened o;
    struct stat st;

    for (int i = 0; i < 2; i++) {
        assert_ok(open_home(f, url, &o));
        assert_false(o.has_moved);
        assert_string_equal(remembered(f), line);
        assert_null(strstr(remembered(f), "secret"));
        assert_false(fs_exists(in_root(f, "state.db")));
        close_home(&o);
    }
    assert_int_equal(stat(in_root(f, "database"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_H4_a_home_is_never_opened_on_another_state_than_its_own(void **at)
{
    fixture *f = *at;
    opened o;

    assert_ok(open_home(f, pg_url(), &o));
    close_home(&o);
    assert_code(open_home(f, NULL, &o), EINVALID);
    assert_non_null(strstr(f->err.msg, "--database"));
    assert_code(open_home(f, "postgresql://user:secret@elsewhere/db", &o), EINVALID);
    assert_non_null(strstr(f->err.msg, "user@elsewhere"));
    assert_null(strstr(f->err.msg, "secret"));
    assert_null(o.state);
    assert_null(o.cache);
    assert_false(fs_exists(in_root(f, "state.db"))); /* nothing was begun */
    assert_ok(open_home(f, pg_url(), &o));
    close_home(&o);
}

static void test_without_the_module_it_says_what_to_install(void **at)
{
    fixture *f = *at;
    opened o;

    is_installed = false;
    assert_code(open_home(f, pg_url(), &o), ENOTFOUND);
    assert_non_null(strstr(f->err.msg, "libpq5"));
    assert_string_equal(remembered(f), "");
}

/* A state of files with all there is; closed again. */
static memfs_buf fill_home(fixture *f)
{
    opened o;
    memfs_buf text;

    assert_ok(open_home(f, NULL, &o));
    s = o.state;
    fill(f);
    s = NULL;
    text = all_of(f, o.state);
    close_home(&o);
    return text;
}

static void assert_moved(fixture *f, opened *o, const memfs_buf *before)
{
    _cleanup_(buf_dispose) memfs_buf after = all_of(f, o->state);

    assert_string_equal(before->ptr, after.ptr);
    assert_false(fs_exists(in_root(f, "state.db")));
    assert_false(fs_exists(in_root(f, "state.db-wal")));
    assert_true(fs_exists(in_root(f, "state.db.moved")));
    assert_string_not_equal(remembered(f), "");
}

static void test_a_home_of_files_moves_into_the_database_once(void **at)
{
    fixture *f = *at;
    _cleanup_(buf_dispose) memfs_buf before = fill_home(f);
    opened o;

    assert_ok(open_home(f, pg_url(), &o));
    assert_true(o.has_moved);
    assert_moved(f, &o, &before);
    close_home(&o);
    assert_ok(open_home(f, pg_url(), &o));
    assert_false(o.has_moved);
    assert_moved(f, &o, &before);
    close_home(&o);
}

static void die_moving(fixture *f, const char *at)
{
    pid_t child;
    int status;
    opened o;

    pg_db_close(pg); /* a child does not share a connection */
    pg = NULL;
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        ends_at = at;
        _exit(open_home(f, pg_url(), &o) < 0 ? 1 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    pg_open(f);
}

/* Killed when the file was set aside, and when the home had remembered: it is where it was. */
static void test_F01_a_move_that_is_killed_is_ended_by_the_next_start(void **at)
{
    static const char *const moments[] = { "/database", "/state.db.moved" };
    fixture *f = *at;
    _cleanup_(buf_dispose) memfs_buf before = fill_home(f);
    opened o;

    for (size_t i = 0; i < ARRAY_LEN(moments); i++) {
        die_moving(f, moments[i]);
        assert_code(open_home(f, NULL, &o), EINVALID); /* and begins no empty state */
        assert_ok(open_home(f, pg_url(), &o));
        assert_moved(f, &o, &before);
        assert_true(o.has_moved == (i == 0));
        close_home(&o);
        if (i == 0) { /* as before the move, for the next moment */
            assert_int_equal(rename(in_root(f, "state.db.moved"), in_root(f, "state.db")), 0);
            assert_int_equal(unlink(in_root(f, "database")), 0);
        }
    }
}

static void test_a_damaged_file_does_not_move_and_stays(void **at)
{
    fixture *f = *at;
    _cleanup_(buf_dispose) memfs_buf before = fill_home(f);
    opened o;

    assert_int_equal(truncate(in_root(f, "state.db"), 0), 0);
    assert_code(open_home(f, pg_url(), &o), ECORRUPT);
    assert_non_null(strstr(f->err.msg, "could not move"));
    assert_true(fs_exists(in_root(f, "state.db")));
    assert_string_equal(remembered(f), "");
    close_home(&o);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup_folder, teardown)
#define ON_HOME(test) cmocka_unit_test_setup_teardown(test, setup_home, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_S3_a_database_is_named_without_its_password),
        cmocka_unit_test(test_what_looks_like_the_address_of_a_database),
        IN_FOLDER(test_what_is_no_address_is_refused_and_not_shown),
        IN_FOLDER(test_D7_a_state_goes_from_a_file_into_a_database_and_back),
        IN_FOLDER(test_K4_of_what_both_states_know_the_earlier_dates_count),
        IN_FOLDER(test_D7_a_copy_that_fails_leaves_nothing_that_looks_like_one),
        ON_HOME(test_a_home_without_a_database_stays_as_it_was),
        ON_HOME(test_S3_a_home_remembers_its_database_without_the_password),
        ON_HOME(test_H4_a_home_is_never_opened_on_another_state_than_its_own),
        ON_HOME(test_without_the_module_it_says_what_to_install),
        ON_HOME(test_a_home_of_files_moves_into_the_database_once),
        ON_HOME(test_F01_a_move_that_is_killed_is_ended_by_the_next_start),
        ON_HOME(test_a_damaged_file_does_not_move_and_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
