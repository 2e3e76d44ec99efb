#include "cli/cli.h"

#include "base/log.h"
#include "base/manager.h"
#include "base/mem.h"
#include "cli/letta_options.h"
#include "server/server.h"
#include "store/server_settings.h"
#include "sync/home_database.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_REPLICAS 16

/* What the command line says; what may be said in other ways, too, is in said. */
typedef struct arguments {
    const char *said[SERVER_N_SETTINGS];
    const char *home, *remote, *remote_token_file, *tls_cert, *tls_key;
    bool is_behind_proxy, is_lenient, is_strict, is_quiet;
} arguments;

/* The server that is to run, and what its options point into. */
typedef struct serving {
    server_options options;
    server_said said;
    manager manager;
    char *home, *remote;
    char address[64]; /* at least HTTP_PEER_LEN */
} serving;
#define SERVING_INIT                                                                               \
    {                                                                                              \
        .options = SERVER_OPTIONS_INIT, .said = SERVER_SAID_INIT, .manager = MANAGER_INIT          \
    }

static void serving_dispose(serving *s)
{
    server_said_dispose(&s->said);
    manager_dispose(&s->manager);
    free(s->home);
    free(s->remote);
}

/* ---- what is said when it serves ---- */

static void print_remotes(const remotes *r, void *ctx)
{
    static const char *const ways[] = {
        [REMOTE_BOTH] = "both ways", [REMOTE_PUSH] = "pushed to", [REMOTE_PULL] = "read from"
    };

    (void)ctx;
    for (size_t i = 0; i < r->n; i++)
        fprintf(stderr, "  remote       %s, %s: %s\n", r->at[i].name, ways[r->at[i].direction],
                r->at[i].url);
}

/* Caller frees. */
static char *base_of(const server *s, bool is_tls, const char *name)
{
    bool is_v6 = strchr(name, ':') != NULL;

    return mem_printf("http%s://%s%s%s:%u", is_tls ? "s" : "", is_v6 ? "[" : "", name,
                      is_v6 ? "]" : "", (unsigned)server_port(s));
}

static void on_ready(const server *s, void *ctx)
{
    const server_options *options = ctx;
    const char *address = options->address;
    bool is_any = strcmp(address, "0.0.0.0") == 0 || strcmp(address, "::") == 0;
    char name[HOST_NAME_MAX + 1] = "";
    _cleanup_(mem_freep) char *own = base_of(s, options->tls_cert != NULL, address);
    _cleanup_(mem_freep) char *base = NULL;

    if (is_any && gethostname(name, HOST_NAME_MAX) == 0)
        address = name; /* what others may know this machine by */
    base = base_of(s, options->tls_cert != NULL, address);
    fprintf(stderr,
            "memfs: listening on %s\n"
            "\n"
            "  a memory     git clone %s/v1/git/AGENT_ID/state.git\n"
            "  its blocks   curl %s/v1/agents/AGENT_ID/core-memory/blocks\n"
            "  letta-code   export LETTA_MEMFS_BASE_URL=%s LETTA_MEMFS_LOCAL=1\n",
            own, base, base, base);
    if (options->upstream != NULL)
        fprintf(stderr, "  all else     is answered by the Letta server at %s\n",
                options->upstream);
    server_remotes(s, print_remotes, NULL);
    fputs("\n"
          "AGENT_ID is agent-<uuid4>; a new id starts an empty memory.  Ctrl-C stops.\n",
          stderr);
    fflush(stderr);
}

/* ---- the settings: where each goes, and by which parser ---- */

/* "127.0.0.1:8285" or "[::1]:8285" */
static bool parse_listen(const char *text, char *address, size_t size, uint16_t *ret_port)
{
    const char *colon = strrchr(text, ':');
    memfs_str host;
    uint64_t port;

    if (colon == NULL || !str_to_u64(str_of(colon + 1), UINT16_MAX, &port))
        return false;
    host = str_make(text, (size_t)(colon - text));
    if (host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']')
        host = str_make(host.ptr + 1, host.len - 2);
    if (host.len == 0 || host.len >= size)
        return false;
    memcpy(address, host.ptr, host.len);
    address[host.len] = '\0';
    *ret_port = (uint16_t)port;
    return true;
}

static memfs_code take_listen(const char *text, serving *s, memfs_error *err)
{
    if (parse_listen(text, s->address, sizeof(s->address), &s->options.port))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EINVALID, "--listen needs ADDR:PORT, not '%s'", text);
}

static memfs_code take_replicas(const char *text, serving *s, memfs_error *err)
{
    uint64_t n;

    if (!str_to_u64(str_of(text), MAX_REPLICAS, &n) || n == 0)
        return memfs_fail(err, MEMFS_EINVALID, "--replicas needs a number from 1 to %d, not '%s'",
                          MAX_REPLICAS, text);
    s->options.home.n_replicas = (unsigned)n;
    return MEMFS_OK;
}

