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
        { "ALTER TABLE block RENAME COLUMN version TO versions",
          "column block.version is missing" },
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
        assert_int_equal(letta_pg_open(pg_url(), &letta, &f->err),
                         i < ARRAY_LEN(cases) - 1 ? MEMFS_EINVALID : MEMFS_ENOTFOUND);
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
    assert_string_equal(out.ptr, "agent-2 bob [] [\"git-memory-enabled\",\"zeta\"] 1 "
                                 "1700000000250000 1700000000500000\n");
}

/* ---- one memory ---- */

static memfs_code put_block(const letta_block *b, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s %.*s '%.*s' %s %lld %.*s %d%d %.*s v%lld x%lld%s\n", (int)b->id.len,
               b->id.ptr, (int)b->label.len, b->label.ptr, (int)b->value.len, b->value.ptr,
               b->has_description ? b->description.ptr : "-", (long long)b->limit,
               (int)b->metadata_json.len, b->metadata_json.ptr, b->read_only, b->hidden,
               (int)b->tags_json.len, b->tags_json.ptr, (long long)b->version,
               (long long)b->n_agents, b->is_foreign ? " foreign" : "");
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
    ask(f,
        "INSERT INTO organizations(id, name, privileged_tools) VALUES('org-2', '', false);"
        "UPDATE block SET organization_id = 'org-2' WHERE id = 'block-4';"
        "INSERT INTO blocks_agents VALUES('" AGENT_2 "', 'block-2', 'Zoo');"
        "UPDATE block SET metadata_ = '[1]', hidden = true, read_only = true, description = NULL, "
        "version = 7 WHERE id = 'block-2'; INSERT INTO blocks_tags(block_id, tag, "
        "organization_id) VALUES('block-1', 'b', '" ORG "'), ('block-1', 'a', '" ORG "')");
    open_letta(f);
    assert_ok(letta_memory(letta, MEMFS_STR(AGENT_1), NULL, put_block, &out, &f->err));
    assert_string_equal(
        out.ptr, "block-2 Zoo '' - 5000 {} 11 [] v7 x2\n"
                 "block-4 other 'another organization's' about other 5000 {\"k\": 1} 00 [] v1 x1 "
                 "foreign\n"
                 "block-1 persona 'I am' about persona 5000 {\"k\": 1} 00 [\"a\",\"b\"] v1 x1\n");
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

/* ---- writing ---- */

static const memfs_oid TIP_1 = { { 1 } }, TIP_2 = { { 2 } };

static void open_tables(fixture *f)
{
    open_letta(f);
    assert_ok(letta_db_prepare(letta, &f->err));
}

static memfs_code write_one(fixture *f, const char *agent_id, const memfs_oid *from,
                            const letta_change *change)
{
    return letta_write(letta, str_of(agent_id), from, &TIP_2, change, 1, &f->err);
}

#define NEW_ID "block-5d1c2f3a-0b1e-4c7d-9a2b-6f0e1d2c3b4a"

static letta_change new_block(const char *label, const char *value)
{
    return (letta_change){
        .id = MEMFS_STR(NEW_ID), .label = str_of(label), .sets = LETTA_VALUE, .value = str_of(value)
    };
}

#define ROW                                                                                        \
    "SELECT concat_ws('|', b.id, label, value, description, \"limit\", read_only, metadata_, "     \
    "version, hidden, is_template, preserve_on_migration, _created_by_id, _last_updated_by_id, "   \
    "b.organization_id) FROM block b "

static void a_new_block_is_a_row_as_letta_makes_one(void **at)
{
    fixture *f = *at;
    letta_change c = new_block("system/human", "Ada");

    open_tables(f);
    assert_ok(write_one(f, AGENT_1, NULL, &c));
    assert_rows(f, ROW,
                NEW_ID "|system/human|Ada|system/human block|100000|f|{}|1|f|f|" USER "|" USER
                       "|" ORG);
    assert_rows(f, "SELECT agent_id || block_id || block_label FROM blocks_agents",
                AGENT_1 NEW_ID "system/human");
    assert_rows(f, "SELECT updated_at > now() - interval '1 hour' FROM agents", "t");
    assert_rows(f, "SELECT _last_updated_by_id IS NULL FROM agents", "t");
    assert_rows(f, "SELECT encode(tip, 'hex') FROM memfs_letta.tips",
                "0200000000000000000000000000000000000000");
}

