/*
 * agent_fields.h - what Letta's API says of an agent beside its id, name, tags and memory: told by
 * POST and PATCH, kept as it was told, and told again (http-api 7).
 *
 * memfs has no use for models, tools or prompts, but clients look for what they have written.  Kept
 * is one JSON object of the fields that were told (state_agent.fields_json); what was not told is
 * answered with one neutral value each.  Secrets and environment variables are never kept.
 *
 * Pure.  Thread: any.
 */
#ifndef MEMFS_SERVER_AGENT_FIELDS_H
#define MEMFS_SERVER_AGENT_FIELDS_H

#include "base/json.h"
#include "server/body.h"

/*
 * The fields of a body into `fields` (an object): null leaves one as it is.  Wrong types are errors
 * of the body.
 */
void agent_fields_read(body *b, json_t *fields);
/* `hidden` of them: left out of lists that do not ask for hidden ones. */
bool agent_fields_are_hidden(const json_t *fields);

/* fields_json "" is none; what is no JSON counts as none.  The caller decrefs; never NULL. */
json_t *agent_fields_parse(memfs_str fields_json);
/* As text, added to out; nothing for an empty object. */
void agent_fields_text(const json_t *fields, memfs_buf *out);

/* An AgentState's members before `memory`, from tool_rules on, and those behind `tags`. */
void agent_fields_put_head(json_writer *w, const json_t *fields);
void agent_fields_put_tail(json_writer *w, const json_t *fields);

#endif
