/*
 * upstream.c - questions to the Letta server, shared by those who ask the same, and their answers.
 *
 * A question is in the list from upstream_ask() until its answer was written into the table; both
 * under the mutex, so that whoever comes between finds one or the other.  It is told outside of it.
 *
 * Locks: mutex guards table, questions and health; innermost but for the multi's own.
 */
#include "letta/upstream.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/hmac.h"
#include "base/mem.h"
#include "memory/base64.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define ASK_TIMEOUT_MS 10000
#define HEALTH_TIMEOUT_MS 2000
#define YES_MS 30000
#define NO_MS 5000
#define N_SETS 512
#define N_WAYS 4
#define MAX_QUESTIONS 256
#define MAX_CREDENTIAL (16u << 10) /* as a head may have */
#define MAX_KEPT_BYTES (16u << 10) /* of an answer: the id is among the first fields */

typedef struct known {
    uint8_t key[HASH_SHA256];
    upstream_verdict verdict; /* UPSTREAM_NOT_ASKED: free */
    int64_t until_ms;
} known;

typedef struct waiter {
    upstream_fn fn;
    void *ctx;
} waiter;

typedef struct question {
    struct question *next;
    upstream *upstream;
    bool is_health;
    uint8_t key[HASH_SHA256];
    char *agent_id; /* in quotes, as it stands in the answer; "": all; NULL for health */
    httpc_transfer *transfer;
    waiter *waiters;
    size_t n_waiters, cap;
    /* the multi's thread */
    int status;
    bool is_json;
    memfs_buf body;
} question;

struct upstream {
    stream_address address;
    httpc_multi *multi;
    char via[24];
    uint8_t secret[32];
    pthread_mutex_t mutex;
    known table[N_SETS][N_WAYS];
    question *questions;
    size_t n_questions;
    upstream_health health;
};

const stream_address *upstream_address(const upstream *u)
{
    return &u->address;
}

httpc_multi *upstream_multi(upstream *u)
{
    return u->multi;
}

const char *upstream_via(const upstream *u)
{
    return u->via;
}

const char *upstream_failure_text(httpc_failure f)
{
    switch (f) {
    case HTTPC_NO_NAME: return "its name is not known";
    case HTTPC_REFUSED: return "it cannot be reached";
    case HTTPC_TIMEOUT: return "it does not answer in time";
    case HTTPC_TLS: return "its certificate or TLS is no good";
    case HTTPC_CUT: return "it ended in the middle of an answer";
    case HTTPC_NOT_HTTP: return "what it answers is not HTTP as it should be";
    case HTTPC_STOPPED: return "memfs is stopping";
    case HTTPC_NO_LIBRARY: return "libcurl is not installed here";
    case HTTPC_FINE:
    case HTTPC_OTHER: break;
    }
    return "the request to it failed";
}

/* ---- credentials ---- */

static bool take_basic(memfs_str *field)
{
    if (field->len < 6 || strncasecmp(field->ptr, "Basic ", 6) != 0)
        return false;
    *field = str_from(*field, 6);
    while (field->len > 0 && field->ptr[0] == ' ')
        *field = str_from(*field, 1);
    return true;
}

bool upstream_authorization(memfs_str field, memfs_buf *out)
{
    memfs_buf plain = MEMFS_BUF_INIT(MAX_CREDENTIAL);
    memfs_str user, password;
    bool is_good;

    if (field.len > MAX_CREDENTIAL)
        return false;
    if (!take_basic(&field)) {
        buf_add_str(out, field);
        return true;
    }
    is_good = base64_read(field, &plain) && str_split(buf_str(&plain), ':', &user, &password) &&
              password.len > 0;
    for (size_t i = 0; is_good && i < password.len; i++)
        is_good = (unsigned char)password.ptr[i] >= 0x20 && password.ptr[i] != 0x7F;
    if (is_good) {
        buf_puts(out, "Bearer ");
        buf_add_str(out, password);
    }
    hash_wipe(plain.ptr, plain.cap);
    buf_dispose(&plain);
    return is_good;
}

bool upstream_credentials(const upstream_caller *c, stream_lines *out)
{
    memfs_buf authorization = MEMFS_BUF_INIT(MAX_CREDENTIAL + 16);
    bool is_good = c->authorization == NULL ||
                   upstream_authorization(str_of(c->authorization), &authorization);

    if (is_good) {
        stream_lines_add(out, "Authorization", authorization.len > 0 ? authorization.ptr : NULL);
        stream_lines_add(out, "X-BARE-PASSWORD", c->bare_password);
        stream_lines_add(out, "user_id", c->user_id);
    }
    hash_wipe(authorization.ptr, authorization.len);
    buf_dispose(&authorization);
    return is_good;
}

