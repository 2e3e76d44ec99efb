/*
 * agent_create.c - POST /v1/agents (http-api 7): an agent with its first blocks, as one commit.
 *
 * The state is told first what the agent will be called (state_agent_announce), then what git does
 * not carry of its blocks, and last the repository is made: with it the agent is there, for
 * everybody at once.  What a crash leaves before that is seen by nobody.
 *
 * Blocks that are there already ("block_ids") are attached by the same commit, in their turns: who
 * has them and what they are called is looked at before anything is made.
 *
 * With the git tag a label that does not begin with system/ gets that before it, as a stock server
 * does it when it makes a git memory of plain blocks.  Nothing of an agent that is there is ever
 * renamed: a block that another agent has keeps its label there.
 */
#include "server/agents.h"

#include "base/clock.h"
#include "base/mem.h"
#include "memory/block.h"
#include "memory/label.h"
#include "memory/policy.h"
#include "server/agent_fields.h"
#include "server/author.h"
#include "server/reply.h"
#include "sync/block_edit.h"
#include "sync/movein.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct first_block {
    memfs_buf label, path, content, tags; /* tags: JSON, "" where nothing but the file is told */
    int64_t limit;
    bool hidden;
    memfs_str block_id; /* of one that is there already, and has its own content; else empty */
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
    memfs_str *block_ids;
    size_t n_block_ids;
    block_turns turns; /* of those */
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
    free(c->block_ids);
    block_turns_end(&c->turns);
    json_decref(c->fields);
    buf_dispose(&c->tags);
    buf_dispose(&c->fields_text);
}

/* ---- reading: blocks ---- */

/* What the rules would refuse of the commit, before anything is made of the agent. */
static bool is_path(const policy *p, memfs_str path)
{
    memfs_str folder = MEMFS_STR(""), rest = path;
    unsigned depth = 0;
    memfs_error ignored;

    while (rest.len > 0) {
        tree_entry entry = { .mode = TREE_MODE_FOLDER };

        if (!str_split(rest, '/', &entry.name, &rest)) {
            entry.mode = TREE_MODE_FILE;
            entry.name = rest;
            rest = MEMFS_STR("");
        }
        if (++depth > p->max_depth || entry.name.len == 0 ||
            policy_entry(p, folder, &entry, &ignored) < 0)
            return false;
        folder = str_make(path.ptr, (size_t)(entry.name.ptr - path.ptr) + entry.name.len + 1);
    }
    return path.len <= p->max_path_bytes;
}

/* A label that some file may have: what comes back of its path. */
static bool is_label(const policy *p, memfs_str label, memfs_buf *path)
{
    memfs_str back;

    if (label.len == 0 || label.ptr[label.len - 1] == '/' ||
        memchr(label.ptr, '\0', label.len) != NULL)
        return false;
    label_to_path(label, path);
    return label_of_path(buf_str(path), MEMFS_STR(""), &back) && str_equal(back, label) &&
           is_path(p, buf_str(path));
}

static bool put_label(const creation *c, memfs_str label, first_block *ret)
{
    if (c->has_git_tag && !str_starts_with(label, MEMFS_STR("system/")))
        buf_puts(&ret->label, "system/");
    buf_add_str(&ret->label, label);
    return is_label(&home_settings(c->app->home)->policy, buf_str(&ret->label), &ret->path);
}

static void read_label(const creation *c, body *item, first_block *ret)
{
    memfs_str label = MEMFS_STR("");

    if (body_text(item, "label", BODY_NEEDED, &label) && !put_label(c, label, ret))
        body_refuse(item, "label", "value_error", "Value error, no file can have this label");
}

static void read_content(const creation *c, body *item, first_block *ret)
{
    _cleanup_(buf_dispose) memfs_buf value = MEMFS_BUF_INIT(BODY_MAX_BYTES);
    _cleanup_(buf_dispose) memfs_buf metadata = MEMFS_BUF_INIT(BODY_MAX_BYTES);
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    memfs_error err = MEMFS_ERROR_INIT;
    block_fields fields = { .value = MEMFS_STR("") };

    (void)body_clean_text(item, "value", BODY_NULLABLE, &value, &fields.value);
    fields.has_description = body_text(item, "description", BODY_NULLABLE, &fields.description);
    (void)body_bool(item, "read_only", BODY_NULLABLE, &fields.read_only);
    if (body_map(item, "metadata", BODY_NULLABLE, &metadata) &&
        yaml_of_json(buf_str(&metadata), doc, &fields.metadata, &err) < 0)
        body_refuse(item, "metadata", "value_error", "Value error, no front matter can hold this");
    block_serialize(&fields, &ret->content);
    if (ret->content.too_big ||
        ret->content.len > home_settings(c->app->home)->policy.max_block_bytes)
        body_refuse(item, "value", "value_error", "Value error, the block is too large");
    else if (!movein_reads_back(buf_str(&ret->content), fields.value))
        body_refuse(item, fields.description.len > metadata.len ? "description" : "metadata",
                    "value_error", "Value error, no front matter can hold this");
}

/* What git does not carry. */
static void read_attributes(body *item, first_block *ret)
{
    bool has = agents_read_tags(item, &ret->tags);

    if (!has)
        buf_clear(&ret->tags);
    has |= body_count(item, "limit", BODY_NULLABLE, &ret->limit);
    has |= body_bool(item, "hidden", BODY_NULLABLE, &ret->hidden);
    if (has && ret->tags.len == 0)
        buf_puts(&ret->tags, "[]");
}

