#include "cache_fixture.h"

#include "cache/sqlite_schema.h"
#include "cache/sqlite_shape.h"
#include "cache/sqlite_tags.h"

/* ---- rows ---- */

static memfs_code check_full_row(const block_row *row, void *ctx, memfs_error *err)
{
    const block_row *want = ctx;

    (void)err;
    assert_true(str_equal(row->agent_id, MEMFS_STR("agent-a")));
    assert_true(str_equal(row->path, want->path));
    assert_true(str_equal(row->label, want->label));
    assert_true(str_equal(row->id, want->id));
    assert_true(str_equal(row->value, want->value));
    assert_int_equal(row->has_description, want->has_description);
    assert_true(str_equal(row->description, want->description));
    assert_int_equal(row->limit, want->limit);
    assert_int_equal(row->read_only, want->read_only);
    assert_true(str_equal(row->metadata_json, want->metadata_json));
    assert_true(str_equal(row->tags_json, want->tags_json));
    assert_int_equal(row->hidden, want->hidden);
    assert_true(str_equal(row->problem, want->problem));
    assert_true(oid_equal(&row->blob, &want->blob));
    assert_int_equal(row->bytes, want->bytes);
    assert_int_equal(row->created_at_us, want->created_at_us);
    assert_int_equal(row->updated_at_us, want->updated_at_us);
    return MEMFS_OK;
}

static void assert_kept(fixture *f, const block_row *row)
{
    cache_change change = { row->path, row };
    cache_update u = { .agent_id = MEMFS_STR("agent-a"),
                       .to = oid_of(1),
                       .replace_all = true,
                       .changes = &change,
                       .n_changes = 1 };
    block_query one = { .agent_id = u.agent_id, .label = row->label, .show_hidden = true };
    block_query all = { .show_hidden = true };
    int64_t n;

    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_ok(cache_blocks(f->cache, &one, check_full_row, (void *)row, &f->err));
    assert_ok(cache_blocks(f->cache, &all, check_full_row, (void *)row, &f->err));
    assert_ok(cache_count(f->cache, &one, &n, &f->err));
    assert_int_equal(n, 1);
}

static void test_K4_every_field_comes_back_as_it_was(void **at)
{
    fixture *f = *at;
    block_row row = row_of("system/human.md", "system/human", "block-1", "Likes tea.");

    row.read_only = true;
    row.hidden = true;
    row.metadata_json = MEMFS_STR("{\"a\":[1,null]}");
    row.tags_json = MEMFS_STR("[\"x\",\"y\"]");
    row.problem = MEMFS_STR("line 2: expected ':'");
    row.limit = INT64_C(9000000000000);
    row.created_at_us = INT64_C(1767322985678901);
    row.updated_at_us = -1;
    assert_kept(f, &row);
}

static void test_K4_empty_text_is_a_value_and_not_absence(void **at)
{
    fixture *f = *at;
    block_row row = row_of("a.md", "a", "block-1", "");

    row.description = MEMFS_STR("");
    assert_kept(f, &row);
    row.has_description = false;
    assert_kept(f, &row);
}

static void test_K5_values_of_any_bytes_and_sizes_come_back(void **at)
{
    static const size_t sizes[] = { 1, 900, 4000, 4096, 5000, 70000, 1 << 20 };
    fixture *f = *at;
    block_row row = row_of("\xff\n.md", "\xff\n", "block-1", "");
    char *text = mem_alloc(1 << 20);

    for (size_t i = 0; i < 1 << 20; i++)
        text[i] = (char)(i * 31);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        row.value = str_make(text, sizes[i]);
        assert_kept(f, &row);
    }
    row.value = str_make("a\0b", 3);
    assert_kept(f, &row);
    free(text);
}

/* ---- tips ---- */

static void test_K1_an_older_commit_never_overwrites_a_newer_one(void **at)
{
    fixture *f = *at;
    cache_tip tip;
    memfs_oid three = oid_of(3);

    assert_code(cache_tip_get(f->cache, MEMFS_STR("agent-a"), &tip, &f->err), ENOTFOUND);
    assert_code(apply_one(f, "agent-a", 1, 2, "x", "too early"), ECONFLICT);
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    assert_code(apply_one(f, "agent-a", 0, 2, "x", "again the first"), ECONFLICT);
    assert_ok(apply_one(f, "agent-a", 1, 2, "x", "two"));
    assert_ok(apply_one(f, "agent-a", 2, 3, "x", "three"));
    assert_code(apply_one(f, "agent-a", 1, 2, "x", "stale"), ECONFLICT);
    assert_string_equal(value_of(f, "agent-a", "x"), "three");
    assert_ok(cache_tip_get(f->cache, MEMFS_STR("agent-a"), &tip, &f->err));
    assert_true(oid_equal(&tip.commit, &three));
}

