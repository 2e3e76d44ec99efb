#include "client/doctor_int.h"

#include "base/fs.h"
#include "base/mem.h"
#include "base/program.h"
#include "client/prepare.h"
#include "memory/ids.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Checks of .git/config, which three write: memfs (prepare.h), the Letta client at every start, and
 * people or patches that came before.  What is ours or has one right value is mended by preparing
 * again; what others decided is told.  No secret is ever part of a finding.
 */

#define TRACKING "refs/remotes/origin/main"
#define LETTA_CLOUD "https://api.letta.com/"

memfs_code mend_by_prepare(patient *w, const faults *found, memfs_error *err)
{
    _cleanup_(prepared_dispose) prepared done = PREPARED_INIT;
    _cleanup_(backend_choice_dispose) backend_choice choice = BACKEND_CHOICE_INIT;
    memfs_code rc = backend_choose(w->s, w->p, &choice, err);

    (void)found;
    return rc == MEMFS_OK ? prepare(w->s, w->p, &choice, &done, err) : rc;
}

static const char *config_get(const patient *w, const char *key)
{
    const char *value = w->config != NULL ? gitconfig_get(w->config, key) : NULL;

    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* An address without its user info; what is no address stays as it is.  Caller frees. */
static char *bare_address(const char *text)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_error ignored;

    return mem_strdup(url_parse(text, &url, &ignored) == MEMFS_OK ? url.text : text);
}

/* origin */

/* The id in a "…/v1/git/<id>…" address that is another agent's; false: none. */
static bool names_other_agent(const char *url, const char *agent_id, char out[IDS_MAX_LEN + 1])
{
    const char *at = strcasestr(url, "/v1/git/");
    size_t len;

    if (at == NULL)
        return false;
    at += strlen("/v1/git/");
    len = strcspn(at, "/");
    if (len > IDS_MAX_LEN || !ids_is_agent(str_make(at, len)) ||
        str_equal(str_make(at, len), str_of(agent_id)))
        return false;
    snprintf(out, IDS_MAX_LEN + 1, "%.*s", (int)len, at);
    return true;
}

void look_origin(patient *w, faults *ret)
{
    const char *origin = config_get(w, "remote.origin.url");
    const char *last = config_get(w, "memfs-checkout.origin");
    _cleanup_(mem_freep) char *bare = origin != NULL ? bare_address(origin) : NULL;
    char other[IDS_MAX_LEN + 1];

    if (w->config == NULL)
        return;
    if (origin != NULL && names_other_agent(origin, w->p->agent_id, other)) {
        faults_add(ret, FINDING_PROBLEM, true, "other-agent",
                   "'memfs doctor --fix' sets this agent's "
                   "own address",
                   "origin is the memory of another agent, %s", other);
        return;
    }
    if (!w->choice.has_remote || w->choice.is_letta ||
        (bare != NULL && strcmp(bare, w->choice.target.url.text) == 0))
        return;
    if (origin == NULL || strcasestr(origin, "/v1/git") != NULL ||
        (last != NULL && strcmp(last, origin) == 0))
        faults_add(ret, FINDING_WARNING, true, "not-yet",
                   "'memfs apply' or 'memfs doctor --fix' sets it",
                   "origin is not the remote that is set (%s)", w->choice.target.url.text);
    else
        faults_add(ret, FINDING_WARNING, false, "elsewhere",
                   "if memfs' is right: 'memfs remote set "
                   "--agent ID URL'; if origin is: unset the other",
                   "origin is '%s', but memfs syncs with '%s' (%s)", bare,
                   w->choice.target.url.text, w->choice.why);
}

/* What was known of another agent's memory says nothing about this one's. */
static memfs_code forget_tracking(const patient *w, memfs_error *err)
{
    memfs_oid known;
    memfs_code rc;

    if (w->c == NULL)
        return MEMFS_OK;
    rc = checkout_ref(w->c, TRACKING, &known, err);
    if (rc == MEMFS_OK)
        rc = checkout_ref_move(w->c, TRACKING, &known, NULL, "memfs: of another agent", err);
    return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
}

