/*
 * transport.h - git fetch, push and ls-remote as children (reliability 6).
 *
 * Nothing is inherited but what is listed; prompts, redirects, the user's configuration and helpers
 * are off.  The credential travels through an inherited descriptor to `memfs-hook credential`, the only
 * helper: it is in no argv, environment, file or URL (S3).
 *
 * Only refs/heads/main travels.  Never forced, never deleting (H5).
 *
 * Thread: any.
 */
#ifndef MEMFS_STORE_TRANSPORT_H
#define MEMFS_STORE_TRANSPORT_H

#include "base/buf.h"
#include "base/oid.h"

typedef struct transport_target {
    const char *url;      /* without user info; https, http (if allowed), ssh, or an absolute path */
    const char *username; /* NULL: none */
    const char *secret;   /* NULL: none */
    bool ask_git_helpers; /* client: the user's own credential helpers may answer for this host */
    const char *ca_file;  /* NULL: the system's */
    const char *ssh_key;         /* NULL: the user's own keys and agent (client only) */
    const char *ssh_known_hosts; /* NULL: ~/.ssh/known_hosts */
    bool may_http, may_path;
} transport_target;

/* What a child that failed said, last line, redacted and escaped; "" when it said nothing. */
typedef struct transport_report {
    char said[300];
    bool is_rejected; /* push: the remote moved first, or refused the ref */
    bool was_moved;   /* push: that it was a lost race (fetch first, non-fast-forward) */
    bool is_empty;    /* fetch, ls: the remote has no main */
    bool timed_out;
} transport_report;

/*
 * Fetches the remote's main into refs/memfs/incoming/<name> of git_dir.  EUNAVAIL with *ret said on
 * any failure of the remote.  deadline_ms: clock_mono_ms.
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

#endif
