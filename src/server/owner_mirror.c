/*
 * owner_mirror.c - the remotes, asked about and worked on over the home's own socket (teller.h).
 *
 *     /owner/mirror/status    {"row":{…}} for each agent and remote, then how many are in which state
 *     /owner/mirror/remotes   {"remote":{…}} for each that is configured
 *     /owner/mirror/reload    the configuration is read anew, as on SIGHUP; "forget": what is known of
 *                             a remote goes, if it is in there no more
 *     /owner/mirror/sync      one agent with its remotes, now: what sync-from-git does
 *     /owner/mirror/retry, resolve, verify, rebuild, check     mirror.h
 *     /owner/restore          sync/intake.h
 *
 * Texts of rows came from remotes once: the mirror has escaped and redacted them (T20, T24).
 */
#include "base/clock.h"
#include "base/mem.h"
#include "memory/ids.h"
#include "server/teller.h"
#include "sync/intake.h"

#include <string.h>

#define SYNC_DEADLINE_MS 120000
/* stands for {agentId} where a remote is looked at for no agent in particular; no agent's */
#define SAMPLE_ID "agent-00000000-0000-4000-8000-000000000000"

/* ---- what requests have in common ---- */

/* A command's own server starts with a configuration that cannot be read, too; this is its word. */
static memfs_code check_mirror(const app *self, memfs_error *err)
{
    if (self->remotes_fault[0] == '\0')
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EINVALID, "%s", self->remotes_fault);
}

typedef struct finder {
    const char *name;
    bool is_there;
} finder;

static void find_remote(const remotes *r, void *ctx)
{
    finder *f = ctx;

    for (size_t i = 0; i < r->n; i++)
        f->is_there |= strcmp(r->at[i].name, f->name) == 0;
}

/* "remote": NULL when it is not said. */
static memfs_code remote_field(app *self, const json_t *request, const char **ret,
                               memfs_error *err)
{
    memfs_str name = { "", 0 };
    finder f = { NULL, false };
    memfs_code rc = check_mirror(self, err);

    *ret = NULL;
    if (rc == MEMFS_OK)
        rc = teller_text(request, "remote", &name, err);
    if (rc < 0 || name.len == 0)
        return rc;
    if (memchr(name.ptr, '\0', name.len) != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "'remote' is not the name of a remote");
    f.name = *ret = name.ptr;
    mirror_with_remotes(self->mirror, find_remote, &f);
    return f.is_there ? MEMFS_OK
                      : memfs_fail(err, MEMFS_ENOTFOUND, "there is no remote '%.64s'", name.ptr);
}

/* "agent" and "remote", both or neither. */
static memfs_code target_fields(app *self, const json_t *request, memfs_str *ret_agent,
                                const char **ret_remote, memfs_error *err)
{
    memfs_code rc = teller_agent(request, ret_agent, err);

    return rc == MEMFS_OK ? remote_field(self, request, ret_remote, err) : rc;
}

static memfs_code one_agent(const json_t *request, memfs_str *ret, memfs_error *err)
{
    memfs_code rc = teller_agent(request, ret, err);

    if (rc == MEMFS_OK && ret->len == 0)
        return memfs_fail(err, MEMFS_EINVALID, "'agent' is missing");
    return rc;
}

static void put_time(json_writer *w, const char *key, int64_t wall_us)
{
    char text[CLOCK_ISO_LEN];

    if (wall_us == 0) {
        jw_key_null(w, key);
        return;
    }
    clock_iso(wall_us, text);
    jw_key_text(w, key, text);
}

static void put_oid(json_writer *w, const char *key, const memfs_oid *id)
{
    char hex[MEMFS_OID_HEX + 1];

    if (oid_is_zero(id)) {
        jw_key_null(w, key);
        return;
    }
    oid_hex(id, hex);
    jw_key_text(w, key, hex);
}

static void put_text(json_writer *w, const char *key, const char *text)
{
    jw_key_text(w, key, text != NULL && text[0] != '\0' ? text : NULL);
}

/* ---- status ---- */

typedef struct counted_state {
    const char *name;
    bool is_trouble; /* somebody should look */
} counted_state;

static const counted_state STATES[] = {
    { "mirrored", false }, { "behind", false },     { "waiting", false }, { "new", false },
    { "failing", true },   { "auth-failed", true }, { "missing", true },  { "held", true },
};

typedef struct status_job {
    teller *t;
    const char *remote; /* NULL: all */
    bool only_trouble;
    int64_t now_us;
    size_t n_rows, n_trouble, n_notes;
    size_t n_by_state[ARRAY_LEN(STATES)];
    int64_t oldest_us; /* of all rows; 0: everything is mirrored */
} status_job;

