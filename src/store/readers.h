/*
 * readers.h - who reads a repository now, and which retired packs wait for them (care.c).
 *
 * A reader is a repo handle, or a git child of ours; it counts from before it lists the packs.
 * Repositories are named by their absolute path, as store_path gives it.
 *
 * Thread: any.  A leaf: nothing is called under its mutex.
 */
#ifndef MEMFS_STORE_READERS_H
#define MEMFS_STORE_READERS_H

#include "base/macros.h"

#include <sys/types.h>

typedef struct readers readers;

/* life cycle */
readers *readers_new(void);
void readers_free(readers *r);

/* The number of a new reader of the repository, for one of the two below; never 0. */
uint64_t readers_begin(readers *r, const char *path);
/* 0 is nobody. */
void readers_end(readers *r, uint64_t reader);
/* The reader is a child: it ends with the last process of its group. */
void readers_end_with(readers *r, uint64_t reader, pid_t group);

/* The pack ("pack-<id>") has no index any more: only readers that are there now may want it. */
void readers_retire(readers *r, const char *path, const char *pack);
/*
 * Takes one pack off the list that was retired in this repository and that no reader can want any
 * more.  False: there is none.  *ret_pack is the caller's.
 */
bool readers_release(readers *r, const char *path, char **ret_pack);

#endif
