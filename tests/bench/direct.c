/*
 * direct.c - what a read or a write of memfs cannot cost less than: the same statements, asked of the
 * same database by a program that has it open, without a server in between.
 *
 *     bench_direct query DB THREADS MILLISECONDS SQL_FILE PARAMETERS_FILE
 *     bench_direct write DB THREADS MILLISECONDS PATH AGENT[=REPOSITORY]...
 *
 * query: each thread has a connection of its own and runs the statement over and over, with the
 * parameters of one line (tabs between them, bound as text) after the other, and reads every column of
 * every row.
 *
 * write: each thread changes the block at PATH of its agent: the rows that memfs changes, index of words
 * included, in one transaction.  Without repositories that is synchronous=FULL, SQLite's own durability.
 * With them a commit is made and main moved first, by libgit2 with its fsyncs, and the transaction is not
 * synced: git is the truth then, as it is for memfs.  Threads wait for each other by mutexes, of the
 * database and of each repository: SQLite's own waiting sleeps, and would make its p99.
 *
 * Prints one line of JSON as bench_load does.
 */
#include <git2.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_LINES = 4096, MAX_AGENTS = 256, MAX_THREADS = 256, MAX_SAMPLES = 1 << 20 };

typedef struct target {
    const char *agent, *repository; /* NULL: rows alone */
    pthread_mutex_t lock;
    git_repository *git;
} target;

typedef struct work {
    const char *database, *path;
    char *sql, *lines[MAX_LINES];
    size_t n_lines;
    target targets[MAX_AGENTS];
    size_t n_targets;
    sqlite3 *writer;
    pthread_mutex_t lock; /* of the writer and its statements */
    sqlite3_stmt *statements[4];
    pthread_barrier_t ready; /* twice: all threads can begin, and end_us is set */
    int64_t end_us;
} work;

typedef struct worker {
    pthread_t thread;
    work *w;
    size_t no;
    uint32_t *samples_us;
    size_t n;
    uint64_t n_bytes;
} worker;

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_direct: %s: %s\n", what, why);
    exit(1);
}

static void die_git(const char *what)
{
    const git_error *e = git_error_last();

    die(what, e ? e->message : "failed");
}

static char *file_read(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);

    if (!f || !text)
        die(path, "cannot read it");
    (void)!fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    return text;
}

static sqlite3 *database_open(const char *path, int flags)
{
    sqlite3 *db = NULL;

    if (sqlite3_open_v2(path, &db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        die(path, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 10000); /* the first of a log's readers has it for itself */
    return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *s = NULL;

    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
        die(sql, sqlite3_errmsg(db));
    return s;
}

static void begin_together(work *w)
{
    pthread_barrier_wait(&w->ready);
    pthread_barrier_wait(&w->ready);
}

static void sampled(worker *me, int64_t start_us)
{
    if (me->n < MAX_SAMPLES)
        me->samples_us[me->n++] = (uint32_t)(now_us() - start_us);
}

/* ---- query ---- */

static void bind_line(sqlite3_stmt *s, const char *line)
{
    for (int i = 1; line; i++) {
        const char *tab = strchr(line, '\t');

        sqlite3_bind_text(s, i, line, tab ? (int)(tab - line) : -1, SQLITE_STATIC);
        line = tab ? tab + 1 : NULL;
    }
}

static void query_once(worker *me, sqlite3 *db, sqlite3_stmt *s)
{
    int rc;

    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(s); i++)
            if (sqlite3_column_blob(s, i))
                me->n_bytes += (uint64_t)sqlite3_column_bytes(s, i);
    }
    if (rc != SQLITE_DONE)
        die("step", sqlite3_errmsg(db));
    sqlite3_reset(s);
}

static void *query_worker(void *ctx)
{
    worker *me = ctx;
    work *w = me->w;
    sqlite3 *db = database_open(w->database, SQLITE_OPEN_READONLY);
    sqlite3_stmt *s = prepare(db, w->sql);

    bind_line(s, w->lines[me->no % w->n_lines]);
    query_once(me, db, s);
    if (me->n_bytes == 0)
        die(w->sql, "found nothing");
    begin_together(w);
    for (size_t turn = me->no; now_us() < w->end_us; turn++) {
        int64_t start = now_us();

        bind_line(s, w->lines[turn % w->n_lines]);
        query_once(me, db, s);
        sampled(me, start);
    }
    sqlite3_finalize(s);
    sqlite3_close(db);
    return NULL;
}

