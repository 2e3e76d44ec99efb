#include "sync/cluster.h"
#include "sync/cluster_int.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/httpc.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/process.h"

#include <stdio.h>
#include <stdlib.h>

#define N_KEEPERS 2
#define MAX_ASKED 8     /* servers, for one commit */
#define FETCH_MS 30000  /* until then another one is asked */
#define ANSWER_MS 10000 /* to a question; one that does not answer is not fetched from */
#define HUNG_MS 20000   /* one that let somebody wait for so long is given less for a while: */
#define LESS_MS 1000
#define TRANSFER_MS 600000 /* of a whole history; git ends one that stands still for 30 s */
#define NEWS_MS 5000       /* until every server has heard of one that joined */
#define NEWS_PAUSE_MS 200
#define MOVES_ROUNDS 4 /* of cluster_moves() see a move that came into view late */
#define ROUND_MS 1000  /* calls in between see only what is newest */
#define MAX_MOVES 1000
#define ALIVE_MS 15000 /* seen within this: it is there */
#define BEGIN_MS 3000  /* one that ends may be seen for so long after the next one began */
#define GONE_MS 600000 /* not seen for so long: its address may be somebody else's by now */
#define SHUN_MS 2000   /* one that did not answer is asked last for so long */
#define MAX_FETCH_BYTES ((uint64_t)16 << 30)

typedef struct peer {
    int64_t no;
    char *name, *url;
    uint8_t token_hash[SERVER_TOKEN_HASH];
    bool is_alive, is_gone;
    int64_t failed_ms; /* when it last did not answer; 0 */
    int64_t hung_ms;   /* when it last did not within ANSWER_MS, and nothing ended that sooner; 0 */
} peer;

struct cluster {
    char *name, *url;
    char secret[CLUSTER_SECRET_LEN + 1];
    atomic_int_fast64_t no;
    int64_t seen[MOVES_ROUNDS]; /* generations up to which the last rounds of cluster_moves saw; */
    bool has_seen;              /* of its thread, as is the next */
    int64_t round_ms;           /* when the last round was */
    atomic_int twin;            /* cluster_twin, as of the last refresh */
    int64_t began_ms;
    pthread_mutex_t refreshing; /* what is read is put in the order of reading */
    pthread_mutex_t mutex;      /* guards all below; held for a few instructions only */
    peer *peers;                /* all servers, this one too */
    size_t n_peers;
};

/* ---- who is there ---- */

static void free_peers(peer *peers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(peers[i].name);
        free(peers[i].url);
    }
    free(peers);
}

struct reading {
    const cluster *c;
    cluster_twin twin;
    peer *peers;
    size_t n, cap;
};

/*
 * Read before this server says anew where it is: what stands in its row now, it wrote itself.  The
 * row of a home that was lost has its address, too, but was not seen since this one began.
 */
static cluster_twin twin_of(const cluster *c, const state_server *s)
{
    bool is_name = str_equal(s->name, str_of(c->name)), is_url = str_equal(s->url, str_of(c->url));

    if (is_name && !is_url && cluster_no(c) != 0)
        return CLUSTER_TWIN_NAME;
    return !is_name && is_url && s->age_ms + BEGIN_MS < clock_mono_ms() - c->began_ms
               ? CLUSTER_TWIN_URL
               : CLUSTER_ALONE;
}

static memfs_code take_peer(const state_server *s, void *ctx, memfs_error *err)
{
    struct reading *r = ctx;
    peer *p;

    (void)err;
    if (r->twin == CLUSTER_ALONE)
        r->twin = twin_of(r->c, s);
    if (r->n == r->cap) {
        r->cap = r->cap == 0 ? 8 : r->cap * 2;
        r->peers = mem_realloc(r->peers, r->cap, sizeof(*r->peers));
    }
    p = &r->peers[r->n++];
    *p = (peer){ .no = s->no,
                 .name = mem_strndup(s->name.ptr, s->name.len),
                 .url = mem_strndup(s->url.ptr, s->url.len),
                 .is_alive = s->age_ms < ALIVE_MS,
                 .is_gone = s->age_ms >= GONE_MS };
    memcpy(p->token_hash, s->token_hash, sizeof(p->token_hash));
    return MEMFS_OK;
}

static peer *find_peer(const cluster *c, int64_t no)
{
    for (size_t i = 0; i < c->n_peers; i++)
        if (c->peers[i].no == no)
            return &c->peers[i];
    return NULL;
}

