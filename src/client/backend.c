#include "client/backend.h"

#include "base/mem.h"
#include "client/approved.h"
#include "store/gitconfig.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * The decision in three steps: which address (and who said it), whether it may be used, and which
 * secret goes with it.  Each step either fills *ret or leaves a reason in why.
 *
 * The key.  Letta's client shows LETTA_API_KEY to whatever base URL is in force, so a self-hosted
 * server's key ends at api.letta.com as soon as one of the two base URLs is missing.  Here the key
 * is paired with the base URLs of its own level first (a key in settings.json belongs to the server
 * named beside it), then with those in force; if any of them is another host, api.letta.com does
 * not get it.
 */

#define LETTA_CLOUD "https://api.letta.com"
#define AGENT_PLACEHOLDER "{agentId}"

static const char *const NAMES[] = {
    [BACKEND_CLOUD] = "cloud",
    [BACKEND_LOCAL] = "local",
    [BACKEND_AUTO] = "auto",
    [BACKEND_NONE] = "none",
};

const char *backend_name(backend b)
{
    return NAMES[b];
}

static backend backend_of(const settings *s)
{
    const char *text = setting_text(s, SETTING_BACKEND);

    for (size_t b = 0; b < ARRAY_LEN(NAMES); b++)
        if (strcmp(NAMES[b], text) == 0)
            return (backend)b;
    return BACKEND_AUTO;
}

void backend_choice_dispose(backend_choice *b)
{
    remote_target_dispose(&b->target);
    settings_freep(&b->own);
    *b = (backend_choice)BACKEND_CHOICE_INIT;
}

static void no_remote(backend_choice *ret, const char *fmt, ...) MEMFS_PRINTF(2, 3);
static void no_remote(backend_choice *ret, const char *fmt, ...)
{
    va_list ap;

    ret->has_remote = false;
    va_start(ap, fmt);
    vsnprintf(ret->why, sizeof(ret->why), fmt, ap);
    va_end(ap);
}

static void warn(backend_choice *ret, const char *text)
{
    size_t len = strlen(ret->warning);

    snprintf(ret->warning + len, sizeof(ret->warning) - len, "%s%s", len > 0 ? "; " : "", text);
}

/* Letta's own hosts and the key */

const char *backend_letta_base(const settings *s)
{
    const char *base = setting_text(s, SETTING_MEMFS_BASE_URL);

    if (base == NULL)
        base = setting_text(s, SETTING_BASE_URL);
    return base != NULL ? base : LETTA_CLOUD;
}

char *backend_letta_url(const settings *s, const char *agent_id)
{
    return url_letta(backend_letta_base(s), agent_id);
}

static bool is_cloud_host(const char *host)
{
    return strcmp(host, "letta.com") == 0 || str_ends_with(str_of(host), MEMFS_STR(".letta.com"));
}

/* A base URL that was said and is not Letta's cloud.  One that cannot be read is not the cloud. */
static bool names_other_host(const char *base)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_error err = MEMFS_ERROR_INIT;

    if (base == NULL)
        return false;
    return url_parse(base, &url, &err) < 0 || !is_cloud_host(url.host);
}

/* Did the key come for another server than Letta's cloud? */
static bool key_is_of_other_host(const settings *s)
{
    setting_level level = setting_level_of(s, SETTING_API_KEY);
    const char *beside = setting_text_at(s, SETTING_BASE_URL, level);

    if (beside == NULL)
        beside = setting_text_at(s, SETTING_MEMFS_BASE_URL, level);
    return names_other_host(beside) || names_other_host(setting_text(s, SETTING_BASE_URL));
}

static const char *letta_key_for(const settings *s, const remote_url *url)
{
    const char *key = setting_text(s, SETTING_API_KEY);

    if (key == NULL || (is_cloud_host(url->host) && key_is_of_other_host(s)))
        return NULL;
    return key;
}

/* secrets */

/* Is this secret in secrets/ already? */
static bool is_kept(const settings *s, const char *agent_id, const remote_url *url)
{
    _cleanup_(credential_dispose) credential kept = CREDENTIAL_INIT;
    remote_url bare = *url; /* borrows; what the address itself holds is not the question */
    credential_query q = { .url = &bare,
                           .agent_id = agent_id,
                           .memfs_home = setting_text(s, SETTING_HOME) };
    memfs_error err = MEMFS_ERROR_INIT;

    bare.username = bare.secret = NULL;
    return credential_find(&q, &kept, &err) == MEMFS_OK && kept.secret != NULL &&
           strcmp(kept.secret, url->secret) == 0;
}

