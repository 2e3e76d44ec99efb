#include "cache/sqlite_cache.h"

#include <assert.h>

/*
 * Search in the cache in SQLite (search.h).
 *
 * A query of the index is `"_<agent_no>" "word" "beginning" *`, all of which must be there; words
 * are letters and digits of ASCII and bytes beyond it, so nothing in them is of the index's
 * language.  Rows come by their numbers, the latest first, which is the order of the index: a
 * limit ends the reading early.
 */

enum {
    KEY_AGENT = SQLITE_KEY_SEARCH,
    KEY_SEARCH,
    KEY_SEARCH_PAST,
    KEY_VERSIONS,
    KEY_BEHIND,
    KEY_PAST_SET,
    KEY_PAST_MOVE,
    KEY_VERSION_ADD,
    KEY_VERSIONS_DROP,
    KEY_PAST_DROP,
    KEY_CHECK_BLOCKS,
    KEY_CHECK_VERSIONS,
    KEY_CHECK_ROWS,
    KEY_FOLD_BLOCKS,
    KEY_FOLD_VERSIONS,
};

/* ?3 a path, ?4 that of what is in it as a folder, ?5 what comes behind all that */
#define IN_PATH(t) "(?3 = '' OR " t ".path = ?3 OR (" t ".path >= ?4 AND " t ".path < ?5))"

static const char *const TEXTS[] = {
    [KEY_AGENT - SQLITE_KEY_SEARCH] = "SELECT agent_no, past, tip FROM agents WHERE agent_id = ?1",
    [KEY_SEARCH - SQLITE_KEY_SEARCH] =
        "SELECT a.agent_id, b.label, b.path, b.id, b.description, b.blob, b.created_at, "
        "b.updated_at, b.value FROM block_words w CROSS JOIN blocks b ON b.block_no = w.rowid "
        "CROSS JOIN agents a ON a.agent_no = b.agent_no WHERE block_words MATCH ?1 "
        "AND (?2 = 0 OR b.agent_no = ?2) AND " IN_PATH("b") " AND (?6 OR b.hidden = 0) "
                                                            "ORDER BY w.rowid DESC LIMIT ?7",
    [KEY_SEARCH_PAST - SQLITE_KEY_SEARCH] =
        "SELECT a.agent_id, v.version_no, v.path, v.commit_id, v.blob FROM version_words w "
        "CROSS JOIN versions v ON v.version_no = w.rowid "
        "CROSS JOIN agents a ON a.agent_no = v.agent_no WHERE version_words MATCH ?1 "
        "AND (?2 = 0 OR v.agent_no = ?2) AND " IN_PATH("v") " ORDER BY w.rowid DESC LIMIT ?7",
    [KEY_VERSIONS - SQLITE_KEY_SEARCH] =
        "SELECT ?1, v.version_no, v.path, v.commit_id, v.blob FROM versions v WHERE v.agent_no = "
        "(SELECT agent_no FROM agents WHERE agent_id = ?1) AND v.path = ?2 "
        "AND v.version_no < ?3 ORDER BY v.version_no DESC LIMIT ?4",
    [KEY_BEHIND - SQLITE_KEY_SEARCH] =
        ("SELECT agent_id FROM agents WHERE past IS NOT tip AND agent_id GLOB 'agent-*' AND "
         "agent_id > ?2 ORDER BY agent_id LIMIT ?1"),
    [KEY_PAST_SET - SQLITE_KEY_SEARCH] = "UPDATE agents SET past = ?2 WHERE agent_no = ?1",
    [KEY_PAST_MOVE - SQLITE_KEY_SEARCH] =
        "UPDATE agents SET past = ?3 WHERE agent_no = ?1 AND past = ?2 RETURNING agent_no",
    [KEY_VERSION_ADD - SQLITE_KEY_SEARCH] =
        "INSERT INTO versions(agent_no, path, commit_id, blob, words) VALUES(?1, ?2, ?3, ?4, ?5)",
    [KEY_VERSIONS_DROP - SQLITE_KEY_SEARCH] = "DELETE FROM versions WHERE agent_no = ?1",
    [KEY_PAST_DROP - SQLITE_KEY_SEARCH] = "UPDATE agents SET past = NULL WHERE agent_no = ?1",
    [KEY_CHECK_BLOCKS - SQLITE_KEY_SEARCH] =
        "INSERT INTO block_words(block_words, rank) VALUES('integrity-check', 1)",
    [KEY_CHECK_VERSIONS - SQLITE_KEY_SEARCH] =
        "INSERT INTO version_words(version_words, rank) VALUES('integrity-check', 1)",
    [KEY_CHECK_ROWS - SQLITE_KEY_SEARCH] =
        "SELECT agent_no, label, description, value, words FROM blocks",
    [KEY_FOLD_BLOCKS - SQLITE_KEY_SEARCH] =
        "INSERT INTO block_words(block_words) VALUES('optimize')",
    [KEY_FOLD_VERSIONS - SQLITE_KEY_SEARCH] =
        "INSERT INTO version_words(version_words) VALUES('optimize')",
};

