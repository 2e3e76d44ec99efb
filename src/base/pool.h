/*
 * pool.h - a bounded pool of worker threads with a bounded queue that is fair by key.
 *
 * Work carries a key (the agent id).  Keys take turns, and one key never holds more than half of
 * the places (rounded up), so a busy agent cannot starve the others (T17).  When the queue is
 * full, pool_submit refuses with EUNAVAIL and the caller answers 503.
 *
 * A job that waits for a stranger (a slow client, a database that is away) gives its place away for
 * that time, between pool_wait_begin() and pool_wait_end(): another job runs in it, on a further
 * thread if need be.  So it takes POOL_MAX_WAITING such jobs, not a handful, to hold everybody up
 * (T18).
 *
 * A job that waits for the disk does the same between pool_disk_begin() and pool_disk_end(): many
 * small commits cost little processor time and a dozen fsyncs each, and a disk takes those of many
 * in the time of one.  Of such jobs POOL_MAX_AT_DISK give theirs away at a time, as each takes a
 * thread with its memory, and where the disk is fast more of them only get into each other's way.
 *
 * Thread: any thread may submit; a job runs on one worker thread.
 */
#ifndef MEMFS_BASE_POOL_H
#define MEMFS_BASE_POOL_H

#include "base/error.h"

typedef struct pool pool;
typedef void (*pool_fn)(void *arg);

#define POOL_MAX_WAITING 128
#define POOL_MAX_AT_DISK 16 /* part of them */

/* life cycle */
pool *pool_new(size_t n_threads, size_t max_queued);
/* Refuses new work, lets queued and running work end, joins. */
void pool_free(pool *p);

/* changing */
MEMFS_CHECK memfs_code pool_submit(pool *p, const char *key, pool_fn fn, void *arg,
                                   memfs_error *err);

/*
 * Around a wait, on the thread of a job; elsewhere they do nothing.  They nest, and of one in
 * another the outer counts.  None blocks.
 */
void pool_wait_begin(void);
void pool_wait_end(void);
void pool_disk_begin(void);
void pool_disk_end(void);
/* Such a wait between two looks: *pause_ms, which begins with 1 and becomes longer, up to 32. */
void pool_pause(int64_t *pause_ms);

/* reading: running plus queued jobs */
size_t pool_load(pool *p);

#endif
