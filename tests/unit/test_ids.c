/* Ids of agents and blocks (block-format 6, http-api 1.4). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "memory/ids.h"

#define UUID "11111111-1111-4111-8111-111111111111"

/* T01: an id is a whole name and nothing but that name. */
static void test_T01_only_whole_uuid4_names_are_agents(void **state)
{
    static const struct {
        const char *id;
        bool is_agent;
    } cases[] = {
        { "agent-" UUID, true },
        { "agent-local-" UUID, true },
        { "agent-" UUID "x", false },
        { "agent-" UUID "/..", false },
        { "Agent-" UUID, false },
        { "agent-local-local-" UUID, false },
        { "agent-11111111-1111-1111-8111-111111111111", false }, /* version 1 */
        { "agent-11111111-1111-4111-7111-111111111111", false }, /* another variant */
        { "agent-AAAAAAAA-1111-4111-8111-111111111111", false },
        { "agent-11111111x1111-4111-8111-111111111111", false },
        { "agent-1111111-11111-4111-8111-111111111111", false },
        { "agent-", false },
        { UUID, false },
        { "../agent-" UUID, false },
        { "", false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (ids_is_agent(str_of(cases[i].id)) != cases[i].is_agent)
            fail_msg("'%s'", cases[i].id);
    assert_true(ids_is_prefixed_uuid4(str_of("block-" UUID), "block"));
    assert_false(ids_is_prefixed_uuid4(str_of("block-" UUID), "agent"));
    assert_true(ids_is_prefixed_uuid4(str_of(IDS_DEFAULT_ORG), "org"));
    assert_true(ids_is_prefixed_uuid4(str_of(IDS_DEFAULT_USER), "user"));
    assert_false(ids_is_agent(str_make("agent-" UUID "\0", 43)));
}

static void synthetic_ids_are_the_reference_s(void **state)
{
    char id[IDS_BLOCK_LEN + 1];

    (void)state;
    ids_block_synthetic(str_of("agent-" UUID), str_of("system/human"), id);
    assert_string_equal(id, "block-10a9b9d0-173a-3f4e-0cb8-fd0c3c6122c3");
}

/* K4: the id is a function of agent and label, in the shape that clients validate. */
static void test_K4_our_ids_are_the_same_bits_as_a_uuid4(void **state)
{
    char id[IDS_BLOCK_LEN + 1], again[IDS_BLOCK_LEN + 1];

    (void)state;
    ids_block(str_of("agent-" UUID), str_of("system/human"), id);
    assert_string_equal(id, "block-10a9b9d0-173a-4f4e-8cb8-fd0c3c6122c3");
    assert_true(ids_is_prefixed_uuid4(str_of(id), "block"));
    ids_block(str_of("agent-" UUID), str_of("system/human"), again);
    assert_string_equal(id, again);
    ids_block(str_of("agent-" UUID), str_of("system/persona"), again);
    assert_string_not_equal(id, again);
}

static void test_8_3_names_of_shared_repositories_are_folders_beside_an_agents_own(void **state)
{
    static const char *const good[] = { "a",        "team-notes", "A.b_C-9", "memory2",
                                        "memories", "...",        "git" };
    static const char *const bad[] = {
        "",
        ".",
        "..",
        "memory",
        "MEMORY",
        "Memory-Worktrees",
        "memory-backup-1",
        "memory-git-clone-tmp",
        "memory.checkout",
        "memory.checkout-2",
        "x.git",
        "x.Lock",
        "a b",
        " a",
        "a/b",
        "a\\b",
        "\xc3\xa4",
        "a:b",
        "65characters-65characters-65characters-65characters-65characters-",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (ids_shared_name_fault(str_of(good[i])) != NULL)
            fail_msg("'%s'", good[i]);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (ids_shared_name_fault(str_of(bad[i])) == NULL)
            fail_msg("'%s'", bad[i]);
    assert_non_null(ids_shared_name_fault(str_make("a\0b", 3)));
    assert_true(ids_is_memory(str_of("repo-" UUID)) && ids_is_shared(str_of("repo-" UUID)));
    assert_false(ids_is_agent(str_of("repo-" UUID)));
    assert_true(ids_is_memory(str_of("agent-" UUID)));
    assert_false(ids_is_shared(str_of("agent-" UUID)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_T01_only_whole_uuid4_names_are_agents),
        cmocka_unit_test(synthetic_ids_are_the_reference_s),
        cmocka_unit_test(test_K4_our_ids_are_the_same_bits_as_a_uuid4),
        cmocka_unit_test(test_8_3_names_of_shared_repositories_are_folders_beside_an_agents_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
