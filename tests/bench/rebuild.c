/*
 * rebuild.c - what a rebuild of the cache cannot cost less than: libgit2 reading every blob of the
 * memory, and one SQLite transaction that writes the same rows.
 *
 *     bench_rebuild REPOSITORY CACHE_DB AGENT ROUNDS
 *
 * CACHE_DB is a copy of memfs's own cache after it was built from that repository.  Its rows of the
 * agent, of every table that has an agent_no (but `agents`), are read into memory first; a round then
 * takes them out and puts them back in one transaction, with memfs's schema, indexes and triggers, and
 * opens the repository and reads each blob of the tip.  So the two do the same input and output, and
 * the difference is what memfs adds: decoding, front matter, ids, checks.
 *
 * Each round prints one line of JSON; times are in microseconds.
 */
#include <git2.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_TABLES = 16, MAX_COLUMNS = 64 };

#define OF_AGENT "agent_no = (SELECT agent_no FROM agents WHERE agent_id = ?1)"

typedef struct table {
    char name[64];
    int n_columns;
    sqlite3_value **values; /* n_rows * n_columns */
    size_t n_rows, cap_rows;
} table;

typedef struct reading {
    git_repository *git;
    uint64_t n_blobs, n_bytes;
} reading;

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_rebuild: %s: %s\n", what, why ? why : "failed");
    exit(1);
}

static void check_git(int rc, const char *what)
{
    if (rc < 0)
        die(what, git_error_last() ? git_error_last()->message : NULL);
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *s = NULL;

    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
        die(sql, sqlite3_errmsg(db));
    return s;
}

static void run(sqlite3 *db, const char *sql)
{
    char *message = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        die(sql, message);
}

/* ---- the rows ---- */

static void table_load(sqlite3 *db, const char *agent, table *t)
{
    char sql[256];
    sqlite3_stmt *s;

    snprintf(sql, sizeof(sql), "SELECT * FROM \"%.63s\" WHERE " OF_AGENT, t->name);
    s = prepare(db, sql);
    sqlite3_bind_text(s, 1, agent, -1, SQLITE_STATIC);
    t->n_columns = sqlite3_column_count(s);
    while (sqlite3_step(s) == SQLITE_ROW) {
        if (t->n_rows == t->cap_rows) {
            t->cap_rows = t->cap_rows ? t->cap_rows * 2 : 1024;
            t->values = realloc(t->values, t->cap_rows * (size_t)t->n_columns * sizeof(*t->values));
        }
        for (int i = 0; i < t->n_columns; i++)
            t->values[t->n_rows * (size_t)t->n_columns + (size_t)i] =
                sqlite3_value_dup(sqlite3_column_value(s, i));
        t->n_rows++;
    }
    sqlite3_finalize(s);
}

/* The shadow tables of a full-text index have no agent_no. */
static size_t tables_load(sqlite3 *db, const char *agent, table *tables)
{
    sqlite3_stmt *s = prepare(db, "SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c"
                                  " WHERE m.type = 'table' AND m.name <> 'agents'"
                                  " AND c.name = 'agent_no'");
    size_t n = 0;

    while (sqlite3_step(s) == SQLITE_ROW && n < MAX_TABLES)
        snprintf(tables[n++].name, sizeof(tables[0].name), "%s", sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
    for (size_t i = 0; i < n; i++)
        table_load(db, agent, &tables[i]);
    return n;
}

static void table_replace(sqlite3 *db, const char *agent, const table *t)
{
    char sql[512];
    sqlite3_stmt *s;
    int at;

    snprintf(sql, sizeof(sql), "DELETE FROM \"%.63s\" WHERE " OF_AGENT, t->name);
    s = prepare(db, sql);
    sqlite3_bind_text(s, 1, agent, -1, SQLITE_STATIC);
    if (sqlite3_step(s) != SQLITE_DONE)
        die(sql, sqlite3_errmsg(db));
    sqlite3_finalize(s);

    at = snprintf(sql, sizeof(sql), "INSERT INTO \"%.63s\" VALUES (?", t->name);
    for (int i = 1; i < t->n_columns && at < (int)sizeof(sql) - 4; i++)
        at += snprintf(sql + at, sizeof(sql) - (size_t)at, ",?");
    snprintf(sql + at, sizeof(sql) - (size_t)at, ")");
    s = prepare(db, sql);
    for (size_t row = 0; row < t->n_rows; row++) {
        for (int i = 0; i < t->n_columns; i++)
            sqlite3_bind_value(s, i + 1, t->values[row * (size_t)t->n_columns + (size_t)i]);
        if (sqlite3_step(s) != SQLITE_DONE)
            die(sql, sqlite3_errmsg(db));
        sqlite3_reset(s);
    }
    sqlite3_finalize(s);
}

/* ---- the blobs ---- */

static void tree_read(reading *r, const git_oid *id)
{
    git_tree *tree = NULL;

    check_git(git_tree_lookup(&tree, r->git, id), "tree");
    for (size_t i = 0; i < git_tree_entrycount(tree); i++) {
        const git_tree_entry *e = git_tree_entry_byindex(tree, i);
        git_blob *blob = NULL;

        if (git_tree_entry_type(e) == GIT_OBJECT_TREE) {
            tree_read(r, git_tree_entry_id(e));
            continue;
        }
        check_git(git_blob_lookup(&blob, r->git, git_tree_entry_id(e)), "blob");
        r->n_blobs++;
        r->n_bytes += (uint64_t)git_blob_rawsize(blob);
        git_blob_free(blob);
    }
    git_tree_free(tree);
}

static void repository_read(const char *path, reading *r)
{
    git_commit *commit = NULL;
    git_oid id;

    check_git(git_repository_open(&r->git, path), "repository");
    check_git(git_reference_name_to_id(&id, r->git, "refs/heads/main"), "main");
    check_git(git_commit_lookup(&commit, r->git, &id), "commit");
    tree_read(r, git_commit_tree_id(commit));
    git_commit_free(commit);
    git_repository_free(r->git);
}

int main(int argc, char **argv)
{
    static table tables[MAX_TABLES];
    sqlite3 *db = NULL;
    size_t n_tables, n_rows = 0;

    if (argc != 5) {
        fprintf(stderr, "usage: bench_rebuild REPOSITORY CACHE_DB AGENT ROUNDS\n");
        return 2;
    }
    git_libgit2_init();
    git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 0);
    if (sqlite3_open(argv[2], &db) != SQLITE_OK)
        die(argv[2], sqlite3_errmsg(db));
    run(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;");
    n_tables = tables_load(db, argv[3], tables);
    for (size_t i = 0; i < n_tables; i++)
        n_rows += tables[i].n_rows;
    for (int round = (int)strtol(argv[4], NULL, 10); round > 0; round--) {
        reading r = { NULL, 0, 0 };
        int64_t start = now_us(), read_at;

        repository_read(argv[1], &r);
        read_at = now_us();
        run(db, "BEGIN IMMEDIATE");
        for (size_t i = 0; i < n_tables; i++)
            table_replace(db, argv[3], &tables[i]);
        run(db, "COMMIT");
        printf("{\"us\": %lld, \"read_us\": %lld, \"rows\": %zu, \"blobs\": %llu}\n",
               (long long)(now_us() - start), (long long)(read_at - start), n_rows,
               (unsigned long long)r.n_blobs);
    }
    sqlite3_close(db);
    return 0;
}
