/*
 * block_write.c - blocks are changed, made, attached and removed (http-api 5, 6, 11).
 *
 * Each is a commit of the agent that has the block (sync/block_edit.h), by whoever asks (author.h);
 * the answer is what a GET says then.
 *
 *     If-Match, or "expected_version" in the body   409 with both ids when it is another by now; of
 *                                                   a body a commit or blob id, of the header an ETag
 *     X-Memfs-Reason                                stands in the commit's message
 *     ?recompile=                                   as for sync-from-git
 *
 * An agent's token sees and changes its own agent's copy of a block, nobody else's (S1); a block
 * that no agent has is not there for it.
 */
#include "memory/ids.h"
#include "server/agents.h"
#include "server/author.h"
#include "server/body.h"
#include "server/recompile.h"
#include "server/reply.h"
#include "server/shape.h"
#include "sync/block_edit.h"
#include "sync/loose.h"

#include <stdio.h>

/* ---- the request ---- */

#define MAX_LABEL_BYTES 1024 /* as a path; longer ones have no place in PostgreSQL's index */

typedef struct writing {
    http_request *rq;
    app *app;
    params p;
    body b;
    block_patch patch;
    memfs_buf value, tags, metadata;
    memfs_str version; /* "expected_version" of the body */
    recompile_when recompile;
    author room;
    store_identity who;
    author_reason reason;
    bool is_unclear;
} writing;

static void writing_init(writing *x, http_request *rq, app *self)
{
    *x = (writing){ .rq = rq,
                    .app = self,
                    .p = REPLY_PARAMS(rq),
                    .value = MEMFS_BUF_INIT(BODY_MAX_BYTES),
                    .tags = MEMFS_BUF_INIT(BODY_MAX_BYTES),
                    .metadata = MEMFS_BUF_INIT(BODY_MAX_BYTES) };
    x->who = author_of(rq, &x->room);
    author_reason_of(rq, &x->reason);
    x->recompile = recompile_read(&x->p);
}

static void writing_dispose(writing *x)
{
    params_dispose(&x->p);
    body_dispose(&x->b);
    buf_dispose(&x->value);
    buf_dispose(&x->tags);
    buf_dispose(&x->metadata);
}

static block_by by_of(writing *x)
{
    block_by by = { .who = &x->who,
                    .read_only = author_read_only(x->rq),
                    .reason = x->reason.text,
                    .expected = x->version,
                    .ret_is_unclear = &x->is_unclear };

    by.is_tag = reply_if_match(x->rq, &by.expected);
    return by;
}

static void read_label(writing *x, body_need need)
{
    memfs_str *label = &x->patch.label;

    if (!body_text(&x->b, "label", need, label))
        return;
    if (label->len == 0)
        body_refuse(&x->b, "label", "string_too_short", "String should have at least 1 character");
    else if (label->len > MAX_LABEL_BYTES || memchr(label->ptr, '\0', label->len) != NULL)
        body_refuse(&x->b, "label", "value_error",
                    "Value error, a label has at most 1024 bytes and no NUL");
}

/* The fields of a block; only those that are there and not null apply (http-api 6.4). */
static void read_fields(writing *x, body_need label)
{
    block_patch *p = &x->patch;
    bool ignored;

    p->has_value = body_clean_text(&x->b, "value", BODY_NULLABLE, &x->value, &p->value);
    p->has_description = body_text(&x->b, "description", BODY_NULLABLE, &p->description);
    p->has_read_only = body_bool(&x->b, "read_only", BODY_OPTIONAL, &p->read_only);
    p->has_hidden = body_bool(&x->b, "hidden", BODY_NULLABLE, &p->hidden);
    (void)body_bool(&x->b, "is_template", BODY_OPTIONAL, &ignored);
    p->has_limit = body_count(&x->b, "limit", BODY_NULLABLE, &p->limit);
    if (body_map(&x->b, "metadata", BODY_NULLABLE, &x->metadata))
        p->metadata_json = buf_str(&x->metadata);
    if (agents_read_tags(&x->b, &x->tags))
        p->tags_json = buf_str(&x->tags);
    read_label(x, label);
    (void)body_version(&x->b, "expected_version", &x->version);
}

