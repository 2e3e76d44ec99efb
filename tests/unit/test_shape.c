/* Block and AgentState, byte for byte (http-api 4, 7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/shape.h"

#include <jansson.h>

#define AGENT "agent-11111111-1111-4111-8111-111111111111"
#define BLOCK "block-5d1c2f3a-0b1e-4c7d-9a2b-6f0e1d2c3b4a"

static block_row sample_row(void)
{
    return (block_row){
        .agent_id = MEMFS_STR(AGENT),
        .label = MEMFS_STR("system/human"),
        .path = MEMFS_STR("system/human.md"),
        .id = MEMFS_STR(BLOCK),
        .value = MEMFS_STR("Likes tea."),
        .has_description = true,
        .description = MEMFS_STR("About the user"),
        .limit = 100000,
        .metadata_json = MEMFS_STR("{}"),
        .tags_json = MEMFS_STR("[]"),
    };
}

static void assert_block(const block_row *row, bool with_tags, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    json_writer w = JSON_WRITER_INIT(&out);

    shape_block(&w, row, with_tags);
    assert_string_equal(out.ptr, expected);
}

static void block_is_the_example_of_the_contract(void **state)
{
    block_row row = sample_row();

    (void)state;
    assert_block(&row, true,
                 "{\"value\":\"Likes tea.\",\"limit\":100000,\"project_id\":null,"
                 "\"template_name\":null,\"is_template\":false,\"template_id\":null,"
                 "\"base_template_id\":null,\"deployment_id\":null,\"entity_id\":null,"
                 "\"preserve_on_migration\":false,\"label\":\"system/human\",\"read_only\":false,"
                 "\"description\":\"About the user\",\"metadata\":{},\"hidden\":null,"
                 "\"id\":\"" BLOCK "\",\"created_by_id\":null,\"last_updated_by_id\":null,"
                 "\"tags\":[]}");
}

static void block_shows_every_attribute_of_its_row(void **state)
{
    block_row row = sample_row();

    (void)state;
    row.value = MEMFS_STR("\xC3\xA9\xE2\x98\x83 \"q\"\n\x01");
    row.limit = 5;
    row.read_only = true;
    row.has_description = false;
    row.metadata_json = MEMFS_STR("{\"a\":[1]}");
    row.hidden = true;
    row.tags_json = MEMFS_STR("[\"x\"]");
    assert_block(&row, true,
                 "{\"value\":\"\xC3\xA9\xE2\x98\x83 \\\"q\\\"\\n\\u0001\",\"limit\":5,"
                 "\"project_id\":null,"
                 "\"template_name\":null,\"is_template\":false,\"template_id\":null,"
                 "\"base_template_id\":null,\"deployment_id\":null,\"entity_id\":null,"
                 "\"preserve_on_migration\":false,\"label\":\"system/human\",\"read_only\":true,"
                 "\"description\":null,\"metadata\":{\"a\":[1]},\"hidden\":true,"
                 "\"id\":\"" BLOCK "\",\"created_by_id\":null,\"last_updated_by_id\":null,"
                 "\"tags\":[\"x\"]}");
}

static void block_inside_an_agent_has_no_tags(void **state)
{
    block_row row = sample_row();
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    json_writer w = JSON_WRITER_INIT(&out);

    (void)state;
    row.tags_json = MEMFS_STR("[\"x\"]");
    shape_block(&w, &row, false);
    assert_non_null(strstr(out.ptr, "\"tags\":[]}"));
}

static void K4_an_empty_text_is_a_value_and_not_null(void **state)
{
    block_row row = sample_row();
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    json_writer w = JSON_WRITER_INIT(&out);

    (void)state;
    row.value = MEMFS_STR("");
    row.description = MEMFS_STR("");
    shape_block(&w, &row, true);
    assert_non_null(strstr(out.ptr, "{\"value\":\"\","));
    assert_non_null(strstr(out.ptr, "\"description\":\"\","));
}

/* ---- agents ---- */

static const char *const AGENT_KEYS[] = {
    "created_by_id", "last_updated_by_id", "created_at", "updated_at", "id", "name", "tool_rules",
    "message_ids", "system", "agent_type", "llm_config", "embedding_config", "model", "embedding",
    "model_settings", "compaction_settings", "response_format", "description", "metadata", "memory",
    "blocks", "tools", "sources", "tags", "tool_exec_environment_variables", "secrets",
    "project_id", "template_id", "base_template_id", "deployment_id", "entity_id", "identity_ids",
    "identities", "pending_approval", "message_buffer_autoclear", "enable_sleeptime",
    "multi_agent_group", "managed_group", "last_run_completion", "last_run_duration_ms",
    "last_stop_reason", "timezone", "max_files_open", "per_file_view_window_char_limit", "hidden",
};

