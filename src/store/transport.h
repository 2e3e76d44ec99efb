/*
 * transport.h - git fetch, push and ls-remote as children (reliability 6).
 *
 * Nothing is inherited but what is listed; prompts, redirects, proxies, the user's configuration
 * and helpers are off, and so is what the repository's own configuration says of the remote: the
 * address travels as configuration under a name that nobody can know before, so no insteadOf of
 * others applies, and every http.* key is set for exactly this address.  The credential travels
 * through an inherited descriptor to `memfs-hook credential`, the only helper: it is in no argv,
 * environment, file or URL (S3).
 *
 * Only refs/heads/main travels.  Never forced, never deleting (H5).  A fetch changes one ref of
 * ours and nothing else: no FETCH_HEAD, no tags, no tracking refs, no gc.
 *
 * ssh is started without the user's ssh configuration (-F /dev/null), never asks, and takes known
 * hosts only.
 *
 * Thread: any.
 */
#ifndef MEMFS_STORE_TRANSPORT_H
#define MEMFS_STORE_TRANSPORT_H

#include "base/buf.h"
#include "base/oid.h"

typedef struct transport_target {
    const char *url;      /* without user info; https, http (if allowed), ssh, an absolute path */
    const char *username; /* NULL: none */
    const char *secret;   /* NULL: none */
    bool ask_git_helpers; /* client: without a secret, the user's own helpers are asked */
    const char *ca_file;  /* NULL: the system's */
    const char *ssh_key;         /* NULL: the user's own keys and agent (client only) */
    const char *ssh_known_hosts; /* NULL: ~/.ssh/known_hosts */
    bool may_http, may_path;
    const char *hook_program; /* absolute path of memfs-hook; NULL: beside the running program */
} transport_target;

/* Why the remote did not do it, as far as git, ssh and curl tell. */
typedef enum transport_cause {
    TRANSPORT_CAUSE_NONE,
    TRANSPORT_CAUSE_OTHER,
    TRANSPORT_CAUSE_HTTP, /* http_status says which */
    TRANSPORT_CAUSE_NO_NAME,
    TRANSPORT_CAUSE_REFUSED,
    TRANSPORT_CAUSE_TIMEOUT,
    TRANSPORT_CAUSE_TLS,
    TRANSPORT_CAUSE_HOST_KEY,
    TRANSPORT_CAUSE_UNAUTHORIZED,
    TRANSPORT_CAUSE_FORBIDDEN,
    TRANSPORT_CAUSE_NOT_FOUND,
    TRANSPORT_CAUSE_NOT_GIT,
    TRANSPORT_CAUSE_CUT,
} transport_cause;

/* What a child that failed said, its most telling line, redacted and escaped; "" when it said
 * nothing. */
typedef struct transport_report {
    char said[300];
    transport_cause cause;
    int http_status;
    bool is_rejected; /* push: the remote moved first, or refused the ref */
    bool was_moved;   /* push: that it was a lost race (fetch first, non-fast-forward) */
    bool is_empty;    /* fetch, ls: the remote has no main */
    bool timed_out;
} transport_report;

/*
 * Fetches the remote's main into refs/memfs/incoming/<name> of git_dir.  ENOTFOUND: it has none
 * (is_empty); git takes an HTTP answer that breaks off in its head for the same, which a push
 * then finds out, as it never forces.  EUNAVAIL with *ret said on any other failure of the
 * remote.  deadline_ms: clock_mono_ms.
 */
MEMFS_CHECK memfs_code transport_fetch(const char *git_dir, const transport_target *t,
                                       const char *incoming_ref, int64_t deadline_ms,
                                       transport_report *ret, memfs_error *err);
/* Pushes id to refs/heads/main. ECONFLICT: rejected (ret says how). */
MEMFS_CHECK memfs_code transport_push(const char *git_dir, const transport_target *t,
                                      const memfs_oid *id, int64_t deadline_ms,
                                      transport_report *ret, memfs_error *err);
/* One look at the remote's main. ENOTFOUND: it has none. */
MEMFS_CHECK memfs_code transport_ls(const transport_target *t, int64_t deadline_ms, memfs_oid *ret,
                                    transport_report *report, memfs_error *err);

/*
 * What the user's own credential helpers have for the address (`git credential fill`, as the
 * user, without a prompt).  ENOTFOUND: nothing.  Nothing is ever approved or rejected there.  The
 * caller wipes and frees both.
 */
MEMFS_CHECK memfs_code transport_ask_helpers(const char *url, int64_t deadline_ms,
                                             char **ret_username, char **ret_secret,
                                             memfs_error *err);

#endif
