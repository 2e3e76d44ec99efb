/*
 * params.c - pydantic's verdicts on path and query values, in Python's words.
 *
 * What is matched here was read off FastAPI with pydantic 2: how text becomes an int (blanks around
 * it, a sign, single underscores between digits, ".0" behind it) or a bool (a closed list, any
 * case), the order of checks (too long, too short, then the pattern), and the shape of each error:
 *
 *     {'type': T, 'loc': ('query', 'limit'), 'msg': M, 'input': I}    ctx only where T has one
 *     {'type': T, 'loc': ('query', 'include', 2), ...}                for the third of a list
 *
 * Two places differ on purpose: a negative limit, which the reference passes on to a database that
 * fails with 500, is 422 "greater_than_equal" here; and a path id is judged by its pattern alone,
 * as agent-local-<uuid4> is an id too.  Numbers beyond 64 bits are held at the largest.
 */
#include "server/params.h"

#include "base/json.h"
#include "memory/ids.h"

#include <stdio.h>
#include <strings.h>
#include <utf8proc.h>

#define UUID4_PATTERN "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"

const params_rule PARAMS_LABEL = { "_/-", 1, 50 };
const params_rule PARAMS_NAME = { " _-", 1, 100 };
const params_rule PARAMS_SEARCH = { NULL, 1, 200 };

void params_dispose(params *p)
{
    buf_dispose(&p->errors);
}

/* ---- Python's repr ---- */

