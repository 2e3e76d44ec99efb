#include "cache/pg_cache.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * Search in the cache in PostgreSQL (search.h).
 *
 * A row's list of words has `_<agent_no>`, too, by which the index leaves out other agents' rows
 * before it looks at any.  What is asked of it, '_7' & 'word' & 'begin':*, is a parameter; words
 * are letters and digits of ASCII and characters beyond it, so nothing in them is of the language
 * of such a question.
 */

enum {
    KEY_SEARCH = PG_KEYS_CACHE + 1024, /* + whether all agents */
    KEY_SEARCH_PAST = KEY_SEARCH + 2,
    KEY_VERSIONS = KEY_SEARCH_PAST + 2,
    KEY_PAST_TIP,
    KEY_BEHIND,
    KEY_PAST_SET,
    KEY_PAST_DROP,
    KEY_VERSIONS_ADD,
    KEY_CHECK_ROWS,
};

#define MAX_STATEMENT_BYTES (16u << 20)

/* ---- asking ---- */

static void put_words(const search_query *q, memfs_buf *out)
{
    for (size_t i = 0; i < q->find->n_words; i++) {
        buf_puts(out, i > 0 ? " & '" : "'");
        buf_add_str(out, q->find->words[i]);
        buf_puts(out, find_word_is_prefix(q->find, i) ? "':*" : "'");
    }
}

/* $1 words, $2 the path, $3 that of what is in it as a folder, $4 what comes behind, $5 the limit
 */
#define IN_PATH(t) "(length($2) = 0 OR " t ".path = $2 OR (" t ".path >= $3 AND " t ".path < $4))"
#define OF_AGENT(t)                                                                                \
    " AND " t ".words @@ ('_' || (SELECT agent_no FROM tips WHERE agent_id = $6))::tsquery"        \
    " AND " t ".agent_no = (SELECT agent_no FROM tips WHERE agent_id = $6)"

/*
 * What the index finds is a subquery of its own, and made as it is read: with the limit beside it,
 * the planner, which does not know the words, expects to meet enough rows soon by reading the
 * table.
 */
#define SEARCH                                                                                     \
    "WITH found AS MATERIALIZED (SELECT b.agent_no, b.label, b.path, b.id, b.description, "        \
    "b.blob, b.created_at, b.updated_at, b.value FROM blocks b WHERE b.words @@ $1::tsquery "      \
    "AND " IN_PATH("b")
#define SEARCH_END                                                                                 \
    ") SELECT t.agent_id, b.label, b.path, b.id, b.description, b.blob, b.created_at, "            \
    "b.updated_at, b.value FROM (SELECT * FROM found LIMIT $5) b "                                 \
    "JOIN tips t ON t.agent_no = b.agent_no WHERE NOT t.is_empty"
#define SEARCH_PAST                                                                                \
    "WITH found AS MATERIALIZED (SELECT v.agent_no, v.version_no, v.path, v.commit_id, v.blob "    \
    "FROM versions v WHERE v.words @@ $1::tsquery AND " IN_PATH("v")
#define SEARCH_PAST_END                                                                            \
    ") SELECT t.agent_id, v.version_no, v.path, v.commit_id, v.blob "                              \
    "FROM (SELECT * FROM found ORDER BY version_no DESC LIMIT $5) v "                              \
    "JOIN tips t ON t.agent_no = v.agent_no WHERE NOT t.is_empty ORDER BY v.version_no DESC"

static const char *const SEARCHES[] = {
    SEARCH " AND ($7 OR NOT b.hidden)" OF_AGENT("b") SEARCH_END,
    SEARCH " AND ($6 OR NOT b.hidden)" SEARCH_END,
};
static const char *const PAST_SEARCHES[] = {
    SEARCH_PAST OF_AGENT("v") SEARCH_PAST_END,
    SEARCH_PAST SEARCH_PAST_END,
};

typedef memfs_code (*pass_fn)(const pg_result *r, int row, const void *fn, void *ctx,
                              memfs_error *err);

