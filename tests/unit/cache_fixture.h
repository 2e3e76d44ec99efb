/*
 * cache_fixture.h - a folder for databases, and rows to put in them; for the tests of this room
 * only.
 */
#ifndef MEMFS_TESTS_CACHE_FIXTURE_H
#define MEMFS_TESTS_CACHE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/mem.h"
#include "cache/tags.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

typedef struct fixture {
    char root[64];
    cache *cache;
    bool was_reset;
    memfs_error err;
} fixture;

/* Fails with the message, which a bare comparison of codes would hide. */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        memfs_code ok_code_ = (call);                                                              \
        if (ok_code_ != MEMFS_OK)                                                                  \
            fail_msg("%s: %s: %s", #call, memfs_code_name(ok_code_), f->err.msg);                  \
    } while (0)
#define assert_code(call, code) assert_string_equal(memfs_code_name(call), #code)

static void forget_backend(fixture *f);

/* Lists of tags come in no order of their own: those of a test sort as one text. */
typedef struct tag_lists {
    memfs_buf text;
    unsigned n;
} tag_lists;

UNUSED static memfs_code join_tag_list(memfs_str tags_json, void *ctx, memfs_error *err)
{
    tag_lists *lists = ctx;

    (void)err;
    lists->n++;
    buf_printf(&lists->text, "%.*s ", (int)tags_json.len, tags_json.ptr);
    return MEMFS_OK;
}

UNUSED static bool tag_lists_have(const tag_lists *lists, const char *list)
{
    return lists->text.len > 0 && strstr(lists->text.ptr, list) != NULL;
}

UNUSED static fixture *fixture_new(const char *name)
{
    fixture *f = mem_alloc(sizeof(*f));

    snprintf(f->root, sizeof(f->root), "/tmp/memfs-%s-XXXXXX", name);
    assert_non_null(mkdtemp(f->root));
    return f;
}

UNUSED static void fixture_free(fixture *f)
{
    cache_close(f->cache);
    forget_backend(f);
    assert_ok(fs_remove_tree(f->root, &f->err));
    free(f);
}

#ifdef OVER_POSTGRESQL
/*
 * The same tests over PostgreSQL: tests/with-postgres says where it is.  Each program has a database
 * of its own, and each test finds it empty: `memfs` is taken away when nobody has it open.
 */
#include "cache/pg_backend.h"

static pg_db *pg;

static memfs_code drop_schema(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    (void)ctx;
    return pg_exec(c, "DROP SCHEMA IF EXISTS memfs CASCADE", &r, err);
}

static memfs_code make_database(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    return pg_exec(c, ctx, &r, err);
}

UNUSED static const char *pg_url(void)
{
    static char url[512];
    const char *server = getenv("MEMFS_TEST_DATABASE");
    char sql[64];
    memfs_error err;
    pg_db *db;

    if (url[0] != '\0')
        return url;
    if (server == NULL)
        fail_msg("run this with tests/with-postgres");
    snprintf(sql, sizeof(sql), "CREATE DATABASE test_%d", (int)getpid());
    if (pg_db_open(server, &db, &err) < 0 || pg_work(db, PG_ONE, make_database, sql, &err) < 0)
        fail_msg("%s", err.msg);
    pg_db_close(db);
    snprintf(url, sizeof(url), "%s&dbname=test_%d", server, (int)getpid());
    return url;
}

UNUSED static pg_db *pg_open(fixture *f)
{
    if (pg == NULL)
        assert_ok(pg_db_open(pg_url(), &pg, &f->err));
    return pg;
}

static void forget_backend(fixture *f)
{
    if (pg == NULL)
        return;
    assert_ok(pg_work(pg, PG_ONE, drop_schema, NULL, &f->err));
    pg_db_close(pg);
    pg = NULL;
}

UNUSED static void open_cache(fixture *f)
{
    assert_null(f->cache);
    f->cache = pg_cache_new(pg_open(f));
}

/* What the backend has in place of a cache that was deleted. */
UNUSED static void remove_cache(fixture *f)
{
    forget_backend(f);
}

static memfs_code read_trace(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc = pg_query(c, 1 << 30, "SELECT sum(xmin::text::int8)::int8 FROM (SELECT xmin "
                                         "FROM tips UNION ALL SELECT xmin FROM blocks) t",
                             NULL, &r, err);

    if (rc == MEMFS_OK)
        *(int64_t *)ctx = pg_col_int(&r, 0, 0);
    return rc;
}

/* A number that every write of a row changes. */
UNUSED static int64_t trace_of_writes(fixture *f)
{
    int64_t trace;

    assert_ok(pg_work(pg, PG_ONE, read_trace, &trace, &f->err));
    return trace;
}
#else
static void forget_backend(fixture *f)
{
    (void)f; /* its files go with the folder */
}