static bool is_printable(uint32_t cp)
{
    if (cp < 0x7f)
        return cp >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

static void put_py_char(memfs_buf *out, uint32_t cp, char quote)
{
    char utf8[4];

    if (cp == (uint32_t)quote || cp == '\\')
        buf_printf(out, "\\%c", (char)cp);
    else if (cp == '\n')
        buf_puts(out, "\\n");
    else if (cp == '\r')
        buf_puts(out, "\\r");
    else if (cp == '\t')
        buf_puts(out, "\\t");
    else if (is_printable(cp))
        buf_add(out, utf8, str_utf8_put(cp, utf8));
    else if (cp <= 0xff)
        buf_printf(out, "\\x%02x", cp);
    else if (cp <= 0xffff)
        buf_printf(out, "\\u%04x", cp);
    else
        buf_printf(out, "\\U%08x", cp);
}

/* Single quotes, unless there are some inside and no double ones. */
void params_py_str(memfs_buf *out, memfs_str s)
{
    bool has_single = s.len > 0 && memchr(s.ptr, '\'', s.len) != NULL;
    bool has_double = s.len > 0 && memchr(s.ptr, '"', s.len) != NULL;
    char quote = has_single && !has_double ? '"' : '\'';
    size_t pos = 0;

    buf_putc(out, quote);
    while (pos < s.len) {
        uint32_t cp;

        if (!str_utf8_next(s, &pos, &cp))
            cp = 0xfffd;
        put_py_char(out, cp, quote);
    }
    buf_putc(out, quote);
}

/* ---- errors ---- */

/* Where a value stands: ('query', 'limit'), or with an index ≥ 0 ('query', 'include', 2). */
typedef struct place {
    const char *where, *key;
    long index;
} place;

void params_add(params *p, const char *type, const char *loc, const char *msg, memfs_str input,
                const char *ctx)
{
    memfs_buf *out = &p->errors;

    buf_puts(out, p->n_errors++ == 0 ? "[" : ", ");
    buf_printf(out, "{'type': '%s', 'loc': (%s), 'msg': ", type, loc);
    params_py_str(out, str_of(msg));
    buf_puts(out, ", 'input': ");
    buf_add_str(out, input);
    if (ctx != NULL)
        buf_printf(out, ", 'ctx': %s", ctx);
    buf_putc(out, '}');
}

static void put_loc(const place *at, char out[160])
{
    int n = snprintf(out, 160, "'%s', '%.100s'", at->where, at->key);

    if (at->index >= 0)
        snprintf(out + n, 160 - (size_t)n, ", %ld", at->index);
}

/* ctx_value is Python text already. */
static void add_error(params *p, const char *type, const place *at, const char *msg,
                      memfs_str input, const char *ctx_key, const char *ctx_value)
{
    _cleanup_(buf_dispose) memfs_buf shown = MEMFS_BUF_INIT(PARAMS_MAX_DETAIL);
    _cleanup_(buf_dispose) memfs_buf ctx = MEMFS_BUF_INIT(PARAMS_MAX_DETAIL);
    char loc[160];

    put_loc(at, loc);
    params_py_str(&shown, input);
    if (ctx_key != NULL)
        buf_printf(&ctx, "{'%s': %s}", ctx_key, ctx_value);
    params_add(p, type, loc, msg, buf_str(&shown), ctx_key != NULL ? ctx.ptr : NULL);
}

static void add_pattern_error(params *p, const place *at, const char *pattern, memfs_str input)
{
    _cleanup_(buf_dispose) memfs_buf msg = MEMFS_BUF_INIT(1024);
    _cleanup_(buf_dispose) memfs_buf ctx = MEMFS_BUF_INIT(1024);

    buf_printf(&msg, "String should match pattern '%s'", pattern);
    params_py_str(&ctx, str_of(pattern));
    add_error(p, "string_pattern_mismatch", at, msg.ptr, input, "pattern", ctx.ptr);
}

static void add_length_error(params *p, const place *at, bool is_long, size_t bound,
                             memfs_str input)
{
    char msg[80], ctx[24];

    snprintf(msg, sizeof(msg), "String should have at %s %zu character%s",
             is_long ? "most" : "least", bound, bound == 1 ? "" : "s");
    snprintf(ctx, sizeof(ctx), "%zu", bound);
    add_error(p, is_long ? "string_too_long" : "string_too_short", at, msg, input,
              is_long ? "max_length" : "min_length", ctx);
}

/* 'a', 'b' or 'c' */
void params_add_choice(params *p, const char *loc, const char *const *choices, memfs_str input)
{
    _cleanup_(buf_dispose) memfs_buf shown = MEMFS_BUF_INIT(PARAMS_MAX_DETAIL);
    _cleanup_(buf_dispose) memfs_buf expected = MEMFS_BUF_INIT(4096);
    _cleanup_(buf_dispose) memfs_buf msg = MEMFS_BUF_INIT(4096);
    _cleanup_(buf_dispose) memfs_buf ctx = MEMFS_BUF_INIT(4096);

    for (size_t i = 0; choices[i] != NULL; i++) {
        if (i > 0)
            buf_puts(&expected, choices[i + 1] != NULL ? ", " : " or ");
        buf_printf(&expected, "'%s'", choices[i]);
    }
    buf_printf(&msg, "Input should be %s", expected.ptr);
    params_py_str(&shown, input);
    buf_puts(&ctx, "{'expected': ");
    params_py_str(&ctx, buf_str(&expected));
    buf_putc(&ctx, '}');
    params_add(p, "literal_error", loc, msg.ptr, buf_str(&shown), ctx.ptr);
}

static void add_choice_error(params *p, const place *at, const char *const *choices,
                             memfs_str input)
{
    char loc[160];

    put_loc(at, loc);
    params_add_choice(p, loc, choices, input);
}

/* ---- single values ---- */

/* The one value of a key; a second one is noted, to be refused. */
static bool single(params *p, const char *key, memfs_str *ret)
{
    memfs_str second;

    if (!p->lookup(p->source, key, 0, ret))
        return false;
    if (p->repeated == NULL && p->lookup(p->source, key, 1, &second))
        p->repeated = key;
    return true;
}

static bool has_id_form(memfs_str id, const char *prefix)
{
    if (strcmp(prefix, "agent") == 0)
        return ids_is_agent(id);
    return ids_is_prefixed_uuid4(id, prefix);
}

static void add_id_error(params *p, const place *at, const char *prefix, memfs_str value)
{
    char pattern[160];

    snprintf(pattern, sizeof(pattern), "^%s-" UUID4_PATTERN, prefix);
    add_pattern_error(p, at, pattern, value);
}

void params_path_id(params *p, const char *name, const char *prefix, memfs_str value)
{
    const place at = { "path", name, -1 };

    if (has_id_form(value, prefix))
        return;
    add_id_error(p, &at, prefix, value);
    p->example = strcmp(prefix, "agent") == 0 ? "agent-123e4567-e89b-42d3-8456-426614174000"
                                              : "block-123e4567-e89b-42d3-8456-426614174000";
}

bool params_id(params *p, const char *key, const char *prefix, memfs_str *ret)
{
    const place at = { "query", key, -1 };

    if (!single(p, key, ret))
        return false;
    if (has_id_form(*ret, prefix))
        return true;
    add_id_error(p, &at, prefix, *ret);
    return false;
}

bool params_text(params *p, const char *key, memfs_str *ret)
{
    return single(p, key, ret) && ret->len > 0;
}

static size_t char_count(memfs_str s)
{
    size_t n = 0, pos = 0;
    uint32_t cp;

    while (pos < s.len) {
        (void)str_utf8_next(s, &pos, &cp);
        n++;
    }
    return n;
}

static bool has_only(memfs_str s, const char *extra)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool is_alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

        if (!is_alnum && (c == '\0' || strchr(extra, c) == NULL))
            return false;
    }
    return true;
}

