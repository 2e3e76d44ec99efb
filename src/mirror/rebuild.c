/*
 * rebuild.c - mirror_rebuild: every agent that a remote has, brought to this machine.
 *
 *     which      the ids given; those that the remote is configured for; a plain path's folders; the
 *                names that the host's API lists, as far as they fit the remote's url
 *     each       one exchange, as if somebody had asked for it: an agent that is here and equal costs
 *                one question, so that a rebuild that was killed is begun again
 *
 * Agents are independent: some at a time, and what one of them meets is a finding and stops no
 * other.  Only where the remote, or the disk, fails again and again it gives up.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "mirror/fan.h"
#include "mirror/mirror_int.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGENT_MS 300000
#define LIST_MS 120000
#define N_THREADS 8
#define MAX_AGENTS 1000000
#define GIVE_UP_AFTER 16 /* failures in a row that are not one agent's */
#define PLACE "{agentId}"
/* stands for {agentId} in the address whose host is asked; no agent's */
#define SAMPLE_ID "agent-00000000-0000-4000-8000-000000000000"

typedef struct task {
    char agent_id[IDS_MAX_LEN + 1];
    bool was_known, is_known; /* before and after */
    bool was_lost;            /* known, but its folder was gone; begins again only if it may */
    memfs_oid tip;            /* of main, afterwards; zero: not to be had */
    memfs_code code;
    exchange_result result;
} task;

typedef struct rebuilding {
    mirror *m;
    remote_set *set;
    const remote_config *config;
    bool is_asked_for; /* by id: what is not there is a finding */
    bool may_revive;   /* by the operator, just now: what is lost begins again (H4) */
    const upkeep_watcher *w;
    upkeep_result *ret;
    char (*ids)[IDS_MAX_LEN + 1];
    size_t n_ids, cap_ids;
    task *tasks;
    size_t n_told, n_in_row;
    char given_up[400]; /* the trouble of all; "" */
    memfs_code why;
} rebuilding;

/* ---- which ids ---- */

