/*
 * git_child.h - how the server starts git: never by hand, always by the tables of git_env.h
 * (reliability 6).
 *
 * A child inherits nothing: absolute path, fixed argv, an environment of exactly what is listed in
 * git_env.c, and configuration at a scope that no repository can override.  Hooks, prompts, user
 * configuration, transports and replace refs are off (T05, T10, T29, T31).
 *
 * A child is a reader of its git_dir (readers.h) until the last process of its group is gone.
 *
 * Thread: any; the store is only read.
 */
#ifndef MEMFS_STORE_GIT_CHILD_H
#define MEMFS_STORE_GIT_CHILD_H

#include "store/git_env.h"
#include "store/store.h"

typedef struct git_child_options {
    const char *git_dir;
    const char *const *args;     /* after "git", NULL-terminated; args[0] is the command */
    const char *object_dir;      /* NULL: the repository's own */
    const char *alternate_dir;   /* looked into as well; NULL: none */
    const char *protocol;        /* a Git-Protocol header; used only if it is version=[012] */
    uint64_t file_size_bytes;    /* 0: the job's own limit */
    memfs_str input;             /* of git_child_run: its stdin */
} git_child_options;

MEMFS_CHECK memfs_code git_child_start(const store *s, git_job job, const git_child_options *o,
                                       process *ret, memfs_error *err);
/* To the end; see process_run. */
MEMFS_CHECK memfs_code git_child_run(const store *s, git_job job, const git_child_options *o,
                                     memfs_buf *out, memfs_buf *err_tail, int64_t timeout_ms,
                                     memfs_error *err);

/*
 * The name of the pack that `git pack-objects` said on its stdout that it wrote; "" where there was
 * nothing to pack (--non-empty).  EINTERNAL: it says something else.
 */
MEMFS_CHECK memfs_code git_child_pack_name(memfs_str said, char ret[MEMFS_OID_HEX + 1],
                                           memfs_error *err);

/*
 * `git upload-pack --stateless-rpc` on a repository, or on the genesis when name is NULL.  protocol
 * may be NULL or anything a client sent.  The caller moves the bytes, waits and disposes.
 */
MEMFS_CHECK memfs_code git_upload_pack_start(const store *s, const char *name, const char *protocol,
                                             process *ret, memfs_error *err);

/*
 * Finds git by absolute path (git_env_find) and checks its version (2.36 for core.fsync) and
 * commands.  *ret_git is the caller's.
 */
MEMFS_CHECK memfs_code git_child_find(const char *empty_home, char **ret_git, memfs_error *err);

#endif
