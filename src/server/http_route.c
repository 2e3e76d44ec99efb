/*
 * http_route.c - from the raw target of a request to the route that answers it.
 *
 * What was matched is what the handler reads, so there is exactly one parse (T01, T02):
 *
 *     target   = "/" [ segment *( "/" segment ) [ "/" ] ] [ "?" query ]
 *     segment  = 1*( byte | "%" hex hex )
 *
 * It is split on '/' first and each segment is decoded once, so "%2F" never makes a segment and
 * "%252e" never makes a dot.  Refused everywhere: control bytes, NUL and '\', raw or encoded; "."
 * and ".." as a segment, also behind a decoded slash; empty segments; bytes that are no UTF-8; "#";
 * bad escapes; absolute targets.  A decoded slash is legal only in the trailing rest of a route.
 *
 * Pure: no I/O, no allocation.  Fuzzed by tests/fuzz/fuzz_path.c.
 */
#include "server/http_int.h"

#include <assert.h>

static_assert(HTTP_MAX_SEGMENTS <= 32, "http_target.slashed has a bit for each segment");

/* Decodes s at *out, which it moves on.  False: a bad escape. */
static bool decode(memfs_str s, bool plus_is_space, char **out)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (c == '+' && plus_is_space) {
            c = ' ';
        } else if (c == '%') {
            bool is_whole = s.len - i > 2;
            int high = is_whole ? str_hex_digit(s.ptr[i + 1]) : -1;
            int low = is_whole ? str_hex_digit(s.ptr[i + 2]) : -1;

            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        *(*out)++ = c;
    }
    return true;
}

static bool is_dots(memfs_str s)
{
    return str_equal(s, MEMFS_STR(".")) || str_equal(s, MEMFS_STR(".."));
}

static bool has_dot_segment(memfs_str s)
{
    memfs_str head, rest;

    while (str_split(s, '/', &head, &rest)) {
        if (is_dots(head))
            return true;
        s = rest;
    }
    return is_dots(s);
}

static const char *judge_segment(memfs_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];

        if (c < 0x20 || c == 0x7F)
            return "control bytes are not allowed in a path";
        if (c == '\\')
            return "a backslash is not allowed in a path";
    }
    if (str_utf8_valid_prefix(s) != s.len)
        return "the path is not UTF-8";
    if (has_dot_segment(s))
        return "'.' and '..' are not allowed in a path";
    return NULL;
}

static const char *add_segment(http_target *t, memfs_str raw, char **out)
{
    memfs_str *segment = &t->segments[t->n_segments];
    const char *fault;

    if (t->n_segments == HTTP_MAX_SEGMENTS)
        return "the path has too many parts";
    segment->ptr = *out;
    if (!decode(raw, false, out))
        return "the path has a bad percent escape";
    segment->len = (size_t)(*out - segment->ptr);
    fault = judge_segment(*segment);
    if (fault != NULL)
        return fault;
    if (memchr(segment->ptr, '/', segment->len) != NULL)
        t->slashed |= 1u << t->n_segments;
    t->n_segments++;
    return NULL;
}

/* path begins behind the first slash */
static const char *parse_path(memfs_str path, http_target *t, char **out)
{
    memfs_str segment, rest;
    const char *fault;

    while (path.len > 0) {
        bool is_last = !str_split(path, '/', &segment, &rest);

        if (is_last) {
            segment = path;
            rest = str_make(path.ptr + path.len, 0);
        }
        if (segment.len == 0)
            return "the path has an empty part";
        fault = add_segment(t, segment, out);
        if (fault != NULL)
            return fault;
        if (!is_last)
            *(*out)++ = '/';
        path = rest;
    }
    t->end = *out;
    return NULL;
}

