/*
 * sweep.h - notices what a Letta server writes into its folder, by itself.
 *
 * Every PAUSE_MS all mains of the folder are looked at (one stat each) and whoever's has changed is
 * told of; no inotify, which says nothing of a volume that another machine writes to (NFS, many
 * container hosts), and would need a watch an agent.  A round that takes long is repeated more
 * rarely, so that all of them are at most a fiftieth of one core's time.
 *
 * Thread: any; one of its own looks and tells.
 */
#ifndef MEMFS_LETTA_SWEEP_H
#define MEMFS_LETTA_SWEEP_H

#include "letta/folder.h"

typedef struct sweep sweep;

/* is_first: nothing was known of it yet. */
typedef void (*sweep_fn)(const char *agent_id, bool is_first, void *ctx);
MEMFS_CHECK memfs_code sweep_start(letta_folder *folder, sweep_fn fn, void *ctx, sweep **ret,
                                   memfs_error *err);
/* False: it is at a look that hangs; its thread goes on, with the folder.  NULL is fine. */
bool sweep_stop(sweep *s);

#endif
