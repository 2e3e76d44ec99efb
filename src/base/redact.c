#include "base/redact.h"

#include <strings.h>

/*
 * One pass from left to right: at each position the rules are asked in order how many bytes there
 * are to be left out; the first that wants some wins.  A rule looks at the byte before only to
 * see that a word begins.  Cost: text times rules.
 */

#define MIN_SECRET 4

typedef struct place {
    memfs_str rest; /* from here to the end */
    char before;    /* the byte in front; 0 at the start */
} place;

/* What a rule found: `keep` bytes stay, then `drop` bytes go.  drop 0: nothing. */
typedef struct hit {
    size_t keep, drop;
} hit;

static const hit NOTHING = { 0, 0 };

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* What tokens are made of; anything past ASCII counts, so that an odd one goes as a whole. */
static bool is_token_char(char c)
{
    return is_alnum(c) || (unsigned char)c >= 0x80 ||
           (c != '\0' && strchr("+/=._~-%!*", c) != NULL);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool ends_url(char c)
{
    return (unsigned char)c <= ' ' || c == '\'' || c == '"' || c == '<' || c == '>' || c == '`';
}

static bool has_word(memfs_str s, memfs_str word)
{
    return s.len >= word.len && strncasecmp(s.ptr, word.ptr, word.len) == 0;
}

static size_t run_of_token(memfs_str s, size_t from)
{
    size_t n = 0;

    while (from + n < s.len && is_token_char(s.ptr[from + n]))
        n++;
    return n;
}

/* "://user:secret@" - also with the slashes mistyped; the last '@' of the authority counts. */
static hit user_info(place p)
{
    size_t start, end, at = 0;

    if (p.rest.ptr[0] != ':' || p.rest.len < 2 || p.rest.ptr[1] != '/' || !is_alnum(p.before))
        return NOTHING;
    for (start = 1; start < p.rest.len && p.rest.ptr[start] == '/';)
        start++;
    for (end = start; end < p.rest.len && !ends_url(p.rest.ptr[end]) &&
                      strchr("/?#\\", p.rest.ptr[end]) == NULL; end++)
        if (p.rest.ptr[end] == '@')
            at = end;
    return at > start ? (hit){ start, at - start } : NOTHING;
}

static hit header(place p)
{
    memfs_str name = MEMFS_STR("authorization:");
    size_t start = name.len, end;

    if (!has_word(p.rest, name))
        return NOTHING;
    while (start < p.rest.len && is_blank(p.rest.ptr[start]))
        start++;
    for (end = start; end < p.rest.len && strchr("\r\n'\"", p.rest.ptr[end]) == NULL;)
        end++;
    return (hit){ start, end - start };
}

static hit scheme(place p)
{
    static const char *const words[] = { "basic", "bearer" };

    if (is_alnum(p.before))
        return NOTHING;
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        size_t start = strlen(words[i]);

        if (!has_word(p.rest, str_of(words[i])) || start == p.rest.len ||
            !is_blank(p.rest.ptr[start]))
            continue;
        while (start < p.rest.len && is_blank(p.rest.ptr[start]))
            start++;
        return (hit){ start, run_of_token(p.rest, start) };
    }
    return NOTHING;
}

static hit parameter(place p)
{
    static const char *const names[] = { "access_token=", "private_token=", "token=", "password=",
                                         "secret=", "api_key=", "apikey=" };

    if (is_alnum(p.before))
        return NOTHING;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        size_t start = strlen(names[i]), end = start;

        if (!has_word(p.rest, str_of(names[i])))
            continue;
        while (end < p.rest.len && !ends_url(p.rest.ptr[end]) && p.rest.ptr[end] != '&')
            end++;
        return (hit){ start, end - start };
    }
    return NOTHING;
}

static hit known_token(place p)
{
    static const char *const prefixes[] = { "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_",
                                            "glpat-", "gldt-", "sk-", "xoxb-", "xoxp-" };

    if (is_alnum(p.before))
        return NOTHING;
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
        size_t n = strlen(prefixes[i]);

        if (str_starts_with(p.rest, str_of(prefixes[i])) && run_of_token(p.rest, n) >= 8)
            return (hit){ 0, n + run_of_token(p.rest, n) };
    }
    return NOTHING;
}

static hit by_value(place p, const char *const *secrets, size_t n)
{
    size_t longest = 0;

    for (size_t i = 0; i < n; i++) {
        memfs_str secret = str_of(secrets[i]);

        if (secret.len >= MIN_SECRET && secret.len > longest && str_starts_with(p.rest, secret))
            longest = secret.len;
    }
    return (hit){ 0, longest };
}

/* A secret that begins in what goes, and ends past it, goes as a whole. */
static hit widen(hit found, place p, const char *const *secrets, size_t n)
{
    for (size_t i = found.keep; i < found.keep + found.drop; i++) {
        hit value = by_value((place){ str_from(p.rest, i), 0 }, secrets, n);

        if (i + value.drop > found.keep + found.drop)
            found.drop = i + value.drop - found.keep;
    }
    return found;
}

/* One that begins in what a pattern keeps ("https://", "token=") comes first. */
static bool holds_value(memfs_str rest, size_t keep, const char *const *secrets, size_t n)
{
    for (size_t i = 0; i < keep; i++)
        if (by_value((place){ str_from(rest, i), 0 }, secrets, n).drop > 0)
            return true;
    return false;
}

static hit look(place p, const char *const *secrets, size_t n)
{
    static hit (*const rules[])(place) = { user_info, header, scheme, parameter, known_token };
    hit found = by_value(p, secrets, n);

    if (found.drop > 0)
        return widen(found, p, secrets, n);
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        found = rules[i](p);
        if (found.drop > 0)
            return holds_value(p.rest, found.keep, secrets, n) ? NOTHING
                                                               : widen(found, p, secrets, n);
    }
    return NOTHING;
}

void redact_add(memfs_buf *out, memfs_str text, const char *const *secrets, size_t n_secrets)
{
    size_t pos = 0;

    while (pos < text.len) {
        place p = { str_from(text, pos), pos > 0 ? text.ptr[pos - 1] : '\0' };
        hit found = look(p, secrets, n_secrets);

        if (found.drop == 0) {
            buf_putc(out, text.ptr[pos++]);
            continue;
        }
        buf_add(out, p.rest.ptr, found.keep);
        buf_puts(out, REDACTED);
        pos += found.keep + found.drop;
    }
}
