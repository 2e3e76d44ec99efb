/*
 * block_attach.c - which agents have a block, and how it comes to one and goes from one.
 *
 * Attach: the block's text becomes a file, its attributes and its id the birth of that label; a
 * loose block's document goes in the same step of the state (edit_set_doc), and comes back if the
 * commit fails.  Detach: when the file is gone, the document is there, unless another agent has the
 * block.
 */
#include "sync/block_edit_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "memory/block.h"
#include "sync/home_int.h"
#include "sync/loose.h"
#include "sync/materialise.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- holders ---- */

typedef struct finding {
    home *h;
    block_holders *to;
} finding;

static memfs_code add_holder(const block_row *row, void *ctx, memfs_error *err)
{
    finding *f = ctx;
    block_holder *to;

    (void)err;
    if (row->agent_id.len > IDS_MAX_LEN || row->id.len > IDS_MAX_LEN)
        return MEMFS_OK;
    f->to->list = mem_realloc(f->to->list, f->to->n + 1, sizeof(*f->to->list));
    to = &f->to->list[f->to->n++];
    snprintf(to->agent_id, sizeof(to->agent_id), "%.*s", (int)row->agent_id.len, row->agent_id.ptr);
    snprintf(to->block_id, sizeof(to->block_id), "%.*s", (int)row->id.len, row->id.ptr);
    to->label = mem_strndup(row->label.ptr, row->label.len);
    return MEMFS_OK;
}

void block_holders_dispose(block_holders *holders)
{
    for (size_t i = 0; i < holders->n; i++)
        free(holders->list[i].label);
    free(holders->list);
    *holders = (block_holders){ NULL, 0 };
}

bool block_is_loose(const block_holder *holder)
{
    return str_equal(str_of(holder->agent_id), LOOSE_AGENT);
}

/* A loose one beside an agent's copy is of a step that is under way, or was cut short. */
static void drop_loose(block_holders *holders)
{
    size_t n = 0, n_loose = 0;

    for (size_t i = 0; i < holders->n; i++)
        n_loose += block_is_loose(&holders->list[i]);
    for (size_t i = 0; n_loose < holders->n && i < holders->n; i++) {
        if (block_is_loose(&holders->list[i]))
            free(holders->list[i].label);
        else
            holders->list[n++] = holders->list[i];
    }
    if (n > 0)
        holders->n = n;
}

static void put_last_first(home *h, block_holders *holders)
{
    int64_t best = INT64_MIN;
    size_t at = 0;

    for (size_t i = 0; holders->n > 1 && i < holders->n; i++) {
        memfs_error ignored;
        cache_tip tip;

        if (cache_tip_get(h->cache, str_of(holders->list[i].agent_id), &tip, &ignored) < 0 ||
            tip.generation <= best)
            continue;
        best = tip.generation;
        at = i;
    }
    if (at > 0) {
        block_holder first = holders->list[at];

        holders->list[at] = holders->list[0];
        holders->list[0] = first;
    }
}

memfs_code block_holders_find(home *h, memfs_str block_id, memfs_str agent_id, block_holders *ret,
                              memfs_error *err)
{
    const block_query q = { .id = block_id, .agent_id = agent_id, .show_hidden = true };
    finding f = { h, ret };
    memfs_code rc;

    *ret = (block_holders){ NULL, 0 };
    rc = cache_blocks(h->cache, &q, add_holder, &f, err);
    if (rc < 0) {
        block_holders_dispose(ret);
        return rc;
    }
    drop_loose(ret);
    if (agent_id.len == 0)
        put_last_first(h, ret);
    return rc;
}

static const block_holder *holder_of(const block_holders *holders, memfs_str agent_id)
{
    for (size_t i = 0; i < holders->n; i++)
        if (str_equal(str_of(holders->list[i].agent_id), agent_id))
            return &holders->list[i];
    return NULL;
}

memfs_code block_not_found(memfs_str block_id, memfs_error *err)
{
    return memfs_fail(err, MEMFS_ENOTFOUND, "Block with id '%.*s' not found", (int)block_id.len,
                      block_id.ptr);
}

static memfs_code changed_meanwhile(memfs_error *err)
{
    return memfs_fail(err, MEMFS_ECONFLICT, "CONFLICT: the block was changed meanwhile: try again");
}

/* ---- create ---- */