static void add_id(rebuilding *r, memfs_str id)
{
    char text[IDS_MAX_LEN + 1];

    if (!ids_is_agent(id) || r->n_ids == MAX_AGENTS)
        return;
    snprintf(text, sizeof(text), "%.*s", (int)id.len, id.ptr);
    if (!remote_is_for(r->config, text))
        return;
    if (r->n_ids == r->cap_ids) {
        r->cap_ids = r->cap_ids > 0 ? 2 * r->cap_ids : 64;
        r->ids = mem_realloc(r->ids, r->cap_ids, sizeof(*r->ids));
    }
    memcpy(r->ids[r->n_ids++], text, sizeof(text));
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void sort_ids(rebuilding *r)
{
    size_t n = 0;

    if (r->n_ids > 0)
        qsort(r->ids, r->n_ids, sizeof(*r->ids), compare_ids);
    for (size_t i = 0; i < r->n_ids; i++)
        if (n == 0 || strcmp(r->ids[n - 1], r->ids[i]) != 0)
            memmove(r->ids[n++], r->ids[i], sizeof(*r->ids));
    r->n_ids = n;
}

/* The part of the url, between slashes, that names the agent. */
typedef struct template {
    memfs_str before;         /* up to and with the slash */
    memfs_str prefix, suffix; /* of the part, around {agentId} */
    memfs_str after;          /* from the slash on, or empty */
} template;

static bool split_template(const char *url, template *ret)
{
    const char *place = strstr(url, PLACE), *start, *end;

    if (place == NULL)
        return false;
    for (start = place; start > url && start[-1] != '/' && start[-1] != ':';)
        start--;
    end = strchr(place, '/');
    if (end == NULL)
        end = place + strlen(place);
    ret->before = str_make(url, (size_t)(start - url));
    ret->prefix = str_make(start, (size_t)(place - start));
    ret->suffix = str_make(place + strlen(PLACE), (size_t)(end - place) - strlen(PLACE));
    ret->after = str_of(end);
    return true;
}

/* "agent-….git" of ".../{agentId}.git" */
static void add_name(rebuilding *r, memfs_str name, memfs_str prefix, memfs_str suffix)
{
    if (name.len <= prefix.len + suffix.len || !str_starts_with(name, prefix) ||
        !str_ends_with(name, suffix))
        return;
    add_id(r, str_make(name.ptr + prefix.len, name.len - prefix.len - suffix.len));
}

static memfs_code list_folder(rebuilding *r, const template *t, memfs_error *err)
{
    memfs_str scheme = MEMFS_STR("file://");
    memfs_str folder = str_starts_with(t->before, scheme) ? str_from(t->before, scheme.len)
                                                          : t->before;
    _cleanup_(mem_freep) char *path = mem_strndup(folder.ptr, folder.len);
    DIR *dir = opendir(path);
    struct dirent *e;

    if (dir == NULL)
        return memfs_fail_errno(err, "could not list the folder of remote '%s'", r->config->name);
    while ((e = readdir(dir)) != NULL)
        add_name(r, str_of(e->d_name), t->prefix, t->suffix);
    closedir(dir);
    return MEMFS_OK;
}

typedef struct listing {
    rebuilding *r;
    memfs_str prefix, suffix;
} listing;

static bool on_repository(memfs_str name, void *ctx)
{
    listing *l = ctx;

    add_name(l->r, name, l->prefix, l->suffix);
    return !mirror_is_stopping(l->r->m);
}

static memfs_code cannot_list(const rebuilding *r, const char *why, memfs_error *err)
{
    return memfs_fail(err, MEMFS_EINVALID, "remote '%s' cannot be asked whose memories it has: %s; "
                                           "list the ids (--agents FILE)",
                      r->config->name, why);
}

/* Hosts list names without ".git". */
static memfs_code list_host(rebuilding *r, const template *t, memfs_error *err)
{
    _cleanup_(remote_target_dispose) remote_target target = REMOTE_TARGET_INIT;
    int64_t deadline_ms = clock_mono_ms() + LIST_MS;
    listing l = { r, t->prefix, t->suffix };
    host_answer answer = { .http_status = 0 };
    host h = HOST_INIT;
    memfs_code rc;

    if (t->after.len > 0)
        return cannot_list(r, "its url does not end with the agent", err);
    if (str_ends_with(l.suffix, MEMFS_STR(".git")))
        l.suffix.len -= 4;
    rc = remote_config_target(r->set->r, r->config, SAMPLE_ID, &target, err);
    if (rc == MEMFS_OK)
        rc = host_find(&target, r->config->kind, deadline_ms, &h, &answer, err);
    if (rc == MEMFS_OK && h.kind == HOST_PLAIN)
        rc = cannot_list(r, "its host has no API that memfs knows", err);
    else if (rc == MEMFS_OK)
        rc = host_list(&h, deadline_ms, on_repository, &l, &answer, err);
    if (rc < 0 && answer.words[0] != '\0')
        rc = memfs_fail(err, rc, "remote '%s': %s", r->config->name, answer.words);
    host_dispose(&h);
    return rc;
}

static bool add_from_folder(const char *agent_id, const char *path, void *ctx)
{
    (void)path;
    add_id(ctx, str_of(agent_id));
    return true;
}

static memfs_code find_ids(rebuilding *r, const char *const *ids, size_t n_ids, memfs_error *err)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    _cleanup_(mem_freep) char *text = NULL;
    template t;
    memfs_code rc;

    r->may_revive = ids != NULL;
    r->is_asked_for = ids != NULL || r->config->agents != NULL;
    for (size_t i = 0; ids != NULL && i < n_ids; i++)
        add_id(r, str_of(ids[i]));
    for (size_t i = 0; ids == NULL && r->config->agents != NULL && r->config->agents[i] != NULL;
         i++)
        add_id(r, str_of(r->config->agents[i]));
    if (r->is_asked_for)
        return MEMFS_OK;
    if (r->config->folder != NULL) {
        letta_folder_each(r->config->folder, add_from_folder, r);
        return MEMFS_OK;
    }
    rc = url_expand(r->config->url, SAMPLE_ID, &text, err);
    if (rc == MEMFS_OK)
        rc = url_parse(text, &url, err);
    if (rc < 0)
        return rc;
    if (!split_template(r->config->url, &t))
        return cannot_list(r, "its url has no {agentId}", err);
    if (url.kind == URL_PATH)
        return list_folder(r, &t, err);
    return url.kind == URL_SSH ? cannot_list(r, "ssh lists nothing", err) : list_host(r, &t, err);
}