static memfs_code reset_other_agent(patient *w, memfs_error *err)
{
    _cleanup_(mem_freep) char *letta =
        w->p->is_local_backend ? NULL : backend_letta_url(w->s, w->p->agent_id);
    const gitconfig_change change = { "remote.origin.url", letta };
    const char *origin = config_get(w, "remote.origin.url");
    _cleanup_(mem_freep) char *bare = origin != NULL ? bare_address(origin) : NULL;
    memfs_code rc;

    if (bare == NULL)
        return MEMFS_OK;
    rc = doctor_keep_text(w, "origin", str_of(bare), err);
    if (rc == MEMFS_OK)
        rc = gitconfig_apply(w->config_path, &change, 1, err);
    return rc == MEMFS_OK ? forget_tracking(w, err) : rc;
}

memfs_code mend_origin(patient *w, const faults *found, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    if (strcmp(found->at[0].subject, "other-agent") == 0)
        rc = reset_other_agent(w, err);
    return rc == MEMFS_OK ? mend_by_prepare(w, found, err) : rc;
}

/* tokens in addresses */

/* Nothing and empty are the same. */
static bool same_text(const char *a, const char *b)
{
    return (a == NULL || a[0] == '\0') ? b == NULL || b[0] == '\0'
                                       : b != NULL && strcmp(a, b) == 0;
}

/* Would keeping this address's secret write over another that secrets/ has for host and agent? */
static bool is_place_taken(const patient *w, const remote_url *url)
{
    _cleanup_(credential_dispose) credential kept = CREDENTIAL_INIT;
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc =
        credential_kept(setting_text(w->s, SETTING_HOME), url, w->p->agent_id, &kept, &err);

    if (rc < 0)
        return rc != MEMFS_ENOTFOUND; /* unreadable: not ours to replace */
    return !same_text(kept.secret, url->secret) ||
           (!same_text(NULL, url->username) && !same_text(kept.username, url->username));
}

/* Is the value an address with a secret in it? */
static bool holds_secret(const char *value)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_error ignored;

    return strchr(value, '@') != NULL && url_parse(value, &url, &ignored) == MEMFS_OK &&
           url.secret != NULL;
}

/* The address in a key like "url.https://token@host/.insteadof"; caller frees; NULL: none. */
static char *address_in_key(const char *key)
{
    const char *first = strchr(key, '.'), *last = strrchr(key, '.');

    if (first == NULL || last <= first || strstr(key, "://") == NULL)
        return NULL;
    return mem_strndup(first + 1, (size_t)(last - first - 1));
}

static bool is_address_key(const char *key)
{
    return str_ends_with(str_of(key), MEMFS_STR(".url")) ||
           str_ends_with(str_of(key), MEMFS_STR(".pushurl"));
}

/* Addresses whose secrets have a place in secrets/; a later one of the same place needs the same. */
typedef struct token_ctx {
    patient *w;
    faults *ret;
    remote_url seen[32];
    size_t n_seen;
} token_ctx;

static bool has_rival(token_ctx *ctx, const char *value)
{
    const char *home = setting_text(ctx->w->s, SETTING_HOME), *id = ctx->w->p->agent_id;
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    _cleanup_(mem_freep) char *path = NULL;
    memfs_error ignored;

    if (url_parse(value, &url, &ignored) < 0 || is_place_taken(ctx->w, &url) ||
        ctx->n_seen == ARRAY_LEN(ctx->seen))
        return true;
    path = credential_path(home, &url, id);
    for (size_t i = 0; i < ctx->n_seen; i++) {
        const remote_url *seen = &ctx->seen[i];
        _cleanup_(mem_freep) char *other = credential_path(home, seen, id);

        if (strcmp(path, other) == 0)
            return !same_text(seen->secret, url.secret) || !same_text(seen->username, url.username);
    }
    ctx->seen[ctx->n_seen++] = url;
    url = (remote_url)REMOTE_URL_INIT;
    return false;
}

static void add_token(token_ctx *ctx, const char *key, const char *value)
{
    if (!is_address_key(key)) {
        faults_add(ctx->ret, FINDING_WARNING, false, key,
                   "take the token out of it, and give it to 'memfs remote set --token-stdin'",
                   "'%s' holds a token in its address", key);
    } else if (has_rival(ctx, value)) {
        _cleanup_(mem_freep) char *subject = mem_printf("%s rival", key);

        faults_add(ctx->ret, FINDING_WARNING, false, subject,
                   "secrets/ has one place for a host: use one token for both addresses, or take "
                   "this one out",
                   "'%s' holds a token in its address, and another token or user name is for that "
                   "host already", key);
    } else {
        faults_add(ctx->ret, FINDING_WARNING, true, key,
                   "'memfs doctor --fix' moves it to "
                   "secrets/; change the token if others could read it",
                   "'%s' holds a token in its address", key);
    }
}

