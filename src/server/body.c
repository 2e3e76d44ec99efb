/*
 * body.c - see body.h.  What pydantic 2 says of a JSON body in lax mode was read off FastAPI, as
 * params.c has it for a query.
 *
 *     not JSON                    json_invalid, loc ('body', <byte>)
 *     no object                   model_attributes_type, loc ('body',)
 *     a key that must be there    missing, input: the object
 *     another type                string_type, int_type, int_parsing, int_from_float, bool_type,
 *                                 bool_parsing, dict_type, list_type
 *
 * The input that an error shows is Python's repr, cut where it is long: a body may have megabytes.
 */
#include "server/body.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_SHOWN 1024
#define MAX_SHOWN_DEPTH 8

/* ---- Python's repr of a JSON value ---- */

static void put_py(memfs_buf *out, const json_t *v, int depth);

static void put_py_object(memfs_buf *out, const json_t *v, int depth)
{
    const char *key, *between = "";
    json_t *item;

    buf_putc(out, '{');
    json_object_foreach((json_t *)v, key, item)
    {
        buf_puts(out, between);
        params_py_str(out, str_of(key));
        buf_puts(out, ": ");
        put_py(out, item, depth + 1);
        between = ", ";
    }
    buf_putc(out, '}');
}

static void put_py_array(memfs_buf *out, const json_t *v, int depth)
{
    buf_putc(out, '[');
    for (size_t i = 0; i < json_array_size(v); i++) {
        buf_puts(out, i > 0 ? ", " : "");
        put_py(out, json_array_get(v, i), depth + 1);
    }
    buf_putc(out, ']');
}

static void put_py_scalar(memfs_buf *out, const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        params_py_str(out, str_make(json_string_value(v), json_string_length(v)));
        break;
    case JSON_INTEGER: buf_printf(out, "%lld", (long long)json_integer_value(v)); break;
    case JSON_REAL: buf_printf(out, "%.17g", json_real_value(v)); break;
    case JSON_TRUE: buf_puts(out, "True"); break;
    case JSON_FALSE: buf_puts(out, "False"); break;
    default: buf_puts(out, "None"); break;
    }
}

static void put_py(memfs_buf *out, const json_t *v, int depth)
{
    if (out->too_big)
        return;
    if (depth > MAX_SHOWN_DEPTH && (json_is_object(v) || json_is_array(v)))
        buf_puts(out, "...");
    else if (json_is_object(v))
        put_py_object(out, v, depth);
    else if (json_is_array(v))
        put_py_array(out, v, depth);
    else
        put_py_scalar(out, v);
}

/* ---- errors ---- */

/* loc as Python text, without the parentheses; v NULL: the field is not there. */
static void add_at(body *b, const char *loc, const char *type, const char *msg, const json_t *v,
                   const char *ctx)
{
    _cleanup_(buf_dispose) memfs_buf shown = MEMFS_BUF_INIT(MAX_SHOWN);

    put_py(&shown, v, 0);
    params_add(b->errors, type, loc, msg, shown.too_big ? MEMFS_STR("'...'") : buf_str(&shown),
               ctx);
}

/* 'body', 'files', 2, 'path' */
static void place_of(const body *b, const char *key, char out[256])
{
    snprintf(out, 256, "%.*s, '%.64s'", 180, b->loc, key);
}

static void add(body *b, const char *key, const char *type, const char *msg, const json_t *v)
{
    char loc[256];

    place_of(b, key, loc);
    add_at(b, loc, type, msg, v, NULL);
}

void body_refuse(body *b, const char *key, const char *type, const char *msg)
{
    add(b, key, type, msg, json_object_get(b->object, key));
}

/* ---- life cycle ---- */

static bool is_blank(memfs_str text)
{
    for (size_t i = 0; i < text.len; i++)
        if (strchr(" \t\r\n", text.ptr[i]) == NULL || text.ptr[i] == '\0')
            return false;
    return true;
}

static void add_syntax_error(body *b, const json_error_t *fault)
{
    _cleanup_(buf_dispose) memfs_buf ctx = MEMFS_BUF_INIT(1024);
    char loc[48];

    snprintf(loc, sizeof(loc), "'body', %d", fault->position);
    buf_puts(&ctx, "{'error': ");
    params_py_str(&ctx, str_of(fault->text));
    buf_putc(&ctx, '}');
    params_add(b->errors, "json_invalid", loc, "JSON decode error", MEMFS_STR("{}"), ctx.ptr);
}

