/*
 * letta_db.h: which databases are taken for a Letta server's, and what is read from one.
 */
#include "letta_fixture.h"

static int setup_letta(void **at)
{
    *at = letta_fixture("letta");
    return 0;
}

static int teardown_letta(void **at)
{
    letta_fixture_free(*at);
    return 0;
}

static void open_letta(fixture *f)
{
    assert_ok(letta_pg_open(pg_url(), &letta, &f->err));
}

/* ---- the schema ---- */

static void the_revision_that_was_tested_is_known(void **at)
{
    fixture *f = *at;
    bool is_known;

    open_letta(f);
    assert_string_equal(letta_db_revision(letta, &is_known), "1c28e167b74f");
    assert_true(is_known);
}

static void another_revision_is_good_when_the_tables_are(void **at)
{
    fixture *f = *at;
    bool is_known;

    ask(f, "UPDATE alembic_version SET version_num = 'ffff00001111'; "
           "ALTER TABLE block ADD COLUMN colour varchar; ALTER TABLE block ADD COLUMN weight "
           "integer NOT NULL DEFAULT 1; ALTER TABLE block ALTER COLUMN metadata_ TYPE jsonb; "
           "ALTER TABLE block ALTER COLUMN version TYPE bigint");
    open_letta(f);
    assert_string_equal(letta_db_revision(letta, &is_known), "ffff00001111");
    assert_false(is_known);
}

static void what_differs_is_refused_and_named(void **at)
{
    static const struct {
        const char *sql, *says;
    } cases[] = {
        { "ALTER TABLE block RENAME COLUMN version TO versions", "column block.version is missing" },
        { "ALTER TABLE block ALTER COLUMN read_only TYPE varchar",
          "column block.read_only is character varying and not boolean" },
        { "ALTER TABLE block ADD COLUMN owner varchar NOT NULL",
          "column block.owner must be given and is not known" },
        { "ALTER TABLE blocks_agents DROP CONSTRAINT unique_label_per_agent",
          "the unique key blocks_agents(agent_id,block_label) is missing" },
        { "DROP TABLE blocks_conversations", "column blocks_conversations.block_id is missing" },
        { "DROP TABLE alembic_version", "it has no tables of Letta" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        fixture *f = *at;

        ask(f, cases[i].sql);
        assert_code(letta_pg_open(pg_url(), &letta, &f->err), EINVALID);
        if (strstr(f->err.msg, cases[i].says) == NULL)
            fail_msg("'%s' does not say '%s'", f->err.msg, cases[i].says);
        assert_true(i == ARRAY_LEN(cases) - 1 || strstr(f->err.msg, "1c28e167b74f") != NULL);
        letta_fixture_free(f);
        *at = letta_fixture("letta");
    }
}

static void opening_and_reading_write_nothing(void **at)
{
    fixture *f = *at;

    open_letta(f);
    assert_rows(f, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'memfs%'", "0");
}

/* ---- agents ---- */

static memfs_code put_agent(const letta_agent *a, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s %.*s [%.*s] %.*s %d %lld %lld\n", 7, a->id.ptr, (int)a->name.len,
               a->name.ptr, (int)a->description.len, a->description.ptr, (int)a->tags_json.len,
               a->tags_json.ptr, a->has_git_memory, (long long)a->created_at_us,
               (long long)a->updated_at_us);
    return MEMFS_OK;
}

static void agents_come_in_pages(void **at)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 16);
    fixture *f = *at;

    add_agent(f, AGENT_2, "bob");
    add_agent(f, AGENT_3, "eve");
    ask(f, "INSERT INTO agents_tags VALUES('" AGENT_2 "', 'zeta'), ('" AGENT_2
           "', 'git-memory-enabled'); UPDATE agents SET is_deleted = true WHERE id = '" AGENT_3
           "'; UPDATE agents SET name = NULL, description = 'first' WHERE id = '" AGENT_1 "'");
    open_letta(f);
    assert_ok(letta_agents(letta, MEMFS_STR(""), 1, put_agent, &out, &f->err));
    assert_string_equal(out.ptr, "agent-1  [first] [] 0 1700000000250000 1700000000500000\n");
    buf_clear(&out);
    assert_ok(letta_agents(letta, MEMFS_STR(AGENT_1), 10, put_agent, &out, &f->err));
    assert_string_equal(out.ptr, "agent-2 bob [] [\"git-memory-enabled\", \"zeta\"] 1 "
                                 "1700000000250000 1700000000500000\n");
}

/* ---- one memory ---- */

static memfs_code put_block(const letta_block *b, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s %.*s '%.*s' %s %lld %.*s %d%d %.*s v%lld x%lld\n", (int)b->id.len,
               b->id.ptr, (int)b->label.len, b->label.ptr, (int)b->value.len, b->value.ptr,
               b->has_description ? b->description.ptr : "-", (long long)b->limit,
               (int)b->metadata_json.len, b->metadata_json.ptr, b->read_only, b->hidden,
               (int)b->tags_json.len, b->tags_json.ptr, (long long)b->version,
               (long long)b->n_agents);
    return MEMFS_OK;
}

static void a_memory_is_its_blocks_by_label(void **at)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 16);
    fixture *f = *at;

    add_agent(f, AGENT_2, "bob");
    add_block(f, AGENT_1, '1', "persona", "I am");
    add_block(f, AGENT_1, '2', "Zoo", "");
    add_block(f, AGENT_2, '3', "persona", "not me");
    add_block(f, AGENT_1, '4', "other", "another organization''s");
    ask(f, "INSERT INTO organizations(id, name, privileged_tools) VALUES('org-2', '', false);"
           "UPDATE block SET organization_id = 'org-2' WHERE id = 'block-4';"
           "INSERT INTO blocks_agents VALUES('" AGENT_2 "', 'block-2', 'Zoo');"
           "UPDATE block SET metadata_ = '[1]', hidden = true, read_only = true, description = NULL, "
           "version = 7 WHERE id = 'block-2'; INSERT INTO blocks_tags(block_id, tag, "
           "organization_id) VALUES('block-1', 'b', '" ORG "'), ('block-1', 'a', '" ORG "')");
    open_letta(f);
    assert_ok(letta_memory(letta, MEMFS_STR(AGENT_1), NULL, put_block, &out, &f->err));
    assert_string_equal(
        out.ptr, "block-2 Zoo '' - 5000 {} 11 [] v7 x2\n"
                 "block-1 persona 'I am' about persona 5000 {\"k\": 1} 00 [\"a\", \"b\"] v1 x1\n");
}

static void an_unknown_agent_is_not_found(void **at)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 16);
    fixture *f = *at;

    open_letta(f);
    assert_code(letta_memory(letta, MEMFS_STR(AGENT_2), put_agent, put_block, &out, &f->err),
                ENOTFOUND);
    assert_int_equal(out.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup_letta, teardown_letta)
        T(the_revision_that_was_tested_is_known),
        T(another_revision_is_good_when_the_tables_are),
        T(what_differs_is_refused_and_named),
        T(opening_and_reading_write_nothing),
        T(agents_come_in_pages),
        T(a_memory_is_its_blocks_by_label),
        T(an_unknown_agent_is_not_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
