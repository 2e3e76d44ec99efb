/*
 * owner_webhook.c - webhooks, from the operator's side, over the home's own socket (teller.h).
 *
 *     /owner/webhook/add     the remotes' hosts are told to send deliveries to an address
 *     /owner/webhook/test    a signed ping goes to an address, as a host would send it
 *
 * Secrets never travel over the socket: they are read here and given to the host, or used to sign.
 * Where there is none at all, `add` makes one (secrets/webhook).
 *
 * Findings of add: hook-failed, not-added (the host cannot have any).  Told, not counted:
 * hook-added, hook-there, secret-made.  Of test: not-accepted; told: accepted.
 */
#include "base/clock.h"
#include "base/hash.h"
#include "base/httpc.h"
#include "base/mem.h"
#include "remote/webhook.h"
#include "server/teller.h"
#include "server/webhooks.h"

#include <stdio.h>
#include <stdlib.h>

#define HOST_DEADLINE_MS 30000
#define TEST_TIMEOUT_MS 10000
#define MAX_REPLY 4096

/* ---- what both have in common ---- */

/* "url": http(s), or empty. */
static memfs_code url_field(const json_t *request, char **ret, memfs_error *err)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_str text;
    memfs_code rc = teller_text(request, "url", &text, err);

    *ret = NULL;
    if (rc < 0 || text.len == 0)
        return rc;
    if (memchr(text.ptr, '\0', text.len) != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "'url' is not an address");
    rc = url_parse(text.ptr, &url, err);
    if (rc == MEMFS_OK && url.kind != URL_HTTP && url.kind != URL_HTTPS)
        rc = memfs_fail(err, MEMFS_EINVALID, "the address of webhooks is https:// or http://, and "
                                             "'%s' is neither", url.text);
    if (rc == MEMFS_OK && url.secret != NULL)
        rc = memfs_fail(err, MEMFS_EINVALID, "the address of webhooks holds a password; hosts sign "
                                             "what they send, so none is needed");
    if (rc == MEMFS_OK)
        *ret = mem_strdup(url.text);
    return rc;
}

/* ---- add ---- */

typedef struct adding {
    app *self;
    teller *t;
    upkeep_watcher watcher;
    char *url;
    const char *remote; /* NULL: all that are read */
    webhook_secrets secrets;
    host_kind kinds[REMOTES_MAX]; /* as the first agent found out */
    char **ids;
    size_t n_ids, n_remotes;
    upkeep_result result;
    const char *agent_id; /* at hand */
} adding;

static void note(adding *a, const char *kind, const char *remote, const char *text)
{
    a->watcher.finding(a->agent_id, kind, remote, text, a->watcher.ctx);
}

static void amiss(adding *a, const char *kind, const char *remote, const char *text)
{
    a->result.n_findings++;
    note(a, kind, remote, text);
}

static void add_hook(adding *a, const remote_config *c, host_kind *kind, const remote_target *t)
{
    const memfs_str *secret = webhook_secret_for(&a->secrets, c->name);
    int64_t deadline_ms = clock_mono_ms() + HOST_DEADLINE_MS;
    memfs_error err = MEMFS_ERROR_INIT;
    host_answer answer = { 0 };
    host h = HOST_INIT;
    bool made = false;
    memfs_code rc = host_find(t, *kind, deadline_ms, &h, &answer, &err);

    if (rc == MEMFS_OK)
        *kind = h.kind;
    if (rc == MEMFS_OK && h.kind == HOST_PLAIN) {
        amiss(a, "not-added", c->name, "the host has no API that memfs knows: make the webhook by "
                                       "hand");
    } else if (rc == MEMFS_OK && secret == NULL) {
        amiss(a, "not-added", c->name, "there is no webhook secret for this remote");
    } else {
        if (rc == MEMFS_OK)
            rc = host_hook(&h, a->url, secret->ptr, deadline_ms, &made, &answer, &err);
        if (rc < 0) {
            a->result.n_failed++;
            amiss(a, "hook-failed", c->name, answer.words[0] != '\0' ? answer.words : err.msg);
        } else {
            note(a, made ? "hook-added" : "hook-there", c->name, a->url);
        }
    }
    host_dispose(&h);
}

/* What is never read needs no hints, unless it is asked for by name. */
static bool is_wanted(const adding *a, const remote_config *c)
{
    if (!remote_is_for(c, a->agent_id))
        return false;
    return a->remote != NULL ? strcmp(a->remote, c->name) == 0 : c->direction != REMOTE_PUSH;
}