static void only_the_fields_that_are_set_are_written(void **at)
{
    fixture *f = *at;
    letta_change c = {
        .id = MEMFS_STR("block-1"), .version = 1, .sets = LETTA_VALUE, .value = MEMFS_STR("new")
    };

    add_block(f, AGENT_1, '1', "persona", "old");
    add_block(f, AGENT_1, '2', "other", "old");
    open_tables(f);
    assert_ok(write_one(f, AGENT_1, NULL, &c));
    assert_rows(f, ROW "ORDER BY id",
                "block-1|persona|new|about persona|5000|f|{\"k\": 1}|2|f|" USER "|" USER "|" ORG
                "\nblock-2|other|old|about other|5000|f|{\"k\": 1}|1|f|" USER "|" USER "|" ORG);
    assert_rows(f, "SELECT updated_at < now() - interval '1 hour' FROM agents", "t");
    c = (letta_change){ .id = MEMFS_STR("block-1"),
                        .version = 2,
                        .description = MEMFS_STR("d"),
                        .sets = LETTA_DESCRIPTION | LETTA_LIMIT | LETTA_READ_ONLY | LETTA_METADATA,
                        .limit = 7,
                        .read_only = true,
                        .metadata_json = MEMFS_STR("{\"a\":[]}") };
    assert_ok(write_one(f, AGENT_1, &TIP_2, &c));
    assert_rows(f, ROW "WHERE id = 'block-1'",
                "block-1|persona|new|d|7|t|{\"a\":[]}|3|f|" USER "|" USER "|" ORG);
}

static void K7_nothing_to_change_moves_the_tip_alone(void **at)
{
    fixture *f = *at;

    add_block(f, AGENT_1, '1', "persona", "old");
    open_tables(f);
    assert_ok(letta_write(letta, MEMFS_STR(AGENT_1), NULL, &TIP_1, NULL, 0, &f->err));
    assert_rows(f, "SELECT version FROM block", "1");
    assert_rows(f, "SELECT substr(encode(tip, 'hex'), 1, 2) FROM memfs_letta.tips", "01");
}

static void what_was_changed_meanwhile_is_a_conflict_and_nothing_is_written(void **at)
{
    fixture *f = *at;
    letta_change both[] = { new_block("new", ""),
                            { .id = MEMFS_STR("block-1"), .version = 1, .sets = LETTA_VALUE } };

    add_block(f, AGENT_1, '1', "persona", "old");
    open_tables(f);
    ask(f, "UPDATE block SET value = 'by the API', version = version + 1");
    assert_code(letta_write(letta, MEMFS_STR(AGENT_1), NULL, &TIP_1, both, 2, &f->err), ECONFLICT);
    assert_rows(f, "SELECT value FROM block", "by the API");
    assert_rows(f, "SELECT count(*) FROM memfs_letta.tips", "0");
    both[1].version = 2;
    assert_code(letta_write(letta, MEMFS_STR(AGENT_1), &TIP_1, &TIP_2, both, 2, &f->err),
                ECONFLICT);
    ask(f, "DELETE FROM blocks_agents");
    assert_code(letta_write(letta, MEMFS_STR(AGENT_1), NULL, &TIP_1, both, 2, &f->err), ECONFLICT);
    assert_rows(f, "SELECT count(*) FROM block", "1");
}

static void a_label_that_letta_made_meanwhile_is_a_conflict(void **at)
{
    fixture *f = *at;
    letta_change c = new_block("persona", "ours");

    add_block(f, AGENT_1, '1', "persona", "theirs");
    open_tables(f);
    assert_code(write_one(f, AGENT_1, NULL, &c), ECONFLICT);
    assert_rows(f, "SELECT value FROM block", "theirs");
}

