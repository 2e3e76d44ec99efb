/*
 * Since when a copy lacks something, and what main was at a time, from logs as machines leave them.
 */
#include "store_support.h"

#include "store/chronicle.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#define N_COMMITS 6

typedef struct story {
    fixture *f;
    memfs_oid at[N_COMMITS + 1]; /* 0: the genesis */
    char *log, *ref;
} story;

/* Commits that follow each other, all in the store, main at the last. */
static void story_begin(story *s, fixture *f)
{
    char *path = store_path(f->s, AGENT);

    *s = (story){ .f = f, .at = { STORE_GENESIS } };
    work_clone(f, NULL, f->work);
    for (int i = 1; i <= N_COMMITS; i++) {
        char name[32];

        snprintf(name, sizeof(name), "notes/%d.md", i);
        work_commit(f, f->work, name, name);
        assert_ok(f, push_head(f, f->work, AGENT, NULL));
        s->at[i] = git_id(f, f->work, "HEAD");
    }
    s->log = mem_printf("%s/logs/refs/heads/main", path);
    s->ref = mem_printf("%s/refs/heads/main", path);
    free(path);
}

static void story_end(story *s)
{
    free(s->log);
    free(s->ref);
}

/* One line of the log; an index below 0 stands for no commit. */
typedef struct move_row {
    int from, to;
    int64_t time_s;
} move_row;

static void write_log(const story *s, const move_row *rows, size_t n)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64u << 20);
    static const memfs_oid none;
    char old[MEMFS_OID_HEX + 1], new[MEMFS_OID_HEX + 1];

    for (size_t i = 0; i < n; i++) {
        oid_hex(rows[i].from < 0 ? &none : &s->at[rows[i].from], old);
        oid_hex(rows[i].to < 0 ? &none : &s->at[rows[i].to], new);
        buf_printf(&text, "%s %s a > b <a@b> %lld +0000\twhy > not 7 +0000\n", old, new,
                   (long long)rows[i].time_s);
    }
    assert_ok(s->f, fs_write_atomic(s->log, buf_str(&text), 0600, &s->f->err));
}

static int64_t left(const story *s, const memfs_oid *tip)
{
    int64_t time_s = -1;

    assert_ok(s->f, chronicle_left(s->f->s, AGENT, tip, &time_s, &s->f->err));
    return time_s;
}

static const move_row PLAIN[] = {
    { -1, 0, 1 }, { 0, 1, 100 }, { 1, 2, 200 }, { 2, 4, 400 }, { 4, 5, 500 }, { 5, 6, 600 },
};

static void test_what_a_copy_lacks_is_as_old_as_the_move_that_left_it(void **state)
{
    static const memfs_oid none;
    story s;

    story_begin(&s, *state);
    write_log(&s, PLAIN, ARRAY_LEN(PLAIN));
    assert_int_equal(left(&s, &s.at[6]), 0);
    assert_int_equal(left(&s, &s.at[5]), 600);
    assert_int_equal(left(&s, &s.at[4]), 500);
    assert_int_equal(left(&s, &s.at[3]), 400); /* main never was there, but has it */
    assert_int_equal(left(&s, &s.at[2]), 400);
    assert_int_equal(left(&s, &s.at[0]), 100);
    assert_int_equal(left(&s, &none), 100); /* it has nothing; nobody misses the genesis */
    story_end(&s);
}

/* What another machine made of an older main, and what is ahead of us. */
static void test_a_tip_that_main_never_had_is_asked_what_it_contains(void **state)
{
    fixture *f = *state;
    memfs_oid theirs, ahead, unknown = { { 0xab } };
    char *path = store_path(f->s, AGENT);
    int64_t time_s;
    story s;

    story_begin(&s, f);
    write_log(&s, PLAIN, ARRAY_LEN(PLAIN));
    work_commit(f, f->work, "notes/ahead.md", "ahead\n");
    ahead = git_id(f, f->work, "HEAD");
    git(f, path, "fetch", "-q", f->work, "HEAD:refs/memfs/test-ahead");
    git(f, f->work, "checkout", "-q", "HEAD~5"); /* the second */
    work_commit(f, f->work, "notes/theirs.md", "theirs\n");
    theirs = git_id(f, f->work, "HEAD");
    git(f, path, "fetch", "-q", f->work, "HEAD:refs/memfs/test-theirs");
    assert_int_equal(left(&s, &theirs), 400);
    assert_int_equal(left(&s, &ahead), 0);
    assert_code(f, MEMFS_ENOTFOUND, chronicle_left(f->s, AGENT, &unknown, &time_s, &f->err));
    story_end(&s);
    free(path);
}

/* H7: the log's own order decides. */
static void test_H7_clocks_that_jump_change_times_and_not_the_order(void **state)
{
    static const move_row rows[] = {
        { -1, 0, 1 }, { 0, 1, 4000000000 }, { 1, 2, 200 }, { 2, 4, 3000000000 }, { 4, 6, 5 },
    };
    memfs_oid got;
    fixture *f = *state;
    story s;

    story_begin(&s, f);
    write_log(&s, rows, ARRAY_LEN(rows));
    assert_int_equal(left(&s, &s.at[1]), 200);
    assert_int_equal(left(&s, &s.at[2]), 3000000000);
    assert_int_equal(left(&s, &s.at[4]), 5);
    assert_ok(f, chronicle_at(f->s, AGENT, 300, &got, &f->err));
    assert_true(oid_equal(&got, &s.at[6]));
    story_end(&s);
}

