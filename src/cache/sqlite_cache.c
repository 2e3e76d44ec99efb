#include "cache/sqlite_cache.h"
#include "cache/sqlite_int.h"
#include "cache/sqlite_schema.h"
#include "cache/sqlite_shape.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * The cache in SQLite.
 *
 * An agent's tip and rows are read from one snapshot by letting two queries overlap: the query for
 * the tip has found its row and is not ended before the rows are read, and as long as a query is
 * open, its connection stays in its snapshot.  That saves the BEGIN and COMMIT that would cost as
 * much as the reading.
 */

#define SHAPE_KEY (UINT64_C(1) << 32)
#define LARGE_CHANGE 256 /* rows, from which on the writer gets more page memory */

enum {
    KEY_TIP = SQLITE_KEY_FIRST,
    KEY_CURSOR,
    KEY_GENERATION,
    KEY_GENERATION_NEXT,
    KEY_AGENT_SET,
    KEY_AGENT_DROP,
    KEY_ROW_SET,
    KEY_ROW_DROP,
    KEY_ROWS_DROP,
    KEY_RULE,
    KEY_RULE_SET,
};

static const char *const FIXED[] = {
    [KEY_TIP] = "SELECT agent_no, tip, generation, past IS tip FROM agents WHERE agent_id = ?1",
    [KEY_CURSOR] = "SELECT created_at, path FROM blocks WHERE id = ?1 LIMIT 1",
    [KEY_GENERATION] = "SELECT generation FROM meta",
    [KEY_GENERATION_NEXT] = "UPDATE meta SET generation = generation + 1 RETURNING generation",
    [KEY_AGENT_SET] = "INSERT INTO agents(agent_id, tip, generation) VALUES(?1, ?2, ?3) "
                      "ON CONFLICT(agent_id) DO UPDATE SET tip = ?2, generation = ?3 "
                      "RETURNING agent_no",
    [KEY_AGENT_DROP] = "DELETE FROM agents WHERE agent_no = ?1",
    [KEY_ROW_SET] =
        "INSERT INTO blocks(agent_no, path, label, id, description, char_limit, read_only, "
        "metadata, tags, hidden, problem, blob, bytes, created_at, updated_at, value, words) "
        "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) "
        "ON CONFLICT(agent_no, path) DO UPDATE SET label = ?3, id = ?4, description = ?5, "
        "char_limit = ?6, read_only = ?7, metadata = ?8, tags = ?9, hidden = ?10, problem = ?11, "
        "blob = ?12, bytes = ?13, created_at = ?14, updated_at = ?15, value = ?16, words = ?17",
    [KEY_ROW_DROP] = "DELETE FROM blocks WHERE agent_no = ?1 AND path = ?2",
    [KEY_ROWS_DROP] = "DELETE FROM blocks WHERE agent_no = ?1",
    [KEY_RULE] = "SELECT rule FROM meta",
    [KEY_RULE_SET] = "UPDATE meta SET rule = ?1",
};

static void sql(uint64_t key, memfs_buf *out)
{
    if ((key & SHAPE_KEY) != 0)
        shape_sql((uint32_t)key, out);
    else if (key >= SQLITE_KEY_SEARCH)
        buf_puts(out, sqlite_search_sql(key));
    else
        buf_puts(out, FIXED[key]);
}

static const sqlite_spec SPEC = {
    .what = "block cache",
    .file = "cache.db",
    .application_id = 0x6d667363, /* "mfsc" */
    .migrations = SQLITE_CACHE_MIGRATIONS,
    .is_durable = false,
    .has_indexes = true,
    .is_disposable = true,
    .remedy = "",
    .sql = sql,
};

typedef struct sqlite_cache {
    cache base;
    sqlite_db *db;
    memfs_buf rule; /* as last told; guarded by the writing transaction */
} sqlite_cache;

static sqlite_db *db_of(cache *c)
{
    return ((sqlite_cache *)c)->db;
}

sqlite_db *sqlite_cache_db(cache *c)
{
    return db_of(c);
}

/* ---- reading ---- */

/* Patterns and tags of one query: what its parameters borrow. */
typedef struct filters {
    like_pattern *label, *description, *value; /* NULL: not searched */
    memfs_buf tags, any_of;
} filters;
#define FILTERS_INIT { .tags = MEMFS_BUF_INIT(1 << 20), .any_of = MEMFS_BUF_INIT(1 << 20) }

