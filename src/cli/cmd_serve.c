#include "cli/cli.h"

#include "base/log.h"
#include "base/manager.h"
#include "base/mem.h"
#include "cli/letta_options.h"
#include "server/server.h"
#include "store/gitconfig.h"
#include "sync/home_database.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_LISTEN "127.0.0.1:8285"
#define MAX_REPLICAS 16

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
        fprintf(stderr, "  all else     is answered by the Letta server at %s\n", options->upstream);
    server_remotes(s, print_remotes, NULL);
    fputs("\n"
          "AGENT_ID is agent-<uuid4>; a new id starts an empty memory.  Ctrl-C stops.\n", stderr);
    fflush(stderr);
}

static char *copy_of(const char *url)
{
    return url != NULL ? mem_strdup(url) : NULL;
}

/* Every user of the machine could read it until it was hidden, and shells keep what was typed. */
static void warn_of_password(const char *given, const char *option, const char *variable,
                             const char *key)
{
    if (given != NULL && home_database_has_password(given))
        cli_talk("the password in --%s could be seen by others: use $%s, %s in the data folder's "
                 "config, or ~/.pgpass", option, variable, key);
}

/* Both are copied before argv loses their passwords. */
static memfs_code find_databases(const char *home_path, const char *database, const char *letta,
                                 char **ret_database, char **ret_letta, memfs_error *err)
{
    memfs_code rc = home_database_url(home_path, database, ret_database, err);

    if (rc == MEMFS_OK)
        rc = home_letta_url(home_path, letta, ret_letta, err);
    if (rc < 0)
        return rc;
    warn_of_password(database, "database", "MEMFS_DATABASE", "memfs.database");
    warn_of_password(letta, "letta-database", "MEMFS_LETTA_DATABASE", "memfs.lettaDatabase");
    return rc;
}

/* What was given, else the variable, else the key of the home's config; NULL: none. */
static memfs_code read_setting(const char *home_path, const char *given, const char *variable,
                               const char *key, char **ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", home_path);
    _cleanup_(gitconfig_closep) gitconfig *file = NULL;
    const char *value = given != NULL ? given : getenv(variable);
    memfs_code rc = MEMFS_OK;

    if (value == NULL || value[0] == '\0') {
        rc = gitconfig_open(path, &file, err);
        value = rc == MEMFS_OK ? gitconfig_get(file, key) : NULL;
    }
    *ret = copy_of(value);
    return rc;
}

/* *io: as the option says, 0: not. */
static memfs_code read_replicas(const char *home_path, uint64_t *io, memfs_error *err)
{
    _cleanup_(mem_freep) char *text = NULL;
    memfs_code rc = MEMFS_OK;

    if (*io == 0)
        rc = read_setting(home_path, NULL, "MEMFS_REPLICAS", "memfs.replicas", &text, err);
    if (rc == MEMFS_OK &&
        ((text != NULL && !str_to_u64(str_of(text), MAX_REPLICAS, io)) || *io > MAX_REPLICAS))
        return memfs_fail(err, MEMFS_EINVALID,
                          "--replicas ($MEMFS_REPLICAS, memfs.replicas) needs a number from 1 to %d",
                          MAX_REPLICAS);
    return rc;
}

static policy policy_from(bool is_lenient, bool is_strict)
{
    policy p = POLICY_INIT;

    p.lenient = is_lenient;
    p.strict_frontmatter = is_strict;
    return p;
}

/*
 * With sockets of a service manager there is no address to choose: the first one's is told.  False:
 * they are no good, and the reason is said.
 */
static bool take_sockets(const manager *m, char address[HTTP_PEER_LEN], uint16_t *ret_port,
                         bool is_listen_given, memfs_error *err)
{
    if (m->n_fds == 0)
        return true;
    if (http_listen_address(m->fds[0], address, ret_port, err) < 0)
        return false;
    if (is_listen_given)
        cli_talk("--listen and $MEMFS_LISTEN are ignored: the service manager handed down %zu "
                 "socket(s), the first for %s port %u", m->n_fds, address, (unsigned)*ret_port);
    return true;
}

