/*
 * webhook.c - who sends, and is it proven?
 *
 * Hosts that imitate each other send each other's headers too (Gitea and Forgejo those of GitHub), so
 * the order of SENDERS is the order in which a sender is told: the imitated come last.
 *
 * Every secret is tried against every delivery, whichever fits, and only digests are compared, in
 * constant time: nothing about a secret can be learned from how long a refusal takes (S5).
 */
#include "remote/webhook_int.h"

#include "base/hmac.h"
#include "base/mem.h"
#include "memory/base64.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_SIGNATURE 4096
#define MAX_CLOCK_GAP_S 300
#define MAX_SIGNING_ID 256
#define SIGNING_PREFIX "whsec_"
#define PIECE_BYTES 4096

typedef enum scheme {
    SCHEME_HEX,    /* hex HMAC of the JSON text */
    SCHEME_SHA256, /* "sha256=" and hex HMAC of the body as sent */
    SCHEME_GITLAB, /* the secret itself, or Standard Webhooks */
} scheme;

typedef struct sender {
    host_kind kind;
    scheme scheme;
    const char *event, *proof; /* headers */
    const char *id[2];         /* the first that is there */
} sender;

static const sender SENDERS[] = {
    { HOST_GITLAB, SCHEME_GITLAB, "X-Gitlab-Event", "X-Gitlab-Token",
      { "Idempotency-Key", "webhook-id" } },
    { HOST_FORGEJO, SCHEME_HEX, "X-Forgejo-Event", "X-Forgejo-Signature",
      { "X-Forgejo-Delivery", "X-Gitea-Delivery" } },
    { HOST_GITEA, SCHEME_HEX, "X-Gitea-Event", "X-Gitea-Signature", { "X-Gitea-Delivery", NULL } },
    { HOST_PLAIN, SCHEME_SHA256, "X-SoftServe-Event", "X-SoftServe-Signature",
      { "X-SoftServe-Delivery", NULL } },
    { HOST_GITHUB, SCHEME_SHA256, "X-GitHub-Event", "X-Hub-Signature-256",
      { "X-GitHub-Delivery", NULL } },
};

static memfs_str header_of(const webhook_delivery *d, const char *name)
{
    return name != NULL ? str_of(d->header(name, d->header_ctx)) : str_make(NULL, 0);
}

/* Forgejo's older versions sign under Gitea's names only, so either kind takes the other's. */
static bool is_like(host_kind asked, host_kind kind)
{
    return asked == HOST_UNKNOWN || asked == kind ||
           (asked == HOST_FORGEJO && kind == HOST_GITEA) ||
           (asked == HOST_GITEA && kind == HOST_FORGEJO);
}

static const sender *find_sender(const webhook_delivery *d)
{
    for (size_t i = 0; i < ARRAY_LEN(SENDERS); i++)
        if (is_like(d->kind, SENDERS[i].kind) && header_of(d, SENDERS[i].event).len > 0)
            return &SENDERS[i];
    return NULL;
}

/* ---- digests ---- */

static void add_text(hmac *m, webhook_text *t)
{
    char piece[PIECE_BYTES];
    size_t n = 0;
    int c;

    while ((c = webhook_text_next(t)) >= 0) {
        piece[n++] = (char)c;
        if (n == sizeof(piece)) {
            hmac_add(m, str_make(piece, n));
            n = 0;
        }
    }
    hmac_add(m, str_make(piece, n));
}

static void digest_hex(const webhook_delivery *d, memfs_str secret, bool of_text, char out[65])
{
    uint8_t digest[HASH_SHA256];
    webhook_text text;
    hmac m;

    hmac_begin(&m, secret);
    if (of_text && webhook_is_form(d) && webhook_text_open(d, &text))
        add_text(&m, &text);
    else
        hmac_add(&m, d->body);
    hmac_end(&m, digest);
    hash_hex(digest, sizeof(digest), out);
}

static bool fits_hex(const webhook_delivery *d, memfs_str secret, bool of_text, memfs_str given)
{
    char hex[2 * HASH_SHA256 + 1];

    digest_hex(d, secret, of_text, hex);
    return given.len == 2 * HASH_SHA256 &&
           hash_equal((const uint8_t *)hex, (const uint8_t *)given.ptr, given.len);
}