static void filters_dispose(filters *f)
{
    free(f->label);
    free(f->description);
    free(f->value);
    buf_dispose(&f->tags);
    buf_dispose(&f->any_of);
}

static memfs_code compile(memfs_str text, like_pattern **ret, memfs_error *err)
{
    if (text.len == 0)
        return MEMFS_OK;
    *ret = mem_alloc(sizeof(**ret));
    return like_compile(text, *ret, err);
}

static memfs_code filters_make(const block_query *q, filters *f, memfs_error *err)
{
    memfs_code rc;

    rc = compile(q->label_search, &f->label, err);
    if (rc == MEMFS_OK)
        rc = compile(q->description_search, &f->description, err);
    if (rc == MEMFS_OK)
        rc = compile(q->value_search, &f->value, err);
    if (rc < 0)
        return rc;
    if (q->agents != NULL && q->agents->n > 0)
        shape_numbers(q->agents->any_of, q->agents->n, &f->any_of);
    if (q->n_tags > 0)
        shape_tags(q->tags, q->n_tags, &f->tags);
    rc = buf_check(&f->any_of, "the list of numbers", err);
    return rc < 0 ? rc : buf_check(&f->tags, "the list of tags", err);
}

static void bind_agents(sqlite_query *s, const block_agent_count *agents, const filters *f)
{
    sqlite_bind_int(s, PARAM_LEAST_AGENTS, agents->least);
    sqlite_bind_int(s, PARAM_MOST_AGENTS, agents->most);
    sqlite_bind_str(s, PARAM_NOBODY, agents->nobody);
    if (f->any_of.len > 0) /* else it stays NULL */
        sqlite_bind_str(s, PARAM_ANY_OF, buf_str(&f->any_of));
}

static void bind_filters(sqlite_query *s, uint32_t shape, const block_query *q, const filters *f)
{
    if (shape & SHAPE_AGENT)
        sqlite_bind_str(s, PARAM_AGENT, q->agent_id);
    if (shape & SHAPE_LABEL)
        sqlite_bind_str(s, PARAM_LABEL, q->label);
    if (shape & SHAPE_ID)
        sqlite_bind_str(s, PARAM_ID, q->id);
    if (shape & SHAPE_LIKE_LABEL)
        sqlite_bind_like(s, PARAM_LIKE_LABEL, f->label);
    if (shape & SHAPE_LIKE_DESCRIPTION)
        sqlite_bind_like(s, PARAM_LIKE_DESCRIPTION, f->description);
    if (shape & SHAPE_LIKE_VALUE)
        sqlite_bind_like(s, PARAM_LIKE_VALUE, f->value);
    if (shape & (SHAPE_ANY_TAG | SHAPE_ALL_TAGS))
        sqlite_bind_str(s, PARAM_TAGS, buf_str(&f->tags));
    if (shape & SHAPE_ALL_TAGS)
        sqlite_bind_int(s, PARAM_N_TAGS, (int64_t)q->n_tags);
    if (shape & SHAPE_LIMIT)
        sqlite_bind_int(s, PARAM_LIMIT, q->limit);
    if (shape & SHAPE_AGENTS)
        bind_agents(s, q->agents, f);
}

/*
 * Where a cursor stands in the order.  place stays open while its path is bound.  An order by id
 * needs no look: the id is the place.
 */