UNUSED static void open_cache(fixture *f)
{
    assert_null(f->cache);
    assert_ok(cache_open_sqlite(f->root, &f->cache, &f->was_reset, &f->err));
}

UNUSED static void remove_cache(fixture *f)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/cache.db", f->root);
    assert_int_equal(unlink(path), 0);
}

UNUSED static int64_t trace_of_writes(fixture *f)
{
    char path[128];
    struct stat st;

    snprintf(path, sizeof(path), "%s/cache.db-wal", f->root);
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}
#endif

UNUSED static void close_cache(fixture *f)
{
    cache_close(f->cache);
    f->cache = NULL;
}

UNUSED static int setup_folder(void **at)
{
    *at = fixture_new("db");
    return 0;
}

UNUSED static int setup_cache(void **at)
{
    *at = fixture_new("cache");
    open_cache(*at);
    return 0;
}

UNUSED static int teardown(void **at)
{
    fixture_free(*at);
    return 0;
}

/* A path below the root; eight may be in use at once. */
UNUSED static const char *in_root(fixture *f, const char *name)
{
    static __thread char paths[8][512];
    static __thread unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof(paths[0]), "%s/%s", f->root, name);
    return path;
}

UNUSED static memfs_oid oid_of(unsigned n)
{
    memfs_oid oid = { { (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n,
                        7 } };

    return oid;
}

/* A row with the fields that most tests do not care about filled in. */
UNUSED static block_row row_of(const char *path, const char *label, const char *id,
                               const char *value)
{
    block_row row = {
        .path = str_of(path),
        .label = str_of(label),
        .id = str_of(id),
        .value = str_of(value),
        .has_description = true,
        .description = MEMFS_STR("about"),
        .limit = 100000,
        .metadata_json = MEMFS_STR("{}"),
        .tags_json = MEMFS_STR("[]"),
        .problem = MEMFS_STR(""),
        .bytes = (int64_t)strlen(value),
        .created_at_us = 1000,
        .updated_at_us = 2000,
    };

    row.blob = oid_of(99);
    return row;
}

/* One row set (or, with value NULL, dropped), from tip to tip; 0 is no tip. */
UNUSED static memfs_code apply_one(fixture *f, const char *agent, unsigned from, unsigned to,
                                   const char *label, const char *value)
{
    char path[128], id[160];
    block_row row;
    cache_change change;
    memfs_oid from_oid = oid_of(from);

    snprintf(path, sizeof(path), "%s.md", label);
    snprintf(id, sizeof(id), "block-%s-%s", agent, label);
    row = row_of(path, label, id, value != NULL ? value : "");
    change = (cache_change){ str_of(path), value != NULL ? &row : NULL };
    cache_update u = {
        .agent_id = str_of(agent),
        .from = from != 0 ? &from_oid : NULL,
        .to = oid_of(to),
        .changes = &change,
        .n_changes = 1,
    };
    return cache_apply(f->cache, &u, &f->err);
}

/* Labels of rows, joined by blanks, into the buffer that is the context. */
UNUSED static memfs_code join_labels(const block_row *row, void *ctx, memfs_error *err)
{
    (void)err;
    if (((memfs_buf *)ctx)->len > 0)
        buf_putc(ctx, ' ');
    buf_add_str(ctx, row->label);
    return MEMFS_OK;
}

UNUSED static memfs_code join_values(const block_row *row, void *ctx, memfs_error *err)
{
    (void)err;
    if (((memfs_buf *)ctx)->len > 0)
        buf_putc(ctx, ' ');
    buf_add_str(ctx, row->value);
    return MEMFS_OK;
}

#define assert_labels(query, expected)                                                             \
    do {                                                                                           \
        _cleanup_(buf_dispose) memfs_buf labels_ = MEMFS_BUF_INIT(1 << 20);                        \
        assert_ok(cache_blocks(f->cache, query, join_labels, &labels_, &f->err));                  \
        assert_string_equal(labels_.ptr, expected);                                                \
    } while (0)

/* The value of one block; "(absent)" when there is none. */
UNUSED static const char *value_of(fixture *f, const char *agent, const char *label)
{
    static __thread char text[256];
    _cleanup_(buf_dispose) memfs_buf value = MEMFS_BUF_INIT(1 << 20);
    block_query q = { .agent_id = str_of(agent), .label = str_of(label), .show_hidden = true };

    assert_ok(cache_blocks(f->cache, &q, join_values, &value, &f->err));
    snprintf(text, sizeof(text), "%s", value.len > 0 ? value.ptr : "(absent)");
    return text;
}

/* SQL on a connection that is not ours. */
UNUSED static void meddle(fixture *f, const char *file, const char *sql)
{
    sqlite3 *other = NULL;
    char *message = NULL;

    assert_int_equal(sqlite3_open(in_root(f, file), &other), SQLITE_OK);
    sqlite3_busy_timeout(other, 2000);
    if (sqlite3_exec(other, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    sqlite3_close(other);
}

#endif
