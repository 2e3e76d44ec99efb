/* search.h, over both backends: which rows have words, and what a memory's files once were. */
#include "cache_fixture.h"

#include "cache/search.h"

/* ---- asking ---- */

static memfs_code join_found(const block_row *row, void *ctx, memfs_error *err)
{
    memfs_buf *out = ctx;

    (void)err;
    buf_printf(out, "%s%.*s:%.*s", out->len > 0 ? " " : "", (int)row->agent_id.len,
               row->agent_id.ptr, (int)row->path.len, row->path.ptr);
    return MEMFS_OK;
}

static int compare_words(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* "agent:path agent:path", sorted. */
static const char *sorted(memfs_buf *found)
{
    static __thread char out[4096];
    char *words[64], *save = NULL;
    size_t n = 0, len = 0;

    for (char *w = strtok_r(found->ptr, " ", &save); w != NULL; w = strtok_r(NULL, " ", &save))
        words[n++] = w;
    qsort(words, n, sizeof(*words), compare_words);
    out[0] = '\0';
    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(out + len, sizeof(out) - len, "%s%s", i > 0 ? " " : "", words[i]);
    return out;
}

static const char *search(fixture *f, const char *agent, const char *path, const char *text)
{
    _cleanup_(buf_dispose) memfs_buf found = MEMFS_BUF_INIT(1 << 16);
    find_query find;
    search_query q = {
        .agent_id = str_of(agent), .path = str_of(path), .find = &find, .limit = 100
    };

    assert_ok(find_parse(str_of(text), &find, &f->err));
    assert_ok(cache_search(f->cache, &q, join_found, &found, &f->err));
    return found.len > 0 ? sorted(&found) : "";
}

#define assert_found(agent, path, text, expected)                                                  \
    assert_string_equal(search(f, agent, path, text), expected)

/* ---- blocks ---- */

static void test_K1_words_come_and_go_with_their_row(void **at)
{
    fixture *f = *at;

    assert_found("", "", "tea", "");
    assert_ok(apply_one(f, "agent-a", 0, 1, "human", "Likes tea."));
    assert_found("", "", "tea", "agent-a:human.md");
    assert_found("", "", "TEA likes", "agent-a:human.md");
    assert_found("", "", "tea coffee", "");
    assert_found("", "", "human", "agent-a:human.md"); /* the label */
    assert_found("", "", "about", "agent-a:human.md"); /* the description */
    assert_ok(apply_one(f, "agent-a", 1, 2, "human", "Likes coffee."));
    assert_found("", "", "tea", "");
    assert_found("", "", "coffee", "agent-a:human.md");
    assert_code(apply_one(f, "agent-a", 1, 3, "human", "stale milk"), ECONFLICT);
    assert_found("", "", "milk", "");
    assert_ok(apply_one(f, "agent-a", 2, 3, "human", NULL));
    assert_found("", "", "coffee", "");
    assert_ok(cache_check(f->cache, &f->err));
}

static void test_S1_a_search_of_one_agent_finds_nothing_of_others(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "common alpha"));
    assert_ok(apply_one(f, "agent-b", 0, 1, "x", "common beta _1 _2 _3"));
    assert_ok(apply_one(f, "agent-c", 0, 1, "x", "common 1 2 3"));
    assert_found("", "", "common", "agent-a:x.md agent-b:x.md agent-c:x.md");
    assert_found("agent-a", "", "common", "agent-a:x.md");
    assert_found("agent-b", "", "common", "agent-b:x.md");
    assert_found("agent-a", "", "beta", "");
    assert_found("agent-d", "", "common", "");
    assert_found("agent-a", "", "_1", ""); /* not the word of an agent */
    assert_found("", "", "_1", "agent-b:x.md agent-c:x.md");
}

