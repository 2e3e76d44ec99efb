/*
 * server_settings.h - what `memfs serve` is told in three ways: by its option, else by a variable,
 * else by a key of the data folder's config (<home>/config, section [memfs]).
 *
 * One row a setting.  The options of serve, `memfs config`, the manual and the reader below come
 * from these rows, and the client, which reads the same file, knows by them whose a key is.  They
 * stand in this room as that is the first above gitconfig.h that all of those reach.
 *
 * Thread: a value belongs to one thread.
 */
#ifndef MEMFS_STORE_SERVER_SETTINGS_H
#define MEMFS_STORE_SERVER_SETTINGS_H

#include "base/error.h"

typedef enum server_setting {
    SERVER_LISTEN,
    SERVER_DATABASE,
    SERVER_CLUSTER_URL,
    SERVER_REPLICAS,
    SERVER_LETTA_DATABASE,
    SERVER_UPSTREAM,
    SERVER_LETTA_ROOT,
    SERVER_LETTA_PROXY,
    SERVER_LETTA_URL,
    SERVER_LETTA_TOKEN_FILE,
    SERVER_N_SETTINGS,
} server_setting;

typedef struct server_setting_row {
    const char *name;         /* the option without "--", and the name in `memfs config` */
    const char *variable;     /* "MEMFS_CLUSTER_URL" */
    const char *key;          /* "memfs.clusterUrl"; git does not care for upper and lower case */
    const char *arg;          /* what the value is called in the help */
    const char *help;         /* with the variable's name */
    const char *default_text; /* NULL: none */
    bool is_database;         /* an address that may hold a password, also as a parameter */
} server_setting_row;
extern const server_setting_row SERVER_SETTINGS[SERVER_N_SETTINGS];

/* By name, variable or key; SERVER_N_SETTINGS: there is none. */
server_setting server_setting_by_name(const char *name);

typedef enum server_saying { SAID_NOT, SAID_OPTION, SAID_VARIABLE, SAID_KEY } server_saying;

typedef struct server_said {
    char *text[SERVER_N_SETTINGS]; /* its own; of SAID_NOT the default, or NULL */
    server_saying by[SERVER_N_SETTINGS];
} server_said;
#define SERVER_SAID_INIT                                                                           \
    {                                                                                              \
        .text = { NULL }                                                                           \
    }
void server_said_dispose(server_said *s);

/*
 * Who says it first counts; an empty value is none, whoever says it.  given: what the command line
 * says, NULL for a setting or for all that it does not.  EINVALID: the config cannot be parsed.
 */
MEMFS_CHECK memfs_code server_said_read(const char *home, const char *const *given,
                                        server_said *ret, memfs_error *err);

#endif
