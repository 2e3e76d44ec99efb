/*
 * pg_owner.h - who may work on a database: one memfs that has it for itself, or any number that
 * share it (servers.h).  For pg_db.c.
 *
 * Two servers with folders of their own that do not know of each other would write each other's
 * rows, and each miss what the other revoked.  So whoever opens a database takes an advisory lock of
 * it, shared or not, in a session of its own that does nothing else: it ends with the process,
 * however that ends, and with the database, after which it is taken again before anything else is
 * done there.
 *
 * Thread: any, but new and free.
 */
#ifndef MEMFS_CACHE_PG_OWNER_H
#define MEMFS_CACHE_PG_OWNER_H

#include "cache/pg_db.h"

typedef struct pg_owner pg_owner;

/* Does not connect; url must outlive it. */
pg_owner *pg_owner_new(const char *url, bool is_shared);
void pg_owner_free(pg_owner *o); /* NULL is fine; gives the lock back */
/*
 * Makes sure of the lock.  EUNAVAIL: another memfs has it, and which; or the database is away.
 * `generation` is the pool's: when it is another than at the last call the session is asked whether
 * it lives, and taken anew when it does not.
 */
MEMFS_CHECK memfs_code pg_owner_keep(pg_owner *o, uint64_t generation, memfs_error *err);
/* Is the session still there, as far as can be seen without a word?  Costs a poll(2). */
bool pg_owner_seems_good(pg_owner *o);

#endif
