/*
 * remotes_int.h - what remotes.c and remotes_owner.c share.
 */
#ifndef MEMFS_MIRROR_REMOTES_INT_H
#define MEMFS_MIRROR_REMOTES_INT_H

#include "mirror/remotes.h"

#define REMOTES_MARK "{agentId}"
/* In its place, for what takes whole addresses apart. */
#define REMOTES_STAND_IN "agent-00000000-0000-4000-8000-000000000000"

/*
 * The template as an address, whose secret is split off; *ret_clean (caller frees) is the template
 * without it.
 */
MEMFS_CHECK memfs_code remotes_parse(const char *text, remote_url *ret, char **ret_clean,
                                     memfs_error *err);

#endif
