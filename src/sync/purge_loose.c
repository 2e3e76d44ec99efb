#include "sync/purge_loose.h"

#include "base/json.h"
#include "base/mem.h"
#include "store/rewrite.h"
#include "sync/home_int.h"
#include "sync/loose.h"

#include <jansson.h>
#include <stdlib.h>

#define MAX_ROUNDS 5 /* somebody changes them meanwhile */

static bool has(memfs_str text, memfs_str needle)
{
    return memmem(text.ptr, text.len, needle.ptr, needle.len) != NULL;
}

/* ---- JSON without the text ---- */

static json_t *clean(const json_t *v, memfs_str needle, bool *ret_changed);

static json_t *clean_text(const char *ptr, size_t len, memfs_str needle, bool *ret_changed)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    if (!has(str_make(ptr, len), needle))
        return json_stringn(ptr, len);
    *ret_changed = true;
    rewrite_text(str_make(ptr, len), needle, &out);
    return json_stringn(out.ptr, out.len);
}

static json_t *clean_object(const json_t *v, memfs_str needle, bool *ret_changed)
{
    json_t *out = json_object(), *item;
    const char *key;

    json_object_foreach((json_t *)v, key, item)
    {
        json_t *name = clean_text(key, strlen(key), needle, ret_changed);

        json_object_set_new(out, json_string_value(name), clean(item, needle, ret_changed));
        json_decref(name);
    }
    return out;
}

static json_t *clean(const json_t *v, memfs_str needle, bool *ret_changed)
{
    json_t *out;

    switch (json_typeof(v)) {
    case JSON_STRING:
        return clean_text(json_string_value(v), json_string_length(v), needle, ret_changed);
    case JSON_OBJECT: return clean_object(v, needle, ret_changed);
    case JSON_ARRAY:
        out = json_array();
        for (size_t i = 0; i < json_array_size(v); i++)
            json_array_append_new(out, clean(json_array_get(v, i), needle, ret_changed));
        return out;
    default: return json_deep_copy(v);
    }
}

/* JSON as a text in a document: "metadata" and "tags". */
static void clean_nested(json_t *body, const char *key, memfs_str needle, bool *ret_changed)
{
    const json_t *text = json_object_get(body, key);
    json_t *v = json_loadb(json_string_value(text) != NULL ? json_string_value(text) : "",
                           json_string_length(text), JSON_ALLOW_NUL, NULL);
    json_t *cleaned = v == NULL ? NULL : clean(v, needle, ret_changed);
    char *out = cleaned == NULL ? NULL : json_dumps(cleaned, JSON_COMPACT);

    if (out != NULL)
        json_object_set_new(body, key, json_string(out));
    free(out);
    json_decref(cleaned);
    json_decref(v);
}

/* ---- the documents ---- */

typedef struct found_doc {
    char *id, *body; /* as it is to be */
    int64_t changed;
} found_doc;

typedef struct finding {
    memfs_str needle;
    found_doc *list;
    size_t n;
} finding;

static void finding_dispose(finding *f)
{
    for (size_t i = 0; i < f->n; i++) {
        free(f->list[i].id);
        free(f->list[i].body);
    }
    free(f->list);
}

static memfs_code look_at(const state_doc *doc, void *ctx, memfs_error *err)
{
    json_t *body = json_loadb(doc->body.ptr, doc->body.len, JSON_ALLOW_NUL, NULL), *now;
    finding *f = ctx;
    bool is_changed = false;

    if (body == NULL)
        return memfs_fail(err, MEMFS_EINTERNAL, "what the state has of block '%.*s' is damaged",
                          (int)doc->id.len, doc->id.ptr);
    clean_nested(body, "metadata", f->needle, &is_changed);
    clean_nested(body, "tags", f->needle, &is_changed);
    now = clean(body, f->needle, &is_changed);
    if (is_changed) {
        f->list = mem_realloc(f->list, f->n + 1, sizeof(*f->list));
        f->list[f->n++] = (found_doc){ .id = mem_strndup(doc->id.ptr, doc->id.len),
                                       .body = json_dumps(now, JSON_COMPACT),
                                       .changed = doc->changed };
    }
    json_decref(now);
    json_decref(body);
    return MEMFS_OK;
}

static memfs_code put(home *h, const found_doc *found, memfs_error *err)
{
    const state_doc doc = { LOOSE_KIND, str_of(found->id), str_of(found->body), found->changed };
    const state_change change = { .docs = &doc, .n_docs = 1 };

    return state_change_apply(h->state, &change, err);
}

static memfs_code purge_once(home *h, memfs_str needle, bool dry_run, purge_loose_fn found,
                             void *ctx, memfs_error *err)
{
    _cleanup_(finding_dispose) finding f = { .needle = needle };
    memfs_code rc = state_docs(h->state, LOOSE_KIND, MEMFS_STR(""), 0, look_at, &f, err);

    for (size_t i = 0; rc == MEMFS_OK && i < f.n; i++) {
        if (!dry_run)
            rc = put(h, &f.list[i], err);
        if (rc == MEMFS_OK)
            found(f.list[i].id, ctx);
    }
    return rc;
}

memfs_code purge_loose(home *h, memfs_str needle, bool dry_run, purge_loose_fn found, void *ctx,
                       memfs_error *err)
{
    memfs_code rc = MEMFS_ECONFLICT;

    if (needle.len == 0)
        return MEMFS_OK;
    for (int i = 0; rc == MEMFS_ECONFLICT && i < MAX_ROUNDS; i++)
        rc = purge_once(h, needle, dry_run, found, ctx, err);
    loose_follow(h);
    return rc;
}

/* ---- what is left ---- */

typedef struct asking {
    memfs_str needle, in_json;
    bool is_there;
} asking;

static void ask(asking *a, memfs_str json)
{
    a->is_there = a->is_there || has(json, a->needle) || has(json, a->in_json);
}

static memfs_code ask_agent(const state_agent *row, void *ctx, memfs_error *err)
{
    (void)err;
    ask(ctx, row->name);
    ask(ctx, row->tags_json);
    ask(ctx, row->fields_json);
    return MEMFS_OK;
}

static memfs_code ask_birth(const state_birth *birth, void *ctx, memfs_error *err)
{
    (void)err;
    ask(ctx, birth->tags_json);
    return MEMFS_OK;
}

memfs_code purge_is_in_state(home *h, memfs_str agent_id, memfs_str needle, bool *ret,
                             memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf quoted = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    const agent_query q = { .id = agent_id, .with_fields = true };
    json_writer w = JSON_WRITER_INIT(&quoted);
    asking a = { .needle = needle };
    memfs_code rc = MEMFS_OK;

    jw_str(&w, needle);
    a.in_json = str_make(quoted.ptr + 1, quoted.len - 2);
    if (needle.len > 0)
        rc = state_agents(h->state, &q, ask_agent, &a, err);
    if (rc == MEMFS_OK && needle.len > 0)
        rc = state_births(h->state, agent_id, MEMFS_STR(""), ask_birth, &a, err);
    *ret = a.is_there;
    return rc;
}