/* User info is taken off the address for good: kept where the next call finds it. */
static void keep_user_info(const settings *s, const char *agent_id, backend_choice *ret)
{
    const remote_url *url = &ret->target.url;
    memfs_error err = MEMFS_ERROR_INIT;
    char text[200];

    if (is_kept(s, agent_id, url))
        return;
    if (credential_store(setting_text(s, SETTING_HOME), url, agent_id, url->username, url->secret,
                         &err) < 0)
        snprintf(text, sizeof(text), "the address held a secret, which could not be kept: %.120s",
                 err.msg);
    else
        snprintf(text, sizeof(text),
                 "the address held a secret: it is kept in secrets/ now, take "
                 "it out of %.60s",
                 ret->why);
    warn(ret, text);
}

static bool is_token_set(const settings *s)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    _cleanup_(mem_freep) char *path =
        mem_printf("%s/memfs-remote-token", folder != NULL ? folder : "");

    return setting_text(s, SETTING_REMOTE_TOKEN) != NULL ||
           setting_text(s, SETTING_REMOTE_TOKEN_FILE) != NULL ||
           (folder != NULL && folder[0] == '/' && access(path, F_OK) == 0);
}

/* Only when it would have made a difference: nothing else is there to show. */
static void warn_of_withheld(const settings *s, const char *agent_id, backend_choice *ret)
{
    const remote_url *url = &ret->target.url;
    char text[250];

    if (!ret->is_found || ret->is_letta || (url->kind != URL_HTTPS && url->kind != URL_HTTP) ||
        ret->target.cred.secret != NULL || !is_token_set(s))
        return;
    snprintf(text, sizeof(text),
             "the remote token is not sent to %.60s, which only the checkout names: if it is right, "
             "'memfs remote set --agent %.50s URL'",
             url->host, agent_id);
    ret->is_withheld = true;
    warn(ret, text);
}

/*
 * A token that was given without a host is for the remote that the operator named.  The checkout's
 * configuration may have been written by whoever works there: what it says gets what is kept for
 * its host, and nothing else, unless the operator named the same host.
 */
static void find_secret(const settings *s, const char *agent_id, bool is_general,
                        backend_choice *ret)
{
    const remote_url *url = &ret->target.url;
    const bool may_have_token = !ret->is_letta && !ret->is_found;
    credential_query q = {
        .url = url,
        .agent_id = agent_id,
        .memfs_home = setting_text(s, SETTING_HOME),
        .letta_base = backend_letta_base(s),
        .letta_key = letta_key_for(s, url),
        .token = may_have_token ? setting_text(s, SETTING_REMOTE_TOKEN) : NULL,
        .token_file = may_have_token ? setting_text(s, SETTING_REMOTE_TOKEN_FILE) : NULL,
        .systemd_dir = getenv("CREDENTIALS_DIRECTORY"),
        .is_not_the_remote = ret->is_found,
        .may_ask_git = !ret->is_letta,
    };
    memfs_error err = MEMFS_ERROR_INIT;

    if (ret->is_letta && q.letta_key == NULL && setting_text(s, SETTING_API_KEY) != NULL)
        warn(ret, "the Letta key came with another base URL and is not sent to Letta's cloud");
    if (url->secret != NULL)
        keep_user_info(s, is_general ? NULL : agent_id, ret);
    if (credential_find(&q, &ret->target.cred, &err) < 0)
        warn(ret, err.msg);
    warn_of_withheld(s, agent_id, ret);
    ret->target.ask_git_helpers = ret->target.cred.source == CREDENTIAL_GIT_HELPERS;
}

/* addresses */

/* Is host one of the words of MEMFS_ALLOW_HTTP? */
static bool is_allowed_http(const settings *s, const remote_url *url)
{
    const char *hosts = setting_text(s, SETTING_ALLOW_HTTP);

    if (url_is_loopback(url))
        return true;
    while (hosts != NULL && *hosts != '\0') {
        size_t len = strcspn(hosts, ", \t");

        if (len == strlen(url->host) && strncasecmp(hosts, url->host, len) == 0)
            return true;
        hosts += len;
        hosts += strspn(hosts, ", \t");
    }
    return false;
}