static void add_at_each(const remotes *r, void *ctx)
{
    adding *a = ctx;

    for (size_t i = 0; i < r->n && i < REMOTES_MAX; i++) {
        const remote_config *c = &r->at[i];
        remote_target t = REMOTE_TARGET_INIT;
        memfs_error err = MEMFS_ERROR_INIT;

        if (!is_wanted(a, c))
            continue;
        a->n_remotes++;
        if (a->kinds[i] == HOST_UNKNOWN)
            a->kinds[i] = c->kind;
        if (remote_config_target(r, c, a->agent_id, &t, &err) < 0)
            amiss(a, "hook-failed", c->name, err.msg);
        else
            add_hook(a, c, &a->kinds[i], &t);
        remote_target_dispose(&t);
    }
}

static memfs_code keep_id(const state_agent *agent, void *ctx, memfs_error *err)
{
    adding *a = ctx;

    (void)err;
    a->ids = mem_realloc(a->ids, a->n_ids + 1, sizeof(*a->ids));
    a->ids[a->n_ids++] = mem_strndup(agent->id.ptr, agent->id.len);
    return MEMFS_OK;
}

static memfs_code find_agents(adding *a, const json_t *request, memfs_error *err)
{
    const agent_query all = { .limit = 0 };
    memfs_str agent_id = MEMFS_STR("");
    bool is_all = false;
    memfs_code rc = teller_agent(request, &agent_id, err);

    if (rc == MEMFS_OK)
        rc = teller_flag(request, "all", &is_all, err);
    if (rc < 0)
        return rc;
    if (is_all == (agent_id.len > 0))
        return memfs_fail(err, MEMFS_EINVALID, "either 'agent' or 'all' has to be given");
    if (is_all)
        return state_agents(home_state(a->self->home), &all, keep_id, a, err);
    return keep_id(&(state_agent){ .id = agent_id }, a, err);
}

static memfs_code find_secrets(adding *a, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    webhook_secrets_load(a->self, &a->secrets);
    if (a->secrets.n > 0)
        return MEMFS_OK;
    rc = webhook_secret_make(a->self->webhooks, err);
    if (rc == MEMFS_EEXISTS) /* and cannot be used: the log says why */
        return memfs_fail(err, MEMFS_EDENIED, "the secret in 'secrets/webhook' of the data folder "
                                              "cannot be used: it is empty, or others may read it "
                                              "(chmod 600)");
    if (rc == MEMFS_OK) {
        note(a, "secret-made", "", "a webhook secret was made: secrets/webhook in the data folder");
        webhook_secrets_load(a->self, &a->secrets);
    }
    return rc;
}

static memfs_code add_all(adding *a, memfs_error *err)
{
    memfs_code rc = find_secrets(a, err);

    for (size_t i = 0; rc == MEMFS_OK && i < a->n_ids; i++) {
        if (!a->watcher.progress(i, a->n_ids, a->ids[i], a->watcher.ctx))
            break;
        a->agent_id = a->ids[i];
        mirror_with_remotes(a->self->mirror, add_at_each, a);
        a->result.n_agents++;
    }
    if (rc < 0 || a->n_ids == 0 || a->n_remotes > 0)
        return rc;
    if (a->remote == NULL)
        return memfs_fail(err, MEMFS_ENOTFOUND, "no remote is read here, so there is none to get "
                                                "webhooks from: 'memfs mirror list'");
    return memfs_fail(err, MEMFS_ENOTFOUND, "there is no remote '%s' to get webhooks from",
                      a->remote);
}

static memfs_code add(app *self, const json_t *request, teller *t, memfs_error *err)
{
    adding a = { .self = self, .t = t, .watcher = teller_watcher(t), .agent_id = "" };
    memfs_str remote = MEMFS_STR("");
    memfs_code rc = url_field(request, &a.url, err);

    if (rc == MEMFS_OK && a.url == NULL)
        rc = memfs_fail(err, MEMFS_EINVALID, "'url' is missing: where hosts reach this server");
    if (rc == MEMFS_OK)
        rc = teller_text(request, "remote", &remote, err);
    if (rc == MEMFS_OK && remote.len > 0)
        a.remote = remote.ptr;
    if (rc == MEMFS_OK)
        rc = find_agents(&a, request, err);
    if (rc == MEMFS_OK)
        rc = add_all(&a, err);
    if (rc == MEMFS_OK)
        teller_result(t, &a.result);
    for (size_t i = 0; i < a.n_ids; i++)
        free(a.ids[i]);
    free(a.ids);
    free(a.url);
    webhook_secrets_dispose(&a.secrets);
    return rc;
}

