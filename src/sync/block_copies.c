/*
 * block_copies.c - one change of a block that several agents have, and of one that nobody has.
 *
 * The journal: a document of kind "edit" for each agent, all written at once, with the change and
 * with where that agent's main was.  Each goes when its commit is there.  What a crash leaves is
 * done by block_edit_recover(), unless the history since then has the commit, which names the
 * journal.
 */
#include "sync/block_edit_int.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "sync/home_int.h"
#include "sync/loose.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define KIND MEMFS_STR("edit")
#define AGE_US (INT64_C(300) * 1000000) /* the request that wrote it may be at it still */

/* ---- a loose one ---- */

typedef struct changing {
    home *h;
    const block_patch *p;
    const block_by *by;
} changing;

static memfs_code patch_row(const block_row *row, int64_t changed, void *ctx, memfs_error *err)
{
    const changing *x = ctx;
    const block_patch *p = x->p;
    block_row now = *row;

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
    now.tags_json = p->tags_json.len > 0 ? p->tags_json : row->tags_json;
    if (now.value.len > x->h->options.policy.max_block_bytes)
        return memfs_fail(err, MEMFS_ELIMIT, "a block may have %llu bytes, and this has %zu",
                          (unsigned long long)x->h->options.policy.max_block_bytes, now.value.len);
    return loose_put(x->h, row->id, &now, changed, err);
}

static memfs_code check_loose_tag(home *h, const block_by *by, memfs_error *err)
{
    char now[MEMFS_OID_HEX + 24];
    cache_tip tip;
    memfs_code rc;

    if (by->expected.len == 0)
        return MEMFS_OK;
    rc = cache_tip_get(h->cache, LOOSE_AGENT, &tip, err);
    if (rc < 0)
        return rc;
    oid_hex(&tip.commit, now);
    snprintf(now + MEMFS_OID_HEX, sizeof(now) - MEMFS_OID_HEX, "-%lld", (long long)tip.generation);
    if (by->is_tag && str_equal(by->expected, str_of(now)))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ECONFLICT,
                      "CONFLICT: the block was expected at %.*s and is at %s: read it again and "
                      "repeat the change",
                      (int)(by->expected.len < 80 ? by->expected.len : 80), by->expected.ptr, now);
}

static memfs_code patch_loose(home *h, memfs_str id, const block_patch *p, const block_by *by,
                              memfs_error *err)
{
    changing x = { h, p, by };
    memfs_code rc = check_loose_tag(h, by, err);

    if (rc < 0)
        return rc;
    for (int n = 0; n < 5; n++) { /* on the newest text */
        rc = loose_get(h, id, patch_row, &x, err);
        if (rc != MEMFS_ECONFLICT)
            return rc;
    }
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

static memfs_str text_of(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);

    return v == NULL ? MEMFS_STR("") : str_make(json_string_value(v), json_string_length(v));
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
                          .value = text_of(v, "value"),
                          .description = text_of(v, "description"),
                          .limit = json_integer_value(json_object_get(v, "limit")),
                          .label = text_of(v, "label"),
                          .metadata_json = text_of(v, "metadata"),
                          .tags_json = text_of(v, "tags") };
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
    jw_object(&w);
    jw_key_str(&w, "block", block_id);
    jw_key_text(&w, "agent", of->agent_id);
    jw_key_int(&w, "at", clock_wall_us());
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
        docs[i] = (state_doc){ KIND, str_of(parts[i].id), buf_str(&parts[i].body), 0 };
    }
    if (rc == MEMFS_OK)
        rc = state_change_apply(h->state, &change, err);
    free(docs);
    return rc;
}

static memfs_code forget_part(home *h, const char *id, memfs_error *err)
{
    const state_doc gone = { KIND, str_of(id), MEMFS_STR(""), 0 };
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
    part *parts;
    edit_result result;
    memfs_code rc;

    if (of->n == 0)
        return memfs_fail(err, MEMFS_ENOTFOUND, "Block with id '%.*s' not found", (int)block_id.len,
                          block_id.ptr);
    if (str_equal(str_of(of->list[0].agent_id), LOOSE_AGENT))
        return patch_loose(h, block_id, p, by, err);
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

/* ---- after a crash ---- */

typedef struct left {
    char **ids, **bodies;
    size_t n;
} left;

static void left_dispose(left *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->ids[i]);
        free(l->bodies[i]);
    }
    free(l->ids);
    free(l->bodies);
}