static void put_peers(cluster *c, struct reading *r)
{
    peer *old;
    size_t n_old;

    pthread_mutex_lock(&c->mutex);
    for (size_t i = 0; i < r->n; i++) {
        const peer *before = find_peer(c, r->peers[i].no);

        r->peers[i].failed_ms = before != NULL ? before->failed_ms : 0;
        r->peers[i].hung_ms = before != NULL ? before->hung_ms : 0;
    }
    old = c->peers;
    n_old = c->n_peers;
    c->peers = r->peers;
    c->n_peers = r->n;
    pthread_mutex_unlock(&c->mutex);
    free_peers(old, n_old);
}

memfs_code cluster_refresh(cluster *c, state *s, memfs_error *err)
{
    state_server me = { .name = str_of(c->name), .url = str_of(c->url) };
    struct reading r = { .c = c };
    int64_t no = 0;
    memfs_code rc;

    hash_sha256(str_of(c->secret), me.token_hash);
    pthread_mutex_lock(&c->refreshing);
    rc = state_servers(s, take_peer, &r, err);
    if (rc == MEMFS_OK)
        rc = state_server_join(s, &me, &no, err);
    if (rc == MEMFS_OK) {
        atomic_store(&c->twin, (int)r.twin);
        atomic_store(&c->no, no); /* another one when somebody removed our row */
        put_peers(c, &r);
    } else {
        free_peers(r.peers, r.n);
    }
    pthread_mutex_unlock(&c->refreshing);
    return rc;
}

/* ---- life cycle ---- */

memfs_code cluster_open(const char *home_path, const char *url, state *s, cluster **ret,
                        memfs_error *err)
{
    cluster *c = mem_alloc(sizeof(*c));
    memfs_code rc;

    c->url = mem_strdup(url);
    c->began_ms = clock_mono_ms();
    pthread_mutex_init(&c->mutex, NULL);
    pthread_mutex_init(&c->refreshing, NULL);
    rc = cluster_keep_name(home_path, url, &c->name, err);
    if (rc == MEMFS_OK)
        rc = cluster_keep_secret(home_path, c->secret, err);
    if (rc == MEMFS_OK)
        rc = cluster_refresh(c, s, err);
    if (rc < 0)
        cluster_close(c);
    else
        *ret = c;
    return rc;
}

void cluster_close(cluster *c)
{
    if (c == NULL)
        return;
    free_peers(c->peers, c->n_peers);
    pthread_mutex_destroy(&c->mutex);
    pthread_mutex_destroy(&c->refreshing);
    hash_wipe(c->secret, sizeof(c->secret));
    free(c->name);
    free(c->url);
    free(c);
}

int64_t cluster_no(const cluster *c)
{
    return atomic_load(&c->no);
}

cluster_twin cluster_has_twin(const cluster *c)
{
    return (cluster_twin)atomic_load(&c->twin);
}

bool cluster_knows(cluster *c, int64_t no)
{
    bool is_known;

    pthread_mutex_lock(&c->mutex);
    is_known = find_peer(c, no) != NULL;
    pthread_mutex_unlock(&c->mutex);
    return is_known;
}

bool cluster_is_named(const cluster *c, memfs_str name)
{
    return str_equal(str_of(c->name), name);
}

bool cluster_has_secret(cluster *c, const uint8_t *token_hash)
{
    bool is_known = false;

    pthread_mutex_lock(&c->mutex);
    for (size_t i = 0; i < c->n_peers; i++)
        is_known |= hash_equal(c->peers[i].token_hash, token_hash, SERVER_TOKEN_HASH);
    pthread_mutex_unlock(&c->mutex);
    return is_known;
}

/* ---- the order in which servers stand to an agent ---- */

static uint64_t weight_of(memfs_str agent_id, const char *name)
{
    _cleanup_(mem_freep) char *text = mem_printf("%.*s %s", (int)agent_id.len, agent_id.ptr, name);
    uint8_t sum[16];
    uint64_t weight;

    hash_md5(str_of(text), sum);
    memcpy(&weight, sum, sizeof(weight));
    return weight;
}

bool cluster_keeps(cluster *c, memfs_str agent_id)
{
    uint64_t mine = weight_of(agent_id, c->name);
    size_t n_before = 0;

    pthread_mutex_lock(&c->mutex);
    for (size_t i = 0; i < c->n_peers; i++)
        n_before += c->peers[i].is_alive && c->peers[i].no != c->no &&
                    weight_of(agent_id, c->peers[i].name) > mine;
    pthread_mutex_unlock(&c->mutex);
    return n_before < N_KEEPERS;
}