static void test_beginnings_of_words(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 1, "a", "teapot"));
    assert_ok(apply_one(f, "agent-a", 1, 2, "b", "tea"));
    assert_ok(apply_one(f, "agent-a", 2, 3, "c", "Größenwahn"));
    assert_found("agent-a", "", "tea", "agent-a:b.md");
    assert_found("agent-a", "", "tea*", "agent-a:a.md agent-a:b.md");
    assert_found("agent-a", "", "teap*", "agent-a:a.md");
    assert_found("agent-a", "", "GROSSEN*", "agent-a:c.md");
    assert_found("agent-a", "", "pot*", "");
}

/* Case of ASCII and all else is folded before the databases see it: their locales have no say. */
static void test_words_of_all_scripts_are_found(void **at)
{
    static const struct {
        const char *value, *query;
    } cases[] = {
        { "İstanbul", "istanbul" },
        { "CAFÉ", "café" },
        { "ΣΊΣΥΦΟΣ", "σίσυφος" },
        { "日本語です", "語" },
        { "한국어", "한국*" },
        { "a\xff"
          "bc",
          "bc" },
        { "quote's \\ \" ' x", "x" },
        { "\xf0\x90\x90\x80", "\xf0\x90\x90\xa8" },
    };
    fixture *f = *at;

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        assert_ok(apply_one(f, "agent-a", i, i + 1, "x", cases[i].value));
        assert_found("agent-a", "", cases[i].query, "agent-a:x.md");
    }
}

static void test_rows_without_any_word_are_rows(void **at)
{
    fixture *f = *at;
    block_row row = row_of("🙂.md", "🙂", "block-1", "");
    cache_change change = { row.path, &row };
    cache_update u = {
        .agent_id = MEMFS_STR("agent-a"), .to = oid_of(1), .changes = &change, .n_changes = 1
    };

    row.has_description = false;
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_found("agent-a", "", "x", "");
    assert_ok(cache_check(f->cache, &f->err));
}

static void test_a_path_is_a_file_or_a_folder(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 1, "notes/a", "tea"));
    assert_ok(apply_one(f, "agent-a", 1, 2, "notes/deep/b", "tea"));
    assert_ok(apply_one(f, "agent-a", 2, 3, "notes-b", "tea"));
    assert_ok(apply_one(f, "agent-a", 3, 4, "notes0", "tea"));
    assert_found("", "notes", "tea", "agent-a:notes/a.md agent-a:notes/deep/b.md");
    assert_found("", "notes/deep", "tea", "agent-a:notes/deep/b.md");
    assert_found("", "notes/a.md", "tea", "agent-a:notes/a.md");
    assert_found("agent-a", "note", "tea", "");
    assert_found("agent-a", "", "tea",
                 "agent-a:notes-b.md agent-a:notes/a.md agent-a:notes/deep/b.md agent-a:notes0.md");
}

static void test_hidden_blocks_are_found_when_asked_for(void **at)
{
    fixture *f = *at;
    block_row row = row_of("h.md", "h", "block-1", "tea");
    cache_change change = { row.path, &row };
    cache_update u = {
        .agent_id = MEMFS_STR("agent-a"), .to = oid_of(1), .changes = &change, .n_changes = 1
    };
    _cleanup_(buf_dispose) memfs_buf found = MEMFS_BUF_INIT(1 << 12);
    find_query find;
    search_query q = { .find = &find, .limit = 1, .show_hidden = true };

    row.hidden = true;
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_found("", "", "tea", "");
    assert_ok(find_parse(MEMFS_STR("tea"), &find, &f->err));
    assert_ok(cache_search(f->cache, &q, join_found, &found, &f->err));
    assert_string_equal(found.ptr, "agent-a:h.md");
}

static memfs_code count_row(const block_row *row, void *ctx, memfs_error *err)
{
    (void)row;
    (void)err;
    ++*(int *)ctx;
    return MEMFS_OK;
}

static memfs_code refuse(const block_row *row, void *ctx, memfs_error *err)
{
    (void)row;
    ++*(int *)ctx;
    return memfs_fail(err, MEMFS_ELIMIT, "enough");
}

