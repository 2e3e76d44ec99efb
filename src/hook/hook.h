/*
 * hook.h - memfs-hook: what git starts all the time.
 *
 * One static program with nothing but base and zlib, because git calls reference-transaction some
 * twenty times in one `pull --rebase`, and a dynamic linker alone would cost ten times what the
 * work does (design 15).  Which program it is, the name it was called by says:
 *
 *   $MEMFS_HOME/hooks/<hook>   a link to memfs-hook: the hook of that name
 *   git-remote-memfs           the remote helper
 *   memfs-hook <hook> ...      the same, for tests and by hand
 *   memfs-hook credential ...  the credential door (credential.h)
 *
 * It never calls git where git is waiting for it, except to become `git upload-pack` or `git
 * receive-pack`, and it never stays in the way: a part of memfs that is missing means that the hook
 * does nothing.
 *
 * Everything here runs in a process that ends soon: what is allocated may be left to its end.
 */
#ifndef MEMFS_HOOK_HOOK_H
#define MEMFS_HOOK_HOOK_H

#include "base/buf.h"
#include "base/oid.h"

/* "memfs: <message>" on stderr. */
void hook_say(const char *fmt, ...) MEMFS_PRINTF(1, 2);

/* find.c: the repository that git is working on */

typedef struct hook_repo {
    char *git_dir; /* of this worktree */
    char *common;  /* of all its worktrees */
} hook_repo;
#define HOOK_REPO_INIT { NULL, NULL }
void hook_repo_dispose(hook_repo *r);
/*
 * From $GIT_DIR, else from the working directory, where git puts its hooks: ".git" there (a folder,
 * or a file of a linked worktree), or the folder itself when it is bare.  Parents are not searched.
 */
bool hook_repo_find(hook_repo *ret);
/* $MEMFS_HOME, else ~/.memfs; NULL when neither is known.  Caller frees. */
char *hook_home(void);

/* config.c: one value of a configuration file, without git */

/* From the repository's own configuration; NULL: it is not there.  Caller frees. */
char *hook_config(const hook_repo *r, const char *section, const char *key);
/* From a text; a section with a subsection is another one. */
char *config_find(memfs_str text, const char *section, const char *key);

/* refs.c: refs and loose commits, read without git */

typedef enum ref_place { REF_ABSENT, REF_LOOSE, REF_PACKED } ref_place;
/* The id of a ref, loose before packed.  One that is symbolic, or no SHA-1, counts as absent. */
ref_place refs_read(const char *common, const char *name, memfs_oid *ret);
/* The entry of packed-refs alone. */
bool refs_read_packed(const char *common, const char *name, memfs_oid *ret);
/*
 * Is `target` reachable from `from` by at most REFS_WALK loose commits?  False is also said when it
 * could not be found out (packed, damaged, further away).
 */
#define REFS_WALK 32
bool refs_reaches(const char *common, const memfs_oid *from, const memfs_oid *target);

/* transaction.c: the reference-transaction hook.  argv[1] is the state.  Never fails the
 * transaction but by a hook of the user's own. */
int hook_reference_transaction(char **argv);

/* chain.c: the user's own hooks */

/*
 * The hook of that name in the folder that git would look into without us, if there is one that is
 * executable and not Letta's own (its work is ours), else NULL.  Caller frees.
 */
char *chain_target(const hook_repo *r, const char *name);
/* Is this the text of a hook that the Letta client writes? */
bool chain_is_lettas(memfs_str text);
/* Becomes the hook; returns (with the exit status) only when it cannot be started. */
int chain_exec(const char *path, char **argv);
/* pre-commit, post-commit: `memfs hook <name>`, which goes on to the user's own; all others: the
 * user's own. */
int hook_ours(const char *name, char **argv);
int hook_chained(const char *name, char **argv);

/* remote_name.c: what git-remote-memfs is asked for */

typedef struct remote_name {
    char agent[64];
    char repository[65]; /* "": the memory itself */
} remote_name;
/* "<agent id>/state.git" or "<agent id>/repositories/<percent-encoded name>.git", nothing else
 * (T01). */
bool remote_name_parse(memfs_str url, remote_name *ret);

/* remote_helper.c: argv is <program> <remote> <url> */
int remote_helper(int argc, char **argv);

#endif
