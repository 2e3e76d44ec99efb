#include "cli/cli.h"

#include "base/fs.h"
#include "base/mem.h"
#include "cli/owner.h"
#include "memory/ids.h"

#include <stdio.h>
#include <string.h>

typedef struct asked {
    const char *home, *id; /* id NULL: none */
    const char *name;
    cli_texts tags;
    bool deleted, as_json;
} asked;

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

static memfs_code ask(const asked *a, const char *method, const char *path, const json_t *body,
                      memfs_buf *out, memfs_error *err)
{
    _cleanup_(mem_freep) char *home_path = cli_home(a->home);
    _cleanup_(owner_closep) owner *o = NULL;
    memfs_code rc = owner_connect(home_path, &o, err);

    return rc < 0 ? rc : owner_ask(o, method, path, body, out, err);
}

static cli_exit fail(const memfs_error *err)
{
    if (strstr(err->msg, "no data folder") != NULL)
        return cli_fail(err, "name the data folder with --home or $MEMFS_HOME");
    return cli_fail(err, err->code == MEMFS_ENOTFOUND
                             ? "'memfs agents list', with --deleted too, shows the ids"
                             : NULL);
}

static cli_exit print_json(const memfs_buf *text)
{
    fwrite(text->ptr, 1, text->len, stdout);
    putchar('\n');
    return cli_finish(EXIT_GOOD);
}

static cli_exit list(const asked *a)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 30);
    memfs_error err = MEMFS_ERROR_INIT;
    json_t *agents, *agent;
    size_t i;

    if (ask(a, "GET",
            a->deleted ? "/v1/agents/?limit=0&order=asc&show_hidden_agents=true&deleted=true"
                       : "/v1/agents/?limit=0&order=asc&show_hidden_agents=true",
            NULL, &text, &err) < 0)
        return fail(&err);
    if (a->as_json)
        return print_json(&text);
    agents = json_loadb(text.ptr, text.len, JSON_ALLOW_NUL, NULL);
    json_array_foreach(agents, i, agent) {
        printf("%s  %s  ", text_of(agent, "id"), text_of(agent, "created_at"));
        cli_print_safe(str_of(text_of(agent, "name")));
        putchar('\n');
    }
    if (json_array_size(agents) == 0)
        cli_talk(a->deleted ? "no agent is deleted" : "no agent has a memory here yet");
    json_decref(agents);
    return cli_finish(EXIT_GOOD);
}

static json_t *new_agent(const asked *a)
{
    json_t *body = json_object(), *tags = json_array();

    if (a->id != NULL)
        json_object_set_new(body, "id", json_string(a->id));
    if (a->name != NULL)
        json_object_set_new(body, "name", json_string_nocheck(a->name));
    for (size_t i = 0; i < a->tags.n; i++)
        json_array_append_new(tags, json_string_nocheck(a->tags.at[i]));
    json_object_set_new(body, "tags", tags);
    return body;
}

/* The id is data, so that a script has it. */
static cli_exit create(const asked *a)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 24);
    memfs_error err = MEMFS_ERROR_INIT;
    _cleanup_(mem_freep) char *home_path = cli_home(a->home);
    json_t *body = new_agent(a), *made;
    memfs_code rc = fs_mkdirs(home_path, &err); /* the first may be made before the first start */

    if (rc == MEMFS_OK)
        rc = ask(a, "POST", "/v1/agents", body, &text, &err);
    json_decref(body);
    if (rc < 0)
        return fail(&err);
    if (a->as_json)
        return print_json(&text);
    made = json_loadb(text.ptr, text.len, JSON_ALLOW_NUL, NULL);
    printf("%s\n", text_of(made, "id"));
    json_decref(made);
    return cli_finish(EXIT_GOOD);
}

static cli_exit change(const asked *a, const char *method, const char *below, const char *said)
{
    _cleanup_(mem_freep) char *path = mem_printf("/v1/agents/%s%s", a->id, below);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 30);
    memfs_error err = MEMFS_ERROR_INIT;

    if (ask(a, method, path, NULL, &text, &err) < 0)
        return fail(&err);
    if (a->as_json)
        return print_json(&text);
    cli_talk("%s %s", a->id, said);
    return cli_finish(EXIT_GOOD);
}

static cli_exit run(const cli_usage *usage, const char *what, asked *a)
{
    bool is_create = strcmp(what, "create") == 0;

    if (a->id != NULL && !ids_is_agent(str_of(a->id)))
        return cli_usage_error(usage, "'%s' is no agent's id", a->id);
    if (!is_create && (a->name != NULL || a->tags.n > 0))
        return cli_usage_error(usage, "--name and --tag are create's");
    if (a->deleted && strcmp(what, "list") != 0)
        return cli_usage_error(usage, "--deleted is list's");
    if (is_create)
        return create(a);
    if (strcmp(what, "list") == 0 && a->id == NULL)
        return list(a);
    if (strcmp(what, "delete") == 0 && a->id != NULL)
        return change(a, "DELETE", "", "is deleted; 'memfs agents restore' brings it back");
    if (strcmp(what, "restore") == 0 && a->id != NULL)
        return change(a, "POST", "/restore", "is back");
    return cli_usage_error(usage, "expected list, create, or delete or restore and an ID");
}

int cmd_agents(int argc, char **argv)
{
    asked a = { .tags = CLI_TEXTS_INIT };
    const char *rest[2] = { "list" };
    const cli_option options[] = {
        { "name", CLI_TEXT, &a.name, "TEXT", "create: what it is called (its id)" },
        { "tag", CLI_TEXTS, &a.tags, "TAG", "create: one of its tags" },
        { "deleted", CLI_FLAG, &a.deleted, NULL, "list: those that were deleted" },
        { "home", CLI_TEXT, &a.home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &a.as_json, NULL, "the API's answer as it is" },
    };
    const cli_usage usage = {
        "agents [list] [--deleted] [--json]\n"
        "       memfs agents create [ID] [--name TEXT] [--tag TAG]... [--json]\n"
        "       memfs agents delete ID | restore ID [--json]",
        "list shows the agents whose memory is here, oldest first.\n"
        "create makes one with an empty memory, of that id or a new one, and prints the id.\n"
        "delete takes one away for everybody who asks; its memory is kept, and restore brings it\n"
        "back with all its history.",
        options, ARRAY_LEN(options),
        "  memfs agents create --name helper --tag team:blue\n"
        "  memfs agents delete agent-5d1c2f3a-0b1e-4c7d-9a2b-6f0e1d2c3b4a\n",
        "list create delete restore"
    };
    size_t n_rest;
    cli_exit status;

    if (cli_parse(&usage, argc, argv, rest, 2, &n_rest, &status)) {
        a.id = n_rest > 1 ? rest[1] : NULL;
        status = run(&usage, rest[0], &a);
    }
    cli_texts_dispose(&a.tags);
    return status;
}