/* One that may be asked. */
typedef struct candidate {
    int64_t no;
    char *name, *url;
    bool is_gone;  /* not asked: what we show it would be anybody's who has its address now */
    bool has_hung; /* a moment ago */
    unsigned rank; /* lower is asked first */
    uint64_t weight;
} candidate;

static int compare_candidates(const void *a, const void *b)
{
    const candidate *x = a, *y = b;

    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->weight == y->weight ? 0 : x->weight > y->weight ? -1 : 1;
}

static bool has_hung(const peer *p, int64_t now_ms)
{
    return p->hung_ms != 0 && now_ms - p->hung_ms < HUNG_MS;
}

static unsigned rank_of(const peer *p, int64_t holder, int64_t now_ms)
{
    bool is_shunned = p->failed_ms != 0 && now_ms - p->failed_ms < SHUN_MS;

    return (p->no == holder ? 0u : 1u) + (p->is_alive ? 0u : 2u) + (is_shunned ? 4u : 0u) +
           (p->is_gone ? 8u : 0u);
}

/* By its address too: a home that lost its disk has a new name, and its old row stays. */
static bool is_this_server(const cluster *c, const peer *p)
{
    return p->no == c->no || strcmp(p->name, c->name) == 0 || strcmp(p->url, c->url) == 0;
}

/* All but this one, in the order of asking. */
static size_t list_candidates(cluster *c, memfs_str agent_id, int64_t holder, candidate **ret)
{
    int64_t now_ms = clock_mono_ms();
    size_t n = 0;

    pthread_mutex_lock(&c->mutex);
    *ret = mem_alloc((c->n_peers + 1) * sizeof(**ret));
    for (size_t i = 0; i < c->n_peers; i++)
        if (!is_this_server(c, &c->peers[i]))
            (*ret)[n++] = (candidate){ c->peers[i].no,
                                       mem_strdup(c->peers[i].name),
                                       mem_strdup(c->peers[i].url),
                                       c->peers[i].is_gone,
                                       has_hung(&c->peers[i], now_ms),
                                       rank_of(&c->peers[i], holder, now_ms),
                                       weight_of(agent_id, c->peers[i].name) };
    pthread_mutex_unlock(&c->mutex);
    if (n > 0)
        qsort(*ret, n, sizeof(**ret), compare_candidates);
    return n;
}

static void free_candidates(candidate *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(list[i].name);
        free(list[i].url);
    }
    free(list);
}

/* took_ms: of asking; 0 where less than ANSWER_MS was left for it anyway. */
static void note_answer(cluster *c, int64_t no, bool has_answered, int64_t took_ms)
{
    peer *p;

    pthread_mutex_lock(&c->mutex);
    p = find_peer(c, no);
    if (p != NULL)
        p->failed_ms = has_answered ? 0 : clock_mono_ms();
    if (p != NULL && (has_answered || took_ms >= ANSWER_MS))
        p->hung_ms = p->failed_ms;
    pthread_mutex_unlock(&c->mutex);
}

/* ---- what the others move ---- */

struct telling {
    cluster *c;
    cluster_move_fn fn;
    void *ctx;
    bool is_all; /* also what this server moved */
    int64_t newest;
    size_t n;
};

static memfs_code tell_move(const cache_move *m, void *ctx, memfs_error *err)
{
    struct telling *t = ctx;

    (void)err;
    t->n++;
    t->newest = m->generation;
    if (t->fn != NULL && (t->is_all || m->holder != cluster_no(t->c)))
        t->fn(m, t->ctx);
    return MEMFS_OK;
}

/* From *after on, which becomes the newest. */
static memfs_code tell_moves(struct telling *t, cache *from, int64_t *after, memfs_error *err)
{
    memfs_code rc;

    do {
        t->n = 0;
        t->newest = *after;
        rc = cache_moves(from, *after, MAX_MOVES, tell_move, t, err);
        *after = t->newest;
    } while (rc == MEMFS_OK && t->n == MAX_MOVES);
    return rc;
}

/*
 * What the last MOVES_ROUNDS rounds saw is repeated: who was told knows that nothing is new of it.
 * Not so by calls between two rounds, which word of a move brings about.  A round begins with a
 * move that was seen.  When neither it nor a later one is there the database counts from an earlier
 * number: it was restored, or a replica that lagged took over.  Then all are told, this server's
 * too.
 */
