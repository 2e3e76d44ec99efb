/*
 * routes.c - everything that can be asked, in one table.
 *
 * The first row that matches a path and method is served, so fixed names stand before variables.  A
 * path that some row knows under another method is 405 with Allow.  What a route takes and answers
 * is in route_doc.c, a row for each of these; docs/http-api.md and /openapi.json are made of both.
 */
#include "server/app.h"
#include "server/route_doc.h"

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)

#define GET HTTP_GET
#define POST HTTP_POST
#define PATCH HTTP_PATCH
#define DELETE HTTP_DELETE
#define OPEN HTTP_ACCESS_OPEN
#define AGENT HTTP_ACCESS_AGENT
#define SHARED HTTP_ACCESS_SHARED
#define ALL HTTP_ACCESS_ALL
#define ADMIN HTTP_ACCESS_ADMIN
#define OWNER HTTP_ACCESS_OWNER
#define HOOK HTTP_ACCESS_HOOK
#define PEER HTTP_ACCESS_PEER

#define FILE_BODY MIB(32) /* 10 MiB of text, most of it as \\u escapes */

/* The four requests of git, below one repository address. */
#define GIT_ROUTES(base, what)                                                                     \
    { GET, base "/info/refs", HTTP_BODY, AGENT, git_info_refs, 0, "git: what is there" what,       \
      git_info_refs_quick },                                                                       \
    { POST, base "/git-upload-pack", HTTP_STREAM, AGENT, git_upload_pack, MIB(10),                 \
      "git: clone and fetch" what, git_upload_pack_quick },                                        \
    { POST, base "/git-receive-pack", HTTP_STREAM, AGENT, git_receive_pack, MIB(72),               \
      "git: push" what }