static first_block *add_block(creation *c)
{
    first_block *one = &c->blocks[c->n++];

    *one = (first_block){ .label = MEMFS_BUF_INIT(BODY_MAX_BYTES),
                          .path = MEMFS_BUF_INIT(BODY_MAX_BYTES),
                          .content = MEMFS_BUF_INIT(2 * BODY_MAX_BYTES),
                          .tags = MEMFS_BUF_INIT(BODY_MAX_BYTES) };
    return one;
}

static void read_blocks(creation *c, body *b)
{
    size_t n = 0;

    (void)body_list(b, "memory_blocks", BODY_NULLABLE, AGENTS_MAX_BLOCKS, &n);
    (void)agents_read_block_ids(b, &c->block_ids, &c->n_block_ids);
    c->blocks = mem_alloc((n + c->n_block_ids + 1) * sizeof(*c->blocks));
    for (size_t i = 0; i < n; i++) {
        first_block *one = add_block(c);
        body item = BODY_INIT;

        if (!body_list_object(b, "memory_blocks", i, &item))
            continue;
        read_label(c, &item, one);
        read_content(c, &item, one);
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

/* ---- checking ---- */

static memfs_code find_block(creation *c, memfs_str id, memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };
    memfs_code rc = block_holders_find(c->app->home, id, MEMFS_STR(""), &of, err);
    first_block *one;

    if (rc < 0)
        return rc;
    if (of.n == 0)
        return memfs_fail(err, MEMFS_ENOTFOUND, "Block with id '%.*s' not found", (int)id.len,
                          id.ptr);
    one = add_block(c);
    one->block_id = id;
    if (put_label(c, str_of(of.list[0].label), one))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EINVALID,
                      "INVALID_ARGUMENT: '%.100s' cannot be the label of an attached block: it "
                      "names no file",
                      of.list[0].label);
}

/* In their turns from then on.  False: that was sent. */
static bool find_blocks(creation *c)
{
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = block_turns_begin(c->app->home, c->block_ids, c->n_block_ids, &c->turns, &err);

    for (size_t i = 0; rc == MEMFS_OK && i < c->n_block_ids; i++)
        rc = find_block(c, c->block_ids[i], &err);
    if (rc < 0)
        agents_send_failure(c->rq, c->row.id, false, &err);
    return rc == MEMFS_OK;
}

/* Sorted by their keys, in which case counts nothing; '/' first, so that a folder is beside its
 * file. */
static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool are_twins(const char *key, const char *next)
{
    size_t len = strlen(key);

    return strncmp(key, next, len) == 0 && (next[len] == '\0' || next[len] == '\1');
}

/* Two files of one name, for some file system, or one that is the other's folder: 409, and false.
 */
static bool check_labels(creation *c)
{
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    char **keys = mem_alloc((c->n + 1) * sizeof(*keys));
    bool is_good = true;

    for (size_t i = 0; i < c->n; i++) {
        policy_name_key(buf_str(&c->blocks[i].path), &key);
        keys[i] = mem_strndup(key.ptr, key.len);
        for (char *at = keys[i]; (at = strchr(at, '/')) != NULL;)
            *at = '\1';
    }
    if (c->n > 1)
        qsort(keys, c->n, sizeof(*keys), compare_keys);
    for (size_t i = 1; i < c->n; i++)
        is_good = is_good && !are_twins(keys[i - 1], keys[i]);
    for (size_t i = 0; i < c->n; i++)
        free(keys[i]);
    free(keys);
    if (!is_good)
        http_send_detail(c->rq, 409, "CONFLICT: two of the blocks would be one file");
    return is_good;
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
    for (size_t i = 0; rc == MEMFS_OK && i < c->n; i++) {
        const first_block *one = &c->blocks[i];

        rc = one->block_id.len > 0
                 ? block_plan_attach(e, c->app->home, one->block_id, buf_str(&one->label), err)
                 : edit_put(e, buf_str(&one->path), buf_str(&one->content), err);
    }
    edit_say(e, "Begin with %zu block%s\n", c->n, c->n == 1 ? "" : "s");
    if (c->reason.text[0] != '\0')
        edit_say(e, "\n%s\n", c->reason.text);
    return rc;
}

static memfs_code make(creation *c, bool *ret_is_unclear, memfs_error *err)
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
        rc = edit_memory(c->app->home, c->row.id, &options, put_blocks, c, &result, ret_is_unclear,
                         err);
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
    bool is_unclear = false;

    if (body_read(&b, &p, http_body(rq)))
        read_agent(&c, &b);
    if (!reply_params_good(rq, &p) || !find_blocks(&c) || !check_labels(&c))
        return;
    author_reason_of(rq, &c.reason);
    if (home_is_deleted(c.app->home, c.row.id))
        memfs_fail(&err, MEMFS_EEXISTS, "agent '%s' is deleted: restore it, or choose another id",
                   c.id);
    if (err.code == MEMFS_OK && make(&c, &is_unclear, &err) == MEMFS_OK) {
        http_note(rq, "made %s", c.id);
        agents_answer(rq, ctx, c.row.id, SHAPE_ALL);
    } else {
        agents_send_failure(rq, c.row.id, is_unclear, &err);
    }
}
