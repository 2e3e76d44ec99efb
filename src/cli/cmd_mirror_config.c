#include "cli/cmd_mirror.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "cli/owner.h"
#include "mirror/remotes.h"
#include "store/gitconfig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Remotes are sections of $MEMFS_HOME/config.  A change is written, then whoever owns the home reads
 * it anew: a server that runs, or one of ours for that moment.  So what a remote must be is known in
 * one place (remotes.c), and what it refuses is taken back.
 */

#define MARK "{agentId}"
#define STAND_IN "agent-00000000-0000-4000-8000-000000000000"
#define TOKEN_MAX 8192
#define MAX_CHANGES 16
/* Others at the same home or file are waited for: each is done within a second. */
#define PATIENCE_MS 20000
#define PAUSE_MS 50

/* ---- asking the owner ---- */

typedef struct answer {
    json_t *remotes; /* NULL: not wanted */
    size_t n;
    bool as_json;
} answer;

static void print_remote(const json_t *r)
{
    size_t n_agents = json_array_size(json_object_get(r, "agents"));
    const char *fault = mirror_text(r, "fault");

    printf("%-12s  %-5s  ", mirror_text(r, "name"), mirror_text(r, "direction"));
    cli_print_safe(str_of(mirror_text(r, "url")));
    printf("  (%s", n_agents == 0 ? "all agents" : n_agents == 1 ? "one agent" : "some agents");
    if (mirror_text(r, "kind")[0] != '\0')
        printf(", %s", mirror_text(r, "kind"));
    if (json_is_false(json_object_get(r, "create")) &&
        strcmp(mirror_text(r, "direction"), "pull") != 0)
        fputs(", creates no repositories", stdout);
    if (fault[0] == '\0')
        printf(", credentials: %s", mirror_text(r, "credential"));
    puts(")");
    if (fault[0] != '\0')
        cli_talk("%s: %s", mirror_text(r, "name"), fault);
}

static void on_line(const json_t *line, void *ctx)
{
    answer *a = ctx;
    json_t *remote = json_object_get(line, "remote");

    if (remote == NULL)
        return;
    a->n++;
    if (a->remotes != NULL)
        json_array_append(a->remotes, remote);
    else if (!a->as_json)
        print_remote(remote);
}

static bool should_try_again(memfs_code rc, int64_t until_ms)
{
    if (rc != MEMFS_EUNAVAIL || clock_mono_ms() >= until_ms)
        return false;
    clock_sleep_ms(PAUSE_MS);
    return true;
}

static memfs_code ask_once(const char *home, const char *route, const json_t *body, answer *ret,
                           memfs_error *err)
{
    _cleanup_(owner_closep) owner *o = NULL;
    memfs_code rc = owner_connect(home, &o, err);

    return rc == MEMFS_OK ? owner_run(o, route, body, on_line, ret, err) : rc;
}

/*
 * body: given.  Where no server runs, who answers is another command for its own short life, and may
 * be gone before it hears us; what is asked here can be asked twice, but not told twice.
 */
static memfs_code ask(const char *home, const char *route, json_t *body, answer *ret,
                      memfs_error *err)
{
    int64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    memfs_code rc;

    do {
        *err = (memfs_error)MEMFS_ERROR_INIT;
        rc = ask_once(home, route, body, ret, err);
    } while (ret->n == 0 && should_try_again(rc, until_ms));
    json_decref(body);
    return rc;
}

/* A file that another command is writing is waited for. */
static memfs_code apply(const char *path, const gitconfig_change *changes, size_t n,
                        memfs_error *err)
{
    int64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    memfs_code rc;

    do {
        *err = (memfs_error)MEMFS_ERROR_INIT;
        rc = gitconfig_apply(path, changes, n, err);
    } while (should_try_again(rc, until_ms));
    return rc;
}