memfs_code cluster_moves(cluster *c, cache *from, cluster_move_fn fn, void *ctx, memfs_error *err)
{
    bool is_anew = !c->has_seen, is_round = is_anew || clock_mono_ms() - c->round_ms >= ROUND_MS;
    struct telling t = { .c = c, .fn = c->has_seen ? fn : NULL, .ctx = ctx };
    int64_t seen = c->has_seen ? c->seen[is_round ? 0 : MOVES_ROUNDS - 1] : 0;
    int64_t after = !c->has_seen ? -1 : is_round && seen > 0 ? seen - 1 : seen;
    memfs_code rc = tell_moves(&t, from, &after, err);

    if (rc == MEMFS_OK && after < seen) {
        is_anew = t.is_all = true;
        after = 0;
        rc = tell_moves(&t, from, &after, err);
    }
    if (rc < 0)
        return rc;
    after = after > 0 ? after : 0; /* nothing was ever moved */
    for (size_t i = 0; is_round && i + 1 < MOVES_ROUNDS; i++)
        c->seen[i] = is_anew ? after : c->seen[i + 1];
    c->seen[MOVES_ROUNDS - 1] = after;
    if (is_round)
        c->round_ms = clock_mono_ms();
    c->has_seen = true;
    return MEMFS_OK;
}

/* ---- asking ---- */

/* The status says it all. */
static bool pass_over(memfs_str piece, void *ctx)
{
    (void)piece, (void)ctx;
    return true;
}

/* 0: no answer. */
static int ask(const cluster *c, const char *url, const char *method, int64_t timeout_ms)
{
    char header[sizeof("Authorization: Bearer ") + sizeof(c->secret)];
    const char *headers[] = { header, NULL };
    httpc_request rq = { .url = url,
                         .method = method,
                         .headers = headers,
                         .timeout_ms = timeout_ms,
                         .connect_timeout_ms = timeout_ms };
    httpc_answer answer = { .status = 0 };

    if (strcmp(method, "POST") == 0)
        rq.body = MEMFS_STR("{}");
    snprintf(header, sizeof(header), "Authorization: Bearer %s", c->secret);
    httpc_fetch(&rq, pass_over, NULL, &answer);
    hash_wipe(header, sizeof(header));
    return answer.failure == HTTPC_FINE ? answer.status : 0;
}

/* ---- fetching ---- */

/* 404 is an answer: it has no such repository, or no such commit. */
static bool has_answered(memfs_code rc, const transport_report *report)
{
    return rc == MEMFS_OK || rc == MEMFS_ENOTFOUND || report->cause == TRANSPORT_CAUSE_NOT_FOUND ||
           strstr(report->said, "not our ref") != NULL;
}

/* A server that is asked by one that joined a moment ago has not heard of it yet. */
static bool wait_for_news(int64_t until_ms)
{
    clock_sleep_ms(NEWS_PAUSE_MS);
    return clock_mono_ms() < until_ms;
}

/*
 * Does it have the repository, and does it answer at all?  The status, as of ask().  Of many agents
 * that a server has which hangs, each would be waited for as long as the first one otherwise, by
 * all who ask for any of them: clients, the mirror, those who follow (L3).
 */
static int knock(const cluster *c, const char *repository, bool has_hung)
{
    _cleanup_(mem_freep) char *url = mem_printf("%s/info/refs?service=git-upload-pack", repository);
    int64_t until_ms = clock_mono_ms() + NEWS_MS;
    int status;

    do
        status = ask(c, url, "GET", has_hung ? LESS_MS : ANSWER_MS);
    while (status == 401 && wait_for_news(until_ms));
    return status;
}

static memfs_code fetch_from(const cluster *c, const candidate *from, memfs_str agent_id,
                             fetched *f, const memfs_oid *want, memfs_oid *ret, bool *ret_answered,
                             memfs_error *err)
{
    _cleanup_(mem_freep) char *url =
        mem_printf("%s/peer/git/%.*s/state.git", from->url, (int)agent_id.len, agent_id.ptr);
    transport_target t = {
        .url = url, .username = "memfs", .secret = c->secret, .is_server = true, .may_http = true
    };
    transport_report report = { .said = "" };
    int status = knock(c, url, from->has_hung);
    char ref[MEMFS_OID_HEX + 1];
    memfs_code rc;

    *ret_answered = status == 404;
    if (status != 200)
        return memfs_fail(err, status == 404 ? MEMFS_ENOTFOUND : MEMFS_EUNAVAIL,
                          "another server answered with HTTP %d", status);
    if (want != NULL)
        oid_hex(want, ref);
    rc = fetched_fetch(f, &t, want != NULL ? ref : STORE_MAIN, MAX_FETCH_BYTES,
                       clock_mono_ms() + TRANSFER_MS, ret, &report, err);
    *ret_answered = has_answered(rc, &report);
    return rc;
}

