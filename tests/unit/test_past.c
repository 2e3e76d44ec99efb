/* past.h and search.h: what a memory's files once were, and searching it. */
#include "sync_fixture.h"

#include "cache/search.h"
#include "sync/block_edit.h"
#include "sync/materialise.h"
#include "sync/past.h"
#include "sync/search.h"

#include <sqlite3.h>

/* ---- lines ---- */

static void test_lines_that_are_nowhere_any_more_are_gone(void **unused)
{
    static const struct {
        const char *old, *now, *gone; /* spans joined by | */
    } cases[] = {
        { "", "", "" },
        { "a\nb\nc\n", "a\nb\nc\n", "" },
        { "a\nb\nc\n", "a\nc\n", "b\n" },
        { "a\nb\nc\nd\n", "a\nd\n", "b\nc\n" },
        { "a\nb\nc\nd\n", "b\n", "a\n|c\nd\n" },
        { "a\nb\n", "b\na\n", "" },        /* moved */
        { "a\nb\n", "x\na\ny\nb\nz", "" }, /* added around */
        { "a\nb", "a\nb\n", "" },          /* an end was given to the last line */
        { "a\r\n", "a\n", "a\r\n" },
        { "a\n\nb\n", "", "a\n\nb\n" },
        { "same\nsame\n", "same\n", "" },
    };

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 12);
        find_span *spans;
        size_t n;

        past_gone(str_of(cases[i].old), str_of(cases[i].now), &spans, &n);
        for (size_t k = 0; k < n; k++) {
            buf_puts(&out, k > 0 ? "|" : "");
            buf_add(&out, cases[i].old + spans[k].start, spans[k].end - spans[k].start);
        }
        free(spans);
        assert_string_equal(out.ptr, cases[i].gone);
    }
}

/* ---- searching ---- */

typedef struct hits {
    memfs_buf text; /* "path snippet", one a line */
    size_t n;
    memfs_oid commit, gone_by; /* of the last one */
} hits;

static memfs_code take_hit(const search_hit *hit, void *ctx, memfs_error *err)
{
    hits *h = ctx;

    (void)err;
    h->n++;
    h->commit = hit->commit;
    h->gone_by = hit->gone_by;
    buf_printf(&h->text, "%.*s ", (int)hit->path.len, hit->path.ptr);
    buf_add_str(&h->text, hit->snippet);
    return MEMFS_OK;
}

static hits search(fixture *f, const char *text, bool in_past)
{
    search_request q = { .text = str_of(text),
                         .agent_id = ID_A,
                         .path = MEMFS_STR(""),
                         .in_past = in_past,
                         .limit = 100 };
    hits h = { .text = MEMFS_BUF_INIT(1 << 16) };
    bool is_partial = true;

    OK(search_memory(f->h, &q, take_hit, &h, &is_partial, &err));
    assert_false(is_partial);
    return h;
}

static size_t n_past(fixture *f, const char *text)
{
    hits h = search(f, text, true);

    buf_dispose(&h.text);
    return h.n;
}

static void assert_gone(fixture *f, const char *text, const char *expected, memfs_oid commit,
                        memfs_oid gone_by)
{
    hits h = search(f, text, true);

    assert_string_equal(h.text.ptr, expected);
    assert_true(oid_equal(&h.commit, &commit) && oid_equal(&h.gone_by, &gone_by));
    buf_dispose(&h.text);
}

/* Every version of some paths. */
static memfs_code add_version(const version_row *v, void *ctx, memfs_error *err)
{
    char commit[MEMFS_OID_HEX + 1], blob[MEMFS_OID_HEX + 1];

    (void)err;
    oid_hex(&v->commit, commit);
    oid_hex(&v->blob, blob);
    buf_printf(ctx, "%.*s %s %s\n", (int)v->path.len, v->path.ptr, commit, blob);
    return MEMFS_OK;
}

static void dump_as_it_is(fixture *f, memfs_buf *out)
{
    static const char *const paths[] = { "a.md", "b.md", "c.md", "side.md" };

    buf_clear(out);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        OK(cache_versions(home_cache(f->h), ID_A, str_of(paths[i]), 0, 0, add_version, out, &err));
}

static void dump_versions(fixture *f, memfs_buf *out)
{
    OK(past_follow(f->h, ID_A, &err));
    dump_as_it_is(f, out);
}