const char *sqlite_search_sql(uint64_t key)
{
    assert(key - SQLITE_KEY_SEARCH < ARRAY_LEN(TEXTS));
    return TEXTS[key - SQLITE_KEY_SEARCH];
}

/* ---- asking ---- */

static void put_match(const search_query *q, int64_t agent_no, memfs_buf *out)
{
    if (agent_no != 0)
        buf_printf(out, "\"_%lld\"", (long long)agent_no);
    for (size_t i = 0; i < q->find->n_words; i++) {
        buf_puts(out, out->len > 0 ? " AND \"" : "\"");
        buf_add_str(out, q->find->words[i]);
        buf_puts(out, find_word_is_prefix(q->find, i) ? "\" *" : "\"");
    }
}

/* at stays open, and with it the snapshot, until the caller is done with it. */
static memfs_code find_agent(sqlite_conn *c, memfs_str agent_id, sqlite_query *at,
                             bool *ret_is_known, memfs_error *err)
{
    memfs_code rc = sqlite_query_get(c, KEY_AGENT, at, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(at, 1, agent_id);
    return sqlite_step(at, ret_is_known, err);
}

/* What a query with the parameters of IN_PATH borrows. */
typedef struct asking {
    memfs_buf match, below, behind;
    int64_t agent_no; /* 0: all */
} asking;
#define ASKING_INIT                                                                                \
    {                                                                                              \
        MEMFS_BUF_INIT(1 << 14), MEMFS_BUF_INIT(1 << 16), MEMFS_BUF_INIT(1 << 16), 0               \
    }

static void asking_dispose(asking *a)
{
    buf_dispose(&a->match);
    buf_dispose(&a->below);
    buf_dispose(&a->behind);
}

static memfs_code bind_asking(sqlite_query *s, asking *a, const search_query *q, memfs_error *err)
{
    put_match(q, a->agent_no, &a->match);
    buf_add_str(&a->below, q->path);
    buf_putc(&a->below, '/');
    buf_add_str(&a->behind, q->path);
    buf_putc(&a->behind, '/' + 1);
    sqlite_bind_str(s, 1, buf_str(&a->match));
    sqlite_bind_int(s, 2, a->agent_no);
    sqlite_bind_str(s, 3, q->path);
    sqlite_bind_str(s, 4, buf_str(&a->below));
    sqlite_bind_str(s, 5, buf_str(&a->behind));
    sqlite_bind_int(s, 7, q->limit);
    return buf_check(&a->below, "the path", err);
}

typedef memfs_code (*row_fn)(const sqlite_query *s, const void *fn, void *ctx, memfs_error *err);

static memfs_code pass_rows(sqlite_query *s, row_fn pass, const void *fn, void *ctx,
                            memfs_error *err)
{
    bool is_row = false;
    memfs_code rc;

    for (;;) {
        rc = sqlite_step(s, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        rc = pass(s, fn, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
}

static memfs_code ask(cache *base, uint64_t key, const search_query *q, row_fn pass, const void *fn,
                      void *ctx, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query at = SQLITE_QUERY_INIT;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    _cleanup_(asking_dispose) asking a = ASKING_INIT;
    bool is_known = true;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_cache_db(base), &c, err);
    if (rc == MEMFS_OK && q->agent_id.len > 0)
        rc = find_agent(c, q->agent_id, &at, &is_known, err);
    if (rc < 0 || !is_known)
        return rc;
    a.agent_no = q->agent_id.len > 0 ? sqlite_col_int(&at, 0) : 0;
    rc = sqlite_query_get(c, key, &s, err);
    if (rc == MEMFS_OK)
        rc = bind_asking(&s, &a, q, err);
    if (rc < 0)
        return rc;
    if (key == KEY_SEARCH)
        sqlite_bind_int(&s, 6, q->show_hidden);
    return pass_rows(&s, pass, fn, ctx, err);
}

static memfs_code pass_block(const sqlite_query *s, const void *fn, void *ctx, memfs_error *err)
{
    block_row row = { .agent_id = sqlite_col_str(s, 0),
                      .label = sqlite_col_str(s, 1),
                      .path = sqlite_col_str(s, 2),
                      .id = sqlite_col_str(s, 3),
                      .has_description = !sqlite_col_is_null(s, 4),
                      .description = sqlite_col_str(s, 4),
                      .created_at_us = sqlite_col_int(s, 6),
                      .updated_at_us = sqlite_col_int(s, 7),
                      .value = sqlite_col_str(s, 8) };
    memfs_code rc = sqlite_col_oid(s, 5, &row.blob, err);

    return rc < 0 ? rc : (*(const block_row_fn *)fn)(&row, ctx, err);
}

memfs_code sqlite_search(cache *base, const search_query *q, block_row_fn fn, void *ctx,
                         memfs_error *err)
{
    return ask(base, KEY_SEARCH, q, pass_block, &fn, ctx, err);
}

static memfs_code pass_version(const sqlite_query *s, const void *fn, void *ctx, memfs_error *err)
{
    version_row row = { .agent_id = sqlite_col_str(s, 0),
                        .no = sqlite_col_int(s, 1),
                        .path = sqlite_col_str(s, 2) };
    memfs_code rc = sqlite_col_oid(s, 3, &row.commit, err);

    if (rc == MEMFS_OK)
        rc = sqlite_col_oid(s, 4, &row.blob, err);
    return rc < 0 ? rc : (*(const version_row_fn *)fn)(&row, ctx, err);
}

memfs_code sqlite_search_past(cache *base, const search_query *q, version_row_fn fn, void *ctx,
                              memfs_error *err)
{
    return ask(base, KEY_SEARCH_PAST, q, pass_version, &fn, ctx, err);
}

memfs_code sqlite_versions(cache *base, memfs_str agent_id, memfs_str path, int64_t before,
                           int64_t limit, version_row_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_cache_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_VERSIONS, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, agent_id);
    sqlite_bind_str(&s, 2, path);
    sqlite_bind_int(&s, 3, before > 0 ? before : INT64_MAX);
    sqlite_bind_int(&s, 4, limit > 0 ? limit : -1);
    return pass_rows(&s, pass_version, &fn, ctx, err);
}

memfs_code sqlite_past_tip(cache *base, memfs_str agent_id, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query at = SQLITE_QUERY_INIT;
    bool is_known = false;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_cache_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = find_agent(c, agent_id, &at, &is_known, err);
    if (rc < 0)
        return rc;
    if (!is_known || sqlite_col_is_null(&at, 1))
        return memfs_fail(err, MEMFS_ENOTFOUND, "agent '%.*s' has no versions yet",
                          (int)agent_id.len, agent_id.ptr);
    return sqlite_col_oid(&at, 1, ret, err);
}

static memfs_code pass_id(const sqlite_query *s, const void *fn, void *ctx, memfs_error *err)
{
    return (*(const agent_id_fn *)fn)(sqlite_col_str(s, 0), ctx, err);
}

memfs_code sqlite_past_behind(cache *base, memfs_str after, int64_t max, agent_id_fn fn, void *ctx,
                              memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_cache_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_BEHIND, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_int(&s, 1, max);
    sqlite_bind_str(&s, 2, after);
    return pass_rows(&s, pass_id, &fn, ctx, err);
}

/* ---- versions are added ---- */

static memfs_code check_past(sqlite_conn *c, const past_update *u, int64_t *ret_agent_no,
                             memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query at = SQLITE_QUERY_INIT;
    bool is_known = false, is_there;
    memfs_oid past, tip;
    memfs_code rc;

    rc = find_agent(c, u->agent_id, &at, &is_known, err);
    is_there = rc == MEMFS_OK && is_known && !sqlite_col_is_null(&at, 1);
    if (is_there)
        rc = sqlite_col_oid(&at, 1, &past, err);
    if (rc == MEMFS_OK && is_known)
        rc = sqlite_col_oid(&at, 2, &tip, err);
    if (rc < 0)
        return rc;
    if (!is_known || !oid_equal(&tip, &u->tip) ||
        (u->from != NULL && !(is_there && oid_equal(u->from, &past))))
        return memfs_fail(err, MEMFS_ECONFLICT,
                          "the versions of agent '%.*s' were written by somebody else",
                          (int)u->agent_id.len, u->agent_id.ptr);
    *ret_agent_no = sqlite_col_int(&at, 0);
    return MEMFS_OK;
}

memfs_code sqlite_past_drop(sqlite_conn *c, int64_t agent_no, memfs_error *err)
{
    memfs_code rc = sqlite_run_for_agent(c, KEY_VERSIONS_DROP, agent_no, err);

    return rc < 0 ? rc : sqlite_run_for_agent(c, KEY_PAST_DROP, agent_no, err);
}

static memfs_code set_past(sqlite_conn *c, int64_t agent_no, const memfs_oid *to, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_PAST_SET, &s, err);

    if (rc < 0)
        return rc;
    sqlite_bind_int(&s, 1, agent_no);
    sqlite_bind_oid(&s, 2, to);
    return sqlite_run(&s, err);
}

static memfs_code add_versions(sqlite_conn *c, int64_t agent_no, const version_list *list,
                               memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    _cleanup_(buf_dispose) memfs_buf words = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_code rc = sqlite_query_get(c, KEY_VERSION_ADD, &s, err);

    for (size_t i = 0; rc == MEMFS_OK && i < list->n; i++) {
        const version_row *v = &list->rows[i];

        buf_clear(&words);
        if (v->words.len > 0) {
            buf_printf(&words, "_%lld ", (long long)agent_no);
            buf_add_str(&words, v->words);
        }
        sqlite_bind_int(&s, 1, agent_no);
        sqlite_bind_str(&s, 2, v->path);
        sqlite_bind_oid(&s, 3, &v->commit);
        sqlite_bind_oid(&s, 4, &v->blob);
        sqlite_bind_str(&s, 5, buf_str(&words));
        rc = sqlite_run(&s, err);
        sqlite_query_again(&s);
    }
    return rc;
}

static memfs_code past_add_within(sqlite_conn *c, const past_update *u, memfs_error *err)
{
    int64_t agent_no = 0;
    memfs_code rc = check_past(c, u, &agent_no, err);

    if (rc == MEMFS_OK && u->from == NULL)
        rc = sqlite_past_drop(c, agent_no, err);
    if (rc == MEMFS_OK)
        rc = add_versions(c, agent_no, &u->versions, err);
    return rc < 0 ? rc : set_past(c, agent_no, &u->to, err);
}

static memfs_code move_past(sqlite_conn *c, int64_t agent_no, const cache_update *u,
                            bool *ret_moved, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_PAST_MOVE, &s, err);

    if (rc < 0)
        return rc;
    sqlite_bind_int(&s, 1, agent_no);
    sqlite_bind_oid(&s, 2, u->from);
    sqlite_bind_oid(&s, 3, &u->to);
    return sqlite_step(&s, ret_moved, err);
}