/* A merge that was decided by rule is worth a look, and no trouble. */
static bool is_trouble(const mirror_row *row)
{
    for (size_t i = 0; i < ARRAY_LEN(STATES); i++)
        if (strcmp(STATES[i].name, row->state) == 0 && STATES[i].is_trouble)
            return true;
    return row->note != MIRROR_NOTE_NONE && row->note != MIRROR_NOTE_BY_RULE;
}

static void count_row(status_job *job, const mirror_row *row)
{
    job->n_rows++;
    job->n_trouble += is_trouble(row);
    job->n_notes += row->note != MIRROR_NOTE_NONE;
    for (size_t i = 0; i < ARRAY_LEN(STATES); i++)
        job->n_by_state[i] += strcmp(STATES[i].name, row->state) == 0;
    if (row->oldest_unmirrored_us != 0 &&
        (job->oldest_us == 0 || row->oldest_unmirrored_us < job->oldest_us))
        job->oldest_us = row->oldest_unmirrored_us;
}

/* Seconds since; never negative, whatever the clock did (H7). */
static void put_age(json_writer *w, const char *key, int64_t now_us, int64_t since_us)
{
    int64_t s = (now_us - since_us) / 1000000;

    if (since_us == 0)
        jw_key_null(w, key);
    else
        jw_key_int(w, key, s > 0 ? s : 0);
}

/* Equal tips need no counting. */
static void put_counts(json_writer *w, const mirror_row *row)
{
    bool is_equal = !oid_is_zero(&row->local_tip) && oid_equal(&row->local_tip, &row->remote_tip);

    if (row->is_counted || is_equal) {
        jw_key_int(w, "ahead", is_equal ? 0 : (int64_t)row->n_ahead);
        jw_key_int(w, "behind", is_equal ? 0 : (int64_t)row->n_behind);
    } else {
        jw_key_null(w, "ahead");
        jw_key_null(w, "behind");
    }
}

static void put_row(json_writer *w, const mirror_row *row, int64_t now_us)
{
    jw_key_text(w, "agent", row->agent_id);
    jw_key_text(w, "remote", row->remote);
    jw_key_text(w, "address", row->address);
    jw_key_text(w, "direction", remote_direction_name(row->direction));
    jw_key_text(w, "state", row->state);
    jw_key_bool(w, "is_trouble", is_trouble(row));
    put_oid(w, "local_tip", &row->local_tip);
    put_oid(w, "remote_tip", &row->remote_tip);
    put_counts(w, row);
    put_time(w, "seen_at", row->seen_at_us);
    put_time(w, "pushed_at", row->pushed_at_us);
    put_age(w, "pushed_s", now_us, row->pushed_at_us);
    put_time(w, "proof_at", row->proof_at_us);
    put_time(w, "unmirrored_since", row->oldest_unmirrored_us);
    put_age(w, "unmirrored_s", now_us, row->oldest_unmirrored_us);
    put_time(w, "next_try_at", row->next_try_us);
    put_age(w, "next_try_s", row->next_try_us, row->next_try_us != 0 ? now_us : 0);
    jw_key_int(w, "failures", row->n_failures);
    put_text(w, "failure", row->failure);
    put_text(w, "advice", row->advice);
    put_text(w, "note", row->note != MIRROR_NOTE_NONE ? mirror_note_name(row->note) : NULL);
    put_text(w, "note_text", row->note_text);
    put_text(w, "note_advice",
             row->note != MIRROR_NOTE_NONE ? mirror_note_advice(row->note) : NULL);
    put_time(w, "note_at", row->note_at_us);
}

static bool tell_row(const mirror_row *row, void *ctx)
{
    status_job *job = ctx;
    json_writer w;

    if (job->remote != NULL && strcmp(job->remote, row->remote) != 0)
        return true;
    count_row(job, row);
    if (job->only_trouble && !is_trouble(row))
        return true;
    w = teller_begin(job->t, "row");
    put_row(&w, row, job->now_us);
    teller_end(job->t, &w);
    return teller_is_heard(job->t);
}

static void count_remotes(const remotes *r, void *ctx)
{
    *(size_t *)ctx = r->n;
}

