/*
 * The plans that PostgreSQL makes for what we ask: 100,000 agents must not slow anything.  What
 * cache and state have asked on a connection is prepared there, so each query's own text is looked
 * at, whatever put it together.
 */
#include "state_fixture.h"

#include "cache/search.h"

/* Enough rows that an index is worth it, as the planner sees it. */
static const char FILL[] =
    "INSERT INTO tips(agent_id, tip, generation) SELECT 'agent-' || n, decode(repeat('00', 20), "
    "'hex'), n FROM generate_series(1, 3000) n;"
    "INSERT INTO blocks(agent_no, char_limit, bytes, created_at, updated_at, hidden, read_only, "
    "blob, id, label, path, metadata, tags, problem, description, value, words) "
    "SELECT agent_no, 1, 1, agent_no * 10 + n, 1, n = 9, false, decode(repeat('00', 20), 'hex'), "
    "'block-' || agent_no || '-' || n, ('label-' || n)::bytea, ('path-' || n)::bytea, '{}', "
    "CASE agent_no % 5 WHEN 0 THEN '[\"red\"]'::bytea ELSE '[]' END, "
    "'', NULL, repeat('x', 200)::bytea, array_to_tsvector(ARRAY['_' || agent_no, 'common', "
    "'w' || agent_no % 100]) FROM tips, generate_series(1, 10) n;"
    "INSERT INTO versions(agent_no, path, commit_id, blob, words) SELECT agent_no, "
    "('path-' || n)::bytea, decode(repeat('00', 20), 'hex'), decode(repeat('00', 20), 'hex'), "
    "array_to_tsvector(ARRAY['_' || agent_no, 'common']) FROM tips, generate_series(1, 10) n;"
    "INSERT INTO agents SELECT 'agent-' || n, 'org', ('agent-' || n)::bytea, CASE n % 500 WHEN 0 "
    "THEN '[\"red\"]'::bytea ELSE '[]' END, CASE n % 500 WHEN 0 THEN "
    "ARRAY['red'::bytea] ELSE '{}' END, n, 1 FROM generate_series(1, 20000) n;"
    "INSERT INTO births SELECT agent_id, ('label-' || n)::bytea, 1 FROM tips, "
    "generate_series(1, 10) n;"
    "INSERT INTO banned SELECT agent_id, decode(repeat('00', 20), 'hex') FROM tips;"
    "INSERT INTO tokens SELECT agent_id, '', '', agent_id::bytea, agent_no, 0, 0 FROM tips;"
    "INSERT INTO mirrors SELECT agent_id, 'origin', '', '', '', 1, 1, 1, '', '', '', 0, 0, 0, '', "
    "'', 0 FROM tips;"
    "ANALYZE; SET plan_cache_mode = force_generic_plan";

static memfs_code run_sql(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    return pg_exec(c, ctx, &r, err);
}

static int setup_filled(void **at)
{
    fixture *f = fixture_new("plans");

    *at = f;
    open_cache(f);
    open_state(f);
    /* the only connection, as nobody asks beside us: what is set on it stays set */
    assert_ok(pg_work(pg, PG_ONE, run_sql, (void *)(uintptr_t)FILL, &f->err));
    return 0;
}

/* ---- what was asked, and how it would be done ---- */

typedef struct plans {
    memfs_buf text; /* of those that are wrong */
    unsigned n;
} plans;

static bool has(memfs_str text, const char *what)
{
    return memmem(text.ptr, text.len, what, strlen(what)) != NULL;
}

