/*
 * hub.h - the local store that answers for every agent id under `memfs setup git` (design 5, client
 * 12.2).
 *
 * A hub is a bare repository at $MEMFS_HOME/hub/<agent>.git (mounts:
 * hub/<agent>/repositories/<name>.git), made on demand from the genesis.  git-remote-memfs serves
 * clone, fetch and push of the Letta client from it, in milliseconds and without a network.  What
 * was pushed is carried on to the real remote beside that (hub_push); `memfs sync` does the same,
 * and brings the checkout along.
 *
 * setup installs one line in the user's git config, url."memfs::".insteadOf = <memfs base>/v1/git/,
 * after it made sure that git-remote-memfs is found in PATH; undo takes both away.  Both or
 * neither.
 */
#ifndef MEMFS_CLIENT_HUB_H
#define MEMFS_CLIENT_HUB_H

#include "client/report.h"

/* Path of the hub; caller frees. name: NULL, or of a shared repository. */
char *hub_path(const settings *s, const char *agent_id, const char *name);
bool hub_is_there(const settings *s, const char *agent_id);
/*
 * Made if missing; an unknown agent with a remote: at most budget_ms on one fetch, then the
 * genesis. A shared repository has no checkout that a sync would look after, so its hub is brought
 * together with the Letta endpoint (fetch, merge, push) each time this is called, within the
 * budget; what fails then waits for the next time.
 */
MEMFS_CHECK memfs_code hub_prepare(const settings *s, const char *agent_id, const char *name,
                                   int64_t budget_ms, memfs_error *err);
/* The address of a shared repository lies beside the memory's; caller frees *ret.  False: a remote
 * with this address has none. */
bool hub_mount_url(const char *memory_url, const char *name, char **ret);
/*
 * What a client has pushed into a hub goes on to the remote (hub_push.c): started by
 * git-remote-memfs after each push that moved main, waited for by nobody.  One works on a hub and
 * one more waits, whoever comes then leaves: the one that waits will see their commit.  An answer
 * that is still believed is not asked for again, so an endpoint that says 501 hears of a push every
 * few minutes.
 */
void hub_push(const settings *s, const place *p, const char *name, int64_t budget_ms,
              client_report *ret);
typedef memfs_code (*hub_fn)(const char *agent_id, const char *path, void *ctx, memfs_error *err);
MEMFS_CHECK memfs_code hub_each(const settings *s, hub_fn fn, void *ctx, memfs_error *err);

typedef struct hub_setup {
    bool is_on;
    char *base;       /* what is rewritten */
    char *git_config; /* the file */
    char problem[300];
} hub_setup;
void hub_setup_dispose(hub_setup *h);
/* Is it on, and whole?  */
MEMFS_CHECK memfs_code hub_setup_look(const settings *s, hub_setup *ret, memfs_error *err);
MEMFS_CHECK memfs_code hub_setup_git(const settings *s, bool is_undo, hub_setup *ret,
                                     memfs_error *err);

#endif
