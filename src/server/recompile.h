/*
 * recompile.h - a Letta server makes an agent's system prompt anew, where sync-from-git asks for it
 * (design 9; http-api 3 and 7).
 *
 *     recompile=true     always
 *     recompile=auto     when a block under system/ was changed, made or removed since the last time
 *                        that it was done from here; as nothing is known of an agent at first,
 *                        having any counts as changed
 *     recompile=false    never; the default
 *
 * Asked is the server behind the gateway, with the caller's own credential; where there is none, or
 * the caller has one that only memfs knows (auth_is_own), that of --letta-url with its own
 * password.
 *
 * Where memfs feeds that server's blocks (service, tables), they are waited for, as the prompt is
 * made of them: a server behind us reads the folder after it has answered (contract 2.4).  What
 * auto compares with is written down only when the prompt has it: $MEMFS_HOME/letta/<agent>.system.
 *
 * What came of it is told in X-Memfs-Recompile, and the answer is 200 all the same, as the blocks
 * are right:
 *
 *     done                      the server has done it
 *     done; blocks=behind       the same, of blocks that were not all there in time: auto does it
 *                               again
 *     unchanged                 auto, and nothing was
 *     none                      there is no Letta server here whose address is known
 *     failed; <why>             in fixed words; more is in the log (recompile_failed)
 *
 * Thread: any worker; it waits for the network.
 */
#ifndef MEMFS_SERVER_RECOMPILE_H
#define MEMFS_SERVER_RECOMPILE_H

#include "server/app.h"
#include "server/params.h"

typedef enum recompile_when { RECOMPILE_NEVER, RECOMPILE_ALWAYS, RECOMPILE_AUTO } recompile_when;

/* From the query; a bad value is an error of p. */
recompile_when recompile_read(params *p);
/* For an agent whose blocks are here: sets the header. */
void recompile_prompt(app *self, http_request *rq, memfs_str agent_id, recompile_when when);

#endif
