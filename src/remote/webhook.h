/*
 * webhook.h - a delivery of a git host: proven over its raw bytes, then read for a hint (T22).
 *
 * Gitea and Forgejo: hex HMAC-SHA256 in X-Gitea-Signature / X-Forgejo-Signature.  GitHub:
 * "sha256=" + hex in X-Hub-Signature-256.  GitLab: the secret itself in X-Gitlab-Token, or, when the
 * secret is a signing token ("whsec_" + base64), webhook-signature over id, timestamp and body, no
 * more than 300 s off; never the token then.  Digests are compared in constant time, all secrets are
 * tried, and nothing is parsed before one of them fits.
 *
 * What a delivery says is a hint where to look and never state.
 *
 * Thread: any; pure but for the clock that is given.
 */
#ifndef MEMFS_REMOTE_WEBHOOK_H
#define MEMFS_REMOTE_WEBHOOK_H

#include "base/oid.h"
#include "remote/host.h"

#define WEBHOOK_MAX_BODY (26u << 20)

typedef const char *(*webhook_header_fn)(const char *name, void *ctx); /* NULL: absent */

typedef struct webhook_delivery {
    host_kind kind; /* of the route; HOST_UNKNOWN: the sender is told by its headers */
    webhook_header_fn header;
    void *header_ctx;
    memfs_str body; /* raw */
} webhook_delivery;

typedef struct webhook_proof {
    host_kind kind;
    char id[100];    /* of the delivery, printable; "" */
    char event[40];  /* "push" */
} webhook_proof;
/*
 * EDENIED: no signature, none that fits, too old; the message never says which part failed.
 * EINVALID: no sender can be told from the headers.  n == 0 is EDENIED.
 */
MEMFS_CHECK memfs_code webhook_prove(const webhook_delivery *d, const memfs_str *secrets, size_t n,
                                     int64_t now_s, webhook_proof *ret, memfs_error *err);

/* A push to a branch, or one deleted; everything else (ping, tags, issues) has is_change false. */
typedef struct webhook_hint {
    bool is_change;
    char ref[300];        /* "refs/heads/main" */
    memfs_oid after;      /* zero: deleted, or not said */
    char addresses[3][600]; /* clone, ssh, web url of the repository; "" */
} webhook_hint;
/* body: of a delivery that was proven; JSON, or form-encoded with one field `payload`. EINVALID. */
MEMFS_CHECK memfs_code webhook_read(const webhook_delivery *d, const webhook_proof *proof,
                                    webhook_hint *ret, memfs_error *err);

/* The last ids seen, for a day at most; true: this one was seen.  A bounded table of the caller's. */
typedef struct webhook_seen webhook_seen;
webhook_seen *webhook_seen_new(size_t cap);
void webhook_seen_free(webhook_seen *s);
bool webhook_seen_check(webhook_seen *s, const char *id, int64_t now_ms);

#endif
