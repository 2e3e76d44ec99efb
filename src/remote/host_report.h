/*
 * host_report.h - what a remote and its token can and cannot do, found out and put in words.
 *
 * Asked are git (would it answer a fetch; where a repository is, would it let a push in) and the
 * host's API, if it has one.  Nothing is changed there.  git's word counts for reading and pushing:
 * an API tells what the account may do, not what the token may.
 *
 * `memfs remote check` and mirror_check tell the same rows.
 *
 * Thread: any; blocks within its budget.
 */
#ifndef MEMFS_REMOTE_HOST_REPORT_H
#define MEMFS_REMOTE_HOST_REPORT_H

#include "remote/host.h"

#define HOST_EXPIRES_SOON_DAYS 30

typedef struct host_report {
    probe_result read; /* what git says to a fetch */
    probe_result push; /* and to a push; REMOTE_UNASKED: it was not asked */
    host_kind kind;    /* HOST_UNKNOWN: it could not be asked */
    char version[64];
    bool has_token, is_there; /* the repository */
    int can_read, can_push, can_create; /* 1, 0; -1: cannot be told */
    host_rights rights;  /* zero where nothing is known; may_create -1 */
    memfs_code api_code; /* MEMFS_OK: the API was asked, or there is none */
    host_answer api;     /* words: what it refused; "" */
} host_report;
/* kind: HOST_UNKNOWN asks.  HOST_PLAIN asks git alone. */
void host_report_make(const remote_target *t, host_kind kind, int64_t budget_ms, host_report *ret);

typedef struct host_wants {
    bool push, create; /* is it bad news that it cannot? */
    bool any;          /* the address is an example's: nothing need be there */
    int64_t now_s;
    bool is_one;       /* of one repository: once it is there, none is created */
    const char *(*advice)(remote_answer answer); /* NULL: a client's, that of the table */
} host_wants;
/*
 * Rows, in this order; bad ones are for somebody to do something about.
 *     host           what answers there                     (good)
 *     token          whose it is, and its scopes            (good)
 *     can-read  no-read  missing  renamed
 *     can-push  no-push  push-unknown
 *     can-create  no-create  create-unknown
 *     expires        soon or already (bad), or when (good)
 *     public         everybody may read it                  (bad)
 *     api-refused    what the API did not tell, and why     (good; bad where it refuses the token)
 *     api-away       it does not answer                     (bad)
 */
typedef void (*host_row_tell)(bool is_bad, const char *kind, const char *text, void *ctx);
void host_report_tell(const host_report *r, const host_wants *wants, host_row_tell fn, void *ctx);
/* What the bad rows come to, the first that fits. */
typedef enum host_verdict {
    HOST_FINE,    /* there are none */
    HOST_REFUSES, /* the credentials, or that they push where that is wanted */
    HOST_AWAY,    /* it did not answer, or its API did not */
    HOST_FAULT,   /* anything else */
} host_verdict;
host_verdict host_report_verdict(const host_report *r, const host_wants *wants);
/* Whole days until the token ends; negative: it has.  INT64_MAX: it does not, or nobody said. */
int64_t host_report_days_left(const host_report *r, int64_t now_s);

#endif
