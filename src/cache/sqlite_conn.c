#include "cache/sqlite_int.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * Connections, their statements, and what sqlite says in our words.
 *
 * Readers belong to threads.  A thread finds its connection in a list of its own (one entry a
 * database), so a read takes no lock.  But a database that is closed must take the readers of all
 * threads with it, and a thread that ends its own; so each reader is also in a list of its
 * database, and both ends of its life happen under one mutex, the registry.  Closing a database
 * closes the sqlite handles and marks the readers dead (db == NULL); the memory stays with the
 * thread, which frees it when it ends or opens the next reader.  Dead readers are never found,
 * since a database id is never used twice.
 *
 * Epochs: sqlite_db_reset gives the name to another file.  A reader that has the old one open
 * finishes what it is at and is replaced at its next use.  Opening happens under the registry, as
 * resetting does, and includes the first read: sqlite opens the log at the first read, and the log
 * of one file with the pages of another would be garbage that no checksum shows.
 *
 * Readers are opened read-only and never checkpoint (F24).
 */

const char *const SQLITE_SUFFIXES[3] = { "", "-wal", "-shm" };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t at_thread_exit;
static __thread sqlite_conn *mine;

/* ---- errors ---- */

static memfs_code code_of_errno(int number)
{
    switch (number) {
    case ENOSPC:
    case EDQUOT: return MEMFS_ENOSPACE;
    case EACCES:
    case EPERM:
    case EROFS: return MEMFS_EDENIED;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EAGAIN: return MEMFS_EUNAVAIL;
    default: return MEMFS_EINTERNAL;
    }
}

typedef struct verdict {
    memfs_code code;
    const char *why;
} verdict;

static verdict judge(int rc, int number)
{
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return (verdict){ MEMFS_EUNAVAIL, "is held by somebody else" };
    case SQLITE_FULL: return (verdict){ MEMFS_ENOSPACE, "has no room on the disk" };
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return (verdict){ MEMFS_EDENIED, "may only be read: look at its folder's mode" };
    case SQLITE_CANTOPEN: return (verdict){ code_of_errno(number), "could not be opened" };
    case SQLITE_IOERR: return (verdict){ code_of_errno(number), "could not be read or written" };
    case SQLITE_NOMEM: return (verdict){ MEMFS_EUNAVAIL, "found no memory" };
    case SQLITE_TOOBIG: return (verdict){ MEMFS_ELIMIT, "cannot hold a text of this size" };
    case SQLITE_INTERRUPT: return (verdict){ MEMFS_EUNAVAIL, "was interrupted" };
    default: return (verdict){ MEMFS_EINTERNAL, "refused a query" };
    }
}

