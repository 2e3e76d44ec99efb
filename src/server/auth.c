/*
 * auth.c - tokens, and the one decision about a request.
 *
 * The state holds all tokens that ever were, as hashes.  In memory is a table of those that may
 * still open something, made anew whenever one changes: open addressing by the first bytes of the
 * hash, so a request costs one SHA-256 and one look.  Comparing is constant in time; which slot is
 * looked at tells nothing, as nobody can choose a hash.
 *
 * Revoked tokens are not in the table and expired ones are found there and refused, so both answer
 * as one that never was.  There is no cache by connection: a revoked token ends with the next
 * request on a connection that used it.
 *
 * Locks: `reloading` is held from reading the state to putting its table in place, so that no older
 * one replaces a newer; within it `lock`, which guards the table.  `failures.mutex` guards the
 * counts, and is taken alone.
 */
#include "server/auth.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define PREFIX "memfs_"
#define RANDOM_CHARS 43 /* of 62: 256 bits */
#define MAX_CREDENTIAL 512
#define MAX_SOURCES 64
#define TELL_EVERY_MS 60000
/* T04: guesses that are free, how often one more is, and what the others cost */
#define FREE_GUESSES 20
#define FORGIVE_MS 1000
#define FIRST_WAIT_MS 500
#define DOUBLE_AFTER 10 /* guesses */
#define N_DOUBLINGS 4
#define MAX_GUESSES (FREE_GUESSES + (N_DOUBLINGS + 1) * DOUBLE_AFTER)
#define N_REMEMBERED 16

static_assert(sizeof(PREFIX) - 1 + RANDOM_CHARS == AUTH_TOKEN_LEN, "a token's parts");
static_assert(HASH_SHA256 == STATE_TOKEN_HASH, "tokens are stored as SHA-256");
static_assert(sizeof(auth_principal) <= HTTP_PRINCIPAL_BYTES, "a request has room for it");

typedef struct slot {
    bool is_taken;
    uint8_t hash[HASH_SHA256];
    int64_t expires_at_us;
    auth_principal principal;
} slot;

typedef struct token_table {
    slot *slots;
    size_t n_slots; /* a power of two, at least twice the tokens */
    size_t n_ever;  /* tokens that were ever made */
} token_table;

typedef struct failing_source {
    char address[HTTP_PEER_LEN]; /* "": free */
    uint64_t n;                  /* not told yet */
    int64_t told_ms;
    int n_guesses; /* that are not forgiven yet */
    int64_t forgiven_ms;
    uint64_t seen[N_REMEMBERED]; /* of the last bad credentials, a part of their hash */
    size_t n_seen;               /* ever */
} failing_source;

struct auth {
    state *state;
    bool is_forced;
    auth_peer_fn is_peer;
    void *peer_ctx;
    pthread_mutex_t reloading;
    pthread_rwlock_t lock;
    token_table table;
    struct {
        pthread_mutex_t mutex;
        failing_source sources[MAX_SOURCES + 1]; /* the last is for all that find no place */
    } failures;
};

/* ---- scopes ---- */

/* Level and agent of a scope.  False: it opens nothing. */
static bool parse_scope(memfs_str scope, auth_principal *ret)
{
    memfs_str kind, id, right;

    if (str_equal(scope, MEMFS_STR("admin"))) {
        ret->level = AUTH_ADMIN;
        return true;
    }
    if (!str_split(scope, ':', &kind, &id) || !str_split(id, ':', &id, &right) ||
        !(str_equal(kind, MEMFS_STR("agent"))
              ? ids_is_agent(id)
              : str_equal(kind, MEMFS_STR("repo")) && ids_is_shared(id)))
        return false;
    if (str_equal(right, MEMFS_STR("rw")))
        ret->level = AUTH_AGENT_RW;
    else if (str_equal(right, MEMFS_STR("ro")))
        ret->level = AUTH_AGENT_RO;
    else
        return false;
    memcpy(ret->agent_id, id.ptr, id.len);
    ret->agent_id[id.len] = '\0';
    return true;
}

