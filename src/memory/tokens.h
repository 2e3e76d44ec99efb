/*
 * tokens.h - how many tokens a memory costs, as the Letta client counts them (client 10).
 *
 * Thread: any; pure.
 */
#ifndef MEMFS_MEMORY_TOKENS_H
#define MEMFS_MEMORY_TOKENS_H

#include "base/str.h"

/* ceil(bytes / 4), after invalid UTF-8 became U+FFFD (3 bytes) as WHATWG decoders do it. */
uint64_t tokens_of(memfs_str text);
/* Characters (code points), after the same replacing. */
uint64_t chars_of(memfs_str text);

#endif
