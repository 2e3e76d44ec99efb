/*
 * assign.h - `memfs remote set` and `unset`: the remote of one agent, or the general address of
 * all.
 *
 * One agent's lies in its checkout's configuration (memfs.remote), and its host is noted as
 * approved (approved.h); the general one, with {agentId} in it, in $MEMFS_HOME/config.  Secrets go
 * to secrets/ and nowhere else; user info in an address is split off. Afterwards the checkout is
 * brought up to date (prepare.h), so that from the same moment its origin is the new one and the
 * Letta key does not reach it.
 *
 * Thread: any; blocks for the checkout's lock.
 */
#ifndef MEMFS_CLIENT_ASSIGN_H
#define MEMFS_CLIENT_ASSIGN_H

#include "client/backend.h"

typedef struct assignment {
    const char *url;
    const char *username, *secret;                   /* NULL: none, or as in the URL */
    const char *ca_file, *ssh_key, *ssh_known_hosts; /* NULL: unchanged */
} assignment;

/*
 * p NULL: the general address.  A memory that is not there yet is made.  notes: a line each about
 * what a person should know (a secret that was in the address, what prepare left alone). EINVALID:
 * no address of a remote, or without {agentId} where p is NULL.  EDENIED: http:// to a host that
 * was not allowed.
 */
MEMFS_CHECK memfs_code assign_remote(const settings *s, const place *p, const assignment *a,
                                     memfs_buf *notes, memfs_error *err);
/*
 * Takes it back: address, secret, the header of its host, and origin goes back to Letta's endpoint
 * (none, for an agent of the local backend).  ENOTFOUND: none was set.
 */
MEMFS_CHECK memfs_code assign_forget(const settings *s, const place *p, memfs_buf *notes,
                                     memfs_error *err);

#endif
