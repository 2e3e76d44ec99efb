#include "server/service.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/pool.h"
#include "letta/eye.h"
#include "letta/reread.h"
#include "letta/sweep.h"
#include "memory/ids.h"
#include "server/peers.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_MS 10000    /* for what the server wrote, before a client is answered */
#define PUBLISH_MS 20000 /* of a push; git's own clients wait longer */
#define MAX_TOLD 16

struct service {
    letta_folder *folder;
    peers *peers;
    reread *reread; /* NULL: its address is not known */
    sweep *sweep;
    eye *eye;
    home *home;
    mirror *mirror;
    bool is_quiet;
    bool has_hung;                      /* a thread of it goes on; of whoever stops it */
    pthread_mutex_t mutex;              /* guards what follows; a leaf */
    char told[MAX_TOLD][HTTP_PEER_LEN]; /* who said what it may not */
    size_t n_told;
};

/* ---- life cycle ---- */

static void log_letta(const char *event, const char *agent_id, const char *text, void *ctx)
{
    bool is_good = strcmp(event, "letta_server_back") == 0;

    (void)ctx;
    log_event(is_good ? LOG_INFO : LOG_WARN, event, "agent", agent_id, "text", text, NULL);
}

static memfs_code start_reread(service *s, const service_options *o, const char *home,
                               memfs_error *err)
{
    const reread_options options = { home, o->url, o->token_file, log_letta, NULL };

    if (o->url == NULL && o->is_quiet)
        return MEMFS_OK;
    if (o->url == NULL) {
        log_event(LOG_WARN, "letta_configured", "text",
                  "--letta-url is not given: the Letta server learns of changes that did not come "
                  "through it with the next push that does",
                  NULL);
        return MEMFS_OK;
    }
    return reread_start(&options, &s->reread, err);
}

memfs_code service_open(const service_options *o, const char *home, service **ret, memfs_error *err)
{
    service *s = mem_alloc(sizeof(*s));
    memfs_code rc;

    pthread_mutex_init(&s->mutex, NULL);
    s->is_quiet = o->is_quiet;
    s->folder = letta_folder_new(o->root);
    rc = peers_parse(o->proxies, &s->peers, err);
    if (rc < 0)
        memfs_context(err, "--letta-proxy");
    if (rc == MEMFS_OK)
        rc = eye_open(s->folder, &s->eye, err);
    if (rc == MEMFS_OK)
        rc = start_reread(s, o, home, err);
    if (rc < 0) {
        service_close(s);
        return rc;
    }
    *ret = s;
    return MEMFS_OK;
}

bool service_stop(service *s)
{
    bool has_ended;

    if (s == NULL)
        return true;
    if (s->has_hung)
        return false;
    has_ended = sweep_stop(s->sweep);
    has_ended = eye_close(s->eye) && has_ended;
    s->sweep = NULL;
    s->eye = NULL;
    s->has_hung = !has_ended;
    return has_ended;
}

