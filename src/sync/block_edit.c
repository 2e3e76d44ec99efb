/*
 * block_edit.c - a change of one block, and of all its copies; see block_edit.h.
 *
 *     value, description, read_only, metadata   in the file (block_amend)
 *     tags, limit, hidden                       in the birth of its label; a `limit` in the file goes
 *     label                                     the file's name; the birth goes along with its id,
 *                                               and the old label gets another one
 */
#include "sync/block_edit_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "memory/block.h"
#include "memory/label.h"
#include "sync/home_int.h"
#include "sync/materialise_int.h"
#include "sync/read_only.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- births ---- */

static memfs_code take_birth(const state_birth *birth, void *ctx, memfs_error *err)
{
    owned_birth *b = ctx;

    (void)err;
    b->birth = *birth;
    buf_add_str(&b->tags, birth->tags_json);
    buf_add_str(&b->id, birth->block_id);
    return MEMFS_OK;
}

memfs_code owned_birth_load(home *h, memfs_str agent_id, memfs_str label, owned_birth *ret,
                            memfs_error *err)
{
    char derived[IDS_BLOCK_LEN + 1];
    memfs_code rc = state_births(h->state, agent_id, label, take_birth, ret, err);

    ids_block(agent_id, label, derived);
    if (ret->birth.created_at_us == 0)
        ret->birth.created_at_us = clock_wall_us();
    if (ret->tags.len == 0)
        buf_puts(&ret->tags, "[]");
    ret->birth.label = label;
    ret->birth.tags_json = buf_str(&ret->tags);
    ret->birth.block_id = buf_str(&ret->id);
    ret->has_own_id = ret->id.len > 0;
    snprintf(ret->block_id, sizeof(ret->block_id), "%s", ret->has_own_id ? ret->id.ptr : derived);
    return rc;
}

void owned_birth_dispose(owned_birth *b)
{
    buf_dispose(&b->tags);
    buf_dispose(&b->id);
}

void block_retire_label(edit *e, memfs_str label)
{
    char id[IDS_MAX_LEN + 1];
    state_birth next = { .label = label,
                         .created_at_us = clock_wall_us(),
                         .tags_json = MEMFS_STR("[]") };

    ids_new("block", id);
    next.block_id = str_of(id);
    edit_then_birth(e, &next);
}

/* ---- what was expected ---- */

static memfs_code stale(const edit *e, const block_by *by, memfs_str label, const memfs_oid *blob,
                        memfs_error *err)
{
    char main_hex[MEMFS_OID_HEX + 1], blob_hex[MEMFS_OID_HEX + 1];

    oid_hex(edit_main(e), main_hex);
    oid_hex(blob, blob_hex);
    return memfs_fail(
        err, MEMFS_ECONFLICT,
        "CONFLICT: block '%.*s' was expected at %.*s and is at commit %s (blob %s): read "
        "it again and repeat the change",
        (int)(label.len < 80 ? label.len : 80), label.ptr,
        (int)(by->expected.len < 80 ? by->expected.len : 80), by->expected.ptr, main_hex, blob_hex);
}

/* The tag of the moment; of rows that are behind main the commit alone is compared. */
static bool is_tag_of_now(home *h, const char *agent_id, const edit *e, memfs_str tag)
{
    char now[MEMFS_OID_HEX + 24];
    memfs_error ignored;
    cache_tip tip;

    oid_hex(edit_main(e), now);
    if (cache_tip_get(h->cache, str_of(agent_id), &tip, &ignored) < 0 ||
        !oid_equal(&tip.commit, edit_main(e)))
        return tag.len > MEMFS_OID_HEX && memcmp(tag.ptr, now, MEMFS_OID_HEX) == 0;
    snprintf(now + MEMFS_OID_HEX, sizeof(now) - MEMFS_OID_HEX, "-%lld", (long long)tip.generation);
    return str_equal(tag, str_of(now));
}

memfs_code block_check_expected(home *h, edit *e, const block_by *by, const char *agent_id,
                                memfs_str label, memfs_str path, const memfs_oid *blob,
                                memfs_error *err)
{
    memfs_oid wanted, then;
    memfs_error ignored;
    bool is_good;

    if (by->expected.len == 0)
        return MEMFS_OK;
    if (by->is_tag)
        is_good = is_tag_of_now(h, agent_id, e, by->expected);
    else if (!oid_parse(by->expected, &wanted))
        return memfs_fail(err, MEMFS_EINVALID,
                          "an expected version is a commit or a blob in 40 hex digits");
    else /* the commit, the file itself, or a commit in which it was the same */
        is_good =
            oid_equal(&wanted, edit_main(e)) || oid_equal(&wanted, blob) ||
            (edit_find_at(e, &wanted, path, &then, &ignored) == MEMFS_OK && oid_equal(&then, blob));
    return is_good ? MEMFS_OK : stale(e, by, label, blob, err);
}

