/*
 * fan.h - the same work for many agents on a few threads, told from one.
 *
 * `work` runs on any of the threads, for each i once, in no order but about that of i.  `done` is
 * called for each that has ended, on the caller's thread, one at a time, in the order of their ends;
 * when it returns false no further one is begun, and those that run are waited for.
 */
#ifndef MEMFS_MIRROR_FAN_H
#define MEMFS_MIRROR_FAN_H

#include "base/macros.h"

typedef void (*fan_work_fn)(size_t i, void *ctx);
typedef bool (*fan_done_fn)(size_t i, void *ctx);
/* How many were done. */
size_t fan_out(size_t n, size_t n_threads, fan_work_fn work, fan_done_fn done, void *ctx);

#endif
