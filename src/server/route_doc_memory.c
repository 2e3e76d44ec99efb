/* route_doc_memory.c - the rows of a memory as a whole, which Letta's API does not have. */
#include "server/route_doc_int.h"

#define GET HTTP_GET
#define POST HTTP_POST

#define WHICH                                                                                      \
    { "label", "text", NULL, "the file in which a block of that label is" },                       \
    {                                                                                              \
        "path", "text", NULL, "this or `label`"                                                    \
    }

static const doc_field HISTORY[] = {
    WHICH,
    { "before", "text", NULL, "a commit: the list goes on after it" },
    { "limit", "int", "50", "at most so many; 0, and what is larger: 1,000" },
    END,
};

static const doc_field DIFF[] = {
    { "from", "text", NULL, "a commit; without it, the first parent of `to`" },
    { "to", "text", NULL, "a commit; without it, main" },
    WHICH,
    { "patch", "bool", "true", "with the patches" },
    END,
};

static const doc_field AT[] = {
    { "label", "text", NULL, "that block alone" },
    END,
};

static const doc_field REVERT[] = {
    { "commit", "text", DOC_NEEDED, "what to bring back is as that commit has it" },
    WHICH,
    { "expected_version", "text", NULL,
      "main's commit or the file's blob, as the caller knows it" },
    END,
};

static const doc_field SEARCH[] = {
    { "q", "text", DOC_NEEDED, "words, all of them; `\"a phrase\"`; `begin*`" },
    { "agent", "agent_id", NULL, "in that memory alone" },
    { "path", "text", NULL, "a file, or a folder" },
    { "in", "'current'|'history'", "\"current\"", "also what was changed or deleted" },
    { "show_hidden_blocks", "bool", "false", "also in hidden blocks" },
    { "limit", "int", "20", "at most so many; 0: as many as it answers" },
    END,
};

static const doc_field COMMIT[] = {
    { "changes", "FileChange[]", DOC_NEEDED, "at most 2,000: all of them or none" },
    { "message", "text", NULL, "at most 2,000 bytes" },
    { "expected_version", "text", NULL, "main's commit as the caller knows it" },
    END,
};

const route_doc MEMORY_DOCS[] = {
    { POST, "/v1/agents/{agent}/memory/commit", DOC_MEMORY, "Commit",
      .more = "Main as it is, where nothing was to be changed.", .headers = DOC_CHANGE,
      .body = COMMIT, .errors = "409 507" },
    { GET, "/v1/agents/{agent}/memory/history", DOC_MEMORY, "Commit[]", .query = { HISTORY },
      .headers = DOC_KNOWN },
    { GET, "/v1/agents/{agent}/memory/diff", DOC_MEMORY, "Diff", .query = { DIFF } },
    { GET, "/v1/agents/{agent}/memory/at/{commit}/blocks", DOC_MEMORY, "Block[]", .query = { AT } },
    { POST, "/v1/agents/{agent}/memory/revert", DOC_MEMORY, "Reverted", .headers = DOC_CHANGE,
      .body = REVERT, .errors = "409 507" },
    { GET, "/v1/search", DOC_SEARCH, "Found", .query = { SEARCH } },
    { .pattern = NULL },
};
