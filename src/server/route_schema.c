/*
 * route_schema.c - the objects that are answered, field by field, in the order in which they are
 * written (shape.c and its neighbours).
 */
#include "server/route_doc.h"

const char DOC_NEEDED[] = "needed", DOC_MAYBE[] = "maybe";

#define END                                                                                        \
    {                                                                                              \
        NULL, NULL, NULL, NULL                                                                     \
    }

static const doc_field ERROR[] = {
    { "message", "text", DOC_MAYBE, "of shared repositories: the same" },
    { "detail", "text", NULL, "what is wrong, for people" },
    END,
};

static const doc_field VALIDATION_ERROR[] = {
    { "trace_id", "text", NULL, "always empty" },
    { "detail", "text", NULL, "the list of errors as Python prints it, as Letta's server does" },
    { "examples", "text[]", DOC_MAYBE, "when an id in the path is bad: a good one" },
    END,
};

static const doc_field BLOCK[] = {
    { "value", "text", NULL, "the text of the file, without its front matter" },
    { "limit", "int", NULL, "characters; told, not enforced" },
    { "project_id", "text?", NULL, "always null" },
    { "template_name", "text?", NULL, "always null" },
    { "is_template", "bool", NULL, "always false" },
    { "template_id", "text?", NULL, "always null" },
    { "base_template_id", "text?", NULL, "always null" },
    { "deployment_id", "text?", NULL, "always null" },
    { "entity_id", "text?", NULL, "always null" },
    { "preserve_on_migration", "bool?", NULL, "always false" },
    { "label", "text", NULL, "the file's path without `.md`" },
    { "read_only", "bool", NULL, "agents' tokens may not change it" },
    { "description", "text?", NULL, "of the front matter" },
    { "metadata", "object?", NULL, "of the front matter" },
    { "hidden", "bool?", NULL, "true: left out of lists over all agents" },
    { "id", "block_id", NULL, "the same after a rebuild and on every machine" },
    { "created_by_id", "text?", NULL, "always null" },
    { "last_updated_by_id", "text?", NULL, "always null" },
    { "tags", "text[]", NULL, "in an agent's object always empty" },
    END,
};

static const doc_field MEMORY[] = {
    { "agent_type", "text", NULL, "as of the agent" },
    { "git_enabled", "bool", NULL, "always true" },
    { "blocks", "Block[]", NULL, "by id" },
    { "file_blocks", "any[]", NULL, "always empty" },
    { "prompt_template", "text", NULL, "always empty" },
    END,
};

static const doc_field AGENT_STATE[] = {
    { "created_by_id", "text?", NULL, "always null" },
    { "last_updated_by_id", "text?", NULL, "always null" },
    { "created_at", "time", NULL, "when memfs first knew it" },
    { "updated_at", "time", NULL, "when it last changed, but for its memory" },
    { "id", "agent_id", NULL, "" },
    { "name", "text", NULL, "its id where it has none" },
    { "tool_rules", "any[]", NULL, "" },
    { "message_ids", "any[]", NULL, "" },
    { "system", "text", NULL, "" },
    { "agent_type", "text", NULL, "" },
    { "llm_config", "object?", NULL, "" },
    { "embedding_config", "object?", NULL, "" },
    { "model", "text?", NULL, "" },
    { "embedding", "text?", NULL, "" },
    { "model_settings", "object?", NULL, "" },
    { "compaction_settings", "object?", NULL, "" },
    { "response_format", "object?", NULL, "" },
    { "description", "text?", NULL, "" },
    { "metadata", "object?", NULL, "" },
    { "memory", "Memory", NULL, "with the same blocks" },
    { "blocks", "Block[]", NULL, "empty unless that relation is asked for" },
    { "tools", "any[]", NULL, "" },
    { "sources", "any[]", NULL, "" },
    { "tags", "text[]", NULL,
      "with `git-memory-enabled`; empty unless that relation is asked for" },
    { "tool_exec_environment_variables", "any[]", NULL, "" },
    { "secrets", "any[]", NULL, "" },
    { "project_id", "text?", NULL, "" },
    { "template_id", "text?", NULL, "" },
    { "base_template_id", "text?", NULL, "" },
    { "deployment_id", "text?", NULL, "" },
    { "entity_id", "text?", NULL, "" },
    { "identity_ids", "any[]", NULL, "" },
    { "identities", "any[]", NULL, "" },
    { "pending_approval", "object?", NULL, "" },
    { "message_buffer_autoclear", "bool", NULL, "" },
    { "enable_sleeptime", "bool?", NULL, "" },
    { "multi_agent_group", "object?", NULL, "" },
    { "managed_group", "object?", NULL, "" },
    { "last_run_completion", "time?", NULL, "" },
    { "last_run_duration_ms", "int?", NULL, "" },
    { "last_stop_reason", "text?", NULL, "" },
    { "timezone", "text?", NULL, "" },
    { "max_files_open", "int?", NULL, "" },
    { "per_file_view_window_char_limit", "int?", NULL, "" },
    { "hidden", "bool?", NULL, "" },
    END,
};

