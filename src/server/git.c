/*
 * git.c - smart HTTP: what git asks of a repository that an agent's id names, and of the shared
 * ones that it has links to (http-api 2, 8.4).
 *
 * Here is which repository that is, and its refs: two lines that we read ourselves, so info/refs is
 * answered in process.  Packs out of it are git_fetch.c's, packs into it git_push.c's.
 *
 *     agent            refs          fetch              push
 *     on a remote      is brought here first, within MEET_MS, then as known
 *     unknown          the genesis   the genesis        makes the repository
 *     deleted          404           404                404, until it is brought back
 *     a Letta server's, not yet taken in: 503           is joined with it
 *     unknown, and Letta's tables cannot be asked: 503  the same, when they can
 *     known, there     main          from it            onto it
 *     known, missing   503           503                503 (H4: nothing is ever made up)
 */
#include "server/git_int.h"

#include "base/pool.h"
#include "memory/ids.h"
#include "server/service.h"
#include "server/shared.h"

#include <stdio.h>

#define MEET_MS 2000 /* a look at the remotes for an id that nobody here knows (design 5) */

/* ---- which repository ---- */

bool git_check_id(http_request *rq, memfs_str *ret)
{
    *ret = http_param(rq, "agent");
    if (ids_is_memory(*ret))
        return true;
    http_send_detail(rq, 400,
                     "INVALID_ARGUMENT: Invalid agent ID format: %.*s. Expected format: "
                     "'agent-<uuid4>'",
                     (int)(ret->len < 200 ? ret->len : 200), ret->ptr);
    return false;
}

/* Of {agent} alone, or with {name}, which is "<name>.git". */
bool git_find_memory(http_request *rq, app *a, bool is_push, git_memory *ret)
{
    shared_target found;
    memfs_str id;

    ret->is_shared = http_param(rq, "name").len > 0 || ids_is_shared(http_param(rq, "agent"));
    if (ret->is_shared) {
        if (!shared_find_git(rq, a, is_push, &found))
            return false;
        memcpy(ret->id, found.id, sizeof(ret->id));
        return true;
    }
    if (!git_check_id(rq, &id))
        return false;
    snprintf(ret->id, sizeof(ret->id), "%.*s", (int)id.len, id.ptr);
    return true;
}

static memfs_code read_tip(app *a, agent *known, git_target *ret, memfs_error *err)
{
    memfs_code rc;

    ret->name = agent_repo(known);
    rc = store_tip(home_store(a->home), ret->name, &ret->tip, err);
    if (rc == MEMFS_ENOTFOUND) /* it vanished since home_agent_repo() looked */
        return memfs_fail(err, MEMFS_EUNAVAIL, "the repository of this agent is not there");
    return rc;
}

/*
 * ENOTFOUND: neither here nor, as far as that could be found out in time, on a remote or in Letta's
 * tables; of those *unmet says EUNAVAIL if they may have it.  On a worker: it may wait for the
 * network.
 */
static memfs_code look_for(app *a, memfs_str id, agent **ret, memfs_error *unmet, memfs_error *err)
{
    memfs_code rc = home_agent_repo(a->home, id, ret, err);
    char text[IDS_MAX_LEN + 1];
    bool is_met = false;

    if (rc != MEMFS_ENOTFOUND)
        return rc;
    snprintf(text, sizeof(text), "%.*s", (int)id.len, id.ptr);
    pool_wait_begin(); /* a slow host keeps no place from other agents (L3) */
    if (mirror_has_remotes(a->mirror))
        is_met = mirror_meet(a->mirror, text, MEET_MS);
    if (!is_met)
        is_met = home_letta_meet(a->home, id, unmet) == MEMFS_OK;
    pool_wait_end();
    return is_met ? home_agent_repo(a->home, id, ret, err) : rc;
}

/* False: the answer is given. */
static bool is_not_deleted(http_request *rq, const app *a, memfs_str id)
{
    if (!home_is_deleted(a->home, id))
        return true;
    http_send_detail(rq, 404, "Agent with ID %.*s not found", (int)id.len, id.ptr);
    return false;
}

