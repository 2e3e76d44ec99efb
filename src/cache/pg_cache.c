#include "cache/pg_cache.h"

#include "cache/pg_backend.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>

/*
 * The cache in PostgreSQL: changing it, and its life.
 *
 * A change is one statement, and so one round trip and one transaction: the tip is moved if it is
 * where the change starts from, and all else in the statement hangs on that it was.  A change of
 * many megabytes is cut into more of them, inside a BEGIN.
 *
 * All parts of a statement see the rows as they were when it began.  That is right where the tip had
 * to be a certain one: who waited for another change finds it moved and does nothing.  What replaces
 * all rows whatever the tip is moves it in a statement of its own, which waits for the others, so
 * that the next one sees every row they left.
 *
 * Rows are a function of the tree and of the rule (cache_rule).  Where several servers share the
 * database, one of them may still go by the rule of before, a rolling restart long: what it writes
 * hangs on the rule of the database being its own.  If it is not, the tip moves without its rows, and
 * whoever has the rule makes them (K1).  What changes the rule takes the table of blocks for itself,
 * so a statement that writes rows sees the rule that its rows will stand beside.
 *
 * Versions of new commits (search.h) come in the same statement, as they are few: the tip takes the
 * past with it where they stood at one place, and they are put where it did.
 *
 * After a COMMIT whose answer was lost the work is begun again and finds the tip where it brings it;
 * as rows are a function of the tip, that is as good as having done it.
 */

#define MAX_STATEMENT_BYTES (16u << 20)
#define N_PARTS 64

enum {
    KEY_TIP = PG_KEYS_CACHE + 1,
    KEY_GENERATION,
    KEY_FORGET,
    KEY_EMPTY,
    KEY_MORE,
    KEY_MOVE,                  /* + enum apply_bits */
    KEY_APPLY = KEY_MOVE + 16, /* + enum apply_bits */
    KEY_BARE = KEY_APPLY + 16, /* + enum apply_bits */
    KEY_RULE_IS = KEY_BARE + 2,
};

static pg_db *db_of(cache *c)
{
    return ((pg_cache *)c)->db;
}

/* ---- tips ---- */

struct tip_reading {
    memfs_str agent_id;
    cache_tip tip;
    bool is_known, is_empty;
};

static memfs_code read_tip(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    struct tip_reading *t = ctx;
    memfs_code rc;

    pg_arg_text(&args, t->agent_id);
    rc = pg_query(c, KEY_TIP,
                  "SELECT tip, generation, is_empty, past IS NOT DISTINCT FROM tip FROM tips "
                  "WHERE agent_id = $1", &args, &r, err);
    if (rc < 0)
        return rc;
    t->is_known = r.n_rows > 0;
    if (!t->is_known)
        return MEMFS_OK;
    t->tip.generation = pg_col_int(&r, 0, 1);
    t->is_empty = pg_col_int(&r, 0, 2) != 0;
    t->tip.is_followed = pg_col_int(&r, 0, 3) != 0;
    return pg_col_oid(&r, 0, 0, &t->tip.commit, err);
}

static memfs_code tip(cache *c, memfs_str agent_id, cache_tip *ret, memfs_error *err)
{
    struct tip_reading t = { .agent_id = agent_id };
    memfs_code rc = pg_work(db_of(c), PG_ONE, read_tip, &t, err);

    if (rc == MEMFS_OK && (!t.is_known || t.is_empty))
        return memfs_fail(err, MEMFS_ENOTFOUND, "the blocks of agent '%.*s' were never synced",
                          (int)agent_id.len, agent_id.ptr);
    *ret = t.tip;
    return rc;
}

static memfs_code read_generation(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc = pg_query(c, KEY_GENERATION, "SELECT sum(n)::int8 FROM changes", NULL, &r, err);

    if (rc == MEMFS_OK)
        *(int64_t *)ctx = pg_col_int(&r, 0, 0);
    return rc;
}

