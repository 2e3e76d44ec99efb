/*
 * openapi.c - the route table and its documentation as OpenAPI 3.1.
 *
 * Written in one pass over routes.c, so an answer is the table of this very program.  Two things of
 * ours OpenAPI cannot say, and they stand beside it: x-memfs-access is the table's column (auth.h),
 * and a label at a path's end may have slashes in it (OpenAPI's variables are one segment, where a
 * client escapes them).
 */
#include "server/app.h"
#include "server/route_doc.h"

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>

static const char ABOUT[] = "A memory server for agents: memory is files in git, and these routes "
                            "are another way to it, in the wire "
                            "formats of Letta's API. A trailing slash is free; what is below /v1 "
                            "is below /latest too; unknown query "
                            "parameters and body fields are ignored.";

/* ---- types ---- */

static const struct {
    const char *name, *members;
} PLAIN[] = {
    { "text", "\"type\":\"string\"" },
    { "int", "\"type\":\"integer\"" },
    { "number", "\"type\":\"number\"" },
    { "bool", "\"type\":\"boolean\"" },
    { "time", "\"type\":\"string\",\"format\":\"date-time\"" },
    { "object", "\"type\":\"object\"" },
    { "null", "\"type\":\"null\"" },
    { "any", NULL },
    { "agent_id", "\"type\":\"string\",\"pattern\":\"^agent-(local-)?[0-9a-f-]{36}$\"" },
    { "block_id", "\"type\":\"string\",\"pattern\":\"^block-[0-9a-f-]{36}$\"" },
    { "repo_id", "\"type\":\"string\",\"pattern\":\"^repo-[0-9a-f-]{36}$\"" },
    { "commit", "\"type\":\"string\",\"pattern\":\"^[0-9a-f]{40}$\"" },
};

static void put_choices(json_writer *w, memfs_str type)
{
    memfs_str one;

    jw_key_text(w, "type", "string");
    jw_key(w, "enum");
    jw_array(w);
    for (bool goes_on = true; goes_on;) {
        goes_on = str_split(type, '|', &one, &type);
        if (!goes_on)
            one = type;
        jw_str(w, str_make(one.ptr + 1, one.len - 2));
    }
    jw_array_end(w);
}

/* The members of a type's schema, into an object that is open. */
static void put_type(json_writer *w, memfs_str type)
{
    char ref[80];

    if (str_ends_with(type, MEMFS_STR("?"))) {
        jw_key(w, "anyOf");
        jw_array(w);
        jw_object(w);
        put_type(w, str_make(type.ptr, type.len - 1));
        jw_object_end(w);
        jw_raw(w, MEMFS_STR("{\"type\":\"null\"}"));
        jw_array_end(w);
        return;
    }
    if (str_ends_with(type, MEMFS_STR("[]"))) {
        jw_key_text(w, "type", "array");
        jw_key(w, "items");
        jw_object(w);
        put_type(w, str_make(type.ptr, type.len - 2));
        jw_object_end(w);
        return;
    }
    if (type.len > 0 && type.ptr[0] == '\'') {
        put_choices(w, type);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(PLAIN); i++) {
        if (!str_equal(type, str_of(PLAIN[i].name)))
            continue;
        if (PLAIN[i].members != NULL)
            jw_raw(w, str_of(PLAIN[i].members));
        return;
    }
    snprintf(ref, sizeof(ref), "#/components/schemas/%.*s", (int)type.len, type.ptr);
    jw_key_text(w, "$ref", ref);
}

static bool is_always_there(const doc_field *f)
{
    return f->absent == NULL;
}

static bool is_needed(const doc_field *f)
{
    return f->absent == DOC_NEEDED;
}

/* The schema of one field, with its default. */
static void put_field_schema(json_writer *w, const doc_field *f, bool with_meaning)
{
    jw_object(w);
    put_type(w, str_of(f->type));
    if (f->absent != NULL && f->absent != DOC_NEEDED && f->absent != DOC_MAYBE) {
        jw_key(w, "default");
        jw_raw(w, str_of(f->absent));
    }
    if (with_meaning && f->meaning[0] != '\0')
        jw_key_text(w, "description", f->meaning);
    jw_object_end(w);
}

