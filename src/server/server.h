/*
 * server.h - a home that is served: the HTTP front, the recovery at start, the upkeep beside it.
 *
 * The home's own socket ($MEMFS_HOME/socket, 0600) is always served; TCP only if an address is
 * given. server_start answers at once; repositories that were not touched yet are recovered in the
 * background (design 14, L2).  Addresses beyond loopback are refused as long as there are no
 * tokens (auth.h), whoever made the socket.
 *
 * Thread: one thread starts, runs and stops a server.
 */
#ifndef MEMFS_SERVER_SERVER_H
#define MEMFS_SERVER_SERVER_H

#include "base/manager.h"
#include "mirror/remotes.h"
#include "server/http.h"
#include "server/service.h"

typedef struct server server;

typedef struct server_options {
    home_options home;   /* its alarm is set by server_start: alarms go to the log */
    const char *address; /* NULL: the socket only */
    uint16_t port;       /* 0: any free one */
    const manager *manager; /* NULL: none; its sockets take the place of address and port */
    const char *tls_cert, *tls_key; /* files, PEM; both or neither */
    bool is_behind_proxy; /* one that does TLS, and speaks for all clients */
    bool is_transient;   /* a command's own short service: no background work, no request log */
    const char *upstream; /* the Letta server that answers all else (gateway.h); NULL: none */
    /* --remote and --remote-token-file; NULL: as the environment and the home's config say */
    const char *remote_url, *remote_token_file;
    /* root NULL: no Letta server hands its clients' git on to us; url and token_file may be said
     * all the same, for prompts (recompile.h) */
    service_options letta;
} server_options;
#define SERVER_OPTIONS_INIT { .home = HOME_OPTIONS_INIT }

/*
 * EDENIED: an address beyond loopback, and no tokens, and no upstream that decides.  EINVALID: remotes that cannot be read (a
 * transient service starts all the same, and its routes about remotes say why).  EUNAVAIL: the home
 * is owned, or the port taken.
 */
MEMFS_CHECK memfs_code server_start(const server_options *options, server **ret, memfs_error *err);
uint16_t server_port(const server *s);
/* The remotes of this moment; they live during the call. */
void server_remotes(const server *s, void (*fn)(const remotes *r, void *ctx), void *ctx);
/* What lies beside the memories is read anew, and connections stay (F30): tokens, certificate, remotes.
 * What cannot be read is logged, and what was there before stays. */
void server_reload(server *s);
/* Ends what runs within 25 s; returns how many requests were cut off. */
size_t server_stop(server *s);

/*
 * server_run.c: start, ready() once, wait for SIGTERM or SIGINT, stop; the manager is told of each.
 * SIGHUP is server_reload.  The signals are blocked in all threads before any is started.
 */
MEMFS_CHECK memfs_code server_run(const server_options *options,
                                  void (*ready)(const server *s, void *ctx), void *ctx,
                                  memfs_error *err);

#endif
