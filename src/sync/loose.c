/*
 * loose.c - see loose.h.
 *
 * The cache's tip of LOOSE_AGENT is no commit but the mark of the state that its rows are of. Where
 * as many documents changed after it as the mark counts, each was put once and none went.  Else
 * one may have gone, and it is looked which rows have none; written is only what changed.
 */
#include "sync/loose.h"

#include "base/json.h"
#include "base/mem.h"
#include "memory/block.h"
#include "sync/home_list.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_ROUNDS 5

/* ---- one, as text and back ---- */

void loose_write(const block_row *row, memfs_buf *out)
{
    json_writer w = JSON_WRITER_INIT(out);

    jw_object(&w);
    jw_key_str(&w, "label", row->label);
    jw_key_str(&w, "value", row->value);
    if (row->has_description)
        jw_key_str(&w, "description", row->description);
    jw_key_int(&w, "limit", row->limit);
    jw_key_bool(&w, "read_only", row->read_only);
    jw_key_str(&w, "metadata", row->metadata_json);
    jw_key_str(&w, "tags", row->tags_json);
    jw_key_bool(&w, "hidden", row->hidden);
    jw_key_int(&w, "created_at", row->created_at_us);
    jw_object_end(&w);
}

static memfs_str text_of(const json_t *object, const char *key, memfs_str absent)
{
    const json_t *v = json_object_get(object, key);

    return json_is_string(v) ? str_make(json_string_value(v), json_string_length(v)) : absent;
}

static void row_of(const state_doc *doc, const json_t *body, block_row *ret)
{
    *ret = (block_row){
        .agent_id = LOOSE_AGENT,
        .id = doc->id,
        .path = doc->id,
        .label = text_of(body, "label", MEMFS_STR("")),
        .value = text_of(body, "value", MEMFS_STR("")),
        .has_description = json_object_get(body, "description") != NULL,
        .description = text_of(body, "description", MEMFS_STR("")),
        .limit = json_integer_value(json_object_get(body, "limit")),
        .read_only = json_is_true(json_object_get(body, "read_only")),
        .metadata_json = text_of(body, "metadata", MEMFS_STR("{}")),
        .tags_json = text_of(body, "tags", MEMFS_STR("[]")),
        .hidden = json_is_true(json_object_get(body, "hidden")),
        .created_at_us = json_integer_value(json_object_get(body, "created_at")),
        .problem = MEMFS_STR(""),
    };
    ret->updated_at_us = ret->created_at_us;
    ret->bytes = (int64_t)ret->value.len;
}

static json_t *body_of(const state_doc *doc, memfs_error *err)
{
    json_t *body = json_loadb(doc->body.ptr, doc->body.len, JSON_ALLOW_NUL, NULL);

    if (body == NULL)
        (void)memfs_fail(err, MEMFS_EINTERNAL, "what the state has of block '%.*s' is damaged",
                         (int)doc->id.len, doc->id.ptr);
    return body;
}

/* Copied, so that whoever gets it may change the state and see that. */
typedef struct copied {
    memfs_buf body, id;
    int64_t changed;
} copied;
#define COPIED_INIT                                                                                \
    {                                                                                              \
        .body = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED), .id = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED)     \
    }

static void copied_dispose(copied *c)
{
    buf_dispose(&c->body);
    buf_dispose(&c->id);
}

static memfs_code copy_doc(const state_doc *doc, void *ctx, memfs_error *err)
{
    copied *c = ctx;

    (void)err;
    buf_add_str(&c->body, doc->body);
    buf_add_str(&c->id, doc->id);
    c->changed = doc->changed;
    return MEMFS_OK;
}