memfs_code auth_scope_check(memfs_str scope, memfs_error *err)
{
    auth_principal ignored;

    if (parse_scope(scope, &ignored))
        return MEMFS_OK;
    return memfs_fail(
        err, MEMFS_EINVALID,
        "'%.*s' is not a scope; there are admin, agent:ID:rw, agent:ID:ro, repo:ID:rw "
        "and repo:ID:ro",
        (int)(scope.len < 100 ? scope.len : 100), scope.ptr);
}

/* ---- the table ---- */

static slot *first_slot(const token_table *t, const uint8_t hash[HASH_SHA256])
{
    uint64_t start;

    memcpy(&start, hash, sizeof(start));
    return &t->slots[start & (t->n_slots - 1)];
}

static slot *next_slot(const token_table *t, slot *at)
{
    return ++at == t->slots + t->n_slots ? t->slots : at;
}

/* What is gathered while the state's rows pass by. */
typedef struct gathered {
    slot *slots;
    size_t n, cap, n_ever;
} gathered;

static memfs_code gather_token(const state_token *token, void *ctx, memfs_error *err)
{
    gathered *g = ctx;
    slot *s;

    (void)err;
    g->n_ever++;
    if (token->revoked_at_us != 0)
        return MEMFS_OK;
    if (g->n == g->cap) {
        g->cap = g->cap > 0 ? 2 * g->cap : 16;
        g->slots = mem_realloc(g->slots, g->cap, sizeof(*g->slots));
    }
    s = &g->slots[g->n];
    memset(s, 0, sizeof(*s));
    if (!parse_scope(token->scope, &s->principal)) /* of a newer memfs: it opens nothing here */
        return MEMFS_OK;
    s->is_taken = true;
    s->expires_at_us = token->expires_at_us;
    memcpy(s->hash, token->hash, sizeof(s->hash));
    snprintf(s->principal.token_id, sizeof(s->principal.token_id), "%.*s", (int)token->id.len,
             token->id.ptr);
    g->n++;
    return MEMFS_OK;
}

static token_table table_of(const gathered *g)
{
    token_table t = { .n_slots = 16, .n_ever = g->n_ever };

    while (t.n_slots < 2 * g->n)
        t.n_slots *= 2;
    t.slots = mem_alloc(t.n_slots * sizeof(*t.slots));
    for (size_t i = 0; i < g->n; i++) {
        slot *at = first_slot(&t, g->slots[i].hash);

        while (at->is_taken)
            at = next_slot(&t, at);
        *at = g->slots[i];
    }
    return t;
}

memfs_code auth_reload(auth *a, memfs_error *err)
{
    gathered g = { NULL, 0, 0, 0 };
    token_table fresh, old;
    memfs_code rc;

    pthread_mutex_lock(&a->reloading);
    rc = state_tokens(a->state, gather_token, &g, err);
    if (rc == MEMFS_OK) {
        fresh = table_of(&g);
        pthread_rwlock_wrlock(&a->lock);
        old = a->table;
        a->table = fresh;
        pthread_rwlock_unlock(&a->lock);
        free(old.slots);
    }
    pthread_mutex_unlock(&a->reloading);
    free(g.slots);
    return rc;
}

static bool find_token(auth *a, const uint8_t hash[HASH_SHA256], auth_principal *ret)
{
    int64_t now_us = clock_wall_us();
    bool is_good = false;

    pthread_rwlock_rdlock(&a->lock);
    for (slot *at = first_slot(&a->table, hash); at->is_taken; at = next_slot(&a->table, at)) {
        if (!hash_equal(at->hash, hash, HASH_SHA256))
            continue;
        is_good = at->expires_at_us == 0 || now_us < at->expires_at_us;
        if (is_good)
            *ret = at->principal;
        break;
    }
    pthread_rwlock_unlock(&a->lock);
    return is_good;
}

/* ---- life ---- */

memfs_code auth_open(state *s, bool is_forced, auth **ret, memfs_error *err)
{
    auth *a = mem_alloc(sizeof(*a));
    memfs_code rc;

    a->state = s;
    a->is_forced = is_forced;
    pthread_mutex_init(&a->reloading, NULL);
    pthread_rwlock_init(&a->lock, NULL);
    pthread_mutex_init(&a->failures.mutex, NULL);
    rc = auth_reload(a, err);
    if (rc < 0) {
        auth_close(a);
        return rc;
    }
    *ret = a;
    return MEMFS_OK;
}