const http_route APP_ROUTES[] = {
    GIT_ROUTES("/v1/git/{agent}/state.git", ""),
    GIT_ROUTES("/v1/git/{agent}", " (older address)"),
    GIT_ROUTES("/git/{agent}/state.git", " (as the memfs service of a Letta server)"),
    GIT_ROUTES("/git/{agent}", " (as a memfs service, older address)"),

    GIT_ROUTES("/v1/git/{agent}/repositories/{name}", " (a shared repository; name with .git)"),
    GIT_ROUTES("/git/{agent}/repositories/{name}", " (the same, as a memfs service)"),

    { GET, "/peer/git/{agent}/state.git/info/refs", HTTP_BODY, PEER, peer_info_refs, 0,
      "git, for the other servers of the database: what is on this one" },
    { POST, "/peer/git/{agent}/state.git/git-upload-pack", HTTP_STREAM, PEER, peer_upload_pack,
      MIB(10), "git, for the other servers: any commit that is on this one" },
    { POST, "/peer/keep/{server}/{agent}/{id}", HTTP_BODY, PEER, peer_keep, KIB(1),
      "for the other servers: that commit on the disk of this one, fetched if it is not there" },

    { GET, "/v1/agents", HTTP_BODY, ALL, agents_list, 0, "agents, a page at a time" },
    { GET, "/v1/agents/count", HTTP_BODY, ALL, agents_count, 0, "how many agents there are" },
    { GET, "/v1/agents/{agent}", HTTP_FAST, AGENT, agent_get, 0, "one agent" },
    { POST, "/v1/agents", HTTP_BODY, ADMIN, agents_create, MIB(2),
      "a new agent with its first blocks" },
    { PATCH, "/v1/agents/{agent}", HTTP_BODY, AGENT, agent_update, MIB(2),
      "an agent's name, tags and other fields" },
    { DELETE, "/v1/agents/{agent}", HTTP_BODY, ADMIN, agent_delete, KIB(64),
      "deletes an agent; its memory is kept" },
    { POST, "/v1/agents/{agent}/restore", HTTP_BODY, ADMIN, agent_restore, KIB(64),
      "brings a deleted agent back" },
    { POST, "/v1/agents/{agent}/recompile", HTTP_BODY, AGENT, agent_recompile, KIB(64),
      "the system prompt with the memory in it" },
    { POST, "/v1/agents/{agent}/system-prompt/recompile", HTTP_BODY, AGENT, agent_recompile, KIB(64),
      "the same (older address)" },
    { GET, "/v1/agents/{agent}/core-memory", HTTP_FAST, AGENT, core_memory, 0,
      "the memory object of an agent" },
    { GET, "/v1/agents/{agent}/core-memory/blocks", HTTP_FAST, AGENT, blocks_of_agent, 0,
      "the blocks of an agent, by id" },
    { GET, "/v1/agents/{agent}/core-memory/blocks/{label...}", HTTP_FAST, AGENT, block_of_agent, 0,
      "one block of an agent; the label with / or %2F" },
    { PATCH, "/v1/agents/{agent}/core-memory/blocks/attach/{id}", HTTP_BODY, AGENT, block_attach,
      KIB(64), "attaches a block to an agent: a file in its memory" },
    { PATCH, "/v1/agents/{agent}/core-memory/blocks/detach/{id}", HTTP_BODY, AGENT, block_detach,
      KIB(64), "detaches a block: its file goes, the block stays" },
    { PATCH, "/v1/agents/{agent}/core-memory/blocks/{label...}", HTTP_BODY, AGENT,
      block_patch_of_agent, MIB(2), "changes a block of an agent" },
    { GET, "/v1/agents/{agent}/secrets", HTTP_FAST, AGENT, agent_secrets, 0,
      "always an empty list" },
    { GET, "/v1/agents/{agent}/repositories", HTTP_FAST, AGENT, agent_repositories, 0,
      "the agent's own memory, and the shared repositories that it has a link to" },
    { POST, "/v1/agents/{agent}/repositories", HTTP_BODY, ADMIN, agent_repository_attach, KIB(64),
      "links a shared repository to an agent" },
    { DELETE, "/v1/agents/{agent}/repositories/{repository}", HTTP_BODY, ADMIN,
      agent_repository_detach, KIB(64), "ends such a link" },
    { POST, "/v1/agents/{agent}/memory/sync-from-git", HTTP_BODY, AGENT, sync_from_git, KIB(64),
      "brings the blocks to the repository's tip and returns them" },
    { POST, "/v1/agents/{agent}/memory/commit", HTTP_BODY, AGENT, memory_commit, MIB(24),
      "several files changed by one commit, or none" },
    { GET, "/v1/agents/{agent}/memory/history", HTTP_BODY, AGENT, memory_history, 0,
      "the commits of a memory, or of one file, newest first" },
    { GET, "/v1/agents/{agent}/memory/diff", HTTP_BODY, AGENT, memory_diff, 0,
      "what differs between two commits" },
    { GET, "/v1/agents/{agent}/memory/at/{commit}/blocks", HTTP_BODY, AGENT, memory_at, 0,
      "the blocks as they were at a commit" },
    { POST, "/v1/agents/{agent}/memory/revert", HTTP_BODY, AGENT, memory_revert, KIB(64),
      "brings a block, a file or the whole memory back to a commit, as a new commit" },

    { GET, "/v1/search", HTTP_BODY, ALL, search_get, 0,
      "text in memories, the best first; also what was deleted" },

    { GET, "/v1/blocks", HTTP_BODY, ALL, blocks_list, 0, "blocks of all agents, with filters" },
    { GET, "/v1/blocks/count", HTTP_BODY, ALL, blocks_count, 0, "how many blocks there are" },
    { GET, "/v1/blocks/{id}", HTTP_FAST, ALL, block_get, 0, "one block by id" },
    { POST, "/v1/blocks", HTTP_BODY, ADMIN, block_create, MIB(2),
      "a new block, attached to nobody" },
    { PATCH, "/v1/blocks/{id}", HTTP_BODY, ALL, block_patch_by_id, MIB(2),
      "changes a block, in each agent that has it" },
    { DELETE, "/v1/blocks/{id}", HTTP_BODY, ALL, block_delete, KIB(64),
      "removes a block from all its agents" },
    { GET, "/v1/blocks/{id}/agents", HTTP_BODY, ALL, block_agents, 0, "the agents of a block" },

    { GET, "/v1/tags", HTTP_BODY, ALL, tags_list, 0, "the tags of all agents and blocks, by name" },

    { GET, "/v1/repositories", HTTP_BODY, ALL, repositories_list, 0,
      "shared repositories, a page at a time" },
    { POST, "/v1/repositories", HTTP_BODY, ADMIN, repository_create, KIB(64),
      "a new shared repository" },
    { GET, "/v1/repositories/{repository}", HTTP_BODY, SHARED, repository_get, 0,
      "one shared repository" },
    { DELETE, "/v1/repositories/{repository}", HTTP_BODY, ADMIN, repository_delete, KIB(64),
      "deletes it; it is kept, and can be brought back" },
    { POST, "/v1/repositories/{repository}/restore", HTTP_BODY, ADMIN, repository_restore, KIB(64),
      "brings back a deleted one, with its links" },
    { GET, "/v1/repositories/{repository}/files", HTTP_BODY, SHARED, repository_files, 0,
      "its files and folders" },
    { POST, "/v1/repositories/{repository}/files", HTTP_BODY, SHARED, repository_file_create,
      FILE_BODY, "a new file" },
    { GET, "/v1/repositories/{repository}/files/content", HTTP_BODY, SHARED, repository_file_get, 0,
      "one file" },
    { POST, "/v1/repositories/{repository}/files/content", HTTP_BODY, SHARED,
      repository_file_change, FILE_BODY, "changes a file, or renames it" },
    { DELETE, "/v1/repositories/{repository}/files/content", HTTP_BODY, SHARED,
      repository_file_delete, KIB(64), "deletes a file" },
    { GET, "/v1/repositories/{repository}/versions", HTTP_BODY, SHARED, repository_versions, 0,
      "its commits, or those of one file, newest first" },
    { GET, "/v1/repositories/{repository}/versions/{id}", HTTP_BODY, SHARED, repository_version, 0,
      "a file as a commit has it" },

    { POST, "/webhooks", HTTP_STREAM, HOOK, webhook_receive, MIB(26),
      "what a git host sends; which one is told by its headers" },
    { POST, "/webhooks/{kind}", HTTP_STREAM, HOOK, webhook_receive, MIB(26),
      "the same of gitea, forgejo, github or gitlab" },

    { GET, "/v1/health", HTTP_FAST, OPEN, health_get, 0, "version and status" },
    { GET, "/v1/ready", HTTP_FAST, OPEN, ready_get, 0, "version and status, 503 while starting" },
    { GET, "/healthz", HTTP_FAST, OPEN, healthz_get, 0, "200 as long as the process answers" },
    { GET, "/readyz", HTTP_FAST, OPEN, readyz_get, 0,
      "200 once all repositories were looked at, else 503" },
    { GET, "/openapi.json", HTTP_BODY, OPEN, openapi_get, 0,
      "this page for programs: OpenAPI 3.1" },

    { POST, "/owner/verify", HTTP_STREAM, OWNER, owner_verify, KIB(256),
      "compares rows with git, both ways, and runs fsck" },
    { POST, "/owner/rebuild", HTTP_STREAM, OWNER, owner_rebuild, KIB(256), "makes all rows anew" },
    { POST, "/owner/repack", HTTP_STREAM, OWNER, owner_repack, KIB(256), "folds small packs" },
    { POST, "/owner/backup", HTTP_STREAM, OWNER, owner_backup, KIB(256),
      "copies the data folder while it is in use" },
    { POST, "/owner/purge", HTTP_STREAM, OWNER, owner_purge, KIB(256),
      "takes a leaked secret out of history" },
    { POST, "/owner/import", HTTP_STREAM, OWNER, owner_import, MIB(8),
      "takes over the agents of a Letta server" },
    { POST, "/owner/restore", HTTP_STREAM, OWNER, owner_restore, KIB(4),
      "an older state of one memory, as a new commit" },
    { POST, "/owner/mirror/status", HTTP_STREAM, OWNER, owner_mirror_status, KIB(4),
      "how far each agent is on each remote" },
    { POST, "/owner/mirror/remotes", HTTP_STREAM, OWNER, owner_mirror_remotes, KIB(4),
      "the remotes that are configured" },
    { POST, "/owner/mirror/reload", HTTP_STREAM, OWNER, owner_mirror_reload, KIB(4),
      "reads the remotes' configuration anew" },
    { POST, "/owner/mirror/sync", HTTP_STREAM, OWNER, owner_mirror_sync, KIB(4),
      "brings one agent and its remotes in step" },
    { POST, "/owner/mirror/retry", HTTP_STREAM, OWNER, owner_mirror_retry, KIB(4),
      "tries remotes now, whatever was refused before" },
    { POST, "/owner/mirror/resolve", HTTP_STREAM, OWNER, owner_mirror_resolve, KIB(4),
      "ends a note of one agent" },
    { POST, "/owner/mirror/verify", HTTP_STREAM, OWNER, owner_mirror_verify, KIB(4),
      "proves that remotes have what is here" },
    { POST, "/owner/mirror/check", HTTP_STREAM, OWNER, owner_mirror_check, KIB(4),
      "what a remote and its token can do" },
    { POST, "/owner/mirror/rebuild", HTTP_STREAM, OWNER, owner_mirror_rebuild, MIB(8),
      "brings agents from a remote" },
    { POST, "/owner/webhook/add", HTTP_STREAM, OWNER, owner_webhook_add, KIB(4),
      "tells hosts where to send webhooks to" },
    { POST, "/owner/webhook/test", HTTP_STREAM, OWNER, owner_webhook_test, KIB(4),
      "sends a signed ping, as a host would" },
    { POST, "/owner/token/create", HTTP_STREAM, OWNER, owner_token_create, KIB(4),
      "a new token, shown once" },
    { POST, "/owner/token/list", HTTP_STREAM, OWNER, owner_token_list, KIB(4),
      "all tokens by their ids" },
    { POST, "/owner/token/revoke", HTTP_STREAM, OWNER, owner_token_revoke, KIB(4),
      "ends a token at once" },
};
const size_t APP_N_ROUTES = ARRAY_LEN(APP_ROUTES);

const char *route_access_name(http_access access)
{
    switch (access) {
    case HTTP_ACCESS_OPEN: return "open";
    case HTTP_ACCESS_AGENT: return "agent";
    case HTTP_ACCESS_SHARED: return "shared";
    case HTTP_ACCESS_ALL: return "all";
    case HTTP_ACCESS_ADMIN: return "admin";
    case HTTP_ACCESS_HOOK: return "hook";
    case HTTP_ACCESS_PEER: return "peer";
    case HTTP_ACCESS_OWNER: return "owner";
    }
    return "?";
}

const char *route_method_name(unsigned methods)
{
    switch (methods) {
    case HTTP_GET: return "GET";
    case HTTP_POST: return "POST";
    case HTTP_PUT: return "PUT";
    case HTTP_PATCH: return "PATCH";
    case HTTP_DELETE: return "DELETE";
    default: return "?";
    }
}

void app_print_routes(FILE *to)
{
    for (size_t i = 0; i < APP_N_ROUTES; i++) {
        const http_route *r = &APP_ROUTES[i];

        fprintf(to, "%s\t%s\t%s\t%s\n", route_method_name(r->methods), r->pattern,
                route_access_name(r->access), r->summary);
    }
}
