/*
 * letta_schema.c - is this the database that letta_db.h speaks of?
 *
 * A revision is only a name, and each release of Letta brings another, mostly for tables that memfs
 * never looks at.  So what counts is the catalogue: the columns that are read or written have their
 * types, what an insert of ours leaves out may be left out, and the unique keys that the rules for
 * writers rest on are there.  It is looked at even where the revision is known: hands change tables
 * too.
 */
#include "cache/letta_int.h"

#include <stdio.h>

#define KNOWN_REVISION "1c28e167b74f"

enum { KEY_REVISION = PG_KEYS_LETTA + 64 };

typedef enum kind { KIND_TEXT, KIND_INT, KIND_BOOL, KIND_TIME, KIND_JSON, N_KINDS } kind;

/* As format_type() writes them. */
static const char *const TYPES[N_KINDS][3] = {
    [KIND_TEXT] = { "character varying", "text" },
    [KIND_INT] = { "integer", "bigint" },
    [KIND_BOOL] = { "boolean" },
    [KIND_TIME] = { "timestamp with time zone" },
    [KIND_JSON] = { "json", "jsonb" },
};

/* All that is read or written here. */
static const struct {
    const char *table, *column;
    kind kind;
} COLUMNS[] = {
    { "agents", "id", KIND_TEXT },
    { "agents", "organization_id", KIND_TEXT },
    { "agents", "name", KIND_TEXT },
    { "agents", "description", KIND_TEXT },
    { "agents", "created_at", KIND_TIME },
    { "agents", "updated_at", KIND_TIME },
    { "agents", "is_deleted", KIND_BOOL },
    { "agents", "_last_updated_by_id", KIND_TEXT },
    { "agents_tags", "agent_id", KIND_TEXT },
    { "agents_tags", "tag", KIND_TEXT },
    { "block", "id", KIND_TEXT },
    { "block", "label", KIND_TEXT },
    { "block", "value", KIND_TEXT },
    { "block", "description", KIND_TEXT },
    { "block", "limit", KIND_INT },
    { "block", "metadata_", KIND_JSON },
    { "block", "read_only", KIND_BOOL },
    { "block", "is_template", KIND_BOOL },
    { "block", "preserve_on_migration", KIND_BOOL },
    { "block", "hidden", KIND_BOOL },
    { "block", "organization_id", KIND_TEXT },
    { "block", "version", KIND_INT },
    { "block", "created_at", KIND_TIME },
    { "block", "updated_at", KIND_TIME },
    { "block", "_created_by_id", KIND_TEXT },
    { "block", "_last_updated_by_id", KIND_TEXT },
    { "blocks_agents", "agent_id", KIND_TEXT },
    { "blocks_agents", "block_id", KIND_TEXT },
    { "blocks_agents", "block_label", KIND_TEXT },
    { "blocks_conversations", "block_id", KIND_TEXT },
    { "blocks_tags", "block_id", KIND_TEXT },
    { "blocks_tags", "tag", KIND_TEXT },
    { "blocks_tags", "organization_id", KIND_TEXT },
    { "groups_blocks", "block_id", KIND_TEXT },
    { "identities_blocks", "block_id", KIND_TEXT },
    { "users", "id", KIND_TEXT },
    { "users", "organization_id", KIND_TEXT },
};

static const char *const KEYS[] = {
    "agents(id)",
    "block(id)",
    "blocks_agents(agent_id,block_id)",
    "blocks_agents(agent_id,block_label)",
};

/* ---- what differs ---- */

static bool is_of(kind k, memfs_str type)
{
    for (size_t i = 0; i < ARRAY_LEN(TYPES[k]) && TYPES[k][i] != NULL; i++)
        if (str_equal(type, str_of(TYPES[k][i])))
            return true;
    return false;
}

static int find_column(const pg_result *r, const char *table, const char *column)
{
    for (int row = 0; row < r->n_rows; row++)
        if (str_equal(pg_col_str(r, row, 0), str_of(table)) &&
            str_equal(pg_col_str(r, row, 1), str_of(column)))
            return row;
    return -1;
}

static bool is_used(memfs_str table, memfs_str column)
{
    for (size_t i = 0; i < ARRAY_LEN(COLUMNS); i++)
        if (str_equal(table, str_of(COLUMNS[i].table)) &&
            str_equal(column, str_of(COLUMNS[i].column)))
            return true;
    return false;
}