/* ---- answers ---- */

static void send_failure(writing *x, memfs_code rc, const memfs_error *err)
{
    if (x->is_unclear) {
        http_send_detail(
            x->rq, 503,
            "What became of this change is not known: read the block before you try again");
        return;
    }
    if (rc == MEMFS_ENOTFOUND)
        http_send_detail(x->rq, 404, "%s", err->msg);
    else if (rc == MEMFS_EINVALID)
        http_send_detail(x->rq, 400, "%s", err->msg);
    else
        http_send_error(x->rq, err);
}

static memfs_code write_row(const block_row *row, void *ctx, memfs_error *err)
{
    return reply_write_block(row, ctx, err);
}

/* As a GET of that block of that agent says it. */
static void answer_block(writing *x, memfs_str agent_id, memfs_str block_id, memfs_str label)
{
    const block_query q = {
        .agent_id = agent_id, .id = block_id, .label = label, .show_hidden = true, .limit = 1
    };
    json_writer w = JSON_WRITER_INIT(http_out(x->rq));
    memfs_error err = MEMFS_ERROR_INIT;
    reply_tag tag = { .is_sent = false };
    cache_tip tip;
    memfs_code rc = reply_agent_blocks(x->rq, x->app, &q, &tip, write_row, &w, &err);

    if (rc == MEMFS_OK && http_out(x->rq)->len == 0)
        rc = memfs_fail(&err, MEMFS_EUNAVAIL,
                        "the change is committed, and the block's row follows in a moment");
    if (rc == MEMFS_OK)
        reply_tag_agent(&tag, &tip);
    reply_rows(x->rq, &tag, rc, &err);
}

/* ---- PATCH ---- */

static bool read_patch(writing *x)
{
    if (body_read(&x->b, &x->p, http_body(x->rq)))
        read_fields(x, BODY_NULLABLE);
    return reply_params_good(x->rq, &x->p);
}

/* An admin changes the block, an agent's token its agent's copy of it. */
static memfs_code find_copies(const writing *x, memfs_str block_id, block_holders *ret,
                              memfs_error *err)
{
    return block_holders_find(x->app->home, block_id, app_own_agent(x->rq), ret, err);
}

/*
 * The same in the block's turn.  An agent's token does not wait for a block that is not its
 * agent's: that one is told at once to be none (S1).
 */
static memfs_code take_turn(const writing *x, memfs_str block_id, block_turn *turn,
                            block_holders *ret, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    *ret = (block_holders){ NULL, 0 };
    if (app_own_agent(x->rq).len > 0) {
        rc = find_copies(x, block_id, ret, err);
        if (rc < 0 || ret->n == 0)
            return rc;
        block_holders_dispose(ret);
    }
    rc = block_turn_begin(x->app->home, block_id, turn, err);
    return rc < 0 ? rc : find_copies(x, block_id, ret, err);
}

/* The copy of the agent that was named goes first: it is what the caller has read. */
static void put_first(block_holders *of, memfs_str agent_id)
{
    for (size_t i = 1; i < of->n; i++) {
        block_holder named = of->list[i];

        if (!str_equal(str_of(named.agent_id), agent_id))
            continue;
        of->list[i] = of->list[0];
        of->list[0] = named;
    }
}

static memfs_code take_id(const block_row *row, void *ctx, memfs_error *err)
{
    (void)err;
    if (row->id.len <= IDS_MAX_LEN)
        snprintf(ctx, IDS_MAX_LEN + 1, "%.*s", (int)row->id.len, row->id.ptr);
    return MEMFS_OK;
}

