#include "cache/pg_state.h"

/*
 * Documents, and changes of births and documents in one transaction (sqlite_state_doc.c).  Run
 * twice a change comes to the same, but for the mark, which counts once more.
 */

/* ---- reading ---- */

#define DOC_SELECT "SELECT kind, id, body, changed FROM docs WHERE kind = $1 AND changed > $2"

memfs_code pg_docs(state *s, memfs_str kind, memfs_str id, int64_t after, state_doc_fn fn,
                   void *ctx, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f = PG_FETCH_INIT(KEY_DOCS, DOC_SELECT " ORDER BY id");
    memfs_code rc;

    pg_arg_text(&f.args, kind);
    pg_arg_int(&f.args, after);
    if (id.len > 0) {
        f.key = KEY_DOC;
        f.sql = DOC_SELECT " AND id = $3";
        pg_arg_text(&f.args, id);
    }
    rc = pg_fetch_run(s, &f, err);
    for (int row = 0; rc == MEMFS_OK && row < f.result.n_rows; row++) {
        const state_doc doc = { .kind = pg_col_str(&f.result, row, 0),
                                .id = pg_col_str(&f.result, row, 1),
                                .body = pg_col_str(&f.result, row, 2),
                                .changed = pg_col_int(&f.result, row, 3) };

        rc = fn(&doc, ctx, err);
    }
    return rc;
}

memfs_code pg_docs_mark(state *s, memfs_str kind, int64_t *ret, memfs_error *err)
{
    _cleanup_(pg_fetch_dispose) pg_fetch f =
        PG_FETCH_INIT(KEY_DOCS_MARK, "SELECT n FROM doc_marks WHERE kind = $1");
    memfs_code rc;

    *ret = 0;
    pg_arg_text(&f.args, kind);
    rc = pg_fetch_run(s, &f, err);
    if (rc == MEMFS_OK && f.result.n_rows > 0)
        *ret = pg_col_int(&f.result, 0, 0);
    return rc;
}

/* ---- births ---- */

static size_t count_births(const state_change *change, bool is_going)
{
    size_t n = 0;

    for (size_t i = 0; i < change->n_births; i++)
        n += (change->births[i].created_at_us == 0) == is_going;
    return n;
}

static memfs_code put_births(pg_conn *c, const state_change *change, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    size_t n = count_births(change, false);
    int labels, times, tags, ids, limits, hiddens;

    if (n == 0)
        return MEMFS_OK;
    pg_arg_text(&args, change->agent_id);
    labels = pg_arg_array(&args, PG_BYTES, n);
    times = pg_arg_array(&args, PG_INT, n);
    tags = pg_arg_array(&args, PG_BYTES, n);
    ids = pg_arg_array(&args, PG_BYTES, n);
    limits = pg_arg_array(&args, PG_INT, n);
    hiddens = pg_arg_array(&args, PG_BOOL, n);
    for (size_t i = 0; i < change->n_births; i++) {
        const state_birth *b = &change->births[i];

        if (b->created_at_us == 0)
            continue;
        pg_array_add_str(&args, labels, b->label);
        pg_array_add_int(&args, times, b->created_at_us);
        pg_array_add_str(&args, tags, b->tags_json);
        pg_array_add_str(&args, ids, b->block_id);
        pg_array_add_int(&args, limits, b->limit);
        pg_array_add_bool(&args, hiddens, b->hidden);
    }
    return pg_query(
        c, KEY_BIRTHS_PUT,
        "INSERT INTO births(agent_id, label, created_at, tags, block_id, char_limit, hidden) "
        "SELECT $1, * FROM unnest($2, $3, $4, $5, $6, $7) "
        "ON CONFLICT(agent_id, label) DO UPDATE SET created_at = excluded.created_at, "
        "tags = excluded.tags, block_id = excluded.block_id, char_limit = excluded.char_limit, "
        "hidden = excluded.hidden",
        &args, &r, err);
}

static memfs_code drop_births(pg_conn *c, const state_change *change, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    size_t n = count_births(change, true);
    int labels;

    if (n == 0)
        return MEMFS_OK;
    pg_arg_text(&args, change->agent_id);
    labels = pg_arg_array(&args, PG_BYTES, n);
    for (size_t i = 0; i < change->n_births; i++)
        if (change->births[i].created_at_us == 0)
            pg_array_add_str(&args, labels, change->births[i].label);
    return pg_query(c, KEY_BIRTHS_DROP,
                    "DELETE FROM births WHERE agent_id = $1 AND label = ANY($2)", &args, &r, err);
}

/* ---- documents ---- */

/* The next mark of the kind; whoever takes it goes before all others that change documents of it. */
static memfs_code next_mark(pg_conn *c, memfs_str kind, int64_t *ret, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    memfs_code rc;

    pg_arg_text(&args, kind);
    rc = pg_query(c, KEY_DOCS_COUNT,
                  "INSERT INTO doc_marks AS m(kind, n) VALUES($1, 1) "
                  "ON CONFLICT(kind) DO UPDATE SET n = m.n + 1 RETURNING n",
                  &args, &r, err);
    if (rc == MEMFS_OK)
        *ret = pg_col_int(&r, 0, 0);
    return rc;
}

static memfs_code check_doc(pg_conn *c, const state_doc *doc, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    memfs_code rc;

    if (doc->changed == 0)
        return MEMFS_OK;
    pg_arg_text(&args, doc->kind);
    pg_arg_text(&args, doc->id);
    pg_arg_int(&args, doc->changed);
    rc = pg_query(c, KEY_DOCS_CHECK,
                  "SELECT 1 FROM docs WHERE kind = $1 AND id = $2 AND changed = $3", &args, &r, err);
    if (rc < 0 || r.n_rows > 0)
        return rc;
    return memfs_fail(err, MEMFS_ECONFLICT, "'%.*s' was changed meanwhile", (int)doc->id.len,
                      doc->id.ptr);
}

static memfs_code put_doc(pg_conn *c, const state_doc *doc, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    int64_t mark = 0;
    memfs_code rc = next_mark(c, doc->kind, &mark, err);

    if (rc == MEMFS_OK)
        rc = check_doc(c, doc, err);
    if (rc < 0)
        return rc;
    pg_arg_text(&args, doc->kind);
    pg_arg_text(&args, doc->id);
    if (doc->body.len == 0)
        return pg_query(c, KEY_DOCS_DROP, "DELETE FROM docs WHERE kind = $1 AND id = $2", &args, &r,
                        err);
    pg_arg_bytes(&args, doc->body);
    pg_arg_int(&args, mark);
    return pg_query(c, KEY_DOCS_PUT,
                    "INSERT INTO docs(kind, id, body, changed) VALUES($1, $2, $3, $4) "
                    "ON CONFLICT(kind, id) DO UPDATE SET body = excluded.body, "
                    "changed = excluded.changed",
                    &args, &r, err);
}

/* Documents in the order they are given, which is the same for all that are changed together. */
static memfs_code change_within(pg_conn *c, void *ctx, memfs_error *err)
{
    const state_change *change = ctx;
    memfs_code rc = put_births(c, change, err);

    if (rc == MEMFS_OK)
        rc = drop_births(c, change, err);
    for (size_t i = 0; rc == MEMFS_OK && i < change->n_docs; i++)
        rc = put_doc(c, &change->docs[i], err);
    return rc;
}

memfs_code pg_change(state *s, const state_change *change, memfs_error *err)
{
    return pg_work(pg_state_db(s), PG_WRITE, change_within, (void *)change, err);
}
