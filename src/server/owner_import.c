/*
 * owner_import.c - agents of a Letta server move in (sync/movein.h), asked for over the home's own
 * socket.
 *
 *     "database"     postgresql://...: read from Letta's tables; else
 *     "url"          http://...: asked of the server itself, with "token_file"
 *     "agents"       ids; absent: all
 *     "dry_run"      nothing is written
 *     "with_git"     also agents whose memory Letta says is in git already
 *
 * The result counts agents by what became of them; "findings" are those that failed and blocks that
 * were left out.  One agent at a time is in memory.  What was done when the work ends early stays,
 * and the next run goes on from there, as each agent is compared with what it has.
 *
 * One import at a time: two would bring the same, each as a commit of its own.
 */
#include "base/clock.h"
#include "base/escape.h"
#include "base/mem.h"
#include "cache/database.h"
#include "cache/letta_db.h"
#include "letta/roster.h"
#include "memory/ids.h"
#include "remote/credential.h"
#include "server/teller.h"
#include "sync/movein.h"

#include <stdlib.h>

#define PAGE_AGENTS 500
#define GIT_TAG "git-memory-enabled"

typedef struct import {
    app *self;
    teller *t;
    letta_db *db; /* one of the two */
    roster *web;
    bool is_dry, with_git;
    char **shared; /* ids of blocks that several agents have, sorted; web only: db tells itself */
    size_t n_shared, cap_shared;
    size_t done, total;
    size_t n_outcomes[MOVEIN_MERGED + 1];
    size_t n_blocks, n_left_out, n_skipped, n_failed;

    /* the agent at hand */
    char id[IDS_MAX_LEN + 1];
    movein *moving; /* NULL: it is skipped */
    size_t n_foreign;
} import;

static void import_dispose(import *i)
{
    for (size_t at = 0; at < i->n_shared; at++)
        free(i->shared[at]);
    free(i->shared);
    movein_free(i->moving);
    letta_db_close(i->db);
    roster_close(i->web);
}

/* ---- telling ---- */

static void finding(const import *i, const char *kind, memfs_str what, const char *text)
{
    const upkeep_watcher w = teller_watcher(i->t);
    char shown[600];

    w.finding(i->id, kind, escape_text(what, shown, sizeof(shown)), text, w.ctx);
}

static void take_note(const char *kind, memfs_str what, const char *text, void *ctx)
{
    finding(ctx, kind, what, text);
}

static void tell_result(const import *i)
{
    json_writer w = teller_begin(i->t, "result");

    jw_key_int(&w, "agents", (int64_t)i->done);
    jw_key_int(&w, "made", (int64_t)i->n_outcomes[MOVEIN_MADE]);
    jw_key_int(&w, "changed", (int64_t)i->n_outcomes[MOVEIN_CHANGED]);
    jw_key_int(&w, "merged", (int64_t)i->n_outcomes[MOVEIN_MERGED]);
    jw_key_int(&w, "unchanged", (int64_t)i->n_outcomes[MOVEIN_UNCHANGED]);
    jw_key_int(&w, "skipped", (int64_t)i->n_skipped);
    jw_key_int(&w, "failed", (int64_t)i->n_failed);
    jw_key_int(&w, "blocks", (int64_t)i->n_blocks);
    jw_key_int(&w, "left_out", (int64_t)i->n_left_out);
    jw_key_int(&w, "findings", (int64_t)(i->n_failed + i->n_left_out));
    jw_key_bool(&w, "dry_run", i->is_dry);
    teller_end(i->t, &w);
}

/* ---- one agent ---- */

/* Tags, in the form that Letta's tables are read in, too: sorted, compact. */
static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void write_tags(const json_t *tags, memfs_buf *out)
{
    _cleanup_(mem_freep) const char **list =
        mem_realloc(NULL, json_array_size(tags) + 1, sizeof(*list));
    json_writer w = JSON_WRITER_INIT(out);
    const json_t *tag;
    size_t i, n = 0;

    json_array_foreach(tags, i, tag) if (json_is_string(tag)) list[n++] = json_string_value(tag);
    if (n > 0)
        qsort(list, n, sizeof(*list), compare_texts);
    jw_array(&w);
    for (i = 0; i < n; i++)
        jw_text(&w, list[i]);
    jw_array_end(&w);
}

/* In tables mode, an agent that both sides know is kept the same on both by itself. */
static bool is_kept_the_same(const import *i, memfs_str id)
{
    memfs_error ignored;
    bool is_known = false;

    return home_settings(i->self->home)->letta_database != NULL &&
           state_agent_known(home_state(i->self->home), id, &is_known, &ignored) == MEMFS_OK &&
           is_known;
}

