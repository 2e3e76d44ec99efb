/*
 * teller.h - the shape of an owner's route: work on the home, asked for over its own socket (0600),
 * told line by line.
 *
 * A request is one JSON object (400 when it is not); the answer is NDJSON, one object a line,
 * flushed as it comes:
 *
 *     {"progress":{"done":12,"total":100,"agent":"agent-…"}}
 *     {"finding":{"agent":"agent-…","kind":"row-differs","what":"system/human","text":"…"}}
 *     {"result":{"agents":100,"failed":0,…}}            last, when the work was done
 *     {"error":{"code":"ENOTFOUND","message":"…"}}      last, when it was not
 *
 * An answer that ends without one of the last two was cut: the server went away.  A caller that
 * hangs up stops the work after the agent at hand.
 *
 * A route is one call of teller_run() with the job, which reads its fields from the request, does
 * its work and tells the result; an error that it returns is told for it.  Secrets come in the body
 * and never in a target, so no log ever has them.
 *
 * Thread: the one that runs the handler.
 */
#ifndef MEMFS_SERVER_TELLER_H
#define MEMFS_SERVER_TELLER_H

#include "server/app.h"
#include "sync/upkeep.h"

#include <jansson.h>

typedef struct teller {
    http_request *rq;
    /* not for jobs */
    memfs_buf line;
    bool is_alone; /* nobody listens any more */
} teller;

typedef memfs_code (*teller_job)(app *self, const json_t *request, teller *t, memfs_error *err);
void teller_run(http_request *rq, void *ctx, teller_job job);

/* ---- reading the request ---- */

/* A text, or empty when the key is absent or null.  EINVALID: it is something else. */
MEMFS_CHECK memfs_code teller_text(const json_t *request, const char *key, memfs_str *ret,
                                   memfs_error *err);
/* "agent": the one to work on; empty is all of them.  EINVALID: it is no agent's id. */
MEMFS_CHECK memfs_code teller_agent(const json_t *request, memfs_str *ret, memfs_error *err);
/* The same, or a shared repository. */
MEMFS_CHECK memfs_code teller_memory(const json_t *request, memfs_str *ret, memfs_error *err);
/* EINVALID: neither true nor false; absent is false. */
MEMFS_CHECK memfs_code teller_flag(const json_t *request, const char *key, bool *ret,
                                   memfs_error *err);

/* ---- telling ---- */

/* {"<kind>":{ … the caller's fields … }}: begin, write fields, end. */
json_writer teller_begin(teller *t, const char *kind);
void teller_end(teller *t, json_writer *w);
/* False when nobody listens any more. */
bool teller_is_heard(const teller *t);
/* Progress and findings go to t as they come. */
upkeep_watcher teller_watcher(teller *t);
/* {"result":{"agents","findings","failed"}} */
void teller_result(teller *t, const upkeep_result *r);

#endif
