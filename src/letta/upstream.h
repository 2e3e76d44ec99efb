/*
 * upstream.h - the Letta server behind the gateway: where it is, whether it answers, and whom it
 * lets in (design 10: "in gateway mode the Letta server's own check decides").
 *
 * Who may touch an agent's memory is asked of the server itself: GET /v1/agents/{id} with the
 * caller's own credential, without User-Agent, so that it loads no relations (contract 1.3).  A
 * Basic credential is shown as Bearer with its password, which is how git sends the token that a
 * stock server takes only as Bearer (contract 1.2).
 *
 *     the server says                              verdict      holds for
 *     200, JSON, and it names that agent           YES          30 s
 *     401                                          UNKNOWN       5 s
 *     403                                          FORBIDDEN     5 s
 *     404, 400, 422 (no such agent, or no such id) NO_AGENT      5 s
 *     anything else, or nothing within 10 s        AWAY         not at all: never a yes
 *
 * What belongs to no agent (an empty id here) is open to who may list them all: GET
 * /v1/agents/?limit=1, answered with a JSON list; there is no NO_AGENT then.
 *
 * Verdicts are kept by an HMAC of agent and credential with a key of this process, so the table
 * holds no secret; it has room for 2,048.  Who asks the same at the same time shares one request,
 * and at most 256 different ones run: past that, AWAY.
 *
 * Thread: any; what is asked is answered on the upstream's own thread, where nothing may wait.
 */
#ifndef MEMFS_LETTA_UPSTREAM_H
#define MEMFS_LETTA_UPSTREAM_H

#include "letta/stream.h"

typedef struct upstream upstream;

/* life cycle */
/* Nothing is asked yet.  EINVALID: the address.  EUNAVAIL: no libcurl. */
MEMFS_CHECK memfs_code upstream_open(const char *address, upstream **ret, memfs_error *err);
/* Ends what is asked and streamed; from then on everything is AWAY. */
void upstream_stop(upstream *u);
/* When nobody uses it any more.  NULL is fine. */
void upstream_close(upstream *u);

const stream_address *upstream_address(const upstream *u);
httpc_multi *upstream_multi(upstream *u);
/* A word that tells this process from others, for Via. */
const char *upstream_via(const upstream *u);

/* ---- who is it? ---- */

typedef enum upstream_verdict {
    UPSTREAM_NOT_ASKED, /* or too long ago */
    UPSTREAM_YES,
    UPSTREAM_UNKNOWN,
    UPSTREAM_FORBIDDEN,
    UPSTREAM_NO_AGENT,
    UPSTREAM_AWAY,
} upstream_verdict;

/* Fields of the caller's head, as they came; NULL: absent. */
typedef struct upstream_caller {
    const char *authorization;
    const char *bare_password; /* X-BARE-PASSWORD, the stock server's other way */
    const char *user_id;       /* whom it acts for, where there are several */
} upstream_caller;

/* The lines that say the same to the server.  False: its Basic is not what it should be. */
bool upstream_credentials(const upstream_caller *c, stream_lines *out);
/* What is known without asking. */
upstream_verdict upstream_known(upstream *u, memfs_str agent_id, const upstream_caller *c);
typedef void (*upstream_fn)(upstream_verdict verdict, void *ctx);
/* Calls fn once: later, or before it returns. */
void upstream_ask(upstream *u, memfs_str agent_id, const upstream_caller *c, upstream_fn fn,
                  void *ctx);

/* ---- is it there? ---- */

typedef struct upstream_health {
    int64_t asked_ms; /* clock_mono_ms(); 0: never */
    bool is_good;     /* it answered 200 within 2 s */
    char version[32]; /* as it says; "" */
    char reason[64];  /* why not, for a client: no address in it */
} upstream_health;

#define UPSTREAM_HEALTH_MS 1000 /* so long an answer counts as fresh */
void upstream_health_now(upstream *u, upstream_health *ret);
/* Asks GET /v1/health/, if nobody is asking already; fn once, with UPSTREAM_YES or UPSTREAM_AWAY.
 */
void upstream_ask_health(upstream *u, upstream_fn fn, void *ctx);

/* Why a transfer failed, as words for a client. */
const char *upstream_failure_text(httpc_failure f);

/* What an Authorization field becomes for the server: Basic as Bearer, all else as it is.  False:
 * it is Basic, and not what that should be.  Exposed for tests. */
bool upstream_authorization(memfs_str field, memfs_buf *out);
/* The table of verdicts, at any time.  Exposed for tests. */
void upstream_keep_at(upstream *u, memfs_str agent_id, const upstream_caller *c,
                      upstream_verdict verdict, int64_t now_ms);
upstream_verdict upstream_known_at(upstream *u, memfs_str agent_id, const upstream_caller *c,
                                   int64_t now_ms);

#endif