static void put_object(json_writer *w, const doc_field *fields,
                       bool (*is_required)(const doc_field *))
{
    bool has_required = false;

    jw_key_text(w, "type", "object");
    jw_key(w, "properties");
    jw_object(w);
    for (const doc_field *f = fields; f->name != NULL; f++) {
        jw_key(w, f->name);
        put_field_schema(w, f, true);
        has_required |= is_required(f);
    }
    jw_object_end(w);
    if (!has_required)
        return;
    jw_key(w, "required");
    jw_array(w);
    for (const doc_field *f = fields; f->name != NULL; f++)
        if (is_required(f))
            jw_text(w, f->name);
    jw_array_end(w);
}

/* ---- parameters ---- */

static void put_parameter(json_writer *w, const doc_field *f, const char *in)
{
    bool is_in_path = strcmp(in, "path") == 0;

    jw_object(w);
    jw_key_text(w, "name", f->name);
    jw_key_text(w, "in", in);
    if (f->meaning[0] != '\0')
        jw_key_text(w, "description", f->meaning);
    if (is_in_path || is_needed(f))
        jw_key_bool(w, "required", true);
    jw_key(w, "schema");
    put_field_schema(w, f, false);
    jw_object_end(w);
}

/* The next {variable} of a pattern; false when there is none. */
static bool next_variable(const char **at, memfs_str *ret)
{
    const char *begin = strchr(*at, '{'), *end;

    if (begin == NULL)
        return false;
    end = strchr(begin, '}');
    *ret = str_make(begin + 1, (size_t)(end - begin) - 1);
    if (str_ends_with(*ret, MEMFS_STR("...")))
        ret->len -= 3;
    *at = end;
    return true;
}

static void put_parameters(json_writer *w, const route_doc *d)
{
    const char *at = d->pattern;
    memfs_str name;

    jw_key(w, "parameters");
    jw_array(w);
    while (next_variable(&at, &name))
        put_parameter(w, route_doc_variable(d->pattern, name), "path");
    for (size_t i = 0; i < DOC_MAX_LISTS && d->query[i] != NULL; i++)
        for (const doc_field *f = d->query[i]; f->name != NULL; f++)
            put_parameter(w, f, "query");
    for (const doc_field *f = d->headers; f != NULL && f->name != NULL; f++)
        put_parameter(w, f, "header");
    jw_array_end(w);
}

/* ---- bodies and answers ---- */

static void put_body(json_writer *w, const route_doc *d)
{
    bool is_required = d->body_type != NULL;

    if (d->body == NULL && d->body_type == NULL)
        return;
    for (const doc_field *f = d->body; f != NULL && f->name != NULL; f++)
        is_required |= is_needed(f);
    jw_key(w, "requestBody");
    jw_object(w);
    jw_key_bool(w, "required", is_required);
    jw_key(w, "content");
    jw_object(w);
    jw_key(w, d->body_type != NULL ? d->body_type : "application/json");
    jw_object(w);
    jw_key(w, "schema");
    jw_object(w);
    if (d->body != NULL)
        put_object(w, d->body, is_needed);
    jw_object_end(w);
    jw_object_end(w);
    jw_object_end(w);
    jw_object_end(w);
}

static void put_answer(json_writer *w, const char *status, const char *meaning, const char *answer)
{
    bool is_media = strchr(answer, '/') != NULL;

    jw_key(w, status);
    jw_object(w);
    jw_key_text(w, "description", meaning);
    if (answer[0] != '\0') {
        jw_key(w, "content");
        jw_object(w);
        jw_key(w, is_media ? answer : "application/json");
        jw_object(w);
        jw_key(w, "schema");
        jw_object(w);
        if (!is_media)
            put_type(w, str_of(answer));
        jw_object_end(w);
        jw_object_end(w);
        jw_object_end(w);
    }
    jw_object_end(w);
}