void service_close(service *s)
{
    if (s == NULL || !service_stop(s))
        return;
    reread_stop(s->reread);
    peers_free(s->peers);
    letta_folder_free(s->folder);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

letta_folder *service_folder(service *s)
{
    return s != NULL ? s->folder : NULL;
}

/* ---- what the server writes ---- */

/* A look at every folder after each start would be as many exchanges; most are in step. */
static bool is_ours(const service *s, const char *agent_id, const memfs_oid *tip)
{
    _cleanup_(mem_freep) char *name =
        mem_printf("repository/" IDS_DEFAULT_ORG "/%s/repo.git", agent_id);
    memfs_error ignored;
    memfs_oid ours;

    return store_tip(home_store(s->home), name, &ours, &ignored) == MEMFS_OK &&
           oid_equal(&ours, tip);
}

static void on_written(const char *agent_id, bool is_first, void *ctx)
{
    memfs_oid tip = { { 0 } };
    memfs_error ignored;
    letta_place place;
    service *s = ctx;

    if (letta_folder_tip(s->folder, agent_id, &place, &tip, &ignored) < 0)
        memset(&tip, 0, sizeof(tip));
    else if (is_first && letta_folder_has_left(s->folder, agent_id))
        memset(&tip, 0, sizeof(tip)); /* wherever main is, there is more */
    else if (is_first && is_ours(s, agent_id, &tip))
        return;
    if (is_first) /* of a first round there may be thousands */
        mirror_hint_in_turn(s->mirror, REMOTE_LETTA, str_of(agent_id), &tip);
    else
        mirror_hint(s->mirror, REMOTE_LETTA, str_of(agent_id), &tip);
}

memfs_code service_start(service *s, home *h, mirror *m, memfs_error *err)
{
    s->home = h;
    s->mirror = m;
    if (s->is_quiet)
        return MEMFS_OK;
    return sweep_start(s->folder, on_written, s, &s->sweep, err);
}

/* ---- what moves in its folder ---- */

void service_moves(const char *agent_id, mirror_letta_step step, void *arg)
{
    service *s = arg;

    if (step == MIRROR_LETTA_MOVES)
        reread_mark(s->reread, agent_id);
    else if (step == MIRROR_LETTA_MOVED)
        reread_due(s->reread, agent_id);
    else
        reread_stays(s->reread, agent_id);
}

/* ---- who speaks ---- */

static void tell_once(service *s, const char *peer)
{
    bool is_new = true;

    pthread_mutex_lock(&s->mutex);
    for (size_t i = 0; i < s->n_told && is_new; i++)
        is_new = strcmp(s->told[i], peer) != 0;
    if (is_new && s->n_told == MAX_TOLD)
        is_new = false; /* whoever has so many addresses is in the log already */
    else if (is_new)
        snprintf(s->told[s->n_told++], HTTP_PEER_LEN, "%s", peer);
    pthread_mutex_unlock(&s->mutex);
    if (is_new)
        log_event(LOG_WARN, "organization_ignored", "source", peer, "text",
                  "X-Organization-Id counts from the addresses of --letta-proxy alone", NULL);
}

/*
 * The proxy asks its own rules only when it reads the path as these (http-api 2.3); with any other
 * a client's header comes through as it is.  So the bytes decide, and not what they are decoded to.
 */
static bool is_checked_path(memfs_str path, memfs_str agent_id)
{
    static const char *const ends[] = { "info/refs", "git-upload-pack", "git-receive-pack" };
    char exact[IDS_MAX_LEN + 64];

    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        snprintf(exact, sizeof(exact), "/git/%.*s/state.git/%s", (int)agent_id.len, agent_id.ptr,
                 ends[i]);
        if (str_equal(path, str_of(exact)))
            return true;
    }
    return false;
}

static memfs_str organization(const http_request *rq)
{
    const char *org = http_header(rq, "X-Organization-Id");

    return org != NULL ? str_of(org) : MEMFS_STR("");
}

bool service_vouches(service *s, const http_request *rq, memfs_str agent_id)
{
    memfs_str org = organization(rq);
    char peer[HTTP_PEER_LEN];

    if (s == NULL || org.len == 0 || http_is_owner(rq) || !ids_is_agent(agent_id) ||
        !is_checked_path(http_raw_path(rq), agent_id))
        return false;
    http_peer(rq, peer);
    if (!peers_have(s->peers, peer)) {
        tell_once(s, peer);
        return false;
    }
    return ids_is_prefixed_uuid4(org, "org");
}

/* A slow volume keeps no place from other agents, and one that hangs nobody for long. */
static bool look(service *s, eye_look *l)
{
    bool is_seen;

    pool_wait_begin();
    is_seen = eye_look_at(s->eye, l);
    pool_wait_end();
    return is_seen;
}

