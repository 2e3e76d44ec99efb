#include "remote/host_int.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <strings.h>

/*
 * GitHub and GitHub Enterprise Server.
 *
 * What a token may not see is a 404 there, whatever the reason.  Headers tell more than bodies do:
 * X-OAuth-Scopes what a classic token has and X-Accepted-OAuth-Scopes what the call wants,
 * X-Accepted-GitHub-Permissions the same for a fine-grained one, and
 * github-authentication-token-expiration when it ends.  As on Gitea, a POST that names no
 * repository tells whether it may create one, and makes none.
 */

/* What the head says the token lacks; false: nothing. */
static bool lacks(const host_talk *k, char *out, size_t size)
{
    if (k->wanted_rights[0] != '\0') {
        snprintf(out, size, "the permission %.100s", k->wanted_rights);
        return true;
    }
    if (!k->has_scopes || k->wanted_scopes[0] == '\0' || host_has_any(k->scopes, k->wanted_scopes))
        return false;
    snprintf(out, size, "the scope %.100s", k->wanted_scopes);
    return true;
}

static memfs_code refused(host_talk *k, const char *what, memfs_error *err)
{
    char right[140];

    if ((k->status != 403 && k->status != 404) || !lacks(k, right, sizeof(right)))
        return host_odd(k, what, err);
    k->answer->is_credentials = true;
    k->answer->is_missing = k->status == 404;
    return host_refuse(k, k->status == 404 ? MEMFS_ENOTFOUND : MEMFS_EDENIED, err,
                       "could not %s: the token lacks %s (HTTP %d)", what, right, k->status);
}

/* "" for the token of an app, which is nobody's. */
static memfs_code ask_login(host_talk *k, char *ret, size_t size, memfs_error *err)
{
    memfs_code rc = host_get(k, "/user", err);

    ret[0] = '\0';
    if (rc == MEMFS_OK && host_is_good(k))
        snprintf(ret, size, "%s", host_text(k->json, "login"));
    return rc;
}

static bool is_own(const host *h, const char *login)
{
    return strcasecmp(login, h->owner) == 0;
}

/* ---- create ---- */

static char *path_to_create(const host *h, const char *login)
{
    return is_own(h, login) ? mem_strdup("/user/repos") : host_owner_path(h, "/orgs", "/repos");
}

static bool is_there(const host_talk *k)
{
    return k->status == 422 && strcasestr(k->said, "already exists") != NULL;
}

static memfs_code create(host_talk *k, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(16 * 1024);
    _cleanup_(mem_freep) char *path = NULL;
    _cleanup_(mem_freep) char *what = mem_printf("create '%s/%s'", k->h->owner, k->h->name);
    json_writer w = JSON_WRITER_INIT(&body);
    char login[100];
    memfs_code rc = ask_login(k, login, sizeof(login), err);

    if (rc < 0)
        return rc;
    jw_object(&w);
    jw_key_text(&w, "name", k->h->name);
    jw_key_bool(&w, "private", true);
    jw_key_bool(&w, "auto_init", false);
    jw_key_text(&w, "description", "An agent's memory, kept by memfs");
    jw_object_end(&w);
    path = path_to_create(k->h, login);
    rc = host_ask(k, "POST", path, buf_str(&body), err);
    if (rc < 0 || host_is_good(k) || is_there(k))
        return rc;
    return refused(k, what, err);
}

/* ---- check ---- */

/* A renamed repository: its number is looked up on the same API, the redirect is not followed. */
static memfs_code tell_renamed(host_talk *k, memfs_error *err)
{
    char path[60], said[64];
    int status = k->status;
    memfs_code rc;

    snprintf(said, sizeof(said), "HTTP %d", status);
    if (!host_moved_path(k->moved_to, path, sizeof(path)))
        return host_odd(k, "see the repository", err);
    rc = host_get(k, path, err);
    if (rc < 0)
        return rc;
    k->answer->http_status = status;
    if (!host_is_good(k) || host_text(k->json, "full_name")[0] == '\0')
        return host_refuse(k, MEMFS_EINVALID, err,
                           "the repository was renamed or moved (%s): give the address of now",
                           said);
    return host_refuse(k, MEMFS_EINVALID, err,
                       "the repository was renamed to '%.120s' (%s): give that address",
                       host_text(k->json, "full_name"), said);
}

static memfs_code check_repository(host_talk *k, host_rights *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = host_repo_path(k->h, "/repos", "");
    memfs_code rc = host_get(k, path, err);
    const json_t *rights;

    if (rc < 0)
        return rc;
    rights = json_object_get(k->json, "permissions");
    if (host_is_good(k)) {
        ret->is_known = true;
        ret->can_read = json_is_true(json_object_get(rights, "pull"));
        ret->can_push = json_is_true(json_object_get(rights, "push"));
        ret->is_private = !json_is_false(json_object_get(k->json, "private"));
        return MEMFS_OK;
    }
    return k->status == 301 ? tell_renamed(k, err) : refused(k, "see the repository", err);
}

