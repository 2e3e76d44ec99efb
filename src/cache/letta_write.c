/*
 * letta_write.c - blocks into the tables of a Letta server, beside its own writers.
 *
 * Letta's writers lock optimistically: they read a row with its version and write "WHERE id AND
 * version", which counts it up; no row matched means somebody was first.  So here:
 *
 *   1. the agent is there, and its organization is read
 *   2. the tip is where the change starts from
 *   3. the rows that change are locked, in order of their ids, and are as they were seen
 *   4. rows are changed, each with its version; made and attached; detached, and deleted when
 *      nobody has them any more
 *   5. the tip moves
 *
 * Whoever of Letta's waits at a lock of ours finds another version, and tells its caller to try
 * again; a label that Letta inserts beside us fails one of the two on the unique key.  For us both
 * are ECONFLICT, upon which the caller looks again.
 *
 * What follows the rules of Letta's own code (and is no business of the caller): agents.updated_at
 * moves when a block is attached or detached, a row's tags go before it, `_..._by_id` is the
 * default user where that is of the agent's organization.
 */
#include "cache/letta_int.h"

#include "memory/ids.h"

#define MAX_STATEMENT_BYTES (16u << 20)

enum {
    KEY_AGENT = PG_KEYS_LETTA_WRITE,
    KEY_TIP,
    KEY_LOCK,
    KEY_UPDATE,
    KEY_INSERT,
    KEY_TAGS,
    KEY_DETACH,
    KEY_TAGS_GONE,
    KEY_GONE,
    KEY_TOUCH,
    KEY_MOVE,
};

typedef struct writing {
    memfs_str agent_id;
    const memfs_oid *from, *to;
    const letta_change *changes;
    size_t n;
    unsigned n_runs;
    /* of this run */
    memfs_buf org, actor; /* actor empty: nobody */
    size_t n_made, n_gone;
} writing;

static memfs_code fail_changed(const writing *w, memfs_error *err)
{
    return memfs_fail(err, MEMFS_ECONFLICT,
                      "the blocks of agent '%.*s' were changed in Letta meanwhile",
                      (int)w->agent_id.len, w->agent_id.ptr);
}

/*
 * ---- the tips ----
 *
 * With each stands which tables it was written beside.  A restore makes tables anew: of the whole
 * database both, and the tip is as old as the rows; of Letta's tables alone only one of the two
 * numbers fits, and the tip says nothing of the rows (is_torn).
 */

static memfs_code make_tips(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    (void)ctx;
    return pg_exec(c,
                   "SELECT pg_advisory_xact_lock(" PG_LOCK_MIGRATION ");"
                   "CREATE SCHEMA IF NOT EXISTS memfs_letta;"
                   "CREATE TABLE IF NOT EXISTS memfs_letta.tips("
                   "agent_id text PRIMARY KEY, tip bytea NOT NULL);"
                   "ALTER TABLE memfs_letta.tips ADD COLUMN IF NOT EXISTS block_oid oid, "
                   "ADD COLUMN IF NOT EXISTS tips_oid oid",
                   &r, err);
}

static memfs_code has_tips(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    memfs_code rc;

    rc = pg_exec(c,
                 "SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
                 "ON n.oid = c.relnamespace JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid "
                 "WHERE n.nspname = 'memfs_letta' AND c.relname = 'tips' "
                 "AND a.attname = 'tips_oid'",
                 &r, err);
    *(bool *)ctx = rc == MEMFS_OK && r.n_rows > 0;
    return rc;
}

memfs_code letta_make_tips(letta_db *db, memfs_error *err)
{
    bool is_there = false;
    memfs_code rc = pg_work(db->pg, PG_ONE, has_tips, &is_there, err);

    if (rc == MEMFS_OK && !is_there)
        rc = pg_work(db->pg, PG_WRITE, make_tips, NULL, err);
    return rc < 0 ? memfs_context(err, "could not make schema memfs_letta in Letta's database")
                  : rc;
}

