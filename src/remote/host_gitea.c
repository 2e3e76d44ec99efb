#include "remote/host_int.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <strings.h>

/*
 * Gitea and Forgejo, /api/v1.
 *
 * A call that a token's scopes do not cover is a 403 that names the scope, and it comes before
 * anything else is looked at.  So a POST that names no repository tells whether the token may
 * create: 422 (no name) or 403 (no right), and nothing can come of it.
 */

/* What is refused for want of a scope says which; everything else as host_odd. */
static memfs_code refused(host_talk *k, const char *what, memfs_error *err)
{
    char scope[60];

    if (k->status != 403 || !host_gitea_scope(k->said, scope, sizeof(scope)))
        return host_odd(k, what, err);
    k->answer->is_credentials = true;
    return host_refuse(k, MEMFS_EDENIED, err, "could not %s: the token lacks %s", what, scope);
}

/* "" when the token may not say whose it is. */
static memfs_code ask_login(host_talk *k, char *ret, size_t size, memfs_error *err)
{
    memfs_code rc = host_get(k, "/user", err);

    ret[0] = '\0';
    if (rc == MEMFS_OK && host_is_good(k))
        snprintf(ret, size, "%s", host_text(k->json, "login"));
    return rc;
}

/* ---- create ---- */

static char *path_to_create(const host *h, const char *login)
{
    return strcasecmp(login, h->owner) == 0 ? mem_strdup("/user/repos")
                                            : host_owner_path(h, "/orgs", "/repos");
}

/* 404: neither an organisation that the token may see nor, as far as is known, its own account. */
static memfs_code no_owner(host_talk *k, const char *login, const char *what, memfs_error *err)
{
    k->answer->is_missing = true;
    if (login[0] == '\0')
        return host_refuse(k, MEMFS_ENOTFOUND, err,
                           "could not %s: there is no organisation '%s'; if that is the token's "
                           "own account, the token lacks write:user", what, k->h->owner);
    return host_refuse(k, MEMFS_ENOTFOUND, err,
                       "could not %s: '%s' is no organisation that the token of '%s' may see, and "
                       "not its own account", what, k->h->owner, login);
}

static memfs_code judge_created(host_talk *k, const char *login, memfs_error *err)
{
    _cleanup_(mem_freep) char *what = mem_printf("create '%s/%s'", k->h->owner, k->h->name);

    if (host_is_good(k) || k->status == 409)
        return MEMFS_OK;
    return k->status == 404 ? no_owner(k, login, what, err) : refused(k, what, err);
}

static memfs_code create(host_talk *k, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(16 * 1024);
    _cleanup_(mem_freep) char *path = NULL;
    json_writer w = JSON_WRITER_INIT(&body);
    char login[100];
    memfs_code rc = ask_login(k, login, sizeof(login), err);

    if (rc < 0)
        return rc;
    jw_object(&w);
    jw_key_text(&w, "name", k->h->name);
    jw_key_bool(&w, "private", true);
    jw_key_bool(&w, "auto_init", false);
    jw_key_text(&w, "default_branch", "main");
    jw_key_text(&w, "description", "An agent's memory, kept by memfs");
    jw_object_end(&w);
    path = path_to_create(k->h, login);
    rc = host_ask(k, "POST", path, buf_str(&body), err);
    return rc < 0 ? rc : judge_created(k, login, err);
}

/* ---- check ---- */

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
    if (k->status == 403)
        (void)refused(k, "create repositories there", err);
    else if (k->status == 404)
        (void)no_owner(k, ret->login, "create repositories there", err);
    return MEMFS_OK;
}

/* An organisation says of each member whether they may create; scopes are another matter. */
static memfs_code check_member(host_talk *k, host_rights *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = NULL;
    const json_t *may;
    memfs_code rc;

    if (ret->may_create != 1 || ret->login[0] == '\0' ||
        strcasecmp(ret->login, k->h->owner) == 0)
        return MEMFS_OK;
    path = mem_printf("/users/%s/orgs/%s/permissions", ret->login, k->h->owner);
    rc = host_get(k, path, err);
    may = json_object_get(k->json, "can_create_repository");
    if (rc == MEMFS_OK && host_is_good(k) && json_is_false(may)) {
        ret->may_create = 0;
        (void)host_refuse(k, MEMFS_EDENIED, err, "'%s' may not create repositories in '%s'",
                          ret->login, k->h->owner);
    }
    return rc;
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
    return refused(k, "see the repository", err);
}

