/*
 * service.h - memfs as the memfs service behind a Letta server as it is (design 9, letta.md).
 *
 * The server hands every git request of its clients on to us, and reads and writes the same
 * memories in a folder of its own (letta/folder.h), which is a remote of the mirror like any other.
 * What is added here is when it must be in step:
 *
 *     refs are told     what the server wrote is part of main by then (service_look)
 *     a push reports    main is in the folder by then: the server reads it once it has relayed our
 *                       report (service_publish)
 *     main moved else   published by the mirror, and the server is made to re-read (letta/reread.h)
 *     the server wrote  letta/sweep.h notices, the mirror takes it in
 *
 * X-Organization-Id says whose agent it is, and that the server has asked its own rules.  It is
 * believed from the configured addresses alone, for the addresses that the server asks its rules
 * for
 * (/git/{agent}/state.git/.., byte for byte), and if that organization's the agent is (T03): such a
 * request may do with it what the agent's own token may (auth.h).  Else it counts for nothing; of
 * other addresses the log says so once.
 *
 * No request reads the volume itself (letta/eye.h): where it hangs, main is told as it is here.
 *
 * Thread: any, after service_open.
 */
#ifndef MEMFS_SERVER_SERVICE_H
#define MEMFS_SERVER_SERVICE_H

#include "server/app.h"

typedef struct service service;

typedef struct service_options {
    const char *root;       /* the server's ~/.letta/memfs; NULL: there is no such server */
    const char *proxies;    /* its addresses (peers.h) */
    const char *url;        /* where it listens; NULL: it is never made to re-read */
    const char *token_file; /* its password; NULL */
    bool is_quiet;          /* of a command that passes: no word of what is missing, no sweep */
} service_options;

/* life cycle: open, the mirror starts with its folder, start, stop, the mirror stops, close */
MEMFS_CHECK memfs_code service_open(const service_options *o, const char *home, service **ret,
                                    memfs_error *err);
/* Tells the mirror what the server writes from now on. */
MEMFS_CHECK memfs_code service_start(service *s, home *h, mirror *m, memfs_error *err);
/*
 * False, and so ever after: the volume hangs, and a thread goes on with it, the home and the mirror;
 * none of these is closed then.  NULL is fine, here and below.
 */
bool service_stop(service *s);
void service_close(service *s);
letta_folder *service_folder(service *s);
/* mirror_options.letta_moves; ctx: the service. */
void service_moves(const char *agent_id, mirror_letta_step step, void *service);

/* Does the Letta server speak for this agent's client?  From the head alone; for the gate, too. */
bool service_vouches(service *s, const http_request *rq, memfs_str agent_id);

/* These wait, on a worker; they do nothing where no Letta server is configured. */
/*
 * What the server wrote becomes main's, if that can be done in time.  EUNAVAIL: it could not, and
 * the mirror tells why; main as it is here is good, but where there is none nothing is.
 */
MEMFS_CHECK memfs_code service_look(app *self, memfs_str agent_id, memfs_error *err);
/*
 * Of a request that is vouched for: is the agent that organization's (letta_folder_admits)?
 * is_here: there is a memory of it.  False: the answer is given.
 */
bool service_admits(app *self, http_request *rq, memfs_str agent_id, bool is_here);
/* Around a push: what is published between these the server reads by itself, most likely. */
/* false: it did not come through the server, and nothing more is said. */
bool service_push_begin(app *self, const http_request *rq, memfs_str agent_id);
void service_push_end(app *self, memfs_str agent_id);
/*
 * after each: it was given the report, and is made to re-read some seconds later; or it was not, and
 * is at once.  Without the request.
 */
void service_push_told(app *self, memfs_str agent_id, bool is_told);
/* Main is in the folder when this returns OK; else why it will be there later. */
MEMFS_CHECK memfs_code service_publish(app *self, const http_request *rq, memfs_str agent_id,
                                       memfs_error *err);

#endif