static bool is_followed(fixture *f)
{
    cache_tip tip;
    memfs_oid past;

    OK(cache_tip_get(home_cache(f->h), ID_A, &tip, &err));
    if (tip.is_followed) {
        OK(cache_past_tip(home_cache(f->h), ID_A, &past, &err));
        assert_true(oid_equal(&past, &tip.commit));
    }
    return tip.is_followed;
}

static void test_text_that_went_is_told_with_who_had_it_and_who_took_it(void **state)
{
    fixture *f = *state;
    memfs_oid had, gone;

    put_file(f->work, "a.md", MEMFS_STR("one\nthe old address\ntwo\n"));
    had = push_work(f, ID_A);
    assert_int_equal(n_past(f, "address"), 0);
    put_file(f->work, "b.md", MEMFS_STR("between\n"));
    push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("one\ntwo\n"));
    gone = push_work(f, ID_A);
    assert_gone(f, "\"old address\"", "a.md the old address\n", had, gone);
    assert_int_equal(n_past(f, "\"address old\""), 0);
    assert_int_equal(n_past(f, "one"), 0); /* still there */
    drop_file(f->work, "a.md");
    push_work(f, ID_A);
    assert_int_equal(n_past(f, "one two"), 1);
    put_file(f->work, "a.md", MEMFS_STR("two one\n")); /* it is back, in other lines */
    push_work(f, ID_A);
    assert_int_equal(n_past(f, "one two"), 0);
    assert_int_equal(n_past(f, "addr*"), 1);
}

/* What one branch has and the other has not is not gone, when the merge has it. */
static void test_branches_that_were_merged_have_lost_only_what_main_lost(void **state)
{
    fixture *f = *state;
    memfs_oid old;

    put_file(f->work, "a.md", MEMFS_STR("first line\n\n\n\nlast line\n"));
    put_file(f->work, "side.md", MEMFS_STR("of the side\n"));
    push_work(f, ID_A);
    git(f->work, "checkout", "-q", "-b", "side");
    put_file(f->work, "a.md", MEMFS_STR("first line\n\n\n\nlast line is better\n"));
    drop_file(f->work, "side.md");
    commit_all(f->work, "on the side");
    git(f->work, "checkout", "-q", "main");
    put_file(f->work, "a.md", MEMFS_STR("opening line\n\n\n\nlast line\n"));
    old = push_work(f, ID_A);
    assert_int_equal(n_past(f, "first line"), 1);
    assert_int_equal(n_past(f, "\"the side\""), 0);
    git(f->work, "merge", "-q", "--no-edit", "side");
    assert_true(try_push(f, ID_A, old, git_id(f->work, "HEAD")).moved);
    assert_int_equal(n_past(f, "opening"), 0);
    assert_int_equal(n_past(f, "better"), 0);
    assert_int_equal(n_past(f, "\"the side\""), 1);
    assert_true(n_past(f, "first") >= 1);
}

static void test_D5_versions_step_by_step_are_those_from_the_beginning(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf by_steps = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(buf_dispose) memfs_buf at_once = MEMFS_BUF_INIT(1 << 20);
    materialise_result rows;
    uint32_t x = 5;
    agent *a;

    for (int i = 0; i < 25; i++) {
        char path[8], text[64];

        x = x * 1664525 + 1013904223;
        snprintf(path, sizeof(path), "%c.md", 'a' + (int)(x >> 24) % 3);
        snprintf(text, sizeof(text), "word%d\nword%d\n", i, i / 3);
        put_file(f->work, path, str_of(text));
        if ((x >> 20) % 5 == 0)
            drop_file(f->work, path);
        push_work(f, ID_A);
        if (i % 4 != 0)
            dump_versions(f, &by_steps);
    }
    dump_versions(f, &by_steps);
    assert_true(n_past(f, "word5") > 0);
    OK(home_agent(f->h, ID_A, &a, &err));
    agent_lock(a);
    OK(materialise_rebuild(f->h, a, &rows, &err));
    agent_unlock(a);
    dump_versions(f, &at_once);
    assert_true(at_once.len > 25 * 40);
    assert_string_equal(by_steps.ptr, at_once.ptr);
}

/* ---- with the rows ---- */

static void sql(fixture *f, const char *text)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/cache.db", f->path);
    sqlite3 *db;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void push_text(fixture *f, const char *path, const char *text)
{
    put_file(f->work, path, str_of(text));
    push_work(f, ID_A);
}

