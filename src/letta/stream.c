#include "letta/stream.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define MAX_FORWARDED 512 /* bytes of an X-Forwarded-For that are carried on: its end */

/* ---- lines ---- */

void stream_lines_dispose(stream_lines *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->at[i]);
    free(l->at);
    *l = (stream_lines)STREAM_LINES_INIT;
}

/* The text becomes l's. */
static const char *add_line(stream_lines *l, char *text)
{
    if (l->n + 1 >= l->cap) {
        l->cap = l->cap > 0 ? 2 * l->cap : 32;
        l->at = mem_realloc(l->at, l->cap, sizeof(*l->at));
    }
    l->at[l->n++] = text;
    l->at[l->n] = NULL;
    return text;
}

void stream_lines_add(stream_lines *l, const char *name, const char *value)
{
    if (value != NULL)
        add_line(l, mem_printf("%s: %s", name, value));
}

/* ---- fields ---- */

static bool is_name(memfs_str s, const char *name)
{
    return s.len == strlen(name) && strncasecmp(s.ptr, name, s.len) == 0;
}

static bool is_one_of(memfs_str s, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (is_name(s, names[i]))
            return true;
    return false;
}

memfs_str stream_field(const httpc_field *fields, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (is_name(fields[i].name, name))
            return fields[i].value;
    return str_make(NULL, 0);
}

static memfs_str trim(memfs_str s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = str_from(s, 1);
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* Does name stand in a list with commas? */
static bool lists(memfs_str list, memfs_str name)
{
    while (list.len > 0) {
        memfs_str item = list, rest = str_make(list.ptr + list.len, 0);

        str_split(list, ',', &item, &rest);
        item = trim(item);
        if (item.len == name.len && strncasecmp(item.ptr, name.ptr, item.len) == 0)
            return true;
        list = rest;
    }
    return false;
}

static bool connection_lists(const httpc_field *fields, size_t n, memfs_str name)
{
    for (size_t i = 0; i < n; i++)
        if (is_name(fields[i].name, "Connection") && lists(fields[i].value, name))
            return true;
    return false;
}

static bool is_between_neighbours(memfs_str name)
{
    static const char *const names[] = {
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Trailers",
        "Transfer-Encoding",
        "Upgrade",
        "HTTP2-Settings",
        "Content-Length",
    };

    return is_one_of(name, names, ARRAY_LEN(names));
}

static bool is_token(memfs_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL))
            return false;
    }
    return s.len > 0;
}

static bool is_value(memfs_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (((unsigned char)s.ptr[i] < 0x20 && s.ptr[i] != '\t') || s.ptr[i] == 0x7F)
            return false;
    return true;
}

/* ---- addresses ---- */

/* "host", "host:8283", "[::1]:8283": only what such a thing may consist of. */
static bool is_authority(memfs_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            (c == '\0' || strchr("-._:[]", c) == NULL))
            return false;
    }
    return s.len > 0 && s.len <= 255 && s.ptr[0] != ':' && s.ptr[0] != '-';
}

/* Host and port apart; *ret_port 0: none is given.  False: the port is none. */
static bool split_port(memfs_str authority, memfs_str *ret_host, uint64_t *ret_port)
{
    const char *bracket = memrchr(authority.ptr, ']', authority.len);
    const char *colon = memrchr(authority.ptr, ':', authority.len);

    *ret_host = authority;
    *ret_port = 0;
    if (colon == NULL || (bracket != NULL && colon < bracket))
        return true;
    ret_host->len = (size_t)(colon - authority.ptr);
    return str_to_u64(str_from(authority, ret_host->len + 1), UINT16_MAX, ret_port) &&
           *ret_port > 0;
}

/* A name or number without a colon, or an address in brackets. */
static bool is_host(memfs_str s)
{
    bool is_bracketed = s.len > 2 && s.ptr[0] == '[' && s.ptr[s.len - 1] == ']';
    memfs_str inner = is_bracketed ? str_make(s.ptr + 1, s.len - 2) : s;

    return s.len > 0 && memchr(inner.ptr, '[', inner.len) == NULL &&
           memchr(inner.ptr, ']', inner.len) == NULL &&
           (is_bracketed || memchr(inner.ptr, ':', inner.len) == NULL);
}

