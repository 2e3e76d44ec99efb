#include "mirror/remotes_int.h"

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "memory/ids.h"
#include "store/gitconfig.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

/*
 * Loading is three steps: what the file says, what the command line or the environment says over
 * it, and a check of each remote as a whole.  A secret in an address is split off in the second
 * step of each: it goes to secrets/<host>.mirror-<name>, where credential.h finds it, so two
 * remotes on one host keep two secrets.
 */

#define MARK REMOTES_MARK
#define STAND_IN REMOTES_STAND_IN
#define NAMED "origin"
#define POLL_S 60
#define FOLDER_POLL_S 300 /* letta/sweep.h is there much earlier */
#define MIN_POLL_S 1
#define MAX_POLL_S 86400
#define MAX_NAME 32
#define MAX_WORDS 400

static const char *const DIRECTIONS[] = {
    [REMOTE_BOTH] = "both", [REMOTE_PUSH] = "push", [REMOTE_PULL] = "pull",
};

const char *remote_direction_name(remote_direction d)
{
    return DIRECTIONS[d];
}

/* ---- life cycle ---- */

static void config_dispose(remote_config *c)
{
    for (size_t i = 0; c->agents != NULL && c->agents[i] != NULL; i++)
        free(c->agents[i]);
    free(c->agents);
    free(c->name);
    free(c->url);
    free(c->username);
    free(c->token_file);
    free(c->ca_file);
    free(c->ssh_key);
    free(c->ssh_known_hosts);
    free(c->webhook_secret_file);
}

void remotes_free(remotes *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->n; i++)
        config_dispose(&r->at[i]);
    free(r->at);
    free(r->home);
    if (r->token != NULL)
        explicit_bzero(r->token, strlen(r->token));
    free(r->token);
    free(r->token_file);
    free(r->systemd_dir);
    free(r);
}

void remotes_freep(remotes **r)
{
    remotes_free(*r);
}

/* ---- values of keys ---- */

typedef enum value_kind { IS_TEXT, IS_FILE, IS_BOOL, IS_OTHER } value_kind;

typedef struct key_row {
    const char *name; /* lower case, as gitconfig.h gives it */
    value_kind kind;
    size_t at; /* in remote_config */
} key_row;

static const key_row KEYS[] = {
    { "url", IS_OTHER, 0 },
    { "direction", IS_OTHER, 0 },
    { "agent", IS_OTHER, 0 },
    { "kind", IS_OTHER, 0 },
    { "poll", IS_OTHER, 0 },
    { "username", IS_TEXT, offsetof(remote_config, username) },
    { "tokenfile", IS_FILE, offsetof(remote_config, token_file) },
    { "cafile", IS_FILE, offsetof(remote_config, ca_file) },
    { "sshkey", IS_FILE, offsetof(remote_config, ssh_key) },
    { "sshknownhosts", IS_FILE, offsetof(remote_config, ssh_known_hosts) },
    { "webhooksecretfile", IS_FILE, offsetof(remote_config, webhook_secret_file) },
    { "create", IS_BOOL, offsetof(remote_config, create) },
    { "allowhttp", IS_BOOL, offsetof(remote_config, allow_http) },
};

static void set_text(char **to, const char *value)
{
    free(*to);
    *to = mem_strdup(value);
}

static bool parse_bool(const char *value, bool *ret)
{
    static const char *const yes[] = { "true", "yes", "on", "1" };
    static const char *const no[] = { "false", "no", "off", "0" };

    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        *ret = strcasecmp(value, yes[i]) == 0;
        if (*ret || strcasecmp(value, no[i]) == 0)
            return true;
    }
    return false;
}

static memfs_code set_direction(remote_config *c, const char *value, memfs_error *err)
{
    for (size_t i = 0; i < ARRAY_LEN(DIRECTIONS); i++) {
        if (strcmp(value, DIRECTIONS[i]) == 0) {
            c->direction = (remote_direction)i;
            return MEMFS_OK;
        }
    }
    return memfs_fail(err, MEMFS_EINVALID, "'%.40s' is none of both, push, pull", value);
}

