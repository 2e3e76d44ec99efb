#include "cache/sqlite_cache.h"
#include "cache/sqlite_int.h"
#include "cache/sqlite_schema.h"
#include "cache/sqlite_tags.h"

#include "base/mem.h"

#include <stdlib.h>

/* The cache in SQLite: tips, changes, the file.  Questions for blocks are sqlite_blocks.c. */

#define LARGE_CHANGE 256 /* rows, from which on the writer gets more page memory */

enum {
    KEY_TIP = SQLITE_KEY_FIRST,
    KEY_GENERATION,
    KEY_GENERATION_NEXT,
    KEY_AGENT_SET,
    KEY_AGENT_DROP,
    KEY_ROW_SET,
    KEY_ROW_DROP,
    KEY_ROWS_DROP,
    KEY_RULE,
    KEY_RULE_SET,
    KEY_TAG_LISTS,
};

static const char *const FIXED[] = {
    [KEY_TIP] = "SELECT agent_no, tip, generation, past IS tip FROM agents WHERE agent_id = ?1",
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
    [KEY_TAG_LISTS] = SQLITE_TAG_LISTS("blocks", "tags <> '[]'"),
};

static void sql(uint64_t key, memfs_buf *out)
{
    if (key >= SQLITE_KEY_BLOCKS)
        sqlite_blocks_sql(key, out);
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

/* ---- tips ---- */

/* What the cache knows of an agent. */
typedef struct synced {
    bool is_known;
    int64_t agent_no;
    cache_tip tip;
} synced;

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

memfs_code sqlite_known_tip(sqlite_conn *c, memfs_str agent_id, sqlite_query *at, cache_tip *ret,
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

memfs_code sqlite_read_int(sqlite_query *s, int64_t *ret, memfs_error *err)
{
    bool is_row = false;
    memfs_code rc = sqlite_step(s, &is_row, err);

    if (rc == MEMFS_OK)
        *ret = is_row ? sqlite_col_int(s, 0) : 0;
    return rc;
}

static memfs_code tip(cache *base, memfs_str agent_id, cache_tip *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query at_tip = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(db_of(base), &c, err);
    return rc < 0 ? rc : sqlite_known_tip(c, agent_id, &at_tip, ret, err);
}

static memfs_code generation(cache *base, int64_t *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(db_of(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_GENERATION, &s, err);
    return rc < 0 ? rc : sqlite_read_int(&s, ret, err);
}

static memfs_code tag_lists(cache *base, tag_list_fn fn, void *ctx, memfs_error *err)
{
    return sqlite_tag_lists(db_of(base), KEY_TAG_LISTS, fn, ctx, err);
}

/* ---- changing ---- */

static memfs_code next_generation(sqlite_conn *c, int64_t *ret, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_GENERATION_NEXT, &s, err);

    return rc < 0 ? rc : sqlite_read_int(&s, ret, err);
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
    return sqlite_read_int(&s, ret_agent_no, err);
}

memfs_code sqlite_run_for_agent(sqlite_conn *c, uint64_t key, int64_t agent_no, memfs_error *err)
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
    memfs_code rc = sqlite_run_for_agent(c, KEY_ROWS_DROP, agent_no, err);

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
    return rc < 0 ? rc : sqlite_run_for_agent(c, KEY_AGENT_DROP, now.agent_no, err);
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
    .blocks = sqlite_blocks,
    .count = sqlite_blocks_count,
    .tip = tip,
    .generation = generation,
    .tag_lists = tag_lists,
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