void auth_close(auth *a)
{
    if (a == NULL)
        return;
    free(a->table.slots);
    pthread_mutex_destroy(&a->reloading);
    pthread_rwlock_destroy(&a->lock);
    pthread_mutex_destroy(&a->failures.mutex);
    free(a);
}

bool auth_is_on(const auth *a)
{
    pthread_rwlock_t *lock = (pthread_rwlock_t *)(uintptr_t)&a->lock;
    bool is_on;

    pthread_rwlock_rdlock(lock);
    is_on = a->is_forced || a->table.n_ever > 0;
    pthread_rwlock_unlock(lock);
    return is_on;
}

void auth_set_peers(auth *a, auth_peer_fn fn, void *ctx)
{
    a->is_peer = fn;
    a->peer_ctx = ctx;
}

/* ---- credentials ---- */

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

/* out has room for 3/4 of text.  False: it is not base64. */
static bool base64_decode(memfs_str text, char *out, size_t *ret_n)
{
    uint32_t bits = 0;
    size_t n_bits = 0;

    *ret_n = 0;
    while (text.len > 0 && text.ptr[text.len - 1] == '=')
        text.len--;
    for (size_t i = 0; i < text.len; i++) {
        int digit = base64_digit(text.ptr[i]);

        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t)digit;
        n_bits += 6;
        if (n_bits < 8)
            continue;
        n_bits -= 8;
        out[(*ret_n)++] = (char)(bits >> n_bits & 0xFF);
    }
    return true;
}

static bool take_scheme(memfs_str *header, const char *scheme)
{
    size_t n = strlen(scheme);

    if (header->len <= n || strncasecmp(header->ptr, scheme, n) != 0 || header->ptr[n] != ' ')
        return false;
    *header = str_from(*header, n);
    while (header->len > 0 && header->ptr[0] == ' ')
        *header = str_from(*header, 1);
    return true;
}

/* What the header offers as a token, in plain.  False: it offers nothing that we understand. */
static bool read_credential(memfs_str header, char plain[MAX_CREDENTIAL], memfs_str *ret)
{
    memfs_str user;
    size_t n;

    if (header.len > MAX_CREDENTIAL)
        return false;
    if (take_scheme(&header, "Bearer")) {
        *ret = header;
        return true;
    }
    return take_scheme(&header, "Basic") && base64_decode(header, plain, &n) &&
           str_split(str_make(plain, n), ':', &user, ret);
}

static bool hash_credential(memfs_str header, uint8_t out[HASH_SHA256])
{
    char plain[MAX_CREDENTIAL];
    memfs_str token;
    bool is_good = read_credential(header, plain, &token);

    if (is_good)
        hash_sha256(token, out);
    hash_wipe(plain, sizeof(plain));
    return is_good;
}

bool auth_is_own(const char *header)
{
    char plain[MAX_CREDENTIAL];
    memfs_str token;
    bool is_own = header != NULL && read_credential(str_of(header), plain, &token) &&
                  str_starts_with(token, MEMFS_STR(PREFIX));

    hash_wipe(plain, sizeof(plain));
    return is_own;
}

/* ---- failures by source (T04) ---- */

static failing_source *source_of(auth *a, const char *address)
{
    failing_source *free_one = NULL;

    for (size_t i = 0; i < MAX_SOURCES; i++) {
        failing_source *s = &a->failures.sources[i];

        if (strcmp(s->address, address) == 0)
            return s;
        if (s->address[0] == '\0' && free_one == NULL)
            free_one = s;
    }
    if (free_one == NULL) {
        free_one = &a->failures.sources[MAX_SOURCES];
        address = "others";
    }
    snprintf(free_one->address, sizeof(free_one->address), "%s", address);
    return free_one;
}

static void log_failures(const char *address, uint64_t n)
{
    char count[STR_U64_LEN];

    str_put_u64(n, count);
    log_event(LOG_WARN, "auth_failed", "source", address, "count", count, NULL);
}

/* Time forgives one guess after the other. */
static void forgive(failing_source *s, int64_t now_ms)
{
    int64_t n = (now_ms - s->forgiven_ms) / FORGIVE_MS;

    if (n >= s->n_guesses) {
        s->n_guesses = 0;
        s->forgiven_ms = now_ms;
    } else if (n > 0) {
        s->n_guesses -= (int)n;
        s->forgiven_ms += n * FORGIVE_MS;
    }
}