static void begin_agent(import *i, const letta_agent *agent)
{
    snprintf(i->id, sizeof(i->id), "%.*s", (int)agent->id.len, agent->id.ptr);
    i->moving = NULL;
    i->n_foreign = 0;
    i->done++;
    if (!ids_is_agent(agent->id)) {
        i->n_failed++;
        finding(i, "failed", MEMFS_STR(""), "this is not the id of an agent");
    } else if (agent->has_git_memory && !i->with_git) {
        i->n_skipped++;
        finding(
            i, "skipped", MEMFS_STR(""),
            "Letta keeps its memory in git: bring its repository, or say --with-git to take what "
            "its tables have");
    } else if (is_kept_the_same(i, agent->id)) {
        i->n_skipped++;
        finding(i, "skipped", MEMFS_STR(""),
                "this server keeps its blocks and Letta's the same (--letta-database)");
    } else {
        i->moving = movein_new(i->self->home, agent);
    }
}

/* What is wrong with one agent is told and ends nothing; a full disk would stop all others, too. */
static memfs_code end_agent(import *i, memfs_error *err)
{
    _cleanup_(movein_freep) movein *m = TAKE_PTR(i->moving);
    const upkeep_watcher w = teller_watcher(i->t);
    movein_result r = { .n_blocks = 0 };
    memfs_code rc;

    if (m == NULL)
        return MEMFS_OK;
    if (i->n_foreign > 0) /* not shown to the agent, but not gone either: they would be removed */
        rc = memfs_fail(err, MEMFS_EINVALID,
                        "%zu of its blocks belong to another organization than it does: give them "
                        "the same in Letta's database, or detach them there",
                        i->n_foreign);
    else
        rc = movein_finish(m, i->is_dry, take_note, i, &r, err);
    if (rc == MEMFS_ENOSPACE)
        return rc;
    i->n_left_out += r.n_left_out;
    if (rc < 0) {
        i->n_failed++;
        finding(i, "failed", MEMFS_STR(""), err->msg);
    } else {
        i->n_outcomes[r.outcome]++;
        i->n_blocks += r.n_blocks;
    }
    if (!w.progress(i->done, i->total > i->done ? i->total : i->done, i->id, w.ctx))
        return memfs_fail(err, MEMFS_EUNAVAIL, "nobody listens any more");
    return MEMFS_OK;
}

/* ---- from the tables ---- */

static memfs_code on_db_agent(const letta_agent *agent, void *ctx, memfs_error *err)
{
    (void)err;
    begin_agent(ctx, agent);
    return MEMFS_OK;
}

static memfs_code on_db_block(const letta_block *block, void *ctx, memfs_error *err)
{
    import *i = ctx;

    (void)err;
    if (i->moving != NULL && block->is_foreign)
        i->n_foreign++;
    else if (i->moving != NULL)
        movein_block(i->moving, block);
    return MEMFS_OK;
}

/* is_listed: it was there a moment ago, so one that is gone is no news. */
static memfs_code import_from_db(import *i, memfs_str id, bool is_listed, memfs_error *err)
{
    memfs_code rc = letta_memory(i->db, id, on_db_agent, on_db_block, i, err);

    if (rc == MEMFS_ENOTFOUND && is_listed)
        return MEMFS_OK;
    return rc < 0 ? rc : end_agent(i, err);
}

typedef struct id_page {
    char ids[PAGE_AGENTS][IDS_MAX_LEN + 1];
    size_t n, n_bad;
    char *last; /* any of them */
} id_page;

static memfs_code keep_id(const letta_agent *agent, void *ctx, memfs_error *err)
{
    id_page *p = ctx;

    (void)err;
    free(p->last);
    p->last = mem_strndup(agent->id.ptr, agent->id.len);
    if (agent->id.len > IDS_MAX_LEN)
        p->n_bad++;
    else
        snprintf(p->ids[p->n++], sizeof(p->ids[0]), "%s", p->last);
    return MEMFS_OK;
}

static void tell_bad_ids(import *i, size_t n)
{
    i->id[0] = '\0';
    for (; n > 0; n--) {
        i->done++;
        i->n_failed++;
        finding(i, "failed", MEMFS_STR(""), "this is not the id of an agent: it is too long");
    }
}