static memfs_code check_create(host_talk *k, host_rights *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = path_to_create(k->h, ret->login);
    memfs_code rc = host_ask(k, "POST", path, MEMFS_STR("{}"), err);

    if (rc < 0)
        return rc;
    if (k->status == 422 || k->status == 400)
        ret->may_create = 1;
    else if (k->status == 403 || k->status == 404)
        ret->may_create = 0;
    if (ret->may_create == 0) {
        (void)refused(k, "create repositories there", err);
        snprintf(ret->create_words, sizeof(ret->create_words), "%s", k->answer->words);
    }
    return MEMFS_OK;
}

static memfs_code check(host_talk *k, host_rights *ret, memfs_error *err)
{
    host_answer first;
    memfs_error ignored;
    memfs_code rc = ask_login(k, ret->login, sizeof(ret->login), err);

    if (rc < 0)
        return rc;
    snprintf(ret->scopes, sizeof(ret->scopes), "%s", k->scopes);
    ret->expires_at_s = host_date(k->expires);
    rc = check_repository(k, ret, err);
    first = *k->answer;
    if (rc < 0 && rc != MEMFS_ENOTFOUND && rc != MEMFS_EDENIED && rc != MEMFS_EINVALID)
        return rc;
    (void)!check_create(k, ret, &ignored);
    *k->answer = first;
    return rc;
}

/* ---- list ---- */

/* Somebody else's private repositories are on no list, so only those of the token's own account and
 * of organisations are. */
static memfs_code list(host_talk *k, host_repo_fn fn, void *ctx, memfs_error *err)
{
    host_names names = { k->h->owner, "name", "full_name", fn, ctx };
    static const char own[] = "/user/repos?affiliation=owner&visibility=all&per_page=100";
    _cleanup_(mem_freep) char *of_org =
        host_owner_path(k->h, "/orgs", "/repos?type=all&per_page=100");
    _cleanup_(mem_freep) char *of_user = host_owner_path(k->h, "/users", "/repos?per_page=100");
    _cleanup_(mem_freep) char *what = mem_printf("list the repositories of '%s'", k->h->owner);
    char login[100];
    bool was_refused;
    memfs_code rc = ask_login(k, login, sizeof(login), err);

    if (rc < 0)
        return rc;
    rc = host_pages(k, is_own(k->h, login) ? own : of_org, host_name_row, &names, &was_refused,
                    err);
    if (rc == MEMFS_OK && was_refused && k->status == 404 && !is_own(k->h, login))
        rc = host_pages(k, of_user, host_name_row, &names, &was_refused, err);
    return rc < 0 || !was_refused ? rc : refused(k, what, err);
}

/* ---- hook ---- */

static void write_hook(const char *url, const char *secret, memfs_buf *out)
{
    json_writer w = JSON_WRITER_INIT(out);

    jw_object(&w);
    jw_key_text(&w, "name", "web");
    jw_key_bool(&w, "active", true);
    jw_key(&w, "events");
    jw_array(&w);
    jw_text(&w, "push");
    jw_array_end(&w);
    jw_key(&w, "config");
    jw_object(&w);
    jw_key_text(&w, "url", url);
    jw_key_text(&w, "content_type", "json");
    jw_key_text(&w, "secret", secret);
    jw_key_text(&w, "insecure_ssl", "0");
    jw_object_end(&w);
    jw_object_end(&w);
}

static memfs_code hook(host_talk *k, const char *url, const char *secret, bool *ret_made,
                       memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(16 * 1024);
    _cleanup_(mem_freep) char *path = host_repo_path(k->h, "/repos", "/hooks");
    _cleanup_(mem_freep) char *all = host_repo_path(k->h, "/repos", "/hooks?per_page=100");
    host_hook_search search = { url, false };
    bool was_refused;
    memfs_code rc = host_pages(k, all, host_hook_is, &search, &was_refused, err);

    if (rc < 0 || search.is_there)
        return rc;
    if (was_refused)
        return refused(k, "see the repository's webhooks", err);
    write_hook(url, secret, &body);
    rc = host_ask(k, "POST", path, buf_str(&body), err);
    explicit_bzero(body.ptr, body.cap);
    if (rc < 0)
        return rc;
    *ret_made = host_is_good(k);
    return *ret_made || is_there(k) ? MEMFS_OK : refused(k, "add a webhook", err);
}

const host_ops HOST_GITHUB_OPS = { create, check, list, hook };