static memfs_code set_poll(remote_config *c, const char *value, memfs_error *err)
{
    uint64_t s;

    if (!str_to_u64(str_of(value), MAX_POLL_S, &s) || s < MIN_POLL_S)
        return memfs_fail(err, MEMFS_EINVALID, "'%.40s' is no number of seconds from %d to %d",
                          value, MIN_POLL_S, MAX_POLL_S);
    c->poll_s = (int64_t)s;
    return MEMFS_OK;
}

static memfs_code add_agent(remote_config *c, const char *value, memfs_error *err)
{
    size_t n = 0;

    if (!ids_is_agent(str_of(value)))
        return memfs_fail(err, MEMFS_EINVALID, "'%.80s' is no id of an agent: agent-<uuid>", value);
    while (c->agents != NULL && c->agents[n] != NULL)
        n++;
    c->agents = mem_realloc(c->agents, n + 2, sizeof(*c->agents));
    c->agents[n] = mem_strdup(value);
    c->agents[n + 1] = NULL;
    return MEMFS_OK;
}

static memfs_code set_other(remote_config *c, const char *key, const char *value, memfs_error *err)
{
    if (strcmp(key, "url") == 0) {
        set_text(&c->url, value);
        return MEMFS_OK;
    }
    if (strcmp(key, "direction") == 0)
        return set_direction(c, value, err);
    if (strcmp(key, "agent") == 0)
        return add_agent(c, value, err);
    if (strcmp(key, "poll") == 0)
        return set_poll(c, value, err);
    if (!host_kind_parse(str_of(value), &c->kind))
        return memfs_fail(err, MEMFS_EINVALID,
                          "'%.40s' is none of gitea, forgejo, github, gitlab, plain", value);
    return MEMFS_OK;
}

static memfs_code set_key(remote_config *c, const key_row *row, const char *value, memfs_error *err)
{
    void *at = (char *)c + row->at;

    if (row->kind == IS_OTHER)
        return set_other(c, row->name, value, err);
    if (row->kind == IS_BOOL)
        return parse_bool(value, at) ? MEMFS_OK
                                     : memfs_fail(err, MEMFS_EINVALID,
                                                  "'%.40s' is neither true nor false", value);
    if (row->kind == IS_FILE && value[0] != '/')
        return memfs_fail(err, MEMFS_EINVALID, "'%.200s' is no absolute path", value);
    set_text(at, value);
    return MEMFS_OK;
}

/* ---- the file ---- */

typedef struct loading {
    const remotes_options *o;
    remotes *r;
    char *path; /* of the file */
    memfs_error *err;
    memfs_code rc;
} loading;

static void warn(const loading *l, const char *text)
{
    if (l->o->warn != NULL)
        l->o->warn(text, l->o->warn_ctx);
}

static bool is_name(memfs_str name)
{
    for (size_t i = 0; i < name.len; i++)
        if (strchr("abcdefghijklmnopqrstuvwxyz0123456789-", name.ptr[i]) == NULL)
            return false;
    return name.len > 0 && name.len <= MAX_NAME && name.ptr[0] != '-';
}

static remote_config *find_config(remotes *r, memfs_str name)
{
    for (size_t i = 0; i < r->n; i++)
        if (str_equal(str_of(r->at[i].name), name))
            return &r->at[i];
    return NULL;
}

static memfs_code need_config(remotes *r, memfs_str name, remote_config **ret, memfs_error *err)
{
    *ret = find_config(r, name);
    if (*ret != NULL)
        return MEMFS_OK;
    if (!is_name(name))
        return memfs_fail(err, MEMFS_EINVALID,
                          "the name of a remote is 1 to %d of a-z, 0-9 and '-'", MAX_NAME);
    if (r->n == REMOTES_MAX)
        return memfs_fail(err, MEMFS_EINVALID, "there are more than %d remotes", REMOTES_MAX);
    r->at = mem_realloc(r->at, r->n + 1, sizeof(*r->at));
    *ret = &r->at[r->n++];
    **ret = (remote_config){ .name = mem_strndup(name.ptr, name.len), .create = true,
                             .poll_s = POLL_S };
    return MEMFS_OK;
}