static bool is_damage(int rc)
{
    return (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB ||
           rc == SQLITE_IOERR_CORRUPTFS || rc == SQLITE_IOERR_SHORT_READ ||
           rc == SQLITE_READONLY_DBMOVED;
}

memfs_code sqlite_fail_damaged(sqlite_db *db, memfs_error *err, const char *how)
{
    return memfs_fail(err, MEMFS_ECORRUPT, "the %s %s%s", db->spec->what, how, db->spec->remedy);
}

bool sqlite_is_unsynced(int rc)
{
    return rc == SQLITE_IOERR_FSYNC || rc == SQLITE_IOERR_DIR_FSYNC;
}

/* A cache is begun anew; of the state only the log may be in doubt (F05). */
static memfs_code fail_unsynced(sqlite_db *db, int rc, memfs_error *err)
{
    if (db->spec->is_disposable) {
        atomic_store(&db->is_fenced, true);
        return memfs_fail(err, MEMFS_EINTERNAL, "the disk did not take the %s (sqlite %d)",
                          db->spec->what, rc);
    }
    atomic_store(&db->is_log_torn, true);
    memfs_fail(err, MEMFS_EUNAVAIL,
               "what became of this change is not known: the disk did not take the %s (sqlite %d)",
               db->spec->what, rc);
    log_event(LOG_ERROR, "state_unsynced", "reason", err->msg, NULL);
    return err->code;
}

memfs_code sqlite_fail(sqlite_conn *c, int rc, memfs_error *err)
{
    sqlite_db *db = c->db;
    int number = c->handle != NULL ? sqlite3_system_errno(c->handle) : 0;
    verdict v;

    if (sqlite_is_unsynced(rc))
        return fail_unsynced(db, rc, err);
    if (is_damage(rc)) {
        if (c->epoch == atomic_load(&db->epoch))
            atomic_store(&db->is_suspect, true);
        return sqlite_fail_damaged(db, err, "is damaged");
    }
    v = judge(rc, number);
    return memfs_fail(err, v.code, "the %s %s (sqlite %d)", db->spec->what, v.why, rc);
}

/* ---- life of a connection ---- */

/* memfs_contains(pattern, text) */
static void contains(sqlite3_context *context, int n, sqlite3_value **values)
{
    const like_pattern *pattern = sqlite3_value_pointer(values[0], "like");
    const char *text = sqlite3_value_blob(values[1]);
    size_t len = (size_t)sqlite3_value_bytes(values[1]);

    (void)n;
    if (pattern == NULL || sqlite3_value_type(values[1]) == SQLITE_NULL)
        return;
    sqlite3_result_int(context, like_matches(pattern, str_make(text != NULL ? text : "", len)));
}

static int prepare_handle(sqlite3 *handle, bool is_writer, bool has_indexes)
{
    sqlite3_busy_timeout(handle, SQLITE_BUSY_TIMEOUT_MS);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, is_writer && has_indexes, NULL);
    if (!is_writer)
        sqlite3_db_config(handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return sqlite3_create_function_v2(handle, "memfs_contains", 2,
                                      SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY, NULL,
                                      contains, NULL, NULL, NULL);
}

static void end_thread(void *unused);

static void set_up(void)
{
    /* Counting memory takes a lock that all threads share. */
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    pthread_key_create(&at_thread_exit, end_thread);
}

memfs_code sqlite_conn_open(sqlite_db *db, const char *path, int flags, sqlite_conn **ret,
                            memfs_error *err)
{
    sqlite_conn *c;
    memfs_code code;
    int rc;

    pthread_once(&once, set_up);
    c = mem_alloc(sizeof(*c));
    c->db = db;
    c->db_id = db->id;
    c->epoch = atomic_load(&db->epoch);
    rc = sqlite3_open_v2(path, &c->handle, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                         NULL);
    if (rc == SQLITE_OK)
        rc = prepare_handle(c->handle, (flags & SQLITE_OPEN_READWRITE) != 0,
                            db->spec->has_indexes);
    if (rc != SQLITE_OK) {
        code = sqlite_fail(c, rc, err);
        sqlite_conn_close(c);
        return code;
    }
    *ret = c;
    return MEMFS_OK;
}

static void close_handle(sqlite_conn *c)
{
    for (size_t i = 0; i < SQLITE_N_SLOTS; i++)
        sqlite3_finalize(c->slots[i].stmt);
    sqlite3_close_v2(c->handle);
    c->handle = NULL;
}

void sqlite_conn_close(sqlite_conn *c)
{
    if (c == NULL)
        return;
    if (c->handle != NULL)
        close_handle(c);
    free(c);
}

void sqlite_conn_widen(sqlite_conn *c)
{
    sqlite3_exec(c->handle, "PRAGMA cache_size = -32768", NULL, NULL, NULL);
}

void sqlite_conn_narrow(sqlite_conn *c)
{
    sqlite3_exec(c->handle, "PRAGMA cache_size = -2000", NULL, NULL, NULL);
    sqlite3_db_release_memory(c->handle);
}

/* ---- readers ---- */

void sqlite_registry_lock(void)
{
    pthread_mutex_lock(&registry);
}

void sqlite_registry_unlock(void)
{
    pthread_mutex_unlock(&registry);
}

/* Out of the list of its database, if that is still there.  Under the registry. */
static void unlink_reader(sqlite_conn *c)
{
    if (c->db == NULL)
        return;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        c->db->readers = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    c->db = NULL;
}

void sqlite_readers_close(sqlite_db *db)
{
    sqlite_registry_lock();
    while (db->readers != NULL) {
        sqlite_conn *c = db->readers;

        unlink_reader(c);
        close_handle(c);
    }
    sqlite_registry_unlock();
}

static void end_thread(void *unused)
{
    sqlite_conn *c;

    (void)unused;
    while ((c = mine) != NULL) {
        mine = c->next_of_thread;
        sqlite_registry_lock();
        unlink_reader(c);
        sqlite_registry_unlock();
        sqlite_conn_close(c);
    }
}

/* Takes dead readers, and `old` if it is not NULL, from this thread.  Under the registry. */
static void prune_mine(const sqlite_conn *old)
{
    sqlite_conn **at = &mine;

    while (*at != NULL) {
        sqlite_conn *c = *at;

        if (c->db != NULL && c != old) {
            at = &c->next_of_thread;
            continue;
        }
        *at = c->next_of_thread;
        unlink_reader(c);
        sqlite_conn_close(c);
    }
}

bool sqlite_files_match(const sqlite_db *db)
{
    char path[4096 + 8];
    struct stat st;

    for (size_t i = 0; i < 3; i++) {
        int n = snprintf(path, sizeof(path), "%s%s", db->path, SQLITE_SUFFIXES[i]);

        if (n < 0 || (size_t)n >= sizeof(path) || stat(path, &st) < 0)
            return false;
        if (st.st_dev != db->files[i].dev || st.st_ino != db->files[i].ino)
            return false;
    }
    return true;
}

static memfs_code open_and_prime(sqlite_db *db, sqlite_conn **ret, memfs_error *err)
{
    int64_t version;
    sqlite_conn *c;
    memfs_code rc;

    rc = sqlite_conn_open(db, db->path, SQLITE_OPEN_READONLY, &c, err);
    if (rc < 0)
        return rc;
    rc = sqlite_exec(c, "PRAGMA temp_store = MEMORY", err);
    if (rc == MEMFS_OK)
        rc = sqlite_pragma(c, "PRAGMA user_version", &version, err); /* opens the log: see above */
    if (rc < 0) {
        sqlite_conn_close(c);
        return rc;
    }
    *ret = c;
    return MEMFS_OK;
}

/*
 * Under the registry.  The names are looked at on both sides of the opening, as a file may be taken
 * away or put there by somebody who knows nothing of our locks.
 */
static memfs_code open_reader(sqlite_db *db, sqlite_conn **ret, memfs_error *err)
{
    sqlite_conn *c = NULL;
    memfs_code rc = MEMFS_OK;

    if (sqlite_files_match(db)) {
        rc = open_and_prime(db, &c, err);
        if (sqlite_files_match(db)) {
            *ret = c;
            return rc;
        }
    }
    sqlite_conn_close(c);
    atomic_store(&db->is_suspect, true);
    return sqlite_fail_damaged(db, err, "was deleted or replaced while in use");
}

static void add_mine(sqlite_conn *c)
{
    c->next_of_thread = mine;
    mine = c;
    c->next = c->db->readers;
    if (c->next != NULL)
        c->next->prev = c;
    c->db->readers = c;
    pthread_setspecific(at_thread_exit, &mine); /* any value that is not NULL */
}

static memfs_code replace_reader(sqlite_db *db, const sqlite_conn *old, sqlite_conn **ret,
                                 memfs_error *err)
{
    memfs_code rc;

    sqlite_registry_lock();
    prune_mine(old);
    rc = open_reader(db, ret, err);
    if (rc == MEMFS_OK)
        add_mine(*ret);
    sqlite_registry_unlock();
    return rc;
}

memfs_code sqlite_read_begin(sqlite_db *db, sqlite_conn **ret, memfs_error *err)
{
    sqlite_conn *c = mine;
    memfs_code rc;

    while (c != NULL && c->db_id != db->id)
        c = c->next_of_thread;
    if (c == NULL || (c->depth == 0 && c->epoch != atomic_load(&db->epoch))) {
        rc = replace_reader(db, c, &c, err);
        if (rc < 0)
            return rc;
    }
    c->depth++;
    *ret = c;
    return MEMFS_OK;
}

void sqlite_read_end(sqlite_conn *c)
{
    c->depth--;
}

void sqlite_read_endp(sqlite_conn **c)
{
    if (*c != NULL)
        sqlite_read_end(*c);
    *c = NULL;
}

/* ---- queries ---- */

static void sql_of(sqlite_conn *c, uint64_t key, memfs_buf *out)
{
    static const char *const own[] = {
        [KEY_BEGIN] = "BEGIN IMMEDIATE",
        [KEY_COMMIT] = "COMMIT",
        [KEY_ROLLBACK] = "ROLLBACK",
        [KEY_CHECK] = "PRAGMA integrity_check(1)",
        [KEY_COPY] = "VACUUM INTO ?1",
    };

    if (key < ARRAY_LEN(own))
        buf_puts(out, own[key]);
    else
        c->db->spec->sql(key, out);
}

static memfs_code prepare(sqlite_conn *c, uint64_t key, bool is_kept, sqlite3_stmt **ret,
                          memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf sql = MEMFS_BUF_INIT(16 * 1024);
    memfs_code code;
    int rc;

    sql_of(c, key, &sql);
    code = buf_check(&sql, "a query", err);
    if (code < 0)
        return code;
    rc = sqlite3_prepare_v3(c->handle, sql.ptr, (int)sql.len,
                            is_kept ? SQLITE_PREPARE_PERSISTENT : 0, ret, NULL);
    if (rc == SQLITE_ERROR) /* the text is ours and tested, so a table or column is not there */
        rc = SQLITE_CORRUPT;
    return rc == SQLITE_OK ? MEMFS_OK : sqlite_fail(c, rc, err);
}

/* The slot of key; else the one to put it in: empty, or unused for the longest time.  -1: none. */
static int find_slot(const sqlite_conn *c, uint64_t key)
{
    int best = -1;

    for (int i = 0; i < SQLITE_N_SLOTS; i++) {
        const sqlite_slot *slot = &c->slots[i];

        if (slot->key == key)
            return slot->is_busy ? -1 : i; /* the same query, further out on the stack */
        if (!slot->is_busy && (best < 0 || slot->used < c->slots[best].used))
            best = i;
        if (slot->key == 0)
            break; /* slots fill from the front */
    }
    return best;
}

memfs_code sqlite_query_get(sqlite_conn *c, uint64_t key, sqlite_query *ret, memfs_error *err)
{
    int at = find_slot(c, key);
    sqlite_slot *slot = at >= 0 ? &c->slots[at] : NULL;
    sqlite3_stmt *stmt = NULL;
    memfs_code rc;

    if (slot == NULL || slot->key != key) {
        rc = prepare(c, key, slot != NULL, &stmt, err);
        if (rc < 0)
            return rc;
    }
    *ret = (sqlite_query){ stmt, c, at, SQLITE_OK };
    if (slot == NULL)
        return MEMFS_OK;
    if (stmt != NULL) {
        sqlite3_finalize(slot->stmt);
        slot->stmt = stmt;
        slot->key = key;
    }
    slot->is_busy = true;
    slot->used = ++c->n_uses;
    ret->stmt = slot->stmt;
    return MEMFS_OK;
}

void sqlite_query_again(sqlite_query *q)
{
    sqlite3_reset(q->stmt);
}

void sqlite_query_done(sqlite_query *q)
{
    if (q->stmt == NULL)
        return;
    if (q->slot < 0) {
        sqlite3_finalize(q->stmt);
    } else {
        sqlite3_reset(q->stmt);
        sqlite3_clear_bindings(q->stmt);
        q->conn->slots[q->slot].is_busy = false;
    }
    q->stmt = NULL;
}

static void note(sqlite_query *q, int rc)
{
    if (rc != SQLITE_OK && q->trouble == SQLITE_OK)
        q->trouble = rc;
}

void sqlite_bind_str(sqlite_query *q, int at, memfs_str s)
{
    note(q, sqlite3_bind_text64(q->stmt, at, s.ptr != NULL ? s.ptr : "", s.len, SQLITE_STATIC,
                                SQLITE_UTF8));
}

void sqlite_bind_int(sqlite_query *q, int at, int64_t n)
{
    note(q, sqlite3_bind_int64(q->stmt, at, n));
}

void sqlite_bind_bytes(sqlite_query *q, int at, const void *bytes, size_t n)
{
    note(q, sqlite3_bind_blob64(q->stmt, at, bytes, n, SQLITE_STATIC));
}

void sqlite_bind_oid(sqlite_query *q, int at, const memfs_oid *oid)
{
    sqlite_bind_bytes(q, at, oid->id, sizeof(oid->id));
}

void sqlite_bind_null(sqlite_query *q, int at)
{
    note(q, sqlite3_bind_null(q->stmt, at));
}

void sqlite_bind_like(sqlite_query *q, int at, const like_pattern *pattern)
{
    note(q, sqlite3_bind_pointer(q->stmt, at, (void *)pattern, "like", NULL));
}

memfs_code sqlite_step(sqlite_query *q, bool *ret_is_row, memfs_error *err)
{
    int rc = q->trouble != SQLITE_OK ? q->trouble : sqlite3_step(q->stmt);

    *ret_is_row = rc == SQLITE_ROW;
    if (rc == SQLITE_ROW || rc == SQLITE_DONE)
        return MEMFS_OK;
    return sqlite_fail(q->conn, rc, err);
}

memfs_code sqlite_run(sqlite_query *q, memfs_error *err)
{
    bool is_row = true;
    memfs_code rc = MEMFS_OK;

    while (rc == MEMFS_OK && is_row)
        rc = sqlite_step(q, &is_row, err);
    return rc;
}

bool sqlite_col_is_null(const sqlite_query *q, int at)
{
    return sqlite3_column_type(q->stmt, at) == SQLITE_NULL;
}

int64_t sqlite_col_int(const sqlite_query *q, int at)
{
    return sqlite3_column_int64(q->stmt, at);
}

/* As a blob: asking for text would make a copy only to put a NUL behind it. */
memfs_str sqlite_col_str(const sqlite_query *q, int at)
{
    const char *ptr = sqlite3_column_blob(q->stmt, at);

    return ptr != NULL ? str_make(ptr, (size_t)sqlite3_column_bytes(q->stmt, at)) : MEMFS_STR("");
}

memfs_code sqlite_col_oid(const sqlite_query *q, int at, memfs_oid *ret, memfs_error *err)
{
    memfs_str bytes = sqlite_col_str(q, at);

    if (bytes.len != sizeof(ret->id))
        return sqlite_fail(q->conn, SQLITE_CORRUPT, err);
    memcpy(ret->id, bytes.ptr, sizeof(ret->id));
    return MEMFS_OK;
}

/* ---- text that is run once ---- */

memfs_code sqlite_exec(sqlite_conn *c, const char *sql, memfs_error *err)
{
    int rc = sqlite3_exec(c->handle, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? MEMFS_OK : sqlite_fail(c, rc, err);
}

memfs_code sqlite_pragma(sqlite_conn *c, const char *sql, int64_t *ret, memfs_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(c->handle, sql, -1, &stmt, NULL);

    *ret = 0;
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
        if (rc == SQLITE_ROW)
            *ret = sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? MEMFS_OK : sqlite_fail(c, rc, err);
}