static void test_K1_generations_count_up_and_never_repeat(void **at)
{
    fixture *f = *at;
    cache_tip a, b, again;
    int64_t all[3];

    assert_ok(cache_generation(f->cache, &all[0], &f->err));
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    assert_ok(cache_tip_get(f->cache, MEMFS_STR("agent-a"), &a, &f->err));
    assert_ok(apply_one(f, "agent-b", 0, 1, "x", "one"));
    assert_ok(cache_tip_get(f->cache, MEMFS_STR("agent-a"), &again, &f->err));
    assert_int_equal(again.generation, a.generation); /* not touched by another's change */
    assert_ok(cache_tip_get(f->cache, MEMFS_STR("agent-b"), &b, &f->err));
    assert_true(b.generation > a.generation);
    assert_ok(cache_generation(f->cache, &all[1], &f->err));
    assert_true(all[1] > all[0]);
    assert_ok(cache_forget(f->cache, MEMFS_STR("agent-a"), &f->err));
    assert_code(cache_tip_get(f->cache, MEMFS_STR("agent-a"), &a, &f->err), ENOTFOUND);
    assert_ok(cache_generation(f->cache, &all[2], &f->err));
    assert_true(all[2] > all[1]);
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    assert_ok(cache_tip_get(f->cache, MEMFS_STR("agent-a"), &again, &f->err));
    assert_true(again.generation > b.generation);

    close_cache(f); /* and a cache that is made anew does not start where the old one did */
    remove_cache(f);
    open_cache(f);
    assert_ok(cache_generation(f->cache, &all[0], &f->err));
    assert_true(all[0] < a.generation || all[0] > all[2]);
}

static void test_K7_from_a_tip_to_itself_writes_nothing(void **at)
{
    fixture *f = *at;
    memfs_oid tip = oid_of(1);
    cache_update u = { .agent_id = MEMFS_STR("agent-a"), .from = &tip, .to = tip };
    int64_t before, after;
    int64_t trace;

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    assert_ok(cache_generation(f->cache, &before, &f->err));
    trace = trace_of_writes(f);
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_ok(cache_forget(f->cache, MEMFS_STR("agent-unknown"), &f->err));
    assert_ok(cache_generation(f->cache, &after, &f->err));
    assert_int_equal(before, after);
    assert_int_equal(trace_of_writes(f), trace);
    u.to = oid_of(2); /* a commit that touched no block still moves the tip */
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_ok(cache_generation(f->cache, &after, &f->err));
    assert_true(after > before);
}

static void test_K2_deletes_and_renames_follow_to_the_last_row(void **at)
{
    fixture *f = *at;
    memfs_oid one = oid_of(1);
    block_row moved = row_of("new.md", "new", "block-x", "text");
    cache_change rename[] = { { moved.path, &moved }, { MEMFS_STR("old.md"), NULL } };
    cache_update u = { .agent_id = MEMFS_STR("agent-a"),
                       .from = &one,
                       .to = oid_of(2),
                       .changes = rename,
                       .n_changes = 2 };
    block_query q = { .agent_id = MEMFS_STR("agent-a") };
    int64_t n;

    assert_ok(apply_one(f, "agent-a", 0, 1, "old", "text"));
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_string_equal(value_of(f, "agent-a", "old"), "(absent)");
    assert_string_equal(value_of(f, "agent-a", "new"), "text");
    assert_ok(apply_one(f, "agent-a", 2, 3, "never was", NULL));
    assert_ok(apply_one(f, "agent-a", 3, 4, "new", NULL));
    assert_ok(cache_count(f->cache, &q, &n, &f->err));
    assert_int_equal(n, 0);
}

static void test_K3_another_agents_rows_stay(void **at)
{
    fixture *f = *at;

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "of a"));
    assert_ok(apply_one(f, "agent-b", 0, 1, "x", "of b"));
    assert_ok(apply_one(f, "agent-a", 1, 2, "x", NULL));
    assert_string_equal(value_of(f, "agent-b", "x"), "of b");
    assert_ok(cache_forget(f->cache, MEMFS_STR("agent-a"), &f->err));
    assert_string_equal(value_of(f, "agent-b", "x"), "of b");
}

static void test_D5_replace_all_leaves_nothing_of_before(void **at)
{
    fixture *f = *at;
    block_row row = row_of("only.md", "only", "block-o", "text");
    cache_change change = { row.path, &row };
    memfs_oid wrong = oid_of(77);
    cache_update u = { .agent_id = MEMFS_STR("agent-a"),
                       .to = oid_of(9),
                       .replace_all = true,
                       .changes = &change,
                       .n_changes = 1 };
    block_query q = { .agent_id = MEMFS_STR("agent-a") };

    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    assert_ok(apply_one(f, "agent-a", 1, 2, "y", "two"));
    u.from = &wrong; /* a tip that is named is compared also then */
    assert_code(cache_apply(f->cache, &u, &f->err), ECONFLICT);
    u.from = NULL;
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_labels(&q, "only");
}