static memfs_code find_cursor(sqlite_conn *c, uint32_t shape, memfs_str id, sqlite_query *place,
                              bool *ret_is_set, memfs_error *err)
{
    memfs_code rc;

    *ret_is_set = id.len > 0;
    if (id.len == 0 || (shape & SHAPE_BY_ID) != 0)
        return MEMFS_OK;
    rc = sqlite_query_get(c, KEY_CURSOR, place, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(place, 1, id);
    return sqlite_step(place, ret_is_set, err);
}

static void bind_cursor(sqlite_query *s, uint32_t shape, int first, memfs_str id,
                        const sqlite_query *place)
{
    if (shape & SHAPE_BY_PATH)
        sqlite_bind_str(s, first, sqlite_col_str(place, 1));
    else if (!(shape & SHAPE_BY_ID))
        sqlite_bind_int(s, first, sqlite_col_int(place, 0));
    sqlite_bind_str(s, first + 1, id);
}

static memfs_code row_of(const sqlite_query *s, uint32_t shape, const block_query *q,
                         block_row *ret, memfs_error *err)
{
    ret->agent_id = shape & SHAPE_AGENT ? q->agent_id : sqlite_col_str(s, COL_AGENT);
    ret->label = sqlite_col_str(s, COL_LABEL);
    ret->path = sqlite_col_str(s, COL_PATH);
    ret->id = sqlite_col_str(s, COL_ID);
    ret->value = sqlite_col_str(s, COL_VALUE);
    ret->has_description = !sqlite_col_is_null(s, COL_DESCRIPTION);
    ret->description = sqlite_col_str(s, COL_DESCRIPTION);
    ret->limit = sqlite_col_int(s, COL_LIMIT);
    ret->read_only = sqlite_col_int(s, COL_READ_ONLY) != 0;
    ret->metadata_json = sqlite_col_str(s, COL_METADATA);
    ret->tags_json = sqlite_col_str(s, COL_TAGS);
    ret->hidden = sqlite_col_int(s, COL_HIDDEN) != 0;
    ret->problem = sqlite_col_str(s, COL_PROBLEM);
    ret->bytes = sqlite_col_int(s, COL_BYTES);
    ret->created_at_us = sqlite_col_int(s, COL_CREATED_AT);
    ret->updated_at_us = sqlite_col_int(s, COL_UPDATED_AT);
    return sqlite_col_oid(s, COL_BLOB, &ret->blob, err);
}

static memfs_code pass_rows(sqlite_query *s, uint32_t shape, const block_query *q, block_row_fn fn,
                            void *ctx, memfs_error *err)
{
    bool is_row = false;
    block_row row;
    memfs_code rc;

    for (;;) {
        rc = sqlite_step(s, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        rc = row_of(s, shape, q, &row, err);
        if (rc == MEMFS_OK)
            rc = fn(&row, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
}

static memfs_code read_rows(sqlite_conn *c, const block_query *q, const filters *f, block_row_fn fn,
                            void *ctx, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query before = SQLITE_QUERY_INIT;
    _cleanup_(sqlite_query_done) sqlite_query after = SQLITE_QUERY_INIT;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    uint32_t shape = shape_of(q, false);
    bool has_before = false, has_after = false;
    memfs_code rc;

    rc = find_cursor(c, shape, q->before, &before, &has_before, err);
    if (rc == MEMFS_OK)
        rc = find_cursor(c, shape, q->after, &after, &has_after, err);
    if (rc < 0)
        return rc;
    shape |= has_before ? SHAPE_BEFORE : 0;
    shape |= has_after ? SHAPE_AFTER : 0;
    rc = sqlite_query_get(c, SHAPE_KEY | shape, &s, err);
    if (rc < 0)
        return rc;
    bind_filters(&s, shape, q, f);
    if (has_before)
        bind_cursor(&s, shape, PARAM_BEFORE, q->before, &before);
    if (has_after)
        bind_cursor(&s, shape, PARAM_AFTER, q->after, &after);
    return pass_rows(&s, shape, q, fn, ctx, err);
}

/* What the cache knows of an agent. */
typedef struct synced {
    bool is_known;
    int64_t agent_no;
    cache_tip tip;
} synced;

/* at stays open, and with it the snapshot, until the caller is done with it. */
static memfs_code find_tip(sqlite_conn *c, memfs_str agent_id, sqlite_query *at, synced *ret,
                           memfs_error *err)
{
    memfs_code rc;

    rc = sqlite_query_get(c, KEY_TIP, at, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(at, 1, agent_id);
    rc = sqlite_step(at, &ret->is_known, err);
    if (rc < 0 || !ret->is_known)
        return rc;
    ret->agent_no = sqlite_col_int(at, 0);
    ret->tip.generation = sqlite_col_int(at, 2);
    ret->tip.is_followed = sqlite_col_int(at, 3) != 0;
    return sqlite_col_oid(at, 1, &ret->tip.commit, err);
}

static memfs_code known_tip(sqlite_conn *c, memfs_str agent_id, sqlite_query *at, cache_tip *ret,
                            memfs_error *err)
{
    synced found = { 0 };
    memfs_code rc = find_tip(c, agent_id, at, &found, err);

    if (rc < 0)
        return rc;
    if (!found.is_known)
        return memfs_fail(err, MEMFS_ENOTFOUND, "the blocks of agent '%.*s' were never synced",
                          (int)agent_id.len, agent_id.ptr);
    *ret = found.tip;
    return MEMFS_OK;
}

static memfs_code blocks(cache *base, const block_query *q, cache_tip *ret_tip, block_row_fn fn,
                         void *ctx, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query at_tip = SQLITE_QUERY_INIT;
    _cleanup_(filters_dispose) filters f = FILTERS_INIT;
    memfs_code rc;

    rc = filters_make(q, &f, err);
    if (rc == MEMFS_OK)
        rc = sqlite_read_begin(db_of(base), &c, err);
    if (rc == MEMFS_OK && ret_tip != NULL)
        rc = known_tip(c, q->agent_id, &at_tip, ret_tip, err);
    if (rc < 0)
        return rc;
    return read_rows(c, q, &f, fn, ctx, err);
}

static memfs_code read_int(sqlite_query *s, int64_t *ret, memfs_error *err)
{
    bool is_row = false;
    memfs_code rc = sqlite_step(s, &is_row, err);

    if (rc == MEMFS_OK)
        *ret = is_row ? sqlite_col_int(s, 0) : 0;
    return rc;
}

static memfs_code count(cache *base, const block_query *q, int64_t *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    _cleanup_(filters_dispose) filters f = FILTERS_INIT;
    uint32_t shape = shape_of(q, true);
    memfs_code rc;

    rc = filters_make(q, &f, err);
    if (rc == MEMFS_OK)
        rc = sqlite_read_begin(db_of(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, SHAPE_KEY | shape, &s, err);
    if (rc < 0)
        return rc;
    bind_filters(&s, shape, q, &f);
    return read_int(&s, ret, err);
}

static memfs_code tip(cache *base, memfs_str agent_id, cache_tip *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query at_tip = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(db_of(base), &c, err);
    return rc < 0 ? rc : known_tip(c, agent_id, &at_tip, ret, err);
}

static memfs_code generation(cache *base, int64_t *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(db_of(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_GENERATION, &s, err);
    return rc < 0 ? rc : read_int(&s, ret, err);
}

/* ---- changing ---- */

static memfs_code next_generation(sqlite_conn *c, int64_t *ret, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_GENERATION_NEXT, &s, err);

    return rc < 0 ? rc : read_int(&s, ret, err);
}

static memfs_code check_from(const cache_update *u, const synced *now, memfs_error *err)
{
    if (u->from == NULL && (u->replace_all || !now->is_known))
        return MEMFS_OK;
    if (u->from != NULL && now->is_known && oid_equal(u->from, &now->tip.commit))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ECONFLICT,
                      "the blocks of agent '%.*s' were synced by somebody else",
                      (int)u->agent_id.len, u->agent_id.ptr);
}

static memfs_code set_tip(sqlite_conn *c, const cache_update *u, int64_t *ret_agent_no,
                          memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    int64_t next = 0;
    memfs_code rc;

    rc = next_generation(c, &next, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_AGENT_SET, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, u->agent_id);
    sqlite_bind_oid(&s, 2, &u->to);
    sqlite_bind_int(&s, 3, next);
    return read_int(&s, ret_agent_no, err);
}

/* A query whose one parameter is an agent's number. */
static memfs_code run_for_agent(sqlite_conn *c, uint64_t key, int64_t agent_no, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, key, &s, err);

    if (rc < 0)
        return rc;
    sqlite_bind_int(&s, 1, agent_no);
    return sqlite_run(&s, err);
}

static memfs_code drop_rows(sqlite_conn *c, const cache_update *u, int64_t agent_no,
                            memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_ROW_DROP, &s, err);

    for (size_t i = 0; rc == MEMFS_OK && i < u->n_changes; i++) {
        if (u->changes[i].row != NULL)
            continue;
        sqlite_bind_int(&s, 1, agent_no);
        sqlite_bind_str(&s, 2, u->changes[i].path);
        rc = sqlite_run(&s, err);
        sqlite_query_again(&s);
    }
    return rc;
}

static void bind_row(sqlite_query *s, memfs_str path, const block_row *row, word_set *words)
{
    sqlite_bind_str(s, 2, path);
    sqlite_bind_str(s, 3, row->label);
    sqlite_bind_str(s, 4, row->id);
    if (row->has_description)
        sqlite_bind_str(s, 5, row->description);
    else
        sqlite_bind_null(s, 5);
    sqlite_bind_int(s, 6, row->limit);
    sqlite_bind_int(s, 7, row->read_only);
    sqlite_bind_str(s, 8, row->metadata_json.len > 0 ? row->metadata_json : MEMFS_STR("{}"));
    sqlite_bind_str(s, 9, row->tags_json.len > 0 ? row->tags_json : MEMFS_STR("[]"));
    sqlite_bind_int(s, 10, row->hidden);
    sqlite_bind_str(s, 11, row->problem);
    sqlite_bind_oid(s, 12, &row->blob);
    sqlite_bind_int(s, 13, row->bytes);
    sqlite_bind_int(s, 14, row->created_at_us);
    sqlite_bind_int(s, 15, row->updated_at_us);
    sqlite_bind_str(s, 16, row->value);
    search_words_of(row, words);
    sqlite_bind_str(s, 17, buf_str(&words->joined));
}

static memfs_code set_rows(sqlite_conn *c, const cache_update *u, int64_t agent_no,
                           memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    _cleanup_(word_set_dispose) word_set words = WORD_SET_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_ROW_SET, &s, err);

    for (size_t i = 0; rc == MEMFS_OK && i < u->n_changes; i++) {
        if (u->changes[i].row == NULL)
            continue;
        word_set_clear(&words);
        search_add_scope(&words, agent_no);
        sqlite_bind_int(&s, 1, agent_no);
        bind_row(&s, u->changes[i].path, u->changes[i].row, &words);
        rc = sqlite_run(&s, err);
        sqlite_query_again(&s);
    }
    return rc;
}

static memfs_code synced_of(sqlite_conn *c, memfs_str agent_id, synced *ret, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;

    return find_tip(c, agent_id, &s, ret, err);
}

static memfs_code drop_all(sqlite_conn *c, int64_t agent_no, memfs_error *err)
{
    memfs_code rc = run_for_agent(c, KEY_ROWS_DROP, agent_no, err);

    return rc < 0 ? rc : sqlite_past_drop(c, agent_no, err);
}

static memfs_code apply_within(sqlite_conn *c, const cache_update *u, memfs_error *err)
{
    synced now = { 0 };
    int64_t agent_no = 0;
    memfs_code rc;

    rc = synced_of(c, u->agent_id, &now, err);
    if (rc == MEMFS_OK)
        rc = check_from(u, &now, err);
    if (rc < 0)
        return rc;
    if (now.is_known && !u->replace_all && u->n_changes == 0 && oid_equal(&u->to, &now.tip.commit))
        return MEMFS_OK;
    rc = set_tip(c, u, &agent_no, err);
    if (rc == MEMFS_OK && u->replace_all && now.is_known)
        rc = drop_all(c, agent_no, err);
    if (rc == MEMFS_OK)
        rc = drop_rows(c, u, agent_no, err);
    if (rc == MEMFS_OK)
        rc = set_rows(c, u, agent_no, err);
    if (rc == MEMFS_OK && u->versions != NULL)
        rc = sqlite_past_go_on(c, agent_no, u, err);
    return rc;
}

static memfs_code apply(cache *base, const cache_update *u, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc;

    rc = sqlite_write_begin(db_of(base), &c, err);
    if (rc < 0)
        return rc;
    if (u->n_changes >= LARGE_CHANGE)
        sqlite_conn_widen(c);
    rc = apply_within(c, u, err);
    if (u->n_changes >= LARGE_CHANGE)
        sqlite_conn_narrow(c);
    return sqlite_write_end(c, rc, err);
}

static memfs_code forget_within(sqlite_conn *c, memfs_str agent_id, memfs_error *err)
{
    synced now = { 0 };
    int64_t next = 0;
    memfs_code rc = synced_of(c, agent_id, &now, err);

    if (rc < 0 || !now.is_known)
        return rc;
    rc = next_generation(c, &next, err);
    if (rc == MEMFS_OK)
        rc = drop_all(c, now.agent_no, err);
    return rc < 0 ? rc : run_for_agent(c, KEY_AGENT_DROP, now.agent_no, err);
}

static memfs_code forget(cache *base, memfs_str agent_id, memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc;

    rc = sqlite_write_begin(db_of(base), &c, err);
    if (rc < 0)
        return rc;
    return sqlite_write_end(c, forget_within(c, agent_id, err), err);
}

static memfs_code same_rule(sqlite_conn *c, memfs_str rule, bool *ret_is_new, bool *ret_is_same,
                            memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_RULE, &s, err);
    bool is_row = false;

    if (rc == MEMFS_OK)
        rc = sqlite_step(&s, &is_row, err);
    if (rc < 0)
        return rc;
    *ret_is_new = !is_row || sqlite_col_is_null(&s, 0);
    *ret_is_same = !*ret_is_new && str_equal(sqlite_col_str(&s, 0), rule);
    return MEMFS_OK;
}

static memfs_code write_rule(sqlite_conn *c, memfs_str rule, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_RULE_SET, &s, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, rule);
    return sqlite_run(&s, err);
}

