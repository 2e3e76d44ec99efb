/*
 * remote_check.h - `memfs remote check`: what the remote says, and what its token can do.
 *
 * Letta's endpoint is asked one question, as a sync asks it; a host of the user's own is asked for
 * everything that host_report.h tells.
 */
#ifndef MEMFS_CLI_REMOTE_CHECK_H
#define MEMFS_CLI_REMOTE_CHECK_H

#include "cli/exit.h"
#include "client/backend.h"

/* c->has_remote.  0 it answers and may be pushed to, 3 unavailable, 4 credentials refused. */
cli_exit remote_check(const place *p, const backend_choice *c, int64_t wait_ms, bool as_json);

#endif
