/*
 * letta_options.h - what of `memfs serve` about a Letta server whose memfs service it is goes
 * together.
 */
#ifndef MEMFS_CLI_LETTA_OPTIONS_H
#define MEMFS_CLI_LETTA_OPTIONS_H

#include "server/server.h"

/* EINVALID: something is missing beside --letta-root or too much, or the rest does not go with it.
 */
MEMFS_CHECK memfs_code letta_options_check(const server_options *o, memfs_error *err);

#endif
