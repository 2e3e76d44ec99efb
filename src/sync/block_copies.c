/*
 * block_copies.c - one change of a block that several agents have, and of one that nobody has.
 *
 * The journal: a document of kind "edit" for each agent, all written at once, with the change and
 * with where that agent's main was.  Each goes when its commit is there.  What a crash leaves is
 * done by block_edit_recover(), unless the history since then has the commit, which names the
 * journal, or somebody changed that copy meanwhile.
 */
#include "sync/block_edit_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "sync/edit_left.h"
#include "sync/loose.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- a loose one ---- */

typedef struct changing {
    home *h;
    const block_patch *p;
    const block_by *by;
} changing;

/* Of the document at hand, which is written on the condition that it still is that one (H3). */
static memfs_code check_loose(const changing *x, int64_t changed, memfs_error *err)
{
    memfs_str expected = x->by->expected;

    return expected.len == 0 ? MEMFS_OK : loose_check_read(expected, changed, err);
}

static bool is_same_row(const block_row *a, const block_row *b)
{
    return a->has_description == b->has_description && str_equal(a->description, b->description) &&
           a->limit == b->limit && a->read_only == b->read_only && a->hidden == b->hidden &&
           str_equal(a->value, b->value) && str_equal(a->label, b->label) &&
           str_equal(a->metadata_json, b->metadata_json) && str_equal(a->tags_json, b->tags_json);
}

static memfs_code patch_row(const block_row *row, int64_t changed, void *ctx, memfs_error *err)
{
    const changing *x = ctx;
    const block_patch *p = x->p;
    block_row now = *row;
    memfs_code rc = check_loose(x, changed, err);

    if (rc < 0)
        return rc;
    if (x->by->read_only == PUSH_READ_ONLY_MUST_NOT && row->read_only)
        return memfs_fail(err, MEMFS_EDENIED,
                          "the block is read_only; an admin token may change it");
    now.value = p->has_value ? p->value : row->value;
    now.has_description |= p->has_description;
    now.description = p->has_description ? p->description : row->description;
    now.limit = p->has_limit ? p->limit : row->limit;
    now.read_only = p->has_read_only ? p->read_only : row->read_only;
    now.hidden = p->has_hidden ? p->hidden : row->hidden;
    now.label = p->label.len > 0 ? p->label : row->label;
    if (!p->has_description && p->label.len > 0 && !str_equal(p->label, row->label) &&
        block_is_default_description(row->label, row->description))
        now.has_description = false; /* of the old label's; an agent's file will say nothing */
    now.metadata_json = p->metadata_json.len > 0 ? p->metadata_json : row->metadata_json;
    if (p->tags_json.len > 0)
        now.tags_json = block_tags_after(row->tags_json, p->tags_json);
    if (now.value.len > x->h->options.policy.max_block_bytes)
        return memfs_fail(err, MEMFS_ELIMIT, "a block may have %llu bytes, and this has %zu",
                          (unsigned long long)x->h->options.policy.max_block_bytes, now.value.len);
    return is_same_row(row, &now) ? MEMFS_OK : loose_put(x->h, row->id, &now, changed, err);
}

/* It is there no more for anybody. */
static memfs_code drop_row(const block_row *row, int64_t changed, void *ctx, memfs_error *err)
{
    const changing *x = ctx;
    memfs_code rc = check_loose(x, changed, err);

    return rc < 0 ? rc : loose_put(x->h, row->id, NULL, changed, err);
}

static memfs_code change_loose(changing *x, memfs_str id, loose_fn fn, memfs_error *err)
{
    memfs_code rc = MEMFS_ECONFLICT;

    for (int n = 0; rc == MEMFS_ECONFLICT && n < 5; n++) /* on the newest text */
        rc = loose_get(x->h, id, fn, x, err);
    return rc;
}

/* ---- the journal ---- */

static void put_given(json_writer *w, const char *key, bool is_given, memfs_str text)
{
    if (is_given)
        jw_key_str(w, key, text);
}

static void put_patch(json_writer *w, const block_patch *p)
{
    jw_key(w, "patch");
    jw_object(w);
    put_given(w, "value", p->has_value, p->value);
    put_given(w, "description", p->has_description, p->description);
    put_given(w, "label", p->label.len > 0, p->label);
    put_given(w, "metadata", p->metadata_json.len > 0, p->metadata_json);
    put_given(w, "tags", p->tags_json.len > 0, p->tags_json);
    if (p->has_limit)
        jw_key_int(w, "limit", p->limit);
    if (p->has_read_only)
        jw_key_bool(w, "read_only", p->read_only);
    if (p->has_hidden)
        jw_key_bool(w, "hidden", p->hidden);
    jw_object_end(w);
}

