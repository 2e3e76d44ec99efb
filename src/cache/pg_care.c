#include "cache/pg_cache.h"

#include "base/buf.h"

/* The cache in PostgreSQL as a whole: the rule that its rows go by, checking it, emptying it. */

enum { KEY_CHECK = PG_KEYS_CACHE + 80, KEY_RULE, KEY_RULE_SET };

/* ---- the rule ---- */

struct ruling {
    memfs_str rule;
    bool may_change; /* what somebody else set; one that nobody set is set anyway */
    bool has_changed, is_other;
};

#define EMPTY                                                                                      \
    "TRUNCATE blocks, versions; "                                                                  \
    "UPDATE tips SET is_empty = true, past = NULL WHERE NOT is_empty OR past IS NOT NULL; "        \
    "UPDATE changes SET n = n + 1 WHERE part = 0"

/* The lock on the row lets servers that start together agree one after the other. */
static memfs_code rule_within(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    struct ruling *x = ctx;
    bool is_new;
    memfs_code rc;

    rc = pg_query(c, KEY_RULE, "SELECT rule FROM rule FOR UPDATE", NULL, &r, err);
    if (rc < 0)
        return rc;
    is_new = r.n_rows == 0 || pg_col_is_null(&r, 0, 0);
    x->has_changed = false;
    x->is_other = !is_new && !str_equal(pg_col_str(&r, 0, 0), x->rule);
    if (!is_new && !(x->is_other && x->may_change))
        return MEMFS_OK;
    rc = pg_exec(c, EMPTY, &r, err);
    pg_arg_bytes(&args, x->rule);
    if (rc == MEMFS_OK)
        rc = pg_query(c, KEY_RULE_SET,
                      "INSERT INTO rule VALUES(true, $1) ON CONFLICT(one) DO UPDATE SET rule = $1",
                      &args, &r, err);
    x->has_changed = rc == MEMFS_OK && !is_new;
    return rc;
}

/* Who says it once more writes nothing here that other threads read meanwhile. */
static memfs_code keep_rule(pg_cache *c, memfs_str rule, memfs_error *err)
{
    if (c->has_rule && str_equal(buf_str(&c->rule), rule))
        return MEMFS_OK;
    buf_clear(&c->rule);
    buf_add_str(&c->rule, rule);
    c->has_rule = true;
    return buf_check(&c->rule, "the rule of the block cache", err);
}

static memfs_code run_ruling(cache *base, struct ruling *x, memfs_error *err)
{
    pg_cache *c = (pg_cache *)base;
    memfs_code rc = keep_rule(c, x->rule, err);

    return rc < 0 ? rc : pg_work(c->db, PG_WRITE, rule_within, x, err);
}

memfs_code pg_rule(cache *base, memfs_str rule, bool *ret_has_changed, memfs_error *err)
{
    struct ruling x = { .rule = rule, .may_change = true };
    memfs_code rc = run_ruling(base, &x, err);

    *ret_has_changed = x.has_changed;
    if (rc == MEMFS_OK)
        atomic_store(&((pg_cache *)base)->has_told, false);
    return rc;
}

memfs_code pg_own_rule(cache *base, memfs_str rule, bool *ret_is_other, memfs_error *err)
{
    struct ruling x = { .rule = rule };
    memfs_code rc = run_ruling(base, &x, err);

    *ret_is_other = x.is_other;
    return rc;
}

/* ---- the table ---- */

/* Reads every row and its place, by the table and not by an index. */
static memfs_code check_within(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc;

    (void)ctx;
    rc = pg_query(c, KEY_CHECK,
                  "SELECT count(*) FROM blocks b WHERE NOT EXISTS(SELECT FROM tips t WHERE "
                  "t.agent_no = b.agent_no) OR length(b.value) < 0 OR length(b.blob) <> 20",
                  NULL, &r, err);
    if (rc == MEMFS_OK && pg_col_int(&r, 0, 0) != 0)
        return memfs_fail(err, MEMFS_ECORRUPT, "the block cache has %lld rows that are no blocks",
                          (long long)pg_col_int(&r, 0, 0));
    return rc;
}

memfs_code pg_check(cache *base, memfs_error *err)
{
    memfs_code rc = pg_work(((pg_cache *)base)->db, PG_READ, check_within, NULL, err);

    return rc < 0 ? rc : pg_search_check(base, err);
}

static memfs_code reset_within(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    (void)ctx;
    return pg_exec(c, EMPTY, &r, err);
}

memfs_code pg_reset(cache *base, memfs_error *err)
{
    return pg_work(((pg_cache *)base)->db, PG_WRITE, reset_within, NULL, err);
}

static memfs_code scrub_within(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    (void)ctx;
    return pg_exec(c, "VACUUM (FULL) blocks, versions", &r, err);
}

/* The table is written anew; what the server's log and its backups keep is their keeper's. */
memfs_code pg_scrub(cache *base, memfs_error *err)
{
    return pg_work(((pg_cache *)base)->db, PG_ONE, scrub_within, NULL, err);
}
