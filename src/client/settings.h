/*
 * settings.h - what is configured, and where it was said (design 5, client 2).
 *
 * Precedence, highest first:
 *   command line > environment > the checkout's .git/config [memfs] > $MEMFS_HOME/config >
 *   /etc/memfs/config > "env" of ~/.letta/settings.json (LETTA_BASE_URL, LETTA_MEMFS_BASE_URL, LETTA_API_KEY)
 *   > default.
 * One row a setting in settings.c: names, variables in their order, config key, default, help.  Config
 * files are in git-config syntax, section [memfs].  `memfs config --show-origin` prints the rows.
 *
 * A secret's value is never printed: config shows "(set)".
 *
 * Thread: a value belongs to one thread.
 */
#ifndef MEMFS_CLIENT_SETTINGS_H
#define MEMFS_CLIENT_SETTINGS_H

#include "base/buf.h"

typedef enum setting_id {
    SETTING_HOME,             /* MEMFS_HOME, ~/.memfs */
    SETTING_BACKEND,          /* LETTABOT_MEMFS_BACKEND, MEMFS_BACKEND: cloud local auto none */
    SETTING_ENABLED,          /* LETTABOT_MEMFS: true, false */
    SETTING_REMOTE,           /* LETTABOT_MEMFS_REMOTE, MEMFS_REMOTE */
    SETTING_GIT_URL,          /* LETTA_MEMFS_GIT_URL: with {agentId} */
    SETTING_MEMFS_BASE_URL,   /* LETTA_MEMFS_BASE_URL */
    SETTING_BASE_URL,         /* LETTA_BASE_URL */
    SETTING_API_KEY,          /* LETTA_API_KEY; secret */
    SETTING_MEMFS_LOCAL,      /* LETTA_MEMFS_LOCAL */
    SETTING_LOCAL_BACKEND_DIR,/* LETTA_LOCAL_BACKEND_DIR */
    SETTING_LETTA_DIR,        /* MEMFS_LETTA_DIR, ~/.letta */
    SETTING_WAIT_MS,          /* MEMFS_WAIT: seconds for the remote in apply, 2 */
    SETTING_REMOTE_TOKEN,     /* MEMFS_REMOTE_TOKEN; secret */
    SETTING_REMOTE_TOKEN_FILE,
    SETTING_CA_FILE,          /* MEMFS_CA_FILE */
    SETTING_SSH_KEY,          /* MEMFS_SSH_KEY */
    SETTING_SSH_KNOWN_HOSTS,
    SETTING_ALLOW_HTTP,       /* MEMFS_ALLOW_HTTP: hosts for which http:// may be used; loopback always */
    SETTING_POLL_S,           /* sync --watch: how often a remote is asked */
    SETTING_N,
} setting_id;

typedef struct settings settings;

typedef struct setting_override { setting_id id; const char *value; } setting_override;
/* work_tree: whose .git/config counts; NULL: none.  EINVALID: a file that cannot be parsed, a value of a
 * wrong form, with its origin. */
MEMFS_CHECK memfs_code settings_load(const char *work_tree, const setting_override *overrides,
                                     size_t n, settings **ret, memfs_error *err);
void settings_free(settings *s);
void settings_freep(settings **s);

/* NULL: not set and no default. */
const char *setting_text(const settings *s, setting_id id);
uint64_t setting_number(const settings *s, setting_id id);
bool setting_is_set(const settings *s, setting_id id); /* said by somebody, not the default */
/* "environment LETTA_BASE_URL", "file /…/config", "default". */
const char *setting_origin(const settings *s, setting_id id);

typedef struct setting_row {
    const char *name; /* "backend": also the config key memfs.<name> and the --json key */
    const char *const *variables; /* NULL-terminated, first wins */
    const char *default_text;     /* NULL: none; "~/" is expanded */
    bool is_secret;
    const char *help;
} setting_row;
extern const setting_row SETTING_ROWS[SETTING_N];

#endif
