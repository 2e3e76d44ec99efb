/*
 * route_doc.h - what each route takes and answers, as data: /openapi.json, the tables of
 * docs/http-api.md and the tests that hold a server to them are made of it.
 *
 * routes.c says who serves a request, this says what it is about; a row belongs to the route of its
 * method and pattern, and each route has one (tests/unit/test_route_doc.c).  What a server answers
 * is compared with it by tests/integration/test_openapi.py: a field that is documented and not
 * answered is a failure, and so is one that is answered and not documented.
 *
 * Types are short texts:
 *
 *     text int number bool time object null any agent_id block_id commit      time: ISO 8601 in UTC
 *     'asc'|'desc'                                                one of these texts
 *     Block                                                       the schema of that name
 *     T[]   T?                                                    many of T; T or null
 *
 * Constant data.  Thread: any.
 */
#ifndef MEMFS_SERVER_ROUTE_DOC_H
#define MEMFS_SERVER_ROUTE_DOC_H

#include "server/http.h"

/*
 * A parameter, a field of a body, or one of a schema; a list of them ends with a NULL name.
 *
 * absent: what counts when a parameter or a body's field is not sent, as JSON; NULL: nothing does;
 * DOC_NEEDED: it must be sent.  Of a schema's field: NULL: it is always answered; DOC_MAYBE: only
 * where its meaning says so.
 */
typedef struct doc_field {
    const char *name, *type, *absent, *meaning;
} doc_field;
extern const char DOC_NEEDED[], DOC_MAYBE[];

typedef struct doc_schema {
    const char *name, *meaning;
    const doc_field *fields;
} doc_schema;
/* Ends with a NULL name. */
extern const doc_schema DOC_SCHEMAS[];
/* NULL: there is none. */
const doc_schema *doc_schema_find(memfs_str name);

#define DOC_MAX_LISTS 4
typedef struct route_doc {
    unsigned method;
    const char *pattern;
    const char *section; /* one of DOC_SECTIONS */
    /*
     * The body of a good answer: a type; "" is an empty body; with a '/' in it, a media type, of
     * which nothing more is said.
     */
    const char *answer;
    const char *more; /* beyond the route's summary, a sentence or some; NULL */
    const doc_field *query[DOC_MAX_LISTS], *headers;
    /* The fields of a JSON body; NULL: there is no body, or body_type says what it is. */
    const doc_field *body;
    const char *body_type; /* a media type; NULL */
    const char *status;    /* of a good answer; NULL: "200" */
    /* "409 412": statuses beyond those that follow from its access and from what it reads; NULL */
    const char *errors;
} route_doc;
/* The rows, as tables that each end with a NULL pattern; ends with NULL. */
extern const route_doc *const ROUTE_DOCS[];
/* In the order of the page; ends with NULL. */
extern const char *const DOC_SECTIONS[];

/* NULL: the route is not documented. */
const route_doc *route_doc_find(const http_route *route);
/* What {name} is in a pattern that begins like this one; NULL: it is not documented. */
const doc_field *route_doc_variable(const char *pattern, memfs_str name);

/*
 * OpenAPI 3.1 of the route table.  with_all: also what is not asked over the network by clients,
 * the routes of the home's socket and of other servers.
 */
void openapi_write(memfs_buf *out, const char *version, bool with_all);
/* The generated parts of docs/http-api.md: one for each section, each between its two marks. */
void route_docs_markdown(memfs_buf *out);

/* A method's name, "?" for none or several. */
const char *route_method_name(unsigned method);
const char *route_access_name(http_access access);

#endif
