#include "cache/sqlite_schema.h"
#include "cache/sqlite_shape.h"
#include "cache/sqlite_state_int.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * The state in SQLite: agents and births here, banned objects, documents, tokens and mirrors in files of
 * their own.  A commit here is an fsync, so what would change nothing is found out by reading first: it
 * then costs no write lock and waits for nobody's disk.
 */

#define LIST_KEY (UINT64_C(1) << 32)

/* In the order of enum mirror_columns. */
#define MIRROR_COLUMNS                                                                             \
    "agent_id, remote, mark, remote_tip, meta_tip, seen_at, pushed_at, proof_at, proof_tree, "     \
    "answer, detail, n_failures, failed_at, next_try, note, note_text, note_at"
#define BIRTH_SELECT                                                                               \
    "SELECT label, created_at, tags, block_id, char_limit, hidden FROM births WHERE agent_id = ?1"
#define MIRROR_SELECT "SELECT " MIRROR_COLUMNS " FROM mirrors"

static const char *const FIXED[] = {
    [KEY_KNOWN] = "SELECT 1 FROM agents WHERE agent_id = ?1",
    [KEY_AGENT_ADD] = "INSERT OR IGNORE INTO agents(agent_id, org_id, name, tags, created_at, "
                      "updated_at) VALUES(?1, ?2, ?1, '[]', ?3, ?3)",
    [KEY_AGENT_COUNT] = "SELECT count(*) FROM agents",
    [KEY_CURSOR] = "SELECT created_at FROM agents WHERE agent_id = ?1",
    [KEY_BIRTH] = BIRTH_SELECT " AND label = ?2",
    [KEY_BIRTH_ADD] =
        "INSERT OR IGNORE INTO births(agent_id, label, created_at) VALUES(?1, ?2, ?3)",
    [KEY_BIRTHS] = BIRTH_SELECT " ORDER BY label",
    [KEY_BANNED] = "SELECT object FROM banned WHERE agent_id = ?1 ORDER BY object",
    [KEY_BANNED_ADD] = "INSERT OR IGNORE INTO banned(agent_id, object) VALUES(?1, ?2)",
    [KEY_IS_LIST] = "SELECT CASE WHEN json_valid(?1) THEN json_type(?1) = 'array' ELSE 0 END",
    [KEY_MERGED] = "SELECT 1 FROM agents WHERE agent_id = ?1 AND (name <> ifnull(?2, name) "
                   "OR tags <> ifnull(?3, tags) OR created_at > ifnull(?4, created_at) "
                   "OR updated_at < ?5)",
    [KEY_MERGE] = "UPDATE agents SET name = ifnull(?2, name), tags = ifnull(?3, tags), "
                  "created_at = min(created_at, ifnull(?4, created_at)), "
                  "updated_at = max(updated_at, ?5) WHERE agent_id = ?1",
    [KEY_BIRTH_MERGE] =
        "INSERT INTO births(agent_id, label, created_at, tags, block_id, char_limit, hidden) "
        "VALUES(?1, ?2, ?3, ifnull(?4, ''), ifnull(?5, ''), ?6, ?7) "
        "ON CONFLICT(agent_id, label) DO UPDATE SET "
        "created_at = min(created_at, excluded.created_at), tags = ifnull(?4, tags), "
        "block_id = iif(block_id = '', excluded.block_id, block_id), "
        "char_limit = iif(?4 IS NULL, char_limit, ?6), hidden = iif(?4 IS NULL, hidden, ?7)",
    [KEY_TOKENS] = "SELECT token_id, name, scope, hash, created_at, expires_at, revoked_at "
                   "FROM tokens ORDER BY created_at, token_id",
    [KEY_TOKEN] = "SELECT revoked_at FROM tokens WHERE token_id = ?1",
    [KEY_TOKEN_TAKEN] = "SELECT 1 FROM tokens WHERE token_id = ?1 OR hash = ?2",
    [KEY_TOKEN_ADD] = "INSERT INTO tokens(token_id, name, scope, hash, created_at, expires_at, "
                      "revoked_at) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [KEY_TOKEN_REVOKE] = "UPDATE tokens SET revoked_at = ?2 WHERE token_id = ?1 AND revoked_at = 0",
    [KEY_MIRRORS] = MIRROR_SELECT " ORDER BY agent_id, remote",
    [KEY_MIRRORS_AGENT] = MIRROR_SELECT " WHERE agent_id = ?1 ORDER BY remote",
    [KEY_MIRRORS_REMOTE] = MIRROR_SELECT " WHERE remote = ?2 ORDER BY agent_id",
    [KEY_MIRROR] = MIRROR_SELECT " WHERE agent_id = ?1 AND remote = ?2",
    [KEY_MIRROR_SAME] =
        "SELECT 1 FROM mirrors WHERE agent_id = ?1 AND remote = ?2 AND mark = ?3 "
        "AND remote_tip = ?4 AND meta_tip = ?5 AND seen_at = ?6 AND pushed_at = ?7 "
        "AND proof_at = ?8 AND proof_tree = ?9 AND answer = ?10 AND detail = ?11 "
        "AND n_failures = ?12 AND failed_at = ?13 AND next_try = ?14 AND note = ?15 "
        "AND note_text = ?16 AND note_at = ?17",
    [KEY_MIRROR_PUT] = "INSERT OR REPLACE INTO mirrors(" MIRROR_COLUMNS ") VALUES(?1, ?2, ?3, ?4, "
                       "?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
    [KEY_MIRROR_ANY] = "SELECT 1 FROM mirrors WHERE remote = ?1 LIMIT 1",
    [KEY_MIRROR_FORGET] = "DELETE FROM mirrors WHERE remote = ?1",
    [KEY_BIRTH_PUT] = "INSERT OR REPLACE INTO births(agent_id, label, created_at, tags, block_id, "
                      "char_limit, hidden) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [KEY_BIRTH_DROP] = "DELETE FROM births WHERE agent_id = ?1 AND label = ?2",
    [KEY_DOC] = "SELECT kind, id, body, changed FROM docs WHERE kind = ?1 AND id = ?2",
    [KEY_DOCS] = "SELECT kind, id, body, changed FROM docs "
                 "WHERE kind = ?1 AND changed > ?2 ORDER BY id",
    [KEY_DOC_PUT] = "INSERT OR REPLACE INTO docs(kind, id, body, changed) "
                    "SELECT ?1, ?2, ?3, n FROM doc_marks WHERE kind = ?1",
    [KEY_DOC_DROP] = "DELETE FROM docs WHERE kind = ?1 AND id = ?2",
    [KEY_DOC_COUNT] = "INSERT INTO doc_marks(kind, n) VALUES(?1, 1) "
                      "ON CONFLICT(kind) DO UPDATE SET n = n + 1",
    [KEY_DOC_MARK] = "SELECT n FROM doc_marks WHERE kind = ?1",
};