static memfs_code note_left(const state_doc *doc, void *ctx, memfs_error *err)
{
    left *l = ctx;

    (void)err;
    l->ids = mem_realloc(l->ids, l->n + 1, sizeof(*l->ids));
    l->bodies = mem_realloc(l->bodies, l->n + 1, sizeof(*l->bodies));
    l->ids[l->n] = mem_strndup(doc->id.ptr, doc->id.len);
    l->bodies[l->n++] = mem_strndup(doc->body.ptr, doc->body.len);
    return MEMFS_OK;
}

static memfs_code redo(home *h, const char *id, const json_t *body, memfs_error *err)
{
    _cleanup_(mem_freep) char *name =
        mem_printf("%s", json_string_value(json_object_get(body, "name")));
    _cleanup_(mem_freep) char *email =
        mem_printf("%s", json_string_value(json_object_get(body, "email")));
    const store_identity who = { name, email, clock_wall_us() / 1000000 };
    const block_by by = { .who = &who,
                          .read_only = PUSH_READ_ONLY_MAY, /* it was judged when it began */
                          .reason = json_string_value(json_object_get(body, "reason")) };
    edit_result result;
    memfs_oid since;
    block_patch p;
    memfs_code rc;

    if (!oid_parse(text_of(body, "since"), &since) || by.reason == NULL)
        return memfs_fail(err, MEMFS_EINTERNAL, "the journal of a change is damaged");
    read_patch(json_object_get(body, "patch"), &p);
    rc = block_patch_as(h, text_of(body, "agent"), text_of(body, "label"), &p, &by, id, &since,
                        &result, err);
    return may_come_later(rc) ? rc : forget_part(h, id, err);
}

/* Another server's may be under way; of this one nobody is at it in the block's turn. */
static bool is_due(const home *h, const json_t *body)
{
    int64_t at_us = json_integer_value(json_object_get(body, "at"));

    return !home_is_shared(h) || clock_wall_us() - at_us > AGE_US;
}

/* In its block's turn, where it may be gone by now. */
static memfs_code finish_one(home *h, const char *id, memfs_error *err)
{
    _cleanup_(left_dispose) left l = { NULL, NULL, 0 };
    memfs_code rc = state_docs(h->state, KIND, str_of(id), 0, note_left, &l, err);
    json_t *body;

    if (rc < 0 || l.n == 0)
        return rc;
    body = json_loads(l.bodies[0], JSON_ALLOW_NUL, NULL);
    rc = redo(h, id, body, err);
    json_decref(body);
    return rc;
}

memfs_code block_finish_left(home *h, memfs_str block_id, memfs_error *err)
{
    _cleanup_(left_dispose) left l = { NULL, NULL, 0 };
    memfs_code rc = MEMFS_OK;

    if (!home_is_shared(h))
        rc = state_docs(h->state, KIND, MEMFS_STR(""), 0, note_left, &l, err);
    for (size_t i = 0; rc == MEMFS_OK && i < l.n; i++) {
        json_t *body = json_loads(l.bodies[i], JSON_ALLOW_NUL, NULL);

        if (json_object_get(body, "since") != NULL && str_equal(text_of(body, "block"), block_id))
            rc = redo(h, l.ids[i], body, err);
        json_decref(body);
    }
    return rc;
}

/* False: it is there still. */
static bool finish_in_turn(home *h, const char *id, const json_t *body)
{
    memfs_error why = MEMFS_ERROR_INIT;
    block_turn turn;
    memfs_code rc;

    if (!is_due(h, body) || block_turn_take(h, text_of(body, "block"), 1000, &turn, &why) < 0)
        return false;
    rc = finish_one(h, id, &why);
    block_turn_end(&turn);
    if (rc < 0)
        home_alarm(h, NULL, "edit_late", "a change of several agents could not be ended: %s",
                   why.msg);
    return rc == MEMFS_OK;
}

memfs_code block_edit_recover(home *h, memfs_error *err)
{
    _cleanup_(left_dispose) left l = { NULL, NULL, 0 };
    uint64_t mark = block_turn_mark(h);
    bool is_all = true;
    size_t n_ended;
    memfs_code rc = edit_recover(h, &n_ended, err);

    if (rc == MEMFS_OK)
        rc = state_docs(h->state, KIND, MEMFS_STR(""), 0, note_left, &l, err);
    for (size_t i = 0; rc == MEMFS_OK && i < l.n; i++) {
        json_t *body = json_loads(l.bodies[i], JSON_ALLOW_NUL, NULL);

        if (json_object_get(body, "since") != NULL)
            is_all &= finish_in_turn(h, l.ids[i], body);
        json_decref(body);
    }
    if (rc == MEMFS_OK && is_all)
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