/* Each part with its length before it, so that no two callers make the same bytes. */
static void put_part(memfs_buf *out, memfs_str part)
{
    buf_printf(out, "%zu:", part.len);
    buf_add_str(out, part);
}

static void make_key(const upstream *u, memfs_str agent_id, const upstream_caller *c,
                     uint8_t out[HASH_SHA256])
{
    _cleanup_(buf_dispose) memfs_buf all = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    hmac m;

    put_part(&all, agent_id);
    put_part(&all, str_of(c->authorization != NULL ? c->authorization : ""));
    put_part(&all, str_of(c->bare_password != NULL ? c->bare_password : ""));
    put_part(&all, str_of(c->user_id != NULL ? c->user_id : ""));
    hmac_begin(&m, str_make((const char *)u->secret, sizeof(u->secret)));
    hmac_add(&m, buf_str(&all));
    hmac_end(&m, out);
    hash_wipe(all.ptr, all.len);
}

/* ---- the table; under the mutex ---- */

static known *set_of(upstream *u, const uint8_t key[HASH_SHA256])
{
    uint32_t at;

    memcpy(&at, key, sizeof(at));
    return u->table[at % N_SETS];
}

static upstream_verdict look_up(upstream *u, const uint8_t key[HASH_SHA256], int64_t now_ms)
{
    const known *set = set_of(u, key);

    for (size_t i = 0; i < N_WAYS; i++)
        if (set[i].verdict != UPSTREAM_NOT_ASKED && now_ms < set[i].until_ms &&
            hash_equal(set[i].key, key, HASH_SHA256))
            return set[i].verdict;
    return UPSTREAM_NOT_ASKED;
}

/* In the place of the same question, or of what ends first. */
static void keep(upstream *u, const uint8_t key[HASH_SHA256], upstream_verdict verdict,
                 int64_t now_ms)
{
    known *set = set_of(u, key), *place = &set[0];

    if (verdict == UPSTREAM_AWAY)
        return;
    for (size_t i = 0; i < N_WAYS; i++)
        if (set[i].until_ms < place->until_ms)
            place = &set[i];
    for (size_t i = 0; i < N_WAYS; i++)
        if (hash_equal(set[i].key, key, HASH_SHA256))
            place = &set[i];
    memcpy(place->key, key, HASH_SHA256);
    place->verdict = verdict;
    place->until_ms = now_ms + (verdict == UPSTREAM_YES ? YES_MS : NO_MS);
}

upstream_verdict upstream_known_at(upstream *u, memfs_str agent_id, const upstream_caller *c,
                                   int64_t now_ms)
{
    uint8_t key[HASH_SHA256];
    upstream_verdict verdict;

    make_key(u, agent_id, c, key);
    pthread_mutex_lock(&u->mutex);
    verdict = look_up(u, key, now_ms);
    pthread_mutex_unlock(&u->mutex);
    return verdict;
}

upstream_verdict upstream_known(upstream *u, memfs_str agent_id, const upstream_caller *c)
{
    return upstream_known_at(u, agent_id, c, clock_mono_ms());
}

void upstream_keep_at(upstream *u, memfs_str agent_id, const upstream_caller *c,
                      upstream_verdict verdict, int64_t now_ms)
{
    uint8_t key[HASH_SHA256];

    make_key(u, agent_id, c, key);
    pthread_mutex_lock(&u->mutex);
    keep(u, key, verdict, now_ms);
    pthread_mutex_unlock(&u->mutex);
}

/* ---- questions ---- */

static void question_free(question *q)
{
    httpc_transfer_unref(q->transfer);
    buf_dispose(&q->body);
    free(q->agent_id);
    free(q->waiters);
    free(q);
}

static void add_waiter(question *q, upstream_fn fn, void *ctx)
{
    if (q->n_waiters == q->cap) {
        q->cap = q->cap > 0 ? 2 * q->cap : 4;
        q->waiters = mem_realloc(q->waiters, q->cap, sizeof(*q->waiters));
    }
    q->waiters[q->n_waiters++] = (waiter){ fn, ctx };
}

static question *find_question(upstream *u, bool is_health, const uint8_t key[HASH_SHA256])
{
    for (question *q = u->questions; q != NULL; q = q->next)
        if (q->is_health == is_health && (is_health || hash_equal(q->key, key, HASH_SHA256)))
            return q;
    return NULL;
}