memfs_code stream_address_parse(const char *text, stream_address *ret, memfs_error *err)
{
    memfs_str rest = str_of(text), host;
    uint64_t port;

    ret->is_tls = strncasecmp(text, "https://", 8) == 0;
    if (!ret->is_tls && strncasecmp(text, "http://", 7) != 0)
        return memfs_fail(err, MEMFS_EINVALID,
                          "the upstream's address must be http:// or https://, a host and a port: "
                          "http://letta:8283");
    rest = str_from(rest, ret->is_tls ? 8 : 7);
    if (memchr(rest.ptr, '@', rest.len) != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "the upstream's address must not hold a user or password; clients send "
                          "their own");
    if (str_ends_with(rest, MEMFS_STR("/")))
        rest.len--;
    if (!is_authority(rest) || !split_port(rest, &host, &port) || !is_host(host))
        return memfs_fail(err, MEMFS_EINVALID,
                          "the upstream's address must be scheme, host and port and nothing else: "
                          "http://letta:8283");
    ret->authority = port == 0 || port == (ret->is_tls ? 443 : 80)
                         ? mem_printf("%.*s", (int)host.len, host.ptr)
                         : mem_printf("%.*s:%u", (int)host.len, host.ptr, (unsigned)port);
    for (char *c = ret->authority; *c != '\0'; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c + 32);
    ret->origin = mem_printf("http%s://%s", ret->is_tls ? "s" : "", ret->authority);
    return MEMFS_OK;
}

void stream_address_dispose(stream_address *a)
{
    free(a->origin);
    free(a->authority);
    *a = (stream_address)STREAM_ADDRESS_INIT;
}

/* ---- the request ---- */

static bool is_forwarded(memfs_str name)
{
    static const char *const names[] = { "X-Forwarded-For",    "X-Forwarded-Proto",
                                         "X-Forwarded-Host",   "X-Forwarded-Port",
                                         "X-Forwarded-Prefix", "X-Forwarded-Server",
                                         "X-Real-IP",          "Forwarded" };

    return is_one_of(name, names, ARRAY_LEN(names));
}

/* Those that are written anew from what the request had. */
static bool is_rewritten(memfs_str name)
{
    static const char *const names[] = {
        "Host", "Expect", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Via"
    };

    return is_one_of(name, names, ARRAY_LEN(names));
}

static bool goes_on(const httpc_field *fields, size_t n, size_t i, const stream_caller *caller)
{
    memfs_str name = fields[i].name;

    return is_token(name) && is_value(fields[i].value) && !is_between_neighbours(name) &&
           !is_rewritten(name) && !is_name(name, "X-Organization-Id") &&
           (caller->is_proxy_believed || !is_forwarded(name)) && !connection_lists(fields, n, name);
}

static void add_field(stream_lines *l, memfs_str name, memfs_str value)
{
    add_line(l, value.len > 0
                    ? mem_printf("%.*s: %.*s", (int)name.len, name.ptr, (int)value.len, value.ptr)
                    : mem_printf("%.*s;", (int)name.len, name.ptr));
}

/* What a proxy that is believed said before us, if that is something to be passed on.  Its own word
 * is the last line: some add theirs behind what the client wrote. */
static memfs_str said_before(const httpc_field *fields, size_t n, const stream_caller *caller,
                             const char *name)
{
    memfs_str value = str_make("", 0);

    for (size_t i = 0; caller->is_proxy_believed && i < n; i++)
        if (is_name(fields[i].name, name))
            value = fields[i].value;
    return value.len > MAX_FORWARDED ? str_make("", 0) : value;
}

