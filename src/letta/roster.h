/*
 * roster.h - what agents a Letta server has and which blocks, asked over HTTP (contract 1.6, 5.2,
 * 7).
 *
 * A handful of GET requests, page by page; nothing is written there, but for roster_recompile().
 * The address is the operator's: it may be http:// and on a private network.  No redirect is
 * followed, so the token goes to no other host.  Without a User-Agent, so that the server loads no
 * relations that nobody asked for.
 *
 * Errors: EUNAVAIL it cannot be reached, or is not up to it now; EDENIED it wants another token;
 * EINVALID what answers is no Letta server.  Messages never hold the token.
 *
 * Thread: one at a time; a call waits for the network, at most 30 s a page.
 */
#ifndef MEMFS_LETTA_ROSTER_H
#define MEMFS_LETTA_ROSTER_H

#include "letta/upstream.h"

#include <jansson.h>

typedef struct roster roster;

/* life cycle.  token: "" for none.  EINVALID: the address, or a user and password in it. */
MEMFS_CHECK memfs_code roster_open(memfs_str address, memfs_str token, roster **ret,
                                   memfs_error *err);
/* As a caller of ours, who has shown these.  EINVALID as above, or a Basic that is none. */
MEMFS_CHECK memfs_code roster_open_as(const stream_address *address, const upstream_caller *c,
                                      roster **ret, memfs_error *err);
void roster_close(roster *r); /* NULL is fine */

/* reading.  An object as the wire has it, borrowed; a return other than OK ends the list. */
typedef memfs_code (*roster_fn)(const json_t *object, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code roster_count(roster *r, int64_t *ret, memfs_error *err);
/* All agents with their tags, oldest first; hidden ones too. */
MEMFS_CHECK memfs_code roster_agents(roster *r, roster_fn fn, void *ctx, memfs_error *err);
/* ENOTFOUND. */
MEMFS_CHECK memfs_code roster_agent(roster *r, memfs_str agent_id, roster_fn fn, void *ctx,
                                    memfs_error *err);
/* Of one agent, by id. */
MEMFS_CHECK memfs_code roster_blocks(roster *r, memfs_str agent_id, roster_fn fn, void *ctx,
                                     memfs_error *err);
/* Its system prompt is made anew from its blocks, without a new date in it.  ENOTFOUND. */
MEMFS_CHECK memfs_code roster_recompile(roster *r, memfs_str agent_id, memfs_error *err);
/* Blocks that more than one agent has. */
MEMFS_CHECK memfs_code roster_shared(roster *r, roster_fn fn, void *ctx, memfs_error *err);

#endif
