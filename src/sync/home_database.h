/*
 * home_database.h - which database a home keeps its state and blocks in, and that it stays that one.
 *
 * The url is said anew at every start (it may hold a password); `database` in the home remembers
 * its name without one.  So a command that was started without the url says what is missing, where
 * it would otherwise find an empty state, and every memory "known but gone" or not known at all.
 *
 * A home that has a state.db and is given a url moves in: what state.db knows goes into the
 * database, and the file is set aside as state.db.moved.  Of agents that the database knows already
 * (another server's) the earlier dates count.  Blocks are made anew from git.
 *
 * Thread: any one.
 */
#ifndef MEMFS_SYNC_HOME_DATABASE_H
#define MEMFS_SYNC_HOME_DATABASE_H

#include "cache/cache.h"
#include "cache/state.h"

/* Does that look like the address of a database?  NULL is fine.  EINVALID, which does not show it. */
MEMFS_CHECK memfs_code home_database_check(const char *url, memfs_error *err);

/* Does the url hold a password, before its host or as a parameter? */
bool home_database_has_password(const char *url);

/*
 * Opens what the url names, under the home's lock.  is_shared: as database_open.  *ret_moved: a
 * state.db moved in.  Errors as database_open; EINVALID: the home keeps its state elsewhere, and where.
 */
MEMFS_CHECK memfs_code home_database_open(const char *home_path, const char *url, bool is_shared,
                                          state **ret_state, cache **ret_cache, bool *ret_was_reset,
                                          bool *ret_moved, memfs_error *err);

#endif