/* All lines of the list as one; of a long one the last items, which are those of the proxies. */
static void add_forwarded_for(const httpc_field *fields, size_t n, const stream_caller *caller,
                              stream_lines *l)
{
    _cleanup_(buf_dispose) memfs_buf all = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str said, item, rest;

    for (size_t i = 0; caller->is_proxy_believed && i < n; i++)
        if (is_name(fields[i].name, "X-Forwarded-For") && fields[i].value.len > 0) {
            buf_puts(&all, all.len > 0 ? ", " : "");
            buf_add_str(&all, fields[i].value);
        }
    said = buf_str(&all);
    while (said.len > MAX_FORWARDED)
        said = str_split(said, ',', &item, &rest) ? trim(rest) : str_make("", 0);
    add_line(l, mem_printf("X-Forwarded-For: %.*s%s%s", (int)said.len, said.len > 0 ? said.ptr : "",
                           said.len > 0 ? ", " : "", caller->peer));
}

static void add_forwarded(const httpc_field *fields, size_t n, const stream_caller *caller,
                          stream_lines *l)
{
    memfs_str proto = said_before(fields, n, caller, "X-Forwarded-Proto");
    memfs_str host = said_before(fields, n, caller, "X-Forwarded-Host");

    if (proto.len == 0)
        proto = caller->is_tls ? MEMFS_STR("https") : MEMFS_STR("http");
    if (host.len == 0)
        host = stream_field(fields, n, "Host");
    add_forwarded_for(fields, n, caller, l);
    add_field(l, MEMFS_STR("X-Forwarded-Proto"), proto);
    if (host.len > 0)
        add_field(l, MEMFS_STR("X-Forwarded-Host"), host);
}

/* Did it come through us before?  Others' names in Via go on. */
static memfs_code add_via(const httpc_field *fields, size_t n, const stream_caller *caller,
                          stream_lines *l, memfs_error *err)
{
    _cleanup_(mem_freep) char *own = mem_printf("1.1 %s", caller->via);

    for (size_t i = 0; i < n; i++) {
        if (!is_name(fields[i].name, "Via"))
            continue;
        if (lists(fields[i].value, str_of(own)))
            return memfs_fail(err, MEMFS_ELIMIT,
                              "the request came back here: --upstream names this memfs itself");
        add_field(l, fields[i].name, fields[i].value);
    }
    add_line(l, mem_printf("Via: %s", own));
    return MEMFS_OK;
}

memfs_code stream_request(const httpc_field *fields, size_t n, const stream_caller *caller,
                          stream_lines *ret, memfs_error *err)
{
    static const char *const own[] = { "Accept", "User-Agent" }; /* libcurl's, if there is none */
    memfs_str upgrade = stream_field(fields, n, "Upgrade");

    if (upgrade.ptr != NULL && lists(upgrade, MEMFS_STR("websocket")))
        return memfs_fail(err, MEMFS_EINVALID,
                          "websockets are not passed on; ask the Letta server "
                          "at its own address");
    for (size_t i = 0; i < n; i++)
        if (goes_on(fields, n, i, caller))
            add_field(ret, fields[i].name, fields[i].value);
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (stream_field(fields, n, own[i]).ptr == NULL)
            add_line(ret, mem_printf("%s:", own[i]));
    add_forwarded(fields, n, caller, ret);
    return add_via(fields, n, caller, ret, err);
}

/* The first of a list, which is what the outermost proxy saw. */
static memfs_str first_of(memfs_str list)
{
    memfs_str head = list, rest;

    str_split(list, ',', &head, &rest);
    return trim(head);
}

char *stream_base_called(const httpc_field *fields, size_t n, const stream_caller *caller)
{
    memfs_str proto = first_of(said_before(fields, n, caller, "X-Forwarded-Proto"));
    memfs_str host = first_of(said_before(fields, n, caller, "X-Forwarded-Host")), name;
    bool is_tls = proto.len > 0 ? is_name(proto, "https") : caller->is_tls;
    uint64_t port;

    if (host.len == 0)
        host = stream_field(fields, n, "Host");
    if (host.ptr == NULL || !is_authority(host) || !split_port(host, &name, &port) ||
        !is_host(name))
        return NULL;
    return mem_printf("http%s://%.*s", is_tls ? "s" : "", (int)host.len, host.ptr);
}

/* ---- the answer ---- */

void stream_answer_dispose(stream_answer *a)
{
    free(a->fields);
    stream_lines_dispose(&a->texts);
    *a = (stream_answer)STREAM_ANSWER_INIT;
}

