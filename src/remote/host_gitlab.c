#include "remote/host_int.h"

#include "base/httpc.h"
#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <strings.h>

/*
 * GitLab, /api/v4.
 *
 * A path is one segment there ("g%2Fr").  Every token may ask what it may itself
 * (/personal_access_tokens/self), and a call that its scopes do not cover is a 403
 * "insufficient_scope" that lists those that would.  Nothing but `api` creates or adds hooks; the
 * two repository scopes are enough for git, and then the API shows nothing of the repository.
 */

static bool lacks_scope(const host_talk *k, char *out, size_t size)
{
    const char *scopes = host_text(k->json, "scope");

    if (k->status != 403 || strcmp(host_text(k->json, "error"), "insufficient_scope") != 0)
        return false;
    snprintf(out, size, "%.*s", (int)strcspn(scopes, " "), scopes[0] != '\0' ? scopes : "api");
    return true;
}

static memfs_code refused(host_talk *k, const char *what, memfs_error *err)
{
    char scope[40];

    if (!lacks_scope(k, scope, sizeof(scope)))
        return host_odd(k, what, err);
    k->answer->is_credentials = true;
    return host_refuse(k, MEMFS_EDENIED, err, "could not %s: the token lacks the scope %s", what,
                       scope);
}

/* Whose the token is; name "" when it may not say. */
typedef struct account {
    char name[100];
    json_int_t id;
    bool may_create; /* projects of its own */
} account;

static memfs_code ask_account(host_talk *k, account *ret, memfs_error *err)
{
    memfs_code rc = host_get(k, "/user", err);

    *ret = (account){ .name = "" };
    if (rc < 0 || !host_is_good(k))
        return rc;
    snprintf(ret->name, sizeof(ret->name), "%s", host_text(k->json, "username"));
    ret->id = json_integer_value(json_object_get(k->json, "id"));
    ret->may_create = !json_is_false(json_object_get(k->json, "can_create_project"));
    return rc;
}

static bool is_own(const host *h, const account *a)
{
    return a->name[0] != '\0' && strcasecmp(a->name, h->owner) == 0;
}

/* "<before>owner%2Fname<after>" */
static char *project_path(const host *h, const char *after)
{
    _cleanup_(mem_freep) char *full = mem_printf("%s/%s", h->owner, h->name);
    memfs_buf out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    buf_puts(&out, "/projects/");
    httpc_escape(&out, str_of(full));
    buf_puts(&out, after);
    return buf_take(&out, NULL);
}

/* ---- create ---- */

/* The group's number, or the account's as an owner. */
static memfs_code find_namespace(host_talk *k, json_int_t *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = host_owner_path(k->h, "/namespaces", "");
    memfs_code rc = host_get(k, path, err);

    if (rc < 0)
        return rc;
    *ret = json_integer_value(json_object_get(k->json, "id"));
    if (host_is_good(k) && *ret > 0)
        return MEMFS_OK;
    k->answer->is_missing = k->status == 404;
    if (k->status == 404)
        return host_refuse(k, MEMFS_ENOTFOUND, err,
                           "there is no group '%s' that the token may see: make the group, or give "
                           "the token's account access to it", k->h->owner);
    return refused(k, "find the group", err);
}

static memfs_code judge_created(host_talk *k, memfs_error *err)
{
    _cleanup_(mem_freep) char *what = mem_printf("create '%s/%s'", k->h->owner, k->h->name);

    if (host_is_good(k) || (k->status == 400 && strcasestr(k->said, "already been taken") != NULL))
        return MEMFS_OK;
    if (k->status == 400 && strstr(k->said, "namespace") != NULL) {
        k->answer->is_credentials = true;
        return host_refuse(k, MEMFS_EDENIED, err,
                           "could not %s: the token's account may not create projects in '%s' "
                           "(HTTP 400: '%.80s')", what, k->h->owner, k->said);
    }
    return refused(k, what, err);
}

