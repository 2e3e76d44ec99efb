/*
 * agents.h - what the handlers of agents share: agents.c reads them, agent_edit.c writes them.
 *
 * Thread: the request's.
 */
#ifndef MEMFS_SERVER_AGENTS_H
#define MEMFS_SERVER_AGENTS_H

#include "server/app.h"
#include "server/body.h"
#include "server/shape.h"

#define AGENTS_MAX_TAGS 1000
#define AGENTS_MAX_BLOCKS 1000 /* in one body */

/* Answers with the AgentState of one that reply_agent() let pass, or with what went wrong. */
void agents_answer(http_request *rq, app *self, memfs_str id, unsigned relations);

/*
 * Fields of a body: true when they are there and good.  A new agent's name has letters, digits,
 * blanks and _ - ' only (a stock server fails on others).  Tags are JSON text, each once.
 */
bool agents_read_name(body *b, bool is_new, memfs_str *ret);
bool agents_read_tags(body *b, memfs_buf *out);
/* "block_ids", each once: a list that the caller frees, of slices that live as long as the body. */
bool agents_read_block_ids(body *b, memfs_str **ret, size_t *ret_n);
/* A change of an agent's blocks failed: what the body names is not there (404), or cannot be. */
void agents_send_failure(http_request *rq, memfs_str agent_id, bool is_unclear,
                         const memfs_error *err);

#endif
