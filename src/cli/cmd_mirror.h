/*
 * cmd_mirror.h - what the files of `memfs mirror` share.
 *
 *     cmd_mirror.c          the command: options, help, and the words that are work for the server
 *     cmd_mirror_status.c   status, as a table and as JSON
 *     cmd_mirror_config.c   list, add and remove: $MEMFS_HOME/config, and what a server makes of it
 */
#ifndef MEMFS_CLI_CMD_MIRROR_H
#define MEMFS_CLI_CMD_MIRROR_H

#include "cli/cli.h"

#include <jansson.h>

typedef struct mirror_args {
    const char *word, *name, *url;
    const char *home, *agent, *remote;
    bool as_json;
    bool only_trouble, should_count;               /* status */
    bool accept, keep_ours, keep_theirs;           /* resolve */
    const char *direction, *kind, *username;       /* add, until the end */
    const char *token_file, *ca_file, *ssh_key, *ssh_known_hosts, *webhook_secret_file;
    bool from_stdin, create, no_create, allow_http;
    uint64_t poll_s;
} mirror_args;

cli_exit mirror_cmd_status(const mirror_args *a);
cli_exit mirror_cmd_list(const mirror_args *a);
cli_exit mirror_cmd_add(const cli_usage *usage, const mirror_args *a);
cli_exit mirror_cmd_remove(const mirror_args *a);

/* A field of an answer; "" when it is absent or null. */
const char *mirror_text(const json_t *object, const char *key);

#endif
