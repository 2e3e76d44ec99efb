/*
 * block_edit.h - blocks as Letta's API writes them: each change a commit of the agent that has the
 * block, and its attributes with it (http-api 5, 6, 11).
 *
 * A block that is attached to an agent is a file of its memory; one that is attached to nobody is
 * loose (sync/loose.h).  One id may be attached to several agents, each of which has a file of its
 * own; a change by that id is a commit in each, written down before the first of them, so that a
 * crash leaves none out: block_edit_recover() makes up for it, and makes none twice.
 *
 * Thread: any; as edit_memory().
 */
#ifndef MEMFS_SYNC_BLOCK_EDIT_H
#define MEMFS_SYNC_BLOCK_EDIT_H

#include "memory/ids.h"
#include "sync/edit.h"

/* Who changes, and what is said of it in the commit. */
typedef struct block_by {
    const store_identity *who;
    push_read_only read_only; /* MUST_NOT also refuses what git does not carry */
    const char *reason;       /* one line; "" */
    /*
     * What the caller has read (H3): "" for nothing; a commit or a blob in 40 hex digits; or, with
     * is_tag, the text of the agent's tag, "<commit>-<generation>", of a loose block that of
     * theirs.  When it is that no longer: ECONFLICT, with both ids in the message.
     */
    memfs_str expected;
    bool is_tag;
    bool *ret_is_unclear; /* as in edit_memory(); may be NULL */
} block_by;

/* What is to change; what is not given stays. */
typedef struct block_patch {
    bool has_value, has_description, has_limit, has_read_only, has_hidden;
    bool read_only, hidden;
    memfs_str value, description;
    int64_t limit;
    memfs_str label, metadata_json, tags_json; /* "": not given; "{}" and "[]" are none */
} block_patch;

/* ---- who has it ---- */

typedef struct block_holder {
    char block_id[IDS_MAX_LEN + 1];
    char agent_id[IDS_MAX_LEN + 1]; /* LOOSE_AGENT: nobody */
    char *label;
} block_holder;
typedef struct block_holders {
    block_holder *list; /* the one that was written last comes first */
    size_t n;
} block_holders;
void block_holders_dispose(block_holders *holders);
/*
 * From the cache.  agent_id empty: of all; block_id empty: all that this agent has.  None is no
 * failure.  A loose one is alone: while an agent has the block, its copies count.
 */
MEMFS_CHECK memfs_code block_holders_find(home *h, memfs_str block_id, memfs_str agent_id,
                                          block_holders *ret, memfs_error *err);

/* ---- whose turn it is ---- */

/*
 * Who changes, attaches, detaches or deletes a block has it alone, from the look at who has it to
 * the last of its commits: so all copies end with the later of two changes, and whoever detaches it
 * last leaves it to nobody (K3, K4).  What a crash left of an earlier change is done first.  Servers
 * that share a database wait for each other's turns, too; a database that fails in one ends it.
 */
typedef struct block_turn {
    home *h; /* NULL: not begun */
    char block_id[IDS_MAX_LEN + 1];
    struct block_turn *next;
} block_turn;
/* Waits for others, and for no agent's lock that the caller has.  EUNAVAIL: it took too long, or the
 * database that servers share is away. */
MEMFS_CHECK memfs_code block_turn_begin(home *h, memfs_str block_id, block_turn *ret,
                                        memfs_error *err);
void block_turn_end(block_turn *t);

/* The turns of several blocks, all or none; taken in the order of their ids, so that two that want
 * the same ones do not wait for each other. */
typedef struct block_turns {
    block_turn *list; /* sorted */
    size_t n;
} block_turns;
MEMFS_CHECK memfs_code block_turns_begin(home *h, const memfs_str *ids, size_t n, block_turns *ret,
                                         memfs_error *err);
bool block_turns_have(const block_turns *t, memfs_str block_id);
void block_turns_end(block_turns *t);

/* ---- changing: in the block's turn, where nothing else is said ---- */

/* ENOTFOUND: agent or label.  EEXISTS: the new label is taken.  EINVALID: it is no file's. */
MEMFS_CHECK memfs_code block_edit_patch(home *h, memfs_str agent_id, memfs_str label,
                                        const block_patch *p, const block_by *by, edit_result *ret,
                                        memfs_error *err);
/*
 * The same of all holders; what `by` expects is asked of the first.  When one of the others fails,
 * so does the call, and block_edit_recover() goes on with it.
 */
MEMFS_CHECK memfs_code block_edit_patch_all(home *h, memfs_str block_id, const block_holders *of,
                                            const block_patch *p, const block_by *by,
                                            memfs_error *err);
/* The block goes from all holders; what `by` expects is asked of the first. */
MEMFS_CHECK memfs_code block_edit_delete(home *h, memfs_str block_id, const block_holders *of,
                                         const block_by *by, memfs_error *err);
/* What edit_recover() ends, and changes of several agents; and loose blocks' rows. */
MEMFS_CHECK memfs_code block_edit_recover(home *h, memfs_error *err);
/* The same, once a minute, for a thread of the server's that calls every second or so. */
void block_edit_step(home *h);

/* A block that is attached to nobody: row says all of it but its id, which is made.  No turn. */
MEMFS_CHECK memfs_code block_edit_create(home *h, const block_row *row,
                                         char ret_id[IDS_MAX_LEN + 1], memfs_error *err);
/* The file in the agent's memory, and its attributes.  One that has it already stays. */
MEMFS_CHECK memfs_code block_edit_attach(home *h, memfs_str agent_id, memfs_str block_id,
                                         const block_by *by, edit_result *ret, memfs_error *err);
/* The file goes; if no other agent has it, and `keeps`, the block is loose. */
MEMFS_CHECK memfs_code block_edit_detach(home *h, memfs_str agent_id, memfs_str block_id,
                                         bool keeps, const block_by *by, edit_result *ret,
                                         memfs_error *err);
/*
 * The agent has these blocks and no others from then on, by one commit: what it has beside them is
 * detached, what it lacks is attached, and what it has stays as it is.  A label may go from one to
 * another.  ENOTFOUND: one of them is none; with only_own also one that the agent does not have.
 * EEXISTS: two have one label.  Takes the turns itself; `expected` of by is not looked at.
 */
MEMFS_CHECK memfs_code block_edit_set_attached(home *h, memfs_str agent_id, const memfs_str *ids,
                                               size_t n, bool only_own, const block_by *by,
                                               edit_result *ret, memfs_error *err);
/*
 * Part of somebody else's plan (edit.h): the block's file and attributes, under that label, in the
 * memory that the edit is of.  ENOTFOUND, EEXISTS, EINVALID as block_edit_attach().
 */
MEMFS_CHECK memfs_code block_plan_attach(edit *e, home *h, memfs_str block_id, memfs_str label,
                                         memfs_error *err);

#endif