bool params_ruled(params *p, const char *key, const params_rule *rule, memfs_str *ret)
{
    const place at = { "query", key, -1 };
    char pattern[64];
    size_t n;

    if (!single(p, key, ret))
        return false;
    n = char_count(*ret);
    if (n > rule->max_chars) {
        add_length_error(p, &at, true, rule->max_chars, *ret);
        return false;
    }
    if (n < rule->min_chars) {
        add_length_error(p, &at, false, rule->min_chars, *ret);
        return false;
    }
    if (rule->extra == NULL || has_only(*ret, rule->extra))
        return true;
    snprintf(pattern, sizeof(pattern), "^[a-zA-Z0-9%s]+$", rule->extra);
    add_pattern_error(p, &at, pattern, *ret);
    return false;
}

/* ---- numbers and truth ---- */

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static memfs_str trimmed(memfs_str s)
{
    while (s.len > 0 && is_blank(s.ptr[0]))
        s = str_from(s, 1);
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

/* Digits with single underscores between them; what does not fit is held at INT64_MAX. */
static bool read_digits(memfs_str s, int64_t *ret)
{
    int64_t n = 0;

    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (c == '_' && i > 0 && i + 1 < s.len && s.ptr[i - 1] != '_')
            continue;
        if (c < '0' || c > '9')
            return false;
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, c - '0', &n))
            n = INT64_MAX;
    }
    *ret = n;
    return true;
}

/* ".0", ".00": a fraction that is none */
static bool is_zero_fraction(memfs_str s)
{
    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != '0')
            return false;
    }
    return true;
}

bool params_read_int(memfs_str text, int64_t *ret)
{
    memfs_str s = trimmed(text), whole, fraction;
    bool is_negative = s.len > 0 && s.ptr[0] == '-';

    if (s.len > 0 && (s.ptr[0] == '-' || s.ptr[0] == '+'))
        s = str_from(s, 1);
    if (str_split(s, '.', &whole, &fraction)) {
        if (!is_zero_fraction(fraction))
            return false;
        s = whole;
    }
    if (!read_digits(s, ret))
        return false;
    if (is_negative)
        *ret = -*ret;
    return true;
}

static void add_int_error(params *p, const place *at, memfs_str input)
{
    add_error(p, "int_parsing", at,
              "Input should be a valid integer, unable to parse string as an integer", input,
              NULL, NULL);
}

bool params_int(params *p, const char *key, int64_t *ret)
{
    const place at = { "query", key, -1 };
    memfs_str text;

    if (!single(p, key, &text))
        return false;
    if (params_read_int(text, ret))
        return true;
    add_int_error(p, &at, text);
    return false;
}

int64_t params_count(params *p, const char *key, int64_t absent)
{
    const place at = { "query", key, -1 };
    memfs_str text;
    int64_t n;

    if (!params_int(p, key, &n))
        return absent;
    if (n >= 0)
        return n;
    if (p->lookup(p->source, key, 0, &text))
        add_error(p, "greater_than_equal", &at, "Input should be greater than or equal to 0", text,
                  "ge", "0");
    return absent;
}

int64_t params_limit(params *p, int64_t absent)
{
    return params_count(p, "limit", absent);
}

static bool is_word_of(memfs_str s, const char *const *words)
{
    for (size_t i = 0; words[i] != NULL; i++) {
        if (s.len == strlen(words[i]) && strncasecmp(s.ptr, words[i], s.len) == 0)
            return true;
    }
    return false;
}

