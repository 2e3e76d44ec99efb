/*
 * settings.h - what is configured, and where it was said (design 5, client 2).
 *
 * Precedence, highest first:
 *   command line > environment > the checkout's .git/config [memfs] > $MEMFS_HOME/config >
 *   /etc/memfs/config > "env" of ~/.letta/settings.json (LETTA_BASE_URL, LETTA_MEMFS_BASE_URL,
 * LETTA_API_KEY) > default. One row a setting in settings.c: names, variables in their order,
 * config key, default, help.  Config files are in git-config syntax, section [memfs].  `memfs
 * config --show-origin` prints the rows.
 *
 * An empty value counts as not said, at every level.  Which levels may say a setting is in its row:
 * a secret is in no config file, and the checkout, where agents work, names no host that would be
 * shown the Letta key.  What is said where it does not count is a warning, never an error: it must
 * not keep an agent from starting.  $MEMFS_SYSTEM_CONFIG stands in for /etc/memfs/config.
 *
 * A secret's value is never printed: config shows "(set)".
 *
 * Thread: a value belongs to one thread.
 */
#ifndef MEMFS_CLIENT_SETTINGS_H
#define MEMFS_CLIENT_SETTINGS_H

#include "base/buf.h"

typedef enum setting_id {
    SETTING_HOME,              /* MEMFS_HOME, ~/.memfs */
    SETTING_BACKEND,           /* LETTABOT_MEMFS_BACKEND, MEMFS_BACKEND: cloud local auto none */
    SETTING_ENABLED,           /* LETTABOT_MEMFS: true, false */
    SETTING_REMOTE,            /* LETTABOT_MEMFS_REMOTE, MEMFS_REMOTE */
    SETTING_GIT_URL,           /* LETTA_MEMFS_GIT_URL: with {agentId} */
    SETTING_MEMFS_BASE_URL,    /* LETTA_MEMFS_BASE_URL */
    SETTING_BASE_URL,          /* LETTA_BASE_URL */
    SETTING_API_KEY,           /* LETTA_API_KEY; secret */
    SETTING_MEMFS_LOCAL,       /* LETTA_MEMFS_LOCAL */
    SETTING_LOCAL_BACKEND_DIR, /* LETTA_LOCAL_BACKEND_DIR */
    SETTING_LETTA_DIR,         /* MEMFS_LETTA_DIR, ~/.letta */
    SETTING_WAIT_MS,           /* MEMFS_WAIT: seconds for the remote in apply, 2 */
    SETTING_REMOTE_TOKEN,      /* MEMFS_REMOTE_TOKEN; secret */
    SETTING_REMOTE_TOKEN_FILE,
    SETTING_CA_FILE, /* MEMFS_CA_FILE */
    SETTING_SSH_KEY, /* MEMFS_SSH_KEY */
    SETTING_SSH_KNOWN_HOSTS,
    SETTING_ALLOW_HTTP, /* MEMFS_ALLOW_HTTP: hosts for which http:// may be used; loopback always */
    SETTING_POLL_S,     /* sync --watch: how often a remote is asked */
    SETTING_N,
} setting_id;

typedef enum setting_level {
    SETTING_LEVEL_COMMAND,
    SETTING_LEVEL_ENVIRONMENT,
    SETTING_LEVEL_CHECKOUT,
    SETTING_LEVEL_HOME,
    SETTING_LEVEL_SYSTEM,
    SETTING_LEVEL_LETTA, /* ~/.letta/settings.json */
    SETTING_LEVEL_DEFAULT,
    SETTING_N_LEVELS,
} setting_level;

typedef struct settings settings;

typedef struct setting_override {
    setting_id id;
    const char *value;
} setting_override;
/* work_tree: whose .git/config counts; NULL: none.  EINVALID: a file that cannot be parsed, a value
 * of a wrong form, with its origin. */
MEMFS_CHECK memfs_code settings_load(const char *work_tree, const setting_override *overrides,
                                     size_t n, settings **ret, memfs_error *err);
/* The same with another checkout's [memfs] in the place of s's own: for work on many memories. */
MEMFS_CHECK memfs_code settings_with_checkout(const settings *s, const char *work_tree,
                                              settings **ret, memfs_error *err);
/* The same as if one level had not said this: after it was taken out of its file. */
MEMFS_CHECK memfs_code settings_without(const settings *s, setting_id id, setting_level level,
                                        settings **ret, memfs_error *err);
void settings_free(settings *s);
void settings_freep(settings **s);

/* NULL: not set and no default. */
const char *setting_text(const settings *s, setting_id id);
uint64_t setting_number(const settings *s, setting_id id);
bool setting_is_set(const settings *s, setting_id id); /* said by somebody, not the default */
/* "environment LETTA_BASE_URL", "file /…/config", "default"; "not set" when there is no value. */
const char *setting_origin(const settings *s, setting_id id);
/* SETTING_LEVEL_DEFAULT also when there is no value. */
setting_level setting_level_of(const settings *s, setting_id id);
/* What one level said, whoever won; NULL: nothing. */
const char *setting_text_at(const settings *s, setting_id id, setting_level level);
/* LETTABOT_MEMFS=false: memory is switched off, nothing is prepared or synced. */
bool settings_is_off(const settings *s);
/* Lines about what was said but does not count; "" when all is well. */
const char *settings_warnings(const settings *s);
/* The config file of a checkout, a linked worktree or a bare repository; NULL: there is none.
 * Caller frees. */
char *settings_checkout_config(const char *work_tree);
/* $MEMFS_HOME/config; caller frees. */
char *settings_home_config(const settings *s);
/*
 * Writes one setting into $MEMFS_HOME/config, or into [memfs] of work_tree's configuration; value
 * NULL removes it.  EDENIED: a secret, or one that does not count there.  EINVALID: of a wrong
 * form. ENOTFOUND: work_tree is no repository.
 */
MEMFS_CHECK memfs_code settings_change(const settings *s, const char *work_tree, setting_id id,
                                       const char *value, memfs_error *err);

typedef enum setting_kind {
    SETTING_KIND_TEXT,
    SETTING_KIND_PATH,    /* absolute, or "~/..."; a relative one of the environment starts here */
    SETTING_KIND_BOOL,    /* exactly true or false; number: 1 or 0 */
    SETTING_KIND_CHOICE,  /* one of choices */
    SETTING_KIND_WAIT,    /* seconds, "0.5" too; number: milliseconds */
    SETTING_KIND_SECONDS, /* whole; number: seconds */
} setting_kind;

typedef struct setting_row {
    const char *name; /* "backend": also the config key memfs.<name> and the --json key */
    const char *const *variables; /* NULL-terminated, first wins */
    const char *default_text;     /* NULL: none; "~/" is expanded */
    const char *help;
    const char *const *choices; /* NULL-terminated, of a choice */
    uint64_t least, most;       /* of a number, in its own unit */
    setting_kind kind;
    bool is_secret;
    bool in_files;    /* $MEMFS_HOME/config and /etc/memfs/config may say it */
    bool in_checkout; /* [memfs] of a checkout may */
    bool in_letta;    /* "env" of ~/.letta/settings.json may */
} setting_row;
extern const setting_row SETTING_ROWS[SETTING_N];
/* By name, a variable's name, or "memfs.<name>"; SETTING_N: there is none. */
setting_id setting_by_name(const char *name);
/* Would this value be taken?  EINVALID says what is expected; origin NULL: none is named. */
MEMFS_CHECK memfs_code setting_check(setting_id id, const char *value, const char *origin,
                                     memfs_error *err);

#endif
