/*
 * state_fixture.h - a state to ask, of either backend, and what tests of it share.
 */
#ifndef MEMFS_TESTS_STATE_FIXTURE_H
#define MEMFS_TESTS_STATE_FIXTURE_H

#include "cache_fixture.h"

#include "cache/state.h"

/* The state is apart from the fixture's cache, which these tests leave closed. */
static state *s;

#ifdef OVER_POSTGRESQL
UNUSED static void open_state(fixture *f)
{
    assert_null(s);
    s = pg_state_new(pg_open(f));
}

/* What a write of a row leaves in it, and what a lock of one does, which costs as much. */
static memfs_code read_state_trace(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc =
        pg_query(c, (1 << 30) + 1,
                 "SELECT sum(xmin::text::int8 + xmax::text::int8)::int8 FROM ("
                 "SELECT xmin, xmax FROM agents UNION ALL SELECT xmin, xmax FROM births UNION ALL "
                 "SELECT xmin, xmax FROM banned UNION ALL SELECT xmin, xmax FROM tokens UNION ALL "
                 "SELECT xmin, xmax FROM mirrors UNION ALL SELECT xmin, xmax FROM shared_repos "
                 "UNION ALL SELECT xmin, xmax FROM shared_links) t",
                 NULL, &r, err);

    if (rc == MEMFS_OK)
        *(int64_t *)ctx = pg_col_int(&r, 0, 0);
    return rc;
}

/* A number that every write to the state changes. */
UNUSED static int64_t trace_of_state(fixture *f)
{
    int64_t trace;

    assert_ok(pg_work(pg, PG_ONE, read_state_trace, &trace, &f->err));
    return trace;
}
#else
UNUSED static void open_state(fixture *f)
{
    assert_null(s);
    assert_ok(state_open_sqlite(f->root, &s, &f->err));
}

UNUSED static int64_t trace_of_state(fixture *f)
{
    char path[128];
    struct stat st;

    snprintf(path, sizeof(path), "%s/state.db-wal", f->root);
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}
#endif

UNUSED static void close_state(void)
{
    state_close(s);
    s = NULL;
}

UNUSED static int setup_state(void **at)
{
    *at = fixture_new("state");
    open_state(*at);
    return 0;
}

UNUSED static int teardown_state(void **at)
{
    close_state();
    fixture_free(*at);
    return 0;
}

UNUSED static memfs_code join_ids(const state_agent *agent, void *ctx, memfs_error *err)
{
    (void)err;
    if (((memfs_buf *)ctx)->len > 0)
        buf_putc(ctx, ' ');
    buf_add_str(ctx, agent->id);
    return MEMFS_OK;
}

#define assert_agents(query, expected)                                                             \
    do {                                                                                           \
        _cleanup_(buf_dispose) memfs_buf ids_ = MEMFS_BUF_INIT(1 << 20);                           \
        assert_ok(state_agents(s, query, join_ids, &ids_, &f->err));                               \
        assert_string_equal(ids_.ptr, expected);                                                   \
    } while (0)

UNUSED static void add(fixture *f, const char *id, int64_t now_us)
{
    assert_ok(state_agent_add(s, str_of(id), MEMFS_STR("org-1"), now_us, &f->err));
}

UNUSED static memfs_code join_births(const state_birth *birth, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s=%lld ", (int)birth->label.len, birth->label.ptr,
               (long long)birth->created_at_us);
    return MEMFS_OK;
}

UNUSED static void assert_births(fixture *f, const char *agent, const char *label,
                                 const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);

    assert_ok(state_births(s, str_of(agent), str_of(label), join_births, &text, &f->err));
    assert_string_equal(text.ptr, expected);
}

UNUSED static memfs_code join_attributes(const state_agent *agent, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s %.*s %.*s %lld %lld", (int)agent->id.len, agent->id.ptr,
               (int)agent->name.len, agent->name.ptr, (int)agent->tags_json.len,
               agent->tags_json.ptr, (long long)agent->created_at_us,
               (long long)agent->updated_at_us);
    return MEMFS_OK;
}

UNUSED static void assert_attributes(fixture *f, const char *id, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);
    agent_query q = { .id = str_of(id) };

    assert_ok(state_agents(s, &q, join_attributes, &text, &f->err));
    assert_string_equal(text.ptr, expected);
}

UNUSED static state_token token_of(const char *id, uint8_t first, int64_t created_at_us)
{
    state_token token = { .id = str_of(id),
                          .name = MEMFS_STR("laptop"),
                          .scope = MEMFS_STR("agent:agent-a:rw"),
                          .created_at_us = created_at_us };

    memset(token.hash, 0, sizeof(token.hash)); /* a hash may have NUL bytes */
    token.hash[0] = first;
    token.hash[31] = 0xff;
    return token;
}

UNUSED static memfs_code join_tokens(const state_token *token, void *ctx, memfs_error *err)
{
    (void)err;
    assert_int_equal(token->hash[31], 0xff);
    buf_printf(ctx, "%.*s,%.*s,%.*s,%u,%lld,%lld,%lld ", (int)token->id.len, token->id.ptr,
               (int)token->name.len, token->name.ptr, (int)token->scope.len, token->scope.ptr,
               token->hash[0], (long long)token->created_at_us, (long long)token->expires_at_us,
               (long long)token->revoked_at_us);
    return MEMFS_OK;
}

UNUSED static void assert_tokens(fixture *f, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);

    assert_ok(state_tokens(s, join_tokens, &text, &f->err));
    assert_string_equal(text.ptr, expected);
}

UNUSED static state_mirror mirror_of(const char *agent, const char *remote, unsigned tip)
{
    return (state_mirror){
        .agent_id = str_of(agent),
        .remote = str_of(remote),
        .mark = MEMFS_STR("0123456789abcdef"),
        .remote_tip = oid_of(tip),
        .seen_at_us = 1,
        .pushed_at_us = 2,
        .proof_at_us = 3,
        .proof_tree = oid_of(77),
        .answer = MEMFS_STR("unreachable"),
        .detail = MEMFS_STR("connection refused"),
        .n_failures = 4,
        .failed_at_us = 5,
        .next_try_us = 6,
        .note = MEMFS_STR("unrelated"),
        .note_text = MEMFS_STR("both roots are kept"),
        .note_at_us = 7,
    };
}

UNUSED static memfs_code join_mirrors(const state_mirror *m, void *ctx, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];

    (void)err;
    oid_hex(&m->remote_tip, hex);
    buf_printf(ctx, "%.*s/%.*s@%.8s ", (int)m->agent_id.len, m->agent_id.ptr, (int)m->remote.len,
               m->remote.ptr, hex);
    return MEMFS_OK;
}

UNUSED static void assert_mirrors(fixture *f, const char *agent, const char *remote,
                                  const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);

    assert_ok(state_mirrors(s, str_of(agent), str_of(remote), join_mirrors, &text, &f->err));
    assert_string_equal(text.ptr, expected);
}

#endif
