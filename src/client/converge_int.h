/*
 * converge_int.h - what the files of converge share: converge.c (the journey of one memory),
 * converge_remote.c (one other side: ask, fetch, merge, push), converge_look.c (what a report
 * says). Nobody else includes it.
 */
#ifndef MEMFS_CLIENT_CONVERGE_INT_H
#define MEMFS_CLIENT_CONVERGE_INT_H

#include "client/converge.h"
#include "client/remembered.h"
#include "client/turn.h"
#include "client/worktrees.h"

#define REF_SYNCED "refs/memfs/synced"      /* everything merged, where main could not follow yet */
#define REF_INCOMING "refs/memfs/incoming/" /* what a fetch brought, accepted or not */
#define REF_TRACKING "refs/remotes/origin/main"

typedef struct convergence {
    const settings *s;
    const place *p;
    const converge_options *o;
    client_report *ret;
    const backend_choice *choice;
    const char *hub; /* path of the hub that is worked on in place of the checkout; NULL: none */
    checkout *c;
    turn turn;
    int64_t deadline_ms;
    memfs_oid main;   /* refs/heads/main; zero: there is none */
    memfs_oid ours;   /* main and everything that was merged with it; zero: nothing */
    memfs_oid synced; /* refs/memfs/synced as it is on disk; zero: it is not there */
} convergence;

/* converge.c */

/* Opens where the objects are: the checkout, or the hub of an agent that has none here. */
MEMFS_CHECK memfs_code converge_open(convergence *v, memfs_error *err);
/*
 * Takes a commit into ours and writes the result down (refs/memfs/synced) when it is more than
 * main.
 */
MEMFS_CHECK memfs_code converge_take(convergence *v, const memfs_oid *theirs, memfs_error *err);
/* The checkout follows, if it can now; else ret->held_back says why not. */
MEMFS_CHECK memfs_code converge_settle(convergence *v, memfs_error *err);
/* Is the commit here, and part of `of`? */
bool converge_has(convergence *v, const memfs_oid *commit, const memfs_oid *of);

/* converge_remote.c */

/* The whole exchange with the remote; what it met is in the report. */
MEMFS_CHECK memfs_code converge_remote(convergence *v, memfs_error *err);
/* What the hub has is taken in; what it lacks is given to it.  Nothing happens without a hub. */
MEMFS_CHECK memfs_code converge_hub_in(convergence *v, memfs_error *err);
MEMFS_CHECK memfs_code converge_hub_out(convergence *v, memfs_error *err);
/* Is there anything that would be asked or told, as far as is known without asking? */
bool converge_may_rest(convergence *v);

/* converge_look.c */
void look_identify(const place *p, const backend_choice *choice, client_report *ret);
void look_checkout(convergence *v);
void look_remembered(const remembered *r, client_report *ret);
/* Why the checkout cannot follow, in words. */
void look_held_back(const checkout_state *state, char *out, size_t size);
/* <common git dir>/memfs/remote; caller frees. */
char *look_remote_path(const checkout *c);

#endif
