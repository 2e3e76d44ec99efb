/*
 * owner.h - whoever owns the data folder, asked over its socket.
 *
 * One process owns a home (L6).  When a server runs, commands ask it over $MEMFS_HOME/socket; when
 * none does, the command takes the lock itself and serves that same socket for the length of its
 * work.  So there is one way to every answer, and one place that knows how it is made.
 *
 * Thread: one.
 */
#ifndef MEMFS_CLI_OWNER_H
#define MEMFS_CLI_OWNER_H

#include "base/buf.h"

#include <jansson.h>

typedef struct owner owner;

/* EUNAVAIL: another process is starting or stopping here.  home must exist (ENOTFOUND). */
MEMFS_CHECK memfs_code owner_connect(const char *home_path, owner **ret, memfs_error *err);
void owner_close(owner *o);
void owner_closep(owner **o);

/* GET; the JSON answer, which the caller decrefs.  A status of 400 and up is an error. */
MEMFS_CHECK memfs_code owner_get(owner *o, const char *path, json_t **ret, memfs_error *err);
/* The same as text, as the server wrote it. */
MEMFS_CHECK memfs_code owner_get_text(owner *o, const char *path, memfs_buf *out,
                                      memfs_error *err);
/* Any method; body NULL: none.  The answer as the server wrote it. */
MEMFS_CHECK memfs_code owner_ask(owner *o, const char *method, const char *path,
                                 const json_t *body, memfs_buf *out, memfs_error *err);
/* POST to a route that answers line by line; each line is one JSON object, borrowed. */
typedef void (*owner_line_fn)(const json_t *line, void *ctx);
MEMFS_CHECK memfs_code owner_run(owner *o, const char *path, const json_t *body, owner_line_fn fn,
                                 void *ctx, memfs_error *err);

#endif
