/*
 * opened.h - the memory that a command of the client is about, found and opened.
 *
 * Named by --agent, else $LETTA_AGENT_ID, $AGENT_ID; where none is, the memory whose checkout (or
 * worktree) the command was started in.
 */
#ifndef MEMFS_CLI_OPENED_H
#define MEMFS_CLI_OPENED_H

#include "cli/cli.h"
#include "client/places.h"
#include "store/browse.h"

typedef struct opened {
    settings *settings;
    place place;
    checkout *checkout; /* the memory's own, or the worktree that we are in */
    browse *browse;
    char *below; /* the working folder inside the checkout, "system/", where it is one; NULL */
} opened;
#define OPENED_INIT { .place = PLACE_INIT }
void opened_dispose(opened *m);

/* False: explained on stderr, and the command ends with *ret_exit. */
bool opened_memory(const cli_usage *usage, const char *agent, opened *ret, cli_exit *ret_exit);
/* Without the checkout: the place alone (tokens, backups of what may be broken). */
bool opened_place(const cli_usage *usage, const char *agent, opened *ret, cli_exit *ret_exit);

/* A commit's name or a time (client/when.h). */
MEMFS_CHECK memfs_code opened_commit(opened *m, const char *rev_or_time, memfs_oid *ret,
                                     memfs_error *err);

/*
 * A path of the memory from one that was typed: from the working folder where that is inside, or
 * absolute, or from the memory's top.  "" is all of it; caller frees.
 */
char *opened_path(const opened *m, const char *typed);

#endif