static bool look_for_token(const char *key, const char *value, void *arg)
{
    _cleanup_(mem_freep) char *in_key = address_in_key(key);
    token_ctx *ctx = arg;

    if (in_key != NULL && holds_secret(in_key)) {
        _cleanup_(mem_freep) char *bare = bare_address(in_key);

        faults_add(ctx->ret, FINDING_WARNING, false, bare,
                   "remove it, and give the token to 'memfs remote "
                   "set --token-stdin'",
                   "the configuration holds a token in a key for '%s'", bare);
    } else if (value != NULL && holds_secret(value)) {
        add_token(ctx, key, value);
    }
    return true;
}

void look_token_in_url(patient *w, faults *ret)
{
    token_ctx ctx = { .w = w, .ret = ret };

    if (w->config != NULL)
        gitconfig_each(w->config, look_for_token, &ctx);
    for (size_t i = 0; i < ctx.n_seen; i++)
        url_dispose(&ctx.seen[i]);
}

/* All values of one key, their secrets kept and taken off. */
typedef struct clean_ctx {
    patient *w;
    const char *key;
    gitconfig_change changes[32];
    size_t n;
    memfs_error *err;
    memfs_code rc;
} clean_ctx;

static bool clean_value(const char *key, const char *value, void *arg)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    clean_ctx *ctx = arg;

    if (strcmp(key, ctx->key) != 0 || value == NULL)
        return true;
    if (ctx->n == ARRAY_LEN(ctx->changes)) {
        ctx->rc = memfs_fail(ctx->err, MEMFS_ELIMIT, "'%s' has too many values", key);
        return false;
    }
    if (holds_secret(value)) {
        bool is_taken = false; /* such a token stays where it is: there is no other place for it */

        ctx->rc = url_parse(value, &url, ctx->err);
        if (ctx->rc == MEMFS_OK)
            is_taken = is_place_taken(ctx->w, &url);
        if (ctx->rc == MEMFS_OK && !is_taken)
            ctx->rc = credential_store(setting_text(ctx->w->s, SETTING_HOME), &url,
                                       ctx->w->p->agent_id, url.username, url.secret, ctx->err);
        if (ctx->rc < 0)
            return false;
        value = is_taken ? value : url.text;
    }
    ctx->changes[ctx->n++] = (gitconfig_change){ ctx->key, mem_strdup(value) };
    return true;
}

memfs_code mend_token_in_url(patient *w, const faults *found, memfs_error *err)
{
    for (size_t i = 0; i < found->n; i++) {
        clean_ctx ctx = { .w = w, .key = found->at[i].subject, .err = err, .rc = MEMFS_OK };

        if (!found->at[i].can_mend)
            continue;
        gitconfig_each(w->config, clean_value, &ctx);
        if (ctx.rc == MEMFS_OK)
            ctx.rc = gitconfig_apply(w->config_path, ctx.changes, ctx.n, err);
        for (size_t v = 0; v < ctx.n; v++)
            free((char *)(uintptr_t)ctx.changes[v].value);
        if (ctx.rc < 0)
            return ctx.rc;
    }
    return mend_by_prepare(w, found, err);
}

/* credential helpers */

static bool gives_password(const char *value)
{
    return strstr(value, "password=") != NULL;
}

/* May this helper be asked for another host than the Letta endpoint, and answer with a fixed
 * password? */
static bool is_helper_for_others(const patient *w, const char *key)
{
    _cleanup_(mem_freep) char *scope = address_in_key(key);
    _cleanup_(url_dispose) remote_url of = REMOTE_URL_INIT, base = REMOTE_URL_INIT;
    memfs_error ignored;

    if (scope == NULL)
        return true;
    return url_parse(scope, &of, &ignored) == MEMFS_OK &&
           url_parse(backend_letta_base(w->s), &base, &ignored) == MEMFS_OK &&
           !url_same_origin(&of, &base);
}

static bool is_helper_key(const char *key)
{
    return str_starts_with(str_of(key), MEMFS_STR("credential.")) &&
           str_ends_with(str_of(key), MEMFS_STR(".helper"));
}

typedef struct helper_ctx {
    patient *w;
    faults *ret;
} helper_ctx;

