/*
 * past.h - what a memory's files once were, as an index (cache/search.h): which versions each path
 * had, and which words each version took away.
 *
 * A first question makes it, at the price of the whole history (each version's text is read and
 * compared with the one before); an agent whose past nobody asks for has none, and pays nothing.
 * From then on it follows main: the transaction that writes the rows of new commits adds their
 * versions (past_step), by whatever door they came, so the index answers at the price of the
 * answer.  A stretch that would keep the agent's lock for long, or that cannot be listed for
 * whatever reason, holds up no push: it leaves the index behind, and the next question brings it
 * up.  What makes all rows anew drops the index.  It is rows of the cache: `rm` and past_follow()
 * give it back.
 *
 * Thread: any; past_follow() waits for the agent's lock, but works outside of it; past_step() is
 * under it.
 */
#ifndef MEMFS_SYNC_PAST_H
#define MEMFS_SYNC_PAST_H

#include "sync/past_list.h"

/*
 * Brings the versions of an agent up to its synced tip. Errors as home_agent(); EUNAVAIL also: main
 * moved on all the time; ELIMIT: a history of more than PAST_MAX_BYTES as rows.
 */
MEMFS_CHECK memfs_code past_follow(home *h, memfs_str agent_id, memfs_error *err);
/*
 * The same for all agents, until deadline_ms (clock_mono_ms): then *ret_is_whole is false, and the
 * background goes on with it. What fails of one agent is left out, too.
 */
MEMFS_CHECK memfs_code past_follow_all(home *h, int64_t deadline_ms, bool *ret_is_whole,
                                       memfs_error *err);
/* The background's part: some agents. False: there is nothing to do, or nobody asked. */
bool home_past_step(home *h);

/*
 * The versions of the commits from `from`, which the agent's versions go up to, to `to`: for the
 * cache_apply() that moves the tip between the two. r: where they can be read. NULL: the stretch is
 * longer than these bounds, or could not be listed: it is left to past_follow(). Caller frees.
 */
#define PAST_STEP_LOOKED 512 /* commits: of a line that is 256 new ones, and as many behind them */
#define PAST_STEP_VERSIONS 1024
#define PAST_STEP_TEXT_BYTES (UINT64_C(8) << 20)
past_list *past_step(home *h, const agent *a, repo *r, const memfs_oid *from, const memfs_oid *to);

#endif
