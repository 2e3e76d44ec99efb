/*
 * pg_backend.h - cache and state over one PostgreSQL database.
 *
 * Thread: as cache.h and state.h.
 */
#ifndef MEMFS_CACHE_PG_BACKEND_H
#define MEMFS_CACHE_PG_BACKEND_H

#include "cache/cache.h"
#include "cache/pg_db.h"
#include "cache/state.h"

/* Each shares db, and is ended by cache_close and state_close. */
cache *pg_cache_new(pg_db *db);
state *pg_state_new(pg_db *db);

#endif