static const key_row *find_key(memfs_str name)
{
    for (size_t i = 0; i < ARRAY_LEN(KEYS); i++)
        if (str_equal(str_of(KEYS[i].name), name))
            return &KEYS[i];
    return NULL;
}

/* "mirror.<name>.<key>"; false: another section. */
static bool split_key(memfs_str key, memfs_str *ret_name, memfs_str *ret_key)
{
    memfs_str prefix = MEMFS_STR("mirror.");
    const char *dot;

    if (!str_starts_with(key, prefix))
        return false;
    key = str_from(key, prefix.len);
    dot = memrchr(key.ptr, '.', key.len);
    *ret_name = dot != NULL ? str_make(key.ptr, (size_t)(dot - key.ptr)) : MEMFS_STR("");
    *ret_key = dot != NULL ? str_from(key, (size_t)(dot - key.ptr) + 1) : key;
    return true;
}

static bool take_value(const char *full_key, const char *value, void *ctx)
{
    loading *l = ctx;
    memfs_str name, key;
    const key_row *row;
    remote_config *c;

    if (!split_key(str_of(full_key), &name, &key))
        return true;
    row = find_key(key);
    l->rc = need_config(l->r, name, &c, l->err);
    if (l->rc == MEMFS_OK && row == NULL)
        l->rc = memfs_fail(l->err, MEMFS_EINVALID, "there is no such key");
    if (l->rc == MEMFS_OK)
        l->rc = set_key(c, row, value, l->err);
    if (l->rc < 0)
        memfs_context(l->err, "'%s': [mirror \"%.*s\"] %.*s", l->path, (int)name.len, name.ptr,
                      (int)key.len, key.ptr);
    return l->rc == MEMFS_OK;
}

static memfs_code read_file(loading *l, memfs_error *err)
{
    _cleanup_(gitconfig_closep) gitconfig *file = NULL;
    memfs_code rc = gitconfig_open(l->path, &file, err);

    if (rc < 0)
        return memfs_context(err, "config file '%s'", l->path);
    l->err = err;
    gitconfig_each(file, take_value, l);
    return l->rc;
}

/* ---- addresses ---- */

/* text with the first `what` in it replaced; caller frees. */
static char *replaced(const char *text, const char *what, const char *with)
{
    const char *at = strstr(text, what);

    if (at == NULL)
        return mem_strdup(text);
    return mem_printf("%.*s%s%s", (int)(at - text), text, with, at + strlen(what));
}

memfs_code remotes_parse(const char *text, remote_url *ret, char **ret_clean, memfs_error *err)
{
    _cleanup_(mem_freep) char *whole = NULL;
    const char *at_rest, *path;
    memfs_code rc = url_expand(text, STAND_IN, &whole, err);

    if (rc == MEMFS_OK)
        rc = url_parse(whole, ret, err);
    if (rc < 0)
        return rc;
    at_rest = ret->text != NULL ? ret->text : ""; /* never NULL; the analyzer cannot see that */
    path = ret->path != NULL ? ret->path : "";
    if (strstr(text, MARK) != NULL && strstr(path, STAND_IN) == NULL) {
        url_dispose(ret);
        return memfs_fail(err, MEMFS_EINVALID, MARK " can stand in the path of an address only");
    }
    *ret_clean = strstr(text, MARK) != NULL ? replaced(at_rest, STAND_IN, MARK)
                                            : mem_strdup(at_rest);
    return MEMFS_OK;
}

static char *secret_owner(const remote_config *c)
{
    return mem_printf("mirror-%s", c->name);
}

static memfs_code keep_secret(const loading *l, const remote_config *c, const remote_url *url,
                              memfs_error *err)
{
    _cleanup_(mem_freep) char *owner = secret_owner(c);
    memfs_code rc =
        credential_store(l->o->home, url, owner, url->username, url->secret, err);

    return rc < 0 ? memfs_context(err, "could not keep the secret of remote '%s'", c->name) : rc;
}

