/*
 * places.h - where agents' memories lie on this machine (client 1).
 *
 *   ~/.letta/agents/<id>/memory                     API agents
 *   <local backend dir>/memfs/<id>/memory           agents of letta-code --backend local
 * An id with the prefix "agent-local-" belongs to the second, unless it is only in the first.
 *
 * Thread: any.
 */
#ifndef MEMFS_CLIENT_PLACES_H
#define MEMFS_CLIENT_PLACES_H

#include "client/settings.h"

typedef struct place {
    char *agent_id;
    char *root;      /* the agent's folder */
    char *memory;    /* root/memory */
    char *worktrees; /* root/memory-worktrees */
    bool is_local_backend;
} place;
#define PLACE_INIT                                                                                 \
    {                                                                                              \
        .agent_id = NULL                                                                           \
    }
void place_dispose(place *p);

/* EINVALID: no id of an agent (ids_is_agent).  Nothing is made. */
MEMFS_CHECK memfs_code place_of(const settings *s, const char *agent_id, place *ret,
                                memfs_error *err);
/* All that have a memory folder, sorted by id; a missing parent folder is an empty list. */
typedef memfs_code (*place_fn)(const place *p, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code places_each(const settings *s, place_fn fn, void *ctx, memfs_error *err);
/* Is there a memory of any other agent?  Stops at the first. */
bool places_has_other(const settings *s, const char *agent_id);

#endif