static bool is_letta_origin(const settings *s, const remote_url *url)
{
    _cleanup_(url_dispose) remote_url base = REMOTE_URL_INIT;
    memfs_error err = MEMFS_ERROR_INIT;

    return url_parse(backend_letta_base(s), &base, &err) == MEMFS_OK && url_same_origin(&base, url);
}

bool backend_may_use(const settings *s, const remote_url *url)
{
    return url->kind != URL_HTTP || is_letta_origin(s, url) || is_allowed_http(s, url);
}

/*
 * Who said an address: the operator, for this agent or for all, or whoever wrote in the checkout.
 */
typedef enum who {
    WHO_OPERATOR,
    WHO_OPERATOR_FOR_ALL,
    WHO_CHECKOUT,
} who;

/* An address that somebody said, as the remote. */
static void use_address(const settings *s, const place *p, const char *text, const char *origin,
                        who said_by, backend_choice *ret)
{
    _cleanup_(mem_freep) char *expanded = NULL;
    remote_target *t = &ret->target;
    memfs_error err = MEMFS_ERROR_INIT;

    ret->is_misconfigured = true; /* until it turns out to be good */
    if (url_expand(text, p->agent_id, &expanded, &err) < 0 ||
        url_parse(expanded, &t->url, &err) < 0) {
        no_remote(ret, "%.80s: %.110s", origin, err.msg);
        return;
    }
    ret->is_letta = is_letta_origin(s, &t->url);
    t->may_http = t->url.kind == URL_HTTP;
    if (!backend_may_use(s, &t->url)) {
        no_remote(ret,
                  "%.60s is http://, which would show secrets and memory: use https, or set "
                  "MEMFS_ALLOW_HTTP=%.40s",
                  origin, t->url.host);
        return;
    }
    ret->is_misconfigured = false;
    ret->has_remote = true;
    snprintf(ret->why, sizeof(ret->why), "%s", origin);
    t->ca_file = setting_text(s, SETTING_CA_FILE);
    t->ssh_key = setting_text(s, SETTING_SSH_KEY);
    t->ssh_known_hosts = setting_text(s, SETTING_SSH_KNOWN_HOSTS);
    ret->is_found = said_by == WHO_CHECKOUT &&
                    !approved_is(setting_text(s, SETTING_HOME), p->agent_id, &t->url);
    find_secret(s, p->agent_id, said_by == WHO_OPERATOR_FOR_ALL, ret);
}

char *backend_origin(const place *p)
{
    _cleanup_(mem_freep) char *path = settings_checkout_config(p->memory);
    _cleanup_(gitconfig_closep) gitconfig *config = NULL;
    memfs_error err = MEMFS_ERROR_INIT;
    const char *url;

    if (path == NULL || gitconfig_open(path, &config, &err) < 0)
        return NULL;
    url = gitconfig_get(config, "remote.origin.url");
    return url != NULL && url[0] != '\0' ? mem_strdup(url) : NULL;
}

/* The last part of Letta's addresses; the client moves such an origin to its own base (client 3).
 */
static bool is_letta_shaped(const char *url, const char *agent_id)
{
    _cleanup_(mem_freep) char *path = mem_printf("/v1/git/%s", agent_id);
    const char *at = strcasestr(url, path);

    if (at == NULL)
        return str_ends_with(str_of(url), MEMFS_STR("/v1/git"));
    at += strlen(path);
    return at[0] == '\0' || strcasecmp(at, "/state.git") == 0;
}

/* May a general address without a place for the id be this agent's? */
static bool may_share(const settings *s, const place *p, const char *text)
{
    _cleanup_(mem_freep) char *origin = NULL;

    if (strstr(text, AGENT_PLACEHOLDER) != NULL || !places_has_other(s, p->agent_id))
        return true;
    origin = backend_origin(p);
    if (origin != NULL) {
        _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
        memfs_error err = MEMFS_ERROR_INIT;

        return url_parse(text, &url, &err) == MEMFS_OK && strcmp(url.text, origin) == 0;
    }
    return false;
}

static void use_general(const settings *s, const place *p, setting_id id, backend_choice *ret)
{
    const char *text = setting_text(s, id), *origin = setting_origin(s, id);

    if (may_share(s, p, text)) {
        use_address(s, p, text, origin, WHO_OPERATOR_FOR_ALL, ret);
        return;
    }
    ret->is_misconfigured = true;
    no_remote(ret,
              "%.60s has no {agentId} and there are several memories: put {agentId} in, or use "
              "'memfs remote set --agent ID URL'",
              origin);
}