/* What could not be told is a note beside an answer, and gives way to a refusal. */
static memfs_code check(host_talk *k, host_rights *ret, memfs_error *err)
{
    host_answer answer;
    char note[sizeof(answer.words)] = "";
    memfs_code rc = ask_login(k, ret->login, sizeof(ret->login), err);
    memfs_error ignored;

    if (rc < 0)
        return rc;
    if (ret->login[0] == '\0' && refused(k, "tell whose the token is", &ignored) < 0)
        snprintf(note, sizeof(note), "%s", k->answer->words);
    rc = check_repository(k, ret, err);
    answer = *k->answer;
    if (rc == MEMFS_OK)
        memcpy(answer.words, note, sizeof(note));
    if (rc < 0 && rc != MEMFS_ENOTFOUND && rc != MEMFS_EDENIED && rc != MEMFS_EINVALID)
        return rc;
    if (check_create(k, ret, &ignored) == MEMFS_OK && check_member(k, ret, &ignored) == MEMFS_OK &&
        ret->may_create == 0)
        snprintf(ret->create_words, sizeof(ret->create_words), "%s", k->answer->words);
    *k->answer = answer;
    return rc;
}

/* ---- list ---- */

static memfs_code list(host_talk *k, host_repo_fn fn, void *ctx, memfs_error *err)
{
    host_names names = { k->h->owner, "name", "full_name", fn, ctx };
    _cleanup_(mem_freep) char *as_org = host_owner_path(k->h, "/orgs", "/repos?limit=50");
    _cleanup_(mem_freep) char *as_user = host_owner_path(k->h, "/users", "/repos?limit=50");
    _cleanup_(mem_freep) char *what = mem_printf("list the repositories of '%s'", k->h->owner);
    bool was_refused;
    memfs_code rc = host_pages(k, as_org, host_name_row, &names, &was_refused, err);
    bool lacks_org = rc == MEMFS_OK && was_refused && k->status == 403;

    if (rc < 0 || !was_refused)
        return rc;
    rc = host_pages(k, as_user, host_name_row, &names, &was_refused, err);
    if (rc < 0 || !was_refused)
        return rc;
    if (k->status == 404 && lacks_org) {
        k->answer->is_credentials = true;
        return host_refuse(k, MEMFS_EDENIED, err, "could not %s: the token lacks read:organization",
                           what);
    }
    return refused(k, what, err);
}

/* ---- hook ---- */

static void write_hook(const char *url, const char *secret, memfs_buf *out)
{
    static const char *const events[] = { "push", "create", "delete" };
    json_writer w = JSON_WRITER_INIT(out);

    jw_object(&w);
    jw_key_text(&w, "type", "gitea"); /* Forgejo knows it, too */
    jw_key_bool(&w, "active", true);
    jw_key(&w, "events");
    jw_array(&w);
    for (size_t i = 0; i < ARRAY_LEN(events); i++)
        jw_text(&w, events[i]);
    jw_array_end(&w);
    jw_key_text(&w, "branch_filter", "*");
    jw_key(&w, "config");
    jw_object(&w);
    jw_key_text(&w, "url", url);
    jw_key_text(&w, "content_type", "json");
    jw_key_text(&w, "secret", secret);
    jw_object_end(&w);
    jw_object_end(&w);
}

static memfs_code hook(host_talk *k, const char *url, const char *secret, bool *ret_made,
                       memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(16 * 1024);
    _cleanup_(mem_freep) char *path = host_repo_path(k->h, "/repos", "/hooks");
    _cleanup_(mem_freep) char *all = host_repo_path(k->h, "/repos", "/hooks?limit=50");
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
    return *ret_made ? MEMFS_OK : refused(k, "add a webhook", err);
}

const host_ops HOST_GITEA_OPS = { create, check, list, hook };