/* Every status that is documented, in rising order. */
static const struct {
    int status;
    const char *meaning;
} REFUSALS[] = {
    { 304, "it is what If-None-Match names" },
    { 400, "malformed, or a parameter that is given twice" },
    { 401, "a token is needed, and none that is good was sent" },
    { 403, "the token is good, and not for this" },
    { 404, "no such thing, or another agent's" },
    { 409, "it was changed meanwhile, or the name is taken" },
    { 412, "it is not what If-Match names" },
    { 413, "the body or the answer is too large" },
    { 415, "another content type or encoding is needed" },
    { 421, "another server is meant" },
    { 422, "bad parameters or fields: all of them are named" },
    { 429, "too many wrong tokens came from this address; a good one is served" },
    { 503, "not now; with Retry-After" },
    { 507, "the disk is full" },
};

static bool names(const char *statuses, int status)
{
    char code[8];

    snprintf(code, sizeof(code), "%d", status);
    return statuses != NULL && strstr(statuses, code) != NULL;
}

static bool is_of_git(const route_doc *d)
{
    return strstr(d->answer, "x-git-") != NULL;
}

/* What can be answered besides the good: by who may ask, by what is read, and by the row itself. */
static bool may_answer(const http_route *r, const route_doc *d, int status)
{
    bool has_gate = r->access != HTTP_ACCESS_OPEN && r->access != HTTP_ACCESS_HOOK &&
                    r->access != HTTP_ACCESS_PEER && r->access != HTTP_ACCESS_OWNER;
    bool reads = strchr(d->pattern, '{') != NULL || d->query[0] != NULL || d->body != NULL;

    if (names(d->errors, status))
        return true;
    switch (status) {
    case 304: return d->headers != NULL && strcmp(d->headers->name, "If-None-Match") == 0;
    case 400: return reads;
    case 401: return has_gate || r->access == HTTP_ACCESS_PEER;
    case 403: return has_gate;
    case 404: return has_gate && r->access != HTTP_ACCESS_ALL && strchr(d->pattern, '{') != NULL;
    case 413: return has_gate && !is_of_git(d);
    case 422:
        return reads && r->access != HTTP_ACCESS_OWNER && r->access != HTTP_ACCESS_HOOK &&
               !is_of_git(d);
    case 429: return has_gate && !is_of_git(d);
    case 503: return has_gate || r->access == HTTP_ACCESS_PEER;
    default: return false;
    }
}

static void put_answers(json_writer *w, const http_route *r, const route_doc *d)
{
    char code[8];

    jw_key(w, "responses");
    jw_object(w);
    put_answer(w, d->status != NULL ? d->status : "200", "done", d->answer);
    for (size_t i = 0; i < ARRAY_LEN(REFUSALS); i++) {
        int status = REFUSALS[i].status;
        const char *body = status == 304 ? "" : status == 422 ? "ValidationError" : "Error";

        if (status == 503 && r->access == HTTP_ACCESS_OPEN) /* not ready: as when it is */
            body = d->answer;
        if (!may_answer(r, d, status))
            continue;
        snprintf(code, sizeof(code), "%d", status);
        put_answer(w, code, REFUSALS[i].meaning, body);
    }
    jw_object_end(w);
}

/* ---- one route ---- */

/* "get_v1_agents_agent": unique, as method and pattern are. */
static void put_operation_id(json_writer *w, const route_doc *d)
{
    char id[200];
    size_t n = (size_t)snprintf(id, sizeof(id), "%s", route_method_name(d->method));

    for (size_t i = 0; i < n; i++)
        id[i] = (char)(id[i] | 0x20);
    for (const char *at = d->pattern; *at != '\0' && n < sizeof(id) - 2; at++) {
        bool is_sign = (*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9');

        if (is_sign)
            id[n++] = *at;
        else if (id[n - 1] != '_' && at[1] != '\0')
            id[n++] = '_';
    }
    while (id[n - 1] == '_')
        n--;
    jw_key_str(w, "operationId", str_make(id, n));
}

static void put_operation(json_writer *w, const http_route *r, const route_doc *d)
{
    jw_object(w);
    put_operation_id(w, d);
    jw_key(w, "tags");
    jw_array(w);
    jw_text(w, d->section);
    jw_array_end(w);
    jw_key_text(w, "summary", r->summary);
    if (d->more != NULL)
        jw_key_text(w, "description", d->more);
    if (r->access == HTTP_ACCESS_OPEN || r->access == HTTP_ACCESS_HOOK ||
        r->access == HTTP_ACCESS_OWNER) {
        jw_key(w, "security");
        jw_raw(w, MEMFS_STR("[]"));
    }
    put_parameters(w, d);
    put_body(w, d);
    put_answers(w, r, d);
    jw_key_text(w, "x-memfs-access", route_access_name(r->access));
    jw_object_end(w);
}

/* ---- the whole ---- */

static bool is_shown(const http_route *r, bool with_all)
{
    return with_all || (r->access != HTTP_ACCESS_OWNER && r->access != HTTP_ACCESS_PEER);
}

/* The pattern as OpenAPI has it: "{label...}" is "{label}". */
static void put_path(json_writer *w, const char *pattern)
{
    const char *rest = strstr(pattern, "...}");
    char path[200];

    snprintf(path, sizeof(path), "%.*s%s",
             (int)(rest != NULL ? rest - pattern : (long)strlen(pattern)), pattern,
             rest != NULL ? "}" : "");
    jw_key(w, path);
}

static bool is_first_of_its_path(size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(APP_ROUTES[k].pattern, APP_ROUTES[i].pattern) == 0)
            return false;
    return true;
}