static memfs_code admits(service *s, const http_request *rq, memfs_str agent_id, bool is_here,
                         bool *ret_is_seen, memfs_error *err)
{
    memfs_str org = organization(rq);
    eye_look l = { .is_here = is_here };

    snprintf(l.agent_id, sizeof(l.agent_id), "%.*s", (int)agent_id.len, agent_id.ptr);
    snprintf(l.org, sizeof(l.org), "%.*s", (int)org.len, org.ptr);
    *ret_is_seen = look(s, &l);
    if (!*ret_is_seen)
        return letta_folder_admits_unseen(s->folder, agent_id, org, err);
    *err = l.error;
    return l.code;
}

bool service_admits(app *self, http_request *rq, memfs_str agent_id, bool is_here)
{
    memfs_error err = MEMFS_ERROR_INIT;
    bool is_seen;

    if (!service_vouches(self->service, rq, agent_id) ||
        admits(self->service, rq, agent_id, is_here, &is_seen, &err) == MEMFS_OK)
        return true;
    if (app_principal(rq)->token_id[0] != '\0') /* it decides alone, and names no organization */
        return true;
    http_note(rq, "another organization's, or not the Letta server's");
    http_send_error(rq, &err);
    return false;
}

/* ---- in step ---- */

static memfs_code bring_in_step(app *self, memfs_str agent_id, int64_t budget_ms, memfs_error *err)
{
    memfs_code rc;

    pool_wait_begin(); /* a slow disk keeps no place from other agents */
    rc = mirror_letta(self->mirror, agent_id, clock_mono_ms() + budget_ms, err);
    pool_wait_end();
    return rc;
}

static memfs_code fail_hangs(memfs_error *err)
{
    return memfs_fail(err, MEMFS_EUNAVAIL, "the Letta server's volume does not answer");
}

static bool is_news(app *self, const eye_look *l)
{
    if (l->code == MEMFS_ECORRUPT)
        return true; /* it is being written */
    return l->code == MEMFS_OK &&
           !mirror_letta_is_known(self->mirror, str_of(l->agent_id), &l->tip) &&
           !is_ours(self->service, l->agent_id, &l->tip);
}

memfs_code service_look(app *self, memfs_str agent_id, memfs_error *err)
{
    eye_look l = { .is_here = false };

    if (self->service == NULL)
        return MEMFS_OK;
    snprintf(l.agent_id, sizeof(l.agent_id), "%.*s", (int)agent_id.len, agent_id.ptr);
    if (!look(self->service, &l))
        return fail_hangs(err);
    if (l.code == MEMFS_EUNAVAIL) { /* that says nothing of what is there */
        *err = l.error;
        return l.code;
    }
    if (!is_news(self, &l) || bring_in_step(self, agent_id, LOOK_MS, err) == MEMFS_OK)
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EUNAVAIL,
                      "the Letta server has a memory of this agent that could not be taken in yet; "
                      "'memfs mirror status' says why");
}

bool service_push_begin(app *self, const http_request *rq, memfs_str agent_id)
{
    bool is_relayed = service_vouches(self->service, rq, agent_id);

    if (is_relayed)
        reread_relay_begin(self->service->reread, agent_id);
    return is_relayed;
}

void service_push_end(app *self, memfs_str agent_id)
{
    reread_relay_end(self->service->reread, agent_id);
}

void service_push_told(app *self, memfs_str agent_id, bool is_told)
{
    reread_relay_told(self->service->reread, agent_id, is_told);
}

memfs_code service_publish(app *self, const http_request *rq, memfs_str agent_id, memfs_error *err)
{
    bool is_seen;

    if (!service_vouches(self->service, rq, agent_id))
        return MEMFS_OK; /* the mirror does it, as for a change by any other door */
    if (admits(self->service, rq, agent_id, false, &is_seen, err) == MEMFS_OK && is_seen)
        /* only now: who merely asked for an agent does not say whose it will be */
        (void)letta_folder_told(self->service->folder, agent_id, organization(rq));
    return is_seen ? bring_in_step(self, agent_id, PUBLISH_MS, err) : fail_hangs(err);
}
