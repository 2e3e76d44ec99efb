/*
 * author.h - who is the author of a commit that a request asks for, and what it says of itself.
 *
 *     who asks                     name            address
 *     a token, for an agent        token ID        <agent id>@letta.com
 *     a token, for nobody's        token ID        token-ID@memfs.localhost
 *     nobody we have a name for    the agent's id  <agent id>@letta.com; without one: memfs
 *
 * Thread: the request's.
 */
#ifndef MEMFS_SERVER_AUTHOR_H
#define MEMFS_SERVER_AUTHOR_H

#include "server/app.h"
#include "store/store.h"
#include "sync/push.h"

typedef struct author {
    char name[IDS_MAX_LEN + 1];
    char email[IDS_MAX_LEN + 32];
    store_identity who; /* points into the two: it does not move */
} author;

/* agent_id: whose memory it is, "" for what is no agent's. */
void author_of(const http_request *rq, memfs_str agent_id, author *ret);
/* What the same caller may do with files that say read_only: true. */
push_read_only author_read_only(const http_request *rq);

/*
 * X-Memfs-Reason as a paragraph of the commit's message, escaped, at most AUTHOR_MAX_REASON bytes;
 * "" where there is none.
 */
#define AUTHOR_MAX_REASON 200
void author_reason(const http_request *rq, char out[AUTHOR_MAX_REASON + 8]);

#endif
