/*
 * webhook.h - a delivery of a git host: proven over its raw bytes, then read for a hint (T22).
 *
 * Gitea and Forgejo: hex HMAC-SHA256 in X-Gitea-Signature / X-Forgejo-Signature.  GitHub:
 * "sha256=" + hex in X-Hub-Signature-256.  GitLab: the secret itself in X-Gitlab-Token, or, when the
 * secret is a signing token ("whsec_" + base64), webhook-signature over id, timestamp and body, no
 * more than 300 s off; never the token then.  Digests are compared in constant time, all secrets are
 * tried, and nothing is parsed before one of them fits.
 *
 * soft-serve: "sha256=" + hex in X-SoftServe-Signature; its kind is HOST_PLAIN.  Over what: GitHub and
 * soft-serve sign the body as sent, Gitea and Forgejo the JSON text, also where it travels as the
 * form field `payload`.
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
    char id[100];    /* of the delivery, printable; "" (also where hosts reuse it for other events) */
    char event[40];  /* "push" */
    size_t secret;   /* index of the one that fits */
} webhook_proof;
/*
 * EDENIED: no signature, none that fits, too old; the message never says which part failed.
 * EINVALID: no sender can be told from the headers.  n == 0 is EDENIED.
 */
MEMFS_CHECK memfs_code webhook_prove(const webhook_delivery *d, const memfs_str *secrets, size_t n,
                                     int64_t now_s, webhook_proof *ret, memfs_error *err);
/*
 * The same as far as the head tells, before the body is there: OK when it says who sends, and has
 * something that could be a proof.
 */
MEMFS_CHECK memfs_code webhook_prove_head(const webhook_delivery *d, int64_t now_s,
                                          memfs_error *err);

/*
 * A push to a branch, or one made or deleted; everything else (ping, tags, issues) has is_change
 * false.  Read in one pass, without building a tree of it: its cost in memory is this struct.
 */
typedef struct webhook_hint {
    bool is_change;
    char ref[320];        /* "refs/heads/main" */
    memfs_oid after;      /* zero: deleted, or not said */
    char addresses[3][600]; /* clone, ssh, web url of the repository; "" */
} webhook_hint;
/* body: of a delivery that was proven; JSON, or form-encoded with one field `payload`. EINVALID. */
MEMFS_CHECK memfs_code webhook_read(const webhook_delivery *d, const webhook_proof *proof,
                                    webhook_hint *ret, memfs_error *err);

/*
 * The headers with which a host of this kind sends such a body: what `memfs webhook test` sends
 * itself.  HOST_UNKNOWN: GitHub's.  A GitLab secret "whsec_…" signs, any other is the token.
 * Lines "Name: value" and NULL; the caller frees each (webhook_heads_dispose).
 */
#define WEBHOOK_MAX_HEADS 6
typedef struct webhook_heads {
    char *lines[WEBHOOK_MAX_HEADS + 1];
    size_t n;
} webhook_heads;
void webhook_sign(host_kind kind, memfs_str secret, const char *event, const char *id,
                  int64_t now_s, memfs_str body, webhook_heads *ret);
void webhook_heads_dispose(webhook_heads *h);

/*
 * The last cap ids seen, for a day at most; true: this one was seen, else it is now.  "" never was.
 * An economy and no defence, as ids are not signed: the caller asks about the body's digest as well.
 * A bounded table of the caller's, who sees to it that one thread uses it at a time.
 */
#define WEBHOOK_SEEN_MS (24 * 3600 * INT64_C(1000))
typedef struct webhook_seen webhook_seen;
webhook_seen *webhook_seen_new(size_t cap);
void webhook_seen_free(webhook_seen *s);
bool webhook_seen_check(webhook_seen *s, const char *id, int64_t now_ms);

#endif
