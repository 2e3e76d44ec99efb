#include "remote/url.h"

#include "base/escape.h"
#include "base/mem.h"
#include "base/redact.h"
#include "memory/ids.h"

#include <stdlib.h>
#include <strings.h>

/*
 * The order is: what no address may hold (by byte, and by what a percent-escape stands for), then
 * the kind by how it begins, then its parts.  A part that is not understood is refused: git, ssh
 * and curl each have ideas of their own about odd ones.
 */

#define MAX_BYTES 2048
#define MIN_TOKEN 16

void url_dispose(remote_url *u)
{
    if (u->secret != NULL)
        explicit_bzero(u->secret, strlen(u->secret));
    if (u->username != NULL)
        explicit_bzero(u->username, strlen(u->username));
    free(u->text);
    free(u->origin);
    free(u->host);
    free(u->path);
    free(u->username);
    free(u->secret);
    *u = (remote_url)REMOTE_URL_INIT;
}

static char *take(memfs_str s)
{
    return mem_strndup(s.ptr, s.len);
}

static memfs_code refuse(memfs_error *err, const char *why)
{
    return memfs_fail(err, MEMFS_EINVALID, "the address of the remote %s", why);
}

/* ---- bytes ---- */

static bool is_bad_byte(unsigned char c)
{
    return c < 0x20 || c == 0x7F || c == '\\';
}