memfs_code sqlite_past_go_on(sqlite_conn *c, int64_t agent_no, const cache_update *u,
                             memfs_error *err)
{
    bool has_moved = false;
    memfs_code rc = move_past(c, agent_no, u, &has_moved, err);

    return rc < 0 || !has_moved ? rc : add_versions(c, agent_no, u->versions, err);
}

/* Whoever pushes goes first: nothing here is waited for but by a search of the past. */
memfs_code sqlite_past_add(cache *base, const past_update *u, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc;

    rc = sqlite_write_begin_behind(sqlite_cache_db(base), &c, err);
    if (rc < 0)
        return rc;
    return sqlite_write_end(c, past_add_within(c, u, err), err);
}

/* ---- care ---- */

static memfs_code run_two(cache *base, uint64_t first, uint64_t second, memfs_error *err)
{
    const uint64_t keys[] = { first, second };
    sqlite_conn *c;
    memfs_code rc;

    rc = sqlite_write_begin(sqlite_cache_db(base), &c, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; rc == MEMFS_OK && i < ARRAY_LEN(keys); i++) {
        _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;

        rc = sqlite_query_get(c, keys[i], &s, err);
        if (rc == MEMFS_OK)
            rc = sqlite_run(&s, err);
    }
    return sqlite_write_end(c, rc, err);
}