static void test_rows_of_a_large_change_are_all_there(void **at)
{
    enum { N = 3000 };
    fixture *f = *at;
    static block_row rows[N];
    static cache_change changes[N];
    static char names[N][3][32];
    cache_update u = {
        .agent_id = MEMFS_STR("agent-a"), .to = oid_of(1), .changes = changes, .n_changes = N
    };
    block_query q = { .agent_id = u.agent_id };
    int64_t n;

    for (int i = 0; i < N; i++) {
        snprintf(names[i][0], 32, "topic/%04d.md", i);
        snprintf(names[i][1], 32, "topic/%04d", i);
        snprintf(names[i][2], 32, "block-%04d", (i * 7919) % N);
        rows[i] = row_of(names[i][0], names[i][1], names[i][2], "text of a block");
        changes[i] = (cache_change){ rows[i].path, &rows[i] };
    }
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_ok(cache_count(f->cache, &q, &n, &f->err));
    assert_int_equal(n, N);
    q.limit = 3;
    q.order = BLOCK_ORDER_PATH;
    assert_labels(&q, "topic/0000 topic/0001 topic/0002");
    q.before = MEMFS_STR("block-0000");
    q.descending = true;
    assert_labels(&q, "topic/2999 topic/2998 topic/2997");
    assert_ok(cache_check(f->cache, &f->err));
}

static void test_a_change_of_settings_drops_what_was_made_under_others(void **at)
{
    fixture *f = *at;
    bool has_changed = true;
    int64_t before, after;
    cache_tip tip;

    assert_ok(cache_rule(f->cache, MEMFS_STR("f=1;prefixes="), &has_changed, &f->err));
    assert_false(has_changed); /* the first of a new cache */
    assert_ok(apply_one(f, "agent-a", 0, 1, "x", "one"));
    close_cache(f);
    open_cache(f);
    assert_ok(cache_rule(f->cache, MEMFS_STR("f=1;prefixes="), &has_changed, &f->err));
    assert_false(has_changed);
    assert_string_equal(value_of(f, "agent-a", "x"), "one");
    assert_ok(cache_generation(f->cache, &before, &f->err));
    assert_ok(cache_rule(f->cache, MEMFS_STR("f=1;prefixes=system/"), &has_changed, &f->err));
    assert_true(has_changed);
    assert_string_equal(value_of(f, "agent-a", "x"), "(absent)");
    assert_code(cache_tip_get(f->cache, MEMFS_STR("agent-a"), &tip, &f->err), ENOTFOUND);
    assert_ok(cache_generation(f->cache, &after, &f->err));
    assert_true(after > before);
}

/* ---- order, pages, filters (http-api 1.6, 5.2, 6.1) ---- */

/* created: b 1, then a and c 2; ids in another order: c, b, a; paths: a, b, c */
static void put_three(fixture *f)
{
    block_row rows[] = {
        row_of("a.md", "a", "block-3", "Alpha tea"),
        row_of("b.md", "b", "block-2", "beta TEA"),
        row_of("c.md", "c", "block-1", "gamma"),
    };
    cache_change changes[3];
    cache_update u = {
        .agent_id = MEMFS_STR("agent-a"), .to = oid_of(1), .changes = changes, .n_changes = 3
    };

    rows[0].created_at_us = rows[2].created_at_us = 2;
    rows[1].created_at_us = 1;
    rows[0].tags_json = MEMFS_STR("[\"red\",\"blue\"]");
    rows[1].tags_json = MEMFS_STR("[\"red\"]");
    rows[1].has_description = false;
    rows[2].description = MEMFS_STR("100% sure");
    rows[2].hidden = true;
    for (int i = 0; i < 3; i++)
        changes[i] = (cache_change){ rows[i].path, &rows[i] };
    assert_ok(cache_apply(f->cache, &u, &f->err));
}

static void assert_tag_lists(fixture *f, unsigned n, const char *one, const char *other)
{
    tag_lists lists = { MEMFS_BUF_INIT(1 << 16), 0 };

    assert_ok(cache_tag_lists(f->cache, join_tag_list, &lists, &f->err));
    assert_int_equal(lists.n, n);
    assert_true(n < 1 || tag_lists_have(&lists, one));
    assert_true(n < 2 || tag_lists_have(&lists, other));
    buf_dispose(&lists.text);
}

static void test_9_each_list_of_tags_of_blocks_is_told_once_and_goes_with_the_last(void **at)
{
    fixture *f = *at;
    cache_change gone = { MEMFS_STR("a.md"), NULL };
    memfs_oid one = oid_of(1);
    cache_update u = { .agent_id = MEMFS_STR("agent-a"),
                       .from = &one,
                       .to = oid_of(2),
                       .changes = &gone,
                       .n_changes = 1 };
    block_row row = row_of("d.md", "d", "block-4", "");
    cache_change added = { row.path, &row };
    cache_update other = {
        .agent_id = MEMFS_STR("agent-b"), .to = oid_of(3), .changes = &added, .n_changes = 1
    };

    assert_tag_lists(f, 0, "", "");
    put_three(f);
    assert_tag_lists(f, 2, "[\"red\",\"blue\"] ", "[\"red\"] ");
    row.tags_json = MEMFS_STR("[\"red\"]");
    assert_ok(cache_apply(f->cache, &other, &f->err));
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_tag_lists(f, 1, "[\"red\"] ", "");
    assert_ok(cache_empty(f->cache, MEMFS_STR("agent-a"), &f->err)); /* it was deleted */
    assert_tag_lists(f, 1, "[\"red\"] ", "");
    assert_ok(cache_forget(f->cache, MEMFS_STR("agent-b"), &f->err));
    assert_tag_lists(f, 0, "", "");
}