bool params_read_bool(memfs_str text, bool *ret)
{
    static const char *const yes[] = { "1", "on", "t", "true", "y", "yes", NULL };
    static const char *const no[] = { "0", "off", "f", "false", "n", "no", NULL };
    bool is_yes = is_word_of(text, yes);

    if (!is_yes && !is_word_of(text, no))
        return false;
    *ret = is_yes;
    return true;
}

bool params_bool(params *p, const char *key, bool absent)
{
    const place at = { "query", key, -1 };
    memfs_str text;
    bool b;

    if (!single(p, key, &text))
        return absent;
    if (params_read_bool(text, &b))
        return b;
    add_error(p, "bool_parsing", &at, "Input should be a valid boolean, unable to interpret input",
              text, NULL, NULL);
    return absent;
}

/* ---- choices and lists ---- */

static bool find_choice(memfs_str s, const char *const *choices, size_t *ret)
{
    for (size_t i = 0; choices[i] != NULL; i++) {
        if (str_equal(s, str_of(choices[i]))) {
            *ret = i;
            return true;
        }
    }
    return false;
}

size_t params_choice(params *p, const char *key, const char *const *choices, size_t absent)
{
    const place at = { "query", key, -1 };
    memfs_str text;
    size_t i;

    if (!single(p, key, &text))
        return absent;
    if (find_choice(text, choices, &i))
        return i;
    add_choice_error(p, &at, choices, text);
    return absent;
}

bool params_is_descending(params *p, bool absent)
{
    static const char *const orders[] = { "asc", "desc", NULL };

    return params_choice(p, "order", orders, absent ? 1 : 0) == 1;
}

void params_order_by_created(params *p)
{
    static const char *const known[] = { "created_at", NULL };

    (void)params_choice(p, "order_by", known, 0);
}

unsigned params_choices(params *p, const char *key, const char *const *choices, bool *ret_given)
{
    unsigned mask = 0;
    memfs_str text;
    size_t i, found;

    for (i = 0; p->lookup(p->source, key, i, &text); i++) {
        const place at = { "query", key, (long)i };

        if (find_choice(text, choices, &found))
            mask |= 1u << found;
        else
            add_choice_error(p, &at, choices, text);
    }
    *ret_given = i > 0;
    return mask;
}

/* At the place of the first that is too many. */
static void refuse_excess(params *p, const char *key, size_t max, memfs_str excess)
{
    const place at = { "query", key, (long)max };
    char msg[64];

    snprintf(msg, sizeof(msg), "List should have at most %zu items after validation", max);
    add_error(p, "too_long", &at, msg, excess, NULL, NULL);
}

size_t params_ints(params *p, const char *key, int64_t *ret, size_t max)
{
    memfs_str text;
    size_t i;

    for (i = 0; i < max && p->lookup(p->source, key, i, &text); i++) {
        const place at = { "query", key, (long)i };

        if (!params_read_int(text, &ret[i]))
            add_int_error(p, &at, text);
    }
    if (i == max && p->lookup(p->source, key, i, &text))
        refuse_excess(p, key, max, text);
    return i;
}

bool params_given(const params *p, const char *key)
{
    memfs_str text;

    return p->lookup(p->source, key, 0, &text);
}

size_t params_texts(params *p, const char *key, memfs_str *ret, size_t max)
{
    memfs_str excess;
    size_t n = 0;

    while (n < max && p->lookup(p->source, key, n, &ret[n]))
        n++;
    if (n == max && p->lookup(p->source, key, n, &excess))
        refuse_excess(p, key, max, excess);
    return n;
}

/* ---- the answer ---- */

bool params_are_good(const params *p)
{
    return p->n_errors == 0 && p->repeated == NULL;
}

void params_write_422(const params *p, memfs_buf *out)
{
    json_writer w = JSON_WRITER_INIT(out);
    _cleanup_(buf_dispose) memfs_buf detail = MEMFS_BUF_INIT(PARAMS_MAX_DETAIL + 1);

    buf_add_str(&detail, buf_str(&p->errors));
    buf_putc(&detail, ']');
    jw_object(&w);
    jw_key_text(&w, "trace_id", "");
    jw_key_str(&w, "detail", buf_str(&detail));
    if (p->example != NULL) {
        jw_key(&w, "examples");
        jw_array(&w);
        jw_text(&w, p->example);
        jw_array_end(&w);
    }
    jw_object_end(&w);
}