/* Which block an agent has under a label; "" when it has none. */
static memfs_code id_of_label(const writing *x, memfs_str agent_id, memfs_str label,
                              char ret[IDS_MAX_LEN + 1], memfs_error *err)
{
    const block_query q = { .agent_id = agent_id, .label = label, .show_hidden = true, .limit = 1 };
    cache_tip tip;

    ret[0] = '\0';
    return reply_agent_blocks(x->rq, x->app, &q, &tip, take_id, ret, err);
}

static memfs_code patch_block(writing *x, memfs_str block_id, memfs_str agent_id, memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };
    _cleanup_(block_turn_end) block_turn turn = { .h = NULL };
    const block_by by = by_of(x);
    memfs_code rc = take_turn(x, block_id, &turn, &of, err);

    if (rc < 0)
        return rc;
    put_first(&of, agent_id);
    return block_edit_patch_all(x->app->home, block_id, &of, &x->patch, &by, err);
}

void block_patch_of_agent(http_request *rq, void *ctx)
{
    _cleanup_(writing_dispose) writing x;
    memfs_str agent_id, label = http_param(rq, "label");
    memfs_error err = MEMFS_ERROR_INIT;
    char id[IDS_MAX_LEN + 1];
    memfs_code rc;

    writing_init(&x, rq, ctx);
    agent_id = reply_agent_id(rq, &x.p);
    if (!read_patch(&x) || !reply_agent(rq, ctx, agent_id))
        return;
    rc = label.len == 0 ? MEMFS_OK : id_of_label(&x, agent_id, label, id, &err);
    if (rc == MEMFS_OK && (label.len == 0 || id[0] == '\0'))
        rc = memfs_fail(&err, MEMFS_ENOTFOUND, "No block with label '%.*s' found for agent '%.*s'",
                        (int)(label.len < 200 ? label.len : 200), label.ptr, (int)agent_id.len,
                        agent_id.ptr);
    if (rc == MEMFS_OK)
        rc = patch_block(&x, str_of(id), agent_id, &err);
    if (rc < 0) {
        send_failure(&x, rc, &err);
        return;
    }
    recompile_prompt(ctx, rq, agent_id, x.recompile);
    answer_block(&x, agent_id, str_of(id), x.patch.label.len > 0 ? x.patch.label : label);
}

void block_patch_by_id(http_request *rq, void *ctx)
{
    _cleanup_(writing_dispose) writing x;
    memfs_error err = MEMFS_ERROR_INIT;
    char owner[IDS_MAX_LEN + 1];
    memfs_str id;
    memfs_code rc;

    writing_init(&x, rq, ctx);
    id = reply_block_id(rq, &x.p);
    if (!read_patch(&x))
        return;
    rc = patch_block(&x, id, MEMFS_STR(""), &err);
    if (rc == MEMFS_OK)
        rc = reply_block_owner(rq, ctx, id, owner, &err);
    if (rc == MEMFS_OK && owner[0] == '\0')
        rc = memfs_fail(&err, MEMFS_EUNAVAIL,
                        "the change is committed, and the block's row follows in a moment");
    if (rc < 0) {
        send_failure(&x, rc, &err);
        return;
    }
    if (!str_equal(str_of(owner), LOOSE_AGENT))
        recompile_prompt(ctx, rq, str_of(owner), x.recompile);
    answer_block(&x, str_of(owner), id, MEMFS_STR(""));
}

/* ---- POST, DELETE ---- */

