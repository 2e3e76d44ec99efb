/*
 * pg_module.h - the doors of the module memfs-postgresql.so, see database.h.
 *
 * The module uses the functions of the program that opens it; both are of one build.
 */
#ifndef MEMFS_CACHE_PG_MODULE_H
#define MEMFS_CACHE_PG_MODULE_H

#include "cache/cache.h"
#include "cache/state.h"

#define PG_MODULE "memfs-postgresql.so"
#define PG_MODULE_OPEN "memfs_postgresql_open"
#define PG_MODULE_LETTA "memfs_postgresql_letta" /* a letta_open_fn, see letta_int.h */

typedef memfs_code (*pg_module_open_fn)(const char *url, bool is_shared, state **ret_state,
                                        cache **ret_cache, memfs_error *err);

#endif