static void test_a_limit_and_a_refusing_function_end_the_reading(void **at)
{
    fixture *f = *at;
    find_query find;
    search_query q = { .find = &find, .limit = 3 };
    char label[16];
    int n = 0;

    for (unsigned i = 0; i < 10; i++) {
        snprintf(label, sizeof(label), "l%u", i);
        assert_ok(apply_one(f, "agent-a", i, i + 1, label, "tea"));
    }
    assert_ok(find_parse(MEMFS_STR("tea"), &find, &f->err));
    assert_ok(cache_search(f->cache, &q, count_row, &n, &f->err));
    assert_int_equal(n, 3);
    assert_code(cache_search(f->cache, &q, refuse, &n, &f->err), ELIMIT);
    assert_int_equal(n, 4);
}

static void test_D5_what_replaces_or_forgets_an_agent_leaves_no_word(void **at)
{
    fixture *f = *at;
    block_row row = row_of("new.md", "new", "block-1", "fresh");
    cache_change change = { row.path, &row };
    cache_update u = { .agent_id = MEMFS_STR("agent-a"),
                       .to = oid_of(2),
                       .replace_all = true,
                       .changes = &change,
                       .n_changes = 1 };
    bool has_changed;

    assert_ok(cache_rule(f->cache, MEMFS_STR("one"), &has_changed, &f->err));
    assert_ok(apply_one(f, "agent-a", 0, 1, "old", "stale"));
    assert_ok(apply_one(f, "agent-b", 0, 1, "old", "stale"));
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_found("", "", "stale", "agent-b:old.md");
    assert_found("", "", "fresh", "agent-a:new.md");
    assert_ok(cache_forget(f->cache, MEMFS_STR("agent-b"), &f->err));
    assert_found("", "", "stale", "");
    assert_ok(cache_check(f->cache, &f->err));
    assert_ok(cache_rule(f->cache, MEMFS_STR("two"), &has_changed, &f->err));
    assert_true(has_changed);
    assert_found("", "", "fresh", "");
    assert_ok(apply_one(f, "agent-a", 0, 3, "x", "again"));
    assert_found("", "", "again", "agent-a:x.md");
    assert_ok(cache_check(f->cache, &f->err));
}

/* ---- versions ---- */

static memfs_code add_past(fixture *f, unsigned from, unsigned to, unsigned tip, const char *path,
                           const char *words)
{
    memfs_oid from_oid = oid_of(from);
    version_row v = { .path = str_of(path),
                      .commit = oid_of(to),
                      .blob = oid_of(1000 + to),
                      .words = str_of(words) };
    past_update u = { .agent_id = MEMFS_STR("agent-a"),
                      .from = from != 0 ? &from_oid : NULL,
                      .to = oid_of(to),
                      .tip = oid_of(tip),
                      .versions = { &v, 1 } };

    return cache_past_add(f->cache, &u, &f->err);
}

static memfs_code join_versions(const version_row *v, void *ctx, memfs_error *err)
{
    memfs_buf *out = ctx;

    (void)err;
    buf_printf(out, "%s%.*s@%u", out->len > 0 ? " " : "", (int)v->path.len, v->path.ptr,
               v->commit.id[3]);
    assert_int_equal(v->blob.id[3], (uint8_t)(1000 + v->commit.id[3]));
    assert_true(str_equal(v->agent_id, MEMFS_STR("agent-a")));
    return MEMFS_OK;
}

static const char *versions(fixture *f, const char *path, int64_t before, int64_t limit)
{
    static __thread char out[1024];
    _cleanup_(buf_dispose) memfs_buf found = MEMFS_BUF_INIT(1 << 12);

    assert_ok(cache_versions(f->cache, MEMFS_STR("agent-a"), str_of(path), before, limit,
                             join_versions, &found, &f->err));
    snprintf(out, sizeof(out), "%s", found.ptr);
    return out;
}

