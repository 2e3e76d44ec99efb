#include "cache/sqlite_state_int.h"

/*
 * Documents, and changes of births and documents in one transaction.
 */

/* ---- reading ---- */

memfs_code sqlite_docs(state *base, memfs_str kind, memfs_str id, int64_t after, state_doc_fn fn,
                       void *ctx, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, id.len > 0 ? KEY_DOC : KEY_DOCS, &q, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&q, 1, kind);
    if (id.len > 0)
        sqlite_bind_str(&q, 2, id);
    else
        sqlite_bind_int(&q, 2, after);
    for (;;) {
        rc = sqlite_step(&q, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        const state_doc doc = { .kind = sqlite_col_str(&q, 0),
                                .id = sqlite_col_str(&q, 1),
                                .body = sqlite_col_str(&q, 2),
                                .changed = sqlite_col_int(&q, 3) };

        if (doc.changed <= after)
            continue;

        rc = fn(&doc, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
}

memfs_code sqlite_docs_mark(state *base, memfs_str kind, int64_t *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc;

    *ret = 0;
    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_DOC_MARK, &q, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&q, 1, kind);
    rc = sqlite_step(&q, &is_row, err);
    if (rc == MEMFS_OK && is_row)
        *ret = sqlite_col_int(&q, 0);
    return rc;
}

/* ---- changing ---- */

static memfs_code put_birth(sqlite_conn *c, memfs_str agent_id, const state_birth *b,
                            memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    bool is_going = b->created_at_us == 0;
    memfs_code rc = sqlite_query_get(c, is_going ? KEY_BIRTH_DROP : KEY_BIRTH_PUT, &q, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(&q, 1, agent_id);
    sqlite_bind_str(&q, 2, b->label);
    if (!is_going) {
        sqlite_bind_int(&q, 3, b->created_at_us);
        sqlite_bind_str(&q, 4, b->tags_json);
        sqlite_bind_str(&q, 5, b->block_id);
        sqlite_bind_int(&q, 6, b->limit);
        sqlite_bind_int(&q, 7, b->hidden);
    }
    return sqlite_run(&q, err);
}

static memfs_code check_doc(sqlite_conn *c, const state_doc *doc, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc;

    if (doc->changed == 0)
        return MEMFS_OK;
    rc = sqlite_query_get(c, KEY_DOC, &q, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&q, 1, doc->kind);
    sqlite_bind_str(&q, 2, doc->id);
    rc = sqlite_step(&q, &is_row, err);
    if (rc < 0 || (is_row && sqlite_col_int(&q, 3) == doc->changed))
        return rc;
    return memfs_fail(err, MEMFS_ECONFLICT, "'%.*s' was changed meanwhile", (int)doc->id.len,
                      doc->id.ptr);
}

static memfs_code put_doc(sqlite_conn *c, const state_doc *doc, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query q = SQLITE_QUERY_INIT;
    _cleanup_(sqlite_query_done) sqlite_query count = SQLITE_QUERY_INIT;
    bool is_going = doc->body.len == 0;
    memfs_code rc = check_doc(c, doc, err);

    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, is_going ? KEY_DOC_DROP : KEY_DOC_PUT, &q, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_DOC_COUNT, &count, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&q, 1, doc->kind);
    sqlite_bind_str(&q, 2, doc->id);
    if (!is_going)
        sqlite_bind_str(&q, 3, doc->body);
    sqlite_bind_str(&count, 1, doc->kind);
    rc = sqlite_run(&count, err);
    return rc < 0 ? rc : sqlite_run(&q, err);
}

static memfs_code change_within(sqlite_conn *c, const state_change *change, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < change->n_births; i++)
        rc = put_birth(c, change->agent_id, &change->births[i], err);
    for (size_t i = 0; rc == MEMFS_OK && i < change->n_docs; i++)
        rc = put_doc(c, &change->docs[i], err);
    return rc;
}

memfs_code sqlite_change(state *base, const state_change *change, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc = sqlite_write_begin(sqlite_state_db(base), &c, err);

    return rc < 0 ? rc : sqlite_write_end(c, change_within(c, change, err), err);
}
