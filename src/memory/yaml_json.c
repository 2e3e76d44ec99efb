/*
 * Values as JSON and JSON as values.  Reading JSON is jansson's; objects keep their order there.
 */
#include "memory/yaml_int.h"

#include "base/json.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

/* ---- writing ---- */

typedef struct json_out {
    json_writer w;
    memfs_error *err;
} json_out;

static memfs_code refuse(json_out *o, const char *what)
{
    return memfs_fail(o->err, MEMFS_EINVALID, "JSON cannot hold %s", what);
}

static memfs_code put_value(json_out *o, const yaml_value *v, int depth);

static memfs_code put_real(json_out *o, double d)
{
    char text[YAML_REAL_LEN];

    if (!isfinite(d))
        return refuse(o, "an infinity or NaN");
    yaml_real_text(d, text);
    jw_raw(&o->w, str_of(text));
    return MEMFS_OK;
}

static memfs_code put_text(json_out *o, memfs_str text)
{
    if (str_utf8_valid_prefix(text) != text.len)
        return refuse(o, "half a surrogate pair");
    jw_str(&o->w, text);
    return MEMFS_OK;
}

/* Python's json turns these into text. */
static memfs_code put_key(json_out *o, const yaml_value *key)
{
    char text[YAML_REAL_LEN];

    switch (key->type) {
    case YAML_TEXT: break;
    case YAML_NULL: jw_key(&o->w, "null"); return MEMFS_OK;
    case YAML_BOOL: jw_key(&o->w, key->boolean ? "true" : "false"); return MEMFS_OK;
    case YAML_INT:
        snprintf(text, sizeof(text), "%lld", (long long)key->integer);
        jw_key(&o->w, text);
        return MEMFS_OK;
    case YAML_BIGINT: break;
    case YAML_FLOAT:
        yaml_real_text(key->real, text);
        jw_key(&o->w, text);
        return isfinite(key->real) ? MEMFS_OK : refuse(o, "an infinity or NaN");
    default: return refuse(o, "a key that is no text or number");
    }
    if (put_text(o, key->text) != MEMFS_OK)
        return o->err->code;
    buf_putc(o->w.out, ':');
    o->w.needs_comma = false;
    return MEMFS_OK;
}

static memfs_code put_map(json_out *o, const yaml_value *v, int depth)
{
    jw_object(&o->w);
    for (size_t i = 0; i < v->map.n; i++) {
        memfs_code rc = put_key(o, v->map.pairs[i].key);

        if (rc == MEMFS_OK)
            rc = put_value(o, v->map.pairs[i].value, depth + 1);
        if (rc != MEMFS_OK)
            return rc;
    }
    jw_object_end(&o->w);
    return MEMFS_OK;
}

static memfs_code put_list(json_out *o, const yaml_value *v, int depth)
{
    jw_array(&o->w);
    for (size_t i = 0; i < v->list.n; i++) {
        memfs_code rc = put_value(o, v->list.items[i], depth + 1);

        if (rc != MEMFS_OK)
            return rc;
    }
    jw_array_end(&o->w);
    return MEMFS_OK;
}

/* A cycle ends at the depth, an expansion of aliases at the bound of the buffer. */
static memfs_code put_value(json_out *o, const yaml_value *v, int depth)
{
    if (depth > YAML_MAX_WALK_DEPTH)
        return memfs_fail(o->err, MEMFS_ELIMIT, "values nest too deep, or contain themselves");
    if (o->w.out->too_big)
        return buf_check(o->w.out, "the JSON form", o->err);
    switch (v->type) {
    case YAML_NULL: jw_null(&o->w); return MEMFS_OK;
    case YAML_BOOL: jw_bool(&o->w, v->boolean); return MEMFS_OK;
    case YAML_INT: jw_int(&o->w, v->integer); return MEMFS_OK;
    case YAML_BIGINT: jw_raw(&o->w, v->text); return MEMFS_OK;
    case YAML_FLOAT: return put_real(o, v->real);
    case YAML_TEXT: return put_text(o, v->text);
    case YAML_SEQ:
    case YAML_TUPLE: return put_list(o, v, depth);
    case YAML_MAP: return put_map(o, v, depth);
    case YAML_BYTES: return refuse(o, "bytes");
    case YAML_SET: return refuse(o, "a set");
    default: return refuse(o, "a date");
    }
}

memfs_code yaml_to_json(const yaml_value *v, memfs_buf *out, memfs_error *err)
{
    json_out o = { JSON_WRITER_INIT(out), err };
    memfs_code rc = put_value(&o, v, 0);

    return rc != MEMFS_OK ? rc : buf_check(out, "the JSON form", err);
}

/* ---- reading ---- */

static yaml_value *value_of(const json_t *json, yaml_doc *doc, int depth);

static yaml_value *map_of(const json_t *json, yaml_doc *doc, int depth)
{
    yaml_value *map = yaml_map(doc), *value;
    json_t *object = (json_t *)json;

    for (void *at = json_object_iter(object); at != NULL; at = json_object_iter_next(object, at)) {
        memfs_str key = str_make(json_object_iter_key(at), json_object_iter_key_len(at));

        value = value_of(json_object_iter_value(at), doc, depth);
        if (value == NULL)
            return NULL;
        yaml_map_add(doc, map, yaml_text(doc, key), value);
    }
    return map;
}

static yaml_value *list_of(const json_t *json, yaml_doc *doc, int depth)
{
    yaml_value *list = yaml_list(doc, YAML_SEQ), *item;

    for (size_t i = 0; i < json_array_size(json); i++) {
        item = value_of(json_array_get(json, i), doc, depth);
        if (item == NULL)
            return NULL;
        yaml_list_add(doc, list, item);
    }
    return list;
}

/* NULL: nested too deep */
static yaml_value *value_of(const json_t *json, yaml_doc *doc, int depth)
{
    if (depth > YAML_MAX_JSON_DEPTH)
        return NULL;
    switch (json_typeof(json)) {
    case JSON_OBJECT: return map_of(json, doc, depth + 1);
    case JSON_ARRAY: return list_of(json, doc, depth + 1);
    case JSON_STRING:
        return yaml_text(doc, str_make(json_string_value(json), json_string_length(json)));
    case JSON_INTEGER: return yaml_int(doc, json_integer_value(json));
    case JSON_REAL: return yaml_float(doc, json_real_value(json));
    case JSON_TRUE: return yaml_bool(doc, true);
    case JSON_FALSE: return yaml_bool(doc, false);
    case JSON_NULL: break;
    }
    return yaml_null(doc);
}

memfs_code yaml_of_json(memfs_str json, yaml_doc *doc, const yaml_value **ret, memfs_error *err)
{
    json_error_t fault;
    _cleanup_(json_decrefp) json_t *root =
        json_loadb(json.ptr, json.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &fault);
    yaml_value *value;

    if (root == NULL)
        return memfs_fail(err, MEMFS_EINVALID, "not JSON: line %d: %s", fault.line, fault.text);
    value = value_of(root, doc, 0);
    if (value == NULL)
        return memfs_fail(err, MEMFS_ELIMIT, "JSON nests deeper than %d levels",
                          YAML_MAX_JSON_DEPTH);
    *ret = value;
    return MEMFS_OK;
}