static void K3_a_shared_block_goes_with_the_last_who_has_it(void **at)
{
    fixture *f = *at;
    letta_change c = { .id = MEMFS_STR("block-1"), .version = 1, .is_gone = true };

    add_agent(f, AGENT_2, "bob");
    add_block(f, AGENT_1, '1', "persona", "shared");
    ask(f, "INSERT INTO blocks_agents VALUES('" AGENT_2 "', 'block-1', 'persona'); INSERT INTO "
           "blocks_tags(block_id, tag, organization_id) VALUES('block-1', 't', '" ORG "')");
    open_tables(f);
    assert_ok(write_one(f, AGENT_1, NULL, &c));
    assert_rows(f, "SELECT agent_id FROM blocks_agents", AGENT_2);
    assert_rows(f, "SELECT value || version FROM block", "shared1");
    assert_rows(f, "SELECT tag FROM blocks_tags", "t");
    assert_rows(f, "SELECT _last_updated_by_id FROM agents WHERE id = '" AGENT_1 "'", USER);
    assert_ok(write_one(f, AGENT_2, NULL, &c));
    assert_rows(f, "SELECT count(*) FROM block", "0");
    assert_rows(f, "SELECT count(*) FROM blocks_tags", "0");
}

static void K3_a_block_of_a_conversation_an_identity_or_a_group_stays(void **at)
{
    fixture *f = *at;
    letta_change gone[3];

    for (int i = 0; i < 3; i++) {
        static const char *const ids[] = { "block-1", "block-2", "block-3" };

        add_block(f, AGENT_1, (char)('1' + i), ids[i], "");
        gone[i] = (letta_change){ .id = str_of(ids[i]), .version = 1, .is_gone = true };
    }
    ask(f, "INSERT INTO conversations VALUES('conv-1'); INSERT INTO blocks_conversations "
           "VALUES('conv-1', 'block-1', ''); INSERT INTO groups_blocks VALUES('g', 'block-2');"
           "INSERT INTO identities_blocks VALUES('i', 'block-3')");
    open_tables(f);
    assert_ok(letta_write(letta, MEMFS_STR(AGENT_1), NULL, &TIP_2, gone, 3, &f->err));
    assert_rows(f, "SELECT count(*) FROM blocks_agents", "0");
    assert_rows(f, "SELECT count(*) FROM block", "3");
}

static void an_id_that_another_row_has_is_left_to_it(void **at)
{
    fixture *f = *at;
    letta_change c = new_block("persona", "mine");

    add_agent(f, AGENT_2, "bob");
    add_block(f, AGENT_2, '1', "persona", "bob''s");
    open_tables(f);
    assert_ok(write_one(f, AGENT_2, NULL,
                        &(letta_change){ .id = MEMFS_STR(NEW_ID),
                                         .label = MEMFS_STR("x"),
                                         .sets = LETTA_VALUE,
                                         .value = MEMFS_STR("bob's") }));
    assert_ok(write_one(f, AGENT_1, NULL, &c));
    assert_rows(f, "SELECT value FROM block WHERE id = '" NEW_ID "'", "bob's");
    assert_rows(f,
                "SELECT value || ' ' || (block_id ~ '^block-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-"
                "[89ab][0-9a-f]{3}-[0-9a-f]{12}$') FROM block JOIN blocks_agents ON id = block_id "
                "WHERE agent_id = '" AGENT_1 "'",
                "mine true");
}

static void a_renamed_block_takes_its_attributes_along(void **at)
{
    fixture *f = *at;
    letta_change moved[] = { new_block("renamed", "text"),
                             { .id = MEMFS_STR("block-1"), .version = 1, .is_gone = true } };

    moved[0].like_id = MEMFS_STR("block-1");
    add_block(f, AGENT_1, '1', "persona", "text");
    ask(f,
        "UPDATE block SET hidden = true; INSERT INTO blocks_tags(block_id, tag, organization_id) "
        "VALUES('block-1', 't', '" ORG "')");
    open_tables(f);
    assert_ok(letta_write(letta, MEMFS_STR(AGENT_1), NULL, &TIP_2, moved, 2, &f->err));
    assert_rows(f, ROW,
                NEW_ID "|renamed|text|renamed block|5000|f|{}|1|t|f|f|" USER "|" USER "|" ORG);
    assert_rows(f, "SELECT block_id || tag FROM blocks_tags", NEW_ID "t");
}