typedef struct asking {
    uint64_t key;
    const char *sql;
    pg_args args;
    memfs_buf words, below, behind;
    pass_fn pass;
    const void *fn;
    void *ctx;
} asking;
#define ASKING_INIT                                                                                \
    {                                                                                              \
        .args = PG_ARGS_INIT, .words = MEMFS_BUF_INIT(1 << 14), .below = MEMFS_BUF_INIT(1 << 16),  \
        .behind = MEMFS_BUF_INIT(1 << 16)                                                          \
    }

static void asking_dispose(asking *a)
{
    pg_args_dispose(&a->args);
    buf_dispose(&a->words);
    buf_dispose(&a->below);
    buf_dispose(&a->behind);
}

static memfs_code asking_make(asking *a, const search_query *q, memfs_error *err)
{
    put_words(q, &a->words);
    buf_add_str(&a->below, q->path);
    buf_putc(&a->below, '/');
    buf_add_str(&a->behind, q->path);
    buf_putc(&a->behind, '/' + 1);
    pg_arg_text(&a->args, buf_str(&a->words));
    pg_arg_bytes(&a->args, q->path);
    pg_arg_bytes(&a->args, buf_str(&a->below));
    pg_arg_bytes(&a->args, buf_str(&a->behind));
    pg_arg_int(&a->args, q->limit);
    if (q->agent_id.len > 0)
        pg_arg_text(&a->args, q->agent_id);
    return buf_check(&a->below, "the path", err);
}

static memfs_code pass_streamed(const pg_result *row, void *ctx, bool *ret_is_done,
                                memfs_error *err)
{
    const asking *a = ctx;

    *ret_is_done = false;
    return a->pass(row, 0, a->fn, a->ctx, err);
}

/* Rows as they come: a thousand of them may have a megabyte each. */
static memfs_code ask_within(pg_conn *c, void *ctx, memfs_error *err)
{
    asking *a = ctx;

    return pg_query_rows(c, a->key, a->sql, &a->args, pass_streamed, a, err);
}

static memfs_code ask(cache *base, asking *a, memfs_error *err)
{
    return pg_work(((pg_cache *)base)->db, PG_ONE, ask_within, a, err);
}

static memfs_code pass_block(const pg_result *r, int row, const void *fn, void *ctx,
                             memfs_error *err)
{
    block_row block = { .agent_id = pg_col_str(r, row, 0),
                        .label = pg_col_str(r, row, 1),
                        .path = pg_col_str(r, row, 2),
                        .id = pg_col_str(r, row, 3),
                        .has_description = !pg_col_is_null(r, row, 4),
                        .description = pg_col_str(r, row, 4),
                        .created_at_us = pg_col_int(r, row, 6),
                        .updated_at_us = pg_col_int(r, row, 7),
                        .value = pg_col_str(r, row, 8) };
    memfs_code rc = pg_col_oid(r, row, 5, &block.blob, err);

    return rc < 0 ? rc : (*(const block_row_fn *)fn)(&block, ctx, err);
}

memfs_code pg_search(cache *base, const search_query *q, block_row_fn fn, void *ctx,
                     memfs_error *err)
{
    _cleanup_(asking_dispose) asking a = ASKING_INIT;
    bool is_all = q->agent_id.len == 0;
    memfs_code rc = asking_make(&a, q, err);

    if (rc < 0)
        return rc;
    pg_arg_bool(&a.args, q->show_hidden);
    a.key = KEY_SEARCH + is_all;
    a.sql = SEARCHES[is_all];
    a.pass = pass_block;
    a.fn = &fn;
    a.ctx = ctx;
    return ask(base, &a, err);
}