/* So many commits that change no file. */
static void commit_nothing(fixture *f, int n)
{
    _cleanup_(buf_dispose) memfs_buf in = MEMFS_BUF_INIT(1u << 20), out = MEMFS_BUF_INIT(1u << 16);
    const char *const args[] = { "fast-import", "--quiet", NULL };

    for (int i = 0; i < n; i++)
        buf_printf(&in, "commit refs/heads/main\ncommitter t <t@t> 1700000000 +0000\ndata 0\n%s\n",
                   i == 0 ? "from refs/heads/main^0\n" : "");
    assert_int_equal(git_in(f->work, buf_str(&in), &out, args), MEMFS_OK);
}

static void test_K1_the_past_that_was_asked_for_follows_each_push(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf followed = MEMFS_BUF_INIT(1 << 16);
    _cleanup_(buf_dispose) memfs_buf anew = MEMFS_BUF_INIT(1 << 16);
    materialise_result rows;
    memfs_oid past;
    agent *a;

    push_text(f, "a.md", "one\n");
    push_text(f, "a.md", "two\n");
    FAILS(MEMFS_ENOTFOUND, cache_past_tip(home_cache(f->h), ID_A, &past, &err));
    OK(past_follow(f->h, ID_A, &err));
    for (int i = 0; i < 6; i++) {
        char text[32];

        snprintf(text, sizeof(text), "text%d\n", i);
        put_file(f->work, "b.md", str_of(text));
        commit_all(f->work, "one of two");
        push_text(f, "a.md", text);
        assert_true(is_followed(f));
        if (i == 3)
            reopen_home(f);
    }
    drop_file(f->work, "b.md");
    push_work(f, ID_A);
    assert_true(is_followed(f));
    dump_as_it_is(f, &followed);
    OK(home_agent(f->h, ID_A, &a, &err));
    agent_lock(a);
    OK(materialise_rebuild(f->h, a, &rows, &err));
    agent_unlock(a);
    FAILS(MEMFS_ENOTFOUND, cache_past_tip(home_cache(f->h), ID_A, &past, &err));
    dump_versions(f, &anew);
    assert_string_equal(followed.ptr, anew.ptr);
    assert_int_equal(n_past(f, "text5"), 1); /* of b.md */
}

/* What was pushed while its rows could not be written: whoever brings them brings the versions. */
static void test_K1_the_past_follows_rows_that_come_late(void **state)
{
    fixture *f = *state;
    materialise_result rows;
    agent *a;

    push_text(f, "a.md", "one\n");
    OK(past_follow(f->h, ID_A, &err));
    sql(f, "CREATE TRIGGER broken BEFORE UPDATE OF tip ON agents BEGIN SELECT RAISE(ABORT, 'no'); "
           "END");
    push_text(f, "a.md", "two\n");
    push_text(f, "a.md", "three\n");
    assert_true(n_alarms(f, "cache_behind") > 0);
    sql(f, "DROP TRIGGER broken");
    OK(home_agent(f->h, ID_A, &a, &err));
    agent_lock(a);
    OK(materialise_agent(f->h, a, &rows, &err));
    agent_unlock(a);
    assert_true(is_followed(f));
    assert_int_equal(n_past(f, "two"), 1);
}

static void test_L3_a_long_stretch_is_left_to_the_next_question(void **state)
{
    fixture *f = *state;
    char path[32];

    push_text(f, "a.md", "one\n");
    OK(past_follow(f->h, ID_A, &err));
    for (int i = 0; i <= PAST_STEP_VERSIONS; i++) { /* too many files */
        snprintf(path, sizeof(path), "n/%d.md", i);
        put_file(f->work, path, MEMFS_STR("x\n"));
    }
    push_text(f, "a.md", "two\n");
    assert_false(is_followed(f));
    push_text(f, "a.md", "three\n");
    assert_false(is_followed(f));
    assert_int_equal(n_past(f, "two"), 1);
    assert_true(is_followed(f));
    commit_nothing(f, PAST_STEP_LOOKED / 2 - 2); /* many commits, yet not too many */
    push_text(f, "a.md", "four\n");
    assert_true(is_followed(f));
    commit_nothing(f, PAST_STEP_LOOKED / 2);
    push_text(f, "a.md", "five\n");
    assert_false(is_followed(f));
    assert_int_equal(n_past(f, "four"), 1);
}