static const char *search_past(fixture *f, const char *agent, const char *path, const char *text)
{
    static __thread char out[1024];
    _cleanup_(buf_dispose) memfs_buf found = MEMFS_BUF_INIT(1 << 12);
    find_query find;
    search_query q = {
        .agent_id = str_of(agent), .path = str_of(path), .find = &find, .limit = 100
    };

    assert_ok(find_parse(str_of(text), &find, &f->err));
    assert_ok(cache_search_past(f->cache, &q, join_versions, &found, &f->err));
    snprintf(out, sizeof(out), "%s", found.ptr);
    return out;
}

static memfs_code take_no(const version_row *v, void *ctx, memfs_error *err)
{
    (void)err;
    *(int64_t *)ctx = v->no;
    return MEMFS_OK;
}

static memfs_code join_ids(memfs_str id, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s ", (int)id.len, id.ptr);
    return MEMFS_OK;
}

static const char *behind(fixture *f)
{
    static __thread char out[256];
    _cleanup_(buf_dispose) memfs_buf found = MEMFS_BUF_INIT(1 << 12);

    assert_ok(cache_past_behind(f->cache, MEMFS_STR(""), 10, join_ids, &found, &f->err));
    snprintf(out, sizeof(out), "%s", found.ptr);
    return out;
}

static void test_versions_of_a_path_come_newest_first(void **at)
{
    fixture *f = *at;
    memfs_oid tip, three = oid_of(3);
    int64_t newest = 0;

    assert_string_equal(behind(f), "");
    assert_ok(apply_one(f, "agent-a", 0, 3, "x", "now"));
    assert_string_equal(behind(f), "agent-a ");
    assert_code(cache_past_tip(f->cache, MEMFS_STR("agent-a"), &tip, &f->err), ENOTFOUND);
    assert_string_equal(versions(f, "x.md", 0, 0), "");
    assert_ok(add_past(f, 0, 1, 3, "x.md", ""));
    assert_ok(add_past(f, 1, 2, 3, "y.md", ""));
    assert_ok(add_past(f, 2, 3, 3, "x.md", ""));
    assert_ok(cache_past_tip(f->cache, MEMFS_STR("agent-a"), &tip, &f->err));
    assert_true(oid_equal(&tip, &three));
    assert_string_equal(behind(f), "");
    assert_string_equal(versions(f, "x.md", 0, 0), "x.md@3 x.md@1");
    assert_string_equal(versions(f, "x.md", 0, 1), "x.md@3");
    assert_ok(cache_versions(f->cache, MEMFS_STR("agent-a"), MEMFS_STR("x.md"), 0, 1, take_no,
                             &newest, &f->err));
    assert_true(newest > 0);
    assert_string_equal(versions(f, "x.md", newest, 0), "x.md@1");
    assert_string_equal(versions(f, "x", 0, 0), "");
}

static void test_T28_versions_are_not_added_behind_a_tip_that_moved(void **at)
{
    fixture *f = *at;

    assert_code(add_past(f, 0, 1, 1, "x.md", "secret"), ECONFLICT); /* never synced */
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "now"));
    assert_code(add_past(f, 0, 1, 9, "x.md", "secret"), ECONFLICT);
    assert_code(add_past(f, 9, 1, 1, "x.md", "secret"), ECONFLICT);
    assert_ok(add_past(f, 0, 1, 1, "x.md", "alpha"));
    assert_code(add_past(f, 9, 2, 1, "x.md", "secret"), ECONFLICT);
    assert_string_equal(search_past(f, "", "", "secret"), "");
    assert_string_equal(search_past(f, "", "", "alpha"), "x.md@1");
    assert_ok(add_past(f, 0, 1, 1, "x.md", "beta")); /* from the beginning */
    assert_string_equal(search_past(f, "", "", "alpha"), "");
    assert_string_equal(search_past(f, "", "", "beta"), "x.md@1");
}