static memfs_code pass_version(const pg_result *r, int row, const void *fn, void *ctx,
                               memfs_error *err)
{
    version_row v = { .agent_id = pg_col_str(r, row, 0),
                      .no = pg_col_int(r, row, 1),
                      .path = pg_col_str(r, row, 2) };
    memfs_code rc = pg_col_oid(r, row, 3, &v.commit, err);

    if (rc == MEMFS_OK)
        rc = pg_col_oid(r, row, 4, &v.blob, err);
    return rc < 0 ? rc : (*(const version_row_fn *)fn)(&v, ctx, err);
}

memfs_code pg_search_past(cache *base, const search_query *q, version_row_fn fn, void *ctx,
                          memfs_error *err)
{
    _cleanup_(asking_dispose) asking a = ASKING_INIT;
    bool is_all = q->agent_id.len == 0;
    memfs_code rc = asking_make(&a, q, err);

    if (rc < 0)
        return rc;
    a.key = KEY_SEARCH_PAST + is_all;
    a.sql = PAST_SEARCHES[is_all];
    a.pass = pass_version;
    a.fn = &fn;
    a.ctx = ctx;
    return ask(base, &a, err);
}

memfs_code pg_versions(cache *base, memfs_str agent_id, memfs_str path, int64_t before,
                       int64_t limit, version_row_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(asking_dispose) asking a = ASKING_INIT;

    pg_arg_text(&a.args, agent_id);
    pg_arg_bytes(&a.args, path);
    pg_arg_int(&a.args, before > 0 ? before : INT64_MAX);
    pg_arg_int(&a.args, limit > 0 ? limit : INT64_MAX);
    a.key = KEY_VERSIONS;
    a.sql = "SELECT $1, v.version_no, v.path, v.commit_id, v.blob FROM versions v WHERE "
            "v.agent_no = (SELECT agent_no FROM tips WHERE agent_id = $1) AND v.path = $2 "
            "AND v.version_no < $3 ORDER BY v.version_no DESC LIMIT $4";
    a.pass = pass_version;
    a.fn = &fn;
    a.ctx = ctx;
    return ask(base, &a, err);
}

static memfs_code pass_id(const pg_result *r, int row, const void *fn, void *ctx, memfs_error *err)
{
    return (*(const agent_id_fn *)fn)(pg_col_str(r, row, 0), ctx, err);
}

memfs_code pg_past_behind(cache *base, memfs_str after, int64_t max, agent_id_fn fn, void *ctx,
                          memfs_error *err)
{
    _cleanup_(asking_dispose) asking a = ASKING_INIT;

    pg_arg_int(&a.args, max);
    pg_arg_text(&a.args, after);
    a.key = KEY_BEHIND;
    a.sql = "SELECT agent_id FROM tips WHERE past IS DISTINCT FROM tip AND NOT is_empty "
            "AND agent_id LIKE 'agent-%' AND agent_id > $2 ORDER BY agent_id LIMIT $1";
    a.pass = pass_id;
    a.fn = &fn;
    a.ctx = ctx;
    return ask(base, &a, err);
}

struct past_reading {
    memfs_str agent_id;
    bool is_there;
    memfs_oid past;
};

static memfs_code read_past(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    struct past_reading *x = ctx;
    memfs_code rc;

    pg_arg_text(&args, x->agent_id);
    rc = pg_query(c, KEY_PAST_TIP, "SELECT past FROM tips WHERE agent_id = $1 AND past IS NOT NULL",
                  &args, &r, err);
    x->is_there = rc == MEMFS_OK && r.n_rows > 0;
    return x->is_there ? pg_col_oid(&r, 0, 0, &x->past, err) : rc;
}

memfs_code pg_past_tip(cache *base, memfs_str agent_id, memfs_oid *ret, memfs_error *err)
{
    struct past_reading x = { .agent_id = agent_id };
    memfs_code rc = pg_work(((pg_cache *)base)->db, PG_ONE, read_past, &x, err);

    if (rc == MEMFS_OK && !x.is_there)
        return memfs_fail(err, MEMFS_ENOTFOUND, "agent '%.*s' has no versions yet",
                          (int)agent_id.len, agent_id.ptr);
    *ret = x.past;
    return rc;
}

