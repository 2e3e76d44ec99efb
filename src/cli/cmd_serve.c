#include "cli/cli.h"

#include "base/log.h"
#include "base/manager.h"
#include "base/mem.h"
#include "server/server.h"
#include "sync/home_database.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_LISTEN "127.0.0.1:8285"

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
    server_remotes(s, print_remotes, NULL);
    fputs("\n"
          "AGENT_ID is agent-<uuid4>; a new id starts an empty memory.  Ctrl-C stops.\n", stderr);
    fflush(stderr);
}

/*
 * Secrets in --remote and --database were copied; what stays in argv, for every `ps` to see, no
 * longer has them (S3).  PostgreSQL's may stand behind the '?', too.
 */
static void hide_secret_parts(char *word)
{
    char *host = strstr(word, "://"), *at;

    if (host == NULL)
        return;
    host += strlen("://");
    at = memchr(host, '@', strcspn(host, "/"));
    if (at != NULL)
        memset(host, 'x', (size_t)(at - host));
    at = strchr(host, '?');
    if (at != NULL)
        memset(at + 1, 'x', strlen(at + 1));
}

static char *copy_of(const char *url)
{
    return url != NULL ? mem_strdup(url) : NULL;
}

static void hide_secrets(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        hide_secret_parts(argv[i]);
}

/* Every user of the machine could read it until it was hidden, and shells keep what was typed. */
static void warn_of_password(const char *database)
{
    if (database != NULL && home_database_has_password(database))
        cli_talk("the password in --database could be seen by others: use $MEMFS_DATABASE, "
                 "memfs.database in the data folder's config, or ~/.pgpass");
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
    const char *home = NULL, *listen = getenv("MEMFS_LISTEN"), *remote = NULL, *token_file = NULL;
    const char *prefixes = getenv("LETTA_MEMFS_BLOCK_PATH_PREFIXES");
    const char *tls_cert = NULL, *tls_key = NULL, *database = NULL;
    bool is_behind_proxy = false, is_lenient = false, is_strict = false, is_quiet = false;
    const cli_option options[] = {
        { "listen", CLI_TEXT, &listen, "ADDR:PORT", "where to listen (" DEFAULT_LISTEN ")" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "database", CLI_TEXT, &database, "URL",
          "PostgreSQL for blocks and state, not SQLite ($MEMFS_DATABASE)" },
        { "remote", CLI_TEXT, &remote, "URL",
          "your git host, with {agentId} in the address ($LETTA_MEMFS_GIT_URL)" },
        { "remote-token-file", CLI_TEXT, &token_file, "FILE", "the token for it (mode 0600)" },
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
        "LETTA_MEMFS_BLOCK_PATH_PREFIXES limits which files become blocks.",
        options, ARRAY_LEN(options),
        "  memfs serve\n"
        "  memfs serve --listen 127.0.0.1:9000\n"
        "  memfs serve --remote 'https://gitea.example.com/agents/{agentId}.git' \\\n"
        "      --remote-token-file /run/secrets/gitea\n"
        "  memfs serve --database postgresql://memfs@db.example.com/memfs\n"
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
    remote_url = copy_of(remote);
    if (home_database_url(home_path, database, &database_url, &err) < 0)
        return cli_fail(&err, NULL);
    hide_secrets(argc, argv);
    warn_of_password(database_url != NULL && database != NULL ? database_url : NULL);
    serve.address = address;
    serve.manager = &manager;
    serve.remote_url = remote_url;
    serve.remote_token_file = token_file;
    serve.tls_cert = tls_cert;
    serve.tls_key = tls_key;
    serve.is_behind_proxy = is_behind_proxy;
    serve.home.path = home_path;
    serve.home.database = database_url;
    serve.home.block_prefixes = str_of(prefixes);
    serve.home.policy = policy_from(is_lenient, is_strict);
    if (server_run(&serve, on_ready, &serve, &err) < 0)
        return cli_fail(&err, NULL);
    return cli_finish(EXIT_GOOD);
}
