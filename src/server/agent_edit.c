/*
 * agent_edit.c - an agent's own row is changed, the agent is deleted and brought back (http-api 7).
 *
 * "block_ids" are one commit (sync/block_edit.h), made before the row is: what can be refused comes
 * first, and the same request again does the rest.
 *
 * Whatever tags are told, the agent stays one with git memory: a repository's life hangs on no tag
 * (a client of 0.30 to 0.32 takes the tag away again by itself, client 8.3), and nothing of a
 * repository is renamed or written for one (http-api 7.1).
 *
 * Two changes that come at once follow each other: each is made of the row as it is, and written on
 * the condition that it still is so.  What would change nothing is not written.
 */
#include "server/agents.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/agent_fields.h"
#include "server/author.h"
#include "server/reply.h"
#include "sync/block_edit.h"

#include <stdlib.h>

#define MAX_NAME 256
#define MAX_TAG 512
#define MAX_ROUNDS 20

/* ---- fields of a body ---- */

static bool is_name_byte(unsigned char c, bool is_new)
{
    if (c >= 0x80)
        return true;
    if (!is_new)
        return c >= ' ' && c != 0x7f;
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c != '\0' && strchr("_ '-", c) != NULL);
}

bool agents_read_name(body *b, bool is_new, memfs_str *ret)
{
    memfs_str name;

    if (!body_text(b, "name", BODY_NULLABLE, &name))
        return false;
    if (name.len == 0 || name.len > MAX_NAME) {
        body_refuse(b, "name", "value_error", "Value error, a name has 1 to 256 bytes");
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        if (is_name_byte((unsigned char)name.ptr[i], is_new))
            continue;
        body_refuse(b, "name", "value_error",
                    "Value error, a name has letters, digits, blanks, _, - and ' only");
        return false;
    }
    *ret = name;
    return true;
}

bool agents_read_tags(body *b, memfs_buf *out)
{
    memfs_str tag;
    size_t n;

    if (!body_texts(b, "tags", BODY_NULLABLE, AGENTS_MAX_TAGS, true, out) ||
        !body_list(b, "tags", BODY_NULLABLE, AGENTS_MAX_TAGS, &n))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!body_list_text(b, "tags", i, &tag) || tag.len <= MAX_TAG)
            continue;
        body_refuse(b, "tags", "value_error", "Value error, a tag has at most 512 bytes");
        return false;
    }
    return true;
}

static bool is_among(memfs_str id, const memfs_str *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_equal(ids[i], id))
            return true;
    return false;
}

bool agents_read_block_ids(body *b, memfs_str **ret, size_t *ret_n)
{
    _cleanup_(mem_freep) memfs_str *ids = NULL;
    memfs_str id;
    size_t n_told, n = 0;

    if (!body_list(b, "block_ids", BODY_NULLABLE, AGENTS_MAX_BLOCKS, &n_told))
        return false;
    ids = mem_alloc((n_told + 1) * sizeof(*ids));
    for (size_t i = 0; i < n_told; i++) {
        if (!body_list_text(b, "block_ids", i, &id))
            return false;
        if (!ids_is_prefixed_uuid4(id, "block")) {
            body_refuse(b, "block_ids", "value_error", "Value error, expected 'block-<uuid4>'");
            return false;
        }
        if (!is_among(id, ids, n))
            ids[n++] = id;
    }
    *ret = ids;
    *ret_n = n;
    ids = NULL;
    return true;
}

void agents_send_failure(http_request *rq, memfs_str agent_id, bool is_unclear,
                         const memfs_error *err)
{
    if (is_unclear)
        http_send_detail(rq, 503,
                         "What became of agent %.*s is not known: ask for it before you try again",
                         (int)agent_id.len, agent_id.ptr);
    else if (err->code == MEMFS_ENOTFOUND)
        http_send_detail(rq, 404, "%s", err->msg);
    else if (err->code == MEMFS_EINVALID)
        http_send_detail(rq, 400, "%s", err->msg);
    else
        http_send_error(rq, err);
}

/* ---- PATCH ---- */

typedef struct patch {
    app *app;
    memfs_str id;
    bool has_name, has_tags, has_block_ids;
    memfs_str name;
    memfs_buf tags;
    json_t *told; /* the other fields */
    memfs_str *block_ids;
    size_t n_block_ids;
    /* the row as it is */
    bool is_there;
    int64_t version;
    memfs_buf was_name, was_tags;
    json_t *fields;
} patch;

static void patch_dispose(patch *x)
{
    buf_dispose(&x->tags);
    buf_dispose(&x->was_name);
    buf_dispose(&x->was_tags);
    free(x->block_ids);
    json_decref(x->told);
    json_decref(x->fields);
}

static void read_patch(patch *x, body *b)
{
    x->has_name = agents_read_name(b, false, &x->name);
    x->has_tags = agents_read_tags(b, &x->tags);
    x->has_block_ids = agents_read_block_ids(b, &x->block_ids, &x->n_block_ids);
    agent_fields_read(b, x->told);
}