/* Of texts that may differ in length: their digests, so that not even that shows. */
static bool is_same_secret(memfs_str a, memfs_str b)
{
    uint8_t da[HASH_SHA256], db[HASH_SHA256];

    hash_sha256(a, da);
    hash_sha256(b, db);
    return hash_equal(da, db, sizeof(da));
}

/* ---- Standard Webhooks: webhook-id, webhook-timestamp, webhook-signature ---- */

static bool is_recent(memfs_str timestamp, int64_t now_s)
{
    uint64_t then_s;

    return str_to_u64(timestamp, INT64_MAX / 2, &then_s) &&
           (int64_t)then_s >= now_s - MAX_CLOCK_GAP_S && (int64_t)then_s <= now_s + MAX_CLOCK_GAP_S;
}

/* False: the secret is no signing token. */
static bool signing_key(memfs_str secret, memfs_buf *out)
{
    return base64_read(str_from(secret, sizeof(SIGNING_PREFIX) - 1), out) && out->len > 0 &&
           !out->too_big;
}

/* "v1," and base64 of HMAC over "{id}.{timestamp}.{body}". */
static void signature_of(memfs_str id, memfs_str timestamp, memfs_str body, memfs_str key,
                         memfs_buf *out)
{
    uint8_t digest[HASH_SHA256];
    hmac m;

    hmac_begin(&m, key);
    hmac_add(&m, id);
    hmac_add(&m, MEMFS_STR("."));
    hmac_add(&m, timestamp);
    hmac_add(&m, MEMFS_STR("."));
    hmac_add(&m, body);
    hmac_end(&m, digest);
    buf_puts(out, "v1,");
    base64_write(str_make((const char *)digest, sizeof(digest)), out);
}

/* The header may hold several, for the time of a key's change. */
static bool is_among(memfs_str signatures, memfs_str wanted)
{
    memfs_str one, rest = signatures;
    bool found = false, has_more;

    do {
        has_more = str_split(rest, ' ', &one, &rest);
        if (!has_more)
            one = rest;
        found |= one.len == wanted.len &&
                 hash_equal((const uint8_t *)one.ptr, (const uint8_t *)wanted.ptr, one.len);
    } while (has_more);
    return found;
}

static bool fits_signing(const webhook_delivery *d, memfs_str secret, int64_t now_s)
{
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(256);
    _cleanup_(buf_dispose) memfs_buf expected = MEMFS_BUF_INIT(128);
    memfs_str id = header_of(d, "webhook-id");
    bool fits;

    if (id.len == 0 || id.len > MAX_SIGNING_ID ||
        !is_recent(header_of(d, "webhook-timestamp"), now_s) || !signing_key(secret, &key))
        return false;
    signature_of(id, header_of(d, "webhook-timestamp"), d->body, buf_str(&key), &expected);
    fits = is_among(header_of(d, "webhook-signature"), buf_str(&expected));
    hash_wipe(key.ptr, key.len);
    return fits;
}

static bool fits_gitlab(const webhook_delivery *d, memfs_str secret, int64_t now_s)
{
    memfs_str token = header_of(d, "X-Gitlab-Token");

    if (str_starts_with(secret, MEMFS_STR(SIGNING_PREFIX)))
        return fits_signing(d, secret, now_s);
    return token.len > 0 && is_same_secret(token, secret);
}

/* ---- proof ---- */

static bool fits(const webhook_delivery *d, const sender *s, memfs_str secret, int64_t now_s)
{
    static const memfs_str prefix = { "sha256=", 7 };
    memfs_str given = header_of(d, s->proof);

    if (s->scheme == SCHEME_GITLAB)
        return fits_gitlab(d, secret, now_s);
    if (s->scheme == SCHEME_SHA256) {
        if (!str_starts_with(given, prefix))
            return false;
        return fits_hex(d, secret, false, str_from(given, prefix.len));
    }
    if (given.len == 0)
        given = header_of(d, "X-Gitea-Signature");
    return fits_hex(d, secret, true, given);
}

/* Only if all of it is printable ASCII: it is logged and kept. */
static void copy_printable(memfs_str from, char *out, size_t size)
{
    out[0] = '\0';
    if (from.len == 0 || from.len >= size)
        return;
    for (size_t i = 0; i < from.len; i++)
        if (from.ptr[i] < 0x20 || from.ptr[i] > 0x7E)
            return;
    memcpy(out, from.ptr, from.len);
    out[from.len] = '\0';
}

