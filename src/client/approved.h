/*
 * approved.h - which host the operator named for an agent: $MEMFS_HOME/remotes/<agent>.
 *
 * The checkout's configuration says where an agent's remote is, and whoever works in the checkout
 * may write that.  `memfs remote set` and `memfs clone` also note the address's origin (scheme,
 * host, port) here, outside of every memory, and a token that was given without a host
 * (MEMFS_REMOTE_TOKEN) goes to a remote of the checkout only when the two agree.
 *
 * Format: the origin on one line, 0600.  A file that cannot be read approves nothing.
 * Thread: any.
 */
#ifndef MEMFS_CLIENT_APPROVED_H
#define MEMFS_CLIENT_APPROVED_H

#include "remote/url.h"

/*
 * In the place of what was noted before; url NULL, or one that takes no token (ssh, a path):
 * nothing is.
 */
MEMFS_CHECK memfs_code approved_note(const char *memfs_home, const char *agent_id,
                                     const remote_url *url, memfs_error *err);
bool approved_is(const char *memfs_home, const char *agent_id, const remote_url *url);

#endif