static bool begin(body *b, params *errors, memfs_str text, bool may_be_missing)
{
    json_error_t fault;

    *b = (body){ .errors = errors, .loc = "'body'" };
    if (is_blank(text)) {
        if (!may_be_missing)
            params_add(errors, "missing", "'body',", "Field required", MEMFS_STR("None"), NULL);
        return may_be_missing;
    }
    b->root = json_loadb(text.ptr, text.len, JSON_ALLOW_NUL | JSON_DECODE_ANY, &fault);
    if (b->root == NULL) {
        add_syntax_error(b, &fault);
        return false;
    }
    if (json_is_null(b->root) && may_be_missing)
        return true;
    if (!json_is_object(b->root)) {
        add_at(b, "'body',", "model_attributes_type",
               "Input should be a valid dictionary or object to extract fields from", b->root,
               NULL);
        return false;
    }
    b->object = b->root;
    return true;
}

bool body_read(body *b, params *errors, memfs_str text)
{
    return begin(b, errors, text, false);
}

bool body_read_if_any(body *b, params *errors, memfs_str text)
{
    return begin(b, errors, text, true);
}

void body_dispose(body *b)
{
    json_decref(b->root);
    b->root = NULL;
    b->object = NULL;
}

/* ---- fields ---- */

/* The value to judge; NULL: there is none, and that is fine or was said. */
static const json_t *field(body *b, const char *key, body_need need)
{
    const json_t *v = json_object_get(b->object, key);

    if (v == NULL && need == BODY_NEEDED)
        add(b, key, "missing", "Field required", b->object);
    return v == NULL || (json_is_null(v) && need == BODY_NULLABLE) ? NULL : v;
}

bool body_has(const body *b, const char *key)
{
    const json_t *v = json_object_get(b->object, key);

    return v != NULL && !json_is_null(v);
}

static memfs_str text_of(const json_t *v)
{
    return str_make(json_string_value(v), json_string_length(v));
}

bool body_text(body *b, const char *key, body_need need, memfs_str *ret)
{
    const json_t *v = field(b, key, need);

    if (v == NULL)
        return false;
    if (!json_is_string(v)) {
        add(b, key, "string_type", "Input should be a valid string", v);
        return false;
    }
    *ret = text_of(v);
    return true;
}

bool body_clean_text(body *b, const char *key, body_need need, memfs_buf *room, memfs_str *ret)
{
    memfs_str part, rest;

    if (!body_text(b, key, need, ret))
        return false;
    if (ret->len == 0 || memchr(ret->ptr, '\0', ret->len) == NULL)
        return true;
    rest = *ret;
    while (str_split(rest, '\0', &part, &rest))
        buf_add_str(room, part);
    buf_add_str(room, rest);
    *ret = buf_str(room);
    return true;
}

bool body_version(body *b, const char *key, memfs_str *ret)
{
    if (!body_text(b, key, BODY_NULLABLE, ret))
        return false;
    if (ret->len == 0)
        body_refuse(b, key, "string_too_short", "String should have at least 1 character");
    return ret->len > 0;
}

static bool int_of_real(body *b, const char *key, const json_t *v, int64_t *ret)
{
    double d = json_real_value(v);

    if (d != floor(d) || fabs(d) >= 9.2e18) {
        add(b, key, "int_from_float",
            "Input should be a valid integer, got a number with a fractional part", v);
        return false;
    }
    *ret = (int64_t)d;
    return true;
}

bool body_int(body *b, const char *key, body_need need, int64_t *ret)
{
    const json_t *v = field(b, key, need);

    if (v == NULL)
        return false;
    if (json_is_integer(v) || json_is_boolean(v)) {
        *ret = json_is_integer(v) ? (int64_t)json_integer_value(v) : json_is_true(v);
        return true;
    }
    if (json_is_real(v))
        return int_of_real(b, key, v, ret);
    if (json_is_string(v) && params_read_int(text_of(v), ret))
        return true;
    if (json_is_string(v))
        add(b, key, "int_parsing",
            "Input should be a valid integer, unable to parse string as an integer", v);
    else
        add(b, key, "int_type", "Input should be a valid integer", v);
    return false;
}

bool body_count(body *b, const char *key, body_need need, int64_t *ret)
{
    int64_t n;

    if (!body_int(b, key, need, &n))
        return false;
    if (n < 1 || n > INT32_MAX) {
        body_refuse(b, key, "value_error", "Input should be from 1 to 2147483647");
        return false;
    }
    *ret = n;
    return true;
}

