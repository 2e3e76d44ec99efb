/* The documentation of the routes: whole, and made of types that there are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/app.h"
#include "server/route_doc.h"

#include <jansson.h>
#include <stdio.h>

#define N_STATUS_DIGITS 3
#define EACH_DOC(d)                                                                                \
    for (const route_doc *const *table = ROUTE_DOCS; *table != NULL; table++)                      \
        for (const route_doc *d = *table; d->pattern != NULL; d++)

static void every_route_is_documented_once_and_nothing_else_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < APP_N_ROUTES; i++)
        if (route_doc_find(&APP_ROUTES[i]) == NULL)
            fail_msg("%s %s is not documented: give it a row in route_doc.c",
                     route_method_name(APP_ROUTES[i].methods), APP_ROUTES[i].pattern);
    EACH_DOC(d)
    {
        size_t n = 0;

        for (size_t k = 0; k < APP_N_ROUTES; k++)
            n += route_doc_find(&APP_ROUTES[k]) == d;
        if (n != 1)
            fail_msg("the row of %s documents %zu routes", d->pattern, n);
    }
}

static void every_variable_of_a_path_is_documented(void **state)
{
    (void)state;
    EACH_DOC(d)
    {
        const char *at = d->pattern;

        while ((at = strchr(at, '{')) != NULL) {
            memfs_str name = str_make(at + 1, strcspn(at + 1, ".}"));

            if (route_doc_variable(d->pattern, name) == NULL)
                fail_msg("%s: what is {%.*s}?", d->pattern, (int)name.len, name.ptr);
            at++;
        }
    }
}

/* ---- types ---- */

static bool is_plain(memfs_str type)
{
    static const char *const names[] = {
        "text", "int", "number",   "bool",     "time",    "object",
        "null", "any", "agent_id", "block_id", "repo_id", "commit"
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_equal(type, str_of(names[i])))
            return true;
    return false;
}

static bool is_type(memfs_str type)
{
    if (str_ends_with(type, MEMFS_STR("?")))
        return is_type(str_make(type.ptr, type.len - 1));
    if (str_ends_with(type, MEMFS_STR("[]")))
        return is_type(str_make(type.ptr, type.len - 2));
    if (type.len > 2 && type.ptr[0] == '\'')
        return str_ends_with(type, MEMFS_STR("'"));
    return is_plain(type) || doc_schema_find(type) != NULL;
}

/* A name, a type that there is, a default that is JSON, something to say. */
static void check_fields(const char *where, const doc_field *fields, bool is_schema)
{
    for (const doc_field *f = fields; f != NULL && f->name != NULL; f++) {
        bool is_mark = f->absent == NULL || f->absent == DOC_NEEDED || f->absent == DOC_MAYBE;
        json_error_t fault;
        json_t *value;

        if (!is_type(str_of(f->type)))
            fail_msg("%s: '%s' has the type '%s', which is none", where, f->name, f->type);
        assert_non_null(f->meaning);
        assert_true(!is_schema || (is_mark && f->absent != DOC_NEEDED));
        assert_true(is_schema || f->absent != DOC_MAYBE);
        if (is_mark)
            continue;
        value = json_loads(f->absent, JSON_DECODE_ANY, &fault);
        if (value == NULL)
            fail_msg("%s: the default of '%s' is no JSON: %s", where, f->name, f->absent);
        json_decref(value);
    }
}

static void every_type_and_default_is_one(void **state)
{
    (void)state;
    for (const doc_schema *s = DOC_SCHEMAS; s->name != NULL; s++)
        check_fields(s->name, s->fields, true);
    EACH_DOC(d)
    {
        for (size_t k = 0; k < DOC_MAX_LISTS; k++)
            check_fields(d->pattern, d->query[k], false);
        check_fields(d->pattern, d->headers, false);
        check_fields(d->pattern, d->body, false);
        assert_true(d->body == NULL || d->body_type == NULL);
        if (d->answer[0] != '\0' && strchr(d->answer, '/') == NULL && !is_type(str_of(d->answer)))
            fail_msg("%s answers '%s', which is no type", d->pattern, d->answer);
    }
}

