/*
 * routes.c - everything that can be asked, in one table.
 *
 * The first row that matches a path and method is served, so fixed names stand before variables.  A
 * path that some row knows under another method is 405 with Allow; that is what writes are answered
 * for now.  What a route takes and answers is in route_doc.c, a row for each of these;
 * docs/http-api.md and /openapi.json are made of both.
 */
#include "server/app.h"
#include "server/route_doc.h"

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)

#define GET HTTP_GET
#define POST HTTP_POST
#define OPEN HTTP_ACCESS_OPEN
#define AGENT HTTP_ACCESS_AGENT
#define ALL HTTP_ACCESS_ALL
#define OWNER HTTP_ACCESS_OWNER
#define HOOK HTTP_ACCESS_HOOK
#define PEER HTTP_ACCESS_PEER

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

    { GET, "/peer/git/{agent}/state.git/info/refs", HTTP_BODY, PEER, peer_info_refs, 0,
      "git, for the other servers of the database: what is on this one" },
    { POST, "/peer/git/{agent}/state.git/git-upload-pack", HTTP_STREAM, PEER, peer_upload_pack,
      MIB(10), "git, for the other servers: any commit that is on this one" },
    { POST, "/peer/keep/{server}/{agent}/{id}", HTTP_BODY, PEER, peer_keep, KIB(1),
      "for the other servers: that commit on the disk of this one, fetched if it is not there" },

    { GET, "/v1/agents", HTTP_BODY, ALL, agents_list, 0, "agents, a page at a time" },
    { GET, "/v1/agents/count", HTTP_BODY, ALL, agents_count, 0, "how many agents there are" },
    { GET, "/v1/agents/{agent}", HTTP_FAST, AGENT, agent_get, 0, "one agent" },
    { GET, "/v1/agents/{agent}/core-memory", HTTP_FAST, AGENT, core_memory, 0,
      "the memory object of an agent" },
    { GET, "/v1/agents/{agent}/core-memory/blocks", HTTP_FAST, AGENT, blocks_of_agent, 0,
      "the blocks of an agent, by id" },
    { GET, "/v1/agents/{agent}/core-memory/blocks/{label...}", HTTP_FAST, AGENT, block_of_agent, 0,
      "one block of an agent; the label with / or %2F" },
    { GET, "/v1/agents/{agent}/secrets", HTTP_FAST, AGENT, agent_secrets, 0,
      "always an empty list" },
    { GET, "/v1/agents/{agent}/repositories", HTTP_FAST, AGENT, agent_repositories, 0,
      "the agent's own memory repository" },
    { POST, "/v1/agents/{agent}/memory/sync-from-git", HTTP_BODY, AGENT, sync_from_git, KIB(64),
      "brings the blocks to the repository's tip and returns them" },

    { GET, "/v1/blocks", HTTP_BODY, ALL, blocks_list, 0, "blocks of all agents, with filters" },
    { GET, "/v1/blocks/count", HTTP_BODY, ALL, blocks_count, 0, "how many blocks there are" },
    { GET, "/v1/blocks/{id}", HTTP_FAST, ALL, block_get, 0, "one block by id" },
    { GET, "/v1/blocks/{id}/agents", HTTP_BODY, ALL, block_agents, 0, "the agents of a block" },

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