static memfs_code move_tip(pg_conn *c, const writing *w, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    memfs_code rc;

    pg_arg_text(&args, w->agent_id);
    pg_arg_oid(&args, w->to);
    if (w->from != NULL)
        rc = pg_query(c, KEY_MOVE,
                      "UPDATE memfs_letta.tips SET tip = $2, "
                      "block_oid = to_regclass('public.block'), "
                      "tips_oid = to_regclass('memfs_letta.tips') WHERE agent_id = $1",
                      &args, &r, err);
    else
        rc = pg_query(c, KEY_MOVE + 1,
                      "INSERT INTO memfs_letta.tips(agent_id, tip, block_oid, tips_oid) "
                      "VALUES($1, $2, to_regclass('public.block'), "
                      "to_regclass('memfs_letta.tips')) ON CONFLICT DO NOTHING",
                      &args, &r, err);
    return rc == MEMFS_OK && r.n_changed != 1 ? fail_changed(w, err) : rc;
}

/* *ret_is_done: a run before this one came through, only its answer was lost. */
static memfs_code check_tip(pg_conn *c, const writing *w, bool *ret_is_done, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    memfs_oid tip;
    memfs_code rc;

    pg_arg_text(&args, w->agent_id);
    rc = pg_query(c, KEY_TIP, "SELECT tip FROM memfs_letta.tips WHERE agent_id = $1 FOR UPDATE",
                  &args, &r, err);
    if (rc == MEMFS_OK && r.n_rows == 0)
        return w->from == NULL ? MEMFS_OK : fail_changed(w, err);
    if (rc == MEMFS_OK)
        rc = pg_col_oid(&r, 0, 0, &tip, err);
    if (rc < 0)
        return rc;
    *ret_is_done =
        w->n_runs > 1 && oid_equal(&tip, w->to) && (w->from == NULL || !oid_equal(w->from, w->to));
    if (*ret_is_done || (w->from != NULL && oid_equal(&tip, w->from)))
        return MEMFS_OK;
    return fail_changed(w, err);
}

/* ---- who, and what is there ---- */

static memfs_code find_agent(pg_conn *c, writing *w, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    memfs_code rc;

    pg_arg_text(&args, w->agent_id);
    pg_arg_text(&args, MEMFS_STR(IDS_DEFAULT_USER));
    rc = pg_query(c, KEY_AGENT,
                  "SELECT a.organization_id, (SELECT u.id FROM public.users u WHERE u.id = $2 "
                  "AND u.organization_id = a.organization_id) FROM public.agents a "
                  "WHERE a.id = $1 AND NOT a.is_deleted FOR KEY SHARE",
                  &args, &r, err);
    if (rc == MEMFS_OK && r.n_rows == 0)
        return memfs_fail(err, MEMFS_ENOTFOUND, "the Letta server has no agent '%.*s'",
                          (int)w->agent_id.len, w->agent_id.ptr);
    if (rc < 0)
        return rc;
    buf_clear(&w->org);
    buf_clear(&w->actor);
    buf_add_str(&w->org, pg_col_str(&r, 0, 0));
    buf_add_str(&w->actor, pg_col_str(&r, 0, 1));
    return rc;
}

static void add_actor(pg_args *args, const writing *w)
{
    if (w->actor.len > 0)
        pg_arg_text(args, buf_str(&w->actor));
    else
        pg_arg_null(args, PG_TEXT);
}

/*
 * Those that are there already, in the order of the locks; as many of them as were seen have the
 * version that was seen.
 */