static void rewrite_line(const loading *l, const remote_config *c)
{
    _cleanup_(mem_freep) char *key = mem_printf("mirror.%s.url", c->name);
    const gitconfig_change change = { key, c->url };
    char text[MAX_WORDS];
    memfs_error err;

    if (gitconfig_apply(l->path, &change, 1, &err) == MEMFS_OK)
        snprintf(text, sizeof(text), "the url of remote '%s' held a secret: it is in secrets/ now, "
                                     "and the line in the config file was rewritten without it",
                 c->name);
    else
        snprintf(text, sizeof(text),
                 "the url of remote '%s' in the config file holds a secret, and the line could not "
                 "be rewritten (%.200s): take it out", c->name, err.msg);
    warn(l, text);
}

/* in_file: the address stands in the config file. */
static memfs_code clean_url(const loading *l, remote_config *c, bool in_file, memfs_error *err)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    char text[MAX_WORDS], *clean;
    memfs_code rc = remotes_parse(c->url, &url, &clean, err);

    if (rc < 0)
        return memfs_context(err, "the url of remote '%s'", c->name);
    explicit_bzero(c->url, strlen(c->url));
    free(c->url);
    c->url = clean;
    if (url.kind != URL_HTTPS && url.kind != URL_HTTP)
        return MEMFS_OK;
    if (url.username != NULL && url.secret == NULL && c->username == NULL)
        c->username = mem_strdup(url.username);
    if (url.secret == NULL)
        return MEMFS_OK;
    rc = keep_secret(l, c, &url, err);
    if (rc < 0)
        return rc;
    if (in_file) {
        rewrite_line(l, c);
        return MEMFS_OK;
    }
    snprintf(text, sizeof(text), "the address of remote '%s' holds a secret, which others may see "
                                 "in the list of processes: it is in secrets/ now and can be left "
                                 "out", c->name);
    warn(l, text);
    return MEMFS_OK;
}

/* ---- the command line and the environment ---- */

static char *from_env(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? mem_strdup(value) : NULL;
}

/* Variables that a client understands too: an address of one repository is no mistake there. */
static char *env_url(const loading *l)
{
    static const char *const names[] = { "LETTA_MEMFS_GIT_URL", "LETTABOT_MEMFS_REMOTE" };
    char text[MAX_WORDS];

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        _cleanup_(mem_freep) char *value = from_env(names[i]);

        if (value != NULL && strstr(value, MARK) != NULL)
            return TAKE_PTR(value);
        if (value != NULL) {
            snprintf(text, sizeof(text), "%s has no " MARK " in it, so it says nothing to a server "
                                         "of many agents and is left alone", names[i]);
            warn(l, text);
        }
    }
    return NULL;
}

static memfs_code take_named(loading *l, memfs_error *err)
{
    _cleanup_(mem_freep) char *url =
        l->o->url != NULL && l->o->url[0] != '\0' ? mem_strdup(l->o->url) : env_url(l);
    remote_config *c;
    memfs_code rc;

    if (url == NULL && l->o->token_file != NULL)
        warn(l, "--remote-token-file is given, but no --remote that it is for");
    if (url == NULL)
        return MEMFS_OK;
    rc = need_config(l->r, MEMFS_STR(NAMED), &c, err);
    if (rc < 0)
        return rc;
    set_text(&c->url, url);
    explicit_bzero(url, strlen(url));
    return clean_url(l, c, false, err);
}

static void take_secrets(loading *l)
{
    l->r->home = mem_strdup(l->o->home);
    l->r->token = from_env("MEMFS_REMOTE_TOKEN");
    l->r->token_file = l->o->token_file != NULL ? mem_strdup(l->o->token_file)
                                                : from_env("MEMFS_REMOTE_TOKEN_FILE");
    l->r->systemd_dir = from_env("CREDENTIALS_DIRECTORY");
    if (l->o->token_file != NULL && l->r->token != NULL) { /* the command line stands higher */
        explicit_bzero(l->r->token, strlen(l->r->token));
        free(TAKE_PTR(l->r->token));
    }
}