static void test_blocks_come_in_the_order_asked_for(void **at)
{
    fixture *f = *at;
    static const struct {
        block_order order;
        bool descending;
        const char *labels;
    } cases[] = {
        { BLOCK_ORDER_CREATED, false, "b c a" }, { BLOCK_ORDER_CREATED, true, "a c b" },
        { BLOCK_ORDER_ID, false, "c b a" },      { BLOCK_ORDER_ID, true, "a b c" },
        { BLOCK_ORDER_PATH, false, "a b c" },    { BLOCK_ORDER_PATH, true, "c b a" },
    };

    put_three(f);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        block_query q = { .show_hidden = true,
                          .order = cases[i].order,
                          .descending = cases[i].descending };

        assert_labels(&q, cases[i].labels);
        q.agent_id = MEMFS_STR("agent-a");
        assert_labels(&q, cases[i].labels);
        q.agent_id = MEMFS_STR("agent-other");
        assert_labels(&q, "");
    }
}

static void test_pages_are_relative_to_the_order(void **at)
{
    fixture *f = *at;
    block_query q = { .show_hidden = true };

    put_three(f);
    q.after = MEMFS_STR("block-1"); /* c */
    assert_labels(&q, "a");
    q.descending = true; /* older than c */
    assert_labels(&q, "b");
    q.after = MEMFS_STR("");
    q.before = MEMFS_STR("block-1");
    assert_labels(&q, "a");
    q.descending = false;
    assert_labels(&q, "b");
    q.after = MEMFS_STR("block-2");
    q.before = MEMFS_STR("block-3");
    assert_labels(&q, "c");
    q.limit = 1;
    q.before = MEMFS_STR("");
    assert_labels(&q, "c");
    q.after = MEMFS_STR("block-3");
    assert_labels(&q, ""); /* where the SDK stops */
}

static void test_an_unknown_cursor_is_ignored_but_by_id_it_is_a_place(void **at)
{
    fixture *f = *at;
    block_query q = { .show_hidden = true, .after = MEMFS_STR("block-15") };

    put_three(f);
    assert_labels(&q, "b c a");
    q.order = BLOCK_ORDER_PATH;
    assert_labels(&q, "a b c");
    q.order = BLOCK_ORDER_ID;
    assert_labels(&q, "b a");
    q.before = MEMFS_STR("block-25");
    assert_labels(&q, "b");
}

static void test_filters(void **at)
{
    fixture *f = *at;
    memfs_str red_blue[] = { MEMFS_STR("red"), MEMFS_STR("blue") };
    memfs_str red_red[] = { MEMFS_STR("red"), MEMFS_STR("red") };
    memfs_str quote[] = { MEMFS_STR("\"' OR 1=1 --") };
    const struct {
        const char *labels;
        block_query q;
    } cases[] = {
        { "b a", { .show_hidden = false } },
        { "b c a", { .show_hidden = true } },
        { "c", { .label = MEMFS_STR("c"), .show_hidden = true } },
        { "", { .label = MEMFS_STR("C"), .show_hidden = true } },
        { "", { .label = MEMFS_STR("c") } },
        { "b", { .id = MEMFS_STR("block-2") } },
        { "", { .id = MEMFS_STR("block-2"), .agent_id = MEMFS_STR("agent-b") } },
        { "", { .id = MEMFS_STR("block-2"), .label = MEMFS_STR("a") } },
        { "b a", { .value_search = MEMFS_STR("tea") } },
        { "a", { .value_search = MEMFS_STR("alpha%T_A") } },
        { "c", { .description_search = MEMFS_STR("0%"), .show_hidden = true } },
        { "a", { .description_search = MEMFS_STR("ABOUT") } }, /* null matches nothing */
        { "a", { .label_search = MEMFS_STR("A") } },
        { "b a", { .tags = red_blue, .n_tags = 2 } },
        { "a", { .tags = red_blue, .n_tags = 2, .match_all_tags = true } },
        { "b a", { .tags = red_blue, .n_tags = 1, .match_all_tags = true } },
        { "b a", { .tags = red_red, .n_tags = 2 } },
        { "", { .tags = red_red, .n_tags = 2, .match_all_tags = true } }, /* http-api 6.1 */
        { "", { .tags = quote, .n_tags = 1 } },
        { "", { .label = quote[0] } },
        { "", { .value_search = quote[0] } },
    };

    put_three(f);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t n;

        assert_labels(&cases[i].q, cases[i].labels);
        assert_ok(cache_count(f->cache, &cases[i].q, &n, &f->err));
        assert_int_equal(n, (strlen(cases[i].labels) + 1) / 2);
    }
}

static memfs_code put_one(fixture *f, const char *agent_id, const char *label, const char *id)
{
    char path[64];
    block_row row;
    cache_change change;
    const cache_update u = {
        .agent_id = str_of(agent_id), .to = oid_of(1), .changes = &change, .n_changes = 1
    };

    snprintf(path, sizeof(path), "%s.md", label);
    row = row_of(path, label, id, "text");
    change = (cache_change){ row.path, &row };
    return cache_apply(f->cache, &u, &f->err);
}

