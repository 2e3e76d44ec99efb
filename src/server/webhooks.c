/*
 * webhooks.c - POST /webhooks and /webhooks/{kind}: git hosts say that something moved.
 *
 * In this order, so that a stranger costs little and learns nothing: is the kind known (404), is
 * there any secret (403), does the head have something that could be a proof (401), only then is the
 * body read, proven (401), seen before?, read (400), and each remote that it is about is hinted at.
 * The answer to everything that is proven is the same 202, whether the repository is ours or not,
 * and it goes out at once: the exchange is the mirror's, in the background.  Senders switch hooks
 * off that answer 4xx, so passing trouble is a 503.
 *
 * The body is held once, and at most LARGE_AT_ONCE bodies that are larger than what a request may
 * hold anyway.  Whoever sends such bodies slowly can only keep other large ones out; what these
 * would have said, the next poll finds.
 *
 * Replays: an id that was seen, and a body that was seen, whatever id comes with it (ids are not
 * signed), change nothing (T22, F26).  Only what led to a hint counts as seen: a host that says the
 * same again after its remote was configured is heard.
 */
#include "server/webhooks.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "remote/webhook.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define N_SEEN 16384
#define LARGE_BYTES (256u << 10)
#define LARGE_AT_ONCE 2
#define MAX_SECRET_FILE (16 * 1024)
#define COMPLAIN_EVERY_MS 60000

struct webhooks {
    char *home, *secret, *secret_file, *systemd_dir; /* NULL: not set */
    pthread_mutex_t mutex;
    webhook_seen *seen;      /* guarded by mutex */
    size_t n_large;          /* bodies being held; mutex */
    int64_t complained_ms;   /* mutex; 0: not yet */
};

/* ---- life cycle ---- */

static char *from_environment(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? mem_strdup(value) : NULL;
}

webhooks *webhooks_new(const char *home_path)
{
    webhooks *w = mem_alloc(sizeof(*w));

    w->home = mem_strdup(home_path);
    w->secret = from_environment("MEMFS_WEBHOOK_SECRET");
    w->secret_file = from_environment("MEMFS_WEBHOOK_SECRET_FILE");
    w->systemd_dir = from_environment("CREDENTIALS_DIRECTORY");
    pthread_mutex_init(&w->mutex, NULL);
    w->seen = webhook_seen_new(N_SEEN);
    return w;
}

void webhooks_free(webhooks *w)
{
    if (w == NULL)
        return;
    if (w->secret != NULL)
        explicit_bzero(w->secret, strlen(w->secret));
    free(w->home);
    free(w->secret);
    free(w->secret_file);
    free(w->systemd_dir);
    webhook_seen_free(w->seen);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}

/* ---- secrets ---- */

typedef struct gathering {
    webhooks *w;
    webhook_secrets *ret;
} gathering;

static void add_secret(gathering *g, memfs_str secret, const char *remote)
{
    webhook_secrets *s = g->ret;

    if (secret.len == 0 || s->n == WEBHOOK_MAX_SECRETS)
        return;
    s->at[s->n] = str_make(mem_strndup(secret.ptr, secret.len), secret.len);
    s->remote[s->n++] = remote != NULL ? mem_strdup(remote) : NULL;
}

/* A file that cannot be used is told of once a minute (L5): others may still do. */
static void complain(webhooks *w, const char *text)
{
    int64_t now_ms = clock_mono_ms();
    bool is_due;

    pthread_mutex_lock(&w->mutex);
    is_due = w->complained_ms == 0 || now_ms - w->complained_ms >= COMPLAIN_EVERY_MS;
    if (is_due)
        w->complained_ms = now_ms;
    pthread_mutex_unlock(&w->mutex);
    if (is_due)
        log_event(LOG_WARN, "webhook_secret_unusable", "text", text, NULL);
}

static void add_lines(gathering *g, memfs_str text, const char *remote)
{
    memfs_str line, rest = text;
    bool has_more;

    do {
        has_more = str_split(rest, '\n', &line, &rest);
        if (!has_more)
            line = rest;
        if (str_ends_with(line, MEMFS_STR("\r")))
            line.len--;
        add_secret(g, line, remote);
    } while (has_more);
}

static void add_file(gathering *g, const char *path, bool may_be_absent, const char *remote)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_SECRET_FILE);
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = credential_read_private(path, &text, &err);

    if (rc == MEMFS_OK)
        add_lines(g, buf_str(&text), remote);
    else if (rc != MEMFS_ENOTFOUND || !may_be_absent)
        complain(g->w, err.msg);
    explicit_bzero(text.ptr, text.cap);
}

static void add_of_remotes(const remotes *r, void *ctx)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->at[i].webhook_secret_file != NULL)
            add_file(ctx, r->at[i].webhook_secret_file, false, r->at[i].name);
}

