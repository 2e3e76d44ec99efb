/*
 * shared.h - shared repositories over HTTP (http-api 8): which one a request means, and whether its
 * caller may do there what it asks for.
 *
 *     who asks                       may
 *     admin, the socket              everything; as an agent (git below its id): what its link says
 *     an agent's token               what its agent's link says, and what the token does
 *     a repository's token           that one, as the token says
 *
 * One that somebody has no link to is as if it were not there, byte for byte (S1).  Who has which
 * link is asked of the state in each request, so a link that was taken away, on whichever server,
 * ends at once.  The gate (auth.h) has asked for everything else before.
 *
 * Errors carry `message`, which clients of these routes read first, and the same text as `detail`.
 *
 * Thread: a worker's, as the state may be a database elsewhere.
 */
#ifndef MEMFS_SERVER_SHARED_H
#define MEMFS_SERVER_SHARED_H

#include "cache/shared.h"
#include "server/app.h"

typedef struct shared_target {
    char id[IDS_MAX_LEN + 1];
    char name[IDS_SHARED_NAME_MAX + 1];
    bool may_write;
} shared_target;

/* Of {repository}; a request that is no GET must be allowed to write.  False: the answer is given.
 */
bool shared_find(http_request *rq, app *self, shared_target *ret);
/* Of {agent}/repositories/{name}, name with ".git"; or of {agent} that is a repository's id. */
bool shared_find_git(http_request *rq, app *self, bool is_push, shared_target *ret);

void shared_send(http_request *rq, int status, const char *fmt, ...) MEMFS_PRINTF(3, 4);
/* The same of a failure; EINVALID is 422.  409 is not to be tried again by a client on its own
 * (http-api 1.5). */
void shared_send_error(http_request *rq, const memfs_error *err);
/* 404, in the words of the contract. */
void shared_send_missing(http_request *rq);

#endif