static void test_6_1_6_2_copies_of_a_block_are_one_and_are_counted_by_their_agents(void **at)
{
    fixture *f = *at;
    static const int64_t none_or_three[] = { 0, 3 };
    block_agent_count how_many = { .most = INT64_MAX, .nobody = MEMFS_STR("nobody") };
    block_query q = { .agents = &how_many, .order = BLOCK_ORDER_ID };
    int64_t n;

    assert_ok(put_one(f, "agent-a", "a", "block-1"));
    assert_ok(put_one(f, "agent-b", "b", "block-1"));
    assert_ok(put_one(f, "agent-c", "c", "block-2"));
    assert_ok(put_one(f, "nobody", "d", "block-3"));
    assert_ok(cache_count(f->cache, &q, &n, &f->err));
    assert_int_equal(n, 3);
    how_many.least = 1;
    assert_labels(&q, "a b c");
    how_many.most = 1;
    assert_labels(&q, "c");
    how_many.least = 2, how_many.most = 5;
    assert_labels(&q, "a b");
    q.label = MEMFS_STR("b"); /* whatever else is asked, both count */
    assert_labels(&q, "b");
    q.label = MEMFS_STR("");
    how_many = (block_agent_count){
        .most = 2, .any_of = none_or_three, .n = 2, .nobody = how_many.nobody
    };
    assert_labels(&q, "d");
    assert_ok(cache_count(f->cache, &q, &n, &f->err));
    assert_int_equal(n, 1);
}

static void test_a_search_of_more_than_1024_characters_is_refused(void **at)
{
    fixture *f = *at;
    char text[1100];
    block_query q = { .value_search = str_make(text, sizeof(text)) };
    int64_t n;

    memset(text, 'x', sizeof(text));
    assert_code(cache_blocks(f->cache, &q, join_labels, NULL, &f->err), ELIMIT);
    assert_code(cache_count(f->cache, &q, &n, &f->err), ELIMIT);
}

/* ---- the row function ---- */

static memfs_code stop_at_second(const block_row *row, void *ctx, memfs_error *err)
{
    (void)row;
    if (++*(int *)ctx == 2)
        return memfs_fail(err, MEMFS_EDENIED, "enough");
    return MEMFS_OK;
}

static void test_a_refusing_row_function_ends_the_reading(void **at)
{
    fixture *f = *at;
    block_query q = { .show_hidden = true };
    int n = 0;

    put_three(f);
    assert_code(cache_blocks(f->cache, &q, stop_at_second, &n, &f->err), EDENIED);
    assert_int_equal(n, 2);
    assert_string_equal(f->err.msg, "enough");
    assert_labels(&q, "b c a"); /* the same query works again */
}

static memfs_code read_again(const block_row *row, void *ctx, memfs_error *err)
{
    fixture *f = ctx;
    block_query q = { .show_hidden = true };
    memfs_str agent = MEMFS_STR("agent-a");
    cache_tip tip;

    (void)row;
    (void)err;
    assert_labels(&q, "b c a");
    assert_ok(cache_tip_get(f->cache, agent, &tip, &f->err));
    return MEMFS_OK;
}

static void test_a_row_function_may_read_from_the_same_cache(void **at)
{
    fixture *f = *at;
    block_query q = { .show_hidden = true, .agent_id = MEMFS_STR("agent-a") };
    cache_tip tip;

    put_three(f);
    assert_ok(cache_agent_blocks(f->cache, &q, &tip, read_again, f, &f->err));
    q.agent_id = MEMFS_STR("");
    assert_ok(cache_blocks(f->cache, &q, read_again, f, &f->err));
}

static void test_blocks_of_an_agent_that_was_never_synced_are_not_found(void **at)
{
    fixture *f = *at;
    block_query q = { .agent_id = MEMFS_STR("agent-a") };
    cache_tip tip;

    assert_code(cache_agent_blocks(f->cache, &q, &tip, join_labels, NULL, &f->err), ENOTFOUND);
}

/* ---- against a naive model ---- */

#define MODEL_N 60
typedef struct model_row {
    char agent[16], label[16], path[20], id[16], value[24], description[24];
    bool has_description, hidden, tags[3];
    int64_t created_at_us;
} model_row;
static model_row model[MODEL_N];
static size_t n_model;
static const char *const TAGS[3] = { "red", "green", "blue" };

static unsigned seed = 20261121;
static unsigned dice(unsigned sides)
{
    seed = seed * 1103515245 + 12345;
    return (seed >> 16) % sides;
}

static void random_text(char *out, size_t max)
{
    size_t n = dice((unsigned)max);

    for (size_t i = 0; i < n; i++)
        out[i] = "abAB"[dice(4)];
    out[n] = '\0';
}

