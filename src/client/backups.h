/*
 * backups.h - copies of a memory beside it: <root>/memory-backup-YYYYMMDD-HHMMSS/, as the Letta
 * client makes them (client 1), uncommitted files and .git included.
 *
 * A backup is one state that the memory really had, though agents and git go on working beside us
 * and nothing is locked: objects are copied first (they only ever come on top), then the small
 * rest, as often as it takes until nothing of it changed meanwhile, then the objects that came in
 * since.  It is staged under another name, synced, and renamed.  Locks and temporary files of git
 * are left out; links are copied as links.
 *
 * Thread: any.
 */
#ifndef MEMFS_CLIENT_BACKUPS_H
#define MEMFS_CLIENT_BACKUPS_H

#include "base/oid.h"
#include "client/places.h"

#define BACKUPS_PREFIX "memory-backup-"

typedef struct backup_entry {
    char *name, *path;
    int64_t time_s; /* as the name says, local time; 0: it says none */
    bool has_head;
    memfs_oid head; /* of main */
} backup_entry;
typedef struct backups {
    backup_entry *at;
    size_t n;
} backups;
#define BACKUPS_INIT { NULL, 0 }
#define BACKUP_ENTRY_INIT { .name = NULL }
void backup_entry_dispose(backup_entry *b);
void backups_dispose(backups *b);

/* ENOTFOUND: there is no memory.  EUNAVAIL: it changed all the time for ten seconds. */
MEMFS_CHECK memfs_code backups_make(const place *p, backup_entry *ret, memfs_error *err);
/* Newest first.  Those of the client are listed too. */
MEMFS_CHECK memfs_code backups_list(const place *p, backups *ret, memfs_error *err);

#endif