int cmd_serve(int argc, char **argv)
{
    _cleanup_(manager_dispose) manager manager = MANAGER_INIT;
    _cleanup_(mem_freep) char *home_path = NULL, *remote_url = NULL, *database_url = NULL;
    _cleanup_(mem_freep) char *letta_url = NULL, *upstream_url = NULL;
    const char *home = NULL, *listen = getenv("MEMFS_LISTEN"), *remote = NULL, *token_file = NULL;
    const char *prefixes = getenv("LETTA_MEMFS_BLOCK_PATH_PREFIXES");
    const char *tls_cert = NULL, *tls_key = NULL, *database = NULL, *letta_database = NULL;
    const char *cluster_url = getenv("MEMFS_CLUSTER_URL");
    const char *upstream = NULL;
    uint64_t replicas = 0;
    _cleanup_(letta_options_dispose) letta_options letta_found = LETTA_OPTIONS_INIT;
    service_options letta = { NULL, NULL, NULL, NULL };
    bool is_behind_proxy = false, is_lenient = false, is_strict = false, is_quiet = false;
    const cli_option options[] = {
        { "listen", CLI_TEXT, &listen, "ADDR:PORT", "where to listen (" DEFAULT_LISTEN ")" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "database", CLI_TEXT, &database, "URL",
          "PostgreSQL for blocks and state, not SQLite ($MEMFS_DATABASE)" },
        { "cluster-url", CLI_TEXT, &cluster_url, "URL",
          "where the other servers of the database reach this one ($MEMFS_CLUSTER_URL)" },
        { "replicas", CLI_NUMBER, &replicas, "N",
          "acknowledge a push when N servers, or a remote, have it ($MEMFS_REPLICAS)" },
        { "letta-database", CLI_TEXT, &letta_database, "URL",
          "a Letta server's PostgreSQL, whose blocks follow ($MEMFS_LETTA_DATABASE)" },
        { "upstream", CLI_TEXT, &upstream, "URL",
          "a Letta server that answers all that is not memfs' own ($MEMFS_UPSTREAM)" },
        { "remote", CLI_TEXT, &remote, "URL",
          "your git host, with {agentId} in the address ($LETTA_MEMFS_GIT_URL)" },
        { "remote-token-file", CLI_TEXT, &token_file, "FILE", "the token for it (mode 0600)" },
        { "letta-root", CLI_TEXT, &letta.root, "DIR",
          "a Letta server's ~/.letta/memfs: be its memfs service ($MEMFS_LETTA_ROOT)" },
        { "letta-proxy", CLI_TEXT, &letta.proxies, "ADDR[,ADDR/BITS]",
          "where its requests come from ($MEMFS_LETTA_PROXY)" },
        { "letta-url", CLI_TEXT, &letta.url, "URL",
          "where it listens, to make it re-read or recompile ($MEMFS_LETTA_URL)" },
        { "letta-token-file", CLI_TEXT, &letta.token_file, "FILE",
          "its password, where it wants one ($MEMFS_LETTA_TOKEN_FILE)" },
        { "tls-cert", CLI_TEXT, &tls_cert, "FILE", "certificate and chain (PEM): serve https" },
        { "tls-key", CLI_TEXT, &tls_key, "FILE", "its private key (PEM), mode 0600" },
        { "behind-proxy", CLI_FLAG, &is_behind_proxy, NULL,
          "a proxy in front does TLS and speaks for all clients" },
        { "lenient", CLI_FLAG, &is_lenient, NULL, "store symlinks and odd names that are pushed" },
        { "strict-frontmatter", CLI_FLAG, &is_strict, NULL,
          "refuse files whose front matter does not parse" },
        { "quiet", CLI_FLAG, &is_quiet, NULL, "log warnings and errors only" },
    };
    const cli_usage usage = {
        "serve [--listen ADDR:PORT] [--home DIR] [--database URL] [--remote URL]",
        "Serves agents' memories: git at /v1/git/AGENT_ID/state.git, blocks and agents at /v1.\n"
        "When a push returns, its blocks are there.  Other machines are served as soon as there is a\n"
        "token ('memfs token create') and --listen names an address of theirs.  A certificate that is\n"
        "renewed on disk is shown within seconds; connections stay.  Sockets that systemd hands down take\n"
        "the place of --listen.\n"
        "LETTA_MEMFS_BLOCK_PATH_PREFIXES limits which files become blocks.\n"
        "With --upstream it is one address for git and a Letta server, whose own check decides who may.",
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
    server_options serve = SERVER_OPTIONS_INIT;
    char address[64]; /* at least HTTP_PEER_LEN */
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    if (!parse_listen(listen != NULL ? listen : DEFAULT_LISTEN, address, sizeof(address),
                      &serve.port))
        return cli_usage_error(&usage, "--listen needs ADDR:PORT, not '%s'", listen);
    if ((tls_cert == NULL) != (tls_key == NULL))
        return cli_usage_error(&usage, "--tls-cert and --tls-key go together");
    if (token_file != NULL && access(token_file, R_OK) < 0)
        cli_talk("the token file '%s' cannot be read yet: %s", token_file, strerror(errno));
    if (manager_take(&manager, &err) < 0 ||
        !take_sockets(&manager, address, &serve.port, listen != NULL, &err))
        return cli_fail(&err, NULL);
    log_set_level(is_quiet ? LOG_WARN : LOG_INFO);
    home_path = cli_home(home);
    if (read_replicas(home_path, &replicas, &err) < 0)
        return cli_usage_error(&usage, "%s", err.msg);
    remote_url = copy_of(remote);
    if (find_databases(home_path, database, letta_database, &database_url, &letta_url, &err) < 0)
        return cli_fail(&err, NULL);
    if (letta_options_find(home_path, &letta, &letta_found, &err) < 0 ||
        read_setting(home_path, upstream, "MEMFS_UPSTREAM", "memfs.upstream", &upstream_url,
                     &err) < 0 ||
        letta_options_check(&letta_found, is_behind_proxy,
                            cluster_url != NULL && cluster_url[0] != '\0',
                            upstream_url != NULL || letta_url != NULL, &err) < 0)
        return cli_fail(&err, NULL);
    cli_hide_secrets(argc, argv);
    serve.address = address;
    serve.upstream = upstream_url;
    serve.manager = &manager;
    serve.remote_url = remote_url;
    serve.remote_token_file = token_file;
    serve.tls_cert = tls_cert;
    serve.tls_key = tls_key;
    serve.is_behind_proxy = is_behind_proxy;
    serve.letta = (service_options){ letta_found.root, letta_found.proxies, letta_found.url,
                                     letta_found.token_file };
    serve.home.path = home_path;
    serve.home.database = database_url;
    serve.home.n_replicas = (unsigned)replicas;
    serve.home.cluster_url = cluster_url != NULL && cluster_url[0] != '\0' ? cluster_url : NULL;
    serve.home.letta_database = letta_url;
    serve.home.block_prefixes = str_of(prefixes);
    serve.home.policy = policy_from(is_lenient, is_strict);
    if (server_run(&serve, on_ready, &serve, &err) < 0)
        return cli_fail(&err, NULL);
    return cli_finish(EXIT_GOOD);
}