static const doc_field CREATE_BLOCK[] = {
    { "label", "text", NULL, "needed: the file's path without `.md`" },
    { "value", "text?", DOC_MAYBE, "empty without it" },
    { "description", "text?", DOC_MAYBE, "" },
    { "limit", "int?", DOC_MAYBE, "" },
    { "read_only", "bool?", DOC_MAYBE, "" },
    { "metadata", "object?", DOC_MAYBE, "" },
    { "tags", "text[]?", DOC_MAYBE, "" },
    { "hidden", "bool?", DOC_MAYBE, "" },
    END,
};

static const doc_field MESSAGE[] = {
    { "message", "text", NULL, "what was done, for people" },
    END,
};

static const doc_field REPOSITORY_LINK[] = {
    { "id", "text", NULL, "`repo-…`" },
    { "name", "text", NULL, "`memory` is the agent's own" },
    { "is_primary", "bool", NULL, "is it the agent's own memory?" },
    { "permissions", "'read'|'read_write'", NULL, "" },
    END,
};

static const doc_field REPOSITORY_LINKS[] = {
    { "repositories", "RepositoryLink[]", NULL, "" },
    END,
};

static const doc_field COMMIT[] = {
    { "sha", "commit", NULL, "" },
    { "parent_sha", "commit?", NULL, "its first parent" },
    { "message", "text", NULL, "" },
    { "author_type", "'agent'|'user'|'system'", NULL,
      "by the e-mail, which whoever pushes may choose" },
    { "author_id", "text", NULL, "empty where the e-mail has none" },
    { "author_name", "text", NULL, "" },
    { "timestamp", "time", NULL, "the author's" },
    { "files_changed", "text[]", NULL, "those in which it differs from each of its parents" },
    { "additions", "int", NULL, "lines, against the first parent" },
    { "deletions", "int", NULL, "lines" },
    END,
};

static const doc_field DIFF[] = {
    { "from", "commit?", NULL, "null: nothing" },
    { "to", "commit", NULL, "" },
    { "files", "FileDiff[]", NULL, "" },
    { "additions", "int", NULL, "lines" },
    { "deletions", "int", NULL, "lines" },
    { "truncated", "bool", NULL, "a file is named without its lines" },
    END,
};

static const doc_field FILE_DIFF[] = {
    { "status", "'added'|'modified'|'deleted'|'renamed'", NULL, "" },
    { "path", "text", NULL, "" },
    { "old_path", "text?", NULL, "where it was, if it was renamed" },
    { "blob", "commit?", NULL, "its id; null: deleted" },
    { "old_blob", "commit?", NULL, "null: added" },
    { "binary", "bool", NULL, "" },
    { "additions", "int", NULL, "lines" },
    { "deletions", "int", NULL, "lines" },
    { "patch", "text?", NULL, "what `git apply` takes" },
    { "truncated", "bool", NULL, "too large for lines and patch" },
    END,
};

