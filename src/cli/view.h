/*
 * view.h - commits and changes shown: what log, diff and show have in common, for people and as
 * JSON.
 *
 * Text from the memory goes through cli_print_safe: a terminal acts on none of it.
 */
#ifndef MEMFS_CLI_VIEW_H
#define MEMFS_CLI_VIEW_H

#include "base/json.h"
#include "cli/cli.h"
#include "store/browse.h"

typedef enum view_style { VIEW_FULL, VIEW_LINE } view_style;

void view_commit(const browse_entry *entry, view_style style);
/* {id, parents, author, email, time, subject, message, paths}; the object stays open if is_open. */
void view_commit_json(const browse_entry *entry, bool is_open, json_writer *w);
/* The patch, or "M  path  +3 -1" where there is none. */
void view_change(const browse_change *change);
/* {status, path, old_path, added, removed, binary, patch} */
void view_change_json(const browse_change *change, json_writer *w);

/* "2026-11-22 14:03:59", local time */
#define VIEW_TIME_LEN 32
void view_time(int64_t time_s, char out[VIEW_TIME_LEN]);

/* The message's first line. */
memfs_str view_subject(memfs_str message);

/* Prints what was gathered as JSON, with a newline, and finishes. */
cli_exit view_print(const memfs_buf *json);

#endif