static const char *add_pair(http_target *t, memfs_str raw, char **out)
{
    http_pair *pair = &t->pairs[t->n_pairs];
    memfs_str key = raw, value = str_make(raw.ptr + raw.len, 0);

    if (t->n_pairs == HTTP_MAX_PAIRS)
        return "the query has too many parts";
    str_split(raw, '=', &key, &value);
    pair->key.ptr = *out;
    if (!decode(key, true, out))
        return "the query has a bad percent escape";
    pair->key.len = (size_t)(*out - pair->key.ptr);
    pair->value.ptr = *out;
    if (!decode(value, true, out))
        return "the query has a bad percent escape";
    pair->value.len = (size_t)(*out - pair->value.ptr);
    if (memchr(pair->key.ptr, '\0', (size_t)(*out - pair->key.ptr)) != NULL)
        return "NUL is not allowed in a query";
    t->n_pairs++;
    return NULL;
}

static const char *parse_query(memfs_str query, http_target *t, char **out)
{
    while (query.len > 0) {
        memfs_str part = query, rest = str_make(query.ptr + query.len, 0);
        const char *fault;

        str_split(query, '&', &part, &rest);
        fault = part.len > 0 ? add_pair(t, part, out) : NULL;
        if (fault != NULL)
            return fault;
        query = rest;
    }
    return NULL;
}

const char *http_target_parse(memfs_str raw, char *storage, http_target *ret)
{
    memfs_str path = raw, query = str_make(raw.ptr + raw.len, 0);
    const char *fault;
    char *out = storage;

    ret->n_segments = ret->n_pairs = 0;
    ret->slashed = 0;
    ret->end = out;
    if (raw.len == 0 || raw.ptr[0] != '/')
        return "the target must be a path";
    if (memchr(raw.ptr, '#', raw.len) != NULL || memchr(raw.ptr, ' ', raw.len) != NULL)
        return "the target has a byte that must be escaped";
    str_split(raw, '?', &path, &query);
    fault = parse_path(str_from(path, 1), ret, &out);
    if (fault == NULL)
        fault = parse_query(query, ret, &out);
    return fault;
}

/* ---- matching ---- */

static const struct {
    const char *name;
    unsigned method;
} method_names[] = {
    { "GET", HTTP_GET }, { "HEAD", HTTP_GET },    { "POST", HTTP_POST },
    { "PUT", HTTP_PUT }, { "PATCH", HTTP_PATCH }, { "DELETE", HTTP_DELETE },
    { "OPTIONS", HTTP_METHOD_OPTIONS },
};

unsigned http_method_parse(const char *name, bool *ret_is_head)
{
    *ret_is_head = strcmp(name, "HEAD") == 0;
    for (size_t i = 0; i < ARRAY_LEN(method_names); i++)
        if (strcmp(method_names[i].name, name) == 0)
            return method_names[i].method;
    return 0;
}

void http_methods_text(unsigned methods, memfs_buf *out)
{
    for (size_t i = 0; i < ARRAY_LEN(method_names); i++) {
        if (!(methods & method_names[i].method))
            continue;
        if (out->len > 0)
            buf_puts(out, ", ");
        buf_puts(out, method_names[i].name);
    }
}

static bool is_variable(memfs_str part)
{
    return part.len > 2 && part.ptr[0] == '{';
}

static bool is_rest(memfs_str part)
{
    return is_variable(part) && str_ends_with(part, MEMFS_STR("...}"));
}

/* The next part of a pattern, which begins with '/'; false at its end. */
static bool next_part(memfs_str *pattern, memfs_str *ret)
{
    memfs_str rest;

    if (pattern->len < 2)
        return false;
    *pattern = str_from(*pattern, 1);
    if (!str_split(*pattern, '/', ret, &rest)) {
        *ret = *pattern;
        *pattern = str_make(NULL, 0);
    } else {
        *pattern = str_make(rest.ptr - 1, rest.len + 1);
    }
    return true;
}