/* ---- each as a whole ---- */

static memfs_code check_agents(const remote_config *c, memfs_error *err)
{
    if (strstr(c->url, MARK) != NULL)
        return MEMFS_OK;
    if (c->agents == NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "the url of remote '%s' needs " MARK " in it, or say for which agent it "
                          "is (agent = ...)", c->name);
    if (c->agents[1] != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "the url of remote '%s' needs " MARK " in it: two agents cannot share a "
                          "repository", c->name);
    return MEMFS_OK;
}

static memfs_code check_http(const remote_config *c, const remote_url *url, memfs_error *err)
{
    if (url->kind != URL_HTTP || c->allow_http || url_is_loopback(url))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EINVALID,
                      "the url of remote '%s' is http://, which is not encrypted: use https://, or "
                      "set allowHttp = true in [mirror \"%s\"]", c->name, c->name);
}

/* Children of a server have no home folder of a user: keys and known hosts lie in ours. */
static void place_ssh(const remotes *r, remote_config *c)
{
    if (c->ssh_known_hosts == NULL)
        c->ssh_known_hosts = mem_printf("%s/known_hosts", r->home);
    if (c->ssh_key == NULL)
        c->ssh_key = mem_printf("%s/secrets/ssh_key", r->home);
}

static memfs_code check_config(const loading *l, remote_config *c, memfs_error *err)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    _cleanup_(mem_freep) char *clean = NULL;
    memfs_code rc;

    if (c->url == NULL)
        return memfs_fail(err, MEMFS_EINVALID, "'%s': [mirror \"%s\"] has no url", l->path,
                          c->name);
    rc = remotes_parse(c->url, &url, &clean, err);
    if (rc == MEMFS_OK)
        rc = check_agents(c, err);
    if (rc == MEMFS_OK)
        rc = check_http(c, &url, err);
    if (rc == MEMFS_OK && url.kind == URL_SSH)
        place_ssh(l->r, c);
    return rc;
}

/* The Letta server's folder, which the command line names and no config file. */
static memfs_code take_folder(loading *l, memfs_error *err)
{
    remote_config *c;
    memfs_code rc;

    if (l->o->folder == NULL)
        return MEMFS_OK;
    if (find_config(l->r, MEMFS_STR(REMOTE_LETTA)) != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "'%s': [mirror \"" REMOTE_LETTA "\"]: with --letta-root that is the name "
                          "of the Letta server's folder; give it another one", l->path);
    rc = need_config(l->r, MEMFS_STR(REMOTE_LETTA), &c, err);
    if (rc < 0)
        return rc;
    c->url = mem_printf("%s/repository/" MARK, letta_folder_root(l->o->folder));
    c->kind = HOST_PLAIN;
    c->poll_s = FOLDER_POLL_S;
    c->folder = l->o->folder;
    return MEMFS_OK;
}

static memfs_code load(loading *l, memfs_error *err)
{
    memfs_code rc = read_file(l, err);

    for (size_t i = 0; rc == MEMFS_OK && i < l->r->n; i++)
        if (l->r->at[i].url != NULL)
            rc = clean_url(l, &l->r->at[i], true, err);
    if (rc == MEMFS_OK)
        rc = take_named(l, err);
    if (rc == MEMFS_OK)
        rc = take_folder(l, err);
    for (size_t i = 0; rc == MEMFS_OK && i < l->r->n; i++)
        rc = check_config(l, &l->r->at[i], err);
    return rc;
}

memfs_code remotes_load(const remotes_options *o, remotes **ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", o->home);
    loading l = { .o = o, .r = mem_alloc(sizeof(*l.r)), .path = path, .rc = MEMFS_OK };
    memfs_code rc;

    take_secrets(&l);
    rc = load(&l, err);
    if (rc < 0) {
        remotes_free(l.r);
        return rc;
    }
    *ret = l.r;
    return MEMFS_OK;
}

/* ---- using one ---- */