static void every_section_is_one_of_the_page(void **state)
{
    (void)state;
    EACH_DOC(d)
    {
        size_t k = 0;

        while (DOC_SECTIONS[k] != NULL && strcmp(DOC_SECTIONS[k], d->section) != 0)
            k++;
        assert_non_null(DOC_SECTIONS[k]);
    }
}

/* ---- what is made of it ---- */

static json_t *load(bool with_all)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4u << 20);
    json_error_t fault;
    json_t *root;

    openapi_write(&out, "1.2.3", with_all);
    assert_false(out.too_big);
    root = json_loadb(out.ptr, out.len, JSON_REJECT_DUPLICATES, &fault);
    if (root == NULL)
        fail_msg("%s at %d", fault.text, fault.position);
    return root;
}

static size_t count_operations(json_t *root)
{
    const char *path, *method;
    json_t *item, *operation;
    size_t n = 0;

    json_object_foreach(json_object_get(root, "paths"), path, item)
    {
        json_object_foreach(item, method, operation)
        {
            assert_true(json_object_size(json_object_get(operation, "responses")) > 0);
            n++;
        }
    }
    return n;
}

static void openapi_has_every_route_and_no_key_twice(void **state)
{
    json_t *root = load(true);

    (void)state;
    assert_int_equal(count_operations(root), APP_N_ROUTES);
    assert_string_equal(json_string_value(json_object_get(root, "openapi")), "3.1.0");
    json_decref(root);
}

static void openapi_tells_clients_nothing_of_the_socket_and_the_other_servers(void **state)
{
    json_t *root = load(false);
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < APP_N_ROUTES; i++)
        n += APP_ROUTES[i].access != HTTP_ACCESS_OWNER && APP_ROUTES[i].access != HTTP_ACCESS_PEER;
    assert_int_equal(count_operations(root), n);
    json_decref(root);
}

/* A status that nothing explains would be left out of the answers without a word. */
static void every_status_that_a_row_names_is_answered(void **state)
{
    json_t *root = load(true), *paths = json_object_get(root, "paths");

    (void)state;
    EACH_DOC(d)
    {
        const char *rest = strstr(d->pattern, "...}");
        char path[200], method[8], status[N_STATUS_DIGITS + 1];
        json_t *operation;

        snprintf(path, sizeof(path), "%.*s%s",
                 (int)(rest != NULL ? (size_t)(rest - d->pattern) : strlen(d->pattern)), d->pattern,
                 rest != NULL ? "}" : "");
        snprintf(method, sizeof(method), "%s", route_method_name(d->method));
        for (char *c = method; *c != '\0'; c++)
            *c = (char)(*c | 0x20);
        operation = json_object_get(json_object_get(paths, path), method);
        assert_non_null(operation);
        for (const char *at = d->errors; at != NULL && at[0] != '\0'; at += at[3] == ' ' ? 4 : 3) {
            memcpy(status, at, N_STATUS_DIGITS);
            status[N_STATUS_DIGITS] = '\0';
            if (json_object_get(json_object_get(operation, "responses"), status) == NULL)
                fail_msg("%s names %s, which openapi.c does not know", d->pattern, status);
        }
    }
    json_decref(root);
}

static void the_page_names_every_route_once(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);

    (void)state;
    route_docs_markdown(&out);
    assert_false(out.too_big);
    for (size_t i = 0; i < APP_N_ROUTES; i++) {
        char row[300];
        const char *at;

        snprintf(row, sizeof(row), "\n| %s | `%s` |", route_method_name(APP_ROUTES[i].methods),
                 APP_ROUTES[i].pattern);
        at = strstr(out.ptr, row);
        assert_non_null(at);
        assert_null(strstr(at + 1, row));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_is_documented_once_and_nothing_else_is),
        cmocka_unit_test(every_variable_of_a_path_is_documented),
        cmocka_unit_test(every_type_and_default_is_one),
        cmocka_unit_test(every_section_is_one_of_the_page),
        cmocka_unit_test(openapi_has_every_route_and_no_key_twice),
        cmocka_unit_test(openapi_tells_clients_nothing_of_the_socket_and_the_other_servers),
        cmocka_unit_test(every_status_that_a_row_names_is_answered),
        cmocka_unit_test(the_page_names_every_route_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
