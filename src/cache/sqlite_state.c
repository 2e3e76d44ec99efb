#include "cache/sqlite_schema.h"
#include "cache/sqlite_shape.h"
#include "cache/sqlite_state_int.h"
#include "cache/sqlite_tags.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * The state in SQLite: births here, agents, banned objects, documents, tokens and mirrors in files of
 * their own.  A commit here is an fsync, so what would change nothing is found out by reading first: it
 * then costs no write lock and waits for nobody's disk.
 */

/* In the order of enum mirror_columns. */
#define MIRROR_COLUMNS                                                                             \
    "agent_id, remote, mark, remote_tip, meta_tip, seen_at, pushed_at, proof_at, proof_tree, "     \
    "answer, detail, n_failures, failed_at, next_try, note, note_text, note_at"
#define BIRTH_SELECT                                                                               \
    "SELECT label, created_at, tags, block_id, char_limit, hidden FROM births WHERE agent_id = ?1"
#define MIRROR_SELECT "SELECT " MIRROR_COLUMNS " FROM mirrors"

static const char *const FIXED[] = {
    [KEY_KNOWN] = "SELECT 1 FROM agents WHERE agent_id = ?1 AND deleted_at >= 0",
    [KEY_AGENT_ADD] = "INSERT INTO agents(agent_id, org_id, name, tags, created_at, updated_at) "
                      "VALUES(?1, ?2, ?1, '[]', ?3, ?3) ON CONFLICT(agent_id) DO UPDATE "
                      "SET deleted_at = 0, version = version + 1 WHERE deleted_at < 0",
    [KEY_AGENT_COUNT] = "SELECT (SELECT count(*) FROM agents) - "
                        "(SELECT count(*) FROM agents WHERE deleted_at <> 0) - "
                        "(SELECT count(*) FROM agents WHERE agent_id >= 'repo-' "
                        "AND agent_id < 'repo.' AND deleted_at = 0)",
    [KEY_AGENTS_VERSION] = "SELECT ifnull(sum(version), 0) FROM agents WHERE version > 0",
    [KEY_AGENT_TAGS] = SQLITE_TAG_LISTS("agents", "deleted_at = 0 AND tags <> '[]'"),
    [KEY_CURSOR] = "SELECT created_at, updated_at FROM agents WHERE agent_id = ?1",
    [KEY_AGENT_STANDING] = "SELECT deleted_at, version FROM agents WHERE agent_id = ?1",
    [KEY_AGENT_ANNOUNCE] =
        "INSERT INTO agents(agent_id, org_id, name, tags, created_at, updated_at, hidden, "
        "deleted_at) VALUES(?1, ?2, ?3, ?4, ?5, ?5, ?6, -1) ON CONFLICT(agent_id) DO UPDATE "
        "SET name = ?3, tags = ?4, created_at = ?5, updated_at = ?5, hidden = ?6",
    [KEY_AGENT_PUT] = "UPDATE agents SET name = ?2, tags = ?3, hidden = ?4, "
                      "updated_at = max(updated_at + 1, ?5), version = version + 1 "
                      "WHERE agent_id = ?1",
    [KEY_AGENT_FIELDS] = "INSERT OR REPLACE INTO agent_fields(agent_id, fields) VALUES(?1, ?2)",
    [KEY_AGENT_DELETED] = "UPDATE agents SET deleted_at = ?2, "
                          "updated_at = max(updated_at + 1, ?3), version = version + 1 "
                          "WHERE agent_id = ?1",
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
                  "updated_at = max(updated_at, ?5), version = version + 1 WHERE agent_id = ?1 "
                  "AND (name <> ifnull(?2, name) OR tags <> ifnull(?3, tags) "
                  "OR created_at > ifnull(?4, created_at) OR updated_at < ?5)",
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

static void sql(uint64_t key, memfs_buf *out)
{
    if ((key & SQLITE_AGENTS_KEY) != 0)
        sqlite_agents_sql((uint32_t)key, out);
    else
        buf_puts(out,
                 key < KEY_SHARED_FIRST ? FIXED[key] : SQLITE_SHARED_SQL[key - KEY_SHARED_FIRST]);
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

/* ---- changing ---- */

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

memfs_code sqlite_check_tags(sqlite_conn *c, memfs_str tags_json, memfs_error *err)
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
        rc = sqlite_check_tags(c, agent->tags_json, err);
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

static memfs_code tag_lists(state *base, tag_list_fn fn, void *ctx, memfs_error *err)
{
    return sqlite_tag_lists(sqlite_state_db(base), KEY_AGENT_TAGS, fn, ctx, err);
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
    .agents = sqlite_agents,
    .agent_count = sqlite_agent_count,
    .tag_lists = tag_lists,
    .agents_version = sqlite_agents_version,
    .agent_known = sqlite_agent_known,
    .agent_add = sqlite_agent_add,
    .agent_announce = sqlite_agent_announce,
    .agent_put = sqlite_agent_put,
    .agent_set_deleted = sqlite_agent_set_deleted,
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
    .shared = &SQLITE_SHARED,
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