/* ---- the list of agents: shapes as in sqlite_shape.h ---- */

enum list_bits {
    LIST_ID = 1 << 0,
    LIST_NAME = 1 << 1,
    LIST_LIKE_NAME = 1 << 2,
    LIST_ANY_TAG = 1 << 3,
    LIST_ALL_TAGS = 1 << 4,
    LIST_BEFORE_ASCENDING = 1 << 5,
    LIST_BEFORE_DESCENDING = 1 << 6,
    LIST_AFTER_ASCENDING = 1 << 7,
    LIST_AFTER_DESCENDING = 1 << 8,
    LIST_DESCENDING = 1 << 9,
    LIST_LIMIT = 1 << 10,
};

static void list_sql(uint32_t shape, memfs_buf *out)
{
    static const struct {
        uint32_t bit;
        const char *sql;
    } filters[] = {
        { LIST_ID, " AND agent_id = ?1" },
        { LIST_NAME, " AND name = ?2" },
        { LIST_LIKE_NAME, " AND memfs_contains(?3, name)" },
        { LIST_ANY_TAG, " AND EXISTS(SELECT 1 FROM json_each(agents.tags) t WHERE t.value IN "
                        "(SELECT value FROM json_each(?4)))" },
        { LIST_ALL_TAGS, " AND (SELECT count(DISTINCT t.value) FROM json_each(agents.tags) t WHERE "
                         "t.value IN (SELECT value FROM json_each(?4))) = ?5" },
        { LIST_BEFORE_ASCENDING, " AND (created_at, agent_id) < (?6, ?7)" },
        { LIST_BEFORE_DESCENDING, " AND (created_at, agent_id) > (?6, ?7)" },
        { LIST_AFTER_ASCENDING, " AND (created_at, agent_id) > (?8, ?9)" },
        { LIST_AFTER_DESCENDING, " AND (created_at, agent_id) < (?8, ?9)" },
    };

    buf_puts(out,
             "SELECT agent_id, org_id, name, tags, created_at, updated_at FROM agents WHERE 1");
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        if ((shape & filters[i].bit) != 0)
            buf_puts(out, filters[i].sql);
    }
    buf_puts(out, (shape & LIST_DESCENDING) != 0 ? " ORDER BY created_at DESC, agent_id DESC"
                                                 : " ORDER BY created_at, agent_id");
    if ((shape & LIST_LIMIT) != 0)
        buf_puts(out, " LIMIT ?10");
}

