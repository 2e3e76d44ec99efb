/* route_doc_letta.c - the rows of Letta's API: agents and blocks. */
#include "server/route_doc_int.h"

#define GET HTTP_GET
#define POST HTTP_POST
#define PATCH HTTP_PATCH
#define DELETE HTTP_DELETE

/* ---- queries ---- */

#define LIMIT(n)                                                                                   \
    {                                                                                              \
        "limit", "int", n, "at most so many; 0: all"                                               \
    }
#define ORDER(absent)                                                                              \
    {                                                                                              \
        "order", "'asc'|'desc'", "\"" absent "\"", "oldest or newest first"                        \
    }
#define BY_CREATION                                                                                \
    {                                                                                              \
        "order_by", "'created_at'", "\"created_at\"", "the one order that there is"                \
    }

static const doc_field AGENT_PAGE[] = {
    LIMIT("50"),
    ORDER("desc"),
    { "order_by", "'created_at'|'updated_at'|'last_run_completion'", "\"created_at\"",
      "no agent ran here, so the last of them is the first" },
    END,
};

static const doc_field BLOCK_PAGE[] = { LIMIT("50"), ORDER("asc"), BY_CREATION, END };
static const doc_field AGENTS_OF_BLOCK_PAGE[] = { LIMIT("50"), ORDER("desc"), BY_CREATION, END };

static const doc_field BLOCKS_OF_AGENT_PAGE[] = {
    LIMIT("100"),
    { "order", "'asc'|'desc'", "\"desc\"", "by block id" },
    { "order_by", "'created_at'", "\"created_at\"",
      "despite its name the order is by block id, as in Letta's server" },
    END,
};

#define NOBODY_HAS "accepted, and matches nothing: nobody here has one"

static const doc_field AGENT_FILTERS[] = {
    { "name", "text", NULL, "equals" },
    { "query_text", "text", NULL, "part of the name, in any case" },
    { "tags", "text[]", NULL, "any of them; every agent has `git-memory-enabled`" },
    { "match_all_tags", "bool", "false", "all of them" },
    { "show_hidden_agents", "bool", "false", "also hidden ones; a count counts them in any case" },
    { "deleted", "bool", "false", "those that were deleted, and can be brought back" },
    { "project_id", "text", NULL, NOBODY_HAS },
    { "template_id", "text", NULL, NOBODY_HAS },
    { "base_template_id", "text", NULL, NOBODY_HAS },
    { "identity_id", "text", NULL, NOBODY_HAS },
    { "identifier_keys", "text[]", NULL, NOBODY_HAS },
    { "created_by_id", "text", NULL, NOBODY_HAS },
    { "last_stop_reason", "text", NULL, NOBODY_HAS },
    END,
};

#define INCLUDE                                                                                    \
    {                                                                                              \
        "include",                                                                                 \
            "'agent.blocks'|'agent.identities'|'agent.managed_group'|'agent.pending_approval'|"    \
            "'agent.secrets'|'agent.sources'|'agent.tags'|'agent.tools'[]",                        \
            NULL, "relations to show; `agent.blocks` also shows the tags"                          \
    }

static const doc_field RELATIONS[] = {
    INCLUDE,
    { "include_relationships", "text[]", NULL, "the older name: `memory` and `tags`" },
    END,
};
static const doc_field RELATIONS_OF_BLOCK[] = { INCLUDE, END };

static const doc_field COUNTED_BLOCK_FILTERS[] = {
    { "label", "text", NULL, "equals; 1 to 50 of `[a-zA-Z0-9_/-]`" },
    { "tags", "text[]", NULL, "any of them" },
    { "match_all_tags", "bool", "false", "all of them; one that is given twice never matches" },
    { "templates_only", "bool", "false", "true matches nothing: there are no templates" },
    { "name", "text", NULL, "of a template: " NOBODY_HAS },
    { "project_id", "text", NULL, NOBODY_HAS },
    END,
};

static const doc_field BLOCK_FILTERS[] = {
    { "label_search", "text", NULL,
      "part of the label, in any case; same characters; ignored beside `label`" },
    { "description_search", "text", NULL,
      "part of the description, in any case, 1 to 200 characters; `%` and `_` are wildcards" },
    { "value_search", "text", NULL, "the same of the value" },
    { "connected_to_agents_count_gt", "int", NULL,
      "more agents than that; with one of these three the order is by id" },
    { "connected_to_agents_count_lt", "int", NULL, "fewer; also blocks that nobody has" },
    { "connected_to_agents_count_eq", "int[]", NULL, "so many, or so many" },
    { "show_hidden_blocks", "bool", "false", "also hidden ones" },
    { "identity_id", "text", NULL, "`identity-<uuid4>`; " NOBODY_HAS },
    { "identifier_keys", "text[]", NULL, NOBODY_HAS },
    END,
};