static bool look_for_helper(const char *key, const char *value, void *arg)
{
    helper_ctx *ctx = arg;

    if (is_helper_key(key) && value != NULL && gives_password(value) &&
        is_helper_for_others(ctx->w, key))
        faults_add(ctx->ret, FINDING_WARNING, true, key,
                   "'memfs doctor --fix' takes it out (kept in "
                   ".git/memfs/doctor/)",
                   "'%s' hands a fixed password to %s", key,
                   strcmp(key, "credential.helper") == 0 ? "every host that asks"
                                                         : "a host that is not the Letta endpoint");
    return true;
}

void look_helpers(patient *w, faults *ret)
{
    helper_ctx ctx = { w, ret };

    if (w->config != NULL)
        gitconfig_each(w->config, look_for_helper, &ctx);
}

typedef struct gather_ctx {
    const char *key;
    memfs_buf *out;
} gather_ctx;

static bool gather_values(const char *key, const char *value, void *arg)
{
    gather_ctx *ctx = arg;

    if (strcmp(key, ctx->key) == 0)
        buf_printf(ctx->out, "%s = %s\n", key, value != NULL ? value : "");
    return true;
}

memfs_code mend_helpers(patient *w, const faults *found, memfs_error *err)
{
    for (size_t i = 0; i < found->n; i++) {
        _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(256 * 1024);
        const gitconfig_change change = { found->at[i].subject, NULL };
        gather_ctx ctx = { found->at[i].subject, &text };
        memfs_code rc;

        gitconfig_each(w->config, gather_values, &ctx);
        rc = doctor_keep_text(w, "credential-helper", buf_str(&text), err);
        if (rc == MEMFS_OK)
            rc = gitconfig_apply(w->config_path, &change, 1, err);
        explicit_bzero(text.ptr, text.len);
        if (rc < 0)
            return rc;
    }
    return MEMFS_OK;
}

/* the key that the client writes into .git/config */

typedef struct key_ctx {
    bool has_helper, has_header;
} key_ctx;

static bool look_for_key(const char *key, const char *value, void *arg)
{
    key_ctx *ctx = arg;

    if (value == NULL)
        return true;
    if (is_helper_key(key) && gives_password(value))
        ctx->has_helper = true;
    if (str_ends_with(str_of(key), MEMFS_STR(".extraheader")) &&
        strncasecmp(value, "authorization:", 14) == 0)
        ctx->has_header = true;
    return true;
}

void look_key_in_config(patient *w, faults *ret)
{
    key_ctx ctx = { false, false };
    struct stat st;

    if (w->config == NULL || stat(w->config_path, &st) < 0)
        return;
    gitconfig_each(w->config, look_for_key, &ctx);
    if (!ctx.has_helper && !ctx.has_header)
        return;
    if ((st.st_mode & 077) != 0)
        faults_add(ret, FINDING_WARNING, true, w->config_path,
                   "'memfs doctor --fix' makes it yours alone",
                   "'.git/config' holds a secret and may be read by others (mode %03o)",
                   (unsigned)(st.st_mode & 0777));
    else if (ctx.has_helper)
        faults_add(ret, FINDING_NOTE, false, "letta-helper",
                   "nothing to do: the client writes it back; "
                   "do not copy this file elsewhere",
                   "the Letta client keeps its key in '.git/config' (yours alone)");
}

memfs_code mend_key_in_config(patient *w, const faults *found, memfs_error *err)
{
    (void)found;
    if (chmod(w->config_path, 0600) < 0)
        return memfs_fail_errno(err, "could not close '%s'", w->config_path);
    return MEMFS_OK;
}

/* the Letta key on its way to a foreign host (contract: git prefers the header that is scoped to a
 * host) */

static void look_host(patient *w, const char *address, const remote_url *base,
                      finding_level level, faults *ret)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    _cleanup_(mem_freep) char *key = NULL;
    memfs_error ignored;

    if (address == NULL || url_parse(address, &url, &ignored) < 0 ||
        (url.kind != URL_HTTPS && url.kind != URL_HTTP) || url_same_origin(&url, base))
        return;
    key = mem_printf("http.%s/.extraHeader", url.origin);
    if (gitconfig_get(w->config, key) == NULL) /* an empty value is what stops it */
        faults_add(ret, level, true, key,
                   "'memfs apply' or 'memfs doctor --fix' stops that",
                   "the Letta client would send its key to '%s'", url.origin);
}

