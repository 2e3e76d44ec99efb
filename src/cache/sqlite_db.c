#include "cache/sqlite_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * One database file: made, opened, migrated, written, set aside.
 *
 * Made whole.  A new file is built and migrated under another name and renamed, so `state.db` never
 * exists half-made.  That is what lets us tell a state that lost its content (0 bytes, F23) from
 * one that is new, and refuse to begin it anew.
 *
 * Migrations are numbered from 1; PRAGMA user_version is the number of the last one that ran.  Each
 * runs in one transaction with its number, so a crash leaves the step before, and the next open
 * goes on from there (F29).  A file with a higher number than we know was made by a newer memfs: a
 * state is refused, a cache set aside.  application_id tells our files from others.
 *
 * Set aside means renamed to <file>.broken-<time>, with log and index.  One such copy is kept.
 *
 * Written by one connection, behind write_lock, the only one that checkpoints: SQLite up to 3.51.2
 * can corrupt a log when one connection checkpoints while another writes (F24).  The checkpoint is
 * run by a hook of ours rather than sqlite's, which would hide a failing fsync.  After such a
 * failure nothing more is written: the kernel may have dropped the pages, and a second fsync would
 * lie (F05).  When it was the fsync of a commit of the state, only the log is in doubt, and only
 * from that commit on, which was taken back: all before it goes to the file, the log begins anew,
 * and so does writing.
 *
 * Deleted under us: three stat(2) before each write compare the names with what was opened. Without
 * them, writes would go on into files that nobody can open any more.
 */

#define CHECKPOINT_PAGES 1000
#define LOG_KEPT_BYTES "16777216"

/* ---- names ---- */

/* <path><middle><suffix of i>; caller frees */
static char *name_of(const char *path, const char *middle, size_t i)
{
    return mem_printf("%s%s%s", path, middle, SQLITE_SUFFIXES[i]);
}

static void remove_files(const char *path, const char *middle)
{
    for (size_t i = 0; i < 3; i++) {
        _cleanup_(mem_freep) char *name = name_of(path, middle, i);

        unlink(name);
    }
    _cleanup_(mem_freep) char *journal = mem_printf("%s%s-journal", path, middle);
    unlink(journal);
}

/* All that was set aside earlier. */
static memfs_code remove_broken(sqlite_db *db, memfs_error *err)
{
    _cleanup_(mem_freep) char *prefix = mem_printf("%s.broken-", db->spec->file);
    DIR *folder = opendir(db->folder);
    memfs_code rc = MEMFS_OK;
    struct dirent *entry;

    if (folder == NULL)
        return memfs_fail_errno(err, "could not list the folder of the %s", db->spec->what);
    while (rc == MEMFS_OK && (entry = readdir(folder)) != NULL) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
            unlinkat(dirfd(folder), entry->d_name, 0) < 0)
            rc = memfs_fail_errno(err, "could not remove '%s'", entry->d_name);
    }
    closedir(folder);
    return rc;
}

/* "20261121T225601.123456Z" */
static void time_name(char out[CLOCK_ISO_LEN])
{
    char iso[CLOCK_ISO_LEN];
    size_t n = 0;

    clock_iso(clock_wall_us(), iso);
    for (const char *c = iso; *c != '\0'; c++) {
        if (*c != '-' && *c != ':')
            out[n++] = *c;
    }
    out[n] = '\0';
}

static memfs_code set_aside(sqlite_db *db, memfs_error *err)
{
    _cleanup_(mem_freep) char *middle = NULL;
    char when[CLOCK_ISO_LEN];
    memfs_code rc;

    rc = remove_broken(db, err);
    if (rc < 0)
        return rc;
    time_name(when);
    middle = mem_printf(".broken-%s", when);
    for (size_t i = 0; i < 3; i++) {
        _cleanup_(mem_freep) char *from = name_of(db->path, "", i);
        _cleanup_(mem_freep) char *to = name_of(db->path, middle, i);

        if (rename(from, to) < 0 && errno != ENOENT)
            return memfs_fail_errno(err, "could not set the damaged %s aside", db->spec->what);
    }
    return fs_sync_dir(db->folder, err);
}