static const doc_field REVERTED[] = {
    { "changed", "bool", NULL, "false: it was like that already" },
    { "previous_sha", "commit", NULL, "main before" },
    { "commit", "Commit", NULL, "main now" },
    END,
};

static const doc_field LINKED[] = {
    { "success", "bool", NULL, "always true" },
    { "repository", "RepositoryLink", NULL, "" },
    END,
};

static const doc_field SUCCESS[] = {
    { "success", "bool", NULL, "always true" },
    END,
};

static const doc_field REPOSITORY[] = {
    { "id", "repo_id", NULL, "" },
    { "name", "text", NULL, "" },
    { "created_at", "time", NULL, "" },
    { "updated_at", "time", NULL, "" },
    END,
};

static const doc_field REPOSITORIES[] = {
    { "repositories", "Repository[]", NULL, "" },
    { "has_next_page", "bool", NULL, "are there more behind these?" },
    END,
};

static const doc_field FILES[] = {
    { "files", "FileEntry[]", NULL, "a folder before what is in it" },
    { "ref", "commit", NULL, "which commit has them" },
    END,
};

static const doc_field FILE_ENTRY[] = {
    { "path", "text", NULL, "" },
    { "type", "'file'|'directory'", NULL, "" },
    END,
};

#define SHA256_OF_CONTENT                                                                          \
    {                                                                                              \
        "content_sha256", "text", NULL, "of its bytes, 64 hex digits"                              \
    }

static const doc_field COMMITTED[] = {
    { "path", "text", NULL, "where it is now" },
    SHA256_OF_CONTENT,
    { "commit_sha", "commit", NULL, "main now" },
    END,
};

static const doc_field REMOVED[] = {
    { "success", "bool", NULL, "always true" },
    { "commit_sha", "commit", NULL, "main now" },
    END,
};

static const doc_field ONE_FILE[] = {
    { "path", "text", NULL, "" },
    { "content", "text", NULL, "" },
    SHA256_OF_CONTENT,
    { "ref", "commit", NULL, "which commit has it" },
    END,
};

static const doc_field FILE_VERSION[] = {
    { "path", "text", NULL, "" },
    { "content", "text", NULL, "" },
    SHA256_OF_CONTENT,
    { "sha", "commit", NULL, "which commit has it" },
    END,
};

static const doc_field VERSIONS[] = {
    { "path", "text", DOC_MAYBE, "where it was asked for" },
    { "commits", "Version[]", NULL, "newest first" },
    END,
};

static const doc_field VERSION[] = {
    { "sha", "commit", NULL, "" },
    { "message", "text", NULL, "" },
    { "timestamp", "time", NULL, "the author's" },
    { "author_name", "text", NULL, "" },
    END,
};

static const doc_field PRECONDITION[] = {
    { "type", "'content_sha256'", NULL, "" },
    SHA256_OF_CONTENT,
    END,
};

static const doc_field FOUND[] = {
    { "results", "Hit[]", NULL, "the best first" },
    { "is_partial", "bool", NULL, "not everything was looked at yet" },
    END,
};

static const doc_field HIT[] = {
    { "agent_id", "text?", NULL, "whose memory; null: of a block that is attached to nobody" },
    { "path", "text", NULL, "" },
    { "label", "text?", NULL, "of the block, if it is one" },
    { "block_id", "block_id?", NULL, "" },
    { "score", "number", NULL, "higher is better" },
    { "field", "'label'|'description'|'value'|'file'", NULL, "where it was found" },
    { "snippet", "text", NULL, "a piece of it" },
    { "snippet_start", "int", NULL, "the byte of the field at which the snippet begins" },
    { "matches", "Match[]", NULL, "what in the field was looked for" },
    { "blob", "commit?", NULL, "the file's id" },
    { "commit", "commit?", NULL, "of history: which commit wrote it" },
    { "gone_by", "commit?", NULL, "of history: which commit took it away" },
    { "updated_at", "time?", NULL, "" },
    END,
};