/* A credential that this source did not show lately?  It is remembered from now on. */
static bool is_new_guess(failing_source *s, const uint8_t hash[HASH_SHA256])
{
    uint64_t part;

    memcpy(&part, hash, sizeof(part));
    for (size_t i = 0; i < s->n_seen && i < N_REMEMBERED; i++)
        if (s->seen[i] == part)
            return false;
    s->seen[s->n_seen++ % N_REMEMBERED] = part;
    return true;
}

static int64_t wait_of(failing_source *s, const uint8_t *hash, int64_t now_ms)
{
    int over;

    forgive(s, now_ms);
    if (hash == NULL || !is_new_guess(s, hash))
        return 0;
    if (s->n_guesses < MAX_GUESSES - 1)
        s->n_guesses++;
    over = s->n_guesses - FREE_GUESSES;
    return over > 0 ? FIRST_WAIT_MS << (over / DOUBLE_AFTER) : 0;
}

/* The first is told at once; from then on what comes is told a minute later, as one number. */
static int64_t count_failure(auth *a, const char *address, const uint8_t *hash, int64_t now_ms)
{
    int64_t wait_ms;
    bool is_first;
    failing_source *s;

    pthread_mutex_lock(&a->failures.mutex);
    s = source_of(a, address);
    is_first = s->told_ms == 0;
    if (is_first)
        s->told_ms = now_ms;
    else
        s->n++;
    wait_ms = wait_of(s, hash, now_ms);
    pthread_mutex_unlock(&a->failures.mutex);
    if (is_first)
        log_failures(address, 1);
    return wait_ms;
}

/* What is no credential at all can open nothing, so it is no guess. */
int64_t auth_count_failure(auth *a, const char *source, const char *header, int64_t now_ms)
{
    uint8_t hash[HASH_SHA256];
    bool is_guess = hash_credential(str_of(header), hash);

    return count_failure(a, source, is_guess ? hash : NULL, now_ms);
}

void auth_tell_failures(auth *a, int64_t now_ms)
{
    for (size_t i = 0; i <= MAX_SOURCES; i++) {
        failing_source *s = &a->failures.sources[i], told = { .n = 0 };

        pthread_mutex_lock(&a->failures.mutex);
        if (s->address[0] != '\0' && now_ms - s->told_ms >= TELL_EVERY_MS) {
            told = *s;
            s->told_ms = now_ms;
            forgive(s, now_ms);
            if (s->n == 0 && s->n_guesses == 0) /* a quiet minute: its place is free */
                memset(s, 0, sizeof(*s));
            s->n = 0;
        }
        pthread_mutex_unlock(&a->failures.mutex);
        if (told.n > 0)
            log_failures(told.address, told.n);
    }
}

/* ---- the decision ---- */

static bool has_source(const auth_question *q)
{
    return q->source != NULL && q->source[0] != '\0';
}

static void identify(auth *a, const auth_question *q, auth_principal *ret)
{
    uint8_t hash[HASH_SHA256];

    if (q->header == NULL)
        return;
    if (hash_credential(str_of(q->header), hash) && find_token(a, hash, ret))
        return;
    if (!q->is_vouched && has_source(q))
        ret->wait_ms = auth_count_failure(a, q->source, q->header, clock_mono_ms());
}

static auth_verdict judge_peer(auth *a, const auth_question *q, auth_principal *ret)
{
    uint8_t hash[HASH_SHA256];

    if (q->header != NULL && a->is_peer != NULL && hash_credential(str_of(q->header), hash) &&
        a->is_peer(hash, a->peer_ctx)) {
        ret->level = AUTH_PEER;
        return AUTH_SERVE;
    }
    if (q->header != NULL && has_source(q))
        ret->wait_ms = auth_count_failure(a, q->source, q->header, clock_mono_ms());
    return AUTH_401;
}

static bool is_foreign(const auth_principal *p, memfs_str agent_id)
{
#ifdef MEMFS_SABOTAGE_AUTH /* a program of the tests, which must fail with it (tests/meson.build) */
    (void)p, (void)agent_id;
    return false;
#else
    return !str_equal(agent_id, str_of(p->agent_id));
#endif
}

