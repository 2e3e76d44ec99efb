/*
 * backend.h - which remote an agent's memory has (design 5): the four backends as one decision.
 *
 *   cloud  {LETTA_MEMFS_BASE_URL | LETTA_BASE_URL | https://api.letta.com}/v1/git/{agent}/state.git
 *   local  LETTABOT_MEMFS_REMOTE, else LETTA_MEMFS_GIT_URL, else none; Letta's endpoint is never asked
 *   auto   a git URL if one is set, else the Letta endpoint
 *   none   no remote
 * A remote set for one agent (`memfs remote set`, in the checkout's config: memfs.remote) wins over the
 * general ones, within what the backend allows.  For auto, the origin of a checkout that names a foreign
 * host counts as set.
 *
 * A Letta key that came with another base URL is never sent to api.letta.com.
 *
 * Deciding is pure; nothing is contacted.
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
    bool is_letta;        /* the Letta endpoint (or memfs in its place), not a foreign host */
    remote_target target; /* when has_remote; borrows settings' texts */
    char why[200];        /* "LETTA_MEMFS_GIT_URL", or why there is none */
    char warning[200];    /* e.g. a URL that held a secret; "" */
} backend_choice;
#define BACKEND_CHOICE_INIT { .target = REMOTE_TARGET_INIT }
void backend_choice_dispose(backend_choice *b);

MEMFS_CHECK memfs_code backend_choose(const settings *s, const place *p, backend_choice *ret,
                                      memfs_error *err);

#endif
