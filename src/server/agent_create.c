/*
 * agent_create.c - POST /v1/agents (http-api 7): an agent with its first blocks, as one commit.
 *
 * The state is told first what the agent will be called (state_agent_announce), then what git does
 * not carry of its blocks, and last the repository is made: with it the agent is there, for
 * everybody at once.  What a crash leaves before that is seen by nobody.
 *
 * With the git tag a label that does not begin with system/ gets that before it, as a stock server
 * does it when it makes a git memory of plain blocks.  Nothing of an agent that is there is ever
 * renamed.
 */
#include "server/agents.h"

#include "base/clock.h"
#include "base/mem.h"
#include "memory/block.h"
#include "memory/label.h"
#include "server/agent_fields.h"
#include "server/author.h"
#include "server/reply.h"
#include "sync/edit.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_BLOCKS 1000
#define MAX_LABEL 1000

typedef struct first_block {
    memfs_buf label, path, content, tags; /* tags: JSON, "" where nothing but the file is told */
    int64_t limit;
    bool hidden;
} first_block;

typedef struct creation {
    http_request *rq;
    app *app;
    char id[IDS_MAX_LEN + 1];
    state_agent row;
    json_t *fields;
    memfs_buf tags, fields_text;
    bool has_git_tag;
    first_block *blocks;
    size_t n;
    author_reason reason;
} creation;

static void creation_dispose(creation *c)
{
    for (size_t i = 0; i < c->n; i++) {
        buf_dispose(&c->blocks[i].label);
        buf_dispose(&c->blocks[i].path);
        buf_dispose(&c->blocks[i].content);
        buf_dispose(&c->blocks[i].tags);
    }
    free(c->blocks);
    json_decref(c->fields);
    buf_dispose(&c->tags);
    buf_dispose(&c->fields_text);
}

/* ---- reading: blocks ---- */

/* A label that some file is: what comes back of its path. */
static bool is_label(memfs_str label, memfs_buf *path)
{
    memfs_str back;

    if (label.len == 0 || label.len > MAX_LABEL)
        return false;
    label_to_path(label, path);
    return label_of_path(buf_str(path), MEMFS_STR(""), &back) && str_equal(back, label);
}

static void read_label(creation *c, body *item, first_block *ret)
{
    memfs_str label = MEMFS_STR("");

    if (!body_text(item, "label", BODY_NEEDED, &label))
        return;
    if (c->has_git_tag && !str_starts_with(label, MEMFS_STR("system/")))
        buf_puts(&ret->label, "system/");
    buf_add_str(&ret->label, label);
    if (!is_label(buf_str(&ret->label), &ret->path))
        body_refuse(item, "label", "value_error", "Value error, no file can have this label");
}

/* Without NUL bytes (http-api 4). */
static void read_value(body *item, memfs_buf *ret)
{
    memfs_str value = MEMFS_STR("");

    (void)body_text(item, "value", BODY_NULLABLE, &value);
    for (size_t i = 0; i < value.len; i++)
        if (value.ptr[i] != '\0')
            buf_putc(ret, value.ptr[i]);
}

static void read_content(body *item, first_block *ret)
{
    _cleanup_(buf_dispose) memfs_buf value = MEMFS_BUF_INIT(BODY_MAX_BYTES);
    _cleanup_(buf_dispose) memfs_buf metadata = MEMFS_BUF_INIT(BODY_MAX_BYTES);
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    memfs_error err = MEMFS_ERROR_INIT;
    block_fields fields = { .read_only = false };

    read_value(item, &value);
    fields.value = buf_str(&value);
    fields.has_description = body_text(item, "description", BODY_NULLABLE, &fields.description);
    (void)body_bool(item, "read_only", BODY_NULLABLE, &fields.read_only);
    if (body_map(item, "metadata", BODY_NULLABLE, &metadata) &&
        yaml_of_json(buf_str(&metadata), doc, &fields.metadata, &err) < 0)
        body_refuse(item, "metadata", "value_error", "Value error, no front matter can hold this");
    block_serialize(&fields, &ret->content);
    if (ret->content.too_big)
        body_refuse(item, "value", "value_error", "Value error, the block is too large");
}

/* What git does not carry. */
static void read_attributes(body *item, first_block *ret)
{
    bool has = body_texts(item, "tags", BODY_NULLABLE, AGENTS_MAX_TAGS, true, &ret->tags);

    if (!has)
        buf_clear(&ret->tags);
    has |= body_int(item, "limit", BODY_NULLABLE, &ret->limit);
    has |= body_bool(item, "hidden", BODY_NULLABLE, &ret->hidden);
    if (has && ret->tags.len == 0)
        buf_puts(&ret->tags, "[]");
}

static void read_blocks(creation *c, body *b)
{
    size_t n;

    if (!body_list(b, "memory_blocks", BODY_NULLABLE, MAX_BLOCKS, &n))
        return;
    c->blocks = mem_alloc((n + 1) * sizeof(*c->blocks));
    for (c->n = 0; c->n < n; c->n++) {
        first_block *one = &c->blocks[c->n];
        body item = BODY_INIT;

        *one = (first_block){ .label = MEMFS_BUF_INIT(BODY_MAX_BYTES),
                              .path = MEMFS_BUF_INIT(BODY_MAX_BYTES),
                              .content = MEMFS_BUF_INIT(2 * BODY_MAX_BYTES),
                              .tags = MEMFS_BUF_INIT(BODY_MAX_BYTES) };
        if (!body_list_object(b, "memory_blocks", c->n, &item))
            continue;
        read_label(c, &item, one);
        read_content(&item, one);
        read_attributes(&item, one);
    }
}