static memfs_code generation(cache *c, int64_t *ret, memfs_error *err)
{
    return pg_work(db_of(c), PG_ONE, read_generation, ret, err);
}

/* Which of the counters of changes an agent's changes raise. */
static int64_t part_of(memfs_str agent_id)
{
    uint8_t sum[16];

    hash_md5(agent_id, sum);
    return sum[0] % N_PARTS;
}

/* ---- a change ---- */

enum apply_bits {
    APPLY_FROM_TIP = 1 << 0,  /* neither: the agent must not be known */
    APPLY_FROM_ANY = 1 << 1,
    APPLY_REPLACE = 1 << 2,
    APPLY_VERSIONS = 1 << 3, /* with FROM_TIP only */
};

#define MOVE_NEW(is_empty, more, condition)                                                              \
    "INSERT INTO tips(agent_id, tip, generation, holder, is_empty) SELECT $1, $2, "                \
    "nextval('generation'), $3, " is_empty condition                                               \
    " ON CONFLICT(agent_id) DO UPDATE SET tip = $2, generation = excluded.generation, "            \
    "holder = $3, is_empty = excluded.is_empty" more

#define MOVE_ON(is_empty, more, condition)                                                               \
    "UPDATE tips SET tip = $2, generation = nextval('generation'), holder = $3, is_empty = "       \
    is_empty more " WHERE agent_id = $1 AND tip = $5" condition " RETURNING agent_no, past"

#define RULED "($4 IS NULL OR EXISTS(SELECT FROM rule WHERE rule = $4))"

/*
 * $1 the agent, $2 the new tip, $3 its holder, $4 the rule of the rows or NULL; FROM_TIP has $5, the
 * old tip.  A tip without rows is none to a server that has the database for itself; where servers
 * share it, it is one.  What only writes the rows that differ needs the others to be there: it may
 * have waited for what emptied them.
 */
static const char *const MOVES[] = {
    [0] = MOVE_NEW("false", "", " WHERE " RULED) " WHERE tips.is_empty AND $3 IS NULL RETURNING agent_no",
    [APPLY_FROM_TIP] = MOVE_ON("false", "", " AND NOT is_empty AND " RULED),
    [APPLY_FROM_TIP | APPLY_VERSIONS] =
        MOVE_ON("false", ", past = CASE WHEN past = $5 THEN $2 ELSE past END",
                " AND NOT is_empty AND " RULED),
    [APPLY_FROM_TIP | APPLY_REPLACE] = MOVE_ON("false", ", past = NULL", " AND " RULED),
    [APPLY_FROM_ANY | APPLY_REPLACE] =
        MOVE_NEW("false", ", past = NULL", " WHERE " RULED) " RETURNING agent_no",
};

/* The same without rows, of what the rule of the database keeps from being written. */
static const char *const BARE_MOVES[] = {
    [0] = MOVE_NEW("true", "", " WHERE $4 IS NOT NULL") " WHERE false RETURNING agent_no",
    [APPLY_FROM_TIP] = MOVE_ON("true", "", " AND $4 IS NOT NULL"),
};

#define ROW_COLUMNS                                                                                \
    "path, label, id, description, char_limit, read_only, metadata, tags, hidden, problem, blob, " \
    "bytes, created_at, updated_at, value"
#define N_ROW_COLUMNS 15 /* and the words, which are written in another form than they come */
#define ROW_UPDATE                                                                                 \
    " ON CONFLICT(agent_no, path) DO UPDATE SET label = excluded.label, id = excluded.id, "        \
    "description = excluded.description, char_limit = excluded.char_limit, "                       \
    "read_only = excluded.read_only, metadata = excluded.metadata, tags = excluded.tags, "         \
    "hidden = excluded.hidden, problem = excluded.problem, blob = excluded.blob, "                 \
    "bytes = excluded.bytes, created_at = excluded.created_at, "                                   \
    "updated_at = excluded.updated_at, value = excluded.value, words = excluded.words"

