/*
 * letta_fixture.h - a database as a Letta server leaves it, made anew for each test, and ways to
 * look at it and change it as the server would.
 */
#ifndef MEMFS_TESTS_LETTA_FIXTURE_H
#define MEMFS_TESTS_LETTA_FIXTURE_H

#include "cache_fixture.h"

#include "cache/letta_int.h"

#define AGENT_1 "agent-11111111-1111-4111-8111-111111111111"
#define AGENT_2 "agent-22222222-2222-4222-8222-222222222222"
#define AGENT_3 "agent-33333333-3333-4333-8333-333333333333"
#define ORG "org-00000000-0000-4000-8000-000000000000"
#define USER "user-00000000-0000-4000-8000-000000000000"

static letta_db *letta;

struct asked {
    const char *sql;
    memfs_buf out;
};

static memfs_code ask_sql(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    struct asked *q = ctx;
    memfs_code rc = pg_exec(c, "SET search_path = public", &r, err);

    if (rc == MEMFS_OK)
        rc = pg_exec(c, q->sql, &r, err);
    for (int row = 0; rc == MEMFS_OK && row < r.n_rows; row++) {
        buf_puts(&q->out, row > 0 ? "\n" : "");
        buf_add_str(&q->out, pg_col_str(&r, row, 0));
    }
    return rc;
}

/* The first column of each row, a line each. */
UNUSED static char *ask(fixture *f, const char *sql)
{
    struct asked q = { sql, MEMFS_BUF_INIT(1 << 20) };
    static char text[1 << 16];

    assert_ok(pg_work(pg, PG_ONE, ask_sql, &q, &f->err));
    snprintf(text, sizeof(text), "%.*s", (int)q.out.len, q.out.len > 0 ? q.out.ptr : "");
    buf_dispose(&q.out);
    return text;
}

#define assert_rows(f, sql, expected) assert_string_equal(ask(f, sql), expected)

UNUSED static void run_file(fixture *f, const char *path)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);

    assert_ok(fs_read(path, &text, &f->err));
    ask(f, text.ptr);
}

UNUSED static void add_agent(fixture *f, const char *id, const char *name)
{
    _cleanup_(mem_freep) char *sql = mem_printf(
        "INSERT INTO agents(id, organization_id, name, message_buffer_autoclear, created_at, "
        "updated_at) VALUES('%s', '" ORG "', '%s', false, to_timestamp(1700000000.25), "
        "to_timestamp(1700000000.5))",
        id, name);

    ask(f, sql);
}

/* As Letta's API makes one: block-<digit>, attached to the agent. */
UNUSED static void add_block(fixture *f, const char *agent_id, char digit, const char *label,
                             const char *value)
{
    _cleanup_(mem_freep) char *sql = mem_printf(
        "INSERT INTO block(id, label, value, \"limit\", description, metadata_, read_only, "
        "is_template, organization_id, _created_by_id, _last_updated_by_id) VALUES('block-%c', "
        "'%s', '%s', 5000, 'about %s', '{\"k\": 1}', false, false, '" ORG "', '" USER "', '" USER
        "'); INSERT INTO blocks_agents VALUES('%s', 'block-%c', '%s')",
        digit, label, value, label, agent_id, digit, label);

    ask(f, sql);
}

UNUSED static fixture *letta_fixture(const char *name)
{
    fixture *f = fixture_new(name);

    assert_ok(pg_db_open_as_is(pg_url(), 0, &pg, &f->err));
    ask(f, "DROP SCHEMA IF EXISTS public CASCADE; DROP SCHEMA IF EXISTS memfs_letta CASCADE; "
           "CREATE SCHEMA public");
    run_file(f, LETTA_SCHEMA);
    add_agent(f, AGENT_1, "ada");
    return f;
}

UNUSED static void letta_fixture_free(fixture *f)
{
    letta_db_close(letta);
    letta = NULL;
    fixture_free(f);
}

#endif