static void read_patch(const json_t *v, block_patch *ret)
{
    *ret = (block_patch){ .has_value = json_object_get(v, "value") != NULL,
                          .has_description = json_object_get(v, "description") != NULL,
                          .has_limit = json_object_get(v, "limit") != NULL,
                          .has_read_only = json_object_get(v, "read_only") != NULL,
                          .has_hidden = json_object_get(v, "hidden") != NULL,
                          .read_only = json_is_true(json_object_get(v, "read_only")),
                          .hidden = json_is_true(json_object_get(v, "hidden")),
                          .value = edit_left_text(v, "value"),
                          .description = edit_left_text(v, "description"),
                          .limit = json_integer_value(json_object_get(v, "limit")),
                          .label = edit_left_text(v, "label"),
                          .metadata_json = edit_left_text(v, "metadata"),
                          .tags_json = edit_left_text(v, "tags") };
}

/* One agent's part. */
typedef struct part {
    char id[IDS_MAX_LEN + 24];
    memfs_oid since;
    memfs_buf body;
} part;

static memfs_code write_part(home *h, memfs_str block_id, const block_holder *of,
                             const block_patch *p, const block_by *by, part *ret, memfs_error *err)
{
    json_writer w = JSON_WRITER_INIT(&ret->body);
    char hex[MEMFS_OID_HEX + 1];
    agent *a;
    memfs_code rc = home_agent_repo(h, str_of(of->agent_id), &a, err);

    if (rc == MEMFS_OK)
        rc = home_agent_main(h, str_of(of->agent_id), agent_repo(a), &ret->since, err);
    if (rc < 0)
        return rc;
    oid_hex(&ret->since, hex);
    edit_left_begin(&w, h, of->agent_id);
    jw_key_str(&w, "block", block_id);
    jw_key_text(&w, "since", hex);
    jw_key_text(&w, "label", of->label);
    jw_key_text(&w, "name", by->who->name);
    jw_key_text(&w, "email", by->who->email);
    jw_key_text(&w, "reason", by->reason);
    put_patch(&w, p);
    jw_object_end(&w);
    return MEMFS_OK;
}

static void parts_dispose(part *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_dispose(&parts[i].body);
    free(parts);
}

static memfs_code journal(home *h, memfs_str block_id, const block_holders *of,
                          const block_patch *p, const block_by *by, part *parts, memfs_error *err)
{
    state_doc *docs = mem_alloc(of->n * sizeof(*docs));
    state_change change = { .docs = docs, .n_docs = of->n };
    char id[IDS_MAX_LEN + 1];
    memfs_code rc = MEMFS_OK;

    ids_new("edit", id);
    for (size_t i = 0; i < of->n; i++)
        parts[i].body = (memfs_buf)MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    for (size_t i = 0; rc == MEMFS_OK && i < of->n; i++) {
        snprintf(parts[i].id, sizeof(parts[i].id), "%s.%zu", id, i);
        rc = write_part(h, block_id, &of->list[i], p, by, &parts[i], err);
        docs[i] = (state_doc){ EDIT_KIND, str_of(parts[i].id), buf_str(&parts[i].body), 0 };
    }
    if (rc == MEMFS_OK)
        rc = state_change_apply(h->state, &change, err);
    free(docs);
    return rc;
}

static memfs_code forget_part(home *h, const char *id, memfs_error *err)
{
    const state_doc gone = { EDIT_KIND, str_of(id), MEMFS_STR(""), 0 };
    const state_change change = { .docs = &gone, .n_docs = 1 };

    return state_change_apply(h->state, &change, err);
}

/* Worth another try: what failed was not the change. */
static bool may_come_later(memfs_code rc)
{
    return rc == MEMFS_EUNAVAIL || rc == MEMFS_ENOSPACE || rc == MEMFS_ECORRUPT ||
           rc == MEMFS_EINTERNAL;
}

/* The first is the one that the caller has read: if it is refused, nobody's is changed. */
static memfs_code patch_parts(home *h, const block_holders *of, const block_patch *p,
                              const block_by *by, part *parts, memfs_error *err)
{
    memfs_code first = MEMFS_OK;
    block_by later = *by;

    later.expected = MEMFS_STR("");
    for (size_t i = 0; i < of->n; i++) {
        memfs_error why = MEMFS_ERROR_INIT;
        edit_result result;
        memfs_code rc =
            block_patch_as(h, str_of(of->list[i].agent_id), str_of(of->list[i].label), p,
                           i == 0 ? by : &later, parts[i].id, &parts[i].since, &result, &why);
        bool is_refused = i == 0 && rc < 0;

        if (may_come_later(rc))
            block_turn_left(h);
        for (size_t k = i; !may_come_later(rc) && k < (is_refused ? of->n : i + 1); k++) {
            memfs_error ignored;

            (void)!forget_part(h, parts[k].id, &ignored);
        }
        if (rc < 0 && first == MEMFS_OK) {
            first = rc;
            *err = why;
        }
        if (is_refused)
            break;
    }
    return first;
}