static const doc_field TAGS[] = {
    { "name", "text", NULL, "part of the tag, in any case; `%` and `_` are wildcards" },
    { "query_text", "text", NULL, "the older name of the same; ignored beside `name`" },
    { "before", "text", NULL, "a tag: those that come before it, in the order that is asked for" },
    { "after", "text", NULL, "a tag: those that come after it; neither has to exist" },
    LIMIT("50"),
    { "order", "'asc'|'desc'", "\"asc\"", "from A to Z by code points, or backwards" },
    { "order_by", "'name'", "\"name\"", "the one order that there is" },
    END,
};

static const doc_field SYNC[] = {
    { "recompile", "'true'|'false'|'auto'", "\"false\"",
      "is a Letta server to make the agent's system prompt anew? `auto`: if `system/` changed" },
    END,
};

static const doc_field RECOMPILE[] = {
    { "update_timestamp", "bool", "false", "date it now, not when its newest block was made" },
    { "dry_run", "bool", "false", "do not have a Letta server make its own anew" },
    END,
};

/* ---- bodies ---- */

/* What is kept and answered as it was told. */
#define KEPT_FIELDS                                                                                \
    { "tags", "text[]", NULL, "the whole set; the git tag stays in any case" },                    \
        { "description", "text", NULL, "" }, { "metadata", "object", NULL, "" },                   \
        { "system", "text", NULL, "the prompt into which the memory is put" },                     \
        { "agent_type", "text", NULL, "" }, { "model", "text", NULL, "" },                         \
        { "embedding", "text", NULL, "" }, { "llm_config", "object", NULL, "" },                   \
        { "embedding_config", "object", NULL, "" }, { "model_settings", "object", NULL, "" },      \
        { "compaction_settings", "object", NULL, "" }, { "response_format", "object", NULL, "" },  \
        { "tool_rules", "any[]", NULL, "" }, { "project_id", "text", NULL, "" },                   \
        { "template_id", "text", NULL, "" }, { "base_template_id", "text", NULL, "" },             \
        { "message_buffer_autoclear", "bool", NULL, "" },                                          \
        { "enable_sleeptime", "bool", NULL, "" }, { "timezone", "text", NULL, "" },                \
        { "max_files_open", "int", NULL, "" },                                                     \
        { "per_file_view_window_char_limit", "int", NULL, "" },                                    \
    {                                                                                              \
        "hidden", "bool", NULL, "left out of lists"                                                \
    }

static const doc_field NEW_AGENT[] = {
    { "name", "text", NULL, "letters, digits, blanks, `_`, `-`, `'`; without it, its id" },
    { "memory_blocks", "CreateBlock[]", NULL,
      "its first memory, one commit; with the git tag, labels get `system/` before them" },
    { "block_ids", "block_id[]", NULL, "blocks that are there, attached by the same commit" },
    { "id", "agent_id", NULL, "which id it is to have" },
    KEPT_FIELDS,
    END,
};

static const doc_field CHANGED_AGENT[] = {
    { "name", "text", NULL, "1 to 256 bytes" },
    { "block_ids", "block_id[]", NULL,
      "all blocks that it is to have: others are detached, in the same commit" },
    KEPT_FIELDS,
    END,
};

#define BLOCK_FIELDS                                                                               \
    { "value", "text", NULL, "the text; empty is a value, null is none" },                         \
        { "description", "text", NULL, "" }, { "limit", "int", NULL, "characters" },               \
        { "read_only", "bool", NULL, "agents' tokens may not change it" },                         \
        { "metadata", "object", NULL, "" }, { "tags", "text[]", NULL, "the whole set" },           \
        { "hidden", "bool", NULL, "left out of lists over all agents" },                           \
    {                                                                                              \
        "is_template", "bool", NULL, "accepted; there are no templates"                            \
    }

static const doc_field NEW_BLOCK[] = {
    { "label", "text", DOC_NEEDED, "the file's path without `.md`, once it is attached" },
    BLOCK_FIELDS,
    END,
};

static const doc_field CHANGED_BLOCK[] = {
    { "label", "text", NULL, "another renames the file; id and attributes stay" },
    BLOCK_FIELDS,
    { "expected_version", "text", NULL, "a commit or blob id: 409 if it is another by now" },
    END,
};

/* ---- the routes ---- */

