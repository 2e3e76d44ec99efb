/*
 * gateway.h - memfs in front of a Letta server (design 9): what is memfs' own is answered here, all
 * else is streamed to that server and back.
 *
 *   - memfs' own: /v1/git, /git, /v1/repositories, /peer, /owner, /webhooks and all below them; an
 *     agent's sync-from-git, /secrets and /repositories; /v1/health, /v1/ready, /healthz, /readyz;
 *   - the server's: everything else, whatever the method: agents, blocks, messages, and what no one
 *     here has heard of.
 *
 * Blocks and agents are the server's also where memfs could answer them: it compiles prompts from
 * its rows, so there is one truth, and memfs' own rows show over the home's socket only
 * (docs/http-api.md).  A path that memfs has is never passed on with another method,
 * nor one that would be memfs' if its %2F were slashes.
 *
 * Own routes of an agent are opened by the server's own check (letta/upstream.h), with the caller's
 * credential; memfs' tokens work beside it and are kept from the server.
 *
 * Thread: as app.h; what the server sends is carried by the upstream's thread.
 */
#ifndef MEMFS_SERVER_GATEWAY_H
#define MEMFS_SERVER_GATEWAY_H

#include "letta/roster.h"
#include "server/http.h"

typedef struct gateway gateway;

/* life cycle: stop before http_stop(), close after it; NULL is fine for both */
/* EINVALID: the address.  EUNAVAIL: no libcurl.  The server need not be there yet. */
MEMFS_CHECK memfs_code gateway_open(const char *address, bool is_behind_proxy, gateway **ret,
                                    memfs_error *err);
void gateway_stop(gateway *g);
void gateway_close(gateway *g);

/* To ask the server what rq's caller may; rq NULL: as nobody.  roster_close(). */
MEMFS_CHECK memfs_code gateway_roster(const gateway *g, const http_request *rq, roster **ret,
                                      memfs_error *err);

/* The table for http_options; lives as long as g. */
const http_route *gateway_routes(const gateway *g, size_t *ret_n);

/*
 * For the gate, on an event thread.  What the server says of whoever asks for the agent in the
 * path; UPSTREAM_NOT_ASKED: it is being asked, and the gate is asked again then.
 */
upstream_verdict gateway_judge(gateway *g, http_request *rq);
/* False: the server is being asked how it is.  True without a gateway. */
bool gateway_knows_health(gateway *g, http_request *rq);
/* "upstream": {...} */
void gateway_write_health(gateway *g, json_writer *w);

#endif