static void make_model(fixture *f)
{
    n_model = 0;
    for (unsigned a = 0; a < 3; a++) {
        block_row rows[MODEL_N / 3];
        cache_change changes[MODEL_N / 3];
        char tags[MODEL_N / 3][40];
        model_row *first = &model[n_model];

        for (unsigned i = 0; i < MODEL_N / 3; i++, n_model++) {
            model_row *m = &model[n_model];

            snprintf(m->agent, sizeof(m->agent), "agent-%u", a);
            char label[16];

            snprintf(label, sizeof(label), "%c%c%u", 'a' + dice(3), 'A' + dice(3), i);
            memcpy(m->label, label, sizeof(label));
            snprintf(m->path, sizeof(m->path), "%s.md", label);
            snprintf(m->id, sizeof(m->id), "block-%03u", (unsigned)((n_model * 37) % MODEL_N) * 2);
            random_text(m->value, sizeof(m->value));
            random_text(m->description, sizeof(m->description));
            m->has_description = dice(4) != 0;
            m->hidden = dice(4) == 0;
            m->created_at_us = dice(8);
            size_t at = 0;
            at += (size_t)snprintf(tags[i], sizeof(tags[i]), "[");
            for (unsigned t = 0; t < 3; t++) {
                m->tags[t] = dice(2) == 0;
                if (m->tags[t])
                    at += (size_t)snprintf(tags[i] + at, sizeof(tags[i]) - at, "%s\"%s\"",
                                           at > 1 ? "," : "", TAGS[t]);
            }
            snprintf(tags[i] + at, sizeof(tags[i]) - at, "]");
            rows[i] = row_of(m->path, m->label, m->id, m->value);
            rows[i].has_description = m->has_description;
            rows[i].description = str_of(m->description);
            rows[i].hidden = m->hidden;
            rows[i].created_at_us = m->created_at_us;
            rows[i].tags_json = str_of(tags[i]);
            changes[i] = (cache_change){ rows[i].path, &rows[i] };
        }
        cache_update u = { .agent_id = str_of(first->agent),
                           .to = oid_of(1),
                           .changes = changes,
                           .n_changes = MODEL_N / 3 };
        assert_ok(cache_apply(f->cache, &u, &f->err));
    }
}

/* LIKE by its definition: slow, recursive, ASCII. */
static bool naive_like(const char *p, const char *s)
{
    if (*p == '\0')
        return *s == '\0';
    if (*p == '%')
        return naive_like(p + 1, s) || (*s != '\0' && naive_like(p, s + 1));
    return *s != '\0' && (*p == '_' || (*p | 32) == (*s | 32)) && naive_like(p + 1, s + 1);
}

static bool naive_contains(memfs_str pattern, const char *text)
{
    char wrapped[64];

    snprintf(wrapped, sizeof(wrapped), "%%%.*s%%", (int)pattern.len, pattern.ptr);
    return naive_like(wrapped, text);
}

static bool has_tags(const model_row *m, const block_query *q)
{
    size_t n = 0;

    for (size_t t = 0; t < 3; t++) {
        bool is_asked = false;

        for (size_t i = 0; i < q->n_tags; i++)
            is_asked = is_asked || str_equal(q->tags[i], str_of(TAGS[t]));
        n += is_asked && m->tags[t];
    }
    return q->match_all_tags ? n == q->n_tags : n > 0;
}

static int compare(const block_query *q, const model_row *a, const model_row *b)
{
    int order = 0;

    if (q->order == BLOCK_ORDER_CREATED)
        order = (a->created_at_us > b->created_at_us) - (a->created_at_us < b->created_at_us);
    else if (q->order == BLOCK_ORDER_PATH)
        order = strcmp(a->path, b->path);
    if (order == 0)
        order = strcmp(a->id, b->id);
    return q->descending ? -order : order;
}

static bool passes_cursor(const block_query *q, const model_row *m, memfs_str id, bool is_after)
{
    model_row place = { .id = "" };
    bool is_known = false;
    int order;

    if (id.len == 0)
        return true;
    for (size_t i = 0; i < n_model; i++) {
        if (str_equal(str_of(model[i].id), id)) {
            place = model[i];
            is_known = true;
        }
    }
    if (!is_known && q->order != BLOCK_ORDER_ID)
        return true;
    snprintf(place.id, sizeof(place.id), "%.*s", (int)id.len, id.ptr);
    order = compare(q, m, &place);
    return is_after ? order > 0 : order < 0;
}

static bool passes(const block_query *q, const model_row *m)
{
    if (q->agent_id.len > 0 && !str_equal(q->agent_id, str_of(m->agent)))
        return false;
    if (q->label.len > 0 && !str_equal(q->label, str_of(m->label)))
        return false;
    if (q->id.len > 0 && !str_equal(q->id, str_of(m->id)))
        return false;
    if (q->label_search.len > 0 && !naive_contains(q->label_search, m->label))
        return false;
    if (q->value_search.len > 0 && !naive_contains(q->value_search, m->value))
        return false;
    if (q->description_search.len > 0 &&
        !(m->has_description && naive_contains(q->description_search, m->description)))
        return false;
    if (q->n_tags > 0 && !has_tags(m, q))
        return false;
    return q->show_hidden || !m->hidden;
}

static void naive_blocks(const block_query *q, memfs_buf *out, int64_t *ret_n)
{
    const model_row *found[MODEL_N];
    size_t n = 0;

    *ret_n = 0;
    for (size_t i = 0; i < n_model; i++) {
        size_t place = n;

        if (!passes(q, &model[i]))
            continue;
        *ret_n += 1;
        if (!passes_cursor(q, &model[i], q->before, false) ||
            !passes_cursor(q, &model[i], q->after, true))
            continue;
        for (; place > 0 && compare(q, found[place - 1], &model[i]) > 0; place--)
            found[place] = found[place - 1];
        found[place] = &model[i];
        n++;
    }
    for (size_t i = 0; i < n && (q->limit == 0 || (int64_t)i < q->limit); i++)
        buf_printf(out, "%s/%s ", found[i]->agent, found[i]->label);
}

