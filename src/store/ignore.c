#include "store/ignore.h"

#include "base/mem.h"

#include <ctype.h>
#include <stdlib.h>

typedef struct rule {
    char *pattern, *folder;
    bool is_negative, only_folders, has_slash;
} rule;

struct ignore {
    rule *rules;
    size_t n;
};

/* life cycle */

ignore *ignore_new(void)
{
    return mem_alloc(sizeof(ignore));
}

void ignore_pop(ignore *g, size_t mark)
{
    while (g->n > mark) {
        g->n--;
        free(g->rules[g->n].pattern);
        free(g->rules[g->n].folder);
    }
}

void ignore_free(ignore *g)
{
    if (g == NULL)
        return;
    ignore_pop(g, 0);
    free(g->rules);
    free(g);
}

/* matching */

typedef enum verdict {
    MATCH,
    NO_MATCH,
    NEVER, /* the text ended inside a '*': no shorter rest can match either */
} verdict;

static bool in_class(const char *name, size_t len, unsigned char c)
{
    static const struct {
        const char *name;
        int (*is)(int);
    } classes[] = {
        { "alnum", isalnum }, { "alpha", isalpha }, { "blank", isblank }, { "cntrl", iscntrl },
        { "digit", isdigit }, { "graph", isgraph }, { "lower", islower }, { "print", isprint },
        { "punct", ispunct }, { "space", isspace }, { "upper", isupper }, { "xdigit", isxdigit },
    };

    for (size_t i = 0; i < ARRAY_LEN(classes); i++)
        if (strlen(classes[i].name) == len && memcmp(classes[i].name, name, len) == 0)
            return c < 0x80 && classes[i].is(c);
    return false;
}

/* *at is behind the '['; afterwards behind the ']'.  False: there is no end. */
static bool match_brackets(const char **at, unsigned char c, bool *ret)
{
    const char *p = *at;
    bool is_negative = *p == '!' || *p == '^', is_in = false;
    unsigned char from = 0;

    p += is_negative;
    for (const char *first = p;; p++) {
        unsigned char ch = (unsigned char)*p;

        if (ch == '\0')
            return false;
        if (ch == ']' && p > first)
            break;
        if (ch == '[' && p[1] == ':') {
            const char *end = strchr(p + 2, ']');

            if (end != NULL && end[-1] == ':' && end > p + 2) {
                is_in = is_in || in_class(p + 2, (size_t)(end - p) - 3, c);
                p = end;
                from = 0;
                continue;
            }
        }
        if (ch == '-' && from != 0 && p[1] != '\0' && p[1] != ']') {
            p++;
            if (*p == '\\' && *++p == '\0')
                return false;
            is_in = is_in || (c >= from && c <= (unsigned char)*p);
            from = 0;
            continue;
        }
        if (ch == '\\' && (ch = (unsigned char)*++p) == '\0')
            return false;
        is_in = is_in || c == ch;
        from = ch;
    }
    *at = p + 1;
    *ret = is_in != is_negative;
    return true;
}

static verdict match(const char *start, const char *p, const char *t, bool in_path);

/* p is behind the first '*'. */
static verdict match_star(const char *start, const char *p, const char *t, bool in_path)
{
    const char *before = p - 2;
    bool crosses = !in_path;
    verdict v;

    if (*p == '*') {
        while (*p == '*')
            p++;
        if (in_path && (before < start || *before == '/') && (*p == '\0' || *p == '/')) {
            crosses = true;
            if (*p == '/' && match(start, p + 1, t, in_path) == MATCH)
                return MATCH; /* no folder at all */
        }
    }
    if (*p == '\0')
        return crosses || strchr(t, '/') == NULL ? MATCH : NO_MATCH;
    for (;; t++) {
        v = match(start, p, t, in_path);
        if (v == MATCH || (v == NEVER && crosses))
            return v;
        if (*t == '\0')
            return NEVER;
        if (!crosses && *t == '/')
            return NO_MATCH;
    }
}

static verdict match(const char *start, const char *p, const char *t, bool in_path)
{
    for (; *p != '\0'; p++, t++) {
        bool is_in;

        if (*t == '\0' && *p != '*')
            return NEVER;
        switch (*p) {
        case '*': return match_star(start, p + 1, t, in_path);
        case '?':
            if (in_path && *t == '/')
                return NO_MATCH;
            break;
        case '[':
            p++;
            if (!match_brackets(&p, (unsigned char)*t, &is_in))
                return NEVER;
            if (!is_in || (in_path && *t == '/'))
                return NO_MATCH;
            p--;
            break;
        case '\\':
            p++;
            if (*p == '\0')
                return NEVER;
            __attribute__((fallthrough));
        default:
            if (*p != *t)
                return NO_MATCH;
        }
    }
    return *t == '\0' ? MATCH : NO_MATCH;
}

bool ignore_wildmatch(const char *pattern, const char *text, bool in_path)
{
    return match(pattern, pattern, text, in_path) == MATCH;
}

static bool rule_matches(const rule *r, const char *path, bool is_folder)
{
    size_t len = strlen(r->folder);
    const char *slash = strrchr(path, '/');

    if ((r->only_folders && !is_folder) || strncmp(path, r->folder, len) != 0)
        return false;
    if (r->has_slash)
        return ignore_wildmatch(r->pattern, path + len, true);
    return ignore_wildmatch(r->pattern, slash != NULL ? slash + 1 : path, false);
}

bool ignore_matches(const ignore *g, const char *path, bool is_folder)
{
    for (size_t i = g->n; i > 0; i--)
        if (rule_matches(&g->rules[i - 1], path, is_folder))
            return !g->rules[i - 1].is_negative;
    return false;
}

/* reading */

/* Blanks at the end do not count unless a backslash stands before them. */
static memfs_str trim(memfs_str line)
{
    size_t keep = 0;

    for (size_t i = 0; i < line.len; i++) {
        if (line.ptr[i] == '\\' && i + 1 < line.len)
            i++;
        else if (line.ptr[i] == ' ')
            continue;
        keep = i + 1;
    }
    return str_make(line.ptr, keep);
}

static void add_rule(ignore *g, memfs_str line, const char *folder)
{
    rule r = { .is_negative = false };

    if (line.len > 0 && line.ptr[line.len - 1] == '\r')
        line.len--;
    if (line.len == 0 || line.ptr[0] == '#')
        return;
    line = trim(line);
    if (line.len > 0 && line.ptr[0] == '!') {
        r.is_negative = true;
        line = str_from(line, 1);
    }
    if (line.len > 0 && line.ptr[line.len - 1] == '/') {
        r.only_folders = true;
        line.len--;
    }
    if (line.len == 0 || memchr(line.ptr, '\0', line.len) != NULL)
        return;
    r.has_slash = memchr(line.ptr, '/', line.len) != NULL;
    if (line.ptr[0] == '/')
        line = str_from(line, 1);
    r.pattern = mem_strndup(line.ptr, line.len);
    r.folder = mem_strdup(folder);
    g->rules = mem_realloc(g->rules, g->n + 1, sizeof(*g->rules));
    g->rules[g->n++] = r;
}

size_t ignore_push(ignore *g, memfs_str text, const char *folder)
{
    size_t mark = g->n;
    memfs_str line, rest = text;

    if (str_starts_with(rest, MEMFS_STR("\xef\xbb\xbf")))
        rest = str_from(rest, 3);
    while (str_split(rest, '\n', &line, &rest))
        add_rule(g, line, folder);
    add_rule(g, rest, folder);
    return mark;
}
