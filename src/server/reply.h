/*
 * reply.h - what the REST handlers share: the request's parameters, the agent behind a path, the
 * tag of an answer, and what to say when something of it fails.
 *
 * The shape of a handler:
 *
 *     _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
 *     memfs_str id = reply_agent_id(rq, &p);               read and check everything first
 *     int64_t limit = params_limit(&p, 50);
 *     if (!reply_params_good(rq, &p) || !reply_agent(rq, self, id))
 *         return;                                          422, 400, 404 or 503 was sent
 *     ... read rows into http_out(rq) ...
 *     reply_rows(rq, &tag, rc, &err);
 *
 * Tags (ETag): an answer about one agent carries the commit and the generation that its rows came
 * from, in one snapshot, so equal tags mean equal bytes.  A list over agents carries the cache's
 * generation as it was before the rows were read, with the number of agents and of changes to their own
 * rows, or, where only one agent's part is shown, of that agent alone; a cache that is made anew does not
 * repeat the generations of the old one.
 *
 * Thread: the request's.
 */
#ifndef MEMFS_SERVER_REPLY_H
#define MEMFS_SERVER_REPLY_H

#include "server/app.h"
#include "server/params.h"

/* ---- parameters ---- */

#define REPLY_MAX_TAGS 64 /* of a filter */

bool reply_lookup(const void *request, const char *key, size_t i, memfs_str *ret);
#define REPLY_PARAMS(rq) PARAMS_INIT(reply_lookup, (rq))

memfs_str reply_agent_id(http_request *rq, params *p);
memfs_str reply_block_id(http_request *rq, params *p);
/* False when 400 or 422 was sent; the acting user's header is judged here too (http-api 1.3). */
bool reply_params_good(http_request *rq, const params *p);

/*
 * If-Match, without its quotes, when it names a version: not when it is absent or "*".  One that
 * can be none, such as "", is no version either and equals nothing: so it never passes for absent.
 */
bool reply_if_match(const http_request *rq, memfs_str *ret);
/* Its commit, where it may be any ETag of an agent; "" when it names none. */
memfs_str reply_if_match_commit(const http_request *rq);

/* ---- the agent ---- */

/* A database on a network is asked by workers only: true when the request was put off to one. */
bool reply_put_off(http_request *rq, const app *self);
/*
 * False when 404 or 503 was sent, or the request was put off to a worker.  The rows of an agent
 * that passed may be read.
 */
bool reply_agent(http_request *rq, app *self, memfs_str agent_id);
/*
 * The same where one that nobody knows will do: clients ask for secrets and repositories while they
 * make an agent ready, before anything was pushed.  An id that is new has a memory all the same
 * (its clone is the genesis), and a 404 would end a 0.32 client.
 */
bool reply_agent_or_new(http_request *rq, app *self, memfs_str agent_id);
/* What a failed look at an agent is called. */
void reply_agent_failed(http_request *rq, memfs_str agent_id, const memfs_error *err);

/*
 * Rows of one agent (q->agent_id) from one snapshot, with their tip.  A cache that lost the agent
 * meanwhile is caught up once; a damaged one is reported to the home.
 */
MEMFS_CHECK memfs_code reply_agent_blocks(http_request *rq, app *self, const block_query *q,
                                          cache_tip *ret, block_row_fn fn, void *ctx,
                                          memfs_error *err);

/* The same over all agents.  A damaged cache is reported to the home. */
MEMFS_CHECK memfs_code reply_all_blocks(app *self, const block_query *q, block_row_fn fn, void *ctx,
                                        memfs_error *err);

/* ---- one's own part ---- */

/*
 * An agent's token sees of lists over agents what is of its agent, and nothing of the others: what
 * is theirs is as if it were not there, also as a cursor (S1).  Every query over agents passes one
 * of these; for all others they change nothing.
 */
void reply_narrow_agents(const http_request *rq, agent_query *q);
MEMFS_CHECK memfs_code reply_narrow_blocks(const http_request *rq, app *self, block_query *q,
                                           memfs_error *err);
/*
 * The agent of a block, of several the one whose copy was written last; "loose" when no agent has it
 * (sync/loose.h), "" when there is no such block in one's part.  out has room for IDS_MAX_LEN + 1.
 */
MEMFS_CHECK memfs_code reply_block_owner(const http_request *rq, app *self, memfs_str block_id,
                                         char *out, memfs_error *err);

/* ---- tags ---- */

typedef struct reply_tag {
    char text[160]; /* with its quotes */
    bool is_sent;   /* it is in the answer's head already */
} reply_tag;

void reply_tag_agent(reply_tag *tag, const cache_tip *tip);
/* For answers that also show the agent's own row, with these relations. */
void reply_tag_state(reply_tag *tag, const cache_tip *tip, int64_t updated_at_us,
                     unsigned relations);
/* Of lists over agents; an agent's token is told nothing of how often others change. */
MEMFS_CHECK memfs_code reply_tag_all(const http_request *rq, app *self, reply_tag *tag,
                                     memfs_error *err);
/*
 * Before any row is read: true when the client has this agent's answer already and 304 was sent.
 * When it asked but has another, the tag of this moment is sent with the rows: they may be newer
 * than it, never older.
 */
bool reply_is_known(http_request *rq, app *self, memfs_str agent_id, reply_tag *tag);

/* ---- ends ---- */

/* Sends http_out(rq) with the tag, or 304 to a GET, or what rc says went wrong. */
void reply_rows(http_request *rq, const reply_tag *tag, memfs_code rc, const memfs_error *err);
/* An integer as the whole answer. */
void reply_count(http_request *rq, int64_t n, memfs_code rc, const memfs_error *err);
void reply_json(http_request *rq);

/* Row callback: writes a Block into a json_writer (ctx), with its tags; stops at its bound. */
memfs_code reply_write_block(const block_row *row, void *json_writer_ctx, memfs_error *err);

#endif