void owner_webhook_add(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, add);
}

/* ---- test ---- */

static bool gather(memfs_str piece, void *ctx)
{
    buf_add_str(ctx, piece);
    return !((memfs_buf *)ctx)->too_big;
}

/* The kind at the end of ".../webhooks/gitea". */
static host_kind kind_of_url(const char *url, memfs_str secret)
{
    const char *last = url != NULL ? strrchr(url, '/') : NULL;
    host_kind kind;

    if (last != NULL && host_kind_parse(str_of(last + 1), &kind))
        return kind;
    return str_starts_with(secret, MEMFS_STR("whsec_")) ? HOST_GITLAB : HOST_GITHUB;
}

/* What the server said, for people: its detail, or the beginning of what came. */
static void words_of(const httpc_answer *answer, const memfs_buf *body, char *out, size_t size)
{
    json_t *object = json_loadb(body->ptr, body->len, 0, NULL);
    const char *detail = json_string_value(json_object_get(object, "detail"));

    if (answer->failure != HTTPC_FINE)
        snprintf(out, size, "no answer: %s", answer->detail);
    else if (answer->status == 202)
        snprintf(out, size, "a signed ping was taken");
    else
        snprintf(out, size, "%d: %s", answer->status,
                 detail != NULL ? detail : "the answer is none of memfs: what is at this address?");
    json_decref(object);
}

static bool ping(app *self, const char *url, const char *ca_file, memfs_str secret, char *words,
                 size_t size)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(MAX_REPLY);
    _cleanup_(mem_freep) char *socket =
        mem_printf("%s/socket", home_settings(self->home)->path);
    host_kind kind = kind_of_url(url, secret);
    memfs_str text = MEMFS_STR("{\"zen\":\"memfs tests its own webhooks\",\"hook_id\":0}");
    httpc_answer answer = { .failure = HTTPC_FINE };
    webhook_heads heads;
    uint8_t bytes[8];
    char id[32] = "memfs-test-";

    hash_random(bytes, sizeof(bytes));
    hash_hex(bytes, sizeof(bytes), id + strlen(id));
    webhook_sign(kind, secret, kind == HOST_GITLAB ? "Push Hook" : "ping", id,
                 clock_wall_us() / 1000000, text, &heads);
    if (url != NULL) /* over the socket httpc says so itself */
        heads.lines[heads.n++] = mem_strdup("Content-Type: application/json");
    httpc_fetch(&(httpc_request){ .socket_path = url == NULL ? socket : NULL, .url = url,
                                  .path = "/webhooks", .method = "POST", .body = text,
                                  .timeout_ms = TEST_TIMEOUT_MS, .ca_file = ca_file,
                                  .headers = (const char *const *)heads.lines },
                gather, &body, &answer);
    webhook_heads_dispose(&heads);
    words_of(&answer, &body, words, size);
    return answer.failure == HTTPC_FINE && answer.status == 202;
}

static memfs_code test_each(app *self, const char *url, const char *ca_file, teller *t,
                            memfs_error *err)
{
    const upkeep_watcher watcher = teller_watcher(t);
    webhook_secrets secrets = { .n = 0 };
    upkeep_result result = { 0 };

    webhook_secrets_load(self, &secrets);
    if (secrets.n == 0)
        return memfs_fail(err, MEMFS_ENOTFOUND, "no webhook secret is configured: 'memfs webhook "
                                                "add' makes one, MEMFS_WEBHOOK_SECRET_FILE names a "
                                                "file with one");
    for (size_t i = 0; i < secrets.n; i++) {
        const char *of = secrets.remote[i] != NULL ? secrets.remote[i] : "";
        char words[400];
        bool is_good = ping(self, url, ca_file, secrets.at[i], words, sizeof(words));

        watcher.finding("", is_good ? "accepted" : "not-accepted", of, words, watcher.ctx);
        result.n_findings += !is_good;
        result.n_failed += !is_good;
    }
    webhook_secrets_dispose(&secrets);
    teller_result(t, &result);
    return MEMFS_OK;
}

static memfs_code test(app *self, const json_t *request, teller *t, memfs_error *err)
{
    _cleanup_(mem_freep) char *url = NULL;
    memfs_str ca_file = MEMFS_STR("");
    memfs_code rc = url_field(request, &url, err);

    if (rc == MEMFS_OK)
        rc = teller_text(request, "ca_file", &ca_file, err);
    if (rc == MEMFS_OK)
        rc = test_each(self, url, ca_file.len > 0 ? ca_file.ptr : NULL, t, err);
    return rc;
}

void owner_webhook_test(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, test);
}
