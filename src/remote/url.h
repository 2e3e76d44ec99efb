/*
 * url.h - addresses of git remotes: taken apart once, at the door (reliability T05, T06).
 *
 * Accepted: https://, http:// (the caller decides whether it may be used), ssh://,
 * user@host:path, host:path, file:///path and plain absolute paths.  Refused, with the reason:
 * everything else (ext::, git://, a leading '-', control bytes and backslashes, also
 * percent-encoded ones, blanks except inside a plain path, bytes that are no UTF-8, an empty or
 * odd host, an option where a host, user or path should be, '.' or '..' as a part of the path, a
 * query or fragment).
 *
 * User info is split off here and nowhere else: `text` never holds a secret, so it may be stored,
 * logged and shown.  A user name without a password stays part of an ssh address.  In http(s)
 * user info of one part ("https://x@host/") is a user name if it is short and a token if it has
 * 16 bytes or more: that is how people write tokens today.
 *
 * Thread: any; pure.
 */
#ifndef MEMFS_REMOTE_URL_H
#define MEMFS_REMOTE_URL_H

#include "base/buf.h"

typedef enum url_kind { URL_HTTPS, URL_HTTP, URL_SSH, URL_PATH } url_kind;

typedef struct remote_url {
    url_kind kind;
    char *text;     /* the address without user info of http(s), as git gets it */
    char *origin;   /* "https://host[:port]" in lower case, default port left out; "" for a path */
    char *host;     /* lower case, no port; "" for a path */
    uint16_t port;  /* as given or the scheme's; 0 for a path */
    char *path;     /* from the first '/' on; decoded for a path */
    char *username; /* user info that was split off, decoded; of ssh: who logs in; NULL: none */
    char *secret;   /* split off, decoded; NULL: none */
} remote_url;
#define REMOTE_URL_INIT { .text = NULL }

/* EINVALID; the message never holds user info. */
MEMFS_CHECK memfs_code url_parse(const char *text, remote_url *ret, memfs_error *err);
void url_dispose(remote_url *u);
/* "{agentId}" replaced, once; EINVALID when there are others or the id is no agent's.  Caller
 * frees. */
MEMFS_CHECK memfs_code url_expand(const char *template_text, const char *agent_id, char **ret,
                                  memfs_error *err);
/* "<base>/v1/git/<agent>/state.git" with trailing slashes of base dropped; caller frees. */
char *url_letta(const char *base, const char *agent_id);
/* Same scheme, host and port: may a credential of one be shown to the other? */
bool url_same_origin(const remote_url *a, const remote_url *b);
/* Loopback by name or number. */
bool url_is_loopback(const remote_url *u);
/* Any text (git's stderr, a config value) with the user info of all URLs in it, and bearer or basic
 * values, replaced by "<redacted>", escaped to one line (base/redact.h says what goes). */
void url_redact(memfs_buf *out, memfs_str text);

#endif