static cli_exit show_list(const char *home, bool as_json)
{
    answer a = { as_json ? json_array() : NULL, 0, as_json };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = ask(home, "/owner/mirror/remotes", json_object(), &a, &err);

    if (rc == MEMFS_OK && as_json) {
        json_dumpf(a.remotes, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (rc == MEMFS_OK && a.n == 0) {
        cli_talk("no remote is configured; 'memfs mirror add NAME URL' does it");
    }
    json_decref(a.remotes);
    return rc == MEMFS_OK ? cli_finish(EXIT_GOOD) : cli_fail(&err, NULL);
}

cli_exit mirror_cmd_list(const mirror_args *a)
{
    _cleanup_(mem_freep) char *home = cli_home(a->home);

    return show_list(home, a->as_json);
}

/* ---- the section of a remote ---- */

static bool is_name(const char *name)
{
    size_t len = strlen(name);

    return len >= 1 && len <= 32 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len && name[0] != '-';
}

typedef struct section {
    char *prefix; /* "mirror.origin." */
    char *keys[MAX_CHANGES];
    size_t n_keys;
} section;

static void section_dispose(section *s)
{
    free(s->prefix);
    for (size_t i = 0; i < s->n_keys; i++)
        free(s->keys[i]);
}

static bool note_key(const char *key, const char *value, void *ctx)
{
    section *s = ctx;

    (void)value;
    if (!str_starts_with(str_of(key), str_of(s->prefix)))
        return true;
    for (size_t i = 0; i < s->n_keys; i++)
        if (strcmp(s->keys[i], key) == 0)
            return true;
    if (s->n_keys < MAX_CHANGES)
        s->keys[s->n_keys++] = mem_strdup(key);
    return true;
}

/* The keys that a remote has in the file; none when it is not there. */
static memfs_code read_section(const char *path, const char *name, section *ret, memfs_error *err)
{
    _cleanup_(gitconfig_closep) gitconfig *config = NULL;
    memfs_code rc = gitconfig_open(path, &config, err);

    if (rc < 0)
        return rc;
    ret->prefix = mem_printf("mirror.%s.", name);
    gitconfig_each(config, note_key, ret);
    return MEMFS_OK;
}

static memfs_code drop_section(const char *path, const section *s, memfs_error *err)
{
    gitconfig_change changes[MAX_CHANGES];

    for (size_t i = 0; i < s->n_keys; i++)
        changes[i] = (gitconfig_change){ s->keys[i], NULL };
    return apply(path, changes, s->n_keys, err);
}

/* ---- the address and its secret ---- */

/* The address of one agent, in parts. */
static memfs_code parse_address(const char *text, remote_url *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *one = NULL;
    memfs_code rc = url_expand(text, STAND_IN, &one, err);

    rc = rc == MEMFS_OK ? url_parse(one, ret, err) : rc;
    if (one != NULL)
        explicit_bzero(one, strlen(one));
    return rc;
}

/* As it is written down: without user info, with its placeholder again; caller frees. */
static char *address_at_rest(const remote_url *url)
{
    const char *text = url->text != NULL ? url->text : "", *at = strstr(text, STAND_IN);

    if (at == NULL)
        return mem_strdup(text);
    return mem_printf("%.*s" MARK "%s", (int)(at - text), text, at + strlen(STAND_IN));
}

/* To the end; one line, its end is no part of it. */
static memfs_code read_token(memfs_buf *out, memfs_error *err)
{
    for (;;) {
        char *room = buf_reserve(out, 512);
        ssize_t n;

        if (room == NULL)
            return buf_check(out, "the token", err);
        n = read(STDIN_FILENO, room, 512);
        if (n < 0)
            return memfs_fail_errno(err, "could not read the token");
        if (n == 0)
            break;
        buf_grew(out, (size_t)n);
    }
    while (out->len > 0 && (out->ptr[out->len - 1] == '\n' || out->ptr[out->len - 1] == '\r'))
        buf_truncate(out, out->len - 1);
    if (out->len == 0)
        return memfs_fail(err, MEMFS_EINVALID, "the token on stdin is empty");
    if (strlen(out->ptr) != out->len || strpbrk(out->ptr, "\r\n") != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "the token on stdin is more than one line");
    return MEMFS_OK;
}

/* Where remotes.c looks for it: this remote's own, so two on one host keep two secrets. */
static memfs_code keep_secret(const char *home, const mirror_args *a, const remote_url *url,
                              const char *secret, memfs_error *err)
{
    _cleanup_(mem_freep) char *owner = mem_printf("mirror-%s", a->name);
    const char *username = a->username != NULL ? a->username : url->username;

    if (secret == NULL)
        return MEMFS_OK;
    if (url->kind == URL_SSH || url->kind == URL_PATH)
        return memfs_fail(err, MEMFS_EINVALID, "a token is for https; ssh uses keys (--ssh-key), "
                                               "and a path needs none");
    return credential_store(home, url, owner, username, secret, err);
}

static void forget_secret(const char *home, const char *name, const char *address)
{
    _cleanup_(mem_freep) char *owner = mem_printf("mirror-%s", name);
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_error ignored;

    if (address == NULL || parse_address(address, &url, &ignored) < 0 || url.kind == URL_PATH)
        return;
    if (credential_store(home, &url, owner, NULL, NULL, &ignored) < 0)
        cli_talk("its secret could not be removed from secrets/: %s", ignored.msg);
}

/* ---- add ---- */

typedef struct change_list {
    gitconfig_change at[MAX_CHANGES];
    char *texts[2 * MAX_CHANGES]; /* keys, and paths made absolute */
    size_t n, n_texts;
    const char *name;
} change_list;

static void change_list_dispose(change_list *l)
{
    for (size_t i = 0; i < l->n_texts; i++)
        free(l->texts[i]);
}

static char *hold(change_list *l, char *text)
{
    l->texts[l->n_texts++] = text;
    return text;
}

static void set(change_list *l, const char *key, const char *value)
{
    if (value == NULL)
        return;
    l->at[l->n++] =
        (gitconfig_change){ hold(l, mem_printf("mirror.%s.%s", l->name, key)), value };
}

static void set_path(change_list *l, const char *key, const char *path)
{
    if (path != NULL)
        set(l, key, hold(l, cli_absolute(path)));
}

static memfs_code write_section(const char *path, const mirror_args *a, const char *address,
                                memfs_error *err)
{
    _cleanup_(change_list_dispose) change_list l = { .name = a->name };

    set(&l, "url", address);
    set(&l, "direction", a->direction);
    set(&l, "agent", a->agent);
    set(&l, "kind", a->kind);
    set(&l, "create", a->create ? "true" : a->no_create ? "false" : NULL);
    set(&l, "allowHttp", a->allow_http ? "true" : NULL);
    set(&l, "username", a->username);
    set_path(&l, "tokenFile", a->token_file);
    set_path(&l, "caFile", a->ca_file);
    set_path(&l, "sshKey", a->ssh_key);
    set_path(&l, "sshKnownHosts", a->ssh_known_hosts);
    set_path(&l, "webhookSecretFile", a->webhook_secret_file);
    if (a->poll_s > 0)
        set(&l, "poll", hold(&l, mem_printf("%llu", (unsigned long long)a->poll_s)));
    return apply(path, l.at, l.n, err);
}

static cli_exit take_back(const char *home, const char *path, const mirror_args *a,
                          const remote_url *url, const memfs_error *why)
{
    _cleanup_(section_dispose) section written = { .n_keys = 0 };
    memfs_error err = MEMFS_ERROR_INIT;

    if (read_section(path, a->name, &written, &err) < 0 || drop_section(path, &written, &err) < 0)
        cli_talk("and '%s' could not be taken out of the config file: %s", a->name, err.msg);
    forget_secret(home, a->name, url->text);
    return cli_fail(why, "nothing was changed");
}

static cli_exit check_new(const char *path, const mirror_args *a)
{
    _cleanup_(section_dispose) section there = { .n_keys = 0 };
    memfs_error err = MEMFS_ERROR_INIT;

    if (read_section(path, a->name, &there, &err) < 0)
        return cli_fail(&err, NULL);
    if (there.n_keys == 0)
        return EXIT_GOOD;
    cli_talk("there is a remote '%s' already; 'memfs mirror remove %s' first", a->name, a->name);
    return EXIT_FAILED;
}

static cli_exit add(const char *home, const mirror_args *a, const remote_url *url,
                    const char *secret)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", home);
    _cleanup_(mem_freep) char *address = address_at_rest(url);
    answer reloaded = { NULL, 0, true };
    memfs_error err = MEMFS_ERROR_INIT;
    cli_exit status = check_new(path, a);

    if (status != EXIT_GOOD)
        return status;
    if (keep_secret(home, a, url, secret, &err) < 0 || write_section(path, a, address, &err) < 0)
        return cli_fail(&err, NULL);
    if (ask(home, "/owner/mirror/reload", json_object(), &reloaded, &err) < 0)
        return take_back(home, path, a, url, &err);
    if (url->secret != NULL)
        cli_talk("the address held a secret: it is kept in secrets/ now, but your shell's history "
                 "may have it too; --token-stdin and --token-file leave no trace");
    return show_list(home, a->as_json);
}

cli_exit mirror_cmd_add(const cli_usage *usage, const mirror_args *a)
{
    _cleanup_(mem_freep) char *named = cli_home(a->home), *home = cli_absolute(named);
    _cleanup_(buf_dispose) memfs_buf token = MEMFS_BUF_INIT(TOKEN_MAX);
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_error err = MEMFS_ERROR_INIT;
    cli_exit status;

    if (!is_name(a->name))
        return cli_usage_error(usage, "a remote's name is up to 32 of a-z, 0-9 and '-', not '%s'",
                               a->name);
    if (a->agent == NULL && strstr(a->url, MARK) == NULL)
        return cli_usage_error(usage, "an address for all agents needs " MARK " in it; for one "
                                      "agent say --agent ID");
    if (parse_address(a->url, &url, &err) < 0 || fs_mkdirs(home, &err) < 0 ||
        (a->from_stdin && read_token(&token, &err) < 0))
        return cli_fail(&err, NULL);
    status = add(home, a, &url, a->from_stdin ? token.ptr : url.secret);
    explicit_bzero(token.ptr, token.len);
    return status;
}

/* ---- remove ---- */

static char *address_in_file(const char *path, const char *name)
{
    _cleanup_(gitconfig_closep) gitconfig *config = NULL;
    _cleanup_(mem_freep) char *key = mem_printf("mirror.%s.url", name);
    const char *value = NULL;
    memfs_error ignored;

    if (gitconfig_open(path, &config, &ignored) == MEMFS_OK)
        value = gitconfig_get(config, key);
    return value != NULL ? mem_strdup(value) : NULL;
}

cli_exit mirror_cmd_remove(const mirror_args *a)
{
    _cleanup_(mem_freep) char *home = cli_home(a->home), *path = mem_printf("%s/config", home);
    _cleanup_(mem_freep) char *address = address_in_file(path, a->name);
    _cleanup_(section_dispose) section there = { .n_keys = 0 };
    answer reloaded = { NULL, 0, true };
    memfs_error err = MEMFS_ERROR_INIT;

    if (read_section(path, a->name, &there, &err) < 0)
        return cli_fail(&err, NULL);
    if (there.n_keys == 0) {
        cli_talk("there is no remote '%s' in '%s'", a->name, path);
        return EXIT_FAILED;
    }
    if (drop_section(path, &there, &err) < 0)
        return cli_fail(&err, NULL);
    forget_secret(home, a->name, address);
    if (ask(home, "/owner/mirror/reload", json_pack("{s:s}", "forget", a->name), &reloaded,
            &err) < 0)
        return cli_fail(&err, "the file was changed; the server goes on with the remotes it had");
    cli_talk("'%s' is no remote any more; what lies there was left as it is", a->name);
    return show_list(home, a->as_json);
}