static memfs_code take_database(const char *text, serving *s, memfs_error *err)
{
    s->options.home.database = text;
    return home_database_check(text, err);
}

static memfs_code take_letta_database(const char *text, serving *s, memfs_error *err)
{
    s->options.home.letta_database = text;
    return home_database_check(text, err);
}

/* Text that is looked at where it is used has no parser here. */
typedef struct use {
    size_t into; /* of server_options: a const char * */
    memfs_code (*parse)(const char *text, serving *s, memfs_error *err);
} use;
#define INTO(field)                                                                                \
    {                                                                                              \
        .into = offsetof(server_options, field)                                                    \
    }
#define BY(parser)                                                                                 \
    {                                                                                              \
        .parse = (parser)                                                                          \
    }
static const use USES[SERVER_N_SETTINGS] = {
    [SERVER_LISTEN] = BY(take_listen),
    [SERVER_DATABASE] = BY(take_database),
    [SERVER_CLUSTER_URL] = INTO(home.cluster_url),
    [SERVER_REPLICAS] = BY(take_replicas),
    [SERVER_LETTA_DATABASE] = BY(take_letta_database),
    [SERVER_UPSTREAM] = INTO(upstream),
    [SERVER_LETTA_ROOT] = INTO(letta.root),
    [SERVER_LETTA_PROXY] = INTO(letta.proxies),
    [SERVER_LETTA_URL] = INTO(letta.url),
    [SERVER_LETTA_TOKEN_FILE] = INTO(letta.token_file),
};

/* An error about an option that was said elsewhere says where. */
static memfs_code say_where(const server_setting_row *row, server_saying by, memfs_error *err)
{
    if (by == SAID_VARIABLE)
        return memfs_context(err, "$%s", row->variable);
    if (by == SAID_KEY)
        return memfs_context(err, "%s in the data folder's config", row->key);
    return err->code;
}

/* Every user of the machine could read it until it was hidden, and shells keep what was typed. */
static void warn_of_password(const server_setting_row *row, const char *text)
{
    if (row->is_database && home_database_has_password(text))
        cli_talk("the password in --%s could be seen by others: use $%s, %s in the data folder's "
                 "config, or ~/.pgpass",
                 row->name, row->variable, row->key);
}

static memfs_code take_settings(serving *s, memfs_error *err)
{
    for (server_setting id = 0; id < SERVER_N_SETTINGS; id++) {
        const char *text = s->said.text[id];

        if (text == NULL)
            continue;
        if (USES[id].parse == NULL)
            memcpy((char *)&s->options + USES[id].into, &text, sizeof(text));
        else if (USES[id].parse(text, s, err) < 0)
            return say_where(&SERVER_SETTINGS[id], s->said.by[id], err);
        if (s->said.by[id] == SAID_OPTION)
            warn_of_password(&SERVER_SETTINGS[id], text);
    }
    return MEMFS_OK;
}

/* ---- all together ---- */

/* With sockets of a service manager there is no address to choose: the first one's is told. */
static memfs_code take_sockets(serving *s, memfs_error *err)
{
    const manager *m = &s->manager;
    memfs_code rc;

    if (m->n_fds == 0)
        return MEMFS_OK;
    rc = http_listen_address(m->fds[0], s->address, &s->options.port, err);
    if (rc == MEMFS_OK && s->said.by[SERVER_LISTEN] != SAID_NOT)
        cli_talk("--listen and $MEMFS_LISTEN are ignored: the service manager handed down %zu "
                 "socket(s), the first for %s port %u",
                 m->n_fds, s->address, (unsigned)s->options.port);
    return rc;
}

static void take_arguments(serving *s, const arguments *a)
{
    const char *prefixes = getenv("LETTA_MEMFS_BLOCK_PATH_PREFIXES");
    server_options *o = &s->options;

    if (a->remote_token_file != NULL && access(a->remote_token_file, R_OK) < 0)
        cli_talk("the token file '%s' cannot be read yet: %s", a->remote_token_file,
                 strerror(errno));
    s->home = cli_home(a->home);
    s->remote = a->remote != NULL ? mem_strdup(a->remote) : NULL;
    o->address = s->address;
    o->manager = &s->manager;
    o->remote_url = s->remote;
    o->remote_token_file = a->remote_token_file;
    o->tls_cert = a->tls_cert;
    o->tls_key = a->tls_key;
    o->is_behind_proxy = a->is_behind_proxy;
    o->home.path = s->home;
    o->home.block_prefixes = str_of(prefixes);
    o->home.policy.lenient = a->is_lenient;
    o->home.policy.strict_frontmatter = a->is_strict;
}