memfs_code block_edit_create(home *h, const block_row *row, char ret_id[IDS_MAX_LEN + 1],
                             memfs_error *err)
{
    block_row own = *row;

    if (row->value.len > h->options.policy.max_block_bytes)
        return memfs_fail(err, MEMFS_ELIMIT, "a block may have %llu bytes, and this has %zu",
                          (unsigned long long)h->options.policy.max_block_bytes, row->value.len);
    ids_new("block", ret_id);
    own.id = own.path = str_of(ret_id);
    own.created_at_us = own.updated_at_us = clock_wall_us();
    return loose_put(h, own.id, &own, 0, err);
}

/* ---- attach ---- */

typedef struct attaching {
    home *h;
    char agent[IDS_MAX_LEN + 1];
    memfs_str block_id;
    memfs_str label; /* what it is to be called; "": as it is */
    const block_holder *from;
    const block_by *by; /* NULL: part of a plan that knows */
    edit *e;
    bool is_there; /* the copy that is attached */
} attaching;

static memfs_code write_file(const block_row *row, memfs_buf *out, memfs_error *err)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    block_changes c = { .has_value = true,
                        .value = row->value,
                        .has_description =
                            row->has_description && row->description.len > 0 &&
                            !block_is_default_description(row->label, row->description),
                        .description = row->description,
                        .has_read_only = row->read_only,
                        .read_only = row->read_only };
    memfs_code rc = yaml_of_json(row->metadata_json, doc, &c.metadata, err);

    return rc < 0 ? rc : block_amend(MEMFS_STR(""), &c, out, err);
}

static memfs_code put_row(const attaching *x, const block_row *row, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(x->h->options.policy.max_file_bytes);
    _cleanup_(buf_dispose) memfs_buf there = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    const memfs_str label = x->label.len > 0 ? x->label : row->label;
    const state_birth birth = { .label = label,
                                .created_at_us = row->created_at_us,
                                .tags_json =
                                    row->tags_json.len > 0 ? row->tags_json : MEMFS_STR("[]"),
                                .block_id = x->block_id,
                                .limit = row->limit,
                                .hidden = row->hidden };
    memfs_code rc;

    if (block_path(x->h, label, &path) < 0)
        return memfs_fail(err, MEMFS_EINVALID,
                          "INVALID_ARGUMENT: '%.*s' cannot be the label of an attached block: it "
                          "names no file",
                          (int)(label.len < 100 ? label.len : 100), label.ptr);
    rc = edit_read(x->e, buf_str(&path), &there, NULL, err);
    if (rc == MEMFS_OK)
        return memfs_fail(err, MEMFS_EEXISTS,
                          "CONFLICT: the agent has another block with label '%.*s'",
                          (int)(label.len < 100 ? label.len : 100), label.ptr);
    if (rc != MEMFS_ENOTFOUND)
        return rc;
    rc = write_file(row, &text, err);
    if (rc == MEMFS_OK)
        rc = edit_put(x->e, buf_str(&path), buf_str(&text), err);
    edit_set_birth(x->e, &birth);
    return rc;
}

/* By the tag of the agent that gets it. */
static memfs_code check_expected(const attaching *x, memfs_error *err)
{
    const memfs_oid none = { { 0 } };

    if (x->by == NULL || x->by->expected.len == 0)
        return MEMFS_OK;
    return block_check_expected(x->h, x->e, x->by, x->agent, x->block_id, MEMFS_STR(""), &none,
                                err);
}

/* Or by the block's own, which nobody has. */
static memfs_code attach_loose(const block_row *row, int64_t changed, void *ctx, memfs_error *err)
{
    const attaching *x = ctx;
    const state_doc gone = { LOOSE_KIND, x->block_id, MEMFS_STR(""), changed };
    memfs_error ignored;
    memfs_code rc = MEMFS_OK;

    if (x->by != NULL && loose_check_read(x->by->expected, changed, &ignored) < 0)
        rc = check_expected(x, err);
    if (rc < 0)
        return rc;
    edit_set_doc(x->e, &gone);
    return put_row(x, row, err);
}

static memfs_code attach_copy(const block_row *row, void *ctx, memfs_error *err)
{
    attaching *x = ctx;
    memfs_code rc = check_expected(x, err);

    x->is_there = true;
    return rc < 0 ? rc : put_row(x, row, err);
}