/* ---- one agent, on any thread ---- */

static bool is_known(mirror *m, const char *agent_id)
{
    memfs_error ignored;
    bool known = false;

    return state_agent_known(home_state(mirror_home(m)), str_of(agent_id), &known, &ignored) ==
               MEMFS_OK && known;
}

static bool is_lost(mirror *m, const char *agent_id)
{
    memfs_error ignored;
    agent *lost;

    return home_agent_lost(mirror_home(m), str_of(agent_id), &lost, &ignored) == MEMFS_OK;
}

static memfs_oid tip_of(mirror *m, const char *agent_id)
{
    home *h = mirror_home(m);
    memfs_oid tip = { { 0 } };
    memfs_error ignored;
    agent *a;

    if (home_agent_repo(h, str_of(agent_id), &a, &ignored) < 0 ||
        store_tip(home_store(h), agent_repo(a), &tip, &ignored) < 0)
        memset(&tip, 0, sizeof(tip));
    return tip;
}

static memfs_code exchange_one(rebuilding *r, task *t, memfs_error *err)
{
    int64_t deadline_ms = clock_mono_ms() + AGENT_MS;
    unsigned wants = WANT_LOOK | WANT_NOW | (t->was_known ? 0 : WANT_WHOLE);

    if (t->was_lost && r->may_revive)
        return mirror_exchange_keeping(r->m, str_of(t->agent_id), r->config->name, INTAKE_REVIVE,
                                       deadline_ms, &t->result, err);
    return mirror_exchange(r->m, str_of(t->agent_id), r->config->name, wants, deadline_ms,
                           &t->result, err);
}

static void bring(size_t i, void *ctx)
{
    rebuilding *r = ctx;
    task *t = &r->tasks[i];
    memfs_error err = MEMFS_ERROR_INIT;

    memcpy(t->agent_id, r->ids[i], sizeof(t->agent_id));
    t->was_known = is_known(r->m, t->agent_id);
    t->was_lost = t->was_known && is_lost(r->m, t->agent_id);
    t->code = exchange_one(r, t, &err);
    if (t->code < 0)
        snprintf(t->result.failure, sizeof(t->result.failure), "%.399s", err.msg);
    else
        t->code = t->result.code;
    t->is_known = is_known(r->m, t->agent_id);
    if (t->is_known)
        t->tip = tip_of(r->m, t->agent_id);
}

/* ---- telling ---- */

static void say(rebuilding *r, const task *t, const char *kind, const char *text, bool is_bad)
{
    r->ret->n_findings += is_bad;
    if (r->w->finding != NULL)
        r->w->finding(t->agent_id, kind, r->config->name, text, r->w->ctx);
}

/* Of the remote, or of the disk here. */
static bool is_of_all(const task *t)
{
    const remote_class *c = remote_class_of(t->result.answer);

    return t->code == MEMFS_ENOSPACE ||
           (t->code < 0 && t->result.answer != REMOTE_NOT_FOUND &&
            (c->is_credentials || c->retry == RETRY_BACKOFF));
}

static memfs_code why_it_failed(const task *t)
{
    memfs_code code = remote_class_of(t->result.answer)->code;

    return t->code == MEMFS_ENOSPACE ? t->code : code != MEMFS_OK ? code : MEMFS_EUNAVAIL;
}

static void say_brought(rebuilding *r, const task *t, const char *kind, const char *what)
{
    char hex[MEMFS_OID_HEX + 1], text[128];

    oid_hex(&t->tip, hex);
    snprintf(text, sizeof(text), "%s%.10s", what, hex);
    say(r, t, kind, text, false);
}

