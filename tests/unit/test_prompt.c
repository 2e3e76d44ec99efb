#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "memory/prompt.h"

/*
 * What a Letta server's own code (letta==0.16.7, Memory.compile and PromptGenerator) made of the
 * same blocks, with their names as its tests had them.
 */
#define METADATA                                                                                   \
    "\n\n<memory_metadata>\n- AGENT_ID: agent-5d1c2f3a-0b1e-4c7d-9a2b-6f0e1d2c3b4a\n"              \
    "- CONVERSATION_ID: default\n- System prompt last recompiled: 2026-01-02 03:04:05 PM "         \
    "UTC+0000\n- 0 previous messages between you and the user are stored in recall memory\n"       \
    "</memory_metadata>"

typedef struct prompt_case {
    const char *system;
    prompt_block blocks[16];
    size_t n;
    const char *expected;
} prompt_case;

#define B(label, value, description)                                                               \
    {                                                                                              \
        { label, sizeof(label) - 1 }, { value, sizeof(value) - 1 },                                \
        {                                                                                          \
            description, sizeof(description) - 1                                                   \
        }                                                                                          \
    }

static const prompt_case CASES[] = {
    { "",
      { B("", "", "") },
      0,
      "\n"
      "\n" METADATA },
    { "S {CORE_MEMORY} E {CORE_MEMORY}",
      { B("notes", "x", "d") },
      1,
      "S " METADATA " E " METADATA },
    { "Sys",
      { B("system/persona", "I am.\n\n", "p") },
      1,
      "Sys\n"
      "\n"
      "\n"
      "\n"
      "Reminder: <projection> contains the local path of the memory file projection.\n"
      "\n"
      "<self>\n"
      "<projection>$MEMORY_DIR/system/persona.md</projection>\n"
      "I am.\n"
      "</self>" METADATA },
    { "Sys",
      { B("system/human", "Likes tea.\nAnd milk.\n", " About \n"), B("system/a/b", "", "d"),
        B("system/a", "A", ""), B("system/Z", "z", "z\n"), B("system/persona", "me", "x"),
        B("notes", "n", "d"), B("notes-1", "n", "d"), B("notes/deep/x", "n", "d"),
        B("skills/brew", "b", "d"), B("ä/é", "ü", "ö"), B("zz", "", ""), B("notes/a", "", "") },
      12,
      "Sys\n"
      "\n"
      "\n"
      "\n"
      "Reminder: <projection> contains the local path of the memory file projection.\n"
      "\n"
      "<self>\n"
      "<projection>$MEMORY_DIR/system/persona.md</projection>\n"
      "me\n"
      "</self>\n"
      "\n"
      "<memory>\n"
      "<Z>\n"
      "  <projection>$MEMORY_DIR/system/Z.md</projection>\n"
      "  <description>z</description>\n"
      "  z\n"
      "</Z>\n"
      "<a>\n"
      "  <projection>$MEMORY_DIR/system/a.md</projection>\n"
      "  A\n"
      "  <b>\n"
      "    <projection>$MEMORY_DIR/system/a/b.md</projection>\n"
      "    <description>d</description>\n"
      "  </b>\n"
      "</a>\n"
      "<human>\n"
      "  <projection>$MEMORY_DIR/system/human.md</projection>\n"
      "  <description>About</description>\n"
      "  Likes tea.\n"
      "And milk.\n"
      "</human>\n"
      "<external_projection>\n"
      "${MEMORY_DIR}/\n"
      "├── notes/\n"
      "│   ├── deep/\n"
      "│   │   └── x.md\n"
      "│   └── a.md\n"
      "├── ä/\n"
      "│   └── é.md\n"
      "├── notes-1.md\n"
      "├── notes.md\n"
      "└── zz.md\n"
      "</external_projection>\n"
      "</memory>" METADATA },
};

static void test_7_the_prompt_is_what_a_letta_server_makes_of_the_same_blocks(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
        const prompt_agent agent = { .id = MEMFS_STR("agent-5d1c2f3a-0b1e-4c7d-9a2b-6f0e1d2c3b4a"),
                                     .system = str_of(CASES[i].system),
                                     .compiled_at_us = 1767366245000000 };
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 16);

        prompt_compile(&agent, CASES[i].blocks, CASES[i].n, &out);
        assert_string_equal(out.ptr, CASES[i].expected);
    }
}

static void test_the_prompt_is_bounded_and_takes_any_bytes(void **state)
{
    const prompt_block odd[] = { B("system/\xff\0x", "\0\xfe", "\n"), B("system//", "v", ""),
                                 B("/", "", "") };
    const prompt_agent agent = { .id = MEMFS_STR("agent-x"), .system = MEMFS_STR("{CORE_MEMORY") };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 16), small = MEMFS_BUF_INIT(100);
    memfs_error err;

    (void)state;
    prompt_compile(&agent, odd, ARRAY_LEN(odd), &out);
    assert_non_null(memmem(out.ptr, out.len, "\0\xfe", 2));
    prompt_compile(&agent, odd, ARRAY_LEN(odd), &small);
    assert_int_equal(buf_check(&small, "the prompt", &err), MEMFS_ELIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_7_the_prompt_is_what_a_letta_server_makes_of_the_same_blocks),
        cmocka_unit_test(test_the_prompt_is_bounded_and_takes_any_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
