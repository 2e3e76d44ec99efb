/*
 * edit.h - what a caller of the API wants of a memory's files, as one commit (design 3, journey
 * REST).
 *
 * Under the agent's lock the caller's plan function looks at main as it is then, and says what is
 * to be put and what is to go; that is judged as a push is (names, sizes, purged objects, read-only
 * files), written as one commit on top, and main moves by the steps of advance.h.  So a change is
 * always made of the newest text, and two that come at once follow each other (H2, H3).  Where
 * another server was first, the plan is asked again.
 *
 * All or nothing: a refusal, by the plan or by the rules, has moved nothing (D3).  Of an agent that
 * is to be made the plan is asked once more, before there is anything of it.  A plan that
 * changes nothing makes no commit, and is no failure: so the same request again is harmless (D4).
 *
 * What git does not carry of a block (state_birth) changes with the commit, or without one: a
 * journal in the state says what is under way, so that a crash between the two is finished or taken
 * back by edit_recover(), and rows are always what commit and births make of them.
 *
 * Thread: any; waits for the agent's lock, for fsyncs, and where servers share a database for
 * those.
 */
#ifndef MEMFS_SYNC_EDIT_H
#define MEMFS_SYNC_EDIT_H

#include "sync/home.h"
#include "sync/push.h"

typedef struct edit edit; /* one attempt; lives during the plan function */

/*
 * May be called more than once for one edit_memory(): what it made of the attempt before counts
 * nothing.  A return other than OK ends the edit and is passed on.
 */
typedef memfs_code (*edit_plan_fn)(edit *e, void *ctx, memfs_error *err);

/* ---- in the plan function ---- */

/* Main, as it is in this attempt. */
const memfs_oid *edit_main(const edit *e);
/* Of the agent's own repository: for the calls of store.h and history.h. */
repo *edit_repo(edit *e);
/*
 * The file as this edit leaves it: with what was put and removed before.  ENOTFOUND: there is none.
 * ELIMIT: it is larger than any file may be.  *ret_blob may be NULL.
 */
MEMFS_CHECK memfs_code edit_read(edit *e, memfs_str path, memfs_buf *out, memfs_oid *ret_blob,
                                 memfs_error *err);
/*
 * The file as it was in an older commit.  ENOTFOUND: it had none there, or main does not descend
 * from it.
 */
MEMFS_CHECK memfs_code edit_find_at(edit *e, const memfs_oid *commit, memfs_str path,
                                    memfs_oid *ret, memfs_error *err);
/*
 * The last word about a path counts.  EINVALID: no path of a file, relative, '/' between names, or
 * one that holds NUL.  EDENIED: a name that no push may bring.  ELIMIT: more than a file may have.
 */
MEMFS_CHECK memfs_code edit_put(edit *e, memfs_str path, memfs_str content, memfs_error *err);
/* One that is not there is fine. */
MEMFS_CHECK memfs_code edit_remove(edit *e, memfs_str path, memfs_error *err);
/* All files become those of another commit of this history; with nothing put or removed beside it.
 */
void edit_take_tree(edit *e, const memfs_oid *commit);
/* More of the commit's message; the first line is its subject. */
void edit_say(edit *e, const char *fmt, ...) MEMFS_PRINTF(2, 3);

/*
 * What git does not carry, as state_change has it: births that the rows of this commit are to have,
 * and documents, set just before main moves and taken back if it does not; and what is to be set
 * once it has moved.  Each label and document once in each.  The strings are copied.  A document
 * that is not as it must be ends the edit with ECONFLICT, before anything was changed.
 */
void edit_set_birth(edit *e, const state_birth *birth);
void edit_set_doc(edit *e, const state_doc *doc);
void edit_then_birth(edit *e, const state_birth *birth);
void edit_then_doc(edit *e, const state_doc *doc);
/*
 * Was the edit of this id committed already, on main, and not yet in `since`?  Its commit has the
 * trailer "Memfs-Edit: <id>" (edit_say).
 */
MEMFS_CHECK memfs_code edit_was_done(edit *e, const char *id, const memfs_oid *since, bool *ret,
                                     memfs_error *err);
#define EDIT_TRAILER "Memfs-Edit: "

/* ---- the whole ---- */

typedef struct edit_options {
    const store_identity *who; /* author and committer, and of the reflog */
    push_read_only read_only;  /* what of files that are read-only; _WARN is _MAY here */
    const char *why;           /* for the reflog */
    bool may_be_new;           /* an agent that nobody knows is made, with the genesis first */
    incoming_talk_fn talk;     /* of warnings, as of a push; may be NULL */
    void *talk_ctx;
} edit_options;

typedef struct edit_result {
    memfs_oid before, tip;
    bool moved;   /* else there was no commit to make: tip == before */
    bool changed; /* births or documents */
} edit_result;

/*
 * ENOTFOUND: nobody knows the agent.  EDENIED: the rules refuse, named by path.  EUNAVAIL: busy,
 * its folder is gone, or other servers were first for half a minute.  ECORRUPT: fenced; when the outcome is
 * not known (F05), or too few servers have it by HOME_COPY_MS, *ret_is_unclear is true, and the
 * caller must not report either way.  NULL: the caller reports to nobody, and no copy is waited
 * for. ENOSPACE. What the plan returns.
 */
MEMFS_CHECK memfs_code edit_memory(home *h, memfs_str agent_id, const edit_options *o,
                                   edit_plan_fn plan, void *ctx, edit_result *ret,
                                   bool *ret_is_unclear, memfs_error *err);

/*
 * Ends what a crash left under way (edit_left.h); a failure of one is an alarm.  For one thread of
 * the server's, at the start and every minute or so.
 */
MEMFS_CHECK memfs_code edit_recover(home *h, memfs_error *err);

#endif