typedef struct applying {
    const cache_update *u;
    const pg_cache *cache;
    size_t n_runs;
    int64_t agent_no;
    bool is_overruled; /* the rows are of another rule than the database's */
} applying;

static size_t row_bytes(const block_row *row)
{
    return 256 + row->label.len + row->path.len + row->metadata_json.len + row->tags_json.len +
           row->problem.len + row->description.len + row->value.len;
}

/* Rows from `first` on that go into one statement; *ret_n of them, *ret_end: where the next begins. */
static void next_rows(const cache_update *u, size_t first, size_t *ret_n, size_t *ret_end)
{
    size_t bytes = 0, i;

    *ret_n = 0;
    for (i = first; i < u->n_changes && bytes < MAX_STATEMENT_BYTES; i++) {
        if (u->changes[i].row == NULL)
            continue;
        bytes += row_bytes(u->changes[i].row);
        (*ret_n)++;
    }
    *ret_end = i;
}

static void add_or(pg_args *a, int at, memfs_str s, const char *otherwise)
{
    pg_array_add_str(a, at, s.len > 0 ? s : str_of(otherwise));
}

/* One array a column, in the order of ROW_COLUMNS. */
static void add_rows(pg_args *a, const cache_update *u, size_t first, size_t end, size_t n)
{
    static const pg_type types[N_ROW_COLUMNS + 1] = {
        PG_BYTES, PG_BYTES, PG_TEXT, PG_BYTES, PG_INT, PG_BOOL, PG_BYTES, PG_BYTES,
        PG_BOOL, PG_BYTES, PG_BYTES, PG_INT, PG_INT, PG_INT, PG_BYTES, PG_TEXT,
    };
    _cleanup_(word_set_dispose) word_set words = WORD_SET_INIT;
    int at = a->n;

    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        pg_arg_array(a, types[i], n);
    for (size_t i = first; i < end; i++) {
        const block_row *row = u->changes[i].row;

        if (row == NULL)
            continue;
        pg_array_add_str(a, at, u->changes[i].path);
        pg_array_add_str(a, at + 1, row->label);
        pg_array_add_str(a, at + 2, row->id);
        if (row->has_description)
            pg_array_add_str(a, at + 3, row->description);
        else
            pg_array_add_null(a, at + 3);
        pg_array_add_int(a, at + 4, row->limit);
        pg_array_add_bool(a, at + 5, row->read_only);
        add_or(a, at + 6, row->metadata_json, "{}");
        add_or(a, at + 7, row->tags_json, "[]");
        pg_array_add_bool(a, at + 8, row->hidden);
        pg_array_add_str(a, at + 9, row->problem);
        pg_array_add_oid(a, at + 10, &row->blob);
        pg_array_add_int(a, at + 11, row->bytes);
        pg_array_add_int(a, at + 12, row->created_at_us);
        pg_array_add_int(a, at + 13, row->updated_at_us);
        pg_array_add_str(a, at + 14, row->value);
        word_set_clear(&words);
        search_words_of(row, &words);
        pg_array_add_str(a, at + 15, buf_str(&words.joined));
    }
}

/* The rows of unnest($from, $from+1, ...), of an agent. */
static void put_rows(memfs_buf *sql, const char *agent_no, const char *of, int from)
{
    buf_puts(sql, "INSERT INTO blocks(agent_no, " ROW_COLUMNS ", words) SELECT ");
    buf_puts(sql, agent_no);
    buf_puts(sql, ", " ROW_COLUMNS ", array_to_tsvector(string_to_array(btrim('_' || ");
    buf_puts(sql, agent_no);
    buf_puts(sql, " || ' ' || words), ' ')) FROM ");
    buf_puts(sql, of);
    buf_puts(sql, "unnest(");
    for (int i = 0; i <= N_ROW_COLUMNS; i++)
        pg_put(sql, i > 0 ? ", " : "", from + i);
    buf_puts(sql, ") r(" ROW_COLUMNS ", words)" ROW_UPDATE);
}

