#include "client/prepare_int.h"

#include "base/fs.h"
#include "base/mem.h"
#include "base/program.h"
#include "store/gitconfig.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The configuration of a prepared checkout, as one list of wishes: each compares what the file says
 * with what it should say, and only what differs is written, all of it in one rewrite.  So a
 * checkout that is in order costs one read, and a crash leaves the old file or the new one.
 *
 * Three kinds of wish:
 *   must      ours alone, or of the Letta client's making with one right value
 *   unset     a default, for a key that nobody has set in this repository
 *   foreign   somebody else's decision is met: it stays, and a note says what that costs
 *
 * The header wishes stop the Letta key (contract client 7): the client puts it on every git
 * request as an unscoped http.extraHeader, and git prefers the value that is scoped to the host.
 */

#define MAX_WISHES 32
#define LETTA_CLOUD "https://api.letta.com/"
#define ORIGIN_KEY "memfs-checkout.origin" /* [memfs] is for settings */

typedef struct wishes {
    gitconfig *now;
    prepared *ret;
    gitconfig_change at[MAX_WISHES];
    size_t n;
    char *owned[MAX_WISHES * 2];
    size_t n_owned;
    bool has_secret;
} wishes;

static void wishes_dispose(wishes *w)
{
    for (size_t i = 0; i < w->n_owned; i++) {
        explicit_bzero(w->owned[i], strlen(w->owned[i]));
        free(w->owned[i]);
    }
    gitconfig_close(w->now);
}

/* The list keeps given text alive. */
static const char *own(wishes *w, char *given)
{
    w->owned[w->n_owned++] = given;
    return given;
}

static void must(wishes *w, const char *key, const char *value)
{
    const char *now = gitconfig_get(w->now, key);

    if (value == NULL ? now == NULL : now != NULL && strcmp(now, value) == 0)
        return;
    w->at[w->n++] = (gitconfig_change){ key, value };
}

static void unset(wishes *w, const char *key, const char *value)
{
    if (gitconfig_get(w->now, key) == NULL)
        w->at[w->n++] = (gitconfig_change){ key, value };
}

static void note(prepared *ret, const char *fmt, ...) MEMFS_PRINTF(2, 3);
static void note(prepared *ret, const char *fmt, ...)
{
    char line[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    buf_printf(&ret->notes, "%s\n", line);
}

/* An address for people: without what must not be seen. */
static void redacted(const char *text, char *out, size_t size)
{
    _cleanup_(buf_dispose) memfs_buf safe = MEMFS_BUF_INIT(8192);

    url_redact(&safe, str_of(text));
    snprintf(out, size, "%s", safe.ptr);
}

/* identity and manners */

static const char *agent_name(const char *agent_id)
{
    const char *ids[] = { getenv("LETTA_AGENT_ID"), getenv("AGENT_ID") };
    const char *name = getenv("AGENT_NAME");

    for (size_t i = 0; name != NULL && name[0] != '\0' && i < ARRAY_LEN(ids); i++)
        if (ids[i] != NULL && strcmp(ids[i], agent_id) == 0)
            return name;
    return "Letta Agent";
}

static void wish_identity(wishes *w, const char *agent_id)
{
    must(w, "letta.agentId", agent_id);
    unset(w, "user.name", agent_name(agent_id));
    unset(w, "user.email", own(w, mem_printf("%s@letta.com", agent_id)));
    unset(w, "commit.gpgsign", "false");
    unset(w, "core.symlinks", "false");
    unset(w, "core.autocrlf", "false");
    unset(w, "core.splitIndex", "false"); /* memfs reads an index of one file */
}

/* Text as one word of sh: git gives the driver's line to a shell. */
static char *shell_word(const char *text)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(64 * 1024);

    buf_putc(&out, '\'');
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            buf_puts(&out, "'\\''");
        else if (*text == '%')
            buf_puts(&out, "%%"); /* git's own placeholder sign */
        else
            buf_putc(&out, *text);
    }
    buf_putc(&out, '\'');
    return buf_take(&out, NULL);
}

static void wish_merge_driver(wishes *w)
{
    _cleanup_(mem_freep) char *program = NULL;
    _cleanup_(mem_freep) char *word = NULL;
    memfs_error err = MEMFS_ERROR_INIT;

    if (program_path(PROGRAM_MEMFS, &program, &err) < 0) {
        note(w->ret, "no merge driver: %s", err.msg);
        return;
    }
    word = shell_word(program);
    must(w, "merge.memfs.name", "memfs: keeps both sides, never asks");
    must(w, "merge.memfs.driver", own(w, mem_printf("%s merge-file --driver %%O %%A %%B %%P %%L", word)));
}

/* hooks */

