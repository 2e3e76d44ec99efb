/*
 * peers.h - a list of addresses and networks, as an option names them: "10.1.2.3,172.16.0.0/12,::1".
 *
 * An IPv4 address and the same one mapped into IPv6 are one.  Pure; immutable once parsed.
 */
#ifndef MEMFS_SERVER_PEERS_H
#define MEMFS_SERVER_PEERS_H

#include "base/error.h"
#include "base/str.h"

typedef struct peers peers;

/* EINVALID names the part that is no address; an empty list is none either. */
MEMFS_CHECK memfs_code peers_parse(const char *text, peers **ret, memfs_error *err);
void peers_free(peers *p); /* NULL is fine */
/* address: as http_peer() gives it; "" (the socket) is no peer. */
bool peers_have(const peers *p, const char *address);

#endif
