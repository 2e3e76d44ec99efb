/*
 * The six sets of compatibility vectors, each a function from the "in" of a case to its "out".
 *
 * Where the reference answers by an accident of its plumbing (cases with "quirk"), the answer here
 * is that of the plain rules.
 */
#include "cli/vectors.h"

#include "base/json.h"
#include "memory/base64.h"
#include "memory/block.h"
#include "memory/ids.h"
#include "memory/label.h"
#include "memory/precommit.h"

#include <stdlib.h>

/* The inputs of one case, and where its answer goes: the JSON of "out". */
typedef struct vector {
    json_t *in;
    yaml_doc *doc;
    memfs_buf *out;
} vector;

/* ---- inputs ---- */

/* Text `name`, or bytes in base64 as `name`_b64; false when there is neither (or null). */
static bool get_text(const vector *v, const char *name, memfs_str *ret)
{
    _cleanup_(buf_dispose) memfs_buf b64_name = MEMFS_BUF_INIT(64);
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    const yaml_value *value;
    json_t *b64;

    *ret = str_make("", 0);
    buf_printf(&b64_name, "%s_b64", name);
    b64 = json_object_get(v->in, b64_name.ptr);
    if (b64 != NULL) {
        if (!base64_read(str_of(json_string_value(b64)), &bytes))
            return false;
        *ret = yaml_text(v->doc, buf_str(&bytes))->text;
        return true;
    }
    value = vectors_value_of(json_object_get(v->in, name), v->doc);
    if (value == NULL || value->type != YAML_TEXT)
        return false;
    *ret = value->text;
    return true;
}

static bool get_fields(const vector *v, block_fields *ret)
{
    *ret = (block_fields){ .has_description = get_text(v, "description", &ret->description) };
    get_text(v, "description", &ret->description);
    get_text(v, "value", &ret->value);
    ret->read_only = json_is_true(json_object_get(v->in, "read_only"));
    ret->metadata = vectors_value_of(json_object_get(v->in, "metadata"), v->doc);
    return ret->metadata != NULL;
}

static void put_error(const vector *v, const char *what)
{
    buf_puts(v->out, "{\"error\":");
    vectors_put_text(str_of(what), v->out);
    buf_puts(v->out, "}");
}

static void put_one_text(const vector *v, const char *name, memfs_str text)
{
    buf_printf(v->out, "{\"%s\":", name);
    vectors_put_text(text, v->out);
    buf_puts(v->out, "}");
}

/* ---- the sets ---- */

static void put_field(const vector *v, const char *name, const yaml_value *field)
{
    if (field == NULL)
        return;
    buf_printf(v->out, ",\"%s\":", name);
    vectors_put_value(field, v->out);
}

static void answer_parse(const vector *v)
{
    _cleanup_(buf_dispose) memfs_buf decoded = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(block_dispose) block b = BLOCK_INIT;
    memfs_str content;
    size_t bad_at;

    if (!get_text(v, "content", &content)) {
        put_error(v, "no content");
        return;
    }
    if (json_object_get(v->in, "via") != NULL) {
        if (!block_decode(content, &decoded, &bad_at)) {
            put_error(v, "not UTF-8");
            return;
        }
        content = buf_str(&decoded);
    }
    block_parse(content, &b);
    if (b.aborts_reference) {
        put_error(v, b.problem);
        return;
    }
    buf_puts(v->out, "{\"value\":");
    vectors_put_text(b.value, v->out);
    put_field(v, "description", b.description);
    put_field(v, "limit", b.limit);
    put_field(v, "read_only", b.read_only);
    put_field(v, "metadata", b.metadata);
    buf_puts(v->out, "}");
}

static void answer_serialize(const vector *v)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    block_fields fields;

    if (!get_fields(v, &fields)) {
        put_error(v, "unknown metadata");
        return;
    }
    block_serialize(&fields, &text);
    if (text.too_big)
        put_error(v, "metadata nests too deep");
    else
        put_one_text(v, "text", buf_str(&text));
}

static void answer_merge(const vector *v)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_error err = MEMFS_ERROR_INIT;
    block_fields fields;
    memfs_str existing;

    if (!get_text(v, "existing", &existing) || !get_fields(v, &fields)) {
        put_error(v, "broken input");
        return;
    }
    if (block_merge(existing, &fields, &text, &err) != MEMFS_OK)
        put_error(v, err.msg);
    else
        put_one_text(v, "text", buf_str(&text));
}

static void answer_path_to_label(const vector *v)
{
    memfs_str path, prefixes, label;

    get_text(v, "path", &path);
    get_text(v, "prefixes", &prefixes);
    if (label_of_path(path, prefixes, &label))
        put_one_text(v, "label", label);
    else
        buf_puts(v->out, "{\"label\":null}");
}

static void answer_block_id(const vector *v)
{
    char id[IDS_BLOCK_LEN + 1];
    memfs_str agent_id, label;

    get_text(v, "agent_id", &agent_id);
    get_text(v, "label", &label);
    ids_block_synthetic(agent_id, label, id);
    put_one_text(v, "id", str_of(id));
}

static void put_rule(precommit_rule rule, memfs_str detail, void *ctx)
{
    memfs_buf *rules = ctx;

    (void)detail;
    buf_printf(rules, "%s\"%s\"", rules->len > 0 ? "," : "", precommit_rule_name(rule));
}

/* With head_path, HEAD has nothing at this path: a moved file is a new one. */
static void answer_precommit(const vector *v)
{
    _cleanup_(buf_dispose) memfs_buf rules = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    const char *mode = json_string_value(json_object_get(v->in, "mode"));
    precommit_file file = { .head_mode = 0100644 };
    size_t n;

    get_text(v, "path", &file.path);
    file.has_head = get_text(v, "head", &file.head) && !json_object_get(v->in, "head_path");
    file.has_staged = get_text(v, "staged", &file.staged);
    file.staged_mode = mode != NULL ? (uint32_t)strtoul(mode, NULL, 8) : 0100644;
    n = precommit_check(&file, put_rule, &rules);
    buf_printf(v->out, "{\"verdict\":\"%s\",\"rules\":[%s]}", n > 0 ? "reject" : "accept",
               rules.ptr);
}

static const struct {
    const char *name;
    void (*answer)(const vector *v);
} SETS[] = {
    { "parse", answer_parse },       { "serialize", answer_serialize },
    { "merge", answer_merge },       { "path_to_label", answer_path_to_label },
    { "block_id", answer_block_id }, { "precommit", answer_precommit },
};

static size_t find_set(const char *set)
{
    size_t i = 0;

    while (i < ARRAY_LEN(SETS) && strcmp(SETS[i].name, set) != 0)
        i++;
    return i;
}

bool vectors_has_set(const char *set)
{
    return find_set(set) < ARRAY_LEN(SETS);
}

bool vectors_answer(const char *set, memfs_str line, memfs_buf *out)
{
    json_error_t fault;
    _cleanup_(json_decrefp) json_t *vector_json =
        json_loadb(line.ptr, line.len, JSON_ALLOW_NUL, &fault);
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    json_t *name = json_object_get(vector_json, "name");
    vector v = { json_object_get(vector_json, "in"), doc, out };

    if (!json_is_string(name) || !json_is_object(v.in))
        return false;
    buf_puts(out, "{\"name\":");
    vectors_put_text(str_make(json_string_value(name), json_string_length(name)), out);
    buf_puts(out, ",\"out\":");
    SETS[find_set(set)].answer(&v);
    buf_puts(out, "}\n");
    return true;
}
