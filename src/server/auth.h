/*
 * auth.h - who may ask for what (design 10; S1, S2, S4, S5).
 *
 * A token is "memfs_" and 43 letters and digits (256 random bits), shown once and stored as its
 * SHA-256.  It comes as Bearer, or as the password of Basic with any user name ("letta:<token>").
 *
 *     scope             may
 *     admin             everything that is asked over TCP
 *     agent:ID:rw|ro    the routes of that agent, reading or both; of lists, that agent's part
 *     repo:ID:rw|ro     the routes of that shared repository, and of their list that one
 *
 * One decision, from the route that was matched and the agent id that its handler will read (S2):
 *
 *     route's access    no token, bad token    agent's token, other agent    ro token, writing
 *     OPEN              served                 served                        served
 *     AGENT             401                    404 as for no such agent      403
 *     SHARED            401                    served: links decide (shared.h)   403
 *     ALL               401                    served, own part only         403
 *     ADMIN             401                    403                           403
 *     HOOK              served (the body proves itself)
 *     PEER              another server's secret opens it, and nothing else; no token does: 401
 *     OWNER             the home's socket only; no token opens it
 *
 * A shared repository's token is on SHARED, and on git's routes at the repository's own address,
 * what an agent's is on AGENT; it lists nothing else, and writes nowhere else.
 *
 * What a Letta server vouches for is an agent's own rw token's, unless it brings a token that is
 * known here, which then decides alone.
 *
 * Over the socket (0600) everything is served.  What reads and what writes, and how a verdict looks
 * as HTTP, is gate.c's.  A verdict is made before anything of the agent is looked at, so it takes
 * the same time whether the agent exists or not.
 *
 * In front of a Letta server (has_upstream) that server decides about all but OPEN, HOOK, PEER and
 * OWNER, also where there are no tokens; a credential that begins with "memfs_" is ours to judge,
 * by the table above, and is never shown to it.
 *
 * Authentication is on when there is a token (also a revoked one: revoking the last opens nothing),
 * or the server listens beyond loopback.  Tokens are held in memory and looked up by hash;
 * auth_reload() after a change.
 *
 * Guessing (T04): a good credential is served whatever else its source sent.  A bad one is counted
 * for its source; 20 different ones are free, and one a second from then on, which is more than a
 * client that is set up wrongly ever has.  The refusal of each beyond that is to be kept back, longer
 * and longer up to 8 s (gate.c does it).  The same bad one again tells nothing new, and is no guess.
 * A source that fails is told of in the log, once a minute.
 *
 * Thread: any.
 */
#ifndef MEMFS_SERVER_AUTH_H
#define MEMFS_SERVER_AUTH_H

#include "cache/state.h"
#include "memory/ids.h"
#include "server/http.h"

typedef struct auth auth;

typedef enum auth_level {
    AUTH_NOBODY,
    AUTH_AGENT_RO,
    AUTH_AGENT_RW,
    AUTH_PEER, /* another server of the database, on its own routes */
    AUTH_ADMIN,
} auth_level;

/* Lies in a request (http_principal). */
typedef struct auth_principal {
    auth_level level;
    char token_id[16];              /* for log and reflog; "" without a token */
    char agent_id[IDS_MAX_LEN + 1]; /* of an agent's token, or a shared repository's; "" */
    int64_t wait_ms;                /* of nobody who guesses: the refusal is to be so late */
} auth_principal;

/* life cycle */
MEMFS_CHECK memfs_code auth_open(state *s, bool is_forced, auth **ret, memfs_error *err);
void auth_close(auth *a);
bool auth_is_on(const auth *a);
/* Whose SHA-256 is a server's?  Before the first auth_judge(); until then, nobody's. */
typedef bool (*auth_peer_fn)(const uint8_t *hash, void *ctx);
void auth_set_peers(auth *a, auth_peer_fn fn, void *ctx);
/* Reads the tokens anew; when that fails, those that were known stay. */
MEMFS_CHECK memfs_code auth_reload(auth *a, memfs_error *err);

/* ---- what the table above says ---- */

typedef enum auth_verdict {
    AUTH_SERVE,
    AUTH_401,
    AUTH_403,
    AUTH_404,
    AUTH_ASK, /* has_upstream: it is no token of ours, so the upstream decides */
} auth_verdict;

typedef struct auth_question {
    http_access access;
    memfs_str agent_id; /* the route's {agent}, empty if it has none */
    memfs_str repo_id;  /* its {repository}, the same */
    bool is_writing;
    bool is_socket;
    bool is_vouched; /* a Letta server that is believed (service.h) speaks for an agent's client */
    const char *header; /* Authorization, or NULL */
    bool has_upstream; /* gateway: see below */
    const char *source; /* where it comes from, to count failures by; NULL: not counted */
} auth_question;
auth_verdict auth_judge(auth *a, const auth_question *q, auth_principal *ret);

/*
 * One more that failed, for a decision that was made elsewhere.  Returns how late its refusal is to
 * be, 0 for most.  now_ms: clock_mono_ms().
 */
int64_t auth_count_failure(auth *a, const char *source, const char *header, int64_t now_ms);
/* Is this credential one that only memfs may judge: a token that begins as ours do? */
bool auth_is_own(const char *header);

/*
 * Writes what failed since the last time, for each source that was not told in the last minute; the
 * server calls it now and then.  now_ms: clock_mono_ms().
 */
void auth_tell_failures(auth *a, int64_t now_ms);

/* ---- tokens ---- */

#define AUTH_TOKEN_LEN 49
/* A new one into token (wiped by the caller) and its row.  EINVALID: the scope. */
MEMFS_CHECK memfs_code auth_token_create(auth *a, memfs_str name, memfs_str scope,
                                         int64_t expires_at_us, char token[AUTH_TOKEN_LEN + 1],
                                         char ret_id[16], memfs_error *err);
/* ENOTFOUND; one that is revoked already stays as it is. */
MEMFS_CHECK memfs_code auth_token_revoke(auth *a, memfs_str id, memfs_error *err);
MEMFS_CHECK memfs_code auth_tokens(auth *a, state_token_fn fn, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code auth_scope_check(memfs_str scope, memfs_error *err);

#endif