/* An address that somebody set on purpose.  False: nobody did. */
static bool use_explicit(const settings *s, const place *p, backend_choice *ret)
{
    const char *of_command = setting_text_at(s, SETTING_REMOTE, SETTING_LEVEL_COMMAND);
    const char *of_checkout = setting_text_at(s, SETTING_REMOTE, SETTING_LEVEL_CHECKOUT);

    if (of_command != NULL)
        use_address(s, p, of_command, "command line", WHO_OPERATOR, ret);
    else if (of_checkout != NULL)
        use_address(s, p, of_checkout, "memfs.remote of the checkout", WHO_CHECKOUT, ret);
    else if (setting_is_set(s, SETTING_REMOTE))
        use_general(s, p, SETTING_REMOTE, ret);
    else if (setting_is_set(s, SETTING_GIT_URL))
        use_general(s, p, SETTING_GIT_URL, ret);
    else
        return false;
    return true;
}

/* auto: a foreign address that a checkout has as its origin counts as set. */
static bool use_origin(const settings *s, const place *p, backend_choice *ret)
{
    _cleanup_(mem_freep) char *origin = backend_origin(p);
    bool is_foreign = origin != NULL && !is_letta_shaped(origin, p->agent_id) &&
                      strstr(origin, "::") == NULL && strchr(origin, '{') == NULL;

    if (is_foreign)
        use_address(s, p, origin, "origin of the checkout", WHO_CHECKOUT, ret);
    return is_foreign;
}

static const char *base_origin(const settings *s)
{
    if (setting_is_set(s, SETTING_MEMFS_BASE_URL))
        return setting_origin(s, SETTING_MEMFS_BASE_URL);
    if (setting_is_set(s, SETTING_BASE_URL))
        return setting_origin(s, SETTING_BASE_URL);
    return "Letta's cloud";
}

static void use_letta(const settings *s, const place *p, backend_choice *ret)
{
    _cleanup_(mem_freep) char *url = backend_letta_url(s, p->agent_id);

    use_address(s, p, url, base_origin(s), WHO_OPERATOR, ret);
}

static void use_letta_if_known(const settings *s, const place *p, backend_choice *ret)
{
    bool is_named =
        setting_is_set(s, SETTING_MEMFS_BASE_URL) || setting_is_set(s, SETTING_BASE_URL);

    if (p->is_local_backend)
        no_remote(ret, "an agent of the local backend has no remote until one is set "
                       "('memfs remote set')");
    else if (!is_named && !setting_is_set(s, SETTING_API_KEY))
        no_remote(ret, "no remote, no Letta base URL and no Letta key is set");
    else
        use_letta(s, p, ret);
}

static void decide(const settings *s, const place *p, backend_choice *ret)
{
    ret->backend = backend_of(s);
    ret->is_off = settings_is_off(s);
    if (ret->is_off) {
        no_remote(ret, "memory is switched off (%.120s)", setting_origin(s, SETTING_ENABLED));
        return;
    }
    switch (ret->backend) {
    case BACKEND_NONE:
        no_remote(ret, "the backend is none (%.120s)", setting_origin(s, SETTING_BACKEND));
        return;
    case BACKEND_CLOUD: use_letta(s, p, ret); return;
    case BACKEND_LOCAL:
        if (!use_explicit(s, p, ret))
            no_remote(ret, "the backend is local and neither LETTABOT_MEMFS_REMOTE nor "
                           "LETTA_MEMFS_GIT_URL nor a remote of the agent is set");
        return;
    case BACKEND_AUTO:
        if (!use_explicit(s, p, ret) && !use_origin(s, p, ret))
            use_letta_if_known(s, p, ret);
        return;
    }
}

memfs_code backend_choose(const settings *s, const place *p, backend_choice *ret, memfs_error *err)
{
    *ret = (backend_choice)BACKEND_CHOICE_INIT;
    if (settings_with_checkout(s, p->memory, &ret->own, err) < 0) {
        ret->backend = backend_of(s);
        ret->is_misconfigured = true;
        no_remote(ret, "%.190s", err->msg);
        *err = (memfs_error)MEMFS_ERROR_INIT;
        return MEMFS_OK;
    }
    decide(ret->own, p, ret);
    return MEMFS_OK;
}
