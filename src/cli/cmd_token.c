#include "cli/cli.h"

#include "base/fs.h"
#include "base/mem.h"
#include "cli/owner.h"

#include <stdio.h>
#include <string.h>

/* What a route told: its lines but the last, and the last. */
typedef struct told {
    json_t *tokens; /* array */
    json_t *result;
} told;

static void told_dispose(told *t)
{
    json_decref(t->tokens);
    json_decref(t->result);
}

static void on_line(const json_t *line, void *ctx)
{
    json_t *token = json_object_get(line, "token"), *result = json_object_get(line, "result");
    told *t = ctx;

    if (token != NULL)
        json_array_append(t->tokens, token);
    if (result != NULL && t->result == NULL)
        t->result = json_incref(result);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

/* body: given */
static memfs_code ask(const char *home, const char *route, json_t *body, told *ret,
                      memfs_error *err)
{
    _cleanup_(owner_closep) owner *o = NULL;
    memfs_code rc = owner_connect(home, &o, err);

    *ret = (told){ json_array(), NULL };
    if (rc == MEMFS_OK)
        rc = owner_run(o, route, body, on_line, ret, err);
    json_decref(body);
    return rc;
}

static cli_exit finish_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_COMPACT);
    putchar('\n');
    return cli_finish(EXIT_GOOD);
}

/* ---- create ---- */

/* "90d": how many seconds.  False: it is not that. */
static bool parse_life(const char *text, int64_t *ret_s)
{
    static const struct {
        char sign;
        int64_t s;
    } units[] = { { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 7 * 86400 } };
    size_t n = strlen(text);
    uint64_t number;

    if (n < 2 || !str_to_u64(str_make(text, n - 1), 1000000, &number) || number == 0)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (text[n - 1] != units[i].sign)
            continue;
        *ret_s = (int64_t)number * units[i].s;
        return true;
    }
    return false;
}

/* The token is data, all else is talk. */
static cli_exit show_new(const json_t *result, bool as_json)
{
    const char *end = text_of(result, "expires_at");

    if (as_json)
        return finish_json(result);
    printf("%s\n", text_of(result, "token"));
    cli_talk("token %s (%s), %s%s; it is shown only this once", text_of(result, "id"),
             text_of(result, "scope"), end[0] != '\0' ? "good until " : "without an end", end);
    if (json_is_true(json_object_get(result, "is_first")))
        cli_talk("it is the first: from now on every request over TCP needs a token");
    return cli_finish(EXIT_GOOD);
}

static cli_exit create(const char *home, const char *scope, const char *name, int64_t life_s,
                       bool as_json)
{
    _cleanup_(told_dispose) told t = { NULL, NULL };
    json_t *body = json_pack("{s:s, s:s, s:o}", "scope", scope, "name", name != NULL ? name : "",
                             "expires_in_s", life_s > 0 ? json_integer(life_s) : json_null());
    memfs_error err = MEMFS_ERROR_INIT;

    if (body == NULL) {
        cli_talk("--name is not UTF-8 text");
        return EXIT_USAGE;
    }
    /* the first is often made before the first start: a server beyond loopback needs it */
    if (fs_mkdirs(home, &err) < 0 || ask(home, "/owner/token/create", body, &t, &err) < 0)
        return cli_fail(&err, NULL);
    return show_new(t.result, as_json);
}

/* ---- list, revoke ---- */

static void show_token(const json_t *token)
{
    const char *end = text_of(token, "expires_at");

    printf("%s  %-7s  %s  created %s", text_of(token, "id"), text_of(token, "state"),
           text_of(token, "scope"), text_of(token, "created_at"));
    if (end[0] != '\0')
        printf("  until %s", end);
    if (text_of(token, "name")[0] != '\0') {
        fputs("  ", stdout);
        cli_print_safe(str_of(text_of(token, "name")));
    }
    putchar('\n');
}

static cli_exit list(const char *home, bool as_json)
{
    _cleanup_(told_dispose) told t = { NULL, NULL };
    memfs_error err = MEMFS_ERROR_INIT;
    json_t *token;
    size_t i;

    if (ask(home, "/owner/token/list", json_object(), &t, &err) < 0)
        return cli_fail(&err, NULL);
    if (as_json)
        return finish_json(t.tokens);
    json_array_foreach(t.tokens, i, token)
        show_token(token);
    if (json_array_size(t.tokens) == 0)
        cli_talk("there is no token; 'memfs token create' makes one");
    return cli_finish(EXIT_GOOD);
}

static cli_exit revoke(const char *home, const char *id, bool as_json)
{
    _cleanup_(told_dispose) told t = { NULL, NULL };
    memfs_error err = MEMFS_ERROR_INIT;
    json_t *body = json_pack("{s:s}", "id", id);

    if (body == NULL) {
        cli_talk("the id is not UTF-8 text");
        return EXIT_USAGE;
    }
    if (ask(home, "/owner/token/revoke", body, &t, &err) < 0)
        return cli_fail(&err,
                        err.code == MEMFS_ENOTFOUND ? "'memfs token list' shows the ids" : NULL);
    if (as_json)
        return finish_json(t.result);
    cli_talk("token %s opens nothing any more", text_of(t.result, "id"));
    return cli_finish(EXIT_GOOD);
}

/* ---- the command ---- */

int cmd_token(int argc, char **argv)
{
    _cleanup_(mem_freep) char *named = NULL, *home_path = NULL;
    const char *home = NULL, *scope = NULL, *name = NULL, *expires = NULL, *rest[2];
    bool as_json = false;
    const cli_option options[] = {
        { "scope", CLI_TEXT, &scope, "SCOPE",
          "create: admin (without it), agent:ID:rw|ro or repo:ID:rw|ro" },
        { "name", CLI_TEXT, &name, "TEXT", "create: whose it is, for the list" },
        { "expires", CLI_TEXT, &expires, "TIME", "create: after 30m, 12h, 90d or 8w (never)" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON value on stdout" },
    };
    const cli_usage usage = {
        "token (create [--scope SCOPE] [--name TEXT] [--expires TIME] | list | revoke ID) [--json]",
        "Tokens for a server that others can reach.  As soon as there was one, every request over\n"
        "TCP needs one: as Bearer, or as the password of Basic with any user name.\n"
        "create prints a new token, which is stored as its hash and never shown again.  An\n"
        "agent's token opens that agent's memory only, rw for reading and writing, ro for reading.\n"
        "revoke ends one at once, by the id that create and list name.",
        options, ARRAY_LEN(options),
        "  memfs token create --name laptop --expires 90d\n"
        "  memfs token create --scope agent:agent-5d1c2f3a-0b1e-4c7d-9a2b-6f0e1d2c3b4a:ro\n"
        "  memfs token revoke 1a2b3c4d\n",
        "create list revoke"
    };
    int64_t life_s = 0;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, ARRAY_LEN(rest), &n_rest, &status))
        return status;
    if (expires != NULL && !parse_life(expires, &life_s))
        return cli_usage_error(&usage, "--expires needs 30m, 12h, 90d or 8w, not '%s'", expires);
    named = cli_home(home);
    home_path = cli_absolute(named);
    if (n_rest == 2 && strcmp(rest[0], "revoke") == 0)
        return revoke(home_path, rest[1], as_json);
    if (n_rest == 1 && strcmp(rest[0], "list") == 0)
        return list(home_path, as_json);
    if (n_rest == 1 && strcmp(rest[0], "create") == 0)
        return create(home_path, scope != NULL ? scope : "admin", name, life_s, as_json);
    return cli_usage_error(&usage, "expected create, list, or revoke and an ID");
}