bool git_may_push(http_request *rq, app *a, const git_memory *m)
{
    memfs_str id = str_of(m->id);
    memfs_error unmet, ignored;
    agent *known;

    if (!m->is_shared && !is_not_deleted(rq, a, id))
        return false;
    return m->is_shared || !service_vouches(a->service, rq, id) ||
           service_admits(a, rq, id, look_for(a, id, &known, &unmet, &ignored) != MEMFS_ENOTFOUND);
}

/* Nobody else can have it; before its first commit it is the genesis, as any memory is. */
static bool find_shared(http_request *rq, app *a, memfs_str id, git_target *ret)
{
    memfs_error err = MEMFS_ERROR_INIT;
    agent *known;
    memfs_code rc = home_agent_repo(a->home, id, &known, &err);

    if (rc == MEMFS_OK)
        rc = read_tip(a, known, ret, &err);
    if (rc == MEMFS_OK)
        return true;
    *ret = (git_target){ NULL, STORE_GENESIS };
    if (rc != MEMFS_ENOTFOUND)
        http_send_error(rq, &err);
    return rc == MEMFS_ENOTFOUND;
}

/* is_push: begins a memory while Letta's database is away, and is joined with its rows (F22). */
static bool find_target(http_request *rq, app *a, bool is_push, git_target *ret)
{
    memfs_error err = MEMFS_ERROR_INIT, unseen = MEMFS_ERROR_INIT, unmet = MEMFS_ERROR_INIT;
    git_memory memory;
    agent *known;
    memfs_str id;
    memfs_code rc, looked;

    if (!git_find_memory(rq, a, is_push, &memory))
        return false;
    id = str_of(memory.id);
    if (memory.is_shared)
        return find_shared(rq, a, id, ret);
    if (!is_not_deleted(rq, a, id))
        return false;
    looked = service_look(a, id, &unseen);
    rc = look_for(a, id, &known, &unmet, &err);
    if (!service_admits(a, rq, id, rc != MEMFS_ENOTFOUND))
        return false;
    if (rc == MEMFS_OK)
        rc = read_tip(a, known, ret, &err);
    if (rc == MEMFS_ENOTFOUND && looked < 0) {
        rc = looked; /* an empty memory would be taken for its own */
        err = unseen;
    }
    if (rc == MEMFS_ENOTFOUND && unmet.code == MEMFS_EUNAVAIL && !is_push) {
        rc = unmet.code; /* for the same reason */
        err = unmet;
    }
    if (rc == MEMFS_ENOTFOUND) {
        *ret = (git_target){ NULL, STORE_GENESIS };
        rc = MEMFS_OK;
    }
    if (rc < 0)
        http_send_error(rq, &err);
    return rc == MEMFS_OK;
}

bool git_find_target(http_request *rq, app *a, git_target *ret)
{
    return find_target(rq, a, false, ret);
}

/*
 * Another server holds its agent's lock while it asks, and so may we while we ask it: nothing here
 * waits for a lock, or for a third server.  Which commit it wants it knows from the database.
 */
bool git_find_own(http_request *rq, app *a, git_target *ret)
{
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_str id;
    memfs_code rc;

    if (!git_check_id(rq, &id))
        return false;
    rc = home_agent_own_repo(a->home, id, &ret->name, &err);
    if (rc == MEMFS_OK)
        rc = store_tip(home_store(a->home), ret->name, &ret->tip, &err);
    if (rc == MEMFS_ENOTFOUND)
        http_send_detail(rq, 404, "There is no repository of this agent on this server");
    else if (rc < 0)
        http_send_error(rq, &err);
    return rc == MEMFS_OK;
}

/* ---- info/refs ---- */