/* ---- versions are added ---- */

struct adding {
    const past_update *u;
    unsigned n_runs;
};

/* The row of the agent stays locked until all are written: one server adds at a time. */
static memfs_code set_past(pg_conn *c, const past_update *u, int64_t *ret_agent_no,
                           memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    memfs_code rc;

    pg_arg_text(&args, u->agent_id);
    pg_arg_oid(&args, &u->to);
    if (u->from != NULL)
        pg_arg_oid(&args, u->from);
    else
        pg_arg_null(&args, PG_BYTES);
    pg_arg_oid(&args, &u->tip);
    rc = pg_query(c, KEY_PAST_SET,
                  "UPDATE tips SET past = $2 WHERE agent_id = $1 AND ($3 IS NULL OR past = $3) "
                  "AND tip = $4 AND NOT is_empty RETURNING agent_no",
                  &args, &r, err);
    *ret_agent_no = rc == MEMFS_OK && r.n_rows > 0 ? pg_col_int(&r, 0, 0) : 0;
    return rc;
}

static memfs_code drop_versions(pg_conn *c, int64_t agent_no, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;

    pg_arg_int(&args, agent_no);
    return pg_query(c, KEY_PAST_DROP, "DELETE FROM versions WHERE agent_no = $1", &args, &r, err);
}

/* One array a column. */
static void add_columns(pg_args *args, const version_row *rows, size_t n)
{
    int paths = pg_arg_array(args, PG_BYTES, n), commits = pg_arg_array(args, PG_BYTES, n);
    int blobs = pg_arg_array(args, PG_BYTES, n), words = pg_arg_array(args, PG_TEXT, n);

    for (size_t i = 0; i < n; i++) {
        pg_array_add_str(args, paths, rows[i].path);
        pg_array_add_oid(args, commits, &rows[i].commit);
        pg_array_add_oid(args, blobs, &rows[i].blob);
        pg_array_add_str(args, words, rows[i].words);
    }
}

void pg_put_versions(memfs_buf *sql, pg_args *args, const char *agent_no, const char *of,
                     const char *where, const version_row *rows, size_t n)
{
    int first = args->n + 1;

    buf_puts(sql, "INSERT INTO versions(agent_no, path, commit_id, blob, words) SELECT ");
    buf_puts(sql, agent_no);
    buf_puts(sql, ", r.path, r.commit_id, r.blob, CASE r.words WHEN '' THEN ''::tsvector ELSE "
                  "array_to_tsvector(string_to_array('_' || ");
    buf_puts(sql, agent_no);
    buf_puts(sql, " || ' ' || r.words, ' ')) END FROM ");
    buf_puts(sql, of);
    buf_puts(sql, "unnest(");
    for (int i = 0; i < 4; i++)
        pg_put(sql, i > 0 ? ", " : "", first + i);
    buf_puts(sql, ") WITH ORDINALITY r(path, commit_id, blob, words, n)");
    buf_puts(sql, where);
    buf_puts(sql, " ORDER BY r.n");
    add_columns(args, rows, n);
}

/* From `first` on, as many as one statement may have; *ret_end: where the next begins. */
static memfs_code add_versions(pg_conn *c, int64_t agent_no, const version_list *list, size_t first,
                               size_t *ret_end, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    _cleanup_(buf_dispose) memfs_buf sql = MEMFS_BUF_INIT(1 << 12);
    size_t bytes = 0, end = first;

    for (; end < list->n && bytes < MAX_STATEMENT_BYTES; end++)
        bytes += 128 + list->rows[end].path.len + list->rows[end].words.len;
    *ret_end = end;
    pg_arg_int(&args, agent_no);
    pg_put_versions(&sql, &args, "$1", "", "", list->rows + first, end - first);
    return pg_query(c, KEY_VERSIONS_ADD, sql.ptr, &args, &r, err);
}

/* After a COMMIT whose answer was lost the versions are there already, and go up to where they
 * shall. */