static const doc_field MATCH[] = {
    { "start", "int", NULL, "bytes of the field" },
    { "end", "int", NULL, "" },
    END,
};

static const doc_field FILE_CHANGE[] = {
    { "path", "text", NULL, "needed" },
    { "content", "text?", DOC_MAYBE, "null, or without it: the file goes" },
    { "change_type", "'add'|'modify'|'delete'", DOC_MAYBE,
      "`modify` without it; `add`: 409 where another file is" },
    END,
};

static const doc_field HEALTH[] = {
    { "version", "text", NULL, "of memfs" },
    { "status", "'ok'|'starting'", NULL, "" },
    { "upstream", "UpstreamHealth", DOC_MAYBE, "in front of a Letta server: how that one is" },
    END,
};

static const doc_field UPSTREAM_HEALTH[] = {
    { "version", "text", DOC_MAYBE, "when it said one" },
    { "status", "'ok'|'unavailable'", NULL, "" },
    { "reason", "text", DOC_MAYBE, "when it is unavailable" },
    END,
};

static const doc_field ACCEPTED[] = {
    { "accepted", "bool", NULL, "always true" },
    END,
};

static const doc_field STATUS[] = {
    { "status", "'ok'|'starting'", NULL, "" },
    END,
};

const doc_schema DOC_SCHEMAS[] = {
    { "Error", "Any refusal but a 422.", ERROR },
    { "ValidationError", "A 422: everything that is wrong with a request at once.",
      VALIDATION_ERROR },
    { "Block", "One file of a memory.", BLOCK },
    { "Memory", "The memory object of an agent.", MEMORY },
    { "AgentState",
      "An agent in the shape of Letta's; what a server of memories cannot know is neutral.",
      AGENT_STATE },
    { "CreateBlock", "A block that a new agent begins with.", CREATE_BLOCK },
    { "Message", "That it is done.", MESSAGE },
    { "RepositoryLink", "A repository as an agent sees it.", REPOSITORY_LINK },
    { "RepositoryLinks", "The repositories of an agent.", REPOSITORY_LINKS },
    { "Commit", "A commit of a memory.", COMMIT },
    { "Diff", "What differs between two commits.", DIFF },
    { "FileDiff", "What differs in one file.", FILE_DIFF },
    { "Reverted", "What was brought back.", REVERTED },
    { "Repository", "A shared repository.", REPOSITORY },
    { "Repositories", "A page of them.", REPOSITORIES },
    { "Linked", "A link was made, or changed.", LINKED },
    { "Success", "It is done.", SUCCESS },
    { "Files", "What is in a repository.", FILES },
    { "FileEntry", "A file or folder.", FILE_ENTRY },
    { "File", "A file.", ONE_FILE },
    { "FileVersion", "A file as a commit has it.", FILE_VERSION },
    { "Committed", "A file was written.", COMMITTED },
    { "Removed", "A file was deleted.", REMOVED },
    { "Versions", "Commits of a repository.", VERSIONS },
    { "Version", "One of them.", VERSION },
    { "Precondition", "What the caller believes to be there.", PRECONDITION },
    { "Found", "What was found.", FOUND },
    { "Hit", "A text that was found.", HIT },
    { "Match", "Where in a field.", MATCH },
    { "FileChange", "What becomes of one file.", FILE_CHANGE },
    { "Accepted", "The body of a webhook has proven itself.", ACCEPTED },
    { "Health", "How the server is.", HEALTH },
    { "UpstreamHealth", "How the Letta server behind it is.", UPSTREAM_HEALTH },
    { "Status", "Whether the server is ready.", STATUS },
    { NULL, NULL, NULL },
};

const doc_schema *doc_schema_find(memfs_str name)
{
    for (const doc_schema *s = DOC_SCHEMAS; s->name != NULL; s++)
        if (str_equal(name, str_of(s->name)))
            return s;
    return NULL;
}
