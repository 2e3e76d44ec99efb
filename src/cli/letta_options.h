/*
 * letta_options.h - which Letta server memfs stands behind or beside: from the command line, else
 * from the environment, else from the data folder's config.
 *
 *     --letta-root         MEMFS_LETTA_ROOT         memfs.lettaRoot
 *     --letta-proxy        MEMFS_LETTA_PROXY        memfs.lettaProxy
 *     --letta-url          MEMFS_LETTA_URL          memfs.lettaUrl
 *     --letta-token-file   MEMFS_LETTA_TOKEN_FILE   memfs.lettaTokenFile
 */
#ifndef MEMFS_CLI_LETTA_OPTIONS_H
#define MEMFS_CLI_LETTA_OPTIONS_H

#include "server/service.h"

typedef struct letta_options {
    char *root, *proxies, *url, *token_file; /* NULL: not said */
} letta_options;
#define LETTA_OPTIONS_INIT { NULL, NULL, NULL, NULL }
void letta_options_dispose(letta_options *o);

/* given: what the command line said, NULL where nothing. */
MEMFS_CHECK memfs_code letta_options_find(const char *home, const service_options *given,
                                          letta_options *ret, memfs_error *err);
/* EINVALID: they, or the rest of `memfs serve`, do not go together.  has_letta: there is a Letta
 * server by another option. */
MEMFS_CHECK memfs_code letta_options_check(const letta_options *o, bool is_behind_proxy,
                                           bool is_many, bool has_letta, memfs_error *err);

#endif