static void query_init(work *w, char **argv)
{
    char *rest = file_read(argv[1]);

    w->sql = file_read(argv[0]);
    for (char *line; (line = strsep(&rest, "\n")) && w->n_lines < MAX_LINES;)
        if (*line)
            w->lines[w->n_lines++] = line;
    if (w->n_lines == 0)
        die(argv[1], "no parameters");
}

/* ---- write ---- */

static const char *const WRITES[] = {
    "BEGIN IMMEDIATE",
    "UPDATE agents SET tip = ?3, generation = generation + 1 WHERE agent_id = ?1",
    "UPDATE blocks SET value = ?4, bytes = length(?4), blob = ?3, updated_at = ?5, "
    "words = rtrim(words, '0123456789') || ?5 "
    "WHERE agent_no = (SELECT agent_no FROM agents WHERE agent_id = ?1) AND path = ?2",
    "COMMIT",
};

static void rows_write(work *w, const target *t, const git_oid *id, const char *text)
{
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < 4; i++) {
        sqlite3_stmt *s = w->statements[i];

        if (sqlite3_bind_parameter_count(s) >= 3) {
            sqlite3_bind_text(s, 1, t->agent, -1, SQLITE_STATIC);
            sqlite3_bind_blob(s, 3, id->id, GIT_OID_RAWSZ, SQLITE_STATIC);
        }
        if (sqlite3_bind_parameter_count(s) >= 5) {
            sqlite3_bind_text(s, 2, w->path, -1, SQLITE_STATIC);
            sqlite3_bind_text(s, 4, text, -1, SQLITE_STATIC);
            sqlite3_bind_int64(s, 5, now_us());
        }
        if (sqlite3_step(s) != SQLITE_DONE || (i == 2 && sqlite3_changes(w->writer) != 1))
            die(WRITES[i], sqlite3_errmsg(w->writer));
        sqlite3_reset(s);
    }
    pthread_mutex_unlock(&w->lock);
}

/* A commit with the new text on top of main; main is there when this returns. */
static git_oid commit_write(git_repository *r, const char *path, const char *text)
{
    git_tree_update update = { .action = GIT_TREE_UPDATE_UPSERT, .filemode = GIT_FILEMODE_BLOB,
                               .path = path };
    git_reference *main_ref = NULL, *moved = NULL;
    git_commit *parent = NULL;
    git_tree *tree = NULL, *new_tree = NULL;
    git_signature *who = NULL;
    git_oid tree_id, id;

    if (git_reference_lookup(&main_ref, r, "refs/heads/main") < 0 ||
        git_commit_lookup(&parent, r, git_reference_target(main_ref)) < 0 ||
        git_commit_tree(&tree, parent) < 0 ||
        git_blob_create_from_buffer(&update.id, r, text, strlen(text)) < 0 ||
        git_tree_create_updated(&tree_id, r, tree, 1, &update) < 0 ||
        git_tree_lookup(&new_tree, r, &tree_id) < 0 ||
        git_signature_now(&who, "Bench", "bench@example.org") < 0 ||
        git_commit_create_v(&id, r, NULL, who, who, NULL, "change", new_tree, 1, parent) < 0 ||
        git_reference_set_target(&moved, main_ref, &id, "bench") < 0)
        die_git("commit");
    git_signature_free(who);
    git_tree_free(new_tree);
    git_tree_free(tree);
    git_commit_free(parent);
    git_reference_free(main_ref);
    git_reference_free(moved);
    return id;
}

/* About 1 KiB, as what bench_load is given to send. */
#define LINE "memory note agent prefers tea over coffee and lives near the river since spring 0\n"
#define LINES LINE LINE LINE LINE LINE LINE LINE LINE LINE LINE LINE LINE

static void write_once(work *w, target *t)
{
    git_oid id = { { 0 } };
    char text[sizeof(LINES) + 64];

    snprintf(text, sizeof(text), "---\ndescription: changed\n---\nchange %lld\n%s",
             (long long)now_us(), LINES);
    pthread_mutex_lock(&t->lock);
    if (t->git)
        id = commit_write(t->git, w->path, text);
    rows_write(w, t, &id, text);
    pthread_mutex_unlock(&t->lock);
}