static memfs_code keep_row(const state_agent *row, void *ctx, memfs_error *err)
{
    patch *x = ctx;

    (void)err;
    x->is_there = true;
    x->version = row->version;
    buf_clear(&x->was_name);
    buf_add_str(&x->was_name, row->name);
    buf_clear(&x->was_tags);
    buf_add_str(&x->was_tags, row->tags_json);
    json_decref(x->fields);
    x->fields = agent_fields_parse(row->fields_json);
    return MEMFS_OK;
}

static bool changes_fields(const patch *x)
{
    const char *key;
    json_t *value;

    json_object_foreach(x->told, key,
                        value) if (!json_equal(json_object_get(x->fields, key), value)) return true;
    return false;
}

static bool changes_anything(const patch *x)
{
    return (x->has_name && !str_equal(x->name, buf_str(&x->was_name))) ||
           (x->has_tags && !str_equal(buf_str(&x->tags), buf_str(&x->was_tags))) ||
           changes_fields(x);
}

static memfs_code write_row(patch *x, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4 * BODY_MAX_BYTES);

    json_object_update(x->fields, x->told);
    agent_fields_text(x->fields, &text);
    return state_agent_put(
        home_state(x->app->home),
        &(state_agent){ .id = x->id,
                        .name = x->has_name ? x->name : buf_str(&x->was_name),
                        .tags_json = buf_str(x->has_tags ? &x->tags : &x->was_tags),
                        .fields_json = buf_str(&text),
                        .is_hidden = agent_fields_are_hidden(x->fields),
                        .updated_at_us = clock_wall_us(),
                        .version = x->version },
        err);
}

static memfs_code apply_patch(patch *x, memfs_error *err)
{
    const agent_query q = { .id = x->id, .with_fields = true };
    memfs_code rc;

    for (int n = 0; n < MAX_ROUNDS; n++) {
        x->is_there = false;
        rc = state_agents(home_state(x->app->home), &q, keep_row, x, err);
        if (rc == MEMFS_OK && !x->is_there)
            return memfs_fail(err, MEMFS_ENOTFOUND, "agent is not in the state");
        if (rc < 0 || !changes_anything(x))
            return rc;
        rc = write_row(x, err);
        if (rc != MEMFS_ECONFLICT)
            return rc;
    }
    return memfs_fail(err, MEMFS_EUNAVAIL, "others changed this agent each time: try again");
}

/* False: it failed, and that was sent. */
static bool set_blocks(http_request *rq, const patch *x)
{
    author room;
    author_reason reason;
    store_identity who = author_of(rq, &room);
    memfs_error err = MEMFS_ERROR_INIT;
    bool is_unclear = false;
    block_by by = { .who = &who,
                    .read_only = author_read_only(rq),
                    .reason = reason.text,
                    .ret_is_unclear = &is_unclear };
    edit_result result;

    if (!x->has_block_ids)
        return true;
    author_reason_of(rq, &reason);
    if (block_edit_set_attached(x->app->home, x->id, x->block_ids, x->n_block_ids,
                                app_own_agent(rq).len > 0, &by, &result, &err) == MEMFS_OK)
        return true;
    agents_send_failure(rq, x->id, is_unclear, &err);
    return false;
}

void agent_update(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(body_dispose) body b = BODY_INIT;
    _cleanup_(patch_dispose) patch x = { .app = ctx,
                                         .id = reply_agent_id(rq, &p),
                                         .tags = MEMFS_BUF_INIT(BODY_MAX_BYTES),
                                         .told = json_object(),
                                         .was_name = MEMFS_BUF_INIT(BODY_MAX_BYTES),
                                         .was_tags = MEMFS_BUF_INIT(BODY_MAX_BYTES) };
    memfs_error err = MEMFS_ERROR_INIT;

    if (body_read(&b, &p, http_body(rq)))
        read_patch(&x, &b);
    if (!reply_params_good(rq, &p) || !reply_agent(rq, ctx, x.id) || !set_blocks(rq, &x))
        return;
    if (apply_patch(&x, &err) == MEMFS_OK)
        agents_answer(rq, ctx, x.id, SHAPE_ALL);
    else
        reply_agent_failed(rq, x.id, &err);
}

/* ---- DELETE, and back ---- */

void agent_delete(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    memfs_str id = reply_agent_id(rq, &p);
    memfs_error err = MEMFS_ERROR_INIT;
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(256);
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    app *self = ctx;

    if (!reply_params_good(rq, &p))
        return;
    if (home_agent_delete(self->home, id, &err) < 0) {
        reply_agent_failed(rq, id, &err);
        return;
    }
    http_note(rq, "deleted");
    buf_printf(&said, "Agent id=%.*s successfully deleted", (int)id.len, id.ptr);
    jw_object(&w);
    jw_key_str(&w, "message", buf_str(&said));
    jw_object_end(&w);
    reply_json(rq);
}

void agent_restore(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    memfs_str id = reply_agent_id(rq, &p);
    memfs_error err = MEMFS_ERROR_INIT;
    app *self = ctx;

    if (!reply_params_good(rq, &p))
        return;
    if (home_agent_restore(self->home, id, &err) < 0)
        reply_agent_failed(rq, id, &err);
    else if (reply_agent(rq, self, id)) /* makes its rows */
        agents_answer(rq, self, id, SHAPE_ALL);
}
