#include "remote/host_int.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

/*
 * Which host is it, and where is its API?
 *
 * The address is "<origin>[/prefix]/owner/name[.git]".  Gitea may live below a prefix, GitLab has
 * groups in groups, so what stands before the last part is a prefix for one and an owner for the
 * other; who answers tells which.  Nothing of the three questions holds a token:
 *
 *     /api/v1/version   {"version":"1.26.0"}, of Forgejo with "+gitea-" in it.  One that wants
 *                       people to sign in first says so in JSON whose "url" is its /api/swagger
 *     /api/v4/version   GitLab: {"version":...}, without a token 401 {"message":"401 Unauthorized"}
 *     /api/v3/meta      GitHub Enterprise: "installed_version"; one in private mode refuses in JSON
 *                       with a "documentation_url"
 */

typedef struct known_host {
    const char *host;
    host_kind kind;
} known_host;

static const known_host KNOWN[] = {
    { "github.com", HOST_GITHUB },
    { "gitlab.com", HOST_GITLAB },
    { "codeberg.org", HOST_FORGEJO },
};

static host_kind kind_by_name(const remote_url *url)
{
    for (size_t i = 0; i < ARRAY_LEN(KNOWN); i++)
        if (strcmp(url->host, KNOWN[i].host) == 0)
            return KNOWN[i].kind;
    return str_ends_with(str_of(url->host), MEMFS_STR(".ghe.com")) ? HOST_GITHUB : HOST_UNKNOWN;
}

/* ---- the address ---- */

/* The path without slashes at its ends and without ".git". */
static memfs_str bare_path(const remote_url *url)
{
    memfs_str path = str_of(url->path);

    while (path.len > 0 && path.ptr[0] == '/')
        path = str_from(path, 1);
    while (path.len > 0 && path.ptr[path.len - 1] == '/')
        path.len--;
    if (str_ends_with(path, MEMFS_STR(".git")))
        path.len -= 4;
    return path;
}

static memfs_str last_part(memfs_str *path)
{
    const char *slash = memrchr(path->ptr, '/', path->len);
    size_t at = slash != NULL ? (size_t)(slash - path->ptr) : 0;
    memfs_str last = slash != NULL ? str_from(*path, at + 1) : *path;

    path->len = at;
    return last;
}

/* GitLab's owner has all parts before the name, the others' one; *ret_prefix: what is before it. */
static void set_owner(host *h, host_kind kind, memfs_str *ret_prefix)
{
    memfs_str path = bare_path(&h->target->url), name = last_part(&path), owner = path;

    if (kind != HOST_GITLAB)
        owner = last_part(&path);
    else
        path.len = 0;
    free(h->owner);
    free(h->name);
    h->owner = mem_strndup(owner.ptr, owner.len);
    h->name = mem_strndup(name.ptr, name.len);
    *ret_prefix = path;
}

/* github.com and *.ghe.com have their API on a host beside them. */
static char *api_of_github(const remote_url *url, memfs_str prefix)
{
    if (strcmp(url->host, "github.com") == 0 ||
        str_ends_with(str_of(url->host), MEMFS_STR(".ghe.com")))
        return mem_printf("https://api.%s", url->host);
    return mem_printf("%s%s%.*s/api/v3", url->origin, prefix.len > 0 ? "/" : "", (int)prefix.len,
                      prefix.ptr);
}

static void set_api(host *h, host_kind kind)
{
    const remote_url *url = &h->target->url;
    memfs_str prefix;

    set_owner(h, kind, &prefix);
    free(h->api);
    if (kind == HOST_GITHUB)
        h->api = api_of_github(url, prefix);
    else if (kind == HOST_GITLAB)
        h->api = mem_printf("%s/api/v4", url->origin);
    else
        h->api = mem_printf("%s%s%.*s/api/v1", url->origin, prefix.len > 0 ? "/" : "",
                            (int)prefix.len, prefix.ptr);
}

/* ---- asking ---- */

/* 401 is an answer here: who asks for a token that way tells what it is. */
static memfs_code ask(host_talk *k, const char *path, memfs_error *err)
{
    memfs_code rc = host_get(k, path, err);

    if (rc == MEMFS_EDENIED && k->status == 401)
        rc = MEMFS_OK;
    /* a web page, or a proxy's words: this is not what it speaks */
    return rc == MEMFS_EUNAVAIL && host_is_good(k) && k->json == NULL ? MEMFS_OK : rc;
}

static void keep_version(host *h, const host_talk *k, const char *key)
{
    snprintf(h->version, sizeof(h->version), "%.60s", host_text(k->json, key));
}

static bool is_gitea(host *h, const host_talk *k)
{
    const char *version = host_text(k->json, "version");

    if (host_is_good(k) && version[0] != '\0') {
        keep_version(h, k, "version");
        h->kind = strstr(version, "+gitea-") != NULL ? HOST_FORGEJO : HOST_GITEA;
        return true;
    }
    h->kind = HOST_GITEA;
    return (k->status == 401 || k->status == 403) &&
           strstr(host_text(k->json, "url"), "/api/swagger") != NULL;
}

static bool is_gitlab(host *h, const host_talk *k)
{
    h->kind = HOST_GITLAB;
    keep_version(h, k, "version");
    return (host_is_good(k) && h->version[0] != '\0') ||
           (k->status == 401 && strcmp(host_text(k->json, "message"), "401 Unauthorized") == 0);
}

static bool is_github(host *h, const host_talk *k)
{
    h->kind = HOST_GITHUB;
    keep_version(h, k, "installed_version");
    return (host_is_good(k) &&
            json_object_get(k->json, "verifiable_password_authentication") != NULL) ||
           (k->status >= 400 && host_text(k->json, "documentation_url")[0] != '\0');
}

static memfs_code find_out(host *h, host_talk *k, memfs_error *err)
{
    static const struct {
        host_kind kind;
        const char *path;
        bool (*is_it)(host *h, const host_talk *k);
    } questions[] = {
        { HOST_GITEA, "/version", is_gitea },
        { HOST_GITLAB, "/version", is_gitlab },
        { HOST_GITHUB, "/meta", is_github },
    };
    memfs_code rc;

    for (size_t i = 0; i < ARRAY_LEN(questions); i++) {
        set_api(h, questions[i].kind);
        h->kind = HOST_UNKNOWN; /* no token is sent to somebody who is not known */
        rc = ask(k, questions[i].path, err);
        if (rc < 0)
            return rc;
        *k->answer = (host_answer){ .http_status = k->status }; /* a 401 is what was asked for */
        if (questions[i].is_it(h, k))
            return MEMFS_OK;
        h->version[0] = '\0';
    }
    h->kind = HOST_PLAIN;
    return MEMFS_OK;
}

memfs_code host_find(const remote_target *t, host_kind kind, int64_t deadline_ms, host *ret,
                     host_answer *answer, memfs_error *err)
{
    _cleanup_(host_talk_dispose) host_talk k = {
        .h = ret, .deadline_ms = deadline_ms, .answer = answer
    };
    bool is_web = t->url.kind == URL_HTTPS || t->url.kind == URL_HTTP;

    host_dispose(ret);
    ret->target = t;
    *answer = (host_answer){ .http_status = 0 };
    if (!is_web || kind == HOST_PLAIN) {
        ret->kind = HOST_PLAIN;
        return MEMFS_OK;
    }
    if (kind == HOST_UNKNOWN)
        kind = kind_by_name(&t->url);
    if (kind == HOST_UNKNOWN)
        return find_out(ret, &k, err);
    set_api(ret, kind);
    ret->kind = kind;
    return MEMFS_OK;
}