/* The byte of a "%xx" at s, or -1. */
static int escaped_byte(memfs_str s)
{
    int high, low;

    if (s.len < 3 || s.ptr[0] != '%')
        return -1;
    high = str_hex_digit(s.ptr[1]);
    low = str_hex_digit(s.ptr[2]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static bool has_controls(memfs_str text)
{
    size_t pos = 0;
    uint32_t cp;

    while (pos < text.len)
        if (!str_utf8_next(text, &pos, &cp) || escape_is_control(cp))
            return true;
    return false;
}

static memfs_code check_bytes(memfs_str text, bool has_escapes, memfs_error *err)
{
    if (has_controls(text))
        return refuse(err, "holds control characters, or bytes that are no UTF-8");
    for (size_t i = 0; i < text.len; i++) {
        int byte = has_escapes && text.ptr[i] == '%' ? escaped_byte(str_from(text, i)) : 0x41;

        if (is_bad_byte((unsigned char)text.ptr[i]))
            return refuse(err, "holds a backslash");
        if (byte < 0)
            return refuse(err, "holds a '%' that begins no escape");
        if (is_bad_byte((unsigned char)byte))
            return refuse(err, "holds a control character or backslash as an escape");
    }
    return MEMFS_OK;
}

static bool has_blank(memfs_str s)
{
    return memchr(s.ptr, ' ', s.len) != NULL;
}

/* Escapes were checked: each stands for one byte. */
static char *decode(memfs_str s)
{
    memfs_buf out = MEMFS_BUF_INIT(MAX_BYTES);

    for (size_t i = 0; i < s.len; i++) {
        int byte = escaped_byte(str_from(s, i));

        buf_putc(&out, byte >= 0 ? (char)byte : s.ptr[i]);
        i += byte >= 0 ? 2 : 0;
    }
    return buf_take(&out, NULL);
}

/*
 * "." or ".." as a part of the path, also escaped: hosts, proxies and curl fold them, so the
 * address would mean another repository than it says, and one template the same for two agents.
 */
static memfs_code check_dots(memfs_str path, bool has_escapes, memfs_error *err)
{
    _cleanup_(mem_freep) char *text = has_escapes ? decode(path) : take(path);
    memfs_str part, rest = str_of(text);
    bool has_more;

    do {
        has_more = str_split(rest, '/', &part, &rest);
        if (!has_more)
            part = rest;
        if (str_equal(part, MEMFS_STR(".")) || str_equal(part, MEMFS_STR("..")))
            return refuse(err, "has '.' or '..' as a part of its path: say the path that is meant");
    } while (has_more);
    return MEMFS_OK;
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool all_of(memfs_str s, const char *others)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_alnum(s.ptr[i]) && (s.ptr[i] == '\0' || strchr(others, s.ptr[i]) == NULL))
            return false;
    return true;
}

static bool all_digits(memfs_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    return s.len > 0;
}

/* ---- hosts ---- */

static bool is_dotted_quad(memfs_str host)
{
    memfs_str part, rest = host;
    uint64_t number;

    for (int i = 0; i < 4; i++) {
        bool has_more = str_split(rest, '.', &part, &rest);

        if (!has_more)
            part = rest;
        if (has_more != (i < 3) || !all_digits(part) || (part.len > 1 && part.ptr[0] == '0') ||
            !str_to_u64(part, 255, &number))
            return false;
    }
    return true;
}

/* "127.1", "0x7f.1" and "2130706433" are addresses to some resolvers and names to others. */
static bool is_odd_number(memfs_str host)
{
    memfs_str last = host, head;

    while (str_split(last, '.', &head, &last) && last.len > 0)
        ;
    return all_digits(last) || (last.len > 1 && last.ptr[0] == '0' && (last.ptr[1] | 32) == 'x');
}

static bool is_bracketed(memfs_str host)
{
    memfs_str inner;

    if (host.len < 4 || host.ptr[0] != '[' || host.ptr[host.len - 1] != ']')
        return false;
    inner = str_make(host.ptr + 1, host.len - 2);
    for (size_t i = 0; i < inner.len; i++)
        if (str_hex_digit(inner.ptr[i]) < 0 && inner.ptr[i] != ':' && inner.ptr[i] != '.')
            return false;
    return memchr(inner.ptr, ':', inner.len) != NULL;
}

static memfs_code check_host(memfs_str host, memfs_error *err)
{
    if (host.len == 0)
        return refuse(err, "has no host");
    if (host.ptr[0] == '-')
        return refuse(err, "has an option where the host should be");
    if (host.ptr[0] == '[')
        return is_bracketed(host) ? MEMFS_OK : refuse(err, "has a host that is no address");
    if (host.len > 253 || host.ptr[0] == '.' || !all_of(host, "-._"))
        return refuse(err, "has a host with characters that no host has");
    if (is_odd_number(host) && !is_dotted_quad(host))
        return refuse(err, "has a number for a host that is no plain IPv4 address");
    return MEMFS_OK;
}

static memfs_code check_user(memfs_str user, memfs_error *err)
{
    if (user.len > 0 && user.ptr[0] == '-')
        return refuse(err, "has an option where the user should be");
    return all_of(user, "-._+@~") ? MEMFS_OK : refuse(err, "has a user name that ssh cannot take");
}

static char *lower(memfs_str s)
{
    char *out = take(s);

    for (char *c = out; *c != '\0'; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c + 32);
    return out;
}

static memfs_code set_host(memfs_str host, memfs_str port, bool has_port, uint16_t usual,
                           remote_url *ret, memfs_error *err)
{
    memfs_code rc = check_host(host, err);
    uint64_t number = usual;

    if (rc < 0)
        return rc;
    if (has_port && (!str_to_u64(port, 65535, &number) || number == 0))
        return refuse(err, "has a port that is no number from 1 to 65535");
    ret->host = lower(host);
    ret->port = (uint16_t)number;
    return MEMFS_OK;
}

/* Splits "host:port"; a ':' inside brackets is the address's own. */
static bool split_port(memfs_str authority, memfs_str *ret_host, memfs_str *ret_port)
{
    size_t end = authority.len;

    while (end > 0 && authority.ptr[end - 1] != ':' && authority.ptr[end - 1] != ']')
        end--;
    *ret_host = authority;
    *ret_port = MEMFS_STR("");
    if (end == 0 || authority.ptr[end - 1] == ']')
        return false;
    *ret_host = str_make(authority.ptr, end - 1);
    *ret_port = str_from(authority, end);
    return true;
}

/* ---- kinds ---- */

static void split_user_info(memfs_str info, remote_url *ret)
{
    memfs_str name, secret;

    if (str_split(info, ':', &name, &secret)) {
        ret->username = name.len > 0 ? decode(name) : NULL;
        ret->secret = secret.len > 0 ? decode(secret) : NULL;
    } else if (info.len >= MIN_TOKEN) {
        ret->secret = decode(info);
    } else if (info.len > 0) {
        ret->username = decode(info);
    }
    if (ret->secret == NULL && ret->username != NULL && strlen(ret->username) >= MIN_TOKEN)
        ret->secret = TAKE_PTR(ret->username); /* "https://token:@host/" */
}

/* authority = what stands between "//" and the path; *ret_info is the user info in it. */
static bool split_authority(memfs_str *authority, memfs_str *ret_info)
{
    const char *at = memrchr(authority->ptr, '@', authority->len);

    *ret_info = MEMFS_STR("");
    if (at == NULL)
        return false;
    *ret_info = str_make(authority->ptr, (size_t)(at - authority->ptr));
    *authority = str_from(*authority, ret_info->len + 1);
    return true;
}

static void split_path(memfs_str rest, memfs_str *ret_authority, memfs_str *ret_path)
{
    size_t n = 0;

    while (n < rest.len && strchr("/?#", rest.ptr[n]) == NULL)
        n++;
    *ret_authority = str_make(rest.ptr, n);
    *ret_path = str_from(rest, n);
}

static void set_origin(remote_url *u, const char *scheme, uint16_t usual)
{
    u->origin = u->port == usual ? mem_printf("%s://%s", scheme, u->host)
                                 : mem_printf("%s://%s:%u", scheme, u->host, u->port);
}

static memfs_code parse_http(memfs_str rest, bool is_tls, remote_url *ret, memfs_error *err)
{
    uint16_t usual = is_tls ? 443 : 80;
    memfs_str authority, path, info, host, port;
    bool has_port;
    memfs_code rc;

    split_path(rest, &authority, &path);
    split_authority(&authority, &info);
    if (memchr(path.ptr, '?', path.len) != NULL || memchr(path.ptr, '#', path.len) != NULL)
        return refuse(err, "has a query or fragment, which no repository has");
    has_port = split_port(authority, &host, &port);
    rc = set_host(host, port, has_port, usual, ret, err);
    if (rc < 0)
        return rc;
    ret->kind = is_tls ? URL_HTTPS : URL_HTTP;
    ret->path = path.len > 0 ? take(path) : mem_strdup("/");
    set_origin(ret, is_tls ? "https" : "http", usual);
    ret->text = mem_printf("%s%s", ret->origin, ret->path);
    split_user_info(info, ret);
    return MEMFS_OK;
}

static memfs_code set_ssh_path(memfs_str path, remote_url *ret, memfs_error *err)
{
    if (path.len == 0 || str_equal(path, MEMFS_STR("/")) || strchr("?#", path.ptr[0]) != NULL)
        return refuse(err, "names a host but no repository");
    if (path.ptr[0] == '-')
        return refuse(err, "has an option where the path should be");
    ret->path = path.ptr[0] == '/' ? take(path) : mem_printf("/%.*s", (int)path.len, path.ptr);
    return MEMFS_OK;
}

/* A password in an ssh address is of no use to ssh: it is taken out and kept apart all the same. */
static memfs_code parse_ssh(memfs_str rest, remote_url *ret, memfs_error *err)
{
    memfs_str authority, path, info, user, host, port;
    bool has_port;
    memfs_code rc;

    split_path(rest, &authority, &path);
    split_authority(&authority, &info);
    has_port = split_port(authority, &host, &port);
    if (str_split(info, ':', &user, &info))
        ret->secret = info.len > 0 ? decode(info) : NULL;
    else
        user = info;
    rc = check_user(user, err);
    if (rc == MEMFS_OK)
        rc = set_host(host, port, has_port, 22, ret, err);
    if (rc == MEMFS_OK)
        rc = set_ssh_path(path, ret, err);
    if (rc < 0)
        return rc;
    ret->kind = URL_SSH;
    ret->username = user.len > 0 ? take(user) : NULL;
    set_origin(ret, "ssh", 22);
    ret->text = mem_printf("ssh://%.*s%s%s%s", (int)user.len, user.ptr, user.len > 0 ? "@" : "",
                           ret->origin + strlen("ssh://"), ret->path);
    return MEMFS_OK;
}

/* "user@host:path", as git reads it: a ':' before any '/'. */
static memfs_code parse_scp(memfs_str text, remote_url *ret, memfs_error *err)
{
    memfs_str rest = text, user = MEMFS_STR(""), host, path;
    const char *colon;
    memfs_code rc;

    split_path(text, &host, &path);
    if (split_authority(&host, &user))
        rest = str_from(text, user.len + 1);
    if (rest.len > 0 && rest.ptr[0] == '[') {
        colon = memchr(rest.ptr, ']', rest.len);
        colon = colon != NULL && colon + 1 < rest.ptr + rest.len && colon[1] == ':' ? colon + 1
                                                                                    : NULL;
    } else {
        colon = memchr(rest.ptr, ':', rest.len);
    }
    if (colon == NULL || memchr(user.ptr, ':', user.len) != NULL)
        return refuse(err, "is none that memfs takes: https, ssh, user@host:path or an absolute "
                           "path");
    host = str_make(rest.ptr, (size_t)(colon - rest.ptr));
    rc = check_user(user, err);
    if (rc == MEMFS_OK)
        rc = set_host(host, MEMFS_STR(""), false, 22, ret, err);
    if (rc == MEMFS_OK)
        rc = set_ssh_path(str_from(rest, host.len + 1), ret, err);
    if (rc < 0)
        return rc;
    ret->kind = URL_SSH;
    ret->username = user.len > 0 ? take(user) : NULL;
    ret->text = take(text);
    set_origin(ret, "ssh", 22);
    return MEMFS_OK;
}

static memfs_code parse_path(memfs_str path, bool is_url, remote_url *ret, memfs_error *err)
{
    if (path.len == 0 || path.ptr[0] != '/')
        return refuse(err, is_url ? "names a host in file://, which memfs does not take"
                                  : "is a relative path: a folder's begins with '/', a host's with "
                                    "https:// or ssh://");
    ret->kind = URL_PATH;
    ret->path = is_url ? decode(path) : take(path);
    if (has_controls(str_of(ret->path)))
        return refuse(err, "holds control characters, or bytes that are no UTF-8");
    ret->text = mem_strdup(ret->path);
    ret->origin = mem_strdup("");
    ret->host = mem_strdup("");
    return MEMFS_OK;
}

static bool begins(memfs_str *text, const char *scheme)
{
    size_t n = strlen(scheme);

    if (text->len < n || strncasecmp(text->ptr, scheme, n) != 0)
        return false;
    *text = str_from(*text, n);
    return true;
}

/* "name::address" is the address of a remote helper: git would start a program of that name. */
static bool is_helper(memfs_str text)
{
    size_t n = 0;

    while (n < text.len && (is_alnum(text.ptr[n]) || strchr("+-._", text.ptr[n]) != NULL))
        n++;
    return n + 1 < text.len && text.ptr[n] == ':' && text.ptr[n + 1] == ':';
}

static memfs_code parse_kind(memfs_str text, remote_url *ret, memfs_error *err)
{
    memfs_str rest = text, scheme, after;

    if (text.ptr[0] == '/')
        return parse_path(text, false, ret, err);
    if (has_blank(text))
        return refuse(err, "holds a blank");
    if (begins(&rest, "https://"))
        return parse_http(rest, true, ret, err);
    if (begins(&rest, "http://"))
        return parse_http(rest, false, ret, err);
    if (begins(&rest, "ssh://"))
        return parse_ssh(rest, ret, err);
    if (begins(&rest, "file://localhost/"))
        return parse_path(str_make(rest.ptr - 1, rest.len + 1), true, ret, err);
    if (begins(&rest, "file://"))
        return parse_path(rest, true, ret, err);
    if (str_split(text, ':', &scheme, &after) && str_starts_with(after, MEMFS_STR("//")))
        return refuse(err, "has a scheme that memfs does not take: https, ssh, file, or http "
                           "where it is allowed");
    if (memchr(text.ptr, ':', text.len) == NULL)
        return parse_path(text, false, ret, err);
    return parse_scp(text, ret, err);
}

memfs_code url_parse(const char *text, remote_url *ret, memfs_error *err)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_str s = str_of(text);
    memfs_code rc;

    if (s.len == 0)
        return refuse(err, "is empty");
    if (s.len > MAX_BYTES)
        return refuse(err, "is longer than 2,048 bytes");
    if (s.ptr[0] == '-')
        return refuse(err, "begins with '-', as an option does");
    if (is_helper(s))
        return refuse(err, "names a remote helper ('::'), which would run a program");
    rc = check_bytes(s, s.ptr[0] != '/', err);
    if (rc == MEMFS_OK)
        rc = parse_kind(s, &url, err);
    if (rc == MEMFS_OK)
        rc = check_dots(str_of(url.path), url.kind != URL_PATH, err);
    if (rc < 0)
        return rc;
    *ret = url;
    url = (remote_url)REMOTE_URL_INIT;
    return MEMFS_OK;
}