static void *write_worker(void *ctx)
{
    worker *me = ctx;
    work *w = me->w;

    begin_together(w);
    while (now_us() < w->end_us) {
        int64_t start = now_us();

        write_once(w, &w->targets[me->no % w->n_targets]);
        sampled(me, start);
    }
    return NULL;
}

static void write_init(work *w, int argc, char **argv)
{
    bool has_git = false;

    w->path = argv[0];
    for (int i = 1; i < argc && w->n_targets < MAX_AGENTS; i++) {
        target *t = &w->targets[w->n_targets++];

        t->agent = strsep(&argv[i], "=");
        t->repository = argv[i];
        pthread_mutex_init(&t->lock, NULL);
        if (t->repository && git_repository_open(&t->git, t->repository) < 0)
            die_git(t->repository);
        has_git |= t->repository != NULL;
    }
    w->writer = database_open(w->database, SQLITE_OPEN_READWRITE);
    if (sqlite3_exec(w->writer, has_git ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL",
                     NULL, NULL, NULL) != SQLITE_OK)
        die(w->database, sqlite3_errmsg(w->writer));
    for (int i = 0; i < 4; i++)
        w->statements[i] = prepare(w->writer, WRITES[i]);
}

/* ---- both ---- */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void report(const worker *workers, size_t n_workers, double seconds)
{
    uint64_t n_bytes = 0;
    uint32_t *all;
    size_t n = 0;

    for (size_t i = 0; i < n_workers; i++)
        n += workers[i].n;
    all = calloc(n + 1, sizeof(*all));
    if (!all || n == 0)
        die("report", "nothing was done");
    n = 0;
    for (size_t i = 0; i < n_workers; i++) {
        memcpy(all + n, workers[i].samples_us, workers[i].n * sizeof(*all));
        n += workers[i].n;
        n_bytes += workers[i].n_bytes;
    }
    qsort(all, n, sizeof(*all), by_value);
    printf("{\"answers\": %zu, \"seconds\": %.3f, \"per_second\": %.1f, \"bytes\": %llu, "
           "\"p50_us\": %u, \"p99_us\": %u}\n",
           n, seconds, (double)n / seconds, (unsigned long long)n_bytes, all[n / 2],
           all[n * 99 / 100]);
}

static void run(work *w, size_t n, int64_t ms, void *(*fn)(void *))
{
    static worker workers[MAX_THREADS];
    int64_t start;

    pthread_barrier_init(&w->ready, NULL, (unsigned)n + 1);
    for (size_t i = 0; i < n; i++) {
        workers[i] = (worker){ .w = w, .no = i, .samples_us = malloc(sizeof(uint32_t) * MAX_SAMPLES) };
        if (!workers[i].samples_us || pthread_create(&workers[i].thread, NULL, fn, &workers[i]) != 0)
            die("thread", "cannot start it");
    }
    pthread_barrier_wait(&w->ready);
    start = now_us();
    w->end_us = start + ms * 1000;
    pthread_barrier_wait(&w->ready);
    for (size_t i = 0; i < n; i++)
        pthread_join(workers[i].thread, NULL);
    report(workers, n, (double)(now_us() - start) / 1e6);
}

int main(int argc, char **argv)
{
    static work w = { .lock = PTHREAD_MUTEX_INITIALIZER };
    bool is_query = argc == 7 && strcmp(argv[1], "query") == 0;
    size_t n = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;

    if (!(is_query || (argc > 6 && strcmp(argv[1], "write") == 0)) || n == 0 || n > MAX_THREADS) {
        fprintf(stderr, "usage: bench_direct query DB THREADS MILLISECONDS SQL_FILE PARAMETERS_FILE\n"
                        "       bench_direct write DB THREADS MILLISECONDS PATH AGENT[=REPOSITORY]...\n");
        return 2;
    }
    git_libgit2_init();
    git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 1);
    w.database = argv[2];
    if (is_query)
        query_init(&w, argv + 5);
    else
        write_init(&w, argc - 5, argv + 5);
    run(&w, n, strtol(argv[4], NULL, 10), is_query ? query_worker : write_worker);
    return 0;
}