static memfs_code lock_rows(pg_conn *c, const writing *w, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    size_t n = 0;
    memfs_code rc;
    int at;

    for (size_t i = 0; i < w->n; i++)
        n += w->changes[i].version != 0;
    if (n == 0)
        return MEMFS_OK;
    pg_arg_text(&args, w->agent_id);
    at = pg_arg_array(&args, PG_TEXT, n);
    pg_arg_array(&args, PG_INT, n);
    for (size_t i = 0; i < w->n; i++)
        if (w->changes[i].version != 0) {
            pg_array_add_str(&args, at, w->changes[i].id);
            pg_array_add_int(&args, at + 1, w->changes[i].version);
        }
    rc = pg_query(c, KEY_LOCK,
                  "SELECT FROM unnest($2, $3) r(id, version) JOIN public.block b "
                  "ON b.id = r.id AND b.version = r.version JOIN public.blocks_agents l "
                  "ON l.block_id = b.id AND l.agent_id = $1 ORDER BY b.id FOR UPDATE OF b",
                  &args, &r, err);
    return rc == MEMFS_OK && (size_t)r.n_rows != n ? fail_changed(w, err) : rc;
}

/* ---- rows that change, rows that come ---- */

static bool is_update(const letta_change *c)
{
    return c->version != 0 && !c->is_gone;
}

static bool is_new(const letta_change *c)
{
    return c->version == 0;
}

/* From `first` on, those of a kind that go into one statement; *ret_n of them, up to the end. */
static size_t next_slice(const writing *w, size_t first, bool (*is_one)(const letta_change *),
                         size_t *ret_n)
{
    size_t bytes = 0, i;

    *ret_n = 0;
    for (i = first; i < w->n && bytes < MAX_STATEMENT_BYTES; i++) {
        const letta_change *c = &w->changes[i];

        if (!is_one(c))
            continue;
        bytes += 256 + c->label.len + c->value.len + c->description.len + c->metadata_json.len;
        (*ret_n)++;
    }
    return i;
}

static void add_or(pg_args *a, int at, bool is_set, memfs_str s)
{
    if (is_set)
        pg_array_add_str(a, at, s);
    else
        pg_array_add_null(a, at);
}

/* $1 to $9: id, version, label, like, then one array a field, NULL where it is not set. */
static void add_changes(pg_args *a, const writing *w, size_t first, size_t end, size_t n,
                        bool (*is_one)(const letta_change *))
{
    static const pg_type types[] = { PG_TEXT, PG_INT, PG_TEXT, PG_TEXT, PG_TEXT,
                                     PG_TEXT, PG_INT, PG_BOOL, PG_TEXT };
    int at = a->n;

    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        pg_arg_array(a, types[i], n);
    for (size_t i = first; i < end; i++) {
        const letta_change *c = &w->changes[i];

        if (!is_one(c))
            continue;
        pg_array_add_str(a, at, c->id);
        pg_array_add_int(a, at + 1, c->version);
        pg_array_add_str(a, at + 2, c->label);
        add_or(a, at + 3, c->like_id.len > 0, c->like_id);
        add_or(a, at + 4, c->sets & LETTA_VALUE, c->value);
        add_or(a, at + 5, c->sets & LETTA_DESCRIPTION, c->description);
        if (c->sets & LETTA_LIMIT)
            pg_array_add_int(a, at + 6, c->limit);
        else
            pg_array_add_null(a, at + 6);
        if (c->sets & LETTA_READ_ONLY)
            pg_array_add_bool(a, at + 7, c->read_only);
        else
            pg_array_add_null(a, at + 7);
        add_or(a, at + 8, c->sets & LETTA_METADATA, c->metadata_json);
    }
}

#define CHANGES                                                                                    \
    " FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) r(id, version, label, like_id, value, "      \
    "description, char_limit, read_only, metadata) "

static memfs_code update_rows(pg_conn *c, const writing *w, size_t first, size_t end, size_t n,
                              memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    memfs_code rc;

    add_changes(&args, w, first, end, n, is_update);
    add_actor(&args, w);
    rc = pg_query(c, KEY_UPDATE,
                  "UPDATE public.block b SET value = COALESCE(r.value, b.value), "
                  "description = COALESCE(r.description, b.description), "
                  "\"limit\" = COALESCE(r.char_limit, b.\"limit\"), "
                  "read_only = COALESCE(r.read_only, b.read_only), "
                  "metadata_ = COALESCE(r.metadata::json, b.metadata_::json), "
                  "updated_at = now(), "
                  "_last_updated_by_id = COALESCE($10, b._last_updated_by_id), "
                  "_created_by_id = COALESCE(b._created_by_id, $10), "
                  "version = b.version + 1" CHANGES "WHERE b.id = r.id AND b.version = r.version",
                  &args, &r, err);
    return rc == MEMFS_OK && (size_t)r.n_changed != n ? fail_changed(w, err) : rc;
}

