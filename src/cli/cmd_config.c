#include "cli/cli.h"

#include "base/escape.h"
#include "base/json.h"
#include "base/mem.h"
#include "client/places.h"
#include "remote/url.h"

#include <stdio.h>
#include <string.h>

/* What may be shown of a value: secrets are "(set)", user info in addresses is gone. */
static void shown_value(const settings *s, setting_id id, memfs_buf *out)
{
    const char *text = setting_text(s, id);

    if (text == NULL)
        return;
    if (SETTING_ROWS[id].is_secret)
        buf_puts(out, "(set)");
    else
        url_redact(out, str_of(text));
}

static void put_json(const settings *s, setting_id id, json_writer *w)
{
    _cleanup_(buf_dispose) memfs_buf value = MEMFS_BUF_INIT(64 * 1024);
    const setting_row *row = &SETTING_ROWS[id];

    shown_value(s, id, &value);
    jw_object(w);
    jw_key_text(w, "name", row->name);
    jw_key_text(w, "value", setting_text(s, id) != NULL ? value.ptr : NULL);
    jw_key_text(w, "origin", setting_origin(s, id));
    jw_key_bool(w, "is_set", setting_is_set(s, id));
    jw_key_bool(w, "is_secret", row->is_secret);
    jw_key(w, "variables");
    jw_array(w);
    for (const char *const *v = row->variables; *v != NULL; v++)
        jw_text(w, *v);
    jw_array_end(w);
    jw_key_text(w, "help", row->help);
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

static cli_exit print_json(const settings *s, setting_id only)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1024 * 1024);
    json_writer w = JSON_WRITER_INIT(&out);

    if (only != SETTING_N) {
        put_json(s, only, &w);
    } else {
        jw_object(&w);
        jw_key(&w, "settings");
        jw_array(&w);
        for (setting_id id = 0; id < SETTING_N; id++)
            put_json(s, id, &w);
        jw_array_end(&w);
        put_warnings(s, &w);
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

static void print_row(const settings *s, setting_id id, bool with_name, bool with_origin)
{
    _cleanup_(buf_dispose) memfs_buf value = MEMFS_BUF_INIT(64 * 1024);

    shown_value(s, id, &value);
    if (with_name)
        printf("%-18s  ", SETTING_ROWS[id].name);
    cli_print_safe(buf_str(&value));
    if (with_origin) {
        fputs("  # ", stdout);
        cli_print_safe(str_of(setting_origin(s, id)));
    }
    putchar('\n');
}

static cli_exit show(const settings *s, setting_id only, bool with_origin, bool as_json)
{
    if (as_json)
        return print_json(s, only);
    say_warnings(s);
    if (only == SETTING_N) {
        for (setting_id id = 0; id < SETTING_N; id++)
            print_row(s, id, true, with_origin);
    } else {
        if (setting_text(s, only) == NULL)
            return EXIT_FAILED; /* as git config: nothing to print */
        print_row(s, only, false, with_origin);
    }
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
        "default. NAME is a name of this list or a variable's. set and unset write\n"
        "$MEMFS_HOME/config. Secrets are shown as \"(set)\" and kept in no config file.",
        options,
        ARRAY_LEN(options),
        "  memfs config --show-origin\n  memfs config set backend local\n",
        "set unset"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    setting_override override;
    setting_id id = SETTING_N;
    arguments args;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, 3, &n_rest, &status) ||
        !sort_out(&usage, rest, n_rest, &args, &status))
        return status;
    is_show = strcmp(args.verb, "show") == 0;
    if (args.name != NULL) {
        id = setting_by_name(args.name);
        if (id == SETTING_N)
            return cli_usage_error(&usage, "there is no setting '%s'; 'memfs config' lists them",
                                   args.name);
    }
    override = (setting_override){ SETTING_HOME, home };
    if ((is_show ? settings_load(NULL, &override, home != NULL, &s, &err)
                 : load_for_change(home, id, args.value, &s, &err)) < 0)
        return cli_fail(&err, NULL);
    if (is_show)
        agent = cli_agent(agent);
    if (agent != NULL && place_of(s, agent, &p, &err) < 0)
        return cli_fail(&err, NULL);
    if (!is_show)
        return change(s, p.memory, id, args.value);
    if (settings_with_checkout(s, p.memory, &own, &err) < 0)
        return cli_fail(&err, NULL);
    return show(own, id, with_origin, as_json);
}
