/*
 * exchange_int.h - the steps of one exchange, shared by exchange.c (begin, look, push, conclude) and
 * take.c (take in).  The pair is held by the caller; nothing here locks.
 */
#ifndef MEMFS_MIRROR_EXCHANGE_INT_H
#define MEMFS_MIRROR_EXCHANGE_INT_H

#include "mirror/mirror_int.h"

#define LOOK_MS 10000 /* for one question */

/* How a step ended. */
typedef enum outcome {
    STEP_ON,   /* go on */
    STEP_DONE, /* both are in step, or all that may be done is */
    STEP_RACE, /* the remote moved: look again */
    STEP_OVER, /* failed; x says why */
} outcome;

/* ---- failing: always STEP_OVER ---- */

/* By the remote's answer; detail is escaped and redacted where it came from. */
outcome exchange_fail_remote(exchange *x, remote_answer answer, const char *detail);
/* On this side. */
outcome exchange_fail_here(exchange *x, const memfs_error *err);
/* Not a failure that goes away by trying: the record's note says what stands. */
outcome exchange_hold(exchange *x, memfs_code code);

/* ---- what is where ---- */

/* Is `commit` in r, and part of `in`?  Zero ids are part of nothing. */
bool exchange_contains(repo *r, const memfs_oid *commit, const memfs_oid *in);
/* The same in the agent's own repository, if it has one. */
bool exchange_has(const exchange *x, const memfs_oid *commit, const memfs_oid *in);
/* x->agent and x->ours anew. */
MEMFS_CHECK memfs_code exchange_find_main(exchange *x, memfs_error *err);

/* ---- the record ---- */

/* The remote's main is at tip. */
void exchange_see(exchange *x, const memfs_oid *tip);
/* That note is overtaken; another one stays. */
void exchange_clear_note(mirror_record *r, mirror_note note);

/* ---- a Letta server's folder (folder.c): what a look and a push are there ---- */

/* STEP_DONE: the server does not know this agent.  STEP_RACE: it is half-written. */
outcome exchange_look_folder(exchange *x, probe_result *heard);
outcome exchange_push_folder(exchange *x);

/* ---- taking in (take.c) ---- */

/* What a look heard becomes main's, or a note says why not.  STEP_ON: there may be something to push. */
outcome exchange_take_in(exchange *x, const probe_result *heard);
/* A commit that no ref there names.  STEP_RACE: it, or what it needs, is not there (yet). */
outcome exchange_take_commit(exchange *x, const memfs_oid *commit);
/* Of an agent that nobody here knows, without a look.  STEP_RACE: a look has to say more. */
outcome exchange_take_unseen(exchange *x);

#endif