static auth_verdict judge_agent(const auth_question *q, const auth_principal *p)
{
    bool is_repo = ids_is_shared(str_of(p->agent_id));

    if (q->access == HTTP_ACCESS_AGENT && is_foreign(p, q->agent_id))
        return AUTH_404;
    if (q->access == HTTP_ACCESS_SHARED && is_repo && is_foreign(p, q->repo_id))
        return AUTH_404;
    if (q->access != HTTP_ACCESS_AGENT && q->access != HTTP_ACCESS_ALL &&
        q->access != HTTP_ACCESS_SHARED)
        return AUTH_403;
    if (q->access == HTTP_ACCESS_ALL && is_repo && q->is_writing)
        return AUTH_403;
    return q->is_writing && p->level != AUTH_AGENT_RW ? AUTH_403 : AUTH_SERVE;
}

auth_verdict auth_judge(auth *a, const auth_question *q, auth_principal *ret)
{
    *ret = (auth_principal){ .level = AUTH_NOBODY };
    if (q->is_socket) {
        ret->level = AUTH_ADMIN;
        return AUTH_SERVE;
    }
    if (q->access == HTTP_ACCESS_OWNER)
        return AUTH_404;
    if (q->access == HTTP_ACCESS_OPEN || q->access == HTTP_ACCESS_HOOK)
        return AUTH_SERVE;
    if (q->access == HTTP_ACCESS_PEER)
        return judge_peer(a, q, ret);
    if (q->has_upstream && !q->is_vouched && !auth_is_own(q->header))
        return AUTH_ASK;
    if (!auth_is_on(a) && !q->has_upstream)
        ret->level = AUTH_ADMIN;
    else
        identify(a, q, ret);
    if (ret->level == AUTH_NOBODY && q->is_vouched) {
        ret->level = AUTH_AGENT_RW;
        snprintf(ret->agent_id, sizeof(ret->agent_id), "%.*s", (int)q->agent_id.len,
                 q->agent_id.ptr);
    }
    if (ret->level == AUTH_NOBODY)
        return AUTH_401;
    return ret->level == AUTH_ADMIN ? AUTH_SERVE : judge_agent(q, ret);
}

/* ---- tokens ---- */

/* 62 signs from bytes: those past the last multiple of 62 are drawn again, so each is as likely. */
static void make_token(char token[AUTH_TOKEN_LEN + 1])
{
    static const char signs[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t n = sizeof(PREFIX) - 1;
    uint8_t byte;

    memcpy(token, PREFIX, n);
    while (n < AUTH_TOKEN_LEN) {
        hash_random(&byte, 1);
        if (byte < 62 * 4)
            token[n++] = signs[byte % 62];
    }
    token[n] = '\0';
}

memfs_code auth_token_create(auth *a, memfs_str name, memfs_str scope, int64_t expires_at_us,
                             char token[AUTH_TOKEN_LEN + 1], char ret_id[16], memfs_error *err)
{
    state_token row = { .name = name, .scope = scope, .created_at_us = clock_wall_us(),
                        .expires_at_us = expires_at_us };
    memfs_code rc = auth_scope_check(scope, err);
    uint8_t id[4];

    if (rc < 0)
        return rc;
    make_token(token);
    hash_sha256(str_make(token, AUTH_TOKEN_LEN), row.hash);
    do { /* eight digits may be taken */
        hash_random(id, sizeof(id));
        hash_hex(id, sizeof(id), ret_id);
        row.id = str_of(ret_id);
        rc = state_token_add(a->state, &row, err);
    } while (rc == MEMFS_EEXISTS);
    return rc == MEMFS_OK ? auth_reload(a, err) : rc;
}

memfs_code auth_token_revoke(auth *a, memfs_str id, memfs_error *err)
{
    memfs_code rc = state_token_revoke(a->state, id, clock_wall_us(), err);

    return rc == MEMFS_OK ? auth_reload(a, err) : rc;
}

memfs_code auth_tokens(auth *a, state_token_fn fn, void *ctx, memfs_error *err)
{
    return state_tokens(a->state, fn, ctx, err);
}
