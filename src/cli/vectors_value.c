#include "cli/vectors.h"

#include "base/json.h"
#include "memory/base64.h"

#include <math.h>
#include <stdio.h>

/* ---- reading ---- */

static memfs_str text_of(const json_t *json)
{
    return json_is_string(json) ? str_make(json_string_value(json), json_string_length(json))
                                : str_make(NULL, 0);
}

static yaml_value *list_of(json_t *json, yaml_doc *doc, yaml_type type)
{
    yaml_value *list = yaml_list(doc, type);

    for (size_t i = 0; i < json_array_size(json); i++) {
        yaml_value *item = vectors_value_of(json_array_get(json, i), doc);

        if (item == NULL)
            return NULL;
        yaml_list_add(doc, list, item);
    }
    return list;
}

static yaml_value *pairs_of(json_t *json, yaml_doc *doc)
{
    yaml_value *map = yaml_map(doc);

    for (size_t i = 0; i < json_array_size(json); i++) {
        json_t *pair = json_array_get(json, i);
        yaml_value *key = vectors_value_of(json_array_get(pair, 0), doc);
        yaml_value *value = vectors_value_of(json_array_get(pair, 1), doc);

        if (key == NULL || value == NULL)
            return NULL;
        yaml_map_add(doc, map, key, value);
    }
    return map;
}

static yaml_value *object_of(json_t *json, yaml_doc *doc)
{
    yaml_value *map = yaml_map(doc);

    for (void *at = json_object_iter(json); at != NULL; at = json_object_iter_next(json, at)) {
        memfs_str key = str_make(json_object_iter_key(at), json_object_iter_key_len(at));
        yaml_value *value = vectors_value_of(json_object_iter_value(at), doc);

        if (value == NULL)
            return NULL;
        yaml_map_add(doc, map, yaml_text(doc, key), value);
    }
    return map;
}

static yaml_value *bytes_of(memfs_str base64, yaml_doc *doc, bool is_text)
{
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    if (!base64_read(base64, &bytes))
        return NULL;
    return is_text ? yaml_text(doc, buf_str(&bytes)) : yaml_bytes(doc, buf_str(&bytes));
}

static yaml_value *real_of(memfs_str name, yaml_doc *doc)
{
    if (str_equal(name, MEMFS_STR(".nan")))
        return yaml_float(doc, NAN);
    return yaml_float(doc, str_equal(name, MEMFS_STR("-.inf")) ? -INFINITY : INFINITY);
}

/* Dates are in a form that YAML reads as the same date. */
static yaml_value *moment_of(memfs_str text, yaml_doc *doc)
{
    memfs_error err = MEMFS_ERROR_INIT;
    yaml_value *value;

    return yaml_load(text, doc, &value, NULL, &err) == MEMFS_OK ? value : NULL;
}

static yaml_value *tagged_of(const char *tag, json_t *inner, yaml_doc *doc)
{
    if (strcmp(tag, "$int") == 0)
        return yaml_integer(doc, text_of(inner));
    if (strcmp(tag, "$float") == 0)
        return real_of(text_of(inner), doc);
    if (strcmp(tag, "$date") == 0 || strcmp(tag, "$datetime") == 0)
        return moment_of(text_of(inner), doc);
    if (strcmp(tag, "$bytes") == 0 || strcmp(tag, "$wtf8") == 0)
        return bytes_of(text_of(inner), doc, tag[1] == 'w');
    if (strcmp(tag, "$tuple") == 0)
        return list_of(inner, doc, YAML_TUPLE);
    if (strcmp(tag, "$set") == 0)
        return list_of(inner, doc, YAML_SET);
    return strcmp(tag, "$map") == 0 ? pairs_of(inner, doc) : NULL;
}

yaml_value *vectors_value_of(json_t *json, yaml_doc *doc)
{
    switch (json == NULL ? JSON_NULL : json_typeof(json)) {
    case JSON_OBJECT: {
        void *first = json_object_iter(json);

        if (json_object_size(json) == 1 && json_object_iter_key(first)[0] == '$')
            return tagged_of(json_object_iter_key(first), json_object_iter_value(first), doc);
        return object_of(json, doc);
    }
    case JSON_ARRAY: return list_of(json, doc, YAML_SEQ);
    case JSON_STRING: return yaml_text(doc, text_of(json));
    case JSON_INTEGER: return yaml_int(doc, json_integer_value(json));
    case JSON_REAL: return yaml_float(doc, json_real_value(json));
    case JSON_TRUE: return yaml_bool(doc, true);
    case JSON_FALSE: return yaml_bool(doc, false);
    case JSON_NULL: break;
    }
    return yaml_null(doc);
}

/* ---- writing ---- */

