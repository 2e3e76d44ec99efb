/*
 * route_markdown.c - the tables of docs/http-api.md, from the rows that /openapi.json is made of.
 *
 * A part for each section, between two marks, so that scripts/http-api-doc finds its place in the
 * page: a table of the routes, then one for each list of parameters or fields, named once however
 * many routes take it.  What the page says of every route (ETag, git's protocols) is not repeated.
 */
#include "server/app.h"
#include "server/route_doc.h"

/* 'asc'|'desc' as "asc, desc": a bar would end the cell. */
static void put_type(memfs_buf *out, memfs_str type)
{
    memfs_str one;
    bool is_list = str_ends_with(type, MEMFS_STR("[]"));

    if (type.ptr[0] != '\'') {
        buf_printf(out, "%.*s", (int)type.len, type.ptr);
        return;
    }
    if (is_list)
        type.len -= 2;
    for (bool goes_on = true; goes_on;) {
        goes_on = str_split(type, '|', &one, &type);
        if (!goes_on)
            one = type;
        buf_printf(out, "`%.*s`%s", (int)one.len - 2, one.ptr + 1, goes_on ? ", " : "");
    }
    if (is_list)
        buf_puts(out, "; any of them");
}

static void put_absent(memfs_buf *out, const char *absent)
{
    if (absent == DOC_NEEDED)
        buf_puts(out, "needed");
    else if (absent != NULL)
        buf_printf(out, "`%s`", absent);
}

static void put_fields(memfs_buf *out, const char *what, const doc_field *fields)
{
    buf_printf(out, "\n| %s | type | without it | |\n|---|---|---|---|\n", what);
    for (const doc_field *f = fields; f->name != NULL; f++) {
        buf_printf(out, "| `%s` | ", f->name);
        put_type(out, str_of(f->type));
        buf_puts(out, " | ");
        put_absent(out, f->absent);
        buf_printf(out, " | %s |\n", f->meaning);
    }
}

/* The socket's bodies in one cell: `to` text, needed; `dry_run` bool = false */
static void put_short_body(memfs_buf *out, const doc_field *fields)
{
    for (const doc_field *f = fields; f != NULL && f->name != NULL; f++) {
        buf_printf(out, "%s`%s` ", f == fields ? "" : "; ", f->name);
        put_type(out, str_of(f->type));
        if (f->absent == DOC_NEEDED)
            buf_puts(out, ", needed");
        if (f->meaning[0] != '\0')
            buf_printf(out, " (%s)", f->meaning);
    }
}

static bool is_of_section(const route_doc *d, const char *section)
{
    return d != NULL && strcmp(d->section, section) == 0;
}

static void put_route(memfs_buf *out, const http_route *r, const route_doc *d)
{
    buf_printf(out, "| %s | `%s` | %s", route_method_name(r->methods), r->pattern, r->summary);
    if (d->more != NULL)
        buf_printf(out, ". %s", d->more);
    buf_puts(out, " | ");
    if (r->access == HTTP_ACCESS_OWNER)
        put_short_body(out, d->body);
    else if (strchr(d->answer, '/') != NULL)
        buf_printf(out, "`%s`", d->answer);
    else
        put_type(out, str_of(d->answer));
    buf_puts(out, " |\n");
}

static bool is_said_once(const doc_field *list)
{
    return strcmp(list->name, "If-None-Match") == 0 || strcmp(list->name, "Git-Protocol") == 0;
}

/* The n-th list of a route, and what it is a list of; NULL: it has no more. */
static const doc_field *list_of(const route_doc *d, size_t n, const char **ret_what)
{
    for (size_t i = 0; i < DOC_MAX_LISTS; i++) {
        *ret_what = "query";
        if (d->query[i] != NULL && n-- == 0)
            return d->query[i];
    }
    *ret_what = "header";
    if (d->headers != NULL && !is_said_once(d->headers) && n-- == 0)
        return d->headers;
    *ret_what = "body";
    return d->body != NULL && d->body->name != NULL && n == 0 ? d->body : NULL;
}

static bool takes(const route_doc *d, const doc_field *list)
{
    const doc_field *one;
    const char *what;

    for (size_t n = 0; (one = list_of(d, n, &what)) != NULL; n++)
        if (one == list)
            return true;
    return false;
}

/* "Of `GET /v1/agents`, `GET /v1/agents/count`:" and the table; nothing if a route before has it.
 */
static void put_list(memfs_buf *out, size_t first, const doc_field *list, const char *what,
                     const char *section)
{
    bool is_next = false;

    for (size_t i = 0; i < APP_N_ROUTES; i++) {
        const route_doc *d = route_doc_find(&APP_ROUTES[i]);

        if (!is_of_section(d, section) || !takes(d, list))
            continue;
        if (i < first)
            return;
        buf_printf(out, "%s`%s %s`", is_next ? ", " : "\nOf ",
                   route_method_name(APP_ROUTES[i].methods), APP_ROUTES[i].pattern);
        is_next = true;
    }
    buf_puts(out, ":\n");
    put_fields(out, what, list);
}

static void put_lists(memfs_buf *out, size_t i, const char *section)
{
    const route_doc *d = route_doc_find(&APP_ROUTES[i]);
    const doc_field *list;
    const char *what;

    if (!is_of_section(d, section) || APP_ROUTES[i].access == HTTP_ACCESS_OWNER)
        return;
    for (size_t n = 0; (list = list_of(d, n, &what)) != NULL; n++)
        put_list(out, i, list, what, section);
}

static void put_section(memfs_buf *out, const char *section)
{
    bool is_owners = false;

    for (size_t i = 0; i < APP_N_ROUTES; i++)
        is_owners |= APP_ROUTES[i].access == HTTP_ACCESS_OWNER &&
                     is_of_section(route_doc_find(&APP_ROUTES[i]), section);
    buf_printf(out, "<!-- routes: %s (made by scripts/http-api-doc) -->\n", section);
    buf_printf(out, "| method | path | | %s |\n|---|---|---|---|\n", is_owners ? "body" : "answer");
    for (size_t i = 0; i < APP_N_ROUTES; i++) {
        const route_doc *d = route_doc_find(&APP_ROUTES[i]);

        if (is_of_section(d, section))
            put_route(out, &APP_ROUTES[i], d);
    }
    for (size_t i = 0; i < APP_N_ROUTES; i++)
        put_lists(out, i, section);
    buf_puts(out, "<!-- end -->\n");
}

void route_docs_markdown(memfs_buf *out)
{
    for (size_t i = 0; DOC_SECTIONS[i] != NULL; i++)
        put_section(out, DOC_SECTIONS[i]);
}
