#include "cli/cli.h"

#include "base/escape.h"
#include "base/json.h"
#include "base/mem.h"
#include "client/places.h"
#include "remote/url.h"
#include "store/server_settings.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* One line of what is told: a setting of the client, or one of `memfs serve`. */
typedef struct shown {
    const char *name, *help, *origin, *key; /* key: of a config file; NULL: it is in none */
    const char *const *variables; /* NULL-terminated */
    const char *one[2];           /* the server's have one */
    bool has_value, is_set, is_secret;
    memfs_buf value; /* what may be shown of it */
    char room[PATH_MAX + 16];
} shown;
#define SHOWN_INIT                                                                                 \
    {                                                                                              \
        .value = MEMFS_BUF_INIT(64 * 1024)                                                         \
    }

static void shown_dispose(shown *w)
{
    buf_dispose(&w->value);
}

/* All that there is to show: the client's settings, then those of serve. */
typedef struct all {
    const settings *s;
    server_said server;
} all;
#define N_ALL ((size_t)SETTING_N + SERVER_N_SETTINGS)

/* Secrets are "(set)", user info in addresses is gone. */
static void show_clients(const settings *s, setting_id id, shown *w)
{
    const setting_row *row = &SETTING_ROWS[id];
    const char *text = setting_text(s, id);

    w->name = row->name;
    w->help = row->help;
    w->variables = row->variables;
    if (row->in_files || row->in_checkout) {
        snprintf(w->room, sizeof(w->room), "memfs.%s", row->name);
        w->key = w->room;
    }
    w->origin = setting_origin(s, id);
    w->has_value = text != NULL;
    w->is_set = setting_is_set(s, id);
    w->is_secret = row->is_secret;
    if (text != NULL && row->is_secret)
        buf_puts(&w->value, "(set)");
    else if (text != NULL)
        url_redact(&w->value, str_of(text));
}

/* A database may have a password among its parameters; what is no address may be anything. */
static void show_database(const char *text, memfs_buf *out)
{
    memfs_str bare = str_of(text), parameters;

    str_split(bare, '?', &bare, &parameters);
    if (strstr(text, "://") != NULL)
        url_redact(out, bare);
    else
        buf_puts(out, "(set)");
}

static void show_servers(const all *a, server_setting id, shown *w)
{
    const server_setting_row *row = &SERVER_SETTINGS[id];
    const char *text = a->server.text[id];

    w->name = row->name;
    w->help = row->help;
    w->key = row->key;
    w->one[0] = row->variable;
    w->variables = w->one;
    w->origin = w->room;
    w->has_value = text != NULL;
    w->is_set = a->server.by[id] != SAID_NOT;
    if (a->server.by[id] == SAID_VARIABLE)
        snprintf(w->room, sizeof(w->room), "environment %s", row->variable);
    else if (a->server.by[id] == SAID_KEY)
        snprintf(w->room, sizeof(w->room), "file %s/config", setting_text(a->s, SETTING_HOME));
    else
        w->origin = text != NULL ? "default" : "not set";
    if (text != NULL && row->is_database)
        show_database(text, &w->value);
    else if (text != NULL)
        url_redact(&w->value, str_of(text));
}

/* i: a setting_id, and behind those a server_setting. */
static void show_one(const all *a, size_t i, shown *w)
{
    if (i < SETTING_N)
        show_clients(a->s, (setting_id)i, w);
    else
        show_servers(a, (server_setting)(i - SETTING_N), w);
}

static void put_json(const all *a, size_t i, json_writer *w)
{
    _cleanup_(shown_dispose) shown it = SHOWN_INIT;

    show_one(a, i, &it);
    jw_object(w);
    jw_key_text(w, "name", it.name);
    jw_key_text(w, "value", it.has_value ? it.value.ptr : NULL);
    jw_key_text(w, "origin", it.origin);
    jw_key_bool(w, "is_set", it.is_set);
    jw_key_bool(w, "is_secret", it.is_secret);
    jw_key(w, "variables");
    jw_array(w);
    for (const char *const *v = it.variables; *v != NULL; v++)
        jw_text(w, *v);
    jw_array_end(w);
    jw_key_text(w, "key", it.key);
    jw_key_text(w, "help", it.help);
    jw_object_end(w);
}

static void put_warnings(const settings *s, json_writer *w)
{
    memfs_str rest = str_of(settings_warnings(s)), line;

    jw_key(w, "warnings");
    jw_array(w);
    while (str_split(rest, '\n', &line, &rest))
        jw_str(w, line);
    jw_array_end(w);
}

