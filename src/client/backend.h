/*
 * backend.h - which remote an agent's memory has (design 5): the four backends as one decision.
 *
 *   cloud  {LETTA_MEMFS_BASE_URL | LETTA_BASE_URL | https://api.letta.com}/v1/git/{agent}/state.git
 *   local  LETTABOT_MEMFS_REMOTE, else LETTA_MEMFS_GIT_URL, else none; Letta's endpoint is never
 * asked auto   a git URL if one is set, else the Letta endpoint none   no remote A remote set for
 * one agent (`memfs remote set`, in the checkout's config: memfs.remote) wins over the general
 * ones, within what the backend allows.  For auto, the origin of a checkout that names a foreign
 * host counts as set.
 *
 * A Letta key that came with another base URL is never sent to api.letta.com.  auto leaves
 * api.letta.com alone when nobody gave a key or a base URL, and for agents of the local backend,
 * which it does not know.
 *
 * A general URL without {agentId} is for one agent: where this machine has several memories it is
 * not used, unless the checkout's origin is that URL already; histories of two agents are never
 * mixed.
 *
 * backend_choose reads the checkout's config itself: s may have been loaded for any checkout or
 * none, so one settings serves all memories.
 *
 * A secret in a URL is kept in secrets/ at once (credential.h); nothing else is changed and nothing
 * is contacted.  What is configured wrongly is an answer (why, is_misconfigured), not an error: an
 * agent starts without its remote.
 */
#ifndef MEMFS_CLIENT_BACKEND_H
#define MEMFS_CLIENT_BACKEND_H

#include "client/places.h"
#include "remote/probe.h"

typedef enum backend { BACKEND_CLOUD, BACKEND_LOCAL, BACKEND_AUTO, BACKEND_NONE } backend;
const char *backend_name(backend b);

typedef struct backend_choice {
    backend backend;
    bool has_remote;
    bool is_off;           /* memory is switched off (LETTABOT_MEMFS=false); has_remote is false */
    bool is_misconfigured; /* there would be a remote, but it cannot be used: why says what to do */
    bool is_letta;         /* the Letta endpoint (or memfs in its place), not a foreign host */
    bool is_found;         /* the checkout says it, and nobody named its host to memfs (approved.h) */
    bool is_withheld;      /* ...so a token without a host was not taken, and there is no other secret */
    remote_target target;  /* when has_remote */
    char why[200];         /* "environment LETTA_MEMFS_GIT_URL", or why there is none */
    char warning[300];     /* e.g. a URL that held a secret; "" */
    settings *own;         /* s with the checkout's own in place; target borrows from it */
} backend_choice;
#define BACKEND_CHOICE_INIT                                                                        \
    {                                                                                              \
        .target = REMOTE_TARGET_INIT                                                               \
    }
void backend_choice_dispose(backend_choice *b);
/* remote.origin.url of the place's checkout as it is written there; NULL: none.  Caller frees. */
char *backend_origin(const place *p);
/* May this address be used?  http:// is for loopback, the Letta base and MEMFS_ALLOW_HTTP. */
bool backend_may_use(const settings *s, const remote_url *url);
/* The base of Letta's git addresses, and the agent's address there (caller frees). */
const char *backend_letta_base(const settings *s);
char *backend_letta_url(const settings *s, const char *agent_id);

MEMFS_CHECK memfs_code backend_choose(const settings *s, const place *p, backend_choice *ret,
                                      memfs_error *err);

#endif
