/*
 * log.h - one line, one event: key=value on stderr, written by the edge (cli, server) only.
 *
 *     log_event(LOG_WARN, "cache_rebuilt", "agent", id, "reason", text, NULL);
 *     2026-11-21T22:56:01.123456Z level=warn event=cache_rebuilt agent=agent-… reason="…"
 *
 * Values that hold anything but [A-Za-z0-9._:/@+-] are quoted, and control bytes, quotes, bidi
 * controls and invalid UTF-8 are escaped as \xNN, so a hostile name cannot forge a line (T20).
 * Tokens and block contents are never passed here.  Writing never blocks for long: a full pipe
 * drops the line and counts it (F30).
 *
 * Thread: any; lines are whole.
 */
#ifndef MEMFS_BASE_LOG_H
#define MEMFS_BASE_LOG_H

#include "base/macros.h"

typedef enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level;

/* What stderr is (a file, a pipe) is looked at anew with the next line after this. */
void log_set_level(log_level least);
/* Pairs of key and value, ended by NULL.  A NULL value leaves its pair out. */
void log_event(log_level level, const char *event, ...) __attribute__((sentinel));

#endif