/* Those that are about everything, and so read all of it. */
static bool reads_all(memfs_str sql)
{
    static const char *const all[] = {
        "count(*) FROM agents",
        "FROM mirrors WHERE remote = $1",
        "FROM tokens ORDER BY",
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (has(sql, all[i]))
            return true;
    return false;
}

static memfs_code explain(pg_conn *c, memfs_str name, int64_t n_args, memfs_buf *out,
                          memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(buf_dispose) memfs_buf sql = MEMFS_BUF_INIT(1 << 12);
    memfs_code rc;

    buf_printf(&sql, "EXPLAIN EXECUTE %.*s", (int)name.len, name.ptr);
    for (int64_t i = 0; i < n_args; i++)
        buf_printf(&sql, "%sNULL%s", i == 0 ? "(" : ", ", i == n_args - 1 ? ")" : "");
    rc = pg_exec(c, sql.ptr, &r, err);
    for (int row = 0; rc == MEMFS_OK && row < r.n_rows; row++)
        buf_printf(out, "%s\n", pg_col_str(&r, row, 0).ptr);
    return rc;
}

/* Tables of one row, or of 64, may be read. */
static bool reads_a_table(memfs_str plan)
{
    static const char *const scans[] = {
        "Seq Scan on tips",   "Seq Scan on blocks", "Seq Scan on agents",  "Seq Scan on births",
        "Seq Scan on banned", "Seq Scan on tokens", "Seq Scan on mirrors", "Seq Scan on versions",
    };

    for (size_t i = 0; i < ARRAY_LEN(scans); i++)
        if (has(plan, scans[i]))
            return true;
    return false;
}

/* A page of one agent's rows may sort them, and so may a search what it found; a page of all may not. */
static void judge(plans *p, memfs_str sql, memfs_str plan)
{
    bool is_page = has(sql, "LIMIT") && !has(sql, "t.agent_id = ") && !has(sql, "WITH found");

    p->n++;
    if ((reads_a_table(plan) && !reads_all(sql)) || (is_page && has(plan, "Sort")))
        buf_printf(&p->text, "%.*s\n%.*s\n", (int)sql.len, sql.ptr, (int)plan.len, plan.ptr);
}

static memfs_code explain_all(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    plans *p = ctx;
    memfs_code rc = pg_exec(c,
                            "SELECT name, statement, cardinality(parameter_types) "
                            "FROM pg_prepared_statements",
                            &r, err);

    for (int row = 0; rc == MEMFS_OK && row < r.n_rows; row++) {
        _cleanup_(buf_dispose) memfs_buf plan = MEMFS_BUF_INIT(1 << 20);

        rc = explain(c, pg_col_str(&r, row, 0), strtoll(pg_col_str(&r, row, 2).ptr, NULL, 10),
                     &plan, err);
        if (rc == MEMFS_OK)
            judge(p, pg_col_str(&r, row, 1), buf_str(&plan));
    }
    return rc;
}

static void assert_plans(fixture *f, unsigned n_at_least)
{
    plans p = { MEMFS_BUF_INIT(1 << 20), 0 };

    assert_ok(pg_work(pg, PG_ONE, explain_all, &p, &f->err));
    if (p.text.len > 0)
        fail_msg("%s", p.text.ptr);
    assert_true(p.n >= n_at_least); /* there was something to judge */
    buf_dispose(&p.text);
}

/* ---- the questions ---- */

static memfs_code ignore_block(const block_row *row, void *ctx, memfs_error *err)
{
    (void)row;
    (void)err;
    *(unsigned *)ctx += 1;
    return MEMFS_OK;
}

static void test_reading_blocks_does_not_grow_with_the_number_of_agents(void **at)
{
    fixture *f = *at;
    memfs_str agent = MEMFS_STR("agent-7"), label = MEMFS_STR("label-3");
    memfs_str id = MEMFS_STR("block-7-3"), other = MEMFS_STR("block-9-3");
    const block_query queries[] = {
        { .limit = 50 },
        { .limit = 50, .after = id },
        { .limit = 50, .before = id, .descending = true },
        { .limit = 50, .after = id, .before = other },
        { .limit = 50, .order = BLOCK_ORDER_ID, .after = id },
        { .limit = 50, .order = BLOCK_ORDER_ID, .descending = true },
        { .limit = 50, .label = label },
        { .limit = 50, .label = label, .after = id, .show_hidden = true },
        { .id = id },
        { .id = id, .show_hidden = true },
        { .agent_id = agent },
        { .agent_id = agent, .id = id },
        { .agent_id = agent, .label = label, .show_hidden = true },
        { .agent_id = agent, .order = BLOCK_ORDER_PATH, .limit = 5, .after = id },
        { .agent_id = agent, .order = BLOCK_ORDER_ID, .limit = 5, .descending = true },
        { .agent_id = agent, .value_search = label },
        { .agent_id = agent, .tags = &label, .n_tags = 1 },
    };
    tag_lists lists = { MEMFS_BUF_INIT(1 << 16), 0 };
    int64_t n, n_of_agent = 0;
    cache_tip tip;
    unsigned n_rows = 0;

    for (size_t i = 0; i < ARRAY_LEN(queries); i++)
        assert_ok(cache_blocks(f->cache, &queries[i], ignore_block, &n_rows, &f->err));
    assert_true(n_rows > 300);
    assert_ok(cache_count(f->cache, &queries[10], &n_of_agent, &f->err));
    assert_int_equal(n_of_agent, 9);
    assert_ok(cache_count(f->cache, &queries[9], &n, &f->err));
    assert_ok(cache_tip_get(f->cache, agent, &tip, &f->err));
    assert_ok(cache_generation(f->cache, &n, &f->err));
    assert_ok(cache_tag_lists(f->cache, join_tag_list, &lists, &f->err));
    assert_int_equal(lists.n, 1);
    buf_dispose(&lists.text);
    assert_plans(f, ARRAY_LEN(queries) + 3);
}

static memfs_code ignore_version(const version_row *row, void *ctx, memfs_error *err)
{
    (void)row;
    (void)err;
    *(unsigned *)ctx += 1;
    return MEMFS_OK;
}

static void test_searching_does_not_grow_with_the_number_of_agents(void **at)
{
    static find_query find; /* does not move */
    fixture *f = *at;
    memfs_str agent = MEMFS_STR("agent-7");
    search_query q = { .agent_id = agent, .find = &find, .limit = 50 };
    unsigned n_rows = 0, n_versions = 0;

    assert_ok(find_parse(MEMFS_STR("common w7*"), &find, &f->err));
    assert_ok(cache_search(f->cache, &q, ignore_block, &n_rows, &f->err));
    assert_int_equal(n_rows, 9); /* one is hidden */
    q.agent_id = MEMFS_STR("");
    assert_ok(cache_search(f->cache, &q, ignore_block, &n_rows, &f->err));
    assert_int_equal(n_rows, 59);
    assert_ok(cache_versions(f->cache, agent, MEMFS_STR("path-3"), 0, 7, ignore_version,
                             &n_versions, &f->err));
    assert_int_equal(n_versions, 1);
    q.agent_id = agent;
    assert_ok(cache_search_past(f->cache, &q, ignore_version, &n_versions, &f->err));
    assert_int_equal(n_versions, 1); /* the words of versions are others */
    assert_plans(f, 4);
}

static void test_changing_blocks_does_not_grow_with_the_number_of_agents(void **at)
{
    fixture *f = *at;
    memfs_oid nothing = { { 0 } };
    block_row row = row_of("path-1", "label-1", "block-7-1", "value");
    cache_change changes[] = { { MEMFS_STR("path-1"), &row }, { MEMFS_STR("path-2"), NULL } };
    cache_update u = { .agent_id = MEMFS_STR("agent-7"),
                       .from = &nothing,
                       .to = oid_of(1),
                       .changes = changes,
                       .n_changes = 2 };

    assert_ok(cache_apply(f->cache, &u, &f->err));
    u.from = NULL;
    u.replace_all = true;
    assert_ok(cache_apply(f->cache, &u, &f->err));
    u.replace_all = false;
    u.agent_id = MEMFS_STR("agent-new");
    assert_ok(cache_apply(f->cache, &u, &f->err));
    assert_ok(cache_forget(f->cache, MEMFS_STR("agent-8"), &f->err));
    assert_plans(f, 5);
}

static void test_the_state_does_not_slow_with_the_number_of_agents(void **at)
{
    fixture *f = *at;
    memfs_str id = MEMFS_STR("agent-7"), label = MEMFS_STR("label-1"), red = MEMFS_STR("red");
    const agent_query queries[] = {
        { .limit = 50 },
        { .limit = 50, .after = id },
        { .limit = 50, .before = id },
        { .limit = 50, .after = id, .descending = true },
        { .id = id },
        { .name = id },
        { .tags = &red, .n_tags = 1, .match_all_tags = true },
    };
    state_agent agent = { .id = id, .name = MEMFS_STR("Ada"), .created_at_us = 1 };
    state_birth birth = { label, 0 };
    state_mirror m = mirror_of("agent-7", "origin", 1);
    state_token token = token_of("00000001", 1, 20);
    tag_lists lists = { MEMFS_BUF_INIT(1 << 16), 0 };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);
    memfs_oid oid = oid_of(1), *ids = NULL;
    bool is_known;
    size_t n;

    for (size_t i = 0; i < ARRAY_LEN(queries); i++)
        assert_ok(state_agents(s, &queries[i], join_ids, &out, &f->err));
    assert_ok(state_agent_known(s, id, &is_known, &f->err));
    assert_ok(state_agent_add(s, MEMFS_STR("agent-new"), id, 5, &f->err));
    assert_ok(state_agent_merge(s, &agent, &birth, 1, &f->err));
    assert_ok(state_births_add(s, id, &label, 1, 5, &f->err));
    assert_ok(state_births(s, id, MEMFS_STR(""), join_births, &out, &f->err));
    assert_ok(state_births(s, id, label, join_births, &out, &f->err));
    assert_ok(state_banned_add(s, id, &oid, 1, &f->err));
    assert_ok(state_banned(s, id, &ids, &n, &f->err));
    free(ids);
    assert_ok(state_mirror_put(s, &m, &f->err));
    assert_ok(state_mirrors(s, id, MEMFS_STR(""), join_mirrors, &out, &f->err));
    assert_ok(state_mirrors(s, id, m.remote, join_mirrors, &out, &f->err));
    assert_ok(state_token_add(s, &token, &f->err));
    assert_ok(state_token_revoke(s, token.id, 5, &f->err));
    assert_ok(state_tag_lists(s, join_tag_list, &lists, &f->err));
    assert_int_equal(lists.n, 1);
    buf_dispose(&lists.text);
    assert_plans(f, ARRAY_LEN(queries) + 15);
}

static int teardown_filled(void **at)
{
    close_state();
    fixture_free(*at);
    return 0;
}

int main(void)
{
#define ON_MANY(test) cmocka_unit_test_setup_teardown(test, setup_filled, teardown_filled)
    const struct CMUnitTest tests[] = {
        ON_MANY(test_reading_blocks_does_not_grow_with_the_number_of_agents),
        ON_MANY(test_searching_does_not_grow_with_the_number_of_agents),
        ON_MANY(test_changing_blocks_does_not_grow_with_the_number_of_agents),
        ON_MANY(test_the_state_does_not_slow_with_the_number_of_agents),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