static memfs_code attach_from(attaching *x, memfs_error *err)
{
    const block_query q = {
        .agent_id = str_of(x->from->agent_id), .id = x->block_id, .show_hidden = true, .limit = 1
    };
    memfs_code rc;

    if (block_is_loose(x->from))
        return loose_get(x->h, x->block_id, attach_loose, x, err);
    x->is_there = false;
    rc = cache_blocks(x->h->cache, &q, attach_copy, x, err);
    if (rc == MEMFS_OK && !x->is_there) /* a push took the file just now */
        return changed_meanwhile(err);
    return rc;
}

static memfs_code plan_attach(edit *e, void *ctx, memfs_error *err)
{
    attaching *x = ctx;

    x->e = e;
    block_say(e, x->by, "Attach", str_of(x->from->label), "");
    return attach_from(x, err);
}

memfs_code block_plan_attach(edit *e, home *h, memfs_str block_id, memfs_str label,
                             memfs_error *err)
{
    attaching x = { .h = h, .block_id = block_id, .label = label, .e = e };
    memfs_code rc = MEMFS_ECONFLICT;

    for (int n = 0; rc == MEMFS_ECONFLICT && n < 3; n++) {
        _cleanup_(block_holders_dispose) block_holders all = { NULL, 0 };

        rc = block_holders_find(h, block_id, MEMFS_STR(""), &all, err);
        if (rc < 0)
            return rc;
        if (all.n == 0)
            return block_not_found(block_id, err);
        x.from = &all.list[0];
        rc = attach_from(&x, err);
    }
    return rc;
}

memfs_code block_edit_attach(home *h, memfs_str agent_id, memfs_str block_id, const block_by *by,
                             edit_result *ret, memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders all = { NULL, 0 };
    const edit_options o = { .who = by->who, .read_only = by->read_only, .why = "block attach" };
    attaching x = { .h = h, .block_id = block_id, .by = by };
    memfs_code rc = MEMFS_ECONFLICT;

    *ret = (edit_result){ .moved = false };
    snprintf(x.agent, sizeof(x.agent), "%.*s", (int)agent_id.len, agent_id.ptr);
    for (int n = 0; rc == MEMFS_ECONFLICT && n < 3; n++) { /* it was changed meanwhile */
        block_holders_dispose(&all);
        rc = block_holders_find(h, block_id, MEMFS_STR(""), &all, err);
        if (rc < 0)
            return rc;
        if (all.n == 0)
            return block_not_found(block_id, err);
        if (holder_of(&all, agent_id) != NULL)
            return MEMFS_OK;
        x.from = &all.list[0];
        rc = edit_memory(h, agent_id, &o, plan_attach, &x, ret, by->ret_is_unclear, err);
    }
    return rc;
}

/* ---- detach ---- */

typedef struct detaching {
    home *h;
    const char *agent_id;
    memfs_str block_id, label;
    const char *verb;
    bool keeps;     /* no other agent has it, as far as could be seen before */
    memfs_buf body; /* of its document, when it is loose */
    const block_by *by;
} detaching;

/* The row as it was, for when no file has it any more. */
static memfs_code write_loose(detaching *x, memfs_str path, memfs_str text, memfs_error *err)
{
    _cleanup_(owned_birth_dispose) owned_birth birth = OWNED_BIRTH_INIT;
    _cleanup_(buf_dispose) memfs_buf scratch = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_oid none = { { 0 } };
    block_row row;
    memfs_code rc = owned_birth_load(x->h, str_of(x->agent_id), x->label, &birth, err);

    if (rc == MEMFS_OK)
        rc = materialise_row(str_of(x->agent_id), path, x->label, &none, text, &scratch, &row, err);
    if (rc < 0)
        return rc;
    row.created_at_us = birth.birth.created_at_us;
    row.tags_json = birth.birth.tags_json;
    row.hidden = birth.birth.hidden;
    if (row.limit == BLOCK_DEFAULT_LIMIT && birth.birth.limit > 0)
        row.limit = birth.birth.limit;
    buf_clear(&x->body);
    loose_write(&row, &x->body);
    return MEMFS_OK;
}

