/*
 * shape.h - rows as the JSON that Letta's API has for them: Block and AgentState, every field in
 * its place (http-api 4 and 7).
 *
 * Clients compare and cache these texts, so the order of keys is part of the contract, null fields
 * are written, and nothing is added.  What a server of memories alone has no use for (models, tools,
 * messages) is as it was told, or has one neutral value each (agent_fields.h).
 *
 * Rows are written straight into the buffer, without a tree in between: an answer costs one copy of
 * its bytes.  A bound that was passed shows in buf_check().
 *
 * Pure.  Thread: any.
 */
#ifndef MEMFS_SERVER_SHAPE_H
#define MEMFS_SERVER_SHAPE_H

#include "base/json.h"
#include "cache/cache.h"
#include "cache/shared.h"

#define SHAPE_GIT_TAG "git-memory-enabled"
#define SHAPE_AGENT_TYPE "letta_v1_agent"

/* Is the git tag one of this JSON array of texts? */
bool shape_has_git_tag(memfs_str tags_json);

/* A Block.  Inside an agent object tags are always empty. */
void shape_block(json_writer *w, const block_row *row, bool with_tags);

/* Which relations of an agent are shown; the others are there, and empty. */
typedef enum shape_relations {
    SHAPE_BLOCKS = 1 << 0,
    SHAPE_TAGS = 1 << 1,
} shape_relations;
#define SHAPE_ALL (SHAPE_BLOCKS | SHAPE_TAGS)

/*
 * An AgentState.  blocks_json is an array of Blocks that is written already, "[]" when there are
 * none; it is left out unless relations has SHAPE_BLOCKS.
 */
void shape_agent(json_writer *w, const state_agent *agent, unsigned relations,
                 memfs_str blocks_json);
/* The agent's `memory` object alone. */
void shape_memory(json_writer *w, memfs_str blocks_json);

/* The agent's own memory among its repositories. */
void shape_own_repository(json_writer *w, memfs_str agent_id);
/* Shared repositories (http-api 8.1). */
void shape_repository(json_writer *w, const shared_repo *row);
void shape_link(json_writer *w, const shared_link *row);

#endif