/* Paths that go; with replace_all those that stay, as the rows that come are written over. */
static void add_paths(pg_args *a, const cache_update *u)
{
    size_t n = 0;
    int at;

    for (size_t i = 0; i < u->n_changes; i++)
        n += (u->changes[i].row != NULL) == u->replace_all;
    at = pg_arg_array(a, PG_BYTES, n);
    for (size_t i = 0; i < u->n_changes; i++)
        if ((u->changes[i].row != NULL) == u->replace_all)
            pg_array_add_str(a, at, u->changes[i].path);
}

static unsigned bits_of(const cache_update *u)
{
    unsigned bits = u->from != NULL ? APPLY_FROM_TIP : u->replace_all ? APPLY_FROM_ANY : 0;

    return bits | (u->replace_all ? APPLY_REPLACE : 0) | (u->versions != NULL ? APPLY_VERSIONS : 0);
}

static void add_rule(pg_args *a, const pg_cache *c)
{
    if (c->has_rule)
        pg_arg_bytes(a, buf_str(&c->rule));
    else
        pg_arg_null(a, PG_BYTES);
}

static void add_move(pg_args *a, const applying *x)
{
    const cache_update *u = x->u;

    pg_arg_text(a, u->agent_id);
    pg_arg_oid(a, &u->to);
    if (u->holder != 0)
        pg_arg_int(a, u->holder);
    else
        pg_arg_null(a, PG_INT);
    add_rule(a, x->cache);
    if (u->from != NULL)
        pg_arg_oid(a, u->from);
}

static void take_agent(applying *x, const pg_result *r)
{
    x->agent_no = r->n_rows > 0 ? pg_col_int(r, 0, 0) : 0;
}

static memfs_code move_tip(pg_conn *c, applying *x, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    unsigned bits = bits_of(x->u);
    memfs_code rc;

    add_move(&args, x);
    rc = pg_query(c, KEY_MOVE + bits, MOVES[bits], &args, &r, err);
    take_agent(x, &r);
    return rc;
}

/* With its first tip an agent becomes known, so that no crash comes between. */
static void put_known(memfs_buf *sql, pg_args *args, const cache_update *u)
{
    pg_arg_text(args, u->org);
    pg_put(sql, "known AS (INSERT INTO agents(agent_id, org_id, name, tags, tag_list, created_at, "
                "updated_at) SELECT $1, ", args->n);
    pg_arg_bytes(args, u->agent_id);
    pg_put(sql, ", ", args->n);
    pg_arg_int(args, u->now_us);
    pg_put(sql, ", '[]', '{}', ", args->n);
    pg_put(sql, ", ", args->n);
    pg_put(sql, " FROM moved WHERE ", args->n - 2);
    buf_puts(sql, " <> '' ON CONFLICT(agent_id) DO UPDATE SET deleted_at = 0, "
                  "version = agents.version + 1 WHERE agents.deleted_at < 0), ");
}

/* What `moved` is in the statement below: the move itself, or the agent that was moved already. */
static void put_moved(memfs_buf *sql, pg_args *args, const applying *x, unsigned bits)
{
    if (bits & APPLY_REPLACE) {
        pg_arg_int(args, x->agent_no);
        pg_arg_null(args, PG_INT);
        pg_arg_null(args, PG_INT);
        add_rule(args, x->cache);
        buf_puts(sql, "WITH moved AS (SELECT $1::int8 AS agent_no WHERE " RULED "), ");
        return;
    }
    add_move(args, x);
    buf_puts(sql, "WITH moved AS (");
    buf_puts(sql, MOVES[bits]);
    buf_puts(sql, "), ");
    if (bits == 0)
        put_known(sql, args, x->u);
}