static memfs_code take_out(edit *e, detaching *x, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_oid blob;
    memfs_code rc = block_path(x->h, x->label, &path);

    if (rc == MEMFS_OK)
        rc = edit_read(e, buf_str(&path), &text, &blob, err);
    if (rc == MEMFS_ENOTFOUND)
        return block_not_found(x->block_id, err);
    if (rc == MEMFS_OK)
        rc =
            block_check_expected(x->h, e, x->by, x->agent_id, x->label, buf_str(&path), &blob, err);
    if (rc == MEMFS_OK)
        rc = edit_remove(e, buf_str(&path), err);
    if (rc == MEMFS_OK)
        rc = write_loose(x, buf_str(&path), buf_str(&text), err);
    if (rc == MEMFS_OK && x->keeps)
        edit_then_doc(e, &(state_doc){ LOOSE_KIND, x->block_id, buf_str(&x->body), 0 });
    return rc;
}

static memfs_code plan_detach(edit *e, void *ctx, memfs_error *err)
{
    detaching *x = ctx;

    block_retire_label(e, x->label);
    block_say(e, x->by, x->verb, x->label, "");
    return take_out(e, x, err);
}

/* Of two agents that had it, both let go of it at once: neither saw that it was the last. */
static memfs_code keep_the_last(home *h, const detaching *x, memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders left = { NULL, 0 };
    memfs_code rc = block_holders_find(h, x->block_id, MEMFS_STR(""), &left, err);

    if (rc < 0 || left.n > 0)
        return rc;
    return loose_put_text(h, x->block_id, buf_str(&x->body), err);
}

memfs_code block_edit_detach(home *h, memfs_str agent_id, memfs_str block_id, bool keeps,
                             const block_by *by, edit_result *ret, memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders all = { NULL, 0 };
    const edit_options o = { .who = by->who, .read_only = by->read_only, .why = "block detach" };
    detaching x = { .h = h,
                    .block_id = block_id,
                    .verb = keeps ? "Detach" : "Delete",
                    .body = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                    .by = by };
    const block_holder *own;
    memfs_code rc = block_holders_find(h, block_id, MEMFS_STR(""), &all, err);

    *ret = (edit_result){ .moved = false };
    if (rc < 0)
        return rc;
    own = holder_of(&all, agent_id);
    if (own == NULL)
        return block_not_found(block_id, err);
    x.agent_id = own->agent_id;
    x.label = str_of(own->label);
    x.keeps = keeps && all.n == 1;
    rc = edit_memory(h, agent_id, &o, plan_detach, &x, ret, by->ret_is_unclear, err);
    if (rc == MEMFS_OK && keeps && !x.keeps)
        rc = keep_the_last(h, &x, err);
    buf_dispose(&x.body);
    return rc;
}

/* ---- all that an agent has ---- */

typedef struct setting {
    home *h;
    memfs_str agent_id;
    const memfs_str *ids;
    size_t n;
    bool only_own;
    const block_by *by;
    block_turns turns; /* of what goes and what comes */
    /* of the last attempt */
    block_holders own;
    detaching *gone;
    size_t n_gone;
} setting;

static void forget_attempt(setting *x)
{
    for (size_t i = 0; i < x->n_gone; i++)
        buf_dispose(&x->gone[i].body);
    free(x->gone);
    x->gone = NULL;
    x->n_gone = 0;
    block_holders_dispose(&x->own);
}

static bool is_wanted(const setting *x, const block_holder *own)
{
    for (size_t i = 0; i < x->n; i++)
        if (str_equal(x->ids[i], str_of(own->block_id)))
            return true;
    return false;
}

static bool has_already(const setting *x, memfs_str block_id)
{
    for (size_t i = 0; i < x->own.n; i++)
        if (str_equal(block_id, str_of(x->own.list[i].block_id)))
            return true;
    return false;
}

/* An agent's token does not wait for a block that it may not see (S1). */
static memfs_code take_turns(setting *x, memfs_error *err)
{
    _cleanup_(mem_freep) memfs_str *ids = NULL;
    memfs_code rc = block_holders_find(x->h, MEMFS_STR(""), x->agent_id, &x->own, err);
    size_t n = 0;

    if (rc < 0)
        return rc;
    ids = mem_alloc((x->own.n + x->n + 1) * sizeof(*ids));
    for (size_t i = 0; i < x->own.n; i++)
        if (!is_wanted(x, &x->own.list[i]))
            ids[n++] = str_of(x->own.list[i].block_id);
    for (size_t i = 0; i < x->n; i++) {
        if (has_already(x, x->ids[i]))
            continue;
        if (x->only_own)
            return block_not_found(x->ids[i], err);
        ids[n++] = x->ids[i];
    }
    return block_turns_begin(x->h, ids, n, &x->turns, err);
}