/* A step of main from one commit to another, with a row and a version of one path. */
static memfs_code apply_past(fixture *f, unsigned from, unsigned to, const char *path,
                             const char *words)
{
    memfs_oid from_oid = oid_of(from);
    version_row v = { .path = str_of(path),
                      .commit = oid_of(to),
                      .blob = oid_of(1000 + to),
                      .words = str_of(words) };
    block_row row = { .label = str_of(path), .value = MEMFS_STR("fresh"), .id = str_of(path) };
    cache_change change = { str_of(path), &row };
    version_list versions = { &v, 1 };
    cache_update u = { .agent_id = MEMFS_STR("agent-a"),
                       .from = &from_oid,
                       .to = oid_of(to),
                       .changes = &change,
                       .n_changes = 1,
                       .versions = &versions };

    return cache_apply(f->cache, &u, &f->err);
}

/* Where rows and versions are; 0: there are no versions. */
static void assert_at(fixture *f, unsigned tip, unsigned past)
{
    memfs_oid tip_oid = oid_of(tip), past_oid = oid_of(past), found;
    cache_tip now;

    assert_ok(cache_tip_get(f->cache, MEMFS_STR("agent-a"), &now, &f->err));
    assert_true(oid_equal(&now.commit, &tip_oid));
    assert_int_equal(now.is_followed, tip == past);
    if (past == 0) {
        assert_code(cache_past_tip(f->cache, MEMFS_STR("agent-a"), &found, &f->err), ENOTFOUND);
        return;
    }
    assert_ok(cache_past_tip(f->cache, MEMFS_STR("agent-a"), &found, &f->err));
    assert_true(oid_equal(&found, &past_oid));
}

static void test_K1_versions_of_new_commits_come_with_their_rows(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "now"));
    assert_at(f, 1, 0);
    assert_ok(add_past(f, 0, 1, 1, "x.md", ""));
    assert_at(f, 1, 1);
    assert_ok(apply_past(f, 1, 2, "x.md", "green tea"));
    assert_at(f, 2, 2);
    assert_ok(apply_past(f, 2, 3, "y.md", ""));
    assert_at(f, 3, 3);
    assert_string_equal(behind(f), "");
    assert_string_equal(versions(f, "x.md", 0, 0), "x.md@2 x.md@1");
    assert_string_equal(versions(f, "y.md", 0, 0), "y.md@3");
    assert_string_equal(search_past(f, "agent-a", "", "tea"), "x.md@2");
    assert_string_equal(search_past(f, "", "", "tea"), "x.md@2");
    assert_ok(cache_check(f->cache, &f->err));
}

/* A merge that decided nothing has no version, and the past goes with it all the same. */
static void test_versions_may_be_none_of_new_commits(void **at)
{
    fixture *f = *at;
    memfs_oid one = oid_of(1);
    version_list none = { NULL, 0 };
    cache_update u = {
        .agent_id = MEMFS_STR("agent-a"), .from = &one, .to = oid_of(2), .versions = &none
    };

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "now"));
    assert_ok(add_past(f, 0, 1, 1, "x.md", ""));
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_at(f, 2, 2);
    assert_string_equal(versions(f, "x.md", 0, 0), "x.md@1");
}

static void test_versions_that_are_not_at_the_tip_stay_where_they_are(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "now"));
    assert_ok(apply_past(f, 1, 2, "x.md", "tea")); /* nobody asked for them */
    assert_at(f, 2, 0);
    assert_string_equal(versions(f, "x.md", 0, 0), "");
    assert_ok(add_past(f, 0, 1, 2, "x.md", ""));
    assert_at(f, 2, 1);
    assert_ok(apply_past(f, 2, 3, "x.md", "tea"));
    assert_at(f, 3, 1);
    assert_string_equal(versions(f, "x.md", 0, 0), "x.md@1");
    assert_string_equal(search_past(f, "", "", "tea"), "");
    assert_string_equal(behind(f), "agent-a ");
}