static void test_L3_much_text_is_left_to_the_next_question(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf large = MEMFS_BUF_INIT(1u << 20);
    char path[32];

    while (large.len < 1000000)
        buf_puts(&large, "many words of a line\n");
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof(path), "n/%d.md", i);
        put_file(f->work, path, buf_str(&large));
    }
    push_work(f, ID_A);
    OK(past_follow(f->h, ID_A, &err));
    buf_puts(&large, "one more\n");
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "n/%d.md", i);
        put_file(f->work, path, buf_str(&large));
    }
    push_work(f, ID_A);
    assert_true(is_followed(f));
    for (int i = 4; i < 8; i++) {
        snprintf(path, sizeof(path), "n/%d.md", i);
        put_file(f->work, path, buf_str(&large));
    }
    push_text(f, "n/0.md", "little\n");
    assert_false(is_followed(f));
    assert_int_equal(n_past(f, "\"many words\""), 1);
    assert_true(is_followed(f));
}

/* Versions that cannot be read leave them behind; the push and its rows do not notice. */
static void test_L3_a_past_that_cannot_be_listed_stops_no_push(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf value = MEMFS_BUF_INIT(1 << 10);

    push_text(f, "a.md", "one\n");
    OK(past_follow(f->h, ID_A, &err));
    sql(f, "ALTER TABLE versions RENAME TO away");
    push_text(f, "a.md", "two\n");
    assert_string_equal(value_of(f, ID_A, "a", &value), "two\n");
    assert_int_equal(n_alarms(f, "cache_behind"), 0);
    assert_false(is_followed(f));
    sql(f, "ALTER TABLE away RENAME TO versions");
    assert_int_equal(n_past(f, "one"), 1);
    assert_true(is_followed(f));
}

/* The story: a key that was pushed by mistake and deleted at once is what a thief searches for. */
static void test_T28_what_was_purged_is_not_found_in_the_past(void **state)
{
    fixture *f = *state;
    purge_request q = { .agent_id = ID_A, .needle = MEMFS_STR("SesameKey42") };
    purge_result result;

    put_file(f->work, "a.md", MEMFS_STR("the SesameKey42 is here\nand a plain line\n"));
    push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("nothing\n"));
    push_work(f, ID_A);
    assert_int_equal(n_past(f, "sesamekey42"), 1);
    OK(upkeep_purge(f->h, &q, NULL, &result, &err));
    assert_int_equal(n_past(f, "sesamekey42"), 0);
    assert_int_equal(n_past(f, "\"plain line\""), 1);
}

static void test_large_and_binary_files_are_no_text_of_the_past(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf large = MEMFS_BUF_INIT(4u << 20);

    while (large.len < (2u << 20))
        buf_puts(&large, "needle hay ");
    put_file(f->work, "a.md", buf_str(&large));
    put_file(f->work, "b.bin", str_make("\x00\xff needle \x00", 11));
    push_work(f, ID_A);
    drop_file(f->work, "a.md");
    drop_file(f->work, "b.bin");
    push_work(f, ID_A);
    {
        hits h = search(f, "needle", true);

        assert_int_equal(h.n, 1);
        assert_non_null(strstr(h.text.ptr, "b.bin"));
        buf_dispose(&h.text);
    }
}

static void test_an_agent_that_nobody_knows_is_not_found(void **state)
{
    fixture *f = *state;
    search_request q = {
        .text = MEMFS_STR("x"), .agent_id = ID_B, .path = MEMFS_STR(""), .limit = 1
    };
    hits h = { .text = MEMFS_BUF_INIT(1 << 10) };
    bool is_partial;

    FAILS(MEMFS_ENOTFOUND, search_memory(f->h, &q, take_hit, &h, &is_partial, &err));
    q.in_past = true;
    FAILS(MEMFS_ENOTFOUND, search_memory(f->h, &q, take_hit, &h, &is_partial, &err));
    q.text = MEMFS_STR("...");
    FAILS(MEMFS_EINVALID, search_memory(f->h, &q, take_hit, &h, &is_partial, &err));
}

/* Who asks waits for a while; the background goes on, and only when somebody has asked. */
static void test_pasts_that_are_not_listed_in_time_are_listed_in_the_background(void **state)
{
    fixture *f = *state;
    bool is_whole = true;
    memfs_oid past;

    put_file(f->work, "a.md", MEMFS_STR("gone soon\n"));
    push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("here\n"));
    push_work(f, ID_A);
    assert_false(home_past_step(f->h));
    FAILS(MEMFS_ENOTFOUND, cache_past_tip(home_cache(f->h), ID_A, &past, &err));
    OK(past_follow_all(f->h, clock_mono_ms() - 1, &is_whole, &err));
    assert_false(is_whole);
    while (home_past_step(f->h))
        ;
    OK(cache_past_tip(home_cache(f->h), ID_A, &past, &err));
    OK(past_follow_all(f->h, clock_mono_ms() - 1, &is_whole, &err));
    assert_true(is_whole);
}

