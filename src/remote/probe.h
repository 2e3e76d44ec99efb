/*
 * probe.h - what is at the other end: one request, one answer (design 5).
 *
 * http(s): one GET info/refs?service=git-upload-pack without a Git-Protocol header, so that the
 * refs come in the same answer (a server that answers in version 2 all the same is asked once
 * more, by git).  A credential that is known is sent with it; on a 401 the user's git helpers are
 * asked, where that is allowed.  ssh and paths: one `git ls-remote`.  Everything that can happen
 * is an answer; the probe itself cannot fail and never takes longer than its budget, whatever
 * hangs or drips.
 *
 * The same rows classify what a fetch or a push met, so that a remote is described in the same
 * words whichever request found out.
 *
 * Thread: any; blocks for at most the budget.
 */
#ifndef MEMFS_REMOTE_PROBE_H
#define MEMFS_REMOTE_PROBE_H

#include "base/oid.h"
#include "remote/credential.h"
#include "store/transport.h"

typedef enum remote_answer {
    REMOTE_UNASKED,
    REMOTE_REFS,            /* 200 with a main; has_main false: the list was too long */
    REMOTE_EMPTY,           /* 200 without */
    REMOTE_NOT_IMPLEMENTED, /* 501 */
    REMOTE_NOT_FOUND,       /* 404, 410; a path that is not there */
    REMOTE_NOT_ALLOWED,     /* 405 */
    REMOTE_NOT_GIT,         /* 200 with HTML or anything that is no git; a redirect */
    REMOTE_UNAUTHORIZED,    /* 401; ssh: permission denied */
    REMOTE_FORBIDDEN,       /* 403 */
    REMOTE_TOO_MANY,        /* 429 */
    REMOTE_FAILING,         /* 5xx */
    REMOTE_REFUSED,         /* nobody listens */
    REMOTE_TIMEOUT,
    REMOTE_NO_NAME,         /* DNS */
    REMOTE_TLS,             /* expired, wrong name, unknown CA, cut in the handshake */
    REMOTE_HOST_KEY,        /* ssh: unknown or changed */
    REMOTE_CUT,             /* the connection ended in the middle */
    REMOTE_REJECTED,        /* a push: refused by a hook, a protected branch */
    REMOTE_NOT_CREATED,     /* a mirror's: it is missing, and could not be made */
    REMOTE_OTHER,
    REMOTE_N_ANSWERS,
} remote_answer;

/* What a caller does about an answer; one row an answer, in probe.c. */
typedef enum remote_retry { RETRY_NOW, RETRY_NEXT_RUN, RETRY_BACKOFF, RETRY_NEVER } remote_retry;
typedef struct remote_class {
    const char *name;    /* "not-implemented": stable, in --json */
    const char *words;   /* "local-only: endpoint not implemented" */
    const char *advice;  /* what a person can do; "" when nothing */
    memfs_code code;     /* of `sync`: OK, EUNAVAIL (exit 3) or EDENIED-like credentials (exit 4) */
    bool is_credentials; /* exit 4 */
    remote_retry retry;
    int64_t remember_s;  /* how long the answer is believed without asking again */
} remote_class;
const remote_class *remote_class_of(remote_answer answer);
/* The class's words and the detail as one phrase, nothing said twice: "local-only: unreachable
 * (TLS: certificate has expired)".  detail may be empty; it is escaped (T20).  words.c */
void remote_answer_say(memfs_buf *out, remote_answer answer, memfs_str detail);

typedef struct probe_result {
    remote_answer answer;
    int http_status;       /* 0: none */
    bool has_main;
    memfs_oid main;
    bool knows_meta;       /* refs/memfs/meta was looked for: */
    memfs_oid meta;        /* zero: it is not there */
    int64_t retry_after_s; /* 0: not said; at most an hour */
    char detail[200];      /* the cause, redacted: "certificate has expired" */
} probe_result;

typedef struct remote_target {
    remote_url url;
    credential cred;
    const char *ca_file, *ssh_key, *ssh_known_hosts; /* borrowed; NULL */
    bool may_http;
    bool is_shared; /* transport_target's */
    bool ask_git_helpers;
    bool is_server; /* ssh: keys and known hosts of the remote's configuration alone */
    const char *hook_program; /* borrowed; NULL: beside the running program (tests set it) */
} remote_target;
#define REMOTE_TARGET_INIT { .url = REMOTE_URL_INIT, .cred = CREDENTIAL_INIT }
void remote_target_dispose(remote_target *t);
void remote_transport_target(const remote_target *t, transport_target *ret); /* borrows */

void probe(const remote_target *t, int64_t budget_ms, probe_result *ret);
/*
 * Would a push with this credential be let in?  The same question for git-receive-pack, which
 * changes nothing (but on GitLab, where asking makes a repository that is missing: ask only where
 * one is known to be).  Branch rules are met by the push itself.  REMOTE_UNASKED for ssh and paths.
 */
void probe_push(const remote_target *t, int64_t budget_ms, probe_result *ret);
/* What a failed fetch, push or ls met, from git's words. */
remote_answer probe_classify_git(const remote_target *t, const transport_report *report);

#endif