/* ---- reading: the agent ---- */

/* Of memfs' own: which id it is to have. */
static void read_id(creation *c, body *b)
{
    memfs_str id;

    if (!body_text(b, "id", BODY_NULLABLE, &id))
        ids_new("agent", c->id);
    else if (ids_is_agent(id))
        snprintf(c->id, sizeof(c->id), "%.*s", (int)id.len, id.ptr);
    else
        body_refuse(b, "id", "value_error", "Value error, expected 'agent-<uuid4>'");
}

static void read_agent(creation *c, body *b)
{
    memfs_str name;

    read_id(c, b);
    if (!agents_read_name(b, true, &name))
        name = str_of(c->id);
    if (!agents_read_tags(b, &c->tags))
        buf_puts(&c->tags, "[]");
    c->has_git_tag = shape_has_git_tag(buf_str(&c->tags));
    agent_fields_read(b, c->fields);
    agent_fields_text(c->fields, &c->fields_text);
    read_blocks(c, b);
    c->row = (state_agent){ .id = str_of(c->id),
                            .org_id = MEMFS_STR(IDS_DEFAULT_ORG),
                            .name = name,
                            .tags_json = buf_str(&c->tags),
                            .fields_json = buf_str(&c->fields_text),
                            .is_hidden = agent_fields_are_hidden(c->fields),
                            .created_at_us = clock_wall_us() };
}

/* False: 409 was sent. */
static bool check_labels(creation *c)
{
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < i; k++)
            if (str_equal(buf_str(&c->blocks[i].label), buf_str(&c->blocks[k].label))) {
                http_send_detail(c->rq, 409, "CONFLICT: two of the blocks have the label '%.200s'",
                                 c->blocks[i].label.ptr);
                return false;
            }
    return true;
}

/* ---- making ---- */

static memfs_code announce(creation *c, memfs_error *err)
{
    state_birth *births = mem_alloc((c->n + 1) * sizeof(*births));
    const state_agent nothing = { .id = c->row.id };
    memfs_code rc = state_agent_announce(home_state(c->app->home), &c->row, err);
    size_t n = 0;

    for (size_t i = 0; i < c->n; i++) {
        const first_block *one = &c->blocks[i];

        if (one->tags.len > 0)
            births[n++] = (state_birth){ .label = buf_str(&one->label),
                                         .created_at_us = c->row.created_at_us,
                                         .tags_json = buf_str(&one->tags),
                                         .limit = one->limit,
                                         .hidden = one->hidden };
    }
    if (rc == MEMFS_OK && n > 0)
        rc = state_agent_merge(home_state(c->app->home), &nothing, births, n, err);
    free(births);
    return rc;
}

/* Of an id that somebody chose, and that somebody else pushed to meanwhile, nothing is overwritten.
 */
static memfs_code put_blocks(edit *e, void *ctx, memfs_error *err)
{
    creation *c = ctx;
    memfs_code rc = MEMFS_OK;

    if (!oid_equal(edit_main(e), &STORE_GENESIS))
        return memfs_fail(err, MEMFS_EEXISTS, "there is an agent '%s' already", c->id);
    for (size_t i = 0; rc == MEMFS_OK && i < c->n; i++)
        rc = edit_put(e, buf_str(&c->blocks[i].path), buf_str(&c->blocks[i].content), err);
    edit_say(e, "Begin with %zu block%s\n", c->n, c->n == 1 ? "" : "s");
    if (c->reason.text[0] != '\0')
        edit_say(e, "\n%s\n", c->reason.text);
    return rc;
}

static memfs_code make(creation *c, memfs_error *err)
{
    author room;
    store_identity who = author_of(c->rq, &room);
    const edit_options options = { .who = &who,
                                   .read_only = PUSH_READ_ONLY_MAY,
                                   .why = "memfs: a new agent",
                                   .may_be_new = true };
    edit_result result;
    memfs_code rc = announce(c, err);

    if (rc == MEMFS_OK)
        rc = edit_memory(c->app->home, c->row.id, &options, put_blocks, c, &result, NULL, err);
    return rc;
}

void agents_create(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(body_dispose) body b = BODY_INIT;
    _cleanup_(creation_dispose) creation c = { .rq = rq,
                                               .app = ctx,
                                               .fields = json_object(),
                                               .tags = MEMFS_BUF_INIT(BODY_MAX_BYTES),
                                               .fields_text = MEMFS_BUF_INIT(2 * BODY_MAX_BYTES) };
    memfs_error err = MEMFS_ERROR_INIT;

    if (body_read(&b, &p, http_body(rq)))
        read_agent(&c, &b);
    if (!reply_params_good(rq, &p) || !agents_check_block_ids(rq, &b, true) || !check_labels(&c))
        return;
    author_reason_of(rq, &c.reason);
    if (home_is_deleted(c.app->home, c.row.id))
        memfs_fail(&err, MEMFS_EEXISTS, "agent '%s' is deleted: it can be brought back", c.id);
    if (err.code == MEMFS_OK && make(&c, &err) == MEMFS_OK) {
        http_note(rq, "made %s", c.id);
        agents_answer(rq, ctx, c.row.id, SHAPE_ALL);
    } else {
        http_send_error(rq, &err);
    }
}
