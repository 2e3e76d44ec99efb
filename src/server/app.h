/*
 * app.h - the server's own state, and the handlers by file.
 *
 * The route table (routes.c) is the one list of what can be asked; handlers are grouped by what
 * they serve.  Every handler gets the app as its second argument.
 */
#ifndef MEMFS_SERVER_APP_H
#define MEMFS_SERVER_APP_H

#include "server/http.h"
#include "mirror/mirror.h"
#include "server/auth.h"
#include "sync/home.h"

#include <stdatomic.h>
#include <stdio.h>

struct backoff;
struct service;
struct gateway;
struct webhooks;

typedef struct app {
    home *home;
    mirror *mirror; /* also without a remote */
    auth *auth;
    struct backoff *backoff; /* backoff.h; NULL: no refusal is late */
    struct webhooks *webhooks; /* webhooks.h */
    struct service *service;   /* service.h; NULL: no Letta server hands requests on to us */
    struct gateway *gateway;   /* gateway.h; NULL: no Letta server stands behind */
    char *letta_url, *letta_token_file; /* of a Letta server that memfs itself asks; NULL */
    const char *version;
    int64_t started_at_us;
    atomic_bool is_ready; /* every repository was looked at since the start (home_recover_all) */
    atomic_bool is_importing; /* owner_import.c */
    char remotes_fault[512]; /* of a command's own service whose remotes could not be read; "" */
} app;

/* server.c: the configuration of the remotes anew; on failure the old ones stay. */
MEMFS_CHECK memfs_code app_reload_remotes(app *self, memfs_error *err);

extern const http_route APP_ROUTES[];
extern const size_t APP_N_ROUTES;

/* One line a row: method, pattern, access and summary, with tabs between. */
void app_print_routes(FILE *to);

/* gate.c: who may ask (auth.h), as HTTP.  The http_gate of every front. */
http_entry app_gate(http_request *rq, void *app, void *principal);
/* Who asks; of the owner's socket, and without tokens, an admin. */
const auth_principal *app_principal(const http_request *rq);
/* The one agent whose part of a list may be seen, "" for all of it. */
memfs_str app_own_agent(const http_request *rq);

/* git.c, git_fetch.c, git_push.c: smart HTTP */
void git_info_refs(http_request *rq, void *app);
void git_upload_pack(http_request *rq, void *app);
void git_receive_pack(http_request *rq, void *app);
/* The same of what is on this server as it is, for the others: nothing is looked for or waited for. */
void peer_info_refs(http_request *rq, void *app);
void peer_upload_pack(http_request *rq, void *app);
/* 200 when the commit {id} is on the disk of this server. */
void peer_keep(http_request *rq, void *app);
/* The same without waiting: refs of agents that are at hand; false leaves it to the above. */
bool git_info_refs_quick(http_request *rq, void *app);
bool git_upload_pack_quick(http_request *rq, void *app);
/* Does info/refs ask on behalf of a push?  From the value that git_info_refs() reads. */
bool git_asks_to_push(const http_request *rq);

/* blocks.c, agents.c: reading */
void blocks_of_agent(http_request *rq, void *app);
void block_of_agent(http_request *rq, void *app);
void core_memory(http_request *rq, void *app);
void blocks_list(http_request *rq, void *app);
void blocks_count(http_request *rq, void *app);
void block_get(http_request *rq, void *app);
void block_agents(http_request *rq, void *app);
void agents_list(http_request *rq, void *app);
void agents_count(http_request *rq, void *app);
void agent_get(http_request *rq, void *app);
void agent_secrets(http_request *rq, void *app);
/* agent_create.c, agent_edit.c, agent_prompt.c */
void agents_create(http_request *rq, void *app);
void agent_update(http_request *rq, void *app);
void agent_delete(http_request *rq, void *app);
void agent_restore(http_request *rq, void *app);
void agent_recompile(http_request *rq, void *app);
void sync_from_git(http_request *rq, void *app);

/* block_write.c, memory_commit.c: writing */
void block_patch_of_agent(http_request *rq, void *app);
void block_patch_by_id(http_request *rq, void *app);
void block_create(http_request *rq, void *app);
void block_delete(http_request *rq, void *app);
void block_attach(http_request *rq, void *app);
void block_detach(http_request *rq, void *app);
void memory_commit(http_request *rq, void *app);

/* history.c: a memory's past */
void memory_history(http_request *rq, void *app);
void memory_diff(http_request *rq, void *app);
void memory_at(http_request *rq, void *app);
void memory_revert(http_request *rq, void *app);
/* tags.c */
void tags_list(http_request *rq, void *app);
/* search.c */
void search_get(http_request *rq, void *app);
/* shared.c: shared repositories, and who has a link */
void repositories_list(http_request *rq, void *app);
void repository_create(http_request *rq, void *app);
void repository_get(http_request *rq, void *app);
void repository_delete(http_request *rq, void *app);
void repository_restore(http_request *rq, void *app);
void agent_repositories(http_request *rq, void *app);
void agent_repository_attach(http_request *rq, void *app);
void agent_repository_detach(http_request *rq, void *app);

/* shared_read.c, shared_files.c: what is in one */
void repository_files(http_request *rq, void *app);
void repository_file_create(http_request *rq, void *app);
void repository_file_get(http_request *rq, void *app);
void repository_file_change(http_request *rq, void *app);
void repository_file_delete(http_request *rq, void *app);
void repository_versions(http_request *rq, void *app);
void repository_version(http_request *rq, void *app);
/* openapi.c: the route table for programs (route_doc.h) */
void openapi_get(http_request *rq, void *app);

/* health.c */
void health_get(http_request *rq, void *app);
void healthz_get(http_request *rq, void *app);
void readyz_get(http_request *rq, void *app);
void ready_get(http_request *rq, void *app);

/* webhooks.c: what git hosts send; the kind of the path, or told by the headers */
void webhook_receive(http_request *rq, void *app);

/* owner_mirror.c: as owner.c, about the remotes */
void owner_mirror_status(http_request *rq, void *app);
void owner_mirror_remotes(http_request *rq, void *app);
void owner_mirror_reload(http_request *rq, void *app);
void owner_mirror_sync(http_request *rq, void *app);
void owner_mirror_retry(http_request *rq, void *app);
void owner_mirror_resolve(http_request *rq, void *app);
void owner_mirror_verify(http_request *rq, void *app);
void owner_mirror_rebuild(http_request *rq, void *app);
void owner_mirror_check(http_request *rq, void *app);
void owner_restore(http_request *rq, void *app);

/* owner_webhook.c: deliveries, from the operator's side */
void owner_webhook_add(http_request *rq, void *app);
void owner_webhook_test(http_request *rq, void *app);

/* owner_import.c: agents of a Letta server move in */
void owner_import(http_request *rq, void *app);

/* owner_token.c: tokens (auth.h) */
void owner_token_create(http_request *rq, void *app);
void owner_token_list(http_request *rq, void *app);
void owner_token_revoke(http_request *rq, void *app);

/* owner.c: what the command line asks of a running server, over the home's socket; NDJSON */
void owner_verify(http_request *rq, void *app);
void owner_rebuild(http_request *rq, void *app);
void owner_repack(http_request *rq, void *app);
void owner_backup(http_request *rq, void *app);
void owner_purge(http_request *rq, void *app);

#endif