/* An id that another row has already (shared, or taken over by hand) is not ours any more. */
static memfs_code insert_rows(pg_conn *c, const writing *w, size_t first, size_t end, size_t n,
                              memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    memfs_code rc;

    add_changes(&args, w, first, end, n, is_new);
    add_actor(&args, w);
    pg_arg_text(&args, w->agent_id);
    pg_arg_text(&args, buf_str(&w->org));
    rc = pg_query(c, KEY_INSERT,
                  "WITH made AS (INSERT INTO public.block(id, label, value, \"limit\", "
                  "description, read_only, is_template, preserve_on_migration, metadata_, hidden, "
                  "organization_id, _created_by_id, _last_updated_by_id, version) "
                  "SELECT COALESCE((SELECT 'block-' || gen_random_uuid() FROM public.block t "
                  "WHERE t.id = r.id), r.id), r.label, COALESCE(r.value, ''), "
                  "COALESCE(r.char_limit, o.\"limit\", 100000), "
                  "COALESCE(r.description, r.label || ' block'), COALESCE(r.read_only, false), "
                  "false, false, COALESCE(r.metadata, '{}')::json, o.hidden, $12, $10, $10, "
                  "1" CHANGES "LEFT JOIN public.block o ON o.id = r.like_id RETURNING id, label) "
                  "INSERT INTO public.blocks_agents(agent_id, block_id, block_label) "
                  "SELECT $11, id, label FROM made",
                  &args, &r, err);
    return rc == MEMFS_EEXISTS ? fail_changed(w, err) : rc;
}

static memfs_code copy_tags(pg_conn *c, const writing *w, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;
    size_t n = 0;
    int at;

    for (size_t i = 0; i < w->n; i++)
        n += w->changes[i].like_id.len > 0;
    if (n == 0)
        return MEMFS_OK;
    pg_arg_text(&args, w->agent_id);
    at = pg_arg_array(&args, PG_TEXT, n);
    pg_arg_array(&args, PG_TEXT, n);
    for (size_t i = 0; i < w->n; i++)
        if (w->changes[i].like_id.len > 0) {
            pg_array_add_str(&args, at, w->changes[i].label);
            pg_array_add_str(&args, at + 1, w->changes[i].like_id);
        }
    return pg_query(c, KEY_TAGS,
                    "INSERT INTO public.blocks_tags(block_id, tag, organization_id) "
                    "SELECT l.block_id, t.tag, t.organization_id FROM unnest($2, $3) "
                    "r(label, like_id) JOIN public.blocks_agents l ON l.agent_id = $1 "
                    "AND l.block_label = r.label JOIN public.blocks_tags t "
                    "ON t.block_id = r.like_id ON CONFLICT DO NOTHING",
                    &args, &r, err);
}

static memfs_code write_slices(pg_conn *c, writing *w, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    size_t n, end;

    for (size_t at = 0; rc == MEMFS_OK && at < w->n; at = end) {
        end = next_slice(w, at, is_update, &n);
        rc = n > 0 ? update_rows(c, w, at, end, n, err) : MEMFS_OK;
    }
    w->n_made = 0;
    for (size_t at = 0; rc == MEMFS_OK && at < w->n; at = end) {
        end = next_slice(w, at, is_new, &n);
        rc = n > 0 ? insert_rows(c, w, at, end, n, err) : MEMFS_OK;
        w->n_made += n;
    }
    return rc;
}

/* ---- rows that go ---- */

