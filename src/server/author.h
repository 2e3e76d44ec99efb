/*
 * author.h - who asks, as a commit has it: the author of what is written over REST, and who is in
 * the reflog for a push.
 *
 *     who asks                     name                 e-mail
 *     an agent's token             token 1a2b3c4d       agent-…@letta.com
 *     an admin's token             token 1a2b3c4d       token-1a2b3c4d@memfs.localhost
 *     anybody, without tokens      User user-000…       user-000…@letta.ai, as a stock server
 *                                                       has it
 *
 * The reason that a caller gives in X-Memfs-Reason stands in the message, on one line.
 *
 * Thread: the request's.
 */
#ifndef MEMFS_SERVER_AUTHOR_H
#define MEMFS_SERVER_AUTHOR_H

#include "server/app.h"
#include "store/store.h"
#include "sync/push.h"

typedef struct author {
    char name[IDS_MAX_LEN + 16], email[IDS_MAX_LEN + 32];
} author;

/* Of now; borrows from *room. */
store_identity author_of(const http_request *rq, author *room);
/* For the reflog of a push: without tokens that is the agent. */
void author_of_push(const http_request *rq, memfs_str agent_id, author *ret);
/* What becomes of a file that is read-only, for whoever asks (sync/read_only.h). */
push_read_only author_read_only(const http_request *rq);

#define AUTHOR_MAX_REASON 200 /* bytes; what is longer is cut */
/* The reason, escaped; "" when none was given. */
typedef struct author_reason {
    char text[AUTHOR_MAX_REASON + 1];
} author_reason;
void author_reason_of(const http_request *rq, author_reason *ret);

#endif
