/*
 * transport_int.h - what the files of the transport share.
 *
 *     transport.c        fetch, push, ls: which arguments, what the answer means
 *     transport_run.c    one run of git: environment, credential, ssh, deadline
 *     transport_reach.c  is there a way to its host
 *     transport_said.c   what a child that failed said, and why that was
 *     transport_shared.c a folder that others write to, as git may see it
 */
#ifndef MEMFS_STORE_TRANSPORT_INT_H
#define MEMFS_STORE_TRANSPORT_INT_H

#include "store/git_env.h"
#include "store/transport.h"

#define TRANSPORT_NOWHERE "/nonexistent"
#define TRANSPORT_N_SECRETS 3

typedef enum transport_kind { TO_HTTPS, TO_HTTP, TO_SSH, TO_PATH } transport_kind;
transport_kind transport_kind_of(const char *url);
/* "https", as git names it. */
const char *transport_protocol(transport_kind kind);
/* "host[:port]" of an http(s) address, as git's credential protocol has it. */
memfs_str transport_host_of(const char *url);

typedef struct transport_run {
    const transport_target *t;
    git_job job;
    bool is_throw_away; /* nothing of it is synced */
    /* not for the caller */
    transport_kind kind;
    char *git, *name; /* "memfs-<random>:" */
    char *username, *secret, *basic, *escaped; /* what must not be seen, in its three shapes */
    git_strings argv;
    git_env env;
    int secret_fd;
    memfs_buf out, tail; /* what it wrote to stdout, and last to stderr */
} transport_run;
#define TRANSPORT_RUN_INIT                                                                         \
    { .secret_fd = -1, .out = MEMFS_BUF_INIT(256 * 1024), .tail = MEMFS_BUF_INIT(64 * 1024) }
void transport_run_dispose(transport_run *r);
/*
 * args, refs: NULL-terminated; the remote's name stands between them.  A failure of our own is told
 * in *ret, too.
 */
MEMFS_CHECK memfs_code transport_prepare(transport_run *r, const char *git_dir,
                                         const char *const *args, const char *const *refs,
                                         int64_t deadline_ms, transport_report *ret,
                                         memfs_error *err);
/* EUNAVAIL: it failed, *ret says how.  max_bytes: of any file that it writes; 0: the job's own. */
MEMFS_CHECK memfs_code transport_execute(transport_run *r, uint64_t max_bytes,
                                         int64_t deadline_ms, transport_report *ret,
                                         memfs_error *err);
/* http(s): false when the host is silent for ten seconds, or until the deadline. */
bool transport_reach(const transport_run *r, int64_t deadline_ms);
/* One of them connects, or all fail.  False: one is silent until then, and none connects. */
struct addrinfo;
bool transport_any_answers(const struct addrinfo *list, int64_t until_ms);
void transport_secrets(const transport_run *r, const char *ret[TRANSPORT_N_SECRETS]);
/* Overwrites and frees; NULL is fine. */
void transport_wipe(char *text);
MEMFS_CHECK memfs_code transport_find_git(char **ret, memfs_error *err);

/*
 * A repository inside git_dir to fetch from in the place of `repo`: its main and its objects, and
 * nothing else of it.  ENOTFOUND: it has no main.  EUNAVAIL: it cannot be read (now).
 */
MEMFS_CHECK memfs_code transport_shared_begin(const char *git_dir, const char *repo, char **ret,
                                              memfs_error *err);
void transport_shared_end(char **view); /* it is removed; NULL is fine */

/*
 * Finds the telling line among everything a failed child wrote, and what it means; secrets are
 * those that must not be in it.  Pure.
 */
void transport_said(memfs_str written, const char *const *secrets, size_t n_secrets,
                    transport_report *ret);
/*
 * The lines of `git push --porcelain` (report) and what else it wrote: was the ref taken, and if
 * not, why.  False: nothing is said of it.  Pure.
 */
bool transport_read_push(const char *ref, memfs_str report, memfs_str written,
                         const char *const *secrets, size_t n_secrets, transport_report *ret);

#endif