static void test_D3_rows_that_came_too_late_bring_no_versions(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 2, "x", "now"));
    assert_ok(add_past(f, 0, 1, 2, "x.md", ""));
    assert_code(apply_past(f, 1, 3, "x.md", "tea"), ECONFLICT);
    assert_at(f, 2, 1);
    assert_found("", "", "fresh", "");
    assert_string_equal(versions(f, "x.md", 0, 0), "x.md@1");
}

/* The database refuses the versions of broken.md from here on. */
#ifdef OVER_POSTGRESQL
static void break_versions(fixture *f)
{
    char sql[] = "ALTER TABLE memfs.versions ADD CHECK (path <> 'broken.md'::bytea)";

    assert_ok(pg_work(pg, PG_ONE, make_database, sql, &f->err));
}
#else
static void break_versions(fixture *f)
{
    char path[128];
    sqlite3 *db;

    snprintf(path, sizeof(path), "%s/cache.db", f->root);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "CREATE TRIGGER broken BEFORE INSERT ON versions WHEN "
                                  "CAST(new.path AS TEXT) = 'broken.md' BEGIN "
                                  "SELECT RAISE(ABORT, 'broken'); END",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}
#endif

static void test_D3_rows_and_versions_are_written_both_or_not_at_all(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "now"));
    assert_ok(add_past(f, 0, 1, 1, "x.md", ""));
    break_versions(f);
    assert_true(apply_past(f, 1, 2, "broken.md", "tea") < 0);
    assert_at(f, 1, 1);
    assert_found("", "", "fresh", "");
    assert_string_equal(versions(f, "broken.md", 0, 0), "");
    assert_ok(apply_past(f, 1, 2, "x.md", "tea"));
    assert_at(f, 2, 2);
}

static void test_words_that_went_are_found_by_the_version_that_took_them(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 4, "x", "now"));
    assert_ok(apply_one(f, "agent-b", 0, 4, "x", "now"));
    assert_ok(add_past(f, 0, 1, 4, "notes/a.md", ""));
    assert_ok(add_past(f, 1, 2, 4, "notes/a.md", "green tea"));
    assert_ok(add_past(f, 2, 3, 4, "b.md", "teapot"));
    assert_ok(add_past(f, 3, 4, 4, "notes/a.md", "tea milk"));
    assert_string_equal(search_past(f, "", "", "tea"), "notes/a.md@4 notes/a.md@2");
    assert_string_equal(search_past(f, "agent-a", "", "tea*"), "notes/a.md@4 b.md@3 notes/a.md@2");
    assert_string_equal(search_past(f, "agent-a", "b.md", "tea*"), "b.md@3");
    assert_string_equal(search_past(f, "agent-a", "notes", "green tea"), "notes/a.md@2");
    assert_string_equal(search_past(f, "agent-b", "", "tea"), "");
    assert_string_equal(search_past(f, "agent-c", "", "tea"), "");
    assert_ok(cache_check(f->cache, &f->err));
}

static void test_D5_rows_made_anew_drop_the_versions(void **at)
{
    fixture *f = *at;
    cache_update u = { .agent_id = MEMFS_STR("agent-a"), .to = oid_of(1), .replace_all = true };
    memfs_oid tip;

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "now"));
    assert_ok(add_past(f, 0, 1, 1, "x.md", "tea"));
    assert_ok(apply_one(f, "agent-a", 1, 2, "x", "then"));
    assert_string_equal(search_past(f, "", "", "tea"), "x.md@1"); /* a step leaves them */
    assert_string_equal(behind(f), "agent-a ");
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_string_equal(search_past(f, "", "", "tea"), "");
    assert_string_equal(versions(f, "x.md", 0, 0), "");
    assert_code(cache_past_tip(f->cache, MEMFS_STR("agent-a"), &tip, &f->err), ENOTFOUND);
    assert_ok(add_past(f, 0, 1, 1, "x.md", "tea"));
    assert_ok(cache_forget(f->cache, MEMFS_STR("agent-a"), &f->err));
    assert_string_equal(search_past(f, "", "", "tea"), "");
    assert_ok(cache_check(f->cache, &f->err));
}