bool remote_is_for(const remote_config *c, const char *agent_id)
{
    if (!ids_is_agent(str_of(agent_id)))
        return false; /* shared repositories are not mirrored */
    if (c->agents == NULL)
        return true;
    for (size_t i = 0; c->agents[i] != NULL; i++)
        if (strcmp(c->agents[i], agent_id) == 0)
            return true;
    return false;
}

/* MEMFS_REMOTE_TOKEN names no host: it is for the remote beside it, or for the only one. */
static bool is_named(const remotes *r, const remote_config *c)
{
    return strcmp(c->name, NAMED) == 0 || r->n == 1;
}

static memfs_code find_credential(const remotes *r, const remote_config *c, remote_target *t,
                                  memfs_error *err)
{
    _cleanup_(mem_freep) char *owner = secret_owner(c);
    bool named = is_named(r, c);
    credential_query q = {
        .url = &t->url,
        .agent_id = owner,
        .memfs_home = r->home,
        .token = named && c->token_file == NULL ? r->token : NULL,
        .token_file = c->token_file != NULL ? c->token_file : named ? r->token_file : NULL,
        .systemd_dir = r->systemd_dir,
        .is_not_the_remote = !named,
    };
    memfs_code rc = credential_find(&q, &t->cred, err);

    if (rc == MEMFS_OK && t->cred.secret != NULL && c->username != NULL)
        set_text(&t->cred.username, c->username);
    return rc;
}

memfs_code remote_config_address(const remote_config *c, const char *agent_id, char **ret,
                                 memfs_error *err)
{
    letta_place ignored;

    if (c->folder == NULL)
        return url_expand(c->url, agent_id, ret, err);
    *ret = letta_folder_path(c->folder, agent_id, &ignored);
    return MEMFS_OK;
}

memfs_code remote_config_target(const remotes *r, const remote_config *c, const char *agent_id,
                                remote_target *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *text = NULL;
    remote_target t = REMOTE_TARGET_INIT;
    memfs_code rc = remote_config_address(c, agent_id, &text, err);

    if (rc == MEMFS_OK)
        rc = url_parse(text, &t.url, err);
    if (rc == MEMFS_OK && c->folder == NULL)
        rc = find_credential(r, c, &t, err);
    if (rc < 0) {
        remote_target_dispose(&t);
        return rc;
    }
    t.ca_file = c->ca_file;
    t.ssh_key = t.url.kind == URL_SSH ? c->ssh_key : NULL;
    t.ssh_known_hosts = t.url.kind == URL_SSH ? c->ssh_known_hosts : NULL;
    t.may_http = c->allow_http || url_is_loopback(&t.url);
    t.is_server = true;
    t.is_shared = c->folder != NULL;
    *ret = t;
    return MEMFS_OK;
}

/* A key file that was replaced is another credential, though its name is the same. */
static void add_file(memfs_buf *out, const char *path)
{
    struct stat st;

    if (path == NULL || stat(path, &st) < 0)
        buf_puts(out, "-\n");
    else
        buf_printf(out, "%s %lld %lld.%ld %llu\n", path, (long long)st.st_size,
                   (long long)st.st_mtim.tv_sec, (long)st.st_mtim.tv_nsec,
                   (unsigned long long)st.st_ino);
}

/*
 * Two halves, so that it can be told which of the two changed.  Four bytes of a digest are enough
 * to notice that, and too few to go back.
 */
void remote_target_mark(const remote_target *t, char ret[17])
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64 * 1024);
    uint8_t digest[16];

    hash_md5(str_of(t->url.text), digest);
    hash_hex(digest, 4, ret);
    buf_printf(&text, "%s\n%s\n%s\n", t->url.origin, t->cred.username ? t->cred.username : "",
               t->cred.secret ? t->cred.secret : "");
    add_file(&text, t->ssh_key);
    add_file(&text, t->ssh_known_hosts);
    add_file(&text, t->ca_file);
    hash_md5(buf_str(&text), digest);
    hash_hex(digest, 4, ret + 8);
    explicit_bzero(text.ptr, text.len);
}