static uint32_t list_shape(const agent_query *q, bool has_before, bool has_after)
{
    uint32_t shape = 0;

    shape |= q->id.len > 0 ? LIST_ID : 0;
    shape |= q->name.len > 0 ? LIST_NAME : 0;
    shape |= q->query_text.len > 0 ? LIST_LIKE_NAME : 0;
    if (q->n_tags > 0)
        shape |= q->match_all_tags ? LIST_ALL_TAGS : LIST_ANY_TAG;
    if (has_before)
        shape |= q->descending ? LIST_BEFORE_DESCENDING : LIST_BEFORE_ASCENDING;
    if (has_after)
        shape |= q->descending ? LIST_AFTER_DESCENDING : LIST_AFTER_ASCENDING;
    shape |= q->descending ? LIST_DESCENDING : 0;
    shape |= q->limit > 0 ? LIST_LIMIT : 0;
    return shape;
}

static void sql(uint64_t key, memfs_buf *out)
{
    if ((key & LIST_KEY) != 0)
        list_sql((uint32_t)key, out);
    else
        buf_puts(out, FIXED[key]);
}

static const sqlite_spec SPEC = {
    .what = "state",
    .file = "state.db",
    .application_id = 0x6d667373, /* "mfss" */
    .migrations = SQLITE_STATE_MIGRATIONS,
    .is_durable = true,
    .is_disposable = false,
    .remedy =
        ": nothing was changed; stop memfs, keep a copy of state.db with its -wal and -shm, and "
        "bring state.db back from a backup (memfs restore)",
    .sql = sql,
};

sqlite_db *sqlite_state_db(state *s)
{
    return ((sqlite_state *)s)->db;
}

static memfs_code find_cursor(sqlite_conn *c, memfs_str id, bool *ret_is_set, int64_t *ret_created,
                              memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc;

    *ret_is_set = false;
    if (id.len == 0)
        return MEMFS_OK;
    rc = sqlite_query_get(c, KEY_CURSOR, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, id);
    rc = sqlite_step(&s, ret_is_set, err);
    if (rc == MEMFS_OK && *ret_is_set)
        *ret_created = sqlite_col_int(&s, 0);
    return rc;
}

