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

/* Answers with the AgentState of one that reply_agent() let pass, or with what went wrong. */
void agents_answer(http_request *rq, app *self, memfs_str id, unsigned relations);

/*
 * Fields of a body: true when they are there and good.  A new agent's name has letters, digits,
 * blanks and _ - ' only (a stock server fails on others).  Tags are JSON text, each once.
 */
bool agents_read_name(body *b, bool is_new, memfs_str *ret);
bool agents_read_tags(body *b, memfs_buf *out);
/* Blocks that are there are attached one by one: false when a body wants it otherwise and 400 was
 * sent. */
bool agents_check_block_ids(http_request *rq, const body *b, bool may_be_empty);

#endif
