/*
 * prepare.h - the local half of a memory, always first (design 5): a checkout that is usable at
 * once and in which an unmodified Letta client stays harmless (client 12.1).
 *
 * What a prepared checkout has: a real .git folder; branch main with the genesis below it;
 * identity, commit.gpgsign=false, core.symlinks=false, core.autocrlf=false, core.splitIndex=false,
 * letta.agentId, branch.main.{remote,merge}, origin (the memory URL, or the foreign one),
 * refs/remotes/origin/main = newest known of the remote, at least the genesis; core.hooksPath =
 * $MEMFS_HOME/hooks; merge.memfs driver and .git/info/attributes "* merge=memfs"; the host-scoped
 * http.<origin>/.extraHeader that keeps the Letta key at home (client 7); system/.
 *
 * Idempotent, and safe beside itself: each step compares before it changes, .git appears by one
 * rename, and one flock (root/memory.memfs.lock) lets 32 at once take turns.  Nothing that is there
 * is overwritten; files of a folder without .git are committed on top of the genesis.  When
 * everything is in place nothing is written (10 ms).  Another's core.hooksPath, merge driver,
 * identity or origin stays; the report says so. A core.hooksPath for all of the user's repositories
 * is noted as memfs-checkout.hooksPath: memfs-hook goes on to those hooks, as git would have run
 * them.
 */
#ifndef MEMFS_CLIENT_PREPARE_H
#define MEMFS_CLIENT_PREPARE_H

#include "client/report.h"

typedef struct prepared {
    bool was_created, was_adopted;
    size_t n_skipped; /* files that could not be adopted, told in notes */
    memfs_buf notes;  /* a line each: what was left alone and why */
} prepared;
#define PREPARED_INIT { .notes = MEMFS_BUF_INIT(64 * 1024) }
void prepared_dispose(prepared *p);

/* choice may be NULL (no remote is known yet). */
MEMFS_CHECK memfs_code prepare(const settings *s, const place *p, const backend_choice *choice,
                               prepared *ret, memfs_error *err);
/* The configuration alone, for a repository that git made itself (the remote helper's clones). */
MEMFS_CHECK memfs_code prepare_config(const settings *s, const char *git_dir, const char *agent_id,
                                      const backend_choice *choice, prepared *ret, memfs_error *err);
/* $MEMFS_HOME/hooks: links to memfs-hook under every hook's name; made once, checked cheaply. */
MEMFS_CHECK memfs_code prepare_hooks(const settings *s, char **ret_path, memfs_error *err);
/* core.hooksPath as the user or the system has set it for all repositories; NULL: not at all.  Caller
 * frees. */
char *prepare_users_hooks(void);
#define PREPARE_USERS_HOOKS_KEY "memfs-checkout.hooksPath" /* hook/chain.c reads it */

#endif