static memfs_code pass_agents(sqlite_query *s, state_agent_fn fn, void *ctx, memfs_error *err)
{
    bool is_row = false;
    memfs_code rc;

    for (;;) {
        rc = sqlite_step(s, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        state_agent agent = {
            .id = sqlite_col_str(s, 0),
            .org_id = sqlite_col_str(s, 1),
            .name = sqlite_col_str(s, 2),
            .tags_json = sqlite_col_str(s, 3),
            .created_at_us = sqlite_col_int(s, 4),
            .updated_at_us = sqlite_col_int(s, 5),
        };
        rc = fn(&agent, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
}

static void bind_list(sqlite_query *s, uint32_t shape, const agent_query *q,
                      const like_pattern *pattern, const memfs_buf *tags)
{
    if (shape & LIST_ID)
        sqlite_bind_str(s, 1, q->id);
    if (shape & LIST_NAME)
        sqlite_bind_str(s, 2, q->name);
    if (shape & LIST_LIKE_NAME)
        sqlite_bind_like(s, 3, pattern);
    if (shape & (LIST_ANY_TAG | LIST_ALL_TAGS))
        sqlite_bind_str(s, 4, buf_str(tags));
    if (shape & LIST_ALL_TAGS)
        sqlite_bind_int(s, 5, (int64_t)q->n_tags);
    if (shape & LIST_LIMIT)
        sqlite_bind_int(s, 10, q->limit);
}

static void bind_list_cursor(sqlite_query *s, int first, int64_t created_at_us, memfs_str id)
{
    sqlite_bind_int(s, first, created_at_us);
    sqlite_bind_str(s, first + 1, id);
}

static memfs_code read_agents(sqlite_conn *c, const agent_query *q, const like_pattern *pattern,
                              const memfs_buf *tags, state_agent_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    int64_t before_us = 0, after_us = 0;
    bool has_before = false, has_after = false;
    uint32_t shape;
    memfs_code rc;

    rc = find_cursor(c, q->before, &has_before, &before_us, err);
    if (rc == MEMFS_OK)
        rc = find_cursor(c, q->after, &has_after, &after_us, err);
    if (rc < 0)
        return rc;
    shape = list_shape(q, has_before, has_after);
    rc = sqlite_query_get(c, LIST_KEY | shape, &s, err);
    if (rc < 0)
        return rc;
    bind_list(&s, shape, q, pattern, tags);
    if (has_before)
        bind_list_cursor(&s, 6, before_us, q->before);
    if (has_after)
        bind_list_cursor(&s, 8, after_us, q->after);
    return pass_agents(&s, fn, ctx, err);
}

static memfs_code agents(state *base, const agent_query *q, state_agent_fn fn, void *ctx,
                         memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(buf_dispose) memfs_buf tags = MEMFS_BUF_INIT(1 << 20);
    like_pattern pattern;
    memfs_code rc;

    rc = like_compile(q->query_text, &pattern, err);
    if (rc < 0)
        return rc;
    shape_tags(q->tags, q->n_tags, &tags);
    rc = buf_check(&tags, "the list of tags", err);
    if (rc == MEMFS_OK)
        rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    return rc < 0 ? rc : read_agents(c, q, &pattern, &tags, fn, ctx, err);
}

static memfs_code agent_count(state *base, int64_t *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc;
    bool is_row = false;

    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_AGENT_COUNT, &s, err);
    if (rc == MEMFS_OK)
        rc = sqlite_step(&s, &is_row, err);
    if (rc == MEMFS_OK)
        *ret = sqlite_col_int(&s, 0);
    return rc;
}

static memfs_code agent_known(state *base, memfs_str id, bool *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_KNOWN, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, id);
    return sqlite_step(&s, ret, err);
}

/* ---- changing ---- */

static memfs_code agent_add_within(sqlite_conn *c, memfs_str id, memfs_str org_id, int64_t now_us,
                                   memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_AGENT_ADD, &s, err);

    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, id);
    sqlite_bind_str(&s, 2, org_id);
    sqlite_bind_int(&s, 3, now_us);
    return sqlite_run(&s, err);
}

static memfs_code agent_add(state *base, memfs_str id, memfs_str org_id, int64_t now_us,
                            memfs_error *err)
{
    bool is_known = false;
    sqlite_conn *c;
    memfs_code rc;

    rc = agent_known(base, id, &is_known, err);
    if (rc < 0 || is_known)
        return rc;
    rc = sqlite_write_begin(sqlite_state_db(base), &c, err);
    if (rc < 0)
        return rc;
    return sqlite_write_end(c, agent_add_within(c, id, org_id, now_us, err), err);
}

static memfs_code all_born(sqlite_db *db, memfs_str agent_id, const memfs_str *labels, size_t n,
                           bool *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc;

    *ret = true;
    rc = sqlite_read_begin(db, &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_BIRTH, &s, err);
    for (size_t i = 0; rc == MEMFS_OK && *ret && i < n; i++) {
        sqlite_bind_str(&s, 1, agent_id);
        sqlite_bind_str(&s, 2, labels[i]);
        rc = sqlite_step(&s, ret, err);
        sqlite_query_again(&s);
    }
    return rc;
}