static memfs_code join_names(const block_row *row, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s/%.*s ", (int)row->agent_id.len, row->agent_id.ptr, (int)row->label.len,
               row->label.ptr);
    return MEMFS_OK;
}

static memfs_str maybe(unsigned one_in, const char *text)
{
    return dice(one_in) == 0 ? str_of(text) : MEMFS_STR("");
}

static void test_K1_random_queries_answer_as_a_naive_model(void **at)
{
    static const char *const searches[] = { "a", "b%a", "_A", "%", "abab", "__b" };
    fixture *f = *at;

    make_model(f);
    for (int round = 0; round < 6000; round++) {
        _cleanup_(buf_dispose) memfs_buf want = MEMFS_BUF_INIT(1 << 16);
        _cleanup_(buf_dispose) memfs_buf got = MEMFS_BUF_INIT(1 << 16);
        memfs_str tags[3];
        char id[2][16];
        int64_t n_want, n_got;
        block_query q = {
            .agent_id = maybe(2, model[dice(MODEL_N)].agent),
            .label = maybe(6, model[dice(MODEL_N)].label),
            .id = maybe(12, model[dice(MODEL_N)].id),
            .label_search = maybe(6, searches[dice(6)]),
            .description_search = maybe(6, searches[dice(6)]),
            .value_search = maybe(6, searches[dice(6)]),
            .tags = tags,
            .n_tags = dice(3) == 0 ? dice(4) : 0,
            .match_all_tags = dice(2) == 0,
            .show_hidden = dice(2) == 0,
            .order = dice(3),
            .descending = dice(2) == 0,
            .limit = dice(2) == 0 ? dice(12) : 0,
        };

        for (int i = 0; i < 2; i++)
            snprintf(id[i], sizeof(id[i]), "block-%03u", dice(2 * MODEL_N)); /* odd: unknown */
        for (int i = 0; i < 3; i++)
            tags[i] = str_of(TAGS[dice(3)]);
        q.before = maybe(3, id[0]);
        q.after = maybe(3, id[1]);
        naive_blocks(&q, &want, &n_want);
        assert_ok(cache_blocks(f->cache, &q, join_names, &got, &f->err));
        if (strcmp(want.ptr, got.ptr) != 0)
            fail_msg("round %d: shape %#x: want %s, got %s", round, shape_of(&q, false), want.ptr,
                     got.ptr);
        assert_ok(cache_count(f->cache, &q, &n_got, &f->err));
        assert_int_equal(n_want, n_got);
    }
}

#ifndef OVER_POSTGRESQL
/* ---- the plans: 100,000 agents must not slow anything ---- */

static void plan_of(sqlite3 *db, uint32_t shape, memfs_buf *out)
{
    _cleanup_(buf_dispose) memfs_buf sql = MEMFS_BUF_INIT(1 << 16);
    sqlite3_stmt *stmt;

    buf_puts(&sql, "EXPLAIN QUERY PLAN ");
    shape_sql(shape, &sql);
    assert_int_equal(sqlite3_prepare_v2(db, sql.ptr, -1, &stmt, NULL), SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW)
        buf_printf(out, "%s; ", (const char *)sqlite3_column_text(stmt, 3));
    sqlite3_finalize(stmt);
}

static void test_plans_do_not_grow_with_the_number_of_agents(void **unused)
{
    static const struct {
        uint32_t shape;
        const char *first; /* what the plan begins with */
        bool may_sort;
    } cases[] = {
        { SHAPE_AGENT | SHAPE_LABEL, "SEARCH b USING INDEX by_label (agent_no=? AND label=?)",
          false },
        { SHAPE_ID, "SEARCH b USING INDEX by_id (id=?)", false },
        { SHAPE_AGENT | SHAPE_BY_ID | SHAPE_LIMIT, "SEARCH b USING INDEX by_agent (agent_no=?)",
          false },
        { SHAPE_AGENT | SHAPE_BY_ID | SHAPE_AFTER | SHAPE_DESCENDING,
          "SEARCH b USING INDEX by_agent (agent_no=? AND id<?)", false },
        { SHAPE_AGENT | SHAPE_BY_PATH, "SEARCH b USING INDEX by_path (agent_no=?)", false },
        { SHAPE_AGENT | SHAPE_LIMIT, "", true },
        { SHAPE_LIMIT | SHAPE_NOT_HIDDEN, "SCAN b USING INDEX by_created", false },
        { SHAPE_LIMIT | SHAPE_AFTER, "SEARCH b USING INDEX by_created ((created_at,id)>(?,?))",
          false },
        { SHAPE_LIMIT | SHAPE_BEFORE | SHAPE_DESCENDING,
          "SEARCH b USING INDEX by_created ((created_at,id)>(?,?))", false },
        { SHAPE_LABEL | SHAPE_LIMIT, "SEARCH b USING INDEX by_name (label=?)", false },
        { SHAPE_BY_ID | SHAPE_LIMIT | SHAPE_AFTER, "SEARCH b USING INDEX by_id (id>?)", false },
        { SHAPE_COUNT, "SCAN b USING COVERING INDEX by_id", false },
        /* copies of one block are told apart among those of the label alone */
        { SHAPE_COUNT | SHAPE_LABEL,
          "USE TEMP B-TREE FOR count(DISTINCT); SEARCH b USING COVERING INDEX by_name (label=?)",
          true },
    };
    sqlite3 *db;

    (void)unused;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, SQLITE_CACHE_MIGRATIONS[0], NULL, NULL, NULL), SQLITE_OK);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        _cleanup_(buf_dispose) memfs_buf plan = MEMFS_BUF_INIT(1 << 16);

        plan_of(db, cases[i].shape, &plan);
        if (strncmp(plan.ptr, cases[i].first, strlen(cases[i].first)) != 0 ||
            (!cases[i].may_sort && strstr(plan.ptr, "B-TREE") != NULL) ||
            (cases[i].may_sort && strstr(plan.ptr, "SCAN b") != NULL))
            fail_msg("shape %#x: %s", cases[i].shape, plan.ptr);
    }
    sqlite3_close(db);
}