static void an_agent_that_letta_lacks_is_not_found(void **at)
{
    fixture *f = *at;
    letta_change c = new_block("persona", "");

    open_tables(f);
    assert_code(write_one(f, AGENT_2, NULL, &c), ENOTFOUND);
    assert_rows(f, "SELECT count(*) FROM block", "0");
    assert_rows(f, "SELECT count(*) FROM memfs_letta.tips", "0");
}

static void another_organization_keeps_its_own_and_has_no_default_user(void **at)
{
    fixture *f = *at;
    letta_change c = new_block("persona", "");

    ask(f, "INSERT INTO organizations(id, name, privileged_tools) VALUES('org-2', '', false);"
           "UPDATE agents SET organization_id = 'org-2'");
    open_tables(f);
    assert_ok(write_one(f, AGENT_1, NULL, &c));
    assert_rows(f, "SELECT organization_id || (_created_by_id IS NULL) FROM block", "org-2true");
}

/* ---- marks, and what is there ---- */

static memfs_code put_mark(memfs_str agent_id, uint64_t mark, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s %llu\n", 7, agent_id.ptr, (unsigned long long)mark);
    return MEMFS_OK;
}

static void a_mark_changes_with_each_change(void **at)
{
    static const char *const changes[] = {
        "UPDATE block SET version = version + 1 WHERE id = 'block-1'",
        "DELETE FROM blocks_agents WHERE block_id = 'block-1'",
        "INSERT INTO blocks_agents VALUES('" AGENT_1 "', 'block-2', 'other')",
        "INSERT INTO agents_tags VALUES('" AGENT_1 "', 'git-memory-enabled')",
    };
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(1 << 12),
                                     now = MEMFS_BUF_INIT(1 << 12);
    fixture *f = *at;

    add_agent(f, AGENT_2, "bob");
    add_block(f, AGENT_1, '1', "persona", "");
    add_block(f, AGENT_2, '2', "other", "");
    open_tables(f);
    assert_ok(letta_marks(letta, MEMFS_STR(""), 1, put_mark, &before, &f->err));
    for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
        ask(f, changes[i]);
        buf_clear(&now);
        assert_ok(letta_marks(letta, MEMFS_STR(""), 1, put_mark, &now, &f->err));
        assert_string_not_equal(now.ptr, before.ptr);
        buf_clear(&before);
        buf_add_str(&before, buf_str(&now));
    }
}

static void a_look_gives_tip_and_the_labels_that_were_asked_for(void **at)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 16);
    memfs_str labels[] = { MEMFS_STR("other"), MEMFS_STR("none") };
    fixture *f = *at;
    letta_state seen;

    add_block(f, AGENT_1, '1', "persona", "");
    add_block(f, AGENT_1, '2', "other", "x");
    ask(f, "INSERT INTO agents_tags VALUES('" AGENT_1 "', 'git-memory-enabled')");
    open_tables(f);
    assert_ok(letta_look(letta, MEMFS_STR(AGENT_1), labels, 2, &seen, put_block, &out, &f->err));
    assert_false(seen.has_tip);
    assert_true(seen.has_git_memory);
    assert_string_equal(out.ptr, "block-2 other 'x' about other 5000 {\"k\": 1} 00 [] v1 x1\n");
    assert_ok(letta_write(letta, MEMFS_STR(AGENT_1), NULL, &TIP_1, NULL, 0, &f->err));
    assert_ok(letta_look(letta, MEMFS_STR(AGENT_1), labels, 0, &seen, put_block, &out, &f->err));
    assert_true(seen.has_tip && oid_equal(&seen.tip, &TIP_1));
}

/* ---- what a writer knows of the mark, and of its tip ---- */

static memfs_code keep_mark(memfs_str agent_id, uint64_t mark, void *ctx, memfs_error *err)
{
    (void)agent_id;
    (void)err;
    *(uint64_t *)ctx = mark;
    return MEMFS_OK;
}

static uint64_t mark_now(fixture *f)
{
    uint64_t mark = 0;

    assert_ok(letta_marks(letta, MEMFS_STR(""), 1, keep_mark, &mark, &f->err));
    return mark;
}

