/*
 * credential.h - where the secret for a remote comes from (design 6).
 *
 * Sources, first that has one wins:
 *   1. the Letta key, and only for the Letta endpoint's own origin
 *   2. user info that was split off the address itself (url.h)
 *   3. a named variable or file: MEMFS_REMOTE_TOKEN, MEMFS_REMOTE_TOKEN_FILE
 *   4. systemd: $CREDENTIALS_DIRECTORY/memfs-<host>, then memfs-remote-token
 *   5. secrets/<host>[_<port>].<agent>, then without the agent, in $MEMFS_HOME, 0600: what was
 *      split off a URL or given to `memfs remote set`
 *   6. the user's own git helpers (client only; asked by transport.h, never answered into a file)
 * 3 and memfs-remote-token are for the remote that the user named: they never go to the Letta
 * endpoint (letta_base).  Only http(s) has credentials of ours; ssh has its keys.  A file that
 * others may read is refused (EDENIED), never silently used; so is a secret with a line end or
 * another control character in it.
 *
 * A file holds the token alone on its first line, or lines "username=..." and "password=...".
 *
 * User name where only a token is known, by its first letters: "x-access-token" for GitHub's (ghp_,
 * github_pat_, gho_, ghu_, ghs_), "oauth2" for GitLab's (glpat-, gloas-), "gitlab-ci-token" for a
 * job's (glcbt-); else by the host: "x-access-token" for github.com, "oauth2" for gitlab,
 * "x-token-auth" for bitbucket.org, "letta" for Letta, else "memfs".
 *
 * Secrets are wiped when disposed and are in no message.
 * Thread: any.
 */
#ifndef MEMFS_REMOTE_CREDENTIAL_H
#define MEMFS_REMOTE_CREDENTIAL_H

#include "remote/url.h"

typedef enum credential_source {
    CREDENTIAL_NONE,
    CREDENTIAL_LETTA_KEY,
    CREDENTIAL_ENVIRONMENT,
    CREDENTIAL_FILE,
    CREDENTIAL_SYSTEMD,
    CREDENTIAL_SECRETS,
    CREDENTIAL_GIT_HELPERS, /* nothing found here: git may be asked */
    CREDENTIAL_URL,
    CREDENTIAL_N_SOURCES,
} credential_source;
const char *credential_source_name(credential_source s);

typedef struct credential {
    credential_source source;
    char *username, *secret; /* NULL: none */
} credential;
#define CREDENTIAL_INIT { .source = CREDENTIAL_NONE }
void credential_dispose(credential *c);

typedef struct credential_query {
    const remote_url *url;
    const char *agent_id;
    const char *memfs_home;
    const char *letta_base; /* the base whose key letta_key is; NULL: none */
    const char *letta_key;
    const char *token;      /* from the environment; NULL */
    const char *token_file; /* NULL */
    const char *systemd_dir; /* $CREDENTIALS_DIRECTORY; NULL */
    bool is_not_the_remote; /* a mirror: what was given for the remote, whatever its host, is not for it */
    bool may_ask_git;
} credential_query;
MEMFS_CHECK memfs_code credential_find(const credential_query *q, credential *ret,
                                       memfs_error *err);
/* Keeps a secret in secrets/ (0600, folder 0700), atomically; secret NULL removes it. */
MEMFS_CHECK memfs_code credential_store(const char *memfs_home, const remote_url *url,
                                        const char *agent_id, const char *username,
                                        const char *secret, memfs_error *err);
/*
 * What secrets/ keeps for this host and agent alone (NULL: for the host), and in which file: two
 * addresses of one file have one secret.  ENOTFOUND: nothing.  The path: caller frees.
 */
MEMFS_CHECK memfs_code credential_kept(const char *memfs_home, const remote_url *url,
                                       const char *agent_id, credential *ret, memfs_error *err);
char *credential_path(const char *memfs_home, const remote_url *url, const char *agent_id);
/* A file that holds a secret, whole.  EDENIED: others may read it; ENOTFOUND; EINVALID: no file.
 * The caller wipes out. */
MEMFS_CHECK memfs_code credential_read_private(const char *path, memfs_buf *out, memfs_error *err);
/* The value for `http.<origin>/.extraHeader` that stops the Letta client's key (client 7): "" or,
 * with a credential, "Authorization: Basic ...".  Caller frees. */
char *credential_extra_header(const credential *c);

#endif