static memfs_code rule_within(sqlite_conn *c, memfs_str rule, bool *ret_has_changed,
                              memfs_error *err)
{
    bool is_new = true, is_same = false;
    int64_t next = 0;
    memfs_code rc;

    rc = same_rule(c, rule, &is_new, &is_same, err);
    if (rc < 0 || is_same)
        return rc;
    rc = next_generation(c, &next, err);
    if (rc == MEMFS_OK)
        rc = sqlite_exec(c, SQLITE_CACHE_EMPTY, err);
    if (rc == MEMFS_OK)
        rc = write_rule(c, rule, err);
    *ret_has_changed = rc == MEMFS_OK && !is_new;
    return rc;
}

static memfs_code set_rule(cache *base, memfs_str rule, bool *ret_has_changed, memfs_error *err)
{
    memfs_buf *kept = &((sqlite_cache *)base)->rule;
    sqlite_conn *c;
    memfs_code rc;

    *ret_has_changed = false;
    rc = sqlite_write_begin(db_of(base), &c, err);
    if (rc < 0)
        return rc;
    buf_clear(kept);
    buf_add_str(kept, rule);
    rc = buf_check(kept, "the rule of the block cache", err);
    if (rc == MEMFS_OK)
        rc = rule_within(c, rule, ret_has_changed, err);
    return sqlite_write_end(c, rc, err);
}