/* ---- around it ---- */

memfs_code url_expand(const char *template_text, const char *agent_id, char **ret, memfs_error *err)
{
    static const char mark[] = "{agentId}";
    size_t before = strcspn(template_text, "{}");
    const char *after = template_text + before;
    bool has_mark = strncmp(after, mark, strlen(mark)) == 0;

    if (!ids_is_agent(str_of(agent_id)))
        return memfs_fail(err, MEMFS_EINVALID, "that is no id of an agent: agent-<uuid>");
    after += has_mark ? strlen(mark) : 0;
    if (strpbrk(after, "{}") != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "the git URL may hold '{agentId}' once, and no "
                                               "other braces");
    *ret = mem_printf("%.*s%s%s", (int)before, template_text, has_mark ? agent_id : "", after);
    return MEMFS_OK;
}

char *url_letta(const char *base, const char *agent_id)
{
    size_t n = strlen(base);

    while (n > 0 && base[n - 1] == '/')
        n--;
    return mem_printf("%.*s/v1/git/%s/state.git", (int)n, base, agent_id);
}

bool url_same_origin(const remote_url *a, const remote_url *b)
{
    return a->kind == b->kind && a->kind != URL_PATH && strcmp(a->origin, b->origin) == 0;
}

bool url_is_loopback(const remote_url *u)
{
    memfs_str host = str_of(u->host);

    return str_equal(host, MEMFS_STR("localhost")) ||
           str_ends_with(host, MEMFS_STR(".localhost")) || str_equal(host, MEMFS_STR("[::1]")) ||
           (str_starts_with(host, MEMFS_STR("127.")) && is_dotted_quad(host));
}

void url_redact(memfs_buf *out, memfs_str text)
{
    _cleanup_(buf_dispose) memfs_buf clean = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    redact_add(&clean, text, NULL, 0);
    escape_add(out, buf_str(&clean));
}