/* A block that no file backs has rows, and no past that anybody waits for. */
static void test_pasts_are_whole_beside_blocks_that_no_agent_has(void **state)
{
    const block_row loose = { .label = MEMFS_STR("team"),
                              .value = MEMFS_STR("text"),
                              .limit = 100000,
                              .metadata_json = MEMFS_STR("{}"),
                              .tags_json = MEMFS_STR("[]") };
    fixture *f = *state;
    char id[IDS_MAX_LEN + 1];
    bool is_whole = false;
    memfs_oid past;

    OK(block_edit_create(f->h, &loose, id, &err));
    put_file(f->work, "a.md", MEMFS_STR("text\n"));
    push_work(f, ID_A);
    OK(past_follow_all(f->h, INT64_MAX, &is_whole, &err));
    assert_true(is_whole);
    OK(cache_past_tip(home_cache(f->h), ID_A, &past, &err));
}

/* Each is tried once: whoever cannot be listed keeps nobody that comes after. */
static void test_L3_pasts_that_cannot_be_listed_keep_no_other(void **state)
{
    fixture *f = *state;
    bool is_whole = true;
    char id[IDS_MAX_LEN + 1];
    memfs_oid past;

    put_file(f->work, "a.md", MEMFS_STR("text\n"));
    push_work(f, ID_A);
    for (int i = 0; i < 70; i++) { /* rows of nobody, before it in every order */
        cache_update u = { .to = { .id = { 1 } } };

        snprintf(id, sizeof(id), "agent-0000%04d", i);
        u.agent_id = str_of(id);
        OK(cache_apply(home_cache(f->h), &u, &err));
    }
    OK(past_follow_all(f->h, INT64_MAX, &is_whole, &err));
    assert_false(is_whole);
    OK(cache_past_tip(home_cache(f->h), ID_A, &past, &err));
    OK(past_follow_all(f->h, clock_mono_ms() - 1, &is_whole, &err));
    while (home_past_step(f->h)) /* it ends */
        ;
}

/* Beyond the bound it is said, and nothing is looked at that would not be told. */
static void test_L5_more_than_may_be_looked_at_is_partial(void **state)
{
    fixture *f = *state;
    search_request q = {
        .text = MEMFS_STR("common"), .agent_id = ID_A, .path = MEMFS_STR(""), .limit = 7
    };
    hits h = { .text = MEMFS_BUF_INIT(1 << 16) };
    bool is_partial = false;
    char path[32];

    for (int i = 0; i < SEARCH_MAX_LOOKED + 5; i++) {
        snprintf(path, sizeof(path), "n/%d.md", i);
        put_file(f->work, path, MEMFS_STR("common\n"));
    }
    push_work(f, ID_A);
    OK(search_memory(f->h, &q, take_hit, &h, &is_partial, &err));
    assert_int_equal(h.n, 7);
    assert_true(is_partial);
    buf_dispose(&h.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_that_are_nowhere_any_more_are_gone),
        SYNC_TEST(test_text_that_went_is_told_with_who_had_it_and_who_took_it),
        SYNC_TEST(test_branches_that_were_merged_have_lost_only_what_main_lost),
        SYNC_TEST(test_D5_versions_step_by_step_are_those_from_the_beginning),
        SYNC_TEST(test_K1_the_past_that_was_asked_for_follows_each_push),
        SYNC_TEST(test_K1_the_past_follows_rows_that_come_late),
        SYNC_TEST(test_L3_a_long_stretch_is_left_to_the_next_question),
        SYNC_TEST(test_L3_much_text_is_left_to_the_next_question),
        SYNC_TEST(test_L3_a_past_that_cannot_be_listed_stops_no_push),
        SYNC_TEST(test_T28_what_was_purged_is_not_found_in_the_past),
        SYNC_TEST(test_large_and_binary_files_are_no_text_of_the_past),
        SYNC_TEST(test_an_agent_that_nobody_knows_is_not_found),
        SYNC_TEST(test_pasts_that_are_not_listed_in_time_are_listed_in_the_background),
        SYNC_TEST(test_pasts_are_whole_beside_blocks_that_no_agent_has),
        SYNC_TEST(test_L3_pasts_that_cannot_be_listed_keep_no_other),
        SYNC_TEST(test_L5_more_than_may_be_looked_at_is_partial),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