static memfs_code deny(memfs_error *err)
{
    return memfs_fail(err, MEMFS_EDENIED, "the delivery is not signed with a secret that is known "
                                          "here");
}

static memfs_code sender_or_fail(const webhook_delivery *d, const sender **ret, memfs_error *err)
{
    *ret = find_sender(d);
    if (*ret == NULL)
        return memfs_fail(err, MEMFS_EINVALID, "the headers name no sender and event of a git host "
                                               "(X-Gitea-Event, X-GitHub-Event, X-Gitlab-Event)");
    return MEMFS_OK;
}

memfs_code webhook_prove_head(const webhook_delivery *d, int64_t now_s, memfs_error *err)
{
    const sender *s;
    memfs_str proof;
    memfs_code rc = sender_or_fail(d, &s, err);

    if (rc < 0)
        return rc;
    proof = header_of(d, s->proof);
    if (proof.len == 0 && s->scheme == SCHEME_HEX)
        proof = header_of(d, "X-Gitea-Signature");
    if (proof.len == 0 && s->scheme == SCHEME_GITLAB &&
        is_recent(header_of(d, "webhook-timestamp"), now_s))
        proof = header_of(d, "webhook-signature");
    return proof.len > 0 && proof.len <= MAX_SIGNATURE ? MEMFS_OK : deny(err);
}

memfs_code webhook_prove(const webhook_delivery *d, const memfs_str *secrets, size_t n,
                         int64_t now_s, webhook_proof *ret, memfs_error *err)
{
    size_t found = n;
    const sender *s;
    memfs_str id;
    memfs_code rc = sender_or_fail(d, &s, err);

    if (rc < 0)
        return rc;
    rc = webhook_prove_head(d, now_s, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n; i++)
        if (secrets[i].len > 0 && fits(d, s, secrets[i], now_s) && found == n)
            found = i;
    if (found == n)
        return deny(err);
    *ret = (webhook_proof){ .kind = s->kind, .secret = found };
    id = header_of(d, s->id[0]);
    copy_printable(id.len > 0 ? id : header_of(d, s->id[1]), ret->id, sizeof(ret->id));
    copy_printable(header_of(d, s->event), ret->event, sizeof(ret->event));
    return MEMFS_OK;
}

/* ---- sending ---- */

static void add_head(webhook_heads *h, const char *name, const char *prefix, const char *value)
{
    assert(h->n < WEBHOOK_MAX_HEADS);
    h->lines[h->n++] = mem_printf("%s: %s%s", name, prefix, value);
}

static void sign_gitlab(memfs_str secret, const char *id, int64_t now_s, memfs_str body,
                        webhook_heads *h)
{
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(256);
    _cleanup_(buf_dispose) memfs_buf signature = MEMFS_BUF_INIT(128);
    _cleanup_(mem_freep) char *token = mem_strndup(secret.ptr, secret.len);
    char timestamp[STR_U64_LEN];

    str_put_u64((uint64_t)now_s, timestamp);
    if (!str_starts_with(secret, MEMFS_STR(SIGNING_PREFIX)) || !signing_key(secret, &key)) {
        add_head(h, "X-Gitlab-Token", "", token);
        explicit_bzero(token, secret.len);
        return;
    }
    signature_of(str_of(id), str_of(timestamp), body, buf_str(&key), &signature);
    add_head(h, "webhook-id", "", id);
    add_head(h, "webhook-timestamp", "", timestamp);
    add_head(h, "webhook-signature", "", signature.ptr);
    hash_wipe(key.ptr, key.len);
    explicit_bzero(token, secret.len);
}