/* ---- one change ---- */

typedef struct patching {
    home *h;
    const char *agent_id;
    memfs_str label;
    const block_patch *p;
    const block_by *by;
    const char *edit_id; /* of one of several; NULL */
    memfs_oid since;
} patching;

memfs_code block_path(home *h, memfs_str label, memfs_buf *out)
{
    memfs_str found;

    label_to_path(label, out);
    return label.len > 0 && plan_label(h, buf_str(out), &found) && str_equal(found, label)
               ? MEMFS_OK
               : MEMFS_ENOTFOUND;
}

bool block_is_default_description(memfs_str label, memfs_str description)
{
    const memfs_str tail = MEMFS_STR(" block");

    return description.len == label.len + tail.len && str_starts_with(description, label) &&
           str_ends_with(description, tail);
}

void block_say(edit *e, const block_by *by, const char *verb, memfs_str label, const char *what)
{
    edit_say(e, "%s %.*s block%s\n", verb, (int)label.len, label.ptr, what);
    if (by->reason[0] != '\0')
        edit_say(e, "\n%s\n", by->reason);
}

static memfs_code amend_text(const patching *x, memfs_str old, memfs_buf *out, memfs_error *err)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    block_changes c = { .has_value = x->p->has_value,
                        .value = x->p->value,
                        .has_description = x->p->has_description,
                        .description = x->p->description,
                        .has_read_only = x->p->has_read_only,
                        .read_only = x->p->read_only,
                        .drops_limit = x->p->has_limit };
    memfs_code rc = MEMFS_OK;

    if (x->p->metadata_json.len > 0)
        rc = yaml_of_json(x->p->metadata_json, doc, &c.metadata, err);
    if (rc == MEMFS_OK)
        rc = block_amend(old, &c, out, err);
    if (rc == MEMFS_OK && out->len > x->h->options.policy.max_block_bytes && out->len > old.len)
        rc = memfs_fail(err, MEMFS_ELIMIT, "a block may have %llu bytes, and this has %zu",
                        (unsigned long long)x->h->options.policy.max_block_bytes, out->len);
    return rc;
}

static bool has_text(const json_t *list, const json_t *text)
{
    const json_t *item;
    size_t i;

    json_array_foreach(list, i, item) if (json_equal(item, text)) return true;
    return false;
}

memfs_str block_tags_after(memfs_str now, memfs_str given)
{
    json_t *a = json_loadb(now.ptr, now.len, JSON_ALLOW_NUL, NULL);
    json_t *b = json_loadb(given.ptr, given.len, JSON_ALLOW_NUL, NULL);
    bool is_same = json_array_size(a) == json_array_size(b);
    const json_t *tag;
    size_t i;

    json_array_foreach(b, i, tag) is_same = is_same && has_text(a, tag);
    json_decref(a);
    json_decref(b);
    return is_same ? now : given;
}

static void overlay(const block_patch *p, state_birth *birth)
{
    if (p->has_limit)
        birth->limit = p->limit;
    if (p->has_hidden)
        birth->hidden = p->hidden;
    if (p->tags_json.len > 0)
        birth->tags_json = block_tags_after(birth->tags_json, p->tags_json);
}

static bool is_same_birth(const state_birth *a, const state_birth *b)
{
    return a->limit == b->limit && a->hidden == b->hidden && str_equal(a->tags_json, b->tags_json);
}

static memfs_code move_file(edit *e, const patching *x, memfs_str old_path, memfs_str text,
                            memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf there = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_code rc;

    if (block_path(x->h, x->p->label, &path) < 0)
        return memfs_fail(
            err, MEMFS_EINVALID,
            "INVALID_ARGUMENT: '%.*s' cannot be the label of a block: it names no file",
            (int)(x->p->label.len < 100 ? x->p->label.len : 100), x->p->label.ptr);
    rc = edit_read(e, buf_str(&path), &there, NULL, err);
    if (rc == MEMFS_OK)
        return memfs_fail(err, MEMFS_EEXISTS,
                          "CONFLICT: there is a block with label '%.*s' already",
                          (int)(x->p->label.len < 100 ? x->p->label.len : 100), x->p->label.ptr);
    if (rc != MEMFS_ENOTFOUND)
        return rc;
    rc = edit_put(e, buf_str(&path), text, err);
    return rc < 0 ? rc : edit_remove(e, old_path, err);
}