/* ---- migrations ---- */

static memfs_code run_step(sqlite_conn *c, size_t number, memfs_error *err)
{
    const sqlite_spec *spec = c->db->spec;
    char mark[96];
    memfs_code rc;

    snprintf(mark, sizeof(mark), "PRAGMA user_version = %zu; PRAGMA application_id = %d", number,
             (int)spec->application_id);
    rc = sqlite_exec(c, "BEGIN IMMEDIATE", err);
    if (rc < 0)
        return rc;
    rc = sqlite_exec(c, spec->migrations[number - 1], err);
    if (rc == MEMFS_OK)
        rc = sqlite_exec(c, mark, err);
    if (rc == MEMFS_OK)
        rc = sqlite_exec(c, "COMMIT", err);
    if (rc < 0 && !sqlite3_get_autocommit(c->handle))
        sqlite3_exec(c->handle, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

static memfs_code migrate(sqlite_conn *c, size_t version, memfs_error *err)
{
    for (size_t number = version + 1; number <= c->db->n_migrations; number++) {
        memfs_code rc = run_step(c, number, err);

        if (rc < 0)
            return memfs_context(err, "schema step %zu", number);
    }
    return MEMFS_OK;
}

/* Is it ours, and not newer than we are?  The first look at the content, so damage shows here. */
static memfs_code judge_file(sqlite_conn *c, size_t *ret_version, memfs_error *err)
{
    const sqlite_spec *spec = c->db->spec;
    int64_t application_id = 0, version = 0;
    memfs_code rc;

    rc = sqlite_pragma(c, "PRAGMA application_id", &application_id, err);
    if (rc == MEMFS_OK)
        rc = sqlite_pragma(c, "PRAGMA user_version", &version, err);
    if (rc < 0)
        return rc;
    if (application_id != spec->application_id || version < 0)
        return sqlite_fail_damaged(c->db, err, "is empty, or a file of another kind");
    if ((uint64_t)version > c->db->n_migrations)
        return memfs_fail(err, MEMFS_ECORRUPT,
                          "the %s was made by a newer memfs (schema %lld, this one knows %zu): run "
                          "that one, or bring back a backup from before the upgrade",
                          spec->what, (long long)version, c->db->n_migrations);
    *ret_version = (size_t)version;
    return MEMFS_OK;
}

/* ---- the writing connection ---- */

/* Called by sqlite after each commit, with the length of the log. */
static int after_commit(void *ctx, sqlite3 *handle, const char *name, int n_pages)
{
    sqlite_conn *c = ctx;
    int rc;

    if (n_pages < CHECKPOINT_PAGES)
        return SQLITE_OK;
    rc = sqlite3_wal_checkpoint_v2(handle, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (sqlite_is_unsynced(rc))
        atomic_store(&c->db->is_fenced, true);
    return SQLITE_OK; /* the commit stands, and a checkpoint that could not be is tried again */
}

static memfs_code write_ahead(sqlite_conn *c, memfs_error *err)
{
    sqlite3_stmt *stmt = NULL;
    bool is_wal = false;
    int rc = sqlite3_prepare_v2(c->handle, "PRAGMA journal_mode = WAL", -1, &stmt, NULL);

    if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW)
        is_wal = sqlite3_stricmp((const char *)sqlite3_column_text(stmt, 0), "wal") == 0;
    sqlite3_finalize(stmt);
    if (rc != SQLITE_ROW)
        return sqlite_fail(c, rc, err);
    if (!is_wal)
        return memfs_fail(err, MEMFS_EINTERNAL,
                          "the %s cannot be kept on this file system: it has no shared memory",
                          c->db->spec->what);
    return MEMFS_OK;
}

static memfs_code configure_writer(sqlite_conn *c, memfs_error *err)
{
    memfs_code rc = write_ahead(c, err);

    if (rc < 0)
        return rc;
    sqlite3_wal_hook(c->handle, after_commit, c);
    return sqlite_exec(c,
                       c->db->spec->is_durable ? "PRAGMA synchronous = FULL;"
                                                 "PRAGMA secure_delete = ON;"
                                                 "PRAGMA temp_store = MEMORY;"
                                                 "PRAGMA journal_size_limit = " LOG_KEPT_BYTES
                                               : "PRAGMA synchronous = NORMAL;"
                                                 "PRAGMA secure_delete = ON;"
                                                 "PRAGMA temp_store = MEMORY;"
                                                 "PRAGMA journal_size_limit = " LOG_KEPT_BYTES,
                       err);
}

/* A new file under `path`, with all migrations, closed again. */
static memfs_code make_file(sqlite_db *db, const char *path, memfs_error *err)
{
    sqlite_conn *c = NULL;
    memfs_code rc;
    int fd;

    /* sqlite gives its log and index the mode of the database */
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return memfs_fail_errno(err, "could not make the %s", db->spec->what);
    close(fd);
    rc = sqlite_conn_open(db, path, SQLITE_OPEN_READWRITE, &c, err);
    if (rc < 0)
        return rc;
    rc = sqlite_exec(
        c, db->spec->is_durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = OFF", err);
    if (rc == MEMFS_OK)
        rc = migrate(c, 0, err);
    sqlite_conn_close(c);
    return rc;
}

static memfs_code make_whole(sqlite_db *db, memfs_error *err)
{
    _cleanup_(mem_freep) char *temp = mem_printf("%s.new", db->path);
    memfs_code rc;

    remove_files(db->path, ".new");
    rc = make_file(db, temp, err);
    if (rc == MEMFS_OK)
        rc = fs_rename(temp, db->path, err);
    if (rc < 0)
        remove_files(db->path, ".new");
    return rc;
}

/*
 * The name is free.  But a log without its database is the rest of one that was deleted, and sqlite
 * would play it into the new file: a state's is kept for a person to look at, a cache's goes.
 */
static memfs_code make_if_absent(sqlite_db *db, memfs_error *err)
{
    _cleanup_(mem_freep) char *log = name_of(db->path, "", 1);

    if (fs_exists(db->path))
        return MEMFS_OK;
    if (fs_exists(log) && !db->spec->is_disposable)
        return sqlite_fail_damaged(db, err, "was deleted, but its log is still there");
    remove_files(db->path, "");
    return make_whole(db, err);
}

static memfs_code remember_files(sqlite_db *db, memfs_error *err)
{
    for (size_t i = 0; i < 3; i++) {
        _cleanup_(mem_freep) char *name = name_of(db->path, "", i);
        struct stat st;

        if (stat(name, &st) < 0)
            return memfs_fail_errno(err, "could not look at the files of the %s", db->spec->what);
        db->files[i] = (file_id){ st.st_dev, st.st_ino };
    }
    return MEMFS_OK;
}

/*
 * A log that is there when nobody has the database was left by a crash, perhaps by one after an
 * fsync of it had failed: all goes to the file before anything is written behind it (F05).  Who
 * reads meanwhile from outside is not waited for.
 */
static memfs_code settle_log(sqlite_conn *c, memfs_error *err)
{
    int rc;

    if (c->db->spec->is_disposable)
        return MEMFS_OK;
    sqlite3_busy_timeout(c->handle, 0);
    rc = sqlite3_wal_checkpoint_v2(c->handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    sqlite3_busy_timeout(c->handle, SQLITE_BUSY_TIMEOUT_MS);
    return rc == SQLITE_OK || rc == SQLITE_BUSY ? MEMFS_OK : sqlite_fail(c, rc, err);
}

static memfs_code open_existing(sqlite_db *db, sqlite_conn **ret, memfs_error *err)
{
    size_t version = 0;
    int64_t now;
    memfs_code rc;

    rc = sqlite_conn_open(db, db->path, SQLITE_OPEN_READWRITE, ret, err);
    if (rc < 0)
        return rc;
    rc = judge_file(*ret, &version, err);
    if (rc == MEMFS_OK)
        rc = configure_writer(*ret, err);
    if (rc == MEMFS_OK)
        rc = settle_log(*ret, err);
    if (rc == MEMFS_OK)
        rc = migrate(*ret, version, err);
    if (rc == MEMFS_OK)
        rc = sqlite_pragma(*ret, "PRAGMA user_version", &now, err); /* a read makes log and index */
    return rc < 0 ? rc : remember_files(db, err);
}

static memfs_code open_writer(sqlite_db *db, memfs_error *err)
{
    sqlite_conn *c = NULL;
    memfs_code rc;

    rc = make_if_absent(db, err);
    if (rc == MEMFS_OK)
        rc = open_existing(db, &c, err);
    if (rc < 0) {
        sqlite_conn_close(c);
        return rc;
    }
    db->writer = c;
    atomic_store(&db->is_suspect, false);
    atomic_store(&db->is_fenced, false);
    atomic_store(&db->is_log_torn, false);
    return MEMFS_OK;
}

/* ---- life cycle ---- */

static memfs_code open_or_begin_anew(sqlite_db *db, bool *ret_was_reset, memfs_error *err)
{
    memfs_code rc = open_writer(db, err);

    *ret_was_reset = false;
    if (rc != MEMFS_ECORRUPT || !db->spec->is_disposable)
        return rc;
    rc = set_aside(db, err);
    if (rc == MEMFS_OK)
        rc = open_writer(db, err);
    *ret_was_reset = rc == MEMFS_OK;
    return rc;
}

memfs_code sqlite_db_open(const sqlite_spec *spec, const char *folder, sqlite_db **ret,
                          bool *ret_was_reset, memfs_error *err)
{
    static atomic_uint_fast64_t last_id;
    sqlite_db *db = mem_alloc(sizeof(*db));
    memfs_code rc;

    db->spec = spec;
    while (spec->migrations[db->n_migrations] != NULL)
        db->n_migrations++;
    db->folder = mem_strdup(folder);
    db->path = mem_printf("%s/%s", folder, spec->file);
    db->id = atomic_fetch_add(&last_id, 1) + 1;
    pthread_mutex_init(&db->behind_lock, NULL);
    pthread_mutex_init(&db->write_lock, NULL);
    rc = open_or_begin_anew(db, ret_was_reset, err);
    if (rc < 0) {
        sqlite_db_close(db);
        return rc;
    }
    *ret = db;
    return MEMFS_OK;
}

void sqlite_db_close(sqlite_db *db)
{
    if (db == NULL)
        return;
    sqlite_readers_close(db); /* first, so that the writer is the last and empties the log */
    sqlite_conn_close(db->writer);
    pthread_mutex_destroy(&db->write_lock);
    pthread_mutex_destroy(&db->behind_lock);
    free(db->folder);
    free(db->path);
    free(db);
}

/* ---- changing ---- */

static memfs_code fail_gone(sqlite_db *db, memfs_error *err)
{
    atomic_store(&db->is_suspect, true);
    return sqlite_fail_damaged(db, err, "was deleted or replaced while in use");
}

static memfs_code fail_fenced(sqlite_db *db, memfs_error *err)
{
    if (!db->spec->is_disposable)
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "the disk failed to make the %s durable: nothing more is written to it "
                          "until memfs is started again",
                          db->spec->what);
    atomic_store(&db->is_suspect, true);
    return sqlite_fail_damaged(db, err, "may be damaged: the disk failed to write it");
}

/*
 * Empties the log.  Asked to wait, sqlite waits for one read mark after another, and goes on
 * waiting for a mark that a new reader has taken over meanwhile, though that one is no obstacle any
 * more: under steady reading it starves.  So it is asked not to wait, again and again; each try
 * looks anew, and once all is in the database, new readers no longer use the log.
 */
static memfs_code empty_log(sqlite_conn *c, memfs_error *err)
{
    int64_t deadline = clock_mono_ms() + SQLITE_BUSY_TIMEOUT_MS;
    int rc;

    sqlite3_busy_timeout(c->handle, 0);
    for (;;) {
        rc = sqlite3_wal_checkpoint_v2(c->handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
        if (rc != SQLITE_BUSY || clock_mono_ms() >= deadline)
            break;
        clock_sleep_ms(1);
    }
    sqlite3_busy_timeout(c->handle, SQLITE_BUSY_TIMEOUT_MS);
    if (sqlite_is_unsynced(rc))
        atomic_store(&c->db->is_fenced, true);
    return rc == SQLITE_OK ? MEMFS_OK : sqlite_fail(c, rc, err);
}

/* Nothing is written behind what an fsync has failed for.  Under write_lock. */
static memfs_code begin_log_anew(sqlite_db *db, memfs_error *err)
{
    memfs_code rc = empty_log(db->writer, err);

    if (rc == MEMFS_OK)
        atomic_store(&db->is_log_torn, false);
    return rc;
}

/* Under write_lock. */
static memfs_code begin(sqlite_db *db, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    memfs_code rc;

    if (db->writer == NULL || !sqlite_files_match(db))
        return fail_gone(db, err);
    if (atomic_load(&db->is_fenced))
        return fail_fenced(db, err);
    if (atomic_load(&db->is_log_torn) && begin_log_anew(db, err) < 0)
        return err->code;
    rc = sqlite_query_get(db->writer, KEY_BEGIN, &q, err);
    return rc < 0 ? rc : sqlite_run(&q, err);
}

static memfs_code begin_locked(sqlite_db *db, sqlite_conn **ret, memfs_error *err)
{
    memfs_code rc = begin(db, err);

    if (rc < 0) {
        pthread_mutex_unlock(&db->write_lock);
        return rc;
    }
    *ret = db->writer;
    return MEMFS_OK;
}

memfs_code sqlite_write_begin(sqlite_db *db, sqlite_conn **ret, memfs_error *err)
{
    atomic_fetch_add(&db->n_waiting, 1);
    pthread_mutex_lock(&db->write_lock);
    atomic_fetch_sub(&db->n_waiting, 1);
    return begin_locked(db, ret, err);
}

/*
 * A mutex is no queue: a thread that takes it again at once wins against those that it woke.  So
 * only one of the patient ones tries at a time, and gives it back while somebody waits.  That is
 * for some microseconds, as whoever waits is awake by then; the bound is for a machine gone mad.
 */
memfs_code sqlite_write_begin_behind(sqlite_db *db, sqlite_conn **ret, memfs_error *err)
{
    int64_t deadline = clock_mono_ms() + SQLITE_BUSY_TIMEOUT_MS;

    pthread_mutex_lock(&db->behind_lock);
    pthread_mutex_lock(&db->write_lock);
    while (atomic_load(&db->n_waiting) > 0 && clock_mono_ms() < deadline) {
        pthread_mutex_unlock(&db->write_lock);
        sched_yield();
        pthread_mutex_lock(&db->write_lock);
    }
    pthread_mutex_unlock(&db->behind_lock);
    return begin_locked(db, ret, err);
}

static memfs_code run_key(sqlite_conn *c, uint64_t key, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, key, &q, err);

    return rc < 0 ? rc : sqlite_run(&q, err);
}

memfs_code sqlite_write_end(sqlite_conn *c, memfs_code rc, memfs_error *err)
{
    sqlite_db *db = c->db;
    memfs_error ignored;

    if (rc == MEMFS_OK)
        rc = run_key(c, KEY_COMMIT, err);
    /* sqlite has rolled back by itself after some errors */
    if (rc < 0 && !sqlite3_get_autocommit(c->handle) && run_key(c, KEY_ROLLBACK, &ignored) < 0)
        sqlite3_exec(c->handle, "ROLLBACK", NULL, NULL, NULL);
    pthread_mutex_unlock(&db->write_lock);
    return rc;
}

/* ---- the file ---- */

bool sqlite_db_is_there(sqlite_db *db)
{
    bool is_there;

    sqlite_registry_lock();
    is_there = sqlite_files_match(db);
    sqlite_registry_unlock();
    if (!is_there)
        atomic_store(&db->is_suspect, true);
    return is_there;
}

memfs_code sqlite_db_check(sqlite_db *db, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    memfs_code rc;
    bool is_row = false;

    if (!sqlite_db_is_there(db))
        return fail_gone(db, err);
    rc = sqlite_read_begin(db, &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_CHECK, &q, err);
    if (rc == MEMFS_OK)
        rc = sqlite_step(&q, &is_row, err);
    if (rc < 0)
        return rc;
    if (is_row && str_equal(sqlite_col_str(&q, 0), MEMFS_STR("ok")))
        return MEMFS_OK;
    return sqlite_fail(c, SQLITE_CORRUPT, err);
}

static memfs_code fill_new(sqlite_conn *c, sqlite_fill_fn fill, void *ctx, memfs_error *err)
{
    memfs_code rc = sqlite_exec(c, "BEGIN IMMEDIATE", err);

    if (rc == MEMFS_OK)
        rc = fill(c, ctx, err);
    return rc < 0 ? rc : sqlite_exec(c, "COMMIT", err);
}

/* Under write_lock and the registry.  A failure leaves no writer, and the next call tries again. */
static memfs_code begin_anew(sqlite_db *db, sqlite_fill_fn fill, void *ctx, memfs_error *err)
{
    memfs_code rc;

    sqlite_conn_close(TAKE_PTR(db->writer));
    rc = set_aside(db, err);
    if (rc < 0)
        return rc;
    atomic_fetch_add(&db->epoch, 1);
    rc = open_writer(db, err);
    if (rc == MEMFS_OK && fill != NULL)
        rc = fill_new(db->writer, fill, ctx, err);
    if (rc < 0)
        sqlite_conn_close(TAKE_PTR(db->writer));
    return rc;
}

memfs_code sqlite_db_reset(sqlite_db *db, sqlite_fill_fn fill, void *ctx, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    pthread_mutex_lock(&db->write_lock);
    if (db->writer == NULL || atomic_load(&db->is_suspect)) {
        sqlite_registry_lock();
        rc = begin_anew(db, fill, ctx, err);
        sqlite_registry_unlock();
    }
    pthread_mutex_unlock(&db->write_lock);
    return rc;
}

memfs_code sqlite_db_scrub(sqlite_db *db, memfs_error *err)
{
    memfs_code rc;

    pthread_mutex_lock(&db->write_lock);
    if (db->writer == NULL || !sqlite_files_match(db))
        rc = fail_gone(db, err);
    else
        rc = remove_broken(db, err);
    if (rc == MEMFS_OK)
        rc = empty_log(db->writer, err);
    pthread_mutex_unlock(&db->write_lock);
    return rc;
}

static memfs_code vacuum_into(sqlite_db *db, const char *to, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(db, &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_COPY, &q, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&q, 1, str_of(to));
    return sqlite_run(&q, err);
}

/* The reader of this thread copies its snapshot, so nobody's write waits. */
memfs_code sqlite_db_copy(sqlite_db *db, const char *to, memfs_error *err)
{
    memfs_code rc;
    int fd;

    fd = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return memfs_fail_errno(err, "could not make the copy of the %s", db->spec->what);
    rc = vacuum_into(db, to, err);
    if (rc == MEMFS_OK && fsync(fd) < 0)
        rc = memfs_fail_errno(err, "could not make the copy of the %s durable", db->spec->what);
    close(fd);
    if (rc < 0)
        unlink(to);
    return rc;
}