static void tell_states(const status_job *job, size_t n_remotes)
{
    json_writer w = teller_begin(job->t, "result");

    jw_key_int(&w, "remotes", (int64_t)n_remotes);
    jw_key_int(&w, "rows", (int64_t)job->n_rows);
    jw_key_int(&w, "trouble", (int64_t)job->n_trouble);
    jw_key_int(&w, "notes", (int64_t)job->n_notes);
    jw_key(&w, "states");
    jw_object(&w);
    for (size_t i = 0; i < ARRAY_LEN(STATES); i++)
        jw_key_int(&w, STATES[i].name, (int64_t)job->n_by_state[i]);
    jw_object_end(&w);
    put_time(&w, "unmirrored_since", job->oldest_us);
    put_age(&w, "unmirrored_s", job->now_us, job->oldest_us);
    teller_end(job->t, &w);
}

static memfs_code status(app *self, const json_t *request, teller *t, memfs_error *err)
{
    status_job job = { .t = t, .now_us = clock_wall_us() };
    bool should_count = false;
    memfs_str agent_id;
    size_t n_remotes = 0;
    memfs_code rc;

    rc = target_fields(self, request, &agent_id, &job.remote, err);
    if (rc == MEMFS_OK)
        rc = teller_flag(request, "trouble", &job.only_trouble, err);
    if (rc == MEMFS_OK)
        rc = teller_flag(request, "count", &should_count, err);
    if (rc == MEMFS_OK)
        rc = mirror_status(self->mirror, agent_id, should_count, tell_row, &job, err);
    if (rc < 0)
        return rc;
    mirror_with_remotes(self->mirror, count_remotes, &n_remotes);
    tell_states(&job, n_remotes);
    return MEMFS_OK;
}

/* ---- remotes ---- */

static void put_agents(json_writer *w, char *const *agents)
{
    jw_key(w, "agents");
    if (agents == NULL) {
        jw_null(w);
        return;
    }
    jw_array(w);
    for (size_t i = 0; agents[i] != NULL; i++)
        jw_text(w, agents[i]);
    jw_array_end(w);
}

/* Which credential the next exchange would take, or why there would be none. */
static void put_credential(json_writer *w, const remotes *r, const remote_config *c)
{
    _cleanup_(remote_target_dispose) remote_target target = REMOTE_TARGET_INIT;
    const char *agent_id = c->agents != NULL ? c->agents[0] : SAMPLE_ID;
    memfs_error err = MEMFS_ERROR_INIT;

    if (remote_config_target(r, c, agent_id, &target, &err) < 0) {
        jw_key_null(w, "credential");
        jw_key_text(w, "fault", err.msg);
        return;
    }
    jw_key_text(w, "credential", credential_source_name(target.cred.source));
    jw_key_null(w, "fault");
}

static void tell_remotes(const remotes *r, void *ctx)
{
    for (size_t i = 0; i < r->n; i++) {
        const remote_config *c = &r->at[i];
        json_writer w = teller_begin(ctx, "remote");

        jw_key_text(&w, "name", c->name);
        jw_key_text(&w, "url", c->url);
        jw_key_text(&w, "direction", remote_direction_name(c->direction));
        jw_key_text(&w, "kind", c->kind != HOST_UNKNOWN ? host_kind_name(c->kind) : NULL);
        put_agents(&w, c->agents);
        jw_key_bool(&w, "create", c->create);
        jw_key_bool(&w, "allow_http", c->allow_http);
        jw_key_int(&w, "poll_s", c->poll_s);
        jw_key_text(&w, "username", c->username);
        put_credential(&w, r, c);
        jw_key_text(&w, "token_file", c->token_file);
        jw_key_text(&w, "ca_file", c->ca_file);
        jw_key_text(&w, "ssh_key", c->ssh_key);
        jw_key_text(&w, "ssh_known_hosts", c->ssh_known_hosts);
        jw_key_text(&w, "webhook_secret_file", c->webhook_secret_file);
        teller_end(ctx, &w);
    }
}

static void tell_count(app *self, teller *t)
{
    size_t n_remotes = 0;
    json_writer w;

    mirror_with_remotes(self->mirror, count_remotes, &n_remotes);
    w = teller_begin(t, "result");
    jw_key_int(&w, "remotes", (int64_t)n_remotes);
    teller_end(t, &w);
}

static memfs_code list(app *self, const json_t *request, teller *t, memfs_error *err)
{
    memfs_code rc = check_mirror(self, err);

    (void)request;
    if (rc < 0)
        return rc;
    mirror_with_remotes(self->mirror, tell_remotes, t);
    tell_count(self, t);
    return MEMFS_OK;
}

/* A remote of that name may be there still: the environment's. */
static memfs_code forget(app *self, const json_t *request, memfs_error *err)
{
    memfs_str name;
    memfs_code rc = teller_text(request, "forget", &name, err);

    if (rc < 0 || name.len == 0)
        return rc;
    if (memchr(name.ptr, '\0', name.len) != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "'forget' is not the name of a remote");
    rc = mirror_forget(self->mirror, name.ptr, err);
    return rc == MEMFS_ECONFLICT ? MEMFS_OK : rc;
}