void webhook_secrets_load(app *self, webhook_secrets *ret)
{
    webhooks *w = self->webhooks;
    _cleanup_(mem_freep) char *of_systemd =
        w->systemd_dir != NULL ? mem_printf("%s/memfs-webhook-secret", w->systemd_dir) : NULL;
    _cleanup_(mem_freep) char *of_home = mem_printf("%s/secrets/webhook", w->home);
    gathering g = { w, ret };

    ret->n = 0;
    mirror_with_remotes(self->mirror, add_of_remotes, &g);
    if (w->secret != NULL)
        add_secret(&g, str_of(w->secret), NULL);
    if (w->secret_file != NULL)
        add_file(&g, w->secret_file, false, NULL);
    if (of_systemd != NULL)
        add_file(&g, of_systemd, true, NULL);
    add_file(&g, of_home, true, NULL);
}

void webhook_secrets_dispose(webhook_secrets *s)
{
    for (size_t i = 0; i < s->n; i++) {
        explicit_bzero((char *)s->at[i].ptr, s->at[i].len);
        free((char *)s->at[i].ptr);
        free(s->remote[i]);
    }
    s->n = 0;
}

const memfs_str *webhook_secret_for(const webhook_secrets *s, const char *remote)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->remote[i] != NULL && strcmp(s->remote[i], remote) == 0)
            return &s->at[i];
    for (size_t i = 0; i < s->n; i++)
        if (s->remote[i] == NULL)
            return &s->at[i];
    return NULL;
}

memfs_code webhook_secret_make(const webhooks *w, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/secrets", w->home);
    _cleanup_(mem_freep) char *path = mem_printf("%s/webhook", folder);
    uint8_t bytes[32];
    char text[2 * sizeof(bytes) + 2];
    memfs_code rc;

    if (fs_exists(path))
        return memfs_fail(err, MEMFS_EEXISTS, "there is a secret in 'secrets/webhook'");
    hash_random(bytes, sizeof(bytes));
    hash_hex(bytes, sizeof(bytes), text);
    text[2 * sizeof(bytes)] = '\n';
    rc = fs_mkdirs(folder, err);
    if (rc == MEMFS_OK)
        rc = fs_write_atomic(path, str_make(text, sizeof(text) - 1), 0600, err);
    hash_wipe(text, sizeof(text));
    hash_wipe(bytes, sizeof(bytes));
    return rc;
}

/* ---- one delivery ---- */

typedef struct delivery {
    http_request *rq;
    app *self;
    webhook_delivery raw;
    webhook_secrets secrets;
    memfs_buf body;
    bool is_large; /* one of LARGE_AT_ONCE */
    webhook_proof proof;
    webhook_hint hint;
    memfs_oid after;    /* of main; zero: not said */
    size_t n_hinted;
} delivery;

static const char *header(const char *name, void *ctx)
{
    return http_header(ctx, name);
}

static int64_t now_s(void)
{
    return clock_wall_us() / 1000000;
}

/* Always false: it was answered. */
static bool refuse(delivery *d, const memfs_error *err)
{
    if (err->code == MEMFS_EDENIED)
        http_send_detail(d->rq, 401, "%s", err->msg);
    else if (err->code == MEMFS_EUNAVAIL) {
        http_set_header(d->rq, "Retry-After", "5");
        http_send_detail(d->rq, 503, "%s", err->msg);
    } else
        http_send_error(d->rq, err);
    return false;
}

static bool judge_head(delivery *d)
{
    memfs_str kind = http_param(d->rq, "kind");
    memfs_error err = MEMFS_ERROR_INIT;

    if (kind.len > 0 && (!host_kind_parse(kind, &d->raw.kind) || d->raw.kind == HOST_UNKNOWN ||
                         d->raw.kind == HOST_PLAIN)) {
        http_send_detail(d->rq, 404, "Not Found");
        return false;
    }
    if (d->secrets.n == 0) {
        http_send_detail(d->rq, 403, "no webhook secret is configured here: 'memfs webhook add' "
                                     "makes one, MEMFS_WEBHOOK_SECRET_FILE names a file with one");
        return false;
    }
    if (webhook_prove_head(&d->raw, now_s(), &err) < 0)
        return refuse(d, &err);
    return true;
}

static bool take_large(delivery *d, memfs_error *err)
{
    webhooks *w = d->self->webhooks;

    pthread_mutex_lock(&w->mutex);
    d->is_large = w->n_large < LARGE_AT_ONCE;
    w->n_large += d->is_large;
    pthread_mutex_unlock(&w->mutex);
    if (!d->is_large)
        memfs_fail(err, MEMFS_EUNAVAIL, "too many large deliveries at once");
    return d->is_large;
}

static void give_large(delivery *d)
{
    webhooks *w = d->self->webhooks;

    if (!d->is_large)
        return;
    pthread_mutex_lock(&w->mutex);
    w->n_large--;
    pthread_mutex_unlock(&w->mutex);
}

