#include "store/server_settings.h"

#include "base/mem.h"
#include "store/gitconfig.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

const server_setting_row SERVER_SETTINGS[SERVER_N_SETTINGS] = {
    [SERVER_LISTEN] = { "listen", "MEMFS_LISTEN", "memfs.listen", "ADDR:PORT",
                        "where to listen, else at 127.0.0.1:8285 ($MEMFS_LISTEN)",
                        .default_text = "127.0.0.1:8285" },
    [SERVER_DATABASE] = { "database", "MEMFS_DATABASE", "memfs.database", "URL",
                          "PostgreSQL for blocks and state, not SQLite ($MEMFS_DATABASE)",
                          .is_database = true },
    [SERVER_CLUSTER_URL] = { "cluster-url", "MEMFS_CLUSTER_URL", "memfs.clusterUrl", "URL",
                             "where the other servers of the database reach this one "
                             "($MEMFS_CLUSTER_URL)" },
    [SERVER_REPLICAS] = { "replicas", "MEMFS_REPLICAS", "memfs.replicas", "N",
                          "acknowledge a push when N servers, or a remote, have it "
                          "($MEMFS_REPLICAS)" },
    [SERVER_LETTA_DATABASE] = { "letta-database", "MEMFS_LETTA_DATABASE", "memfs.lettaDatabase",
                                "URL",
                                "a Letta server's PostgreSQL, whose blocks follow "
                                "($MEMFS_LETTA_DATABASE)",
                                .is_database = true },
    [SERVER_UPSTREAM] = { "upstream", "MEMFS_UPSTREAM", "memfs.upstream", "URL",
                          "a Letta server that answers all that is not memfs' own "
                          "($MEMFS_UPSTREAM)" },
    [SERVER_LETTA_ROOT] = { "letta-root", "MEMFS_LETTA_ROOT", "memfs.lettaRoot", "DIR",
                            "a Letta server's ~/.letta/memfs: be its memfs service "
                            "($MEMFS_LETTA_ROOT)" },
    [SERVER_LETTA_PROXY] = { "letta-proxy", "MEMFS_LETTA_PROXY", "memfs.lettaProxy",
                             "ADDR[,ADDR/BITS]",
                             "where its requests come from ($MEMFS_LETTA_PROXY)" },
    [SERVER_LETTA_URL] = { "letta-url", "MEMFS_LETTA_URL", "memfs.lettaUrl", "URL",
                           "where it listens, to make it re-read or recompile ($MEMFS_LETTA_URL)" },
    [SERVER_LETTA_TOKEN_FILE] = { "letta-token-file", "MEMFS_LETTA_TOKEN_FILE",
                                  "memfs.lettaTokenFile", "FILE",
                                  "its password, where it wants one ($MEMFS_LETTA_TOKEN_FILE)" },
};

server_setting server_setting_by_name(const char *name)
{
    for (server_setting id = 0; id < SERVER_N_SETTINGS; id++)
        if (strcmp(name, SERVER_SETTINGS[id].name) == 0 ||
            strcmp(name, SERVER_SETTINGS[id].variable) == 0 ||
            strcasecmp(name, SERVER_SETTINGS[id].key) == 0)
            return id;
    return SERVER_N_SETTINGS;
}

void server_said_dispose(server_said *s)
{
    for (server_setting id = 0; id < SERVER_N_SETTINGS; id++) {
        if (s->text[id] != NULL && SERVER_SETTINGS[id].is_database)
            explicit_bzero(s->text[id], strlen(s->text[id]));
        free(s->text[id]);
        s->text[id] = NULL;
    }
}

static bool take(server_said *s, server_setting id, const char *text, server_saying by)
{
    if (text == NULL || text[0] == '\0')
        return false;
    s->text[id] = mem_strdup(text);
    s->by[id] = by;
    return true;
}

memfs_code server_said_read(const char *home, const char *const *given, server_said *ret,
                            memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", home);
    _cleanup_(gitconfig_closep) gitconfig *file = NULL;
    memfs_code rc = gitconfig_open(path, &file, err);

    *ret = (server_said)SERVER_SAID_INIT;
    if (rc < 0)
        return rc;
    for (server_setting id = 0; id < SERVER_N_SETTINGS; id++)
        if (!take(ret, id, given != NULL ? given[id] : NULL, SAID_OPTION) &&
            !take(ret, id, getenv(SERVER_SETTINGS[id].variable), SAID_VARIABLE) &&
            !take(ret, id, gitconfig_get(file, SERVER_SETTINGS[id].key), SAID_KEY))
            take(ret, id, SERVER_SETTINGS[id].default_text, SAID_NOT);
    return MEMFS_OK;
}