/* A row may not be taken out and put in by one statement: a path is in the list or in the rows. */
static memfs_code apply_first(pg_conn *c, applying *x, size_t end, size_t n, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    _cleanup_(buf_dispose) memfs_buf sql = MEMFS_BUF_INIT(1 << 16);
    unsigned bits = bits_of(x->u);
    memfs_code rc;

    put_moved(&sql, &args, x, bits);
    add_paths(&args, x->u);
    buf_puts(&sql, "gone AS (DELETE FROM blocks b USING moved m WHERE b.agent_no = m.agent_no AND ");
    pg_put(&sql, bits & APPLY_REPLACE ? "NOT b.path = ANY(" : "b.path = ANY(", args.n);
    buf_puts(&sql, ")), ");
    if (bits & APPLY_REPLACE)
        buf_puts(&sql, "past AS (DELETE FROM versions v USING moved m WHERE "
                       "v.agent_no = m.agent_no), ");
    buf_puts(&sql, "put AS (");
    put_rows(&sql, "m.agent_no", "moved m, ", args.n + 1);
    add_rows(&args, x->u, 0, end, n);
    pg_arg_int(&args, part_of(x->u->agent_id));
    pg_put(&sql, "), told AS (UPDATE changes SET n = n + 1 WHERE part = ", args.n);
    buf_puts(&sql, " AND EXISTS(SELECT FROM moved))");
    if (bits & APPLY_VERSIONS) {
        buf_puts(&sql, ", listed AS (");
        pg_put_versions(&sql, &args, "m.agent_no", "moved m, ", " WHERE m.past = $2",
                        x->u->versions->rows, x->u->versions->n);
        buf_putc(&sql, ')');
    }
    buf_puts(&sql, " SELECT agent_no FROM moved");
    rc = pg_query(c, KEY_APPLY + bits, sql.ptr, &args, &r, err);
    take_agent(x, &r);
    return rc;
}

static memfs_code apply_more(pg_conn *c, const applying *x, size_t first, size_t end, size_t n,
                             memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    _cleanup_(buf_dispose) memfs_buf sql = MEMFS_BUF_INIT(1 << 16);

    pg_arg_int(&args, x->agent_no);
    add_rows(&args, x->u, first, end, n);
    put_rows(&sql, "$1", "", 2);
    return pg_query(c, KEY_MORE, sql.ptr, &args, &r, err);
}

/* The tip was not where the change starts from: is it where a run before this one brought it? */
static memfs_code judge_tip(pg_conn *c, const applying *x, memfs_error *err)
{
    struct tip_reading t = { .agent_id = x->u->agent_id };
    memfs_code rc = read_tip(c, &t, err);

    if (rc < 0)
        return rc;
    if (x->n_runs > 1 && t.is_known && (!t.is_empty || x->is_overruled) &&
        oid_equal(&t.tip.commit, &x->u->to))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ECONFLICT,
                      "the blocks of agent '%.*s' were synced by somebody else",
                      (int)x->u->agent_id.len, x->u->agent_id.ptr);
}

static memfs_code ask_rule(pg_conn *c, applying *x, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    memfs_code rc;

    add_rule(&args, x->cache);
    rc = pg_query(c, KEY_RULE_IS, "SELECT FROM rule WHERE rule IS DISTINCT FROM $1 AND $1 IS NOT NULL",
                  &args, &r, err);
    x->is_overruled = rc == MEMFS_OK && r.n_rows > 0;
    return rc;
}