static memfs_code reload(app *self, const json_t *request, teller *t, memfs_error *err)
{
    memfs_code rc = app_reload_remotes(self, err);

    if (rc == MEMFS_OK)
        rc = forget(self, request, err);
    if (rc == MEMFS_OK)
        tell_count(self, t);
    return rc;
}

/* ---- work ---- */

static memfs_code sync_now(app *self, const json_t *request, teller *t, memfs_error *err)
{
    mirror_outcome outcome = { .n_remotes = 0 };
    memfs_str agent_id;
    json_writer w;
    memfs_code rc = check_mirror(self, err);

    if (rc == MEMFS_OK)
        rc = one_agent(request, &agent_id, err);
    if (rc < 0)
        return rc;
    mirror_sync(self->mirror, agent_id.ptr, clock_mono_ms() + SYNC_DEADLINE_MS, &outcome);
    w = teller_begin(t, "result");
    jw_key_str(&w, "agent", agent_id);
    jw_key_int(&w, "remotes", (int64_t)outcome.n_remotes);
    jw_key_int(&w, "failed", (int64_t)outcome.n_failed);
    jw_key_int(&w, "missing", (int64_t)outcome.n_missing);
    jw_key_bool(&w, "moved", outcome.moved);
    put_text(&w, "failure", outcome.failure);
    jw_key_text(&w, "answer",
                outcome.n_failed > 0 ? remote_class_of(outcome.answer)->name : NULL);
    jw_key_bool(&w, "is_credentials",
                outcome.n_failed > 0 && remote_class_of(outcome.answer)->is_credentials);
    jw_key_int(&w, "retry_after_s", outcome.retry_after_s);
    teller_end(t, &w);
    return MEMFS_OK;
}

static memfs_code retry(app *self, const json_t *request, teller *t, memfs_error *err)
{
    const upkeep_watcher watcher = teller_watcher(t);
    upkeep_result result = { 0 };
    const char *remote = NULL;
    memfs_str agent_id;
    memfs_code rc = target_fields(self, request, &agent_id, &remote, err);

    if (rc == MEMFS_OK)
        rc = mirror_retry(self->mirror, agent_id, remote, &watcher, &result, err);
    if (rc == MEMFS_OK)
        teller_result(t, &result);
    return rc;
}

static memfs_code keep_field(const json_t *request, int *ret, memfs_error *err)
{
    static const struct {
        const char *word;
        intake_keep keep;
    } words[] = {
        { "accept", INTAKE_MERGE }, { "ours", INTAKE_OURS }, { "theirs", INTAKE_THEIRS }
    };
    memfs_str word;
    memfs_code rc = teller_text(request, "keep", &word, err);

    for (size_t i = 0; rc == MEMFS_OK && i < ARRAY_LEN(words); i++) {
        if (str_equal(word, str_of(words[i].word))) {
            *ret = words[i].keep;
            return MEMFS_OK;
        }
    }
    return rc < 0 ? rc
                  : memfs_fail(err, MEMFS_EINVALID, "'keep' is not one of accept, ours and theirs");
}

static memfs_code resolve(app *self, const json_t *request, teller *t, memfs_error *err)
{
    const upkeep_watcher watcher = teller_watcher(t);
    upkeep_result result = { 0 };
    const char *remote = NULL;
    memfs_str agent_id;
    int keep = INTAKE_MERGE;
    memfs_code rc = one_agent(request, &agent_id, err);

    if (rc == MEMFS_OK)
        rc = keep_field(request, &keep, err);
    if (rc == MEMFS_OK)
        rc = remote_field(self, request, &remote, err);
    if (rc == MEMFS_OK)
        rc = mirror_resolve(self->mirror, agent_id, remote, keep, &watcher, &result, err);
    if (rc == MEMFS_OK)
        teller_result(t, &result);
    return rc;
}

static memfs_code verify(app *self, const json_t *request, teller *t, memfs_error *err)
{
    const upkeep_watcher watcher = teller_watcher(t);
    upkeep_result result = { 0 };
    const char *remote = NULL;
    memfs_str agent_id;
    memfs_code rc = target_fields(self, request, &agent_id, &remote, err);

    if (rc == MEMFS_OK)
        rc = mirror_verify(self->mirror, agent_id, remote, &watcher, &result, err);
    if (rc == MEMFS_OK)
        teller_result(t, &result);
    return rc;
}

