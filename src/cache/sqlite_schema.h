/*
 * sqlite_schema.h - the numbered migrations of the SQLite dialect.
 *
 * A step that was released is never edited; a change is a new step at the end (reliability F29).
 */
#ifndef MEMFS_CACHE_SQLITE_SCHEMA_H
#define MEMFS_CACHE_SQLITE_SCHEMA_H

/* Ended by NULL. */
extern const char *const SQLITE_CACHE_MIGRATIONS[];
extern const char *const SQLITE_STATE_MIGRATIONS[];
/* Takes all rows, versions and agents out of a cache, at no price a row; within a transaction. */
extern const char SQLITE_CACHE_EMPTY[];

#endif