/* A folder of links to memfs-hook, or what is left of one: an earlier home or installation. */
static bool is_hooks_of_ours(const char *path)
{
    _cleanup_(mem_freep) char *sample = mem_printf("%s/reference-transaction", path);
    char target[4096];
    ssize_t n = readlink(sample, target, sizeof(target) - 1);

    if (n < 0)
        return !fs_exists(path);
    target[n] = '\0';
    return str_ends_with(str_of(target), MEMFS_STR("/" PROGRAM_HOOK));
}

static void wish_hooks(wishes *w, const settings *s)
{
    const char *now = gitconfig_get(w->now, "core.hooksPath");
    _cleanup_(mem_freep) char *ours = mem_printf("%s/hooks", setting_text(s, SETTING_HOME));
    memfs_error err = MEMFS_ERROR_INIT;
    char *path, *users;

    if (now != NULL && now[0] != '\0' && strcmp(now, ours) != 0 && !is_hooks_of_ours(now)) {
        note(w->ret, "core.hooksPath is '%s' and stays: memfs' hooks (pre-commit rules, rescue of "
                     "reset branches) do not run here",
             now);
        return;
    }
    if (prepare_hooks(s, &path, &err) < 0) {
        note(w->ret, "no hooks: %s", err.msg);
        return;
    }
    must(w, "core.hooksPath", own(w, path));
    users = prepare_users_hooks();
    must(w, PREPARE_USERS_HOOKS_KEY, users != NULL ? own(w, users) : NULL);
}

/* origin */

/* A memory URL of this agent in a form that the Letta client rewrites by itself (client 3). */
static bool is_letta_form(const char *url, const char *agent_id)
{
    char forms[3][256];
    size_t len = strlen(url);

    snprintf(forms[0], sizeof(forms[0]), "/v1/git");
    snprintf(forms[1], sizeof(forms[1]), "/v1/git/%s", agent_id);
    snprintf(forms[2], sizeof(forms[2]), "/v1/git/%s/state.git", agent_id);
    if (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0)
        return false;
    while (len > 0 && url[len - 1] == '/')
        len--;
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        size_t n = strlen(forms[i]);

        if (len > n && strncasecmp(url + len - n, forms[i], n) == 0)
            return true;
    }
    return false;
}

/*
 * Whose origin is it?  Missing, a Letta form, what we set ourselves (ORIGIN_KEY), and any when a
 * remote was set for just this agent (memfs.remote) are ours to change; the rest stays.
 */
static bool may_change_origin(const wishes *w, const char *now, const char *agent_id)
{
    const char *last = gitconfig_get(w->now, ORIGIN_KEY);

    return now == NULL || now[0] == '\0' || is_letta_form(now, agent_id) ||
           (last != NULL && strcmp(last, now) == 0) ||
           gitconfig_get(w->now, "memfs.remote") != NULL;
}

/* *ret: what origin is from now on, NULL for none; borrowed. */
static const char *wish_origin(wishes *w, const char *agent_id, const backend_choice *choice,
                               bool *ret_other)
{
    const char *now = gitconfig_get(w->now, "remote.origin.url");
    const char *wanted = choice != NULL && choice->has_remote ? choice->target.url.text : NULL;
    char shown[300];

    must(w, "branch.main.remote", "origin");
    must(w, "branch.main.merge", STORE_MAIN);
    unset(w, "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*");
    *ret_other = false;
    if (wanted == NULL || (now != NULL && strcmp(now, wanted) == 0))
        return now;
    if (!may_change_origin(w, now, agent_id)) {
        redacted(now, shown, sizeof(shown));
        note(w->ret, "origin is '%s' and stays; memfs itself syncs with '%s'", shown, wanted);
        return now;
    }
    *ret_other = now != NULL && now[0] != '\0';
    must(w, "remote.origin.url", wanted);
    must(w, "remote.origin.pushurl", NULL);
    must(w, ORIGIN_KEY, wanted);
    return wanted;
}

/* the header that keeps the Letta key at home */

/* What a host gets instead of the key: nothing, or its own credentials when we have them. */
static void wish_header(wishes *w, const remote_url *host, const credential *cred)
{
    const char *key = own(w, mem_printf("http.%s/.extraHeader", host->origin));
    const char *now = gitconfig_get(w->now, key), *value;

    if (cred == NULL || cred->secret == NULL) {
        if (now == NULL)
            must(w, key, ""); /* a header that is there, whoever set it, stops the key as well */
        return;
    }
    value = own(w, credential_extra_header(cred));
    if (now != NULL && now[0] != '\0' && strncasecmp(now, "Authorization: Basic ", 21) != 0)
        return;
    w->has_secret = true;
    must(w, key, value);
}

static void stop_key_at(wishes *w, const char *url_text, const remote_url *base,
                        const backend_choice *choice)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_error ignored;
    bool is_target;

    if (url_text == NULL || url_parse(url_text, &url, &ignored) < 0 ||
        (url.kind != URL_HTTPS && url.kind != URL_HTTP) || url_same_origin(&url, base))
        return;
    is_target = choice != NULL && choice->has_remote && !choice->is_letta &&
                url_same_origin(&url, &choice->target.url);
    wish_header(w, &url, is_target ? &choice->target.cred : NULL);
}

