/*
 * git_env.h - the environment and configuration of every git that memfs starts (reliability 6).
 *
 * A child inherits nothing: its environment is exactly what the two tables in git_env.c have for
 * its job, and what the caller's options add.  Configuration travels in GIT_CONFIG_KEY_n /
 * GIT_CONFIG_VALUE_n: out of argv, and at the scope of a command line, which wins over whatever
 * lies in a repository.
 *
 * Server children (git_child.h) and the client's transport (transport.h) are rows of the same
 * tables.
 *
 * Thread: any; nothing is kept.
 */
#ifndef MEMFS_STORE_GIT_ENV_H
#define MEMFS_STORE_GIT_ENV_H

#include "base/process.h"

typedef enum git_job {
    GIT_JOB_INDEX_PACK,
    GIT_JOB_UPLOAD_PACK,
    GIT_JOB_REPACK, /* repack, prune and prune-packed */
    GIT_JOB_FSCK,
    GIT_JOB_FETCH,
    GIT_JOB_PUSH,
    GIT_JOB_LS,         /* ls-remote: no repository */
    GIT_JOB_INIT,       /* an empty one at a path (bare.h) */
    GIT_JOB_CREDENTIAL, /* `git credential fill` as the user: their configuration and helpers */
    GIT_N_JOBS,
} git_job;

/* A NULL-terminated vector of texts that it owns. */
typedef struct git_strings {
    char **at;
    size_t n, cap;
} git_strings;
#define GIT_STRINGS_INIT { NULL, 0, 0 }
void git_strings_dispose(git_strings *v);
void git_strings_add(git_strings *v, char *given);

/* The environment, while it is made. */
typedef struct git_env {
    git_strings vars;
    unsigned n_config;
} git_env;
#define GIT_ENV_INIT { GIT_STRINGS_INIT, 0 }
void git_env_dispose(git_env *e);
/* The tables' rows for the job.  home: HOME of the child. */
void git_env_begin(git_env *e, git_job job, const char *home);
/* "NAME=value", printed. */
void git_env_add(git_env *e, const char *fmt, ...) MEMFS_PRINTF(2, 3);
/* The same variable as ours, if it is set. */
void git_env_pass(git_env *e, const char *name);
void git_env_config(git_env *e, const char *key, const char *value);
/* Says how many configuration values there are; the last call. */
const char *const *git_env_end(git_env *e);

/* Limits of the job; file_size_bytes 0: the job's own. */
process_spec git_env_spec(git_job job, const git_strings *argv, const git_env *e,
                          uint64_t file_size_bytes);

/*
 * Finds git by absolute path (/usr/bin, /usr/local/bin, /bin, then the absolute folders of PATH);
 * NULL: none.  Caller frees.
 */
char *git_env_find(void);

/* Did it, as its own lines of what it wrote say, meet a full disk of ours? */
bool git_env_is_disk_full(memfs_str written);

#endif
