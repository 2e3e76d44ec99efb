/*
 * remotes.h - which remotes the operator configured for the agents of a home.
 *
 * From $MEMFS_HOME/config (git-config syntax), one section a remote:
 *
 *     [mirror "origin"]
 *         url = https://gitea.example.com/agents/{agentId}.git
 *         direction = both            ; push: a backup that is never read; pull: never written
 *         agent = agent-…             ; only this one (may be given more than once); without it all,
 *                                     ; then url must have {agentId}
 *         kind = gitea                ; gitea forgejo github gitlab plain; asked when absent
 *         create = false              ; else missing repositories are made (make.c)
 *         username = …  tokenFile = /run/secrets/gitea   ; else credential.h's sources
 *         caFile = …  sshKey = …  sshKnownHosts = …
 *         webhookSecretFile = …
 *         allowHttp = false           ; http:// to a host that is not loopback
 *         poll = 60                   ; seconds
 *
 * `memfs serve --remote URL`, else LETTA_MEMFS_GIT_URL, else LETTABOT_MEMFS_REMOTE is the remote
 * "origin", over whatever the file says of its url.  A secret in a URL is split off at once and kept
 * in secrets/ (S3, T24); of the file, the line is rewritten without it and a warning says so.
 *
 * A Letta server's folder (letta/folder.h) is one more, named "letta": it is read and written in its
 * own way, and all that is known and told of remotes holds for it as well.
 *
 * Thread: a value is immutable once loaded; reload makes another.
 */
#ifndef MEMFS_MIRROR_REMOTES_H
#define MEMFS_MIRROR_REMOTES_H

#include "letta/folder.h"
#include "remote/host.h"
#include "remote/probe.h"

#define REMOTES_MAX 16

typedef enum remote_direction { REMOTE_BOTH, REMOTE_PUSH, REMOTE_PULL } remote_direction;
const char *remote_direction_name(remote_direction d);

typedef struct remote_config {
    char *name;     /* [a-z0-9-]{1,32} */
    char *url;      /* with {agentId} or for the agents named; no secret */
    char **agents;  /* NULL-terminated; NULL: all */
    remote_direction direction;
    host_kind kind; /* HOST_UNKNOWN: to be asked */
    bool create, allow_http;
    char *username, *token_file, *ca_file, *ssh_key, *ssh_known_hosts, *webhook_secret_file;
    int64_t poll_s;
    letta_folder *folder; /* borrowed; NULL: a git remote */
} remote_config;
#define REMOTE_LETTA "letta"

typedef struct remotes {
    remote_config *at;
    size_t n;
    char *home;       /* $MEMFS_HOME, for credentials */
    char *token, *token_file, *systemd_dir; /* of the environment; NULL; for the one named there */
} remotes;

typedef struct remotes_options {
    const char *home;
    const char *url;        /* --remote; NULL */
    const char *token_file; /* --remote-token-file; NULL */
    letta_folder *folder;   /* --letta-root; lives as long as what is loaded; NULL */
    void (*warn)(const char *text, void *ctx); /* may be NULL */
    void *warn_ctx;
} remotes_options;
/* EINVALID names file, section and key. */
MEMFS_CHECK memfs_code remotes_load(const remotes_options *o, remotes **ret, memfs_error *err);
void remotes_free(remotes *r);
void remotes_freep(remotes **r);

/* Is this remote one of the agent's? */
bool remote_is_for(const remote_config *c, const char *agent_id);
/* An agent's repository there, without secrets; caller frees. */
MEMFS_CHECK memfs_code remote_config_address(const remote_config *c, const char *agent_id,
                                             char **ret, memfs_error *err);
/*
 * Where to and with which credential, read anew each time, so that a token file that was changed is
 * used by the next try.  EINVALID, EDENIED (a file that others may read): the message says what to
 * do.  ret borrows from r and c.
 */
MEMFS_CHECK memfs_code remote_config_target(const remotes *r, const remote_config *c,
                                            const char *agent_id, remote_target *ret,
                                            memfs_error *err);
/* Changes whenever address or credential do; says nothing about the secret. */
void remote_target_mark(const remote_target *t, char ret[17]);
/*
 * Whose repository is it?  address: a clone url or "host/path" of a webhook, compared by host
 * (without case), port and path (".git" and trailing slashes stripped), user info ignored.  Several
 * remotes may answer; false ends.  agent_id lives during the call.
 */
typedef bool (*remotes_owner_fn)(const remote_config *c, memfs_str agent_id, void *ctx);
void remotes_owner(const remotes *r, memfs_str address, remotes_owner_fn fn, void *ctx);

#endif
