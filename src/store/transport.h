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
 * What travels is refs/heads/main and, as a fetch or a push of its own, refs/memfs/meta; a fetch
 * may name any one branch.  Never forced, never deleting (H5).  A fetch changes one ref of ours and
 * nothing else: no FETCH_HEAD, no tags, no tracking refs, no gc.
 *
 * ssh is started without the user's ssh configuration (-F /dev/null), never asks, and takes known
 * hosts only.  A server's (is_server) has no home, agent, keys and known hosts but the remote's.
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
    bool is_server; /* ssh: nothing of the user who runs us; ssh_key and ssh_known_hosts alone */
    const char *ca_file;  /* NULL: the system's */
    const char *ssh_key;         /* NULL: the user's own keys and agent (client only) */
    const char *ssh_known_hosts; /* NULL: ~/.ssh/known_hosts */
    bool may_http, may_path;
    bool is_shared; /* a path that others own and write to: of it git reads objects alone */
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
    /* what is wrong over there, or with what we send; said holds the remote's words */
    TRANSPORT_CAUSE_PROTECTED, /* a protected branch, a repository rule (GH006, GH013, GitLab) */
    TRANSPORT_CAUSE_HOOK,      /* declined by a hook of the remote's */
    TRANSPORT_CAUSE_SECRET,    /* its secret scanning found one in what was pushed */
    TRANSPORT_CAUSE_TOO_LARGE, /* larger than it, or max_bytes, takes */
    TRANSPORT_CAUSE_DISK_FULL, /* its disk or quota */
    TRANSPORT_CAUSE_READ_ONLY, /* archived, a mirror, in maintenance */
    TRANSPORT_CAUSE_SHALLOW,   /* it is a clone without its history */
    TRANSPORT_CAUSE_DAMAGED,   /* what it sent is cut short, altered, or nothing that fsck takes */
    TRANSPORT_N_CAUSES,
} transport_cause;
/* "protected": stable, for status and --json. */
const char *transport_cause_name(transport_cause cause);

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
/*
 * The same of any one ref, with bounds.  incoming_ref is below refs/memfs/incoming/.  ELIMIT: more
 * than max_bytes came.  ENOTFOUND: there is no such ref.
 */
typedef struct transport_want {
    const char *ref;          /* "refs/heads/main", or an id (of a server that serves any) */
    const char *incoming_ref;
    const char *with_ref, *with_incoming_ref; /* another, by the same question; NULL */
    uint64_t max_bytes;       /* of the pack; 0: 256 MiB */
    bool is_depth_one;        /* the commit and its tree, without its history */
    bool is_throw_away;       /* nothing of it has to survive a power cut; ENOSPACE, EINTERNAL: it
                               * could not be written */
} transport_want;
MEMFS_CHECK memfs_code transport_fetch_ref(const char *git_dir, const transport_target *t,
                                           const transport_want *want, int64_t deadline_ms,
                                           transport_report *ret, memfs_error *err);
/*
 * Pushes id to refs/heads/main. ECONFLICT: rejected (ret says how, and cause why, unless it was a
 * lost race).
 */
MEMFS_CHECK memfs_code transport_push(const char *git_dir, const transport_target *t,
                                      const memfs_oid *id, int64_t deadline_ms,
                                      transport_report *ret, memfs_error *err);
/*
 * The same of refs/heads/main or refs/memfs/meta (EINVALID: any other).  One ref a push, as many
 * hosts judge a push as a whole: one that takes no refs but branches would refuse main with it.
 */
MEMFS_CHECK memfs_code transport_push_ref(const char *git_dir, const transport_target *t,
                                          const char *ref, const memfs_oid *id,
                                          int64_t deadline_ms, transport_report *ret,
                                          memfs_error *err);
/* One look at the remote's main. ENOTFOUND: it has none. */
MEMFS_CHECK memfs_code transport_ls(const transport_target *t, int64_t deadline_ms, memfs_oid *ret,
                                    transport_report *report, memfs_error *err);
/*
 * The same look, at all that matters.  OK also when the remote has nothing (report->is_empty: it
 * has no main); git lists a HEAD only where its branch exists.
 */
typedef struct transport_refs {
    memfs_oid main, meta, head; /* zero: not there */
    char head_ref[256];         /* the branch that HEAD is; "": none, or not told */
} transport_refs;
MEMFS_CHECK memfs_code transport_ls_refs(const transport_target *t, int64_t deadline_ms,
                                         transport_refs *ret, transport_report *report,
                                         memfs_error *err);

/*
 * What the user's own credential helpers have for the address (`git credential fill`, as the
 * user, without a prompt).  ENOTFOUND: nothing.  Nothing is ever approved or rejected there.  The
 * caller wipes and frees both.
 */
MEMFS_CHECK memfs_code transport_ask_helpers(const char *url, int64_t deadline_ms,
                                             char **ret_username, char **ret_secret,
                                             memfs_error *err);

#endif