/* Main is where it is, whatever becomes of its rows (H1). */
static memfs_code apply_bare(pg_conn *c, applying *x, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    _cleanup_(buf_dispose) memfs_buf sql = MEMFS_BUF_INIT(1 << 14);
    unsigned bits = bits_of(x->u) & APPLY_FROM_TIP;
    memfs_code rc;

    add_move(&args, x);
    buf_puts(&sql, "WITH moved AS (");
    buf_puts(&sql, BARE_MOVES[bits]);
    buf_puts(&sql, "), ");
    if (bits == 0)
        put_known(&sql, &args, x->u);
    pg_arg_int(&args, part_of(x->u->agent_id));
    pg_put(&sql, "gone AS (DELETE FROM blocks b USING moved m WHERE b.agent_no = m.agent_no), "
                 "told AS (UPDATE changes SET n = n + 1 WHERE part = ", args.n);
    buf_puts(&sql, " AND EXISTS(SELECT FROM moved)) SELECT agent_no FROM moved");
    rc = pg_query(c, KEY_BARE + bits, sql.ptr, &args, &r, err);
    take_agent(x, &r);
    return rc;
}

static memfs_code fail_overruled(applying *x, memfs_error *err)
{
    x->is_overruled = true;
    return memfs_fail(err, MEMFS_EUNAVAIL,
                      "another server makes blocks by another rule: give all of them the same release, "
                      "policy and LETTA_MEMFS_BLOCK_PATH_PREFIXES");
}

/* Nothing was written: somebody else was first, or the rule is another one. */
static memfs_code judge(pg_conn *c, applying *x, memfs_error *err)
{
    bool is_bare = x->u->holder != 0 && bits_of(x->u) != (APPLY_FROM_ANY | APPLY_REPLACE) &&
                   (x->u->from == NULL || !oid_equal(x->u->from, &x->u->to));
    memfs_code rc = ask_rule(c, x, err);

    if (rc == MEMFS_OK && x->is_overruled && !is_bare)
        return fail_overruled(x, err);
    if (rc == MEMFS_OK && x->is_overruled)
        rc = apply_bare(c, x, err);
    return rc < 0 || x->agent_no != 0 ? rc : judge_tip(c, x, err);
}

static memfs_code apply_within(pg_conn *c, void *ctx, memfs_error *err)
{
    applying *x = ctx;
    size_t n, end;
    memfs_code rc;

    x->n_runs++;
    x->is_overruled = false;
    next_rows(x->u, 0, &n, &end);
    rc = x->u->replace_all ? move_tip(c, x, err) : MEMFS_OK;
    if (rc == MEMFS_OK && x->u->replace_all && x->agent_no == 0)
        return judge(c, x, err);
    if (rc == MEMFS_OK)
        rc = apply_first(c, x, end, n, err);
    if (rc == MEMFS_OK && x->agent_no == 0) /* the rule changed after the tip was moved: not at all */
        return x->u->replace_all ? fail_overruled(x, err) : judge(c, x, err);
    while (rc == MEMFS_OK && end < x->u->n_changes) {
        size_t first = end;

        next_rows(x->u, first, &n, &end);
        if (n > 0)
            rc = apply_more(c, x, first, end, n, err);
    }
    return rc;
}

/* A step from a tip to itself that changes nothing writes nothing (K7). */
static memfs_code apply_nothing(cache *base, const cache_update *u, bool *ret_is_done,
                                memfs_error *err)
{
    struct tip_reading t = { .agent_id = u->agent_id };
    memfs_code rc;

    if (u->n_changes > 0 || u->replace_all || u->from == NULL || !oid_equal(u->from, &u->to))
        return MEMFS_OK;
    rc = pg_work(db_of(base), PG_ONE, read_tip, &t, err);
    *ret_is_done = rc == MEMFS_OK && t.is_known && !t.is_empty &&
                   oid_equal(&t.tip.commit, &u->to);
    return rc;
}

/* Once: it lasts until the servers agree. */
static void tell_overruled(pg_cache *c, const memfs_error *err)
{
    if (!atomic_exchange(&c->has_told, true))
        log_event(LOG_ERROR, "cache_rule_differs", "text", err->msg, NULL);
}