/* All is copied that argv loses when its secrets are hidden. */
static memfs_code set_up(serving *s, const arguments *a, memfs_error *err)
{
    memfs_code rc = manager_take(&s->manager, err);

    take_arguments(s, a);
    if (rc == MEMFS_OK)
        rc = server_said_read(s->home, a->said, &s->said, err);
    if (rc == MEMFS_OK)
        rc = take_settings(s, err);
    if (rc == MEMFS_OK)
        rc = take_sockets(s, err);
    return rc == MEMFS_OK ? letta_options_check(&s->options, err) : rc;
}

#define SETTING(id)                                                                                \
    {                                                                                              \
        SERVER_SETTINGS[id].name, CLI_TEXT, &a->said[id], SERVER_SETTINGS[id].arg,                 \
            SERVER_SETTINGS[id].help                                                               \
    }

/* False: it ends here, with *ret_exit. */
static bool parse(int argc, char **argv, arguments *a, cli_exit *ret_exit)
{
    const cli_option options[] = {
        SETTING(SERVER_LISTEN),
        { "home", CLI_TEXT, &a->home, "DIR", "the data folder" },
        SETTING(SERVER_DATABASE),
        SETTING(SERVER_CLUSTER_URL),
        SETTING(SERVER_REPLICAS),
        SETTING(SERVER_LETTA_DATABASE),
        SETTING(SERVER_UPSTREAM),
        { "remote", CLI_TEXT, &a->remote, "URL",
          "your git host, with {agentId} in the address ($LETTA_MEMFS_GIT_URL)" },
        { "remote-token-file", CLI_TEXT, &a->remote_token_file, "FILE",
          "the token for it (mode 0600)" },
        SETTING(SERVER_LETTA_ROOT),
        SETTING(SERVER_LETTA_PROXY),
        SETTING(SERVER_LETTA_URL),
        SETTING(SERVER_LETTA_TOKEN_FILE),
        { "tls-cert", CLI_TEXT, &a->tls_cert, "FILE", "certificate and chain (PEM): serve https" },
        { "tls-key", CLI_TEXT, &a->tls_key, "FILE", "its private key (PEM), mode 0600" },
        { "behind-proxy", CLI_FLAG, &a->is_behind_proxy, NULL,
          "a proxy in front does TLS and speaks for all clients" },
        { "lenient", CLI_FLAG, &a->is_lenient, NULL,
          "store symlinks and odd names that are pushed" },
        { "strict-frontmatter", CLI_FLAG, &a->is_strict, NULL,
          "refuse files whose front matter does not parse" },
        { "quiet", CLI_FLAG, &a->is_quiet, NULL, "log warnings and errors only" },
    };
    const cli_usage usage = {
        "serve [--listen ADDR:PORT] [--home DIR] [--database URL] [--remote URL]",
        "Serves agents' memories: git at /v1/git/AGENT_ID/state.git, blocks and agents at /v1.\n"
        "When a push returns, its blocks are there.  Other machines are served as soon as\n"
        "there is a token ('memfs token create') and --listen names an address of theirs.  A\n"
        "certificate that is renewed on disk is shown within seconds; connections stay.\n"
        "Sockets that systemd hands down take the place of --listen.\n"
        "What has a variable is also a key of [memfs] in the data folder's config: clusterUrl.\n"
        "LETTA_MEMFS_BLOCK_PATH_PREFIXES limits which files become blocks.\n"
        "With --upstream it is one address for git and a Letta server, whose own check decides\n"
        "who may.",
        options, ARRAY_LEN(options),
        "  memfs serve\n"
        "  memfs serve --listen 127.0.0.1:9000\n"
        "  memfs serve --remote 'https://gitea.example.com/agents/{agentId}.git' \\\n"
        "      --remote-token-file /run/secrets/gitea\n"
        "  memfs serve --database postgresql://memfs@db.example.com/memfs\n"
        "  memfs serve --database postgresql://memfs@db.example.com/memfs \\\n"
        "      --cluster-url http://10.0.0.5:8285\n"
        "  memfs serve --upstream http://letta:8283\n"
    };
    size_t n_rest;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, ret_exit))
        return false;
    if ((a->tls_cert == NULL) == (a->tls_key == NULL))
        return true;
    *ret_exit = cli_usage_error(&usage, "--tls-cert and --tls-key go together");
    return false;
}

int cmd_serve(int argc, char **argv)
{
    _cleanup_(serving_dispose) serving s = SERVING_INIT;
    memfs_error err = MEMFS_ERROR_INIT;
    arguments a = { .home = NULL };
    memfs_code rc;
    cli_exit status;

    if (!parse(argc, argv, &a, &status))
        return status;
    log_set_level(a.is_quiet ? LOG_WARN : LOG_INFO);
    rc = set_up(&s, &a, &err);
    cli_hide_secrets(argc, argv);
    if (rc == MEMFS_OK)
        rc = server_run(&s.options, on_ready, &s.options, &err);
    return rc < 0 ? cli_fail(&err, NULL) : cli_finish(EXIT_GOOD);
}
