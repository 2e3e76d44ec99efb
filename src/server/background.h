/*
 * background.h - the threads of a server that no request waits for.
 *
 *     background   recovers what was not touched since the start (app.is_ready tells when all was),
 *                  then what comes up: rows that the database was away for, Letta's tables, packs
 *                  that pushes leave, failed logins, children that nobody waits for
 *     together     where several servers share a database: heartbeat, lease of the mirror, tokens
 *                  that others made or revoked.  It waits for the database at most
 *     following    the same: what the others moved is fetched.  It may wait for one that hangs
 *     catching up  the same: recovery and late rows, which may wait for one that hangs, too
 *
 * Each does a piece and pauses for a second.  What fails is told and tried again.
 *
 * Thread: whoever starts it stops it.
 */
#ifndef MEMFS_SERVER_BACKGROUND_H
#define MEMFS_SERVER_BACKGROUND_H

#include "server/app.h"

typedef struct background background;

/*
 * Home, mirror and auth of the app are there, and outlive it.  tick is called every second, for
 * what else the server has to look at.  EUNAVAIL, ...: a thread could not be started; none runs
 * then.
 */
MEMFS_CHECK memfs_code background_start(app *a, void (*tick)(void *ctx), void *tick_ctx,
                                        background **ret, memfs_error *err);
/* Waits for the piece that each is at, but not for other servers.  NULL is fine. */
void background_stop(background *b);

#endif