const route_doc LETTA_DOCS[] = {
    { GET, "/v1/agents", DOC_AGENTS, "AgentState[]",
      .query = { AGENT_FILTERS, DOC_CURSORS, AGENT_PAGE, RELATIONS }, .headers = DOC_KNOWN },
    { GET, "/v1/agents/count", DOC_AGENTS, "int", .query = { AGENT_FILTERS } },
    { GET, "/v1/agents/{agent}", DOC_AGENTS, "AgentState", .query = { RELATIONS },
      .headers = DOC_KNOWN },
    { POST, "/v1/agents", DOC_AGENTS, "AgentState", .headers = DOC_REASON, .body = NEW_AGENT,
      .errors = "409 507" },
    { PATCH, "/v1/agents/{agent}", DOC_AGENTS, "AgentState",
      .more = "What is null or absent stays as it is.", .headers = DOC_REASON,
      .body = CHANGED_AGENT, .errors = "409 507" },
    { DELETE, "/v1/agents/{agent}", DOC_AGENTS, "Message",
      .more = "Git and REST answer 404 from then on." },
    { POST, "/v1/agents/{agent}/restore", DOC_AGENTS, "AgentState" },
    { POST, "/v1/agents/{agent}/recompile", DOC_AGENTS, "text", .query = { RECOMPILE } },
    { POST, "/v1/agents/{agent}/system-prompt/recompile", DOC_AGENTS, "text",
      .query = { RECOMPILE } },
    { GET, "/v1/agents/{agent}/core-memory", DOC_AGENTS, "Memory", .headers = DOC_KNOWN },
    { GET, "/v1/agents/{agent}/core-memory/blocks", DOC_AGENTS, "Block[]",
      .query = { DOC_CURSORS, BLOCKS_OF_AGENT_PAGE }, .headers = DOC_KNOWN },
    { GET, "/v1/agents/{agent}/core-memory/blocks/{label...}", DOC_AGENTS, "Block",
      .more = "Labels match exactly.", .headers = DOC_KNOWN },
    { PATCH, "/v1/agents/{agent}/core-memory/blocks/attach/{id}", DOC_AGENTS, "AgentState",
      .query = { SYNC }, .headers = DOC_CHANGE, .errors = "409 507" },
    { PATCH, "/v1/agents/{agent}/core-memory/blocks/detach/{id}", DOC_AGENTS, "AgentState",
      .query = { SYNC }, .headers = DOC_CHANGE, .errors = "409 507" },
    { PATCH, "/v1/agents/{agent}/core-memory/blocks/{label...}", DOC_AGENTS, "Block",
      .more = "What is null or absent stays as it is.", .query = { SYNC }, .headers = DOC_CHANGE,
      .body = CHANGED_BLOCK, .errors = "409 507" },
    { GET, "/v1/agents/{agent}/secrets", DOC_AGENTS, "any[]",
      .more = "Also of an agent that nobody knows yet: clients ask before the first push." },
    { GET, "/v1/agents/{agent}/repositories", DOC_AGENTS, "RepositoryLinks",
      .more = "Also of an agent that nobody knows yet: clients ask before the first push." },
    { POST, "/v1/agents/{agent}/memory/sync-from-git", DOC_AGENTS, "Block[]",
      .more = "In the order of the tree.", .query = { SYNC } },

    { GET, "/v1/blocks", DOC_BLOCKS, "Block[]",
      .query = { COUNTED_BLOCK_FILTERS, BLOCK_FILTERS, DOC_CURSORS, BLOCK_PAGE },
      .headers = DOC_KNOWN },
    { POST, "/v1/blocks", DOC_BLOCKS, "Block", .body = NEW_BLOCK },
    { PATCH, "/v1/blocks/{id}", DOC_BLOCKS, "Block",
      .more = "What is null or absent stays as it is.", .query = { SYNC }, .headers = DOC_CHANGE,
      .body = CHANGED_BLOCK, .errors = "404 409 507" },
    { DELETE, "/v1/blocks/{id}", DOC_BLOCKS, "null", .headers = DOC_CHANGE,
      .errors = "404 409 507" },
    { GET, "/v1/blocks/count", DOC_BLOCKS, "int",
      .more = "Hidden ones are counted, and copies of a block once.",
      .query = { COUNTED_BLOCK_FILTERS } },
    { GET, "/v1/blocks/{id}", DOC_BLOCKS, "Block", .headers = DOC_KNOWN, .errors = "404" },
    { GET, "/v1/blocks/{id}/agents", DOC_BLOCKS, "AgentState[]",
      .more = "None of an unknown block.",
      .query = { DOC_CURSORS, AGENTS_OF_BLOCK_PAGE, RELATIONS_OF_BLOCK }, .headers = DOC_KNOWN },

    { GET, "/v1/tags", DOC_TAGS, "text[]", .query = { TAGS }, .headers = DOC_KNOWN },
    { .pattern = NULL },
};