/* False: the answer is given. */
static bool find_service(http_request *rq, git_service *ret)
{
    memfs_str name, again;

    if (!http_query(rq, "service", &name)) {
        http_send_detail(rq, 403, "The dumb HTTP protocol is not served: please upgrade git");
        return false;
    }
    if (http_query_at(rq, "service", 1, &again)) {
        http_send_detail(rq, 400, "service is given twice");
        return false;
    }
    if (!git_service_parse(name, ret)) {
        http_send_detail(rq, 403, "This service is not served");
        return false;
    }
    return true;
}

bool git_asks_to_push(const http_request *rq)
{
    git_service service;
    memfs_str name;

    return http_query(rq, "service", &name) && git_service_parse(name, &service) &&
           service == GIT_RECEIVE_PACK;
}

static void answer_refs(http_request *rq, git_service service, const memfs_oid *tip)
{
    char type[64];

    if (service == GIT_UPLOAD_PACK && git_protocol_version(http_header(rq, "Git-Protocol")) == 2)
        git_advertise_v2(http_out(rq));
    else
        git_advertise_refs(http_out(rq), service, tip);
    git_send_no_cache(rq);
    snprintf(type, sizeof(type), "application/x-%s-advertisement", git_service_name(service));
    http_send(rq, 200, type);
}

bool git_find_at_hand(http_request *rq, app *a, git_target *ret)
{
    memfs_error err;
    agent *known;

    return ids_is_agent(http_param(rq, "agent")) &&
           http_param(rq, "name").len == 0 && /* else links are asked */
           a->service == NULL &&              /* else what it wrote is looked for first */
           !home_is_shared(a->home) &&
           home_agent_at_hand(a->home, http_param(rq, "agent"), &known) &&
           read_tip(a, known, ret, &err) == MEMFS_OK;
}

bool git_info_refs_quick(http_request *rq, void *arg)
{
    git_target target;
    git_service service;

    if (!git_find_at_hand(rq, arg, &target))
        return false;
    if (find_service(rq, &service))
        answer_refs(rq, service, &target.tip);
    return true;
}

void peer_info_refs(http_request *rq, void *arg)
{
    git_target target;
    git_service service;

    if (!find_service(rq, &service))
        return;
    if (service != GIT_UPLOAD_PACK)
        http_send_detail(rq, 403, "This service is not served");
    else if (git_find_own(rq, arg, &target))
        answer_refs(rq, service, &target.tip);
}

void peer_keep(http_request *rq, void *arg)
{
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_str id, text;
    memfs_oid commit;
    uint64_t from = 0;
    app *a = arg;

    if (!git_check_id(rq, &id))
        return;
    if (http_query(rq, "from", &text) && !str_to_u64(text, INT64_MAX, &from))
        http_send_detail(rq, 400, "This is not the number of a server");
    else if (!oid_parse(http_param(rq, "id"), &commit))
        http_send_detail(rq, 400, "This is not the id of a commit");
    else if (!home_is_named(a->home, http_param(rq, "server")))
        http_send_detail(rq, 421, "Another server is meant");
    else if (home_agent_keeps(a->home, id, &commit, (int64_t)from, &err) < 0)
        http_send_error(rq, &err);
    else
        http_send_detail(rq, 200, "It is here");
}

void git_info_refs(http_request *rq, void *arg)
{
    git_target target;
    git_service service;

    if (find_service(rq, &service) && find_target(rq, arg, service == GIT_RECEIVE_PACK, &target))
        answer_refs(rq, service, &target.tip);
}

/* ---- requests and answers ---- */

void git_send_no_cache(http_request *rq)
{
    http_set_header(rq, "Cache-Control", "no-cache");
}

bool git_check_type(http_request *rq, git_service service)
{
    const char *given = http_header(rq, "Content-Type");
    char wanted[64];

    snprintf(wanted, sizeof(wanted), "application/x-%s-request", git_service_name(service));
    if (given == NULL || strcmp(given, wanted) == 0)
        return true;
    http_send_detail(rq, 415, "The body must be %s", wanted);
    return false;
}

void git_send_fault(http_request *rq)
{
    memfs_error err;

    http_stream_fault(rq, &err);
    http_send_error(rq, &err);
}