/* ---- damage, and what was deleted ---- */

#ifdef OVER_POSTGRESQL
static memfs_code run_sql(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    return pg_exec(c, ctx, &r, err);
}

static void spoil(fixture *f)
{
    char sql[] = "UPDATE blocks SET words = '''_1'' ''milk'''";

    assert_ok(pg_work(pg, PG_ONE, run_sql, sql, &f->err));
}
#else
static void spoil(fixture *f)
{
    close_cache(f);
    meddle(f, "cache.db", "UPDATE blocks SET words = '_1 milk'");
    open_cache(f);
}

/* A word that is in the index, but in no row. */
static void test_an_index_that_is_not_its_rows_shows(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "tea"));
    close_cache(f);
    meddle(f, "cache.db", "INSERT INTO block_words(rowid, words) VALUES(1, 'ghost')");
    open_cache(f);
    assert_code(cache_check(f->cache, &f->err), ECORRUPT);
}

static bool has_bytes(fixture *f, const char *name, const char *bytes)
{
    _cleanup_(buf_dispose) memfs_buf all = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    if (fs_read(in_root(f, name), &all, &f->err) < 0)
        return false;
    return memmem(all.ptr, all.len, bytes, strlen(bytes)) != NULL;
}

static void test_T28_scrubbing_takes_deleted_words_out_of_the_files(void **at)
{
    fixture *f = *at;
    cache_update u = { .agent_id = MEMFS_STR("agent-a"), .to = oid_of(3), .replace_all = true };

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "zzsecretzz tea"));
    assert_ok(apply_one(f, "agent-a", 1, 2, "y", "tea"));
    assert_ok(add_past(f, 0, 1, 2, "x.md", "qqsecretqq"));
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_ok(cache_scrub(f->cache, &f->err));
    assert_ok(cache_check(f->cache, &f->err));
    assert_false(has_bytes(f, "cache.db", "zsecretz"));
    assert_false(has_bytes(f, "cache.db-wal", "zsecretz"));
    assert_false(has_bytes(f, "cache.db", "qsecretq"));
    assert_false(has_bytes(f, "cache.db-wal", "qsecretq"));
}
#endif

static void test_a_row_whose_words_are_not_its_texts_shows(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "tea"));
    assert_ok(cache_check(f->cache, &f->err));
    spoil(f);
    assert_code(cache_check(f->cache, &f->err), ECORRUPT);
}

#define cached(test) cmocka_unit_test_setup_teardown(test, setup_cache, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cached(test_K1_words_come_and_go_with_their_row),
        cached(test_S1_a_search_of_one_agent_finds_nothing_of_others),
        cached(test_beginnings_of_words),
        cached(test_words_of_all_scripts_are_found),
        cached(test_rows_without_any_word_are_rows),
        cached(test_a_path_is_a_file_or_a_folder),
        cached(test_hidden_blocks_are_found_when_asked_for),
        cached(test_a_limit_and_a_refusing_function_end_the_reading),
        cached(test_D5_what_replaces_or_forgets_an_agent_leaves_no_word),
        cached(test_versions_of_a_path_come_newest_first),
        cached(test_T28_versions_are_not_added_behind_a_tip_that_moved),
        cached(test_K1_versions_of_new_commits_come_with_their_rows),
        cached(test_versions_may_be_none_of_new_commits),
        cached(test_versions_that_are_not_at_the_tip_stay_where_they_are),
        cached(test_D3_rows_that_came_too_late_bring_no_versions),
        cached(test_D3_rows_and_versions_are_written_both_or_not_at_all),
        cached(test_words_that_went_are_found_by_the_version_that_took_them),
        cached(test_D5_rows_made_anew_drop_the_versions),
        cached(test_a_row_whose_words_are_not_its_texts_shows),
#ifndef OVER_POSTGRESQL
        cached(test_an_index_that_is_not_its_rows_shows),
        cached(test_T28_scrubbing_takes_deleted_words_out_of_the_files),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