static memfs_code births_add_within(sqlite_conn *c, memfs_str agent_id, const memfs_str *labels,
                                    size_t n, int64_t now_us, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_BIRTH_ADD, &s, err);

    for (size_t i = 0; rc == MEMFS_OK && i < n; i++) {
        sqlite_bind_str(&s, 1, agent_id);
        sqlite_bind_str(&s, 2, labels[i]);
        sqlite_bind_int(&s, 3, now_us);
        rc = sqlite_run(&s, err);
        sqlite_query_again(&s);
    }
    return rc;
}

static memfs_code births_add(state *base, memfs_str agent_id, const memfs_str *labels, size_t n,
                             int64_t now_us, memfs_error *err)
{
    bool is_nothing_new = false;
    sqlite_conn *c;
    memfs_code rc;

    rc = all_born(sqlite_state_db(base), agent_id, labels, n, &is_nothing_new, err);
    if (rc < 0 || is_nothing_new)
        return rc;
    rc = sqlite_write_begin(sqlite_state_db(base), &c, err);
    if (rc < 0)
        return rc;
    return sqlite_write_end(c, births_add_within(c, agent_id, labels, n, now_us, err), err);
}

static void read_birth(sqlite_query *s, state_birth *ret)
{
    *ret = (state_birth){ .label = sqlite_col_str(s, 0),
                          .created_at_us = sqlite_col_int(s, 1),
                          .tags_json = sqlite_col_str(s, 2),
                          .block_id = sqlite_col_str(s, 3),
                          .limit = sqlite_col_int(s, 4),
                          .hidden = sqlite_col_int(s, 5) != 0 };
}

static memfs_code births(state *base, memfs_str agent_id, memfs_str label, state_birth_fn fn,
                         void *ctx, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, label.len > 0 ? KEY_BIRTH : KEY_BIRTHS, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, agent_id);
    if (label.len > 0)
        sqlite_bind_str(&s, 2, label);
    for (;;) {
        rc = sqlite_step(&s, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        state_birth birth;

        read_birth(&s, &birth);
        rc = fn(&birth, ctx, err);
        if (rc != MEMFS_OK)
            return rc;
    }
}

/* ---- attributes that came from elsewhere ---- */

static memfs_code check_tags(sqlite_conn *c, memfs_str tags_json, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc;

    if (tags_json.len == 0)
        return MEMFS_OK;
    rc = sqlite_query_get(c, KEY_IS_LIST, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, tags_json);
    rc = sqlite_step(&s, &is_row, err);
    if (rc < 0 || (is_row && sqlite_col_int(&s, 0) == 1))
        return rc;
    return memfs_fail(err, MEMFS_EINVALID, "the tags of an agent must be a list");
}

static void bind_known(sqlite_query *s, int number, memfs_str text)
{
    if (text.len > 0)
        sqlite_bind_str(s, number, text);
    else
        sqlite_bind_null(s, number);
}

/* What the other side does not say (empty, 0) is left as it is here. */
static void bind_merge(sqlite_query *s, const state_agent *agent)
{
    sqlite_bind_str(s, 1, agent->id);
    bind_known(s, 2, agent->name);
    bind_known(s, 3, agent->tags_json);
    sqlite_bind_null(s, 4);
    if (agent->created_at_us > 0)
        sqlite_bind_int(s, 4, agent->created_at_us);
    sqlite_bind_int(s, 5, agent->updated_at_us);
}

/* Says `birth` anything that the row does not? */
static bool is_birth_news(sqlite_query *s, const state_birth *birth)
{
    state_birth row;

    read_birth(s, &row);
    if (row.created_at_us > birth->created_at_us)
        return true;
    if (row.block_id.len == 0 && birth->block_id.len > 0)
        return true;
    return birth->tags_json.len > 0 &&
           (!str_equal(row.tags_json, birth->tags_json) || row.limit != birth->limit ||
            row.hidden != birth->hidden);
}

static memfs_code new_births(sqlite_conn *c, memfs_str agent_id, const state_birth *births,
                               size_t n, bool *ret, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    bool is_row = false;
    memfs_code rc;

    rc = sqlite_query_get(c, KEY_BIRTH, &s, err);
    for (size_t i = 0; rc == MEMFS_OK && !*ret && i < n; i++) {
        sqlite_bind_str(&s, 1, agent_id);
        sqlite_bind_str(&s, 2, births[i].label);
        rc = sqlite_step(&s, &is_row, err);
        *ret = !is_row || is_birth_news(&s, &births[i]);
        sqlite_query_again(&s);
    }
    return rc;
}

