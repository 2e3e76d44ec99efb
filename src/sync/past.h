/*
 * past.h - what a memory's files once were, as an index (cache/search.h): which versions each path
 * had, and which words each version took away.
 *
 * It follows git, but not every push: whoever asks brings it up to main first, at the price of what
 * was pushed since. A first time costs the whole history (each version's text is read and compared
 * with the one before), and after that the index answers whatever is asked at the price of the
 * answer. It is rows of the cache: `rm` and past_follow() give it back.
 *
 * What was there and is gone is told by lines: a line of the version before that the version has
 * nowhere any more went with it. The version before is the one that the list has before it, as
 * histories with branches have no other order; so a line of one branch may be called gone by a
 * commit of another, and whoever shows it looks whether main has it (search.h).
 *
 * Thread: any; past_follow() waits for the agent's lock, but works outside of it.
 */
#ifndef MEMFS_SYNC_PAST_H
#define MEMFS_SYNC_PAST_H

#include "cache/find.h"
#include "sync/home.h"

/*
 * Brings the versions of an agent up to its synced tip. Errors as home_agent(); EUNAVAIL also: main
 * moved on all the time; ELIMIT: a history of more than PAST_MAX_BYTES as rows.
 */
#define PAST_MAX_BYTES (UINT64_C(512) << 20)
MEMFS_CHECK memfs_code past_follow(home *h, memfs_str agent_id, memfs_error *err);
/*
 * The same for all agents, until deadline_ms (clock_mono_ms): then *ret_is_whole is false, and the
 * background goes on with it. What fails of one agent is left out, too.
 */
MEMFS_CHECK memfs_code past_follow_all(home *h, int64_t deadline_ms, bool *ret_is_whole,
                                       memfs_error *err);
/* The background's part: some agents. False: there is nothing to do, or nobody asked. */
bool home_past_step(home *h);

/* ---- pure ---- */

/* Lines of `old` that `now` has nowhere; neighbours are one span. Caller frees *ret. */
void past_gone(memfs_str old, memfs_str now, find_span **ret, size_t *ret_n);

#endif
