/*
 * git_int.h - what git.c, git_fetch.c and git_push.c share; of these files only.
 */
#ifndef MEMFS_SERVER_GIT_INT_H
#define MEMFS_SERVER_GIT_INT_H

#include "server/app.h"
#include "server/git_wire.h"

/* ---- which repository ---- */

typedef struct git_target {
    const char *name; /* of the repository in the store; NULL: the genesis stands in */
    memfs_oid tip;
} git_target;

/* Which memory a request means: the agent's own, or one that it has a link to. */
typedef struct git_memory {
    char id[IDS_MAX_LEN + 1];
    bool is_shared;
} git_memory;

/* The one that the path names as it stands.  False: the answer is given. */
bool git_check_id(http_request *rq, memfs_str *ret);
/*
 * The same, and what is shared is looked for and its links asked, which may wait for the database.
 * False: the answer is given.
 */
bool git_find_memory(http_request *rq, app *a, bool is_push, git_memory *ret);
/* Of a reader.  On a worker: it may wait for the network.  False: the answer is given. */
bool git_find_target(http_request *rq, app *a, git_target *ret);
/* The same of who a Letta server vouches for. */
bool git_may_push(http_request *rq, app *a, const git_memory *m);
/* Of another server's request: what is here, as it is.  False: the answer is given. */
bool git_find_own(http_request *rq, app *a, git_target *ret);
/*
 * On an event thread: one small file is read, nothing is waited for, nothing is decided anew.
 * False: a worker has to find out.
 */
bool git_find_at_hand(http_request *rq, app *a, git_target *ret);

/* ---- requests and answers ---- */

/*
 * git always says what it sends; somebody who says nothing is not refused for it.  False: the
 * answer is given.
 */
bool git_check_type(http_request *rq, git_service service);
/* Why the body ended before its time. */
void git_send_fault(http_request *rq);
void git_send_no_cache(http_request *rq);

#endif