static cli_exit print_json(const all *a, size_t only)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1024 * 1024);
    json_writer w = JSON_WRITER_INIT(&out);

    if (only != N_ALL) {
        put_json(a, only, &w);
    } else {
        jw_object(&w);
        jw_key(&w, "settings");
        jw_array(&w);
        for (size_t i = 0; i < N_ALL; i++)
            put_json(a, i, &w);
        jw_array_end(&w);
        put_warnings(a->s, &w);
        jw_object_end(&w);
    }
    puts(out.ptr);
    return cli_finish(EXIT_GOOD);
}

static void say_warnings(const settings *s)
{
    memfs_str rest = str_of(settings_warnings(s)), line;

    while (str_split(rest, '\n', &line, &rest))
        cli_talk("%.*s", (int)line.len, line.ptr);
}

/* False: there is no value. */
static bool print_row(const all *a, size_t i, bool with_name, bool with_origin)
{
    _cleanup_(shown_dispose) shown it = SHOWN_INIT;

    show_one(a, i, &it);
    if (!with_name && !it.has_value)
        return false;
    if (with_name)
        printf("%-18s  ", it.name);
    cli_print_safe(buf_str(&it.value));
    if (with_origin) {
        fputs("  # ", stdout);
        cli_print_safe(str_of(it.origin));
    }
    putchar('\n');
    return true;
}

static cli_exit show(const all *a, size_t only, bool with_origin, bool as_json)
{
    if (as_json)
        return print_json(a, only);
    say_warnings(a->s);
    for (size_t i = 0; only == N_ALL && i < N_ALL; i++)
        print_row(a, i, true, with_origin);
    if (only != N_ALL && !print_row(a, only, false, with_origin))
        return EXIT_FAILED; /* as git config: nothing to print */
    return cli_finish(EXIT_GOOD);
}

/* An address with a secret in it is for `remote set`, which takes it apart. */
static memfs_code check_address(setting_id id, const char *value, memfs_error *err)
{
    static const char example[] = "agent-00000000-0000-4000-8000-000000000000";
    _cleanup_(mem_freep) char *expanded = NULL;
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_code rc;

    if (id != SETTING_REMOTE && id != SETTING_GIT_URL && id != SETTING_MEMFS_BASE_URL &&
        id != SETTING_BASE_URL)
        return MEMFS_OK;
    rc = url_expand(value, example, &expanded, err);
    if (rc == MEMFS_OK)
        rc = url_parse(expanded, &url, err);
    if (rc == MEMFS_OK && url.secret != NULL)
        rc = memfs_fail(err, MEMFS_EDENIED,
                        "the address holds a secret, which belongs into no "
                        "config file: use 'memfs remote set'");
    return rc;
}

static cli_exit change(const settings *s, const char *work_tree, setting_id id, const char *value)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if ((value != NULL && check_address(id, value, &err) < 0) ||
        settings_change(s, work_tree, id, value, &err) < 0)
        return cli_fail(&err, err.code == MEMFS_ENOTFOUND ? "'memfs apply' makes it" : NULL);
    if (setting_level_of(s, id) < (work_tree ? SETTING_LEVEL_CHECKOUT : SETTING_LEVEL_HOME))
        cli_talk("note: '%s' is also said by %s, which wins", SETTING_ROWS[id].name,
                 setting_origin(s, id));
    return EXIT_GOOD;
}

/*
 * To put a wrong value right, it must not stand in the way: when settings cannot be loaded, they
 * are once more with the one that is to change overruled.
 */
static memfs_code load_for_change(const char *home, setting_id id, const char *value,
                                  settings **ret, memfs_error *err)
{
    const char *fallback = SETTING_ROWS[id].default_text;
    const setting_override overrides[] = {
        { id, value != NULL      ? value
              : fallback != NULL ? fallback
                                 : "/" },
        { SETTING_HOME, home },
    };
    memfs_error first = MEMFS_ERROR_INIT;

    if (settings_load(NULL, &overrides[1], home != NULL, ret, &first) == MEMFS_OK)
        return MEMFS_OK;
    if (settings_load(NULL, overrides, home != NULL ? 2 : 1, ret, err) == MEMFS_OK)
        return MEMFS_OK;
    *err = first;
    return first.code;
}

/* Where it stands among all; N_ALL: there is none of that name. */
static size_t find_setting(const char *name)
{
    setting_id id = setting_by_name(name);

    return id != SETTING_N ? (size_t)id : (size_t)SETTING_N + server_setting_by_name(name);
}

