/*
 * gitconfig.h - files in git-config syntax: our settings, and the configuration of checkouts.
 *
 * Exactly one file is read or written: no includes are followed, no other level is looked at.
 * Writing goes through git's own "<file>.lock", so it is safe beside git (waits 775 ms, as Letta's
 * client does), and a crash leaves no lock behind that the next change would not clear away
 * (gitlock.h).
 *
 * Thread: a handle belongs to one thread.
 */
#ifndef MEMFS_STORE_GITCONFIG_H
#define MEMFS_STORE_GITCONFIG_H

#include "base/buf.h"

typedef struct gitconfig gitconfig;

/* A file that is not there reads as empty.  EINVALID: cannot be parsed, with the line. */
MEMFS_CHECK memfs_code gitconfig_open(const char *path, gitconfig **ret, memfs_error *err);
void gitconfig_close(gitconfig *c);
void gitconfig_closep(gitconfig **c);

/* reading: the last value of "section.key" or "section.sub.key"; NULL when absent; valid until
 * close or the next change. */
const char *gitconfig_get(gitconfig *c, const char *key);
typedef bool (*gitconfig_fn)(const char *key, const char *value, void *ctx); /* false ends it */
void gitconfig_each(gitconfig *c, gitconfig_fn fn, void *ctx);

/* changing: each call is one atomic rewrite of the file, synced.  Nothing is written when nothing
 * would change. */
typedef struct gitconfig_change {
    const char *key;
    const char *value; /* NULL: remove all values of the key */
} gitconfig_change;
/*
 * All of them, in one rewrite; a key then has exactly the values given for it, in their order (one
 * key may be given more than once).  A link is followed.  EUNAVAIL: the lock stayed held.
 */
MEMFS_CHECK memfs_code gitconfig_apply(const char *path, const gitconfig_change *changes, size_t n,
                                       memfs_error *err);

#endif