static memfs_code read_length(const httpc_field *fields, size_t n, stream_answer *a,
                              memfs_error *err)
{
    uint64_t length;

    if (stream_field(fields, n, "Transfer-Encoding").ptr != NULL)
        return MEMFS_OK; /* which wins, as everywhere; a Content-Length beside it goes */
    for (size_t i = 0; i < n; i++) {
        if (!is_name(fields[i].name, "Content-Length"))
            continue;
        if (!str_to_u64(fields[i].value, INT64_MAX, &length) ||
            (a->has_length && a->length != (int64_t)length))
            return memfs_fail(err, MEMFS_EINVALID, "its Content-Length is not one number");
        a->has_length = true;
        a->length = (int64_t)length;
    }
    return MEMFS_OK;
}

/* Behind "scheme://authority" of the upstream; NULL ptr: it is somewhere else. */
static memfs_str path_at(const stream_address *upstream, memfs_str url)
{
    memfs_str none = { NULL, 0 }, host, own, authority;
    uint64_t port, own_port;
    bool is_tls = url.len > 8 && strncasecmp(url.ptr, "https://", 8) == 0;
    size_t n;

    /* a server that believes X-Forwarded-Proto writes the client's scheme before its own name */
    if (!is_tls && (url.len <= 7 || strncasecmp(url.ptr, "http://", 7) != 0))
        return none;
    url = str_from(url, is_tls ? 8 : 7);
    for (n = 0; n < url.len && strchr("/?#", url.ptr[n]) == NULL; n++)
        ;
    authority = str_make(url.ptr, n);
    if (!is_authority(authority) || !split_port(authority, &host, &port) ||
        !split_port(str_of(upstream->authority), &own, &own_port))
        return none;
    if (own_port == 0)
        own_port = upstream->is_tls ? 443 : 80;
    if (port == 0)
        port = own_port == 443 || own_port == 80 ? own_port : is_tls ? 443 : 80;
    if (host.len != own.len || strncasecmp(host.ptr, own.ptr, own.len) != 0 || port != own_port)
        return none;
    return str_from(url, n);
}

static memfs_str rewrite(stream_answer *a, memfs_str url, const stream_address *upstream,
                         const char *base)
{
    memfs_str path = path_at(upstream, url);
    bool is_rooted = path.len > 0 && path.ptr[0] == '/';
    /* as a path alone, "//elsewhere" would be another host */
    bool is_other_host = path.len > 1 && is_rooted && path.ptr[1] == '/';

    if (path.ptr == NULL)
        return url;
    return str_of(add_line(&a->texts, mem_printf("%s%s%.*s",
                                                 base != NULL    ? base
                                                 : is_other_host ? "/."
                                                                 : "",
                                                 is_rooted ? "" : "/", (int)path.len, path.ptr)));
}

/* HTTP lets a tab stand for a blank; libmicrohttpd does not. */
static memfs_str without_tabs(stream_answer *a, memfs_str value)
{
    char *copy;

    if (memchr(value.ptr, '\t', value.len) == NULL)
        return value;
    copy = mem_strndup(value.ptr, value.len);
    for (size_t i = 0; i < value.len; i++)
        if (copy[i] == '\t')
            copy[i] = ' ';
    return str_make(add_line(&a->texts, copy), value.len);
}

memfs_code stream_answer_head(const httpc_field *fields, size_t n, const stream_address *upstream,
                              const char *base, stream_answer *ret, memfs_error *err)
{
    memfs_code rc = read_length(fields, n, ret, err);

    if (rc < 0)
        return rc;
    ret->fields = mem_alloc((n + 1) * sizeof(*ret->fields));
    for (size_t i = 0; i < n; i++) {
        httpc_field f = fields[i];

        if (!is_token(f.name) || !is_value(f.value) || is_between_neighbours(f.name) ||
            connection_lists(fields, n, f.name))
            continue;
        f.value = without_tabs(ret, f.value);
        if (is_name(f.name, "Location") || is_name(f.name, "Content-Location"))
            f.value = rewrite(ret, f.value, upstream, base);
        ret->fields[ret->n++] = f;
    }
    return MEMFS_OK;
}