memfs_code loose_get(home *h, memfs_str id, loose_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(copied_dispose) copied c = COPIED_INIT;
    state_doc doc = { .kind = LOOSE_KIND };
    json_t *body;
    block_row row;
    memfs_code rc = state_docs(h->state, LOOSE_KIND, id, 0, copy_doc, &c, err);

    if (rc == MEMFS_OK && c.id.len == 0)
        return memfs_fail(err, MEMFS_ENOTFOUND, "Block with id '%.*s' not found", (int)id.len,
                          id.ptr);
    if (rc < 0)
        return rc;
    doc.id = buf_str(&c.id);
    doc.body = buf_str(&c.body);
    body = body_of(&doc, err);
    if (body == NULL)
        return err->code;
    row_of(&doc, body, &row);
    rc = fn(&row, c.changed, ctx, err);
    json_decref(body);
    return rc;
}

static memfs_code put_doc(home *h, const state_doc *doc, memfs_error *err)
{
    const state_change change = { .docs = doc, .n_docs = 1 };
    memfs_code rc = state_change_apply(h->state, &change, err);

    if (rc == MEMFS_OK)
        loose_follow(h);
    return rc;
}

memfs_code loose_put_text(home *h, memfs_str id, memfs_str text, memfs_error *err)
{
    return put_doc(h, &(state_doc){ LOOSE_KIND, id, text, 0 }, err);
}

memfs_code loose_put(home *h, memfs_str id, const block_row *row, int64_t changed, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    if (row != NULL)
        loose_write(row, &body);
    return put_doc(h, &(state_doc){ LOOSE_KIND, id, buf_str(&body), changed }, err);
}

/* ---- the rows ---- */

typedef struct following {
    json_t **bodies; /* what the rows' slices point into */
    char **ids;
    block_row *rows;
    cache_change *changes;
    size_t n, n_seen; /* that the mark counts */
    int64_t mark;
} following;

static void following_dispose(following *f)
{
    for (size_t i = 0; i < f->n; i++) {
        json_decref(f->bodies[i]);
        free(f->ids[i]);
    }
    free(f->bodies);
    free(f->ids);
    free(f->rows);
    free(f->changes);
}

static memfs_code take_doc(const state_doc *doc, void *ctx, memfs_error *err)
{
    following *f = ctx;
    state_doc own = *doc;
    json_t *body = body_of(doc, err);

    if (body == NULL)
        return err->code;
    f->bodies = mem_realloc(f->bodies, f->n + 1, sizeof(*f->bodies));
    f->ids = mem_realloc(f->ids, f->n + 1, sizeof(*f->ids));
    f->rows = mem_realloc(f->rows, f->n + 1, sizeof(*f->rows));
    f->bodies[f->n] = body;
    f->ids[f->n] = mem_strndup(doc->id.ptr, doc->id.len);
    own.id = str_of(f->ids[f->n]);
    row_of(&own, body, &f->rows[f->n++]);
    f->n_seen += doc->changed <= f->mark;
    return MEMFS_OK;
}

memfs_code loose_all(home *h, loose_all_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(following_dispose) following all = { .n = 0 };
    memfs_code rc = state_docs(h->state, LOOSE_KIND, MEMFS_STR(""), 0, take_doc, &all, err);

    return rc < 0 ? rc : fn(all.rows, all.n, ctx, err);
}

static void put_mark(int64_t mark, memfs_oid *ret)
{
    *ret = (memfs_oid){ { 0 } };
    for (size_t i = 0; i < 8; i++)
        ret->id[19 - i] = (uint8_t)((uint64_t)mark >> (8 * i));
    ret->id[0] = 'L'; /* none is zero */
}

static int64_t mark_of(const memfs_oid *tip)
{
    uint64_t mark = 0;

    for (size_t i = 12; i < 20; i++)
        mark = mark << 8 | tip->id[i];
    return (int64_t)mark;
}

memfs_code loose_check_read(memfs_str version, int64_t changed, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid tip, now;

    if (version.len >= MEMFS_OID_HEX && oid_parse(str_make(version.ptr, MEMFS_OID_HEX), &tip) &&
        tip.id[0] == 'L' && mark_of(&tip) >= changed)
        return MEMFS_OK;
    put_mark(changed, &now);
    oid_hex(&now, hex);
    return memfs_fail(err, MEMFS_ECONFLICT,
                      "CONFLICT: the block was expected at %.*s and is at %s: read it again and "
                      "repeat the change",
                      (int)(version.len < 80 ? version.len : 80), version.ptr, hex);
}