void block_create(http_request *rq, void *ctx)
{
    _cleanup_(writing_dispose) writing x;
    const block_patch *p = &x.patch;
    memfs_error err = MEMFS_ERROR_INIT;
    char id[IDS_MAX_LEN + 1];
    block_row row;

    writing_init(&x, rq, ctx);
    if (body_read(&x.b, &x.p, http_body(rq)))
        read_fields(&x, BODY_NEEDED);
    if (!reply_params_good(rq, &x.p))
        return;
    row =
        (block_row){ .agent_id = LOOSE_AGENT,
                     .label = p->label,
                     .value = p->has_value ? p->value : MEMFS_STR(""),
                     .has_description = p->has_description,
                     .description = p->has_description ? p->description : MEMFS_STR(""),
                     .limit = p->has_limit ? p->limit : 100000,
                     .read_only = p->has_read_only && p->read_only,
                     .metadata_json = p->metadata_json.len > 0 ? p->metadata_json : MEMFS_STR("{}"),
                     .tags_json = p->tags_json.len > 0 ? p->tags_json : MEMFS_STR("[]"),
                     .hidden = p->has_hidden && p->hidden };
    if (block_edit_create(x.app->home, &row, id, &err) < 0)
        send_failure(&x, err.code, &err);
    else
        answer_block(&x, LOOSE_AGENT, str_of(id), MEMFS_STR(""));
}

static memfs_code delete_all(writing *x, memfs_str id, memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders of = { NULL, 0 };
    _cleanup_(block_turn_end) block_turn turn = { .h = NULL };
    const block_by by = by_of(x);
    memfs_code rc = take_turn(x, id, &turn, &of, err);

    return rc < 0 ? rc : block_edit_delete(x->app->home, id, &of, &by, err);
}

void block_delete(http_request *rq, void *ctx)
{
    _cleanup_(writing_dispose) writing x;
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_str id;

    writing_init(&x, rq, ctx);
    id = reply_block_id(rq, &x.p);
    if (!reply_params_good(rq, &x.p))
        return;
    if (delete_all(&x, id, &err) < 0) {
        send_failure(&x, err.code, &err);
        return;
    }
    buf_puts(http_out(rq), "null");
    reply_json(rq);
}

/* ---- attach, detach ---- */

typedef memfs_code (*moving)(writing *x, memfs_str agent_id, memfs_str id, memfs_error *err);

static memfs_code attach(writing *x, memfs_str agent_id, memfs_str id, memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders own = { NULL, 0 };
    _cleanup_(block_turn_end) block_turn turn = { .h = NULL };
    const block_by by = by_of(x);
    edit_result result;
    memfs_code rc = take_turn(x, id, &turn, &own, err);

    if (rc < 0)
        return rc;
    if (own.n == 0) /* also one that this token may not see (S1) */
        return memfs_fail(err, MEMFS_ENOTFOUND, "Block with id '%.*s' not found", (int)id.len,
                          id.ptr);
    return block_edit_attach(x->app->home, agent_id, id, &by, &result, err);
}

static memfs_code detach(writing *x, memfs_str agent_id, memfs_str id, memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders own = { NULL, 0 };
    _cleanup_(block_turn_end) block_turn turn = { .h = NULL };
    const block_by by = by_of(x);
    edit_result result;
    memfs_code rc = take_turn(x, id, &turn, &own, err);

    if (rc < 0)
        return rc;
    return block_edit_detach(x->app->home, agent_id, id, true, &by, &result, err);
}

static void move_block(http_request *rq, app *self, moving fn)
{
    _cleanup_(writing_dispose) writing x;
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_str agent_id, id;

    writing_init(&x, rq, self);
    agent_id = reply_agent_id(rq, &x.p);
    id = reply_block_id(rq, &x.p);
    if (!reply_params_good(rq, &x.p) || !reply_agent(rq, self, agent_id))
        return;
    if (fn(&x, agent_id, id, &err) < 0) {
        send_failure(&x, err.code, &err);
        return;
    }
    recompile_prompt(self, rq, agent_id, x.recompile);
    agents_answer(rq, self, agent_id, SHAPE_ALL);
}

void block_attach(http_request *rq, void *ctx)
{
    move_block(rq, ctx, attach);
}

void block_detach(http_request *rq, void *ctx)
{
    move_block(rq, ctx, detach);
}
