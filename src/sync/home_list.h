/*
 * home_list.h - every agent of a home, as opposed to the one that a request names (home.c).
 *
 * Who is here says the state, and of what was put there by hand the folders do.  The list is of
 * one moment: whoever walks it meets agents that were purged since, and misses new ones.
 * home_recover_all (home.h) is the walk of each start.
 *
 * Thread: any; no lock is held or wanted.
 */
#ifndef MEMFS_SYNC_HOME_LIST_H
#define MEMFS_SYNC_HOME_LIST_H

#include "sync/home_int.h"

typedef struct id_list { /* home_int.h names it */
    char (*ids)[IDS_MAX_LEN + 1];
    size_t n, cap;
} id_list;
void id_list_dispose(id_list *l);
void id_list_add(id_list *l, memfs_str id); /* one that is too long for an id is left out */
void id_list_sort(id_list *l);
/* of a sorted one, which stays so; each id is in it once */
bool id_list_has(const id_list *l, const char *id);
void id_list_insert(id_list *l, const char *id);
void id_list_drop(id_list *l, const char *id);

/* The agents and shared repositories of the state and, if asked, the folders that it does not know;
 * sorted. */
MEMFS_CHECK memfs_code home_list(home *h, bool with_folders, id_list *ret, memfs_error *err);
/* Calls fn for each repository/<org>/<name> and shared/<org>/<name> that holds a repo.git. */
typedef void (*home_folder_fn)(const char *org, const char *name, void *ctx);
void home_folders(home *h, home_folder_fn fn, void *ctx);

#endif