static memfs_code apply(home *h, following *f, const id_list *gone, const memfs_oid *from,
                        memfs_error *err)
{
    cache_update u = { .agent_id = LOOSE_AGENT, .from = from, .n_changes = f->n + gone->n };

    put_mark(f->mark, &u.to);
    f->changes = mem_alloc((u.n_changes + 1) * sizeof(*f->changes));
    for (size_t i = 0; i < f->n; i++)
        f->changes[i] = (cache_change){ f->rows[i].path, &f->rows[i] };
    for (size_t i = 0; i < gone->n; i++)
        f->changes[f->n + i] = (cache_change){ str_of(gone->ids[i]), NULL };
    u.changes = f->changes;
    return cache_apply(h->cache, &u, err);
}

static memfs_code take_id(const state_doc *doc, void *ctx, memfs_error *err)
{
    (void)err;
    id_list_add(ctx, doc->id);
    return MEMFS_OK;
}

typedef struct comparing {
    const id_list *there;
    id_list *gone;
} comparing;

static memfs_code take_gone(const block_row *row, void *ctx, memfs_error *err)
{
    const comparing *c = ctx;
    char id[IDS_MAX_LEN + 1];

    (void)err;
    snprintf(id, sizeof(id), "%.*s", (int)row->path.len, row->path.ptr);
    if (!id_list_has(c->there, id))
        id_list_add(c->gone, row->path);
    return MEMFS_OK;
}

/* Rows whose documents are there no more. */
static memfs_code find_gone(home *h, id_list *gone, memfs_error *err)
{
    _cleanup_(id_list_dispose) id_list there = { NULL, 0, 0 };
    const block_query q = { .agent_id = LOOSE_AGENT, .show_hidden = true };
    comparing c = { &there, gone };
    memfs_code rc = state_docs(h->state, LOOSE_KIND, MEMFS_STR(""), 0, take_id, &there, err);

    id_list_sort(&there);
    return rc < 0 ? rc : cache_blocks(h->cache, &q, take_gone, &c, err);
}

static memfs_code follow_once(home *h, memfs_error *err)
{
    _cleanup_(following_dispose) following f = { .n = 0 };
    _cleanup_(id_list_dispose) id_list gone = { NULL, 0, 0 };
    cache_tip tip;
    memfs_code rc = state_docs_mark(h->state, LOOSE_KIND, &f.mark, err);
    int64_t after = 0;
    bool has_tip, is_older; /* the state: it came from a backup */

    if (rc < 0 || f.mark == 0)
        return rc;
    rc = cache_tip_get(h->cache, LOOSE_AGENT, &tip, err);
    has_tip = rc == MEMFS_OK;
    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    if (has_tip)
        after = mark_of(&tip.commit);
    if (after == f.mark)
        return MEMFS_OK;
    is_older = after > f.mark;
    if (is_older)
        after = 0;
    rc = state_docs(h->state, LOOSE_KIND, MEMFS_STR(""), after, take_doc, &f, err);
    if (rc == MEMFS_OK && has_tip && (is_older || f.n_seen != (size_t)(f.mark - after)))
        rc = find_gone(h, &gone, err);
    return rc < 0 ? rc : apply(h, &f, &gone, has_tip ? &tip.commit : NULL, err);
}

void loose_follow(home *h)
{
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = follow_once(h, &err);

    for (int n = 1; rc == MEMFS_ECONFLICT && n < MAX_ROUNDS; n++)
        rc = follow_once(h, &err);
    if (rc < 0)
        home_alarm(h, NULL, "rows_late", "rows of blocks without an agent could not follow: %s",
                   err.msg);
}
