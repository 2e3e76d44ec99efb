/*
 * letta_options.h - what of `memfs serve` goes together about a Letta server that memfs stands behind
 * or beside.
 */
#ifndef MEMFS_CLI_LETTA_OPTIONS_H
#define MEMFS_CLI_LETTA_OPTIONS_H

#include "server/server.h"

/* EINVALID: something about it is missing or too much, or the rest does not go with it. */
MEMFS_CHECK memfs_code letta_options_check(const server_options *o, memfs_error *err);

#endif
