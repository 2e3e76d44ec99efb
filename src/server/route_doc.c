/*
 * route_doc.c - finding a route's row, and the rows of git, webhooks, health and the home's socket;
 * those of Letta's API are in route_doc_letta.c.
 */
#include "server/route_doc_int.h"

#define GET HTTP_GET
#define POST HTTP_POST

#define PEERS "peers"
#define WEBHOOKS "webhooks"
#define HEALTH "health"
#define UPKEEP "upkeep"

const char *const DOC_SECTIONS[] = { DOC_GIT,    PEERS,    DOC_AGENTS, DOC_BLOCKS,
                                     DOC_TAGS,   DOC_REPOSITORIES,     DOC_MEMORY,
                                     DOC_SEARCH, WEBHOOKS, HEALTH,     UPKEEP,
                                     NULL };

/* ---- what is in paths ---- */

/* The first row that fits counts. */
static const struct {
    const char *begin; /* of the pattern */
    doc_field field;
} VARIABLES[] = {
    { "/",
      { "agent", "agent_id", NULL, "`agent-<uuid4>` or `agent-local-<uuid4>`, in lower case" } },
    { "/",
      { "label", "text", NULL,
        "the rest of the path: a label with its slashes as they are or as `%2F`" } },
    { "/", { "commit", "text", NULL, "40 hex digits, or the first 7 or more" } },
    { "/", { "repository", "repo_id", NULL, "`repo-<uuid4>`" } },
    { "/", { "name", "text", NULL, "of a shared repository, with `.git` behind it" } },
    { "/v1/repositories/",
      { "id", "text", NULL, "a commit: 40 hex digits, or the first of them" } },
    { "/v1/agents/", { "id", "block_id", NULL, "`block-<uuid4>`, in lower case" } },
    { "/v1/blocks/", { "id", "block_id", NULL, "`block-<uuid4>`, in lower case" } },
    { "/webhooks/", { "kind", "'gitea'|'forgejo'|'github'|'gitlab'", NULL, "of the git host" } },
    { "/peer/", { "server", "text", NULL, "the name of the server that is meant" } },
    { "/peer/", { "id", "commit", NULL, "of the commit" } },
};

const doc_field *route_doc_variable(const char *pattern, memfs_str name)
{
    for (size_t i = 0; i < ARRAY_LEN(VARIABLES); i++)
        if (str_starts_with(str_of(pattern), str_of(VARIABLES[i].begin)) &&
            str_equal(name, str_of(VARIABLES[i].field.name)))
            return &VARIABLES[i].field;
    return NULL;
}

/* ---- what routes of many kinds take ---- */

const doc_field DOC_CURSORS[] = {
    { "before", "text", NULL, "an id: only what comes before it in the order that is asked for" },
    { "after", "text", NULL, "an id: only what comes after it" },
    END,
};

const doc_field DOC_KNOWN[] = {
    { "If-None-Match", "text", NULL, "an `ETag` that was answered before: 304 if it still holds" },
    END,
};

const doc_field DOC_REASON[] = {
    { "X-Memfs-Reason", "text", NULL, "why, for the commit's message; at most 200 bytes of it" },
    END,
};

const doc_field DOC_CHANGE[] = {
    { "If-Match", "text", NULL, "an `ETag` that a GET of it had: 409 if it is another by now" },
    { "X-Memfs-Reason", "text", NULL, "why, for the commit's message; at most 200 bytes of it" },
    END,
};

/* ---- git ---- */

const doc_field DOC_SERVICE[] = {
    { "service", "'git-upload-pack'|'git-receive-pack'", DOC_NEEDED, "what it is asked for" },
    END,
};
static const doc_field UPLOAD_SERVICE[] = {
    { "service", "'git-upload-pack'", DOC_NEEDED, "what it is asked for" },
    END,
};

const doc_field DOC_PROTOCOL[] = {
    { "Git-Protocol", "text", NULL, "`version=2`; anything else is version 0" },
    END,
};

/* ---- bodies: those of the socket ---- */

#define ONE_AGENT                                                                                  \
    {                                                                                              \
        "agent", "agent_id", DOC_NEEDED, ""                                                        \
    }
#define ANY_AGENT                                                                                  \
    {                                                                                              \
        "agent", "text", "\"\"", "one agent; empty: all"                                           \
    }
#define ANY_REMOTE                                                                                 \
    {                                                                                              \
        "remote", "text", "\"\"", "one remote; empty: all"                                         \
    }

static const doc_field OF_AGENT[] = { ANY_AGENT, END };
static const doc_field OF_ONE_AGENT[] = { ONE_AGENT, END };
static const doc_field OF_BOTH[] = { ANY_AGENT, ANY_REMOTE, END };
static const doc_field NO_FIELDS[] = { END };

static const doc_field BACKUP[] = {
    { "to", "text", DOC_NEEDED, "an absolute path, where nothing is yet" },
    END,
};

static const doc_field PURGE[] = {
    ONE_AGENT,
    { "secret", "text", NULL, "a text; this, `blob` or both" },
    { "blob", "text", NULL, "40 hex digits" },
    { "dry_run", "bool", "false", "only tell" },
    END,
};

static const doc_field IMPORT[] = {
    { "database", "text", NULL, "`postgresql://…`; this or `url`" },
    { "url", "text", NULL, "`http://…`" },
    { "token_file", "text", NULL, "an absolute path" },
    { "agents", "agent_id[]", NULL, "without it, all" },
    { "dry_run", "bool", "false", "only tell" },
    { "with_git", "bool", "false", "also those whose memory is in git there" },
    END,
};