/* Nobody has it: neither an agent nor what else blocks belong to. */
#define IS_ORPHAN(id)                                                                              \
    "NOT EXISTS(SELECT FROM public.blocks_agents o WHERE o.block_id = " id ") "                    \
    "AND NOT EXISTS(SELECT FROM public.blocks_conversations o WHERE o.block_id = " id ") "         \
    "AND NOT EXISTS(SELECT FROM public.groups_blocks o WHERE o.block_id = " id ") "                \
    "AND NOT EXISTS(SELECT FROM public.identities_blocks o WHERE o.block_id = " id ")"

static memfs_code remove_rows(pg_conn *c, writing *w, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT, ids = PG_ARGS_INIT;
    memfs_code rc;
    int at;

    w->n_gone = 0;
    for (size_t i = 0; i < w->n; i++)
        w->n_gone += w->changes[i].is_gone;
    if (w->n_gone == 0)
        return MEMFS_OK;
    pg_arg_array(&ids, PG_TEXT, w->n_gone);
    pg_arg_text(&args, w->agent_id);
    at = pg_arg_array(&args, PG_TEXT, w->n_gone);
    for (size_t i = 0; i < w->n; i++)
        if (w->changes[i].is_gone) {
            pg_array_add_str(&ids, 0, w->changes[i].id);
            pg_array_add_str(&args, at, w->changes[i].id);
        }
    rc = pg_query(c, KEY_DETACH,
                  "DELETE FROM public.blocks_agents WHERE agent_id = $1 AND block_id = ANY($2)",
                  &args, &r, err);
    if (rc == MEMFS_OK)
        rc = pg_query(c, KEY_TAGS_GONE,
                      "DELETE FROM public.blocks_tags t WHERE t.block_id = ANY($1) "
                      "AND " IS_ORPHAN("t.block_id"),
                      &ids, &r, err);
    if (rc == MEMFS_OK)
        rc = pg_query(c, KEY_GONE,
                      "DELETE FROM public.block b WHERE b.id = ANY($1) AND " IS_ORPHAN("b.id"),
                      &ids, &r, err);
    return rc;
}

/* As Letta's own code: who detached is written down, who attached is not. */
static memfs_code touch_agent(pg_conn *c, const writing *w, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    _cleanup_(pg_args_dispose) pg_args args = PG_ARGS_INIT;

    if (w->n_made == 0 && w->n_gone == 0)
        return MEMFS_OK;
    pg_arg_text(&args, w->agent_id);
    if (w->n_gone > 0)
        add_actor(&args, w);
    else
        pg_arg_null(&args, PG_TEXT);
    return pg_query(c, KEY_TOUCH,
                    "UPDATE public.agents SET updated_at = now(), "
                    "_last_updated_by_id = COALESCE($2, _last_updated_by_id) WHERE id = $1",
                    &args, &r, err);
}

/* ---- all of it ---- */

static memfs_code write_all(pg_conn *c, void *ctx, memfs_error *err)
{
    writing *w = ctx;
    bool is_done = false;
    memfs_code rc;

    w->n_runs++;
    rc = find_agent(c, w, err);
    if (rc == MEMFS_OK)
        rc = check_tip(c, w, &is_done, err);
    if (rc < 0 || is_done)
        return rc;
    rc = lock_rows(c, w, err);
    if (rc == MEMFS_OK)
        rc = write_slices(c, w, err);
    if (rc == MEMFS_OK)
        rc = copy_tags(c, w, err);
    if (rc == MEMFS_OK)
        rc = remove_rows(c, w, err);
    if (rc == MEMFS_OK)
        rc = touch_agent(c, w, err);
    return rc < 0 ? rc : move_tip(c, w, err);
}

memfs_code letta_write_rows(letta_db *db, memfs_str agent_id, const memfs_oid *from,
                            const memfs_oid *to, const letta_change *changes, size_t n,
                            memfs_error *err)
{
    writing w = { .agent_id = agent_id,
                  .from = from,
                  .to = to,
                  .changes = changes,
                  .n = n,
                  .org = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                  .actor = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED) };
    memfs_code rc = pg_work(db->pg, PG_WRITE, write_all, &w, err);

    buf_dispose(&w.org);
    buf_dispose(&w.actor);
    return rc;
}
