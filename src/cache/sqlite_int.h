/*
 * sqlite_int.h - what sqlite_db.c and sqlite_conn.c share.
 */
#ifndef MEMFS_CACHE_SQLITE_INT_H
#define MEMFS_CACHE_SQLITE_INT_H

#include "cache/sqlite_db.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define SQLITE_N_SLOTS 40

/* Queries of the connection itself. */
enum { KEY_BEGIN = 1, KEY_COMMIT, KEY_ROLLBACK, KEY_CHECK, KEY_COPY };

typedef struct sqlite_slot {
    uint64_t key; /* 0: empty */
    uint64_t used;
    sqlite3_stmt *stmt;
    bool is_busy;
} sqlite_slot;

struct sqlite_conn {
    sqlite3 *handle;
    sqlite_db *db; /* NULL: the database was closed.  Of readers: guarded by the registry */
    uint64_t db_id;
    uint64_t epoch; /* of the file that this connection has open */
    unsigned depth; /* reads under way */
    uint64_t n_uses;
    sqlite_slot slots[SQLITE_N_SLOTS];
    sqlite_conn *next_of_thread;
    sqlite_conn *prev, *next; /* readers of the same database; guarded by the registry */
};

typedef struct file_id {
    dev_t dev;
    ino_t ino;
} file_id;

struct sqlite_db {
    const sqlite_spec *spec;
    size_t n_migrations;
    char *folder;
    char *path;
    uint64_t id; /* never used twice, unlike the address */

    pthread_mutex_t behind_lock; /* taken before write_lock by the one that lets others go first */
    atomic_uint n_waiting;       /* for write_lock, of those that are let go first */
    pthread_mutex_t write_lock;
    sqlite_conn *writer; /* NULL: lost.  Guarded by write_lock, as is what it does */

    atomic_bool is_suspect;     /* damage was met on the file that is open now */
    atomic_bool is_fenced;      /* an fsync failed: nothing is written any more (F05) */
    atomic_bool is_log_torn;    /* one of the log's did: it is emptied before the next write */
    atomic_uint_fast64_t epoch; /* counts the files that have had this name */
    file_id files[3];           /* database, -wal, -shm; changed under both locks */

    sqlite_conn *readers; /* guarded by the registry */
};

extern const char *const SQLITE_SUFFIXES[3];

/* conn: flags are SQLITE_OPEN_*; *ret is closed with sqlite_conn_close */
MEMFS_CHECK memfs_code sqlite_conn_open(sqlite_db *db, const char *path, int flags,
                                        sqlite_conn **ret, memfs_error *err);
void sqlite_conn_close(sqlite_conn *c); /* NULL is fine */
MEMFS_CHECK memfs_code sqlite_exec(sqlite_conn *c, const char *sql, memfs_error *err);
/* One number; 0 when there is no row. */
MEMFS_CHECK memfs_code sqlite_pragma(sqlite_conn *c, const char *sql, int64_t *ret,
                                     memfs_error *err);

/* An fsync failed: what was written may be lost, whatever a later one says (F05). */
bool sqlite_is_unsynced(int rc);
/* Translates what sqlite said; the only place. */
memfs_code sqlite_fail(sqlite_conn *c, int rc, memfs_error *err);
memfs_code sqlite_fail_damaged(sqlite_db *db, memfs_error *err, const char *how);

/* The registry of readers. */
void sqlite_registry_lock(void);
void sqlite_registry_unlock(void);
/* Closes all readers of a database, whosever they are; their threads free what is left. */
void sqlite_readers_close(sqlite_db *db);
bool sqlite_files_match(const sqlite_db *db);

#endif