static void test_F01_moves_that_never_were_are_passed_over(void **state)
{
    static const move_row rows[] = {
        { -1, 0, 1 },   { 0, 1, 100 }, { 1, 3, 150 } /* killed before its rename */,
        { 1, 2, 200 },  { 2, 6, 600 }, { 6, 5, 700 } /* and so was this, the last */,
    };
    fixture *f = *state;
    memfs_oid got;
    story s;

    story_begin(&s, f);
    write_log(&s, rows, ARRAY_LEN(rows));
    assert_int_equal(left(&s, &s.at[6]), 0);
    assert_int_equal(left(&s, &s.at[1]), 200);
    assert_int_equal(left(&s, &s.at[3]), 600);
    assert_ok(f, chronicle_at(f->s, AGENT, 160, &got, &f->err));
    assert_true(oid_equal(&got, &s.at[1]));
    assert_ok(f, chronicle_at(f->s, AGENT, 9999, &got, &f->err));
    assert_true(oid_equal(&got, &s.at[6]));
    story_end(&s);
}

/* After a power cut the log may lack the last moves, or be torn; somebody may have removed it. */
static void test_a_log_that_lacks_the_end_borrows_the_date_of_the_ref(void **state)
{
    fixture *f = *state;
    struct timespec times[2] = { { 5000, 0 }, { 5000, 0 } };
    memfs_oid got;
    story s;

    story_begin(&s, f);
    assert_int_equal(utimensat(AT_FDCWD, s.ref, times, 0), 0);
    write_log(&s, PLAIN, 3);
    assert_int_equal(left(&s, &s.at[1]), 200);
    assert_int_equal(left(&s, &s.at[2]), 5000);
    assert_int_equal(left(&s, &s.at[4]), 5000);
    assert_ok(f, fs_write_atomic(s.log, MEMFS_STR("0000 torn\n\n\0\0\0\n"), 0600, &f->err));
    assert_int_equal(left(&s, &s.at[2]), 5000);
    assert_ok(f, chronicle_at(f->s, AGENT, 5000, &got, &f->err));
    assert_true(oid_equal(&got, &s.at[6]));
    assert_int_equal(unlink(s.log), 0);
    assert_int_equal(left(&s, &s.at[2]), 5000);
    assert_code(f, MEMFS_ENOTFOUND, chronicle_at(f->s, AGENT, 4999, &got, &f->err));
    story_end(&s);
}

/* Longer than the pieces that are read at once. */
static void test_a_long_log_is_read_as_far_as_is_needed(void **state)
{
    enum { N = 30000 };
    fixture *f = *state;
    move_row *rows = mem_alloc((N + 8) * sizeof(*rows));
    static const memfs_oid none;
    memfs_oid got;
    size_t n = 0;
    story s;

    story_begin(&s, f);
    rows[n++] = (move_row){ -1, 0, 1 };
    rows[n++] = (move_row){ 0, 1, 100 };
    for (int64_t i = 0; i < N; i++) /* to and fro, as only a test has it */
        rows[n++] = (move_row){ i % 2 ? 3 : 1, i % 2 ? 1 : 3, 200 + i };
    rows[n++] = (move_row){ 1, 6, 90000 };
    write_log(&s, rows, n);
    assert_int_equal(left(&s, &s.at[1]), 90000);
    assert_int_equal(left(&s, &none), 100);
    assert_int_equal(left(&s, &STORE_GENESIS), 100);
    assert_ok(f, chronicle_at(f->s, AGENT, 150, &got, &f->err));
    assert_true(oid_equal(&got, &s.at[1]));
    assert_ok(f, chronicle_at(f->s, AGENT, 200, &got, &f->err));
    assert_true(oid_equal(&got, &s.at[3]));
    free(rows);
    story_end(&s);
}

/* As the store itself writes it. */
static void test_the_log_of_real_moves_is_understood(void **state)
{
    fixture *f = *state;
    static const memfs_oid none;
    memfs_oid got;
    story s;

    story_begin(&s, f);
    for (int i = 0; i < N_COMMITS; i++)
        assert_int_equal(left(&s, &s.at[i]), WHO.time_s);
    assert_int_equal(left(&s, &none), WHO.time_s);
    assert_ok(f, chronicle_at(f->s, AGENT, WHO.time_s, &got, &f->err));
    assert_true(oid_equal(&got, &s.at[N_COMMITS]));
    assert_ok(f, chronicle_at(f->s, AGENT, WHO.time_s - 1, &got, &f->err));
    assert_true(oid_equal(&got, &STORE_GENESIS));
    story_end(&s);
}

static void test_a_memory_of_nothing_but_the_genesis_lacks_nothing(void **state)
{
    fixture *f = *state;
    static const memfs_oid none;
    int64_t time_s = -1;

    assert_ok(f, store_create(f->s, AGENT, &f->err));
    assert_ok(f, chronicle_left(f->s, AGENT, &none, &time_s, &f->err));
    assert_int_equal(time_s, 0);
    assert_code(f, MEMFS_ENOTFOUND, chronicle_left(f->s, OTHER, &none, &time_s, &f->err));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_a_copy_lacks_is_as_old_as_the_move_that_left_it),
        TEST(test_a_tip_that_main_never_had_is_asked_what_it_contains),
        TEST(test_H7_clocks_that_jump_change_times_and_not_the_order),
        TEST(test_F01_moves_that_never_were_are_passed_over),
        TEST(test_a_log_that_lacks_the_end_borrows_the_date_of_the_ref),
        TEST(test_a_long_log_is_read_as_far_as_is_needed),
        TEST(test_the_log_of_real_moves_is_understood),
        TEST(test_a_memory_of_nothing_but_the_genesis_lacks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
