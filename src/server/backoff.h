/*
 * backoff.h - refusals that are given late (T04).
 *
 * Who guesses tokens waits for each answer; the request is held at the gate (http.h), where it
 * costs its connection, which is counted for its source, and neither a worker nor an event thread.
 * One thread tells them when their time has come.
 *
 * Thread: any; stop and close by the one that opened it.
 */
#ifndef MEMFS_SERVER_BACKOFF_H
#define MEMFS_SERVER_BACKOFF_H

#include "server/http.h"

typedef struct backoff backoff;

/* life cycle: stop before http_stop(), close after it; NULL is fine for both */
MEMFS_CHECK memfs_code backoff_open(backoff **ret, memfs_error *err);
/* Tells all that wait, now; nothing is held from then on. */
void backoff_stop(backoff *b);
void backoff_close(backoff *b);

/*
 * For the gate: rq is held, and told `what` in wait_ms.  False: it is not (too many wait, or it was
 * stopped), and the answer is due now.
 */
bool backoff_hold(backoff *b, http_request *rq, int64_t wait_ms, int what);

#endif