static memfs_code create(host_talk *k, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(16 * 1024);
    json_writer w = JSON_WRITER_INIT(&body);
    json_int_t namespace = 0; /* the token's own account */
    account who;
    memfs_code rc = ask_account(k, &who, err);

    if (rc == MEMFS_OK && !is_own(k->h, &who))
        rc = find_namespace(k, &namespace, err);
    if (rc < 0)
        return rc;
    jw_object(&w);
    jw_key_text(&w, "name", k->h->name);
    jw_key_text(&w, "path", k->h->name);
    if (namespace > 0)
        jw_key_int(&w, "namespace_id", namespace);
    jw_key_text(&w, "visibility", "private");
    jw_key_bool(&w, "initialize_with_readme", false);
    jw_key_text(&w, "default_branch", "main");
    jw_key_text(&w, "description", "An agent's memory, kept by memfs");
    jw_object_end(&w);
    rc = host_ask(k, "POST", "/projects", buf_str(&body), err);
    return rc < 0 ? rc : judge_created(k, err);
}

/* ---- check ---- */

static void add_scope(memfs_buf *out, const char *scope)
{
    buf_puts(out, out->len > 0 ? ", " : "");
    buf_puts(out, scope);
}

static memfs_code check_token(host_talk *k, host_rights *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf scopes = MEMFS_BUF_INIT(sizeof(ret->scopes) - 1);
    memfs_code rc = host_get(k, "/personal_access_tokens/self", err);
    const json_t *list, *row;
    size_t i;

    if (rc < 0 || !host_is_good(k))
        return rc; /* a deploy or job token is none of these: it has no such page */
    list = json_object_get(k->json, "scopes");
    json_array_foreach(list, i, row)
        if (json_is_string(row))
            add_scope(&scopes, json_string_value(row));
    snprintf(ret->scopes, sizeof(ret->scopes), "%s", scopes.ptr);
    ret->expires_at_s = host_date(host_text(k->json, "expires_at"));
    return MEMFS_OK;
}

static json_int_t level_of(const json_t *rights, const char *key)
{
    return json_integer_value(json_object_get(json_object_get(rights, key), "access_level"));
}

/* 20 is a Reporter, 30 a Developer, 40 a Maintainer.  main is protected from its first push on, and
 * then Maintainers alone may push to it, unless somebody said otherwise. */
static void read_rights(const json_t *json, host_rights *ret)
{
    const json_t *rights = json_object_get(json, "permissions");
    json_int_t project = level_of(rights, "project_access");
    json_int_t group = level_of(rights, "group_access");
    json_int_t level = project > group ? project : group;

    ret->is_known = true;
    ret->is_private = strcmp(host_text(json, "visibility"), "private") == 0;
    ret->can_read = level >= 20 || !ret->is_private;
    ret->can_push = level >= 30;
}

static memfs_code check_repository(host_talk *k, host_rights *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = project_path(k->h, "");
    memfs_code rc = host_get(k, path, err);

    if (rc < 0)
        return rc;
    if (!host_is_good(k))
        return refused(k, "see the project", err);
    read_rights(k->json, ret);
    return MEMFS_OK;
}

/* What a member may do in a group; Developers may create where the group lets them. */
static memfs_code check_member(host_talk *k, const account *who, host_rights *ret, memfs_error *err)
{
    json_int_t namespace, level;
    char path[120];
    memfs_code rc = find_namespace(k, &namespace, err);

    if (rc < 0)
        return rc;
    snprintf(path, sizeof(path), "/groups/%lld/members/all/%lld", (long long)namespace,
             (long long)who->id);
    rc = host_get(k, path, err);
    if (rc < 0 || who->id == 0 || (!host_is_good(k) && k->status != 404))
        return rc; /* it cannot be told */
    level = json_integer_value(json_object_get(k->json, "access_level"));
    ret->may_create = level >= 40 ? 1 : level >= 30 ? -1 : 0;
    if (ret->may_create == 0)
        return host_refuse(k, MEMFS_EDENIED, err,
                           "'%s' may not create projects in '%s': make it a Maintainer there",
                           who->name, k->h->owner);
    return MEMFS_OK;
}