static const doc_field RESTORE[] = {
    ONE_AGENT,
    { "at", "text", DOC_NEEDED, "a commit, or `@` and seconds since 1970" },
    END,
};

static const doc_field MIRROR_STATUS[] = {
    ANY_AGENT,
    ANY_REMOTE,
    { "trouble", "bool", "false", "only what is in trouble" },
    { "count", "bool", "false", "also commits ahead and behind" },
    END,
};

static const doc_field MIRROR_RELOAD[] = {
    { "forget", "text", NULL, "a remote that is configured no more: what is known of it goes" },
    END,
};

static const doc_field MIRROR_RESOLVE[] = {
    ONE_AGENT,
    ANY_REMOTE,
    { "keep", "'accept'|'ours'|'theirs'", DOC_NEEDED, "" },
    END,
};

static const doc_field MIRROR_REBUILD[] = {
    ANY_REMOTE,
    { "agents", "agent_id[]", NULL, "without it, those that the remote has" },
    END,
};

static const doc_field WEBHOOK_ADD[] = {
    { "url", "text", DOC_NEEDED, "`https://…` of this server" },
    ANY_REMOTE,
    { "agent", "agent_id", NULL, "this or `all`" },
    { "all", "bool", "false", "every agent" },
    END,
};

static const doc_field WEBHOOK_TEST[] = {
    { "url", "text", DOC_NEEDED, "`https://…` of this server" },
    { "ca_file", "text", "\"\"", "an absolute path" },
    END,
};

static const doc_field TOKEN_CREATE[] = {
    { "scope", "text", DOC_NEEDED,
      "`admin`, `agent:ID:rw`, `agent:ID:ro`, `repo:ID:rw` or `repo:ID:ro`" },
    { "name", "text", "\"\"", "for people; at most 100 bytes" },
    { "expires_in_s", "int", NULL, "seconds from now; without it, never" },
    END,
};

static const doc_field TOKEN_REVOKE[] = {
    { "id", "text", DOC_NEEDED, "its public id" },
    END,
};

/* ---- the routes ---- */

#define LINES "application/x-ndjson"
#define OWNED(path, fields)                                                                        \
    {                                                                                              \
        POST, path, UPKEEP, LINES, .body = (fields)                                                \
    }

static const route_doc OTHERS[] = {
    GIT_DOCS("/v1/git/{agent}/state.git"),
    GIT_DOCS("/v1/git/{agent}"),
    GIT_DOCS("/git/{agent}/state.git"),
    GIT_DOCS("/git/{agent}"),

    { GET, "/peer/git/{agent}/state.git/info/refs", PEERS, FETCH_TYPE("advertisement"),
      .query = { UPLOAD_SERVICE }, .headers = DOC_PROTOCOL },
    { POST, "/peer/git/{agent}/state.git/git-upload-pack", PEERS, FETCH_TYPE("result"),
      .headers = DOC_PROTOCOL, .body_type = FETCH_TYPE("request"), .errors = "413 415" },
    { POST, "/peer/keep/{server}/{agent}/{id}", PEERS, "Error",
      .more = "421: this server has another name.", .errors = "421" },

    { POST, "/webhooks", WEBHOOKS, "Accepted", .body_type = "application/json", .status = "202",
      .errors = "400 401 403 413 503" },
    { POST, "/webhooks/{kind}", WEBHOOKS, "Accepted", .body_type = "application/json",
      .status = "202", .errors = "400 401 403 404 413 503" },

    { GET, "/v1/health", HEALTH, "Health" },
    { GET, "/v1/ready", HEALTH, "Health", .errors = "503" },
    { GET, "/healthz", HEALTH, "Status" },
    { GET, "/readyz", HEALTH, "Status", .errors = "503" },
    { GET, "/openapi.json", HEALTH, "object", .headers = DOC_KNOWN },

    OWNED("/owner/verify", OF_AGENT),
    OWNED("/owner/rebuild", OF_AGENT),
    OWNED("/owner/repack", OF_AGENT),
    OWNED("/owner/backup", BACKUP),
    OWNED("/owner/purge", PURGE),
    OWNED("/owner/import", IMPORT),
    OWNED("/owner/restore", RESTORE),
    OWNED("/owner/mirror/status", MIRROR_STATUS),
    OWNED("/owner/mirror/remotes", NO_FIELDS),
    OWNED("/owner/mirror/reload", MIRROR_RELOAD),
    OWNED("/owner/mirror/sync", OF_ONE_AGENT),
    OWNED("/owner/mirror/retry", OF_BOTH),
    OWNED("/owner/mirror/resolve", MIRROR_RESOLVE),
    OWNED("/owner/mirror/verify", OF_BOTH),
    OWNED("/owner/mirror/check", OF_BOTH),
    OWNED("/owner/mirror/rebuild", MIRROR_REBUILD),
    OWNED("/owner/webhook/add", WEBHOOK_ADD),
    OWNED("/owner/webhook/test", WEBHOOK_TEST),
    OWNED("/owner/token/create", TOKEN_CREATE),
    OWNED("/owner/token/list", NO_FIELDS),
    OWNED("/owner/token/revoke", TOKEN_REVOKE),
    { .pattern = NULL },
};

const route_doc *const ROUTE_DOCS[] = { OTHERS, LETTA_DOCS, SHARED_DOCS, MEMORY_DOCS, NULL };

const route_doc *route_doc_find(const http_route *route)
{
    for (size_t i = 0; ROUTE_DOCS[i] != NULL; i++)
        for (const route_doc *d = ROUTE_DOCS[i]; d->pattern != NULL; d++)
            if (d->method == route->methods && strcmp(d->pattern, route->pattern) == 0)
                return d;
    return NULL;
}