/* Birth and file; the label's own goes along where it changes. */
static memfs_code put_all(edit *e, const patching *x, memfs_str path, memfs_str text,
                          memfs_error *err)
{
    _cleanup_(owned_birth_dispose) owned_birth was = OWNED_BIRTH_INIT;
    bool is_renamed = x->p->label.len > 0 && !str_equal(x->p->label, x->label);
    state_birth now;
    memfs_code rc = owned_birth_load(x->h, str_of(x->agent_id), x->label, &was, err);

    if (rc < 0)
        return rc;
    now = was.birth;
    overlay(x->p, &now);
    if (is_renamed) {
        now.label = x->p->label;
        now.block_id = str_of(was.block_id);
        block_retire_label(e, x->label);
        rc = move_file(e, x, path, text, err);
    } else {
        rc = edit_put(e, path, text, err);
    }
    if (is_renamed || !is_same_birth(&was.birth, &now))
        edit_set_birth(e, &now);
    return rc;
}

static memfs_code no_block(const patching *x, memfs_error *err)
{
    return memfs_fail(err, MEMFS_ENOTFOUND, "No block with label '%.*s' found for agent '%s'",
                      (int)(x->label.len < 200 ? x->label.len : 200), x->label.ptr, x->agent_id);
}

static memfs_code plan_patch(edit *e, void *ctx, memfs_error *err)
{
    const patching *x = ctx;
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf old = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(x->h->options.policy.max_file_bytes);
    bool is_done = false;
    memfs_oid blob;
    memfs_code rc;

    if (x->edit_id != NULL)
        rc = edit_was_done(e, x->edit_id, &x->since, &is_done, err);
    else
        rc = MEMFS_OK;
    if (rc < 0 || is_done)
        return rc;
    rc = block_path(x->h, x->label, &path);
    if (rc == MEMFS_OK)
        rc = edit_read(e, buf_str(&path), &old, &blob, err);
    if (rc < 0)
        return rc == MEMFS_ENOTFOUND ? no_block(x, err) : rc;
    rc = block_check_expected(x->h, e, x->by, x->agent_id, x->label, buf_str(&path), &blob, err);
    if (rc == MEMFS_OK && x->by->read_only == PUSH_READ_ONLY_MUST_NOT &&
        read_only_says(buf_str(&old)))
        return memfs_fail(
            err, MEMFS_EDENIED,
            "block '%.*s' is read_only and may not be changed with this token; an admin "
            "token may",
            (int)(x->label.len < 200 ? x->label.len : 200), x->label.ptr);
    if (rc == MEMFS_OK)
        rc = amend_text(x, buf_str(&old), &text, err);
    if (rc == MEMFS_OK)
        rc = put_all(e, x, buf_str(&path), buf_str(&text), err);
    if (rc < 0)
        return rc;
    block_say(e, x->by, "Update", x->label, "");
    if (x->edit_id != NULL)
        edit_say(e, "\n" EDIT_TRAILER "%s\n", x->edit_id);
    return MEMFS_OK;
}

memfs_code block_patch_as(home *h, memfs_str agent_id, memfs_str label, const block_patch *p,
                          const block_by *by, const char *edit_id, const memfs_oid *since,
                          edit_result *ret, memfs_error *err)
{
    char agent[IDS_MAX_LEN + 1];
    patching x = { h, agent, label, p, by, edit_id, { { 0 } } };
    const edit_options o = { .who = by->who, .read_only = by->read_only, .why = "block update" };

    snprintf(agent, sizeof(agent), "%.*s", (int)agent_id.len, agent_id.ptr);
    if (since != NULL)
        x.since = *since;
    return edit_memory(h, agent_id, &o, plan_patch, &x, ret, by->ret_is_unclear, err);
}

memfs_code block_edit_patch(home *h, memfs_str agent_id, memfs_str label, const block_patch *p,
                            const block_by *by, edit_result *ret, memfs_error *err)
{
    return block_patch_as(h, agent_id, label, p, by, NULL, NULL, ret, err);
}
