/*
 * database.h - where state and cache of a home are kept: in two SQLite files of its folder, or in
 * schema `memfs` of a PostgreSQL database that several servers share.
 *
 * PostgreSQL's client library brings twenty others along, which cost a start 3 ms and 5 MiB.  So
 * the backend is a module of its own, memfs-postgresql.so beside the server, opened when a url asks
 * for it.
 *
 * Thread: any one; what is opened is as cache.h and state.h say.
 */
#ifndef MEMFS_CACHE_DATABASE_H
#define MEMFS_CACHE_DATABASE_H

#include "cache/cache.h"
#include "cache/state.h"

/* Does text look like the address of a PostgreSQL database (postgresql://, postgres://)? */
bool database_is_url(memfs_str text);
/* The url without its password, for messages and logs; caller frees. */
char *database_name(const char *url);
/*
 * url NULL or empty: SQLite in folder.  is_shared: other servers may have it, too (servers.h); PostgreSQL
 * only.  *ret_was_reset as cache_open_sqlite.  Errors as pg_db_open
 * and state_open_sqlite; ENOTFOUND: the module is not installed.  On failure nothing is open.
 */
MEMFS_CHECK memfs_code database_open(const char *url, bool is_shared, const char *folder,
                                     state **ret_state, cache **ret_cache, bool *ret_was_reset,
                                     memfs_error *err);
/* A function of the module, which is opened for it; for letta_db.c.  ENOTFOUND as above. */
MEMFS_CHECK memfs_code database_symbol(const char *name, void **ret, memfs_error *err);

#endif