static void enlist(upstream *u, question *q)
{
    q->next = u->questions;
    u->questions = q;
    u->n_questions++;
}

static void delist(upstream *u, question *q)
{
    question **at = &u->questions;

    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    u->n_questions--;
}

static bool on_head(int status, const httpc_field *fields, size_t n, void *ctx)
{
    memfs_str type = stream_field(fields, n, "Content-Type");
    question *q = ctx;

    q->status = status;
    q->is_json = type.len >= 16 && strncasecmp(type.ptr, "application/json", 16) == 0;
    return true;
}

static int on_data(memfs_str piece, void *ctx)
{
    question *q = ctx;
    size_t room = q->body.max_bytes - q->body.len;

    buf_add(&q->body, piece.ptr, piece.len < room ? piece.len : room);
    return 0;
}

/* What says 200 to everything is no Letta server. */
static bool is_yes(const question *q)
{
    if (q->agent_id[0] == '\0')
        return q->is_json && q->body.len > 0 && q->body.ptr[0] == '[';
    return q->is_json && memmem(q->body.ptr, q->body.len, q->agent_id, strlen(q->agent_id));
}

static upstream_verdict judge(const question *q, const httpc_answer *how)
{
    if (how->failure != HTTPC_FINE)
        return UPSTREAM_AWAY;
    switch (q->status) {
    case 200: return is_yes(q) ? UPSTREAM_YES : UPSTREAM_AWAY;
    case 401: return UPSTREAM_UNKNOWN;
    case 403: return UPSTREAM_FORBIDDEN;
    case 400:
    case 404:
    case 422: return q->agent_id[0] == '\0' ? UPSTREAM_AWAY : UPSTREAM_NO_AGENT;
    default: return UPSTREAM_AWAY;
    }
}

/* The text behind "version":" as far as it is a version. */
static void read_version(memfs_str body, char *out, size_t size)
{
    const char *at = memmem(body.ptr, body.len, "\"version\"", 9);
    const char *end = body.ptr + body.len;
    size_t n = 0;

    for (at = at != NULL ? at + 9 : end; at < end && *at != '\0' && strchr(": \"", *at) != NULL;
         at++)
        ;
    for (; at < end && n + 1 < size && *at != '\0' &&
           strchr("0123456789.-+abcdefghijklmnopqrstuvwxyz", *at) != NULL;
         at++)
        out[n++] = *at;
    out[n] = '\0';
}

static upstream_verdict judge_health(const question *q, const httpc_answer *how,
                                     upstream_health *ret)
{
    bool is_good = how->failure == HTTPC_FINE && q->status == 200;

    *ret = (upstream_health){ .asked_ms = clock_mono_ms(), .is_good = is_good };
    if (is_good)
        read_version(buf_str(&q->body), ret->version, sizeof(ret->version));
    else if (how->failure != HTTPC_FINE)
        snprintf(ret->reason, sizeof(ret->reason), "%s", upstream_failure_text(how->failure));
    else
        snprintf(ret->reason, sizeof(ret->reason), "it answers %d", q->status);
    return is_good ? UPSTREAM_YES : UPSTREAM_AWAY;
}

static void on_end(const httpc_answer *how, void *ctx)
{
    question *q = ctx;
    upstream *u = q->upstream;
    upstream_health health = { .is_good = false };
    upstream_verdict verdict = q->is_health ? judge_health(q, how, &health) : judge(q, how);

    pthread_mutex_lock(&u->mutex);
    if (q->is_health)
        u->health = health;
    else
        keep(u, q->key, verdict, clock_mono_ms());
    delist(u, q);
    pthread_mutex_unlock(&u->mutex);
    for (size_t i = 0; i < q->n_waiters; i++)
        q->waiters[i].fn(verdict, q->waiters[i].ctx);
    question_free(q);
}

static const httpc_transfer_ops ops = { .head = on_head, .data = on_data, .end = on_end };

static question *question_new(upstream *u, bool is_health, const char *target,
                              const stream_lines *headers)
{
    question *q = mem_alloc(sizeof(*q));
    const httpc_plan plan = { .method = "GET",
                              .origin = u->address.origin,
                              .target = target,
                              .headers = (const char *const *)headers->at,
                              .timeout_ms = is_health ? HEALTH_TIMEOUT_MS : ASK_TIMEOUT_MS,
                              .is_own = true,
                              .ops = &ops,
                              .ctx = q };

    q->upstream = u;
    q->is_health = is_health;
    q->body = (memfs_buf)MEMFS_BUF_INIT(MAX_KEPT_BYTES);
    q->transfer = httpc_transfer_new(u->multi, &plan);
    return q;
}