/* Room for all of it at once where its length is known, so that growing copies nothing. */
static void make_room(delivery *d)
{
    uint64_t length;

    if (str_to_u64(str_of(http_header(d->rq, "Content-Length")), WEBHOOK_MAX_BODY, &length) &&
        length > d->body.len)
        buf_reserve(&d->body, (size_t)length - d->body.len);
}

static bool gather(delivery *d)
{
    memfs_error err = MEMFS_ERROR_INIT;
    char piece[16384];
    size_t n = 1;

    while (n > 0) {
        if (!http_stream_read(d->rq, piece, sizeof(piece), &n)) {
            http_stream_fault(d->rq, &err);
            return refuse(d, &err);
        }
        if (d->body.len + n > LARGE_BYTES && !d->is_large) {
            if (!take_large(d, &err))
                return refuse(d, &err);
            make_room(d);
        }
        buf_add(&d->body, piece, n);
    }
    if (buf_check(&d->body, "the delivery", &err) < 0)
        return refuse(d, &err);
    d->raw.body = buf_str(&d->body);
    return true;
}

/* True: nothing is to be done for it.  Asked and noted before the work, as that only hints. */
static bool was_seen(delivery *d)
{
    uint8_t digest[HASH_SHA256];
    char of_body[2 * HASH_SHA256 + 1];
    _cleanup_(mem_freep) char *id =
        mem_printf("%s:%s", host_kind_name(d->proof.kind), d->proof.id);
    webhooks *w = d->self->webhooks;
    bool seen;

    hash_sha256(d->raw.body, digest);
    hash_hex(digest, sizeof(digest), of_body);
    pthread_mutex_lock(&w->mutex);
    seen = webhook_seen_check(w->seen, of_body, clock_mono_ms());
    if (d->proof.id[0] != '\0')
        seen |= webhook_seen_check(w->seen, id, clock_mono_ms());
    pthread_mutex_unlock(&w->mutex);
    return seen;
}

/* ---- whose it is ---- */

/* The secret of a remote speaks for that remote alone. */
static bool may_speak_for(const delivery *d, const char *remote)
{
    const char *own = d->secrets.remote[d->proof.secret];

    return own == NULL || strcmp(own, remote) == 0;
}

static bool count_owner(const remote_config *c, memfs_str agent_id, void *ctx)
{
    delivery *d = ctx;

    (void)agent_id;
    d->n_hinted += may_speak_for(d, c->name);
    return true;
}

static bool hint_owner(const remote_config *c, memfs_str agent_id, void *ctx)
{
    delivery *d = ctx;

    if (may_speak_for(d, c->name))
        mirror_hint(d->self->mirror, c->name, agent_id, &d->after);
    return true;
}

static void each_owner(const remotes *r, const delivery *d, remotes_owner_fn fn)
{
    for (size_t i = 0; i < ARRAY_LEN(d->hint.addresses); i++)
        if (d->hint.addresses[i][0] != '\0')
            remotes_owner(r, str_of(d->hint.addresses[i]), fn, (void *)d);
}

static void hint_all(const remotes *r, void *ctx)
{
    delivery *d = ctx;

    each_owner(r, d, count_owner);
    if (d->n_hinted == 0)
        return;
    if (was_seen(d))
        d->n_hinted = 0;
    else
        each_owner(r, d, hint_owner);
}

static void act(delivery *d)
{
    if (!d->hint.is_change)
        return;
    if (strcmp(d->hint.ref, "refs/heads/main") == 0)
        d->after = d->hint.after;
    mirror_with_remotes(d->self->mirror, hint_all, d);
}

static bool prove_and_read(delivery *d)
{
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = webhook_prove(&d->raw, d->secrets.at, d->secrets.n, now_s(), &d->proof, &err);

    if (rc == MEMFS_OK)
        rc = webhook_read(&d->raw, &d->proof, &d->hint, &err);
    return rc == MEMFS_OK || refuse(d, &err);
}

static void receive(delivery *d)
{
    if (!judge_head(d) || !gather(d) || !prove_and_read(d))
        return;
    act(d);
    http_note(d->rq, "%s %s%s", host_kind_name(d->proof.kind), d->proof.event,
              d->n_hinted > 0 ? " hint" : "");
    buf_puts(http_out(d->rq), "{\"accepted\":true}");
    http_send(d->rq, 202, "application/json");
}

void webhook_receive(http_request *rq, void *ctx)
{
    app *self = ctx;
    delivery d = { .rq = rq, .self = self, .raw = { HOST_UNKNOWN, header, rq, MEMFS_STR("") },
                   .body = MEMFS_BUF_INIT(WEBHOOK_MAX_BODY) };

    webhook_secrets_load(self, &d.secrets);
    receive(&d);
    webhook_secrets_dispose(&d.secrets);
    buf_dispose(&d.body);
    give_large(&d);
}
