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
 * All or nothing: a refusal, by the plan or by the rules, has moved nothing (D3).  A plan that
 * changes nothing makes no commit, and is no failure: so the same request again is harmless (D4).
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
    bool moved; /* else nothing was to be changed: tip == before */
} edit_result;

/*
 * ENOTFOUND: nobody knows the agent.  EDENIED: the rules refuse, named by path.  EUNAVAIL: busy,
 * its folder is gone, or other servers were first too often.  ECORRUPT: fenced; when the outcome is
 * not known (F05), *ret_is_unclear (may be NULL) is true, and the caller must not report either
 * way.  ENOSPACE. What the plan returns.
 */
MEMFS_CHECK memfs_code edit_memory(home *h, memfs_str agent_id, const edit_options *o,
                                   edit_plan_fn plan, void *ctx, edit_result *ret,
                                   bool *ret_is_unclear, memfs_error *err);

#endif
