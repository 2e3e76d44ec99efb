/*
 * purge_loose.h - what a purge takes out of what is kept beside git: blocks that no file backs.
 *
 * One that was detached from an agent has that agent's text, and no history that says so: so all of
 * them are looked at.  The text goes from label, value, description, metadata and tags.
 *
 * Thread: any; no lock.
 */
#ifndef MEMFS_SYNC_PURGE_LOOSE_H
#define MEMFS_SYNC_PURGE_LOOSE_H

#include "sync/home.h"

typedef void (*purge_loose_fn)(const char *block_id, void *ctx);
/* found is called for each that has the text; with dry_run nothing is changed. */
MEMFS_CHECK memfs_code purge_loose(home *h, memfs_str needle, bool dry_run, purge_loose_fn found,
                                   void *ctx, memfs_error *err);
/* Is the text in what the state has of the agent: its fields, or tags of its blocks? */
MEMFS_CHECK memfs_code purge_is_in_state(home *h, memfs_str agent_id, memfs_str needle, bool *ret,
                                         memfs_error *err);

#endif