static memfs_code apply(cache *base, const cache_update *u, memfs_error *err)
{
    applying x = { .u = u, .cache = (pg_cache *)base };
    bool is_done = false;
    size_t n, end;
    memfs_code rc = apply_nothing(base, u, &is_done, err);

    if (rc < 0 || is_done)
        return rc;
    next_rows(u, 0, &n, &end);
    rc = pg_work(db_of(base), u->replace_all || end < u->n_changes ? PG_WRITE : PG_ONE,
                 apply_within, &x, err);
    if (rc == MEMFS_OK)
        pg_tell_others(base, u->holder);
    if (rc == MEMFS_OK && x.is_overruled)
        rc = fail_overruled(&x, err); /* of the rows; the tip has moved */
    if (rc == MEMFS_EUNAVAIL && x.is_overruled)
        tell_overruled((pg_cache *)base, err);
    return rc;
}

/* ---- forgetting ---- */

static memfs_code forget_within(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    const memfs_str *agent_id = ctx;

    pg_arg_text(&args, *agent_id);
    pg_arg_int(&args, part_of(*agent_id));
    return pg_query(c, KEY_FORGET,
                    "WITH gone AS (DELETE FROM tips WHERE agent_id = $1 RETURNING agent_no), "
                    "rows AS (DELETE FROM blocks b USING gone g WHERE b.agent_no = g.agent_no), "
                    "past AS (DELETE FROM versions v USING gone g WHERE v.agent_no = g.agent_no) "
                    "UPDATE changes SET n = n + 1 WHERE part = $2 AND EXISTS(SELECT FROM gone)",
                    &args, &r, err);
}

static memfs_code empty_within(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    const memfs_str *agent_id = ctx;

    pg_arg_text(&args, *agent_id);
    pg_arg_int(&args, part_of(*agent_id));
    return pg_query(c, KEY_EMPTY,
                    "WITH gone AS (UPDATE tips SET is_empty = true WHERE agent_id = $1 AND "
                    "NOT is_empty RETURNING agent_no), "
                    "rows AS (DELETE FROM blocks b USING gone g WHERE b.agent_no = g.agent_no) "
                    "UPDATE changes SET n = n + 1 WHERE part = $2 AND EXISTS(SELECT FROM gone)",
                    &args, &r, err);
}

static memfs_code empty(cache *base, memfs_str agent_id, memfs_error *err)
{
    return pg_work(db_of(base), PG_ONE, empty_within, &agent_id, err);
}

static memfs_code forget(cache *base, memfs_str agent_id, memfs_error *err)
{
    return pg_work(db_of(base), PG_ONE, forget_within, &agent_id, err);
}

/* ---- life ---- */

/* A database does not vanish as a file does: one that is away says so itself, at the next call. */
static bool is_there(cache *base)
{
    (void)base;
    return true;
}

static void close_cache(cache *base)
{
    pg_db_close(db_of(base));
    buf_dispose(&((pg_cache *)base)->rule);
    free(base);
}

static const cache_backend BACKEND = {
    .name = "postgresql",
    .is_remote = true,
    .close = close_cache,
    .rule = pg_rule,
    .own_rule = pg_own_rule,
    .is_there = is_there,
    .check = pg_check,
    .reset = pg_reset,
    .blocks = pg_blocks,
    .count = pg_count,
    .tip = tip,
    .head = pg_head,
    .moves = pg_moves,
    .generation = generation,
    .tag_lists = pg_block_tags,
    .apply = apply,
    .forget = forget,
    .empty = empty,
    .scrub = pg_scrub,
    .search = pg_search,
    .past_tip = pg_past_tip,
    .past_behind = pg_past_behind,
    .versions = pg_versions,
    .search_past = pg_search_past,
    .past_add = pg_past_add,
};

cache *pg_cache_new(pg_db *db)
{
    pg_cache *c = mem_alloc(sizeof(*c));

    c->base.backend = &BACKEND;
    c->db = pg_db_share(db);
    c->rule = (memfs_buf)MEMFS_BUF_INIT(1 << 20);
    return &c->base;
}