/* A host that was foreign once and is the Letta endpoint now must get the key again. */
static void let_key_through(wishes *w, const remote_url *base)
{
    const char *key = own(w, mem_printf("http.%s/.extraHeader", base->origin));
    const char *now = gitconfig_get(w->now, key);

    if (now != NULL && now[0] == '\0')
        must(w, key, NULL);
}

static void wish_headers(wishes *w, const settings *s, const char *origin,
                         const backend_choice *choice)
{
    _cleanup_(url_dispose) remote_url base = REMOTE_URL_INIT;
    memfs_error ignored;

    if (url_parse(backend_letta_base(s), &base, &ignored) < 0)
        return;
    if (base.kind == URL_HTTPS || base.kind == URL_HTTP)
        let_key_through(w, &base);
    stop_key_at(w, origin, &base, choice);
    stop_key_at(w, gitconfig_get(w->now, "remote.origin.pushurl"), &base, choice);
    stop_key_at(w, LETTA_CLOUD, &base, choice);
}

/* all of it */

static memfs_code apply_wishes(const wishes *w, const char *path, const configuring *c,
                               memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    if (w->n == 0)
        return MEMFS_OK;
    if (c->before != NULL)
        rc = c->before(c->ctx, err);
    if (rc < 0)
        return rc;
    if (w->has_secret && chmod(path, 0600) < 0)
        return memfs_fail_errno(err, "could not make .git/config private");
    rc = gitconfig_apply(path, w->at, w->n, err);
    if (rc == MEMFS_OK && w->has_secret && chmod(path, 0600) < 0)
        return memfs_fail_errno(err, "could not make .git/config private");
    return rc < 0 ? memfs_context(err, "could not set up .git/config") : MEMFS_OK;
}

memfs_code prepare_config_apply(configuring *c, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", c->git_dir);
    _cleanup_(wishes_dispose) wishes w = { .ret = c->ret };
    const char *origin;
    memfs_code rc = gitconfig_open(path, &w.now, err);

    if (rc < 0)
        return rc;
    wish_identity(&w, c->agent_id);
    wish_merge_driver(&w);
    wish_hooks(&w, c->s);
    origin = wish_origin(&w, c->agent_id, c->choice, &c->is_other_origin);
    wish_headers(&w, c->s, origin, c->choice);
    return apply_wishes(&w, path, c, err);
}

/* attributes */

/* Does this line give a merge driver to all files? */
static bool sets_merge(memfs_str line)
{
    memfs_str word, rest = line;

    while (rest.len > 0 && (rest.ptr[0] == ' ' || rest.ptr[0] == '\t'))
        rest = str_from(rest, 1);
    if (!str_starts_with(rest, MEMFS_STR("* ")) && !str_starts_with(rest, MEMFS_STR("*\t")))
        return false;
    rest = str_from(rest, 2);
    while (rest.len > 0) {
        if (!str_split(rest, ' ', &word, &rest)) {
            word = rest;
            rest = MEMFS_STR("");
        }
        if (str_starts_with(word, MEMFS_STR("merge=")) || str_equal(word, MEMFS_STR("-merge")))
            return true;
    }
    return false;
}

memfs_code prepare_attributes(const char *git_dir, prepared *ret, memfs_error *err)
{
    static const char ours[] = "* merge=memfs";
    _cleanup_(mem_freep) char *folder = mem_printf("%s/info", git_dir);
    _cleanup_(mem_freep) char *path = mem_printf("%s/attributes", folder);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 20);
    memfs_str rest, line;
    memfs_code rc = fs_read(path, &text, err);

    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    for (rest = buf_str(&text); rest.len > 0;) {
        if (!str_split(rest, '\n', &line, &rest)) {
            line = rest;
            rest = MEMFS_STR("");
        }
        if (str_equal(line, str_of(ours)))
            return MEMFS_OK;
        if (sets_merge(line)) {
            note(ret, ".git/info/attributes has a merge driver of its own, which stays");
            return MEMFS_OK;
        }
    }
    if (text.len > 0 && text.ptr[text.len - 1] != '\n')
        buf_putc(&text, '\n');
    buf_printf(&text, "%s\n", ours);
    rc = buf_check(&text, "info/attributes", err);
    if (rc == MEMFS_OK)
        rc = fs_mkdirs(folder, err);
    return rc == MEMFS_OK ? fs_write_atomic(path, buf_str(&text), 0644, err) : rc;
}

memfs_code prepare_config(const settings *s, const char *git_dir, const char *agent_id,
                          const backend_choice *choice, prepared *ret, memfs_error *err)
{
    configuring c = { s, git_dir, agent_id, choice, ret, NULL, NULL, false };
    memfs_code rc = prepare_config_apply(&c, err);

    return rc == MEMFS_OK ? prepare_attributes(git_dir, ret, err) : rc;
}