memfs_code sqlite_search_scrub(cache *base, memfs_error *err)
{
    return run_two(base, KEY_FOLD_BLOCKS, KEY_FOLD_VERSIONS, err);
}

static memfs_code check_row(const sqlite_query *s, const void *fn, void *ctx, memfs_error *err)
{
    const block_row row = { .label = sqlite_col_str(s, 1),
                            .has_description = !sqlite_col_is_null(s, 2),
                            .description = sqlite_col_str(s, 2),
                            .value = sqlite_col_str(s, 3) };
    word_set *words = ctx;

    (void)fn;
    word_set_clear(words);
    search_add_scope(words, sqlite_col_int(s, 0));
    search_words_of(&row, words);
    if (!str_equal(buf_str(&words->joined), sqlite_col_str(s, 4)))
        return memfs_fail(err, MEMFS_ECORRUPT, "a block cannot be found by the words that it has");
    return MEMFS_OK;
}

memfs_code sqlite_search_check(cache *base, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    _cleanup_(word_set_dispose) word_set words = WORD_SET_INIT;
    memfs_code rc;

    rc = run_two(base, KEY_CHECK_BLOCKS, KEY_CHECK_VERSIONS, err);
    if (rc == MEMFS_OK)
        rc = sqlite_read_begin(sqlite_cache_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_CHECK_ROWS, &s, err);
    return rc < 0 ? rc : pass_rows(&s, check_row, NULL, &words, err);
}