static memfs_code check(app *self, const json_t *request, teller *t, memfs_error *err)
{
    const upkeep_watcher watcher = teller_watcher(t);
    mirror_checked result = { .n_away = 0 };
    const char *remote = NULL;
    memfs_str agent_id;
    json_writer w;
    memfs_code rc = target_fields(self, request, &agent_id, &remote, err);

    if (rc == MEMFS_OK)
        rc = mirror_check(self->mirror, agent_id.len > 0 ? agent_id.ptr : NULL, remote, &watcher,
                          &result, err);
    if (rc < 0)
        return rc;
    w = teller_begin(t, "result");
    jw_key_int(&w, "agents", (int64_t)result.all.n_agents);
    jw_key_int(&w, "findings", (int64_t)result.all.n_findings);
    jw_key_int(&w, "failed", (int64_t)result.all.n_failed);
    jw_key_int(&w, "refused", (int64_t)result.n_refused);
    jw_key_int(&w, "away", (int64_t)result.n_away);
    teller_end(t, &w);
    return MEMFS_OK;
}

/*
 * "agents": the ids to bring; NULL when the remote is to be asked for them.  The texts stay the
 * request's.
 */
static memfs_code ids_field(const json_t *request, const char ***ret, size_t *ret_n,
                            memfs_error *err)
{
    const json_t *list_of = json_object_get(request, "agents"), *value;
    size_t i, n = json_array_size(list_of);

    *ret = NULL;
    *ret_n = 0;
    if (list_of == NULL || json_is_null(list_of))
        return MEMFS_OK;
    if (!json_is_array(list_of))
        return memfs_fail(err, MEMFS_EINVALID, "'agents' is not a list");
    *ret = mem_realloc(NULL, n + 1, sizeof(**ret));
    json_array_foreach(list_of, i, value) {
        const char *id = json_string_value(value);

        if (id == NULL || !ids_is_agent(str_make(id, json_string_length(value)))) {
            free((void *)*ret);
            return memfs_fail(err, MEMFS_EINVALID, "line %zu of the agents is not the id of one",
                              i + 1);
        }
        (*ret)[i] = id;
    }
    (*ret)[n] = NULL;
    *ret_n = n;
    return MEMFS_OK;
}

static memfs_code rebuild(app *self, const json_t *request, teller *t, memfs_error *err)
{
    const upkeep_watcher watcher = teller_watcher(t);
    upkeep_result result = { 0 };
    const char **ids = NULL, *remote = NULL;
    size_t n_ids = 0;
    memfs_code rc = remote_field(self, request, &remote, err);

    if (rc == MEMFS_OK)
        rc = ids_field(request, &ids, &n_ids, err);
    if (rc < 0)
        return rc;
    rc = mirror_rebuild(self->mirror, remote, ids, n_ids, &watcher, &result, err);
    if (rc == MEMFS_OK)
        teller_result(t, &result);
    free((void *)ids);
    return rc;
}

static memfs_code restore(app *self, const json_t *request, teller *t, memfs_error *err)
{
    _cleanup_(intake_result_dispose) intake_result result = INTAKE_RESULT_INIT;
    const store_identity who = { "memfs", "memfs@localhost", clock_wall_us() / 1000000 };
    memfs_str agent_id, at;
    json_writer w;
    memfs_code rc = one_agent(request, &agent_id, err);

    if (rc == MEMFS_OK)
        rc = teller_text(request, "at", &at, err);
    if (rc < 0)
        return rc;
    if (at.len == 0 || memchr(at.ptr, '\0', at.len) != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "'at' is neither a commit nor \"@SECONDS\"");
    rc = intake_restore(self->home, agent_id, at.ptr, &who, &result, err);
    if (rc < 0)
        return rc;
    w = teller_begin(t, "result");
    jw_key_str(&w, "agent", agent_id);
    put_oid(&w, "before", &result.before);
    put_oid(&w, "tip", &result.tip);
    jw_key_bool(&w, "moved", !oid_equal(&result.before, &result.tip));
    teller_end(t, &w);
    return MEMFS_OK;
}

/* ---- the routes ---- */

void owner_mirror_status(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, status);
}

void owner_mirror_remotes(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, list);
}

void owner_mirror_reload(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, reload);
}

void owner_mirror_sync(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, sync_now);
}

void owner_mirror_retry(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, retry);
}

void owner_mirror_resolve(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, resolve);
}

void owner_mirror_verify(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, verify);
}

void owner_mirror_rebuild(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, rebuild);
}

void owner_mirror_check(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, check);
}

void owner_restore(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, restore);
}