/* ---- the file, life cycle ---- */

static bool is_there(cache *base)
{
    return sqlite_db_is_there(db_of(base));
}

static memfs_code check(cache *base, memfs_error *err)
{
    memfs_code rc = sqlite_db_check(db_of(base), err);

    return rc < 0 ? rc : sqlite_search_check(base, err);
}

/* A cache that is begun anew is made under the same rule. */
static memfs_code fill_rule(sqlite_conn *c, void *rule, memfs_error *err)
{
    return write_rule(c, buf_str(rule), err);
}

static memfs_code reset(cache *base, memfs_error *err)
{
    memfs_buf *rule = &((sqlite_cache *)base)->rule;

    return sqlite_db_reset(db_of(base), rule->len > 0 ? fill_rule : NULL, rule, err);
}

static memfs_code scrub(cache *base, memfs_error *err)
{
    memfs_code rc = sqlite_search_scrub(base, err);

    return rc < 0 ? rc : sqlite_db_scrub(db_of(base), err);
}

static void close_cache(cache *base)
{
    sqlite_db_close(db_of(base));
    buf_dispose(&((sqlite_cache *)base)->rule);
    free(base);
}

static const cache_backend BACKEND = {
    .name = "sqlite",
    .close = close_cache,
    .rule = set_rule,
    .is_there = is_there,
    .check = check,
    .reset = reset,
    .blocks = blocks,
    .count = count,
    .tip = tip,
    .generation = generation,
    .apply = apply,
    .forget = forget,
    .empty = forget,
    .scrub = scrub,
    .search = sqlite_search,
    .past_tip = sqlite_past_tip,
    .past_behind = sqlite_past_behind,
    .versions = sqlite_versions,
    .search_past = sqlite_search_past,
    .past_add = sqlite_past_add,
};

memfs_code cache_open_sqlite(const char *folder, cache **ret, bool *ret_was_reset, memfs_error *err)
{
    sqlite_cache *c = mem_alloc(sizeof(*c));
    memfs_code rc;

    c->base.backend = &BACKEND;
    c->rule = (memfs_buf)MEMFS_BUF_INIT(1 << 20);
    rc = sqlite_db_open(&SPEC, folder, &c->db, ret_was_reset, err);
    if (rc < 0) {
        free(c);
        return rc;
    }
    *ret = &c->base;
    return MEMFS_OK;
}
