/*
 * webhooks.h - which secrets prove a delivery, and what was seen already; the server's part of
 * remote/webhook.h.
 *
 * Secrets, all of them tried: MEMFS_WEBHOOK_SECRET; the files MEMFS_WEBHOOK_SECRET_FILE,
 * $CREDENTIALS_DIRECTORY/memfs-webhook-secret, $MEMFS_HOME/secrets/webhook (which
 * `memfs webhook add` makes when there is none at all) and each remote's webhookSecretFile.  A file
 * has a secret a line, so that a new one can be given out before the old one ends; it must be nobody
 * else's to read.  Files are read for each delivery: what was changed counts at once.  The secret of
 * a remote proves deliveries about that remote only.
 *
 * Thread: any.
 */
#ifndef MEMFS_SERVER_WEBHOOKS_H
#define MEMFS_SERVER_WEBHOOKS_H

#include "server/app.h"

typedef struct webhooks webhooks;

/* The environment is read here, once.  home_path: $MEMFS_HOME. */
webhooks *webhooks_new(const char *home_path);
void webhooks_free(webhooks *w);

/* ---- the secrets of this moment ---- */

#define WEBHOOK_MAX_SECRETS 64

typedef struct webhook_secrets {
    memfs_str at[WEBHOOK_MAX_SECRETS];
    char *remote[WEBHOOK_MAX_SECRETS]; /* NULL: for all remotes */
    size_t n;
} webhook_secrets;
void webhook_secrets_load(app *self, webhook_secrets *ret);
void webhook_secrets_dispose(webhook_secrets *s);
/* The one to give to this remote's host: its own before the common ones; NULL: there is none. */
const memfs_str *webhook_secret_for(const webhook_secrets *s, const char *remote);
/* Makes secrets/webhook, with 256 random bits.  EEXISTS: it is there. */
MEMFS_CHECK memfs_code webhook_secret_make(const webhooks *w, memfs_error *err);

#endif