void look_foreign_key(patient *w, faults *ret)
{
    _cleanup_(url_dispose) remote_url base = REMOTE_URL_INIT;
    memfs_error ignored;

    if (w->config == NULL || url_parse(backend_letta_base(w->s), &base, &ignored) < 0)
        return;
    look_host(w, config_get(w, "remote.origin.url"), &base, FINDING_PROBLEM, ret);
    look_host(w, config_get(w, "remote.origin.pushurl"), &base, FINDING_PROBLEM, ret);
    if (ret->n == 0) /* not the origin now, but the client's default: as soon as its base is not said */
        look_host(w, LETTA_CLOUD, &base, FINDING_WARNING, ret);
}

/* hooks */

/* A folder whose reference-transaction leads to memfs-hook. */
static bool is_hooks_of_memfs(const char *folder)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/reference-transaction", folder);
    char target[4096];
    ssize_t n = readlink(path, target, sizeof(target) - 1);

    target[n > 0 ? n : 0] = '\0';
    return n > 0 && str_ends_with(str_of(target), MEMFS_STR("/" PROGRAM_HOOK)) &&
           access(path, X_OK) == 0;
}

void look_hooks(patient *w, faults *ret)
{
    const char *path = config_get(w, "core.hooksPath");

    if (w->config == NULL || (path != NULL && is_hooks_of_memfs(path)))
        return;
    if (path == NULL)
        faults_add(ret, FINDING_WARNING, true, "none",
                   "'memfs apply' or 'memfs doctor --fix' sets it",
                   "core.hooksPath is not set: what a reset throws away is not rescued");
    else if (!fs_is_dir(path))
        faults_add(ret, FINDING_WARNING, true, "gone",
                   "'memfs apply' or 'memfs doctor --fix' sets it anew",
                   "core.hooksPath is '%s', which is not there: no hook runs", path);
    else
        faults_add(
            ret, FINDING_WARNING, false, "foreign",
            "unset it (git config --unset "
            "core.hooksPath) and put those hooks into .git/hooks: memfs runs them from there",
            "core.hooksPath is '%s': memfs' hooks do not run", path);
}

/* what prepare gives to every checkout */

static bool has_attributes(const patient *w)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/info/attributes", w->git_dir);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1024 * 1024);
    memfs_error ignored;

    return fs_read(path, &text, &ignored) == MEMFS_OK && strstr(text.ptr, "merge=") != NULL;
}

static bool equals(const char *value, const char *expected)
{
    return value != NULL && strcmp(value, expected) == 0;
}

/* main begins with the genesis, but the client would never push it: it looks at @{u} first. */
static bool lacks_tracking(const patient *w)
{
    memfs_oid known, tip;
    memfs_error ignored;
    bool has_genesis = false;

    return w->c != NULL && checkout_ref(w->c, TRACKING, &known, &ignored) == MEMFS_ENOTFOUND &&
           checkout_ref(w->c, STORE_MAIN, &tip, &ignored) == MEMFS_OK &&
           repo_is_ancestor(checkout_repo(w->c), &STORE_GENESIS, &tip, &has_genesis, &ignored) ==
               MEMFS_OK &&
           has_genesis;
}

void look_prepared(patient *w, faults *ret)
{
    _cleanup_(buf_dispose) memfs_buf missing = MEMFS_BUF_INIT(4096);

    if (w->config == NULL)
        return;
    if (!equals(config_get(w, "letta.agentId"), w->p->agent_id))
        buf_puts(&missing, ", letta.agentId");
    if (!equals(config_get(w, "branch.main.remote"), "origin") ||
        !equals(config_get(w, "branch.main.merge"), STORE_MAIN))
        buf_puts(&missing, ", the upstream of main");
    if (lacks_tracking(w))
        buf_puts(&missing, ", " TRACKING);
    if (config_get(w, "user.email") == NULL)
        buf_puts(&missing, ", an identity");
    if (config_get(w, "merge.memfs.driver") == NULL)
        buf_puts(&missing, ", the merge driver");
    if (!has_attributes(w))
        buf_puts(&missing, ", .git/info/attributes");
    if (missing.len > 0)
        faults_add(ret, FINDING_WARNING, true, "prepared",
                   "'memfs apply' or 'memfs doctor --fix' adds it", "missing in the checkout: %s",
                   missing.ptr + 2);
}
