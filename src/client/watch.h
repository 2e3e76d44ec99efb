/*
 * watch.h - `memfs sync --watch`: all memories of a home, kept together with their remotes by one
 * process.
 *
 * inotify on each checkout's refs and HEAD (not on files: only commits travel), debounced 300 ms; a
 * poll of each remote (SETTING_POLL_S, spread); backoff with full jitter by remote, 1 s to 15 min;
 * folders that come and go; a wall clock that jumped (suspend) or a lost inotify queue means
 * looking at everything once.  Work runs on a few threads, one memory at a time each, so a hanging
 * remote holds up nobody else (L3).  SIGTERM: ends after the memory under way, 5 s at most.
 */
#ifndef MEMFS_CLIENT_WATCH_H
#define MEMFS_CLIENT_WATCH_H

#include "client/converge.h"

typedef void (*watch_fn)(const client_report *r, void *ctx); /* after each sync that changed something */
/* only: NULL, or one agent.  Returns at SIGTERM or SIGINT. */
MEMFS_CHECK memfs_code watch_run(const settings *s, const char *only, watch_fn fn, void *ctx,
                                 memfs_error *err);

#endif