static memfs_code let_go(edit *e, setting *x, const block_holder *own, memfs_error *err)
{
    _cleanup_(block_holders_dispose) block_holders all = { NULL, 0 };
    detaching *d = &x->gone[x->n_gone];
    memfs_str id = str_of(own->block_id);
    memfs_code rc;

    if (!block_turns_have(&x->turns, id)) /* it came while we waited */
        return changed_meanwhile(err);
    rc = block_holders_find(x->h, id, MEMFS_STR(""), &all, err);
    if (rc < 0)
        return rc;
    *d = (detaching){ .h = x->h,
                      .agent_id = own->agent_id,
                      .block_id = id,
                      .label = str_of(own->label),
                      .keeps = all.n == 1,
                      .body = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                      .by = x->by };
    x->n_gone++;
    rc = take_out(e, d, err);
    return rc == MEMFS_ENOTFOUND ? changed_meanwhile(err) : rc;
}

static memfs_code take_in(edit *e, const setting *x, size_t *n, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < x->n; i++) {
        if (has_already(x, x->ids[i]))
            continue;
        if (!block_turns_have(&x->turns, x->ids[i])) /* it went while we waited */
            return changed_meanwhile(err);
        rc = block_plan_attach(e, x->h, x->ids[i], MEMFS_STR(""), err);
        ++*n;
    }
    return rc;
}

/* A label that another block has now has that one's birth. */
static memfs_code retire_unless_taken(edit *e, const detaching *d, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf there = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_code rc = block_path(d->h, d->label, &path);

    if (rc == MEMFS_OK)
        rc = edit_read(e, buf_str(&path), &there, NULL, err);
    if (rc == MEMFS_ENOTFOUND) {
        block_retire_label(e, d->label);
        rc = MEMFS_OK;
    }
    return rc;
}

static memfs_code plan_set(edit *e, void *ctx, memfs_error *err)
{
    setting *x = ctx;
    size_t n_new = 0;
    memfs_code rc;

    forget_attempt(x);
    rc = block_holders_find(x->h, MEMFS_STR(""), x->agent_id, &x->own, err);
    x->gone = mem_alloc((x->own.n + 1) * sizeof(*x->gone));
    for (size_t i = 0; rc == MEMFS_OK && i < x->own.n; i++)
        if (!is_wanted(x, &x->own.list[i]))
            rc = let_go(e, x, &x->own.list[i], err);
    if (rc == MEMFS_OK)
        rc = take_in(e, x, &n_new, err);
    for (size_t i = 0; rc == MEMFS_OK && i < x->n_gone; i++)
        rc = retire_unless_taken(e, &x->gone[i], err);
    edit_say(e, "Set attached blocks: %zu more, %zu less\n", n_new, x->n_gone);
    if (x->by->reason[0] != '\0')
        edit_say(e, "\n%s\n", x->by->reason);
    return rc;
}

static memfs_code set_once(setting *x, edit_result *ret, memfs_error *err)
{
    const edit_options o = { .who = x->by->who,
                             .read_only = x->by->read_only,
                             .why = "blocks attached and detached" };
    memfs_code rc = take_turns(x, err);

    if (rc == MEMFS_OK)
        rc = edit_memory(x->h, x->agent_id, &o, plan_set, x, ret, x->by->ret_is_unclear, err);
    for (size_t i = 0; rc == MEMFS_OK && i < x->n_gone; i++)
        if (!x->gone[i].keeps)
            rc = keep_the_last(x->h, &x->gone[i], err);
    forget_attempt(x);
    block_turns_end(&x->turns);
    return rc;
}

memfs_code block_edit_set_attached(home *h, memfs_str agent_id, const memfs_str *ids, size_t n,
                                   bool only_own, const block_by *by, edit_result *ret,
                                   memfs_error *err)
{
    setting x = {
        .h = h, .agent_id = agent_id, .ids = ids, .n = n, .only_own = only_own, .by = by
    };
    memfs_code rc = MEMFS_ECONFLICT;

    *ret = (edit_result){ .moved = false };
    for (int i = 0; rc == MEMFS_ECONFLICT && i < 3; i++) /* it was changed meanwhile */
        rc = set_once(&x, ret, err);
    return rc;
}