bool body_bool(body *b, const char *key, body_need need, bool *ret)
{
    const json_t *v = field(b, key, need);
    double d = v == NULL ? 0 : json_number_value(v);

    if (v == NULL)
        return false;
    if (json_is_boolean(v) || (json_is_number(v) && (d == 0 || d == 1))) {
        *ret = json_is_true(v) || d == 1;
        return true;
    }
    if (json_is_string(v) && params_read_bool(text_of(v), ret))
        return true;
    if (json_is_string(v) || json_is_integer(v))
        add(b, key, "bool_parsing", "Input should be a valid boolean, unable to interpret input",
            v);
    else
        add(b, key, "bool_type", "Input should be a valid boolean", v);
    return false;
}

static void put_json(memfs_buf *out, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);

    buf_puts(out, text != NULL ? text : "null");
    free(text);
}

bool body_map(body *b, const char *key, body_need need, memfs_buf *out)
{
    const json_t *v = field(b, key, need);

    if (v == NULL)
        return false;
    if (!json_is_object(v)) {
        add(b, key, "dict_type", "Input should be a valid dictionary", v);
        return false;
    }
    put_json(out, v);
    return true;
}

bool body_choice(body *b, const char *key, body_need need, const char *const *choices, size_t *ret)
{
    char loc[256];
    memfs_str text;

    if (!body_text(b, key, need, &text))
        return false;
    for (size_t i = 0; choices[i] != NULL; i++) {
        if (str_equal(text, str_of(choices[i]))) {
            *ret = i;
            return true;
        }
    }
    place_of(b, key, loc);
    params_add_choice(b->errors, loc, choices, text);
    return false;
}

/* ---- lists ---- */

bool body_list(body *b, const char *key, body_need need, size_t max, size_t *ret_n)
{
    const json_t *v = field(b, key, need);
    char msg[80];

    if (v == NULL)
        return false;
    if (!json_is_array(v)) {
        add(b, key, "list_type", "Input should be a valid list", v);
        return false;
    }
    if (json_array_size(v) > max) {
        snprintf(msg, sizeof(msg), "List should have at most %zu items after validation", max);
        add(b, key, "too_long", msg, v);
        return false;
    }
    *ret_n = json_array_size(v);
    return true;
}

static const json_t *item(const body *b, const char *key, size_t i)
{
    return json_array_get(json_object_get(b->object, key), i);
}

static void place_of_item(const body *b, const char *key, size_t i, char out[256])
{
    snprintf(out, 256, "%.*s, '%.40s', %zu", 160, b->loc, key, i);
}

bool body_list_text(body *b, const char *key, size_t i, memfs_str *ret)
{
    const json_t *v = item(b, key, i);
    char loc[256];

    if (json_is_string(v)) {
        *ret = text_of(v);
        return true;
    }
    place_of_item(b, key, i, loc);
    add_at(b, loc, "string_type", "Input should be a valid string", v, NULL);
    return false;
}

bool body_list_object(body *b, const char *key, size_t i, body *ret)
{
    const json_t *v = item(b, key, i);

    *ret = (body){ .errors = b->errors };
    place_of_item(b, key, i, ret->loc);
    ret->object = json_is_object(v) ? v : NULL;
    if (ret->object == NULL)
        add_at(b, ret->loc, "model_attributes_type",
               "Input should be a valid dictionary or object to extract fields from", v, NULL);
    return ret->object != NULL;
}

static bool was_before(const body *b, const char *key, size_t n, memfs_str text)
{
    for (size_t i = 0; i < n; i++)
        if (str_equal(text_of(item(b, key, i)), text))
            return true;
    return false;
}

bool body_texts(body *b, const char *key, body_need need, size_t max, bool is_set, memfs_buf *out)
{
    size_t n, n_before = b->errors->n_errors;
    json_writer w = JSON_WRITER_INIT(out);
    memfs_str text;

    if (!body_list(b, key, need, max, &n))
        return false;
    for (size_t i = 0; i < n; i++)
        (void)body_list_text(b, key, i, &text);
    if (b->errors->n_errors > n_before)
        return false;
    jw_array(&w);
    for (size_t i = 0; i < n; i++) {
        text = text_of(item(b, key, i));
        if (!is_set || !was_before(b, key, i, text))
            jw_str(&w, text);
    }
    jw_array_end(&w);
    return true;
}
