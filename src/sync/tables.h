/*
 * tables.h - tables mode: the blocks of a Letta server follow main, and main follows them (design
 * 9).
 *
 * A Letta server's database is one more keeper of each memory that both know.  It remembers which
 * commit its rows are of (letta_db.h); from there three are compared, block by block: what that
 * commit says, what main says, what the row says.
 *
 *   row as that commit, main elsewhere     the row is written
 *   row elsewhere, main as that commit     somebody used Letta's API: a commit on main takes it in
 *   both elsewhere                         the same, merged as any two sides are (design 7)
 *   a row that is gone                     its file goes, if main did not change it since
 *   a file or a row that was renamed       the other side is, too
 *   a row without a file                   becomes one where the agent has git memory on (its tag),
 *                                          else it is Letta's own business
 *
 * So nothing that Letta acknowledged is written over (H2), and nothing is lost when either side was
 * away.  Compared and written are the value, and of description, read_only and metadata what the
 * file names; limit follows a change of the file that names it.  All else is the row's own (tags,
 * hidden, what the file does not name) and stays.
 *
 * Never is a missing side taken for an empty one: without a repository nothing is done; a commit
 * that main does not descend from, or that stands beside tables which were restored without it,
 * counts as none, and then nothing is removed; rows that are gone all at once come back; a row that
 * Letta does not show, as it is of another organization, is neither gone nor written over.
 *
 * Thread: any.  With the agent's lock, where it says so.
 */
#ifndef MEMFS_SYNC_TABLES_H
#define MEMFS_SYNC_TABLES_H

#include "sync/advance.h"

/* Opens what home_options.letta_database names; does nothing when it names none. */
MEMFS_CHECK memfs_code tables_open(home *h, memfs_error *err);
/*
 * Main of the agent moved, under its lock: rows follow, before the push is acknowledged.  What
 * fails is told by v->talk and an alarm, and made up for by home_tables_step().
 */
void tables_follow(advance *v);
/*
 * Both sides are brought together, under the agent's lock.  purged: main was just rewritten from
 * that commit, and what rows have more than it must not come back; NULL: nothing of the kind.  OK
 * also where there is no tables mode, or Letta does not know the agent.
 */
MEMFS_CHECK memfs_code tables_settle(home *h, agent *a, const memfs_oid *purged, memfs_error *err);

#endif