/* *ret_silent: how many may have it, and could not be asked. */
static memfs_code fetch_from_any(cluster *c, const candidate *list, size_t n, memfs_str agent_id,
                                 fetched *f, const memfs_oid *want, memfs_oid *ret,
                                 size_t *ret_silent, memfs_error *err)
{
    int64_t deadline_ms = clock_mono_ms() + FETCH_MS;
    memfs_code rc = MEMFS_ENOTFOUND;
    process_waiting w;

    process_waiting_begin(&w); /* one that was ended is followed by no other (F30) */
    for (size_t i = 0; rc != MEMFS_OK && i < n; i++) {
        bool answered = false;

        if (i < MAX_ASKED && !list[i].is_gone && clock_mono_ms() < deadline_ms &&
            !process_waiting_is_ended(&w)) {
            int64_t began_ms = clock_mono_ms();

            rc = fetch_from(c, &list[i], agent_id, f, want, ret, &answered, err);
            note_answer(c, list[i].no, answered, clock_mono_ms() - began_ms);
        }
        *ret_silent += !answered;
    }
    process_waiting_end(&w);
    return rc;
}

memfs_code cluster_fetch(cluster *c, memfs_str agent_id, int64_t holder, fetched *f,
                         const memfs_oid *want, memfs_oid *ret, memfs_error *err)
{
    size_t n_silent = 0, n;
    candidate *list;
    memfs_code rc;

    n = list_candidates(c, agent_id, holder, &list);
    pool_wait_begin(); /* a server that hangs keeps no place from other agents (L3) */
    rc = fetch_from_any(c, list, n, agent_id, f, want, ret, &n_silent, err);
    pool_wait_end();
    free_candidates(list, n);
    if (rc == MEMFS_OK)
        return rc;
    return memfs_fail(err, n_silent > 0 ? MEMFS_EUNAVAIL : MEMFS_ENOTFOUND,
                      "no other server that answers has what this one lacks of agent '%.*s'",
                      (int)agent_id.len, agent_id.ptr);
}

/* ---- copies ---- */

/* The status: 200 says that it is there. */
static int ask_to_keep(const cluster *c, const candidate *whom, memfs_str agent_id, const char *hex,
                       int64_t timeout_ms)
{
    _cleanup_(mem_freep) char *url =
        mem_printf("%s/peer/keep/%s/%.*s/%s?from=%lld", whom->url, whom->name, (int)agent_id.len,
                   agent_id.ptr, hex, (long long)cluster_no(c));

    return ask(c, url, "POST", timeout_ms);
}

static bool has_said_so(const int64_t *good, size_t n, int64_t no)
{
    for (size_t i = 0; i < n; i++)
        if (good[i] == no)
            return true;
    return false;
}

/*
 * Of the time that is left each has a half, so that one that hangs leaves some to the others; the
 * last one all.  One that says no has answered: it is not shunned for what one agent lacks.
 */
static size_t ask_all(cluster *c, memfs_str agent_id, const char *hex, int64_t *good, size_t n_good,
                      size_t n, int64_t deadline_ms)
{
    candidate *list;
    size_t n_all = list_candidates(c, agent_id, 0, &list), n_here = n_all;

    while (n_here > 0 && list[n_here - 1].is_gone) /* they come last */
        n_here--;
    for (size_t i = 0; i < n_here && n_good < n; i++) {
        int64_t left_ms = deadline_ms - clock_mono_ms();
        int status;

        if (left_ms <= 0)
            break;
        if (has_said_so(good, n_good, list[i].no))
            continue;
        status =
            ask_to_keep(c, &list[i], agent_id, hex, i + 1 < n_here ? (left_ms + 1) / 2 : left_ms);
        note_answer(c, list[i].no, status != 0, 0);
        if (status == 200)
            good[n_good++] = list[i].no;
    }
    free_candidates(list, n_all);
    return n_good;
}

size_t cluster_copy(cluster *c, memfs_str agent_id, const memfs_oid *commit, size_t n,
                    int64_t deadline_ms)
{
    _cleanup_(mem_freep) int64_t *good = mem_alloc((n + 1) * sizeof(*good));
    char hex[MEMFS_OID_HEX + 1];
    size_t n_good = 0;

    oid_hex(commit, hex);
    do
        n_good = ask_all(c, agent_id, hex, good, n_good, n, deadline_ms);
    while (n_good < n && wait_for_news(deadline_ms));
    return n_good;
}
