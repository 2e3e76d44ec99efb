/*
 * prompt.h - the text that an agent's memory becomes in its system prompt: what a Letta server of
 * 0.16.7 shows a model of an agent with git memory, byte for byte.
 *
 *     <self>                  the block system/persona
 *     <memory>                the other blocks under system/, as nested tags of their labels
 *       <external_projection> a tree of the names of all other files, but skills
 *     <memory_metadata>       the agent's id and a date
 *
 * It stands where the agent's own system text says {CORE_MEMORY}, everywhere it does, else behind
 * it.
 *
 * Pure.  Thread: any.
 */
#ifndef MEMFS_MEMORY_PROMPT_H
#define MEMFS_MEMORY_PROMPT_H

#include "base/buf.h"

/* All borrowed; text that is not UTF-8 passes through. */
typedef struct prompt_block {
    memfs_str label, value, description;
} prompt_block;

typedef struct prompt_agent {
    memfs_str id;
    memfs_str system;       /* "" is fine */
    int64_t compiled_at_us; /* the date that it shows, in UTC */
} prompt_agent;

/* Adds to `out`; a bound that was passed shows in buf_check(). */
void prompt_compile(const prompt_agent *agent, const prompt_block *blocks, size_t n,
                    memfs_buf *out);

#endif