/* By id, a page at a time: what comes in between is met or not, and nothing twice. */
static memfs_code each_db_page(import *i, bool is_counting, memfs_error *err)
{
    _cleanup_(mem_freep) id_page *p = mem_alloc(sizeof(*p));
    memfs_code rc = MEMFS_OK;
    char *after;

    do {
        p->n = p->n_bad = 0;
        after = TAKE_PTR(p->last);
        rc = letta_agents(i->db, str_of(after), PAGE_AGENTS, keep_id, p, err);
        free(after);
        if (rc == MEMFS_OK && !is_counting)
            tell_bad_ids(i, p->n_bad);
        for (size_t at = 0; rc == MEMFS_OK && !is_counting && at < p->n; at++)
            rc = import_from_db(i, str_of(p->ids[at]), true, err);
        i->total += is_counting ? p->n + p->n_bad : 0;
    } while (rc == MEMFS_OK && p->n + p->n_bad == PAGE_AGENTS);
    free(p->last);
    return rc;
}

/* ---- over HTTP ---- */

static memfs_str text_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_string(value) ? str_make(json_string_value(value), json_string_length(value))
                                 : MEMFS_STR("");
}

static int64_t time_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    int64_t at_us;

    return text != NULL && clock_of_iso(text, &at_us) ? at_us : 0;
}

static bool has_tag(const json_t *tags, const char *wanted)
{
    const json_t *tag;
    size_t i;

    json_array_foreach(tags, i, tag) if (json_is_string(tag) &&
                                         strcmp(json_string_value(tag), wanted) == 0) return true;
    return false;
}

static bool is_shared(const import *i, memfs_str id)
{
    const char *key = id.ptr;

    return i->n_shared > 0 && bsearch(&key, i->shared, i->n_shared, sizeof(key), compare_texts);
}

static memfs_code on_web_block(const json_t *object, void *ctx, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf tags = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    const json_t *metadata = json_object_get(object, "metadata");
    _cleanup_(mem_freep) char *metadata_json =
        json_is_object(metadata) ? json_dumps(metadata, JSON_COMPACT) : NULL;
    memfs_str id = text_of(object, "id");
    import *i = ctx;
    letta_block block = {
        .id = id,
        .label = text_of(object, "label"),
        .value = text_of(object, "value"),
        .has_description = json_is_string(json_object_get(object, "description")),
        .description = text_of(object, "description"),
        .limit = json_integer_value(json_object_get(object, "limit")),
        .metadata_json = str_of(metadata_json != NULL ? metadata_json : "{}"),
        .read_only = json_is_true(json_object_get(object, "read_only")),
        .hidden = json_is_true(json_object_get(object, "hidden")),
        .n_agents = is_shared(i, id) ? 2 : 1,
    };

    if (block.label.len == 0 || !json_is_string(json_object_get(object, "value")))
        return memfs_fail(err, MEMFS_EINVALID, "the Letta server lists what is no block");
    write_tags(json_object_get(object, "tags"), &tags);
    block.tags_json = buf_str(&tags);
    movein_block(i->moving, &block);
    return MEMFS_OK;
}

static memfs_code on_web_agent(const json_t *object, void *ctx, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf tags = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    const json_t *list = json_object_get(object, "tags");
    import *i = ctx;
    letta_agent agent = { .id = text_of(object, "id"),
                          .name = text_of(object, "name"),
                          .has_git_memory = has_tag(list, GIT_TAG),
                          .created_at_us = time_of(object, "created_at"),
                          .updated_at_us = time_of(object, "updated_at") };
    memfs_code rc = MEMFS_OK;

    write_tags(list, &tags);
    agent.tags_json = buf_str(&tags);
    begin_agent(i, &agent);
    if (i->moving != NULL)
        rc = roster_blocks(i->web, agent.id, on_web_block, i, err);
    if (rc == MEMFS_ENOTFOUND) { /* deleted since it was listed */
        movein_free(TAKE_PTR(i->moving));
        return MEMFS_OK;
    }
    return rc < 0 ? rc : end_agent(i, err);
}

static memfs_code keep_shared(const json_t *object, void *ctx, memfs_error *err)
{
    import *i = ctx;

    (void)err;
    if (i->n_shared == i->cap_shared) {
        i->cap_shared = i->cap_shared == 0 ? 64 : i->cap_shared * 2;
        i->shared = mem_realloc(i->shared, i->cap_shared, sizeof(*i->shared));
    }
    i->shared[i->n_shared++] = mem_strdup(json_string_value(json_object_get(object, "id")));
    return MEMFS_OK;
}

static memfs_code learn_shared(import *i, memfs_error *err)
{
    memfs_code rc = roster_shared(i->web, keep_shared, i, err);

    if (i->n_shared > 0)
        qsort(i->shared, i->n_shared, sizeof(*i->shared), compare_texts);
    return rc;
}