/* How long the name at text is, which is the segment i of the target; 0: it is not. */
static size_t name_matches(const char *text, const http_target *t, size_t i)
{
    memfs_str s = t->segments[i];

    if (i == 0 && str_equal(s, MEMFS_STR("latest")))
        s = MEMFS_STR("v1");
    if (strncmp(text, s.ptr, s.len) != 0 || (text[s.len] != '/' && text[s.len] != '\0'))
        return 0;
    return s.len;
}

/* A slash that was decoded before segment `from` is no part of any name. */
static bool is_slashed_before(const http_target *t, size_t from)
{
    return (t->slashed & (from >= 32 ? ~0u : (1u << from) - 1)) != 0;
}

/*
 * Every request asks this of half the table, so it goes by the pattern's text, without cutting it.
 */
static bool pattern_matches(const char *at, const http_target *t)
{
    size_t i = 0, n;

    for (; at[0] == '/' && at[1] != '\0'; at += n, i++) {
        if (i == t->n_segments)
            return false;
        at++;
        n = at[0] == '{' ? strcspn(at, "}") + 1 : name_matches(at, t, i);
        if (n == 0)
            return false;
        if (is_rest(str_make(at, n)))
            return !is_slashed_before(t, i);
    }
    return i == t->n_segments && !is_slashed_before(t, i);
}

/* As a server reads it that decodes the whole path first: cut at every slash, decoded ones too. */
static void decode_whole(const http_target *t, http_target *ret)
{
    memfs_str path = str_make(t->segments[0].ptr, (size_t)(t->end - t->segments[0].ptr)), rest;

    ret->n_segments = 0;
    ret->slashed = 0;
    ret->end = t->end;
    for (; path.len > 0 && ret->n_segments < HTTP_MAX_SEGMENTS; path = rest) {
        memfs_str segment = path;

        rest = str_make(path.ptr + path.len, 0);
        str_split(path, '/', &segment, &rest);
        if (segment.len > 0)
            ret->segments[ret->n_segments++] = segment;
    }
}

/*
 * What is relayed is decoded by another server, in its own way; with %2F it could find there what
 * this one keeps for itself (T02).
 */
static bool is_own_elsewhere(const http_route *routes, size_t n, const http_route *relayed,
                             const http_target *target)
{
    http_target whole;

    decode_whole(target, &whole);
    for (size_t i = 0; i < n; i++)
        if (routes[i].access != HTTP_ACCESS_OWNER && pattern_matches(routes[i].pattern, &whole))
            return routes[i].handler != relayed->handler;
    return false;
}

http_match http_route_find(const http_route *routes, size_t n, bool is_owner, unsigned method,
                           const http_target *target)
{
    http_match found = { NULL, 0, NULL };

    for (size_t i = 0; i < n; i++) {
        const http_route *r = &routes[i];

        if ((r->access == HTTP_ACCESS_OWNER && !is_owner) || !pattern_matches(r->pattern, target))
            continue;
        if (r->kind == HTTP_RELAY && (is_owner || found.allowed != 0))
            continue; /* the path is ours, with another method */
        if (r->kind == HTTP_RELAY && target->slashed != 0 && is_own_elsewhere(routes, n, r, target))
            return found;
        if (r->methods & method) {
            found.route = r;
            found.allowed = 0;
            return found;
        }
        found.allowed |= r->methods;
    }
    if (found.allowed == 0 && target->slashed != 0)
        found.fault = "%2F is not allowed here";
    return found;
}

bool http_route_param(const http_route *route, const http_target *target, const char *name,
                      memfs_str *ret)
{
    memfs_str pattern = str_of(route->pattern), part;

    for (size_t i = 0; i < target->n_segments && next_part(&pattern, &part); i++) {
        memfs_str variable;

        if (!is_variable(part))
            continue;
        variable = str_make(part.ptr + 1, part.len - (is_rest(part) ? 5 : 2));
        if (!str_equal(variable, str_of(name)))
            continue;
        *ret = target->segments[i];
        if (is_rest(part))
            ret->len = (size_t)(target->end - ret->ptr);
        return true;
    }
    return false;
}
