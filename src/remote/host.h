/*
 * host.h - Gitea, Forgejo, GitHub, GitLab: what their REST APIs are asked (docs/hosts.md).
 *
 * Which kind it is: said by the caller; by name (github.com, gitlab.com, codeberg.org); else asked:
 * /api/v1/version, /api/v4/version, /api/v3/meta.  A server that is none of them, ssh and plain
 * paths are HOST_PLAIN: git is all that it speaks.
 *
 * The token goes to the remote's own host only (api.github.com for github.com) and over https, or
 * http where the target may; redirects are not followed.  Texts of the host that reach messages are
 * escaped, bounded and redacted (T20, T24).
 *
 * Thread: any; a call blocks within its deadline.
 */
#ifndef MEMFS_REMOTE_HOST_H
#define MEMFS_REMOTE_HOST_H

#include "remote/probe.h"

typedef enum host_kind {
    HOST_UNKNOWN,
    HOST_GITEA,
    HOST_FORGEJO,
    HOST_GITHUB,
    HOST_GITLAB,
    HOST_PLAIN,
    HOST_N_KINDS,
} host_kind;
const char *host_kind_name(host_kind k); /* "gitea" */
bool host_kind_parse(memfs_str text, host_kind *ret);

/* A repository behind an API: owner may have several parts (GitLab groups). */
typedef struct host {
    host_kind kind;
    char *api;         /* "https://host/api/v1" */
    char *owner, *name; /* of the repository: "agents", "agent-…" without ".git" */
    char version[64];  /* "" */
    const remote_target *target; /* borrowed */
} host;
#define HOST_INIT { .kind = HOST_UNKNOWN }
void host_dispose(host *h);

/* How an API call ended.  code OK: as hoped. */
typedef struct host_answer {
    int http_status;
    int64_t retry_after_s; /* Retry-After, x-ratelimit-reset; 0 */
    bool is_credentials;   /* 401; 403 that says the token lacks a right */
    bool is_missing;       /* no such repository, owner or right to see it */
    char words[300];       /* for people: what happened and what to do; no secrets */
} host_answer;

/* kind: HOST_UNKNOWN asks.  EUNAVAIL: nobody answers.  *ret->kind is never HOST_UNKNOWN when OK. */
MEMFS_CHECK memfs_code host_find(const remote_target *t, host_kind kind, int64_t deadline_ms,
                                 host *ret, host_answer *answer, memfs_error *err);
/*
 * Makes the repository: private, without a first commit, default branch main; for the token's own
 * account or for an organisation or group, whichever the owner is.  EEXISTS counts as OK with
 * answer->http_status of the refusal.  EDENIED: answer->words say which right is missing.
 */
MEMFS_CHECK memfs_code host_create(const host *h, int64_t deadline_ms, host_answer *answer,
                                   memfs_error *err);

typedef struct host_rights {
    char login[100];        /* whose token; "" */
    char scopes[300];       /* as the host lists them; "" if it does not */
    bool is_known;          /* the repository was seen: the next two are its word */
    bool can_read, can_push;
    int may_create;         /* 1, 0, -1: cannot be told without trying */
    char create_words[300]; /* may_create 0: which right is missing */
    int64_t expires_at_s;   /* 0: never, or not said */
    bool is_private;        /* of the repository, when seen */
} host_rights;
/*
 * EDENIED: the token is refused.  ENOTFOUND (the repository), EINVALID (it was renamed:
 * answer->words say where to), EDENIED with login or scopes: what could be found out is in *ret all
 * the same.  OK with words: what could not be told, and why.
 * can_push is what the account may do; what the token may, git tells (probe_push).
 */
MEMFS_CHECK memfs_code host_check(const host *h, int64_t deadline_ms, host_rights *ret,
                                  host_answer *answer, memfs_error *err);

/* Names of all repositories of the owner, page by page; false ends it. */
typedef bool (*host_repo_fn)(memfs_str name, void *ctx);
MEMFS_CHECK memfs_code host_list(const host *h, int64_t deadline_ms, host_repo_fn fn, void *ctx,
                                 host_answer *answer, memfs_error *err);

/* A push webhook on the repository; one that is there with the same url is left. *ret_made. */
MEMFS_CHECK memfs_code host_hook(const host *h, const char *url, const char *secret,
                                 int64_t deadline_ms, bool *ret_made, host_answer *answer,
                                 memfs_error *err);

#endif