/*
 * Puts the question, or whoever asks beside those who have asked it already.  q is taken; NULL:
 * only the latter.  False: it was not put.
 */
static bool put(upstream *u, question *q, const uint8_t *key, upstream_fn fn, void *ctx)
{
    memfs_error err = MEMFS_ERROR_INIT;
    bool is_put = true, is_first;
    question *same;

    pthread_mutex_lock(&u->mutex);
    same = find_question(u, q->is_health, key);
    is_first = same == NULL && u->n_questions < MAX_QUESTIONS;
    if (same != NULL) {
        add_waiter(same, fn, ctx);
    } else if (is_first) {
        add_waiter(q, fn, ctx);
        enlist(u, q);
        is_put = httpc_transfer_start(q->transfer, &err) == MEMFS_OK;
        if (!is_put)
            delist(u, q);
    } else {
        is_put = false;
    }
    pthread_mutex_unlock(&u->mutex);
    if (!is_first || !is_put)
        question_free(q);
    return is_put;
}

static bool is_answered(upstream *u, const uint8_t key[HASH_SHA256], upstream_verdict *ret)
{
    pthread_mutex_lock(&u->mutex);
    *ret = look_up(u, key, clock_mono_ms());
    pthread_mutex_unlock(&u->mutex);
    return *ret != UPSTREAM_NOT_ASKED;
}

void upstream_ask(upstream *u, memfs_str agent_id, const upstream_caller *c, upstream_fn fn,
                  void *ctx)
{
    _cleanup_(stream_lines_dispose) stream_lines headers = STREAM_LINES_INIT;
    _cleanup_(mem_freep) char *target = NULL;
    upstream_verdict verdict = UPSTREAM_AWAY;
    uint8_t key[HASH_SHA256];
    question *q;

    make_key(u, agent_id, c, key);
    if (is_answered(u, key, &verdict)) {
        fn(verdict, ctx);
        return;
    }
    stream_lines_add(&headers, "Accept", "application/json");
    if (!upstream_credentials(c, &headers)) {
        fn(UPSTREAM_UNKNOWN, ctx);
        return;
    }
    target = agent_id.len > 0 ? mem_printf("/v1/agents/%.*s", (int)agent_id.len, agent_id.ptr)
                              : mem_strdup("/v1/agents/?limit=1");
    q = question_new(u, false, target, &headers);
    memcpy(q->key, key, sizeof(key));
    q->agent_id =
        agent_id.len > 0 ? mem_printf("\"%.*s\"", (int)agent_id.len, agent_id.ptr) : mem_strdup("");
    if (!put(u, q, key, fn, ctx))
        fn(UPSTREAM_AWAY, ctx);
}

void upstream_health_now(upstream *u, upstream_health *ret)
{
    pthread_mutex_lock(&u->mutex);
    *ret = u->health;
    pthread_mutex_unlock(&u->mutex);
}

void upstream_ask_health(upstream *u, upstream_fn fn, void *ctx)
{
    _cleanup_(stream_lines_dispose) stream_lines headers = STREAM_LINES_INIT;

    stream_lines_add(&headers, "Accept", "application/json");
    if (!put(u, question_new(u, true, "/v1/health/", &headers), NULL, fn, ctx))
        fn(UPSTREAM_AWAY, ctx);
}

/* ---- life ---- */

memfs_code upstream_open(const char *address, upstream **ret, memfs_error *err)
{
    upstream *u = mem_alloc(sizeof(*u));
    uint8_t name[4];
    char hex[2 * sizeof(name) + 1];
    memfs_code rc = stream_address_parse(address, &u->address, err);

    pthread_mutex_init(&u->mutex, NULL);
    hash_random(u->secret, sizeof(u->secret));
    hash_random(name, sizeof(name));
    hash_hex(name, sizeof(name), hex);
    snprintf(u->via, sizeof(u->via), "memfs-%s", hex);
    if (rc == MEMFS_OK)
        rc = httpc_multi_start(&u->multi, err);
    if (rc < 0) {
        upstream_close(u);
        return rc;
    }
    *ret = u;
    return MEMFS_OK;
}

void upstream_stop(upstream *u)
{
    if (u != NULL && u->multi != NULL)
        httpc_multi_stop(u->multi);
}

void upstream_close(upstream *u)
{
    if (u == NULL)
        return;
    httpc_multi_free(u->multi);
    stream_address_dispose(&u->address);
    hash_wipe(u->secret, sizeof(u->secret));
    pthread_mutex_destroy(&u->mutex);
    free(u);
}