memfs_code block_edit_patch_all(home *h, memfs_str block_id, const block_holders *of,
                                const block_patch *p, const block_by *by, memfs_error *err)
{
    changing loose = { h, p, by };
    part *parts;
    edit_result result;
    memfs_code rc;

    if (of->n == 0)
        return block_not_found(block_id, err);
    if (block_is_loose(&of->list[0]))
        return change_loose(&loose, block_id, patch_row, err);
    if (of->n == 1)
        return block_edit_patch(h, str_of(of->list[0].agent_id), str_of(of->list[0].label), p, by,
                                &result, err);
    parts = mem_alloc(of->n * sizeof(*parts));
    rc = journal(h, block_id, of, p, by, parts, err);
    if (rc == MEMFS_OK)
        rc = patch_parts(h, of, p, by, parts, err);
    parts_dispose(parts, of->n);
    return rc;
}

memfs_code block_edit_delete(home *h, memfs_str block_id, const block_holders *of,
                             const block_by *by, memfs_error *err)
{
    block_by now = *by;
    changing loose = { h, NULL, &now };
    edit_result result;
    memfs_code rc = MEMFS_OK;

    if (of->n == 0)
        return block_not_found(block_id, err);
    for (size_t i = 0; rc == MEMFS_OK && i < of->n; i++) {
        const block_holder *one = &of->list[i];

        rc = block_is_loose(one)
                 ? change_loose(&loose, block_id, drop_row, err)
                 : block_edit_detach(h, str_of(one->agent_id), block_id, false, &now, &result, err);
        now.expected = MEMFS_STR("");
    }
    if (rc == MEMFS_OK && !block_is_loose(&of->list[0])) { /* what a race has left (holders) */
        rc = change_loose(&loose, block_id, drop_row, err);
        rc = rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
    }
    return rc;
}

/* ---- after a crash ---- */

static memfs_code redo(home *h, const char *id, const json_t *body, memfs_error *err)
{
    _cleanup_(mem_freep) char *name =
        mem_printf("%s", json_string_value(json_object_get(body, "name")));
    _cleanup_(mem_freep) char *email =
        mem_printf("%s", json_string_value(json_object_get(body, "email")));
    const store_identity who = { name, email, clock_wall_us() / 1000000 };
    const block_by by = { .who = &who,
                          .read_only = PUSH_READ_ONLY_MAY, /* it was judged when it began */
                          .reason = json_string_value(json_object_get(body, "reason")),
                          .expected =
                              edit_left_text(body, "since") }; /* what came later stays (H3) */
    edit_result result;
    memfs_oid since;
    block_patch p;
    memfs_code rc;

    if (!oid_parse(edit_left_text(body, "since"), &since) || by.reason == NULL)
        return memfs_fail(err, MEMFS_EINTERNAL, "the journal of a change is damaged");
    read_patch(json_object_get(body, "patch"), &p);
    rc = block_patch_as(h, edit_left_text(body, "agent"), edit_left_text(body, "label"), &p, &by,
                        id, &since, &result, err);
    return may_come_later(rc) ? rc : forget_part(h, id, err);
}

memfs_code block_finish_left(home *h, memfs_str block_id, memfs_error *err)
{
    return edit_left_of_block(h, "since", block_id, redo, err);
}

/* In its block's turn, where it may be gone by now. */
static memfs_code redo_in_turn(home *h, const char *id, const json_t *body, memfs_error *err)
{
    memfs_error busy;
    block_turn turn;
    bool is_there;
    memfs_code rc;

    if (block_turn_take(h, edit_left_text(body, "block"), 1000, &turn, &busy) < 0)
        return MEMFS_OK; /* next time */
    rc = edit_left_is_there(h, id, &is_there, err);
    if (rc == MEMFS_OK && is_there)
        rc = redo(h, id, body, err);
    block_turn_end(&turn);
    return rc;
}

memfs_code block_edit_recover(home *h, memfs_error *err)
{
    uint64_t mark = block_turn_mark(h);
    size_t n_there = 0;
    memfs_code rc = edit_recover(h, err);

    if (rc == MEMFS_OK)
        rc = edit_left_each(h, "since", redo_in_turn, &n_there, err);
    if (rc == MEMFS_OK && n_there == 0)
        block_turn_none_left(h, mark);
    loose_follow(h);
    return rc;
}

#define STEP_MS 60000

void block_edit_step(home *h)
{
    memfs_error err;

    if (clock_mono_ms() < h->edits_due_ms)
        return;
    h->edits_due_ms = clock_mono_ms() + STEP_MS;
    if (block_edit_recover(h, &err) < 0)
        home_alarm(h, NULL, "edit_late", "changes that are under way could not be read: %s",
                   err.msg);
}