static memfs_code has_news(sqlite_db *db, const state_agent *agent, const state_birth *births,
                           size_t n, bool *ret, memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc;

    rc = sqlite_read_begin(db, &c, err);
    if (rc == MEMFS_OK)
        rc = check_tags(c, agent->tags_json, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_MERGED, &s, err);
    if (rc < 0)
        return rc;
    bind_merge(&s, agent);
    rc = sqlite_step(&s, ret, err);
    return rc < 0 ? rc : new_births(c, agent->id, births, n, ret, err);
}

static memfs_code merge_births(sqlite_conn *c, memfs_str agent_id, const state_birth *births,
                               size_t n, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_BIRTH_MERGE, &s, err);

    for (size_t i = 0; rc == MEMFS_OK && i < n; i++) {
        sqlite_bind_str(&s, 1, agent_id);
        sqlite_bind_str(&s, 2, births[i].label);
        sqlite_bind_int(&s, 3, births[i].created_at_us);
        bind_known(&s, 4, births[i].tags_json);
        bind_known(&s, 5, births[i].block_id);
        sqlite_bind_int(&s, 6, births[i].limit);
        sqlite_bind_int(&s, 7, births[i].hidden);
        rc = sqlite_run(&s, err);
        sqlite_query_again(&s);
    }
    return rc;
}

static memfs_code merge_within(sqlite_conn *c, const state_agent *agent, const state_birth *births,
                               size_t n, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_MERGE, &s, err);

    if (rc < 0)
        return rc;
    bind_merge(&s, agent);
    rc = sqlite_run(&s, err);
    return rc < 0 ? rc : merge_births(c, agent->id, births, n, err);
}

static memfs_code agent_merge(state *base, const state_agent *agent, const state_birth *births,
                              size_t n, memfs_error *err)
{
    bool is_news = false;
    sqlite_conn *c;
    memfs_code rc;

    rc = has_news(sqlite_state_db(base), agent, births, n, &is_news, err);
    if (rc < 0 || !is_news)
        return rc;
    rc = sqlite_write_begin_behind(sqlite_state_db(base), &c, err);
    if (rc < 0)
        return rc;
    return sqlite_write_end(c, merge_within(c, agent, births, n, err), err);
}

/* ---- the file, life cycle ---- */

static memfs_code check(state *base, memfs_error *err)
{
    return sqlite_db_check(sqlite_state_db(base), err);
}

static memfs_code copy(state *base, const char *to, memfs_error *err)
{
    return sqlite_db_copy(sqlite_state_db(base), to, err);
}

static void close_state(state *base)
{
    sqlite_db_close(sqlite_state_db(base));
    free(base);
}

static const state_backend BACKEND = {
    .name = "sqlite",
    .close = close_state,
    .check = check,
    .agents = agents,
    .agent_count = agent_count,
    .agent_known = agent_known,
    .agent_add = agent_add,
    .births_add = births_add,
    .births = births,
    .banned_add = sqlite_banned_add,
    .banned = sqlite_banned,
    .agent_merge = agent_merge,
    .token_add = sqlite_token_add,
    .tokens = sqlite_tokens,
    .token_revoke = sqlite_token_revoke,
    .mirrors = sqlite_mirrors,
    .mirror_put = sqlite_mirror_put,
    .mirror_forget = sqlite_mirror_forget,
    .change = sqlite_change,
    .docs = sqlite_docs,
    .docs_mark = sqlite_docs_mark,
    .copy = copy,
};

memfs_code state_open_sqlite(const char *folder, state **ret, memfs_error *err)
{
    sqlite_state *s = mem_alloc(sizeof(*s));
    bool was_reset;
    memfs_code rc;

    s->base.backend = &BACKEND;
    rc = sqlite_db_open(&SPEC, folder, &s->db, &was_reset, err);
    if (rc < 0) {
        free(s);
        return rc;
    }
    *ret = &s->base;
    return MEMFS_OK;
}