static void judge(rebuilding *r, const task *t)
{
    if (t->was_lost && !r->may_revive) {
        r->ret->n_failed++;
        say(r, t, "lost", "it was here, and its folder is gone; if the disk is the right one, the "
                          "same command with --agent begins it again from the remote", true);
    } else if (t->code < 0 && t->result.answer != REMOTE_NOT_FOUND) {
        r->ret->n_failed++;
        say(r, t, "failed", t->result.failure, true);
    } else if (!t->is_known) {
        say(r, t, "not-there", t->code < 0 ? t->result.failure : "the remote has no memory of it yet",
            r->is_asked_for);
    } else if (t->was_lost && oid_is_zero(&t->tip)) {
        say(r, t, "not-there", "its folder is gone, and the remote has no memory of it", true);
    } else if (t->was_lost) {
        say_brought(r, t, "revived", "its folder was gone; it begins again, main is at ");
    } else if (!t->was_known) {
        say_brought(r, t, "brought", "main is at ");
    } else if (t->result.was_moved) {
        say(r, t, "joined", "was here, with less than the remote has", false);
    }
}

static bool tell(size_t i, void *ctx)
{
    rebuilding *r = ctx;
    const task *t = &r->tasks[i];

    r->n_told++;
    r->ret->n_agents += t->is_known;
    r->n_in_row = is_of_all(t) ? r->n_in_row + 1 : 0;
    judge(r, t);
    if (r->n_in_row >= GIVE_UP_AFTER || (r->n_in_row > 0 && r->n_told == r->n_in_row &&
                                         r->n_told == r->n_ids)) {
        r->why = why_it_failed(t);
        snprintf(r->given_up, sizeof(r->given_up), "%s", t->result.failure);
    }
    if (r->w->progress != NULL && !r->w->progress(r->n_told, r->n_ids, t->agent_id, r->w->ctx))
        return false;
    return r->given_up[0] == '\0' && !mirror_is_stopping(r->m);
}

static memfs_code run(rebuilding *r, memfs_error *err)
{
    sort_ids(r);
    r->tasks = mem_alloc((r->n_ids + 1) * sizeof(*r->tasks));
    fan_out(r->n_ids, N_THREADS, bring, tell, r);
    if (r->given_up[0] == '\0')
        return MEMFS_OK;
    return memfs_fail(err, r->why,
                      "given up after %zu of %zu agents: %s; what is here is whole, run it again to "
                      "go on", r->n_told, r->n_ids, r->given_up);
}

/* NULL: the one that there is, or the first that is read. */
static const remote_config *choose(const remote_set *set, const char *remote)
{
    if (remote != NULL && remote[0] != '\0')
        return remote_set_find(set, remote);
    for (size_t i = 0; i < set->r->n; i++)
        if (set->r->at[i].direction != REMOTE_PUSH)
            return &set->r->at[i];
    return NULL;
}

memfs_code mirror_rebuild(mirror *m, const char *remote, const char *const *ids, size_t n_ids,
                          const upkeep_watcher *w, upkeep_result *ret, memfs_error *err)
{
    rebuilding r = { .m = m, .set = mirror_remotes(m), .w = w, .ret = ret };
    memfs_code rc = MEMFS_OK;

    *ret = (upkeep_result){ .n_agents = 0 };
    r.config = choose(r.set, remote);
    if (r.config == NULL && (remote == NULL || remote[0] == '\0'))
        rc = memfs_fail(err, MEMFS_ENOTFOUND, "no remote is configured to rebuild from: 'memfs "
                                              "mirror add' adds one");
    else if (r.config == NULL)
        rc = memfs_fail(err, MEMFS_ENOTFOUND, "there is no remote '%.40s' to rebuild from: 'memfs "
                                              "mirror list' shows those that there are", remote);
    else if (r.config->direction == REMOTE_PUSH)
        rc = memfs_fail(err, MEMFS_EINVALID, "remote '%s' is push-only, it is never read: set its "
                                             "direction to both or pull first", r.config->name);
    if (rc == MEMFS_OK)
        rc = find_ids(&r, ids, n_ids, err);
    if (rc == MEMFS_OK)
        rc = run(&r, err);
    mirror_remotes_unref(m, r.set);
    free(r.ids);
    free(r.tasks);
    return rc;
}