/* All methods of one path stand together, wherever they are in the table. */
static void put_paths(json_writer *w, bool with_all)
{
    jw_key(w, "paths");
    jw_object(w);
    for (size_t i = 0; i < APP_N_ROUTES; i++) {
        if (!is_first_of_its_path(i) || !is_shown(&APP_ROUTES[i], with_all))
            continue;
        put_path(w, APP_ROUTES[i].pattern);
        jw_object(w);
        for (size_t k = i; k < APP_N_ROUTES; k++) {
            const http_route *r = &APP_ROUTES[k];
            const route_doc *d = route_doc_find(r);
            char method[8];

            if (strcmp(r->pattern, APP_ROUTES[i].pattern) != 0 || d == NULL)
                continue;
            snprintf(method, sizeof(method), "%s", route_method_name(r->methods));
            for (char *c = method; *c != '\0'; c++)
                *c = (char)(*c | 0x20);
            jw_key(w, method);
            put_operation(w, r, d);
        }
        jw_object_end(w);
    }
    jw_object_end(w);
}

static void put_schemas(json_writer *w)
{
    jw_key(w, "schemas");
    jw_object(w);
    for (const doc_schema *s = DOC_SCHEMAS; s->name != NULL; s++) {
        jw_key(w, s->name);
        jw_object(w);
        jw_key_text(w, "description", s->meaning);
        put_object(w, s->fields, is_always_there);
        jw_object_end(w);
    }
    jw_object_end(w);
}

void openapi_write(memfs_buf *out, const char *version, bool with_all)
{
    json_writer w = JSON_WRITER_INIT(out);

    jw_object(&w);
    jw_key_text(&w, "openapi", "3.1.0");
    jw_key(&w, "info");
    jw_object(&w);
    jw_key_text(&w, "title", "memfs");
    jw_key_text(&w, "version", version);
    jw_key_text(&w, "description", ABOUT);
    jw_object_end(&w);
    jw_key(&w, "security");
    jw_raw(&w, MEMFS_STR("[{\"bearer\":[]},{\"basic\":[]}]"));
    put_paths(&w, with_all);
    jw_key(&w, "components");
    jw_object(&w);
    put_schemas(&w);
    jw_key(&w, "securitySchemes");
    jw_raw(&w, MEMFS_STR("{\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\"},"
                         "\"basic\":{\"type\":\"http\",\"scheme\":\"basic\"}}"));
    jw_object_end(&w);
    jw_object_end(&w);
}

/* GET /openapi.json: of this program, and the same until it is replaced. */
void openapi_get(http_request *rq, void *ctx)
{
    const app *self = ctx;
    uint8_t hash[HASH_SHA256];
    char tag[2 * HASH_SHA256 + 3] = "\"";

    openapi_write(http_out(rq), self->version, http_is_owner(rq));
    hash_sha256(buf_str(http_out(rq)), hash);
    hash_hex(hash, 16, tag + 1);
    tag[33] = '"';
    if (!http_not_modified(rq, tag))
        http_send(rq, 200, "application/json");
}