static void assert_hops(const char *const *schema, const char *sql, const char *index)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 16);
    sqlite3_stmt *stmt;
    unsigned n_hops = 0;
    sqlite3 *db;

    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    for (size_t i = 0; schema[i] != NULL; i++)
        assert_int_equal(sqlite3_exec(db, schema[i], NULL, NULL, NULL), SQLITE_OK);
    buf_printf(&text, "EXPLAIN QUERY PLAN %s", sql);
    assert_int_equal(sqlite3_prepare_v2(db, text.ptr, -1, &stmt, NULL), SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        const char *step = (const char *)sqlite3_column_text(stmt, 3);
        bool is_hop = strncmp(step, "SEARCH ", 7) == 0 && strstr(step, index) != NULL;

        n_hops += is_hop;
        if (!is_hop && (strstr(step, "blocks") != NULL || strstr(step, "agents") != NULL))
            fail_msg("%s", step);
    }
    assert_int_equal(n_hops, 2); /* the first list, and the one after each */
    sqlite3_finalize(stmt);
    sqlite3_close(db);
}

static void test_9_lists_of_tags_cost_what_is_different_and_not_what_there_is(void **unused)
{
    (void)unused;
    assert_hops(SQLITE_CACHE_MIGRATIONS, SQLITE_TAG_LISTS("blocks", "tags <> '[]'"),
                "COVERING INDEX by_tags");
    assert_hops(SQLITE_STATE_MIGRATIONS,
                SQLITE_TAG_LISTS("agents", "deleted_at = 0 AND tags <> '[]'"),
                "INDEX agents_by_tags");
}

static void test_T30_the_files_are_the_owners_alone(void **at)
{
    static const char *const names[] = { "cache.db", "cache.db-wal", "cache.db-shm" };
    fixture *f = *at;

    for (size_t i = 0; i < 3; i++) {
        struct stat st;

        assert_int_equal(stat(in_root(f, names[i]), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
}

#endif

int main(void)
{
#define ON_CACHE(test) cmocka_unit_test_setup_teardown(test, setup_cache, teardown)
    const struct CMUnitTest tests[] = {
        ON_CACHE(test_K4_every_field_comes_back_as_it_was),
        ON_CACHE(test_K4_empty_text_is_a_value_and_not_absence),
        ON_CACHE(test_K5_values_of_any_bytes_and_sizes_come_back),
        ON_CACHE(test_K1_an_older_commit_never_overwrites_a_newer_one),
        ON_CACHE(test_K1_generations_count_up_and_never_repeat),
        ON_CACHE(test_K7_from_a_tip_to_itself_writes_nothing),
        ON_CACHE(test_K2_deletes_and_renames_follow_to_the_last_row),
        ON_CACHE(test_K3_another_agents_rows_stay),
        ON_CACHE(test_D5_replace_all_leaves_nothing_of_before),
        ON_CACHE(test_rows_of_a_large_change_are_all_there),
        ON_CACHE(test_a_change_of_settings_drops_what_was_made_under_others),
        ON_CACHE(test_9_each_list_of_tags_of_blocks_is_told_once_and_goes_with_the_last),
        ON_CACHE(test_blocks_come_in_the_order_asked_for),
        ON_CACHE(test_pages_are_relative_to_the_order),
        ON_CACHE(test_an_unknown_cursor_is_ignored_but_by_id_it_is_a_place),
        ON_CACHE(test_filters),
        ON_CACHE(test_6_1_6_2_copies_of_a_block_are_one_and_are_counted_by_their_agents),
        ON_CACHE(test_a_search_of_more_than_1024_characters_is_refused),
        ON_CACHE(test_a_refusing_row_function_ends_the_reading),
        ON_CACHE(test_a_row_function_may_read_from_the_same_cache),
        ON_CACHE(test_blocks_of_an_agent_that_was_never_synced_are_not_found),
        ON_CACHE(test_K1_random_queries_answer_as_a_naive_model),
#ifndef OVER_POSTGRESQL
        cmocka_unit_test(test_plans_do_not_grow_with_the_number_of_agents),
        cmocka_unit_test(test_9_lists_of_tags_cost_what_is_different_and_not_what_there_is),
        ON_CACHE(test_T30_the_files_are_the_owners_alone),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