static memfs_code check_create(host_talk *k, const account *who, host_rights *ret, memfs_error *err)
{
    if (ret->scopes[0] != '\0' && !host_has_any(ret->scopes, "api")) {
        ret->may_create = 0;
        return host_refuse(k, MEMFS_EDENIED, err,
                           "the token lacks the scope api, without which it creates no project but "
                           "by a first push");
    }
    if (!is_own(k->h, who))
        return check_member(k, who, ret, err);
    ret->may_create = who->may_create;
    return who->may_create ? MEMFS_OK
                           : host_refuse(k, MEMFS_EDENIED, err,
                                         "'%s' may not create projects: its limit is reached, or "
                                         "the administrator forbids it", who->name);
}

static memfs_code check(host_talk *k, host_rights *ret, memfs_error *err)
{
    host_answer first;
    memfs_error ignored;
    account who;
    memfs_code rc = check_token(k, ret, err);

    if (rc == MEMFS_OK)
        rc = ask_account(k, &who, err);
    if (rc < 0)
        return rc;
    snprintf(ret->login, sizeof(ret->login), "%s", who.name);
    rc = check_repository(k, ret, err);
    first = *k->answer;
    if (rc < 0 && rc != MEMFS_ENOTFOUND && rc != MEMFS_EDENIED && rc != MEMFS_EINVALID)
        return rc;
    if (check_create(k, &who, ret, &ignored) == MEMFS_ENOTFOUND)
        ret->may_create = 0;
    if (ret->may_create == 0)
        snprintf(ret->create_words, sizeof(ret->create_words), "%s", k->answer->words);
    *k->answer = first;
    return rc;
}

/* ---- list ---- */

static bool is_group(host_talk *k, memfs_code *ret_rc, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = host_owner_path(k->h, "/namespaces", "");

    *ret_rc = host_get(k, path, err);
    return *ret_rc == MEMFS_OK && strcmp(host_text(k->json, "kind"), "user") != 0;
}

static memfs_code list(host_talk *k, host_repo_fn fn, void *ctx, memfs_error *err)
{
    /* subgroups' projects have another owner, but are not asked for; the names are paths */
    host_names names = { k->h->owner, "path", "path_with_namespace", fn, ctx };
    _cleanup_(mem_freep) char *of_group = host_owner_path(
        k->h, "/groups",
        "/projects?include_subgroups=false&with_shared=false&simple=true&per_page=100");
    _cleanup_(mem_freep) char *of_user =
        host_owner_path(k->h, "/users", "/projects?simple=true&per_page=100");
    _cleanup_(mem_freep) char *what = mem_printf("list the projects of '%s'", k->h->owner);
    bool was_refused;
    memfs_code rc;
    bool group = is_group(k, &rc, err);

    if (rc < 0)
        return rc;
    rc = host_pages(k, group ? of_group : of_user, host_name_row, &names, &was_refused, err);
    return rc < 0 || !was_refused ? rc : refused(k, what, err);
}

/* ---- hook ---- */

static void write_hook(const char *url, const char *secret, memfs_buf *out)
{
    bool is_signing = str_starts_with(str_of(secret), MEMFS_STR("whsec_"));
    json_writer w = JSON_WRITER_INIT(out);

    jw_object(&w);
    jw_key_text(&w, "url", url);
    jw_key_bool(&w, "push_events", true);
    jw_key_text(&w, is_signing ? "signing_token" : "token", secret);
    jw_key_bool(&w, "enable_ssl_verification", true);
    jw_object_end(&w);
}

static memfs_code hook(host_talk *k, const char *url, const char *secret, bool *ret_made,
                       memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(16 * 1024);
    _cleanup_(mem_freep) char *path = project_path(k->h, "/hooks");
    _cleanup_(mem_freep) char *all = project_path(k->h, "/hooks?per_page=100");
    host_hook_search search = { url, false };
    bool was_refused;
    memfs_code rc = host_pages(k, all, host_hook_is, &search, &was_refused, err);

    if (rc < 0 || search.is_there)
        return rc;
    if (was_refused)
        return refused(k, "see the project's webhooks", err);
    write_hook(url, secret, &body);
    rc = host_ask(k, "POST", path, buf_str(&body), err);
    explicit_bzero(body.ptr, body.cap);
    if (rc < 0)
        return rc;
    *ret_made = host_is_good(k);
    return *ret_made ? MEMFS_OK : refused(k, "add a webhook", err);
}

const host_ops HOST_GITLAB_OPS = { create, check, list, hook };