static memfs_code judge_past(pg_conn *c, const struct adding *x, memfs_error *err)
{
    struct past_reading now = { .agent_id = x->u->agent_id };
    memfs_code rc = read_past(c, &now, err);

    if (rc < 0 || (x->n_runs > 1 && now.is_there && oid_equal(&now.past, &x->u->to)))
        return rc;
    return memfs_fail(err, MEMFS_ECONFLICT,
                      "the versions of agent '%.*s' were written by somebody else",
                      (int)x->u->agent_id.len, x->u->agent_id.ptr);
}

static memfs_code add_within(pg_conn *c, void *ctx, memfs_error *err)
{
    struct adding *x = ctx;
    int64_t agent_no = 0;
    memfs_code rc;

    x->n_runs++;
    rc = set_past(c, x->u, &agent_no, err);
    if (rc == MEMFS_OK && agent_no == 0)
        return judge_past(c, x, err);
    if (rc == MEMFS_OK && x->u->from == NULL)
        rc = drop_versions(c, agent_no, err);
    for (size_t end = 0; rc == MEMFS_OK && end < x->u->versions.n;)
        rc = add_versions(c, agent_no, &x->u->versions, end, &end, err);
    return rc;
}

memfs_code pg_past_add(cache *base, const past_update *u, memfs_error *err)
{
    struct adding x = { .u = u };

    return pg_work(((pg_cache *)base)->db, PG_WRITE, add_within, &x, err);
}

/* ---- care ---- */

static int compare_words(const void *a, const void *b)
{
    const memfs_str *x = a, *y = b;
    int order = memcmp(x->ptr, y->ptr, x->len < y->len ? x->len : y->len);

    return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

/* Words that are joined by blanks, in another order, as tsvector_to_array gives them. */
static bool are_same_words(memfs_str joined, memfs_str other)
{
    memfs_str *lists[2];
    size_t n[2] = { 0, 0 };
    memfs_str sides[2] = { joined, other };
    bool are_same;

    for (int k = 0; k < 2; k++) {
        memfs_str rest = sides[k], one;

        lists[k] = mem_alloc((sides[k].len / 2 + 2) * sizeof(memfs_str));
        while (str_split(rest, ' ', &one, &rest))
            lists[k][n[k]++] = one;
        lists[k][n[k]++] = rest;
        qsort(lists[k], n[k], sizeof(memfs_str), compare_words);
    }
    are_same = n[0] == n[1];
    for (size_t i = 0; are_same && i < n[0]; i++)
        are_same = str_equal(lists[0][i], lists[1][i]);
    free(lists[0]);
    free(lists[1]);
    return are_same;
}

static memfs_code check_row(const pg_result *r, void *ctx, bool *ret_is_done, memfs_error *err)
{
    const block_row row = { .label = pg_col_str(r, 0, 1),
                            .has_description = !pg_col_is_null(r, 0, 2),
                            .description = pg_col_str(r, 0, 2),
                            .value = pg_col_str(r, 0, 3) };
    word_set *words = ctx;

    *ret_is_done = false;
    word_set_clear(words);
    search_add_scope(words, pg_col_int(r, 0, 0));
    search_words_of(&row, words);
    if (!are_same_words(buf_str(&words->joined), pg_col_str(r, 0, 4)))
        return memfs_fail(err, MEMFS_ECORRUPT, "a block cannot be found by the words that it has");
    return MEMFS_OK;
}

static memfs_code check_within(pg_conn *c, void *ctx, memfs_error *err)
{
    return pg_query_rows(c, KEY_CHECK_ROWS,
                         "SELECT agent_no, label, description, value, "
                         "array_to_string(tsvector_to_array(words), ' ') FROM blocks",
                         NULL, check_row, ctx, err);
}

memfs_code pg_search_check(cache *base, memfs_error *err)
{
    _cleanup_(word_set_dispose) word_set words = WORD_SET_INIT;

    return pg_work(((pg_cache *)base)->db, PG_READ, check_within, &words, err);
}