/* The containers that the value in hand stands in, outermost first. */
typedef struct ancestors {
    const yaml_value *at[YAML_MAX_WALK_DEPTH + 1];
    size_t n;
} ancestors;

static bool is_utf8(memfs_str s)
{
    return str_utf8_valid_prefix(s) == s.len;
}

static void put_string(memfs_str s, memfs_buf *out)
{
    json_writer w = JSON_WRITER_INIT(out);

    jw_str(&w, s);
}

static void put_tagged_base64(const char *tag, memfs_str bytes, memfs_buf *out)
{
    buf_printf(out, "{\"%s\":\"", tag);
    base64_write(bytes, out);
    buf_puts(out, "\"}");
}

void vectors_put_text(memfs_str text, memfs_buf *out)
{
    if (is_utf8(text))
        put_string(text, out);
    else
        put_tagged_base64("$wtf8", text, out);
}

static void put_real(double d, memfs_buf *out)
{
    char text[YAML_REAL_LEN];

    yaml_real_text(d, text);
    if (isfinite(d))
        buf_puts(out, text);
    else if (isnan(d))
        buf_puts(out, "{\"$float\":\".nan\"}");
    else
        buf_printf(out, "{\"$float\":\"%s.inf\"}", d < 0 ? "-" : "");
}

static void put_value(const yaml_value *v, ancestors *up, memfs_buf *out);

static void put_items(const yaml_value *v, ancestors *up, memfs_buf *out)
{
    buf_putc(out, '[');
    for (size_t i = 0; i < v->list.n; i++) {
        if (i > 0)
            buf_putc(out, ',');
        put_value(v->list.items[i], up, out);
    }
    buf_putc(out, ']');
}

static bool is_plain_object(const yaml_value *v)
{
    for (size_t i = 0; i < v->map.n; i++) {
        const yaml_value *key = v->map.pairs[i].key;

        if (key->type != YAML_TEXT || !is_utf8(key->text) ||
            (key->text.len > 0 && key->text.ptr[0] == '$'))
            return false;
    }
    return true;
}

static void put_map(const yaml_value *v, ancestors *up, memfs_buf *out)
{
    bool is_plain = is_plain_object(v);

    buf_puts(out, is_plain ? "{" : "{\"$map\":[");
    for (size_t i = 0; i < v->map.n; i++) {
        buf_puts(out, i > 0 ? "," : "");
        buf_puts(out, is_plain ? "" : "[");
        put_value(v->map.pairs[i].key, up, out);
        buf_putc(out, is_plain ? ':' : ',');
        put_value(v->map.pairs[i].value, up, out);
        buf_puts(out, is_plain ? "" : "]");
    }
    buf_puts(out, is_plain ? "}" : "]}");
}

static void put_container(const yaml_value *v, ancestors *up, memfs_buf *out)
{
    for (size_t i = up->n; i-- > 0;) {
        if (up->at[i] == v) {
            buf_printf(out, "{\"$cycle\":%zu}", up->n - i);
            return;
        }
    }
    if (up->n == ARRAY_LEN(up->at) || out->too_big)
        return;
    up->at[up->n++] = v;
    if (v->type == YAML_MAP) {
        put_map(v, up, out);
    } else {
        const char *tag = v->type == YAML_TUPLE ? "$tuple" : v->type == YAML_SET ? "$set" : NULL;

        if (tag != NULL)
            buf_printf(out, "{\"%s\":", tag);
        put_items(v, up, out);
        buf_puts(out, tag != NULL ? "}" : "");
    }
    up->n--;
}

static void put_value(const yaml_value *v, ancestors *up, memfs_buf *out)
{
    char moment[YAML_TIME_LEN];

    switch (v->type) {
    case YAML_NULL: buf_puts(out, "null"); break;
    case YAML_BOOL: buf_puts(out, v->boolean ? "true" : "false"); break;
    case YAML_INT: buf_printf(out, "%lld", (long long)v->integer); break;
    case YAML_BIGINT:
        buf_puts(out, "{\"$int\":\"");
        buf_add_str(out, v->text);
        buf_puts(out, "\"}");
        break;
    case YAML_FLOAT: put_real(v->real, out); break;
    case YAML_TEXT: vectors_put_text(v->text, out); break;
    case YAML_BYTES: put_tagged_base64("$bytes", v->text, out); break;
    case YAML_DATE:
    case YAML_DATETIME:
        yaml_time_text(v, 'T', moment);
        buf_printf(out, "{\"%s\":\"%s\"}", v->type == YAML_DATE ? "$date" : "$datetime", moment);
        break;
    default: put_container(v, up, out); break;
    }
}

void vectors_put_value(const yaml_value *v, memfs_buf *out)
{
    ancestors up;

    up.n = 0;
    put_value(v, &up, out);
}
