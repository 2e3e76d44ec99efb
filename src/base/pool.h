/*
 * pool.h - a bounded pool of worker threads with a bounded queue that is fair by key.
 *
 * Work carries a key (the agent id).  Keys take turns, and one key never holds more than half of
 * the threads (rounded up), so a busy agent cannot starve the others (T17).  When the queue is
 * full, pool_submit refuses with EUNAVAIL and the caller answers 503.
 *
 * Thread: any thread may submit; a job runs on one worker thread.
 */
#ifndef MEMFS_BASE_POOL_H
#define MEMFS_BASE_POOL_H

#include "base/error.h"

typedef struct pool pool;
typedef void (*pool_fn)(void *arg);

/* life cycle */
pool *pool_new(size_t n_threads, size_t max_queued);
/* Refuses new work, lets queued and running work end, joins. */
void pool_free(pool *p);

/* changing */
MEMFS_CHECK memfs_code pool_submit(pool *p, const char *key, pool_fn fn, void *arg,
                                   memfs_error *err);

/* reading: running plus queued jobs */
size_t pool_load(pool *p);

#endif
