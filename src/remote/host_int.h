/*
 * host_int.h - what the files of the hosts' APIs share.  Nobody else includes it.
 *
 *     host.c          names, the address of an API, the calls of host.h
 *     host_find.c     which kind of host it is
 *     host_ask.c      one REST call, and what is the same in all answers
 *     host_read.c     the parts of an answer that are read without the network: pure
 *     host_gitea.c    Gitea and Forgejo      host_github.c, host_gitlab.c
 *
 * A host is a host_ops: four jobs, each a few REST calls of one host_talk.  What a call found is in
 * the talk until the next one.  A refusal is put in words by who knows what was tried; the words
 * are in talk->answer and, the same, in the error.
 */
#ifndef MEMFS_REMOTE_HOST_INT_H
#define MEMFS_REMOTE_HOST_INT_H

#include "base/buf.h"
#include "remote/host.h"

#include <jansson.h>

#define HOST_MAX_BODY (8u << 20) /* of one answer: a page of 100 repositories is below 1 MiB */
#define HOST_MAX_PAGES 2000
#define HOST_MAX_WAIT_S 3600

typedef struct host_talk {
    const host *h;
    int64_t deadline_ms;
    host_answer *answer;
    /* the last answer; json is owned */
    int status;
    json_t *json;             /* NULL: the body was none */
    char said[240];           /* the host's own words, escaped and without secrets; "" */
    char scopes[300];         /* X-OAuth-Scopes */
    char wanted_scopes[120];  /* X-Accepted-OAuth-Scopes */
    char wanted_rights[120];  /* X-Accepted-GitHub-Permissions: "administration=write" */
    char expires[64];         /* github-authentication-token-expiration */
    char moved_to[400];       /* Location */
    char next_page[24];       /* X-Next-Page; "" */
    bool has_scopes, has_link, has_next_link, has_next_page, has_total;
    uint64_t total;           /* X-Total-Count */
    bool has_no_calls_left;   /* X-RateLimit-Remaining: 0 */
    int64_t reset_at_s, date_s, retry_after_s; /* 0: not said */
} host_talk;
void host_talk_dispose(host_talk *k);

typedef struct host_ops {
    memfs_code (*create)(host_talk *k, memfs_error *err);
    memfs_code (*check)(host_talk *k, host_rights *ret, memfs_error *err);
    memfs_code (*list)(host_talk *k, host_repo_fn fn, void *ctx, memfs_error *err);
    memfs_code (*hook)(host_talk *k, const char *url, const char *secret, bool *ret_made,
                       memfs_error *err);
} host_ops;
extern const host_ops HOST_GITEA_OPS, HOST_GITHUB_OPS, HOST_GITLAB_OPS;

/* ---- host_ask.c ---- */

/*
 * One call: path is below h->api.  OK: an answer that the caller judges: 2xx with JSON, 3xx, or a
 * 4xx.  EDENIED: 401.  EUNAVAIL: nobody answers, 5xx, 429 or a 403 that is one, or what came is no
 * answer of such a host.
 */
MEMFS_CHECK memfs_code host_ask(host_talk *k, const char *method, const char *path, memfs_str body,
                                memfs_error *err);
MEMFS_CHECK memfs_code host_get(host_talk *k, const char *path, memfs_error *err);
bool host_is_good(const host_talk *k); /* 2xx */
/* Says why, in the answer and in err; returns code. */
memfs_code host_refuse(host_talk *k, memfs_code code, memfs_error *err, const char *fmt, ...)
    MEMFS_PRINTF(4, 5);
/*
 * An answer that nobody expected, in words: what = "create 'agents/x'".  404: ENOTFOUND,
 * is_missing; 3xx: EINVALID; 403: EDENIED, is_credentials; else EINVALID.
 */
memfs_code host_odd(host_talk *k, const char *what, memfs_error *err);

/* One repository, hook, ... of a list; false ends it. */
typedef bool (*host_row_fn)(const json_t *row, void *ctx);
/*
 * All pages of a list.  path holds the query but for the page.  *ret_refused: the first page was
 * not given, and what the talk has says why.  ELIMIT: more pages than anybody has.
 */
MEMFS_CHECK memfs_code host_pages(host_talk *k, const char *path, host_row_fn fn, void *ctx,
                                  bool *ret_refused, memfs_error *err);

/* The hook with that url is on a list of them: config.url or url. */
typedef struct host_hook_search {
    const char *url;
    bool is_there;
} host_hook_search;
bool host_hook_is(const json_t *row, void *search);
/* Repositories' names of one owner, out of rows that may hold others'. */
typedef struct host_names {
    const char *owner; /* NULL: all of them are */
    const char *name_key, *full_key; /* "name", "full_name" */
    host_repo_fn fn;
    void *ctx;
} host_names;
bool host_name_row(const json_t *row, void *names);

/* "<before>/owner<after>" and "<before>/owner/name<after>", escaped; caller frees. */
char *host_owner_path(const host *h, const char *before, const char *after);
char *host_repo_path(const host *h, const char *before, const char *after);

/* ---- host_read.c: pure ---- */

/* "" where it is absent or no text. */
const char *host_text(const json_t *object, const char *key);
/* The host's own words in an answer's JSON: message, error_description, error, errors[].message. */
void host_words(const json_t *json, memfs_buf *out);
/* Of Gitea's "required=[write:organization]" or "required scope(s): [write:x]"; false: none. */
bool host_gitea_scope(const char *said, char *out, size_t size);
/* Is every one of the words in wanted ("repo, admin:org") in have?  Any of them is enough. */
bool host_has_any(const char *have, const char *wanted);
/* Another page follows: by Link, the page's number or the total; full: rows seen so far. */
bool host_has_more(const host_talk *k, size_t n_page, size_t n_so_far);
/* One header of an answer into the talk. */
void host_read_header(memfs_str name, memfs_str value, void *talk);
/* "2027-01-31", or with a time behind it ("2027-01-31 12:00:00 UTC"), as unix seconds; 0: none. */
int64_t host_date(const char *text);
/* How long to wait: Retry-After, else until the reset by the host's own clock; 0: not said. */
int64_t host_wait_s(const host_talk *k, int64_t now_s);
/* "/repositories/17" at the end of where a renamed repository is now; false: none. */
bool host_moved_path(const char *location, char *out, size_t size);

#endif