static void a_writer_knows_the_mark_that_its_changes_lead_to(void **at)
{
    fixture *f = *at;
    letta_change changes[] = {
        new_block("new", "x"),
        { .id = MEMFS_STR("block-1"), .version = 1, .sets = LETTA_VALUE, .value = MEMFS_STR("y") },
        { .id = MEMFS_STR("block-2"), .version = 1, .is_gone = true },
    };
    uint64_t before;

    for (char n = '1'; n <= '9'; n++) {
        char label[] = { n, '\0' };

        add_block(f, AGENT_1, n, label, "");
    }
    open_tables(f);
    before = mark_now(f);
    assert_ok(letta_write(letta, MEMFS_STR(AGENT_1), NULL, &TIP_1, changes, 3, &f->err));
    assert_true(mark_now(f) == before + letta_mark_moves(changes, 3));
    assert_true(mark_now(f) != before);
    ask(f, "UPDATE block SET version = version + 1 WHERE id = 'block-3'");
    assert_true(mark_now(f) != before + letta_mark_moves(changes, 3));
}

static bool is_torn(fixture *f)
{
    memfs_str none = MEMFS_STR("none");
    letta_state seen;

    assert_ok(letta_look(letta, MEMFS_STR(AGENT_1), &none, 1, &seen, put_block, NULL, &f->err));
    assert_true(seen.has_tip);
    return seen.is_torn;
}

#define ANEW(schema, name)                                                                         \
    "ALTER TABLE " schema "." name " RENAME TO was; CREATE TABLE " schema "." name                 \
    " (LIKE " schema ".was INCLUDING ALL); INSERT INTO " schema "." name " SELECT * FROM " schema  \
    ".was; DROP TABLE " schema ".was CASCADE"

static void a_tip_beside_tables_that_were_restored_alone_says_nothing(void **at)
{
    fixture *f = *at;

    open_tables(f);
    assert_ok(letta_write(letta, MEMFS_STR(AGENT_1), NULL, &TIP_1, NULL, 0, &f->err));
    assert_false(is_torn(f));
    ask(f, ANEW("public", "block"));
    assert_true(is_torn(f));
    ask(f, ANEW("memfs_letta", "tips"));
    assert_false(is_torn(f));
    assert_ok(letta_write(letta, MEMFS_STR(AGENT_1), &TIP_1, &TIP_1, NULL, 0, &f->err));
    ask(f, ANEW("public", "block"));
    assert_true(is_torn(f));
    assert_ok(letta_write(letta, MEMFS_STR(AGENT_1), &TIP_1, &TIP_1, NULL, 0, &f->err));
    assert_false(is_torn(f));
}

static void tips_of_an_older_memfs_get_what_they_lack(void **at)
{
    fixture *f = *at;

    open_letta(f);
    ask(f, "CREATE SCHEMA memfs_letta; CREATE TABLE memfs_letta.tips(agent_id text PRIMARY KEY, "
           "tip bytea NOT NULL); INSERT INTO memfs_letta.tips VALUES('" AGENT_1
           "', decode(repeat('01', 20), 'hex'))");
    assert_ok(letta_db_prepare(letta, &f->err));
    assert_false(is_torn(f));
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
        T(a_new_block_is_a_row_as_letta_makes_one),
        T(only_the_fields_that_are_set_are_written),
        T(K7_nothing_to_change_moves_the_tip_alone),
        T(what_was_changed_meanwhile_is_a_conflict_and_nothing_is_written),
        T(a_label_that_letta_made_meanwhile_is_a_conflict),
        T(K3_a_shared_block_goes_with_the_last_who_has_it),
        T(K3_a_block_of_a_conversation_an_identity_or_a_group_stays),
        T(an_id_that_another_row_has_is_left_to_it),
        T(a_renamed_block_takes_its_attributes_along),
        T(an_agent_that_letta_lacks_is_not_found),
        T(another_organization_keeps_its_own_and_has_no_default_user),
        T(a_mark_changes_with_each_change),
        T(a_look_gives_tip_and_the_labels_that_were_asked_for),
        T(a_writer_knows_the_mark_that_its_changes_lead_to),
        T(a_tip_beside_tables_that_were_restored_alone_says_nothing),
        T(tips_of_an_older_memfs_get_what_they_lack),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