/* The first that is missing, of another type, or needed by an insert that does not name it. */
static void compare_columns(const pg_result *r, char *why, size_t n)
{
    memfs_str table, column;
    int row;

    for (size_t i = 0; i < ARRAY_LEN(COLUMNS) && why[0] == '\0'; i++) {
        row = find_column(r, COLUMNS[i].table, COLUMNS[i].column);
        if (row < 0)
            snprintf(why, n, "column %s.%s is missing", COLUMNS[i].table, COLUMNS[i].column);
        else if (!is_of(COLUMNS[i].kind, pg_col_str(r, row, 2)))
            snprintf(why, n, "column %s.%s is %s and not %s", COLUMNS[i].table, COLUMNS[i].column,
                     pg_col_str(r, row, 2).ptr, TYPES[COLUMNS[i].kind][0]);
    }
    for (row = 0; row < r->n_rows && why[0] == '\0'; row++) {
        table = pg_col_str(r, row, 0);
        column = pg_col_str(r, row, 1);
        if (pg_col_int(r, row, 3) != 0 && !is_used(table, column))
            snprintf(why, n, "column %s.%s must be given and is not known", table.ptr, column.ptr);
    }
}

static memfs_code check_columns(pg_conn *c, char *why, size_t n, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc;

    rc = pg_query(c, KEY_REVISION + 1,
                  "SELECT t.relname::text, a.attname::text, format_type(a.atttypid, NULL), "
                  "a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' "
                  "AND t.relname IN ('block', 'blocks_agents', 'blocks_tags') "
                  "FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid "
                  "JOIN pg_namespace s ON s.oid = t.relnamespace "
                  "WHERE s.nspname = 'public' AND t.relkind IN ('r', 'p') AND a.attnum > 0 "
                  "AND NOT a.attisdropped AND t.relname IN ('agents', 'agents_tags', 'block', "
                  "'blocks_agents', 'blocks_conversations', 'blocks_tags', 'groups_blocks', "
                  "'identities_blocks', 'users')",
                  NULL, &r, err);
    if (rc == MEMFS_OK)
        compare_columns(&r, why, n);
    return rc;
}

static bool has_key(const pg_result *r, const char *key)
{
    for (int row = 0; row < r->n_rows; row++)
        if (str_equal(pg_col_str(r, row, 0), str_of(key)))
            return true;
    return false;
}

static memfs_code check_keys(pg_conn *c, char *why, size_t n, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc;

    rc = pg_query(
        c, KEY_REVISION + 2,
        "SELECT t.relname || '(' || (SELECT string_agg(a.attname, ',' ORDER BY a.attname) "
        "FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY(i.indkey::int2[]))"
        " || ')' FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid "
        "JOIN pg_namespace s ON s.oid = t.relnamespace "
        "WHERE s.nspname = 'public' AND i.indisunique AND i.indisvalid "
        "AND i.indpred IS NULL AND i.indexprs IS NULL "
        "AND t.relname IN ('agents', 'block', 'blocks_agents')",
        NULL, &r, err);
    for (size_t i = 0; rc == MEMFS_OK && i < ARRAY_LEN(KEYS) && why[0] == '\0'; i++)
        if (!has_key(&r, KEYS[i]))
            snprintf(why, n, "the unique key %s is missing", KEYS[i]);
    return rc;
}

/* ---- the revision ---- */

static memfs_code read_revision(pg_conn *c, letta_db *db, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_str text;
    memfs_code rc;

    rc = pg_exec(c,
                 "SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
                 "ON n.oid = c.relnamespace WHERE n.nspname = 'public' "
                 "AND c.relname = 'alembic_version'",
                 &r, err);
    if (rc == MEMFS_OK && r.n_rows == 0)
        return memfs_fail(err, MEMFS_ENOTFOUND,
                          "it has no tables of Letta; start the Letta server "
                          "on it once, or name the right database");
    if (rc == MEMFS_OK)
        rc = pg_query(c, KEY_REVISION,
                      "SELECT string_agg(version_num, '+' ORDER BY version_num) "
                      "FROM public.alembic_version",
                      NULL, &r, err);
    if (rc < 0)
        return rc;
    text = pg_col_str(&r, 0, 0);
    snprintf(db->revision, sizeof(db->revision), "%.*s", (int)text.len, text.ptr);
    db->is_known = strcmp(db->revision, KNOWN_REVISION) == 0;
    return MEMFS_OK;
}

static memfs_code look(pg_conn *c, void *ctx, memfs_error *err)
{
    letta_db *db = ctx;
    char why[256] = "";
    memfs_code rc = read_revision(c, db, err);

    if (rc == MEMFS_OK)
        rc = check_columns(c, why, sizeof(why), err);
    if (rc == MEMFS_OK && why[0] == '\0')
        rc = check_keys(c, why, sizeof(why), err);
    if (rc == MEMFS_OK && why[0] != '\0')
        return memfs_fail(err, MEMFS_EINVALID,
                          "revision '%s'%s: %s; use a memfs that knows it, or Letta 0.16.7 "
                          "(revision " KNOWN_REVISION ")",
                          db->revision, db->is_known ? ", changed by hand" : "", why);
    return rc;
}

memfs_code letta_schema_check(letta_db *db, memfs_error *err)
{
    return pg_work(db->pg, PG_READ, look, db, err);
}