/* An operator's file is an operator's to write: a database's address may hold a password. */
static cli_exit refuse_servers(server_setting id, const char *home)
{
    _cleanup_(mem_freep) char *folder = cli_home(home);

    cli_talk("'%s' is of 'memfs serve': write %s into '%s/config'", SERVER_SETTINGS[id].name,
             SERVER_SETTINGS[id].key, folder);
    return EXIT_USAGE;
}

static cli_exit show_from(const settings *s, size_t only, bool with_origin, bool as_json)
{
    all a = { s, SERVER_SAID_INIT };
    memfs_error err = MEMFS_ERROR_INIT;
    cli_exit status;

    if (server_said_read(setting_text(s, SETTING_HOME), NULL, &a.server, &err) < 0)
        return cli_fail(&err, NULL);
    status = show(&a, only, with_origin, as_json);
    server_said_dispose(&a.server);
    return status;
}

typedef struct arguments {
    const char *verb; /* "show", "set", "unset" */
    const char *name, *value;
} arguments;

/* [set | unset] NAME VALUE; a name alone is shown. */
static bool sort_out(const cli_usage *usage, const char **rest, size_t n, arguments *ret,
                     cli_exit *ret_exit)
{
    bool is_set = n > 0 && strcmp(rest[0], "set") == 0;
    bool is_unset = n > 0 && strcmp(rest[0], "unset") == 0;

    *ret = (arguments){ is_set ? "set" : is_unset ? "unset" : "show", NULL, NULL };
    if (is_set && n != 3) {
        *ret_exit = cli_usage_error(usage, "set needs a name and a value");
        return false;
    }
    if (is_unset && n != 2) {
        *ret_exit = cli_usage_error(usage, "unset needs a name");
        return false;
    }
    if (!is_set && !is_unset && n > 1) {
        *ret_exit = cli_usage_error(usage, "unexpected '%s'", rest[1]);
        return false;
    }
    if (n > 0)
        ret->name = rest[is_set || is_unset ? 1 : 0];
    if (is_set)
        ret->value = rest[2];
    return true;
}

int cmd_config(int argc, char **argv)
{
    _cleanup_(settings_freep) settings *s = NULL, *own = NULL;
    _cleanup_(place_dispose) place p = PLACE_INIT;
    const char *agent = NULL, *home = NULL, *rest[3];
    bool with_origin = false, as_json = false, is_show;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID",
          "with (set, unset: in) the configuration of its checkout" },
        { "show-origin", CLI_FLAG, &with_origin, NULL, "say where each value comes from" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "as JSON" },
    };
    const cli_usage usage = {
        "config [--show-origin] [--json] [--agent ID] [NAME]\n"
        "       memfs config (set NAME VALUE | unset NAME) [--agent ID]",
        "Shows settings. Highest first: command line, environment, [memfs] in the checkout's\n"
        ".git/config, $MEMFS_HOME/config, /etc/memfs/config, \"env\" of ~/.letta/settings.json,\n"
        "default. Those of 'memfs serve' stand last: command line, environment,\n"
        "$MEMFS_HOME/config. NAME is a name of this list or a variable's. set and unset write\n"
        "$MEMFS_HOME/config. Secrets are shown as \"(set)\" and kept in no config file.",
        options,
        ARRAY_LEN(options),
        "  memfs config --show-origin\n  memfs config set backend local\n",
        "set unset"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    setting_override override;
    size_t which = N_ALL;
    arguments args;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, 3, &n_rest, &status) ||
        !sort_out(&usage, rest, n_rest, &args, &status))
        return status;
    is_show = strcmp(args.verb, "show") == 0;
    if (args.name != NULL) {
        which = find_setting(args.name);
        if (which == N_ALL)
            return cli_usage_error(&usage, "there is no setting '%s'; 'memfs config' lists them",
                                   args.name);
    }
    if (!is_show && which >= SETTING_N)
        return refuse_servers((server_setting)(which - SETTING_N), home);
    override = (setting_override){ SETTING_HOME, home };
    if ((is_show ? settings_load(NULL, &override, home != NULL, &s, &err)
                 : load_for_change(home, (setting_id)which, args.value, &s, &err)) < 0)
        return cli_fail(&err, NULL);
    if (is_show)
        agent = cli_agent(agent);
    if (agent != NULL && place_of(s, agent, &p, &err) < 0)
        return cli_fail(&err, NULL);
    if (!is_show)
        return change(s, p.memory, (setting_id)which, args.value);
    if (settings_with_checkout(s, p.memory, &own, &err) < 0)
        return cli_fail(&err, NULL);
    return show_from(own, which, with_origin, as_json);
}