static json_t *shaped_agent(memfs_str tags, unsigned relations, memfs_str blocks)
{
    const state_agent agent = {
        .id = MEMFS_STR(AGENT),
        .name = MEMFS_STR("Ada"),
        .tags_json = tags,
        .created_at_us = 1767323045678901,
        .updated_at_us = 1767323045000000,
    };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(16384);
    json_writer w = JSON_WRITER_INIT(&out);
    json_t *root;

    shape_agent(&w, &agent, relations, blocks);
    root = json_loadb(out.ptr, out.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    return root;
}

static void agent_has_every_key_in_the_order_of_the_contract(void **state)
{
    json_t *root = shaped_agent(MEMFS_STR("[]"), SHAPE_ALL, MEMFS_STR("[]"));
    const char *key;
    json_t *value;
    size_t i = 0;

    (void)state;
    assert_int_equal(json_object_size(root), ARRAY_LEN(AGENT_KEYS));
    json_object_foreach(root, key, value)
        assert_string_equal(key, AGENT_KEYS[i++]);
    assert_string_equal(json_string_value(json_object_get(root, "name")), "Ada");
    assert_string_equal(json_string_value(json_object_get(root, "created_at")),
                        "2026-01-02T03:04:05.678901Z");
    assert_string_equal(json_string_value(json_object_get(root, "updated_at")),
                        "2026-01-02T03:04:05Z");
    json_decref(root);
}

static void agent_shows_its_blocks_twice_and_the_memory_in_order(void **state)
{
    static const char *const keys[] = { "agent_type", "git_enabled", "blocks", "file_blocks",
                                        "prompt_template" };
    json_t *root = shaped_agent(MEMFS_STR("[]"), SHAPE_ALL, MEMFS_STR("[{\"a\":1}]"));
    json_t *memory = json_object_get(root, "memory"), *value;
    const char *key;
    size_t i = 0;

    (void)state;
    json_object_foreach(memory, key, value)
        assert_string_equal(key, keys[i++]);
    assert_int_equal(i, ARRAY_LEN(keys));
    assert_true(json_is_true(json_object_get(memory, "git_enabled")));
    assert_true(json_equal(json_object_get(memory, "blocks"), json_object_get(root, "blocks")));
    assert_int_equal(json_array_size(json_object_get(root, "blocks")), 1);
    json_decref(root);
}

static void relations_that_are_not_asked_for_are_empty(void **state)
{
    json_t *root = shaped_agent(MEMFS_STR("[\"a\"]"), 0, MEMFS_STR("[{\"a\":1}]"));

    (void)state;
    assert_int_equal(json_array_size(json_object_get(root, "blocks")), 0);
    assert_int_equal(json_array_size(json_object_get(root, "tags")), 0);
    assert_int_equal(json_array_size(json_object_get(json_object_get(root, "memory"), "blocks")),
                     0);
    json_decref(root);
}

static void the_git_tag_is_there_once_whatever_is_stored(void **state)
{
    static const struct {
        const char *stored, *shown;
    } table[] = {
        { "", "[\"git-memory-enabled\"]" },
        { "[]", "[\"git-memory-enabled\"]" },
        { "[\"a\",\"b\"]", "[\"git-memory-enabled\",\"a\",\"b\"]" },
        { "[\"a\",\"git-memory-enabled\"]", "[\"a\",\"git-memory-enabled\"]" },
        /* a tag that only quotes it */
        { "[\"x\\\"git-memory-enabled\\\"\"]",
          "[\"git-memory-enabled\",\"x\\\"git-memory-enabled\\\"\"]" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        json_t *root = shaped_agent(str_of(table[i].stored), SHAPE_TAGS, MEMFS_STR("[]"));
        json_t *expected = json_loads(table[i].shown, 0, NULL);

        assert_true(json_equal(json_object_get(root, "tags"), expected));
        json_decref(expected);
        json_decref(root);
    }
}

static void an_agent_has_its_own_memory_as_a_repository(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1024);
    json_writer w = JSON_WRITER_INIT(&out);

    (void)state;
    shape_own_repository(&w, MEMFS_STR("agent-local-11111111-1111-4111-8111-111111111111"));
    assert_string_equal(out.ptr,
                        "{\"id\":\"repo-local-11111111-1111-4111-8111-111111111111\","
                        "\"name\":\"memory\",\"is_primary\":true,\"permissions\":\"read_write\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_is_the_example_of_the_contract),
        cmocka_unit_test(block_shows_every_attribute_of_its_row),
        cmocka_unit_test(block_inside_an_agent_has_no_tags),
        cmocka_unit_test(K4_an_empty_text_is_a_value_and_not_null),
        cmocka_unit_test(agent_has_every_key_in_the_order_of_the_contract),
        cmocka_unit_test(agent_shows_its_blocks_twice_and_the_memory_in_order),
        cmocka_unit_test(relations_that_are_not_asked_for_are_empty),
        cmocka_unit_test(the_git_tag_is_there_once_whatever_is_stored),
        cmocka_unit_test(an_agent_has_its_own_memory_as_a_repository),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