void webhook_sign(host_kind kind, memfs_str secret, const char *event, const char *id,
                  int64_t now_s, memfs_str body, webhook_heads *ret)
{
    const sender *s = &SENDERS[ARRAY_LEN(SENDERS) - 1];
    char hex[2 * HASH_SHA256 + 1];

    for (size_t i = 0; i < ARRAY_LEN(SENDERS); i++)
        if (SENDERS[i].kind == kind)
            s = &SENDERS[i];
    *ret = (webhook_heads){ .n = 0 };
    add_head(ret, s->event, "", event);
    add_head(ret, s->id[0], "", id);
    if (s->scheme == SCHEME_GITLAB) {
        sign_gitlab(secret, id, now_s, body, ret);
        return;
    }
    digest_hex(&(webhook_delivery){ .body = body }, secret, false, hex);
    add_head(ret, s->proof, s->scheme == SCHEME_SHA256 ? "sha256=" : "", hex);
}

void webhook_heads_dispose(webhook_heads *h)
{
    for (size_t i = 0; i < h->n; i++) {
        explicit_bzero(h->lines[i], strlen(h->lines[i]));
        free(h->lines[i]);
        h->lines[i] = NULL;
    }
    h->n = 0;
}

/* ---- ids that were seen ---- */

/*
 * A ring of the last cap ids, as digests, and an index over it with open addressing that has twice as
 * many places.  Overwriting the oldest takes it out of the index, by moving up what follows it.
 */
#define MARK_BYTES 16

typedef struct seen_entry {
    uint8_t mark[MARK_BYTES];
    int64_t at_ms;
    bool is_used;
} seen_entry;

struct webhook_seen {
    size_t cap, next, n_places;
    seen_entry *ring;
    uint32_t *places; /* ring index + 1; 0: free */
};

webhook_seen *webhook_seen_new(size_t cap)
{
    webhook_seen *s = mem_alloc(sizeof(*s));

    assert(cap > 0 && cap < UINT32_MAX / 2);
    s->cap = cap;
    s->n_places = 2 * cap;
    s->ring = mem_alloc(cap * sizeof(*s->ring)); /* pages come as ids do */
    s->places = mem_alloc(s->n_places * sizeof(*s->places));
    return s;
}

void webhook_seen_free(webhook_seen *s)
{
    if (s == NULL)
        return;
    free(s->ring);
    free(s->places);
    free(s);
}

static size_t first_place(const webhook_seen *s, const uint8_t mark[MARK_BYTES])
{
    uint64_t n;

    memcpy(&n, mark, sizeof(n));
    return (size_t)(n % s->n_places);
}

/* Where the mark is, or the free place where it would be. */
static size_t place_of(const webhook_seen *s, const uint8_t mark[MARK_BYTES])
{
    size_t at = first_place(s, mark);

    while (s->places[at] != 0 &&
           memcmp(s->ring[s->places[at] - 1].mark, mark, MARK_BYTES) != 0)
        at = (at + 1) % s->n_places;
    return at;
}

static void drop_place(webhook_seen *s, size_t hole)
{
    s->places[hole] = 0;
    for (size_t at = (hole + 1) % s->n_places; s->places[at] != 0; at = (at + 1) % s->n_places) {
        size_t home = first_place(s, s->ring[s->places[at] - 1].mark);
        size_t from_home = (at + s->n_places - home) % s->n_places;
        size_t from_hole = (at + s->n_places - hole) % s->n_places;

        if (from_home < from_hole) /* it would not be found from its home any more */
            continue;
        s->places[hole] = s->places[at];
        s->places[at] = 0;
        hole = at;
    }
}

static void remember(webhook_seen *s, const uint8_t mark[MARK_BYTES], int64_t now_ms)
{
    seen_entry *e = &s->ring[s->next];

    if (e->is_used)
        drop_place(s, place_of(s, e->mark));
    memcpy(e->mark, mark, MARK_BYTES);
    e->at_ms = now_ms;
    e->is_used = true;
    s->places[place_of(s, mark)] = (uint32_t)s->next + 1;
    s->next = (s->next + 1) % s->cap;
}

bool webhook_seen_check(webhook_seen *s, const char *id, int64_t now_ms)
{
    uint8_t digest[HASH_SHA256];
    size_t at;

    if (id[0] == '\0')
        return false;
    hash_sha256(str_of(id), digest);
    at = place_of(s, digest);
    if (s->places[at] == 0) {
        remember(s, digest, now_ms);
        return false;
    }
    if (now_ms - s->ring[s->places[at] - 1].at_ms < WEBHOOK_SEEN_MS)
        return true;
    s->ring[s->places[at] - 1].at_ms = now_ms;
    return false;
}