/* ---- all of it ---- */

static memfs_code open_database(import *i, memfs_str url, memfs_error *err)
{
    memfs_code rc;

    if (!database_is_url(url))
        return memfs_fail(err, MEMFS_EINVALID,
                          "the database is no address of a PostgreSQL database; that looks like "
                          "postgresql://user@host/letta");
    rc = letta_db_open(url.ptr, &i->db, err);
    if (rc == MEMFS_ENOTFOUND) /* who moves in has named another one */
        rc = err->code = MEMFS_EINVALID;
    return rc;
}

static memfs_code open_source(import *i, const json_t *request, memfs_error *err)
{
    memfs_str database, url, token_file;
    _cleanup_(buf_dispose) memfs_buf token = MEMFS_BUF_INIT(64 * 1024);
    memfs_code rc;

    rc = teller_text(request, "database", &database, err);
    if (rc == MEMFS_OK)
        rc = teller_text(request, "url", &url, err);
    if (rc == MEMFS_OK)
        rc = teller_text(request, "token_file", &token_file, err);
    if (rc < 0)
        return rc;
    if ((database.len > 0) == (url.len > 0))
        return memfs_fail(err, MEMFS_EINVALID, "one of 'database' and 'url' is needed");
    if (database.len > 0)
        return open_database(i, database, err);
    if (token_file.len > 0)
        rc = credential_read_private(token_file.ptr, &token, err);
    while (token.len > 0 && strchr("\r\n \t", token.ptr[token.len - 1]) != NULL)
        buf_truncate(&token, token.len - 1);
    if (rc == MEMFS_OK)
        rc = roster_open(url, buf_str(&token), &i->web, err);
    explicit_bzero(token.ptr, token.len);
    return rc;
}

static memfs_code import_some(import *i, const json_t *ids, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    const json_t *item;
    size_t at;

    i->total = json_array_size(ids);
    json_array_foreach(ids, at, item)
    {
        memfs_str id = str_make(json_string_value(item), json_string_length(item));

        if (!ids_is_agent(id))
            return memfs_fail(err, MEMFS_EINVALID, "'agents' has what is not the id of an agent");
        rc = i->db != NULL ? import_from_db(i, id, false, err)
                           : roster_agent(i->web, id, on_web_agent, i, err);
        if (rc == MEMFS_ENOTFOUND)
            return memfs_fail(err, rc, "Letta has no agent '%.*s'", (int)id.len, id.ptr);
        if (rc < 0)
            return rc;
    }
    return rc;
}

static memfs_code import_all(import *i, memfs_error *err)
{
    int64_t n = 0;
    memfs_code rc;

    if (i->db != NULL) {
        rc = each_db_page(i, true, err);
        return rc < 0 ? rc : each_db_page(i, false, err);
    }
    rc = roster_count(i->web, &n, err);
    i->total = n > 0 ? (size_t)n : 0;
    return rc < 0 ? rc : roster_agents(i->web, on_web_agent, i, err);
}

static memfs_code work(import *i, const json_t *request, memfs_error *err)
{
    const json_t *ids = json_object_get(request, "agents");
    memfs_code rc;

    if (ids != NULL && (!json_is_array(ids) || json_array_size(ids) == 0))
        return memfs_fail(err, MEMFS_EINVALID, "'agents' is no list of ids");
    rc = teller_flag(request, "dry_run", &i->is_dry, err);
    if (rc == MEMFS_OK)
        rc = teller_flag(request, "with_git", &i->with_git, err);
    if (rc == MEMFS_OK)
        rc = open_source(i, request, err);
    if (rc == MEMFS_OK && i->web != NULL)
        rc = learn_shared(i, err);
    if (rc < 0)
        return rc;
    rc = ids != NULL ? import_some(i, ids, err) : import_all(i, err);
    if (rc == MEMFS_OK)
        tell_result(i);
    return rc;
}

static memfs_code import_agents(app *self, const json_t *request, teller *t, memfs_error *err)
{
    _cleanup_(import_dispose) import i = { .self = self, .t = t };
    memfs_code rc;

    if (atomic_exchange(&self->is_importing, true))
        return memfs_fail(err, MEMFS_EEXISTS, "another import is under way: wait for its end");
    rc = work(&i, request, err);
    atomic_store(&self->is_importing, false);
    return rc;
}

void owner_import(http_request *rq, void *ctx)
{
    teller_run(rq, ctx, import_agents);
}
